//! Brings the target into a state in which only content is missing, and finds out what an interrupted attempt
//! left that can be kept.
//!
//! Afterwards every directory of the plan is there and can be written to, nothing is there that the plan doesn't
//! know, and for every file it is known which of its pieces stand in it already: each was read back and its hash
//! compared, nothing is believed because of its size or time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, Stat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::meta;
use super::plan::Plan;
use super::target::{LastDir, Target, UNFINISHED_DIR, entries_in, existing_in, hand_on_nothing};
use crate::backup::Cancelled;
use crate::error::{EngineError, Result};
use crate::threads;

/// Bytes that are read at once to be hashed.
const READ: usize = 128 << 10;

/// What is in the target already.
#[derive(Debug)]
pub(crate) struct Standing {
    /// The target was empty.
    pub(crate) fresh: bool,
    /// By file: something usable stands there.
    pub(crate) files: Vec<bool>,
    /// By file: nothing is left to be done about it.
    pub(crate) finished: Vec<bool>,
    /// By piece: it stands in its place.
    pub(crate) pieces: Vec<bool>,
    /// Bytes of those.
    pub(crate) reused: u64,
    /// Entries that were removed because they do not belong there.
    pub(crate) removed: u64,
}

/// See the [module](self).
pub(crate) fn prepare(
    target: &Target,
    plan: &Plan,
    resume: bool,
    root: bool,
    workers: usize,
    cancelled: &Cancelled,
) -> Result<Standing> {
    let mut standing = Standing {
        fresh: target
            .names()
            .map_err(|error| fail("list", Path::new("."), error))?
            .is_empty(),
        files: vec![false; plan.files.len()],
        finished: vec![false; plan.files.len()],
        pieces: vec![false; plan.pieces.len()],
        reused: 0,
        removed: 0,
    };
    if standing.fresh {
        target.disinherit()?;
    } else {
        if !resume {
            return Err(EngineError::TargetConflict {
                path: ".".into(),
                detail: "the target is not empty, and this is not the continuation of an earlier restore"
                    .into(),
            });
        }
        hand_on_nothing(target.root())
            .map_err(|error| fail("take the access control list off", Path::new("."), error))?;
        standing.removed = remove_strangers(target, plan)?;
    }
    for dir in plan.dirs.iter().skip(1) {
        make_dir(target, &dir.path)?;
    }
    if !standing.fresh {
        inspect_files(target, plan, root, workers, cancelled, &mut standing)?;
    }
    Ok(standing)
}

fn fail(action: &str, path: &Path, error: Errno) -> EngineError {
    EngineError::target(action, path, &error.into())
}

fn make_dir(target: &Target, path: &Path) -> Result<()> {
    match target.make_dir(path) {
        Err(Errno::EXIST) => {}
        other => return other.map_err(|error| fail("create", path, error)),
    }
    match target.dir(path) {
        // An earlier attempt may have given it its final permissions, which may forbid writing.
        Ok(dir) => rustix::fs::fchmod(&dir, Mode::from_raw_mode(UNFINISHED_DIR))
            .and_then(|()| hand_on_nothing(dir.as_fd()))
            .map_err(|error| fail("open up", path, error)),
        Err(error) => Err(fail("open", path, error)),
    }
}

/// Removes everything that the plan doesn't have, or has as something else.
fn remove_strangers(target: &Target, plan: &Plan) -> Result<u64> {
    let mut wanted: Vec<HashMap<&OsStr, Wanted>> = plan.dirs.iter().map(|_| HashMap::new()).collect();
    let numbers: HashMap<&Path, usize> = plan
        .dirs
        .iter()
        .enumerate()
        .map(|(number, dir)| (dir.path.as_path(), number))
        .collect();
    for dir in plan.dirs.iter().skip(1) {
        if let (Some(parent), Some(name)) = (dir.path.parent(), dir.path.file_name())
            && let Some(number) = numbers.get(parent)
        {
            wanted[*number].insert(name, Wanted::Dir);
        }
    }
    let files = plan.files.iter().map(|file| (file.dir, &file.name, Wanted::File));
    let others = plan
        .others
        .iter()
        .map(|other| (other.dir, &other.name, Wanted::Other));
    let links = plan.links.iter().map(|link| (link.dir, &link.name, Wanted::Link));
    for (dir, name, what) in files.chain(others).chain(links) {
        wanted[dir as usize].insert(name, what);
    }

    let mut removed = 0;
    let mut gone = HashSet::new();
    for (number, dir) in plan.dirs.iter().enumerate() {
        if number != 0
            && (dir.path.parent().is_some_and(|parent| gone.contains(parent)) || !is_dir(target, &dir.path)?)
        {
            gone.insert(dir.path.as_path());
            continue;
        }
        let open = if number == 0 {
            target
                .root()
                .try_clone_to_owned()
                .map_err(|error| EngineError::target("open", &dir.path, &error))?
        } else {
            target
                .dir(&dir.path)
                .map_err(|error| fail("open", &dir.path, error))?
        };
        let entries = match number {
            0 => target.entries(),
            _ => entries_in(open.as_fd()),
        };
        for (name, told) in entries.map_err(|error| fail("list", &dir.path, error))? {
            let fits = match (wanted[number].get(name.as_os_str()), told) {
                (None, _) => false,
                (Some(what), FileType::Unknown) => {
                    match rustix::fs::statat(&open, &name, AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(stat) => what.fits(kind(&stat)),
                        Err(Errno::NOENT) => false,
                        Err(error) => return Err(fail("look at", &dir.path.join(&name), error)),
                    }
                }
                (Some(what), told) => what.fits(told),
            };
            if !fits {
                let path = dir.path.join(&name);
                target
                    .remove(&path)
                    .map_err(|error| fail("remove", &path, error))?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

fn is_dir(target: &Target, path: &Path) -> Result<bool> {
    match target.stat(path) {
        Ok(stat) => Ok(stat.is_some_and(|stat| kind(&stat) == FileType::Directory)),
        Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => Ok(false),
        Err(error) => Err(fail("look at", path, error)),
    }
}

#[derive(Debug, Clone, Copy)]
enum Wanted {
    Dir,
    File,
    Other,
    Link,
}

impl Wanted {
    fn fits(self, kind: FileType) -> bool {
        match self {
            Self::Dir => kind == FileType::Directory,
            Self::File => kind == FileType::RegularFile,
            Self::Other => !matches!(kind, FileType::Directory | FileType::RegularFile),
            Self::Link => kind != FileType::Directory,
        }
    }
}

pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Reads back every file that is there.
fn inspect_files(
    target: &Target,
    plan: &Plan,
    root: bool,
    workers: usize,
    cancelled: &Cancelled,
    standing: &mut Standing,
) -> Result<()> {
    let pieces: Vec<AtomicBool> = plan.pieces.iter().map(|_| AtomicBool::new(false)).collect();
    let next = AtomicUsize::new(0);
    let found = Mutex::new(BTreeMap::new());
    let work = || -> Result<()> {
        let (mut dirs, mut buffer) = (LastDir::default(), vec![0; READ]);
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= plan.files.len() {
                return Ok(());
            }
            if cancelled() {
                return Err(EngineError::Cancelled);
            }
            if let Some(file) = inspect_file(target, plan, number, root, &mut dirs, &mut buffer, &pieces)? {
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                found.insert(number, file);
            }
        }
    };
    threads::each(workers, "restore", work)?;
    standing.pieces = pieces.into_iter().map(AtomicBool::into_inner).collect();
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    remove_shared(target, plan, &mut found, &mut standing.pieces)?;
    for (number, file) in found {
        (standing.files[number], standing.finished[number]) = (true, file.finished);
        standing.reused += file.kept;
    }
    Ok(())
}

/// Two files that are one here would be written over each other: all of them are made again. Where this file system
/// takes their names for one, they can't be.
fn remove_shared(
    target: &Target,
    plan: &Plan,
    found: &mut BTreeMap<usize, Found>,
    pieces: &mut [bool],
) -> Result<()> {
    let path = |number: usize| plan.path(plan.files[number].dir, &plan.files[number].name);
    for group in shared(found) {
        if let [first, second, ..] = group[..]
            && found.get(&first).is_some_and(|file| file.names < 2)
        {
            return Err(EngineError::TargetConflict {
                path: path(first).display().to_string(),
                detail: format!(
                    "here it is the same file as {}: this file system takes both names for one",
                    path(second).display()
                ),
            });
        }
        for number in group {
            let path = path(number);
            target
                .remove(&path)
                .map_err(|error| fail("remove", &path, error))?;
            for piece in plan.files[number].pieces.clone() {
                pieces[piece as usize] = false;
            }
            found.remove(&number);
        }
    }
    Ok(())
}

/// The numbers of files that are one and the same here, by groups of two and more.
fn shared(found: &BTreeMap<usize, Found>) -> Vec<Vec<usize>> {
    let mut groups: HashMap<(u64, u64), Vec<usize>> = HashMap::new();
    for (number, file) in found {
        groups.entry(file.inode).or_default().push(*number);
    }
    groups.into_values().filter(|group| group.len() > 1).collect()
}

/// A file that stands there.
struct Found {
    /// Bytes of it that can be kept.
    kept: u64,
    /// All of it is as planned, with nothing else in it, and so is what belongs to it.
    finished: bool,
    /// By which the system knows it: device and number.
    inode: (u64, u64),
    /// How many names it has.
    names: u64,
}

/// Hashes a piece of a file while it is still in the processor's cache, and in little memory: how long it is only the
/// index says, which may be damaged.
fn digest_at(file: &File, offset: u64, length: u32, buffer: &mut [u8]) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let (mut at, end) = (offset, offset.saturating_add(length.into()));
    while at < end {
        let left = usize::try_from(end - at).unwrap_or(usize::MAX);
        let read = left.min(buffer.len());
        file.read_exact_at(&mut buffer[..read], at)?;
        hash.update(&buffer[..read]);
        at += read as u64;
    }
    Ok(hash.finalize().into())
}

/// `None` when nothing stands there (any more).
fn inspect_file(
    target: &Target,
    plan: &Plan,
    number: usize,
    root: bool,
    dirs: &mut LastDir,
    buffer: &mut [u8],
    pieces: &[AtomicBool],
) -> Result<Option<Found>> {
    let file = &plan.files[number];
    let path = plan.path(file.dir, &file.name);
    let open = dirs
        .get(target, file.dir, &plan.dirs[file.dir as usize].path)
        .map_err(io::Error::from)
        .and_then(|dir| existing_in(dir, &file.name));
    let open = match open {
        Ok(open) => open,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // Its permissions are final already and not ours to read: make it again.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            target
                .remove(&path)
                .map_err(|error| fail("remove", &path, error))?;
            return Ok(None);
        }
        Err(error) => return Err(EngineError::target("open", &path, &error)),
    };
    let mut kept = 0;
    let mut complete = true;
    for piece in file.pieces.clone() {
        let piece = piece as usize;
        let wanted = &plan.pieces[piece];
        let read = digest_at(&open, wanted.file_offset, wanted.plain_len, buffer);
        let same = read.is_ok_and(|digest| digest == wanted.id);
        pieces[piece].store(same, Ordering::Relaxed);
        if same {
            kept += u64::from(wanted.plain_len);
        }
        complete &= same;
    }
    let stat = rustix::fs::fstat(&open).map_err(|error| fail("look at", &path, error))?;
    complete &= u64::try_from(stat.st_size) == Ok(file.size);
    // Another name of it may be somebody else's file: it is never written to, and only kept when that is as planned.
    if stat.st_nlink > 1 && !(complete && file.linked) {
        target
            .remove(&path)
            .map_err(|error| fail("remove", &path, error))?;
        for piece in file.pieces.clone() {
            pieces[piece as usize].store(false, Ordering::Relaxed);
        }
        return Ok(None);
    }
    let finished = complete && meta::stands(open.as_fd(), &stat, &file.meta, root);
    Ok(Some(Found {
        kept,
        finished,
        inode: (stat.st_dev, stat.st_ino),
        names: stat.st_nlink,
    }))
}
