//! What a repository costs: its size now, how it grows by the history, and prices.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::config::{Amount, Price};
use crate::context::Context;
use crate::engine::Engine;
use crate::error::{OffsiteError, OpError, OpKind};
use crate::journal::{Query, Run, RunKind, RunOutcome};
use crate::names::{ServiceName, SourceName};
use crate::offsite::{OffsiteRepo, Usage};

const BUDGET: Duration = Duration::from_secs(3600);
/// Growth is what was added in at most so many hours: 90 days.
const LOOK_BACK_HOURS: i64 = 90 * 24;
/// In less there is nothing to see: a day.
const LEAST_SECONDS: u64 = 86_400;
/// The twelfth part of a year of 365.25 days.
const MONTH_SECONDS: u64 = 2_629_800;

/// How a repository grows by what this host adds to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Growth {
    /// Bytes that backups added, as stored, without the first one of each service that got to its end.
    pub added: u64,
    /// In so many seconds.
    pub seconds: u64,
}

impl Growth {
    /// Bytes in so many months, at this rate.
    pub fn in_months(&self, months: u64) -> u64 {
        let seconds = u128::from(MONTH_SECONDS) * u128::from(months);
        let bytes = u128::from(self.added) * seconds / u128::from(self.seconds.max(1));
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// What is paid for a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// A month at its size now.
    pub month: Amount,
    /// A month when it has grown for a year, with nothing aged out; none where its growth isn't known.
    pub month_in_a_year: Option<Amount>,
    /// Getting all of it back once.
    pub download: Amount,
}

impl Cost {
    /// Does the sum.
    pub fn of(usage: Usage, growth: Option<Growth>, price: &Price) -> Self {
        let in_a_year = growth.map(|growth| usage.bytes.saturating_add(growth.in_months(12)));
        Self {
            month: price.storage.for_bytes(usage.bytes),
            month_in_a_year: in_a_year.map(|bytes| price.storage.for_bytes(bytes)),
            download: price.download.for_bytes(usage.bytes),
        }
    }
}

/// A repository's size, and what it costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepoCost {
    /// The repository.
    pub repository: SourceName,
    /// Its size now.
    pub usage: Usage,
    /// How it grows; none before the history spans a day.
    pub growth: Option<Growth>,
    /// What is paid; none without a price.
    pub cost: Option<Cost>,
}

/// How a repository grew by its history: what was added behind each service's first backup that got to its end, which is no growth.
fn growth(runs: &[Run], repository: &SourceName, now: Timestamp) -> Option<Growth> {
    let mut of_it: Vec<&Run> = runs
        .iter()
        .filter(|run| run.key.peer.as_ref() == Some(repository))
        .collect();
    of_it.sort_by_key(|run| run.started_at);
    let mut begun: BTreeMap<&ServiceName, Timestamp> = BTreeMap::new();
    let mut added = 0_u64;
    for run in of_it {
        if begun.contains_key(&run.key.service) {
            added = added.saturating_add(run.bytes.unwrap_or(0));
        } else if run.outcome.is_some_and(got_through) {
            begun.insert(&run.key.service, run.started_at);
        }
    }
    let first = begun.into_values().min()?;
    let seconds = u64::try_from(now.duration_since(first).as_secs()).ok()?;
    (seconds >= LEAST_SECONDS).then_some(Growth { added, seconds })
}

/// Whether a backup stored all that it could read.
fn got_through(outcome: RunOutcome) -> bool {
    outcome.is_success() || outcome == RunOutcome::Partial
}

/// A repository's size, how it grows, and what that costs at a price.
///
/// # Errors
/// When its size can't be found out, or the journal can't be read.
pub async fn cost(
    engine: &Engine,
    cx: &Context,
    repo: &dyn OffsiteRepo,
    price: Option<&Price>,
) -> Result<RepoCost, OpError> {
    let usage = engine
        .within(cx, BUDGET, "adding up the repository", |cx| async move {
            repo.usage(&cx).await
        })
        .await
        .map_err(|error: OffsiteError| error.convert(OpKind::Failed))?;
    let now = engine.clock.now();
    let query = Query {
        kind: Some(RunKind::Backup),
        since: now.checked_sub(SignedDuration::from_hours(LOOK_BACK_HOURS)).ok(),
        ..Query::default()
    };
    let runs = engine
        .journal
        .history(&query)
        .map_err(|error| OpError::new(OpKind::Failed, format!("the history can't be read: {error}")))?;
    let growth = growth(&runs, repo.name(), now);
    Ok(RepoCost {
        repository: repo.name().clone(),
        usage,
        growth,
        cost: price.map(|price| Cost::of(usage, growth, price)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::RunKey;

    const DAY: i64 = 24;

    fn now() -> Timestamp {
        "2026-06-01T00:00:00Z".parse().unwrap()
    }

    fn backup(service: &str, to: &str, hours_ago: i64, bytes: u64, outcome: RunOutcome) -> Run {
        let key = RunKey {
            run: format!("r{hours_ago}").parse().unwrap(),
            service: service.parse().unwrap(),
            kind: RunKind::Backup,
            peer: Some(to.parse().unwrap()),
        };
        Run {
            bytes: Some(bytes),
            outcome: Some(outcome),
            ..Run::begun(key, now() - SignedDuration::from_hours(hours_ago))
        }
    }

    fn grown(runs: &[Run]) -> Option<Growth> {
        growth(runs, &"b2".parse().unwrap(), now())
    }

    #[test]
    fn the_first_backup_is_no_growth() {
        let runs = [
            backup("a", "b2", 1, 5, RunOutcome::Ok),
            backup("a", "b2", 5 * DAY, 2, RunOutcome::Partial),
            backup("a", "b2", 10 * DAY, 100_000, RunOutcome::Ok),
            // Broken off and begun anew: both are the first backup.
            backup("a", "b2", 11 * DAY, 40_000, RunOutcome::Failed),
            backup("b", "b2", 3 * DAY, 70_000, RunOutcome::Ok),
            backup("a", "nas", 2 * DAY, 900, RunOutcome::Ok),
        ];
        let ten_days = Growth {
            added: 7,
            seconds: 864_000,
        };
        assert_eq!(grown(&runs), Some(ten_days));
        assert_eq!(ten_days.in_months(12), 255, "0.7 a day, rounded down");
    }

    #[test]
    fn less_than_a_day_and_what_never_worked_say_nothing() {
        assert_eq!(grown(&[]), None);
        assert_eq!(grown(&[backup("a", "b2", 23, 5, RunOutcome::Ok)]), None);
        assert_eq!(grown(&[backup("a", "b2", 50, 5, RunOutcome::Failed)]), None);
        // A clock that was wrong.
        assert_eq!(grown(&[backup("a", "b2", -50, 5, RunOutcome::Ok)]), None);
    }

    #[test]
    fn a_year_of_growth_is_paid_on_top() {
        let price = Price {
            storage: Amount::millionths(6_000_000),
            download: Amount::millionths(10_000_000),
            currency: "USD".to_owned(),
        };
        let usage = Usage {
            bytes: 100_000_000_000,
            objects: Some(7000),
        };
        let growth = Growth {
            added: 1_000_000_000,
            seconds: MONTH_SECONDS,
        };
        let cost = Cost::of(usage, Some(growth), &price);
        assert_eq!(cost.month.to_string(), "0.60");
        assert_eq!(cost.month_in_a_year.unwrap().to_string(), "0.67");
        assert_eq!(cost.download.to_string(), "1.00");
        assert_eq!(Cost::of(usage, None, &price).month_in_a_year, None);
    }
}
