//! What syncoid can't be given. Pure.
//!
//! It is a Perl script that joins what it was given into lines for a shell. Names of datasets and snapshots it quotes; the
//! destination, ssh's options, the key and the port it doesn't (`$sshcmd $rhost …`), nor the options for send and receive, which it first
//! takes apart at spaces. So all of these have to be plain words. A name before a colon it takes for a host, unless there is an
//! `@` before it. Read in 2.1.0, as Debian 12 has it.

use reseed_core::error::{ReplicateError, ReplicateKind};
use reseed_core::exec::is_plain_word;
use reseed_core::names::DatasetName;

use crate::zfs::{Location, Ssh};

fn refused(what: String, hint: &str) -> ReplicateError {
    ReplicateError::new(ReplicateKind::InvalidInput, what).hint(hint)
}

/// Whether a dataset can be sent to its replica.
pub(super) fn check(from: &DatasetName, to: &DatasetName, at: &Location) -> Result<(), ReplicateError> {
    let local = match at {
        Location::Local => vec![from, to],
        Location::Ssh(ssh) => {
            check_ssh(ssh)?;
            vec![from]
        }
    };
    match local.into_iter().find(|name| name.pool().contains(':')) {
        None => Ok(()),
        Some(name) => Err(refused(
            format!(
                "{name} can't be given to syncoid: it takes what is before the colon in {} for a host",
                name.pool()
            ),
            "let reseed send by itself (`sender = \"native\"`)",
        )),
    }
}

fn check_ssh(ssh: &Ssh) -> Result<(), ReplicateError> {
    let destination = ssh.destination();
    if !is_plain_word(destination) || destination.contains(':') || destination.matches('@').count() > 1 {
        return Err(refused(
            format!("syncoid can't be given the destination {destination:?}: it takes it apart"),
            "use an alias of ssh's own configuration, or let reseed send by itself (`sender = \"native\"`)",
        ));
    }
    let key = ssh.own_identity().map(|path| ("the private key", path));
    for (what, path) in [("the file of pinned host keys", ssh.own_known_hosts())]
        .into_iter()
        .chain(key)
    {
        if !is_plain_word(path) {
            return Err(refused(
                format!("{what}, {path:?}, can't be given to syncoid: a shell would take the name apart"),
                "name it otherwise, with letters, digits and `_@+:,./=-` only, or let reseed send by itself (`sender = \"native\"`)",
            ));
        }
    }
    Ok(())
}
