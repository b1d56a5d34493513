//! `reseed status`

mod fetched;

use std::fmt;

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

/// Seconds that a date may be in the future before it is told: clocks are put right by less.
const MOST_AHEAD: i64 = 300;

/// What is dated in the future, so that nobody knows how old it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Ahead {
    service: ServiceName,
    /// The replica or source that has it.
    source: SourceName,
    taken_at: Timestamp,
    /// Seconds from now until then.
    ahead: i64,
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
    let mut plans = preseed::plan(&session.engine, &session.cx, &services).await;
    let now = session.engine.clock.now();
    let mut table = Table::new(&[
        "service",
        "state",
        "if it vanished now",
        "at most lost",
        "sources",
    ]);
    let mut notes = String::new();
    let mut ahead: Vec<Ahead> = Vec::new();
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
                let age = best.taken_at.filter(|at| too_new(*at, now).is_none());
                let age = age.map(|at| now.as_second() - at.as_second());
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
            notes.push_str(&complaint(
                &format!("{}: {source} can't be asked", plan.service),
                error,
            ));
        }
        if !args.services.is_empty() {
            notes.push_str(&listed(plan));
        }
        for source in empty_beside_others(plan) {
            notes.push_str(&format!(
                "{}: {source} holds no state of it that could come back, and other sources do\n  hint: `reseed history {}` shows when it was last sent or backed up there\n",
                plan.service, plan.service
            ));
        }
        // What is dated far ahead isn't the best.
        for source in &plan.sources {
            let latest = source.all.iter().map(|state| state.taken_at).max();
            ahead.extend(in_the_future(&plan.service, &source.source, latest, now));
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
                Ok(found) => {
                    lagging.extend(found.lagging);
                    // A source that has told it already is the same replica.
                    let told =
                        |one: &Ahead| (one.service == service.name) && one.source == *replicator.name();
                    if !ahead.iter().any(told) {
                        ahead.extend(found.ahead);
                    }
                }
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
    for one in &ahead {
        notes.push_str(&one.to_string());
    }
    for one in &silent {
        notes.push_str(&complaint(
            &format!("{}: {} can't be asked", one.service, one.replica),
            &one.error,
        ));
    }
    // Services that were named are asked of alone.
    let pulls = session.pulls(&[], args.services.is_empty())?;
    let fetched = fetched::all(session, &pulls, now).await;
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
    if args.services.is_empty() {
        // Every state of all services is too much to look at.
        let sources = plans.iter_mut().flat_map(|plan| &mut plan.sources);
        sources.for_each(|source| source.all.clear());
    }
    let mut answer = json!({ "services": plans, "lagging": lagging, "ahead": ahead, "silent": silent });
    if !fetched.is_empty() {
        answer["fetched"] = json!(fetched);
    }
    if !session.pool_names().is_empty() {
        answer["pools"] = match &pools {
            Ok(pools) => json!(pools),
            Err(error) => json!({ "error": error }),
        };
    }
    // Not knowing is not fine, nor is a service that could not come back, or that started without its data.
    let wanting = |plan: &ServicePlan| {
        let is_well = ["data-present", "first-start"].contains(&plan.action.as_str());
        let answers = plan.sources.iter().all(|s| s.error.is_none());
        !is_well
            || !answers
            || plan.order.is_empty()
            || is_unseeded(plan)
            || empty_beside_others(plan).next().is_some()
    };
    let exit = if plans.iter().any(|p| p.action == "blocked") {
        Exit::Blocked
    } else if sick
        || !lagging.is_empty()
        || !ahead.is_empty()
        || !silent.is_empty()
        || !fetched.iter().all(fetched::Fetched::is_well)
        || plans.iter().any(wanting)
    {
        Exit::Partial
    } else {
        Exit::Ok
    };
    let pulled = fetched::shown(session, &fetched, now);
    Ok(Answer::new(
        &answer,
        format!("{table}{notes}{pulled}{shown}"),
        exit,
    ))
}

/// What doesn't work, why, and what to do about it.
fn complaint(what: &str, error: &ErrorReport) -> String {
    let mut text = format!("{what}: {}\n", printable(&error.to_string()));
    if let Some(hint) = &error.hint {
        text.push_str(&format!("  hint: {}\n", printable(hint)));
    }
    text
}

/// How far a replica is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Distance {
    lagging: Option<Lagging>,
    ahead: Option<Ahead>,
}

/// Asks a replica of a service how far it is, also one that the service isn't restored from.
async fn behind(
    session: &Session,
    service: &Service,
    replicator: &dyn Replicator,
    now: Timestamp,
) -> Result<Distance, ErrorReport> {
    let lineages = replicator.lineage(&session.cx, &service.targets).await;
    let lineages = lineages.map_err(|error| error.report())?;
    let newest: Vec<Option<Timestamp>> = lineages.iter().map(|lineage| lineage.newest).collect();
    let could = if newest.contains(&None) {
        let could = service.store.list(&session.cx, &service.targets).await;
        // Without the store there is nothing to compare with, and that has been told.
        could
            .ok()
            .and_then(|all| all.iter().map(|one| one.taken_at).min())
    } else {
        None
    };
    Ok(distance(&service.name, replicator.name(), &newest, could, now))
}

/// Judges by what a replica has at the newest of each dataset. Where it has nothing of one, by when the oldest was taken that it could
/// have. A date in the future is no age: it is told, and says nothing of the others.
fn distance(
    service: &ServiceName,
    replica: &SourceName,
    newest: &[Option<Timestamp>],
    could: Option<Timestamp>,
    now: Timestamp,
) -> Distance {
    let nothing = newest.contains(&None);
    let oldest = if nothing {
        could
    } else {
        newest.iter().flatten().min().copied()
    };
    Distance {
        lagging: oldest.and_then(|at| too_old(at, now)).map(|lag| Lagging {
            service: service.clone(),
            replica: replica.clone(),
            lag,
            nothing,
        }),
        ahead: in_the_future(service, replica, newest.iter().flatten().max().copied(), now),
    }
}

/// The age of what was taken then, in seconds, when that is more than a replica may be behind.
fn too_old(taken_at: Timestamp, now: Timestamp) -> Option<i64> {
    Some(now.as_second() - taken_at.as_second()).filter(|lag| *lag > MOST_LAG)
}

/// How far in the future that is, in seconds, when it is more than clocks differ by.
fn too_new(taken_at: Timestamp, now: Timestamp) -> Option<i64> {
    Some(taken_at.as_second() - now.as_second()).filter(|ahead| *ahead > MOST_AHEAD)
}

fn in_the_future(
    service: &ServiceName,
    source: &SourceName,
    taken_at: Option<Timestamp>,
    now: Timestamp,
) -> Option<Ahead> {
    let taken_at = taken_at?;
    too_new(taken_at, now).map(|ahead| Ahead {
        service: service.clone(),
        source: source.clone(),
        taken_at,
        ahead,
    })
}

impl fmt::Display for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (service, source, ahead) = (&self.service, &self.source, ui::span(self.ahead));
        writeln!(
            f,
            "{service}: its newest state in {source} is dated {ahead} in the future ({}), so how old it is can't be told",
            self.taken_at
        )?;
        writeln!(
            f,
            "  hint: see whether this machine's clock is right (`timedatectl`); if it was wrong when that was taken, take a new snapshot, \
             run `reseed replicate --now {service}`, and remove the one with the wrong date when nobody needs it"
        )
    }
}

fn is_unseeded(plan: &ServicePlan) -> bool {
    let marked = |t: &Inspection| t.marker.as_ref().is_some_and(Marker::is_unseeded);
    plan.unseeded.is_some() || plan.targets.iter().any(marked)
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

/// Sources that answered and hold nothing of a service that others have.
fn empty_beside_others(plan: &ServicePlan) -> impl Iterator<Item = &SourceName> {
    let is_empty = |source: &&PlannedSource| source.error.is_none() && source.states == 0;
    let some = plan.sources.iter().any(|source| source.states > 0);
    let sources = plan.sources.iter().filter(is_empty).map(|source| &source.source);
    sources.filter(move |_| some)
}

/// Every state that there is, as `--at` takes it.
fn listed(plan: &ServicePlan) -> String {
    let mut text = String::new();
    for source in plan.sources.iter().filter(|source| !source.all.is_empty()) {
        text.push_str(&format!("{}: in {}\n", plan.service, source.source));
        for state in &source.all {
            let name = state
                .snapshot
                .as_ref()
                .map_or(state.point.as_str(), |name| name.as_str());
            let less = match (state.partial, state.unseeded) {
                (_, true) => "  taken while unseeded",
                (true, _) => "  not complete",
                _ => "",
            };
            text.push_str(&format!("  {}  {}{less}\n", state.taken_at, printable(name)));
        }
    }
    text
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

    #[test]
    fn a_date_in_the_future_is_told_and_hides_no_lag() {
        let at = |text: &str| -> Timestamp { text.parse().unwrap() };
        let now = at("2026-11-23T12:00:00Z");
        let (service, replica) = (
            ServiceName::new("app").unwrap(),
            SourceName::new("second").unwrap(),
        );
        let judged = |newest: &[Option<&str>], could: Option<&str>| {
            let newest: Vec<_> = newest.iter().map(|text| text.map(at)).collect();
            let found = distance(&service, &replica, &newest, could.map(at), now);
            (
                found.lagging.map(|one| (one.lag, one.nothing)),
                found.ahead.map(|one| one.ahead),
            )
        };
        let (good, old) = (Some("2026-11-23T11:00:00Z"), Some("2026-11-21T12:00:00Z"));
        let (soon, ahead) = (Some("2026-11-23T12:05:00Z"), Some("2026-11-30T12:00:00Z"));
        assert_eq!(judged(&[good, soon], None), (None, None));
        assert_eq!(judged(&[ahead], None), (None, Some(604_800)));
        assert_eq!(judged(&[good, ahead], None), (None, Some(604_800)));
        // One dataset of two is behind.
        assert_eq!(
            judged(&[old, ahead], None),
            (Some((172_800, false)), Some(604_800))
        );
        assert_eq!(
            judged(&[None, ahead], old),
            (Some((172_800, true)), Some(604_800))
        );
        let told = in_the_future(&service, &replica, ahead.map(at), now)
            .unwrap()
            .to_string();
        assert!(told.contains("dated 7 d 0 h in the future"), "{told}");
        assert!(told.contains("\n  hint: "), "{told}");
    }
}
