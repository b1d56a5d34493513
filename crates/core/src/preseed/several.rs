//! Services of several datasets, which belong to one moment: what is done when some are there and some are not, and when
//! they are of two moments.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::Candidate;
use super::probe::probe_all;
use super::report::{Outcome, Stage};
use super::restore::Slot;
use super::walk::{Walk, slots};
use crate::error::{SourceError, SourceKind};
use crate::names::{ServiceName, SourceName};
use crate::point::{MarkerState, Target};
use crate::store::{Condition, Inspection};

impl Walk<'_> {
    /// Some of the service's datasets hold data and others are missing.
    ///
    /// Datasets of one service belong to one moment, so a missing one is restored beside one that is there only to finish
    /// an earlier run, which had verified all of them before it promoted the first.
    pub(super) async fn restore_some(&mut self, inspections: &[Inspection], missing: &[usize]) -> Outcome {
        self.in_part = true;
        let mut slots = slots(inspections, missing);
        if let Some((source, taken_at)) = goes_on(inspections, missing) {
            self.finished = true;
            return self.finish_group(&mut slots, taken_at, &source).await;
        }
        let targets: Vec<&Target> = slots.iter().map(|slot| &slot.target).collect();
        let limit = self.share(self.service.policy.probe_budget, None);
        let mut probes = probe_all(self.engine, self.cx, self.service, &targets, limit).await;
        let never_existed = probes
            .iter()
            .all(|probe| matches!(&probe.answer, Ok(points) if points.is_empty()));
        if never_existed {
            let targets: Vec<Target> = targets.into_iter().cloned().collect();
            let targets: Vec<&Target> = targets.iter().collect();
            for (index, probe) in probes.iter_mut().enumerate() {
                self.settle_probe(probe, index, &targets).await;
            }
            return self.exhausted(&probes, &targets).await;
        }
        let names = |wanted: bool| -> String {
            let list = inspections
                .iter()
                .enumerate()
                .filter(|(index, _)| missing.contains(index) == wanted);
            list.map(|(_, i)| i.target.dataset.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        Outcome::Blocked {
            why: format!(
                "{} is missing while {} holds data, and putting back only a part could mix two moments",
                names(true),
                names(false)
            ),
            hint: format!(
                "`reseed restore {0} --set-aside` puts all of {0} back at one point and keeps what is there under another name",
                self.service.name
            ),
        }
    }

    /// Goes on with the point that the other datasets of the service were restored to.
    async fn finish_group(
        &mut self,
        slots: &mut [Slot],
        taken_at: Timestamp,
        source: &SourceName,
    ) -> Outcome {
        let targets: Vec<Target> = slots.iter().map(|slot| slot.target.clone()).collect();
        let targets: Vec<&Target> = targets.iter().collect();
        let limit = self.share(self.service.policy.probe_budget, None);
        let mut probes = probe_all(self.engine, self.cx, self.service, &targets, limit).await;
        let mut tried = BTreeSet::new();
        // Who staged the rest has the less to bring.
        let source = slots
            .iter()
            .find_map(|slot| slot.leftover.as_ref())
            .map_or(source, |left| &left.source);
        let first = self.service.sources.iter().position(|s| s.name() == source);
        let mut partial: Vec<Candidate> = Vec::new();
        let mut indices: Vec<usize> = (0..probes.len()).collect();
        indices.sort_by_key(|index| Some(*index) != first);
        for index in indices {
            self.settle_probe(&mut probes[index], index, &targets).await;
            let states = self.groups(&probes, &targets).swap_remove(index);
            let of_moment = |candidate: &Candidate| candidate.taken_at() == taken_at;
            if !states.is_empty() && !states.iter().any(of_moment) {
                let what = format!("it holds no state of {taken_at}");
                let error = SourceError::new(SourceKind::NoSuchPoint, what).report();
                let name = self.service.sources[index].name().clone();
                let seconds = probes[index].seconds;
                self.record(name, Vec::new(), 1, Stage::NoPoint, Some(error), seconds);
            }
            for candidate in states.into_iter().filter(of_moment) {
                // Another source may have all of it.
                if candidate.rank() > 0 {
                    partial.push(candidate);
                } else if let Some(outcome) = self.try_one(&candidate, slots, &mut tried).await {
                    return outcome;
                }
            }
        }
        for candidate in partial {
            if let Some(outcome) = self.try_one(&candidate, slots, &mut tried).await {
                return outcome;
            }
        }
        if let Some(outcome) = self.ask_stuck_again(slots).await {
            return outcome;
        }
        self.tell_untried();
        if let Some(held) = self.held_for_slow() {
            return held;
        }
        Outcome::Held {
            why: format!(
                "a part of {} was restored to its state of {taken_at}, and no source delivers the rest of it",
                self.service.name
            ),
        }
    }
}

/// The state that an earlier run began to put back, where what is missing is staged of the very state that the others were restored to.
pub(super) fn goes_on(inspections: &[Inspection], missing: &[usize]) -> Option<(SourceName, Timestamp)> {
    let populated = inspections.iter().filter(|i| i.condition == Condition::Populated);
    let (source, taken_at) = populated.filter_map(anchor).next()?;
    let leftover = missing.iter().find_map(|nth| inspections[*nth].staged())?;
    // A later restore of all of it, which had promoted nothing.
    if inspections
        .iter()
        .any(|i| i.condition == Condition::Populated && i.staged().is_some())
    {
        return None;
    }
    // Another source may have had to deliver the rest of that moment.
    (leftover.point.taken_at == taken_at).then_some((source, taken_at))
}

/// A restore in place of several datasets that was cut off between two of them: all hold data, of two moments.
pub(super) fn cut_off(service: &ServiceName, inspections: &[Inspection]) -> Option<Outcome> {
    let left = inspections.iter().find_map(|inspection| {
        let leftover = inspection.staged()?;
        let state = (leftover.source.clone(), leftover.point.taken_at);
        // Both put there by one run: that one was not cut off, and what is staged is a later one's.
        let together = |i: &Inspection| {
            let run = |i: &Inspection| i.marker.as_ref().map(|marker| marker.run.clone());
            anchor(inspection).as_ref() == Some(&state) && run(i) == run(inspection)
        };
        let other = |i: &&Inspection| {
            i.target != inspection.target && anchor(i).as_ref() == Some(&state) && !together(i)
        };
        inspections
            .iter()
            .find(other)
            .map(|other| (inspection, other, state.1))
    });
    let (behind, ahead, taken_at) = left?;
    Some(Outcome::Blocked {
        why: format!(
            "a restore was cut off: {} is at its state of {taken_at}, and {} is not yet",
            ahead.target.dataset, behind.target.dataset
        ),
        hint: format!(
            "`reseed restore {0} --at {taken_at} --set-aside` finishes it; if all of it is right as it is, `reseed adopt {0}`",
            service
        ),
    })
}

/// Where the data of a populated dataset came from, if a preseed put it there.
fn anchor(inspection: &Inspection) -> Option<(SourceName, Timestamp)> {
    if let Some(leftover) = inspection.leftover.as_ref().filter(|l| l.promoted) {
        return Some((leftover.source.clone(), leftover.point.taken_at));
    }
    match &inspection.marker.as_ref()?.state {
        MarkerState::Restored { source, taken_at, .. } => Some((source.clone(), *taken_at)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{DatasetName, Guid, PointId, RunId};
    use crate::point::{Marker, RecoveryPoint};
    use crate::store::Leftover;

    fn inspection(dataset: &str, restored_by: &str, staged_by: Option<&str>) -> Inspection {
        let dataset = DatasetName::new(dataset).unwrap();
        let source = SourceName::new("local").unwrap();
        let (id, at) = (PointId::from(Guid(1)), Timestamp::UNIX_EPOCH);
        let point = RecoveryPoint {
            id: id.clone(),
            dataset: dataset.clone(),
            source: source.clone(),
            locator: String::new(),
            snapshot: None,
            taken_at: at,
            fingerprint: None,
            bytes: None,
            unseeded: false,
            partial: false,
            altered: false,
        };
        Inspection {
            target: Target {
                mountpoint: format!("/{dataset}").into(),
                dataset,
            },
            condition: Condition::Populated,
            guid: Some(Guid(2)),
            marker: Some(Marker {
                run: RunId::new(restored_by).unwrap(),
                at,
                state: MarkerState::Restored {
                    source: source.clone(),
                    point: id,
                    taken_at: at,
                    unseeded: false,
                },
            }),
            leftover: staged_by.map(|run| Leftover {
                over: None,
                files: false,
                run: RunId::new(run).unwrap(),
                source,
                point,
                promoted: false,
            }),
        }
    }

    /// Both were put there by one run long ago, and have been written to since. A later restore of the same moment that was
    /// ended while it was staging has promoted nothing.
    #[test]
    fn a_restore_that_promoted_nothing_was_not_cut_off_between_two() {
        let service = ServiceName::new("pg").unwrap();
        let list = [
            inspection("pg/data", "old", Some("new")),
            inspection("pg/wal", "old", None),
        ];
        assert_eq!(cut_off(&service, &list), None);
        // The later one had promoted the second.
        let list = [
            inspection("pg/data", "old", Some("new")),
            inspection("pg/wal", "new", None),
        ];
        assert!(matches!(cut_off(&service, &list), Some(Outcome::Blocked { .. })));
    }

    /// The source that the first dataset came from was away, and another one has the same moment.
    #[test]
    fn a_restore_is_finished_from_whoever_has_that_moment() {
        let mut list = [
            inspection("pg/data", "old", None),
            inspection("pg/wal", "old", Some("new")),
        ];
        list[1].condition = Condition::Absent;
        list[1].marker = None;
        let mut staged = list[1].leftover.clone().unwrap();
        staged.source = SourceName::new("b2").unwrap();
        list[1].leftover = Some(staged.clone());
        let local = SourceName::new("local").unwrap();
        assert_eq!(goes_on(&list, &[1]), Some((local, Timestamp::UNIX_EPOCH)));
        staged.point.taken_at = Timestamp::from_second(1).unwrap();
        list[1].leftover = Some(staged);
        assert_eq!(goes_on(&list, &[1]), None);
    }

    /// It is a copy of that moment for somebody who wanted a file, and no restore.
    #[test]
    fn what_was_fetched_for_files_is_no_restore_that_was_cut_off() {
        let service = ServiceName::new("pg").unwrap();
        let mut list = [
            inspection("pg/data", "old", Some("new")),
            inspection("pg/wal", "new", None),
        ];
        for inspection in &mut list {
            if let Some(leftover) = &mut inspection.leftover {
                leftover.files = true;
            }
        }
        assert_eq!(cut_off(&service, &list), None);
        assert!(slots(&list, &[0]).iter().all(|slot| slot.leftover.is_none()));
    }
}
