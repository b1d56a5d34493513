//! The history of every run, and what must outlive a run: the digests of points, and whether a service is seeded.
//!
//! Nothing the journal does, or fails to do, stops a run: writing never fails, and trouble comes back as warnings. It
//! knows nothing about what the runs do, and decides nothing.
//!
//! # Contract
//! 1. **Writing never fails.** What can't be stored is kept in memory, is seen by reads of the same journal, and is
//!    stored as soon as that is possible; a [`Warning`] says so.
//! 2. **Nothing is destroyed.** A file that is broken, or is no journal, is renamed aside and a new one begun; a file of a
//!    newer version is left exactly as it is.
//! 3. **One row per run, service, kind and peer.** Writing it again completes it; what was known and is not said again
//!    stays known.
//! 4. **A run that never ended is `interrupted`** once the next one of the same service, kind and peer begins. (The
//!    service's lock makes sure that it is not still going on.) If it ends after all, its own word counts.
//! 5. **Times are in UTC, to the millisecond.** Reads give back what was written, newest first.

mod memory;
mod record;
mod schema;
mod sqlite;
#[cfg(test)]
mod tests;

use std::fmt;

use jiff::Timestamp;

pub use memory::MemoryJournal;
pub use record::{
    Attempt, Entry, LastGood, PointRecord, Query, Run, RunKey, RunKind, RunOutcome, ServiceRecord,
};
pub use sqlite::SqliteJournal;

use crate::names::{DatasetName, PointId, ServiceName};
use crate::point::Fingerprint;

/// Keeps the history. See the [module's contract](self).
pub trait Journal: Send + Sync + fmt::Debug {
    /// Writes entries, all of them or none of them at once. A preseed of fifty services is one call.
    fn write(&self, entries: Vec<Entry>);

    /// The runs that match, newest first, with their attempts.
    ///
    /// # Errors
    /// When the journal can't be read.
    fn history(&self, query: &Query) -> Result<Vec<Run>, JournalError>;

    /// What a point looked like when it was recorded.
    ///
    /// # Errors
    /// When the journal can't be read.
    fn fingerprint(
        &self,
        dataset: &DatasetName,
        point: &PointId,
    ) -> Result<Option<Fingerprint>, JournalError>;

    /// What is known about a service.
    ///
    /// # Errors
    /// When the journal can't be read.
    fn service(&self, service: &ServiceName) -> Result<Option<ServiceRecord>, JournalError>;

    /// When it was last begun anew, because what there was before was damaged: it says nothing of what was before. That is forgotten once what was
    /// set aside is removed.
    fn begun_anew(&self) -> Option<Timestamp> {
        None
    }

    /// What went wrong since this was asked last. To be shown at the end of a run.
    fn take_warnings(&self) -> Vec<Warning>;
}

/// Trouble with the journal that did not stop the run.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Warning {
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Why the journal can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// It was written by a newer reseed.
    #[error("the journal has version {found}, and this reseed knows versions up to {known}")]
    Newer {
        /// The file's version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// Another process holds it.
    #[error("the journal is locked by another process")]
    Locked,
    /// It is no journal, or not any more.
    #[error("the journal is damaged: {why}")]
    Damaged {
        /// What is wrong with it.
        why: String,
    },
    /// It was, and has been begun anew since.
    #[error("the journal was damaged, and begun anew at {at}")]
    BegunAnew {
        /// When.
        at: Timestamp,
    },
    /// The operating system says no.
    #[error("the journal can't be read: {why}")]
    Unreadable {
        /// Its reason.
        why: String,
    },
}

impl JournalError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Newer { .. } => "use the newer reseed, or give this one another state directory",
            Self::Locked => "find the process with `fuser` on the journal and wait for it",
            Self::Damaged { .. } => "the next run that writes it begins a new one, and keeps this beside it",
            Self::BegunAnew { .. } => {
                "`sqlite3 journal.sqlite.broken-TIME .recover`, in the state directory, may show what was before; remove that once it is of no use"
            }
            Self::Unreadable { .. } => "check the state directory's owner, mode and free space",
        }
    }
}
