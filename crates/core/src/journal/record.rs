//! What is written and read: plain values, without any idea of how they are kept.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::TreeDigest;
use crate::error::ErrorReport;
use crate::names::{DatasetName, PointId, RunId, ServiceName, SourceName};
use crate::ops::OpReport;
use crate::point::Fingerprint;
use crate::preseed::{DatasetReport, ServiceReport};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// As it stands in the journal and in JSON.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;
            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text { $($text => Ok(Self::$variant),)* _ => Err(UnknownWord(text.to_owned())) }
            }
        }
    };
}

/// A word that stands for no kind or outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a word the journal knows")]
pub struct UnknownWord(String);

words! {
    /// What a run does.
    RunKind {
        /// Puts data back before a service starts.
        Preseed = "preseed",
        /// Puts data back on request.
        Restore = "restore",
        /// Takes a recovery point on the same pool.
        Snapshot = "snapshot",
        /// Brings it to a replica.
        Replicate = "replicate",
        /// Brings it off-site.
        Backup = "backup",
        /// Proves that points are whole.
        Verify = "verify",
        /// Looks for damage in an off-site repository.
        Check = "check",
        /// Ages points out.
        Prune = "prune",
        /// Restores into a scratch place.
        Drill = "drill",
        /// Declares what is there to be the service's data.
        Adopt = "adopt",
    }
}

words! {
    /// How a run ended.
    RunOutcome {
        /// All of it was done.
        Ok = "ok",
        /// There was nothing to do.
        UpToDate = "up-to-date",
        /// Data was there; nothing was restored.
        DataPresent = "data-present",
        /// Data is back, verified.
        Restored = "restored",
        /// Something is missing: no success.
        Partial = "partial",
        /// Left alone on purpose.
        Skipped = "skipped",
        /// There was nothing anywhere to restore: an ordinary first start.
        FirstStart = "first-start",
        /// The service starts without its data and is unseeded.
        StartedEmpty = "started-empty",
        /// The service must not start.
        Held = "held",
        /// The target's state forbade it.
        Blocked = "blocked",
        /// It failed.
        Failed = "failed",
        /// It was ended from outside, or never ended.
        Interrupted = "interrupted",
    }
}

impl RunOutcome {
    /// Whether the clock of the last success moves: only full success counts.
    pub fn is_success(self) -> bool {
        matches!(
            self,
            Self::Ok | Self::UpToDate | Self::DataPresent | Self::Restored
        )
    }
}

/// What makes a row: one kind of work on one service in one run, with one peer where there are several.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunKey {
    /// The run; `--all` works on many services in one.
    pub run: RunId,
    /// The service.
    pub service: ServiceName,
    /// What was done.
    pub kind: RunKind,
    /// The replica or repository it was done with, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<SourceName>,
}

/// One row of the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Which.
    #[serde(flatten)]
    pub key: RunKey,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended; none while it runs, and for one that never ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// How it ended; none while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<RunOutcome>,
    /// Where the data came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceName>,
    /// The points that were made or used, one per dataset.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<PointId>,
    /// Bytes restored, moved or added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Files restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// How long it took, by the monotonic clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// What was verified, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<String>,
    /// The digest of what is there now, where there is one dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<TreeDigest>,
    /// How it went, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Every try of every source, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
}

impl Run {
    /// A run that begins.
    pub fn begun(key: RunKey, started_at: Timestamp) -> Self {
        Self {
            key,
            started_at,
            finished_at: None,
            outcome: None,
            source: None,
            points: Vec::new(),
            bytes: None,
            files: None,
            seconds: None,
            verification: None,
            digest: None,
            message: None,
            attempts: Vec::new(),
        }
    }

    /// A preseed that ended.
    pub fn from_preseed(report: &ServiceReport, finished_at: Timestamp) -> Self {
        let sum = |of: fn(&DatasetReport) -> u64| {
            (!report.datasets.is_empty()).then(|| report.datasets.iter().map(of).sum())
        };
        let digest = match report.datasets.as_slice() {
            [only] => only.fingerprint.map(|fingerprint| fingerprint.digest),
            _ => None,
        };
        let attempts = report.attempts.iter().map(|attempt| Attempt {
            source: attempt.source.clone(),
            points: attempt.points.clone(),
            number: attempt.number,
            stage: serde_json::to_value(attempt.stage)
                .ok()
                .and_then(|stage| stage.as_str().map(str::to_owned))
                .unwrap_or_default(),
            error: attempt.error.clone(),
            seconds: attempt.seconds,
        });
        let key = RunKey {
            run: report.run.clone(),
            service: report.service.clone(),
            kind: RunKind::Preseed,
            peer: None,
        };
        Self {
            finished_at: Some(finished_at),
            // Both name their outcomes alike; a test holds them together.
            outcome: Some(report.outcome.name().parse().unwrap_or(RunOutcome::Failed)),
            source: report.source.clone(),
            points: report
                .datasets
                .iter()
                .map(|dataset| dataset.point.clone())
                .collect(),
            bytes: sum(|dataset| dataset.bytes),
            files: sum(|dataset| dataset.files),
            seconds: Some(report.seconds),
            verification: (!report.verified.is_empty()).then(|| report.verified.join("; ")),
            digest,
            message: Some(report.summary()),
            attempts: attempts.collect(),
            ..Self::begun(key, report.started_at)
        }
    }

    /// An operation that ended. `None` for one that the history has no word for.
    pub fn from_operation(report: &OpReport, started_at: Timestamp, finished_at: Timestamp) -> Option<Self> {
        let key = RunKey {
            run: report.run.clone(),
            service: report.service.clone(),
            kind: report.operation.parse().ok()?,
            peer: report.with.clone(),
        };
        let words = match &report.error {
            Some(error) => error.to_string(),
            None => report.done.join("; "),
        };
        Some(Self {
            finished_at: Some(finished_at),
            outcome: Some(report.outcome.name().parse().ok()?),
            bytes: Some(report.bytes),
            seconds: Some(report.seconds),
            message: (!words.is_empty()).then_some(words),
            ..Self::begun(key, started_at)
        })
    }
}

/// One try of one source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// The source.
    pub source: SourceName,
    /// The points that were tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<PointId>,
    /// Counts from 1 for each source and point.
    pub number: u32,
    /// How far it got: `probe`, `fetch`, `done`, ….
    pub stage: String,
    /// What went wrong: kind, words, and what may have happened. None for a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
    /// How long it took.
    pub seconds: f64,
}

/// What a point looked like when it was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointRecord {
    /// Of which dataset.
    pub dataset: DatasetName,
    /// Which point.
    pub point: PointId,
    /// When the state was taken.
    pub taken_at: Timestamp,
    /// What it looked like.
    pub fingerprint: Fingerprint,
}

/// What is known about a service across runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// The service.
    pub service: ServiceName,
    /// Why it is unseeded; none when it is seeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseeded: Option<String>,
    /// Since when it is what it is.
    pub since: Timestamp,
    /// Its newest state that was known to be good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good: Option<LastGood>,
}

impl ServiceRecord {
    /// Its data is what it is to be, since this time.
    pub(crate) fn seeded(service: ServiceName, since: Timestamp) -> Self {
        Self {
            service,
            unseeded: None,
            since,
            last_good: None,
        }
    }
}

/// A state that was known to be good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastGood {
    /// Which point.
    pub point: PointId,
    /// When it was taken.
    pub taken_at: Timestamp,
    /// What it looked like.
    pub fingerprint: Fingerprint,
}

/// Something to write.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// A run that begins or ends. Fields that are none or empty leave what is known.
    Run(Box<Run>),
    /// A try of a run that began. A run written with attempts of its own adds them only where there are none yet. A file has it on its
    /// disk before the try goes on, because that it was begun must be known also after a power cut.
    Attempt(RunKey, Box<Attempt>),
    /// What a point looks like.
    Point(PointRecord),
    /// What a service is now.
    Service(ServiceRecord),
}

/// Which runs to read; everything that is none matches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Of this service.
    pub service: Option<ServiceName>,
    /// Of this kind.
    pub kind: Option<RunKind>,
    /// With one of these outcomes.
    pub outcomes: Option<Vec<RunOutcome>>,
    /// Begun at this moment or later.
    pub since: Option<Timestamp>,
    /// The newest so many.
    pub limit: Option<u32>,
}

impl Query {
    /// The newest full success of a service's kind of run: what the clock of the last success shows.
    pub fn last_success(service: ServiceName, kind: RunKind) -> Self {
        let outcomes = RunOutcome::ALL
            .iter()
            .copied()
            .filter(|outcome| outcome.is_success())
            .collect();
        Self {
            service: Some(service),
            kind: Some(kind),
            outcomes: Some(outcomes),
            limit: Some(1),
            since: None,
        }
    }

    pub(super) fn matches(&self, run: &Run) -> bool {
        self.service
            .as_ref()
            .is_none_or(|service| *service == run.key.service)
            && self.kind.is_none_or(|kind| kind == run.key.kind)
            && self
                .outcomes
                .as_ref()
                .is_none_or(|them| run.outcome.is_some_and(|one| them.contains(&one)))
            && self.since.is_none_or(|since| run.started_at >= since)
    }
}

/// To the precision that is kept.
pub(super) fn to_millis(at: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at)
}
