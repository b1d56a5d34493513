//! `reseed verify`

use reseed_core::error::{OpError, OpKind};
use reseed_core::lock::Claim;
use reseed_core::names::SourceName;
use reseed_core::ops;
use reseed_core::verify::ScratchDir;
use serde_json::json;

use super::on_these;
use crate::args::{Services, VerifyArgs, VerifyCmd};
use crate::exit::Exit;
use crate::output::Answer;
use crate::session::Session;

pub(crate) async fn run(args: &VerifyArgs, session: &Session) -> Result<Answer, OpError> {
    if let Some(VerifyCmd::Offsite(args)) = &args.what {
        return super::verify_offsite::run(args, session).await;
    }
    let from = args.from.as_deref().map(SourceName::new).transpose();
    let from = from.map_err(|e| OpError::new(OpKind::InvalidInput, e.to_string()))?;
    let scratch = args
        .scratch
        .clone()
        .unwrap_or_else(|| session.config.state_dir.join("scratch"));
    let which = Services {
        services: args.services.clone(),
        all: args.all || args.services.is_empty(),
    };
    if args.how.dry_run {
        let mut text = String::new();
        let mut plans = Vec::new();
        for service in session.services_as_files(&which)? {
            for source in service
                .sources
                .iter()
                .filter(|s| from.as_ref().is_none_or(|f| f == s.name()))
            {
                text.push_str(&format!(
                    "{}: would restore the newest state from {} below {} and compare it\n",
                    service.name,
                    source.name(),
                    scratch.display()
                ));
                plans.push(json!({ "service": service.name, "source": source.name(), "scratch": scratch }));
            }
        }
        return Ok(Answer::new(&json!({ "plans": plans }), text, Exit::Ok));
    }
    let scratch = ScratchDir::new(&scratch)?;
    let services = session.services_as_files(&which)?;
    on_these(
        session,
        &services,
        ("verify", Claim::Alone),
        args.how.wait,
        async |service| ops::verify(&session.engine, &session.cx, service, from.as_ref(), &scratch).await,
    )
    .await
}
