//! Off-site repositories in restic's format: the restic program, driven, and an engine of our own.
//!
//! - [`Restic`]: the program behind the core's traits, see [`restic`]
//! - [`Embedded`]: the embedded engine behind them, [`OffsiteRepo`](reseed_core::OffsiteRepo) and
//!   [`RestoreSource`](reseed_core::RestoreSource)
//! - [`repo`]: where a repository is, creating and opening it; [`error`]: what can go wrong, with hints
//! - [`s3`]: a repository in S3: its place, and the key to it
//! - [`lock`]: restic-compatible locks
//! - [`snapshots`], [`backup`], [`check`], [`restore`]: what can be done with a repository
//! - [`worker`] and [`child`]: a restore in a process of its own, from both sides of the pipe
//!
//! Both read and write the same repositories and each other's recovery points. The embedded engine never forgets or
//! prunes: that is the program's.

mod affected;
pub mod backup;
pub mod check;
pub mod child;
mod cipher;
mod embedded;
pub mod error;
mod huge_pages;
pub mod keys;
mod listing;
mod local;
pub mod lock;
mod meanwhile;
mod mode;
mod offsite_repo;
mod os_path;
mod pack;
mod place;
pub mod points;
pub mod progress;
pub mod repo;
pub mod restic;
pub mod restore;
mod restore_source;
pub mod s3;
pub mod secret;
pub mod snapshots;
mod staging;
mod store;
mod threads;
mod top;
mod words;
pub mod worker;

pub use embedded::{Embedded, PasswordFrom};
pub use huge_pages::HugePages;
pub use restic::Restic;
