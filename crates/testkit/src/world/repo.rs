//! An object store with one repository in it, as plain data: blobs by the hash of their content, snapshots that name them.
//!
//! Content-addressed, so that what is stored twice is there once, and damage is found by whoever reads it. It doesn't
//! encrypt; the password is compared.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use reseed_core::point::RecoveryPoint;

use super::state::{Link, pick};
use super::tree::{Node, NodeKind, Tree};

/// Where a repository may be.
#[derive(Debug, Clone, Default)]
pub(super) struct Repo {
    pub(super) link: Link,
    /// Something that is no repository is in its place.
    pub(super) foreign: bool,
    pub(super) config: Option<RepoConfig>,
    pub(super) blobs: BTreeMap<[u8; 32], Blob>,
    pub(super) snapshots: BTreeMap<String, RepoSnapshot>,
    pub(super) locks: BTreeMap<u64, RepoLock>,
    pub(super) draws: u64,
    /// Bytes that can still be stored; unlimited without.
    pub(super) free: Option<u64>,
    /// Files that a backup can't read.
    pub(super) unreadable: Vec<PathBuf>,
}

#[derive(Debug, Clone)]
pub(super) struct RepoConfig {
    pub(super) id: String,
    pub(super) version: u32,
    pub(super) password: String,
}

#[derive(Debug, Clone)]
pub(super) struct Blob {
    pub(super) bytes: Arc<[u8]>,
}

impl Blob {
    /// Whether it is what its name says.
    pub(super) fn sound(&self, hash: &[u8; 32]) -> bool {
        blake3::hash(&self.bytes).as_bytes() == hash
    }
}

#[derive(Debug, Clone)]
pub(super) struct RepoLock {
    pub(super) exclusive: bool,
    pub(super) holder: String,
    /// By restic's rules nobody can hold it any more.
    pub(super) dead: bool,
}

/// What a repository knows of one backup.
#[derive(Debug, Clone)]
pub(super) struct RepoSnapshot {
    pub(super) point: RecoveryPoint,
    pub(super) entries: Vec<(PathBuf, Stored)>,
}

/// An entry, with its content by hash.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) node: Node,
    pub(super) content: Option<[u8; 32]>,
}

/// What stands in a repository's way of giving a tree back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Damage {
    Missing(PathBuf),
    Wrong(PathBuf),
}

impl Repo {
    /// Takes a tree in; answers what it added. The blobs come first, the snapshot is made by `RepoSnapshot`'s owner.
    pub(super) fn store_entry(&mut self, node: &Node) -> (Stored, u64) {
        let NodeKind::File { bytes, inode } = &node.kind else {
            let stored = Stored {
                node: node.clone(),
                content: None,
            };
            return (stored, 0);
        };
        let hash = *blake3::hash(bytes).as_bytes();
        let mut added = 0;
        // A blob that is there and damaged is stored again, as restic does after a repair of its index.
        let there = self.blobs.get(&hash).is_some_and(|blob| blob.sound(&hash));
        if !there {
            added = bytes.len() as u64;
            self.blobs.insert(
                hash,
                Blob {
                    bytes: Arc::clone(bytes),
                },
            );
        }
        let bare = Node {
            kind: NodeKind::File {
                bytes: Arc::from([]),
                inode: *inode,
            },
            ..node.clone()
        };
        let stored = Stored {
            node: bare,
            content: Some(hash),
        };
        (stored, added)
    }

    /// Puts a tree together again.
    pub(super) fn tree(&self, snapshot: &RepoSnapshot) -> Result<Tree, Damage> {
        let mut tree = Tree::empty();
        for (path, stored) in &snapshot.entries {
            let mut node = stored.node.clone();
            if let (Some(hash), NodeKind::File { bytes, .. }) = (&stored.content, &mut node.kind) {
                let blob = self
                    .blobs
                    .get(hash)
                    .ok_or_else(|| Damage::Missing(path.clone()))?;
                if !blob.sound(hash) {
                    return Err(Damage::Wrong(path.clone()));
                }
                *bytes = Arc::clone(&blob.bytes);
            }
            tree.put(path, node);
        }
        Ok(tree)
    }

    /// Flips a bit of some stored blob that has one.
    pub(super) fn flip(&mut self, draw: u64) -> bool {
        let hashes: Vec<[u8; 32]> = self
            .blobs
            .iter()
            .filter(|(_, blob)| !blob.bytes.is_empty())
            .map(|(hash, _)| *hash)
            .collect();
        let Some(blob) = pick(&hashes, draw).and_then(|hash| self.blobs.get_mut(hash)) else {
            return false;
        };
        let mut bytes = blob.bytes.to_vec();
        if let Some(byte) = bytes.first_mut() {
            *byte ^= 1;
        }
        blob.bytes = bytes.into();
        true
    }

    /// Removes some stored blob.
    pub(super) fn lose(&mut self, draw: u64) -> bool {
        let hashes: Vec<[u8; 32]> = self.blobs.keys().copied().collect();
        pick(&hashes, draw).is_some_and(|hash| self.blobs.remove(hash).is_some())
    }

    /// Every object and its size, by name.
    pub(super) fn objects(&self) -> BTreeMap<String, u64> {
        let hex = |hash: &[u8; 32]| blake3::Hash::from_bytes(*hash).to_hex().to_string();
        let mut all = BTreeMap::new();
        if let Some(config) = &self.config {
            all.insert(format!("config-{}-{}", config.id, config.version), 1);
        }
        if self.foreign {
            all.insert("something-else".to_owned(), 1);
        }
        for (hash, blob) in &self.blobs {
            all.insert(format!("data/{}", hex(hash)), blob.bytes.len() as u64);
        }
        for (id, snapshot) in &self.snapshots {
            all.insert(format!("snapshots/{id}"), snapshot.entries.len() as u64);
        }
        all
    }
}
