//! Asking the sources what they hold, and asking those again that failed in a way that may pass.

use std::time::Duration;

use futures_util::future::join_all;

use super::group;
use super::report::Stage;
use super::walk::Walk;
use crate::context::Context;
use crate::engine::Engine;
use crate::error::{ErrorReport, Retry, SourceError, SourceKind};
use crate::point::{RecoveryPoint, Target};
use crate::service::Service;

/// What one source answered.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    /// Its points, or why it didn't answer.
    pub(crate) answer: Result<Vec<RecoveryPoint>, ErrorReport>,
    /// How long it took.
    pub(crate) seconds: f64,
    pub(super) tries: u32,
}

impl Probe {
    /// Whether the source holds anything that can be read.
    pub(crate) fn holds_points(&self) -> bool {
        self.answer.iter().flatten().any(|point| !point.is_damaged())
    }
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

impl Walk<'_> {
    /// Whether a source's failure to answer is already recorded.
    pub(super) fn is_settled(&self, index: usize, probe: &Probe) -> bool {
        let name = self.service.sources[index].name();
        probe.answer.is_err()
            && self
                .attempts
                .iter()
                .any(|a| a.source == *name && a.stage == Stage::Probe)
    }

    /// Asks a source again that failed in a way that may pass, then records what came of it.
    pub(super) async fn settle_probe(&mut self, probe: &mut Probe, index: usize, targets: &[&Target]) {
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
}
