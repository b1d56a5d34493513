//! Ageing out snapshots of a store, behind the guards. Replicas are never pruned; repositories by [`forget`](super::forget()).

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::guard::guard;
use super::{Doing, OpOutcome, OpReport};
use crate::context::Context;
use crate::engine::Engine;
use crate::error::{OpError, OpKind};
use crate::names::DatasetName;
use crate::point::{Snapshot, SnapshotRef};
use crate::retention::{self, Inventory, Point, Policy};
use crate::service::Service;

const BUDGET: Duration = Duration::from_secs(6 * 3600);

/// What pruning a service would keep and remove.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PrunePlan {
    /// One a dataset.
    pub datasets: Vec<(DatasetName, retention::Plan)>,
    /// What would be removed, exactly.
    pub remove: Vec<SnapshotRef>,
}

/// Says what would be removed.
///
/// # Errors
/// `Guarded` while the service is unseeded, not plainly there, or has shrunk.
pub async fn prune_plan(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    policy: &Policy,
) -> Result<PrunePlan, OpError> {
    let store = &service.store;
    let (inspections, snapshots) = engine
        .within(cx, BUDGET, "listing snapshots", |cx| async move {
            let inspections = store.inspect(&cx, &service.targets).await?;
            Ok((inspections, store.list(&cx, &service.targets).await?))
        })
        .await
        .map_err(|e: crate::error::StoreError| e.convert(OpKind::Blocked))?;
    let now = engine.clock.now();
    guard(service.name.as_str(), &inspections, &snapshots, now)
        .map_err(|guarded| OpError::new(OpKind::Guarded, guarded.why).hint(guarded.hint))?;
    if let Some(why) = super::unseeded_by_journal(engine, service) {
        let what = format!("{} was started without data: {why}", service.name);
        return Err(OpError::new(OpKind::Guarded, what)
            .hint(format!("restore it, or `reseed adopt {}`", service.name)));
    }
    let mut plan = PrunePlan {
        datasets: Vec::new(),
        remove: Vec::new(),
    };
    for target in &service.targets {
        // How old a damaged one is, nobody knows.
        let is_mine = |s: &&Snapshot| s.dataset == target.dataset && !s.is_damaged();
        let mine: Vec<&Snapshot> = snapshots.iter().filter(is_mine).collect();
        let inventory = Inventory {
            points: points(&mine, now),
            ..Inventory::default()
        };
        let decided = retention::plan(inventory, policy, now);
        for removed in &decided.remove {
            plan.remove.extend(
                mine.iter()
                    .find(|s| s.guid.to_string() == removed.point.id)
                    .map(|s| s.reference()),
            );
        }
        plan.datasets.push((target.dataset.clone(), decided));
    }
    Ok(plan)
}

fn points(snapshots: &[&Snapshot], now: Timestamp) -> Vec<Point> {
    // The newest measured state of a seeded service stays, whatever its kind and age: by the store's order, and by its date.
    let good = |s: &&&Snapshot| !s.unseeded && s.fingerprint.is_some();
    let by_date = snapshots.iter().filter(good);
    let by_date = by_date.max_by_key(|s| (s.taken_at <= now, s.taken_at));
    let last_good = [snapshots.iter().rev().find(good), by_date].map(|s| s.map(|s| s.guid));
    let point = |snapshot: &&Snapshot| Point {
        holds: snapshot.holds.iter().map(|h| h.to_string()).collect(),
        last_good: last_good.contains(&Some(snapshot.guid)),
        ..Point::new(
            snapshot.name.as_str(),
            snapshot.guid.to_string(),
            snapshot.taken_at,
        )
    };
    snapshots.iter().map(point).collect()
}

/// Removes the snapshots that the policy no longer wants.
pub async fn prune(engine: &Engine, cx: &Context, service: &Service, policy: &Policy) -> OpReport {
    let mut doing = Doing::begin(engine, cx, service, "prune", None);
    let plan = match prune_plan(engine, cx, service, policy).await {
        Ok(plan) if plan.remove.is_empty() => return doing.end(OpOutcome::UpToDate),
        Ok(plan) => plan,
        Err(error) if error.kind() == OpKind::Guarded => {
            return doing.end_with(OpOutcome::Skipped, Some(error.report()));
        }
        Err(error) => return doing.fail(error.report()),
    };
    let store = &service.store;
    let remove = &plan.remove;
    let pruned = engine.within(cx, BUDGET, "removing snapshots", |cx| async move {
        store.prune(&cx, remove).await
    });
    match pruned.await {
        Ok(pruned) => {
            let mut first = None;
            for one in pruned {
                let name = format!("{}@{}", one.snapshot.dataset, one.snapshot.name);
                match one.kept {
                    None => doing.done(name),
                    Some(why) => {
                        doing.warn(format!("{name} is still there: {why}"));
                        first.get_or_insert(why);
                    }
                }
            }
            let outcome = if first.is_some() {
                OpOutcome::Partial
            } else {
                OpOutcome::Ok
            };
            doing.end_with(outcome, first)
        }
        Err(error) => doing.fail(error.report()),
    }
}
