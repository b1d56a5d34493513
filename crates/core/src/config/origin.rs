//! Where each value was written, for `reseed config show`.

use std::collections::HashMap;

use super::node::{Node, Value};
use super::text::Text;

/// Line numbers by key.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origins {
    file: String,
    /// Keys joined with `/`, which no name holds.
    lines: HashMap<String, usize>,
}

impl Origins {
    pub(crate) fn of(root: &Node, text: &Text<'_>) -> Self {
        let mut origins = Self {
            file: text.file.to_owned(),
            lines: HashMap::new(),
        };
        origins.walk(root, text, &mut String::new());
        origins
    }

    fn walk(&mut self, node: &Node, text: &Text<'_>, at: &mut String) {
        let Value::Table(entries) = &node.value else {
            return;
        };
        for entry in entries
            .iter()
            .filter(|entry| !matches!(entry.node.value, Value::Null))
        {
            let before = at.len();
            if before > 0 {
                at.push('/');
            }
            at.push_str(&entry.key);
            self.lines.insert(at.clone(), text.line(entry.key_span.start));
            self.walk(&entry.node, text, at);
            at.truncate(before);
        }
    }

    /// `reseed.toml:12`, or `default`: the first of the keys that was written.
    pub(crate) fn tell(&self, keys: &[&str]) -> String {
        match keys.iter().find_map(|key| self.lines.get(*key)) {
            Some(line) => format!("{}:{line}", self.file),
            None => "default".to_owned(),
        }
    }
}
