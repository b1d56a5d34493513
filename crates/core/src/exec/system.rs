//! The runner that starts real processes. It keeps its promise also when its future is dropped:
//! each run is watched over by a task of its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::command::display_pipe;
use super::heard::Sieve;
use super::spawn::{self, Ends, Group};
use super::supervise::{Ending, Limits, Plumbing, Sink, supervise};
use super::{
    Captured, Command, ExecError, Exit, Line, Output, PipeOutput, Redactor, Runner, Stage, Stdin, Streaming,
};
use crate::clock::{Clock, SystemClock};

/// Lines that may wait for a slow reader before the child has to.
const LINES_AHEAD: usize = 256;

/// Runs programs on this machine. Needs a tokio runtime with I/O and time enabled, and Linux 5.3.
#[derive(Debug, Clone)]
pub struct SystemRunner {
    grace: Duration,
    linger: Duration,
    clock: Arc<dyn Clock>,
    runs: TaskTracker,
}

impl Default for SystemRunner {
    fn default() -> Self {
        let runs = TaskTracker::new();
        // A closed tracker still takes tasks; it only lets `settled` return when there are none.
        runs.close();
        Self {
            grace: Duration::from_secs(10),
            linger: Duration::from_secs(2),
            // Real processes live in real time, whatever clock the caller has.
            clock: Arc::new(SystemClock::new()),
            runs,
        }
    }
}

impl SystemRunner {
    /// A runner that gives processes 10 s between SIGTERM and SIGKILL, and outputs 2 s of silence
    /// when a left-behind process holds them open.
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes the time between SIGTERM and SIGKILL.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Changes how long an output may be held open in silence after the last process ended.
    #[must_use]
    pub fn with_linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Waits until no process of this runner or its clones is left, also of runs whose future was
    /// dropped. To be awaited before the program ends, and before `restic unlock`: a dead but
    /// unreaped restic keeps its lock valid.
    pub async fn settled(&self) {
        self.runs.wait().await;
    }

    /// Starts `stages` and a task that watches over them. The task's answer comes when every
    /// process has been waited for.
    fn launch(&self, stages: &[Command], stop: CancellationToken, talk: Talk) -> Result<Launched, ExecError> {
        let started = self.clock.monotonic();
        let clock = Arc::clone(&self.clock);
        let (group, ends) = spawn::start(stages)?;
        let mut redactor = Redactor::default();
        for stage in stages {
            redactor.merge(stage.redactor());
        }
        let (mut plumbing, outputs) =
            connect(ends, stages, talk).map_err(|source| ExecError::CannotStart {
                command: display_pipe(stages),
                source,
            })?;
        let limits = Limits {
            time_limit: stages.iter().filter_map(Command::limit).min(),
            grace: stages
                .iter()
                .filter_map(Command::own_grace)
                .max()
                .unwrap_or(self.grace),
            linger: self.linger,
        };
        let names: Vec<String> = stages.iter().map(ToString::to_string).collect();
        let tracker = self.runs.clone();
        Ok(Launched(self.runs.spawn(async move {
            let ending = supervise(&group, &mut plumbing, &*clock, limits, &stop).await;
            let elapsed = clock.monotonic().saturating_sub(started);
            conclude(
                group, ending, names, &outputs, limits, &redactor, elapsed, &tracker,
            )
        })))
    }
}

/// How the first stage's input and the last one's output are connected.
#[derive(Default)]
struct Talk {
    lines: Option<mpsc::Sender<Line>>,
    input: Option<mpsc::Receiver<Vec<u8>>>,
}

struct Launched(tokio::task::JoinHandle<Result<PipeOutput, ExecError>>);

impl Launched {
    async fn ended(self, command: String) -> Result<PipeOutput, ExecError> {
        match self.0.await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is being torn down; dropping the group has killed and reaped.
                Err(_) => Err(ExecError::Cancelled {
                    command,
                    stderr: String::new(),
                }),
            },
        }
    }
}

struct Outputs {
    stdout: Sink,
    stderrs: Vec<Sink>,
}

fn connect(ends: Ends, stages: &[Command], talk: Talk) -> std::io::Result<(Plumbing, Outputs)> {
    let mut plumbing = Plumbing::default();
    let sink = |keep| Arc::new(Mutex::new(Captured::new(keep)));
    let mut stderrs = Vec::with_capacity(stages.len());
    for (stage, stderr) in stages.iter().zip(ends.stderrs) {
        let kept = sink(stage.kept().1);
        let from = ChildStderr::from_std(stderr)?;
        match stage.listener() {
            Some(listener) => plumbing.sieve(from, Arc::clone(&kept), Sieve::new(listener.clone())),
            None => plumbing.capture(from, Arc::clone(&kept)),
        }
        stderrs.push(kept);
    }
    let from = ChildStdout::from_std(ends.stdout)?;
    let stdout = match talk.lines {
        Some(lines) => {
            let counted = sink(super::Keep { head: 0, tail: 0 });
            plumbing.lines(from, Arc::clone(&counted), lines);
            counted
        }
        None => {
            let keep = stages.last().map_or(super::Keep::ends(0), |stage| stage.kept().0);
            let kept = sink(keep);
            plumbing.capture(from, Arc::clone(&kept));
            kept
        }
    };
    if let (Some(stdin), Some(first)) = (ends.stdin, stages.first()) {
        let to = ChildStdin::from_std(stdin)?;
        let from = match (first.input(), talk.input) {
            (Stdin::Piped, Some(from)) => from,
            (Stdin::Bytes(bytes), _) => {
                let (send, receive) = mpsc::channel(1);
                // The only message, so there is room for it.
                let _ = send.try_send(bytes.clone());
                receive
            }
            (Stdin::Null | Stdin::Piped, _) => mpsc::channel(1).1,
        };
        plumbing.feed(to, from);
    }
    Ok((plumbing, Outputs { stdout, stderrs }))
}

#[allow(
    clippy::too_many_arguments,
    reason = "the parts of one run, taken apart in one place"
)]
fn conclude(
    mut group: Group,
    ending: std::io::Result<Ending>,
    names: Vec<String>,
    outputs: &Outputs,
    limits: Limits,
    redactor: &Redactor,
    elapsed: Duration,
    tracker: &TaskTracker,
) -> Result<PipeOutput, ExecError> {
    let take = |sink: &Sink| {
        let mut captured = sink.lock().unwrap_or_else(PoisonError::into_inner).clone();
        captured.close();
        captured
    };
    let command = || names.join(" | ");
    let stderrs: Vec<Captured> = outputs
        .stderrs
        .iter()
        .map(|sink| {
            let mut captured = take(sink);
            captured.redact(redactor);
            captured
        })
        .collect();
    let said = || {
        let texts: Vec<String> = stderrs.iter().map(|c| c.text().trim_end().to_owned()).collect();
        texts
            .iter()
            .filter(|text| !text.is_empty())
            .cloned()
            .collect::<Vec<_>>()
            .join("\n")
    };
    let ending = ending.map_err(|source| ExecError::LostTrack {
        command: command(),
        source,
    })?;
    if ending == Ending::Unkillable {
        // It is reaped when the kernel lets go of it, which may be never.
        tracker.spawn(async move {
            if group.all_ended().await.is_ok() {
                let _ = group.reap();
            }
        });
        return Err(ExecError::Unkillable { command: command() });
    }
    let statuses = group.reap().map_err(|source| ExecError::LostTrack {
        command: command(),
        source,
    })?;
    match ending {
        Ending::Cancelled => {
            return Err(ExecError::Cancelled {
                command: command(),
                stderr: said(),
            });
        }
        Ending::TimedOut => {
            let limit = limits.time_limit.unwrap_or_default();
            return Err(ExecError::TimedOut {
                command: command(),
                limit,
                stderr: said(),
            });
        }
        Ending::Done | Ending::HeldOpen | Ending::Unkillable => {}
    }
    let stages = names
        .into_iter()
        .zip(statuses)
        .zip(stderrs)
        .map(|((command, status), stderr)| Stage {
            command,
            exit: Exit::from(status),
            stderr,
        })
        .collect();
    Ok(PipeOutput {
        stages,
        stdout: take(&outputs.stdout),
        elapsed,
        held_open: ending == Ending::HeldOpen,
    })
}

fn as_single(output: PipeOutput) -> Result<Output, ExecError> {
    let mut stages = output.stages.into_iter();
    match (stages.next(), stages.next()) {
        (Some(stage), None) => Ok(Output {
            command: stage.command,
            exit: stage.exit,
            stdout: output.stdout,
            stderr: stage.stderr,
            elapsed: output.elapsed,
            held_open: output.held_open,
        }),
        _ => Err(ExecError::Invalid {
            reason: "not exactly one stage".to_owned(),
        }),
    }
}

fn not_before(cancel: &CancellationToken, stages: &[Command]) -> Result<(), ExecError> {
    if cancel.is_cancelled() {
        return Err(ExecError::Cancelled {
            command: display_pipe(stages),
            stderr: String::new(),
        });
    }
    Ok(())
}

fn refuse(reason: &str) -> ExecError {
    ExecError::Invalid {
        reason: reason.to_owned(),
    }
}

#[async_trait]
impl Runner for SystemRunner {
    async fn run(&self, command: &Command, cancel: &CancellationToken) -> Result<Output, ExecError> {
        as_single(self.pipe(std::slice::from_ref(command), cancel).await?)
    }

    async fn pipe(&self, stages: &[Command], cancel: &CancellationToken) -> Result<PipeOutput, ExecError> {
        not_before(cancel, stages)?;
        if stages.iter().any(|stage| *stage.input() == Stdin::Piped) {
            return Err(refuse("a piped input needs somebody who writes: use stream"));
        }
        if stages.iter().skip(1).any(|stage| *stage.input() != Stdin::Null) {
            return Err(refuse(
                "only the first stage of a pipe can have an input of its own",
            ));
        }
        let stop = cancel.child_token();
        // Dropping this future ends the processes; the task reaps them.
        let _guard = stop.clone().drop_guard();
        self.launch(stages, stop, Talk::default())?
            .ended(display_pipe(stages))
            .await
    }

    async fn stream(&self, command: &Command, cancel: &CancellationToken) -> Result<Streaming, ExecError> {
        let stages = std::slice::from_ref(command);
        not_before(cancel, stages)?;
        let stop = cancel.child_token();
        let guard = stop.clone().drop_guard();
        let (lines, received) = mpsc::channel(LINES_AHEAD);
        let (input, written) = mpsc::channel(1);
        let piped = *command.input() == Stdin::Piped;
        let talk = Talk {
            lines: Some(lines),
            input: piped.then_some(written),
        };
        let launched = self.launch(stages, stop, talk)?;
        let name = command.to_string();
        let done = async move { as_single(launched.ended(name).await?) };
        Ok(Streaming::from_parts(received, piped.then_some(input), done).guarded(guard))
    }
}
