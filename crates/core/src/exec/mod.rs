//! Running other programs: the only place in reseed that starts a process. A [`Command`] is built
//! from an argument vector, never from a shell's line; a [`Runner`] runs it. It knows nothing about
//! what the programs do, and judges no exit code.
//!
//! # Contract of a runner
//! 1. **No shell.** Arguments reach the program byte for byte. [`quote_for_ssh`] is for the shell at
//!    the other end of an ssh connection, the one that can't be avoided.
//! 2. **A known environment.** Only [`PASSED_THROUGH`] and what the command sets, with `LC_ALL=C`.
//! 3. **Secrets** reach the child by its environment or by a sealed memfd only that child inherits.
//!    They are `***` in what a command prints as and in captured standard error.
//! 4. **Bounded.** Both outputs are read to their end whatever their length; the two ends of each
//!    are kept, the rest is counted. A cut output never looks whole.
//! 5. **Kill and reap.** Each pipe is a process group. Cancellation, the time limit, and dropping
//!    the future send SIGTERM to the group, after a grace SIGKILL, and wait for every child. `run`
//!    and `pipe` answer only after that; after a drop [`SystemRunner::settled`] waits for it.
//! 6. **Nothing is lost in a pipe.** Stages are connected by the kernel, without copying through
//!    us; every stage's exit and words are in the answer.
//! 7. **Exit code, signal, not installed, timed out, interrupted** are told apart.
//! 8. **Heard, not lost.** A [`Listener`] hears each whole line of a command's standard error while it runs; what it doesn't
//!    take is kept as if nobody had listened.
//!
//! A child runs in a background process group: one that asks for a password on the terminal is
//! stopped by the kernel until its time limit. Callers switch prompts off (`ssh -o BatchMode=yes`).

mod command;
mod error;
mod heard;
mod output;
mod quote;
mod secret;
mod spawn;
mod stream;
mod supervise;
mod system;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

pub use command::{Command, Keep, PASSED_THROUGH, Stdin};
pub use error::ExecError;
pub use heard::Listener;
pub use output::{Captured, Exit, Output, PipeOutput, Stage};
pub use quote::{is_plain_word, quote_for_ssh};
pub use secret::{REDACTED, Redactor, Secret};
pub use stream::{Line, Streaming};
pub use system::SystemRunner;

/// Runs commands. See the [module's contract](self).
#[async_trait]
pub trait Runner: Send + Sync + std::fmt::Debug {
    /// Runs one command to its end. Any exit code is `Ok`;
    /// [`Output::require_success`] is for those who accept only 0.
    async fn run(&self, command: &Command, cancel: &CancellationToken) -> Result<Output, ExecError>;

    /// Runs commands connected output to input, and waits for all of them.
    async fn pipe(&self, stages: &[Command], cancel: &CancellationToken) -> Result<PipeOutput, ExecError>;

    /// Starts a command to talk with line by line. Dropping the [`Streaming`] ends the command.
    async fn stream(&self, command: &Command, cancel: &CancellationToken) -> Result<Streaming, ExecError>;
}
