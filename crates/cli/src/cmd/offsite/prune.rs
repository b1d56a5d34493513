//! `reseed offsite prune`

use reseed_core::Service;
use reseed_core::error::{OpError, OpKind};
use reseed_core::lock::Claim;
use reseed_core::names::SourceName;
use reseed_core::ops::{self, RepoForgetPlan, RepoForgotten};
use serde_json::json;

use crate::args::How;
use crate::exit::Exit;
use crate::output::Answer;
use crate::session::Session;
use crate::ui::{Mood, printable};

pub(super) async fn run(named: &[String], how: &How, session: &Session) -> Result<Answer, OpError> {
    let mut repositories: Vec<SourceName> = Vec::new();
    for name in named {
        let name = session.offsite_name(name)?;
        if session.pruner(&name).is_none() {
            let what = format!("{name} has no `keep`: all of its points stay");
            return Err(OpError::new(OpKind::InvalidInput, what).hint(format!(
                "declare which ones stay, as in `[offsite.{name}.keep]` with `within = \"90d\"`"
            )));
        }
        if !repositories.contains(&name) {
            repositories.push(name);
        }
    }
    if named.is_empty() {
        let all = session.config.offsite.keys();
        repositories.extend(all.filter(|name| session.pruner(name).is_some()).cloned());
    }
    if repositories.is_empty() {
        return Ok(Answer::new(
            &json!({ "repositories": [] }),
            "no repository has `keep`: all points stay\n",
            Exit::Ok,
        ));
    }
    let services = session.services_or_all(&[])?;
    if how.dry_run {
        return plan(&repositories, &services, session).await;
    }
    // What is forgotten depends on whether a service is seeded, which must not change meanwhile.
    let mut locks = Vec::new();
    for service in &services {
        locks.push(
            session
                .lock(&service.name, ("prune", Claim::Alone), how.wait)
                .await?,
        );
    }
    let (engine, cx) = (&session.engine, &session.cx);
    let mut repos = Vec::with_capacity(repositories.len());
    for name in &repositories {
        let Some((pruner, policy)) = session.pruner(name) else {
            continue;
        };
        let forgotten = ops::forget_points(engine, cx, pruner.as_ref(), &services, &policy).await;
        repos.push((name, pruner, forgotten));
        if cx.cancel.is_cancelled() {
            break;
        }
    }
    // Removing the data takes hours, in which snapshots are taken, and what is lost is put back.
    drop(locks);
    let (mut text, mut exit, mut done) = (String::new(), Exit::Ok, Vec::new());
    for (name, pruner, forgotten) in repos {
        match forgotten {
            Ok(mut forgotten) => {
                ops::remove_unused(engine, cx, pruner.as_ref(), &mut forgotten).await;
                let (more, ended) = told(session, &forgotten);
                text.push_str(&more);
                exit = exit.max(ended);
                done.push(json!(forgotten));
            }
            Err(error) => {
                let answer = Answer::of_error(&session.ui, &error);
                text.push_str(&answer.text);
                exit = exit.max(answer.exit);
                done.push(json!({ "repository": name, "error": error.report() }));
            }
        }
    }
    if cx.cancel.is_cancelled() {
        exit = Exit::Interrupted;
    }
    Ok(Answer::new(&json!({ "repositories": done }), text, exit))
}

fn told(session: &Session, forgotten: &RepoForgotten) -> (String, Exit) {
    let name = &forgotten.repository;
    if forgotten.services.is_empty() && forgotten.unpruned.is_none() {
        return (
            format!("{name}: holds no points of a configured service\n"),
            Exit::Ok,
        );
    }
    let mut answer = Answer::of_ops(&session.ui, &forgotten.services);
    if let Some(error) = &forgotten.unpruned {
        answer.exit = answer.exit.max(Exit::Failed);
        let line = format!("{name}: {error}");
        answer
            .text
            .push_str(&format!("{}\n", session.ui.paint(Mood::Bad, &printable(&line))));
        if let Some(hint) = &error.hint {
            answer.text.push_str(&format!("  hint: {}\n", printable(hint)));
        }
    }
    (answer.text, answer.exit)
}

async fn plan(
    repositories: &[SourceName],
    services: &[Service],
    session: &Session,
) -> Result<Answer, OpError> {
    let (mut text, mut plans) = (String::new(), Vec::new());
    for name in repositories {
        let Some((pruner, policy)) = session.pruner(name) else {
            continue;
        };
        let plan = ops::forget_plan(&session.engine, &session.cx, pruner.as_ref(), services, &policy).await?;
        text.push_str(&planned(&plan));
        plans.push(plan);
    }
    let mut services = plans.iter().flat_map(|plan| &plan.services);
    let exit = match services.any(|service| service.guarded.is_some()) {
        true => Exit::Blocked,
        false => Exit::Ok,
    };
    Ok(Answer::new(&json!({ "plans": plans }), text, exit))
}

fn planned(plan: &RepoForgetPlan) -> String {
    let mut text = format!("{}:\n", plan.repository);
    for service in &plan.services {
        if let Some(guarded) = &service.guarded {
            text.push_str(&format!(
                "{}: all points stay: {}\n  hint: {}\n",
                service.service,
                printable(&guarded.why),
                printable(&guarded.hint)
            ));
        }
        for (dataset, decided) in &service.datasets {
            text.push_str(&format!("{dataset}:\n{decided:#}\n"));
        }
    }
    for dataset in &plan.of_no_service {
        text.push_str(&format!("{dataset}: of no configured service, all points stay\n"));
    }
    text
}
