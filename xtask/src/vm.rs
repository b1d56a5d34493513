//! `cargo xtask vm`: builds what is to run in virtual machines, lists its tests, and starts the program that runs them.
//!
//! That program is an example of `reseed-testkit`. Tests inside are those named `vm_*` of test targets named `vm`; those of
//! targets named `vm_host` run here and drive machines themselves.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::tests_run::{Count, tier_of};
use crate::tiers::Tier;
use crate::{Done, setup, sh, vm_setup};

/// Arguments of `cargo xtask vm`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Only tests whose name, or package and target, contains one of these.
    filters: Vec<String>,
    /// A prompt in a machine, with this host's files; nothing that is written there stays.
    #[arg(long, conflicts_with = "filters")]
    shell: bool,
    /// How many machines run tests at the same time; as many as there are processors, two at most, and one more.
    #[arg(long)]
    machines: Option<usize>,
    /// Virtual processors of each machine; one, for two machines with one each do more than one with two.
    #[arg(long)]
    processors: Option<u32>,
    /// Seconds that a test or the command may take.
    #[arg(long)]
    limit: Option<u64>,
    /// Built for speed; what is measured is meant to be.
    #[arg(long)]
    release: bool,
    /// Install what is missing without asking.
    #[arg(long)]
    yes: bool,
    /// A command to run in a machine instead of tests.
    #[arg(last = true, conflicts_with_all = ["filters", "shell"])]
    command: Vec<String>,
}

impl Args {
    /// Only the benchmarks whose name contains this, built for speed.
    pub(crate) fn benchmarks(name: &str) -> Self {
        Self {
            filters: vec![name.to_owned()],
            release: true,
            // One at a time: beside another machine nothing is measured.
            machines: Some(1),
            // Rounds of what takes a peer half a minute, and what is made for them.
            limit: Some(1800),
            ..Self::default()
        }
    }
}

pub(crate) fn run(args: &Args) -> Done {
    setup::ensure(&[setup::CC], args.yes)?;
    vm_setup::ensure(args.yes)?;
    if args.shell {
        return shell(args);
    }
    if !args.command.is_empty() {
        let Some(mut program) = program(args, "run")? else {
            return Ok(false);
        };
        return Ok(sh::run(program.arg("--").args(&args.command))?);
    }
    let count = tests(args)?;
    if count.ran() == 0 {
        return Err("no test ran: none has such a name".into());
    }
    Ok(count.failed == 0)
}

/// Runs the tests that the arguments name; all of them when they name none.
pub(crate) fn tests(args: &Args) -> std::io::Result<Count> {
    const BROKEN: Count = Count {
        passed: 0,
        failed: 1,
        skipped: 0,
    };
    // All in the workspace's own features, so that nothing is built twice.
    let build = |words: &[&str]| build(words, args.release);
    let Some(mut targets) = build(&["--workspace", "--test", "vm", "--test", "vm_host"])? else {
        return Ok(BROKEN);
    };
    if with_libzetta(&args.filters) {
        let Some(more) = build(LIBZETTA)? else {
            return Ok(BROKEN);
        };
        targets.extend(more);
    }
    let Some(mut program) = program(args, "tests")? else {
        return Ok(BROKEN);
    };
    let mut tests = Vec::new();
    let mut skipped = 0;
    let mut known = BTreeSet::new();
    for target in targets {
        for (name, ignored) in listed(&target.binary)? {
            // The build with the feature has all the tests of the one without.
            if !known.insert((target.suite(), name.clone())) {
                continue;
            }
            let wanted = (args.filters.is_empty() && !is_benchmark(&name))
                || args
                    .filters
                    .iter()
                    .any(|filter| name.contains(filter.as_str()) || target.suite().contains(filter.as_str()));
            if !wanted {
                continue;
            }
            if ignored {
                eprintln!("skipped: {name} is marked `ignore`");
                skipped += 1;
            } else {
                tests.push((is_of_a_suite(&name), target.line(&name)));
            }
        }
    }
    // Short ones come last, so that no machine is left alone with a long one.
    tests.sort_by_key(|&(short, _)| short);
    let list: String = tests.into_iter().map(|(_, line)| line).collect();
    if list.is_empty() {
        return Ok(Count {
            skipped,
            ..Count::default()
        });
    }
    let dir = work_dir()?;
    std::fs::create_dir_all(&dir)?;
    let file = dir.join("list");
    std::fs::write(&file, &list)?;
    let total = u64::try_from(list.lines().count()).unwrap_or(u64::MAX);
    let said = sh::tee(program.arg("--list").arg(file))?;
    let mut count = tally(&said.stdout).unwrap_or(BROKEN);
    // Whatever has no verdict did not run.
    count.failed = count.failed.max(total.saturating_sub(count.passed));
    count.skipped = skipped;
    Ok(count)
}

/// The tests that are only there with the feature `libzetta`, for they are about it. Without the command-line program, whose
/// own tests run the one that was built last.
const LIBZETTA: &[&str] = &[
    "--workspace",
    "--exclude",
    "reseed",
    "--features",
    "reseed-backend-zfs/libzetta",
    "--test",
    "vm",
];

/// Whether tests of the feature are asked for. Their names have `lzc` in them.
fn with_libzetta(filters: &[String]) -> bool {
    filters.is_empty() || filters.iter().any(|filter| filter.contains("lzc"))
}

/// Test targets, as cargo builds them with these arguments.
fn build(args: &[&str], release: bool) -> std::io::Result<Option<Vec<Target>>> {
    let mut build = sh::cargo();
    build.args(["test", "--no-run", "--message-format=json-render-diagnostics"]);
    if release {
        build.arg("--release");
    }
    let messages = sh::stdout(build.args(args))?;
    Ok(messages.map(|messages| built(&messages, &["vm", "vm_host"])))
}

/// Tests of a conformance suite are named by a clause (`s03_…`): there are many of them, and each does one thing.
fn is_of_a_suite(name: &str) -> bool {
    matches!(
        last_part(name).as_bytes(),
        [b'a'..=b'z', b'0'..=b'9', b'0'..=b'9', b'_', ..]
    )
}

/// Benchmarks assert on time, so they run only by `cargo xtask bench`, or by name.
fn is_benchmark(name: &str) -> bool {
    last_part(name).starts_with("vm_alone_bench_")
}

/// A test's name without its modules.
fn last_part(name: &str) -> &str {
    name.rsplit("::").next().unwrap_or(name)
}

fn shell(args: &Args) -> Done {
    let Some(mut program) = program(args, "shell-argv")? else {
        return Ok(false);
    };
    let Some(words) = sh::stdout(&mut program)? else {
        return Ok(false);
    };
    let mut words = words.split('\0');
    eprintln!("Leave by `exit`, or in need by Ctrl-A X.");
    let mut machine = sh::command(words.next().unwrap_or_default());
    Ok(sh::interactive(machine.args(words))?)
}

/// The program that runs machines, built, with its task and what it always needs to know.
fn program(args: &Args, task: &str) -> std::io::Result<Option<std::process::Command>> {
    let mut build = sh::cargo();
    build.args(["build", "--workspace", "--example", "vm"]);
    build.arg("--message-format=json-render-diagnostics");
    let Some(messages) = sh::stdout(&mut build)? else {
        return Ok(None);
    };
    let Some(target) = built(&messages, &["vm"]).pop() else {
        return Ok(None);
    };
    let dir = work_dir()?;
    let mut command = sh::command(&target.binary);
    command.arg(task).arg("--dir").arg(dir.join(task));
    command.arg("--built").arg(dir.parent().unwrap_or(&dir));
    for (option, value) in [
        (
            "--machines",
            Some(args.machines.unwrap_or_else(machines).to_string()),
        ),
        (
            "--processors",
            args.processors.map(|processors| processors.to_string()),
        ),
        ("--limit", args.limit.map(|seconds| seconds.to_string())),
    ] {
        if let Some(value) = value {
            command.args([option, &value]);
        }
    }
    Ok(Some(command))
}

/// A test inside uses one processor at most and waits for a tenth to a quarter of its time, so one machine more than there are
/// processors; a machine's memory is the host's.
fn machines() -> usize {
    sh::processors().min(2) + 1
}

/// The lines that measuring tests of the last run have left, whichever machine they ran in.
pub(crate) fn ratios() -> std::io::Result<Vec<String>> {
    let mut lines = Vec::new();
    for machine in std::fs::read_dir(work_dir()?.join("tests"))? {
        let text = std::fs::read_to_string(machine?.path().join("share/ratios")).unwrap_or_default();
        lines.extend(text.lines().map(str::to_owned));
    }
    Ok(lines)
}

/// In cargo's target directory, which every machine sees.
fn work_dir() -> std::io::Result<PathBuf> {
    let mut command = sh::cargo();
    command.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&sh::output(&mut command)?.stdout).unwrap_or_default();
    let target = metadata["target_directory"].as_str().map(PathBuf::from);
    Ok(target
        .unwrap_or_else(|| sh::root().join("target"))
        .join("reseed-vm"))
}

/// A target that cargo has built.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    name: String,
    dir: PathBuf,
    binary: PathBuf,
}

impl Target {
    /// The crate's directory and the target, for people.
    fn suite(&self) -> String {
        let package = self.dir.file_name().unwrap_or_default().to_string_lossy();
        format!("{package} {}", self.name)
    }

    /// A line of the list of tests.
    fn line(&self, test: &str) -> String {
        let place = if self.name == "vm_host" { "host" } else { "inside" };
        format!(
            "{place}\t{}\t{}\t{}\t{test}\n",
            self.suite(),
            self.dir.display(),
            self.binary.display()
        )
    }
}

/// Executables of these names in cargo's messages.
fn built(messages: &str, names: &[&str]) -> Vec<Target> {
    let artifact = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let name = message["target"]["name"].as_str()?;
        names.contains(&name).then_some(())?;
        Some(Target {
            name: name.to_owned(),
            dir: Path::new(message["manifest_path"].as_str()?)
                .parent()?
                .to_path_buf(),
            binary: message["executable"].as_str()?.into(),
        })
    };
    messages.lines().filter_map(artifact).collect()
}

/// The tests of the tier in a binary, and whether each is marked `ignore`.
fn listed(binary: &Path) -> std::io::Result<Vec<(String, bool)>> {
    let list = |more: &[&str]| {
        let said = sh::output(
            sh::command(binary)
                .args(["--list", "--format", "terse"])
                .args(more),
        )?;
        Ok::<_, std::io::Error>(names(&said.stdout))
    };
    let ignored = list(&["--ignored"])?;
    Ok(list(&[])?
        .into_iter()
        .map(|name| {
            let ignored = ignored.contains(&name);
            (name, ignored)
        })
        .collect())
}

fn names(list: &str) -> Vec<String> {
    list.lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .filter(|name| tier_of(name) == Tier::Vm)
        .map(str::to_owned)
        .collect()
}

/// Reads `N passed, M failed` from the last line.
fn tally(output: &str) -> Option<Count> {
    let line = output.lines().rev().find(|line| !line.trim().is_empty())?;
    let (passed, failed) = line.trim().strip_suffix(" failed")?.split_once(" passed, ")?;
    Some(Count {
        passed: passed.parse().ok()?,
        failed: failed.parse().ok()?,
        skipped: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_targets_are_found_in_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","manifest_path":"/w/crates/x/Cargo.toml","target":{"name":"vm"},"executable":"/t/vm-1"}
{"reason":"compiler-artifact","manifest_path":"/w/crates/x/Cargo.toml","target":{"name":"x"},"executable":"/t/x"}
{"reason":"compiler-artifact","manifest_path":"/w/crates/y/Cargo.toml","target":{"name":"vm"},"executable":null}
{"reason":"build-finished","success":true}"#;
        let targets = built(messages, &["vm", "vm_host"]);
        assert_eq!(targets.len(), 1);
        assert_eq!(targets[0].suite(), "x vm");
        assert_eq!(
            targets[0].line("a::vm_b"),
            "inside\tx vm\t/w/crates/x\t/t/vm-1\ta::vm_b\n"
        );
    }

    #[test]
    fn only_tests_of_the_tier_are_taken() {
        assert_eq!(
            names("smoke::vm_pool: test\nhelper_works: test\nvm_bench: benchmark\n"),
            ["smoke::vm_pool"]
        );
    }

    #[test]
    fn the_feature_is_built_for_its_own_tests_and_for_all() {
        let with = |filters: &[&str]| {
            let filters: Vec<String> = filters.iter().map(|&filter| filter.to_owned()).collect();
            with_libzetta(&filters)
        };
        assert!(with(&[]) && with(&["smoke", "vm_lzc_store"]) && with(&["vm_alone_bench_lzc"]));
        assert!(!with(&["smoke"]) && !with(&["vm_alone_bench_zfs"]));
    }

    #[test]
    fn tests_of_the_suites_are_told_by_their_clause() {
        for one in [
            "vm_store::s03_a_marker_does_not_count",
            "vm_replicator::p07_up_to_date_is_no_work",
        ] {
            assert!(is_of_a_suite(one), "{one}");
        }
        for other in [
            "vm_ssh::pushes_and_pulls",
            "vm_x::s3_x",
            "vm_x::x",
            "vm_x::",
            "vm_x::été_x",
        ] {
            assert!(!is_of_a_suite(other), "{other}");
        }
    }

    #[test]
    fn benchmarks_are_told_from_tests() {
        assert!(is_benchmark("bench::vm_alone_bench_zfs_prune"));
        assert!(!is_benchmark("vm_alone_bench::vm_other"));
    }

    #[test]
    fn the_tally_is_the_last_line() {
        let count = tally("PASS x\n3 passed, 1 failed\n\n").unwrap();
        assert_eq!((count.passed, count.failed), (3, 1));
        assert_eq!(tally("PASS x\n"), None);
    }
}
