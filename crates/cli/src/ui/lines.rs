//! Events as plain lines, for logs: one event a line, the same words each time.

use std::io::Write as _;

use reseed_core::event::{Event, EventSink};
use reseed_core::names::RunId;

use super::printable;

/// Writes events to standard error, or to a file.
#[derive(Debug)]
pub(crate) struct Lines {
    priorities: bool,
    file: Option<std::fs::File>,
}

/// Priorities of syslog(3).
const ERR: u8 = 3;
const WARNING: u8 = 4;
const NOTICE: u8 = 5;
const INFO: u8 = 6;

impl Lines {
    /// With `priorities` each line begins with sd-daemon's `<N>`.
    pub(crate) fn new(priorities: bool) -> Self {
        Self {
            priorities,
            file: None,
        }
    }

    /// Into a file.
    pub(crate) fn to(file: std::fs::File) -> Self {
        Self {
            priorities: false,
            file: Some(file),
        }
    }
}

/// An event as one line with its priority; nothing for what a log doesn't need.
pub(super) fn line(run: &RunId, event: &Event) -> Option<(u8, String)> {
    Some(match event {
        Event::ServiceStarted { .. } | Event::Progress { .. } => return None,
        Event::DataPresent { service } => (
            INFO,
            format!("service={service} run={run} data present, skipped restore"),
        ),
        Event::AttemptStarted {
            service,
            source,
            point,
            attempt,
        } => (
            INFO,
            format!("service={service} run={run} source={source} point={point} attempt={attempt} restoring"),
        ),
        Event::AttemptFailed {
            service,
            source,
            error,
            retry_in,
        } => {
            let next = retry_in
                .map(|s| format!(", trying again in {s:.0} s"))
                .unwrap_or_default();
            (
                WARNING,
                format!(
                    "service={service} run={run} source={source} error={} {error}{next}",
                    error.kind
                ),
            )
        }
        Event::Step {
            service,
            step,
            detail,
        } => (INFO, format!("service={service} run={run} step={step} {detail}")),
        Event::Warning {
            service,
            message,
            hint,
        } => {
            let service = service
                .as_ref()
                .map(|s| format!("service={s} "))
                .unwrap_or_default();
            let hint = hint.as_ref().map(|h| format!("; {h}")).unwrap_or_default();
            (WARNING, format!("{service}run={run} {message}{hint}"))
        }
        Event::ServiceFinished {
            service,
            summary,
            ok,
            seconds,
        } => (
            if *ok { NOTICE } else { ERR },
            format!("service={service} run={run} seconds={seconds:.2} {summary}"),
        ),
        _ => return None,
    })
}

impl EventSink for Lines {
    fn emit(&self, run: &RunId, event: Event) {
        if let Some((priority, text)) = line(run, &event) {
            let prefix = if self.priorities {
                format!("<{priority}>")
            } else {
                String::new()
            };
            // A log that can't be written must not end a restore.
            let _ = match &self.file {
                Some(file) => writeln!(&*file, "{}", printable(&text)),
                None => writeln!(std::io::stderr().lock(), "{prefix}{}", printable(&text)),
            };
        }
    }
}
