//! What a command answers: data for `--json`, text for people, and an exit code.

use std::collections::BTreeMap;

use serde::Serialize;

use reseed_core::error::OpError;
use reseed_core::ops::OpReport;
use reseed_core::preseed::{Outcome, ServiceReport};

use crate::exit::Exit;
use crate::ui::{Mood, Ui, printable};

/// What a command answers.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) json: serde_json::Value,
    pub(crate) text: String,
    pub(crate) exit: Exit,
}

impl Answer {
    pub(crate) fn new(json: &impl Serialize, text: impl Into<String>, exit: Exit) -> Self {
        // Everything that is answered is plain data with string keys.
        let json = serde_json::to_value(json)
            .unwrap_or_else(|error| serde_json::json!({ "error": error.to_string() }));
        Self {
            json,
            text: text.into(),
            exit,
        }
    }

    /// One answer of several reports on one thing each.
    pub(crate) fn of_ops(ui: &Ui, reports: &[OpReport]) -> Self {
        let exit = reports.iter().map(Exit::of_op).max().unwrap_or(Exit::Ok);
        let mut text = String::new();
        for report in reports {
            let mood = match Exit::of_op(report) {
                Exit::Ok => Mood::Good,
                Exit::Partial | Exit::Blocked => Mood::Warn,
                _ => Mood::Bad,
            };
            text.push_str(&ui.paint(mood, &printable(&report.summary())));
            text.push('\n');
            for warning in &report.warnings {
                text.push_str(&format!("  warning: {}\n", printable(warning)));
            }
            if let Some(hint) = report.error.as_ref().and_then(|e| e.hint.as_ref()) {
                text.push_str(&format!("  hint: {}\n", printable(hint)));
            }
        }
        Self::new(&serde_json::json!({ "reports": reports }), text, exit)
    }

    pub(crate) fn of_preseeds(ui: &Ui, reports: &[ServiceReport]) -> Self {
        let exit = reports.iter().map(Exit::of_preseed).max().unwrap_or(Exit::Ok);
        let mut text = String::new();
        for report in reports {
            let mood = match &report.outcome {
                Outcome::DataPresent | Outcome::Restored | Outcome::FirstStart => Mood::Good,
                Outcome::StartedEmpty { .. } | Outcome::Interrupted => Mood::Warn,
                _ => Mood::Bad,
            };
            text.push_str(&ui.paint(mood, &printable(&report.summary())));
            text.push('\n');
            if let Outcome::Blocked { hint, .. } = &report.outcome {
                text.push_str(&format!("  hint: {}\n", printable(hint)));
            }
            if let Outcome::Failed { error } = &report.outcome
                && let Some(hint) = &error.hint
            {
                text.push_str(&format!("  hint: {}\n", printable(hint)));
            }
            if let Outcome::Held { .. } | Outcome::StartedEmpty { .. } = &report.outcome {
                text.push_str(&hints(report));
            }
            for dataset in &report.datasets {
                if let Some(aside) = &dataset.set_aside {
                    text.push_str(&format!(
                        "  what was at {} is now {}\n",
                        dataset.dataset,
                        printable(aside)
                    ));
                }
            }
        }
        Self::new(&serde_json::json!({ "reports": reports }), text, exit)
    }

    pub(crate) fn of_error(ui: &Ui, error: &OpError) -> Self {
        let mut text = format!(
            "{}: {}\n",
            ui.paint(Mood::Bad, "error"),
            printable(&error.to_string())
        );
        if let Some(hint) = error.what_to_do() {
            text.push_str(&format!("hint: {}\n", printable(hint)));
        }
        Self::new(
            &serde_json::json!({ "error": error.report() }),
            text,
            Exit::of_error(error),
        )
    }
}

/// What to do about each source that did not deliver: what its last try says.
fn hints(report: &ServiceReport) -> String {
    let mut last = BTreeMap::new();
    for attempt in &report.attempts {
        let hint = attempt.error.as_ref().and_then(|error| error.hint.as_ref());
        last.insert(&attempt.source, hint);
    }
    let mut text = String::new();
    for (source, hint) in last {
        if let Some(hint) = hint {
            text.push_str(&format!("  hint: {source}: {}\n", printable(hint)));
        }
    }
    text
}
