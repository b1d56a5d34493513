//! The real sanoid, run on a configuration, a cache and locks of its own.
//!
//! Promises:
//! - /etc/sanoid, /var/cache/sanoid and /run/sanoid are neither read nor written;
//! - what sanoid decides, it decides on a fresh listing: its cache (15 or 20 minutes old, and with `--force-update`
//!   renewed only *after* the decisions) is removed before every run;
//! - a report tells what was taken and pruned, also where sanoid exits with 0 after a failure, as it always does;
//! - no snapshot that the caller protects is pruned: a first run with `--readonly` says what would go, and a dataset that
//!   would lose a protected one is left out of the second. Where a moment between the two matters, hold the snapshot:
//!   `zfs destroy` refuses a held one.
//!
//! Not a [`SnapshotStore`](reseed_core::store::SnapshotStore): sanoid chooses names, moments and what goes by itself.
//! It has no notion of the guards in [`reseed_core::retention`], so the caller leaves unseeded services out, and names
//! the bases of replication and the last good points as protected.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reseed_core::Context;
use reseed_core::error::{Effect, StoreError, StoreKind};
use reseed_core::exec::{Command, Keep, Runner};

use super::parse::{Said, parse};
use super::render::{Purpose, render};
use super::resolve::Managed;

/// Lines of a run over thousands of snapshots. What is longer is refused rather than read in part.
const MOST_OUTPUT: usize = 32 * 1024 * 1024;
/// Pruning thousands of snapshots one `zfs destroy` at a time takes minutes.
const TIME_LIMIT: Duration = Duration::from_secs(30 * 60);

/// Runs sanoid.
#[derive(Debug, Clone)]
pub struct SanoidDriver {
    program: OsString,
    dir: PathBuf,
    runner: Arc<dyn Runner>,
}

/// What a run took.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct TakeReport {
    /// Snapshots taken, in full.
    pub taken: Vec<String>,
    /// Snapshots that were due and could not be taken.
    pub failed: Vec<String>,
    /// What sanoid warned of.
    pub complaints: Vec<String>,
}

/// What a run pruned, or would prune.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct PruneReport {
    /// Snapshots pruned, in full.
    pub pruned: Vec<String>,
    /// Snapshots that should have gone and are still there: held, cloned, busy.
    pub failed: Vec<String>,
    /// Datasets left alone because a protected snapshot would have gone.
    pub guarded: Vec<String>,
    /// What sanoid put off, in its own words.
    pub deferred: Vec<String>,
    /// What sanoid warned of.
    pub complaints: Vec<String>,
}

impl SanoidDriver {
    /// A driver that keeps sanoid's files in `dir`, which nobody else uses.
    pub fn new(dir: impl Into<PathBuf>, runner: Arc<dyn Runner>) -> Self {
        Self {
            program: "sanoid".into(),
            dir: dir.into(),
            runner,
        }
    }

    /// Names another sanoid than the one in PATH.
    #[must_use]
    pub fn program(mut self, program: impl Into<OsString>) -> Self {
        self.program = program.into();
        self
    }

    /// Takes what is due.
    ///
    /// # Errors
    /// When sanoid can't be told, can't run, or stops. A snapshot that failed is in the report.
    pub async fn take(&self, cx: &Context, managed: &[Managed]) -> Result<TakeReport, StoreError> {
        Ok(taken(self.run(cx, managed, Purpose::Take, false).await?))
    }

    /// What [`SanoidDriver::take`] would take now. Writes nothing but sanoid's own files.
    ///
    /// # Errors
    /// When sanoid can't be told, can't run, or stops.
    pub async fn due(&self, cx: &Context, managed: &[Managed]) -> Result<TakeReport, StoreError> {
        Ok(taken(self.run(cx, managed, Purpose::Take, true).await?))
    }

    /// What [`SanoidDriver::prune`] would prune now. Writes nothing but sanoid's own files.
    ///
    /// # Errors
    /// When sanoid can't be told, can't run, or stops.
    pub async fn preview(
        &self,
        cx: &Context,
        managed: &[Managed],
        protected: &BTreeSet<String>,
    ) -> Result<PruneReport, StoreError> {
        let said = self.run(cx, managed, Purpose::Prune, true).await?;
        let guarded = guarded(&said.pruned, protected);
        let mut report = report(said, guarded.iter().cloned().collect());
        report.pruned.retain(|snapshot| {
            let of = snapshot.split_once('@');
            of.is_none_or(|(dataset, _)| !guarded.contains(dataset))
        });
        Ok(report)
    }

    /// Prunes what the policies no longer want. `protected` are snapshots in full (`tank/a@x`) that have to stay, for
    /// whatever reason sanoid doesn't know.
    ///
    /// # Errors
    /// When sanoid can't be told, can't run, or stops. A snapshot that stayed is in the report.
    pub async fn prune(
        &self,
        cx: &Context,
        managed: &[Managed],
        protected: &BTreeSet<String>,
    ) -> Result<PruneReport, StoreError> {
        let guarded = match protected.is_empty() {
            true => BTreeSet::new(),
            false => {
                let preview = self.run(cx, managed, Purpose::Prune, true).await?;
                guarded(&preview.pruned, protected)
            }
        };
        let left: Vec<Managed> = (managed.iter())
            .filter(|one| !guarded.contains(&one.dataset))
            .cloned()
            .collect();
        let said = self.run(cx, &left, Purpose::Prune, false).await?;
        Ok(report(said, guarded.into_iter().collect()))
    }

    async fn run(
        &self,
        cx: &Context,
        managed: &[Managed],
        purpose: Purpose,
        readonly: bool,
    ) -> Result<Said, StoreError> {
        if managed.is_empty() {
            // sanoid stops at a configuration without sections.
            return Ok(Said::default());
        }
        let rendered = render(managed, purpose)
            .map_err(|error| StoreError::new(StoreKind::InvalidInput, error.to_string()))?;
        let place = self.dir.join(match purpose {
            Purpose::Take => "take",
            Purpose::Prune => "prune",
        });
        self.prepare(&place, &rendered.conf, &rendered.defaults)
            .map_err(|error| StoreError::io(format!("can't write {}", place.display()), &error))?;
        let command = self.command(&place, purpose, readonly);
        let effect = if readonly { Effect::None } else { Effect::Partial };
        let failed = |error: reseed_core::exec::ExecError| error.into_error("sanoid failed", effect);
        let output = self.runner.run(&command, &cx.cancel).await.map_err(failed)?;
        let output = output.require_success().map_err(failed)?;
        let stdout = output.whole_stdout().map_err(failed)?;
        Ok(parse(&String::from_utf8_lossy(stdout), &output.stderr.text()))
    }

    /// Writes the configuration, and makes sanoid forget what it had listed.
    fn prepare(&self, place: &Path, conf: &str, defaults: &str) -> std::io::Result<()> {
        for part in ["conf", "cache", "run"] {
            std::fs::create_dir_all(place.join(part))?;
        }
        for (name, text) in [("sanoid.conf", conf), ("sanoid.defaults.conf", defaults)] {
            let whole = place.join("conf").join(name);
            let part = whole.with_extension("part");
            std::fs::write(&part, text)?;
            std::fs::rename(part, whole)?;
        }
        for cache in ["snapshots.txt", "datasets.txt"] {
            match std::fs::remove_file(place.join("cache").join(cache)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn command(&self, place: &Path, purpose: Purpose, readonly: bool) -> Command {
        let option = |name: &str, part: &str| {
            let mut option = OsString::from(format!("--{name}="));
            option.push(place.join(part));
            option
        };
        let command = Command::new(&self.program)
            .arg(option("configdir", "conf"))
            .arg(option("cache-dir", "cache"))
            .arg(option("run-dir", "run"))
            .arg("--verbose")
            .arg(match purpose {
                Purpose::Take => "--take-snapshots",
                Purpose::Prune => "--prune-snapshots",
            })
            .keep_stdout(Keep::up_to(MOST_OUTPUT))
            .keep_stderr(Keep::ends(4 * 1024))
            .time_limit(TIME_LIMIT)
            .install_hint("install the package sanoid, or let reseed take and prune snapshots itself");
        match readonly {
            true => command.arg("--readonly"),
            false => command,
        }
    }
}

fn taken(said: Said) -> TakeReport {
    TakeReport {
        taken: said.taken,
        failed: said.failed,
        complaints: said.complaints,
    }
}

/// The datasets that would lose a protected one.
fn guarded(pruned: &[String], protected: &BTreeSet<String>) -> BTreeSet<String> {
    pruned
        .iter()
        .filter(|snapshot| protected.contains(*snapshot))
        .filter_map(|snapshot| snapshot.split_once('@'))
        .map(|(dataset, _)| dataset.to_owned())
        .collect()
}

fn report(said: Said, guarded: Vec<String>) -> PruneReport {
    PruneReport {
        pruned: said.pruned,
        failed: said.failed,
        guarded,
        deferred: said.deferred,
        complaints: said.complaints,
    }
}
