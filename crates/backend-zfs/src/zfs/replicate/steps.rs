//! What is to be done for each target, from both sides as they are, and whether what was planned still can be. Sends nothing.

use std::collections::{BTreeSet, HashMap};

use reseed_core::error::ReplicateError;
use reseed_core::names::Guid;
use reseed_core::point::{SnapshotRef, Target};
use reseed_core::replicate::ReplicationStep;

use super::super::lineage::{self, Mark};
use super::hold::{self, Named};
use super::sides::Sides;
use super::{NativeReplicator, other, stale};

impl NativeReplicator {
    /// What is held and no longer needed, of what isn't to be sent now.
    pub(super) fn let_go(
        &self,
        sides: &Sides,
        targets: &[Target],
        steps: &[ReplicationStep],
    ) -> Result<Vec<SnapshotRef>, ReplicateError> {
        let sent = steps.iter().flat_map(|step| &step.send);
        let mut needed: BTreeSet<Named> = sent.map(|one| (one.dataset.clone(), one.name.clone())).collect();
        for target in targets {
            let (here, there) = self.both(sides, target)?;
            needed.extend(hold::needed(&self.marks, &target.dataset, &here, &there));
        }
        Ok(sides.held.clone().without(&needed).references(&sides.here))
    }

    /// What copies lack that the store knows of their originals. What is about to be set aside is left as it is.
    pub(super) fn untold(
        &self,
        sides: &Sides,
        targets: &[Target],
        steps: &[ReplicationStep],
    ) -> Result<Vec<SnapshotRef>, ReplicateError> {
        let is_set_aside = |target: &Target| {
            steps
                .iter()
                .any(|step| step.target == *target && step.set_aside.is_some())
        };
        let mut all = Vec::new();
        for target in targets.iter().filter(|target| !is_set_aside(target)) {
            let (here, there) = self.both(sides, target)?;
            let originals: HashMap<Guid, &Mark> =
                here.snapshots.iter().map(|mark| (mark.guid, mark)).collect();
            for copy in &there.snapshots {
                if let Some(original) = originals.get(&copy.guid)
                    && !original.own.missing_of(&copy.own).is_empty()
                {
                    all.push(SnapshotRef {
                        dataset: target.dataset.clone(),
                        name: original.name.clone(),
                        guid: original.guid,
                    });
                }
            }
        }
        Ok(all)
    }

    pub(super) fn step(
        &self,
        sides: &Sides,
        target: &Target,
    ) -> Result<Option<ReplicationStep>, ReplicateError> {
        let (here, there) = self.both(sides, target)?;
        let replica = self.replica(&target.dataset)?;
        let mut step = lineage::step(target, &replica, &here, &there, self.raw).map_err(other)?;
        let divergence = step.as_mut().and_then(|step| step.set_aside.as_mut());
        if let (Some(divergence), Some(_), None) = (divergence, &self.host, &there.origin) {
            divergence.why.push_str("; nothing says which host's it is");
        }
        Ok(step)
    }

    /// Whether a step can still be done as it was planned.
    pub(super) fn check(&self, sides: &Sides, step: &ReplicationStep) -> Result<(), ReplicateError> {
        let dataset = &step.target.dataset;
        let (here, there) = self.both(sides, &step.target)?;
        let gone = step.send.iter().find(|wanted| {
            !here
                .snapshots
                .iter()
                .any(|mark| mark.guid == wanted.guid && mark.name == wanted.name)
        });
        if let Some(gone) = gone {
            return Err(stale(format!(
                "{dataset}@{}, which was to be sent, is gone or another",
                gone.name
            )));
        }
        // In a lineage that is set aside they may well be.
        if step.set_aside.is_none()
            && let Some(arrived) = step.send.iter().find(|wanted| there.has(wanted.guid))
        {
            return Err(stale(format!(
                "{dataset}@{} is on the replica already",
                arrived.name
            )));
        }
        let now = self.step(sides, &step.target)?;
        if let Some(error) = now
            .as_ref()
            .and_then(|now| lineage::in_the_way(now, &self.replica(dataset).ok()?, &there))
        {
            return Err(stale(error.to_string()));
        }
        let same = now.as_ref().is_some_and(|now| {
            now.base == step.base
                && now.set_aside.as_ref().map(|d| (d.newest, &d.renamed_to))
                    == step.set_aside.as_ref().map(|d| (d.newest, &d.renamed_to))
        });
        if !same {
            return Err(stale(format!(
                "the snapshots of {dataset} are others than when it was planned"
            )));
        }
        Ok(())
    }
}
