//! Recovery points as tags of a snapshot, and back. Pure.
//!
//! What restic itself records (time, host, path) stays where it belongs; the rest is in tags that any restic shows and
//! keeps. Snapshots without them, made by restic alone, are recovery points too: of the target whose mountpoint is
//! the one path that they hold, and of every target whose mountpoint is among their paths or below one of them, if their
//! tree holds a directory for it, which is for those to find out who can read trees.

use std::path::Path;

use jiff::Timestamp;
use reseed_core::names::{DatasetName, PointId, SnapshotName, SourceName};
use reseed_core::offsite::BackupRequest;
use reseed_core::point::{Fingerprint, RecoveryPoint, Target};

use crate::snapshots::Snapshot;

const OURS: &str = "reseed";
const POINT: &str = "reseed-point=";
const DATASET: &str = "reseed-dataset=";
const SNAPSHOT: &str = "reseed-snapshot=";
const FINGERPRINT: &str = "reseed-fingerprint=";
const UNSEEDED: &str = "reseed-unseeded";
const TAKEN: &str = "reseed-taken=";
/// The dataset of what nobody said the dataset of.
const UNCLAIMED: &str = "unclaimed";

/// The tag of a backup that could not read everything.
pub const PARTIAL: &str = "reseed-partial";

/// The tags that keep what a request says beyond path, host and time.
#[must_use]
pub fn tags_of(request: &BackupRequest) -> Vec<String> {
    let mut tags = vec![
        OURS.to_owned(),
        tag_of_point(&request.point),
        tag_of_dataset(&request.target.dataset),
    ];
    if let Some(name) = &request.snapshot {
        tags.push(format!("{SNAPSHOT}{name}"));
    }
    if let Some(print) = &request.fingerprint {
        tags.push(format!(
            "{FINGERPRINT}{};{};{}",
            print.digest, print.files, print.bytes
        ));
    }
    if request.unseeded {
        tags.push(UNSEEDED.to_owned());
    }
    tags
}

/// The tag by which a snapshot is a point.
pub(crate) fn tag_of_point(point: &PointId) -> String {
    format!("{POINT}{point}")
}

/// The tag by which a snapshot is of a dataset.
pub(crate) fn tag_of_dataset(dataset: &DatasetName) -> String {
    format!("{DATASET}{dataset}")
}

/// One more tag, where the record keeps whole seconds only and the request says more.
pub(crate) fn tag_of_time(taken_at: Timestamp) -> Option<String> {
    (taken_at.subsec_nanosecond() != 0).then(|| format!("{TAKEN}{taken_at}"))
}

/// Removes each snapshot that another one says the same of, and that it is partial: where nothing may be deleted, the one
/// that was tagged afterwards doesn't replace the first but stands beside it, and the first looks complete.
pub(crate) fn without_superseded(snapshots: &mut Vec<Snapshot>) {
    let replaced: Vec<String> = superseded(snapshots).map(str::to_owned).collect();
    snapshots.retain(|snapshot| !replaced.contains(&snapshot.id));
}

/// The ids of those that another one says the same of, and that it is partial.
pub(crate) fn superseded(snapshots: &[Snapshot]) -> impl Iterator<Item = &str> {
    snapshots
        .iter()
        .filter(|snapshot| snapshot.tags.iter().any(|tag| tag == PARTIAL))
        .filter_map(|snapshot| snapshot.original.as_deref())
}

/// The recovery point that a snapshot is, if reseed of this host wrote it: only then is it reseed's to remove.
pub(crate) fn own_point(snapshot: &Snapshot, host: &str, source: &SourceName) -> Option<RecoveryPoint> {
    let ours = snapshot.host == host && snapshot.tags.iter().any(|tag| tag == OURS);
    let named = value(snapshot, POINT).is_some_and(|id| PointId::new(id).is_ok());
    let own = ours && named && recorded_dataset(snapshot).is_some();
    own.then(|| point_of(snapshot, source, None)).flatten()
}

/// What a snapshot's record says about being one of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It isn't.
    No,
    /// All of it is.
    Whole,
    /// Part of it may be: the tree says whether there is such a part.
    Perhaps,
}

/// Whether a snapshot is one of the target, going by its record.
#[must_use]
pub fn claim(snapshot: &Snapshot, target: Option<&Target>) -> Claim {
    let Some(target) = target else { return Claim::Whole };
    if let Some(dataset) = recorded_dataset(snapshot) {
        // Of a dataset above it, a snapshot holds but an empty mountpoint.
        return if dataset == target.dataset {
            Claim::Whole
        } else {
            Claim::No
        };
    }
    let mountpoint = &target.mountpoint;
    match snapshot.paths.as_slice() {
        [only] if Path::new(only) == mountpoint => Claim::Whole,
        paths if paths.iter().any(|path| mountpoint.starts_with(path)) => Claim::Perhaps,
        _ => Claim::No,
    }
}

fn value<'a>(snapshot: &'a Snapshot, prefix: &str) -> Option<&'a str> {
    snapshot.tags.iter().find_map(|tag| tag.strip_prefix(prefix))
}

/// Whether reseed recorded which dataset the snapshot is of.
pub(crate) fn is_recorded(snapshot: &Snapshot) -> bool {
    recorded_dataset(snapshot).is_some()
}

fn recorded_dataset(snapshot: &Snapshot) -> Option<DatasetName> {
    value(snapshot, DATASET).and_then(|name| DatasetName::new(name).ok())
}

/// The recovery point that a snapshot is, or may be; `None` when it is not one of the target.
#[must_use]
pub fn point_of(snapshot: &Snapshot, source: &SourceName, target: Option<&Target>) -> Option<RecoveryPoint> {
    let claim = claim(snapshot, target);
    let value = |prefix: &str| value(snapshot, prefix);
    let has = |wanted: &str| snapshot.tags.iter().any(|tag| tag == wanted);
    let dataset = match (claim, target) {
        (Claim::No, _) => return None,
        (_, Some(target)) => target.dataset.clone(),
        (_, None) => recorded_dataset(snapshot).or_else(|| dataset_of_path(snapshot))?,
    };
    let id = value(POINT)
        .and_then(|id| PointId::new(id).ok())
        .or_else(|| id_of_snapshot(&snapshot.id))?;
    // They are of all that the snapshot holds.
    let whole = claim == Claim::Whole;
    let fingerprint = value(FINGERPRINT).and_then(parse_fingerprint).filter(|_| whole);
    let bytes = snapshot.bytes.filter(|_| whole);
    Some(RecoveryPoint {
        id,
        dataset,
        source: source.clone(),
        locator: snapshot.id.clone(),
        snapshot: value(SNAPSHOT).and_then(|name| SnapshotName::new(name).ok()),
        taken_at: value(TAKEN)
            .and_then(|time| time.parse().ok())
            .filter(|time: &Timestamp| time.as_second() == snapshot.time.as_second())
            .unwrap_or(snapshot.time),
        fingerprint,
        bytes: bytes.or(fingerprint.map(|print| print.bytes)),
        unseeded: has(UNSEEDED),
        partial: has(PARTIAL),
        altered: snapshot.original.is_some(),
    })
}

fn id_of_snapshot(id: &str) -> Option<PointId> {
    PointId::new(format!("restic:{}", id.get(..16)?)).ok()
}

/// What is offered for a snapshot file that can't be read: it may be one of any target. As the oldest and partial one,
/// nobody takes it before a sound one.
pub(crate) fn point_of_unreadable(
    id: &str,
    source: &SourceName,
    target: Option<&Target>,
) -> Option<RecoveryPoint> {
    let dataset = match target {
        Some(target) => target.dataset.clone(),
        None => DatasetName::new(UNCLAIMED).ok()?,
    };
    Some(RecoveryPoint {
        id: id_of_snapshot(id)?,
        dataset,
        source: source.clone(),
        locator: id.to_owned(),
        snapshot: None,
        taken_at: Timestamp::UNIX_EPOCH,
        fingerprint: None,
        bytes: None,
        unseeded: false,
        partial: true,
        altered: false,
    })
}

/// A name for what nobody gave one: made of the path, so that the list is complete.
fn dataset_of_path(snapshot: &Snapshot) -> Option<DatasetName> {
    let path = snapshot.paths.first().map_or("", String::as_str);
    let parts = path.split('/').filter(|part| !part.is_empty()).map(|part| {
        let part: String = part
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || "_-.:".contains(c) {
                    c
                } else {
                    '_'
                }
            })
            .collect();
        if part.starts_with(['-', '.']) {
            format!("_{part}")
        } else {
            part
        }
    });
    let name = std::iter::once(UNCLAIMED.to_owned())
        .chain(parts)
        .collect::<Vec<_>>()
        .join("/");
    DatasetName::new(name)
        .or_else(|_| DatasetName::new(UNCLAIMED))
        .ok()
}

fn parse_fingerprint(text: &str) -> Option<Fingerprint> {
    let mut parts = text.split(';');
    let fingerprint = Fingerprint {
        digest: parts.next()?.parse().ok()?,
        files: parts.next()?.parse().ok()?,
        bytes: parts.next()?.parse().ok()?,
    };
    parts.next().is_none().then_some(fingerprint)
}

#[cfg(test)]
mod tests {
    use reseed_core::digest::TreeDigest;

    use super::*;

    fn target() -> Target {
        Target {
            dataset: DatasetName::new("tank/a b").unwrap(),
            mountpoint: "/var/lib/a".into(),
        }
    }

    fn request() -> BackupRequest {
        BackupRequest {
            target: target(),
            path: "/snap".into(),
            as_path: "/var/lib/a".into(),
            host: "h".into(),
            point: PointId::new("18446744073709551615").unwrap(),
            snapshot: Some(SnapshotName::new("autosnap_2026-11-22_20:33:00_hourly").unwrap()),
            taken_at: Timestamp::UNIX_EPOCH,
            fingerprint: Some(Fingerprint {
                digest: TreeDigest::from_bytes([7; 32]),
                files: 3,
                bytes: 4,
            }),
            unseeded: true,
        }
    }

    fn snapshot(tags: Vec<String>, paths: &[&str]) -> Snapshot {
        Snapshot {
            id: "ab".repeat(32),
            time: Timestamp::UNIX_EPOCH,
            host: "h".into(),
            tags,
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            tree: String::new(),
            files: None,
            bytes: None,
            original: None,
        }
    }

    #[test]
    fn what_a_request_says_comes_back() {
        let source = SourceName::new("offsite").unwrap();
        let mut tags = tags_of(&request());
        assert!(tags.iter().all(|tag| !tag.contains(',')));
        tags.push(PARTIAL.into());
        let stored = snapshot(tags, &["/var/lib/a"]);
        let point = point_of(&stored, &source, Some(&target())).unwrap();
        let asked = request();
        assert_eq!(
            (&point.id, &point.dataset, &point.snapshot),
            (&asked.point, &asked.target.dataset, &asked.snapshot)
        );
        assert_eq!((point.fingerprint, point.bytes), (asked.fingerprint, Some(4)));
        assert_eq!((point.unseeded, point.partial), (true, true));
        assert_eq!(point_of(&stored, &source, None), Some(point));
    }

    #[test]
    fn a_point_of_another_dataset_is_not_offered_even_for_the_same_path() {
        let other = Target {
            dataset: DatasetName::new("tank/other").unwrap(),
            ..target()
        };
        let stored = snapshot(tags_of(&request()), &["/var/lib/a"]);
        assert_eq!(
            point_of(&stored, &SourceName::new("o").unwrap(), Some(&other)),
            None
        );
    }

    #[test]
    fn a_snapshot_of_restics_own_belongs_to_its_path() {
        let source = SourceName::new("o").unwrap();
        let stored = snapshot(vec![], &["/var/lib/a"]);
        let point = point_of(&stored, &source, Some(&target())).unwrap();
        assert_eq!(
            (point.id.as_str(), point.dataset.as_str()),
            ("restic:abababababababab", "tank/a b")
        );
        for (paths, expected) in [
            (&["/var/lib/a"][..], Claim::Whole),
            (&["/etc", "/var/lib/a"], Claim::Perhaps),
            (&["/var/lib"], Claim::Perhaps),
            (&["/"], Claim::Perhaps),
            (&["/var/lib/a/b"], Claim::No),
            (&["/var/li"], Claim::No),
            (&[], Claim::No),
        ] {
            let stored = snapshot(vec![], paths);
            assert_eq!(claim(&stored, Some(&target())), expected, "{paths:?}");
            // Of another dataset there is only where this one would be mounted.
            let stored = snapshot(vec!["reseed-dataset=tank".into()], paths);
            assert_eq!(claim(&stored, Some(&target())), Claim::No, "{paths:?}");
        }
        let mut part = snapshot(vec![], &["/var/lib"]);
        part.bytes = Some(5);
        let point = point_of(&part, &source, Some(&target())).unwrap();
        assert_eq!((point.dataset.as_str(), point.bytes), ("tank/a b", None));
        let listed = point_of(&snapshot(vec![], &["/srv/-x/ü y"]), &source, None).unwrap();
        assert_eq!(listed.dataset.as_str(), "unclaimed/srv/_-x/__y");
    }

    #[test]
    fn damaged_tags_do_not_hide_a_point() {
        let tags = [
            "reseed",
            "reseed-point=a b/c",
            "reseed-fingerprint=nonsense",
            "reseed-dataset=tank/a b",
        ];
        let stored = snapshot(
            tags.iter().map(|tag| (*tag).to_owned()).collect(),
            &["/var/lib/a"],
        );
        let point = point_of(&stored, &SourceName::new("o").unwrap(), Some(&target())).unwrap();
        assert_eq!(
            (point.id.as_str(), point.fingerprint),
            ("restic:abababababababab", None)
        );
    }
}
