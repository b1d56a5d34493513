//! `reseed history`

use jiff::tz::TimeZone;
use reseed_core::error::{OpError, OpKind};
use reseed_core::journal::{Query, RunKind};
use serde_json::json;

use crate::args::HistoryArgs;
use crate::exit::Exit;
use crate::output::Answer;
use crate::session::Session;
use crate::ui::{self, Mood, Table, printable};

pub(crate) fn run(args: &HistoryArgs, session: &Session) -> Result<Answer, OpError> {
    let service = args
        .service
        .as_deref()
        .map(|name| Ok(session.config.service(name)?.name.clone()))
        .transpose()?;
    let kind = args
        .kind
        .as_deref()
        .map(str::parse::<RunKind>)
        .transpose()
        .map_err(|e| {
            let kinds: Vec<&str> = RunKind::ALL.iter().map(|k| k.name()).collect();
            OpError::new(OpKind::InvalidInput, e.to_string())
                .hint(format!("the kinds are {}", kinds.join(", ")))
        })?;
    let query = Query {
        service,
        kind,
        limit: Some(args.limit),
        ..Query::default()
    };
    let runs = session.engine.journal.history(&query).map_err(|e| {
        OpError::new(OpKind::Failed, format!("the history can't be shown: {e}")).hint(e.hint())
    })?;
    let mut table = Table::new(&["when", "service", "what", "outcome", "source", "time", "bytes"]);
    for run in &runs {
        let outcome = run.outcome.map_or("running", |o| o.name());
        let mood = match run.outcome {
            Some(outcome) if outcome.is_success() => Mood::Good,
            Some(_) => Mood::Bad,
            None => Mood::Dim,
        };
        let peer = run
            .source
            .as_ref()
            .or(run.key.peer.as_ref())
            .map(ToString::to_string);
        table.row([
            run.started_at
                .to_zoned(TimeZone::system())
                .strftime("%Y-%m-%d %H:%M:%S")
                .to_string(),
            run.key.service.to_string(),
            run.key.kind.name().to_owned(),
            session.ui.paint(mood, outcome),
            peer.map_or("-".to_owned(), |p| printable(&p)),
            run.seconds.map_or("-".to_owned(), |s| format!("{s:.1} s")),
            run.bytes.map_or("-".to_owned(), ui::bytes),
        ]);
    }
    Ok(Answer::new(&json!({ "runs": runs }), table.to_string(), Exit::Ok))
}
