//! Listing, taking, holding and pruning snapshots (S4 to S9).
//!
//! `zfs` addresses snapshots by name, and names are reused. So every change begins with a listing of exactly what it
//! names, right before, and what has another guid is left out of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use reseed_core::Context;
use reseed_core::error::{Effect, StoreError, StoreKind};
use reseed_core::event::Event;
use reseed_core::names::{DatasetName, HoldTag, SnapshotName};
use reseed_core::point::{Snapshot, SnapshotRef, Target};
use reseed_core::store::{CreateSnapshots, HoldChange, Pruned};

use super::error::Fault;
use super::parse::Listed;
use super::tool::Tool;
use super::{argv, engine, error, list, names, record, work};

/// Names in one `zfs destroy`: an argument may be 128 KiB long.
const AT_ONCE: usize = 400;

/// Every snapshot of exactly these targets.
pub(crate) async fn list(tool: &Tool, cx: &Context, targets: &[Target]) -> Result<Vec<Snapshot>, StoreError> {
    let datasets: Vec<DatasetName> = targets.iter().map(|target| target.dataset.clone()).collect();
    let found = list::snapshots(tool, cx, &datasets).await?;
    let holds = list::holds(tool, cx, &found).await?;
    Ok(list::in_order(&datasets, found, &holds))
}

/// Takes one snapshot of all targets, in one transaction group, and measures them.
pub(crate) async fn create(
    tool: &Tool,
    cx: &Context,
    places: &Path,
    request: &CreateSnapshots,
) -> Result<Vec<Snapshot>, StoreError> {
    let datasets: Vec<DatasetName> = request
        .targets
        .iter()
        .map(|target| target.dataset.clone())
        .collect();
    check_group(&datasets, &request.name)?;
    if datasets.is_empty() {
        return Ok(Vec::new());
    }
    let taken = request.taken_at.to_string();
    let mut properties = vec![(argv::TAKEN, taken.as_str())];
    if request.unseeded {
        properties.push((argv::UNSEEDED, "on"));
    }
    let what = format!("can't take snapshot {} of {}", request.name, joined(&datasets));
    let taken = engine::snapshot(tool, cx, &datasets, &request.name, &properties, what).await;
    if let Err(error) = taken {
        return Err(refused(tool, cx, &datasets, error).await);
    }
    let mut made = list::these(tool, cx, datasets.iter().map(|d| (d, &request.name)))
        .await
        .map_err(|error: StoreError| error.effect(Effect::Partial))?;
    if request.measure {
        for one in &mut made {
            measured(tool, cx, places, one).await?;
        }
    }
    let made = list::in_order(&datasets, made, &HashMap::new());
    if made.len() != datasets.len() {
        let what = format!(
            "snapshot {} of {} was taken and is gone again",
            request.name,
            joined(&datasets)
        );
        return Err(StoreError::new(StoreKind::NotFound, what).effect(Effect::Partial));
    }
    Ok(made)
}

/// `zfs` takes snapshots of one pool all or none: after it has refused, nothing is there.
async fn refused(tool: &Tool, cx: &Context, datasets: &[DatasetName], error: StoreError) -> StoreError {
    match error.kind() {
        StoreKind::Cancelled | StoreKind::TimedOut => error,
        StoreKind::NotFound => match list::pools_usable::<StoreKind>(tool, cx, datasets).await {
            Ok(()) => error.effect(Effect::None),
            Err(pool) => pool,
        },
        _ => error.effect(Effect::None),
    }
}

fn check_group(datasets: &[DatasetName], name: &SnapshotName) -> Result<(), StoreError> {
    let pools: BTreeSet<&str> = datasets.iter().map(DatasetName::pool).collect();
    if pools.len() > 1 {
        let what = format!(
            "{} are in different pools, so one snapshot can't be of all or none",
            joined(datasets)
        );
        return Err(StoreError::new(StoreKind::Unsupported, what)
            .hint("keep the datasets of a service in one pool, or make two services of them"));
    }
    let distinct: BTreeSet<&DatasetName> = datasets.iter().collect();
    if distinct.len() != datasets.len() {
        let what = format!("{} names a dataset twice", joined(datasets));
        return Err(StoreError::new(StoreKind::InvalidInput, what));
    }
    let longest = datasets.iter().map(|d| d.as_str().len()).max().unwrap_or(0);
    if longest + 1 + name.as_str().len() > reseed_core::names::MAX_DATASET_LEN {
        let what = format!("{name} is too long a name for a snapshot of {}", joined(datasets));
        return Err(StoreError::new(StoreKind::InvalidInput, what));
    }
    Ok(())
}

fn joined(datasets: &[DatasetName]) -> String {
    let names: Vec<&str> = datasets.iter().map(DatasetName::as_str).collect();
    names.join(", ")
}

/// Measures a snapshot's tree and writes the fingerprint on it. One that can't be measured is a snapshot nevertheless.
async fn measured(tool: &Tool, cx: &Context, places: &Path, one: &mut Listed) -> Result<(), StoreError> {
    let full = format!("{}@{}", one.dataset, one.name);
    let place = names::place(places, "measure", &one.dataset);
    let found = match work::mount::<StoreKind>(full.clone(), place.clone(), true).await {
        Ok(()) => {
            let found = work::measure::<StoreKind>(cx, &place).await;
            work::unmount::<StoreKind>(place).await.and(found)
        }
        Err(error) => Err(error),
    };
    let written = match found {
        Ok(found) => {
            let text = record::write_fingerprint(one.guid, &found);
            let args = argv::set_on_snapshot(&one.dataset, &one.name, &[(argv::DIGEST, &text)]);
            let what = format!("can't write the fingerprint on {full}");
            one.digest = Some(text);
            tool.change::<StoreKind>(cx, args, what, Effect::Partial)
                .await
                .map(drop)
        }
        Err(error) => Err(error),
    };
    match written {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == StoreKind::Cancelled => Err(error.effect(Effect::Partial)),
        Err(error) => {
            one.digest = None;
            cx.emit(Event::Warning {
                service: None,
                message: format!("{full} was taken and not measured: {error}"),
                hint: error.what_to_do().map(str::to_owned),
            });
            Ok(())
        }
    }
}

/// Those of these that are there under their guids.
async fn exact(
    tool: &Tool,
    cx: &Context,
    wanted: &[SnapshotRef],
) -> Result<BTreeMap<SnapshotRef, Listed>, StoreError> {
    let mut all = BTreeMap::new();
    for part in wanted.chunks(AT_ONCE) {
        let found: Vec<Listed> =
            list::these(tool, cx, part.iter().map(|one| (&one.dataset, &one.name))).await?;
        for one in found {
            let reference = SnapshotRef {
                dataset: one.dataset.clone(),
                name: one.name.clone(),
                guid: one.guid,
            };
            all.insert(reference, one);
        }
    }
    Ok(all)
}

/// Adds or takes away a hold, where it isn't as wanted already.
pub(crate) async fn hold(
    tool: &Tool,
    cx: &Context,
    wanted: &[SnapshotRef],
    tag: &HoldTag,
    change: HoldChange,
) -> Result<(), StoreError> {
    let there = exact(tool, cx, wanted).await?;
    if let Some(gone) = wanted.iter().find(|one| !there.contains_key(*one)) {
        let what = format!(
            "there is no snapshot {}@{} with guid {}",
            gone.dataset, gone.name, gone.guid
        );
        return Err(list::not_found(what));
    }
    let listed: Vec<Listed> = there.values().cloned().collect();
    let holds = list::holds::<StoreKind>(tool, cx, &listed).await?;
    let is_held = |one: &&SnapshotRef| {
        holds
            .get(&format!("{}@{}", one.dataset, one.name))
            .is_some_and(|tags| tags.contains(tag))
    };
    let wanted: BTreeSet<&SnapshotRef> = wanted
        .iter()
        .filter(|one| is_held(one) == (change == HoldChange::Release))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let names = wanted.iter().map(|one| (&one.dataset, &one.name));
    let (args, what) = match change {
        HoldChange::Add => (argv::hold(tag, names), format!("can't hold snapshots as {tag}")),
        HoldChange::Release => (
            argv::release(tag, names),
            format!("can't release snapshots held as {tag}"),
        ),
    };
    tool.change(cx, args, what, Effect::Partial).await.map(drop)
}

/// Removes exactly these. What is still there afterwards, by its guid, was kept.
pub(crate) async fn prune(
    tool: &Tool,
    cx: &Context,
    wanted: &[SnapshotRef],
) -> Result<Vec<Pruned>, StoreError> {
    let there = exact(tool, cx, wanted).await?;
    // A held one in a call keeps the whole call from doing anything (OpenZFS 2.3.2).
    let free: BTreeSet<&SnapshotRef> = wanted
        .iter()
        .filter(|one| there.get(*one).is_some_and(|listed| listed.userrefs == 0))
        .collect();
    let together = engine::destroy_together(tool, cx, &free).await;
    let mut by_dataset: BTreeMap<&DatasetName, Vec<&SnapshotName>> = BTreeMap::new();
    for one in free.iter().filter(|one| !together.contains(**one)) {
        by_dataset.entry(&one.dataset).or_default().push(&one.name);
    }
    let mut refusals: BTreeMap<(&DatasetName, &SnapshotName), StoreError> = BTreeMap::new();
    let mut tried = !together.is_empty();
    for (dataset, names) in by_dataset {
        for part in names.chunks(AT_ONCE) {
            let result = destroy(tool, cx, dataset, part).await;
            match result {
                Ok(()) => {}
                Err(error) if !tried && error.kind() == StoreKind::Cancelled => return Err(error),
                Err(_) if part.len() > 1 && !cx.cancel.is_cancelled() => {
                    // One that can't go kept the others.
                    for name in part {
                        if let Err(error) = destroy(tool, cx, dataset, &[name]).await {
                            refusals.insert((dataset, name), error);
                        }
                    }
                }
                Err(error) => refusals.extend(part.iter().map(|name| ((dataset, *name), error.clone()))),
            }
            tried = true;
        }
    }
    let after = match free.is_empty() {
        true => BTreeMap::new(),
        false => {
            // The listing is what tells what became of them, also when the run was cancelled meanwhile.
            let calm = calm(cx);
            let still: Vec<SnapshotRef> = free.iter().map(|one| (*one).clone()).collect();
            exact(tool, &calm, &still)
                .await
                .map_err(|error| error.effect(Effect::Unknown))?
        }
    };
    let report = |one: &SnapshotRef| Pruned {
        snapshot: one.clone(),
        kept: why_kept(one, &there, &after, &refusals).map(|error| error.report()),
    };
    Ok(wanted.iter().map(report).collect())
}

fn why_kept(
    one: &SnapshotRef,
    before: &BTreeMap<SnapshotRef, Listed>,
    after: &BTreeMap<SnapshotRef, Listed>,
    refusals: &BTreeMap<(&DatasetName, &SnapshotName), StoreError>,
) -> Option<StoreError> {
    let name = format!("{}@{}", one.dataset, one.name);
    match before.get(one) {
        None => Some(list::not_found(format!(
            "there is no snapshot {name} with guid {}",
            one.guid
        ))),
        Some(listed) if listed.userrefs > 0 => Some(error::said(
            format!("{name} is held"),
            Fault::Held,
            "",
            Effect::None,
        )),
        Some(_) if after.contains_key(one) => Some(
            refusals
                .get(&(&one.dataset, &one.name))
                .cloned()
                .unwrap_or_else(|| StoreError::new(StoreKind::Io, format!("{name} is still there"))),
        ),
        Some(_) => None,
    }
}

async fn destroy(
    tool: &Tool,
    cx: &Context,
    dataset: &DatasetName,
    names: &[&SnapshotName],
) -> Result<(), StoreError> {
    let args = argv::destroy_snapshots(dataset, names.iter().copied());
    let what = format!("can't remove {} snapshots of {dataset}", names.len());
    tool.change(cx, args, what, Effect::Unknown).await.map(drop)
}

/// The same run, not to be interrupted: between two moments is no place to stop.
pub(crate) fn calm(cx: &Context) -> Context {
    Context::new(
        cx.run.clone(),
        std::sync::Arc::clone(cx.events()),
        tokio_util::sync::CancellationToken::new(),
    )
}
