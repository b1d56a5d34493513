//! `cargo xtask`: what a contributor does twice, written down so that it runs the same everywhere.
//!
//! It sets up the test tiers and runs them, runs lints, the simulator and the benchmarks, and generates documents from
//! the sources. It knows cargo, Debian's packages and the names of the workspace's crates, and nothing of what reseed does.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command for people at a terminal"
)]

mod apt;
mod bench;
mod contracts;
mod lint;
mod newer_restic;
mod setup;
mod sh;
mod sim;
mod tests_run;
mod tiers;
mod vm;
mod vm_setup;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What a task ends with: whether all was well, or why it could not be done.
type Done = Result<bool, Box<dyn std::error::Error>>;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Set up what the test tiers need, run them, and sum up in one line per tier.
    Test {
        /// Only this tier.
        #[arg(long, value_enum)]
        tier: Option<tiers::Tier>,
        /// Install what is missing without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Run tests in a virtual machine with real OpenZFS, or a command, or a shell.
    Vm(vm::Args),
    /// Run the simulator in release mode.
    Sim(sim::Args),
    /// Reproduce the figures of docs/benchmarks.md; fails when one falls short of its goal.
    Bench(bench::Args),
    /// Formatting, lints, documentation, dependencies, generated documents.
    Lint {
        /// Install what is missing without asking.
        #[arg(long)]
        yes: bool,
    },
    /// What CI does: `lint`, then `test`.
    Ci {
        /// Install what is missing without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Generate docs/contracts.md from the numbered clauses in the core's module documentation.
    Docs {
        /// Only tell whether it is current.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Test { tier, yes } => tiers::run(tier, yes),
        Task::Vm(args) => vm::run(&args),
        Task::Sim(args) => sim::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Lint { yes } => lint::run(yes),
        Task::Ci { yes } => ci(yes),
        Task::Docs { check: false } => contracts::write(),
        Task::Docs { check: true } => contracts::check(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs the tests also when a lint failed: whoever reads the result wants to know both.
fn ci(yes: bool) -> Done {
    let lints = lint::run(yes)?;
    let tests = tiers::run(None, yes)?;
    if !lints {
        eprintln!("error: a lint failed, see above");
    }
    Ok(lints && tests)
}
