//! The one place that starts processes. A [`Group`] is a pipe's processes in a process group of
//! their own; it promises that no process of it is left unreaped when it is dropped. It does not
//! wait for anything by itself, except in that drop.
//!
//! Children are reaped only at the very end. Until then the group's first process, dead or alive,
//! keeps the group's number from being given to somebody else, so a signal to the group can never
//! hit a stranger. Their exit is learnt from a pidfd (Linux 5.3) instead.
//!
//! `PR_SET_PDEATHSIG` is left out: it would need unsafe code between fork and exec, and it fires
//! when the *thread* that spawned ends, which in a pool of threads is not when we end. When we are
//! killed ourselves, a worker of ours sees the end of file on its input, and the unit's cgroup
//! takes care of the rest.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, ExitStatus, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::command::PASSED_THROUGH;
use super::{Command, ExecError, Secret, Stdin};

/// How long a drop may wait for a killed process that does not die.
const DROP_WAIT: Timespec = Timespec {
    tv_sec: 2,
    tv_nsec: 0,
};

/// The processes of one pipe.
#[derive(Debug)]
pub(super) struct Group {
    members: Vec<Member>,
    reaped: bool,
}

#[derive(Debug)]
struct Member {
    child: Child,
    pidfd: AsyncFd<OwnedFd>,
}

/// Our ends of a started pipe.
#[derive(Debug)]
pub(super) struct Ends {
    /// The first stage's input, if something is to be written there.
    pub(super) stdin: Option<ChildStdin>,
    /// The last stage's output.
    pub(super) stdout: ChildStdout,
    /// Every stage's standard error.
    pub(super) stderrs: Vec<ChildStderr>,
}

/// Starts all stages, each one's output being the next one's input.
pub(super) fn start(stages: &[Command]) -> Result<(Group, Ends), ExecError> {
    let mut group = Group {
        members: Vec::with_capacity(stages.len()),
        reaped: false,
    };
    let mut ends = None;
    let mut stderrs = Vec::with_capacity(stages.len());
    let mut upstream: Option<io::PipeReader> = None;
    for (position, stage) in stages.iter().enumerate() {
        let last = position + 1 == stages.len();
        let cannot = |source| ExecError::CannotStart {
            command: stage.to_string(),
            source,
        };
        let mut command = prepare(stage)?;
        match upstream.take() {
            Some(reader) => command.stdin(reader),
            None if *stage.input() == Stdin::Null => command.stdin(Stdio::null()),
            None => command.stdin(Stdio::piped()),
        };
        if last {
            command.stdout(Stdio::piped());
        } else {
            let (reader, writer) = io::pipe().map_err(cannot)?;
            command.stdout(writer);
            upstream = Some(reader);
        }
        command.stderr(Stdio::piped());
        // 0 makes the first one the leader; it is not reaped before the end, so its number stays.
        command.process_group(group.leader().map_or(0, Pid::as_raw_pid));
        let mut child = command.spawn().map_err(|source| not_started(stage, source))?;
        // Our copies of the pipe's ends must go, else no stage would ever see its end of file.
        drop(command);
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let pidfd = match pidfd_of(&child) {
            Ok(pidfd) => pidfd,
            Err(source) => {
                // Without a pidfd it can't be supervised; it has just begun.
                let _ = child.kill();
                let _ = child.wait();
                return Err(cannot(source));
            }
        };
        group.members.push(Member { child, pidfd });
        stderrs.extend(stderr);
        match &mut ends {
            None => ends = Some((stdin, stdout)),
            Some((_, output)) => *output = stdout,
        }
    }
    let Some((stdin, Some(stdout))) = ends else {
        return Err(ExecError::Invalid {
            reason: "a pipe without a stage".to_owned(),
        });
    };
    Ok((
        group,
        Ends {
            stdin,
            stdout,
            stderrs,
        },
    ))
}

#[allow(
    deprecated,
    reason = "deprecated for types that lie about their descriptor; an OwnedFd does not, and the successor is unsafe"
)]
fn pidfd_of(child: &Child) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::NONBLOCK)?;
    AsyncFd::with_interest(fd, Interest::READABLE)
}

#[allow(clippy::disallowed_methods, reason = "the project's one spawn site")]
fn prepare(stage: &Command) -> Result<std::process::Command, ExecError> {
    let cannot = |source| ExecError::CannotStart {
        command: stage.to_string(),
        source,
    };
    let mut command = std::process::Command::new(stage.program());
    command.args(stage.arguments());
    command.env_clear();
    for key in PASSED_THROUGH {
        if let Some(value) = std::env::var_os(key) {
            command.env(key, value);
        }
    }
    // Parsers read the tools' words, and those must not be translated.
    command.env("LC_ALL", "C");
    command.envs(stage.variables());
    if let Some(directory) = stage.directory() {
        command.current_dir(directory);
    }
    let mut mappings = Vec::new();
    for (number, secret) in stage.secret_files() {
        let child_fd = i32::try_from(number).map_err(|_| ExecError::Invalid {
            reason: "too many secret files".to_owned(),
        })?;
        mappings.push(FdMapping {
            parent_fd: sealed_memfd(secret).map_err(cannot)?,
            child_fd,
        });
    }
    if !mappings.is_empty() {
        command.fd_mappings(mappings).map_err(|_| ExecError::Invalid {
            reason: "two secret files on one descriptor".to_owned(),
        })?;
    }
    Ok(command)
}

/// A file in memory that nobody can change, closed on exec in every other child.
fn sealed_memfd(secret: &Secret) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(c"reseed-secret", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut rest = secret.expose();
    let mut offset = 0_u64;
    while !rest.is_empty() {
        // pwrite leaves the offset at 0 for a tool that reads the descriptor itself.
        let written = rustix::io::pwrite(&fd, rest, offset)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        rest = &rest[written..];
        offset += u64::try_from(written).unwrap_or(0);
    }
    rustix::fs::fcntl_add_seals(
        &fd,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(fd)
}

fn not_started(stage: &Command, source: io::Error) -> ExecError {
    let program = stage.program().to_string_lossy().into_owned();
    if let Some(directory) = stage.directory() {
        // The same ENOENT comes for a missing program and a missing directory.
        if let Err(source) = std::fs::read_dir(directory) {
            return ExecError::WorkingDirectory {
                path: directory.to_owned(),
                source,
            };
        }
    }
    match source.kind() {
        io::ErrorKind::NotFound => {
            let hint = match stage.hint() {
                Some(hint) => hint.to_owned(),
                None if std::path::Path::new(stage.program()).exists() => {
                    format!("{program} exists, but the interpreter or loader it names does not")
                }
                None => {
                    format!("install the package that has {program}, or add its directory to the unit's path")
                }
            };
            ExecError::NotInstalled { program, hint }
        }
        io::ErrorKind::InvalidInput => ExecError::Invalid {
            reason: format!("{program}: an argument or variable contains a NUL byte"),
        },
        _ => ExecError::CannotStart {
            command: stage.to_string(),
            source,
        },
    }
}

impl Group {
    /// The first process, whose number is the group's.
    fn leader(&self) -> Option<Pid> {
        self.members.first().map(|member| Pid::from_child(&member.child))
    }

    /// Sends a signal to every process of the group, also to those its members started.
    pub(super) fn signal(&self, signal: Signal) {
        if self.reaped {
            return;
        }
        if let Some(leader) = self.leader() {
            // ESRCH: everybody is gone already, which is what we want.
            let _ = rustix::process::kill_process_group(leader, signal);
        }
    }

    /// Waits until every member has ended, without reaping it. May be dropped and called again.
    pub(super) async fn all_ended(&self) -> io::Result<()> {
        for member in &self.members {
            member.pidfd.readable().await?.retain_ready();
        }
        Ok(())
    }

    /// Reaps every member; to be called when all have ended.
    pub(super) fn reap(&mut self) -> io::Result<Vec<ExitStatus>> {
        self.reaped = true;
        let statuses: Vec<io::Result<ExitStatus>> = self
            .members
            .iter_mut()
            .map(|member| member.child.wait())
            .collect();
        statuses.into_iter().collect()
    }
}

impl Drop for Group {
    /// The last resort, when a runtime is torn down under a run: kill, wait a moment, reap.
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        self.signal(Signal::KILL);
        for member in &mut self.members {
            let pidfd = member.pidfd.get_ref();
            let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
            let _ = rustix::event::poll(&mut fds, Some(&DROP_WAIT));
            let _ = member.child.try_wait();
        }
    }
}
