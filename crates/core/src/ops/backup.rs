//! Backing up to off-site repositories, always from a snapshot.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::snapshot::{snapshot_name, take};
use super::{Doing, OpOutcome, OpReport};
use crate::context::Context;
use crate::engine::Engine;
use crate::error::{ErrorReport, OpError, OpKind};
use crate::names::{PointId, SourceName};
use crate::offsite::{BackupOutcome, BackupReport, BackupRequest, OffsiteRepo};
use crate::point::Snapshot;
use crate::service::Service;
use crate::store::{Settle, StagePurpose, StageRequest};

/// Longest that one repository of one service may take.
const BUDGET: Duration = Duration::from_secs(24 * 3600);

/// What a backup would store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedBackup {
    /// To where.
    pub repository: SourceName,
    /// Which snapshots, in full; empty when the repository has the newest state.
    pub snapshots: Vec<String>,
    /// Why it can't be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
}

/// Backs up the newest state of a service to each of its repositories. Takes a snapshot first when there is none.
pub async fn backup(engine: &Engine, cx: &Context, service: &Service) -> Vec<OpReport> {
    let (newest, damaged) = match newest_state(engine, cx, service).await {
        Ok((newest, damaged)) => (Ok(newest), damaged),
        Err(error) => (Err(error), None),
    };
    let newest = match newest {
        Ok(None) => match snapshot_name(None, &engine.clock.now().to_zoned(jiff::tz::TimeZone::UTC)) {
            Ok(name) => take(engine, cx, service, &name).await,
            Err(error) => Err(OpError::new(OpKind::InvalidInput, error.to_string())),
        },
        Ok(Some(state)) => Ok(state),
        Err(error) => Err(error),
    };
    let mut reports = Vec::with_capacity(service.offsite.len());
    for repo in &service.offsite {
        let doing = Doing::begin(engine, cx, service, "backup", Some(repo.name()));
        reports.push(match &newest {
            Ok(state) => one(doing, engine, cx, service, repo.as_ref(), state, damaged.as_ref()).await,
            Err(error) if error.kind() == OpKind::Guarded => {
                doing.end_with(OpOutcome::Skipped, Some(error.report()))
            }
            Err(error) => doing.fail(error.report()),
        });
    }
    reports
}

/// Says what a backup would store.
pub async fn backup_plan(engine: &Engine, cx: &Context, service: &Service) -> Vec<PlannedBackup> {
    let newest = newest_state(engine, cx, service).await;
    let mut plans = Vec::with_capacity(service.offsite.len());
    for repo in &service.offsite {
        let (snapshots, error) = match &newest {
            Err(error) => (Vec::new(), Some(error.report())),
            Ok((None, _)) => (vec!["a new snapshot of every dataset".to_owned()], None),
            Ok((Some(state), _)) => match stored(engine, cx, repo.as_ref()).await {
                Ok(stored) => (
                    state
                        .iter()
                        .filter(|s| !stored.contains(&s.guid.into()))
                        .map(|s| format!("{}@{}", s.dataset, s.name))
                        .collect(),
                    None,
                ),
                Err(error) => (Vec::new(), Some(error)),
            },
        };
        plans.push(PlannedBackup {
            repository: repo.name().clone(),
            snapshots,
            error,
        });
    }
    plans
}

/// The newest snapshot that all datasets of the service have, and one that is damaged, which may have been newer.
async fn newest_state(
    engine: &Engine,
    cx: &Context,
    service: &Service,
) -> Result<(Option<Vec<Snapshot>>, Option<Snapshot>), OpError> {
    let store = &service.store;
    let list = engine.within(cx, BUDGET, "listing snapshots", |cx| async move {
        store.list(&cx, &service.targets).await
    });
    let mut snapshots = list.await.map_err(|e| e.convert(OpKind::Blocked))?;
    let damaged = snapshots.iter().find(|s| s.is_damaged()).cloned();
    snapshots.retain(|s| !s.is_damaged());
    let Some(first) = service.targets.first() else {
        return Ok((None, damaged));
    };
    // One that is dated in the future, by a clock that was wrong then, must not hide all that come after it.
    let now = engine.clock.now();
    let mut names: Vec<&Snapshot> = snapshots.iter().filter(|s| s.dataset == first.dataset).collect();
    names.sort_by_key(|s| (s.taken_at <= now, s.taken_at));
    for newest in names.into_iter().rev() {
        let same = |dataset| {
            snapshots
                .iter()
                .find(|s| s.dataset == dataset && s.name == newest.name)
        };
        let state: Option<Vec<Snapshot>> = service
            .targets
            .iter()
            .map(|t| same(t.dataset.clone()).cloned())
            .collect();
        if let Some(state) = state {
            return Ok((Some(state), damaged));
        }
    }
    Ok((None, damaged))
}

async fn stored(
    engine: &Engine,
    cx: &Context,
    repo: &dyn OffsiteRepo,
) -> Result<BTreeSet<PointId>, ErrorReport> {
    let points = engine.within(cx, BUDGET, "listing the repository", |cx| async move {
        repo.points(&cx, None).await
    });
    let points = points.await.map_err(|e| e.report())?;
    Ok(points.into_iter().filter(|p| !p.partial).map(|p| p.id).collect())
}

async fn one(
    mut doing: Doing<'_>,
    engine: &Engine,
    cx: &Context,
    service: &Service,
    repo: &dyn OffsiteRepo,
    state: &[Snapshot],
    damaged: Option<&Snapshot>,
) -> OpReport {
    let stored = match stored(engine, cx, repo).await {
        Ok(stored) => stored,
        Err(error) => return doing.fail(error),
    };
    let mut partial = damaged.map(|damaged| {
        let what = format!(
            "the record of {}@{} is damaged: it may be newer than what is backed up",
            damaged.dataset, damaged.name
        );
        OpError::new(OpKind::Failed, what)
            .hint(format!(
                "take a new one with `reseed snapshot {}`, then remove the damaged one",
                service.name
            ))
            .report()
    });
    let mut worked = false;
    for (target, snapshot) in service.targets.iter().zip(state) {
        if stored.contains(&snapshot.guid.into()) {
            doing.done(format!(
                "{}@{} is stored already",
                snapshot.dataset, snapshot.name
            ));
            continue;
        }
        worked = true;
        let request = |path| BackupRequest {
            target: target.clone(),
            path,
            as_path: target.mountpoint.clone(),
            host: engine.host.clone(),
            point: snapshot.guid.into(),
            snapshot: Some(snapshot.name.clone()),
            taken_at: snapshot.taken_at,
            fingerprint: snapshot.fingerprint,
            unseeded: snapshot.unseeded,
        };
        match store_one(engine, cx, service, repo, snapshot, target, request).await {
            Ok(report) => {
                doing.bytes(report.added);
                doing.done(format!(
                    "{}@{}: {} files, {} bytes, {} added",
                    snapshot.dataset, snapshot.name, report.files, report.bytes, report.added
                ));
                if let BackupOutcome::Partial { unreadable, examples } = report.outcome {
                    let what = format!(
                        "{unreadable} entries of {} could not be read: {}",
                        snapshot.dataset,
                        examples.join("; ")
                    );
                    partial.get_or_insert(OpError::new(OpKind::Failed, what).report());
                }
            }
            Err(error) => return doing.fail(error),
        }
    }
    match (partial, worked) {
        (Some(error), _) => doing.end_with(OpOutcome::Partial, Some(error)),
        (None, true) => doing.end(OpOutcome::Ok),
        (None, false) => doing.end(OpOutcome::UpToDate),
    }
}

/// A store without checksums of its own may hand out a damaged snapshot. Backed up, it would be the newest good point there.
async fn sound(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    snapshot: &Snapshot,
    path: &std::path::Path,
) -> Result<(), OpError> {
    let Some(taken) = snapshot
        .fingerprint
        .filter(|_| !service.store.caps().checks_reads)
    else {
        return Ok(());
    };
    if engine.verifier.measure(cx, path).await? == taken {
        return Ok(());
    }
    let what = format!(
        "{}@{} is damaged: it is not what it was when it was taken",
        snapshot.dataset, snapshot.name
    );
    Err(OpError::new(OpKind::Failed, what).hint(format!(
        "take a new one with `reseed snapshot {}`; `reseed verify {0}` tells which sources are sound",
        service.name
    )))
}

async fn store_one(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    repo: &dyn OffsiteRepo,
    snapshot: &Snapshot,
    target: &crate::point::Target,
    request: impl FnOnce(std::path::PathBuf) -> BackupRequest,
) -> Result<BackupReport, ErrorReport> {
    let store = &service.store;
    let purpose = StagePurpose::Expose {
        snapshot: snapshot.reference(),
    };
    let stage = StageRequest {
        target: target.clone(),
        purpose,
    };
    let staging = engine.within(cx, BUDGET, "opening the snapshot", |cx| async move {
        store.stage(&cx, &stage).await
    });
    let staging = staging.await.map_err(|e| e.report())?;
    let request = request(staging.path.clone());
    let stored = match sound(engine, cx, service, snapshot, &staging.path).await {
        Ok(()) => {
            let stored = engine.within(cx, BUDGET, "backing up", |cx| async move {
                repo.backup(&cx, &request).await
            });
            stored.await.map_err(|e| e.report())
        }
        Err(error) => Err(error.report()),
    };
    // Closing must not be skipped because the run was cancelled, nor hide how the backup went.
    let close = Settle::Discard { staging };
    let closing = Context::new(
        cx.run.clone(),
        std::sync::Arc::clone(cx.events()),
        tokio_util::sync::CancellationToken::new(),
    );
    let closed = engine.within(
        &closing,
        crate::engine::GRACE,
        "closing the snapshot",
        |cx| async move { store.settle(&cx, &close).await },
    );
    if let Err(error) = closed.await {
        cx.emit(crate::event::Event::Warning {
            service: Some(service.name.clone()),
            message: error.to_string(),
            hint: None,
        });
    }
    stored
}
