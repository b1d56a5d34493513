//! Talking with a running child, line by line both ways: a worker that speaks JSON lines, or a
//! tool that reports progress. It promises that a caller who listens slowly, or not at all, never
//! makes the child lose its output to SIGPIPE, and that dropping the conversation ends the child.

use std::fmt;
use std::io;
use std::pin::Pin;

use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use super::{ExecError, Output};

/// One line of a child's standard output, without its newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The line was longer than 1 MiB; only its beginning is here.
    pub cut: bool,
}

type Done = Pin<Box<dyn Future<Output = Result<Output, ExecError>> + Send>>;

/// A running child to talk with.
pub struct Streaming {
    lines: mpsc::Receiver<Line>,
    input: Option<mpsc::Sender<Vec<u8>>>,
    done: Done,
    guard: Option<DropGuard>,
}

impl fmt::Debug for Streaming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streaming")
            .field("input_open", &self.input.is_some())
            .finish_non_exhaustive()
    }
}

impl Streaming {
    /// A conversation made of its parts; for fakes. `done` must become ready once the other ends
    /// of the channels are dropped.
    pub fn from_parts(
        lines: mpsc::Receiver<Line>,
        input: Option<mpsc::Sender<Vec<u8>>>,
        done: impl Future<Output = Result<Output, ExecError>> + Send + 'static,
    ) -> Self {
        Self {
            lines,
            input,
            done: Box::pin(done),
            guard: None,
        }
    }

    pub(super) fn guarded(mut self, guard: DropGuard) -> Self {
        self.guard = Some(guard);
        self
    }

    /// The next line, or `None` when the child has closed its output.
    pub async fn next_line(&mut self) -> Option<Line> {
        self.lines.recv().await
    }

    /// Writes one line. `BrokenPipe` when the child no longer reads (or has no piped input);
    /// [`finish`](Self::finish) then says why.
    pub async fn send_line(&mut self, line: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(line.len() + 1);
        bytes.extend_from_slice(line);
        bytes.push(b'\n');
        match &self.input {
            Some(input) => input
                .send(bytes)
                .await
                .map_err(|_| io::ErrorKind::BrokenPipe.into()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Closes the child's input, which for most workers means: finish.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Closes the input, drops the lines that still come, and waits for the end.
    pub async fn finish(mut self) -> Result<Output, ExecError> {
        self.input = None;
        loop {
            tokio::select! {
                biased;
                output = &mut self.done => return output,
                Some(_) = self.lines.recv() => {}
            }
        }
    }
}
