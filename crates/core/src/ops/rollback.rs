//! Back to a named snapshot of the service's own store: a restore in place from it, after telling what would be discarded.
//!
//! Nothing is discarded: what is live is set aside with the snapshots that are newer, and stays until an operator removes
//! it. `zfs rollback` would destroy those snapshots and everything written since, and is never run. The snapshot has to be
//! named, exactly; a moment or the newest one is what [`restore`](super::restore()) is for.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::restore::{self, At, RestoreOptions};
use crate::context::Context;
use crate::engine::Engine;
use crate::error::{OpError, OpKind, StoreError};
use crate::names::{Guid, PointId, ServiceName, SnapshotName, SourceName};
use crate::point::{RecoveryPoint, SnapshotRef, Target};
use crate::preseed::ServiceReport;
use crate::service::Service;
use crate::source::SourceClass;

/// Longest that the looking may take.
const BUDGET: Duration = Duration::from_secs(10 * 60);

/// What going back to a snapshot would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackPreview {
    /// The service.
    pub service: ServiceName,
    /// The store that the snapshots are in.
    pub store: SourceName,
    /// One a dataset, in the service's order.
    pub datasets: Vec<RollbackStep>,
}

/// What it would change of one dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackStep {
    /// Which, and where.
    pub target: Target,
    /// The snapshot that it goes back to.
    pub snapshot: SnapshotRef,
    /// When that was taken.
    pub taken_at: Timestamp,
    /// The snapshots that were taken after it: they stay, and belong to what is set aside then. Oldest first.
    pub newer: Vec<NewerSnapshot>,
    /// Bytes that were written since and are on disk by now; none where the store doesn't count them.
    pub written: Option<u64>,
    /// The guid of what is live; none when nothing is.
    pub live: Option<Guid>,
    /// Under which name this run would keep what is live.
    pub kept_as: Option<String>,
}

/// A snapshot that was taken after the one to go back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewerSnapshot {
    /// Its name behind the `@`.
    pub name: SnapshotName,
    /// Its guid.
    pub guid: Guid,
    /// When it was taken.
    pub taken_at: Timestamp,
}

impl RollbackPreview {
    /// Whether the same would be changed. What was written meanwhile, and the name it is kept under, don't count.
    fn same_as(&self, other: &Self) -> bool {
        let key = |step: &RollbackStep| (step.snapshot.clone(), step.newer.clone(), step.live);
        self.datasets.iter().map(key).eq(other.datasets.iter().map(key))
    }
}

/// Says what going back to a snapshot would change. It is named by its name, its full name, or its guid.
///
/// # Errors
/// `NotFound` when the live datasets have no such snapshot, all of them; `Blocked` for what stands at the targets;
/// `Unsupported` when the service doesn't come back from its own store.
pub async fn rollback_plan(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    snapshot: &str,
) -> Result<RollbackPreview, OpError> {
    let local = local(service)?;
    let inspections = restore::inspect(engine, cx, service).await?;
    for inspection in &inspections {
        restore::slot(service, inspection, true)?;
    }
    let points = named(engine, cx, service, &local, snapshot).await?;
    let store = &service.store;
    let listed = engine
        .within(cx, BUDGET, "listing snapshots", |cx| async move {
            store.list(&cx, &service.targets).await
        })
        .await
        .map_err(|error: StoreError| error.convert(OpKind::Failed))?;
    let mut datasets = Vec::with_capacity(points.len());
    for ((target, point), inspection) in service.targets.iter().zip(&points).zip(&inspections) {
        let mut own = listed
            .iter()
            .filter(|one| one.dataset == target.dataset)
            .skip_while(|one| PointId::from(one.guid) != point.id);
        let Some(wanted) = own.next().map(crate::point::Snapshot::reference) else {
            let what = format!(
                "{} is not a snapshot of {} itself, but of what was set aside of it",
                point.locator, target.dataset
            );
            return Err(OpError::new(OpKind::NotFound, what).hint(format!(
                "`reseed restore {} --from {local} --at {} --set-aside` brings that back",
                service.name, point.id
            )));
        };
        let newer = own.map(|one| NewerSnapshot {
            name: one.name.clone(),
            guid: one.guid,
            taken_at: one.taken_at,
        });
        let newer = newer.collect();
        let asked = &wanted;
        let since = engine
            .within(cx, BUDGET, "looking at what was written since", |cx| async move {
                store.since(&cx, target, asked).await
            })
            .await
            .map_err(|error| error.convert(OpKind::Failed))?;
        datasets.push(RollbackStep {
            target: target.clone(),
            snapshot: wanted,
            taken_at: point.taken_at,
            newer,
            written: since.written,
            live: inspection.guid,
            kept_as: inspection.guid.map(|_| since.kept_as),
        });
    }
    Ok(RollbackPreview {
        service: service.name.clone(),
        store: local,
        datasets,
    })
}

/// Does what a preview says, if that still holds: puts the snapshots' state in place, verified first, and sets what is live
/// aside.
///
/// # Errors
/// `Blocked` when something else would be set aside than the preview says; as [`restore`](super::restore()).
pub async fn rollback(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    preview: &RollbackPreview,
) -> Result<ServiceReport, OpError> {
    let Some(first) = preview.datasets.first() else {
        return Err(OpError::new(OpKind::InvalidInput, "nothing is to be rolled back"));
    };
    let wanted = first.snapshot.guid.to_string();
    let now = rollback_plan(engine, cx, service, &wanted).await?;
    if !now.same_as(preview) {
        let what = format!("the snapshots of {} are others than in the preview", service.name);
        return Err(OpError::new(OpKind::Blocked, what).hint("run it again, and look at the preview"));
    }
    let options = RestoreOptions {
        from: Some(preview.store.clone()),
        at: At::Point(wanted),
        set_aside: true,
    };
    restore::restore(engine, cx, service, &options).await
}

/// The source that is the service's own store.
fn local(service: &Service) -> Result<SourceName, OpError> {
    let local = service
        .sources
        .iter()
        .find(|source| source.caps().kind == SourceClass::Local);
    local.map(|source| source.name().clone()).ok_or_else(|| {
        let what = format!("the chain of {} doesn't have its own store", service.name);
        OpError::new(OpKind::Unsupported, what).hint("add the store to the service's chain")
    })
}

/// The points of one name, one a dataset. A beginning of a name, or a moment, is not enough.
async fn named(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    local: &SourceName,
    snapshot: &str,
) -> Result<Vec<RecoveryPoint>, OpError> {
    let options = RestoreOptions {
        from: Some(local.clone()),
        at: At::Point(snapshot.to_owned()),
        set_aside: true,
    };
    let found = restore::choose(engine, cx, service, &options).await?;
    let exactly = |point: &RecoveryPoint| {
        point.id.as_str() == snapshot
            || point.locator == snapshot
            || point
                .snapshot
                .as_ref()
                .is_some_and(|name| name.as_str() == snapshot)
    };
    let whole = found
        .into_iter()
        .find(|candidate| candidate.points.iter().any(exactly));
    whole.map(|candidate| candidate.points).ok_or_else(|| {
        let what = format!("{snapshot:?} is only the beginning of a name");
        OpError::new(OpKind::InvalidInput, what).hint("give the snapshot's whole name, or its guid")
    })
}
