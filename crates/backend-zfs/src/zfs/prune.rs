//! Removing snapshots, each by its guid (S8), and saying of each what became of it.
//!
//! Where one may, the kernel is given all of them in one [channel program](super::program), which compares guids and holds
//! itself. What that hasn't removed, and all of it for users who aren't root, goes the long way: a listing, then a process a
//! dataset, then a listing that tells what is still there.

use std::collections::{BTreeMap, BTreeSet};

use reseed_core::Context;
use reseed_core::error::{Effect, StoreError, StoreKind};
use reseed_core::names::{DatasetName, SnapshotName};
use reseed_core::point::SnapshotRef;
use reseed_core::store::Pruned;

use super::error::Fault;
use super::parse::Listed;
use super::snapshots::{AT_ONCE, calm, exact};
use super::tool::Tool;
use super::{argv, engine, error, list, program};

/// Removes exactly these. What is still there afterwards, by its guid, was kept.
pub(crate) async fn prune(
    tool: &Tool,
    cx: &Context,
    wanted: &[SnapshotRef],
) -> Result<Vec<Pruned>, StoreError> {
    let done = program::destroy(tool, cx, wanted).await;
    let left: Vec<SnapshotRef> = wanted
        .iter()
        .filter(|one| !done.gone.contains(*one))
        .cloned()
        .collect();
    let kept = if left.is_empty() {
        BTreeMap::new()
    } else {
        one_by_one(tool, cx, &left, &done).await?
    };
    let report = |one: &SnapshotRef| Pruned {
        snapshot: one.clone(),
        kept: kept.get(one).map(StoreError::report),
    };
    Ok(wanted.iter().map(report).collect())
}

/// Removes these by `zfs destroy`. Says which were kept, and why.
async fn one_by_one(
    tool: &Tool,
    cx: &Context,
    wanted: &[SnapshotRef],
    before: &program::Removed,
) -> Result<BTreeMap<SnapshotRef, StoreError>, StoreError> {
    let begun = before.unclear || !before.gone.is_empty();
    // Once something was removed, what became of all is told, also of a run that was cancelled meanwhile.
    let listing = if begun { calm(cx) } else { cx.clone() };
    let there = exact(tool, &listing, wanted).await.map_err(|error| {
        if begun {
            error.effect(Effect::Unknown)
        } else {
            error
        }
    })?;
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
    let mut tried = begun || !together.is_empty();
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
    let why = |one: &SnapshotRef| {
        let why = why_kept(one, &there, &after, &refusals)?;
        let gone = before.unclear && !there.contains_key(one);
        Some(if gone { why.effect(Effect::Unknown) } else { why })
    };
    Ok(wanted
        .iter()
        .filter_map(|one| Some((one.clone(), why(one)?)))
        .collect())
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
