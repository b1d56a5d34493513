//! [`MemReplicator`]: [`Replicator`] from the world's store to one of its replicas.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use reseed_core::error::{Effect, ErrorReport, ReplicateError, ReplicateKind};
use reseed_core::names::{DatasetName, Guid, SourceName};
use reseed_core::point::{Snapshot, SnapshotRef, Target};
use reseed_core::replicate::{
    Divergence, Lineage, ReplicationPlan, ReplicationReport, ReplicationStep, ReplicatorCaps,
};
use reseed_core::{Context, Replicator};

use super::World;
use super::source::reach;
use super::state::{self, Link, Snap, State};
use super::tree::Tree;

/// The way to one of the world's replicas.
#[derive(Debug, Clone)]
pub struct MemReplicator {
    world: World,
    name: SourceName,
    host: Option<String>,
}

/// A snapshot on a replica, seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaCopy {
    /// What it says it is.
    pub snapshot: Snapshot,
    /// What is in it.
    pub tree: Tree,
    /// It is in a lineage that was set aside.
    pub aside: bool,
}

impl MemReplicator {
    /// To the replica of this name.
    pub fn new(world: &World, name: SourceName) -> Self {
        world.lock().replicas.entry(name.clone()).or_default();
        Self {
            world: world.clone(),
            name,
            host: None,
        }
    }

    /// Records on the replica that what is sent is this host's, and refuses to send to what is another's.
    #[must_use]
    pub fn of_host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    fn is_ours(&self, state: &State, dataset: &DatasetName) -> Result<(), ReplicateError> {
        let replica = state.replicas.get(&self.name);
        let lineage = replica.and_then(|replica| replica.lineages.get(dataset));
        match (&self.host, lineage.and_then(|lineage| lineage.origin.as_ref())) {
            (Some(host), Some(other)) if host != other => {
                let what = format!(
                    "what {} has of {dataset} is of the host {other}, and this one is {host}",
                    self.name
                );
                Err(ReplicateError::new(ReplicateKind::InvalidInput, what))
            }
            _ => Ok(()),
        }
    }

    /// The same as a trait object.
    pub fn shared(self) -> Arc<dyn Replicator> {
        Arc::new(self)
    }

    fn reachable(&self, state: &State) -> Result<(), ReplicateError> {
        let link = state
            .replicas
            .get(&self.name)
            .map_or(Link::Up, |replica| replica.link.clone());
        if link == Link::OtherKey {
            let what = format!("the host key of {} is not the pinned one", self.name);
            return Err(ReplicateError::new(ReplicateKind::HostKeyChanged, what));
        }
        reach(&link, &self.name)
    }

    fn on_replica<'a>(&self, state: &'a State, dataset: &DatasetName) -> &'a [Snap] {
        let lineage = state
            .replicas
            .get(&self.name)
            .and_then(|replica| replica.lineages.get(dataset));
        lineage.map_or(&[], |lineage| &lineage.snaps)
    }

    fn step_for(&self, state: &State, target: &Target) -> Option<ReplicationStep> {
        let ours = state
            .snapshots
            .get(&target.dataset)
            .map_or(&[][..], Vec::as_slice);
        let theirs: Vec<Guid> = self
            .on_replica(state, &target.dataset)
            .iter()
            .map(|snap| snap.meta.guid)
            .collect();
        let base = ours.iter().rposition(|snap| theirs.contains(&snap.meta.guid));
        let send = match base {
            Some(base) => &ours[base + 1..],
            None => ours,
        };
        if send.is_empty() {
            return None;
        }
        let diverged = base.is_none().then(|| theirs.last().copied()).flatten();
        Some(ReplicationStep {
            target: target.clone(),
            base: base.map(|base| ours[base].meta.reference()),
            send: send.iter().map(|snap| snap.meta.reference()).collect(),
            bytes: Some(send.iter().map(|snap| snap.tree.size()).sum()),
            set_aside: diverged.map(|newest| Divergence {
                newest,
                renamed_to: format!("{}.set-aside-{newest}", target.dataset),
                why: "it has no snapshot in common with the store".to_owned(),
            }),
        })
    }

    /// Everything that the step names is still what it was.
    fn check(&self, state: &State, step: &ReplicationStep) -> Result<(), ReplicateError> {
        let stale = |what: String| Err(ReplicateError::new(ReplicateKind::StalePlan, what));
        let ours = state
            .snapshots
            .get(&step.target.dataset)
            .map_or(&[][..], Vec::as_slice);
        let theirs = self.on_replica(state, &step.target.dataset);
        let has = |snaps: &[Snap], wanted: &SnapshotRef| {
            snaps
                .iter()
                .any(|snap| snap.meta.guid == wanted.guid && snap.meta.name == wanted.name)
        };
        for wanted in &step.send {
            if !has(ours, wanted) {
                return stale(format!(
                    "{}@{} is gone from the store",
                    wanted.dataset, wanted.name
                ));
            }
        }
        if let Some(there) = step.send.iter().find(|wanted| has(theirs, wanted)) {
            return stale(format!(
                "{}@{} is on the replica by now",
                there.dataset, there.name
            ));
        }
        match (&step.base, &step.set_aside) {
            (Some(base), _) if !has(ours, base) || !has(theirs, base) => {
                stale(format!("the base {}@{} is gone", base.dataset, base.name))
            }
            (None, Some(divergence)) if theirs.last().map(|s| s.meta.guid) != Some(divergence.newest) => {
                stale("the replica has moved on".to_owned())
            }
            (None, None) if !theirs.is_empty() => stale("the replica has snapshots by now".to_owned()),
            _ => Ok(()),
        }
    }

    async fn send(
        &self,
        cx: &Context,
        step: &ReplicationStep,
        report: &mut ReplicationReport,
    ) -> Result<(), ReplicateError> {
        {
            let mut state = self.world.lock();
            self.reachable(&state)?;
            self.is_ours(&state, &step.target.dataset)?;
            self.check(&state, step)?;
            if let Some(divergence) = &step.set_aside {
                let replica = state.replicas.entry(self.name.clone()).or_default();
                if let Some(lineage) = replica.lineages.remove(&step.target.dataset) {
                    let old = (step.target.dataset.clone(), lineage);
                    replica.aside.insert(divergence.renamed_to.clone(), old);
                    report.set_aside.push(divergence.renamed_to.clone());
                }
            }
        }
        self.world.step(cx, Effect::Partial).await?;
        for wanted in &step.send {
            let size = {
                let state = self.world.lock();
                self.reachable(&state)?;
                let ours = state
                    .snapshots
                    .get(&wanted.dataset)
                    .map_or(&[][..], Vec::as_slice);
                let Some(snap) = ours.iter().find(|snap| snap.meta.guid == wanted.guid) else {
                    let what = format!("{}@{} went away", wanted.dataset, wanted.name);
                    return Err(ReplicateError::new(ReplicateKind::StalePlan, what).effect(Effect::Partial));
                };
                if snap.damaged {
                    let what = format!("{}@{} is damaged", wanted.dataset, wanted.name);
                    return Err(ReplicateError::new(ReplicateKind::Corrupt, what).effect(Effect::Partial));
                }
                snap.tree.size()
            };
            // The stream is cut in two, so that there is a middle to be interrupted in.
            for part in [size / 2, size] {
                {
                    let mut state = self.world.lock();
                    self.reachable(&state)?;
                    let replica = state.replicas.entry(self.name.clone()).or_default();
                    let lineage = replica.lineages.entry(wanted.dataset.clone()).or_default();
                    let come = match lineage.partial {
                        Some((guid, come)) if guid == wanted.guid => come,
                        _ => 0,
                    };
                    report.bytes += part.saturating_sub(come);
                    lineage.partial = Some((wanted.guid, part.max(come)));
                    if lineage.origin.is_none() {
                        lineage.origin.clone_from(&self.host);
                    }
                }
                self.world.step(cx, Effect::Partial).await?;
            }
            self.arrive(wanted);
            report.sent.push(wanted.clone());
            self.world.step(cx, Effect::Partial).await?;
        }
        Ok(())
    }

    fn arrive(&self, wanted: &SnapshotRef) {
        let mut state = self.world.lock();
        let ours = state
            .snapshots
            .get(&wanted.dataset)
            .map_or(&[][..], Vec::as_slice);
        let Some(snap) = ours.iter().find(|snap| snap.meta.guid == wanted.guid) else {
            return;
        };
        let mut copy = snap.clone();
        copy.meta.holds = Vec::new();
        let replica = state.replicas.entry(self.name.clone()).or_default();
        let lineage = replica.lineages.entry(wanted.dataset.clone()).or_default();
        lineage.partial = None;
        lineage.snaps.push(copy);
    }
}

#[async_trait]
impl Replicator for MemReplicator {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn caps(&self) -> ReplicatorCaps {
        ReplicatorCaps {
            incremental: true,
            resumable: true,
            keeps_base: false,
        }
    }

    async fn plan(&self, cx: &Context, targets: &[Target]) -> Result<ReplicationPlan, ReplicateError> {
        self.world.step(cx, Effect::None).await?;
        let state = self.world.lock();
        self.reachable(&state)?;
        for target in targets {
            self.is_ours(&state, &target.dataset)?;
            if let Some(why) = state.pool(&target.dataset).down {
                let what = format!("the pool of {} is not available", target.dataset);
                return Err(ReplicateError::new(ReplicateKind::Unreachable, what).said(why));
            }
        }
        Ok(ReplicationPlan {
            replica: self.name.clone(),
            steps: targets
                .iter()
                .filter_map(|target| self.step_for(&state, target))
                .collect(),
            left_out: Vec::new(),
            let_go: Vec::new(),
            untold: Vec::new(),
        })
    }

    async fn execute(
        &self,
        cx: &Context,
        plan: &ReplicationPlan,
    ) -> Result<ReplicationReport, ReplicateError> {
        self.world.step(cx, Effect::None).await?;
        if plan.replica != self.name {
            let what = format!("the plan is for {}", plan.replica);
            return Err(ReplicateError::new(ReplicateKind::InvalidInput, what));
        }
        {
            let state = self.world.lock();
            self.reachable(&state)?;
            for step in &plan.steps {
                self.is_ours(&state, &step.target.dataset)?;
            }
            plan.steps.iter().try_for_each(|step| self.check(&state, step))?;
        }
        let mut report = ReplicationReport::default();
        let mut first: Option<ReplicateError> = None;
        let mut failed: Vec<(Target, ErrorReport)> = Vec::new();
        for step in &plan.steps {
            if let Err(error) = self.send(cx, step, &mut report).await {
                if error.kind() == ReplicateKind::Cancelled {
                    return Err(error);
                }
                failed.push((step.target.clone(), error.report()));
                first.get_or_insert(error);
            }
        }
        report.failed = failed;
        match first {
            Some(error) if report.failed.len() == plan.steps.len() => Err(error),
            _ => Ok(report),
        }
    }

    async fn lineage(&self, cx: &Context, targets: &[Target]) -> Result<Vec<Lineage>, ReplicateError> {
        self.world.step(cx, Effect::None).await?;
        let state = self.world.lock();
        self.reachable(&state)?;
        for target in targets {
            self.is_ours(&state, &target.dataset)?;
        }
        let one = |target: &Target| {
            let ours = state
                .snapshots
                .get(&target.dataset)
                .map_or(&[][..], Vec::as_slice);
            let theirs = self.on_replica(&state, &target.dataset);
            let known: BTreeSet<Guid> = theirs.iter().map(|snap| snap.meta.guid).collect();
            Lineage {
                target: target.clone(),
                common: ours
                    .iter()
                    .rev()
                    .find(|snap| known.contains(&snap.meta.guid))
                    .map(|snap| snap.meta.reference()),
                newest: theirs.iter().map(|snap| snap.meta.taken_at).max(),
                snapshots: theirs.len() as u64,
            }
        };
        Ok(targets.iter().map(one).collect())
    }
}

impl World {
    /// Every snapshot on a replica of a dataset, those set aside included.
    pub fn replica_copies(&self, replica: &SourceName, dataset: &DatasetName) -> Vec<ReplicaCopy> {
        let state = self.lock();
        let Some(found) = state.replicas.get(replica) else {
            return Vec::new();
        };
        let copy = |snap: &Snap, aside| ReplicaCopy {
            snapshot: snap.meta.clone(),
            tree: snap.tree.clone(),
            aside,
        };
        let current = found
            .lineages
            .get(dataset)
            .into_iter()
            .flat_map(|lineage| &lineage.snaps);
        let aside = found.aside.values().filter(|(of, _)| of == dataset);
        let aside = aside.flat_map(|(_, lineage)| &lineage.snaps);
        current
            .map(|snap| copy(snap, false))
            .chain(aside.map(|snap| copy(snap, true)))
            .collect()
    }

    /// Makes a replica's lineage one that the store has nothing in common with.
    pub fn diverge(&self, replica: &SourceName, dataset: &DatasetName) {
        let mut state = self.lock();
        let fresh = state.new_guid();
        let found = state.replicas.get_mut(replica);
        let lineage = found.and_then(|found| found.lineages.get_mut(dataset));
        if let Some(snaps) = lineage.map(|lineage| &mut lineage.snaps) {
            snaps.drain(..snaps.len().saturating_sub(1));
            for last in snaps {
                last.meta.guid = fresh;
            }
        }
    }

    /// Destroys the replica's disk: everything on it is gone.
    pub fn lose_replica(&self, replica: &SourceName) {
        if let Some(found) = self.lock().replicas.get_mut(replica) {
            found.lineages.clear();
            found.aside.clear();
        }
    }

    /// Flips a bit in a snapshot on a replica; `told` decides whether the replica's own checks will see it.
    pub fn damage_replica(&self, replica: &SourceName, guid: Guid, draw: u64, told: bool) -> bool {
        let mut state = self.lock();
        let Some(found) = state.replicas.get_mut(replica) else {
            return false;
        };
        let aside = found.aside.values_mut().map(|(_, lineage)| lineage);
        let mut snaps = found
            .lineages
            .values_mut()
            .chain(aside)
            .flat_map(|l| &mut l.snaps);
        snaps.find(|snap| snap.meta.guid == guid).is_some_and(|snap| {
            let flipped = state::flip_somewhere(&mut snap.tree, draw);
            snap.damaged |= told && flipped;
            flipped
        })
    }
}
