//! Listing, taking and holding snapshots (S4 to S9 without [pruning](super::prune)).
//!
//! `zfs` addresses snapshots by name, and names are reused. So every change begins with a listing of exactly what it
//! names, right before, and what has another guid is left out of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use reseed_core::Context;
use reseed_core::error::{Effect, StoreError, StoreKind};
use reseed_core::event::Event;
use reseed_core::names::{DatasetName, HoldTag, SnapshotName};
use reseed_core::point::{Fingerprint, Snapshot, SnapshotRef, Target};
use reseed_core::store::{CreateSnapshots, HoldChange};

use super::parse::Listed;
use super::program::{self, Valued};
use super::tool::Tool;
use super::{argv, engine, list, names, record, work};

/// Names in one `zfs destroy`: an argument may be 128 KiB long.
pub(super) const AT_ONCE: usize = 400;

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
        measure(tool, cx, places, &mut made).await?;
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

/// Measures the trees of snapshots and writes each one's fingerprint on it. One that can't be measured is a snapshot
/// nevertheless. What was measured until a run was cancelled is written.
async fn measure(tool: &Tool, cx: &Context, places: &Path, made: &mut [Listed]) -> Result<(), StoreError> {
    let mut found: Vec<Valued> = Vec::with_capacity(made.len());
    let mut result = Ok(());
    for one in made.iter() {
        match measured(cx, places, one).await {
            Ok(print) => {
                let text = record::write_fingerprint(one.guid, &print);
                found.push((one.dataset.clone(), one.name.clone(), text));
            }
            Err(error) if error.kind() == StoreKind::Cancelled => {
                result = Err(error.effect(Effect::Partial));
                break;
            }
            Err(error) => not_measured(cx, one, &error),
        }
    }
    let writing = if result.is_ok() { cx.clone() } else { calm(cx) };
    let together = program::set(tool, &writing, argv::DIGEST, &found).await;
    for one in made {
        let Some((dataset, name, text)) = found
            .iter()
            .find(|(dataset, name, _)| (dataset, name) == (&one.dataset, &one.name))
        else {
            continue;
        };
        if !together {
            let args = argv::set_on_snapshot(dataset, name, &[(argv::DIGEST, text)]);
            let what = format!("can't write the fingerprint on {dataset}@{name}");
            let written = tool
                .change::<StoreKind>(&writing, args, what, Effect::Partial)
                .await;
            match written {
                Ok(_) => {}
                Err(error) if error.kind() == StoreKind::Cancelled => {
                    return Err(error.effect(Effect::Partial));
                }
                Err(error) => {
                    not_measured(cx, one, &error);
                    continue;
                }
            }
        }
        one.digest = Some(text.clone());
    }
    result
}

async fn measured(cx: &Context, places: &Path, one: &Listed) -> Result<Fingerprint, StoreError> {
    let full = format!("{}@{}", one.dataset, one.name);
    let place = names::place(places, "measure", &one.dataset);
    work::mount::<StoreKind>(full, place.clone(), true).await?;
    let found = work::measure::<StoreKind>(cx, &place).await;
    work::unmount::<StoreKind>(place).await.and(found)
}

fn not_measured(cx: &Context, one: &Listed, error: &StoreError) {
    cx.emit(Event::Warning {
        service: None,
        message: format!("{}@{} was taken and not measured: {error}", one.dataset, one.name),
        hint: error.what_to_do().map(str::to_owned),
    });
}

/// Those of these that are there under their guids.
pub(super) async fn exact(
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

/// The same run, not to be interrupted: between two moments is no place to stop.
pub(crate) fn calm(cx: &Context) -> Context {
    Context::new(
        cx.run.clone(),
        std::sync::Arc::clone(cx.events()),
        tokio_util::sync::CancellationToken::new(),
    )
}
