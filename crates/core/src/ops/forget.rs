//! Ageing out points of an off-site repository by a keep policy, behind the same guard as the store's snapshots.
//!
//! Age alone never decides: what goes is named point by point, and data goes only when no point needs it. A bucket's own lifecycle
//! rules know neither, which is why they must not do this (docs/operations/offsite.md).

use std::cmp::Reverse;
use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::doubt::Doubts;
use super::guard::{Guarded, guard_offsite};
use super::{Doing, OpOutcome, OpReport};
use crate::OffsitePruner;
use crate::context::Context;
use crate::engine::Engine;
use crate::error::{ErrorReport, OffsiteError, OpError, OpKind, StoreError};
use crate::journal::{JournalError, Query, RunKind};
use crate::names::{DatasetName, PointId, ServiceName, SourceName};
use crate::point::{RecoveryPoint, Target};
use crate::preseed::{Candidate, group};
use crate::retention::{self, Inventory, Kept, Point, Policy, Removed};
use crate::service::Service;

const BUDGET: Duration = Duration::from_secs(24 * 3600);
/// So many runs are looked at.
const LOOKED_AT: u32 = 2_000;

/// What forgetting would do to a repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RepoForgetPlan {
    /// The repository.
    pub repository: SourceName,
    /// One a service that has points there.
    pub services: Vec<ForgetPlan>,
    /// Datasets that are of no service of this configuration: their points stay.
    pub of_no_service: Vec<DatasetName>,
}

/// What forgetting would do to one service's points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForgetPlan {
    /// The service.
    pub service: ServiceName,
    /// Why all of them stay, where a guard says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guarded: Option<Guarded>,
    /// One a dataset that has points.
    pub datasets: Vec<(DatasetName, retention::Plan)>,
}

impl ForgetPlan {
    /// What goes, as the repository calls it.
    pub fn remove(&self) -> Vec<String> {
        let removed = self.datasets.iter().flat_map(|(_, plan)| &plan.remove);
        removed.map(|removed| removed.point.id.clone()).collect()
    }
}

/// How ageing out went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RepoForgotten {
    /// The repository.
    pub repository: SourceName,
    /// One a service that has points there.
    pub services: Vec<OpReport>,
    /// Why data that nothing needs is still there; none when it was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpruned: Option<ErrorReport>,
}

/// Says what would go. `services` are all of this configuration: what is of none of them stays.
///
/// # Errors
/// When the repository's points can't be listed. A service whose state can't be told loses nothing, and is no error.
pub async fn forget_plan(
    engine: &Engine,
    cx: &Context,
    pruner: &dyn OffsitePruner,
    services: &[Service],
    policy: &Policy,
) -> Result<RepoForgetPlan, OpError> {
    let points = engine
        .within(cx, BUDGET, "listing points", |cx| async move {
            pruner.own_points(&cx).await
        })
        .await
        .map_err(|e: OffsiteError| e.convert(OpKind::Failed))?;
    let mut plan = RepoForgetPlan {
        repository: pruner.name().clone(),
        services: Vec::new(),
        of_no_service: Vec::new(),
    };
    for point in &points {
        let targets = services.iter().flat_map(|service| &service.targets);
        let known = targets
            .map(|target| &target.dataset)
            .any(|name| *name == point.dataset);
        if !known && !plan.of_no_service.contains(&point.dataset) {
            plan.of_no_service.push(point.dataset.clone());
        }
    }
    for service in services {
        let mine = |dataset: &DatasetName| -> Vec<&RecoveryPoint> {
            points.iter().filter(|point| point.dataset == *dataset).collect()
        };
        if service
            .targets
            .iter()
            .all(|target| mine(&target.dataset).is_empty())
        {
            continue;
        }
        let known = Doubts::about(engine, &service.name, pruner.name()).and_then(|doubts| {
            let doubts = doubts.and_altered(&points);
            let since = engine.journal.begun_anew();
            // Of each dataset one that it knows to be whole was stored since: what is before that matters no more.
            let now = engine.clock.now();
            let is_known = |point: &&RecoveryPoint, since: Timestamp| {
                let is_since = (since..=now).contains(&point.taken_at);
                // Without a digest too, which what sanoid takes has none of.
                is_since && !point.partial && !point.unseeded && !doubts.has(&point.id)
            };
            let is_settled = |since: &Timestamp| {
                let datasets = service.targets.iter().map(|target| mine(&target.dataset));
                let mut stored = datasets.filter(|mine| !mine.is_empty());
                stored.all(|mine| mine.iter().any(|point| is_known(point, *since)))
            };
            match since.filter(|since| !is_settled(since)) {
                Some(at) => Err(JournalError::BegunAnew { at }),
                None => Ok(doubts),
            }
        });
        let (doubts, untold) = match known {
            Ok(doubts) => (doubts, None),
            Err(error) => {
                let untold = Guarded {
                    why: format!(
                        "which points of {} are whole can't be told: {error}",
                        service.name
                    ),
                    hint: error.hint().to_owned(),
                };
                (Doubts::All, Some(untold))
            }
        };
        let guarded = guarded(engine, cx, service, &points).await.or(untold);
        let record = engine.journal.service(&service.name).ok().flatten();
        let good = record.and_then(|record| record.last_good).map(|good| good.point);
        let together = together(service, &points, &doubts, engine.clock.now());
        let mut datasets = Vec::new();
        for target in &service.targets {
            let mine = mine(&target.dataset);
            if mine.is_empty() {
                continue;
            }
            let (copies, spare) = states(&mine);
            let inventory = Inventory {
                points: inventory(&copies, &doubts, good.as_ref(), &together, engine.clock.now()),
                unseeded: guarded.is_some(),
                ..Inventory::default()
            };
            let decided = retention::plan(inventory, policy, engine.clock.now());
            let decided = with_copies(decided, &spare);
            datasets.push((target.dataset.clone(), decided));
        }
        plan.services.push(ForgetPlan {
            service: service.name.clone(),
            guarded,
            datasets,
        });
    }
    Ok(plan)
}

/// Why nothing of a service may age out. What can't be looked at is no better than what isn't there.
async fn guarded(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    points: &[RecoveryPoint],
) -> Option<Guarded> {
    if let Some(why) = super::unseeded_by_journal(engine, service) {
        return Some(Guarded {
            why: format!("{} was started without data: {why}", service.name),
            hint: format!("restore it, or `reseed adopt {}`", service.name),
        });
    }
    let store = &service.store;
    let looked = engine
        .within(cx, BUDGET, "looking at the service", |cx| async move {
            let inspections = store.inspect(&cx, &service.targets).await?;
            Ok((inspections, store.list(&cx, &service.targets).await?))
        })
        .await;
    match looked {
        Ok((inspections, snapshots)) => {
            let (name, now) = (service.name.as_str(), engine.clock.now());
            guard_offsite(name, &inspections, &snapshots, points, now).err()
        }
        Err(error) => {
            let error: StoreError = error;
            Some(Guarded {
                why: format!("the state of {} can't be told: {error}", service.name),
                hint: error
                    .what_to_do()
                    .unwrap_or("`reseed status` shows it")
                    .to_owned(),
            })
        }
    }
}

/// The best copy of each state, and the others: a backup that could not be told to be partial is stored once more. Rules are about states, and
/// would as soon keep the partial one of two.
fn states<'a>(points: &[&'a RecoveryPoint]) -> (Vec<&'a RecoveryPoint>, Vec<&'a RecoveryPoint>) {
    let rank = |point: &RecoveryPoint| (!point.partial, !point.altered, Reverse(point.locator.clone()));
    let (mut best, mut spare): (Vec<&RecoveryPoint>, Vec<&RecoveryPoint>) = (Vec::new(), Vec::new());
    for point in points {
        match best.iter_mut().find(|known| known.id == point.id) {
            None => best.push(point),
            Some(known) if rank(point) > rank(known) => spare.push(std::mem::replace(known, point)),
            Some(_) => spare.push(point),
        }
    }
    (best, spare)
}

/// What becomes of a state becomes of all its copies.
fn with_copies(mut plan: retention::Plan, spare: &[&RecoveryPoint]) -> retention::Plan {
    for copy in spare {
        let of_it = |point: &Point| point.name == copy.id.as_str();
        let point = |of: &Point| Point {
            id: copy.locator.clone(),
            ..of.clone()
        };
        if let Some(removed) = plan.remove.iter().find(|removed| of_it(&removed.point)).cloned() {
            plan.remove.push(Removed {
                point: point(&removed.point),
                ..removed
            });
        } else if let Some(kept) = plan.keep.iter().find(|kept| of_it(&kept.point)).cloned() {
            plan.keep.push(Kept {
                point: point(&kept.point),
                ..kept
            });
        }
    }
    plan
}

/// The points of the newest states that a service of several datasets comes back to: it is restored by states that all of them were in
/// together, and rules are about each dataset alone. The newest that there is, the newest whole one, and the newest that is known to be.
fn together(
    service: &Service,
    points: &[RecoveryPoint],
    doubts: &Doubts,
    now: Timestamp,
) -> HashSet<(DatasetName, PointId)> {
    if service.targets.len() < 2 {
        return HashSet::new();
    }
    let targets: Vec<&Target> = service.targets.iter().collect();
    let mut points: Vec<RecoveryPoint> = points
        .iter()
        .filter(|point| !point.is_damaged())
        .cloned()
        .collect();
    points.sort_by_key(|point| Reverse((point.taken_at <= now, point.taken_at)));
    let states = group(0, &targets, &points);
    let newest = |is_it: &dyn Fn(&RecoveryPoint) -> bool| {
        let all = |state: &&Candidate| state.points.iter().all(is_it);
        states
            .iter()
            .find(all)
            .into_iter()
            .flat_map(|state| &state.points)
    };
    let known = |point: &RecoveryPoint| is_whole(point) && !doubts.has(&point.id);
    newest(&|_| true)
        .chain(newest(&is_whole))
        .chain(newest(&known))
        .map(|point| (point.dataset.clone(), point.id.clone()))
        .collect()
}

fn is_whole(point: &RecoveryPoint) -> bool {
    !point.unseeded && !point.partial && point.fingerprint.is_some()
}

fn inventory(
    points: &[&RecoveryPoint],
    doubts: &Doubts,
    known_good: Option<&PointId>,
    together: &HashSet<(DatasetName, PointId)>,
    now: Timestamp,
) -> Vec<Point> {
    // The newest whole state of a seeded service stays, whatever its age: it is what a lost service is restored from. Where that only
    // looks whole, the newest that is known to be stays, too.
    let newest = |known: bool| {
        let good = points
            .iter()
            .filter(|point| is_whole(point) && !(known && doubts.has(&point.id)));
        // One that is dated in the future, by a clock that was wrong then, is not the newest.
        good.max_by_key(|point| (point.taken_at <= now, point.taken_at))
            .map(|point| &point.id)
    };
    let good = [newest(false), newest(true)];
    // By their state: one that was stored twice is there by either.
    let is_good = |point: &RecoveryPoint| {
        let id = Some(&point.id);
        let is_of_a_state = together.contains(&(point.dataset.clone(), point.id.clone()));
        (is_whole(point) && good.contains(&id)) || id == known_good || is_of_a_state
    };
    let point = |point: &&RecoveryPoint| Point {
        last_good: is_good(point),
        ..Point::new(point.id.as_str(), point.locator.clone(), point.taken_at)
    };
    points.iter().map(point).collect()
}

/// Removes the points that the policy no longer wants, and then the data that no point needs: [`forget_points`], and [`remove_unused`]. The
/// caller holds the services' locks.
///
/// # Errors
/// When the repository's points can't be listed: nothing was done.
pub async fn forget(
    engine: &Engine,
    cx: &Context,
    pruner: &dyn OffsitePruner,
    services: &[Service],
    policy: &Policy,
) -> Result<RepoForgotten, OpError> {
    let mut forgotten = forget_points(engine, cx, pruner, services, policy).await?;
    remove_unused(engine, cx, pruner, &mut forgotten).await;
    Ok(forgotten)
}

/// Removes the points that the policy no longer wants. Which those are depends on whether each service is seeded, so the caller holds the
/// services' locks. The data stays until [`remove_unused`], which needs no lock of a service: it may take hours.
///
/// # Errors
/// When the repository's points can't be listed: nothing was done.
pub async fn forget_points(
    engine: &Engine,
    cx: &Context,
    pruner: &dyn OffsitePruner,
    services: &[Service],
    policy: &Policy,
) -> Result<RepoForgotten, OpError> {
    let plan = forget_plan(engine, cx, pruner, services, policy).await?;
    let mut reports = Vec::new();
    for (service, plan) in plan.services.iter().filter_map(|plan| {
        let service = services.iter().find(|service| service.name == plan.service)?;
        Some((service, plan))
    }) {
        let doing = Doing::begin(engine, cx, service, "prune", Some(pruner.name()));
        reports.push(forget_of(engine, cx, pruner, doing, plan).await);
    }
    let unpruned = plan.lost_all(engine, services).map(|error| error.report());
    Ok(RepoForgotten {
        repository: plan.repository,
        services: reports,
        unpruned,
    })
}

/// Removes the data that no point needs, unless something spoke against that already. What is listed can be restored meanwhile (F3).
pub async fn remove_unused(
    engine: &Engine,
    cx: &Context,
    pruner: &dyn OffsitePruner,
    forgotten: &mut RepoForgotten,
) {
    if forgotten.unpruned.is_some() {
        return;
    }
    let pruned = engine.within(cx, BUDGET, "removing unused data", |cx| async move {
        pruner.prune(&cx).await
    });
    forgotten.unpruned = pruned.await.err().map(|error: OffsiteError| error.report());
}

impl RepoForgetPlan {
    /// Why data must stay that nothing needs: it may be of points that got lost, and is what they can be found again by.
    fn lost_all(&self, engine: &Engine, services: &[Service]) -> Option<OpError> {
        if !self.services.is_empty() || !self.of_no_service.is_empty() {
            return None;
        }
        let repository = &self.repository;
        let guarded = |why: String| {
            OpError::new(OpKind::Guarded, why).hint(
                "`restic snapshots` shows what is there, and `restic recover` finds what got lost; if all was removed on purpose, run `restic prune`",
            )
        };
        for Service { name, .. } in services {
            match has_stored(engine, name, repository) {
                Ok(false) => {}
                Ok(true) => {
                    let why = format!(
                        "{repository} has no point of this host any more, and {name} was backed up to it"
                    );
                    return Some(guarded(why));
                }
                Err(error) => {
                    let why = format!(
                        "{repository} has no point of this host, and whether {name} was backed up to it can't be told: {error}"
                    );
                    return Some(guarded(why));
                }
            }
        }
        None
    }
}

/// Whether a backup of a service to a repository ended well, as far as the journal remembers.
fn has_stored(engine: &Engine, service: &ServiceName, repository: &SourceName) -> Result<bool, JournalError> {
    let query = Query {
        limit: Some(LOOKED_AT),
        ..Query::last_success(service.clone(), RunKind::Backup)
    };
    let runs = engine.journal.history(&query)?;
    let has = runs.iter().any(|run| run.key.peer.as_ref() == Some(repository));
    match engine.journal.begun_anew() {
        Some(at) if !has => Err(JournalError::BegunAnew { at }),
        _ => Ok(has),
    }
}

async fn forget_of(
    engine: &Engine,
    cx: &Context,
    pruner: &dyn OffsitePruner,
    mut doing: Doing<'_>,
    plan: &ForgetPlan,
) -> OpReport {
    if let Some(guarded) = &plan.guarded {
        let error = OpError::new(OpKind::Guarded, guarded.why.clone()).hint(guarded.hint.clone());
        return doing.end_with(OpOutcome::Skipped, Some(error.report()));
    }
    let locators = plan.remove();
    if locators.is_empty() {
        return doing.end(OpOutcome::UpToDate);
    }
    let locators = &locators;
    let removed = engine.within(cx, BUDGET, "removing points", |cx| async move {
        pruner.forget(&cx, locators).await
    });
    match removed.await {
        Ok(forgotten) => {
            let mut first = None;
            for one in forgotten {
                match one.kept {
                    None => doing.done(one.locator),
                    Some(why) => {
                        doing.warn(format!("point {} is still there: {why}", one.locator));
                        first.get_or_insert(why);
                    }
                }
            }
            let outcome = match first {
                Some(_) => OpOutcome::Partial,
                None => OpOutcome::Ok,
            };
            doing.end_with(outcome, first)
        }
        Err(error) => {
            let error: OffsiteError = error;
            doing.fail(error.report())
        }
    }
}
