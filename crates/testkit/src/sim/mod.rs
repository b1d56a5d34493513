//! The simulator: from a seed it draws a lab and a schedule of operations and faults, runs the real core over the world in
//! paused time, and checks the invariants after every step.
//!
//! The same seed gives the same run, to the letter of its trace. What it finds is shrunk to the steps that are needed.
//! How the core is called is in `drive` alone; what must hold is in `check`; that each check can fail is shown by
//! [`Mutant`]s, which break the core's surroundings on purpose.

mod check;
mod draw;
mod drive;
mod mutants;
mod plan;
mod run;
mod shrink;

use std::fmt;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

pub use check::Invariant;
pub use mutants::Mutant;
pub use plan::{Act, LabPlan, Schedule, ServicePlan, SourceId, Step, Stop, Who};
pub use run::{Verdict, run_schedule};

/// An invariant that did not hold.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The seed that shows it.
    pub seed: u64,
    /// Which.
    pub invariant: Invariant,
    /// How, in one sentence.
    pub what: String,
    /// What of the seed's schedule is needed to show it.
    pub schedule: Schedule,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}: {}", self.seed, self.invariant, self.what)?;
        write!(f, "{}", self.schedule)
    }
}

/// What many schedules came to.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Schedules that were run.
    pub schedules: u64,
    /// Preseeds in them that put data back: a simulator that restores nothing proves nothing.
    pub restored: u64,
    /// What was found, the smallest seed first.
    pub failures: Vec<Failure>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.failures {
            writeln!(f, "{failure}")?;
        }
        write!(
            f,
            "{} schedules, {} violations",
            self.schedules,
            self.failures.len()
        )
    }
}

/// Runs the schedule of one seed. With `trace`, the verdict tells every step.
pub fn run_seed(seed: u64, trace: bool) -> Verdict {
    run_schedule(&Schedule::draw(seed), None, trace)
}

/// Runs many seeds on so many threads, and shrinks what fails. Stops early once ten have failed.
pub fn run_many(seeds: Range<u64>, threads: usize) -> Tally {
    hunt(seeds, threads, None, 10)
}

/// Runs seeds with a part broken on purpose, until one is caught.
pub fn catch(seeds: Range<u64>, threads: usize, mutant: Mutant) -> Tally {
    hunt(seeds, threads, Some(mutant), 1)
}

fn hunt(seeds: Range<u64>, threads: usize, mutant: Option<Mutant>, most: usize) -> Tally {
    let next = AtomicU64::new(seeds.start);
    let tally = Mutex::new(Tally::default());
    let work = || {
        loop {
            // In blocks, so that threads don't fight over the counter.
            let first = next.fetch_add(64, Ordering::Relaxed);
            let block = first..first.saturating_add(64).min(seeds.end);
            if block.is_empty() {
                return;
            }
            let mut found = Tally::default();
            for seed in block {
                let schedule = Schedule::draw(seed);
                let verdict = run_schedule(&schedule, mutant, false);
                found.schedules += 1;
                found.restored += verdict.restored;
                if let Some((invariant, what)) = verdict.violation {
                    let (schedule, what) = shrink::shrink(&schedule, mutant, invariant, what);
                    found.failures.push(Failure {
                        seed,
                        invariant,
                        what,
                        schedule,
                    });
                    if found.failures.len() >= most {
                        break;
                    }
                }
            }
            let mut tally = tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            tally.schedules += found.schedules;
            tally.restored += found.restored;
            tally.failures.append(&mut found.failures);
            if tally.failures.len() >= most {
                next.store(seeds.end, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    let mut tally = tally
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    tally.failures.sort_by_key(|failure| failure.seed);
    tally
}
