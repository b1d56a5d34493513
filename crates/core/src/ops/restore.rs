//! A restore that somebody asked for: from a chosen source, of a chosen moment, in place or to another directory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::snapshot::make_newest;
use super::{Doing, OpOutcome};
use crate::context::Context;
use crate::engine::Engine;
use crate::error::{OpError, OpKind, SourceError, SourceKind};
use crate::journal::RunKind;
use crate::names::{DatasetName, PointId, SourceName};
use crate::point::{Fingerprint, RecoveryPoint, Target};
use crate::preseed::{
    ALTERED, BY_AGE, Candidate, Outcome, ServiceReport, Slot, Tried, Walk, group, may_lack, of_no_state,
    order, passed_over, probe_all,
};
use crate::preseed::{record, record_begin};
use crate::service::{Prefer, Service};
use crate::source::{RestorePlan, RestoreRequest, Scope};
use crate::store::{Condition, Delivery, Inspection, Replace, StageState, Staging};

/// Longest that a restore on request may take: nobody's start-up waits for it.
const BUDGET: Duration = Duration::from_secs(7 * 24 * 3600);

/// Which moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum At {
    /// The newest.
    Newest,
    /// The newest that was taken at this time or before.
    Time(Timestamp),
    /// The point with this id, snapshot name, or source's own name (or its beginning, 6 characters at least).
    Point(String),
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreOptions {
    /// Only from this source.
    pub from: Option<SourceName>,
    /// Which moment.
    pub at: At,
    /// What is populated is renamed aside. Without it a populated target is refused.
    pub set_aside: bool,
}

/// What a restore would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestorePreview {
    /// From where.
    pub source: SourceName,
    /// One a dataset.
    pub plans: Vec<RestorePlan>,
    /// What stands at each target.
    pub targets: Vec<Inspection>,
}

/// Restores a service in place. What is populated there is refused, or renamed aside when the options say so. Where somebody chose that state
/// instead of what was there or of the newest one, a snapshot of it is taken then: it is the newest from there on.
///
/// # Errors
/// `Blocked` for what stands at the targets, `NotFound` when no source has such a point.
pub async fn restore(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    options: &RestoreOptions,
) -> Result<ServiceReport, OpError> {
    let mut inspections = inspect(engine, cx, service).await?;
    let mut finished = false;
    if inspections
        .iter()
        .any(|i| i.leftover.as_ref().is_some_and(|l| l.promoted))
    {
        // An earlier restore was cut off after its data stood at its place: that one ends first.
        finished = Walk::begin(engine, cx, service, engine.clock.monotonic())
            .finish_promotions(&inspections)
            .await;
        inspections = inspect(engine, cx, service).await?;
    }
    let mut slots = Vec::with_capacity(inspections.len());
    for inspection in &inspections {
        match slot(service, inspection, options.set_aside) {
            Ok(slot) => slots.push(slot),
            Err(error) => {
                // It may have been just that restore which was cut off.
                if finished {
                    make_newest(engine, cx, service, BUDGET).await;
                }
                return Err(error);
            }
        }
    }
    let candidates = choose(engine, cx, service, options).await?;
    let mut patient = service.clone();
    patient.policy.budget = BUDGET;
    patient.policy.source_budget = BUDGET;
    let mut walk = Walk::begin(engine, cx, &patient, engine.clock.monotonic());
    record_begin(engine, cx, service, RunKind::Restore);
    let mut ended = None;
    for candidate in &candidates {
        match walk.restore(candidate, &mut slots).await {
            Tried::Restored => ended = Some(Outcome::Restored),
            Tried::Stop(outcome) => ended = Some(outcome),
            Tried::Failed => {}
        }
        if ended.is_some() {
            break;
        }
    }
    if ended == Some(Outcome::Restored) {
        walk.release_last_good().await;
    }
    let outcome = ended.unwrap_or_else(|| Outcome::Held { why: walk.reasons() });
    let mut report = walk.into_report(outcome);
    record(engine, std::slice::from_ref(&report), RunKind::Restore);
    let is_chosen = options.at != At::Newest
        || options.from.is_some()
        || slots.iter().any(|slot| slot.replace != Replace::OnlyEmpty);
    // Only now does the history say whether the service is seeded.
    if report.outcome == Outcome::Restored && is_chosen {
        report
            .warnings
            .extend(make_newest(engine, cx, service, BUDGET).await);
    }
    Ok(report)
}

/// Says what [`restore`] or [`restore_to`] would do.
///
/// # Errors
/// As those.
pub async fn restore_plan(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    options: &RestoreOptions,
    scope: &Scope,
    in_place: bool,
) -> Result<RestorePreview, OpError> {
    let targets = inspect(engine, cx, service).await?;
    if in_place {
        for inspection in &targets {
            slot(service, inspection, options.set_aside)?;
        }
    }
    let candidates = choose(engine, cx, service, options).await?;
    let candidate = &candidates[0];
    let source = &service.sources[candidate.source];
    let mut plans = Vec::with_capacity(candidate.points.len());
    for (target, point) in service.targets.iter().zip(&candidate.points) {
        let request = RestoreRequest {
            target: target.clone(),
            point: point.clone(),
            scope: scope.clone(),
        };
        plans.push(
            source
                .plan(cx, &request)
                .await
                .map_err(|e| e.convert(OpKind::Failed))?,
        );
    }
    Ok(RestorePreview {
        source: source.name().clone(),
        plans,
        targets,
    })
}

/// What came back into another directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScratchReport {
    /// From where.
    pub source: SourceName,
    /// Of which dataset.
    pub dataset: DatasetName,
    /// Which point.
    pub point: PointId,
    /// When that state was taken.
    pub taken_at: Timestamp,
    /// Where it is.
    pub path: PathBuf,
    /// Bytes of file content.
    pub bytes: u64,
    /// Files.
    pub files: u64,
    /// What was measured, where there was something to compare it with.
    pub fingerprint: Option<Fingerprint>,
    /// Whether it is what was recorded; none when nothing was recorded, or when only a part was restored.
    pub digest_matches: Option<bool>,
    /// What is not as it was.
    pub warnings: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

/// Restores all or a part of a service into a directory that is empty or not there yet; to `resume` also into one that an earlier run of this
/// began to fill and didn't finish, of which what fits is kept and the rest removed. Several datasets go into directories named after
/// their last component.
///
/// # Errors
/// `AlreadyExists` when something is in the directory; the last source's failure when none delivered.
pub async fn restore_to(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    options: &RestoreOptions,
    scope: &Scope,
    to: &Path,
    resume: bool,
) -> Result<Vec<ScratchReport>, OpError> {
    let mut doing = Doing::begin(engine, cx, service, "restore", None);
    let result = bring(engine, cx, service, options, (scope, Beside::Kept { resume }), to).await;
    match &result {
        Ok(reports) => {
            for one in reports {
                doing.bytes(one.bytes);
                doing.done(format!(
                    "{} of {} from {} into {}",
                    one.dataset,
                    one.taken_at,
                    one.source,
                    one.path.display()
                ));
                for warning in &one.warnings {
                    doing.warn(warning.clone());
                }
            }
            // What lacks something is no success to go by.
            let is_other = reports.iter().any(|one| one.digest_matches == Some(false));
            doing.end(match is_other {
                true => OpOutcome::Partial,
                false => OpOutcome::Ok,
            });
        }
        Err(error) => {
            doing.fail(error.report());
        }
    }
    result.map_err(|error| match error.what_to_do() {
        None => error.hint(format!("what came of it is in {}, to be looked at", to.display())),
        Some(_) => error,
    })
}

/// What becomes of what is restored into a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    /// It is looked at, and goes.
    Scratch,
    /// It stays.
    Kept { resume: bool },
}

/// As [`restore_to`], and leaves no trace in the journal: for those who keep their own.
pub(super) async fn bring(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    options: &RestoreOptions,
    (scope, beside): (&Scope, Beside),
    to: &Path,
) -> Result<Vec<ScratchReport>, OpError> {
    let mut candidates = choose(engine, cx, service, options).await?;
    if beside == Beside::Scratch {
        // What is to be proven is this one, and not that there is another.
        candidates.truncate(1);
    }
    // A source makes what is there equal to the point, so this must be nobody's.
    make(engine, cx, service, to, beside).await?;
    let mut last = None;
    let mut made = BTreeSet::new();
    let mut empty: Vec<Vec<&PointId>> = Vec::new();
    for candidate in &candidates {
        let points: Vec<&PointId> = candidate.points.iter().map(|point| &point.id).collect();
        // A path that isn't in a state isn't in it elsewhere either, and getting at it there may be dear. But who delivers
        // nothing of a whole state is broken, and of one that is partial here another source may have more.
        let tells = matches!(scope, Scope::Path(_)) && candidate.points.iter().all(|point| !point.partial);
        if empty.contains(&points) {
            continue;
        }
        match one_to(engine, cx, service, candidate, (scope, beside), to, &mut made).await {
            Ok(reports) => {
                if beside != Beside::Scratch {
                    for path in made.iter().map(PathBuf::as_path).chain([to]) {
                        engine.verifier.finish(cx, path).await?;
                    }
                }
                return Ok(reports);
            }
            Err(Missed { error, nothing }) => {
                if nothing && tells {
                    empty.push(points);
                }
                cx.emit(crate::event::Event::AttemptFailed {
                    service: service.name.clone(),
                    source: service.sources[candidate.source].name().clone(),
                    error: error.report(),
                    retry_in: None,
                });
                last = Some(error);
            }
        }
        if cx.cancel.is_cancelled() {
            break;
        }
    }
    Err(last.unwrap_or_else(|| no_point(service, options)))
}

/// Why a candidate didn't deliver.
struct Missed {
    error: OpError,
    /// It was read, and has nothing of what was asked for.
    nothing: bool,
}

impl From<OpError> for Missed {
    fn from(error: OpError) -> Self {
        Self {
            error,
            nothing: false,
        }
    }
}

impl From<SourceError> for Missed {
    fn from(error: SourceError) -> Self {
        Self {
            nothing: error.kind() == SourceKind::NothingRestored,
            error: error.convert(OpKind::Failed),
        }
    }
}

async fn make(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    path: &Path,
    beside: Beside,
) -> Result<(), OpError> {
    match beside {
        Beside::Scratch => engine.verifier.make_scratch(cx, path).await,
        Beside::Kept { resume } => engine.verifier.begin(cx, path, &service.name, resume).await,
    }
}

async fn one_to(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    candidate: &Candidate,
    (scope, beside): (&Scope, Beside),
    to: &Path,
    made: &mut BTreeSet<PathBuf>,
) -> Result<Vec<ScratchReport>, Missed> {
    let source = Arc::clone(&service.sources[candidate.source]);
    if source.caps().delivery == Delivery::Native {
        return Err(OpError::new(
            OpKind::Unsupported,
            format!("{} can't restore into a directory", source.name()),
        )
        .into());
    }
    let mut reports = Vec::with_capacity(service.targets.len());
    for (target, point) in service.targets.iter().zip(&candidate.points) {
        let began = engine.clock.monotonic();
        let path = if service.targets.len() == 1 {
            to.to_owned()
        } else {
            to.join(target.dataset.leaf())
        };
        if path != to && made.insert(path.clone()) {
            make(engine, cx, service, &path, beside).await?;
        }
        let staging = Staging {
            target: target.clone(),
            locator: path.display().to_string(),
            path,
            state: StageState::Partial,
        };
        let request = RestoreRequest {
            target: target.clone(),
            point: point.clone(),
            scope: scope.clone(),
        };
        let (source, staging) = (source.as_ref(), &staging);
        let restored = engine
            .within(cx, BUDGET, "restoring", |cx| async move {
                let plan = source.plan(&cx, &request).await?;
                source.execute(&cx, &plan, staging).await
            })
            .await?;
        // Without a recorded state there is nothing that reading all of it once more would tell.
        let recorded = point.fingerprint.filter(|_| *scope == Scope::Whole);
        let fingerprint = match recorded {
            Some(_) => Some(engine.verifier.measure(cx, &staging.path).await?),
            None => None,
        };
        let digest_matches = recorded.map(|recorded| Some(recorded) == fingerprint);
        // Of a partial point something is missing, and that is told with it.
        let mut warnings = restored.warnings;
        if point.altered && digest_matches.is_none() {
            warnings.push(ALTERED.to_owned());
        }
        if digest_matches == Some(false) && may_lack(point, source) {
            warnings.push("what could not be read when it was taken is recorded, and not there".to_owned());
        } else if digest_matches == Some(false) {
            let what = format!(
                "what {} delivered for {} is not the recorded state",
                source.name(),
                target.dataset
            );
            return Err(OpError::new(OpKind::Failed, what).into());
        }
        reports.push(ScratchReport {
            source: source.name().clone(),
            dataset: target.dataset.clone(),
            point: point.id.clone(),
            taken_at: point.taken_at,
            path: staging.path.clone(),
            bytes: restored.bytes,
            files: restored.files,
            fingerprint,
            digest_matches,
            warnings,
            seconds: (engine.clock.monotonic() - began).as_secs_f64(),
        });
    }
    Ok(reports)
}

pub(super) async fn inspect(
    engine: &Engine,
    cx: &Context,
    service: &Service,
) -> Result<Vec<Inspection>, OpError> {
    let store = &service.store;
    let inspect = engine.within(cx, BUDGET, "inspecting", |cx| async move {
        store.inspect(&cx, &service.targets).await
    });
    inspect.await.map_err(|e| e.convert(OpKind::Blocked))
}

pub(super) fn slot(service: &Service, inspection: &Inspection, set_aside: bool) -> Result<Slot, OpError> {
    let dataset = &inspection.target.dataset;
    let blocked = |why: String| OpError::new(OpKind::Blocked, why);
    let cut_off = inspection.cut_off().filter(|_| set_aside);
    let replace = match (&inspection.condition, cut_off.or(inspection.guid)) {
        // The very restore that has set it aside goes on.
        (Condition::Unmounted { .. }, Some(guid)) if cut_off.is_some() => Replace::SetAside { guid },
        (Condition::Absent | Condition::Empty, _) => Replace::OnlyEmpty,
        (Condition::Populated, Some(guid)) if set_aside => Replace::SetAside { guid },
        (Condition::Populated, _) => {
            return Err(blocked(format!("{dataset} holds data, which is never overwritten")).hint(format!(
                "restore beside it with `reseed restore {0} --to DIR`, or stop the service and use `--set-aside`, which keeps what is there under another name",
                service.name
            )));
        }
        (
            Condition::PoolUnavailable { why } | Condition::Unmounted { why } | Condition::Unknown { why },
            _,
        ) => {
            return Err(blocked(format!("{dataset} can't be restored in place: {why}")));
        }
        (Condition::Occupied { by }, _) => {
            return Err(blocked(format!(
                "{} is taken by {by}, which is not {dataset}",
                inspection.target.mountpoint.display()
            )));
        }
    };
    let leftover = inspection.staged().cloned();
    Ok(Slot {
        target: inspection.target.clone(),
        replace,
        leftover,
        staged: None,
    })
}

/// The candidates that fit, best first. Never empty.
pub(super) async fn choose(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    options: &RestoreOptions,
) -> Result<Vec<Candidate>, OpError> {
    if let Some(from) = &options.from
        && !service.sources.iter().any(|s| s.name() == from)
    {
        let names: Vec<&str> = service.sources.iter().map(|s| s.name().as_str()).collect();
        return Err(OpError::new(
            OpKind::InvalidInput,
            format!("{} has no source {from}", service.name),
        )
        .hint(format!("its sources are: {}", names.join(", "))));
    }
    let mut narrowed = service.clone();
    if let Some(from) = &options.from {
        narrowed.sources.retain(|s| s.name() == from);
    }
    let targets: Vec<&Target> = service.targets.iter().collect();
    let probes = probe_all(engine, cx, &narrowed, &targets, service.policy.probe_budget).await;
    let (mut found, mut failed, mut holds) = (Vec::<Candidate>::new(), None, false);
    let mut states = 0;
    for (source, probe) in narrowed.sources.iter().zip(probes) {
        let index = service
            .sources
            .iter()
            .position(|s| Arc::ptr_eq(s, source))
            .unwrap_or(0);
        holds |= probe.holds_points();
        match probe.answer {
            Ok(points) => {
                let groups = group(index, &targets, &points);
                states += groups.iter().filter(|c| !c.is_damaged()).count();
                found.extend(groups.into_iter().filter(|c| fits(c, &options.at)));
            }
            Err(error) => {
                cx.emit(crate::event::Event::AttemptFailed {
                    service: service.name.clone(),
                    source: source.name().clone(),
                    error: error.clone(),
                    retry_in: None,
                });
                failed.get_or_insert(error);
            }
        }
    }
    match options.at {
        // As in a preseed: the chain's order, or by age, and each source's best.
        At::Newest => {
            // A second copy, which may lack something, comes after every source's best.
            let copies_of_best = |of_one: &[Candidate]| -> Vec<Candidate> {
                let is_best = |candidate: &&Candidate| candidate.state() == of_one[0].state();
                of_one.iter().filter(is_best).cloned().collect()
            };
            let per_source = found.chunk_by(|a, b| a.source == b.source);
            found = order(per_source.map(copies_of_best).collect(), Prefer::Chain, None);
            if service.policy.prefer == Prefer::Newest {
                found.sort_by_key(|c| (c.rank(), std::cmp::Reverse(c.taken_at())));
            } else if let Some(best) = found.first()
                && let Some(message) = passed_over(service, best, found.iter())
            {
                cx.emit(crate::event::Event::Warning {
                    service: Some(service.name.clone()),
                    message,
                    hint: Some(BY_AGE.to_owned()),
                });
            }
        }
        // The moment matters more than where it comes from; only exactly that moment is good enough as a substitute.
        At::Time(_) | At::Point(_) => {
            found.sort_by_key(|c| (std::cmp::Reverse(c.taken_at()), c.rank(), c.source));
            if let At::Point(wanted) = &options.at
                && let (Some(newest), Some(oldest)) = (found.first(), found.last())
                && newest.taken_at() != oldest.taken_at()
            {
                let what = format!(
                    "{wanted} stands for more than one recovery point, of {} and of {}",
                    newest.taken_at(),
                    oldest.taken_at()
                );
                return Err(OpError::new(OpKind::InvalidInput, what).hint("give the whole id, or a time"));
            }
            if let Some(best) = found.first().map(Candidate::taken_at) {
                found.retain(|c| c.taken_at() == best);
            }
        }
    }
    match (found.is_empty(), failed) {
        (false, _) => Ok(found),
        _ if cx.cancel.is_cancelled() => Err(OpError::new(
            OpKind::Cancelled,
            "the run was ended while the sources were asked",
        )),
        (true, None) if holds && states == 0 => {
            let what = format!(
                "the sources hold recovery points of {}, and no state that all of its datasets were in together",
                service.name
            );
            Err(OpError::new(OpKind::NotFound, what).hint(of_no_state(service)))
        }
        (true, None) => Err(no_point(service, options)),
        (true, Some(error)) => Err(OpError::new(
            OpKind::Failed,
            format!("no source that answered has such a point of {}", service.name),
        )
        .said(error)
        .hint(format!(
            "`reseed status {}` shows what each source answers",
            service.name
        ))),
    }
}

fn fits(candidate: &Candidate, at: &At) -> bool {
    let named = |point: &RecoveryPoint, wanted: &str| {
        let exact = point.id.as_str() == wanted
            || point.locator == wanted
            || point.snapshot.as_ref().is_some_and(|s| s.as_str() == wanted);
        // The beginning of an id, as restic prints it. A path is no id.
        let begins = |id: &str| !id.contains('/') && id.starts_with(wanted);
        exact || (wanted.len() >= 6 && (begins(&point.locator) || begins(point.id.as_str())))
    };
    match at {
        At::Newest => true,
        At::Time(time) => candidate.points.iter().all(|p| p.taken_at <= *time),
        At::Point(wanted) => candidate.points.iter().any(|p| named(p, wanted)),
    }
}

fn no_point(service: &Service, options: &RestoreOptions) -> OpError {
    let from = options
        .from
        .as_ref()
        .map(|s| format!(" in {s}"))
        .unwrap_or_default();
    let at = match &options.at {
        At::Newest => String::new(),
        At::Time(time) => format!(" from {time} or before"),
        At::Point(point) => format!(" called {point}"),
    };
    let hint = match &options.at {
        At::Point(_) => format!(
            "`reseed status {}` lists what there is; a moment is written `2026-11-22`, `2026-11-22 14:00`, `2026-11-22T14:00:00Z` or `-2h`",
            service.name
        ),
        _ => format!("`reseed status {}` lists what there is", service.name),
    };
    OpError::new(
        OpKind::NotFound,
        format!("there is no recovery point of {}{at}{from}", service.name),
    )
    .hint(hint)
}
