//! The unseeded guard: nothing that ages out recovery points runs while what is live may be less than what they hold.

use serde::{Deserialize, Serialize};

use crate::point::{Fingerprint, MarkerState, Snapshot};
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
pub fn guard(service: &str, inspections: &[Inspection], snapshots: &[Snapshot]) -> Result<(), Guarded> {
    let adopt = format!("`reseed adopt {service}` says that what is there now is the service's data");
    for inspection in inspections {
        let dataset = &inspection.target.dataset;
        if let Some(marker) = &inspection.marker
            && let MarkerState::Unseeded { why } = &marker.state
        {
            let why = format!(
                "{service} is unseeded: it was started without data at {} ({why})",
                marker.at
            );
            return Err(Guarded {
                why,
                hint: format!("restore it, or {adopt}"),
            });
        }
        let adopted = inspection
            .marker
            .as_ref()
            .filter(|m| m.state == MarkerState::Adopted)
            .map(|m| m.at);
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
        let since =
            |s: &&Snapshot| s.dataset == *dataset && !s.unseeded && adopted.is_none_or(|at| s.taken_at >= at);
        let mut measured = snapshots
            .iter()
            .rev()
            .filter(since)
            .filter_map(|s| Some((s, s.fingerprint?)));
        let Some((newest, now)) = measured.next() else {
            continue;
        };
        let shrank =
            |(_, then): &(&Snapshot, Fingerprint)| now.bytes < then.bytes / 2 || now.files < then.files / 2;
        if let Some((before, then)) = measured.find(shrank) {
            let why = format!(
                "{dataset} shrank from {} files and {} bytes in {} to {} files and {} bytes in {}",
                then.files, then.bytes, before.name, now.files, now.bytes, newest.name
            );
            return Err(Guarded {
                why,
                hint: format!("look at it; then {adopt}"),
            });
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
