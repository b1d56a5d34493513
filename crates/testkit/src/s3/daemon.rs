//! A server as a process of its own, for tests of what speaks to it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use reseed_core::clock::{Clock, SystemClock};
use reseed_core::exec::{Command, Runner, SystemRunner};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::served::Served;

/// So many times it is asked whether it answers, a twentieth of a second apart.
const ASKED: u32 = 1200;

/// A program that listens on loopback. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    _served: Served,
}

impl Daemon {
    /// Starts it, and waits until somebody answers at this address.
    ///
    /// # Errors
    /// When it can't be started, ends, or doesn't answer within a minute; with the end of what it said.
    pub fn start(name: &'static str, address: SocketAddr, command: Command) -> io::Result<Self> {
        // Nobody needs what it has in memory any more.
        let command = command.grace(Duration::ZERO);
        let (tell, told) = mpsc::channel();
        let this = Self {
            _served: Served::start(name, async move |stop| {
                run(name, &command, address, &stop, &tell).await;
            })?,
        };
        told.recv()
            .unwrap_or_else(|_| Err(io::Error::other(format!("the thread of {name} ended"))))?;
        Ok(this)
    }
}

/// Runs it until it is stopped, and tells once whether it answers.
async fn run(
    name: &str,
    command: &Command,
    address: SocketAddr,
    stop: &CancellationToken,
    tell: &mpsc::Sender<io::Result<()>>,
) {
    let runner = SystemRunner::new();
    let running = runner.run(command, stop);
    let answers = async {
        let clock = SystemClock::new();
        for _ in 0..ASKED {
            if TcpStream::connect(address).await.is_ok() {
                return true;
            }
            clock.sleep(Duration::from_millis(50)).await;
        }
        false
    };
    tokio::pin!(running);
    let said = tokio::select! {
        ended = &mut running => Err(match ended {
            Ok(output) => io::Error::other(format!("{name} ended with {}: {}", output.exit, output.stderr.text())),
            Err(error) => io::Error::other(error),
        }),
        answers = answers => match answers {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::TimedOut, format!("{name} doesn't answer"))),
        },
    };
    let runs = said.is_ok();
    // Nobody waits for it any more where this fails.
    let _ = tell.send(said);
    if runs {
        let _ = running.await;
    }
}

/// An address on loopback with this port that no other server has: of this process, of another one, or left by one that was
/// killed. The port is to be below those that the kernel gives to clients.
///
/// # Errors
/// When none of many is free.
pub fn own_address(port: u16) -> io::Result<SocketAddr> {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    for _ in 0..64 {
        // Sixteen for each process before the next one's; its id has at most 22 bits on Linux, and comes round late.
        let number =
            (std::process::id() << 4).wrapping_add(STARTED.fetch_add(1, Ordering::Relaxed)) & 0xff_ffff;
        let address = Ipv4Addr::from(127 << 24 | number.clamp(2, 0xff_fffe));
        if TcpListener::bind((address, port)).is_ok() {
            return Ok((address, port).into());
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}
