//! What stands at each target (S1 to S3), in a handful of system calls each.
//!
//! "Nothing is there" is said only when the store is at hand and the filesystem that held the directory is mounted
//! where it was: otherwise the data is probably on a disk that isn't there yet.

use std::ffi::CStr;
use std::path::Path;

use reseed_core::error::StoreError;
use reseed_core::names::{DatasetName, Guid};
use reseed_core::point::Target;
use reseed_core::store::{Condition, Inspection, Leftover};
use rustix::fs::CWD;

use super::job::Job;
use super::place::{self, Place, Standing};
use super::records::{self, Found, MarkerRecord, PlaceRecord, StageRecord};
use super::root::{self, NoRoot, Root};
use super::sys::joined;

/// Judges every target.
pub(super) fn inspect(job: &Job, root: &Path, targets: &[Target]) -> Result<Vec<Inspection>, StoreError> {
    let root = root::open(root);
    let mut all = Vec::with_capacity(targets.len());
    for target in targets {
        job.check()
            .map_err(|fail| fail.convert(reseed_core::error::StoreKind::Cancelled))?;
        all.push(one(&root, target));
    }
    Ok(all)
}

fn one(root: &Result<Root, NoRoot>, target: &Target) -> Inspection {
    let mut answer = Inspection {
        target: target.clone(),
        condition: Condition::Absent,
        guid: None,
        marker: None,
        leftover: None,
    };
    let place = match Place::of(target) {
        Ok(place) => place,
        Err(fail) => {
            answer.condition = Condition::Unknown {
                why: fail.to_string(),
            };
            return answer;
        }
    };
    let facts = match place::standing(&place.path) {
        Ok(Standing::Nothing) => None,
        Ok(Standing::Empty(facts)) => {
            answer.condition = Condition::Empty;
            Some(facts)
        }
        Ok(Standing::Populated(facts)) => {
            answer.condition = Condition::Populated;
            Some(facts)
        }
        Ok(Standing::Other(by)) => {
            answer.condition = Condition::Occupied { by };
            None
        }
        Err(error) => {
            answer.condition = Condition::Unknown {
                why: format!("can't look at {:?}: {error}", place.path),
            };
            return answer;
        }
    };
    answer.guid = facts.as_ref().map(place::guid);
    if let Ok(root) = root {
        answer.marker = marker(root, &target.dataset)
            .filter(|record| Some(record.guid) == answer.guid)
            .map(|record| record.marker);
    }
    if matches!(answer.condition, Condition::Absent | Condition::Empty)
        && let Some(condition) = unavailable(root, target, &place)
    {
        answer.condition = condition;
        return answer;
    }
    if answer.condition == Condition::Populated
        && let Ok(root) = root
        && let Some(why) = disk_missing(root, target, &place)
    {
        // What somebody put below the mount point of a disk that is missing is not the service's data.
        answer.condition = Condition::Unmounted { why };
        return answer;
    }
    answer.leftover = leftover(&place, target, answer.guid);
    answer
}

/// Why a target that looks absent or empty can't be called that.
fn unavailable(root: &Result<Root, NoRoot>, target: &Target, place: &Place) -> Option<Condition> {
    let root = match root {
        Ok(root) => root,
        Err(no) if no.absent => {
            return Some(Condition::PoolUnavailable {
                why: no.fail.to_string(),
            });
        }
        Err(no) => {
            return Some(Condition::Unknown {
                why: no.fail.to_string(),
            });
        }
    };
    disk_missing(root, target, place).map(|why| Condition::PoolUnavailable { why })
}

/// Why what stands at a target's place can't be on the disk that its data was on.
fn disk_missing(root: &Root, target: &Target, place: &Place) -> Option<String> {
    let seen = read_of::<PlaceRecord>(root, &target.dataset, c"place.json")?;
    if seen.mountpoint != place_key(place) {
        return None;
    }
    let now = place.mounted_at()?;
    seen.is_below(&now).then(|| {
        format!(
            "it was on the filesystem mounted at {:?}, and nothing is mounted there now (if it is gone for good: make the directory, `reseed adopt` it as it is, then `reseed restore`)",
            seen.mounted_at
        )
    })
}

/// How a place is called in [`PlaceRecord::mountpoint`].
pub(super) fn place_key(place: &Place) -> String {
    match place.path.to_str() {
        Some(text) => text.to_owned(),
        None => format!("{:?}", place.path),
    }
}

/// The marker record of a dataset, whatever it was written on.
pub(super) fn marker(root: &Root, dataset: &DatasetName) -> Option<MarkerRecord> {
    read_of(root, dataset, c"marker.json")
}

fn read_of<T: serde::de::DeserializeOwned>(root: &Root, dataset: &DatasetName, name: &CStr) -> Option<T> {
    let dir = joined(b"datasets/", root::escaped(dataset).to_bytes());
    let path = joined(&[dir.to_bytes(), b"/"].concat(), name.to_bytes());
    match records::read(&root.fd, &path) {
        Ok(Found::There(record)) => Some(record),
        Ok(Found::Missing) => None,
        Ok(Found::Damaged(why)) => {
            tracing::warn!(%dataset, record = ?name, why, "a record of the directory store is damaged");
            None
        }
        Ok(Found::Newer(_)) | Err(_) => None,
    }
}

fn leftover(place: &Place, target: &Target, live: Option<Guid>) -> Option<Leftover> {
    let path = joined(
        joined(path_bytes(&place.sibling(&place.staging())), b"/").to_bytes(),
        b"stage.json",
    );
    let Ok(Found::There(record)) = records::read::<StageRecord>(CWD, &path) else {
        return None;
    };
    (record.dataset == target.dataset && record.quarantined.is_none()).then(|| Leftover {
        over: None,
        files: false,
        run: record.run.clone(),
        source: record.source().clone(),
        promoted: live == Some(record.tree),
        point: record.point,
    })
}

fn path_bytes(path: &Path) -> &[u8] {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes()
}
