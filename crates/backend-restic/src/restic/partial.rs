//! Telling of a snapshot that it isn't whole, which is known only when it is there.
//!
//! restic's tags are given with the backup. To add one it writes another snapshot and removes the first, for which it wants the
//! repository for itself; where it may not remove, readers know by the second what the first is worth. The other way round, a tag from the
//! beginning that is taken away when all went well, would want that after each backup of each host, and leave two snapshots of each with a key
//! that can't delete. So the tag is tried for a while, and where it could not be given, the core knows by its journal that the
//! backup was no success: it has the state stored again, and only then does the first one get its tag.

use std::sync::Arc;
use std::time::Duration;

use reseed_core::Context;
use reseed_core::event::Event;
use reseed_core::offsite::{BackupOutcome, BackupReport, BackupRequest};
use tokio_util::sync::CancellationToken;

use super::run::TIDY;
use super::{Restic, Version, argv, error, parse};
use crate::error::{EngineError, Result};
use crate::points::{PARTIAL, superseded, tag_of_dataset, tag_of_point};
use crate::snapshots::Snapshot;

/// For so long others may keep it from tagging.
const PATIENCE: Duration = Duration::from_mins(10);
/// The first pause; each further one is twice as long,
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// up to this.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

impl Restic {
    /// What a backup stored that was cancelled when it was all but over: restic (0.17 and newer) then ends its work and says nothing
    /// more. Whether all could be read nobody knows, so it is no success.
    pub(super) async fn stored_after_all(
        &self,
        cx: &Context,
        version: Version,
        request: &BackupRequest,
    ) -> Option<BackupReport> {
        let command = self.command(version, argv::snapshots()).ok()?.time_limit(TIDY);
        let output = self.runner.run(&command, &CancellationToken::new()).await.ok()?;
        let all = parse::snapshots(output.stdout.whole()?).ok()?;
        let replaced: Vec<&str> = superseded(&all).collect();
        let before = self.stored_before(request);
        let is_it = |snapshot: &&Snapshot| {
            let same_time = snapshot.time.as_second() == request.taken_at.as_second();
            same_time && looks_whole(snapshot, request, &replaced) && !before.contains(&snapshot.id)
        };
        let stored = all.iter().find(is_it)?;
        Some(BackupReport {
            files: stored.files.unwrap_or(0),
            bytes: stored.bytes.unwrap_or(0),
            added: 0,
            snapshot_id: self.mark_partial(cx, stored.id.clone(), request).await,
            outcome: BackupOutcome::Partial {
                unreadable: 1,
                examples: vec![
                    "it was cancelled when the tree was stored, before restic said what it could not read"
                        .to_owned(),
                ],
            },
        })
    }

    /// Snapshots of the same state that look whole, as they were last listed. Whoever has it stored again doesn't trust them.
    pub(super) fn stored_before(&self, request: &BackupRequest) -> Vec<String> {
        let all = self.all_known();
        let replaced: Vec<&str> = superseded(&all).collect();
        let of_it = all
            .iter()
            .filter(|snapshot| looks_whole(snapshot, request, &replaced));
        of_it.map(|snapshot| snapshot.id.clone()).collect()
    }

    /// Tags a snapshot that doesn't hold everything, or of which nobody knows, and answers what it is called then. Where that can't be
    /// done the digest that was recorded with it keeps it from passing for the whole.
    pub(super) async fn mark_partial(&self, cx: &Context, id: String, request: &BackupRequest) -> String {
        let tagged = match self.tag_when_free(cx, &id, request).await {
            Err(EngineError::Cancelled) => self.tag_at_last(cx, &id, request).await,
            tagged => tagged,
        };
        match tagged {
            Ok(new) => new,
            Err(error) => {
                let name = &self.name;
                cx.emit(Event::Warning {
                    service: None,
                    message: format!(
                        "{name}: snapshot {id} may be partial and could not be tagged so: {error}"
                    ),
                    hint: Some(format!("run `restic tag --add {PARTIAL} {id}`")),
                });
                id
            }
        }
    }

    /// While others work on the repository it is asked again.
    async fn tag_when_free(&self, cx: &Context, id: &str, request: &BackupRequest) -> Result<String> {
        let began = self.clock.monotonic();
        let mut pause = FIRST_PAUSE;
        loop {
            let tagged = self.tag_partial(cx, id, request).await;
            let waited = self.clock.monotonic().saturating_sub(began);
            if !matches!(tagged, Err(EngineError::Locked { .. })) || waited >= PATIENCE {
                return tagged;
            }
            tokio::select! {
                () = cx.cancel.cancelled() => return Err(EngineError::Cancelled),
                () = self.clock.sleep(pause) => pause = LONGEST_PAUSE.min(pause * 2),
            }
        }
    }

    /// Once, and not for long, for a run that is over.
    async fn tag_at_last(&self, cx: &Context, id: &str, request: &BackupRequest) -> Result<String> {
        let closing = Context::new(cx.run.clone(), Arc::clone(cx.events()), CancellationToken::new());
        let time_is_up = async {
            self.clock.sleep(TIDY).await;
            closing.cancel.cancel();
            std::future::pending().await
        };
        tokio::select! {
            tagged = self.tag_partial(&closing, id, request) => tagged,
            never = time_is_up => never,
        }
    }

    async fn tag_partial(&self, cx: &Context, id: &str, request: &BackupRequest) -> Result<String> {
        let version = self.version(cx).await?;
        let command = self.command(version, argv::tag(id, PARTIAL))?;
        let ended = match self.locking(cx, &command, &|_| ()).await {
            // The call may have been ended over a lock that can't be removed, with that said.
            Ok(ended) if ended.exit.success() || ended.heard.changed.is_some() => ended,
            Ok(ended) => {
                let error = error::of(ended.exit, &ended.all_words(), &self.location.to_string());
                return self.tagged_beside(cx, id, request, error).await;
            }
            Err(error) => return self.tagged_beside(cx, id, request, error).await,
        };
        if let Some(new) = ended.heard.changed {
            return Ok(new);
        }
        // Older ones don't say which one it became. One that was written anew before keeps the original that it had.
        let all = self.all_snapshots(cx).await?.readable;
        let of_it = |snapshot: &&Snapshot| is_tagged(snapshot, request);
        let new = all.iter().filter(of_it).find(|snapshot| is_made_of(snapshot, id));
        // What couldn't be tagged is still there, and restic ends as if it had been.
        let is_left = all.iter().any(|snapshot| snapshot.id.starts_with(id));
        let other = || all.iter().filter(of_it).max_by_key(|snapshot| snapshot.time);
        let new = new.or_else(|| if is_left { None } else { other() });
        new.map(|snapshot| snapshot.id.clone())
            .ok_or_else(|| EngineError::BadOutput {
                detail: "the tagged snapshot isn't listed".into(),
            })
    }

    /// restic writes the tagged one first and then removes the other. Where only that was denied there are both, and readers go by the
    /// second.
    async fn tagged_beside(
        &self,
        cx: &Context,
        id: &str,
        request: &BackupRequest,
        error: EngineError,
    ) -> Result<String> {
        if !matches!(error, EngineError::Denied { .. }) {
            return Err(error);
        }
        let Ok(all) = self.all_snapshots(cx).await else {
            return Err(error);
        };
        let mut all = all.readable.into_iter();
        let new = all.find(|snapshot| is_tagged(snapshot, request) && is_made_of(snapshot, id));
        new.map(|snapshot| snapshot.id).ok_or(error)
    }
}

/// Whether it is of the request's state, and says that it is partial.
fn is_tagged(snapshot: &Snapshot, request: &BackupRequest) -> bool {
    let has = |tag: &str| snapshot.tags.iter().any(|one| one == tag);
    snapshot.original.is_some() && has(&tag_of_point(&request.point)) && has(PARTIAL)
}

fn is_made_of(snapshot: &Snapshot, id: &str) -> bool {
    snapshot
        .original
        .as_ref()
        .is_some_and(|first| first.starts_with(id))
}

/// Whether it is of the request's state and nothing says that it isn't whole.
fn looks_whole(snapshot: &Snapshot, request: &BackupRequest, replaced: &[&str]) -> bool {
    let has = |tag: &str| snapshot.tags.iter().any(|one| one == tag);
    snapshot.host == request.host
        && has(&tag_of_point(&request.point))
        && has(&tag_of_dataset(&request.target.dataset))
        && !has(PARTIAL)
        && !replaced.contains(&snapshot.id.as_str())
}
