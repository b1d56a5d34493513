//! Running restic: every call goes through here. It promises that a lock which a call of ours left is taken away by restic's own
//! rules, that a dead lock of somebody is taken away once and told of ([`unlock`](super::unlock)), and that a password reaches the child by a file that
//! only it can read. It doesn't know what the calls are for.

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reseed_core::Context;
use reseed_core::event::Event;
use reseed_core::exec::{Command, ExecError, Exit, Keep, Listener, Redactor, Secret};
use tokio_util::sync::CancellationToken;

use super::by_looking::ask_by;
use super::parse::{Line, Problem, Status, Summary, line, problem_in_words};
use super::version::Version;
use super::{Location, Restic, argv, error, rest, whose};
use crate::error::{EngineError, Result};
use crate::lock::LockHolder;
use crate::repo::Engine;

/// The most that is kept of an answer: some hundred thousand snapshots.
const MOST: usize = 256 << 20;
/// Between SIGTERM and SIGKILL: it removes its lock, which is far away for some repositories.
const GRACE: Duration = Duration::from_secs(30);
/// For taking away a lock and looking what there is after the run is over: nobody waits for it gladly.
pub(crate) const TIDY: Duration = Duration::from_secs(15);
/// So often a store may refuse a request for a reason that lasts: some stumble once.
const REFUSED: u32 = 3;
/// At most so many problems are kept; all are counted.
const KEPT: usize = 20;

/// What a call said while it ran.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard {
    /// How often something could not be done.
    pub(crate) count: u64,
    /// The first of them.
    pub(crate) problems: Vec<Problem>,
    /// Why it ended.
    pub(crate) last_words: Option<String>,
    /// The message that ends it.
    pub(crate) summary: Option<Summary>,
    /// The snapshot that replaced another.
    pub(crate) changed: Option<String>,
    /// It had to ask again.
    retries: u64,
    /// How often each request was refused for a reason that lasts.
    refusals: HashMap<String, u32>,
    /// What it was refused, when it has been often enough.
    refusal: Option<String>,
    /// How often it could not remove a lock of its own.
    unlocks_refused: u32,
    /// Nothing says when its work is done and only the lock is left to remove.
    ends_silently: bool,
}

/// A lock of its own, which restic removes when it is done, and each few minutes while it works.
const UNLOCK: &str = "Remove(<lock/";

impl Heard {
    /// Whether the line is one of messages rather than words.
    fn take(&mut self, bytes: &[u8], redactor: &Redactor) -> bool {
        match line(bytes) {
            Line::Problem(problem) => self.problem(&problem, redactor),
            Line::ExitError(words) => self.last_words = Some(redactor.text(&words)),
            Line::Summary(summary) => self.summary = Some(*summary),
            Line::Changed(id) => self.changed = Some(id),
            Line::Status(_) => {}
            Line::Other => {
                let text = String::from_utf8_lossy(bytes);
                if text.contains("returned error, retrying after") {
                    self.retries += 1;
                    if text.contains(UNLOCK) {
                        // A key that can't delete is no reason to stop working.
                        self.unlocks_refused += u32::from(error::lasts(&text));
                        let is_done = self.summary.is_some() || self.changed.is_some() || self.ends_silently;
                        if self.unlocks_refused >= REFUSED && is_done {
                            self.refusal = Some(redactor.text(&text));
                        }
                    } else if error::lasts(&text) && self.refusals.len() < KEPT {
                        let request = text.split(" returned error").next().unwrap_or_default();
                        let times = self.refusals.entry(request.to_owned()).or_default();
                        *times += 1;
                        if *times >= REFUSED {
                            self.refusal = Some(redactor.text(&text));
                        }
                    }
                    // The first ones are kept as words.
                    return self.retries > 3;
                }
                match problem_in_words(&text) {
                    Some(problem) => self.problem(&problem, redactor),
                    None => return false,
                }
            }
        }
        true
    }

    fn problem(&mut self, problem: &Problem, redactor: &Redactor) {
        self.count += 1;
        if self.problems.len() < KEPT {
            self.problems.push(Problem {
                item: redactor.text(&problem.item),
                why: redactor.text(&problem.why),
            });
        }
    }
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) exit: Exit,
    pub(crate) heard: Heard,
    /// What it said besides.
    pub(crate) words: String,
    /// It said more than was kept.
    pub(crate) said_more: bool,
    /// It was ended when its work was done, and before it had tidied up.
    pub(crate) cut_short: bool,
    /// The lock in its way is dead, and can't be removed.
    pub(crate) dead_stays: bool,
}

impl Ended {
    /// All that it said about why it ended.
    pub(crate) fn all_words(&self) -> String {
        match &self.heard.last_words {
            None => self.words.clone(),
            Some(last) => format!("{last}\n{}", self.words),
        }
    }
}

impl Restic {
    /// The version of the program, asked once.
    pub(crate) async fn version(&self, cx: &Context) -> Result<Version> {
        if let Some(version) = self.version.get() {
            return Ok(*version);
        }
        let command = Command::new(&self.program)
            .args(argv::version())
            .install_hint("install restic (Debian: `apt-get install restic`)")
            .time_limit(Duration::from_secs(60));
        let output = self
            .runner
            .run(&command, &cx.cancel)
            .await
            .map_err(|error| failed_to_run(&error))?;
        let version = Version::of_output(&output.stdout.text())?;
        if self.version.set(version).is_ok() && version.is_unknown() {
            cx.emit(Event::Warning {
                service: None,
                message: format!(
                    "{}: restic {version} is newer than any that was tried with reseed",
                    self.name
                ),
                hint: Some(
                    "it should work; if something looks odd, try the one of your distribution".to_owned(),
                ),
            });
        }
        Ok(version)
    }

    pub(crate) fn command(&self, version: Version, args: Vec<OsString>) -> Result<Command> {
        let password = self.password.read()?;
        let mut command = Command::new(&self.program)
            .args(argv::common(self.cache().as_deref(), self.location.options()?))
            .args(args)
            .env_secret_file("RESTIC_PASSWORD_FILE", Secret::new(password.expose()))
            // Times that it prints and takes are without a zone.
            .env("TZ", "UTC")
            .env("RESTIC_PROGRESS_FPS", "2")
            .keep_stderr(Keep::ends(64))
            .grace(GRACE);
        if version.device_feature() {
            command = command.env("RESTIC_FEATURES", "device-id-for-hardlinks");
        }
        self.location.tell(command)
    }

    /// Before a call: what is not there, or is something else, is told apart by looking where that can be looked at. restic would
    /// ask again for a quarter of an hour.
    pub(crate) async fn look(&self, cx: &Context) -> Result<()> {
        match &self.location {
            Location::Local(path) => crate::local::must_be_repository(path),
            Location::S3 { .. } => self.ask_the_store(cx, Engine::must_be_repository).await,
            Location::Rest(place) => self.ask_the_server(cx, place, rest::must_have_config).await,
            Location::Sftp(_) => Ok(()),
        }
    }

    /// The same before a repository is made: nothing may be there.
    pub(crate) async fn look_for_room(&self, cx: &Context) -> Result<()> {
        match &self.location {
            Location::Local(path) => crate::local::must_be_vacant(path),
            Location::S3 { .. } => self.ask_the_store(cx, Engine::must_be_vacant).await,
            Location::Rest(place) => {
                self.ask_the_server(cx, place, rest::must_have_no_config).await?;
                tokio::select! {
                    () = cx.cancel.cancelled() => Err(EngineError::Cancelled),
                    vacant = place.must_be_vacant(self.location.to_string()) => vacant,
                }
            }
            Location::Sftp(_) => Ok(()),
        }
    }

    /// Why a call didn't come to its end: what it was refused for good, or what kept it from running.
    pub(super) fn not_ended(&self, watch: &Watch, error: &ExecError) -> EngineError {
        match watch.refused() {
            Some(refusal) => error::of(Exit::Code(1), &refusal, &self.location.to_string()),
            None => failed_to_run(error),
        }
    }

    async fn ask_the_store(&self, cx: &Context, ask: fn(&Engine) -> Result<()>) -> Result<()> {
        match self.location.embedded(Arc::clone(&self.clock)) {
            Some(engine) => ask_by(cx, engine, ask).await,
            None => Ok(()),
        }
    }

    /// A call that only reads and takes no lock; all that it printed.
    pub(crate) async fn ask(&self, cx: &Context, args: Vec<OsString>) -> Result<Vec<u8>> {
        self.ask_both(cx, args).await.map(|(printed, _)| printed)
    }

    /// The same, with what it said besides.
    pub(crate) async fn ask_both(&self, cx: &Context, args: Vec<OsString>) -> Result<(Vec<u8>, String)> {
        if cx.cancel.is_cancelled() {
            return Err(EngineError::Cancelled);
        }
        self.look(cx).await?;
        let version = self.version(cx).await?;
        let command = self.command(version, args)?.keep_stdout(Keep::up_to(MOST));
        let watch = Watch::over(&cx.cancel, &command);
        let command = command.heard_by(watch.listener());
        let output = match self.runner.run(&command, &watch.stop).await {
            Ok(output) => output,
            Err(error) => return Err(self.not_ended(&watch, &error)),
        };
        let ended = Ended {
            exit: output.exit,
            words: output.stderr.text().into_owned(),
            said_more: output.stderr.whole().is_none(),
            heard: watch.heard(),
            cut_short: false,
            dead_stays: false,
        };
        if !ended.exit.success() {
            return Err(error::of(
                ended.exit,
                &ended.all_words(),
                &self.location.to_string(),
            ));
        }
        match output.stdout.whole() {
            Some(whole) => {
                let problems = ended.heard.problems.iter().map(|problem| problem.why.as_str());
                let words = std::iter::once(ended.words.as_str()).chain(problems);
                Ok((whole.to_vec(), words.collect::<Vec<_>>().join("\n")))
            }
            None => Err(EngineError::BadOutput {
                detail: format!("{} bytes are more than are read", output.stdout.total()),
            }),
        }
    }

    /// A call that takes a lock. A dead lock in its way is removed, once; whatever lock it leaves itself too.
    pub(crate) async fn locking(
        &self,
        cx: &Context,
        command: &Command,
        on_status: &(dyn Fn(Status) + Sync),
    ) -> Result<Ended> {
        let first = self.once(cx, command, on_status).await?;
        let Some(holder) = locked(&first, &self.location.to_string()) else {
            return Ok(first);
        };
        let may_go = match self.is_dead(&holder) {
            true => self.only_dead_ones_look_dead(cx).await,
            false => Ok(false),
        };
        match may_go {
            Ok(true) => {}
            Err(EngineError::Cancelled) => return Err(EngineError::Cancelled),
            // Where the locks can't all be looked at, one may be somebody's.
            Ok(false) | Err(_) => return Ok(first),
        }
        match self.unlock(&cx.cancel).await {
            Ok(()) => {}
            Err(EngineError::Cancelled) => return Err(EngineError::Cancelled),
            // What may only be read keeps it, and that isn't what kept the call from its work.
            Err(_) => {
                return Ok(Ended {
                    dead_stays: true,
                    ..first
                });
            }
        }
        cx.emit(Event::Warning {
            service: None,
            message: format!("{}: a lock was removed whose holder is dead: {holder}", self.name),
            hint: Some("it was killed in the middle of its work, which a later run does again".to_owned()),
        });
        self.once(cx, command, on_status).await
    }

    async fn once(
        &self,
        cx: &Context,
        command: &Command,
        on_status: &(dyn Fn(Status) + Sync),
    ) -> Result<Ended> {
        if cx.cancel.is_cancelled() {
            return Err(EngineError::Cancelled);
        }
        let (began, mut pid) = (self.clock.now(), None);
        let ended = self.listen(cx, command, on_status, &mut pid).await;
        let may_have_left_its_lock = match &ended {
            Err(EngineError::Cancelled | EngineError::ToolDied { .. }) => true,
            Err(_) => false,
            // What may not remove its lock may not by another call either.
            Ok(ended) if ended.heard.unlocks_refused >= REFUSED => false,
            Ok(ended) => {
                ended.cut_short || matches!(ended.exit, Exit::Signal(_)) || ended.heard.refusal.is_some()
            }
        };
        if may_have_left_its_lock {
            // It has been waited for.
            self.tidy_up(began, pid).await;
        }
        ended
    }

    async fn listen(
        &self,
        cx: &Context,
        command: &Command,
        on_status: &(dyn Fn(Status) + Sync),
        pid: &mut Option<i32>,
    ) -> Result<Ended> {
        let told = self.version.get().is_some_and(|version| version.restore_json());
        let restores = command.arguments().iter().any(|word| *word == "restore");
        let watch = Watch::over(&cx.cancel, command).ends_silently(restores && !told);
        let mark = whose::mark();
        let command = command.clone().heard_by(watch.listener()).env(whose::MARK, &mark);
        let mut running = self
            .runner
            .stream(&command, &watch.stop)
            .await
            .map_err(|error| failed_to_run(&error))?;
        *pid = whose::process_of(&mark, &*self.clock).await;
        while let Some(text) = running.next_line().await {
            if text.cut {
                continue;
            }
            match line(&text.bytes) {
                Line::Status(status) => on_status(status),
                Line::Other => {}
                _ => {
                    watch.take(&text.bytes);
                }
            }
        }
        let ended = running.finish().await;
        let heard = watch.heard();
        match ended {
            Ok(output) => Ok(Ended {
                exit: output.exit,
                heard,
                words: output.stderr.text().into_owned(),
                said_more: output.stderr.whole().is_none(),
                cut_short: false,
                dead_stays: false,
            }),
            // It had said that it was done before it heard that it should stop.
            Err(ExecError::Cancelled { stderr, .. })
                if heard.summary.is_some() && heard.last_words.is_none() =>
            {
                Ok(Ended {
                    exit: if heard.count == 0 {
                        Exit::Code(0)
                    } else {
                        Exit::Code(3)
                    },
                    heard,
                    words: stderr,
                    said_more: false,
                    cut_short: true,
                    dead_stays: false,
                })
            }
            Err(error) => match watch.refused() {
                Some(words) => Ok(Ended {
                    exit: Exit::Code(1),
                    heard,
                    words,
                    said_more: false,
                    cut_short: false,
                    dead_stays: false,
                }),
                None => Err(failed_to_run(&error)),
            },
        }
    }
}

/// Hears what a call says while it runs, and ends it where it would ask again for nothing.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    heard: Arc<Mutex<Heard>>,
    redactor: Redactor,
    /// Also when the run is cancelled.
    pub(super) stop: CancellationToken,
    run: CancellationToken,
}

impl Watch {
    pub(super) fn over(cancel: &CancellationToken, command: &Command) -> Self {
        Self {
            heard: Arc::default(),
            redactor: command.redactor(),
            stop: cancel.child_token(),
            run: cancel.clone(),
        }
    }

    /// Of a call that says nothing when its work is done.
    pub(super) fn ends_silently(self, silently: bool) -> Self {
        self.lock().ends_silently = silently;
        self
    }

    pub(super) fn listener(&self) -> Listener {
        let this = self.clone();
        Listener::new(move |bytes| this.take(bytes))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, bytes: &[u8]) -> bool {
        let mut heard = self.lock();
        let taken = heard.take(bytes, &self.redactor);
        if heard.refusal.is_some() {
            self.stop.cancel();
        }
        taken
    }

    fn heard(&self) -> Heard {
        self.lock().clone()
    }

    /// Why it was ended, where that was not because the run is cancelled.
    fn refused(&self) -> Option<String> {
        self.lock().refusal.clone().filter(|_| !self.run.is_cancelled())
    }
}

fn locked(ended: &Ended, location: &str) -> Option<LockHolder> {
    if ended.exit.success() {
        return None;
    }
    match error::of(ended.exit, &ended.all_words(), location) {
        EngineError::Locked { holder } => Some(holder),
        _ => None,
    }
}

fn failed_to_run(error: &ExecError) -> EngineError {
    let died = |exit: &str, stderr: &str| EngineError::ToolDied {
        exit: exit.to_owned(),
        detail: crate::words::plain(stderr),
    };
    match error {
        ExecError::Cancelled { .. } => EngineError::Cancelled,
        ExecError::NotInstalled { .. } => EngineError::ToolMissing {
            detail: error.to_string(),
        },
        ExecError::WorkingDirectory { path, source } => EngineError::Source {
            path: path.display().to_string(),
            detail: source.to_string(),
        },
        ExecError::TimedOut { stderr, .. } => died("its time was up", stderr),
        ExecError::Unkillable { .. } => died("it hangs in the kernel", &error.to_string()),
        _ => EngineError::Tool {
            exit: "no exit".to_owned(),
            detail: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use reseed_core::clock::SystemClock;
    use reseed_core::exec::SystemRunner;

    use super::super::{Location, RestPlace, Restic};
    use super::Version;
    use crate::PasswordFrom;
    use crate::secret::Password;

    fn command(location: Location, version: &str) -> reseed_core::exec::Command {
        let restic = Restic::new(
            "offsite".parse().unwrap(),
            location,
            PasswordFrom::Given(Password::new("secret")),
            "/var/lib/driver",
            Arc::new(SystemRunner::new()),
            Arc::new(SystemClock::new()),
        );
        let version = Version::of_output(&format!("restic {version} compiled with go")).unwrap();
        restic.command(version, vec!["snapshots".into()]).unwrap()
    }

    /// Each snapshot of ZFS is another device: all directories would look changed.
    #[test]
    fn devices_tell_hard_links_only_where_restic_can_be_told_so() {
        for (version, wanted) in [
            ("0.14.0", None),
            ("0.16.4", None),
            ("0.17.0", Some("device-id-for-hardlinks")),
            ("0.18.1", Some("device-id-for-hardlinks")),
            ("0.19.0", None),
        ] {
            let command = command(Location::Local("/repo".into()), version);
            let told = command.variable("RESTIC_FEATURES");
            let told = told.as_ref().and_then(|text| text.to_str());
            assert_eq!(told, wanted, "{version}");
        }
    }

    /// With neither, 0.19 fails where there is no home directory, and others have theirs in it.
    #[test]
    fn there_is_a_cache_of_our_own_or_none() {
        let served = Location::Rest(RestPlace {
            url: "http://localhost:1/".into(),
            login: None,
            allow_http: true,
        });
        for (location, wanted) in [
            (Location::Local("/repo".into()), "--no-cache"),
            (served, "--cache-dir=/var/lib/driver/cache"),
        ] {
            let command = command(location, "0.18.0");
            assert!(
                command
                    .arguments()
                    .iter()
                    .any(|word| word.as_os_str() == Path::new(wanted)),
                "{command}"
            );
        }
    }
}
