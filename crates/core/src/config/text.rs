//! The text of a configuration and places in it: from a byte offset to line, column and a quotable piece of the line.
//!
//! Works for any text: a line of a megabyte is cut down to a window around the place, and control characters are
//! made visible, so that a quoted line can't move a terminal's cursor. Knows nothing of TOML or JSON.

use std::ops::Range;

use super::redact::redact;

/// Bytes from the beginning of the text.
pub(crate) type Span = Range<usize>;

/// Characters of a line that are quoted at the most.
const WINDOW: usize = 100;
/// Characters before those that are looked through for the key of a secret.
const LEAD: usize = 1000;

/// A text with a name and an index of its lines.
#[derive(Debug)]
pub(crate) struct Text<'a> {
    pub(crate) file: &'a str,
    pub(crate) text: &'a str,
    line_starts: Vec<usize>,
}

/// A piece of a line with a place marked in it, both in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snippet {
    pub(crate) line: String,
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl<'a> Text<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        let mut line_starts = vec![0];
        line_starts.extend(text.match_indices('\n').map(|(at, _)| at + 1));
        Self {
            file,
            text,
            line_starts,
        }
    }

    /// The line of an offset, from 1.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= offset)
    }

    fn line_span(&self, line: usize) -> Span {
        let start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        let end = self
            .line_starts
            .get(line)
            .map_or(self.text.len(), |next| next - 1);
        start..end.max(start)
    }

    /// Line and column, both from 1, the column in characters.
    pub(crate) fn position(&self, offset: usize) -> (usize, usize) {
        let offset = self.text.floor_char_boundary(offset);
        let line = self.line(offset);
        let start = self.line_span(line).start;
        (line, self.text[start..offset].chars().count() + 1)
    }

    /// The line of a span's beginning with the span marked in it as far as that line goes.
    pub(crate) fn snippet(&self, span: &Span) -> Snippet {
        let start = self.text.floor_char_boundary(span.start);
        let whole = self.line_span(self.line(start));
        let end = self
            .text
            .floor_char_boundary(span.end)
            .clamp(start, whole.end.max(start));
        let before = self.text[whole.start..start].chars().count();
        let marked = self.text[start..end].chars().count().max(1);

        // Cut a long line so that the mark is inside the window with some of what stands before it.
        let skip = if before + marked <= WINDOW {
            0
        } else {
            before.saturating_sub(20)
        };
        let rest = &self.text[whole];
        // Enough of what stands before the window to see the key of a secret in it.
        let lead = skip.min(LEAD);
        let shown: String = rest
            .chars()
            .skip(skip - lead)
            .take(lead + WINDOW)
            .map(visible)
            .collect();
        let mut line: String = redact(&shown).chars().skip(lead).collect();
        let cut_end = rest.chars().nth(skip + WINDOW).is_some();
        let mut at = before - skip;
        let len = marked.min(WINDOW.saturating_sub(at).max(1));
        if skip > 0 {
            line.insert(0, '…');
            at += 1;
        }
        if cut_end {
            line.push('…');
        } else {
            line.truncate(line.trim_end().len());
        }
        Snippet { line, start: at, len }
    }
}

fn visible(c: char) -> char {
    match c {
        '\t' => ' ',
        '\r' => ' ',
        c if c.is_control() => '\u{fffd}',
        // Characters that turn the reading direction would make the quoted line lie.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c => c,
    }
}

/// A text from the configuration inside a message: quoted, escaped, at most 60 characters.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{:?}…", &text[..at]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_and_never_leave_the_text() {
        let text = Text::new("f", "a\né = 1\n");
        assert_eq!(text.position(0), (1, 1));
        assert_eq!(text.position(4), (2, 2));
        assert_eq!(text.position(3), (2, 1), "inside the é");
        assert_eq!(text.position(1000), (3, 1));
        assert_eq!(Text::new("f", "").position(7), (1, 1));
    }

    #[test]
    fn a_snippet_of_a_very_long_line_shows_the_place() {
        let long = format!("{}x = 1{}", "-".repeat(5000), "+".repeat(5000));
        let snippet = Text::new("f", &long).snippet(&(5000..5001));
        assert_eq!(snippet.line.chars().nth(snippet.start), Some('x'));
        assert!(snippet.line.chars().count() <= WINDOW + 2);
    }

    #[test]
    fn a_snippet_of_several_lines_marks_the_first_only() {
        let snippet = Text::new("f", "ab = [\n1,\n]").snippet(&(5..11));
        assert_eq!((snippet.start, snippet.len), (5, 1));
    }
}
