//! `reseed doctor --user`; without it the off-site repositories are looked at, in [`offsite`](super::offsite).

use std::sync::Arc;

use reseed_backend_zfs::zfs::delegation::{Role, Trial, Who};
use reseed_core::Context;
use reseed_core::clock::{Clock as _, SystemClock};
use reseed_core::entropy::SplitMix;
use reseed_core::error::{OpError, OpKind};
use reseed_core::exec::{Command, Runner as _, SystemRunner};
use reseed_core::names::{DatasetName, RunId};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::args::DoctorArgs;
use crate::exit::Exit;
use crate::output::Answer;
use crate::ui::{Mood, Ui, printable};

pub(crate) async fn run(args: &DoctorArgs, ui: Ui, cancel: CancellationToken) -> Answer {
    let run = RunId::generate(SystemClock::new().now(), &SplitMix::system());
    let cx = Context::new(run, ui.sink(), cancel);
    delegation(args, &ui, &cx)
        .await
        .unwrap_or_else(|error| Answer::of_error(&ui, &error))
}

async fn delegation(args: &DoctorArgs, ui: &Ui, cx: &Context) -> Result<Answer, OpError> {
    let trial = Trial::new(Arc::new(SystemRunner::new()));
    let user = args.user.as_deref().unwrap_or_default();
    let who = Who {
        user: user.to_owned(),
        groups: groups(cx, user).await?,
    };
    let (mut audits, mut trials, mut text, mut fine) = (Vec::new(), Vec::new(), String::new(), true);
    let all = args.send.iter().map(|name| (Role::Send, name));
    for (role, name) in all.chain(args.receive.iter().map(|name| (Role::Receive, name))) {
        let dataset = dataset(name)?;
        let audit = trial
            .audit(cx, role, &dataset, &who)
            .await
            .map_err(|error| error.convert(OpKind::Failed))?;
        let (mood, verdict) = if audit.is_fine() {
            (Mood::Good, "has what it needs, and nothing that is too much")
        } else {
            (Mood::Bad, "has not the right grants")
        };
        let what = match role {
            Role::Send => "send from",
            Role::Receive => "receive below",
        };
        let line = format!("{user} {verdict} to {what} {dataset}");
        text.push_str(&format!("{}\n", ui.paint(mood, &printable(&line))));
        for (kind, findings) in [("missing", &audit.missing), ("too much", &audit.too_much)] {
            for finding in findings {
                text.push_str(&format!("  {kind}: {}, {}\n", finding.permission, finding.why));
            }
        }
        for command in &audit.commands {
            text.push_str(&format!("  run: {command}\n"));
        }
        fine &= audit.is_fine();
        if role == Role::Receive && args.trial {
            let tried = trial
                .force(cx, &dataset, user)
                .await
                .map_err(|error| error.convert(OpKind::Failed))?;
            let (mood, verdict) = match (tried.receives, tried.force_refused) {
                (true, true) => (
                    Mood::Good,
                    "tried: a plain receive works, a forced one is refused",
                ),
                (true, false) => (Mood::Bad, "tried: a forced receive is NOT refused"),
                (false, _) => (Mood::Bad, "tried: it can't receive at all"),
            };
            text.push_str(&format!("  {}\n", ui.paint(mood, verdict)));
            if let Some(said) = &tried.said {
                text.push_str(&format!("    {}\n", printable(said)));
            }
            fine &= tried.is_fine();
            trials.push(json!({ "dataset": dataset, "tried": tried }));
        }
        audits.push(audit);
    }
    let exit = if fine { Exit::Ok } else { Exit::Failed };
    Ok(Answer::new(
        &json!({ "audits": audits, "trials": trials }),
        text,
        exit,
    ))
}

fn dataset(name: &str) -> Result<DatasetName, OpError> {
    DatasetName::new(name).map_err(|error| {
        OpError::new(OpKind::InvalidInput, format!("{name} is no dataset's name")).said(error)
    })
}

/// The names of a user's groups. A user that isn't there is an error: grants for it would mean nothing.
async fn groups(cx: &Context, user: &str) -> Result<Vec<String>, OpError> {
    let what = format!("can't tell the groups of user {user}");
    if user.starts_with('-') {
        return Err(OpError::new(
            OpKind::InvalidInput,
            format!("{user} is no user's name"),
        ));
    }
    let output = SystemRunner::new()
        .run(&Command::new("id").args(["-Gn", "--", user]), &cx.cancel)
        .await
        .and_then(|output| output.require_success())
        .map_err(|error| error.into_error::<OpKind>(what, reseed_core::error::Effect::None))?;
    let text = output.stdout.text();
    Ok(text.split_whitespace().map(str::to_owned).collect())
}
