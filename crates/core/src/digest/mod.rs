//! The tree digest: one fingerprint for a directory tree, the same whichever source the tree came back from.
//!
//! - [`digest_tree`] takes it of a directory on disk, in parallel, with a [`DigestCache`] only of what changed.
//! - [`TreeHasher`] takes it of a described tree, for in-memory worlds.
//! - [`TreeDigest`] is the fingerprint, [`TreeSummary`] that with what was counted on the way.
//!
//! What is covered, what is not and why, and the format: `docs/digest.md`. This module knows nothing about snapshots,
//! repositories or recovery points.

mod block;
mod cache;
mod content;
mod dir;
mod error;
mod finish;
mod format;
mod large;
mod queue;
mod steps;
mod sys;
#[cfg(test)]
mod tests;
mod tree;
mod value;
mod walk;

pub use cache::{CacheWarning, DigestCache, MAX_CACHE_BYTES};
pub use error::{Cause, DigestError, Problem, Problems};
pub use format::{Attrs, FileTime, LISTING_CONTEXT, TREE_CONTEXT, Xattrs};
pub use tree::{Kind, TreeError, TreeHasher, content_hash};
pub use value::{DIGEST_PREFIX, ParseDigestError, TreeDigest};
pub use walk::{DigestOptions, Progress, TreeSummary, digest_tree};
