//! `reseed verify`

use std::collections::BTreeSet;

use reseed_core::Service;
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
    let services = session.services_as_files(&which)?;
    if let Some(from) = &from {
        has_source(&services, from)?;
    }
    if args.how.dry_run {
        let mut text = String::new();
        let mut plans = Vec::new();
        for service in services {
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
    on_these(
        session,
        &services,
        ("verify", Claim::Sending),
        args.how.wait,
        async |service| ops::verify(&session.engine, &session.cx, service, from.as_ref(), &scratch).await,
    )
    .await
}

/// A name that no service knows would prove nothing, and nobody would hear of it.
fn has_source(services: &[Service], from: &SourceName) -> Result<(), OpError> {
    let names: BTreeSet<&str> = services
        .iter()
        .flat_map(|service| &service.sources)
        .map(|source| source.name().as_str())
        .collect();
    if names.contains(from.as_str()) {
        return Ok(());
    }
    let names: Vec<&str> = names.into_iter().collect();
    let error = OpError::new(OpKind::InvalidInput, format!("no service has a source {from}"));
    Err(error.hint(format!("the sources are: {}", names.join(", "))))
}
