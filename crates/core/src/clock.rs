//! The only place that reads a clock or sleeps.
//!
//! Everything else takes a [`Clock`], so that a simulated run can move time by hand. Wall time can jump; use
//! [`Clock::monotonic`] for how long something took and [`Clock::now`] for when it was.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

/// Wall time, elapsed time and sleep.
#[async_trait]
pub trait Clock: Send + Sync + fmt::Debug {
    /// What the wall clock says. It may jump in both directions.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment of this process. It never runs backwards.
    fn monotonic(&self) -> Duration;

    /// Returns after `time` of monotonic time.
    async fn sleep(&self, time: Duration);
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: tokio::time::Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts at zero now.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the clock"
    )]
    pub fn new() -> Self {
        Self {
            start: tokio::time::Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the clock"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that sleeps")]
    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}
