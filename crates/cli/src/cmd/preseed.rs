//! `reseed preseed`

use std::sync::Arc;

use reseed_core::error::OpError;
use reseed_core::event::{Event, EventSink};
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
    // All locks before the first look: nobody changes what was inspected.
    let mut locks = Vec::with_capacity(services.len());
    for service in &services {
        locks.push(session.lock(&service.name, "preseed", args.wait).await?);
    }
    let services: Vec<_> = services.iter().collect();
    let reports = preseed::preseed(&session.engine, &session.cx, &services).await;
    drop(locks);
    Ok(Answer::of_preseeds(&session.ui, &reports))
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
            other => format!("{other}{why}"),
        };
        text.push_str(&format!("{}: {what}\n", plan.service));
    }
    let blocked = plans.iter().any(|p| p.action == "blocked");
    Answer::new(
        &json!({ "plans": plans }),
        text,
        if blocked { Exit::Blocked } else { Exit::Ok },
    )
}

/// For the demo and tests: ends the process as a power cut would, once so many bytes are restored.
#[derive(Debug)]
struct CrashAfter {
    bytes: u64,
    inner: Arc<dyn EventSink>,
}

impl EventSink for CrashAfter {
    fn emit(&self, run: &RunId, event: Event) {
        if let Event::Progress { bytes, .. } = &event
            && *bytes >= self.bytes
        {
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
