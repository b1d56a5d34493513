//! ZFS, through its own tools `zfs` and `zpool` (2.1 and later).
//!
//! - [`NativeStore`]: the [`SnapshotStore`](reseed_core::SnapshotStore) over the datasets of this machine's pools
//! - [`LocalSource`]: the [`RestoreSource`](reseed_core::RestoreSource) over a target's own snapshots
//! - [`ReplicaSource`]: the one over its copies in a second pool, here or over ssh
//! - [`SnapshotFiles`]: the one that copies files out of either's snapshots into a directory
//! - [`health::Pools`]: how the pools are, and scrubbing them
//! - [`RootDataset`]: the dataset that all of a store's or a replica's are below
//! - [`NativeReplicator`]: the [`Replicator`](reseed_core::Replicator) to a second pool, here or over ssh
//!
//! # What it promises
//! - Live data is never overwritten, rolled back or destroyed: no command of ours has `-F`, `-r`, `-R` or `rollback` in
//!   it. A dataset becomes live by one `zfs rename`, onto nothing; what stood there is renamed aside and stays.
//! - "Absent" only of an imported pool that answers; "empty" and "populated" only of a root that is this dataset's own.
//! - One `zfs` process tells the state of any number of targets, another lists the snapshots of any number.
//! - A crash at any moment leaves nothing half done that looks done, and the same command again goes on.
//!
//! With the feature `libzetta`, `NativeStore::in_process` has libzfs_core take some requests instead of a process.
//!
//! # What it can't
//! - A pool's root dataset can't be restored: it can't be renamed. Nor can a dataset that has others below it, as long as it
//!   stands there: a rename would take them along.
//! - Staging and opening a snapshot mount something, which on Linux only root may, in the system's mount namespace.

pub(crate) mod argv;
pub(crate) mod aside;
mod clear;
pub mod delegation;
mod engine;
mod error;
mod files;
mod fresh;
pub mod health;
mod inspect;
mod limit;
mod lineage;
mod list;
mod local;
mod location;
#[cfg_attr(not(feature = "libzetta"), path = "lzc_none.rs")]
mod lzc;
mod mapping;
mod mounts;
pub(crate) mod names;
mod origin;
pub(crate) mod owner;
pub(crate) mod parse;
mod points;
mod pools;
mod program;
mod progress;
mod promote;
mod prune;
pub(crate) mod record;
mod replica;
mod replicate;
mod root;
pub(crate) mod rows;
mod settings;
mod settle;
mod since;
mod snapshots;
pub(crate) mod space;
mod staging;
mod store;
mod tool;
mod transfer;
mod version;
#[cfg(test)]
mod versions;
mod watch;
pub(crate) mod work;

pub use files::SnapshotFiles;
pub use local::LocalSource;
pub use location::{Location, Ssh};
#[cfg(feature = "libzetta")]
pub use lzc::Lzc;
pub use mapping::Mapping;
pub use replica::ReplicaSource;
pub use replicate::NativeReplicator;
pub use root::RootDataset;
pub use store::{DEFAULT_PLACES, NativeStore};
pub use version::{Installed, LEAST, Version};
