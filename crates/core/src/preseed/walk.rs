//! The walk along a service's chain: probe every source, try candidates in order, end in words.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;

use super::report::{Attempt, Outcome, ServiceReport, Stage};
use super::restore::{Slot, Tried};
use super::{Candidate, Decision, decide, group, order};
use crate::context::Context;
use crate::engine::{Engine, GRACE};
use crate::error::{ErrorReport, Retry, SourceError, SourceKind};
use crate::event::Event;
use crate::journal::RunKind;
use crate::names::{PointId, SourceName};
use crate::point::{Marker, MarkerState, RecoveryPoint, Target};
use crate::retry;
use crate::service::{Prefer, Service};
use crate::store::{Condition, Inspection, Leftover, Replace, Settle};

/// What one source answered.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    /// Its points, or why it didn't answer.
    pub(crate) answer: Result<Vec<RecoveryPoint>, ErrorReport>,
    /// How long it took.
    pub(crate) seconds: f64,
    tries: u32,
}

/// Asks every source of a service at once, each inside its own time budget.
pub(crate) async fn probe_all(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    targets: &[&Target],
    limit: Duration,
) -> Vec<Probe> {
    join_all((0..service.sources.len()).map(|index| probe_one(engine, cx, service, index, targets, limit, 1)))
        .await
}

async fn probe_one(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    index: usize,
    targets: &[&Target],
    limit: Duration,
    tries: u32,
) -> Probe {
    let source = &service.sources[index];
    let began = engine.clock.monotonic();
    let what = format!("asking {} for recovery points", source.name());
    let answer = engine
        .within(cx, limit, &what, |cx| async move {
            let mut points = Vec::new();
            for target in targets {
                points.extend(source.points(&cx, target).await?);
            }
            Ok(points)
        })
        .await
        .map_err(|error| error.report());
    Probe {
        answer,
        seconds: (engine.clock.monotonic() - began).as_secs_f64(),
        tries,
    }
}

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
    /// A source that was still delivering when its time was up, with what was said of it. What it brought is kept.
    pub(super) unfinished: Option<(usize, ErrorReport)>,
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
        }
    }

    pub(crate) async fn preseed(mut self, inspections: Result<Vec<Inspection>, String>) -> ServiceReport {
        self.cx.emit(Event::ServiceStarted {
            service: self.service.name.clone(),
            operation: "preseed".to_owned(),
        });
        let outcome = match inspections {
            Ok(inspections) => self.run(&inspections).await,
            Err(why) => Outcome::Blocked {
                why: format!("the targets could not be inspected: {why}"),
                hint: "not knowing is not the same as missing, so nothing is restored".to_owned(),
            },
        };
        if outcome == Outcome::Restored {
            self.release_last_good().await;
        }
        self.into_report(outcome)
    }

    async fn run(&mut self, inspections: &[Inspection]) -> Outcome {
        self.finish_promotions(inspections).await;
        match decide(inspections) {
            Decision::Present => {
                if let Some(outcome) = self.cut_off(inspections) {
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

    /// A restore in place of several datasets that was cut off between two of them: all hold data, of two moments.
    fn cut_off(&self, inspections: &[Inspection]) -> Option<Outcome> {
        let left = inspections.iter().find_map(|inspection| {
            let leftover = inspection.leftover.as_ref().filter(|l| !l.promoted)?;
            let state = (leftover.source.clone(), leftover.point.taken_at);
            let other = |i: &&Inspection| i.target != inspection.target && anchor(i).as_ref() == Some(&state);
            inspections
                .iter()
                .find(other)
                .map(|other| (inspection, other, state.1))
        });
        let (behind, ahead, taken_at) = left?;
        Some(Outcome::Blocked {
            why: format!(
                "a restore was cut off: {} is at its state of {taken_at}, and {} is not yet",
                ahead.target.dataset, behind.target.dataset
            ),
            hint: format!(
                "`reseed restore {} --at {taken_at} --set-aside` finishes it",
                self.service.name
            ),
        })
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
                && !best.is_unseeded()
            {
                self.warn_of_newer(best, &groups);
                if let Some(outcome) = self.try_one(best, slots, &mut tried).await {
                    return outcome;
                }
            }
        }
        for candidate in order(self.groups(&probes, &targets), policy.prefer, None) {
            // What a slow source brought so far is worth more than an older state of it.
            if self
                .unfinished
                .as_ref()
                .is_some_and(|(source, _)| *source == candidate.source)
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
                self.unfinished.get_or_insert((candidate.source, error));
                continue;
            }
            if let Some(outcome) = self.try_one(&candidate, slots, &mut tried).await {
                return outcome;
            }
        }
        self.exhausted(&probes, &targets).await
    }

    /// Whether a source's failure to answer is already recorded.
    fn is_settled(&self, index: usize, probe: &Probe) -> bool {
        let name = self.service.sources[index].name();
        probe.answer.is_err()
            && self
                .attempts
                .iter()
                .any(|a| a.source == *name && a.stage == Stage::Probe)
    }

    /// Says what going by the chain's order loses against a source further on.
    fn warn_of_newer(&mut self, best: &Candidate, groups: &[Vec<Candidate>]) {
        const WORTH_SAYING: i64 = 3600;
        let newer = groups
            .iter()
            .flat_map(|g| g.first())
            .filter(|c| !c.is_unseeded())
            .max_by_key(|c| c.taken_at());
        if let Some(newer) = newer
            && newer.taken_at().as_second() - best.taken_at().as_second() > WORTH_SAYING
        {
            let (here, there) = (
                self.service.sources[best.source].name().clone(),
                self.service.sources[newer.source].name().clone(),
            );
            let message = format!(
                "{here} has a state of {}, and {there} one of {}, which the chain's order passes over",
                best.taken_at(),
                newer.taken_at()
            );
            self.warn(message, Some("`prefer = \"newest\"` goes by age".to_owned()));
        }
    }

    /// The candidates of each source, best first.
    fn groups(&self, probes: &[Probe], targets: &[&Target]) -> Vec<Vec<Candidate>> {
        let list = |(index, probe): (usize, &Probe)| match &probe.answer {
            Ok(points) => group(index, targets, points),
            Err(_) => Vec::new(),
        };
        probes.iter().enumerate().map(list).collect()
    }

    /// Asks a source again that failed in a way that may pass, then records what came of it.
    async fn settle_probe(&mut self, probe: &mut Probe, index: usize, targets: &[&Target]) {
        let mut delays = self.delays();
        loop {
            let source = self.service.sources[index].name().clone();
            let error = match &probe.answer {
                Err(error) => error.clone(),
                Ok(points) if points.is_empty() => {
                    self.record(
                        source,
                        Vec::new(),
                        probe.tries,
                        Stage::NoPoint,
                        None,
                        probe.seconds,
                    );
                    return;
                }
                Ok(points) if group(index, targets, points).is_empty() => {
                    // Of these datasets together it has nothing, which is a reason to be told like any other.
                    let what = "it holds recovery points, and no state that all datasets were in together";
                    let error = SourceError::new(SourceKind::NoSuchPoint, what).report();
                    self.record(
                        source,
                        Vec::new(),
                        probe.tries,
                        Stage::NoPoint,
                        Some(error),
                        probe.seconds,
                    );
                    return;
                }
                Ok(_) => return,
            };
            let again = error.retry == Retry::Later && !self.cx.cancel.is_cancelled();
            let delay = if again {
                delays.next().filter(|delay| *delay < self.left())
            } else {
                None
            };
            self.failed(&source, &error, delay);
            self.record(
                source.clone(),
                Vec::new(),
                probe.tries,
                Stage::Probe,
                Some(error),
                probe.seconds,
            );
            let Some(delay) = delay else { return };
            if self.pause(delay).await.is_err() {
                return;
            }
            let limit = self.share(self.service.policy.probe_budget, Some(&source));
            *probe = probe_one(
                self.engine,
                self.cx,
                self.service,
                index,
                targets,
                limit,
                probe.tries + 1,
            )
            .await;
        }
    }

    /// Tries one candidate, once. An outcome ends the walk.
    async fn try_one(
        &mut self,
        candidate: &Candidate,
        slots: &mut [Slot],
        tried: &mut BTreeSet<(usize, Vec<PointId>)>,
    ) -> Option<Outcome> {
        if !tried.insert((
            candidate.source,
            candidate.points.iter().map(|p| p.id.clone()).collect(),
        )) {
            return None;
        }
        match self.restore(candidate, slots).await {
            Tried::Restored => Some(Outcome::Restored),
            Tried::Failed => None,
            Tried::Stop(outcome) => Some(outcome),
        }
    }

    /// Some of the service's datasets hold data and others are missing.
    ///
    /// Datasets of one service belong to one moment, so a missing one is restored beside one that is there only to finish
    /// an earlier run, which had verified all of them before it promoted the first.
    async fn restore_some(&mut self, inspections: &[Inspection], missing: &[usize]) -> Outcome {
        let mut slots = slots(inspections, missing);
        let anchor = inspections
            .iter()
            .filter(|i| i.condition == Condition::Populated)
            .find_map(anchor);
        let leftover = slots.iter().find_map(|slot| slot.leftover.clone());
        if let (Some((source, taken_at)), Some(leftover)) = (&anchor, &leftover)
            && leftover.source == *source
            && leftover.point.taken_at == *taken_at
        {
            return self.finish_group(&mut slots, *taken_at, source).await;
        }
        let targets: Vec<&Target> = slots.iter().map(|slot| &slot.target).collect();
        let limit = self.share(self.service.policy.probe_budget, None);
        let mut probes = probe_all(self.engine, self.cx, self.service, &targets, limit).await;
        let never_existed = probes
            .iter()
            .all(|probe| matches!(&probe.answer, Ok(points) if points.is_empty()));
        if never_existed {
            let targets: Vec<Target> = targets.into_iter().cloned().collect();
            let targets: Vec<&Target> = targets.iter().collect();
            for (index, probe) in probes.iter_mut().enumerate() {
                self.settle_probe(probe, index, &targets).await;
            }
            return self.exhausted(&probes, &targets).await;
        }
        let names = |wanted: bool| -> String {
            let list = inspections
                .iter()
                .enumerate()
                .filter(|(index, _)| missing.contains(index) == wanted);
            list.map(|(_, i)| i.target.dataset.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        Outcome::Blocked {
            why: format!(
                "{} is missing while {} holds data, and putting back only a part could mix two moments",
                names(true),
                names(false)
            ),
            hint: format!(
                "`reseed restore {0} --set-aside` puts all of {0} back at one point and keeps what is there under another name",
                self.service.name
            ),
        }
    }

    /// Goes on with the point that the other datasets of the service were restored to.
    async fn finish_group(
        &mut self,
        slots: &mut [Slot],
        taken_at: Timestamp,
        source: &SourceName,
    ) -> Outcome {
        let targets: Vec<Target> = slots.iter().map(|slot| slot.target.clone()).collect();
        let targets: Vec<&Target> = targets.iter().collect();
        let limit = self.share(self.service.policy.probe_budget, None);
        let mut probes = probe_all(self.engine, self.cx, self.service, &targets, limit).await;
        let mut tried = BTreeSet::new();
        let first = self.service.sources.iter().position(|s| s.name() == source);
        let mut indices: Vec<usize> = (0..probes.len()).collect();
        indices.sort_by_key(|index| Some(*index) != first);
        for index in indices {
            self.settle_probe(&mut probes[index], index, &targets).await;
            let states = self.groups(&probes, &targets).swap_remove(index);
            let of_moment = |candidate: &Candidate| candidate.taken_at() == taken_at;
            if !states.is_empty() && !states.iter().any(of_moment) {
                let what = format!("it holds no state of {taken_at}");
                let error = SourceError::new(SourceKind::NoSuchPoint, what).report();
                let name = self.service.sources[index].name().clone();
                let seconds = probes[index].seconds;
                self.record(name, Vec::new(), 1, Stage::NoPoint, Some(error), seconds);
            }
            for candidate in states.into_iter().filter(of_moment) {
                if let Some(outcome) = self.try_one(&candidate, slots, &mut tried).await {
                    return outcome;
                }
            }
        }
        Outcome::Held {
            why: format!(
                "a part of {} was restored to its state of {taken_at}, and no source delivers the rest of it",
                self.service.name
            ),
        }
    }

    /// Completes what a crash cut off between the rename and the marker.
    pub(crate) async fn finish_promotions(&mut self, inspections: &[Inspection]) {
        for inspection in inspections {
            let Some(leftover) = inspection.leftover.as_ref().filter(|l| l.promoted) else {
                continue;
            };
            let marker = self.restored_marker(&leftover.point);
            let request = Settle::Finish {
                target: inspection.target.clone(),
                leftover: leftover.clone(),
                marker,
            };
            match self.settle(&request, "finishing an earlier promotion").await {
                Ok(_) => self.step(
                    "finished",
                    format!(
                        "{} was put back by run {}",
                        inspection.target.dataset, leftover.run
                    ),
                ),
                Err(error) => self.warn(
                    format!(
                        "the promotion of {} could not be finished: {error}",
                        inspection.target.dataset
                    ),
                    None,
                ),
            }
        }
    }

    /// Data is there, so what an earlier run staged is of no use any more.
    async fn discard_leftovers(&mut self, inspections: &[Inspection]) {
        for inspection in inspections {
            let Some(leftover) = inspection.leftover.as_ref().filter(|l| !l.promoted) else {
                continue;
            };
            let request = Settle::DiscardLeftover {
                target: inspection.target.clone(),
                leftover: leftover.clone(),
            };
            if let Err(error) = self.settle(&request, "removing old staging").await {
                self.warn(
                    format!(
                        "old staging of {} could not be removed: {error}",
                        inspection.target.dataset
                    ),
                    None,
                );
            }
        }
    }

    pub(super) fn restored_marker(&self, point: &RecoveryPoint) -> Marker {
        self.marker(MarkerState::Restored {
            source: point.source.clone(),
            point: point.id.clone(),
            taken_at: point.taken_at,
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

/// Where the data of a populated dataset came from, if a preseed put it there.
fn anchor(inspection: &Inspection) -> Option<(SourceName, Timestamp)> {
    if let Some(leftover) = inspection.leftover.as_ref().filter(|l| l.promoted) {
        return Some((leftover.source.clone(), leftover.point.taken_at));
    }
    match &inspection.marker.as_ref()?.state {
        MarkerState::Restored { source, taken_at, .. } => Some((source.clone(), *taken_at)),
        _ => None,
    }
}

fn slots(inspections: &[Inspection], missing: &[usize]) -> Vec<Slot> {
    let slot = |index: &usize| Slot {
        target: inspections[*index].target.clone(),
        leftover: inspections[*index].leftover.clone().filter(|l| !l.promoted),
        staged: None,
        replace: Replace::OnlyEmpty,
    };
    missing.iter().map(slot).collect()
}
