//! What is wrong with a configuration, told so that it can be mended: place, quoted line, hint.
//!
//! A [`Diagnostic`] is plain data that outlives the text it is about. Messages are sentences without a full stop;
//! everything taken from the file is quoted and escaped in them.

use std::fmt;

use serde::Serialize;

use super::text::{Snippet, Span, Text};

/// Problems kept of one configuration. The others are counted.
const MOST: usize = 100;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The configuration is not used.
    Error,
    /// It is used, and probably not what was meant.
    Warning,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// The file as it was named.
    pub file: String,
    /// From 1; missing when the file as a whole is meant.
    pub line: Option<usize>,
    /// From 1, in characters.
    pub column: Option<usize>,
    /// The key it is about, as `services.sonarr.path`.
    pub key: Option<String>,
    /// What is wrong.
    pub message: String,
    /// More about it: where the other one of two is.
    pub note: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    #[serde(skip)]
    snippet: Option<Snippet>,
}

impl Diagnostic {
    /// About a file as a whole.
    pub(crate) fn of_file(file: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: file.to_owned(),
            line: None,
            column: None,
            key: None,
            message: message.into(),
            note: None,
            hint: Some(hint.into()),
            snippet: None,
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{word}: {}", self.message)?;
        let number = self.line.map(|line| line.to_string()).unwrap_or_default();
        let gap = " ".repeat(number.len());
        write!(f, "{gap}--> {}", self.file)?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, ":{line}:{column}")?;
        }
        writeln!(f)?;
        if let Some(snippet) = &self.snippet {
            writeln!(f, "{gap} |")?;
            writeln!(f, "{number} | {}", snippet.line)?;
            writeln!(
                f,
                "{gap} | {}{}",
                " ".repeat(snippet.start),
                "^".repeat(snippet.len)
            )?;
        }
        if let Some(note) = &self.note {
            writeln!(f, "{gap} = note: {note}")?;
        }
        if let Some(hint) = &self.hint {
            writeln!(f, "{gap} = hint: {hint}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a configuration, in the order of the file. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigErrors {
    errors: Vec<Diagnostic>,
    more: usize,
}

impl ConfigErrors {
    pub(crate) fn one(error: Diagnostic) -> Self {
        Self {
            errors: vec![error],
            more: 0,
        }
    }

    /// The errors, at most a hundred.
    pub fn errors(&self) -> &[Diagnostic] {
        &self.errors
    }

    /// How many there are beyond those.
    pub fn more(&self) -> usize {
        self.more
    }

    /// The same as an error of an operation: the first in a sentence, and where to see all.
    pub fn to_op_error(&self) -> crate::error::OpError {
        let count = self.errors.len() + self.more;
        let first = self.errors.first();
        let place = first.map_or_else(String::new, |error| match error.line {
            Some(line) => format!("{}:{line}: ", error.file),
            None => format!("{}: ", error.file),
        });
        let message = first.map_or("", |error| error.message.as_str());
        let others = match count {
            0 | 1 => String::new(),
            2 => " (and 1 more error)".to_owned(),
            _ => format!(" (and {} more errors)", count - 1),
        };
        let error =
            crate::error::OpError::new(crate::error::OpKind::Config, format!("{place}{message}{others}"));
        match first.and_then(|error| error.hint.as_ref()) {
            Some(hint) if count == 1 => error.hint(hint),
            _ => error.hint("see them all with `reseed config check`"),
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.errors {
            writeln!(f, "{error}")?;
        }
        match (self.errors.len(), self.more) {
            (1, 0) => write!(f, "1 error"),
            (shown, 0) => write!(f, "{shown} errors"),
            (shown, more) => write!(f, "{} errors, the first {shown} shown", shown + more),
        }
    }
}

impl std::error::Error for ConfigErrors {}

/// What is about to be reported, beside place and message.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    pub(crate) hint: Option<String>,
    pub(crate) note: Option<String>,
}

impl Extra {
    pub(crate) fn hint(hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            note: None,
        }
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }
}

/// Collects what is found.
#[derive(Debug)]
pub(crate) struct Sink<'a> {
    pub(crate) text: &'a Text<'a>,
    found: Vec<(usize, Diagnostic)>,
    errors: usize,
    warnings: usize,
}

impl<'a> Sink<'a> {
    pub(crate) fn new(text: &'a Text<'a>) -> Self {
        Self {
            text,
            found: Vec::new(),
            errors: 0,
            warnings: 0,
        }
    }

    /// No further error would be kept, so there is no use in working out a suggestion for it.
    pub(crate) fn is_full(&self) -> bool {
        self.errors >= MOST
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    pub(crate) fn error(
        &mut self,
        key: impl fmt::Display,
        span: &Span,
        message: impl Into<String>,
        extra: Extra,
    ) {
        self.errors += 1;
        if self.errors <= MOST {
            self.push(Severity::Error, &key, span, message.into(), extra);
        }
    }

    pub(crate) fn warn(
        &mut self,
        key: impl fmt::Display,
        span: &Span,
        message: impl Into<String>,
        extra: Extra,
    ) {
        self.warnings += 1;
        if self.warnings <= MOST {
            self.push(Severity::Warning, &key, span, message.into(), extra);
        }
    }

    fn push(
        &mut self,
        severity: Severity,
        key: &dyn fmt::Display,
        span: &Span,
        message: String,
        extra: Extra,
    ) {
        let (line, column) = self.text.position(span.start);
        let key = key.to_string();
        self.found.push((
            span.start,
            Diagnostic {
                severity,
                file: self.text.file.to_owned(),
                line: Some(line),
                column: Some(column),
                key: (!key.is_empty()).then_some(key),
                message,
                note: extra.note,
                hint: extra.hint,
                snippet: Some(self.text.snippet(span)),
            },
        ));
    }

    /// The warnings, or all errors if there is one.
    pub(crate) fn finish(mut self) -> Result<Vec<Diagnostic>, ConfigErrors> {
        self.found.sort_by_key(|(at, _)| *at);
        let failed = self.has_errors();
        let more = self.errors.saturating_sub(MOST);
        let wanted = if failed {
            Severity::Error
        } else {
            Severity::Warning
        };
        let found: Vec<_> = (self.found.into_iter())
            .map(|(_, diagnostic)| diagnostic)
            .filter(|diagnostic| diagnostic.severity == wanted)
            .collect();
        if failed {
            Err(ConfigErrors { errors: found, more })
        } else {
            Ok(found)
        }
    }
}

/// The candidate that a mistyped word most likely meant.
///
/// The distance may be a third of the word; a word that only lacks or adds an end (`password`, `password_file`), or
/// differs in case and in `-` for `_`, is always close enough.
pub(crate) fn closest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    if word.len() > 80 {
        return None;
    }
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let wanted = plain(word);
    (candidates.into_iter())
        .filter_map(|candidate| {
            let known = plain(candidate);
            let distance = strsim::damerau_levenshtein(&wanted, &known);
            let shorter = wanted.len().min(known.len());
            let is_part = shorter >= 3 && (wanted.starts_with(&known) || known.starts_with(&wanted));
            let near = distance <= (wanted.chars().count() / 3).max(1) && shorter > 1;
            (near || is_part).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `did you mean` with the closest, or else all there is to choose from.
pub(crate) fn suggest(word: &str, what: &str, candidates: &[&str]) -> String {
    if let Some(close) = closest(word, candidates.iter().copied()) {
        return format!("did you mean `{close}`?");
    }
    if candidates.is_empty() {
        return format!("there are no {what}");
    }
    let shown: Vec<_> = candidates
        .iter()
        .take(20)
        .map(|name| format!("`{name}`"))
        .collect();
    let rest = candidates.len().saturating_sub(shown.len());
    let and_more = if rest > 0 {
        format!(" and {rest} more")
    } else {
        String::new()
    };
    format!("{what}: {}{and_more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_words_are_suggested_and_far_ones_are_not() {
        let keys = ["path", "password_file", "replicas", "when_exhausted", "store"];
        for (word, meant) in [
            ("pth", Some("path")),
            ("Path", Some("path")),
            ("password", Some("password_file")),
            ("replica", Some("replicas")),
            ("when-exhausted", Some("when_exhausted")),
            ("sotre", Some("store")),
            ("zebra", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(closest(word, keys), meant, "{word}");
        }
        assert_eq!(closest(&"p".repeat(10_000), keys), None);
    }
}
