//! Asking the sources what they hold, and asking those again that failed in a way that may pass.

use std::time::Duration;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};

use super::group;
use super::report::Stage;
use super::walk::Walk;
use crate::context::Context;
use crate::engine::Engine;
use crate::error::{ErrorReport, Retry, SourceError, SourceKind};
use crate::event::Event;
use crate::names::SourceName;
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
            if !source.caps().ordered {
                let ahead = demote(&mut points, engine.clock.now());
                tell(&cx, service, source.name(), ahead);
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

/// Dated so far ahead a state is of a clock that was wrong, then or now. A clock that has the wrong zone is off by less.
const FAR_AHEAD: SignedDuration = SignedDuration::from_hours(24);

/// A clock that was wrong once leaves states within so short a time,
const ONCE: SignedDuration = SignedDuration::from_hours(24);
/// so far from all others. Where ours is behind now, what is ahead of it follows upon what isn't.
const FAR_FROM_OTHERS: SignedDuration = SignedDuration::from_hours(40 * 24);

/// Of a source that knows of no order but that of dates: what a clock that was wrong once has put into the future would pass for the newest until
/// then, and goes behind all else. That is not taken for it which may as well be of a clock that is behind now: the newest of all would be
/// passed over. Answers the latest.
fn demote(points: &mut [RecoveryPoint], now: Timestamp) -> Option<Timestamp> {
    let last = now.saturating_add(FAR_AHEAD).unwrap_or(now);
    let dates = points.iter().map(|point| point.taken_at);
    let (ahead, known): (Vec<Timestamp>, Vec<Timestamp>) = dates.partition(|at| *at > last);
    let (first, latest) = (*ahead.iter().min()?, *ahead.iter().max()?);
    let newest = known.into_iter().max()?;
    let is_of_once = latest.duration_since(first) <= ONCE && first.duration_since(newest) > FAR_FROM_OTHERS;
    if !is_of_once {
        return None;
    }
    points.sort_by_key(|point| point.taken_at > last);
    Some(latest)
}

fn tell(cx: &Context, service: &Service, source: &SourceName, ahead: Option<Timestamp>) {
    let Some(ahead) = ahead else { return };
    cx.emit(Event::Warning {
        service: Some(service.name.clone()),
        message: format!(
            "{source} has a state that is dated {ahead}, which is yet to come, by a clock that was wrong, then or now: it counts for older than the others"
        ),
        hint: Some(format!(
            "`reseed status {}` lists them, and `reseed restore --at` gets at it",
            service.name
        )),
    });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dated_far_ahead_goes_last_unless_all_of_it_is() {
        let point = |hours: i64| RecoveryPoint {
            id: format!("p{hours}").parse().unwrap(),
            dataset: "tank/a".parse().unwrap(),
            source: "b2".parse().unwrap(),
            locator: String::new(),
            snapshot: None,
            taken_at: Timestamp::from_second(hours * 3600).unwrap(),
            fingerprint: None,
            bytes: None,
            unseeded: false,
            partial: false,
            altered: false,
        };
        let now = Timestamp::from_second(100 * 3600).unwrap();
        for (dates, wanted, ahead) in [
            (vec![9000, 99, 98], vec![99, 98, 9000], Some(9000)),
            // A zone that is wrong is no year.
            (vec![114, 99, 98], vec![114, 99, 98], None),
            // Our own clock is the one that is wrong.
            (vec![9000, 8999], vec![9000, 8999], None),
            // And it may be so in the middle of what there is, wherever that is.
            (vec![148, 124, 99, 98], vec![148, 124, 99, 98], None),
            (vec![2000, 1300, 99], vec![2000, 1300, 99], None),
            (vec![500, 99, 98], vec![500, 99, 98], None),
            (vec![], vec![], None),
        ] {
            let mut points: Vec<RecoveryPoint> = dates.into_iter().map(point).collect();
            let told = demote(&mut points, now).map(|at| at.as_second() / 3600);
            let found: Vec<i64> = points
                .iter()
                .map(|point| point.taken_at.as_second() / 3600)
                .collect();
            assert_eq!((found, told), (wanted, ahead));
        }
    }
}
