//! The invariants. Each looks at the world before and after a step and at what the core said of itself.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use reseed_core::names::{DatasetName, PointId, SnapshotName};
use reseed_core::point::{MarkerState, RecoveryPoint, Snapshot, Target};
use reseed_core::preseed::{Outcome, ServiceReport, Stage};

use super::drive::{Done, Rig, source_name, targets};
use super::plan::{Act, LabPlan, SourceId};
use crate::world::{Census, PointPlace, Tree, World};

/// What must always hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// Live data is never altered.
    LiveData,
    /// After a success the target equals exactly one recovery point of the source that the journal names.
    ExactPoint,
    /// Data that fails verification is never promoted.
    Verified,
    /// A crash anywhere followed by the same command converges.
    Converges,
    /// No recovery point of an unseeded service disappears.
    Unseeded,
    /// Nothing on a replica, or in a repository, is ever destroyed.
    Replica,
    /// A start without data happens only when every source was tried, and its reason is recorded.
    EverySource,
    /// The walk ends inside its budget.
    Budget,
    /// Nobody misuses the world: its own violations.
    Misuse,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LiveData => "live data was altered",
            Self::ExactPoint => "the target is not the recovery point that was named",
            Self::Verified => "unverified data was promoted",
            Self::Converges => "the same command after a crash ended elsewhere",
            Self::Unseeded => "a recovery point of an unseeded service disappeared",
            Self::Replica => "something on a replica was destroyed",
            Self::EverySource => "not every source was tried, or no reason was recorded",
            Self::Budget => "the walk did not end inside its budget",
            Self::Misuse => "the world was misused",
        })
    }
}

/// A violated invariant.
pub(super) type Violation = (Invariant, String);

/// Every point that was ever taken, as it was then.
#[derive(Debug, Default)]
pub(super) struct Ledger(BTreeMap<(DatasetName, PointId), (SnapshotName, Tree)>);

impl Ledger {
    /// Learns what is new in the store.
    pub(super) fn learn(&mut self, world: &World, lab: &LabPlan) {
        for (index, plan) in lab.services.iter().enumerate() {
            for target in targets(index, plan) {
                for (snapshot, tree) in world.snapshots(&target.dataset) {
                    let key = (target.dataset.clone(), PointId::from(snapshot.guid));
                    self.0.entry(key).or_insert((snapshot.name, tree));
                }
            }
        }
    }

    pub(super) fn get(&self, dataset: &DatasetName, point: &PointId) -> Option<&(SnapshotName, Tree)> {
        self.0.get(&(dataset.clone(), point.clone()))
    }
}

/// A step of the core, seen from outside.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    pub(super) rig: &'a Rig,
    pub(super) lab: &'a LabPlan,
    pub(super) ledger: &'a Ledger,
    pub(super) act: Act,
    pub(super) before: &'a Census,
    pub(super) after: &'a Census,
    /// None when it crashed.
    pub(super) done: Option<&'a Done>,
    /// Nothing was injected, nobody stopped it.
    pub(super) quiet: bool,
}

impl Seen<'_> {
    /// All invariants but those that need a second run.
    pub(super) fn check(&self) -> Result<(), Violation> {
        self.live_data()?;
        self.points()?;
        if let Some(what) = self.rig.world.violations().into_iter().next() {
            let invariant = if what.contains("what was promoted is not") {
                Invariant::Verified
            } else {
                Invariant::Misuse
            };
            return Err((invariant, what));
        }
        for (service, report) in self.done.iter().flat_map(|done| &done.restores) {
            self.exact_point(report)?;
            self.every_source(*service, report)?;
            self.budget(*service, report)?;
            if self.quiet && matches!(self.act, Act::Preseed { .. }) {
                self.restored_what_could_be(*service, report)?;
            }
        }
        Ok(())
    }

    fn live_data(&self) -> Result<(), Violation> {
        for (dataset, old) in self.before.live.iter().filter(|(_, old)| old.tree.populated()) {
            let new = self.after.live.get(dataset);
            if new
                .is_some_and(|new| new.guid == old.guid && new.tree == old.tree && new.mounted == old.mounted)
            {
                continue;
            }
            let asked = matches!(self.act, Act::Restore { set_aside: true, .. });
            if asked && self.after.kept.values().any(|kept| *kept == old.tree) {
                continue;
            }
            return Err((
                Invariant::LiveData,
                format!("{dataset} held data before {:?} and is another one now", self.act),
            ));
        }
        for (name, kept) in &self.before.kept {
            // A newer quarantined tree of the same dataset and source may take an older one's place.
            if name.contains(".set-aside-") && self.after.kept.get(name) != Some(kept) {
                return Err((
                    Invariant::LiveData,
                    format!("{name}, which was set aside, is gone or changed"),
                ));
            }
        }
        Ok(())
    }

    fn points(&self) -> Result<(), Violation> {
        for (place, old) in &self.before.points {
            let new = self.after.points.get(place);
            let (dataset, content) = old;
            // What was damaged may have been mended.
            if new.is_some_and(|(_, new)| content.is_none() || new == content) {
                continue;
            }
            let what = format!("{place:?} of {dataset} disappeared or changed in {:?}", self.act);
            match place {
                PointPlace::Replica(..) | PointPlace::Offsite(..) => return Err((Invariant::Replica, what)),
                PointPlace::Local(_) => {
                    let pruned = matches!(self.act, Act::Prune { .. }) && new.is_none();
                    if !pruned || self.service_is_unseeded(dataset) {
                        return Err((Invariant::Unseeded, what));
                    }
                }
            }
        }
        Ok(())
    }

    fn service_is_unseeded(&self, dataset: &DatasetName) -> bool {
        let mut services = self.lab.services.iter().enumerate();
        services.any(|(index, plan)| {
            let targets = targets(index, plan);
            targets.iter().any(|target| target.dataset == *dataset)
                && targets
                    .iter()
                    .any(|target| self.before.is_unseeded(&target.dataset))
        })
    }

    fn exact_point(&self, report: &ServiceReport) -> Result<(), Violation> {
        if report.outcome != Outcome::Restored {
            return Ok(());
        }
        let wrong = |what: String| Err((Invariant::ExactPoint, what));
        let Some(source) = &report.source else {
            return wrong(format!("{} was restored from nowhere", report.service));
        };
        if report.datasets.is_empty() {
            return wrong(format!("{} was restored, and no dataset of it", report.service));
        }
        let mut moment: Option<&SnapshotName> = None;
        for restored in &report.datasets {
            let dataset = &restored.dataset;
            let Some((name, tree)) = self.ledger.get(dataset, &restored.point) else {
                return wrong(format!(
                    "{dataset} was restored to {}, which was never taken",
                    restored.point
                ));
            };
            if *moment.get_or_insert(name) != name {
                return wrong(format!("the datasets of {} are of two moments", report.service));
            }
            let Some(live) = self.after.live.get(dataset) else {
                return wrong(format!("{dataset} was restored and isn't there"));
            };
            if live.tree != *tree {
                return wrong(format!(
                    "{dataset} is not its point {} of {source}",
                    restored.point
                ));
            }
            let marked = live.marker.as_ref().map(|marker| &marker.state);
            let named = matches!(marked, Some(MarkerState::Restored { source: marked, point, .. })
                if marked == source && *point == restored.point);
            // Emptiness that was adopted stays so.
            let of_nothing = restored
                .fingerprint
                .is_some_and(|found| found.files == 0 && found.bytes == 0);
            let named = named || (of_nothing && matches!(marked, Some(MarkerState::Adopted)));
            // One that could not be written is told, and is the next run's to write.
            let told =
                |warning: &String| warning.contains(dataset.as_str()) && warning.contains("is back and live");
            let missing = marked.is_none() && report.warnings.iter().any(told);
            if !named && !missing {
                return wrong(format!("the marker of {dataset} says {marked:?}"));
            }
        }
        if !self.rig.journal_names(report) {
            return wrong(format!(
                "the journal doesn't name what {} was restored to",
                report.service
            ));
        }
        Ok(())
    }

    fn every_source(&self, service: usize, report: &ServiceReport) -> Result<(), Violation> {
        let first_start = report.outcome == Outcome::FirstStart;
        let skipped = matches!(
            report.outcome,
            Outcome::StartedEmpty { .. } | Outcome::Held { .. }
        );
        if !(first_start || skipped) || !matches!(self.act, Act::Preseed { .. }) {
            return Ok(());
        }
        for id in &self.lab.services[service].sources {
            let name = source_name(*id);
            let mut attempts = report.attempts.iter().filter(|attempt| attempt.source == name);
            let reason = attempts.any(|attempt| attempt.error.is_some() || attempt.stage == Stage::NoPoint);
            if !reason {
                return Err((
                    Invariant::EverySource,
                    format!(
                        "{} ended as {:?} and says nothing of {name}",
                        report.service, report.outcome
                    ),
                ));
            }
            if first_start && self.quiet && self.has_point(service, *id) {
                return Err((
                    Invariant::EverySource,
                    format!(
                        "{} is taken for new, and {name} has a point of it",
                        report.service
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Whether a source has a point of a dataset that was missing.
    fn has_point(&self, service: usize, id: SourceId) -> bool {
        let targets = targets(service, &self.lab.services[service]);
        let missing = |dataset: &DatasetName| {
            targets.iter().any(|target| target.dataset == *dataset) && self.is_missing(dataset)
        };
        let mut points = self.before.points.iter();
        points.any(|(place, (dataset, _))| is_in(place, id) && missing(dataset))
    }

    /// Nothing stands there, or something empty that nobody said is meant to be so.
    fn is_missing(&self, dataset: &DatasetName) -> bool {
        self.before.live.get(dataset).is_none_or(|found| {
            let adopted = found
                .marker
                .as_ref()
                .is_some_and(|marker| marker.state == MarkerState::Adopted);
            !found.tree.populated() && found.mounted && !adopted
        })
    }

    fn budget(&self, service: usize, report: &ServiceReport) -> Result<(), Violation> {
        let budget = self.lab.services[service].budget.as_secs_f64();
        if matches!(self.act, Act::Preseed { .. }) && report.seconds > budget {
            return Err((
                Invariant::Budget,
                format!("{} took {:.0} s of {budget:.0} s", report.service, report.seconds),
            ));
        }
        Ok(())
    }

    /// With nothing in the way, a service whose datasets are all missing gets a sound point back when a source that can be
    /// asked has one as its best.
    fn restored_what_could_be(&self, service: usize, report: &ServiceReport) -> Result<(), Violation> {
        let plan = &self.lab.services[service];
        let targets = targets(service, plan);
        let missing = targets.iter().all(|target| self.is_missing(&target.dataset));
        if !missing || report.outcome == Outcome::Restored || !self.rig.world.pool_is_well("tank") {
            return Ok(());
        }
        for id in &plan.sources {
            let well = match id {
                SourceId::Local => true,
                SourceId::Replica => self.rig.world.replica_is_well(&source_name(*id)),
                SourceId::Offsite => self.rig.world.repo_is_well(&source_name(*id)),
            };
            if well && self.best_is_sound(*id, &targets) {
                return Err((
                    Invariant::EverySource,
                    format!(
                        "{} ended as {:?} although {} has a sound point",
                        report.service,
                        report.outcome,
                        id.name()
                    ),
                ));
            }
        }
        Ok(())
    }

    fn best_is_sound(&self, id: SourceId, targets: &[Target]) -> bool {
        let points = offered(&self.rig.world, id, targets);
        let mut moments: BTreeMap<&SnapshotName, Vec<&Offered>> = BTreeMap::new();
        for point in &points {
            moments.entry(&point.snapshot).or_default().push(point);
        }
        let complete = moments.values().filter(|moment| {
            targets
                .iter()
                .all(|target| moment.iter().any(|point| point.dataset == target.dataset))
                && moment.len() == targets.len()
                && moment.iter().all(|point| !point.unseeded)
        });
        let best = complete.max_by_key(|moment| moment.iter().map(|point| point.taken_at).min());
        best.is_some_and(|moment| {
            moment.iter().all(|point| {
                let taken = self.ledger.get(&point.dataset, &point.id);
                taken.is_some_and(|(_, tree)| point.tree.as_ref() == Some(tree) && !tree.is_empty())
            })
        })
    }
}

/// A point as its place holds it.
struct Offered {
    dataset: DatasetName,
    id: PointId,
    snapshot: SnapshotName,
    taken_at: Timestamp,
    unseeded: bool,
    tree: Option<Tree>,
}

fn offered(world: &World, id: SourceId, targets: &[Target]) -> Vec<Offered> {
    let of_snapshot = |(snapshot, tree): (Snapshot, Tree)| Offered {
        id: PointId::from(snapshot.guid),
        dataset: snapshot.dataset,
        snapshot: snapshot.name,
        taken_at: snapshot.taken_at,
        unseeded: snapshot.unseeded,
        tree: Some(tree),
    };
    let name = source_name(id);
    let of_target = |target: &Target| -> Vec<Offered> {
        match id {
            SourceId::Local => world
                .snapshots(&target.dataset)
                .into_iter()
                .map(of_snapshot)
                .collect(),
            SourceId::Replica => {
                let copies = world.replica_copies(&name, &target.dataset).into_iter();
                copies
                    .map(|copy| of_snapshot((copy.snapshot, copy.tree)))
                    .collect()
            }
            SourceId::Offsite => {
                let trees = world.repo_trees(&name).into_iter();
                let trees = trees.filter(|(point, _)| point.dataset == target.dataset && !point.partial);
                let of_point = |(point, tree): (RecoveryPoint, Option<Tree>)| {
                    Some(Offered {
                        id: point.id,
                        dataset: point.dataset,
                        snapshot: point.snapshot?,
                        taken_at: point.taken_at,
                        unseeded: point.unseeded,
                        tree,
                    })
                };
                trees.filter_map(of_point).collect()
            }
        }
    };
    targets.iter().flat_map(of_target).collect()
}

fn is_in(place: &PointPlace, id: SourceId) -> bool {
    match place {
        PointPlace::Local(_) => id == SourceId::Local,
        PointPlace::Replica(..) => id == SourceId::Replica,
        PointPlace::Offsite(..) => id == SourceId::Offsite,
    }
}

/// Where two runs of the same command, one of them crashed and repeated, ended up differently.
pub(super) fn converged(repeated: &Census, undisturbed: &Census) -> Result<(), Violation> {
    let state = |census: &Census| -> BTreeMap<DatasetName, (Tree, Option<&'static str>)> {
        let live = census.live.iter().map(|(dataset, found)| {
            let marker = found.marker.as_ref().map(|marker| match marker.state {
                MarkerState::Restored { .. } => "restored",
                MarkerState::Unseeded { .. } => "unseeded",
                MarkerState::FirstStart => "first start",
                MarkerState::Adopted => "adopted",
            });
            (dataset.clone(), (found.tree.clone(), marker))
        });
        live.collect()
    };
    let (left, right) = (state(repeated), state(undisturbed));
    for (dataset, expected) in &right {
        if left.get(dataset) != Some(expected) {
            let words = |found: Option<&(Tree, Option<&str>)>| {
                found.map_or("nothing".to_owned(), |(tree, marker)| {
                    format!("{} entries, marked {marker:?}", tree.len())
                })
            };
            return Err((
                Invariant::Converges,
                format!(
                    "{dataset} has {} after the crash and {} without it",
                    words(left.get(dataset)),
                    words(Some(expected))
                ),
            ));
        }
    }
    match left.keys().find(|dataset| !right.contains_key(*dataset)) {
        Some(dataset) => Err((
            Invariant::Converges,
            format!("{dataset} is there only after a crash"),
        )),
        None => Ok(()),
    }
}
