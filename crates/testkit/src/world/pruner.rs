//! [`MemPruner`]: [`OffsitePruner`] over one of the world's repositories.

use std::collections::BTreeSet;

use async_trait::async_trait;
use reseed_core::error::{Effect, OffsiteError, OffsiteKind};
use reseed_core::names::SourceName;
use reseed_core::point::RecoveryPoint;
use reseed_core::pruner::Forgotten;
use reseed_core::{Context, OffsitePruner};

use super::offsite::{MemOffsite, OFFSITE};

/// What removes a host's points from a repository.
#[derive(Debug, Clone)]
pub struct MemPruner {
    repo: MemOffsite,
    name: SourceName,
    host: String,
}

impl MemPruner {
    /// Of the points that this host wrote.
    pub fn new(repo: MemOffsite, host: &str) -> Self {
        Self {
            name: reseed_core::OffsiteRepo::name(&repo).clone(),
            repo,
            host: host.to_owned(),
        }
    }
}

#[async_trait]
impl OffsitePruner for MemPruner {
    fn name(&self) -> &SourceName {
        &self.name
    }

    async fn own_points(&self, cx: &Context) -> Result<Vec<RecoveryPoint>, OffsiteError> {
        self.repo.world.step(cx, Effect::None).await?;
        self.repo.repo(|repo| {
            self.repo.opened(repo, &OFFSITE)?;
            let mut points = self.repo.listed(repo, None);
            points.retain(|point| repo.snapshots[&point.locator].host == self.host);
            Ok(points)
        })
    }

    async fn forget(&self, cx: &Context, locators: &[String]) -> Result<Vec<Forgotten>, OffsiteError> {
        self.repo.world.step(cx, Effect::None).await?;
        self.repo.repo(|repo| {
            self.repo.opened(repo, &OFFSITE)?;
            let foreign = locators.iter().find(|locator| {
                let named = repo.snapshots.get(*locator);
                named.is_some_and(|snapshot| snapshot.host != self.host)
            });
            match foreign {
                None => Ok(()),
                Some(foreign) => Err(OffsiteError::new(
                    OffsiteKind::InvalidInput,
                    format!("{foreign} is not of {}", self.host),
                )),
            }
        })?;
        let _lock = self.repo.locked(&OFFSITE, true)?;
        let mut forgotten = Vec::new();
        for locator in locators {
            self.repo.world.step(cx, Effect::Partial).await?;
            self.repo.repo(|repo| repo.snapshots.remove(locator));
            forgotten.push(Forgotten {
                locator: locator.clone(),
                kept: None,
            });
        }
        Ok(forgotten)
    }

    async fn prune(&self, cx: &Context) -> Result<(), OffsiteError> {
        self.repo.world.step(cx, Effect::None).await?;
        self.repo.repo(|repo| {
            self.repo.opened(repo, &OFFSITE)?;
            match repo.snapshots.is_empty() && !repo.blobs.is_empty() {
                true => Err(OffsiteError::new(
                    OffsiteKind::Corrupt,
                    format!("{} has data and no snapshot", self.name),
                )),
                false => Ok(()),
            }
        })?;
        let _lock = self.repo.locked(&OFFSITE, true)?;
        let unneeded: Vec<[u8; 32]> = self.repo.repo(|repo| {
            let content = repo.snapshots.values().flat_map(|snapshot| &snapshot.content);
            let needed: BTreeSet<[u8; 32]> = content.map(|(_, hash)| *hash).collect();
            let stored = repo.blobs.keys().copied();
            stored.filter(|hash| !needed.contains(hash)).collect()
        });
        for hash in unneeded {
            self.repo.world.step(cx, Effect::Partial).await?;
            self.repo.repo(|repo| repo.blobs.remove(&hash));
        }
        Ok(())
    }
}
