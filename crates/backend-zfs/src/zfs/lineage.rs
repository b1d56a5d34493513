//! What has to be sent so that a replica has what the store has. Pure.
//!
//! - The base is the newest snapshot that both have; a bookmark stands for one that is gone from the store.
//! - Newer snapshots of the replica's own are no conflict as long as nothing was written with them (TRAPS).
//! - Where there is no base, or the replica was written to, or a name that is to be sent is another snapshot's there, the
//!   replica's lineage is set aside by renaming and everything is sent anew beside it.
//! - So it is where the replica is in clear text and what is sent is encrypted: the dataset came back below an encrypted one, say.

use std::collections::HashSet;

use jiff::Timestamp;
use reseed_core::error::{ReplicateError, ReplicateKind};
use reseed_core::names::{DatasetName, Guid, SnapshotName};
use reseed_core::point::{SnapshotRef, Target};
use reseed_core::replicate::{Divergence, ReplicationStep};

use super::names;
use super::parse::{Line, What};
use super::space::Space;
use super::transfer::{Own, is_cipher};

/// A snapshot or bookmark of a lineage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) name: SnapshotName,
    pub(crate) guid: Guid,
    pub(crate) createtxg: u64,
    pub(crate) written: u64,
    pub(crate) taken_at: Timestamp,
    pub(crate) own: Own,
    /// How many hold it.
    pub(crate) userrefs: u64,
}

/// A dataset with its snapshots and bookmarks, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lineage {
    /// The dataset's guid; none when it isn't there.
    pub(crate) dataset: Option<Guid>,
    pub(crate) written: u64,
    pub(crate) encrypted: bool,
    /// It has blocks instead of files.
    pub(crate) volume: bool,
    /// Its quotas and reservations.
    pub(crate) space: Space,
    pub(crate) resume_token: Option<String>,
    /// Whose replica it says it is, or inherits.
    pub(crate) origin: Option<String>,
    pub(crate) snapshots: Vec<Mark>,
    pub(crate) bookmarks: Vec<Mark>,
    /// Snapshots with odd names: they are never sent by name, and their data counts.
    pub(crate) odd: Vec<OddMark>,
    /// The datasets right below, whatever they are called.
    pub(crate) below: Vec<String>,
}

/// A snapshot whose name is none here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OddMark {
    pub(crate) guid: Guid,
    pub(crate) createtxg: u64,
    pub(crate) written: u64,
}

impl Lineage {
    /// From the lines of one dataset.
    pub(crate) fn of<'a>(lines: impl IntoIterator<Item = &'a Line>) -> Self {
        let mut all = Self::default();
        for line in lines {
            let mark = |name: &SnapshotName| Mark {
                name: name.clone(),
                guid: line.guid,
                createtxg: line.createtxg,
                written: line.written,
                taken_at: line
                    .taken
                    .as_deref()
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(line.creation),
                own: Own {
                    taken: line.taken.clone(),
                    unseeded: line.unseeded,
                    digest: line.digest.clone(),
                },
                userrefs: line.userrefs,
            };
            match &line.what {
                What::Snapshot(name) => all.snapshots.push(mark(name)),
                What::Bookmark(name) => all.bookmarks.push(mark(name)),
                What::OddSnapshot => all.odd.push(OddMark {
                    guid: line.guid,
                    createtxg: line.createtxg,
                    written: line.written,
                }),
                What::OddBelow(name) => all.below.push(name.clone()),
                What::Dataset => {
                    all.dataset = Some(line.guid);
                    all.written = line.written;
                    all.volume = line.volume;
                    all.encrypted = is_cipher(&line.encryption);
                    all.space = line.space;
                    all.resume_token = line.resume_token.clone();
                    all.origin = line.origin.clone();
                }
            }
        }
        all.snapshots.sort_by_key(|mark| mark.createtxg);
        all.bookmarks.sort_by_key(|mark| mark.createtxg);
        all
    }

    /// Notes that one of the snapshots has a bookmark now, or one that is gone another one.
    pub(crate) fn marked(&mut self, bookmark: &SnapshotName, guid: Guid) {
        let mut all = self.snapshots.iter().chain(&self.bookmarks);
        if let Some(mark) = all.find(|mark| mark.guid == guid).cloned() {
            self.bookmarks.push(Mark {
                name: bookmark.clone(),
                ..mark
            });
            self.bookmarks.sort_by_key(|mark| mark.createtxg);
        }
    }

    /// Of the newest snapshot; of the dataset where there is none.
    pub(crate) fn last_guid(&self) -> Guid {
        let newest = self.snapshots.last().map(|mark| mark.guid);
        newest.or(self.dataset).unwrap_or(Guid(0))
    }

    pub(crate) fn has(&self, guid: Guid) -> bool {
        self.snapshots.iter().any(|mark| mark.guid == guid)
    }
}

/// What the next increment can be based on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) mark: Mark,
    pub(crate) is_bookmark: bool,
}

/// The newest that both have.
pub(crate) fn base(here: &Lineage, there: &Lineage) -> Option<Base> {
    there.snapshots.iter().rev().find_map(|copy| {
        let find = |marks: &[Mark]| marks.iter().find(|mark| mark.guid == copy.guid).cloned();
        let snapshot = find(&here.snapshots).map(|mark| (mark, false));
        let found = snapshot.or_else(|| find(&here.bookmarks).map(|mark| (mark, true)));
        found.map(|(mark, is_bookmark)| Base { mark, is_bookmark })
    })
}

/// When the newest was taken of what came from the store. What the replica has of its own since, a snapshot of its own tools for one,
/// is no news of the store, and neither is a date that one of those has.
pub(crate) fn newest(here: &Lineage, there: &Lineage) -> Option<Timestamp> {
    if let Some(base) = base(here, there) {
        let copy = there.snapshots.iter().find(|copy| copy.guid == base.mark.guid);
        return copy.map(|copy| copy.taken_at);
    }
    let ours = there.snapshots.iter().rev().find(|copy| copy.own.taken.is_some());
    ours.map(|copy| copy.taken_at)
        .or_else(|| there.snapshots.iter().map(|copy| copy.taken_at).max())
}

/// Why a replica's lineage can't be continued, if so. What is encrypted is sent so, if it is sent `raw`.
fn diverged(here: &Lineage, there: &Lineage, base: Option<&Base>, raw: bool) -> Option<String> {
    there.dataset?;
    let Some(base) = base else {
        // Nothing but a stream that began to arrive: it is gone on with, or thrown away.
        if there.snapshots.is_empty() && there.odd.is_empty() && there.resume_token.is_some() {
            return None;
        }
        if there.snapshots.is_empty() {
            return Some("it has no snapshot: a place for what is below it, or somebody else's".to_owned());
        }
        return Some(format!(
            "none of its {} snapshots is one of the store's {}",
            there.snapshots.len(),
            here.snapshots.len()
        ));
    };
    // The kernel refuses each increment. As long as there is none, it is as good as any other.
    if raw && here.encrypted && !there.encrypted && after(here, Some(base)).next().is_some() {
        return Some("it is in clear text, and what is sent is encrypted".to_owned());
    }
    // Also where a stream is half received: its bytes are kept apart and are none of these, and it could not be completed.
    if there.written > 0 {
        return Some(format!(
            "{} bytes were written to it since its newest snapshot",
            there.written
        ));
    }
    let since = there
        .snapshots
        .iter()
        .rev()
        .take_while(|mark| mark.guid != base.mark.guid);
    let own: Vec<&Mark> = since.filter(|mark| mark.written > 0).collect();
    if let Some(own) = own.first() {
        return Some(format!(
            "it has a snapshot with data of its own, {}, since {}",
            own.name, base.mark.name
        ));
    }
    // One of the store's comes along in a stream of several.
    let copy = there.snapshots.iter().find(|mark| mark.guid == base.mark.guid);
    let is_own = |odd: &OddMark| {
        odd.written > 0
            && copy.is_some_and(|copy| odd.createtxg > copy.createtxg)
            && !here.odd.iter().any(|ours| ours.guid == odd.guid)
    };
    if there.odd.iter().any(is_own) {
        return Some(format!(
            "it has a snapshot with data of its own, with a name that can't be read, since {}",
            base.mark.name
        ));
    }
    let taken: HashSet<&SnapshotName> = there.snapshots.iter().map(|mark| &mark.name).collect();
    after(here, Some(base))
        .find(|mark| taken.contains(&mark.name))
        .map(|mark| format!("{} is another snapshot there than in the store", mark.name))
}

/// The store's snapshots that are newer than the base.
pub(crate) fn after<'a>(here: &'a Lineage, base: Option<&Base>) -> impl Iterator<Item = &'a Mark> {
    let since = base.map(|base| base.mark.createtxg);
    here.snapshots
        .iter()
        .filter(move |mark| since.is_none_or(|since| mark.createtxg > since))
}

/// What would be sent of one target; nothing when the replica is up to date, or the store has no snapshot.
pub(crate) fn step(
    target: &Target,
    replica: &DatasetName,
    here: &Lineage,
    there: &Lineage,
    raw: bool,
) -> Result<Option<ReplicationStep>, reseed_core::error::StoreError> {
    let found = base(here, there);
    let why = diverged(here, there, found.as_ref(), raw);
    let found = found.filter(|_| why.is_none());
    let send: Vec<&Mark> = after(here, found.as_ref()).collect();
    if send.is_empty() {
        return Ok(None);
    }
    let reference = |mark: &Mark| SnapshotRef {
        dataset: target.dataset.clone(),
        name: mark.name.clone(),
        guid: mark.guid,
    };
    let set_aside = match why {
        None => None,
        Some(why) => {
            let guid = there.dataset.unwrap_or(Guid(0));
            Some(Divergence {
                newest: there.last_guid(),
                renamed_to: names::diverged(replica, guid)?.to_string(),
                why,
            })
        }
    };
    // What ZFS counts of a snapshot is since the one before it, which is older than the bookmark, or none: then it is all that there is.
    let is_counted = found.as_ref().is_none_or(|base| !base.is_bookmark);
    Ok(Some(ReplicationStep {
        target: target.clone(),
        base: found.as_ref().map(|base| reference(&base.mark)),
        bytes: is_counted.then(|| send.iter().map(|mark| mark.written).sum()),
        send: send.into_iter().map(reference).collect(),
        set_aside,
    }))
}

/// Why a replica that has to be set aside can't be, if so: a rename would take along what is below it.
pub(crate) fn in_the_way(
    step: &ReplicationStep,
    replica: &DatasetName,
    there: &Lineage,
) -> Option<ReplicateError> {
    let (aside, child) = (step.set_aside.as_ref()?, there.below.first()?);
    let dataset = &step.target.dataset;
    let what = if there.snapshots.is_empty() {
        format!(
            "{replica} is no replica but a place for {child} below it, and {dataset} can't be received while it is there"
        )
    } else {
        let why = &aside.why;
        format!(
            "the replica of {dataset} can't be continued ({why}), and setting it aside would take {child} along"
        )
    };
    let to = &aside.renamed_to;
    let hint = format!(
        "move it out of the way with all that is below it, replicate this one alone, and move that back: \
         `zfs rename -u '{replica}' '{to}'`, then `reseed replicate` with the service of {dataset}, then for each dataset \
         below it `zfs rename -u '{to}/NAME' '{replica}/NAME'`"
    );
    Some(ReplicateError::new(ReplicateKind::Diverged, what).hint(hint))
}

#[cfg(test)]
mod tests;
