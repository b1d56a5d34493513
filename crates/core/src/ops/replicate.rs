//! Sending snapshots to replicas.

use std::time::Duration;

use super::{Doing, OpOutcome, OpReport};
use crate::context::Context;
use crate::engine::Engine;
use crate::error::{ReplicateError, ReplicateKind};
use crate::replicate::{ReplicationPlan, Replicator};
use crate::service::Service;

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
            Ok(plan) if plan.steps.is_empty() => return doing.end(OpOutcome::UpToDate),
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
        let sent = engine.within(cx, BUDGET, "sending", |cx| async move {
            replicator.execute(&cx, &plan).await
        });
        match sent.await {
            Ok(report) => {
                doing.bytes(report.bytes);
                for snapshot in &report.sent {
                    doing.done(format!("{}@{}", snapshot.dataset, snapshot.name));
                }
                return match report.failed.into_iter().next() {
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
