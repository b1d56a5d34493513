//! [`Syncoid`]: what the real `syncoid` is called with, for those who want it to do the sending
//! ([`NativeReplicator::through_syncoid`](crate::zfs::NativeReplicator::through_syncoid)). Pure: makes commands, runs none.
//!
//! Promises that only its non-destructive flags are passed. There is no `--no-destroy` (TRAPS): without `--no-rollback` it rolls the
//! replica back, and without `--no-sync-snap` it destroys every `syncoid_*` snapshot on both sides. What it does beyond
//! that is for the caller to check: it exits with 0 when a property told it to skip a dataset. Promises too that nothing of ours is
//! taken apart or run by the shells that it goes through: what could be is refused (`words`).
//!
//! With another host it keeps its connection's socket in `/tmp` under a name that can be guessed, so on a machine with users who aren't
//! trusted it needs a `/tmp` of its own (systemd's `PrivateTmp=`).

mod words;

use std::ffi::OsString;
use std::num::NonZeroU64;
use std::time::Duration;

use reseed_core::error::{ReplicateError, ReplicateKind};
use reseed_core::exec::Command;
use reseed_core::names::DatasetName;

use crate::zfs::argv::Form;
use crate::zfs::{Location, Ssh};

/// Always passed.
const FLAGS: &[&str] = &[
    "--no-sync-snap",
    "--no-rollback",
    "--no-privilege-elevation",
    "--compress=none",
    "--quiet",
];

/// The program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syncoid {
    program: OsString,
}

impl Default for Syncoid {
    fn default() -> Self {
        Self::new("syncoid")
    }
}

impl Syncoid {
    /// This program, by name or path.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
        }
    }

    /// Whether a dataset can be sent to its replica.
    ///
    /// # Errors
    /// `InvalidInput` for what its shells would take apart.
    pub(crate) fn can_send(
        from: &DatasetName,
        to: &DatasetName,
        at: &Location,
    ) -> Result<(), ReplicateError> {
        words::check(from, to, at)
    }

    /// Whether these properties can be given to a replica: its options are taken apart at spaces, and by shells.
    ///
    /// # Errors
    /// `InvalidInput` for a value that isn't one plain word.
    pub(crate) fn can_set(set: &[(&str, &str)]) -> Result<(), ReplicateError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.-/:%=,".contains(c);
        let odd = |value: &str| value.is_empty() || !value.chars().all(plain);
        match set.iter().find(|(_, value)| odd(value)) {
            Some((name, value)) => Err(ReplicateError::new(
                ReplicateKind::InvalidInput,
                format!("syncoid can't be given {name}={value:?}, which isn't one plain word"),
            )),
            None => Ok(()),
        }
    }

    /// Sends a dataset's snapshots to its replica. `set` are properties that the replica gets, `never` those that must not come along.
    ///
    /// # Errors
    /// `InvalidInput` for what its shells would take apart.
    pub(crate) fn command(
        &self,
        from: &DatasetName,
        to: &DatasetName,
        at: &Location,
        options: &Options<'_>,
    ) -> Result<Command, ReplicateError> {
        Self::can_send(from, to, at)?;
        Self::can_set(options.set)?;
        let send = match options.form {
            Form::Plain => "p L c e",
            Form::Encrypting => "p L c",
            Form::Raw => "p L c e w",
            Form::Decrypted => "L c e",
        };
        let mut receive = "u".to_owned();
        for (name, value) in options.set {
            receive.push_str(&format!(" o {name}={value}"));
        }
        for name in options.never {
            if !options.set.iter().any(|(set, _)| set == name) {
                receive.push_str(&format!(" x {name}"));
            }
        }
        let mut command = Command::new(self.program.clone())
            .args(FLAGS.iter().copied())
            .arg(format!("--sendoptions={send}"))
            .arg(format!("--recvoptions={receive}"))
            .install_hint("install the package `sanoid`, which has syncoid, or let reseed send by itself");
        if let Some(limit) = options.limit {
            command = command.arg(format!("--source-bwlimit={limit}"));
        }
        let to = match at {
            Location::Local => to.to_string(),
            Location::Ssh(ssh) => {
                command = command.args(ssh_options(ssh));
                let destination = ssh.destination();
                // With an `@` it is a host for certain; without one it could be a pool of that name.
                let at = if destination.contains('@') { "" } else { "@" };
                format!("{at}{destination}:{to}")
            }
        };
        Ok(command.arg(from.as_str()).arg(to))
    }
}

/// How it is to send and receive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options<'a> {
    /// As it is on disk, or in the clear.
    pub(crate) form: Form,
    /// Bytes a second, kept by `mbuffer`.
    pub(crate) limit: Option<NonZeroU64>,
    /// Properties of the replica, in plain words.
    pub(crate) set: &'a [(&'a str, &'a str)],
    /// Properties that must not come along, unless they are set.
    pub(crate) never: &'a [&'a str],
}

/// Asks whether there is an mbuffer: without one syncoid sends as fast as it can, whatever the limit. Any exit code is a yes.
pub(crate) fn mbuffer() -> Command {
    Command::new("mbuffer")
        .arg("--version")
        .time_limit(Duration::from_secs(10))
        .install_hint("install the package `mbuffer`, by which syncoid keeps `bandwidth`")
}

/// How it reaches the other host: as strictly as we do.
fn ssh_options(ssh: &Ssh) -> Vec<OsString> {
    // Its shell would take quotes away, and with them what they are for: the name was checked instead.
    let mut known_hosts = OsString::from("UserKnownHostsFile=");
    known_hosts.push(ssh.own_known_hosts());
    let mut out = Vec::new();
    for option in std::iter::once(known_hosts).chain(ssh.fixed_options()) {
        let mut word = OsString::from("--sshoption=");
        word.push(option);
        out.push(word);
    }
    if let Some(port) = ssh.own_port() {
        out.push(format!("--sshport={port}").into());
    }
    if let Some(identity) = ssh.own_identity() {
        out.push("--sshoption=IdentitiesOnly=yes".into());
        let mut word = OsString::from("--sshkey=");
        word.push(identity);
        out.push(word);
    }
    out
}

#[cfg(test)]
mod tests;
