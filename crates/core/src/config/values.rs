//! The single values of the configuration: names, paths, durations, counts; each with its reader and its schema.

use std::borrow::Cow;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::decode::{At, Decode, Key, wrong_type};
use super::diagnostic::{Extra, Sink};
use super::location::{RepoLocation, S3Location, SftpLocation, rest_server};
use super::node::{Node, Value};
use super::text::quoted;
use super::units::{UNITS_HINT, parse_duration, repair};
use crate::names::{DatasetName, InvalidName, ServiceName, SourceName};

/// The longest path that Linux takes, with its NUL.
const PATH_MAX: usize = 4096;

/// An inline schema for a value type.
macro_rules! value_schema {
    ($name:ty, $($json:tt)+) => {
        impl JsonSchema for $name {
            fn inline_schema() -> bool { true }
            fn schema_name() -> Cow<'static, str> { stringify!($name).into() }
            fn json_schema(_: &mut SchemaGenerator) -> Schema { json_schema!($($json)+) }
        }
    };
}

pub(crate) use value_schema;

fn text<'n>(node: &'n Node, at: &At<'_>, sink: &mut Sink<'_>, example: &str) -> Option<&'n str> {
    match &node.value {
        Value::Text(text) => Some(text),
        _ => wrong_type(
            node,
            at,
            sink,
            "a text",
            Some(format!("write it in quotes, as in {example}")),
        ),
    }
}

fn bad<T>(
    node: &Node,
    at: &At<'_>,
    sink: &mut Sink<'_>,
    message: String,
    hint: impl Into<String>,
) -> Option<T> {
    sink.error(at, &node.span, message, Extra::hint(hint));
    None
}

/// An absolute path without `.`, `..`, doubled or trailing slashes, and not the root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AbsPath(pub(crate) PathBuf);
value_schema!(AbsPath, { "type": "string", "pattern": "^/.*[^/]" });

impl Decode for AbsPath {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        let text = text(node, at, sink, "\"/srv/data\"")?;
        match absolute(text) {
            Ok(path) => Some(Self(path)),
            Err((why, hint)) => bad(node, at, sink, format!("{} {why}", quoted(text)), hint),
        }
    }
}

/// The path of a file with a secret. What stands in its place may be the secret itself, so no message quotes it.
#[derive(Debug, Clone)]
pub(crate) struct SecretPath(pub(crate) PathBuf);
value_schema!(SecretPath, { "type": "string", "pattern": "^/.*[^/]" });

impl Decode for SecretPath {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        let text = text(node, at, sink, "\"/run/secrets/restic\"")?;
        match absolute(text) {
            Ok(path) => Some(Self(path)),
            Err((why, hint)) => {
                let hint = format!("{hint}; the secret itself has no place in a configuration");
                bad(node, at, sink, format!("`{at}` {why}"), hint)
            }
        }
    }
}

fn absolute(text: &str) -> Result<PathBuf, (String, String)> {
    plain_characters(text)?;
    let path = Path::new(text);
    if !path.is_absolute() {
        let hint = match text.as_bytes().first() {
            Some(b'~' | b'$') => "neither `~` nor `$` is expanded: write the whole path, beginning with `/`",
            _ => "write the whole path, beginning with `/`",
        };
        return Err(("is not an absolute path".to_owned(), hint.to_owned()));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err((
            "climbs up with `..`".to_owned(),
            "write the path that it leads to".to_owned(),
        ));
    }
    // Collecting components drops doubled and trailing slashes and `.`, which are not mistakes.
    let path: PathBuf = path.components().collect();
    if path.parent().is_none() {
        return Err((
            "is the root of the file system".to_owned(),
            "name the directory that is meant".to_owned(),
        ));
    }
    Ok(path)
}

fn plain_characters(text: &str) -> Result<(), (String, String)> {
    if text.len() >= PATH_MAX {
        let why = format!(
            "is {} bytes long, and no path has more than {}",
            text.len(),
            PATH_MAX - 1
        );
        return Err((why, "write the path itself".to_owned()));
    }
    if let Some(c) = text.chars().find(|c| c.is_control()) {
        let what = if c == '\0' {
            "a NUL".to_owned()
        } else {
            format!("the control character {c:?}")
        };
        return Err((
            format!("holds {what}"),
            "remove it, or name the directory otherwise".to_owned(),
        ));
    }
    Ok(())
}

/// A path inside a dataset: relative, and it stays inside.
#[derive(Debug, Clone)]
pub(crate) struct RelPath(pub(crate) PathBuf);
value_schema!(RelPath, { "type": "string", "minLength": 1, "pattern": "^[^/]" });

impl Decode for RelPath {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        let text = text(node, at, sink, "\"config.xml\"")?;
        let hint = "write it relative to the root of the service's data, as in \"db/main.sqlite\"";
        if let Err((why, hint)) = plain_characters(text) {
            return bad(node, at, sink, format!("{} {why}", quoted(text)), hint);
        }
        let path = Path::new(text);
        if text.is_empty() {
            return bad(node, at, sink, format!("`{at}` is empty"), hint);
        }
        if path.is_absolute() {
            return bad(
                node,
                at,
                sink,
                format!("{} is an absolute path", quoted(text)),
                hint,
            );
        }
        if path.components().any(|part| part == Component::ParentDir) {
            return bad(
                node,
                at,
                sink,
                format!("{} climbs up with `..`", quoted(text)),
                hint,
            );
        }
        Some(Self(
            path.components()
                .filter(|part| *part != Component::CurDir)
                .collect(),
        ))
    }
}

/// The place of an off-site repository. Other kinds of addresses are recognised to say that they come later.
#[derive(Debug, Clone)]
pub(crate) struct Repository(pub(crate) RepoLocation);
value_schema!(Repository, { "type": "string", "pattern": "^(/.*[^/]|(s3|rest|sftp):.+)" });

impl Decode for Repository {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        let text = text(node, at, sink, "\"/mnt/nas/restic\"")?;
        let is_scheme =
            |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '+');
        let (why, hint) = match text.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) {
            None => return AbsPath::decode(node, at, sink).map(|path| Self(RepoLocation::Directory(path.0))),
            Some((scheme @ ("s3" | "rest" | "sftp"), rest)) => {
                let read = match scheme {
                    "s3" => S3Location::parse(rest).map(RepoLocation::S3),
                    "rest" => rest_server(rest).map(RepoLocation::Rest),
                    _ => SftpLocation::parse(rest).map(RepoLocation::Sftp),
                };
                match read {
                    Ok(location) => return Some(Self(location)),
                    // Not quoted: there may be a key in it.
                    Err((why, hint)) => (format!("the address `{at}` {why}"), hint),
                }
            }
            Some(("local", rest)) => (
                format!("{} is restic's way to write a path", quoted(text)),
                format!("write {rest:?}"),
            ),
            Some(("b2", _)) => (
                "repositories at `b2:` are reached by B2's S3 endpoint".to_owned(),
                "write \"s3:https://s3.REGION.backblazeb2.com/BUCKET/PREFIX\"; B2 shows the endpoint with the bucket"
                    .to_owned(),
            ),
            Some((scheme, _)) => (
                format!("repositories at `{scheme}:` are not supported yet"),
                "this version takes the path of a directory, as in \"/mnt/nas/restic\", or an address that begins with `s3:`, `rest:` or `sftp:`"
                    .to_owned(),
            ),
        };
        bad(node, at, sink, why, hint)
    }
}

/// A plain word: a region, a section of a file.
#[derive(Debug, Clone)]
pub(crate) struct Word(pub(crate) String);
value_schema!(Word, { "type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$" });

impl Decode for Word {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        let text = text(node, at, sink, "\"eu-central-1\"")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if (1..=64).contains(&text.len()) && text.chars().all(plain) {
            return Some(Self(text.to_owned()));
        }
        // Not quoted: in the place of a section's name there may be a key.
        let message = format!("`{at}` is not a plain word");
        bad(
            node,
            at,
            sink,
            message,
            "letters, digits, `.`, `-` and `_`, at most 64",
        )
    }
}

/// A duration of at least a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lasting(pub(crate) Duration);
value_schema!(Lasting, { "type": "string", "pattern": "^([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$", "minLength": 2 });

impl Decode for Lasting {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        let text = match &node.value {
            Value::Text(text) => text,
            Value::Integer(Some(number)) if *number > 0 => {
                let hint = format!("did you mean \"{number}m\", or \"{number}s\"? {UNITS_HINT}");
                return bad(node, at, sink, format!("`{at}` is a number without a unit"), hint);
            }
            Value::Integer(_) | Value::Float(_) => {
                return bad(
                    node,
                    at,
                    sink,
                    format!("`{at}` is a number without a unit"),
                    UNITS_HINT,
                );
            }
            _ => return wrong_type(node, at, sink, "a duration", Some(UNITS_HINT.to_owned())),
        };
        match parse_duration(text) {
            Ok(Duration::ZERO) => bad(
                node,
                at,
                sink,
                format!("`{at}` is no time at all"),
                "at least \"1s\"",
            ),
            Ok(duration) => Some(Self(duration)),
            Err(why) => {
                let hint = match repair(text) {
                    Some(meant) => format!("did you mean {meant:?}? {UNITS_HINT}"),
                    None => UNITS_HINT.to_owned(),
                };
                bad(node, at, sink, format!("{} {why}", quoted(text)), hint)
            }
        }
    }
}

pub(crate) fn number(node: &Node, at: &At<'_>, sink: &mut Sink<'_>, least: u32, most: u32) -> Option<u32> {
    let range = format!("a whole number from {least} to {most}");
    match &node.value {
        Value::Integer(number) => {
            let number = number.and_then(|number| u32::try_from(number).ok());
            match number.filter(|number| (least..=most).contains(number)) {
                Some(number) => Some(number),
                None => bad(node, at, sink, format!("`{at}` is out of range"), range),
            }
        }
        _ => wrong_type(
            node,
            at,
            sink,
            "a whole number",
            Some(format!("{range}, without quotes")),
        ),
    }
}

/// How many snapshots of a kind are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Count(pub(crate) u32);
value_schema!(Count, { "type": "integer", "minimum": 0, "maximum": 100_000 });

impl Decode for Count {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        number(node, at, sink, 0, 100_000).map(Self)
    }
}

/// How often a source is tried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tries(pub(crate) u32);
value_schema!(Tries, { "type": "integer", "minimum": 1, "maximum": 100 });

impl Decode for Tries {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        number(node, at, sink, 1, 100).map(Self)
    }
}

/// How many datasets are sent at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AtOnce(pub(crate) u32);
value_schema!(AtOnce, { "type": "integer", "minimum": 1, "maximum": 32 });

impl Decode for AtOnce {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        number(node, at, sink, 1, 32).map(Self)
    }
}

/// The name of this machine in backups.
#[derive(Debug, Clone)]
pub(crate) struct HostName(pub(crate) String);
value_schema!(HostName, { "type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$" });

impl HostName {
    pub(crate) fn check(text: &str) -> Option<Self> {
        let good = text.len() <= 64
            && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        good.then(|| Self(text.to_owned()))
    }
}

impl Decode for HostName {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        let text = text(node, at, sink, "\"nas\"")?;
        match Self::check(text) {
            Some(name) => Some(name),
            None => bad(
                node,
                at,
                sink,
                format!("{} is not a host name", quoted(text)),
                "letters, digits, `.`, `-` and `_`, at most 64, beginning with a letter or digit",
            ),
        }
    }
}

/// A systemd unit's full name.
#[derive(Debug, Clone)]
pub(crate) struct UnitName(pub(crate) String);
value_schema!(UnitName, { "type": "string", "pattern": "^[A-Za-z0-9:_.\\\\@-]+\\.(service|target|socket|mount|path|timer|slice|scope)$" });

/// What a unit's name can end in (systemd.unit(5)), less the kinds that nothing can wait behind.
const UNIT_TYPES: [&str; 8] = [
    "service", "target", "socket", "mount", "path", "timer", "slice", "scope",
];

impl Decode for UnitName {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        let text = text(node, at, sink, "\"sonarr.service\"")?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || ":_.\\@-".contains(c);
        if text.is_empty() || text.len() > 255 || text.starts_with('-') || !text.chars().all(allowed) {
            let hint = "a unit's name has letters, digits and `:_.\\@-`, as in \"sonarr.service\"";
            return bad(
                node,
                at,
                sink,
                format!("{} is not the name of a systemd unit", quoted(text)),
                hint,
            );
        }
        match text.rsplit_once('.') {
            Some((stem, kind)) if !stem.is_empty() && UNIT_TYPES.contains(&kind) => {
                Some(Self(text.to_owned()))
            }
            _ => bad(
                node,
                at,
                sink,
                format!("{} does not say what kind of unit it is", quoted(text)),
                format!("did you mean {:?}?", format!("{text}.service")),
            ),
        }
    }
}

/// One argument of a command.
#[derive(Debug, Clone)]
pub(crate) struct Argument(pub(crate) String);
value_schema!(Argument, { "type": "string" });

impl Decode for Argument {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        let text = text(node, at, sink, "\"--check\"")?;
        if text.contains('\0') {
            return bad(
                node,
                at,
                sink,
                format!("{} holds a NUL", quoted(text)),
                "remove it",
            );
        }
        Some(Self(text.to_owned()))
    }
}

/// A reference to a store, replica or repository.
#[derive(Debug, Clone)]
pub(crate) struct Reference(pub(crate) String);
value_schema!(Reference, { "type": "string" });

impl Decode for Reference {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        text(node, at, sink, "\"local\"").map(|text| Self(text.to_owned()))
    }
}

type BadKey = (String, Option<&'static str>);

fn bad_name(error: &InvalidName) -> BadKey {
    (
        error.to_string(),
        Some("letters, digits, `_`, `-` and `.`, at most 64"),
    )
}

fn not_hidden(what: &str, text: &str) -> Result<(), BadKey> {
    match text.starts_with('.') {
        true => Err((
            format!("{} is not a {what}: it begins with `.`", quoted(text)),
            Some("such names are kept for reseed's own directories"),
        )),
        false => Ok(()),
    }
}

/// Whoever declares what reseed set aside has it made again, empty and without its record, when it is gone.
fn is_reseeds(text: &str) -> String {
    format!("{} can't be declared: it is reseed's own", quoted(text))
}

const RESEEDS: &str = "no part of a dataset's name may begin with `.reseed-`; take it out";

impl Key for DatasetName {
    const PATTERN: &'static str = "^[A-Za-z][A-Za-z0-9_.: /-]{0,255}$";

    fn parse(text: &str) -> Result<Self, BadKey> {
        let name = Self::new(text)
            .map_err(|error| (error.to_string(), Some("write it as `zfs list` does, in quotes")))?;
        match name.is_reseeds() {
            true => Err((is_reseeds(text), Some(RESEEDS))),
            false => Ok(name),
        }
    }
}

impl Key for ServiceName {
    fn parse(text: &str) -> Result<Self, BadKey> {
        not_hidden("service name", text)?;
        Self::new(text).map_err(|error| bad_name(&error))
    }
}

impl Key for SourceName {
    fn parse(text: &str) -> Result<Self, BadKey> {
        not_hidden("source name", text)?;
        // A store's name is the first part of the names of its datasets, which is held to ZFS's rules.
        match text.chars().next() {
            Some(c) if !c.is_ascii_alphabetic() && c.is_ascii_alphanumeric() => Err((
                format!(
                    "{} is not a source name: it does not begin with a letter",
                    quoted(text)
                ),
                Some("begin it with a letter, as ZFS wants it of names"),
            )),
            Some('_') => Err((
                format!(
                    "{} is not a source name: it does not begin with a letter",
                    quoted(text)
                ),
                Some("begin it with a letter, as ZFS wants it of names"),
            )),
            _ => Self::new(text).map_err(|error| bad_name(&error)),
        }
    }
}

/// The key of one of several datasets of a service: the last part of its dataset's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DatasetKey(pub(crate) String);

impl Key for DatasetKey {
    fn parse(text: &str) -> Result<Self, BadKey> {
        not_hidden("dataset name", text)?;
        match ServiceName::new(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => Err(bad_name(&InvalidName {
                what: "dataset name",
                ..error
            })),
        }
    }
}

/// The name of a pool or dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DatasetRef(pub(crate) DatasetName);
value_schema!(DatasetRef, { "type": "string", "pattern": DatasetName::PATTERN });

impl Decode for DatasetRef {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        let text = text(node, at, sink, "\"tank/services\"")?;
        if text.starts_with('/') {
            let hint = match text.trim_matches('/') {
                "" => "name a pool or a dataset, as `zfs list` does".to_owned(),
                name => format!("a dataset's name begins with its pool: did you mean {name:?}?"),
            };
            let message = format!("{} is a path, not the name of a dataset", quoted(text));
            return bad(node, at, sink, message, hint);
        }
        match DatasetName::new(text) {
            Ok(name) if name.is_reseeds() => bad(node, at, sink, is_reseeds(text), RESEEDS),
            Ok(name) => Some(Self(name)),
            Err(error) => bad(node, at, sink, error.to_string(), "write it as `zfs list` does"),
        }
    }
}

/// A host's name, address, or alias of ssh's configuration.
#[derive(Debug, Clone)]
pub(crate) struct SshHost(pub(crate) String);
value_schema!(SshHost, { "type": "string", "pattern": "^[A-Za-z0-9_.:%\\[\\]][A-Za-z0-9_.:%\\[\\]-]{0,254}$" });

/// A user's name on another machine.
#[derive(Debug, Clone)]
pub(crate) struct SshUser(pub(crate) String);
value_schema!(SshUser, { "type": "string", "pattern": "^[A-Za-z0-9_.][A-Za-z0-9_.-]{0,254}$" });

/// What ssh could take for an option, or a shell for more than a word, is none.
fn ssh_word(text: &str, more: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
    !text.is_empty() && text.len() <= 255 && !text.starts_with('-') && text.chars().all(plain)
}

impl Decode for SshHost {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        let text = text(node, at, sink, "\"nas.lan\"")?;
        if ssh_word(text, "_.-:%[]") {
            return Some(Self(text.to_owned()));
        }
        let hint = match text.split_once('@') {
            Some((user, host)) if ssh_word(user, "_.-") && ssh_word(host, "_.-:%[]") => {
                format!("write `host = {host:?}, user = {user:?}`")
            }
            _ => "the name or address that ssh connects to, as in \"nas.lan\"".to_owned(),
        };
        bad(node, at, sink, format!("{} is not a host", quoted(text)), hint)
    }
}

impl Decode for SshUser {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        let text = text(node, at, sink, "\"backup\"")?;
        if ssh_word(text, "_.-") {
            return Some(Self(text.to_owned()));
        }
        let message = format!("{} is not a user's name", quoted(text));
        bad(node, at, sink, message, "letters, digits, `.`, `-` and `_`")
    }
}

/// A TCP port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Port(pub(crate) u16);
value_schema!(Port, { "type": "integer", "minimum": 1, "maximum": 65535 });

impl Decode for Port {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        let number = number(node, at, sink, 1, 65535)?;
        u16::try_from(number).ok().map(Self)
    }
}
