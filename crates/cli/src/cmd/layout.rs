//! `reseed plan` and `reseed apply`

use reseed_backend_zfs::datasets::plan::Wanted;
use reseed_backend_zfs::datasets::{Applied, LayoutPlan, Outcome, add_owners, plan as compare};
use reseed_core::error::{OpError, OpKind};
use serde_json::json;

use crate::args::ApplyArgs;
use crate::exit::Exit;
use crate::output::Answer;
use crate::session::Session;
use crate::ui::{Mood, printable};

pub(crate) async fn plan(session: &Session) -> Result<Answer, OpError> {
    let Some(plan) = planned(session).await? else {
        return Ok(nothing());
    };
    Ok(shown(&plan))
}

pub(crate) async fn apply(args: &ApplyArgs, session: &Session) -> Result<Answer, OpError> {
    let Some(plan) = planned(session).await? else {
        return Ok(nothing());
    };
    if args.dry_run || plan.steps.is_empty() {
        return Ok(shown(&plan));
    }
    let applied = session.layout().apply(&session.cx, &plan).await;
    Ok(done(session, &plan, &applied))
}

async fn planned(session: &Session) -> Result<Option<LayoutPlan>, OpError> {
    let declared = &session.config.datasets;
    if declared.is_empty() {
        return Ok(None);
    }
    let wanted: Wanted = declared
        .iter()
        .map(|(name, one)| (name.clone(), one.wanted()))
        .collect();
    let actual = session
        .layout()
        .read(&session.cx)
        .await
        .map_err(|error| error.convert(OpKind::Blocked))?;
    let mut plan = compare(&wanted, &actual);
    let declared = declared
        .iter()
        .map(|(name, one)| (name.clone(), one.ownership.clone()))
        .collect();
    let (owners, roots) = session
        .layout()
        .owners(&session.cx, &declared)
        .await
        .map_err(|error| error.convert(OpKind::Blocked))?;
    add_owners(&mut plan, &owners, &roots, &actual);
    Ok(Some(plan))
}

fn nothing() -> Answer {
    let text =
        "no datasets are declared; `reseed import pool` prints a configuration for those that are there\n";
    Answer::new(&LayoutPlan::default(), text, Exit::Ok)
}

/// An obstacle is no failure of the plan, and not what was declared either.
fn shown(plan: &LayoutPlan) -> Answer {
    let exit = match plan.obstacles.is_empty() {
        true => Exit::Ok,
        false => Exit::Partial,
    };
    Answer::new(plan, format!("{}\n", lines(&plan.to_string())), exit)
}

fn done(session: &Session, plan: &LayoutPlan, applied: &Applied) -> Answer {
    let mut text = String::new();
    for (step, outcome) in &applied.steps {
        let (mood, word) = match outcome {
            Outcome::Done => (Mood::Good, "done".to_owned()),
            Outcome::NotMounted { why } => (Mood::Warn, format!("created, and not mounted: {why}")),
            Outcome::Refused { why } => (Mood::Warn, format!("not done: {why}")),
            Outcome::Failed { why } => (Mood::Bad, format!("failed: {why}")),
            _ => (Mood::Bad, "not tried".to_owned()),
        };
        text.push_str(&format!(
            "{}: {}\n",
            printable(&step.to_string()),
            session.ui.paint(mood, &printable(&word))
        ));
    }
    for obstacle in &plan.obstacles {
        text.push_str(&printable(&format!("! {}  {}", obstacle.dataset, obstacle.why)));
        text.push('\n');
    }
    let well = applied.steps.iter().all(|(_, outcome)| outcome.is_done());
    let failed = (applied.steps.iter())
        .any(|(_, outcome)| matches!(outcome, Outcome::Failed { .. } | Outcome::NotTried));
    let exit = match (
        session.cx.cancel.is_cancelled(),
        failed,
        well && plan.obstacles.is_empty(),
    ) {
        (true, ..) => Exit::Interrupted,
        (_, true, _) => Exit::Failed,
        (.., true) => Exit::Ok,
        _ => Exit::Partial,
    };
    Answer::new(
        &json!({ "applied": applied.steps, "obstacles": plan.obstacles }),
        text,
        exit,
    )
}

fn lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}
