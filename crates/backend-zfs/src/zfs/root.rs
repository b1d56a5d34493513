//! [`RootDataset`]: the dataset that all of a store's or a replica's are below; looked for, and made where it is missing.
//!
//! Promises to say "it is not there" only of a pool that is imported and answers, and to make nothing but filesystems that
//! are never mounted. A pool is not made.

use reseed_core::Context;
use reseed_core::error::{Effect, StoreError, StoreKind};
use reseed_core::names::{DatasetName, Guid};

use super::location::Location;
use super::parse::Said;
use super::store::NativeStore;
use super::tool::Tool;
use super::version::{Installed, LEAST};
use super::{argv, list, staging};

/// The dataset that all of a store's or a replica's are below: looked for, and made where it is missing.
#[derive(Debug, Clone)]
pub struct RootDataset {
    tool: Tool,
    root: DatasetName,
}

impl RootDataset {
    /// One at a location; the store lends its runner.
    pub fn new(store: &NativeStore, location: Location, root: DatasetName) -> Self {
        let tool = store.tool.at(location);
        Self { tool, root }
    }

    /// Its guid; none when its pool is there and it is not.
    ///
    /// # Errors
    /// `PoolUnavailable` when the pool is not imported or doesn't answer; `ToolMissing` without OpenZFS, or with one that
    /// is too old.
    pub async fn check(&self, cx: &Context) -> Result<Option<Guid>, StoreError> {
        let installed: Installed = self.tool.version::<StoreKind>(cx).await?;
        if installed.effective() < LEAST {
            let what = format!("OpenZFS {} is older than {LEAST}", installed.effective());
            let hint = "upgrade OpenZFS, tools and kernel module";
            return Err(StoreError::new(StoreKind::ToolMissing, what).hint(hint));
        }
        // A suspended pool still tells its properties, so it is asked for first.
        list::pools_usable::<StoreKind>(&self.tool, cx, [&self.root])
            .await
            .map_err(|error| match error.kind() {
                StoreKind::PoolUnavailable => error.hint(format!("`zpool import {}`", self.root.pool())),
                _ => error,
            })?;
        match list::fact::<StoreKind>(&self.tool, cx, &self.root).await? {
            Said::Facts(facts) => Ok(Some(facts.guid)),
            Said::NotThere => Ok(None),
            Said::Unclear(why) => {
                let what = format!("whether {} is there can't be told", self.root);
                Err(StoreError::new(StoreKind::Io, what).said(why))
            }
        }
    }

    /// Makes it, and what is missing above it, never mounted; then its guid.
    ///
    /// # Errors
    /// As [`check`](Self::check), and when it can't be made.
    pub async fn init(&self, cx: &Context) -> Result<Guid, StoreError> {
        if let Some(guid) = self.check(cx).await? {
            return Ok(guid);
        }
        staging::make_parents(&self.tool, cx, &self.root).await?;
        let what = format!("can't make {}", self.root);
        let args = argv::create(&self.root, &[("canmount", "off")]);
        match self
            .tool
            .change::<StoreKind>(cx, args, what, Effect::Partial)
            .await
        {
            // Another run was quicker.
            Err(error) if error.kind() == StoreKind::AlreadyExists => {}
            made => drop(made?),
        }
        self.check(cx)
            .await?
            .ok_or_else(|| StoreError::new(StoreKind::Io, format!("{} was made and is not there", self.root)))
    }
}
