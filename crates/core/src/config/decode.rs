//! From nodes to the structs of `file`: every mistake is reported, and reading goes on.
//!
//! Serde stops at the first error, so this is our own, and the `record!` macro makes struct, reader and JSON Schema
//! of one declaration: a key that one of them knows, all know. References between parts of the configuration are not
//! looked at here.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::diagnostic::{Extra, Sink, suggest};
use super::node::{Entry, Node, Value};
use super::text::{Span, quoted};

/// The way from the root to a value, for messages and as the place of what is missing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'a> {
    parent: Option<&'a At<'a>>,
    key: &'a str,
    /// Where the key stands.
    pub(crate) span: &'a Span,
}

impl<'a> At<'a> {
    pub(crate) fn root(span: &'a Span) -> Self {
        Self {
            parent: None,
            key: "",
            span,
        }
    }

    pub(crate) fn key<'b>(&'b self, key: &'b str, span: &'b Span) -> At<'b> {
        At {
            parent: Some(self),
            key,
            span,
        }
    }

    /// ` in services.sonarr`, or nothing at the root.
    fn inside(&self) -> String {
        match self.parent {
            Some(_) => format!(" in `{self}`"),
            None => String::new(),
        }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(parent) = self.parent else {
            return Ok(());
        };
        if parent.parent.is_some() {
            write!(f, "{parent}")?;
            if !self.key.starts_with('[') {
                f.write_str(".")?;
            }
        }
        if self.key.starts_with('[') {
            return f.write_str(self.key);
        }
        let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if !self.key.is_empty() && self.key.chars().all(bare) {
            f.write_str(self.key)
        } else {
            f.write_str(&quoted(self.key))
        }
    }
}

/// Reads itself from a node.
pub(crate) trait Decode: Sized {
    /// `None` when it can't; then the sink knows why.
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self>;
}

/// Reports a value of the wrong type.
pub(crate) fn wrong_type<T>(
    node: &Node,
    at: &At<'_>,
    sink: &mut Sink<'_>,
    wanted: &str,
    hint: Option<String>,
) -> Option<T> {
    let message = match at.parent {
        Some(_) => format!("`{at}` is {}, not {wanted}", node.value.what()),
        None => format!("the configuration is {}, not {wanted}", node.value.what()),
    };
    sink.error(at, &node.span, message, Extra { hint, note: None });
    None
}

/// A value that may be left out.
#[derive(Debug, Clone)]
pub(crate) enum Maybe<T> {
    /// Left out, or null.
    Absent,
    /// There, and wrong. The error is reported; whoever needs the value stays silent.
    Broken,
    /// There.
    Given(T, Span),
}

impl<T> Maybe<T> {
    pub(crate) fn given(&self) -> Option<(&T, &Span)> {
        match self {
            Self::Given(value, span) => Some((value, span)),
            _ => None,
        }
    }

    pub(crate) fn value(&self) -> Option<&T> {
        self.given().map(|(value, _)| value)
    }

    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// A value that has to be there. `None` when it is missing or wrong, which is reported.
#[derive(Debug, Clone)]
pub(crate) struct Must<T>(pub(crate) Option<(T, Span)>);

/// A field of a record.
pub(crate) trait Field: Sized {
    /// Has to be there.
    const REQUIRED: bool;
    fn read(entry: Option<&Entry>, key: &'static str, at: &At<'_>, sink: &mut Sink<'_>) -> Self;
    fn schema(generator: &mut SchemaGenerator) -> Schema;
}

impl<T: Decode + JsonSchema> Field for Maybe<T> {
    const REQUIRED: bool = false;

    fn read(entry: Option<&Entry>, key: &'static str, at: &At<'_>, sink: &mut Sink<'_>) -> Self {
        match entry {
            None => Self::Absent,
            Some(entry) if matches!(entry.node.value, Value::Null) => Self::Absent,
            Some(entry) => match T::decode(&entry.node, &at.key(key, &entry.key_span), sink) {
                Some(value) => Self::Given(value, entry.node.span.clone()),
                None => Self::Broken,
            },
        }
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

impl<T: Decode + JsonSchema> Field for Must<T> {
    const REQUIRED: bool = true;

    fn read(entry: Option<&Entry>, key: &'static str, at: &At<'_>, sink: &mut Sink<'_>) -> Self {
        match Maybe::read(entry, key, at, sink) {
            Maybe::Given(value, span) => Self(Some((value, span))),
            Maybe::Broken => Self(None),
            Maybe::Absent => {
                let message = format!("`{key}` is missing{}", at.inside());
                sink.error(at.key(key, at.span), at.span, message, Extra::default());
                Self(None)
            }
        }
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

/// The entries of a table, or an error.
pub(crate) fn table<'n>(node: &'n Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<&'n [Entry]> {
    match &node.value {
        Value::Table(entries) => Some(entries),
        _ => wrong_type(node, at, sink, "a table", None),
    }
}

/// Reports every key that is not known.
pub(crate) fn unknown_keys(entries: &[Entry], known: &[&str], at: &At<'_>, sink: &mut Sink<'_>) {
    for entry in entries
        .iter()
        .filter(|entry| !known.contains(&entry.key.as_str()))
    {
        let hint = match sink.is_full() {
            true => String::new(),
            false => suggest(&entry.key, "known keys", known),
        };
        let message = format!("unknown key {}{}", quoted(&entry.key), at.inside());
        sink.error(
            at.key(&entry.key, &entry.key_span),
            &entry.key_span,
            message,
            Extra::hint(hint),
        );
    }
}

/// A schema of a record; the macro's other half.
pub(crate) fn record_schema(doc: &str, fields: Vec<(&'static str, &str, Schema, bool)>) -> Schema {
    let required: Vec<_> = fields
        .iter()
        .filter(|field| field.3)
        .map(|field| field.0)
        .collect();
    let mut properties = serde_json::Map::new();
    for (key, doc, mut schema, _) in fields {
        schema.insert("description".to_owned(), doc.trim().into());
        properties.insert(key.to_owned(), schema.into());
    }
    let mut schema = schemars::json_schema!({
        "type": "object",
        "description": doc.trim(),
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema.insert("required".to_owned(), required.into());
    }
    schema
}

/// Declares a table of the configuration: struct, reader and schema.
macro_rules! record {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $fdoc:literal])+ $field:ident : $ty:ty = $key:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Debug)]
        pub(crate) struct $name { $($(#[doc = $fdoc])+ pub(crate) $field: $ty,)+ }

        impl $crate::config::decode::Decode for $name {
            fn decode(
                node: &$crate::config::node::Node,
                at: &$crate::config::decode::At<'_>,
                sink: &mut $crate::config::diagnostic::Sink<'_>,
            ) -> Option<Self> {
                use $crate::config::decode::{Field, table, unknown_keys};
                let entries = table(node, at, sink)?;
                unknown_keys(entries, &[$($key),+], at, sink);
                Some(Self {
                    $($field: <$ty as Field>::read(entries.iter().find(|entry| entry.key == $key), $key, at, sink),)+
                })
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                use $crate::config::decode::{Field, record_schema};
                let fields = vec![
                    $(($key, concat!($($fdoc),+), <$ty as Field>::schema(generator), <$ty as Field>::REQUIRED),)+
                ];
                record_schema(concat!($($doc),+), fields)
            }
        }
    };
}
pub(crate) use record;

/// Declares a choice between words: enum, reader, schema, serde.
macro_rules! choice {
    ($(#[doc = $doc:literal])+ $vis:vis $name:ident ($what:literal) { $($(#[doc = $vdoc:literal])+ $variant:ident = $word:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
        #[non_exhaustive]
        $vis enum $name { $($(#[doc = $vdoc])+ #[serde(rename = $word)] $variant,)+ }

        impl $crate::config::decode::Decode for $name {
            fn decode(
                node: &$crate::config::node::Node,
                at: &$crate::config::decode::At<'_>,
                sink: &mut $crate::config::diagnostic::Sink<'_>,
            ) -> Option<Self> {
                let word = $crate::config::decode::word(node, at, sink, $what, &[$($word),+])?;
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "description": concat!($($doc),+).trim(),
                    "oneOf": [$({ "const": $word, "description": concat!($($vdoc),+).trim() }),+],
                })
            }
        }
    };
}
pub(crate) use choice;

/// Words that mean something in a later version, so that the answer is not a "did you mean".
const LATER: [&str; 1] = ["s3"];

/// One of some words.
pub(crate) fn word<'n>(
    node: &'n Node,
    at: &At<'_>,
    sink: &mut Sink<'_>,
    what: &str,
    words: &[&str],
) -> Option<&'n str> {
    let list = || {
        words
            .iter()
            .map(|word| format!("{word:?}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let Value::Text(text) = &node.value else {
        return wrong_type(node, at, sink, "a text", Some(format!("one of {}", list())));
    };
    if words.contains(&text.as_str()) {
        return Some(text);
    }
    if what.ends_with("type") && LATER.contains(&text.as_str()) {
        let hint = format!("this version has {}", list());
        sink.error(
            at,
            &node.span,
            format!("the {what} {} is not supported yet", quoted(text)),
            Extra::hint(hint),
        );
        return None;
    }
    let hint = match super::diagnostic::closest(text, words.iter().copied()) {
        Some(close) => format!("did you mean {close:?}?"),
        None => format!("one of {}", list()),
    };
    sink.error(
        at,
        &node.span,
        format!("{} is not a {what}", quoted(text)),
        Extra::hint(hint),
    );
    None
}

/// A list whose items know where they stand.
#[derive(Debug, Clone)]
pub(crate) struct List<T>(pub(crate) Vec<(T, Span)>);

impl<T: Decode> Decode for List<T> {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        let Value::List(items) = &node.value else {
            let hint = matches!(node.value, Value::Text(_))
                .then(|| "write it in brackets, as in [\"one\", \"two\"]".to_owned());
            return wrong_type(node, at, sink, "a list", hint);
        };
        let mut values = Vec::with_capacity(items.len());
        let mut complete = true;
        for (index, item) in items.iter().enumerate() {
            let key = format!("[{index}]");
            match T::decode(item, &at.key(&key, &item.span), sink) {
                Some(value) => values.push((value, item.span.clone())),
                None => complete = false,
            }
        }
        complete.then_some(Self(values))
    }
}

impl<T: JsonSchema> JsonSchema for List<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("List_of_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "array", "items": generator.subschema_for::<T>() })
    }
}

/// A table whose keys are names.
#[derive(Debug, Clone)]
pub(crate) struct Named<N, V> {
    pub(crate) entries: Vec<NamedEntry<N, V>>,
    /// An entry is missing, because its name is none; that is reported.
    pub(crate) incomplete: bool,
}

/// An entry of a [`Named`].
#[derive(Debug, Clone)]
pub(crate) struct NamedEntry<N, V> {
    pub(crate) name: N,
    /// Where the name stands.
    pub(crate) span: Span,
    /// Missing when it is wrong, which is reported. The name counts all the same.
    pub(crate) value: Option<(V, Span)>,
}

impl<N, V> Default for Named<N, V> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            incomplete: false,
        }
    }
}

/// A name as a key.
pub(crate) trait Key: Sized {
    /// What the schema says of it.
    const PATTERN: &'static str = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$";
    fn parse(text: &str) -> Result<Self, (String, Option<&'static str>)>;
}

impl<N: Key, V: Decode> Decode for Named<N, V> {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        let mut named = Self::default();
        for entry in table(node, at, sink)? {
            let here = at.key(&entry.key, &entry.key_span);
            if matches!(entry.node.value, Value::Null) {
                continue;
            }
            let value = V::decode(&entry.node, &here, sink);
            match N::parse(&entry.key) {
                Ok(name) => named.entries.push(NamedEntry {
                    name,
                    span: entry.key_span.clone(),
                    value: value.map(|value| (value, entry.node.span.clone())),
                }),
                Err((why, hint)) => {
                    named.incomplete = true;
                    let extra = hint.map_or_else(Extra::default, Extra::hint);
                    sink.error(here, &entry.key_span, why, extra);
                }
            }
        }
        Some(named)
    }
}

impl<N: Key, V: JsonSchema> JsonSchema for Named<N, V> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Map_of_{}", V::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "type": "object",
            "propertyNames": { "pattern": N::PATTERN },
            "additionalProperties": generator.subschema_for::<V>(),
        })
    }
}
