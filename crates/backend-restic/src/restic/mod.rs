//! The restic program behind the core's traits, from 0.14 on.
//!
//! [`Restic`] is an [`OffsiteRepo`](reseed_core::OffsiteRepo), a [`RestoreSource`](reseed_core::RestoreSource) and an
//! [`OffsitePruner`](reseed_core::OffsitePruner). What it writes the embedded engine reads, and the other way round: recovery points are the same tags. It promises that
//!
//! - **not knowing is not nothing**: an exit code or words that aren't known are a failure; a list is complete or an error;
//! - **partial is not complete**: a backup that could not read everything says what, and its snapshot is tagged so;
//! - **no secret is an argument**, in the environment, or in a file that others can read;
//! - **asking again helps or isn't done**: before a call, what keeps a bucket from being reached is found out by the embedded
//!   engine's client, which knows each cause; restic would ask again for a quarter of an hour. What it is refused later
//!   three times for a reason that lasts ends it;
//! - **locks**: only restic's own `unlock` removes any, and by its rules only dead ones (`unlock`); a live holder is named;
//! - **nothing depends on the surroundings**: locale, zone, home directory and cache are set.
//!
//! How the same tree is found again whichever path it is read from is in `stand`; what becomes of the metadata of its topmost
//! directory in `crate::top`; which version can do what in [`version`]. Removing points is in
//! `pruner`.
//!
//! What it can't promise: a future that is dropped in the middle of a call leaves a lock in some versions, which the next run finds
//! dead; so does a store that finishes writing a lock after restic was killed. A backup that is cancelled when its snapshot is
//! written and restic hasn't said so is reported as partial, whatever it holds. restic doesn't say how much a check has read. To find
//! out whether the holder of a lock on this host lives, `restic unlock` sends SIGHUP to its process id; restic and the embedded
//! engine ignore that, and where the number has been given to another program since, restic itself is as blind.

mod argv;
mod by_looking;
mod error;
mod listing;
mod location;
mod lock_words;
mod offsite_repo;
mod parse;
mod partial;
mod pruner;
mod rest;
mod restore_source;
mod run;
mod staging;
mod stand;
mod trees;
mod unlock;
pub mod version;
mod whose;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use reseed_core::clock::Clock;
use reseed_core::exec::Runner;
use reseed_core::names::SourceName;

use crate::embedded::PasswordFrom;
use crate::snapshots::Snapshot;
pub use location::{Location, RestPlace, SftpPlace};
pub use version::Version;

/// One repository, served by the restic program.
#[derive(Debug, Clone)]
pub struct Restic {
    name: SourceName,
    location: Location,
    password: PasswordFrom,
    work: PathBuf,
    program: OsString,
    host: Option<String>,
    runner: Arc<dyn Runner>,
    clock: Arc<dyn Clock>,
    version: Arc<OnceLock<Version>>,
    /// Records that were read. A snapshot's id is the hash of its record, so one that is known is true as long as it is there.
    known: Arc<Mutex<HashMap<String, Snapshot>>>,
}

impl Restic {
    /// A repository under a name of the configuration. `work` is an absolute directory of the driver's own, the same each time:
    /// its cache and the paths that are recorded are below it. It is made when it is needed.
    pub fn new(
        name: SourceName,
        location: Location,
        password: PasswordFrom,
        work: impl Into<PathBuf>,
        runner: Arc<dyn Runner>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            name,
            location,
            password,
            work: work.into(),
            program: "restic".into(),
            host: None,
            runner,
            clock,
            version: Arc::default(),
            known: Arc::default(),
        }
    }

    /// Another program than the `restic` in `PATH`.
    #[must_use]
    pub fn program(mut self, program: impl Into<OsString>) -> Self {
        self.program = program.into();
        self.version = Arc::default();
        self
    }

    /// Offers only what this host backed up. Several hosts may share a repository, and call their services alike: one's data
    /// must not come back as the other's.
    #[must_use]
    pub fn of_host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Where the cache is; none for a local repository, which is as fast as a cache of it.
    fn cache(&self) -> Option<PathBuf> {
        match self.location.local_path() {
            Some(_) => None,
            None => Some(self.work.join("cache")),
        }
    }
}
