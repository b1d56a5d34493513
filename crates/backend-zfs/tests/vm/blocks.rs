//! What is sent is sent as it is on disk, and no more datasets at once than is allowed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use reseed_backend_zfs::zfs::{Location, Mapping, NativeReplicator, NativeStore};
use reseed_core::exec::{Command, ExecError, Output, PipeOutput, Runner, Streaming, SystemRunner};
use reseed_core::names::DatasetName;
use reseed_core::point::Target;
use reseed_core::{Replicator as _, SnapshotStore as _};
use reseed_testkit::conformance::{block_on, context};
use reseed_testkit::files::Files as _;
use tokio_util::sync::CancellationToken;

use crate::lab::{Pool, name, sure};
use crate::source_lab::snapshot;

const MIB: usize = 1 << 20;

#[test]
fn large_and_compressed_blocks_are_sent_as_they_are() {
    block_on(async {
        let (pool, back) = (Pool::sized("256M"), Pool::sized("256M"));
        let target = pool.target("media");
        let dataset = target.dataset.as_str();
        sure([
            "zfs",
            "create",
            "-o",
            "recordsize=1M",
            "-o",
            "compression=lz4",
            dataset,
        ]);
        // To be compressed to a fraction, and no hole.
        let text = b"what is here is here again and again; ".repeat(16 * MIB / 38);
        pool.files.write(&target.mountpoint.join("large"), &text);
        sure(["zpool", "sync", &pool.pool]);
        snapshot(&pool, &target, "one", 1, true).await;
        let below = Mapping::below(DatasetName::new(format!("{}/copies", back.pool)).unwrap());
        sure(["zfs", "create", &format!("{}/copies", back.pool)]);
        let replicator = NativeReplicator::new(name("second"), &pool.store, Location::Local, below);
        let cx = context("send");
        let plan = replicator.plan(&cx, std::slice::from_ref(&target)).await.unwrap();
        let report = replicator.execute(&cx, &plan).await.unwrap();
        assert_eq!(report.failed, []);

        let replica = format!("{}/copies/{dataset}", back.pool);
        let place = back.root.join("look");
        std::fs::create_dir_all(&place).unwrap();
        let place = place.to_str().unwrap();
        sure(["mount", "-t", "zfs", "-o", "ro,zfsutil", &replica, place]);
        // A file's own block size, which no property changes afterwards.
        let block = sure(["stat", "-c", "%o", &format!("{place}/large")]);
        let back_again = std::fs::read(format!("{place}/large")).unwrap();
        sure(["umount", place]);
        assert_eq!(block, MIB.to_string());
        assert!(back_again == text);
        let used = sure(["zfs", "get", "-Hpo", "value", "used", &replica]);
        assert!(used.parse::<usize>().unwrap() < 2 * MIB, "{used}");

        // What the replica would do with blocks that come as they are in files: nothing.
        sure(["zfs", "set", "compression=off", &replica]);
        pool.files.write(&target.mountpoint.join("more"), &text);
        sure(["zpool", "sync", &pool.pool]);
        snapshot(&pool, &target, "two", 2, true).await;
        let plan = replicator.plan(&cx, std::slice::from_ref(&target)).await.unwrap();
        let report = replicator.execute(&cx, &plan).await.unwrap();
        assert_eq!(report.failed, []);
        assert_eq!(
            sure(["zfs", "get", "-Hpo", "value", "compression", &replica]),
            "off"
        );
        let used = sure(["zfs", "get", "-Hpo", "value", "used", &replica]);
        assert!(used.parse::<usize>().unwrap() < 4 * MIB, "{used}");
    });
}

/// Counts how many pipes there are at the same time.
#[derive(Debug, Default)]
struct Pipes {
    inner: SystemRunner,
    now: AtomicUsize,
    most: AtomicUsize,
}

#[async_trait]
impl Runner for Pipes {
    async fn run(&self, command: &Command, cancel: &CancellationToken) -> Result<Output, ExecError> {
        self.inner.run(command, cancel).await
    }
    async fn pipe(&self, stages: &[Command], cancel: &CancellationToken) -> Result<PipeOutput, ExecError> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let output = self.inner.pipe(stages, cancel).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        output
    }
    async fn stream(&self, command: &Command, cancel: &CancellationToken) -> Result<Streaming, ExecError> {
        self.inner.stream(command, cancel).await
    }
}

#[test]
fn so_many_datasets_are_sent_at_once_and_no_more() {
    block_on(async {
        let (pool, back) = (Pool::sized("256M"), Pool::sized("256M"));
        let pipes = Arc::new(Pipes::default());
        let store = NativeStore::new(name("local"), pipes.clone(), pool.root.join("places"));
        let targets: Vec<Target> = (0..6).map(|nth| pool.target(&format!("t{nth}"))).collect();
        for target in &targets {
            sure(["zfs", "create", target.dataset.as_str()]);
            pool.files.write(&target.mountpoint.join("file"), &vec![7; MIB]);
        }
        let cx = context("send");
        for (nth, limit) in [1, 3].into_iter().enumerate() {
            for target in &targets {
                let minutes = i64::try_from(nth + 1).unwrap();
                snapshot(&pool, target, &format!("at-{limit}"), minutes, true).await;
            }
            let below = Mapping::below(DatasetName::new(format!("{}/svc", back.pool)).unwrap());
            let replicator =
                NativeReplicator::new(name("second"), &store, Location::Local, below).at_once(limit);
            pipes.most.store(0, Ordering::SeqCst);
            let plan = replicator.plan(&cx, &targets).await.unwrap();
            assert_eq!(plan.steps.len(), targets.len());
            let report = replicator.execute(&cx, &plan).await.unwrap();
            assert_eq!(report.failed, []);
            assert_eq!(pipes.most.load(Ordering::SeqCst), limit);
        }
    });
}

#[test]
fn what_was_not_written_to_between_two_snapshots_is_known_without_a_look() {
    block_on(async {
        let pool = Pool::sized("256M");
        let target = pool.target("app");
        sure(["zfs", "create", target.dataset.as_str()]);
        pool.files.write(&target.mountpoint.join("file"), b"one");
        let mut taken = Vec::new();
        let place = target.mountpoint.to_str().unwrap();
        let file = format!("{place}/file");
        for (minutes, (name, change)) in (1..).zip([
            ("first", "true".to_owned()),
            ("same", "true".to_owned()),
            ("same-too", "true".to_owned()),
            ("mode", format!("chmod 600 '{file}'")),
            ("times", format!("touch -m -d 2020-01-01 '{file}'")),
            ("name", format!("mv '{file}' '{file}2'")),
            ("as-it-was", format!("mv '{file}2' '{file}'")),
        ]) {
            sure(["sh", "-c", &change]);
            sure(["zpool", "sync", &pool.pool]);
            taken.push(snapshot(&pool, &target, name, minutes, true).await.reference());
        }
        let cx = context("written");
        for (older, newer, wanted) in [
            (0, 1, true),
            (0, 2, true),
            (1, 2, true),
            (2, 3, false),
            (0, 3, false),
            (3, 4, false),
            (4, 5, false),
            (5, 6, false),
            (1, 0, false),
            (1, 1, false),
        ] {
            let (older, newer) = (&taken[older], &taken[newer]);
            let found = pool.store.unwritten(&cx, older.guid, newer).await.unwrap();
            assert_eq!(found, wanted, "{} to {}", older.name, newer.name);
        }
        // One that is gone says nothing.
        sure(["zfs", "destroy", &format!("{}@first", target.dataset)]);
        let found = pool.store.unwritten(&cx, taken[0].guid, &taken[1]).await.unwrap();
        assert!(!found);
    });
}
