//! What an earlier run left: promotions that were cut off are finished, and what was staged goes once there is data.

use super::Walk;
use crate::error::{StoreError, StoreKind};
use crate::point::Target;
use crate::store::{Condition, Inspection, Settle};

impl Walk<'_> {
    /// What a promotion that was cut off before its data could be seen (renamed, not mounted yet) looks like once it is
    /// finished. None when nothing of the kind was there: what was seen before still holds.
    pub(super) async fn look_at_finished(&mut self, inspections: &[Inspection]) -> Option<Vec<Inspection>> {
        let unseen = |i: &Inspection| {
            i.condition != Condition::Populated && i.leftover.as_ref().is_some_and(|l| l.promoted)
        };
        if !inspections.iter().any(unseen) {
            return None;
        }
        match self.inspect(inspections).await {
            Ok(list) => Some(list),
            Err(error) => {
                self.warn(format!("what was finished could not be looked at: {error}"), None);
                None
            }
        }
    }

    /// Looks at the same targets again.
    pub(super) async fn inspect(&self, inspections: &[Inspection]) -> Result<Vec<Inspection>, StoreError> {
        let store = &self.service.store;
        let targets: Vec<Target> = inspections.iter().map(|i| i.target.clone()).collect();
        let ask = &targets;
        let looked = self
            .engine
            .within(
                self.cx,
                self.left_to_end(),
                "inspecting the store",
                |cx| async move { store.inspect(&cx, ask).await },
            )
            .await;
        let whole = |list: Vec<Inspection>| match list.len() == targets.len() {
            true => Ok(list),
            false => Err(StoreError::new(
                StoreKind::BadOutput,
                "not all targets were answered",
            )),
        };
        looked.and_then(whole)
    }

    /// Completes what a crash cut off between the rename and the marker.
    pub(crate) async fn finish_promotions(&mut self, inspections: &[Inspection]) -> bool {
        let (mut finished, mut failed) = (false, false);
        for inspection in inspections {
            let Some(leftover) = inspection.leftover.as_ref().filter(|l| l.promoted) else {
                continue;
            };
            let marker = self.restored_marker(&leftover.point);
            let request = Settle::Finish {
                target: inspection.target.clone(),
                leftover: leftover.clone(),
                marker,
            };
            match self.settle(&request, "finishing an earlier promotion").await {
                Ok(_) => {
                    finished = true;
                    self.step(
                        "finished",
                        format!(
                            "{} was put back by run {}",
                            inspection.target.dataset, leftover.run
                        ),
                    );
                }
                Err(error) => {
                    failed = true;
                    self.warn(
                        format!(
                            "the promotion of {} could not be finished: {error}",
                            inspection.target.dataset
                        ),
                        None,
                    );
                }
            }
        }
        finished && !failed
    }

    /// Data is there, so what an earlier run staged is of no use any more.
    pub(super) async fn discard_leftovers(&mut self, inspections: &[Inspection]) {
        for inspection in inspections {
            let Some(leftover) = inspection.leftover.as_ref().filter(|l| !l.promoted) else {
                continue;
            };
            let request = Settle::DiscardLeftover {
                target: inspection.target.clone(),
                leftover: leftover.clone(),
            };
            if let Err(error) = self.settle(&request, "removing old staging").await {
                self.warn(
                    format!(
                        "old staging of {} could not be removed: {error}",
                        inspection.target.dataset
                    ),
                    None,
                );
            }
        }
    }
}
