//! In which order points are tried. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::names::PointId;
use crate::point::{RecoveryPoint, Target};
use crate::service::{Prefer, Service};
use crate::store::Leftover;

/// One state of all datasets that are wanted, from one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The source's place in the chain.
    pub(crate) source: usize,
    /// One point a wanted dataset, in the order of the targets.
    pub(crate) points: Vec<RecoveryPoint>,
}

impl Candidate {
    /// When the state was taken: the oldest of its points.
    pub(crate) fn taken_at(&self) -> Timestamp {
        self.points
            .iter()
            .map(|p| p.taken_at)
            .min()
            .unwrap_or(Timestamp::MIN)
    }

    /// Whether it was taken after a start without data.
    pub(crate) fn is_unseeded(&self) -> bool {
        self.points.iter().any(|p| p.unseeded)
    }

    /// Whole states before partial ones, and those before what a start without data left behind.
    pub(crate) fn rank(&self) -> u8 {
        let partial = self.points.iter().any(|p| p.partial);
        u8::from(partial) + 2 * u8::from(self.is_unseeded())
    }

    /// Whether it stands for something that can't be read, and so for no state.
    pub(crate) fn is_damaged(&self) -> bool {
        self.points.iter().any(RecoveryPoint::is_damaged)
    }

    /// What tells its state from others, however often a source has that.
    pub(crate) fn state(&self) -> (usize, Vec<&PointId>) {
        (self.source, self.points.iter().map(|point| &point.id).collect())
    }

    fn same_state(&self, leftover: &Leftover) -> bool {
        self.points
            .iter()
            .any(|p| p.source == leftover.source && p.id == leftover.point.id)
    }
}

/// The states that one source has of all these datasets together, best first: whole before partial before those of an
/// unseeded service, newest first among each. What is newer the source's own order says, and not the dates: a clock that was wrong when a
/// snapshot was taken would have that one pass for the newest until it is so late.
pub(crate) fn group(source: usize, targets: &[&Target], points: &[RecoveryPoint]) -> Vec<Candidate> {
    // Datasets that are snapshotted together share the snapshot's name; a source that kept no names has the time.
    type Key<'a> = (Option<&'a str>, Option<Timestamp>);
    let mut groups: BTreeMap<Key<'_>, Vec<Copies<'_>>> = BTreeMap::new();
    for (nth, point) in points.iter().enumerate() {
        let Some(place) = targets.iter().position(|t| t.dataset == point.dataset) else {
            continue;
        };
        let key = match &point.snapshot {
            Some(name) => (Some(name.as_str()), None),
            None => (None, Some(point.taken_at)),
        };
        let group = groups
            .entry(key)
            .or_insert_with(|| vec![Copies::default(); targets.len()]);
        group[place].add((nth, point));
    }
    let mut candidates: Vec<(usize, bool, Candidate)> = Vec::with_capacity(groups.len());
    for group in groups.into_values() {
        let of = |pick: fn(&Copies<'_>) -> Option<usize>| {
            let nths: Vec<usize> = group.iter().map(pick).collect::<Option<_>>()?;
            let points = nths.iter().map(|nth| points[*nth].clone()).collect();
            Some(Candidate { source, points })
        };
        let Some((place, _)) = group.first().and_then(|copies| copies.best) else {
            continue;
        };
        let best = of(|copies| Some(copies.best?.0));
        candidates.extend(best.map(|best| (place, false, best)));
        if group.iter().any(|copies| copies.other.is_some()) {
            let other = of(|copies| Some(copies.other.or(copies.best)?.0));
            candidates.extend(other.map(|other| (place, true, other)));
        }
    }
    candidates.sort_by_key(|(place, is_other, candidate)| (candidate.rank(), *place, *is_other));
    candidates
        .into_iter()
        .map(|(_, _, candidate)| candidate)
        .collect()
}

/// What a source has of one dataset in one state, each with its place in the source's list.
#[derive(Debug, Clone, Copy, Default)]
struct Copies<'a> {
    best: Option<(usize, &'a RecoveryPoint)>,
    /// The same state, stored a second time: where the one can't be read, or isn't whole after all, that may be.
    other: Option<(usize, &'a RecoveryPoint)>,
}

impl<'a> Copies<'a> {
    fn add(&mut self, new: (usize, &'a RecoveryPoint)) {
        // Two points of one dataset under one name: the newer one, and of one state that was stored twice the whole one, as it was written.
        let worth = |(_, point): (usize, &RecoveryPoint)| (point.taken_at, !point.partial, !point.altered);
        let is_same = |(_, old): (usize, &RecoveryPoint)| old.taken_at == new.1.taken_at;
        match self.best {
            Some(best) if worth(best) >= worth(new) => {
                if is_same(best) && self.other.is_none_or(|other| worth(other) < worth(new)) {
                    self.other = Some(new);
                }
            }
            best => {
                self.other = best.filter(|best| is_same(*best));
                self.best = Some(new);
            }
        }
    }
}

/// All candidates in the order in which they are tried: every source's best, then older ones.
///
/// Partial states come after every whole one, and those of an unseeded service after every other one, whichever source has them: they are what a
/// start without data left behind. A leftover's state goes first when it loses nothing against what would be first.
pub(crate) fn order(
    per_source: Vec<Vec<Candidate>>,
    prefer: Prefer,
    leftover: Option<&Leftover>,
) -> Vec<Candidate> {
    let mut rounds: Vec<Vec<Candidate>> = Vec::new();
    for candidates in per_source {
        for (round, candidate) in candidates.into_iter().enumerate() {
            if rounds.len() <= round {
                rounds.push(Vec::new());
            }
            rounds[round].push(candidate);
        }
    }
    if prefer == Prefer::Newest {
        for round in &mut rounds {
            round.sort_by_key(|c| (c.rank(), std::cmp::Reverse(c.taken_at()), c.source));
        }
    }
    let mut ordered: Vec<Candidate> = rounds.into_iter().flatten().collect();
    ordered.sort_by_key(Candidate::rank);
    // Of its own source nothing may be newer, whatever the dates say.
    if let Some(leftover) = leftover
        && let Some(place) = ordered.iter().position(|c| c.same_state(leftover))
        && ordered[..place]
            .iter()
            .all(|before| before.source != ordered[place].source)
        && ordered[place].rank() <= ordered[0].rank()
        && ordered[place].taken_at() >= ordered[0].taken_at()
    {
        ordered[..=place].rotate_right(1);
    }
    ordered
}

/// What goes by age instead of by the chain's order.
pub(crate) const BY_AGE: &str = "`prefer = \"newest\"` goes by age";

/// What going by the chain's order loses against the best state of another source, if that is worth a word.
pub(crate) fn passed_over<'a>(
    service: &Service,
    best: &Candidate,
    bests: impl Iterator<Item = &'a Candidate>,
) -> Option<String> {
    const WORTH_SAYING: i64 = 3600;
    let newer = bests
        .filter(|other| !other.is_unseeded())
        .max_by_key(|other| other.taken_at())?;
    let later = newer.taken_at().as_second() - best.taken_at().as_second();
    let name = |candidate: &Candidate| service.sources[candidate.source].name();
    (later > WORTH_SAYING).then(|| {
        format!(
            "{} has a state of {}, and {} one of {}, which the chain's order passes over",
            name(best),
            best.taken_at(),
            name(newer),
            newer.taken_at()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{DatasetName, RunId, SnapshotName, SourceName};

    fn target(name: &str) -> Target {
        Target {
            dataset: DatasetName::new(name).unwrap(),
            mountpoint: format!("/{name}").into(),
        }
    }

    fn point(dataset: &str, source: &str, id: u64, at: i64) -> RecoveryPoint {
        RecoveryPoint {
            id: PointId::new(id.to_string()).unwrap(),
            dataset: DatasetName::new(dataset).unwrap(),
            source: SourceName::new(source).unwrap(),
            locator: String::new(),
            snapshot: Some(SnapshotName::new(format!("s{at}")).unwrap()),
            taken_at: Timestamp::from_second(at).unwrap(),
            fingerprint: None,
            bytes: None,
            unseeded: false,
            partial: false,
            altered: false,
        }
    }

    fn ids(candidates: &[Candidate]) -> Vec<&str> {
        candidates.iter().map(|c| c.points[0].id.as_str()).collect()
    }

    #[test]
    fn only_states_of_all_datasets_count() {
        let (data, wal) = (target("tank/data"), target("tank/wal"));
        let points = [
            point("tank/data", "l", 1, 10),
            point("tank/wal", "l", 2, 10),
            point("tank/data", "l", 3, 20),
        ];
        let found = group(0, &[&data, &wal], &points);
        assert_eq!(ids(&found), ["1"]);
        assert_eq!(found[0].points[1].id.as_str(), "2");
    }

    #[test]
    fn the_newest_is_what_was_made_last_whatever_date_a_wrong_clock_gave_it() {
        let data = target("tank/data");
        let points = [(3, 20), (2, 9_000), (1, 10)].map(|(id, at)| point("tank/data", "l", id, at));
        assert_eq!(ids(&group(0, &[&data], &points)), ["3", "2", "1"]);
    }

    #[test]
    fn partial_and_unseeded_states_come_last() {
        let data = target("tank/data");
        let mut points: Vec<_> = (1..=3)
            .map(|n| point("tank/data", "l", n, i64::try_from(n).unwrap()))
            .collect();
        points[2].unseeded = true;
        points[1].partial = true;
        assert_eq!(ids(&group(0, &[&data], &points)), ["1", "2", "3"]);
        let other = group(1, &[&data], &[point("tank/data", "r", 9, 0)]);
        let only_unseeded = vec![group(0, &[&data], &points[2..]), other];
        assert_eq!(ids(&order(only_unseeded, Prefer::Chain, None)), ["9", "3"]);
    }

    #[test]
    fn of_one_state_that_was_stored_twice_the_whole_one_counts() {
        let data = target("tank/data");
        let whole = point("tank/data", "l", 1, 1);
        let partial = RecoveryPoint {
            partial: true,
            ..whole.clone()
        };
        for points in [[partial.clone(), whole.clone()], [whole, partial]] {
            let found = group(0, &[&data], &points);
            assert!(!found[0].points[0].partial, "{points:?}");
            // A part is better than something older, and comes after it: where the whole one can't be had.
            assert!(found[1].points[0].partial, "{points:?}");
        }
        let altered = RecoveryPoint {
            altered: true,
            locator: "altered".to_owned(),
            ..point("tank/data", "l", 1, 1)
        };
        for points in [
            [altered.clone(), point("tank/data", "l", 1, 1)],
            [point("tank/data", "l", 1, 1), altered],
        ] {
            let found = group(0, &[&data], &points);
            let places: Vec<&str> = found.iter().map(|c| c.points[0].locator.as_str()).collect();
            assert_eq!(places.first(), Some(&""), "{points:?}");
        }
        let again = RecoveryPoint {
            locator: "again".to_owned(),
            ..point("tank/data", "l", 1, 1)
        };
        let twice = [
            point("tank/data", "l", 1, 1),
            again,
            point("tank/data", "l", 2, 0),
        ];
        let found = group(0, &[&data], &twice);
        let places: Vec<&str> = found.iter().map(|c| c.points[0].locator.as_str()).collect();
        assert_eq!(places, ["", "again", ""]);
    }

    #[test]
    fn a_copy_that_may_lack_something_comes_after_every_whole_one() {
        let data = target("tank/data");
        let whole = point("tank/data", "l", 1, 1);
        let part = RecoveryPoint {
            partial: true,
            locator: "part".to_owned(),
            ..whole.clone()
        };
        let near = group(0, &[&data], &[whole, part]);
        let far = group(1, &[&data], &[point("tank/data", "r", 2, 1)]);
        let all = order(vec![near, far], Prefer::Chain, None);
        let partial: Vec<bool> = all.iter().map(|c| c.points[0].partial).collect();
        assert_eq!(partial, [false, false, true]);
    }

    #[test]
    fn every_best_point_before_any_older_one() {
        let data = target("tank/data");
        let local = group(
            0,
            &[&data],
            &[point("tank/data", "l", 2, 2), point("tank/data", "l", 1, 1)],
        );
        let replica = group(1, &[&data], &[point("tank/data", "r", 3, 3)]);
        assert_eq!(
            ids(&order(vec![local.clone(), replica.clone()], Prefer::Chain, None)),
            ["2", "3", "1"]
        );
        assert_eq!(
            ids(&order(vec![local, replica], Prefer::Newest, None)),
            ["3", "2", "1"]
        );
    }

    #[test]
    fn a_leftover_goes_first_only_when_that_loses_nothing() {
        let data = target("tank/data");
        let leftover = |at| Leftover {
            over: None,
            files: false,
            run: RunId::new("r").unwrap(),
            source: SourceName::new("r").unwrap(),
            point: point("tank/data", "r", 3, at),
            promoted: false,
        };
        let lists = |at| {
            vec![
                group(0, &[&data], &[point("tank/data", "l", 1, 5)]),
                group(1, &[&data], &[point("tank/data", "r", 3, at)]),
            ]
        };
        assert_eq!(
            ids(&order(lists(5), Prefer::Chain, Some(&leftover(5)))),
            ["3", "1"]
        );
        assert_eq!(
            ids(&order(lists(4), Prefer::Chain, Some(&leftover(4)))),
            ["1", "3"]
        );
        // Its own source has made another one after it, whatever the dates say.
        let mut newer = lists(9);
        newer[1].insert(0, group(1, &[&data], &[point("tank/data", "r", 4, 6)]).remove(0));
        assert_eq!(
            ids(&order(newer, Prefer::Chain, Some(&leftover(9)))),
            ["1", "4", "3"]
        );
    }
}
