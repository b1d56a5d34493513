//! What a preseed would do: the forecast behind `--dry-run` and `status`.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::probe::Probe;
use super::{Candidate, Decision, decide, group, of_no_state, order, probe_all, several};
use crate::context::Context;
use crate::engine::Engine;
use crate::error::ErrorReport;
use crate::names::{PointId, ServiceName, SnapshotName, SourceName};
use crate::point::Target;
use crate::service::{Service, WhenExhausted};
use crate::store::Inspection;

/// What a preseed of one service would do now, and what it would do if its data vanished.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServicePlan {
    /// The service.
    pub service: ServiceName,
    /// What a preseed would do now: `data-present`, `blocked`, `restore`, `first-start`, `exhausted` (it would start without data), or
    /// `held`.
    pub action: String,
    /// Why, where there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Why the service is unseeded, as far as the journal knows; what the markers know is in `targets`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseeded: Option<String>,
    /// The state of each dataset.
    pub targets: Vec<Inspection>,
    /// Every source with its answer, in the order of the chain.
    pub sources: Vec<PlannedSource>,
    /// The sources in the order in which their points would be tried.
    pub order: Vec<SourceName>,
}

/// What one source could restore.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedSource {
    /// The source.
    pub source: SourceName,
    /// Its best state of all datasets of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<PointId>,
    /// When that was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_at: Option<Timestamp>,
    /// Estimated bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Whether a tree digest was recorded with it.
    pub digest: bool,
    /// States of all datasets that it holds.
    pub states: usize,
    /// The same, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub all: Vec<PlannedState>,
    /// Why it didn't answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
}

/// A state that a source could restore: what `--at` takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedState {
    /// When it was taken.
    pub taken_at: Timestamp,
    /// The id of its first dataset's point.
    pub point: PointId,
    /// The snapshot that it is of, where the source keeps its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotName>,
    /// It was taken with unreadable files.
    pub partial: bool,
    /// It was taken after a start without data.
    pub unseeded: bool,
}

impl PlannedState {
    fn of(candidate: &Candidate) -> Self {
        let first = &candidate.points[0];
        Self {
            taken_at: candidate.taken_at(),
            point: first.id.clone(),
            snapshot: first.snapshot.clone(),
            partial: candidate.points.iter().any(|point| point.partial),
            unseeded: candidate.is_unseeded(),
        }
    }
}

/// Plans for one service. Asks every source, also when data is there: that is the forecast.
pub(crate) async fn plan_one(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    inspections: Result<Vec<Inspection>, String>,
) -> ServicePlan {
    let targets: Vec<&Target> = service.targets.iter().collect();
    let probes = probe_all(engine, cx, service, &targets, service.policy.probe_budget).await;
    let mut sources = Vec::with_capacity(probes.len());
    let mut groups = Vec::with_capacity(probes.len());
    let mut damaged = false;
    for (index, probe) in probes.iter().enumerate() {
        let (candidates, error) = match &probe.answer {
            Ok(points) => (group(index, &targets, points), None),
            Err(error) => (Vec::new(), Some(error.clone())),
        };
        let all = candidates.len();
        let candidates: Vec<Candidate> = candidates.into_iter().filter(|c| !c.is_damaged()).collect();
        damaged |= candidates.len() < all;
        let best = candidates.first();
        let mut known = BTreeSet::new();
        let once = candidates.iter().filter(|one| known.insert(one.state()));
        let states: Vec<PlannedState> = once.map(PlannedState::of).collect();
        sources.push(PlannedSource {
            source: service.sources[index].name().clone(),
            point: best.map(|c| c.points[0].id.clone()),
            taken_at: best.map(Candidate::taken_at),
            bytes: best.and_then(|c| c.points.iter().map(|p| p.bytes).sum::<Option<u64>>()),
            digest: best.is_some_and(|c| c.points.iter().all(|p| p.fingerprint.is_some())),
            states: states.len(),
            all: states,
            error,
        });
        groups.push(candidates);
    }
    let mut names: Vec<SourceName> = Vec::new();
    for candidate in order(groups, service.policy.prefer, None) {
        let name = service.sources[candidate.source].name();
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    let restore = || match (names.is_empty(), probes.iter().all(|p| p.answer.is_ok())) {
        (false, _) => ("restore", None),
        (true, true) if nothing_of(&probes, &targets) => ("first-start", None),
        (true, _) if probes.iter().any(Probe::holds_points) => {
            let what = "the sources hold recovery points, and no state that all datasets were in together";
            let all = probes.iter().all(|probe| probe.answer.is_ok());
            let advice = all.then(|| format!(". {}", of_no_state(service)));
            ("held", Some(format!("{what}{}", advice.unwrap_or_default())))
        }
        (true, _) if damaged => exhausted(service, "what the sources hold is damaged".to_owned()),
        (true, _) => exhausted(service, "no source that answered holds a point".to_owned()),
    };
    let (action, why) = match &inspections {
        Err(why) => ("blocked", Some(why.clone())),
        Ok(inspections) => match decide(inspections) {
            Decision::Present => ("data-present", None),
            Decision::Blocked { why, .. } => ("blocked", Some(why)),
            Decision::RestoreAll { .. } => restore(),
            Decision::RestoreSome { missing } => {
                let wanted: Vec<&Target> = missing.iter().map(|nth| &inspections[*nth].target).collect();
                let answered = probes.iter().all(|p| p.answer.is_ok());
                if several::goes_on(inspections, &missing).is_some() {
                    (
                        "restore",
                        Some("it finishes what an earlier run began".to_owned()),
                    )
                } else if answered && nothing_of(&probes, &wanted) {
                    ("first-start", None)
                } else {
                    (
                        "blocked",
                        Some("only a part of the service's datasets is missing".to_owned()),
                    )
                }
            }
        },
    };
    let action = action.to_owned();
    ServicePlan {
        service: service.name.clone(),
        action,
        why,
        unseeded: crate::ops::unseeded_by_journal(engine, service),
        targets: inspections.unwrap_or_default(),
        sources,
        order: names,
    }
}

/// Whether no source that answered has a point of any of these.
fn nothing_of(probes: &[Probe], targets: &[&Target]) -> bool {
    let mut points = probes
        .iter()
        .filter_map(|probe| probe.answer.as_ref().ok())
        .flatten();
    !points.any(|point| targets.iter().any(|target| target.dataset == point.dataset))
}

fn exhausted(service: &Service, why: String) -> (&'static str, Option<String>) {
    match service.policy.when_exhausted {
        WhenExhausted::Hold => ("held", Some(why)),
        WhenExhausted::StartEmpty => ("exhausted", Some(why)),
    }
}
