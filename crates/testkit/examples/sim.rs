//! The simulator as a program: `sim --seeds N [--first SEED] [--threads T]`, or `sim --seed S [--trace]`.
//!
//! The last line of the first reads `N schedules, V violations`; it exits with 1 when there are any.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

use std::process::ExitCode;

use reseed_testkit::sim::{self, Schedule};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (mut seeds, mut first, mut seed, mut trace) = (10_000, 0, None, false);
    let mut threads = std::thread::available_parallelism().map_or(1, usize::from);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|text| text.parse::<u64>().ok());
        let understood = match arg.as_str() {
            "--seeds" => number().map(|count| seeds = count),
            "--first" => number().map(|number| first = number),
            "--seed" => number().map(|number| seed = Some(number)),
            "--threads" => number()
                .and_then(|count| usize::try_from(count).ok())
                .map(|count| threads = count),
            "--trace" => {
                trace = true;
                Some(())
            }
            _ => None,
        };
        if understood.is_none() {
            eprintln!("usage: sim [--seeds N] [--first SEED] [--threads T] | --seed S [--trace]");
            return ExitCode::from(2);
        }
    }
    let violated = match seed {
        Some(seed) => one(seed, trace),
        None => {
            let tally = sim::run_many(first..first.saturating_add(seeds), threads);
            println!("{} preseeds and restores put data back", tally.restored);
            println!("{tally}");
            !tally.failures.is_empty()
        }
    };
    ExitCode::from(u8::from(violated))
}

fn one(seed: u64, trace: bool) -> bool {
    println!("{}", Schedule::draw(seed));
    let verdict = sim::run_seed(seed, trace);
    for line in &verdict.trace {
        println!("{line}");
    }
    match &verdict.violation {
        Some((invariant, what)) => println!("{invariant}: {what}"),
        None => println!("every invariant holds"),
    }
    println!(
        "1 schedules, {} violations",
        u8::from(verdict.violation.is_some())
    );
    verdict.violation.is_some()
}
