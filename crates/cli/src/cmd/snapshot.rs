//! `reseed snapshot`

use jiff::tz::TimeZone;
use reseed_core::error::{OpError, OpKind};
use reseed_core::lock::Claim;
use reseed_core::ops;
use reseed_core::retention::sanoid::Kind;
use reseed_core::{Service, names::SnapshotName};
use serde_json::json;

use super::{DryRun, on_each};
use crate::args::SnapshotArgs;
use crate::output::Answer;
use crate::session::Session;

pub(crate) async fn run(args: &SnapshotArgs, session: &Session) -> Result<Answer, OpError> {
    if args.how.dry_run {
        let mut dry = DryRun::new();
        for service in session.services(&args.which)? {
            let planned = match ops::snapshot_plan(&session.engine, &session.cx, &service).await {
                Ok(()) => names(args, session, &service).await,
                Err(error) => Err(error),
            };
            let names = match planned {
                Ok(names) => names,
                Err(error) => {
                    dry.refuse(&service, &error);
                    continue;
                }
            };
            for target in &service.targets {
                for name in &names {
                    dry.text.push_str(&format!(
                        "{}: would take {}@{name}\n",
                        service.name, target.dataset
                    ));
                }
            }
            if names.is_empty() {
                dry.text
                    .push_str(&format!("{}: no snapshot is due\n", service.name));
            }
            dry.plans
                .push(json!({ "service": service.name, "snapshots": names }));
        }
        return Ok(dry.answer());
    }
    on_each(
        session,
        &args.which,
        ("snapshot", Claim::Snapshots),
        args.how.wait,
        async |service| {
            let names = match names(args, session, service).await {
                Ok(names) => names,
                Err(error) => {
                    crate::complain(&format!("error: {}: {error}", service.name));
                    return vec![ops::failed(
                        &session.engine,
                        &session.cx,
                        service,
                        "snapshot",
                        &error,
                    )];
                }
            };
            let mut reports = Vec::with_capacity(names.len());
            for name in &names {
                reports.push(ops::snapshot(&session.engine, &session.cx, service, name).await);
            }
            reports
        },
    )
    .await
}

async fn names(
    args: &SnapshotArgs,
    session: &Session,
    service: &Service,
) -> Result<Vec<SnapshotName>, OpError> {
    let (engine, zone) = (&session.engine, TimeZone::system());
    let kinds: Vec<Option<Kind>> = if args.due {
        let policy = session.retention(&service.name);
        ops::due(engine, &session.cx, service, &policy, &zone)
            .await?
            .into_iter()
            .map(Some)
            .collect()
    } else {
        vec![args.kind]
    };
    // The names carry local time, as sanoid's do.
    let now = engine.clock.now().to_zoned(zone);
    let name =
        |kind| ops::snapshot_name(kind, &now).map_err(|e| OpError::new(OpKind::InvalidInput, e.to_string()));
    kinds.into_iter().map(name).collect()
}
