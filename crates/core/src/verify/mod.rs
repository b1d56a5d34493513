//! [`Verifier`]: how the chain finds out whether a staged tree is what it should be, before anyone can see it.
//!
//! The chain compares; the verifier only looks. It is passed in, so that the same chain runs over real files and over
//! the test kit's world.

mod scratch;
mod system;
mod unfinished;

use std::fmt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::error::OpError;
use crate::names::ServiceName;
use crate::point::Fingerprint;

pub use scratch::{ScratchDir, ScratchPlace};
pub use system::SystemVerifier;

/// Looks at trees, without writing to them, and makes room for those that are only to be looked at.
#[async_trait]
pub trait Verifier: Send + Sync + fmt::Debug {
    /// Measures the tree below a directory.
    ///
    /// # Errors
    /// When anything in it can't be read: a digest with a gap is not a digest.
    async fn measure(&self, cx: &Context, root: &Path) -> Result<Fingerprint, OpError>;

    /// Makes an empty directory to restore into, with what is missing above it; an empty one that is there will do.
    ///
    /// # Errors
    /// `AlreadyExists` when anything is in it or something else is there.
    async fn make_scratch(&self, cx: &Context, path: &Path) -> Result<(), OpError>;

    /// The same for a restore that is kept. Where an operator says so one that the same service's restore began to fill, and didn't finish,
    /// will do too.
    ///
    /// # Errors
    /// As `make_scratch`.
    async fn begin(
        &self,
        cx: &Context,
        path: &Path,
        _service: &ServiceName,
        _resume: bool,
    ) -> Result<(), OpError> {
        self.make_scratch(cx, path).await
    }

    /// What was begun there is finished, or brought nothing: from now on nothing is written over it.
    ///
    /// # Errors
    /// When that can't be written down.
    async fn finish(&self, _cx: &Context, _path: &Path) -> Result<(), OpError> {
        Ok(())
    }

    /// Runs one of a service's own checks on the tree.
    ///
    /// # Errors
    /// `Failed` when the check says no; another kind when it could not be run.
    async fn validate(&self, cx: &Context, root: &Path, validator: &Validator) -> Result<(), OpError>;
}

/// A service's own check of a restored tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Validator {
    /// `PRAGMA integrity_check` on an SQLite database; on a copy of it when it has a write-ahead log.
    Sqlite {
        /// The database, relative to the dataset's root.
        path: PathBuf,
    },
    /// The path must be there.
    Exists {
        /// Relative to the dataset's root.
        path: PathBuf,
    },
    /// A program that exits 0 when all is well. It runs in the staged tree's root.
    Command {
        /// The argument vector; no shell.
        argv: Vec<String>,
    },
}

impl fmt::Display for Validator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { path } => write!(f, "sqlite {}", path.display()),
            Self::Exists { path } => write!(f, "exists {}", path.display()),
            Self::Command { argv } => write!(f, "command {}", argv.join(" ")),
        }
    }
}
