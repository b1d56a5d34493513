//! The store's own small files: what is in them, and how damage to one is found out.
//!
//! Every record is one JSON object `{"format": n, "check": BLAKE3 of the body's bytes, "body": {…}}`, so that a flipped
//! bit, a cut or a file of zeros is told from a record, and a newer format from damage. Readable with `jq`.

use std::ffi::CStr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use reseed_core::error::Common;
use reseed_core::names::{DatasetName, Guid, RunId, SnapshotName, SourceName};
use reseed_core::point::{Fingerprint, Marker, RecoveryPoint, Snapshot};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::sys::{self, Done, During, Fail};

/// The format of everything in a store's root. A newer one is refused.
pub(super) const FORMAT: u32 = 1;
/// No record is larger.
const MOST: usize = 1 << 20;

#[derive(Deserialize)]
struct Envelope<'a> {
    format: u32,
    check: Option<String>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

/// What was found in a record's place.
#[derive(Debug)]
pub(super) enum Found<T> {
    Missing,
    There(T),
    /// Why it can't be believed.
    Damaged(String),
    /// Of a format we don't know.
    Newer(u32),
}

/// Reads a record.
pub(super) fn read<T: DeserializeOwned>(dir: impl AsFd, name: &CStr) -> Result<Found<T>, rustix::io::Errno> {
    match sys::read_small(dir, name, MOST) {
        Ok(None) => Ok(Found::Missing),
        Ok(Some(bytes)) => Ok(parse(&bytes)),
        Err(rustix::io::Errno::FBIG) => Ok(Found::Damaged("it is larger than any record".to_owned())),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::LOOP) => {
            Ok(Found::Damaged("it is not a regular file".to_owned()))
        }
        Err(error) => Err(error),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Found<T> {
    let envelope: Envelope<'_> = match serde_json::from_slice(bytes) {
        Ok(envelope) => envelope,
        Err(error) => return Found::Damaged(error.to_string()),
    };
    if envelope.format > FORMAT {
        return Found::Newer(envelope.format);
    }
    let (Some(check), Some(body)) = (envelope.check, envelope.body) else {
        return Found::Damaged("it has no body or no checksum".to_owned());
    };
    if check != blake3::hash(body.get().as_bytes()).to_hex().as_str() {
        return Found::Damaged("its checksum doesn't match".to_owned());
    }
    match serde_json::from_str(body.get()) {
        Ok(record) => Found::There(record),
        Err(error) => Found::Damaged(error.to_string()),
    }
}

/// Writes a record so that it is there whole or not at all.
pub(super) fn write<T: Serialize>(dir: impl AsFd, name: &CStr, record: &T) -> Done<()> {
    let what = || format!("can't write the record {}", sys::shown(name.to_bytes()));
    sys::write_atomic(dir, name, text(record)?.as_bytes()).during(what)
}

fn text<T: Serialize>(record: &T) -> Done<String> {
    let body = serde_json::to_string(record)
        .map_err(|error| Fail::new(Common::InvalidInput, "can't write a record as JSON").said(error))?;
    let check = blake3::hash(body.as_bytes()).to_hex();
    Ok(format!(
        "{{\"format\":{FORMAT},\"check\":\"{check}\",\"body\":{body}}}\n"
    ))
}

/// `reseed-store.json`: this directory is a store, and which.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StoreRecord {
    pub(super) id: Guid,
    pub(super) created: Timestamp,
}

/// `meta.json` of a snapshot. Never changes; holds are files beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SnapshotRecord {
    pub(super) dataset: DatasetName,
    pub(super) name: SnapshotName,
    pub(super) guid: Guid,
    pub(super) taken_at: Timestamp,
    pub(super) fingerprint: Option<Fingerprint>,
    /// Regular files; each name of a hard-linked one counts.
    pub(super) files: u64,
    /// Logical bytes of those; hard-linked ones count once.
    pub(super) bytes: u64,
    /// Bytes that were not shared with the snapshot before.
    pub(super) copied: u64,
    pub(super) unseeded: bool,
    /// The snapshots that were taken together with this one; they are listed when all are in place.
    pub(super) group: Option<Guid>,
    /// Files that were being written to while they were copied: each a mixture of states. The first few by name.
    pub(super) torn: Vec<String>,
    pub(super) torn_count: u64,
    /// What is not as it was in the live tree.
    pub(super) warnings: Vec<String>,
}

impl SnapshotRecord {
    /// As the contract has it, without holds.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            dataset: self.dataset.clone(),
            name: self.name.clone(),
            guid: self.guid,
            taken_at: self.taken_at,
            fingerprint: self.fingerprint,
            bytes: Some(self.bytes),
            holds: Vec::new(),
            unseeded: self.unseeded,
        }
    }
}

/// `origin.json` of a replica's dataset: whose it is. Two hosts may have services of one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OriginRecord {
    pub(super) host: String,
}

/// `groups/<id>.json`: these snapshots are being put in place together.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct GroupRecord {
    pub(super) run: RunId,
    pub(super) name: SnapshotName,
    pub(super) members: Vec<DatasetName>,
}

/// `marker.json` of a dataset.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct MarkerRecord {
    /// The live directory it was written on.
    pub(super) guid: Guid,
    pub(super) marker: Marker,
}

/// `place.json` of a dataset: where its live directory was seen last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PlaceRecord {
    /// The live directory. JSON has no bytes, so a path that is not UTF-8 is kept as its quoted form.
    pub(super) mountpoint: String,
    /// The mount that it was on.
    pub(super) mounted_at: PathBuf,
}

impl PlaceRecord {
    /// Whether the place was on a disk below the mount that it is on now: mounted deeper than before is somebody's new
    /// disk; mounted less deep is a disk that is missing.
    pub(super) fn is_below(&self, now: &Path) -> bool {
        self.mounted_at != now && self.mounted_at.starts_with(now)
    }
}

/// `stage.json` of a staging directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StageRecord {
    pub(super) dataset: DatasetName,
    pub(super) run: RunId,
    pub(super) point: RecoveryPoint,
    /// The staged tree's own guid, so that it is known again after it was renamed.
    pub(super) tree: Guid,
    /// It failed verification; what is wrong with it.
    pub(super) quarantined: Option<String>,
}

impl StageRecord {
    /// From which source it is being restored.
    pub(super) fn source(&self) -> &SourceName {
        &self.point.source
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_and_newer_formats_are_told_apart() {
        let record = StoreRecord {
            id: Guid(u64::MAX),
            created: Timestamp::UNIX_EPOCH,
        };
        let good = text(&record).unwrap().into_bytes();
        assert!(matches!(parse::<StoreRecord>(&good), Found::There(r) if r.id == record.id));
        for cut in 0..good.len() - 2 {
            assert!(
                matches!(parse::<StoreRecord>(&good[..cut]), Found::Damaged(_)),
                "cut at {cut}"
            );
        }
        for at in 0..good.len() - 1 {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(
                !matches!(parse::<StoreRecord>(&bad), Found::There(r) if r.id != record.id),
                "flipped at {at}"
            );
        }
        assert!(matches!(
            parse::<StoreRecord>(&vec![0; good.len()]),
            Found::Damaged(_)
        ));
        let newer = String::from_utf8(good)
            .unwrap()
            .replace("\"format\":1", "\"format\":2");
        assert!(matches!(parse::<StoreRecord>(newer.as_bytes()), Found::Newer(2)));
        assert!(matches!(
            parse::<StoreRecord>(b"{\"format\":7,\"new\":[]}"),
            Found::Newer(7)
        ));
    }
}
