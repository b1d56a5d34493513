//! `reseed preseed`

use std::sync::Arc;
use std::time::Duration;

use reseed_core::Service;
use reseed_core::error::OpError;
use reseed_core::event::{Event, EventSink};
use reseed_core::lock::Claim;
use reseed_core::names::RunId;
use reseed_core::preseed;
use serde_json::json;

use crate::args::{PreseedArgs, Services};
use crate::exit::Exit;
use crate::output::Answer;
use crate::session::Session;
use crate::ui::printable;

pub(crate) async fn run(args: &PreseedArgs, session: &Session) -> Result<Answer, OpError> {
    let services = session.services(&args.which)?;
    if args.dry_run {
        return Ok(plan(session, &args.which).await);
    }
    let (engine, cx) = (&session.engine, &session.cx);
    let since = engine.clock.monotonic();
    // A service whose data is there needs no lock, and must not wait for a backup of it to end.
    let all: Vec<_> = services.iter().collect();
    let found = preseed::present(engine, cx, &all).await;
    let untidy: Vec<usize> = (0..all.len())
        .filter(|n| found[*n].fetched && found[*n].report.is_some())
        .collect();
    let mut reports: Vec<_> = found.into_iter().map(|one| one.report).collect();
    let mut todo: Vec<usize> = (0..all.len()).filter(|n| reports[*n].is_none()).collect();
    // Always in the same order, so that two runs can't wait for each other.
    todo.sort_by(|a, b| all[*a].name.cmp(&all[*b].name));
    let (mut locks, mut refused) = (Vec::new(), Vec::new());
    for index in todo {
        match session
            .lock(&all[index].name, ("preseed", Claim::Alone), args.wait)
            .await
        {
            Ok(lock) => locks.push(lock),
            Err(error) => refused.push((all[index], error)),
        }
    }
    let ready: Vec<usize> = (0..all.len())
        .filter(|n| reports[*n].is_none() && refused.iter().all(|(r, _)| r.name != all[*n].name))
        .collect();
    // Inspected again under the locks: nobody changes what is acted upon.
    let services: Vec<&Service> = ready.iter().map(|n| all[*n]).collect();
    if !services.is_empty() {
        let done = preseed::preseed(engine, cx, &services, since).await;
        for (index, report) in ready.into_iter().zip(done) {
            reports[index] = Some(report);
        }
    }
    let reports: Vec<_> = reports.into_iter().flatten().collect();
    drop(locks);
    for index in untidy {
        // Whoever has it is at it, and removes it himself.
        if let Ok(_lock) = session
            .lock(&all[index].name, ("preseed", Claim::Alone), Duration::ZERO)
            .await
        {
            preseed::tidy(engine, cx, all[index]).await;
        }
    }
    let mut answer = Answer::of_preseeds(&session.ui, &reports);
    if let Some((_, first)) = refused.first() {
        for (service, error) in &refused {
            let line = format!("{}: {}\n", service.name, printable(&error.to_string()));
            answer.text.push_str(&line);
            if let Some(hint) = error.what_to_do() {
                answer.text.push_str(&format!("  hint: {}\n", printable(hint)));
            }
        }
        answer.exit = answer.exit.max(Exit::of_error(first));
        if let Some(object) = answer.json.as_object_mut() {
            object.insert("refused".to_owned(), super::refusals(&refused));
        }
    }
    Ok(answer)
}

async fn plan(session: &Session, which: &Services) -> Answer {
    let services = match session.services(which) {
        Ok(services) => services,
        Err(error) => return Answer::of_error(&session.ui, &error),
    };
    let services: Vec<_> = services.iter().collect();
    let plans = preseed::plan(&session.engine, &session.cx, &services).await;
    let mut text = String::new();
    for plan in &plans {
        let order: Vec<&str> = plan.order.iter().map(|s| s.as_str()).collect();
        let why = plan
            .why
            .as_ref()
            .map(|w| format!(": {}", printable(w)))
            .unwrap_or_default();
        let what = match plan.action.as_str() {
            "data-present" => "data present, would skip the restore".to_owned(),
            "restore" => format!("would restore, trying {}", order.join(", then ")),
            "first-start" => {
                "no recovery point exists anywhere: would start empty for the first time".to_owned()
            }
            "exhausted" => format!("would start without data and be unseeded{why}"),
            "held" => format!("would be held back{why}"),
            other => format!("{other}{why}"),
        };
        text.push_str(&format!("{}: {what}\n", plan.service));
    }
    let blocked = plans
        .iter()
        .any(|plan| matches!(plan.action.as_str(), "blocked" | "held"));
    Answer::new(
        &json!({ "plans": plans }),
        text,
        if blocked { Exit::Blocked } else { Exit::Ok },
    )
}

/// For the demo and tests: ends the process as a power cut would, once so many bytes are restored; at the latest when all is
/// staged and nothing is in place, for who copies nothing may have nothing to tell of it.
#[derive(Debug)]
struct CrashAfter {
    bytes: u64,
    inner: Arc<dyn EventSink>,
}

impl EventSink for CrashAfter {
    fn emit(&self, run: &RunId, event: Event) {
        let now = match &event {
            Event::Progress { bytes, .. } => *bytes >= self.bytes,
            Event::Step { step, .. } => step == "staged",
            _ => false,
        };
        if now {
            // No clean-up of any kind runs after this.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
        self.inner.emit(run, event);
    }
}

pub(crate) fn sink(args: &PreseedArgs, inner: Arc<dyn EventSink>) -> Arc<dyn EventSink> {
    match args.crash_after {
        Some(bytes) => Arc::new(CrashAfter { bytes, inner }),
        None => inner,
    }
}
