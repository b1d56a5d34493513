//! Many snapshots are removed, and many fingerprints written, by one process; and nothing that one may not remove.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use reseed_backend_zfs::zfs::NativeStore;
use reseed_core::SnapshotStore as _;
use reseed_core::error::StoreKind;
use reseed_core::names::{Guid, SnapshotName};
use reseed_core::point::{Snapshot, SnapshotRef, Target};
use reseed_core::store::{CreateSnapshots, Pruned};
use reseed_testkit::conformance::{block_on, context, minute};
use reseed_testkit::files::Files as _;

use crate::lab::{Counting, Pool, as_nobody, name, sure};

struct Lab {
    pool: Pool,
    targets: Vec<Target>,
    counting: Arc<Counting>,
    store: NativeStore,
}

impl Lab {
    fn new(datasets: usize) -> Self {
        let pool = Pool::new();
        let targets: Vec<Target> = (0..datasets)
            .map(|at| pool.target(&format!("t:{at} x")))
            .collect();
        for target in &targets {
            sure(["zfs", "create", target.dataset.as_str()]);
            pool.files.write(&target.mountpoint.join("data"), b"1");
        }
        let counting = Arc::new(Counting::default());
        let store = NativeStore::new(name("local"), counting.clone(), pool.store.places());
        Self {
            pool,
            targets,
            counting,
            store,
        }
    }

    fn started(&self) -> usize {
        self.counting.started.swap(0, Ordering::SeqCst)
    }

    async fn take(&self, name: &str, measure: bool) -> Vec<Snapshot> {
        let request = CreateSnapshots {
            targets: self.targets.clone(),
            name: SnapshotName::new(name).unwrap(),
            taken_at: minute(1),
            measure,
            unseeded: false,
        };
        let made = self.store.create(&context("take"), &request).await.unwrap();
        assert_eq!(made.len(), self.targets.len());
        made
    }

    async fn left(&self) -> Vec<SnapshotRef> {
        let there = self.store.list(&context("list"), &self.targets).await.unwrap();
        there.iter().map(Snapshot::reference).collect()
    }
}

fn full(one: &SnapshotRef) -> String {
    format!("{}@{}", one.dataset, one.name)
}

fn why(pruned: &[Pruned], one: &SnapshotRef) -> Option<String> {
    let found = pruned.iter().find(|pruned| pruned.snapshot == *one).unwrap();
    found.kept.as_ref().map(|why| why.kind.clone())
}

#[test]
fn many_are_removed_by_one_process() {
    block_on(async {
        let lab = Lab::new(3);
        let mut doomed = Vec::new();
        for at in 0..8 {
            doomed.extend(
                lab.take(&format!("s{at}"), false)
                    .await
                    .iter()
                    .map(Snapshot::reference),
            );
        }
        let kept = doomed.split_off(21);
        // Numbers are signed in a channel program. That none of 21 guids is so large happens once in two million runs.
        assert!(doomed.iter().any(|one| one.guid.0 > u64::MAX / 2));
        assert!(doomed.iter().any(|one| one.guid.0 < u64::MAX / 2));
        lab.started();
        let pruned = lab.store.prune(&context("prune"), &doomed).await.unwrap();
        assert_eq!(lab.started(), 1);
        assert!(
            pruned.len() == 21 && pruned.iter().all(|one| one.kept.is_none()),
            "{pruned:?}"
        );
        let mut left = lab.left().await;
        left.sort();
        let mut kept = kept;
        kept.sort();
        assert_eq!(left, kept);
    });
}

#[test]
fn what_can_not_go_is_told_and_keeps_no_other() {
    block_on(async {
        let lab = Lab::new(2);
        let mut all = Vec::new();
        for at in 0..4 {
            all.push(lab.take(&format!("s{at}"), false).await.remove(0).reference());
        }
        let [free, held, cloned, seen] = &all[..] else {
            panic!("{all:?}")
        };
        sure(["zfs", "hold", "somebody", &full(held)]);
        sure([
            "zfs",
            "clone",
            &full(cloned),
            &format!("{}/svc/clone", lab.pool.pool),
        ]);
        // Mounted below `.zfs`, by a look at it: `zfs destroy` unmounts it.
        let inside = lab.targets[0]
            .mountpoint
            .join(format!(".zfs/snapshot/{}/data", seen.name));
        assert_eq!(std::fs::read(inside).unwrap(), b"1");
        let others = SnapshotRef {
            guid: Guid(free.guid.0 ^ 1),
            ..free.clone()
        };
        let gone = SnapshotRef {
            name: SnapshotName::new("gone").unwrap(),
            ..free.clone()
        };
        let wanted = [
            others.clone(),
            gone.clone(),
            held.clone(),
            cloned.clone(),
            seen.clone(),
        ];
        let pruned = lab.store.prune(&context("first"), &wanted).await.unwrap();
        let kinds: Vec<_> = wanted.iter().map(|one| why(&pruned, one)).collect();
        let told = |kind: StoreKind| Some(reseed_core::error::Kind::name(kind).to_owned());
        assert_eq!(
            kinds,
            [
                told(StoreKind::NotFound),
                told(StoreKind::NotFound),
                told(StoreKind::Held),
                told(StoreKind::Busy),
                None
            ],
            "{pruned:?}"
        );
        let left = lab.left().await;
        assert!(
            [free, held, cloned].iter().all(|one| left.contains(one)),
            "{left:?}"
        );
        assert!(!left.contains(seen));
        // Named together with those, one that may go does.
        let pruned = lab.store.prune(&context("second"), &all[..3]).await.unwrap();
        assert_eq!(why(&pruned, free), None, "{pruned:?}");
        assert!(!lab.left().await.contains(free));
    });
}

#[test]
fn who_is_not_root_removes_by_dataset() {
    let lab = Lab::new(2);
    let made = block_on(lab.take("one", false));
    let doomed: Vec<_> = made.iter().map(Snapshot::reference).collect();
    sure([
        "zfs",
        "allow",
        "-e",
        "destroy,mount",
        &format!("{}/svc", lab.pool.pool),
    ]);
    lab.started();
    let store = lab.store.clone();
    let pruned = as_nobody(move || block_on(store.prune(&context("prune"), &doomed)).unwrap());
    assert!(pruned.iter().all(|one| one.kept.is_none()), "{pruned:?}");
    assert_eq!(lab.started(), 4, "two listings, and a process a dataset");
    assert_eq!(block_on(lab.left()), []);
}

#[test]
fn many_fingerprints_are_written_by_one_process() {
    block_on(async {
        let lab = Lab::new(3);
        lab.started();
        let made = lab.take("one", true).await;
        assert_eq!(
            lab.started(),
            3,
            "the snapshot, a listing of it, and the fingerprints"
        );
        let there = lab.store.list(&context("list"), &lab.targets).await.unwrap();
        assert!(made.iter().all(|one| one.fingerprint.is_some()));
        assert_eq!(there, made);
    });
}
