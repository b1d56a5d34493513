//! [`NativeReplicator`]: `zfs send | zfs receive` to a second pool, here or on another host.
//!
//! Planning is one listing of each side for all datasets together. Sending is one pipe for everything after the base, its
//! ends connected by the kernel; several datasets at once, up to a limit. Nothing on the replica is forced, rolled back or
//! destroyed: what can't be continued is renamed. What arrives is not mounted, read-only, and stays so.
//!
//! After a success a bookmark of the newest snapshot is left on the store's side, so that the next increment has a base
//! whatever is pruned; older bookmarks of the same replica go. Bytes are ZFS's own figure for what was written between
//! the snapshots: a pipe that nobody reads along can't be counted.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use reseed_core::error::{Common, Effect, Error, Kind, ReplicateError, ReplicateKind, StoreError};
use reseed_core::event::Event;
use reseed_core::names::{DatasetName, SnapshotName, SourceName};
use reseed_core::point::{SnapshotRef, Target};
use reseed_core::replicate::{self, ReplicationPlan, ReplicationReport, ReplicationStep, ReplicatorCaps};
use reseed_core::{Context, Replicator};

use super::lineage::{self, Base, Lineage};
use super::location::Location;
use super::mapping::Mapping;
use super::parse::Line;
use super::store::NativeStore;
use super::tool::{Tool, not_cancelled};
use super::transfer;
use super::{argv, error, list, snapshots, staging};

/// Sends to a second pool.
#[derive(Debug, Clone)]
pub struct NativeReplicator {
    name: SourceName,
    here: Tool,
    there: Tool,
    mapping: Mapping,
    at_once: usize,
    raw: bool,
}

/// The lineages of both sides.
struct Sides {
    here: BTreeMap<DatasetName, Lineage>,
    there: BTreeMap<DatasetName, Lineage>,
}

fn grouped(lines: &[Line]) -> BTreeMap<DatasetName, Lineage> {
    let mut of: BTreeMap<DatasetName, Vec<&Line>> = BTreeMap::new();
    for line in lines {
        of.entry(line.dataset.clone()).or_default().push(line);
    }
    of.into_iter()
        .map(|(name, lines)| (name, Lineage::of(lines)))
        .collect()
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
            name,
            there: store.tool.at(location),
            here: store.tool.clone(),
            mapping,
            at_once: 2,
            raw: true,
        }
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

    fn replica(&self, dataset: &DatasetName) -> Result<DatasetName, ReplicateError> {
        self.mapping.replica(dataset).map_err(|error| {
            let what = format!("{dataset} can't have a replica below {}", self.mapping.root());
            ReplicateError::new(ReplicateKind::InvalidInput, what).said(error)
        })
    }

    async fn there(
        &self,
        cx: &Context,
        targets: &[Target],
    ) -> Result<BTreeMap<DatasetName, Lineage>, ReplicateError> {
        let mut names = Vec::with_capacity(targets.len() + 1);
        for target in targets {
            names.push(self.replica(&target.dataset)?);
        }
        // Asked along with the replicas: without it, "none is there" would not be an answer.
        names.push(self.mapping.root().clone());
        let lines = list::lineages::<ReplicateKind>(&self.there, cx, &names).await?;
        let all = grouped(&lines);
        if !all.contains_key(self.mapping.root()) {
            let what = format!(
                "there is no {}, where the replicas should be",
                self.mapping.root()
            );
            return Err(ReplicateError::new(ReplicateKind::NotFound, what).hint(format!(
                "`zfs create -o canmount=off {}` on the replica's side",
                self.mapping.root()
            )));
        }
        Ok(all)
    }

    async fn sides(&self, cx: &Context, targets: &[Target]) -> Result<Sides, ReplicateError> {
        let names: Vec<DatasetName> = targets.iter().map(|target| target.dataset.clone()).collect();
        let (here, there) = tokio::join!(
            list::lineages::<ReplicateKind>(&self.here, cx, &names),
            self.there(cx, targets)
        );
        Ok(Sides {
            here: grouped(&here?),
            there: there?,
        })
    }

    fn step(&self, sides: &Sides, target: &Target) -> Result<Option<ReplicationStep>, ReplicateError> {
        let (here, there) = self.both(sides, target)?;
        lineage::step(target, &self.replica(&target.dataset)?, &here, &there).map_err(other)
    }

    fn both(&self, sides: &Sides, target: &Target) -> Result<(Lineage, Lineage), ReplicateError> {
        let replica = self.replica(&target.dataset)?;
        let of = |all: &BTreeMap<DatasetName, Lineage>, name| all.get(name).cloned().unwrap_or_default();
        Ok((of(&sides.here, &target.dataset), of(&sides.there, &replica)))
    }

    /// Whether a step can still be done as it was planned.
    fn check(&self, sides: &Sides, step: &ReplicationStep) -> Result<(), ReplicateError> {
        let dataset = &step.target.dataset;
        let (here, there) = self.both(sides, &step.target)?;
        let gone = step.send.iter().find(|wanted| {
            !here
                .snapshots
                .iter()
                .any(|mark| mark.guid == wanted.guid && mark.name == wanted.name)
        });
        if let Some(gone) = gone {
            return Err(stale(format!(
                "{dataset}@{}, which was to be sent, is gone or another",
                gone.name
            )));
        }
        // In a lineage that is set aside they may well be.
        if step.set_aside.is_none()
            && let Some(arrived) = step.send.iter().find(|wanted| there.has(wanted.guid))
        {
            return Err(stale(format!(
                "{dataset}@{} is on the replica already",
                arrived.name
            )));
        }
        let now = self.step(sides, &step.target)?;
        let same = now.as_ref().is_some_and(|now| {
            now.base == step.base
                && now.set_aside.as_ref().map(|d| (d.newest, &d.renamed_to))
                    == step.set_aside.as_ref().map(|d| (d.newest, &d.renamed_to))
        });
        if !same {
            return Err(stale(format!(
                "the snapshots of {dataset} are others than when it was planned"
            )));
        }
        Ok(())
    }

    /// Renames a lineage that can't be continued.
    async fn set_aside(&self, cx: &Context, replica: &DatasetName, to: &str) -> Result<(), ReplicateError> {
        let below = list::children::<ReplicateKind>(&self.there, cx, replica).await?;
        if let Some(child) = below.first() {
            let what = format!("{replica} has to be set aside, and {child} below it would go along");
            return Err(ReplicateError::new(ReplicateKind::Diverged, what).hint(
                "move the replica of the inner dataset first, or declare datasets that are not nested",
            ));
        }
        let to = DatasetName::new(to).map_err(|error| {
            ReplicateError::new(ReplicateKind::InvalidInput, "not a dataset's name").said(error)
        })?;
        let what = format!("can't set {replica} aside as {to}");
        self.there
            .change::<ReplicateKind>(cx, argv::rename(replica, &to), what, Effect::None)
            .await
            .map(drop)
    }

    /// Sends one dataset. Says what was renamed aside.
    async fn send(
        &self,
        cx: &Context,
        step: &ReplicationStep,
        here: &Lineage,
        there: &Lineage,
    ) -> (Option<String>, Result<(), ReplicateError>) {
        let mut set_aside = None;
        let result = self.send_steps(cx, step, here, there, &mut set_aside).await;
        (set_aside, result)
    }

    async fn send_steps(
        &self,
        cx: &Context,
        step: &ReplicationStep,
        here: &Lineage,
        there: &Lineage,
        set_aside: &mut Option<String>,
    ) -> Result<(), ReplicateError> {
        let dataset = &step.target.dataset;
        let replica = self.replica(dataset)?;
        let Some(last) = step.send.last() else {
            return Ok(());
        };
        let mut there = there.clone();
        if let Some(divergence) = &step.set_aside {
            self.set_aside(cx, &replica, &divergence.renamed_to).await?;
            *set_aside = Some(divergence.renamed_to.clone());
            there = Lineage::default();
        }
        // Bound by what is there: the newest that both have, and what an interrupted stream has brought.
        let mut from: Option<SnapshotName> = None;
        let mut bookmark = None;
        if let Some(Base { mark, is_bookmark }) = lineage::base(here, &there) {
            if is_bookmark {
                bookmark = Some(mark.name);
            } else {
                from = Some(mark.name);
            }
        }
        let mut left: &[SnapshotRef] = &step.send;
        if let Some(token) = &there.resume_token
            && let Some(done) = self.go_on(cx, dataset, &replica, token, left).await?
        {
            from = Some(left[done].name.clone());
            bookmark = None;
            left = &left[done + 1..];
        }
        let (Some(first), receive) = (
            left.first(),
            argv::receive(&replica, &[("canmount", "noauto"), ("readonly", "on")]),
        ) else {
            return Ok(());
        };
        let raw = here.encrypted && self.raw;
        if from.is_none() {
            let send = match &bookmark {
                Some(bookmark) => argv::send_since_bookmark(dataset, bookmark, &first.name, raw),
                None => {
                    staging::make_parents(&self.there, cx, &replica)
                        .await
                        .map_err(other)?;
                    argv::send_full(dataset, &first.name, raw)
                }
            };
            self.pipe(cx, &first.name, dataset, send, receive.clone()).await?;
            from = Some(first.name.clone());
            left = &left[1..];
        }
        if let (Some(from), false) = (from, left.is_empty()) {
            let send = argv::send_since(dataset, &from, &last.name, raw);
            self.pipe(cx, &last.name, dataset, send, receive).await?;
        }
        Ok(())
    }

    async fn pipe(
        &self,
        cx: &Context,
        last: &SnapshotName,
        dataset: &DatasetName,
        send: argv::Args,
        receive: argv::Args,
    ) -> Result<(), ReplicateError> {
        let what = format!("can't send {dataset}@{last} to {}", self.name);
        let sent = self.here.send(cx, send, &self.there, receive).await;
        error::piped(sent, what, Effect::Partial).map(drop)
    }

    /// Goes on with an interrupted stream: which of the snapshots it brought. What has begun to arrive of a snapshot
    /// that isn't to be sent (any more) can't be completed and is thrown away; it was never a snapshot.
    async fn go_on(
        &self,
        cx: &Context,
        dataset: &DatasetName,
        replica: &DatasetName,
        token: &str,
        send: &[SnapshotRef],
    ) -> Result<Option<usize>, ReplicateError> {
        let decoded = transfer::decode::<ReplicateKind>(&self.here, cx, token).await?;
        let at = decoded.and_then(|decoded| send.iter().position(|wanted| wanted.guid == decoded.to));
        let Some(at) = at else {
            cx.emit(Event::Warning {
                service: None,
                message: format!("what had arrived in {replica} of a snapshot that is gone is thrown away"),
                hint: None,
            });
            let what = format!("can't throw away what arrived in part in {replica}");
            let abort = argv::receive_abort(replica);
            self.there
                .change::<ReplicateKind>(cx, abort, what, Effect::Partial)
                .await?;
            return Ok(None);
        };
        let (send, receive) = (argv::send_rest(token), argv::receive_rest(replica));
        let what = format!("can't send the rest of a snapshot of {dataset} to {}", self.name);
        error::piped::<ReplicateKind>(
            self.here.send(cx, send, &self.there, receive).await,
            what,
            Effect::Partial,
        )?;
        Ok(Some(at))
    }

    /// After everything was sent: what arrived, by the replica's word; our properties on what a resumed stream brought
    /// without them; and the bookmarks for next time.
    async fn conclude(
        &self,
        cx: &Context,
        plan: &ReplicationPlan,
        here: &BTreeMap<DatasetName, Lineage>,
        report: &mut ReplicationReport,
    ) -> Result<(), ReplicateError> {
        let targets: Vec<Target> = plan.steps.iter().map(|step| step.target.clone()).collect();
        let there = self.there(cx, &targets).await?;
        for step in &plan.steps {
            let replica = self.replica(&step.target.dataset)?;
            let (Some(from), Some(to)) = (here.get(&step.target.dataset), there.get(&replica)) else {
                continue;
            };
            let mut newest = None;
            for wanted in &step.send {
                let original = from.snapshots.iter().find(|mark| mark.guid == wanted.guid);
                let copy = to.snapshots.iter().find(|mark| mark.guid == wanted.guid);
                let (Some(original), Some(copy)) = (original, copy) else {
                    continue;
                };
                let result = transfer::carry_over::<ReplicateKind>(
                    &self.there,
                    cx,
                    &replica,
                    &copy.name,
                    &copy.own,
                    &original.own,
                );
                result.await?;
                report.bytes = report.bytes.saturating_add(original.written);
                report.sent.push(wanted.clone());
                newest = Some(wanted);
            }
            if let Some(newest) = newest {
                self.leave_bookmark(cx, newest, from).await;
            }
        }
        Ok(())
    }

    /// A bookmark that can't be made is no failure: the snapshot itself is a base as long as it is there.
    async fn leave_bookmark(&self, cx: &Context, newest: &SnapshotRef, from: &Lineage) {
        let prefix = format!("reseed:{}:", self.name);
        let Ok(name) = SnapshotName::new(format!("{prefix}{}", newest.guid)) else {
            return;
        };
        let made = if from.bookmarks.iter().any(|mark| mark.name == name) {
            Ok(())
        } else {
            let args = argv::bookmark(&newest.dataset, &newest.name, &name);
            let what = format!("can't keep a bookmark of {}@{}", newest.dataset, newest.name);
            self.here
                .change::<ReplicateKind>(cx, args, what, Effect::None)
                .await
                .map(drop)
        };
        if let Err(error) = made {
            cx.emit(Event::Warning {
                service: None,
                message: error.to_string(),
                hint: Some(
                    "without it, pruning that snapshot makes the next replication a full one".to_owned(),
                ),
            });
            return;
        }
        for older in from
            .bookmarks
            .iter()
            .filter(|mark| mark.name.as_str().starts_with(&prefix) && mark.name != name)
        {
            let args = argv::destroy_bookmark(&newest.dataset, &older.name);
            let what = "can't remove an older bookmark";
            let _ = self
                .here
                .change::<ReplicateKind>(cx, args, what, Effect::None)
                .await;
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
        }
    }

    async fn plan(&self, cx: &Context, targets: &[Target]) -> Result<ReplicationPlan, ReplicateError> {
        not_cancelled::<ReplicateKind>(cx)?;
        let sides = self.sides(cx, targets).await?;
        let mut steps = Vec::new();
        for target in targets {
            steps.extend(self.step(&sides, target)?);
        }
        Ok(ReplicationPlan {
            replica: self.name.clone(),
            steps,
            left_out: Vec::new(),
        })
    }

    async fn execute(
        &self,
        cx: &Context,
        plan: &ReplicationPlan,
    ) -> Result<ReplicationReport, ReplicateError> {
        not_cancelled::<ReplicateKind>(cx)?;
        let mut report = ReplicationReport::default();
        if plan.steps.is_empty() {
            return Ok(report);
        }
        let targets: Vec<Target> = plan.steps.iter().map(|step| step.target.clone()).collect();
        let sides = self.sides(cx, &targets).await?;
        for step in &plan.steps {
            self.check(&sides, step)?;
        }
        let mut work = Vec::with_capacity(plan.steps.len());
        for step in &plan.steps {
            let (here, there) = self.both(&sides, &step.target)?;
            work.push(async move { (step, self.send(cx, step, &here, &there).await) });
        }
        let mut results = futures_util::stream::iter(work).buffer_unordered(self.at_once);
        let (mut succeeded, mut first) = (0_usize, None);
        while let Some((step, (set_aside, result))) = results.next().await {
            report.set_aside.extend(set_aside);
            match result {
                Ok(()) => succeeded += 1,
                Err(error) => {
                    report.failed.push((step.target.clone(), error.report()));
                    first.get_or_insert(error);
                }
            }
        }
        drop(results);
        // What has arrived is told, and finished, also of a run that was cancelled.
        let concluded = self
            .conclude(&snapshots::calm(cx), plan, &sides.here, &mut report)
            .await;
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
            Ok(lines) => grouped(&lines),
            Err(error) if error.kind() == ReplicateKind::Cancelled => return Err(error),
            Err(_) => BTreeMap::new(),
        };
        let sides = Sides { here, there };
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
                newest: there.snapshots.iter().map(|mark| mark.taken_at).max(),
                snapshots: u64::try_from(there.snapshots.len()).unwrap_or(u64::MAX),
            });
        }
        Ok(all)
    }
}
