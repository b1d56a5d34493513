//! Recovery points and what they are made of: the values that the traits pass to each other.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::TreeDigest;
use crate::names::{DatasetName, Guid, HoldTag, PointId, RunId, SnapshotName, SourceName};

/// A dataset and where its files belong.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Target {
    /// The dataset, or the name that stands for a plain directory.
    pub dataset: DatasetName,
    /// Where its files are when all is well. Absolute.
    pub mountpoint: PathBuf,
}

/// What a tree looked like when it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The tree digest (docs/digest.md).
    pub digest: TreeDigest,
    /// Regular files; each name of a hard-linked one counts.
    pub files: u64,
    /// Logical bytes of those files; hard-linked ones count once.
    pub bytes: u64,
}

/// A snapshot in a store or on a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Of which dataset.
    pub dataset: DatasetName,
    /// Its name behind the `@`.
    pub name: SnapshotName,
    /// Given once, and the same on every replica.
    pub guid: Guid,
    /// When it was taken, by the clock of the host that took it.
    pub taken_at: Timestamp,
    /// What the tree looked like, when that was measured.
    pub fingerprint: Option<Fingerprint>,
    /// Bytes it refers to, where the store knows.
    pub bytes: Option<u64>,
    /// Who holds it, sorted.
    pub holds: Vec<HoldTag>,
    /// Taken while the service was unseeded: a state after a start without data, not one worth restoring first.
    pub unseeded: bool,
}

impl Snapshot {
    /// It stands for one whose record can't be read: listed as the oldest, so that the list is complete, and of no use. When it
    /// was taken is not known.
    pub fn is_damaged(&self) -> bool {
        self.fingerprint.is_none() && self.taken_at == Timestamp::UNIX_EPOCH
    }

    /// The snapshot's address.
    pub fn reference(&self) -> SnapshotRef {
        SnapshotRef {
            dataset: self.dataset.clone(),
            name: self.name.clone(),
            guid: self.guid,
        }
    }
}

/// One exact snapshot. Whoever acts on it checks the guid, because names are reused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SnapshotRef {
    /// Of which dataset.
    pub dataset: DatasetName,
    /// Its name behind the `@`.
    pub name: SnapshotName,
    /// Which one of that name.
    pub guid: Guid,
}

/// A state that can be got back, as one source offers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryPoint {
    /// The same in every source that holds this state.
    pub id: PointId,
    /// Of which dataset.
    pub dataset: DatasetName,
    /// Who offers it.
    pub source: SourceName,
    /// What the source itself calls it: a snapshot's full name, a restic id.
    pub locator: String,
    /// The name shared by the datasets of a service that were taken together.
    pub snapshot: Option<SnapshotName>,
    /// When the state was taken.
    pub taken_at: Timestamp,
    /// What it looked like when it was taken. Without it only the source's own checks can vouch for a restore.
    pub fingerprint: Option<Fingerprint>,
    /// Estimated bytes to move.
    pub bytes: Option<u64>,
    /// Taken while the service was unseeded.
    pub unseeded: bool,
    /// Something was unreadable when it was taken.
    pub partial: bool,
    /// Its record is not the one that was written when it was taken, but another program's `tag`, `rewrite`, `repair` or `copy` of that: whether all of
    /// it is still there only the digest tells, where there is one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub altered: bool,
}

impl RecoveryPoint {
    /// It stands for something that is there and can't be read: offered as the oldest and partial, so that the answer is
    /// complete, and of no use.
    pub fn is_damaged(&self) -> bool {
        self.partial && self.taken_at == Timestamp::UNIX_EPOCH
    }

    /// It is recorded that there was nothing: a tree without entries is what it holds then, and no sign of loss. An operator had
    /// adopted that, or no snapshot would have been taken.
    pub fn is_of_nothing(&self) -> bool {
        self.fingerprint
            .is_some_and(|found| found.files == 0 && found.bytes == 0)
    }
}

/// Who brought a target into the state it is in.
///
/// Kept as a *local* property of the dataset and bound to its guid: a marker that came by inheritance, with a
/// received stream, or that names another dataset's guid, is no marker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The run that wrote it.
    pub run: RunId,
    /// When.
    pub at: Timestamp,
    /// What happened.
    pub state: MarkerState,
}

/// What a marker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum MarkerState {
    /// Restored.
    Restored {
        /// From where.
        source: SourceName,
        /// Which point.
        point: PointId,
        /// When that state was taken.
        taken_at: Timestamp,
        /// It was taken while the service was unseeded, which it still is with it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unseeded: bool,
    },
    /// Started without data although recovery points may exist somewhere: nothing may age out older points.
    Unseeded {
        /// Why there was nothing to restore.
        why: String,
    },
    /// Started without data because there never was any: every source answered, none had a point.
    FirstStart,
    /// An operator said that this is the service's data.
    Adopted,
}

impl Marker {
    /// Whether the service is unseeded.
    pub fn is_unseeded(&self) -> bool {
        matches!(
            self.state,
            MarkerState::Unseeded { .. } | MarkerState::Restored { unseeded: true, .. }
        )
    }
}
