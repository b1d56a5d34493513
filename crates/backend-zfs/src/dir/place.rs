//! A target's place on disk: its directory, what stands beside it under names of ours, which mount it is on.
//!
//! ```text
//! <parent>/<leaf>                                     the live directory
//! <parent>/.reseed-staging.<leaf>/{stage.json, tree/} being restored
//! <parent>/.reseed-aside.<leaf>.<run>                 what stood at the target before
//! <parent>/.reseed-quarantine.<leaf>.<source>/        failed verification
//! <parent>/.reseed-trash.<leaf>                       being removed
//! ```
//! Beside and not in the store, because only a rename on one filesystem is atomic.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use reseed_core::error::Common;
use reseed_core::names::Guid;
use reseed_core::point::Target;
use rustix::fs::FileType;
use rustix::io::Errno;

use super::root::first_u64;
use super::sys::{self, Done, During, Facts, Fail, joined};

/// Where a target is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) parent: PathBuf,
    pub(super) leaf: CString,
}

/// Longest file name.
const NAME_MAX: usize = 255;

impl Place {
    /// Of a target whose mountpoint makes sense.
    pub(super) fn of(target: &Target) -> Done<Self> {
        let path = &target.mountpoint;
        let wrong = |why: &str| {
            Fail::new(
                Common::InvalidInput,
                format!("{path:?} can't be the directory of {}: {why}", target.dataset),
            )
        };
        if !path.is_absolute() {
            return Err(wrong("it is not absolute"));
        }
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(wrong("it has '..' in it"));
        }
        let (Some(parent), Some(leaf)) = (path.parent(), path.file_name()) else {
            return Err(wrong("it is the root of everything"));
        };
        if leaf.as_bytes().contains(&0) {
            return Err(wrong("it has a NUL in it"));
        }
        Ok(Self {
            path: path.clone(),
            parent: parent.to_owned(),
            leaf: joined(leaf.as_bytes(), b""),
        })
    }

    fn beside(&self, prefix: &str, suffix: &str) -> CString {
        let leaf = self.leaf.to_bytes();
        if prefix.len() + leaf.len() + suffix.len() <= NAME_MAX {
            return joined(prefix.as_bytes(), &[leaf, suffix.as_bytes()].concat());
        }
        let hash = blake3::hash(&[leaf, b"\0", suffix.as_bytes()].concat()).to_hex();
        joined(prefix.as_bytes(), format!("~{hash}").as_bytes())
    }

    /// The staging directory's name.
    pub(super) fn staging(&self) -> CString {
        self.beside(".reseed-staging.", "")
    }

    /// Where what is to be removed goes first.
    pub(super) fn trash(&self) -> CString {
        self.beside(".reseed-trash.", "")
    }

    /// Where what stood at the target goes.
    pub(super) fn aside(&self, run: &str) -> CString {
        self.beside(".reseed-aside.", &format!(".{run}"))
    }

    /// Where what failed verification goes.
    pub(super) fn quarantine(&self, source: &str) -> CString {
        self.beside(".reseed-quarantine.", &format!(".{source}"))
    }

    /// A name beside the target as a path.
    pub(super) fn sibling(&self, name: &std::ffi::CStr) -> PathBuf {
        self.parent.join(std::ffi::OsStr::from_bytes(name.to_bytes()))
    }

    /// Opens the directory above the target.
    pub(super) fn open_parent(&self) -> Result<OwnedFd, Errno> {
        // Links above the target are followed: where a service's directory is, is the operator's business.
        rustix::fs::openat(
            rustix::fs::CWD,
            &self.parent,
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
    }

    /// The mount that the target is on, or would be.
    pub(super) fn mounted_at(&self) -> Option<PathBuf> {
        self.path
            .ancestors()
            .find(|path| is_mount(path))
            .map(Path::to_owned)
    }
}

fn is_mount(path: &Path) -> bool {
    sys::facts_of_path(path).is_ok_and(|facts| facts.kind == FileType::Directory && facts.mount_root)
        || path.parent().is_none()
}

/// A directory's guid: the same as long as it is the same directory, wherever it is renamed to.
///
/// From the inode number and the birth time. A filesystem that doesn't keep birth times (tmpfs before Linux 6.6, some
/// network filesystems) leaves the inode number alone, which may be given again after the directory was removed.
pub(super) fn guid(facts: &Facts) -> Guid {
    let mut hasher = blake3::Hasher::new_derive_key("reseed directory store: guid of a live directory");
    hasher.update(&facts.ino.to_le_bytes());
    if let Some(birth) = facts.btime {
        hasher
            .update(&birth.secs.to_le_bytes())
            .update(&birth.nanos.to_le_bytes());
    }
    first_u64(&hasher.finalize())
}

/// What stands at a target.
#[derive(Debug)]
pub(super) enum Standing {
    Nothing,
    Empty(Facts),
    Populated(Facts),
    /// Not a directory: what it is.
    Other(String),
}

/// Looks at what stands at a target.
pub(super) fn standing(path: &Path) -> Result<Standing, Errno> {
    let facts = match sys::facts_of_path(path) {
        Ok(facts) => facts,
        Err(Errno::NOENT) => return Ok(Standing::Nothing),
        Err(Errno::NOTDIR) => {
            return Ok(Standing::Other(
                "a file that stands above it, where a directory should be".to_owned(),
            ));
        }
        Err(error) => return Err(error),
    };
    let other = |what: &str| Ok(Standing::Other(what.to_owned()));
    match facts.kind {
        FileType::Directory => {}
        FileType::Symlink => {
            return Ok(Standing::Other(match std::fs::read_link(path) {
                Ok(to) => format!("a symbolic link to {to:?}"),
                Err(_) => "a symbolic link".to_owned(),
            }));
        }
        FileType::RegularFile => return other("a file"),
        FileType::Socket => return other("a socket"),
        FileType::Fifo => return other("a fifo"),
        _ => return other("a device"),
    }
    let dir = sys::open_dir_path(path)?;
    // What was opened counts, not what was there a moment ago.
    let facts = sys::facts_of_fd(&dir)?;
    Ok(if sys::is_empty(&dir)? {
        Standing::Empty(facts)
    } else {
        Standing::Populated(facts)
    })
}

/// Whether `inner` is `outer` or below it, links and bind mounts notwithstanding.
pub(super) fn contains(outer: impl AsFd, inner: impl AsFd) -> Done<bool> {
    let what = || "can't find out whether the store is inside of what it keeps".to_owned();
    let outer = sys::facts_of_fd(outer).during(what)?;
    let mut at = inner.as_fd().try_clone_to_owned().during(what)?;
    let mut facts = sys::facts_of_fd(&at).during(what)?;
    loop {
        if facts.same_inode(&outer) {
            return Ok(true);
        }
        let up = match sys::open_dir(&at, c"..") {
            Ok(up) => up,
            // Above what we may enter: nothing there is ours either.
            Err(Errno::ACCESS) => return Ok(false),
            Err(error) => return Err(sys::os_fail(what(), error)),
        };
        let above = sys::facts_of_fd(&up).during(what)?;
        if above.same_inode(&facts) {
            return Ok(false);
        }
        (at, facts) = (up, above);
    }
}
