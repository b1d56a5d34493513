//! Copying a tree: the walk, its threads, and what came of it. What happens to one entry is in [`entry`].
//!
//! Promises that every entry of the source that is data arrives with its metadata, that nothing outside of the
//! destination is written, that mounts below the root are not entered (their directory arrives empty, with a warning),
//! and that on a resumed copy what doesn't belong there is gone. Sockets are not data: a rendezvous of processes that
//! run, left out here as in the tree digest.

use std::collections::HashMap;
use std::ffi::CString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use reseed_core::names::DatasetName;

use super::attrs::{self, Unset};
use super::data::Abilities;
use super::entry;
use super::fault::{Copied, OnSide, Side, Writing};
use super::index::{Index, Seen};
use super::job::Job;
use super::sys::{self, During, Facts, shown};
use super::walk;
use super::work::{Links, Queue, lock};

/// Files that one thread takes at once.
pub(super) const BATCH: usize = 64;
/// More threads than this only queue up at the disk.
const MOST_THREADS: usize = 4;
/// How many files that changed are named; the rest is counted.
const MOST_NAMED: usize = 50;

/// What is being copied.
pub(super) struct Copying<'a> {
    pub(super) job: &'a Job,
    /// Whose progress it is.
    pub(super) dataset: &'a DatasetName,
    /// Bytes to expect, for the progress.
    pub(super) total: Option<u64>,
    /// The source is being written to while we read.
    pub(super) live: bool,
    /// The destination may hold what an interrupted copy left.
    pub(super) resume: bool,
    /// Only this, relative to the root; empty for everything.
    pub(super) only: Vec<CString>,
    /// Where unchanged files can be linked from.
    pub(super) reuse: Option<Reuse<'a>>,
}

/// A finished tree on the destination's side whose files may be linked into the new one.
pub(super) struct Reuse<'a> {
    /// The tree's root.
    pub(super) root: &'a OwnedFd,
    /// How to tell that a file is unchanged since without reading it.
    pub(super) vouch: Vouch<'a>,
}

/// How to tell that a file is unchanged without reading it.
pub(super) enum Vouch<'a> {
    /// By what was seen of the live file when that tree was made.
    Index(&'a Index),
    /// By the tree that it was copied from: the same inode at the same place there is the same file.
    Twin(&'a OwnedFd),
}

/// What a copy came to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Regular files; each name of a hard-linked one counts.
    pub(super) files: u64,
    /// Their logical bytes; hard-linked ones count once.
    pub(super) bytes: u64,
    /// Bytes that were read and written (or cloned).
    pub(super) copied: u64,
    /// Bytes that an interrupted copy had brought.
    pub(super) reused: u64,
    /// Entries below the root (or below and with `only`).
    pub(super) entries: u64,
    /// Files that changed each time they were copied.
    pub(super) torn: Vec<String>,
    /// How many those are.
    pub(super) torn_count: u64,
    /// Metadata that could not be set, mounts that were not entered.
    pub(super) warnings: Vec<String>,
    /// What was seen of the live files.
    pub(super) seen: Vec<Seen>,
}

/// A place in the tree, sharing its beginning with its siblings.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) parent: Option<Arc<Place>>,
    pub(super) name: CString,
}

impl Place {
    /// Names from the root to here.
    pub(super) fn components(&self) -> Vec<&CString> {
        let mut all = Vec::new();
        let mut at = Some(self);
        while let Some(place) = at {
            if place.parent.is_some() {
                all.push(&place.name);
            }
            at = place.parent.as_deref();
        }
        all.reverse();
        all
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut path = Vec::new();
        for name in self.components() {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
        }
        if path.is_empty() {
            path.push(b'.');
        }
        f.write_str(&shown(path))
    }
}

/// A directory that is being copied.
pub(super) struct Node {
    pub(super) place: Arc<Place>,
    pub(super) src: OwnedFd,
    pub(super) dst: OwnedFd,
    /// The same directory in the tree that files may be linked from, and in that tree's own source.
    pub(super) prev: Option<OwnedFd>,
    pub(super) twin: Option<OwnedFd>,
    pub(super) facts: Facts,
    /// We made it in this run, so that nothing is in it yet.
    pub(super) fresh: bool,
    pub(super) depth: usize,
    /// Batches and subdirectories that still put something into it.
    pub(super) left: AtomicUsize,
}

impl Node {
    /// An entry of it, for a person.
    pub(super) fn show(&self, name: &CString) -> String {
        Place {
            parent: Some(Arc::clone(&self.place)),
            name: name.clone(),
        }
        .to_string()
    }
}

pub(super) enum Task {
    Directory(Arc<Node>, CString),
    Batch(Arc<Node>, Vec<CString>),
}

/// What the threads share.
pub(super) struct Shared<'a> {
    pub(super) what: &'a Copying<'a>,
    pub(super) able: Abilities,
    pub(super) unset: Unset,
    pub(super) links: Links,
    /// Files of the reused tree that are linked into this one, and which source file each stands for.
    pub(super) claimed: Mutex<HashMap<u64, u64>>,
    pub(super) files: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) copied: AtomicU64,
    pub(super) reused: AtomicU64,
    pub(super) entries: AtomicU64,
    torn: Mutex<(u64, Vec<String>)>,
    pub(super) mounts: Mutex<Vec<String>>,
    /// The root of the copy.
    pub(super) dst_root: OwnedFd,
    pub(super) root: Facts,
    pub(super) queue: Queue,
}

/// What a thread has for itself.
#[derive(Default)]
pub(super) struct Worker {
    pub(super) buffer: Vec<u8>,
    pub(super) seen: Vec<Seen>,
}

/// Copies what is below one open directory to below another.
pub(super) fn copy(what: &Copying<'_>, src: OwnedFd, dst: OwnedFd) -> Copied<Outcome> {
    let facts = sys::facts_of_fd(&src)
        .during(|| "can't look at the tree's root".to_owned())
        .on(Side::From)?;
    let shared = Shared {
        what,
        able: Abilities::default(),
        unset: Unset::default(),
        links: Links::default(),
        claimed: Mutex::default(),
        files: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        copied: AtomicU64::new(0),
        reused: AtomicU64::new(0),
        entries: AtomicU64::new(0),
        torn: Mutex::default(),
        mounts: Mutex::default(),
        dst_root: dst
            .try_clone()
            .writing(|| "can't open the copy's root".to_owned())?,
        root: facts,
        queue: Queue::default(),
    };
    let cloned = |fd: &OwnedFd| {
        fd.try_clone()
            .writing(|| "can't open the tree to link from".to_owned())
    };
    let (prev, twin) = match &what.reuse {
        Some(reuse) => (
            Some(cloned(reuse.root)?),
            match &reuse.vouch {
                Vouch::Twin(twin) => Some(cloned(twin)?),
                Vouch::Index(_) => None,
            },
        ),
        None => (None, None),
    };
    let root = Arc::new(Node {
        place: Arc::new(Place {
            parent: None,
            name: CString::default(),
        }),
        src,
        dst,
        prev,
        twin,
        facts,
        fresh: !what.resume,
        depth: 0,
        left: AtomicUsize::new(0),
    });
    attrs::disinherit(&root.dst).writing(|| "can't prepare the copy's root".to_owned())?;
    walk::fill(&shared, &root)?;
    drop(root);
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MOST_THREADS);
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| work(&shared))).collect();
        seen.append(&mut work(&shared));
        for other in others {
            match other.join() {
                Ok(mut more) => seen.append(&mut more),
                Err(died) => std::panic::resume_unwind(died),
            }
        }
    });
    if let Some(fault) = shared.queue.failure() {
        return Err(fault);
    }
    let mut warnings = shared.unset.sentences();
    warnings.append(&mut lock(&shared.mounts));
    let (torn_count, torn) = std::mem::take(&mut *lock(&shared.torn));
    Ok(Outcome {
        files: shared.files.into_inner(),
        bytes: shared.bytes.into_inner(),
        copied: shared.copied.into_inner(),
        reused: shared.reused.into_inner(),
        entries: shared.entries.into_inner(),
        torn,
        torn_count,
        warnings,
        seen,
    })
}

fn work(shared: &Shared<'_>) -> Vec<Seen> {
    // A thread that dies takes the others with it, rather than leaving them waiting.
    let _guard = StopOnPanic(shared);
    let mut worker = Worker::default();
    while let Some(task) = shared.queue.pop() {
        let result = shared
            .what
            .job
            .check()
            .on(Side::Neither)
            .and_then(|()| match task {
                Task::Directory(parent, name) => walk::directory(shared, &parent, name),
                Task::Batch(node, names) => batch(shared, &mut worker, &node, &names),
            });
        if let Err(fault) = result {
            shared.queue.fail(fault);
            shared.links.stop();
        }
        shared.queue.done();
    }
    worker.seen
}

struct StopOnPanic<'a>(&'a Shared<'a>);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.queue.stop();
            self.0.links.stop();
        }
    }
}

fn batch(shared: &Shared<'_>, worker: &mut Worker, node: &Arc<Node>, names: &[CString]) -> Copied<()> {
    for name in names {
        shared.what.job.check().on(Side::Neither)?;
        match entry::copy(shared, worker, node, name)? {
            entry::Became::Copied => {
                if node.depth + 1 >= shared.what.only.len() {
                    shared.entries.fetch_add(1, Ordering::Relaxed);
                }
            }
            entry::Became::Nothing => {}
            entry::Became::Directory => {
                node.left.fetch_add(1, Ordering::Relaxed);
                shared
                    .queue
                    .push([Task::Directory(Arc::clone(node), name.clone())]);
            }
        }
        shared.what.job.step("copied an entry");
    }
    walk::finished_one(shared, node)
}

impl Shared<'_> {
    /// Notes a file that changed each time it was copied.
    pub(super) fn torn(&self, place: String) {
        let mut torn = lock(&self.torn);
        torn.0 += 1;
        if torn.1.len() < MOST_NAMED {
            torn.1.push(place);
        }
    }

    /// Counts and tells bytes that arrived.
    pub(super) fn moved(&self, bytes: u64, files: u64) {
        self.what
            .job
            .moved(self.what.dataset, bytes, files, self.what.total);
    }
}
