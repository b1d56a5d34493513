//! Broken on purpose: for each invariant a part around the core that violates it, to show that the simulator sees it.
//!
//! They stand where a broken core would have the same effect; the core's own code stays as it is.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use reseed_core::error::{OpError, ReplicateError, SourceError, StoreError};
use reseed_core::journal::{Entry, Journal, JournalError, Query, Run, ServiceRecord, Warning};
use reseed_core::names::{DatasetName, HoldTag, PointId, ServiceName, SourceName};
use reseed_core::point::{Fingerprint, RecoveryPoint, Snapshot, SnapshotRef, Target};
use reseed_core::replicate::{Lineage, ReplicationPlan, ReplicationReport, ReplicatorCaps};
use reseed_core::source::{RestorePlan, RestoreRequest, Restored, SourceCaps};
use reseed_core::store::{
    Condition, CreateSnapshots, HoldChange, Inspection, Pruned, Replace, Settle, Settled, Since,
    StageRequest, Staging, StoreCaps,
};
use reseed_core::verify::Validator;
use reseed_core::{Context, Replicator, RestoreSource, SnapshotStore, Verifier};

use super::check::Invariant;
use crate::world::World;

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// What is populated is taken for empty and set aside.
    OverwritesLive,
    /// Another point than the planned one is delivered, and no digest was recorded that could tell.
    WrongPoint,
    /// The measured digest is always the recorded one.
    SkipsVerification,
    /// Live data is written before the rename.
    NotAtomic,
    /// The marker of an unseeded service is not seen, and its holds are not kept.
    ForgetsUnseeded,
    /// Replication destroys what the store doesn't have, as `-F` does.
    ForcesReplica,
    /// The last source of the chain is left out.
    SkipsEarly,
    /// Ten times the budget.
    IgnoresBudget,
}

impl Mutant {
    /// Each with the invariant that it violates.
    pub const ALL: [(Self, Invariant); 8] = [
        (Self::OverwritesLive, Invariant::LiveData),
        (Self::WrongPoint, Invariant::ExactPoint),
        (Self::SkipsVerification, Invariant::Verified),
        (Self::NotAtomic, Invariant::Converges),
        (Self::ForgetsUnseeded, Invariant::Unseeded),
        (Self::ForcesReplica, Invariant::Replica),
        (Self::SkipsEarly, Invariant::EverySource),
        (Self::IgnoresBudget, Invariant::Budget),
    ];
}

pub(super) fn store(
    mutant: Option<Mutant>,
    inner: Arc<dyn SnapshotStore>,
    world: &World,
) -> Arc<dyn SnapshotStore> {
    match mutant {
        Some(kind @ (Mutant::OverwritesLive | Mutant::NotAtomic | Mutant::ForgetsUnseeded)) => {
            Arc::new(BrokenStore {
                inner,
                world: world.clone(),
                kind,
            })
        }
        _ => inner,
    }
}

pub(super) fn source(mutant: Option<Mutant>, inner: Arc<dyn RestoreSource>) -> Arc<dyn RestoreSource> {
    match mutant {
        Some(Mutant::WrongPoint) => Arc::new(BrokenSource(inner)),
        _ => inner,
    }
}

pub(super) fn replicator(
    mutant: Option<Mutant>,
    inner: Arc<dyn Replicator>,
    world: &World,
) -> Arc<dyn Replicator> {
    match mutant {
        Some(Mutant::ForcesReplica) => Arc::new(BrokenReplicator(inner, world.clone())),
        _ => inner,
    }
}

pub(super) fn verifier(mutant: Option<Mutant>, inner: Arc<dyn Verifier>, world: &World) -> Arc<dyn Verifier> {
    match mutant {
        Some(Mutant::SkipsVerification) => Arc::new(BrokenVerifier(inner, world.clone())),
        _ => inner,
    }
}

#[derive(Debug)]
struct BrokenStore {
    inner: Arc<dyn SnapshotStore>,
    world: World,
    kind: Mutant,
}

#[async_trait]
impl SnapshotStore for BrokenStore {
    fn caps(&self) -> StoreCaps {
        self.inner.caps()
    }

    async fn inspect(&self, cx: &Context, targets: &[Target]) -> Result<Vec<Inspection>, StoreError> {
        let mut found = self.inner.inspect(cx, targets).await?;
        for one in &mut found {
            match self.kind {
                // Only once there is something to restore: a service that looks empty would not be snapshotted.
                Mutant::OverwritesLive
                    if one.condition == Condition::Populated
                        && !self.world.snapshots(&one.target.dataset).is_empty() =>
                {
                    one.condition = Condition::Empty;
                    one.marker = None;
                }
                Mutant::ForgetsUnseeded => {
                    one.marker = one.marker.take().filter(|marker| !marker.is_unseeded());
                }
                _ => {}
            }
        }
        Ok(found)
    }

    async fn list(&self, cx: &Context, targets: &[Target]) -> Result<Vec<Snapshot>, StoreError> {
        self.inner.list(cx, targets).await
    }

    async fn create(&self, cx: &Context, request: &CreateSnapshots) -> Result<Vec<Snapshot>, StoreError> {
        self.inner.create(cx, request).await
    }

    async fn since(
        &self,
        cx: &Context,
        target: &Target,
        snapshot: &SnapshotRef,
    ) -> Result<Since, StoreError> {
        self.inner.since(cx, target, snapshot).await
    }

    async fn hold(
        &self,
        cx: &Context,
        snapshots: &[SnapshotRef],
        tag: &HoldTag,
        change: HoldChange,
    ) -> Result<(), StoreError> {
        if self.kind == Mutant::ForgetsUnseeded {
            return Ok(());
        }
        self.inner.hold(cx, snapshots, tag, change).await
    }

    async fn prune(&self, cx: &Context, snapshots: &[SnapshotRef]) -> Result<Vec<Pruned>, StoreError> {
        self.inner.prune(cx, snapshots).await
    }

    async fn stage(&self, cx: &Context, request: &StageRequest) -> Result<Staging, StoreError> {
        self.inner.stage(cx, request).await
    }

    async fn settle(&self, cx: &Context, request: &Settle) -> Result<Settled, StoreError> {
        let Settle::Promote { staging, marker, .. } = request else {
            return self.inner.settle(cx, request).await;
        };
        let target = &staging.target;
        match (self.kind, self.world.standing(&target.dataset)) {
            (Mutant::OverwritesLive, Some(found)) => {
                let forced = Settle::Promote {
                    staging: staging.clone(),
                    replace: Replace::SetAside { guid: found.guid },
                    marker: marker.clone(),
                };
                self.inner.settle(cx, &forced).await
            }
            (Mutant::NotAtomic, found) => {
                if found.is_none_or(|found| !found.tree.populated())
                    && let Some(staged) = self.world.staged(&target.dataset)
                {
                    self.world.make(target);
                    let half = staged.entries().iter().take(2);
                    self.world.edit(&target.dataset, |tree| {
                        half.for_each(|(path, node)| tree.put(path, node.clone()));
                    });
                    tokio::task::yield_now().await;
                    self.world.destroy(&target.dataset, false);
                }
                self.inner.settle(cx, request).await
            }
            _ => self.inner.settle(cx, request).await,
        }
    }
}

#[derive(Debug)]
struct BrokenSource(Arc<dyn RestoreSource>);

impl BrokenSource {
    /// The next older point of the same dataset, where there is one.
    async fn other(&self, cx: &Context, request: &RestoreRequest) -> Result<RestoreRequest, SourceError> {
        let points = self.0.points(cx, &request.target).await?;
        let mut after = points
            .into_iter()
            .skip_while(|point| point.id != request.point.id);
        let found = after.next();
        Ok(RestoreRequest {
            point: after.next().or(found).unwrap_or_else(|| request.point.clone()),
            ..request.clone()
        })
    }
}

#[async_trait]
impl RestoreSource for BrokenSource {
    fn name(&self) -> &SourceName {
        self.0.name()
    }

    fn caps(&self) -> SourceCaps {
        self.0.caps()
    }

    async fn points(&self, cx: &Context, target: &Target) -> Result<Vec<RecoveryPoint>, SourceError> {
        let mut points = self.0.points(cx, target).await?;
        for point in &mut points {
            point.fingerprint = None;
        }
        Ok(points)
    }

    async fn plan(&self, cx: &Context, request: &RestoreRequest) -> Result<RestorePlan, SourceError> {
        self.0.plan(cx, request).await
    }

    async fn execute(
        &self,
        cx: &Context,
        plan: &RestorePlan,
        staging: &Staging,
    ) -> Result<Restored, SourceError> {
        let request = self.other(cx, &plan.request).await?;
        let plan = RestorePlan {
            request,
            ..plan.clone()
        };
        self.0.execute(cx, &plan, staging).await
    }
}

#[derive(Debug)]
struct BrokenReplicator(Arc<dyn Replicator>, World);

#[async_trait]
impl Replicator for BrokenReplicator {
    fn name(&self) -> &SourceName {
        self.0.name()
    }

    fn caps(&self) -> ReplicatorCaps {
        self.0.caps()
    }

    async fn plan(&self, cx: &Context, targets: &[Target]) -> Result<ReplicationPlan, ReplicateError> {
        self.0.plan(cx, targets).await
    }

    async fn execute(
        &self,
        cx: &Context,
        plan: &ReplicationPlan,
    ) -> Result<ReplicationReport, ReplicateError> {
        let report = self.0.execute(cx, plan).await?;
        if !report.set_aside.is_empty() {
            self.1.drop_set_aside(self.0.name());
        }
        Ok(report)
    }

    async fn lineage(&self, cx: &Context, targets: &[Target]) -> Result<Vec<Lineage>, ReplicateError> {
        self.0.lineage(cx, targets).await
    }
}

#[derive(Debug)]
struct BrokenVerifier(Arc<dyn Verifier>, World);

#[async_trait]
impl Verifier for BrokenVerifier {
    async fn measure(&self, cx: &Context, root: &Path) -> Result<Fingerprint, OpError> {
        match self.1.expected_at(root) {
            Some(expected) => Ok(expected),
            None => self.0.measure(cx, root).await,
        }
    }

    async fn make_scratch(&self, cx: &Context, path: &Path) -> Result<(), OpError> {
        self.0.make_scratch(cx, path).await
    }

    async fn validate(&self, cx: &Context, root: &Path, validator: &Validator) -> Result<(), OpError> {
        self.0.validate(cx, root, validator).await
    }
}

pub(super) fn journal(mutant: Option<Mutant>, inner: Arc<dyn Journal>) -> Arc<dyn Journal> {
    match mutant {
        Some(Mutant::ForgetsUnseeded) => Arc::new(Forgetful(inner)),
        _ => inner,
    }
}

/// Keeps the history, and nothing of what a service is: the third of the three records of an unseeded service.
#[derive(Debug)]
struct Forgetful(Arc<dyn Journal>);

impl Journal for Forgetful {
    fn write(&self, entries: Vec<Entry>) {
        self.0.write(
            entries
                .into_iter()
                .filter(|entry| !matches!(entry, Entry::Service(_)))
                .collect(),
        );
    }

    fn history(&self, query: &Query) -> Result<Vec<Run>, JournalError> {
        self.0.history(query)
    }

    fn fingerprint(
        &self,
        dataset: &DatasetName,
        point: &PointId,
    ) -> Result<Option<Fingerprint>, JournalError> {
        self.0.fingerprint(dataset, point)
    }

    fn service(&self, service: &ServiceName) -> Result<Option<ServiceRecord>, JournalError> {
        self.0.service(service)
    }

    fn take_warnings(&self) -> Vec<Warning> {
        self.0.take_warnings()
    }
}
