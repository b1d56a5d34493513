//! `reseed demo`: protect, break, heal, on real files in a directory of its own.
//!
//! Everything goes through the same session, operations and backends as the other commands; the crash is a real one, of
//! a child process. With `--zfs` the service's data and its replica are on ZFS; with `--vm` that happens in a virtual machine,
//! which the workspace's own harness boots.

mod data;
mod lab;
mod pools;
mod vm;

use reseed_core::error::{OpError, OpKind};
use reseed_core::preseed::{Outcome, ServiceReport};
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::lab::Lab;
use crate::args::DemoArgs;
use crate::exit::Exit;
use crate::output::Answer;
use crate::ui::{self, Mood, Table, Ui, printable};

/// One failure and how it healed.
#[derive(Debug, Serialize)]
struct Scenario {
    name: &'static str,
    /// Where the data came from; none where it couldn't.
    source: Option<String>,
    outcome: String,
    seconds: f64,
    bytes: u64,
    /// Whether the tree that is live now has the digest that was measured before it was destroyed; none where the
    /// service started without data.
    digest_matches: Option<bool>,
    /// Whether it went as it should.
    #[serde(skip)]
    as_expected: bool,
    /// What was done to it, and what the restore said.
    story: String,
}

const SERVICE: &str = "photos";

pub(crate) async fn run(args: &DemoArgs, ui: Ui, cancel: CancellationToken) -> Answer {
    if args.dry_run {
        let place = args
            .dir
            .as_ref()
            .map_or("a temporary directory".to_owned(), |dir| {
                dir.display().to_string()
            });
        let text = format!(
            "would make a lab of some thousand files in {place}, break it in five ways and heal it\n"
        );
        return Answer::new(&json!({ "would": text.trim() }), text, Exit::Ok);
    }
    if args.vm {
        return vm::run(ui, &cancel)
            .await
            .unwrap_or_else(|error| Answer::of_error(&ui, &error));
    }
    match walk(args, ui, cancel).await {
        Ok(answer) => answer,
        Err(error) => Answer::of_error(&ui, &error),
    }
}

async fn walk(args: &DemoArgs, ui: Ui, cancel: CancellationToken) -> Result<Answer, OpError> {
    let lab = Lab::make(args.dir.clone(), args.zfs, cancel).await?;
    let say = |line: &str| {
        if !ui.json {
            crate::complain(line);
        }
    };
    say(&format!("lab: {}", lab.dir.display()));
    say("making a service's data: a SQLite database, 2,000 small files, large ones, links and odd names ...");
    data::make(&lab.live(), if args.small { 10 } else { 1 })?;
    say("protecting it: snapshot, replica, off-site backup ...");
    lab.protect().await?;

    let mut scenarios = Vec::new();
    for step in [
        Step::DatasetGone,
        Step::ReplicaGone,
        Step::ReplicaCorrupt,
        Step::AllUnreachable,
        Step::CrashMidRestore,
    ] {
        let scenario = step.walk(&lab).await?;
        say(&format!("{}: {}", scenario.name, scenario.story));
        scenarios.push(scenario);
    }
    Ok(answer(&lab, &scenarios, ui))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    DatasetGone,
    ReplicaGone,
    ReplicaCorrupt,
    AllUnreachable,
    CrashMidRestore,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::DatasetGone => "dataset-gone",
            Self::ReplicaGone => "replica-gone",
            Self::ReplicaCorrupt => "replica-corrupt",
            Self::AllUnreachable => "all-unreachable",
            Self::CrashMidRestore => "crash-mid-restore",
        }
    }

    async fn walk(self, lab: &Lab) -> Result<Scenario, OpError> {
        let before = lab.digest().await?;
        lab.destroy_data().await?;
        // From here on the chain is what the scenario leaves of: replica, then off-site.
        let (report, story) = match self {
            Self::DatasetGone => (lab.preseed().await?, "the data was deleted".to_owned()),
            Self::ReplicaGone => {
                lab.lose_replica().await?;
                (
                    lab.preseed().await?,
                    "the data was deleted, and the replica's disk is gone".to_owned(),
                )
            }
            Self::ReplicaCorrupt => {
                let file = lab.corrupt_replica().await?;
                (
                    lab.preseed().await?,
                    format!("the data was deleted, and a bit flipped in the replica's {file}"),
                )
            }
            Self::AllUnreachable => {
                lab.lose_replica().await?;
                lab.lose_offsite()?;
                (
                    lab.preseed().await?,
                    "the data was deleted, and neither replica nor repository can be reached".to_owned(),
                )
            }
            Self::CrashMidRestore => {
                let crashed = lab.crash_preseed().await?;
                if !crashed.killed {
                    return Err(OpError::new(
                        OpKind::Failed,
                        format!(
                            "the restore was to be killed halfway and ended with {}",
                            crashed.end
                        ),
                    ));
                }
                if lab.is_live() {
                    return Err(OpError::new(OpKind::Failed, "a half restored tree became live"));
                }
                (
                    lab.preseed().await?,
                    format!("the restore was killed ({}), and run again", crashed.end),
                )
            }
        };
        let scenario = self.judge(lab, &report, before, story).await?;
        lab.mend(self == Self::AllUnreachable).await?;
        Ok(scenario)
    }

    async fn judge(
        self,
        lab: &Lab,
        report: &ServiceReport,
        before: reseed_core::point::Fingerprint,
        story: String,
    ) -> Result<Scenario, OpError> {
        let restored = report.outcome == Outcome::Restored;
        let digest_matches = if restored {
            Some(lab.digest().await? == before)
        } else {
            None
        };
        let expected = match self {
            Self::DatasetGone | Self::CrashMidRestore => Some("replica"),
            Self::ReplicaGone | Self::ReplicaCorrupt => Some("offsite"),
            Self::AllUnreachable => None,
        };
        let source = report.source.as_ref().map(ToString::to_string);
        let unseeded = matches!(report.outcome, Outcome::StartedEmpty { .. });
        let as_expected = match expected {
            Some(_) => restored && digest_matches == Some(true) && source.as_deref() == expected,
            None => unseeded && lab.guarded().await?,
        };
        Ok(Scenario {
            name: self.name(),
            source,
            outcome: report.outcome.name().to_owned(),
            seconds: report.seconds,
            bytes: report.datasets.iter().map(|d| d.bytes).sum(),
            digest_matches,
            as_expected,
            story: format!("{story}; {}", printable(&report.summary())),
        })
    }
}

fn answer(lab: &Lab, scenarios: &[Scenario], ui: Ui) -> Answer {
    let dir = &lab.dir;
    let mut table = Table::new(&["failure", "source", "outcome", "time", "bytes", "verification"]);
    for s in scenarios {
        let verified = match s.digest_matches {
            Some(true) => ui.paint(Mood::Good, "digest matches"),
            Some(false) => ui.paint(Mood::Bad, "digest differs"),
            None => ui.paint(Mood::Warn, "nothing restored; older points are guarded"),
        };
        let mood = if s.as_expected { Mood::Good } else { Mood::Bad };
        table.row([
            s.name.to_owned(),
            s.source.clone().unwrap_or_else(|| "-".to_owned()),
            ui.paint(mood, &s.outcome),
            format!("{:.2} s", s.seconds),
            ui::bytes(s.bytes),
            verified,
        ]);
    }
    let healed = scenarios.iter().all(|s| s.as_expected);
    let verdict = if healed {
        ui.paint(Mood::Good, "all five failures ended as they should")
    } else {
        ui.paint(Mood::Bad, "not every failure ended as it should")
    };
    let config = dir.join("reseed.toml");
    let config = config.display();
    let program = std::env::current_exe().map_or("reseed".to_owned(), |p| p.display().to_string());
    let lose = lab
        .how_to_lose()
        .unwrap_or_else(|| format!("rm -r {}/data/{SERVICE}", dir.display()));
    let mut text = format!(
        "{table}\n{verdict}\n\nThe lab is yours. Try next:\n  {program} -c {config} status\n  {program} -c {config} history\n  {lose} && {program} -c {config} preseed {SERVICE}\n  {program} -c {config} restore {SERVICE} --from offsite --to {dir}/elsewhere\n  {program} -c {config} verify {SERVICE}\n",
        dir = dir.display()
    );
    if let Some(end) = lab.how_to_end() {
        text.push_str(&format!("Its pools stay until `{end}`\n"));
    }
    Answer::new(
        &json!({ "lab": dir, "scenarios": scenarios }),
        text,
        if healed { Exit::Ok } else { Exit::Failed },
    )
}
