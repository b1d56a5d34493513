//! [`OffsitePruner`] by the restic program.
//!
//! Points are named to restic by their ids, never by a policy of its own: what goes was planned and shown before. Whether they are
//! gone is looked up afterwards, because restic before 0.19 ends well also where it could not delete.

use std::collections::HashSet;

use async_trait::async_trait;
use reseed_core::error::{Effect, OffsiteError, OffsiteKind};
use reseed_core::names::SourceName;
use reseed_core::point::RecoveryPoint;
use reseed_core::pruner::Forgotten;
use reseed_core::{Context, OffsitePruner};

use super::run::Ended;
use super::{Restic, argv, error};
use crate::embedded::envelope;
use crate::error::{EngineError, Result};
use crate::points::own_point;

/// So many ids are named in one call: an argument vector has an end.
const AT_ONCE: usize = 500;

impl Restic {
    async fn own(&self, cx: &Context) -> Result<Vec<RecoveryPoint>> {
        let Some(host) = &self.host else {
            return Err(EngineError::Invalid {
                detail: format!("nobody said whose points of {} may be removed", self.name),
            });
        };
        let all = self.all_snapshots(cx).await?.readable;
        // The first of a pair of which only the second says that it is partial.
        let replaced: HashSet<&str> = crate::points::superseded(&all).collect();
        let mut own: Vec<RecoveryPoint> = all
            .iter()
            .filter_map(|snapshot| {
                let mut point = own_point(snapshot, host, &self.name)?;
                point.partial |= replaced.contains(snapshot.id.as_str());
                Some(point)
            })
            .collect();
        own.sort_by(|a, b| (b.taken_at, &b.locator).cmp(&(a.taken_at, &a.locator)));
        Ok(own)
    }

    async fn forget_these(&self, cx: &Context, locators: &[String]) -> Result<Vec<Forgotten>> {
        let own: HashSet<String> = self.own(cx).await?.into_iter().map(|p| p.locator).collect();
        let there = self.ids(cx).await?;
        let (named, gone): (Vec<_>, Vec<_>) = locators.iter().partition(|id| there.contains(*id));
        if let Some(foreign) = named.iter().find(|id| !own.contains(**id)) {
            return Err(EngineError::Invalid {
                detail: format!("snapshot {foreign} is not one that reseed of this host wrote"),
            });
        }
        let version = self.version(cx).await?;
        let mut words = String::new();
        for some in named.chunks(AT_ONCE) {
            let command = self.command(version, argv::forget(some))?;
            let ended = self.locking(cx, &command, &|_| ()).await?;
            words.push_str(&self.well(&ended)?);
        }
        let left = if named.is_empty() {
            HashSet::new()
        } else {
            self.ids(cx).await?
        };
        let kept = |id: &str| {
            left.contains(id).then(|| {
                OffsiteError::new(
                    OffsiteKind::PermissionDenied,
                    format!("{} did not remove snapshot {id}", self.name),
                )
                .said(crate::words::plain(&words))
                .hint("the key may lack the right to delete: prune with another one")
                .report()
            })
        };
        let all = named.into_iter().chain(gone);
        Ok(all
            .map(|id| Forgotten {
                locator: id.clone(),
                kept: kept(id),
            })
            .collect())
    }

    /// Of every snapshot, whether it can be read or not.
    async fn ids(&self, cx: &Context) -> Result<HashSet<String>> {
        self.listed(cx, argv::snapshot_ids()).await
    }

    async fn pruned(&self, cx: &Context) -> Result<()> {
        self.look(cx).await?;
        // All data would go, and with it what the snapshots could be found again by.
        if self.ids(cx).await?.is_empty() && self.has_indexed_data(cx).await? {
            return Err(self.snapshots_missing());
        }
        let version = self.version(cx).await?;
        let command = self.command(version, argv::prune())?;
        let ended = self.locking(cx, &command, &|_| ()).await?;
        self.well(&ended).map(drop)
    }

    /// What it said, if it ended well.
    fn well(&self, ended: &Ended) -> Result<String> {
        match ended.exit.success() {
            true => Ok(ended.all_words()),
            false => Err(error::of(
                ended.exit,
                &ended.all_words(),
                &self.location.to_string(),
            )),
        }
    }
}

#[async_trait]
impl OffsitePruner for Restic {
    fn name(&self) -> &SourceName {
        &self.name
    }

    async fn own_points(&self, cx: &Context) -> Result<Vec<RecoveryPoint>, OffsiteError> {
        self.own(cx).await.map_err(|error| {
            let what = format!("cannot list what {} holds", self.name);
            envelope(&error, what, Effect::None)
        })
    }

    async fn forget(&self, cx: &Context, locators: &[String]) -> Result<Vec<Forgotten>, OffsiteError> {
        let cancelled = cx.cancel.is_cancelled();
        self.forget_these(cx, locators).await.map_err(|error| {
            let what = format!("cannot remove points of {}", self.name);
            let effect = match &error {
                EngineError::Invalid { .. } | EngineError::Locked { .. } => Effect::None,
                _ => Effect::Partial,
            };
            Self::failure(cancelled, &error, what, effect)
        })
    }

    async fn prune(&self, cx: &Context) -> Result<(), OffsiteError> {
        let cancelled = cx.cancel.is_cancelled();
        self.pruned(cx).await.map_err(|error| {
            let what = format!("cannot remove the unused data of {}", self.name);
            let effect = match &error {
                EngineError::Locked { .. } => Effect::None,
                _ => Effect::Partial,
            };
            Self::failure(cancelled, &error, what, effect)
        })
    }
}
