//! Events on a terminal: a bar for what moves, a line for what is worth keeping.

use std::sync::Mutex;

use indicatif::{ProgressBar, ProgressStyle};
use reseed_core::event::{Event, EventSink};
use reseed_core::names::RunId;

use super::lines::line;
use super::printable;

/// Shows events on standard error.
#[derive(Debug)]
pub(crate) struct Terminal {
    bar: Mutex<Option<ProgressBar>>,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        Self {
            bar: Mutex::new(None),
        }
    }
}

fn bar(total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{msg} {spinner} {bytes} {bytes_per_sec}",
        ),
    };
    // A template that doesn't parse would be a mistake in the line above; the default style still shows the work.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

impl EventSink for Terminal {
    fn emit(&self, run: &RunId, event: Event) {
        let mut shown = self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Event::Progress {
            dataset,
            bytes,
            total,
            ..
        } = &event
        {
            let bar = shown.get_or_insert_with(|| bar(*total));
            bar.set_message(dataset.to_string());
            bar.set_position(*bytes);
            return;
        }
        if matches!(
            event,
            Event::Step { .. } | Event::ServiceFinished { .. } | Event::AttemptFailed { .. }
        ) && let Some(bar) = shown.take()
        {
            bar.finish_and_clear();
        }
        // Summaries are part of the result; here only what happens on the way.
        if matches!(event, Event::ServiceFinished { .. } | Event::DataPresent { .. }) {
            return;
        }
        if let Some((_, text)) = line(run, &event) {
            let text = printable(&text.replace(&format!(" run={run}"), ""));
            match shown.as_ref() {
                Some(bar) => bar.suspend(|| write(&text)),
                None => write(&text),
            }
        }
    }
}

fn write(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
