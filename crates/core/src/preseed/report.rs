//! What a preseed says of itself: plain data for the journal, `--json` and the tests.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::ErrorReport;
use crate::names::{DatasetName, PointId, RunId, ServiceName, SourceName};
use crate::point::Fingerprint;

/// How one service's preseed went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceReport {
    /// The run.
    pub run: RunId,
    /// The service.
    pub service: ServiceName,
    /// How it ended.
    pub outcome: Outcome,
    /// Where the data came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceName>,
    /// What came back, a dataset each.
    pub datasets: Vec<DatasetReport>,
    /// Every try of every source, in order.
    pub attempts: Vec<Attempt>,
    /// What was checked, in words.
    pub verified: Vec<String>,
    /// What is not as it should be.
    pub warnings: Vec<String>,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took.
    pub seconds: f64,
    /// Only some of the service's datasets were missing.
    #[serde(skip)]
    pub(crate) in_part: bool,
}

impl ServiceReport {
    /// Whether what came back is known to be less than what was recorded, which is told and accepted of a state that could not be stored
    /// whole.
    pub fn lacks_something(&self) -> bool {
        self.datasets
            .iter()
            .any(|dataset| dataset.digest_matches == Some(false))
    }

    /// How it went, in one sentence.
    pub fn summary(&self) -> String {
        let name = &self.service;
        match &self.outcome {
            Outcome::DataPresent => format!("{name}: data present, skipped restore"),
            Outcome::Restored => {
                let source = self.source.as_ref().map_or("?", |s| s.as_str());
                let taken_at = self.datasets.iter().map(|d| d.taken_at).min();
                let taken_at = taken_at.map(|t| t.to_string()).unwrap_or_default();
                let bytes: u64 = self.datasets.iter().map(|d| d.bytes).sum();
                let files: u64 = self.datasets.iter().map(|d| d.files).sum();
                let checked: Vec<Option<bool>> = self.datasets.iter().map(|d| d.digest_matches).collect();
                let checked = if self.lacks_something() {
                    "not all of what was recorded"
                } else if checked.contains(&None) {
                    "no tree digest to compare with"
                } else {
                    "tree digest matches"
                };
                format!(
                    "{name}: restored from {source}, state of {taken_at}: {files} files, {bytes} bytes in {:.1} s, {checked}",
                    self.seconds
                )
            }
            Outcome::FirstStart => format!("{name}: no recovery point exists anywhere, first start"),
            Outcome::StartedEmpty { why } => format!("{name}: starts without data and is unseeded; {why}"),
            Outcome::Held { why } => format!("{name}: held back; {why}"),
            Outcome::Blocked { why, .. } => format!("{name}: blocked; {why}"),
            Outcome::Failed { error } => format!("{name}: failed; {error}"),
            Outcome::Interrupted => format!("{name}: interrupted; the next run goes on"),
        }
    }
}

/// How a preseed ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Outcome {
    /// Data was there; nothing was restored.
    DataPresent,
    /// Data is back, verified.
    Restored,
    /// There is nothing anywhere to restore: an ordinary first start.
    FirstStart,
    /// Sources failed; the service starts without data and is unseeded.
    StartedEmpty {
        /// Why.
        why: String,
    },
    /// Sources failed; the service must not start.
    Held {
        /// Why.
        why: String,
    },
    /// The target's state forbids any restore.
    Blocked {
        /// Why.
        why: String,
        /// What to do.
        hint: String,
    },
    /// The target could not be written, so that no source could have helped.
    Failed {
        /// Why.
        error: ErrorReport,
    },
    /// The run was ended from outside. The next one goes on.
    Interrupted,
}

impl Outcome {
    /// Whether the service may start.
    pub fn may_start(&self) -> bool {
        matches!(
            self,
            Self::DataPresent | Self::Restored | Self::FirstStart | Self::StartedEmpty { .. }
        )
    }

    /// The outcome's name, as in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::DataPresent => "data-present",
            Self::Restored => "restored",
            Self::FirstStart => "first-start",
            Self::StartedEmpty { .. } => "started-empty",
            Self::Held { .. } => "held",
            Self::Blocked { .. } => "blocked",
            Self::Failed { .. } => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// What came back of one dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatasetReport {
    /// The dataset.
    pub dataset: DatasetName,
    /// The point that it equals now.
    pub point: PointId,
    /// When that state was taken.
    pub taken_at: Timestamp,
    /// Bytes of file content.
    pub bytes: u64,
    /// Files.
    pub files: u64,
    /// What was measured after the restore.
    pub fingerprint: Option<Fingerprint>,
    /// Whether it is what was recorded; none when nothing was recorded or the policy doesn't ask.
    pub digest_matches: Option<bool>,
    /// Whether it was taken while the service was unseeded, which it still is then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unseeded: bool,
    /// Where what stood at the target is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_aside: Option<String>,
}

/// One try of one source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// The source.
    pub source: SourceName,
    /// The points that were tried; empty when asking for them failed or there are none.
    pub points: Vec<PointId>,
    /// Counts from 1 for each source and point.
    pub number: u32,
    /// How far it got.
    pub stage: Stage,
    /// What went wrong; none for a success, and for a source that holds no point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
    /// How long it took.
    pub seconds: f64,
}

/// How far an attempt got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Asking for recovery points.
    Probe,
    /// The source was asked and holds none.
    NoPoint,
    /// Planning.
    Plan,
    /// Making room for it.
    Stage,
    /// Bringing it.
    Fetch,
    /// Checking it.
    Verify,
    /// Putting it in place.
    Promote,
    /// All of it.
    Done,
}
