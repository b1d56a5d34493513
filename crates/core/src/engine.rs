//! What the operations are given: a clock, randomness, a verifier and a journal. All of it is passed in.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::context::Context;
use crate::entropy::Entropy;
use crate::error::{Common, Effect, Error, Kind};
use crate::journal::Journal;
use crate::verify::Verifier;

/// Runs operations. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Ids and jitter.
    pub entropy: Arc<dyn Entropy>,
    /// Looks at staged trees.
    pub verifier: Arc<dyn Verifier>,
    /// Keeps the history.
    pub journal: Arc<dyn Journal>,
    /// The name of this host, recorded with off-site points.
    pub host: String,
}

/// How long a call that is told to stop may take to do so before it is dropped.
pub const GRACE: Duration = Duration::from_secs(10);

impl Engine {
    /// Runs a call inside a time limit, and ends it by its own token when the time is up or the run is cancelled, so that it
    /// can kill and reap what it started.
    ///
    /// # Errors
    /// The call's own, or `TimedOut` or `Cancelled` with an unknown effect.
    pub async fn within<T, K, F, Fut>(
        &self,
        cx: &Context,
        limit: Duration,
        what: &str,
        call: F,
    ) -> Result<T, Error<K>>
    where
        K: Kind,
        F: FnOnce(Context) -> Fut,
        Fut: Future<Output = Result<T, Error<K>>>,
    {
        if limit.is_zero() {
            // Begun now, it could only be ended again, and one that doesn't listen would cost its grace each time.
            return Err(Error::new(
                K::from_common(Common::TimedOut),
                format!("{what} was not begun: no time is left for it"),
            ));
        }
        let is_up = async {
            self.clock.sleep(limit).await;
            format!("{what} took longer than {} s", limit.as_secs())
        };
        self.unless(cx, what, is_up, call).await
    }

    /// The same with an end that is told, in words, by a future.
    pub(crate) async fn unless<T, K, F, Fut>(
        &self,
        cx: &Context,
        what: &str,
        is_up: impl Future<Output = String>,
        call: F,
    ) -> Result<T, Error<K>>
    where
        K: Kind,
        F: FnOnce(Context) -> Fut,
        Fut: Future<Output = Result<T, Error<K>>>,
    {
        let inner = cx.child();
        let mut running = pin!(call(inner.clone()));
        let (common, words) = tokio::select! {
            biased;
            done = &mut running => return done,
            () = cx.cancel.cancelled() => (Common::Cancelled, format!("{what} was cancelled")),
            words = is_up => (Common::TimedOut, words),
        };
        inner.cancel.cancel();
        tokio::select! {
            biased;
            // What finished in spite of all is not thrown away.
            done = &mut running => match done {
                Ok(value) => Ok(value),
                Err(error) => Err(Error::new(K::from_common(common), words).effect(error.may_have()).said(error)),
            },
            () = self.clock.sleep(GRACE) => Err(Error::new(K::from_common(common), words).effect(Effect::Unknown)),
        }
    }
}
