//! Both sides as they are: the lineages here and there, in as few listings as it takes. Whose a replica is, and that its root is there,
//! is settled before anything is said of it.
//!
//! Most datasets are up to date most of the time. One whose newest snapshot has a bookmark for this replica was sent, or begun to be; so of the
//! replica only that one is asked for first, and everything only where that isn't all that there is to know: a replica isn't mounted, and
//! listing all of its snapshots takes ZFS far longer.

use std::collections::{BTreeMap, BTreeSet};

use reseed_core::Context;
use reseed_core::error::{ReplicateError, ReplicateKind};
use reseed_core::names::{DatasetName, SnapshotName};
use reseed_core::point::Target;

use super::super::lineage::{Lineage, Mark};
use super::super::parse::{Line, What};
use super::super::{list, names, origin};
use super::NativeReplicator;
use super::hold::{self, Held};
use crate::syncoid::Syncoid;

/// So many datasets are a few.
const A_FEW: usize = 4;
/// So many newest snapshots may be called differently where they are asked for by their names: those of as many services.
const MOST_NAMES: usize = 8;

/// The lineages of both sides.
#[derive(Debug)]
pub(super) struct Sides {
    pub(super) here: BTreeMap<DatasetName, Lineage>,
    pub(super) there: BTreeMap<DatasetName, Lineage>,
    /// What earlier runs hold for this replica.
    pub(super) held: Held,
}

/// The lineages of these datasets, which know what is right below them.
pub(super) fn grouped(lines: &[Line], names: &[DatasetName]) -> BTreeMap<DatasetName, Lineage> {
    let wanted: BTreeSet<&DatasetName> = names.iter().collect();
    let mut of: BTreeMap<DatasetName, Vec<&Line>> = BTreeMap::new();
    for line in lines.iter().filter(|line| wanted.contains(&line.dataset)) {
        of.entry(line.dataset.clone()).or_default().push(line);
    }
    let mut all: BTreeMap<DatasetName, Lineage> = of
        .into_iter()
        .map(|(name, lines)| (name, Lineage::of(lines)))
        .collect();
    for line in lines.iter().filter(|line| line.what == What::Dataset) {
        if let Some(above) = names::parent(&line.dataset).and_then(|above| all.get_mut(&above)) {
            above.below.push(line.dataset.to_string());
        }
    }
    all
}

impl NativeReplicator {
    /// What is asked of the replica's side. Its root is asked along: without it, "none is there" would not be an answer.
    fn names_there(&self, targets: &[Target]) -> Result<Vec<DatasetName>, ReplicateError> {
        let mut names = Vec::with_capacity(targets.len() + 1);
        let mut of: BTreeMap<DatasetName, &DatasetName> = BTreeMap::new();
        for target in targets {
            let replica = self.replica(&target.dataset)?;
            if let Some(other) = of.insert(replica.clone(), &target.dataset)
                && *other != target.dataset
            {
                let what = format!(
                    "{other} and {} would both have {replica} for a replica",
                    target.dataset
                );
                return Err(ReplicateError::new(ReplicateKind::InvalidInput, what)
                    .hint("give the replica `mapping = \"with-pool\"`, or each pool a replica with a `root` of its own"));
            }
            names.push(replica);
        }
        names.push(self.mapping.root().clone());
        Ok(names)
    }

    /// Refuses what is another host's. Setting that aside, time and again, would be no way to share a place.
    async fn ours(
        &self,
        cx: &Context,
        targets: &[Target],
        there: &BTreeMap<DatasetName, Lineage>,
    ) -> Result<(), ReplicateError> {
        let Some(host) = &self.host else {
            return Ok(());
        };
        let mut all = Vec::with_capacity(targets.len());
        for target in targets {
            let replica = self.replica(&target.dataset)?;
            if let Some(found) = there.get(&replica) {
                all.push(origin::Seen {
                    of: target.dataset.clone(),
                    replica,
                    value: found.origin.clone(),
                });
            }
        }
        origin::require_ours(&self.there, cx, host, all).await
    }

    fn root_is_there(&self, all: &BTreeMap<DatasetName, Lineage>) -> Result<(), ReplicateError> {
        let root = self.mapping.root();
        if all.contains_key(root) {
            return Ok(());
        }
        let what = format!("there is no {root}, where the replicas should be");
        let hint = format!("`zfs create -o canmount=off '{root}'` on the replica's side");
        Err(ReplicateError::new(ReplicateKind::NotFound, what).hint(hint))
    }

    pub(super) async fn there(
        &self,
        cx: &Context,
        targets: &[Target],
    ) -> Result<BTreeMap<DatasetName, Lineage>, ReplicateError> {
        let names = self.names_there(targets)?;
        let lines = list::lineages::<ReplicateKind>(&self.there, cx, &names).await?;
        let all = grouped(&lines, &names);
        self.root_is_there(&all)?;
        self.ours(cx, targets, &all).await?;
        Ok(all)
    }

    /// That syncoid can do what is asked of it.
    fn can_be_sent(&self, targets: &[Target]) -> Result<(), ReplicateError> {
        if self.syncoid.is_none() {
            return Ok(());
        }
        if !self.here.is_local() {
            let what = format!(
                "{} pulls from another host, and syncoid only sends from this one here",
                self.name
            );
            return Err(ReplicateError::new(ReplicateKind::Unsupported, what)
                .hint("have reseed itself do the sending"));
        }
        for target in targets {
            let replica = self.replica(&target.dataset)?;
            Syncoid::can_send(&target.dataset, &replica, self.there.location())?;
        }
        Ok(())
    }

    /// Both sides, in one process where one can see both.
    pub(super) async fn sides(&self, cx: &Context, targets: &[Target]) -> Result<Sides, ReplicateError> {
        self.can_be_sent(targets)?;
        let mut names: Vec<DatasetName> = targets.iter().map(|target| target.dataset.clone()).collect();
        let here: BTreeSet<DatasetName> = names.iter().cloned().collect();
        let replicas = self.names_there(targets)?;
        if self.there.location() == self.here.location() && !replicas.iter().any(|name| here.contains(name)) {
            names.extend(replicas);
            let lines = list::lineages::<ReplicateKind>(&self.here, cx, &names).await?;
            let (here, there): (BTreeMap<_, _>, BTreeMap<_, _>) = grouped(&lines, &names)
                .into_iter()
                .partition(|(name, _)| here.contains(name));
            self.root_is_there(&there)?;
            self.ours(cx, targets, &there).await?;
            let held = hold::held(&self.here, cx, &self.marks, &here).await?;
            return Ok(Sides { here, there, held });
        }
        let (here, there) = tokio::join!(
            list::lineages::<ReplicateKind>(&self.here, cx, &names),
            self.there(cx, targets)
        );
        let (here, there) = (grouped(&here?, &names), there?);
        let held = hold::held(&self.here, cx, &self.marks, &here).await?;
        Ok(Sides { here, there, held })
    }

    /// The same for a plan: of what is up to date there is only the newest snapshot there. Of a few everything is asked at once, for one more
    /// process takes longer than that saves.
    pub(super) async fn sides_to_plan(
        &self,
        cx: &Context,
        targets: &[Target],
    ) -> Result<Sides, ReplicateError> {
        if targets.len() <= A_FEW {
            return self.sides(cx, targets).await;
        }
        self.can_be_sent(targets)?;
        self.names_there(targets)?;
        let names: Vec<DatasetName> = targets.iter().map(|target| target.dataset.clone()).collect();
        let lines = list::lineages::<ReplicateKind>(&self.here, cx, &names).await?;
        let here = grouped(&lines, &names);
        let mut there = self.up_to_date(cx, targets, &here).await?;
        let mut left = Vec::new();
        for target in targets {
            if !there.contains_key(&self.replica(&target.dataset)?) {
                left.push(target.clone());
            }
        }
        if !left.is_empty() || !there.contains_key(self.mapping.root()) {
            there.extend(self.there(cx, &left).await?);
        }
        self.ours(cx, targets, &there).await?;
        let held = hold::held(&self.here, cx, &self.marks, &here).await?;
        Ok(Sides { here, there, held })
    }

    /// The lineages there of those that are up to date, as far as they were asked for: with their newest snapshot only.
    async fn up_to_date(
        &self,
        cx: &Context,
        targets: &[Target],
        here: &BTreeMap<DatasetName, Lineage>,
    ) -> Result<BTreeMap<DatasetName, Lineage>, ReplicateError> {
        let mut sent = BTreeMap::new();
        for target in targets {
            let newest = here.get(&target.dataset).and_then(|from| {
                let newest = from.snapshots.last()?;
                hold::has_bookmark(&self.marks, from, newest.guid).then_some(newest)
            });
            if let Some(newest) = newest {
                sent.insert(self.replica(&target.dataset)?, newest);
            }
        }
        let names: BTreeSet<&SnapshotName> = sent.values().map(|mark| &mark.name).collect();
        // Each of them is another column.
        if sent.is_empty() || names.len() > MOST_NAMES {
            return Ok(BTreeMap::new());
        }
        let root = self.mapping.root();
        let pairs = sent.iter().map(|(replica, mark)| (replica, &mark.name)).collect();
        let lines = list::heads::<ReplicateKind>(&self.there, cx, root, &pairs).await?;
        let names: Vec<DatasetName> = sent.keys().chain([root]).cloned().collect();
        let mut all = grouped(&lines, &names);
        all.retain(|name, lineage| match sent.get(name) {
            Some(mark) => {
                // One that wasn't told all may not be the only one.
                let is_copy =
                    |copy: &Mark| copy.guid == mark.guid && mark.own.missing_of(&copy.own).is_empty();
                lineage.dataset.is_some()
                    && lineage.resume_token.is_none()
                    && lineage.snapshots.iter().any(is_copy)
            }
            None => true,
        });
        Ok(all)
    }

    pub(super) fn both(&self, sides: &Sides, target: &Target) -> Result<(Lineage, Lineage), ReplicateError> {
        let replica = self.replica(&target.dataset)?;
        let of = |all: &BTreeMap<DatasetName, Lineage>, name| all.get(name).cloned().unwrap_or_default();
        Ok((of(&sides.here, &target.dataset), of(&sides.there, &replica)))
    }
}
