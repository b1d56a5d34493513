//! The recovery points of a repository, each with what it takes to restore it.
//!
//! The list is complete or an error: what can't be read is in it, marked partial, and says why when it is asked for. A
//! machine that starts must never take damage for the absence of backups; so where it asks what there is to restore, an index with data and no
//! snapshot at all is damage. A first backup that was cut off looks the same, and the next one that ends well clears it. Trees are read only for snapshots whose
//! record doesn't say whether they hold the target.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use reseed_core::Context;
use reseed_core::error::{SourceError, SourceKind};
use reseed_core::event::Event;
use reseed_core::names::{DatasetName, SourceName};
use reseed_core::point::{RecoveryPoint, Target};
use rustic_core::{IndexedIdsStatus, Repository, TreeId};

use crate::embedded::Embedded;
use crate::error::{EngineError, Result, guarded};
use crate::place::{self, Entry, Levels};
use crate::points::{Claim, claim, point_of, point_of_unreadable, without_superseded};
use crate::repo::{OpenRepo, prefer};
use crate::snapshots::{Snapshot, Snapshots};
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
    /// The whole repository has no snapshot, of anybody.
    pub(crate) of_no_snapshot: bool,
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

    /// The datasets that have one of these snapshots for a point.
    pub(crate) fn datasets_of(&self, snapshots: &HashSet<String>) -> Vec<DatasetName> {
        let of_them = self
            .found
            .iter()
            .filter(|found| snapshots.contains(&found.point.locator));
        let names: BTreeSet<DatasetName> = of_them.map(|found| found.point.dataset.clone()).collect();
        names.into_iter().collect()
    }
}

impl Embedded {
    /// The points of a target, for whoever would take their absence for a first start.
    ///
    /// # Errors
    /// `SnapshotsMissing`; what keeps it from looking.
    pub(crate) fn restorable(&self, target: &Target) -> Result<Listing> {
        let listing = self.listing(Some(target), None)?;
        if !listing.of_no_snapshot || !self.engine.open(&self.password.read()?)?.has_indexed_data()? {
            return Ok(listing);
        }
        // Somebody's first backup may have ended in between.
        let again = self.listing(Some(target), None)?;
        match again.of_no_snapshot {
            true => Err(EngineError::SnapshotsMissing {
                location: self.engine.location(),
            }),
            false => Ok(again),
        }
    }

    /// The points of a target or of all; only the one with this locator, where one is given.
    pub(crate) fn listing(&self, target: Option<&Target>, only: Option<&str>) -> Result<Listing> {
        let open = self.engine.open(&self.password.read()?)?;
        let mut all = open.snapshots()?;
        if let Some(id) = only {
            open.add_unlisted(&mut all, id)?;
        }
        let mut holdings = Holdings {
            open: Some(open),
            trees: None,
        };
        let wanted = Wanted {
            source: &self.name,
            host: self.host.as_deref(),
            target,
            only,
        };
        wanted.among(all, |snapshot, path| holdings.holds(snapshot, path))
    }
}

/// Which points are asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// What the source is called.
    pub(crate) source: &'a SourceName,
    /// Of this host only.
    pub(crate) host: Option<&'a str>,
    /// Of this target only.
    pub(crate) target: Option<&'a Target>,
    /// With this locator only.
    pub(crate) only: Option<&'a str>,
}

impl Wanted<'_> {
    /// Those that are among all snapshots of a repository. `holds` says whether a snapshot's tree holds a path.
    pub(crate) fn among(
        &self,
        mut all: Snapshots,
        mut holds: impl FnMut(&Snapshot, &Path) -> Result<bool>,
    ) -> Result<Listing> {
        let of_no_snapshot = all.readable.is_empty() && all.unreadable.is_empty();
        without_superseded(&mut all.readable);
        if let Some(id) = self.only {
            all.readable.retain(|snapshot| snapshot.id == id);
            all.unreadable.retain(|(name, _)| name == id);
        }
        all.readable
            .retain(|snapshot| claim(snapshot, self.target) != Claim::No);
        let (ours, theirs): (Vec<_>, Vec<_>) = all
            .readable
            .into_iter()
            .partition(|snapshot| self.host.is_none_or(|host| snapshot.host == *host));

        let mut listing = Listing {
            of_no_snapshot,
            ..Listing::default()
        };
        for snapshot in &ours {
            listing.found.extend(self.found(&mut holds, snapshot)?);
        }
        if listing.found.is_empty() {
            for snapshot in &theirs {
                if !listing.others.contains(&snapshot.host) && self.found(&mut holds, snapshot)?.is_some() {
                    listing.others.insert(snapshot.host.clone());
                }
            }
        }
        // Two of the same second are in the order in which they were taken.
        listing
            .found
            .sort_by_key(|found| std::cmp::Reverse(found.point.taken_at));
        for (id, error) in all.unreadable {
            listing.found.extend(
                point_of_unreadable(&id, self.source, self.target).map(|point| Found {
                    point,
                    path: None,
                    damage: Some(error),
                }),
            );
        }
        Ok(listing)
    }

    fn found(
        &self,
        holds: &mut impl FnMut(&Snapshot, &Path) -> Result<bool>,
        snapshot: &Snapshot,
    ) -> Result<Option<Found>> {
        let Some(point) = point_of(snapshot, self.source, self.target) else {
            return Ok(None);
        };
        let mut found = Found {
            point,
            path: None,
            damage: None,
        };
        let (Claim::Perhaps, Some(target)) = (claim(snapshot, self.target), self.target) else {
            return Ok(Some(found));
        };
        match holds(snapshot, &target.mountpoint) {
            Ok(false) => return Ok(None),
            Ok(true) => found.path = Some(target.mountpoint.clone()),
            Err(error) if error.is_of_the_store() || error.is_of_the_run() => return Err(error),
            // Nobody knows any more whether the target was in there.
            Err(error) => {
                found.point.partial = true;
                found.damage = Some(error);
            }
        }
        Ok(Some(found))
    }
}

/// What a source that was asked for a target's points says, when it has only some of other hosts.
pub(crate) fn of_others(listing: &Listing, source: &SourceName, target: &Target) -> Option<SourceError> {
    if !listing.found.is_empty() || listing.others.is_empty() {
        return None;
    }
    // Not "there are none": a machine that was renamed or replaced must not take this for a first start.
    let others: Vec<&str> = listing.others.iter().map(String::as_str).collect();
    let what = format!("{source} holds {} only of {}", target.dataset, others.join(", "));
    let hint = "if that is what this machine was called before, set `host` in the configuration to it";
    Some(SourceError::new(SourceKind::NoSuchPoint, what).hint(hint))
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
