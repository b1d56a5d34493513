//! Looks at every restored entry once more and compares it with the plan: kind, size, permissions, time.
//!
//! Content needs no second look: every blob was proven before it was written or kept. It is whether the right things
//! ended up in the right places that is looked at here. Files that were found finished were looked at then.

use std::path::Path;

use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use super::meta::differences;
use super::plan::{Dir, First, Meta, OtherKind, Plan};
use super::prepare::kind;
use super::report::Notes;
use super::target::{LastDir, Target};
use crate::error::{EngineError, Result};

/// See the [module](self).
pub(crate) fn verify(
    target: &Target,
    plan: &Plan,
    finished: &[bool],
    root: bool,
    notes: &Notes,
) -> Result<()> {
    if let Some(Dir {
        path,
        meta: Some(meta),
    }) = plan.dirs.first()
    {
        let stat = rustix::fs::fstat(target.root())
            .map_err(|error| EngineError::target("look at", path, &error.into()))?;
        compare(&stat, meta, root, Path::new("."), notes);
    }
    for dir in plan.dirs.iter().skip(1) {
        if let Some(stat) = look(target, &dir.path, FileType::Directory, notes)?
            && let Some(meta) = &dir.meta
        {
            compare(&stat, meta, root, &dir.path, notes);
        }
    }
    let mut dirs = LastDir::default();
    for (file, _) in plan
        .files
        .iter()
        .zip(finished)
        .filter(|(_, finished)| !**finished)
    {
        let path = plan.path(file.dir, &file.name);
        let found = dirs
            .get(target, file.dir, &plan.dirs[file.dir as usize].path)
            .and_then(|dir| rustix::fs::statat(dir, &file.name, AtFlags::SYMLINK_NOFOLLOW));
        let found = match found {
            Ok(stat) => Some(stat),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(EngineError::target("look at", &path, &error.into())),
        };
        if let Some(stat) = judge(found, &path, FileType::RegularFile, notes) {
            if u64::try_from(stat.st_size) != Ok(file.size) {
                notes.mismatch(&path, "the size");
            }
            compare(&stat, &file.meta, root, &path, notes);
        }
    }
    for other in &plan.others {
        let path = plan.path(other.dir, &other.name);
        let wanted = match other.kind {
            OtherKind::Symlink(_) => FileType::Symlink,
            OtherKind::Block(_) => FileType::BlockDevice,
            OtherKind::Char(_) => FileType::CharacterDevice,
            OtherKind::Fifo => FileType::Fifo,
            OtherKind::Socket => FileType::Socket,
        };
        if let Some(stat) = look(target, &path, wanted, notes)? {
            let meta = if wanted == FileType::Symlink {
                // Links have no permissions of their own on Linux.
                Meta {
                    mode: None,
                    ..other.meta.clone()
                }
            } else {
                other.meta.clone()
            };
            compare(&stat, &meta, root, &path, notes);
        }
    }
    for link in &plan.links {
        let path = plan.path(link.dir, &link.name);
        let first = match link.first {
            First::File(number) => plan.file_path(number),
            First::Other(number) => {
                let other = &plan.others[number as usize];
                plan.path(other.dir, &other.name)
            }
        };
        let (one, two) = (stat(target, &path)?, stat(target, &first)?);
        if !matches!((one, two), (Some(one), Some(two)) if one.st_ino == two.st_ino) {
            notes.mismatch(&path, "the hard link");
        }
    }
    Ok(())
}

fn stat(target: &Target, path: &Path) -> Result<Option<Stat>> {
    target
        .stat(path)
        .map_err(|error| EngineError::target("look at", path, &error.into()))
}

fn look(target: &Target, path: &Path, wanted: FileType, notes: &Notes) -> Result<Option<Stat>> {
    Ok(judge(stat(target, path)?, path, wanted, notes))
}

fn judge(found: Option<Stat>, path: &Path, wanted: FileType, notes: &Notes) -> Option<Stat> {
    match found {
        Some(stat) if kind(&stat) == wanted => return Some(stat),
        Some(_) => notes.mismatch(path, "the kind"),
        None => notes.mismatch(path, "its presence"),
    }
    None
}

fn compare(stat: &Stat, meta: &Meta, root: bool, path: &Path, notes: &Notes) {
    for what in differences(stat, meta, root) {
        notes.mismatch(path, what);
    }
}
