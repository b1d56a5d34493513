//! The journal in a SQLite file. This file is about everything that can be wrong with the file: broken, locked, newer,
//! unwritable. The rows are `schema`'s affair.
//!
//! It is opened when it is first needed, and mostly closed without a checkpoint: a preseed that finds all data present
//! has about ten milliseconds in all, and a checkpoint waits for the disk. SQLite's automatic one would not do: every
//! process that opens the log forgets how much of it was copied, so that beyond the limit each commit of a short run
//! copies all of it and none ever shortens it. So we do it ourselves, whole, in runs that were long anyway.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::memory::{Tables, merge};
use super::schema::{self, Found, MIGRATIONS};
use super::{Entry, Journal, JournalError, Query, Run, ServiceRecord, Warning};
use crate::clock::Clock;
use crate::names::{DatasetName, PointId, ServiceName};
use crate::point::Fingerprint;

/// How long another process may hold the file before we go on without.
const PATIENCE: Duration = Duration::from_millis(250);
/// What is kept in memory at most; a program that runs for months must not grow by a journal it can't write.
const MOST_PENDING: usize = 10_000;

/// A run that was this long does not mind waiting for the disk,
const LONG_RUN: Duration = Duration::from_secs(1);
/// once the log has this size.
const LOG_WORTH_IT: u64 = 256 * 1024;
/// A log of this size, which each opening reads, is copied in any run.
const LONGEST_LOG: u64 = 2 * 1024 * 1024;

/// A power cut may cost the last rows, never the file; a run does not wait for the disk.
const NO_WAITING: &str = "PRAGMA synchronous = NORMAL";

/// When a broken file was set aside, in its name.
const SET_ASIDE: &str = "%Y%m%dT%H%M%SZ";

/// No reseed has had this many versions of the journal: what claims a newer one is damaged.
const LATEST_PLAUSIBLE: i64 = 10_000;

/// A [`Journal`] in one SQLite file, which may be missing, broken, locked, newer or unwritable.
#[derive(Debug)]
pub struct SqliteJournal {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: Option<Open>,
    /// Why nothing can be written as long as this process lives.
    read_only: Option<String>,
    /// What the file could not take yet, in order.
    pending: Vec<Entry>,
    /// The same, to be read.
    overlay: Tables,
    /// Something was written by this process, or was to be. One that only reads changes nothing, and a dry run least of all.
    writes: bool,
    /// The file was locked last time: don't wait for it again and again.
    was_locked: bool,
    warnings: Vec<Warning>,
}

#[derive(Debug)]
struct Open {
    conn: Connection,
    /// Which file it is, so that only that one is ever set aside.
    file: Option<(u64, u64)>,
    /// Since when, by the monotonic clock.
    since: Duration,
}

/// What can be wrong.
#[derive(Debug)]
enum Trouble {
    /// Not a journal, or not any more: set aside, begin anew.
    Broken(String),
    /// Another process has it: later.
    Locked,
    /// Written by a newer program: leave it alone.
    Newer(i64),
    /// It can be read, perhaps, and not written.
    Unwritable(String),
    /// The disk says no at the moment: full, or failing.
    Later(String),
    /// There is no memory, or damage made SQLite ask for two gigabytes of it.
    NoMemory(String),
}

impl SqliteJournal {
    /// The journal at `path`. Nothing is opened yet, and nothing can fail.
    pub fn new(path: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Self {
        Self {
            path: path.into(),
            clock,
            state: Mutex::default(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on the open file. A broken file is set aside once, and the work done on a new one.
    fn on_file<T>(
        &self,
        state: &mut State,
        mut work: impl FnMut(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Trouble> {
        let mut set_aside = false;
        loop {
            let patience = if state.was_locked {
                Duration::ZERO
            } else {
                PATIENCE
            };
            let before = state
                .open
                .as_ref()
                .map_or_else(|| file_id(&self.path), |open| open.file);
            let done = match &mut state.open {
                Some(open) => open
                    .conn
                    .busy_timeout(patience)
                    .and_then(|()| work(&mut open.conn))
                    .map_err(Trouble::from),
                None => match open(&self.path, patience) {
                    Ok(conn) => {
                        state.open = Some(Open {
                            conn,
                            file: file_id(&self.path),
                            since: self.clock.monotonic(),
                        });
                        continue;
                    }
                    Err(trouble) => Err(trouble),
                },
            };
            let done = done.map_err(|trouble| match trouble {
                Trouble::NoMemory(_) if is_damaged(&self.path) => {
                    Trouble::Broken("it claims records larger than itself".to_owned())
                }
                other => other,
            });
            match done {
                Ok(value) => {
                    state.was_locked = false;
                    return Ok(value);
                }
                Err(trouble @ Trouble::Broken(_)) if !state.writes => return Err(trouble),
                Err(Trouble::Broken(why)) if !set_aside => {
                    set_aside = true;
                    state.open = None;
                    self.set_aside(state, before, &why)?;
                }
                Err(Trouble::Broken(why)) => return Err(Trouble::Unwritable(why)),
                Err(trouble) => {
                    state.was_locked = matches!(trouble, Trouble::Locked);
                    return Err(trouble);
                }
            }
        }
    }

    /// Renames the broken file and what belongs to it. Never removes, never overwrites.
    fn set_aside(&self, state: &mut State, broken: Option<(u64, u64)>, why: &str) -> Result<(), Trouble> {
        if file_id(&self.path) != broken {
            // Another process was faster; what stands there now is not what was broken.
            return Ok(());
        }
        let failed = |error: io::Error| {
            Trouble::Unwritable(format!(
                "it is broken ({why}) and could not be set aside: {error}"
            ))
        };
        let time = self.clock.now().strftime(SET_ASIDE).to_string();
        let aside = (1..)
            .map(|n: u32| {
                suffixed(
                    &self.path,
                    &if n == 1 {
                        format!(".broken-{time}")
                    } else {
                        format!(".broken-{time}.{n}")
                    },
                )
            })
            .find(|aside| {
                ["", "-wal", "-shm"]
                    .iter()
                    .all(|tail| fs::symlink_metadata(suffixed(aside, tail)).is_err())
            })
            .unwrap_or_else(|| suffixed(&self.path, ".broken"));
        for tail in ["", "-wal", "-shm"] {
            match fs::rename(suffixed(&self.path, tail), suffixed(&aside, tail)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        state.warnings.push(Warning {
            message: format!(
                "the journal {} was broken ({why}); it is now {}, and a new one was begun",
                self.path.display(),
                aside.display()
            ),
            hint: format!(
                "the old history may be readable with `sqlite3 {} .recover`",
                aside.display()
            ),
        });
        Ok(())
    }

    /// Stores what is pending, or keeps it.
    fn flush(&self, state: &mut State) {
        if state.pending.is_empty() || state.read_only.is_some() {
            return;
        }
        let entries = std::mem::take(&mut state.pending);
        let lasting = entries.iter().any(|entry| matches!(entry, Entry::Attempt(..)));
        let done = self.on_file(state, |conn| {
            if lasting {
                conn.execute_batch("PRAGMA synchronous = FULL")?;
            }
            let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            for entry in &entries {
                schema::write(&tx, entry)?;
            }
            tx.commit()?;
            match lasting {
                true => conn.execute_batch(NO_WAITING),
                false => Ok(()),
            }
        });
        match done {
            Ok(()) => {
                state.overlay = Tables::default();
                self.shorten_log(state);
            }
            Err(trouble) => {
                state.pending = entries;
                self.note(state, trouble);
            }
        }
    }

    /// Copies the log into the file and empties it, if this run can afford it. Whoever reads at the same time is not
    /// disturbed; it is then left for another time.
    fn shorten_log(&self, state: &State) {
        let Some(open) = &state.open else { return };
        let long = self.clock.monotonic().saturating_sub(open.since) >= LONG_RUN;
        let worth_it = if long { LOG_WORTH_IT } else { LONGEST_LOG };
        let log = fs::metadata(suffixed(&self.path, "-wal")).map_or(0, |meta| meta.len());
        if log >= worth_it && state.read_only.is_none() && open.conn.busy_timeout(Duration::ZERO).is_ok() {
            let _ = open
                .conn
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
    }

    /// Says once what keeps the file from being written.
    fn note(&self, state: &mut State, trouble: Trouble) {
        let path = self.path.display();
        let (why, hint, for_good) = match trouble {
            Trouble::Locked => (
                "another process holds it".to_owned(),
                format!("find it with `fuser {path}`"),
                false,
            ),
            Trouble::Newer(found) => (
                JournalError::Newer {
                    found,
                    known: newest(),
                }
                .to_string(),
                "use the newer reseed, or give this one another state directory".to_owned(),
                true,
            ),
            Trouble::Unwritable(why) | Trouble::Broken(why) => {
                (why, format!("check owner, mode and file system of {path}"), true)
            }
            Trouble::Later(why) => (why, format!("check the disk that holds {path}"), false),
            Trouble::NoMemory(why) => (why, "give it more memory".to_owned(), false),
        };
        if for_good {
            state.read_only = Some(why.clone());
        }
        let message = format!("the journal {path} is not written: {why}; this run goes on without it");
        if !state.warnings.iter().any(|warning| warning.message == message) {
            state.warnings.push(Warning { message, hint });
        }
    }

    /// Reads from the file; `None` when there is none.
    fn read<T>(
        &self,
        state: &mut State,
        work: impl FnMut(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, JournalError> {
        if state.open.is_none()
            && matches!(fs::metadata(&self.path), Err(e) if e.kind() == io::ErrorKind::NotFound)
        {
            return Ok(None);
        }
        let done = self.on_file(state, work);
        if let Err(Trouble::Broken(why)) = &done {
            let error = JournalError::Damaged { why: why.clone() };
            let warning = Warning {
                message: format!("{}: {error}", self.path.display()),
                hint: error.hint().to_owned(),
            };
            if !state.warnings.contains(&warning) {
                state.warnings.push(warning);
            }
        }
        done.map(Some).map_err(|trouble| match trouble {
            Trouble::Locked => JournalError::Locked,
            Trouble::Newer(found) => JournalError::Newer {
                found,
                known: newest(),
            },
            Trouble::Broken(why) => JournalError::Damaged { why },
            Trouble::Unwritable(why) | Trouble::Later(why) | Trouble::NoMemory(why) => {
                JournalError::Unreadable { why }
            }
        })
    }
}

impl Journal for SqliteJournal {
    fn write(&self, entries: Vec<Entry>) {
        let mut state = self.state();
        let known = state.pending.len();
        state.writes = true;
        state.pending.extend(entries);
        self.flush(&mut state);
        let kept: Vec<Entry> = state.pending.iter().skip(known).cloned().collect();
        kept.into_iter().for_each(|entry| state.overlay.apply(entry));
        if state.pending.len() > MOST_PENDING {
            let excess = state.pending.len() - MOST_PENDING / 2;
            state.pending.drain(..excess);
            let rest = state.pending.clone();
            state.overlay = Tables::default();
            rest.into_iter().for_each(|entry| state.overlay.apply(entry));
        }
    }

    fn history(&self, query: &Query) -> Result<Vec<Run>, JournalError> {
        let mut state = self.state();
        self.flush(&mut state);
        // What is pending may complete a row of the file, so that both are read without the filter's help.
        if state.pending.is_empty() {
            let (runs, unread) = self
                .read(&mut state, |conn| schema::history(conn, query))?
                .unwrap_or_default();
            if unread > 0 {
                state.warnings.push(Warning {
                    message: format!(
                        "{unread} rows of the journal {} can't be read",
                        self.path.display()
                    ),
                    hint: format!(
                        "`sqlite3 {} 'PRAGMA integrity_check'` shows more",
                        self.path.display()
                    ),
                });
            }
            return Ok(runs);
        }
        let all = Query {
            limit: None,
            outcomes: None,
            since: None,
            ..query.clone()
        };
        let newer = state.overlay.history(&all);
        let mut runs = match self.read(&mut state, |conn| schema::history(conn, &all)) {
            Ok(found) => found.unwrap_or_default().0,
            // What this process did is better than nothing.
            Err(JournalError::Locked) => Vec::new(),
            Err(error) => return Err(error),
        };
        for run in newer.into_iter().rev() {
            match runs.iter_mut().find(|known| known.key == run.key) {
                Some(known) => {
                    let attempts = if run.attempts.is_empty() {
                        std::mem::take(&mut known.attempts)
                    } else {
                        run.attempts.clone()
                    };
                    merge(known, run);
                    known.attempts = attempts;
                }
                None => runs.insert(0, run),
            }
        }
        runs.retain(|run| query.matches(run));
        runs.sort_by_key(|run| std::cmp::Reverse(run.started_at));
        runs.truncate(
            query
                .limit
                .map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        );
        Ok(runs)
    }

    fn fingerprint(
        &self,
        dataset: &DatasetName,
        point: &PointId,
    ) -> Result<Option<Fingerprint>, JournalError> {
        let mut state = self.state();
        match state.overlay.fingerprint(dataset, point) {
            Some(found) => Ok(Some(found)),
            None => Ok(self
                .read(&mut state, |conn| schema::fingerprint(conn, dataset, point))?
                .flatten()),
        }
    }

    fn service(&self, service: &ServiceName) -> Result<Option<ServiceRecord>, JournalError> {
        let mut state = self.state();
        match state.overlay.service(service) {
            Some(found) => Ok(Some(found)),
            None => Ok(self
                .read(&mut state, |conn| schema::service(conn, service))?
                .flatten()),
        }
    }

    fn begun_anew(&self) -> Option<Timestamp> {
        let name = self.path.file_name()?.to_str()?;
        let beside = fs::read_dir(self.path.parent()?).ok()?;
        // By its name, or when it was last written to, should the clock have been wrong when it got that name.
        let time = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.ok()?;
            let found = entry.file_name();
            let time = found.to_str()?.strip_prefix(name)?.strip_prefix(".broken-")?;
            let time = DateTime::strptime(SET_ASIDE, time.get(..16)?).ok()?;
            let named = TimeZone::UTC.to_timestamp(time).ok()?;
            let written = entry.metadata().and_then(|found| found.modified()).ok();
            let written = written.and_then(|time| Timestamp::try_from(time).ok());
            Some(written.map_or(named, |written| written.max(named)))
        };
        beside.filter_map(time).max()
    }

    fn take_warnings(&self) -> Vec<Warning> {
        std::mem::take(&mut self.state().warnings)
    }
}

impl Drop for SqliteJournal {
    fn drop(&mut self) {
        let mut state = std::mem::take(&mut *self.state());
        state.was_locked = false;
        self.flush(&mut state);
        self.shorten_log(&state);
    }
}

fn newest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut text = OsString::from(path);
    text.push(suffix);
    PathBuf::from(text)
}

/// Device and inode of what stands at a path, not following a link: it is the link that is renamed.
fn file_id(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path)
        .ok()
        .map(|meta| (meta.dev(), meta.ino()))
}

/// Whether a file has SQLite's first 16 bytes (<https://www.sqlite.org/fileformat2.html>).
fn begins_as_a_database(path: &Path) -> bool {
    let mut first = [0; 16];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut first));
    read.is_ok() && first == *b"SQLite format 3\0"
}

/// Opens a file of the newest version, making or migrating it.
fn open(path: &Path, patience: Duration) -> Result<Connection, Trouble> {
    let size = match fs::metadata(path) {
        Ok(meta) if !meta.is_file() => return Err(Trouble::Broken("it is not a regular file".to_owned())),
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                fs::create_dir_all(parent)
                    .map_err(|error| Trouble::Unwritable(format!("{}: {error}", parent.display())))?;
            }
            0
        }
        Err(error) => return Err(Trouble::Unwritable(error.to_string())),
    };
    // SQLite throws away the log of an empty database; it may hold all there was.
    // (Looked at again: another process may have begun the journal meanwhile, and writes its first page before its log.)
    let has_log = || fs::metadata(suffixed(path, "-wal")).is_ok_and(|meta| meta.len() > 0);
    let is_empty = || fs::metadata(path).map_or(true, |meta| meta.len() == 0);
    if size == 0 && has_log() && is_empty() {
        return Err(Trouble::Broken(
            "it is empty and its write-ahead log is not".to_owned(),
        ));
    }
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(patience)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    match schema::look(&conn)? {
        Found::Version(version) if version == newest() => {}
        Found::Version(version) if version > LATEST_PLAUSIBLE => {
            return Err(Trouble::Broken(format!("it claims the version {version}")));
        }
        Found::Version(version) if version > newest() => return Err(Trouble::Newer(version)),
        Found::Version(_) => schema::migrate(&mut conn, MIGRATIONS)?,
        // A single zero, say: SQLite takes it for nothing.
        Found::Empty if size > 0 && !begins_as_a_database(path) => {
            return Err(Trouble::Broken("it doesn't begin as a database does".to_owned()));
        }
        Found::Empty => {
            conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
            schema::migrate(&mut conn, MIGRATIONS)?;
        }
        Found::Foreign => return Err(Trouble::Broken("it is another program's database".to_owned())),
    }
    conn.execute_batch(NO_WAITING)?;
    conn.execute_batch("PRAGMA wal_autocheckpoint = 0")?;
    Ok(conn)
}

/// Whether SQLite itself finds something wrong with the file.
fn is_damaged(path: &Path) -> bool {
    let said = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .and_then(|conn| {
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        conn.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
    });
    said.is_ok_and(|said| said != "ok")
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        const IOERR_SHORT_READ: i32 = 522;
        let why = error.to_string();
        let code = match &error {
            rusqlite::Error::SqliteFailure(code, _) => *code,
            rusqlite::Error::SqlInputError { error, .. } => *error,
            _ => return Self::Broken(why),
        };
        match code.code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => {
                Self::Locked
            }
            ErrorCode::ReadOnly
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::AuthorizationForStatementDenied => Self::Unwritable(why),
            ErrorCode::SystemIoFailure if code.extended_code != IOERR_SHORT_READ => Self::Later(why),
            ErrorCode::DiskFull | ErrorCode::OperationInterrupted => Self::Later(why),
            ErrorCode::OutOfMemory => Self::NoMemory(why),
            // Corrupt, no database at all, or tables that are not what the version promises.
            _ => Self::Broken(why),
        }
    }
}
