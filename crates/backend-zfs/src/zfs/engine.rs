//! The requests that libzfs_core may take, where a store was given it, and `zfs` otherwise.
//!
//! Promises the same outcome and the same errors from either. libzfs_core is asked only of this machine's pools, and only
//! of one that the kernel says works at that moment: a call in a suspended pool never ends, and while a child that hangs
//! can be left behind, a process with such a call can't end either. All others, and what libzfs_core can't tell for
//! certain, are the tool's.

use std::collections::{BTreeMap, BTreeSet};

use reseed_core::Context;
use reseed_core::error::{Effect, StoreError, StoreKind};
use reseed_core::names::{DatasetName, SnapshotName};
use reseed_core::point::SnapshotRef;

use super::argv;
use super::lzc::Lzc;
use super::pools::{self, Pool};
use super::tool::Tool;

/// Snapshots in one call: it is one transaction group, and others wait for it.
const AT_ONCE: usize = 400;

fn usable<'a>(tool: &'a Tool, datasets: impl IntoIterator<Item = &'a DatasetName>) -> Option<&'a Lzc> {
    let lzc = tool.lzc()?;
    let names: BTreeSet<&str> = datasets.into_iter().map(DatasetName::pool).collect();
    let works = |name: &&str| pools::by_kernel(tool, name) == Some(Pool::Usable);
    names.iter().all(works).then_some(lzc)
}

/// Takes one snapshot of each of these datasets of one pool, with these properties, all or none.
pub(crate) async fn snapshot(
    tool: &Tool,
    cx: &Context,
    datasets: &[DatasetName],
    name: &SnapshotName,
    properties: &[(&str, &str)],
    what: String,
) -> Result<(), StoreError> {
    if let Some(lzc) = usable(tool, datasets) {
        return lzc.snapshot(cx, datasets, name, properties, what).await;
    }
    let args = argv::snapshot(datasets, name, properties);
    tool.change::<StoreKind>(cx, args, what, Effect::Unknown)
        .await
        .map(drop)
}

/// Whether all of these are there for certain. After a "no" the tool has to be asked: libzfs_core answers so also of what
/// it can't look at.
pub(crate) async fn surely_there(tool: &Tool, cx: &Context, names: &[DatasetName]) -> bool {
    match usable(tool, names) {
        Some(lzc) => lzc.all_there(cx, names).await,
        None => false,
    }
}

/// Removes together, across datasets, what can be; says which. The others are for the tool to remove, or to say why not.
pub(crate) async fn destroy_together(
    tool: &Tool,
    cx: &Context,
    snapshots: &BTreeSet<&SnapshotRef>,
) -> BTreeSet<SnapshotRef> {
    let mut by_pool: BTreeMap<&str, Vec<&SnapshotRef>> = BTreeMap::new();
    for one in snapshots {
        by_pool.entry(one.dataset.pool()).or_default().push(one);
    }
    let mut gone = BTreeSet::new();
    for part in by_pool.values().flat_map(|all| all.chunks(AT_ONCE)) {
        if let Some(lzc) = usable(tool, part.iter().map(|one| &one.dataset))
            && lzc.destroy(cx, part).await
        {
            gone.extend(part.iter().map(|one| (*one).clone()));
        }
    }
    gone
}
