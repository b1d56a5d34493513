//! Servers that only the restic program reaches: restic's own, and an sshd.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "not each target needs all of it, and all of it is a test"
)]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use reseed_backend_restic::PasswordFrom;
use reseed_backend_restic::restic::{RestPlace, SftpPlace};
use reseed_backend_restic::secret::Password;
use reseed_core::exec::{Command, Runner as _, SystemRunner};
use reseed_testkit::s3::{Daemon, S3Faults, S3Proxy, own_address};
use tokio_util::sync::CancellationToken;

use crate::location::wait;

/// The program that the environment names.
const REST_SERVER: &str = "RESEED_REAL_REST_SERVER";
const REST_PORT: u16 = 3902;
const SFTP_PORT: u16 = 3903;

pub(crate) const USER: &str = "box";
const USER_PASSWORD: &str = "pass word";
/// The password as `htpasswd -s` writes it.
const HASHED: &str = "{SHA}2oguq15ANCGsJCWKX31fllwpyEk=";

/// restic's own server, with a login, behind a proxy that fails by rules.
#[derive(Debug)]
pub(crate) struct Rest {
    proxy: S3Proxy,
    _daemon: Daemon,
}

impl Rest {
    /// Serves what is in `files`.
    pub(crate) fn start(dir: &Path, files: &Path, append_only: bool) -> Self {
        let program = std::env::var_os(REST_SERVER).unwrap_or_else(|| {
            panic!("{REST_SERVER} must name the server to test with (or leave out the tests named real_*)")
        });
        let logins = dir.join(if append_only {
            "logins-append-only"
        } else {
            "logins"
        });
        fs::write(&logins, format!("{USER}:{HASHED}\n")).unwrap();
        let address = own_address(REST_PORT).unwrap();
        let mut command = Command::new(program).arg("--path").arg(files);
        command = command.arg("--listen").arg(address.to_string());
        command = command.arg("--htpasswd-file").arg(logins);
        if append_only {
            command = command.arg("--append-only");
        }
        Self {
            _daemon: Daemon::start("rest-server", address, command).unwrap(),
            proxy: S3Proxy::start(address).unwrap(),
        }
    }

    pub(crate) fn faults(&self) -> &S3Faults {
        self.proxy.faults()
    }

    pub(crate) fn place(&self, prefix: &str) -> RestPlace {
        RestPlace {
            // As restic's own documentation writes it.
            url: format!("{}/{prefix}/", self.proxy.endpoint()),
            login: Some((USER.to_owned(), PasswordFrom::Given(Password::new(USER_PASSWORD)))),
            allow_http: true,
        }
    }
}

/// An sshd whose only subsystem is sftp.
#[derive(Debug)]
pub(crate) struct Sftp {
    address: SocketAddr,
    dir: PathBuf,
    daemon: Mutex<Option<Daemon>>,
}

impl Sftp {
    pub(crate) fn start(dir: &Path) -> Self {
        let dir = dir.join("ssh");
        fs::create_dir(&dir).unwrap();
        let address = own_address(SFTP_PORT).unwrap();
        for key in ["host", "user"] {
            let keygen = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]);
            let keygen = keygen.arg(dir.join(key));
            let made = wait(async { SystemRunner::new().run(&keygen, &CancellationToken::new()).await });
            assert!(
                made.as_ref().is_ok_and(|output| output.exit.success()),
                "{made:?}"
            );
        }
        let public = fs::read_to_string(dir.join("host.pub")).unwrap();
        fs::write(
            dir.join("known"),
            format!("[{}]:{SFTP_PORT} {public}", address.ip()),
        )
        .unwrap();
        let at = dir.display();
        // The exchange of keys that would be agreed on takes longer than all else in a connection, of which each call makes one.
        let config = format!(
            "ListenAddress {address}\nHostKey {at}/host\nAuthorizedKeysFile {at}/user.pub\nPidFile none\nUsePAM no\n\
             StrictModes no\nKexAlgorithms curve25519-sha256\nUseDNS no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n"
        );
        fs::write(dir.join("config"), config).unwrap();
        let this = Self {
            address,
            dir,
            daemon: Mutex::default(),
        };
        this.set_up(true);
        this
    }

    /// Whether anybody answers.
    pub(crate) fn set_up(&self, up: bool) {
        let mut daemon = self.daemon.lock().unwrap();
        *daemon = None;
        if up {
            if rustix::process::geteuid().is_root() {
                // Its home for what isn't let in yet.
                fs::create_dir_all("/run/sshd").unwrap();
            }
            let command = Command::new("/usr/sbin/sshd").args(["-D", "-e", "-f"]);
            let command = command.arg(self.dir.join("config"));
            *daemon = Some(Daemon::start("sshd", self.address, command).unwrap());
        }
    }

    pub(crate) fn place(&self, path: &Path) -> SftpPlace {
        let user = match rustix::process::geteuid().is_root() {
            true => "root".to_owned(),
            false => std::env::var("USER").unwrap(),
        };
        SftpPlace {
            destination: format!("{user}@{}", self.address.ip()),
            port: Some(SFTP_PORT),
            path: path.to_owned(),
            known_hosts: self.dir.join("known"),
            key_file: Some(self.dir.join("user")),
        }
    }
}
