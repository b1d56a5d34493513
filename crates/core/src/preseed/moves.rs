//! Whether a fetch moves, by what its source tells of its progress.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::event::{Event, EventSink};
use crate::names::RunId;

/// A fetch of which nothing more was told for so long stands still.
const LULL: Duration = Duration::from_secs(5 * 60);

/// Progress is told by the megabyte, which may take as long on a slow line.
const SHORTEST: Duration = Duration::from_secs(60);

/// How a fetch goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// Its source tells nothing of it.
    Untold,
    /// It brings more, or has all and is at what comes after that.
    Moves {
        /// When it will stand still if nothing more comes, from now.
        still_in: Duration,
    },
    /// It brought nothing more for this long, which is as long as one waits.
    Still(Duration),
}

/// Passes events on, and notes when a fetch was last further than before.
#[derive(Debug)]
pub(super) struct Moves {
    to: Arc<dyn EventSink>,
    clock: Arc<dyn Clock>,
    lull: Duration,
    furthest: Mutex<Option<Furthest>>,
}

#[derive(Debug)]
struct Furthest {
    bytes: u64,
    files: u64,
    has_all: bool,
    at: Duration,
}

impl Moves {
    /// Of a fetch that has `share` of the time: a lull of a quarter of it is long.
    pub(super) fn new(to: Arc<dyn EventSink>, clock: Arc<dyn Clock>, share: Duration) -> Self {
        Self {
            to,
            clock,
            lull: LULL.min(share / 4).max(SHORTEST),
            furthest: Mutex::new(None),
        }
    }

    pub(super) fn pace(&self) -> Pace {
        let furthest = self.furthest.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(furthest) = furthest.as_ref() else {
            return Pace::Untold;
        };
        let since = self.clock.monotonic().saturating_sub(furthest.at);
        match self.lull.checked_sub(since) {
            _ if furthest.has_all => Pace::Moves {
                still_in: Duration::MAX,
            },
            None | Some(Duration::ZERO) => Pace::Still(since),
            Some(still_in) => Pace::Moves { still_in },
        }
    }
}

impl EventSink for Moves {
    fn emit(&self, run: &RunId, event: Event) {
        if let Event::Progress {
            bytes, total, files, ..
        } = &event
        {
            let mut furthest = self.furthest.lock().unwrap_or_else(PoisonError::into_inner);
            let before = furthest.as_ref().map(|before| (before.bytes, before.files));
            let is_further = before.is_none_or(|before| *bytes > before.0 || *files > before.1);
            if is_further {
                let (most, of_files) = before.unwrap_or_default();
                *furthest = Some(Furthest {
                    bytes: most.max(*bytes),
                    files: of_files.max(*files),
                    // Who is past it didn't know how much it is.
                    has_all: *bytes > 0 && *total == Some(*bytes),
                    at: self.clock.monotonic(),
                });
            }
        }
        self.to.emit(run, event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::event::Silent;
    use crate::names::DatasetName;

    #[test]
    fn only_who_has_exactly_all_is_at_what_comes_after_that() {
        let run = RunId::new("20261122T203300Z-test").unwrap();
        let dataset = DatasetName::new("tank/app").unwrap();
        for (bytes, total, has_all) in [
            (5, Some(5), true),
            (5, Some(9), false),
            (9, Some(5), false),
            (0, Some(0), false),
            (5, None, false),
        ] {
            let moves = Moves::new(Arc::new(Silent), Arc::new(SystemClock::new()), Duration::ZERO);
            moves.emit(
                &run,
                Event::Progress {
                    dataset: dataset.clone(),
                    bytes,
                    total,
                    files: 1,
                },
            );
            let Pace::Moves { still_in } = moves.pace() else {
                panic!("{bytes} of {total:?}")
            };
            assert_eq!(still_in == Duration::MAX, has_all, "{bytes} of {total:?}");
        }
    }
}
