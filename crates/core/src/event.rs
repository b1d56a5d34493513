//! What a run tells while it goes on: the boundary between the library and whatever shows it.
//!
//! Events are for people and tests; nothing in the library reads them back.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::ErrorReport;
use crate::names::{DatasetName, PointId, RunId, ServiceName, SourceName};

/// Something that happened in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// A service is being looked at.
    ServiceStarted {
        /// The service.
        service: ServiceName,
        /// What is done to it: `preseed`, `backup`, …
        operation: String,
    },
    /// Data is there, so nothing is restored.
    DataPresent {
        /// The service.
        service: ServiceName,
    },
    /// A source is tried.
    AttemptStarted {
        /// The service.
        service: ServiceName,
        /// The source.
        source: SourceName,
        /// The point that is fetched.
        point: PointId,
        /// 1 for the first try of this source and point.
        attempt: u32,
    },
    /// A source failed.
    AttemptFailed {
        /// The service.
        service: ServiceName,
        /// The source.
        source: SourceName,
        /// Why.
        error: ErrorReport,
        /// Seconds until the next try of the same source; none when the chain goes on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_in: Option<f64>,
    },
    /// A transfer moved on.
    Progress {
        /// What is moved.
        dataset: DatasetName,
        /// Bytes so far.
        bytes: u64,
        /// Bytes in all, where known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        total: Option<u64>,
        /// Files so far.
        files: u64,
    },
    /// A step of a run was reached: `staged`, `verified`, `promoted`, …
    Step {
        /// The service.
        service: ServiceName,
        /// The step.
        step: String,
        /// More of it for a person.
        detail: String,
    },
    /// Something is not as it should be, and the run goes on.
    Warning {
        /// The service, where it is about one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<ServiceName>,
        /// In one sentence.
        message: String,
        /// What to do.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
    /// A service is done.
    ServiceFinished {
        /// The service.
        service: ServiceName,
        /// How it ended, in one sentence.
        summary: String,
        /// Whether that is good.
        ok: bool,
        /// How long it took.
        seconds: f64,
    },
}

/// Listens to events. Must not block: it is called from inside the run.
pub trait EventSink: Send + Sync + fmt::Debug {
    /// One event of one run.
    fn emit(&self, run: &RunId, event: Event);
}

/// Listens to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl EventSink for Silent {
    fn emit(&self, _run: &RunId, _event: Event) {}
}

/// Passes events on to `tracing`, for programs that embed the library and have a subscriber.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traced;

impl EventSink for Traced {
    fn emit(&self, run: &RunId, event: Event) {
        match &event {
            Event::Progress {
                dataset,
                bytes,
                total,
                ..
            } => tracing::trace!(%run, %dataset, bytes, total, "progress"),
            Event::AttemptFailed {
                service,
                source,
                error,
                ..
            } => {
                tracing::warn!(%run, %service, %source, kind = error.kind, "attempt failed: {error}");
            }
            Event::Warning { service, message, .. } => {
                let service = service.as_ref().map(tracing::field::display);
                tracing::warn!(%run, service, "{message}");
            }
            Event::ServiceFinished {
                service,
                summary,
                ok: false,
                seconds,
            } => {
                tracing::error!(%run, %service, seconds, "{summary}");
            }
            Event::ServiceFinished {
                service,
                summary,
                ok: true,
                seconds,
            } => {
                tracing::info!(%run, %service, seconds, "{summary}");
            }
            other => tracing::debug!(%run, event = ?other),
        }
    }
}

/// Keeps every event, for tests and for reports made at the end.
#[derive(Debug, Default)]
pub struct Recorder(std::sync::Mutex<Vec<Event>>);

impl Recorder {
    /// What was emitted so far, taken out.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl EventSink for Recorder {
    fn emit(&self, _run: &RunId, event: Event) {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(event);
    }
}
