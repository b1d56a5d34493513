//! [`digest_tree`]: a directory on disk to its [`TreeDigest`], on several threads, reading only what a cache does not know.
//!
//! Promises the digest of exactly one state per directory and per file, or an error that names what was in the way; never a
//! digest with a gap. It never writes below the root, never follows a symlink, never leaves the root's file system.
//! It blocks its thread: asynchronous callers hand it to `spawn_blocking`.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::TreeDigest;
use super::block::Counts;
use super::cache::{DigestCache, Kept, Ref};
use super::dir::{Dir, Dirs, Finished, lock, to_path};
use super::error::{Cause, DigestError, MAX_NAMED, Problem, Problems};
use super::format::{FileTime, tree_digest};
use super::large::LargeFile;
use super::queue::{Queue, StopOnPanic};
use super::sys::{Stat, open_root, stat_fd};

/// After this many problems the walk ends: the caller has seen enough to act.
const MAX_PROBLEMS: u64 = 100;

/// What a walk may be told.
#[derive(Default)]
pub struct DigestOptions<'a> {
    /// Threads to read and hash with; 0 for as many as the machine has.
    pub threads: usize,
    /// Reads only what this does not know, and leaves in it what was seen; [`save`](DigestCache::save) is the caller's.
    /// Leave it out to verify data: the cache believes the file system's time stamps.
    pub cache: Option<&'a mut DigestCache>,
    /// Set to stop; the walk ends within about a megabyte of reading per thread.
    pub cancel: Option<&'a AtomicBool>,
    /// Called now and then by the walk's own threads, whose working directory is not the program's.
    pub progress: Option<&'a (dyn Fn(Progress) + Sync)>,
    /// Called between opening and reading a file.
    #[cfg(test)]
    pub(crate) opened: Option<Opened<'a>>,
}

/// A test's view of a walk: the name of a file that was opened and is about to be read.
#[cfg(test)]
pub(crate) type Opened<'a> = &'a (dyn Fn(&CStr) -> io::Result<()> + Sync);

impl std::fmt::Debug for DigestOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DigestOptions")
            .field("threads", &self.threads)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

/// How far a walk has come. What the cache answers is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Files read.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
}

/// What a walk found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TreeSummary {
    /// The fingerprint.
    pub digest: TreeDigest,
    /// Regular files, each name of a hard-linked one counted.
    pub files: u64,
    /// Directories below the root.
    pub dirs: u64,
    /// Logical size of the regular files, hard-linked ones once.
    pub bytes: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Fifos and devices.
    pub specials: u64,
    /// Sockets, which are not part of the digest.
    pub sockets: u64,
    /// Directories on which another file system is mounted; what is mounted is not part of the digest.
    pub mounts: u64,
    /// Files that were read, not answered by the cache.
    pub files_read: u64,
    /// Bytes that were read.
    pub bytes_read: u64,
}

/// The digest of the directory tree at `root`.
pub fn digest_tree(root: &Path, opts: DigestOptions<'_>) -> Result<TreeSummary, DigestError> {
    let failed = |source| DigestError::Root {
        path: root.to_owned(),
        source,
    };
    let fd = open_root(root).map_err(failed)?;
    let stat = stat_fd(fd.as_fd()).map_err(failed)?;
    let threads = match opts.threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        n => n,
    };
    let mut cache = opts.cache;
    let walk = Walk {
        cache: cache.as_deref(),
        cutoff: cache.as_deref().map_or(
            FileTime {
                secs: i64::MIN,
                nanos: 0,
            },
            DigestCache::cutoff,
        ),
        root: stat,
        threads,
        dirs: Dirs::new(),
        queue: Queue::new(),
        cancel: opts.cancel,
        progress: opts.progress,
        #[cfg(test)]
        opened: opts.opened,
        failed: AtomicBool::new(false),
        files_read: AtomicU64::new(0),
        bytes_read: AtomicU64::new(0),
        results: Mutex::default(),
    };
    let old = walk.cache.and_then(DigestCache::root);
    walk.queue.push([Task::Enter {
        parent: None,
        place: 0,
        name: CString::default(),
        fd: Some(Arc::new(fd)),
        old,
    }]);
    std::thread::scope(|scope| {
        let spawned = (0..threads).filter(|_| {
            let name = "digest".to_owned();
            std::thread::Builder::new()
                .name(name)
                .spawn_scoped(scope, || walk.work(own_directory()))
                .is_ok()
        });
        // Too few threads are slower, not wrong. The caller's is used last: its working directory is not ours.
        if spawned.count() == 0 {
            walk.work(false);
        }
    });
    let (summary, kept) = walk.finish(root)?;
    if let (Some(cache), Some(kept)) = (&mut cache, kept) {
        cache.set_fresh(kept);
    }
    Ok(summary)
}

/// Something a thread can do next.
pub(super) enum Task {
    /// Open a directory and find out what to do about it.
    Enter {
        parent: Option<Arc<Dir>>,
        place: usize,
        name: CString,
        fd: Option<Arc<OwnedFd>>,
        old: Option<Ref>,
    },
    /// Compare some of a directory's entries with what the cache remembers.
    Compare { dir: Arc<Dir>, from: usize, to: usize },
    /// Read some of a directory's entries.
    Read { dir: Arc<Dir>, from: usize, to: usize },
    /// Hash pieces of a large file.
    Pieces { file: Arc<LargeFile> },
}

/// Everything the threads of one walk share.
pub(super) struct Walk<'a> {
    pub(super) cache: Option<&'a DigestCache>,
    /// States with a ctime from here on are not trusted later.
    cutoff: FileTime,
    pub(super) root: Stat,
    pub(super) threads: usize,
    pub(super) dirs: Dirs,
    pub(super) queue: Queue<Task>,
    cancel: Option<&'a AtomicBool>,
    progress: Option<&'a (dyn Fn(Progress) + Sync)>,
    #[cfg(test)]
    opened: Option<Opened<'a>>,
    /// There will be no digest; what is left only looks for more to report.
    failed: AtomicBool,
    files_read: AtomicU64,
    bytes_read: AtomicU64,
    pub(super) results: Mutex<Results>,
}

/// What the finished directories add up to.
#[derive(Debug, Default)]
pub(super) struct Results {
    pub(super) counts: Counts,
    pub(super) dirs: u64,
    pub(super) mounts: u64,
    pub(super) kept: Vec<Kept>,
    pub(super) root: Option<Finished>,
    links: HashMap<((u32, u32), u64), Linked>,
    problems: Vec<Problem>,
    problems_seen: u64,
}

/// An inode of which several names have been seen or may exist.
#[derive(Debug)]
struct Linked {
    stat: Stat,
    content: Option<[u8; 32]>,
    names: Vec<Vec<u8>>,
}

/// Buffers of one thread.
pub(super) struct Scratch {
    /// The thread's working directory is its own, to be changed at will.
    pub(super) own_directory: bool,
    pub(super) content: Vec<u8>,
    pub(super) xattrs: Vec<u8>,
    pub(super) listing: Vec<u8>,
}

/// Parts the thread's working directory from that of the program. Looking a name up in the working directory is a fifth
/// cheaper than in an open directory, whose use the kernel counts once a process has several threads. Where a sandbox
/// forbids it, nothing is lost but that.
fn own_directory() -> bool {
    #[expect(
        deprecated,
        reason = "the newer one is unsafe for the sake of flags that are not used here"
    )]
    rustix::thread::unshare(rustix::thread::UnshareFlags::FS).is_ok()
}

impl Walk<'_> {
    fn work(&self, own_directory: bool) {
        let _guard = StopOnPanic(&self.queue);
        let mut scratch = Scratch {
            own_directory,
            content: Vec::new(),
            xattrs: Vec::new(),
            listing: Vec::new(),
        };
        while let Some(task) = self.queue.pop() {
            if self.is_cancelled() {
                self.queue.stop();
            } else {
                match task {
                    Task::Enter {
                        parent,
                        place,
                        name,
                        fd,
                        old,
                    } => self.enter(parent, place, name, fd, old, &mut scratch),
                    Task::Compare { dir, from, to } => self.compare(&dir, from, to, &mut scratch),
                    Task::Read { dir, from, to } => self.read(&dir, from, to, &mut scratch),
                    Task::Pieces { file } => self.pieces(&file, &mut scratch),
                }
            }
            self.queue.done();
        }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed))
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Whether a state is old enough that any later change must show.
    pub(super) fn is_settled(&self, stat: &Stat) -> bool {
        stat.ctime < self.cutoff
    }

    #[cfg(test)]
    pub(super) fn opened(&self, name: &CStr) -> io::Result<()> {
        self.opened.map_or(Ok(()), |opened| opened(name))
    }

    #[cfg(not(test))]
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "the seam has something to do in tests"
    )]
    pub(super) fn opened(&self, _name: &CStr) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn count_read(&self, files: u64, bytes: u64) {
        let files = self.files_read.fetch_add(files, Ordering::Relaxed) + files;
        let bytes = self.bytes_read.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(progress) = self.progress {
            progress(Progress { files, bytes });
        }
    }

    pub(super) fn problem(&self, dir: &Dir, name: Option<&CStr>, cause: Cause) {
        self.failed.store(true, Ordering::Relaxed);
        let mut results = lock(&self.results);
        results.problems_seen += 1;
        if results.problems.len() < MAX_NAMED {
            let path = to_path(dir.path_of(name));
            results.problems.push(Problem { path, cause });
        }
        if results.problems_seen >= MAX_PROBLEMS {
            drop(results);
            self.queue.stop();
        }
    }

    /// The content of an inode that was read under another name in this very state.
    pub(super) fn linked_content(&self, stat: &Stat) -> Option<[u8; 32]> {
        lock(&self.results)
            .links
            .get(&(stat.dev, stat.ino))
            .filter(|known| known.stat.same_state(stat))?
            .content
    }

    pub(super) fn set_linked_content(&self, stat: &Stat, content: [u8; 32]) {
        let mut results = lock(&self.results);
        let linked = Linked {
            stat: *stat,
            content: None,
            names: Vec::new(),
        };
        let known = results.links.entry((stat.dev, stat.ino)).or_insert(linked);
        if known.stat.same_state(stat) {
            known.content = Some(content);
        }
    }

    /// Notes names of inodes that have more than one.
    pub(super) fn add_links(&self, dir: &Dir, linked: Vec<(CString, Stat)>) {
        let base = dir.path_of(None);
        for (name, stat) in linked {
            let mut path = base.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
            let mut results = lock(&self.results);
            let entry = results.links.entry((stat.dev, stat.ino));
            let known = entry.or_insert_with(|| Linked {
                stat,
                content: None,
                names: Vec::new(),
            });
            known.names.push(path);
            // Two names of one inode that differ: it changed between the two looks.
            let changed = !known.stat.same_state(&stat);
            drop(results);
            if changed {
                self.problem(dir, Some(&name), Cause::Changed);
            }
        }
    }

    fn finish(self, root: &Path) -> Result<(TreeSummary, Option<Vec<Kept>>), DigestError> {
        let root = || root.to_owned();
        let cancelled = self.is_cancelled();
        let results = self
            .results
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if results.problems_seen > 0 {
            let mut named = results.problems;
            named.sort_by(|a, b| a.path.cmp(&b.path));
            let unreadable = named
                .iter()
                .any(|problem| matches!(problem.cause, Cause::Unreadable(_)));
            let problems = Problems {
                named,
                seen: results.problems_seen,
            };
            return Err(match unreadable {
                true => DigestError::Unreadable {
                    root: root(),
                    problems,
                },
                false => DigestError::Changed {
                    root: root(),
                    problems,
                },
            });
        }
        let Some(top) = results.root else {
            // Nothing else ends a walk early without a problem.
            debug_assert!(cancelled);
            return Err(DigestError::Cancelled { root: root() });
        };
        let mut bytes = results.counts.bytes;
        let mut groups = Vec::new();
        for linked in results.links.into_values() {
            bytes -= linked.stat.size * (linked.names.len() as u64).saturating_sub(1);
            groups.push(linked.names);
        }
        let summary = TreeSummary {
            digest: tree_digest(top.attrs, &top.xattrs, &top.listing, groups),
            files: results.counts.files,
            dirs: results.dirs,
            bytes,
            symlinks: results.counts.symlinks,
            specials: results.counts.specials,
            sockets: results.counts.sockets,
            mounts: results.mounts,
            files_read: self.files_read.into_inner(),
            bytes_read: self.bytes_read.into_inner(),
        };
        // Nothing changed: the cache file is as good as new.
        let kept = (self.cache.is_some() && !top.unchanged).then_some(results.kept);
        Ok((summary, kept))
    }
}
