//! `reseed`: parses the command line, wires the configuration to backends, runs one operation of the core, and shows
//! what it answers. A command decides nothing.

mod args;
mod cmd;
mod exit;
mod output;
mod session;
mod ui;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use tokio_util::sync::CancellationToken;

use crate::args::{Cli, Cmd};
use crate::exit::Exit;
use crate::output::Answer;
use crate::ui::Ui;

/// Every command that opens a repository derives a key.
#[global_allocator]
static ALLOCATOR: reseed_backend_restic::HugePages = reseed_backend_restic::HugePages;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, Cmd::RestoreWorker) {
        return reseed_backend_restic::child::main();
    }
    reseed_backend_restic::secret::forbid_core_dumps();
    let ui = Ui::new(&cli);
    log();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("error: the runtime could not be started: {error}"));
            return ExitCode::from(Exit::Failed.code());
        }
    };
    let answer = runtime.block_on(async {
        let cancel = CancellationToken::new();
        let signals = tokio::spawn(on_signal(cancel.clone()));
        let answer = cmd::run(&cli, ui, cancel).await;
        signals.abort();
        answer
    });
    let code = show(&ui, &answer);
    // A disk that hangs must not keep the process when everything has been said.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    code
}

/// What the libraries say besides events goes to standard error: warnings, or what `RESEED_LOG` asks for (`debug`, `off`, …).
fn log() {
    let wanted = std::env::var("RESEED_LOG").unwrap_or_default();
    let level = wanted
        .parse()
        .unwrap_or(tracing_subscriber::filter::LevelFilter::WARN);
    // One was installed already only where this is not the program.
    let _ = tracing_subscriber::fmt()
        .compact()
        .with_writer(std::io::stderr)
        .with_max_level(level)
        .with_ansi(false)
        .without_time()
        .try_init();
}

/// Cancels the run at the first SIGINT or SIGTERM, or at SIGHUP: a connection that drops must not leave behind what it began, unsupervised and
/// without its lock. It then ends by itself: children are reaped, locks released, staging stays
/// resumable. A third signal ends a run that hangs at once; SIGHUP counts as the first only.
async fn on_signal(cancel: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    // Under `nohup` it is to go on.
    let mut hangup = if ignores_hangup() {
        None
    } else {
        signal(SignalKind::hangup()).ok()
    };
    let mut asked = 0;
    loop {
        let hung_up = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        let by_hand = tokio::select! {
            _ = term.recv() => true,
            _ = int.recv() => true,
            _ = hung_up => false,
        };
        cancel.cancel();
        // A connection that drops may say so more than once, and nobody is in a hurry there.
        if !by_hand && asked > 0 {
            continue;
        }
        asked += 1;
        match asked {
            1 => complain("ending the run; what is staged is kept for the next one"),
            2 => complain("still ending; once more ends it at once"),
            _ => std::process::exit(i32::from(Exit::Interrupted.code())),
        }
    }
}

/// Whether whoever started this had SIGHUP ignored (proc(5), `SigIgn`: a mask, the first signal in its lowest bit).
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}

/// One line to standard error. That it can't be written is no reason to stop.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

fn show(ui: &Ui, answer: &Answer) -> ExitCode {
    let mut out = std::io::stdout().lock();
    let written = if ui.json {
        serde_json::to_writer_pretty(&mut out, &answer.json)
            .map_err(std::io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        out.write_all(answer.text.as_bytes())
    };
    match written.and_then(|()| out.flush()) {
        Ok(()) => {}
        // Whoever reads has enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        Err(error) => {
            complain(&format!("error: the result could not be written: {error}"));
            return ExitCode::from(Exit::Failed.code().max(answer.exit.code()));
        }
    }
    ExitCode::from(answer.exit.code())
}
