//! [`OffsiteRepo`] by the restic program.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use jiff::Timestamp;
use reseed_core::error::{Effect, OffsiteError, OffsiteKind};
use reseed_core::event::Event;
use reseed_core::names::{DatasetName, SourceName};
use reseed_core::offsite::{
    BackupOutcome, BackupReport, BackupRequest, CheckDepth, CheckReport, OffsiteCaps, RepoInfo, Usage,
};
use reseed_core::point::{RecoveryPoint, Target};
use reseed_core::{Context, OffsiteRepo};

use super::by_looking::Named;
use super::parse::{Status, Summary};
use super::run::Ended;
use super::stand::Stand;
use super::{Restic, Version, argv, error, parse};
use crate::embedded::envelope;
use crate::error::{EngineError, Result};
use crate::meanwhile::{Files, Judged, is_damage, judged, told_less};
use crate::offsite_repo::not_measured;
use crate::points::{tag_of_time, tags_of};
use crate::top::Top;

/// At most so many findings of a check are kept.
const FINDINGS: usize = 200;

impl Restic {
    /// What may have happened to a call that failed: nothing, when it was not begun.
    pub(super) fn failure(
        cx_was_cancelled: bool,
        error: &EngineError,
        what: String,
        effect: Effect,
    ) -> OffsiteError {
        let effect = if cx_was_cancelled { Effect::None } else { effect };
        envelope(error, what, effect)
    }

    pub(crate) fn progress_to(cx: &Context, dataset: &DatasetName, status: Status) {
        cx.emit(Event::Progress {
            dataset: dataset.clone(),
            bytes: status.bytes(),
            total: status.total(),
            files: status.files(),
        });
    }

    async fn init_repository(&self, cx: &Context) -> Result<RepoInfo> {
        if cx.cancel.is_cancelled() {
            return Err(EngineError::Cancelled);
        }
        self.look_for_room(cx).await?;
        let version = self.version(cx).await?;
        let command = self.command(version, argv::init())?;
        let ended = self.locking(cx, &command, &|_| ()).await?;
        if !ended.exit.success() {
            return Err(error::of(
                ended.exit,
                &ended.all_words(),
                &self.location.to_string(),
            ));
        }
        self.opened(cx).await
    }

    async fn opened(&self, cx: &Context) -> Result<RepoInfo> {
        let printed = self.ask(cx, argv::config()).await?;
        let (id, version) = parse::config(&printed)?;
        if version > 2 {
            return Err(EngineError::NewerVersion {
                location: self.location.to_string(),
                detail: format!("version {version}"),
            });
        }
        Ok(RepoInfo { id, version })
    }

    /// That there is a repository to write to, and a program that does it.
    async fn may_begin(&self, cx: &Context) -> Result<Version> {
        if cx.cancel.is_cancelled() {
            return Err(EngineError::Cancelled);
        }
        self.look(cx).await?;
        self.version(cx).await
    }

    /// `began` tells that something may have been stored.
    async fn back_up(
        &self,
        cx: &Context,
        version: Version,
        request: &BackupRequest,
        began: &AtomicBool,
    ) -> Result<BackupReport> {
        let stand = Stand::make(&self.work, &request.as_path, &request.path)?;
        let top = Top::read(&request.path, stand.name.clone()).map_err(|error| EngineError::Source {
            path: request.path.display().to_string(),
            detail: error.to_string(),
        })?;
        let mut tags = tags_of(request);
        tags.extend(tag_of_time(request.taken_at));
        let mut lost = Vec::new();
        tags.push(match top.to_tag() {
            Some(tag) => tag,
            None => {
                lost.push(
                    "the topmost directory: its extended attributes are too large to be kept".to_owned(),
                );
                let mut bare = top;
                bare.meta.attributes.clear();
                bare.to_tag().ok_or_else(|| EngineError::Invalid {
                    detail: "the metadata of the topmost directory can't be a tag".into(),
                })?
            }
        });
        let recorded = argv::Recorded {
            host: &request.host,
            tags: &tags,
            time: request.taken_at,
        };
        let args = argv::backup(&recorded, stand.exclude.as_deref(), &stand.what)?;
        let command = self
            .command(version, args)?
            .cwd(&stand.cwd)
            .env("PWD", &stand.pwd);
        let dataset = &request.target.dataset;
        let before = self.stored_before(request);
        let ended = match self
            .locking(cx, &command, &|status| {
                began.fetch_or(status.bytes() > 0 || status.files() > 0, Ordering::Relaxed);
                Self::progress_to(cx, dataset, status);
            })
            .await
        {
            Err(EngineError::Cancelled) => {
                let stored = self.stored_after_all(cx, version, request).await;
                return stored.ok_or(EngineError::Cancelled);
            }
            ended => ended?,
        };
        // Before the first word of how far it is, too.
        began.fetch_or(error::way_is_lost(&ended.all_words()), Ordering::Relaxed);
        let (snapshot_id, summary) = self.backed_up(&ended)?;
        let unreadable = ended.heard.count + u64::try_from(lost.len()).unwrap_or(u64::MAX);
        let partial = unreadable > 0 || ended.exit.code() == Some(3);
        let mut examples = lost;
        examples.extend(ended.heard.problems.iter().map(|problem| {
            let item = crate::words::plain(stand.relative(&problem.item));
            format!("{item}: {}", crate::words::plain(&problem.why))
        }));
        let snapshot_id = if partial {
            self.mark_partial(cx, snapshot_id, request).await
        } else {
            // Not beside one that is partial: of two of which neither is known to be whole the first may be.
            for id in before {
                self.mark_partial(cx, id, request).await;
            }
            snapshot_id
        };
        Ok(BackupReport {
            snapshot_id,
            outcome: if partial {
                BackupOutcome::Partial {
                    unreadable: unreadable.max(1),
                    examples,
                }
            } else {
                BackupOutcome::Complete
            },
            files: summary.total_files_processed.unwrap_or(0),
            bytes: summary.total_bytes_processed.unwrap_or(0),
            added: summary.data_added_packed.or(summary.data_added).unwrap_or(0),
        })
    }

    /// The snapshot and what is said of it. It counts only with the message that ends a backup, and with an exit code that fits.
    fn backed_up(&self, ended: &Ended) -> Result<(String, Summary)> {
        if !matches!(ended.exit.code(), Some(0 | 3)) {
            return Err(error::of(
                ended.exit,
                &ended.all_words(),
                &self.location.to_string(),
            ));
        }
        let summary = ended
            .heard
            .summary
            .clone()
            .ok_or_else(|| EngineError::BadOutput {
                detail: format!("a backup ended with {} and without a summary", ended.exit),
            })?;
        let id = summary.snapshot_id.clone().filter(|id| id.len() >= 8);
        let id = id.ok_or_else(|| EngineError::BadOutput {
            detail: "a backup's summary names no snapshot".into(),
        })?;
        Ok((id, summary))
    }

    async fn checked(&self, cx: &Context, depth: CheckDepth) -> Result<(CheckReport, Named)> {
        if cx.cancel.is_cancelled() {
            return Err(EngineError::Cancelled);
        }
        self.look(cx).await?;
        let version = self.version(cx).await?;
        let command = self.command(version, argv::check(version, depth)?)?;
        let mut tries = 0;
        loop {
            tries += 1;
            let before = self.files(cx).await.ok();
            let ended = self.locking(cx, &command, &|_| ()).await?;
            let report = self.found(version, &ended)?;
            let named = Named::by(&ended);
            if report.errors.is_empty() {
                return Ok((report, named));
            }
            let (after, holder) = (self.files(cx).await, self.held_exclusively(cx).await);
            let doubt = match judged(tries, is_damage(before.as_ref(), after, holder))? {
                Judged::Damage => return Ok((report, named)),
                Judged::Again => continue,
                Judged::Doubtful(doubt) => doubt,
            };
            // Nobody changes a pack: one that is still there, and not what it should be, is damage whatever another does.
            let mut wrong = wrong_packs(&report.errors);
            if !wrong.is_empty() {
                let there: Files = self.listed(cx, argv::packs()).await?;
                wrong.retain(|(pack, _)| there.contains(pack));
            }
            if wrong.is_empty() {
                return Err(doubt);
            }
            let report = CheckReport {
                errors: wrong.into_iter().map(|(_, said)| said).collect(),
                warnings: [report.warnings, vec![told_less(&doubt)]].concat(),
                ..report
            };
            return Ok((report, named.and_more()));
        }
    }

    async fn files(&self, cx: &Context) -> Result<Files> {
        let mut files: Files = self.listed(cx, argv::index_ids()).await?;
        files.extend(self.listed::<Files>(cx, argv::snapshot_ids()).await?);
        Ok(files)
    }

    /// What a check found, if it got to its end.
    fn found(&self, version: Version, ended: &Ended) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        for problem in &ended.heard.problems {
            report.errors.push(crate::words::plain(&problem.why));
        }
        let said = ended.all_words();
        if ended.exit.success() {
            let errors = ended
                .heard
                .summary
                .as_ref()
                .and_then(|summary| summary.num_errors);
            if version.check_json() && errors.is_none() {
                return Err(EngineError::BadOutput {
                    detail: "a check ended well and without a summary".into(),
                });
            }
            if errors.unwrap_or(0) > 0 && report.errors.is_empty() {
                report.errors.push(format!("{} errors", errors.unwrap_or(0)));
            }
            let words = said.lines().map(str::trim).filter(|line| !line.is_empty());
            report
                .warnings
                .extend(words.take(FINDINGS).map(crate::words::plain));
            return Ok(report);
        }
        if !ended.came_to_its_end() {
            let error = error::of(ended.exit, &said, &self.location.to_string());
            // What keeps it from looking, or damage that it stumbled over.
            return match &error {
                EngineError::Unreadable { .. } => {
                    report.errors.push(error.to_string());
                    let why = "the check ended there: what it had not come to may be damaged as well";
                    report.warnings.push(why.to_owned());
                    Ok(report)
                }
                _ => Err(error),
            };
        }
        // So it ends also where it could not fetch what it wanted to look at.
        let mut lines = report
            .errors
            .iter()
            .map(String::as_str)
            .chain(said.lines())
            .filter(|line| !line.contains("returned error, retrying after"));
        let unreached = lines.clone().find_map(error::out_of_reach);
        // What was fetched and is wrong is that, whatever else could not be had.
        let is_wrong = lines.any(|line| error::is_damage(line) && error::out_of_reach(line).is_none());
        if let (Some(why), false) = (unreached, is_wrong) {
            return Err(EngineError::Unreachable {
                location: self.location.to_string(),
                detail: crate::words::plain(why),
            });
        }
        let words = ended
            .words
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with("Fatal:"));
        let room = FINDINGS.saturating_sub(report.errors.len());
        report.errors.extend(words.take(room).map(crate::words::plain));
        if report.errors.is_empty() {
            report.errors.push("the repository contains errors".to_owned());
        }
        Ok(report)
    }
}

impl Ended {
    /// Whether a check has looked at all that it was to look at: it says so at its end, whatever it found.
    pub(super) fn came_to_its_end(&self) -> bool {
        let said = self.all_words();
        self.exit.success() || (said.contains("repository contains errors") && !error::way_is_lost(&said))
    }
}

/// The packs that a check has read and that are not what they should be, with the words. Of one that it could not fetch whole it says so.
fn wrong_packs(errors: &[String]) -> Vec<(String, String)> {
    let wrong = errors.iter().filter_map(|said| {
        // Until 0.16, and since.
        let id = match said.split_once("Pack ID does not match, want ") {
            Some((_, rest)) => rest.get(..64)?,
            None => said.strip_prefix("pack ")?.get(..64)?,
        };
        let fetched = !said.contains("download") && error::out_of_reach(said).is_none();
        let is_wrong = [
            "ciphertext verification failed",
            "does not match",
            "unexpected pack id",
        ]
        .iter()
        .any(|by| said.contains(by));
        (fetched && is_wrong && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .then(|| (id.to_owned(), said.clone()))
    });
    wrong.collect()
}

#[async_trait]
impl OffsiteRepo for Restic {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn caps(&self) -> OffsiteCaps {
        // It has no way to write a snapshot without looking at every entry.
        OffsiteCaps {
            init: true,
            record: false,
        }
    }

    async fn init(&self, cx: &Context) -> Result<RepoInfo, OffsiteError> {
        let cancelled = cx.cancel.is_cancelled();
        self.init_repository(cx).await.map_err(|error| {
            let what = format!("cannot create repository {}", self.name);
            Self::failure(cancelled, &error, what, Effect::Partial)
        })
    }

    async fn open(&self, cx: &Context) -> Result<RepoInfo, OffsiteError> {
        self.opened(cx).await.map_err(|error| {
            envelope(
                &error,
                format!("cannot open repository {}", self.name),
                Effect::None,
            )
        })
    }

    async fn backup(&self, cx: &Context, request: &BackupRequest) -> Result<BackupReport, OffsiteError> {
        let what = || format!("cannot back up {} to {}", request.target.dataset, self.name);
        let cancelled = cx.cancel.is_cancelled();
        let version = (self.may_begin(cx).await).map_err(|error| envelope(&error, what(), Effect::None))?;
        let began = AtomicBool::new(false);
        self.back_up(cx, version, request, &began).await.map_err(|error| {
            let effect = match &error {
                _ if began.load(Ordering::Relaxed) => Effect::Partial,
                // Of the kinds that come before anything is written, those that the embedded engine tells otherwise.
                EngineError::Store { .. }
                | EngineError::Denied { .. }
                | EngineError::Invalid { .. }
                | EngineError::Config { .. }
                // By ssh, which is called once, at the beginning.
                | EngineError::NoSuchHost { .. }
                | EngineError::Refused { .. }
                | EngineError::Unreachable { .. } => Effect::None,
                _ => Effect::Partial,
            };
            Self::failure(cancelled, &error, what(), effect)
        })
    }

    async fn record(
        &self,
        _: &Context,
        request: &BackupRequest,
        _: &RecoveryPoint,
        _: Timestamp,
    ) -> Result<Option<BackupReport>, OffsiteError> {
        let what = format!(
            "restic can't store a point of {} without reading it",
            request.target.dataset
        );
        Err(OffsiteError::new(OffsiteKind::Unsupported, what))
    }

    async fn points(
        &self,
        cx: &Context,
        target: Option<&Target>,
    ) -> Result<Vec<RecoveryPoint>, OffsiteError> {
        self.listing(cx, target, None)
            .await
            .map(|listing| listing.points(cx, self.name.as_str()))
            .map_err(|error| {
                envelope(
                    &error,
                    format!("cannot list what {} holds", self.name),
                    Effect::None,
                )
            })
    }

    async fn check(&self, cx: &Context, depth: CheckDepth) -> Result<CheckReport, OffsiteError> {
        let (mut report, named) = self.checked(cx, depth).await.map_err(|error| {
            envelope(
                &error,
                format!("cannot check repository {}", self.name),
                Effect::None,
            )
        })?;
        report.affected = match report.errors.is_empty() {
            true => Some(Vec::new()),
            false => match named.lost() {
                Some(lost) => self.affected(cx, lost).await,
                None => None,
            },
        };
        Ok(report)
    }

    async fn usage(&self, cx: &Context) -> Result<Usage, OffsiteError> {
        self.measured(cx)
            .await
            .map_err(|error| not_measured(&error, &self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_that_were_read_and_are_wrong_are_told_from_those_that_are_away() {
        for said in [
            include_str!("../../tests/transcripts/check-damaged-stderr-restic-0.14.0.txt"),
            include_str!("../../tests/transcripts/check-damaged-stderr-restic-0.18.0.txt"),
        ] {
            let lines: Vec<String> = said.lines().map(crate::words::plain).collect();
            assert_eq!(wrong_packs(&lines).len(), 8, "{said}");
        }
        let id = "ab".repeat(32);
        let away = [
            format!("pack {id}: does not exist"),
            format!(
                "pack {id} contains 1 errors: [partially failed to download pack: ciphertext verification failed]"
            ),
            "pack abababab: size does not match".to_owned(),
        ];
        assert_eq!(wrong_packs(&away), []);
    }
}
