//! What restic doesn't tell, or tells less of, and the embedded engine finds out where it reaches the repository: how much is stored, and
//! what damage takes away. restic names packs and files, and says of no snapshot that it is whole.

use std::collections::HashSet;
use std::sync::Arc;

use reseed_core::Context;
use reseed_core::names::DatasetName;
use reseed_core::offsite::Usage;
use rustic_core::Id;

use super::{Restic, argv, parse};
use crate::backup::Cancelled;
use crate::embedded::blocking;
use crate::error::Result;
use crate::repo::Engine;

impl Restic {
    /// The size, by listing the store where the embedded engine reaches it, else by what restic adds up.
    pub(super) async fn measured(&self, cx: &Context) -> Result<Usage> {
        let Some(engine) = self.location.embedded(Arc::clone(&self.clock)) else {
            let printed = self.ask(cx, argv::stats()).await?;
            return parse::stats(&printed);
        };
        let password = self.password.clone();
        blocking(cx, "adding up the repository", move |cx| {
            let cancelled: Cancelled = Arc::new(move || cx.cancel.is_cancelled());
            let open = engine.stopped_by(cancelled).open(&password.read()?)?;
            open.usage()
        })
        .await
    }

    /// The datasets with a point that isn't whole, by what a check said; none where that can't be told. Not being able to tell
    /// must not cost what the check has found.
    pub(super) async fn affected(&self, cx: &Context, said: &str) -> Option<Vec<DatasetName>> {
        let engine = self.location.embedded(Arc::clone(&self.clock))?;
        let (password, lost) = (self.password.clone(), named(said));
        let looked = blocking(cx, "looking at the damage", move |cx| {
            let cancelled: Cancelled = Arc::new(move || cx.cancel.is_cancelled());
            let open = engine
                .stopped_by(Arc::clone(&cancelled))
                .open(&password.read()?)?;
            open.affected(&open.packs()?, &lost, &cancelled)
        });
        let snapshots = looked.await.ok()??;
        let listing = self.listing(cx, None, None).await.ok()?;
        Some(listing.datasets_of(&snapshots))
    }
}

/// Asks the store by the embedded engine's client.
pub(super) async fn ask_by(
    cx: &Context,
    engine: Engine,
    ask: impl FnOnce(&Engine) -> Result<()> + Send + 'static,
) -> Result<()> {
    blocking(cx, "looking at the store", move |cx| {
        ask(&engine.stopped_by(Arc::new(move || cx.cancel.is_cancelled())))
    })
    .await
}

/// Every whole id in the words. Those that are of no pack do no harm.
fn named(said: &str) -> HashSet<Id> {
    said.split(|c: char| !c.is_ascii_hexdigit())
        .filter(|word| word.len() == 64)
        .filter_map(|word| word.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_ids_are_found_in_either_versions_words() {
        let (a, b) = ("a1d8a2a1".repeat(8), "7c58c26f".repeat(8));
        let old = format!("Pack ID does not match, want {a}, got {b}");
        let new = format!("pack {a} contains 1 errors: [blob {b}: decrypting blob <data/f1bb1b38> failed]");
        for said in [&old, &new] {
            assert_eq!(named(said).len(), 2, "{said}");
        }
        assert_eq!(named(&format!("error for tree {}: x{a}y{b}0", &a[..8])).len(), 1);
        assert!(named("").is_empty());
    }
}
