//! The same work on several threads.

use crate::error::{Result, panicked};

/// As many threads as make sense for work that computes as much as it reads.
pub(crate) fn sensible() -> usize {
    std::thread::available_parallelism()
        .map_or(2, std::num::NonZeroUsize::get)
        .clamp(2, 4)
}

/// As many as make sense for reading what is far away: most of them wait. As many connections as restic has, and some more.
pub(crate) const REMOTE: usize = 8;

/// Runs it on so many threads, which share out what there is to do themselves, and answers what each returned. The first error
/// counts, and a panic is one.
pub(crate) fn each<T: Send>(
    threads: usize,
    during: &str,
    work: impl Fn() -> Result<T> + Sync,
) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
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
