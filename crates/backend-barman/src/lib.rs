//! PostgreSQL base backups and WAL archives in the object layout of barman-cloud.
//!
//! What is here so far is what both a native archiver and drivers of `barman-cloud-*` stand on, and it is pure: names of
//! objects ([`layout`]), the arithmetic of WAL segments ([`segment`]), the metadata of a base backup ([`info`]) and how
//! each of them is refused ([`error`]). Nothing here reads a clock, a file or a network yet; no type implements
//! [`WalArchiver`](reseed_core::WalArchiver) yet.

pub mod error;
pub mod info;
pub mod layout;
mod pyliteral;
pub mod segment;

pub use error::FormatError;
pub use info::BackupInfo;
pub use layout::Layout;
pub use segment::{Lsn, Segment, SegmentSize};
