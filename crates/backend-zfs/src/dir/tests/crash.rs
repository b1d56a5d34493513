//! A crash at every step of everything that writes, then the same again: it must end as without the crash.
//!
//! A crash is a worker that unwinds at its nth step: nothing of ours cleans up while unwinding, the locks go with their
//! descriptors, as with a process that dies. Each operation is run with a crash at step 0, 1, 2, … until one run gets
//! through.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use reseed_core::clock::SystemClock;
use reseed_core::entropy::SplitMix;
use reseed_core::names::{DatasetName, SnapshotName, SourceName};
use reseed_core::point::{Marker, MarkerState, RecoveryPoint, Snapshot, Target};
use reseed_core::source::{RestoreRequest, Scope};
use reseed_core::store::{
    Condition, CreateSnapshots, Delivery, Inspection, Replace, Settle, StagePurpose, StageRequest, Staging,
};
use reseed_core::{Context, Replicator, RestoreSource, SnapshotStore};
use reseed_testkit::conformance::{block_on, context, minute};
use reseed_testkit::files::{Files, Listing, RealFiles, assert_same, write_odd_tree};

use super::super::job::CrashAt;
use super::super::{DirReplicator, DirSource, DirStore};

const FILES: RealFiles = RealFiles;

struct Lab {
    dir: tempfile::TempDir,
    store: DirStore,
}

fn store_at(name: &str, root: &Path) -> DirStore {
    let name = SourceName::new(name).unwrap();
    DirStore::new(
        name,
        root,
        Arc::new(SystemClock::new()),
        Arc::new(SplitMix::seeded(3)),
    )
}

impl Lab {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = store_at("local", &dir.path().join("store"));
        store.init(&context("init")).await.unwrap();
        Self { dir, store }
    }

    fn target(&self, name: &str) -> Target {
        Target {
            dataset: DatasetName::new(format!("plain/{name}")).unwrap(),
            mountpoint: self.dir.path().join("live").join(name).join("data"),
        }
    }

    fn odd(&self, name: &str) -> Target {
        let target = self.target(name);
        write_odd_tree(&FILES, &target.mountpoint);
        target
    }

    async fn inspect(&self, target: &Target) -> Inspection {
        self.store
            .inspect(&context("look"), std::slice::from_ref(target))
            .await
            .unwrap()
            .remove(0)
    }

    async fn list(&self, target: &Target) -> Vec<Snapshot> {
        self.store
            .list(&context("look"), std::slice::from_ref(target))
            .await
            .unwrap()
    }

    /// The store, dying at its nth step.
    fn dying(&self, n: i64) -> (DirStore, Arc<CrashAt>) {
        let crash = CrashAt::nth(n);
        let mut store = self.store.clone();
        store.jobs.crash = Some(Arc::clone(&crash));
        (store, crash)
    }

    fn snapshot_tree(&self, snapshot: &Snapshot) -> PathBuf {
        let dataset = snapshot.dataset.as_str().replace('/', "%");
        self.store
            .root()
            .join("datasets")
            .join(dataset)
            .join("snapshots")
            .join(snapshot.name.as_str())
            .join("tree")
    }

    /// Names of ours that are left beside the target.
    fn leftovers(&self, target: &Target) -> Vec<String> {
        let parent = target.mountpoint.parent().unwrap();
        let mut names: Vec<String> = std::fs::read_dir(parent)
            .map(|all| {
                all.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                    .collect()
            })
            .unwrap_or_default();
        names.retain(|name| name.starts_with(".reseed-") && !name.starts_with(".reseed-aside."));
        names
    }
}

fn create(targets: &[&Target], name: &str, minutes: i64) -> CreateSnapshots {
    CreateSnapshots {
        targets: targets.iter().map(|&target| target.clone()).collect(),
        name: SnapshotName::new(name).unwrap(),
        taken_at: minute(minutes),
        measure: true,
        unseeded: false,
    }
}

fn marker(cx: &Context, point: &RecoveryPoint) -> Marker {
    reseed_testkit::conformance::marker(cx, point)
}

fn restore_of(target: &Target, point: &RecoveryPoint) -> StageRequest {
    let purpose = StagePurpose::Restore {
        point: point.clone(),
        delivery: Delivery::Files,
    };
    StageRequest {
        target: target.clone(),
        purpose,
    }
}

/// Whether the run got through; otherwise how it died.
fn died(crash: &CrashAt) -> Option<&'static str> {
    *crash.died_at.lock().unwrap()
}

#[test]
fn a_crash_while_snapshots_are_taken_leaves_all_or_none() {
    block_on(async {
        let lab = Lab::new().await;
        let (a, b) = (lab.odd("a"), lab.odd("b"));
        let cx = context("create");
        let mut seen = Vec::new();
        for n in 0.. {
            let name = format!("s{n}");
            FILES.write(&a.mountpoint.join("which"), name.as_bytes());
            let (dying, crash) = lab.dying(n);
            let made = dying.create(&cx, &create(&[&a, &b], &name, n)).await;
            let has = |all: Vec<Snapshot>| all.iter().any(|snapshot| snapshot.name.as_str() == name);
            let both = (has(lab.list(&a).await), has(lab.list(&b).await));
            assert_eq!(
                both.0,
                both.1,
                "one has it, the other hasn't, after {:?}",
                died(&crash)
            );
            let Some(step) = died(&crash) else {
                made.unwrap();
                break;
            };
            made.unwrap_err();
            seen.push(step);
            if !both.0 {
                lab.store.create(&cx, &create(&[&a, &b], &name, n)).await.unwrap();
            }
            let all = lab.list(&a).await;
            let newest = all.last().unwrap();
            assert_eq!(newest.name.as_str(), name);
            assert_same(
                &FILES.list(&a.mountpoint),
                &FILES.list(&lab.snapshot_tree(newest)),
                "a snapshot",
            );
            let hidden =
                std::fs::read_dir(lab.snapshot_tree(newest).parent().unwrap().parent().unwrap()).unwrap();
            let hidden = hidden.filter(|entry| {
                entry
                    .as_ref()
                    .unwrap()
                    .file_name()
                    .to_string_lossy()
                    .starts_with('.')
            });
            assert_eq!(hidden.count(), 0, "something half made is left after {step}");
            lab.store.prune(&cx, &[newest.reference()]).await.unwrap();
        }
        for step in [
            "wrote the group record",
            "put a snapshot in place",
            "copied an entry",
            "synced a snapshot",
        ] {
            assert!(seen.contains(&step), "{step} was never died at: {seen:?}");
        }
        assert_eq!(
            std::fs::read_dir(lab.store.root().join("groups"))
                .unwrap()
                .count(),
            0
        );
    });
}

#[test]
fn a_crash_while_pruning_leaves_whole_snapshots_only() {
    block_on(async {
        let lab = Lab::new().await;
        let target = lab.odd("a");
        let cx = context("prune");
        let kept = lab
            .store
            .create(&cx, &create(&[&target], "kept", 1))
            .await
            .unwrap()
            .remove(0);
        let before = FILES.list(&lab.snapshot_tree(&kept));
        for n in 0.. {
            let made = lab
                .store
                .create(&cx, &create(&[&target], "pruned", 2 + n))
                .await
                .unwrap()
                .remove(0);
            let (dying, crash) = lab.dying(n);
            let _ = dying.prune(&cx, &[made.reference()]).await;
            for snapshot in lab.list(&target).await {
                assert_same(
                    &before,
                    &FILES.list(&lab.snapshot_tree(&snapshot)),
                    "a snapshot that is listed",
                );
            }
            let _ = lab.store.prune(&cx, &[made.reference()]).await.unwrap();
            assert_eq!(lab.list(&target).await, vec![kept.clone()]);
            if died(&crash).is_none() {
                assert!(n > 5, "only {n} steps");
                break;
            }
        }
    });
}

/// A point in the store, and what it holds.
async fn point_of(lab: &Lab, name: &str) -> (Target, RecoveryPoint, Listing) {
    let target = lab.odd(name);
    lab.store
        .create(&context("keep"), &create(&[&target], "point", 1))
        .await
        .unwrap();
    let expected = FILES.list(&target.mountpoint);
    FILES.remove(target.mountpoint.parent().unwrap());
    let point = DirSource::local(&lab.store)
        .points(&context("keep"), &target)
        .await
        .unwrap()
        .remove(0);
    (target, point, expected)
}

/// Restores once, dying where the store says so. Each call is made as the chain makes it.
async fn restore(
    store: &DirStore,
    cx: &Context,
    target: &Target,
    point: &RecoveryPoint,
    replace: Replace,
) -> Option<()> {
    let staging: Staging = store.stage(cx, &restore_of(target, point)).await.ok()?;
    let source = DirSource::local(store);
    let request = RestoreRequest {
        target: target.clone(),
        point: point.clone(),
        scope: Scope::Whole,
    };
    let plan = source.plan(cx, &request).await.ok()?;
    source.execute(cx, &plan, &staging).await.ok()?;
    let settle = Settle::Promote {
        staging,
        replace,
        marker: marker(cx, point),
    };
    store.settle(cx, &settle).await.ok().map(drop)
}

/// How the target was before a restore.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Before {
    Absent,
    Empty,
    Populated,
}

fn crash_at_every_step_of_a_restore(before: Before, no_exchange: bool) {
    block_on(async {
        let lab = Lab::new().await;
        let cx = context("restore");
        let (target, point, expected) = point_of(&lab, "a").await;
        let mut promoted = 0;
        for n in 0.. {
            FILES.remove(target.mountpoint.parent().unwrap());
            let mut replace = Replace::OnlyEmpty;
            match before {
                Before::Absent => {}
                Before::Empty => FILES.make_dir(&target.mountpoint),
                Before::Populated => {
                    FILES.write(&target.mountpoint.join("old"), b"old data");
                    replace = Replace::SetAside {
                        guid: lab.inspect(&target).await.guid.unwrap(),
                    };
                }
            }
            let (mut dying, crash) = lab.dying(n);
            dying.jobs.no_exchange = no_exchange;
            let through = restore(&dying, &cx, &target, &point, replace).await;
            let found = lab.inspect(&target).await;
            let at = (n, died(&crash));
            let live = FILES.list(&target.mountpoint);
            // Never a half tree, never a marker before the data.
            match (&found.condition, before) {
                (Condition::Populated, Before::Populated) if live.contains_key(Path::new("old")) => {
                    assert_eq!(found.marker, None, "{at:?}");
                }
                (Condition::Populated, _) => {
                    assert_same(&expected, &live, &format!("what is live after {at:?}"));
                    if found.marker.is_none() {
                        let leftover = found.leftover.clone().expect("an unfinished promotion is told");
                        assert!(leftover.promoted, "{at:?}");
                        let finish = Settle::Finish {
                            target: target.clone(),
                            leftover,
                            marker: marker(&cx, &point),
                        };
                        lab.store.settle(&cx, &finish).await.unwrap();
                        lab.store.settle(&cx, &finish).await.unwrap();
                        promoted += 1;
                    }
                }
                (Condition::Absent | Condition::Empty, _) => assert_eq!(found.marker, None, "{at:?}"),
                (other, _) => panic!("{other:?} after {at:?}"),
            }
            let done = lab.inspect(&target).await.marker.is_some();
            if !done {
                let mut again = lab.store.clone();
                again.jobs.no_exchange = no_exchange;
                restore(&again, &cx, &target, &point, replace)
                    .await
                    .expect("the second try gets through");
            }
            let end = lab.inspect(&target).await;
            assert_eq!(
                (end.condition, end.marker),
                (Condition::Populated, Some(marker(&cx, &point))),
                "{at:?}"
            );
            assert_same(
                &expected,
                &FILES.list(&target.mountpoint),
                &format!("the end after {at:?}"),
            );
            if before == Before::Populated {
                let parent = target.mountpoint.parent().unwrap();
                let aside: Vec<PathBuf> = std::fs::read_dir(parent)
                    .unwrap()
                    .map(|entry| entry.unwrap().path().join("old"))
                    .filter(|path| FILES.read(path).as_deref() == Some(b"old data"))
                    .collect();
                assert_eq!(aside.len(), 1, "what was set aside after {at:?}");
            }
            // What may be left is a staging directory that is done with; the next stage or discard takes it.
            let rest = lab.leftovers(&target);
            if died(&crash).is_none() {
                through.unwrap();
                assert_eq!(rest, Vec::<String>::new());
                break;
            }
        }
        assert!(
            promoted >= 2,
            "no crash between the rename and the marker was seen"
        );
    });
}

#[test]
fn a_crash_of_a_restore_onto_nothing_is_finished() {
    crash_at_every_step_of_a_restore(Before::Absent, false);
}

#[test]
fn a_crash_of_a_restore_onto_an_empty_directory_is_finished() {
    crash_at_every_step_of_a_restore(Before::Empty, false);
}

#[test]
fn a_crash_of_a_restore_that_sets_aside_is_finished() {
    crash_at_every_step_of_a_restore(Before::Populated, false);
}

#[test]
fn a_crash_without_exchange_is_finished() {
    crash_at_every_step_of_a_restore(Before::Empty, true);
    crash_at_every_step_of_a_restore(Before::Populated, true);
}

#[test]
fn a_crash_while_quarantining_keeps_what_is_bad_and_frees_the_place() {
    block_on(async {
        let lab = Lab::new().await;
        let cx = context("quarantine");
        let (target, point, _) = point_of(&lab, "a").await;
        for n in 0.. {
            let staging = lab.store.stage(&cx, &restore_of(&target, &point)).await.unwrap();
            FILES.write(&staging.path.join("bad"), format!("bad {n}").as_bytes());
            let (dying, crash) = lab.dying(n);
            let request = Settle::Quarantine {
                staging,
                why: "it is bad".to_owned(),
            };
            let result = dying.settle(&cx, &request).await;
            // The next run stages anew: that finishes it, or opens what was not begun.
            let staging = lab.store.stage(&cx, &restore_of(&target, &point)).await.unwrap();
            let bad = FILES.read(&staging.path.join("bad"));
            let kept = target
                .mountpoint
                .parent()
                .unwrap()
                .join(".reseed-quarantine.data.local/tree/bad");
            match bad {
                Some(content) => assert_eq!(content, format!("bad {n}").as_bytes()),
                None => assert_eq!(
                    FILES.read(&kept),
                    Some(format!("bad {n}").into_bytes()),
                    "after {:?}",
                    died(&crash)
                ),
            }
            lab.store.settle(&cx, &Settle::Discard { staging }).await.unwrap();
            if died(&crash).is_none() {
                result.unwrap();
                assert!(n >= 3);
                break;
            }
        }
    });
}

#[test]
fn a_crash_while_discarding_leaves_nothing_that_is_taken_for_data() {
    block_on(async {
        let lab = Lab::new().await;
        let cx = context("discard");
        let (target, point, _) = point_of(&lab, "a").await;
        for n in 0.. {
            let staging = lab.store.stage(&cx, &restore_of(&target, &point)).await.unwrap();
            write_odd_tree(&FILES, &staging.path);
            let (dying, crash) = lab.dying(n);
            let _ = dying
                .settle(
                    &cx,
                    &Settle::Discard {
                        staging: staging.clone(),
                    },
                )
                .await;
            assert_eq!(lab.inspect(&target).await.condition, Condition::Absent);
            lab.store.settle(&cx, &Settle::Discard { staging }).await.unwrap();
            let again = lab.store.stage(&cx, &restore_of(&target, &point)).await.unwrap();
            assert_eq!(FILES.list(&again.path).len(), 1);
            lab.store
                .settle(&cx, &Settle::Discard { staging: again })
                .await
                .unwrap();
            assert_eq!(lab.leftovers(&target), Vec::<String>::new());
            if died(&crash).is_none() {
                break;
            }
        }
    });
}

#[test]
fn a_crash_while_replicating_leaves_whole_snapshots_and_is_continued() {
    block_on(async {
        let lab = Lab::new().await;
        let cx = context("replicate");
        let target = lab.odd("a");
        lab.store
            .create(&cx, &create(&[&target], "one", 1))
            .await
            .unwrap();
        FILES.write(&target.mountpoint.join("db/main.db"), b"changed");
        lab.store
            .create(&cx, &create(&[&target], "two", 2))
            .await
            .unwrap();
        let trees: Vec<Listing> = lab
            .list(&target)
            .await
            .iter()
            .map(|s| FILES.list(&lab.snapshot_tree(s)))
            .collect();
        for n in 0.. {
            let root = lab.dir.path().join(format!("replica{n}"));
            let replica = store_at("second", &root);
            replica.init(&cx).await.unwrap();
            let crash = CrashAt::nth(n);
            let clock = Arc::new(SystemClock::new());
            let mut way = DirReplicator::new(&lab.store, replica.clone(), clock);
            let plan = way.plan(&cx, std::slice::from_ref(&target)).await.unwrap();
            way.jobs.crash = Some(Arc::clone(&crash));
            let _ = way.execute(&cx, &plan).await;
            way.jobs.crash = None;
            let check = async |whole: bool| {
                let arrived = replica.list(&cx, std::slice::from_ref(&target)).await.unwrap();
                assert!(!whole || arrived.len() == 2);
                for (at, snapshot) in arrived.iter().enumerate() {
                    let expose = StagePurpose::Expose {
                        snapshot: snapshot.reference(),
                    };
                    let request = StageRequest {
                        target: target.clone(),
                        purpose: expose,
                    };
                    let tree = replica.stage(&cx, &request).await.unwrap().path;
                    assert_same(&trees[at], &FILES.list(&tree), "a snapshot on the replica");
                }
            };
            check(false).await;
            let plan = way.plan(&cx, std::slice::from_ref(&target)).await.unwrap();
            way.execute(&cx, &plan).await.unwrap();
            check(true).await;
            assert!(
                way.plan(&cx, std::slice::from_ref(&target))
                    .await
                    .unwrap()
                    .steps
                    .is_empty()
            );
            if died(&crash).is_none() {
                assert!(n > 20, "only {n} steps");
                break;
            }
        }
    });
}

#[test]
fn a_service_that_writes_between_the_look_and_the_exchange_keeps_its_data() {
    block_on(async {
        let lab = Lab::new().await;
        let cx = context("race");
        let (target, point, _) = point_of(&lab, "a").await;
        FILES.make_dir(&target.mountpoint);
        let staging = lab.store.stage(&cx, &restore_of(&target, &point)).await.unwrap();
        FILES.write(&staging.path.join("staged"), b"staged");
        let late = target.mountpoint.join("late");
        let crash = Arc::new(CrashAt {
            at: Some((
                "synced the staged tree",
                Box::new(move || FILES.write(&late, b"written by the service")),
            )),
            ..CrashAt::never()
        });
        let mut store = lab.store.clone();
        store.jobs.crash = Some(crash);
        let request = Settle::Promote {
            staging: staging.clone(),
            replace: Replace::OnlyEmpty,
            marker: marker(&cx, &point),
        };
        let error = store.settle(&cx, &request).await.unwrap_err();
        assert_eq!(error.kind(), reseed_core::error::StoreKind::StalePlan);
        assert_eq!(
            FILES.read(&target.mountpoint.join("late")).as_deref(),
            Some(&b"written by the service"[..])
        );
        assert!(!FILES.exists(&target.mountpoint.join("staged")));
        assert_eq!(
            FILES.read(&staging.path.join("staged")).as_deref(),
            Some(&b"staged"[..])
        );
        assert_eq!(lab.inspect(&target).await.marker, None);
        store.jobs.no_exchange = true;
        store.jobs.crash = None;
        let error = store.settle(&cx, &request).await.unwrap_err();
        assert_eq!(error.kind(), reseed_core::error::StoreKind::StalePlan);
        assert!(FILES.exists(&target.mountpoint.join("late")));
    });
}

#[test]
fn a_marker_for_another_point_is_not_written() {
    block_on(async {
        let lab = Lab::new().await;
        let cx = context("other");
        let (target, point, _) = point_of(&lab, "a").await;
        let staging = lab.store.stage(&cx, &restore_of(&target, &point)).await.unwrap();
        FILES.write(&staging.path.join("staged"), b"staged");
        let mut other = marker(&cx, &point);
        if let MarkerState::Restored { source, .. } = &mut other.state {
            *source = SourceName::new("elsewhere").unwrap();
        }
        let request = Settle::Promote {
            staging,
            replace: Replace::OnlyEmpty,
            marker: other,
        };
        assert!(lab.store.settle(&cx, &request).await.is_err());
        assert_eq!(lab.inspect(&target).await.condition, Condition::Absent);
    });
}
