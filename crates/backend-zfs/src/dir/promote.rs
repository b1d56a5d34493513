//! The rename that makes a staged tree the target's data (S11), and how it is taken back.
//!
//! One `renameat2`: `RENAME_NOREPLACE` onto nothing, `RENAME_EXCHANGE` with what stands there. What came out of an
//! exchange is looked at again, and exchanged back if a service has written to it meanwhile. Where the filesystem has
//! no exchange, what stands there is renamed aside first: for a moment nothing is there, and nothing is lost.

use std::ffi::CString;
use std::os::fd::AsFd;

use reseed_core::error::{Effect, StoreError};
use reseed_core::names::{Guid, RunId};
use reseed_core::store::Replace;
use rustix::fs::RenameFlags;
use rustix::io::Errno;

use super::errors::Outward;
use super::job::Job;
use super::members::TREE;
use super::place::{self, Place, Standing};
use super::records::StageRecord;
use super::settle::{look, occupied, stale, standing_guid};
use super::staging::{self, Stage};
use super::sys::{self, During};

/// Renames the staged tree to the target.
pub(super) fn put_in_place(
    job: &Job,
    place: &Place,
    stage: &Stage,
    record: &StageRecord,
    replace: Replace,
) -> Result<(), StoreError> {
    let standing = look(place)?;
    let there = standing_guid(&standing);
    match (&standing, replace) {
        (Standing::Other(by), _) => return Err(occupied(place, by)),
        (Standing::Populated(_), Replace::OnlyEmpty) => return Err(populated(place)),
        (Standing::Empty(_) | Standing::Populated(_), Replace::SetAside { guid }) if there != Some(guid) => {
            return Err(stale(format!(
                "{:?} is another directory than the one that was to be set aside",
                place.path
            )));
        }
        (Standing::Nothing, Replace::SetAside { .. }) if !is_aside(place, stage, record) => {
            return Err(stale(format!(
                "{:?}, which was to be set aside, is gone",
                place.path
            )));
        }
        _ => {}
    }
    let what = || format!("can't put the staged tree at {:?}", place.path);
    // What is renamed into place is on disk: a crash must not leave a tree of empty files there.
    rustix::fs::syncfs(&stage.fd).during(what).store()?;
    job.check().store()?;
    job.step("synced the staged tree");
    if there.is_none() {
        return match sys::rename_dir(&stage.fd, TREE, &stage.parent, &place.leaf) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST | Errno::NOTEMPTY) => {
                Err(stale(format!("something has come to stand at {:?}", place.path)))
            }
            Err(error) => Err(error).during(what).store(),
        };
    }
    let exchanged = match job.has_exchange() {
        true => rustix::fs::renameat_with(
            &stage.fd,
            TREE,
            &stage.parent,
            place.leaf.as_c_str(),
            RenameFlags::EXCHANGE,
        ),
        false => Err(Errno::INVAL),
    };
    match exchanged {
        Ok(()) => {}
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            return without_exchange(job, place, stage, record, replace);
        }
        Err(Errno::BUSY | Errno::XDEV) => return Err(staging::mount_point(place)),
        Err(Errno::NOENT) => return Err(stale(format!("{:?} went away", place.path))),
        Err(error) => return Err(error).during(what).store(),
    }
    job.step("exchanged the staged tree with what stood there");
    if came_out_right(stage, there, replace) {
        return Ok(());
    }
    // Somebody wrote to it, or put another directory there, between the look and the exchange.
    match rustix::fs::renameat_with(
        &stage.fd,
        TREE,
        &stage.parent,
        place.leaf.as_c_str(),
        RenameFlags::EXCHANGE,
    ) {
        Ok(()) => Err(populated(place)),
        Err(error) => Err(sys::os_fail(
            format!(
                "{:?} was written to while it was being replaced, and can't be put back",
                place.path
            ),
            error,
        ))
        .store()
        .map_err(|error: StoreError| {
            error.effect(Effect::Partial).hint(format!(
                "its data is in {:?}",
                place.sibling(&place.staging()).join("tree")
            ))
        }),
    }
}

pub(super) fn populated(place: &Place) -> StoreError {
    stale(format!(
        "data has come to stand at {:?}; it is left alone",
        place.path
    ))
}

/// Whether what was exchanged is what was looked at, and still empty if it was to be.
fn came_out_right(stage: &Stage, expected: Option<Guid>, replace: Replace) -> bool {
    let Ok(out) = sys::open_dir(&stage.fd, TREE) else {
        return false;
    };
    let same = sys::facts_of_fd(&out).is_ok_and(|facts| Some(place::guid(&facts)) == expected);
    same && (replace != Replace::OnlyEmpty || sys::is_empty(&out).unwrap_or(false))
}

fn without_exchange(
    job: &Job,
    place: &Place,
    stage: &Stage,
    record: &StageRecord,
    replace: Replace,
) -> Result<(), StoreError> {
    let what = || format!("can't put the staged tree at {:?}", place.path);
    let aside = free_aside(place, &stage.parent, &record.run)?;
    match sys::rename_dir(&stage.parent, &place.leaf, &stage.parent, &aside) {
        Err(Errno::BUSY | Errno::XDEV) => return Err(staging::mount_point(place)),
        renamed => renamed.during(what).store()?,
    }
    job.step("renamed what stood there aside");
    let back = |error: StoreError| match sys::rename_dir(&stage.parent, &aside, &stage.parent, &place.leaf) {
        Ok(()) => error,
        Err(_) => error
            .effect(Effect::Partial)
            .hint(format!("what stood there is in {:?}", place.sibling(&aside))),
    };
    let empty = sys::open_dir(&stage.parent, &aside)
        .and_then(sys::is_empty)
        .unwrap_or(false);
    if replace == Replace::OnlyEmpty && !empty {
        return Err(back(populated(place)));
    }
    sys::rename_dir(&stage.fd, TREE, &stage.parent, &place.leaf)
        .during(what)
        .store()
        .map_err(back)
}

/// The first free name to rename something aside to.
pub(super) fn free_aside(place: &Place, parent: impl AsFd, run: &RunId) -> Result<CString, StoreError> {
    let mut at = 1;
    loop {
        let run = if at == 1 {
            run.to_string()
        } else {
            format!("{run}-{at}")
        };
        let name = place.aside(&run);
        match sys::facts_at(&parent, &name) {
            Err(Errno::NOENT) => return Ok(name),
            Ok(_) => at += 1,
            Err(error) => {
                return Err(error)
                    .during(|| format!("can't look beside {:?}", place.path))
                    .store();
            }
        }
    }
}

/// Whether this run has already renamed something aside: a crash between the two renames of a filesystem that has no
/// exchange.
pub(super) fn is_aside(place: &Place, stage: &Stage, record: &StageRecord) -> bool {
    sys::facts_at(&stage.parent, &place.aside(record.run.as_str())).is_ok()
}
