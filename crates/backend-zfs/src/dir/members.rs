//! The snapshots in a dataset's directory: reading their records, holds, removing them.
//!
//! Promises that what is being made or removed is never listed, that a snapshot whose record is damaged is listed as
//! [`Member::record`]'s error instead of dropped, and that a snapshot goes out of the list before any of it is removed.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use jiff::Timestamp;
use reseed_core::error::Common;
use reseed_core::names::{DatasetName, Guid, HoldTag, SnapshotName};
use reseed_core::point::Snapshot;
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::records::{self, Found, SnapshotRecord};
use super::root::{Dataset, first_u64};
use super::sys::{self, Done, During, Fail, cstring, joined, shown};

pub(super) const META: &CStr = c"meta.json";
pub(super) const TREE: &CStr = c"tree";
pub(super) const INDEX: &CStr = c"index";
pub(super) const HOLDS: &CStr = c"holds";
/// Begins the name of what is being made.
pub(super) const NEW: &[u8] = b".new-";
/// Begins the name of what is being removed.
pub(super) const GONE: &[u8] = b".gone-";

/// A snapshot in a store.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) snapshot: Snapshot,
    /// The name of its directory.
    pub(super) dir: CString,
    /// Where that is.
    pub(super) path: PathBuf,
    /// Its record, unless that is damaged.
    pub(super) record: Result<SnapshotRecord, String>,
}

impl Member {
    /// Fails when its record is damaged.
    pub(super) fn intact(&self) -> Done<&SnapshotRecord> {
        self.record.as_ref().map_err(|why| {
            Fail::new(
                Common::Corrupt,
                format!(
                    "the record of snapshot {}@{} is damaged",
                    self.snapshot.dataset, self.snapshot.name
                ),
            )
            .said(why)
            .hint(format!(
                "its files are in {:?}; copy what you need from there by hand",
                self.path.join("tree")
            ))
        })
    }
}

/// The snapshots in a dataset's directory, oldest first.
pub(super) fn members(place: &Dataset, dataset: &DatasetName, pending: &HashSet<Guid>) -> Done<Vec<Member>> {
    let what = || format!("can't list the snapshots of {dataset} in {:?}", place.path);
    let mut found = Vec::new();
    for entry in sys::entries(&place.snapshots).during(what)? {
        if entry.name.to_bytes().starts_with(b".") {
            continue;
        }
        if let Some(member) = member(place, dataset, entry.name)? {
            let group = member.record.as_ref().ok().and_then(|record| record.group);
            if group.is_none_or(|group| !pending.contains(&group)) {
                found.push(member);
            }
        }
    }
    found.sort_by(|a, b| {
        let key = |m: &Member| (m.snapshot.taken_at, m.snapshot.name.clone(), m.snapshot.guid);
        key(a).cmp(&key(b))
    });
    Ok(found)
}

fn member(place: &Dataset, dataset: &DatasetName, dir: CString) -> Done<Option<Member>> {
    let what = || {
        format!(
            "can't read the record of {} in {:?}",
            shown(dir.to_bytes()),
            place.path
        )
    };
    let path = place.path.join("snapshots").join(dir.to_string_lossy().as_ref());
    let fd = match sys::open_dir(&place.snapshots, &dir) {
        Ok(fd) => fd,
        // Pruned since it was listed.
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            return Ok(Some(damaged(dataset, dir, path, "it is not a directory", 0)));
        }
        Err(error) => return Err(sys::os_fail(what(), error)),
    };
    let why = match records::read::<SnapshotRecord>(&fd, META).during(what)? {
        Found::There(record) if record.dataset != *dataset => format!("it is of {}", record.dataset),
        Found::There(record) => {
            let mut snapshot = record.snapshot();
            snapshot.holds = holds(&fd).during(what)?;
            return Ok(Some(Member {
                snapshot,
                dir,
                path,
                record: Ok(record),
            }));
        }
        Found::Missing => {
            // Renamed away between the two looks, or really without one.
            if sys::facts_at(&place.snapshots, &dir).is_err() {
                return Ok(None);
            }
            "it is missing".to_owned()
        }
        Found::Damaged(why) => why,
        Found::Newer(format) => format!("it is of format {format}"),
    };
    let ino = sys::facts_of_fd(&fd).during(what)?.ino;
    let holds = holds(&fd).during(what)?;
    let mut member = damaged(dataset, dir, path, &why, ino);
    member.snapshot.holds = holds;
    Ok(Some(member))
}

/// A snapshot whose record can't be read is listed as the oldest, under a guid of its own, and can't be restored or
/// pruned. Leaving it out would call the list complete; failing would take the others with it.
fn damaged(dataset: &DatasetName, dir: CString, path: PathBuf, why: &str, ino: u64) -> Member {
    let name = dir
        .to_str()
        .ok()
        .and_then(|text| SnapshotName::new(text.split('~').next().unwrap_or(text)).ok());
    let name = name.or_else(|| SnapshotName::new(format!("damaged-{ino}")).ok());
    let mut hasher = blake3::Hasher::new_derive_key("reseed directory store: guid of a damaged snapshot");
    hasher
        .update(dataset.as_str().as_bytes())
        .update(&[0])
        .update(dir.to_bytes())
        .update(&ino.to_le_bytes());
    let snapshot = Snapshot {
        dataset: dataset.clone(),
        name: name.unwrap_or_else(|| unreachable!("a number makes a name")),
        guid: first_u64(&hasher.finalize()),
        taken_at: Timestamp::UNIX_EPOCH,
        fingerprint: None,
        bytes: None,
        holds: Vec::new(),
        unseeded: false,
    };
    Member {
        snapshot,
        dir,
        path,
        record: Err(why.to_owned()),
    }
}

fn holds(snapshot: impl AsFd) -> Result<Vec<HoldTag>, Errno> {
    let dir = match sys::open_dir(snapshot, HOLDS) {
        Ok(dir) => dir,
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut tags: Vec<HoldTag> = sys::entries(dir)?
        .iter()
        .filter_map(|entry| HoldTag::new(entry.name.to_str().ok()?).ok())
        .collect();
    tags.sort();
    Ok(tags)
}

/// Adds a hold.
pub(super) fn add_hold(place: &Dataset, member: &Member, tag: &HoldTag) -> Done<()> {
    let what = || format!("can't hold {}@{}", member.snapshot.dataset, member.snapshot.name);
    let snapshot = sys::open_dir(&place.snapshots, &member.dir).during(what)?;
    let dir = sys::ensure_dir(&snapshot, HOLDS).during(what)?;
    match sys::create_file(&dir, &cstring(tag.as_str())) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(error) => return Err(sys::os_fail(what(), error)),
    }
    rustix::fs::fsync(&dir).during(what)?;
    rustix::fs::fsync(&snapshot).during(what)
}

/// Takes a hold away.
pub(super) fn release_hold(place: &Dataset, member: &Member, tag: &HoldTag) -> Done<()> {
    let what = || {
        format!(
            "can't release {}@{}",
            member.snapshot.dataset, member.snapshot.name
        )
    };
    let snapshot = sys::open_dir(&place.snapshots, &member.dir).during(what)?;
    let dir = match sys::open_dir(&snapshot, HOLDS) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened.during(what)?,
    };
    match rustix::fs::unlinkat(&dir, cstring(tag.as_str()).as_c_str(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => rustix::fs::fsync(&dir).during(what),
        Err(error) => Err(sys::os_fail(what(), error)),
    }
}

/// Opens a snapshot's tree.
pub(super) fn open_tree(place: &Dataset, member: &Member) -> Done<OwnedFd> {
    let what = || {
        format!(
            "can't open the tree of {}@{}",
            member.snapshot.dataset, member.snapshot.name
        )
    };
    let snapshot = sys::open_dir(&place.snapshots, &member.dir).during(what)?;
    match sys::open_dir(&snapshot, TREE) {
        Err(error @ (Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => Err(Fail::new(Common::Corrupt, what())
            .said(error)
            .hint("the snapshot has lost its files; use another")),
        opened => opened.during(what),
    }
}

/// Removes what earlier runs left half made or half removed. The dataset's lock must be held.
pub(super) fn sweep(job: &super::job::Job, place: &Dataset, keep: Option<&CStr>) -> Done<()> {
    let what = || format!("can't list {:?}", place.path);
    for entry in sys::entries(&place.snapshots).during(what)? {
        let name = entry.name.to_bytes();
        let ours = name.starts_with(NEW) || name.starts_with(GONE);
        if ours && keep != Some(entry.name.as_c_str()) {
            super::remove::remove(job, &place.snapshots, &entry.name)?;
        }
    }
    Ok(())
}

/// Takes a snapshot's directory out of the list, then removes it.
pub(super) fn remove_member(job: &super::job::Job, place: &Dataset, dir: &CStr) -> Done<()> {
    let what = || format!("can't remove {} from {:?}", shown(dir.to_bytes()), place.path);
    let gone = joined(GONE, dir.to_bytes());
    super::remove::remove(job, &place.snapshots, &gone)?;
    sys::rename_dir(&place.snapshots, dir, &place.snapshots, &gone).during(what)?;
    rustix::fs::fsync(&place.snapshots).during(what)?;
    job.step("renamed a snapshot out of the list");
    match super::remove::remove(job, &place.snapshots, &gone) {
        // It is gone for everybody; the next run that has the lock sweeps up the rest.
        Err(fail) if fail.kind() == Common::Cancelled => Ok(()),
        result => result,
    }
}
