//! Waiting for the asynchronous store from synchronous code.
//!
//! `rustic_core` and the restorer are synchronous, stores are not. The bridge may be used from any thread: outside
//! of tokio, on a blocking thread of a tokio runtime, or (at the price of blocking it) on a worker of one.
//! `Handle::block_on` would panic in the latter two, so it is not used.
//!
//! The local file system does its work on the calling thread, or hands it to the ambient runtime's blocking pool;
//! both make progress without the caller. A network store needs a reactor that runs while the caller is blocked, so
//! it gets a small runtime of its own. Waiting for it ends when the caller's work is cancelled.

use std::future::Future;
use std::io;
use std::sync::mpsc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::backup::Cancelled;

/// How soon a cancellation is noticed.
const LOOK: Duration = Duration::from_millis(50);

/// Runs futures to completion for blocking callers.
#[derive(Debug)]
pub(crate) enum Bridge {
    /// The store needs no reactor.
    Inline,
    /// The store's futures run on this runtime. `Some` until dropped.
    Own(Option<Runtime>),
}

impl Bridge {
    /// A bridge for stores that talk over the network.
    pub(crate) fn with_runtime() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("repository-io")
            .enable_all()
            .build()?;
        Ok(Self::Own(Some(runtime)))
    }

    /// Runs `future` and waits. An error means that the future panicked or, where it is `Interrupted`, that `cancelled` said
    /// so; the future is dropped then. What runs inline is not interrupted.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        cancelled: Option<&Cancelled>,
        future: impl Future<Output = T> + Send + 'static,
    ) -> io::Result<T> {
        match self {
            Self::Inline => Ok(futures::executor::block_on(future)),
            Self::Own(runtime) => {
                let runtime = runtime
                    .as_ref()
                    .ok_or_else(|| io::Error::other("the runtime has ended"))?;
                let (send, receive) = mpsc::sync_channel(1);
                let task = runtime.spawn(async move { drop(send.send(future.await)) });
                loop {
                    match receive.recv_timeout(LOOK) {
                        Ok(value) => return Ok(value),
                        Err(mpsc::RecvTimeoutError::Disconnected) => {
                            return Err(io::Error::other("the store's task panicked"));
                        }
                        Err(mpsc::RecvTimeoutError::Timeout) => {
                            if cancelled.is_some_and(|cancelled| cancelled()) {
                                task.abort();
                                return Err(io::ErrorKind::Interrupted.into());
                            }
                        }
                    }
                }
            }
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // A runtime must not be dropped with blocking inside another one: that panics.
        if let Self::Own(runtime) = self
            && let Some(runtime) = runtime.take()
        {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_outside_of_a_runtime() {
        assert_eq!(Bridge::Inline.wait(None, async { 7 }).unwrap(), 7);
        assert_eq!(
            Bridge::with_runtime().unwrap().wait(None, async { 7 }).unwrap(),
            7
        );
    }

    #[test]
    fn waits_and_drops_inside_a_runtime() {
        let ambient = Builder::new_current_thread().build().unwrap();
        ambient.block_on(async {
            let inline = Bridge::Inline.wait(None, async {
                // What the local store does: hand its work to the ambient blocking pool.
                tokio::task::spawn_blocking(|| 7).await.unwrap()
            });
            assert_eq!(inline.unwrap(), 7);
            assert_eq!(
                Bridge::with_runtime().unwrap().wait(None, async { 8 }).unwrap(),
                8
            );
        });
    }

    #[test]
    fn a_cancelled_wait_ends() {
        let bridge = Bridge::with_runtime().unwrap();
        let cancelled: Cancelled = std::sync::Arc::new(|| true);
        let ended = bridge.wait(Some(&cancelled), std::future::pending::<()>());
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::Interrupted);
    }

    #[test]
    fn a_panicking_task_is_an_error() {
        let bridge = Bridge::with_runtime().unwrap();
        assert!(
            bridge
                .wait(None, async { panic!("in the store") })
                .map(|(): ()| ())
                .is_err()
        );
    }
}
