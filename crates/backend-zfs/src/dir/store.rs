//! [`DirStore`]: the [`SnapshotStore`] over plain directories. What it does is in the modules beside this one; here it
//! is only put on a thread that may block.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use reseed_core::clock::Clock;
use reseed_core::entropy::Entropy;
use reseed_core::error::{StoreError, StoreKind};
use reseed_core::names::{Guid, HoldTag, SourceName};
use reseed_core::point::{Snapshot, SnapshotRef, Target};
use reseed_core::store::{
    CreateSnapshots, HoldChange, Inspection, Pruned, Settle, Settled, Since, StageRequest, Staging, StoreCaps,
};
use reseed_core::{Context, SnapshotStore};

use super::errors::Outward;
use super::job::Jobs;
use super::{create, inspect, keep, root, settle, staging};

/// Snapshots of plain directories, kept in a directory of their own. See the [module](super) for what it can promise.
#[derive(Debug, Clone)]
pub struct DirStore {
    name: SourceName,
    pub(super) root: PathBuf,
    pub(super) jobs: Jobs,
    entropy: Arc<dyn Entropy>,
}

impl DirStore {
    /// The store at `root`. Nothing is opened yet: the disk may be mounted later, and every call looks again.
    pub fn new(
        name: SourceName,
        root: impl Into<PathBuf>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self {
            name,
            root: root.into(),
            jobs: Jobs::new(clock),
            entropy,
        }
    }

    /// What it is called in the configuration.
    pub fn name(&self) -> &SourceName {
        &self.name
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the root a store, with what is missing above it; or finds that it is one. Says which store it is.
    ///
    /// # Errors
    /// `InvalidInput` when the root is a file or a symbolic link, `AlreadyExists` when it holds something else,
    /// `Unsupported` when a newer reseed made it, `ReadOnly`, `PermissionDenied`.
    pub async fn init(&self, cx: &Context) -> Result<Guid, StoreError> {
        let (path, entropy, clock) = (
            self.root.clone(),
            Arc::clone(&self.entropy),
            Arc::clone(&self.jobs.clock),
        );
        self.jobs
            .run(cx, move |_| {
                root::init(&path, &*entropy, clock.now())
                    .map(|root| root.id)
                    .store()
            })
            .await
    }

    /// Says which store it is, or why it isn't one.
    ///
    /// # Errors
    /// `PoolUnavailable` when there is none; else as for [`init`](Self::init).
    pub async fn check(&self, cx: &Context) -> Result<Guid, StoreError> {
        let path = self.root.clone();
        self.jobs
            .run(cx, move |_| {
                root::open(&path)
                    .map(|root| root.id)
                    .map_err(|no| no.into(StoreKind::PoolUnavailable))
            })
            .await
    }
}

#[async_trait]
impl SnapshotStore for DirStore {
    fn caps(&self) -> StoreCaps {
        StoreCaps {
            atomic_group: true,
            holds: true,
            native_receive: false,
            set_aside: true,
            checks_reads: false,
        }
    }

    async fn inspect(&self, cx: &Context, targets: &[Target]) -> Result<Vec<Inspection>, StoreError> {
        let (root, targets) = (self.root.clone(), targets.to_vec());
        self.jobs
            .run(cx, move |job| inspect::inspect(job, &root, &targets))
            .await
    }

    async fn list(&self, cx: &Context, targets: &[Target]) -> Result<Vec<Snapshot>, StoreError> {
        let (root, targets) = (self.root.clone(), targets.to_vec());
        self.jobs
            .run(cx, move |job| keep::list(job, &root, &targets))
            .await
    }

    async fn create(&self, cx: &Context, request: &CreateSnapshots) -> Result<Vec<Snapshot>, StoreError> {
        let (root, entropy, request) = (self.root.clone(), Arc::clone(&self.entropy), request.clone());
        self.jobs
            .run_locked(cx, move |job| create::create(job, &root, &*entropy, &request))
            .await
    }

    async fn since(
        &self,
        cx: &Context,
        target: &Target,
        snapshot: &SnapshotRef,
    ) -> Result<Since, StoreError> {
        let (root, target, snapshot) = (self.root.clone(), target.clone(), snapshot.clone());
        self.jobs
            .run(cx, move |job| keep::since(job, &root, &target, &snapshot))
            .await
    }

    async fn hold(
        &self,
        cx: &Context,
        snapshots: &[SnapshotRef],
        tag: &HoldTag,
        change: HoldChange,
    ) -> Result<(), StoreError> {
        let (root, snapshots, tag) = (self.root.clone(), snapshots.to_vec(), tag.clone());
        self.jobs
            .run_locked(cx, move |job| keep::hold(job, &root, &snapshots, &tag, change))
            .await
    }

    async fn prune(&self, cx: &Context, snapshots: &[SnapshotRef]) -> Result<Vec<Pruned>, StoreError> {
        let (root, snapshots) = (self.root.clone(), snapshots.to_vec());
        self.jobs
            .run_locked(cx, move |job| keep::prune(job, &root, &snapshots))
            .await
    }

    async fn stage(&self, cx: &Context, request: &StageRequest) -> Result<Staging, StoreError> {
        let (root, request) = (self.root.clone(), request.clone());
        self.jobs
            .run(cx, move |job| staging::stage(job, &root, &request))
            .await
    }

    async fn settle(&self, cx: &Context, request: &Settle) -> Result<Settled, StoreError> {
        let (root, request) = (self.root.clone(), request.clone());
        self.jobs
            .run(cx, move |job| settle::settle(job, &root, &request))
            .await
    }
}
