//! [`LocalSource`]: a target's own snapshots, brought back as a clone beside it.
//!
//! Nothing is copied and nothing is rolled back: `zfs rollback` would destroy every newer snapshot. The clone is staged;
//! when it is promoted by the store, what stood at the target is set aside with the newer snapshots, and the live
//! dataset takes the others over ([`promote`](super::promote)). A clone takes no space and no time; that its blocks
//! can be read is found out by the verification that follows, so this source says of itself that it doesn't verify.

use async_trait::async_trait;
use reseed_core::error::{Effect, SourceError, SourceKind};
use reseed_core::names::SourceName;
use reseed_core::point::{RecoveryPoint, Target};
use reseed_core::source::{RestorePlan, RestoreRequest, Restored, SourceCaps, SourceClass};
use reseed_core::store::{Delivery, Staging};
use reseed_core::{Context, RestoreSource};

use super::parse::Said;
use super::record::StageRecord;
use super::store::NativeStore;
use super::tool::not_cancelled;
use super::{argv, list, names, points, settings, space};

/// The snapshots in the pool of the live data.
#[derive(Debug, Clone)]
pub struct LocalSource {
    name: SourceName,
    store: NativeStore,
}

impl LocalSource {
    /// A store's own snapshots, under the store's name.
    pub fn new(store: &NativeStore) -> Self {
        Self {
            name: store.name().clone(),
            store: store.clone(),
        }
    }

    pub(crate) fn store(&self) -> &NativeStore {
        &self.store
    }
}

#[async_trait]
impl RestoreSource for LocalSource {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn caps(&self) -> SourceCaps {
        SourceCaps {
            kind: SourceClass::Local,
            delivery: Delivery::Native,
            partial: false,
            verifies: false,
            ordered: true,
        }
    }

    async fn points(&self, cx: &Context, target: &Target) -> Result<Vec<RecoveryPoint>, SourceError> {
        not_cancelled::<SourceKind>(cx)?;
        points::points(&self.store.tool, cx, &self.name, target, &target.dataset).await
    }

    async fn plan(&self, cx: &Context, request: &RestoreRequest) -> Result<RestorePlan, SourceError> {
        not_cancelled::<SourceKind>(cx)?;
        points::whole(request)?;
        points::exact(&self.store.tool, cx, &request.point, &request.target.dataset).await?;
        Ok(RestorePlan {
            request: request.clone(),
            bytes: Some(0),
            steps: vec![
                format!("clone {} beside {}", request.point.locator, request.target.dataset),
                "once it is verified, put the clone in the dataset's place; what stands there is set aside with its \
                 newer snapshots, and nothing is rolled back"
                    .to_owned(),
            ],
        })
    }

    async fn execute(
        &self,
        cx: &Context,
        plan: &RestorePlan,
        staging: &Staging,
    ) -> Result<Restored, SourceError> {
        not_cancelled::<SourceKind>(cx)?;
        points::whole(&plan.request)?;
        let (tool, point) = (&self.store.tool, &plan.request.point);
        let name = points::staged_name(plan, staging)?;
        let origin = points::exact(tool, cx, point, &plan.request.target.dataset).await?;
        let full = format!("{}@{}", origin.dataset, origin.name);
        let place = names::place(&self.store.places, "look", &plan.request.target.dataset);
        let (census, busy) = points::census(full.clone(), place, point).await?;
        not_cancelled::<SourceKind>(cx)?;
        let mut warnings = Vec::from_iter(busy);
        let staging_only = |error: SourceError| error.effect(Effect::StagingOnly);
        let own = settings::own::<SourceKind>(tool, cx, &origin.dataset).await?;
        let lacks = |(unset, why): (Vec<String>, SourceError)| {
            format!(
                "what is set on {} itself is not set on what comes back, {}: {why}",
                origin.dataset,
                unset.join(", ")
            )
        };
        let reused = match list::fact::<SourceKind>(tool, cx, &name).await? {
            Said::NotThere => {
                let record = points::begun(cx, plan)?;
                let ours = [("canmount", "noauto"), (argv::STAGE, record.as_str())];
                let set = own
                    .set
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str()));
                let all: Vec<_> = set.chain(ours).collect();
                let clone = async |properties: &[(&str, &str)]| {
                    let args = argv::clone((&origin.dataset, &origin.name), &name, properties);
                    let what = format!("can't clone {full}");
                    tool.change::<SourceKind>(cx, args, what, Effect::StagingOnly)
                        .await
                };
                if clone(&all).await.is_err() {
                    // Something that can't be set on a clone must not keep the data away. It may be refused only of all together.
                    not_cancelled::<SourceKind>(cx).map_err(staging_only)?;
                    clone(&ours).await?;
                    let unset = settings::each(tool, cx, &name, &own.set).await;
                    warnings.extend(unset.map_err(staging_only)?.map(lacks));
                }
                0
            }
            Said::Facts(facts)
                if facts.clone_of.as_deref() == Some(full.as_str())
                    && StageRecord::of(&facts).is_some_and(|record| record.is_for(point)) =>
            {
                // Whoever made it may have been ended while it was given them one by one.
                let has = settings::own::<SourceKind>(tool, cx, &name).await;
                let mut missing = own.set.clone();
                let has = has.map_err(staging_only)?;
                missing.retain(|one| !has.set.contains(one));
                let unset = settings::each(tool, cx, &name, &missing).await;
                warnings.extend(unset.map_err(staging_only)?.map(lacks));
                census.bytes
            }
            other => {
                let what = format!("{name} is there, and is no clone of {full}");
                let error = SourceError::new(SourceKind::Target, what);
                return Err(match other {
                    Said::Unclear(why) => error.said(why),
                    _ => error.hint("discard what is staged, then run it again"),
                });
            }
        };
        let wanted = self
            .store
            .declared_space(&plan.request.target.dataset, own.reserved);
        let unhad = space::come_back::<SourceKind>(tool, cx, &name, &wanted).await;
        warnings.extend(unhad.map_err(staging_only)?);
        Ok(Restored {
            bytes: census.bytes,
            files: census.files,
            reused,
            checked: vec![format!("it is a clone of {full}, guid {}", origin.guid)],
            warnings,
        })
    }
}
