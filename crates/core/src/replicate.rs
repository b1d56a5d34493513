//! [`Replicator`]: brings snapshots from a store to a second one, and never takes anything away there.
//!
//! # Contract
//! - **P1 plan writes nothing** on either side, and says what would be sent: from which base, how much, and whether a
//!   diverged target is set aside first.
//! - **P2 execute checks again.** When a base or a snapshot to send is gone or replaced, `StalePlan` and nothing was sent.
//!   [`execute_at_once`](Replicator::execute_at_once) may believe what the plan has just been made of, unless something is to be set aside:
//!   what has changed in that moment then is an error of sending it, with P3 to P6 as ever.
//! - **P3 what arrives is what was sent.** A snapshot on the target has the name, guid, time, fingerprint and content of
//!   its original.
//! - **P4 whole or not at all.** An interrupted transfer leaves no snapshot on the target that looks complete, and the next
//!   run finishes it.
//! - **P5 nothing on the target is destroyed.** Whatever snapshot was on the target before is there afterwards, in the same lineage or
//!   in one set aside by renaming; also when it is no longer on the source.
//! - **P6 a diverged target is set aside, not forced.** Only when the plan said so.
//! - **P7 up to date is no work.** A second plan after a success has no steps.
//! - **P8 lag is read at the target.**
//! - **P9 cancelled means ended**, and what has arrived stays usable.
//! - **P10 what was sent can be continued.** Where [`ReplicatorCaps::keeps_base`] says so: whatever the store then prunes (what is
//!   held it keeps), neither after a success nor after an interruption has the next plan anything to set aside. What was
//!   held for it is let go when it isn't needed any more, if not by the same run then by the next one
//!   ([`ReplicationPlan::let_go`]).
//! - **P11 what is another host's is left alone.** What a replicator of one host sent, one of another host neither continues nor sets
//!   aside nor tells the age of: `InvalidInput`, and nothing is changed.

use std::fmt;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::error::ReplicateError;
use crate::names::{Guid, SourceName};
use crate::point::{SnapshotRef, Target};

/// See the [module's contract](self).
#[async_trait]
pub trait Replicator: Send + Sync + fmt::Debug {
    /// The replica, as the configuration calls it. Doesn't change while it lives.
    fn name(&self) -> &SourceName;

    /// What it can do. Doesn't change while it lives.
    fn caps(&self) -> ReplicatorCaps;

    /// Says what is to be sent so that the replica has every snapshot that the store has of these targets.
    ///
    /// # Errors
    /// `Unreachable`, `AuthFailed`, `HostKeyChanged` and the common ones.
    async fn plan(&self, cx: &Context, targets: &[Target]) -> Result<ReplicationPlan, ReplicateError>;

    /// Sends.
    ///
    /// # Errors
    /// `StalePlan`; otherwise the first step's failure, when no step succeeded. What failed after a success is in the report.
    async fn execute(
        &self,
        cx: &Context,
        plan: &ReplicationPlan,
    ) -> Result<ReplicationReport, ReplicateError>;

    /// Sends by a plan that this replicator has made right before, with nothing in between (P2).
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    async fn execute_at_once(
        &self,
        cx: &Context,
        plan: &ReplicationPlan,
    ) -> Result<ReplicationReport, ReplicateError> {
        self.execute(cx, plan).await
    }

    /// How far the replica is, asked at the replica.
    ///
    /// # Errors
    /// Whatever keeps it from answering; never an empty lineage instead.
    async fn lineage(&self, cx: &Context, targets: &[Target]) -> Result<Vec<Lineage>, ReplicateError>;
}

/// What a [`Replicator`] can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicatorCaps {
    /// Sends only what changed since a common snapshot.
    pub incremental: bool,
    /// An interrupted transfer goes on where it stopped.
    pub resumable: bool,
    /// Sees by itself to it that what the next transfer is based on outlives its pruning on the store (P10). Otherwise the newest
    /// common snapshot has to be held.
    pub keeps_base: bool,
}

/// What a run would send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicationPlan {
    /// To where.
    pub replica: SourceName,
    /// One a dataset that is not up to date.
    pub steps: Vec<ReplicationStep>,
    /// What the store has and can't be sent, each with the reason. A run that leaves anything out is not a success, and what is
    /// damaged doesn't keep the good snapshots that come after it from being sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<(Target, crate::error::ErrorReport)>,
    /// Snapshots that the store still holds for a transfer that is over. `execute` lets them go, also when there is nothing to send.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub let_go: Vec<SnapshotRef>,
    /// Snapshots whose copies lack what the store knows of them: when they were taken, their fingerprint, that they are unseeded. An
    /// interruption may have kept it from coming along. `execute` writes it on the copies, also when there is nothing to send.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub untold: Vec<SnapshotRef>,
}

/// What a run would send of one dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicationStep {
    /// Of what.
    pub target: Target,
    /// The newest snapshot that both have; none means a full send.
    pub base: Option<SnapshotRef>,
    /// What is sent, oldest first.
    pub send: Vec<SnapshotRef>,
    /// Estimated bytes; none where nobody has counted them (ZFS: since a bookmark).
    pub bytes: Option<u64>,
    /// The replica's lineage that is renamed aside first, because it has nothing in common with the store's.
    pub set_aside: Option<Divergence>,
}

/// A replica's lineage that can't be continued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Divergence {
    /// The guid of its newest snapshot, checked again before it is renamed.
    pub newest: Guid,
    /// Where it goes.
    pub renamed_to: String,
    /// Why it can't be continued.
    pub why: String,
}

/// What a run sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicationReport {
    /// What arrived.
    pub sent: Vec<SnapshotRef>,
    /// Bytes moved.
    pub bytes: u64,
    /// Lineages that were set aside.
    pub set_aside: Vec<String>,
    /// What failed, a dataset each.
    pub failed: Vec<(Target, crate::error::ErrorReport)>,
}

/// How far a replica is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// Of what.
    pub target: Target,
    /// The newest snapshot that both have.
    pub common: Option<SnapshotRef>,
    /// When the newest snapshot on the replica was taken. May be in the future, where a clock was wrong then or is now.
    pub newest: Option<Timestamp>,
    /// Snapshots on the replica.
    pub snapshots: u64,
}
