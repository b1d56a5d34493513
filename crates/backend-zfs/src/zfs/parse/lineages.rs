//! Lineages: datasets with their snapshots and bookmarks, and what is right below them.

use jiff::Timestamp;
use reseed_core::names::{DatasetName, Guid, SnapshotName};

use super::super::argv::LINEAGE_COLUMNS;
use super::super::rows;
use super::super::space::Space;
use super::{BadOutput, Found, Odd, apart, bad, plain, read_name, shown, text};

/// One line of a dataset's lineage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) dataset: DatasetName,
    pub(crate) what: What,
    pub(crate) guid: Guid,
    pub(crate) createtxg: u64,
    pub(crate) creation: Timestamp,
    /// Bytes that are new since the snapshot before.
    pub(crate) written: u64,
    pub(crate) encryption: String,
    pub(crate) space: Space,
    pub(crate) resume_token: Option<String>,
    pub(crate) taken: Option<String>,
    pub(crate) unseeded: bool,
    pub(crate) digest: Option<String>,
    /// How many hold it.
    pub(crate) userrefs: u64,
    /// Whose replica it says it is, or inherits.
    pub(crate) origin: Option<String>,
    /// It is a volume's own line.
    pub(crate) volume: bool,
}

/// What a line of a lineage is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Dataset,
    Snapshot(SnapshotName),
    Bookmark(SnapshotName),
    /// A snapshot with an odd name.
    OddSnapshot,
    /// A dataset below that is called so, oddly.
    OddBelow(String),
}

/// Reads the answer to [`list_lineages`](super::super::argv::list_lineages), or none as [`snapshots`](super::snapshots) does.
pub(crate) fn lineages(stdout: &[u8]) -> Result<Option<Found<Line>>, BadOutput> {
    plain(stdout, LINEAGE_COLUMNS, lineage)
}

/// Reads the answer to [`apart`](super::super::argv::apart) about lineages, as [`snapshots_apart`](super::snapshots_apart) does.
pub(crate) fn lineages_apart(stdout: &[u8], nonce: u64) -> Result<Found<Line>, BadOutput> {
    apart(stdout, nonce, LINEAGE_COLUMNS, lineage)
}

/// A line of a lineage, and what was written to it since each of some snapshots, where that can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) line: Line,
    pub(crate) since: Vec<Option<u64>>,
}

/// Reads the answer to [`list_heads`](super::super::argv::list_heads) about so many snapshots. None as [`snapshots`](super::snapshots) does.
pub(crate) fn heads(stdout: &[u8], since: usize) -> Result<Option<Vec<Head>>, BadOutput> {
    let text = text(stdout)?;
    let Some(rows) = rows::plain(&text, LINEAGE_COLUMNS.len() + since) else {
        return Ok(None);
    };
    let mut all = Vec::with_capacity(rows.len());
    for row in &rows {
        let (line, since) = row.split_at(LINEAGE_COLUMNS.len());
        // Each was asked for by its name, so none is odd.
        if let Some(line) = lineage(line, &mut Vec::new())? {
            let since = since.iter().map(|text| text.parse().ok()).collect();
            all.push(Head { line, since });
        }
    }
    Ok(Some(all))
}

fn lineage(columns: &[&str], odd: &mut Vec<Odd>) -> Result<Option<Line>, BadOutput> {
    let line = &columns.join(" ");
    let &[
        full,
        guid,
        createtxg,
        creation,
        written,
        encryption,
        quota,
        refquota,
        reservation,
        refreservation,
        token,
        taken,
        unseeded,
        digest,
        userrefs,
        origin,
    ] = columns
    else {
        return bad(format!("a line has {} columns: {}", columns.len(), shown(line)));
    };
    let wrong = |what: &str| BadOutput(format!("{what} in {}", shown(line)));
    let Some((dataset, what)) = read_name(full, line_of(full), odd)?.or_else(|| odd_line_of(full)) else {
        return Ok(None);
    };
    let seconds = creation.parse().map_err(|_| wrong("no time of creation"))?;
    let own = |text: &str| (text != "-").then(|| text.to_owned());
    let written = match (written, &what) {
        // A bookmark has no data, and what holds a half received stream tells none.
        ("-", _) => 0,
        (number, _) => number.parse().map_err(|_| wrong("no size"))?,
    };
    let volume = what == What::Dataset && quota == "-";
    let mut space = Space::default();
    for (bytes, text) in space
        .iter_mut()
        .zip([quota, refquota, reservation, refreservation])
    {
        *bytes = match text {
            // Of a snapshot.
            "-" | "none" => 0,
            number => number.parse().map_err(|_| wrong("no quota or reservation"))?,
        };
    }
    Ok(Some(Line {
        dataset,
        what,
        guid: guid.parse().map_err(|_| wrong("no guid"))?,
        createtxg: createtxg.parse().map_err(|_| wrong("no transaction group"))?,
        creation: Timestamp::from_second(seconds).map_err(|_| wrong("no time of creation"))?,
        written,
        encryption: encryption.to_owned(),
        space,
        resume_token: own(token),
        taken: own(taken),
        unseeded: unseeded == "on",
        digest: own(digest),
        userrefs: match userrefs {
            // Only snapshots are held.
            "-" => 0,
            number => number.parse().map_err(|_| wrong("no number of holds"))?,
        },
        origin: own(origin),
        // A filesystem has a quota, if only 0.
        volume,
    }))
}

fn line_of(full: &str) -> Option<(DatasetName, What)> {
    let named = |text: &str| SnapshotName::new(text).ok();
    let (dataset, what) = match (full.split_once('@'), full.split_once('#')) {
        (Some((dataset, name)), _) => (dataset, What::Snapshot(named(name)?)),
        (None, Some((dataset, name))) => (dataset, What::Bookmark(named(name)?)),
        (None, None) => (full, What::Dataset),
    };
    Some((DatasetName::new(dataset).ok()?, what))
}

/// What of something with an odd name counts for the dataset that it is on or below: a snapshot has data, and a dataset is in the way.
fn odd_line_of(full: &str) -> Option<(DatasetName, What)> {
    let (dataset, what) = match (full.split_once('@'), full.rsplit_once('/')) {
        (Some((dataset, _)), _) => (dataset, What::OddSnapshot),
        (None, Some((above, _))) if !full.contains('#') => (above, What::OddBelow(full.to_owned())),
        _ => return None,
    };
    Some((DatasetName::new(dataset).ok()?, what))
}
