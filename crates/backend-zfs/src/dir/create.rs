//! Taking snapshots (S4, S5).
//!
//! Every target's tree is copied under a name that nothing lists, then all are renamed into place. Several targets are
//! one snapshot by a group record: as long as it is there, none of its members is listed, and the next run that has a
//! member's lock removes them.
//!
//! What a plain directory can't give: the copy is not of one instant. A file that is written to while it is read is
//! read again, three times at the most, then kept as a mixture, named in the record and told as a warning; files that
//! belong together can be of different moments, and so can several targets. Databases want their own dump, or ZFS.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use reseed_core::entropy::Entropy;
use reseed_core::error::{Common, Effect, StoreError, StoreKind};
use reseed_core::names::{DatasetName, Guid};
use reseed_core::point::{Snapshot, Target};
use reseed_core::store::CreateSnapshots;
use rustix::io::Errno;

use super::errors::Outward;
use super::index::{self, Index};
use super::inspect::place_key;
use super::job::{Job, LOCKED};
use super::members::{self, INDEX, META, Member, NEW, TREE};
use super::place::{self, Place, Standing};
use super::records::{self, Found, GroupRecord, PlaceRecord, SnapshotRecord};
use super::root::{self, Dataset, Lock, Root};
use super::sys::{self, Done, During, Fail, FileTime, cstring, joined, shown};
use super::tree::{self, Copying, Reuse, Vouch};

/// No index is larger: 16 million files.
const MOST_INDEX: usize = 1 << 30;

/// One target on its way to a snapshot.
struct Taking<'a> {
    target: &'a Target,
    place: Place,
    live: OwnedFd,
    dataset: Dataset,
    _lock: Lock,
    /// The snapshot before, to link unchanged files from.
    before: Option<Member>,
    /// Its directory's name until it is whole.
    new: CString,
    record: Option<SnapshotRecord>,
}

/// Takes a dataset's lock or says who has it not.
pub(super) fn lock(dataset: &Dataset) -> Done<Lock> {
    dataset.lock()?.ok_or_else(|| {
        Fail::new(
            Common::Busy,
            format!("the snapshots in {:?} are being changed", dataset.path),
        )
        .said(LOCKED)
        .hint("wait for the other run to end")
    })
}

/// Takes the snapshots.
pub(super) fn create(
    job: &Job,
    root: &Path,
    entropy: &dyn Entropy,
    request: &CreateSnapshots,
) -> Result<Vec<Snapshot>, StoreError> {
    let root = root::open(root).map_err(|no| no.into(StoreKind::PoolUnavailable))?;
    let mut order: Vec<&Target> = request.targets.iter().collect();
    order.sort_by(|a, b| a.dataset.cmp(&b.dataset));
    if order.is_empty()
        || order
            .windows(2)
            .any(|pair| matches!(pair, [a, b] if a.dataset == b.dataset))
    {
        let why = "a snapshot needs at least one target, and each only once";
        return Err(StoreError::new(StoreKind::InvalidInput, why));
    }
    let mut taking = Vec::new();
    for target in order {
        taking.push(begin(job, &root, entropy, target, request)?);
    }
    let group = (taking.len() > 1).then(|| Guid(entropy.next_u64()));
    let result = copy_all(job, &mut taking, entropy, request, group)
        .and_then(|()| put_in_place(job, &root, &taking, request, group));
    if let Err(fail) = result {
        return Err(undo(job, &root, &taking, fail));
    }
    for one in &taking {
        remember_place(&root, one);
    }
    let taken = |target: &Target| {
        let mine = |one: &&Taking<'_>| one.target.dataset == target.dataset;
        taking
            .iter()
            .find(mine)
            .and_then(|one| one.record.as_ref())
            .map(SnapshotRecord::snapshot)
    };
    Ok(request.targets.iter().filter_map(taken).collect())
}

fn begin<'a>(
    job: &Job,
    root: &Root,
    entropy: &dyn Entropy,
    target: &'a Target,
    request: &CreateSnapshots,
) -> Result<Taking<'a>, StoreError> {
    let place = Place::of(target).store()?;
    let live = open_live(&place, target)?;
    if place::contains(&live, &root.fd).store()? {
        return Err(StoreError::new(
            StoreKind::InvalidInput,
            format!(
                "the directory store at {:?} is inside of {:?}, which it keeps",
                root.path, place.path
            ),
        )
        .hint("move the store out of it"));
    }
    let dataset = root.ensure_dataset(&target.dataset).store()?;
    let lock = lock(&dataset).store()?;
    undo_groups(job, root, &dataset, &target.dataset).store()?;
    members::sweep(job, &dataset, None).store()?;
    let members = root.members(&target.dataset).store()?;
    let dir = cstring(request.name.as_str());
    if members
        .iter()
        .any(|member| member.dir == dir || member.snapshot.name == request.name)
    {
        return Err(StoreError::new(
            StoreKind::AlreadyExists,
            format!("{} has a snapshot {} already", target.dataset, request.name),
        ));
    }
    let before = members.into_iter().rev().find(|member| member.record.is_ok());
    let new = joined(
        NEW,
        format!("{}-{:016x}", job.cx.run, entropy.next_u64()).as_bytes(),
    );
    Ok(Taking {
        target,
        place,
        live,
        dataset,
        _lock: lock,
        before,
        new,
        record: None,
    })
}

fn open_live(place: &Place, target: &Target) -> Result<OwnedFd, StoreError> {
    let gone = || {
        StoreError::new(
            StoreKind::NotFound,
            format!(
                "{:?}, the directory of {}, is not there",
                place.path, target.dataset
            ),
        )
        .hint("`reseed status` shows what stands there; `reseed preseed` restores it")
    };
    match place::standing(&place.path) {
        Ok(Standing::Empty(_) | Standing::Populated(_)) => {}
        Ok(Standing::Nothing) => return Err(gone()),
        Ok(Standing::Other(by)) => {
            let what = format!("{:?}, the directory of {}, is {by}", place.path, target.dataset);
            return Err(StoreError::new(StoreKind::Occupied, what)
                .hint("name the directory itself in the configuration"));
        }
        Err(error) => {
            return Err(error)
                .during(|| format!("can't look at {:?}", place.path))
                .store();
        }
    }
    match sys::open_dir_path(&place.path) {
        Err(Errno::NOENT) => Err(gone()),
        opened => opened.during(|| format!("can't open {:?}", place.path)).store(),
    }
}

fn copy_all(
    job: &Job,
    taking: &mut [Taking<'_>],
    entropy: &dyn Entropy,
    request: &CreateSnapshots,
    group: Option<Guid>,
) -> Done<()> {
    for one in taking.iter_mut() {
        let record = copy_one(job, one, entropy, request, group).map_err(|fail| {
            fail_during(&fail, &format!("can't take a snapshot of {}", one.target.dataset))
        })?;
        one.record = Some(record);
    }
    Ok(())
}

/// The same error with what it was done for in front.
fn fail_during(fail: &Fail, what: &str) -> Fail {
    let mut outer = Fail::new(fail.kind(), format!("{what}: {}", fail.what())).retry(fail.should_retry());
    if let Some(said) = fail.tool_said() {
        outer = outer.said(said);
    }
    match fail.what_to_do() {
        Some(hint) => outer.hint(hint),
        None => outer,
    }
}

fn copy_one(
    job: &Job,
    one: &Taking<'_>,
    entropy: &dyn Entropy,
    request: &CreateSnapshots,
    group: Option<Guid>,
) -> Done<SnapshotRecord> {
    let what = || format!("can't make a snapshot in {:?}", one.dataset.path);
    let new = sys::ensure_dir(&one.dataset.snapshots, &one.new).during(what)?;
    let tree = sys::ensure_dir(&new, TREE).during(what)?;
    // The filesystem's own clock, as the times of the live files are of one.
    let born = sys::facts_of_fd(&tree).during(what)?;
    job.step("made a place for the snapshot");
    let before = match &one.before {
        Some(member) if is_sound(job, member)? => open_before(one, member),
        _ => None,
    };
    let outcome = tree::copy(
        &Copying {
            job,
            dataset: &one.target.dataset,
            total: None,
            live: true,
            resume: false,
            only: Vec::new(),
            reuse: before.as_ref().map(|(root, index)| Reuse {
                root,
                vouch: Vouch::Index(index),
            }),
        },
        one.live.try_clone().during(what)?,
        tree,
    )
    .map_err(|fault| fault.fail)?;
    let fingerprint = match request.measure {
        true => Some(super::measure::measure(job, &snapshot_path(one).join("tree"))?),
        false => None,
    };
    let record = SnapshotRecord {
        dataset: one.target.dataset.clone(),
        name: request.name.clone(),
        guid: new_guid(one, entropy, &born),
        taken_at: request.taken_at,
        fingerprint,
        files: outcome.files,
        bytes: outcome.bytes,
        copied: outcome.copied,
        unseeded: request.unseeded,
        group,
        torn: outcome.torn,
        torn_count: outcome.torn_count,
        warnings: outcome.warnings,
    };
    tell(job, &record);
    write_index(&new, &index::encode(&outcome.seen, born.ctime)).during(what)?;
    records::write(&new, META, &record)?;
    rustix::fs::syncfs(&new).during(what)?;
    job.step("synced a snapshot");
    Ok(record)
}

fn snapshot_path(one: &Taking<'_>) -> std::path::PathBuf {
    one.dataset
        .path
        .join("snapshots")
        .join(one.new.to_string_lossy().as_ref())
}

/// Whether the snapshot to link from is still what it was. What rotted in it would be linked into the new one, and be
/// measured there as the truth, while the live file is sound.
fn is_sound(job: &Job, member: &Member) -> Done<bool> {
    let Ok(SnapshotRecord {
        fingerprint: Some(taken),
        ..
    }) = &member.record
    else {
        // Nobody measured it, so nobody can tell.
        return Ok(member.record.is_ok());
    };
    let found = super::measure::measure(job, &member.path.join("tree"));
    match found {
        Ok(found) if found == *taken => Ok(true),
        Err(fail) if fail.kind() == Common::Cancelled => Err(fail),
        _ => {
            job.warn(
                format!(
                    "snapshot {}@{} is damaged; nothing of it is used for the new one",
                    member.snapshot.dataset, member.snapshot.name
                ),
                Some("the disk may be failing: see `dmesg` and `smartctl`"),
            );
            Ok(false)
        }
    }
}

fn open_before(one: &Taking<'_>, member: &Member) -> Option<(OwnedFd, Index)> {
    let tree = members::open_tree(&one.dataset, member).ok()?;
    let dir = sys::open_dir(&one.dataset.snapshots, &member.dir).ok()?;
    let index = match sys::read_small(&dir, INDEX, MOST_INDEX) {
        Ok(Some(bytes)) => Index::parse(&bytes),
        _ => Index::default(),
    };
    Some((tree, index))
}

fn write_index(dir: &OwnedFd, bytes: &[u8]) -> Result<(), Errno> {
    let file = sys::create_file(dir, INDEX)?;
    sys::write_all(&file, bytes)
}

/// Random, and bound to the directory that the snapshot was made in: two snapshots never share one, even when the
/// random numbers repeat themselves.
fn new_guid(one: &Taking<'_>, entropy: &dyn Entropy, born: &sys::Facts) -> Guid {
    let time = |hasher: &mut blake3::Hasher, time: FileTime| {
        hasher
            .update(&time.secs.to_le_bytes())
            .update(&time.nanos.to_le_bytes());
    };
    let mut hasher = blake3::Hasher::new_derive_key("reseed directory store: guid of a snapshot");
    hasher
        .update(&entropy.next_u64().to_le_bytes())
        .update(&born.ino.to_le_bytes());
    time(&mut hasher, born.ctime);
    hasher.update(one.target.dataset.as_str().as_bytes());
    root::first_u64(&hasher.finalize())
}

fn tell(job: &Job, record: &SnapshotRecord) {
    if record.torn_count > 0 {
        let first = record.torn.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        job.warn(
            format!(
                "{} of the {} files of {}@{} were being written to while they were copied: {first}",
                record.torn_count, record.files, record.dataset, record.name
            ),
            Some("a plain directory has no instant snapshots; stop the service for the snapshot, or keep its data on ZFS"),
        );
    }
    for warning in &record.warnings {
        job.warn(format!("{}@{}: {warning}", record.dataset, record.name), None);
    }
}

fn put_in_place(
    job: &Job,
    root: &Root,
    taking: &[Taking<'_>],
    request: &CreateSnapshots,
    group: Option<Guid>,
) -> Done<()> {
    job.check()?;
    let what = || format!("can't put snapshot {} in place", request.name);
    let name = cstring(request.name.as_str());
    let groups = group
        .map(|id| -> Done<_> {
            let dir = sys::ensure_dir(&root.fd, c"groups").during(what)?;
            let file = cstring(&format!("{id}.json"));
            let members = taking.iter().map(|one| one.target.dataset.clone()).collect();
            records::write(
                &dir,
                &file,
                &GroupRecord {
                    run: job.cx.run.clone(),
                    name: request.name.clone(),
                    members,
                },
            )?;
            Ok((dir, file))
        })
        .transpose()?;
    job.step("wrote the group record");
    for one in taking {
        sys::rename_dir(&one.dataset.snapshots, &one.new, &one.dataset.snapshots, &name).during(what)?;
        rustix::fs::fsync(&one.dataset.snapshots).during(what)?;
        job.step("put a snapshot in place");
    }
    if let Some((dir, file)) = groups {
        sys::remove_file(&dir, &file).during(what)?;
        rustix::fs::fsync(&dir).during(what)?;
    }
    Ok(())
}

/// Takes back what was made, so that none of the targets has the snapshot.
fn undo(job: &Job, root: &Root, taking: &[Taking<'_>], fail: Fail) -> StoreError {
    let job = job.cleaning_up();
    let mut clean = true;
    for one in taking {
        clean &= undo_groups(&job, root, &one.dataset, &one.target.dataset).is_ok();
        clean &= members::sweep(&job, &one.dataset, None).is_ok();
    }
    let error = fail.convert(StoreKind::Io);
    // What is left has a name that nothing lists, and the next snapshot removes it.
    if clean {
        error
    } else {
        error.effect(Effect::StagingOnly)
    }
}

/// Removes this dataset's members of groups that were not finished. The dataset's lock must be held: then the run that
/// made the group is dead, or is ours.
pub(super) fn undo_groups(job: &Job, root: &Root, dataset: &Dataset, name: &DatasetName) -> Done<()> {
    let what = || {
        format!(
            "can't clear up the unfinished groups of the store at {:?}",
            root.path
        )
    };
    let pending = root.pending_groups()?;
    if pending.is_empty() {
        return Ok(());
    }
    let dir = sys::ensure_dir(&root.fd, c"groups").during(what)?;
    for id in pending {
        let file = cstring(&format!("{id}.json"));
        let record = match records::read::<GroupRecord>(&dir, &file).during(what)? {
            Found::There(record) => record,
            Found::Missing => continue,
            Found::Damaged(why) => {
                let what = format!(
                    "the group record {} of the store at {:?} is damaged",
                    shown(file.to_bytes()),
                    root.path
                );
                return Err(Fail::new(Common::Corrupt, what).said(why));
            }
            Found::Newer(format) => {
                let what = format!(
                    "the group record {} is of format {format}",
                    shown(file.to_bytes())
                );
                return Err(
                    Fail::new(Common::Unsupported, what).hint("use the reseed that wrote it, or a later one")
                );
            }
        };
        if !record.members.contains(name) {
            continue;
        }
        if let Some(member) = member_of(dataset, name, id)? {
            members::remove_member(job, dataset, &member.dir)?;
        }
        let mut left = false;
        for other in record.members.iter().filter(|other| *other != name) {
            if let Some(place) = root.dataset(other)? {
                left |= member_of(&place, other, id)?.is_some();
            }
        }
        if !left {
            sys::remove_file(&dir, &file).during(what)?;
            rustix::fs::fsync(&dir).during(what)?;
        }
    }
    Ok(())
}

fn member_of(dataset: &Dataset, name: &DatasetName, group: Guid) -> Done<Option<Member>> {
    let all = members::members(dataset, name, &std::collections::HashSet::new())?;
    Ok(all.into_iter().find(|member| {
        member
            .record
            .as_ref()
            .is_ok_and(|record| record.group == Some(group))
    }))
}

/// Notes which mount the live directory is on, for [`inspect`](super::inspect). Not worth failing a snapshot for.
fn remember_place(root: &Root, one: &Taking<'_>) {
    if let Err(fail) = note_place(root, &one.dataset, &one.place, false) {
        tracing::warn!(dataset = %one.target.dataset, store = ?root.path, %fail, "can't note where the live directory is");
    }
}

/// Notes which mount a live directory is on. A record that says that it was on a disk of its own stays when that disk isn't
/// mounted, unless an operator says that this is the data (`adopted`).
pub(super) fn note_place(root: &Root, dataset: &Dataset, place: &Place, adopted: bool) -> Done<()> {
    let Some(mounted_at) = place.mounted_at() else {
        return Ok(());
    };
    let record = PlaceRecord {
        mountpoint: place_key(place),
        mounted_at,
    };
    let what = || format!("can't read place.json of the store at {:?}", root.path);
    match records::read::<PlaceRecord>(&dataset.fd, c"place.json").during(what)? {
        Found::There(known) if known == record => Ok(()),
        Found::There(known)
            if !adopted && known.mountpoint == record.mountpoint && known.is_below(&record.mounted_at) =>
        {
            Ok(())
        }
        _ => records::write(&dataset.fd, c"place.json", &record),
    }
}
