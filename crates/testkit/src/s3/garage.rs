//! Garage, a real S3 server, as a process of its own.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use reseed_core::exec::{Command, Secret};

use super::S3Access;
use super::daemon::{Daemon, own_address};

/// Every server has an address of its own.
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
    _daemon: Daemon,
}

impl Garage {
    /// Starts this program with everything below a directory that exists, and waits until it answers.
    ///
    /// # Errors
    /// When it can't be started, ends, or doesn't answer within a minute; with the end of what it said.
    pub fn start(program: &Path, dir: &Path) -> io::Result<Self> {
        let address = own_address(S3_PORT)?;
        let access = S3Access {
            endpoint: format!("http://{address}"),
            region: "garage".to_owned(),
            access_key_id: format!("GK{}", "a5".repeat(12)),
            secret_access_key: "7c".repeat(32),
        };
        let config = dir.join("garage.toml");
        fs::write(&config, configuration(dir, address.ip(), &access.region)?)?;
        let command = Command::new(program)
            .arg("--config")
            .arg(config)
            .args(["server", "--single-node", "--default-bucket"])
            .env("GARAGE_DEFAULT_ACCESS_KEY", &access.access_key_id)
            .env_secret(
                "GARAGE_DEFAULT_SECRET_KEY",
                Secret::new(access.secret_access_key.as_str()),
            )
            .env("GARAGE_DEFAULT_BUCKET", BUCKET);
        let daemon = Daemon::start("garage", address, command)?;
        Ok(Self {
            address,
            access,
            _daemon: daemon,
        })
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

fn configuration(dir: &Path, host: IpAddr, region: &str) -> io::Result<String> {
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
