//! Crashing: a future that is dropped in its middle.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

/// The run was dropped where it stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crashed;

/// Polls a future at most so many times and drops it then.
///
/// # Errors
/// [`Crashed`] when it had not ended by then.
pub async fn crash_after<F: Future>(polls: usize, call: F) -> Result<F::Output, Crashed> {
    // Boxed, so that it is dropped before this returns and not when the caller's frame ends.
    let mut call = Some(Box::pin(call));
    let mut left = polls;
    std::future::poll_fn(|task| {
        if left == 0 {
            call = None;
        }
        let Some(running) = &mut call else {
            return Poll::Ready(Err(Crashed));
        };
        left -= 1;
        let poll = running.as_mut().poll(task).map(Ok);
        if left == 0 && poll.is_pending() {
            call = None;
            return Poll::Ready(Err(Crashed));
        }
        poll
    })
    .await
}

impl super::Faults {
    /// Drives a whole run, which is dropped when a [`Fault::Crash`](super::Fault::Crash) strikes anywhere in it.
    ///
    /// # Errors
    /// [`Crashed`] when it was.
    pub async fn or_crash<F: Future>(&self, run: F) -> Result<F::Output, Crashed> {
        // One that struck in a run which then ended in another way is not this run's.
        self.take_crash();
        let mut run = pin!(run);
        std::future::poll_fn(|task| match run.as_mut().poll(task) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending if self.take_crash() => Poll::Ready(Err(Crashed)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_dropped_after_exactly_so_many_polls() {
        let run = |polls| {
            crate::conformance::block_on(async {
                let mut steps = 0;
                let ended = crash_after(polls, async {
                    for _ in 0..3 {
                        steps += 1;
                        tokio::task::yield_now().await;
                    }
                })
                .await;
                (ended, steps)
            })
        };
        assert_eq!(run(0), (Err(Crashed), 0));
        assert_eq!(run(2), (Err(Crashed), 2));
        assert_eq!(run(4), (Ok(()), 3));
    }
}
