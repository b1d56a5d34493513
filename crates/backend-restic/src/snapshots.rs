//! What snapshots a repository holds.

use jiff::Timestamp;
use rustic_core::repofile::SnapshotFile;
use serde::{Deserialize, Serialize};

use crate::error::{EngineError, Result, guarded};
use crate::repo::OpenRepo;

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
        }
    }
}

impl OpenRepo {
    /// Every snapshot, newest first.
    ///
    /// # Errors
    /// When any of them cannot be read: a list with a gap would make a service look as if it had no backup.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        guarded("list snapshots", || {
            let files = self
                .repo
                .stream_files::<SnapshotFile>()
                .map_err(|error| self.error(&error, "list snapshots"))?;
            let mut found = Vec::new();
            for file in files {
                found.push(Snapshot::from(
                    file.map_err(|error| self.error(&error, "read a snapshot"))?,
                ));
            }
            found.sort_unstable_by(|a, b| b.time.cmp(&a.time).then_with(|| a.id.cmp(&b.id)));
            Ok(found)
        })
    }

    /// The one snapshot whose id begins with `id`.
    ///
    /// # Errors
    /// `NoSnapshot`; `Invalid` when several begin so.
    pub fn snapshot(&self, id: &str) -> Result<Snapshot> {
        let mut matching = self
            .snapshots()?
            .into_iter()
            .filter(|snapshot| !id.is_empty() && snapshot.id.starts_with(id));
        match (matching.next(), matching.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => Err(EngineError::NoSnapshot { id: id.to_owned() }),
            (Some(_), Some(_)) => Err(EngineError::Invalid {
                detail: format!("several snapshots begin with {id}"),
            }),
        }
    }
}
