//! Places to restore into, and snapshots opened for reading (S10).
//!
//! A staging dataset is made in one step with its record on it, unmounted (`canmount=noauto`), and mounted in a place of
//! ours by a system call. One without our own record under that name isn't ours and is left alone. What a source
//! receives by itself ([`Delivery::Native`]) it makes with the same record ([`begun`]).
//!
//! A snapshot is opened by mounting it, read-only: no clone is left behind by a crash, and it doesn't go away as what is
//! under `.zfs/snapshot` does. It can't be pruned while it is mounted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use reseed_core::Context;
use reseed_core::error::{Effect, StoreError, StoreKind};
use reseed_core::names::DatasetName;
use reseed_core::point::{RecoveryPoint, SnapshotRef, Target};
use reseed_core::store::{Delivery, StagePurpose, StageRequest, StageState, Staging};

use super::fresh::{self, Declared};
use super::mounts::{self, Standing};
use super::parse::{Facts, Said};
use super::record::StageRecord;
use super::tool::Tool;
use super::{argv, engine, list, names, work};

/// Makes, opens or exposes.
pub(crate) async fn stage(
    tool: &Tool,
    cx: &Context,
    places: &Path,
    request: &StageRequest,
    declared: &BTreeMap<DatasetName, Declared>,
) -> Result<Staging, StoreError> {
    match &request.purpose {
        StagePurpose::Restore { point, delivery } => {
            let declared = fresh::declared_of(declared, &request.target.dataset);
            restore(tool, cx, places, &request.target, (point, *delivery), declared).await
        }
        StagePurpose::Expose { snapshot } => expose(tool, cx, places, &request.target, snapshot).await,
    }
}

/// Where a target's staging is mounted.
pub(crate) fn staging_place(places: &Path, target: &DatasetName) -> PathBuf {
    names::place(places, "stage", target)
}

async fn expose(
    tool: &Tool,
    cx: &Context,
    places: &Path,
    target: &Target,
    wanted: &SnapshotRef,
) -> Result<Staging, StoreError> {
    let full = format!("{}@{}", wanted.dataset, wanted.name);
    if wanted.dataset != target.dataset {
        let what = format!("{full} is no snapshot of {}", target.dataset);
        return Err(StoreError::new(StoreKind::InvalidInput, what));
    }
    let found = list::these::<StoreKind>(tool, cx, [(&wanted.dataset, &wanted.name)]).await?;
    if !found.iter().any(|one| one.guid == wanted.guid) {
        let what = format!("there is no snapshot {full} with guid {}", wanted.guid);
        return Err(list::not_found(what));
    }
    let path = names::place(places, "open", &target.dataset);
    work::mount(full.clone(), path.clone(), true).await?;
    Ok(Staging {
        target: target.clone(),
        path,
        locator: full,
        state: StageState::Exposed,
    })
}

async fn restore(
    tool: &Tool,
    cx: &Context,
    places: &Path,
    target: &Target,
    (point, delivery): (&RecoveryPoint, Delivery),
    declared: &Declared,
) -> Result<Staging, StoreError> {
    let name = names::staging(&target.dataset)?;
    let both = [target.dataset.clone(), name.clone()];
    let said = list::facts::<StoreKind>(tool, cx, &both).await?;
    let path = staging_place(places, &target.dataset);
    let mut staging = Staging {
        target: target.clone(),
        path: path.clone(),
        locator: name.to_string(),
        state: StageState::Fresh,
    };
    if let Said::Facts(live) = &said[0]
        && StageRecord::promoted(&target.dataset, live).is_some()
    {
        let what = format!(
            "what was staged for {} stands at its place already",
            target.dataset
        );
        return Err(StoreError::new(StoreKind::StalePlan, what)
            .hint("run `reseed preseed` again: it finishes the restore"));
    }
    match &said[1] {
        Said::Unclear(why) => {
            let what = format!("the state of the staging dataset {name} can't be told");
            return Err(StoreError::new(StoreKind::Io, what).said(why));
        }
        Said::Facts(facts) => {
            let record = ours(&name, target, facts)?;
            if record.quarantined.is_some() {
                super::settle::finish_quarantine(tool, cx, places, target, &name, &record).await?;
                return Box::pin(restore(tool, cx, places, target, (point, delivery), declared)).await;
            }
            if !record.is_for(point) {
                return Err(conflict(&name, &record, point));
            }
            if facts.resume_token.is_some() {
                staging.state = StageState::Partial;
                return Ok(staging);
            }
        }
        Said::NotThere => {
            list::pools_usable::<StoreKind>(tool, cx, [&target.dataset]).await?;
            if delivery == Delivery::Native {
                return Ok(staging);
            }
            make_parents(tool, cx, &name).await?;
            let fresh = fresh::fresh(tool, cx, target, declared).await?;
            let mut record = StageRecord::new(target.dataset.clone(), cx.run.clone(), point.clone());
            record.later = fresh.later.clone();
            let record = record.write()?;
            let properties = [("canmount", "noauto"), (argv::STAGE, record.as_str())];
            fresh
                .make(tool, cx, &name, &properties, Effect::StagingOnly)
                .await?;
        }
    }
    let mounted = work::mount::<StoreKind>(name.to_string(), path.clone(), false).await;
    mounted.map_err(|error| error.effect(Effect::StagingOnly))?;
    let what = format!("can't look into {path:?}");
    staging.state = work::blocking(&what.clone(), move || match mounts::look(&path, None) {
        Ok(Standing::EmptyDir) => Ok(StageState::Fresh),
        Ok(_) => Ok(StageState::Partial),
        Err(error) => Err(StoreError::io(what, &error).effect(Effect::StagingOnly)),
    })
    .await?;
    Ok(staging)
}

/// The record that a staging dataset begins with, as the property's value.
pub(crate) fn begun(target: &Target, cx: &Context, point: &RecoveryPoint) -> Result<String, StoreError> {
    StageRecord::new(target.dataset.clone(), cx.run.clone(), point.clone()).write()
}

/// The record on a dataset of a staging name, or why it is none of ours.
pub(crate) fn ours(name: &DatasetName, target: &Target, facts: &Facts) -> Result<StageRecord, StoreError> {
    StageRecord::of(facts)
        .filter(|record| record.dataset == target.dataset)
        .ok_or_else(|| {
            StoreError::new(
                StoreKind::StageConflict,
                format!("{name} is not a staging dataset of ours"),
            )
            .said(format!(
                "it has no property {} of its own for {}",
                argv::STAGE,
                target.dataset
            ))
            .hint(format!(
                "look at what is in it, and rename it: `zfs rename '{name}' …`"
            ))
        })
}

fn conflict(name: &DatasetName, record: &StageRecord, wanted: &RecoveryPoint) -> StoreError {
    let what = format!(
        "{name} is taken: run {} was restoring point {} of {} from {} into it",
        record.run, record.point.id, record.dataset, record.point.source
    );
    StoreError::new(StoreKind::StageConflict, what).hint(format!(
        "finish or discard that before restoring point {} from {}",
        wanted.id, wanted.source
    ))
}

/// Makes the datasets above one, unless they are there. They are only there to be a path (`canmount=off`): mounting
/// them could hide a directory that is in use.
pub(crate) async fn make_parents(tool: &Tool, cx: &Context, dataset: &DatasetName) -> Result<(), StoreError> {
    let above = above(dataset);
    if engine::surely_there(tool, cx, &above).await {
        return Ok(());
    }
    let said = list::facts::<StoreKind>(tool, cx, &above).await?;
    make_missing(tool, cx, dataset, &above, &said).await
}

/// The datasets above one, the pool first.
pub(crate) fn above(dataset: &DatasetName) -> Vec<DatasetName> {
    let mut above: Vec<DatasetName> = std::iter::successors(names::parent(dataset), names::parent).collect();
    above.reverse();
    above
}

/// Makes of the datasets [`above`] one those that are said not to be there.
pub(crate) async fn make_missing(
    tool: &Tool,
    cx: &Context,
    dataset: &DatasetName,
    above: &[DatasetName],
    said: &[Said],
) -> Result<(), StoreError> {
    let mut made = false;
    for (name, said) in above.iter().zip(said) {
        match said {
            Said::Facts(_) => {}
            Said::NotThere => {
                let what = format!("can't make {name}, the dataset above {dataset}");
                let args = argv::create(name, &[("canmount", "off")]);
                match tool.change::<StoreKind>(cx, args, what, Effect::Partial).await {
                    // Another dataset of the same run needs it too, and was quicker.
                    Err(error) if error.kind() == StoreKind::AlreadyExists => {}
                    done => {
                        done?;
                        made = true;
                    }
                }
            }
            Said::Unclear(why) => {
                let what = format!("whether {name} is there can't be told");
                let error = StoreError::new(StoreKind::Io, what).said(why);
                return Err(if made {
                    error.effect(Effect::Partial)
                } else {
                    error
                });
            }
        }
    }
    Ok(())
}
