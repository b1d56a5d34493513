//! An object store with one repository in it, as plain data: blobs by the hash of their content, snapshots that name them.
//!
//! Content-addressed, so that what is stored twice is there once, and damage is found by whoever reads it. It doesn't
//! encrypt; the password is compared.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use reseed_core::point::RecoveryPoint;

use super::state::{Link, pick};
use super::tree::Tree;

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
    /// Whether it is what its name says, as whoever reads it would find; kept, because hashing is what a simulated run
    /// would spend its time on.
    pub(super) sound: bool,
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
    pub(super) host: String,
    /// The path that was recorded.
    pub(super) as_path: PathBuf,
    /// When its tree was read.
    pub(super) read_at: Timestamp,
    /// Everything that was read, as it was.
    pub(super) tree: Tree,
    /// The blobs that it needs, with a file that needs each.
    pub(super) content: Vec<(PathBuf, [u8; 32])>,
}

/// What stands in a repository's way of giving a tree back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Damage {
    Missing(PathBuf),
    Wrong(PathBuf),
}

impl Repo {
    /// Takes a file's content in; answers its hash and what it added.
    pub(super) fn store(&mut self, bytes: &Arc<[u8]>) -> ([u8; 32], u64) {
        let hash = *blake3::hash(bytes).as_bytes();
        // A blob that is there and damaged is stored again, as restic does after a repair of its index.
        if self.blobs.get(&hash).is_some_and(|blob| blob.sound) {
            return (hash, 0);
        }
        let blob = Blob {
            bytes: Arc::clone(bytes),
            sound: true,
        };
        self.blobs.insert(hash, blob);
        (hash, bytes.len() as u64)
    }

    /// What was stored, if all of its blobs are there and sound.
    pub(super) fn tree(&self, snapshot: &RepoSnapshot) -> Result<Tree, Damage> {
        for (path, hash) in &snapshot.content {
            match self.blobs.get(hash) {
                None => return Err(Damage::Missing(path.clone())),
                Some(blob) if !blob.sound => return Err(Damage::Wrong(path.clone())),
                Some(_) => {}
            }
        }
        Ok(snapshot.tree.clone())
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
        blob.sound = !blob.sound;
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
            all.insert(format!("snapshots/{id}"), snapshot.tree.len() as u64);
        }
        all
    }
}
