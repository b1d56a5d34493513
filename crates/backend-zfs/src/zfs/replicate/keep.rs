//! Bookmarks: what makes a snapshot usable as the base of the next increment after it was pruned.
//!
//! A bookmark of the newest snapshot that is being sent is made while it is being sent: one that didn't arrive is no base
//! and does no harm, because a base is looked for among what the replica has. For many datasets one process makes all of a
//! pool's bookmarks (a channel program, which only root may run); where that fails each is made by itself.
//!
//! `zfs` removes bookmarks one by one, and each costs a process and a transaction group. So a dataset keeps a few old ones,
//! and they go together when there are more than [`MOST_OLD`]. The base of what is being sent is never among them.

use std::collections::BTreeMap;

use reseed_core::Context;
use reseed_core::error::{Effect, ReplicateError, ReplicateKind};
use reseed_core::event::Event;
use reseed_core::names::{DatasetName, SnapshotName, SourceName};
use reseed_core::replicate::ReplicationStep;

use super::super::argv;
use super::super::lineage::Lineage;
use super::super::tool::Tool;

/// Old bookmarks of one replica that a dataset may have before they are removed.
const MOST_OLD: usize = 8;
/// Bookmarks that one channel program makes.
const AT_ONCE: usize = 500;

/// A bookmark to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) dataset: DatasetName,
    pub(super) snapshot: SnapshotName,
    pub(super) bookmark: SnapshotName,
}

/// What is to be done for the steps of a plan.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Keeping {
    pub(super) make: Vec<Wanted>,
    pub(super) remove: Vec<(DatasetName, SnapshotName)>,
}

/// Says what to make and what to remove. Pure.
pub(super) fn keeping(
    replica: &SourceName,
    steps: &[ReplicationStep],
    here: &BTreeMap<DatasetName, Lineage>,
) -> Keeping {
    let mut all = Keeping::default();
    let prefix = format!("reseed:{replica}:");
    for step in steps {
        let (Some(newest), Some(from)) = (step.send.last(), here.get(&step.target.dataset)) else {
            continue;
        };
        // A name that would be too long for ZFS.
        let Ok(name) = SnapshotName::new(format!("{prefix}{}", newest.guid)) else {
            continue;
        };
        if !from.bookmarks.iter().any(|mark| mark.name == name) {
            all.make.push(Wanted {
                dataset: step.target.dataset.clone(),
                snapshot: newest.name.clone(),
                bookmark: name.clone(),
            });
        }
        let base = step.base.as_ref().map(|base| base.guid);
        let old: Vec<_> = from
            .bookmarks
            .iter()
            .filter(|mark| mark.name.as_str().starts_with(&prefix))
            .filter(|mark| mark.name != name && Some(mark.guid) != base)
            .map(|mark| (step.target.dataset.clone(), mark.name.clone()))
            .collect();
        if old.len() > MOST_OLD {
            all.remove.extend(old);
        }
    }
    all
}

/// Does it. A bookmark that can't be made is no failure: the snapshot itself is a base as long as it is there.
pub(super) async fn keep(tool: &Tool, cx: &Context, what: Keeping) {
    let mut by_pool: BTreeMap<String, Vec<Wanted>> = BTreeMap::new();
    for wanted in what.make {
        by_pool
            .entry(wanted.dataset.pool().to_owned())
            .or_default()
            .push(wanted);
    }
    for (pool, wanted) in by_pool {
        for part in wanted.chunks(AT_ONCE) {
            make(tool, cx, &pool, part).await;
        }
    }
    for (dataset, bookmark) in &what.remove {
        let args = argv::destroy_bookmark(dataset, bookmark);
        // It is tried again next time.
        let _ = tool
            .change::<ReplicateKind>(cx, args, "can't remove an older bookmark", Effect::None)
            .await;
    }
}

async fn make(tool: &Tool, cx: &Context, pool: &str, wanted: &[Wanted]) {
    if wanted.len() > 1 {
        let args = argv::bookmark_all(
            pool,
            wanted
                .iter()
                .map(|one| (&one.dataset, &one.snapshot, &one.bookmark)),
        );
        let what = "can't make bookmarks with a channel program";
        let made = tool
            .change_with::<ReplicateKind>(cx, args, argv::BOOKMARK_ALL, what, Effect::None)
            .await;
        if made.is_ok() {
            return;
        }
    }
    for one in wanted {
        if cx.cancel.is_cancelled() {
            return;
        }
        let what = format!("can't keep a bookmark of {}@{}", one.dataset, one.snapshot);
        let args = argv::bookmark(&one.dataset, &one.snapshot, &one.bookmark);
        let error: ReplicateError = match tool.change(cx, args, what, Effect::None).await {
            Ok(_) => continue,
            // Its name has the guid in it, so it is the same.
            Err(error)
                if matches!(
                    error.kind(),
                    ReplicateKind::AlreadyExists | ReplicateKind::Cancelled
                ) =>
            {
                continue;
            }
            Err(error) => error,
        };
        cx.emit(Event::Warning {
            service: None,
            message: error.to_string(),
            hint: Some("without it, pruning that snapshot makes the next replication a full one".to_owned()),
        });
        // What isn't allowed for one isn't for the others: it is said once.
        if error.kind() == ReplicateKind::PermissionDenied {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use reseed_core::names::Guid;
    use reseed_core::point::{SnapshotRef, Target};

    use super::super::super::argv::tests::{ds, snap};
    use super::super::super::lineage::Mark;
    use super::*;

    fn mark(name: &str, guid: u64) -> Mark {
        Mark {
            name: snap(name),
            guid: Guid(guid),
            createtxg: guid,
            written: 0,
            taken_at: jiff::Timestamp::UNIX_EPOCH,
            own: super::super::super::transfer::Own::default(),
        }
    }

    fn step(base: u64, last: u64) -> ReplicationStep {
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
            base: Some(reference(base)),
            send: vec![reference(last)],
            bytes: None,
            set_aside: None,
        }
    }

    fn with(bookmarks: Vec<Mark>) -> BTreeMap<DatasetName, Lineage> {
        let lineage = Lineage {
            bookmarks,
            ..Lineage::default()
        };
        BTreeMap::from([(ds("tank/a"), lineage)])
    }

    fn ours(guid: u64) -> Mark {
        mark(&format!("reseed:nas:{}", Guid(guid)), guid)
    }

    #[test]
    fn what_is_there_is_not_made_again() {
        let nas = SourceName::new("nas").unwrap();
        let made = keeping(&nas, &[step(1, 2)], &with(vec![ours(1)]));
        assert_eq!(made.make.len(), 1);
        assert_eq!(made.make[0].bookmark.as_str(), format!("reseed:nas:{}", Guid(2)));
        assert_eq!(
            keeping(&nas, &[step(1, 2)], &with(vec![ours(1), ours(2)])),
            Keeping::default()
        );
    }

    #[test]
    fn the_base_and_what_is_anothers_stays() {
        let nas = SourceName::new("nas").unwrap();
        let mut marks: Vec<Mark> = (1..=10).map(ours).collect();
        marks.push(mark("reseed:other:5", 50));
        marks.push(mark("by-hand", 51));
        let done = keeping(&nas, &[step(10, 11)], &with(marks.clone()));
        let removed: Vec<_> = done.remove.iter().map(|(_, name)| name.clone()).collect();
        let expected: Vec<_> = (1..=9).map(|guid| ours(guid).name).collect();
        assert_eq!(removed, expected);
        marks.remove(0);
        assert_eq!(keeping(&nas, &[step(10, 11)], &with(marks)).remove, []);
    }
}
