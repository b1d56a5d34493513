//! Owner, permissions, extended attributes and times of one entry: setting and comparing.
//!
//! Promises the order that keeps what was set: owner first (it clears set-id bits and capabilities), attributes and
//! ACLs, permissions, times last. What can't be set is counted in [`Unset`], not hidden and not fatal: an ordinary user
//! can't give files away.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Mutex, PoisonError};

use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use super::data::Trouble;
use super::sys::{Facts, shown};

/// Metadata that could not be set: how often, and on what first.
#[derive(Debug, Default)]
pub(super) struct Unset(Mutex<[Option<(u64, String)>; 3]>);

#[derive(Debug, Clone, Copy)]
enum Lost {
    Owner,
    Xattr,
    Device,
}

impl Unset {
    fn note(&self, what: Lost, place: impl FnOnce() -> String) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = match what {
            Lost::Owner => &mut all[0],
            Lost::Xattr => &mut all[1],
            Lost::Device => &mut all[2],
        };
        match slot {
            Some((count, _)) => *count += 1,
            None => *slot = Some((1, place())),
        }
    }

    /// A device node could not be made.
    pub(super) fn device(&self, place: impl FnOnce() -> String) {
        self.note(Lost::Device, place);
    }

    /// One sentence for each kind.
    pub(super) fn sentences(&self) -> Vec<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let words = [
            "the owner could not be set",
            "extended attributes or ACLs could not be set",
            "device nodes could not be made",
        ];
        std::iter::zip(all.iter(), words)
            .filter_map(|(slot, words)| slot.as_ref().map(|(count, first)| (count, first, words)))
            .map(|(count, first, words)| format!("{words} on {count} of the entries, the first is {first}"))
            .collect()
    }
}

/// Whether a missing permission or ability is the reason, rather than a failing disk.
fn refused(error: Errno) -> bool {
    matches!(
        error,
        Errno::PERM
            | Errno::ACCESS
            | Errno::OPNOTSUPP
            | Errno::INVAL
            | Errno::TOOBIG
            | Errno::RANGE
            | Errno::NOSYS
    )
}

fn times(facts: &Facts) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: facts.mtime.secs,
            tv_nsec: facts.mtime.nanos.into(),
        },
    }
}

/// Gives an open file or directory the metadata of another.
///
/// `fresh` says that we have just made it, so that it has no attributes to take away.
pub(super) fn apply(
    from: impl AsFd,
    to: impl AsFd,
    facts: &Facts,
    fresh: bool,
    unset: &Unset,
    place: impl Fn() -> String,
) -> Result<(), Trouble> {
    let to = to.as_fd();
    let owner = (Some(Uid::from_raw(facts.uid)), Some(Gid::from_raw(facts.gid)));
    match rustix::fs::fchown(to, owner.0, owner.1) {
        Ok(()) => {}
        Err(error) if refused(error) => {
            let now = super::sys::facts_of_fd(to).map_err(Trouble::Writing)?;
            if (now.uid, now.gid) != (facts.uid, facts.gid) {
                // The group alone may be ours to give.
                let _ = rustix::fs::fchown(to, None, owner.1);
                unset.note(Lost::Owner, &place);
            }
        }
        Err(error) => return Err(Trouble::Writing(error)),
    }
    copy_xattrs(
        &Holder::Open(from.as_fd()),
        &Holder::Open(to),
        fresh,
        unset,
        &place,
    )?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(facts.mode)).map_err(Trouble::Writing)?;
    rustix::fs::futimens(to, &times(facts)).map_err(Trouble::Writing)
}

/// Gives a link, fifo or device the metadata of another, by name.
pub(super) fn apply_at(
    from: impl AsFd,
    to: impl AsFd,
    name: &CStr,
    facts: &Facts,
    unset: &Unset,
    place: impl Fn() -> String,
) -> Result<(), Trouble> {
    let (from, to) = (from.as_fd(), to.as_fd());
    let owner = (Some(Uid::from_raw(facts.uid)), Some(Gid::from_raw(facts.gid)));
    match rustix::fs::chownat(to, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(()) => {}
        Err(error) if refused(error) => {
            let now = super::sys::facts_at(to, name).map_err(Trouble::Writing)?;
            if (now.uid, now.gid) != (facts.uid, facts.gid) {
                unset.note(Lost::Owner, &place);
            }
        }
        Err(error) => return Err(Trouble::Writing(error)),
    }
    let (here, there) = (through_proc(from, name), through_proc(to, name));
    copy_xattrs(&Holder::Named(&here), &Holder::Named(&there), true, unset, &place)?;
    if facts.kind != rustix::fs::FileType::Symlink {
        rustix::fs::chmodat(to, name, Mode::from_raw_mode(facts.mode), AtFlags::empty())
            .map_err(Trouble::Writing)?;
    }
    rustix::fs::utimensat(to, name, &times(facts), AtFlags::SYMLINK_NOFOLLOW).map_err(Trouble::Writing)
}

/// The extended attribute calls have no `at` form before Linux 6.13; a path through the descriptor is as good.
fn through_proc(dir: impl AsFd, name: &CStr) -> CString {
    let prefix = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd());
    super::sys::joined(prefix.as_bytes(), name.to_bytes())
}

enum Holder<'a> {
    Open(std::os::fd::BorrowedFd<'a>),
    Named(&'a CStr),
}

impl Holder<'_> {
    fn list(&self) -> Result<Vec<u8>, Errno> {
        grown(|buffer| match self {
            Self::Open(fd) => rustix::fs::flistxattr(fd, spare_capacity(buffer)),
            Self::Named(path) => rustix::fs::llistxattr(*path, spare_capacity(buffer)),
        })
    }

    fn get(&self, name: &CStr) -> Result<Vec<u8>, Errno> {
        grown(|buffer| match self {
            Self::Open(fd) => rustix::fs::fgetxattr(fd, name, spare_capacity(buffer)),
            Self::Named(path) => rustix::fs::lgetxattr(*path, name, spare_capacity(buffer)),
        })
    }

    fn set(&self, name: &CStr, value: &[u8]) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::Named(path) => rustix::fs::lsetxattr(*path, name, value, XattrFlags::empty()),
        }
    }

    fn remove(&self, name: &CStr) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => rustix::fs::fremovexattr(fd, name),
            Self::Named(path) => rustix::fs::lremovexattr(*path, name),
        }
    }
}

fn grown(mut call: impl FnMut(&mut Vec<u8>) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = Vec::with_capacity(256);
    loop {
        match call(&mut buffer) {
            Ok(_) => return Ok(buffer),
            Err(Errno::RANGE) if buffer.capacity() < 1 << 20 => {
                let more = buffer.capacity() * 4;
                buffer.clear();
                buffer.reserve(more);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Labels and measurements belong to the host's policy: another host writes its own over the same data. The rest of
/// `system.` are views that a filesystem computes. `user.reseed.` is ours.
fn travels(name: &[u8]) -> bool {
    const HOST: [&[u8]; 4] = [
        b"security.selinux",
        b"security.ima",
        b"security.evm",
        b"security.apparmor",
    ];
    if name.starts_with(b"user.reseed.") || name.starts_with(b"security.SMACK64") || HOST.contains(&name) {
        return false;
    }
    !name.starts_with(b"system.") || matches!(name, b"system.posix_acl_access" | b"system.posix_acl_default")
}

fn names(list: &[u8]) -> impl Iterator<Item = CString> {
    list.split(|&b| b == 0)
        .filter(|name| !name.is_empty() && travels(name))
        .map(|name| super::sys::joined(name, b""))
}

fn list_of(holder: &Holder<'_>) -> Result<Vec<u8>, Errno> {
    match holder.list() {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(Vec::new()),
        // Without /proc there is no way to the attributes of links and devices; files and directories don't need it.
        Err(Errno::NOENT | Errno::ACCESS) if matches!(holder, Holder::Named(_)) => Ok(Vec::new()),
        result => result,
    }
}

fn copy_xattrs(
    from: &Holder<'_>,
    to: &Holder<'_>,
    fresh: bool,
    unset: &Unset,
    place: impl Fn() -> String,
) -> Result<(), Trouble> {
    let source = list_of(from).map_err(Trouble::Reading)?;
    if !fresh {
        for name in names(&list_of(to).map_err(Trouble::Writing)?) {
            if !names(&source).any(|other| other == name) {
                match to.remove(&name) {
                    Ok(()) | Err(Errno::NODATA) => {}
                    Err(error) if refused(error) => unset.note(Lost::Xattr, &place),
                    Err(error) => return Err(Trouble::Writing(error)),
                }
            }
        }
    }
    for name in names(&source) {
        let value = match from.get(&name) {
            Ok(value) => value,
            // It went away since it was listed.
            Err(Errno::NODATA) => continue,
            Err(error) => return Err(Trouble::Reading(error)),
        };
        match to.set(&name, &value) {
            Ok(()) => {}
            Err(error) if refused(error) => unset.note(Lost::Xattr, || {
                format!("{} ({})", place(), shown(name.to_bytes()))
            }),
            Err(error) => return Err(Trouble::Writing(error)),
        }
    }
    Ok(())
}

/// Takes away what a new directory inherited from its parent, so that what is made in it inherits nothing.
pub(super) fn disinherit(dir: impl AsFd) -> Result<(), Errno> {
    let holder = Holder::Open(dir.as_fd());
    for name in [c"system.posix_acl_default", c"system.posix_acl_access"] {
        match holder.remove(name) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether two open files have the same owner, permissions and extended attributes.
pub(super) fn equal(a: impl AsFd, a_facts: &Facts, b: impl AsFd, b_facts: &Facts) -> Result<bool, Errno> {
    if (a_facts.uid, a_facts.gid, a_facts.mode, a_facts.mtime)
        != (b_facts.uid, b_facts.gid, b_facts.mode, b_facts.mtime)
    {
        return Ok(false);
    }
    let (a, b) = (Holder::Open(a.as_fd()), Holder::Open(b.as_fd()));
    let all = |holder: &Holder<'_>| -> Result<Vec<(CString, Vec<u8>)>, Errno> {
        let mut all = Vec::new();
        for name in names(&list_of(holder)?) {
            let value = holder.get(&name)?;
            all.push((name, value));
        }
        all.sort();
        Ok(all)
    };
    Ok(all(&a)? == all(&b)?)
}
