//! `reseed init`

use std::io::Write as _;
use std::path::Path;

use reseed_core::OffsiteRepo as _;
use reseed_core::error::{OffsiteKind, OpError, OpKind};
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

pub(crate) async fn run(args: &InitArgs, path: &Path, ui: Ui, cancel: CancellationToken) -> Answer {
    if std::fs::symlink_metadata(path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
        return starter(args, path, ui);
    }
    let session = match Session::open(path, ui, ui.sink(), cancel) {
        Ok(session) => session,
        Err(errors) => return super::config::errors(&errors),
    };
    let mut made = Vec::new();
    let state = format!("state directory {}", session.config.state_dir.display());
    made.push(if args.dry_run {
        Made {
            what: state,
            result: "would-make",
            error: None,
        }
    } else {
        let result = std::fs::create_dir_all(&session.config.state_dir);
        match result {
            Ok(()) => Made {
                what: state,
                result: "ready",
                error: None,
            },
            Err(error) => {
                let error: OpError = OpError::io(format!("can't make the {state}"), &error);
                Made {
                    what: state,
                    result: "failed",
                    error: Some(error.report()),
                }
            }
        }
    });
    for (name, place) in session.places() {
        let what = format!("{name} in {}", place.root().display());
        if args.dry_run {
            let result = if place.check(&session.cx).await.is_ok() {
                "ready"
            } else {
                "would-make"
            };
            made.push(Made {
                what,
                result,
                error: None,
            });
            continue;
        }
        made.push(match place.init(&session.cx).await {
            Ok(_) => Made {
                what,
                result: "ready",
                error: None,
            },
            Err(error) => Made {
                what,
                result: "failed",
                error: Some(error.report()),
            },
        });
    }
    for (name, repo) in session.repos() {
        let what = format!("repository {name}");
        // Only "there is none" makes one; a locked, unreachable or foreign one is reported.
        made.push(match repo.open(&session.cx).await {
            Ok(_) => Made {
                what,
                result: "ready",
                error: None,
            },
            Err(error) if error.kind() == OffsiteKind::NoRepository && args.dry_run => Made {
                what,
                result: "would-make",
                error: None,
            },
            Err(error) if error.kind() == OffsiteKind::NoRepository => match repo.init(&session.cx).await {
                Ok(_) => Made {
                    what,
                    result: "ready",
                    error: None,
                },
                Err(error) => Made {
                    what,
                    result: "failed",
                    error: Some(error.report()),
                },
            },
            Err(error) => Made {
                what,
                result: "failed",
                error: Some(error.report()),
            },
        });
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
            debug_assert!(error.kind() != OpKind::Cancelled);
            Answer::of_error(&ui, &error)
        }
    }
}
