//! Labs for the conformance suites, over temporary directories.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use reseed_backend_zfs::dir::{DirReplicator, DirSource, DirStore};
use reseed_core::clock::SystemClock;
use reseed_core::entropy::SplitMix;
use reseed_core::names::{DatasetName, PointId, SnapshotName, SourceName};
use reseed_core::point::{RecoveryPoint, Snapshot, SnapshotRef, Target};
use reseed_core::store::{CreateSnapshots, Delivery, Settle, StagePurpose, StageRequest, Staging};
use reseed_core::{Context, Replicator, RestoreSource, SnapshotStore};
use reseed_testkit::conformance::replicate::{Copied, ReplicaLab};
use reseed_testkit::conformance::source::SourceLab;
use reseed_testkit::conformance::store::StoreLab;
use reseed_testkit::conformance::{block_on, context, minute};
use reseed_testkit::files::{Files, Listing, RealFiles};

/// A store and directories for its targets.
pub(crate) struct OnDisk {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: DirStore,
    pub(crate) files: RealFiles,
}

pub(crate) fn name(text: &str) -> SourceName {
    SourceName::new(text).unwrap()
}

pub(crate) fn open(called: &str, root: &Path) -> DirStore {
    DirStore::new(
        name(called),
        root,
        Arc::new(SystemClock::new()),
        Arc::new(SplitMix::seeded(7)),
    )
}

pub(crate) async fn initialised(called: &str, root: &Path) -> DirStore {
    let store = open(called, root);
    store.init(&context("init")).await.unwrap();
    store
}

impl OnDisk {
    pub(crate) fn new() -> Self {
        Self::in_dir(tempfile::tempdir().unwrap())
    }

    /// In memory, where there is such a filesystem: some disks take a minute to forget ten thousand files.
    pub(crate) fn in_memory() -> Self {
        Self::in_dir(
            tempfile::tempdir_in("/dev/shm")
                .or_else(|_| tempfile::tempdir())
                .unwrap(),
        )
    }

    fn in_dir(dir: tempfile::TempDir) -> Self {
        let root = dir.path().join("store");
        // Its own runtime: a lab is also made inside of one.
        let store = std::thread::spawn(move || block_on(initialised("local", &root)))
            .join()
            .unwrap();
        Self {
            dir,
            store,
            files: RealFiles,
        }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub(crate) fn target(&self, name: &str) -> Target {
        Target {
            dataset: DatasetName::new(format!("plain/{name}")).unwrap(),
            mountpoint: self.path("live").join(name.replace('/', "+")).join("data"),
        }
    }

    pub(crate) async fn snapshot(&self, cx: &Context, target: &Target, name: &str, minutes: i64) -> Snapshot {
        let request = CreateSnapshots {
            targets: vec![target.clone()],
            name: SnapshotName::new(name).unwrap(),
            taken_at: minute(minutes),
            measure: true,
            unseeded: false,
        };
        self.store.create(cx, &request).await.unwrap().remove(0)
    }

    /// Where a snapshot's files are.
    pub(crate) async fn tree_of(&self, cx: &Context, target: &Target, snapshot: &SnapshotRef) -> PathBuf {
        let purpose = StagePurpose::Expose {
            snapshot: snapshot.clone(),
        };
        let request = StageRequest {
            target: target.clone(),
            purpose,
        };
        self.store.stage(cx, &request).await.unwrap().path
    }
}

impl StoreLab for OnDisk {
    fn store(&self) -> Arc<dyn SnapshotStore> {
        Arc::new(self.store.clone())
    }
    fn files(&self) -> &dyn Files {
        &self.files
    }
    fn absent(&self, name: &str) -> Target {
        self.target(name)
    }
    fn make(&self, target: &Target) {
        self.files.make_dir(&target.mountpoint);
    }
    fn replace_keeping_marker(&self, target: &Target) {
        self.files
            .rename(&target.mountpoint, &target.mountpoint.with_extension("was"));
        self.files.make_dir(&target.mountpoint);
    }
    fn make_unknowable(&self, target: &Target) {
        let above = target.mountpoint.parent().unwrap();
        self.files.remove(above);
        self.files.write(above, b"a file where a directory should be");
    }
    fn kept(&self, name: &str) -> Listing {
        self.files.list(Path::new(name))
    }
}

/// A source over the store's own root, or over a replica's.
pub(crate) struct Source {
    disk: OnDisk,
    replica: Option<DirReplicator>,
    source: DirSource,
    /// The root that the source reads.
    root: PathBuf,
}

impl Source {
    pub(crate) fn local() -> Self {
        let disk = OnDisk::new();
        Self {
            source: DirSource::local(&disk.store),
            root: disk.path("store"),
            replica: None,
            disk,
        }
    }

    pub(crate) fn replica() -> Self {
        let disk = OnDisk::new();
        let root = disk.path("replica");
        let clock = Arc::new(SystemClock::new());
        let at = root.clone();
        let replica = std::thread::spawn(move || block_on(initialised("second", &at)))
            .join()
            .unwrap();
        Self {
            source: DirSource::replica(name("second"), root.clone(), clock.clone()),
            replica: Some(DirReplicator::new(&disk.store, replica, clock)),
            root,
            disk,
        }
    }
}

#[async_trait]
impl SourceLab for Source {
    fn source(&self) -> Arc<dyn RestoreSource> {
        Arc::new(self.source.clone())
    }
    fn files(&self) -> &dyn Files {
        &self.disk.files
    }
    fn scratch(&self) -> PathBuf {
        self.disk.path("scratch")
    }
    fn target(&self, name: &str) -> Target {
        self.disk.target(name)
    }
    async fn keep(&self, target: &Target, tree: &Path, minutes: i64) -> PointId {
        let cx = context("keep");
        self.disk.files.remove(&target.mountpoint);
        std::fs::create_dir_all(target.mountpoint.parent().unwrap()).unwrap();
        self.disk.files.copy(tree, &target.mountpoint);
        let made = self
            .disk
            .snapshot(&cx, target, &format!("at-{minutes}"), minutes)
            .await;
        self.disk.files.remove(&target.mountpoint);
        if let Some(replica) = &self.replica {
            let plan = replica.plan(&cx, std::slice::from_ref(target)).await.unwrap();
            replica.execute(&cx, &plan).await.unwrap();
        }
        made.guid.into()
    }
    async fn stage(&self, point: &RecoveryPoint) -> Staging {
        let leaf = point.dataset.as_str().strip_prefix("plain/").unwrap();
        let purpose = StagePurpose::Restore {
            point: point.clone(),
            delivery: Delivery::Files,
        };
        let request = StageRequest {
            target: self.disk.target(leaf),
            purpose,
        };
        self.disk.store.stage(&context("stage"), &request).await.unwrap()
    }
    async fn staged(&self, staging: &Staging) -> Listing {
        self.disk.files.list(&staging.path)
    }
    async fn discard(&self, staging: &Staging) {
        let discard = Settle::Discard {
            staging: staging.clone(),
        };
        self.disk
            .store
            .settle(&context("discard"), &discard)
            .await
            .unwrap();
    }
    fn set_reachable(&self, reachable: bool) {
        let away = self.root.with_extension("unmounted");
        let (from, to) = if reachable {
            (&away, &self.root)
        } else {
            (&self.root, &away)
        };
        if reachable {
            std::fs::remove_dir(&self.root).unwrap();
        }
        std::fs::rename(from, to).unwrap();
        if !reachable {
            // As an unmounted disk: its mount point is there, and empty.
            std::fs::create_dir(&self.root).unwrap();
        }
    }
    async fn forget(&self, point: &RecoveryPoint) {
        let gone = SnapshotRef {
            dataset: point.dataset.clone(),
            name: point.snapshot.clone().unwrap(),
            guid: point.id.as_str().parse().unwrap(),
        };
        let there = open("second", &self.root);
        let report = there.prune(&context("forget"), &[gone]).await.unwrap();
        assert!(report[0].kept.is_none(), "{report:?}");
    }
    async fn damage(&self, _point: &RecoveryPoint) {
        unreachable!("the source has no checks of its own")
    }
}

/// A store and its replica.
pub(crate) struct Replica {
    pub(crate) disk: OnDisk,
    pub(crate) root: PathBuf,
    pub(crate) replicator: DirReplicator,
}

impl Replica {
    pub(crate) fn new() -> Self {
        let disk = OnDisk::new();
        let root = disk.path("replica");
        let at = root.clone();
        let replica = std::thread::spawn(move || block_on(initialised("second", &at)))
            .join()
            .unwrap();
        let replicator = DirReplicator::new(&disk.store, replica, Arc::new(SystemClock::new()));
        Self {
            disk,
            root,
            replicator,
        }
    }
}

#[async_trait]
impl ReplicaLab for Replica {
    fn store(&self) -> Arc<dyn SnapshotStore> {
        Arc::new(self.disk.store.clone())
    }
    fn replicator(&self) -> Arc<dyn Replicator> {
        Arc::new(self.replicator.clone())
    }
    fn of_host(&self, host: &str) -> Arc<dyn Replicator> {
        Arc::new(self.replicator.clone().of_host(host))
    }
    fn files(&self) -> &dyn Files {
        &self.disk.files
    }
    fn target(&self, name: &str) -> Target {
        let target = self.disk.target(name);
        self.disk.files.make_dir(&target.mountpoint);
        target
    }
    async fn copies(&self, target: &Target) -> Vec<Copied> {
        let source = DirSource::replica(name("second"), self.root.clone(), Arc::new(SystemClock::new()));
        let mut points = source.points(&context("look"), target).await.unwrap();
        points.reverse();
        points
            .into_iter()
            .map(|point| Copied {
                name: point.snapshot.unwrap(),
                guid: point.id.as_str().parse().unwrap(),
                taken_at: point.taken_at,
                fingerprint: point.fingerprint,
                content: self.disk.files.list(&self.root.join(&point.locator).join("tree")),
                aside: point.locator.starts_with("aside/"),
            })
            .collect()
    }
    async fn diverge(&self, target: &Target) {
        let cx = context("other-host");
        let other = initialised("other", &self.disk.path("other")).await;
        let request = CreateSnapshots {
            targets: vec![target.clone()],
            name: SnapshotName::new("of-another-host").unwrap(),
            taken_at: minute(0),
            measure: true,
            unseeded: false,
        };
        other.create(&cx, &request).await.unwrap();
        let dataset = self
            .root
            .join("datasets")
            .join(target.dataset.as_str().replace('/', "%"));
        self.disk.files.remove(&dataset);
        let way = DirReplicator::new(&other, open("second", &self.root), Arc::new(SystemClock::new()));
        let plan = way.plan(&cx, std::slice::from_ref(target)).await.unwrap();
        way.execute(&cx, &plan).await.unwrap();
    }
    fn set_reachable(&self, reachable: bool) {
        let away = self.root.with_extension("unmounted");
        let (from, to) = if reachable {
            (&away, &self.root)
        } else {
            (&self.root, &away)
        };
        std::fs::rename(from, to).unwrap();
    }
}
