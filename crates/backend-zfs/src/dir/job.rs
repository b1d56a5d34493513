//! Blocking work on behalf of an async call: where it runs, how it is told to stop, how it tells how far it is.
//!
//! Promises that the call returns only after its work has ended, and that work whose caller went away is told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use reseed_core::clock::Clock;
use reseed_core::context::Context;
use reseed_core::error::{Common, Effect, Error, Kind};
use reseed_core::event::Event;
use reseed_core::names::DatasetName;

use super::sys::{Done, Fail};

/// Progress is told after so many bytes at the latest ...
const TELL_EVERY_BYTES: u64 = 4 << 20;
/// ... or after so long, if anything moved.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// What an error says when another run has the lock.
pub(super) const LOCKED: &str = "another run has its lock";
const LOCK_TRIES: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// One piece of blocking work.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) cx: Context,
    clock: Arc<dyn Clock>,
    bytes: AtomicU64,
    files: AtomicU64,
    told: AtomicU64,
    #[cfg(test)]
    crash: Option<Arc<CrashAt>>,
    #[cfg(test)]
    no_exchange: bool,
}

impl Job {
    /// Fails when the run was cancelled.
    pub(super) fn check(&self) -> Done<()> {
        if self.cx.cancel.is_cancelled() {
            return Err(Fail::new(Common::Cancelled, "the run was cancelled"));
        }
        Ok(())
    }

    /// The same job for putting things in order, which a cancelled run is not to leave undone.
    pub(super) fn cleaning_up(&self) -> Self {
        Self {
            cx: Context::silent(self.cx.run.clone()),
            clock: Arc::clone(&self.clock),
            bytes: AtomicU64::new(0),
            files: AtomicU64::new(0),
            told: AtomicU64::new(0),
            #[cfg(test)]
            crash: self.crash.clone(),
            #[cfg(test)]
            no_exchange: self.no_exchange,
        }
    }

    /// Whether `RENAME_EXCHANGE` is to be tried. Tests say no, to walk the other way.
    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "tests decide it"))]
    pub(super) fn has_exchange(&self) -> bool {
        #[cfg(test)]
        return !self.no_exchange;
        #[cfg(not(test))]
        true
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A moment at which the program might die. Tests make it so.
    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "tests die here"))]
    #[inline]
    pub(super) fn step(&self, _name: &'static str) {
        #[cfg(test)]
        if let Some(crash) = &self.crash {
            crash.step(_name);
        }
    }

    /// Counts what was moved and tells whoever listens, now and then.
    pub(super) fn moved(&self, dataset: &DatasetName, bytes: u64, files: u64, total: Option<u64>) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let bytes = before.saturating_add(bytes);
        let files = self
            .files
            .fetch_add(files, Ordering::Relaxed)
            .saturating_add(files);
        let now = u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX);
        let told = self.told.load(Ordering::Relaxed);
        let every = u64::try_from(TELL_EVERY.as_millis()).unwrap_or(100);
        let due = now.saturating_sub(told) >= every
            && self
                .told
                .compare_exchange(told, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if due || before / TELL_EVERY_BYTES != bytes / TELL_EVERY_BYTES {
            self.cx.emit(Event::Progress {
                dataset: dataset.clone(),
                bytes,
                total,
                files,
            });
        }
    }

    /// Tells something that is not as it should be.
    pub(super) fn warn(&self, message: impl Into<String>, hint: Option<&str>) {
        self.cx.emit(Event::Warning {
            service: None,
            message: message.into(),
            hint: hint.map(str::to_owned),
        });
    }
}

/// Cancels what was started for a call when the call goes away.
struct CancelOnDrop(Context);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel.cancel();
    }
}

/// What starts jobs.
#[derive(Debug, Clone)]
pub(super) struct Jobs {
    pub(super) clock: Arc<dyn Clock>,
    #[cfg(test)]
    pub(super) crash: Option<Arc<CrashAt>>,
    #[cfg(test)]
    pub(super) no_exchange: bool,
}

impl Jobs {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            #[cfg(test)]
            crash: None,
            #[cfg(test)]
            no_exchange: false,
        }
    }

    /// Runs work on a thread that may block, and waits for its end whatever happens to the run.
    pub(super) async fn run<T, K, F>(&self, cx: &Context, work: F) -> Result<T, Error<K>>
    where
        T: Send + 'static,
        K: Kind,
        F: FnOnce(&Job) -> Result<T, Error<K>> + Send + 'static,
    {
        let child = cx.child();
        let guard = CancelOnDrop(child.clone());
        let job = self.job(child);
        let result = tokio::task::spawn_blocking(move || {
            if let Err(cancelled) = job.check() {
                return Err(cancelled.convert(K::from_common(Common::Cancelled)));
            }
            work(&job)
        })
        .await;
        drop(guard);
        match result {
            Ok(result) => result,
            Err(died) => Err(
                Error::new(K::from_common(Common::Io), "the directory store's worker died")
                    .effect(Effect::Unknown)
                    .said(died)
                    .hint(
                        "this is a bug in reseed; the same command again finishes or undoes what was begun",
                    ),
            ),
        }
    }

    /// The same for work that begins with taking locks: tries again for a while when another run has one.
    pub(super) async fn run_locked<T, K, F>(&self, cx: &Context, work: F) -> Result<T, Error<K>>
    where
        T: Send + 'static,
        K: Kind,
        F: Fn(&Job) -> Result<T, Error<K>> + Send + Clone + 'static,
    {
        for _ in 1..LOCK_TRIES {
            match self.run(cx, work.clone()).await {
                Err(error) if error.tool_said() == Some(LOCKED) => self.clock.sleep(LOCK_PAUSE).await,
                result => return result,
            }
        }
        self.run(cx, work).await
    }

    pub(super) fn job(&self, cx: Context) -> Job {
        Job {
            cx,
            clock: Arc::clone(&self.clock),
            bytes: AtomicU64::new(0),
            files: AtomicU64::new(0),
            told: AtomicU64::new(0),
            #[cfg(test)]
            crash: self.crash.clone(),
            #[cfg(test)]
            no_exchange: self.no_exchange,
        }
    }
}

#[cfg(test)]
pub(super) type Act = Box<dyn Fn() + Send + Sync>;

/// Dies at the nth step, like a machine that loses power would; or does something at a named one.
#[cfg(test)]
pub(super) struct CrashAt {
    pub(super) left: std::sync::atomic::AtomicI64,
    pub(super) died_at: std::sync::Mutex<Option<&'static str>>,
    pub(super) at: Option<(&'static str, Act)>,
}

#[cfg(test)]
impl std::fmt::Debug for CrashAt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CrashAt")
            .field("died_at", &self.died_at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
impl CrashAt {
    pub(super) fn nth(n: i64) -> Arc<Self> {
        Arc::new(Self {
            left: std::sync::atomic::AtomicI64::new(n),
            ..Self::never()
        })
    }

    pub(super) fn never() -> Self {
        Self {
            left: std::sync::atomic::AtomicI64::new(i64::MAX),
            died_at: std::sync::Mutex::new(None),
            at: None,
        }
    }

    fn step(&self, name: &'static str) {
        if let Some((at, act)) = &self.at
            && *at == name
        {
            act();
        }
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        if left == 0 {
            *self.died_at.lock().unwrap() = Some(name);
        }
        if left <= 0 {
            // No step may be reached after the first that died: other threads die with it.
            std::panic::resume_unwind(Box::new(format!("crash at {name}")));
        }
    }
}
