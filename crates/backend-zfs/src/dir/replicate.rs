//! [`DirReplicator`]: copies a store's snapshots to a replica in another directory, with hard links between the
//! replica's snapshots for what is unchanged.
//!
//! Every snapshot that the replica lacks is sent, oldest first, each beside the nearest one that both have: a file that
//! is one inode in both of the store's snapshots is linked on the replica, without being read. A snapshot is copied under a name
//! that nothing lists, measured, and renamed into place; an interrupted one goes on where it stopped. A lineage that
//! has no snapshot in common with the store's is renamed to `aside/`, and its snapshots are still offered by
//! [`DirSource`](super::DirSource). Nothing on the replica is removed but what an interrupted run left half copied.

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use reseed_core::clock::Clock;
use reseed_core::error::{Common, Effect, ReplicateError, ReplicateKind};
use reseed_core::names::{Guid, SourceName};
use reseed_core::point::{SnapshotRef, Target};
use reseed_core::replicate::{
    Divergence, Lineage, ReplicationPlan, ReplicationReport, ReplicationStep, ReplicatorCaps,
};
use reseed_core::{Context, Replicator};
use rustix::io::Errno;

use super::create::lock;
use super::errors::Outward;
use super::job::{Job, Jobs};
use super::measure::measure;
use super::records::{self, SnapshotRecord};
use super::root::{self, Dataset, META, Member, NEW, Root, TREE};
use super::store::DirStore;
use super::sys::{self, Done, During, Fail, cstring, joined};
use super::tree::{self, Copying, Reuse, Vouch};

/// Brings a store's snapshots to a replica in another directory.
#[derive(Debug, Clone)]
pub struct DirReplicator {
    name: SourceName,
    store: PathBuf,
    replica: DirStore,
    pub(super) jobs: Jobs,
}

impl DirReplicator {
    /// From a store to the store at `replica`, whose root [`DirStore::init`] has made. The replica's name is the
    /// replicator's.
    pub fn new(store: &DirStore, replica: DirStore, clock: Arc<dyn Clock>) -> Self {
        Self {
            name: replica.name().clone(),
            store: store.root.clone(),
            replica,
            jobs: Jobs::new(clock),
        }
    }

    fn sides(&self) -> Sides {
        Sides {
            store: self.store.clone(),
            replica: self.replica.root.clone(),
        }
    }
}

#[derive(Clone)]
struct Sides {
    store: PathBuf,
    replica: PathBuf,
}

fn open(path: &Path) -> Result<Root, ReplicateError> {
    root::open(path).map_err(|no| no.into(ReplicateKind::Unreachable))
}

impl Sides {
    fn open(&self) -> Result<(Root, Root), ReplicateError> {
        let (store, replica) = (open(&self.store)?, open(&self.replica)?);
        if store.id == replica.id {
            return Err(ReplicateError::new(
                ReplicateKind::InvalidInput,
                format!(
                    "{:?} and {:?} are the same store, or one is a copy of the other",
                    store.path, replica.path
                ),
            )
            .hint("give the replica a directory of its own, on another disk, and run `reseed init`"));
        }
        Ok((store, replica))
    }
}

/// A dataset's snapshots on both sides.
struct Both {
    here: Vec<Member>,
    there: Vec<Member>,
}

impl Both {
    fn of(store: &Root, replica: &Root, target: &Target) -> Result<Self, ReplicateError> {
        Ok(Self {
            here: store.members(&target.dataset).replicate()?,
            there: replica.members(&target.dataset).replicate()?,
        })
    }

    /// What can be sent.
    fn sendable(&self) -> impl DoubleEndedIterator<Item = &Member> {
        self.here.iter().filter(|member| member.record.is_ok())
    }

    fn is_there(&self, guid: Guid) -> bool {
        self.there
            .iter()
            .any(|member| member.record.is_ok() && member.snapshot.guid == guid)
    }

    fn base(&self) -> Option<&Member> {
        self.sendable()
            .rev()
            .find(|member| self.is_there(member.snapshot.guid))
    }

    /// The replica's lineage, when it can't be continued.
    fn divergence(&self, target: &Target) -> Option<Divergence> {
        let newest = self.there.last()?.snapshot.guid;
        if self.base().is_some() || self.sendable().next().is_none() {
            return None;
        }
        let dir = root::escaped(&target.dataset);
        Some(Divergence {
            newest,
            renamed_to: format!("aside/{}/{newest}", dir.to_string_lossy()),
            why: format!(
                "none of its {} snapshots is one of the store's {}",
                self.there.len(),
                self.sendable().count()
            ),
        })
    }
}

fn step_of(both: &Both, target: &Target) -> Option<ReplicationStep> {
    let send: Vec<&Member> = both
        .sendable()
        .filter(|member| !both.is_there(member.snapshot.guid))
        .collect();
    if send.is_empty() {
        return None;
    }
    let set_aside = both.divergence(target);
    let base = both.base();
    let bytes = |at: usize, member: &Member| {
        let record = member.record.as_ref().ok()?;
        Some(if at == 0 && base.is_none() {
            record.bytes
        } else {
            record.copied
        })
    };
    Some(ReplicationStep {
        target: target.clone(),
        base: base.map(|member| member.snapshot.reference()),
        bytes: send
            .iter()
            .enumerate()
            .map(|(at, member)| bytes(at, member))
            .sum(),
        send: send.iter().map(|member| member.snapshot.reference()).collect(),
        set_aside,
    })
}

fn plan(
    job: &Job,
    sides: &Sides,
    name: &SourceName,
    targets: &[Target],
) -> Result<ReplicationPlan, ReplicateError> {
    let (store, replica) = sides.open()?;
    let mut steps = Vec::new();
    for target in targets {
        job.check().replicate()?;
        let both = Both::of(&store, &replica, target)?;
        for member in &both.here {
            if let Err(fail) = member.intact() {
                job.warn(format!("not replicated: {fail}"), fail.what_to_do());
            }
        }
        steps.extend(step_of(&both, target));
    }
    Ok(ReplicationPlan {
        replica: name.clone(),
        steps,
    })
}

/// Whether both sides are as the plan says.
fn check(both: &Both, step: &ReplicationStep) -> Result<(), ReplicateError> {
    let stale = |what: String| Err(ReplicateError::new(ReplicateKind::StalePlan, what));
    let have = |members: &[Member], wanted: &SnapshotRef| {
        members
            .iter()
            .any(|member| member.record.is_ok() && member.snapshot.reference() == *wanted)
    };
    if let Some(base) = &step.base {
        if !have(&both.here, base) || !have(&both.there, base) {
            return stale(format!(
                "the base {}@{} is not on both sides any more",
                base.dataset, base.name
            ));
        }
    }
    if let Some(gone) = step.send.iter().find(|wanted| !have(&both.here, wanted)) {
        return stale(format!(
            "{}@{}, which was to be sent, is gone or another",
            gone.dataset, gone.name
        ));
    }
    if let Some(arrived) = step.send.iter().find(|wanted| both.is_there(wanted.guid)) {
        return stale(format!(
            "{}@{}, which was to be sent, is on the replica already",
            arrived.dataset, arrived.name
        ));
    }
    let diverged = both.divergence(&step.target);
    if diverged.as_ref().map(|found| found.newest) != step.set_aside.as_ref().map(|planned| planned.newest) {
        return stale(format!(
            "the replica's snapshots of {} are others than when it was planned",
            step.target.dataset
        ));
    }
    Ok(())
}

fn execute(job: &Job, sides: &Sides, plan: &ReplicationPlan) -> Result<ReplicationReport, ReplicateError> {
    let (store, replica) = sides.open()?;
    for step in &plan.steps {
        check(&Both::of(&store, &replica, &step.target)?, step)?;
    }
    let mut report = ReplicationReport::default();
    let mut succeeded = 0;
    let mut first = None;
    for step in &plan.steps {
        match send_all(job, &store, &replica, step, &mut report) {
            Ok(()) => succeeded += 1,
            Err(error) => {
                let error = if report.sent.is_empty() && report.set_aside.is_empty() {
                    error
                } else {
                    error.effect(Effect::Partial)
                };
                if error.kind() == ReplicateKind::Cancelled {
                    return Err(error);
                }
                report.failed.push((step.target.clone(), error.report()));
                first.get_or_insert(error);
            }
        }
    }
    match first {
        Some(error) if succeeded == 0 => Err(error),
        _ => Ok(report),
    }
}

fn send_all(
    job: &Job,
    store: &Root,
    replica: &Root,
    step: &ReplicationStep,
    report: &mut ReplicationReport,
) -> Result<(), ReplicateError> {
    let name = &step.target.dataset;
    let source = store.dataset(name).replicate()?;
    let Some(source) = source else {
        return Err(ReplicateError::new(
            ReplicateKind::StalePlan,
            format!("the store has nothing of {name} any more"),
        ));
    };
    let mut into = replica.ensure_dataset(name).replicate()?;
    let mut locked = lock(&into).replicate()?;
    // Again, now that nobody else can change it.
    check(&Both::of(store, replica, &step.target)?, step)?;
    if let Some(divergence) = &step.set_aside {
        set_aside(replica, step, divergence).replicate()?;
        job.step("set a lineage aside");
        report.set_aside.push(divergence.renamed_to.clone());
        into = replica.ensure_dataset(name).replicate()?;
        locked = lock(&into).replicate()?;
    }
    for wanted in &step.send {
        let both = Both::of(store, replica, &step.target)?;
        let sent = send(job, &source, &into, &both, wanted).replicate();
        report.bytes += sent.map_err(|error| error.effect(Effect::StagingOnly))?;
        report.sent.push(wanted.clone());
    }
    drop(locked);
    Ok(())
}

/// Renames a replica's lineage out of the way, to where its snapshots are still found.
fn set_aside(replica: &Root, step: &ReplicationStep, divergence: &Divergence) -> Done<()> {
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
fn send(job: &Job, source: &Dataset, into: &Dataset, both: &Both, wanted: &SnapshotRef) -> Done<u64> {
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
    root::sweep(job, into, Some(&new))?;
    let dir = sys::ensure_dir(&into.snapshots, &new).during(what)?;
    let tree = sys::ensure_dir(&dir, TREE).during(what)?;
    job.step("made a place for the copy");
    let from = root::open_tree(source, member)?;
    let reuse = match nearest(both, wanted) {
        Some((here, there)) => Some((root::open_tree(into, there)?, root::open_tree(source, here)?)),
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
    let outcome = copied?;
    let path = into
        .path
        .join("snapshots")
        .join(new.to_string_lossy().as_ref())
        .join("tree");
    let wrong = arrived(job, member, record, &outcome, &path)?;
    if let Some(fail) = wrong {
        // Of no use to the next run, which would find it as wrong as this one did.
        super::remove::remove(&job.cleaning_up(), &into.snapshots, &new)?;
        return Err(fail);
    }
    put_in_place(job, into, &dir, &new, record)?;
    Ok(outcome.copied)
}

fn still_there(source: &Dataset, record: &SnapshotRecord) -> Done<()> {
    let all = root::members(source, &record.dataset, &HashSet::new())?;
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
            .hint("`reseed verify` tells whether the store's snapshot or the replica's earlier ones are damaged"),
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
            sys::rename_dir(&into.snapshots, new, &into.snapshots, &long).during(what)?
        }
        renamed => renamed.during(what)?,
    }
    rustix::fs::fsync(&into.snapshots).during(what)?;
    job.step("put the copy in place");
    Ok(())
}

fn lineage(job: &Job, sides: &Sides, targets: &[Target]) -> Result<Vec<Lineage>, ReplicateError> {
    let replica = open(&sides.replica)?;
    // Without the store there is no common snapshot, and the replica's age is all the more of interest.
    let store = open(&sides.store).ok();
    let mut all = Vec::new();
    for target in targets {
        job.check().replicate()?;
        let here = match &store {
            Some(store) => store.members(&target.dataset).replicate()?,
            None => Vec::new(),
        };
        let both = Both {
            here,
            there: replica.members(&target.dataset).replicate()?,
        };
        let intact = || both.there.iter().filter(|member| member.record.is_ok());
        all.push(Lineage {
            target: target.clone(),
            common: both.base().map(|member| member.snapshot.reference()),
            newest: intact().map(|member| member.snapshot.taken_at).max(),
            snapshots: u64::try_from(intact().count()).unwrap_or(u64::MAX),
        });
    }
    Ok(all)
}

#[async_trait]
impl Replicator for DirReplicator {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn caps(&self) -> ReplicatorCaps {
        ReplicatorCaps {
            incremental: true,
            resumable: true,
        }
    }

    async fn plan(&self, cx: &Context, targets: &[Target]) -> Result<ReplicationPlan, ReplicateError> {
        let (sides, name, targets) = (self.sides(), self.name.clone(), targets.to_vec());
        self.jobs
            .run(cx, move |job| plan(job, &sides, &name, &targets))
            .await
    }

    async fn execute(
        &self,
        cx: &Context,
        plan: &ReplicationPlan,
    ) -> Result<ReplicationReport, ReplicateError> {
        let (sides, plan) = (self.sides(), plan.clone());
        self.jobs
            .run_locked(cx, move |job| execute(job, &sides, &plan))
            .await
    }

    async fn lineage(&self, cx: &Context, targets: &[Target]) -> Result<Vec<Lineage>, ReplicateError> {
        let (sides, targets) = (self.sides(), targets.to_vec());
        self.jobs.run(cx, move |job| lineage(job, &sides, &targets)).await
    }
}
