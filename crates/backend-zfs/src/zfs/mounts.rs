//! What is mounted where, and mounting in places of our own.
//!
//! The kernel's table is read (one small file, no process), never a directory's look: a directory is empty before a late
//! mount and full after a service made its own (TRAPS). Places of ours are mounted by the system call, without touching
//! a dataset's properties; live data is mounted by `zfs mount`, which knows them.
//!
//! Not known here: what a dataset is for. Mounting needs root, and reseed must be in the system's mount namespace, not in
//! one that systemd made for its unit (`PrivateTmp`, `ProtectSystem`), or nobody else sees what it mounts.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) point: PathBuf,
    pub(crate) fstype: String,
    /// For ZFS the dataset's name as it is now, also after a rename.
    pub(crate) source: OsString,
    pub(crate) device: u64,
    /// It is all of what is mounted, and not a directory inside of it (a bind mount).
    pub(crate) whole: bool,
}

impl Mount {
    /// Whether this is where all of a dataset is. One of its directories that is mounted elsewhere says nothing of the others.
    pub(crate) fn is_dataset(&self, name: &str) -> bool {
        self.whole && self.is_of(name)
    }

    /// Whether this is a dataset, or one of its directories.
    fn is_of(&self, name: &str) -> bool {
        self.fstype == "zfs" && self.source.as_bytes() == name.as_bytes()
    }
}

/// The mounts that this process sees, in the order of mounting.
pub(crate) fn now() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// Reads the table. A line that can't be read is left out: the kernel wrote it, and it is none of ZFS.
pub(crate) fn parse(table: &[u8]) -> Vec<Mount> {
    table.split(|byte| *byte == b'\n').filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<Mount> {
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let device = std::str::from_utf8(words.get(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let dash = words.iter().position(|word| *word == b"-")?;
    Some(Mount {
        point: PathBuf::from(OsString::from_vec(unescaped(words.get(4)?))),
        fstype: String::from_utf8_lossy(words.get(dash + 1)?).into_owned(),
        source: OsString::from_vec(unescaped(words.get(dash + 2)?)),
        device: rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?),
        whole: *words.get(3)? == b"/",
    })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescaped(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let [first, more @ ..] = rest {
        let code = match (first, more) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                Some((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'))
            }
            _ => None,
        };
        match code {
            Some(code) => {
                out.push(code);
                rest = &more[3..];
            }
            None => {
                out.push(*first);
                rest = more;
            }
        }
    }
    out
}

/// What is mounted exactly there, on top.
pub(crate) fn at<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts.iter().rev().find(|mount| mount.point == path)
}

/// Where a dataset is mounted.
pub(crate) fn of<'a>(mounts: &'a [Mount], dataset: &str) -> Option<&'a Mount> {
    mounts.iter().rev().find(|mount| mount.is_dataset(dataset))
}

/// Where a dataset or one of its directories is mounted, all of it.
pub(crate) fn all_of<'a>(mounts: &'a [Mount], dataset: &str) -> impl Iterator<Item = &'a Mount> {
    mounts.iter().filter(move |mount| mount.is_of(dataset))
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    Nothing,
    EmptyDir,
    PopulatedDir,
    /// Not a directory.
    Other,
}

/// Looks at a path. With a device, only at a directory on that one: what was mounted there in the meantime is an error.
pub(crate) fn look(path: &Path, device: Option<u64>) -> io::Result<Standing> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(Standing::Nothing),
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Standing::Other),
        opened => opened?,
    };
    let found = rustix::fs::fstat(&dir)?;
    if let Some(device) = device
        && found.st_dev != device
    {
        return Err(io::Error::other("something else was mounted there meanwhile"));
    }
    for entry in Dir::new(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        let is_dir = matches!(entry.file_type(), FileType::Directory | FileType::Unknown);
        // `.zfs` is shown with snapdir=visible; `lost+found` is what a filesystem makes itself.
        if name == b"." || name == b".." || (is_dir && (name == b".zfs" || name == b"lost+found")) {
            continue;
        }
        return Ok(Standing::PopulatedDir);
    }
    Ok(Standing::EmptyDir)
}

/// Unmounts a dataset that `zfs` doesn't mount, and so doesn't unmount either (`mountpoint=legacy`): nothing else, and not while somebody
/// uses it.
pub(crate) fn unmount_legacy(dataset: &str, place: &Path) -> io::Result<()> {
    if !at(&now()?, place).is_some_and(|there| there.is_dataset(dataset)) {
        return Err(io::Error::other("something else is mounted there"));
    }
    rustix::mount::unmount(place, UnmountFlags::NOFOLLOW)?;
    Ok(())
}

/// Mounts a dataset or snapshot in a place of ours, which is made. Already mounted there is no error.
pub(crate) fn mount(source: &str, place: &Path, read_only: bool) -> io::Result<()> {
    std::fs::create_dir_all(place)?;
    let mounts = now()?;
    match at(&mounts, place) {
        Some(there) if there.is_dataset(source) => return Ok(()),
        // Left by a run that was killed. Somebody who still reads it keeps it, and us from going on.
        Some(_) => rustix::mount::unmount(place, UnmountFlags::empty())?,
        None => {}
    }
    if look(place, None)? != Standing::EmptyDir {
        return Err(io::Error::other("the place to mount it in is not empty"));
    }
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    if read_only {
        flags |= MountFlags::RDONLY;
    }
    rustix::mount::mount(source, place, "zfs", flags, None)?;
    Ok(())
}

/// Unmounts a place of ours and removes its directory. Not mounted is no error; in use is `ResourceBusy`.
pub(crate) fn unmount(place: &Path) -> io::Result<()> {
    while at(&now()?, place).is_some() {
        rustix::mount::unmount(place, UnmountFlags::NOFOLLOW)?;
    }
    match std::fs::remove_dir(place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from Linux 6.1 with OpenZFS 2.3.2.
    const TABLE: &[u8] = b"32 29 0:29 / /tank rw,relatime - zfs tank rw,xattr,noacl,casesensitive\n\
        36 34 0:33 / /tank/svc/b\\040c rw,relatime shared:1 - zfs tank/svc/b\\040c rw,xattr,noacl\n\
        38 31 0:35 / /tmp/m ro,relatime - zfs tank/svc/a@one ro,xattr,noacl,casesensitive\n\
        40 31 0:36 / /tmp/m rw - tmpfs tmpfs rw\n\
        41 31 0:33 /dir /srv/bound rw - zfs tank/svc/b\\040c rw,xattr,noacl\n";

    #[test]
    fn the_kernels_table_is_read() {
        let all = parse(TABLE);
        assert_eq!(all.len(), 5);
        assert!(all[..4].iter().all(|mount| mount.whole) && !all[4].whole);
        let odd = at(&all, Path::new("/tank/svc/b c")).unwrap();
        assert!(odd.is_dataset("tank/svc/b c"));
        assert!(!all[4].is_dataset("tank/svc/b c"));
        assert_eq!(of(&all, "tank/svc/b c"), Some(odd));
        assert_eq!(odd.device, rustix::fs::makedev(0, 33));
        // The last one on a path is on top.
        assert_eq!(at(&all, Path::new("/tmp/m")).unwrap().fstype, "tmpfs");
        assert_eq!(of(&all, "tank/svc/a@one").unwrap().point, Path::new("/tmp/m"));
        assert_eq!(of(&all, "tank/svc"), None);
        assert_eq!(all_of(&all, "tank/svc/b c").count(), 2);
        assert!(parse(b"garbage\n\n1 2 x:y / / - - -\n").is_empty());
    }

    #[test]
    fn a_directory_is_looked_at_without_following_links() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        assert_eq!(look(&path("no"), None).unwrap(), Standing::Nothing);
        std::fs::create_dir_all(path("d/.zfs")).unwrap();
        std::fs::create_dir_all(path("d/lost+found")).unwrap();
        assert_eq!(look(&path("d"), None).unwrap(), Standing::EmptyDir);
        std::os::unix::fs::symlink(path("d"), path("link")).unwrap();
        assert_eq!(look(&path("link"), None).unwrap(), Standing::Other);
        std::fs::write(path("d/.hidden"), "").unwrap();
        assert_eq!(look(&path("d"), None).unwrap(), Standing::PopulatedDir);
        assert_eq!(look(&path("d/.hidden"), None).unwrap(), Standing::Other);
        assert!(look(&path("d"), Some(u64::MAX)).is_err());
    }
}
