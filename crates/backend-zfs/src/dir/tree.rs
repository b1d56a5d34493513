//! Copying a tree: the walk, its threads, and what came of it. What happens to one entry is in [`entry`].
//!
//! Promises that every entry of the source that is data arrives with its metadata, that nothing outside of the
//! destination is written, that mounts below the root are not entered (their directory arrives empty, with a warning),
//! and that on a resumed copy what doesn't belong there is gone. Sockets are not data: a rendezvous of processes that
//! run, left out here as in the tree digest.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use reseed_core::error::Common;
use reseed_core::names::DatasetName;
use rustix::fs::FileType;
use rustix::io::Errno;

use super::attrs::{self, Unset};
use super::data::Abilities;
use super::entry;
use super::index::{Index, Seen};
use super::job::Job;
use super::remove;
use super::sys::{self, Done, During, Facts, Fail, shown};
use super::work::{Links, Queue, lock};

/// Files that one thread takes at once.
const BATCH: usize = 64;
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
    parent: Option<Arc<Place>>,
    name: CString,
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
    facts: Facts,
    /// We made it in this run, so that nothing is in it yet.
    pub(super) fresh: bool,
    depth: usize,
    /// Batches and subdirectories that still put something into it.
    left: AtomicUsize,
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
    entries: AtomicU64,
    torn: Mutex<(u64, Vec<String>)>,
    mounts: Mutex<Vec<String>>,
    /// The root of the copy.
    pub(super) dst_root: OwnedFd,
    root: Facts,
    queue: Queue,
}

/// What a thread has for itself.
#[derive(Default)]
pub(super) struct Worker {
    pub(super) buffer: Vec<u8>,
    pub(super) seen: Vec<Seen>,
}

/// Copies what is below one open directory to below another.
pub(super) fn copy(what: &Copying<'_>, src: OwnedFd, dst: OwnedFd) -> Done<Outcome> {
    let facts = sys::facts_of_fd(&src).during(|| "can't look at the tree's root".to_owned())?;
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
            .during(|| "can't open the copy's root".to_owned())?,
        root: facts,
        queue: Queue::default(),
    };
    let cloned = |fd: &OwnedFd| {
        fd.try_clone()
            .during(|| "can't open the tree to link from".to_owned())
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
    attrs::disinherit(&root.dst).during(|| "can't prepare the copy's root".to_owned())?;
    fill(&shared, &root)?;
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
    if let Some(fail) = shared.queue.failure() {
        return Err(fail);
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
        let result = shared.what.job.check().and_then(|()| match task {
            Task::Directory(parent, name) => directory(shared, &parent, name),
            Task::Batch(node, names) => batch(shared, &mut worker, &node, &names),
        });
        if let Err(fail) = result {
            shared.queue.fail(fail);
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

fn batch(shared: &Shared<'_>, worker: &mut Worker, node: &Arc<Node>, names: &[CString]) -> Done<()> {
    for name in names {
        shared.what.job.check()?;
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
    finished_one(shared, node)
}

/// Sets a directory's own metadata once everything is in it: what is put into it changes its time.
fn finished_one(shared: &Shared<'_>, node: &Node) -> Done<()> {
    if node.left.fetch_sub(1, Ordering::AcqRel) == 1 {
        finalize(shared, node)?;
    }
    Ok(())
}

fn finalize(shared: &Shared<'_>, node: &Node) -> Done<()> {
    attrs::apply(
        &node.src,
        &node.dst,
        &node.facts,
        node.fresh,
        &shared.unset,
        || node.place.to_string(),
    )
    .during(|| format!("can't set the metadata of {}", node.place))
}

/// Opens a subdirectory, makes its copy, and queues what is in it.
fn directory(shared: &Shared<'_>, parent: &Arc<Node>, name: CString) -> Done<()> {
    let show = || parent.show(&name);
    let src = match sys::open_dir(&parent.src, &name) {
        Ok(src) => src,
        // It was removed or replaced since it was listed.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if shared.what.live => {
            return finished_one(shared, parent);
        }
        Err(error) => return Err(read_fail(shared, &show(), error)),
    };
    let facts = sys::facts_of_fd(&src).map_err(|error| read_fail(shared, &show(), error))?;
    let (dst, fresh) = make_directory(shared, parent, &name)?;
    shared.what.job.step("made a directory");
    finished_one(shared, parent)?;
    if parent.depth + 1 >= shared.what.only.len() {
        shared.entries.fetch_add(1, Ordering::Relaxed);
    }
    let below = |dir: &Option<OwnedFd>| dir.as_ref().and_then(|dir| sys::open_dir(dir, &name).ok());
    let node = Arc::new(Node {
        prev: below(&parent.prev),
        twin: below(&parent.twin),
        place: Arc::new(Place {
            parent: Some(Arc::clone(&parent.place)),
            name,
        }),
        src,
        dst,
        facts,
        fresh,
        depth: parent.depth + 1,
        left: AtomicUsize::new(0),
    });
    if !facts.same_mount(&shared.root) {
        lock(&shared.mounts).push(format!(
            "something is mounted on {}, and is not in the copy",
            node.place
        ));
        clear(shared, &node, &HashSet::new())?;
        return finalize(shared, &node);
    }
    fill(shared, &node)
}

fn make_directory(shared: &Shared<'_>, parent: &Arc<Node>, name: &CString) -> Done<(OwnedFd, bool)> {
    let what = || format!("can't make the directory {} in the copy", parent.show(name));
    let make = || rustix::fs::mkdirat(&parent.dst, name.as_c_str(), rustix::fs::Mode::RWXU);
    match make() {
        Ok(()) => return Ok((sys::open_dir(&parent.dst, name).during(what)?, true)),
        Err(Errno::EXIST) if !parent.fresh => {}
        Err(error) => return Err(sys::os_fail(what(), error)),
    }
    match sys::open_dir(&parent.dst, name) {
        Ok(dst) => {
            let facts = sys::facts_of_fd(&dst).during(what)?;
            let above = sys::facts_of_fd(&parent.dst).during(what)?;
            if !facts.same_mount(&above) {
                return Err(Fail::new(
                    Common::Busy,
                    format!(
                        "something is mounted inside of the copy, on {}",
                        parent.show(name)
                    ),
                )
                .hint("unmount it first: `findmnt` shows what it is"));
            }
            rustix::fs::fchmod(&dst, rustix::fs::Mode::RWXU).during(what)?;
            attrs::disinherit(&dst).during(what)?;
            Ok((dst, false))
        }
        Err(_) => {
            // A file, a link, or a directory that may not be read: not what the source has there.
            remove::remove(shared.what.job, &parent.dst, name)?;
            make().during(what)?;
            Ok((sys::open_dir(&parent.dst, name).during(what)?, true))
        }
    }
}

/// Lists a directory and queues its entries.
fn fill(shared: &Shared<'_>, node: &Arc<Node>) -> Done<()> {
    let mut listed =
        sys::entries(&node.src).map_err(|error| read_fail(shared, &node.place.to_string(), error))?;
    if node.depth == 0 {
        listed.retain(|entry| !sys::not_data(&entry.name));
    }
    if let Some(wanted) = shared.what.only.get(node.depth) {
        let last = node.depth + 1 == shared.what.only.len();
        listed.retain(|entry| entry.name == *wanted);
        if let (Some(entry), false) = (listed.first(), last) {
            let facts = sys::facts_at(&node.src, &entry.name)
                .map_err(|error| read_fail(shared, &node.show(&entry.name), error))?;
            if facts.kind != FileType::Directory {
                listed.clear();
            }
        }
    }
    if !node.fresh {
        clear(
            shared,
            node,
            &listed.iter().map(|entry| entry.name.clone()).collect(),
        )?;
    }
    let (directories, others): (Vec<_>, Vec<_>) = listed
        .into_iter()
        .partition(|entry| entry.kind == FileType::Directory);
    let batches: Vec<Vec<CString>> = others
        .chunks(BATCH)
        .map(|chunk| chunk.iter().map(|entry| entry.name.clone()).collect())
        .collect();
    let parts = directories.len() + batches.len();
    if parts == 0 {
        return finalize(shared, node);
    }
    node.left.store(parts, Ordering::Release);
    let directories = directories
        .into_iter()
        .map(|entry| Task::Directory(Arc::clone(node), entry.name));
    let batches = batches
        .into_iter()
        .map(|names| Task::Batch(Arc::clone(node), names));
    shared.queue.push(directories.chain(batches));
    Ok(())
}

/// Removes from a destination directory what the source doesn't have.
fn clear(shared: &Shared<'_>, node: &Node, keep: &HashSet<CString>) -> Done<()> {
    if node.fresh {
        return Ok(());
    }
    let present = sys::entries(&node.dst).during(|| format!("can't list {} in the copy", node.place))?;
    for entry in present.iter().filter(|entry| !keep.contains(&entry.name)) {
        remove::remove(shared.what.job, &node.dst, &entry.name)?;
    }
    Ok(())
}

/// An error on the reading side. In a tree that nobody writes to, some mean damage.
pub(super) fn read_fail(shared: &Shared<'_>, place: &str, error: Errno) -> Fail {
    let what = format!("can't read {place}");
    match error {
        Errno::IO | Errno::UCLEAN | Errno::BADMSG | Errno::ILSEQ if !shared.what.live => {
            Fail::new(Common::Corrupt, what)
                .said(error)
                .hint("the disk below it reports damage: see `dmesg` and `smartctl`")
        }
        Errno::NOENT | Errno::STALE if !shared.what.live => Fail::new(
            Common::StalePlan,
            format!("{place} went away while it was being read"),
        )
        .said(error),
        _ => sys::os_fail(what, error),
    }
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
