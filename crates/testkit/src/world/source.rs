//! [`MemSource`]: [`RestoreSource`] over the world's own snapshots, or over those of a replica.

use std::cmp::Reverse;
use std::sync::Arc;

use async_trait::async_trait;
use reseed_core::error::{Common, Effect, Error, Kind, SourceError, SourceKind};
use reseed_core::names::{PointId, SourceName};
use reseed_core::point::{RecoveryPoint, Target};
use reseed_core::source::{RestorePlan, RestoreRequest, Restored, Scope, SourceCaps, SourceClass};
use reseed_core::store::{Delivery, Staging};
use reseed_core::{Context, RestoreSource};

use super::World;
use super::state::{Link, Snap, State};
use super::wire::wanted;

/// Where a [`MemSource`] has its snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourcePlace {
    /// In the store of the live data.
    Local,
    /// On the replica that has the source's name.
    Replica,
}

/// The world's snapshots as a source.
#[derive(Debug, Clone)]
pub struct MemSource {
    world: World,
    name: SourceName,
    place: SourcePlace,
    delivery: Delivery,
}

impl MemSource {
    /// A source of this name.
    pub fn new(world: &World, name: SourceName, place: SourcePlace, delivery: Delivery) -> Self {
        Self {
            world: world.clone(),
            name,
            place,
            delivery,
        }
    }

    /// The same as a trait object.
    pub fn shared(self) -> Arc<dyn RestoreSource> {
        Arc::new(self)
    }

    /// Every snapshot of a target; on a replica those of the lineages set aside, too.
    fn snaps(&self, state: &State, target: &Target) -> Result<Vec<Snap>, SourceError> {
        match self.place {
            SourcePlace::Local => {
                if let Some(why) = state.pool(&target.dataset).down {
                    return Err(
                        SourceError::new(SourceKind::Unreachable, "the pool is not available").said(why),
                    );
                }
                Ok(state.snapshots.get(&target.dataset).cloned().unwrap_or_default())
            }
            SourcePlace::Replica => {
                let Some(replica) = state.replicas.get(&self.name) else {
                    return Ok(Vec::new());
                };
                reach(&replica.link, &self.name)?;
                let current = replica.lineages.get(&target.dataset).into_iter();
                let aside = replica.aside.values().filter(|(of, _)| *of == target.dataset);
                let lineages = current.chain(aside.map(|(_, lineage)| lineage));
                Ok(lineages.flat_map(|lineage| lineage.snaps.clone()).collect())
            }
        }
    }

    fn point(&self, snap: &Snap) -> RecoveryPoint {
        RecoveryPoint {
            id: PointId::from(snap.meta.guid),
            dataset: snap.meta.dataset.clone(),
            source: self.name.clone(),
            locator: format!("{}@{}", snap.meta.dataset, snap.meta.name),
            snapshot: Some(snap.meta.name.clone()),
            taken_at: snap.meta.taken_at,
            fingerprint: snap.meta.fingerprint,
            bytes: snap.meta.bytes,
            unseeded: snap.meta.unseeded,
            partial: false,
            altered: false,
        }
    }

    fn find(&self, request: &RestoreRequest) -> Result<Snap, SourceError> {
        let state = self.world.lock();
        let snaps = self.snaps(&state, &request.target)?;
        snaps
            .into_iter()
            .find(|snap| PointId::from(snap.meta.guid) == request.point.id)
            .ok_or_else(|| {
                let what = format!("{} has no point {}", self.name, request.point.id);
                SourceError::new(SourceKind::NoSuchPoint, what)
            })
    }
}

/// Fails as a line of this kind does.
pub(super) fn reach<K: Kind>(link: &Link, name: &SourceName) -> Result<(), Error<K>> {
    let (common, what) = match link {
        Link::Up => return Ok(()),
        Link::Down => (Common::Unreachable, "does not answer"),
        Link::Refused => (Common::AuthFailed, "refuses us"),
        Link::OtherKey => (Common::AuthFailed, "has another host key"),
    };
    Err(Error::new(K::from_common(common), format!("{name} {what}")))
}

#[async_trait]
impl RestoreSource for MemSource {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn caps(&self) -> SourceCaps {
        SourceCaps {
            kind: match self.place {
                SourcePlace::Local => SourceClass::Local,
                SourcePlace::Replica => SourceClass::Replica,
            },
            delivery: self.delivery,
            partial: self.delivery == Delivery::Files,
            verifies: true,
            ordered: false,
        }
    }

    async fn points(&self, cx: &Context, target: &Target) -> Result<Vec<RecoveryPoint>, SourceError> {
        self.world.step(cx, Effect::None).await?;
        let state = self.world.lock();
        let snaps = self.snaps(&state, target)?;
        let mut points: Vec<_> = snaps.iter().map(|snap| self.point(snap)).collect();
        points.sort_by_key(|point| Reverse(point.taken_at));
        Ok(points)
    }

    async fn plan(&self, cx: &Context, request: &RestoreRequest) -> Result<RestorePlan, SourceError> {
        self.world.step(cx, Effect::None).await?;
        if matches!(request.scope, Scope::Path(_)) && !self.caps().partial {
            return Err(SourceError::new(
                SourceKind::Unsupported,
                "a stream restores all or nothing",
            ));
        }
        let snap = self.find(request)?;
        let tree = wanted(&snap.tree, request)?;
        Ok(RestorePlan {
            request: request.clone(),
            bytes: Some(tree.size()),
            steps: vec![format!(
                "copy {} entries of {}",
                tree.len(),
                request.point.locator
            )],
        })
    }

    async fn execute(
        &self,
        cx: &Context,
        plan: &RestorePlan,
        staging: &Staging,
    ) -> Result<Restored, SourceError> {
        self.world.step(cx, Effect::None).await?;
        if matches!(plan.request.scope, Scope::Path(_)) && !self.caps().partial {
            return Err(SourceError::new(
                SourceKind::Unsupported,
                "a stream restores all or nothing",
            ));
        }
        let snap = self.find(&plan.request)?;
        let tree = wanted(&snap.tree, &plan.request)?;
        if snap.damaged {
            let what = format!("{} is damaged", plan.request.point.locator);
            return Err(SourceError::new(SourceKind::Corrupt, what).said("checksum error"));
        }
        let mut restored = self.world.deliver(cx, &tree, self.delivery, staging).await?;
        restored.checked.push("the store's own checksums".to_owned());
        Ok(restored)
    }
}
