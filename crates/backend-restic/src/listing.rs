//! The recovery points of a repository, each with what it takes to restore it.
//!
//! The list is complete or an error: what can't be read is in it, marked partial, and says why when it is asked for. A
//! machine that starts must never take damage for the absence of backups; so where it asks what there is to restore, an index with data and no
//! snapshot at all is damage. A first backup that was cut off looks the same, and the next one that ends well clears it. Trees are read only for snapshots whose
//! record doesn't say whether they hold the target, and that is another program's: no further back than there are enough, nor, where looking
//! takes long, than the newest whole point of reseed's own. What is newer is offered whatever there is of ours: reseed's backup may have ended months ago. Those that hold nothing of the target don't count for that: what is gone since last week is in none of the newest.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use reseed_core::Context;
use reseed_core::error::{SourceError, SourceKind};
use reseed_core::event::Event;
use reseed_core::names::{DatasetName, SourceName};
use reseed_core::point::{RecoveryPoint, Target};
use rustic_core::{IndexedIdsStatus, Repository, TreeId};

use crate::check::is_of_a_remote;
use crate::embedded::Embedded;
use crate::error::{EngineError, Result, guarded};
use crate::place::{self, Entry, Levels};
use crate::points::{Claim, claim, is_recorded, point_of, point_of_unreadable, without_superseded};
use crate::repo::{Engine, OpenRepo, prefer};
use crate::secret::Password;
use crate::snapshots::{Snapshot, Snapshots};
use crate::store::Backend;

/// So many points of one host's snapshots of the same paths are enough, where each has to be looked into.
const ENOUGH: usize = 8;

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
    /// Snapshots of our host of which it isn't recorded whose they are.
    pub(crate) unrecorded: HashSet<String>,
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

    /// The datasets that have one of these snapshots for a point; none where one is another program's, which any service may be restored from.
    pub(crate) fn datasets_of(&self, snapshots: &HashSet<String>) -> Option<Vec<DatasetName>> {
        if !self.unrecorded.is_disjoint(snapshots) {
            return None;
        }
        let of_them = self
            .found
            .iter()
            .filter(|found| snapshots.contains(&found.point.locator));
        let names: BTreeSet<DatasetName> = of_them.map(|found| found.point.dataset.clone()).collect();
        Some(names.into_iter().collect())
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
        let mut holdings = Holdings::of(open);
        let wanted = Wanted {
            source: &self.name,
            host: self.host.as_deref(),
            target,
            only,
            local: self.engine.local_path().is_some(),
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
    /// Of a repository on this machine: looking into trees takes no time to speak of.
    pub(crate) local: bool,
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
            unrecorded: ours
                .iter()
                .filter(|snapshot| !is_recorded(snapshot))
                .map(|snapshot| snapshot.id.clone())
                .collect(),
            ..Listing::default()
        };
        listing.found = self.of_host(&mut holds, &ours)?;
        if listing.found.is_empty() {
            for (_, place) in self.whole_first(&theirs) {
                let snapshot = &theirs[place];
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

    /// Those of our host, in the order in which they are listed.
    fn of_host(
        &self,
        holds: &mut impl FnMut(&Snapshot, &Path) -> Result<bool>,
        ours: &[Snapshot],
    ) -> Result<Vec<Found>> {
        let (mut found, mut own) = (BTreeMap::new(), None);
        let mut enough: HashMap<(&str, &[String]), usize> = HashMap::new();
        for (perhaps, place) in self.whole_first(ours) {
            let snapshot = &ours[place];
            let so_far = enough.entry((&snapshot.host, &snapshot.paths)).or_default();
            let is_older = perhaps && own.is_some_and(|own| snapshot.time <= own);
            if (perhaps && *so_far >= ENOUGH) || (is_older && !self.local) {
                continue;
            }
            let one = match self.found(holds, snapshot) {
                Ok(Some(one)) => one,
                Ok(None) => continue,
                // They are more than what is needed, and the oldest come last.
                Err(error) if is_older && error != EngineError::Cancelled => break,
                Err(error) => return Err(error),
            };
            let sound = !one.point.partial;
            *so_far += usize::from(perhaps && sound);
            if sound && !one.point.unseeded && is_recorded(snapshot) {
                own = own.max(Some(snapshot.time));
            }
            found.insert(place, one);
        }
        Ok(found.into_values().collect())
    }

    /// Their places, and whether they have to be looked into: first those that needn't be; newest first among either.
    fn whole_first(&self, snapshots: &[Snapshot]) -> Vec<(bool, usize)> {
        let perhaps = |snapshot| claim(snapshot, self.target) == Claim::Perhaps;
        let mut all: Vec<(bool, usize)> = snapshots.iter().map(perhaps).zip(0..).collect();
        all.sort_by_key(|&(perhaps, place)| (perhaps, std::cmp::Reverse(snapshots[place].time)));
        all
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
            Err(error) if is_of_a_remote(&error) && !self.local => return Err(error),
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

/// Looks into trees; the repository is opened and its index read at the first question.
pub(crate) struct Holdings {
    open: Option<Box<dyn FnOnce() -> Result<OpenRepo> + Send>>,
    trees: Option<Result<Trees>>,
}

impl Holdings {
    fn of(open: OpenRepo) -> Self {
        Self {
            open: Some(Box::new(move || Ok(open))),
            trees: None,
        }
    }

    /// Of a repository that may never be asked.
    pub(crate) fn by(engine: Engine, password: impl FnOnce() -> Result<Password> + Send + 'static) -> Self {
        Self {
            open: Some(Box::new(move || engine.open(&password()?))),
            trees: None,
        }
    }

    /// Whether trees can be looked into at all.
    pub(crate) fn can_look(&mut self) -> bool {
        if let Some(open) = self.open.take() {
            self.trees = Some(open().and_then(Trees::of));
        }
        matches!(self.trees, Some(Ok(_)))
    }

    pub(crate) fn holds(&mut self, snapshot: &Snapshot, path: &Path) -> Result<bool> {
        self.can_look();
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

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn snapshot(number: u8, path: &str, tags: &[&str]) -> Snapshot {
        Snapshot {
            id: format!("{number:02x}").repeat(32),
            time: jiff::Timestamp::UNIX_EPOCH + SignedDuration::from_hours(number.into()),
            host: "nas".into(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            paths: vec![path.into()],
            tree: String::new(),
            files: None,
            bytes: None,
            original: None,
        }
    }

    /// The hours of the points, and how many snapshots were looked into.
    fn found(
        all: impl IntoIterator<Item = Snapshot>,
        host: &str,
        holds: impl Fn(&Snapshot) -> bool,
    ) -> (Vec<i64>, u32, BTreeSet<String>) {
        found_in(false, all, host, holds)
    }

    fn found_in(
        local: bool,
        all: impl IntoIterator<Item = Snapshot>,
        host: &str,
        holds: impl Fn(&Snapshot) -> bool,
    ) -> (Vec<i64>, u32, BTreeSet<String>) {
        let mut readable: Vec<Snapshot> = all.into_iter().collect();
        readable.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.time));
        let target = Target {
            dataset: DatasetName::new("tank/a").unwrap(),
            mountpoint: "/srv/a".into(),
        };
        let wanted = Wanted {
            source: &SourceName::new("offsite").unwrap(),
            host: Some(host),
            target: Some(&target),
            only: None,
            local,
        };
        let unreadable = Vec::new();
        let (all, mut looks) = (Snapshots { readable, unreadable }, 0);
        let listing = wanted.among(all, |snapshot, _| {
            looks += 1;
            Ok(holds(snapshot))
        });
        let listing = listing.unwrap();
        let hours = listing
            .found
            .iter()
            .map(|one| one.point.taken_at.as_second() / 3600);
        (hours.collect(), looks, listing.others)
    }

    #[test]
    fn what_others_backed_up_is_looked_into_beside_a_point_of_our_own_where_it_is_newer() {
        let foreign = |path: &'static str| (1..=60).map(move |number| snapshot(number, path, &[]));
        let own_of =
            |hour, more: &[&str]| snapshot(hour, "/elsewhere", &[&["reseed-dataset=tank/a"], more].concat());
        let own = |more: &[&str]| own_of(30, more);
        let (hours, looks, _) = found(foreign("/srv").chain([own_of(60, &[])]), "nas", |_| true);
        assert_eq!((hours.as_slice(), looks), (&[60][..], 0));
        // Ours ended a while ago, and the other program goes on.
        let (hours, looks, _) = found(foreign("/srv").chain([own_of(58, &[])]), "nas", |_| true);
        assert_eq!((hours.as_slice(), looks), (&[60, 59, 58][..], 2));
        let (hours, looks, _) = found(foreign("/srv").chain([own(&[])]), "nas", |_| true);
        assert_eq!((hours.len(), hours[0], hours[8], looks), (9, 60, 30, 8));
        // Where that takes no time the older ones are offered, too: ours may turn out to be damaged.
        let all = || foreign("/srv").chain([own_of(61, &[])]);
        let (hours, looks, _) = found_in(true, all(), "nas", |_| true);
        assert_eq!((hours.len(), hours[0], hours[1], looks), (9, 61, 60, 8));
        // One that is not whole, or of a service without its data, is nothing to be content with.
        for more in [crate::points::PARTIAL, "reseed-unseeded"] {
            let (hours, looks, _) = found(foreign("/srv").chain([own(&[more])]), "nas", |_| true);
            assert_eq!((hours.len(), hours[0], looks), (9, 60, 8), "{more}");
        }
        // restic's own of the very path need no looking, and are all there.
        let (hours, looks, _) = found(foreign("/srv/a"), "nas", |_| true);
        assert_eq!((hours.len(), looks), (60, 0));
    }

    #[test]
    fn whose_another_programs_snapshot_is_nobody_knows() {
        let all = [
            snapshot(1, "/srv", &["reseed-dataset=tank/a"]),
            snapshot(2, "/srv", &[]),
            Snapshot {
                host: "other".into(),
                ..snapshot(3, "/srv", &[])
            },
        ];
        let ids: Vec<String> = all.iter().map(|one| one.id.clone()).collect();
        let wanted = Wanted {
            source: &SourceName::new("offsite").unwrap(),
            host: Some("nas"),
            target: None,
            only: None,
            local: true,
        };
        let all = Snapshots {
            readable: all.to_vec(),
            unreadable: Vec::new(),
        };
        let listing = wanted.among(all, |_, _| Ok(true)).unwrap();
        let of = |places: &[usize]| {
            let damaged = places.iter().map(|place| ids[*place].clone()).collect();
            listing.datasets_of(&damaged)
        };
        assert_eq!(of(&[0, 2]), Some(vec![DatasetName::new("tank/a").unwrap()]));
        assert_eq!((of(&[2]), of(&[])), (Some(Vec::new()), Some(Vec::new())));
        assert_eq!((of(&[1]), of(&[0, 1])), (None, None));
    }

    #[test]
    fn of_many_that_others_backed_up_the_newest_are_enough() {
        let foreign = || {
            ["/srv", "/"]
                .into_iter()
                .zip([0, 100])
                .flat_map(|(path, from)| (1..=60).map(move |number| snapshot(from + number, path, &[])))
        };
        let (hours, looks, _) = found(foreign(), "nas", |_| true);
        assert_eq!((hours.len(), hours[0], looks), (16, 160, 16));
        // What was lost a while ago is in none of the newest, and is no first start.
        let (hours, ..) = found(foreign(), "nas", |one| one.time.as_second() < 10 * 3600);
        assert_eq!(hours, [9, 8, 7, 6, 5, 4, 3, 2]);
        // Of another host one is enough to tell.
        let (hours, looks, others) = found(foreign(), "new", |_| true);
        assert_eq!((hours.len(), looks, others.len()), (0, 1, 1));
    }
}
