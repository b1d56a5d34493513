//! [`Syncoid`]: what the real `syncoid` is called with, for those who want it to do the sending
//! ([`NativeReplicator::through_syncoid`](crate::zfs::NativeReplicator::through_syncoid)). Pure: makes commands, runs none.
//!
//! Promises that only its non-destructive flags are passed. There is no `--no-destroy` (TRAPS): without `--no-rollback` it rolls the
//! replica back, and without `--no-sync-snap` it destroys every `syncoid_*` snapshot on both sides. What it does beyond
//! that is for the caller to check: it exits with 0 when a property told it to skip a dataset.

use std::ffi::OsString;
use std::num::NonZeroU64;

use reseed_core::exec::Command;
use reseed_core::names::DatasetName;

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

    /// Sends a dataset's snapshots to its replica. `never` are the properties that must not come along.
    pub(crate) fn command(
        &self,
        from: &DatasetName,
        to: &DatasetName,
        at: &Location,
        raw: bool,
        limit: Option<NonZeroU64>,
        never: &[&str],
    ) -> Command {
        let mut send = "p L c e".to_owned();
        if raw {
            send.push_str(" w");
        }
        let mut receive = "u o canmount=noauto o readonly=on".to_owned();
        for property in never
            .iter()
            .filter(|name| !["canmount", "readonly"].contains(name))
        {
            receive.push_str(" x ");
            receive.push_str(property);
        }
        let mut command = Command::new(self.program.clone())
            .args(FLAGS.iter().copied())
            .arg(format!("--sendoptions={send}"))
            .arg(format!("--recvoptions={receive}"))
            .install_hint("install the package `sanoid`, which has syncoid, or let reseed send by itself");
        if let Some(limit) = limit {
            command = command.arg(format!("--source-bwlimit={limit}"));
        }
        let to = match at {
            Location::Local => to.to_string(),
            Location::Ssh(ssh) => {
                command = command.args(options(ssh));
                format!("{}:{to}", ssh.destination())
            }
        };
        command.arg(from.as_str()).arg(to)
    }
}

/// How it reaches the other host: as strictly as we do.
fn options(ssh: &Ssh) -> Vec<OsString> {
    let mut out = Vec::new();
    for option in ssh.options() {
        let mut word = OsString::from("--sshoption=");
        word.push(option);
        out.push(word);
    }
    if let Some(port) = ssh.own_port() {
        out.push(format!("--sshport={port}").into());
    }
    if let Some(identity) = ssh.own_identity() {
        let mut word = OsString::from("--sshkey=");
        word.push(identity);
        out.push(word);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ds(name: &str) -> DatasetName {
        DatasetName::new(name).unwrap()
    }

    fn words(command: &Command) -> Vec<String> {
        let words = command.arguments().iter();
        words.map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn only_what_destroys_nothing_is_passed() {
        let ssh = Ssh::new("repl@nas", "/etc/known")
            .unwrap()
            .port(2222)
            .identity("/k");
        for at in [Location::Local, Location::Ssh(ssh)] {
            for raw in [false, true] {
                let command = Syncoid::default().command(
                    &ds("tank/a b"),
                    &ds("b/a"),
                    &at,
                    raw,
                    NonZeroU64::new(5),
                    &["mountpoint", "readonly"],
                );
                let words = words(&command);
                for wanted in ["--no-sync-snap", "--no-rollback", "--source-bwlimit=5"] {
                    assert!(words.iter().any(|word| word == wanted), "{words:?}");
                }
                for bad in [
                    "force-delete",
                    "delete-target-snapshots",
                    "no-clone-rollback",
                    "recursive",
                    "-F",
                ] {
                    assert!(!words.iter().any(|word| word.contains(bad)), "{words:?}");
                }
                let send = words
                    .iter()
                    .find_map(|word| word.strip_prefix("--sendoptions="))
                    .unwrap();
                assert_eq!(send, if raw { "p L c e w" } else { "p L c e" });
                let receive = words
                    .iter()
                    .find_map(|word| word.strip_prefix("--recvoptions="))
                    .unwrap();
                assert_eq!(receive, "u o canmount=noauto o readonly=on x mountpoint");
            }
        }
    }

    #[test]
    fn another_host_is_reached_as_strictly() {
        let ssh = Ssh::new("repl@nas", "/etc/known")
            .unwrap()
            .port(2222)
            .identity("/k");
        let command =
            Syncoid::default().command(&ds("tank/a"), &ds("b/a"), &Location::Ssh(ssh), false, None, &[]);
        let words = words(&command);
        for wanted in [
            "--sshoption=BatchMode=yes",
            "--sshoption=StrictHostKeyChecking=yes",
            "--sshport=2222",
            "--sshkey=/k",
            "repl@nas:b/a",
        ] {
            assert!(words.iter().any(|word| word == wanted), "{wanted}: {words:?}");
        }
    }
}
