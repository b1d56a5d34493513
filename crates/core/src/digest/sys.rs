//! The few system calls a walk needs, each relative to an open directory.
//!
//! Promises never to follow a symlink, never to hang on a fifo, and paths of any depth (nothing here takes a path from the
//! root). Knows nothing about digests or caches.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, Statx, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::format::{Attrs, FileTime, Xattrs};

/// The file type bits of a mode.
pub(super) const S_IFMT: u32 = 0o170_000;
pub(super) const S_IFREG: u32 = 0o100_000;
pub(super) const S_IFDIR: u32 = 0o040_000;
pub(super) const S_IFLNK: u32 = 0o120_000;
pub(super) const S_IFIFO: u32 = 0o010_000;
pub(super) const S_IFCHR: u32 = 0o020_000;
pub(super) const S_IFBLK: u32 = 0o060_000;
pub(super) const S_IFSOCK: u32 = 0o140_000;

/// What `statx` says of an inode, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) dev: (u32, u32),
    pub(super) ino: u64,
    /// Type and permissions.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) nlink: u32,
    pub(super) size: u64,
    pub(super) mtime: FileTime,
    pub(super) ctime: FileTime,
    pub(super) rdev: (u32, u32),
    pub(super) mount_root: bool,
}

impl Stat {
    pub(super) fn kind(&self) -> u32 {
        self.mode & S_IFMT
    }

    pub(super) fn attrs(&self) -> Attrs {
        Attrs {
            mode: self.mode & 0o7777,
            uid: self.uid,
            gid: self.gid,
        }
    }

    /// Whether this is still the same inode in the same state. `nlink` counts: a changed one bumps ctime anyway.
    pub(super) fn same_state(&self, other: &Self) -> bool {
        self == other
    }
}

impl From<Statx> for Stat {
    fn from(st: Statx) -> Self {
        let time = |t: rustix::fs::StatxTimestamp| FileTime {
            secs: t.tv_sec,
            nanos: t.tv_nsec,
        };
        Self {
            dev: (st.stx_dev_major, st.stx_dev_minor),
            ino: st.stx_ino,
            mode: u32::from(st.stx_mode),
            uid: st.stx_uid,
            gid: st.stx_gid,
            nlink: st.stx_nlink,
            size: st.stx_size,
            mtime: time(st.stx_mtime),
            ctime: time(st.stx_ctime),
            rdev: (st.stx_rdev_major, st.stx_rdev_minor),
            mount_root: st.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        }
    }
}

pub(super) fn stat_at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Stat> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    Ok(rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS)?.into())
}

pub(super) fn stat_fd(fd: BorrowedFd<'_>) -> io::Result<Stat> {
    Ok(rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?.into())
}

/// Opens the root of a walk; a symlink there is refused.
pub(super) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    // `components` drops a trailing slash, which would make the kernel follow a symlink in spite of NOFOLLOW.
    let path: std::path::PathBuf = path.components().collect();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Opens things below the root for reading, without touching access times where that is allowed.
#[derive(Debug)]
pub(super) struct Opener {
    noatime: AtomicBool,
}

impl Opener {
    pub(super) fn new() -> Self {
        Self {
            noatime: AtomicBool::new(true),
        }
    }

    pub(super) fn dir(&self, parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
        self.open(parent, name, OFlags::DIRECTORY)
    }

    pub(super) fn file(&self, parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
        // NONBLOCK: the name may have become a fifo since it was looked at.
        self.open(parent, name, OFlags::NONBLOCK | OFlags::NOCTTY)
    }

    fn open(&self, parent: BorrowedFd<'_>, name: &CStr, extra: OFlags) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | extra;
        if self.noatime.load(Ordering::Relaxed) {
            match rustix::fs::openat(parent, name, flags | OFlags::NOATIME, Mode::empty()) {
                // Only the owner and root may leave the access time alone.
                Err(Errno::PERM) => {}
                other => return Ok(other?),
            }
            let fd = rustix::fs::openat(parent, name, flags, Mode::empty())?;
            self.noatime.store(false, Ordering::Relaxed);
            return Ok(fd);
        }
        Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
    }
}

/// Names of one directory in one allocation, each ending in NUL.
#[derive(Debug, Default)]
pub(super) struct Names {
    arena: Vec<u8>,
    /// Start and length (without the NUL) of each name.
    index: Vec<(usize, usize)>,
}

impl Names {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn get(&self, i: usize) -> Option<&CStr> {
        let (start, len) = *self.index.get(i)?;
        CStr::from_bytes_with_nul(self.arena.get(start..start + len + 1)?).ok()
    }

    pub(super) fn push(&mut self, name: &CStr) {
        let bytes = name.to_bytes_with_nul();
        self.index.push((self.arena.len(), bytes.len() - 1));
        self.arena.extend_from_slice(bytes);
    }

    /// Keeps the names `keep` says yes to, or stops at its first error.
    pub(super) fn retain<E>(&mut self, keep: impl Fn(&CStr) -> Result<bool, E>) -> Result<(), E> {
        let mut failed = None;
        let arena = &self.arena;
        self.index.retain(|(start, len)| {
            let name = arena
                .get(*start..start + len + 1)
                .and_then(|bytes| CStr::from_bytes_with_nul(bytes).ok());
            name.is_none_or(|name| keep(name).unwrap_or_else(|err| failed.replace(err).is_none()))
        });
        failed.map_or(Ok(()), Err)
    }

    fn sort(&mut self) {
        let arena = &self.arena;
        self.index
            .sort_unstable_by(|a, b| arena[a.0..a.0 + a.1].cmp(&arena[b.0..b.0 + b.1]));
    }
}

/// The names in a directory except `.` and `..`, in bytewise order. `dir` must not have been listed before.
pub(super) fn list(dir: BorrowedFd<'_>, buf: &mut Vec<u8>) -> io::Result<Names> {
    buf.clear();
    buf.reserve(64 << 10);
    let mut names = Names::default();
    let spare: &mut [MaybeUninit<u8>] = buf.spare_capacity_mut();
    let mut entries = RawDir::new(dir, spare);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

pub(super) fn read_link(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(dir, name, Vec::with_capacity(256))?.into_bytes())
}

/// Reads from the start until `buf` is full or the file ends; the number of bytes read.
pub(super) fn read_at(fd: BorrowedFd<'_>, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match rustix::io::pread(fd, &mut buf[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(err) => return Err(err.into()),
        }
    }
    Ok(done)
}

/// The covered extended attributes of an open file or directory.
pub(super) fn xattrs_fd(fd: BorrowedFd<'_>, buf: &mut Vec<u8>) -> io::Result<Xattrs> {
    collect_xattrs(
        buf,
        |out| rustix::fs::flistxattr(fd, out),
        |name, out| rustix::fs::fgetxattr(fd, name, out),
    )
}

/// The covered extended attributes of what can't be opened: symlinks, fifos, devices.
pub(super) fn xattrs_at(dir: BorrowedFd<'_>, name: &CStr, buf: &mut Vec<u8>) -> io::Result<Xattrs> {
    // There is no listxattrat before Linux 6.13; the detour through /proc keeps the walk relative and of any depth.
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    let path = path.as_slice();
    collect_xattrs(
        buf,
        |out| rustix::fs::llistxattr(path, out),
        |name, out| rustix::fs::lgetxattr(path, name, out),
    )
}

/// Linux limits both the list of names and one value to this.
const XATTR_MAX: usize = 64 << 10;

fn collect_xattrs(
    buf: &mut Vec<u8>,
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&CStr, &mut [u8]) -> Result<usize, Errno>,
) -> io::Result<Xattrs> {
    buf.resize(2 * XATTR_MAX, 0);
    let (names, value) = buf.split_at_mut(XATTR_MAX);
    let len = match list(names) {
        Ok(len) => len,
        Err(Errno::OPNOTSUPP) => 0,
        Err(err) => return Err(err.into()),
    };
    if len == 0 {
        return Ok(Xattrs::default());
    }
    let mut pairs = Vec::new();
    for name in names[..len].split_inclusive(|b| *b == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        if Xattrs::covers(name.to_bytes()) {
            let len = get(name, value)?;
            pairs.push((name.to_bytes().to_vec(), value[..len].to_vec()));
        }
    }
    Ok(Xattrs::from_pairs(pairs))
}
