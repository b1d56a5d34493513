//! Looks for damage in a repository.
//!
//! The structure is checked by `rustic_core` (index, trees, presence and size of packs), with its panics caught. The
//! data is read by our own code, because the library's panics on a pack that does not decompress or is short: every
//! byte of a pack against the pack's id, and every blob against its own.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustic_core::repofile::{IndexBlob, IndexFile, PackId};
use rustic_core::{CheckOptions, FileType, Id, ReadBackend, RusticResult, TreeId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::affected::Pack;
use crate::backup::Cancelled;
use crate::cipher::hex;
use crate::error::{EngineError, Result, guarded};
use crate::pack::{Location, Unsealer, raw_id, read_range};
use crate::repo::OpenRepo;
use crate::store::Store;
use crate::threads;

/// Packs are read in pieces of at most this size, unless one blob is larger.
const PIECE: u32 = 8 << 20;

/// How much of the data to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadData {
    /// None of it.
    No,
    /// The packs whose id falls into part `n` of `of`, from 1: after `of` runs all of it.
    Part {
        /// Which part.
        n: u32,
        /// Of how many.
        of: u32,
    },
    /// Every pack.
    All,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Damage. Empty is sound.
    pub errors: Vec<String>,
    /// What is odd and does no harm.
    pub warnings: Vec<String>,
    /// Packs that were read.
    pub packs_read: u64,
    /// Their bytes.
    pub bytes_read: u64,
    /// The ids of the snapshots that are not whole because of it; none where that could not be told.
    pub affected: Option<HashSet<String>>,
    /// The packs that were read and are not what they should be, with what is wrong: so they stay, whatever another removes meanwhile.
    pub wrong: BTreeMap<String, String>,
}

impl OpenRepo {
    /// Checks the repository. What somebody removes meanwhile is found missing: [`Engine::check`](crate::repo::Engine::check) tells it
    /// from damage.
    ///
    /// # Errors
    /// What keeps it from looking; damage is in the findings.
    pub fn check(&self, read: ReadData, cancelled: &Cancelled) -> Result<Findings> {
        if let ReadData::Part { n, of } = read
            && (of == 0 || n == 0 || n > of)
        {
            return Err(EngineError::Invalid {
                detail: format!("there is no part {n} of {of}"),
            });
        }
        let mut findings = Findings::default();
        let trees = self.check_snapshots(&mut findings)?;
        self.check_structure(trees, &mut findings)?;
        let mut lost = HashSet::new();
        let mut packs = None;
        if read != ReadData::No {
            match self.packs() {
                Ok(all) => {
                    lost = self.check_packs(&all, read, cancelled, &mut findings)?;
                    packs = Some(all);
                }
                Err(error) if self.keeps_from_looking(&error) => return Err(error),
                Err(error) => findings.errors.push(error.to_string()),
            }
        } else if !findings.errors.is_empty() {
            packs = self.packs().ok();
        }
        findings.affected = match packs {
            _ if findings.errors.is_empty() => Some(HashSet::new()),
            Some(packs) => self.affected(&packs, &lost, cancelled)?,
            None => None,
        };
        Ok(findings)
    }

    /// The trees of the snapshots that can be read.
    fn check_snapshots(&self, findings: &mut Findings) -> Result<Vec<TreeId>> {
        let snapshots = self.snapshots()?;
        for (id, error) in snapshots.unreadable {
            findings.errors.push(format!("snapshot {id} is damaged: {error}"));
        }
        let mut trees = Vec::new();
        for snapshot in snapshots.readable {
            trees.push(snapshot.tree_id()?);
        }
        Ok(trees)
    }

    fn check_structure(&self, trees: Vec<TreeId>, findings: &mut Findings) -> Result<()> {
        drop(self.backend.take_error());
        let checked = guarded("check", || {
            self.repo
                // Its own list of snapshots ends at the first that is damaged.
                .check_with_trees(CheckOptions::default(), trees)
                .map_err(|error| self.error(&error, "check"))
        });
        // A directory that could not be fetched is among the library's findings, like one that is damaged.
        if let Some(error) = self
            .backend
            .take_error()
            .filter(|error| self.keeps_from_looking(error))
        {
            return Err(error);
        }
        match checked {
            Ok(results) => {
                for (level, error) in results.0 {
                    let text = crate::words::plain(&error.to_string());
                    // The level's type is private; its name is all there is.
                    if format!("{level:?}") == "Warn" {
                        findings.warnings.push(text);
                    } else {
                        findings.errors.push(text);
                    }
                }
            }
            Err(error) if error.is_of_the_store() || self.keeps_from_looking(&error) => return Err(error),
            Err(error) => findings.errors.push(error.to_string()),
        }
        Ok(())
    }

    /// Whether it says nothing of what can't be had. A disk fails at one file, and that is damage.
    fn keeps_from_looking(&self, error: &EngineError) -> bool {
        *error == EngineError::Cancelled || (is_of_a_remote(error) && !self.store.is_local())
    }

    /// Every pack of the index, once, by their ids.
    pub(crate) fn packs(&self) -> Result<Vec<Pack>> {
        let mut packs = Vec::new();
        self.each_pack(|pack| packs.push(pack))?;
        packs.sort_unstable_by_key(|(id, _)| *id);
        packs.dedup_by_key(|(id, _)| *id);
        Ok(packs)
    }

    /// Every pack of the index, as it is read.
    pub(crate) fn each_pack(&self, mut with: impl FnMut(Pack)) -> Result<()> {
        guarded("read the index", || {
            let files = self
                .repo
                .stream_files::<IndexFile>()
                .map_err(|error| self.error(&error, "read the index"))?;
            for file in files {
                let (_, index) = file.map_err(|error| self.error(&error, "read the index"))?;
                for pack in index.packs {
                    with((pack.id, pack.blobs));
                }
            }
            Ok(())
        })
    }

    /// Whether the index lists any data. What is left of it after everything was removed may be a file that lists none.
    pub(crate) fn has_indexed_data(&self) -> Result<bool> {
        guarded("read the index", || {
            let ids = self.backend.list(FileType::Index);
            for id in ids.map_err(|error| self.error(&error, "read the index"))? {
                let index: RusticResult<IndexFile> = self.repo.get_file(&id.into());
                let index = index.map_err(|error| self.error(&error, "read the index"))?;
                if !index.packs.is_empty() {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    /// Reads packs; those that are damaged come back.
    fn check_packs(
        &self,
        packs: &[Pack],
        read: ReadData,
        cancelled: &Cancelled,
        findings: &mut Findings,
    ) -> Result<HashSet<Id>> {
        let mut lost = HashSet::new();
        let sizes: std::collections::HashMap<_, _> = self
            .backend
            .list_with_size(FileType::Pack)
            .map_err(|error| self.error(&error, "list packs"))?
            .into_iter()
            .collect();
        let mut wanted: Vec<(&Pack, u32)> = Vec::new();
        for pack in packs {
            if let ReadData::Part { n, of } = read
                && part_of(&raw_id(&pack.0)?, of) != n - 1
            {
                continue;
            }
            // A missing pack is in the structure's findings already.
            let Some(size) = sizes.get(&*pack.0) else { continue };
            wanted.push((pack, *size));
            findings.packs_read += 1;
            findings.bytes_read += u64::from(*size);
        }
        let next = AtomicUsize::new(0);
        let damaged = threads::each(threads::sensible(), "check", || {
            let mut unsealer = Unsealer::new(self.cipher.clone())?;
            let mut damaged = Vec::new();
            while let Some(((id, blobs), size)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                if cancelled() {
                    return Err(EngineError::Cancelled);
                }
                match check_pack(&self.store, &mut unsealer, id, blobs.clone(), *size) {
                    Ok(()) => {}
                    Err(Fault::Damage(detail)) => damaged.push((**id, detail)),
                    Err(Fault::Store(error)) => return Err(error),
                }
            }
            Ok(damaged)
        })?;
        let mut damaged: Vec<(Id, String)> = damaged.into_iter().flatten().collect();
        damaged.sort_unstable();
        for (id, detail) in damaged {
            let pack = id.to_hex().to_string();
            findings.errors.push(format!("pack {pack}: {detail}"));
            findings.wrong.insert(pack, detail);
            lost.insert(id);
        }
        Ok(lost)
    }
}

/// Whether it is of a store, where that isn't on this machine: it may also keep what is asked for from us.
pub(crate) fn is_of_a_remote(error: &EngineError) -> bool {
    error.is_of_the_store() || matches!(error, EngineError::Denied { .. })
}

/// Why a pack isn't sound, or can't be looked at.
enum Fault {
    Damage(String),
    Store(EngineError),
}

impl From<String> for Fault {
    fn from(detail: String) -> Self {
        Self::Damage(detail)
    }
}

impl From<&str> for Fault {
    fn from(detail: &str) -> Self {
        Self::Damage(detail.to_owned())
    }
}

fn check_pack(
    store: &Store,
    unsealer: &mut Unsealer,
    id: &PackId,
    mut blobs: Vec<IndexBlob>,
    size: u32,
) -> std::result::Result<(), Fault> {
    blobs.sort_unstable_by_key(|blob| blob.location.offset);
    let mut hash = Sha256::new();
    let mut position = 0_u32;
    let mut rest = blobs.as_slice();
    while position < size {
        // Up to the last blob that ends within the piece; at least one; the header at the end.
        let fits = rest
            .iter()
            .take_while(|blob| blob_end(blob).is_some_and(|end| end.saturating_sub(position) <= PIECE))
            .count()
            .max(usize::from(!rest.is_empty()));
        let (now, later) = rest.split_at(fits);
        rest = later;
        let end = match now.last() {
            Some(blob) => blob_end(blob).filter(|end| (position..=size).contains(end)),
            None => Some(size.min(position.saturating_add(PIECE))),
        };
        let end = end.ok_or("its index does not fit its size")?;
        let mut piece = read_range(store, id, position, end - position).map_err(|error| match error {
            EngineError::CorruptPack { detail, .. } => Fault::Damage(detail),
            // A disk fails at one file, and that is damage. What else can't be had says nothing of what it is.
            error @ EngineError::Store { .. } if store.is_local() => Fault::Damage(error.to_string()),
            error if error.is_of_the_store() || error == EngineError::Cancelled => Fault::Store(error),
            // An object of a cold class, or what a key may not read: what is in it nobody has seen.
            error if is_of_a_remote(&error) && !store.is_local() => Fault::Store(error),
            error => Fault::Damage(error.to_string()),
        })?;
        hash.update(&piece);
        for blob in now {
            let at = Location::of(blob);
            let range = at
                .offset
                .checked_sub(position)
                .map(|from| from as usize..from as usize + at.length as usize);
            let sealed = range
                .and_then(|range| piece.get_mut(range))
                .ok_or("blobs overlap in its index")?;
            let raw = raw_id(&blob.id).map_err(|error| error.to_string())?;
            unsealer.open(sealed, at, &raw)?;
        }
        if end == position {
            return Err("its index holds an empty blob".into());
        }
        position = end;
    }
    if hex(&hash.finalize().into()) == id.to_hex().as_str() {
        Ok(())
    } else {
        Err("its content is not what its name says".into())
    }
}

/// Ids are spread evenly, so their first bytes say which part a pack is in; it stays in it as others come and go.
fn part_of(id: &[u8; 32], of: u32) -> u32 {
    u32::from_be_bytes([id[0], id[1], id[2], id[3]]) % of
}

fn blob_end(blob: &IndexBlob) -> Option<u32> {
    blob.location.offset.checked_add(blob.location.length)
}
