//! One dataset to its replica: what has to be there meanwhile is kept, what can't be continued is renamed, an interrupted stream is gone
//! on with, and then comes the pipe, or syncoid.

use reseed_core::Context;
use reseed_core::error::{Effect, ReplicateError, ReplicateKind};
use reseed_core::event::Event;
use reseed_core::names::{DatasetName, SnapshotName};
use reseed_core::point::SnapshotRef;
use reseed_core::replicate::{Divergence, ReplicationStep};

use super::super::argv::BookmarkOf;
use super::super::lineage::{self, Base, Lineage};
use super::super::{argv, error, list, names, origin, space, staging, transfer};
use super::arrival::Arrival;
use super::sides::{Sides, grouped};
use super::{NativeReplicator, hold, keep, other, stale};
use crate::syncoid::{self, Syncoid};

impl NativeReplicator {
    /// Sees to it that what is sent, and what it is based on, is there as long as it is needed. Whether all that is sent in streams
    /// of several snapshots is held.
    pub(super) async fn protect(
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
        // A bookmark can't be held.
        wanted.extend(without.filter_map(|one| match &one.of {
            BookmarkOf::Snapshot(name) => Some((one.dataset.clone(), name.clone())),
            BookmarkOf::Bookmark(_) => None,
        }));
        let Some(tag) = hold::tag(&self.marks) else {
            return false;
        };
        if wanted.is_empty() {
            return true;
        }
        let (sure, held) = hold::hold(&self.here, cx, &tag, &wanted, &sides.held).await;
        sides.held.add(&tag, held);
        sure
    }

    /// Renames a lineage that can't be continued, if it still is the one that was planned to be: since then others may have been sent for
    /// hours, and an operator, or somebody who pulls, may have put another in its place.
    async fn set_aside(
        &self,
        cx: &Context,
        replica: &DatasetName,
        divergence: &Divergence,
    ) -> Result<(), ReplicateError> {
        let to = divergence.renamed_to.as_str();
        let names = [replica.clone()];
        let lines = list::lineages::<ReplicateKind>(&self.there, cx, &names).await?;
        let now = grouped(&lines, &names).remove(replica).unwrap_or_default();
        let named = |guid| names::diverged(replica, guid).is_ok_and(|name| name.as_str() == to);
        if now.last_guid() != divergence.newest || !now.dataset.is_some_and(named) {
            return Err(stale(format!(
                "{replica} is another than the one that was to be set aside"
            )));
        }
        if let Some(child) = now.below.first() {
            let what = format!("{replica} has to be set aside, and {child} below it would go along");
            return Err(ReplicateError::new(ReplicateKind::Diverged, what).hint(
                "move the replica of the inner dataset first, or declare datasets that are not nested",
            ));
        }
        let to = DatasetName::new(to).map_err(|error| {
            ReplicateError::new(ReplicateKind::InvalidInput, "not a dataset's name").said(error)
        })?;
        let what = format!("can't set {replica} aside as {to}");
        let rename = match now.volume {
            true => argv::rename_volume(replica, &to),
            false => argv::rename(replica, &to),
        };
        self.there
            .change::<ReplicateKind>(cx, rename, what, Effect::Unknown)
            .await
            .map(drop)
    }

    /// Sends one dataset. Says what was renamed aside.
    pub(super) async fn send(
        &self,
        cx: &Context,
        step: &ReplicationStep,
        here: &Lineage,
        there: &Lineage,
    ) -> (Option<String>, Result<Arrival, ReplicateError>) {
        let mut set_aside = None;
        let result = self.send_steps(cx, step, here, there, &mut set_aside).await;
        let result = result.map_err(|error| self.of_other_form(step, here, there, error));
        (set_aside, result)
    }

    /// With what to do about it where a replica was sent the other way until now, raw or in the clear: no increment goes on from that.
    fn of_other_form(
        &self,
        step: &ReplicationStep,
        here: &Lineage,
        there: &Lineage,
        error: ReplicateError,
    ) -> ReplicateError {
        if !here.encrypted || step.set_aside.is_some() {
            return error;
        }
        let (Ok(replica), Some(guid)) = (self.replica(&step.target.dataset), there.dataset) else {
            return error;
        };
        let words = error.report().said.unwrap_or_default();
        let anew = match names::diverged(&replica, guid) {
            Ok(aside) => format!("`zfs rename -u '{replica}' '{aside}'` sets it aside, and all is sent anew"),
            Err(_) => "rename the replica, and all is sent anew".to_owned(),
        };
        if words.contains("IV set guid mismatch") {
            return error.with_kind(ReplicateKind::Diverged).hint(format!(
                "a raw stream doesn't go on from what is there: {replica} was sent in the clear until now, or {} came back in the clear and has another key; {anew}, and where only `raw = false` was left out that can be set again",
                step.target.dataset
            ));
        }
        if !self.raw && words.contains("inherited key must be loaded") {
            return error.hint(format!(
                "load the key of what is above {replica} with `zfs load-key`; if it was sent raw until now, leave out `raw = false` again, or {anew}"
            ));
        }
        error
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
        let (settings, sent) = (space::write(&here.space), last.guid.to_string());
        let mut own = vec![
            ("canmount", "noauto"),
            ("readonly", "on"),
            (argv::SETTINGS, settings.as_str()),
            (argv::SENT, sent.as_str()),
        ];
        own.extend(origin.as_deref().map(|origin| (argv::ORIGIN, origin)));
        for (property, none) in space::none(&here.space) {
            own.push((property, none));
        }
        let form = argv::Form::of(here.encrypted, self.raw);
        let is_new = there.dataset.is_none() || step.set_aside.is_some();
        // With an increment `-x` keeps out only what the replica has a value of its own for, or was told to inherit while it came. What came
        // without properties was told nothing, and the first that come later replace what it was given by itself before
        // (OpenZFS 2.3.2).
        let may_be_first = form == argv::Form::Plain && !self.raw;
        if !is_new && (there.origin != origin || may_be_first) {
            own.extend([("mountpoint", "none"), ("sharenfs", "off"), ("sharesmb", "off")]);
        }
        let of_its_type = |name: &str| !here.volume || !argv::NOT_OF_VOLUMES.contains(&name);
        own.retain(|(name, _)| of_its_type(name));
        // Before anything is renamed.
        if self.syncoid.is_some() {
            Syncoid::can_set(&own)?;
        }
        let mut there = there.clone();
        if let Some(divergence) = &step.set_aside {
            self.set_aside(cx, &replica, divergence).await?;
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
        let Some(first) = left.first() else {
            return Ok(arrival);
        };
        if form == argv::Form::Decrypted {
            // What the snapshots say of themselves doesn't come along.
            arrival = Arrival::Unsure;
        }
        let never = if from.is_none() && bookmark.is_none() {
            staging::make_parents(&self.there, cx, &replica)
                .await
                .map_err(other)?;
            self.never_anew(cx, &replica, form).await?
        } else {
            argv::NEVER_RECEIVED
        };
        let fitting = |all: &[&'static str]| -> Vec<&'static str> {
            all.iter().copied().filter(|name| of_its_type(name)).collect()
        };
        let never = &fitting(never)[..];
        if let Some(syncoid) = &self.syncoid {
            let options = syncoid::Options {
                form,
                limit: self.limit,
                set: &own,
                never,
            };
            self.by_syncoid(cx, syncoid, last, &replica, &options).await?;
            return Ok(Arrival::Unsure);
        }
        if from.is_none() {
            let send = match &bookmark {
                Some(bookmark) => argv::send_since_bookmark(dataset, bookmark, &first.name, form),
                None => argv::send_full(dataset, &first.name, form),
            };
            let receive = argv::receive(&replica, &own, never);
            self.pipe(cx, &first.name, (dataset, &replica), send, receive)
                .await?;
            from = Some(first.name.clone());
            left = &left[1..];
        }
        if let (Some(from), false) = (from, left.is_empty()) {
            let send = argv::send_since(dataset, &from, &last.name, form);
            let receive = argv::receive(&replica, &own, &fitting(argv::NEVER_RECEIVED));
            self.pipe(cx, &last.name, (dataset, &replica), send, receive)
                .await?;
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
        options: &syncoid::Options<'_>,
    ) -> Result<(), ReplicateError> {
        let dataset = &last.dataset;
        let what = format!("syncoid can't send {dataset}@{} to {}", last.name, self.name);
        let at = self.there.location();
        let command = syncoid.command(dataset, replica, at, options)?;
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
        (dataset, replica): (&DatasetName, &DatasetName),
        send: argv::Args,
        receive: argv::Args,
    ) -> Result<(), ReplicateError> {
        let what = format!("can't send {dataset}@{last} to {}", self.name);
        let stream = self.stream(dataset, replica);
        let sent = self.here.send(cx, send, &self.there, receive, stream).await;
        error::piped(sent, what, Effect::Partial).map(drop)
    }

    /// Goes on with an interrupted stream: which of the snapshots it brought. What has begun to arrive of a snapshot
    /// of this dataset that it no longer has is thrown away; it was never a snapshot. Where a rollback has set it aside a stream could still be
    /// made of it, but not continued from. What is of something else is of use to somebody.
    async fn go_on(
        &self,
        cx: &Context,
        dataset: &DatasetName,
        replica: &DatasetName,
        token: &str,
        send: &[SnapshotRef],
        here: &Lineage,
    ) -> Result<Option<usize>, ReplicateError> {
        let decoded = match transfer::read_token::<ReplicateKind>(&self.here, cx, token).await? {
            Ok(decoded) => decoded,
            Err(useless) => {
                self.throw_away(cx, dataset, replica, useless.of.as_deref())
                    .await?;
                return Ok(None);
            }
        };
        let at = send.iter().position(|wanted| wanted.guid == decoded.to);
        // One whose name can't be read comes along, and is no step's.
        let is_odd = here.odd.iter().any(|odd| odd.guid == decoded.to);
        if at.is_none() && !is_odd {
            if here.has(decoded.to) {
                let what = format!("{replica} holds part of a snapshot of {dataset} that isn't in the plan");
                return Err(stale(what));
            }
            self.throw_away(cx, dataset, replica, decoded.of.as_deref())
                .await?;
            return Ok(None);
        }
        let (send, receive) = (argv::send_rest(token), argv::receive_rest(replica));
        let what = format!("can't send the rest of a snapshot of {dataset} to {}", self.name);
        error::piped::<ReplicateKind>(
            self.here
                .send(cx, send, &self.there, receive, self.stream(dataset, replica))
                .await,
            what,
            Effect::Partial,
        )?;
        if at.is_none() {
            return Err(stale(format!(
                "the rest of a snapshot of {dataset} with a name that can't be read has arrived; what comes after it is planned anew"
            )));
        }
        Ok(at)
    }

    /// Throws away what has arrived in part, if it was of this dataset.
    async fn throw_away(
        &self,
        cx: &Context,
        dataset: &DatasetName,
        replica: &DatasetName,
        of: Option<&str>,
    ) -> Result<(), ReplicateError> {
        let of = of.unwrap_or("something that can't be told");
        if of.split_once('@').map(|(name, _)| name) != Some(dataset.as_str()) {
            let what = format!("{replica} holds part of a stream of {of}, and not of {dataset}");
            return Err(ReplicateError::new(ReplicateKind::Diverged, what).hint(format!(
                "find out who else sends there; if nobody does, throw that part away: `zfs receive -A '{replica}'`"
            )));
        }
        cx.emit(Event::Warning {
            service: None,
            message: format!(
                "what had arrived in {replica} of {of}, which {dataset} no longer has, is thrown away"
            ),
            hint: None,
        });
        let what = format!("can't throw away what arrived in part in {replica}");
        let abort = argv::receive_abort(replica);
        self.there
            .change::<ReplicateKind>(cx, abort, what, Effect::Partial)
            .await
            .map(drop)
    }
}
