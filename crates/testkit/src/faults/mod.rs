//! Fault rules that make any backend fail, real ones too.
//!
//! [`Faults`] is an ordered list of rules; the first that matches a call strikes. A rule lasts as long as its [`Guard`].
//! [`Faulty`] wraps a trait object of any of the five traits and asks the list before each call. Without rules it passes
//! everything through, so the conformance suites pass over it. It knows nothing of what is behind the trait: stored data
//! is broken by a hook of the caller's, staged data through [`Files`].

mod crash;
mod offsite;
mod replicator;
mod rules;
mod source;
mod store;
pub(crate) mod turns;
mod wal;

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use reseed_core::Context;
use reseed_core::error::{
    Common, Error, Kind, OffsiteKind, ReplicateKind, Retry, SourceKind, StoreKind, WalKind,
};
use reseed_core::point::Target;

pub use crash::{Crashed, crash_after};
pub use rules::{Fault, Faults, Guard, Hook, Op, Rule};

use crate::files::Files;

/// A backend with faults.
pub struct Faulty<T: ?Sized> {
    inner: Arc<T>,
    who: String,
    faults: Faults,
    files: Arc<dyn Files>,
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Faulty<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({}: {:?})", self.who, &self.inner)
    }
}

/// The kinds that wrong credentials and a lock have in each trait.
pub trait FaultKind: Kind {
    /// The credentials are wrong.
    const DENIED: Self;
    /// Somebody else has it.
    const LOCKED: Self;
}

impl FaultKind for StoreKind {
    const DENIED: Self = Self::PermissionDenied;
    const LOCKED: Self = Self::Busy;
}
impl FaultKind for ReplicateKind {
    const DENIED: Self = Self::AuthFailed;
    const LOCKED: Self = Self::Busy;
}
impl FaultKind for OffsiteKind {
    const DENIED: Self = Self::WrongPassword;
    const LOCKED: Self = Self::Locked;
}
impl FaultKind for SourceKind {
    const DENIED: Self = Self::WrongPassword;
    const LOCKED: Self = Self::Locked;
}
impl FaultKind for WalKind {
    const DENIED: Self = Self::AuthFailed;
    const LOCKED: Self = Self::Busy;
}

impl<T: ?Sized> Faulty<T> {
    /// Wraps a backend. `who` is what rules call it; staged files are broken through `files`.
    pub fn new(inner: Arc<T>, who: &str, faults: &Faults, files: Arc<dyn Files>) -> Self {
        Self {
            inner,
            who: who.to_owned(),
            faults: faults.clone(),
            files,
        }
    }

    fn strike(&self, op: Op) -> Option<Fault> {
        self.faults.strike(&self.who, op)
    }

    /// The call, with the fault that struck it. `inner_cx` is the context that `call` was made with: a transfer is cut by
    /// cancelling it, because that is how every backend can be stopped in its middle.
    async fn run<K: FaultKind, R>(
        &self,
        cx: &Context,
        inner_cx: &Context,
        op: Op,
        fault: Option<Fault>,
        call: impl Future<Output = Result<R, Error<K>>> + Send,
    ) -> Result<R, Error<K>> {
        let fail = |kind: K| Error::new(kind, format!("injected into {op:?} of {}", self.who));
        let common = |common: Common| fail(K::from_common(common));
        match fault {
            None | Some(Fault::Flip(_) | Fault::Stale) => call.await,
            Some(Fault::FailBefore(kind)) => Err(common(kind)),
            Some(Fault::Denied) => Err(fail(K::DENIED)),
            Some(Fault::Locked) => Err(fail(K::LOCKED)),
            Some(Fault::FailAfter(kind)) => {
                call.await?;
                Err(common(kind).effect(op.at_most()))
            }
            Some(Fault::Hang(time)) => {
                if !self.hang(cx, time).await {
                    return Err(common(Common::Cancelled));
                }
                call.await
            }
            Some(Fault::HangIn(at, time)) => {
                let pause = |point| (point == at.max(1)).then_some(time);
                self.paced(cx, call, pause).await
            }
            Some(Fault::Slow(each)) => self.paced(cx, call, |_| Some(Some(each))).await,
            Some(Fault::Stuck) => std::future::pending().await,
            Some(Fault::Cut(at)) => {
                self.cut(inner_cx, op, common(Common::Unreachable), at, call)
                    .await
            }
            Some(Fault::NoSpace(at)) => {
                let error = common(Common::NoSpace).retry(Retry::AfterFix);
                self.cut(inner_cx, op, error, at, call).await
            }
            Some(Fault::Crash(polls)) => {
                let ended = crash_after(polls, call).await;
                let Ok(result) = ended else {
                    self.faults.crash();
                    return std::future::pending().await;
                };
                result
            }
            Some(Fault::Before(hook)) => {
                hook();
                call.await
            }
            Some(Fault::After(hook)) => {
                let result = call.await;
                hook();
                result
            }
        }
    }

    /// A call that is held up at its await points, counted from 1.
    async fn paced<F: Future>(
        &self,
        cx: &Context,
        call: F,
        pause: impl Fn(usize) -> Option<Option<Duration>>,
    ) -> F::Output {
        let (mut call, mut point) = (pin!(call), 0);
        loop {
            let polled = std::future::poll_fn(|task| {
                point += 1;
                match (call.as_mut().poll(task), pause(point)) {
                    (Poll::Ready(done), _) => Poll::Ready(Ok(done)),
                    (Poll::Pending, Some(time)) => Poll::Ready(Err(time)),
                    (Poll::Pending, None) => Poll::Pending,
                }
            });
            match polled.await {
                Ok(done) => return done,
                Err(time) => self.hang(cx, time).await,
            };
        }
    }

    /// False when the run was cancelled before the time was over.
    async fn hang(&self, cx: &Context, time: Option<Duration>) -> bool {
        let Some(time) = time else {
            cx.cancel.cancelled().await;
            return false;
        };
        tokio::select! {
            biased;
            () = cx.cancel.cancelled() => false,
            () = self.faults.clock().sleep(time) => true,
        }
    }

    async fn cut<K: Kind, R>(
        &self,
        inner_cx: &Context,
        op: Op,
        error: Error<K>,
        at: u64,
        call: impl Future<Output = Result<R, Error<K>>> + Send,
    ) -> Result<R, Error<K>> {
        let polls = usize::try_from(at % 64).unwrap_or(0);
        match crate::conformance::cancelled_after(inner_cx, polls, call).await {
            // It had ended before it could be cut; the answer is what gets lost.
            Ok(_) => Err(error.effect(op.at_most())),
            Err(inner) => Err(error.effect(inner.may_have())),
        }
    }

    /// The answer, or under [`Fault::Stale`] an earlier one to the same question.
    fn answer<R: Clone + Send + Sync + 'static>(
        &self,
        op: Op,
        targets: &[Target],
        fault: Option<&Fault>,
        answer: R,
    ) -> R {
        let asked = targets.iter().map(|target| target.dataset.clone()).collect();
        let key = (self.who.clone(), op, asked);
        let mut seen = self.faults.seen();
        if matches!(fault, Some(Fault::Stale))
            && let Some(earlier) = seen.get(&key).and_then(|earlier| earlier.downcast_ref::<R>())
        {
            return earlier.clone();
        }
        seen.insert(key, Arc::new(answer.clone()));
        answer
    }
}
