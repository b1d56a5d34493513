//! Starting programs from xtask: the only place here that does.
//!
//! Everything runs in the workspace's root with an argument vector, never through a shell. It doesn't know what the
//! programs are for.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What a program was, and what it said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// A program to start, in the workspace's root.
#[expect(
    clippy::disallowed_methods,
    reason = "xtask drives cargo and is not shipped; reseed itself starts programs in core::exec only"
)]
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs it with our own terminal; whether it ended well.
pub(crate) fn run(command: &mut Command) -> std::io::Result<bool> {
    announce(command);
    Ok(command.stdin(Stdio::null()).status()?.success())
}

/// Runs it with our own terminal to type on; whether it ended well.
pub(crate) fn interactive(command: &mut Command) -> std::io::Result<bool> {
    Ok(command.status()?.success())
}

/// Runs it, and returns what it said without showing it.
pub(crate) fn output(command: &mut Command) -> std::io::Result<Said> {
    let output = command.stdin(Stdio::null()).output()?;
    Ok(Said {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs it with its errors on our terminal, and returns what it printed if it ended well.
pub(crate) fn stdout(command: &mut Command) -> std::io::Result<Option<String>> {
    announce(command);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(output.status.success().then_some(printed))
}

/// Runs it, shows what it says as it says it, and returns it as well.
pub(crate) fn tee(command: &mut Command) -> std::io::Result<Said> {
    announce(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (stdout, stderr) = std::thread::scope(|scope| {
        let errors = scope.spawn(move || copy(stderr, &mut std::io::stderr()));
        let words = copy(stdout, &mut std::io::stdout());
        (words, errors.join().unwrap_or_default())
    });
    Ok(Said {
        status: child.wait()?,
        stdout,
        stderr,
    })
}

fn copy(from: Option<impl Read>, to: &mut impl Write) -> String {
    let mut all = String::new();
    let Some(from) = from else { return all };
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while matches!(from.read_until(b'\n', &mut line), Ok(1..)) {
        // Somebody who closed our output still wants the count at the end.
        let _ = to.write_all(&line).and_then(|()| to.flush());
        all.push_str(&String::from_utf8_lossy(&line));
        line.clear();
    }
    all
}

fn announce(command: &Command) {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| {
            let word = word.to_string_lossy();
            let program = Path::new(&*word).file_name().filter(|_| word.starts_with('/'));
            program.map_or_else(
                || word.clone().into_owned(),
                |name| name.to_string_lossy().into_owned(),
            )
        })
        .collect();
    let mut line = words.join(" ");
    if line.len() > 300 {
        line.truncate(line.floor_char_boundary(300));
        line.push_str(" ...");
    }
    eprintln!("$ {line}");
}

/// Processors that this machine lets us use.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Where a program is, if it is on the path or where only root looks.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// Whether this is CI, where a skip is a failure and nobody can be asked.
pub(crate) fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false" && value != "0")
}

/// How long something takes.
#[expect(clippy::disallowed_methods, reason = "a benchmark is about the real clock")]
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let done = work();
    (done, begun.elapsed())
}
