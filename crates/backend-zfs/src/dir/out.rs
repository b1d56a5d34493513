//! Copying a tree that stands somewhere into staging, for sources whose points are no trees of a directory store.
//!
//! Knows nothing of where the tree comes from; nobody may write to it meanwhile.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use reseed_core::Context;
use reseed_core::clock::Clock;
use reseed_core::error::{Effect, SourceError, SourceKind};
use reseed_core::names::DatasetName;
use reseed_core::source::Scope;
use reseed_core::store::{StageState, Staging};
use rustix::io::Errno;

use super::errors::Outward as _;
use super::job::Jobs;
use super::source::{components, failed};
use super::sys::{self, During as _};
use super::tree::{self, Copying, Outcome};

/// What came of it.
#[derive(Debug)]
pub(crate) struct CopiedOut {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) reused: u64,
    pub(crate) entries: u64,
    pub(crate) warnings: Vec<String>,
}

/// Fails when a path can't be restored, whatever is there.
pub(crate) fn check(scope: &Scope) -> Result<(), SourceError> {
    components(scope).map(drop)
}

/// Copies all or a part of the tree at `from`. On what an interrupted copy left it goes on.
pub(crate) async fn copy_out(
    cx: &Context,
    clock: Arc<dyn Clock>,
    from: PathBuf,
    dataset: DatasetName,
    scope: &Scope,
    staging: &Staging,
) -> Result<CopiedOut, SourceError> {
    let only = components(scope)?;
    if staging.state == StageState::Exposed {
        let what = "an exposed snapshot is for reading, not for restoring into";
        return Err(SourceError::new(SourceKind::InvalidInput, what));
    }
    let into = staging.path.clone();
    Jobs::new(clock)
        .run(cx, move |job| {
            let tree = sys::open_dir_path(&from)
                .during(|| format!("can't open {from:?}"))
                .source(Effect::None)?;
            let into = open_staging(&into)?;
            let copying = Copying {
                job,
                dataset: &dataset,
                total: None,
                live: false,
                resume: true,
                only,
                reuse: None,
            };
            let Outcome {
                files,
                bytes,
                reused,
                entries,
                warnings,
                ..
            } = tree::copy(&copying, tree, into).map_err(failed)?;
            Ok(CopiedOut {
                files,
                bytes,
                reused,
                entries,
                warnings,
            })
        })
        .await
}

/// Opens a staging directory.
pub(super) fn open_staging(path: &Path) -> Result<std::os::fd::OwnedFd, SourceError> {
    sys::open_dir_path(path).map_err(|error| match error {
        Errno::LOOP | Errno::NOTDIR | Errno::NOENT => SourceError::new(
            SourceKind::StalePlan,
            format!("the staging directory {path:?} is not there"),
        )
        .said(error),
        error => {
            let fail = sys::os_fail(format!("can't open the staging directory {path:?}"), error);
            fail.convert(SourceKind::Target)
        }
    })
}
