//! The system calls of the directory store, each relative to an open directory.
//!
//! Promises never to follow a symbolic link in the last component, never to hang on a fifo, and to work at any depth
//! (no path from the root is ever built). Knows nothing about snapshots.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use reseed_core::error::{Common, Error};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, RenameFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

/// An error before it becomes one of a trait's.
pub(super) type Fail = Error<Common>;
/// What may fail.
pub(super) type Done<T> = Result<T, Fail>;

/// An error of the operating system, with the hint its kind deserves.
pub(super) fn os_fail(what: impl Into<String>, error: impl Into<io::Error>) -> Fail {
    let fail = Fail::io(what, &error.into());
    match fail.kind() {
        Common::NoSpace => {
            fail.hint("free some space there (`df -h`, `df -i`, quotas), then run the same command again")
        }
        Common::ReadOnly => {
            fail.hint("the filesystem is mounted read-only: see `dmesg` for why, then remount it writable")
        }
        Common::PermissionDenied => fail.hint("run as root, or as the user that owns these files"),
        _ => fail,
    }
}

/// Says during what an operating system's error came up.
pub(super) trait During<T> {
    fn during(self, what: impl FnOnce() -> String) -> Done<T>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, what: impl FnOnce() -> String) -> Done<T> {
        self.map_err(|error| os_fail(what(), error))
    }
}

/// A name as a person can read it: quoted, with what is not printable escaped.
pub(super) fn shown(name: impl AsRef<[u8]>) -> String {
    format!("{:?}", OsStr::from_bytes(name.as_ref()))
}

/// A moment as filesystems keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct FileTime {
    pub(super) secs: i64,
    pub(super) nanos: u32,
}

/// What `statx` tells about an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) kind: FileType,
    /// The twelve permission bits.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) nlink: u32,
    pub(super) ino: u64,
    pub(super) size: u64,
    /// 512-byte blocks that are allocated.
    pub(super) blocks: u64,
    pub(super) mtime: FileTime,
    pub(super) ctime: FileTime,
    pub(super) btime: Option<FileTime>,
    pub(super) rdev: (u32, u32),
    pub(super) dev: (u32, u32),
    /// Which mount it was reached through (Linux 5.8 and later).
    pub(super) mount: Option<u64>,
    /// It is the root of a mount (Linux 5.8 and later; false before).
    pub(super) mount_root: bool,
}

impl Facts {
    /// Whether both are on one filesystem and one mount.
    pub(super) fn same_mount(&self, other: &Self) -> bool {
        self.dev == other.dev
            && match (self.mount, other.mount) {
                (Some(a), Some(b)) => a == b,
                _ => true,
            }
    }

    /// Whether both are the same inode.
    pub(super) fn same_inode(&self, other: &Self) -> bool {
        self.dev == other.dev && self.ino == other.ino
    }

    /// Whether content and metadata are as they were, as far as the kernel's times can tell.
    pub(super) fn unchanged_since(&self, before: &Self) -> bool {
        self.same_inode(before)
            && self.size == before.size
            && self.mtime == before.mtime
            && self.ctime == before.ctime
    }
}

fn facts_of(stat: &rustix::fs::Statx) -> Facts {
    let time = |t: rustix::fs::StatxTimestamp| FileTime {
        secs: t.tv_sec,
        nanos: t.tv_nsec,
    };
    let has = |flag: StatxFlags| stat.stx_mask & flag.bits() != 0;
    Facts {
        kind: FileType::from_raw_mode(u32::from(stat.stx_mode)),
        mode: u32::from(stat.stx_mode) & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        nlink: stat.stx_nlink,
        ino: stat.stx_ino,
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        mtime: time(stat.stx_mtime),
        ctime: time(stat.stx_ctime),
        btime: has(StatxFlags::BTIME).then(|| time(stat.stx_btime)),
        rdev: (stat.stx_rdev_major, stat.stx_rdev_minor),
        dev: (stat.stx_dev_major, stat.stx_dev_minor),
        mount: has(StatxFlags::MNT_ID).then_some(stat.stx_mnt_id),
        mount_root: stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
    }
}

fn wanted() -> StatxFlags {
    StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID
}

/// About an entry of a directory, not following a link.
pub(super) fn facts_at(dir: impl AsFd, name: &CStr) -> Result<Facts, Errno> {
    let stat = rustix::fs::statx(
        dir,
        name,
        AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT,
        wanted(),
    )?;
    Ok(facts_of(&stat))
}

/// About a path from the root, not following a link in its last component.
pub(super) fn facts_of_path(path: &Path) -> Result<Facts, Errno> {
    let stat = rustix::fs::statx(
        CWD,
        path,
        AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT,
        wanted(),
    )?;
    Ok(facts_of(&stat))
}

/// About an open file.
pub(super) fn facts_of_fd(fd: impl AsFd) -> Result<Facts, Errno> {
    Ok(facts_of(&rustix::fs::statx(
        fd,
        c"",
        AtFlags::EMPTY_PATH,
        wanted(),
    )?))
}

/// Opens a directory below another for reading, not following a link.
pub(super) fn open_dir(dir: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, name, dir_flags(), Mode::empty())
}

/// Opens a directory by its path, not following a link in the last component.
pub(super) fn open_dir_path(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(CWD, path, dir_flags(), Mode::empty())
}

fn dir_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK
}

/// Opens a regular file for reading. Doesn't hang if it has become a fifo, and leaves the access time alone if allowed to.
pub(super) fn open_file(dir: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    match rustix::fs::openat(dir.as_fd(), name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(dir, name, flags, Mode::empty()),
        result => result,
    }
}

/// Makes a new file that nobody else can read yet.
pub(super) fn create_file(dir: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)
}

/// One entry of a listing.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: CString,
    /// `Unknown` on filesystems that don't tell.
    pub(super) kind: FileType,
    ino: u64,
}

/// All entries but `.` and `..`, in inode order, which spares a spinning disk most of its seeks.
pub(super) fn entries(dir: impl AsFd) -> Result<Vec<Entry>, Errno> {
    // A descriptor of our own: two readers of one would share its position.
    let own = rustix::fs::openat(dir, c".", dir_flags(), Mode::empty())?;
    let mut buffer = [const { MaybeUninit::uninit() }; 32 * 1024];
    let mut raw = RawDir::new(own, &mut buffer);
    let mut found = Vec::new();
    while let Some(entry) = raw.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            found.push(Entry {
                name: name.to_owned(),
                kind: entry.file_type(),
                ino: entry.ino(),
            });
        }
    }
    found.sort_unstable_by_key(|entry| entry.ino);
    Ok(found)
}

/// Names in a dataset's own root that are not data: ZFS's door to its snapshots, and what `mkfs` makes.
pub(super) fn not_data(name: &CStr) -> bool {
    name == c".zfs" || name == c"lost+found"
}

/// Whether the directory holds no data. Stops at the first entry that is.
pub(super) fn is_empty(dir: impl AsFd) -> Result<bool, Errno> {
    let own = rustix::fs::openat(dir, c".", dir_flags(), Mode::empty())?;
    let mut buffer = [const { MaybeUninit::uninit() }; 2048];
    let mut raw = RawDir::new(own, &mut buffer);
    while let Some(entry) = raw.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." && !not_data(name) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes a directory that only its owner can enter, or finds it there.
pub(super) fn ensure_dir(dir: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(dir.as_fd(), name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => open_dir(dir, name),
        Err(error) => Err(error),
    }
}

/// Reads a small file whole. `None` when it isn't there.
pub(super) fn read_small(dir: impl AsFd, name: &CStr, most: usize) -> Result<Option<Vec<u8>>, Errno> {
    let file = match open_file(dir, name) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error),
    };
    let facts = facts_of_fd(&file)?;
    if facts.kind != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    let expected = usize::try_from(facts.size).unwrap_or(usize::MAX);
    if expected > most {
        return Err(Errno::FBIG);
    }
    let mut content = Vec::with_capacity(expected + 1);
    loop {
        content.reserve(4096);
        match rustix::io::read(&file, rustix::buffer::spare_capacity(&mut content)) {
            Ok(0) => return Ok(Some(content)),
            Ok(_) if content.len() > most => return Err(Errno::FBIG),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes all of it.
pub(super) fn write_all(file: impl AsFd, mut content: &[u8]) -> Result<(), Errno> {
    while !content.is_empty() {
        match rustix::io::write(file.as_fd(), content) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => content = content.get(n..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Puts a small file in place so that after a crash it is there whole or as it was before.
pub(super) fn write_atomic(dir: impl AsFd, name: &CStr, content: &[u8]) -> Result<(), Errno> {
    let temporary = joined(b".new-", name.to_bytes());
    match rustix::fs::unlinkat(dir.as_fd(), temporary.as_c_str(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    let file = create_file(dir.as_fd(), &temporary)?;
    write_all(&file, content)?;
    rustix::fs::fsync(&file)?;
    rustix::fs::renameat(dir.as_fd(), temporary.as_c_str(), dir.as_fd(), name)?;
    rustix::fs::fsync(dir)
}

/// Removes a file; it is no error when it isn't there.
pub(super) fn remove_file(dir: impl AsFd, name: &CStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Renames a *directory* to a name that must not be taken.
///
/// Where the filesystem has no `RENAME_NOREPLACE`, plain rename serves: of a directory it replaces nothing but an empty
/// directory, and the caller has just seen that there is none.
pub(super) fn rename_dir(from: impl AsFd, old: &CStr, to: impl AsFd, new: &CStr) -> Result<(), Errno> {
    match rustix::fs::renameat_with(from.as_fd(), old, to.as_fd(), new, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => match facts_at(to.as_fd(), new) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => rustix::fs::renameat(from, old, to, new),
            Err(error) => Err(error),
        },
        result => result,
    }
}

/// A name made of two parts. A NUL in them ends it, which names from the system and from checked types never hold.
pub(super) fn joined(prefix: &[u8], rest: &[u8]) -> CString {
    let mut bytes = Vec::with_capacity(prefix.len() + rest.len() + 1);
    bytes.extend_from_slice(prefix);
    bytes.extend(rest.iter().copied().take_while(|&b| b != 0));
    bytes.retain(|&b| b != 0);
    CString::new(bytes).unwrap_or_default()
}

/// A text as a file name.
pub(super) fn cstring(text: &str) -> CString {
    joined(text.as_bytes(), b"")
}
