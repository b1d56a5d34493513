//! What is the same for the server and the proxy: a port on loopback, and a thread that answers there.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use reseed_core::clock::{Clock, SystemClock};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Here, S3Faults, answer};

/// What answers a request that no rule struck.
#[derive(Clone)]
pub(super) enum Behind {
    Here(Here),
    /// Another server.
    There(SocketAddr),
}

/// What every connection needs.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) behind: Behind,
    pub(super) faults: S3Faults,
    pub(super) clock: Arc<dyn Clock>,
}

/// A port that the kernel chose, where nobody answers yet.
pub(super) struct Door {
    listener: TcpListener,
    port: u16,
}

impl Door {
    pub(super) fn open() -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Answers until what it returns is dropped.
    pub(super) fn serve(self, faults: &S3Faults, behind: Behind) -> io::Result<Served> {
        let shared = Shared {
            behind,
            faults: faults.clone(),
            clock: Arc::new(SystemClock::new()),
        };
        Served::start("s3-server", async move |stop| {
            serve(self.listener, &shared, &stop).await;
        })
    }
}

/// A thread that serves. Dropping it ends it and closes its connections.
#[derive(Debug)]
pub(super) struct Served {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// Runs it on a thread with a runtime of its own, until it is told to stop.
    pub(super) fn start<F>(name: &str, work: F) -> io::Result<Self>
    where
        F: AsyncFnOnce(CancellationToken) + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            tokio::task::LocalSet::new().block_on(&runtime, work(stopped));
            // Whatever still hangs by a rule ends with it.
            runtime.shutdown_background();
        })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn serve(listener: TcpListener, shared: &Shared, stop: &CancellationToken) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    // Dropping the set closes its connections.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                // Small answers must not wait for acknowledgements.
                let _ = stream.set_nodelay(true);
                let shared = shared.clone();
                connections.spawn_local(async move {
                    let service = hyper::service::service_fn(move |request| {
                        let shared = shared.clone();
                        async move { answer::answer(&shared, request).await }
                    });
                    // A connection that breaks is what rules and clients do.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
                        .await;
                });
            }
        }
    }
}
