//! [`NativeReplicator`]: `zfs send | zfs receive` to a second pool, here or on another host; or from another host to this one.
//!
//! Which of the two ends is here makes no difference to what is promised: the commands are the same, and ssh is before those of
//! the other side.
//!
//! Planning is one listing of each side for all datasets together; of what is up to date only the newest snapshots are listed there
//! ([`sides`]). Checking a plan that wasn't made right before is one of each side, or of both where both are here. Sending is one pipe for everything after the base, its
//! ends connected by the kernel; several datasets at once, up to a limit. Nothing on the replica is forced, rolled back or
//! destroyed: what can't be continued is renamed. What arrives is not mounted, read-only, and stays so.
//!
//! A bookmark of the newest snapshot is left on the store's side, so that the next increment has a base whatever is pruned
//! ([`keep`]); what an interruption would make useless is held while it is sent ([`hold`]). What is inside of another is sent
//! after it ([`order`]). Bytes are ZFS's own figure for what was written between
//! the snapshots. How far a stream is, `zfs send` tells ([`progress`](super::progress)); the pipe itself is the kernel's, and is
//! read along only where a limit has to be kept ([`limit`](super::limit)).

mod arrival;
mod brake;
mod hold;
mod keep;
mod order;
mod place;
mod sending;
mod sides;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use reseed_core::error::{Common, Effect, Error, Kind, ReplicateError, ReplicateKind, StoreError};
use reseed_core::names::{DatasetName, SourceName};
use reseed_core::point::{SnapshotRef, Target};
use reseed_core::replicate::{self, ReplicationPlan, ReplicationReport, ReplicatorCaps};
use reseed_core::{Context, Replicator};

use crate::syncoid::Syncoid;

use super::location::Location;
use super::mapping::Mapping;
use super::store::NativeStore;
use super::tool::{Stream, Tool, not_cancelled};
use super::{lineage, list, snapshots};
use arrival::Arrival;
use hold::Held;
use sides::{Sides, grouped};

/// Sends to a second pool.
#[derive(Debug, Clone)]
pub struct NativeReplicator {
    name: SourceName,
    /// What the bookmarks and holds on the sending side are called after.
    marks: SourceName,
    here: Tool,
    there: Tool,
    mapping: Mapping,
    host: Option<String>,
    at_once: usize,
    syncoid: Option<Syncoid>,
    raw: bool,
    limit: Option<NonZeroU64>,
    /// The last plan, and what it was made of; for one [`execute_at_once`](Replicator::execute_at_once).
    planned: Arc<Mutex<Option<(ReplicationPlan, Sides)>>>,
}

fn other(error: StoreError) -> ReplicateError {
    error.convert(ReplicateKind::Io)
}

fn stale(what: impl Into<String>) -> ReplicateError {
    ReplicateError::new(ReplicateKind::StalePlan, what)
}

impl NativeReplicator {
    /// From a store to the place that `mapping` names, at `location`; two datasets at once.
    pub fn new(name: SourceName, store: &NativeStore, location: Location, mapping: Mapping) -> Self {
        Self {
            marks: name.clone(),
            name,
            there: store.tool.at(location),
            here: store.tool.clone(),
            mapping,
            host: None,
            at_once: 2,
            syncoid: None,
            raw: true,
            limit: None,
            planned: Arc::default(),
        }
    }

    /// From the datasets of another host, `from`, to the place on this one that `mapping` names; two datasets at once. The store
    /// is only how this machine's tools are run. Whose the data is says [`of_host`](Self::of_host): the other host's name.
    pub fn pulling(name: SourceName, store: &NativeStore, from: Location, mapping: Mapping) -> Self {
        Self {
            here: store.tool.at(from),
            ..Self::new(name, store, Location::Local, mapping)
        }
    }

    /// Has the real syncoid do the sending. Planning, checking, setting aside, going on with an interrupted stream, and telling
    /// what arrived stay ours.
    #[must_use]
    pub fn through_syncoid(mut self, syncoid: Syncoid) -> Self {
        self.syncoid = Some(syncoid);
        self
    }

    /// Records on each replica that it is this host's, and refuses to send to what is another's.
    #[must_use]
    pub fn of_host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Sets how many datasets are sent at once; 0 counts as 1.
    #[must_use]
    pub fn at_once(mut self, limit: usize) -> Self {
        self.at_once = limit.max(1);
        self
    }

    /// Whether encrypted datasets are sent as they are (they are, unless said otherwise). Otherwise their content is sent in
    /// the clear, and the replica is encrypted only where the dataset above it is.
    #[must_use]
    pub fn raw(mut self, raw: bool) -> Self {
        self.raw = raw;
        self
    }

    /// Sets how many bytes a second each stream may have at the most. It takes `pv`, or `mbuffer` where syncoid does the sending.
    #[must_use]
    pub fn limit(mut self, bytes_per_second: Option<NonZeroU64>) -> Self {
        self.limit = bytes_per_second;
        self
    }

    /// Sets what its bookmarks and holds on the sending side are called after, where others beside this one send from there: each takes
    /// away those of its own.
    #[must_use]
    pub fn marked_as(mut self, name: SourceName) -> Self {
        self.marks = name;
        self
    }

    /// Sets after how long a stream of which nothing moves is given up: 15 minutes at first where a pool can't be worked with, four times as
    /// long where both can.
    #[must_use]
    pub fn patient(mut self, patience: Duration) -> Self {
        self.here = self.here.patient(patience);
        self
    }

    fn stream<'a>(&self, dataset: &'a DatasetName, replica: &'a DatasetName) -> Stream<'a> {
        Stream {
            of: dataset,
            from: dataset,
            into: replica,
            limit: self.limit,
        }
    }

    fn replica(&self, dataset: &DatasetName) -> Result<DatasetName, ReplicateError> {
        self.mapping.replica(dataset).map_err(|error| {
            let what = format!("{dataset} can't have a replica below {}", self.mapping.root());
            ReplicateError::new(ReplicateKind::InvalidInput, what).said(error)
        })
    }
}

impl NativeReplicator {
    /// Sends what was planned, by what was `seen` of both sides, or what they are now.
    async fn carry_out(
        &self,
        cx: &Context,
        plan: &ReplicationPlan,
        seen: Option<Sides>,
    ) -> Result<ReplicationReport, ReplicateError> {
        not_cancelled::<ReplicateKind>(cx)?;
        let mut report = ReplicationReport::default();
        if plan.steps.is_empty() && plan.let_go.is_empty() && plan.untold.is_empty() {
            return Ok(report);
        }
        let mut targets: Vec<Target> = plan.steps.iter().map(|step| step.target.clone()).collect();
        for one in plan.let_go.iter().chain(&plan.untold) {
            if !targets.iter().any(|target| target.dataset == one.dataset) {
                targets.push(Target {
                    dataset: one.dataset.clone(),
                    mountpoint: PathBuf::new(),
                });
            }
        }
        let mut sides = match seen {
            Some(sides) => sides,
            None => self.sides(cx, &targets).await?,
        };
        let mut replicas = Vec::with_capacity(plan.steps.len());
        for step in &plan.steps {
            self.check(&sides, step)?;
            replicas.push(self.replica(&step.target.dataset)?);
        }
        let told = self.tell(cx, &plan.untold, &sides).await;
        let keeping = keep::keeping(&self.marks, &plan.steps, &sides.here);
        let sure = self.protect(cx, &plan.steps, &keeping, &mut sides).await;
        let sending = async {
            let mut all = Vec::with_capacity(plan.steps.len());
            let mut missing: Vec<&DatasetName> = Vec::new();
            for wave in order::waves(&replicas) {
                let mut work = Vec::with_capacity(wave.len());
                for at in wave {
                    let (step, replica) = (&plan.steps[at], &replicas[at]);
                    if let Some(outer) = missing.iter().find(|outer| order::is_inside(replica, outer)) {
                        all.push((step, (None, Err(order::waits(replica, outer)))));
                        continue;
                    }
                    let (here, there) = self.both(&sides, &step.target)?;
                    work.push(async move {
                        let sent = self.send(cx, step, &here, &there).await;
                        if matches!(sent.1, Ok(Arrival::Unsure)) {
                            self.tell_at_once(&snapshots::calm(cx), step, &here).await;
                        }
                        (at, sent)
                    });
                }
                let mut results = futures_util::stream::iter(work).buffer_unordered(self.at_once);
                while let Some((at, result)) = results.next().await {
                    if result.1.is_err() && plan.steps[at].base.is_none() {
                        missing.push(&replicas[at]);
                    }
                    all.push((&plan.steps[at], result));
                }
            }
            Ok::<_, ReplicateError>(all)
        };
        let (results, ()) = tokio::join!(sending, keep::remove(&self.here, cx, &keeping.remove));
        let results = results?;
        let (mut succeeded, mut first, mut done) = (0_usize, None, Vec::with_capacity(results.len()));
        for (step, (set_aside, result)) in results {
            report.set_aside.extend(set_aside);
            match result {
                Ok(arrival) => {
                    succeeded += 1;
                    // `-I` leaves out what is gone, and says nothing. What was held was there.
                    let all = sure || step.send.len() < 2;
                    done.push((step, if all { arrival } else { Arrival::Unsure }));
                }
                Err(error) => {
                    report.failed.push((step.target.clone(), error.report()));
                    first.get_or_insert(error);
                    done.push((step, Arrival::Unsure));
                }
            }
        }
        // What has arrived is told, and finished, also of a run that was cancelled.
        let calm = snapshots::calm(cx);
        let asked = self.unsure(&calm, &done).await;
        self.release(&calm, &done, &sides, asked.as_ref().ok(), &plan.let_go)
            .await;
        let concluded = self.conclude(&calm, &done, &sides.here, asked, &mut report).await;
        let concluded = told.and(concluded);
        let changed = !report.sent.is_empty() || !report.set_aside.is_empty();
        let effect = |error: ReplicateError| {
            if changed {
                error.effect(Effect::Partial)
            } else {
                error
            }
        };
        if cx.cancel.is_cancelled()
            && let Some(error) = first
        {
            let what = "the replication was cancelled";
            let error = Error::new(ReplicateKind::from_common(Common::Cancelled), what)
                .said(&error)
                .effect(error.may_have());
            return Err(effect(error));
        }
        match first {
            Some(error) if succeeded == 0 => Err(effect(error)),
            _ => concluded
                .map_err(|error| error.effect(Effect::Partial))
                .map(|()| report),
        }
    }
}

#[async_trait]
impl Replicator for NativeReplicator {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn caps(&self) -> ReplicatorCaps {
        ReplicatorCaps {
            incremental: true,
            resumable: true,
            keeps_base: true,
        }
    }

    async fn plan(&self, cx: &Context, targets: &[Target]) -> Result<ReplicationPlan, ReplicateError> {
        not_cancelled::<ReplicateKind>(cx)?;
        let sides = self.sides_to_plan(cx, targets).await?;
        let (mut steps, mut left_out) = (Vec::new(), Vec::new());
        let mut seen = BTreeSet::new();
        for target in targets {
            if !seen.insert(&target.dataset) {
                continue;
            }
            let Some(step) = self.step(&sides, target)? else {
                continue;
            };
            let (here, there) = self.both(&sides, target)?;
            let refused = match lineage::in_the_way(&step, &self.replica(&target.dataset)?, &there) {
                None => match self.braked(cx, &step, &here, &there).await {
                    Err(error) if error.kind() != ReplicateKind::Cancelled => Some(error),
                    braked => braked?,
                },
                refused => refused,
            };
            match refused {
                Some(error) => left_out.push((target.clone(), error.report())),
                None => steps.push(step),
            }
        }
        let plan = ReplicationPlan {
            replica: self.name.clone(),
            let_go: self.let_go(&sides, targets, &steps)?,
            untold: self.untold(&sides, targets, &steps)?,
            steps,
            left_out,
        };
        *self.planned.lock().unwrap_or_else(PoisonError::into_inner) = Some((plan.clone(), sides));
        Ok(plan)
    }

    async fn execute(
        &self,
        cx: &Context,
        plan: &ReplicationPlan,
    ) -> Result<ReplicationReport, ReplicateError> {
        self.carry_out(cx, plan, None).await
    }

    async fn execute_at_once(
        &self,
        cx: &Context,
        plan: &ReplicationPlan,
    ) -> Result<ReplicationReport, ReplicateError> {
        let planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Nothing is renamed by what was true a moment ago.
        let renames = plan.steps.iter().any(|step| step.set_aside.is_some());
        let seen = planned.filter(|(of, _)| !renames && of == plan);
        self.carry_out(cx, plan, seen.map(|(_, sides)| sides)).await
    }

    async fn lineage(
        &self,
        cx: &Context,
        targets: &[Target],
    ) -> Result<Vec<replicate::Lineage>, ReplicateError> {
        not_cancelled::<ReplicateKind>(cx)?;
        let there = self.there(cx, targets).await?;
        let names: Vec<DatasetName> = targets.iter().map(|target| target.dataset.clone()).collect();
        // Without the store there is no common snapshot, and the replica's age is all the more of interest.
        let here = match list::lineages::<ReplicateKind>(&self.here, cx, &names).await {
            Ok(lines) => grouped(&lines, &names),
            Err(error) if error.kind() == ReplicateKind::Cancelled => return Err(error),
            Err(_) => BTreeMap::new(),
        };
        let sides = Sides {
            here,
            there,
            held: Held::default(),
        };
        let mut all = Vec::with_capacity(targets.len());
        for target in targets {
            let (here, there) = self.both(&sides, target)?;
            all.push(replicate::Lineage {
                target: target.clone(),
                common: lineage::base(&here, &there).map(|base| SnapshotRef {
                    dataset: target.dataset.clone(),
                    name: base.mark.name,
                    guid: base.mark.guid,
                }),
                newest: lineage::newest(&here, &there),
                snapshots: u64::try_from(there.snapshots.len()).unwrap_or(u64::MAX),
            });
        }
        Ok(all)
    }
}
