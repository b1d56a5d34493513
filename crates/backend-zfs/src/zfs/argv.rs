//! Requests as argument vectors for `zfs` and `zpool`. Pure: nothing is run here, and nothing is known about what the
//! tools answer ([`parse`](super::parse)).
//!
//! Promises that no vector made here can destroy more than it names: `destroy` takes exact names and never `-r`, `-R`,
//! `-d` or `-f` (the channel programs are in [`program`](super::program)); `receive` never takes `-F`; there is no `rollback` at all. Names come in as checked types, so none of
//! them can be an option, a pattern or a list. A test holds every vector against that.

use std::ffi::OsString;

use reseed_core::names::{DatasetName, HoldTag, SnapshotName};

use super::rows;

/// Local user property: who brought the dataset into the state it is in, bound to its guid.
pub(crate) const MARKER: &str = "reseed:marker";
/// Local user property: this dataset was staged by reseed, for what, and from which point; bound to its guid.
pub(crate) const STAGE: &str = "reseed:stage";
/// Local user property of a replica: of which host's dataset it is ([`origin`](super::origin)).
pub(crate) const ORIGIN: &str = "reseed:origin";
/// Local user property of a replica: the quotas and reservations that its dataset had ([`space`](super::space)).
pub(crate) const SETTINGS: &str = "reseed:settings";
/// On a snapshot: when it was taken by the caller's clock.
pub(crate) const TAKEN: &str = "reseed:taken";
/// On a snapshot: `on` when the service was unseeded then.
pub(crate) const UNSEEDED: &str = "reseed:unseeded";
/// On a snapshot: its tree's fingerprint, bound to its guid.
pub(crate) const DIGEST: &str = "reseed:digest";

/// The properties that [`get_facts`] asks for, in this order.
pub(crate) const FACTS: &[&str] = &[
    "type",
    "guid",
    "mountpoint",
    "canmount",
    "origin",
    "receive_resume_token",
    MARKER,
    STAGE,
];

/// The columns that [`list_snapshots`] asks for, in this order.
///
/// `creation` and `userrefs` make a listing 2.5 to 3.2 times slower (TRAPS); the age and the holds of a snapshot are
/// part of what the store answers, so they are asked for once, for all datasets together.
pub(crate) const SNAPSHOT_COLUMNS: &[&str] = &[
    "name",
    "guid",
    "createtxg",
    "creation",
    "userrefs",
    "referenced",
    TAKEN,
    UNSEEDED,
    DIGEST,
];

/// Dataset properties that a received stream must not bring: where it would mount, whether it can be written, what
/// would fill or starve the receiving pool, what would be exported, and our own records.
pub(crate) const NEVER_RECEIVED: &[&str] = &[
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
];

/// Arguments after the program.
pub(crate) type Args = Vec<OsString>;

fn args<const N: usize>(fixed: [&str; N]) -> Args {
    fixed.into_iter().map(OsString::from).collect()
}

fn names<'a>(out: &mut Args, names: impl IntoIterator<Item = &'a DatasetName>) {
    out.extend(names.into_iter().map(|name| name.as_str().into()));
}

fn full(dataset: &DatasetName, snapshot: &SnapshotName) -> String {
    format!("{dataset}@{snapshot}")
}

/// `key=value` for `-o` and `zfs set`.
fn assign(key: &str, value: &str) -> OsString {
    format!("{key}={value}").into()
}

/// Several properties of exactly these datasets, with their sources, and what ends the answer about each.
pub(crate) fn get_facts<'a>(datasets: impl IntoIterator<Item = &'a DatasetName>, nonce: u64) -> Args {
    let mut out = args(["get", "-Hp", "-o", "name,property,value,source"]);
    out.push(format!("{},{}", FACTS.join(","), rows::end(nonce)).into());
    names(&mut out, datasets);
    out
}

/// The snapshots of exactly these datasets.
pub(crate) fn list_snapshots<'a>(datasets: impl IntoIterator<Item = &'a DatasetName>) -> Args {
    let mut out = args(["list", "-Hp", "-t", SNAPSHOTS, "-d", "1", "-o"]);
    out.push(rows::columns(SNAPSHOT_COLUMNS).into());
    names(&mut out, datasets);
    out
}

/// Exactly these snapshots.
pub(crate) fn list_these<'a>(
    snapshots: impl IntoIterator<Item = (&'a DatasetName, &'a SnapshotName)>,
) -> Args {
    let mut out = args(["list", "-Hp", "-t", "snapshot", "-o"]);
    out.push(rows::columns(SNAPSHOT_COLUMNS).into());
    out.extend(snapshots.into_iter().map(|(d, s)| OsString::from(full(d, s))));
    out
}

/// What a listing of these columns would tell of `what`, in a form that no property's value can forge ([`rows`]): `below` is the
/// types of what is listed with each, none where each itself is meant.
pub(crate) fn apart<'a>(
    columns: &[&str],
    below: Option<&str>,
    what: impl IntoIterator<Item = &'a str>,
    nonce: u64,
) -> Args {
    let mut out = args(["get", "-Hp"]);
    if let Some(types) = below {
        out.extend(["-d", "1", "-t", types].map(OsString::from));
    }
    out.extend(args(["-o", "name,property,value"]));
    out.push(format!("{},{}", rows::asked(columns).join(","), rows::end(nonce)).into());
    out.extend(what.into_iter().map(OsString::from));
    out
}

/// The datasets right below one, and itself.
pub(crate) fn list_children(dataset: &DatasetName) -> Args {
    let mut out = args(["list", "-Hp", "-t", "filesystem,volume", "-d", "1", "-o", "name"]);
    out.push(dataset.as_str().into());
    out
}

/// The same, each with what it says (or inherits) of whose replica it is.
pub(crate) fn list_origins(dataset: &DatasetName) -> Args {
    let mut out = args(["list", "-Hp", "-t", "filesystem,volume", "-d", "1", "-o"]);
    out.push(format!("name,{ORIGIN}").into());
    out.push(dataset.as_str().into());
    out
}

/// Those of these datasets that say by a property of their own whose replica they are, and what they say.
pub(crate) fn get_origins<'a>(datasets: impl IntoIterator<Item = &'a DatasetName>) -> Args {
    let mut out = args(["get", "-Hp", "-s", "local", "-o", "name,value", ORIGIN]);
    names(&mut out, datasets);
    out
}

/// Who holds these snapshots. Without `-p`, which tools before 2.3 don't know; the time isn't used.
pub(crate) fn holds<'a>(snapshots: impl IntoIterator<Item = (&'a DatasetName, &'a SnapshotName)>) -> Args {
    let mut out = args(["holds", "-H"]);
    out.extend(snapshots.into_iter().map(|(d, s)| OsString::from(full(d, s))));
    out
}

/// Holds snapshots, one after the other: what fails keeps none of the others.
pub(crate) fn hold<'a>(
    tag: &HoldTag,
    snapshots: impl IntoIterator<Item = (&'a DatasetName, &'a SnapshotName)>,
) -> Args {
    let mut out = args(["hold", tag.as_str()]);
    out.extend(snapshots.into_iter().map(|(d, s)| OsString::from(full(d, s))));
    out
}

/// Releases snapshots, one after the other: what fails keeps none of the others.
pub(crate) fn release<'a>(
    tag: &HoldTag,
    snapshots: impl IntoIterator<Item = (&'a DatasetName, &'a SnapshotName)>,
) -> Args {
    let mut out = args(["release", tag.as_str()]);
    out.extend(snapshots.into_iter().map(|(d, s)| OsString::from(full(d, s))));
    out
}

/// One snapshot of each of these datasets: within a pool one transaction group, all or none.
pub(crate) fn snapshot<'a>(
    datasets: impl IntoIterator<Item = &'a DatasetName>,
    name: &SnapshotName,
    properties: &[(&str, &str)],
) -> Args {
    let mut out = args(["snapshot"]);
    for (key, value) in properties {
        out.push("-o".into());
        out.push(assign(key, value));
    }
    out.extend(datasets.into_iter().map(|d| OsString::from(full(d, name))));
    out
}

/// Sets properties of a dataset.
pub(crate) fn set(dataset: &DatasetName, properties: &[(&str, &str)]) -> Args {
    let mut out = args(["set"]);
    out.extend(properties.iter().map(|(key, value)| assign(key, value)));
    out.push(dataset.as_str().into());
    out
}

/// Sets properties of a snapshot.
pub(crate) fn set_on_snapshot(
    dataset: &DatasetName,
    name: &SnapshotName,
    properties: &[(&str, &str)],
) -> Args {
    let mut out = args(["set"]);
    out.extend(properties.iter().map(|(key, value)| assign(key, value)));
    out.push(full(dataset, name).into());
    out
}

/// Takes a dataset's own value of a property away.
pub(crate) fn inherit(dataset: &DatasetName, property: &str) -> Args {
    let mut out = args(["inherit", property]);
    out.push(dataset.as_str().into());
    out
}

/// Removes exactly these snapshots of one dataset. A held one, one with a clone or a mounted one stays, and the others
/// go; the exit code doesn't tell which, so the caller lists again.
pub(crate) fn destroy_snapshots<'a>(
    dataset: &DatasetName,
    snapshots: impl IntoIterator<Item = &'a SnapshotName>,
) -> Args {
    let list: Vec<&str> = snapshots.into_iter().map(SnapshotName::as_str).collect();
    let mut out = args(["destroy"]);
    out.push(format!("{dataset}@{}", list.join(",")).into());
    out
}

/// Removes one dataset that has no snapshots and no children; `zfs` itself refuses otherwise.
pub(crate) fn destroy_dataset(dataset: &DatasetName) -> Args {
    args(["destroy", dataset.as_str()])
}

/// Makes a filesystem. With `canmount=noauto` or `off` among the properties it isn't mounted.
pub(crate) fn create(dataset: &DatasetName, properties: &[(&str, &str)]) -> Args {
    let mut out = args(["create"]);
    for (key, value) in properties {
        out.push("-o".into());
        out.push(assign(key, value));
    }
    out.push(dataset.as_str().into());
    out
}

/// Makes a writable clone of a snapshot.
pub(crate) fn clone(
    origin: (&DatasetName, &SnapshotName),
    dataset: &DatasetName,
    properties: &[(&str, &str)],
) -> Args {
    let mut out = args(["clone"]);
    for (key, value) in properties {
        out.push("-o".into());
        out.push(assign(key, value));
    }
    out.push(full(origin.0, origin.1).into());
    out.push(dataset.as_str().into());
    out
}

/// Turns clone and origin round: the clone gets the snapshots up to its origin, and what it was cloned of becomes the
/// clone.
pub(crate) fn promote(dataset: &DatasetName) -> Args {
    args(["promote", dataset.as_str()])
}

/// Renames a filesystem without mounting anything anew.
pub(crate) fn rename(from: &DatasetName, to: &DatasetName) -> Args {
    args(["rename", "-u", from.as_str(), to.as_str()])
}

/// Mounts a filesystem where its properties say.
pub(crate) fn mount(dataset: &DatasetName) -> Args {
    args(["mount", dataset.as_str()])
}

/// Unmounts a filesystem, unless somebody is using it.
pub(crate) fn unmount(dataset: &DatasetName) -> Args {
    args(["unmount", dataset.as_str()])
}

/// How much was written to a dataset since one of its snapshots.
pub(crate) fn get_written(dataset: &DatasetName, snapshot: &SnapshotName) -> Args {
    let mut out = args(["get", "-Hp", "-o", "value"]);
    out.push(format!("written@{snapshot}").into());
    out.push(dataset.as_str().into());
    out
}

/// The types that a listing of snapshots asks for.
pub(crate) const SNAPSHOTS: &str = "snapshot";
/// The types that a listing of lineages asks for.
pub(crate) const LINEAGES: &str = "filesystem,volume,snapshot,bookmark";

/// The columns that [`list_lineages`] asks for, in this order.
pub(crate) const LINEAGE_COLUMNS: &[&str] = &[
    "name",
    "guid",
    "createtxg",
    "creation",
    "written",
    "encryption",
    "quota",
    "refquota",
    "reservation",
    "refreservation",
    "receive_resume_token",
    TAKEN,
    UNSEEDED,
    DIGEST,
    // Costs nothing here: `creation` and `written` have asked for all of a snapshot's properties already.
    "userrefs",
    ORIGIN,
];

/// Exactly these datasets with their snapshots and bookmarks, and the datasets right below without theirs.
pub(crate) fn list_lineages<'a>(datasets: impl IntoIterator<Item = &'a DatasetName>) -> Args {
    let mut out = args(["list", "-Hp", "-t", LINEAGES, "-d", "1", "-o"]);
    out.push(rows::columns(LINEAGE_COLUMNS).into());
    names(&mut out, datasets);
    out
}

/// What is said of a stream while it is made, on standard error, exactly and in a form for programs
/// ([`progress`](super::progress)).
const FOLLOWED: [&str; 3] = ["send", "-P", "-v"];

/// What a stream is made with. The same for each of a pair's streams: one without large blocks after one with them is
/// refused (TRAPS).
fn sending(form: Form) -> Args {
    let mut out = args(FOLLOWED);
    if form != Form::Decrypted {
        out.push("-p".into());
    }
    out.extend(args(["-L", "-c", "-e"]));
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

/// Receives, unmounted (`-u`) and resumably (`-s`), with what must not come along left out.
pub(crate) fn receive(dataset: &DatasetName, own: &[(&str, &str)]) -> Args {
    let mut out = args(["receive", "-s", "-u"]);
    for property in NEVER_RECEIVED {
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

/// Keeps a snapshot usable as the base of an increment after it is gone.
pub(crate) fn bookmark(dataset: &DatasetName, snapshot: &SnapshotName, bookmark: &SnapshotName) -> Args {
    let mut out = args(["bookmark"]);
    out.push(full(dataset, snapshot).into());
    out.push(format!("{dataset}#{bookmark}").into());
    out
}

/// The channel program that [`bookmark_all`] runs, given on standard input. It ends at the first that fails, and
/// what it made until then stays.
pub(crate) const BOOKMARK_ALL: &str = "\
args = ...
list = args[\"argv\"]
for at = 1, #list, 2 do
  code = zfs.sync.bookmark(list[at], list[at + 1])
  if code ~= 0 and code ~= EEXIST then
    error(list[at] .. \": \" .. code)
  end
end
";

/// Bookmarks of snapshots of one pool, in one transaction group. Only root may.
pub(crate) fn bookmark_all<'a>(
    pool: &str,
    wanted: impl IntoIterator<Item = (&'a DatasetName, &'a SnapshotName, &'a SnapshotName)>,
) -> Args {
    let mut out = args(["program", pool, "-"]);
    for (dataset, snapshot, bookmark) in wanted {
        out.push(full(dataset, snapshot).into());
        out.push(format!("{dataset}#{bookmark}").into());
    }
    out
}

/// Removes one bookmark.
pub(crate) fn destroy_bookmark(dataset: &DatasetName, bookmark: &SnapshotName) -> Args {
    let mut out = args(["destroy"]);
    out.push(format!("{dataset}#{bookmark}").into());
    out
}

/// How a dataset is encrypted.
pub(crate) fn get_encryption(dataset: &DatasetName) -> Args {
    args(["get", "-Hp", "-o", "value", "encryption", dataset.as_str()])
}

/// What is delegated on a dataset and on those above it.
pub(crate) fn allowed(dataset: &DatasetName) -> Args {
    args(["allow", dataset.as_str()])
}

/// What is set on a dataset itself, or came with it.
pub(crate) fn get_own(dataset: &DatasetName) -> Args {
    args([
        "get",
        "-Hp",
        "-s",
        "local,received",
        "-o",
        "name,property,value,source",
        "all",
        dataset.as_str(),
    ])
}

/// A dataset's own value of a property; nothing when it has none.
pub(crate) fn get_local(dataset: &DatasetName, property: &str) -> Args {
    args([
        "get",
        "-Hp",
        "-s",
        "local",
        "-o",
        "value",
        property,
        dataset.as_str(),
    ])
}

/// Whether a dataset's encryption key is loaded.
pub(crate) fn get_keystatus(dataset: &DatasetName) -> Args {
    args(["get", "-Hp", "-o", "value", "keystatus", dataset.as_str()])
}

/// Every imported pool with its health.
pub(crate) fn list_pools() -> Args {
    args(["list", "-Hp", "-o", "name,health"])
}

/// The versions of the tool and of the kernel module.
pub(crate) fn version() -> Args {
    args(["version"])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn ds(name: &str) -> DatasetName {
        DatasetName::new(name).unwrap()
    }

    pub(crate) fn snap(name: &str) -> SnapshotName {
        SnapshotName::new(name).unwrap()
    }

    fn line(args: &Args) -> String {
        let words: Vec<_> = args.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    /// No vector can take more than it names.
    fn harmless(args: &Args) {
        let words: Vec<_> = args
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        assert!(words[0] != "rollback", "{words:?}");
        for flag in ["-r", "-R", "-d", "-f", "-F", "-rR"] {
            let allowed = matches!(words[0].as_str(), "list" | "get") && flag == "-d";
            assert!(allowed || !words.iter().any(|word| word == flag), "{words:?}");
        }
        if words[0] == "destroy" {
            assert_eq!(words.len(), 2, "{words:?}");
            assert!(!words[1].contains('%'), "a range: {words:?}");
        }
    }

    #[test]
    fn vectors_are_as_expected() {
        let (a, b, at) = (ds("tank/a b"), ds("tank/c"), snap("one two"));
        let tag = HoldTag::new("reseed:x").unwrap();
        let all = [
            (
                get_facts([&a, &b], 255),
                "get -Hp -o name,property,value,source type,guid,mountpoint,canmount,origin,receive_resume_token,\
                 reseed:marker,reseed:stage,reseed:end-00000000000000ff tank/a b tank/c",
            ),
            (
                list_snapshots([&a]),
                "list -Hp -t snapshot -d 1 -o name,guid,createtxg,creation,userrefs,referenced,reseed:taken,\
                 reseed:unseeded,reseed:digest,name tank/a b",
            ),
            (
                list_these([(&a, &at)]),
                "list -Hp -t snapshot -o name,guid,createtxg,creation,userrefs,referenced,reseed:taken,\
                 reseed:unseeded,reseed:digest,name tank/a b@one two",
            ),
            (
                apart(SNAPSHOT_COLUMNS, Some(SNAPSHOTS), [a.as_str()], 255),
                "get -Hp -d 1 -t snapshot -o name,property,value guid,createtxg,creation,userrefs,referenced,\
                 reseed:taken,reseed:unseeded,reseed:digest,reseed:end-00000000000000ff tank/a b",
            ),
            (
                apart(&["name", "guid", TAKEN], None, ["tank/a b@one two"], 1),
                "get -Hp -o name,property,value guid,reseed:taken,reseed:end-0000000000000001 tank/a b@one two",
            ),
            (
                list_children(&b),
                "list -Hp -t filesystem,volume -d 1 -o name tank/c",
            ),
            (
                list_origins(&b),
                "list -Hp -t filesystem,volume -d 1 -o name,reseed:origin tank/c",
            ),
            (
                get_origins([&a, &b]),
                "get -Hp -s local -o name,value reseed:origin tank/a b tank/c",
            ),
            (holds([(&a, &at)]), "holds -H tank/a b@one two"),
            (
                hold(&tag, [(&a, &at), (&b, &at)]),
                "hold reseed:x tank/a b@one two tank/c@one two",
            ),
            (release(&tag, [(&b, &at)]), "release reseed:x tank/c@one two"),
            (
                snapshot([&a, &b], &at, &[(TAKEN, "t"), (UNSEEDED, "on")]),
                "snapshot -o reseed:taken=t -o reseed:unseeded=on tank/a b@one two tank/c@one two",
            ),
            (
                set(&b, &[("canmount", "on"), (MARKER, "{}")]),
                "set canmount=on reseed:marker={} tank/c",
            ),
            (
                set_on_snapshot(&b, &at, &[(DIGEST, "d")]),
                "set reseed:digest=d tank/c@one two",
            ),
            (inherit(&b, STAGE), "inherit reseed:stage tank/c"),
            (
                destroy_snapshots(&b, [&at, &snap("x")]),
                "destroy tank/c@one two,x",
            ),
            (destroy_dataset(&b), "destroy tank/c"),
            (
                create(&b, &[("canmount", "off")]),
                "create -o canmount=off tank/c",
            ),
            (
                clone((&a, &at), &b, &[("canmount", "noauto")]),
                "clone -o canmount=noauto tank/a b@one two tank/c",
            ),
            (promote(&b), "promote tank/c"),
            (rename(&a, &b), "rename -u tank/a b tank/c"),
            (mount(&b), "mount tank/c"),
            (unmount(&b), "unmount tank/c"),
            (
                list_lineages([&b]),
                "list -Hp -t filesystem,volume,snapshot,bookmark -d 1 -o name,guid,createtxg,creation,written,\
                 encryption,quota,refquota,reservation,refreservation,receive_resume_token,reseed:taken,reseed:unseeded,reseed:digest,userrefs,reseed:origin,name tank/c",
            ),
            (allowed(&b), "allow tank/c"),
            (
                bookmark_all("tank", [(&a, &at, &snap("m")), (&b, &at, &snap("m"))]),
                "program tank - tank/a b@one two tank/a b#m tank/c@one two tank/c#m",
            ),
            (
                send_full(&b, &at, Form::Plain),
                "send -P -v -p -L -c -e tank/c@one two",
            ),
            (
                send_since(&b, &at, &snap("x"), Form::Raw),
                "send -P -v -p -L -c -e -w -I @one two tank/c@x",
            ),
            (
                send_since_bookmark(&b, &snap("m"), &at, Form::Decrypted),
                "send -P -v -L -c -e -i tank/c#m tank/c@one two",
            ),
            (send_rest("1-ab"), "send -P -v -t 1-ab"),
            (decode_token("1-ab"), "send -nvPt 1-ab"),
            (
                receive(&b, &[("canmount", "noauto"), ("readonly", "on")]),
                "receive -s -u -x mountpoint -x sharenfs -x sharesmb -x quota -x refquota -x reservation \
                 -x refreservation -x org.openzfs.systemd:ignore -x reseed:marker -x reseed:stage -x reseed:origin \
                 -x reseed:settings -o canmount=noauto -o readonly=on tank/c",
            ),
            (receive_rest(&b), "receive -s -u tank/c"),
            (receive_abort(&b), "receive -A tank/c"),
            (bookmark(&b, &at, &snap("m")), "bookmark tank/c@one two tank/c#m"),
            (destroy_bookmark(&b, &snap("m")), "destroy tank/c#m"),
            (get_encryption(&b), "get -Hp -o value encryption tank/c"),
            (
                get_local(&b, SETTINGS),
                "get -Hp -s local -o value reseed:settings tank/c",
            ),
            (get_keystatus(&b), "get -Hp -o value keystatus tank/c"),
            (get_written(&b, &at), "get -Hp -o value written@one two tank/c"),
            (list_pools(), "list -Hp -o name,health"),
            (version(), "version"),
        ];
        for (args, expected) in &all {
            harmless(args);
            assert_eq!(line(args), *expected);
        }
    }
}
