//! `reseed replicate`

use std::collections::BTreeMap;

use reseed_core::error::OpError;
use reseed_core::lock::Claim;
use reseed_core::ops;
use serde_json::json;

use super::on_these;
use crate::args::Change;
use crate::exit::Exit;
use crate::output::Answer;
use crate::session::Session;
use crate::ui::{self, printable};

pub(crate) async fn run(args: &Change, session: &Session) -> Result<Answer, OpError> {
    if args.how.dry_run {
        let services = session.services(&args.which)?;
        return Ok(planned(session, &services, ("send", "to")).await);
    }
    let services = session.services(&args.which)?;
    // One question for all of them, before the first has its lock; each is checked again under its own.
    let ahead = ops::replicate_ahead(&session.engine, &session.cx, &services).await;
    let mut ahead: BTreeMap<_, _> = services.iter().map(|service| &service.name).zip(ahead).collect();
    on_these(
        session,
        &services,
        ("replicate", Claim::Sending),
        args.how.wait,
        async |service| {
            let ahead = ahead.remove(&service.name).unwrap_or_default();
            ops::replicate_planned(&session.engine, &session.cx, service, ahead).await
        },
    )
    .await
}

/// What a dry run says: of sending to replicas, or of fetching from elsewhere.
pub(super) async fn planned(
    session: &Session,
    services: &[reseed_core::Service],
    (verb, to): (&str, &str),
) -> Answer {
    let (mut text, mut plans, mut exit) = (String::new(), Vec::new(), Exit::Ok);
    for service in services {
        for plan in ops::replicate_plan(&session.engine, &session.cx, service).await {
            match plan {
                Ok(plan) => {
                    for (_, why) in &plan.left_out {
                        exit = exit.max(Exit::Partial);
                        text.push_str(&format!(
                            "{}: can't {verb}: {}\n",
                            service.name,
                            printable(&why.to_string())
                        ));
                    }
                    if plan.steps.is_empty() && plan.left_out.is_empty() {
                        text.push_str(&format!("{}: {} is up to date\n", service.name, plan.replica));
                    }
                    for step in &plan.steps {
                        let size = step
                            .bytes
                            .map(|b| format!(", about {}", ui::bytes(b)))
                            .unwrap_or_default();
                        let base = step
                            .base
                            .as_ref()
                            .map_or("in full".to_owned(), |b| format!("since {}", b.name));
                        text.push_str(&format!(
                            "{}: would {verb} {} snapshots of {} {to} {} {base}{size}\n",
                            service.name,
                            step.send.len(),
                            step.target.dataset,
                            plan.replica
                        ));
                        if let Some(aside) = &step.set_aside {
                            text.push_str(&format!(
                                "  first {} would be set aside as {}: {}\n",
                                step.target.dataset,
                                aside.renamed_to,
                                printable(&aside.why)
                            ));
                        }
                    }
                    plans.push(json!({ "service": service.name, "plan": plan }));
                }
                Err(error) => {
                    exit = Exit::Failed;
                    text.push_str(&format!(
                        "{}: can't tell: {}\n",
                        service.name,
                        printable(&error.to_string())
                    ));
                    plans.push(json!({ "service": service.name, "error": error.report() }));
                }
            }
        }
    }
    Answer::new(&json!({ "plans": plans }), text, exit)
}
