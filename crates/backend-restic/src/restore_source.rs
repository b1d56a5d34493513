//! [`RestoreSource`] for the embedded engine: restores run in the worker.

use std::sync::{MutexGuard, PoisonError};

use async_trait::async_trait;
use reseed_core::error::{Effect, SourceError, SourceKind};
use reseed_core::names::SourceName;
use reseed_core::point::{RecoveryPoint, Target};
use reseed_core::source::{RestorePlan, RestoreRequest, Restored, Scope, SourceCaps, SourceClass};
use reseed_core::store::{Delivery, Staging};
use reseed_core::{Context, RestoreSource};

use crate::embedded::{Embedded, OwnKinds, Planned, envelope, warn_of_locks};
use crate::error::EngineError;
use crate::listing::{Found, of_others};
use crate::restore::RestoreJob;
use crate::staging::must_not_hold;

impl OwnKinds for SourceKind {
    fn own(error: &EngineError) -> Option<Self> {
        match error {
            EngineError::NoRepository { .. } => Some(Self::NoRepository),
            EngineError::WrongPassword { .. } => Some(Self::WrongPassword),
            EngineError::Locked { .. } => Some(Self::Locked),
            EngineError::NoSnapshot { .. } => Some(Self::NoSuchPoint),
            EngineError::EmptyResult { .. } => Some(Self::NothingRestored),
            EngineError::Target { .. } => Some(Self::Target),
            EngineError::Worker { .. } | EngineError::Panicked { .. } | EngineError::ToolDied { .. } => {
                Some(Self::Crashed)
            }
            _ => None,
        }
    }
}

impl Embedded {
    fn cannot_restore(&self, request: &RestoreRequest, error: &EngineError, effect: Effect) -> SourceError {
        let (point, dataset) = (&request.point.id, &request.target.dataset);
        envelope(
            error,
            format!("cannot restore {point} of {dataset} from {}", self.name),
            effect,
        )
    }

    fn planned(&self) -> MutexGuard<'_, Option<Planned>> {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The point as it is now, if it is there and sound.
    async fn find(&self, cx: &Context, request: &RestoreRequest) -> Result<Found, SourceError> {
        let (locator, target) = (request.point.locator.clone(), request.target.clone());
        self.blocking(cx, move |this, _| {
            let listing = this.listing(Some(&target), Some(&locator))?;
            let found = listing.found.into_iter().next();
            let mut found = found.ok_or(EngineError::NoSnapshot { id: locator })?;
            match found.damage.take() {
                Some(error) => Err(error),
                None => Ok(found),
            }
        })
        .await
        .map_err(|error| self.cannot_restore(request, &error, Effect::None))
    }
}

#[async_trait]
impl RestoreSource for Embedded {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn caps(&self) -> SourceCaps {
        SourceCaps {
            kind: SourceClass::Offsite,
            delivery: Delivery::Files,
            partial: true,
            verifies: true,
            ordered: false,
        }
    }

    async fn points(&self, cx: &Context, target: &Target) -> Result<Vec<RecoveryPoint>, SourceError> {
        let wanted = target.clone();
        let listed = self.blocking(cx, move |this, _| this.restorable(&wanted)).await;
        let listing = listed.map_err(|error| {
            envelope(
                &error,
                format!("cannot list what {} holds", self.name),
                Effect::None,
            )
        })?;
        if let Some(error) = of_others(&listing, &self.name, target) {
            return Err(error);
        }
        Ok(listing.points(cx, self.name.as_str()))
    }

    async fn plan(&self, cx: &Context, request: &RestoreRequest) -> Result<RestorePlan, SourceError> {
        let Found { point, path, .. } = self.find(cx, request).await?;
        *self.planned() = Some(Planned {
            target: request.target.clone(),
            snapshot: request.point.locator.clone(),
            path,
        });
        let what = match &request.scope {
            Scope::Whole => format!("everything of {}", request.target.dataset),
            Scope::Path(path) => format!("{} of {}", path.display(), request.target.dataset),
        };
        let id = point.locator.get(..8).unwrap_or(&point.locator);
        Ok(RestorePlan {
            request: request.clone(),
            bytes: match request.scope {
                Scope::Whole => point.bytes,
                Scope::Path(_) => None,
            },
            steps: vec![
                format!("lock the repository at {} for reading", self.engine.location()),
                format!(
                    "restore {what} from snapshot {id} of {} into staging, in a process of its own",
                    point.taken_at
                ),
                "check every blob against its hash, and every entry's kind, size, permissions and time"
                    .to_owned(),
            ],
        })
    }

    async fn execute(
        &self,
        cx: &Context,
        plan: &RestorePlan,
        staging: &Staging,
    ) -> Result<Restored, SourceError> {
        let request = &plan.request;
        let fail = |error: &EngineError| self.cannot_restore(request, error, Effect::StagingOnly);
        let mut kept = vec![("the live data at", request.target.mountpoint.as_path())];
        kept.extend(self.engine.local_path().map(|path| ("the repository at", path)));
        let target = must_not_hold(&staging.path, &kept)
            .map_err(|error| self.cannot_restore(request, &error, Effect::None))?;
        // What was planned a moment ago is looked for by the worker itself, and not once more before.
        let planned = self
            .planned()
            .take()
            .filter(|planned| planned.target == request.target && planned.snapshot == request.point.locator);
        let path = match planned {
            Some(planned) => planned.path,
            None => self.find(cx, request).await?.path,
        };
        let address = self.engine.address().map_err(|error| fail(&error))?;
        let job = RestoreJob {
            snapshot: request.point.locator.clone(),
            path,
            only: match &request.scope {
                Scope::Whole => None,
                Scope::Path(path) => Some(path.clone()),
            },
            target,
            // Staging is ours, and an earlier try may have left something whatever `staging` said at its beginning.
            resume: true,
            empty: request.may_be_empty(),
            workers: 0,
        };
        let password = self.password.read().map_err(|error| fail(&error))?;
        let on_progress = Self::progress_to(cx, &request.target.dataset);
        let worker = self.worker.clone().knowing(self.engine.known(&password));
        let report = worker
            .restore(address, password, job, on_progress, &cx.cancel)
            .await
            .map_err(|error| fail(&error))?;
        let mut checked = vec![format!("the hash of every blob of {} files", report.files)];
        checked.push("kind, size, permissions and time of every entry".to_owned());
        let mut warnings = report.details.clone();
        let told = u64::try_from(warnings.len()).unwrap_or(u64::MAX);
        let all = report.metadata_problems + report.mismatches;
        if all > told {
            warnings.push(format!("and {} more", all - told));
        }
        // About the repository and not about what was restored, which is whole.
        warn_of_locks(cx, &self.name, report.warnings);
        if !report.locked {
            warnings.push("the repository could not be locked; it was read without a lock".to_owned());
        }
        Ok(Restored {
            bytes: report.bytes,
            files: report.files,
            reused: report.reused,
            checked,
            warnings,
        })
    }
}
