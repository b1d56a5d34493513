//! Looks into the trees of a snapshot through restic, a directory a call. Only for what the record of a snapshot leaves open:
//! where in it a path is, and what its topmost directory was like.

use std::collections::HashMap;
use std::path::Path;

use rustic_core::TreeId;
use rustic_core::repofile::Tree;
use tokio::runtime::Handle;

use super::Restic;
use super::argv;
use crate::error::{EngineError, Result};
use crate::place::{Entry, Levels};
use crate::restore::plan::{Meta, meta_of};
use reseed_core::Context;

/// Blocks: for threads that may.
#[derive(Debug)]
pub(crate) struct Trees<'a> {
    pub(crate) restic: &'a Restic,
    pub(crate) cx: &'a Context,
    pub(crate) runtime: Handle,
    /// What was read: neighbours in time have most directories in common, and the rules ask for one several times.
    pub(crate) read: HashMap<TreeId, Vec<Entry>>,
}

/// More is not kept.
const KEPT: usize = 10_000;

impl Trees<'_> {
    fn tree(&self, id: TreeId) -> Result<Tree> {
        let id = id.to_hex().to_string();
        let output = self.runtime.block_on(self.restic.ask(self.cx, argv::tree(&id)))?;
        serde_json::from_slice(&output).map_err(|error| EngineError::BadOutput {
            detail: format!("directory {id}: {error}"),
        })
    }

    /// What the directory at `place` was like, where that was recorded.
    pub(crate) fn meta(&self, root: TreeId, place: &Path) -> Result<Option<Meta>> {
        let (mut tree, mut meta) = (root, None);
        for part in place {
            let found = self
                .tree(tree)?
                .nodes
                .into_iter()
                .find(|node| *node.name() == *part);
            let nothing = || EngineError::EmptyResult {
                what: format!("the snapshot does not hold {}", place.display()),
            };
            let node = found.ok_or_else(nothing)?;
            tree = node.subtree.ok_or_else(nothing)?;
            meta = Some(meta_of(&node));
        }
        Ok(meta)
    }
}

impl Levels for Trees<'_> {
    fn level(&mut self, tree: TreeId, _path: &Path) -> Result<Vec<Entry>> {
        if let Some(known) = self.read.get(&tree) {
            return Ok(known.clone());
        }
        let nodes = self.tree(tree)?.nodes.into_iter();
        let entries: Vec<Entry> = nodes
            .map(|node| (node.name().into_owned(), node.subtree))
            .collect();
        if self.read.values().map(Vec::len).sum::<usize>() + entries.len() <= KEPT {
            self.read.insert(tree, entries.clone());
        }
        Ok(entries)
    }
}
