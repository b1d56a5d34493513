//! `reseed verify`

use reseed_core::error::{OpError, OpKind};
use reseed_core::names::SourceName;
use reseed_core::offsite::CheckDepth;
use reseed_core::ops;
use reseed_core::verify::ScratchDir;
use serde_json::json;

use super::on_these;
use crate::args::{Services, VerifyArgs};
use crate::exit::Exit;
use crate::output::Answer;
use crate::session::Session;
use crate::ui::{self, Mood, printable};

pub(crate) async fn run(args: &VerifyArgs, session: &Session) -> Result<Answer, OpError> {
    if let Some(name) = &args.repo {
        return repo(args, name, session).await;
    }
    let from = args.from.as_deref().map(SourceName::new).transpose();
    let from = from.map_err(|e| OpError::new(OpKind::InvalidInput, e.to_string()))?;
    let scratch = args
        .scratch
        .clone()
        .unwrap_or_else(|| session.config.state_dir.join("scratch"));
    let which = Services {
        services: args.services.clone(),
        all: args.all || args.services.is_empty(),
    };
    if args.how.dry_run {
        let mut text = String::new();
        let mut plans = Vec::new();
        for service in session.services_as_files(&which)? {
            for source in service
                .sources
                .iter()
                .filter(|s| from.as_ref().is_none_or(|f| f == s.name()))
            {
                text.push_str(&format!(
                    "{}: would restore the newest state from {} below {} and compare it\n",
                    service.name,
                    source.name(),
                    scratch.display()
                ));
                plans.push(json!({ "service": service.name, "source": source.name(), "scratch": scratch }));
            }
        }
        return Ok(Answer::new(&json!({ "plans": plans }), text, Exit::Ok));
    }
    let scratch = ScratchDir::new(&scratch)?;
    let services = session.services_as_files(&which)?;
    on_these(session, &services, "verify", args.how.wait, async |service| {
        ops::verify(&session.engine, &session.cx, service, from.as_ref(), &scratch).await
    })
    .await
}

async fn repo(args: &VerifyArgs, name: &str, session: &Session) -> Result<Answer, OpError> {
    let repo = session.repo(name)?;
    let depth = depth(&args.depth)?;
    if args.how.dry_run {
        return Ok(Answer::new(
            &json!({ "would_check": name, "depth": depth }),
            format!("would check {name}: {}\n", args.depth),
            Exit::Ok,
        ));
    }
    let check = ops::check_repo(&session.engine, &session.cx, repo.as_ref(), depth).await;
    let (text, exit) = match &check.result {
        Ok(report) if report.errors.is_empty() => (
            format!(
                "{}\n",
                session.ui.paint(
                    Mood::Good,
                    &format!("{name}: sound, {} read", ui::bytes(report.bytes_read))
                )
            ),
            Exit::Ok,
        ),
        Ok(report) => {
            let mut text = format!("{}\n", session.ui.paint(Mood::Bad, &format!("{name}: damaged")));
            for error in &report.errors {
                text.push_str(&format!("  {}\n", printable(error)));
            }
            (text, Exit::Failed)
        }
        Err(error) => {
            let hint = error
                .hint
                .as_ref()
                .map(|h| format!("hint: {}\n", printable(h)))
                .unwrap_or_default();
            (
                format!(
                    "{}: {}\n{hint}",
                    session.ui.paint(Mood::Bad, "error"),
                    printable(&error.to_string())
                ),
                Exit::Failed,
            )
        }
    };
    Ok(Answer::new(&check, text, exit))
}

fn depth(text: &str) -> Result<CheckDepth, OpError> {
    let part = || {
        let (n, of) = text.split_once('/')?;
        let (n, of) = (n.parse().ok()?, of.parse().ok()?);
        (n >= 1 && n <= of).then_some(CheckDepth::Part { n, of })
    };
    match text {
        "structure" => Ok(CheckDepth::Structure),
        "everything" => Ok(CheckDepth::Everything),
        _ => part().ok_or_else(|| {
            OpError::new(OpKind::InvalidInput, format!("{text:?} is no depth"))
                .hint("it is `structure`, `everything`, or a part such as `3/30`")
        }),
    }
}
