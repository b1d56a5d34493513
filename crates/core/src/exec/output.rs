//! What came back: how each process ended, and what it wrote, in bounded memory. It promises that
//! a cut output never looks whole. It does not interpret exit codes: restic's 3 is no failure of
//! ours to name.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use super::{ExecError, Keep, Redactor};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exit {
    /// It exited by itself with this code.
    Code(i32),
    /// It was ended by this signal.
    Signal(i32),
}

impl Exit {
    /// Whether it exited with 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }

    /// The exit code, if it exited by itself.
    pub fn code(self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(code),
            Self::Signal(_) => None,
        }
    }

    /// Whether a closed pipe ended it (SIGPIPE): in a pipe the fault is then further down.
    pub fn broken_pipe(self) -> bool {
        self == Self::Signal(rustix::process::Signal::PIPE.as_raw())
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            // Only a stopped or continued process has neither, and we never ask for those.
            (None, None) => Self::Code(-1),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use rustix::process::Signal;
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(raw) => {
                let name = match Signal::from_named_raw(*raw) {
                    Some(Signal::HUP) => " (SIGHUP)",
                    Some(Signal::INT) => " (SIGINT)",
                    Some(Signal::ABORT) => " (SIGABRT)",
                    Some(Signal::BUS) => " (SIGBUS)",
                    Some(Signal::KILL) => " (SIGKILL: killed, or out of memory)",
                    Some(Signal::SEGV) => " (SIGSEGV)",
                    Some(Signal::PIPE) => " (SIGPIPE)",
                    Some(Signal::TERM) => " (SIGTERM)",
                    _ => "",
                };
                write!(f, "signal {raw}{name}")
            }
        }
    }
}

/// One output of a process: its beginning, its end and its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    keep: Keep,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
    /// Bytes dropped between head and tail.
    dropped: u64,
}

impl Captured {
    pub(super) fn new(keep: Keep) -> Self {
        Self {
            keep,
            head: Vec::new(),
            tail: VecDeque::new(),
            total: 0,
            dropped: 0,
        }
    }

    /// A whole output; for fakes.
    pub fn from_whole(bytes: impl Into<Vec<u8>>) -> Self {
        let head = bytes.into();
        let total = u64::try_from(head.len()).unwrap_or(u64::MAX);
        Self {
            keep: Keep {
                head: head.len(),
                tail: 0,
            },
            head,
            tail: VecDeque::new(),
            total,
            dropped: 0,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.total += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let room = self.keep.head.saturating_sub(self.head.len()).min(bytes.len());
        let (first, rest) = bytes.split_at(room);
        self.head.extend_from_slice(first);
        let skip = rest.len().saturating_sub(self.keep.tail);
        let overflow = (self.tail.len() + rest.len() - skip).saturating_sub(self.keep.tail);
        self.tail.drain(..overflow);
        self.tail.extend(&rest[skip..]);
        self.dropped += u64::try_from(skip + overflow).unwrap_or(u64::MAX);
    }

    /// Called once at the end of the output: where nothing was dropped, head and tail are one.
    pub(super) fn close(&mut self) {
        if self.dropped == 0 {
            self.head.extend(self.tail.drain(..));
        }
    }

    pub(super) fn redact(&mut self, redactor: &Redactor) {
        if self.dropped == 0 {
            self.head = redactor.bytes(&self.head);
        } else {
            self.head = redactor.before_cut(&self.head);
            self.tail = redactor.after_cut(self.tail.make_contiguous()).into();
        }
    }

    /// All of it, or `None` when more was written than was kept. Whoever parses a listing must
    /// ask here: half a listing is not a shorter listing.
    pub fn whole(&self) -> Option<&[u8]> {
        (self.dropped == 0).then_some(&self.head)
    }

    /// How many bytes were written, kept or not.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// For people: the kept text, with a note where something was left out.
    pub fn text(&self) -> Cow<'_, str> {
        if self.dropped == 0 {
            return String::from_utf8_lossy(&self.head);
        }
        let (a, b) = self.tail.as_slices();
        let tail = [a, b].concat();
        Cow::Owned(format!(
            "{}\n[{} bytes left out]\n{}",
            String::from_utf8_lossy(&self.head),
            self.dropped,
            String::from_utf8_lossy(&tail)
        ))
    }
}

/// What one command did. It ended by itself; with which exit code is for the caller to judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The command, as it prints.
    pub command: String,
    /// How it ended.
    pub exit: Exit,
    /// Its standard output, as it was. For [`Runner::stream`](super::Runner::stream) only the
    /// length, since the lines went to the caller.
    pub stdout: Captured,
    /// Its standard error, with every secret replaced by `***`.
    pub stderr: Captured,
    /// From start to end.
    pub elapsed: Duration,
    /// A process it left behind held its outputs open; it was killed, or, if it had left the
    /// process group (an ssh control master), no longer listened to.
    pub held_open: bool,
}

impl Output {
    /// A finished command; for fakes.
    pub fn fake(
        command: &super::Command,
        exit: Exit,
        stdout: impl Into<Vec<u8>>,
        stderr: impl Into<Vec<u8>>,
    ) -> Self {
        Self {
            command: command.to_string(),
            exit,
            stdout: Captured::from_whole(stdout),
            stderr: Captured::from_whole(command.redactor().bytes(&stderr.into())),
            elapsed: Duration::ZERO,
            held_open: false,
        }
    }

    /// This output, or an error when the exit code is not 0.
    pub fn require_success(self) -> Result<Self, ExecError> {
        if self.exit.success() {
            Ok(self)
        } else {
            Err(self.as_failure())
        }
    }

    /// The whole standard output, or an error when it was longer than what was kept.
    pub fn whole_stdout(&self) -> Result<&[u8], ExecError> {
        self.stdout.whole().ok_or_else(|| ExecError::TooMuchOutput {
            command: self.command.clone(),
            total: self.stdout.total(),
        })
    }

    pub(super) fn as_failure(&self) -> ExecError {
        ExecError::Failed {
            command: self.command.clone(),
            exit: self.exit,
            stderr: self.stderr.text().trim_end().to_owned(),
        }
    }
}

/// One stage of a pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The command, as it prints.
    pub command: String,
    /// How it ended.
    pub exit: Exit,
    /// Its standard error, with every secret of the whole pipe replaced by `***`.
    pub stderr: Captured,
}

/// What a pipe did: every stage ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipeOutput {
    /// The stages in order.
    pub stages: Vec<Stage>,
    /// The last stage's standard output.
    pub stdout: Captured,
    /// From start to end.
    pub elapsed: Duration,
    /// As in [`Output::held_open`].
    pub held_open: bool,
}

impl PipeOutput {
    /// The stage to blame: the first one that failed otherwise than by a closed pipe, else the
    /// first that failed. A receiver that gives up ends its sender by SIGPIPE, so the order alone
    /// does not tell.
    pub fn culprit(&self) -> Option<&Stage> {
        let failed = || self.stages.iter().filter(|stage| !stage.exit.success());
        failed()
            .find(|stage| !stage.exit.broken_pipe())
            .or_else(|| failed().next())
    }

    /// This output, or an error naming the [`culprit`](Self::culprit).
    pub fn require_success(self) -> Result<Self, ExecError> {
        match self.culprit() {
            None => Ok(self),
            Some(stage) => Err(ExecError::Failed {
                command: stage.command.clone(),
                exit: stage.exit,
                stderr: stage.stderr.text().trim_end().to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::Secret;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn captured_keeps_both_ends_and_counts_the_rest(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..12),
            head in 0_usize..50, tail in 0_usize..50,
        ) {
            let mut captured = Captured::new(Keep { head, tail });
            for chunk in &chunks {
                captured.push(chunk);
                prop_assert!(captured.head.len() <= head && captured.tail.len() <= tail);
            }
            captured.close();
            let all = chunks.concat();
            prop_assert_eq!(captured.total(), all.len() as u64);
            if all.len() <= head + tail {
                prop_assert_eq!(captured.whole(), Some(all.as_slice()));
            } else {
                prop_assert_eq!(captured.whole(), None);
                prop_assert_eq!(&captured.head, &all[..head]);
                prop_assert_eq!(captured.tail.make_contiguous(), &all[all.len() - tail..]);
                prop_assert_eq!(captured.dropped, (all.len() - head - tail) as u64);
            }
        }
    }

    #[test]
    fn a_secret_across_the_cut_does_not_show() {
        let redactor = Redactor::new([&Secret::new("hunter2")]);
        let mut captured = Captured::new(Keep { head: 8, tail: 6 });
        captured.push(b"pass hunter2 .... hunter2 no");
        captured.close();
        captured.redact(&redactor);
        assert_eq!(captured.text(), "pass ***\n[14 bytes left out]\n*** no");
    }

    #[test]
    fn the_receiver_is_blamed_for_the_senders_sigpipe() {
        let stage = |name: &str, exit| Stage {
            command: name.to_owned(),
            exit,
            stderr: Captured::from_whole("why"),
        };
        let out = |stages| PipeOutput {
            stages,
            stdout: Captured::from_whole(""),
            elapsed: Duration::ZERO,
            held_open: false,
        };
        let blamed = |a, b| {
            out(vec![stage("send", a), stage("recv", b)])
                .culprit()
                .map(|s| s.command.clone())
        };
        assert_eq!(blamed(Exit::Signal(13), Exit::Code(1)).as_deref(), Some("recv"));
        assert_eq!(blamed(Exit::Code(1), Exit::Code(1)).as_deref(), Some("send"));
        assert_eq!(blamed(Exit::Signal(13), Exit::Code(0)).as_deref(), Some("send"));
        assert_eq!(blamed(Exit::Code(0), Exit::Code(0)), None);
    }
}
