//! Where what is in a bucket: `[path/]server/base/<id>/…` and `[path/]server/wals/…`, as barman-cloud names it.
//!
//! Makes keys and tells what a key is of. Keys that barman-cloud would not have made are [`Object::Other`], never an error: an
//! archive may hold what other programs put there, and it is not ours to judge. It doesn't know what the objects contain.

use std::fmt;
use std::str::FromStr;

use reseed_core::wal::{WalClass, WalFile};

use crate::error::FormatError;

/// How an object is compressed: told by its name's suffix alone. barman-cloud sets no metadata for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Compression {
    /// `.gz`
    Gzip,
    /// `.bz2`
    Bzip2,
    /// `.xz`
    Xz,
    /// `.snappy`, in the framing format.
    Snappy,
    /// `.zst`
    Zstd,
    /// `.lz4`
    Lz4,
}

impl Compression {
    /// Every one of them.
    pub const ALL: [Self; 6] = [
        Self::Gzip,
        Self::Bzip2,
        Self::Xz,
        Self::Snappy,
        Self::Zstd,
        Self::Lz4,
    ];

    /// What a name ends in.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Gzip => ".gz",
            Self::Bzip2 => ".bz2",
            Self::Xz => ".xz",
            Self::Snappy => ".snappy",
            Self::Zstd => ".zst",
            Self::Lz4 => ".lz4",
        }
    }

    /// Whether barman-cloud reads base backups compressed so. WAL may have any.
    pub fn for_base_backups(self) -> bool {
        !matches!(self, Self::Xz | Self::Zstd)
    }

    /// A name without its suffix.
    fn split(name: &str) -> (&str, Option<Self>) {
        let found = Self::ALL
            .into_iter()
            .find_map(|one| name.strip_suffix(one.suffix()).map(|bare| (bare, Some(one))));
        found.unwrap_or((name, None))
    }
}

/// The id of a base backup: the local time at which it began, `20261122T203300`. Which zone, nobody wrote down.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackupId(String);

impl BackupId {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BackupId {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let digits = |part: &str, len: usize| part.len() == len && part.bytes().all(|b| b.is_ascii_digit());
        match text.split_once('T') {
            Some((day, time)) if digits(day, 8) && digits(time, 6) => Ok(Self(text.to_owned())),
            _ => Err(FormatError::BackupId(text.chars().take(80).collect())),
        }
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One tar file of a base backup.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tar {
    /// The tablespace's oid; nothing for the data directory itself.
    pub tablespace: Option<u32>,
    /// 0 for the first; a backup of more than 100 GB goes on in `_0001` and so on.
    pub part: u32,
    /// How it is compressed.
    pub compression: Option<Compression>,
}

impl Tar {
    fn parse(name: &str) -> Option<Self> {
        let (name, compression) = Compression::split(name);
        let stem = name.strip_suffix(".tar")?;
        let (whose, part) = match stem.split_once('_') {
            Some((whose, part)) if part.len() >= 4 => (whose, decimal(part)?),
            Some(_) => return None,
            None => (stem, 0),
        };
        let tar = Self {
            tablespace: if whose == "data" {
                None
            } else {
                Some(decimal(whose)?)
            },
            part,
            compression,
        };
        // Leading zeros, part 0 spelt out, a compression that isn't used here: nothing that barman-cloud wrote.
        let readable = compression.is_none_or(Compression::for_base_backups);
        (readable
            && tar
                .to_string()
                .strip_suffix(compression.map_or("", Compression::suffix))
                == Some(name))
        .then_some(tar)
    }
}

impl fmt::Display for Tar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tablespace {
            None => f.write_str("data")?,
            Some(oid) => write!(f, "{oid}")?,
        }
        if self.part > 0 {
            write!(f, "_{:04}", self.part)?;
        }
        write!(f, ".tar{}", self.compression.map_or("", Compression::suffix))
    }
}

fn decimal(text: &str) -> Option<u32> {
    text.parse()
        .ok()
        .filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

/// What an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// `base/<id>/backup.info`
    Info(BackupId),
    /// `base/<id>/data.tar` and the like.
    Tar(BackupId, Tar),
    /// `base/<id>/annotations/keep`: whoever put it there wants the backup kept.
    Keep(BackupId),
    /// Below `wals/`.
    Wal(WalFile, Option<Compression>),
    /// Something else.
    Other,
}

/// The names of one server's objects in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    prefix: String,
}

impl Layout {
    /// The layout of a server below a path of the bucket (empty: at its root).
    ///
    /// # Errors
    /// [`FormatError::Key`] for names that make no key, or another one than they say.
    pub fn new(path: &str, server: &str) -> Result<Self, FormatError> {
        let bad = |text: &str, why| FormatError::Key {
            text: text.chars().take(80).collect(),
            why,
        };
        if server.contains('/') {
            return Err(bad(server, "a server's name is one part of a path"));
        }
        let path = path.trim_matches('/');
        let mut parts: Vec<&str> = if path.is_empty() {
            Vec::new()
        } else {
            path.split('/').collect()
        };
        parts.push(server);
        for part in &parts {
            match *part {
                // S3 would take it, and some stores and clients fold it into another key.
                "" => return Err(bad(part, "it has an empty part")),
                "." | ".." => return Err(bad(part, "'.' and '..' are not names")),
                part if part.chars().any(char::is_control) => {
                    return Err(bad(part, "it has a control character"));
                }
                _ => {}
            }
        }
        Ok(Self {
            prefix: parts.join("/"),
        })
    }

    /// What all keys of base backups begin with, a slash at its end.
    pub fn base_prefix(&self) -> String {
        format!("{}/base/", self.prefix)
    }

    /// What all keys of WAL begin with, a slash at its end.
    pub fn wal_prefix(&self) -> String {
        format!("{}/wals/", self.prefix)
    }

    /// The metadata of a base backup.
    pub fn info(&self, id: &BackupId) -> String {
        format!("{}/base/{id}/backup.info", self.prefix)
    }

    /// A tar file of a base backup.
    pub fn tar(&self, id: &BackupId, tar: &Tar) -> String {
        format!("{}/base/{id}/{tar}", self.prefix)
    }

    /// A file of `pg_wal`: below its log's directory, a history file at the root.
    pub fn wal(&self, file: &WalFile, compression: Option<Compression>) -> String {
        let suffix = compression.map_or("", Compression::suffix);
        match log_of(file) {
            Some(log) => format!("{}/wals/{log}/{file}{suffix}", self.prefix),
            None => format!("{}/wals/{file}{suffix}", self.prefix),
        }
    }

    /// What a key is of. One of another server is [`Object::Other`].
    pub fn object(&self, key: &str) -> Object {
        let Some(key) = key
            .strip_prefix(&self.prefix)
            .and_then(|key| key.strip_prefix('/'))
        else {
            return Object::Other;
        };
        let found = match key.split('/').collect::<Vec<_>>().as_slice() {
            ["base", id, "annotations", "keep"] => id.parse().ok().map(Object::Keep),
            ["base", id, "backup.info"] => id.parse().ok().map(Object::Info),
            ["base", id, name] => id
                .parse()
                .ok()
                .and_then(|id| Tar::parse(name).map(|tar| Object::Tar(id, tar))),
            ["wals", name] => wal_file(name, None),
            ["wals", log, name] => wal_file(name, Some(log)),
            _ => None,
        };
        found.unwrap_or(Object::Other)
    }
}

/// Timeline and log of a segment's name: the directory it belongs in.
fn log_of(file: &WalFile) -> Option<&str> {
    (file.class() != WalClass::History).then(|| file.as_str().get(..16))?
}

/// A WAL file where it belongs. In another directory barman-cloud would list it, and never find it when it fetches.
fn wal_file(name: &str, log: Option<&str>) -> Option<Object> {
    let (bare, compression) = Compression::split(name);
    let file = WalFile::new(bare).ok()?;
    (log_of(&file) == log).then_some(Object::Wal(file, compression))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout() -> Layout {
        Layout::new("/backups/pg/", "main").unwrap()
    }

    fn id() -> BackupId {
        "20261122T203300".parse().unwrap()
    }

    #[test]
    fn keys_are_those_of_barman_cloud() {
        let layout = layout();
        assert_eq!(
            layout.info(&id()),
            "backups/pg/main/base/20261122T203300/backup.info"
        );
        let tar = Tar {
            tablespace: Some(16401),
            part: 1,
            compression: Some(Compression::Lz4),
        };
        assert_eq!(
            layout.tar(&id(), &tar),
            "backups/pg/main/base/20261122T203300/16401_0001.tar.lz4"
        );
        for (name, compression, key) in [
            (
                "0000000100000002000000A1",
                Some(Compression::Gzip),
                "0000000100000002/0000000100000002000000A1.gz",
            ),
            (
                "0000000100000002000000A1.partial",
                None,
                "0000000100000002/0000000100000002000000A1.partial",
            ),
            (
                "0000000100000002000000A1.00000028.backup",
                Some(Compression::Zstd),
                "0000000100000002/0000000100000002000000A1.00000028.backup.zst",
            ),
            (
                "00000002.history",
                Some(Compression::Snappy),
                "00000002.history.snappy",
            ),
        ] {
            let file = WalFile::new(name).unwrap();
            let key = format!("backups/pg/main/wals/{key}");
            assert_eq!(layout.wal(&file, compression), key);
            assert_eq!(layout.object(&key), Object::Wal(file, compression));
        }
        let root = Layout::new("", "main").unwrap();
        assert_eq!(root.wal_prefix(), "main/wals/");
        assert_eq!(root.base_prefix(), "main/base/");
    }

    #[test]
    fn what_barman_cloud_does_not_write_is_other() {
        for key in [
            "base/20261122T203300/data.tar.gz",
            "backups/pg/main2/base/20261122T203300/data.tar.gz",
            "backups/pg/main/base/latest/data.tar.gz",
            "backups/pg/main/base/20261122T203300/data.tar.zst",
            "backups/pg/main/base/20261122T203300/data_1.tar",
            "backups/pg/main/base/20261122T203300/data_0000.tar",
            "backups/pg/main/base/20261122T203300/016401.tar",
            "backups/pg/main/base/20261122T203300/+16401.tar",
            "backups/pg/main/base/20261122T203300/notes.tar",
            "backups/pg/main/base/20261122T203300",
            "backups/pg/main/wals/0000000100000002000000A1",
            "backups/pg/main/wals/0000000100000003/0000000100000002000000A1",
            "backups/pg/main/wals/0000000100000002/00000002.history",
            "backups/pg/main/wals/0000000100000002/0000000100000002000000A1.gz.gz",
            "backups/pg/main/wals/0000000100000002/0000000100000002000000A1.tmp",
            "backups/pg/main/",
            "",
        ] {
            assert_eq!(layout().object(key), Object::Other, "{key}");
        }
        assert_eq!(
            layout().object("backups/pg/main/base/20261122T203300/annotations/keep"),
            Object::Keep(id())
        );
    }

    #[test]
    fn names_that_make_another_key_are_refused() {
        for (path, server) in [
            ("", ""),
            ("", "a/b"),
            ("a//b", "s"),
            ("a/../b", "s"),
            ("", ".."),
            ("", "a\nb"),
            ("a\0", "s"),
        ] {
            assert!(Layout::new(path, server).is_err(), "{path:?} {server:?}");
        }
    }

    fn compression() -> impl Strategy<Value = Option<Compression>> {
        prop::option::of(prop::sample::select(Compression::ALL.to_vec()))
    }

    proptest! {
        #[test]
        fn a_tar_is_read_as_what_it_was_written_from(
            tablespace in prop::option::of(any::<u32>()), part in any::<u32>(), compression in compression()
        ) {
            let tar = Tar { tablespace, part, compression };
            let found = layout().object(&layout().tar(&id(), &tar));
            if compression.is_none_or(Compression::for_base_backups) {
                prop_assert_eq!(found, Object::Tar(id(), tar));
            } else {
                prop_assert_eq!(found, Object::Other);
            }
        }

        #[test]
        fn a_wal_file_is_read_as_what_it_was_written_from(
            name in "[0-9A-F]{24}(\\.partial|\\.[0-9A-F]{8}\\.backup)?|[0-9A-F]{8}\\.history", compression in compression()
        ) {
            let file = WalFile::new(name).unwrap();
            let key = layout().wal(&file, compression);
            prop_assert_eq!(layout().object(&key), Object::Wal(file, compression));
        }

        #[test]
        fn no_key_makes_it_panic(key in any::<String>()) {
            let _ = layout().object(&key);
            let _ = layout().object(&format!("backups/pg/main/{key}"));
            let _ = layout().object(&format!("backups/pg/main/wals/{key}"));
        }
    }
}
