//! What others learnt the hard way, each on real ZFS.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use reseed_backend_zfs::zfs::{LocalSource, NativeStore};
use reseed_core::error::StoreKind;
use reseed_core::point::{Marker, MarkerState, Target};
use reseed_core::source::{RestoreRequest, Scope};
use reseed_core::store::{Condition, Delivery, Replace, Settle, StagePurpose, StageRequest};
use reseed_core::{Replicator as _, RestoreSource as _, SnapshotStore};
use reseed_testkit::conformance::replicate::ReplicaLab as _;
use reseed_testkit::conformance::{block_on, context, minute};
use reseed_testkit::files::Files as _;

use crate::lab::{Counting, Pool, bookmarks, name, run, sure};
use crate::replica_lab::Replica;
use crate::source_lab::snapshot;

async fn condition(pool: &Pool, target: &Target) -> Condition {
    let mut all = pool
        .store
        .inspect(&context("look"), std::slice::from_ref(target))
        .await
        .unwrap();
    all.remove(0).condition
}

fn adopted() -> Marker {
    Marker {
        run: context("adopt").run,
        at: minute(1),
        state: MarkerState::Adopted,
    }
}

#[test]
fn fifty_present_datasets_take_one_process() {
    block_on(async {
        let pool = Pool::new();
        let targets: Vec<Target> = (0..50).map(|at| pool.target(&format!("t{at}"))).collect();
        for target in &targets {
            sure(["zfs", "create", target.dataset.as_str()]);
            pool.files.write(&target.mountpoint.join("data"), b"1");
        }
        let counting = Arc::new(Counting::default());
        let store = NativeStore::new(name("local"), counting.clone(), pool.store.places());
        let found = store.inspect(&context("fifty"), &targets).await.unwrap();
        assert!(found.iter().all(|one| one.condition == Condition::Populated));
        assert_eq!(counting.started.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn what_stands_at_a_mountpoint_is_never_hidden() {
    block_on(async {
        let pool = Pool::new();
        let (absent, unmounted) = (pool.target("absent"), pool.target("unmounted"));
        pool.files
            .write(&absent.mountpoint.join("precious"), b"a plain directory");
        assert!(matches!(
            condition(&pool, &absent).await,
            Condition::Occupied { .. }
        ));
        let start = |target: &Target| Settle::StartEmpty {
            target: target.clone(),
            marker: adopted(),
        };
        let error = pool
            .store
            .settle(&context("o"), &start(&absent))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), StoreKind::Occupied);
        assert!(!run(["zfs", "list", absent.dataset.as_str()]).exit.success());
        // Unmounted, with its own data hidden in it: neither absent nor empty; and with something in its place.
        sure(["zfs", "create", unmounted.dataset.as_str()]);
        pool.files.write(&unmounted.mountpoint.join("data"), b"1");
        sure(["zfs", "unmount", unmounted.dataset.as_str()]);
        assert!(matches!(
            condition(&pool, &unmounted).await,
            Condition::Unmounted { .. }
        ));
        pool.files
            .write(&unmounted.mountpoint.join("late"), b"made before the mount");
        assert!(matches!(
            condition(&pool, &unmounted).await,
            Condition::Occupied { .. }
        ));
        assert!(
            pool.store
                .settle(&context("o"), &start(&unmounted))
                .await
                .is_err()
        );
        assert_eq!(
            pool.files.read(&absent.mountpoint.join("precious")).unwrap(),
            b"a plain directory"
        );
    });
}

#[test]
fn a_marker_is_neither_inherited_nor_received() {
    block_on(async {
        let pool = Pool::new();
        let (parent, child, copy) = (
            pool.target("parent"),
            pool.target("parent/child"),
            pool.target("copy"),
        );
        for target in [&parent, &child] {
            sure(["zfs", "create", target.dataset.as_str()]);
        }
        let cx = context("m");
        let guid = pool
            .store
            .inspect(&cx, std::slice::from_ref(&parent))
            .await
            .unwrap()[0]
            .guid
            .unwrap();
        let mark = Settle::Mark {
            target: parent.clone(),
            guid,
            marker: adopted(),
        };
        pool.store.settle(&cx, &mark).await.unwrap();
        sure(["zfs", "snapshot", &format!("{}@s", parent.dataset)]);
        crate::source_lab::send(&["-p", &format!("{}@s", parent.dataset)], copy.dataset.as_str()).await;
        assert!(
            sure([
                "zfs",
                "get",
                "-H",
                "-o",
                "value",
                "reseed:marker",
                copy.dataset.as_str()
            ])
            .contains("guid")
        );
        let found = pool.store.inspect(&cx, &[parent, child, copy]).await.unwrap();
        let markers: Vec<_> = found.iter().map(|one| one.marker.is_some()).collect();
        assert_eq!(markers, [true, false, false]);
    });
}

#[test]
fn a_restore_from_local_snapshots_loses_none_of_them() {
    block_on(async {
        let (pool, cx) = (Pool::new(), context("local"));
        let target = pool.target("t");
        sure(["zfs", "create", target.dataset.as_str()]);
        for (minutes, name) in (1..).zip(["one", "two", "three"]) {
            pool.files
                .write(&target.mountpoint.join("which"), name.as_bytes());
            snapshot(&pool, &target, name, minutes, false).await;
        }
        pool.files
            .write(&target.mountpoint.join("which"), b"not in any snapshot");
        let source = LocalSource::new(&pool.store);
        let before = source.points(&cx, &target).await.unwrap();
        let point = before
            .iter()
            .find(|point| point.snapshot.as_ref().unwrap().as_str() == "two")
            .unwrap();
        let purpose = StagePurpose::Restore {
            point: point.clone(),
            delivery: Delivery::Native,
        };
        let stage = StageRequest {
            target: target.clone(),
            purpose,
        };
        let staging = pool.store.stage(&cx, &stage).await.unwrap();
        let request = RestoreRequest {
            target: target.clone(),
            point: point.clone(),
            scope: Scope::Whole,
        };
        let plan = source.plan(&cx, &request).await.unwrap();
        source.execute(&cx, &plan, &staging).await.unwrap();
        let staging = pool.store.stage(&cx, &stage).await.unwrap();
        let guid = pool
            .store
            .inspect(&cx, std::slice::from_ref(&target))
            .await
            .unwrap()[0]
            .guid
            .unwrap();
        let promote = Settle::Promote {
            staging,
            replace: Replace::SetAside { guid },
            marker: reseed_testkit::conformance::marker(&cx, point),
        };
        let settled = pool.store.settle(&cx, &promote).await.unwrap();
        assert_eq!(pool.files.read(&target.mountpoint.join("which")).unwrap(), b"two");
        // The live dataset has the history up to what was restored, what was set aside has the rest, and what was live.
        let listed = pool.store.list(&cx, std::slice::from_ref(&target)).await.unwrap();
        let names: Vec<_> = listed.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["one", "two"]);
        let aside = settled.set_aside.unwrap();
        let kept = pool.read(&aside);
        assert!(kept.keys().any(|path| path.ends_with("which")));
        assert_eq!(
            sure([
                "zfs",
                "get",
                "-H",
                "-o",
                "value",
                "origin",
                target.dataset.as_str()
            ]),
            "-"
        );
        let after = source.points(&cx, &target).await.unwrap();
        let ids = |points: &[reseed_core::point::RecoveryPoint]| {
            points.iter().map(|p| p.id.clone()).collect::<Vec<_>>()
        };
        assert_eq!(ids(&after), ids(&before));
    });
}

/// Makes a replica's stream break off after so many bytes.
fn cut(from: &str, bytes: &str, into: &str) {
    let line = format!(
        "zfs send -p -L -c -e '{from}' | head -c {bytes} | zfs receive -s -u -x mountpoint -o canmount=noauto -o readonly=on '{into}'"
    );
    let output = run(["sh", "-c", &line]);
    assert!(
        output.stderr.text().contains("resuming stream"),
        "{}",
        output.stderr.text()
    );
}

#[test]
fn a_receive_that_was_cut_goes_on_and_misses_nothing() {
    block_on(async {
        let (lab, cx) = (Replica::new(), context("cut"));
        for (at, bytes) in ["400000", "1000000", "1700000", "2600000", "3300000"]
            .into_iter()
            .enumerate()
        {
            let target = lab.target(&format!("t{at}"));
            let noise: Vec<u8> = (0..1_000_000_u32)
                .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
                .collect();
            lab.pool.files.write(&target.mountpoint.join("noise"), &noise);
            let one = snapshot(&lab.pool, &target, "one", 1, true).await;
            let replica = lab.replica_of(&target);
            sure([
                "zfs",
                "create",
                "-p",
                "-o",
                "canmount=off",
                replica.as_str().rsplit_once('/').unwrap().0,
            ]);
            cut(&format!("{}@one", target.dataset), bytes, replica.as_str());
            assert!(
                lab.copies(&target).await.is_empty(),
                "half of a snapshot looks complete"
            );
            let two = snapshot(&lab.pool, &target, "two", 2, true).await;
            let plan = lab
                .replicator
                .plan(&cx, std::slice::from_ref(&target))
                .await
                .unwrap();
            let report = lab.replicator.execute(&cx, &plan).await.unwrap();
            assert_eq!(report.failed, []);
            let copies = lab.copies(&target).await;
            // A resumed stream brings no properties; they are there nevertheless.
            let found: Vec<_> = copies
                .iter()
                .map(|copy| (copy.guid, copy.taken_at, copy.fingerprint))
                .collect();
            assert_eq!(
                found,
                [one, two].map(|s| (s.guid, s.taken_at, s.fingerprint)),
                "cut after {bytes}"
            );
        }
    });
}

#[test]
fn a_token_of_a_snapshot_that_was_replaced_is_not_gone_on_with() {
    block_on(async {
        let (lab, cx) = (Replica::new(), context("replaced"));
        let target = lab.target("t");
        lab.pool
            .files
            .write(&target.mountpoint.join("noise"), &vec![3; 3_000_000]);
        let old = snapshot(&lab.pool, &target, "one", 1, false).await;
        let replica = lab.replica_of(&target);
        sure([
            "zfs",
            "create",
            "-p",
            "-o",
            "canmount=off",
            replica.as_str().rsplit_once('/').unwrap().0,
        ]);
        cut(&format!("{}@one", target.dataset), "1000000", replica.as_str());
        lab.pool.store.prune(&cx, &[old.reference()]).await.unwrap();
        let new = snapshot(&lab.pool, &target, "one", 2, false).await;
        let plan = lab
            .replicator
            .plan(&cx, std::slice::from_ref(&target))
            .await
            .unwrap();
        lab.replicator.execute(&cx, &plan).await.unwrap();
        let guids: Vec<_> = lab.copies(&target).await.iter().map(|copy| copy.guid).collect();
        assert_eq!(guids, [new.guid]);
    });
}

#[test]
fn a_replica_is_not_mounted_and_a_modified_one_is_set_aside() {
    block_on(async {
        let (lab, cx) = (Replica::new(), context("modified"));
        let target = lab.target("t");
        lab.pool.files.write(&target.mountpoint.join("f"), b"1");
        sure(["zfs", "set", "canmount=on", target.dataset.as_str()]);
        snapshot(&lab.pool, &target, "one", 1, false).await;
        let targets = [target.clone()];
        let plan = lab.replicator.plan(&cx, &targets).await.unwrap();
        lab.replicator.execute(&cx, &plan).await.unwrap();
        let replica = lab.replica_of(&target);
        let replica = replica.as_str();
        let got = sure([
            "zfs",
            "get",
            "-H",
            "-o",
            "value",
            "mounted,canmount,readonly,mountpoint",
            replica,
        ]);
        let got: Vec<&str> = got.lines().collect();
        assert_eq!(got[..3], ["no", "noauto", "on"]);
        assert_ne!(got[3], target.mountpoint.to_str().unwrap());
        // Somebody mounts it and writes.
        sure(["zfs", "set", "readonly=off", replica]);
        sure(["zfs", "mount", replica]);
        std::fs::write(format!("{}/written", got[3]), "there").unwrap();
        sure(["zfs", "unmount", replica]);
        snapshot(&lab.pool, &target, "two", 2, false).await;
        let plan = lab.replicator.plan(&cx, &targets).await.unwrap();
        let aside = plan.steps[0].set_aside.clone().expect("planned");
        assert_eq!(plan.steps[0].send.len(), 2, "everything is sent anew beside it");
        let report = lab.replicator.execute(&cx, &plan).await.unwrap();
        assert_eq!(report.set_aside, std::slice::from_ref(&aside.renamed_to));
        assert!(
            lab.back
                .read(&aside.renamed_to)
                .keys()
                .any(|path| path.ends_with("written"))
        );
        assert_eq!(lab.replicator.plan(&cx, &targets).await.unwrap().steps, []);
    });
}

#[test]
fn a_pruned_base_is_replaced_by_its_bookmark() {
    block_on(async {
        let (lab, cx) = (Replica::new(), context("bookmark"));
        let target = lab.target("t");
        let targets = [target.clone()];
        let one = snapshot(&lab.pool, &target, "one", 1, false).await;
        let plan = lab.replicator.plan(&cx, &targets).await.unwrap();
        lab.replicator.execute(&cx, &plan).await.unwrap();
        assert!(
            lab.pool.store.prune(&cx, &[one.reference()]).await.unwrap()[0]
                .kept
                .is_none()
        );
        for (minutes, name) in [(2, "two"), (3, "three")] {
            lab.pool.files.write(&target.mountpoint.join(name), b"1");
            snapshot(&lab.pool, &target, name, minutes, false).await;
        }
        let plan = lab.replicator.plan(&cx, &targets).await.unwrap();
        assert_eq!(
            (plan.steps[0].set_aside.as_ref(), plan.steps[0].send.len()),
            (None, 2)
        );
        lab.replicator.execute(&cx, &plan).await.unwrap();
        let names: Vec<_> = lab
            .copies(&target)
            .await
            .iter()
            .map(|copy| copy.name.to_string())
            .collect();
        assert_eq!(names, ["one", "two", "three"]);
        let marks = bookmarks(target.dataset.as_str());
        assert_eq!(marks.lines().count(), 2, "that of the base stays: {marks}");
        for minutes in 4..16 {
            snapshot(&lab.pool, &target, &format!("n{minutes}"), minutes, false).await;
            let plan = lab.replicator.plan(&cx, &targets).await.unwrap();
            lab.replicator.execute(&cx, &plan).await.unwrap();
        }
        let marks = bookmarks(target.dataset.as_str());
        assert!(
            (2..=10).contains(&marks.lines().count()),
            "older bookmarks go: {marks}"
        );
    });
}

#[test]
fn an_encrypted_dataset_is_sent_raw_and_waits_for_its_key() {
    block_on(async {
        let (lab, cx) = (Replica::new(), context("key"));
        let target = lab.pool.target("secret");
        lab.pool.encrypted(target.dataset.as_str());
        lab.pool.files.write(&target.mountpoint.join("f"), b"secret");
        snapshot(&lab.pool, &target, "one", 1, false).await;
        let targets = [target.clone()];
        let plan = lab.replicator.plan(&cx, &targets).await.unwrap();
        lab.replicator.execute(&cx, &plan).await.unwrap();
        let replica = lab.replica_of(&target);
        let got = sure([
            "zfs",
            "get",
            "-H",
            "-o",
            "value",
            "keystatus,encryption",
            replica.as_str(),
        ]);
        assert_eq!(got.lines().next(), Some("unavailable"), "{got}");
        // The key is gone: the data is there, and nobody may say that it isn't.
        sure(["zfs", "unmount", target.dataset.as_str()]);
        sure(["zfs", "unload-key", target.dataset.as_str()]);
        assert!(matches!(
            condition(&lab.pool, &target).await,
            Condition::Unmounted { .. }
        ));
    });
}
