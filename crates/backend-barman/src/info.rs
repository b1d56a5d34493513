//! backup.info: what barman-cloud knows about a base backup.
//!
//! Reading takes what every barman writes and leaves out fields it doesn't know. Writing makes exactly the fields that barman
//! 2.11 and all later ones know: one field too many, and an older barman refuses its whole list of backups. It decides
//! nothing about a backup but whether it ended well.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::Offset;
use reseed_core::wal::{BackupStatus, BaseBackup, WalClass, WalFile};

use crate::error::FormatError;
use crate::layout::BackupId;
use crate::pyliteral::{Literal, quoted};
use crate::segment::{Lsn, SegmentSize};

/// How far a base backup got, in barman's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Status {
    /// Nothing was done yet.
    #[default]
    Empty,
    /// It runs, or was cut off.
    Started,
    /// The files are there; WAL up to its end isn't known to be. barman-cloud never writes it.
    WaitingForWals,
    /// It ended well.
    Done,
    /// It is being copied from another barman. barman-cloud never writes it.
    Syncing,
    /// It ended with an error.
    Failed,
}

impl Status {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Empty, "EMPTY"),
        (Self::Started, "STARTED"),
        (Self::WaitingForWals, "WAITING_FOR_WALS"),
        (Self::Done, "DONE"),
        (Self::Syncing, "SYNCING"),
        (Self::Failed, "FAILED"),
    ];

    /// As barman writes it.
    pub fn as_str(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(status, _)| *status == self)
            .map_or("", |(_, text)| text)
    }
}

impl From<Status> for BackupStatus {
    /// Whatever isn't known to have ended has not (W6: only finished backups count).
    fn from(status: Status) -> Self {
        match status {
            Status::Done => Self::Done,
            Status::Failed => Self::Failed,
            Status::Empty | Status::Started | Status::WaitingForWals | Status::Syncing => Self::Started,
        }
    }
}

/// A tablespace outside of the data directory. Its link is rebuilt from this: the archive has no tablespace_map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    /// Its name.
    pub name: String,
    /// Its oid: the name of its tar file.
    pub oid: u32,
    /// Where it was.
    pub location: String,
}

/// The content of a backup.info. Nothing stands for barman's `None`, and for a field that isn't there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackupInfo {
    /// backup_label, as the backup's end returned it.
    pub backup_label: Option<String>,
    /// Bytes from the first segment's beginning to the backup's.
    pub begin_offset: Option<u64>,
    /// When it began.
    pub begin_time: Option<Timestamp>,
    /// The first segment it needs.
    pub begin_wal: Option<WalFile>,
    /// Where in the WAL it began.
    pub begin_xlog: Option<Lsn>,
    /// Where postgresql.conf was.
    pub config_file: Option<String>,
    /// Bytes from the last segment's beginning to the backup's end.
    pub end_offset: Option<u64>,
    /// When it ended.
    pub end_time: Option<Timestamp>,
    /// The last segment it needs to be consistent.
    pub end_wal: Option<WalFile>,
    /// Where in the WAL it ended.
    pub end_xlog: Option<Lsn>,
    /// Why it failed.
    pub error: Option<String>,
    /// Where pg_hba.conf was.
    pub hba_file: Option<String>,
    /// Where pg_ident.conf was.
    pub ident_file: Option<String>,
    /// What postgresql.conf included.
    pub included_files: Vec<String>,
    /// How it was taken: `concurrent`.
    pub mode: Option<String>,
    /// Where the data directory was.
    pub pgdata: Option<String>,
    /// `cloud`, always, whatever the server is called.
    pub server_name: Option<String>,
    /// Bytes.
    pub size: Option<u64>,
    /// How far it got.
    pub status: Status,
    /// The cluster's system identifier.
    pub systemid: Option<u64>,
    /// The tablespaces.
    pub tablespaces: Vec<Tablespace>,
    /// The timeline it was taken on.
    pub timeline: Option<u32>,
    /// PostgreSQL's version as a number: 150018.
    pub version: Option<u32>,
    /// Bytes of a WAL segment.
    pub xlog_segment_size: SegmentSize,
}

impl BackupInfo {
    /// Reads a backup.info.
    ///
    /// # Errors
    /// [`FormatError::Info`] names the line. Unknown fields are none.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut info = Self::default();
        for (index, line) in bytes.split(|b| *b == b'\n').enumerate() {
            let bad = |why: String| FormatError::Info { line: index + 1, why };
            let line = std::str::from_utf8(line)
                .map_err(|_| bad("it is not UTF-8".to_owned()))?
                .trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((name, value)) = line.split_once('=') else {
                return Err(bad("it is not `field=value`".to_owned()));
            };
            let (name, value) = (name.trim_end(), value.trim_start());
            if value != "None" {
                info.set(name, value)
                    .map_err(|why| bad(format!("{name}: {why}")))?;
            }
        }
        Ok(info)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "backup_label" => self.backup_label = Some(text(&Literal::parse(value)?)?),
            "begin_offset" => self.begin_offset = Some(number(value)?),
            "begin_time" => self.begin_time = Some(time(value)?),
            "begin_wal" => self.begin_wal = Some(segment(value)?),
            "begin_xlog" => self.begin_xlog = Some(position(value)?),
            "config_file" => self.config_file = Some(value.to_owned()),
            "end_offset" => self.end_offset = Some(number(value)?),
            "end_time" => self.end_time = Some(time(value)?),
            "end_wal" => self.end_wal = Some(segment(value)?),
            "end_xlog" => self.end_xlog = Some(position(value)?),
            "error" => self.error = Some(value.to_owned()),
            "hba_file" => self.hba_file = Some(value.to_owned()),
            "ident_file" => self.ident_file = Some(value.to_owned()),
            "included_files" => {
                self.included_files = list(value)?.iter().map(text).collect::<Result<_, _>>()?;
            }
            "mode" => self.mode = Some(value.to_owned()),
            "pgdata" => self.pgdata = Some(value.to_owned()),
            "server_name" => self.server_name = Some(value.to_owned()),
            "size" => self.size = Some(number(value)?),
            "status" => {
                let known = Status::ALL.iter().find(|(_, text)| *text == value);
                self.status = known.ok_or_else(|| format!("`{value}` is no status"))?.0;
            }
            "systemid" => self.systemid = Some(number(value)?),
            "tablespaces" => {
                self.tablespaces = list(value)?.iter().map(tablespace).collect::<Result<_, _>>()?;
            }
            "timeline" => self.timeline = Some(number(value)?),
            "version" => self.version = Some(number(value)?),
            "xlog_segment_size" => {
                self.xlog_segment_size =
                    SegmentSize::new(number(value)?).map_err(|error| error.to_string())?;
            }
            // Statistics, and whatever a newer barman adds.
            _ => {}
        }
        Ok(())
    }

    /// Writes a backup.info that barman 2.11 and later read.
    ///
    /// # Errors
    /// [`FormatError::Unwritable`] for a text that would be read as another one: with a line's end in it, with spaces around
    /// it, or the word `None`. Line ends in [`error`](Self::error) are no reason to lose a failure's record: they become spaces.
    pub fn write(&self) -> Result<String, FormatError> {
        let label = self
            .backup_label
            .as_deref()
            .filter(|label| !label.is_empty())
            .map(quoted);
        let included: Vec<String> = self.included_files.iter().map(|file| quoted(file)).collect();
        let spaces: Vec<String> = self
            .tablespaces
            .iter()
            .map(|one| format!("({}, {}, {})", quoted(&one.name), one.oid, quoted(&one.location)))
            .collect();
        let list = |items: Vec<String>| (!items.is_empty()).then(|| format!("[{}]", items.join(", ")));
        let error = self.error.as_ref().map(|error| {
            let words: Vec<&str> = error.split_whitespace().collect();
            words.join(" ")
        });
        let mut page = String::new();
        let mut line = |field: &'static str, value: Option<String>| {
            if let Some(value) = value.as_deref() {
                let lost = value.is_empty() || value == "None" || value.trim() != value;
                if lost || value.contains('\n') {
                    return Err(FormatError::Unwritable {
                        field,
                        value: value.chars().take(80).collect(),
                    });
                }
            }
            let _ = writeln!(page, "{field}={}", value.as_deref().unwrap_or("None"));
            Ok(())
        };
        line("backup_label", label)?;
        line("begin_offset", show(self.begin_offset))?;
        line("begin_time", self.begin_time.map(stamp))?;
        line("begin_wal", show(self.begin_wal.as_ref()))?;
        line("begin_xlog", show(self.begin_xlog))?;
        line("config_file", self.config_file.clone())?;
        line("copy_stats", None)?;
        line("deduplicated_size", None)?;
        line("end_offset", show(self.end_offset))?;
        line("end_time", self.end_time.map(stamp))?;
        line("end_wal", show(self.end_wal.as_ref()))?;
        line("end_xlog", show(self.end_xlog))?;
        line("error", error.filter(|error| !error.is_empty()))?;
        line("hba_file", self.hba_file.clone())?;
        line("ident_file", self.ident_file.clone())?;
        line("included_files", list(included))?;
        line("mode", self.mode.clone())?;
        line("pgdata", self.pgdata.clone())?;
        line("server_name", self.server_name.clone())?;
        line("size", show(self.size))?;
        line("status", Some(self.status.as_str().to_owned()))?;
        line("systemid", show(self.systemid))?;
        line("tablespaces", list(spaces))?;
        line("timeline", show(self.timeline))?;
        line("version", show(self.version))?;
        line("xlog_segment_size", show(Some(self.xlog_segment_size.bytes())))?;
        Ok(page)
    }

    /// Whether it can be recovered from, as far as it says itself: DONE, with both times and both ends in the WAL. Whether that
    /// WAL is in the archive is another question.
    pub fn is_finished(&self) -> bool {
        self.status == Status::Done
            && self.begin_time.is_some()
            && self.end_time.is_some()
            && self.begin_wal.is_some()
            && self.end_wal.is_some()
    }

    /// As the core knows it; `bytes` are those of its objects. A DONE that lacks what [`is_finished`](Self::is_finished) asks
    /// for counts as not finished.
    ///
    /// # Errors
    /// [`FormatError::MissingField`] when it doesn't say when it began.
    pub fn to_base_backup(&self, id: &BackupId, bytes: Option<u64>) -> Result<BaseBackup, FormatError> {
        let status = if self.status == Status::Done && !self.is_finished() {
            BackupStatus::Started
        } else {
            self.status.into()
        };
        Ok(BaseBackup {
            id: id.to_string(),
            status,
            began: self.begin_time.ok_or(FormatError::MissingField("begin_time"))?,
            ended: self.end_time,
            begin_wal: self.begin_wal.clone(),
            end_wal: self.end_wal.clone(),
            bytes,
        })
    }
}

fn show(value: Option<impl ToString>) -> Option<String> {
    value.map(|value| value.to_string())
}

fn number<N: std::str::FromStr>(value: &str) -> Result<N, String> {
    let digits = value.bytes().all(|b| b.is_ascii_digit());
    value
        .parse()
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| format!("`{value}` is no number of that field"))
}

/// `2026-11-22 20:33:00.123456+01:00`. One without an offset is of a zone that nobody wrote down: refused, not guessed.
fn time(value: &str) -> Result<Timestamp, String> {
    value
        .parse()
        .map_err(|_| format!("`{value}` is no date and time with an offset"))
}

fn stamp(time: Timestamp) -> String {
    Offset::UTC
        .to_datetime(time)
        .strftime("%Y-%m-%d %H:%M:%S.%6f+00:00")
        .to_string()
}

fn position(value: &str) -> Result<Lsn, String> {
    value.parse().map_err(|error: FormatError| error.to_string())
}

fn segment(value: &str) -> Result<WalFile, String> {
    let file = WalFile::new(value).map_err(|error| error.to_string())?;
    if file.class() == WalClass::Segment {
        Ok(file)
    } else {
        Err(format!("`{value}` is no segment"))
    }
}

fn list(value: &str) -> Result<Vec<Literal>, String> {
    match Literal::parse(value)? {
        Literal::List(items) => Ok(items),
        _ => Err("a list expected".to_owned()),
    }
}

fn text(literal: &Literal) -> Result<String, String> {
    match literal {
        Literal::Text(text) => Ok(text.clone()),
        _ => Err("a text expected".to_owned()),
    }
}

fn tablespace(literal: &Literal) -> Result<Tablespace, String> {
    let bad = || "a tablespace is (name, oid, location)".to_owned();
    let Literal::List(parts) = literal else {
        return Err(bad());
    };
    let [Literal::Text(name), Literal::Whole(oid), Literal::Text(location)] = parts.as_slice() else {
        return Err(bad());
    };
    Ok(Tablespace {
        name: name.clone(),
        oid: u32::try_from(*oid).map_err(|_| bad())?,
        location: location.clone(),
    })
}
