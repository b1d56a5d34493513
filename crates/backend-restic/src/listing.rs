//! The recovery points of a repository, each with what it takes to restore it.
//!
//! The list is complete or an error: what can't be read is in it, marked partial, and says why when it is asked for. A
//! machine that starts must never take damage for the absence of backups. Trees are read only for snapshots whose
//! record doesn't say whether they hold the target.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use reseed_core::Context;
use reseed_core::event::Event;
use reseed_core::point::{RecoveryPoint, Target};
use rustic_core::{IndexedIdsStatus, Repository, TreeId};

use crate::embedded::Embedded;
use crate::error::{EngineError, Result, guarded};
use crate::place::{self, Entry, Levels};
use crate::points::{Claim, claim, point_of, point_of_unreadable};
use crate::repo::{OpenRepo, prefer};
use crate::snapshots::Snapshot;
use crate::store::Backend;

/// A recovery point, and how to get at it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) point: RecoveryPoint,
    /// The path to restore, where the target is not all that the snapshot holds.
    pub(crate) path: Option<PathBuf>,
    /// Why it can't be restored.
    pub(crate) damage: Option<EngineError>,
}

/// What a repository has of a target.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Of our host, newest first, and what is nobody's.
    pub(crate) found: Vec<Found>,
    /// The other hosts that have some, where ours has none.
    pub(crate) others: BTreeSet<String>,
}

impl Listing {
    /// The points, with a warning for each that is damaged.
    pub(crate) fn points(self, cx: &Context, what: &str) -> Vec<RecoveryPoint> {
        self.found
            .into_iter()
            .map(|found| {
                if let Some(error) = &found.damage {
                    cx.emit(Event::Warning {
                        service: None,
                        message: format!("recovery point {} in {what} is damaged: {error}", found.point.id),
                        hint: error.hint().map(str::to_owned),
                    });
                }
                found.point
            })
            .collect()
    }
}

impl Embedded {
    /// The points of a target or of all; only the one with this locator, where one is given.
    pub(crate) fn listing(&self, target: Option<&Target>, only: Option<&str>) -> Result<Listing> {
        let open = self.engine.open(&self.password.read()?)?;
        let mut all = open.snapshots()?;
        if let Some(id) = only {
            open.add_unlisted(&mut all, id)?;
            all.readable.retain(|snapshot| snapshot.id == id);
            all.unreadable.retain(|(name, _)| name == id);
        }
        all.readable
            .retain(|snapshot| claim(snapshot, target) != Claim::No);
        let (ours, theirs): (Vec<_>, Vec<_>) = all
            .readable
            .into_iter()
            .partition(|snapshot| self.host.as_ref().is_none_or(|host| snapshot.host == *host));

        let mut holdings = Holdings {
            open: Some(open),
            trees: None,
        };
        let mut listing = Listing::default();
        for snapshot in &ours {
            listing.found.extend(self.found(&mut holdings, snapshot, target)?);
        }
        if listing.found.is_empty() {
            for snapshot in &theirs {
                if !listing.others.contains(&snapshot.host)
                    && self.found(&mut holdings, snapshot, target)?.is_some()
                {
                    listing.others.insert(snapshot.host.clone());
                }
            }
        }
        for (id, error) in all.unreadable {
            listing
                .found
                .extend(point_of_unreadable(&id, &self.name, target).map(|point| Found {
                    point,
                    path: None,
                    damage: Some(error),
                }));
        }
        Ok(listing)
    }

    fn found(
        &self,
        holdings: &mut Holdings,
        snapshot: &Snapshot,
        target: Option<&Target>,
    ) -> Result<Option<Found>> {
        let Some(point) = point_of(snapshot, &self.name, target) else {
            return Ok(None);
        };
        let mut found = Found {
            point,
            path: None,
            damage: None,
        };
        let (Claim::Perhaps, Some(target)) = (claim(snapshot, target), target) else {
            return Ok(Some(found));
        };
        match holdings.holds(snapshot, &target.mountpoint) {
            Ok(false) => return Ok(None),
            Ok(true) => found.path = Some(target.mountpoint.clone()),
            Err(error) if error.is_of_the_store() || error == EngineError::Cancelled => return Err(error),
            // Nobody knows any more whether the target was in there.
            Err(error) => {
                found.point.partial = true;
                found.damage = Some(error);
            }
        }
        Ok(Some(found))
    }
}

/// Looks into trees; the index that this takes is read at the first question.
struct Holdings {
    open: Option<OpenRepo>,
    trees: Option<Result<Trees>>,
}

impl Holdings {
    fn holds(&mut self, snapshot: &Snapshot, path: &Path) -> Result<bool> {
        if let Some(open) = self.open.take() {
            self.trees = Some(Trees::of(open));
        }
        match &mut self.trees {
            Some(Ok(trees)) => {
                let place = place::of_path(trees, snapshot.tree_id()?, &snapshot.paths, path)?;
                Ok(place.is_some())
            }
            Some(Err(error)) => Err(error.clone()),
            None => Ok(false),
        }
    }
}

struct Trees {
    backend: Backend,
    repo: Repository<IndexedIdsStatus>,
}

impl Trees {
    fn of(open: OpenRepo) -> Result<Self> {
        let backend = open.backend;
        let repo = guarded("read the index", || {
            open.repo
                .to_indexed_ids()
                .map_err(|error| prefer(&backend, &error, "read the index"))
        })?;
        Ok(Self { backend, repo })
    }
}

impl Levels for Trees {
    fn level(&mut self, tree: TreeId, path: &Path) -> Result<Vec<Entry>> {
        let nodes = guarded("read a directory", || {
            self.repo.get_tree(&tree).map_err(|error| {
                prefer(
                    &self.backend,
                    &error,
                    &format!("read the directory /{}", path.display()),
                )
            })
        })?;
        Ok(nodes
            .nodes
            .into_iter()
            .map(|node| (node.name().into_owned(), node.subtree))
            .collect())
    }
}
