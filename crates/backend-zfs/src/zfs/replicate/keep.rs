//! Bookmarks: what makes a snapshot usable as the base of the next increment after it was pruned.
//!
//! Bookmarks are made of the newest snapshot that is to be sent, of the first one where everything is sent, and of the base if
//! it has none: before anything is sent, so that whatever has arrived when the power fails has one. (Those between are held meanwhile,
//! see [`hold`](super::hold).) Where the base's snapshot is gone, and only another's bookmark (another replica's, an administrator's) stands for
//! it, ours is made of that one: whoever made it may remove it at any time. One that didn't arrive is no base and does no harm, because a base is looked for among what the
//! replica has. For many datasets one process makes all of a pool's bookmarks (a channel program, which only root may
//! run); where that fails each is made by itself.
//!
//! `zfs` removes bookmarks one by one, and each costs a process and a transaction group. So a dataset keeps a few old ones,
//! and they go together when there are more than [`MOST_OLD`]. The base of what is being sent is never among them.

use std::collections::{BTreeMap, BTreeSet};

use reseed_core::Context;
use reseed_core::error::{Effect, ReplicateError, ReplicateKind};
use reseed_core::event::Event;
use reseed_core::names::{DatasetName, Guid, SnapshotName, SourceName};
use reseed_core::point::SnapshotRef;
use reseed_core::replicate::ReplicationStep;

use super::super::argv::{self, BookmarkOf};
use super::super::lineage::Lineage;
use super::super::tool::Tool;
use super::hold::{self, has_bookmark};

/// Old bookmarks of one replica that a dataset may have before they are removed.
const MOST_OLD: usize = 8;
/// Bookmarks that one channel program makes.
const AT_ONCE: usize = 500;

/// A bookmark to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) dataset: DatasetName,
    pub(super) of: BookmarkOf,
    pub(super) guid: Guid,
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
        let base = step.base.as_ref();
        let first = step.send.first().filter(|_| step.base.is_none());
        let mut known = BTreeSet::from([Some(newest.guid), step.base.as_ref().map(|base| base.guid)]);
        for one in base.into_iter().chain(first).chain([newest]) {
            known.insert(Some(one.guid));
            let Some(of) = source(from, one) else {
                continue;
            };
            // A name that would be too long for ZFS.
            let Ok(name) = SnapshotName::new(hold::bookmark(replica, one.guid)) else {
                continue;
            };
            let wanted = Wanted {
                dataset: step.target.dataset.clone(),
                of,
                guid: one.guid,
                bookmark: name,
            };
            if !has_bookmark(replica, from, one.guid) && !all.make.contains(&wanted) {
                all.make.push(wanted);
            }
        }
        let old: Vec<_> = from
            .bookmarks
            .iter()
            .filter(|mark| mark.name.as_str().starts_with(&prefix))
            .filter(|mark| !known.contains(&Some(mark.guid)))
            .map(|mark| (step.target.dataset.clone(), mark.name.clone()))
            .collect();
        if old.len() > MOST_OLD {
            all.remove.extend(old);
        }
    }
    all
}

/// What a bookmark can be made of: the snapshot, or whoever's bookmark of it where it is gone.
fn source(from: &Lineage, one: &SnapshotRef) -> Option<BookmarkOf> {
    if from.has(one.guid) {
        return Some(BookmarkOf::Snapshot(one.name.clone()));
    }
    let another = from.bookmarks.iter().find(|mark| mark.guid == one.guid)?;
    Some(BookmarkOf::Bookmark(another.name.clone()))
}

/// Makes bookmarks; says which are there now. One that can't be made is no failure: the snapshot itself is a base as long as it
/// is there, and is held for that.
pub(super) async fn make_all(tool: &Tool, cx: &Context, make: &[Wanted]) -> Vec<Wanted> {
    let mut by_pool: BTreeMap<String, Vec<Wanted>> = BTreeMap::new();
    for wanted in make {
        by_pool
            .entry(wanted.dataset.pool().to_owned())
            .or_default()
            .push(wanted.clone());
    }
    let mut made = Vec::with_capacity(make.len());
    for (pool, wanted) in by_pool {
        for part in wanted.chunks(AT_ONCE) {
            made.extend(make_some(tool, cx, &pool, part).await);
        }
    }
    made
}

/// Removes bookmarks that are of no use any more.
pub(super) async fn remove(tool: &Tool, cx: &Context, remove: &[(DatasetName, SnapshotName)]) {
    for (dataset, bookmark) in remove {
        let args = argv::destroy_bookmark(dataset, bookmark);
        // It is tried again next time.
        let _ = tool
            .change::<ReplicateKind>(cx, args, "can't remove an older bookmark", Effect::None)
            .await;
    }
}

async fn make_some(tool: &Tool, cx: &Context, pool: &str, wanted: &[Wanted]) -> Vec<Wanted> {
    if wanted.len() > 1 {
        let args = argv::bookmark_all(
            pool,
            wanted.iter().map(|one| (&one.dataset, &one.of, &one.bookmark)),
        );
        let what = "can't make bookmarks with a channel program";
        let made = tool
            .change_with::<ReplicateKind>(cx, args, argv::BOOKMARK_ALL, what, Effect::None)
            .await;
        if made.is_ok() {
            return wanted.to_vec();
        }
    }
    let mut all = Vec::with_capacity(wanted.len());
    for one in wanted {
        if cx.cancel.is_cancelled() {
            break;
        }
        let what = format!("can't keep a bookmark of {}", one.of.full(&one.dataset));
        let args = argv::bookmark(&one.dataset, &one.of, &one.bookmark);
        let error: ReplicateError = match tool.change(cx, args, what, Effect::None).await {
            Ok(_) => {
                all.push(one.clone());
                continue;
            }
            // Its name has the guid in it, so it is the same.
            Err(error) if error.kind() == ReplicateKind::AlreadyExists => {
                all.push(one.clone());
                continue;
            }
            Err(error) if error.kind() == ReplicateKind::Cancelled => break,
            Err(error) => error,
        };
        cx.emit(Event::Warning {
            service: None,
            message: error.to_string(),
            hint: Some("without it, removing that one makes the next replication a full one".to_owned()),
        });
        // What isn't allowed for one isn't for the others: it is said once.
        if error.kind() == ReplicateKind::PermissionDenied {
            break;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use reseed_core::names::Guid;
    use reseed_core::point::Target;

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
            userrefs: 0,
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
            snapshots: (1..=20).map(|guid| mark(&format!("s{guid}"), guid)).collect(),
            bookmarks,
            ..Lineage::default()
        };
        BTreeMap::from([(ds("tank/a"), lineage)])
    }

    fn ours(guid: u64) -> Mark {
        mark(&format!("reseed:nas:{}", Guid(guid)), guid)
    }

    fn made(all: &Keeping) -> Vec<u64> {
        all.make.iter().map(|wanted| wanted.guid.0).collect()
    }

    #[test]
    fn what_is_there_is_not_made_again() {
        let nas = SourceName::new("nas").unwrap();
        let all = keeping(&nas, &[step(1, 2)], &with(vec![ours(1)]));
        assert_eq!(made(&all), [2]);
        assert_eq!(all.make[0].bookmark.as_str(), format!("reseed:nas:{}", Guid(2)));
        assert_eq!(
            keeping(&nas, &[step(1, 2)], &with(vec![ours(1), ours(2)])),
            Keeping::default()
        );
        // Another's is no reason to have none: it is theirs to remove.
        let anothers = mark(&format!("reseed:nas2:{}", Guid(1)), 1);
        for one in [mark("by-hand", 1), anothers] {
            assert_eq!(made(&keeping(&nas, &[step(1, 2)], &with(vec![one]))), [1, 2]);
        }
    }

    #[test]
    fn a_base_without_one_gets_one_and_what_arrives_first_too() {
        let nas = SourceName::new("nas").unwrap();
        assert_eq!(made(&keeping(&nas, &[step(1, 2)], &with(vec![]))), [1, 2]);
        let mut full = step(1, 3);
        full.base = None;
        full.send.insert(0, step(1, 2).send.remove(0));
        assert_eq!(
            made(&keeping(&nas, std::slice::from_ref(&full), &with(vec![]))),
            [2, 3]
        );
        full.send.pop();
        assert_eq!(made(&keeping(&nas, &[full], &with(vec![]))), [2]);
        // The base's snapshot is gone, and its bookmark is what it is.
        assert_eq!(made(&keeping(&nas, &[step(30, 2)], &with(vec![ours(30)]))), [2]);
        // Or another's, who may remove it: ours is made of that one.
        for theirs in ["by-hand", "reseed:nas2:30"] {
            let all = keeping(&nas, &[step(30, 2)], &with(vec![mark(theirs, 30)]));
            assert_eq!(made(&all), [30, 2]);
            assert_eq!(all.make[0].of, BookmarkOf::Bookmark(snap(theirs)));
            assert_eq!(all.make[0].bookmark, ours(30).name);
            assert_eq!(all.make[1].of, BookmarkOf::Snapshot(snap("s2")));
        }
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
