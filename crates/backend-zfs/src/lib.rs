//! Snapshots, replicas and restores on ZFS and on plain directories.
//!
//! - [`dir`]: the plain-directory store, for services without ZFS

pub mod dir;
