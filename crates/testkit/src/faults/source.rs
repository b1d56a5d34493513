//! [`Faulty`] as a [`RestoreSource`]: what it restores can be cut at a byte, or have a bit flipped.

use async_trait::async_trait;
use reseed_core::error::{Common, Effect, Error, Kind as _, SourceError, SourceKind};
use reseed_core::names::SourceName;
use reseed_core::point::{RecoveryPoint, Target};
use reseed_core::source::{RestorePlan, RestoreRequest, Restored, SourceCaps};
use reseed_core::store::{Delivery, Staging};
use reseed_core::{Context, RestoreSource};

use super::{Fault, Faulty, Op};
use crate::files::{EntryKind, Files};

#[async_trait]
impl RestoreSource for Faulty<dyn RestoreSource> {
    fn name(&self) -> &SourceName {
        self.inner.name()
    }

    fn caps(&self) -> SourceCaps {
        self.inner.caps()
    }

    async fn points(&self, cx: &Context, target: &Target) -> Result<Vec<RecoveryPoint>, SourceError> {
        let (op, inner_cx) = (Op::SourcePoints, cx.child());
        let fault = self.strike(op);
        let call = self.inner.points(&inner_cx, target);
        let found = self.run(cx, &inner_cx, op, fault.clone(), call).await?;
        Ok(self.answer(op, std::slice::from_ref(target), fault.as_ref(), found))
    }

    async fn plan(&self, cx: &Context, request: &RestoreRequest) -> Result<RestorePlan, SourceError> {
        let (op, inner_cx) = (Op::SourcePlan, cx.child());
        let call = self.inner.plan(&inner_cx, request);
        self.run(cx, &inner_cx, op, self.strike(op), call).await
    }

    async fn execute(
        &self,
        cx: &Context,
        plan: &RestorePlan,
        staging: &Staging,
    ) -> Result<Restored, SourceError> {
        let (op, inner_cx) = (Op::SourceExecute, cx.child());
        let fault = self.strike(op);
        let call = self.inner.execute(&inner_cx, plan, staging);
        let by_files = self.inner.caps().delivery == Delivery::Files;
        let (common, at) = match fault {
            Some(Fault::Cut(at)) if by_files => (Common::Unreachable, at),
            Some(Fault::NoSpace(at)) if by_files => (Common::NoSpace, at),
            Some(Fault::Flip(draw)) => {
                let restored = call.await?;
                flip(&*self.files, staging, draw);
                return Ok(restored);
            }
            other => return self.run(cx, &inner_cx, op, other, call).await,
        };
        call.await?;
        cut(&*self.files, staging, at);
        let what = format!("injected into {op:?} of {} at byte {at}", self.who);
        Err(Error::new(SourceKind::from_common(common), what).effect(Effect::StagingOnly))
    }
}

/// Flips a bit of some staged file that has one.
fn flip(files: &dyn Files, staging: &Staging, draw: u64) {
    let listing = files.list(&staging.path);
    let candidates: Vec<_> = listing
        .iter()
        .filter_map(|(path, entry)| match entry.kind {
            EntryKind::File { len, .. } if len > 0 => Some((path, len)),
            _ => None,
        })
        .collect();
    let count = u64::try_from(candidates.len()).unwrap_or(u64::MAX);
    let index = draw
        .checked_rem(count)
        .and_then(|index| usize::try_from(index).ok());
    if let Some((path, len)) = index.and_then(|index| candidates.get(index)) {
        let offset = usize::try_from(draw.rotate_right(32) % len).unwrap_or(0);
        files.flip(&staging.path.join(path), offset);
    }
}

/// Cuts the staged tree off at a byte: the file it is in is shortened, what comes after it is missing.
fn cut(files: &dyn Files, staging: &Staging, at: u64) {
    let mut left = at;
    for (path, entry) in files.list(&staging.path).into_iter().rev() {
        let EntryKind::File { len, .. } = entry.kind else {
            continue;
        };
        let whole = staging.path.join(&path);
        if left == 0 {
            files.remove(&whole);
        } else if len > left {
            files.set_len(&whole, left);
        }
        left = left.saturating_sub(len);
    }
}
