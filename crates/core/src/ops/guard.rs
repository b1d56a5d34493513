//! The unseeded guard: nothing that ages out recovery points runs while what is live may be less than what they hold.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::DatasetName;
use crate::point::{Fingerprint, MarkerState, RecoveryPoint, Snapshot};
use crate::preseed::UNSEEDED_HOLD;
use crate::store::{Condition, Inspection};

/// Why nothing may be aged out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guarded {
    /// Why.
    pub why: String,
    /// What lifts it.
    pub hint: String,
}

/// Decides whether older recovery points of a service may be aged out.
///
/// Forbidden while the service is unseeded (by its marker, or by the hold that a start without data leaves), while any of its
/// datasets isn't plainly there with data, and when its newest snapshot has less than half the files or bytes of any other,
/// unless an operator has adopted the state since.
///
/// # Errors
/// [`Guarded`] says why not.
pub fn guard(
    service: &str,
    inspections: &[Inspection],
    snapshots: &[Snapshot],
    now: Timestamp,
) -> Result<(), Guarded> {
    let adopt = adopt(service);
    for inspection in inspections {
        let dataset = &inspection.target.dataset;
        if let Some(marker) = &inspection.marker
            && marker.is_unseeded()
        {
            let why = match &marker.state {
                MarkerState::Unseeded { why } => {
                    format!("it was started without data at {} ({why})", marker.at)
                }
                _ => "its state was taken while it was".to_owned(),
            };
            let why = format!("{service} is unseeded: {why}");
            return Err(Guarded {
                why,
                hint: format!("restore it, or {adopt}"),
            });
        }
        let adopted = adopted_at(inspection);
        match &inspection.condition {
            Condition::Populated => {}
            Condition::Empty if adopted.is_some() => {}
            other => {
                let why = format!("{dataset} does not plainly hold data: {}", describe(other));
                return Err(Guarded {
                    why,
                    hint: format!("`reseed preseed {service}` first"),
                });
            }
        }
        // What an operator adopted is the measure from then on; before that, the largest state there is.
        let adopted = adopted.filter(|at| *at <= now);
        let since = |s: &&Snapshot| {
            // What is dated in the future can't have been seen by whoever adopted what there was.
            let counts = adopted.is_none_or(|at| s.taken_at >= at && s.taken_at <= now);
            s.dataset == *dataset && !s.unseeded && counts
        };
        let mine: Vec<&Snapshot> = snapshots.iter().filter(since).collect();
        let is_measured = |s: &&&Snapshot| Measured::snapshot(s).is_some();
        // By the store's order, and by their dates: where that order is by date, one that a wrong clock has put into the future comes last.
        let last = mine.iter().rev().find(is_measured);
        let by_date = mine.iter().filter(is_measured);
        let by_date = by_date.max_by_key(|s| (s.taken_at <= now, s.taken_at));
        for newest in [last, by_date].into_iter().flatten() {
            let others = mine.iter().rev().filter(|s| s.guid != newest.guid);
            if let Some(newest) = Measured::snapshot(newest) {
                not_shrunk(
                    service,
                    dataset,
                    &newest,
                    others.filter_map(|s| Measured::snapshot(s)),
                )?;
            }
        }
    }
    // An independent record of the same thing: the marker may have gone with a directory that was made anew.
    if let Some(held) = snapshots
        .iter()
        .find(|s| s.holds.iter().any(|tag| tag.as_str() == UNSEEDED_HOLD))
    {
        let why = format!("{} is held because {service} was started without data", held.name);
        return Err(Guarded {
            why,
            hint: format!("restore it, or {adopt}"),
        });
    }
    Ok(())
}

/// Decides the same before points of an off-site repository age out. Their measures outlive the store's snapshots, which go with a
/// pool: a service that was begun anew by hand and filled itself a little has nothing else that says how much there was.
///
/// # Errors
/// [`Guarded`] says why not.
pub(super) fn guard_offsite(
    service: &str,
    inspections: &[Inspection],
    snapshots: &[Snapshot],
    points: &[RecoveryPoint],
    now: Timestamp,
) -> Result<(), Guarded> {
    guard(service, inspections, snapshots, now)?;
    for inspection in inspections {
        let dataset = &inspection.target.dataset;
        let adopted = adopted_at(inspection).filter(|at| *at <= now);
        let counts = |of: &DatasetName, unseeded: bool, at: Timestamp| {
            // What is dated in the future can't have been seen by whoever adopted what there was, nor be after it.
            of == dataset && !unseeded && adopted.is_none_or(|adopted| at >= adopted && at <= now)
        };
        let remembered: Vec<Measured> = points
            .iter()
            .filter(|point| counts(&point.dataset, point.unseeded, point.taken_at))
            .filter_map(Measured::point)
            .collect();
        let live = snapshots
            .iter()
            .filter(|snapshot| counts(&snapshot.dataset, snapshot.unseeded, snapshot.taken_at))
            .filter_map(Measured::snapshot);
        // One that is dated in the future, by a clock that was wrong then, is not what is there now.
        let newest = live
            .chain(remembered.iter().cloned())
            .max_by_key(|measured| (measured.at <= now, measured.at));
        if let Some(newest) = newest {
            not_shrunk(service, dataset, &newest, remembered.into_iter())?;
        }
    }
    Ok(())
}

/// A state of which it is known how much there was.
#[derive(Debug, Clone)]
struct Measured {
    name: String,
    at: Timestamp,
    print: Fingerprint,
}

impl Measured {
    fn snapshot(snapshot: &Snapshot) -> Option<Self> {
        Some(Self {
            name: snapshot.name.to_string(),
            at: snapshot.taken_at,
            print: snapshot.fingerprint?,
        })
    }

    /// What is recorded is what there was, also where not all of it could be stored.
    fn point(point: &RecoveryPoint) -> Option<Self> {
        Some(Self {
            name: format!("{}'s point of {}", point.source, point.taken_at),
            at: point.taken_at,
            print: point.fingerprint?,
        })
    }
}

fn not_shrunk(
    service: &str,
    dataset: &DatasetName,
    newest: &Measured,
    mut before: impl Iterator<Item = Measured>,
) -> Result<(), Guarded> {
    let now = newest.print;
    let shrank = |then: &Measured| now.bytes < then.print.bytes / 2 || now.files < then.print.files / 2;
    let Some(before) = before.find(shrank) else {
        return Ok(());
    };
    let then = before.print;
    let why = format!(
        "{dataset} shrank from {} files and {} bytes in {} to {} files and {} bytes in {}",
        then.files, then.bytes, before.name, now.files, now.bytes, newest.name
    );
    Err(Guarded {
        why,
        hint: format!("look at it; then {}", adopt(service)),
    })
}

/// When an operator last said that what was there is the service's data; by a clock that may have been ahead.
fn adopted_at(inspection: &Inspection) -> Option<Timestamp> {
    let marker = inspection.marker.as_ref()?;
    (marker.state == MarkerState::Adopted).then_some(marker.at)
}

fn adopt(service: &str) -> String {
    format!("`reseed adopt {service}` says that what is there now is the service's data")
}

fn describe(condition: &Condition) -> String {
    match condition {
        Condition::PoolUnavailable { why } => format!("its storage is not available: {why}"),
        Condition::Absent => "it is not there".to_owned(),
        Condition::Unmounted { why } => format!("it is not mounted: {why}"),
        Condition::Occupied { by } => format!("its place is taken by {by}"),
        Condition::Empty => "it is empty".to_owned(),
        Condition::Populated => "it holds data".to_owned(),
        Condition::Unknown { why } => format!("its state can't be told: {why}"),
    }
}
