//! The walk along a service's chain: probe every source, try candidates in order, end in words.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::probe::{Probe, probe_all};
use super::report::{Attempt, Outcome, ServiceReport, Stage};
use super::restore::{Slot, Tried};
use super::slow::Unfinished;
use super::{BY_AGE, Candidate, Decision, decide, group, order, passed_over, several};
use crate::context::Context;
use crate::engine::{Engine, GRACE};
use crate::error::{ErrorReport, SourceError, SourceKind};
use crate::event::Event;
use crate::journal::RunKind;
use crate::names::{PointId, SourceName};
use crate::point::{Marker, MarkerState, RecoveryPoint, Target};
use crate::retry;
use crate::service::{Prefer, Service};
use crate::store::{Inspection, Leftover, Replace};

/// One service's preseed while it runs.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    pub(super) engine: &'a Engine,
    pub(super) cx: &'a Context,
    pub(super) service: &'a Service,
    began: Duration,
    started_at: Timestamp,
    pub(super) attempts: Vec<Attempt>,
    pub(super) warnings: Vec<String>,
    pub(super) verified: BTreeSet<String>,
    pub(crate) done: Option<(SourceName, Vec<super::DatasetReport>)>,
    /// The first failure that was the target's fault, so that no source could have helped.
    pub(super) target_failure: Option<ErrorReport>,
    /// The first source that was not done in time.
    pub(super) unfinished: Option<Unfinished>,
    /// What the first source that stood still is to deliver.
    pub(super) stuck: Option<Candidate>,
    /// Only some of the datasets were missing.
    pub(super) in_part: bool,
    /// It has finished what an earlier run began to put in place.
    pub(super) finished: bool,
}

impl<'a> Walk<'a> {
    pub(crate) fn begin(engine: &'a Engine, cx: &'a Context, service: &'a Service, began: Duration) -> Self {
        Self {
            engine,
            cx,
            service,
            began,
            started_at: engine.clock.now(),
            attempts: Vec::new(),
            warnings: Vec::new(),
            verified: BTreeSet::new(),
            done: None,
            target_failure: None,
            unfinished: None,
            stuck: None,
            in_part: false,
            finished: false,
        }
    }

    /// The report; and where an earlier run was finished, how long there is for what that run hadn't come to: to
    /// [make it the newest](crate::ops::make_newest), for somebody may have gone back to it.
    pub(crate) async fn preseed(
        mut self,
        inspections: Result<Vec<Inspection>, String>,
    ) -> (ServiceReport, Option<Duration>) {
        self.cx.emit(Event::ServiceStarted {
            service: self.service.name.clone(),
            operation: "preseed".to_owned(),
        });
        let mut present = Vec::new();
        let outcome = match inspections {
            Ok(inspections) => {
                let outcome = self.run(&inspections).await;
                let finished = inspections
                    .iter()
                    .any(|i| i.leftover.as_ref().is_some_and(|left| left.promoted));
                present = match finished && outcome == Outcome::DataPresent {
                    // Its marker was written just now.
                    true => self.inspect(&inspections).await.unwrap_or_default(),
                    false => inspections,
                };
                outcome
            }
            Err(why) => Outcome::Blocked {
                why: format!("the targets could not be inspected: {why}"),
                hint: "not knowing is not the same as missing, so nothing is restored".to_owned(),
            },
        };
        match outcome {
            Outcome::Restored => drop(self.release_last_good().await),
            Outcome::DataPresent => self.is_seeded_again(&present).await,
            _ => {}
        }
        // Of a look at what stands there, and of the snapshot.
        let left = self.finished.then(|| self.left_to_end() / 2);
        let report = self.into_report(outcome);
        let is_there = [Outcome::DataPresent, Outcome::Restored].contains(&report.outcome);
        (report, left.filter(|_| is_there))
    }

    async fn run(&mut self, inspections: &[Inspection]) -> Outcome {
        self.finished = self.finish_promotions(inspections).await;
        let finished = self.look_at_finished(inspections).await;
        let inspections = finished.as_deref().unwrap_or(inspections);
        match decide(inspections) {
            Decision::Present => {
                if let Some(outcome) = several::cut_off(&self.service.name, inspections) {
                    return outcome;
                }
                self.cx.emit(Event::DataPresent {
                    service: self.service.name.clone(),
                });
                self.discard_leftovers(inspections).await;
                Outcome::DataPresent
            }
            Decision::Blocked { why, hint } => Outcome::Blocked { why, hint },
            Decision::RestoreAll { missing } => {
                super::record_begin(self.engine, self.cx, self.service, RunKind::Preseed);
                let mut slots = slots(inspections, &missing);
                let leftover = slots.iter().find_map(|slot| slot.leftover.clone());
                self.walk(&mut slots, leftover.as_ref()).await
            }
            Decision::RestoreSome { missing } => {
                super::record_begin(self.engine, self.cx, self.service, RunKind::Preseed);
                self.restore_some(inspections, &missing).await
            }
        }
    }

    /// Probes, then tries the candidates until one is in place.
    async fn walk(&mut self, slots: &mut [Slot], leftover: Option<&Leftover>) -> Outcome {
        let targets: Vec<Target> = slots.iter().map(|slot| slot.target.clone()).collect();
        let targets: Vec<&Target> = targets.iter().collect();
        let policy = &self.service.policy;
        let mut probes = probe_all(
            self.engine,
            self.cx,
            self.service,
            &targets,
            self.share(policy.probe_budget, None),
        )
        .await;
        let mut tried = BTreeSet::new();

        if let Some(leftover) = leftover {
            // A source before it may only have been busy, and hold something newer.
            let before = match policy.prefer {
                Prefer::Newest => probes.len(),
                Prefer::Chain => self
                    .service
                    .sources
                    .iter()
                    .position(|s| *s.name() == leftover.source)
                    .unwrap_or(0),
            };
            for (index, probe) in probes.iter_mut().enumerate().take(before) {
                if probe.answer.is_err() {
                    self.settle_probe(probe, index, &targets).await;
                }
            }
        }
        let settled: Vec<bool> = probes
            .iter()
            .enumerate()
            .map(|(index, probe)| self.is_settled(index, probe))
            .collect();
        if leftover.is_some() {
            let known = order(self.groups(&probes, &targets), policy.prefer, leftover);
            if let (Some(first), Some(leftover)) = (known.first(), leftover)
                && first
                    .points
                    .iter()
                    .any(|p| p.source == leftover.source && p.id == leftover.point.id)
                && let Some(outcome) = self.try_one(first, slots, &mut tried).await
            {
                return outcome;
            }
        }
        for index in 0..self.service.sources.len() {
            if !settled[index] {
                self.settle_probe(&mut probes[index], index, &targets).await;
            }
            if self.cx.cancel.is_cancelled() {
                return Outcome::Interrupted;
            }
            if policy.prefer == Prefer::Newest {
                continue;
            }
            let groups = self.groups(&probes, &targets);
            if let Some(best) = groups[index].first()
                && best.rank() == 0
            {
                let bests = groups.iter().flat_map(|group| group.first());
                if let Some(message) = passed_over(self.service, best, bests) {
                    self.warn(message, Some(BY_AGE.to_owned()));
                }
                if let Some(outcome) = self.try_one(best, slots, &mut tried).await {
                    return outcome;
                }
            }
        }
        if let Some(outcome) = self.try_in_order(&probes, &targets, slots, &mut tried).await {
            return outcome;
        }
        let was_stuck = self.stuck.is_some();
        if let Some(outcome) = self.ask_stuck_again(slots).await {
            return outcome;
        }
        if was_stuck
            && self.unfinished.is_none()
            && let Some(outcome) = self.try_in_order(&probes, &targets, slots, &mut tried).await
        {
            // Who stood still had something damaged, and may have something older.
            return outcome;
        }
        self.look_what_is_kept(slots).await;
        self.exhausted(&probes, &targets).await
    }

    /// Tries every state of every source that wasn't tried, in their order.
    async fn try_in_order(
        &mut self,
        probes: &[Probe],
        targets: &[&Target],
        slots: &mut [Slot],
        tried: &mut BTreeSet<(usize, Vec<(PointId, String)>)>,
    ) -> Option<Outcome> {
        for candidate in order(self.groups(probes, targets), self.service.policy.prefer, None) {
            // A slow source is as slow with an older state of it.
            if self
                .unfinished
                .as_ref()
                .is_some_and(|slow| slow.candidate.source == candidate.source)
            {
                continue;
            }
            if self.left().is_zero() {
                let name = self.service.sources[candidate.source].name().clone();
                let known = self.attempts.iter().any(|attempt| attempt.source == name);
                let what = if known {
                    "its older states were not tried: the time was up"
                } else {
                    "it was not tried: the time was up"
                };
                let error = SourceError::new(SourceKind::TimedOut, what).report();
                if !known {
                    let ids = candidate.points.iter().map(|point| point.id.clone()).collect();
                    self.record(name, ids, 1, Stage::Plan, Some(error.clone()), 0.0);
                }
                self.is_unfinished(&candidate, error, None);
                continue;
            }
            if let Some(outcome) = self.try_one(&candidate, slots, tried).await {
                return Some(outcome);
            }
        }
        None
    }

    /// The candidates of each source, best first.
    pub(super) fn groups(&self, probes: &[Probe], targets: &[&Target]) -> Vec<Vec<Candidate>> {
        let list = |(index, probe): (usize, &Probe)| match &probe.answer {
            Ok(points) => group(index, targets, points),
            Err(_) => Vec::new(),
        };
        probes.iter().enumerate().map(list).collect()
    }

    /// Tries one candidate, once. An outcome ends the walk.
    pub(super) async fn try_one(
        &mut self,
        candidate: &Candidate,
        slots: &mut [Slot],
        tried: &mut BTreeSet<(usize, Vec<(PointId, String)>)>,
    ) -> Option<Outcome> {
        // What was brought stays, and nothing takes its place.
        if self
            .unfinished
            .as_ref()
            .is_some_and(|slow| slow.brought.is_some())
        {
            return None;
        }
        // Two copies of one state have one id.
        let copy = |point: &RecoveryPoint| (point.id.clone(), point.locator.clone());
        if !tried.insert((candidate.source, candidate.points.iter().map(copy).collect())) {
            return None;
        }
        match self.restore(candidate, slots).await {
            Tried::Restored => Some(Outcome::Restored),
            Tried::Failed => None,
            Tried::Stop(outcome) => Some(outcome),
        }
    }

    /// Emptiness that was adopted once stays so, or the next run would take it for data that is missing.
    pub(super) fn restored_marker(&self, point: &RecoveryPoint) -> Marker {
        if point.is_of_nothing() && !point.unseeded {
            return self.marker(MarkerState::Adopted);
        }
        self.marker(MarkerState::Restored {
            source: point.source.clone(),
            point: point.id.clone(),
            taken_at: point.taken_at,
            unseeded: point.unseeded,
        })
    }

    pub(super) fn marker(&self, state: MarkerState) -> Marker {
        Marker {
            run: self.cx.run.clone(),
            at: self.engine.clock.now(),
            state,
        }
    }

    /// Time left for trying sources. What comes after the walk (marking, reporting, ending what hangs) has its own share.
    pub(super) fn left(&self) -> Duration {
        let budget = self.service.policy.budget;
        let reserve = (GRACE * 6).min(budget * 2 / 3);
        (budget - reserve).saturating_sub(self.engine.clock.monotonic() - self.began)
    }

    /// Time left altogether, less what ending a hanging call may take.
    pub(super) fn left_to_end(&self) -> Duration {
        let used = self.engine.clock.monotonic() - self.began;
        self.service
            .policy
            .budget
            .saturating_sub(used)
            .saturating_sub(GRACE)
    }

    /// A limit for one source that leaves as much for each source that was not tried yet.
    pub(super) fn share(&self, wanted: Duration, source: Option<&SourceName>) -> Duration {
        let tried =
            |name: &SourceName| self.attempts.iter().any(|a| a.source == *name) || source == Some(name);
        let untried = self.service.sources.iter().filter(|s| !tried(s.name())).count();
        wanted.min(self.left() / u32::try_from(untried + 1).unwrap_or(u32::MAX))
    }

    /// The pauses between the tries of one source.
    pub(super) fn delays(&self) -> retry::Delays<'a> {
        let policy = retry::Policy {
            tries: self.service.policy.tries,
            first: Duration::from_secs(2),
            cap: Duration::from_secs(60),
            ..retry::Policy::default()
        };
        policy.delays(self.engine.entropy.as_ref())
    }

    /// Waits; fails when the run is cancelled meanwhile.
    pub(super) async fn pause(&self, delay: Duration) -> Result<(), ()> {
        tokio::select! {
            biased;
            () = self.cx.cancel.cancelled() => Err(()),
            () = self.engine.clock.sleep(delay) => Ok(()),
        }
    }

    pub(super) fn record(
        &mut self,
        source: SourceName,
        points: Vec<PointId>,
        number: u32,
        stage: Stage,
        error: Option<ErrorReport>,
        seconds: f64,
    ) {
        self.attempts.push(Attempt {
            source,
            points,
            number,
            stage,
            error,
            seconds,
        });
    }

    pub(super) fn failed(&self, source: &SourceName, error: &ErrorReport, retry_in: Option<Duration>) {
        self.cx.emit(Event::AttemptFailed {
            service: self.service.name.clone(),
            source: source.clone(),
            error: error.clone(),
            retry_in: retry_in.map(|d| d.as_secs_f64()),
        });
    }

    pub(super) fn step(&self, step: &str, detail: String) {
        self.cx.emit(Event::Step {
            service: self.service.name.clone(),
            step: step.to_owned(),
            detail,
        });
    }

    pub(super) fn warn(&mut self, message: String, hint: Option<String>) {
        self.cx.emit(Event::Warning {
            service: Some(self.service.name.clone()),
            message: message.clone(),
            hint,
        });
        self.warnings.push(message);
    }

    pub(crate) fn into_report(self, outcome: Outcome) -> ServiceReport {
        let seconds = (self.engine.clock.monotonic() - self.began).as_secs_f64();
        // Ended from outside is not failed, whatever the last call said.
        let outcome = if self.cx.cancel.is_cancelled() && !outcome.may_start() {
            Outcome::Interrupted
        } else {
            outcome
        };
        let (source, datasets) = match self.done {
            Some((source, datasets)) => (Some(source), datasets),
            None => (None, Vec::new()),
        };
        let report = ServiceReport {
            run: self.cx.run.clone(),
            service: self.service.name.clone(),
            outcome,
            source,
            datasets,
            attempts: self.attempts,
            verified: self.verified.into_iter().collect(),
            warnings: self.warnings,
            started_at: self.started_at,
            seconds,
            in_part: self.in_part,
        };
        self.cx.emit(Event::ServiceFinished {
            service: report.service.clone(),
            summary: report.summary(),
            ok: report.outcome.may_start(),
            seconds,
        });
        report
    }
}

pub(super) fn slots(inspections: &[Inspection], missing: &[usize]) -> Vec<Slot> {
    let slot = |index: &usize| Slot {
        target: inspections[*index].target.clone(),
        leftover: inspections[*index].staged().cloned(),
        staged: None,
        replace: Replace::OnlyEmpty,
    };
    missing.iter().map(slot).collect()
}
