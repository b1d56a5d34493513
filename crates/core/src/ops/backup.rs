//! Backing up to off-site repositories, always from a snapshot.

use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::doubt::{BEGUN, DONE, Doubts};
use super::snapshot::{snapshot_name, take};
use super::{Doing, OpOutcome, OpReport};
use crate::context::Context;
use crate::engine::Engine;
use crate::error::{ErrorReport, OffsiteKind, OpError, OpKind};
use crate::event::Event;
use crate::journal::{JournalError, Query, Run, RunKind};
use crate::names::{Guid, PointId, SourceName};
use crate::offsite::{BackupOutcome, BackupReport, BackupRequest, CheckDepth, OffsiteRepo};
use crate::point::{RecoveryPoint, Snapshot};
use crate::service::Service;
use crate::store::{Settle, StagePurpose, StageRequest};

/// Longest that one repository of one service may take.
const BUDGET: Duration = Duration::from_secs(24 * 3600);

/// A tree that hasn't changed by its digest is walked all the same when it last was so many hours ago, a week: as any other backup it then
/// stores again what the repository's index no longer has.
const READ_AGAIN_HOURS: i64 = 7 * 24;

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
            Ok(name) => take(engine, cx, service, &name, (true, BUDGET)).await,
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
            Ok((None, _)) => match super::snapshot_plan(engine, cx, service).await {
                Ok(_) => (vec!["a new snapshot of every dataset".to_owned()], None),
                Err(error) => (Vec::new(), Some(error.report())),
            },
            Ok((Some(state), _)) => match stored(engine, cx, service, repo.as_ref()).await {
                Ok(stored) => (
                    state
                        .iter()
                        .filter(|s| !is_stored(&stored, s))
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

/// The points of a repository that are known to be whole, newest first.
async fn stored(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    repo: &dyn OffsiteRepo,
) -> Result<Vec<RecoveryPoint>, ErrorReport> {
    let points = engine.within(cx, BUDGET, "listing the repository", |cx| async move {
        repo.points(&cx, None).await
    });
    let points = points.await.map_err(|e| e.report())?;
    // Read once too often is no harm. A history that was begun anew doesn't know which of the points before it were in doubt.
    let doubts = Doubts::about(engine, &service.name, repo.name()).unwrap_or(Doubts::All);
    let doubts = doubts.and_altered(&points);
    let since = engine.journal.begun_anew();
    let is_known = |point: &RecoveryPoint| since.is_none_or(|since| point.taken_at >= since);
    let whole = |point: &RecoveryPoint| !point.partial && !doubts.has(&point.id) && is_known(point);
    Ok(points.into_iter().filter(whole).collect())
}

fn is_stored(stored: &[RecoveryPoint], snapshot: &Snapshot) -> bool {
    stored.iter().any(|point| point.id == snapshot.guid.into())
}

/// A point of the same dataset that is the same tree by its digest. One that is dated in the future would be the newest for ever.
fn same_tree<'p>(
    stored: &'p [RecoveryPoint],
    snapshot: &Snapshot,
    now: Timestamp,
) -> Option<&'p RecoveryPoint> {
    let taken = snapshot.fingerprint?;
    let same = |point: &&RecoveryPoint| point.dataset == snapshot.dataset && point.fingerprint == Some(taken);
    stored.iter().filter(|point| point.taken_at <= now).find(same)
}

/// Whether nothing speaks against what a repository holds of a service: the last verification, where there was any, has found it sound, and what a
/// check found was sound in a later one that read as much, all of it or the same part. Otherwise a backup has to look what is missing.
fn is_trusted(engine: &Engine, service: &Service, repo: &dyn OffsiteRepo) -> bool {
    let found = |kind| words(engine, service, repo, kind);
    let (Ok(checks), Ok(verifications)) = (found(RunKind::Check), found(RunKind::Verify)) else {
        return false;
    };
    // Of a history that was begun anew one can't know what it has said.
    let since = engine.journal.begun_anew();
    let is_known = since.is_none_or(|since| checks.iter().any(|word| word.is_sound && word.at >= since));
    is_known && is_taken_back(&checks, reads_as_much) && is_taken_back(&verifications, |_, _| true)
}

/// What a check or a verification has found.
#[derive(Debug)]
struct Word {
    is_sound: bool,
    /// Of a check.
    depth: Option<CheckDepth>,
    at: Timestamp,
}

/// What was found of a service in a repository, newest first.
fn words(
    engine: &Engine,
    service: &Service,
    repo: &dyn OffsiteRepo,
    kind: RunKind,
) -> Result<Vec<Word>, JournalError> {
    let query = Query {
        service: Some(service.name.clone()),
        kind: Some(kind),
        ..Query::default()
    };
    let (runs, now) = (engine.journal.history(&query)?, engine.clock.now());
    let of_it = runs
        .iter()
        .filter(|run| run.key.peer.as_ref() == Some(repo.name()));
    let word = |run: &Run| {
        Some(Word {
            is_sound: run.outcome?.is_success(),
            depth: run.verification.as_deref().and_then(|text| text.parse().ok()),
            at: run.started_at,
        })
    };
    // What found it sound by a clock that was ahead would have the last word until then.
    let counts = |word: &Word| word.at <= now || !word.is_sound;
    Ok(of_it.filter_map(word).filter(counts).collect())
}

/// Whether a later sound word takes back each that isn't.
fn is_taken_back(words: &[Word], takes_back: impl Fn(&Word, &Word) -> bool) -> bool {
    words.iter().enumerate().all(|(at, word)| {
        let takes_back = |later: &Word| later.is_sound && takes_back(later, word);
        word.is_sound || words[..at].iter().any(takes_back)
    })
}

/// Whether a check has read what an earlier one had: who reads another part of the data knows nothing of what was found in this one.
fn reads_as_much(later: &Word, found: &Word) -> bool {
    match (later.depth, found.depth) {
        (Some(CheckDepth::Everything), _) | (_, Some(CheckDepth::Structure) | None) => true,
        (later, found) => later == found,
    }
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
    let stored = match stored(engine, cx, service, repo).await {
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
    // What another point may be recorded like.
    let sound: &[RecoveryPoint] = match repo.caps().record && is_trusted(engine, service, repo) {
        true => &stored,
        false => &[],
    };
    for (target, snapshot) in service.targets.iter().zip(state) {
        if is_stored(&stored, snapshot) {
            doing.done(format!(
                "{}@{} is stored already",
                snapshot.dataset, snapshot.name
            ));
            continue;
        }
        worked = true;
        let point = PointId::from(snapshot.guid);
        let request = |path| BackupRequest {
            target: target.clone(),
            path,
            as_path: target.mountpoint.clone(),
            host: engine.host.clone(),
            point: point.clone(),
            snapshot: Some(snapshot.name.clone()),
            taken_at: snapshot.taken_at,
            fingerprint: snapshot.fingerprint,
            unseeded: snapshot.unseeded,
        };
        match recorded(engine, cx, service, repo, sound, snapshot, &request).await {
            Ok(None) => {}
            Ok(Some((report, same_as))) => {
                doing.storing(&point, DONE, None);
                doing.bytes(report.added);
                doing.done(format!(
                    "{}@{}: unchanged since {}, {} added",
                    snapshot.dataset, snapshot.name, same_as.taken_at, report.added
                ));
                continue;
            }
            Err(error) => return doing.fail(error),
        }
        doing.storing(&point, BEGUN, None);
        match store_one(engine, cx, service, repo, snapshot, target, request).await {
            Ok(report) => {
                doing.bytes(report.added);
                doing.done(format!(
                    "{}@{}: {} files, {} bytes, {} added",
                    snapshot.dataset, snapshot.name, report.files, report.bytes, report.added
                ));
                match report.outcome {
                    BackupOutcome::Complete => doing.storing(&point, DONE, None),
                    BackupOutcome::Partial { unreadable, examples } => {
                        let what = format!(
                            "{unreadable} entries of {} could not be read: {}",
                            snapshot.dataset,
                            examples.join("; ")
                        );
                        let error = OpError::new(OpKind::Failed, what).report();
                        doing.storing(&point, BEGUN, Some(error.clone()));
                        partial.get_or_insert(error);
                    }
                }
            }
            Err(error) => {
                doing.storing(&point, BEGUN, Some(error.clone()));
                return doing.fail(error);
            }
        }
    }
    match (partial, worked) {
        (Some(error), _) => doing.end_with(OpOutcome::Partial, Some(error)),
        (None, true) => doing.end(OpOutcome::Ok),
        (None, false) => doing.end(OpOutcome::UpToDate),
    }
}

/// Has the repository record what it holds already, where the snapshot's digest says so, or the store's account of what was written. Nothing is read for that, so nothing is opened.
async fn recorded<'p>(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    repo: &dyn OffsiteRepo,
    stored: &'p [RecoveryPoint],
    snapshot: &Snapshot,
    request: &(impl Fn(PathBuf) -> BackupRequest + Sync),
) -> Result<Option<(BackupReport, &'p RecoveryPoint)>, ErrorReport> {
    let now = engine.clock.now();
    let same_as = match same_tree(stored, snapshot, now) {
        Some(same_as) => Some(same_as),
        None => unwritten_since(engine, cx, service, stored, snapshot).await,
    };
    let Some(same_as) = same_as else {
        return Ok(None);
    };
    let Ok(read_since) = now.checked_sub(SignedDuration::from_hours(READ_AGAIN_HOURS)) else {
        return Ok(None);
    };
    let mut request = request(PathBuf::new());
    request.fingerprint = request.fingerprint.or(same_as.fingerprint);
    let record = engine.within(cx, BUDGET, "recording what is stored", |cx| async move {
        repo.record(&cx, &request, same_as, read_since).await
    });
    match record.await {
        Ok(report) => Ok(report.map(|report| (report, same_as))),
        // The other point is gone, or the top of its tree is damaged: a backup stores what is missing.
        Err(error) if matches!(error.kind(), OffsiteKind::NotFound | OffsiteKind::Corrupt) => {
            cx.emit(Event::Warning {
                service: Some(service.name.clone()),
                message: format!("{error}; it is read instead"),
                hint: Some(format!(
                    "`reseed verify offsite {}` looks for damage",
                    repo.name()
                )),
            });
            Ok(None)
        }
        Err(error) => Err(error.report()),
    }
}

/// The newest point of the dataset that is stored, where nothing was written since its snapshot, which is still there. Asked of a snapshot without a
/// digest: sanoid's have none.
async fn unwritten_since<'p>(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    stored: &'p [RecoveryPoint],
    snapshot: &Snapshot,
) -> Option<&'p RecoveryPoint> {
    if snapshot.fingerprint.is_some() {
        return None;
    }
    let now = engine.clock.now();
    let mine = stored
        .iter()
        .filter(|point| point.dataset == snapshot.dataset && point.taken_at <= now);
    let newest = mine.max_by_key(|point| point.taken_at)?;
    let older: Guid = newest.id.as_str().parse().ok()?;
    let (store, newer) = (&service.store, &snapshot.reference());
    let asked = engine.within(cx, BUDGET, "asking what was written", |cx| async move {
        store.unwritten(&cx, older, newer).await
    });
    // Read once too often is no harm.
    asked.await.unwrap_or(false).then_some(newest)
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
    request: impl FnOnce(PathBuf) -> BackupRequest,
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
        cx.emit(Event::Warning {
            service: Some(service.name.clone()),
            message: error.to_string(),
            hint: None,
        });
    }
    stored
}
