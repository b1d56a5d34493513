//! Which snapshots damage takes something from.
//!
//! Only asked once there is damage: it reads all directories of all snapshots, each once. A pack of which anything is wrong counts as
//! lost entire, for what is mended is mostly the whole of it; a blob that another pack holds too isn't.

use std::collections::{HashMap, HashSet};

use rustic_core::repofile::{IndexBlob, PackId, Tree};
use rustic_core::{BlobId, FileType, Id, ReadBackend};

use crate::backup::Cancelled;
use crate::error::{EngineError, Result};
use crate::pack::{Location, Unsealer, read_blob};
use crate::repo::OpenRepo;

/// A pack and what the index says is in it.
pub(crate) type Pack = (PackId, Vec<IndexBlob>);

impl OpenRepo {
    /// The ids of the snapshots that are not whole where these of the [`packs`](OpenRepo::packs) are lost, and those that aren't there or
    /// are cut off. None where that can't be told.
    pub(crate) fn affected(
        &self,
        packs: &[Pack],
        lost: &HashSet<Id>,
        cancelled: &Cancelled,
    ) -> Result<Option<HashSet<String>>> {
        let snapshots = self.snapshots()?;
        if !snapshots.unreadable.is_empty() {
            // Whose they were, nobody knows.
            return Ok(None);
        }
        let sizes: HashMap<Id, u32> = self
            .backend
            .list_with_size(FileType::Pack)
            .map_err(|error| self.error(&error, "list packs"))?
            .into_iter()
            .collect();
        let mut there: HashMap<BlobId, (Id, Location)> = HashMap::new();
        for (id, blobs) in packs {
            let id: Id = **id;
            let Some(size) = sizes.get(&id).filter(|_| !lost.contains(&id)) else {
                continue;
            };
            for blob in blobs {
                let at = Location::of(blob);
                if at.offset.checked_add(at.length).is_some_and(|end| end <= *size) {
                    there.insert(blob.id, (id, at));
                }
            }
        }
        let mut walk = Walk {
            open: self,
            there,
            unsealer: Unsealer::new(self.cipher.clone())?,
            whole: HashSet::new(),
        };
        let mut affected = HashSet::new();
        for snapshot in snapshots.readable {
            if !walk.is_whole(snapshot.tree_id()?.into(), cancelled)? {
                affected.insert(snapshot.id);
            }
        }
        Ok(Some(affected))
    }
}

struct Walk<'a> {
    open: &'a OpenRepo,
    there: HashMap<BlobId, (Id, Location)>,
    unsealer: Unsealer,
    /// Directories below which nothing is missing.
    whole: HashSet<BlobId>,
}

impl Walk<'_> {
    fn is_whole(&mut self, root: BlobId, cancelled: &Cancelled) -> Result<bool> {
        let (mut open, mut seen) = (vec![root], HashSet::new());
        while let Some(tree) = open.pop() {
            if cancelled() {
                return Err(EngineError::Cancelled);
            }
            if self.whole.contains(&tree) || !seen.insert(tree) {
                continue;
            }
            let Some(tree) = self.read(&tree)? else {
                return Ok(false);
            };
            for node in tree.nodes {
                let content = node.content.iter().flatten();
                if !content
                    .map(|id| BlobId::from(*id))
                    .all(|id| self.there.contains_key(&id))
                {
                    return Ok(false);
                }
                open.extend(node.subtree.map(BlobId::from));
            }
        }
        self.whole.extend(seen);
        Ok(true)
    }

    /// A directory; none for one that is damaged.
    fn read(&mut self, tree: &BlobId) -> Result<Option<Tree>> {
        let Some((pack, at)) = self.there.get(tree).copied() else {
            return Ok(None);
        };
        match read_blob(&self.open.store, &mut self.unsealer, &pack, at, tree) {
            Ok(plain) => Ok(serde_json::from_slice(&plain).ok()),
            Err(EngineError::CorruptPack { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
