//! `reseed adopt`

use reseed_core::error::OpError;
use reseed_core::lock::Claim;
use reseed_core::ops;
use serde_json::json;

use super::{DryRun, on_each};
use crate::args::Change;
use crate::output::Answer;
use crate::session::Session;
use crate::ui::printable;

pub(crate) async fn run(args: &Change, session: &Session) -> Result<Answer, OpError> {
    if args.how.dry_run {
        let mut dry = DryRun::new();
        for service in session.services(&args.which)? {
            match ops::adopt_plan(&session.engine, &session.cx, &service).await {
                Ok(targets) => {
                    for target in &targets {
                        dry.text.push_str(&format!(
                            "{}: would mark what is in {} as its data\n",
                            service.name,
                            printable(&target.target.mountpoint.display().to_string())
                        ));
                    }
                    dry.plans
                        .push(json!({ "service": service.name, "targets": targets }));
                }
                Err(error) => dry.refuse(&service, &error),
            }
        }
        return Ok(dry.answer());
    }
    on_each(
        session,
        &args.which,
        ("adopt", Claim::Alone),
        args.how.wait,
        async |service| vec![ops::adopt(&session.engine, &session.cx, service).await],
    )
    .await
}
