//! Sending snapshots to replicas.

use std::time::Duration;

use super::{Doing, OpOutcome, OpReport};
use crate::context::Context;
use crate::engine::Engine;
use crate::error::{ReplicateError, ReplicateKind, StoreError, StoreKind};
use crate::names::HoldTag;
use crate::point::SnapshotRef;
use crate::replicate::{ReplicationPlan, Replicator};
use crate::service::Service;
use crate::store::HoldChange;

/// Longest that one replica of one service may take.
const BUDGET: Duration = Duration::from_secs(24 * 3600);

/// Brings every replica of a service up to date.
pub async fn replicate(engine: &Engine, cx: &Context, service: &Service) -> Vec<OpReport> {
    let mut reports = Vec::with_capacity(service.replicators.len());
    for replicator in &service.replicators {
        reports.push(one(engine, cx, service, replicator.as_ref()).await);
    }
    reports
}

/// Says what would be sent to every replica of a service.
///
/// # Errors
/// In the place of each replica that could not be asked.
pub async fn replicate_plan(
    engine: &Engine,
    cx: &Context,
    service: &Service,
) -> Vec<Result<ReplicationPlan, ReplicateError>> {
    let mut plans = Vec::with_capacity(service.replicators.len());
    for replicator in &service.replicators {
        let plan = engine.within(cx, BUDGET, "planning", |cx| async move {
            replicator.plan(&cx, &service.targets).await
        });
        plans.push(plan.await);
    }
    plans
}

async fn one(engine: &Engine, cx: &Context, service: &Service, replicator: &dyn Replicator) -> OpReport {
    let mut doing = Doing::begin(engine, cx, service, "replicate", Some(replicator.name()));
    let mut stale = 0;
    loop {
        let plan = engine.within(cx, BUDGET, "planning", |cx| async move {
            replicator.plan(&cx, &service.targets).await
        });
        let plan = match plan.await {
            Ok(mut plan) if plan.steps.is_empty() => {
                if let Err(error) = hold_base(engine, cx, service, replicator).await {
                    doing.warn(format!(
                        "the base of the next replication could not be held: {error}"
                    ));
                }
                return match plan.left_out.pop() {
                    None => doing.end(OpOutcome::UpToDate),
                    Some((_, error)) => doing.end_with(OpOutcome::Partial, Some(error)),
                };
            }
            Ok(plan) => plan,
            Err(error) => return doing.fail(error.report()),
        };
        for step in &plan.steps {
            if let Some(aside) = &step.set_aside {
                doing.warn(format!(
                    "{} has diverged ({}); it is set aside as {} and sent anew",
                    step.target.dataset, aside.why, aside.renamed_to
                ));
            }
        }
        let left_out = plan.left_out.clone();
        let sent = engine.within(cx, BUDGET, "sending", |cx| async move {
            replicator.execute(&cx, &plan).await
        });
        match sent.await {
            Ok(report) => {
                doing.bytes(report.bytes);
                for snapshot in &report.sent {
                    doing.done(format!("{}@{}", snapshot.dataset, snapshot.name));
                }
                if let Err(error) = hold_base(engine, cx, service, replicator).await {
                    doing.warn(format!("the base of the next replication could not be held, so pruning may make it a full one: {error}"));
                }
                return match report.failed.into_iter().chain(left_out).next() {
                    None => doing.end(OpOutcome::Ok),
                    Some((_, error)) => doing.end_with(OpOutcome::Partial, Some(error)),
                };
            }
            // The world moved between plan and execution: a new plan is the answer, but not for ever.
            Err(error) if error.kind() == ReplicateKind::StalePlan && stale < 2 => stale += 1,
            Err(error) => return doing.fail(error.report()),
        }
    }
}

/// Holds the newest common snapshot of each dataset on the store, so that pruning there never takes the base of the next
/// incremental replication; then lets the previous base go.
async fn hold_base(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    replicator: &dyn Replicator,
) -> Result<(), StoreError> {
    let store = &service.store;
    if !store.caps().holds {
        return Ok(());
    }
    let tag = HoldTag::new(format!("reseed-base.{}", replicator.name()))
        .map_err(|e| StoreError::new(StoreKind::InvalidInput, e.to_string()))?;
    let work = engine.within(cx, BUDGET, "holding the replication base", |cx| async move {
        let lineage = replicator
            .lineage(&cx, &service.targets)
            .await
            .map_err(|e| e.convert(StoreKind::Unreachable))?;
        let bases: Vec<SnapshotRef> = lineage.into_iter().filter_map(|l| l.common).collect();
        let held = store.list(&cx, &service.targets).await?;
        let held = held.iter().filter(|s| s.holds.contains(&tag));
        let (kept, old): (Vec<SnapshotRef>, Vec<SnapshotRef>) =
            held.map(|s| s.reference()).partition(|s| bases.contains(s));
        let new: Vec<SnapshotRef> = bases.into_iter().filter(|b| !kept.contains(b)).collect();
        // A dataset whose lineage has no base keeps the hold it has.
        let old: Vec<SnapshotRef> = old
            .into_iter()
            .filter(|o| kept.iter().chain(&new).any(|b| b.dataset == o.dataset))
            .collect();
        if !new.is_empty() {
            store.hold(&cx, &new, &tag, HoldChange::Add).await?;
        }
        if !old.is_empty() {
            store.hold(&cx, &old, &tag, HoldChange::Release).await?;
        }
        Ok(())
    });
    work.await
}
