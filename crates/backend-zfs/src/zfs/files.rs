//! [`SnapshotFiles`]: the files of a ZFS snapshot, all or a part of them, copied into a directory.
//!
//! The other two sources bring back a dataset as a whole, which is what a service needs. This one is for those who want
//! one path back, or a tree beside the live one, or proof that it can be read: the snapshot is mounted read-only in a
//! place of ours and copied by the directory store's copier. Every block that is read is checked by ZFS.
//!
//! What is on another machine is fetched first ([`fetched`]): there is nothing to mount here.

mod fetched;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use reseed_core::clock::Clock;
use reseed_core::error::{Effect, SourceError, SourceKind};
use reseed_core::names::SourceName;
use reseed_core::point::{RecoveryPoint, Target};
use reseed_core::source::{RestorePlan, RestoreRequest, Restored, Scope, SourceCaps, SourceClass};
use reseed_core::store::{Delivery, Staging};
use reseed_core::{Context, RestoreSource};

use super::local::LocalSource;
use super::parse::Listed;
use super::replica::ReplicaSource;
use super::tool::not_cancelled;
use super::{names, points, work};
use crate::dir::{check_scope, copy_out};

/// Restores files out of snapshots.
#[derive(Debug, Clone)]
pub struct SnapshotFiles {
    of: Of,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Clone)]
enum Of {
    Local(Box<LocalSource>),
    Replica(Box<ReplicaSource>),
}

impl SnapshotFiles {
    /// Out of a store's own snapshots.
    pub fn of_local(source: LocalSource, clock: Arc<dyn Clock>) -> Self {
        let of = Of::Local(Box::new(source));
        Self { of, clock }
    }

    /// Out of a replica's.
    pub fn of_replica(source: ReplicaSource, clock: Arc<dyn Clock>) -> Self {
        let of = Of::Replica(Box::new(source));
        Self { of, clock }
    }

    fn source(&self) -> &dyn RestoreSource {
        match &self.of {
            Of::Local(source) => source.as_ref(),
            Of::Replica(source) => source.as_ref(),
        }
    }

    /// Our own directory for mounts.
    fn places(&self) -> &std::path::Path {
        match &self.of {
            Of::Local(source) => &source.store().places,
            Of::Replica(source) => &source.store().places,
        }
    }

    /// The source whose snapshots are on another machine.
    fn far(&self) -> Option<&ReplicaSource> {
        match &self.of {
            Of::Replica(source) if !source.there().is_local() => Some(source),
            _ => None,
        }
    }

    /// A point's snapshot, as it is now.
    async fn original(
        &self,
        cx: &Context,
        point: &RecoveryPoint,
        target: &Target,
    ) -> Result<Listed, SourceError> {
        match &self.of {
            Of::Local(source) => points::exact(&source.store().tool, cx, point, &target.dataset).await,
            Of::Replica(source) => source.original(cx, point, target).await,
        }
    }

    /// Copies out of a snapshot, by its full name, that is on this machine.
    async fn copy(
        &self,
        cx: &Context,
        full: String,
        place: PathBuf,
        request: &RestoreRequest,
        staging: &Staging,
    ) -> Result<Restored, SourceError> {
        let point = &request.point;
        work::mount::<SourceKind>(full.clone(), place.clone(), true).await?;
        let copied = copy_out(
            cx,
            Arc::clone(&self.clock),
            place.clone(),
            request.target.dataset.clone(),
            &request.scope,
            staging,
        )
        .await;
        // What was copied is no less there when the place can't be unmounted; the next run does it.
        let unmounted = work::unmount::<SourceKind>(place).await;
        let mut copied = copied?;
        if let Err(error) = unmounted {
            copied.warnings.push(error.to_string());
        }
        if copied.entries == 0 && !request.may_be_empty() {
            let what = match &request.scope {
                Scope::Whole => format!("recovery point {} of {} is empty", point.id, point.dataset),
                Scope::Path(path) => format!(
                    "there is no {path:?} in recovery point {} of {}",
                    point.id, point.dataset
                ),
            };
            let error = SourceError::new(SourceKind::NothingRestored, what);
            return Err(error.effect(Effect::StagingOnly));
        }
        Ok(Restored {
            bytes: copied.bytes,
            files: copied.files,
            reused: copied.reused,
            checked: vec![format!("ZFS checked every block that was read of {full}")],
            warnings: copied.warnings,
        })
    }
}

#[async_trait]
impl RestoreSource for SnapshotFiles {
    fn name(&self) -> &SourceName {
        self.source().name()
    }

    fn caps(&self) -> SourceCaps {
        SourceCaps {
            kind: match &self.of {
                Of::Local(_) => SourceClass::Local,
                Of::Replica(_) => SourceClass::Replica,
            },
            delivery: Delivery::Files,
            partial: true,
            verifies: true,
            ordered: true,
        }
    }

    async fn points(&self, cx: &Context, target: &Target) -> Result<Vec<RecoveryPoint>, SourceError> {
        self.source().points(cx, target).await
    }

    async fn plan(&self, cx: &Context, request: &RestoreRequest) -> Result<RestorePlan, SourceError> {
        not_cancelled::<SourceKind>(cx)?;
        check_scope(&request.scope)?;
        let original = self.original(cx, &request.point, &request.target).await?;
        let (what, bytes) = match &request.scope {
            Scope::Whole => ("its files".to_owned(), Some(original.referenced)),
            Scope::Path(path) => (format!("{path:?}"), None),
        };
        if let Some(source) = self.far() {
            return fetched::plan(source, cx, request, &original, &what).await;
        }
        Ok(RestorePlan {
            request: request.clone(),
            bytes,
            steps: vec![
                format!(
                    "mount {} read-only in a place of reseed's own",
                    request.point.locator
                ),
                format!("copy {what} out of it, and unmount it"),
            ],
        })
    }

    async fn execute(
        &self,
        cx: &Context,
        plan: &RestorePlan,
        staging: &Staging,
    ) -> Result<Restored, SourceError> {
        not_cancelled::<SourceKind>(cx)?;
        let request = &plan.request;
        if let Some(source) = self.far() {
            let found = fetched::fetch(source, cx, plan).await?;
            let copied = self
                .copy(cx, found.full.clone(), found.place.clone(), request, staging)
                .await;
            return found.end(source, cx, plan, copied).await;
        }
        let original = self.original(cx, &request.point, &request.target).await?;
        let full = format!("{}@{}", original.dataset, original.name);
        // One place for a dataset: what a run that was killed left mounted is taken over by the next.
        let place = names::place(self.places(), "files", &original.dataset);
        self.copy(cx, full, place, request, staging).await
    }
}
