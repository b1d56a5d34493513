//! What a backup could not read.
//!
//! The archiver of `rustic_core` logs such errors and goes on, and its result looks like a success. Here they are
//! counted and the first ones named, so that a partial backup is called partial.

use std::fmt::Display;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// At most this many are named.
const NAMED: usize = 20;

/// Counts what went wrong in one backup.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    count: AtomicU64,
    named: Mutex<Vec<String>>,
    /// Entries that were handed to the archiver and are not directories.
    pub(crate) emitted: AtomicU64,
    /// Of those, how many the archiver had to drop because reading them failed.
    pub(crate) dropped: AtomicU64,
}

impl Findings {
    pub(crate) fn add(&self, path: &Path, why: impl Display) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.len() < NAMED {
            named.push(format!("{}: {why}", path.display()));
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(crate) fn named(&self) -> Vec<String> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
