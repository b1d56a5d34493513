//! [`ScratchDir`]: room for what is restored only to be looked at.
//!
//! Promises that what it hands out is cleared up: by whoever took it, and where that one was killed, by the next. A place is
//! locked by its user as long as it lives, so that nobody's is taken away under him.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::error::OpError;

const PREFIX: &str = "reseed-scratch-";
const LOCK: &str = ".lock";

/// A directory in which scratch places are made.
#[derive(Debug, Clone)]
pub struct ScratchDir {
    root: PathBuf,
}

/// A scratch place, locked until it is dropped.
#[derive(Debug)]
pub struct ScratchPlace {
    path: PathBuf,
    lock: PathBuf,
    _held: File,
}

impl ScratchDir {
    /// Below this directory, which is made when it is needed. A relative one is taken from where the program runs.
    ///
    /// # Errors
    /// When the path can't be made absolute.
    pub fn new(root: &Path) -> Result<Self, OpError> {
        let root = std::path::absolute(root)
            .map_err(|e| OpError::io(format!("{} is no path", root.display()), &e))?;
        Ok(Self { root })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Takes a place of this name, which nobody else has and at which nothing is yet; before that, clears up what runs that
    /// are dead left behind. `name` is one path component.
    ///
    /// # Errors
    /// When it can't be made, or somebody has it. What can't be cleared up is no error: it is in nobody's way.
    pub fn take(&self, name: &str) -> Result<ScratchPlace, OpError> {
        let failed = |error: io::Error| {
            OpError::io(
                format!(
                    "can't make a place in the scratch directory {}",
                    self.root.display()
                ),
                &error,
            )
            .hint("name another with `--scratch`")
        };
        std::fs::create_dir_all(&self.root).map_err(failed)?;
        self.sweep().map_err(failed)?;
        let path = self.root.join(format!("{PREFIX}{name}"));
        let lock = self.root.join(format!("{PREFIX}{name}{LOCK}"));
        loop {
            match hold(&lock, true).map_err(failed)? {
                Held::Ours(held) => {
                    return Ok(ScratchPlace {
                        path,
                        lock,
                        _held: held,
                    });
                }
                // Removed by a sweep between being made and being locked.
                Held::Gone => {}
                Held::Theirs => return Err(failed(io::ErrorKind::ResourceBusy.into())),
            }
        }
    }

    fn sweep(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.root)? {
            let name = entry?.file_name();
            let place = name
                .to_str()
                .and_then(|name| name.strip_suffix(LOCK))
                .filter(|place| place.starts_with(PREFIX));
            let Some(place) = place else { continue };
            let lock = self.root.join(&name);
            if let Ok(Held::Ours(_held)) = hold(&lock, false) {
                match remove(&self.root.join(place)).and_then(|()| std::fs::remove_file(&lock)) {
                    Ok(()) => tracing::info!(place, "cleared up what a run that was killed left"),
                    Err(error) => {
                        tracing::warn!(place, %error, "can't clear up what a run that was killed left");
                    }
                }
            }
        }
        Ok(())
    }
}

impl ScratchPlace {
    /// Where it is. Nothing is there until its user makes it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what is in it.
    ///
    /// # Errors
    /// When something can't be removed; the next [`ScratchDir::take`] tries again.
    pub fn clear(self) -> Result<(), OpError> {
        remove(&self.path)
            .and_then(|()| remove(&self.lock))
            .map_err(|e| OpError::io(format!("can't remove {}", self.path.display()), &e))
    }
}

enum Held {
    Ours(File),
    Theirs,
    Gone,
}

fn hold(lock: &Path, make: bool) -> io::Result<Held> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(make)
        .truncate(false)
        .mode(0o600);
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    let file = match options.open(lock) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !make => return Ok(Held::Gone),
        opened => opened?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Held::Theirs),
        Err(error) => return Err(error.into()),
    }
    // A sweep may have removed it between the two.
    let (ours, there) = (file.metadata()?, std::fs::symlink_metadata(lock));
    let same = there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()));
    Ok(if same { Held::Ours(file) } else { Held::Gone })
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_left_is_cleared_up_and_what_is_in_use_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = ScratchDir::new(&dir.path().join("scratch")).unwrap();
        let dead = scratch.take("dead").unwrap();
        std::fs::create_dir_all(dead.path().join("tree")).unwrap();
        let left = dead.path().to_owned();
        // The kernel drops the lock with its holder.
        drop(dead);
        let alive = scratch.take("alive").unwrap();
        std::fs::create_dir(alive.path()).unwrap();
        std::fs::write(scratch.root().join("mine.txt"), "not ours").unwrap();
        assert!(!left.exists(), "a dead run's");

        let third = scratch.take("third").unwrap();
        assert!(alive.path().exists(), "in use");
        let error = scratch.take("alive").unwrap_err();
        assert_eq!(error.kind(), crate::error::OpKind::Busy, "{error}");
        alive.clear().unwrap();
        third.clear().unwrap();
        let left: Vec<_> = std::fs::read_dir(scratch.root())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left, ["mine.txt"]);
    }
}
