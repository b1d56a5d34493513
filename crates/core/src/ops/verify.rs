//! Proof by restoring: the newest state of every source into a scratch directory, measured, compared, removed.

use super::restore::{At, Beside, RestoreOptions, bring};
use super::{Doing, OpOutcome, OpReport};
use crate::context::Context;
use crate::engine::Engine;
use crate::error::{OpError, OpKind};
use crate::names::SourceName;
use crate::service::Service;
use crate::source::Scope;
use crate::verify::ScratchDir;

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
                let restored = bring(
                    engine,
                    cx,
                    service,
                    &options,
                    (&Scope::Whole, Beside::Scratch),
                    place.path(),
                )
                .await;
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
                    let what = match one.digest_matches {
                        Some(true) => continue,
                        Some(false) => format!("point {} of {} lacks what could not be read when it was taken", one.point, one.dataset),
                        None => format!("no tree digest was recorded with point {} of {}: it came back, and nothing can be compared", one.point, one.dataset),
                    };
                    unproven.get_or_insert(OpError::new(OpKind::Failed, what).report());
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
