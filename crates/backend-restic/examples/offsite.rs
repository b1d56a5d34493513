//! One call of an engine on a local repository, alone, as a program: `cargo xtask bench offsite` measures it. What `reseed` does
//! around a call (the store's snapshots, history, locks) isn't in it.
//!
//! - `offsite restore ENGINE REPOSITORY PASSWORD_FILE TREE INTO` restores the newest point of the directory TREE into INTO, on top of what
//!   is there.
//! - `offsite backup ENGINE REPOSITORY PASSWORD_FILE TREE WORK` stores TREE; the restic program works in WORK.
//!
//! ENGINE is `embedded`, or the restic program's path.
#![allow(clippy::print_stderr, reason = "it is a program")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use reseed_backend_restic::repo::Engine;
use reseed_backend_restic::restic::Location;
use reseed_backend_restic::worker::Worker;
use reseed_backend_restic::{Embedded, PasswordFrom, Restic};
use reseed_core::clock::{Clock, SystemClock};
use reseed_core::exec::SystemRunner;
use reseed_core::names::RunId;
use reseed_core::offsite::BackupRequest;
use reseed_core::point::Target;
use reseed_core::source::{RestoreRequest, Scope};
use reseed_core::store::{StageState, Staging};
use reseed_core::{Context, OffsiteRepo, RestoreSource};

const HOST: &str = "bench";

struct Call<'a> {
    engine: &'a str,
    repository: &'a Path,
    password: PasswordFrom,
    /// Where the restic program works.
    work: PathBuf,
}

impl Call<'_> {
    fn embedded(&self) -> Result<Embedded, Box<dyn Error>> {
        let worker = std::env::current_exe()?.with_file_name("../reseed-restore-worker");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        Ok(Embedded::new(
            "offsite".parse()?,
            Engine::local(self.repository, clock),
            self.password.clone(),
            Worker::new([worker], Arc::new(SystemRunner::new())),
        ))
    }

    fn restic(&self) -> Result<Restic, Box<dyn Error>> {
        let restic = Restic::new(
            "offsite".parse()?,
            Location::Local(self.repository.to_owned()),
            self.password.clone(),
            self.work.clone(),
            Arc::new(SystemRunner::new()),
            Arc::new(SystemClock::new()),
        );
        Ok(restic.program(self.engine))
    }

    fn source(&self) -> Result<Arc<dyn RestoreSource>, Box<dyn Error>> {
        Ok(match self.engine {
            "embedded" => Arc::new(self.embedded()?),
            _ => Arc::new(self.restic()?),
        })
    }

    fn repo(&self) -> Result<Arc<dyn OffsiteRepo>, Box<dyn Error>> {
        Ok(match self.engine {
            "embedded" => Arc::new(self.embedded()?),
            _ => Arc::new(self.restic()?),
        })
    }
}

async fn restore(call: &Call<'_>, target: Target, into: &Path) -> Result<(), Box<dyn Error>> {
    let (source, cx) = (call.source()?, Context::silent(RunId::new("bench")?));
    let point = source.points(&cx, &target).await?.into_iter().next();
    let request = RestoreRequest {
        target: target.clone(),
        point: point.ok_or("the repository has no point of that directory")?,
        scope: Scope::Whole,
    };
    let plan = source.plan(&cx, &request).await?;
    std::fs::create_dir_all(into)?;
    let state = match std::fs::read_dir(into)?.next() {
        None => StageState::Fresh,
        Some(_) => StageState::Partial,
    };
    let staging = Staging {
        target,
        path: into.to_owned(),
        locator: into.display().to_string(),
        state,
    };
    source.execute(&cx, &plan, &staging).await?;
    Ok(())
}

async fn backup(call: &Call<'_>, target: Target) -> Result<(), Box<dyn Error>> {
    let (repo, cx) = (call.repo()?, Context::silent(RunId::new("bench")?));
    let request = BackupRequest {
        path: target.mountpoint.clone(),
        as_path: target.mountpoint.clone(),
        target,
        host: HOST.to_owned(),
        point: "1".parse()?,
        snapshot: None,
        taken_at: SystemClock::new().now(),
        fingerprint: None,
        unseeded: false,
    };
    repo.backup(&cx, &request).await?;
    Ok(())
}

async fn run(args: &[String]) -> Result<(), Box<dyn Error>> {
    let [what, engine, repository, password, tree, place] = args else {
        return Err("usage: offsite restore|backup ENGINE REPOSITORY PASSWORD_FILE TREE PLACE".into());
    };
    let place = PathBuf::from(place);
    let call = Call {
        engine,
        repository: Path::new(repository),
        password: PasswordFrom::File(password.into()),
        work: place.with_extension("work"),
    };
    let target = Target {
        dataset: "bench".parse()?,
        mountpoint: tree.into(),
    };
    match what.as_str() {
        "restore" => restore(&call, target, &place).await,
        "backup" => backup(&call, target).await,
        other => Err(format!("{other:?} is neither restore nor backup").into()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
