//! The restore worker: the inside of the process that restores.
//!
//! It reads one request (a line of JSON, the password and the key to the store in it) from its standard input, works, and writes events, a line
//! of JSON each, to its standard output; the last is `done` or `failed`. Exit code 0 goes with `done`, 1 with `failed`,
//! 2 with a request that makes no sense. It ends early and cleanly, its lock removed, on SIGTERM, SIGINT, and when its
//! input is closed, which is also what it sees when its parent was killed.
//!
//! It limits its own memory, so that a repository that makes the libraries beneath want too much ends this process
//! and no other. How it ends is judged by the [worker](crate::worker).

use std::io::{BufRead, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use reseed_core::clock::{Clock, SystemClock};
use rustix::process::{Resource, Rlimit};
use serde::{Deserialize, Serialize};

use crate::error::EngineError;
use crate::keys::KnownKey;
use crate::progress::Progress;
use crate::repo::Engine;
use crate::restore::{Fault, RestoreJob, RestoreReport, restore_with};
use crate::s3::{CredentialsFrom, S3Credentials, S3Place};
use crate::secret::Password;

/// A request longer than this is not one.
const MAX_REQUEST: u64 = 1 << 20;

/// Where a repository is, as another process can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Address {
    /// A local directory.
    Local {
        /// The directory.
        #[serde(with = "crate::os_path")]
        path: PathBuf,
    },
    /// A bucket. It serialises with the key in it, as the request does with the password.
    S3 {
        /// Where.
        place: S3Place,
        /// The key.
        credentials: S3Credentials,
    },
}

impl Address {
    /// What must not appear in the worker's words.
    pub(crate) fn secrets(&self) -> Vec<&str> {
        match self {
            Self::Local { .. } => Vec::new(),
            Self::S3 { credentials, .. } => credentials.secrets().collect(),
        }
    }
}

/// What the worker is asked to do.
#[derive(Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Request {
    /// From where.
    pub repository: Address,
    /// Its password.
    pub password: Password,
    /// What has opened it by that already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<KnownKey>,
    /// What and where to.
    pub job: RestoreJob,
    /// Most bytes of memory that the process may use.
    pub memory_limit: Option<u64>,
    /// For tests.
    #[doc(hidden)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// What the worker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// How far it is.
    Progress {
        /// How far.
        #[serde(flatten)]
        progress: Progress,
    },
    /// The end, and all is there.
    Done {
        /// What was done.
        report: RestoreReport,
    },
    /// The end, and it did not work.
    Failed {
        /// Why.
        error: EngineError,
    },
}

/// Runs the worker on this process's standard input and output. Nothing else may use them.
#[must_use]
pub fn main() -> ExitCode {
    crate::secret::forbid_core_dumps();
    let mut line = Vec::new();
    let input = std::io::stdin();
    if let Err(error) = input.lock().take(MAX_REQUEST).read_until(b'\n', &mut line) {
        return fail(
            2,
            EngineError::Invalid {
                detail: format!("cannot read the request: {error}"),
            },
        );
    }
    let request: Request = match serde_json::from_slice(&line) {
        Ok(request) => request,
        // The message of the parser could quote the password; its position cannot.
        Err(error) => {
            let detail = format!(
                "the request is not understood (line {}, column {})",
                error.line(),
                error.column()
            );
            return fail(2, EngineError::Invalid { detail });
        }
    };
    drop(zeroize::Zeroizing::new(line));
    if let Some(bytes) = request.memory_limit
        && let Err(error) = limit_memory(bytes)
    {
        return fail(
            2,
            EngineError::Invalid {
                detail: format!("cannot limit memory: {error}"),
            },
        );
    }
    let cancelled = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        if let Err(error) = signal_hook::flag::register(signal, Arc::clone(&cancelled)) {
            return fail(
                2,
                EngineError::Invalid {
                    detail: format!("cannot handle signals: {error}"),
                },
            );
        }
    }
    if let Err(error) = watch_input(Arc::clone(&cancelled)) {
        return fail(
            2,
            EngineError::Invalid {
                detail: format!("cannot start a thread: {error}"),
            },
        );
    }
    match run(request, cancelled) {
        Ok(report) => {
            if say(&Event::Done { report }) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => fail(1, error),
    }
}

fn run(request: Request, cancelled: Arc<AtomicBool>) -> Result<RestoreReport, EngineError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let engine = match request.repository {
        Address::Local { path } => Engine::local(path, clock),
        Address::S3 { place, credentials } => Engine::s3(place, CredentialsFrom::Given(credentials), clock),
    };
    let engine = match request.known {
        Some(key) => engine.knowing(&request.password, key),
        None => engine,
    };
    let stop = Arc::clone(&cancelled);
    // Progress comes from several threads, and lines must not be mixed.
    let output = Mutex::new(());
    let on_progress = Arc::new(move |progress| {
        let _one_at_a_time = output.lock().unwrap_or_else(PoisonError::into_inner);
        if !say(&Event::Progress { progress }) {
            // Nobody listens any more.
            stop.store(true, Ordering::Relaxed);
        }
    });
    let asked_to_stop: crate::backup::Cancelled = Arc::new(move || cancelled.load(Ordering::Relaxed));
    let engine = engine.stopped_by(Arc::clone(&asked_to_stop));
    restore_with(
        &engine,
        &request.password,
        &request.job,
        on_progress,
        &asked_to_stop,
        request.fault.as_ref(),
    )
}

fn say(event: &Event) -> bool {
    let Ok(mut line) = serde_json::to_vec(event) else {
        return false;
    };
    line.push(b'\n');
    let mut output = std::io::stdout().lock();
    output.write_all(&line).and_then(|()| output.flush()).is_ok()
}

fn fail(code: u8, error: EngineError) -> ExitCode {
    say(&Event::Failed { error });
    ExitCode::from(code)
}

/// Limits what counts as data (RLIMIT_DATA: what is private and writable, used or not) rather than address space: allocators
/// reserve far more of that than they use.
fn limit_memory(bytes: u64) -> rustix::io::Result<()> {
    rustix::process::setrlimit(
        Resource::Data,
        Rlimit {
            current: Some(bytes),
            maximum: Some(bytes),
        },
    )
}

/// The end of the input means that the parent is gone, or wants this to end.
fn watch_input(cancelled: Arc<AtomicBool>) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name("watch-input".into())
        .stack_size(128 * 1024)
        .spawn(move || {
            let mut rest = [0_u8; 256];
            let mut input = std::io::stdin().lock();
            loop {
                match input.read(&mut rest) {
                    Ok(0) => break,
                    Err(error) if error.kind() != std::io::ErrorKind::Interrupted => break,
                    _ => {}
                }
            }
            cancelled.store(true, Ordering::Relaxed);
        })?;
    Ok(())
}
