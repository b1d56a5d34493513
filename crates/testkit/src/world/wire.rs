//! How a restore reaches staging: entry by entry, with an await point after each, as far as the space goes.

use std::path::{Component, Path, PathBuf};

use reseed_core::Context;
use reseed_core::error::{Effect, SourceError, SourceKind};
use reseed_core::event::Event;
use reseed_core::source::{RestoreRequest, Restored, Scope};
use reseed_core::store::{Delivery, StageState, Staging};

use super::World;
use super::tree::{NodeKind, Tree};

/// What of a tree is asked for.
pub(super) fn wanted(tree: &Tree, request: &RestoreRequest) -> Result<Tree, SourceError> {
    let nothing = |what: String| Err(SourceError::new(SourceKind::NothingRestored, what));
    match &request.scope {
        Scope::Whole if tree.is_empty() && !request.may_be_empty() => {
            nothing(format!("{} has no entries", request.point.id))
        }
        Scope::Whole => Ok(tree.clone()),
        Scope::Path(path) => {
            let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
            if !plain || path.as_os_str().is_empty() {
                let what = format!("{} is not a path inside of a tree", path.display());
                return Err(SourceError::new(SourceKind::InvalidInput, what));
            }
            let Some(part) = tree.part(path) else {
                return nothing(format!("{} is not in {}", path.display(), request.point.id));
            };
            let mut whole = Tree::empty();
            whole.graft(path, &part);
            Ok(whole)
        }
    }
}

impl World {
    /// Writes a tree into staging. What is there and right is kept, what is there and wrong is replaced, the rest is removed.
    pub(super) async fn deliver(
        &self,
        cx: &Context,
        tree: &Tree,
        delivery: Delivery,
        staging: &Staging,
    ) -> Result<Restored, SourceError> {
        let mut restored = Restored {
            bytes: 0,
            files: 0,
            reused: 0,
            checked: Vec::new(),
            warnings: Vec::new(),
        };
        if delivery == Delivery::Native {
            self.begin_stream(staging)?;
            self.step(cx, Effect::StagingOnly).await?;
        }
        for (path, node) in tree.entries() {
            let bytes = match &node.kind {
                NodeKind::File { bytes, .. } => {
                    restored.files += 1;
                    bytes.len() as u64
                }
                _ => 0,
            };
            restored.bytes += bytes;
            let wrote = self.write_staged(staging, |staged| {
                if staged.get(path) == Some(node) {
                    return 0;
                }
                staged.put(path, node.clone());
                bytes
            })?;
            restored.reused += bytes - wrote;
            cx.emit(Event::Progress {
                dataset: staging.target.dataset.clone(),
                bytes: restored.bytes,
                total: Some(tree.size()),
                files: restored.files,
            });
            self.step(cx, Effect::StagingOnly).await?;
        }
        let surplus = |staged: &Tree| -> Vec<PathBuf> {
            let own = staged.entries().keys();
            own.filter(|path| tree.get(path).is_none()).cloned().collect()
        };
        self.write_staged(staging, |staged| {
            for path in surplus(staged) {
                staged.remove(&path);
            }
            0
        })?;
        if let Some(staged) = self.lock().staged_by(&staging.locator) {
            staged.received = true;
        }
        self.step(cx, Effect::StagingOnly).await?;
        Ok(restored)
    }

    fn begin_stream(&self, staging: &Staging) -> Result<(), SourceError> {
        let mut state = self.lock();
        let Some(staged) = state.staged_by(&staging.locator) else {
            let what = format!("{} is no staging place", staging.locator);
            return Err(SourceError::new(SourceKind::NotFound, what));
        };
        staged.tree.get_or_insert_default();
        Ok(())
    }

    /// Changes staging by so many bytes. Writing anywhere else is what no source may do.
    fn write_staged(
        &self,
        staging: &Staging,
        change: impl FnOnce(&mut Tree) -> u64,
    ) -> Result<u64, SourceError> {
        let mut state = self.lock();
        let pool = state.pool(&staging.target.dataset);
        if pool.down.is_some() {
            return Err(SourceError::new(SourceKind::Io, "the pool went away").effect(Effect::StagingOnly));
        }
        if pool.read_only {
            return Err(SourceError::new(SourceKind::ReadOnly, "the pool is read-only"));
        }
        if staging.state == StageState::Exposed {
            state.violation(format!("a restore into the exposed snapshot {}", staging.locator));
            return Err(SourceError::new(
                SourceKind::ReadOnly,
                "a snapshot can't be written to",
            ));
        }
        // A restore to a directory of the operator's own: nobody's dataset, and named by its path.
        let live = state
            .datasets
            .values()
            .any(|found| found.mounted && staging.path.starts_with(&found.mountpoint));
        let own = Path::new(&staging.locator) == staging.path && !live;
        if own && state.staged_by(&staging.locator).is_none() {
            let tree = state.plain.entry(staging.path.clone()).or_default();
            return Ok(change(tree));
        }
        let Some(staged) = state.staged_by(&staging.locator) else {
            state.violation(format!(
                "a restore into {}, which is no staging place",
                staging.locator
            ));
            return Err(SourceError::new(
                SourceKind::NotFound,
                "there is no such staging place",
            ));
        };
        let mut tree = staged.tree.clone().unwrap_or_default();
        let wrote = change(&mut tree);
        if let Some(free) = pool.free {
            let Some(left) = free.checked_sub(wrote) else {
                return Err(
                    SourceError::new(SourceKind::NoSpace, "no space is left on the pool")
                        .effect(Effect::StagingOnly),
                );
            };
            state
                .pools
                .entry(staging.target.dataset.pool().to_owned())
                .or_default()
                .free = Some(left);
        }
        if let Some(staged) = state.staged_by(&staging.locator) {
            staged.tree = Some(tree);
        }
        Ok(wrote)
    }

    /// The tree that is read at a path, which must be a snapshot opened for reading or a directory that is nobody's dataset.
    pub(super) fn tree_at(&self, path: &Path) -> Option<Tree> {
        let mut state = self.lock();
        let live = state
            .datasets
            .values()
            .any(|found| found.mounted && path.starts_with(&found.mountpoint));
        if live {
            state.violation(format!("a backup that reads live data at {}", path.display()));
        }
        let (tree, rel) = state.resolve(path)?;
        tree.part(&rel)
    }
}
