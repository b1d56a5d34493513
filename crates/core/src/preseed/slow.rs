//! A source that is not done when its share of the time is up.
//!
//! Slow is neither unreachable nor corrupt. Where it has brought something it goes on, for another source would have to begin anew, and what is
//! here would have to go for that one.

use super::report::Stage;
use super::restore::{Failure, Slot, Staged};
use super::{Candidate, Walk};
use crate::engine::GRACE;
use crate::error::{Common, ErrorReport, Kind as _, SourceKind};
use crate::store::{Leftover, StageState};

/// A source that was not done when its time was up.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub(super) source: usize,
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
    /// Where a source was slow before it failed otherwise, nothing is started without its data: not for that, unless what it has is damaged.
    pub(super) fn was_slow(
        &mut self,
        candidate: &Candidate,
        slow: Option<ErrorReport>,
        failed: &ErrorReport,
    ) {
        let is_damaged = failed.kind == SourceKind::Corrupt.name();
        if let Some(error) = slow.filter(|_| !is_damaged) {
            self.unfinished.get_or_insert(Unfinished {
                source: candidate.source,
                error,
                brought: None,
            });
        }
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
