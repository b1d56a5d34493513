//! Watching over a started pipe until everything about it is over. It promises that whatever
//! happens (end, time limit, cancellation, a left-behind process that holds an output open) all
//! outputs are read to their end and every child is waited for. It knows nothing about what ran.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::heard::Sieve;
use super::output::Captured;
use super::spawn::Group;
use super::stream::Line;
use crate::clock::Clock;

/// How long after SIGKILL a process may take to be gone before it counts as stuck in the kernel.
const KILL_WAIT: Duration = Duration::from_secs(10);
/// How long outputs may stay open after the whole group was killed: only a process that has left
/// the group can still hold them, and it is not ours to kill.
const AFTER_KILL: Duration = Duration::from_millis(500);
/// The longest line handed to a caller in one piece.
const LONGEST_LINE: usize = 1024 * 1024;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// By itself, with all outputs closed.
    Done,
    /// By itself, but somebody held an output open.
    HeldOpen,
    /// We ended it: the time limit.
    TimedOut,
    /// We ended it: cancellation.
    Cancelled,
    /// SIGKILL did not end it.
    Unkillable,
}

/// The time limits of one run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) time_limit: Option<Duration>,
    /// From SIGTERM to SIGKILL.
    pub(super) grace: Duration,
    /// How long outputs may stay open and silent after the last process ended.
    pub(super) linger: Duration,
}

/// An output while it is being read.
pub(super) type Sink = Arc<Mutex<Captured>>;

/// The tasks that read outputs and write the input of one run.
#[derive(Debug, Default)]
pub(super) struct Plumbing {
    readers: JoinSet<()>,
    writers: JoinSet<()>,
    /// Rises with every read and while a reader waits for its consumer.
    progress: Arc<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    reads: AtomicU64,
    waiting_for_consumer: AtomicU64,
}

impl Plumbing {
    /// Reads `from` to its end into `sink`.
    pub(super) fn capture(&mut self, from: impl AsyncRead + Send + Unpin + 'static, sink: Sink) {
        let progress = Arc::clone(&self.progress);
        self.readers.spawn(read_all(from, sink, None, progress));
    }

    /// Reads `from` to its end; what its listener doesn't take goes into `sink`.
    pub(super) fn sieve(
        &mut self,
        mut from: impl AsyncRead + Send + Unpin + 'static,
        sink: Sink,
        mut sieve: Sieve,
    ) {
        let progress = Arc::clone(&self.progress);
        self.readers.spawn(async move {
            let mut buffer = vec![0_u8; 16 * 1024];
            while let Some(read) = read_some(&mut from, &mut buffer, &progress).await {
                let kept = sieve.push(&buffer[..read]);
                push(&sink, &kept);
            }
            push(&sink, &sieve.finish());
        });
    }

    /// Reads `from` to its end and sends it on line by line; `sink` only counts. When nobody
    /// listens any more it goes on reading: restic leaves a lock behind when it gets SIGPIPE.
    pub(super) fn lines(
        &mut self,
        from: impl AsyncRead + Send + Unpin + 'static,
        sink: Sink,
        lines: mpsc::Sender<Line>,
    ) {
        let progress = Arc::clone(&self.progress);
        self.readers.spawn(read_all(from, sink, Some(lines), progress));
    }

    /// Writes everything that comes, then closes.
    pub(super) fn feed(
        &mut self,
        mut to: impl AsyncWrite + Send + Unpin + 'static,
        mut from: mpsc::Receiver<Vec<u8>>,
    ) {
        self.writers.spawn(async move {
            while let Some(bytes) = from.recv().await {
                // A child need not read its input; how it ends says what that means.
                if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
                    return;
                }
            }
        });
    }

    async fn drained(&mut self) {
        while self.readers.join_next().await.is_some() {}
    }
}

async fn read_all(
    mut from: impl AsyncRead + Unpin,
    sink: Sink,
    mut lines: Option<mpsc::Sender<Line>>,
    progress: Arc<Progress>,
) {
    let mut buffer = vec![0_u8; 64 * 1024];
    let mut splitter = LineSplitter::default();
    while let Some(read) = read_some(&mut from, &mut buffer, &progress).await {
        push(&sink, &buffer[..read]);
        if let Some(to) = &lines {
            let mut gone = false;
            for line in splitter.push(&buffer[..read]) {
                gone = gone || !deliver(to, line, &progress).await;
            }
            if gone {
                lines = None;
            }
        }
    }
    if let (Some(to), Some(line)) = (&lines, splitter.finish()) {
        deliver(to, line, &progress).await;
    }
}

/// The next bytes; none at the end.
async fn read_some(
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut [u8],
    progress: &Progress,
) -> Option<usize> {
    loop {
        match from.read(buffer).await {
            Ok(0) => return None,
            Ok(read) => {
                progress.reads.fetch_add(1, Ordering::Relaxed);
                return Some(read);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

fn push(sink: &Sink, bytes: &[u8]) {
    sink.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
}

/// Whether somebody took the line.
async fn deliver(to: &mpsc::Sender<Line>, line: Line, progress: &Progress) -> bool {
    progress.waiting_for_consumer.fetch_add(1, Ordering::Relaxed);
    let taken = to.send(line).await.is_ok();
    progress.waiting_for_consumer.fetch_sub(1, Ordering::Relaxed);
    taken
}

#[derive(Debug, Default)]
struct LineSplitter {
    rest: Vec<u8>,
    /// The current line was too long; what follows of it is dropped.
    cut: bool,
}

impl LineSplitter {
    fn push(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            let room = LONGEST_LINE.saturating_sub(self.rest.len()).min(text.len());
            self.rest.extend_from_slice(&text[..room]);
            self.cut |= room < text.len();
            if ended {
                lines.push(Line {
                    bytes: std::mem::take(&mut self.rest),
                    cut: std::mem::take(&mut self.cut),
                });
            }
        }
        lines
    }

    fn finish(self) -> Option<Line> {
        (!self.rest.is_empty()).then_some(Line {
            bytes: self.rest,
            cut: self.cut,
        })
    }
}

/// Waits for the end of everything, or brings it about. Afterwards every member has ended, except
/// after [`Ending::Unkillable`], and can be reaped.
pub(super) async fn supervise(
    group: &Group,
    plumbing: &mut Plumbing,
    clock: &dyn Clock,
    limits: Limits,
    cancel: &CancellationToken,
) -> io::Result<Ending> {
    let ending = tokio::select! {
        // What is done is done, also when the cancellation comes at the same moment.
        biased;
        ending = natural_end(group, plumbing, clock, limits.linger) => ending?,
        () = cancel.cancelled() => Ending::Cancelled,
        () = sleep_opt(clock, limits.time_limit) => Ending::TimedOut,
    };
    let ending = match ending {
        Ending::Done => ending,
        _ => stop(group, plumbing, clock, limits, ending).await?,
    };
    plumbing.readers.abort_all();
    plumbing.writers.abort_all();
    Ok(ending)
}

async fn natural_end(
    group: &Group,
    plumbing: &mut Plumbing,
    clock: &dyn Clock,
    linger: Duration,
) -> io::Result<Ending> {
    let progress = Arc::clone(&plumbing.progress);
    tokio::select! {
        biased;
        ended = async { let ((), ended) = tokio::join!(plumbing.drained(), group.all_ended()); ended } => {
            ended.map(|()| Ending::Done)
        }
        held = async {
            group.all_ended().await?;
            // Silence counts, not time: what is still in the pipe, or waits for a slow consumer
            // of lines, is not held open by anybody.
            let mut seen = progress.reads.load(Ordering::Relaxed);
            loop {
                clock.sleep(linger).await;
                let now = progress.reads.load(Ordering::Relaxed);
                if now == seen && progress.waiting_for_consumer.load(Ordering::Relaxed) == 0 {
                    return Ok(Ending::HeldOpen);
                }
                seen = now;
            }
        } => held,
    }
}

/// SIGTERM, grace, SIGKILL, to the whole group.
async fn stop(
    group: &Group,
    plumbing: &mut Plumbing,
    clock: &dyn Clock,
    limits: Limits,
    why: Ending,
) -> io::Result<Ending> {
    group.signal(Signal::TERM);
    // A stopped process (one that wanted to ask something on the terminal) acts on SIGTERM only
    // once it runs again.
    group.signal(Signal::CONT);
    // Once the children are gone, a left-behind process that holds an output gets the linger only.
    if let Some(ended) = within(
        clock,
        limits.grace,
        natural_end(group, plumbing, clock, limits.linger),
    )
    .await
    {
        ended?;
    }
    // Also after a clean end: a grandchild may have closed its outputs and ignored SIGTERM.
    group.signal(Signal::KILL);
    match within(clock, KILL_WAIT, group.all_ended()).await {
        Some(ended) => ended?,
        None => return Ok(Ending::Unkillable),
    }
    let _ = within(clock, AFTER_KILL, plumbing.drained()).await;
    Ok(why)
}

async fn within<T>(clock: &dyn Clock, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        value = future => Some(value),
        () = clock.sleep(limit) => None,
    }
}

async fn sleep_opt(clock: &dyn Clock, limit: Option<Duration>) {
    match limit {
        Some(limit) => clock.sleep(limit).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_wherever_the_reads_were() {
        let text = b"one\n\ntwo and\nthree";
        for size in 1..text.len() {
            let mut splitter = LineSplitter::default();
            let mut lines: Vec<Vec<u8>> = text
                .chunks(size)
                .flat_map(|c| splitter.push(c))
                .map(|line| line.bytes)
                .collect();
            lines.extend(splitter.finish().map(|line| line.bytes));
            assert_eq!(lines, [&b"one"[..], b"", b"two and", b"three"]);
        }
    }

    #[test]
    fn a_line_without_end_is_cut_and_says_so() {
        let mut splitter = LineSplitter::default();
        for _ in 0..3 {
            assert!(splitter.push(&vec![b'x'; LONGEST_LINE / 2]).is_empty());
        }
        let lines = splitter.push(b"\nnext\n");
        assert_eq!((lines[0].bytes.len(), lines[0].cut), (LONGEST_LINE, true));
        assert_eq!((lines[1].bytes.as_slice(), lines[1].cut), (&b"next"[..], false));
    }
}
