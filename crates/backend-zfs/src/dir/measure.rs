//! The fingerprint of a tree in a store.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use reseed_core::digest::{DigestError, DigestOptions, digest_tree};
use reseed_core::error::Common;
use reseed_core::point::Fingerprint;

use super::job::Job;
use super::sys::{Done, Fail};

/// Measures a tree that nobody writes to. Reads all of it: a cache believes the times of files, and a snapshot's files
/// get a new ctime with every snapshot that links to them.
pub(super) fn measure(job: &Job, tree: &Path) -> Done<Fingerprint> {
    job.check()?;
    let stop = AtomicBool::new(false);
    let progress = |_| stop.store(job.cx.cancel.is_cancelled(), Ordering::Relaxed);
    let options = DigestOptions {
        cancel: Some(&stop),
        progress: Some(&progress),
        ..DigestOptions::default()
    };
    match digest_tree(tree, options) {
        Ok(found) => Ok(Fingerprint {
            digest: found.digest,
            files: found.files,
            bytes: found.bytes,
        }),
        Err(DigestError::Cancelled { .. }) => Err(Fail::new(Common::Cancelled, "the run was cancelled")),
        Err(error @ DigestError::Changed { .. }) => Err(Fail::new(
            Common::Corrupt,
            format!("the snapshot at {tree:?} is being changed by somebody"),
        )
        .said(error)),
        Err(error) => Err(Fail::new(Common::Io, format!("can't measure {tree:?}")).said(error)),
    }
}
