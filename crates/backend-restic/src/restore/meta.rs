//! Sets the metadata of one restored entry, in the order in which the kernel keeps it: owner first (it clears
//! set-user-id and capabilities), then attributes, then permissions (attributes need them open), then times.
//!
//! What cannot be set is an error of its own for the caller to count: data with the wrong owner is still data.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::plan::Meta;

/// What went wrong with one entry.
pub(crate) type Problem = (&'static str, Errno);

/// Whether owners can be set.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Sets everything on an open file or directory.
pub(crate) fn apply(fd: BorrowedFd<'_>, meta: &Meta, root: bool, fresh: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut check = |what, result: rustix::io::Result<()>| {
        if let Err(error) = result {
            problems.push((what, error));
        }
    };
    if root {
        check(
            "owner",
            rustix::fs::fchown(fd, meta.uid.map(Uid::from_raw), meta.gid.map(Gid::from_raw)),
        );
    }
    if !fresh {
        check("extended attributes", remove_unlisted(fd, meta));
    }
    for (name, value) in &meta.attributes {
        check(
            "extended attributes",
            rustix::fs::fsetxattr(fd, name.as_str(), value, XattrFlags::empty()),
        );
    }
    if let Some(mode) = meta.mode {
        check("permissions", rustix::fs::fchmod(fd, Mode::from_raw_mode(mode)));
    }
    if let Some(times) = times(meta) {
        check("times", rustix::fs::futimens(fd, &times));
    }
    problems
}

/// Whether an open file has all of it already. One with attributes is taken to have not: they aren't compared.
pub(crate) fn stands(fd: BorrowedFd<'_>, stat: &Stat, meta: &Meta, root: bool) -> bool {
    let accessed = (i128::from(stat.st_atime), i128::from(stat.st_atime_nsec));
    differences(stat, meta, root).next().is_none()
        && times(meta).is_none_or(|times| accessed == time(times.last_access))
        && meta.attributes.is_empty()
        && unlisted(fd, meta).is_ok_and(|names| names.is_empty())
}

/// What an entry has other than recorded, in words. Attributes and the time of the last access aren't compared.
pub(crate) fn differences(stat: &Stat, meta: &Meta, root: bool) -> impl Iterator<Item = &'static str> {
    let modified = (i128::from(stat.st_mtime), i128::from(stat.st_mtime_nsec));
    let mode = meta.mode.is_some_and(|mode| mode != stat.st_mode & 0o7777);
    let times = times(meta).is_some_and(|times| modified != time(times.last_modification));
    let owner =
        meta.uid.is_some_and(|uid| uid != stat.st_uid) || meta.gid.is_some_and(|gid| gid != stat.st_gid);
    [
        (mode, "the permissions"),
        (times, "the modification time"),
        (root && owner, "the owner"),
    ]
    .into_iter()
    .filter_map(|(differs, what)| differs.then_some(what))
}

/// Sets everything on an entry that cannot be opened: a link, a device, a pipe, a socket.
pub(crate) fn apply_at(
    dir: BorrowedFd<'_>,
    name: &std::ffi::OsStr,
    meta: &Meta,
    root: bool,
    link: bool,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut check = |what, result: rustix::io::Result<()>| {
        if let Err(error) = result {
            problems.push((what, error));
        }
    };
    if root {
        let owner = (meta.uid.map(Uid::from_raw), meta.gid.map(Gid::from_raw));
        check(
            "owner",
            rustix::fs::chownat(dir, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW),
        );
    }
    if !meta.attributes.is_empty() {
        check("extended attributes", attributes_at(dir, name, meta));
    }
    if let Some(mode) = meta.mode.filter(|_| !link) {
        // Not a link, and nobody else works in this directory, so following is harmless; Linux cannot but follow.
        check(
            "permissions",
            rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty()),
        );
    }
    if let Some(times) = times(meta) {
        check(
            "times",
            rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW),
        );
    }
    problems
}

/// There is no `setxattrat`; the descriptor's name under /proc leads to the entry itself.
fn attributes_at(dir: BorrowedFd<'_>, name: &std::ffi::OsStr, meta: &Meta) -> rustix::io::Result<()> {
    use rustix::fs::OFlags;
    use std::os::fd::AsRawFd;
    let entry = rustix::fs::openat(
        dir,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", entry.as_fd().as_raw_fd()));
    meta.attributes
        .iter()
        .try_for_each(|(name, value)| rustix::fs::setxattr(&path, name.as_str(), value, XattrFlags::empty()))
}

fn remove_unlisted(fd: BorrowedFd<'_>, meta: &Meta) -> rustix::io::Result<()> {
    unlisted(fd, meta)?
        .iter()
        .try_for_each(|name| rustix::fs::fremovexattr(fd, name.as_slice()))
}

/// The names of the attributes that it has and should not have.
fn unlisted(fd: BorrowedFd<'_>, meta: &Meta) -> rustix::io::Result<Vec<Vec<u8>>> {
    // The kernel's limit for all names together.
    let mut names = [MaybeUninit::uninit(); 64 * 1024];
    let names = match rustix::fs::flistxattr(fd, &mut names[..]) {
        Ok((names, _)) => names,
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let names = names.split(|byte| *byte == 0).filter(|name| {
        let listed = || {
            meta.attributes
                .iter()
                .any(|(listed, _)| listed.as_bytes() == *name)
        };
        // Security labels come from the system's policy and not from the backup.
        !name.is_empty() && !name.starts_with(b"security.selinux") && !listed()
    });
    Ok(names.map(<[u8]>::to_vec).collect())
}

fn time(spec: Timespec) -> (i128, i128) {
    (spec.tv_sec.into(), spec.tv_nsec.into())
}

fn times(meta: &Meta) -> Option<Timestamps> {
    let spec = |(seconds, nanoseconds): (i64, i32)| Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.into(),
    };
    let modified = meta.modified?;
    Some(Timestamps {
        last_access: spec(meta.accessed.unwrap_or(modified)),
        last_modification: spec(modified),
    })
}
