//! Another snapshot of a tree that is stored already.
//!
//! Promises: what a backup here has written is recorded, and nothing that somebody made of it since (restic's `rewrite` and `repair
//! snapshots` keep all that is recorded of a tree that they cut down, and only name the original). Nothing is read but the other
//! snapshot and the top of its tree, which therefore is there; nothing is written but one snapshot, under a lock. It says when its tree was last read by a backup, in a tag that goes on from one to the next.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustic_core::repofile::{SnapshotFile, SnapshotSummary};
use rustic_core::{NoProgressBars, SnapshotOptions};

use super::{BackupJob, BackupSummary, Cancelled, check_recorded_path, check_tags, is_unlisted};
use crate::error::{EngineError, Result, guarded};
use crate::lock::{LockMode, RepoLock};
use crate::repo::{Engine, OpenRepo};
use crate::secret::Password;
use crate::store::Gate;

/// When the tree of a snapshot that was recorded was read.
const READ: &str = "reseed-read=";

/// What is recorded, and of what.
#[derive(Debug, Clone)]
pub(crate) struct RecordJob {
    /// As for a backup. Its source isn't looked at.
    pub(crate) backup: BackupJob,
    /// The other snapshot, by its full id.
    pub(crate) same_as: String,
    /// One that was read before is not enough.
    pub(crate) read_since: Timestamp,
    /// A tag that the other has to have: that it is of the same target.
    pub(crate) needs: String,
}

/// Records another snapshot; nothing when the tree has to be read.
///
/// # Errors
/// `NoSnapshot`, `Locked`, `Cancelled`, and what opening and writing can raise.
pub(crate) fn record_through(
    gate: &Gate,
    engine: &Engine,
    password: &Password,
    job: &RecordJob,
    cancelled: &Cancelled,
) -> Result<Option<BackupSummary>> {
    check_recorded_path(&job.backup.as_path)?;
    check_tags(&job.backup)?;
    let open = engine.open_with(password, gate.clone(), NoProgressBars)?;
    let lock = open.locker.take(LockMode::Required, gate)?;
    let store = Arc::clone(&open.store);
    let mut summary = guarded("record", || record(open, job, gate, cancelled))?;
    if let Some(summary) = &mut summary {
        summary.unlisted = is_unlisted(&store, &summary.snapshot);
        summary.warnings = lock.as_ref().map(RepoLock::warnings).unwrap_or_default();
    }
    Ok(summary)
}

/// When the tree of a snapshot was last read.
fn read_at(snapshot: &SnapshotFile) -> Timestamp {
    let said = snapshot.tags.iter().find_map(|tag| tag.strip_prefix(READ));
    let taken = snapshot.time.timestamp();
    // A date that can't be read, or lies after its own, is no reason to trust it longer.
    let said = said.map(|time| time.parse().unwrap_or(Timestamp::MIN));
    said.map_or(taken, |said: Timestamp| said.min(taken))
}

/// Whether the snapshot is what this job would have made, as it was written.
fn is_alike(snapshot: &SnapshotFile, job: &RecordJob) -> bool {
    let backup = &job.backup;
    let path = backup.as_path.to_str();
    let mut paths = snapshot.paths.iter();
    let same_path = paths.next().map(String::as_str) == path && paths.next().is_none();
    let has = |wanted: &String| snapshot.tags.iter().any(|tag| tag == wanted);
    same_path
        && snapshot.original.is_none()
        && snapshot.hostname == backup.host
        && has(&job.needs)
        && !backup.partial_tag.as_ref().is_some_and(has)
        && read_at(snapshot) >= job.read_since
}

fn record(
    open: OpenRepo,
    job: &RecordJob,
    gate: &Gate,
    cancelled: &Cancelled,
) -> Result<Option<BackupSummary>> {
    let backend = open.backend.clone();
    let fail = |error: Box<rustic_core::RusticError>| {
        gate.check()
            .err()
            .unwrap_or_else(|| crate::repo::prefer(&backend, &error, "record"))
    };
    let other = open.snapshot_file(&job.same_as)?;
    if !is_alike(&other, job) {
        return Ok(None);
    }
    let read_at = read_at(&other);
    let mut snapshot = SnapshotOptions::default()
        .host(job.backup.host.clone())
        .time(job.backup.time.to_zoned(TimeZone::UTC))
        .to_snapshot()
        .map_err(fail)?;
    for tag in &job.backup.tags {
        snapshot.tags.add(tag.clone());
    }
    snapshot.tags.add(format!("{READ}{read_at}"));
    snapshot.paths = other.paths.clone();
    snapshot.tree = other.tree;
    snapshot.parent = Some(other.id);
    let (mut files, mut bytes) = (0, 0);
    if let Some(summary) = other.summary {
        (files, bytes) = (summary.total_files_processed, summary.total_bytes_processed);
        let mut counted = SnapshotSummary::default();
        counted.files_unmodified = files;
        counted.dirs_unmodified = summary.total_dirs_processed;
        counted.total_files_processed = files;
        counted.total_bytes_processed = bytes;
        counted.total_dirs_processed = summary.total_dirs_processed;
        counted.total_dirsize_processed = summary.total_dirsize_processed;
        counted.backup_start = snapshot.time.clone();
        counted.backup_end = snapshot.time.clone();
        snapshot.summary = Some(counted);
    }
    let indexed = open.repo.to_indexed_ids().map_err(fail)?;
    // A tree that isn't there any more must not look as if it were.
    indexed.get_tree(&snapshot.tree).map_err(fail)?;
    gate.check()?;
    if cancelled() {
        return Err(EngineError::Cancelled);
    }
    indexed.save_snapshots(vec![snapshot]).map_err(fail)?;
    let id = backend.last_snapshot().ok_or_else(|| EngineError::Store {
        action: "write the snapshot".into(),
        detail: "no snapshot file was written".into(),
    })?;
    Ok(Some(BackupSummary {
        snapshot: id.to_hex().to_string(),
        unreadable: 0,
        examples: Vec::new(),
        files,
        bytes,
        added_data: 0,
        added_stored: 0,
        warnings: Vec::new(),
        unlisted: false,
    }))
}
