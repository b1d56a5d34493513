//! Where the tests put their directories.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "all of it is a test"
)]

use std::path::Path;

use rustix::fs::XattrFlags;
use tempfile::TempDir;

/// A temporary directory: in memory where that keeps attributes and access control lists, because a repository syncs every file
/// that it writes, and some disks take a tenth of a second for each.
pub fn temporary() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .ok()
        .filter(|dir| keeps(dir.path(), "user.probe", b"") && keeps(dir.path(), DEFAULT_ACL, &acl()))
        .unwrap_or_else(|| tempfile::tempdir().unwrap())
}

fn keeps(dir: &Path, name: &str, value: &[u8]) -> bool {
    let set = rustix::fs::setxattr(dir, name, value, XattrFlags::empty());
    set.is_ok() && rustix::fs::removexattr(dir, name).is_ok()
}

/// What a directory hands on to what is made in it.
pub const DEFAULT_ACL: &str = "system.posix_acl_default";
/// Who may do what with a file.
pub const ACCESS_ACL: &str = "system.posix_acl_access";

/// `u::rwx,u:4242:rwx,g::r-x,m::rwx,o::---`, as the kernel keeps it (`linux/posix_acl_xattr.h`).
pub fn acl() -> Vec<u8> {
    let nobody = u32::MAX;
    let entries: [(u16, u16, u32); 5] = [
        (0x01, 7, nobody),
        (0x02, 7, 4242),
        (0x04, 5, nobody),
        (0x10, 7, nobody),
        (0x20, 0, nobody),
    ];
    let mut all = 2_u32.to_le_bytes().to_vec();
    for (tag, may, id) in entries {
        all.extend(tag.to_le_bytes());
        all.extend(may.to_le_bytes());
        all.extend(id.to_le_bytes());
    }
    all
}

/// Gives a file or directory an access control list.
pub fn set_acl(path: &Path, name: &str) {
    rustix::fs::setxattr(path, name, &acl(), XattrFlags::empty()).unwrap();
}
