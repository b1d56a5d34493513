//! The world's own labs: what the conformance suites run the fakes with, and an example of how short a lab can be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use reseed_core::names::{PointId, SourceName};
use reseed_core::point::{RecoveryPoint, Target};
use reseed_core::store::{CreateSnapshots, Delivery, Settle, StagePurpose, StageRequest, Staging, StoreCaps};
use reseed_core::wal::{BackupStatus, BaseBackup, WalFile};
use reseed_core::{OffsitePruner, OffsiteRepo, Replicator, RestoreSource, SnapshotStore, WalArchiver};

use super::{
    Link, MemOffsite, MemPruner, MemReplicator, MemSource, MemStore, MemWal, RepoFault, SourcePlace, World,
};
use crate::conformance::offsite::{Damage, OffsiteLab};
use crate::conformance::pruner::PrunerLab;
use crate::conformance::replicate::{Copied, ReplicaLab};
use crate::conformance::source::SourceLab;
use crate::conformance::store::StoreLab;
use crate::conformance::wal::WalLab;
use crate::conformance::{context, minute, snapshot_name, source_name, worked};
use crate::faults::{Faults, Faulty};
use crate::files::{Files, Listing};
use crate::world::ReplicaCopy;

/// A lab over the world, for every suite.
#[derive(Debug, Clone)]
pub struct MemLab {
    /// The world.
    pub world: World,
    caps: StoreCaps,
    place: Place,
    faults: Option<Faults>,
}

/// Which kind of source the source suite runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The store's own snapshots, delivered in this way.
    Local(Delivery),
    /// A replica's.
    Replica(Delivery),
    /// An off-site repository's.
    Offsite,
}

const SYSTEM_ID: u64 = 0x6a5f_1e2d_3c4b_5a69;

impl MemLab {
    /// A lab with an empty world and a store that can do everything.
    pub fn new() -> Self {
        Self {
            world: World::new(),
            caps: MemStore::new(&World::new()).caps(),
            place: Place::Local(Delivery::Files),
            faults: None,
        }
    }

    /// The same with a store that can do less.
    #[must_use]
    pub fn caps(mut self, caps: StoreCaps) -> Self {
        self.caps = caps;
        self
    }

    /// The same with another source.
    #[must_use]
    pub fn source_in(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    /// The same with every fake wrapped, so that these rules strike it.
    #[must_use]
    pub fn with_faults(mut self, faults: &Faults) -> Self {
        self.faults = Some(faults.clone());
        self
    }

    fn wrap<T: ?Sized>(&self, inner: Arc<T>) -> Result<Faulty<T>, Arc<T>> {
        match &self.faults {
            Some(faults) => Ok(Faulty::new(inner, "lab", faults, Arc::new(self.world.clone()))),
            None => Err(inner),
        }
    }

    fn name(&self) -> SourceName {
        source_name("elsewhere")
    }

    fn made(&self, name: &str) -> Target {
        let target = World::target(&format!("tank/{name}"));
        self.world.make(&target);
        target
    }

    fn mem_store(&self) -> Arc<dyn SnapshotStore> {
        match self.wrap(MemStore::with_caps(&self.world, self.caps).shared()) {
            Ok(faulty) => Arc::new(faulty),
            Err(bare) => bare,
        }
    }

    fn mem_repo(&self, password: &str) -> Arc<dyn OffsiteRepo> {
        match self.wrap(MemOffsite::new(&self.world, self.name(), password).shared()) {
            Ok(faulty) => Arc::new(faulty),
            Err(bare) => bare,
        }
    }

    fn link(reachable: bool) -> Link {
        if reachable { Link::Up } else { Link::Down }
    }
}

impl Default for MemLab {
    fn default() -> Self {
        Self::new()
    }
}

impl StoreLab for MemLab {
    fn store(&self) -> Arc<dyn SnapshotStore> {
        self.mem_store()
    }
    fn files(&self) -> &dyn Files {
        &self.world
    }
    fn absent(&self, name: &str) -> Target {
        World::target(&format!("tank/{name}"))
    }
    fn make(&self, target: &Target) {
        self.world.make(target);
    }
    fn replace_keeping_marker(&self, target: &Target) {
        self.world.replace_keeping_marker(&target.dataset);
    }
    fn make_unknowable(&self, target: &Target) {
        self.world.mount(&target.dataset, false);
    }
    fn kept(&self, name: &str) -> Listing {
        match self.world.kept_aside().get(name) {
            Some(tree) => tree.listing(),
            None => panic!("nothing is kept as {name}"),
        }
    }
    fn drop_is_a_crash(&self) -> bool {
        true
    }
    fn violations(&self) -> Vec<String> {
        self.world.violations()
    }
}

#[async_trait]
impl SourceLab for MemLab {
    fn source(&self) -> Arc<dyn RestoreSource> {
        let mem = |place, delivery| MemSource::new(&self.world, self.name(), place, delivery).shared();
        let bare: Arc<dyn RestoreSource> = match self.place {
            Place::Local(delivery) => mem(SourcePlace::Local, delivery),
            Place::Replica(delivery) => mem(SourcePlace::Replica, delivery),
            Place::Offsite => Arc::new(MemOffsite::new(&self.world, self.name(), "secret")),
        };
        match self.wrap(bare) {
            Ok(faulty) => Arc::new(faulty),
            Err(bare) => bare,
        }
    }
    fn files(&self) -> &dyn Files {
        &self.world
    }
    fn scratch(&self) -> PathBuf {
        PathBuf::from("/mem/scratch")
    }
    fn target(&self, name: &str) -> Target {
        self.made(name)
    }
    async fn keep(&self, target: &Target, tree: &Path, minutes: i64) -> PointId {
        let cx = context("keep");
        let live = self.world.standing(&target.dataset).map(|found| found.tree);
        let copied = self
            .world
            .lock()
            .resolve(tree)
            .and_then(|(tree, rel)| tree.part(&rel));
        self.world
            .edit(&target.dataset, |live| *live = copied.unwrap_or_default());
        let request = CreateSnapshots {
            targets: vec![target.clone()],
            name: snapshot_name(&format!("kept-{minutes}")),
            taken_at: minute(minutes),
            measure: true,
            unseeded: false,
        };
        let made = worked(self.mem_store().create(&cx, &request).await).remove(0);
        self.world
            .edit(&target.dataset, |tree| *tree = live.unwrap_or_default());
        match self.place {
            Place::Local(_) => {}
            Place::Replica(_) => {
                let way = MemReplicator::new(&self.world, self.name());
                let plan = worked(way.plan(&cx, std::slice::from_ref(target)).await);
                worked(way.execute(&cx, &plan).await);
            }
            Place::Offsite => {
                let repo = MemOffsite::new(&self.world, self.name(), "secret");
                if repo.open(&cx).await.is_err() {
                    worked(repo.init(&cx).await);
                }
                let request = reseed_core::offsite::BackupRequest {
                    target: target.clone(),
                    path: tree.to_owned(),
                    as_path: target.mountpoint.clone(),
                    host: "host".to_owned(),
                    point: PointId::from(made.guid),
                    snapshot: Some(made.name.clone()),
                    taken_at: made.taken_at,
                    fingerprint: made.fingerprint,
                    unseeded: false,
                };
                worked(repo.backup(&cx, &request).await);
            }
        }
        PointId::from(made.guid)
    }
    async fn stage(&self, point: &RecoveryPoint) -> Staging {
        let purpose = StagePurpose::Restore {
            point: point.clone(),
            delivery: SourceLab::source(self).caps().delivery,
        };
        let target = Target {
            dataset: point.dataset.clone(),
            mountpoint: Path::new("/mem/live").join(point.dataset.as_str()),
        };
        let request = StageRequest { target, purpose };
        worked(self.mem_store().stage(&context("stage"), &request).await)
    }
    async fn staged(&self, staging: &Staging) -> Listing {
        self.world.list(&staging.path)
    }
    async fn discard(&self, staging: &Staging) {
        let settle = Settle::Discard {
            staging: staging.clone(),
        };
        worked(self.mem_store().settle(&context("discard"), &settle).await);
    }
    fn set_reachable(&self, reachable: bool) {
        match self.place {
            Place::Local(_) => self.world.pool_down("tank", (!reachable).then_some("suspended")),
            Place::Replica(_) => self.world.replica_link(&self.name(), Self::link(reachable)),
            Place::Offsite => {
                self.world
                    .break_repo(&self.name(), RepoFault::Link(Self::link(reachable)));
            }
        }
    }
    async fn forget(&self, point: &RecoveryPoint) {
        match self.place {
            Place::Local(_) => self.world.remove_snapshot(point),
            Place::Replica(_) => self.world.lose_replica(&self.name()),
            Place::Offsite => self.world.forget(&self.name(), &point.locator),
        }
    }
    async fn damage(&self, point: &RecoveryPoint) {
        let guid = point.id.as_str().parse().expect("a guid");
        let done = match self.place {
            Place::Local(_) => self.world.damage_snapshot(guid, 5, true),
            Place::Replica(_) => self.world.damage_replica(&self.name(), guid, 5, true),
            Place::Offsite => self.world.break_repo(&self.name(), RepoFault::Flip(5)),
        };
        assert!(done, "there is nothing to damage");
    }
    fn violations(&self) -> Vec<String> {
        self.world.violations()
    }
}

#[async_trait]
impl ReplicaLab for MemLab {
    fn store(&self) -> Arc<dyn SnapshotStore> {
        self.mem_store()
    }
    fn replicator(&self) -> Arc<dyn Replicator> {
        match self.wrap(MemReplicator::new(&self.world, self.name()).shared()) {
            Ok(faulty) => Arc::new(faulty),
            Err(bare) => bare,
        }
    }
    fn of_host(&self, host: &str) -> Arc<dyn Replicator> {
        let replicator = MemReplicator::new(&self.world, self.name()).of_host(host);
        match self.wrap(replicator.shared()) {
            Ok(faulty) => Arc::new(faulty),
            Err(bare) => bare,
        }
    }
    fn files(&self) -> &dyn Files {
        &self.world
    }
    fn target(&self, name: &str) -> Target {
        self.made(name)
    }
    async fn copies(&self, target: &Target) -> Vec<Copied> {
        let copy = |copy: ReplicaCopy| Copied {
            name: copy.snapshot.name,
            guid: copy.snapshot.guid,
            taken_at: copy.snapshot.taken_at,
            fingerprint: copy.snapshot.fingerprint,
            content: copy.tree.listing(),
            aside: copy.aside,
        };
        let copies = self.world.replica_copies(&self.name(), &target.dataset);
        copies.into_iter().map(copy).collect()
    }
    async fn diverge(&self, target: &Target) {
        self.world.diverge(&self.name(), &target.dataset);
    }
    fn set_reachable(&self, reachable: bool) {
        self.world.replica_link(&self.name(), Self::link(reachable));
    }
    fn violations(&self) -> Vec<String> {
        self.world.violations()
    }
}

impl OffsiteLab for MemLab {
    fn repo(&self) -> Arc<dyn OffsiteRepo> {
        self.mem_repo("secret")
    }
    fn repo_with_wrong_password(&self) -> Arc<dyn OffsiteRepo> {
        self.mem_repo("wrong")
    }
    fn files(&self) -> &dyn Files {
        &self.world
    }
    fn scratch(&self) -> PathBuf {
        PathBuf::from("/mem/scratch")
    }
    fn target(&self, name: &str) -> Target {
        self.made(name)
    }
    fn objects(&self) -> BTreeMap<String, u64> {
        self.world.repo_objects(&self.name())
    }
    fn put_something_else(&self) {
        self.world.break_repo(&self.name(), RepoFault::Foreign);
    }
    fn make_newer(&self) {
        self.world.break_repo(&self.name(), RepoFault::Newer);
    }
    fn set_reachable(&self, reachable: bool) {
        let fault = RepoFault::Link(Self::link(reachable));
        self.world.break_repo(&self.name(), fault);
    }
    fn lock_exclusively(&self) -> String {
        self.world.break_repo(&self.name(), RepoFault::Locked(true));
        "other-host".to_owned()
    }
    fn leave_dead_lock(&self) {
        self.world.break_repo(&self.name(), RepoFault::DeadLock);
    }
    fn unlock(&self) {
        self.world.break_repo(&self.name(), RepoFault::Locked(false));
    }
    fn locks(&self) -> usize {
        self.world.repo_locks(&self.name())
    }
    fn damage(&self, damage: Damage) {
        let fault = match damage {
            Damage::Flip => RepoFault::Flip(3),
            Damage::Missing => RepoFault::Lose(3),
        };
        assert!(self.world.break_repo(&self.name(), fault));
    }
    fn make_unreadable(&self, path: &Path) -> bool {
        self.world
            .break_repo(&self.name(), RepoFault::Unreadable(path.to_owned()))
    }
    fn violations(&self) -> Vec<String> {
        self.world.violations()
    }
}

impl PrunerLab for MemLab {
    fn pruner(&self) -> Arc<dyn OffsitePruner> {
        let repo = MemOffsite::new(&self.world, self.name(), "secret");
        Arc::new(MemPruner::new(repo, "host-a"))
    }
}

impl WalLab for MemLab {
    fn archiver(&self) -> Arc<dyn WalArchiver> {
        let wal = MemWal::new(&self.world, self.name(), SYSTEM_ID, 1 << 16);
        let bare: Arc<dyn WalArchiver> = Arc::new(wal);
        match self.wrap(bare) {
            Ok(faulty) => Arc::new(faulty),
            Err(bare) => bare,
        }
    }
    fn files(&self) -> &dyn Files {
        &self.world
    }
    fn scratch(&self) -> PathBuf {
        PathBuf::from("/mem/scratch")
    }
    fn system_id(&self) -> u64 {
        SYSTEM_ID
    }
    fn stored(&self, file: &WalFile) -> Option<Vec<u8>> {
        self.world.wal_content(&self.name(), file)
    }
    fn spoil(&self, file: &WalFile, bytes: &[u8]) {
        self.world.put_wal(&self.name(), file, Some(bytes));
    }
    fn put_backup(&self, id: &str, status: BackupStatus) {
        let began = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%S", id)
            .and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC))
            .expect("a backup's id")
            .timestamp();
        let backup = BaseBackup {
            id: id.to_owned(),
            status,
            began,
            ended: (status != BackupStatus::Started).then_some(began),
            begin_wal: None,
            end_wal: None,
            bytes: None,
        };
        self.world.put_backup(&self.name(), backup);
    }
    fn set_reachable(&self, reachable: bool) {
        self.world.wal_link(&self.name(), Self::link(reachable));
    }
}
