//! Looking for damage in a repository, a part of it each time if that is wanted, and telling every service what it means for it.
//!
//! What was found is in the history as a `check` of each service with the repository, its depth in the place of a verification. So a
//! rotation needs no memory of its own: what the last check of this repository read is in there.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Doing, OpOutcome, OpReport};
use crate::context::Context;
use crate::engine::Engine;
use crate::error::{ErrorReport, OpError, OpKind};
use crate::journal::{Query, Run, RunKind, RunOutcome};
use crate::names::{DatasetName, SourceName};
use crate::offsite::{CheckDepth, CheckReport, OffsiteRepo};
use crate::service::Service;

const BUDGET: Duration = Duration::from_secs(7 * 24 * 3600);

/// Runs that are looked at for where a rotation is. Each check leaves one for every service.
const LOOKED_AT: u32 = 2_000;

/// What a check of a repository found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RepoCheck {
    /// The repository.
    pub repository: SourceName,
    /// How much of it was looked at.
    pub depth: CheckDepth,
    /// What was found, or why it could not be looked at.
    pub result: Result<CheckReport, ErrorReport>,
    /// What it means for each service that backs up to it.
    pub services: Vec<OpReport>,
}

impl RepoCheck {
    /// Whether it was looked at, and nothing is damaged.
    pub fn is_sound(&self) -> bool {
        self.result.as_ref().is_ok_and(|report| report.errors.is_empty())
    }
}

/// The part of a repository that is next, so that after `of` checks all of it was read. A check that didn't get to the end counts for
/// nothing. Where the history can't be read, or has no word of it because no service backs up to it, it is the part of the day.
pub fn next_part(engine: &Engine, repository: &SourceName, of: u32, services: &[&Service]) -> CheckDepth {
    let of = of.max(1);
    let query = Query {
        kind: Some(RunKind::Check),
        limit: Some(LOOKED_AT),
        ..Query::default()
    };
    let now = engine.clock.now();
    let part = |run: &Run| {
        let ended = matches!(
            run.outcome,
            Some(RunOutcome::Ok | RunOutcome::Partial | RunOutcome::Failed)
        );
        match run.verification.as_deref()?.parse() {
            Ok(CheckDepth::Part { n, of }) if ended && run.key.peer.as_ref() == Some(repository) => {
                Some((n, of))
            }
            _ => None,
        }
    };
    let before = match engine.journal.history(&query) {
        // A check is written down with the services that it is about.
        _ if services.is_empty() => None,
        // One of a clock that was ahead would be the last one for as long.
        Ok(runs) => Some(runs.iter().filter(|run| run.started_at <= now).find_map(part)),
        Err(_) => None,
    };
    let of_the_day = || {
        let days = now.as_second().div_euclid(24 * 3600);
        (u32::try_from(days.rem_euclid(i64::from(of))).unwrap_or(0), of)
    };
    let n = match before.unwrap_or_else(|| Some(of_the_day())) {
        Some((n, parts)) if parts == of => n % of + 1,
        // Parts of another size say nothing about these.
        _ => 1,
    };
    CheckDepth::Part { n, of }
}

/// Looks for damage in a repository, and tells it of each of the services that back up to it: it fails for those that it takes a point
/// from, or may, and is not a success for the others either.
pub async fn check_repo(
    engine: &Engine,
    cx: &Context,
    repo: &dyn OffsiteRepo,
    services: &[&Service],
    depth: CheckDepth,
) -> RepoCheck {
    let doing: Vec<Doing<'_>> = services
        .iter()
        .map(|service| Doing::begin(engine, cx, service, RunKind::Check.name(), Some(repo.name())))
        .collect();
    let result = engine.within(cx, BUDGET, "checking the repository", |cx| async move {
        repo.check(&cx, depth).await
    });
    let result = result.await.map_err(|error| error.report());
    let reports = services
        .iter()
        .zip(doing)
        .map(|(service, doing)| told(service, doing, repo.name(), depth, &result))
        .collect();
    RepoCheck {
        repository: repo.name().clone(),
        depth,
        result,
        services: reports,
    }
}

fn told(
    service: &Service,
    mut doing: Doing<'_>,
    repository: &SourceName,
    depth: CheckDepth,
    result: &Result<CheckReport, ErrorReport>,
) -> OpReport {
    let report = match result {
        Ok(report) => report,
        Err(error) => return doing.fail(error.clone()),
    };
    // Only now: what wasn't looked at is no part of a rotation.
    doing.verification(depth.to_string());
    doing.bytes(report.bytes_read);
    let Some(first) = report.errors.first() else {
        doing.done(format!("{repository} is sound ({depth})"));
        return doing.end(OpOutcome::Ok);
    };
    let mine = |dataset: &DatasetName| service.targets.iter().any(|target| target.dataset == *dataset);
    let damaged =
        |what: String, hint: &str| OpError::new(OpKind::Failed, what).said(first).hint(hint).report();
    match &report.affected {
        Some(affected) if !affected.iter().any(mine) => {
            let what = format!(
                "{repository} is damaged, and all that is known to be of {} is whole",
                service.name
            );
            let hint = "repair the repository before it costs more";
            doing.end_with(OpOutcome::Partial, Some(damaged(what, hint)))
        }
        affected => {
            let what = match affected {
                Some(_) => format!("a recovery point of {} in {repository} is damaged", service.name),
                None => format!(
                    "{repository} is damaged, and a recovery point of {} may be",
                    service.name
                ),
            };
            let hint = "have restic repair the index or the packs, then take a snapshot, back it up and check again; older points may be \
                 lost";
            doing.end_with(OpOutcome::Failed, Some(damaged(what, hint)))
        }
    }
}
