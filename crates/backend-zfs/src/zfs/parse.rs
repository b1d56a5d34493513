//! What `zfs` and `zpool` answer, as types. Pure; knows the `-Hp` forms of 2.1 to 2.3, which are the same.
//!
//! Promises that an answer that is cut off, garbled or about something else is an error and never a shorter answer, and
//! that hostile property values (tabs, newlines, lines that look like the tool's, bytes that are no text) spoil at most the
//! dataset or the snapshot that they are on ([`rows`](super::rows)).

mod origins;

use std::borrow::Cow;
use std::collections::HashMap;

use jiff::Timestamp;
use reseed_core::names::{DatasetName, Guid, HoldTag, SnapshotName};

use super::argv::{FACTS, LINEAGE_COLUMNS, ORIGIN, SNAPSHOT_COLUMNS};
use super::rows;
use super::space::Space;
pub(crate) use origins::{origins, own_origins};

/// Why an answer could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadOutput(pub(crate) String);

pub(crate) fn bad<T>(why: impl Into<String>) -> Result<T, BadOutput> {
    Err(BadOutput(why.into()))
}

/// The beginning of a text, for an error.
pub(crate) fn shown(text: &str) -> String {
    let cut: String = text.chars().take(120).collect();
    format!("{cut:?}")
}

/// The text of an answer, which must end with a whole line. Names and numbers are ASCII; only values can hold bytes that are
/// no text, and are not what they were then.
pub(crate) fn text(output: &[u8]) -> Result<Cow<'_, str>, BadOutput> {
    let text = String::from_utf8_lossy(output);
    if !text.is_empty() && !text.ends_with('\n') {
        return bad(format!(
            "it ends in the middle of a line: {}",
            shown(text.rsplit('\n').next().unwrap_or(""))
        ));
    }
    Ok(text)
}

/// Whose value a property has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The dataset's own.
    Local,
    /// It came with a received stream.
    Received,
    /// Another dataset's, a default, or the tool's own.
    Other,
}

/// A property's value with its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) text: String,
    pub(crate) origin: Origin,
}

/// What is known of one dataset. Missing properties are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) guid: Guid,
    pub(crate) is_filesystem: bool,
    pub(crate) mountpoint: Value,
    pub(crate) canmount: Value,
    /// `dataset@snapshot` that it is a clone of.
    pub(crate) clone_of: Option<String>,
    /// It holds a half received stream.
    pub(crate) resume_token: Option<String>,
    /// The dataset's own value.
    pub(crate) marker: Option<String>,
    /// The dataset's own value.
    pub(crate) stage: Option<String>,
}

/// What was said of one of the datasets that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    Facts(Box<Facts>),
    /// The tool's word that it doesn't exist (or that its pool isn't imported: it doesn't tell).
    NotThere,
    /// Something else, or nothing at all.
    Unclear(String),
}

/// Reads the answer to [`get_facts`](super::argv::get_facts): one entry per dataset, in their order.
pub(crate) fn facts(
    wanted: &[DatasetName],
    nonce: u64,
    stdout: &[u8],
    stderr: &str,
) -> Result<Vec<Said>, BadOutput> {
    let stdout = text(stdout)?;
    let known: HashMap<&str, usize> = wanted
        .iter()
        .enumerate()
        .map(|(at, name)| (name.as_str(), at))
        .collect();
    let mut found: Vec<HashMap<&str, Vec<String>>> = vec![HashMap::new(); wanted.len()];
    for block in rows::blocks(&stdout, nonce)? {
        let Some(at) = known.get(block.name) else {
            return bad(format!("it is about something else: {}", shown(block.name)));
        };
        let mut open: Option<&str> = None;
        for line in &block.lines {
            let begins = line
                .strip_prefix(block.name)
                .and_then(|rest| rest.strip_prefix('\t'))
                .and_then(|rest| rest.split_once('\t'))
                .and_then(|(property, rest)| Some((*FACTS.iter().find(|fact| **fact == property)?, rest)));
            match (begins, open) {
                (Some((property, rest)), _) => {
                    found[*at].entry(property).or_default().push(rest.to_owned());
                    open = Some(property);
                }
                // A value with a newline in it goes on.
                (None, Some(property)) => {
                    if let Some(value) = found[*at].get_mut(property).and_then(|values| values.last_mut()) {
                        value.push('\n');
                        value.push_str(line);
                    }
                }
                (None, None) => return bad(format!("it begins with something else: {}", shown(line))),
            }
        }
    }
    let missing = not_opened(stderr);
    let answers = wanted.iter().zip(&found).map(|(name, values)| {
        if values.is_empty() {
            return match missing.get(name.as_str()) {
                Some(why) if *why == "dataset does not exist" || why.starts_with("no such pool") => {
                    Said::NotThere
                }
                Some(why) => Said::Unclear((*why).to_owned()),
                None => Said::Unclear("the tool said nothing about it".to_owned()),
            };
        }
        one(name, values).map_or_else(|bad| Said::Unclear(bad.0), |facts| Said::Facts(Box::new(facts)))
    });
    Ok(answers.collect())
}

fn one(name: &DatasetName, values: &HashMap<&str, Vec<String>>) -> Result<Facts, BadOutput> {
    let get = |property: &str| -> Result<Value, BadOutput> {
        let [raw] = values.get(property).map(Vec::as_slice).unwrap_or_default() else {
            return bad(format!("{name} has no single value of {property}"));
        };
        let Some((text, source)) = raw.rsplit_once('\t') else {
            return bad(format!("{property} of {name} has no source: {}", shown(raw)));
        };
        let origin = match source {
            "local" => Origin::Local,
            "received" => Origin::Received,
            "-" | "default" | "none" | "temporary" => Origin::Other,
            source if source.starts_with("inherited from ") => Origin::Other,
            source => {
                return bad(format!(
                    "{property} of {name} has an unknown source: {}",
                    shown(source)
                ));
            }
        };
        Ok(Value {
            text: text.to_owned(),
            origin,
        })
    };
    let own = |property| get(property).map(|value| (value.origin == Origin::Local).then_some(value.text));
    let some = |property| get(property).map(|value| (value.text != "-").then_some(value.text));
    let guid = get("guid")?.text;
    Ok(Facts {
        guid: guid
            .parse()
            .map_err(|_| BadOutput(format!("the guid of {name} is {}", shown(&guid))))?,
        is_filesystem: match get("type")?.text.as_str() {
            "filesystem" => true,
            "volume" => false,
            other => return bad(format!("{name} is a {}", shown(other))),
        },
        mountpoint: get("mountpoint")?,
        canmount: get("canmount")?,
        clone_of: some("origin")?,
        resume_token: some("receive_resume_token")?,
        marker: own(super::argv::MARKER)?,
        stage: own(super::argv::STAGE)?,
    })
}

/// What `zfs` said of the names that it couldn't open: `cannot open 'tank/x': dataset does not exist`.
pub(crate) fn not_opened(stderr: &str) -> HashMap<&str, &str> {
    let line = |line: &'_ str| -> Option<(usize, usize)> {
        let rest = line.strip_prefix("cannot open '")?;
        // Names hold no quote.
        let end = rest.find("': ")?;
        Some((line.len() - rest.len(), end))
    };
    stderr
        .lines()
        .filter_map(|text| {
            let (from, len) = line(text)?;
            Some((&text[from..from + len], &text[from + len + 3..]))
        })
        .collect()
}

/// Whether a line on standard error is one that `zfs` may have written when it failed, by how those of libzfs begin.
pub(crate) fn is_of_zfs(line: &str) -> bool {
    let line = line.trim_start();
    [
        "cannot ",
        "internal error",
        "out of memory",
        "libzfs",
        "zfs: ",
        "The ZFS modules",
    ]
    .iter()
    .any(|begins| line.starts_with(begins))
}

/// A snapshot as the listing tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) dataset: DatasetName,
    pub(crate) name: SnapshotName,
    pub(crate) guid: Guid,
    pub(crate) createtxg: u64,
    pub(crate) creation: Timestamp,
    pub(crate) userrefs: u64,
    pub(crate) referenced: u64,
    pub(crate) taken: Option<String>,
    pub(crate) unseeded: bool,
    pub(crate) digest: Option<String>,
}

/// Reads the answer to [`list_snapshots`](super::argv::list_snapshots) or `list_these`. None when what somebody has written into
/// a property may have made some of its lines: then [`snapshots_apart`] tells.
pub(crate) fn snapshots(stdout: &[u8]) -> Result<Option<Vec<Listed>>, BadOutput> {
    let text = text(stdout)?;
    let rows = rows::plain(&text, SNAPSHOT_COLUMNS.len());
    rows.map(|rows| rows.iter().map(|row| listed(row)).collect())
        .transpose()
}

/// Reads the answer to [`apart`](super::argv::apart) about snapshots. An odd property is none; each is named in the second
/// list.
pub(crate) fn snapshots_apart(stdout: &[u8], nonce: u64) -> Result<(Vec<Listed>, Vec<Odd>), BadOutput> {
    apart(stdout, nonce, SNAPSHOT_COLUMNS, listed)
}

/// A property that could not be read: of what, and which.
pub(crate) type Odd = (String, &'static str);

fn apart<T>(
    stdout: &[u8],
    nonce: u64,
    columns: &[&'static str],
    read: impl Fn(&[&str]) -> Result<T, BadOutput>,
) -> Result<(Vec<T>, Vec<Odd>), BadOutput> {
    let text = text(stdout)?;
    let (mut all, mut odd) = (Vec::new(), Vec::new());
    for block in rows::blocks(&text, nonce)? {
        let asked = rows::asked(columns);
        let values = rows::values(&block, &asked)?;
        let of = |column: &str| {
            asked
                .iter()
                .position(|one| *one == column)
                .and_then(|at| values[at])
        };
        let mut row = vec![block.name];
        for column in &columns[1..] {
            let value = of(column);
            // No value at all would make it anybody's.
            let odd_one = if *column == ORIGIN { origins::ODD } else { "-" };
            row.push(value.unwrap_or(odd_one));
            if value.is_none() {
                odd.push((block.name.to_owned(), *column));
            }
        }
        all.push(read(&row)?);
    }
    Ok((all, odd))
}

fn listed(columns: &[&str]) -> Result<Listed, BadOutput> {
    let line = &columns.join(" ");
    let &[
        full,
        guid,
        createtxg,
        creation,
        userrefs,
        referenced,
        taken,
        unseeded,
        digest,
    ] = columns
    else {
        return bad(format!("a line has {} columns: {}", columns.len(), shown(line)));
    };
    let wrong = |what: &str| BadOutput(format!("{what} in {}", shown(line)));
    let number = |text: &str, what| text.parse::<u64>().map_err(|_| wrong(what));
    let (dataset, name) = full.split_once('@').ok_or_else(|| wrong("no snapshot"))?;
    let seconds = creation.parse().map_err(|_| wrong("no time of creation"))?;
    let own = |text: &str| (text != "-").then(|| text.to_owned());
    Ok(Listed {
        dataset: DatasetName::new(dataset).map_err(|_| wrong("no dataset's name"))?,
        name: SnapshotName::new(name).map_err(|_| wrong("no snapshot's name"))?,
        guid: guid.parse().map_err(|_| wrong("no guid"))?,
        createtxg: number(createtxg, "no transaction group")?,
        creation: Timestamp::from_second(seconds).map_err(|_| wrong("no time of creation"))?,
        userrefs: number(userrefs, "no number of holds")?,
        referenced: number(referenced, "no size")?,
        taken: own(taken),
        unseeded: unseeded == "on",
        digest: own(digest),
    })
}

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
}

/// What a line of a lineage is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Dataset,
    Snapshot(SnapshotName),
    Bookmark(SnapshotName),
}

/// Reads the answer to [`list_lineages`](super::argv::list_lineages), or none as [`snapshots`] does.
pub(crate) fn lineages(stdout: &[u8]) -> Result<Option<Vec<Line>>, BadOutput> {
    let text = text(stdout)?;
    let rows = rows::plain(&text, LINEAGE_COLUMNS.len());
    rows.map(|rows| rows.iter().map(|row| lineage(row)).collect())
        .transpose()
}

/// Reads the answer to [`apart`](super::argv::apart) about lineages, as [`snapshots_apart`] does.
pub(crate) fn lineages_apart(stdout: &[u8], nonce: u64) -> Result<(Vec<Line>, Vec<Odd>), BadOutput> {
    apart(stdout, nonce, LINEAGE_COLUMNS, lineage)
}

/// A line of a lineage, and what was written to it since each of some snapshots, where that can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) line: Line,
    pub(crate) since: Vec<Option<u64>>,
}

/// Reads the answer to [`list_heads`](super::argv::list_heads) about so many snapshots. None as [`snapshots`] does.
pub(crate) fn heads(stdout: &[u8], since: usize) -> Result<Option<Vec<Head>>, BadOutput> {
    let text = text(stdout)?;
    let Some(rows) = rows::plain(&text, LINEAGE_COLUMNS.len() + since) else {
        return Ok(None);
    };
    let read = |row: &Vec<&str>| {
        let (line, since) = row.split_at(LINEAGE_COLUMNS.len());
        Ok(Head {
            line: lineage(line)?,
            since: since.iter().map(|text| text.parse().ok()).collect(),
        })
    };
    rows.iter().map(read).collect::<Result<_, _>>().map(Some)
}

fn lineage(columns: &[&str]) -> Result<Line, BadOutput> {
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
    let named = |text: &str| SnapshotName::new(text).map_err(|_| wrong("no name"));
    let (dataset, what) = match (full.split_once('@'), full.split_once('#')) {
        (Some((dataset, name)), _) => (dataset, What::Snapshot(named(name)?)),
        (None, Some((dataset, name))) => (dataset, What::Bookmark(named(name)?)),
        (None, None) => (full, What::Dataset),
    };
    let seconds = creation.parse().map_err(|_| wrong("no time of creation"))?;
    let own = |text: &str| (text != "-").then(|| text.to_owned());
    let written = match (written, &what) {
        // A bookmark has no data, and what holds a half received stream tells none.
        ("-", _) => 0,
        (number, _) => number.parse().map_err(|_| wrong("no size"))?,
    };
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
    Ok(Line {
        dataset: DatasetName::new(dataset).map_err(|_| wrong("no dataset's name"))?,
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
    })
}

/// A hold: on what, and by whom.
pub(crate) type Hold = (String, HoldTag);

/// Reads the answer to [`holds`](super::argv::holds). A tag that is no name of ours gets its odd characters replaced:
/// it is told to a person, and a release by its real name is not ours to make.
pub(crate) fn holds(stdout: &[u8]) -> Result<Vec<Hold>, BadOutput> {
    let hold = |line: &str| {
        let mut columns = line.split('\t');
        let (Some(full), Some(tag), Some(_)) = (columns.next(), columns.next(), columns.next()) else {
            return bad(format!("not a hold: {}", shown(line)));
        };
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || "_-.:".contains(c) {
                c
            } else {
                '_'
            }
        };
        let tag = HoldTag::new(tag)
            .or_else(|_| {
                HoldTag::new(format!(
                    "_{}",
                    tag.chars().map(plain).take(190).collect::<String>()
                ))
            })
            .map_err(|error| BadOutput(error.to_string()))?;
        Ok((full.to_owned(), tag))
    };
    text(stdout)?.lines().map(hold).collect()
}

/// Reads `zfs list -Hp -o name`.
pub(crate) fn names(stdout: &[u8]) -> Result<Vec<DatasetName>, BadOutput> {
    let name = |line: &str| {
        DatasetName::new(line).map_err(|_| BadOutput(format!("not a dataset's name: {}", shown(line))))
    };
    text(stdout)?.lines().map(name).collect()
}

/// Reads `zpool list -Hp -o name,health`.
pub(crate) fn pools(stdout: &[u8]) -> Result<Vec<(String, String)>, BadOutput> {
    let pool = |line: &str| match line.split_once('\t') {
        Some((name, health)) if !name.is_empty() && !health.contains('\t') => {
            Ok((name.to_owned(), health.to_owned()))
        }
        _ => bad(format!("not a pool: {}", shown(line))),
    };
    text(stdout)?.lines().map(pool).collect()
}

#[cfg(test)]
mod tests;
