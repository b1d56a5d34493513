//! Restores a snapshot, or one path of it, into a directory.
//!
//! A restorer of our own on the library's reading of the index, because the library's holds some twenty packs in
//! memory, panics on a damaged pack and on a full disk, and only logs metadata that it could not set. Promises:
//!
//! - every blob is proven against its id before it is written;
//! - nothing outside of the target is written, whatever names the repository holds and whatever stands in the target;
//! - what lies in two packs is restored where one of them is sound;
//! - an interrupted restore is continued: what stands there and proves right is kept;
//! - a damaged, short or missing pack, a full disk, a read-only target are errors of their own kind, never a panic;
//! - memory stays at a few megabytes for each thread, plus about a hundred bytes for each file and piece, some ten megabytes of directories
//!   that were parsed ahead, and for a repository in a bucket forty that were read ahead;
//! - an empty result is an error.

mod ahead;
mod detours;
mod holes;
pub(crate) mod meta;
pub(crate) mod names;
mod parsed;
pub(crate) mod plan;
mod prepare;
mod reads;
mod report;
pub(crate) mod target;
mod verify;
mod write;

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::backup::Cancelled;
use crate::cipher::Cipher;
use crate::error::{EngineError, Result, guarded};
use crate::lock::{LockMode, RepoLock};
use crate::place;
use crate::progress::{Meter, OnProgress};
use crate::repo::{Engine, OpenRepo};
use crate::secret::Password;
use crate::store::{Gate, Store};
use crate::threads;
use crate::top::Top;
use detours::Detours;
use plan::{First, OtherKind, Plan, Planner, Selection};
use report::Notes;
pub use report::RestoreReport;
use target::Target;

/// What to restore, and where to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreJob {
    /// The snapshot's id or its beginning.
    pub snapshot: String,
    /// Of what was backed up, the absolute path that becomes the target. None for the path that was recorded, or for the
    /// whole tree where several were.
    #[serde(with = "crate::os_path::option")]
    pub path: Option<PathBuf>,
    /// Only this path, relative to what becomes the target. It keeps its place.
    #[serde(with = "crate::os_path::option")]
    pub only: Option<PathBuf>,
    /// Becomes the path that was backed up. It is made when it is not there; its parent must be.
    #[serde(with = "crate::os_path")]
    pub target: PathBuf,
    /// The target may hold what an interrupted restore left: what fits is kept, the rest is removed. Otherwise the
    /// target must be empty.
    pub resume: bool,
    /// It is recorded that nothing was backed up, so that nothing is what comes back.
    #[serde(default)]
    pub empty: bool,
    /// Threads; 0 for as many as make sense.
    pub workers: usize,
}

/// Makes writes to the target fail, for tests.
#[doc(hidden)]
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fault {
    /// The error number to fail with; 0 kills the process.
    pub errno: i32,
    /// How many writes succeed before.
    pub after: u64,
    #[serde(skip)]
    done: Arc<std::sync::atomic::AtomicU64>,
}

impl Fault {
    #[doc(hidden)]
    pub fn new(errno: i32, after: u64) -> Self {
        Self {
            errno,
            after,
            done: Arc::default(),
        }
    }

    fn before_write(&self, _path: &Path) -> io::Result<()> {
        if self.done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < self.after {
            return Ok(());
        }
        if self.errno == 0 {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
        Err(io::Error::from_raw_os_error(self.errno))
    }
}

/// Restores in this process. Programs that must survive anything use the [worker](crate::worker).
///
/// # Errors
/// Any kind; what was written stays in the target and is continued from with [`RestoreJob::resume`].
#[allow(clippy::needless_pass_by_value, reason = "callers hand their callbacks over")]
pub fn restore(
    engine: &Engine,
    password: &Password,
    job: &RestoreJob,
    on_progress: OnProgress,
    cancelled: Cancelled,
) -> Result<RestoreReport> {
    restore_with(engine, password, job, on_progress, &cancelled, None)
}

#[doc(hidden)]
#[allow(clippy::needless_pass_by_value, reason = "callers hand their callbacks over")]
pub fn restore_with(
    engine: &Engine,
    password: &Password,
    job: &RestoreJob,
    on_progress: OnProgress,
    cancelled: &Cancelled,
    fault: Option<&Fault>,
) -> Result<RestoreReport> {
    let gate = Gate::default();
    let open = || engine.open_with(password, gate.clone(), rustic_core::NoProgressBars);
    let first = open()?;
    let pending = first.locker.start(false, LockMode::IfWritable)?;
    guarded("restore", || {
        let (store, cipher) = (Arc::clone(&first.store), first.cipher.clone());
        let (mut job, mut detours) = (job.clone(), Detours::default());
        // In a bucket, finding out what to do takes about as long as waiting for the lock to count.
        let mut plan = plan_for(first, &job, &detours);
        let lock = pending.map(|pending| pending.confirm(&gate)).transpose()?;
        loop {
            let planned = plan.is_ok();
            let meter = Meter::new(Arc::clone(&on_progress));
            let done = plan.and_then(|plan| run(&store, &cipher, &plan, &job, &meter, cancelled, fault));
            let error = match done {
                Ok(mut report) => {
                    report.locked = lock.is_some();
                    report.warnings = lock.as_ref().map(RepoLock::warnings).unwrap_or_default();
                    report.details.append(&mut detours.told);
                    return Ok(report);
                }
                Err(error) => error,
            };
            if !detours.around(&error, open).unwrap_or(false) {
                return Err(error);
            }
            // What is there now is ours.
            job.resume |= planned;
            plan = open().and_then(|open| plan_for(open, &job, &detours));
        }
    })
}

fn run(
    store: &Store,
    cipher: &Cipher,
    plan: &Plan,
    job: &RestoreJob,
    meter: &Meter,
    cancelled: &Cancelled,
    fault: Option<&Fault>,
) -> Result<RestoreReport> {
    let workers = match job.workers {
        0 if store.is_local() => threads::sensible(),
        0 => threads::REMOTE,
        asked => asked.min(64),
    };
    meter.set_total(plan.bytes);

    let target = Target::open(&job.target)?;
    let root = meta::is_root();
    let standing = prepare::prepare(&target, plan, job.resume, root, workers, cancelled)?;
    let notes = Notes::default();
    let writing = write::Writing {
        store,
        cipher,
        target: &target,
        plan,
        standing: &standing,
        root,
        meter,
        notes: &notes,
        cancelled,
        fault,
    };
    writing.run(workers)?;
    make_others(&target, plan, root, &notes)?;
    make_links(&target, plan)?;
    finish_dirs(&target, plan, root, standing.fresh, &notes)?;
    verify::verify(&target, plan, &standing.finished, root, &notes)?;
    meter.report();

    let mut report = RestoreReport {
        files: plan.files.len() as u64,
        dirs: plan.dirs.len() as u64 - 1,
        others: plan.others.len() as u64,
        hard_links: plan.links.len() as u64,
        bytes: plan.bytes,
        reused: standing.reused,
        removed: standing.removed,
        ..RestoreReport::default()
    };
    notes.into_report(&mut report);
    Ok(report)
}

fn plan_for(open: OpenRepo, job: &RestoreJob, detours: &Detours) -> Result<Plan> {
    let snapshot = open.snapshot(&job.snapshot)?;
    let tree = snapshot.tree_id()?;
    let backend = open.backend.clone();
    let index = open
        .repo
        .to_indexed()
        .map_err(|error| crate::repo::prefer(&backend, &error, "read the index"))?;
    let mut planner = Planner::new(&open.store, &index, &open.cipher, detours)?;
    let top = job.path.is_none().then(|| Top::of_tags(&snapshot.tags)).flatten();
    let root = match (&job.path, snapshot.paths.as_slice()) {
        _ if top.is_some() => top.as_ref().map(Top::place).unwrap_or_default(),
        (Some(wanted), recorded) => {
            place::of_path(&mut planner, tree, recorded, wanted)?.ok_or_else(|| EngineError::EmptyResult {
                what: format!("snapshot {} does not hold {}", snapshot.id, wanted.display()),
            })?
        }
        (None, [only]) => place::of_single(&mut planner, tree, only)?,
        (None, _) => PathBuf::new(),
    };
    let selection = Selection {
        tree,
        root: &root,
        only: job.only.as_deref(),
    };
    let mut plan = planner.build(&selection)?;
    if let (Some(top), Some(first)) = (top, plan.dirs.first_mut()) {
        first.meta = Some(top.meta);
    }
    let nothing =
        plan.dirs.len() == 1 && plan.files.is_empty() && plan.others.is_empty() && plan.links.is_empty();
    if nothing && !job.empty {
        return Err(EngineError::EmptyResult {
            what: format!("snapshot {} holds nothing", snapshot.id),
        });
    }
    Ok(plan)
}

/// Links, devices, pipes and sockets. What is there already and fits is kept.
fn make_others(target: &Target, plan: &Plan, root: bool, notes: &Notes) -> Result<()> {
    for other in &plan.others {
        let path = plan.path(other.dir, &other.name);
        let fail = |action: &str, error: rustix::io::Errno| EngineError::target(action, &path, &error.into());
        if target
            .stat(&path)
            .map_err(|error| fail("look at", error))?
            .is_some()
        {
            let same_link = matches!(&other.kind, OtherKind::Symlink(to) if target.read_link(&path).is_ok_and(|there| there == *to));
            if !same_link {
                target.remove(&path).map_err(|error| fail("remove", error))?;
            }
        }
        match target.make_other(&path, &other.kind) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            // Devices belong to root. The rest of the tree is worth having without them.
            Err(error @ rustix::io::Errno::PERM) => {
                notes.metadata(&path, ("what it is", error));
                continue;
            }
            Err(error) => return Err(fail("create", error)),
        }
        let link = matches!(other.kind, OtherKind::Symlink(_));
        let problems = target
            .at_parent(&path, |dir, name| {
                Ok(meta::apply_at(dir, name, &other.meta, root, link))
            })
            .map_err(|error| fail("open the directory of", error))?;
        for problem in problems {
            notes.metadata(&path, problem);
        }
    }
    Ok(())
}

fn make_links(target: &Target, plan: &Plan) -> Result<()> {
    for link in &plan.links {
        let path = plan.path(link.dir, &link.name);
        let fail = |action: &str, error: rustix::io::Errno| EngineError::target(action, &path, &error.into());
        let first = match link.first {
            First::File(number) => plan.file_path(number),
            First::Other(number) => {
                let other = &plan.others[number as usize];
                plan.path(other.dir, &other.name)
            }
        };
        let stat = |path: &Path| target.stat(path).map_err(|error| fail("look at", error));
        if let Some(there) = stat(&path)? {
            if stat(&first)?.is_some_and(|first| first.st_ino == there.st_ino) {
                continue;
            }
            target.remove(&path).map_err(|error| fail("remove", error))?;
        }
        match target.link(&first, &path) {
            // The first name could not be made either, which was noted there.
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(fail("link", error)),
        }
    }
    Ok(())
}

/// Directories last and from the bottom: everything that is made in one changes its time, and its final permissions
/// may forbid making anything.
fn finish_dirs(target: &Target, plan: &Plan, root: bool, fresh: bool, notes: &Notes) -> Result<()> {
    for dir in plan.dirs.iter().rev() {
        let Some(meta) = &dir.meta else { continue };
        let open = if dir.path.as_os_str().is_empty() {
            target
                .root()
                .try_clone_to_owned()
                .map_err(|error| EngineError::target("open", &dir.path, &error))?
        } else {
            target
                .dir(&dir.path)
                .map_err(|error| EngineError::target("open", &dir.path, &error.into()))?
        };
        for problem in meta::apply(open.as_fd(), meta, root, fresh) {
            notes.metadata(&dir.path, problem);
        }
    }
    Ok(())
}
