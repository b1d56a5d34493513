//! Ending a preseed (S11 to S13): what was staged is promoted ([`promote`](super::promote)), finished, quarantined or
//! discarded; a target is marked as it is, or started empty.
//!
//! Promises that the only datasets that are ever destroyed carry our own record under a staging or quarantine name, and
//! go by exact names, snapshots first: one that has gained children or clones stays, because `zfs` refuses.

use std::collections::BTreeMap;
use std::path::Path;

use reseed_core::Context;
use reseed_core::error::{Effect, StoreError, StoreKind};
use reseed_core::event::Event;
use reseed_core::names::{DatasetName, Guid, SnapshotName};
use reseed_core::ownership::Ownership;
use reseed_core::point::{Marker, Target};
use reseed_core::store::{Condition, Leftover, Replace, Settle, Settled, StageState, Staging};

use super::fresh::{self, Declared};
use super::mounts;
use super::parse::{Facts, Said};
use super::record::{self, StageRecord};
use super::snapshots::calm;
use super::staging::{self, ours, staging_place};
use super::tool::Tool;
use super::{argv, aside, clear, inspect, list, names, owner, promote, work};

/// Does what is asked for.
pub(crate) async fn settle(
    tool: &Tool,
    cx: &Context,
    places: &Path,
    request: &Settle,
    (declared, owned): (
        &BTreeMap<DatasetName, Declared>,
        &BTreeMap<DatasetName, Ownership>,
    ),
) -> Result<Settled, StoreError> {
    let owner = |target: &Target| owned.get(&target.dataset);
    let of = |target: &Target| fresh::declared_of(declared, &target.dataset);
    match request {
        Settle::Promote {
            staging,
            replace,
            marker,
        } => {
            same_place(places, staging)?;
            let declared = of(&staging.target);
            let as_declared = promote::AsDeclared {
                canmount: declared.get("canmount").map(String::as_str),
                legacy: is_legacy(declared),
                owner: owner(&staging.target),
            };
            promote::promote(tool, cx, places, &staging.target, (*replace, as_declared), marker).await
        }
        Settle::Finish {
            target,
            leftover,
            marker,
        } => finish(tool, cx, places, target, leftover, (marker, owner(target))).await,
        Settle::Quarantine { staging, why } => {
            same_place(places, staging)?;
            quarantine(tool, cx, places, &staging.target, why).await
        }
        Settle::Discard { staging } if staging.state == StageState::Exposed => close(places, staging).await,
        Settle::Discard { staging } => {
            same_place(places, staging)?;
            discard(tool, cx, places, &staging.target, None).await
        }
        Settle::DiscardLeftover { target, leftover } if leftover.files => {
            let name = names::fetched(&target.dataset)?;
            let Some(facts) = known(tool, cx, &name).await? else {
                return Ok(Settled::default());
            };
            let record = ours(&name, target, &facts)?;
            if record.run != leftover.run || !record.is_for(&leftover.point) {
                return Err(stale(format!(
                    "{name} is not what run {} has fetched",
                    leftover.run
                )));
            }
            remove_fetched(tool, cx, places, target, facts.guid).await
        }
        Settle::DiscardLeftover { target, leftover } => {
            discard(tool, cx, places, target, Some(leftover)).await
        }
        Settle::StartEmpty { target, marker } => {
            start_empty(tool, cx, target, marker, (of(target), owner(target))).await
        }
        Settle::Mark { target, guid, marker } => mark(tool, cx, target, *guid, marker).await,
    }
}

/// A staging that this store has made.
fn same_place(places: &Path, staging: &Staging) -> Result<(), StoreError> {
    let name = names::staging(&staging.target.dataset)?;
    if staging.locator != name.as_str() || staging.path != staging_place(places, &staging.target.dataset) {
        let what = format!(
            "{} at {:?} is no staging of this store",
            staging.locator, staging.path
        );
        return Err(StoreError::new(StoreKind::InvalidInput, what));
    }
    Ok(())
}

pub(crate) fn stale(what: impl Into<String>) -> StoreError {
    StoreError::new(StoreKind::StalePlan, what)
}

/// What a dataset is, or nothing when it isn't there; not being able to tell is an error.
pub(crate) async fn known(
    tool: &Tool,
    cx: &Context,
    name: &DatasetName,
) -> Result<Option<Facts>, StoreError> {
    match list::fact::<StoreKind>(tool, cx, name).await? {
        Said::Facts(facts) => Ok(Some(*facts)),
        Said::NotThere => {
            list::pools_usable::<StoreKind>(tool, cx, [name]).await?;
            Ok(None)
        }
        Said::Unclear(why) => {
            Err(StoreError::new(StoreKind::Io, format!("the state of {name} can't be told")).said(why))
        }
    }
}

async fn close(places: &Path, staging: &Staging) -> Result<Settled, StoreError> {
    if staging.path != names::place(places, "open", &staging.target.dataset) {
        let what = format!("{:?} is no snapshot that this store has opened", staging.path);
        return Err(StoreError::new(StoreKind::InvalidInput, what));
    }
    work::unmount::<StoreKind>(staging.path.clone()).await?;
    Ok(Settled::default())
}

async fn finish(
    tool: &Tool,
    cx: &Context,
    places: &Path,
    target: &Target,
    leftover: &Leftover,
    (marker, owner): (&Marker, Option<&Ownership>),
) -> Result<Settled, StoreError> {
    let other = || {
        stale(format!(
            "{} is not what run {} has put in place",
            target.dataset, leftover.run
        ))
    };
    let facts = known(tool, cx, &target.dataset).await?.ok_or_else(other)?;
    if let Some(settled) = promote::already(&facts, marker) {
        return Ok(settled);
    }
    let record = StageRecord::promoted(&target.dataset, &facts)
        .filter(|record| record.run == leftover.run && record.is_for(&leftover.point))
        .ok_or_else(other)?;
    // Another run, without the service's lock, had mounted the staging when it was renamed: where it lies now nobody looks for it.
    work::unmount::<StoreKind>(staging_place(places, &target.dataset)).await?;
    promote::complete(tool, &calm(cx), target, &facts, (&record, owner), marker).await?;
    Ok(Settled {
        guid: Some(facts.guid),
        ..Settled::default()
    })
}

async fn quarantine(
    tool: &Tool,
    cx: &Context,
    places: &Path,
    target: &Target,
    why: &str,
) -> Result<Settled, StoreError> {
    let name = names::staging(&target.dataset)?;
    let Some(facts) = known(tool, cx, &name).await? else {
        return Err(stale(format!("nothing is staged for {}", target.dataset)));
    };
    let mut record = ours(&name, target, &facts)?;
    nothing_aside(tool, cx, target, &record).await?;
    record.quarantined = Some(why.chars().take(500).collect());
    let text = record.write()?;
    let cx = &calm(cx);
    let what = format!("can't mark {name} as failed");
    let args = argv::set(&name, &[(argv::STAGE, &text)]);
    tool.change::<StoreKind>(cx, args, what, Effect::StagingOnly)
        .await?;
    // It is marked: whatever fails now, the next `stage` goes on with it.
    let kept = finish_quarantine(tool, cx, places, target, &name, &record)
        .await
        .map_err(|error| error.effect(Effect::StagingOnly))?;
    keeps_no_space(tool, cx, &kept).await;
    Ok(Settled {
        quarantined: Some(kept.to_string()),
        ..Settled::default()
    })
}

/// What is kept only to be looked at must not keep room from the pool that the data has to come back into.
async fn keeps_no_space(tool: &Tool, cx: &Context, kept: &DatasetName) {
    let args = argv::set(kept, &[("reservation", "none"), ("refreservation", "none")]);
    let what = format!("{kept} may still have room reserved");
    if let Err(error) = tool.change::<StoreKind>(cx, args, what, Effect::None).await {
        cx.emit(Event::Warning {
            service: None,
            message: error.to_string(),
            hint: Some(format!("`zfs set reservation=none refreservation=none '{kept}'`")),
        });
    }
}

/// Renames what failed verification out of the way of the next try. An older one of the same dataset and source goes.
pub(crate) async fn finish_quarantine(
    tool: &Tool,
    cx: &Context,
    places: &Path,
    target: &Target,
    name: &DatasetName,
    record: &StageRecord,
) -> Result<DatasetName, StoreError> {
    let kept = names::quarantine(&target.dataset, &record.point.source)?;
    work::unmount::<StoreKind>(staging_place(places, &target.dataset)).await?;
    if let Some(older) = known(tool, cx, &kept).await? {
        let older = ours(&kept, target, &older)?;
        if older.quarantined.is_none() {
            return Err(StoreError::new(
                StoreKind::StageConflict,
                format!("{kept} is not a quarantine of ours"),
            ));
        }
        destroy(tool, cx, &kept).await?;
    }
    let what = format!("can't rename {name} to {kept}");
    tool.change::<StoreKind>(cx, argv::rename(name, &kept), what, Effect::StagingOnly)
        .await?;
    Ok(kept)
}

async fn discard(
    tool: &Tool,
    cx: &Context,
    places: &Path,
    target: &Target,
    only: Option<&Leftover>,
) -> Result<Settled, StoreError> {
    let name = names::staging(&target.dataset)?;
    let Some(facts) = known(tool, cx, &name).await? else {
        work::unmount::<StoreKind>(staging_place(places, &target.dataset)).await?;
        return Ok(Settled::default());
    };
    let record = ours(&name, target, &facts)?;
    if let Some(leftover) = only
        && !(record.run == leftover.run && record.is_for(&leftover.point))
    {
        let what = format!("{name} is not what run {} has staged", leftover.run);
        return Err(stale(what));
    }
    nothing_aside(tool, cx, target, &record).await?;
    work::unmount::<StoreKind>(staging_place(places, &target.dataset)).await?;
    destroy(tool, cx, &name).await?;
    Ok(Settled::default())
}

/// Removes what was fetched to copy files out of it, and only that very dataset.
pub(crate) async fn remove_fetched(
    tool: &Tool,
    cx: &Context,
    places: &Path,
    target: &Target,
    guid: Guid,
) -> Result<Settled, StoreError> {
    let name = names::fetched(&target.dataset)?;
    work::unmount::<StoreKind>(names::place(places, "files", &name)).await?;
    let Some(facts) = known(tool, cx, &name).await? else {
        return Ok(Settled::default());
    };
    ours(&name, target, &facts)?;
    if facts.guid != guid {
        let what = format!("{name} is another dataset than the one that was fetched");
        return Err(stale(what));
    }
    destroy(tool, cx, &name).await?;
    Ok(Settled::default())
}

/// Keeps a staging whose promotion was cut off after live data was set aside for it: its record is all that tells that the
/// target's data isn't absent.
async fn nothing_aside(
    tool: &Tool,
    cx: &Context,
    target: &Target,
    record: &StageRecord,
) -> Result<(), StoreError> {
    let Some(over) = record.over else { return Ok(()) };
    let live = known(tool, cx, &target.dataset).await?;
    let Some(aside) = inspect::left_aside(tool, cx, target, live.as_ref(), over).await? else {
        return Ok(());
    };
    let what = format!(
        "what is staged for {} stays: {}",
        target.dataset,
        aside::told(&target.dataset, Some(&target.mountpoint), &aside)
    );
    Err(StoreError::new(StoreKind::StageConflict, what).hint(format!(
        "`reseed restore SERVICE --from {} --at {} --set-aside` goes on with it; or bring the data back by hand",
        record.point.source, record.point.id
    )))
}

/// Destroys a dataset of ours: its snapshots by name, then itself. Never `-r`: what has children or clones stays.
async fn destroy(tool: &Tool, cx: &Context, name: &DatasetName) -> Result<(), StoreError> {
    let found = list::snapshots::<StoreKind>(tool, cx, std::slice::from_ref(name)).await?;
    let snapshots: Vec<SnapshotName> = found.into_iter().map(|one| one.name).collect();
    for part in snapshots.chunks(400) {
        let what = format!("can't remove the snapshots of {name}");
        tool.change::<StoreKind>(cx, argv::destroy_snapshots(name, part), what, Effect::StagingOnly)
            .await?;
    }
    let what = format!("can't remove {name}");
    tool.change::<StoreKind>(cx, argv::destroy_dataset(name), what, Effect::StagingOnly)
        .await?;
    Ok(())
}

/// What stands at a target, judged as `inspect` does.
pub(crate) async fn standing(tool: &Tool, cx: &Context, target: &Target) -> Result<Condition, StoreError> {
    let mut all = inspect::inspect(tool, cx, std::slice::from_ref(target)).await?;
    Ok(all.remove(0).condition)
}

/// The error for a state that forbids what was asked for.
pub(crate) fn forbids(target: &Target, condition: &Condition) -> StoreError {
    let (dataset, place) = (&target.dataset, &target.mountpoint);
    match condition {
        Condition::Populated => stale(format!("data has come to stand at {dataset}; it is left alone")),
        Condition::Unmounted { why } => stale(format!(
            "{dataset} is there and not mounted, so it can't be told to be empty: {why}"
        )),
        Condition::Occupied { by } => StoreError::new(
            StoreKind::Occupied,
            format!("{place:?} is taken by {by}, which is not {dataset}"),
        )
        .hint(format!(
            "move what is at {place:?} away yourself if it is not needed"
        )),
        Condition::PoolUnavailable { why } => StoreError::new(StoreKind::PoolUnavailable, why.clone()),
        Condition::Unknown { why } => {
            StoreError::new(StoreKind::Io, format!("the state of {dataset} can't be told")).said(why)
        }
        Condition::Absent | Condition::Empty => stale(format!("{dataset} is not as it was")),
    }
}

async fn start_empty(
    tool: &Tool,
    cx: &Context,
    target: &Target,
    marker: &Marker,
    declared: (&Declared, Option<&Ownership>),
) -> Result<Settled, StoreError> {
    match standing(tool, cx, target).await? {
        Condition::Empty => {}
        Condition::Absent => return created_empty(tool, cx, target, marker, declared).await,
        condition => {
            let facts = known(tool, cx, &target.dataset).await?;
            if condition == Condition::Populated
                && let Some(settled) = facts.and_then(|facts| promote::already(&facts, marker))
            {
                return Ok(settled);
            }
            return Err(forbids(target, &condition));
        }
    }
    let Some(facts) = known(tool, cx, &target.dataset).await? else {
        return Err(stale(format!("{} went away", target.dataset)));
    };
    write_marker(tool, &calm(cx), target, facts.guid, marker).await
}

/// Starts empty where nothing is. From where the dataset is made on, something has changed.
async fn created_empty(
    tool: &Tool,
    cx: &Context,
    target: &Target,
    marker: &Marker,
    (declared, owner): (&Declared, Option<&Ownership>),
) -> Result<Settled, StoreError> {
    create_empty(tool, cx, target, declared).await?;
    owner::declared(tool.runner(), &calm(cx), &target.dataset, owner).await;
    let partial = |error: StoreError| error.effect(Effect::Partial);
    let Some(facts) = known(tool, cx, &target.dataset).await.map_err(partial)? else {
        return Err(partial(stale(format!("{} went away", target.dataset))));
    };
    write_marker(tool, &calm(cx), target, facts.guid, marker)
        .await
        .map_err(partial)
}

/// Whether something else than `zfs` is declared to mount it.
fn is_legacy(declared: &Declared) -> bool {
    declared.get("mountpoint").is_some_and(|value| value == "legacy")
}

/// Makes the target's dataset, mounted at its place in the same step.
async fn create_empty(
    tool: &Tool,
    cx: &Context,
    target: &Target,
    declared: &Declared,
) -> Result<(), StoreError> {
    clear::clear_place(tool, cx, target, Replace::OnlyEmpty, &mut false).await?;
    staging::make_parents(tool, cx, &target.dataset).await?;
    let mountpoint = promote::mountpoint_text(target)?;
    // Inherited where that is the right place, so that a later change above still counts.
    let above = match names::parent(&target.dataset) {
        Some(parent) => known(tool, cx, &parent).await?,
        None => None,
    };
    let inherited = above.is_some_and(|above| {
        format!(
            "{}/{}",
            above.mountpoint.text.trim_end_matches('/'),
            target.dataset.leaf()
        ) == mountpoint
    });
    let legacy = is_legacy(declared);
    let properties: &[(&str, &str)] = match (legacy, inherited) {
        (true, _) => &[("mountpoint", "legacy")],
        (false, true) => &[],
        (false, false) => &[("mountpoint", mountpoint)],
    };
    let fresh = fresh::fresh(tool, cx, target, declared).await?;
    let calm = calm(cx);
    fresh
        .make(tool, &calm, &target.dataset, properties, Effect::Partial)
        .await?;
    if legacy {
        aside::mount_at(tool, &calm, &target.dataset, &target.mountpoint, true)
            .await
            .map_err(|error| error.effect(Effect::Partial))?;
    }
    let mut later = fresh.later;
    if declared.get("canmount").is_some_and(|value| value == "noauto") {
        later.insert("canmount".to_owned(), "noauto".to_owned());
    }
    fresh::apply(tool, &calm, &target.dataset, &later).await?;
    let place = target.mountpoint.clone();
    let dataset = target.dataset.clone();
    work::blocking("can't read what is mounted", move || {
        let there = mounts::now()
            .map_err(|error| StoreError::io("can't read what is mounted", &error).effect(Effect::Partial))?;
        match mounts::at(&there, &inspect::real(&place)) {
            Some(mount) if mount.is_dataset(dataset.as_str()) => Ok(()),
            _ => Err(StoreError::new(
                StoreKind::Io,
                format!("{dataset} was made and is not mounted at {place:?}"),
            )
            .effect(Effect::Partial)
            .hint(format!("look at `zfs get mountpoint,canmount '{dataset}'`"))),
        }
    })
    .await
}

async fn mark(
    tool: &Tool,
    cx: &Context,
    target: &Target,
    guid: Guid,
    marker: &Marker,
) -> Result<Settled, StoreError> {
    let facts = known(tool, cx, &target.dataset).await?;
    if facts.map(|facts| facts.guid) != Some(guid) {
        let what = format!(
            "{} is another dataset than the one that was to be marked",
            target.dataset
        );
        return Err(stale(what));
    }
    write_marker(tool, &calm(cx), target, guid, marker).await
}

/// Writes the marker, bound to the dataset's guid.
pub(crate) async fn write_marker(
    tool: &Tool,
    cx: &Context,
    target: &Target,
    guid: Guid,
    marker: &Marker,
) -> Result<Settled, StoreError> {
    let text = record::write_marker(guid, marker)?;
    let what = format!("can't write the marker on {}", target.dataset);
    let args = argv::set(&target.dataset, &[(argv::MARKER, &text)]);
    tool.change::<StoreKind>(cx, args, what, Effect::Partial).await?;
    Ok(Settled {
        guid: Some(guid),
        ..Settled::default()
    })
}
