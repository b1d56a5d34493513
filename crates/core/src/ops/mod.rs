//! The operations beside preseed: protect (snapshot, replicate, back up), restore on request, roll back, verify, prune, adopt, status.
//!
//! Each takes the engine, a context and services, and returns plain reports. None of them prints, and none of them knows a
//! backend.

mod adopt;
mod backup;
mod check;
mod cost;
mod doubt;
mod forget;
mod guard;
mod prune;
mod replicate;
mod restore;
mod rollback;
mod snapshot;
mod verify;

pub use adopt::{adopt, adopt_plan};
pub use backup::{backup, backup_plan};
pub use check::{RepoCheck, check_repo, next_part};
pub use cost::{Cost, Growth, RepoCost, cost};
pub use forget::{
    ForgetPlan, RepoForgetPlan, RepoForgotten, forget, forget_plan, forget_points, remove_unused,
};
pub use guard::{Guarded, guard};
pub use prune::{PrunePlan, prune, prune_plan};
pub use replicate::{Ahead, replicate, replicate_ahead, replicate_plan, replicate_planned};
pub use restore::{At, RestoreOptions, RestorePreview, ScratchReport, restore, restore_plan, restore_to};
pub use rollback::{NewerSnapshot, RollbackPreview, RollbackStep, rollback, rollback_plan};
pub(crate) use snapshot::make_newest;
pub use snapshot::{due, snapshot, snapshot_name, snapshot_plan};
pub use verify::verify;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::engine::Engine;
use crate::error::{ErrorReport, OpError};
use crate::event::Event;
use crate::journal::{Attempt, Entry, PointRecord, Run, RunKey, RunOutcome};
use crate::names::{PointId, RunId, ServiceName, SourceName};
use crate::point::Snapshot;
use crate::service::Service;

/// How one operation on one service went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpReport {
    /// The run.
    pub run: RunId,
    /// The service.
    pub service: ServiceName,
    /// `snapshot`, `replicate`, `backup`, `check`, `verify`, `prune` or `adopt`.
    pub operation: String,
    /// How it ended.
    pub outcome: OpOutcome,
    /// The replica or repository it was about, where it was about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<SourceName>,
    /// What was done, one line a thing.
    pub done: Vec<String>,
    /// Bytes that were moved or added.
    pub bytes: u64,
    /// What is not as it should be.
    pub warnings: Vec<String>,
    /// Why it didn't end well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
    /// How long it took.
    pub seconds: f64,
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OpOutcome {
    /// All of it was done.
    Ok,
    /// There was nothing to do.
    UpToDate,
    /// Something is missing: this is not a success.
    Partial,
    /// It was left alone on purpose, for the reason given.
    Skipped,
    /// It failed.
    Failed,
    /// It was ended from outside; the next run goes on.
    Interrupted,
}

impl OpOutcome {
    /// The outcome's name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::UpToDate => "up-to-date",
            Self::Partial => "partial",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }

    /// Whether a script may go on.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Ok | Self::UpToDate)
    }
}

/// A report on an operation that could not begin.
pub fn failed(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    operation: &str,
    error: &OpError,
) -> OpReport {
    Doing::begin(engine, cx, service, operation, None).fail(error.report())
}

/// Why a service is unseeded, as far as the journal knows. The marker goes with a directory that is made anew; the journal doesn't.
/// A journal that can't be read says nothing: the marker and the holds remain.
pub(crate) fn unseeded_by_journal(engine: &Engine, service: &Service) -> Option<String> {
    engine.journal.service(&service.name).ok().flatten()?.unseeded
}

/// Collects a report while an operation runs.
#[derive(Debug)]
pub(crate) struct Doing<'a> {
    engine: &'a Engine,
    cx: &'a Context,
    began: std::time::Duration,
    started_at: Timestamp,
    key: Option<RunKey>,
    points: Vec<PointId>,
    records: Vec<Entry>,
    verification: Option<String>,
    report: OpReport,
}

impl<'a> Doing<'a> {
    pub(crate) fn begin(
        engine: &'a Engine,
        cx: &'a Context,
        service: &Service,
        operation: &str,
        with: Option<&SourceName>,
    ) -> Self {
        cx.emit(Event::ServiceStarted {
            service: service.name.clone(),
            operation: operation.to_owned(),
        });
        let started_at = engine.clock.now();
        let peer = with.cloned();
        let key = operation.parse().ok().map(|kind| RunKey {
            run: cx.run.clone(),
            service: service.name.clone(),
            kind,
            peer,
        });
        if let Some(key) = &key {
            engine
                .journal
                .write(vec![Entry::Run(Box::new(Run::begun(key.clone(), started_at)))]);
        }
        let report = OpReport {
            run: cx.run.clone(),
            service: service.name.clone(),
            operation: operation.to_owned(),
            outcome: OpOutcome::Ok,
            with: with.cloned(),
            done: Vec::new(),
            bytes: 0,
            warnings: Vec::new(),
            error: None,
            seconds: 0.0,
        };
        Self {
            engine,
            cx,
            began: engine.clock.monotonic(),
            started_at,
            key,
            points: Vec::new(),
            records: Vec::new(),
            verification: None,
            report,
        }
    }

    pub(crate) fn done(&mut self, line: impl Into<String>) {
        self.report.done.push(line.into());
    }

    /// A point that was made, with what it looks like where that is known.
    pub(crate) fn point(&mut self, snapshot: &Snapshot) {
        let point = PointId::from(snapshot.guid);
        self.points.push(point.clone());
        if let Some(fingerprint) = snapshot.fingerprint {
            let record = PointRecord {
                dataset: snapshot.dataset.clone(),
                point,
                taken_at: snapshot.taken_at,
                fingerprint,
            };
            self.records.push(Entry::Point(record));
        }
    }

    /// How far storing a point where it belongs has come, written down at once: the run may not come to its end.
    pub(crate) fn storing(&self, point: &PointId, stage: &str, error: Option<ErrorReport>) {
        let (Some(key), Some(source)) = (&self.key, &self.report.with) else {
            return;
        };
        let attempt = Attempt {
            source: source.clone(),
            points: vec![point.clone()],
            number: 1,
            stage: stage.to_owned(),
            error,
            seconds: (self.engine.clock.monotonic() - self.began).as_secs_f64(),
        };
        let attempt = Entry::Attempt(key.clone(), Box::new(attempt));
        self.engine.journal.write(vec![attempt]);
    }

    /// How it was verified, as the history has it.
    pub(crate) fn verification(&mut self, how: impl Into<String>) {
        self.verification = Some(how.into());
    }

    pub(crate) fn bytes(&mut self, bytes: u64) {
        self.report.bytes += bytes;
    }

    pub(crate) fn warn(&mut self, message: impl Into<String>) {
        let message = message.into();
        self.cx.emit(Event::Warning {
            service: Some(self.report.service.clone()),
            message: message.clone(),
            hint: None,
        });
        self.report.warnings.push(message);
    }

    pub(crate) fn fail(self, error: ErrorReport) -> OpReport {
        let outcome = if self.cx.cancel.is_cancelled() {
            OpOutcome::Interrupted
        } else {
            OpOutcome::Failed
        };
        self.end_with(outcome, Some(error))
    }

    pub(crate) fn end(self, outcome: OpOutcome) -> OpReport {
        self.end_with(outcome, None)
    }

    pub(crate) fn end_with(mut self, outcome: OpOutcome, error: Option<ErrorReport>) -> OpReport {
        self.report.outcome = outcome;
        self.report.error = error;
        self.report.seconds = (self.engine.clock.monotonic() - self.began).as_secs_f64();
        if let Some(key) = self.key.take() {
            let run = Run {
                finished_at: Some(self.engine.clock.now()),
                outcome: Some(outcome.name().parse().unwrap_or(RunOutcome::Failed)),
                points: std::mem::take(&mut self.points),
                bytes: Some(self.report.bytes),
                seconds: Some(self.report.seconds),
                verification: self.verification.take(),
                message: Some(self.report.summary()),
                ..Run::begun(key, self.started_at)
            };
            let mut entries = std::mem::take(&mut self.records);
            entries.push(Entry::Run(Box::new(run)));
            self.engine.journal.write(entries);
        }
        self.cx.emit(Event::ServiceFinished {
            service: self.report.service.clone(),
            summary: self.report.summary(),
            ok: outcome.is_good(),
            seconds: self.report.seconds,
        });
        self.report
    }
}

impl OpReport {
    /// How it went, in one sentence.
    pub fn summary(&self) -> String {
        let with = self.with.as_ref().map(|w| format!(" ({w})")).unwrap_or_default();
        let words = match (&self.error, self.done.as_slice()) {
            (Some(error), _) => error.to_string(),
            (None, []) => String::new(),
            (None, [only]) => only.clone(),
            (None, [first, rest @ ..]) => format!("{first}, and {} more", rest.len()),
        };
        let colon = if words.is_empty() { "" } else { ": " };
        format!(
            "{}: {}{with} {}{colon}{words}",
            self.service,
            self.operation,
            self.outcome.name()
        )
    }
}
