//! Progress: what the libraries report, summed up and passed on now and then.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustic_core::{HiddenProgress, Progress as Bar, ProgressBars, ProgressType, RusticProgress};
use serde::{Deserialize, Serialize};

/// How far something is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes done.
    pub bytes: u64,
    /// Files done.
    pub files: u64,
    /// Bytes in all, once known.
    pub total: Option<u64>,
}

/// Is told about progress. Must not block.
pub type OnProgress = Arc<dyn Fn(Progress) + Send + Sync>;

/// A report for every so many bytes or files. Whoever waits tells by them whether anything moves, on a slow line too.
const STEP_BYTES: u64 = 1 << 20;
const STEP_FILES: u64 = 500;

/// Sums up progress from any number of threads.
#[derive(Clone)]
pub(crate) struct Meter(Arc<State>);

struct State {
    bytes: AtomicU64,
    files: AtomicU64,
    total: AtomicU64,
    reported: AtomicU64,
    sink: OnProgress,
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Meter({:?})", self.now())
    }
}

impl Meter {
    pub(crate) fn new(sink: OnProgress) -> Self {
        Self(Arc::new(State {
            bytes: AtomicU64::new(0),
            files: AtomicU64::new(0),
            total: AtomicU64::new(u64::MAX),
            reported: AtomicU64::new(0),
            sink,
        }))
    }

    pub(crate) fn set_total(&self, total: u64) {
        self.0.total.store(total, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, bytes: u64, files: u64) {
        let state = &self.0;
        let bytes = state.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let files = state.files.fetch_add(files, Ordering::Relaxed) + files;
        let step = bytes / STEP_BYTES + files / STEP_FILES;
        let before = state.reported.fetch_max(step, Ordering::Relaxed);
        if step > before {
            (state.sink)(self.now());
        }
    }

    pub(crate) fn now(&self) -> Progress {
        let total = self.0.total.load(Ordering::Relaxed);
        Progress {
            bytes: self.0.bytes.load(Ordering::Relaxed),
            files: self.0.files.load(Ordering::Relaxed),
            total: (total != u64::MAX).then_some(total),
        }
    }

    pub(crate) fn report(&self) {
        (self.0.sink)(self.now());
    }
}

/// Only the bar that counts bytes is of interest; listing and indexing are short.
impl ProgressBars for Meter {
    fn progress(&self, kind: ProgressType, _prefix: &str) -> Bar {
        match kind {
            ProgressType::Bytes => Bar::new(self.clone()),
            _ => Bar::new(HiddenProgress),
        }
    }
}

impl RusticProgress for Meter {
    fn is_hidden(&self) -> bool {
        false
    }
    fn set_length(&self, length: u64) {
        self.set_total(length);
    }
    fn set_title(&self, _title: &str) {}
    fn inc(&self, bytes: u64) {
        self.add(bytes, 0);
    }
    fn finish(&self) {
        self.report();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn reports_now_and_then_and_at_the_end() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let meter = Meter::new(Arc::new(move |progress| sink.lock().unwrap().push(progress)));
        for _ in 0..100 {
            meter.add(100 << 10, 1);
        }
        meter.set_total(10_000 << 10);
        meter.report();
        let seen = seen.lock().unwrap();
        assert!((10..=20).contains(&seen.len()), "{}", seen.len());
        assert_eq!(
            seen.last(),
            Some(&Progress {
                bytes: 10_000 << 10,
                files: 100,
                total: Some(10_000 << 10)
            })
        );
    }
}
