//! Shrinking: leaves out of a schedule whatever its failure doesn't need.

use super::check::Invariant;
use super::mutants::Mutant;
use super::plan::Schedule;
use super::run::run_schedule;

/// The shortest schedule that was found to fail in the same way, and its words. Bounded, because a violation that takes
/// long to shrink is better told than shrunk.
pub(super) fn shrink(
    schedule: &Schedule,
    mutant: Option<Mutant>,
    invariant: Invariant,
    what: String,
) -> (Schedule, String) {
    let mut best = (schedule.clone(), what);
    let mut tries = 0;
    loop {
        let mut smaller = false;
        for candidate in candidates(&best.0) {
            tries += 1;
            if tries > 2000 {
                return best;
            }
            match run_schedule(&candidate, mutant, false).violation {
                Some((found, what)) if found == invariant => {
                    best = (candidate, what);
                    smaller = true;
                    break;
                }
                _ => {}
            }
        }
        if !smaller {
            return best;
        }
    }
}

/// Everything that is a little smaller: a run of steps left out, then one, then a fault or a stop, then a service.
fn candidates(schedule: &Schedule) -> Vec<Schedule> {
    let mut all = Vec::new();
    let len = schedule.steps.len();
    for width in [len / 2, len / 4, 1] {
        if width == 0 {
            continue;
        }
        for start in (0..len).step_by(width) {
            let mut smaller = schedule.clone();
            smaller.steps.drain(start..(start + width).min(len));
            all.push(smaller);
        }
    }
    for (index, step) in schedule.steps.iter().enumerate() {
        for fault in 0..step.faults.len() {
            let mut smaller = schedule.clone();
            smaller.steps[index].faults.remove(fault);
            all.push(smaller);
        }
        if step.stop.is_some() {
            let mut smaller = schedule.clone();
            smaller.steps[index].stop = None;
            all.push(smaller);
        }
    }
    for (index, service) in schedule.lab.services.iter().enumerate() {
        if service.datasets > 1 {
            let mut smaller = schedule.clone();
            smaller.lab.services[index].datasets = 1;
            all.push(smaller);
        }
    }
    all
}
