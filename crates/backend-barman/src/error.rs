//! How names and metadata are refused, and which kind of error of a WAL archiver that is.

use reseed_core::error::{WalError, WalKind};
use thiserror::Error;

/// Something that barman-cloud or PostgreSQL would not have written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FormatError {
    /// PostgreSQL takes powers of two from 1 MiB to 1 GiB.
    #[error("a WAL segment of {0} bytes: it has to be a power of two from 1 MiB to 1 GiB")]
    SegmentSize(u64),
    /// A history file, or timeline 0.
    #[error("`{0}` is not the name of a WAL segment")]
    NotASegment(String),
    /// The name is of a cluster with smaller segments.
    #[error("`{name}` does not exist where segments have {size} bytes: the last of each log is {last:08X}")]
    SegmentBeyondLog {
        /// The name.
        name: String,
        /// Bytes of a segment.
        size: u64,
        /// The last segment's number within a log.
        last: u64,
    },
    /// Not `X/Y` in hexadecimal.
    #[error("`{0}` is not a WAL position")]
    Lsn(String),
    /// Not `YYYYmmddTHHMMSS`.
    #[error("`{0}` is not the id of a base backup")]
    BackupId(String),
    /// A server name or path that makes no object key.
    #[error("`{text}` can't be part of an object's name: {why}")]
    Key {
        /// The name or path.
        text: String,
        /// Why not.
        why: &'static str,
    },
    /// A line of backup.info that can't be understood, counted from 1.
    #[error("backup.info, line {line}: {why}")]
    Info {
        /// Which line.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// A field of backup.info that has to be there and isn't.
    #[error("backup.info has no {0}")]
    MissingField(&'static str),
    /// A value that backup.info can't hold: it has one line for each.
    #[error("backup.info can't hold {field} = {value:?}")]
    Unwritable {
        /// Which field.
        field: &'static str,
        /// The value.
        value: String,
    },
}

impl FormatError {
    /// The kind that an archiver reports it as.
    pub fn kind(&self) -> WalKind {
        match self {
            // What stands in the archive is damaged, or not written by barman-cloud.
            Self::Info { .. } | Self::MissingField(_) => WalKind::Corrupt,
            // Two clusters in one archive, or a wrong segment size in the configuration: not ours to store or deliver.
            Self::SegmentBeyondLog { .. } => WalKind::WrongSegment,
            _ => WalKind::InvalidInput,
        }
    }
}

impl From<FormatError> for WalError {
    fn from(error: FormatError) -> Self {
        let said = Self::new(error.kind(), error.to_string());
        match error {
            FormatError::SegmentBeyondLog { .. } => said.hint(
                "compare `SHOW wal_segment_size` with the configuration, and look for WAL of another cluster in the archive",
            ),
            FormatError::Info { .. } | FormatError::MissingField(_) => {
                said.hint("this base backup can't be used; look at its backup.info")
            }
            _ => said,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_and_a_wrong_request_are_told_apart() {
        let damage: WalError = FormatError::MissingField("begin_time").into();
        assert_eq!(damage.kind(), WalKind::Corrupt);
        assert!(damage.what_to_do().is_some());
        let request: WalError = FormatError::BackupId("last".to_owned()).into();
        assert_eq!(request.kind(), WalKind::InvalidInput);
        assert_eq!(request.to_string(), "`last` is not the id of a base backup");
    }
}
