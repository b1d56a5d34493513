//! Virtual machines as a program; `cargo xtask vm` is how people call it.
//!
//! - `vm tests --dir DIR --built DIR [--machines N] [--limit SECONDS]` with the list of tests on its standard input. The
//!   last line reads `N passed, M failed`.
//! - `vm run --dir DIR --built DIR -- COMMAND...` runs a command, shows what it says, and ends with its exit code.
//! - `vm shell-argv --dir DIR --built DIR` prints what to start for a prompt inside, divided by NUL.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use reseed_testkit::vm::{self, Config, GuestCommand, Machine, VmError, suite};

struct Options {
    dir: PathBuf,
    built: PathBuf,
    machines: usize,
    limit: Duration,
    rest: Vec<String>,
}

fn options(mut args: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options {
        dir: PathBuf::new(),
        built: PathBuf::new(),
        machines: 1,
        limit: suite::TEST_LIMIT,
        rest: Vec::new(),
    };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--dir" => options.dir = args.next()?.into(),
            "--built" => options.built = args.next()?.into(),
            "--machines" => options.machines = args.next()?.parse().ok()?,
            "--limit" => options.limit = Duration::from_secs(args.next()?.parse().ok()?),
            "--" => options.rest = args.by_ref().collect(),
            _ => return None,
        }
    }
    (options.dir.is_absolute() && options.built.is_absolute()).then_some(options)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let task = args.next().unwrap_or_default();
    let Some(options) = options(args) else {
        eprintln!(
            "usage: vm tests|run|shell-argv --dir DIR --built DIR [--machines N] [--limit SECONDS] [-- COMMAND...]"
        );
        return ExitCode::from(2);
    };
    let done = match task.as_str() {
        "tests" => tests(options).await,
        "run" => command(&options).await,
        _ => shell_argv(&options),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

async fn tests(options: Options) -> Result<ExitCode, VmError> {
    let mut list = String::new();
    if let Err(error) = std::io::stdin().read_to_string(&mut list) {
        eprintln!("error: the list of tests can't be read: {error}");
        return Ok(ExitCode::from(2));
    }
    suite::fresh_dir(&options.dir)?;
    let plan = suite::Plan {
        tests: suite::read_list(&list)?,
        dir: options.dir,
        built: options.built,
        machines: options.machines,
        limit: options.limit,
    };
    let (passed, failed) = (AtomicU32::new(0), AtomicU32::new(0));
    suite::run(&plan, &|event| match event {
        suite::Event::Booted(time) => println!("a machine is up after {:.1} s", time.as_secs_f32()),
        suite::Event::Ended(verdict) => {
            let (count, word) = match verdict.failure {
                None => (&passed, "PASS"),
                Some(_) => (&failed, "FAIL"),
            };
            count.fetch_add(1, Ordering::Relaxed);
            let seconds = verdict.elapsed.as_secs_f32();
            println!(
                "{word} [{seconds:>7.3} s] {} {}",
                verdict.test.suite, verdict.test.name
            );
            for line in verdict.failure.iter().flat_map(|text| text.trim_end().lines()) {
                println!("    {line}");
            }
        }
    })
    .await;
    let (passed, failed) = (passed.into_inner(), failed.into_inner());
    println!("{passed} passed, {failed} failed");
    Ok(ExitCode::from(u8::from(failed > 0)))
}

fn config(options: &Options) -> Config {
    let mut config = Config::new(&options.dir);
    config.shown.push(options.built.clone());
    config
}

async fn command(options: &Options) -> Result<ExitCode, VmError> {
    let mut machine = Machine::boot(&config(options)).await?;
    let command = GuestCommand::new(&options.rest).limit(options.limit);
    let finished = machine.run(&command).await?;
    let _ = std::io::stdout().write_all(finished.stdout.as_bytes());
    let _ = std::io::stderr().write_all(finished.stderr.as_bytes());
    machine.cut_power().await?;
    Ok(ExitCode::from(u8::try_from(finished.code).unwrap_or(1)))
}

fn shell_argv(options: &Options) -> Result<ExitCode, VmError> {
    let argv = vm::shell_argv(&config(options))?;
    let words: Vec<&[u8]> = argv.iter().map(|word| word.as_bytes()).collect();
    let _ = std::io::stdout().write_all(&words.join(&0));
    Ok(ExitCode::SUCCESS)
}
