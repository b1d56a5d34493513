//! `reseed offsite`

mod cost;
mod lifecycle;
mod prune;

use reseed_core::error::OpError;

use crate::args::OffsiteCmd;
use crate::output::Answer;
use crate::session::Session;

pub(crate) use lifecycle::{doctor, eating, remove_it};

pub(crate) async fn run(command: &OffsiteCmd, session: &Session) -> Result<Answer, OpError> {
    match command {
        OffsiteCmd::Prune { repositories, how } => prune::run(repositories, how, session).await,
        OffsiteCmd::Cost { repositories } => cost::run(repositories, session).await,
        OffsiteCmd::Lifecycle {
            repository,
            store,
            days,
        } => lifecycle::run(repository, *store, *days, session),
    }
}
