//! [`SnapshotStore`]: where live data is, with its snapshots, and the only way by which data becomes live.
//!
//! # Contract
//! Conformance tests are named after these clauses (`s01_…`).
//!
//! - **S1 inspect tells, and changes nothing.** One answer per target, in the order asked, for any number of targets
//!   at once. A target that can't be judged is [`Condition::Unknown`], not an error of the whole call and never
//!   `Absent` or `Empty`.
//! - **S2 populated is populated.** Any entry in the dataset's own root (a file, a link, an empty directory, a hidden
//!   name) makes it [`Condition::Populated`]. Only `.zfs` and `lost+found` don't count.
//! - **S3 a marker counts only for what it was written on.** After the dataset or directory was replaced by another,
//!   `inspect` reports no marker, however it came to be there.
//! - **S4 create is atomic over its targets.** All targets have the snapshot, or none has. A name that is taken fails
//!   with `AlreadyExists` and changes nothing.
//! - **S5 a snapshot never changes.** Writing, truncating, renaming or deleting live files afterwards, in place or not,
//!   leaves content, metadata and fingerprint of every snapshot as they were.
//! - **S6 list is complete.** Every snapshot of the named datasets, exactly (never a child's), whatever its naming
//!   scheme, oldest first. A dataset that doesn't exist has none; a store that can't be asked is an error.
//! - **S7 guids tell snapshots apart.** No two snapshots of a store ever share one, nor does a later snapshot of the
//!   same name get the guid of an earlier one.
//! - **S8 held stays.** `prune` doesn't remove a held snapshot. Holding twice under one tag, or releasing what isn't
//!   held, is no error. Each tag keeps on its own.
//! - **S9 prune removes exactly what it names.** By name *and* guid; one whose guid differs, or that is gone, is
//!   reported and nothing else is removed in its place.
//! - **S10 staging is invisible and ours.** `stage` makes a place that neither `inspect` of the target nor `list` take for
//!   data. Asked again for the same point it returns the same place with what is there ([`StageState::Partial`]);
//!   for another one it fails with `StageConflict` and leaves it alone.
//! - **S11 promote is atomic and only onto nothing.** Before, the target is as it was; after, it holds the staged tree
//!   entire. A target that turned out populated is left alone (`StalePlan`), unless the request says
//!   [`Replace::SetAside`] with the guid of exactly what is there: then that is renamed aside and stays. Where the run ends between the
//!   two renames, `inspect` tells of it ([`Leftover::over`]) and no target is taken for absent.
//! - **S12 the marker is written last.** A crash after the data stood at its place and before the marker leaves a populated
//!   target whose [`Leftover::promoted`] is true; [`Settle::Finish`] then does what is missing and writes the marker. On
//!   any other populated target `Finish` fails with `StalePlan` and changes nothing. Settling the same request twice is
//!   no error.
//! - **S13 nothing is deleted but staging.** `settle` deletes only what `stage` made. What stood at the target is renamed, and what
//!   is staged stays while it is the only thing that tells so ([`Leftover::over`]). A quarantined tree stays until the operator removes it, though a newer one of the same dataset and source may
//!   take its place.
//! - **S14 what is not supported says so.** Everything that `caps` doesn't promise answers `Unsupported` and does nothing.
//! - **S15 cancelled means ended.** After `Cancelled` nothing of the call runs on, and calling again works.
//! - **S16 since tells, and changes nothing.** The name it gives is the one that setting the target aside in the same run keeps
//!   it under. A snapshot that is gone, or is another one of that name, is `NotFound`.

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::error::{ErrorReport, StoreError};
use crate::names::{Guid, HoldTag, RunId, SnapshotName, SourceName};
use crate::point::{Marker, RecoveryPoint, Snapshot, SnapshotRef, Target};

/// See the [module's contract](self).
#[async_trait]
pub trait SnapshotStore: Send + Sync + fmt::Debug {
    /// What this store can do. Doesn't change while it lives.
    fn caps(&self) -> StoreCaps;

    /// Tells the state of every target, in one go.
    ///
    /// # Errors
    /// Only when no target at all could be judged for a reason of the store's own (a missing tool, a cancelled run).
    async fn inspect(&self, cx: &Context, targets: &[Target]) -> Result<Vec<Inspection>, StoreError>;

    /// Lists the snapshots of exactly these datasets, oldest first within each.
    ///
    /// # Errors
    /// `PoolUnavailable`, `PermissionDenied`, `BadOutput` and the common ones; never an empty list instead.
    async fn list(&self, cx: &Context, targets: &[Target]) -> Result<Vec<Snapshot>, StoreError>;

    /// Takes one snapshot of all targets, of all or of none; at the same instant where the store can (ZFS within a pool).
    ///
    /// # Errors
    /// `AlreadyExists`, `NotFound` (a target is not there), `NoSpace`, and `Unsupported` for several targets where
    /// [`StoreCaps::atomic_group`] is false.
    async fn create(&self, cx: &Context, request: &CreateSnapshots) -> Result<Vec<Snapshot>, StoreError>;

    /// Tells what lies between one of a target's snapshots and what is live: what would be set aside if that came back.
    ///
    /// # Errors
    /// `NotFound` when the snapshot is not there under its guid.
    async fn since(&self, cx: &Context, target: &Target, snapshot: &SnapshotRef)
    -> Result<Since, StoreError>;

    /// Whether nothing at all was written between two snapshots of one dataset, of which the one with the guid `older` is the older: both
    /// are of the same tree then. By the store's own account, without looking into either. A store that keeps none says no, and so does
    /// one that doesn't have both.
    ///
    /// # Errors
    /// When it can't be asked.
    async fn unwritten(&self, _cx: &Context, _older: Guid, _newer: &SnapshotRef) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Adds or takes away a hold on each of the snapshots.
    ///
    /// # Errors
    /// `NotFound` when one of them is not there under its guid.
    async fn hold(
        &self,
        cx: &Context,
        snapshots: &[SnapshotRef],
        tag: &HoldTag,
        change: HoldChange,
    ) -> Result<(), StoreError>;

    /// Removes these snapshots and says what became of each.
    ///
    /// # Errors
    /// When nothing was tried. What failed for one snapshot is in the report.
    async fn prune(&self, cx: &Context, snapshots: &[SnapshotRef]) -> Result<Vec<Pruned>, StoreError>;

    /// Makes a place to restore into, or opens the one of an earlier run, or opens a snapshot for reading.
    ///
    /// # Errors
    /// `StageConflict` when it is taken by another point, `NoSpace`, `ReadOnly`, `PermissionDenied`.
    async fn stage(&self, cx: &Context, request: &StageRequest) -> Result<Staging, StoreError>;

    /// Ends a preseed: promotes, quarantines or discards what was staged, or marks the target as it is.
    ///
    /// # Errors
    /// `StalePlan` when the target is no longer as the request says; `Occupied`, `Busy`, `PermissionDenied`.
    async fn settle(&self, cx: &Context, request: &Settle) -> Result<Settled, StoreError>;
}

/// What a [`SnapshotStore`] can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreCaps {
    /// Takes several targets in one snapshot, all or none.
    pub atomic_group: bool,
    /// Keeps holds.
    pub holds: bool,
    /// Can receive what a source delivers natively (`zfs send` streams).
    pub native_receive: bool,
    /// Can set a populated target aside by renaming.
    pub set_aside: bool,
    /// Finds damage to a snapshot by itself when it is read (ZFS's checksums). Where it doesn't, what is read is measured
    /// before it is trusted.
    pub checks_reads: bool,
}

/// The state of one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// Whose.
    pub target: Target,
    /// What is there.
    pub condition: Condition,
    /// The dataset's guid (for a directory: made from its inode and birth time), when there is one.
    pub guid: Option<Guid>,
    /// The marker, if there is one that counts.
    pub marker: Option<Marker>,
    /// What an earlier run left staged.
    pub leftover: Option<Leftover>,
}

/// What stands where a dataset belongs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "condition", rename_all = "kebab-case")]
pub enum Condition {
    /// The pool is not imported, suspended or faulted; or the filesystem that should hold the directory isn't
    /// mounted. The data is probably there.
    PoolUnavailable {
        /// In the tool's words.
        why: String,
    },
    /// Nothing is there.
    Absent,
    /// The dataset exists and isn't mounted at its place.
    Unmounted {
        /// Why, or where else it is.
        why: String,
    },
    /// Something else stands at the mountpoint: mounting over it would hide it.
    Occupied {
        /// What.
        by: String,
    },
    /// It is there, and holds nothing.
    Empty,
    /// It is there, and holds data. Never to be touched.
    Populated,
    /// It can't be told.
    Unknown {
        /// Why not.
        why: String,
    },
}

impl Inspection {
    /// What stood at the target when a promotion was cut off that had set it aside ([`Leftover::over`]).
    #[must_use]
    pub fn cut_off(&self) -> Option<Guid> {
        self.leftover.as_ref()?.over
    }

    /// What an earlier run left staged to stand at the target, and doesn't yet.
    #[must_use]
    pub fn staged(&self) -> Option<&Leftover> {
        self.leftover
            .as_ref()
            .filter(|left| !left.promoted && !left.files)
    }
}

/// What an earlier run left staged for a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    /// Which run.
    pub run: RunId,
    /// From which source it was being restored.
    pub source: SourceName,
    /// Which point.
    pub point: RecoveryPoint,
    /// Its tree stands at the target already; only what comes after the rename is missing.
    pub promoted: bool,
    /// Its promotion was cut off: this guid is of what stood at the target, which is set aside now, and nothing stands there, or
    /// something empty that has come meanwhile. The target is told as [`Condition::Unmounted`]; a promotion of what is staged with [`Replace::SetAside`] of this guid goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<Guid>,
    /// Files were to be copied out of it, and it was never to stand at the target. It is in nobody's way, no restore goes on with it,
    /// and all that is done with it is [`Settle::DiscardLeftover`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub files: bool,
}

/// Asks for a snapshot of several targets at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateSnapshots {
    /// Of what.
    pub targets: Vec<Target>,
    /// Under which name.
    pub name: SnapshotName,
    /// When, by the caller's clock.
    pub taken_at: Timestamp,
    /// Measure the snapshot's tree and keep the fingerprint with it.
    pub measure: bool,
    /// The service is unseeded now; keep that with the snapshot.
    pub unseeded: bool,
}

/// What lies between a snapshot and what is live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Since {
    /// Bytes that were written since, and are on disk by now; none where the store doesn't count them.
    pub written: Option<u64>,
    /// Under which name this run would keep what is live, if it set it aside.
    pub kept_as: String,
}

/// What to do with a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldChange {
    /// Add it.
    Add,
    /// Take it away.
    Release,
}

/// What became of one snapshot that was to be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// Which.
    pub snapshot: SnapshotRef,
    /// Nothing, when it was removed; otherwise why it is still there.
    pub kept: Option<ErrorReport>,
}

/// What a place is wanted for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageRequest {
    /// For which target.
    pub target: Target,
    /// What for.
    pub purpose: StagePurpose,
}

/// What a staging place is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "purpose", rename_all = "kebab-case")]
pub enum StagePurpose {
    /// A restore fills it.
    Restore {
        /// With which point.
        point: RecoveryPoint,
        /// How the source delivers.
        delivery: Delivery,
    },
    /// A backup reads a snapshot from it, under the same path each time where the system can do that.
    Expose {
        /// Which snapshot.
        snapshot: SnapshotRef,
    },
}

/// How a source brings what it restores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// It writes files below a directory.
    Files,
    /// It makes the staging dataset itself, from a stream of the store's own kind.
    Native,
}

/// A staging place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staging {
    /// For which target.
    pub target: Target,
    /// Where its files are. For [`Delivery::Native`] this is there after the source has delivered and `stage` was
    /// asked again.
    pub path: PathBuf,
    /// The store's own name for it (the staging dataset).
    pub locator: String,
    /// What is in it.
    pub state: StageState,
}

/// What is in a staging place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageState {
    /// Nothing yet.
    Fresh,
    /// What an earlier attempt at the same point left.
    Partial,
    /// A snapshot, opened for reading.
    Exposed,
}

/// The last step of a preseed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "settle", rename_all = "kebab-case")]
pub enum Settle {
    /// Makes what was staged the target's data, then writes the marker.
    Promote {
        /// What.
        staging: Staging,
        /// What to do with what stands there.
        replace: Replace,
        /// The marker.
        marker: Marker,
    },
    /// Completes a promotion that was cut off after the data stood at its place.
    Finish {
        /// For which target.
        target: Target,
        /// The leftover, as `inspect` told it.
        leftover: Leftover,
        /// The marker.
        marker: Marker,
    },
    /// Keeps what was staged under another name, because it failed verification.
    Quarantine {
        /// What.
        staging: Staging,
        /// What was wrong with it.
        why: String,
    },
    /// Removes what was staged, or closes an exposed snapshot.
    Discard {
        /// What.
        staging: Staging,
    },
    /// Removes what an earlier run left staged for a point that nobody wants any more.
    DiscardLeftover {
        /// For which target.
        target: Target,
        /// The leftover, as `inspect` told it.
        leftover: Leftover,
    },
    /// Makes sure that the target exists, leaves it empty, and writes the marker.
    StartEmpty {
        /// Which.
        target: Target,
        /// The marker.
        marker: Marker,
    },
    /// Writes the marker on the target as it is.
    Mark {
        /// Which.
        target: Target,
        /// The dataset's guid, as `inspect` told it.
        guid: Guid,
        /// The marker.
        marker: Marker,
    },
}

/// What may stand at a target that is promoted onto.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "replace", rename_all = "kebab-case")]
pub enum Replace {
    /// Nothing, or something empty.
    OnlyEmpty,
    /// Exactly this; it is renamed aside. Only for an operator's explicit restore.
    SetAside {
        /// The guid of what is there.
        guid: Guid,
    },
}

/// What `settle` did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// Where what stood at the target is now, if there was something.
    pub set_aside: Option<String>,
    /// Where the quarantined tree is.
    pub quarantined: Option<String>,
    /// The guid of what is at the target now.
    pub guid: Option<Guid>,
}
