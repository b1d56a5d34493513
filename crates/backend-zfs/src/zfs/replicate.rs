//! [`NativeReplicator`]: `zfs send | zfs receive` to a second pool, here or on another host.
//!
//! Planning is one listing of each side for all datasets together, or of both where both are here. Sending is one pipe for everything after the base, its
//! ends connected by the kernel; several datasets at once, up to a limit. Nothing on the replica is forced, rolled back or
//! destroyed: what can't be continued is renamed. What arrives is not mounted, read-only, and stays so.
//!
//! A bookmark of the newest snapshot is left on the store's side, so that the next increment has a base whatever is pruned
//! ([`keep`]); what an interruption would make useless is held while it is sent ([`hold`]). What is inside of another is sent
//! after it ([`order`]). Bytes are ZFS's own figure for what was written between
//! the snapshots. How far a stream is, `zfs send` tells ([`progress`](super::progress)); the pipe itself is the kernel's, and is
//! read along only where a limit has to be kept ([`limit`](super::limit)).

mod hold;
mod keep;
mod order;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::path::PathBuf;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use reseed_core::error::{Common, Effect, Error, Kind, ReplicateError, ReplicateKind, StoreError};
use reseed_core::event::Event;
use reseed_core::names::{DatasetName, SnapshotName, SourceName};
use reseed_core::point::{SnapshotRef, Target};
use reseed_core::replicate::{self, ReplicationPlan, ReplicationReport, ReplicationStep, ReplicatorCaps};
use reseed_core::{Context, Replicator};

use crate::syncoid::{self, Syncoid};

use super::lineage::{self, Base, Lineage};
use super::location::Location;
use super::mapping::Mapping;
use super::origin;
use super::parse::{Line, What};
use super::store::NativeStore;
use super::tool::{Stream, Tool, not_cancelled};
use super::transfer;
use super::{argv, error, list, names, snapshots, space, staging};
use hold::{Held, Named};

/// Sends to a second pool.
#[derive(Debug, Clone)]
pub struct NativeReplicator {
    name: SourceName,
    here: Tool,
    there: Tool,
    mapping: Mapping,
    host: Option<String>,
    at_once: usize,
    syncoid: Option<Syncoid>,
    raw: bool,
    limit: Option<NonZeroU64>,
}

/// The lineages of both sides.
struct Sides {
    here: BTreeMap<DatasetName, Lineage>,
    there: BTreeMap<DatasetName, Lineage>,
    /// What earlier runs hold for this replica.
    held: Held,
}

/// How sure it is that all of a step arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    /// Both ends of each pipe ended well.
    Whole,
    /// Some of it failed, came by a resumed stream, or could be pruned while it was sent.
    Unsure,
}

/// The lineages of these datasets, which know what is right below them.
fn grouped(lines: &[Line], names: &[DatasetName]) -> BTreeMap<DatasetName, Lineage> {
    let wanted: BTreeSet<&DatasetName> = names.iter().collect();
    let mut of: BTreeMap<DatasetName, Vec<&Line>> = BTreeMap::new();
    for line in lines.iter().filter(|line| wanted.contains(&line.dataset)) {
        of.entry(line.dataset.clone()).or_default().push(line);
    }
    let mut all: BTreeMap<DatasetName, Lineage> = of
        .into_iter()
        .map(|(name, lines)| (name, Lineage::of(lines)))
        .collect();
    for line in lines.iter().filter(|line| line.what == What::Dataset) {
        if let Some(above) = names::parent(&line.dataset).and_then(|above| all.get_mut(&above)) {
            above.below.push(line.dataset.clone());
        }
    }
    all
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
            host: None,
            at_once: 2,
            syncoid: None,
            raw: true,
            limit: None,
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

    fn stream<'a>(&self, dataset: &'a DatasetName) -> Stream<'a> {
        Stream {
            of: dataset,
            limit: self.limit,
        }
    }

    fn replica(&self, dataset: &DatasetName) -> Result<DatasetName, ReplicateError> {
        self.mapping.replica(dataset).map_err(|error| {
            let what = format!("{dataset} can't have a replica below {}", self.mapping.root());
            ReplicateError::new(ReplicateKind::InvalidInput, what).said(error)
        })
    }

    /// What is asked of the replica's side. Its root is asked along: without it, "none is there" would not be an answer.
    fn names_there(&self, targets: &[Target]) -> Result<Vec<DatasetName>, ReplicateError> {
        let mut names = Vec::with_capacity(targets.len() + 1);
        let mut of: BTreeMap<DatasetName, &DatasetName> = BTreeMap::new();
        for target in targets {
            let replica = self.replica(&target.dataset)?;
            if let Some(other) = of.insert(replica.clone(), &target.dataset)
                && *other != target.dataset
            {
                let what = format!(
                    "{other} and {} would both have {replica} for a replica",
                    target.dataset
                );
                return Err(ReplicateError::new(ReplicateKind::InvalidInput, what)
                    .hint("give the replica `mapping = \"with-pool\"`, or each pool a replica with a `root` of its own"));
            }
            names.push(replica);
        }
        names.push(self.mapping.root().clone());
        Ok(names)
    }

    /// Refuses what is another host's. Setting that aside, time and again, would be no way to share a place.
    async fn ours(
        &self,
        cx: &Context,
        targets: &[Target],
        there: &BTreeMap<DatasetName, Lineage>,
    ) -> Result<(), ReplicateError> {
        let Some(host) = &self.host else {
            return Ok(());
        };
        let mut all = Vec::with_capacity(targets.len());
        for target in targets {
            let replica = self.replica(&target.dataset)?;
            if let Some(found) = there.get(&replica) {
                all.push(origin::Seen {
                    of: target.dataset.clone(),
                    replica,
                    value: found.origin.clone(),
                });
            }
        }
        origin::require_ours(&self.there, cx, host, all).await
    }

    fn root_is_there(&self, all: &BTreeMap<DatasetName, Lineage>) -> Result<(), ReplicateError> {
        let root = self.mapping.root();
        if all.contains_key(root) {
            return Ok(());
        }
        let what = format!("there is no {root}, where the replicas should be");
        let hint = format!("`zfs create -o canmount=off {root}` on the replica's side");
        Err(ReplicateError::new(ReplicateKind::NotFound, what).hint(hint))
    }

    async fn there(
        &self,
        cx: &Context,
        targets: &[Target],
    ) -> Result<BTreeMap<DatasetName, Lineage>, ReplicateError> {
        let names = self.names_there(targets)?;
        let lines = list::lineages::<ReplicateKind>(&self.there, cx, &names).await?;
        let all = grouped(&lines, &names);
        self.root_is_there(&all)?;
        self.ours(cx, targets, &all).await?;
        Ok(all)
    }

    /// Both sides, in one process where one can see both.
    async fn sides(&self, cx: &Context, targets: &[Target]) -> Result<Sides, ReplicateError> {
        if self.syncoid.is_some() {
            for target in targets {
                let replica = self.replica(&target.dataset)?;
                Syncoid::can_send(&target.dataset, &replica, self.there.location())?;
            }
        }
        let mut names: Vec<DatasetName> = targets.iter().map(|target| target.dataset.clone()).collect();
        let here: BTreeSet<DatasetName> = names.iter().cloned().collect();
        let replicas = self.names_there(targets)?;
        if self.there.is_local() && !replicas.iter().any(|name| here.contains(name)) {
            names.extend(replicas);
            let lines = list::lineages::<ReplicateKind>(&self.here, cx, &names).await?;
            let (here, there): (BTreeMap<_, _>, BTreeMap<_, _>) = grouped(&lines, &names)
                .into_iter()
                .partition(|(name, _)| here.contains(name));
            self.root_is_there(&there)?;
            self.ours(cx, targets, &there).await?;
            let held = hold::held(&self.here, cx, &self.name, &here).await?;
            return Ok(Sides { here, there, held });
        }
        let (here, there) = tokio::join!(
            list::lineages::<ReplicateKind>(&self.here, cx, &names),
            self.there(cx, targets)
        );
        let (here, there) = (grouped(&here?, &names), there?);
        let held = hold::held(&self.here, cx, &self.name, &here).await?;
        Ok(Sides { here, there, held })
    }

    /// What is held and no longer needed, of what isn't to be sent now.
    fn let_go(
        &self,
        sides: &Sides,
        targets: &[Target],
        steps: &[ReplicationStep],
    ) -> Result<Vec<SnapshotRef>, ReplicateError> {
        let sent = steps.iter().flat_map(|step| &step.send);
        let mut needed: BTreeSet<Named> = sent.map(|one| (one.dataset.clone(), one.name.clone())).collect();
        for target in targets {
            let (here, there) = self.both(sides, target)?;
            needed.extend(hold::needed(&self.name, &target.dataset, &here, &there));
        }
        Ok(sides.held.clone().without(&needed).references(&sides.here))
    }

    fn step(&self, sides: &Sides, target: &Target) -> Result<Option<ReplicationStep>, ReplicateError> {
        let (here, there) = self.both(sides, target)?;
        let mut step =
            lineage::step(target, &self.replica(&target.dataset)?, &here, &there).map_err(other)?;
        let divergence = step.as_mut().and_then(|step| step.set_aside.as_mut());
        if let (Some(divergence), Some(_), None) = (divergence, &self.host, &there.origin) {
            divergence.why.push_str("; nothing says which host's it is");
        }
        Ok(step)
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
        if let Some(error) = now
            .as_ref()
            .and_then(|now| lineage::in_the_way(now, &self.replica(dataset).ok()?, &there))
        {
            return Err(stale(error.to_string()));
        }
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

    /// Sees to it that what is sent, and what it is based on, is there as long as it is needed. Whether all that is sent in streams
    /// of several snapshots is held.
    async fn protect(
        &self,
        cx: &Context,
        steps: &[ReplicationStep],
        keeping: &keep::Keeping,
        sides: &mut Sides,
    ) -> bool {
        let made = keep::make_all(&self.here, cx, &keeping.make).await;
        for wanted in &made {
            if let Some(here) = sides.here.get_mut(&wanted.dataset) {
                here.marked(&wanted.bookmark, wanted.guid);
            }
        }
        let mut wanted = hold::worth(steps);
        let without = keeping.make.iter().filter(|one| !made.contains(one));
        wanted.extend(without.map(|one| (one.dataset.clone(), one.snapshot.clone())));
        let Some(tag) = hold::tag(&self.name) else {
            return false;
        };
        if wanted.is_empty() {
            return true;
        }
        let (sure, held) = hold::hold(&self.here, cx, &tag, &wanted, &sides.held).await;
        sides.held.add(&tag, held);
        sure
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
            .change::<ReplicateKind>(cx, argv::rename(replica, &to), what, Effect::Unknown)
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
    ) -> (Option<String>, Result<Arrival, ReplicateError>) {
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
    ) -> Result<Arrival, ReplicateError> {
        let dataset = &step.target.dataset;
        let replica = self.replica(dataset)?;
        let mut arrival = Arrival::Whole;
        let Some(last) = step.send.last() else {
            return Ok(arrival);
        };
        let origin = self.host.as_deref().map(|host| origin::write(host, dataset));
        let settings = space::write(&here.space);
        let mut own = vec![
            ("canmount", "noauto"),
            ("readonly", "on"),
            (argv::SETTINGS, settings.as_str()),
        ];
        own.extend(origin.as_deref().map(|origin| (argv::ORIGIN, origin)));
        for (property, none) in space::none(&here.space) {
            own.push((property, none));
        }
        // With an increment `-x` keeps out only what the replica has a value of its own for.
        if there.dataset.is_some() && step.set_aside.is_none() && there.origin != origin {
            own.extend([("mountpoint", "none"), ("sharenfs", "off"), ("sharesmb", "off")]);
        }
        // Before anything is renamed.
        if self.syncoid.is_some() {
            Syncoid::can_set(&own)?;
        }
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
            && let Some(done) = self.go_on(cx, dataset, &replica, token, left, here).await?
        {
            arrival = Arrival::Unsure;
            from = Some(left[done].name.clone());
            bookmark = None;
            left = &left[done + 1..];
        }
        let (Some(first), receive) = (left.first(), argv::receive(&replica, &own)) else {
            return Ok(arrival);
        };
        let form = argv::Form::of(here.encrypted, self.raw);
        if form == argv::Form::Decrypted {
            // What the snapshots say of themselves doesn't come along.
            arrival = Arrival::Unsure;
        }
        if let Some(syncoid) = &self.syncoid {
            if from.is_none() && bookmark.is_none() {
                staging::make_parents(&self.there, cx, &replica)
                    .await
                    .map_err(other)?;
            }
            self.by_syncoid(cx, syncoid, last, &replica, form, &own).await?;
            return Ok(Arrival::Unsure);
        }
        if from.is_none() {
            let send = match &bookmark {
                Some(bookmark) => argv::send_since_bookmark(dataset, bookmark, &first.name, form),
                None => {
                    staging::make_parents(&self.there, cx, &replica)
                        .await
                        .map_err(other)?;
                    argv::send_full(dataset, &first.name, form)
                }
            };
            self.pipe(cx, &first.name, dataset, send, receive.clone()).await?;
            from = Some(first.name.clone());
            left = &left[1..];
        }
        if let (Some(from), false) = (from, left.is_empty()) {
            let send = argv::send_since(dataset, &from, &last.name, form);
            self.pipe(cx, &last.name, dataset, send, receive).await?;
        }
        Ok(arrival)
    }

    /// Runs syncoid, and believes only what is on the replica then: it exits with 0 also of a dataset that it skipped.
    async fn by_syncoid(
        &self,
        cx: &Context,
        syncoid: &Syncoid,
        last: &SnapshotRef,
        replica: &DatasetName,
        form: argv::Form,
        set: &[(&str, &str)],
    ) -> Result<(), ReplicateError> {
        let dataset = &last.dataset;
        let what = format!("syncoid can't send {dataset}@{} to {}", last.name, self.name);
        let at = self.there.location();
        let options = syncoid::Options {
            form,
            limit: self.limit,
            set,
            never: argv::NEVER_RECEIVED,
        };
        let command = syncoid.command(dataset, replica, at, &options)?;
        if self.limit.is_some() {
            let there = self.here.run_here(cx, syncoid::mbuffer()).await;
            there.map_err(|error| error.into_error::<ReplicateKind>(&*what, Effect::None))?;
        }
        let output = self.here.run_here(cx, command).await;
        let output = error::succeeded::<ReplicateKind>(output, &*what, Effect::Partial)?;
        let there = list::snapshots::<ReplicateKind>(&self.there, cx, std::slice::from_ref(replica))
            .await
            .map_err(|error| error.effect(Effect::Partial))?;
        if there.iter().any(|copy| copy.guid == last.guid) {
            return Ok(());
        }
        let words = format!("{}\n{}", output.stdout.text(), output.stderr.text());
        Err(ReplicateError::new(
            ReplicateKind::Io,
            format!("{what}: it ended well, and the snapshot is not there"),
        )
        .said(words.trim())
        .effect(Effect::Partial)
        .hint("is `syncoid:sync` set on the dataset?"))
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
        let stream = self.stream(dataset);
        let sent = self.here.send(cx, send, &self.there, receive, stream).await;
        error::piped(sent, what, Effect::Partial).map(drop)
    }

    /// Goes on with an interrupted stream: which of the snapshots it brought. What has begun to arrive of a snapshot
    /// that is gone can't be completed and is thrown away; it was never a snapshot. Only that: what a stream can still be made of
    /// is of use to somebody.
    async fn go_on(
        &self,
        cx: &Context,
        dataset: &DatasetName,
        replica: &DatasetName,
        token: &str,
        send: &[SnapshotRef],
        here: &Lineage,
    ) -> Result<Option<usize>, ReplicateError> {
        let decoded = transfer::decode::<ReplicateKind>(&self.here, cx, token).await?;
        let at = decoded.and_then(|decoded| send.iter().position(|wanted| wanted.guid == decoded.to));
        if let (Some(decoded), None) = (decoded, at) {
            if here.has(decoded.to) {
                let what = format!("{replica} holds part of a snapshot of {dataset} that isn't in the plan");
                return Err(stale(what));
            }
            let what = format!("{replica} holds part of a stream of something else than {dataset}");
            return Err(ReplicateError::new(ReplicateKind::Diverged, what).hint(format!(
                "find out who else sends there; if nobody does, throw that part away: `zfs receive -A '{replica}'`"
            )));
        }
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
            self.here
                .send(cx, send, &self.there, receive, self.stream(dataset))
                .await,
            what,
            Effect::Partial,
        )?;
        Ok(Some(at))
    }

    /// What the replica has of the steps of which that isn't sure, in one listing.
    async fn unsure(
        &self,
        cx: &Context,
        done: &[(&ReplicationStep, Arrival)],
    ) -> Result<BTreeMap<DatasetName, Lineage>, ReplicateError> {
        let unsure = done.iter().filter(|(_, arrival)| *arrival == Arrival::Unsure);
        let targets: Vec<Target> = unsure.map(|(step, _)| step.target.clone()).collect();
        if targets.is_empty() {
            return Ok(BTreeMap::new());
        }
        self.there(cx, &targets).await
    }

    /// Lets go of what isn't needed any more: all of what arrived whole, and of the others all but what the next run goes on from. Of
    /// those that the replica can't be asked about everything stays.
    async fn release(
        &self,
        cx: &Context,
        done: &[(&ReplicationStep, Arrival)],
        sides: &Sides,
        asked: Option<&BTreeMap<DatasetName, Lineage>>,
        let_go: &[SnapshotRef],
    ) {
        let is_sent = |dataset: &DatasetName| done.iter().any(|(step, _)| step.target.dataset == *dataset);
        let others = let_go.iter().map(|one| &one.dataset);
        let mut of: BTreeSet<&DatasetName> = others.filter(|dataset| !is_sent(dataset)).collect();
        let mut needed = BTreeSet::new();
        for dataset in &of {
            let there = self.replica(dataset).ok().and_then(|name| sides.there.get(&name));
            if let (Some(here), Some(there)) = (sides.here.get(*dataset), there) {
                needed.extend(hold::needed(&self.name, dataset, here, there));
            }
        }
        for (step, arrival) in done {
            let dataset = &step.target.dataset;
            let Some(here) = sides.here.get(dataset) else {
                continue;
            };
            match arrival {
                Arrival::Whole => {
                    of.insert(dataset);
                    let last = step
                        .send
                        .last()
                        .filter(|last| !hold::has_bookmark(&self.name, here, last.guid));
                    needed.extend(last.map(|last| (dataset.clone(), last.name.clone())));
                }
                Arrival::Unsure => {
                    let name = self.replica(dataset).ok();
                    let Some((all, name)) = asked.zip(name) else {
                        continue;
                    };
                    of.insert(dataset);
                    let there = all.get(&name).cloned().unwrap_or_default();
                    needed.extend(hold::needed(&self.name, dataset, here, &there));
                }
            }
        }
        hold::release(&self.here, cx, &sides.held.clone().of(&of).without(&needed)).await;
    }

    /// After everything was sent: what arrived. Where both ends of a pipe ended well, that is what was sent: `receive`
    /// answers for each snapshot and its guid. Of the others by the replica's word; and there our properties are
    /// written on what a resumed stream brought without them.
    async fn conclude(
        &self,
        cx: &Context,
        done: &[(&ReplicationStep, Arrival)],
        here: &BTreeMap<DatasetName, Lineage>,
        asked: Result<BTreeMap<DatasetName, Lineage>, ReplicateError>,
        report: &mut ReplicationReport,
    ) -> Result<(), ReplicateError> {
        let unsure = |arrival: &Arrival| *arrival != Arrival::Whole;
        let mut result = Ok(());
        let there = asked.unwrap_or_else(|error| {
            result = Err(error);
            BTreeMap::new()
        });
        for (step, arrival) in done {
            let replica = self.replica(&step.target.dataset)?;
            let Some(from) = here.get(&step.target.dataset) else {
                continue;
            };
            for wanted in &step.send {
                let Some(original) = from.snapshots.iter().find(|mark| mark.guid == wanted.guid) else {
                    continue;
                };
                if unsure(arrival) {
                    let copies = there.get(&replica).map(|to| to.snapshots.iter());
                    let Some(copy) = copies.into_iter().flatten().find(|mark| mark.guid == wanted.guid)
                    else {
                        continue;
                    };
                    let carried = transfer::carry_over::<ReplicateKind>(
                        &self.there,
                        cx,
                        &replica,
                        &copy.name,
                        &copy.own,
                        &original.own,
                    );
                    if let Err(error) = carried.await {
                        result = result.and(Err(error));
                    }
                }
                report.bytes = report.bytes.saturating_add(original.written);
                report.sent.push(wanted.clone());
            }
        }
        result
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
        let sides = self.sides(cx, targets).await?;
        let (mut steps, mut left_out) = (Vec::new(), Vec::new());
        let mut seen = BTreeSet::new();
        for target in targets {
            if !seen.insert(&target.dataset) {
                continue;
            }
            let Some(step) = self.step(&sides, target)? else {
                continue;
            };
            let (_, there) = self.both(&sides, target)?;
            match lineage::in_the_way(&step, &self.replica(&target.dataset)?, &there) {
                Some(error) => left_out.push((target.clone(), error.report())),
                None => steps.push(step),
            }
        }
        Ok(ReplicationPlan {
            replica: self.name.clone(),
            let_go: self.let_go(&sides, targets, &steps)?,
            steps,
            left_out,
        })
    }

    async fn execute(
        &self,
        cx: &Context,
        plan: &ReplicationPlan,
    ) -> Result<ReplicationReport, ReplicateError> {
        not_cancelled::<ReplicateKind>(cx)?;
        let mut report = ReplicationReport::default();
        if plan.steps.is_empty() && plan.let_go.is_empty() {
            return Ok(report);
        }
        let mut targets: Vec<Target> = plan.steps.iter().map(|step| step.target.clone()).collect();
        for one in &plan.let_go {
            if !targets.iter().any(|target| target.dataset == one.dataset) {
                targets.push(Target {
                    dataset: one.dataset.clone(),
                    mountpoint: PathBuf::new(),
                });
            }
        }
        let mut sides = self.sides(cx, &targets).await?;
        let mut replicas = Vec::with_capacity(plan.steps.len());
        for step in &plan.steps {
            self.check(&sides, step)?;
            replicas.push(self.replica(&step.target.dataset)?);
        }
        let keeping = keep::keeping(&self.name, &plan.steps, &sides.here);
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
                    work.push(async move { (at, self.send(cx, step, &here, &there).await) });
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
