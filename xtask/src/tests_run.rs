//! One pass over the workspace's tests of one tier: cargo-nextest where it is installed, `cargo test` where it isn't.
//!
//! A test's tier is told by its name alone. Counts come from what the runner says; a run that failed
//! without naming a failed test (it didn't build) counts as one failure.

use std::collections::BTreeSet;

use crate::sh;
use crate::tiers::Tier;

/// What became of a set of tests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Count {
    pub(crate) fn ran(&self) -> u64 {
        self.passed + self.failed
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// What a run that didn't build counts as.
const BROKEN: Count = Count {
    passed: 0,
    failed: 1,
    skipped: 0,
};

/// The tier of a test by its name: `path::to::real_restic_reads_it` is of the tier `real`, and so is all of a module `real_restic`
/// (the conformance suites name their tests themselves).
pub(crate) fn tier_of(test: &str) -> Tier {
    let any = |prefix: &str| test.split("::").any(|part| part.starts_with(prefix));
    if any("real_") {
        Tier::Real
    } else if any("vm_") {
        Tier::Vm
    } else {
        Tier::Fast
    }
}

/// Runs the tests of a tier with these variables in their environment. Those with `without` in their name are skipped, and counted
/// as such.
pub(crate) fn run(tier: Tier, without: Option<&str>, env: &[(String, String)]) -> std::io::Result<Count> {
    if sh::find("cargo-nextest").is_some() {
        nextest(tier, without, env)
    } else {
        eprintln!("note: cargo-nextest is not installed, using `cargo test`: the same tests, more slowly");
        libtest(tier, without, env)
    }
}

/// Takes out those that are to be skipped; how many there were.
fn leave_out(tests: &mut Vec<impl AsRef<str>>, without: Option<&str>) -> u64 {
    let all = tests.len();
    tests.retain(|test| without.is_none_or(|without| !test.as_ref().contains(without)));
    u64::try_from(all - tests.len()).unwrap_or(u64::MAX)
}

fn nextest(tier: Tier, without: Option<&str>, env: &[(String, String)]) -> std::io::Result<Count> {
    // The summary counts what the filter left out as skipped too; only the list tells which are marked `ignore`.
    let mut list = sh::cargo();
    list.args([
        "nextest",
        "list",
        "--workspace",
        "--ignore-default-filter",
        "--message-format",
        "json",
    ]);
    let Some(list) = sh::stdout(&mut list)? else {
        return Ok(BROKEN);
    };
    let (mut ours, ignored) = listed(&list, tier);
    for test in &ignored {
        eprintln!("skipped: {test} is marked `ignore`");
    }
    let skipped = u64::try_from(ignored.len()).unwrap_or(u64::MAX) + leave_out(&mut ours, without);
    if ours.is_empty() {
        return Ok(Count {
            skipped,
            ..Count::default()
        });
    }
    let filter = match tier {
        Tier::Fast => "not test(/(^|::)(real|vm)_/)",
        Tier::Real => "test(/(^|::)real_/)",
        Tier::Vm => return Ok(BROKEN),
    };
    let filter = match without {
        Some(without) => format!("{filter} and not test({without})"),
        None => filter.to_owned(),
    };
    let mut command = sh::cargo();
    command.args([
        "nextest",
        "run",
        "--workspace",
        "--no-fail-fast",
        "--ignore-default-filter",
    ]);
    command.args(["--status-level", "slow", "--final-status-level", "flaky"]);
    if tier == Tier::Real {
        // Half of their time is waiting: for a server to start, for a program's pause before it asks again.
        let threads = 2 * sh::processors();
        command.args(["--test-threads", &threads.to_string()]);
    }
    command.args(["-E", &filter]).envs(env.iter().cloned());
    let said = sh::tee(&mut command)?;
    let mut count = nextest_summary(&said.stderr).unwrap_or(BROKEN);
    if !said.status.success() && count.failed == 0 {
        count.failed = 1;
    }
    count.skipped = skipped;
    Ok(count)
}

/// A tier's tests, and of all that have its name those that are marked `ignore`.
fn listed(list: &str, tier: Tier) -> (Vec<String>, Vec<String>) {
    let list: serde_json::Value = serde_json::from_str(list).unwrap_or_default();
    let suites = list["rust-suites"]
        .as_object()
        .into_iter()
        .flat_map(|suites| suites.values());
    let tests = suites.flat_map(|suite| suite["testcases"].as_object().into_iter().flatten());
    let (mut ours, mut ignored) = (Vec::new(), Vec::new());
    for (name, test) in tests.filter(|(name, _)| tier_of(name) == tier) {
        if test["ignored"] == true {
            ignored.push(name.clone());
        } else {
            ours.push(name.clone());
        }
    }
    (ours, ignored)
}

/// Reads `Summary [ 0.1s] 4/5 tests run: 3 passed (1 slow), 1 failed, 2 skipped`; what it skipped is left out.
fn nextest_summary(output: &str) -> Option<Count> {
    let plain = without_colour(output);
    let line = plain
        .lines()
        .rev()
        .find(|line| line.trim_start().starts_with("Summary ["))?;
    let (_, results) = line.split_once(" run: ")?;
    let mut count = Count::default();
    for part in without_brackets(results).split(',') {
        let mut words = part.split_whitespace();
        let number: u64 = words.next()?.parse().ok()?;
        match words.collect::<Vec<_>>().join(" ").as_str() {
            "passed" => count.passed += number,
            "skipped" => {}
            // `failed`, `timed out`, `exec failed`, and whatever else a newer runner calls it.
            _ => count.failed += number,
        }
    }
    Some(count)
}

fn without_brackets(text: &str) -> String {
    let mut depth = 0_u32;
    text.chars()
        .filter(|&c| {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => return depth == 0,
            }
            false
        })
        .collect()
}

fn without_colour(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain + rest
}

/// libtest takes exact names to leave out, but no pattern: list all first.
fn libtest(tier: Tier, without: Option<&str>, env: &[(String, String)]) -> std::io::Result<Count> {
    let test = |more: &[&str]| {
        let mut command = sh::cargo();
        command.args([
            "test",
            "--workspace",
            "--lib",
            "--bins",
            "--tests",
            "--no-fail-fast",
            "--",
        ]);
        command.args(more).envs(env.iter().cloned());
        command
    };
    let Some(list) = sh::stdout(&mut test(&["--list", "--format", "terse"]))? else {
        return Ok(BROKEN);
    };
    let all: BTreeSet<&str> = list
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .collect();
    let (mut ours, others): (Vec<&str>, Vec<&str>) = all.iter().partition(|test| tier_of(test) == tier);
    let skipped = leave_out(&mut ours, without);
    if ours.is_empty() {
        return Ok(Count {
            skipped,
            ..Count::default()
        });
    }
    let mut args = vec!["--exact"];
    if tier == Tier::Fast {
        args.extend(others.iter().flat_map(|other| ["--skip", other]));
    } else {
        args.extend(ours);
    }
    let mut count = counted(&sh::tee(&mut test(&args))?);
    count.skipped += skipped;
    Ok(count)
}

/// Runs the documentation's examples.
pub(crate) fn doctests() -> std::io::Result<Count> {
    let mut command = sh::cargo();
    command.args(["test", "--workspace", "--doc", "--no-fail-fast", "--quiet"]);
    Ok(counted(&sh::tee(&mut command)?))
}

fn counted(said: &sh::Said) -> Count {
    let mut count = libtest_results(&said.stdout);
    if !said.status.success() && count.failed == 0 {
        count.failed = 1;
    }
    count
}

/// Adds up `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; ...`.
fn libtest_results(output: &str) -> Count {
    let mut count = Count::default();
    for line in output.lines().filter_map(|line| line.split_once("test result: ")) {
        for part in line.1.split(['.', ';']) {
            match part.trim().split_once(' ') {
                Some((number, "passed")) => count.passed += number.parse().unwrap_or(0),
                Some((number, "failed")) => count.failed += number.parse().unwrap_or(0),
                Some((number, "ignored")) => count.skipped += number.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(passed: u64, failed: u64, skipped: u64) -> Count {
        Count {
            passed,
            failed,
            skipped,
        }
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let mut tests = vec!["real_garage::a", "real_restic::b", "x::real_garage::c"];
        assert_eq!(leave_out(&mut tests, None), 0);
        assert_eq!(leave_out(&mut tests, Some("real_garage")), 2);
        assert_eq!(tests, ["real_restic::b"]);
    }

    #[test]
    fn a_tier_is_told_by_any_part_of_a_name() {
        assert_eq!(tier_of("real_restic_reads_it"), Tier::Real);
        assert_eq!(tier_of("interop::real_restic_reads_it"), Tier::Real);
        assert_eq!(tier_of("vm_pool_is_imported"), Tier::Vm);
        assert_eq!(tier_of("vm_store::s01_inspect_tells"), Tier::Vm);
        assert_eq!(tier_of("unreal_world"), Tier::Fast);
    }

    #[test]
    fn summaries_of_nextest_are_read() {
        let ok = "   Summary [   0.006s] 5 tests run: 5 passed, 3 skipped\n";
        assert_eq!(nextest_summary(ok), Some(count(5, 0, 0)));
        let bad = "\u{1b}[31;1m     Summary\u{1b}[0m [   0.006s] \u{1b}[1m6/7\u{1b}[0m tests run: 3 passed (1 slow, 1 flaky), \
                   1 failed, 1 timed out, 1 exec failed, 2 skipped\nerror: test run failed";
        assert_eq!(nextest_summary(bad), Some(count(3, 3, 0)));
        assert_eq!(
            nextest_summary("   Summary [ 0.1s] 1 test run: 1 passed, 0 skipped"),
            Some(count(1, 0, 0))
        );
        assert_eq!(nextest_summary("error: could not compile"), None);
    }

    #[test]
    fn results_of_libtest_are_added_up() {
        let output = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s\n\
                      test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        assert_eq!(libtest_results(output), count(4, 2, 1));
    }

    #[test]
    fn an_ignored_test_is_found_in_the_list() {
        let list = r#"{"rust-suites": {"a": {"testcases": {
            "x::y": {"ignored": true, "filter-match": {"status": "mismatch", "reason": "ignored"}},
            "x::z": {"ignored": false, "filter-match": {"status": "matches"}},
            "x::vm_z": {"ignored": false, "filter-match": {"status": "matches"}}}}}}"#;
        let (ours, ignored) = listed(list, Tier::Fast);
        assert_eq!(
            (ours, ignored),
            (vec!["x::z".to_owned()], vec!["x::y".to_owned()])
        );
        assert_eq!(listed(list, Tier::Real), (Vec::new(), Vec::new()));
    }
}
