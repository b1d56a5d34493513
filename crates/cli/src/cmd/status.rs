//! `reseed status`

use jiff::Timestamp;
use reseed_core::Replicator;
use reseed_core::error::{ErrorReport, OpError};
use reseed_core::names::{ServiceName, SourceName};
use reseed_core::point::Marker;
use reseed_core::preseed::{self, PlannedSource, ServicePlan};
use reseed_core::service::Service;
use reseed_core::store::{Condition, Inspection};
use serde::Serialize;
use serde_json::json;

use super::pools;
use crate::args::StatusArgs;
use crate::exit::Exit;
use crate::output::Answer;
use crate::session::Session;
use crate::ui::{self, Mood, Table, printable};

/// Seconds that a replica's newest snapshot may be old. Replication is meant to run at least daily.
const MOST_LAG: i64 = 24 * 3600;

/// A replica that is behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Lagging {
    service: ServiceName,
    replica: SourceName,
    /// Seconds since what it has at the newest was taken, or, where it has nothing, since the oldest snapshot it could have.
    lag: i64,
    /// Whether it has nothing at all.
    nothing: bool,
}

/// A replica that can't be asked.
#[derive(Debug, Serialize)]
struct Silent {
    service: ServiceName,
    replica: SourceName,
    error: ErrorReport,
}

pub(crate) async fn run(args: &StatusArgs, session: &Session) -> Result<Answer, OpError> {
    let services = session.services_or_all(&args.services)?;
    let services: Vec<_> = services.iter().collect();
    let plans = preseed::plan(&session.engine, &session.cx, &services).await;
    let now = session.engine.clock.now();
    let mut table = Table::new(&[
        "service",
        "state",
        "if it vanished now",
        "at most lost",
        "sources",
    ]);
    let mut notes = String::new();
    for plan in &plans {
        let best = plan
            .order
            .first()
            .and_then(|name| plan.sources.iter().find(|s| s.source == *name));
        let (back, lost) = match best {
            None => (
                session.ui.paint(Mood::Bad, "nothing to restore from"),
                "everything".to_owned(),
            ),
            Some(best) => {
                let size = best
                    .bytes
                    .map(|b| format!(", {}", ui::bytes(b)))
                    .unwrap_or_default();
                let age = best.taken_at.map(|at| now.as_second() - at.as_second());
                (
                    format!("from {}{size}", best.source),
                    age.map_or("?".to_owned(), ui::span),
                )
            }
        };
        let sources: Vec<String> = plan.sources.iter().map(|s| source(session, s)).collect();
        table.row([
            plan.service.to_string(),
            state(session, plan),
            back,
            lost,
            sources.join(" "),
        ]);
        for (source, error) in plan
            .sources
            .iter()
            .filter_map(|s| Some((&s.source, s.error.as_ref()?)))
        {
            notes.push_str(&cannot_be_asked(&plan.service, source, error));
        }
        if let Some(why) = &plan.why {
            notes.push_str(&format!("{}: {}\n", plan.service, printable(why)));
        }
    }
    let (mut lagging, mut silent) = (Vec::new(), Vec::new());
    for service in &services {
        for replicator in &service.replicators {
            // One that did not answer as a source has been waited for, and told, already.
            let silent_source =
                |source: &PlannedSource| source.source == *replicator.name() && source.error.is_some();
            let plan = plans.iter().find(|plan| plan.service == service.name);
            if plan.is_some_and(|plan| plan.sources.iter().any(silent_source)) {
                continue;
            }
            match behind(session, service, replicator.as_ref(), now).await {
                Ok(found) => lagging.extend(found),
                Err(error) => silent.push(Silent {
                    service: service.name.clone(),
                    replica: replicator.name().clone(),
                    error,
                }),
            }
        }
    }
    for behind in &lagging {
        let (service, replica, lag) = (&behind.service, &behind.replica, ui::span(behind.lag));
        let what = if behind.nothing {
            format!("{replica} has nothing of it, and there were snapshots to send for {lag}")
        } else {
            format!("its newest snapshot on {replica} is {lag} old")
        };
        notes.push_str(&format!(
            "{service}: {what}\n  hint: `reseed replicate --now {service}` sends what is missing\n"
        ));
    }
    for one in &silent {
        notes.push_str(&cannot_be_asked(&one.service, &one.replica, &one.error));
    }
    let pools = pools::health(session).await;
    let (shown, sick) = match &pools {
        Ok(pools) => (
            pools::shown(session, pools),
            pools.iter().any(|pool| !pool.is_well()),
        ),
        Err(error) => (
            format!("\nthe pools can't be asked: {}\n", printable(&error.to_string())),
            true,
        ),
    };
    let mut answer = json!({ "services": plans, "lagging": lagging, "silent": silent });
    if !session.pool_names().is_empty() {
        answer["pools"] = match &pools {
            Ok(pools) => json!(pools),
            Err(error) => json!({ "error": error }),
        };
    }
    // Not knowing is not fine, nor is a service that could not come back, or that started without its data.
    let wanting = |plan: &ServicePlan| {
        plan.sources.iter().any(|s| s.error.is_some()) || plan.order.is_empty() || is_unseeded(plan)
    };
    let exit = if plans.iter().any(|p| p.action == "blocked") {
        Exit::Blocked
    } else if sick || !lagging.is_empty() || !silent.is_empty() || plans.iter().any(wanting) {
        Exit::Partial
    } else {
        Exit::Ok
    };
    Ok(Answer::new(&answer, format!("{table}{notes}{shown}"), exit))
}

fn cannot_be_asked(service: &ServiceName, who: &SourceName, error: &ErrorReport) -> String {
    let mut text = format!(
        "{service}: {who} can't be asked: {}\n",
        printable(&error.to_string())
    );
    if let Some(hint) = &error.hint {
        text.push_str(&format!("  hint: {}\n", printable(hint)));
    }
    text
}

/// Asks a replica of a service how far it is, also one that the service isn't restored from.
async fn behind(
    session: &Session,
    service: &Service,
    replicator: &dyn Replicator,
    now: Timestamp,
) -> Result<Option<Lagging>, ErrorReport> {
    let lineages = replicator.lineage(&session.cx, &service.targets).await;
    let lineages = lineages.map_err(|error| error.report())?;
    let nothing = lineages.iter().any(|lineage| lineage.newest.is_none());
    let oldest = if nothing {
        let could = service.store.list(&session.cx, &service.targets).await;
        // Without the store there is nothing to compare with, and that has been told.
        could
            .ok()
            .and_then(|all| all.iter().map(|one| one.taken_at).min())
    } else {
        lineages.iter().filter_map(|lineage| lineage.newest).min()
    };
    let lag = oldest.and_then(|at| too_old(at, now));
    Ok(lag.map(|lag| Lagging {
        service: service.name.clone(),
        replica: replicator.name().clone(),
        lag,
        nothing,
    }))
}

/// The age of what was taken then, in seconds, when that is more than a replica may be behind.
fn too_old(taken_at: Timestamp, now: Timestamp) -> Option<i64> {
    Some(now.as_second() - taken_at.as_second()).filter(|lag| *lag > MOST_LAG)
}

fn is_unseeded(plan: &ServicePlan) -> bool {
    let marked = |t: &Inspection| t.marker.as_ref().is_some_and(Marker::is_unseeded);
    plan.targets.iter().any(marked)
}

fn state(session: &Session, plan: &ServicePlan) -> String {
    if is_unseeded(plan) {
        return session.ui.paint(Mood::Warn, "unseeded");
    }
    match plan.action.as_str() {
        "data-present" => session.ui.paint(Mood::Good, "data present"),
        "blocked" => session.ui.paint(Mood::Bad, "blocked"),
        _ if plan.targets.iter().all(|t| t.condition == Condition::Absent) => {
            session.ui.paint(Mood::Bad, "missing")
        }
        _ => session.ui.paint(Mood::Warn, "empty"),
    }
}

fn source(session: &Session, source: &PlannedSource) -> String {
    let (mood, words) = match (&source.error, source.states) {
        (Some(error), _) => (Mood::Bad, error.kind.clone()),
        (None, 0) => (Mood::Warn, "none".to_owned()),
        (None, states) => (Mood::Good, states.to_string()),
    };
    session.ui.paint(mood, &format!("{}:{words}", source.source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_may_be_a_day_behind() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        for (taken_at, lag) in [
            ("2026-11-23T13:00:00Z", None),
            ("2026-11-22T12:00:00Z", None),
            ("2026-11-22T11:59:59Z", Some(86_401)),
        ] {
            assert_eq!(too_old(taken_at.parse().unwrap(), now), lag, "{taken_at}");
        }
    }
}
