//! Tests in machines: each in a process of its own, many in one boot, none forgotten.
//!
//! Tests of a target `vm` run inside, those of a target `vm_host` run here, beside the machine, and boot their own.
//! A test that takes longer than it may is killed and has failed. When a machine dies, the test that it was at has failed,
//! and another machine goes on with the rest; when no machine can be had, the rest has failed. It prints nothing itself.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use reseed_core::clock::{Clock, SystemClock};
use reseed_core::exec::{self, Runner, SystemRunner};
use tokio_util::sync::CancellationToken;

use super::{Config, GuestCommand, Machine, Problem, VmError};

/// How long a test may take, unless told: under emulation everything is ten times slower.
pub const TEST_LIMIT: Duration = Duration::from_secs(600);

/// Machines that may die before the rest is given up.
const DEATHS: u32 = 5;

/// A test by its binary and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// The package and the target, for people.
    pub suite: String,
    /// The name as libtest lists it.
    pub name: String,
    /// The binary that has it.
    pub binary: PathBuf,
    /// The package's directory, where cargo runs tests.
    pub dir: PathBuf,
    /// Whether it runs here and drives machines itself, rather than inside of one.
    pub on_host: bool,
}

impl Test {
    /// Whether nothing else may run at the same time, because it measures: its name begins with `vm_alone_`.
    pub fn alone(&self) -> bool {
        let last = self.name.rsplit("::").next().unwrap_or(&self.name);
        last.starts_with("vm_alone_")
    }

    fn argv(&self) -> Vec<std::ffi::OsString> {
        let mut argv = vec![self.binary.clone().into()];
        argv.extend(["--exact", &self.name, "--nocapture", "--test-threads=1"].map(Into::into));
        argv
    }
}

/// What became of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The test.
    pub test: Test,
    /// Why it failed, with what it said; `None` when it passed.
    pub failure: Option<String>,
    /// How long it took.
    pub elapsed: Duration,
}

/// What happens, for whoever shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A machine is up after so long.
    Booted(Duration),
    /// A test has ended, or will not run.
    Ended(Verdict),
}

/// How to run tests.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The tests.
    pub tests: Vec<Test>,
    /// A directory for what machines write; what was in it before is not kept.
    pub dir: PathBuf,
    /// Where the tests were built, so that machines see it wherever it is.
    pub built: PathBuf,
    /// How many machines run tests of the inside at the same time.
    pub machines: usize,
    /// Virtual processors of each of them (see [`Config::cpus`]).
    pub processors: u32,
    /// How long a test may take.
    pub limit: Duration,
}

type Queue = Mutex<VecDeque<Test>>;

fn next(queue: &Queue) -> Option<Test> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

/// Runs every test once. Exactly one [`Event::Ended`] comes for each.
pub async fn run(plan: &Plan, seen: &(dyn Fn(Event) + Send + Sync)) {
    let part = |on_host: bool, alone: bool| -> Queue {
        let wanted = |test: &&Test| test.on_host == on_host && test.alone() == alone;
        Mutex::new(plan.tests.iter().filter(wanted).cloned().collect())
    };
    let (inside, here) = (part(false, false), part(true, false));
    // The last machine of the shared phase goes on with the tests that want to be alone, once all others are done.
    let (inside_alone, here_alone) = (part(false, true), part(true, true));
    let machine = async |number: usize| {
        let mut worker = Worker::new(plan, number, seen);
        worker.work(&inside).await;
        worker
    };
    // The machines of the host's tests count.
    let first = async {
        while let Some(test) = next(&here) {
            seen(Event::Ended(on_host(&test, plan.limit).await));
        }
        machine(0).await
    };
    let others = join_all((1..plan.machines).map(async |number| machine(number).await.end().await));
    let (mut first, _) = tokio::join!(first, others);
    first.work(&inside_alone).await;
    first.end().await;
    while let Some(test) = next(&here_alone) {
        seen(Event::Ended(on_host(&test, plan.limit).await));
    }
}

/// One machine after the other, as long as there are tests.
struct Worker<'a> {
    plan: &'a Plan,
    number: usize,
    boots: u32,
    deaths: u32,
    machine: Option<Machine>,
    seen: &'a (dyn Fn(Event) + Send + Sync),
}

impl<'a> Worker<'a> {
    fn new(plan: &'a Plan, number: usize, seen: &'a (dyn Fn(Event) + Send + Sync)) -> Self {
        Self {
            plan,
            number,
            boots: 0,
            deaths: 0,
            machine: None,
            seen,
        }
    }

    async fn work(&mut self, queue: &Queue) {
        while let Some(test) = next(queue) {
            // A test's time is its own, without the boot it may have had to wait for.
            let machine = self.machine().await;
            let clock = SystemClock::new();
            let failure = match machine {
                Ok(machine) => self.one(machine, &test).await.err(),
                Err(why) => Some(why),
            };
            (self.seen)(Event::Ended(Verdict {
                test,
                failure,
                elapsed: clock.monotonic(),
            }));
        }
    }

    async fn end(mut self) {
        if let Some(machine) = self.machine.take() {
            // Every result is here already.
            let _ = machine.cut_power().await;
        }
    }

    async fn machine(&mut self) -> Result<Machine, String> {
        if self.deaths >= DEATHS {
            return Err("it did not run: too many machines have died, or one did not boot".to_owned());
        }
        match self.machine.take() {
            Some(machine) => Ok(machine),
            None => self.boot().await,
        }
    }

    async fn one(&mut self, mut machine: Machine, test: &Test) -> Result<(), String> {
        let command = GuestCommand::new(test.argv())
            .dir(&test.dir)
            .env("CARGO_MANIFEST_DIR", &test.dir)
            .env("RUST_BACKTRACE", "1")
            .env("TMPDIR", "/tmp")
            .limit(self.plan.limit);
        match machine.run(&command).await {
            Ok(finished) => {
                self.machine = Some(machine);
                judged(finished.code == 0, &finished.stdout, &finished.stderr)
            }
            Err(error) => {
                if error.problem() == Problem::TimeLimit {
                    self.machine = Some(machine);
                } else {
                    self.deaths += 1;
                }
                Err(error.to_string())
            }
        }
    }

    async fn boot(&mut self) -> Result<Machine, String> {
        self.boots += 1;
        let dir = self
            .plan
            .dir
            .join(format!("machine{}-{}", self.number, self.boots));
        let mut config = Config::new(dir);
        config.shown.push(self.plan.built.clone());
        config.cpus = self.plan.processors;
        match Machine::boot(&config).await {
            Ok(machine) => {
                (self.seen)(Event::Booted(machine.boot_time()));
                Ok(machine)
            }
            Err(error) => {
                self.deaths = DEATHS;
                Err(format!("it did not run: {error}"))
            }
        }
    }
}

async fn on_host(test: &Test, limit: Duration) -> Verdict {
    let clock = SystemClock::new();
    let argv = test.argv();
    let command = exec::Command::new(&argv[0])
        .args(&argv[1..])
        .cwd(&test.dir)
        .env("CARGO_MANIFEST_DIR", &test.dir)
        .env("RUST_BACKTRACE", "1")
        .time_limit(limit);
    let failure = match SystemRunner::new().run(&command, &CancellationToken::new()).await {
        Ok(output) => {
            let (stdout, stderr) = (output.stdout.text(), output.stderr.text());
            judged(output.exit.success(), &stdout, &stderr).err()
        }
        Err(error) => Some(error.to_string()),
    };
    Verdict {
        test: test.clone(),
        failure,
        elapsed: clock.monotonic(),
    }
}

/// A test has passed when libtest says that one has: a name that no test has is a success to it.
fn judged(success: bool, stdout: &str, stderr: &str) -> Result<(), String> {
    if success && stdout.contains("test result: ok. 1 passed;") {
        Ok(())
    } else if success {
        Err(format!("no test of this name ran\n{stdout}{stderr}"))
    } else {
        Err(format!("{stdout}{stderr}"))
    }
}

/// Reads a list of tests, a line each: `inside` or `host`, suite, directory, binary and name, divided by tabs.
pub fn read_list(text: &str) -> Result<Vec<Test>, VmError> {
    let read = |line: &str| {
        let mut parts = line.splitn(5, '\t');
        let mut part = || parts.next().map(str::to_owned);
        let on_host = match part()?.as_str() {
            "inside" => false,
            "host" => true,
            _ => return None,
        };
        Some(Test {
            on_host,
            suite: part()?,
            dir: part()?.into(),
            binary: part()?.into(),
            name: part()?,
        })
    };
    text.lines()
        .map(|line| read(line).ok_or_else(|| VmError::setup(format!("this is no test of a list: {line}"))))
        .collect()
}

/// The directory for a plan's machines, emptied.
pub fn fresh_dir(dir: &Path) -> Result<(), VmError> {
    let fresh = || {
        if dir.exists() {
            std::fs::remove_dir_all(dir)?;
        }
        std::fs::create_dir_all(dir)
    };
    fresh().map_err(|error| VmError::setup(format!("{} can't be emptied: {error}", dir.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_passed_only_if_it_ran() {
        let ran = "running 1 test\ntest x ... ok\n\ntest result: ok. 1 passed; 0 failed;";
        assert_eq!(judged(true, ran, ""), Ok(()));
        let none = judged(true, "test result: ok. 0 passed; 0 failed;", "").unwrap_err();
        assert!(none.starts_with("no test of this name ran"), "{none}");
        assert_eq!(judged(false, "a", "b"), Err("ab".to_owned()));
    }

    #[test]
    fn a_list_is_read() {
        let list = "inside\tx vm\t/x\t/t/vm-1\tsmoke::vm_pool\nhost\ty vm_host\t/y\t/t/h\tvm_alone_speed\n";
        let tests = read_list(list).unwrap();
        assert_eq!(tests.len(), 2);
        assert_eq!(
            (tests[0].on_host, tests[0].name.as_str()),
            (false, "smoke::vm_pool")
        );
        assert_eq!(tests[0].binary, Path::new("/t/vm-1"));
        assert!(!tests[0].alone() && tests[1].alone() && tests[1].on_host);
        assert!(read_list("elsewhere\ta\tb\tc\td").is_err());
        assert!(read_list("host\ta\tb").is_err());
    }

    #[tokio::test]
    async fn what_measures_comes_last_and_a_test_that_hangs_has_failed() {
        let dir = tempfile::tempdir().unwrap();
        let script =
            "case $2 in *hangs) echo waiting >&2; exec sleep 1000 ;; esac; echo 'test result: ok. 1 passed;'";
        let binary = dir.path().join("pretended");
        std::fs::write(&binary, format!("#!/bin/sh\n{script}\n")).unwrap();
        let runs = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&binary, runs).unwrap();
        let names = ["vm_alone_speed", "vm_hangs", "vm_other"];
        let plan = Plan {
            tests: names
                .iter()
                .map(|name| Test {
                    suite: "pretended vm_host".to_owned(),
                    name: (*name).to_owned(),
                    binary: binary.clone(),
                    dir: dir.path().to_owned(),
                    on_host: true,
                })
                .collect(),
            dir: dir.path().join("machines"),
            built: dir.path().to_owned(),
            machines: 2,
            processors: 1,
            limit: Duration::from_secs(1),
        };
        let seen = Mutex::new(Vec::new());
        run(&plan, &|event| seen.lock().unwrap().push(event)).await;
        let verdicts: Vec<(String, Option<String>)> = seen
            .into_inner()
            .unwrap()
            .into_iter()
            .filter_map(|event| match event {
                Event::Ended(verdict) => Some((verdict.test.name, verdict.failure)),
                Event::Booted(_) => None,
            })
            .collect();
        let order: Vec<&str> = verdicts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(order, ["vm_hangs", "vm_other", "vm_alone_speed"]);
        let hung = verdicts[0].1.as_deref().unwrap_or("it passed");
        assert!(hung.contains("waiting"), "{hung}");
        assert_eq!((&verdicts[1].1, &verdicts[2].1), (&None, &None));
    }
}
