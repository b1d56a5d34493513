//! The core of reseed: everything that decides, and nothing that mounts or talks to a tool.
//!
//! - Values: [`names`], [`point`], [`error`], [`event`]
//! - Contracts: [`SnapshotStore`], [`Replicator`], [`OffsiteRepo`], [`OffsitePruner`], [`WalArchiver`], [`RestoreSource`]
//! - What comes in from outside: [`clock`], [`entropy`], [`context`]
//! - Running other programs: [`exec`]
//! - The one [`retry`] loop; which points to keep: [`retention`]
//! - What people declare: [`config`]
//! - What outlives a run: the [`journal`]
//! - The tree [`digest`]

pub mod clock;
pub mod config;
pub mod context;
pub mod digest;
pub mod engine;
pub mod entropy;
pub mod error;
pub mod event;
pub mod exec;
pub mod journal;
pub mod known;
pub mod layout;
pub mod lock;
pub mod names;
pub mod offsite;
pub mod ops;
pub mod ownership;
pub mod point;
pub mod preseed;
pub mod pruner;
pub mod replicate;
pub mod retention;
pub mod retry;
pub mod service;
pub mod source;
pub mod store;
pub mod verify;
pub mod wal;

pub use context::Context;
pub use engine::Engine;
pub use journal::Journal;
pub use offsite::OffsiteRepo;
pub use pruner::OffsitePruner;
pub use replicate::Replicator;
pub use service::Service;
pub use source::RestoreSource;
pub use store::SnapshotStore;
pub use verify::Verifier;
pub use wal::WalArchiver;
