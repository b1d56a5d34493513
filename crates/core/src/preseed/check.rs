//! Looking at what a source delivered, before anyone else can see it: the tree digest, the service's own validators; and
//! setting apart what is wrong.

use std::path::Path;
use std::sync::Arc;

use super::report::Stage;
use super::restore::{Failure, Slot, Verified};
use super::walk::Walk;
use crate::context::Context;
use crate::error::{Effect, OpError, OpKind, SourceKind, StoreError, StoreKind};
use crate::point::{Fingerprint, RecoveryPoint};
use crate::service::Verify;
use crate::source::{RestoreSource, Restored};
use crate::store::Settle;
use crate::verify::Validator;

/// Whether what comes back may be less than what is recorded: what could not be read when it was stored is recorded, and not there. All else
/// the source vouches for.
pub(crate) fn may_lack(point: &RecoveryPoint, source: &dyn RestoreSource) -> bool {
    point.partial && source.caps().verifies
}

/// What is told of an altered point that is compared with no digest.
pub(crate) const ALTERED: &str = "the point's record was written anew since (by `tag`, `rewrite`, `repair snapshots` or `copy`), and it is compared with no digest: \
     whether all of it is still there can't be told";

impl Walk<'_> {
    /// What was fetched is looked at for as long as there is time at all, whatever the source's share of it was.
    pub(super) async fn verify(
        &mut self,
        slot: &mut Slot,
        point: &RecoveryPoint,
        source: &dyn RestoreSource,
        restored: Restored,
    ) -> Result<Verified, Failure> {
        let Some(root) = slot.staged.as_ref().map(|s| s.staging.path.clone()) else {
            let lost: StoreError = StoreError::new(StoreKind::NotFound, "staging is gone");
            return Err(Failure::store(Stage::Verify, &lost));
        };
        match self.look(&root, point, source, &restored).await {
            Ok((fingerprint, matches)) => Ok(Verified {
                restored,
                fingerprint,
                matches,
            }),
            Err(error) => {
                // Only what was looked at and found wrong is set apart; a look that could not be taken says nothing.
                if error.kind() == OpKind::Failed {
                    self.quarantine(slot, &error.to_string()).await;
                }
                // Only "it is wrong" speaks against the source; a check that could not be made is this machine's own trouble.
                let target = !matches!(
                    error.kind(),
                    OpKind::Failed | OpKind::Cancelled | OpKind::TimedOut
                );
                let report = error.convert::<SourceKind>(SourceKind::Corrupt).report();
                Err(Failure {
                    stage: Stage::Verify,
                    error: report,
                    target,
                    stood_still: false,
                })
            }
        }
    }

    async fn look(
        &mut self,
        root: &Path,
        point: &RecoveryPoint,
        source: &dyn RestoreSource,
        restored: &Restored,
    ) -> Result<(Option<Fingerprint>, Option<bool>), OpError> {
        self.verified.extend(restored.checked.iter().cloned());
        let verifier = Arc::clone(&self.engine.verifier);
        let mut measured = None;
        let mut matches = None;
        if self.service.policy.verify == Verify::Digest {
            let found = self
                .engine
                .within(
                    self.cx,
                    self.left(),
                    "measuring the restored tree",
                    |cx| async move { verifier.measure(&cx, root).await },
                )
                .await?;
            measured = Some(found);
            match point.fingerprint {
                Some(recorded) if recorded == found => {
                    matches = Some(true);
                    self.verified
                        .insert(format!("tree digest {} of {} files", found.digest, found.files));
                }
                Some(recorded) if may_lack(point, source) => {
                    matches = Some(false);
                    let what = format!(
                        "point {} lacks something: {} files and {} bytes came, recorded were {} files and {} bytes",
                        point.id, found.files, found.bytes, recorded.files, recorded.bytes
                    );
                    self.warn(what, None);
                }
                Some(recorded) => {
                    let what = format!(
                        "what {} delivered is not the recorded state: {} files and {} bytes with {}, recorded were {} files and {} bytes with {}",
                        source.name(),
                        found.files,
                        found.bytes,
                        found.digest,
                        recorded.files,
                        recorded.bytes,
                        recorded.digest
                    );
                    return Err(OpError::new(OpKind::Failed, what).effect(Effect::StagingOnly));
                }
                None if source.caps().verifies => {
                    self.warn(
                        format!(
                            "no tree digest was recorded with point {}; only {}'s own checks vouch for it",
                            point.id,
                            source.name()
                        ),
                        None,
                    );
                }
                None => {
                    self.warn(
                        format!(
                            "no tree digest was recorded with point {}, and {} has no checks of its own",
                            point.id,
                            source.name()
                        ),
                        None,
                    );
                }
            }
        }
        let validators = self
            .service
            .policy
            .validators
            .get(&point.dataset)
            .cloned()
            .unwrap_or_default();
        let runs_programs = validators.iter().any(|v| matches!(v, Validator::Command { .. }));
        if runs_programs && measured.is_none() {
            let verifier = Arc::clone(&self.engine.verifier);
            let limit = self.left();
            let look = |cx: Context| async move { verifier.measure(&cx, root).await };
            measured = Some(
                self.engine
                    .within(self.cx, limit, "measuring the restored tree", look)
                    .await?,
            );
        }
        for validator in &validators {
            let verifier = Arc::clone(&self.engine.verifier);
            self.engine
                .within(self.cx, self.left(), "running a validator", |cx| async move {
                    verifier.validate(&cx, root, validator).await
                })
                .await?;
            self.verified.insert(format!("validator {validator}"));
        }
        // A program may have written into the tree, which is then no longer the point.
        if runs_programs && let Some(before) = measured {
            let verifier = Arc::clone(&self.engine.verifier);
            let after = self
                .engine
                .within(self.cx, self.left(), "measuring again", |cx| async move {
                    verifier.measure(&cx, root).await
                })
                .await?;
            if after != before {
                return Err(OpError::new(
                    OpKind::Failed,
                    "a validator changed the tree that it was to look at",
                )
                .effect(Effect::StagingOnly));
            }
        }
        self.step("verified", format!("{} point {}", point.dataset, point.id));
        Ok((measured, matches))
    }

    async fn quarantine(&mut self, slot: &mut Slot, why: &str) {
        let Some(staged) = slot.staged.take() else { return };
        let dataset = &slot.target.dataset;
        match self
            .settle(
                &Settle::Quarantine {
                    staging: staged.staging.clone(),
                    why: why.to_owned(),
                },
                "quarantine",
            )
            .await
        {
            Ok(settled) => {
                let place = settled.quarantined.unwrap_or_default();
                self.warn(
                    format!(
                        "what {} delivered for {dataset} failed verification and is kept at {place}",
                        staged.source
                    ),
                    None,
                );
            }
            Err(error) => {
                self.warn(
                    format!(
                        "what {} delivered for {dataset} could not be set apart: {error}",
                        staged.source
                    ),
                    None,
                );
                slot.staged = Some(staged);
            }
        }
    }
}
