//! Garage, a real S3 server, as a process of its own.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use reseed_core::clock::{Clock, SystemClock};
use reseed_core::exec::{Command, Runner, Secret, SystemRunner};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::S3Access;
use super::served::Served;

/// So many times it is asked whether it answers, a twentieth of a second apart.
const ASKED: u32 = 1200;
/// Both ports are below those that the kernel gives to clients, and every server has an address of its own.
const S3_PORT: u16 = 3900;
const RPC_PORT: u16 = 3901;
const BUCKET: &str = "backups";

/// A server of one node with one bucket, on loopback. Dropping it kills it; its directory stays.
///
/// It overwrites what it was asked only to create, and its words for what is wrong are its own.
#[derive(Debug)]
pub struct Garage {
    address: SocketAddr,
    access: S3Access,
    _served: Served,
}

impl Garage {
    /// Starts this program with everything below a directory that exists, and waits until it answers.
    ///
    /// # Errors
    /// When it can't be started, ends, or doesn't answer within a minute; with the end of what it said.
    pub fn start(program: &Path, dir: &Path) -> io::Result<Self> {
        let host = own_address()?;
        let address = SocketAddr::from((host, S3_PORT));
        let access = S3Access {
            endpoint: format!("http://{address}"),
            region: "garage".to_owned(),
            access_key_id: format!("GK{}", "a5".repeat(12)),
            secret_access_key: "7c".repeat(32),
        };
        let config = dir.join("garage.toml");
        fs::write(&config, configuration(dir, host, &access.region)?)?;
        let command = Command::new(program)
            .arg("--config")
            .arg(config)
            .args(["server", "--single-node", "--default-bucket"])
            .env("GARAGE_DEFAULT_ACCESS_KEY", &access.access_key_id)
            .env_secret(
                "GARAGE_DEFAULT_SECRET_KEY",
                Secret::new(access.secret_access_key.as_str()),
            )
            .env("GARAGE_DEFAULT_BUCKET", BUCKET)
            // Nobody needs what is in it any more.
            .grace(Duration::ZERO);
        let (tell, told) = mpsc::channel();
        let this = Self {
            address,
            access,
            _served: Served::start("garage", async move |stop| {
                run(&command, address, &stop, &tell).await;
            })?,
        };
        told.recv()
            .unwrap_or_else(|_| Err(io::Error::other("garage's thread ended")))?;
        Ok(this)
    }

    /// How to get in.
    pub fn access(&self) -> &S3Access {
        &self.access
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The name of its bucket.
    pub fn bucket(&self) -> &str {
        BUCKET
    }
}

/// Runs it until it is stopped, and tells once whether it answers.
async fn run(
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
            Ok(output) => io::Error::other(format!("garage ended with {}: {}", output.exit, output.stderr.text())),
            Err(error) => io::Error::other(error),
        }),
        answers = answers => match answers {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::TimedOut, "garage doesn't answer")),
        },
    };
    let runs = said.is_ok();
    // Nobody waits for it any more where this fails.
    let _ = tell.send(said);
    if runs {
        let _ = running.await;
    }
}

/// A loopback address that no other server has: of this process, of another one, or left by one that was killed.
fn own_address() -> io::Result<Ipv4Addr> {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    for _ in 0..64 {
        // Process ids have at most 22 bits on Linux.
        let number =
            (std::process::id() << 2).wrapping_add(STARTED.fetch_add(1, Ordering::Relaxed)) & 0xff_ffff;
        let address = Ipv4Addr::from(127 << 24 | number.clamp(2, 0xff_fffe));
        if TcpListener::bind((address, S3_PORT)).is_ok() {
            return Ok(address);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

fn configuration(dir: &Path, host: Ipv4Addr, region: &str) -> io::Result<String> {
    // A path that needs escapes in TOML is none that a test has.
    let dir = dir.to_str().filter(|dir| !dir.contains(['"', '\\']));
    let dir = dir.ok_or_else(|| io::Error::other("garage's directory has an unusual name"))?;
    let secret = "5e".repeat(32);
    Ok(format!(
        "metadata_dir = \"{dir}/meta\"\ndata_dir = \"{dir}/data\"\ndb_engine = \"sqlite\"\ncompression_level = \"none\"\n\
         replication_factor = 1\nrpc_secret = \"{secret}\"\n\
         rpc_bind_addr = \"{host}:{RPC_PORT}\"\nrpc_public_addr = \"{host}:{RPC_PORT}\"\n\n\
         [s3_api]\ns3_region = \"{region}\"\napi_bind_addr = \"{host}:{S3_PORT}\"\nroot_domain = \".s3.invalid\"\n"
    ))
}
