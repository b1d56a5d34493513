//! [`OffsiteRepo`] for the embedded engine.

use async_trait::async_trait;
use jiff::Timestamp;
use reseed_core::error::{Effect, OffsiteError, OffsiteKind};
use reseed_core::event::Event;
use reseed_core::names::SourceName;
use reseed_core::offsite::{
    BackupOutcome, BackupReport, BackupRequest, CheckDepth, CheckReport, OffsiteCaps, RepoInfo, Usage,
};
use reseed_core::point::{RecoveryPoint, Target};
use reseed_core::{Context, OffsiteRepo};

use crate::backup::{BackupJob, BackupSummary, RecordJob, backup_through, record_through};
use crate::check::ReadData;
use crate::embedded::{Embedded, OwnKinds, envelope, warn_of_locks};
use crate::error::EngineError;
use crate::points::{PARTIAL, tag_of_dataset, tags_of};
use crate::store::Gate;

impl OwnKinds for OffsiteKind {
    fn own(error: &EngineError) -> Option<Self> {
        match error {
            EngineError::NoRepository { .. } => Some(Self::NoRepository),
            EngineError::WrongPassword { .. } => Some(Self::WrongPassword),
            EngineError::Locked { .. } => Some(Self::Locked),
            EngineError::NewerVersion { .. } => Some(Self::UnsupportedVersion),
            _ => None,
        }
    }
}

fn job_of(request: &BackupRequest) -> BackupJob {
    BackupJob {
        source: request.path.clone(),
        as_path: request.as_path.clone(),
        host: request.host.clone(),
        tags: tags_of(request),
        partial_tag: Some(PARTIAL.to_owned()),
        time: request.taken_at,
    }
}

impl Embedded {
    fn not_stored(&self, error: &EngineError, request: &BackupRequest, gate: &Gate) -> OffsiteError {
        let what = format!("cannot back up {} to {}", request.target.dataset, self.name);
        let effect = if gate.passed() {
            Effect::Partial
        } else {
            Effect::None
        };
        envelope(error, what, effect)
    }

    /// What was stored, with warnings told.
    fn stored(&self, cx: &Context, summary: BackupSummary) -> BackupReport {
        warn_of_locks(cx, &self.name, summary.warnings);
        if summary.unlisted {
            let id = summary.snapshot.get(..8).unwrap_or(&summary.snapshot);
            cx.emit(Event::Warning {
                service: None,
                message: format!(
                    "{}: snapshot {id} is written, and the store does not list it yet",
                    self.name
                ),
                hint: Some("until it does, a restore finds an older one: see `reseed status`".to_owned()),
            });
        }
        BackupReport {
            snapshot_id: summary.snapshot,
            outcome: match summary.unreadable {
                0 => BackupOutcome::Complete,
                unreadable => BackupOutcome::Partial {
                    unreadable,
                    examples: summary.examples,
                },
            },
            files: summary.files,
            bytes: summary.bytes,
            added: summary.added_stored,
        }
    }
}

/// Why nobody knows how large a repository is.
pub(crate) fn not_measured(error: &EngineError, name: &SourceName) -> OffsiteError {
    let what = format!("cannot find out the size of repository {name}");
    envelope(error, what, Effect::None)
}

#[async_trait]
impl OffsiteRepo for Embedded {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn caps(&self) -> OffsiteCaps {
        OffsiteCaps {
            init: true,
            record: true,
        }
    }

    async fn init(&self, cx: &Context) -> Result<RepoInfo, OffsiteError> {
        let effect = if cx.cancel.is_cancelled() {
            Effect::None
        } else {
            Effect::Partial
        };
        self.blocking(cx, |this, _| this.engine.init(&this.password.read()?))
            .await
            .map(|(id, version)| RepoInfo { id, version })
            .map_err(|error| envelope(&error, format!("cannot create repository {}", self.name), effect))
    }

    async fn open(&self, cx: &Context) -> Result<RepoInfo, OffsiteError> {
        self.blocking(cx, |this, _| {
            let open = this.engine.open(&this.password.read()?)?;
            Ok(RepoInfo {
                id: open.id(),
                version: open.version(),
            })
        })
        .await
        .map_err(|error| {
            envelope(
                &error,
                format!("cannot open repository {}", self.name),
                Effect::None,
            )
        })
    }

    async fn backup(&self, cx: &Context, request: &BackupRequest) -> Result<BackupReport, OffsiteError> {
        let job = job_of(request);
        let on_progress = Self::progress_to(cx, &request.target.dataset);
        let gate = Gate::default();
        let through = gate.clone();
        let summary = self
            .blocking(cx, move |this, cancelled| {
                let password = this.password.read()?;
                backup_through(&through, &this.engine, &password, &job, on_progress, cancelled)
            })
            .await
            .map_err(|error| self.not_stored(&error, request, &gate))?;
        Ok(self.stored(cx, summary))
    }

    async fn record(
        &self,
        cx: &Context,
        request: &BackupRequest,
        same_as: &RecoveryPoint,
        read_since: Timestamp,
    ) -> Result<Option<BackupReport>, OffsiteError> {
        let job = RecordJob {
            backup: job_of(request),
            same_as: same_as.locator.clone(),
            read_since,
            needs: tag_of_dataset(&request.target.dataset),
        };
        let gate = Gate::default();
        let through = gate.clone();
        let summary = self
            .blocking(cx, move |this, cancelled| {
                record_through(&through, &this.engine, &this.password.read()?, &job, &cancelled)
            })
            .await
            .map_err(|error| self.not_stored(&error, request, &gate))?;
        Ok(summary.map(|summary| self.stored(cx, summary)))
    }

    async fn points(
        &self,
        cx: &Context,
        target: Option<&Target>,
    ) -> Result<Vec<RecoveryPoint>, OffsiteError> {
        let target = target.cloned();
        self.blocking(cx, move |this, _| this.listing(target.as_ref(), None))
            .await
            .map(|listing| listing.points(cx, self.name.as_str()))
            .map_err(|error| {
                envelope(
                    &error,
                    format!("cannot list what {} holds", self.name),
                    Effect::None,
                )
            })
    }

    async fn check(&self, cx: &Context, depth: CheckDepth) -> Result<CheckReport, OffsiteError> {
        let read = match depth {
            CheckDepth::Structure => ReadData::No,
            CheckDepth::Part { n, of } => ReadData::Part { n, of },
            CheckDepth::Everything => ReadData::All,
        };
        self.blocking(cx, move |this, cancelled| {
            let found = this.engine.check(&this.password.read()?, read, &cancelled)?;
            let affected = match &found.affected {
                Some(snapshots) if snapshots.is_empty() => Some(Vec::new()),
                // What was found is told whether or not it can be told whose it is.
                Some(snapshots) => {
                    let listing = this.listing(None, None).ok();
                    listing.and_then(|listing| listing.datasets_of(snapshots))
                }
                None => None,
            };
            Ok(CheckReport {
                errors: found.errors,
                warnings: found.warnings,
                bytes_read: found.bytes_read,
                affected,
            })
        })
        .await
        .map_err(|error| {
            envelope(
                &error,
                format!("cannot check repository {}", self.name),
                Effect::None,
            )
        })
    }

    async fn usage(&self, cx: &Context) -> Result<Usage, OffsiteError> {
        self.blocking(cx, |this, _| this.engine.open(&this.password.read()?)?.usage())
            .await
            .map_err(|error| not_measured(&error, &self.name))
    }
}
