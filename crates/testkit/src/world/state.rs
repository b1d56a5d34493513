//! What is in the world, as plain data. The rules of each trait are in the file of its fake.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reseed_core::names::{DatasetName, Guid, RunId, SourceName};
use reseed_core::point::{Marker, RecoveryPoint, Snapshot};

use super::repo::Repo;
use super::tree::Tree;
use super::wal::WalArchive;

/// Everything there is.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) pools: BTreeMap<String, Pool>,
    pub(super) datasets: BTreeMap<DatasetName, Dataset>,
    /// Kept apart from the datasets: where snapshots live on after their dataset is gone is up to the world's breaker.
    pub(super) snapshots: BTreeMap<DatasetName, Vec<Snap>>,
    pub(super) staged: BTreeMap<DatasetName, Staged>,
    pub(super) exposed: BTreeMap<DatasetName, Exposed>,
    /// Datasets that were renamed aside, by their new name.
    pub(super) aside: BTreeMap<String, Dataset>,
    pub(super) quarantine: BTreeMap<String, Tree>,
    /// Directories that are nobody's dataset.
    pub(super) plain: BTreeMap<PathBuf, Tree>,
    pub(super) replicas: BTreeMap<SourceName, Replica>,
    pub(super) repos: BTreeMap<SourceName, Repo>,
    pub(super) wals: BTreeMap<SourceName, WalArchive>,
    pub(super) guids: BTreeSet<u64>,
    pub(super) draws: u64,
    pub(super) violations: Vec<String>,
}

/// A pool.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool {
    /// Why it is not available, when it isn't.
    pub(super) down: Option<String>,
    /// Bytes that can still be written to staging; unlimited without.
    pub(super) free: Option<u64>,
    pub(super) read_only: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Dataset {
    pub(super) guid: Guid,
    pub(super) mountpoint: PathBuf,
    pub(super) mounted: bool,
    pub(super) tree: Tree,
    /// With the guid of the dataset that it was written on.
    pub(super) marker: Option<(Guid, Marker)>,
    /// Which staging it was, so that a promotion that was cut short can be finished.
    pub(super) promoted: Option<Promoted>,
}

#[derive(Debug, Clone)]
pub(super) struct Promoted {
    pub(super) locator: String,
    pub(super) run: RunId,
    pub(super) point: RecoveryPoint,
    /// Set by the step between the rename and the marker.
    pub(super) properties: bool,
    pub(super) set_aside: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Snap {
    pub(super) meta: Snapshot,
    pub(super) tree: Tree,
    /// Stored bits have been flipped since: whoever reads it natively finds out.
    pub(super) damaged: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Staged {
    pub(super) run: RunId,
    pub(super) point: RecoveryPoint,
    pub(super) guid: Guid,
    pub(super) path: PathBuf,
    pub(super) locator: String,
    /// None as long as a native delivery has not begun.
    pub(super) tree: Option<Tree>,
    /// A native delivery arrived to the end. Files are taken to be complete when the source says so.
    pub(super) received: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Exposed {
    pub(super) path: PathBuf,
    pub(super) tree: Tree,
}

/// A second store, and the line to it.
#[derive(Debug, Clone, Default)]
pub(super) struct Replica {
    pub(super) link: Link,
    pub(super) lineages: BTreeMap<DatasetName, ReplicaLineage>,
    /// Lineages that were renamed aside, with the dataset that they were of.
    pub(super) aside: BTreeMap<String, (DatasetName, ReplicaLineage)>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct ReplicaLineage {
    pub(super) snaps: Vec<Snap>,
    /// A transfer that was cut off: what it was to become and how many bytes have come.
    pub(super) partial: Option<(Guid, u64)>,
    /// Whose it is.
    pub(super) origin: Option<String>,
}

/// How a place elsewhere can be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Link {
    /// It answers.
    #[default]
    Up,
    /// It doesn't.
    Down,
    /// It answers, and refuses us.
    Refused,
    /// Its host key is another one.
    OtherKey,
}

impl State {
    /// A guid that was never given before. Beyond 2^63, because that is where readers go wrong.
    pub(super) fn new_guid(&mut self) -> Guid {
        loop {
            self.draws += 1;
            let guid = self.draws.wrapping_mul(0x9e37_79b9_7f4a_7c15) | (1 << 63);
            if self.guids.insert(guid) {
                return Guid(guid);
            }
        }
    }

    pub(super) fn violation(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    pub(super) fn pool(&self, dataset: &DatasetName) -> Pool {
        self.pools.get(dataset.pool()).cloned().unwrap_or_default()
    }

    /// The tree that a path is in, and the path within it.
    pub(super) fn resolve(&self, path: &Path) -> Option<(Tree, PathBuf)> {
        let trees = self
            .staged
            .values()
            .filter_map(|s| Some((&s.path, s.tree.as_ref()?)))
            .chain(self.exposed.values().map(|e| (&e.path, &e.tree)))
            .chain(
                self.datasets
                    .values()
                    .filter(|d| d.mounted)
                    .map(|d| (&d.mountpoint, &d.tree)),
            )
            .chain(self.plain.iter());
        for (root, tree) in trees {
            if let Ok(rel) = path.strip_prefix(root) {
                return Some((tree.clone(), rel.to_owned()));
            }
        }
        None
    }

    /// The tree that is written to through a path. Exposed snapshots can't be.
    pub(super) fn resolve_mut(&mut self, path: &Path) -> Option<(&mut Tree, PathBuf)> {
        let trees = self
            .staged
            .values_mut()
            .filter_map(|s| Some((&s.path, s.tree.as_mut()?)))
            .chain(
                self.datasets
                    .values_mut()
                    .filter(|d| d.mounted)
                    .map(|d| (&d.mountpoint, &mut d.tree)),
            )
            .chain(self.plain.iter_mut());
        for (root, tree) in trees {
            if let Ok(rel) = path.strip_prefix(root) {
                let rel = rel.to_owned();
                return Some((tree, rel));
            }
        }
        None
    }

    /// The staging whose files are below a path, or that has this locator.
    pub(super) fn staged_by(&mut self, locator: &str) -> Option<&mut Staged> {
        self.staged.values_mut().find(|staged| staged.locator == locator)
    }
}

/// Flips a bit of some file that has one; false when no file has.
pub(super) fn flip_somewhere(tree: &mut Tree, draw: u64) -> bool {
    let files: Vec<PathBuf> = tree
        .entries()
        .keys()
        .filter(|path| tree.bytes(path).is_some_and(|bytes| !bytes.is_empty()))
        .cloned()
        .collect();
    let Some(path) = pick(&files, draw) else {
        return false;
    };
    let mut bytes = tree.bytes(path).map(|bytes| bytes.to_vec()).unwrap_or_default();
    if let Some(byte) = pick_mut(&mut bytes, draw.rotate_right(17)) {
        *byte ^= 1 << (draw % 8);
    }
    tree.overwrite(path, Arc::<[u8]>::from(bytes))
}

pub(super) fn pick<T>(items: &[T], draw: u64) -> Option<&T> {
    let len = u64::try_from(items.len()).ok().filter(|&len| len > 0)?;
    items.get(usize::try_from(draw % len).ok()?)
}

fn pick_mut<T>(items: &mut [T], draw: u64) -> Option<&mut T> {
    let len = u64::try_from(items.len()).ok().filter(|&len| len > 0)?;
    items.get_mut(usize::try_from(draw % len).ok()?)
}
