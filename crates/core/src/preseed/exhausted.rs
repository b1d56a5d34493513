//! The end of a chain that delivered nothing.
//!
//! "Nothing exists" and "could not ask" are different ends: the first is an ordinary first start, the second leaves the
//! service unseeded, and then nothing may age out what its sources still hold.

use std::time::Duration;

use super::Candidate;
use super::probe::Probe;
use super::report::{Attempt, Outcome, Stage};
use super::walk::Walk;
use crate::context::Context;
use crate::engine::Engine;
use crate::error::{Common, Kind as _, SourceKind, StoreError, StoreKind};
use crate::journal::{Entry, ServiceRecord};
use crate::names::{HoldTag, SourceName};
use crate::point::{MarkerState, Snapshot, Target};
use crate::service::{Service, WhenExhausted};
use crate::store::{HoldChange, Inspection, Settle};

/// The hold that keeps the last good snapshots of a service while it is unseeded.
pub(crate) const UNSEEDED_HOLD: &str = "reseed-unseeded";

impl Walk<'_> {
    pub(super) async fn exhausted(&mut self, probes: &[Probe], targets: &[&Target]) -> Outcome {
        if self.cx.cancel.is_cancelled() {
            return Outcome::Interrupted;
        }
        if let Some(error) = self.target_failure.take() {
            return Outcome::Failed { error };
        }
        if let Some(held) = self.held_for_slow() {
            return held;
        }
        let nothing_exists = probes
            .iter()
            .all(|probe| matches!(&probe.answer, Ok(points) if points.is_empty()));
        if nothing_exists {
            if probes.is_empty() {
                self.warn(
                    "no source is declared, so nothing could be restored".to_owned(),
                    None,
                );
            }
            return match self.start_empty(targets, MarkerState::FirstStart).await {
                Ok(()) => Outcome::FirstStart,
                Err(error) => Outcome::Failed {
                    error: error.report(),
                },
            };
        }
        let why = self.reasons();
        let groups = self.groups(probes, targets);
        if probes.iter().any(Probe::holds_points) && groups.iter().flatten().all(Candidate::is_damaged) {
            // A dataset that was added to the service has no past that the others could share.
            let advice = match probes.iter().all(|probe| probe.answer.is_ok()) {
                true => of_no_state(self.service),
                false => "What could not be asked may have all of it: bring that back first".to_owned(),
            };
            return Outcome::Held {
                why: format!("{why}. {advice}"),
            };
        }
        let busy = |attempt: &Attempt| {
            let error = attempt.error.as_ref();
            let kinds = [SourceKind::Locked.name(), Common::Busy.name()];
            error.is_some_and(|error| kinds.contains(&error.kind.as_str()))
        };
        // What a source said last of a state counts.
        let last = |(nth, attempt): &(usize, &Attempt)| {
            !self.attempts[nth + 1..].iter().any(|later| {
                later.source == attempt.source
                    && (attempt.points.is_empty() || later.points == attempt.points)
            })
        };
        let mut last_words = self.attempts.iter().enumerate().filter(last);
        if let Some((_, busy)) = last_words.find(|(_, attempt)| busy(attempt)) {
            // Somebody is at it, a prune of ours for one, and will be done.
            let name = &busy.source;
            return Outcome::Held {
                why: format!("{why}. {name} is in use, and can be asked again when that is over"),
            };
        }
        if self.service.policy.when_exhausted == WhenExhausted::Hold {
            return Outcome::Held { why };
        }
        // Before the marker: from here on the last good points must not age out, whatever happens next.
        self.hold_last_good(targets).await;
        match self
            .start_empty(targets, MarkerState::Unseeded { why: why.clone() })
            .await
        {
            Ok(()) => Outcome::StartedEmpty { why },
            Err(error) => Outcome::Failed {
                error: error.report(),
            },
        }
    }

    async fn start_empty(&mut self, targets: &[&Target], state: MarkerState) -> Result<(), StoreError> {
        for target in targets {
            let request = Settle::StartEmpty {
                target: (*target).clone(),
                marker: self.marker(state.clone()),
            };
            self.settle(&request, "starting without data").await?;
        }
        Ok(())
    }

    async fn hold_last_good(&mut self, targets: &[&Target]) {
        if !self.service.store.caps().holds {
            return;
        }
        let targets: Vec<Target> = targets.iter().map(|t| (*t).clone()).collect();
        let store = &self.service.store;
        let now = self.engine.clock.now();
        let hold = self.engine.within(
            self.cx,
            self.left_to_end(),
            "holding the last good snapshots",
            |cx| async move {
                let tag = unseeded_hold()?;
                let snapshots = store.list(&cx, &targets).await?;
                // By the store's order, and by their dates: where that order is by date, one of a wrong clock comes last.
                let last = |target: &Target| {
                    let good = |s: &&Snapshot| s.dataset == target.dataset && !s.unseeded;
                    let by_date = snapshots.iter().filter(good);
                    let by_date = by_date.max_by_key(|s| (s.taken_at <= now, s.taken_at));
                    let mut both: Vec<_> = snapshots.iter().rev().find(good).into_iter().collect();
                    both.extend(by_date.filter(|by_date| both.iter().all(|last| last.guid != by_date.guid)));
                    both.into_iter().map(Snapshot::reference).collect::<Vec<_>>()
                };
                let last: Vec<_> = targets.iter().flat_map(last).collect();
                store.hold(&cx, &last, &tag, HoldChange::Add).await
            },
        );
        if let Err(error) = hold.await {
            // The unseeded marker guards them too; the hold is for other tools that prune.
            self.warn(
                format!("the last good snapshots could not be held: {error}"),
                None,
            );
        }
    }

    /// Lets go of what the unseeded guard held: the data is back. A state that was taken while the service was unseeded is not that.
    /// Whether nothing is held any more.
    pub(crate) async fn release_last_good(&mut self) -> bool {
        let restored = self.done.iter().flat_map(|(_, datasets)| datasets);
        if restored.clone().any(|one| one.unseeded) {
            let targets: Vec<&Target> = self.service.targets.iter().collect();
            self.hold_last_good(&targets).await;
            return false;
        }
        let limit = self.left_to_end();
        let release = release_unseeded_hold(self.engine, self.cx, self.service, limit);
        if let Err(error) = release.await {
            self.warn(
                format!("the hold of the unseeded guard could not be released: {error}"),
                None,
            );
            return false;
        }
        true
    }

    /// The data is there, and was put there, or adopted, after the journal last heard that the service is unseeded: whoever did it came to
    /// no end of it. So it does now, or nothing would ever age out again, and each new point would pass for one of an unseeded service.
    pub(super) async fn is_seeded_again(&mut self, inspections: &[Inspection]) {
        let marked = |inspection: &Inspection| {
            let marker = inspection
                .marker
                .as_ref()
                .filter(|marker| !marker.is_unseeded())?;
            let is_word = matches!(marker.state, MarkerState::Restored { .. } | MarkerState::Adopted);
            is_word.then_some(marker.at)
        };
        let Some(Some(since)) = inspections.iter().map(marked).min() else {
            return;
        };
        let known = self.engine.journal.service(&self.service.name);
        let Ok(Some(known)) = known else { return };
        if known.unseeded.is_none() || known.since > since {
            return;
        }
        // The next run tries again.
        if !self.release_last_good().await {
            return;
        }
        let record = ServiceRecord::seeded(self.service.name.clone(), self.engine.clock.now());
        self.engine.journal.write(vec![Entry::Service(record)]);
    }

    /// Every source with why it didn't deliver.
    pub(crate) fn reasons(&self) -> String {
        let mut reasons: Vec<(SourceName, String)> = Vec::new();
        for attempt in &self.attempts {
            let words = match (&attempt.error, attempt.stage) {
                (Some(error), _) => error.to_string(),
                (None, Stage::NoPoint) => "holds no recovery point".to_owned(),
                (None, _) => continue,
            };
            match reasons.iter_mut().find(|(source, _)| *source == attempt.source) {
                Some((_, last)) => *last = words,
                None => reasons.push((attempt.source.clone(), words)),
            }
        }
        reasons
            .iter()
            .map(|(source, words)| format!("{source}: {words}"))
            .collect::<Vec<_>>()
            .join("; ")
    }
}

/// What to do where sources have points, and none of a state that all datasets were in together.
pub(crate) fn of_no_state(service: &Service) -> String {
    format!(
        "If a dataset was added to {0} since then, take it out of the configuration, `reseed restore {0}`, and put it back",
        service.name
    )
}

/// Releases what the unseeded guard holds on a service's store.
pub(crate) async fn release_unseeded_hold(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    limit: Duration,
) -> Result<(), StoreError> {
    let (store, targets) = (&service.store, &service.targets);
    if !store.caps().holds {
        return Ok(());
    }
    let work = engine.within(cx, limit, "releasing the unseeded hold", |cx| async move {
        let tag = unseeded_hold()?;
        let held = store.list(&cx, targets).await?;
        let held: Vec<_> = held
            .iter()
            .filter(|s| s.holds.contains(&tag))
            .map(|s| s.reference())
            .collect();
        if held.is_empty() {
            return Ok(());
        }
        store.hold(&cx, &held, &tag, HoldChange::Release).await
    });
    work.await
}

fn unseeded_hold() -> Result<HoldTag, StoreError> {
    HoldTag::new(UNSEEDED_HOLD).map_err(|e| StoreError::new(StoreKind::InvalidInput, e.to_string()))
}
