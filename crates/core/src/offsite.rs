//! [`OffsiteRepo`]: a deduplicating, encrypted repository in restic's format.
//!
//! # Contract
//! - **O1 init only onto nothing.** Where a repository, or anything else, is, `init` fails with `AlreadyExists` (or `InvalidInput`) and
//!   changes nothing.
//! - **O2 the ways of not opening are told apart**: no repository, wrong password, locked, not reachable, a newer version, something
//!   else in its place. None of them looks like an empty repository.
//! - **O3 a backup is complete or it says what is missing.** Unreadable files make it `Partial`, with their names. A source that
//!   doesn't exist is an error and makes no snapshot.
//! - **O4 an unchanged tree adds nothing**, from whichever path it is read, as long as `as_path` is the same. A copy of it,
//!   whose files have other inodes and change times, adds no file content: at the most what is recorded about its entries.
//! - **O5 what was recorded comes back.** Point id, time, fingerprint, dataset and host of the request are in `points` afterwards.
//! - **O6 points lists everything**, newest first, or fails.
//! - **O7 locks are taken and honoured.** While a backup runs a prune by another program must see its lock; while another holds an
//!   exclusive lock, `backup` fails with `Locked` and names the holder. A lock of our own is gone when the call ends, however it ends.
//! - **O8 nothing is ever deleted** but our own locks and locks that are provably dead by restic's rules. Removing points
//!   is another role: [`OffsitePruner`](crate::OffsitePruner).
//! - **O9 check finds damage**: at [`CheckDepth::Structure`] a missing or cut-off file, at [`CheckDepth::Everything`] any flipped bit; and
//!   says of which datasets a point can't come back whole ([`CheckReport::affected`]), or that this can't be told. What somebody
//!   removes while it looks is not damage: then it looks again, or fails with `Locked` or `Busy`.
//! - **O10 cancelled means ended**: no snapshot appears, the lock is gone, what was uploaded is harmless.
//! - **O11 the size is what is stored**: every object of the repository, so that it is never less than what a backup added; where the
//!   store can't be listed, what the points need, and the number of objects isn't told.
//! - **O12 record adds a point and reads no tree**: of the same tree as an own, whole point that is there under its locator. When that
//!   tree was last read before `read_since`, or the engine would record it otherwise, it answers nothing and does nothing. Otherwise it
//!   is a backup: what was recorded comes back (O5), locks are honoured (O7), and what the point delivers is what the other does.

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::error::OffsiteError;
use crate::names::{DatasetName, PointId, SnapshotName, SourceName};
use crate::point::{Fingerprint, RecoveryPoint, Target};

/// See the [module's contract](self).
#[async_trait]
pub trait OffsiteRepo: Send + Sync + fmt::Debug {
    /// What it is called in the configuration. Doesn't change while it lives.
    fn name(&self) -> &SourceName;

    /// What this engine can do. Doesn't change while it lives.
    fn caps(&self) -> OffsiteCaps;

    /// Makes a repository where nothing is.
    ///
    /// # Errors
    /// See O1.
    async fn init(&self, cx: &Context) -> Result<RepoInfo, OffsiteError>;

    /// Opens it and says what it is.
    ///
    /// # Errors
    /// See O2.
    async fn open(&self, cx: &Context) -> Result<RepoInfo, OffsiteError>;

    /// Stores a tree.
    ///
    /// # Errors
    /// `Locked`, `NoSpace`, `NotFound` for the tree, and what `open` can raise.
    async fn backup(&self, cx: &Context, request: &BackupRequest) -> Result<BackupReport, OffsiteError>;

    /// Stores another point of a state that is stored already by its tree digest (docs/digest.md says what that leaves out), where [`OffsiteCaps::record`] says so: the caller knows by its digest that
    /// nothing has changed since `same_as`. The request's `path` isn't looked at. See O12.
    ///
    /// # Errors
    /// `Unsupported` without the capability; `Locked`, `NoSpace`, `NotFound` for the other point, and what `open` can raise.
    async fn record(
        &self,
        cx: &Context,
        request: &BackupRequest,
        same_as: &RecoveryPoint,
        read_since: Timestamp,
    ) -> Result<Option<BackupReport>, OffsiteError>;

    /// Every recovery point in the repository, newest first; of one target where one is given.
    ///
    /// # Errors
    /// What `open` can raise, and `Corrupt`.
    async fn points(&self, cx: &Context, target: Option<&Target>)
    -> Result<Vec<RecoveryPoint>, OffsiteError>;

    /// Looks for damage. What it finds is in the report.
    ///
    /// # Errors
    /// What keeps it from looking.
    async fn check(&self, cx: &Context, depth: CheckDepth) -> Result<CheckReport, OffsiteError>;

    /// Adds up what is stored. See O11.
    ///
    /// # Errors
    /// What `open` can raise.
    async fn usage(&self, cx: &Context) -> Result<Usage, OffsiteError>;
}

/// What an [`OffsiteRepo`] can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsiteCaps {
    /// Can be initialised from here.
    pub init: bool,
    /// Can store another point of a state without reading it.
    pub record: bool,
}

/// How large a repository is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes that are stored; without `objects` those that points need, which is less by what a prune would remove.
    pub bytes: u64,
    /// Objects that are stored, locks among them; none where they can't be listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<u64>,
}

/// What a repository is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoInfo {
    /// The repository's own id.
    pub id: String,
    /// The version of its format.
    pub version: u32,
}

/// Asks for a tree to be stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupRequest {
    /// Of which target.
    pub target: Target,
    /// Where the tree is read: a snapshot, never live data.
    pub path: PathBuf,
    /// The path that is recorded, the same each time: the target's mountpoint.
    pub as_path: PathBuf,
    /// The host that is recorded.
    pub host: String,
    /// The point that it is.
    pub point: PointId,
    /// The snapshot's name.
    pub snapshot: Option<SnapshotName>,
    /// When the point was taken.
    pub taken_at: Timestamp,
    /// What it looked like.
    pub fingerprint: Option<Fingerprint>,
    /// Taken while the service was unseeded.
    pub unseeded: bool,
}

/// How a backup ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupReport {
    /// The repository's id of what was stored.
    pub snapshot_id: String,
    /// Whether all of it was.
    pub outcome: BackupOutcome,
    /// Files seen.
    pub files: u64,
    /// Bytes seen.
    pub bytes: u64,
    /// Bytes added to the repository, as stored.
    pub added: u64,
}

/// Whether all of a tree was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum BackupOutcome {
    /// All of it.
    Complete,
    /// Not all. This is not a success.
    Partial {
        /// How many entries could not be read.
        unreadable: u64,
        /// The first of them, with the reason each.
        examples: Vec<String>,
    },
}

/// How deep to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckDepth {
    /// Index, trees and the presence of packs.
    Structure,
    /// One part of the data out of so many, in turn.
    Part {
        /// Which part, from 1.
        n: u32,
        /// Of how many.
        of: u32,
    },
    /// Every byte.
    Everything,
}

impl fmt::Display for CheckDepth {
    /// As it is written at the command line: `structure`, `3/30`, `everything`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Structure => f.write_str("structure"),
            Self::Part { n, of } => write!(f, "{n}/{of}"),
            Self::Everything => f.write_str("everything"),
        }
    }
}

/// Text that is no [`CheckDepth`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no depth")]
pub struct UnknownDepth(String);

impl std::str::FromStr for CheckDepth {
    type Err = UnknownDepth;

    fn from_str(text: &str) -> Result<Self, UnknownDepth> {
        let part = || {
            let (n, of) = text.split_once('/')?;
            let (n, of) = (n.parse().ok()?, of.parse().ok()?);
            (n >= 1 && n <= of).then_some(Self::Part { n, of })
        };
        match text {
            "structure" => Ok(Self::Structure),
            "everything" => Ok(Self::Everything),
            _ => part().ok_or_else(|| UnknownDepth(text.to_owned())),
        }
    }
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// What is damaged, in the engine's words. Empty is sound.
    pub errors: Vec<String>,
    /// What is odd and does no harm.
    pub warnings: Vec<String>,
    /// Bytes of pack data that were read.
    pub bytes_read: u64,
    /// The datasets of which a point can't come back whole, because of what was found; sorted. None where that could not be told: it
    /// may be any of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affected: Option<Vec<DatasetName>>,
}
