//! Preseed: puts a service's data back when it is missing, before the service starts.
//!
//! The promise: data that is there is never touched; what becomes live is exactly one recovery point, verified before anyone
//! could see it; whatever happens is told with its reason; and the same call after a crash at any point ends in the same
//! place. It doesn't know what a dataset or a repository is made of.
//!
//! Contract (the simulator checks each of these after every step):
//! - **C1** live data is never altered by a preseed.
//! - **C2** after a success the target equals exactly one recovery point of the source that the report names.
//! - **C3** data that fails verification is never promoted.
//! - **C4** a crash anywhere, then the same call, ends in the same place.
//! - **C5** no recovery point of an unseeded service disappears.
//! - **C6** nothing on a replica is ever destroyed.
//! - **C7** starting without data happens only when every source was tried, and every reason is in the report.
//! - **C8** the walk ends inside its budget.

mod candidates;
mod check;
mod decide;
mod earlier;
mod exhausted;
mod moves;
mod probe;
mod report;
mod restore;
mod several;
mod slow;
mod walk;

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};

use crate::context::Context;
use crate::engine::Engine;
use crate::event::Event;
use crate::journal::{Entry, LastGood, Run, RunKey, RunKind, ServiceRecord};
use crate::names::ServiceName;
use crate::ops::make_newest;
use crate::point::Target;
use crate::service::Service;
use crate::store::{Inspection, SnapshotStore};

pub(crate) use candidates::{BY_AGE, Candidate, group, order, passed_over};
pub(crate) use check::{ALTERED, may_lack};
pub(crate) use decide::{Decision, decide};
pub(crate) use exhausted::{UNSEEDED_HOLD, of_no_state, release_unseeded_hold};
pub(crate) use probe::probe_all;
pub use report::{Attempt, DatasetReport, Outcome, ServiceReport, Stage};
pub(crate) use restore::{Slot, Tried};
pub(crate) use walk::Walk;

/// Preseeds services, one after the other, after one inspection of all of them together.
///
/// Every service gets a report; none keeps another from being looked at, and those whose data is there don't wait for the
/// others. The first service's budget began at `since` (by the engine's monotonic clock), so that waiting for a lock counts.
pub async fn preseed(
    engine: &Engine,
    cx: &Context,
    services: &[&Service],
    since: Duration,
) -> Vec<ServiceReport> {
    let inspections = inspect_all(engine, cx, services).await;
    let present = |answer: &Result<Vec<Inspection>, String>| matches!(answer, Ok(list) if decide(list) == Decision::Present);
    let mut order: Vec<usize> = (0..services.len()).collect();
    order.sort_by_key(|index| !present(&inspections[*index]));
    let mut reports: Vec<(usize, ServiceReport)> = Vec::with_capacity(services.len());
    let mut inspections: Vec<Option<_>> = inspections.into_iter().map(Some).collect();
    let mut quick = Vec::new();
    let mut began = since;
    for index in order {
        let Some(inspected) = inspections[index].take() else {
            continue;
        };
        let walk = Walk::begin(engine, cx, services[index], began);
        let (mut report, newest) = walk.preseed(inspected).await;
        if report.outcome == Outcome::DataPresent {
            // One write for all: fifty services whose data is there cost one transaction.
            quick.push(report.clone());
        } else {
            record(engine, std::slice::from_ref(&report), RunKind::Preseed);
        }
        if let Some(limit) = newest {
            // Only now does the history say whether the service is seeded.
            let unmade = make_newest(engine, cx, services[index], limit).await;
            report.warnings.extend(unmade);
        }
        // Also after one whose data is there: removing what an earlier run had staged for it may have taken long.
        began = engine.clock.monotonic();
        reports.push((index, report));
    }
    record(engine, &quick, RunKind::Preseed);
    reports.sort_by_key(|(index, _)| *index);
    reports.into_iter().map(|(_, report)| report).collect()
}

/// What [`present`] found of a service.
#[derive(Debug, Clone)]
pub struct Present {
    /// There is nothing to do; none where [`preseed`] is to be called under the service's lock.
    pub report: Option<ServiceReport>,
    /// A snapshot was fetched to copy files out of it ([`Leftover::files`](crate::store::Leftover::files)), by a run that is at it or
    /// one that died. Who gets the lock knows which, and calls [`tidy`]. No service waits for it.
    pub fetched: bool,
}

/// Reports on those services for which there is nothing to do, because all of their data is there, after one inspection of all
/// of them; nothing on the others, for which [`preseed`] is to be called under their locks. Changes nothing but the journal, and lets go of what
/// was held of a service that turns out to be seeded again.
pub async fn present(engine: &Engine, cx: &Context, services: &[&Service]) -> Vec<Present> {
    let clean =
        |list: &[Inspection]| decide(list) == Decision::Present && list.iter().all(|i| i.leftover.is_none());
    let inspections = inspect_all(engine, cx, services).await;
    let mut all = Vec::with_capacity(services.len());
    for (service, inspected) in services.iter().zip(inspections) {
        let mut fetched = false;
        let inspected = inspected.map(|mut list| {
            for inspection in &mut list {
                // Without the lock it may be in use.
                fetched |= inspection.leftover.take_if(|left| left.files).is_some();
            }
            list
        });
        let report = match inspected {
            Ok(list) if clean(&list) => {
                let walk = Walk::begin(engine, cx, service, engine.clock.monotonic());
                Some(walk.preseed(Ok(list)).await.0)
            }
            _ => None,
        };
        all.push(Present { report, fetched });
    }
    let quick: Vec<ServiceReport> = all.iter().filter_map(|one| one.report.clone()).collect();
    record(engine, &quick, RunKind::Preseed);
    all
}

/// Removes what an earlier run left staged for a service whose data is there. To be called under its lock, by which it is known that
/// nobody is at it any more.
pub async fn tidy(engine: &Engine, cx: &Context, service: &Service) {
    let inspected = inspect_all(engine, cx, &[service]).await.pop();
    if let Some(Ok(list)) = inspected
        && decide(&list) == Decision::Present
        && several::cut_off(&service.name, &list).is_none()
    {
        Walk::begin(engine, cx, service, engine.clock.monotonic())
            .discard_leftovers(&list)
            .await;
    }
}

/// Says that a run has begun, so that one that never ends is known.
pub(crate) fn record_begin(engine: &Engine, cx: &Context, service: &Service, kind: RunKind) {
    let key = RunKey {
        run: cx.run.clone(),
        service: service.name.clone(),
        kind,
        peer: None,
    };
    engine
        .journal
        .write(vec![Entry::Run(Box::new(Run::begun(key, engine.clock.now())))]);
}

/// Writes finished runs, and what they make of their services.
pub(crate) fn record(engine: &Engine, reports: &[ServiceReport], kind: RunKind) {
    let now = engine.clock.now();
    let mut entries = Vec::with_capacity(reports.len());
    for report in reports {
        let mut run = Run::from_preseed(report, now);
        run.key.kind = kind;
        entries.push(Entry::Run(Box::new(run)));
        let service = |unseeded, last_good| ServiceRecord {
            service: report.service.clone(),
            unseeded,
            since: now,
            last_good,
        };
        match &report.outcome {
            Outcome::StartedEmpty { why } => entries.push(Entry::Service(service(Some(why.clone()), None))),
            Outcome::Restored if report.datasets.iter().any(|one| one.unseeded) => {
                let why = "it was restored from a state that was taken while it was unseeded";
                entries.push(Entry::Service(service(Some(why.to_owned()), None)));
            }
            Outcome::Restored => {
                let good = |d: &DatasetReport| {
                    Some(LastGood {
                        point: d.point.clone(),
                        taken_at: d.taken_at,
                        fingerprint: d.fingerprint?,
                    })
                };
                entries.push(Entry::Service(service(
                    None,
                    report.datasets.first().and_then(good),
                )));
            }
            // Only a dataset that was added may be new, and the others still be what a start without data left behind.
            Outcome::FirstStart if report.in_part && is_unseeded(engine, &report.service) => {}
            Outcome::FirstStart => entries.push(Entry::Service(service(None, None))),
            _ => {}
        }
    }
    if !entries.is_empty() {
        engine.journal.write(entries);
    }
}

fn is_unseeded(engine: &Engine, service: &ServiceName) -> bool {
    let known = engine.journal.service(service);
    // Who can't tell doesn't say no.
    known.map_or(true, |known| known.is_some_and(|known| known.unseeded.is_some()))
}

/// Says what a preseed of these services would do, and changes nothing.
pub async fn plan(engine: &Engine, cx: &Context, services: &[&Service]) -> Vec<ServicePlan> {
    let inspections = inspect_all(engine, cx, services).await;
    let planned = services
        .iter()
        .zip(inspections)
        .map(|(service, inspections)| walk_plan::plan_one(engine, cx, service, inspections));
    // A source that doesn't answer is waited for by each service, and not by one after the other.
    stream::iter(planned).buffered(PLANNED_AT_ONCE).collect().await
}

/// So many services ask their sources at the same time. Each has a connection of its own, of which an sshd lets few begin at once.
const PLANNED_AT_ONCE: usize = 4;

pub(crate) mod walk_plan;
pub use walk_plan::{PlannedSource, PlannedState, ServicePlan};

/// How long one inspection of all targets of a store may take. A pool that hangs must not hang the boot.
const INSPECT_BUDGET: Duration = Duration::from_secs(60);

/// Inspects the targets of all services with one call a store, in the services' order.
pub(crate) async fn inspect_all(
    engine: &Engine,
    cx: &Context,
    services: &[&Service],
) -> Vec<Result<Vec<Inspection>, String>> {
    let mut stores: Vec<(&Arc<dyn SnapshotStore>, Vec<Target>)> = Vec::new();
    let mut places = Vec::with_capacity(services.len());
    for service in services {
        let index = match stores
            .iter()
            .position(|(store, _)| Arc::ptr_eq(store, &service.store))
        {
            Some(index) => index,
            None => {
                stores.push((&service.store, Vec::new()));
                stores.len() - 1
            }
        };
        let first = stores[index].1.len();
        stores[index].1.extend(service.targets.iter().cloned());
        places.push((index, first..stores[index].1.len()));
    }
    let mut answers = Vec::with_capacity(stores.len());
    for (store, targets) in &stores {
        let answer = engine.within(cx, INSPECT_BUDGET, "inspecting the store", |cx| async move {
            store.inspect(&cx, targets).await
        });
        answers.push(match answer.await {
            Ok(list) if list.len() == targets.len() => Ok(list),
            Ok(list) => Err(format!(
                "the store answered for {} of {} datasets",
                list.len(),
                targets.len()
            )),
            Err(error) => {
                cx.emit(Event::Warning {
                    service: None,
                    message: error.to_string(),
                    hint: error.what_to_do().map(str::to_owned),
                });
                Err(error.to_string())
            }
        });
    }
    places
        .into_iter()
        .map(|(index, range)| match &answers[index] {
            Ok(list) => Ok(list[range].to_vec()),
            Err(why) => Err(why.clone()),
        })
        .collect()
}
