//! The same errors as a configuration's own, for other tools' configurations that are read to be taken over: place,
//! quoted line, hint. Knows nothing of what the text is.

use std::ops::Range;

use super::diagnostic::{ConfigErrors, Diagnostic, Extra, Sink, suggest};
use super::text::Text;

/// Collects what is wrong with a text, and what is probably not meant in it.
#[derive(Debug)]
pub struct Findings<'a> {
    file: &'a str,
    text: &'a str,
    found: Vec<Finding>,
}

#[derive(Debug)]
struct Finding {
    error: bool,
    key: String,
    span: Range<usize>,
    message: String,
    hint: Option<String>,
}

impl<'a> Findings<'a> {
    /// Nothing found yet. `file` is what messages call the text.
    pub fn new(file: &'a str, text: &'a str) -> Self {
        Self {
            file,
            text,
            found: Vec::new(),
        }
    }

    /// Something is wrong at these bytes of the text, so that it can't be used.
    pub fn error(&mut self, key: &str, span: &Range<usize>, message: impl Into<String>, hint: &str) {
        self.push(true, key, span, message.into(), hint);
    }

    /// Something at these bytes is used, and probably not what was meant.
    pub fn warn(&mut self, key: &str, span: &Range<usize>, message: impl Into<String>, hint: &str) {
        self.push(false, key, span, message.into(), hint);
    }

    /// `did you mean` with the closest of the candidates, or else all of them; `what` is what they are called.
    pub fn suggestion(word: &str, what: &str, candidates: &[&str]) -> String {
        suggest(word, what, candidates)
    }

    /// The warnings, or all errors if there is one.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn finish(self) -> Result<Vec<Diagnostic>, ConfigErrors> {
        let text = Text::new(self.file, self.text);
        let mut sink = Sink::new(&text);
        for finding in self.found {
            let extra = Extra {
                hint: finding.hint,
                note: None,
            };
            if finding.error {
                sink.error(finding.key, &finding.span, finding.message, extra);
            } else {
                sink.warn(finding.key, &finding.span, finding.message, extra);
            }
        }
        sink.finish()
    }

    fn push(&mut self, error: bool, key: &str, span: &Range<usize>, message: String, hint: &str) {
        self.found.push(Finding {
            error,
            key: key.to_owned(),
            span: span.clone(),
            message,
            hint: (!hint.is_empty()).then(|| hint.to_owned()),
        });
    }
}
