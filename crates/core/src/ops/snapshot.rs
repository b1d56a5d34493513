//! Taking snapshots, under names that sanoid understands.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::{Doing, OpOutcome, OpReport};
use crate::context::Context;
use crate::engine::Engine;
use crate::error::{Kind, OpError, OpKind};
use crate::names::{InvalidName, SnapshotName};
use crate::point::{MarkerState, Snapshot};
use crate::service::Service;
use crate::store::{Condition, CreateSnapshots, Inspection};

/// Longest that taking one snapshot may take. Plain directories copy what changed.
const BUDGET: Duration = Duration::from_secs(6 * 3600);

/// What a snapshot is taken for; the name carries it, and retention goes by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotKind {
    /// By hand: no retention rule removes it.
    Manual,
    /// Every few minutes.
    Frequently,
    /// Every hour.
    Hourly,
    /// Every day.
    Daily,
    /// Every week.
    Weekly,
    /// Every month.
    Monthly,
    /// Every year.
    Yearly,
}

impl SnapshotKind {
    fn word(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Frequently => "frequently",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        }
    }
}

/// The name of a snapshot: sanoid's `autosnap_<local time>_<type>` for what retention rules know, and
/// `reseed_<local time>_manual` for what is taken by hand.
///
/// # Errors
/// Never for a time that jiff can print.
pub fn snapshot_name(
    kind: SnapshotKind,
    at: Timestamp,
    zone: &TimeZone,
) -> Result<SnapshotName, InvalidName> {
    let time = at
        .to_zoned(zone.clone())
        .strftime("%Y-%m-%d_%H:%M:%S")
        .to_string();
    match kind {
        SnapshotKind::Manual => SnapshotName::new(format!("reseed_{time}_manual")),
        other => SnapshotName::new(format!("autosnap_{time}_{}", other.word())),
    }
}

/// Snapshots all datasets of a service at one instant, and measures them.
///
/// A dataset that holds nothing is not snapshotted: the newest point would be an empty one.
pub async fn snapshot(engine: &Engine, cx: &Context, service: &Service, name: &SnapshotName) -> OpReport {
    let mut doing = Doing::begin(engine, cx, service, "snapshot", None);
    match take(engine, cx, service, name).await {
        Ok(taken) => {
            for snapshot in &taken {
                doing.done(format!("{}@{}", snapshot.dataset, snapshot.name));
            }
            doing.end(OpOutcome::Ok)
        }
        Err(error) if error.kind() == OpKind::Guarded => {
            doing.end_with(OpOutcome::Skipped, Some(error.report()))
        }
        Err(error) => doing.fail(error.report()),
    }
}

pub(super) async fn take(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    name: &SnapshotName,
) -> Result<Vec<Snapshot>, OpError> {
    let store = &service.store;
    let inspect = engine.within(cx, BUDGET, "inspecting", |cx| async move {
        store.inspect(&cx, &service.targets).await
    });
    let inspections = inspect.await.map_err(|e| e.convert(OpKind::Blocked))?;
    worth_keeping(service, &inspections)?;
    let request = CreateSnapshots {
        targets: service.targets.clone(),
        name: name.clone(),
        taken_at: engine.clock.now(),
        measure: true,
        unseeded: inspections
            .iter()
            .any(|i| i.marker.as_ref().is_some_and(crate::point::Marker::is_unseeded)),
    };
    let create = engine.within(cx, BUDGET, "taking the snapshot", |cx| async move {
        store.create(&cx, &request).await
    });
    create.await.map_err(|error| {
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
