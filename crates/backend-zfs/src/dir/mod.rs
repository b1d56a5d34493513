//! The plain-directory store: snapshots, restores and a replica for services without ZFS, on any filesystem.
//!
//! - [`DirStore`]: the [`SnapshotStore`](reseed_core::SnapshotStore). Snapshots are trees in a directory of its own (its
//!   root), anywhere; live data stays at each target's mountpoint, anywhere else
//! - [`DirSource`]: the [`RestoreSource`](reseed_core::RestoreSource) over a store's own root or a replica's
//! - [`DirReplicator`]: the [`Replicator`](reseed_core::Replicator) to a root on another disk
//!
//! # What it promises
//! - A snapshot shares inodes with other snapshots for what is unchanged, and never with live files. Where the
//!   filesystem clones files (btrfs, XFS, bcachefs, ZFS 2.2 and later) it shares their blocks; elsewhere it copies.
//! - Content, permissions, owners, extended attributes and ACLs, hard links, holes, symbolic links, fifos, devices and
//!   modification times, at any depth and under any name. Host policy (`security.selinux`, `ima`, `evm`) stays behind.
//! - Data becomes live by one rename, onto nothing or in exchange with what stands there, which is kept.
//! - A crash at any moment leaves nothing half done that looks done, and the same command again goes on.
//! - A root that is missing, or that has no record (an unmounted disk), is an error, and a target without data is then
//!   "unavailable", not "absent".
//!
//! # What it can't
//! - **A snapshot is not of one instant.** Files are copied one after another while the service writes. One that changes
//!   while it is read is read again, three times at the most; then it is kept as a mixture of states, named in the
//!   snapshot's record and told as a warning. [`StoreCaps::atomic_group`](reseed_core::store::StoreCaps::atomic_group)
//!   says that several targets have a snapshot all or none; not that it is of the same moment. For databases: a dump, a
//!   stopped service, or ZFS.
//! - **A snapshot reads every byte three times at the most**: the snapshot before, which is measured before anything is linked
//!   from it (what rotted there must not become the truth), what changed in the live tree, and the new snapshot.
//! - Sockets are left out (they belong to running processes), as are filesystems mounted below a target (with a
//!   warning), file attributes of `chattr`, and, at a target's root, `.zfs` and `lost+found`.
//! - A target that is a mount point itself can't be restored: it can't be renamed. Let the service use a directory
//!   inside of that filesystem.
//! - A target inside of another one is part of the outer one's snapshots, along with what is staged beside it. Declare
//!   directories that are not nested.
//! - An ordinary user can't give files to others or make devices: what could not be kept is told as a warning.

mod attrs;
mod create;
mod data;
mod entry;
mod errors;
mod fault;
mod index;
mod inspect;
mod job;
mod keep;
mod measure;
mod members;
mod out;
mod place;
mod promote;
mod records;
mod remove;
mod replicate;
mod root;
mod send;
mod settle;
mod source;
mod staging;
mod store;
mod sys;
mod tree;
mod walk;
mod work;

#[cfg(test)]
mod tests;

pub(crate) use out::{check as check_scope, copy_out};
pub use replicate::DirReplicator;
pub use source::DirSource;
pub use store::DirStore;
