//! The recovery points of a repository, as restic lists them.
//!
//! restic passes over a snapshot that it can't read, says so on its standard error, and ends well. So whenever it says anything
//! there, the list is compared with the bare ids, which need no reading: what is missing is a snapshot that is damaged.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::sync::{Arc, PoisonError};

use reseed_core::Context;
use reseed_core::point::Target;
use tokio::runtime::Handle;

use super::trees::Trees;
use super::{Restic, argv, parse};
use crate::embedded::blocking;
use crate::error::{EngineError, Result};
use crate::listing::{Holdings, Listing, Wanted};
use crate::place;
use crate::snapshots::{Snapshot, Snapshots};

/// Records that are kept in memory.
const KNOWN: usize = 100_000;

impl Restic {
    /// Every snapshot, and those that are there and can't be read.
    pub(crate) async fn all_snapshots(&self, cx: &Context) -> Result<Snapshots> {
        let (printed, words) = self.ask_both(cx, argv::snapshots()).await?;
        let readable = parse::snapshots(&printed)?;
        let mut unreadable = Vec::new();
        if !words.trim().is_empty() {
            let listed: HashSet<&str> = readable.iter().map(|snapshot| snapshot.id.as_str()).collect();
            for id in self.listed::<Vec<_>>(cx, argv::snapshot_ids()).await? {
                if !listed.contains(id.as_str()) {
                    let error = EngineError::Unreadable {
                        what: format!("snapshot {id}"),
                        detail: crate::words::plain(&words),
                    };
                    unreadable.push((id, error));
                }
            }
            unreadable.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if readable.len() <= KNOWN {
            *known = readable
                .iter()
                .map(|snapshot| (snapshot.id.clone(), snapshot.clone()))
                .collect();
        }
        drop(known);
        Ok(Snapshots { readable, unreadable })
    }

    /// The points of a target or of all; only the one with this locator, where one is given.
    pub(crate) async fn listing(
        &self,
        cx: &Context,
        target: Option<&Target>,
        only: Option<&str>,
    ) -> Result<Listing> {
        let all = self.all_snapshots(cx).await?;
        let (target, only) = (target.cloned(), only.map(str::to_owned));
        self.looking(cx, move |this, trees| {
            let wanted = Wanted {
                source: &this.name,
                host: this.host.as_deref(),
                target: target.as_ref(),
                only: only.as_deref(),
                local: this.location.local_path().is_some(),
            };
            // restic would be run for each directory, and each time read all that says what is where.
            let engine = this.location.embedded(Arc::clone(&this.clock));
            let stop = trees.cx.cancel.clone();
            let mut holdings = engine.map(|engine| {
                let engine = engine.stopped_by(Arc::new(move || stop.is_cancelled()));
                let password = this.password.clone();
                Holdings::by(engine, move || password.read())
            });
            wanted.among(all, |snapshot, path| {
                // What keeps it from looking restic tells in its own words.
                if let Some(holdings) = &mut holdings
                    && holdings.can_look()
                {
                    return holdings.holds(snapshot, path);
                }
                Ok(place::of_path(trees, snapshot.tree_id()?, &snapshot.paths, path)?.is_some())
            })
        })
        .await
    }

    /// The points of a target, for whoever would take their absence for a first start.
    ///
    /// # Errors
    /// `SnapshotsMissing`; what keeps it from looking.
    pub(crate) async fn restorable(&self, cx: &Context, target: &Target) -> Result<Listing> {
        let listing = self.listing(cx, Some(target), None).await?;
        if !listing.of_no_snapshot || !self.has_indexed_data(cx).await? {
            return Ok(listing);
        }
        // Somebody's first backup may have ended in between.
        let again = self.listing(cx, Some(target), None).await?;
        match again.of_no_snapshot {
            true => Err(self.snapshots_missing()),
            false => Ok(again),
        }
    }

    pub(crate) fn snapshots_missing(&self) -> EngineError {
        EngineError::SnapshotsMissing {
            location: self.location.to_string(),
        }
    }

    /// Whether the index lists any data. What is left of it after everything was removed may be a file that lists none (0.14).
    pub(crate) async fn has_indexed_data(&self, cx: &Context) -> Result<bool> {
        for id in self.listed::<Vec<_>>(cx, argv::index_ids()).await? {
            if parse::lists_data(&self.ask(cx, argv::index(&id)).await?)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The bare ids of files.
    pub(crate) async fn listed<C: FromIterator<String>>(
        &self,
        cx: &Context,
        args: Vec<OsString>,
    ) -> Result<C> {
        let printed = self.ask(cx, args).await?;
        let ids = parse::ids(&String::from_utf8_lossy(&printed))?;
        Ok(ids.into_iter().collect())
    }

    /// Runs what may have to look into trees, where blocking is allowed.
    pub(crate) async fn looking<T: Send + 'static>(
        &self,
        cx: &Context,
        work: impl FnOnce(&Self, &mut Trees<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (this, runtime) = (self.clone(), Handle::current());
        blocking(cx, "the work", move |cx| {
            let mut trees = Trees {
                restic: &this,
                cx: &cx,
                runtime,
                read: HashMap::new(),
            };
            work(&this, &mut trees)
        })
        .await
    }

    /// All that were there when they were last listed.
    pub(crate) fn all_known(&self) -> Vec<Snapshot> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().cloned().collect()
    }

    /// A record that was read before.
    pub(crate) fn known(&self, id: &str) -> Option<Snapshot> {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }
}
