//! Requests as argument vectors for `zfs` and `zpool`. Pure: nothing is run here, and nothing is known about what the
//! tools answer ([`parse`](super::parse)).
//!
//! Promises that no vector made here can destroy more than it names: `destroy` takes exact names and never `-r`, `-R`,
//! `-d` or `-f` (the channel programs are in [`program`](super::program)); `receive` never takes `-F`; there is no `rollback` at all. Names come in as checked types, so none of
//! them can be an option, a pattern or a list. A test holds every vector against that.

mod ask;
mod streams;

use std::ffi::OsString;

use reseed_core::names::{DatasetName, HoldTag, SnapshotName};

pub(crate) use ask::*;
pub(crate) use streams::*;

/// Local user property: who brought the dataset into the state it is in, bound to its guid.
pub(crate) const MARKER: &str = "reseed:marker";
/// Local user property: this dataset was staged by reseed, for what, and from which point; bound to its guid.
pub(crate) const STAGE: &str = "reseed:stage";
/// Local user property of a replica: of which host's dataset it is ([`origin`](super::origin)).
pub(crate) const ORIGIN: &str = "reseed:origin";
/// Local user property of a replica: the quotas and reservations that its dataset had ([`space`](super::space)).
pub(crate) const SETTINGS: &str = "reseed:settings";
/// Local user property of a replica: the guid of the newest snapshot that was on its way when last something was sent
/// ([`brake`](super::replicate)).
pub(crate) const SENT: &str = "reseed:sent";
/// On a snapshot: when it was taken by the caller's clock.
pub(crate) const TAKEN: &str = "reseed:taken";
/// On a snapshot: `on` when the service was unseeded then.
pub(crate) const UNSEEDED: &str = "reseed:unseeded";
/// On a snapshot: its tree's fingerprint, bound to its guid.
pub(crate) const DIGEST: &str = "reseed:digest";

/// How the tags of what is held while it is sent begin; the replica's name follows.
pub(crate) const SENDING: &str = "reseed-send.";

/// How the tags of what is held as the base of the next replication begin; the replica's name follows.
pub(crate) const BASE: &str = "reseed-base.";

/// Snapshots that one command holds or lets go. Each is a transaction group by itself, and a command has its time.
pub(crate) const HELD_AT_ONCE: usize = 100;

/// Arguments after the program.
pub(crate) type Args = Vec<OsString>;

fn args<const N: usize>(fixed: [&str; N]) -> Args {
    fixed.into_iter().map(OsString::from).collect()
}

fn names<'a>(out: &mut Args, names: impl IntoIterator<Item = &'a DatasetName>) {
    out.extend(names.into_iter().map(|name| name.as_str().into()));
}

fn full(dataset: &DatasetName, snapshot: &SnapshotName) -> String {
    format!("{dataset}@{snapshot}")
}

/// `key=value` for `-o` and `zfs set`.
fn assign(key: &str, value: &str) -> OsString {
    format!("{key}={value}").into()
}

/// Holds snapshots, one after the other: what fails keeps none of the others.
pub(crate) fn hold<'a>(
    tag: &HoldTag,
    snapshots: impl IntoIterator<Item = (&'a DatasetName, &'a SnapshotName)>,
) -> Args {
    let mut out = args(["hold", tag.as_str()]);
    out.extend(snapshots.into_iter().map(|(d, s)| OsString::from(full(d, s))));
    out
}

/// Releases snapshots, one after the other: what fails keeps none of the others.
pub(crate) fn release<'a>(
    tag: &HoldTag,
    snapshots: impl IntoIterator<Item = (&'a DatasetName, &'a SnapshotName)>,
) -> Args {
    let mut out = args(["release", tag.as_str()]);
    out.extend(snapshots.into_iter().map(|(d, s)| OsString::from(full(d, s))));
    out
}

/// One snapshot of each of these datasets: within a pool one transaction group, all or none.
pub(crate) fn snapshot<'a>(
    datasets: impl IntoIterator<Item = &'a DatasetName>,
    name: &SnapshotName,
    properties: &[(&str, &str)],
) -> Args {
    let mut out = args(["snapshot"]);
    for (key, value) in properties {
        out.push("-o".into());
        out.push(assign(key, value));
    }
    out.extend(datasets.into_iter().map(|d| OsString::from(full(d, name))));
    out
}

/// Sets properties of a dataset.
pub(crate) fn set(dataset: &DatasetName, properties: &[(&str, &str)]) -> Args {
    let mut out = args(["set"]);
    out.extend(properties.iter().map(|(key, value)| assign(key, value)));
    out.push(dataset.as_str().into());
    out
}

/// Sets properties of a snapshot.
pub(crate) fn set_on_snapshot(
    dataset: &DatasetName,
    name: &SnapshotName,
    properties: &[(&str, &str)],
) -> Args {
    let mut out = args(["set"]);
    out.extend(properties.iter().map(|(key, value)| assign(key, value)));
    out.push(full(dataset, name).into());
    out
}

/// Takes a dataset's own value of a property away.
pub(crate) fn inherit(dataset: &DatasetName, property: &str) -> Args {
    let mut out = args(["inherit", property]);
    out.push(dataset.as_str().into());
    out
}

/// Removes exactly these snapshots of one dataset. A held one, one with a clone or a mounted one stays, and the others
/// go; the exit code doesn't tell which, so the caller lists again.
pub(crate) fn destroy_snapshots<'a>(
    dataset: &DatasetName,
    snapshots: impl IntoIterator<Item = &'a SnapshotName>,
) -> Args {
    let list: Vec<&str> = snapshots.into_iter().map(SnapshotName::as_str).collect();
    let mut out = args(["destroy"]);
    out.push(format!("{dataset}@{}", list.join(",")).into());
    out
}

/// Removes one dataset that has no snapshots and no children; `zfs` itself refuses otherwise.
pub(crate) fn destroy_dataset(dataset: &DatasetName) -> Args {
    args(["destroy", dataset.as_str()])
}

/// Makes a filesystem. With `canmount=noauto` or `off` among the properties it isn't mounted.
pub(crate) fn create(dataset: &DatasetName, properties: &[(&str, &str)]) -> Args {
    let mut out = args(["create"]);
    for (key, value) in properties {
        out.push("-o".into());
        out.push(assign(key, value));
    }
    out.push(dataset.as_str().into());
    out
}

/// Makes a writable clone of a snapshot.
pub(crate) fn clone(
    origin: (&DatasetName, &SnapshotName),
    dataset: &DatasetName,
    properties: &[(&str, &str)],
) -> Args {
    let mut out = args(["clone"]);
    for (key, value) in properties {
        out.push("-o".into());
        out.push(assign(key, value));
    }
    out.push(full(origin.0, origin.1).into());
    out.push(dataset.as_str().into());
    out
}

/// Turns clone and origin round: the clone gets the snapshots up to its origin, and what it was cloned of becomes the
/// clone.
pub(crate) fn promote(dataset: &DatasetName) -> Args {
    args(["promote", dataset.as_str()])
}

/// Renames a filesystem without mounting anything anew.
pub(crate) fn rename(from: &DatasetName, to: &DatasetName) -> Args {
    args(["rename", "-u", from.as_str(), to.as_str()])
}

/// Renames a volume: that is never mounted, and `zfs` refuses `-u` of it ("operation not applicable to datasets of this type").
pub(crate) fn rename_volume(from: &DatasetName, to: &DatasetName) -> Args {
    args(["rename", from.as_str(), to.as_str()])
}

/// Mounts a filesystem where its properties say.
pub(crate) fn mount(dataset: &DatasetName) -> Args {
    args(["mount", dataset.as_str()])
}

/// Unmounts a filesystem, unless somebody is using it.
pub(crate) fn unmount(dataset: &DatasetName) -> Args {
    args(["unmount", dataset.as_str()])
}

/// What a bookmark is made of, by its name within the dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BookmarkOf {
    Snapshot(SnapshotName),
    /// A copy of another one (OpenZFS 2.0 and later).
    Bookmark(SnapshotName),
}

impl BookmarkOf {
    pub(crate) fn full(&self, dataset: &DatasetName) -> String {
        match self {
            Self::Snapshot(name) => full(dataset, name),
            Self::Bookmark(name) => format!("{dataset}#{name}"),
        }
    }
}

/// Keeps a snapshot usable as the base of an increment after it is gone.
pub(crate) fn bookmark(dataset: &DatasetName, of: &BookmarkOf, bookmark: &SnapshotName) -> Args {
    let mut out = args(["bookmark"]);
    out.push(of.full(dataset).into());
    out.push(format!("{dataset}#{bookmark}").into());
    out
}

/// The channel program that [`bookmark_all`] runs, given on standard input. It ends at the first that fails, and
/// what it made until then stays.
pub(crate) const BOOKMARK_ALL: &str = "\
args = ...
list = args[\"argv\"]
for at = 1, #list, 2 do
  code = zfs.sync.bookmark(list[at], list[at + 1])
  if code ~= 0 and code ~= EEXIST then
    error(list[at] .. \": \" .. code)
  end
end
";

/// Bookmarks of snapshots, or of other bookmarks, of one pool, in one transaction group. Only root may.
pub(crate) fn bookmark_all<'a>(
    pool: &str,
    wanted: impl IntoIterator<Item = (&'a DatasetName, &'a BookmarkOf, &'a SnapshotName)>,
) -> Args {
    let mut out = args(["program", pool, "-"]);
    for (dataset, of, bookmark) in wanted {
        out.push(of.full(dataset).into());
        out.push(format!("{dataset}#{bookmark}").into());
    }
    out
}

/// Removes one bookmark.
pub(crate) fn destroy_bookmark(dataset: &DatasetName, bookmark: &SnapshotName) -> Args {
    let mut out = args(["destroy"]);
    out.push(format!("{dataset}#{bookmark}").into());
    out
}

#[cfg(test)]
pub(crate) mod tests;
