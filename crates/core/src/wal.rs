//! [`WalArchiver`]: PostgreSQL's write-ahead log and base backups, in the object layout of barman-cloud.
//!
//! # Contract
//! - **W1 success means durable.** `archive` answers `Ok` only when the store has the whole segment; what is spooled is unarchived.
//! - **W2 archiving again is fine, archiving something else is not.** The same content under the same name is
//!   [`Archived::AlreadyThere`]; other content is `DifferentContent` and leaves what is there. History files are create-only.
//! - **W3 only whole segments.** A file of another length than the segment size, or of another cluster than its header says, is
//!   `WrongSegment` and is not stored.
//! - **W4 "not there" is an answer, not an error.** `fetch` says [`Fetched::NotFound`] only when the store said so; whatever else
//!   keeps it from knowing is an error, because PostgreSQL promotes on "not found" and loses what came after.
//! - **W5 what is delivered is whole.** `fetch` writes beside, checks length, cluster, timeline and position, then renames.
//! - **W6 only finished backups count.** `backups` tells STARTED, FAILED and DONE apart.
//! - **W7 nothing is deleted.**

use std::fmt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::error::WalError;
use crate::names::SourceName;

/// See the [module's contract](self).
#[async_trait]
pub trait WalArchiver: Send + Sync + fmt::Debug {
    /// What it is called in the configuration. Doesn't change while it lives.
    fn name(&self) -> &SourceName;

    /// What it can do. Doesn't change while it lives.
    fn caps(&self) -> WalCaps;

    /// Stores a segment, a history file or a backup label file.
    ///
    /// # Errors
    /// See W1 to W3.
    async fn archive(&self, cx: &Context, file: &WalFile, path: &Path) -> Result<Archived, WalError>;

    /// Brings one back to `to`.
    ///
    /// # Errors
    /// See W4 and W5.
    async fn fetch(&self, cx: &Context, file: &WalFile, to: &Path) -> Result<Fetched, WalError>;

    /// The names in the archive, sorted.
    ///
    /// # Errors
    /// Whatever keeps the list from being complete.
    async fn list(&self, cx: &Context) -> Result<Vec<WalFile>, WalError>;

    /// The base backups, oldest first.
    ///
    /// # Errors
    /// Whatever keeps the list from being complete.
    async fn backups(&self, cx: &Context) -> Result<Vec<BaseBackup>, WalError>;

    /// Takes a base backup.
    ///
    /// # Errors
    /// `Unsupported` without [`WalCaps::base_backup`].
    async fn base_backup(&self, cx: &Context, data: &Path) -> Result<BaseBackup, WalError>;
}

/// What a [`WalArchiver`] can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalCaps {
    /// Takes base backups.
    pub base_backup: bool,
    /// Bytes of a segment: PostgreSQL's `wal_segment_size`.
    pub segment_size: u64,
}

/// The name of a file in `pg_wal`, as PostgreSQL writes it (`XLogFileName`, `TLHistoryFileName`, `BackupHistoryFileName` in
/// `xlog_internal.h`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WalFile {
    text: String,
    class: WalClass,
}

/// What kind of file in `pg_wal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WalClass {
    /// `TTTTTTTTLLLLLLLLSSSSSSSS`.
    Segment,
    /// A segment with `.partial`.
    Partial,
    /// A segment with an offset and `.backup`.
    BackupLabel,
    /// `TTTTTTTT.history`.
    History,
}

impl WalFile {
    /// Checks a name.
    ///
    /// # Errors
    /// [`InvalidName`](crate::names::InvalidName) when PostgreSQL would not have written it.
    pub fn new(text: impl Into<String>) -> Result<Self, crate::names::InvalidName> {
        let text = text.into();
        let hex = |part: &str, len: usize| {
            part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'))
        };
        let class = match text.split('.').collect::<Vec<_>>().as_slice() {
            [segment] if hex(segment, 24) => Some(WalClass::Segment),
            [segment, "partial"] if hex(segment, 24) => Some(WalClass::Partial),
            [segment, offset, "backup"] if hex(segment, 24) && hex(offset, 8) => Some(WalClass::BackupLabel),
            [timeline, "history"] if hex(timeline, 8) => Some(WalClass::History),
            _ => None,
        };
        match class {
            Some(class) => Ok(Self { text, class }),
            None => Err(crate::names::InvalidName {
                what: "WAL file name",
                text: text.chars().take(80).collect(),
                why: "PostgreSQL names segments by 24 upper-case hexadecimal digits".to_owned(),
            }),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What kind of file it is.
    pub fn class(&self) -> WalClass {
        self.class
    }
}

impl TryFrom<String> for WalFile {
    type Error = crate::names::InvalidName;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text)
    }
}

impl From<WalFile> for String {
    fn from(file: WalFile) -> Self {
        file.text
    }
}

impl fmt::Display for WalFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How archiving ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Archived {
    /// It is stored now.
    Stored,
    /// The same content was there.
    AlreadyThere,
}

/// How fetching ended well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fetched {
    /// It is at this path.
    Delivered(PathBuf),
    /// The archive was asked, and doesn't have it.
    NotFound,
}

/// A base backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseBackup {
    /// Its directory's name, `20261122T203300`.
    pub id: String,
    /// How far it got.
    pub status: BackupStatus,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// The first segment it needs.
    pub begin_wal: Option<WalFile>,
    /// The last segment it needs to be consistent.
    pub end_wal: Option<WalFile>,
    /// Bytes, as stored.
    pub bytes: Option<u64>,
}

/// How far a base backup got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum BackupStatus {
    /// Not finished, or cut off.
    Started,
    /// Finished.
    Done,
    /// Ended with an error.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_postgresql_names_are_wal_files() {
        for (good, class) in [
            ("0000000100000000000000A1", WalClass::Segment),
            ("0000000100000000000000A1.partial", WalClass::Partial),
            ("0000000100000000000000A1.00000028.backup", WalClass::BackupLabel),
            ("00000002.history", WalClass::History),
        ] {
            assert_eq!(WalFile::new(good).unwrap().class(), class);
        }
        for bad in [
            "",
            "0000000100000000000000a1",
            "../00000002.history",
            "00000002.history.gz",
            "0000000100000000000000A1.00000028",
        ] {
            assert!(WalFile::new(bad).is_err(), "{bad}");
        }
    }
}
