//! Running `zfs` and `zpool`: how long they may take, how much they may answer, what becomes of their failures. Knows
//! no request ([`argv`](super::argv)) and no answer ([`parse`](super::parse)).

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use reseed_core::Context;
use reseed_core::error::{Common, Effect, Error};
use reseed_core::exec::{Command, ExecError, Keep, Output, PipeOutput, Runner, Stdin};
use reseed_core::names::DatasetName;
use tokio_util::sync::CancellationToken;

use super::argv::{self, Args};
use super::error::{self, Fault, FromFault};
use super::location::Location;
use super::lzc::Lzc;
use super::parse::BadOutput;
use super::pools::{self, Pool};
use super::version::{self, Installed};
use super::watch::{self, Broken, Moves};
use super::{limit, progress};

/// How long a command that only asks may take. One that hangs (a suspended pool) is told as such.
pub(crate) const ASKING: Duration = Duration::from_secs(60);
/// How long a listing of many snapshots may take on pools that work: of a hundred thousand that are on slow disks and in no cache yet
/// it takes minutes.
const LISTING: Duration = Duration::from_secs(900);
/// How long a command that changes something may take: unmounting and renaming wait for a transaction group, and those
/// for a busy disk.
pub(crate) const CHANGING: Duration = Duration::from_secs(300);
/// The most that a listing may be: a million snapshots.
const MOST_OUTPUT: usize = 512 << 20;

/// What a stream is to whoever follows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream<'a> {
    /// Of which dataset it is.
    pub(crate) of: &'a DatasetName,
    /// From which one it comes, and into which one it goes.
    pub(crate) from: &'a DatasetName,
    pub(crate) into: &'a DatasetName,
    /// How many bytes a second it may have at the most.
    pub(crate) limit: Option<NonZeroU64>,
}

/// The tools on one machine.
#[derive(Debug, Clone)]
pub(crate) struct Tool {
    runner: Arc<dyn Runner>,
    location: Location,
    lzc: Option<Lzc>,
    /// How long nothing of a stream may move.
    patience: Duration,
}

impl Tool {
    pub(crate) fn new(runner: Arc<dyn Runner>, location: Location) -> Self {
        Self {
            runner,
            location,
            lzc: None,
            patience: watch::PATIENCE,
        }
    }

    /// The same, which gives up a stream of which nothing moves for so long.
    pub(crate) fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The same, with libzfs_core beside it.
    #[cfg(feature = "libzetta")]
    pub(crate) fn with(mut self, lzc: Lzc) -> Self {
        self.lzc = Some(lzc);
        self
    }

    /// libzfs_core, if it was given, and this is the machine that it works on.
    pub(crate) fn lzc(&self) -> Option<&Lzc> {
        self.lzc.as_ref().filter(|_| self.is_local())
    }

    /// The same runner, elsewhere.
    pub(crate) fn at(&self, location: Location) -> Self {
        Self {
            location,
            ..self.clone()
        }
    }

    /// Whether it works on this machine's pools.
    pub(crate) fn is_local(&self) -> bool {
        self.location.is_local()
    }

    /// How many names go into one command. Each has up to 255 bytes and is quoted; an argument list may be 2 MiB long, and what a shell
    /// elsewhere is given, which is a single argument, 128 KiB (Linux: `MAX_ARG_STRLEN`).
    pub(crate) fn names_at_once(&self) -> usize {
        if self.is_local() { 2000 } else { 400 }
    }

    fn command(&self, program: &str, args: Args) -> Result<Command, ExecError> {
        let hint = "install OpenZFS 2.1 or later (zfsutils-linux; on NixOS boot.supportedFilesystems.zfs)";
        Ok(self.location.command(program, args)?.install_hint(hint))
    }

    async fn run(&self, cancel: &CancellationToken, command: Command) -> Result<Output, ExecError> {
        self.runner.run(&command, cancel).await
    }

    /// Asks `zfs`. Any exit code is an answer.
    pub(crate) async fn ask(&self, cx: &Context, args: Args) -> Result<Output, ExecError> {
        self.ask_within(cx, args, ASKING).await
    }

    /// Asks `zfs` about all snapshots of datasets of these pools. It may take its time where the kernel says that they all work, and
    /// some of it on another machine, whose kernel isn't asked: otherwise it may hang.
    pub(crate) async fn ask_at_length<'a>(
        &self,
        cx: &Context,
        args: Args,
        mut pools: impl Iterator<Item = &'a str>,
    ) -> Result<Output, ExecError> {
        let limit = match self.is_local() {
            true if pools.all(|pool| pools::by_kernel(self, pool) == Some(Pool::Usable)) => LISTING,
            true => ASKING,
            false => CHANGING,
        };
        self.ask_within(cx, args, limit).await
    }

    async fn ask_within(&self, cx: &Context, args: Args, limit: Duration) -> Result<Output, ExecError> {
        let command = self
            .command("zfs", args)?
            .time_limit(limit)
            .keep_stdout(Keep::up_to(MOST_OUTPUT))
            .keep_stderr(Keep::up_to(MOST_OUTPUT / 16));
        self.run(&cx.cancel, command).await
    }

    /// Asks `zfs` for something that it must be able to tell, and reads the answer. `what` says what can't be done without.
    pub(crate) async fn read<K: FromFault, T>(
        &self,
        cx: &Context,
        args: Args,
        what: &str,
        parse: impl FnOnce(&[u8]) -> Result<T, BadOutput>,
    ) -> Result<T, Error<K>> {
        let output = error::succeeded::<K>(self.ask(cx, args).await, what, Effect::None)?;
        let stdout = output
            .whole_stdout()
            .map_err(|error| error.into_error(what, Effect::None))?;
        parse(stdout).map_err(|bad| not_understood(what, bad))
    }

    /// Asks `zpool`.
    pub(crate) async fn ask_pool(&self, cx: &Context, args: Args) -> Result<Output, ExecError> {
        let command = self.command("zpool", args)?.time_limit(ASKING);
        self.run(&cx.cancel, command).await
    }

    /// Changes something with `zfs`; it must exit with 0.
    pub(crate) async fn change<K: FromFault>(
        &self,
        cx: &Context,
        args: Args,
        what: impl Into<String>,
        effect: Effect,
    ) -> Result<Output, Error<K>> {
        let result = match self.command("zfs", args) {
            Ok(command) => self.run(&cx.cancel, command.time_limit(CHANGING)).await,
            Err(error) => Err(error),
        };
        error::succeeded(result, what, effect)
    }

    /// The same, with words for its standard input.
    pub(crate) async fn change_with<K: FromFault>(
        &self,
        cx: &Context,
        args: Args,
        input: &str,
        what: impl Into<String>,
        effect: Effect,
    ) -> Result<Output, Error<K>> {
        let result = match self.command("zfs", args) {
            Ok(command) => {
                let command = command.stdin(Stdin::Bytes(input.as_bytes().to_vec()));
                self.run(&cx.cancel, command.time_limit(CHANGING)).await
            }
            Err(error) => Err(error),
        };
        error::succeeded(result, what, effect)
    }

    /// Sends from here to `to`, the one's output being the other's input, as long as it takes, unless it stands still ([`watch`]); tells the
    /// run how far it is.
    pub(crate) async fn send(
        &self,
        cx: &Context,
        send: Args,
        to: &Self,
        receive: Args,
        stream: Stream<'_>,
    ) -> Result<PipeOutput, Broken> {
        let moves = Arc::new(Moves::default());
        let listener = progress::listener(cx, stream.of, Arc::clone(&moves));
        let mut stages = vec![self.command("zfs", send)?.heard_by(listener)];
        stages.extend(stream.limit.map(limit::command));
        stages.push(to.command("zfs", receive)?);
        let stop = cx.cancel.child_token();
        let mut pipe = std::pin::pin!(self.runner.pipe(&stages, &stop));
        let ends = [(self, stream.from), (to, stream.into)];
        let output = tokio::select! {
            output = &mut pipe => output?,
            stalled = watch::stalled(cx, &moves, self.patience, ends) => {
                stop.cancel();
                match pipe.await {
                    // It was done at that very moment.
                    Ok(output) if output.culprit().is_none() => output,
                    _ => return Err(Broken::Stalled(stalled)),
                }
            }
        };
        Ok(limit::without_the_innocent(output))
    }

    /// What runs the tools, and other programs of this machine.
    pub(crate) fn runner(&self) -> &dyn Runner {
        self.runner.as_ref()
    }

    /// Where it works.
    pub(crate) fn location(&self) -> &Location {
        &self.location
    }

    /// Runs a program of its own, here, as long as it takes. Any exit code is an answer.
    pub(crate) async fn run_here(&self, cx: &Context, command: Command) -> Result<Output, ExecError> {
        self.run(&cx.cancel, command).await
    }

    /// Like [`error::said`], and knows that 255 is ssh's own exit code.
    pub(crate) fn failed<K: FromFault>(&self, what: &str, output: &Output) -> Error<K> {
        let words = output.stderr.text();
        let fault = match error::classify(&words) {
            Fault::Other if !self.is_local() && output.exit.code() == Some(255) => Fault::Unreachable,
            fault => fault,
        };
        error::said(what, fault, &words, Effect::None)
    }

    /// What is installed.
    pub(crate) async fn version<K: FromFault>(&self, cx: &Context) -> Result<Installed, Error<K>> {
        let what = "can't tell the version of OpenZFS";
        let output = self.ask(cx, argv::version()).await;
        // Without the kernel module it exits with 1 after telling the tool's version.
        let output = output.map_err(|error| error.into_error(what, Effect::None))?;
        version::parse(&output.stdout.text())
            .ok_or_else(|| Error::new(K::from_common(Common::BadOutput), what).said(output.stdout.text()))
    }
}

/// An answer that could not be understood, as an error.
pub(crate) fn not_understood<K: FromFault>(what: impl Into<String>, bad: BadOutput) -> Error<K> {
    Error::new(K::from_common(Common::BadOutput), what)
        .said(bad)
        .hint("this is a version of OpenZFS that reseed doesn't know, or a bug in reseed")
}

/// Fails when the run was cancelled before anything was begun.
pub(crate) fn not_cancelled<K: FromFault>(cx: &Context) -> Result<(), Error<K>> {
    if cx.cancel.is_cancelled() {
        return Err(Error::new(
            K::from_common(Common::Cancelled),
            "the run was cancelled",
        ));
    }
    Ok(())
}
