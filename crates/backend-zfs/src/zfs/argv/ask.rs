//! Questions: nothing is changed by any of these.

use std::ffi::OsString;

use reseed_core::names::{DatasetName, SnapshotName};

use super::super::rows;
use super::{Args, DIGEST, MARKER, ORIGIN, SETTINGS, STAGE, TAKEN, UNSEEDED, args, full, names};

/// The properties that [`get_facts`] asks for, in this order.
pub(crate) const FACTS: &[&str] = &[
    "type",
    "guid",
    "mountpoint",
    "canmount",
    "origin",
    "receive_resume_token",
    MARKER,
    STAGE,
];

/// The columns that [`list_snapshots`] asks for, in this order.
///
/// `creation` and `userrefs` make a listing 2.5 to 3.2 times slower (TRAPS); the age and the holds of a snapshot are
/// part of what the store answers, so they are asked for once, for all datasets together.
pub(crate) const SNAPSHOT_COLUMNS: &[&str] = &[
    "name",
    "guid",
    "createtxg",
    "creation",
    "userrefs",
    "referenced",
    TAKEN,
    UNSEEDED,
    DIGEST,
];

/// Several properties of exactly these datasets, with their sources, and what ends the answer about each.
pub(crate) fn get_facts<'a>(datasets: impl IntoIterator<Item = &'a DatasetName>, nonce: u64) -> Args {
    let mut out = args(["get", "-Hp", "-o", "name,property,value,source"]);
    out.push(format!("{},{}", FACTS.join(","), rows::end(nonce)).into());
    names(&mut out, datasets);
    out
}

/// The snapshots of exactly these datasets.
pub(crate) fn list_snapshots<'a>(datasets: impl IntoIterator<Item = &'a DatasetName>) -> Args {
    let mut out = args(["list", "-Hp", "-t", SNAPSHOTS, "-d", "1", "-o"]);
    out.push(rows::columns(SNAPSHOT_COLUMNS).into());
    names(&mut out, datasets);
    out
}

/// Exactly these snapshots.
pub(crate) fn list_these<'a>(
    snapshots: impl IntoIterator<Item = (&'a DatasetName, &'a SnapshotName)>,
) -> Args {
    let mut out = args(["list", "-Hp", "-t", "snapshot", "-o"]);
    out.push(rows::columns(SNAPSHOT_COLUMNS).into());
    out.extend(snapshots.into_iter().map(|(d, s)| OsString::from(full(d, s))));
    out
}

/// What a listing of these columns would tell of `what`, in a form that no property's value can forge ([`rows`]): `below` is the
/// types of what is listed with each, none where each itself is meant.
pub(crate) fn apart<'a>(
    columns: &[&str],
    below: Option<&str>,
    what: impl IntoIterator<Item = &'a str>,
    nonce: u64,
) -> Args {
    let mut out = args(["get", "-Hp"]);
    if let Some(types) = below {
        out.extend(["-d", "1", "-t", types].map(OsString::from));
    }
    out.extend(args(["-o", "name,property,value"]));
    out.push(format!("{},{}", rows::asked(columns).join(","), rows::end(nonce)).into());
    out.extend(what.into_iter().map(OsString::from));
    out
}

/// The datasets right below one, and itself.
pub(crate) fn list_children(dataset: &DatasetName) -> Args {
    let mut out = args(["list", "-Hp", "-t", "filesystem,volume", "-d", "1", "-o", "name"]);
    out.push(dataset.as_str().into());
    out
}

/// The same, each with what it says (or inherits) of whose replica it is, and what ends the answer about it.
pub(crate) fn list_origins(dataset: &DatasetName, nonce: u64) -> Args {
    apart(
        &["name", ORIGIN],
        Some("filesystem,volume"),
        [dataset.as_str()],
        nonce,
    )
}

/// What these datasets say, or inherit, of whose replicas they are, where that comes from, and what ends the answer about each.
pub(crate) fn get_origins<'a>(datasets: impl IntoIterator<Item = &'a DatasetName>, nonce: u64) -> Args {
    let mut out = args(["get", "-Hp", "-o", "name,property,value,source"]);
    out.push(format!("{ORIGIN},{}", rows::end(nonce)).into());
    names(&mut out, datasets);
    out
}

/// Who holds these snapshots. Without `-p`, which tools before 2.3 don't know; the time isn't used.
pub(crate) fn holds<'a>(snapshots: impl IntoIterator<Item = (&'a DatasetName, &'a SnapshotName)>) -> Args {
    let mut out = args(["holds", "-H"]);
    out.extend(snapshots.into_iter().map(|(d, s)| OsString::from(full(d, s))));
    out
}

/// How much was written to a dataset since one of its snapshots.
pub(crate) fn get_written(dataset: &DatasetName, snapshot: &SnapshotName) -> Args {
    let mut out = args(["get", "-Hp", "-o", "value"]);
    out.push(format!("written@{snapshot}").into());
    out.push(dataset.as_str().into());
    out
}

/// The types that a listing of snapshots asks for.
pub(crate) const SNAPSHOTS: &str = "snapshot";
/// The types that a listing of lineages asks for.
pub(crate) const LINEAGES: &str = "filesystem,volume,snapshot,bookmark";

/// The columns that [`list_lineages`] asks for, in this order.
pub(crate) const LINEAGE_COLUMNS: &[&str] = &[
    "name",
    "guid",
    "createtxg",
    "creation",
    "written",
    "encryption",
    "quota",
    "refquota",
    "reservation",
    "refreservation",
    "receive_resume_token",
    TAKEN,
    UNSEEDED,
    DIGEST,
    // Costs nothing here: `creation` and `written` have asked for all of a snapshot's properties already.
    "userrefs",
    ORIGIN,
];

/// Exactly these datasets with their snapshots and bookmarks, and the datasets right below without theirs.
pub(crate) fn list_lineages<'a>(datasets: impl IntoIterator<Item = &'a DatasetName>) -> Args {
    let mut out = args(["list", "-Hp", "-t", LINEAGES, "-d", "1", "-o"]);
    out.push(rows::columns(LINEAGE_COLUMNS).into());
    names(&mut out, datasets);
    out
}

/// Exactly these datasets and snapshots, each as in a lineage, and behind that what was written to it since each of the snapshots that are
/// called `since`.
pub(crate) fn list_heads<'a>(what: impl IntoIterator<Item = &'a str>, since: &[&SnapshotName]) -> Args {
    let since: Vec<String> = since.iter().map(|name| format!("written@{name}")).collect();
    let columns: Vec<&str> = LINEAGE_COLUMNS
        .iter()
        .copied()
        .chain(since.iter().map(String::as_str))
        .collect();
    let mut out = args(["list", "-Hp", "-t", "filesystem,volume,snapshot", "-o"]);
    out.push(rows::columns(&columns).into());
    out.extend(what.into_iter().map(OsString::from));
    out
}

/// How a replica's data comes back: whether it is encrypted, and with which quotas and reservations.
pub(crate) fn get_way_back(replica: &DatasetName) -> Args {
    let mut out = args(["get", "-Hp", "-o", "value,source"]);
    out.push(format!("encryption,{SETTINGS}").into());
    out.push(replica.as_str().into());
    out
}

/// Which dataset's key a dataset is encrypted with; `-` when it isn't.
pub(crate) fn get_encryption_root(dataset: &DatasetName) -> Args {
    args(["get", "-Hp", "-o", "value", "encryptionroot", dataset.as_str()])
}

/// The same, and whether that key is loaded.
pub(crate) fn get_key(dataset: &DatasetName) -> Args {
    let both = "encryptionroot,keystatus";
    args(["get", "-Hp", "-o", "value", both, dataset.as_str()])
}

/// What is delegated on a dataset and on those above it.
pub(crate) fn allowed(dataset: &DatasetName) -> Args {
    args(["allow", dataset.as_str()])
}

/// How a dataset was made, in this order.
pub(crate) fn get_at_creation(dataset: &DatasetName) -> Args {
    let asked = super::super::fresh::AT_CREATION.join(",");
    args(["get", "-Hp", "-o", "property,value", &asked, dataset.as_str()])
}

/// What is set on a dataset itself, or came with it.
pub(crate) fn get_own(dataset: &DatasetName) -> Args {
    args([
        "get",
        "-Hp",
        "-s",
        "local,received",
        "-o",
        "name,property,value,source",
        "all",
        dataset.as_str(),
    ])
}

/// A dataset's own value of a property; nothing when it has none.
pub(crate) fn get_local(dataset: &DatasetName, property: &str) -> Args {
    args([
        "get",
        "-Hp",
        "-s",
        "local",
        "-o",
        "value",
        property,
        dataset.as_str(),
    ])
}

/// Whether a dataset's encryption key is loaded.
pub(crate) fn get_keystatus(dataset: &DatasetName) -> Args {
    args(["get", "-Hp", "-o", "value", "keystatus", dataset.as_str()])
}

/// Every imported pool with its health.
pub(crate) fn list_pools() -> Args {
    args(["list", "-Hp", "-o", "name,health"])
}

/// The versions of the tool and of the kernel module.
pub(crate) fn version() -> Args {
    args(["version"])
}
