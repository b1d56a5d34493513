//! Removing a tree that is ours, at any depth, with two descriptors.
//!
//! Promises to stay on one mount, never to follow a link, and to leave a tree half removed only under a name that
//! nothing takes for data: callers rename it out of the way first.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use reseed_core::error::Common;
use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::job::Job;
use super::sys::{self, Done, During, Facts, Fail, shown};

/// One directory on the way down.
struct Level {
    /// Its name in its parent.
    name: CString,
    facts: Facts,
    /// Subdirectories that are still to be removed.
    left: Vec<CString>,
}

/// Removes an entry of a directory with everything below it. It is no error when it isn't there.
pub(super) fn remove(job: &Job, dir: impl AsFd, name: &std::ffi::CStr) -> Done<()> {
    let what = || format!("can't remove {}", shown(name.to_bytes()));
    let facts = match sys::facts_at(dir.as_fd(), name) {
        Ok(facts) => facts,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(sys::os_fail(what(), error)),
    };
    if facts.kind != FileType::Directory {
        return sys::remove_file(dir, name).during(what);
    }
    let parent = sys::facts_of_fd(dir.as_fd()).during(what)?;
    if !facts.same_mount(&parent) {
        return Err(mounted(name));
    }
    remove_tree(
        job,
        dir.as_fd().try_clone_to_owned().during(what)?,
        parent,
        name.to_owned(),
    )
}

fn mounted(name: &std::ffi::CStr) -> Fail {
    Fail::new(
        Common::Busy,
        format!(
            "something is mounted on {}, so it is not removed",
            shown(name.to_bytes())
        ),
    )
    .hint("unmount it first: `findmnt` shows what it is")
}

fn remove_tree(job: &Job, mut here: OwnedFd, top: Facts, name: CString) -> Done<()> {
    let root = name.clone();
    let what = || format!("can't remove what is below {}", shown(root.to_bytes()));
    let mut levels: Vec<Level> = Vec::new();
    let mut next = Some(name);
    loop {
        if let Some(name) = next.take() {
            let child = match sys::open_dir(&here, &name) {
                Err(Errno::ACCESS) => {
                    // A directory without permissions for its owner is still its owner's to remove.
                    rustix::fs::chmodat(&here, name.as_c_str(), Mode::RWXU, AtFlags::empty()).during(what)?;
                    sys::open_dir(&here, &name)
                }
                opened => opened,
            }
            .during(what)?;
            let facts = sys::facts_of_fd(&child).during(what)?;
            if !facts.same_mount(&top) {
                return Err(mounted(&name));
            }
            if facts.mode & 0o300 != 0o300 {
                rustix::fs::fchmod(&child, Mode::RWXU).during(what)?;
            }
            let left = empty_of_files(job, &child).during(what)?;
            levels.push(Level { name, facts, left });
            here = child;
        }
        job.check()?;
        let Some(level) = levels.last_mut() else {
            return Ok(());
        };
        if let Some(deeper) = level.left.pop() {
            next = Some(deeper);
            continue;
        }
        let Some(done) = levels.pop() else {
            return Ok(());
        };
        let up = sys::open_dir(&here, c"..").during(what)?;
        let above = sys::facts_of_fd(&up).during(what)?;
        let expected = levels.last().map_or(top, |level| level.facts);
        if !above.same_inode(&expected) {
            return Err(Fail::new(
                Common::Busy,
                format!(
                    "{} was moved while it was being removed",
                    shown(done.name.to_bytes())
                ),
            ));
        }
        here = up;
        rustix::fs::unlinkat(&here, done.name.as_c_str(), AtFlags::REMOVEDIR).during(what)?;
    }
}

/// Unlinks everything but directories, and names those.
fn empty_of_files(job: &Job, dir: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut directories = Vec::new();
    for entry in sys::entries(dir)? {
        let kind = match entry.kind {
            FileType::Unknown => sys::facts_at(dir, &entry.name)?.kind,
            kind => kind,
        };
        if kind == FileType::Directory {
            directories.push(entry.name);
        } else {
            sys::remove_file(dir, &entry.name)?;
            job.step("removed a file");
        }
    }
    Ok(directories)
}
