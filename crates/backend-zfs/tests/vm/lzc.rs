//! What libzfs_core takes instead of a process: that it does, and that nobody could tell by the outcome.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use reseed_backend_zfs::zfs::{Lzc, NativeStore};
use reseed_core::SnapshotStore as _;
use reseed_core::error::{Effect, StoreError, StoreKind};
use reseed_core::names::SnapshotName;
use reseed_core::point::{Snapshot, Target};
use reseed_core::store::CreateSnapshots;
use reseed_testkit::conformance::{block_on, context, minute};

use crate::lab::{Counting, Pool, as_nobody, name, sure};
use crate::vm_survive_pool::{resume, suspend, thin};

/// A pool with some datasets, and two stores of it.
struct Lab {
    pool: Pool,
    targets: Vec<Target>,
    counting: Arc<Counting>,
    lzc: NativeStore,
    tool: NativeStore,
}

impl Lab {
    fn new(pool: Pool, datasets: usize) -> Self {
        let targets: Vec<Target> = (0..datasets)
            .map(|at| pool.target(&format!("t:{at} x")))
            .collect();
        for target in &targets {
            sure(["zfs", "create", target.dataset.as_str()]);
        }
        let counting = Arc::new(Counting::default());
        let tool = NativeStore::new(name("local"), counting.clone(), pool.store.places());
        Self {
            lzc: tool.clone().in_process(Lzc::open().unwrap()),
            pool,
            targets,
            counting,
            tool,
        }
    }

    fn started(&self) -> usize {
        self.counting.started.swap(0, Ordering::SeqCst)
    }

    async fn names(&self) -> Vec<String> {
        let listed = self.tool.list(&context("list"), &self.targets).await.unwrap();
        listed.iter().map(full).collect()
    }
}

fn full(one: &Snapshot) -> String {
    format!("{}@{}", one.dataset, one.name)
}

fn request(targets: &[Target], name: &str) -> CreateSnapshots {
    CreateSnapshots {
        targets: targets.to_vec(),
        name: SnapshotName::new(name).unwrap(),
        taken_at: minute(7),
        measure: false,
        unseeded: true,
    }
}

async fn refused(store: &NativeStore, targets: &[Target], name: &str) -> StoreError {
    store
        .create(&context("refused"), &request(targets, name))
        .await
        .unwrap_err()
}

#[test]
fn snapshots_of_many_datasets_and_removing_them_take_no_process() {
    block_on(async {
        let lab = Lab::new(Pool::new(), 3);
        let cx = context("many");
        let mut made = lab
            .lzc
            .create(&cx, &request(&lab.targets, "a b:1"))
            .await
            .unwrap();
        assert_eq!(lab.started(), 1, "only the listing of what was made");
        assert_eq!(made.len(), 3);
        for one in &made {
            assert!(one.unseeded && one.taken_at == minute(7), "{one:?}");
            let group = ["zfs", "get", "-Hp", "-o", "value", "createtxg", &full(one)];
            assert_eq!(
                sure(group),
                sure(["zfs", "get", "-Hp", "-o", "value", "createtxg", &full(&made[0])])
            );
        }
        made.extend(lab.lzc.create(&cx, &request(&lab.targets, "2")).await.unwrap());
        // Nobody has typed a command; what was done is on the record nevertheless.
        let history = |more| sure(["zpool", "history", more, &lab.pool.pool]);
        assert!(history("-i").contains("snapshot") && history("-i").contains("a b:1"));
        assert!(!history("-l").contains("zfs snapshot"));
        lab.started();
        let doomed: Vec<_> = made.iter().map(Snapshot::reference).collect();
        let pruned = lab.lzc.prune(&cx, &doomed).await.unwrap();
        assert!(pruned.iter().all(|one| one.kept.is_none()), "{pruned:?}");
        assert_eq!(lab.started(), 1, "root has a channel program do it");
        assert_eq!(lab.names().await, [""; 0]);
    });
}

#[test]
fn removing_snapshots_of_many_datasets_takes_no_process_of_who_is_not_root() {
    let lab = Lab::new(Pool::new(), 3);
    let made = block_on(lab.lzc.create(&context("many"), &request(&lab.targets, "one"))).unwrap();
    let doomed: Vec<_> = made.iter().map(Snapshot::reference).collect();
    sure([
        "zfs",
        "allow",
        "-e",
        "destroy,mount",
        &format!("{}/svc", lab.pool.pool),
    ]);
    lab.started();
    let lzc = lab.lzc.clone();
    let pruned = as_nobody(move || block_on(lzc.prune(&context("prune"), &doomed)).unwrap());
    assert!(pruned.iter().all(|one| one.kept.is_none()), "{pruned:?}");
    assert_eq!(lab.started(), 2, "only the listings before and after");
    block_on(async { assert_eq!(lab.names().await, [""; 0]) });
}

#[test]
fn a_refusal_is_the_tools_and_leaves_nothing() {
    block_on(async {
        let lab = Lab::new(Pool::new(), 3);
        let taken = format!("{}@one", lab.targets[1].dataset);
        sure(["zfs", "snapshot", &taken]);
        for store in [&lab.tool, &lab.lzc] {
            let error = refused(store, &lab.targets, "one").await;
            assert_eq!(
                (error.kind(), error.may_have()),
                (StoreKind::AlreadyExists, Effect::None)
            );
            let words = format!("cannot create snapshot '{taken}': dataset already exists");
            assert!(error.tool_said().unwrap().contains(&words), "{error:?}");
        }
        let mut more = lab.targets.clone();
        more.push(lab.pool.target("gone"));
        for store in [&lab.tool, &lab.lzc] {
            let error = refused(store, &more, "two").await;
            assert_eq!(
                (error.kind(), error.may_have()),
                (StoreKind::NotFound, Effect::None)
            );
            assert!(error.tool_said().unwrap().contains("svc/gone"), "{error:?}");
        }
        assert_eq!(lab.names().await, [taken]);
    });
}

#[test]
fn one_that_can_not_go_keeps_no_other() {
    block_on(async {
        let lab = Lab::new(Pool::new(), 3);
        let cx = context("clone");
        let made = lab.lzc.create(&cx, &request(&lab.targets, "one")).await.unwrap();
        sure([
            "zfs",
            "clone",
            &full(&made[1]),
            &format!("{}/svc/clone", lab.pool.pool),
        ]);
        let doomed: Vec<_> = made.iter().map(Snapshot::reference).collect();
        let pruned = lab.lzc.prune(&cx, &doomed).await.unwrap();
        let kept: Vec<bool> = pruned.iter().map(|one| one.kept.is_some()).collect();
        assert_eq!(kept, [false, true, false], "{pruned:?}");
        assert_eq!(lab.names().await, [full(&made[1])]);
    });
}

#[test]
fn a_cancelled_run_begins_no_call() {
    block_on(async {
        let lab = Lab::new(Pool::new(), 2);
        let made = lab
            .lzc
            .create(&context("first"), &request(&lab.targets, "one"))
            .await
            .unwrap();
        let cx = context("cancelled");
        cx.cancel.cancel();
        let error = lab
            .lzc
            .create(&cx, &request(&lab.targets, "two"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), StoreKind::Cancelled);
        let doomed: Vec<_> = made.iter().map(Snapshot::reference).collect();
        assert_eq!(
            lab.lzc.prune(&cx, &doomed).await.unwrap_err().kind(),
            StoreKind::Cancelled
        );
        assert_eq!(lab.names().await.len(), 2);
    });
}

#[test]
fn who_may_not_is_told_so() {
    let lab = Lab::new(Pool::new(), 2);
    let (lzc, tool, targets) = (lab.lzc.clone(), lab.tool.clone(), lab.targets.clone());
    as_nobody(move || {
        block_on(async {
            for store in [&tool, &lzc] {
                let error = refused(store, &targets, "one").await;
                assert_eq!(
                    (error.kind(), error.may_have()),
                    (StoreKind::PermissionDenied, Effect::None),
                    "{error:?}"
                );
                assert!(
                    error.tool_said().unwrap().contains("permission denied"),
                    "{error:?}"
                );
            }
        });
    });
    block_on(async { assert_eq!(lab.names().await, [""; 0]) });
}

#[test]
fn a_pool_that_is_away_or_suspended_is_told_as_by_the_tool() {
    block_on(async {
        let lab = Lab::new(thin(), 1);
        let away = Pool::new();
        let there = away.target("t");
        sure(["zpool", "export", &away.pool]);
        let error = refused(&lab.lzc, std::slice::from_ref(&there), "one").await;
        assert_eq!(error.kind(), StoreKind::PoolUnavailable, "{error:?}");
        sure(["zpool", "import", "-d", away.root.to_str().unwrap(), &away.pool]);

        let writes = suspend(&lab.pool).await;
        lab.started();
        let error = refused(&lab.lzc, &lab.targets, "one").await;
        assert_eq!(error.kind(), StoreKind::PoolUnavailable, "{error:?}");
        assert_ne!(lab.started(), 0, "a process, which can be left behind");
        resume(&lab.pool, writes);
        let made = lab
            .lzc
            .create(&context("again"), &request(&lab.targets, "one"))
            .await;
        assert_eq!(made.unwrap().len(), 1);
    });
}
