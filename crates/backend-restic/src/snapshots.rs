//! What snapshots a repository holds.

use jiff::Timestamp;
use rustic_core::repofile::SnapshotFile;
use rustic_core::{FileType, ReadBackend, TreeId};
use serde::{Deserialize, Serialize};

use crate::error::{EngineError, Result, guarded};
use crate::repo::OpenRepo;
use crate::store::layout;

/// One snapshot, whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its full id.
    pub id: String,
    /// When it was taken.
    pub time: Timestamp,
    /// On which host.
    pub host: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// What was backed up.
    pub paths: Vec<String>,
    /// The root of its tree.
    pub tree: String,
    /// Files, where the writer recorded that.
    pub files: Option<u64>,
    /// Their bytes, likewise.
    pub bytes: Option<u64>,
    /// The snapshot that this one was made of by changing what is recorded about it.
    pub original: Option<String>,
}

impl From<(rustic_core::repofile::SnapshotId, SnapshotFile)> for Snapshot {
    fn from((id, file): (rustic_core::repofile::SnapshotId, SnapshotFile)) -> Self {
        let counted = file
            .summary
            .as_ref()
            .filter(|summary| summary.total_files_processed > 0);
        Self {
            id: id.to_hex().to_string(),
            time: file.time.timestamp(),
            host: file.hostname,
            tags: file.tags.iter().filter(|tag| !tag.is_empty()).cloned().collect(),
            paths: file.paths.iter().cloned().collect(),
            tree: file.tree.to_hex().to_string(),
            files: counted.map(|summary| summary.total_files_processed),
            bytes: counted.map(|summary| summary.total_bytes_processed),
            original: file.original.map(|id| id.to_hex().to_string()),
        }
    }
}

impl Snapshot {
    pub(crate) fn tree_id(&self) -> Result<TreeId> {
        let id: rustic_core::Id = self.tree.parse().map_err(|_| EngineError::Unreadable {
            what: format!("snapshot {}", self.id),
            detail: "bad tree id".into(),
        })?;
        Ok(id.into())
    }
}

/// All that a repository has of snapshots, newest first.
#[derive(Debug, Default)]
pub struct Snapshots {
    /// Those that can be read.
    pub readable: Vec<Snapshot>,
    /// Those that are there and cannot: the id, and why. Whose they are, nobody knows.
    pub unreadable: Vec<(String, EngineError)>,
}

impl OpenRepo {
    /// Every snapshot. One that is damaged is told apart and takes no other with it: a service must not look as if it
    /// had no backup because a power cut ended one of a hundred.
    ///
    /// # Errors
    /// When they cannot be listed, or the store fails in between: a list with a gap would pass for complete.
    pub fn snapshots(&self) -> Result<Snapshots> {
        let all = guarded("list snapshots", || self.all_snapshots());
        let mut found = match all {
            Ok(readable) => Snapshots {
                readable,
                unreadable: Vec::new(),
            },
            // Whose fault it was is not told there.
            Err(_) => guarded("list snapshots", || self.each_snapshot())?,
        };
        found
            .readable
            .sort_unstable_by(|a, b| b.time.cmp(&a.time).then_with(|| a.id.cmp(&b.id)));
        found.unreadable.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    fn all_snapshots(&self) -> Result<Vec<Snapshot>> {
        self.repo
            .stream_files::<SnapshotFile>()
            .map_err(|error| self.error(&error, "list snapshots"))?
            .map(|file| {
                file.map(Snapshot::from)
                    .map_err(|error| self.error(&error, "read a snapshot"))
            })
            .collect()
    }

    fn each_snapshot(&self) -> Result<Snapshots> {
        // What the first attempt left there is about one of them, and not the one that is asked for next.
        drop(self.backend.take_error());
        let mut found = Snapshots::default();
        let mut failed = None;
        for id in self
            .backend
            .list(FileType::Snapshot)
            .map_err(|error| self.error(&error, "list snapshots"))?
        {
            let name = id.to_hex().to_string();
            match guarded("read a snapshot", || self.read_snapshot(&id)) {
                Ok(file) => found.readable.push(Snapshot::from((id.into(), file))),
                // A disk fails at one file and reads the next; a connection that fails is likely to fail at more.
                Err(error @ EngineError::Store { .. }) if self.store.is_local() => {
                    failed = Some(error.clone());
                    found.unreadable.push((name, error));
                }
                Err(error) if error.is_of_the_store() || error == EngineError::Cancelled => {
                    return Err(error);
                }
                Err(error) => {
                    let path = layout::path_of(self.store.prefix(), FileType::Snapshot, &id);
                    match self.store.size(&path) {
                        // They come and go while they are listed: restic forgets.
                        Ok(None) => {}
                        Ok(Some(_)) => found.unreadable.push((name, error)),
                        Err(error) if self.store.is_local() => {
                            failed = Some(error.clone());
                            found.unreadable.push((name, error));
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        match failed {
            Some(error) if found.readable.is_empty() => Err(error),
            _ => Ok(found),
        }
    }

    /// Adds the snapshot of this full id, where it is there and the store doesn't list it: a listing may lag.
    pub(crate) fn add_unlisted(&self, all: &mut Snapshots, id: &str) -> Result<()> {
        let known = all.readable.iter().any(|snapshot| snapshot.id == id)
            || all.unreadable.iter().any(|(name, _)| name == id);
        let Some(full) = id.parse::<rustic_core::Id>().ok().filter(|_| id.len() == 64) else {
            return Ok(());
        };
        let path = layout::path_of(self.store.prefix(), FileType::Snapshot, &full);
        if known || self.store.is_local() || self.store.size(&path)?.is_none() {
            return Ok(());
        }
        match guarded("read a snapshot", || self.read_snapshot(&full)) {
            Ok(file) => all.readable.push(Snapshot::from((full.into(), file))),
            Err(error) if error.is_of_the_store() || error == EngineError::Cancelled => return Err(error),
            Err(error) => all.unreadable.push((id.to_owned(), error)),
        }
        Ok(())
    }

    /// The kind that the store reported, where it did.
    fn read_snapshot(&self, id: &rustic_core::Id) -> Result<SnapshotFile> {
        self.repo.get_file(&(*id).into()).map_err(|error| {
            self.backend
                .take_error()
                .unwrap_or_else(|| EngineError::Unreadable {
                    what: format!("snapshot {}", id.to_hex().as_str()),
                    detail: crate::words::of(&error),
                })
        })
    }

    /// The snapshot of this whole id, as it is written.
    ///
    /// # Errors
    /// `NoSnapshot`; why it cannot be read, when that is so.
    pub(crate) fn snapshot_file(&self, id: &str) -> Result<SnapshotFile> {
        let none = || EngineError::NoSnapshot { id: id.to_owned() };
        let at: rustic_core::Id = id.parse().map_err(|_| none())?;
        let path = layout::path_of(self.store.prefix(), FileType::Snapshot, &at);
        if self.store.size(&path)?.is_none() {
            return Err(none());
        }
        let mut file = self.read_snapshot(&at)?;
        file.id = at.into();
        Ok(file)
    }

    /// The one snapshot whose id begins with `id`.
    ///
    /// # Errors
    /// `NoSnapshot`; `Invalid` when several begin so; why it cannot be read, when that is so.
    pub fn snapshot(&self, id: &str) -> Result<Snapshot> {
        if id.len() == 64 {
            let file = guarded("read a snapshot", || self.snapshot_file(id))?;
            return Ok(Snapshot::from((file.id, file)));
        }
        let fits = |name: &str| !id.is_empty() && name.starts_with(id);
        let all = self.snapshots()?;
        let damaged = all.unreadable.into_iter().filter(|(name, _)| fits(name));
        let sound = all.readable.into_iter().filter(|snapshot| fits(&snapshot.id));
        let mut matching = sound.map(Ok).chain(damaged.map(|(_, error)| Err(error)));
        match (matching.next(), matching.next()) {
            (Some(only), None) => only,
            (None, _) => Err(EngineError::NoSnapshot { id: id.to_owned() }),
            (Some(_), Some(_)) => Err(EngineError::Invalid {
                detail: format!("several snapshots begin with {id}"),
            }),
        }
    }
}
