//! One lock per service, held until the run's clean-up has ended.
//!
//! The lock is `flock(2)` on a file that is never removed, so that it ends with its holder however that dies. The file
//! says who holds it, for the error of the one who doesn't get it; nothing else is read from it. Where no file can be made
//! (a full or read-only disk), the directory itself is locked, for all services at once.

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
    file: Arc<File>,
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
        operation: &str,
        wait: Duration,
    ) -> Result<ServiceLock, OpError> {
        let path = self.dir.join(format!("{service}.lock"));
        let file = match self.open(&path) {
            Ok(file) => Arc::new(file),
            // A state directory that can't be written must not keep lost data from coming back.
            Err(error) => match self.readable(&path).or_else(|| self.whole()) {
                Some(dir) => {
                    cx.emit(Event::Warning {
                        service: Some(service.clone()),
                        message: format!("no lock could be made, so another one stands in for it: {error}"),
                        hint: error.what_to_do().map(str::to_owned),
                    });
                    dir
                }
                None => return Err(error),
            },
        };
        let ends = engine.clock.monotonic() + wait;
        loop {
            match flock(&*file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
                Err(error) => {
                    return Err(OpError::io(
                        format!("can't lock {}", path.display()),
                        &error.into(),
                    ));
                }
            }
            if engine.clock.monotonic() >= ends {
                return Err(locked(service, &file));
            }
            tokio::select! {
                biased;
                () = cx.cancel.cancelled() => return Err(OpError::new(OpKind::Cancelled, format!("waiting for the lock of {service} was cancelled"))),
                () = engine.clock.sleep(POLL) => {}
            }
        }
        let holder = Holder {
            pid: std::process::id(),
            run: cx.run.clone(),
            operation: operation.to_owned(),
        };
        // Only for the error of others; that it can't be written is no reason to stop.
        let _ = write_holder(&file, &holder);
        Ok(ServiceLock { file })
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

fn write_holder(mut file: &File, holder: &Holder) -> std::io::Result<()> {
    file.rewind()?;
    file.set_len(0)?;
    file.write_all(&serde_json::to_vec(holder)?)
}

fn locked(service: &ServiceName, mut file: &File) -> OpError {
    let mut text = String::new();
    let read = file
        .rewind()
        .and_then(|()| file.take(4096).read_to_string(&mut text));
    let holder = read.ok().and_then(|_| serde_json::from_str::<Holder>(&text).ok());
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
    error.hint("wait for it to end, or use `--wait`; the lock ends with its holder and never needs removing")
}

impl Drop for ServiceLock {
    fn drop(&mut self) {
        if Arc::strong_count(&self.file) == 1 {
            let _ = self.file.set_len(0);
            let _ = flock(&*self.file, FlockOperation::Unlock);
        }
    }
}
