//! libzfs_core, of a build without it: there is none.

use reseed_core::Context;
use reseed_core::error::StoreError;
use reseed_core::names::{DatasetName, SnapshotName};
use reseed_core::point::SnapshotRef;

/// Nobody has one.
#[derive(Debug, Clone)]
pub(crate) enum Lzc {}

impl Lzc {
    pub(crate) async fn snapshot(
        &self,
        _: &Context,
        _: &[DatasetName],
        _: &SnapshotName,
        _: &[(&str, &str)],
        _: String,
    ) -> Result<(), StoreError> {
        match *self {}
    }

    pub(crate) async fn all_there(&self, _: &Context, _: &[DatasetName]) -> bool {
        match *self {}
    }

    pub(crate) async fn destroy(&self, _: &Context, _: &[&SnapshotRef]) -> bool {
        match *self {}
    }
}
