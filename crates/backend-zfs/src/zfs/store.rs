//! [`NativeStore`]: the [`SnapshotStore`] over ZFS. What it does is in the modules beside this one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use reseed_core::error::{StoreError, StoreKind};
use reseed_core::exec::Runner;
use reseed_core::names::{DatasetName, Guid, HoldTag, SourceName};
use reseed_core::ownership::Ownership;
use reseed_core::point::{Snapshot, SnapshotRef, Target};
use reseed_core::store::{
    CreateSnapshots, HoldChange, Inspection, Pruned, Settle, Settled, Since, StageRequest, Staging, StoreCaps,
};
use reseed_core::{Context, SnapshotStore};

use super::fresh::{self, Declared};
use super::location::Location;
use super::space::{self, Wanted};
use super::tool::{Tool, not_cancelled};
use super::version::{Installed, LEAST};
use super::{inspect, prune, settle, since, snapshots, staging};

/// Where staged datasets and opened snapshots are mounted, unless it is said otherwise.
pub const DEFAULT_PLACES: &str = "/run/reseed/zfs";

/// Datasets of ZFS on this machine. See the [module](super) for what it promises.
#[derive(Debug, Clone)]
pub struct NativeStore {
    name: SourceName,
    pub(crate) tool: Tool,
    pub(crate) places: PathBuf,
    declared: Arc<BTreeMap<DatasetName, Declared>>,
    owned: Arc<BTreeMap<DatasetName, Ownership>>,
}

impl NativeStore {
    /// The datasets of this machine's pools, all of them: a target's name says in which pool it is. Nothing is asked yet.
    /// `places` is a directory of ours in which staging and snapshots are mounted ([`DEFAULT_PLACES`]); it must be outside
    /// of every target.
    pub fn new(name: SourceName, runner: Arc<dyn Runner>, places: impl Into<PathBuf>) -> Self {
        Self {
            name,
            tool: Tool::new(runner, Location::Local),
            places: places.into(),
            declared: Arc::default(),
            owned: Arc::default(),
        }
    }

    /// What is declared of datasets: their ZFS properties. One that is made anew, for files to be restored into or for a first start,
    /// is made with them. Of what is sent or cloned only quotas and reservations stand above those that the dataset had, and
    /// `canmount`; the rest is for [`Layout`](crate::datasets::Layout) to set.
    #[must_use]
    pub fn declared(mut self, datasets: BTreeMap<DatasetName, Declared>) -> Self {
        self.declared = Arc::new(datasets);
        self
    }

    /// Whose the topmost directories of datasets are to be. Set when a dataset is put in its place: what came back, and what starts
    /// empty.
    #[must_use]
    pub fn owned(mut self, datasets: BTreeMap<DatasetName, Ownership>) -> Self {
        self.owned = Arc::new(datasets);
        self
    }

    /// What is declared of a dataset, all of it.
    pub(crate) fn declared_of(&self, dataset: &DatasetName) -> &Declared {
        fresh::declared_of(&self.declared, dataset)
    }

    /// The quotas and reservations that a dataset comes back with: what is declared of it, or else what it had.
    pub(crate) fn declared_space(&self, dataset: &DatasetName, mut had: Wanted) -> Wanted {
        let declared = self.declared_of(dataset);
        for property in space::PROPERTIES {
            if let Some(value) = declared.get(property) {
                had.insert(property, value.clone());
            }
        }
        had
    }

    /// Has libzfs_core take what it takes better than a process: snapshots of several datasets, removing snapshots of
    /// several datasets, and whether a dataset is there. Outcomes and errors stay the same; `zpool history` shows no
    /// command for them. Replicators and sources made from this store do the same, except over ssh.
    #[cfg(feature = "libzetta")]
    #[must_use]
    pub fn in_process(mut self, lzc: super::Lzc) -> Self {
        self.tool = self.tool.with(lzc);
        self
    }

    /// What it is called in the configuration.
    pub fn name(&self) -> &SourceName {
        &self.name
    }

    /// Where it mounts what it stages and opens.
    pub fn places(&self) -> &Path {
        &self.places
    }

    /// What is installed, if reseed works with it.
    ///
    /// # Errors
    /// `ToolMissing` when `zfs` is not there or older than [`LEAST`]; `BadOutput` when it doesn't tell its version.
    pub async fn version(&self, cx: &Context) -> Result<Installed, StoreError> {
        let installed: Installed = self.tool.version::<StoreKind>(cx).await?;
        if installed.effective() < LEAST {
            let what = format!("OpenZFS {} is older than {LEAST}", installed.effective());
            return Err(StoreError::new(StoreKind::ToolMissing, what)
                .hint("upgrade OpenZFS, tools and kernel module"));
        }
        Ok(installed)
    }
}

#[async_trait]
impl SnapshotStore for NativeStore {
    fn caps(&self) -> StoreCaps {
        StoreCaps {
            atomic_group: true,
            holds: true,
            native_receive: true,
            set_aside: true,
            checks_reads: true,
        }
    }

    async fn inspect(&self, cx: &Context, targets: &[Target]) -> Result<Vec<Inspection>, StoreError> {
        not_cancelled::<StoreKind>(cx)?;
        inspect::inspect(&self.tool, cx, targets).await
    }

    async fn list(&self, cx: &Context, targets: &[Target]) -> Result<Vec<Snapshot>, StoreError> {
        not_cancelled::<StoreKind>(cx)?;
        snapshots::list(&self.tool, cx, targets).await
    }

    async fn create(&self, cx: &Context, request: &CreateSnapshots) -> Result<Vec<Snapshot>, StoreError> {
        not_cancelled::<StoreKind>(cx)?;
        snapshots::create(&self.tool, cx, &self.places, request).await
    }

    async fn since(
        &self,
        cx: &Context,
        target: &Target,
        snapshot: &SnapshotRef,
    ) -> Result<Since, StoreError> {
        not_cancelled::<StoreKind>(cx)?;
        since::since(&self.tool, cx, target, snapshot).await
    }

    async fn unwritten(&self, cx: &Context, older: Guid, newer: &SnapshotRef) -> Result<bool, StoreError> {
        not_cancelled::<StoreKind>(cx)?;
        since::unwritten(&self.tool, cx, older, newer).await
    }

    async fn hold(
        &self,
        cx: &Context,
        snapshots: &[SnapshotRef],
        tag: &HoldTag,
        change: HoldChange,
    ) -> Result<(), StoreError> {
        not_cancelled::<StoreKind>(cx)?;
        snapshots::hold(&self.tool, cx, snapshots, tag, change).await
    }

    async fn prune(&self, cx: &Context, snapshots: &[SnapshotRef]) -> Result<Vec<Pruned>, StoreError> {
        not_cancelled::<StoreKind>(cx)?;
        prune::prune(&self.tool, cx, snapshots).await
    }

    async fn stage(&self, cx: &Context, request: &StageRequest) -> Result<Staging, StoreError> {
        not_cancelled::<StoreKind>(cx)?;
        staging::stage(&self.tool, cx, &self.places, request, &self.declared).await
    }

    async fn settle(&self, cx: &Context, request: &Settle) -> Result<Settled, StoreError> {
        not_cancelled::<StoreKind>(cx)?;
        settle::settle(
            &self.tool,
            cx,
            &self.places,
            request,
            (&self.declared, &self.owned),
        )
        .await
    }
}
