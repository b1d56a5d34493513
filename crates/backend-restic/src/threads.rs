//! The same work on several threads.

use crate::error::{Result, panicked};

/// As many as run at the same time on this machine.
pub(crate) fn available() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get)
}

/// As many threads as make sense for work that computes as much as it reads.
pub(crate) fn sensible() -> usize {
    available().clamp(2, 4)
}

/// As many as make sense for reading what is far away: most of them wait. As many connections as restic has, and some more.
pub(crate) const REMOTE: usize = 8;

/// Runs it on so many threads, which share out what there is to do themselves, and answers what each returned. The first error
/// counts, and a panic is one. Where no more threads can be had, fewer do it.
pub(crate) fn each<T: Send>(
    threads: usize,
    during: &str,
    work: impl Fn() -> Result<T> + Sync,
) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let start = |_| std::thread::Builder::new().spawn_scoped(scope, &work).ok();
        let started: Vec<_> = (0..threads).map_while(start).collect();
        if started.is_empty() {
            return Ok(vec![work()?]);
        }
        let ended: Vec<Result<T>> = started
            .into_iter()
            .map(|thread| {
                let ended = thread.join();
                ended.unwrap_or_else(|payload| Err(panicked(during, payload.as_ref())))
            })
            .collect();
        ended.into_iter().collect()
    })
}
