//! `reseed pull`

use reseed_core::error::OpError;
use reseed_core::lock::Claim;
use reseed_core::ops;

use super::{on_these, replicate};
use crate::args::PullArgs;
use crate::output::Answer;
use crate::session::Session;

pub(crate) async fn run(args: &PullArgs, session: &Session) -> Result<Answer, OpError> {
    let pulls = session.pulls(&args.names, args.all)?;
    if args.how.dry_run {
        return Ok(replicate::planned(session, &pulls, ("fetch", "from")).await);
    }
    on_these(
        session,
        &pulls,
        ("pull", Claim::Alone),
        args.how.wait,
        async |pull| ops::replicate(&session.engine, &session.cx, pull).await,
    )
    .await
}
