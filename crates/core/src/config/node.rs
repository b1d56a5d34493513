//! A configuration file as a tree of values that know where they stand, the same for TOML and JSON.

use super::text::Span;

/// Levels of nesting that are followed. The configuration has six.
pub(crate) const DEEPEST: usize = 32;

/// A value and its place.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Value,
}

/// What stands there.
#[derive(Debug)]
pub(crate) enum Value {
    /// JSON's null, which counts as absent: Nix writes it for an option that is not set.
    Null,
    Bool(bool),
    /// `None` when it does not fit.
    Integer(Option<i64>),
    /// May be infinite, or no number: TOML has those.
    Float(f64),
    Text(String),
    /// TOML's dates and times, of which the configuration has none.
    Date,
    List(Vec<Node>),
    /// In the order of the file.
    Table(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Span,
    pub(crate) node: Node,
}

impl Value {
    /// What it is, for a message.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number with a fraction",
            Self::Text(_) => "a text",
            Self::Date => "a date or time",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}
