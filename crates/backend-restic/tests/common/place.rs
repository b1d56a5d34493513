//! Where the tests put their directories.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "all of it is a test")]

use rustix::fs::XattrFlags;
use tempfile::TempDir;

/// A temporary directory: in memory where that keeps attributes, because a repository syncs every file that it
/// writes, and some disks take a tenth of a second for each.
pub fn temporary() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .ok()
        .filter(|dir| rustix::fs::setxattr(dir.path(), "user.probe", b"", XattrFlags::empty()).is_ok())
        .filter(|dir| rustix::fs::removexattr(dir.path(), "user.probe").is_ok())
        .unwrap_or_else(|| tempfile::tempdir().unwrap())
}
