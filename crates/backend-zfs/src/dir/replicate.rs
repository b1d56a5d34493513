//! [`DirReplicator`]: copies a store's snapshots to a replica in another directory, with hard links between the
//! replica's snapshots for what is unchanged.
//!
//! Every snapshot that the replica lacks is sent, oldest first, each beside the nearest one that both have: a file that
//! is one inode in both of the store's snapshots is linked on the replica, without being read. A snapshot is copied under a name
//! that nothing lists, measured, and renamed into place; an interrupted one goes on where it stopped. A lineage that
//! has no snapshot in common with the store's is renamed to `aside/`, and its snapshots are still offered by
//! [`DirSource`](super::DirSource). Nothing on the replica is removed but what an interrupted run left half copied.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use reseed_core::clock::Clock;
use reseed_core::error::{Effect, ReplicateError, ReplicateKind};
use reseed_core::names::{Guid, SourceName};
use reseed_core::point::{SnapshotRef, Target};
use reseed_core::replicate::{
    Divergence, Lineage, ReplicationPlan, ReplicationReport, ReplicationStep, ReplicatorCaps,
};
use reseed_core::{Context, Replicator};

use super::create::lock;
use super::errors::Outward;
use super::job::{Job, Jobs};
use super::members::Member;
use super::root::{self, Root};
use super::send::{send, set_aside};
use super::store::DirStore;

/// Brings a store's snapshots to a replica in another directory.
#[derive(Debug, Clone)]
pub struct DirReplicator {
    name: SourceName,
    store: PathBuf,
    replica: DirStore,
    host: Option<String>,
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
            host: None,
            jobs: Jobs::new(clock),
        }
    }

    /// Records on the replica that what is sent is this host's, and refuses to send to what is another's.
    #[must_use]
    pub fn of_host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    fn sides(&self) -> Sides {
        Sides {
            store: self.store.clone(),
            replica: self.replica.root.clone(),
            host: self.host.clone(),
        }
    }
}

#[derive(Clone)]
struct Sides {
    store: PathBuf,
    replica: PathBuf,
    host: Option<String>,
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

    /// Setting another host's lineage aside, time and again, would be no way to share a replica.
    fn is_ours(&self, replica: &Root, target: &Target) -> Result<(), ReplicateError> {
        let place = replica.dataset(&target.dataset).replicate()?;
        let origin = place
            .map(|place| place.origin())
            .transpose()
            .replicate()?
            .flatten();
        match (&self.host, origin) {
            (Some(host), Some(other)) if *host != other => Err(ReplicateError::new(
                ReplicateKind::InvalidInput,
                format!(
                    "what the replica at {:?} has of {} is of the host {other}, and this one is {host}",
                    replica.path, target.dataset
                ),
            )
            .hint("give each host a replica directory of its own; if this machine was called that before, set `host` in the configuration to it")),
            _ => Ok(()),
        }
    }
}

/// A dataset's snapshots on both sides.
pub(super) struct Both {
    pub(super) here: Vec<Member>,
    pub(super) there: Vec<Member>,
}

impl Both {
    fn of(store: &Root, replica: &Root, target: &Target) -> Result<Self, ReplicateError> {
        Ok(Self {
            here: store.members(&target.dataset).replicate()?,
            there: replica.members(&target.dataset).replicate()?,
        })
    }

    /// What can be sent.
    pub(super) fn sendable(&self) -> impl DoubleEndedIterator<Item = &Member> {
        self.here.iter().filter(|member| member.record.is_ok())
    }

    pub(super) fn is_there(&self, guid: Guid) -> bool {
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
    let (mut steps, mut left_out) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for target in targets {
        if !seen.insert(&target.dataset) {
            continue;
        }
        job.check().replicate()?;
        sides.is_ours(&replica, target)?;
        let both = Both::of(&store, &replica, target)?;
        for member in &both.here {
            if let Err(fail) = member.intact() {
                job.warn(format!("not replicated: {fail}"), fail.what_to_do());
                let error: ReplicateError = fail.convert(ReplicateKind::Corrupt);
                left_out.push((target.clone(), error.report()));
            }
        }
        steps.extend(step_of(&both, target));
    }
    Ok(ReplicationPlan {
        replica: name.clone(),
        steps,
        left_out,
        let_go: Vec::new(),
        untold: Vec::new(),
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
    if let Some(base) = &step.base
        && !(have(&both.here, base) && have(&both.there, base))
    {
        return stale(format!(
            "the base {}@{} is not on both sides any more",
            base.dataset, base.name
        ));
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
        sides.is_ours(&replica, &step.target)?;
        check(&Both::of(&store, &replica, &step.target)?, step)?;
    }
    let mut report = ReplicationReport::default();
    let mut first = None;
    for step in &plan.steps {
        match send_all(job, sides, (&store, &replica), step, &mut report) {
            Ok(()) => {}
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
        Some(error) if report.sent.is_empty() && report.failed.len() == plan.steps.len() => Err(error),
        _ => Ok(report),
    }
}

fn send_all(
    job: &Job,
    sides: &Sides,
    (store, replica): (&Root, &Root),
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
    let mut damaged = None;
    if let Some(host) = &sides.host
        && into.origin().replicate()?.is_none()
    {
        into.set_origin(host).replicate()?;
    }
    for wanted in &step.send {
        let both = Both::of(store, replica, &step.target)?;
        let sent = send(job, &source, &into, &both, wanted).replicate();
        match sent.map_err(|error| error.effect(Effect::StagingOnly)) {
            Ok(bytes) => {
                report.bytes += bytes;
                report.sent.push(wanted.clone());
            }
            // One damaged snapshot must not keep the good ones that come after it.
            Err(error) if error.kind() == ReplicateKind::Corrupt => {
                job.warn(error.to_string(), error.what_to_do());
                damaged.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    drop(locked);
    damaged.map_or(Ok(()), Err)
}

fn lineage(job: &Job, sides: &Sides, targets: &[Target]) -> Result<Vec<Lineage>, ReplicateError> {
    let replica = open(&sides.replica)?;
    // Without the store there is no common snapshot, and the replica's age is all the more of interest.
    let store = open(&sides.store).ok();
    let mut all = Vec::new();
    for target in targets {
        job.check().replicate()?;
        sides.is_ours(&replica, target)?;
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
            newest: newest(intact().map(|member| member.snapshot.taken_at), job.now()),
            snapshots: u64::try_from(intact().count()).unwrap_or(u64::MAX),
        });
    }
    Ok(all)
}

/// The newest time that isn't in the future: one that a wrong clock has put there would hide all that comes after it. Where there are no
/// others the newest of those, for somebody to tell.
fn newest(all: impl Iterator<Item = Timestamp>, now: Timestamp) -> Option<Timestamp> {
    let (past, ahead): (Vec<Timestamp>, Vec<Timestamp>) = all.partition(|at| *at <= now);
    past.into_iter().max().or_else(|| ahead.into_iter().max())
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
            keeps_base: false,
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
