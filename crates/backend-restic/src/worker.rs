//! A restore in a process of its own, seen from the outside.
//!
//! Promises that whatever happens to that process (a panic, a signal, the memory limit, nonsense on its output) is an
//! error here and nothing more. The process is started through the core's runner, which ends it when the run is
//! cancelled or the future dropped.

use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;

use reseed_core::exec::{Command, ExecError, Exit, Keep, Runner, Secret, Stdin};
use tokio_util::sync::CancellationToken;

use crate::child::{Address, Event, Request};
use crate::error::EngineError;
use crate::keys::KnownKey;
use crate::progress::OnProgress;
use crate::restore::{Fault, RestoreJob, RestoreReport};
use crate::secret::Password;

/// Enough for a few million files: each takes some two hundred bytes of the plan, and its blobs some of the index.
pub const DEFAULT_MEMORY_LIMIT: u64 = 1 << 30;

/// More than a request has: a few paths, and secrets of some kilobytes.
const ROOM: usize = 256 << 10;

/// How to start the restore worker.
#[derive(Clone)]
pub struct Worker {
    argv: Vec<OsString>,
    runner: Arc<dyn Runner>,
    memory_limit: Option<u64>,
    known: Option<KnownKey>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("argv", &self.argv)
            .field("memory_limit", &self.memory_limit)
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker started by this argument vector: the program's path, then its arguments. The program must end in
    /// [`child::main`](crate::child::main).
    pub fn new(argv: impl IntoIterator<Item = impl Into<OsString>>, runner: Arc<dyn Runner>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            runner,
            memory_limit: Some(DEFAULT_MEMORY_LIMIT),
            known: None,
        }
    }

    /// What opened the repository before, so that the worker need not find it out again.
    #[must_use]
    pub(crate) fn knowing(mut self, key: Option<KnownKey>) -> Self {
        self.known = key;
        self
    }

    /// Changes how much memory the worker may use.
    #[must_use]
    pub fn with_memory_limit(mut self, bytes: Option<u64>) -> Self {
        self.memory_limit = bytes;
        self
    }

    /// Restores.
    ///
    /// # Errors
    /// What the worker reports; `Worker` when it ends without a word.
    pub async fn restore(
        &self,
        repository: Address,
        password: Password,
        job: RestoreJob,
        on_progress: OnProgress,
        cancel: &CancellationToken,
    ) -> Result<RestoreReport, EngineError> {
        self.restore_with(repository, password, job, on_progress, cancel, None)
            .await
    }

    #[doc(hidden)]
    pub async fn restore_with(
        &self,
        repository: Address,
        password: Password,
        job: RestoreJob,
        on_progress: OnProgress,
        cancel: &CancellationToken,
        fault: Option<Fault>,
    ) -> Result<RestoreReport, EngineError> {
        let (program, arguments) = self.argv.split_first().ok_or_else(|| EngineError::Invalid {
            detail: "no program for the restore worker".into(),
        })?;
        let mut command = Command::new(program)
            .args(arguments)
            .stdin(Stdin::Piped)
            .keep_stderr(Keep::ends(8))
            .hide(Secret::new(password.expose().as_bytes()));
        for secret in repository.secrets() {
            command = command.hide(Secret::new(secret.as_bytes()));
        }
        for secret in self.known.iter().flat_map(KnownKey::secrets) {
            command = command.hide(Secret::new(secret.as_bytes()));
        }
        let request = Request {
            repository,
            password,
            known: self.known.clone(),
            job,
            memory_limit: self.memory_limit,
            fault,
        };
        // Room enough, so that no copy of a secret is left behind where it grew.
        let mut line = zeroize::Zeroizing::new(Vec::with_capacity(ROOM));
        serde_json::to_writer(&mut *line, &request).map_err(|error| EngineError::Invalid {
            detail: error.to_string(),
        })?;
        let stop = cancel.child_token();
        let mut talk = self.runner.stream(&command, &stop).await.map_err(failed_to_run)?;
        // An error here means that it ended already; its exit says more.
        let _ = talk.send_line(&line).await;
        drop(line);

        let mut last = None;
        let mut nonsense = None;
        while let Some(line) = talk.next_line().await {
            match serde_json::from_slice::<Event>(&line.bytes) {
                Ok(Event::Progress { progress }) if last.is_none() => on_progress(progress),
                Ok(end) if last.is_none() => last = Some(end),
                _ => {
                    let shown: String = String::from_utf8_lossy(&line.bytes).chars().take(80).collect();
                    nonsense = Some(shown);
                    stop.cancel();
                    break;
                }
            }
        }
        let ended = talk.finish().await;
        if let Some(shown) = nonsense {
            return Err(EngineError::Worker {
                detail: format!("it said {shown:?}, which is no event"),
            });
        }
        conclude(last, ended)
    }
}

/// What the worker said last and how it ended must agree.
fn conclude(
    last: Option<Event>,
    ended: Result<reseed_core::exec::Output, ExecError>,
) -> Result<RestoreReport, EngineError> {
    match (last, ended) {
        (Some(Event::Failed { error }), _) => Err(error),
        (_, Err(error)) => Err(failed_to_run(error)),
        (Some(Event::Done { report }), Ok(output)) if output.exit.success() => Ok(report),
        (_, Ok(output)) => {
            let words = output.stderr.text();
            let mut detail = match output.exit {
                Exit::Code(0) => "it ended without a result".to_owned(),
                exit => format!("it ended with {exit}"),
            };
            if words.contains("memory allocation of") {
                detail.push_str("; it needed more memory than it may use");
            }
            let plain = crate::words::plain(&words);
            if !plain.is_empty() {
                detail.push_str(": ");
                detail.push_str(&plain);
            }
            Err(EngineError::Worker { detail })
        }
    }
}

fn failed_to_run(error: ExecError) -> EngineError {
    match error {
        ExecError::Cancelled { .. } => EngineError::Cancelled,
        other => EngineError::Worker {
            detail: other.to_string(),
        },
    }
}
