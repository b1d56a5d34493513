//! How fast something may go, as people write it: `10MiB/s`.
//!
//! A number without a unit is refused, and so are bits: whether `100M` is twelve of what one means by it or a hundred is what
//! one gets wrong.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU64;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use super::decode::{At, Decode, wrong_type};
use super::diagnostic::{Extra, Sink};
use super::node::{Node, Value};
use super::text::quoted;

/// The units in bytes a second, largest first; of each size the power of 1024 before that of 1000.
const UNITS: [(&str, u64); 7] = [
    ("GiB/s", 1 << 30),
    ("GB/s", 1_000_000_000),
    ("MiB/s", 1 << 20),
    ("MB/s", 1_000_000),
    ("KiB/s", 1 << 10),
    ("kB/s", 1000),
    ("B/s", 1),
];
const HINT: &str =
    "units are B/s, kB/s, MB/s, GB/s, KiB/s, MiB/s and GiB/s, as in \"10MiB/s\"; 8 bits are a byte";
/// The most that is taken. More is no limit on anything there is, and fits into any tool's numbers.
const MOST: u64 = 1 << 50;

/// Bytes a second, at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bandwidth(NonZeroU64);

impl Bandwidth {
    /// Bytes a second.
    pub fn bytes_per_second(self) -> NonZeroU64 {
        self.0
    }
}

/// In the largest unit of which it is a whole number, so that it is read back as the same.
impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.get();
        let (unit, size) = UNITS
            .into_iter()
            .find(|(_, size)| bytes.is_multiple_of(*size))
            .unwrap_or(("B/s", 1));
        write!(f, "{}{unit}", bytes / size)
    }
}

impl Serialize for Bandwidth {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads it; else what is wrong, in words that go on after the quoted text.
fn parse(text: &str) -> Result<Bandwidth, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err("does not begin with a whole number".to_owned());
    }
    if unit.is_empty() {
        return Err("has a number without a unit".to_owned());
    }
    if unit.starts_with(['.', ',']) {
        return Err("has a fraction; write it in a smaller unit".to_owned());
    }
    let Some((_, size)) = UNITS.into_iter().find(|(name, _)| *name == unit) else {
        return Err(format!("has the unknown unit {}", quoted(unit)));
    };
    let bytes = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(size));
    match bytes.filter(|bytes| *bytes <= MOST).map(NonZeroU64::new) {
        Some(Some(bytes)) => Ok(Bandwidth(bytes)),
        Some(None) => Err("lets nothing through".to_owned()),
        None => Err("is more than a PiB a second".to_owned()),
    }
}

/// What a text that is none most likely meant: spaces, another case, the `/s` left out.
fn repair(text: &str) -> Option<String> {
    let plain = |text: &str| {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let text = text.to_ascii_lowercase();
        text.strip_suffix("/s")
            .or_else(|| text.strip_suffix("ps"))
            .unwrap_or(&text)
            .to_owned()
    };
    let text = plain(text);
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (unit, _) = UNITS.into_iter().find(|(name, _)| plain(name) == unit)?;
    let meant = format!("{number}{unit}");
    parse(&meant).is_ok().then_some(meant)
}

impl Decode for Bandwidth {
    fn decode(node: &Node, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        let Value::Text(text) = &node.value else {
            return wrong_type(node, at, sink, "a text", Some(HINT.to_owned()));
        };
        match parse(text) {
            Ok(bandwidth) => Some(bandwidth),
            Err(why) => {
                let hint =
                    repair(text).map_or(HINT.to_owned(), |meant| format!("did you mean {meant:?}? {HINT}"));
                sink.error(
                    at,
                    &node.span,
                    format!("{} {why}", quoted(text)),
                    Extra::hint(hint),
                );
                None
            }
        }
    }
}

impl JsonSchema for Bandwidth {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Bandwidth".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+(B|kB|MB|GB|KiB|MiB|GiB)/s$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_shown_as_the_same() {
        for (text, bytes, shown) in [
            ("10MiB/s", 10 << 20, "10MiB/s"),
            ("1B/s", 1, "1B/s"),
            ("1024kB/s", 1_024_000, "1000KiB/s"),
            ("12500kB/s", 12_500_000, "12500kB/s"),
            ("100MB/s", 100_000_000, "100MB/s"),
            ("2048MiB/s", 2 << 30, "2GiB/s"),
            ("1048576GiB/s", 1 << 50, "1048576GiB/s"),
        ] {
            let read = parse(text).unwrap();
            assert_eq!(read.bytes_per_second().get(), bytes, "{text}");
            assert_eq!(read.to_string(), shown, "{text}");
            assert_eq!(parse(shown).unwrap(), read);
        }
    }

    #[test]
    fn what_is_none_is_refused_with_its_reason() {
        for (text, why, meant) in [
            ("", "does not begin with a whole number", None),
            ("10", "has a number without a unit", None),
            ("MiB/s", "does not begin with a whole number", None),
            ("-1MiB/s", "does not begin with a whole number", None),
            ("10M", "has the unknown unit \"M\"", None),
            ("10MiB", "has the unknown unit \"MiB\"", Some("10MiB/s")),
            ("10 MB/s", "has the unknown unit \" MB/s\"", Some("10MB/s")),
            ("10mib/S", "has the unknown unit \"mib/S\"", Some("10MiB/s")),
            ("100Mbit/s", "has the unknown unit \"Mbit/s\"", None),
            ("1.5MiB/s", "has a fraction; write it in a smaller unit", None),
            ("0MiB/s", "lets nothing through", None),
            ("1048577GiB/s", "is more than a PiB a second", None),
            ("99999999999999999999B/s", "is more than a PiB a second", None),
        ] {
            assert_eq!(parse(text), Err(why.to_owned()), "{text}");
            assert_eq!(repair(text).as_deref(), meant, "{text}");
        }
    }
}
