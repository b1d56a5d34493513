//! `reseed adopt`

use reseed_core::error::OpError;
use reseed_core::ops;
use serde_json::json;

use super::on_each;
use crate::args::Change;
use crate::exit::Exit;
use crate::output::Answer;
use crate::session::Session;

pub(crate) async fn run(args: &Change, session: &Session) -> Result<Answer, OpError> {
    if args.how.dry_run {
        let names: Vec<_> = session
            .services(&args.which)?
            .into_iter()
            .map(|s| s.name)
            .collect();
        let text: String = names
            .iter()
            .map(|n| format!("would mark what is there as the data of {n}\n"))
            .collect();
        return Ok(Answer::new(&json!({ "would_adopt": names }), text, Exit::Ok));
    }
    on_each(session, &args.which, "adopt", args.how.wait, async |service| {
        vec![ops::adopt(&session.engine, &session.cx, service).await]
    })
    .await
}
