//! Snapshots, replicas and restores on ZFS and on plain directories.
//!
//! - [`dir`]: the plain-directory store, for services without ZFS
//! - [`zfs`]: ZFS, through its own tools

pub mod dir;
pub mod zfs;
