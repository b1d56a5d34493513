//! Taking snapshots, under names that sanoid understands.

use std::time::Duration;

use jiff::Zoned;
use jiff::tz::TimeZone;

use super::{Doing, OpOutcome, OpReport};
use crate::context::Context;
use crate::engine::Engine;
use crate::error::{Effect, Kind as _, OpError, OpKind, StoreKind};
use crate::event::Event;
use crate::names::{InvalidName, SnapshotName};
use crate::point::{MarkerState, Snapshot};
use crate::retention::sanoid::{Kind, Policy};
use crate::service::{Service, Verify};
use crate::store::{Condition, CreateSnapshots, Inspection};

/// Longest that taking one snapshot may take. Plain directories copy what changed.
const BUDGET: Duration = Duration::from_secs(6 * 3600);

/// The name of a snapshot: sanoid's for what its rules know, `reseed_<local time>_manual` for what is taken by hand and
/// what no rule removes; to the millisecond, because a hand may be quick.
///
/// # Errors
/// Never for a time that can be printed.
pub fn snapshot_name(kind: Option<Kind>, at: &Zoned) -> Result<SnapshotName, InvalidName> {
    match kind {
        None => SnapshotName::new(format!("reseed_{}_manual", at.strftime("%Y-%m-%d_%H:%M:%S%.3f"))),
        Some(kind) => SnapshotName::new(kind.snapshot_name(at, false)),
    }
}

/// The kinds of which a snapshot is due: those that the policy wants and have none of this hour, day, week, month or year yet, by the calendar
/// of `zone`. By their age an hourly timer that is a second early would leave out every other hour.
///
/// # Errors
/// When the snapshots can't be listed.
pub async fn due(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    policy: &Policy,
    zone: &TimeZone,
) -> Result<Vec<Kind>, OpError> {
    let store = &service.store;
    let list = engine.within(cx, BUDGET, "listing snapshots", |cx| async move {
        store.list(&cx, &service.targets).await
    });
    let snapshots = list.await.map_err(|e| e.convert(OpKind::Blocked))?;
    let now = engine.clock.now().to_zoned(zone.clone());
    let is_due = |kind: &Kind| {
        let of_kind = snapshots
            .iter()
            .filter(|s| Kind::of_name(s.name.as_str()) == Some(*kind));
        // One that is dated in the future, by a clock that was wrong then, must not stop snapshots until then.
        let newest = of_kind
            .map(|s| s.taken_at)
            .filter(|at| *at <= now.timestamp())
            .max();
        policy.wanted(*kind).is_some_and(|count| count > 0)
            && newest.is_none_or(|at| at < policy.began(*kind, &now))
    };
    Ok(Kind::ALL.into_iter().filter(is_due).collect())
}

/// Snapshots all datasets of a service at one instant, and measures them.
///
/// A dataset that holds nothing is not snapshotted: the newest point would be an empty one.
pub async fn snapshot(engine: &Engine, cx: &Context, service: &Service, name: &SnapshotName) -> OpReport {
    told(engine, cx, service, name, (true, BUDGET)).await
}

async fn told(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    name: &SnapshotName,
    how: (bool, Duration),
) -> OpReport {
    let mut doing = Doing::begin(engine, cx, service, "snapshot", None);
    match take(engine, cx, service, name, how).await {
        Ok(taken) => {
            for snapshot in &taken {
                doing.done(format!("{}@{}", snapshot.dataset, snapshot.name));
                doing.point(snapshot);
            }
            doing.end(OpOutcome::Ok)
        }
        Err(error) if error.kind() == OpKind::Guarded => {
            doing.end_with(OpOutcome::Skipped, Some(error.report()))
        }
        Err(error) => doing.fail(error.report()),
    }
}

/// Snapshots what somebody chose to go back to, as `reseed_<UTC>_restored`. The state they left is the newest that there is of the service until
/// then, and would be what a preseed brings back. It is measured where restores are compared with what was recorded: what comes back from a replica
/// of it is to be, too. Looking and measuring may take `limit` each; what can't be measured by then is there without a digest. Answers why that couldn't
/// be done.
pub(crate) async fn make_newest(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    limit: Duration,
) -> Option<String> {
    let now = engine.clock.now().to_zoned(TimeZone::UTC);
    let name = format!("reseed_{}_restored", now.strftime("%Y-%m-%d_%H:%M:%S%.3fZ"));
    let error = match SnapshotName::new(name) {
        Ok(name) => {
            let measure = service.policy.verify == Verify::Digest;
            told(engine, cx, service, &name, (measure, limit)).await.error
        }
        Err(error) => Some(OpError::new(OpKind::Failed, error.to_string()).report()),
    };
    let why = error?;
    let message = match why.effect {
        Effect::None => {
            format!(
                "no snapshot was taken of what is in place now, so that newer states are still the first to be restored: {why}"
            )
        }
        _ => format!(
            "whether a snapshot was taken of what is in place now isn't known; without one newer states are the first to be restored: {why}"
        ),
    };
    cx.emit(Event::Warning {
        service: Some(service.name.clone()),
        message: message.clone(),
        hint: Some(format!("run `reseed snapshot {}`", service.name)),
    });
    Some(message)
}

/// Says why [`snapshot`] would not take one now; nothing when it would.
///
/// # Errors
/// `Guarded` or `Blocked`, with the reason.
pub async fn snapshot_plan(engine: &Engine, cx: &Context, service: &Service) -> Result<(), OpError> {
    look(engine, cx, service, BUDGET).await.map(drop)
}

async fn look(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    limit: Duration,
) -> Result<Vec<Inspection>, OpError> {
    let store = &service.store;
    let inspect = engine.within(cx, limit, "inspecting", |cx| async move {
        store.inspect(&cx, &service.targets).await
    });
    let inspections = inspect.await.map_err(|e| e.convert(OpKind::Blocked))?;
    worth_keeping(service, &inspections)?;
    Ok(inspections)
}

pub(super) async fn take(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    name: &SnapshotName,
    (measure, limit): (bool, Duration),
) -> Result<Vec<Snapshot>, OpError> {
    let store = &service.store;
    let inspections = look(engine, cx, service, limit).await?;
    let unseeded = inspections
        .iter()
        .any(|i| i.marker.as_ref().is_some_and(crate::point::Marker::is_unseeded));
    let request = CreateSnapshots {
        targets: service.targets.clone(),
        name: name.clone(),
        taken_at: engine.clock.now(),
        measure,
        unseeded: unseeded || super::unseeded_by_journal(engine, service).is_some(),
    };
    let create = async |request: &CreateSnapshots| {
        let call = engine.within(cx, limit, "taking the snapshot", |cx| async move {
            store.create(&cx, request).await
        });
        call.await
    };
    let mut created = create(&request).await;
    // The hour that a clock change repeats has all of its names twice.
    if let Err(error) = &created
        && error.kind() == StoreKind::AlreadyExists
        && error.may_have() == Effect::None
        && let Some(Ok(name)) = Kind::clashing(name.as_str()).map(SnapshotName::new)
    {
        created = create(&CreateSnapshots { name, ..request }).await;
    }
    created.map_err(|error| {
        let kind = error.kind().common().map_or(OpKind::Failed, OpKind::from_common);
        error.convert(kind)
    })
}

fn worth_keeping(service: &Service, inspections: &[Inspection]) -> Result<(), OpError> {
    let name = &service.name;
    for inspection in inspections {
        let dataset = &inspection.target.dataset;
        match &inspection.condition {
            Condition::Populated => {}
            Condition::Empty if matches!(&inspection.marker, Some(m) if m.state == MarkerState::Adopted) => {}
            Condition::Empty | Condition::Absent => {
                return Err(OpError::new(OpKind::Guarded, format!("{dataset} holds nothing, and a snapshot of nothing would become its newest recovery point"))
                    .hint(format!("`reseed preseed {name}` puts it back; if it is meant to be empty, `reseed adopt {name}`")));
            }
            Condition::PoolUnavailable { why }
            | Condition::Unmounted { why }
            | Condition::Unknown { why } => {
                return Err(OpError::new(
                    OpKind::Blocked,
                    format!("{dataset} can't be snapshotted: {why}"),
                ));
            }
            Condition::Occupied { by } => {
                return Err(OpError::new(
                    OpKind::Blocked,
                    format!(
                        "{} is taken by {by}, which is not {dataset}",
                        inspection.target.mountpoint.display()
                    ),
                ));
            }
        }
    }
    Ok(())
}
