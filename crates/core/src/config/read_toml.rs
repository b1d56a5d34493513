//! TOML to [`Node`]s. The `toml` crate parses; its tree has the places, and it goes on after an error.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Extra, Sink};
use super::node::{Entry, Node, Value};
use super::text::Span;

/// Texts up to this size are searched for further syntax errors after the first one. Every byte of a large file of
/// rubbish can be an error.
const RECOVER_UP_TO: usize = 256 * 1024;
/// Syntax errors reported at once: later ones tend to follow from earlier ones.
const SYNTAX_ERRORS: usize = 10;

/// `None` when the text is not TOML; then the sink knows why.
pub(crate) fn read(sink: &mut Sink<'_>) -> Option<Node> {
    let text = sink.text.text;
    let first = match DeTable::parse(text) {
        Ok(table) => {
            let span = table.span();
            return Some(Node {
                span,
                value: Value::Table(entries(table.into_inner())),
            });
        }
        Err(error) => error,
    };
    let errors = if text.len() <= RECOVER_UP_TO {
        DeTable::parse_recoverable(text).1
    } else {
        Vec::new()
    };
    let errors = if errors.is_empty() { vec![first] } else { errors };
    let looks_like_json = text.trim_start().starts_with('{');
    let mut last_line = 0;
    let mut shown = 0;
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let line = sink.text.line(span.start);
        // One mistake in a line is often several errors of the parser.
        if line == last_line || shown == SYNTAX_ERRORS {
            continue;
        }
        last_line = line;
        shown += 1;
        let extra = if looks_like_json {
            Extra::hint("this looks like JSON; a JSON configuration's file name ends in `.json`")
        } else if text[..text.floor_char_boundary(span.end)].ends_with('\0') {
            Extra::hint("the file holds a NUL byte; is it a text file at all?")
        } else {
            Extra::default()
        };
        sink.error("", &span, format!("not valid TOML: {}", error.message()), extra);
        if looks_like_json {
            break;
        }
    }
    None
}

fn entries(table: DeTable<'_>) -> Vec<Entry> {
    let mut entries: Vec<_> = (table.into_iter())
        .map(|(key, value)| Entry {
            key_span: key.span(),
            key: key.into_inner().into_owned(),
            node: node(value),
        })
        .collect();
    entries.sort_by_key(|entry| entry.key_span.start);
    entries
}

fn node(value: Spanned<DeValue<'_>>) -> Node {
    let span: Span = value.span();
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok()),
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(yes) => Value::Bool(yes),
        DeValue::Datetime(_) => Value::Date,
        DeValue::Array(list) => Value::List(list.into_iter().map(node).collect()),
        DeValue::Table(table) => Value::Table(entries(table)),
    };
    Node { span, value }
}
