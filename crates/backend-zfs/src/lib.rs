//! Snapshots, replicas and restores on ZFS and on plain directories.
//!
//! - [`datasets`]: declared datasets and their properties, compared and applied
//! - [`dir`]: the plain-directory store, for services without ZFS
//! - [`sanoid`]: sanoid's configuration taken over, and the real sanoid driven
//! - [`syncoid`]: the real syncoid driven
//! - [`zfs`]: ZFS, through its own tools

mod carry;
pub mod datasets;
pub mod dir;
pub mod sanoid;
pub mod syncoid;
pub mod zfs;

pub use carry::{Imported, LeftOut};
