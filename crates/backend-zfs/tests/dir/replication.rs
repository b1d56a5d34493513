//! The replica beyond the contract: what is shared on it, names that are used again, damage on the way.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use reseed_backend_zfs::dir::{DirReplicator, DirSource};
use reseed_core::clock::SystemClock;
use reseed_core::error::{ReplicateKind, SourceKind};
use reseed_core::point::Target;
use reseed_core::{Context, Replicator, RestoreSource, SnapshotStore};
use reseed_testkit::conformance::replicate::ReplicaLab as _;
use reseed_testkit::conformance::{block_on, context, minute};
use reseed_testkit::files::{Files as _, write_odd_tree};

use crate::lab::{Replica, name};

async fn send(lab: &Replica, cx: &Context, target: &Target) -> reseed_core::replicate::ReplicationReport {
    let plan = lab
        .replicator
        .plan(cx, std::slice::from_ref(target))
        .await
        .unwrap();
    lab.replicator.execute(cx, &plan).await.unwrap()
}

#[test]
fn unchanged_files_are_shared_on_the_replica_too() {
    block_on(async {
        let (lab, cx) = (Replica::new(), context("share"));
        let target = lab.target("a");
        write_odd_tree(&lab.disk.files, &target.mountpoint);
        lab.disk.snapshot(&cx, &target, "one", 1).await;
        let first = send(&lab, &cx, &target).await;
        lab.disk.files.write(&target.mountpoint.join("which"), b"new");
        lab.disk.snapshot(&cx, &target, "two", 2).await;
        let second = send(&lab, &cx, &target).await;
        assert!(first.bytes > 9000 && second.bytes < 100, "{first:?} {second:?}");
        let at = |snapshot: &str, file: &str| {
            let path = lab
                .root
                .join("datasets/plain%a/snapshots")
                .join(snapshot)
                .join("tree")
                .join(file);
            fs::metadata(path).unwrap().ino()
        };
        for file in ["db/main.db", "private", "run.sh"] {
            assert_eq!(at("one", file), at("two", file), "{file} is on the replica twice");
        }
        assert_eq!(at("two", "private"), at("two", "second-name"));
    });
}

#[test]
fn an_older_snapshot_that_the_replica_lacks_is_sent_too() {
    block_on(async {
        let (lab, cx) = (Replica::new(), context("older"));
        let target = lab.target("a");
        write_odd_tree(&lab.disk.files, &target.mountpoint);
        let one = lab.disk.snapshot(&cx, &target, "one", 1).await;
        let two = lab.disk.snapshot(&cx, &target, "two", 2).await;
        send(&lab, &cx, &target).await;
        fs::remove_dir_all(lab.root.join("datasets/plain%a/snapshots/one")).unwrap();
        let plan = lab
            .replicator
            .plan(&cx, std::slice::from_ref(&target))
            .await
            .unwrap();
        assert_eq!(plan.steps[0].base, Some(two.reference()));
        assert_eq!(plan.steps[0].send, [one.reference()]);
        lab.replicator.execute(&cx, &plan).await.unwrap();
        assert_eq!(lab.copies(&target).await.len(), 2);
    });
}

#[test]
fn a_name_that_is_used_again_stands_beside_the_one_before() {
    block_on(async {
        let (lab, cx) = (Replica::new(), context("again"));
        let target = lab.target("a");
        lab.disk.files.write(&target.mountpoint.join("f"), b"first");
        lab.disk.snapshot(&cx, &target, "base", 1).await;
        let first = lab.disk.snapshot(&cx, &target, "manual", 2).await;
        send(&lab, &cx, &target).await;
        assert!(
            lab.disk.store.prune(&cx, &[first.reference()]).await.unwrap()[0]
                .kept
                .is_none()
        );
        lab.disk.files.write(&target.mountpoint.join("f"), b"second");
        let second = lab.disk.snapshot(&cx, &target, "manual", 3).await;
        send(&lab, &cx, &target).await;
        let copies = lab.copies(&target).await;
        assert_eq!(copies.len(), 3);
        assert!(copies.iter().all(|copy| !copy.aside));
        for (snapshot, content) in [(first, b"first".to_vec()), (second, b"second".to_vec())] {
            let copy = copies.iter().find(|copy| copy.guid == snapshot.guid).unwrap();
            assert_eq!(
                (&copy.name, copy.fingerprint),
                (&snapshot.name, snapshot.fingerprint)
            );
            let file = &copy.content[std::path::Path::new("f")];
            assert!(
                format!("{file:?}").contains(&format!("{:?}", reseed_hash(&content))),
                "{file:?}"
            );
        }
        assert!(
            lab.replicator
                .plan(&cx, &[target])
                .await
                .unwrap()
                .steps
                .is_empty()
        );
    });
}

fn reseed_hash(content: &[u8]) -> blake3::Hash {
    blake3::hash(content)
}

#[test]
fn damage_in_the_store_does_not_reach_the_replica() {
    block_on(async {
        let (lab, cx) = (Replica::new(), context("rot"));
        let target = lab.target("a");
        write_odd_tree(&lab.disk.files, &target.mountpoint);
        let made = lab.disk.snapshot(&cx, &target, "one", 1).await;
        let tree = lab.disk.tree_of(&cx, &target, &made.reference()).await;
        let file = tree.join("db/main.db");
        // As a disk does it: the times stay.
        let rot = |at| {
            let time = fs::metadata(&file).unwrap().modified().unwrap();
            lab.disk.files.flip(&file, at);
            fs::File::options()
                .write(true)
                .open(&file)
                .unwrap()
                .set_modified(time)
                .unwrap();
        };
        rot(77);
        let plan = lab
            .replicator
            .plan(&cx, std::slice::from_ref(&target))
            .await
            .unwrap();
        let error = lab.replicator.execute(&cx, &plan).await.unwrap_err();
        assert_eq!(error.kind(), ReplicateKind::Corrupt, "{error}");
        assert!(lab.copies(&target).await.is_empty());
        rot(77);
        lab.replicator.execute(&cx, &plan).await.unwrap();
        assert_eq!(lab.copies(&target).await.len(), 1);
    });
}

#[test]
fn a_damaged_snapshot_does_not_keep_back_what_comes_after_it() {
    block_on(async {
        let (lab, cx) = (Replica::new(), context("after"));
        let target = lab.target("a");
        lab.disk.files.write(&target.mountpoint.join("f"), b"data");
        let bad = lab.disk.snapshot(&cx, &target, "bad", 1).await;
        let tree = lab.disk.tree_of(&cx, &target, &bad.reference()).await;
        lab.disk.files.flip(&tree.join("f"), 1);
        lab.disk.files.write(&target.mountpoint.join("f"), b"newer data");
        let good = lab.disk.snapshot(&cx, &target, "good", 2).await;
        let targets = std::slice::from_ref(&target);
        let plan = lab.replicator.plan(&cx, targets).await.unwrap();
        let report = lab.replicator.execute(&cx, &plan).await.unwrap();
        assert_eq!(report.sent, [good.reference()]);
        assert_eq!(report.failed.len(), 1, "and it is told");

        // One whose record is damaged can't even be planned; that it is left out is said.
        fs::write(tree.parent().unwrap().join("meta.json"), "").unwrap();
        let plan = lab.replicator.plan(&cx, targets).await.unwrap();
        assert!(plan.steps.is_empty());
        assert_eq!(plan.left_out.len(), 1, "{plan:?}");
    });
}

#[test]
fn two_hosts_never_get_each_others_data_from_one_replica() {
    block_on(async {
        let (lab, cx) = (Replica::new(), context("hosts"));
        let target = lab.target("a");
        let targets = std::slice::from_ref(&target);
        lab.disk.files.write(&target.mountpoint.join("f"), b"data");
        lab.disk.snapshot(&cx, &target, "one", 1).await;
        let of = |host: &str| lab.replicator.clone().of_host(host);
        let plan = of("nas").plan(&cx, targets).await.unwrap();
        of("nas").execute(&cx, &plan).await.unwrap();
        let error = of("box").plan(&cx, targets).await.unwrap_err();
        assert_eq!(error.kind(), ReplicateKind::InvalidInput, "{error}");

        let clock = Arc::new(SystemClock::new());
        let source = DirSource::replica(lab.replicator.name().clone(), &lab.root, clock);
        let points = |host: &str| {
            let source = source.clone().of_host(host);
            let (cx, target) = (cx.clone(), target.clone());
            async move { source.points(&cx, &target).await }
        };
        assert_eq!(points("nas").await.unwrap().len(), 1);
        // Not an empty list, which would be a first start.
        assert_eq!(points("box").await.unwrap_err().kind(), SourceKind::NoSuchPoint);
    });
}

#[test]
fn one_damaged_dataset_does_not_keep_the_others_back() {
    block_on(async {
        let (lab, cx) = (Replica::new(), context("others"));
        let (bad, good) = (lab.target("bad"), lab.target("good"));
        for target in [&bad, &good] {
            lab.disk.files.write(&target.mountpoint.join("f"), b"data");
            lab.disk.snapshot(&cx, target, "one", 1).await;
        }
        let listed = lab
            .disk
            .store
            .list(&cx, std::slice::from_ref(&bad))
            .await
            .unwrap();
        let tree = lab.disk.tree_of(&cx, &bad, &listed[0].reference()).await;
        lab.disk.files.flip(&tree.join("f"), 1);
        let plan = lab
            .replicator
            .plan(&cx, &[bad.clone(), good.clone()])
            .await
            .unwrap();
        let report = lab.replicator.execute(&cx, &plan).await.unwrap();
        assert_eq!(report.sent.len(), 1);
        assert_eq!(report.failed.len(), 1);
        assert_eq!(report.failed[0].0, bad);
        assert_eq!(lab.copies(&good).await.len(), 1);
    });
}

#[test]
fn a_store_is_no_replica_of_itself() {
    block_on(async {
        let (lab, cx) = (Replica::new(), context("self"));
        let same = crate::lab::open("second", lab.disk.store.root());
        let way = DirReplicator::new(&lab.disk.store, same, Arc::new(SystemClock::new()));
        let error = way.plan(&cx, &[lab.target("a")]).await.unwrap_err();
        assert_eq!(error.kind(), ReplicateKind::InvalidInput, "{error}");
    });
}

#[test]
fn what_was_set_aside_can_be_restored() {
    block_on(async {
        let (lab, cx) = (Replica::new(), context("aside"));
        let target = lab.target("a");
        lab.disk
            .files
            .write(&target.mountpoint.join("f"), b"the good old data");
        let old = lab.disk.snapshot(&cx, &target, "old", 1).await;
        send(&lab, &cx, &target).await;
        // The store is lost and begins anew, with nothing.
        fs::remove_dir_all(lab.disk.path("store/datasets/plain%a")).unwrap();
        fs::remove_file(target.mountpoint.join("f")).unwrap();
        lab.disk.snapshot(&cx, &target, "new", 2).await;
        let report = send(&lab, &cx, &target).await;
        assert_eq!(report.set_aside.len(), 1);
        let source = DirSource::replica(name("second"), lab.root.clone(), Arc::new(SystemClock::new()));
        let points = source.points(&cx, &target).await.unwrap();
        assert_eq!(points.len(), 2);
        assert_eq!(
            (points[1].id.clone(), points[1].fingerprint),
            (old.guid.into(), old.fingerprint)
        );
    });
}

/// Decades from now, and decades ago, whatever the time is.
#[test]
fn a_date_in_the_future_hides_nothing_that_came_after_it() {
    block_on(async {
        let (lab, cx) = (Replica::new(), context("future"));
        let target = lab.target("t");
        let newest = async || {
            let found = lab.replicator.lineage(&cx, std::slice::from_ref(&target)).await;
            found.unwrap().remove(0).newest
        };
        for (name, minutes) in [("ahead", 40_000_000), ("one", -20_000_000), ("two", -10_000_000)] {
            lab.disk.files.write(&target.mountpoint.join(name), b"data");
            lab.disk.snapshot(&cx, &target, name, minutes).await;
            send(&lab, &cx, &target).await;
            assert_eq!(newest().await, Some(minute(minutes)), "{name}");
        }
    });
}

#[test]
fn a_dataset_that_is_named_twice_is_planned_once() {
    block_on(async {
        let (lab, cx) = (Replica::new(), context("twice"));
        let target = lab.target("t");
        lab.disk.files.write(&target.mountpoint.join("f"), b"data");
        lab.disk.snapshot(&cx, &target, "one", 1).await;
        let plan = lab
            .replicator
            .plan(&cx, &[target.clone(), target.clone()])
            .await
            .unwrap();
        assert_eq!(plan.steps.len(), 1);
        let report = lab.replicator.execute(&cx, &plan).await.unwrap();
        assert_eq!((report.sent.len(), report.failed), (1, vec![]));
    });
}
