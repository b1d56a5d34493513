//! The last step of a preseed (S11 to S13): promoting, quarantining, discarding, marking.
//!
//! The rename itself is in [`promote`](super::promote). What stood at the target is renamed aside, also when it is empty.
//!
//! The staged tree's guid is in the staging record, so that a run that comes after a crash knows whether the tree is
//! still staged or stands at the target. The staging directory goes last.

use std::ffi::CString;
use std::path::Path;

use reseed_core::error::{Effect, StoreError, StoreKind};
use reseed_core::names::Guid;
use reseed_core::point::{Marker, MarkerState, Target};
use reseed_core::store::{Leftover, Replace, Settle, Settled, StageState, Staging};
use rustix::fs::Mode;
use rustix::io::Errno;

use super::create::note_place;
use super::errors::Outward;
use super::inspect;
use super::job::Job;
use super::members::TREE;
use super::place::{self, Place, Standing};
use super::promote::{free_aside, is_aside, populated, put_in_place};
use super::records::{self, Found, MarkerRecord, StageRecord};
use super::remove::remove;
use super::root::{self, Root};
use super::staging::{RECORD, Stage};
use super::sys::{self, During};

/// Ends a preseed.
pub(super) fn settle(job: &Job, root: &Path, request: &Settle) -> Result<Settled, StoreError> {
    let open = || root::open(root).map_err(|no| no.into(StoreKind::PoolUnavailable));
    match request {
        Settle::Promote {
            staging,
            replace,
            marker,
        } => promote(job, &open()?, staging, *replace, marker),
        Settle::Finish {
            target,
            leftover,
            marker,
        } => finish_leftover(job, &open()?, target, leftover, marker),
        Settle::Quarantine { staging, why } => quarantine(job, staging, why),
        Settle::Discard { staging } if staging.state == StageState::Exposed => Ok(Settled::default()),
        Settle::Discard { staging } => discard(job, &Place::of(&staging.target).store()?),
        Settle::DiscardLeftover { target, leftover } => discard_leftover(job, target, leftover),
        Settle::StartEmpty { target, marker } => start_empty(&open()?, target, marker),
        Settle::Mark { target, guid, marker } => mark(&open()?, target, *guid, marker),
    }
}

pub(super) fn stale(what: impl Into<String>) -> StoreError {
    StoreError::new(StoreKind::StalePlan, what)
}

pub(super) fn look(place: &Place) -> Result<Standing, StoreError> {
    place::standing(&place.path)
        .during(|| format!("can't look at {:?}", place.path))
        .store()
}

pub(super) fn occupied(place: &Place, by: &str) -> StoreError {
    StoreError::new(StoreKind::Occupied, format!("{:?} is {by}", place.path))
        .hint("move it away; a restore never removes it")
}

/// The guid of the directory at a target.
pub(super) fn standing_guid(standing: &Standing) -> Option<Guid> {
    match standing {
        Standing::Empty(facts) | Standing::Populated(facts) => Some(place::guid(facts)),
        Standing::Nothing | Standing::Other(_) => None,
    }
}

/// Whether the same request was carried out to its end: the marker counts for what stands there.
fn already(root: &Root, target: &Target, standing: &Standing, marker: &Marker) -> Option<Settled> {
    let guid = standing_guid(standing)?;
    let written = inspect::marker(root, &target.dataset)?;
    (written.guid == guid && written.marker == *marker).then(|| Settled {
        guid: Some(guid),
        ..Settled::default()
    })
}

fn promote(
    job: &Job,
    root: &Root,
    staging: &Staging,
    replace: Replace,
    marker: &Marker,
) -> Result<Settled, StoreError> {
    let target = &staging.target;
    let place = Place::of(target).store()?;
    let stage = match staged(&place)? {
        Some(stage) => stage,
        None => {
            return already(root, target, &look(&place)?, marker)
                .ok_or_else(|| stale(format!("nothing is staged for {}", target.dataset)));
        }
    };
    if staging.path != place.sibling(&place.staging()).join("tree") {
        let what = format!("{:?} is not where {} is staged", staging.path, target.dataset);
        return Err(StoreError::new(StoreKind::InvalidInput, what));
    }
    let (stage, record) = stage;
    fits(target, &record, marker)?;
    if record.quarantined.is_some() {
        return Err(stale(format!(
            "what was staged for {} was quarantined",
            target.dataset
        )));
    }
    if tree_is_staged(&place, &stage, &record)? {
        put_in_place(job, &place, &stage, &record, replace)?;
    }
    finish(job, root, target, &place, &stage, &record, marker)
}

/// The staging directory and its record; none when there is nothing that was ever filled.
fn staged(place: &Place) -> Result<Option<(Stage, StageRecord)>, StoreError> {
    let Some(mut stage) = Stage::open(place)? else {
        return Ok(None);
    };
    match std::mem::replace(&mut stage.record, Found::Missing) {
        Found::There(record) => Ok(Some((stage, record))),
        Found::Missing => Ok(None),
        Found::Damaged(why) => Err(StoreError::new(
            StoreKind::Corrupt,
            format!("the record of what is staged beside {:?} is damaged", place.path),
        )
        .said(why)
        .hint("look at what is in the staging directory, and move it away")),
        Found::Newer(format) => Err(StoreError::new(
            StoreKind::Unsupported,
            format!(
                "the staging directory beside {:?} is of format {format}",
                place.path
            ),
        )
        .hint("use the reseed that made it, or a later one")),
    }
}

fn fits(target: &Target, record: &StageRecord, marker: &Marker) -> Result<(), StoreError> {
    let other = match &marker.state {
        MarkerState::Restored { source, point, .. } => source != record.source() || *point != record.point.id,
        _ => false,
    };
    if other || record.dataset != target.dataset {
        return Err(stale(format!(
            "what is staged is point {} of {} from {}, not what the request says",
            record.point.id,
            record.dataset,
            record.source()
        )));
    }
    Ok(())
}

/// Whether the tree in the staging directory is the staged one, rather than what it was exchanged for.
fn tree_is_staged(place: &Place, stage: &Stage, record: &StageRecord) -> Result<bool, StoreError> {
    match sys::facts_at(&stage.fd, TREE) {
        Ok(facts) => Ok(place::guid(&facts) == record.tree),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error)
            .during(|| format!("can't look at what is staged beside {:?}", place.path))
            .store(),
    }
}

/// Everything after the rename. Each step is repeated without harm.
fn finish(
    job: &Job,
    root: &Root,
    target: &Target,
    place: &Place,
    stage: &Stage,
    record: &StageRecord,
    marker: &Marker,
) -> Result<Settled, StoreError> {
    let standing = look(place)?;
    if standing_guid(&standing) != Some(record.tree) {
        return Err(stale(format!(
            "{:?} is not what was staged for {}",
            place.path, target.dataset
        )));
    }
    let partly = |error: StoreError| error.effect(Effect::Partial);
    let what = || {
        format!(
            "the data stands at {:?}, and what comes after could not be finished",
            place.path
        )
    };
    rustix::fs::fsync(&stage.parent)
        .during(what)
        .store()
        .map_err(partly)?;
    job.step("renamed the staged tree into place");
    let mut set_aside = match sys::facts_at(&stage.fd, TREE) {
        Ok(_) => Some(put_aside(place, stage, record).map_err(partly)?),
        Err(_) => None,
    };
    if set_aside.is_none() && is_aside(place, stage, record) {
        set_aside = Some(place.aside(record.run.as_str()));
    }
    job.step("put what stood there aside");
    write_marker(root, target, place, record.tree, marker).map_err(partly)?;
    job.step("wrote the marker");
    throw_away(job, place, stage).map_err(partly)?;
    Ok(Settled {
        set_aside: set_aside.map(|name| shown_path(place, &name)),
        quarantined: None,
        guid: Some(record.tree),
    })
}

pub(super) fn shown_path(place: &Place, name: &CString) -> String {
    place.sibling(name).to_string_lossy().into_owned()
}

/// Renames what came out of an exchange aside.
fn put_aside(place: &Place, stage: &Stage, record: &StageRecord) -> Result<CString, StoreError> {
    let name = free_aside(place, &stage.parent, &record.run)?;
    let what = || format!("can't rename what stood at {:?} aside", place.path);
    sys::rename_dir(&stage.fd, TREE, &stage.parent, &name)
        .during(what)
        .store()?;
    rustix::fs::fsync(&stage.parent).during(what).store()?;
    Ok(name)
}

fn write_marker(
    root: &Root,
    target: &Target,
    place: &Place,
    guid: Guid,
    marker: &Marker,
) -> Result<(), StoreError> {
    let dataset = root.ensure_dataset(&target.dataset).store()?;
    note_place(root, &dataset, place, marker.state == MarkerState::Adopted).store()?;
    records::write(
        &dataset.fd,
        c"marker.json",
        &MarkerRecord {
            guid,
            marker: marker.clone(),
        },
    )
    .store()
}

/// Removes the staging directory. It goes out of sight first.
fn throw_away(job: &Job, place: &Place, stage: &Stage) -> Result<(), StoreError> {
    let what = || format!("can't remove the staging directory beside {:?}", place.path);
    let job = job.cleaning_up();
    let trash = place.trash();
    remove(&job, &stage.parent, &trash).store()?;
    match sys::rename_dir(&stage.parent, &place.staging(), &stage.parent, &trash) {
        Ok(()) => {}
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error).during(what).store(),
    }
    rustix::fs::fsync(&stage.parent).during(what).store()?;
    job.step("renamed the staging directory out of the way");
    remove(&job, &stage.parent, &trash).store()
}

fn finish_leftover(
    job: &Job,
    root: &Root,
    target: &Target,
    leftover: &Leftover,
    marker: &Marker,
) -> Result<Settled, StoreError> {
    let place = Place::of(target).store()?;
    let Some((stage, record)) = staged(&place)? else {
        return already(root, target, &look(&place)?, marker)
            .ok_or_else(|| stale(format!("there is no promotion of {} to finish", target.dataset)));
    };
    same_leftover(target, &record, leftover)?;
    fits(target, &record, marker)?;
    if record.quarantined.is_some() || tree_is_staged(&place, &stage, &record)? {
        return Err(stale(format!(
            "what is staged for {} was not promoted",
            target.dataset
        )));
    }
    finish(job, root, target, &place, &stage, &record, marker)
}

fn same_leftover(target: &Target, record: &StageRecord, leftover: &Leftover) -> Result<(), StoreError> {
    let same = record.dataset == target.dataset
        && record.point.id == leftover.point.id
        && *record.source() == leftover.source
        && record.run == leftover.run;
    if same {
        return Ok(());
    }
    Err(stale(format!(
        "what is staged for {} is point {} from {}, not what was seen before",
        target.dataset,
        record.point.id,
        record.source()
    )))
}

fn quarantine(job: &Job, staging: &Staging, why: &str) -> Result<Settled, StoreError> {
    let place = Place::of(&staging.target).store()?;
    let Some((stage, mut record)) = staged(&place)? else {
        return Err(stale(format!("nothing is staged for {}", staging.target.dataset)));
    };
    if record.dataset != staging.target.dataset || !tree_is_staged(&place, &stage, &record)? {
        return Err(stale(format!(
            "what was staged for {} is not there any more",
            staging.target.dataset
        )));
    }
    if record.quarantined.is_none() {
        record.quarantined = Some(why.to_owned());
        records::write(&stage.fd, RECORD, &record).store()?;
    }
    job.step("noted why it is quarantined");
    let name = finish_quarantine(job, &place, &stage, &record)?;
    let path = place.sibling(&name).join("tree");
    Ok(Settled {
        quarantined: Some(path.to_string_lossy().into_owned()),
        ..Settled::default()
    })
}

/// Renames a staging directory whose record says so to its quarantine, instead of the one that is there.
pub(super) fn finish_quarantine(
    job: &Job,
    place: &Place,
    stage: &Stage,
    record: &StageRecord,
) -> Result<CString, StoreError> {
    let what = || format!("can't quarantine what is staged beside {:?}", place.path);
    let job = job.cleaning_up();
    let (name, trash) = (place.quarantine(record.source().as_str()), place.trash());
    remove(&job, &stage.parent, &trash).store()?;
    match sys::rename_dir(&stage.parent, &name, &stage.parent, &trash) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error).during(what).store(),
    }
    job.step("renamed the older quarantine out of the way");
    sys::rename_dir(&stage.parent, &place.staging(), &stage.parent, &name)
        .during(what)
        .store()?;
    rustix::fs::fsync(&stage.parent).during(what).store()?;
    job.step("renamed to quarantine");
    remove(&job, &stage.parent, &trash).store()?;
    Ok(name)
}

/// Removes what was staged. What an exchange has left in its place is not ours to delete, and is put aside.
fn discard(job: &Job, place: &Place) -> Result<Settled, StoreError> {
    let Some(stage) = Stage::open(place)? else {
        return Ok(Settled::default());
    };
    let mut set_aside = None;
    if let Found::There(record) = &stage.record {
        let exchanged = sys::facts_at(&stage.fd, TREE).is_ok_and(|facts| place::guid(&facts) != record.tree);
        if exchanged {
            set_aside = Some(put_aside(place, &stage, record)?);
        }
    }
    throw_away(job, place, &stage)?;
    Ok(Settled {
        set_aside: set_aside.map(|name| shown_path(place, &name)),
        ..Settled::default()
    })
}

fn discard_leftover(job: &Job, target: &Target, leftover: &Leftover) -> Result<Settled, StoreError> {
    let place = Place::of(target).store()?;
    match staged(&place)? {
        Some((_, record)) => same_leftover(target, &record, leftover)?,
        None => return Ok(Settled::default()),
    }
    discard(job, &place)
}

fn start_empty(root: &Root, target: &Target, marker: &Marker) -> Result<Settled, StoreError> {
    let place = Place::of(target).store()?;
    let standing = look(&place)?;
    let guid = match &standing {
        Standing::Other(by) => return Err(occupied(&place, by)),
        Standing::Populated(_) => {
            return already(root, target, &standing, marker).ok_or_else(|| populated(&place));
        }
        Standing::Empty(facts) => place::guid(facts),
        Standing::Nothing => {
            let what = || format!("can't make the directory {:?}", place.path);
            root::make_parents(&place.parent).store()?;
            let parent = place.open_parent().during(what).store()?;
            let mode = Mode::from_raw_mode(0o755);
            rustix::fs::mkdirat(&parent, place.leaf.as_c_str(), mode)
                .during(what)
                .store()?;
            rustix::fs::fsync(&parent).during(what).store()?;
            place::guid(&sys::facts_at(&parent, &place.leaf).during(what).store()?)
        }
    };
    write_marker(root, target, &place, guid, marker)?;
    Ok(Settled {
        guid: Some(guid),
        ..Settled::default()
    })
}

fn mark(root: &Root, target: &Target, guid: Guid, marker: &Marker) -> Result<Settled, StoreError> {
    let place = Place::of(target).store()?;
    if standing_guid(&look(&place)?) != Some(guid) {
        return Err(stale(format!(
            "{:?} is another directory than the one that was to be marked",
            place.path
        )));
    }
    write_marker(root, target, &place, guid, marker)?;
    Ok(Settled {
        guid: Some(guid),
        ..Settled::default()
    })
}
