//! Ways around packs that are damaged or missing. What was backed up twice at the same time, by two hosts say, lies in two packs, and the
//! index has a blob in one of them only.

use std::collections::{HashMap, HashSet};

use rustic_core::{BlobId, Id, IndexedFullStatus, PackedId, Repository};

use crate::error::{EngineError, Result};
use crate::pack::Location;
use crate::repo::OpenRepo;

/// So many packs are gone around: each costs a look at all that was restored.
const MOST: usize = 16;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Detours {
    avoid: HashSet<Id>,
    places: HashMap<BlobId, (Id, Location)>,
    /// What is to be told of them.
    pub(crate) told: Vec<String>,
}

impl Detours {
    /// Where a blob is: by the index, or else where there is a way around that.
    pub(crate) fn place<T: PackedId>(
        &self,
        index: &Repository<IndexedFullStatus>,
        id: &T,
    ) -> Option<(Id, Location)> {
        let entry = index.get_index_entry(id).ok()?;
        let (pack, at) = (*entry.pack, entry.location);
        let elsewhere = || self.places.get(&(*id).into()).copied();
        let around = self.avoid.contains(&pack).then(elsewhere).flatten();
        let at = Location::new(at.offset, at.length, at.uncompressed_length);
        Some(around.unwrap_or((pack, at)))
    }

    /// Finds a way around what failed. False where there is none. The repository is only opened where there may be one: a store that is gone is
    /// not asked once more.
    pub(crate) fn around(
        &mut self,
        failed: &EngineError,
        open: impl FnOnce() -> Result<OpenRepo>,
    ) -> Result<bool> {
        let EngineError::CorruptPack { pack, detail, .. } = failed else {
            return Ok(false);
        };
        let Ok(id) = pack.parse::<Id>() else {
            return Ok(false);
        };
        if self.avoid.len() == MOST || !self.avoid.insert(id) {
            return Ok(false);
        }
        let open = open()?;
        let (mut lost, mut of_this) = (HashSet::new(), HashSet::new());
        open.each_pack(|(pack, blobs)| {
            if self.avoid.contains(&*pack) {
                lost.extend(blobs.iter().map(|blob| blob.id));
            }
            if *pack == id {
                of_this.extend(blobs.iter().map(|blob| blob.id));
            }
        })?;
        self.places.clear();
        open.each_pack(|(pack, blobs)| {
            for blob in blobs.iter().filter(|blob| lost.contains(&blob.id)) {
                if !self.avoid.contains(&*pack) {
                    self.places.insert(blob.id, (*pack, Location::of(blob)));
                }
            }
        })?;
        self.told.push(format!(
            "pack {pack} is damaged ({detail}), and what it holds was restored from other packs: run `restic check --read-data`"
        ));
        Ok(of_this.iter().any(|blob| self.places.contains_key(blob)))
    }
}
