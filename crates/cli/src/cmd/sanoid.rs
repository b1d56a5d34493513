//! `reseed sanoid`

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use reseed_backend_zfs::sanoid::Managed;
use reseed_backend_zfs::sanoid::render::{Purpose, render};
use reseed_core::SnapshotStore as _;
use reseed_core::error::{OpError, OpKind};
use reseed_core::names::DatasetName;
use reseed_core::point::Target;
use serde_json::json;

use crate::args::SanoidCmd;
use crate::exit::Exit;
use crate::output::Answer;
use crate::session::Session;
use crate::ui::printable;

pub(crate) async fn run(command: &SanoidCmd, session: &Session) -> Result<Answer, OpError> {
    let managed = managed(session);
    if managed.is_empty() {
        let text = "no dataset declares snapshots; `reseed import sanoid` takes a sanoid.conf over\n";
        return Ok(Answer::new(&json!({}), text, Exit::Ok));
    }
    let (driver, cx) = (session.sanoid(), &session.cx);
    let failed = |error: reseed_core::error::StoreError| error.convert(OpKind::Io);
    match command {
        SanoidCmd::Conf { prune } => {
            let purpose = if *prune { Purpose::Prune } else { Purpose::Take };
            let rendered = render(&managed, purpose).map_err(|error| {
                OpError::new(OpKind::Config, error.to_string()).hint("let reseed manage it itself")
            })?;
            Ok(Answer::new(
                &json!({ "conf": rendered.conf }),
                rendered.conf,
                Exit::Ok,
            ))
        }
        SanoidCmd::Take { dry_run } => {
            let report = match *dry_run {
                true => driver.due(cx, &managed).await.map_err(failed)?,
                false => driver.take(cx, &managed).await.map_err(failed)?,
            };
            let mut text = list(if *dry_run { "would take" } else { "taken" }, &report.taken);
            text.push_str(&list("FAILED", &report.failed));
            text.push_str(&list("sanoid says", &report.complaints));
            Ok(Answer::new(
                &report,
                text,
                exit(report.failed.is_empty(), report.taken.is_empty()),
            ))
        }
        SanoidCmd::Prune { dry_run } => {
            let newest = newest(session, &managed).await?;
            let report = match *dry_run {
                true => driver.preview(cx, &managed, &newest).await.map_err(failed)?,
                false => driver.prune(cx, &managed, &newest).await.map_err(failed)?,
            };
            let mut text = list(if *dry_run { "would go" } else { "gone" }, &report.pruned);
            text.push_str(&list("STILL THERE", &report.failed));
            text.push_str(&list("put off", &report.deferred));
            text.push_str(&list(
                "left alone, for its newest snapshot would go",
                &report.guarded,
            ));
            text.push_str(&list("sanoid says", &report.complaints));
            Ok(Answer::new(
                &report,
                text,
                match report.guarded.is_empty() {
                    true => exit(report.failed.is_empty(), report.pruned.is_empty()),
                    false => Exit::Partial,
                },
            ))
        }
    }
}

/// Declared datasets with snapshots. Not those of services: reseed takes and prunes these itself, under guards that sanoid
/// doesn't know.
fn managed(session: &Session) -> Vec<Managed> {
    let of_services: BTreeSet<_> = (session.config.services.values())
        .flat_map(|service| service.datasets.iter().map(|target| &target.dataset))
        .collect();
    let declared = session.config.datasets.iter();
    declared
        .filter_map(|(name, declared)| {
            let snapshots = declared.snapshots.as_ref()?;
            if of_services.contains(name) {
                crate::complain(&format!(
                    "warning: {name} is left to its service, whose retention counts"
                ));
                return None;
            }
            Some(Managed {
                dataset: name.to_string(),
                section: name.to_string(),
                take: snapshots.take,
                prune: snapshots.prune,
                with_children: false,
                policy: snapshots.policy.clone(),
            })
        })
        .collect()
}

/// The newest snapshot of each, in full: it stays, whatever is wanted.
async fn newest(session: &Session, managed: &[Managed]) -> Result<BTreeSet<String>, OpError> {
    let targets: Vec<Target> = managed
        .iter()
        .map(|one| {
            let dataset = DatasetName::new(&one.dataset)
                .map_err(|error| OpError::new(OpKind::InvalidInput, error.to_string()))?;
            Ok(Target {
                dataset,
                mountpoint: PathBuf::new(),
            })
        })
        .collect::<Result<_, OpError>>()?;
    let all = session.any_dataset()?.list(&session.cx, &targets).await;
    let all = all.map_err(|error| error.convert(OpKind::Io))?;
    // Oldest first within each, so the last one counts.
    let newest: BTreeMap<_, _> = all.into_iter().map(|one| (one.dataset, one.name)).collect();
    let full = newest
        .into_iter()
        .map(|(dataset, name)| format!("{dataset}@{name}"));
    Ok(full.collect())
}

fn list(word: &str, all: &[String]) -> String {
    all.iter()
        .map(|one| format!("{word}: {}\n", printable(one)))
        .collect()
}

fn exit(well: bool, nothing: bool) -> Exit {
    match (well, nothing) {
        (true, _) => Exit::Ok,
        (false, true) => Exit::Failed,
        (false, false) => Exit::Partial,
    }
}
