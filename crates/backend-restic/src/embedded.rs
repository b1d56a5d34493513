//! The embedded engine as the core sees it: one repository, its password, and the worker that restores from it.
//!
//! What is common to both traits is here: running blocking work without losing track of it, and putting the engine's
//! errors into the core's envelope.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use reseed_core::Context;
use reseed_core::error::{Common, Effect, Error, Kind, Retry};
use reseed_core::event::Event;
use reseed_core::names::{DatasetName, SourceName};
use reseed_core::point::Target;

use crate::backup::Cancelled;
use crate::error::EngineError;
use crate::lock::UNREADABLE_LOCK_HINT;
use crate::progress::OnProgress;
use crate::repo::Engine;
use crate::secret::Password;
use crate::worker::Worker;

/// Where the password comes from.
#[derive(Debug, Clone)]
pub enum PasswordFrom {
    /// A file, read at each use.
    File(PathBuf),
    /// Given.
    Given(Password),
}

impl PasswordFrom {
    pub(crate) fn read(&self) -> Result<Password, EngineError> {
        match self {
            Self::File(path) => Password::read_file(path),
            Self::Given(password) => Ok(password.clone()),
        }
    }
}

/// One repository in restic's format, served by the embedded engine. It is both an
/// [`OffsiteRepo`](reseed_core::OffsiteRepo) and a [`RestoreSource`](reseed_core::RestoreSource).
#[derive(Debug, Clone)]
pub struct Embedded {
    pub(crate) name: SourceName,
    pub(crate) engine: Engine,
    pub(crate) password: PasswordFrom,
    pub(crate) worker: Worker,
    pub(crate) host: Option<String>,
    pub(crate) planned: Arc<Mutex<Option<Planned>>>,
}

/// Where in a snapshot a target is. It can't change: a snapshot's name is the hash of what is in it.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) target: Target,
    pub(crate) snapshot: String,
    /// As in a listing.
    pub(crate) path: Option<PathBuf>,
}

impl Embedded {
    /// A repository under a name of the configuration.
    pub fn new(name: SourceName, engine: Engine, password: PasswordFrom, worker: Worker) -> Self {
        Self {
            name,
            engine,
            password,
            worker,
            host: None,
            planned: Arc::default(),
        }
    }

    /// Offers only what this host backed up. Several hosts may share a repository, and call their services alike: one's data
    /// must not come back as the other's.
    #[must_use]
    pub fn of_host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Runs blocking work that is asked to end when the run is cancelled, or when this future is dropped.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        cx: &Context,
        work: impl FnOnce(&Self, Cancelled) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        if cx.cancel.is_cancelled() {
            return Err(EngineError::Cancelled);
        }
        let mut this = self.clone();
        blocking(cx, "the work", move |cx| {
            let cancelled: Cancelled = Arc::new(move || cx.cancel.is_cancelled());
            this.engine = this.engine.stopped_by(Arc::clone(&cancelled));
            work(&this, cancelled)
        })
        .await
    }

    pub(crate) fn progress_to(cx: &Context, dataset: &DatasetName) -> OnProgress {
        let (cx, dataset) = (cx.clone(), dataset.clone());
        Arc::new(move |progress| {
            cx.emit(Event::Progress {
                dataset: dataset.clone(),
                bytes: progress.bytes,
                total: progress.total,
                files: progress.files,
            });
        })
    }
}

/// Runs work where blocking is allowed, with a context that is cancelled with this one or when this future is dropped.
pub(crate) async fn blocking<T: Send + 'static>(
    cx: &Context,
    during: &str,
    work: impl FnOnce(Context) -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    let cx = cx.child();
    let _ends_with_this_future = cx.cancel.clone().drop_guard();
    let done = tokio::task::spawn_blocking(move || work(cx));
    done.await.unwrap_or_else(|error| {
        Err(EngineError::Panicked {
            during: during.into(),
            detail: error.to_string(),
        })
    })
}

/// Tells of files among the locks that are none.
pub(crate) fn warn_of_locks(cx: &Context, repository: &SourceName, warnings: Vec<String>) {
    for warning in warnings {
        cx.emit(Event::Warning {
            service: None,
            message: format!("{repository}: {warning}"),
            hint: Some(UNREADABLE_LOCK_HINT.to_owned()),
        });
    }
}

/// The kinds that only one of the traits has.
pub(crate) trait OwnKinds: Kind {
    fn own(error: &EngineError) -> Option<Self>;
}

/// Puts an error into the envelope. `effect` is what may have happened where the error does not exclude it.
pub(crate) fn envelope<K: OwnKinds>(error: &EngineError, what: String, effect: Effect) -> Error<K> {
    let kind = K::own(error).unwrap_or_else(|| K::from_common(common(error)));
    let mut envelope = Error::new(kind, what)
        .said(error)
        .effect(if nothing_happened(error) {
            Effect::None
        } else {
            effect
        });
    // Fresh credentials and a clock that is right are a mended cause; a wrong secret stays wrong.
    if matches!(
        error,
        EngineError::CredentialsExpired { .. } | EngineError::ClockSkew { .. }
    ) {
        envelope = envelope.retry(Retry::AfterFix);
    }
    // A clock that isn't set yet, right after the start, trusts no certificate.
    if matches!(error, EngineError::Untrusted { .. }) {
        envelope = envelope.retry(Retry::Later);
    }
    if let Some(hint) = error.hint() {
        envelope = envelope.hint(hint);
    }
    envelope
}

fn common(error: &EngineError) -> Common {
    use EngineError as E;
    match error {
        E::NoRepository { .. }
        | E::NoBucket { .. }
        | E::Source { .. }
        | E::NoSnapshot { .. }
        | E::EmptyResult { .. } => Common::NotFound,
        E::AlreadyExists { .. } => Common::AlreadyExists,
        E::PathIsFile { .. }
        | E::TargetConflict { .. }
        | E::WrongRegion { .. }
        | E::WrongEndpoint { .. }
        | E::Untrusted { .. }
        | E::PlainHttp { .. }
        | E::Invalid { .. } => Common::InvalidInput,
        E::WrongPassword { .. }
        | E::Login { .. }
        | E::Credentials { .. }
        | E::CredentialsExpired { .. }
        | E::ClockSkew { .. } => Common::AuthFailed,
        E::NewerVersion { .. } => Common::Unsupported,
        E::Locked { .. } | E::BadLock { .. } | E::LockLost { .. } | E::Busy { .. } => Common::Busy,
        E::Denied { .. } | E::PasswordFile { .. } | E::CredentialsFile { .. } => Common::PermissionDenied,
        E::NoSpace { .. } => Common::NoSpace,
        E::ReadOnly { .. } => Common::ReadOnly,
        E::Cancelled => Common::Cancelled,
        E::MissingKey { .. }
        | E::SnapshotsMissing { .. }
        | E::Unreadable { .. }
        | E::Config { .. }
        | E::CorruptPack { .. }
        | E::MissingBlob { .. }
        | E::UnsafeName { .. }
        | E::Panicked { .. } => Common::Corrupt,
        E::Store { .. } | E::NoSuchHost { .. } | E::Refused { .. } | E::Unreachable { .. } => {
            Common::Unreachable
        }
        E::ToolMissing { .. } => Common::ToolMissing,
        E::BadOutput { .. } => Common::BadOutput,
        E::Target { .. } | E::Worker { .. } | E::Tool { .. } | E::ToolDied { .. } => Common::Io,
    }
}

/// Errors that come before anything is written.
fn nothing_happened(error: &EngineError) -> bool {
    use EngineError as E;
    matches!(
        error,
        E::NoRepository { .. }
            | E::AlreadyExists { .. }
            | E::PathIsFile { .. }
            | E::WrongPassword { .. }
            | E::MissingKey { .. }
            | E::SnapshotsMissing { .. }
            | E::NewerVersion { .. }
            | E::Locked { .. }
            | E::BadLock { .. }
            | E::PasswordFile { .. }
            | E::CredentialsFile { .. }
            | E::PlainHttp { .. }
            | E::Source { .. }
            | E::NoSnapshot { .. }
            | E::EmptyResult { .. }
            | E::MissingBlob { .. }
            | E::UnsafeName { .. }
            | E::ToolMissing { .. }
            | E::Busy { .. }
    )
}
