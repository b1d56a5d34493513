//! [`RestoreSource`]: a place that recovery points come back from.
//!
//! # Contract
//! - **R1 no points means none exist.** `points` answers `Ok` only when the source was really asked and its answer was
//!   complete; an empty list is its word that it holds nothing for this target.
//! - **R2 points are sorted, newest first**, and each carries this source's name. Where a source knows in which order they were made, that
//!   decides, and not their dates: a clock may have been wrong. Where one doesn't ([`SourceCaps::ordered`]), they are sorted by date.
//! - **R3 plan writes nothing**, and says what `execute` will do; the plan can be serialised and executed by another process.
//! - **R4 execute checks again.** When the point is gone or replaced since, `StalePlan` or `NoSuchPoint`, and staging is as it was.
//! - **R5 only staging is written.** `execute` writes below [`Staging::path`] (or makes the staging dataset) and nowhere else. It never
//!   follows a link out of it and never deletes outside of it.
//! - **R6 what comes back is the point.** After `Ok` on a fresh staging, the tree's fingerprint is the point's.
//! - **R7 an interrupted execute goes on.** Called again for the same point on what the interrupted call left, it ends like an
//!   uninterrupted one; what is wrong in there is replaced, what doesn't belong there is gone.
//! - **R8 nothing delivered is an error** (`NothingRestored`): a path that matches nothing, a point without entries of which it isn't
//!   recorded (by its fingerprint: no files, no bytes) that it had none. An
//!   empty directory that was backed up is an entry.
//! - **R9 damage is told.** Data that fails the source's own checks is `Corrupt`, and is not retried.
//! - **R10 the source is only read.** Nothing that a restore does changes or removes a recovery point.
//! - **R11 cancelled means ended**: nothing of the call runs on, staging stays resumable, and the error's effect says so.

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::error::SourceError;
use crate::names::SourceName;
use crate::point::{RecoveryPoint, Target};
use crate::store::{Delivery, Staging};

/// See the [module's contract](self).
#[async_trait]
pub trait RestoreSource: Send + Sync + fmt::Debug {
    /// What it is called in the configuration. Doesn't change while it lives.
    fn name(&self) -> &SourceName;

    /// What it can do. Doesn't change while it lives.
    fn caps(&self) -> SourceCaps;

    /// The recovery points it holds for a target, newest first.
    ///
    /// # Errors
    /// Whatever keeps it from answering completely.
    async fn points(&self, cx: &Context, target: &Target) -> Result<Vec<RecoveryPoint>, SourceError>;

    /// Says how it would restore a point.
    ///
    /// # Errors
    /// `NoSuchPoint`; `Unsupported` for a [`Scope::Path`] without [`SourceCaps::partial`].
    async fn plan(&self, cx: &Context, request: &RestoreRequest) -> Result<RestorePlan, SourceError>;

    /// Restores into staging.
    ///
    /// # Errors
    /// Any kind; the effect is `StagingOnly` at the most.
    async fn execute(
        &self,
        cx: &Context,
        plan: &RestorePlan,
        staging: &Staging,
    ) -> Result<Restored, SourceError>;
}

/// What a [`RestoreSource`] can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceCaps {
    /// What kind of place it is.
    pub kind: SourceClass,
    /// How it delivers.
    pub delivery: Delivery,
    /// Can restore a part of a tree.
    pub partial: bool,
    /// Checks what it delivers by itself (restic's hashes, ZFS's checksums).
    pub verifies: bool,
    /// Knows in which order its points were made, whatever their dates say (R2).
    pub ordered: bool,
}

/// What kind of place recovery points come from. The default chain goes in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceClass {
    /// Snapshots in the same store as the live data.
    Local,
    /// A second store.
    Replica,
    /// A repository elsewhere.
    Offsite,
    /// A base backup and WAL.
    Pitr,
}

/// Asks for a restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreRequest {
    /// Of what.
    pub target: Target,
    /// Which state.
    pub point: RecoveryPoint,
    /// How much of it.
    pub scope: Scope,
}

impl RestoreRequest {
    /// Whether nothing may be what comes back (R8): all of a state is asked for of which it is recorded that there was nothing.
    pub fn may_be_empty(&self) -> bool {
        self.scope == Scope::Whole && self.point.is_of_nothing()
    }
}

/// How much of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// All of it.
    Whole,
    /// One file or directory with everything below it, relative to the root, without `..`. It is restored under the same
    /// relative path.
    Path(PathBuf),
}

/// How a source would restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePlan {
    /// What was asked for.
    pub request: RestoreRequest,
    /// Estimated bytes to move.
    pub bytes: Option<u64>,
    /// In words for a person, one step a line.
    pub steps: Vec<String>,
}

/// What a source delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Bytes of file content written or found in place.
    pub bytes: u64,
    /// Files likewise.
    pub files: u64,
    /// Bytes that an earlier, interrupted attempt had already brought.
    pub reused: u64,
    /// What the source checked by itself, in words.
    pub checked: Vec<String>,
    /// What came back, and not entirely as it was: metadata that could not be set. Each in a sentence.
    pub warnings: Vec<String>,
}
