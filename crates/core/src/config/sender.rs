//! What syncoid can't be given. It puts what it is told of the other machine into a line for a shell, unquoted, so there a space
//! begins another word and `$(…)` is run. Whatever isn't plainly one word is refused here, before anything is run; the driver
//! refuses it again.

use std::path::Path;

use super::decode::At;
use super::diagnostic::{Extra, Sink};
use super::place_file::{ReplicaFile, Sender, SshFile, ZfsReplicaFile};
use super::places::Places;
use super::text::{Span, quoted};
use crate::exec::is_plain_word;

/// Checks every replica that syncoid sends to.
pub(crate) fn check(places: &Places<'_>, root: &At<'_>, sink: &mut Sink<'_>) {
    let at = root.key("replicas", root.span);
    for entry in places.replicas {
        if let Some((ReplicaFile::Zfs(file), _)) = &entry.value
            && file.sender.value() == Some(&Sender::Syncoid)
        {
            replica(file, &at.key(entry.name.as_str(), &entry.span), sink);
        }
    }
}

fn replica(file: &ZfsReplicaFile, at: &At<'_>, sink: &mut Sink<'_>) {
    if let Some((there, span)) = file.ssh.given() {
        return ssh(there, &at.key("ssh", span), sink);
    }
    if let Some((root, span)) = &file.root.0
        && root.0.pool().contains(':')
    {
        let message = format!(
            "syncoid takes {} for a dataset of the host before the colon",
            quoted(root.0.as_str())
        );
        refuse(at.key("root", span), span, message, sink);
    }
}

fn ssh(file: &SshFile, at: &At<'_>, sink: &mut Sink<'_>) {
    if let Some((host, span)) = &file.host.0
        && host.0.contains([':', '%', '[', ']'])
    {
        let message = format!(
            "syncoid can't be given the host {}: it takes it apart at `:`, `%`, `[` and `]`",
            quoted(&host.0)
        );
        refuse(at.key("host", span), span, message, sink);
    }
    let known_hosts = file
        .known_hosts
        .0
        .as_ref()
        .map(|(path, span)| (path.0.as_path(), span));
    let key_file = file.key_file.given().map(|(path, span)| (path.0.as_path(), span));
    for (key, given) in [("known_hosts", known_hosts), ("key_file", key_file)] {
        let Some((_, span)) = given.filter(|(path, _)| !is_plain_path(path)) else {
            continue;
        };
        let at = at.key(key, span);
        // What stands in a path's place may be the secret itself: it isn't quoted.
        let message = format!(
            "`{at}` can't be given to syncoid: it has more in it than letters, digits and `_@+:,./=-`, and a shell would take it \
             apart"
        );
        refuse(at, span, message, sink);
    }
}

fn is_plain_path(path: &Path) -> bool {
    is_plain_word(path.as_os_str())
}

fn refuse(at: At<'_>, span: &Span, message: String, sink: &mut Sink<'_>) {
    let hint = "name it otherwise (an alias in ssh's own configuration, a link to the file), or let reseed send: `sender = \"native\"`";
    sink.error(at, span, message, Extra::hint(hint));
}
