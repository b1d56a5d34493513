//! Holds: what is being sent stays on the store until it has arrived, however short the retention there is.
//!
//! Held is what an interruption would make useless when it is pruned before the next run:
//!
//! - what is sent in full: the token that a cut leaves is of that snapshot, and without it all that arrived is lost;
//! - every snapshot of a stream of several: after a cut the newest that arrived is the base of the rest, and nobody knows
//!   beforehand which one that will be;
//! - one snapshot alone that is big ([`WORTH`]). A small one costs nothing: its base has a bookmark, and it is sent again.
//!
//! The kernel holds what a running `zfs send` reads; these holds are for when it, and reseed, run no more. They are there
//! before the first byte is sent. So a snapshot that could be held was there as long as the stream was made, and `-I`,
//! which silently leaves out what is gone, has brought it: nobody has to list afterwards what arrived.
//!
//! The tag names the replica. A run lets go of all that isn't needed any more, whoever held it: itself, or one that died.
//! After an interruption that is all but the newest that arrived and the one that the token is of. Where the replica can't be asked
//! what it has, everything stays held until it can.
//!
//! Who isn't allowed to hold is warned, and sends nevertheless.

use std::collections::{BTreeMap, BTreeSet};

use reseed_core::Context;
use reseed_core::error::{Effect, ReplicateError, ReplicateKind};
use reseed_core::event::Event;
use reseed_core::names::{DatasetName, Guid, HoldTag, SnapshotName, SourceName};
use reseed_core::point::SnapshotRef;
use reseed_core::replicate::ReplicationStep;

use super::super::lineage::{self, Base, Lineage};
use super::super::tool::Tool;
use super::super::{argv, list};

/// From how many bytes on a single snapshot is worth two processes, so that an interruption doesn't begin it anew.
const WORTH: u64 = 256 << 20;

/// A snapshot by its name.
pub(super) type Named = (DatasetName, SnapshotName);

/// What is held on the store for a replica, by tag.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Held(pub(super) BTreeMap<HoldTag, BTreeSet<Named>>);

/// The tag of what is being sent to a replica.
pub(super) fn tag(replica: &SourceName) -> Option<HoldTag> {
    HoldTag::new(format!("{}{replica}", argv::SENDING)).ok()
}

/// The tag of a replication's base, from before there were bookmarks for that.
fn base_tag(replica: &SourceName) -> Option<HoldTag> {
    HoldTag::new(format!("{}{replica}", argv::BASE)).ok()
}

impl Held {
    fn has(&self, tag: &HoldTag, one: &Named) -> bool {
        self.0.get(tag).is_some_and(|held| held.contains(one))
    }

    pub(super) fn add(&mut self, tag: &HoldTag, names: impl IntoIterator<Item = Named>) {
        self.0.entry(tag.clone()).or_default().extend(names);
    }

    /// The same without these.
    pub(super) fn without(mut self, needed: &BTreeSet<Named>) -> Self {
        for held in self.0.values_mut() {
            held.retain(|one| !needed.contains(one));
        }
        self.0.retain(|_, held| !held.is_empty());
        self
    }

    /// The same, of some datasets only.
    pub(super) fn of(mut self, datasets: &BTreeSet<&DatasetName>) -> Self {
        for held in self.0.values_mut() {
            held.retain(|(dataset, _)| datasets.contains(dataset));
        }
        self
    }

    /// As snapshots with their guids.
    pub(super) fn references(&self, here: &BTreeMap<DatasetName, Lineage>) -> Vec<SnapshotRef> {
        let all: BTreeSet<&Named> = self.0.values().flatten().collect();
        let reference = |(dataset, name): &&Named| {
            let mark = here
                .get(dataset)?
                .snapshots
                .iter()
                .find(|mark| mark.name == *name)?;
            Some(SnapshotRef {
                dataset: dataset.clone(),
                name: name.clone(),
                guid: mark.guid,
            })
        };
        all.iter().filter_map(reference).collect()
    }
}

/// What of the steps is to be held while it is sent. Pure.
pub(super) fn worth(steps: &[ReplicationStep]) -> BTreeSet<Named> {
    let is_much = |step: &ReplicationStep| step.bytes.is_none_or(|bytes| bytes >= WORTH);
    let is_worth = |step: &&ReplicationStep| step.base.is_none() || step.send.len() > 1 || is_much(step);
    let all = steps.iter().filter(is_worth).flat_map(|step| &step.send);
    all.map(|one| (one.dataset.clone(), one.name.clone())).collect()
}

/// What has to stay on the store so that the replica can be continued from where it is. Pure. What has a bookmark of this
/// replica's may go.
pub(super) fn needed(
    replica: &SourceName,
    dataset: &DatasetName,
    here: &Lineage,
    there: &Lineage,
) -> BTreeSet<Named> {
    let base = lineage::base(here, there);
    let mut all = BTreeSet::new();
    if let Some(Base {
        mark,
        is_bookmark: false,
    }) = &base
        && !has_bookmark(replica, here, mark.guid)
    {
        all.insert((dataset.clone(), mark.name.clone()));
    }
    // Streams bring snapshots in order, so a token is of the one after the newest that arrived.
    if there.resume_token.is_some()
        && let Some(next) = lineage::after(here, base.as_ref()).next()
    {
        all.insert((dataset.clone(), next.name.clone()));
    }
    all
}

/// The name of a replica's own bookmark.
pub(super) fn bookmark(replica: &SourceName, guid: Guid) -> String {
    format!("reseed:{replica}:{guid}")
}

/// Whether the base of an increment is there also when its snapshot is gone. Pure. Another's bookmark doesn't count: whoever
/// made it removes it, another replica of the same dataset for one.
pub(super) fn has_bookmark(replica: &SourceName, here: &Lineage, guid: Guid) -> bool {
    let name = bookmark(replica, guid);
    here.bookmarks
        .iter()
        .any(|mark| mark.guid == guid && mark.name.as_str() == name)
}

fn held_by_anyone(here: &BTreeMap<DatasetName, Lineage>) -> Vec<(&DatasetName, &SnapshotName)> {
    let mut all = Vec::new();
    for (dataset, lineage) in here {
        let held = lineage.snapshots.iter().filter(|mark| mark.userrefs > 0);
        all.extend(held.map(|mark| (dataset, &mark.name)));
    }
    all
}

/// What is held for a replica. Asks only when somebody holds anything.
pub(super) async fn held(
    tool: &Tool,
    cx: &Context,
    replica: &SourceName,
    here: &BTreeMap<DatasetName, Lineage>,
) -> Result<Held, ReplicateError> {
    let found = match list::holders::<ReplicateKind>(tool, cx, &held_by_anyone(here)).await {
        // One that went between both questions: the next run asks again.
        Err(error) if error.kind() == ReplicateKind::NotFound => return Ok(Held::default()),
        found => found?,
    };
    let ours = [tag(replica), base_tag(replica)];
    let mut all = Held::default();
    for (full, tag) in found {
        if let Some(tag) = ours.iter().flatten().find(|ours| **ours == tag)
            && let Some((dataset, name)) = full.split_once('@')
            && let (Ok(dataset), Ok(name)) = (DatasetName::new(dataset), SnapshotName::new(name))
        {
            all.add(tag, [(dataset, name)]);
        }
    }
    Ok(all)
}

/// Holds what isn't held yet. Whether all of it is held now, and what may be: of a command that failed others than the one that it
/// failed for are.
pub(super) async fn hold(
    tool: &Tool,
    cx: &Context,
    tag: &HoldTag,
    wanted: &BTreeSet<Named>,
    held: &Held,
) -> (bool, BTreeSet<Named>) {
    let missing: Vec<&Named> = wanted.iter().filter(|one| !held.has(tag, one)).collect();
    let mut may_be = wanted.clone();
    for one in &missing {
        may_be.remove(*one);
    }
    let mut all = true;
    for part in missing.chunks(argv::HELD_AT_ONCE) {
        let args = argv::hold(tag, part.iter().map(|(dataset, name)| (dataset, name)));
        let what = "what is being sent can't be held";
        let done = tool.change::<ReplicateKind>(cx, args, what, Effect::None).await;
        if let Err(error) = done {
            all = false;
            // One that was pruned right before isn't sent either; the others are held.
            if !matches!(error.kind(), ReplicateKind::NotFound | ReplicateKind::Cancelled) {
                warn(
                    cx,
                    &error,
                    "if it is interrupted, and what it is of pruned, it begins anew",
                );
            }
            if error.kind() == ReplicateKind::PermissionDenied {
                break;
            }
        }
        may_be.extend(part.iter().map(|one| (*one).clone()));
    }
    (all, may_be)
}

/// Lets go. What can't be is tried again by the next run.
pub(super) async fn release(tool: &Tool, cx: &Context, held: &Held) {
    for (tag, names) in &held.0 {
        let names: Vec<&Named> = names.iter().collect();
        for part in names.chunks(argv::HELD_AT_ONCE) {
            let args = argv::release(tag, part.iter().map(|(dataset, name)| (dataset, name)));
            let what = "what was held while it was sent can't be let go";
            let done = tool.change::<ReplicateKind>(cx, args, what, Effect::None).await;
            if let Err(error) = done
                && !is_gone(&error)
            {
                warn(
                    cx,
                    &error,
                    "it can't be pruned as long as it is held; the next replication tries again",
                );
            }
        }
    }
}

/// What was not held at all (its hold was cut off) is let go.
fn is_gone(error: &ReplicateError) -> bool {
    let said = error.tool_said().unwrap_or_default();
    error.kind() == ReplicateKind::NotFound || said.contains("no such tag")
}

fn warn(cx: &Context, error: &ReplicateError, hint: &str) {
    cx.emit(Event::Warning {
        service: None,
        message: error.to_string(),
        hint: Some(hint.to_owned()),
    });
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;
    use reseed_core::exec::{Command, ExecError, Exit, Output, PipeOutput, Runner, Streaming};
    use reseed_core::names::RunId;
    use reseed_core::point::Target;
    use tokio_util::sync::CancellationToken;

    use super::super::super::argv::tests::{ds, snap};
    use super::super::super::lineage::Mark;
    use super::super::super::location::Location;
    use super::*;

    /// Every command works, and how many names it has is kept.
    #[derive(Debug, Default)]
    struct Names(Mutex<Vec<usize>>);

    #[async_trait]
    impl Runner for Names {
        async fn run(&self, command: &Command, _: &CancellationToken) -> Result<Output, ExecError> {
            self.0.lock().unwrap().push(command.arguments().len() - 2);
            Ok(Output::fake(command, Exit::Code(0), "", ""))
        }
        async fn pipe(&self, _: &[Command], _: &CancellationToken) -> Result<PipeOutput, ExecError> {
            unreachable!("nothing is sent")
        }
        async fn stream(&self, _: &Command, _: &CancellationToken) -> Result<Streaming, ExecError> {
            unreachable!("nothing is streamed")
        }
    }

    #[test]
    fn no_command_holds_or_lets_go_of_so_many_that_its_time_is_up() {
        let names = Arc::new(Names::default());
        let tool = Tool::new(names.clone(), Location::Local);
        let cx = Context::silent(RunId::new("r-1").unwrap());
        let nas = tag(&SourceName::new("nas").unwrap()).unwrap();
        let all = named(&(1..=250).collect::<Vec<u64>>());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (sure, may_be) = hold(&tool, &cx, &nas, &all, &Held::default()).await;
            assert!(sure && may_be == all);
            let mut held = Held::default();
            held.add(&nas, all);
            release(&tool, &cx, &held).await;
        });
        assert_eq!(*names.0.lock().unwrap(), [100, 100, 50, 100, 100, 50]);
    }

    fn mark(guid: u64) -> Mark {
        Mark {
            name: snap(&format!("s{guid}")),
            guid: Guid(guid),
            createtxg: guid,
            written: 0,
            taken_at: jiff::Timestamp::UNIX_EPOCH,
            own: super::super::super::transfer::Own::default(),
            userrefs: 0,
        }
    }

    fn lineage(guids: impl IntoIterator<Item = u64>) -> Lineage {
        Lineage {
            dataset: Some(Guid(99)),
            snapshots: guids.into_iter().map(mark).collect(),
            ..Lineage::default()
        }
    }

    fn named(guids: &[u64]) -> BTreeSet<Named> {
        guids
            .iter()
            .map(|guid| (ds("tank/a"), snap(&format!("s{guid}"))))
            .collect()
    }

    fn step(base: Option<u64>, send: &[u64], bytes: u64) -> ReplicationStep {
        let reference = |guid: u64| SnapshotRef {
            dataset: ds("tank/a"),
            name: snap(&format!("s{guid}")),
            guid: Guid(guid),
        };
        ReplicationStep {
            target: Target {
                dataset: ds("tank/a"),
                mountpoint: "/a".into(),
            },
            base: base.map(reference),
            send: send.iter().copied().map(reference).collect(),
            bytes: Some(bytes),
            set_aside: None,
        }
    }

    #[test]
    fn what_an_interruption_would_lose_is_held_and_nothing_else() {
        assert_eq!(
            worth(&[step(Some(1), &[2], 5)]),
            named(&[]),
            "one small increment"
        );
        assert_eq!(worth(&[step(Some(1), &[2], WORTH)]), named(&[2]));
        assert_eq!(worth(&[step(Some(1), &[2, 3], 5)]), named(&[2, 3]));
        assert_eq!(worth(&[step(None, &[2], 5)]), named(&[2]));
    }

    #[test]
    fn what_the_next_run_goes_on_from_is_needed() {
        let nas = SourceName::new("nas").unwrap();
        let needs = |here: &Lineage, there: &Lineage| needed(&nas, &ds("tank/a"), here, there);
        let mut here = lineage(1..=4);
        // A first one that was cut; then a middle one, which is the base of the rest.
        let mut there = lineage([]);
        there.resume_token = Some("1-x".to_owned());
        assert_eq!(needs(&here, &there), named(&[1]));
        there.snapshots = vec![mark(1), mark(2)];
        assert_eq!(needs(&here, &there), named(&[2, 3]));
        there.resume_token = None;
        assert_eq!(needs(&here, &there), named(&[2]));
        let bookmarked = |replica: &str, guid| Mark {
            name: snap(&bookmark(&SourceName::new(replica).unwrap(), Guid(guid))),
            ..mark(guid)
        };
        // Another's bookmark stands for nothing: it is theirs to remove.
        here.bookmarks = vec![bookmarked("nas2", 2), mark(2)];
        assert_eq!(needs(&here, &there), named(&[2]));
        // A bookmark stands for a base, and for nothing else.
        here.bookmarks = vec![bookmarked("nas", 2), bookmarked("nas", 3)];
        assert_eq!(needs(&here, &there), named(&[]));
        there.resume_token = Some("1-x".to_owned());
        assert_eq!(needs(&here, &there), named(&[3]));
        // Nothing in common: everything may go.
        assert_eq!(needs(&here, &lineage([7])), named(&[]));
    }

    #[test]
    fn what_is_held_and_not_needed_is_let_go() {
        let (send, base) = (
            tag(&SourceName::new("nas").unwrap()).unwrap(),
            base_tag(&SourceName::new("nas").unwrap()).unwrap(),
        );
        let mut held = Held::default();
        held.add(&send, named(&[1, 2]));
        held.add(&base, named(&[2]));
        let left = held.without(&named(&[2]));
        assert_eq!(left.0, BTreeMap::from([(send, named(&[1]))]));
        let here = BTreeMap::from([(ds("tank/a"), lineage([1]))]);
        let all = left.references(&here);
        assert_eq!((all.len(), all[0].guid), (1, Guid(1)));
        assert_eq!(left.of(&BTreeSet::new()).references(&here), []);
    }
}
