//! Off-site repositories in restic's format: the embedded engine.
//!
//! - [`repo`]: where a repository is, creating and opening it; [`error`]: what can go wrong, with hints
//! - [`lock`]: restic-compatible locks
//! - [`snapshots`], [`backup`], [`check`], [`restore`]: what can be done with an open repository
//! - [`child`]: the restore worker, a process of its own

pub mod backup;
pub mod check;
mod cipher;
pub mod error;
pub mod lock;
mod mode;
mod os_path;
mod pack;
pub mod progress;
pub mod repo;
pub mod restore;
pub mod secret;
pub mod snapshots;
mod store;
