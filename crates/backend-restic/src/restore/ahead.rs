//! Reads the trees that a walk comes to next before it does: many in one request, and some requests at once.
//!
//! Only for stores at the other end of a network, where each tree by itself costs a round trip. Whatever can't be read this way
//! is read again by itself, and it is that which says why.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rustic_core::{Id, TreeId};

use super::parsed::Parsed;
use super::reads::{Job, jobs};
use crate::pack::{Location, read_range};
use crate::store::Store;
use crate::threads;

/// So many trees at once, and so many bytes of them.
const TREES: usize = 512;
const BYTES: u64 = 8 << 20;
/// With so many bytes in hand nothing more is read: a deep tree has batches on each of its levels.
const HELD: usize = 32 << 20;

/// Trees that were read and not asked for yet, as they lie in their packs.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    trees: HashMap<TreeId, Vec<u8>>,
    held: usize,
}

impl Ahead {
    pub(super) fn take(&mut self, id: &TreeId) -> Option<Vec<u8>> {
        let sealed = self.trees.remove(id)?;
        self.held = self.held.saturating_sub(sealed.len());
        Some(sealed)
    }

    /// Reads what comes next, where the first is not there yet.
    pub(super) fn read(
        &mut self,
        store: &Store,
        parsed: &Parsed,
        open: impl Iterator<Item = TreeId>,
        place: impl Fn(&TreeId) -> Option<(Id, Location)>,
    ) {
        let mut next = parsed.upcoming(open).peekable();
        let is_there = |id: &TreeId| self.trees.contains_key(id) || parsed.holds(id);
        if store.is_local() || self.held > HELD || next.peek().is_none_or(is_there) {
            return;
        }
        let (mut wanted, mut bytes, mut known) = (Vec::new(), 0_u64, HashSet::new());
        // Of many equal directories none is there once it was taken: no more is looked at than may be read.
        let next = next
            .take(4 * TREES)
            .filter(|id| !is_there(id) && known.insert(*id));
        for id in next.take(TREES) {
            let Some((pack, at)) = place(&id) else { continue };
            bytes = bytes.saturating_add(at.length.into());
            if bytes > BYTES {
                break;
            }
            wanted.push((pack, at, id));
        }
        if wanted.len() > 1 {
            self.fetch(store, wanted);
        }
    }

    fn fetch(&mut self, store: &Store, mut wanted: Vec<(Id, Location, TreeId)>) {
        wanted.sort_unstable_by_key(|(pack, at, _)| (*pack, at.offset));
        let jobs = jobs(wanted.iter().map(|(pack, at, _)| (*pack, *at)));
        let (next, found) = (AtomicUsize::new(0), Mutex::new(&mut *self));
        let read = |job: &Job<Id>| {
            let Ok(buffer) = read_range(store, &job.pack, job.offset, job.length) else {
                return;
            };
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            for (_, at, id) in &wanted[job.pieces.clone()] {
                let from = (at.offset - job.offset) as usize;
                if let Some(sealed) = buffer.get(from..from + at.length as usize) {
                    found.held += sealed.len();
                    found.trees.insert(*id, sealed.to_vec());
                }
            }
        };
        // What fails here is asked for again, and fails there.
        let _ = threads::each(threads::REMOTE.min(jobs.len()), "restore", || {
            while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                read(job);
            }
            Ok(())
        });
    }
}
