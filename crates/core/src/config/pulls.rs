//! What is fetched from other machines. It is no service's: the data is on another machine, and only its copies are on this one.

use std::collections::{BTreeMap, BTreeSet};

use super::bandwidth::Bandwidth;
use super::declared::Flag;
use super::decode::{At, List, Maybe, Must, Named, NamedEntry, record};
use super::diagnostic::{Extra, Sink};
use super::model::Ssh;
use super::place_file::{ReplicaNames, SshFile};
use super::places::Places;
use super::values::{AtOnce, DatasetRef, HostName};
use crate::names::{DatasetName, SourceName};

record! {
    /// ZFS datasets of another machine, whose copies are fetched to this one.
    PullFile {
        /// The machine that they are on.
        ssh: Must<SshFile> = "ssh",
        /// What that machine is called in its own configuration, as `host`.
        host: Must<HostName> = "host",
        /// Its datasets. Those below one are not fetched with it.
        datasets: Must<List<DatasetRef>> = "datasets",
        /// The dataset of this machine that all copies are below.
        root: Must<DatasetRef> = "root",
        /// How the copies are named. Default: `with-pool`.
        mapping: Maybe<ReplicaNames> = "mapping",
        /// Fetch encrypted datasets as they are, so that this machine needs no key. Default: true.
        raw: Maybe<Flag> = "raw",
        /// The most that each stream may have. Needs `pv`. Default: no limit.
        bandwidth: Maybe<Bandwidth> = "bandwidth",
        /// How many datasets are fetched at once. Default: 2.
        at_once: Maybe<AtOnce> = "at_once",
    }
}

/// Datasets of another machine, and where their copies go.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Pull {
    /// How the machine is reached.
    pub ssh: Ssh,
    /// What it is called in its own configuration.
    pub host: String,
    /// At least one, none twice.
    pub datasets: Vec<DatasetName>,
    /// All copies are below it.
    pub root: DatasetName,
    /// How they are named.
    pub mapping: ReplicaNames,
    /// Encrypted datasets are fetched as they are.
    pub raw: bool,
    /// The most that each stream may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
    /// How many datasets are fetched at once, from 1 to 32.
    pub at_once: u32,
}

/// What the file has. Left out is what has errors; then the sink has them.
pub(crate) fn pulls(
    file: &Maybe<Named<SourceName, PullFile>>,
    places: &Places<'_>,
    host: Option<&str>,
    root: &At<'_>,
    sink: &mut Sink<'_>,
) -> BTreeMap<SourceName, Pull> {
    let Some((named, span)) = file.given() else {
        return BTreeMap::new();
    };
    let at = root.key("pulls", span);
    let mut all = BTreeMap::new();
    for entry in &named.entries {
        let here = at.key(entry.name.as_str(), &entry.span);
        if let Some(kind) = places.kind(entry.name.as_str()) {
            let message = format!("\"{}\" is {} already", entry.name, kind.with_article());
            let hint = "reseed remembers places by their names, so no two may be called the same";
            sink.error(here, &entry.span, message, Extra::hint(hint));
        }
        // What is left on the other machine says who left it.
        if host.is_some_and(|host| marks(host, &entry.name).is_none()) {
            let message = format!("\"{}\" and this machine's name are too long together", entry.name);
            let hint =
                "they mark what the other machine keeps for this one, as HOST.NAME, which has 64 bytes";
            sink.error(here, &entry.span, message, Extra::hint(hint));
        }
        if let Some(pull) = pull(entry, &here, sink) {
            all.insert(entry.name.clone(), pull);
        }
    }
    all
}

/// What the bookmarks and holds on the other machine are called after: two machines that fetch the same must not take away each
/// other's. None when that is too long.
pub fn marks(host: &str, name: &SourceName) -> Option<SourceName> {
    SourceName::new(format!("{host}.{name}")).ok()
}

fn pull(entry: &NamedEntry<SourceName, PullFile>, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Pull> {
    let (file, _) = entry.value.as_ref()?;
    let mapping = file.mapping.value().copied().unwrap_or(ReplicaNames::WithPool);
    let (list, span) = file.datasets.0.as_ref()?;
    let at = at.key("datasets", span);
    if list.0.is_empty() {
        let hint = "name at least one, as `zfs list` there does";
        sink.error(at, span, format!("`{at}` is empty"), Extra::hint(hint));
        return None;
    }
    let (mut seen, mut copies) = (BTreeSet::new(), BTreeMap::new());
    for (DatasetRef(dataset), span) in &list.0 {
        if !seen.insert(dataset) {
            let message = format!("{dataset} stands twice in `{at}`");
            sink.error(at, span, message, Extra::hint("remove one of them"));
            continue;
        }
        let below = dataset
            .as_str()
            .split_once('/')
            .map_or(dataset.as_str(), |(_, below)| below);
        if mapping == ReplicaNames::WithoutPool
            && let Some(other) = copies.insert(below, dataset)
        {
            let message =
                format!("{other} and {dataset} would have one copy, which leaves out the pools' names");
            let hint = "use `mapping = \"with-pool\"`";
            sink.error(at, span, message, Extra::hint(hint));
        }
    }
    Some(Pull {
        ssh: super::resolve::ssh(&file.ssh.0.as_ref()?.0)?,
        host: file.host.0.as_ref()?.0.0.clone(),
        datasets: list.0.iter().map(|(dataset, _)| dataset.0.clone()).collect(),
        root: file.root.0.as_ref()?.0.0.clone(),
        mapping,
        raw: file.raw.value().is_none_or(|flag| flag.0),
        bandwidth: file.bandwidth.value().copied(),
        at_once: file.at_once.value().map_or(2, |number| number.0),
    })
}
