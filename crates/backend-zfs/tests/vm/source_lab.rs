//! Labs for the two sources: a pool's own snapshots, and copies in a second pool.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use reseed_backend_zfs::zfs::{LocalSource, Location, Mapping, ReplicaSource};
use reseed_core::exec::{Command, Runner, SystemRunner};
use reseed_core::names::{DatasetName, PointId, SnapshotName};
use reseed_core::point::{RecoveryPoint, Snapshot, Target};
use reseed_core::source::{RestoreRequest, Scope};
use reseed_core::store::{CreateSnapshots, Delivery, Settle, StagePurpose, StageRequest, Staging};
use reseed_core::{RestoreSource, SnapshotStore};
use reseed_testkit::conformance::source::SourceLab;
use reseed_testkit::conformance::{context, minute};
use reseed_testkit::files::{Files, Listing};
use tokio_util::sync::CancellationToken;

use crate::lab::{Pool, name, run, sure};

/// Asks for all of a point, and for the place where it is received.
pub(crate) fn whole(target: &Target, point: &RecoveryPoint) -> (RestoreRequest, StageRequest) {
    let (target, point) = (target.clone(), point.clone());
    let stage = StageRequest {
        target: target.clone(),
        purpose: StagePurpose::Restore {
            point: point.clone(),
            delivery: Delivery::Native,
        },
    };
    let scope = Scope::Whole;
    let request = RestoreRequest { target, point, scope };
    (request, stage)
}

/// Replaces what is in a mounted dataset by a copy of a tree.
pub(crate) fn fill(pool: &Pool, target: &Target, tree: &Path) {
    if !run(["zfs", "list", target.dataset.as_str()]).exit.success() {
        sure(["zfs", "create", target.dataset.as_str()]);
    }
    for entry in std::fs::read_dir(&target.mountpoint).unwrap() {
        pool.files.remove(&entry.unwrap().path());
    }
    pool.files.copy(tree, &target.mountpoint);
}

pub(crate) async fn snapshot(
    pool: &Pool,
    target: &Target,
    name: &str,
    minutes: i64,
    measure: bool,
) -> Snapshot {
    let request = CreateSnapshots {
        targets: vec![target.clone()],
        name: SnapshotName::new(name).unwrap(),
        taken_at: minute(minutes),
        measure,
        unseeded: false,
    };
    pool.store
        .create(&context("keep"), &request)
        .await
        .unwrap()
        .remove(0)
}

/// `zfs send | zfs receive` as an operator would do it.
pub(crate) async fn send(words: &[&str], into: &str) {
    let stages = [
        Command::new("zfs").arg("send").args(words.iter().copied()),
        Command::new("zfs").args(["receive", "-u", "-x", "mountpoint", "-o", "canmount=noauto", into]),
    ];
    let done = SystemRunner::new()
        .pipe(&stages, &CancellationToken::new())
        .await
        .unwrap();
    done.require_success().unwrap();
}

/// A pool as if its disk was gone, or there again.
pub(crate) fn attach(pool: &Pool, there: bool) {
    if there {
        sure(["zpool", "import", "-d", pool.root.to_str().unwrap(), &pool.pool]);
    } else {
        sure(["zpool", "export", &pool.pool]);
    }
}

/// Flips a bit in every stored block that is full of one byte. Says how many there were.
pub(crate) fn rot(pool: &Pool, byte: u8) -> usize {
    attach(pool, false);
    let disk = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(pool.disk())
        .unwrap();
    let len = disk.metadata().unwrap().len();
    let (mut chunk, mut found) = (vec![0u8; 1 << 20], 0);
    for at in (0..len).step_by(1 << 20) {
        disk.read_exact_at(&mut chunk, at).unwrap();
        for (sector, bytes) in (0u64..).step_by(512).zip(chunk.chunks(512)) {
            if bytes.iter().all(|found| *found == byte) {
                disk.write_all_at(&[byte ^ 1], at + sector).unwrap();
                found += 1;
            }
        }
    }
    attach(pool, true);
    found
}

/// A source, its store, and where its points are.
pub(crate) struct Source {
    pub(crate) pool: Pool,
    pub(crate) back: Option<Pool>,
    pub(crate) source: Arc<dyn RestoreSource>,
    last: Mutex<Option<RecoveryPoint>>,
}

impl Source {
    pub(crate) fn local() -> Self {
        let pool = Pool::new();
        sure(["zfs", "create", &format!("{}/scratch", pool.pool)]);
        Self {
            source: Arc::new(LocalSource::new(&pool.store)),
            pool,
            back: None,
            last: Mutex::new(None),
        }
    }

    pub(crate) fn replica() -> Self {
        Self::beside(Pool::new())
    }

    /// A replica of this pool.
    pub(crate) fn beside(pool: Pool) -> Self {
        let back = Pool::sized("256M");
        sure(["zfs", "create", &format!("{}/scratch", pool.pool)]);
        let root = DatasetName::new(format!("{}/svc", back.pool)).unwrap();
        let below = Mapping::below(root);
        for part in ["", "/svc"] {
            let above = below.root().child(&format!("{}{part}", pool.pool)).unwrap();
            sure(["zfs", "create", "-o", "canmount=off", above.as_str()]);
        }
        Self {
            source: Arc::new(ReplicaSource::new(
                name("second"),
                &pool.store,
                Location::Local,
                below,
            )),
            pool,
            back: Some(back),
            last: Mutex::new(None),
        }
    }

    fn replica_of(&self, target: &Target) -> Option<String> {
        self.back
            .as_ref()
            .map(|back| format!("{}/svc/{}", back.pool, target.dataset))
    }

    fn far(&self) -> &Pool {
        self.back.as_ref().unwrap_or(&self.pool)
    }
}

#[async_trait]
impl SourceLab for Source {
    fn source(&self) -> Arc<dyn RestoreSource> {
        Arc::clone(&self.source)
    }
    fn files(&self) -> &dyn Files {
        &self.pool.files
    }
    fn scratch(&self) -> PathBuf {
        self.pool.root.join("live/scratch")
    }
    fn target(&self, name: &str) -> Target {
        self.pool.target(name)
    }
    async fn keep(&self, target: &Target, tree: &Path, minutes: i64) -> PointId {
        fill(&self.pool, target, tree);
        // Measured or not, both ways of counting are walked.
        let made = snapshot(
            &self.pool,
            target,
            &format!("at-{minutes}"),
            minutes,
            self.back.is_some(),
        )
        .await;
        if let Some(replica) = self.replica_of(target) {
            let full = format!("{}@{}", target.dataset, made.name);
            let newest = run([
                "zfs",
                "list",
                "-Hp",
                "-t",
                "snapshot",
                "-o",
                "name",
                "-S",
                "createtxg",
                &replica,
            ]);
            match newest
                .stdout
                .text()
                .lines()
                .next()
                .and_then(|line| line.split_once('@'))
            {
                Some((_, base)) => send(&["-p", "-i", &format!("@{base}"), &full], &replica).await,
                None => send(&["-p", &full], &replica).await,
            }
        }
        made.guid.into()
    }
    async fn stage(&self, point: &RecoveryPoint) -> Staging {
        *self.last.lock().unwrap() = Some(point.clone());
        let (_, request) = whole(&self.pool.target(point.dataset.leaf()), point);
        self.pool.store.stage(&context("stage"), &request).await.unwrap()
    }
    async fn staged(&self, staging: &Staging) -> Listing {
        // What was received is mounted by asking for the same staging again.
        let point = self.last.lock().unwrap().clone().unwrap();
        let again = self.stage(&point).await;
        assert_eq!(again.locator, staging.locator);
        self.pool.files.list(&staging.path)
    }
    async fn discard(&self, staging: &Staging) {
        let discard = Settle::Discard {
            staging: staging.clone(),
        };
        self.pool
            .store
            .settle(&context("discard"), &discard)
            .await
            .unwrap();
    }
    fn set_reachable(&self, reachable: bool) {
        attach(self.far(), reachable);
    }
    async fn forget(&self, point: &RecoveryPoint) {
        sure(["zfs", "destroy", &point.locator]);
    }
    async fn damage(&self, _point: &RecoveryPoint) {
        // The odd tree's database is 9000 times the byte 7.
        assert!(rot(self.far(), 7) > 0, "nothing was damaged");
    }
}
