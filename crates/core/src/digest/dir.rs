//! A directory on its way through a walk, and the descriptors by which directories are reached.
//!
//! Promises that a walk of any width and depth keeps a bounded number of descriptors open, and that a chain of
//! directories of any depth is freed without recursion.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use super::block::Run;
use super::cache::Stored;
use super::format::{Attrs, Xattrs};
use super::sys::{Names, Opener, Stat, stat_fd};

/// Descriptors of directories kept open at once. Those in use by a thread come on top.
const KEPT_OPEN: usize = 128;

/// A slot for a directory's descriptor, which may be closed and opened again.
type FdCell = Mutex<Option<Arc<OwnedFd>>>;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A directory that has been opened and is not finished.
#[derive(Debug)]
pub(super) struct Dir {
    pub(super) parent: Option<Arc<Dir>>,
    /// Its place among its parent's subdirectories.
    pub(super) place: usize,
    pub(super) name: CString,
    /// Its state when it was opened; it must end in the same.
    pub(super) stat: Stat,
    fd: Arc<FdCell>,
    /// What the cache remembers of it.
    pub(super) old: Option<Stored>,
    /// Its names, unless the cache's are known to be right.
    pub(super) names: OnceLock<Names>,
    /// Tasks left in the present stage: first of its own entries, then of its subdirectories.
    pub(super) pending: AtomicUsize,
    /// The cache does not tell the truth about its entries.
    pub(super) stale: AtomicBool,
    pub(super) stage: Mutex<Stage>,
}

/// What the tasks of a directory hand in.
#[derive(Debug, Default)]
pub(super) struct Stage {
    pub(super) xattrs: Xattrs,
    /// Runs of entries, with the place of the first one.
    pub(super) runs: Vec<(usize, Run)>,
    /// Content hashes that came later: place of the run, place in the run, hash.
    pub(super) contents: Vec<(usize, usize, [u8; 32])>,
    /// Names of inodes that have several.
    pub(super) linked: Vec<(CString, Stat)>,
    /// The block once all own entries are known; none if it is as the cache has it.
    pub(super) block: Option<Vec<u8>>,
    pub(super) subs: Vec<Option<Finished>>,
}

/// What is left of a directory when it is finished.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) attrs: Attrs,
    pub(super) xattrs: Box<[u8]>,
    pub(super) listing: [u8; 32],
    /// It and all below it is as the cache has it.
    pub(super) unchanged: bool,
    /// Its index among the directories kept for the cache.
    pub(super) kept: usize,
}

impl Dir {
    pub(super) fn stage(&self) -> MutexGuard<'_, Stage> {
        lock(&self.stage)
    }

    /// The path of one of its entries relative to the root; its own without a name.
    pub(super) fn path_of(&self, name: Option<&CStr>) -> Vec<u8> {
        let mut names: Vec<&[u8]> = name.iter().map(|name| name.to_bytes()).collect();
        let mut dir = self;
        while let Some(parent) = &dir.parent {
            names.push(dir.name.to_bytes());
            dir = parent;
        }
        names.reverse();
        names.join(&b'/')
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(mut dir) = next.and_then(Arc::into_inner) {
            next = dir.parent.take();
        }
    }
}

/// Opens directories, keeps the latest ones open, and opens those again that had to be closed.
#[derive(Debug)]
pub(super) struct Dirs {
    pub(super) opener: Opener,
    open: Mutex<VecDeque<Weak<FdCell>>>,
}

impl Dirs {
    pub(super) fn new() -> Self {
        Self {
            opener: Opener::new(),
            open: Mutex::new(VecDeque::new()),
        }
    }

    pub(super) fn enter(
        &self,
        parent: Option<Arc<Dir>>,
        place: usize,
        name: CString,
        fd: Arc<OwnedFd>,
        stat: Stat,
        old: Option<Stored>,
    ) -> Arc<Dir> {
        let dir = Arc::new(Dir {
            parent,
            place,
            name,
            stat,
            fd: Arc::default(),
            old,
            names: OnceLock::new(),
            pending: AtomicUsize::new(0),
            stale: AtomicBool::new(false),
            stage: Mutex::default(),
        });
        self.keep(&dir, fd);
        dir
    }

    /// The directory's descriptor.
    pub(super) fn fd(&self, dir: &Dir) -> io::Result<Arc<OwnedFd>> {
        if let Some(fd) = lock(&dir.fd).clone() {
            return Ok(fd);
        }
        let mut closed = vec![dir];
        let mut above = dir.parent.as_deref();
        let mut fd = loop {
            // The root is never closed.
            let Some(dir) = above else {
                return Err(io::Error::other("the root has been closed"));
            };
            if let Some(fd) = lock(&dir.fd).clone() {
                break fd;
            }
            closed.push(dir);
            above = dir.parent.as_deref();
        };
        for dir in closed.into_iter().rev() {
            fd = Arc::new(self.opener.dir(fd.as_fd(), &dir.name)?);
            if stat_fd(fd.as_fd())?.ino != dir.stat.ino {
                return Err(rustix::io::Errno::STALE.into());
            }
            self.keep(dir, Arc::clone(&fd));
        }
        Ok(fd)
    }

    /// Closes a finished directory.
    pub(super) fn close(&self, dir: &Dir) {
        lock(&dir.fd).take();
    }

    fn keep(&self, dir: &Dir, fd: Arc<OwnedFd>) {
        *lock(&dir.fd) = Some(fd);
        if dir.parent.is_none() {
            return;
        }
        let mut open = lock(&self.open);
        open.push_back(Arc::downgrade(&dir.fd));
        let oldest = if open.len() > KEPT_OPEN {
            open.pop_front()
        } else {
            None
        };
        drop(open);
        if let Some(cell) = oldest.and_then(|cell| cell.upgrade()) {
            lock(&cell).take();
        }
    }
}

/// Bytes as a path.
pub(super) fn to_path(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    std::ffi::OsString::from_vec(bytes).into()
}
