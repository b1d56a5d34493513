//! A running machine: commands go in by number, what they said comes back as files, and the power can be cut.
//!
//! It promises that qemu is gone when the [`Machine`] is, also when the program that holds it is killed, and that no wait
//! is longer than it was told to be.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reseed_core::clock::{Clock, SystemClock};
use reseed_core::exec::{self, Runner, Stdin, Streaming, SystemRunner};
use rustix::process::{Pid, Signal};
use tokio_util::sync::CancellationToken;

use super::qemu::{self, Accel, Config, Console, Files, Init};
use super::{Problem, VmError, initrd};

/// A boot takes seconds, and with systemd under emulation on a busy host a minute.
const BOOT_LIMIT: Duration = Duration::from_secs(300);
/// How long a killed command may take to end. One that waits for a suspended pool never does.
const KILL_LIMIT: Duration = Duration::from_secs(15);
/// Bytes of the console that an error shows at most.
const CONSOLE_TAIL: usize = 3000;

/// A command for the guest.
#[derive(Debug, Clone)]
pub struct GuestCommand {
    argv: Vec<OsString>,
    env: Vec<(String, OsString)>,
    dir: PathBuf,
    limit: Duration,
}

impl GuestCommand {
    /// A program with its arguments, run as root in `/`, for at most two minutes.
    pub fn new<I>(argv: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<OsString>,
    {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            dir: "/".into(),
            limit: Duration::from_secs(120),
        }
    }

    /// A script for `/bin/sh`, which ends at its first failure.
    pub fn script(text: impl Into<OsString>) -> Self {
        Self::new([OsString::from("/bin/sh"), "-ec".into(), text.into()])
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = dir.into();
        self
    }

    /// Sets how long it may take.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The file that the guest runs.
    fn script_file(&self) -> Result<Vec<u8>, VmError> {
        let quoted = |words: &[OsString]| {
            exec::quote_for_ssh(words.iter().map(OsString::as_os_str))
                .map_err(|error| VmError::setup(format!("the command can't be written down: {error}")))
        };
        let mut file = b"cd ".to_vec();
        file.extend_from_slice(quoted(&["--".into(), self.dir.clone().into()])?.as_bytes());
        file.extend_from_slice(b" || exit 126\n");
        for (name, value) in &self.env {
            file.extend_from_slice(format!("export {name}=").as_bytes());
            file.extend_from_slice(quoted(std::slice::from_ref(value))?.as_bytes());
            file.push(b'\n');
        }
        file.extend_from_slice(b"exec ");
        file.extend_from_slice(quoted(&self.argv)?.as_bytes());
        file.push(b'\n');
        Ok(file)
    }

    fn shown(&self) -> String {
        let words: Vec<_> = self.argv.iter().map(|word| word.to_string_lossy()).collect();
        let line = words.join(" ");
        match line.char_indices().nth(200) {
            Some((at, _)) => format!("{} ...", &line[..at]),
            None => line,
        }
    }
}

/// A command that was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunId(u32);

/// A command that has ended by itself.
#[derive(Debug, Clone)]
pub struct Finished {
    /// What it was.
    pub command: String,
    /// Its exit code; 128 and more for a signal.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it printed as errors.
    pub stderr: String,
    /// From the request to the answer.
    pub elapsed: Duration,
}

impl Finished {
    /// An error with all it said, when the exit code is not 0.
    pub fn require_success(self) -> Result<Self, VmError> {
        if self.code == 0 {
            return Ok(self);
        }
        let sentence = format!("`{}` ended with {} in the machine", self.command, self.code);
        Err(VmError::new(Problem::Failed, sentence).with_output(format!("{}{}", self.stdout, self.stderr)))
    }
}

#[derive(Debug)]
struct Running {
    shown: String,
    limit: Duration,
    since: Duration,
}

/// A machine that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Machine {
    talk: Streaming,
    runner: SystemRunner,
    clock: SystemClock,
    files: Files,
    next: u32,
    running: BTreeMap<RunId, Running>,
    ended: BTreeMap<RunId, i32>,
    marks: BTreeSet<String>,
    boot_time: Duration,
}

/// What the guest says on its line.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Ready,
    Done(RunId, i32),
    Mark(String),
    Other,
}

fn understood(line: &str) -> Said {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["ready"] => Said::Ready,
        ["done", id, code] => match (id.parse(), code.parse()) {
            (Ok(id), Ok(code)) => Said::Done(RunId(id), code),
            _ => Said::Other,
        },
        ["mark", ..] => Said::Mark(line.trim_start().trim_start_matches("mark").trim().to_owned()),
        _ => Said::Other,
    }
}

/// Makes the machine's directory, empties its share, and puts in what the guest reads at its beginning.
pub(super) fn prepare_dir(config: &Config) -> Result<Files, VmError> {
    let files = Files::of(config);
    let prepare = || -> std::io::Result<()> {
        if files.share.exists() {
            std::fs::remove_dir_all(&files.share)?;
        }
        std::fs::create_dir_all(files.share.join("runs"))?;
        std::fs::write(&files.console, "")?;
        let hidden = |dir: &&PathBuf| dir.starts_with("/tmp") || dir.starts_with("/run");
        let mut shown = Vec::new();
        for dir in config.shown.iter().filter(hidden) {
            shown.extend_from_slice(dir.as_os_str().as_bytes());
            shown.push(b'\n');
        }
        std::fs::write(files.share.join("shown"), shown)?;
        if !config.units.is_empty() {
            std::fs::create_dir(files.share.join("units"))?;
        }
        for (name, text) in &config.units {
            std::fs::write(files.share.join("units").join(name), text)?;
        }
        Ok(())
    };
    let cannot = |error| {
        VmError::setup(format!(
            "{} can't be used for a machine: {error}",
            config.dir.display()
        ))
    };
    prepare().map_err(cannot)?;
    Ok(files)
}

impl Machine {
    /// Boots a machine and waits until it takes commands. Needs a tokio runtime with I/O and time.
    pub async fn boot(config: &Config) -> Result<Self, VmError> {
        let boot = initrd::prepare()?;
        let files = prepare_dir(config)?;
        // The kernel kills qemu when we die, however we do.
        let command = exec::Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args(qemu::argv(
                config,
                &boot,
                &files,
                Accel::of_this_host(),
                Console::File,
            ))
            .stdin(Stdin::Piped)
            .install_hint("`cargo xtask vm` installs what a machine needs");
        let runner = SystemRunner::new().with_grace(Duration::ZERO);
        let clock = SystemClock::new();
        let talk = runner
            .stream(&command, &CancellationToken::new())
            .await
            .map_err(|error| VmError::setup(format!("qemu does not start: {error}")))?;
        let mut machine = Self {
            talk,
            runner,
            clock,
            files,
            next: 1,
            running: BTreeMap::new(),
            ended: BTreeMap::new(),
            marks: BTreeSet::new(),
            boot_time: Duration::ZERO,
        };
        let ready = async {
            while machine.listen().await? != Said::Ready {}
            Ok(())
        };
        match tokio::time::timeout(BOOT_LIMIT, ready).await {
            Ok(ready) => ready?,
            Err(_) => {
                let init = match config.init {
                    Init::Script => "the machine",
                    Init::Systemd => "systemd in the machine",
                };
                let why = format!("{init} is not up after {} s", BOOT_LIMIT.as_secs());
                return Err(machine.dead(why));
            }
        }
        machine.boot_time = machine.clock.monotonic();
        Ok(machine)
    }

    /// From the start of qemu to the guest's readiness.
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// The host's side of the guest's [`SHARE`](super::guest::SHARE), writable on both.
    pub fn share(&self) -> &Path {
        &self.files.share
    }

    /// Runs a command to its end.
    pub async fn run(&mut self, command: &GuestCommand) -> Result<Finished, VmError> {
        let id = self.start(command).await?;
        self.finished(id).await
    }

    /// Starts a command; several may run at once.
    pub async fn start(&mut self, command: &GuestCommand) -> Result<RunId, VmError> {
        let id = RunId(self.next);
        self.next += 1;
        let dir = self.run_dir(id);
        let script = command.script_file()?;
        std::fs::create_dir(&dir)
            .and_then(|()| std::fs::write(dir.join("command"), script))
            .map_err(|error| VmError::setup(format!("{} can't be written: {error}", dir.display())))?;
        let running = Running {
            shown: command.shown(),
            limit: command.limit,
            since: self.clock.monotonic(),
        };
        self.running.insert(id, running);
        self.request(&format!("run {}", id.0)).await?;
        Ok(id)
    }

    /// Waits for the end of a command. After its time limit it is killed, and the error has what it said until then.
    pub async fn finished(&mut self, id: RunId) -> Result<Finished, VmError> {
        let Some(running) = self.running.remove(&id) else {
            return Err(VmError::setup("this command was waited for already"));
        };
        let spent = self.clock.monotonic().saturating_sub(running.since);
        let left = running.limit.saturating_sub(spent);
        let code = match tokio::time::timeout(left, self.end_of(id)).await {
            Ok(code) => code.map_err(|error| self.about(id, &running, &error))?,
            Err(_) => return Err(self.too_long(id, &running).await),
        };
        Ok(Finished {
            command: running.shown,
            code,
            stdout: self.output(id, "stdout"),
            stderr: self.output(id, "stderr"),
            elapsed: self.clock.monotonic().saturating_sub(running.since),
        })
    }

    /// Waits until the guest says `mark NAME` on its line ([`guest::mark`](super::guest::mark)). A mark that was said before
    /// counts, once.
    pub async fn wait_for_mark(&mut self, name: &str, limit: Duration) -> Result<(), VmError> {
        let wait = async {
            while !self.marks.remove(name) {
                self.listen().await?;
            }
            Ok(())
        };
        match tokio::time::timeout(limit, wait).await {
            Ok(result) => result,
            Err(_) => {
                let sentence = format!(
                    "the machine did not say `mark {name}` within {} s",
                    limit.as_secs()
                );
                let said = self.running.keys().map(|id| self.said(*id)).collect::<String>();
                Err(VmError::new(Problem::TimeLimit, sentence)
                    .with_output(said)
                    .with_console(self.console_tail()))
            }
        }
    }

    /// The files that a command's output and errors grow into.
    pub fn output_files(&self, id: RunId) -> (PathBuf, PathBuf) {
        let dir = self.run_dir(id);
        (dir.join("stdout"), dir.join("stderr"))
    }

    /// Ends the machine as a power cut does: at this moment, and nothing is written back.
    pub async fn cut_power(self) -> Result<(), VmError> {
        let pid = std::fs::read_to_string(&self.files.pid)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .and_then(Pid::from_raw);
        let cut = match pid {
            Some(pid) => rustix::process::kill_process(pid, Signal::KILL).map_err(|error| error.to_string()),
            None => Err("its process is not known".to_owned()),
        };
        let Self { talk, runner, .. } = self;
        if cut.is_ok() {
            // Dead by our signal: an exit that says so is what we want, and nobody else looks at it.
            let _ = talk.finish().await;
        } else {
            drop(talk);
        }
        runner.settled().await;
        cut.map_err(|why| VmError::new(Problem::Died, format!("the power can't be cut: {why}")))
    }

    /// Writes everything back and ends the machine. Pools are left imported, as after a clean reboot.
    pub async fn power_off(mut self) -> Result<(), VmError> {
        self.request("off").await?;
        let limit = Duration::from_secs(60);
        let end = async { while self.talk.next_line().await.is_some() {} };
        if tokio::time::timeout(limit, end).await.is_err() {
            return Err(self.dead(format!("the machine is not off after {} s", limit.as_secs())));
        }
        let Self { talk, runner, .. } = self;
        let _ = talk.finish().await;
        runner.settled().await;
        Ok(())
    }

    /// The end of what the guest's kernel and its first program printed.
    pub fn console_tail(&self) -> String {
        let bytes = std::fs::read(&self.files.console).unwrap_or_default();
        let tail = &bytes[bytes.len().saturating_sub(CONSOLE_TAIL)..];
        let text = String::from_utf8_lossy(tail).replace('\r', "");
        match text.split_once('\n') {
            Some((_, rest)) if tail.len() == CONSOLE_TAIL => rest.to_owned(),
            _ => text,
        }
    }

    fn run_dir(&self, id: RunId) -> PathBuf {
        self.files.share.join("runs").join(id.0.to_string())
    }

    fn output(&self, id: RunId, which: &str) -> String {
        let bytes = std::fs::read(self.run_dir(id).join(which)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn said(&self, id: RunId) -> String {
        self.output(id, "stdout") + &self.output(id, "stderr")
    }

    async fn request(&mut self, line: &str) -> Result<(), VmError> {
        if self.talk.send_line(line.as_bytes()).await.is_err() {
            return Err(self.dead("the machine has ended"));
        }
        Ok(())
    }

    /// Takes in the next thing that the guest says.
    async fn listen(&mut self) -> Result<Said, VmError> {
        let Some(line) = self.talk.next_line().await else {
            return Err(self.dead("the machine has ended"));
        };
        let said = understood(&String::from_utf8_lossy(&line.bytes));
        match &said {
            Said::Done(id, code) => {
                self.ended.insert(*id, *code);
            }
            Said::Mark(name) => {
                self.marks.insert(name.clone());
            }
            Said::Ready | Said::Other => {}
        }
        Ok(said)
    }

    async fn end_of(&mut self, id: RunId) -> Result<i32, VmError> {
        loop {
            if let Some(code) = self.ended.remove(&id) {
                return Ok(code);
            }
            self.listen().await?;
        }
    }

    /// Kills a command that took too long; if that doesn't help, the machine.
    async fn too_long(&mut self, id: RunId, running: &Running) -> VmError {
        let limit = running.limit.as_secs_f32();
        let asked = self.request(&format!("kill {}", id.0)).await;
        let killed = asked.is_ok()
            && tokio::time::timeout(KILL_LIMIT, self.end_of(id))
                .await
                .is_ok_and(|code| code.is_ok());
        let (problem, and) = if killed {
            (Problem::TimeLimit, "and was killed")
        } else {
            self.talk.close_input();
            self.kill();
            (Problem::Died, "and could not be killed, so the machine was")
        };
        let sentence = format!("`{}` took longer than {limit} s {and}", running.shown);
        VmError::new(problem, sentence)
            .with_output(self.said(id))
            .with_console(self.console_tail())
    }

    fn about(&self, id: RunId, running: &Running, error: &VmError) -> VmError {
        let sentence = format!("{error}\nwhile it ran `{}`", running.shown);
        VmError::new(error.problem(), sentence).with_output(self.said(id))
    }

    fn dead(&self, why: impl Into<String>) -> VmError {
        self.kill();
        VmError::new(Problem::Died, why).with_console(self.console_tail())
    }

    fn kill(&self) {
        let pid = std::fs::read_to_string(&self.files.pid).ok();
        if let Some(pid) = pid
            .and_then(|text| text.trim().parse().ok())
            .and_then(Pid::from_raw)
        {
            // Already gone is as good.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_written_so_that_a_shell_reads_the_same() {
        let command = GuestCommand::new(["/bin/x", "it's", "a b"])
            .dir("/with space")
            .env("NAME", "$HOME");
        let text = String::from_utf8(command.script_file().unwrap()).unwrap();
        assert_eq!(
            text,
            "cd '--' '/with space' || exit 126\nexport NAME='$HOME'\nexec /bin/x 'it'\\''s' 'a b'\n"
        );
    }

    #[test]
    fn the_guests_lines_are_understood() {
        assert_eq!(understood("ready"), Said::Ready);
        assert_eq!(understood("done 7 137\r"), Said::Done(RunId(7), 137));
        assert_eq!(
            understood("mark receive half way"),
            Said::Mark("receive half way".to_owned())
        );
        assert_eq!(understood("done seven"), Said::Other);
        assert_eq!(understood("[    1.0] zfs: loaded"), Said::Other);
    }

    #[test]
    fn a_failed_command_tells_what_it_said() {
        let finished = Finished {
            command: "zpool import lost".to_owned(),
            code: 1,
            stdout: String::new(),
            stderr: "no such pool\n".to_owned(),
            elapsed: Duration::ZERO,
        };
        let error = finished.require_success().unwrap_err();
        assert_eq!(error.problem(), Problem::Failed);
        assert_eq!(
            error.to_string(),
            "`zpool import lost` ended with 1 in the machine\n  it said:\n    no such pool"
        );
    }
}
