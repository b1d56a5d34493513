//! [`RestoreSource`] by the restic program.
//!
//! What a target's tree is in a snapshot is not always the snapshot's whole tree: `crate::place` has the rules. A whole tree is
//! restored as what stands in it, and its topmost directory's metadata is set last, by ourselves.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use reseed_core::error::{Effect, SourceError};
use reseed_core::event::Event;
use reseed_core::exec::Exit;
use reseed_core::names::SourceName;
use reseed_core::point::{RecoveryPoint, Target};
use reseed_core::source::{RestorePlan, RestoreRequest, Restored, Scope, SourceCaps, SourceClass};
use reseed_core::store::{Delivery, Staging};
use reseed_core::{Context, RestoreSource};

use super::error::{Verdict, of, of_restore};
use super::{Restic, argv, staging};
use crate::embedded::envelope;
use crate::error::{EngineError, Result};
use crate::listing::{Found, of_others};
use crate::place;
use crate::restore::meta;
use crate::restore::names;
use crate::restore::plan::Meta;
use crate::restore::target::Target as Place;
use crate::snapshots::Snapshot;
use crate::staging::must_not_hold;
use crate::top::Top;

/// Where in a snapshot a tree is, and what its topmost directory was like.
#[derive(Debug)]
struct Located {
    place: PathBuf,
    meta: Option<Meta>,
}

impl Restic {
    fn cannot_restore(&self, request: &RestoreRequest, error: &EngineError, effect: Effect) -> SourceError {
        let (point, dataset) = (&request.point.id, &request.target.dataset);
        let what = format!("cannot restore {point} of {dataset} from {}", self.name);
        envelope(error, what, effect)
    }

    /// The point as it is now, if it is there and sound.
    async fn find(&self, cx: &Context, request: &RestoreRequest) -> Result<Found> {
        let locator = &request.point.locator;
        let listing = self.listing(cx, Some(&request.target), Some(locator)).await?;
        let found = listing.found.into_iter().next();
        let mut found = found.ok_or_else(|| EngineError::NoSnapshot { id: locator.clone() })?;
        match found.damage.take() {
            Some(error) => Err(error),
            None => Ok(found),
        }
    }

    async fn locate(&self, cx: &Context, snapshot: Snapshot, path: Option<PathBuf>) -> Result<Located> {
        if path.is_none()
            && let Some(top) = Top::of_tags(&snapshot.tags)
        {
            return Ok(Located {
                place: top.place(),
                meta: Some(top.meta),
            });
        }
        self.looking(cx, move |_, trees| {
            let tree = snapshot.tree_id()?;
            let place = match (path, snapshot.paths.as_slice()) {
                (Some(wanted), recorded) => {
                    let found = place::of_path(trees, tree, recorded, &wanted)?;
                    found.ok_or_else(|| EngineError::EmptyResult {
                        what: format!("snapshot {} does not hold {}", snapshot.id, wanted.display()),
                    })?
                }
                (None, [only]) => place::of_single(trees, tree, only)?,
                (None, _) => PathBuf::new(),
            };
            let meta = trees.meta(tree, &place)?;
            Ok(Located { place, meta })
        })
        .await
    }

    async fn restore(&self, cx: &Context, request: &RestoreRequest, path: &Path) -> Result<Restored> {
        let version = self.version(cx).await?;
        let only = match &request.scope {
            Scope::Whole => None,
            Scope::Path(path) => Some(plain(path)?),
        };
        let target = Place::open(path)?;
        let fresh = staging::is_empty(&target)?;
        if fresh {
            target.disinherit()?;
        }
        // What is there must not be touched for a point that is gone; into an empty place restic itself will say so.
        let known = self.known(&request.point.locator).filter(|_| fresh);
        let (snapshot, below) = match known {
            Some(snapshot) if Top::of_tags(&snapshot.tags).is_some() => (snapshot, None),
            _ => {
                let below = self.find(cx, request).await?.path;
                let snapshot = self.known(&request.point.locator);
                let gone = || EngineError::NoSnapshot {
                    id: request.point.locator.clone(),
                };
                (snapshot.ok_or_else(gone)?, below)
            }
        };
        let located = self.locate(cx, snapshot, below).await?;
        let deeper = argv::lies_deeper(version, &located.place);
        if !fresh {
            let keep = version.resumes() && only.is_none() && !deeper;
            staging::clear(&target, keep, &|| cx.cancel.is_cancelled())?;
        }
        let door = target.has_door();
        let locked = |no_lock| argv::Restoring {
            snapshot: &request.point.locator,
            place: &located.place,
            only: only.as_deref(),
            target: path,
            door,
            no_lock,
        };
        let mut warnings = Vec::new();
        let dataset = &request.target.dataset;
        let on_status = |status| Self::progress_to(cx, dataset, status);
        let command = self.command(version, argv::restore(version, &locked(false)))?;
        let mut ended = self.locking(cx, &command, &on_status).await?;
        if !ended.exit.success() && (ended.dead_stays || could_not_lock(&ended.all_words())) {
            // From media that can only be read, or with credentials that may only read; past a lock that nobody holds, too.
            if let error @ EngineError::BadLock { .. } = of(ended.exit, &ended.all_words(), "") {
                // It said so before it had looked at all of them.
                if let Ok(Some(holder)) = self.kept_from_readers(cx).await {
                    return Err(EngineError::Locked { holder });
                }
                cx.emit(Event::Warning {
                    service: None,
                    message: format!("{}: passing a lock file that is none: {error}", self.name),
                    hint: error.hint().map(str::to_owned),
                });
            }
            warnings.push("the repository could not be locked; it was read without a lock".to_owned());
            let command = self.command(version, argv::restore(version, &locked(true)))?;
            ended = self.locking(cx, &command, &on_status).await?;
        }
        let location = self.location.to_string();
        // After any problem restic ends before it reads back; and what it says at its end it says before it does that.
        let read_back = ended.exit.success() && !ended.cut_short;
        if ended.cut_short {
            warnings.push("restic was ended before it was known to have read back what it wrote".to_owned());
        }
        if !ended.exit.success() || ended.heard.count > 0 {
            let words = ended.all_words();
            match of_restore(
                ended.exit,
                &ended.heard.problems,
                ended.heard.count,
                &words,
                &location,
            ) {
                Verdict::Failed(error) => return Err(error),
                Verdict::Metadata(told) => {
                    warnings.extend(told);
                    warnings.push("because of that restic didn't read back what it wrote".to_owned());
                }
            }
        } else if version.restore_json() && ended.heard.summary.is_none() {
            return Err(EngineError::BadOutput {
                detail: "a restore ended well and without a summary".into(),
            });
        }
        if cx.cancel.is_cancelled() && ended.exit.code().is_none() {
            return Err(of(ended.exit, &ended.all_words(), &location));
        }
        if deeper {
            staging::lift(&target, &located.place)?;
        }
        let there = match &only {
            None => !staging::is_empty(&target)?,
            Some(only) => match target.stat(only) {
                Ok(stat) => stat.is_some(),
                // It leads through something that is no directory.
                Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => false,
                Err(error) => return Err(EngineError::target("look at", only, &error.into())),
            },
        };
        if !there && !request.may_be_empty() {
            let what = only.map_or_else(|| "the whole tree".to_owned(), |only| only.display().to_string());
            return Err(EngineError::EmptyResult {
                what: format!("snapshot {} holds nothing for {what}", request.point.locator),
            });
        }
        let (files, bytes) = staging::count(&target)?;
        if let Some(recorded) = &located.meta {
            let problems = meta::apply(target.root(), recorded, meta::is_root(), fresh);
            warnings.extend(
                problems.into_iter().map(|(what, error)| {
                    format!("{what} of the topmost directory could not be set: {error}")
                }),
            );
        }
        let skipped = ended
            .heard
            .summary
            .and_then(|summary| summary.bytes_skipped)
            .unwrap_or(0);
        Ok(Restored {
            bytes,
            files,
            reused: if fresh { 0 } else { skipped.min(bytes) },
            checked: std::iter::once("the hash of every blob".to_owned())
                .chain(read_back.then(|| format!("the content of {files} files, read back from the disk")))
                .collect(),
            warnings,
        })
    }
}

/// A path that was asked for, if it is a plain relative one.
fn plain(path: &Path) -> Result<PathBuf> {
    names::components(path)
        .filter(|parts| !parts.is_empty())
        .map(|parts| parts.iter().collect())
        .ok_or_else(|| EngineError::Invalid {
            detail: format!("{} is not a plain relative path", path.display()),
        })
}

fn could_not_lock(words: &str) -> bool {
    // The latter are the words in which it asks again for being refused, to make one or to remove it.
    let of_a_lock = ["unable to create lock", "Save(<lock/", "Remove(<lock/"];
    let error = of(Exit::Code(1), words, "");
    let of_a_lock = of_a_lock.iter().any(|by| words.contains(by));
    let refused = matches!(
        error,
        EngineError::Denied { .. } | EngineError::ReadOnly { .. } | EngineError::NoSpace { .. }
    );
    (of_a_lock && refused) || matches!(error, EngineError::BadLock { .. })
}

#[async_trait]
impl RestoreSource for Restic {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn caps(&self) -> SourceCaps {
        SourceCaps {
            kind: SourceClass::Offsite,
            delivery: Delivery::Files,
            partial: true,
            verifies: true,
            ordered: false,
        }
    }

    async fn points(&self, cx: &Context, target: &Target) -> Result<Vec<RecoveryPoint>, SourceError> {
        let listed = self.restorable(cx, target).await;
        let listing = listed.map_err(|error| {
            envelope(
                &error,
                format!("cannot list what {} holds", self.name),
                Effect::None,
            )
        })?;
        match of_others(&listing, &self.name, target) {
            Some(error) => Err(error),
            None => Ok(listing.points(cx, self.name.as_str())),
        }
    }

    async fn plan(&self, cx: &Context, request: &RestoreRequest) -> Result<RestorePlan, SourceError> {
        let found = self.find(cx, request).await;
        let point = found
            .map_err(|error| self.cannot_restore(request, &error, Effect::None))?
            .point;
        let what = match &request.scope {
            Scope::Whole => format!("everything of {}", request.target.dataset),
            Scope::Path(path) => format!("{} of {}", path.display(), request.target.dataset),
        };
        let id = point.locator.get(..8).unwrap_or(&point.locator);
        Ok(RestorePlan {
            request: request.clone(),
            bytes: match request.scope {
                Scope::Whole => point.bytes,
                Scope::Path(_) => None,
            },
            steps: vec![
                format!(
                    "restore {what} from snapshot {id} of {} in the repository at {} into staging, by restic",
                    point.taken_at, self.location
                ),
                "have restic read back what it wrote, then set the topmost directory's permissions and owner"
                    .to_owned(),
            ],
        })
    }

    async fn execute(
        &self,
        cx: &Context,
        plan: &RestorePlan,
        staging: &Staging,
    ) -> Result<Restored, SourceError> {
        let request = &plan.request;
        if cx.cancel.is_cancelled() {
            return Err(self.cannot_restore(request, &EngineError::Cancelled, Effect::None));
        }
        let mut kept = vec![("the live data at", request.target.mountpoint.as_path())];
        kept.extend(self.location.local_path().map(|path| ("the repository at", path)));
        let path = must_not_hold(&staging.path, &kept)
            .map_err(|error| self.cannot_restore(request, &error, Effect::None))?;
        self.restore(cx, request, &path)
            .await
            .map_err(|error| self.cannot_restore(request, &error, Effect::StagingOnly))
    }
}
