//! Where the tools run: here, or on another host over ssh. Pure: makes commands, runs none.
//!
//! Promises that a remote shell gets exactly the words that a local process would ([`quote_for_ssh`]), that ssh never asks
//! (`BatchMode`), never learns a host key by itself (`StrictHostKeyChecking=yes` with a file of pinned keys), and
//! notices a connection that died.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reseed_core::exec::{Command, ExecError, quote_for_ssh};

/// A machine with ZFS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Location {
    /// This one.
    #[default]
    Local,
    /// Another one.
    Ssh(Ssh),
}

/// How another machine is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    /// `user@host`, or an alias of the ssh configuration.
    destination: String,
    /// The file of pinned host keys.
    known_hosts: PathBuf,
    port: Option<u16>,
    identity: Option<PathBuf>,
    /// Seconds after which a host that says nothing is given up.
    patience: u64,
}

impl Ssh {
    /// A host whose key is in `known_hosts`. A destination that ssh could take for an option is refused.
    pub fn new(destination: impl Into<String>, known_hosts: impl Into<PathBuf>) -> Option<Self> {
        let destination = destination.into();
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.@:%[]".contains(c);
        let fine = !destination.is_empty() && !destination.starts_with('-') && destination.chars().all(plain);
        fine.then(|| Self {
            destination,
            known_hosts: known_hosts.into(),
            port: None,
            identity: None,
            patience: 60,
        })
    }

    /// Sets the port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Sets the file of the private key; no other key is offered then.
    #[must_use]
    pub fn identity(mut self, file: impl Into<PathBuf>) -> Self {
        self.identity = Some(file.into());
        self
    }

    /// Sets after how long a connection on which nothing is heard is given up: 60 s at first, at least 4 s. A quarter of it is
    /// what connecting may take.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience.as_secs().max(4);
        self
    }

    /// The host, and as whom.
    pub(crate) fn destination(&self) -> &str {
        &self.destination
    }

    pub(crate) fn own_port(&self) -> Option<u16> {
        self.port
    }

    pub(crate) fn own_identity(&self) -> Option<&Path> {
        self.identity.as_deref()
    }

    pub(crate) fn own_known_hosts(&self) -> &Path {
        &self.known_hosts
    }

    /// What is passed with `-o`.
    fn options(&self) -> Vec<OsString> {
        // ssh takes a space for the beginning of a second file, unless the name is quoted.
        let mut known_hosts = OsString::from("UserKnownHostsFile=\"");
        known_hosts.push(&self.known_hosts);
        known_hosts.push("\"");
        let mut options = vec![known_hosts];
        options.extend(self.fixed_options());
        options
    }

    /// The same but for the file of pinned keys.
    pub(crate) fn fixed_options(&self) -> Vec<OsString> {
        let quarter = (self.patience / 4).max(1);
        vec![
            "BatchMode=yes".into(),
            "StrictHostKeyChecking=yes".into(),
            "GlobalKnownHostsFile=/dev/null".into(),
            // Nothing else vouches for a host, and no connection is used that was made under other rules.
            "VerifyHostKeyDNS=no".into(),
            "UpdateHostKeys=no".into(),
            "ControlPath=none".into(),
            "ClearAllForwardings=yes".into(),
            format!("ConnectTimeout={quarter}").into(),
            format!("ServerAliveInterval={quarter}").into(),
            "ServerAliveCountMax=4".into(),
        ]
    }
}

impl Location {
    /// A command that runs there.
    pub(crate) fn command(&self, program: &str, args: Vec<OsString>) -> Result<Command, ExecError> {
        let ssh = match self {
            Self::Local => return Ok(Command::new(program).args(args)),
            Self::Ssh(ssh) => ssh,
        };
        let remote = quote_for_ssh(std::iter::once(OsString::from(program)).chain(args))?;
        let mut command = Command::new("ssh").arg("-T");
        for option in ssh.options() {
            command = command.arg("-o").arg(option);
        }
        if let Some(port) = ssh.port {
            command = command.arg("-p").arg(port.to_string());
        }
        if let Some(identity) = &ssh.identity {
            command = command.args(["-o", "IdentitiesOnly=yes", "-i"]).arg(identity);
        }
        Ok(command.arg("--").arg(&ssh.destination).arg(remote))
    }

    /// Whether it is this machine.
    pub(crate) fn is_local(&self) -> bool {
        *self == Self::Local
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_shell_gets_the_same_words() {
        let args = || vec![OsString::from("list"), "tank/a b".into(), "it's".into()];
        let local = Location::Local.command("zfs", args()).unwrap();
        assert_eq!(local.to_string(), r"zfs list 'tank/a b' 'it'\''s'");
        let ssh = Ssh::new("backup@nas.lan", "/etc/reseed/known hosts").unwrap();
        let there = Location::Ssh(ssh.port(2222).identity("/k"))
            .command("zfs", args())
            .unwrap();
        let words: Vec<_> = there
            .arguments()
            .iter()
            .map(|word| word.to_string_lossy())
            .collect();
        assert_eq!(words.last().unwrap(), r"zfs list 'tank/a b' 'it'\''s'");
        for wanted in [
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            "UserKnownHostsFile=\"/etc/reseed/known hosts\"",
            "GlobalKnownHostsFile=/dev/null",
            "IdentitiesOnly=yes",
            "ConnectTimeout=15",
            "ServerAliveInterval=15",
            "2222",
        ] {
            assert!(words.iter().any(|word| word == wanted), "{wanted}: {words:?}");
        }
        assert_eq!(words[words.len() - 3..words.len() - 1], ["--", "backup@nas.lan"]);
    }

    #[test]
    fn a_destination_is_no_option() {
        for bad in ["", "-oProxyCommand=x", "a b", "a;b", "$(x)", "a\nb"] {
            assert!(Ssh::new(bad, "/k").is_none(), "{bad:?}");
        }
        assert!(Ssh::new("root@[fe80::1%eth0]", "/k").is_some());
    }
}
