//! Listing, holding and pruning snapshots (S6, S8, S9).

use std::collections::BTreeMap;
use std::path::Path;

use reseed_core::error::{Effect, Error, StoreError, StoreKind};
use reseed_core::names::{DatasetName, HoldTag};
use reseed_core::point::{Snapshot, SnapshotRef, Target};
use reseed_core::store::{HoldChange, Pruned, Since};

use super::create::{lock, undo_groups};
use super::errors::Outward;
use super::job::Job;
use super::members::{self, Member};
use super::place::Place;
use super::promote::free_aside;
use super::root::{self, Dataset, Lock, Root};
use super::settle::shown_path;
use super::sys::During;

fn open(root: &Path) -> Result<Root, StoreError> {
    root::open(root).map_err(|no| no.into(StoreKind::PoolUnavailable))
}

/// Every snapshot of these datasets.
pub(super) fn list(job: &Job, root: &Path, targets: &[Target]) -> Result<Vec<Snapshot>, StoreError> {
    let root = open(root)?;
    let mut all = Vec::new();
    for target in targets {
        job.check().store()?;
        for member in root.members(&target.dataset).store()? {
            if let Err(fail) = member.intact() {
                job.warn(fail.to_string(), fail.what_to_do());
            }
            all.push(member.snapshot);
        }
    }
    Ok(all)
}

/// A dataset, its lock, and its snapshots as they are under it.
type Locked = (Dataset, Lock, Vec<Member>);

/// The datasets of some snapshots, each locked. In order of their names, so that two runs never wait for each other.
fn locked<'a>(
    job: &Job,
    root: &Root,
    snapshots: &'a [SnapshotRef],
) -> Result<BTreeMap<&'a DatasetName, Locked>, StoreError> {
    let mut all = BTreeMap::new();
    let mut names: Vec<&DatasetName> = snapshots.iter().map(|snapshot| &snapshot.dataset).collect();
    names.sort();
    names.dedup();
    for name in names {
        if let Some(dataset) = root.dataset(name).store()? {
            let lock = lock(&dataset).store()?;
            undo_groups(job, root, &dataset, name).store()?;
            let members = root.members(name).store()?;
            all.insert(name, (dataset, lock, members));
        }
    }
    Ok(all)
}

/// The snapshot of exactly this name and guid.
fn find<'a>(members: &'a [Member], wanted: &SnapshotRef) -> Result<&'a Member, StoreError> {
    let named: Vec<&Member> = members
        .iter()
        .filter(|member| member.snapshot.name == wanted.name)
        .collect();
    match named.iter().find(|member| member.snapshot.guid == wanted.guid) {
        Some(member) => Ok(member),
        None if named.is_empty() => Err(missing(wanted)),
        None => Err(StoreError::new(
            StoreKind::NotFound,
            format!(
                "{}@{} is another snapshot now than the one meant, guid {}",
                wanted.dataset, wanted.name, wanted.guid
            ),
        )),
    }
}

fn missing(wanted: &SnapshotRef) -> StoreError {
    StoreError::new(
        StoreKind::NotFound,
        format!("there is no snapshot {}@{}", wanted.dataset, wanted.name),
    )
}

/// Where what is live would be kept. How much was written since, a directory doesn't know.
pub(super) fn since(
    job: &Job,
    root: &Path,
    target: &Target,
    snapshot: &SnapshotRef,
) -> Result<Since, StoreError> {
    let root = open(root)?;
    if snapshot.dataset != target.dataset {
        return Err(missing(snapshot));
    }
    find(&root.members(&target.dataset).store()?, snapshot)?;
    let place = Place::of(target).store()?;
    let parent = place
        .open_parent()
        .during(|| format!("can't look beside {:?}", place.path))
        .store()?;
    let name = free_aside(&place, &parent, &job.cx.run)?;
    Ok(Since {
        written: None,
        kept_as: shown_path(&place, &name),
    })
}

/// Adds or takes away a hold on all of them, or on none.
pub(super) fn hold(
    job: &Job,
    root: &Path,
    snapshots: &[SnapshotRef],
    tag: &HoldTag,
    change: HoldChange,
) -> Result<(), StoreError> {
    let root = open(root)?;
    let datasets = locked(job, &root, snapshots)?;
    let mut found = Vec::new();
    for wanted in snapshots {
        let (dataset, _, members) = datasets.get(&wanted.dataset).ok_or_else(|| missing(wanted))?;
        found.push((dataset, find(members, wanted)?));
    }
    for (at, (dataset, member)) in found.into_iter().enumerate() {
        let result = match change {
            HoldChange::Add => members::add_hold(dataset, member, tag),
            HoldChange::Release => members::release_hold(dataset, member, tag),
        };
        let effect = if at == 0 { Effect::None } else { Effect::Partial };
        result.store().map_err(|error| error.effect(effect))?;
    }
    Ok(())
}

/// Removes snapshots, and says what became of each.
pub(super) fn prune(job: &Job, root: &Path, snapshots: &[SnapshotRef]) -> Result<Vec<Pruned>, StoreError> {
    let root = open(root)?;
    let datasets = locked(job, &root, snapshots)?;
    // What an earlier prune left half removed is of no use to anybody.
    for (dataset, _, _) in datasets.values() {
        members::sweep(job, dataset, None).store()?;
    }
    let mut report = Vec::new();
    for wanted in snapshots {
        if !report.is_empty() && job.check().is_err() {
            let cancelled: StoreError =
                Error::new(StoreKind::Cancelled, "the run was cancelled before this one");
            report.push(Pruned {
                snapshot: wanted.clone(),
                kept: Some(cancelled.report()),
            });
            continue;
        }
        let result = match datasets.get(&wanted.dataset) {
            Some((dataset, _, members)) => prune_one(job, dataset, members, wanted),
            None => Err(missing(wanted)),
        };
        report.push(Pruned {
            snapshot: wanted.clone(),
            kept: result.err().map(|error| error.report()),
        });
    }
    Ok(report)
}

fn prune_one(
    job: &Job,
    dataset: &Dataset,
    members: &[Member],
    wanted: &SnapshotRef,
) -> Result<(), StoreError> {
    let member = find(members, wanted)?;
    member.intact().store()?;
    if let Some(tag) = member.snapshot.holds.first() {
        let more = member.snapshot.holds.len() - 1;
        let others = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        return Err(StoreError::new(
            StoreKind::Held,
            format!("{}@{} is held by {tag}{others}", wanted.dataset, wanted.name),
        ));
    }
    members::remove_member(job, dataset, &member.dir).store()
}
