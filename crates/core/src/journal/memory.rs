//! A journal in memory: for simulated runs, thousands of which are made in a second, and for what the file can't take
//! at the moment. It keeps the same contract as the file, except that it does not outlive the process.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::record::to_millis;
use super::{
    Attempt, Entry, Journal, JournalError, PointRecord, Query, Run, RunKey, RunKind, RunOutcome,
    ServiceRecord, Warning,
};
use crate::names::{DatasetName, PointId, ServiceName, SourceName};
use crate::point::Fingerprint;

/// What a run's row says when it never ended.
pub(super) const NEVER_ENDED: &str = "ended without a word: killed, or the machine went down";

/// A [`Journal`] in memory; nothing can go wrong with it.
#[derive(Debug, Default)]
pub struct MemoryJournal(Mutex<Tables>);

/// The same rows as in the file.
#[derive(Debug, Default)]
pub(super) struct Tables {
    runs: Vec<Run>,
    places: HashMap<RunKey, usize>,
    /// Runs without an outcome, by what they are about: at most one each.
    unfinished: HashMap<(ServiceName, RunKind, Option<SourceName>), Option<usize>>,
    points: HashMap<(DatasetName, PointId), PointRecord>,
    services: HashMap<ServiceName, ServiceRecord>,
}

impl Tables {
    pub(super) fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Run(run) => self.run(*run),
            Entry::Attempt(key, attempt) => self.attempt(&key, *attempt),
            Entry::Point(mut point) => {
                point.taken_at = to_millis(point.taken_at);
                self.points
                    .insert((point.dataset.clone(), point.point.clone()), point);
            }
            Entry::Service(mut service) => {
                service.since = to_millis(service.since);
                if let Some(good) = &mut service.last_good {
                    good.taken_at = to_millis(good.taken_at);
                }
                self.services.insert(service.service.clone(), service);
            }
        }
    }

    fn run(&mut self, mut run: Run) {
        run.started_at = to_millis(run.started_at);
        run.finished_at = run.finished_at.map(to_millis);
        let line = (run.key.service.clone(), run.key.kind, run.key.peer.clone());
        let unfinished = self.unfinished.entry(line).or_insert(None);
        let ours = self.places.get(&run.key).copied();
        if let Some(at) = unfinished.take().filter(|at| Some(*at) != ours) {
            let other = &mut self.runs[at];
            other.outcome = Some(RunOutcome::Interrupted);
            other.message.get_or_insert_with(|| NEVER_ENDED.to_owned());
        }
        let at = match ours {
            None => {
                self.places.insert(run.key.clone(), self.runs.len());
                self.runs.push(run);
                self.runs.len() - 1
            }
            Some(at) => {
                merge(&mut self.runs[at], run);
                at
            }
        };
        *unfinished = self.runs[at].outcome.is_none().then_some(at);
    }

    fn attempt(&mut self, key: &RunKey, attempt: Attempt) {
        if let Some(at) = self.places.get(key) {
            self.runs[*at].attempts.push(attempt);
        }
    }

    pub(super) fn history(&self, query: &Query) -> Vec<Run> {
        let mut runs: Vec<&Run> = self.runs.iter().rev().filter(|run| query.matches(run)).collect();
        // Stable: of those that began at once the one written last comes first.
        runs.sort_by_key(|run| std::cmp::Reverse(run.started_at));
        let limit = query
            .limit
            .map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        runs.into_iter().take(limit).cloned().collect()
    }

    pub(super) fn fingerprint(&self, dataset: &DatasetName, point: &PointId) -> Option<Fingerprint> {
        self.points
            .get(&(dataset.clone(), point.clone()))
            .map(|record| record.fingerprint)
    }

    pub(super) fn service(&self, service: &ServiceName) -> Option<ServiceRecord> {
        self.services.get(service).cloned()
    }
}

/// Completes a row with a later word on the same run.
pub(super) fn merge(known: &mut Run, said: Run) {
    known.started_at = said.started_at;
    known.finished_at = said.finished_at.or(known.finished_at);
    known.outcome = said.outcome.or(known.outcome);
    known.source = said.source.or(known.source.take());
    if !said.points.is_empty() {
        known.points = said.points;
    }
    known.bytes = said.bytes.or(known.bytes);
    known.files = said.files.or(known.files);
    known.seconds = said.seconds.or(known.seconds);
    known.verification = said.verification.or(known.verification.take());
    known.digest = said.digest.or(known.digest);
    known.message = said.message.or(known.message.take());
    if known.attempts.is_empty() {
        known.attempts = said.attempts;
    }
}

impl MemoryJournal {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal for MemoryJournal {
    fn write(&self, entries: Vec<Entry>) {
        let mut tables = self.tables();
        for entry in entries {
            tables.apply(entry);
        }
    }

    fn history(&self, query: &Query) -> Result<Vec<Run>, JournalError> {
        Ok(self.tables().history(query))
    }

    fn fingerprint(
        &self,
        dataset: &DatasetName,
        point: &PointId,
    ) -> Result<Option<Fingerprint>, JournalError> {
        Ok(self.tables().fingerprint(dataset, point))
    }

    fn service(&self, service: &ServiceName) -> Result<Option<ServiceRecord>, JournalError> {
        Ok(self.tables().service(service))
    }

    fn take_warnings(&self) -> Vec<Warning> {
        Vec::new()
    }
}
