//! The test tiers: what belongs to each, what each needs, and the summary.
//!
//! A tier that can't be set up is skipped and says why; in CI that is a failure. A tier that should have tests and ran none
//! is a failure everywhere: then the filter or the names are wrong.

use crate::tests_run::{self, Count};
use crate::{Done, newer_restic, setup, sh, sim, vm, vm_setup};

/// Which tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Tier {
    /// Everything that needs nothing but cargo, the documentation's examples, and 100,000 simulated schedules.
    Fast,
    /// Against real tools: tests whose name begins with `real_`.
    Real,
    /// In a virtual machine: tests whose name begins with `vm_`, of the targets `vm` and `vm_host`.
    Vm,
}

/// What tests find Garage by.
const GARAGE: &str = "RESEED_REAL_GARAGE";

/// Schedules that the fast tier simulates.
const SCHEDULES: u64 = 100_000;

impl Tier {
    fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Real => "real",
            Self::Vm => "vm",
        }
    }

    fn needs(self) -> &'static [setup::Need] {
        match self {
            Self::Fast => &[setup::CC],
            Self::Real => &[
                setup::CC,
                setup::RESTIC,
                setup::SANOID,
                setup::FAKETIME,
                setup::SSH,
                setup::SSHD,
            ],
            Self::Vm => &[setup::CC],
        }
    }
}

/// What became of a tier.
#[derive(Debug)]
struct Report {
    tier: Tier,
    count: Count,
    notes: Vec<String>,
}

impl Report {
    fn line(&self) -> String {
        let Count {
            passed,
            failed,
            skipped,
        } = self.count;
        let ran = self.count.ran();
        let mut line = format!(
            "{}: {ran} ran, {passed} passed, {failed} failed, {skipped} skipped",
            self.tier.name()
        );
        if !self.notes.is_empty() {
            line = format!("{line} ({})", self.notes.join("; "));
        }
        line
    }
}

pub(crate) fn run(only: Option<Tier>, yes: bool) -> Done {
    let tiers = only.map_or_else(|| vec![Tier::Fast, Tier::Real, Tier::Vm], |tier| vec![tier]);
    let mut reports = Vec::new();
    for tier in tiers {
        reports.push(one(tier, yes)?);
    }
    let mut total = Count::default();
    println!();
    for report in &reports {
        println!("{}", report.line());
        total.add(&report.count);
    }
    let well = verdict(&total, sh::in_ci());
    if total.skipped > 0 && total.failed == 0 && !well {
        println!("In CI a skip is a failure.");
    }
    println!(
        "{} passed, {} failed, {} skipped",
        total.passed, total.failed, total.skipped
    );
    Ok(well)
}

fn verdict(total: &Count, ci: bool) -> bool {
    total.failed == 0 && !(ci && total.skipped > 0)
}

fn one(tier: Tier, yes: bool) -> std::io::Result<Report> {
    eprintln!("--- tier {} ---", tier.name());
    let mut report = Report {
        tier,
        count: Count::default(),
        notes: Vec::new(),
    };
    let ready = setup::ensure(tier.needs(), yes).and_then(|()| match tier {
        Tier::Vm => vm_setup::ensure(yes).map(|()| Vec::new()),
        Tier::Real => newer_restic::ensure(yes).map(|newer| {
            let mut env = vec![
                ("RESEED_REAL_RESTIC".to_owned(), path_of("restic")),
                (
                    "RESEED_REAL_RESTIC_NEWER".to_owned(),
                    newer.restic.display().to_string(),
                ),
                (
                    "RESEED_REAL_REST_SERVER".to_owned(),
                    newer.rest_server.display().to_string(),
                ),
                ("RESEED_REAL_SANOID".to_owned(), path_of("sanoid")),
            ];
            match setup::garage(yes) {
                Ok(garage) => env.push((GARAGE.to_owned(), garage.display().to_string())),
                Err(why) => report.notes.push(format!("without Garage: {why}")),
            }
            env
        }),
        Tier::Fast => Ok(Vec::new()),
    });
    let env = match ready {
        Ok(env) => env,
        Err(why) => {
            report.count.skipped = 1;
            report.notes.push(format!("the whole tier was skipped: {why}"));
            return Ok(report);
        }
    };
    report.count = match tier {
        Tier::Vm => vm::tests(&vm::Args::default())?,
        Tier::Fast => tests_run::run(tier, None, &env)?,
        Tier::Real => {
            let without = env.iter().all(|(name, _)| name != GARAGE);
            tests_run::run(tier, without.then_some("real_garage"), &env)?
        }
    };
    match tier {
        Tier::Fast => {
            report.count.add(&tests_run::doctests()?);
            simulate(&mut report)?;
        }
        Tier::Real => {
            let named = |name: &str| {
                let found = env.iter().find(|(key, _)| key == name);
                found.map_or("", |(_, path)| path.as_str())
            };
            let mut with = vec![
                version_of("restic", "version")?,
                version_of(named("RESEED_REAL_RESTIC_NEWER"), "version")?,
                version_of(named("RESEED_REAL_REST_SERVER"), "--version")?,
            ];
            if !named(GARAGE).is_empty() {
                with.push(version_of(named(GARAGE), "--version")?);
            }
            report.notes.push(format!("with {}", with.join(", ")));
        }
        Tier::Vm => report.notes.push(format!("with {}", vm_setup::versions())),
    }
    if report.count.ran() == 0 {
        report.count.failed += 1;
        report
            .notes
            .push("no test ran: the filter or the names of the tests are wrong".to_owned());
    }
    Ok(report)
}

fn simulate(report: &mut Report) -> std::io::Result<()> {
    let args = ["--seeds".to_owned(), SCHEDULES.to_string()];
    let said = sh::tee(&mut sim::simulator(args))?;
    let tally = sim::tally(&said.stdout);
    let well = said.status.success()
        && tally
            == Some(sim::Tally {
                schedules: SCHEDULES,
                violations: 0,
            });
    if well {
        report.count.passed += 1;
    } else {
        report.count.failed += 1;
    }
    report.notes.push(match tally {
        Some(tally) => format!(
            "simulator: {} schedules, {} violations",
            tally.schedules, tally.violations
        ),
        None => "the simulator did not finish".to_owned(),
    });
    Ok(())
}

fn path_of(program: &str) -> String {
    sh::find(program).map_or_else(|| program.to_owned(), |path| path.display().to_string())
}

fn version_of(program: &str, asking: &str) -> std::io::Result<String> {
    let said = sh::output(sh::command(program).arg(asking))?;
    let line = said.stdout.lines().next().unwrap_or_default();
    Ok(name_and_version(line))
}

/// The first word, and the first behind it that is a number.
fn name_and_version(line: &str) -> String {
    let mut words = line.split_whitespace();
    let name = words.next().unwrap_or_default();
    let is_number = |word: &&str| {
        word.trim_start_matches('v')
            .starts_with(|c: char| c.is_ascii_digit())
    };
    format!(
        "{name} {}",
        words
            // As Garage says it when cargo has built it from a package.
            .map(|word| word.trim_start_matches("cargo:"))
            .find(is_number)
            .unwrap_or("of an unknown version")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_fails_in_ci_only_and_a_failure_everywhere() {
        let skip = Count {
            passed: 3,
            failed: 0,
            skipped: 1,
        };
        assert!(verdict(&skip, false));
        assert!(!verdict(&skip, true));
        let failure = Count {
            failed: 1,
            ..Count::default()
        };
        assert!(!verdict(&failure, false));
        assert!(verdict(&Count::default(), true));
    }

    #[test]
    fn a_version_is_found_in_what_programs_say_of_themselves() {
        for (line, found) in [
            (
                "restic 0.18.0 compiled with go1.24.4 on linux/amd64",
                "restic 0.18.0",
            ),
            (
                "restic-rest-server version restic-rest-server 0.13.0 compiled with go1",
                "restic-rest-server 0.13.0",
            ),
            ("garage v2.5.0 [features: sqlite]", "garage v2.5.0"),
            ("garage cargo:2.5.0 [features: sqlite]", "garage 2.5.0"),
            ("", " of an unknown version"),
        ] {
            assert_eq!(name_and_version(line), found);
        }
    }

    #[test]
    fn a_tier_that_was_skipped_says_why() {
        let report = Report {
            tier: Tier::Vm,
            count: Count {
                skipped: 1,
                ..Count::default()
            },
            notes: vec!["the whole tier was skipped: this is no Debian".to_owned()],
        };
        assert_eq!(
            report.line(),
            "vm: 0 ran, 0 passed, 0 failed, 1 skipped (the whole tier was skipped: this is no Debian)"
        );
    }
}
