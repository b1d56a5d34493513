//! A stream that stands still: both ends of its pipe may wait for ever for a disk that hangs, and no connection breaks.
//!
//! What counts is what `zfs send` says of itself every second ([`progress`](super::progress)): as long as it says more than before, however little,
//! the stream is healthy. Where nothing has moved for as long as one waits, the pools are looked at. One that can't be worked with ends it. Where
//! they work, what arrived may take long to be done (a great deal to free, the last of a stream), so it is waited longer. What has
//! arrived stays, and the next run goes on from there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reseed_core::Context;
use reseed_core::clock::{Clock as _, SystemClock};
use reseed_core::exec::ExecError;
use reseed_core::names::DatasetName;

use super::list;
use super::pools::Pool;
use super::tool::Tool;

/// How long nothing may move.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// So many times as long where the pools work.
const WHERE_THEY_WORK: u32 = 4;
/// How often it is looked, in that time.
const LOOKS: u32 = 15;

/// So many times in a row a pool may not be asked.
const UNASKED: u32 = 3;

/// Why a stream didn't come to an end by itself.
#[derive(Debug)]
pub(crate) enum Broken {
    /// It couldn't be run, or was cancelled.
    Exec(ExecError),
    /// It was ended, because it stood still.
    Stalled(Stalled),
}

impl From<ExecError> for Broken {
    fn from(error: ExecError) -> Self {
        Self::Exec(error)
    }
}

/// A stream that stood still.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stalled {
    /// For how long.
    pub(crate) time: Duration,
    /// What is wrong with a pool, if so.
    pub(crate) pool: Option<String>,
}

/// Counts what has moved.
#[derive(Debug, Default)]
pub(crate) struct Moves(AtomicU64);

impl Moves {
    pub(crate) fn note(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Ends when a stream between these datasets stands still.
pub(crate) async fn stalled(
    cx: &Context,
    moves: &Moves,
    patience: Duration,
    ends: [(&Tool, &DatasetName); 2],
) -> Stalled {
    let clock = SystemClock::new();
    let (mut seen, mut since) = (moves.count(), clock.monotonic());
    let mut unasked = 0;
    loop {
        clock.sleep(patience / LOOKS).await;
        let now = moves.count();
        if now != seen {
            (seen, since) = (now, clock.monotonic());
            continue;
        }
        let time = clock.monotonic().saturating_sub(since);
        if time < patience {
            continue;
        }
        let mut unknown = None;
        for (tool, dataset) in ends {
            let pool = match list::pool(tool, cx, dataset.pool()).await {
                Pool::Usable => None,
                Pool::Unavailable(why) => Some(why),
                Pool::Unknown(why) => {
                    unknown.get_or_insert(why);
                    None
                }
            };
            if pool.is_some() {
                return Stalled { time, pool };
            }
        }
        // Who doesn't answer once may only be busy.
        unasked = if unknown.is_some() { unasked + 1 } else { 0 };
        if unasked >= UNASKED {
            return Stalled { time, pool: unknown };
        }
        if time >= patience * WHERE_THEY_WORK {
            return Stalled { time, pool: None };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use reseed_core::error::{Effect, ReplicateKind, Retry};
    use reseed_core::exec::{Command, Exit, Output, PipeOutput, Runner, Streaming};
    use reseed_core::names::RunId;
    use tokio_util::sync::CancellationToken;

    use super::super::argv::tests::ds;
    use super::super::error;
    use super::super::location::Location;
    use super::super::tool::Stream;
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A stream that says something every minute, and pools that are as they are.
    #[derive(Debug)]
    struct Fake {
        /// What is said, minute by minute; the last of it over and over.
        says: Vec<&'static str>,
        /// After so many minutes it ends well.
        ends: usize,
        health: &'static str,
        /// So many times the pools can't be asked.
        refuses: AtomicU64,
    }

    #[async_trait]
    impl Runner for Fake {
        async fn run(&self, command: &Command, _: &CancellationToken) -> Result<Output, ExecError> {
            let refuse = |left: u64| left.checked_sub(1);
            if self
                .refuses
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, refuse)
                .is_ok()
            {
                return Ok(Output::fake(
                    command,
                    Exit::Code(255),
                    "",
                    "kex_exchange_identification",
                ));
            }
            let listed = format!("tank\tONLINE\nback\t{}\n", self.health);
            Ok(Output::fake(command, Exit::Code(0), listed, ""))
        }
        async fn pipe(
            &self,
            stages: &[Command],
            cancel: &CancellationToken,
        ) -> Result<PipeOutput, ExecError> {
            let clock = SystemClock::new();
            for minute in 0..self.ends {
                let line = self.says.get(minute).or(self.says.last()).unwrap();
                stages[0].listener().unwrap().hears(line.as_bytes());
                tokio::select! {
                    () = clock.sleep(MINUTE) => {}
                    () = cancel.cancelled() => {
                        return Err(ExecError::Cancelled { command: stages[0].to_string(), stderr: String::new() });
                    }
                }
            }
            Ok(PipeOutput {
                stages: Vec::new(),
                stdout: reseed_core::exec::Captured::from_whole(""),
                elapsed: MINUTE,
                held_open: false,
            })
        }
        async fn stream(&self, _: &Command, _: &CancellationToken) -> Result<Streaming, ExecError> {
            unreachable!("nothing is streamed")
        }
    }

    /// After how many minutes it ended, and how.
    fn sent(fake: Fake, cancelled: bool) -> (u64, Result<PipeOutput, Broken>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let runner: Arc<dyn Runner> = Arc::new(fake);
            // Another host's pools are asked for by the tool.
            let there = Location::Ssh(super::super::location::Ssh::new("nas", "/k").unwrap());
            let tool = Tool::new(runner, there);
            let cx = Context::silent(RunId::new("r-1").unwrap());
            let (of, into) = (ds("tank/a"), ds("back/a"));
            let stream = Stream {
                of: &of,
                from: &of,
                into: &into,
                limit: None,
            };
            let clock = SystemClock::new();
            if cancelled {
                cx.cancel.cancel();
            }
            let ended = tool.send(&cx, vec![], &tool, vec![], stream).await;
            (clock.monotonic().as_secs() / 60, ended)
        })
    }

    fn fake(says: &[&'static str], ends: usize, health: &'static str) -> Fake {
        Fake {
            says: says.to_vec(),
            ends,
            health,
            refuses: AtomicU64::new(0),
        }
    }

    const SAYS: [&str; 3] = ["full\ttank/a@s\t1000", "size\t1000", "20:33:01\t400\ttank/a@s"];

    #[test]
    fn a_stream_that_stands_still_is_ended_sooner_where_a_pool_hangs() {
        for (health, least, most) in [("SUSPENDED", 15, 18), ("ONLINE", 60, 64)] {
            let (minutes, ended) = sent(fake(&SAYS, 10_000, health), false);
            assert!((least..=most).contains(&minutes), "{health}: {minutes}");
            let Err(Broken::Stalled(stalled)) = &ended else {
                panic!("{ended:?}")
            };
            assert_eq!(stalled.pool.is_some(), health == "SUSPENDED");
            let error = error::piped::<ReplicateKind>(ended, "x", Effect::Partial).unwrap_err();
            let (kind, retry) = match health {
                "SUSPENDED" => (ReplicateKind::Unreachable, Some(Retry::AfterFix)),
                _ => (ReplicateKind::TimedOut, None),
            };
            assert_eq!(
                (error.kind(), error.may_have()),
                (kind, Effect::Partial),
                "{error}"
            );
            assert!(retry.is_none_or(|retry| error.should_retry() == retry), "{error}");
        }
    }

    #[test]
    fn who_does_not_answer_once_may_only_be_busy() {
        let refusing = |times| Fake {
            refuses: AtomicU64::new(times),
            ..fake(&SAYS, 55, "ONLINE")
        };
        // Both ends, at two looks.
        let (minutes, ended) = sent(refusing(4), false);
        assert!(ended.is_ok() && minutes == 55, "{minutes}: {ended:?}");
        let (minutes, ended) = sent(refusing(1000), false);
        let stalled = |ended| matches!(ended, Err(Broken::Stalled(Stalled { pool: Some(_), .. })));
        assert!((19..=21).contains(&minutes) && stalled(ended), "{minutes}");
    }

    #[test]
    fn a_slow_stream_is_left_alone() {
        // A little every 14 minutes, on a pool of which nothing good is known; and one that is done before the time is up.
        let mut slow = Vec::new();
        for bytes in ["1", "2", "3", "4", "5", "6", "7", "8"] {
            let line: &'static str = format!("20:33:01\t{bytes}\ttank/a@s").leak();
            slow.extend([line; 14]);
        }
        let (minutes, ended) = sent(fake(&slow, slow.len(), "SUSPENDED"), false);
        assert!(ended.is_ok() && minutes == 8 * 14, "{minutes}: {ended:?}");
        let (minutes, ended) = sent(fake(&SAYS, 55, "ONLINE"), false);
        assert!(ended.is_ok() && minutes == 55, "{minutes}: {ended:?}");
        // So is how far an estimate is.
        let estimating: Vec<&'static str> = (0..200_u32)
            .map(|at| -> &'static str { format!("20:33:01\t{at}\ttank/a@s").leak() })
            .collect();
        let (minutes, ended) = sent(fake(&estimating, 200, "ONLINE"), false);
        assert!(ended.is_ok() && minutes == 200, "{minutes}: {ended:?}");
    }

    #[test]
    fn a_run_that_is_cancelled_is_told_as_such() {
        let (minutes, ended) = sent(fake(&SAYS, 100, "SUSPENDED"), true);
        assert!(
            matches!(ended, Err(Broken::Exec(ExecError::Cancelled { .. }))),
            "{minutes}: {ended:?}"
        );
    }
}
