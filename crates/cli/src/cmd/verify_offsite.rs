//! `reseed verify offsite`

use reseed_core::Service;
use reseed_core::error::{OpError, OpKind};
use reseed_core::names::SourceName;
use reseed_core::offsite::CheckDepth;
use reseed_core::ops::{self, RepoCheck};
use serde_json::json;

use super::offsite;
use crate::args::VerifyOffsiteArgs;
use crate::exit::Exit;
use crate::output::Answer;
use crate::session::Session;
use crate::ui::{self, Mood, printable};

pub(crate) async fn run(args: &VerifyOffsiteArgs, session: &Session) -> Result<Answer, OpError> {
    let repos = match args.repositories.as_slice() {
        [] => session.repos().into_iter().map(|(_, repo)| repo).collect(),
        names => names
            .iter()
            .map(|name| session.repo(name))
            .collect::<Result<Vec<_>, _>>()?,
    };
    let services = session.services_or_all(&[])?;
    let (mut text, mut exit) = (String::new(), Exit::Ok);
    let (mut plans, mut checks, mut harms) = (Vec::new(), Vec::new(), Vec::new());
    for repo in &repos {
        let backed_up: Vec<&Service> = services
            .iter()
            .filter(|service| {
                service
                    .offsite
                    .iter()
                    .any(|offsite| offsite.name() == repo.name())
            })
            .collect();
        let depth = depth(args, session, repo.name(), &backed_up)?;
        if args.dry_run {
            text.push_str(&format!("{}: would read {}\n", repo.name(), in_words(depth)));
            plans.push(json!({ "repository": repo.name(), "depth": depth }));
            continue;
        }
        // However sound it is today.
        for harm in offsite::eating(session, repo.name()).await {
            exit = exit.max(Exit::Failed);
            let line = format!("{}: {harm}: the repository will be destroyed", repo.name());
            text.push_str(&format!(
                "{}\n  hint: {}\n",
                session.ui.paint(Mood::Bad, &printable(&line)),
                offsite::remove_it(repo.name())
            ));
            harms.push(json!({ "repository": repo.name(), "harm": harm }));
        }
        let check = ops::check_repo(&session.engine, &session.cx, repo.as_ref(), &backed_up, depth).await;
        text.push_str(&told(session, &check));
        if !check.is_sound() {
            exit = exit.max(Exit::Failed);
        }
        checks.push(check);
        if session.cx.cancel.is_cancelled() {
            exit = Exit::Interrupted;
            break;
        }
    }
    if repos.is_empty() {
        text.push_str("no off-site repository is configured\n");
    }
    Ok(match args.dry_run {
        true => Answer::new(&json!({ "plans": plans }), text, exit),
        false => Answer::new(&json!({ "repositories": checks, "harms": harms }), text, exit),
    })
}

fn depth(
    args: &VerifyOffsiteArgs,
    session: &Session,
    repo: &SourceName,
    services: &[&Service],
) -> Result<CheckDepth, OpError> {
    match args.depth.as_str() {
        "rotating" => Ok(ops::next_part(&session.engine, repo, args.parts, services)),
        text => text.parse().map_err(|error| {
            OpError::new(OpKind::InvalidInput, format!("{error}"))
                .hint("it is `structure`, `rotating`, `everything`, or a part such as `3/30`")
        }),
    }
}

fn in_words(depth: CheckDepth) -> String {
    match depth {
        CheckDepth::Structure => "its structure, and none of the data".to_owned(),
        CheckDepth::Part { n, of } => format!("its structure, and part {n} of {of} of the data"),
        CheckDepth::Everything => "its structure, and all data".to_owned(),
    }
}

fn told(session: &Session, check: &RepoCheck) -> String {
    let name = &check.repository;
    let report = match &check.result {
        Ok(report) => report,
        Err(error) => {
            let mut text = format!(
                "{}: {name} could not be checked: {}\n",
                session.ui.paint(Mood::Bad, "error"),
                printable(&error.to_string())
            );
            if let Some(hint) = &error.hint {
                text.push_str(&format!("hint: {}\n", printable(hint)));
            }
            return text;
        }
    };
    // restic doesn't tell how much it has read.
    let read = match report.bytes_read {
        0 => String::new(),
        bytes => format!(", {} read", ui::bytes(bytes)),
    };
    if report.errors.is_empty() {
        let line = format!("{name}: sound ({}{read})", check.depth);
        return format!("{}\n", session.ui.paint(Mood::Good, &line));
    }
    let line = format!("{name}: damaged ({}{read})", check.depth);
    let mut text = format!("{}\n", session.ui.paint(Mood::Bad, &line));
    for error in &report.errors {
        text.push_str(&format!("  {}\n", printable(error)));
    }
    for service in &check.services {
        text.push_str(&format!("{}\n", printable(&service.summary())));
    }
    if report.affected.is_none() {
        text.push_str("which recovery points it costs could not be told\n");
    }
    text
}
