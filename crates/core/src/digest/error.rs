//! Why there is no digest. A digest with a gap is not a digest, so anything that could not be read is an error here.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// How many paths an error names; the rest is counted.
pub(super) const MAX_NAMED: usize = 20;

/// One thing that stood in the way.
#[derive(Debug)]
pub struct Problem {
    /// Where, relative to the root (empty for the root itself).
    pub path: PathBuf,
    /// What happened.
    pub cause: Cause,
}

/// What stood in the way.
#[derive(Debug)]
pub enum Cause {
    /// It was there and could not be read.
    Unreadable(io::Error),
    /// It was changed, replaced or removed while it was being read.
    Changed,
}

/// The problems of a failed walk: the first few by name, all of those seen by number.
#[derive(Debug, Default)]
pub struct Problems {
    /// The first ones, sorted by path.
    pub named: Vec<Problem>,
    /// How many were seen. The walk stops reading contents at the first and stops altogether after a few, so there may be more.
    pub seen: u64,
}

/// Why there is no digest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// The root is missing, not a directory, a symlink, or unreadable.
    #[error("cannot take the digest of {path:?}: {source}")]
    Root {
        /// The root as given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something could not be read. Trying again changes nothing until that is mended.
    #[error("cannot take the digest of {root:?}: {problems}")]
    Unreadable {
        /// The root as given.
        root: PathBuf,
        /// What and why.
        problems: Problems,
    },
    /// Something changed under the walk; over a snapshot or a quiet tree it succeeds.
    #[error("cannot take the digest of {root:?}, it is being changed: {problems}")]
    Changed {
        /// The root as given.
        root: PathBuf,
        /// What.
        problems: Problems,
    },
    /// The caller asked to stop.
    #[error("the digest of {root:?} was cancelled")]
    Cancelled {
        /// The root as given.
        root: PathBuf,
    },
}

impl DigestError {
    /// Whether the same call may succeed later without anybody mending anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Changed { .. } | Self::Cancelled { .. })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Unreadable(err) => write!(f, "{:?}: {err}", self.path),
            Cause::Changed => write!(f, "{:?}: changed while it was read", self.path),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.named.iter().enumerate() {
            write!(f, "{}{problem}", if i == 0 { "" } else { "; " })?;
        }
        let rest = self.seen - (self.named.len() as u64).min(self.seen);
        if rest > 0 {
            write!(f, "; and {rest} more")?;
        }
        Ok(())
    }
}

impl Cause {
    /// What an I/O error below the root means: what was listed a moment ago and is gone now has changed.
    pub(super) fn from_io(err: io::Error) -> Self {
        use rustix::io::Errno;
        match Errno::from_io_error(&err) {
            Some(
                Errno::NOENT
                | Errno::NOTDIR
                | Errno::LOOP
                | Errno::STALE
                | Errno::NXIO
                | Errno::NODATA
                | Errno::RANGE,
            ) => Self::Changed,
            _ => Self::Unreadable(err),
        }
    }
}
