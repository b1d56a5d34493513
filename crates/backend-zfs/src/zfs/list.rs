//! Asking for datasets and snapshots: one process for any number of them.
//!
//! Promises that what isn't there is told apart from what can't be asked: "does not exist" is also what `zfs` says of a
//! dataset whose pool isn't imported, so that is only believed after the pool was seen.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use reseed_core::Context;
use reseed_core::error::{Common, Effect, Error};
use reseed_core::event::Event;
use reseed_core::exec::Output;
use reseed_core::names::{DatasetName, HoldTag, SnapshotName};
use reseed_core::point::Snapshot;

use super::argv::{self, Args};
use super::error::{self, Fault, FromFault};
use super::names;
use super::parse::{self, Found, Head, Hold, Line, Listed, Odd, Said, What};
use super::pools::{self, Pool};
use super::tool::{Tool, not_understood};
use super::{record, rows};

/// What is said of each dataset, in their order, in one process.
pub(crate) async fn facts<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    names: &[DatasetName],
) -> Result<Vec<Said>, Error<K>> {
    let mut all = Vec::with_capacity(names.len());
    for part in names.chunks(tool.names_at_once()) {
        all.extend(facts_of(tool, cx, part).await?);
    }
    Ok(all)
}

async fn facts_of<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    names: &[DatasetName],
) -> Result<Vec<Said>, Error<K>> {
    let what = "can't ask zfs about the datasets";
    let nonce = rows::nonce();
    let output = tool
        .ask(cx, argv::get_facts(names, nonce))
        .await
        .map_err(|error| error.into_error(what, Effect::None))?;
    let stdout = output
        .whole_stdout()
        .map_err(|error| error.into_error(what, Effect::None))?;
    let words = output.stderr.text();
    let mut all = parse::facts(names, nonce, stdout, &words).map_err(|bad| not_understood(what, bad))?;
    // Nothing was answered at all (no module, no permission): its words are the reason, for each.
    let reason = words.trim();
    if !reason.is_empty() {
        for said in &mut all {
            if let Said::Unclear(why) = said
                && parse::not_opened(&words).is_empty()
            {
                *why = reason.lines().take(3).collect::<Vec<_>>().join(" / ");
            }
        }
    }
    Ok(all)
}

/// What is said of one dataset.
pub(crate) async fn fact<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    name: &DatasetName,
) -> Result<Said, Error<K>> {
    let mut all = facts(tool, cx, std::slice::from_ref(name)).await?;
    Ok(all
        .pop()
        .unwrap_or_else(|| Said::Unclear("nothing was said".to_owned())))
}

/// The state of a pool: the kernel's word, or the tool's.
pub(crate) async fn pool(tool: &Tool, cx: &Context, name: &str) -> Pool {
    if let Some(Pool::Usable) = pools::by_kernel(tool, name) {
        return Pool::Usable;
    }
    let mut all = pools::by_tool(tool, cx, [name]).await;
    all.remove(name)
        .unwrap_or_else(|| Pool::Unknown(format!("nothing is known of pool {name}")))
}

/// Fails unless the pools of these datasets can be worked with.
pub(crate) async fn pools_usable<'a, K: FromFault>(
    tool: &Tool,
    cx: &Context,
    datasets: impl IntoIterator<Item = &'a DatasetName>,
) -> Result<(), Error<K>> {
    let names: BTreeSet<&str> = datasets.into_iter().map(DatasetName::pool).collect();
    for name in names {
        match pool(tool, cx, name).await {
            Pool::Usable => {}
            Pool::Unavailable(why) | Pool::Unknown(why) => {
                return Err(error::said(why, Fault::Pool, "", Effect::None));
            }
        }
    }
    Ok(())
}

/// Every snapshot of exactly these datasets, as the tool lists them. Those that aren't there have none.
pub(crate) async fn snapshots<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    datasets: &[DatasetName],
) -> Result<Vec<Listed>, Error<K>> {
    let mut all = Vec::new();
    let wanted: BTreeSet<&DatasetName> = datasets.iter().collect();
    let wanted: Vec<&DatasetName> = wanted.into_iter().collect();
    for part in wanted.chunks(tool.names_at_once()) {
        all.extend(snapshots_of(tool, cx, part).await?);
    }
    Ok(all)
}

async fn snapshots_of<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    wanted: &[&DatasetName],
) -> Result<Vec<Listed>, Error<K>> {
    let args = argv::list_snapshots(wanted.iter().copied());
    let names: BTreeSet<&str> = wanted.iter().map(|name| name.as_str()).collect();
    let stdout = answered(tool, cx, args, &names).await?;
    let read = parse::snapshots(&stdout).map_err(|bad| not_understood(SNAPSHOTS, bad))?;
    let mut found = match read {
        Some(found) => believed(cx, found),
        None => {
            let nonce = rows::nonce();
            let args = argv::apart(
                argv::SNAPSHOT_COLUMNS,
                Some(argv::SNAPSHOTS),
                names.iter().copied(),
                nonce,
            );
            let stdout = answered(tool, cx, args, &names).await?;
            let read = parse::snapshots_apart(&stdout, nonce);
            believed(cx, read.map_err(|bad| not_understood(SNAPSHOTS, bad))?)
        }
    };
    found.retain(|snapshot| names.contains(snapshot.dataset.as_str()));
    Ok(found)
}

/// Those of these snapshots that are there, by name. Their guids are for the caller to compare.
pub(crate) async fn these<'a, K: FromFault>(
    tool: &Tool,
    cx: &Context,
    snapshots: impl IntoIterator<Item = (&'a DatasetName, &'a SnapshotName)>,
) -> Result<Vec<Listed>, Error<K>> {
    let wanted: BTreeSet<(&DatasetName, &SnapshotName)> = snapshots.into_iter().collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = wanted.iter().map(|(d, s)| format!("{d}@{s}")).collect();
    let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let args = argv::list_these(wanted.iter().copied());
    let stdout = answered(tool, cx, args, &names).await?;
    if let Some(found) = parse::snapshots(&stdout).map_err(|bad| not_understood(SNAPSHOTS, bad))? {
        return Ok(believed(cx, found));
    }
    let nonce = rows::nonce();
    let args = argv::apart(argv::SNAPSHOT_COLUMNS, None, names.iter().copied(), nonce);
    let stdout = answered(tool, cx, args, &names).await?;
    let read = parse::snapshots_apart(&stdout, nonce);
    Ok(believed(cx, read.map_err(|bad| not_understood(SNAPSHOTS, bad))?))
}

const SNAPSHOTS: &str = "can't list snapshots";
const LINEAGES: &str = "can't list snapshots and bookmarks";

/// What could be read. What is odd in it is told.
fn believed<T>(cx: &Context, (found, odd): Found<T>) -> Vec<T> {
    const TOLD: usize = 3;
    for one in odd.iter().take(TOLD) {
        let more = odd.len().saturating_sub(TOLD);
        let more = if more > 0 {
            format!(" (and {more} more)")
        } else {
            String::new()
        };
        let (message, hint) = match one {
            Odd::Property(name, property) => (
                format!("{property} of {name} holds a tab or a newline, and is not believed{more}"),
                format!("take it off: `zfs inherit {property} '{name}'`"),
            ),
            Odd::Name(name) => (
                format!("{name:?} has a name that tools take for something else, and is left out{more}"),
                format!(
                    "give it one without a `-` or a space at an end, and shorter, here and on its replicas: `zfs rename '{name}' …`"
                ),
            ),
        };
        cx.emit(Event::Warning {
            service: None,
            message,
            hint: Some(hint),
        });
    }
    found
}

/// Runs a listing of `wanted`, and accepts of its failures only that some of them aren't there.
async fn answered<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    args: Args,
    wanted: &BTreeSet<&str>,
) -> Result<Vec<u8>, Error<K>> {
    let what = SNAPSHOTS;
    let pools: BTreeSet<&str> = wanted
        .iter()
        .filter_map(|name| name.split(['/', '@']).next())
        .collect();
    let output = tool.ask_at_length(cx, args, pools.into_iter()).await;
    let output = output.map_err(|error| error.into_error(what, Effect::None))?;
    if !output.exit.success() {
        let gone = only_missing(tool, &output, wanted)?;
        let datasets: Vec<DatasetName> = gone
            .iter()
            .filter_map(|name| DatasetName::new(name.split('@').next().unwrap_or(name)).ok())
            .collect();
        pools_usable(tool, cx, &datasets).await?;
    }
    let stdout = output
        .whole_stdout()
        .map_err(|error| error.into_error(what, Effect::None))?;
    Ok(stdout.to_vec())
}

/// The names that weren't there, when that is all that went wrong. On the way from another host anybody may add words: sshd's banner, the
/// shell there, ssh itself. What `zfs` says begins in ways of its own.
fn only_missing<K: FromFault>(
    tool: &Tool,
    output: &Output,
    wanted: &BTreeSet<&str>,
) -> Result<Vec<String>, Error<K>> {
    let words = output.stderr.text();
    let said = parse::not_opened(&words);
    let gone = |name: &str, why: &str| wanted.contains(name) && why == "dataset does not exist";
    let counts = |line: &&str| match tool.is_local() {
        true => !line.trim().is_empty(),
        false => parse::is_of_zfs(line),
    };
    let all = output.exit.code() == Some(1)
        && output.stderr.whole().is_some()
        && !said.is_empty()
        && said.iter().all(|(name, why)| gone(name, why))
        && words.lines().filter(counts).count() == said.len();
    if !all {
        return Err(tool.failed("can't list snapshots", output));
    }
    Ok(said.keys().map(|name| (*name).to_owned()).collect())
}

/// The lineages of exactly these datasets, and a line of each dataset right below one. Those that aren't there have no lines.
pub(crate) async fn lineages<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    datasets: &[DatasetName],
) -> Result<Vec<Line>, Error<K>> {
    let mut all = Vec::new();
    let wanted: BTreeSet<&DatasetName> = datasets.iter().collect();
    let wanted: Vec<&DatasetName> = wanted.into_iter().collect();
    for part in wanted.chunks(tool.names_at_once()) {
        all.extend(lineages_of(tool, cx, part).await?);
    }
    Ok(all)
}

async fn lineages_of<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    wanted: &[&DatasetName],
) -> Result<Vec<Line>, Error<K>> {
    let names: BTreeSet<&str> = wanted.iter().map(|name| name.as_str()).collect();
    let stdout = answered(tool, cx, argv::list_lineages(wanted.iter().copied()), &names).await?;
    let read = parse::lineages(&stdout).map_err(|bad| not_understood(LINEAGES, bad))?;
    let mut found = match read {
        Some(found) => believed(cx, found),
        None => {
            let nonce = rows::nonce();
            let args = argv::apart(
                argv::LINEAGE_COLUMNS,
                Some(argv::LINEAGES),
                names.iter().copied(),
                nonce,
            );
            let stdout = answered(tool, cx, args, &names).await?;
            let read = parse::lineages_apart(&stdout, nonce);
            believed(cx, read.map_err(|bad| not_understood(LINEAGES, bad))?)
        }
    };
    found.retain(|line| names.contains(line.dataset.as_str()) || line.what == What::Dataset);
    Ok(found)
}

/// Of each dataset its own line and that of one snapshot, where both are there and nothing was written to it since; and the line of `root`.
/// Opening a dataset that isn't mounted is what takes ZFS long, and a listing of all of its snapshots opens it for each of them.
pub(crate) async fn heads<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    root: &DatasetName,
    pairs: &BTreeMap<&DatasetName, &SnapshotName>,
) -> Result<Vec<Line>, Error<K>> {
    let since: BTreeSet<&SnapshotName> = pairs.values().copied().collect();
    let since: Vec<&SnapshotName> = since.into_iter().collect();
    let mut all = Vec::with_capacity(2 * pairs.len() + 1);
    let pairs: Vec<_> = pairs.iter().collect();
    for part in pairs.chunks(tool.names_at_once() / 2) {
        let full: Vec<String> = part
            .iter()
            .map(|(dataset, name)| format!("{dataset}@{name}"))
            .collect();
        let mut names: BTreeSet<&str> = part.iter().map(|(dataset, _)| dataset.as_str()).collect();
        names.extend(full.iter().map(String::as_str));
        names.insert(root.as_str());
        let args = argv::list_heads(names.iter().copied(), &since);
        let stdout = answered(tool, cx, args, &names).await?;
        let read = parse::heads(&stdout, since.len()).map_err(|bad| not_understood(LINEAGES, bad))?;
        for Head { line, since: written } in read.unwrap_or_default() {
            let pair = part.iter().find(|(dataset, _)| ***dataset == line.dataset);
            let untouched = |name: &SnapshotName| {
                let at = since.iter().position(|one| *one == name);
                at.and_then(|at| written[at]) == Some(0) && line.written == 0
            };
            let counts = match (&line.what, pair) {
                (What::Dataset, Some((_, name))) => untouched(name),
                (What::Dataset, None) => line.dataset == *root,
                (What::Snapshot(name), Some((_, wanted))) => name == **wanted,
                _ => false,
            };
            if counts {
                all.push(line);
            }
        }
    }
    Ok(all)
}

/// What is answered about a dataset and those right below it; nothing when it isn't there.
async fn below<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    dataset: &DatasetName,
    args: Args,
    what: &str,
) -> Result<Vec<u8>, Error<K>> {
    let output = tool
        .ask(cx, args)
        .await
        .map_err(|error| error.into_error(what, Effect::None))?;
    if !output.exit.success() {
        only_missing::<K>(tool, &output, &BTreeSet::from([dataset.as_str()]))?;
        pools_usable(tool, cx, [dataset]).await?;
        return Ok(Vec::new());
    }
    let stdout = output
        .whole_stdout()
        .map_err(|error| error.into_error(what, Effect::None))?;
    Ok(stdout.to_vec())
}

/// The datasets right below one.
pub(crate) async fn children<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    dataset: &DatasetName,
) -> Result<Vec<DatasetName>, Error<K>> {
    Ok(believed(cx, named_below(tool, cx, dataset).await?))
}

/// The first of them, whatever it is called.
pub(crate) async fn first_child<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    dataset: &DatasetName,
) -> Result<Option<String>, Error<K>> {
    let (names, odd) = named_below(tool, cx, dataset).await?;
    let odd = odd.into_iter().map(|one| match one {
        Odd::Name(name) | Odd::Property(name, _) => name,
    });
    Ok(names.iter().map(DatasetName::to_string).chain(odd).next())
}

/// The datasets right below one, and what is oddly called there.
async fn named_below<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    dataset: &DatasetName,
) -> Result<Found<DatasetName>, Error<K>> {
    let what = format!("can't list what is below {dataset}");
    let stdout = below(tool, cx, dataset, argv::list_children(dataset), &what).await?;
    let (mut names, odd) = parse::names(&stdout).map_err(|bad| not_understood(what, bad))?;
    names.retain(|name| name != dataset);
    Ok((names, odd))
}

/// A dataset and the datasets right below it, each with what it says, or inherits, of whose replica it is.
pub(crate) async fn origins<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    dataset: &DatasetName,
) -> Result<Vec<(DatasetName, Option<String>)>, Error<K>> {
    let what = format!("can't list whose the replicas below {dataset} are");
    let nonce = rows::nonce();
    let stdout = below(tool, cx, dataset, argv::list_origins(dataset, nonce), &what).await?;
    let read = parse::origins(&stdout, nonce);
    Ok(believed(cx, read.map_err(|bad| not_understood(what, bad))?))
}

/// What was set aside for a dataset.
pub(crate) async fn asides<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    dataset: &DatasetName,
) -> Result<Vec<DatasetName>, Error<K>> {
    let Some(parent) = names::parent(dataset) else {
        return Ok(Vec::new());
    };
    let mut kept = children(tool, cx, &parent).await?;
    kept.retain(|name| names::is_aside(dataset, name.as_str()));
    Ok(kept)
}

/// Who holds these, by full name. Asked only of those that somebody does hold.
pub(crate) async fn holds<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    snapshots: &[Listed],
) -> Result<HashMap<String, Vec<HoldTag>>, Error<K>> {
    let held: Vec<_> = snapshots
        .iter()
        .filter(|snapshot| snapshot.userrefs > 0)
        .map(|one| (&one.dataset, &one.name))
        .collect();
    let mut all: HashMap<String, Vec<HoldTag>> = HashMap::new();
    for (full, tag) in holders(tool, cx, &held).await? {
        all.entry(full).or_default().push(tag);
    }
    for tags in all.values_mut() {
        tags.sort();
    }
    Ok(all)
}

/// Who holds these. Asks nothing when there are none.
pub(crate) async fn holders<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    snapshots: &[(&DatasetName, &SnapshotName)],
) -> Result<Vec<Hold>, Error<K>> {
    let mut all = Vec::new();
    let mut left: Vec<_> = snapshots.chunks(tool.names_at_once()).collect();
    while let Some(part) = left.pop() {
        let what = "can't list the holds of snapshots";
        let args = argv::holds(part.iter().copied());
        let read = |stdout: &[u8]| match part {
            [(dataset, name)] => parse::holds_of(&format!("{dataset}@{name}"), stdout).map(Some),
            _ => parse::holds(stdout),
        };
        match tool.read::<K, _>(cx, args, what, read).await? {
            Some(found) => all.extend(found),
            // Whose odd tag it is, is found by halves.
            None => {
                let (one, other) = part.split_at(part.len() / 2);
                left.extend([one, other]);
            }
        }
    }
    Ok(all)
}

/// Snapshots as the store answers them, in the order of `datasets` and oldest first within each.
pub(crate) fn in_order(
    datasets: &[DatasetName],
    mut found: Vec<Listed>,
    holds: &HashMap<String, Vec<HoldTag>>,
) -> Vec<Snapshot> {
    found.sort_by_key(|snapshot| snapshot.createtxg);
    let mut of: HashMap<&DatasetName, Vec<Snapshot>> = HashMap::new();
    for one in &found {
        let full = format!("{}@{}", one.dataset, one.name);
        of.entry(&one.dataset)
            .or_default()
            .push(snapshot(one, holds.get(&full).cloned().unwrap_or_default()));
    }
    datasets
        .iter()
        .flat_map(|dataset| of.remove(dataset).unwrap_or_default())
        .collect()
}

/// A listed snapshot with what our own properties say of it.
pub(crate) fn snapshot(one: &Listed, holds: Vec<HoldTag>) -> Snapshot {
    Snapshot {
        dataset: one.dataset.clone(),
        name: one.name.clone(),
        guid: one.guid,
        taken_at: record::taken_at(one),
        fingerprint: record::fingerprint(one),
        bytes: Some(one.referenced),
        holds,
        unseeded: one.unseeded,
    }
}

/// An error for something that isn't there.
pub(crate) fn not_found<K: FromFault>(what: impl Into<String>) -> Error<K> {
    Error::new(K::from_common(Common::NotFound), what)
}

#[cfg(test)]
mod tests;
