//! Both ends of a stream: what is sent, and what of it may arrive.

use reseed_core::names::{DatasetName, SnapshotName};

use super::{Args, MARKER, ORIGIN, SENT, SETTINGS, STAGE, args, assign, full};

/// Dataset properties that a received stream must not bring: where it would mount, whether it can be written, what
/// would fill or starve the receiving pool, what would be exported, and our own records.
pub(crate) const NEVER_RECEIVED: &[&str] = NEVER_RECEIVED_ENCRYPTING.split_at(1).1;

/// The same of what isn't encrypted and becomes so by its place: a stream with properties says `encryption=off`, and would land in clear
/// text wherever it is put. Without a word on it a new dataset is encrypted where the one above it is.
pub(crate) const NEVER_RECEIVED_ENCRYPTING: &[&str] = &[
    "encryption",
    "mountpoint",
    "canmount",
    "readonly",
    "sharenfs",
    "sharesmb",
    "quota",
    "refquota",
    "reservation",
    "refreservation",
    "org.openzfs.systemd:ignore",
    MARKER,
    STAGE,
    ORIGIN,
    SETTINGS,
    SENT,
];

/// What of it a volume can't have: to be told to set it, `zfs` refuses the stream, and of what is kept out it warns.
pub(crate) const NOT_OF_VOLUMES: &[&str] = &[
    "mountpoint",
    "canmount",
    "sharenfs",
    "sharesmb",
    "quota",
    "refquota",
];

/// What is said of a stream while it is made, on standard error, exactly and in a form for programs
/// ([`progress`](super::super::progress)).
const FOLLOWED: [&str; 3] = ["send", "-P", "-v"];

/// What a stream is made with. The same for each of a pair's streams: one without large blocks after one with them is
/// refused (TRAPS). Blocks that are embedded in their pointers are sent as others are (no `-e`): an encrypted dataset can't receive
/// them so ("incompatible embedded data stream feature", OpenZFS 2.3.2), and whoever receives embeds them again.
fn sending(form: Form) -> Args {
    let mut out = args(FOLLOWED);
    if form != Form::Decrypted {
        out.push("-p".into());
    }
    out.extend(args(["-L", "-c"]));
    if form == Form::Raw {
        out.push("-w".into());
    }
    out
}

/// In which form a dataset's content is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// It isn't encrypted.
    Plain,
    /// Encrypted, and sent so.
    Raw,
    /// Encrypted, and sent in the clear: `zfs` refuses to send properties with it.
    Decrypted,
}

impl Form {
    pub(crate) fn of(encrypted: bool, raw: bool) -> Self {
        match (encrypted, raw) {
            (false, _) => Self::Plain,
            (true, true) => Self::Raw,
            (true, false) => Self::Decrypted,
        }
    }
}

/// A whole snapshot.
pub(crate) fn send_full(dataset: &DatasetName, snapshot: &SnapshotName, form: Form) -> Args {
    let mut out = sending(form);
    out.push(full(dataset, snapshot).into());
    out
}

/// Everything from after one snapshot up to another one.
pub(crate) fn send_since(
    dataset: &DatasetName,
    base: &SnapshotName,
    last: &SnapshotName,
    form: Form,
) -> Args {
    let mut out = sending(form);
    out.push("-I".into());
    // A bare name is warned about; with `@` it is this dataset's.
    out.push(format!("@{base}").into());
    out.push(full(dataset, last).into());
    out
}

/// One snapshot, as the difference to a bookmark. There is no `-I` from a bookmark.
pub(crate) fn send_since_bookmark(
    dataset: &DatasetName,
    bookmark: &SnapshotName,
    snapshot: &SnapshotName,
    form: Form,
) -> Args {
    let mut out = sending(form);
    out.push("-i".into());
    out.push(format!("{dataset}#{bookmark}").into());
    out.push(full(dataset, snapshot).into());
    out
}

/// The rest of an interrupted stream.
pub(crate) fn send_rest(token: &str) -> Args {
    let mut out = args(FOLLOWED);
    out.extend(args(["-t", token]));
    out
}

/// What the rest of an interrupted stream is of.
pub(crate) fn decode_token(token: &str) -> Args {
    args(["send", "-nvPt", token])
}

/// Receives, unmounted (`-u`) and resumably (`-s`). What must not come along, of `never`, is left out, unless the replica is given its
/// `own`.
pub(crate) fn receive(dataset: &DatasetName, own: &[(&str, &str)], never: &[&str]) -> Args {
    let mut out = args(["receive", "-s", "-u"]);
    for property in never {
        if !own.iter().any(|(key, _)| key == property) {
            out.push("-x".into());
            out.push((*property).into());
        }
    }
    for (key, value) in own {
        out.push("-o".into());
        out.push(assign(key, value));
    }
    out.push(dataset.as_str().into());
    out
}

/// Receives the rest of an interrupted stream.
pub(crate) fn receive_rest(dataset: &DatasetName) -> Args {
    args(["receive", "-s", "-u", dataset.as_str()])
}

/// Throws away what was received in part. No complete snapshot is touched by it.
pub(crate) fn receive_abort(dataset: &DatasetName) -> Args {
    args(["receive", "-A", dataset.as_str()])
}
