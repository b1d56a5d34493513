//! What the driver adds to the restic program's own time:
//!
//! ```text
//! driver PROGRAM TREE ROUNDS
//! ```
//!
//! Backs up and restores a tree, by hand and through the driver in turn, with the same options, each backup into a repository of its
//! own, and prints the medians. What it makes is in a temporary directory beside the tree.
#![allow(clippy::print_stdout, reason = "this is what it is for")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reseed_backend_restic::restic::Location;
use reseed_backend_restic::secret::Password;
use reseed_backend_restic::{PasswordFrom, Restic};
use reseed_core::clock::{Clock, SystemClock};
use reseed_core::exec::{Command, Runner, Secret, SystemRunner};
use reseed_core::names::{DatasetName, PointId, RunId, SourceName};
use reseed_core::offsite::BackupRequest;
use reseed_core::point::Target;
use reseed_core::source::{RestoreRequest, Scope};
use reseed_core::store::{StageState, Staging};
use reseed_core::{Context, OffsiteRepo, RestoreSource};
use tokio_util::sync::CancellationToken;

const PASSWORD: &str = "correct horse";

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [program, tree, rounds] = args.as_slice() else {
        return Err("usage: driver PROGRAM TREE ROUNDS".into());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(program, Path::new(tree), rounds.parse()?))
}

async fn measure(program: &str, tree: &Path, rounds: usize) -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir_in(tree.parent().ok_or("the tree has no parent")?)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let runner: Arc<dyn Runner> = Arc::new(SystemRunner::new());
    let cx = Context::silent(RunId::new("20261122T203300Z-example")?);
    let target = Target {
        dataset: DatasetName::new("example")?,
        mountpoint: "/var/lib/example".into(),
    };
    let by_hand = async |repo: &Path, cwd: &Path, args: &[&str]| -> Result<(), Box<dyn Error>> {
        let command = Command::new(program)
            .args(["--no-cache", "--json"])
            .args(args)
            .cwd(cwd)
            .env("RESTIC_REPOSITORY", repo)
            .env("RESTIC_PROGRESS_FPS", "2")
            .env_secret_file("RESTIC_PASSWORD_FILE", Secret::new(PASSWORD));
        runner
            .run(&command, &CancellationToken::new())
            .await?
            .require_success()?;
        Ok(())
    };
    let mut times: [Vec<Duration>; 4] = Default::default();
    for round in 0..=rounds {
        // Who begins changes, and the first round doesn't count.
        for turn in 0..2 {
            let driven = (round + turn) % 2 == 1;
            let (repo, stage) = (dir.path().join("repo"), dir.path().join("stage"));
            std::fs::create_dir(&stage)?;
            let restic = Restic::new(
                SourceName::new("example")?,
                Location::Local(repo.clone()),
                PasswordFrom::Given(Password::new(PASSWORD)),
                dir.path().join("work"),
                Arc::clone(&runner),
                Arc::clone(&clock),
            )
            .program(program);
            by_hand(&repo, dir.path(), &["init"]).await?;
            let begin = clock.monotonic();
            if driven {
                let request = BackupRequest {
                    target: target.clone(),
                    path: tree.to_owned(),
                    as_path: target.mountpoint.clone(),
                    host: "example".into(),
                    point: PointId::new("1")?,
                    snapshot: None,
                    taken_at: clock.now(),
                    fingerprint: None,
                    unseeded: false,
                };
                restic.backup(&cx, &request).await?;
            } else {
                by_hand(&repo, tree, &["backup", "."]).await?;
            }
            let backed_up = clock.monotonic();
            let points = OffsiteRepo::points(&restic, &cx, None).await?;
            let point = points.into_iter().next().ok_or("there is no point")?;
            if driven {
                let staging = Staging {
                    target: target.clone(),
                    locator: stage.display().to_string(),
                    path: stage.clone(),
                    state: StageState::Fresh,
                };
                let request = RestoreRequest {
                    target: target.clone(),
                    point,
                    scope: Scope::Whole,
                };
                let plan = restic.plan(&cx, &request).await?;
                let before = clock.monotonic();
                restic.execute(&cx, &plan, &staging).await?;
                times[3].push(clock.monotonic().saturating_sub(before));
            } else {
                let path = stage.display().to_string();
                let mut args = vec!["restore", "--verify", "--target", &path];
                if !program_is_old(program, &runner).await? {
                    args.push("--sparse");
                }
                args.push(&point.locator);
                let before = clock.monotonic();
                by_hand(&repo, dir.path(), &args).await?;
                times[1].push(clock.monotonic().saturating_sub(before));
            }
            times[if driven { 2 } else { 0 }].push(backed_up.saturating_sub(begin));
            // Kept until the end: ext4 looks for new inodes the longer the more were freed in the last minutes.
            for (made, name) in [(&stage, "restored"), (&repo, "repository")] {
                std::fs::rename(made, dir.path().join(format!("{name}-{round}-{turn}")))?;
            }
        }
    }
    let median = |times: &[Duration]| {
        let mut times = times[1..].to_vec();
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64()
    };
    for (name, hand, driven) in [("backup", 0, 2), ("restore", 1, 3)] {
        let (hand, driven) = (median(&times[hand]), median(&times[driven]));
        println!(
            "{name}: by hand {hand:.3} s, driven {driven:.3} s, ratio {:.3}",
            driven / hand
        );
    }
    Ok(())
}

async fn program_is_old(program: &str, runner: &Arc<dyn Runner>) -> Result<bool, Box<dyn Error>> {
    let command = Command::new(program).arg("version");
    let output = runner.run(&command, &CancellationToken::new()).await?;
    Ok(output.stdout.text().starts_with("restic 0.14"))
}
