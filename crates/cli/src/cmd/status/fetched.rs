//! What is fetched from other machines: how old the copies are.

use futures_util::future::join_all;
use jiff::Timestamp;
use reseed_core::error::ErrorReport;
use reseed_core::names::DatasetName;
use reseed_core::replicate::Lineage;
use reseed_core::service::Service;
use serde::Serialize;

use super::{complaint, too_new, too_old};
use crate::session::Session;
use crate::ui::{self, Mood, Table};

/// One `[pulls.NAME]`.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Fetched {
    pull: String,
    /// When the newest copy was taken, of the dataset where that is longest ago.
    taken_at: Option<Timestamp>,
    /// Seconds since then, when they are more than a day.
    lag: Option<i64>,
    /// Seconds until the newest of all, when its date is in the future.
    ahead: Option<i64>,
    /// Datasets of which there is no copy yet.
    missing: Vec<DatasetName>,
    error: Option<ErrorReport>,
}

impl Fetched {
    pub(super) fn is_well(&self) -> bool {
        self.lag.is_none() && self.ahead.is_none() && self.missing.is_empty() && self.error.is_none()
    }

    fn of(pull: String, lineages: &[Lineage], now: Timestamp) -> Self {
        let newest = || lineages.iter().filter_map(|lineage| lineage.newest);
        let taken_at = newest().min();
        let missing = lineages.iter().filter(|lineage| lineage.newest.is_none());
        Self {
            pull,
            taken_at,
            lag: taken_at.and_then(|at| too_old(at, now)),
            ahead: newest().max().and_then(|at| too_new(at, now)),
            missing: missing.map(|lineage| lineage.target.dataset.clone()).collect(),
            error: None,
        }
    }
}

/// Asks this machine, and the others only for what they say of themselves: one that is off is no reason to know nothing, and all
/// are waited for at the same time.
pub(super) async fn all(session: &Session, pulls: &[Service], now: Timestamp) -> Vec<Fetched> {
    let asked = pulls.iter().flat_map(|pull| {
        pull.replicators.iter().map(async |puller| {
            let name = puller.name().to_string();
            match puller.lineage(&session.cx, &pull.targets).await {
                Ok(lineages) => Fetched::of(name, &lineages, now),
                Err(error) => Fetched {
                    error: Some(error.report()),
                    ..Fetched::of(name, &[], now)
                },
            }
        })
    });
    join_all(asked).await
}

/// A table of pulls, and below it what is wrong with them; nothing where there are none.
pub(super) fn shown(session: &Session, all: &[Fetched], now: Timestamp) -> String {
    if all.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["pull", "newest copy"]);
    let mut notes = String::new();
    for one in all {
        let mood = if one.is_well() { Mood::Good } else { Mood::Warn };
        let age = match one.taken_at.filter(|_| one.ahead.is_none()) {
            Some(at) => format!("{} old", ui::span(now.as_second() - at.as_second())),
            None => "?".to_owned(),
        };
        table.row([one.pull.clone(), session.ui.paint(mood, &age)]);
        notes.push_str(&told(one));
    }
    format!("\n{table}{notes}")
}

fn told(one: &Fetched) -> String {
    let pull = &one.pull;
    let mut text = String::new();
    if let Some(error) = &one.error {
        text.push_str(&complaint(
            &format!("{pull}: its copies can't be looked at"),
            error,
        ));
    }
    for dataset in &one.missing {
        text.push_str(&format!("{pull}: nothing was fetched yet of {dataset}\n"));
    }
    if let Some(lag) = one.lag {
        text.push_str(&format!("{pull}: its newest copy is {} old\n", ui::span(lag)));
    }
    if let Some(ahead) = one.ahead {
        text.push_str(&format!(
            "{pull}: a copy is dated {} in the future, so how old it is can't be told\n  hint: see whether this machine's clock is right \
             (`timedatectl`), and that machine's\n",
            ui::span(ahead)
        ));
    }
    if !one.missing.is_empty() || one.lag.is_some() {
        text.push_str(&format!(
            "  hint: `reseed pull {pull}` fetches what that machine has; it takes no snapshots there\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use reseed_core::point::Target;

    use super::*;

    #[test]
    fn one_dataset_that_is_old_or_missing_is_told() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        let lineage = |dataset: &str, newest: Option<&str>| Lineage {
            target: Target {
                dataset: DatasetName::new(dataset).unwrap(),
                mountpoint: PathBuf::new(),
            },
            common: None,
            newest: newest.map(|text| text.parse().unwrap()),
            snapshots: 1,
        };
        let of = |lineages: &[Lineage]| Fetched::of("box".to_owned(), lineages, now);
        let (fresh, old) = (Some("2026-11-23T11:00:00Z"), Some("2026-11-21T12:00:00Z"));
        let well = of(&[lineage("tank/a", fresh), lineage("tank/b", fresh)]);
        assert!(well.is_well());
        assert_eq!(told(&well), "");
        let behind = of(&[lineage("tank/a", old), lineage("tank/b", fresh)]);
        assert_eq!((behind.lag, behind.is_well()), (Some(172_800), false));
        assert!(told(&behind).contains("box: its newest copy is 2 d 0 h old\n  hint: `reseed pull box`"));
        let missing = of(&[lineage("tank/a", None), lineage("tank/b", fresh)]);
        assert!(!missing.is_well());
        assert!(told(&missing).contains("nothing was fetched yet of tank/a\n"));
        let ahead = of(&[lineage("tank/a", Some("2026-11-30T12:00:00Z"))]);
        assert_eq!((ahead.ahead, ahead.lag), (Some(604_800), None));
        assert!(told(&ahead).contains("7 d 0 h in the future"));
    }
}
