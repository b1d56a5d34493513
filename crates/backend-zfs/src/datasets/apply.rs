//! Carries a plan out, one `zfs` command for each step, and reads what is there.
//!
//! Promises: the only commands are `get`, `list`, `create -u`, `set` and `mount`; of files only the topmost directories of datasets are changed,
//! and of these only owner, group and permissions; nothing is mounted over a directory that has
//! something in it, neither a new dataset nor one whose mountpoint changes; a step that fails stops those below it and no
//! others.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reseed_core::Context;
use reseed_core::error::{Effect, StoreError, StoreKind};
use reseed_core::exec::{Command, Keep, Runner};
use serde::Serialize;

use super::actual::{self, Actual, Read};
use super::owner::DirWanted;
use super::plan::{LayoutPlan, Step};
use crate::zfs::{owner, work};

/// A thousand datasets with seventy properties each are 8 MiB.
const MOST_LISTING: usize = 256 * 1024 * 1024;
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// What became of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// Each step and its outcome, in the order of the plan.
    pub steps: Vec<(Step, Outcome)>,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// It is done.
    Done,
    /// It is created, and not mounted.
    NotMounted {
        /// Why.
        why: String,
    },
    /// It was not done, because it would have hidden data.
    Refused {
        /// What would have been hidden.
        why: String,
    },
    /// `zfs` said no.
    Failed {
        /// Its words.
        why: String,
    },
    /// Something above it failed, or the run was ended.
    NotTried,
}

impl Outcome {
    /// Whether what was declared is so now.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }
}

/// Reads and changes datasets.
#[derive(Debug, Clone)]
pub struct Layout {
    runner: Arc<dyn Runner>,
}

impl Layout {
    /// With the `zfs` in PATH.
    pub fn new(runner: Arc<dyn Runner>) -> Self {
        Self { runner }
    }

    pub(super) fn runner(&self) -> &dyn Runner {
        self.runner.as_ref()
    }

    /// All datasets with all their properties.
    ///
    /// # Errors
    /// When `zfs` is missing, fails, or prints something else.
    pub async fn read(&self, cx: &Context) -> Result<Actual, StoreError> {
        let what = "can't read the datasets' properties";
        let columns = "name,property,value,source";
        let bad = |error| StoreError::new(StoreKind::BadOutput, what).said(error);
        let command = zfs(["get", "-Hp", "-o", columns, "-t", "filesystem,volume", "all"])
            .keep_stdout(Keep::up_to(MOST_LISTING));
        let listing = self.listing(cx, &command, what).await?;
        let names = self.names(cx).await?;
        if let Read::All(actual) = actual::parse(&listing, &names).map_err(bad)? {
            return Ok(actual);
        }
        let mut actual = Actual::new();
        for name in names {
            let command =
                zfs(["get", "-Hp", "-o", columns, "all", &name]).keep_stdout(Keep::up_to(MOST_LISTING));
            let answer = self.listing(cx, &command, what).await?;
            let dataset = actual::parse_one(&answer, &name).map_err(bad)?;
            actual.insert(name, dataset);
        }
        Ok(actual)
    }

    /// The names of all filesystems and volumes.
    ///
    /// # Errors
    /// When `zfs` is missing or fails.
    pub async fn names(&self, cx: &Context) -> Result<Vec<String>, StoreError> {
        let command = zfs(["list", "-H", "-o", "name", "-t", "filesystem,volume"])
            .keep_stdout(Keep::up_to(MOST_LISTING));
        let listing = self.listing(cx, &command, "can't list the datasets").await?;
        Ok(listing.lines().map(str::to_owned).collect())
    }

    async fn listing(&self, cx: &Context, command: &Command, what: &str) -> Result<String, StoreError> {
        let failed = |error: reseed_core::exec::ExecError| error.into_error(what, Effect::None);
        let output = self.runner.run(command, &cx.cancel).await.map_err(failed)?;
        let output = output.require_success().map_err(failed)?;
        let bytes = output.whole_stdout().map_err(failed)?;
        // One value in another encoding is no reason to see nothing.
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    /// Carries the plan out. Each step's outcome is in the answer; the plan's obstacles are left alone.
    pub async fn apply(&self, cx: &Context, plan: &LayoutPlan) -> Applied {
        let mut applied = Applied::default();
        let mut broken: Vec<String> = Vec::new();
        for step in &plan.steps {
            let dataset = step.dataset();
            let below_broken = broken
                .iter()
                .any(|parent| dataset == parent || dataset.starts_with(&format!("{parent}/")));
            let outcome = match cx.cancel.is_cancelled() || below_broken {
                true => Outcome::NotTried,
                false => self.step(cx, step).await,
            };
            if matches!(step, Step::Create { .. })
                && matches!(outcome, Outcome::Failed { .. } | Outcome::NotTried)
            {
                broken.push(dataset.to_owned());
            }
            applied.steps.push((step.clone(), outcome));
        }
        applied
    }

    async fn step(&self, cx: &Context, step: &Step) -> Outcome {
        if let Step::Set { property, to, .. } = step
            && property == "mountpoint"
            && let Some(why) = occupied(Path::new(to))
        {
            return Outcome::Refused { why };
        }
        if let Step::Own { dataset, to, .. } = step {
            return give(dataset.clone(), *to).await;
        }
        let Some(command) = command(step) else {
            return self.mount(cx, step).await;
        };
        match (self.quiet(cx, &command).await, step) {
            (Err(why), _) => Outcome::Failed { why },
            (Ok(()), Step::Create { .. }) => match self.mount(cx, step).await {
                Outcome::Refused { why } | Outcome::Failed { why } => Outcome::NotMounted { why },
                outcome => outcome,
            },
            (Ok(()), _) => Outcome::Done,
        }
    }

    /// Mounts a dataset, unless it is not to be mounted, or its place is taken or another than was planned.
    async fn mount(&self, cx: &Context, step: &Step) -> Outcome {
        let (dataset, planned) = match step {
            Step::Mount { dataset, at } => (dataset.as_str(), Some(at)),
            other => (other.dataset(), None),
        };
        let asked = zfs(["get", "-Hp", "-o", "value", "canmount,mountpoint,mounted"]).arg(dataset);
        let said = match self.listing(cx, &asked, "can't tell where it belongs").await {
            Ok(said) => said,
            Err(error) => {
                return Outcome::Failed {
                    why: error.to_string(),
                };
            }
        };
        let mut values = said.lines();
        let mut next = || values.next().unwrap_or("");
        let (canmount, mountpoint, mounted) = (next(), next(), next());
        if let Some(at) = planned.filter(|at| *at != mountpoint) {
            let why = format!("it would be mounted at {mountpoint}, not at {at}");
            return Outcome::Refused { why };
        }
        if canmount != "on" || !mountpoint.starts_with('/') || mounted == "yes" {
            return Outcome::Done;
        }
        if let Some(why) = occupied(Path::new(mountpoint)) {
            return Outcome::Refused { why };
        }
        match self.quiet(cx, &zfs(["mount"]).arg(dataset)).await {
            Ok(()) => Outcome::Done,
            Err(why) => Outcome::Failed { why },
        }
    }

    async fn quiet(&self, cx: &Context, command: &Command) -> Result<(), String> {
        let output = self.runner.run(command, &cx.cancel).await;
        output
            .and_then(reseed_core::exec::Output::require_success)
            .map(drop)
            .map_err(|error| error.to_string())
    }
}

fn zfs<const N: usize>(arguments: [&str; N]) -> Command {
    Command::new("zfs")
        .args(arguments)
        .time_limit(TIME_LIMIT)
        .install_hint("install zfsutils-linux")
}

/// The argument vector of a step; none where it only mounts, before which has to be asked where, and where no tool is run.
pub fn command(step: &Step) -> Option<Command> {
    match step {
        Step::Create {
            dataset, properties, ..
        } => {
            // Not mounted yet: a mountpoint that is not empty has to be seen first.
            let options = properties
                .iter()
                .flat_map(|(key, value)| ["-o".to_owned(), format!("{key}={value}")]);
            Some(zfs(["create", "-u"]).args(options).arg(dataset))
        }
        Step::Set {
            dataset,
            property,
            to,
            ..
        } => Some(zfs(["set"]).arg(format!("{property}={to}")).arg(dataset)),
        Step::Mount { .. } | Step::Own { .. } => None,
    }
}

/// Gives the topmost directory of a dataset to whom it is declared to belong.
async fn give(dataset: String, to: DirWanted) -> Outcome {
    let done = work::blocking("can't set an owner", move || {
        owner::set(&dataset, &to)
            .map_err(|error| StoreError::io("can't change its topmost directory", &error))
    });
    match done.await {
        Ok(true) => Outcome::Done,
        Ok(false) => Outcome::Refused {
            why: "it isn't mounted".to_owned(),
        },
        Err(error) => Outcome::Failed {
            why: error.to_string(),
        },
    }
}

/// Why nothing may be mounted there; none when there is nothing to hide.
fn occupied(path: &Path) -> Option<String> {
    if !path.is_absolute() {
        return None;
    }
    let shown = path.display();
    match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().map(|_| {
            format!("{shown} has something in it that would be hidden; move it away, then run this again")
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => Some(format!("{shown} can't be looked into: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use reseed_core::exec::{ExecError, Exit, Output, PipeOutput, Streaming};
    use reseed_core::names::RunId;
    use tokio_util::sync::CancellationToken;

    use super::*;

    /// Fails what contains a word, and writes all down.
    #[derive(Debug, Default)]
    struct Scripted {
        fails: &'static str,
        mountpoint: String,
        ran: Mutex<Vec<String>>,
    }

    #[async_trait::async_trait]
    impl Runner for Scripted {
        async fn run(&self, command: &Command, _: &CancellationToken) -> Result<Output, ExecError> {
            let line = command.to_string();
            let bad = !self.fails.is_empty() && line.contains(self.fails);
            self.ran.lock().unwrap().push(line);
            let stdout = format!("on\n{}\n", self.mountpoint);
            Ok(Output::fake(
                command,
                Exit::Code(i32::from(bad)),
                stdout,
                if bad { "no" } else { "" },
            ))
        }
        async fn pipe(&self, _: &[Command], _: &CancellationToken) -> Result<PipeOutput, ExecError> {
            panic!("no pipes here")
        }
        async fn stream(&self, _: &Command, _: &CancellationToken) -> Result<Streaming, ExecError> {
            panic!("no streams here")
        }
    }

    fn create(dataset: &str) -> Step {
        Step::Create {
            dataset: dataset.to_owned(),
            properties: BTreeMap::from([("recordsize".to_owned(), "16K".to_owned())]),
            implied: false,
        }
    }

    fn set(property: &str, to: &str) -> Step {
        Step::Set {
            dataset: "tank/a b".to_owned(),
            property: property.to_owned(),
            from: None,
            to: to.to_owned(),
            new_data_only: false,
        }
    }

    fn apply(runner: Scripted, steps: Vec<Step>) -> (Vec<Outcome>, Vec<String>) {
        let runner = Arc::new(runner);
        let layout = Layout::new(Arc::clone(&runner) as Arc<dyn Runner>);
        let plan = LayoutPlan {
            steps,
            obstacles: Vec::new(),
        };
        let cx = Context::silent(RunId::new("r").unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let applied = runtime.block_on(layout.apply(&cx, &plan));
        let ran = runner.ran.lock().unwrap().clone();
        (
            applied.steps.into_iter().map(|(_, outcome)| outcome).collect(),
            ran,
        )
    }

    #[test]
    fn a_new_dataset_is_mounted_where_nothing_is() {
        let empty = tempfile::tempdir().unwrap();
        let mountpoint = empty.path().display().to_string();
        let runner = Scripted {
            mountpoint,
            ..Scripted::default()
        };
        let (outcomes, ran) = apply(runner, vec![create("tank/a"), set("quota", "1G")]);
        assert_eq!(outcomes, [Outcome::Done, Outcome::Done]);
        assert_eq!(
            ran,
            [
                "zfs create -u -o recordsize=16K tank/a",
                "zfs get -Hp -o value canmount,mountpoint,mounted tank/a",
                "zfs mount tank/a",
                "zfs set quota=1G 'tank/a b'",
            ]
        );
    }

    #[test]
    fn nothing_is_mounted_over_data() {
        let full = tempfile::tempdir().unwrap();
        std::fs::write(full.path().join("precious"), "").unwrap();
        let mountpoint = full.path().display().to_string();
        let steps = vec![create("tank/a"), set("mountpoint", &mountpoint)];
        let (outcomes, ran) = apply(
            Scripted {
                mountpoint,
                ..Scripted::default()
            },
            steps,
        );
        assert!(
            matches!(
                &outcomes[..],
                [Outcome::NotMounted { .. }, Outcome::Refused { .. }]
            ),
            "{outcomes:?}"
        );
        assert_eq!(ran.len(), 2, "{ran:?}");
    }

    #[test]
    fn what_was_not_mounted_is_mounted_there_or_nowhere() {
        let empty = tempfile::tempdir().unwrap();
        let at = empty.path().display().to_string();
        let mount = |at: &str| Step::Mount {
            dataset: "tank/a".to_owned(),
            at: at.to_owned(),
        };
        let run = || Scripted {
            mountpoint: at.clone(),
            ..Scripted::default()
        };
        let (outcomes, ran) = apply(run(), vec![mount(&at)]);
        assert_eq!(
            (&outcomes[..], &ran[1][..]),
            (&[Outcome::Done][..], "zfs mount tank/a")
        );
        // Moving it was refused, so it is still to be mounted at its old place, which nobody declared.
        let (outcomes, ran) = apply(run(), vec![mount("/srv/elsewhere")]);
        assert!(matches!(&outcomes[..], [Outcome::Refused { .. }]), "{outcomes:?}");
        assert_eq!(ran.len(), 1, "{ran:?}");
        std::fs::write(empty.path().join("precious"), "").unwrap();
        let (outcomes, ran) = apply(run(), vec![mount(&at)]);
        assert!(matches!(&outcomes[..], [Outcome::Refused { .. }]), "{outcomes:?}");
        assert_eq!(ran.len(), 1, "{ran:?}");
    }

    #[test]
    fn what_fails_stops_what_is_below_it_and_nothing_else() {
        let runner = Scripted {
            fails: "tank/a",
            mountpoint: "none".to_owned(),
            ..Scripted::default()
        };
        let (outcomes, _) = apply(
            runner,
            vec![create("tank/a"), create("tank/a/b"), create("tank/c")],
        );
        assert!(
            matches!(
                &outcomes[..],
                [Outcome::Failed { .. }, Outcome::NotTried, Outcome::Done]
            ),
            "{outcomes:?}"
        );
    }
}
