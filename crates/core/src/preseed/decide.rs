//! What the state of a service's targets asks for. Pure.

use crate::point::MarkerState;
use crate::store::{Condition, Inspection};

/// What to do with a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Every dataset holds data.
    Present,
    /// Something forbids to touch it.
    Blocked {
        /// Why.
        why: String,
        /// What to do.
        hint: String,
    },
    /// These are missing (by their place in the list); nothing else of the service holds data.
    RestoreAll {
        /// All of them.
        missing: Vec<usize>,
    },
    /// Some hold data, these don't.
    RestoreSome {
        /// Those that don't.
        missing: Vec<usize>,
    },
}

/// Decides from one inspection per dataset.
///
/// Data that is there is enough: a degraded pool, a missing marker or an old leftover don't matter then. Everything that
/// is neither data nor clearly nothing blocks.
pub(crate) fn decide(inspections: &[Inspection]) -> Decision {
    let mut missing = Vec::new();
    let mut blocked: Option<(String, String)> = None;
    for (index, inspection) in inspections.iter().enumerate() {
        let dataset = &inspection.target.dataset;
        let place = inspection.target.mountpoint.display();
        let block = match &inspection.condition {
            Condition::Populated => continue,
            // An operator's word that this emptiness is the service's data.
            Condition::Empty if matches!(&inspection.marker, Some(m) if m.state == MarkerState::Adopted) => {
                continue;
            }
            Condition::Absent | Condition::Empty => {
                missing.push(index);
                continue;
            }
            Condition::PoolUnavailable { why } => (
                format!("the storage of {dataset} is not available: {why}"),
                format!(
                    "the data of {dataset} is probably still there; bring the pool or filesystem back, then run it again"
                ),
            ),
            Condition::Unmounted { why } if inspection.cut_off().is_some() => (
                format!("a restore of {dataset} was cut off while its data was set aside: {why}"),
                "the same `reseed restore` with `--set-aside` again finishes it".to_owned(),
            ),
            Condition::Unmounted { why } => (
                format!("{dataset} exists but is not mounted at {place}: {why}"),
                format!(
                    "mount {dataset} at {place}, then run it again; if what is there now is its data, `reseed adopt` says so"
                ),
            ),
            Condition::Occupied { by } => (
                format!("{place} is taken by {by}, which is not {dataset}"),
                format!(
                    "move what is at {place} away yourself if it is not needed; reseed never hides or removes it"
                ),
            ),
            Condition::Unknown { why } => (
                format!("the state of {dataset} can't be told: {why}"),
                "not knowing is not the same as missing, so nothing is restored".to_owned(),
            ),
        };
        blocked.get_or_insert(block);
    }
    match blocked {
        Some((why, hint)) => Decision::Blocked { why, hint },
        None if missing.is_empty() => Decision::Present,
        None if missing.len() == inspections.len() => Decision::RestoreAll { missing },
        None => Decision::RestoreSome { missing },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::DatasetName;
    use crate::point::Target;

    fn with(condition: Condition) -> Inspection {
        let target = Target {
            dataset: DatasetName::new("tank/a").unwrap(),
            mountpoint: "/srv/a".into(),
        };
        Inspection {
            target,
            condition,
            guid: None,
            marker: None,
            leftover: None,
        }
    }

    #[test]
    fn data_that_was_left_aside_blocks_and_the_same_restore_goes_on() {
        let mut cut_off = with(Condition::Unmounted { why: "aside".into() });
        let point = crate::point::RecoveryPoint {
            id: "p1".parse().unwrap(),
            dataset: cut_off.target.dataset.clone(),
            source: "off".parse().unwrap(),
            locator: "p1".into(),
            snapshot: None,
            taken_at: jiff::Timestamp::UNIX_EPOCH,
            fingerprint: None,
            bytes: None,
            unseeded: false,
            partial: false,
            altered: false,
        };
        cut_off.leftover = Some(crate::store::Leftover {
            run: "20261122T203300Z-1".parse().unwrap(),
            source: point.source.clone(),
            point,
            promoted: false,
            over: Some(crate::names::Guid(7)),
            files: false,
        });
        let Decision::Blocked { hint, .. } = decide(&[cut_off]) else {
            panic!("not blocked")
        };
        assert!(hint.contains("--set-aside"), "{hint}");
    }

    #[test]
    fn only_clear_absence_restores() {
        let why = || String::from("x");
        for condition in [
            Condition::PoolUnavailable { why: why() },
            Condition::Unmounted { why: why() },
            Condition::Occupied { by: why() },
            Condition::Unknown { why: why() },
        ] {
            assert!(matches!(
                decide(&[with(condition.clone())]),
                Decision::Blocked { .. }
            ));
            assert!(matches!(
                decide(&[with(Condition::Absent), with(condition)]),
                Decision::Blocked { .. }
            ));
        }
        assert_eq!(
            decide(&[with(Condition::Absent)]),
            Decision::RestoreAll { missing: vec![0] }
        );
        assert_eq!(
            decide(&[with(Condition::Empty)]),
            Decision::RestoreAll { missing: vec![0] }
        );
        assert_eq!(decide(&[with(Condition::Populated)]), Decision::Present);
        assert_eq!(
            decide(&[with(Condition::Populated), with(Condition::Absent)]),
            Decision::RestoreSome { missing: vec![1] }
        );
    }
}
