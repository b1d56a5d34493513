//! What has arrived, and what may go for it: told where both ends of a pipe ended well, asked of the replica where that isn't sure.

use std::collections::{BTreeMap, BTreeSet};

use reseed_core::Context;
use reseed_core::error::ReplicateError;
use reseed_core::names::DatasetName;
use reseed_core::point::{SnapshotRef, Target};
use reseed_core::replicate::{ReplicationReport, ReplicationStep};

use super::super::lineage::{Lineage, Mark};
use super::super::transfer;
use super::sides::Sides;
use super::{NativeReplicator, hold};

/// How sure it is that all of a step arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Both ends of each pipe ended well.
    Whole,
    /// Some of it failed, came by a resumed stream, or could be pruned while it was sent.
    Unsure,
}

impl NativeReplicator {
    /// What the replica has of the steps of which that isn't sure, in one listing.
    pub(super) async fn unsure(
        &self,
        cx: &Context,
        done: &[(&ReplicationStep, Arrival)],
    ) -> Result<BTreeMap<DatasetName, Lineage>, ReplicateError> {
        let unsure = done.iter().filter(|(_, arrival)| *arrival == Arrival::Unsure);
        let targets: Vec<Target> = unsure.map(|(step, _)| step.target.clone()).collect();
        if targets.is_empty() {
            return Ok(BTreeMap::new());
        }
        self.there(cx, &targets).await
    }

    /// Lets go of what isn't needed any more: all of what arrived whole, and of the others all but what the next run goes on from. Of
    /// those that the replica can't be asked about everything stays.
    pub(super) async fn release(
        &self,
        cx: &Context,
        done: &[(&ReplicationStep, Arrival)],
        sides: &Sides,
        asked: Option<&BTreeMap<DatasetName, Lineage>>,
        let_go: &[SnapshotRef],
    ) {
        let is_sent = |dataset: &DatasetName| done.iter().any(|(step, _)| step.target.dataset == *dataset);
        let others = let_go.iter().map(|one| &one.dataset);
        let mut of: BTreeSet<&DatasetName> = others.filter(|dataset| !is_sent(dataset)).collect();
        let mut needed = BTreeSet::new();
        for dataset in &of {
            let there = self.replica(dataset).ok().and_then(|name| sides.there.get(&name));
            if let (Some(here), Some(there)) = (sides.here.get(*dataset), there) {
                needed.extend(hold::needed(&self.marks, dataset, here, there));
            }
        }
        for (step, arrival) in done {
            let dataset = &step.target.dataset;
            let Some(here) = sides.here.get(dataset) else {
                continue;
            };
            match arrival {
                Arrival::Whole => {
                    of.insert(dataset);
                    let last = step
                        .send
                        .last()
                        .filter(|last| !hold::has_bookmark(&self.marks, here, last.guid));
                    needed.extend(last.map(|last| (dataset.clone(), last.name.clone())));
                }
                Arrival::Unsure => {
                    let name = self.replica(dataset).ok();
                    let Some((all, name)) = asked.zip(name) else {
                        continue;
                    };
                    of.insert(dataset);
                    let there = all.get(&name).cloned().unwrap_or_default();
                    needed.extend(hold::needed(&self.marks, dataset, here, &there));
                }
            }
        }
        hold::release(&self.here, cx, &sides.held.clone().of(&of).without(&needed)).await;
    }

    /// After everything was sent: what arrived. Where both ends of a pipe ended well, that is what was sent: `receive`
    /// answers for each snapshot and its guid. Of the others by the replica's word; and there our properties are
    /// written on what a resumed stream brought without them.
    pub(super) async fn conclude(
        &self,
        cx: &Context,
        done: &[(&ReplicationStep, Arrival)],
        here: &BTreeMap<DatasetName, Lineage>,
        asked: Result<BTreeMap<DatasetName, Lineage>, ReplicateError>,
        report: &mut ReplicationReport,
    ) -> Result<(), ReplicateError> {
        let unsure = |arrival: &Arrival| *arrival != Arrival::Whole;
        let mut result = Ok(());
        let there = asked.unwrap_or_else(|error| {
            result = Err(error);
            BTreeMap::new()
        });
        for (step, arrival) in done {
            let replica = self.replica(&step.target.dataset)?;
            let Some(from) = here.get(&step.target.dataset) else {
                continue;
            };
            let mut all_told = true;
            for (nth, wanted) in step.send.iter().enumerate() {
                let Some(original) = from.snapshots.iter().find(|mark| mark.guid == wanted.guid) else {
                    continue;
                };
                if unsure(arrival) {
                    let copies = there.get(&replica).map(|to| to.snapshots.iter());
                    let Some(copy) = copies.into_iter().flatten().find(|mark| mark.guid == wanted.guid)
                    else {
                        continue;
                    };
                    // The newest last: where that one is told, all are.
                    if all_told && let Err(error) = self.carry_over(cx, &replica, copy, original).await {
                        all_told = false;
                        result = result.and(Err(error));
                    }
                }
                // Since a bookmark nobody counts, and the plan says so.
                if nth > 0 || step.bytes.is_some() {
                    report.bytes = report.bytes.saturating_add(original.written);
                }
                report.sent.push(wanted.clone());
            }
        }
        result
    }

    async fn carry_over(
        &self,
        cx: &Context,
        replica: &DatasetName,
        copy: &Mark,
        original: &Mark,
    ) -> Result<(), ReplicateError> {
        transfer::carry_over(&self.there, cx, replica, &copy.name, &copy.own, &original.own).await
    }

    /// Writes on copies what they lack of what the store knows of their originals, of each dataset the newest last: a plan takes it that all
    /// are told where that one is. The first error counts, and keeps no other dataset's from being written.
    pub(super) async fn tell(
        &self,
        cx: &Context,
        untold: &[SnapshotRef],
        sides: &Sides,
    ) -> Result<(), ReplicateError> {
        let (mut result, mut failed) = (Ok(()), BTreeSet::new());
        for one in untold {
            if failed.contains(&one.dataset) {
                continue;
            }
            let replica = self.replica(&one.dataset)?;
            let find = |all: Option<&Lineage>| {
                all.and_then(|lineage| {
                    lineage
                        .snapshots
                        .iter()
                        .find(|mark| mark.guid == one.guid)
                        .cloned()
                })
            };
            let (original, copy) = (
                find(sides.here.get(&one.dataset)),
                find(sides.there.get(&replica)),
            );
            if let (Some(original), Some(copy)) = (original, copy)
                && let Err(error) = self.carry_over(cx, &replica, &copy, &original).await
            {
                failed.insert(&one.dataset);
                result = result.and(Err(error));
            }
        }
        result
    }

    /// The same of what a stream has just brought without it: not when all others have arrived, which may take days. What fails
    /// here is tried again then.
    pub(super) async fn tell_at_once(&self, cx: &Context, step: &ReplicationStep, here: &Lineage) {
        let Ok(there) = self.there(cx, std::slice::from_ref(&step.target)).await else {
            return;
        };
        let Ok(replica) = self.replica(&step.target.dataset) else {
            return;
        };
        for copy in there.get(&replica).into_iter().flat_map(|to| &to.snapshots) {
            let original = here.snapshots.iter().find(|mark| mark.guid == copy.guid);
            if let Some(original) = original
                && step.send.iter().any(|sent| sent.guid == copy.guid)
                && self.carry_over(cx, &replica, copy, original).await.is_err()
            {
                return;
            }
        }
    }
}
