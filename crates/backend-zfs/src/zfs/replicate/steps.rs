//! What is to be done for each target, from both sides as they are, and whether what was planned still can be. Sends nothing.

use std::collections::BTreeSet;

use reseed_core::error::ReplicateError;
use reseed_core::point::{SnapshotRef, Target};
use reseed_core::replicate::ReplicationStep;

use super::super::lineage;
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

    pub(super) fn step(
        &self,
        sides: &Sides,
        target: &Target,
    ) -> Result<Option<ReplicationStep>, ReplicateError> {
        let (here, there) = self.both(sides, target)?;
        let mut step =
            lineage::step(target, &self.replica(&target.dataset)?, &here, &there).map_err(other)?;
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
