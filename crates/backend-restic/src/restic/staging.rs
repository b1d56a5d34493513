//! A staging place before restic is let loose on it, and after. It promises that restic meets nothing there through which it
//! could write elsewhere, and that what it left deeper than it should ends where it belongs.
//!
//! restic before 0.17 follows links that stand in its target. So everything goes that is neither a directory nor a file with one
//! name only; and where the version can't continue, or only one path is wanted, everything goes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{EngineError, Result};
use crate::restore::target::{Target, UNFINISHED_DIR, hand_on_nothing, names_in};

/// The most levels that are descended; more than a path can name.
const DEEPEST: usize = 2100;

/// Makes it ready. `keep` is whether what is there can be continued from.
pub(crate) fn clear(target: &Target, keep: bool, cancelled: &dyn Fn() -> bool) -> Result<()> {
    if keep {
        let root = target
            .root()
            .try_clone_to_owned()
            .map_err(|error| EngineError::target("open", Path::new("."), &error))?;
        return sweep(target, &root, cancelled, 0);
    }
    hand_on_nothing(target.root()).map_err(fail("take the access control list off"))?;
    remove_all(target, cancelled)
}

/// Whether nothing is there.
pub(crate) fn is_empty(target: &Target) -> Result<bool> {
    Ok(target.names().map_err(fail("list"))?.is_empty())
}

fn fail(action: &str) -> impl Fn(Errno) -> EngineError {
    let action = action.to_owned();
    move |error| EngineError::target(&action, Path::new("what an earlier restore left"), &error.into())
}

fn remove_all(target: &Target, cancelled: &dyn Fn() -> bool) -> Result<()> {
    for name in target.names().map_err(fail("list"))? {
        if cancelled() {
            return Err(EngineError::Cancelled);
        }
        target.remove(Path::new(&name)).map_err(fail("remove"))?;
    }
    Ok(())
}

fn sweep(target: &Target, dir: &OwnedFd, cancelled: &dyn Fn() -> bool, depth: usize) -> Result<()> {
    if depth > DEEPEST {
        return Err(EngineError::TargetConflict {
            path: ".".into(),
            detail: "what an earlier restore left is too deep".into(),
        });
    }
    if cancelled() {
        return Err(EngineError::Cancelled);
    }
    // It may have its final permissions already, which may forbid writing; they are set again in the end.
    rustix::fs::fchmod(dir, Mode::from_raw_mode(UNFINISHED_DIR)).map_err(fail("open up"))?;
    hand_on_nothing(dir.as_fd()).map_err(fail("take the access control list off"))?;
    let names = match depth {
        0 => target.names(),
        _ => names_in(dir.as_fd()),
    };
    for name in names.map_err(fail("list"))? {
        let stat = match rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(fail("look at")(error)),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => sweep(target, &open_dir(dir.as_fd(), &name)?, cancelled, depth + 1)?,
            FileType::RegularFile if stat.st_nlink == 1 => {}
            _ => rustix::fs::unlinkat(dir, &name, AtFlags::empty()).map_err(fail("remove"))?,
        }
    }
    Ok(())
}

fn open_dir(dir: BorrowedFd<'_>, name: &std::ffi::OsStr) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(fail("open"))
}

/// Lifts what is in the directory `place` of the target to its top, and removes what only led there.
pub(crate) fn lift(target: &Target, place: &Path) -> Result<()> {
    let mut parts = place.iter();
    let Some(first) = parts.next() else { return Ok(()) };
    // Out of the way first: what is lifted may have the same name.
    let aside = Path::new(".reseed-restic-lift");
    let root = target.root();
    match target.remove(aside) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(fail("remove")(error)),
    }
    match rustix::fs::renameat(root, first, root, aside) {
        Ok(()) => {}
        // It matched nothing; whoever looks for what is there will see.
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(fail("move")(error)),
    }
    let from = aside.join(parts.as_path());
    match target.dir(&from) {
        Ok(dir) => {
            for name in names_in(dir.as_fd()).map_err(fail("list"))? {
                rustix::fs::renameat(&dir, &name, root, &name).map_err(fail("move"))?;
            }
        }
        Err(Errno::NOENT | Errno::NOTDIR) => {}
        Err(error) => return Err(fail("open")(error)),
    }
    target.remove(aside).map_err(fail("remove"))
}

/// Files and their bytes, for versions that don't say.
pub(crate) fn count(target: &Target) -> Result<(u64, u64)> {
    let root = target
        .root()
        .try_clone_to_owned()
        .map_err(|error| EngineError::target("open", Path::new("."), &error))?;
    let (mut files, mut bytes) = (0, 0);
    let mut open = vec![(root, Some(target.names().map_err(fail("list"))?))];
    while let Some((dir, names)) = open.pop() {
        let names = match names {
            Some(names) => names,
            None => names_in(dir.as_fd()).map_err(fail("list"))?,
        };
        for name in names {
            let stat = rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(fail("look at"))?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => open.push((open_dir(dir.as_fd(), &name)?, None)),
                FileType::RegularFile => {
                    files += 1;
                    bytes += u64::try_from(stat.st_size).unwrap_or(0);
                }
                _ => {}
            }
        }
    }
    Ok((files, bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_that_leads_out_is_left_and_files_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (stage, outside) = (dir.path().join("stage"), dir.path().join("outside"));
        fs::create_dir_all(stage.join("sub/deep")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("theirs"), b"theirs").unwrap();
        fs::write(stage.join("sub/kept"), b"kept").unwrap();
        symlink(&outside, stage.join("sub/link")).unwrap();
        fs::hard_link(outside.join("theirs"), stage.join("sub/deep/hard")).unwrap();
        let target = Target::open(&stage).unwrap();
        clear(&target, true, &|| false).unwrap();
        assert!(
            fs::symlink_metadata(stage.join("sub/link")).is_err() && !stage.join("sub/deep/hard").exists()
        );
        assert_eq!(fs::read(stage.join("sub/kept")).unwrap(), b"kept");
        assert_eq!(count(&target).unwrap(), (1, 4));
        symlink(&outside, stage.join("link")).unwrap();
        assert_eq!(clear(&target, true, &|| true), Err(EngineError::Cancelled));
        clear(&target, false, &|| false).unwrap();
        assert!(is_empty(&target).unwrap());
        assert_eq!(fs::read(outside.join("theirs")).unwrap(), b"theirs");
    }

    #[test]
    fn what_lies_deeper_is_lifted_also_over_its_own_name() {
        let dir = tempfile::tempdir().unwrap();
        let stage = dir.path().join("stage");
        fs::create_dir_all(stage.join("a/b/a/b")).unwrap();
        fs::write(stage.join("a/b/file"), b"1").unwrap();
        let target = Target::open(&stage).unwrap();
        lift(&target, Path::new("a/b")).unwrap();
        let mut names: Vec<_> = fs::read_dir(&stage)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["a", "file"]);
        assert!(stage.join("a/b").is_dir() && !stage.join("a/b/a").exists());
        lift(&target, Path::new("not/there")).unwrap();
    }
}
