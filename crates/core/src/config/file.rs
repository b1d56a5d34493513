//! The configuration file's own shape, as people and Nix write it, before defaults and references.
//!
//! The doc comments of the fields are the descriptions of the JSON Schema.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::declared::{DatasetFile, Flag};
use super::decode::{At, Decode, List, Maybe, Must, Named, choice, record, table};
use super::diagnostic::{Extra, Sink, suggest};
use super::node::{Node, Value};
use super::place_file::{ReplicaFile, StoreFile};
use super::price::AmountFile;
use super::pulls::PullFile;
use super::text::quoted;
use super::values::{
    AbsPath, Argument, Count, DatasetKey, DatasetRef, HostName, Lasting, Reference, RelPath, Repository,
    SecretPath, SshUser, Tries, UnitName, Word,
};
use crate::names::{DatasetName, ServiceName, SourceName};
use crate::verify::Validator;

record! {
    /// The configuration of reseed.
    ConfigFile {
        /// What this machine is called in backups. Default: its host name.
        host: Maybe<HostName> = "host",
        /// Where journal, locks and caches are. Default: `/var/lib/reseed`.
        state_dir: Maybe<AbsPath> = "state_dir",
        /// Where live data's snapshots are.
        stores: Maybe<Named<SourceName, StoreFile>> = "stores",
        /// Where second copies of the snapshots are.
        replicas: Maybe<Named<SourceName, ReplicaFile>> = "replicas",
        /// ZFS datasets of other machines, whose copies are fetched to this one.
        pulls: Maybe<Named<SourceName, PullFile>> = "pulls",
        /// Repositories of backups.
        offsite: Maybe<Named<SourceName, OffsiteFile>> = "offsite",
        /// What holds for every service that doesn't say otherwise.
        defaults: Maybe<PolicyFile> = "defaults",
        /// ZFS datasets whose properties and snapshots are declared, by their full names.
        datasets: Maybe<Named<DatasetName, DatasetFile>> = "datasets",
        /// The services whose data is kept.
        services: Maybe<Named<ServiceName, ServiceFile>> = "services",
    }
}

choice! {
    /// What writes and reads a repository.
    pub(crate) OffsiteType ("repository type") {
        /// The engine inside reseed. restic reads what it writes, and the other way round.
        Embedded = "embedded",
        /// The restic program, 0.14 or newer.
        Restic = "restic",
    }
}

record! {
    /// A repository of backups.
    OffsiteFile {
        /// What writes and reads it. Default: `restic`.
        kind: Maybe<OffsiteType> = "type",
        /// Its directory, or its address as restic writes it: `s3:https://HOST/BUCKET/PREFIX`, `rest:https://HOST/PATH` or
        /// `sftp:USER@HOST:/PATH`.
        repository: Must<Repository> = "repository",
        /// A file with the repository's password. Must not lie in the data of a service.
        password_file: Must<SecretPath> = "password_file",
        /// In S3: the file with the access key, as AWS's tools have it. Needed there.
        credentials_file: Maybe<SecretPath> = "credentials_file",
        /// In S3: the section of that file. Default: `default`.
        profile: Maybe<Word> = "profile",
        /// In S3: the bucket's region. Default: what the host's name tells, or `us-east-1`.
        region: Maybe<Word> = "region",
        /// In S3 and on a REST server: allow an address that begins with `http:`. Default: false.
        allow_http: Maybe<Flag> = "allow_http",
        /// On a REST server: who to log in as.
        server_user: Maybe<SshUser> = "server_user",
        /// On a REST server: a file with that user's password.
        server_password_file: Maybe<SecretPath> = "server_password_file",
        /// By sftp: the file with the host's key, as `ssh-keyscan` writes it. Another key is refused. Needed there.
        known_hosts: Maybe<AbsPath> = "known_hosts",
        /// By sftp: the file with the private key. No other key is offered then.
        key_file: Maybe<SecretPath> = "key_file",
        /// Which points `reseed offsite prune` keeps. Without it none is ever removed.
        keep: Maybe<KeepFile> = "keep",
        /// What its store takes, for `reseed offsite cost`. Default: the list price of B2 or S3, by the host's name.
        price: Maybe<PriceFile> = "price",
    }
}

record! {
    /// What a store takes.
    PriceFile {
        /// For keeping 10^12 bytes for a month.
        storage: Must<AmountFile> = "storage",
        /// For handing out 10^12 bytes. Default: 0.
        download: Maybe<AmountFile> = "download",
        /// As it is written behind an amount. Default: `USD`.
        currency: Maybe<Word> = "currency",
    }
}

record! {
    /// Which points of a service stay in a repository: those that one of the rules wants, as restic counts them.
    KeepFile {
        /// All that are at most so much older than the newest.
        within: Maybe<Lasting> = "within",
        /// The newest so many.
        last: Maybe<Count> = "last",
        /// The newest of each of so many hours that have one.
        hourly: Maybe<Count> = "hourly",
        /// The newest of each of so many days that have one.
        daily: Maybe<Count> = "daily",
        /// The newest of each of so many weeks that have one.
        weekly: Maybe<Count> = "weekly",
        /// The newest of each of so many months that have one.
        monthly: Maybe<Count> = "monthly",
        /// The newest of each of so many years that have one.
        yearly: Maybe<Count> = "yearly",
    }
}

choice! {
    /// Which recovery point is tried first.
    pub Prefer ("way to choose") {
        /// The chain's order counts: the first source's newest point.
        Chain = "chain",
        /// Age counts: the newest point, whichever source has it.
        Newest = "newest",
    }
}

choice! {
    /// What happens when every source failed, and at least one of them could not be asked or was corrupt.
    pub WhenExhausted ("way to go on") {
        /// Start without data, warn, and guard older recovery points.
        StartEmpty = "start-empty",
        /// Don't start.
        Hold = "hold",
    }
}

choice! {
    /// What has to match before restored data becomes live.
    pub Verify ("level of verification") {
        /// The tree digest that was recorded when the point was taken, and the source's own checks.
        Digest = "digest",
        /// The source's own checks alone.
        Source = "source",
    }
}

macro_rules! policy_record {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $fdoc:literal])+ $field:ident : $ty:ty = $key:literal,)* }) => {
        record! {
            $(#[doc = $doc])+
            $name {
                $($(#[doc = $fdoc])+ $field: $ty = $key,)*
                /// The store with the live data's snapshots. Default: the only one.
                store: Maybe<Reference> = "store",
                /// The replicas that get copies. Default: all.
                replicas: Maybe<List<Reference>> = "replicas",
                /// The repositories that get backups. Default: all.
                offsite: Maybe<List<Reference>> = "offsite",
                /// The sources of a restore, in order. Default: the store, the replicas, the repositories.
                chain: Maybe<List<Reference>> = "chain",
                /// Whether the chain's order or the points' age decides. Default: `chain`.
                prefer: Maybe<Prefer> = "prefer",
                /// What to do when no source could deliver. Default: `start-empty`.
                when_exhausted: Maybe<WhenExhausted> = "when_exhausted",
                /// What has to match before restored data becomes live. Default: `digest`.
                verify: Maybe<Verify> = "verify",
                /// The time for the whole chain. Default: `55m`; keep it below the unit's TimeoutStartSec.
                budget: Maybe<Lasting> = "budget",
                /// The time for one source. Default: `20m`, or the budget if that is less.
                source_budget: Maybe<Lasting> = "source_budget",
                /// How often a source is tried when trying again can help. Default: 3.
                tries: Maybe<Tries> = "tries",
                /// How many snapshots of the store are kept.
                retention: Maybe<RetentionFile> = "retention",
            }
        }

        impl $name {
            /// The keys that services and defaults share.
            pub(crate) fn policy(&self) -> PolicyKeys<'_> {
                PolicyKeys {
                    store: &self.store,
                    replicas: &self.replicas,
                    offsite: &self.offsite,
                    chain: &self.chain,
                    prefer: &self.prefer,
                    when_exhausted: &self.when_exhausted,
                    verify: &self.verify,
                    budget: &self.budget,
                    source_budget: &self.source_budget,
                    tries: &self.tries,
                    retention: &self.retention,
                }
            }
        }
    };
}

policy_record! {
    /// What holds for every service that doesn't say otherwise.
    PolicyFile {}
}

impl PolicyFile {
    /// Says nothing about anything.
    pub(crate) fn empty() -> Self {
        Self {
            store: Maybe::Absent,
            replicas: Maybe::Absent,
            offsite: Maybe::Absent,
            chain: Maybe::Absent,
            prefer: Maybe::Absent,
            when_exhausted: Maybe::Absent,
            verify: Maybe::Absent,
            budget: Maybe::Absent,
            source_budget: Maybe::Absent,
            tries: Maybe::Absent,
            retention: Maybe::Absent,
        }
    }
}

policy_record! {
    /// A service whose data is kept.
    ServiceFile {
        /// The directory with its data. Either this or `datasets`.
        path: Maybe<AbsPath> = "path",
        /// Directories that are snapshotted together, by name.
        datasets: Maybe<Named<DatasetKey, AbsPath>> = "datasets",
        /// On a ZFS store: the dataset that the data is in or, with `datasets`, that they are below. Default: `ROOT/SERVICE`.
        dataset: Maybe<DatasetRef> = "dataset",
        /// The systemd unit that uses the data.
        unit: Maybe<UnitName> = "unit",
        /// Checks of restored data: a list, or, with `datasets`, a list for each dataset.
        validators: Maybe<Validators> = "validators",
    }
}

/// Borrowed from a service or the defaults.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PolicyKeys<'a> {
    pub(crate) store: &'a Maybe<Reference>,
    pub(crate) replicas: &'a Maybe<List<Reference>>,
    pub(crate) offsite: &'a Maybe<List<Reference>>,
    pub(crate) chain: &'a Maybe<List<Reference>>,
    pub(crate) prefer: &'a Maybe<Prefer>,
    pub(crate) when_exhausted: &'a Maybe<WhenExhausted>,
    pub(crate) verify: &'a Maybe<Verify>,
    pub(crate) budget: &'a Maybe<Lasting>,
    pub(crate) source_budget: &'a Maybe<Lasting>,
    pub(crate) tries: &'a Maybe<Tries>,
    pub(crate) retention: &'a Maybe<RetentionFile>,
}

record! {
    /// How many snapshots of each kind the store keeps, as sanoid counts them.
    RetentionFile {
        /// Several an hour. Default: 0.
        frequently: Maybe<Count> = "frequently",
        /// Default: 24.
        hourly: Maybe<Count> = "hourly",
        /// Default: 7.
        daily: Maybe<Count> = "daily",
        /// Default: 4.
        weekly: Maybe<Count> = "weekly",
        /// Default: 6.
        monthly: Maybe<Count> = "monthly",
        /// Default: 0.
        yearly: Maybe<Count> = "yearly",
    }
}

/// The checks of a service: of its one dataset, or by dataset.
#[derive(Debug)]
pub(crate) enum Validators {
    Only(List<Validator>),
    Each(Named<DatasetKey, List<Validator>>),
}

impl Decode for Validators {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        match &node.value {
            Value::Table(_) => Named::decode(node, at, sink).map(Self::Each),
            _ => List::decode(node, at, sink).map(Self::Only),
        }
    }
}

impl JsonSchema for Validators {
    fn schema_name() -> Cow<'static, str> {
        "Validators".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            List::<Validator>::json_schema(generator),
            Named::<DatasetKey, List<Validator>>::json_schema(generator),
        ] })
    }
}

record! {
    /// A path in the dataset.
    PathFile {
        /// Relative to the dataset's root.
        path: Must<RelPath> = "path",
    }
}

record! {
    /// A program to run.
    CommandFile {
        /// The argument vector; no shell.
        argv: Must<List<Argument>> = "argv",
    }
}

const VALIDATORS: [&str; 3] = ["sqlite", "exists", "command"];

impl Decode for Validator {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        let entries = table(node, at, sink)?;
        let [entry] = entries else {
            let message = format!("`{at}` has {} keys; a validator has one", entries.len());
            let hint = "write one table for each, as in { exists = { path = \"config.xml\" } }";
            sink.error(at, &node.span, message, Extra::hint(hint));
            return None;
        };
        let here = at.key(&entry.key, &entry.key_span);
        let path = |sink: &mut Sink<'_>| {
            PathFile::decode(&entry.node, &here, sink)?
                .path
                .0
                .map(|(path, _)| path.0)
        };
        match entry.key.as_str() {
            "sqlite" => path(sink).map(|path| Self::Sqlite { path }),
            "exists" => path(sink).map(|path| Self::Exists { path }),
            "command" => {
                let (argv, span) = CommandFile::decode(&entry.node, &here, sink)?.argv.0?;
                let argv: Vec<String> = argv.0.into_iter().map(|(argument, _)| argument.0).collect();
                check_program(&argv, &here, &span, sink)?;
                Some(Self::Command { argv })
            }
            other => {
                let message = format!("{} is not a validator", quoted(other));
                sink.error(
                    here,
                    &entry.key_span,
                    message,
                    Extra::hint(suggest(other, "validators", &VALIDATORS)),
                );
                None
            }
        }
    }
}

/// The command runs in the root of restored data, so a relative program would be one that the backup brought along.
fn check_program(argv: &[String], at: &At<'_>, span: &super::text::Span, sink: &mut Sink<'_>) -> Option<()> {
    let (message, hint) = match argv.first().map(String::as_str) {
        None => (
            "the command is empty".to_owned(),
            "give the program and its arguments, as in [\"/usr/bin/true\"]",
        ),
        Some("") => (
            "the program's name is empty".to_owned(),
            "give its path, as in [\"/usr/bin/true\"]",
        ),
        Some(program) if program.contains('/') && !program.starts_with('/') => (
            format!(
                "{} is a relative path, and would be looked for in the restored data",
                quoted(program)
            ),
            "give the program's whole path, or its name alone to have it looked up in PATH",
        ),
        Some(program) if program.contains(char::is_whitespace) && argv.len() == 1 => (
            format!(
                "{} has spaces in it, and no shell takes it apart",
                quoted(program)
            ),
            "write each argument as a text of its own",
        ),
        Some(_) => return Some(()),
    };
    sink.error(at, span, message, Extra::hint(hint));
    None
}
