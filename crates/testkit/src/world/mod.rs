//! The strict world in memory: one handle, and a fake of each trait over it.
//!
//! It is harsher than reality. Between any two effects there is an await point, so that a dropped future leaves what a
//! crash would leave. Guids are never given twice and lie beyond 2^63. Whatever a careful core never does (promoting a
//! tree that is not its point, writing outside of staging, acting on what it was not told) is kept as a *violation*.
//! Nothing here knows about services, chains or journals. Paths are the world's own, below `/mem`.

mod census;
mod clock;
mod files;
mod labs;
mod offsite;
mod pruner;
mod replica;
mod repo;
mod settle;
mod source;
mod state;
mod store;
mod tree;
mod verifier;
mod wal;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use reseed_core::Context;
use reseed_core::error::{Common, Effect, Error, Kind};
use reseed_core::names::{DatasetName, Guid, PointId, SourceName};
use reseed_core::point::{Marker, RecoveryPoint, Snapshot, Target};

pub use census::{Census, Place as PointPlace};
pub use clock::SimClock;
pub use labs::{MemLab, Place};
pub use offsite::{MemOffsite, RepoFault};
pub use pruner::MemPruner;
pub use replica::{MemReplicator, ReplicaCopy};
pub use source::{MemSource, SourcePlace};
pub use state::Link;
use state::{Dataset, Pool, State};
pub use store::MemStore;
pub use tree::{Node, NodeKind, Tree};
pub use verifier::MemVerifier;
pub use wal::{MemWal, wal_segment};

/// A handle on the world. Clones are the same world.
#[derive(Clone, Default)]
pub struct World(Arc<Mutex<State>>);

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

/// What stands at a target, from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its guid.
    pub guid: Guid,
    /// Its files.
    pub tree: Tree,
    /// Its marker, if it counts.
    pub marker: Option<Marker>,
    /// Whether the files are to be seen at the mountpoint.
    pub mounted: bool,
}

impl World {
    /// A world with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A target whose files belong at `/mem/live/<dataset>`.
    ///
    /// # Panics
    /// When `dataset` is not a dataset's name.
    pub fn target(dataset: &str) -> Target {
        Target {
            mountpoint: Path::new("/mem/live").join(dataset),
            dataset: match DatasetName::new(dataset) {
                Ok(name) => name,
                Err(error) => panic!("{error}"),
            },
        }
    }

    /// Makes the dataset, mounted and empty, unless it is there.
    pub fn make(&self, target: &Target) {
        let mut state = self.lock();
        if !state.datasets.contains_key(&target.dataset) {
            let guid = state.new_guid();
            state.datasets.insert(
                target.dataset.clone(),
                Dataset {
                    guid,
                    mountpoint: target.mountpoint.clone(),
                    mounted: true,
                    tree: Tree::empty(),
                    marker: None,
                    promoted: None,
                },
            );
        }
    }

    /// Destroys a dataset behind everybody's back, with its snapshots or without.
    pub fn destroy(&self, dataset: &DatasetName, with_snapshots: bool) {
        let mut state = self.lock();
        state.datasets.remove(dataset);
        if with_snapshots {
            state.snapshots.remove(dataset);
        }
    }

    /// What stands there now.
    pub fn standing(&self, dataset: &DatasetName) -> Option<Standing> {
        let state = self.lock();
        let found = state.datasets.get(dataset)?;
        Some(Standing {
            guid: found.guid,
            tree: found.tree.clone(),
            marker: found
                .marker
                .as_ref()
                .filter(|(guid, _)| *guid == found.guid)
                .map(|(_, marker)| marker.clone()),
            mounted: found.mounted,
        })
    }

    /// Changes a dataset's files as its service would.
    pub fn edit<R>(&self, dataset: &DatasetName, edit: impl FnOnce(&mut Tree) -> R) -> Option<R> {
        self.lock()
            .datasets
            .get_mut(dataset)
            .map(|found| edit(&mut found.tree))
    }

    /// Replaces a dataset by another one that looks as if it had its marker (S3).
    pub fn replace_keeping_marker(&self, dataset: &DatasetName) {
        let mut state = self.lock();
        let guid = state.new_guid();
        if let Some(found) = state.datasets.get_mut(dataset) {
            found.guid = guid;
            found.tree = Tree::empty();
        }
    }

    /// Mounts or unmounts a dataset.
    pub fn mount(&self, dataset: &DatasetName, mounted: bool) {
        if let Some(found) = self.lock().datasets.get_mut(dataset) {
            found.mounted = mounted;
        }
    }

    /// Takes a pool away, or brings it back.
    pub fn pool_down(&self, pool: &str, why: Option<&str>) {
        self.pool(pool).down = why.map(str::to_owned);
    }

    /// Limits what can still be written to staging on a pool.
    pub fn pool_free(&self, pool: &str, bytes: Option<u64>) {
        self.pool(pool).free = bytes;
    }

    /// Makes a pool read-only.
    pub fn pool_read_only(&self, pool: &str, read_only: bool) {
        self.pool(pool).read_only = read_only;
    }

    fn pool(&self, pool: &str) -> PoolGuard<'_> {
        PoolGuard(self.lock(), pool.to_owned())
    }

    /// The snapshots of a store's dataset with their trees, oldest first.
    pub fn snapshots(&self, dataset: &DatasetName) -> Vec<(Snapshot, Tree)> {
        let state = self.lock();
        state
            .snapshots
            .get(dataset)
            .map(|snaps| snaps.iter().map(|s| (s.meta.clone(), s.tree.clone())).collect())
            .unwrap_or_default()
    }

    /// Removes the snapshot that a point is of behind everybody's back, held or not.
    pub fn remove_snapshot(&self, point: &RecoveryPoint) {
        if let Some(snaps) = self.lock().snapshots.get_mut(&point.dataset) {
            snaps.retain(|snap| PointId::from(snap.meta.guid) != point.id);
        }
    }

    /// Flips a bit in a stored snapshot; `told` decides whether the store's own checks will see it.
    pub fn damage_snapshot(&self, guid: Guid, draw: u64, told: bool) -> bool {
        let mut state = self.lock();
        let found = state
            .snapshots
            .values_mut()
            .flatten()
            .find(|s| s.meta.guid == guid);
        found.is_some_and(|snap| {
            let flipped = state::flip_somewhere(&mut snap.tree, draw);
            snap.damaged |= told && flipped;
            flipped
        })
    }

    /// Flips a bit in what is staged for a dataset.
    pub fn damage_staged(&self, dataset: &DatasetName, draw: u64) -> bool {
        let mut state = self.lock();
        let tree = state
            .staged
            .get_mut(dataset)
            .and_then(|staged| staged.tree.as_mut());
        tree.is_some_and(|tree| state::flip_somewhere(tree, draw))
    }

    /// What is staged for a dataset.
    pub fn staged(&self, dataset: &DatasetName) -> Option<Tree> {
        self.lock()
            .staged
            .get(dataset)
            .and_then(|staged| staged.tree.clone())
    }

    /// Trees that were renamed aside or quarantined, by their name.
    pub fn kept_aside(&self) -> BTreeMap<String, Tree> {
        let state = self.lock();
        let aside = state
            .aside
            .iter()
            .map(|(name, kept)| (name.clone(), kept.tree.clone()));
        aside
            .chain(
                state
                    .quarantine
                    .iter()
                    .map(|(name, tree)| (name.clone(), tree.clone())),
            )
            .collect()
    }

    /// Sets the line to a replica.
    pub fn replica_link(&self, replica: &SourceName, link: Link) {
        self.lock().replicas.entry(replica.clone()).or_default().link = link;
    }

    /// What nobody should have done, in words.
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// The next await point of an operation. Dropped here, everything so far stays done.
    async fn step<K: Kind>(&self, cx: &Context, effect: Effect) -> Result<(), Error<K>> {
        pause().await;
        if cx.cancel.is_cancelled() {
            return Err(
                Error::new(K::from_common(Common::Cancelled), "the run was cancelled").effect(effect),
            );
        }
        Ok(())
    }
}

struct PoolGuard<'a>(MutexGuard<'a, State>, String);

impl std::ops::Deref for PoolGuard<'_> {
    type Target = Pool;
    fn deref(&self) -> &Pool {
        const NONE: &Pool = &Pool {
            down: None,
            free: None,
            read_only: false,
        };
        self.0.pools.get(&self.1).unwrap_or(NONE)
    }
}

impl std::ops::DerefMut for PoolGuard<'_> {
    fn deref_mut(&mut self) -> &mut Pool {
        self.0.pools.entry(self.1.clone()).or_default()
    }
}

/// Pends once and is ready the next time.
fn pause() -> impl Future<Output = ()> + Send {
    struct Pause(bool);
    impl Future for Pause {
        type Output = ();
        fn poll(mut self: Pin<&mut Self>, task: &mut std::task::Context<'_>) -> Poll<()> {
            if std::mem::replace(&mut self.0, true) {
                return Poll::Ready(());
            }
            task.waker().wake_by_ref();
            Poll::Pending
        }
    }
    Pause(false)
}

fn below_mem(kind: &str, name: &str) -> PathBuf {
    Path::new("/mem").join(kind).join(name)
}
