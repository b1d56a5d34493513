//! What `zfs` and `zpool` answer, as types. Pure; knows the `-Hp` forms of 2.1 to 2.3, which are the same.
//!
//! Promises that an answer that is cut off, garbled or about something else is an error and never a shorter answer, and
//! that hostile property values (tabs, newlines, lines that look like the tool's, bytes that are no text) spoil at most the
//! dataset or the snapshot that they are on ([`rows`](super::rows)).

mod lineages;
mod origins;

use std::borrow::Cow;
use std::collections::HashMap;

use jiff::Timestamp;
use reseed_core::names::{DatasetName, Guid, HoldTag, MAX_DATASET_LEN, SnapshotName};

use super::argv::{FACTS, ORIGIN, SNAPSHOT_COLUMNS};
use super::rows;
pub(crate) use lineages::{Head, Line, What, heads, lineages, lineages_apart};
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
/// a property may have made some of its lines: then [`snapshots_apart`] tells. What has an odd name is left out, and told.
pub(crate) fn snapshots(stdout: &[u8]) -> Result<Option<Found<Listed>>, BadOutput> {
    plain(stdout, SNAPSHOT_COLUMNS, listed)
}

/// Reads the answer to [`apart`](super::argv::apart) about snapshots. An odd property is none; each is named in the second
/// list.
pub(crate) fn snapshots_apart(stdout: &[u8], nonce: u64) -> Result<Found<Listed>, BadOutput> {
    apart(stdout, nonce, SNAPSHOT_COLUMNS, listed)
}

/// What could be read, and what was odd beside it.
pub(crate) type Found<T> = (Vec<T>, Vec<Odd>);

/// What can't be read, and spoils nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Odd {
    /// A property: of what, and which.
    Property(String, &'static str),
    /// Something called so. ZFS takes names that have none here ([`is_odd`]).
    Name(String),
}

/// Whether ZFS lets something be called so (`zfs_namecheck.c`) although it isn't a name here: a part begins with `-`, begins or ends
/// with a space, or is too long. Whatever else isn't a name is no answer of `zfs`.
fn is_odd(full: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.: ".contains(c);
    full.starts_with(|c: char| c.is_ascii_alphabetic())
        && full.len() <= MAX_DATASET_LEN
        && full.matches(['@', '#']).count() <= 1
        && full
            .split(['/', '@', '#'])
            .all(|part| !part.is_empty() && part.chars().all(plain))
}

/// A name that was read; none, and noted, when it is an odd one.
fn read_name<T>(full: &str, name: Option<T>, odd: &mut Vec<Odd>) -> Result<Option<T>, BadOutput> {
    if name.is_none() {
        if !is_odd(full) {
            return bad(format!("no name: {}", shown(full)));
        }
        odd.push(Odd::Name(full.to_owned()));
    }
    Ok(name)
}

fn plain<T>(
    stdout: &[u8],
    columns: &[&str],
    read: impl Fn(&[&str], &mut Vec<Odd>) -> Result<Option<T>, BadOutput>,
) -> Result<Option<Found<T>>, BadOutput> {
    let text = text(stdout)?;
    let Some(rows) = rows::plain(&text, columns.len()) else {
        return Ok(None);
    };
    let (mut all, mut odd) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in &rows {
        all.extend(read(row, &mut odd)?);
    }
    Ok(Some((all, odd)))
}

fn apart<T>(
    stdout: &[u8],
    nonce: u64,
    columns: &[&'static str],
    read: impl Fn(&[&str], &mut Vec<Odd>) -> Result<Option<T>, BadOutput>,
) -> Result<Found<T>, BadOutput> {
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
                odd.push(Odd::Property(block.name.to_owned(), column));
            }
        }
        all.extend(read(&row, &mut odd)?);
    }
    Ok((all, odd))
}

fn listed(columns: &[&str], odd: &mut Vec<Odd>) -> Result<Option<Listed>, BadOutput> {
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
    let read = (
        guid.parse().map_err(|_| wrong("no guid"))?,
        number(createtxg, "no transaction group")?,
        Timestamp::from_second(seconds).map_err(|_| wrong("no time of creation"))?,
        number(userrefs, "no number of holds")?,
        number(referenced, "no size")?,
    );
    let named = DatasetName::new(dataset).ok().zip(SnapshotName::new(name).ok());
    let (guid, createtxg, creation, userrefs, referenced) = read;
    Ok(read_name(full, named, odd)?.map(|(dataset, name)| Listed {
        dataset,
        name,
        guid,
        createtxg,
        creation,
        userrefs,
        referenced,
        taken: own(taken),
        unseeded: unseeded == "on",
        digest: own(digest),
    }))
}

/// A hold: on what, and by whom.
pub(crate) type Hold = (String, HoldTag);

/// Reads the answer to [`holds`](super::argv::holds). A tag that is no name of ours gets its odd characters replaced:
/// it is told to a person, and a release by its real name is not ours to make. None when a tag may have made some of the lines, for `zfs`
/// checks none: then [`holds_of`] tells, of each alone.
pub(crate) fn holds(stdout: &[u8]) -> Result<Option<Vec<Hold>>, BadOutput> {
    let text = text(stdout)?;
    let hold = |line: &str| {
        let mut columns = line.split('\t');
        let hold = (columns.next()?.to_owned(), tag(columns.next()?)?);
        (columns.next().is_some() && columns.next().is_none()).then_some(hold)
    };
    Ok(rows::lines(&text).map(hold).collect())
}

/// The same about this snapshot alone. Whatever else is in a tag, it is one that somebody holds it by.
pub(crate) fn holds_of(full: &str, stdout: &[u8]) -> Result<Vec<Hold>, BadOutput> {
    let text = text(stdout)?;
    let hold = |line: &str| {
        let said = line.strip_prefix(full)?.strip_prefix('\t')?;
        let tag = match said.split_once('\t') {
            Some((text, date)) if !date.contains('\t') => tag(text),
            _ => odd_tag(said),
        };
        Some((full.to_owned(), tag?))
    };
    Ok(rows::lines(&text).filter_map(hold).collect())
}

fn tag(text: &str) -> Option<HoldTag> {
    HoldTag::new(text).ok().or_else(|| odd_tag(text))
}

fn odd_tag(text: &str) -> Option<HoldTag> {
    let plain = |c: char| match c.is_ascii_alphanumeric() || "_-.:".contains(c) {
        true => c,
        false => '_',
    };
    let shown: String = text.chars().map(plain).take(190).collect();
    HoldTag::new(format!("_{shown}")).ok()
}

/// Reads `zfs list -Hp -o name`.
pub(crate) fn names(stdout: &[u8]) -> Result<Found<DatasetName>, BadOutput> {
    let text = text(stdout)?;
    let (mut all, mut odd) = (Vec::new(), Vec::new());
    for line in rows::lines(&text) {
        all.extend(read_name(line, DatasetName::new(line).ok(), &mut odd)?);
    }
    Ok((all, odd))
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
