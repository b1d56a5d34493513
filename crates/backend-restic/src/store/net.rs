//! What is different about a store at the other end of a network: it may take its time, or answer later.
//!
//! Every request has a limit: for an answer to begin, for each piece of it, and for what is sent by its size. A request
//! that failed for a reason that passes is made again, in the core's one loop and never in the client's own, and only
//! once the store has answered anything: one that can't be reached at all is for the caller to try again or to pass over,
//! and waiting here would multiply with the waits there.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error as StoreError, GetOptions, GetRange, ObjectStore};
use reseed_core::clock::Clock;
use reseed_core::entropy::{Entropy, SplitMix};
use reseed_core::retry::{Policy, Retryable, retry};
use tokio_util::sync::CancellationToken;

use crate::error::{EngineError, Result};

/// Waits of 0.2, 0.6, 1.8 and 5 seconds, half of each left to chance.
const AGAIN: Policy = Policy {
    tries: 5,
    first: Duration::from_millis(200),
    factor: 3,
    cap: Duration::from_secs(5),
    jitter_percent: 50,
    budget: None,
};

/// As large as packs are.
const MOST_AT_ONCE: usize = 32 << 20;

/// How long a request may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Until its answer begins.
    pub(crate) answer: Duration,
    /// From one piece of an answer to the next.
    pub(crate) piece: Duration,
    /// The fewest bytes sent in a second that still count as progress.
    pub(crate) slowest: u64,
}

impl Default for Patience {
    /// A pack of 16 MiB may take five minutes to send, which is half a megabit a second.
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(45),
            piece: Duration::from_secs(30),
            slowest: 64 << 10,
        }
    }
}

impl Patience {
    /// For sending so many bytes and being answered.
    pub(crate) fn to_send(self, bytes: usize) -> Duration {
        let seconds = u64::try_from(bytes).unwrap_or(u64::MAX) / self.slowest.max(1);
        self.answer.saturating_add(Duration::from_secs(seconds))
    }
}

/// A store that is reached over a network.
#[derive(Debug, Clone)]
pub(crate) struct Net {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    pub(crate) patience: Patience,
    answered: Arc<AtomicBool>,
}

/// An error that the loop may look at.
struct Tried(EngineError);

impl Retryable for Tried {
    fn is_retryable(&self) -> bool {
        self.0.passes()
    }
}

impl Net {
    pub(crate) fn new(clock: Arc<dyn Clock>, patience: Patience) -> Self {
        Self {
            clock,
            entropy: Arc::new(SplitMix::system()),
            patience,
            answered: Arc::default(),
        }
    }

    /// Makes a request, and again while that may help.
    pub(crate) async fn request<T, F>(
        &self,
        mut request: impl FnMut() -> F,
        sort: impl Fn(&StoreError) -> EngineError,
    ) -> Result<T>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let policy = match self.answered.load(Ordering::Relaxed) {
            true => AGAIN,
            false => Policy::ONCE,
        };
        // Whoever cancels drops this whole future.
        let never = CancellationToken::new();
        let (answered, sort) = (&*self.answered, &sort);
        let tried = retry(
            &policy,
            &*self.clock,
            &*self.entropy,
            &never,
            |_| {
                let asked = request();
                async move {
                    let answer = asked.await;
                    if matches!(answer, Ok(_) | Err(StoreError::NotFound { .. })) {
                        answered.store(true, Ordering::Relaxed);
                    }
                    answer.map_err(|error| Tried(sort(&error)))
                }
            },
            |again| tracing::debug!(error = %again.error.0, "asking the store again"),
        );
        tried.await.map_err(|failure| failure.error.0)
    }
}

/// Ends a request that takes longer than it may. Without a limit it is not watched, and no timer is needed.
pub(crate) async fn within<T>(
    limit: Option<Duration>,
    request: impl Future<Output = object_store::Result<T>>,
) -> object_store::Result<T> {
    let Some(limit) = limit else {
        return request.await;
    };
    match tokio::time::timeout(limit, request).await {
        Ok(answer) => answer,
        Err(_) => Err(StoreError::Generic {
            store: "S3",
            source: Box::new(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {limit:?}"),
            )),
        }),
    }
}

/// Reads an object or a part of it, as long as it goes on.
pub(crate) async fn fetch(
    objects: Arc<dyn ObjectStore>,
    at: Path,
    range: Option<std::ops::Range<u64>>,
    patience: Patience,
) -> object_store::Result<Bytes> {
    let options = GetOptions {
        range: range.map(GetRange::Bounded),
        ..GetOptions::default()
    };
    let found = within(Some(patience.answer), objects.get_opts(&at, options)).await?;
    let length = usize::try_from(found.range.end.saturating_sub(found.range.start)).unwrap_or(0);
    let mut pieces = found.into_stream();
    let mut first = Bytes::new();
    let mut more: Vec<u8> = Vec::new();
    while let Some(piece) = within(Some(patience.piece), pieces.try_next()).await? {
        if first.is_empty() {
            first = piece;
        } else {
            if more.is_empty() {
                // What a server announces is no reason to ask for any amount of memory at once.
                more.reserve(length.min(MOST_AT_ONCE));
                more.extend_from_slice(&first);
            }
            more.extend_from_slice(&piece);
        }
    }
    Ok(if more.is_empty() { first } else { more.into() })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A clock whose sleeps take no time and are written down.
    #[derive(Debug, Default)]
    struct Hand(Mutex<Vec<Duration>>);

    #[async_trait::async_trait]
    impl Clock for Hand {
        fn now(&self) -> jiff::Timestamp {
            jiff::Timestamp::UNIX_EPOCH
        }
        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
        async fn sleep(&self, time: Duration) {
            self.0.lock().unwrap().push(time);
        }
    }

    fn failing(error: &EngineError) -> (usize, usize) {
        let clock = Arc::new(Hand::default());
        let net = Net::new(Arc::clone(&clock) as _, Patience::default());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut counts = Vec::new();
        for _ in 0..2 {
            let mut asked = 0;
            let result: Result<()> = runtime.block_on(net.request(
                || {
                    asked += 1;
                    std::future::ready(Err(StoreError::NotImplemented {
                        operation: String::new(),
                        implementer: String::new(),
                    }))
                },
                |_| error.clone(),
            ));
            assert_eq!(result, Err(error.clone()));
            counts.push(asked);
            runtime
                .block_on(net.request(|| std::future::ready(Ok(())), |_| error.clone()))
                .unwrap();
        }
        (counts[0], counts[1])
    }

    #[test]
    fn only_what_passes_is_asked_again_and_only_of_a_store_that_has_answered() {
        let location = || "s3:there".to_owned();
        let passing = EngineError::Unreachable {
            location: location(),
            detail: "503".into(),
        };
        assert_eq!(failing(&passing), (1, 5));
        let lasting = EngineError::NoBucket {
            location: location(),
            detail: "404".into(),
        };
        assert_eq!(failing(&lasting), (1, 1));
    }

    #[test]
    fn what_is_sent_may_take_the_longer_the_larger_it_is() {
        let patience = Patience::default();
        assert_eq!(patience.to_send(0), Duration::from_secs(45));
        assert_eq!(patience.to_send(16 << 20), Duration::from_secs(45 + 256));
    }
}
