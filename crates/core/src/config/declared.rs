//! The ZFS datasets that a configuration declares: their properties, and the snapshots that are taken and kept of them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

use super::decode::{At, Decode, Key, Maybe, Named, record, wrong_type};
use super::diagnostic::{Extra, Sink, suggest};
use super::node::{Node, Value};
use super::text::quoted;
use super::values::{Count, Reference};
use crate::layout::{self, PROFILES, PROPERTIES, Profile, Property};
use crate::names::DatasetName;
use crate::ownership::{Account, DirMode, Ownership};
use crate::retention::sanoid;

record! {
    /// A ZFS dataset that is declared.
    DatasetFile {
        /// Properties for one kind of data: `media`, `sqlite`, `postgres-data` or `postgres-wal`.
        profile: Maybe<Reference> = "profile",
        /// ZFS properties by name. They stand above the profile's.
        properties: Maybe<Named<PropertyName, PropertyValue>> = "properties",
        /// The user that its topmost directory belongs to: a name or a number. Default: left as it is.
        owner: Maybe<AccountValue> = "owner",
        /// The group that its topmost directory belongs to: a name or a number. Default: left as it is.
        group: Maybe<AccountValue> = "group",
        /// The permissions of its topmost directory in octal digits, as in "0750". Default: left as they are.
        mode: Maybe<ModeValue> = "mode",
        /// Which snapshots sanoid takes and keeps of it.
        snapshots: Maybe<SnapshotsFile> = "snapshots",
    }
}

record! {
    /// Which snapshots are taken and kept of a dataset, with sanoid's names and rules.
    SnapshotsFile {
        /// Take them. Default: true.
        take: Maybe<Flag> = "take",
        /// Prune them. Default: true.
        prune: Maybe<Flag> = "prune",
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
        /// Minutes between two of `frequently`. Default: 15.
        frequent_period: Maybe<Minutes> = "frequent_period",
        /// Prune only while the pool is fuller than so many percent. Default: 0, always.
        prune_defer: Maybe<Percent> = "prune_defer",
    }
}

/// The properties that are declared of a dataset, and its snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Declared {
    /// The shipped profile that its properties begin with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<&'static str>,
    /// Its own properties, as they were written.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
    /// Whose its topmost directory is.
    #[serde(flatten)]
    pub ownership: Ownership,
    /// Which snapshots are taken and kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<Snapshots>,
}

impl Declared {
    /// All its properties: the profile's, and above them its own.
    pub fn wanted(&self) -> BTreeMap<String, String> {
        let profile = self.profile.and_then(Profile::find);
        let mut wanted: BTreeMap<String, String> = (profile.into_iter())
            .flat_map(|profile| profile.properties)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        wanted.extend(self.properties.clone());
        wanted
    }
}

/// Which snapshots are taken and kept of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Snapshots {
    /// Take them.
    pub take: bool,
    /// Prune them.
    pub prune: bool,
    /// How many are kept; every count is given.
    #[serde(flatten)]
    pub policy: sanoid::Policy,
}

/// What the file declares. `None` when there are errors; then the sink has them.
pub(crate) fn declared(
    datasets: &Maybe<Named<DatasetName, DatasetFile>>,
    root: &At<'_>,
    sink: &mut Sink<'_>,
) -> Option<BTreeMap<DatasetName, Declared>> {
    let (datasets, span) = match datasets {
        Maybe::Absent => return Some(BTreeMap::new()),
        Maybe::Broken => return None,
        Maybe::Given(datasets, span) => (datasets, span),
    };
    let at = root.key("datasets", span);
    let mut all = BTreeMap::new();
    for entry in &datasets.entries {
        let Some((file, _)) = &entry.value else {
            continue;
        };
        let here = at.key(entry.name.as_str(), &entry.span);
        let profile = profile(&file.profile, &here, sink);
        let properties = properties(&file.properties, &here, sink);
        let (Some(profile), Some(properties)) = (profile, properties) else {
            continue;
        };
        let account = |account: &Maybe<AccountValue>| account.value().map(|account| account.0.clone());
        let ownership = Ownership {
            owner: account(&file.owner),
            group: account(&file.group),
            mode: file.mode.value().map(|mode| mode.0),
        };
        let snapshots = file.snapshots.value().map(snapshots);
        all.insert(
            entry.name.clone(),
            Declared {
                profile,
                properties,
                ownership,
                snapshots,
            },
        );
    }
    Some(all)
}

fn profile(name: &Maybe<Reference>, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Option<&'static str>> {
    let (name, span) = match name {
        Maybe::Absent => return Some(None),
        Maybe::Broken => return None,
        Maybe::Given(name, span) => (&name.0, span),
    };
    if let Some(profile) = Profile::find(name) {
        return Some(Some(profile.name));
    }
    let names: Vec<&str> = PROFILES.iter().map(|profile| profile.name).collect();
    let hint = suggest(name, "profiles", &names);
    let message = format!("there is no profile {}", quoted(name));
    sink.error(at.key("profile", span), span, message, Extra::hint(hint));
    None
}

fn properties(
    properties: &Maybe<Named<PropertyName, PropertyValue>>,
    at: &At<'_>,
    sink: &mut Sink<'_>,
) -> Option<BTreeMap<String, String>> {
    let (properties, span) = match properties {
        Maybe::Absent => return Some(BTreeMap::new()),
        Maybe::Broken => return None,
        Maybe::Given(properties, span) => (properties, span),
    };
    let at = at.key("properties", span);
    let mut all = BTreeMap::new();
    let mut complete = !properties.incomplete;
    for entry in &properties.entries {
        let name = &entry.name.0;
        let Some((value, span)) = &entry.value else {
            complete = false;
            continue;
        };
        if let Some(property) = Property::find(name)
            && let Err(wanted) = property.canonical(&value.0)
        {
            let message = format!("`{name}` can't be {}", quoted(&value.0));
            sink.error(
                at.key(name, span),
                span,
                message,
                Extra::hint(format!("it is {wanted}")),
            );
            complete = false;
        }
        if Property::find(name).is_none() && value.0.contains(char::is_control) {
            let message = format!("`{name}` can't be {}", quoted(&value.0));
            let hint = "it is a text without control characters";
            sink.error(at.key(name, span), span, message, Extra::hint(hint));
            complete = false;
        }
        all.insert(name.clone(), value.0.clone());
    }
    complete.then_some(all)
}

fn snapshots(file: &SnapshotsFile) -> Snapshots {
    let builtin = super::model::Retention::default();
    let count = |count: &Maybe<Count>, default: u32| Some(count.value().map_or(default, |count| count.0));
    Snapshots {
        take: file.take.value().is_none_or(|flag| flag.0),
        prune: file.prune.value().is_none_or(|flag| flag.0),
        policy: sanoid::Policy {
            frequently: count(&file.frequently, builtin.frequently),
            hourly: count(&file.hourly, builtin.hourly),
            daily: count(&file.daily, builtin.daily),
            weekly: count(&file.weekly, builtin.weekly),
            monthly: count(&file.monthly, builtin.monthly),
            yearly: count(&file.yearly, builtin.yearly),
            frequent_period: Some(file.frequent_period.value().map_or(15, |minutes| minutes.0)),
            prune_defer: Some(file.prune_defer.value().map_or(0, |percent| percent.0)),
        },
    }
}

/// The name of a property that may be declared.
#[derive(Debug, Clone)]
pub(crate) struct PropertyName(String);

impl Key for PropertyName {
    const PATTERN: &'static str = "^[a-z0-9_.:-]{1,255}$";

    fn parse(text: &str) -> Result<Self, (String, Option<&'static str>)> {
        if Property::find(text).is_some() || layout::is_user_property(text) {
            return Ok(Self(text.to_owned()));
        }
        if text.starts_with("reseed:") {
            let message = format!("{} is one of reseed's own markers", quoted(text));
            return Err((
                message,
                Some("it is written when data was restored, never by hand"),
            ));
        }
        let names: Vec<&str> = PROPERTIES.iter().map(|property| property.name).collect();
        let close = match super::diagnostic::closest(text, names) {
            Some(close) => format!("; did you mean `{close}`?"),
            None => String::new(),
        };
        let message = format!("{} is not a property that can be declared{close}", quoted(text));
        Err((message, Some("a user property has a colon in its name")))
    }
}

/// The value of a property: a text, or a number or truth value as ZFS writes it.
#[derive(Debug, Clone)]
pub(crate) struct PropertyValue(String);

impl Decode for PropertyValue {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        match &node.value {
            Value::Text(text) => Some(Self(text.clone())),
            Value::Integer(Some(number)) => Some(Self(number.to_string())),
            Value::Bool(true) => Some(Self("on".to_owned())),
            Value::Bool(false) => Some(Self("off".to_owned())),
            _ => wrong_type(
                node,
                at,
                sink,
                "a text",
                Some("write it as zfs does, as in \"128K\"".to_owned()),
            ),
        }
    }
}

/// A user or group.
#[derive(Debug, Clone)]
pub(crate) struct AccountValue(Account);

impl Decode for AccountValue {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        let (found, shown) = match &node.value {
            Value::Text(text) => (Account::parse(text), quoted(text)),
            Value::Integer(Some(number)) => {
                let id = u32::try_from(*number).ok().and_then(Account::id);
                (id, number.to_string())
            }
            _ => {
                let hint = "write it as in \"postgres\" or 1000".to_owned();
                return wrong_type(node, at, sink, "a name or a number", Some(hint));
            }
        };
        if found.is_none() {
            let hint = "the name of an account on this machine, or its number";
            let message = format!("{shown} is neither the name of an account nor its number");
            sink.error(at, &node.span, message, Extra::hint(hint));
        }
        found.map(Self)
    }
}

/// Permissions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ModeValue(DirMode);

impl Decode for ModeValue {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        // A number could be meant in octal or not.
        let Value::Text(text) = &node.value else {
            let hint = "write it in quotes, as in \"0750\"".to_owned();
            return wrong_type(node, at, sink, "a text", Some(hint));
        };
        let found = DirMode::parse(text);
        if found.is_none() {
            let message = format!("{} are no permissions", quoted(text));
            let hint = "three or four octal digits, as in \"0750\"";
            sink.error(at, &node.span, message, Extra::hint(hint));
        }
        found.map(Self)
    }
}

/// Yes or no.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag(pub(crate) bool);

impl Decode for Flag {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        match &node.value {
            Value::Bool(yes) => Some(Self(*yes)),
            _ => wrong_type(node, at, sink, "true or false", None),
        }
    }
}

/// A part of an hour.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Minutes(u32);

impl Decode for Minutes {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        super::values::number(node, at, sink, 1, 59).map(Self)
    }
}

/// How full a pool is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Percent(u8);

impl Decode for Percent {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        let number = super::values::number(node, at, sink, 0, 100)?;
        u8::try_from(number).ok().map(Self)
    }
}

macro_rules! inline_schema {
    ($($name:ident: $json:tt,)+) => {$(
        impl JsonSchema for $name {
            fn inline_schema() -> bool { true }
            fn schema_name() -> Cow<'static, str> { stringify!($name).into() }
            fn json_schema(_: &mut SchemaGenerator) -> Schema { json_schema!($json) }
        }
    )+};
}

inline_schema! {
    AccountValue: { "anyOf": [{ "type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,253}\\$?$" }, { "type": "integer", "minimum": 0, "maximum": 4294967294u32 }] },
    ModeValue: { "type": "string", "pattern": "^[0-7]{3,4}$" },
    PropertyValue: { "anyOf": [{ "type": "string" }, { "type": "integer" }, { "type": "boolean" }] },
    Flag: { "type": "boolean" },
    Minutes: { "type": "integer", "minimum": 1, "maximum": 59 },
    Percent: { "type": "integer", "minimum": 0, "maximum": 100 },
}
