//! What reseed writes into user properties, and when it counts. Pure.
//!
//! A property's value is inherited by children and travels with a stream, so a record counts only as the dataset's own
//! (`local`, which [`parse`](super::parse) sees to) and with the guid of what it was written on.

use std::collections::BTreeMap;

use jiff::Timestamp;
use reseed_core::error::{StoreError, StoreKind};
use reseed_core::names::{DatasetName, Guid, RunId};
use reseed_core::point::{Fingerprint, Marker, MarkerState, RecoveryPoint};
use serde::{Deserialize, Serialize};

use super::parse::{Facts, Listed};

/// What ZFS takes for a user property (`ZAP_MAXVALUELEN` less the NUL).
const MOST: usize = 8191;

/// The value of `reseed:marker`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct MarkerRecord {
    guid: Guid,
    marker: Marker,
}

/// The marker's text for a property.
pub(crate) fn write_marker(guid: Guid, marker: &Marker) -> Result<String, StoreError> {
    let mut record = MarkerRecord {
        guid,
        marker: marker.clone(),
    };
    let text = json(&record)?;
    if text.len() <= MOST {
        return Ok(text);
    }
    // The reasons of many sources can be long; the beginning of them is enough.
    if let MarkerState::Unseeded { why } = &mut record.marker.state {
        *why = why.chars().take(1000).collect();
    }
    fits(json(&record)?)
}

/// The marker, if it counts on what has these facts.
pub(crate) fn marker(facts: &Facts) -> Option<Marker> {
    let record: MarkerRecord = serde_json::from_str(facts.marker.as_deref()?).ok()?;
    (record.guid == facts.guid).then_some(record.marker)
}

/// The value of `reseed:stage`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StageRecord {
    /// For which target.
    pub(crate) dataset: DatasetName,
    /// By which run.
    pub(crate) run: RunId,
    /// With which point.
    pub(crate) point: RecoveryPoint,
    /// Set before the rename that makes it live: the guid of what carries this record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) promoting: Option<Guid>,
    /// What stood there had this mountpoint of its own and `zfs mount` can't mount it (`legacy`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mountpoint: Option<String>,
    /// The guid of what may be set aside for it, written before that is renamed. While that is aside and nothing stands at the
    /// target, or something empty that has come there meanwhile, its data is not absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) over: Option<Guid>,
    /// Properties that it gets when it is in place: they would be in the way while it is filled.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) later: BTreeMap<String, String>,
    /// It failed verification, and is kept for that reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) quarantined: Option<String>,
}

impl StageRecord {
    /// The record of a staging that begins.
    pub(crate) fn new(dataset: DatasetName, run: RunId, point: RecoveryPoint) -> Self {
        Self {
            dataset,
            run,
            point,
            promoting: None,
            mountpoint: None,
            over: None,
            later: BTreeMap::new(),
            quarantined: None,
        }
    }

    /// The record that a dataset carries as its own, if there is one.
    pub(crate) fn of(facts: &Facts) -> Option<Self> {
        Self::read(facts.stage.as_deref()?)
    }

    /// The record in a property's value.
    pub(crate) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The record on a target that was put in place and not marked yet.
    pub(crate) fn promoted(target: &DatasetName, facts: &Facts) -> Option<Self> {
        let record = Self::of(facts)?;
        let here = record.dataset == *target && record.promoting == Some(facts.guid);
        (here && marker(facts).is_none()).then_some(record)
    }

    /// The record's text for a property.
    pub(crate) fn write(&self) -> Result<String, StoreError> {
        fits(json(self)?)
    }

    /// Whether this is the staging of that point from that source.
    pub(crate) fn is_for(&self, point: &RecoveryPoint) -> bool {
        self.point.id == point.id && self.point.source == point.source
    }
}

fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::new(StoreKind::InvalidInput, "a record can't be written").said(error))
}

fn fits(text: String) -> Result<String, StoreError> {
    if text.len() > MOST {
        let what = format!("a record of {} bytes is too long for a ZFS property", text.len());
        return Err(StoreError::new(StoreKind::InvalidInput, what));
    }
    Ok(text)
}

/// The value of `reseed:digest` for a snapshot.
pub(crate) fn write_fingerprint(guid: Guid, found: &Fingerprint) -> String {
    format!("{guid} {} {} {}", found.digest, found.files, found.bytes)
}

/// The fingerprint of a listed snapshot, if it is that snapshot's own.
pub(crate) fn fingerprint(snapshot: &Listed) -> Option<Fingerprint> {
    let mut parts = snapshot.digest.as_deref()?.split(' ');
    let guid: Guid = parts.next()?.parse().ok()?;
    let found = Fingerprint {
        digest: parts.next()?.parse().ok()?,
        files: parts.next()?.parse().ok()?,
        bytes: parts.next()?.parse().ok()?,
    };
    (guid == snapshot.guid && parts.next().is_none()).then_some(found)
}

/// When a listed snapshot was taken: by the clock of who took it, or by ZFS.
pub(crate) fn taken_at(snapshot: &Listed) -> Timestamp {
    snapshot
        .taken
        .as_deref()
        .and_then(|text| text.parse().ok())
        .unwrap_or(snapshot.creation)
}
