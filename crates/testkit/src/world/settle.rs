//! Staging and settling in the world. A promotion is three steps with an await point after each: rename, properties,
//! marker.

use reseed_core::Context;
use reseed_core::error::{Effect, StoreError, StoreKind};
use reseed_core::names::Guid;
use reseed_core::point::{Marker, Target};
use reseed_core::store::{
    Condition, Delivery, Leftover, Replace, Settle, Settled, StagePurpose, StageRequest, StageState, Staging,
};

use super::below_mem;
use super::state::{Dataset, Exposed, Promoted, Staged, State};
use super::store::{MemStore, check_pool, condition};
use super::tree::Tree;

fn stale(what: impl Into<String>) -> StoreError {
    StoreError::new(StoreKind::StalePlan, what)
}

fn not_supported(what: &str) -> StoreError {
    StoreError::new(StoreKind::Unsupported, what)
}

impl MemStore {
    pub(super) async fn stage_it(&self, cx: &Context, request: &StageRequest) -> Result<Staging, StoreError> {
        self.world.step(cx, Effect::None).await?;
        let target = &request.target;
        let staging = match &request.purpose {
            StagePurpose::Expose { snapshot } => {
                let mut state = self.world.lock();
                check_pool(&state, target, false)?;
                let found = state.snapshots.get(&snapshot.dataset).and_then(|snaps| {
                    snaps
                        .iter()
                        .find(|snap| snap.meta.guid == snapshot.guid && snap.meta.name == snapshot.name)
                });
                let Some(tree) = found.map(|snap| snap.tree.clone()) else {
                    let what = format!("{}@{} is not there", snapshot.dataset, snapshot.name);
                    return Err(StoreError::new(StoreKind::NotFound, what));
                };
                let path = below_mem("exposed", target.dataset.as_str());
                let exposed = Exposed {
                    path: path.clone(),
                    tree,
                };
                state.exposed.insert(target.dataset.clone(), exposed);
                Staging {
                    target: target.clone(),
                    path,
                    locator: format!("{}@{}", snapshot.dataset, snapshot.name),
                    state: StageState::Exposed,
                }
            }
            StagePurpose::Restore { point, delivery } => {
                if *delivery == Delivery::Native && !self.caps.native_receive {
                    return Err(not_supported("this store can't receive streams"));
                }
                let mut state = self.world.lock();
                check_pool(&state, target, true)?;
                if let Some(staged) = state.staged.get(&target.dataset) {
                    if staged.point.id != point.id || staged.point.source != point.source {
                        let what = format!(
                            "staging for {} holds {} from {}",
                            target.dataset, staged.point.id, staged.point.source
                        );
                        return Err(StoreError::new(StoreKind::StageConflict, what));
                    }
                    let empty = staged.tree.as_ref().is_none_or(Tree::is_empty);
                    return Ok(Staging {
                        target: target.clone(),
                        path: staged.path.clone(),
                        locator: staged.locator.clone(),
                        state: if empty {
                            StageState::Fresh
                        } else {
                            StageState::Partial
                        },
                    });
                }
                if state.pool(&target.dataset).free == Some(0) {
                    return Err(StoreError::new(
                        StoreKind::NoSpace,
                        "no space for a staging dataset",
                    ));
                }
                let guid = state.new_guid();
                let path = below_mem("staging", &format!("{}/{guid}", target.dataset));
                let locator = format!("{}/reseed-staging-{guid}", target.dataset.pool());
                let staged = Staged {
                    run: cx.run.clone(),
                    point: point.clone(),
                    guid,
                    path: path.clone(),
                    locator: locator.clone(),
                    tree: (*delivery == Delivery::Files).then(Tree::empty),
                    received: *delivery == Delivery::Files,
                };
                state.staged.insert(target.dataset.clone(), staged);
                Staging {
                    target: target.clone(),
                    path,
                    locator,
                    state: StageState::Fresh,
                }
            }
        };
        self.world.step(cx, Effect::StagingOnly).await?;
        Ok(staging)
    }

    pub(super) async fn settle_it(&self, cx: &Context, request: &Settle) -> Result<Settled, StoreError> {
        self.world.step(cx, Effect::None).await?;
        match request {
            Settle::Promote {
                staging,
                replace,
                marker,
            } => self.promote(cx, staging, *replace, marker).await,
            Settle::Finish {
                target,
                leftover,
                marker,
            } => self.finish(cx, target, leftover, marker).await,
            Settle::Quarantine { staging, why: _ } => self.quarantine(cx, staging).await,
            Settle::Discard { staging } => self.discard(cx, staging).await,
            Settle::DiscardLeftover { target, leftover } => self.discard_leftover(cx, target, leftover).await,
            Settle::StartEmpty { target, marker } => self.start_empty(cx, target, marker).await,
            Settle::Mark { target, guid, marker } => self.mark(cx, target, *guid, marker).await,
        }
    }

    async fn promote(
        &self,
        cx: &Context,
        staging: &Staging,
        replace: Replace,
        marker: &Marker,
    ) -> Result<Settled, StoreError> {
        if matches!(replace, Replace::SetAside { .. }) && !self.caps.set_aside {
            return Err(not_supported("this store can't set a populated target aside"));
        }
        let target = &staging.target;
        {
            let mut state = self.world.lock();
            check_pool(&state, target, true)?;
            rename_into_place(&mut state, staging, replace)?;
        }
        self.world.step(cx, Effect::Partial).await?;
        self.complete(cx, target, marker).await
    }

    /// What comes after the rename.
    async fn complete(&self, cx: &Context, target: &Target, marker: &Marker) -> Result<Settled, StoreError> {
        let change = |change: &dyn Fn(&mut Dataset, &mut Promoted)| {
            let mut state = self.world.lock();
            let found = state.datasets.get_mut(&target.dataset);
            let Some(found) = found.filter(|found| found.promoted.is_some()) else {
                return Err(stale("the promoted dataset is gone").effect(Effect::Partial));
            };
            let mut promoted = found.promoted.take();
            if let Some(promoted) = &mut promoted {
                change(found, promoted);
            }
            found.promoted = promoted;
            Ok(Settled {
                set_aside: found
                    .promoted
                    .as_ref()
                    .and_then(|promoted| promoted.set_aside.clone()),
                quarantined: None,
                guid: Some(found.guid),
            })
        };
        change(&|_, promoted| promoted.properties = true)?;
        self.world.step(cx, Effect::Partial).await?;
        let settled = change(&|found, promoted| {
            if promoted.properties {
                found.marker = Some((found.guid, marker.clone()));
            }
        })?;
        self.world.step(cx, Effect::Partial).await?;
        Ok(settled)
    }

    async fn finish(
        &self,
        cx: &Context,
        target: &Target,
        leftover: &Leftover,
        marker: &Marker,
    ) -> Result<Settled, StoreError> {
        {
            let state = self.world.lock();
            check_pool(&state, target, true)?;
            let promoted = state
                .datasets
                .get(&target.dataset)
                .and_then(|found| found.promoted.as_ref());
            if !promoted.is_some_and(|it| it.run == leftover.run && it.point.id == leftover.point.id) {
                return Err(stale("what is there was not promoted by that run"));
            }
        }
        self.complete(cx, target, marker).await
    }

    async fn quarantine(&self, cx: &Context, staging: &Staging) -> Result<Settled, StoreError> {
        let name = {
            let mut state = self.world.lock();
            check_pool(&state, &staging.target, true)?;
            let Some(staged) = take_staged(&mut state, staging) else {
                return Err(StoreError::new(StoreKind::NotFound, "nothing is staged there"));
            };
            let name = format!("{}.{}", staging.target.dataset, staged.point.source);
            state
                .quarantine
                .insert(name.clone(), staged.tree.unwrap_or_default());
            name
        };
        self.world.step(cx, Effect::Partial).await?;
        Ok(Settled {
            quarantined: Some(name),
            ..Settled::default()
        })
    }

    async fn discard(&self, cx: &Context, staging: &Staging) -> Result<Settled, StoreError> {
        if staging.state == StageState::Exposed {
            self.world.lock().exposed.remove(&staging.target.dataset);
            return Ok(Settled::default());
        }
        check_pool(&self.world.lock(), &staging.target, true)?;
        self.delete_staged(cx, &staging.target, &staging.locator).await
    }

    /// Deletes file by file, as a real store would, and the record last.
    async fn delete_staged(
        &self,
        cx: &Context,
        target: &Target,
        locator: &str,
    ) -> Result<Settled, StoreError> {
        loop {
            {
                let mut state = self.world.lock();
                let Some(staged) = state.staged_by(locator) else {
                    return Ok(Settled::default());
                };
                let tree = staged.tree.get_or_insert_default();
                let Some(last) = tree.entries().keys().next_back().cloned() else {
                    return Ok(Settled::default());
                };
                let freed = tree.bytes(&last).map_or(0, |bytes| bytes.len() as u64);
                if !tree.remove(&last) {
                    state.staged.remove(&target.dataset);
                    return Ok(Settled::default());
                }
                if let Some(pool) = state.pools.get_mut(target.dataset.pool()) {
                    pool.free = pool.free.map(|free| free + freed);
                }
            }
            self.world.step(cx, Effect::StagingOnly).await?;
        }
    }

    async fn discard_leftover(
        &self,
        cx: &Context,
        target: &Target,
        leftover: &Leftover,
    ) -> Result<Settled, StoreError> {
        let locator = {
            let state = self.world.lock();
            check_pool(&state, target, true)?;
            match state.staged.get(&target.dataset) {
                None => return Ok(Settled::default()),
                Some(staged) if staged.run == leftover.run && staged.point.id == leftover.point.id => {
                    staged.locator.clone()
                }
                Some(_) => return Err(stale("something else is staged by now")),
            }
        };
        self.delete_staged(cx, target, &locator).await
    }

    async fn start_empty(
        &self,
        cx: &Context,
        target: &Target,
        marker: &Marker,
    ) -> Result<Settled, StoreError> {
        {
            let state = self.world.lock();
            check_pool(&state, target, true)?;
            match condition(&state, target) {
                Condition::Empty | Condition::Absent => {}
                Condition::Occupied { by } => {
                    return Err(StoreError::new(StoreKind::Occupied, "the mountpoint is occupied").said(by));
                }
                other => return Err(stale(format!("it is {other:?} now"))),
            }
        }
        self.world.make(target);
        self.world.step(cx, Effect::Partial).await?;
        let guid = match self.world.standing(&target.dataset) {
            Some(found) if !found.tree.populated() => found.guid,
            _ => return Err(stale("data has come since").effect(Effect::Partial)),
        };
        self.mark(cx, target, guid, marker).await
    }

    async fn mark(
        &self,
        cx: &Context,
        target: &Target,
        guid: Guid,
        marker: &Marker,
    ) -> Result<Settled, StoreError> {
        {
            let mut state = self.world.lock();
            check_pool(&state, target, true)?;
            match state.datasets.get_mut(&target.dataset) {
                Some(found) if found.guid == guid => found.marker = Some((guid, marker.clone())),
                _ => return Err(stale("it is not the dataset that was looked at")),
            }
        }
        self.world.step(cx, Effect::Partial).await?;
        Ok(Settled {
            guid: Some(guid),
            ..Settled::default()
        })
    }
}

fn take_staged(state: &mut State, staging: &Staging) -> Option<Staged> {
    let staged = state.staged.get(&staging.target.dataset)?;
    if staged.locator != staging.locator {
        return None;
    }
    state.staged.remove(&staging.target.dataset)
}

/// The step that makes staged data live, or finds that it has been made.
fn rename_into_place(state: &mut State, staging: &Staging, replace: Replace) -> Result<(), StoreError> {
    let target = &staging.target;
    let staged = state.staged.get(&target.dataset);
    let Some(staged) = staged.filter(|staged| staged.locator == staging.locator) else {
        let found = state.datasets.get(&target.dataset);
        let done = found.and_then(|found| found.promoted.as_ref());
        return if done.is_some_and(|promoted| promoted.locator == staging.locator) {
            Ok(())
        } else {
            Err(stale("nothing is staged there"))
        };
    };
    if !staged.received || staged.tree.is_none() {
        return Err(stale("the staged stream has not arrived to its end"));
    }
    match (condition(state, target), replace) {
        (Condition::Absent | Condition::Empty, _) => {}
        (Condition::Populated, Replace::SetAside { guid })
            if state
                .datasets
                .get(&target.dataset)
                .is_some_and(|found| found.guid == guid) => {}
        (Condition::Occupied { by }, _) => {
            return Err(StoreError::new(StoreKind::Occupied, "the mountpoint is occupied").said(by));
        }
        (other, _) => return Err(stale(format!("the target is {other:?} now"))),
    }
    let Some(staged) = state.staged.remove(&target.dataset) else {
        return Err(stale("nothing is staged there"));
    };
    let tree = staged.tree.unwrap_or_default();
    if staged
        .point
        .fingerprint
        .is_some_and(|expected| tree.fingerprint() != expected)
    {
        state.violation(format!(
            "{}: what was promoted is not {} of {}",
            target.dataset, staged.point.id, staged.point.source
        ));
    }
    let set_aside = state.datasets.remove(&target.dataset).map(|old| {
        let name = super::store::aside(target, old.guid);
        state.aside.insert(name.clone(), old);
        name
    });
    state.datasets.insert(
        target.dataset.clone(),
        Dataset {
            guid: staged.guid,
            mountpoint: target.mountpoint.clone(),
            mounted: true,
            tree,
            marker: None,
            promoted: Some(Promoted {
                locator: staged.locator,
                run: staged.run,
                point: staged.point,
                properties: false,
                set_aside,
            }),
        },
    );
    Ok(())
}
