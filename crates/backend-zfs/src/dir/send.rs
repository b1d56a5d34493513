//! One snapshot on its way to a replica: copied under a name that nothing lists, measured, renamed into place.
//!
//! Promises that what is put in place has the fingerprint of its original (or, when nobody measured that, of the
//! original's tree now), and that a wrong copy is thrown away.

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use reseed_core::error::Common;
use reseed_core::point::SnapshotRef;
use reseed_core::replicate::{Divergence, ReplicationStep};
use rustix::io::Errno;

use super::job::Job;
use super::measure::measure;
use super::members::{self, META, Member, NEW, TREE};
use super::records::{self, SnapshotRecord};
use super::replicate::Both;
use super::root::{self, Dataset, Root};
use super::sys::{self, Done, During, Fail, cstring, joined};
use super::tree::{self, Copying, Reuse, Vouch};

/// Renames a replica's lineage out of the way, to where its snapshots are still found.
pub(super) fn set_aside(replica: &Root, step: &ReplicationStep, divergence: &Divergence) -> Done<()> {
    let what = || format!("can't set the replica's lineage of {} aside", step.target.dataset);
    let dir = root::escaped(&step.target.dataset);
    let all = sys::open_dir(&replica.fd, c"datasets").during(what)?;
    let aside = sys::ensure_dir(&replica.fd, c"aside").during(what)?;
    let own = sys::ensure_dir(&aside, &dir).during(what)?;
    rustix::fs::fsync(&aside).during(what)?;
    sys::rename_dir(&all, &dir, &own, &cstring(&divergence.newest.to_string())).during(what)?;
    rustix::fs::fsync(&own).during(what)?;
    rustix::fs::fsync(&all).during(what)
}

/// The nearest snapshot that both have: the one before, else the one after.
fn nearest<'a>(both: &'a Both, wanted: &SnapshotRef) -> Option<(&'a Member, &'a Member)> {
    let all: Vec<&Member> = both.sendable().collect();
    let at = all
        .iter()
        .position(|member| member.snapshot.guid == wanted.guid)?;
    let (before, after) = all.split_at(at);
    let here = before
        .iter()
        .rev()
        .chain(after)
        .find(|member| both.is_there(member.snapshot.guid))?;
    let there = both
        .there
        .iter()
        .find(|member| member.snapshot.guid == here.snapshot.guid)?;
    Some((here, there))
}

/// Copies one snapshot, and answers how many bytes that took.
pub(super) fn send(
    job: &Job,
    source: &Dataset,
    into: &Dataset,
    both: &Both,
    wanted: &SnapshotRef,
) -> Done<u64> {
    let what = || format!("can't copy {}@{} to the replica", wanted.dataset, wanted.name);
    let Some(member) = both
        .here
        .iter()
        .find(|member| member.snapshot.reference() == *wanted)
    else {
        return Err(Fail::new(
            Common::StalePlan,
            format!("{}@{} is gone", wanted.dataset, wanted.name),
        ));
    };
    let record = member.intact()?;
    let new = joined(NEW, format!("recv-{}", wanted.guid).as_bytes());
    members::sweep(job, into, Some(&new))?;
    let path = into
        .path
        .join("snapshots")
        .join(new.to_string_lossy().as_ref())
        .join("tree");
    let mut base = nearest(both, wanted);
    loop {
        let dir = sys::ensure_dir(&into.snapshots, &new).during(what)?;
        let tree = sys::ensure_dir(&dir, TREE).during(what)?;
        job.step("made a place for the copy");
        let from = members::open_tree(source, member)?;
        let reuse = match base {
            Some((here, there)) => Some((
                members::open_tree(into, there)?,
                members::open_tree(source, here)?,
            )),
            None => None,
        };
        let copying = Copying {
            job,
            dataset: &wanted.dataset,
            total: Some(record.bytes),
            live: false,
            resume: true,
            only: Vec::new(),
            reuse: reuse.as_ref().map(|(root, twin)| Reuse {
                root,
                vouch: Vouch::Twin(twin),
            }),
        };
        let copied = tree::copy(&copying, from, tree);
        // A snapshot is renamed before it is removed. If it is where it was, nothing was missing while it was read.
        still_there(source, record)?;
        let outcome = copied.map_err(|fault| fault.fail)?;
        let Some(fail) = arrived(job, member, record, &outcome, &path)? else {
            put_in_place(job, into, &dir, &new, record)?;
            return Ok(outcome.copied);
        };
        // Of no use to the next run, which would find it as wrong as this one did.
        super::remove::remove(&job.cleaning_up(), &into.snapshots, &new)?;
        if base.is_none() || fail.kind() != Common::Corrupt {
            return Err(fail);
        }
        // What is on the replica may have rotted there, and was linked. The original may be sound.
        base = None;
    }
}

fn still_there(source: &Dataset, record: &SnapshotRecord) -> Done<()> {
    let all = members::members(source, &record.dataset, &HashSet::new())?;
    if all.iter().any(|member| member.record.as_ref() == Ok(record)) {
        return Ok(());
    }
    let what = format!(
        "{}@{} was removed while it was being copied",
        record.dataset, record.name
    );
    Err(Fail::new(Common::StalePlan, what))
}

/// What is wrong with what arrived: its fingerprint, or, when the original has none, that of the original now.
fn arrived(
    job: &Job,
    member: &Member,
    record: &SnapshotRecord,
    outcome: &tree::Outcome,
    path: &Path,
) -> Done<Option<Fail>> {
    if let Some(warning) = outcome.warnings.first() {
        let what = format!(
            "{}@{} can't be copied as it is: {warning}",
            record.dataset, record.name
        );
        return Ok(Some(
            Fail::new(Common::PermissionDenied, what)
                .hint("replicate as root, to a filesystem that keeps all metadata"),
        ));
    }
    let found = measure(job, path)?;
    let expected = match record.fingerprint {
        Some(fingerprint) => fingerprint,
        None => measure(job, &member.path.join("tree"))?,
    };
    if found == expected {
        return Ok(None);
    }
    let what = format!(
        "{}@{} arrived with another content than it was taken with",
        record.dataset, record.name
    );
    Ok(Some(
        Fail::new(Common::Corrupt, what)
            .said(format!("{} instead of {}", found.digest, expected.digest))
            .hint(format!("if it is damaged in the store (`reseed verify` tells), take a new snapshot; what is in {:?} can be removed then", member.path))
    ))
}

fn put_in_place(
    job: &Job,
    into: &Dataset,
    dir: &OwnedFd,
    new: &CString,
    record: &SnapshotRecord,
) -> Done<()> {
    let what = || {
        format!(
            "can't put {}@{} in place on the replica",
            record.dataset, record.name
        )
    };
    // The group was put in place on the store; on a replica each arrives by itself.
    records::write(
        dir,
        META,
        &SnapshotRecord {
            group: None,
            ..record.clone()
        },
    )?;
    rustix::fs::syncfs(dir).during(what)?;
    job.check()?;
    job.step("synced the copy");
    // Another snapshot may have had the name before. It stays, so this one goes by its guid too.
    let plain = cstring(record.name.as_str());
    let long = cstring(&format!("{}~{}", record.name, record.guid));
    match sys::rename_dir(&into.snapshots, new, &into.snapshots, &plain) {
        Err(Errno::EXIST | Errno::NOTEMPTY) => {
            sys::rename_dir(&into.snapshots, new, &into.snapshots, &long).during(what)?;
        }
        renamed => renamed.during(what)?,
    }
    rustix::fs::fsync(&into.snapshots).during(what)?;
    job.step("put the copy in place");
    Ok(())
}
