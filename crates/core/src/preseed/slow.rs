//! A source that is not done when its share of the time is up.
//!
//! Slow is neither unreachable nor corrupt. As long as it brings more it is let go on, for another source would have to begin anew, and what
//! is here would have to go for that one. One that stands still makes room for the others, and is asked once more behind them. Of a source that tells nothing
//! of its progress one can't know: where something of it is staged, it has the rest of the time.

use std::sync::Arc;
use std::time::Duration;

use super::moves::{Moves, Pace};
use super::report::{Outcome, Stage};
use super::restore::{Failure, Slot, Staged, Tried};
use super::{Candidate, Walk};
use crate::RestoreSource;
use crate::engine::GRACE;
use crate::error::{Common, ErrorReport, Kind as _, SourceError, SourceKind};
use crate::names::SourceName;
use crate::store::{Leftover, StageState};

/// A source that was not done when its time was up.
#[derive(Debug)]
pub(super) struct Unfinished {
    /// What it was asked for.
    pub(super) candidate: Candidate,
    /// What was said of it.
    pub(super) error: ErrorReport,
    /// How far it was, where something of it is staged, which the next run goes on with.
    pub(super) brought: Option<Stage>,
}

/// Whether a try failed for the time that it took; `is_up` says whether that of its source is up. A fetch may be slow by the source's own
/// measure long before that. That of making room and of looking is that the time is up.
pub(super) fn is_slow(failure: &Failure, is_up: bool) -> bool {
    let by_its_stage = match failure.stage {
        Stage::Fetch => true,
        Stage::Stage | Stage::Verify => is_up,
        _ => false,
    };
    by_its_stage && failure.error.kind == Common::TimedOut.name()
}

impl Walk<'_> {
    /// Gives a source another share of the time where it has used up its own, as long as there is any.
    pub(super) fn renew(&self, source: &dyn RestoreSource, ends: &mut Duration) {
        if self.until(*ends).is_zero() {
            let share = self.share(self.service.policy.source_budget, Some(source.name()));
            *ends = self.engine.clock.monotonic() + share;
        }
    }

    /// Whether a source was not asked for a dataset any more for the time that the datasets before took: that is as slow as any other.
    pub(super) async fn is_late(
        &mut self,
        failure: &Failure,
        is_up: bool,
        candidate: &Candidate,
        slots: &mut [Slot],
    ) -> bool {
        failure.stage == Stage::Plan
            && is_up
            && failure.error.kind == Common::TimedOut.name()
            && self.has_brought(candidate, slots, Stage::Plan).await
    }

    /// Where a source was slow before it failed otherwise, nothing is started without its data: not for that, unless what it has is damaged.
    pub(super) fn was_slow(
        &mut self,
        candidate: &Candidate,
        slow: Option<ErrorReport>,
        failed: &ErrorReport,
    ) {
        let is_damaged = failed.kind == SourceKind::Corrupt.name();
        if let Some(error) = slow.filter(|_| !is_damaged) {
            self.is_unfinished(candidate, error, None);
        }
    }

    /// The first one counts, or the one that has brought something.
    pub(super) fn is_unfinished(
        &mut self,
        candidate: &Candidate,
        error: ErrorReport,
        brought: Option<Stage>,
    ) {
        if self.unfinished.is_none() || brought.is_some() {
            self.unfinished = Some(Unfinished {
                candidate: candidate.clone(),
                error,
                brought,
            });
        }
    }

    /// What the transfer of a slot's data is called, and who hears how far it is.
    pub(super) fn transfer(
        &self,
        slot: &Slot,
        source: &dyn RestoreSource,
        ends: Duration,
    ) -> (String, Arc<Moves>) {
        let what = format!("restoring {} from {}", slot.target.dataset, source.name());
        let (events, clock) = (Arc::clone(self.cx.events()), Arc::clone(&self.engine.clock));
        (what, Arc::new(Moves::new(events, clock, self.until(ends))))
    }

    /// Ends when a transfer has had its share of the time and doesn't move, or there is no time left at all.
    pub(super) async fn is_up(&self, what: &str, ends: Duration, moves: &Moves) -> String {
        let clock = &self.engine.clock;
        let began = clock.monotonic();
        clock.sleep(self.until(ends)).await;
        loop {
            let left = self.left();
            match moves.pace() {
                Pace::Moves { still_in } if !left.is_zero() => clock.sleep(still_in.min(left)).await,
                Pace::Still(time) => {
                    return format!(
                        "{what} stood still for {} s, and its share of the time was up",
                        time.as_secs()
                    );
                }
                _ => {
                    let took = clock.monotonic() - began;
                    return format!("{what} took longer than {} s", took.as_secs());
                }
            }
        }
    }

    /// Nobody else has it: who stood still gets another share of the time.
    pub(super) async fn ask_stuck_again(&mut self, slots: &mut [Slot]) -> Option<Outcome> {
        let candidate = self.stuck.take()?;
        if self.cx.cancel.is_cancelled() || self.target_failure.is_some() || self.left().is_zero() {
            return None;
        }
        match self.restore(&candidate, slots).await {
            Tried::Restored => Some(Outcome::Restored),
            Tried::Failed => {
                let last = self.attempts.last().and_then(|attempt| attempt.error.as_ref());
                let is_damaged = last.is_some_and(|error| error.kind == SourceKind::Corrupt.name());
                self.unfinished
                    .take_if(|slow| is_damaged && slow.candidate.source == candidate.source);
                None
            }
            Tried::Stop(outcome) => Some(outcome),
        }
    }

    /// What is staged of who stood still is kept too, where nobody behind it has taken its place.
    pub(super) async fn look_what_is_kept(&mut self, slots: &mut [Slot]) {
        if let Some(slow) = self.unfinished.take_if(|slow| slow.brought.is_none()) {
            let is_kept = self.has_brought(&slow.candidate, slots, Stage::Fetch).await;
            self.unfinished = Some(Unfinished {
                brought: is_kept.then_some(Stage::Fetch),
                ..slow
            });
        }
    }

    /// Each source has its word, also one that was not tried for what another has brought.
    pub(super) fn tell_untried(&mut self) {
        let sources = self.service.sources.iter().map(|source| source.name());
        let is_untold = |name: &&SourceName| !self.attempts.iter().any(|attempt| attempt.source == **name);
        let untold: Vec<SourceName> = sources.filter(is_untold).cloned().collect();
        for name in untold {
            let error = SourceError::new(SourceKind::TimedOut, "it was not tried: the time was up").report();
            self.record(name, Vec::new(), 1, Stage::Plan, Some(error), 0.0);
        }
    }

    /// The end of a chain of which a source was not done in time.
    pub(super) fn held_for_slow(&mut self) -> Option<Outcome> {
        let slow = self.unfinished.take()?;
        let name = self.service.sources[slow.candidate.source].name();
        let kept = match slow.brought {
            None => "the next run asks it again",
            Some(Stage::Verify) => {
                "it has brought all of it, which there was no time to look at: with a longer `budget` there is"
            }
            Some(_) => "what it brought is kept, and the next run goes on",
        };
        let why = format!(
            "{name} was not done when its time was up ({}); {kept}. `reseed restore {}` takes the time that it takes. {}",
            slow.error,
            self.service.name,
            self.reasons()
        );
        Some(Outcome::Held { why })
    }

    /// Whether something of a candidate is staged: the next run, or the next try, goes on with it.
    pub(super) async fn has_brought(
        &mut self,
        candidate: &Candidate,
        slots: &mut [Slot],
        stage: Stage,
    ) -> bool {
        if stage == Stage::Verify {
            return true;
        }
        let delivery = self.service.sources[candidate.source].caps().delivery;
        let ends = self.engine.clock.monotonic() + GRACE;
        for (slot, point) in slots.iter_mut().zip(&candidate.points) {
            let is_of_it = |staged: &Staged| staged.source == point.source && staged.point == point.id;
            let is_left = |left: &Leftover| left.source == point.source && left.point.id == point.id;
            if slot.leftover.as_ref().is_some_and(is_left) {
                return true;
            }
            if !slot.staged.as_ref().is_some_and(is_of_it) {
                continue;
            }
            // Asked again for the same point, it says what is there; what can't be told isn't nothing.
            match self.stage(slot, point, delivery, ends).await {
                Ok(staging) if staging.state == StageState::Fresh => {}
                _ => return true,
            }
        }
        false
    }
}
