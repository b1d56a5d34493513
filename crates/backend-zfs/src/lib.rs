//! Snapshots, replicas and restores on ZFS and on plain directories.
//!
//! - [`dir`]: the plain-directory store, for services without ZFS
//! - [`sanoid`]: sanoid's configuration taken over, and the real sanoid driven

pub mod dir;
pub mod sanoid;
