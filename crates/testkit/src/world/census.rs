//! [`Census`]: all of the world's data at one moment, cheap to take and to compare, and forks of the world.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use reseed_core::names::{DatasetName, SourceName};
use reseed_core::point::{Fingerprint, MarkerState};

use super::state::State;
use super::{Link, Standing, Tree, World};

/// Where a recovery point is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the store.
    Local(u64),
    /// On a replica, in whichever lineage.
    Replica(SourceName, u64),
    /// In a repository, under its own id.
    Offsite(SourceName, String),
}

/// What is where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// What stands at each dataset.
    pub live: BTreeMap<DatasetName, Standing>,
    /// Every recovery point and its content; none for what can't be read any more.
    pub points: BTreeMap<Place, (DatasetName, Option<Tree>)>,
    /// What was renamed aside or quarantined.
    pub kept: BTreeMap<String, Tree>,
}

impl World {
    /// Everything as it is now.
    pub fn census(&self) -> Census {
        let state = self.lock();
        let live = state.datasets.iter().map(|(name, found)| {
            let marker = found.marker.as_ref().filter(|(guid, _)| *guid == found.guid);
            let standing = Standing {
                guid: found.guid,
                tree: found.tree.clone(),
                marker: marker.map(|(_, marker)| marker.clone()),
                mounted: found.mounted,
            };
            (name.clone(), standing)
        });
        let mut census = Census {
            live: live.collect(),
            ..Census::default()
        };
        let readable = |snap: &super::state::Snap| (!snap.damaged).then(|| snap.tree.clone());
        for (dataset, snaps) in &state.snapshots {
            for snap in snaps {
                let place = Place::Local(snap.meta.guid.0);
                census.points.insert(place, (dataset.clone(), readable(snap)));
            }
        }
        for (name, replica) in &state.replicas {
            let current = replica.lineages.iter();
            let aside = replica
                .aside
                .values()
                .map(|(dataset, lineage)| (dataset, lineage));
            for (dataset, lineage) in current.chain(aside) {
                for snap in &lineage.snaps {
                    let place = Place::Replica(name.clone(), snap.meta.guid.0);
                    census.points.insert(place, (dataset.clone(), readable(snap)));
                }
            }
        }
        for (name, repo) in &state.repos {
            for (id, snapshot) in &repo.snapshots {
                let place = Place::Offsite(name.clone(), id.clone());
                let content = (snapshot.point.dataset.clone(), repo.tree(snapshot).ok());
                census.points.insert(place, content);
            }
        }
        let aside = state
            .aside
            .iter()
            .map(|(name, kept)| (name.clone(), kept.tree.clone()));
        let quarantined = state
            .quarantine
            .iter()
            .map(|(name, tree)| (name.clone(), tree.clone()));
        census.kept = aside.chain(quarantined).collect();
        census
    }

    /// A world of its own that is like this one now.
    pub fn fork(&self) -> Self {
        Self(Arc::new(Mutex::new(State::clone(&self.lock()))))
    }

    /// Destroys what was set aside on a replica. For mutants: nothing of reseed ever does that.
    pub fn drop_set_aside(&self, name: &SourceName) {
        if let Some(replica) = self.lock().replicas.get_mut(name) {
            replica.aside.clear();
        }
    }

    /// What the tree staged at a path should measure, as its point says.
    pub fn expected_at(&self, root: &Path) -> Option<Fingerprint> {
        let state = self.lock();
        let staged = state.staged.values().find(|staged| staged.path == root)?;
        staged.point.fingerprint
    }

    /// Whether a pool can be read and written, without a limit.
    pub fn pool_is_well(&self, pool: &str) -> bool {
        let state = self.lock();
        let found = state.pools.get(pool);
        found.is_none_or(|pool| pool.down.is_none() && pool.free.is_none() && !pool.read_only)
    }

    /// Whether a replica answers.
    pub fn replica_is_well(&self, name: &SourceName) -> bool {
        let state = self.lock();
        state
            .replicas
            .get(name)
            .is_none_or(|replica| replica.link == Link::Up)
    }

    /// Whether a repository answers and nobody else has it.
    pub fn repo_is_well(&self, name: &SourceName) -> bool {
        let state = self.lock();
        state.repos.get(name).is_some_and(|repo| {
            repo.link == Link::Up
                && !repo.foreign
                && repo.config.is_some()
                && !repo.locks.values().any(|lock| lock.exclusive)
        })
    }
}

impl Census {
    /// Whether a dataset's marker says that it is unseeded.
    pub fn is_unseeded(&self, dataset: &DatasetName) -> bool {
        let marker = self.live.get(dataset).and_then(|found| found.marker.as_ref());
        marker.is_some_and(|marker| matches!(marker.state, MarkerState::Unseeded { .. }))
    }
}
