//! The embedded engine from the command line, for measuring it and for looking at it by hand:
//!
//! ```text
//! engine init REPO PASSWORD_FILE
//! engine backup REPO PASSWORD_FILE SOURCE AS_PATH
//! engine snapshots REPO PASSWORD_FILE
//! engine restore REPO PASSWORD_FILE SNAPSHOT TARGET [PATH]
//! engine check REPO PASSWORD_FILE
//! ```
#![allow(clippy::print_stdout, reason = "this is what it is for")]

use std::error::Error;
use std::sync::Arc;

use reseed_backend_restic::backup::{BackupJob, backup};
use reseed_backend_restic::check::ReadData;
use reseed_backend_restic::repo::Engine;
use reseed_backend_restic::restore::{RestoreJob, restore};
use reseed_backend_restic::secret::Password;
use reseed_core::clock::{Clock, SystemClock};

/// As the command has it.
#[global_allocator]
static ALLOCATOR: reseed_backend_restic::HugePages = reseed_backend_restic::HugePages;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (&[command, repo, password_file], rest) = args.split_first_chunk::<3>().ok_or("too few arguments")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let engine = Engine::local(repo, Arc::clone(&clock));
    let password = Password::from_file_contents(&std::fs::read_to_string(password_file)?);
    match (command, rest) {
        ("init", []) => println!("{:?}", engine.init(&password)?),
        ("backup", [source, as_path]) => {
            let job = BackupJob {
                source: source.into(),
                as_path: as_path.into(),
                host: "example".into(),
                tags: vec![],
                partial_tag: None,
                time: clock.now(),
            };
            println!(
                "{:#?}",
                backup(&engine, &password, &job, Arc::new(|_| ()), Arc::new(|| false))?
            );
        }
        ("snapshots", []) => println!("{:#?}", engine.open(&password)?.snapshots()?),
        // What is there is gone on with; the tree may be below PATH in the snapshot.
        ("restore", [snapshot, target, path @ ..]) if path.len() <= 1 => {
            let snapshot = match *snapshot {
                "latest" => engine
                    .open(&password)?
                    .snapshots()?
                    .readable
                    .first()
                    .ok_or("there is no snapshot")?
                    .id
                    .clone(),
                id => id.to_owned(),
            };
            let job = RestoreJob {
                snapshot,
                path: path.first().map(Into::into),
                only: None,
                target: target.into(),
                resume: std::path::Path::new(target).exists(),
                empty: false,
                workers: 0,
            };
            println!(
                "{:#?}",
                restore(&engine, &password, &job, Arc::new(|_| ()), Arc::new(|| false))?
            );
        }
        ("check", []) => {
            let never: Arc<dyn Fn() -> bool + Send + Sync> = Arc::new(|| false);
            println!("{:#?}", engine.open(&password)?.check(ReadData::All, &never)?);
        }
        _ => return Err("unknown command".into()),
    }
    Ok(())
}
