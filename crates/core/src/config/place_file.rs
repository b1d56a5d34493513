//! Stores and replicas as people write them: which keys there are depends on `type`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::bandwidth::Bandwidth;
use super::declared::Flag;
use super::decode::{At, Decode, Field as _, Maybe, Must, choice, record, table};
use super::diagnostic::Sink;
use super::node::Node;
use super::values::{AbsPath, AtOnce, DatasetRef, Port, SecretPath, SshHost, SshUser};

choice! {
    /// What a store or a replica is.
    pub(crate) PlaceType ("store type") {
        /// A plain directory; needs nothing installed.
        Directory = "directory",
        /// ZFS datasets.
        Zfs = "zfs",
    }
}

choice! {
    /// A plain directory; needs nothing installed.
    pub(crate) DirectoryType ("store type") {
        /// A plain directory; needs nothing installed.
        Directory = "directory",
    }
}

choice! {
    /// ZFS datasets.
    pub(crate) ZfsType ("store type") {
        /// ZFS datasets.
        Zfs = "zfs",
    }
}

choice! {
    /// How a replica's datasets are named.
    pub ReplicaNames ("way to name replicas") {
        /// `tank/a` below `backup/nas` is `backup/nas/tank/a`: two pools never meet.
        WithPool = "with-pool",
        /// `tank/a` below `backup/nas` is `backup/nas/a`, as syncoid has it.
        WithoutPool = "without-pool",
    }
}

choice! {
    /// What sends to a replica.
    pub Sender ("sender") {
        /// reseed itself, by `zfs send` and `zfs receive`.
        Native = "native",
        /// The real syncoid, with its non-destructive flags only.
        Syncoid = "syncoid",
    }
}

record! {
    /// A plain directory.
    DirectoryFile {
        /// What it is.
        kind: Must<DirectoryType> = "type",
        /// Its directory.
        path: Must<AbsPath> = "path",
    }
}

record! {
    /// Snapshots of ZFS datasets, in the datasets themselves.
    ZfsStoreFile {
        /// What it is.
        kind: Must<ZfsType> = "type",
        /// The pool or dataset that the services' datasets are below.
        root: Must<DatasetRef> = "root",
    }
}

record! {
    /// Copies of ZFS datasets in another pool.
    ZfsReplicaFile {
        /// What it is.
        kind: Must<ZfsType> = "type",
        /// The dataset that all copies are below.
        root: Must<DatasetRef> = "root",
        /// How the copies are named. Default: `with-pool`.
        mapping: Maybe<ReplicaNames> = "mapping",
        /// Send encrypted datasets as they are, so that the replica needs no key. Default: true.
        raw: Maybe<Flag> = "raw",
        /// The most that each stream to it may have. Needs `pv`. Default: no limit.
        bandwidth: Maybe<Bandwidth> = "bandwidth",
        /// How many datasets are sent to it at once. Default: 2.
        at_once: Maybe<AtOnce> = "at_once",
        /// What sends to it. Default: `native`.
        sender: Maybe<Sender> = "sender",
        /// The machine that the pool is on. Default: this one.
        ssh: Maybe<SshFile> = "ssh",
    }
}

record! {
    /// How another machine is reached.
    SshFile {
        /// Its name or address.
        host: Must<SshHost> = "host",
        /// Who to log in as. Default: as ssh's own configuration says.
        user: Maybe<SshUser> = "user",
        /// The port. Default: as ssh's own configuration says.
        port: Maybe<Port> = "port",
        /// The file with the private key. No other key is offered then.
        key_file: Maybe<SecretPath> = "key_file",
        /// The file with the host's key, as `ssh-keyscan` writes it. Another key is refused.
        known_hosts: Must<AbsPath> = "known_hosts",
    }
}

/// A store.
#[derive(Debug)]
pub(crate) enum StoreFile {
    Directory(DirectoryFile),
    Zfs(ZfsStoreFile),
}

/// A replica.
#[derive(Debug)]
pub(crate) enum ReplicaFile {
    Directory(DirectoryFile),
    Zfs(Box<ZfsReplicaFile>),
}

/// The type is read first: what a key means, and whether there is one, hangs on it.
fn place_type(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<PlaceType> {
    let entries = table(node, at, sink)?;
    let entry = entries.iter().find(|entry| entry.key == "type");
    Must::read(entry, "type", at, sink).0.map(|(kind, _)| kind)
}

macro_rules! by_type {
    ($(#[doc = $doc:literal])+ $name:ident, $zfs:ident) => {
        impl Decode for $name {
            fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
                match place_type(node, at, sink)? {
                    PlaceType::Directory => DirectoryFile::decode(node, at, sink).map(Self::Directory),
                    PlaceType::Zfs => $zfs::decode(node, at, sink).map(|file| Self::Zfs(file.into())),
                }
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "description": concat!($($doc),+).trim(),
                    "oneOf": [generator.subschema_for::<DirectoryFile>(), generator.subschema_for::<$zfs>()],
                })
            }
        }
    };
}

by_type! {
    /// A place for snapshots.
    StoreFile, ZfsStoreFile
}

by_type! {
    /// A place for copies of snapshots.
    ReplicaFile, ZfsReplicaFile
}
