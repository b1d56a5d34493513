//! Places to restore into (S10), beside the target, because only a rename on one filesystem is atomic.
//!
//! A staging directory is made before its record, and filled after it: one without a record is an interrupted making
//! and is taken up, one whose record doesn't fit is left alone. Missing directories above the target are made (0755),
//! since nothing can be staged beside a target whose parent isn't there; [`inspect`](super::inspect) has made sure that
//! a missing parent isn't a disk that isn't mounted.

use std::os::fd::OwnedFd;
use std::path::Path;

use reseed_core::error::{StoreError, StoreKind};
use reseed_core::names::SourceName;
use reseed_core::point::{RecoveryPoint, SnapshotRef, Target};
use reseed_core::store::{Delivery, StagePurpose, StageRequest, StageState, Staging};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::attrs;
use super::errors::Outward;
use super::job::Job;
use super::members::TREE;
use super::place::{self, Place, Standing};
use super::records::{self, Found, StageRecord};
use super::root::{self};
use super::settle;
use super::sys::{self, During};

pub(super) const RECORD: &std::ffi::CStr = c"stage.json";

/// A staging directory that is there.
pub(super) struct Stage {
    /// The directory above it and the target.
    pub(super) parent: OwnedFd,
    pub(super) fd: OwnedFd,
    pub(super) record: Found<StageRecord>,
}

impl Stage {
    /// Opens a target's staging directory, if there is one.
    pub(super) fn open(place: &Place) -> Result<Option<Self>, StoreError> {
        let what = || format!("can't open the staging directory beside {:?}", place.path);
        let parent = match place.open_parent() {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            opened => opened.during(what).store()?,
        };
        let fd = match sys::open_dir(&parent, &place.staging()) {
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(foreign(place, "it is not a directory")),
            opened => opened.during(what).store()?,
        };
        let record = records::read(&fd, RECORD).during(what).store()?;
        Ok(Some(Self { parent, fd, record }))
    }
}

fn staging_path(place: &Place) -> std::path::PathBuf {
    place.sibling(&place.staging())
}

fn foreign(place: &Place, why: &str) -> StoreError {
    StoreError::new(
        StoreKind::StageConflict,
        format!("{:?} is not a staging directory of ours", staging_path(place)),
    )
    .said(why)
    .hint("look at what is in it, and move it away")
}

/// Makes, opens or exposes.
pub(super) fn stage(job: &Job, root: &Path, request: &StageRequest) -> Result<Staging, StoreError> {
    match &request.purpose {
        StagePurpose::Restore {
            delivery: Delivery::Native,
            ..
        } => Err(StoreError::new(
            StoreKind::Unsupported,
            "a directory store has no stream of its own to receive",
        )),
        StagePurpose::Restore {
            point,
            delivery: Delivery::Files,
        } => restore(job, root, &request.target, point),
        StagePurpose::Expose { snapshot } => expose(root, &request.target, snapshot),
    }
}

/// The snapshot's own tree: nothing is mounted or copied.
fn expose(root: &Path, target: &Target, wanted: &SnapshotRef) -> Result<Staging, StoreError> {
    let root = root::open(root).map_err(|no| no.into(StoreKind::PoolUnavailable))?;
    let missing = || {
        StoreError::new(
            StoreKind::NotFound,
            format!("there is no snapshot {}@{}", wanted.dataset, wanted.name),
        )
    };
    if wanted.dataset != target.dataset {
        return Err(StoreError::new(
            StoreKind::InvalidInput,
            format!(
                "{}@{} is no snapshot of {}",
                wanted.dataset, wanted.name, target.dataset
            ),
        ));
    }
    let members = root.members(&wanted.dataset).store()?;
    let member = members
        .iter()
        .find(|member| member.snapshot.reference() == *wanted)
        .ok_or_else(missing)?;
    member.intact().store()?;
    Ok(Staging {
        target: target.clone(),
        path: member.path.join("tree"),
        locator: format!("{}@{}", wanted.dataset, wanted.name),
        state: StageState::Exposed,
    })
}

fn restore(job: &Job, root: &Path, target: &Target, point: &RecoveryPoint) -> Result<Staging, StoreError> {
    // The marker goes there in the end: without it the restore could not be finished.
    root::open(root).map_err(|no| no.into(StoreKind::PoolUnavailable))?;
    let place = Place::of(target).store()?;
    can_be_replaced(&place)?;
    root::make_parents(&place.parent).store()?;
    let state = match Stage::open(&place)? {
        None => make(job, &place, target, point)?,
        Some(stage) => take_up(job, &place, target, point, &stage)?,
    };
    let path = staging_path(&place);
    Ok(Staging {
        target: target.clone(),
        path: path.join("tree"),
        locator: path.to_string_lossy().into_owned(),
        state,
    })
}

/// Fails early for what no rename could replace.
fn can_be_replaced(place: &Place) -> Result<(), StoreError> {
    let what = || format!("can't look at {:?}", place.path);
    let facts = match place::standing(&place.path).during(what).store()? {
        Standing::Nothing => return Ok(()),
        Standing::Other(by) => {
            let what = format!("{:?} is {by}", place.path);
            return Err(
                StoreError::new(StoreKind::Occupied, what).hint("move it away; a restore never removes it")
            );
        }
        Standing::Empty(facts) | Standing::Populated(facts) => facts,
    };
    let parent = place
        .open_parent()
        .and_then(sys::facts_of_fd)
        .during(what)
        .store()?;
    if facts.mount_root || !facts.same_mount(&parent) {
        return Err(mount_point(place));
    }
    Ok(())
}

/// A mountpoint can't be renamed, and what is beside it is on another filesystem.
pub(super) fn mount_point(place: &Place) -> StoreError {
    StoreError::new(
        StoreKind::Unsupported,
        format!(
            "a filesystem is mounted on {:?}, so it can't be replaced by a rename",
            place.path
        ),
    )
    .hint("let the service use a directory inside of that filesystem, and declare that one")
}

fn make(job: &Job, place: &Place, target: &Target, point: &RecoveryPoint) -> Result<StageState, StoreError> {
    let what = || format!("can't make the staging directory beside {:?}", place.path);
    let parent = place.open_parent().during(what).store()?;
    let fd = sys::ensure_dir(&parent, &place.staging()).during(what).store()?;
    attrs::disinherit(&fd).during(what).store()?;
    job.step("made the staging directory");
    begin(
        job,
        place,
        target,
        point,
        &Stage {
            parent,
            fd,
            record: Found::Missing,
        },
    )
}

/// Makes the tree and the record in a staging directory that has none.
fn begin(
    job: &Job,
    place: &Place,
    target: &Target,
    point: &RecoveryPoint,
    stage: &Stage,
) -> Result<StageState, StoreError> {
    let what = || format!("can't make the staging directory beside {:?}", place.path);
    let tree = sys::ensure_dir(&stage.fd, TREE).during(what).store()?;
    attrs::disinherit(&tree).during(what).store()?;
    job.step("made the staged tree");
    let record = StageRecord {
        dataset: target.dataset.clone(),
        run: job.cx.run.clone(),
        point: point.clone(),
        tree: place::guid(&sys::facts_of_fd(&tree).during(what).store()?),
        quarantined: None,
    };
    records::write(&stage.fd, RECORD, &record).store()?;
    rustix::fs::fsync(&stage.parent).during(what).store()?;
    Ok(StageState::Fresh)
}

fn take_up(
    job: &Job,
    place: &Place,
    target: &Target,
    point: &RecoveryPoint,
    stage: &Stage,
) -> Result<StageState, StoreError> {
    let what = || format!("can't open the staging directory beside {:?}", place.path);
    let record = match &stage.record {
        Found::There(record) => record,
        Found::Missing => {
            interrupted_making(place, stage)?;
            return begin(job, place, target, point, stage);
        }
        Found::Damaged(why) => return Err(foreign(place, why)),
        Found::Newer(format) => {
            let what = format!(
                "the staging directory beside {:?} is of format {format}",
                place.path
            );
            return Err(StoreError::new(StoreKind::Unsupported, what)
                .hint("use the reseed that made it, or a later one"));
        }
    };
    if record.quarantined.is_some() && record.dataset == target.dataset {
        settle::finish_quarantine(job, place, stage, record)?;
        return make(job, place, target, point);
    }
    if record.dataset != target.dataset || record.point.id != point.id || record.source() != &point.source {
        return Err(conflict(place, record, &point.source));
    }
    match sys::open_dir(&stage.fd, TREE) {
        Ok(tree) if place::guid(&sys::facts_of_fd(&tree).during(what).store()?) == record.tree => {
            let empty = sys::entries(&tree).during(what).store()?.is_empty();
            Ok(if empty {
                StageState::Fresh
            } else {
                StageState::Partial
            })
        }
        Ok(_) | Err(Errno::NOENT) => Err(StoreError::new(
            StoreKind::StalePlan,
            format!(
                "what was staged for {} stands at its place already",
                target.dataset
            ),
        )
        .hint("run `reseed preseed` again: it finishes the restore")),
        Err(error) => Err(error).during(what).store(),
    }
}

fn conflict(place: &Place, record: &StageRecord, wanted: &SourceName) -> StoreError {
    StoreError::new(
        StoreKind::StageConflict,
        format!(
            "the staging directory beside {:?} is taken: run {} was restoring point {} of {} from {} into it",
            place.path,
            record.run,
            record.point.id,
            record.dataset,
            record.source(),
        ),
    )
    .hint(format!("finish or discard that before restoring from {wanted}"))
}

/// Nothing but what is there between making the directory and writing its record.
fn interrupted_making(place: &Place, stage: &Stage) -> Result<(), StoreError> {
    let what = || format!("can't look into the staging directory beside {:?}", place.path);
    for entry in sys::entries(&stage.fd).during(what).store()? {
        let ours = match entry.name.to_bytes() {
            b".new-stage.json" => true,
            b"tree" => {
                let facts = sys::facts_at(&stage.fd, TREE).during(what).store()?;
                facts.kind == FileType::Directory
                    && sys::open_dir(&stage.fd, TREE)
                        .and_then(sys::entries)
                        .during(what)
                        .store()?
                        .is_empty()
            }
            _ => false,
        };
        if !ours {
            return Err(foreign(place, "it has no record and is not empty"));
        }
    }
    Ok(())
}
