//! The conformance suites: one per trait, each test named after the clause of the contract that it holds a backend to.
//!
//! A backend's test file has a *lab* (a small harness that makes the backend and breaks things for it) and one line:
//!
//! ```text
//! mod store { reseed_testkit::conformance_store!(MyLab::new()); }
//! ```
//!
//! which makes a `#[test]` of every clause, each with a lab of its own. There is no way to run half of a suite: what
//! a backend can't do it says in `caps()`, and then the suite asserts that it answers `Unsupported` and does nothing.
//! The suites know backends only through their trait and their lab.

pub mod offsite;
pub mod pruner;
pub mod replicate;
pub mod source;
pub mod store;
pub mod wal;

use std::fmt::Debug;
use std::future::Future;
use std::pin::{Pin, pin};

use jiff::Timestamp;
use reseed_core::Context;
use reseed_core::error::{Effect, Error, Kind};
use reseed_core::names::{PointId, RunId, SnapshotName, SourceName};
use reseed_core::point::{Marker, MarkerState, RecoveryPoint, Target};

/// Names the tests of a suite once: as a list, as a function that runs them all, and as a macro that makes a `#[test]`
/// of each.
macro_rules! suite {
    ($d:tt $macro:ident, $module:ident, $lab:ident: $($test:ident)*) => {
        /// The suite's tests.
        pub const TESTS: &[&str] = &[$(stringify!($test)),*];

        /// Runs all tests, each with a lab of its own. The macro of the suite is to be preferred: it shows each by its name.
        pub async fn run<L: $lab>(lab: impl Fn() -> L) {
            $($test(&lab()).await;)*
        }

        /// Makes a `#[test]` of every clause. The argument is an expression that makes a lab; it is evaluated for each test.
        #[macro_export]
        macro_rules! $macro {
            ($d lab:expr) => {
                $(
                    #[test]
                    fn $test() {
                        $crate::conformance::block_on(async {
                            let lab = $d lab;
                            $crate::conformance::$module::$test(&lab).await;
                        });
                    }
                )*
            };
        }
    };
}
use suite;

/// Runs a future on a runtime of its own, with timers, input and output.
///
/// # Panics
/// When no runtime can be made.
pub fn block_on<F: Future>(future: F) -> F::Output {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(future),
        Err(error) => panic!("no runtime: {error}"),
    }
}

/// A context of a run of its own.
pub fn context(run: &str) -> Context {
    Context::silent(RunId::new(format!("20261122T203300Z-{run}")).expect("a run's id"))
}

/// A moment, so many minutes after some midnight.
pub fn minute(minutes: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + 60 * minutes).expect("a time in this century")
}

/// A snapshot's name.
pub fn snapshot_name(name: &str) -> SnapshotName {
    SnapshotName::new(name).expect("a snapshot's name")
}

/// A source's name.
pub fn source_name(name: &str) -> SourceName {
    SourceName::new(name).expect("a source's name")
}

/// A point that nobody measured, from a source called `lab`.
pub fn point(target: &Target, id: &str) -> RecoveryPoint {
    RecoveryPoint {
        id: PointId::new(id).expect("a point's id"),
        dataset: target.dataset.clone(),
        source: source_name("lab"),
        locator: id.to_owned(),
        snapshot: None,
        taken_at: minute(0),
        fingerprint: None,
        bytes: None,
        unseeded: false,
        partial: false,
        altered: false,
    }
}

/// A marker that says that a point was restored.
pub fn marker(cx: &Context, point: &RecoveryPoint) -> Marker {
    Marker {
        run: cx.run.clone(),
        at: minute(1),
        state: MarkerState::Restored {
            source: point.source.clone(),
            point: point.id.clone(),
            taken_at: point.taken_at,
            unseeded: point.unseeded,
        },
    }
}

/// The error, which must be of one of these kinds and say that nothing happened.
#[track_caller]
pub fn refused<T: Debug, K: Kind>(result: Result<T, Error<K>>, kinds: &[K]) -> Error<K> {
    let error = failed(result, kinds);
    assert_eq!(
        error.may_have(),
        Effect::None,
        "a refusal changes nothing and says so: {error}"
    );
    error
}

/// The error, which must be of one of these kinds.
#[track_caller]
pub fn failed<T: Debug, K: Kind>(result: Result<T, Error<K>>, kinds: &[K]) -> Error<K> {
    match result {
        Ok(value) => panic!("expected one of {kinds:?}, got {value:?}"),
        Err(error) => {
            assert!(
                kinds.contains(&error.kind()),
                "expected one of {kinds:?}, got {:?}: {error}",
                error.kind()
            );
            error
        }
    }
}

/// The value of what must have worked.
#[track_caller]
pub fn worked<T, K: Kind>(result: Result<T, Error<K>>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{}: {error} ({:?})", error.kind().name(), error),
    }
}

/// Polls a call so many times, then cancels its context and waits for its end.
pub async fn cancelled_after<F: Future>(cx: &Context, polls: usize, call: F) -> F::Output {
    let mut call = pin!(call);
    let mut left = Some(polls);
    std::future::poll_fn(|task| {
        left = match left {
            Some(0) => {
                cx.cancel.cancel();
                None
            }
            other => other.map(|left| left - 1),
        };
        let poll = Pin::as_mut(&mut call).poll(task);
        // Once more at once to be cancelled, and never again: a call that waits for time to pass must be let wait.
        if left == Some(0) && poll.is_pending() {
            task.waker().wake_by_ref();
        }
        poll
    })
    .await
}
