//! Virtual machines as a program; `cargo xtask vm` is how people call it.
//!
//! - `vm tests --list FILE --dir DIR --built DIR [--machines N] [--limit SECONDS]` runs the tests of a list. The last line
//!   reads `N passed, M failed`.
//! - `vm run --dir DIR --built DIR -- COMMAND...` runs a command, shows what it says, and ends with its exit code.
//! - `vm shell-argv --dir DIR --built DIR` prints what to start for a prompt inside, divided by NUL.
//!
//! Each takes `--processors N`: virtual ones of each machine, 1 by default.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use reseed_testkit::vm::{self, Config, GuestCommand, Machine, VmError, suite};

struct Options {
    dir: PathBuf,
    built: PathBuf,
    list: PathBuf,
    machines: usize,
    processors: u32,
    limit: Duration,
    rest: Vec<String>,
}

fn options(mut args: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options {
        dir: PathBuf::new(),
        built: PathBuf::new(),
        list: PathBuf::new(),
        machines: 1,
        processors: 1,
        limit: suite::TEST_LIMIT,
        rest: Vec::new(),
    };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--dir" => options.dir = args.next()?.into(),
            "--list" => options.list = args.next()?.into(),
            "--built" => options.built = args.next()?.into(),
            "--machines" => options.machines = args.next()?.parse().ok()?,
            "--processors" => options.processors = args.next()?.parse().ok()?,
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
            "usage: vm tests|run|shell-argv --dir DIR --built DIR [--processors N] [--list FILE] [--machines N] [--limit SECONDS] [-- COMMAND...]"
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
    let list = match std::fs::read_to_string(&options.list) {
        Ok(list) => list,
        Err(error) => {
            eprintln!("error: {} can't be read: {error}", options.list.display());
            return Ok(ExitCode::from(2));
        }
    };
    suite::fresh_dir(&options.dir)?;
    let plan = suite::Plan {
        tests: suite::read_list(&list)?,
        dir: options.dir,
        built: options.built,
        machines: options.machines,
        processors: options.processors,
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
    config.cpus = options.processors;
    config
}

async fn command(options: &Options) -> Result<ExitCode, VmError> {
    let mut machine = Machine::boot(&config(options)).await?;
    let command = GuestCommand::new(&options.rest).limit(options.limit);
    let id = machine.start(&command).await?;
    let (out, err) = machine.output_files(id);
    let (stop_out, stopped_out) = channel();
    let (stop_err, stopped_err) = channel();
    let out = std::thread::spawn(move || follow(&out, &mut std::io::stdout(), &stopped_out));
    let err = std::thread::spawn(move || follow(&err, &mut std::io::stderr(), &stopped_err));
    let finished = machine.finished(id).await;
    drop((stop_out, stop_err));
    let _ = (out.join(), err.join());
    let finished = finished?;
    machine.cut_power().await?;
    Ok(ExitCode::from(u8::try_from(finished.code).unwrap_or(1)))
}

/// Copies what a growing file gets, until the other end of `stopped` is dropped.
fn follow(file: &Path, to: &mut impl Write, stopped: &Receiver<()>) {
    let mut at = 0;
    loop {
        let end = stopped.recv_timeout(Duration::from_millis(100)) != Err(RecvTimeoutError::Timeout);
        let mut new = Vec::new();
        let read = std::fs::File::open(file).and_then(|mut file| {
            file.seek(SeekFrom::Start(at))?;
            file.read_to_end(&mut new)
        });
        at += read.ok().and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
        let _ = to.write_all(&new).and_then(|()| to.flush());
        if end {
            return;
        }
    }
}

fn shell_argv(options: &Options) -> Result<ExitCode, VmError> {
    let argv = vm::shell_argv(&config(options))?;
    let words: Vec<&[u8]> = argv.iter().map(|word| word.as_bytes()).collect();
    let _ = std::io::stdout().write_all(&words.join(&0));
    Ok(ExitCode::SUCCESS)
}
