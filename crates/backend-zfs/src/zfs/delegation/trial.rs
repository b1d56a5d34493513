//! Whether a forced receive is refused, by trying one as the receiving user on scratch datasets.
//!
//! Two datasets are made below the replicas' root, with names of the run's own that nothing has: one to send from, one to
//! receive. The user receives a snapshot, root takes one more on the copy, and the user tries to force an increment over it.
//! Then all of it is removed, each snapshot and dataset by its name; they were made a moment ago and hold nothing.

use std::ffi::OsString;
use std::sync::Arc;

use reseed_core::Context;
use reseed_core::error::{Effect, StoreError, StoreKind};
use reseed_core::event::Event;
use reseed_core::exec::{Command, PipeOutput, Runner};
use reseed_core::names::{DatasetName, SnapshotName};
use serde::Serialize;

use super::super::error::{self, Fault};
use super::super::location::Location;
use super::super::tool::Tool;
use super::super::{argv, list};
use super::{Audit, Role, Who, grants};

/// Checks users of this machine. Needs root for the trial, and nothing for the audit.
#[derive(Debug, Clone)]
pub struct Trial {
    runner: Arc<dyn Runner>,
    tool: Tool,
}

/// What the trial found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// A plain receive works.
    pub receives: bool,
    /// A forced one is refused, and what was newer is still there.
    pub force_refused: bool,
    /// What the tool said where it isn't as it should be.
    pub said: Option<String>,
}

impl Tried {
    /// Whether it is as it should be.
    pub fn is_fine(&self) -> bool {
        self.receives && self.force_refused
    }
}

impl Trial {
    /// With this machine's tools.
    pub fn new(runner: Arc<dyn Runner>) -> Self {
        Self {
            tool: Tool::new(Arc::clone(&runner), Location::Local),
            runner,
        }
    }

    /// What a user is granted, against what the role needs.
    ///
    /// # Errors
    /// When `zfs allow` can't be asked.
    pub async fn audit(
        &self,
        cx: &Context,
        role: Role,
        dataset: &DatasetName,
        who: &Who,
    ) -> Result<Audit, StoreError> {
        let grants = grants(&self.tool, cx, dataset).await?;
        let version = self.tool.version::<StoreKind>(cx).await?.effective();
        let audit = Audit::of(role, dataset, who, &grants, version);
        if let Some(note) = &audit.note {
            cx.emit(Event::Warning {
                service: None,
                message: note.clone(),
                hint: None,
            });
        }
        Ok(audit)
    }

    /// Tries a forced receive as `user` on scratch datasets below `root`.
    ///
    /// # Errors
    /// When the scratch datasets can't be made or removed; what could not be removed is named.
    pub async fn force(&self, cx: &Context, root: &DatasetName, user: &str) -> Result<Tried, StoreError> {
        let child = |leaf: &str| {
            root.child(&format!(".reseed-trial-{leaf}-{}", cx.run))
                .map_err(|error| {
                    StoreError::new(StoreKind::InvalidInput, "no name for a scratch dataset").said(error)
                })
        };
        let (from, to) = (child("from")?, child("to")?);
        let before = list::children::<StoreKind>(&self.tool, cx, root).await?;
        if before.contains(&from) || before.contains(&to) {
            let what = format!("{from} or {to} is there already");
            return Err(StoreError::new(StoreKind::AlreadyExists, what));
        }
        let tried = self.tries(cx, &from, &to, user).await;
        let calm = super::super::snapshots::calm(cx);
        let removed = self.remove(&calm, &from).await.and(self.remove(&calm, &to).await);
        let tried = tried?;
        removed.map(|()| tried)
    }

    async fn tries(
        &self,
        cx: &Context,
        from: &DatasetName,
        to: &DatasetName,
        user: &str,
    ) -> Result<Tried, StoreError> {
        let (one, two, newer) = (snapshot("one")?, snapshot("two")?, snapshot("newer")?);
        self.change(cx, argv::create(from, &[("canmount", "off")]))
            .await?;
        self.change(cx, argv::snapshot([from], &one, &[])).await?;
        self.change(cx, argv::snapshot([from], &two, &[])).await?;
        let plain = [OsString::from("receive"), "-u".into()];
        let first = vec![OsString::from("send"), format!("{from}@{one}").into()];
        let received = self.receive(cx, first, user, &plain, to).await?;
        if let Some(stage) = received.culprit() {
            return Ok(Tried {
                receives: false,
                force_refused: false,
                said: Some(stage.stderr.text().trim().to_owned()),
            });
        }
        self.change(cx, argv::snapshot([to], &newer, &[])).await?;
        let increment = vec![
            OsString::from("send"),
            "-i".into(),
            format!("@{one}").into(),
            format!("{from}@{two}").into(),
        ];
        let forced = [OsString::from("receive"), "-F".into(), "-u".into()];
        let forced = self.receive(cx, increment, user, &forced, to).await?;
        let there = list::snapshots::<StoreKind>(&self.tool, cx, std::slice::from_ref(to)).await?;
        let kept = there.iter().any(|one| one.name == newer);
        let words = forced
            .culprit()
            .map(|stage| stage.stderr.text().trim().to_owned());
        let denied = words
            .as_deref()
            .is_some_and(|words| error::classify(words) == Fault::Permission);
        Ok(Tried {
            receives: true,
            force_refused: denied && kept,
            said: match (denied, kept) {
                (true, true) => None,
                (_, false) => Some(format!("`zfs receive -F` as {user} deleted a newer snapshot")),
                (false, true) => Some(words.unwrap_or_else(|| format!("`zfs receive -F` as {user} worked"))),
            },
        })
    }

    /// Sends as ourselves, receives as the user.
    async fn receive(
        &self,
        cx: &Context,
        send: Vec<OsString>,
        user: &str,
        words: &[OsString],
        to: &DatasetName,
    ) -> Result<PipeOutput, StoreError> {
        let receive = Command::new("runuser")
            .args(["-u", user, "--", "zfs"])
            .args(words.iter().cloned())
            .arg(to.as_str())
            .install_hint("runuser is part of util-linux");
        let stages = [Command::new("zfs").args(send), receive];
        let what = format!("can't try to receive as {user}");
        self.runner
            .pipe(&stages, &cx.cancel)
            .await
            .map_err(|error| error.into_error(what, Effect::StagingOnly))
    }

    async fn change(&self, cx: &Context, args: argv::Args) -> Result<(), StoreError> {
        let what = "can't make a scratch dataset for the trial";
        self.tool
            .change(cx, args, what, Effect::StagingOnly)
            .await
            .map(drop)
    }

    /// Removes a scratch dataset of ours with its snapshots.
    async fn remove(&self, cx: &Context, dataset: &DatasetName) -> Result<(), StoreError> {
        let what = format!("can't remove the scratch dataset {dataset}; it holds nothing");
        let facts = list::fact::<StoreKind>(&self.tool, cx, dataset).await?;
        if facts == super::super::parse::Said::NotThere {
            return Ok(());
        }
        let all = list::snapshots::<StoreKind>(&self.tool, cx, std::slice::from_ref(dataset)).await?;
        if !all.is_empty() {
            let args = argv::destroy_snapshots(dataset, all.iter().map(|one| &one.name));
            self.tool
                .change::<StoreKind>(cx, args, &*what, Effect::StagingOnly)
                .await?;
        }
        let args = argv::destroy_dataset(dataset);
        self.tool
            .change(cx, args, what, Effect::StagingOnly)
            .await
            .map(drop)
    }
}

fn snapshot(name: &str) -> Result<SnapshotName, StoreError> {
    SnapshotName::new(name)
        .map_err(|error| StoreError::new(StoreKind::InvalidInput, "no name for a snapshot").said(error))
}
