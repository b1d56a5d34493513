//! JSON to [`Node`]s with places.
//!
//! `serde_json` doesn't tell where a value stands, but a borrowed [`RawValue`] is a slice of the text, and its address
//! is its place. Each level is scanned again for the level below it, which the limit on nesting keeps harmless.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::diagnostic::{Extra, Sink};
use super::node::{DEEPEST, Entry, Node, Value};
use super::text::{Span, quoted};

/// `None` when the text is not JSON; then the sink knows why.
pub(crate) fn read(sink: &mut Sink<'_>) -> Option<Node> {
    let text = sink.text.text;
    match serde_json::from_str::<&RawValue>(text) {
        Ok(raw) => node(sink, raw, 0),
        Err(error) => {
            let at = offset_of(sink, &error);
            syntax(sink, &error, at);
            None
        }
    }
}

fn node(sink: &mut Sink<'_>, raw: &RawValue, depth: usize) -> Option<Node> {
    let text = raw.get();
    let span = span_of(sink, text);
    if depth > DEEPEST {
        sink.error(
            "",
            &span,
            format!("nested deeper than {DEEPEST} levels"),
            Extra::hint("a configuration needs six; see `reseed config schema`"),
        );
        return None;
    }
    let value = match text.as_bytes().first() {
        Some(b'n') => Value::Null,
        Some(first @ (b't' | b'f')) => Value::Bool(*first == b't'),
        Some(b'"') => Value::Text(string(sink, text, &span)?),
        Some(b'[') => {
            let items = sub::<Vec<&RawValue>>(sink, text, &span, |de| de.deserialize_seq(Items))?;
            let nodes = items.into_iter().map(|item| node(sink, item, depth + 1));
            Value::List(nodes.collect::<Option<_>>()?)
        }
        Some(b'{') => {
            let pairs = sub::<Vec<_>>(sink, text, &span, |de| de.deserialize_map(Pairs))?;
            Value::Table(table(sink, pairs, depth)?)
        }
        _ if text.contains(['.', 'e', 'E']) => match text.parse() {
            Ok(number) => Value::Float(number),
            // JSON's grammar is narrower than ours.
            Err(_) => Value::Float(f64::NAN),
        },
        _ => Value::Integer(text.parse().ok()),
    };
    Some(Node { span, value })
}

fn table(sink: &mut Sink<'_>, pairs: Vec<(&RawValue, &RawValue)>, depth: usize) -> Option<Vec<Entry>> {
    let mut seen = HashSet::with_capacity(pairs.len());
    let mut entries = Vec::with_capacity(pairs.len());
    for (raw_key, value) in pairs {
        let key_span = span_of(sink, raw_key.get());
        let key = string(sink, raw_key.get(), &key_span)?;
        if !seen.insert(key.clone()) {
            sink.error(
                "",
                &key_span,
                format!("the key {} stands twice in one object", quoted(&key)),
                Extra::hint("remove one of them"),
            );
            continue;
        }
        let node = node(sink, value, depth + 1)?;
        entries.push(Entry { key, key_span, node });
    }
    Some(entries)
}

/// The place of a slice of the text.
fn span_of(sink: &Sink<'_>, part: &str) -> Span {
    let start = part
        .as_ptr()
        .addr()
        .saturating_sub(sink.text.text.as_ptr().addr());
    start..start + part.len()
}

fn string(sink: &mut Sink<'_>, text: &str, span: &Span) -> Option<String> {
    match serde_json::from_str(text) {
        Ok(string) => Some(string),
        // Escapes are looked at only here: half of a surrogate pair.
        Err(error) => {
            syntax(sink, &error, span.start);
            None
        }
    }
}

fn sub<'t, T>(
    sink: &mut Sink<'_>,
    text: &'t str,
    span: &Span,
    read: impl FnOnce(&mut serde_json::Deserializer<serde_json::de::StrRead<'t>>) -> serde_json::Result<T>,
) -> Option<T> {
    match read(&mut serde_json::Deserializer::from_str(text)) {
        Ok(value) => Some(value),
        Err(error) => {
            syntax(sink, &error, span.start);
            None
        }
    }
}

fn syntax(sink: &mut Sink<'_>, error: &serde_json::Error, at: usize) {
    let said = error.to_string();
    let said = said.split(" at line ").next().unwrap_or_default();
    let extra = match sink.text.text.trim_start().chars().next() {
        None => Extra::hint("the file is empty"),
        Some('{') => Extra::default(),
        Some(_) => Extra::hint(
            "a JSON configuration is one object; a TOML configuration's file name ends in `.toml`",
        ),
    };
    sink.error("", &(at..at), format!("not valid JSON: {said}"), extra);
}

fn offset_of(sink: &Sink<'_>, error: &serde_json::Error) -> usize {
    let start: usize = sink
        .text
        .text
        .split_inclusive('\n')
        .take(error.line().saturating_sub(1))
        .map(str::len)
        .sum();
    // serde_json counts columns in bytes, and points behind what it could not take.
    (start + error.column().saturating_sub(1)).min(sink.text.text.len())
}

struct Items;

impl<'de> Visitor<'de> for Items {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(items)
    }
}

struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Vec<(&'de RawValue, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(pairs)
    }
}
