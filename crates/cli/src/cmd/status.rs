//! `reseed status`

use reseed_core::error::OpError;
use reseed_core::point::Marker;
use reseed_core::preseed::{self, PlannedSource, ServicePlan};
use reseed_core::store::{Condition, Inspection};
use serde_json::json;

use super::pools;
use crate::args::StatusArgs;
use crate::exit::Exit;
use crate::output::Answer;
use crate::session::Session;
use crate::ui::{self, Mood, Table, printable};

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
        for failed in plan.sources.iter().filter_map(|s| Some((s, s.error.as_ref()?))) {
            notes.push_str(&format!(
                "{}: {} can't be asked: {}\n",
                plan.service,
                failed.0.source,
                printable(&failed.1.to_string())
            ));
            if let Some(hint) = &failed.1.hint {
                notes.push_str(&format!("  hint: {}\n", printable(hint)));
            }
        }
        if let Some(why) = &plan.why {
            notes.push_str(&format!("{}: {}\n", plan.service, printable(why)));
        }
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
    let mut answer = json!({ "services": plans });
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
    } else if sick || plans.iter().any(wanting) {
        Exit::Partial
    } else {
        Exit::Ok
    };
    Ok(Answer::new(&answer, format!("{table}{notes}{shown}"), exit))
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
