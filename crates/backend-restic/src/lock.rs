//! Locks that restic understands.
//!
//! Promises: while a lock is held, any restic sees a lock of ours and refuses to prune; an exclusive lock of
//! somebody else that is not stale keeps us out; ours is gone when it is given up, however that happens. It knows restic's rules
//! (`internal/restic/lock.go`) and nothing about what is done under the lock.
//!
//! - A lock is stale after 30 minutes without a refresh, or when its process is dead on its own host.
//! - Whoever writes must find its own lock in the listing that it looks for others in: a listing that lags hides theirs, too.
//! - It is refreshed every 5 minutes by writing a new file before removing the old one, so there is never a moment
//!   without one. When refreshing fails for 25 minutes, or the old one was gone, writing is refused from then on
//!   (`upkeep`): others believed us dead, or may by then.
//! - An exclusive lock of another host keeps writers out however old it is, as with restic: that its clock is right is only
//!   believed by those who read.
//! - A lock of somebody else is removed only when its process is provably dead: same host, no such process. That a host has the same
//!   name is all that is known of it, so that is believed only when it wasn't refreshed for longer than restic takes for that
//!   (`WATCHED`); until then it stays, and one that is in the way keeps writers out. Readers pass it.
//! - A lock file that is no lock (garbage, cut off, sealed with a key that is gone) is warned of, passed and left alone,
//!   as by restic 0.14: nobody who holds a lock wrote it. restic from 0.15 on works past none of them. What cannot be fetched is another
//!   matter: it may be somebody's, so nothing is written past it. Reading goes on even then.
//! - restic probes the holder of a lock on its host by sending it SIGHUP; while any lock is held that signal is
//!   ignored.

mod upkeep;

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use reseed_core::clock::Clock;
use serde::{Deserialize, Serialize};

use crate::cipher::{Cipher, digest, hex};
use crate::error::{EngineError, Result};
use crate::store::{Gate, Store, layout};
use upkeep::{LOOK_EVERY, Upkeep};

pub(crate) const STALE_AFTER: SignedDuration = SignedDuration::from_mins(30);
/// Longer than restic takes to refresh a lock.
pub(crate) const WATCHED: SignedDuration = SignedDuration::from_mins(6);
/// restic waits this long between writing its lock and looking for others again; two that start at the same moment
/// see each other. In a local directory there is nothing to wait for: what was written is listed, so whoever lists second
/// sees the first, restic too.
const SETTLE: Duration = Duration::from_millis(200);
/// What to do about a lock file that is no lock.
pub(crate) const UNREADABLE_LOCK_HINT: &str =
    "if nothing else works on the repository, remove the file: `restic unlock --remove-all`";
/// A lock file larger than this is not one.
const MAX_SIZE: u64 = 64 * 1024;

/// A lock file's content, as restic writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockFile {
    /// When it was written or last refreshed.
    pub time: Timestamp,
    /// Whether nobody else may work on the repository.
    pub exclusive: bool,
    /// The holder's host.
    #[serde(default)]
    pub hostname: String,
    /// The holder's user.
    #[serde(default)]
    pub username: String,
    /// The holder's process.
    #[serde(default)]
    pub pid: i32,
    /// The holder's user id.
    #[serde(default)]
    pub uid: u32,
    /// The holder's group id.
    #[serde(default)]
    pub gid: u32,
}

/// Who holds a lock, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// User name.
    pub who: String,
    /// Host name.
    pub host: String,
    /// Process id on that host.
    pub pid: i32,
    /// When the lock was taken or last refreshed.
    pub since: Option<Timestamp>,
    /// How many seconds ago that was when it was told, where only that is known.
    #[serde(default)]
    pub age: Option<u32>,
    /// The lock file's id.
    pub id: String,
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} (pid {})", self.who, self.host, self.pid)?;
        if let Some(since) = self.since {
            write!(f, " since {since}")?;
        } else if let Some(age) = self.age {
            write!(f, " for {:#}", SignedDuration::from_secs(age.into()))?;
        }
        write!(f, ", lock {}", self.id.get(..8).unwrap_or(&self.id))
    }
}

impl LockFile {
    fn ours(clock: &dyn Clock, host: &str, exclusive: bool) -> Self {
        let uid = rustix::process::getuid().as_raw();
        Self {
            time: clock.now(),
            exclusive,
            hostname: host.to_owned(),
            username: std::env::var("USER").unwrap_or_else(|_| format!("uid-{uid}")),
            pid: i32::try_from(std::process::id()).unwrap_or(0),
            uid,
            gid: rustix::process::getgid().as_raw(),
        }
    }

    pub(crate) fn holder(&self, id: &str) -> LockHolder {
        LockHolder {
            who: self.username.clone(),
            host: self.hostname.clone(),
            pid: self.pid,
            since: Some(self.time),
            age: None,
            id: id.to_owned(),
        }
    }

    /// Whether its process is gone, and that may yet be another machine's: it may be refreshed.
    pub(crate) fn may_be_refreshed(&self, now: Timestamp) -> bool {
        now.duration_since(self.time) <= WATCHED
    }

    /// Whether somebody may well hold it, here or on a machine of the same name.
    pub(crate) fn may_be_held(&self, now: Timestamp, host: &str) -> bool {
        match self.state(now, host, process_alive) {
            LockState::Live => true,
            LockState::Dead => self.may_be_refreshed(now),
            LockState::Old => false,
        }
    }

    /// Judges the lock by restic's rules.
    pub(crate) fn state(&self, now: Timestamp, host: &str, alive: impl FnOnce(i32) -> bool) -> LockState {
        if self.hostname == host && !host.is_empty() && self.pid > 0 && !alive(self.pid) {
            LockState::Dead
        } else if now.duration_since(self.time) > STALE_AFTER {
            LockState::Old
        } else {
            LockState::Live
        }
    }
}

/// What restic's rules say about a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockState {
    Live,
    /// Not refreshed for too long: does not count, but whether its holder is dead is not known.
    Old,
    /// Its process on this host is gone.
    Dead,
}

pub(crate) fn process_alive(pid: i32) -> bool {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else {
        return false;
    };
    // EPERM means that it exists and belongs to somebody else.
    !matches!(
        rustix::process::test_kill_process(pid),
        Err(rustix::io::Errno::SRCH)
    )
}

/// The name of this machine as restic records it.
pub(crate) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// How badly a lock is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LockMode {
    /// Fail when none can be written. For everything that writes.
    Required,
    /// Go on without one when the repository cannot be written or its locks cannot be read: a restore from read-only or
    /// failing media must work. An exclusive lock of somebody else still keeps it out.
    IfWritable,
}

/// Every lock with its id, and the errors of files that are none.
type Listed = (Vec<(String, LockFile)>, Vec<EngineError>);

/// What locks and their keeper need.
#[derive(Debug, Clone)]
pub(crate) struct Locker {
    pub(crate) store: Arc<Store>,
    pub(crate) cipher: Cipher,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) host: String,
}

impl Locker {
    /// Every lock, with its id, and the errors of files that are none.
    pub(crate) fn list(&self) -> Result<Listed> {
        let (mut found, mut strays) = (Vec::new(), Vec::new());
        for meta in self.store.list(layout::LOCKS)? {
            let Some(id) = layout::id_of(&meta.location) else {
                continue;
            };
            let id = id.to_hex().to_string();
            let size = meta.size?;
            // restic leaves an empty file behind when the disk is full at the wrong moment; it says nothing.
            if size == 0 {
                continue;
            }
            match self.read(&id, size) {
                Ok(lock) => found.push((id, lock)),
                // Locks come and go while they are listed.
                Err(_) if self.store.size(&meta.location)?.is_none() => {}
                Err(error @ EngineError::Unreadable { .. }) => strays.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok((found, strays))
    }

    fn read(&self, id: &str, size: u64) -> Result<LockFile> {
        let unreadable = |detail: String| EngineError::Unreadable {
            what: format!("lock {id}"),
            detail,
        };
        if size > MAX_SIZE {
            return Err(unreadable(format!("{size} bytes are too many for a lock")));
        }
        let mut sealed = Vec::from(self.store.read(&layout::lock_path(self.store.prefix(), id))?);
        let plain = self
            .cipher
            .open(&mut sealed)
            .ok_or_else(|| unreadable("it does not decrypt".into()))?;
        let json = match plain.first() {
            Some(b'{') => plain.to_vec(),
            // Format version 2 compresses everything that is not in a pack, behind a byte that says so.
            Some(2) => zstd::bulk::decompress(&plain[1..], 64 * 1024)
                .map_err(|error| unreadable(error.to_string()))?,
            _ => return Err(unreadable("unknown encoding".into())),
        };
        serde_json::from_slice(&json).map_err(|error| unreadable(error.to_string()))
    }

    /// Takes a lock that others may share, or says who is in the way.
    pub(crate) fn take(&self, mode: LockMode, gate: &Gate) -> Result<Option<RepoLock>> {
        self.start(false, mode)?
            .map(|lock| lock.confirm(gate))
            .transpose()
    }

    /// Writes a lock that counts once it is confirmed. Reading may begin meanwhile.
    pub(crate) fn start(&self, exclusive: bool, mode: LockMode) -> Result<Option<PendingLock>> {
        let strays = self.refuse_if_locked(exclusive, mode, &HashSet::new())?;
        let warnings = strays
            .iter()
            .map(|error| format!("passing a lock file that is none: {error}"))
            .collect();
        let hangup = HangupIgnored::start()?;
        let id = match self.write(exclusive) {
            Ok(id) => id,
            Err(error) if mode == LockMode::IfWritable && !matches!(error, EngineError::Locked { .. }) => {
                tracing::warn!(%error, "restoring without a repository lock");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let (stop, stopped) = mpsc::channel();
        let lock = RepoLock {
            locker: self.clone(),
            upkeep: Arc::new(Upkeep::of(self.clone(), exclusive, id.clone())),
            keeper: None,
            stop: Some(stop),
            warnings,
            _hangup: hangup,
        };
        Ok(Some(PendingLock {
            lock,
            id,
            exclusive,
            mode,
            stopped,
            since: self.clock.monotonic(),
        }))
    }

    /// Says who is in the way; otherwise what lies there and is no lock.
    fn refuse_if_locked(
        &self,
        exclusive: bool,
        mode: LockMode,
        ours: &HashSet<String>,
    ) -> Result<Vec<EngineError>> {
        let (locks, strays) = match self.list() {
            Ok(listed) => listed,
            // Data that nobody restores is lost as surely as data that somebody prunes meanwhile, and sooner.
            Err(error) if mode == LockMode::IfWritable => (Vec::new(), vec![error]),
            Err(error) => return Err(error),
        };
        // Who can't see its own lock can't see another's, and others can't see this one.
        if mode == LockMode::Required && !ours.iter().all(|ours| locks.iter().any(|(id, _)| id == ours)) {
            return Err(EngineError::LockLost {
                detail: "the repository does not list the lock that was just written".into(),
            });
        }
        for (id, lock) in locks {
            if ours.contains(&id) {
                continue;
            }
            match lock.state(self.clock.now(), &self.host, process_alive) {
                // What is old is so by two clocks that nobody has compared: only those who read believe it.
                state @ (LockState::Live | LockState::Old)
                    if (exclusive || lock.exclusive)
                        && (state == LockState::Live || mode == LockMode::Required) =>
                {
                    return Err(EngineError::Locked {
                        holder: lock.holder(&id),
                    });
                }
                LockState::Dead if lock.may_be_refreshed(self.clock.now()) => {
                    if mode == LockMode::Required && (exclusive || lock.exclusive) {
                        return Err(EngineError::Locked {
                            holder: lock.holder(&id),
                        });
                    }
                }
                LockState::Dead => {
                    tracing::info!(holder = %lock.holder(&id), "removing the lock of a dead process");
                    if let Err(error) = self.store.remove(&layout::lock_path(self.store.prefix(), &id)) {
                        tracing::warn!(%error, "cannot remove the lock of a dead process");
                    }
                }
                LockState::Live | LockState::Old => {}
            }
        }
        Ok(strays)
    }

    fn write(&self, exclusive: bool) -> Result<String> {
        let lock = LockFile::ours(&*self.clock, &self.host, exclusive);
        let json = serde_json::to_vec(&lock).map_err(|error| EngineError::Invalid {
            detail: error.to_string(),
        })?;
        let sealed = self.cipher.seal(&json)?;
        let id = hex(&digest(&sealed));
        self.store.write(
            &layout::lock_path(self.store.prefix(), &id),
            vec![Bytes::from(sealed)],
        )?;
        Ok(id)
    }

    fn remove(&self, id: &str) -> Result<()> {
        self.store.remove(&layout::lock_path(self.store.prefix(), id))
    }
}

/// A lock that is written and not yet known to be the only one.
#[derive(Debug)]
pub(crate) struct PendingLock {
    lock: RepoLock,
    id: String,
    exclusive: bool,
    mode: LockMode,
    stopped: mpsc::Receiver<()>,
    since: Duration,
}

impl PendingLock {
    /// Waits until whoever started at the same moment must be seen, and looks for them.
    pub(crate) fn confirm(mut self, gate: &Gate) -> Result<RepoLock> {
        let locker = &self.lock.locker;
        if !locker.store.is_local() {
            let passed = locker.clock.monotonic().saturating_sub(self.since);
            // Nobody sends on this channel yet, so this waits.
            let _ = self.stopped.recv_timeout(SETTLE.saturating_sub(passed));
        }
        locker.refuse_if_locked(self.exclusive, self.mode, &HashSet::from([self.id]))?;
        self.lock.keep(self.stopped, gate.clone())?;
        Ok(self.lock)
    }
}

/// A lock that is held. Dropping it removes its file.
#[derive(Debug)]
pub(crate) struct RepoLock {
    locker: Locker,
    upkeep: Arc<Upkeep>,
    keeper: Option<JoinHandle<()>>,
    stop: Option<mpsc::Sender<()>>,
    warnings: Vec<String>,
    _hangup: HangupIgnored,
}

impl RepoLock {
    /// What lay among the locks and is none, a sentence each.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn keep(&mut self, stopped: mpsc::Receiver<()>, gate: Gate) -> Result<()> {
        let upkeep = Arc::clone(&self.upkeep);
        gate.asks(move || upkeep.assure());
        let upkeep = Arc::clone(&self.upkeep);
        let keeper = std::thread::Builder::new()
            .name("repository-lock".into())
            .stack_size(256 * 1024)
            .spawn(move || {
                while stopped.recv_timeout(LOOK_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                    upkeep.tend(&gate);
                }
            })
            .map_err(|error| EngineError::Invalid {
                detail: format!("cannot start a thread: {error}"),
            })?;
        self.keeper = Some(keeper);
        Ok(())
    }
}

impl Drop for RepoLock {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(keeper) = self.keeper.take() {
            drop(keeper.join());
        }
        self.upkeep.give_up();
    }
}

/// While any of these lives, SIGHUP does nothing; otherwise it does what it does by default.
///
/// The handler is a handler and not "ignore", because children would inherit the latter.
#[derive(Debug)]
struct HangupIgnored;

static HOLDERS: AtomicUsize = AtomicUsize::new(0);

fn nobody_holds() -> &'static Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(|| Arc::new(AtomicBool::new(true)))
}

impl HangupIgnored {
    fn start() -> Result<Self> {
        static INSTALLED: OnceLock<bool> = OnceLock::new();
        let installed = INSTALLED.get_or_init(|| {
            signal_hook::flag::register_conditional_default(
                signal_hook::consts::SIGHUP,
                Arc::clone(nobody_holds()),
            )
            .is_ok()
        });
        if !installed {
            return Err(EngineError::Invalid {
                detail: "cannot install a handler for SIGHUP".into(),
            });
        }
        HOLDERS.fetch_add(1, Ordering::SeqCst);
        nobody_holds().store(false, Ordering::SeqCst);
        Ok(Self)
    }
}

impl Drop for HangupIgnored {
    fn drop(&mut self) {
        if HOLDERS.fetch_sub(1, Ordering::SeqCst) == 1 {
            nobody_holds().store(true, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
#[path = "lock_tests.rs"]
mod tests;
