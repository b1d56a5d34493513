//! What a restore did, and what did not go entirely as it should.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::meta::Problem;

/// At most this many sentences of each sort are kept.
const NAMED: usize = 50;

/// What a restore did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreReport {
    /// Regular files, other names of the same file not counted.
    pub files: u64,
    /// Directories below the target.
    pub dirs: u64,
    /// Links, devices, pipes and sockets.
    pub others: u64,
    /// Additional names of files.
    pub hard_links: u64,
    /// Bytes of file content.
    pub bytes: u64,
    /// Of those, found in place from an earlier attempt and proven.
    pub reused: u64,
    /// Entries of an earlier attempt that did not belong there and were removed.
    pub removed: u64,
    /// How much metadata could not be set.
    pub metadata_problems: u64,
    /// How many entries differ from the snapshot after all was done.
    pub mismatches: u64,
    /// The first of both, a sentence each.
    pub details: Vec<String>,
    /// Whether the repository was locked meanwhile.
    pub locked: bool,
    /// What was odd about the repository and did no harm.
    #[serde(default)]
    pub warnings: Vec<String>,
}

impl RestoreReport {
    /// Whether everything is as it was recorded.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.metadata_problems == 0 && self.mismatches == 0
    }
}

/// Collects problems from any number of threads.
#[derive(Debug, Default)]
pub(crate) struct Notes(Mutex<Collected>);

#[derive(Debug, Default)]
struct Collected {
    metadata: u64,
    mismatches: u64,
    details: Vec<String>,
}

impl Notes {
    pub(crate) fn metadata(&self, path: &Path, (what, error): Problem) {
        self.note(true, || format!("{}: cannot set {what}: {error}", path.display()));
    }

    pub(crate) fn mismatch(&self, path: &Path, what: &str) {
        self.note(false, || format!("{}: {what} is not as recorded", path.display()));
    }

    fn note(&self, metadata: bool, text: impl FnOnce() -> String) {
        let mut collected = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *(if metadata {
            &mut collected.metadata
        } else {
            &mut collected.mismatches
        }) += 1;
        if collected.details.len() < NAMED {
            collected.details.push(text());
        }
    }

    pub(crate) fn into_report(self, report: &mut RestoreReport) {
        let collected = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.metadata_problems = collected.metadata;
        report.mismatches = collected.mismatches;
        report.details = collected.details;
    }
}
