//! [`SimClock`]: time that a simulated run moves by hand.
//!
//! Monotonic time is tokio's, which a paused runtime advances whenever everybody sleeps. Wall time is that plus an offset
//! which can jump in both directions.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use reseed_core::clock::Clock;

/// Tokio's time with a wall clock that jumps. Make it inside the runtime.
#[derive(Debug)]
pub struct SimClock {
    start: tokio::time::Instant,
    began: Timestamp,
    offset: AtomicI64,
}

impl SimClock {
    /// A clock whose wall time is `began` now.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is a clock: the runtime's paused time is what it tells"
    )]
    pub fn new(began: Timestamp) -> Self {
        Self {
            start: tokio::time::Instant::now(),
            began,
            offset: AtomicI64::new(0),
        }
    }

    /// Makes wall time jump, forwards or backwards. Monotonic time goes on.
    pub fn jump(&self, seconds: i64) {
        self.offset.fetch_add(seconds, Ordering::SeqCst);
    }
}

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.monotonic()).unwrap_or(SignedDuration::MAX);
        let offset = SignedDuration::from_secs(self.offset.load(Ordering::SeqCst));
        self.began
            .saturating_add(passed.saturating_add(offset))
            .unwrap_or(self.began)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is a clock: it sleeps in the runtime's paused time"
    )]
    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}
