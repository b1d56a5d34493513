//! One candidate: stage, fetch, verify, and only then promote.

use std::sync::Arc;
use std::time::Duration;

use super::moves::Pace;
use super::report::{Attempt, DatasetReport, Outcome, Stage};
use super::slow::is_slow;
use super::{ALTERED, Candidate, Walk};
use crate::context::Context;
use crate::error::{
    Common, Effect, ErrorReport, Kind, Retry, SourceError, SourceKind, StoreError, StoreKind,
};
use crate::event::{Event, EventSink};
use crate::names::{PointId, SourceName};
use crate::point::{Fingerprint, RecoveryPoint, Target};
use crate::service::Verify;
use crate::source::{RestoreRequest, RestoreSource, Restored, Scope};
use crate::store::{Condition, Inspection};
use crate::store::{Delivery, Leftover, Replace, Settle, Settled, StagePurpose, StageRequest, Staging};

/// A promotion is a rename and what belongs to it; it gets this much time even when the budget is used up.
const PROMOTE_AT_LEAST: Duration = Duration::from_secs(30);

/// A missing dataset on its way back.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) target: Target,
    /// What may stand there when it is promoted.
    pub(crate) replace: Replace,
    /// What an earlier run left staged.
    pub(crate) leftover: Option<Leftover>,
    /// What this run staged.
    pub(crate) staged: Option<Staged>,
}

#[derive(Debug)]
pub(crate) struct Staged {
    pub(super) staging: Staging,
    pub(super) source: SourceName,
    pub(super) point: PointId,
}

/// What came of a candidate.
#[derive(Debug)]
pub(crate) enum Tried {
    /// It is in place.
    Restored,
    /// Go on with the next one.
    Failed,
    /// No other candidate can help.
    Stop(Outcome),
}

/// Why one try failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) stage: Stage,
    pub(super) error: ErrorReport,
    /// The target's fault, not the source's.
    pub(super) target: bool,
    /// Its time was up, and it had brought nothing more for long.
    pub(super) stood_still: bool,
}

impl Failure {
    pub(super) fn source(stage: Stage, error: &SourceError) -> Self {
        let kind = error.kind();
        let target =
            kind == SourceKind::Target || matches!(kind.common(), Some(Common::NoSpace | Common::ReadOnly));
        Self {
            stage,
            error: error.report(),
            target,
            stood_still: false,
        }
    }

    pub(super) fn store(stage: Stage, error: &StoreError) -> Self {
        let source = matches!(error.kind().common(), Some(Common::Cancelled | Common::TimedOut));
        Self {
            stage,
            error: error.report(),
            target: !source,
            stood_still: false,
        }
    }
}

/// A dataset that is staged and verified.
pub(super) struct Verified {
    pub(super) restored: Restored,
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) matches: Option<bool>,
}

impl Walk<'_> {
    /// Tries a candidate as often as its failures deserve.
    pub(crate) async fn restore(&mut self, candidate: &Candidate, slots: &mut [Slot]) -> Tried {
        let source = Arc::clone(&self.service.sources[candidate.source]);
        let ids: Vec<PointId> = candidate.points.iter().map(|p| p.id.clone()).collect();
        let mut source_ends = self.engine.clock.monotonic()
            + self.share(self.service.policy.source_budget, Some(source.name()));
        let mut slow = None;
        let mut delays = self.delays();
        let before = |attempt: &&Attempt| attempt.source == *source.name() && attempt.points == ids;
        let before = u32::try_from(self.attempts.iter().filter(before).count()).unwrap_or(0);
        for number in before + 1.. {
            self.cx.emit(Event::AttemptStarted {
                service: self.service.name.clone(),
                source: source.name().clone(),
                point: candidate.points[0].id.clone(),
                attempt: number,
            });
            let began = self.engine.clock.monotonic();
            let result = self
                .attempt(candidate, source.as_ref(), slots, &mut source_ends)
                .await;
            let seconds = (self.engine.clock.monotonic() - began).as_secs_f64();
            let failure = match result {
                Ok(()) => {
                    self.record(source.name().clone(), ids, number, Stage::Done, None, seconds);
                    self.warn_about(candidate);
                    return Tried::Restored;
                }
                Err(failure) => failure,
            };
            let left = source_ends.saturating_sub(self.engine.clock.monotonic());
            let worth_it = failure.error.retry == Retry::Later
                && failure.stage != Stage::Verify
                && !self.cx.cancel.is_cancelled();
            let delay = if worth_it {
                delays.next().filter(|delay| *delay < left)
            } else {
                None
            };
            self.failed(source.name(), &failure.error, delay);
            self.record(
                source.name().clone(),
                ids.clone(),
                number,
                failure.stage,
                Some(failure.error.clone()),
                seconds,
            );
            if self.cx.cancel.is_cancelled() {
                return Tried::Stop(Outcome::Interrupted);
            }
            if failure.stage == Stage::Promote {
                // What is verified is staged and stays so; the next run promotes it. Another source can't do better.
                return Tried::Stop(Outcome::Failed { error: failure.error });
            }
            let is_up = self.until(source_ends).is_zero();
            if is_slow(&failure, is_up) || self.is_late(&failure, is_up, candidate, slots).await {
                if failure.stood_still {
                    self.stuck.get_or_insert_with(|| candidate.clone());
                }
                let brought = is_up
                    && !failure.stood_still
                    && (slow.is_some() || self.has_brought(candidate, slots, failure.stage).await);
                // Another source would have to begin anew, and what is here would have to go for it.
                if brought && !self.left().is_zero() {
                    source_ends = self.engine.clock.monotonic() + self.left();
                    slow = Some(failure.error);
                    continue;
                }
                self.is_unfinished(candidate, failure.error, brought.then_some(failure.stage));
                return Tried::Failed;
            }
            if failure.target {
                self.target_failure.get_or_insert(failure.error.clone());
            }
            let Some(delay) = delay else {
                self.was_slow(candidate, slow, &failure.error);
                return Tried::Failed;
            };
            if self.pause(delay).await.is_err() {
                return Tried::Stop(Outcome::Interrupted);
            }
        }
        Tried::Failed
    }

    async fn attempt(
        &mut self,
        candidate: &Candidate,
        source: &dyn RestoreSource,
        slots: &mut [Slot],
        ends: &mut Duration,
    ) -> Result<(), Failure> {
        let mut verified = Vec::with_capacity(slots.len());
        for (slot, point) in slots.iter_mut().zip(&candidate.points) {
            if !verified.is_empty() {
                // Looking at what came has the time that it takes, which is none of what the source has for the next dataset.
                self.renew(source, ends);
            }
            let restored = self.fetch(slot, point, source, ends).await?;
            verified.push(self.verify(slot, point, source, restored).await?);
        }
        self.recheck(slots).await?;
        let mut begun = false;
        for ((slot, point), verified) in slots.iter_mut().zip(&candidate.points).zip(verified) {
            let settled = match self.promote(slot, point, begun).await {
                Ok(settled) => settled,
                Err(failure) => self.stands(slot, point, failure).await?,
            };
            begun = true;
            if let Some(aside) = &settled.set_aside {
                self.step(
                    "set-aside",
                    format!("what stood at {} is now {aside}", slot.target.dataset),
                );
            }
            let report = DatasetReport {
                dataset: slot.target.dataset.clone(),
                point: point.id.clone(),
                taken_at: point.taken_at,
                bytes: verified.fingerprint.map_or(verified.restored.bytes, |f| f.bytes),
                files: verified.fingerprint.map_or(verified.restored.files, |f| f.files),
                fingerprint: verified.fingerprint,
                digest_matches: verified.matches,
                unseeded: point.unseeded,
                set_aside: settled.set_aside,
            };
            // As it happens: a failure between two datasets must say what is where.
            let done = self
                .done
                .get_or_insert_with(|| (point.source.clone(), Vec::new()));
            done.1.push(report);
        }
        Ok(())
    }

    /// Before the first of several promotions: every target is still what its slot says, so that none of them is refused
    /// after another was replaced.
    async fn recheck(&mut self, slots: &[Slot]) -> Result<(), Failure> {
        if slots.len() < 2 {
            return Ok(());
        }
        let store = &self.service.store;
        let targets: Vec<Target> = slots.iter().map(|slot| slot.target.clone()).collect();
        let limit = self.left_to_end();
        let looked = self
            .engine
            .within(self.cx, limit, "looking at the targets again", |cx| async move {
                store.inspect(&cx, &targets).await
            })
            .await
            .map_err(|error| Failure {
                stage: Stage::Promote,
                error: error.report(),
                target: true,
                stood_still: false,
            })?;
        for (slot, found) in slots.iter().zip(&looked) {
            let as_planned = match (slot.replace, &found.condition) {
                (Replace::OnlyEmpty, Condition::Absent | Condition::Empty) => true,
                (Replace::SetAside { guid }, Condition::Populated) => found.guid == Some(guid),
                (Replace::SetAside { guid }, Condition::Unmounted { .. }) => found.cut_off() == Some(guid),
                _ => false,
            };
            if !as_planned {
                let what = format!(
                    "{} is no longer as it was when the restore began",
                    slot.target.dataset
                );
                let error: StoreError =
                    StoreError::new(StoreKind::StalePlan, what).effect(Effect::StagingOnly);
                return Err(Failure {
                    stage: Stage::Promote,
                    error: error.report(),
                    target: true,
                    stood_still: false,
                });
            }
        }
        Ok(())
    }

    pub(super) fn until(&self, ends: Duration) -> Duration {
        ends.saturating_sub(self.engine.clock.monotonic())
            .min(self.left())
    }

    async fn fetch(
        &mut self,
        slot: &mut Slot,
        point: &RecoveryPoint,
        source: &dyn RestoreSource,
        ends: &mut Duration,
    ) -> Result<Restored, Failure> {
        let request = RestoreRequest {
            target: slot.target.clone(),
            point: point.clone(),
            scope: Scope::Whole,
        };
        let what = format!("planning the restore from {}", source.name());
        let plan = self
            .engine
            .within(self.cx, self.until(*ends), &what, |cx| async move {
                source.plan(&cx, &request).await
            })
            .await
            .map_err(|error| Failure::source(Stage::Plan, &error))?;

        let delivery = source.caps().delivery;
        let staging = self
            .stage(slot, point, delivery, *ends)
            .await
            .map_err(|error| Failure::store(Stage::Stage, &error))?;
        let into = &staging;
        let (what, moves) = self.transfer(slot, source, *ends);
        if self.until(*ends).is_zero() {
            // Begun now, it could only be ended again.
            let what = format!("{what} was not begun: no time is left for it");
            return Err(Failure::source(
                Stage::Stage,
                &SourceError::new(SourceKind::TimedOut, what),
            ));
        }
        let heard = self.cx.heard_by(Arc::clone(&moves) as Arc<dyn EventSink>);
        let is_up = self.is_up(&what, *ends, &moves);
        let fetched = self
            .engine
            .unless(&heard, &what, is_up, |cx| async move {
                source.execute(&cx, &plan, into).await
            })
            .await;
        let is_timed_out = |error: &SourceError| error.kind() == SourceKind::TimedOut;
        if !fetched.as_ref().is_err_and(is_timed_out) {
            // It was let go on, and what comes after it has a share of its own, behind which it is looked at again.
            self.renew(source, ends);
        }
        let restored = fetched.map_err(|error| Failure {
            stood_still: is_timed_out(&error) && matches!(moves.pace(), Pace::Still(_)),
            ..Failure::source(Stage::Fetch, &error)
        })?;
        if delivery == Delivery::Native {
            self.stage(slot, point, delivery, *ends)
                .await
                .map_err(|error| Failure::store(Stage::Stage, &error))?;
        }
        for warning in &restored.warnings {
            self.warn(format!("{}: {warning}", slot.target.dataset), None);
        }
        self.step(
            "staged",
            format!(
                "{} from {}: {} bytes",
                slot.target.dataset,
                source.name(),
                restored.bytes
            ),
        );
        Ok(restored)
    }

    /// Opens the slot's staging for a point. What is staged there for another point goes first.
    pub(super) async fn stage(
        &mut self,
        slot: &mut Slot,
        point: &RecoveryPoint,
        delivery: Delivery,
        ends: Duration,
    ) -> Result<Staging, StoreError> {
        if let Some(leftover) = slot
            .leftover
            .take_if(|l| l.source != point.source || l.point.id != point.id)
        {
            let request = Settle::DiscardLeftover {
                target: slot.target.clone(),
                leftover,
            };
            self.settle_within(&request, "removing old staging", self.until(ends))
                .await?;
        }
        if let Some(staged) = slot
            .staged
            .take_if(|s| s.source != point.source || s.point != point.id)
        {
            self.settle_within(
                &Settle::Discard {
                    staging: staged.staging,
                },
                "removing old staging",
                self.until(ends),
            )
            .await?;
        }
        let purpose = StagePurpose::Restore {
            point: point.clone(),
            delivery,
        };
        let request = StageRequest {
            target: slot.target.clone(),
            purpose,
        };
        let store = &self.service.store;
        let limit = self.until(ends);
        let staging = self
            .engine
            .within(self.cx, limit, "making room for the restore", |cx| async move {
                store.stage(&cx, &request).await
            })
            .await?;
        slot.leftover = None;
        slot.staged = Some(Staged {
            staging: staging.clone(),
            source: point.source.clone(),
            point: point.id.clone(),
        });
        Ok(staging)
    }

    async fn promote(
        &mut self,
        slot: &mut Slot,
        point: &RecoveryPoint,
        begun: bool,
    ) -> Result<Settled, Failure> {
        let lost = || {
            Failure::store(
                Stage::Promote,
                &StoreError::new(StoreKind::NotFound, "staging is gone"),
            )
        };
        let staging = slot.staged.as_ref().map(|s| s.staging.clone()).ok_or_else(lost)?;
        let request = Settle::Promote {
            staging,
            replace: slot.replace,
            marker: self.restored_marker(point),
        };
        // After the first dataset of a service the others follow, whatever is cancelled: between two moments is no place to stop.
        let calm = Context::new(
            self.cx.run.clone(),
            Arc::clone(self.cx.events()),
            tokio_util::sync::CancellationToken::new(),
        );
        let cx = if begun { &calm } else { self.cx };
        let limit = self.left_to_end().max(PROMOTE_AT_LEAST);
        let store = &self.service.store;
        let ask = &request;
        let settled = self
            .engine
            .within(cx, limit, "putting the restored data in place", |cx| async move {
                store.settle(&cx, ask).await
            })
            .await
            .map_err(|error| Failure {
                stage: Stage::Promote,
                error: error.report(),
                target: true,
                stood_still: false,
            })?;
        slot.staged = None;
        self.step(
            "promoted",
            format!("{} to its state of {}", slot.target.dataset, point.taken_at),
        );
        Ok(settled)
    }

    /// A promotion that failed after the data stood at its place (S12), say at the marker, has done what it was for: a service
    /// that is kept from starting by that is no better off. What is missing is told, and the next run does it.
    async fn stands(
        &mut self,
        slot: &mut Slot,
        point: &RecoveryPoint,
        failure: Failure,
    ) -> Result<Settled, Failure> {
        if !matches!(failure.error.effect, Effect::Partial | Effect::Unknown) {
            return Err(failure);
        }
        let store = &self.service.store;
        let ask = std::slice::from_ref(&slot.target);
        let limit = self.left_to_end();
        let looked = self
            .engine
            .within(self.cx, limit, "looking at what stands there", |cx| async move {
                store.inspect(&cx, ask).await
            })
            .await;
        let this = |found: &Inspection| {
            let staged = found.leftover.as_ref().is_some_and(|leftover| {
                leftover.promoted && leftover.source == point.source && leftover.point.id == point.id
            });
            let marked = found.marker.as_ref().is_some_and(|marker| {
                let state = &self.restored_marker(point).state;
                marker.run == self.cx.run && marker.state == *state
            });
            found.condition == Condition::Populated && (staged || marked)
        };
        let found = looked.ok().and_then(|found| found.into_iter().next());
        let stands = found.filter(this);
        let Some(found) = stands else { return Err(failure) };
        slot.staged = None;
        let more = failure.error.hint.as_ref();
        let message = format!(
            "{} is back and live; what comes after that failed: {}{}",
            slot.target.dataset,
            failure.error,
            more.map_or(String::new(), |hint| format!(" ({hint})"))
        );
        self.warn(
            message,
            Some("the next `reseed preseed` does the rest".to_owned()),
        );
        Ok(Settled {
            guid: found.guid,
            ..Settled::default()
        })
    }

    pub(super) async fn settle(&self, request: &Settle, what: &str) -> Result<Settled, StoreError> {
        let limit = match request {
            // Tidying up must not eat the time of the sources that come next.
            Settle::Quarantine { .. } | Settle::Discard { .. } | Settle::DiscardLeftover { .. } => self
                .share(self.service.policy.source_budget, None)
                .min(self.left_to_end()),
            _ => self.left_to_end(),
        };
        self.settle_within(request, what, limit).await
    }

    async fn settle_within(
        &self,
        request: &Settle,
        what: &str,
        limit: Duration,
    ) -> Result<Settled, StoreError> {
        let store = &self.service.store;
        self.engine
            .within(self.cx, limit, what, |cx| async move {
                store.settle(&cx, request).await
            })
            .await
    }

    fn warn_about(&mut self, candidate: &Candidate) {
        if candidate.points.iter().any(|p| p.partial) {
            self.warn(
                "the restored point was taken with unreadable files: it is not complete".to_owned(),
                None,
            );
        }
        let is_compared = self.service.policy.verify == Verify::Digest;
        let untold = |p: &RecoveryPoint| p.altered && !(is_compared && p.fingerprint.is_some());
        if candidate.points.iter().any(untold) {
            self.warn(ALTERED.to_owned(), None);
        }
        if candidate.taken_at() > self.engine.clock.now() {
            self.warn(
                format!(
                    "the restored point is dated {}, which is yet to come: by a clock that was wrong, then or now, it passes for the newest",
                    candidate.taken_at()
                ),
                Some(format!(
                    "`reseed status {}` shows what else there is, and `reseed restore --at` gets at it",
                    self.service.name
                )),
            );
        }
        if candidate.is_unseeded() {
            self.warn(
                "the restored point was taken after a start without data; older ones were not usable, and the service stays unseeded"
                    .to_owned(),
                Some(format!(
                    "if it is the service's data after all, `reseed adopt {}`",
                    self.service.name
                )),
            );
        }
    }
}
