//! Events on a terminal: a bar for each dataset that moves, a line for what is worth keeping.

use std::collections::BTreeMap;
use std::sync::Mutex;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use reseed_core::event::{Event, EventSink};
use reseed_core::names::{DatasetName, RunId};

use super::lines::line;
use super::printable;

/// Shows events on standard error.
#[derive(Debug)]
pub(crate) struct Terminal {
    bars: Mutex<Bars>,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        Self {
            bars: Mutex::new(Bars::default()),
        }
    }
}

/// Several datasets move at once.
#[derive(Debug, Default)]
struct Bars {
    screen: MultiProgress,
    of: BTreeMap<DatasetName, ProgressBar>,
}

impl Bars {
    fn moved(&mut self, dataset: &DatasetName, bytes: u64, total: Option<u64>) {
        let screen = &self.screen;
        let shown = self
            .of
            .entry(dataset.clone())
            .or_insert_with(|| screen.add(bar(dataset, total)));
        // A dataset's next stream has a sum of its own, and begins anew.
        if shown.length() != total || bytes < shown.position() {
            *shown = fresh(screen, shown, bar(dataset, total));
        }
        shown.set_position(bytes);
    }

    fn clear(&mut self) {
        for (_, bar) in std::mem::take(&mut self.of) {
            bar.finish_and_clear();
            self.screen.remove(&bar);
        }
    }
}

fn fresh(screen: &MultiProgress, old: &ProgressBar, new: ProgressBar) -> ProgressBar {
    let new = screen.insert_after(old, new);
    old.finish_and_clear();
    screen.remove(old);
    new
}

fn bar(dataset: &DatasetName, total: Option<u64>) -> ProgressBar {
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
    bar.with_message(dataset.to_string())
}

impl EventSink for Terminal {
    fn emit(&self, run: &RunId, event: Event) {
        let mut shown = self
            .bars
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Event::Progress {
            dataset,
            bytes,
            total,
            ..
        } = &event
        {
            shown.moved(dataset, *bytes, *total);
            return;
        }
        if matches!(
            event,
            Event::Step { .. } | Event::ServiceFinished { .. } | Event::AttemptFailed { .. }
        ) {
            shown.clear();
        }
        // Summaries are part of the result; here only what happens on the way.
        if matches!(event, Event::ServiceFinished { .. } | Event::DataPresent { .. }) {
            return;
        }
        if let Some((_, text)) = line(run, &event) {
            let text = printable(&text.replace(&format!(" run={run}"), ""));
            shown.screen.suspend(|| write(&text));
        }
    }
}

fn write(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use indicatif::ProgressDrawTarget;

    use super::*;

    #[test]
    fn each_dataset_has_its_bar_and_each_stream_its_sum() {
        let mut bars = Bars::default();
        bars.screen.set_draw_target(ProgressDrawTarget::hidden());
        let (a, b) = (
            DatasetName::new("tank/a").unwrap(),
            DatasetName::new("tank/b").unwrap(),
        );
        bars.moved(&a, 0, Some(100));
        bars.moved(&b, 7, None);
        bars.moved(&a, 60, Some(100));
        let at = |bars: &Bars, name| (bars.of[name].position(), bars.of[name].length());
        assert_eq!((at(&bars, &a), at(&bars, &b)), ((60, Some(100)), (7, None)));
        // The next stream of the same dataset.
        bars.moved(&a, 0, Some(30));
        assert_eq!(at(&bars, &a), (0, Some(30)));
        bars.clear();
        assert!(bars.of.is_empty());
        bars.moved(&a, 1, Some(2));
        assert_eq!(at(&bars, &a), (1, Some(2)));
    }
}
