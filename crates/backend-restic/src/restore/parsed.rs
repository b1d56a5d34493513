//! Parses the trees that a walk comes to next before it does, on all processors.
//!
//! Parsing is what takes a plan long, and nothing else can be done before there is one. What can't be read here is read again by itself,
//! and it is that which says why.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rustic_core::repofile::Tree;
use rustic_core::{Id, TreeId};

use super::ahead::Ahead;
use crate::cipher::Cipher;
use crate::error::Result;
use crate::pack::{Location, Unsealer, open_blob, read_blob};
use crate::store::Store;
use crate::threads;

/// So many trees at once, and so many bytes of them.
const TREES: usize = 64;
const BYTES: u64 = 4 << 20;
/// With so many bytes in hand nothing more is read: a deep tree has some on each of its levels.
const HELD: u64 = 8 << 20;

/// Trees that were parsed and not asked for yet, with how long they were, and all of that together.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    trees: HashMap<TreeId, (Tree, u64)>,
    held: u64,
}

impl Parsed {
    pub(super) fn holds(&self, id: &TreeId) -> bool {
        self.trees.contains_key(id)
    }

    /// Keeps a tree that is asked for again, where there is room.
    pub(super) fn keep(&mut self, id: TreeId, tree: Tree, bytes: u64) {
        if self.held + bytes <= HELD / 8 && !self.holds(&id) {
            self.held += bytes;
            self.trees.insert(id, (tree, bytes));
        }
    }

    /// What a walk comes to that has these trees open, the nearest first: each, and behind it what is known to be in it.
    pub(super) fn upcoming(&self, open: impl Iterator<Item = TreeId>) -> impl Iterator<Item = TreeId> {
        let in_it = |id: &TreeId| self.trees.get(id).into_iter().flat_map(|(tree, _)| &tree.nodes);
        open.flat_map(move |id| std::iter::once(id).chain(in_it(&id).filter_map(|node| node.subtree)))
    }

    pub(super) fn take(&mut self, id: &TreeId) -> Option<Tree> {
        // Empty directories are all the same one.
        if let Some((tree, _)) = self.trees.get(id).filter(|(tree, _)| tree.nodes.is_empty()) {
            return Some(tree.clone());
        }
        let (tree, bytes) = self.trees.remove(id)?;
        self.held = self.held.saturating_sub(bytes);
        Some(tree)
    }

    /// Parses what comes next, where the first is not there yet.
    pub(super) fn read(
        &mut self,
        store: &Store,
        cipher: &Cipher,
        ahead: &mut Ahead,
        open: impl Iterator<Item = TreeId>,
        place: impl Fn(&TreeId) -> Option<(Id, Location)>,
    ) {
        let mut next = self.upcoming(open).peekable();
        if self.held > HELD || next.peek().is_none_or(|id| self.holds(id)) {
            return;
        }
        let next = next.take(4 * TREES).filter(|id| !self.holds(id));
        let next: Vec<TreeId> = next.take(TREES).collect();
        let (mut wanted, mut bytes) = (Vec::new(), 0_u64);
        for id in next {
            let Some((pack, at)) = place(&id) else { continue };
            bytes = bytes.saturating_add(at.plain_len().unwrap_or(u32::MAX).into());
            if bytes > BYTES {
                break;
            }
            let known = |(other, ..): &(TreeId, Id, Location)| *other == id;
            if !wanted.iter().any(known) {
                wanted.push((id, pack, at));
            }
        }
        // Nobody is helped by a second thread.
        if wanted.len() < 2 {
            return;
        }
        let sealed = wanted.iter().map(|(id, ..)| Mutex::new(ahead.take(id)));
        let (sealed, nth): (Vec<_>, _) = (sealed.collect(), AtomicUsize::new(0));
        let found = threads::each(threads::available().min(wanted.len()), "restore", || {
            let (mut unsealer, mut found) = (Unsealer::new(cipher.clone())?, Vec::new());
            loop {
                let at_hand = nth.fetch_add(1, Ordering::Relaxed);
                let Some((id, pack, at)) = wanted.get(at_hand) else {
                    return Ok(found);
                };
                let sealed = sealed[at_hand]
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take();
                if let Ok(plain) = read_tree(store, &mut unsealer, sealed, pack, *at, *id)
                    && let Ok(tree) = serde_json::from_slice(&plain)
                {
                    found.push((*id, tree, plain.len() as u64));
                }
            }
        });
        for (id, tree, bytes) in found.into_iter().flatten().flatten() {
            self.held += bytes;
            self.trees.insert(id, (tree, bytes));
        }
    }
}

/// Reads and proves a tree, or proves what was read of it before.
pub(super) fn read_tree(
    store: &Store,
    unsealer: &mut Unsealer,
    sealed: Option<Vec<u8>>,
    pack: &Id,
    at: Location,
    id: TreeId,
) -> Result<Vec<u8>> {
    match sealed {
        Some(mut sealed) => open_blob(unsealer, &mut sealed, pack, at, &id.into()),
        None => read_blob(store, unsealer, pack, at, &id.into()),
    }
}
