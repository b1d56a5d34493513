//! The simulator: built in release mode, run, and its last line read.
//!
//! The simulator itself is an example of `reseed-testkit`; here is only how it is started.

use crate::{Done, sh};

/// Arguments of `cargo xtask sim`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many schedules, from seed 0 on.
    #[arg(long, conflicts_with = "seed")]
    seeds: Option<u64>,
    /// How many threads; as many as there are cores unless told.
    #[arg(long)]
    threads: Option<usize>,
    /// One seed, as a failure printed it.
    #[arg(long)]
    seed: Option<u64>,
    /// Print every step of that seed.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Passed to the simulator as they are.
    #[arg(last = true)]
    rest: Vec<String>,
}

/// What the simulator's last line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Schedules that ran.
    pub(crate) schedules: u64,
    /// Of those, the ones that broke an invariant.
    pub(crate) violations: u64,
}

/// Reads `N schedules, V violations`.
pub(crate) fn tally(output: &str) -> Option<Tally> {
    let line = output.lines().rev().find(|line| !line.trim().is_empty())?;
    let (schedules, rest) = line.trim().split_once(" schedules, ")?;
    let violations = rest.strip_suffix(" violations")?;
    Some(Tally {
        schedules: schedules.parse().ok()?,
        violations: violations.parse().ok()?,
    })
}

/// The simulator with these arguments, built when needed.
pub(crate) fn simulator<I: IntoIterator<Item = String>>(args: I) -> std::process::Command {
    let mut command = sh::cargo();
    command.args([
        "run",
        "--release",
        "--quiet",
        "--package",
        "reseed-testkit",
        "--example",
        "sim",
        "--",
    ]);
    command.args(args);
    command
}

pub(crate) fn run(args: &Args) -> Done {
    let mut words = Vec::new();
    let mut option = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            words.extend([format!("--{name}"), value]);
        }
    };
    option("seed", args.seed.map(|seed| seed.to_string()));
    if args.seed.is_none() {
        option("seeds", Some(args.seeds.unwrap_or(10_000).to_string()));
    }
    option("threads", args.threads.map(|threads| threads.to_string()));
    if args.trace {
        words.push("--trace".to_owned());
    }
    words.extend(args.rest.iter().cloned());
    Ok(sh::run(&mut simulator(words))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tally_is_the_last_line_and_nothing_else() {
        let good = "seed 7 ...\n100000 schedules, 2 violations\n\n";
        assert_eq!(
            tally(good),
            Some(Tally {
                schedules: 100_000,
                violations: 2
            })
        );
        assert_eq!(tally("10 schedules, 0 violations\nthread main panicked"), None);
        assert_eq!(tally(""), None);
        assert_eq!(tally("ten schedules, 0 violations"), None);
    }
}
