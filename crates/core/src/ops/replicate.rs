//! Sending snapshots to replicas.
//!
//! Several services that share a replicator can be planned in one go, before any of them has its turn ([`replicate_ahead`]):
//! asking once for all of them is what makes a run with nothing to send cheap. A plan writes nothing and is checked
//! again when it is executed, so no lock is needed for it; one that has waited too long for its turn is made anew.

use std::sync::Arc;
use std::time::Duration;

use super::{Doing, OpOutcome, OpReport};
use crate::context::Context;
use crate::engine::Engine;
use crate::error::{ReplicateError, ReplicateKind, StoreError, StoreKind};
use crate::names::{DatasetName, HoldTag};
use crate::point::{SnapshotRef, Target};
use crate::replicate::{ReplicationPlan, Replicator};
use crate::service::Service;
use crate::store::HoldChange;

/// Longest that one replica of one service may take.
const BUDGET: Duration = Duration::from_secs(24 * 3600);

/// Longest that a plan may wait for its service's turn. Snapshots that were taken meanwhile are not in it.
const FRESH: Duration = Duration::from_secs(5 * 60);

/// Brings every replica of a service up to date.
pub async fn replicate(engine: &Engine, cx: &Context, service: &Service) -> Vec<OpReport> {
    replicate_planned(engine, cx, service, Ahead::default()).await
}

/// What was planned for a service before its turn.
#[derive(Debug, Clone, Default)]
pub struct Ahead {
    /// When, by the engine's clock.
    at: Duration,
    /// In the order of the service's replicators; none for what is planned when it is its turn.
    plans: Vec<Option<ReplicationPlan>>,
}

/// Plans for several services at once, where they share a replicator (the same one, not one of the same name). Answers in their
/// order. Where that fails each is planned by itself, so that one's trouble is not the others'.
pub async fn replicate_ahead(engine: &Engine, cx: &Context, services: &[Service]) -> Vec<Ahead> {
    let at = engine.clock.monotonic();
    let mut all: Vec<Ahead> = services
        .iter()
        .map(|service| Ahead {
            at,
            plans: vec![None; service.replicators.len()],
        })
        .collect();
    let mut seen: Vec<&Arc<dyn Replicator>> = Vec::new();
    for replicator in services.iter().flat_map(|service| &service.replicators) {
        if seen.iter().any(|known| Arc::ptr_eq(known, replicator)) {
            continue;
        }
        seen.push(replicator);
        let of = |service: &Service| {
            service
                .replicators
                .iter()
                .position(|r| Arc::ptr_eq(r, replicator))
        };
        let sharing: Vec<(usize, usize)> = services
            .iter()
            .enumerate()
            .filter_map(|(at, service)| Some((at, of(service)?)))
            .collect();
        if sharing.len() < 2 {
            continue;
        }
        let targets: Vec<Target> = sharing
            .iter()
            .flat_map(|(at, _)| services[*at].targets.clone())
            .collect();
        let plan = engine.within(cx, BUDGET, "planning", |cx| async move {
            replicator.plan(&cx, &targets).await
        });
        if let Ok(plan) = plan.await {
            for (at, nth) in sharing {
                all[at].plans[nth] = Some(part(&plan, &services[at].targets));
            }
        }
    }
    all
}

/// What of a plan is about these targets.
fn part(plan: &ReplicationPlan, targets: &[Target]) -> ReplicationPlan {
    let mine = |dataset: &DatasetName| targets.iter().any(|target| target.dataset == *dataset);
    let mut part = plan.clone();
    part.steps.retain(|step| mine(&step.target.dataset));
    part.left_out.retain(|(target, _)| mine(&target.dataset));
    part.let_go.retain(|snapshot| mine(&snapshot.dataset));
    part.untold.retain(|snapshot| mine(&snapshot.dataset));
    part
}

/// Brings every replica of a service up to date, by the plans that were made ahead.
pub async fn replicate_planned(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    ahead: Ahead,
) -> Vec<OpReport> {
    let mut reports = Vec::with_capacity(service.replicators.len());
    let mut plans = ahead.plans.into_iter();
    for replicator in &service.replicators {
        let fresh = engine.clock.monotonic().saturating_sub(ahead.at) <= FRESH;
        let plan = plans.next().flatten().filter(|_| fresh);
        reports.push(one(engine, cx, service, replicator.as_ref(), plan).await);
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

async fn one(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    replicator: &dyn Replicator,
    mut ahead: Option<ReplicationPlan>,
) -> OpReport {
    let mut doing = Doing::begin(engine, cx, service, "replicate", Some(replicator.name()));
    let mut stale = 0;
    loop {
        let ahead = ahead.take();
        let was_ahead = ahead.is_some();
        let plan = match ahead {
            Some(plan) => Ok(plan),
            None => {
                let plan = engine.within(cx, BUDGET, "planning", |cx| async move {
                    replicator.plan(&cx, &service.targets).await
                });
                plan.await
            }
        };
        let plan = match plan {
            Ok(mut plan) if plan.steps.is_empty() => {
                let mut untold = None;
                if !(plan.let_go.is_empty() && plan.untold.is_empty()) {
                    let plan = &plan;
                    let tidied = engine.within(
                        cx,
                        BUDGET,
                        "finishing what an earlier run sent",
                        |cx| async move { replicator.execute(&cx, plan).await },
                    );
                    match tidied.await {
                        Ok(_) => {}
                        // A copy that doesn't say that it is unseeded may be restored for data.
                        Err(error) if !plan.untold.is_empty() => untold = Some(error.report()),
                        Err(error) => {
                            doing.warn(format!("what an earlier run holds could not be let go: {error}"));
                        }
                    }
                }
                if let Err(error) = hold_base(engine, cx, service, replicator).await {
                    doing.warn(format!(
                        "the base of the next replication could not be held: {error}"
                    ));
                }
                let left_out = plan.left_out.pop().map(|(_, error)| error);
                return match left_out.or(untold) {
                    None => doing.end(OpOutcome::UpToDate),
                    Some(error) => doing.end_with(OpOutcome::Partial, Some(error)),
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
            match was_ahead {
                true => replicator.execute(&cx, &plan).await,
                false => replicator.execute_at_once(&cx, &plan).await,
            }
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
    if replicator.caps().keeps_base || !store.caps().holds {
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
