//! Backing up one directory tree.
//!
//! Promises: a snapshot appears only when the archiver ran to its end, under a lock that was held all the while,
//! without being cancelled; what could not be read is counted and named; the recorded path, host, tags and time are
//! the caller's; the root directory keeps its own metadata. Reading the same unchanged files again adds nothing.
//!
//! It knows nothing about recovery points: the caller turns those into tags. It never forgets and never prunes.

mod findings;
mod record;
mod source;
mod xattr;

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustic_core::repofile::SnapshotFile;
use rustic_core::{BackupOptions, FileType, SnapshotOptions};
use serde::{Deserialize, Serialize};

use crate::error::{EngineError, Result, guarded};
use crate::lock::{LockMode, RepoLock};
use crate::progress::{Meter, OnProgress};
use crate::repo::{Engine, OpenRepo};
use crate::secret::Password;
use crate::store::{Gate, Store};
use findings::Findings;
pub(crate) use record::{RecordJob, record_through};
pub(crate) use source::Cancelled;
use source::TreeSource;
pub(crate) use source::ZFS_CONTROL_INODE;
pub(crate) use xattr::read as attributes_of;

/// What to back up, and how it is recorded.
#[derive(Debug, Clone)]
pub struct BackupJob {
    /// Where the tree is read.
    pub source: PathBuf,
    /// The path that is recorded. Absolute, and the same each time, or the next backup reads everything again.
    pub as_path: PathBuf,
    /// The host that is recorded.
    pub host: String,
    /// Tags; none may hold a comma, which restic takes for a separator.
    pub tags: Vec<String>,
    /// One more tag, when something could not be read.
    pub partial_tag: Option<String>,
    /// The time that is recorded.
    pub time: Timestamp,
}

/// What a backup did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupSummary {
    /// The snapshot's id.
    pub snapshot: String,
    /// How many entries could not be read entirely. Not zero means that the backup is partial.
    pub unreadable: u64,
    /// The first of them with the reason each.
    pub examples: Vec<String>,
    /// Files and other entries that are not directories.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of file content that were new, before compression.
    pub added_data: u64,
    /// Bytes added to the repository as stored, metadata included.
    pub added_stored: u64,
    /// What was odd about the repository and did no harm.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The snapshot is there, and the store doesn't list it yet.
    #[serde(default)]
    pub unlisted: bool,
}

/// Runs a backup.
///
/// # Errors
/// `Source`, `Locked`, `Cancelled`, `LockLost`, and what opening and writing can raise.
pub fn backup(
    engine: &Engine,
    password: &Password,
    job: &BackupJob,
    on_progress: OnProgress,
    cancelled: Arc<dyn Fn() -> bool + Send + Sync>,
) -> Result<BackupSummary> {
    backup_through(&Gate::default(), engine, password, job, on_progress, cancelled)
}

/// The same through a gate of the caller's, who learns from it whether anything was written.
pub(crate) fn backup_through(
    gate: &Gate,
    engine: &Engine,
    password: &Password,
    job: &BackupJob,
    on_progress: OnProgress,
    cancelled: Cancelled,
) -> Result<BackupSummary> {
    check_source(&job.source)?;
    let name = check_recorded_path(&job.as_path)?;
    check_tags(job)?;
    let meter = Meter::new(on_progress);
    let open = engine.open_with(password, gate.clone(), meter)?;
    let lock = open.locker.take(LockMode::Required, gate)?;
    let findings = Arc::new(Findings::default());
    let source = TreeSource {
        root: job.source.clone(),
        name,
        findings: Arc::clone(&findings),
        cancelled,
        gate: gate.clone(),
    };
    let store = Arc::clone(&open.store);
    let mut summary = guarded("backup", || archive(open, job, &source, &findings, gate))?;
    // It is written for good; that nobody finds it has to be said, and is no reason to call it failed.
    summary.unlisted = is_unlisted(&store, &summary.snapshot);
    summary.warnings = lock.as_ref().map(RepoLock::warnings).unwrap_or_default();
    Ok(summary)
}

/// Whether nobody finds a snapshot that was written.
fn is_unlisted(store: &Store, snapshot: &str) -> bool {
    !store.is_local()
        && store.list(FileType::Snapshot.dirname()).is_ok_and(|listed| {
            let is_it = |name: Option<&str>| name == Some(snapshot);
            !listed.iter().any(|meta| is_it(meta.location.filename()))
        })
}

fn archive(
    open: OpenRepo,
    job: &BackupJob,
    source: &TreeSource,
    findings: &Findings,
    gate: &Gate,
) -> Result<BackupSummary> {
    let backend = open.backend.clone();
    let fail = |error: Box<rustic_core::RusticError>| {
        gate.check()
            .err()
            .unwrap_or_else(|| crate::repo::prefer(&backend, &error, "backup"))
    };
    let mut prefilled = SnapshotOptions::default()
        .host(job.host.clone())
        .time(job.time.to_zoned(TimeZone::UTC))
        .to_snapshot()
        .map_err(fail)?;
    for tag in &job.tags {
        prefilled.tags.add(tag.clone());
    }
    // Never ignore_inode nor ignore_ctime: the first is inverted and skips files that were replaced.
    let options = BackupOptions::default().as_path(job.as_path.clone());
    let indexed = open.repo.to_indexed_ids().map_err(fail)?;
    // The archiver would write the snapshot before anyone knows whether it is complete.
    backend.hold_back_snapshots(true);
    let archived = indexed.archive(&options, source, prefilled, std::slice::from_ref(&job.source));
    backend.hold_back_snapshots(false);
    let mut snapshot: SnapshotFile = archived.map_err(fail)?;
    gate.check()?;
    if (source.cancelled)() {
        return Err(EngineError::Cancelled);
    }

    let summary = snapshot.summary.clone().unwrap_or_default();
    let expected = findings.emitted.load(Ordering::Relaxed) - findings.dropped.load(Ordering::Relaxed);
    if summary.total_files_processed != expected {
        let (stored, seen) = (summary.total_files_processed, expected);
        findings.add(
            &job.source,
            format!("{stored} entries were stored of {seen} that were read"),
        );
    }
    if findings.count() > 0
        && let Some(tag) = &job.partial_tag
    {
        snapshot.tags.add(tag.clone());
    }
    indexed.save_snapshots(vec![snapshot]).map_err(fail)?;
    let id = backend.last_snapshot().ok_or_else(|| EngineError::Store {
        action: "write the snapshot".into(),
        detail: "no snapshot file was written".into(),
    })?;
    Ok(BackupSummary {
        snapshot: id.to_hex().to_string(),
        unreadable: findings.count(),
        examples: findings.named(),
        files: summary.total_files_processed,
        bytes: summary.total_bytes_processed,
        added_data: summary.data_added_files,
        added_stored: summary.data_added_packed,
        warnings: Vec::new(),
        unlisted: false,
    })
}

/// restic exits 0 for a source that does not exist; here it is an error before anything is written.
fn check_source(path: &Path) -> Result<()> {
    let refuse = |detail: String| EngineError::Source {
        path: path.display().to_string(),
        detail,
    };
    let meta = std::fs::symlink_metadata(path).map_err(|error| refuse(error.to_string()))?;
    if !meta.is_dir() {
        return Err(refuse("it is not a directory".into()));
    }
    std::fs::read_dir(path).map_err(|error| refuse(error.to_string()))?;
    Ok(())
}

fn check_tags(job: &BackupJob) -> Result<()> {
    let mut tags = job.tags.iter().chain(&job.partial_tag);
    match tags.find(|tag| tag.contains(',') || tag.is_empty()) {
        None => Ok(()),
        Some(tag) => Err(EngineError::Invalid {
            detail: format!("{tag:?} cannot be a tag"),
        }),
    }
}

fn check_recorded_path(path: &Path) -> Result<std::ffi::OsString> {
    let plain = path
        .components()
        .skip(1)
        .all(|part| matches!(part, Component::Normal(_)));
    match path.file_name() {
        Some(name) if path.is_absolute() && plain && path.to_str().is_some() => Ok(name.to_owned()),
        _ => Err(EngineError::Invalid {
            detail: format!(
                "{} cannot be recorded: it must be absolute, UTF-8 and below the root",
                path.display()
            ),
        }),
    }
}
