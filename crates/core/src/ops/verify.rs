//! Proof by restoring: the newest state of every source into a scratch directory, measured, compared, removed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::restore::{At, RestoreOptions, bring};
use super::{Doing, OpOutcome, OpReport};
use crate::context::Context;
use crate::engine::Engine;
use crate::error::{ErrorReport, OpError, OpKind};
use crate::names::SourceName;
use crate::offsite::{CheckDepth, CheckReport, OffsiteRepo};
use crate::service::Service;
use crate::source::Scope;
use crate::verify::ScratchDir;

const BUDGET: Duration = Duration::from_secs(7 * 24 * 3600);

/// Restores the newest state of each source (or of one) into a scratch place, compares it with what was recorded, and removes it.
pub async fn verify(
    engine: &Engine,
    cx: &Context,
    service: &Service,
    from: Option<&SourceName>,
    scratch: &ScratchDir,
) -> Vec<OpReport> {
    let mut reports = Vec::new();
    for source in service
        .sources
        .iter()
        .filter(|s| from.is_none_or(|wanted| s.name() == wanted))
    {
        let mut doing = Doing::begin(engine, cx, service, "verify", Some(source.name()));
        let options = RestoreOptions {
            from: Some(source.name().clone()),
            at: At::Newest,
            set_aside: false,
        };
        let name = format!("{}-{}-{}", service.name, source.name(), cx.run);
        let result = match scratch.take(&name) {
            Ok(place) => {
                let restored = bring(engine, cx, service, &options, &Scope::Whole, place.path()).await;
                if let Err(error) = place.clear() {
                    doing.warn(error.to_string());
                }
                restored
            }
            Err(error) => Err(error),
        };
        reports.push(match result {
            Ok(restored) => {
                let mut unproven = None;
                for one in &restored {
                    doing.bytes(one.bytes);
                    doing.done(format!("{} of {}: {} files, {} bytes in {:.1} s", one.dataset, one.taken_at, one.files, one.bytes, one.seconds));
                    if one.digest_matches.is_none() {
                        unproven.get_or_insert(OpError::new(OpKind::Failed, format!("no tree digest was recorded with point {} of {}: it came back, and nothing can be compared", one.point, one.dataset)).report());
                    }
                }
                match unproven {
                    None => doing.end(OpOutcome::Ok),
                    Some(why) => doing.end_with(OpOutcome::Partial, Some(why)),
                }
            }
            Err(error) => doing.fail(error.report()),
        });
    }
    reports
}

/// What a check of a repository found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoCheck {
    /// The repository.
    pub repository: SourceName,
    /// What was found, or why it could not be looked at.
    pub result: Result<CheckReport, ErrorReport>,
}

/// Looks for damage in a repository.
pub async fn check_repo(
    engine: &Engine,
    cx: &Context,
    repo: &dyn OffsiteRepo,
    depth: CheckDepth,
) -> RepoCheck {
    let result = engine.within(cx, BUDGET, "checking the repository", |cx| async move {
        repo.check(&cx, depth).await
    });
    RepoCheck {
        repository: repo.name().clone(),
        result: result.await.map_err(|e| e.report()),
    }
}
