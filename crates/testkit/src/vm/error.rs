//! Why a machine didn't do what it was asked to, in a form that can stand alone in a test's output.

use std::fmt;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// Something is missing on the host, or qemu doesn't start.
    Setup,
    /// A command took longer than it may; it was killed, the machine lives.
    TimeLimit,
    /// The machine has ended or doesn't answer; it was killed, and is of no more use.
    Died,
    /// A command ended with something else than 0.
    Failed,
}

/// One sentence, what the command said, and the end of the machine's console.
#[derive(Debug, Clone)]
pub struct VmError {
    problem: Problem,
    sentence: String,
    output: String,
    console: String,
}

impl VmError {
    pub(crate) fn new(problem: Problem, sentence: impl Into<String>) -> Self {
        Self {
            problem,
            sentence: sentence.into(),
            output: String::new(),
            console: String::new(),
        }
    }

    pub(crate) fn setup(sentence: impl Into<String>) -> Self {
        Self::new(Problem::Setup, sentence)
    }

    pub(crate) fn with_output(mut self, output: impl Into<String>) -> Self {
        self.output = output.into();
        self
    }

    pub(crate) fn with_console(mut self, console: impl Into<String>) -> Self {
        self.console = console.into();
        self
    }

    /// Which kind of problem it is.
    pub fn problem(&self) -> Problem {
        self.problem
    }
}

impl fmt::Display for VmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)?;
        for (what, text) in [
            ("it said", &self.output),
            ("the console's last lines", &self.console),
        ] {
            if !text.trim().is_empty() {
                write!(f, "\n  {what}:")?;
                for line in text.trim_end().lines() {
                    write!(f, "\n    {line}")?;
                }
            }
        }
        Ok(())
    }
}

impl std::error::Error for VmError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_who_said_what_and_how_the_console_ended() {
        let error = VmError::new(Problem::TimeLimit, "`sleep 9` took longer than 1 s")
            .with_output("one\ntwo\n")
            .with_console("Kernel panic\n");
        assert_eq!(
            error.to_string(),
            "`sleep 9` took longer than 1 s\n  it said:\n    one\n    two\n  the console's last lines:\n    Kernel panic"
        );
        assert_eq!(VmError::setup("no kernel").to_string(), "no kernel");
    }
}
