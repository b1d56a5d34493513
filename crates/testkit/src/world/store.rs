//! [`MemStore`]: [`SnapshotStore`] over the world. What ends a preseed is in `settle`.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use reseed_core::error::{Effect, StoreError, StoreKind};
use reseed_core::names::{Guid, HoldTag, RunId};
use reseed_core::point::{RecoveryPoint, Snapshot, SnapshotRef, Target};
use reseed_core::store::{
    Condition, CreateSnapshots, HoldChange, Inspection, Leftover, Pruned, Settle, Settled, Since,
    StageRequest, Staging, StoreCaps,
};
use reseed_core::{Context, SnapshotStore};

use super::World;
use super::state::{Snap, State};

/// The world's store.
#[derive(Debug, Clone)]
pub struct MemStore {
    pub(super) world: World,
    pub(super) caps: StoreCaps,
}

impl MemStore {
    /// A store that can do everything.
    pub fn new(world: &World) -> Self {
        Self::with_caps(
            world,
            StoreCaps {
                atomic_group: true,
                holds: true,
                native_receive: true,
                set_aside: true,
                checks_reads: false,
            },
        )
    }

    /// A store that can do only so much.
    pub fn with_caps(world: &World, caps: StoreCaps) -> Self {
        Self {
            world: world.clone(),
            caps,
        }
    }

    /// The same as a trait object.
    pub fn shared(self) -> Arc<dyn SnapshotStore> {
        Arc::new(self)
    }
}

/// Fails when the target's pool can't be worked on; `write`: when it can't be written to.
pub(super) fn check_pool(state: &State, target: &Target, write: bool) -> Result<(), StoreError> {
    let pool = state.pool(&target.dataset);
    if let Some(why) = pool.down {
        let what = format!("the pool {} is not available", target.dataset.pool());
        return Err(StoreError::new(StoreKind::PoolUnavailable, what)
            .said(why)
            .hint("zpool import"));
    }
    if write && pool.read_only {
        let what = format!("the pool {} is read-only", target.dataset.pool());
        return Err(StoreError::new(StoreKind::ReadOnly, what));
    }
    Ok(())
}

/// What a dataset is called once it is set aside.
pub(super) fn aside(target: &Target, guid: Guid) -> String {
    format!("{}.set-aside-{guid}", target.dataset)
}

pub(super) fn condition(state: &State, target: &Target) -> Condition {
    if let Some(why) = state.pool(&target.dataset).down {
        return Condition::PoolUnavailable { why };
    }
    let beneath = state
        .plain
        .get(&target.mountpoint)
        .is_some_and(super::Tree::populated);
    match state.datasets.get(&target.dataset) {
        Some(found) if found.mounted && found.mountpoint == target.mountpoint => {
            if found.tree.populated() {
                Condition::Populated
            } else {
                Condition::Empty
            }
        }
        _ if beneath => Condition::Occupied {
            by: format!("a directory with files at {}", target.mountpoint.display()),
        },
        Some(found) => Condition::Unmounted {
            why: format!("its mountpoint is {}", found.mountpoint.display()),
        },
        None => Condition::Absent,
    }
}

pub(super) fn inspect_one(state: &State, target: &Target) -> Inspection {
    let condition = condition(state, target);
    let known = !matches!(condition, Condition::PoolUnavailable { .. });
    let found = state.datasets.get(&target.dataset).filter(|_| known);
    let marker = found.and_then(|found| {
        let (guid, marker) = found.marker.as_ref()?;
        (*guid == found.guid).then(|| marker.clone())
    });
    let leftover = |run: &RunId, point: &RecoveryPoint, promoted| Leftover {
        over: None,
        files: false,
        run: run.clone(),
        source: point.source.clone(),
        point: point.clone(),
        promoted,
    };
    let staged = state.staged.get(&target.dataset).filter(|_| known);
    let unfinished = found
        .and_then(|found| found.promoted.as_ref())
        .filter(|_| marker.is_none());
    Inspection {
        target: target.clone(),
        condition,
        guid: found.map(|found| found.guid),
        leftover: staged
            .map(|staged| leftover(&staged.run, &staged.point, false))
            .or_else(|| unfinished.map(|promoted| leftover(&promoted.run, &promoted.point, true))),
        marker,
    }
}

fn find<'a>(state: &'a mut State, wanted: &SnapshotRef) -> Option<&'a mut Snap> {
    state
        .snapshots
        .get_mut(&wanted.dataset)?
        .iter_mut()
        .find(|snap| snap.meta.name == wanted.name && snap.meta.guid == wanted.guid)
}

#[async_trait]
impl SnapshotStore for MemStore {
    fn caps(&self) -> StoreCaps {
        self.caps
    }

    async fn inspect(&self, cx: &Context, targets: &[Target]) -> Result<Vec<Inspection>, StoreError> {
        self.world.step(cx, Effect::None).await?;
        let state = self.world.lock();
        Ok(targets.iter().map(|target| inspect_one(&state, target)).collect())
    }

    async fn list(&self, cx: &Context, targets: &[Target]) -> Result<Vec<Snapshot>, StoreError> {
        self.world.step(cx, Effect::None).await?;
        let state = self.world.lock();
        let mut all = Vec::new();
        for target in targets {
            check_pool(&state, target, false)?;
            let snaps = state
                .snapshots
                .get(&target.dataset)
                .map_or(&[][..], Vec::as_slice);
            let mut own: Vec<Snapshot> = snaps.iter().map(|snap| snap.meta.clone()).collect();
            own.sort_by_key(|snapshot| snapshot.taken_at);
            all.extend(own);
        }
        Ok(all)
    }

    async fn create(&self, cx: &Context, request: &CreateSnapshots) -> Result<Vec<Snapshot>, StoreError> {
        self.world.step(cx, Effect::None).await?;
        if request.targets.len() > 1 && !self.caps.atomic_group {
            return Err(StoreError::new(
                StoreKind::Unsupported,
                "this store can't take several datasets in one snapshot",
            ));
        }
        let mut state = self.world.lock();
        let mut seen = BTreeSet::new();
        for target in &request.targets {
            check_pool(&state, target, true)?;
            if !seen.insert(&target.dataset) {
                let what = format!("{} is named twice", target.dataset);
                return Err(StoreError::new(StoreKind::InvalidInput, what));
            }
            if !state.datasets.contains_key(&target.dataset) {
                let what = format!("{} does not exist", target.dataset);
                return Err(StoreError::new(StoreKind::NotFound, what));
            }
            let snaps = state.snapshots.get(&target.dataset);
            if snaps.is_some_and(|snaps| snaps.iter().any(|snap| snap.meta.name == request.name)) {
                let what = format!("{}@{} exists", target.dataset, request.name);
                return Err(StoreError::new(StoreKind::AlreadyExists, what));
            }
        }
        let mut made = Vec::new();
        for target in &request.targets {
            let guid = state.new_guid();
            let Some(found) = state.datasets.get(&target.dataset) else {
                continue;
            };
            let tree = found.tree.clone();
            let meta = Snapshot {
                dataset: target.dataset.clone(),
                name: request.name.clone(),
                guid,
                taken_at: request.taken_at,
                fingerprint: request.measure.then(|| tree.fingerprint()),
                bytes: Some(tree.size()),
                holds: Vec::new(),
                unseeded: request.unseeded,
            };
            made.push(meta.clone());
            state
                .snapshots
                .entry(target.dataset.clone())
                .or_default()
                .push(Snap {
                    meta,
                    tree,
                    damaged: false,
                });
        }
        Ok(made)
    }

    async fn since(
        &self,
        cx: &Context,
        target: &Target,
        snapshot: &SnapshotRef,
    ) -> Result<Since, StoreError> {
        self.world.step(cx, Effect::None).await?;
        let mut state = self.world.lock();
        check_pool(&state, target, false)?;
        let gone = || {
            let what = format!("{}@{} is not there", snapshot.dataset, snapshot.name);
            StoreError::new(StoreKind::NotFound, what)
        };
        let live = state.datasets.get(&target.dataset).map(|live| live.guid);
        let found = find(&mut state, snapshot).filter(|_| snapshot.dataset == target.dataset);
        found.and(live).map_or_else(
            || Err(gone()),
            |guid| {
                Ok(Since {
                    written: None,
                    kept_as: aside(target, guid),
                })
            },
        )
    }

    async fn hold(
        &self,
        cx: &Context,
        snapshots: &[SnapshotRef],
        tag: &HoldTag,
        change: HoldChange,
    ) -> Result<(), StoreError> {
        self.world.step(cx, Effect::None).await?;
        if !self.caps.holds {
            return Err(StoreError::new(
                StoreKind::Unsupported,
                "this store keeps no holds",
            ));
        }
        {
            let mut state = self.world.lock();
            for wanted in snapshots {
                if find(&mut state, wanted).is_none() {
                    let what = format!("{}@{} is not there", wanted.dataset, wanted.name);
                    return Err(StoreError::new(StoreKind::NotFound, what));
                }
            }
        }
        for wanted in snapshots {
            {
                let mut state = self.world.lock();
                if let Some(snap) = find(&mut state, wanted) {
                    snap.meta.holds.retain(|held| held != tag);
                    if change == HoldChange::Add {
                        snap.meta.holds.push(tag.clone());
                        snap.meta.holds.sort();
                    }
                }
            }
            self.world.step(cx, Effect::Partial).await?;
        }
        Ok(())
    }

    async fn prune(&self, cx: &Context, snapshots: &[SnapshotRef]) -> Result<Vec<Pruned>, StoreError> {
        self.world.step(cx, Effect::None).await?;
        let mut report = Vec::new();
        for wanted in snapshots {
            let kept = {
                let mut state = self.world.lock();
                remove(&mut state, wanted)
            };
            report.push(Pruned {
                snapshot: wanted.clone(),
                kept: kept.err().map(|error| error.report()),
            });
            self.world.step(cx, Effect::Partial).await?;
        }
        Ok(report)
    }

    async fn stage(&self, cx: &Context, request: &StageRequest) -> Result<Staging, StoreError> {
        self.stage_it(cx, request).await
    }

    async fn settle(&self, cx: &Context, request: &Settle) -> Result<Settled, StoreError> {
        self.settle_it(cx, request).await
    }
}

fn remove(state: &mut State, wanted: &SnapshotRef) -> Result<(), StoreError> {
    let full = format!("{}@{}", wanted.dataset, wanted.name);
    if let Some(why) = state.pool(&wanted.dataset).down {
        return Err(StoreError::new(StoreKind::PoolUnavailable, "the pool is not available").said(why));
    }
    let snaps = state.snapshots.entry(wanted.dataset.clone()).or_default();
    let Some(at) = snaps.iter().position(|snap| snap.meta.name == wanted.name) else {
        return Err(StoreError::new(
            StoreKind::NotFound,
            format!("{full} is gone already"),
        ));
    };
    if snaps[at].meta.guid != wanted.guid {
        let what = format!("{full} is another snapshot of that name");
        return Err(StoreError::new(StoreKind::StalePlan, what));
    }
    if !snaps[at].meta.holds.is_empty() {
        return Err(StoreError::new(StoreKind::Held, format!("{full} is held")));
    }
    snaps.remove(at);
    Ok(())
}
