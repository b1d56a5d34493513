//! What can go wrong with running a program, told apart as far as a caller would act differently.
//! Texts carry the tool's own words with secrets removed; they know nothing about what the tool
//! was for.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::Exit;
use crate::error::{Common, Effect, Error, Kind};

/// Why a command has no output to show, or (`Failed`) what a caller makes of an exit code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// There is no such program. Nothing ran.
    #[error("{program} is not installed (or not in PATH)")]
    NotInstalled {
        /// The program's name.
        program: String,
        /// What to do about it.
        hint: String,
    },
    /// The program is there but could not be started. Nothing ran, or only earlier stages of a
    /// pipe, which were killed.
    #[error("could not start `{command}`: {source}")]
    CannotStart {
        /// The command, as it prints.
        command: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The working directory is not there. Nothing ran.
    #[error("cannot run in {}: {source}", path.display())]
    WorkingDirectory {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A command that can't be built. Nothing ran.
    #[error("not a command that can be run: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// It took too long; it was ended and has been waited for.
    #[error("`{command}` did not end within {limit:?} and was stopped{}", said(stderr))]
    TimedOut {
        /// The command, as it prints.
        command: String,
        /// The limit.
        limit: Duration,
        /// What it had said until then.
        stderr: String,
    },
    /// The run was cancelled; every process was ended and has been waited for.
    #[error("`{command}` was interrupted{}", said(stderr))]
    Cancelled {
        /// The command, as it prints.
        command: String,
        /// What it had said until then.
        stderr: String,
    },
    /// It ended by itself, and the caller does not take that exit for success.
    #[error("`{command}` failed with {exit}{}", said(stderr))]
    Failed {
        /// The command, as it prints.
        command: String,
        /// How it ended.
        exit: Exit,
        /// What it said.
        stderr: String,
    },
    /// It wrote more than was kept, so its output can't be read.
    #[error("`{command}` wrote {total} bytes, more than are read")]
    TooMuchOutput {
        /// The command, as it prints.
        command: String,
        /// How much it wrote.
        total: u64,
    },
    /// Not even SIGKILL ended it: it hangs in the kernel (a dead disk or mount). It may still
    /// act; it will be waited for in the background.
    #[error("`{command}` hangs in the kernel and could not be killed")]
    Unkillable {
        /// The command, as it prints.
        command: String,
    },
    /// The system refused to tell how it ended.
    #[error("lost track of `{command}`: {source}")]
    LostTrack {
        /// The command, as it prints.
        command: String,
        /// The system's reason.
        source: io::Error,
    },
}

impl ExecError {
    /// What to do about it, where there is something to say.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::NotInstalled { hint, .. } => Some(hint),
            Self::Unkillable { .. } => {
                Some("look at `dmesg` and at the state of the pool, disk or mount it works on")
            }
            _ => None,
        }
    }

    /// This error in a trait's envelope. `what` is what failed in the field's terms; `effect` is what the command
    /// may have done if it ran. An exit code that means something to the caller is the caller's to map first.
    pub fn into_error<K: Kind>(self, what: impl Into<String>, effect: Effect) -> Error<K> {
        let kind = match &self {
            Self::NotInstalled { .. } => Common::ToolMissing,
            Self::CannotStart { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Common::PermissionDenied
            }
            Self::WorkingDirectory { .. } => Common::NotFound,
            Self::Invalid { .. } => Common::InvalidInput,
            Self::TimedOut { .. } | Self::Unkillable { .. } => Common::TimedOut,
            Self::Cancelled { .. } => Common::Cancelled,
            Self::TooMuchOutput { .. } => Common::BadOutput,
            Self::CannotStart { .. } | Self::Failed { .. } | Self::LostTrack { .. } => Common::Io,
        };
        let happened = if self.may_have_acted() {
            effect
        } else {
            Effect::None
        };
        let error = Error::new(K::from_common(kind), what)
            .effect(happened)
            .said(&self);
        match self.hint() {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    /// Whether a process was running, so that it may have changed something.
    pub fn may_have_acted(&self) -> bool {
        !matches!(
            self,
            Self::NotInstalled { .. }
                | Self::CannotStart { .. }
                | Self::WorkingDirectory { .. }
                | Self::Invalid { .. }
        )
    }
}

/// The last lines of what a tool said, behind a colon.
fn said(stderr: &str) -> String {
    const LINES: usize = 4;
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return String::new();
    }
    format!(": {}", lines[lines.len().saturating_sub(LINES)..].join(" / "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{StoreError, StoreKind};

    #[test]
    fn an_effect_needs_a_process() {
        let missing = ExecError::NotInstalled {
            program: "zfs".to_owned(),
            hint: "install zfs".to_owned(),
        };
        let error: StoreError = missing.into_error("cannot list snapshots", Effect::Unknown);
        assert_eq!(
            (error.kind(), error.may_have()),
            (StoreKind::ToolMissing, Effect::None)
        );
        assert_eq!(error.what_to_do(), Some("install zfs"));
        let cut = ExecError::Cancelled {
            command: "zfs recv".to_owned(),
            stderr: String::new(),
        };
        let error: StoreError = cut.into_error("cannot receive", Effect::StagingOnly);
        assert_eq!(
            (error.kind(), error.may_have()),
            (StoreKind::Cancelled, Effect::StagingOnly)
        );
    }

    #[test]
    fn only_the_last_words_are_in_the_sentence() {
        let error = ExecError::Failed {
            command: "x".to_owned(),
            exit: Exit::Code(1),
            stderr: "1\n2\n\n3\n4\n5".to_owned(),
        };
        assert_eq!(error.to_string(), "`x` failed with exit code 1: 2 / 3 / 4 / 5");
    }
}
