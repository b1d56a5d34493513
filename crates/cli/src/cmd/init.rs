//! `reseed init`

use std::io::Write as _;
use std::path::Path;

use reseed_core::error::{OffsiteKind, OpError, OpKind};
use reseed_core::known::Known;
use reseed_core::names::SourceName;
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::args::InitArgs;
use crate::exit::Exit;
use crate::output::Answer;
use crate::session::Session;
use crate::ui::{Mood, Ui, printable};

/// A first configuration, to be edited.
const STARTER: &str = include_str!("../../starter.toml");

#[derive(Debug, Serialize)]
struct Made {
    what: String,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<reseed_core::error::ErrorReport>,
}

impl Made {
    fn of(what: String, result: Result<&'static str, OpError>) -> Self {
        match result {
            Ok(result) => Self {
                what,
                result,
                error: None,
            },
            Err(error) => Self {
                what,
                result: "failed",
                error: Some(error.report()),
            },
        }
    }
}

pub(crate) async fn run(args: &InitArgs, path: &Path, ui: Ui, cancel: CancellationToken) -> Answer {
    if std::fs::symlink_metadata(path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
        return starter(args, path, ui);
    }
    let session = match Session::open(path, ui, ui.sink(), cancel) {
        Ok(session) => session,
        Err(errors) => return super::config::errors(&errors),
    };
    let config = &session.config;
    let places = config.stores.keys().chain(config.replicas.keys());
    let names: Vec<&str> = places
        .chain(config.pulls.keys())
        .chain(config.offsite.keys())
        .map(SourceName::as_str)
        .collect();
    if let Some(unknown) = args.anew.iter().find(|name| !names.contains(&name.as_str())) {
        let error = OpError::new(
            OpKind::InvalidInput,
            format!("no store or repository {unknown:?} is configured"),
        )
        .hint(format!("there are: {}", names.join(", ")));
        return Answer::of_error(&ui, &error);
    }
    let state_dir = &config.state_dir;
    let state = format!("state directory {}", state_dir.display());
    let result = match (args.dry_run, state_dir.is_dir()) {
        (_, true) => Ok("ready"),
        (true, false) => Ok("would-make"),
        (false, false) => std::fs::create_dir_all(state_dir)
            .map(|()| "ready")
            .map_err(|error| OpError::io(format!("can't make the {state}"), &error)),
    };
    let mut made = vec![Made::of(state, result)];
    let mut known = match Known::load(state_dir) {
        Ok(known) => known,
        Err(error) => return Answer::of_error(&ui, &error),
    };
    for (name, place) in session.places() {
        let what = format!("{name} in {}", place.location);
        let found = place.check(&session.cx).await;
        let make = async || place.init(&session.cx).await;
        let result = one(args, &session, &mut known, (&name, &place.location), found, make).await;
        made.push(Made::of(what, result));
    }
    for (name, repo) in session.repos() {
        let what = format!("repository {name}");
        let location = session.location(&name);
        // Only "there is none" makes one; a locked, unreachable or foreign one is reported.
        let found = match repo.open(&session.cx).await {
            Ok(info) => Ok(Some(info.id)),
            Err(error) if error.kind() == OffsiteKind::NoRepository => Ok(None),
            Err(error) => Err(error.convert(OpKind::Failed)),
        };
        let make = async || {
            if let Some(harm) = super::offsite::eating(&session, &name).await.first() {
                let what = format!("{harm}: a repository there will be destroyed");
                return Err(OpError::new(OpKind::Failed, what).hint(super::offsite::remove_it(&name)));
            }
            let info = repo.init(&session.cx).await;
            info.map(|info| info.id).map_err(|e| e.convert(OpKind::Failed))
        };
        let result = one(args, &session, &mut known, (&name, &location), found, make).await;
        made.push(Made::of(what, result));
    }
    let mut text = String::new();
    for one in &made {
        let mood = if one.result == "failed" {
            Mood::Bad
        } else {
            Mood::Good
        };
        text.push_str(&format!("{}: {}\n", one.what, ui.paint(mood, one.result)));
        if let Some(error) = &one.error {
            text.push_str(&format!("  {}\n", printable(&error.to_string())));
            if let Some(hint) = &error.hint {
                text.push_str(&format!("  hint: {}\n", printable(hint)));
            }
        }
    }
    let exit = if made.iter().any(|m| m.error.is_some()) {
        Exit::Failed
    } else {
        Exit::Ok
    };
    Answer::new(&json!({ "made": made }), text, exit)
}

/// One store or repository: what was found is compared with what is known, what is missing is made where that is allowed.
async fn one(
    args: &InitArgs,
    session: &Session,
    known: &mut Known,
    (name, location): (&SourceName, &str),
    found: Result<Option<String>, OpError>,
    make: impl AsyncFnOnce() -> Result<String, OpError>,
) -> Result<&'static str, OpError> {
    let anew = args.anew.iter().any(|n| n == name.as_str());
    let id = match found? {
        Some(id) => {
            if !anew {
                known.is_same(name, location, &id)?;
            }
            id
        }
        None => {
            if !anew {
                known.may_make(name, location)?;
            }
            if args.dry_run {
                return Ok("would-make");
            }
            make().await?
        }
    };
    if !args.dry_run {
        known.remember(name, location, &id, session.engine.clock.now())?;
    }
    Ok("ready")
}

fn starter(args: &InitArgs, path: &Path, ui: Ui) -> Answer {
    let shown = path.display();
    if args.dry_run {
        return Answer::new(
            &json!({ "would_write": path }),
            format!("would write a first configuration to {shown}\n"),
            Exit::Ok,
        );
    }
    let write = || {
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent)?;
        }
        // Never over a file that appeared meanwhile.
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)?;
        file.write_all(STARTER.as_bytes())?;
        file.sync_all()
    };
    match write() {
        Ok(()) => Answer::new(
            &json!({ "wrote": path }),
            format!("wrote a first configuration to {shown}; edit it, then run `reseed init` again\n"),
            Exit::Ok,
        ),
        Err(error) => {
            let hint = "name a place that you may write to with `--config`";
            let error = OpError::io(format!("can't write {shown}"), &error).hint(hint);
            Answer::of_error(&ui, &error)
        }
    }
}
