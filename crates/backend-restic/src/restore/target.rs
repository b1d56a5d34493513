//! The directory that is restored into, and every operation on it.
//!
//! Promises that nothing outside of it is touched, whatever stands in it: all paths are resolved by the kernel below
//! an open descriptor of it, never through a symbolic link, never across a mount (`openat2`). Paths given here are
//! relative and their components were checked by the plan.

use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::plan::OtherKind;
use crate::error::{EngineError, Result};
use crate::staging;

/// Permissions of what is not finished yet.
pub(crate) const UNFINISHED_DIR: u32 = 0o700;
const UNFINISHED_FILE: u32 = 0o600;

/// `ZFS_SUPER_MAGIC`.
const ZFS: u64 = 0x2fc1_2fc1;
/// `ZFSCTL_INO_ROOT`.
const DOOR: u64 = 0x0000_ffff_ffff_ffff;

/// Whether it is ZFS's own door to a dataset's snapshots, by a name in the root of the dataset, its file system and number.
fn is_door(name: &OsStr, file_system: u64, number: u64) -> bool {
    name == ".zfs" && file_system == ZFS && number == DOOR
}

/// An open target directory.
#[derive(Debug)]
pub(crate) struct Target {
    root: OwnedFd,
}

impl Target {
    /// Opens the directory, creating it when it is not there. Links and the root of the machine are refused.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let path = &staging::plain(path)?;
        let fail = |action: &str, error: Errno| EngineError::target(action, path, &error.into());
        match rustix::fs::mkdir(path, Mode::from_raw_mode(UNFINISHED_DIR)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(fail("create the target", error)),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(root) => {
                let stat = rustix::fs::fstat(&root).map_err(|error| fail("look at the target", error))?;
                let is_root = staging::is_machine_root(stat.st_dev, stat.st_ino)
                    .map_err(|error| EngineError::target("look at", Path::new("/"), &error))?;
                if is_root {
                    return Err(EngineError::TargetConflict {
                        path: path.display().to_string(),
                        detail: "the root of the machine is never restored into".into(),
                    });
                }
                Ok(Self { root })
            }
            Err(Errno::LOOP | Errno::NOTDIR) => Err(EngineError::TargetConflict {
                path: path.display().to_string(),
                detail: "the target is not a directory (a symbolic link is not followed)".into(),
            }),
            Err(error) => Err(fail("open the target", error)),
        }
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// What stands in the target. `.zfs`, which a dataset with `snapdir=visible` shows and nobody can remove, is nothing that stands there.
    pub(crate) fn entries(&self) -> rustix::io::Result<Vec<(OsString, FileType)>> {
        let mut entries = entries_in(self.root())?;
        entries.retain(|(name, _)| !self.is_door(name));
        Ok(entries)
    }

    /// The names of those.
    pub(crate) fn names(&self) -> rustix::io::Result<Vec<OsString>> {
        Ok(self.entries()?.into_iter().map(|(name, _)| name).collect())
    }

    /// Whether that `.zfs` is there.
    pub(crate) fn has_door(&self) -> bool {
        self.is_door(OsStr::new(".zfs"))
    }

    fn is_door(&self, name: &OsStr) -> bool {
        if name != ".zfs" {
            return false;
        }
        let system = rustix::fs::fstatfs(&self.root);
        let stat = rustix::fs::statat(&self.root, name, AtFlags::SYMLINK_NOFOLLOW);
        matches!((system, stat), (Ok(system), Ok(stat)) if is_door(name, system.f_type.cast_unsigned(), stat.st_ino))
    }

    /// Takes away the access control lists that the target inherited from the directory that it is in, so that what is made in it
    /// inherits nothing: who had no access to a file must not get it by a restore. For a target that is empty.
    pub(crate) fn disinherit(&self) -> Result<()> {
        let fail = |error: Errno| {
            EngineError::target("take the access control list off", Path::new("."), &error.into())
        };
        // The group's bits are the mask then, and without the list they would count for the group.
        let listed = rustix::fs::fgetxattr(&self.root, c"system.posix_acl_access", &mut [0; 0]);
        if listed.is_ok_and(|length| length > 0) {
            rustix::fs::fchmod(&self.root, Mode::from_raw_mode(UNFINISHED_DIR)).map_err(fail)?;
        }
        hand_on_nothing(self.root()).map_err(fail)?;
        without(self.root(), c"system.posix_acl_access").map_err(fail)
    }

    fn resolve(&self, path: &Path, flags: OFlags, mode: u32) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        resolve_in(self.root(), path, flags, mode)
    }

    /// Opens a directory to work with its entries or its metadata.
    pub(crate) fn dir(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        self.resolve(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW, 0)
    }

    /// A directory to reach its entries by.
    pub(crate) fn parent(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        self.resolve(path, OFlags::DIRECTORY | OFlags::PATH | OFlags::NOFOLLOW, 0)
    }

    /// A regular file that is there already.
    pub(crate) fn existing(&self, path: &Path) -> io::Result<File> {
        Ok(File::from(self.resolve(path, EXISTING, 0)?))
    }

    /// What stands under a name, links not followed; `None` for nothing.
    pub(crate) fn stat(&self, path: &Path) -> rustix::io::Result<Option<Stat>> {
        let found = self.at_parent(path, |dir, name| {
            rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
        });
        match found {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn make_dir(&self, path: &Path) -> rustix::io::Result<()> {
        self.at_parent(path, |dir, name| {
            rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(UNFINISHED_DIR))
        })
    }

    pub(crate) fn make_other(&self, path: &Path, kind: &OtherKind) -> rustix::io::Result<()> {
        let mode = Mode::from_raw_mode(UNFINISHED_FILE);
        self.at_parent(path, |dir, name| match kind {
            OtherKind::Symlink(to) => rustix::fs::symlinkat(to.as_slice(), dir, name),
            OtherKind::Fifo => rustix::fs::mknodat(dir, name, FileType::Fifo, mode, 0),
            OtherKind::Socket => rustix::fs::mknodat(dir, name, FileType::Socket, mode, 0),
            OtherKind::Block(device) => rustix::fs::mknodat(dir, name, FileType::BlockDevice, mode, *device),
            OtherKind::Char(device) => {
                rustix::fs::mknodat(dir, name, FileType::CharacterDevice, mode, *device)
            }
        })
    }

    pub(crate) fn link(&self, first: &Path, path: &Path) -> rustix::io::Result<()> {
        self.at_parent(first, |from_dir, from| {
            self.at_parent(path, |dir, name| {
                rustix::fs::linkat(from_dir, from, dir, name, AtFlags::empty())
            })
        })
    }

    pub(crate) fn read_link(&self, path: &Path) -> rustix::io::Result<Vec<u8>> {
        self.at_parent(path, |dir, name| rustix::fs::readlinkat(dir, name, Vec::new()))
            .map(|to| to.into_bytes())
    }

    /// Removes what stands under a name, with everything below it, links not followed.
    pub(crate) fn remove(&self, path: &Path) -> rustix::io::Result<()> {
        self.at_parent(path, remove_at)
    }

    /// Calls `with` with the open parent directory and the last component.
    pub(crate) fn at_parent<T>(
        &self,
        path: &Path,
        with: impl FnOnce(BorrowedFd<'_>, &OsStr) -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => {
                let dir = self.resolve(parent, OFlags::DIRECTORY | OFlags::PATH | OFlags::NOFOLLOW, 0)?;
                with(dir.as_fd(), name)
            }
            _ => with(self.root.as_fd(), name),
        }
    }
}

/// Has what is made in a directory inherit no access control list. An earlier attempt may have given it its own already, and what has none
/// in the backup gets none of it by being made later; that of the directory is set again in the end.
pub(crate) fn hand_on_nothing(dir: BorrowedFd<'_>) -> rustix::io::Result<()> {
    without(dir, c"system.posix_acl_default")
}

fn without(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    match rustix::fs::fremovexattr(dir, name) {
        // NOTSUP is OPNOTSUPP on Linux.
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(error) => Err(error),
    }
}

const EXISTING: OFlags = OFlags::RDWR.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK);

fn resolve_in(dir: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: u32) -> rustix::io::Result<OwnedFd> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let mode = Mode::from_raw_mode(mode);
    loop {
        match rustix::fs::openat2(dir, path, flags | OFlags::CLOEXEC, mode, how) {
            // A rename somewhere made the kernel unsure; it asks to try again.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// A regular file that is in an open directory already. To read it leaves no trace, where it is ours to say so.
pub(crate) fn existing_in(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<File> {
    let open = |flags| resolve_in(dir, Path::new(name), flags, 0);
    let opened = match open(EXISTING | OFlags::NOATIME) {
        Err(Errno::PERM) => open(EXISTING),
        other => other,
    };
    Ok(File::from(opened?))
}

/// A new file in an open directory; fails when anything is there, a link included. `name` is one component.
pub(crate) fn create_in(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<File> {
    // EXCL never follows a link, and there is nothing else in the name to resolve.
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(
        dir,
        name,
        flags,
        Mode::from_raw_mode(UNFINISHED_FILE),
    )?))
}

/// The directory that was used last, kept open: entries of one directory come one after another.
#[derive(Debug, Default)]
pub(crate) struct LastDir(Option<(u32, OwnedFd)>);

impl LastDir {
    /// The open directory with this number and path.
    pub(crate) fn get(
        &mut self,
        target: &Target,
        number: u32,
        path: &Path,
    ) -> rustix::io::Result<BorrowedFd<'_>> {
        if !matches!(&self.0, Some((open, _)) if *open == number) {
            self.0 = Some((number, target.parent(path)?));
        }
        self.0.as_ref().map(|(_, dir)| dir.as_fd()).ok_or(Errno::BADF)
    }
}

/// The names in an open directory.
pub(crate) fn names_in(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<OsString>> {
    Ok(entries_in(dir)?.into_iter().map(|(name, _)| name).collect())
}

/// The names in an open directory, each with its kind, where the file system says it there.
pub(crate) fn entries_in(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<(OsString, FileType)>> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            entries.push((OsString::from_vec(name.to_vec()), entry.file_type()));
        }
    }
    Ok(entries)
}

fn remove_at(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(Errno::NOENT) => return Ok(()),
        other => return other,
    }
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let below = rustix::fs::openat2(dir, name, flags, Mode::empty(), how)?;
    for inner in names_in(below.as_fd())? {
        remove_at(below.as_fd(), &inner)?;
    }
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_the_door_of_zfs_is_nothing_that_stands_there() {
        let name = OsStr::new(".zfs");
        assert!(is_door(name, ZFS, DOOR));
        assert!(
            !is_door(OsStr::new("zfs"), ZFS, DOOR) && !is_door(name, 0xef53, DOOR) && !is_door(name, ZFS, 34)
        );
        // A directory of that name anywhere else is somebody's.
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".zfs")).unwrap();
        assert_eq!(Target::open(dir.path()).unwrap().names().unwrap(), [".zfs"]);
    }

    #[test]
    fn a_symlink_inside_is_never_followed() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("precious"), b"1").unwrap();
        let dir = tempfile::tempdir().unwrap();
        symlink(outside.path(), dir.path().join("way-out")).unwrap();
        let target = Target::open(dir.path()).unwrap();
        for path in [
            "way-out/new",
            "way-out/precious",
            "way-out",
            "../x",
            "/etc/hostname",
        ] {
            let create =
                |dir: BorrowedFd<'_>, name: &OsStr| create_in(dir, name).map(drop).map_err(|_| Errno::IO);
            assert!(target.at_parent(Path::new(path), create).is_err(), "{path}");
            assert!(target.existing(Path::new(path)).is_err(), "{path}");
        }
        assert!(target.make_dir(Path::new("way-out/dir")).is_err());
        assert!(
            target
                .link(Path::new("way-out/precious"), Path::new("stolen"))
                .is_err()
        );
        assert!(target.remove(Path::new("way-out/precious")).is_err());
        target.remove(Path::new("way-out")).unwrap();
        assert_eq!(std::fs::read(outside.path().join("precious")).unwrap(), b"1");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    #[test]
    fn removing_a_tree_leaves_what_its_links_point_at() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("precious"), b"1").unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        symlink(outside.path(), dir.path().join("a/b/way-out")).unwrap();
        std::fs::write(dir.path().join("a/b/file"), b"2").unwrap();
        Target::open(dir.path()).unwrap().remove(Path::new("a")).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(outside.path().join("precious").exists());
    }

    #[test]
    fn a_target_that_is_a_link_or_a_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/tmp", dir.path().join("link")).unwrap();
        std::fs::write(dir.path().join("file"), b"").unwrap();
        for name in ["link", "link/", "link/.", "file", "/", "/."] {
            assert!(matches!(
                Target::open(&dir.path().join(name)),
                Err(EngineError::TargetConflict { .. })
            ));
        }
    }
}
