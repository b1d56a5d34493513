//! One lock per service, held until the run's clean-up has ended.
//!
//! The lock is `flock(2)` on a file that is never removed, so that it ends with its holder however that dies. The file
//! says who holds it, for the error of the one who doesn't get it; nothing else is read from it. Where no file can be made
//! (a full or read-only disk), the directory itself is locked, for all services at once.
//!
//! Most operations have a service for themselves. What only sends snapshots that are there (to a replica, to a repository) takes hours or days
//! the first time, in which snapshots have to be taken all the same: both share the service's lock, and each is alone among
//! its kind by another one ([`Claim`]).

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::engine::Engine;
use crate::error::{OpError, OpKind};
use crate::event::Event;
use crate::names::{RunId, ServiceName};

/// How often one who waits looks again.
const POLL: Duration = Duration::from_millis(200);

/// What an operation wants of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Nothing else goes on meanwhile.
    Alone,
    /// To send snapshots that are there: others may be taken meanwhile, and nothing else is sent.
    Sending,
    /// To take snapshots: others may be sent meanwhile.
    Snapshots,
}

impl Claim {
    /// What the lock is called that makes it alone among its kind, behind the service's name.
    fn own(self) -> Option<&'static str> {
        match self {
            Self::Alone => None,
            Self::Sending => Some("sending"),
            Self::Snapshots => Some("snapshots"),
        }
    }
}

/// Where the locks are.
#[derive(Debug, Clone)]
pub struct Locks {
    dir: PathBuf,
    /// The lock on the directory itself, shared by all services of this process while one of them has it.
    whole: Arc<Mutex<Weak<File>>>,
}

/// A lock that is held. Dropping it releases it.
#[derive(Debug)]
pub struct ServiceLock {
    /// The one that names the holder is the last.
    files: Vec<Arc<File>>,
}

/// A lock's file.
#[derive(Debug)]
struct Opened {
    file: Arc<File>,
    /// It is the service's own, and not one that stands in for it.
    shared: bool,
}

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// The run.
    pub run: RunId,
    /// What it does.
    pub operation: String,
}

impl Locks {
    /// The locks are files in this directory; it is made when it is needed.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            whole: Arc::default(),
        }
    }

    /// Takes a service's lock, waiting at most so long for another run to end.
    ///
    /// # Errors
    /// `Locked`, with the holder; `Cancelled`; an error of the file system.
    pub async fn acquire(
        &self,
        engine: &Engine,
        cx: &Context,
        service: &ServiceName,
        (operation, claim): (&str, Claim),
        wait: Duration,
    ) -> Result<ServiceLock, OpError> {
        let ends = engine.clock.monotonic() + wait;
        let main = self.opened(cx, service, "")?;
        let mut wanted = Vec::with_capacity(2);
        match claim.own() {
            // Where the directory itself stands in, there is but one lock.
            Some(own) if main.shared => {
                wanted.push((main.file, FlockOperation::NonBlockingLockShared));
                let own = self.opened(cx, service, own)?;
                wanted.push((own.file, FlockOperation::NonBlockingLockExclusive));
            }
            _ => wanted.push((main.file, FlockOperation::NonBlockingLockExclusive)),
        }
        // Both or none: who waits for the second must not keep others from the first.
        let lock = loop {
            let Err(blocking) = take(service, &wanted)? else {
                let files = wanted.into_iter().map(|(file, _)| file).collect();
                break ServiceLock { files };
            };
            if engine.clock.monotonic() >= ends {
                return Err(self.locked(service, &blocking, claim));
            }
            tokio::select! {
                biased;
                () = cx.cancel.cancelled() => return Err(OpError::new(OpKind::Cancelled, format!("waiting for the lock of {service} was cancelled"))),
                () = engine.clock.sleep(POLL) => {}
            }
        };
        let holder = Holder {
            pid: std::process::id(),
            run: cx.run.clone(),
            operation: operation.to_owned(),
        };
        // Only for the error of others; that it can't be written is no reason to stop.
        if let Some(file) = lock.files.last() {
            let _ = write_holder(file, &holder);
        }
        Ok(lock)
    }

    fn path(&self, service: &ServiceName, own: &str) -> PathBuf {
        self.dir.join(match own {
            "" => format!("{service}.lock"),
            // `@` is in no service's name.
            own => format!("{service}@{own}.lock"),
        })
    }

    fn opened(&self, cx: &Context, service: &ServiceName, own: &str) -> Result<Opened, OpError> {
        let path = self.path(service, own);
        let error = match self.open(&path) {
            Ok(file) => {
                return Ok(Opened {
                    file: Arc::new(file),
                    shared: true,
                });
            }
            Err(error) => error,
        };
        // A state directory that can't be written must not keep lost data from coming back.
        let Some(file) = self.readable(&path).or_else(|| self.whole()) else {
            return Err(error);
        };
        cx.emit(Event::Warning {
            service: Some(service.clone()),
            message: format!("no lock could be made, so another one stands in for it: {error}"),
            hint: error.what_to_do().map(str::to_owned),
        });
        Ok(Opened { file, shared: false })
    }

    /// Who is in the way of a claim: who has this lock, or one of those that share it.
    fn locked(&self, service: &ServiceName, file: &File, claim: Claim) -> OpError {
        let of = |claim: Claim| {
            let other = holder(&*self.readable(&self.path(service, claim.own()?))?)?;
            // Who died has left their name there.
            Path::new(&format!("/proc/{}", other.pid))
                .exists()
                .then_some(other)
        };
        let holder = match claim {
            Claim::Alone => of(Claim::Snapshots)
                .or_else(|| of(Claim::Sending))
                .or_else(|| holder(file)),
            _ => holder(file),
        };
        let error = match holder {
            Some(Holder { pid, run, operation }) => OpError::new(
                OpKind::Locked,
                format!("{service} is busy: `{operation}` (process {pid}, run {run}) has its lock"),
            ),
            None => OpError::new(
                OpKind::Locked,
                format!("{service} is busy: another run has its lock"),
            ),
        };
        error.hint(
            "wait for it to end, or use `--wait`; the lock ends with its holder and never needs removing",
        )
    }

    /// The lock's file, where it is there: somebody may hold it since before the disk became full or read-only.
    fn readable(&self, path: &Path) -> Option<Arc<File>> {
        let mut options = OpenOptions::new();
        options.read(true);
        options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
        options.open(path).ok().map(Arc::new)
    }

    /// The directory of the locks itself, or the nearest one above it that is there: a lock needs no writing.
    fn whole(&self) -> Option<Arc<File>> {
        let mut shared = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = shared.upgrade() {
            return Some(held);
        }
        let exists = |dir: &&Path| dir.is_dir();
        let opened = Arc::new(File::open(self.dir.ancestors().find(exists)?).ok()?);
        *shared = Arc::downgrade(&opened);
        Some(opened)
    }

    fn open(&self, path: &Path) -> Result<File, OpError> {
        let io = |error: std::io::Error| {
            OpError::io(format!("can't open the lock {}", path.display()), &error)
                .hint("locks are kept in the state directory (`state_dir` in the configuration); it must be writable")
        };
        std::fs::create_dir_all(&self.dir).map_err(io)?;
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        // A link could point the lock at somebody's file.
        options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
        options.open(path).map_err(io)
    }
}

/// Takes all of these, or none and says which one somebody else has.
fn take(
    service: &ServiceName,
    wanted: &[(Arc<File>, FlockOperation)],
) -> Result<Result<(), Arc<File>>, OpError> {
    for (nth, (file, how)) in wanted.iter().enumerate() {
        let error = match flock(&**file, *how) {
            Ok(()) => continue,
            Err(error) => error,
        };
        for (taken, _) in &wanted[..nth] {
            let _ = flock(&**taken, FlockOperation::Unlock);
        }
        return match error {
            rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR => Ok(Err(Arc::clone(file))),
            error => Err(OpError::io(format!("can't lock {service}"), &error.into())),
        };
    }
    Ok(Ok(()))
}

fn write_holder(mut file: &File, holder: &Holder) -> std::io::Result<()> {
    file.rewind()?;
    file.set_len(0)?;
    file.write_all(&serde_json::to_vec(holder)?)
}

fn holder(mut file: &File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(4096).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

impl Drop for ServiceLock {
    fn drop(&mut self) {
        let named = self.files.len().saturating_sub(1);
        for (at, file) in self.files.iter().enumerate() {
            if Arc::strong_count(file) == 1 {
                // What is shared names whoever had it alone.
                if at == named {
                    let _ = file.set_len(0);
                }
                let _ = flock(&**file, FlockOperation::Unlock);
            }
        }
    }
}
