//! `reseed backup`

use reseed_core::error::OpError;
use reseed_core::lock::Claim;
use reseed_core::ops;
use serde_json::json;

use super::on_each;
use crate::args::Change;
use crate::exit::Exit;
use crate::output::Answer;
use crate::session::Session;

pub(crate) async fn run(args: &Change, session: &Session) -> Result<Answer, OpError> {
    if args.how.dry_run {
        let (mut text, mut plans, mut exit) = (String::new(), Vec::new(), Exit::Ok);
        for service in session.services(&args.which)? {
            for plan in ops::backup_plan(&session.engine, &session.cx, &service).await {
                let what = match (&plan.error, plan.snapshots.as_slice()) {
                    (Some(error), _) => {
                        exit = Exit::Failed;
                        format!("can't tell: {error}")
                    }
                    (None, []) => "up to date".to_owned(),
                    (None, snapshots) => format!("would store {}", snapshots.join(", ")),
                };
                text.push_str(&format!(
                    "{}: backup ({}) {what}\n",
                    service.name, plan.repository
                ));
                plans.push(json!({ "service": service.name, "plan": plan }));
            }
        }
        return Ok(Answer::new(&json!({ "plans": plans }), text, exit));
    }
    on_each(
        session,
        &args.which,
        ("backup", Claim::Sending),
        args.how.wait,
        async |service| ops::backup(&session.engine, &session.cx, service).await,
    )
    .await
}
