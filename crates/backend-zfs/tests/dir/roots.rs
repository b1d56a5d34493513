//! Roots and records that are not as they should be: an error that says what to do, never an empty answer.

use std::fs;
use std::path::Path;

use reseed_backend_zfs::dir::DirSource;
use reseed_core::error::{Retry, SourceKind, StoreKind};
use reseed_core::source::{RestoreRequest, Scope};
use reseed_core::store::{Condition, CreateSnapshots};
use reseed_core::{RestoreSource, SnapshotStore};
use reseed_testkit::conformance::{block_on, context, minute, snapshot_name};
use reseed_testkit::files::{Files as _, write_odd_tree};

use crate::lab::{OnDisk, open};

#[test]
fn a_root_that_is_no_store_is_told_from_one_without_snapshots() {
    block_on(async {
        let (lab, cx) = (OnDisk::new(), context("roots"));
        let (absent, live) = (lab.target("absent"), lab.target("live"));
        lab.files.write(&live.mountpoint.join("f"), b"data");
        let root = lab.path("other");
        let case = async |expected: StoreKind| {
            let store = open("other", &root);
            let error = store.check(&cx).await.unwrap_err();
            assert_eq!(error.kind(), expected, "{error}");
            assert!(error.what_to_do().is_some(), "no hint: {error}");
            assert_eq!(
                store
                    .list(&cx, std::slice::from_ref(&live))
                    .await
                    .unwrap_err()
                    .kind(),
                expected
            );
            let found = store.inspect(&cx, &[absent.clone(), live.clone()]).await.unwrap();
            let refused = matches!(
                found[0].condition,
                Condition::PoolUnavailable { .. } | Condition::Unknown { .. }
            );
            assert!(refused, "{:?}", found[0]);
            // Data is there whether the store is or not.
            assert_eq!(found[1].condition, Condition::Populated);
            let error = DirSource::local(&store).points(&cx, &live).await.unwrap_err();
            assert_ne!(error.should_retry(), Retry::Later, "{error}");
            error.kind()
        };
        assert_eq!(case(StoreKind::PoolUnavailable).await, SourceKind::NoRepository);
        fs::create_dir(&root).unwrap();
        assert_eq!(case(StoreKind::PoolUnavailable).await, SourceKind::NoRepository);
        fs::remove_dir(&root).unwrap();
        fs::write(&root, b"a file").unwrap();
        assert_eq!(case(StoreKind::InvalidInput).await, SourceKind::InvalidInput);
        assert_eq!(
            open("o", &root).init(&cx).await.unwrap_err().kind(),
            StoreKind::InvalidInput
        );
        fs::remove_file(&root).unwrap();
        std::os::unix::fs::symlink(lab.store.root(), &root).unwrap();
        assert_eq!(case(StoreKind::InvalidInput).await, SourceKind::InvalidInput);
        assert_eq!(
            open("o", &root).init(&cx).await.unwrap_err().kind(),
            StoreKind::InvalidInput
        );
        fs::remove_file(&root).unwrap();
        fs::create_dir(&root).unwrap();
        fs::write(root.join("reseed-store.json"), r#"{"format":9,"whatever":[]}"#).unwrap();
        assert_eq!(case(StoreKind::Unsupported).await, SourceKind::Unsupported);
        fs::write(root.join("reseed-store.json"), "\0\0\0").unwrap();
        assert_eq!(case(StoreKind::Corrupt).await, SourceKind::Corrupt);
        assert_eq!(
            open("o", &root).init(&cx).await.unwrap_err().kind(),
            StoreKind::Corrupt
        );
        fs::remove_file(root.join("reseed-store.json")).unwrap();
        fs::write(root.join("holiday.jpg"), "not ours").unwrap();
        assert_eq!(
            open("o", &root).init(&cx).await.unwrap_err().kind(),
            StoreKind::AlreadyExists
        );
        assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
        fs::remove_file(root.join("holiday.jpg")).unwrap();
        // As an interrupted init leaves it.
        fs::create_dir(root.join("datasets")).unwrap();
        let id = open("o", &root).init(&cx).await.unwrap();
        assert_eq!(open("o", &root).init(&cx).await.unwrap(), id);
        assert_eq!(open("o", &root).check(&cx).await.unwrap(), id);
        assert_eq!(open("o", &root).list(&cx, &[live]).await.unwrap(), vec![]);
    });
}

#[test]
fn a_store_inside_of_what_it_keeps_is_refused() {
    block_on(async {
        let (lab, cx) = (OnDisk::new(), context("inside"));
        let mut target = lab.target("a");
        target.mountpoint = lab.dir.path().to_owned();
        let request = CreateSnapshots {
            targets: vec![target],
            name: snapshot_name("one"),
            taken_at: minute(1),
            measure: false,
            unseeded: false,
        };
        let error = lab.store.create(&cx, &request).await.unwrap_err();
        assert_eq!(error.kind(), StoreKind::InvalidInput, "{error}");
    });
}

fn records(root: &Path, dataset: &str, snapshot: &str) -> std::path::PathBuf {
    root.join("datasets")
        .join(dataset)
        .join("snapshots")
        .join(snapshot)
        .join("meta.json")
}

#[test]
fn a_damaged_record_is_listed_and_leaves_the_others_usable() {
    block_on(async {
        let (lab, cx) = (OnDisk::new(), context("damage"));
        let target = lab.target("a");
        write_odd_tree(&lab.files, &target.mountpoint);
        let targets = std::slice::from_ref(&target);
        let good = lab.snapshot(&cx, &target, "good", 1).await;
        let bad = lab.snapshot(&cx, &target, "bad", 2).await;
        let later = lab.snapshot(&cx, &target, "later", 3).await;
        let record = records(lab.store.root(), "plain%a", "bad");
        let whole = fs::read(&record).unwrap();
        let source = DirSource::local(&lab.store);
        let mut flipped = whole.clone();
        flipped[200] ^= 4;
        for damaged in [
            &b""[..],
            &whole[..whole.len() / 2],
            &vec![0; whole.len()],
            &flipped,
        ] {
            fs::write(&record, damaged).unwrap();
            let listed = lab.store.list(&cx, targets).await.unwrap();
            assert_eq!(listed.len(), 3, "one was dropped");
            assert_eq!(
                listed[1..],
                [good.clone(), later.clone()],
                "the others are as they were"
            );
            assert_eq!(listed[0].name, bad.name);
            let points = source.points(&cx, &target).await.unwrap();
            assert_eq!(points.len(), 3);
            assert!(points[2].partial && !points[1].partial);
            let plan = |at: usize| {
                let request = RestoreRequest {
                    target: target.clone(),
                    point: points[at].clone(),
                    scope: Scope::Whole,
                };
                let source = source.clone();
                let cx = cx.clone();
                async move { source.plan(&cx, &request).await }
            };
            assert_eq!(plan(2).await.unwrap_err().kind(), SourceKind::Corrupt);
            plan(1).await.unwrap();
            let pruned = lab.store.prune(&cx, &[listed[0].reference()]).await.unwrap();
            assert_eq!(pruned[0].kept.as_ref().unwrap().kind, "corrupt");
            assert!(record.exists());
        }
        fs::write(&record, whole).unwrap();
        assert_eq!(
            lab.store.list(&cx, targets).await.unwrap(),
            vec![good, bad, later]
        );
    });
}

#[test]
fn a_snapshot_that_lost_files_is_corrupt_when_it_is_restored() {
    block_on(async {
        let (lab, cx) = (OnDisk::new(), context("lost"));
        let target = lab.target("a");
        write_odd_tree(&lab.files, &target.mountpoint);
        let made = lab.snapshot(&cx, &target, "one", 1).await;
        let tree = lab.tree_of(&cx, &target, &made.reference()).await;
        fs::remove_file(tree.join("db/main.db")).unwrap();
        let source = DirSource::local(&lab.store);
        let point = source.points(&cx, &target).await.unwrap().remove(0);
        let request = RestoreRequest {
            target: target.clone(),
            point: point.clone(),
            scope: Scope::Whole,
        };
        let plan = source.plan(&cx, &request).await.unwrap();
        let purpose = reseed_core::store::StagePurpose::Restore {
            point,
            delivery: reseed_core::store::Delivery::Files,
        };
        let request = reseed_core::store::StageRequest { target, purpose };
        let staging = lab.store.stage(&cx, &request).await.unwrap();
        let error = source.execute(&cx, &plan, &staging).await.unwrap_err();
        assert_eq!(error.kind(), SourceKind::Corrupt, "{error}");
    });
}
