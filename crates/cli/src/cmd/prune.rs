//! `reseed prune`

use reseed_core::error::OpError;
use reseed_core::lock::Claim;
use reseed_core::ops;
use serde_json::json;

use super::{DryRun, on_each};
use crate::args::Change;
use crate::output::Answer;
use crate::session::Session;

pub(crate) async fn run(args: &Change, session: &Session) -> Result<Answer, OpError> {
    if args.how.dry_run {
        let mut dry = DryRun::new();
        for service in session.services(&args.which)? {
            let policy = session.retention_policy(&service.name);
            match ops::prune_plan(&session.engine, &session.cx, &service, &policy).await {
                Ok(plan) => {
                    for (dataset, decided) in &plan.datasets {
                        dry.text.push_str(&format!("{dataset}:\n{decided:#}\n"));
                    }
                    dry.plans.push(json!({ "service": service.name, "plan": plan }));
                }
                Err(error) => dry.refuse(&service, &error),
            }
        }
        return Ok(dry.answer());
    }
    on_each(
        session,
        &args.which,
        ("prune", Claim::Alone),
        args.how.wait,
        async |service| {
            let policy = session.retention_policy(&service.name);
            vec![ops::prune(&session.engine, &session.cx, service, &policy).await]
        },
    )
    .await
}
