//! sanoid: its configuration read and taken over, and the tool itself driven.
//!
//! Promises: sanoid.conf is read as sanoid 2.1 to 2.3 read it ([`conf`], [`resolve`]); what has no counterpart here is
//! named, not dropped in silence ([`import`]); the real sanoid runs on a configuration and state of its own, never on
//! /etc/sanoid ([`driver`]). Which snapshots go is decided by sanoid there, and by [`reseed_core::retention`] elsewhere;
//! a test against the real tool shows that the two agree. Knows nothing of replicas: sanoid is never given one.

pub mod conf;
pub mod driver;
pub mod import;
mod ini;
mod keys;
pub mod parse;
pub mod render;
pub mod resolve;

pub use conf::{Parsed, SanoidConf};
pub use driver::{PruneReport, SanoidDriver, TakeReport};
pub use render::{Rendered, Unrenderable};
pub use resolve::Managed;
