//! What restic doesn't tell, or tells less of, and the embedded engine finds out where it reaches the repository: how much is stored, and
//! what damage takes away. restic names packs and files, and says of no snapshot that it is whole.

use std::collections::HashSet;
use std::sync::Arc;

use reseed_core::Context;
use reseed_core::names::DatasetName;
use reseed_core::offsite::Usage;
use rustic_core::Id;

use super::run::Ended;
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

    /// The datasets with a point that isn't whole, of these packs of which something is wrong; none where that can't be told. Not being able to tell
    /// must not cost what the check has found.
    pub(super) async fn affected(&self, cx: &Context, lost: HashSet<Id>) -> Option<Vec<DatasetName>> {
        let engine = self.location.embedded(Arc::clone(&self.clock))?;
        let password = self.password.clone();
        let looked = blocking(cx, "looking at the damage", move |cx| {
            let cancelled: Cancelled = Arc::new(move || cx.cancel.is_cancelled());
            let open = engine
                .stopped_by(Arc::clone(&cancelled))
                .open(&password.read()?)?;
            open.affected(&open.packs()?, &lost, &cancelled)
        });
        let snapshots = looked.await.ok()??;
        let listing = self.listing(cx, None, None).await.ok()?;
        listing.datasets_of(&snapshots)
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

/// What a check named, and whether that is all it found.
#[derive(Debug)]
pub(super) struct Named {
    lost: HashSet<Id>,
    all: bool,
}

impl Named {
    pub(super) fn by(ended: &Ended) -> Self {
        let heard = &ended.heard;
        let broken = heard
            .summary
            .as_ref()
            .and_then(|summary| summary.broken_packs.as_ref());
        let kept = u64::try_from(heard.problems.len()).is_ok_and(|kept| kept == heard.count);
        let mut lost = named(&ended.all_words());
        for words in heard
            .problems
            .iter()
            .map(|problem| &problem.why)
            .chain(broken.into_iter().flatten())
        {
            lost.extend(named(words));
        }
        let all = (kept && !ended.said_more) || broken.is_some_and(|packs| !packs.is_empty());
        Self {
            lost,
            all: all && ended.came_to_its_end(),
        }
    }

    /// There may be more.
    pub(super) fn and_more(self) -> Self {
        Self { all: false, ..self }
    }

    /// What is lost, where it is known that nothing else is.
    pub(super) fn lost(self) -> Option<HashSet<Id>> {
        self.all.then_some(self.lost)
    }
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

    /// A check of 0.14 tells in words, one of 0.18 in messages, of which not all are kept.
    #[test]
    fn of_what_was_not_kept_nothing_is_known() {
        let pack = |number: u8| format!("{number:02x}").repeat(32);
        let wrong = |number: u8| parse::Problem {
            item: String::new(),
            why: format!("pack {} contains 1 errors", pack(number)),
        };
        let ended = |count: u64, said_more: bool, broken: Option<Vec<String>>| {
            let mut heard = super::super::run::Heard::default();
            (heard.count, heard.problems) = (count, vec![wrong(1), wrong(2)]);
            heard.summary = broken.map(|packs| parse::Summary {
                broken_packs: Some(packs),
                ..Default::default()
            });
            Ended {
                exit: reseed_core::exec::Exit::Code(1),
                heard,
                words: format!(
                    "Pack ID does not match, want {}\nFatal: repository contains errors",
                    pack(3)
                ),
                said_more,
                cut_short: false,
                dead_stays: false,
            }
        };
        let lost = |ended: &Ended| Named::by(ended).lost().map(|lost| lost.len());
        assert_eq!(lost(&ended(2, false, None)), Some(3));
        assert_eq!(lost(&ended(3, false, None)), None);
        assert_eq!(lost(&ended(2, true, None)), None);
        // The summary names all.
        assert_eq!(lost(&ended(9, false, Some(vec![pack(1), pack(7)]))), Some(4));
        assert_eq!(lost(&ended(9, false, Some(Vec::new()))), None);
        // What it stumbled over is not all there is.
        let stumbled = Ended {
            words: format!("Fatal: Load(<data/{}>): unexpected EOF", pack(3)),
            ..ended(2, false, None)
        };
        assert_eq!(lost(&stumbled), None);
    }

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
