//! What restic prints, as types. Pure.
//!
//! A message is a line of JSON. Kinds that aren't known here, and fields, are passed over; a line that is no JSON is words.
//! Nothing here believes that an output is complete: the callers ask for the message that ends it, and for the exit code.

use jiff::Timestamp;
use reseed_core::offsite::Usage;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::{EngineError, Result};
use crate::snapshots::Snapshot;

/// The longest message that is looked at.
const LONGEST: usize = 256 * 1024;

/// One line of an output.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Line {
    /// How far it is.
    Status(Status),
    /// The end of a backup, restore or check.
    Summary(Box<Summary>),
    /// Something could not be done, and it goes on.
    Problem(Problem),
    /// Why it ends.
    ExitError(String),
    /// A snapshot was replaced by another.
    Changed(String),
    /// Of a kind that is not known, or no message at all.
    Other,
}

/// How far a backup or restore is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    total_bytes: Option<u64>,
    bytes_done: u64,
    files_done: u64,
    bytes_restored: u64,
    files_restored: u64,
    bytes_skipped: u64,
    files_skipped: u64,
}

impl Status {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes_done
            .max(self.bytes_restored.saturating_add(self.bytes_skipped))
    }

    pub(crate) fn files(&self) -> u64 {
        self.files_done
            .max(self.files_restored.saturating_add(self.files_skipped))
    }

    /// Of a restore that goes on, restic counts what is there already apart from both.
    pub(crate) fn total(&self) -> Option<u64> {
        Some(self.total_bytes?.saturating_add(self.bytes_skipped))
    }
}

/// What a backup, restore or check says at its end: each has some of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Summary {
    pub(crate) snapshot_id: Option<String>,
    pub(crate) total_files_processed: Option<u64>,
    pub(crate) total_bytes_processed: Option<u64>,
    pub(crate) data_added: Option<u64>,
    pub(crate) data_added_packed: Option<u64>,
    pub(crate) bytes_skipped: Option<u64>,
    pub(crate) num_errors: Option<u64>,
    /// All packs of which anything is wrong, however many are told of one by one.
    pub(crate) broken_packs: Option<Vec<String>>,
}

/// Something that could not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// With what; empty where it isn't told.
    pub(crate) item: String,
    /// Why.
    pub(crate) why: String,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow, default)]
    message_type: std::borrow::Cow<'a, str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorLine {
    error: Option<ErrorWords>,
    item: Option<String>,
    message: Option<String>,
}

/// Since 0.17 a message; before, Go's error as it happened to have fields.
#[derive(Deserialize)]
#[serde(untagged)]
enum ErrorWords {
    Words {
        message: String,
    },
    Path {
        #[serde(rename = "Op", default)]
        op: String,
        #[serde(rename = "Err")]
        err: serde_json::Value,
    },
    Text(String),
    Other(IgnoredAny),
}

impl ErrorWords {
    fn text(self) -> String {
        match self {
            Self::Words { message } | Self::Text(message) => message,
            Self::Path { op, err } => {
                let number = err.as_i64().and_then(|number| i32::try_from(number).ok());
                let words = match (number, err.as_str()) {
                    (Some(number), _) => std::io::Error::from_raw_os_error(number).to_string(),
                    (None, Some(text)) => text.to_owned(),
                    (None, None) => "it failed".to_owned(),
                };
                format!("{op}: {words}")
            }
            Self::Other(_) => "it could not be read".to_owned(),
        }
    }
}

/// Reads one line.
pub(crate) fn line(bytes: &[u8]) -> Line {
    let bytes = bytes.trim_ascii();
    if !bytes.starts_with(b"{") || bytes.len() > LONGEST {
        return Line::Other;
    }
    let Ok(kind) = serde_json::from_slice::<Kind<'_>>(bytes) else {
        return Line::Other;
    };
    match &*kind.message_type {
        "status" => serde_json::from_slice(bytes).map_or(Line::Other, Line::Status),
        "summary" => {
            serde_json::from_slice(bytes).map_or(Line::Other, |summary| Line::Summary(Box::new(summary)))
        }
        "error" => {
            // Whatever it holds: that something failed must not be lost because it can't be read.
            let line: ErrorLine = serde_json::from_slice(bytes).unwrap_or_default();
            Line::Problem(Problem {
                item: line.item.unwrap_or_default(),
                why: match (line.error, line.message) {
                    (Some(words), _) => words.text(),
                    (None, Some(message)) => message,
                    (None, None) => "it failed".to_owned(),
                },
            })
        }
        "exit_error" => {
            let line: ErrorLine = serde_json::from_slice(bytes).unwrap_or_default();
            Line::ExitError(line.message.unwrap_or_default())
        }
        "changed" => {
            #[derive(Deserialize)]
            struct Changed {
                new_snapshot_id: String,
            }
            serde_json::from_slice(bytes).map_or(Line::Other, |changed: Changed| {
                Line::Changed(changed.new_snapshot_id)
            })
        }
        _ => Line::Other,
    }
}

/// The problem that a line of a restore before 0.16 tells in words.
pub(crate) fn problem_in_words(text: &str) -> Option<Problem> {
    let rest = text.trim_end().strip_prefix("ignoring error for ")?;
    let (item, why) = rest.split_once(": ")?;
    Some(Problem {
        item: item.to_owned(),
        why: why.to_owned(),
    })
}

fn not_understood(what: &str, error: &serde_json::Error) -> EngineError {
    EngineError::BadOutput {
        detail: format!("{what}: {error}"),
    }
}

/// A repository's configuration: id and version of the format.
pub(crate) fn config(bytes: &[u8]) -> Result<(String, u32)> {
    #[derive(Deserialize)]
    struct Config {
        id: String,
        version: u32,
    }
    let config: Config = serde_json::from_slice(bytes)
        .map_err(|error| not_understood("the repository's configuration", &error))?;
    if config.id.is_empty() || config.version == 0 {
        return Err(EngineError::BadOutput {
            detail: "the repository's configuration has no id or version".into(),
        });
    }
    Ok((config.id, config.version))
}

/// How much all snapshots need, as it is stored (`stats --mode=raw-data`).
pub(crate) fn stats(bytes: &[u8]) -> Result<Usage> {
    #[derive(Deserialize)]
    struct Stats {
        total_size: u64,
    }
    let stats: Stats =
        serde_json::from_slice(bytes).map_err(|error| not_understood("the repository's size", &error))?;
    Ok(Usage {
        bytes: stats.total_size,
        objects: None,
    })
}

/// Whether an index file lists any data (`cat index`).
pub(crate) fn lists_data(bytes: &[u8]) -> Result<bool> {
    #[derive(Deserialize)]
    struct Index {
        // An empty one is `null` in some versions.
        packs: Option<Vec<IgnoredAny>>,
    }
    let index: Index =
        serde_json::from_slice(bytes).map_err(|error| not_understood("an index file", &error))?;
    Ok(index.packs.is_some_and(|packs| !packs.is_empty()))
}

#[derive(Deserialize)]
struct Record {
    id: String,
    time: Timestamp,
    tree: String,
    #[serde(default)]
    paths: Vec<String>,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    original: Option<String>,
    #[serde(default)]
    summary: Option<Counted>,
}

#[derive(Deserialize)]
struct Counted {
    #[serde(default)]
    total_files_processed: u64,
    #[serde(default)]
    total_bytes_processed: u64,
}

/// The whole of `snapshots --json`.
pub(crate) fn snapshots(bytes: &[u8]) -> Result<Vec<Snapshot>> {
    // An empty repository is `[]`, or `null` in some versions.
    let records: Option<Vec<Record>> =
        serde_json::from_slice(bytes).map_err(|error| not_understood("the list of snapshots", &error))?;
    let mut found = Vec::new();
    for record in records.unwrap_or_default() {
        if !is_id(&record.id) {
            return Err(EngineError::BadOutput {
                detail: format!(
                    "the list of snapshots: {:?} is no id",
                    crate::words::plain(&record.id)
                ),
            });
        }
        let counted = record.summary.filter(|summary| summary.total_files_processed > 0);
        found.push(Snapshot {
            id: record.id,
            time: record.time,
            host: record.hostname,
            tags: record
                .tags
                .unwrap_or_default()
                .into_iter()
                .filter(|tag| !tag.is_empty())
                .collect(),
            paths: record.paths,
            tree: record.tree,
            files: counted.as_ref().map(|summary| summary.total_files_processed),
            bytes: counted.as_ref().map(|summary| summary.total_bytes_processed),
            original: record.original,
        });
    }
    found.sort_unstable_by(|a, b| b.time.cmp(&a.time).then_with(|| a.id.cmp(&b.id)));
    Ok(found)
}

/// The ids that `list snapshots` prints, a line each.
pub(crate) fn ids(text: &str) -> Result<Vec<String>> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| {
            if is_id(line) {
                Ok(line.to_owned())
            } else {
                Err(EngineError::BadOutput {
                    detail: format!("the list of ids: {:?}", crate::words::plain(line)),
                })
            }
        })
        .collect()
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
