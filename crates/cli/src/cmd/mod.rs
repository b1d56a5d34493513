//! One file per command.

mod adopt;
mod backup;
mod completions;
mod config;
mod demo;
mod doctor;
mod history;
mod import;
mod init;
mod layout;
mod offsite;
mod pools;
mod preseed;
mod prune;
mod pull;
mod replicate;
mod restore;
mod rollback;
mod sanoid;
mod snapshot;
mod status;
mod unit;
mod verify;
mod verify_offsite;

use reseed_core::error::OpError;
use reseed_core::lock::Claim;
use reseed_core::ops::OpReport;
use tokio_util::sync::CancellationToken;

use crate::args::{Cli, Cmd, Services};
use crate::exit::Exit;
use crate::output::Answer;
use crate::session::{Session, config_path};
use crate::ui::{Ui, printable};

/// Runs the command.
pub(crate) async fn run(cli: &Cli, ui: Ui, cancel: CancellationToken) -> Answer {
    // These work without a configuration.
    match &cli.command {
        Cmd::Init(args) => return init::run(args, &config_path(cli), ui, cancel).await,
        Cmd::Config(command) => return config::run(command, &config_path(cli), ui),
        Cmd::Import(command) => return import::run(command, ui, cancel).await,
        Cmd::Demo(args) => return demo::run(args, ui, cancel).await,
        Cmd::Doctor(args) if args.user.is_some() => return doctor::run(args, ui, cancel).await,
        Cmd::Completions { shell } => return completions::completions(*shell),
        Cmd::Man { dir } => return completions::man(dir.as_deref()),
        _ => {}
    }
    let sink = match &cli.command {
        Cmd::Preseed(args) => preseed::sink(args, ui.sink()),
        _ => ui.sink(),
    };
    let session = match Session::open(&config_path(cli), ui, sink, cancel) {
        Ok(session) => session,
        Err(errors) => return config::errors(&errors),
    };
    let answer = match &cli.command {
        Cmd::Status(args) => status::run(args, &session).await,
        Cmd::Snapshot(args) => snapshot::run(args, &session).await,
        Cmd::Replicate(args) => replicate::run(&args.change, &session).await,
        Cmd::Pull(args) => pull::run(args, &session).await,
        Cmd::Backup(args) => backup::run(args, &session).await,
        Cmd::Preseed(args) => preseed::run(args, &session).await,
        Cmd::Restore(args) => restore::run(args, &session).await,
        Cmd::Rollback(args) => rollback::run(args, &session).await,
        Cmd::Verify(args) => verify::run(args, &session).await,
        Cmd::Prune(args) => prune::run(args, &session).await,
        Cmd::Offsite(command) => offsite::run(command, &session).await,
        Cmd::Doctor(_) => offsite::doctor(&session).await,
        Cmd::Adopt(args) => adopt::run(args, &session).await,
        Cmd::Plan => layout::plan(&session).await,
        Cmd::Apply(args) => layout::apply(args, &session).await,
        Cmd::Scrub(args) => pools::scrub(args, &session).await,
        Cmd::Sanoid(command) => sanoid::run(command, &session).await,
        Cmd::History(args) => history::run(args, &session),
        Cmd::Init(_)
        | Cmd::Config(_)
        | Cmd::Import(_)
        | Cmd::Demo(_)
        | Cmd::Completions { .. }
        | Cmd::Man { .. }
        | Cmd::RestoreWorker => Ok(Answer::new(&(), "", Exit::Ok)),
    };
    for warning in session.engine.journal.take_warnings() {
        crate::complain(&format!("warning: {}; {}", warning.message, warning.hint));
    }
    let mut answer = answer.unwrap_or_else(|error| Answer::of_error(&ui, &error));
    // What was looked at by half is no forecast, and what failed for being ended has not failed.
    if session.cx.cancel.is_cancelled() && (answer.exit != Exit::Ok || only_looks(&cli.command)) {
        answer.exit = Exit::Interrupted;
    }
    answer
}

/// Whether a command changes nothing.
fn only_looks(command: &Cmd) -> bool {
    match command {
        Cmd::Status(_) | Cmd::Plan | Cmd::Doctor(_) => true,
        Cmd::Snapshot(args) => args.how.dry_run,
        Cmd::Replicate(args) => args.change.how.dry_run,
        Cmd::Backup(args) => args.how.dry_run,
        Cmd::Preseed(args) => args.dry_run,
        Cmd::Restore(args) => args.how.dry_run,
        Cmd::Rollback(args) => args.how.dry_run,
        Cmd::Prune(args) => args.how.dry_run,
        _ => false,
    }
}

/// What a dry run says of several services.
#[derive(Debug)]
struct DryRun {
    text: String,
    plans: Vec<serde_json::Value>,
    exit: Exit,
}

impl DryRun {
    fn new() -> Self {
        Self {
            text: String::new(),
            plans: Vec::new(),
            exit: Exit::Ok,
        }
    }

    /// The run itself would refuse this one.
    fn refuse(&mut self, service: &reseed_core::Service, error: &OpError) {
        self.exit = self.exit.max(Exit::of_error(error));
        let line = format!("{}: {}\n", service.name, printable(&error.to_string()));
        self.text.push_str(&line);
        let plan = serde_json::json!({ "service": service.name, "error": error.report() });
        self.plans.push(plan);
    }

    fn answer(self) -> Answer {
        Answer::new(&serde_json::json!({ "plans": self.plans }), self.text, self.exit)
    }
}

/// Which services were not touched, and why.
fn refusals(refused: &[(&reseed_core::Service, OpError)]) -> serde_json::Value {
    let one = |(service, error): &(&reseed_core::Service, OpError)| serde_json::json!({ "service": service.name, "error": error.report() });
    refused.iter().map(one).collect()
}

/// Runs an operation on each named service while holding its lock, and answers with all reports.
async fn on_each<F>(
    session: &Session,
    which: &Services,
    operation: (&str, Claim),
    wait: std::time::Duration,
    work: F,
) -> Result<Answer, OpError>
where
    F: AsyncFnMut(&reseed_core::Service) -> Vec<OpReport>,
{
    on_these(session, &session.services(which)?, operation, wait, work).await
}

/// As [`on_each`], on services that are wired already.
async fn on_these<F>(
    session: &Session,
    services: &[reseed_core::Service],
    operation: (&str, Claim),
    wait: std::time::Duration,
    mut work: F,
) -> Result<Answer, OpError>
where
    F: AsyncFnMut(&reseed_core::Service) -> Vec<OpReport>,
{
    let mut reports = Vec::new();
    let mut refused: Vec<(&reseed_core::Service, OpError)> = Vec::new();
    for service in services {
        match session.lock(&service.name, operation, wait).await {
            Ok(_lock) => reports.extend(work(service).await),
            Err(error) => {
                crate::complain(&format!("error: {error}"));
                if let Some(hint) = error.what_to_do() {
                    crate::complain(&format!("hint: {hint}"));
                }
                refused.push((service, error));
            }
        }
        if session.cx.cancel.is_cancelled() {
            break;
        }
    }
    let mut answer = Answer::of_ops(&session.ui, &reports);
    match refused.first() {
        // A busy service among others that were done: partly done. The only one: busy.
        Some((_, error)) if reports.is_empty() => answer.exit = Exit::of_error(error),
        Some(_) => answer.exit = answer.exit.max(Exit::Partial),
        None if reports.is_empty() => {
            let words = match operation.0 {
                "snapshot" => "no snapshot is due",
                _ => "nothing is declared for this",
            };
            answer.text.push_str(&format!("{words}\n"));
        }
        None => {}
    }
    if let (false, Some(object)) = (refused.is_empty(), answer.json.as_object_mut()) {
        object.insert("refused".to_owned(), refusals(&refused));
    }
    if session.cx.cancel.is_cancelled() {
        answer.exit = Exit::Interrupted;
    }
    Ok(answer)
}
