//! [`MemVerifier`]: looks at the world's trees.

use std::path::Path;

use async_trait::async_trait;
use reseed_core::error::{Effect, OpError, OpKind};
use reseed_core::point::Fingerprint;
use reseed_core::verify::Validator;
use reseed_core::{Context, Verifier};

use super::World;
use super::tree::Tree;

/// The world's verifier. A SQLite database is sound when it begins as one; a command succeeds unless it is `false`.
#[derive(Debug, Clone)]
pub struct MemVerifier {
    world: World,
}

impl MemVerifier {
    /// Over this world.
    pub fn new(world: &World) -> Self {
        Self { world: world.clone() }
    }

    fn tree(&self, root: &Path) -> Result<Tree, OpError> {
        let found = self.world.lock().resolve(root);
        found
            .and_then(|(tree, rel)| tree.part(&rel))
            .ok_or_else(|| OpError::new(OpKind::NotFound, format!("{} is not there", root.display())))
    }
}

#[async_trait]
impl Verifier for MemVerifier {
    async fn measure(&self, cx: &Context, root: &Path) -> Result<Fingerprint, OpError> {
        self.world.step(cx, Effect::None).await?;
        Ok(self.tree(root)?.fingerprint())
    }

    async fn make_scratch(&self, cx: &Context, path: &Path) -> Result<(), OpError> {
        self.world.step(cx, Effect::None).await?;
        let found = self.world.lock().resolve(path);
        let tree = found.and_then(|(tree, rel)| tree.part(&rel));
        match tree {
            Some(tree) if !tree.is_empty() => Err(OpError::new(
                OpKind::AlreadyExists,
                format!("{} is not empty", path.display()),
            )),
            _ => Ok(()),
        }
    }

    async fn validate(&self, cx: &Context, root: &Path, validator: &Validator) -> Result<(), OpError> {
        self.world.step(cx, Effect::None).await?;
        let tree = self.tree(root)?;
        let passed = match validator {
            Validator::Exists { path } => tree.get(path).is_some(),
            Validator::Sqlite { path } => tree
                .bytes(path)
                .is_some_and(|bytes| bytes.starts_with(b"SQLite format 3\0")),
            Validator::Command { argv } => argv.first().is_some_and(|program| program != "false"),
        };
        if passed {
            Ok(())
        } else {
            Err(OpError::new(OpKind::Failed, format!("{validator:?} says no")))
        }
    }
}
