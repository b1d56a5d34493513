//! `reseed rollback`

use std::io::{IsTerminal as _, Write as _};

use reseed_core::error::{OpError, OpKind};
use reseed_core::lock::Claim;
use reseed_core::ops::{self, RollbackPreview};
use serde_json::{Value, json};

use super::unit::Unit;
use crate::args::RollbackArgs;
use crate::exit::Exit;
use crate::output::Answer;
use crate::session::Session;
use crate::ui::{self, printable};

pub(crate) async fn run(args: &RollbackArgs, session: &Session) -> Result<Answer, OpError> {
    let service = session.service(&args.service)?;
    let preview = ops::rollback_plan(&session.engine, &session.cx, &service, &args.snapshot).await?;
    let unit = Unit::of(session, &args.service).await?;
    let mut text = shown(&preview);
    text.push_str(&unit.shown());
    let blocked = unit.runs().then(|| unit.refusal());
    if args.how.dry_run {
        let exit = blocked.as_ref().map_or(Exit::Ok, Exit::of_error);
        return Ok(Answer::new(
            &document(&preview, &unit, blocked.as_ref()),
            text,
            exit,
        ));
    }
    // What is about to happen comes first, whatever becomes of it.
    crate::complain(text.trim_end());
    let refused = match blocked {
        Some(error) => Some(error),
        None => agreed(args, session, &preview).await.err(),
    };
    if let Some(error) = refused {
        let mut answer = Answer::of_error(&session.ui, &error);
        answer.json = document(&preview, &unit, Some(&error));
        return Ok(answer);
    }
    let _lock = session
        .lock(&service.name, ("rollback", Claim::Alone), args.how.wait)
        .await?;
    // It may have been started while somebody was asked, or waited.
    Unit::of(session, &args.service).await?.must_not_run()?;
    let report = ops::rollback(&session.engine, &session.cx, &service, &preview).await?;
    let mut answer = Answer::of_preseeds(&session.ui, std::slice::from_ref(&report));
    if let Value::Object(all) = &mut answer.json {
        all.insert("preview".to_owned(), json!(preview));
        all.insert("unit".to_owned(), unit.json());
    }
    Ok(answer)
}

fn document(preview: &RollbackPreview, unit: &Unit, error: Option<&OpError>) -> Value {
    let mut all = json!({ "preview": preview, "unit": unit.json() });
    if let Some(error) = error {
        all["error"] = json!(error.report());
    }
    all
}

/// The preview for a person.
fn shown(preview: &RollbackPreview) -> String {
    let mut text = String::new();
    for step in &preview.datasets {
        let name = printable(&format!("{}@{}", step.snapshot.dataset, step.snapshot.name));
        text.push_str(&format!(
            "{}: would go back to {name}, of {} (guid {})\n",
            preview.service, step.taken_at, step.snapshot.guid
        ));
        text.push_str(&match (step.written, &step.kept_as) {
            (_, None) => "  nothing is live there now\n".to_owned(),
            (Some(written), _) => format!("  written since: {}\n", ui::bytes(written)),
            (None, _) => "  written since: not known, a directory doesn't count it\n".to_owned(),
        });
        match step.newer.as_slice() {
            [] => text.push_str("  no newer snapshots\n"),
            newer => {
                text.push_str(&format!(
                    "  {} newer snapshots, which stay with it:\n",
                    newer.len()
                ));
                for one in newer {
                    let name = printable(one.name.as_str());
                    text.push_str(&format!("    {name}, of {}\n", one.taken_at));
                }
            }
        }
        if let Some(kept) = &step.kept_as {
            text.push_str(&format!(
                "  what is live now would be kept as {}\n",
                printable(kept)
            ));
        }
    }
    text
}

/// Whether it is to be done.
async fn agreed(args: &RollbackArgs, session: &Session, preview: &RollbackPreview) -> Result<(), OpError> {
    if args.yes {
        return Ok(());
    }
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        let what = "nobody is here to be asked, and nothing was changed";
        return Err(OpError::new(OpKind::InvalidInput, what)
            .hint("look at the preview; `--yes` does it without asking, `-n` only says it"));
    }
    let _ = write!(std::io::stderr().lock(), "Roll {} back? [y/N] ", preview.service);
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    let line = tokio::select! {
        line = read => line,
        () = session.cx.cancel.cancelled() => {
            return Err(OpError::new(OpKind::Cancelled, "the run was interrupted, and nothing was changed"));
        }
    };
    match line {
        Ok(Ok(line)) if ["y", "yes"].contains(&line.trim().to_ascii_lowercase().as_str()) => Ok(()),
        _ => Err(OpError::new(
            OpKind::Failed,
            "you did not agree, and nothing was changed",
        )),
    }
}
