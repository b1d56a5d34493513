//! A library's error in words that fit one line of a log.
//!
//! `rustic_core`'s messages are pages: a headline, the message, links, context such as nonces, causes that are such
//! pages themselves, and a backtrace where the environment asks for one. What is kept is each cause's own message,
//! on one line and of a bounded length. It judges nothing: which kind of error it is, others know.

use std::error::Error;

use rustic_core::RusticError;

/// Enough for a sentence with a path or an id in it.
const MAX: usize = 300;

/// What an error and its causes say.
pub(crate) fn of(error: &RusticError) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut current: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = current {
        let words = match library_error(error) {
            Some(error) => message(error),
            None => plain(&error.to_string()),
        };
        if !words.is_empty() && !said.iter().any(|known| known.contains(&words)) {
            said.push(words);
        }
        current = error.source();
    }
    plain(&said.join(": "))
}

fn library_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a RusticError> {
    error
        .downcast_ref::<RusticError>()
        .or_else(|| error.downcast_ref::<Box<RusticError>>().map(|error| &**error))
}

/// The message alone. There is no accessor for it; this is the text that it begins in the short form.
fn message(error: &RusticError) -> String {
    let short = error.display_log();
    let message = short.strip_prefix("Error: ").unwrap_or(&short);
    plain(message.split(" (kind: related to ").next().unwrap_or(message))
}

/// Any text on one line, without what the library appends to its messages, and not too long.
pub(crate) fn plain(text: &str) -> String {
    let message = text
        .find("Message:\n")
        .map_or(text, |at| &text[at + "Message:\n".len()..]);
    let ends = [
        "For more information, see:",
        "Related issues:",
        "We believe this is a bug",
        "Some additional details",
        "Backtrace:",
        "stack backtrace:",
        "note: run with `RUST_BACKTRACE",
    ];
    let end = ends
        .iter()
        .filter_map(|end| message.find(end))
        .min()
        .unwrap_or(message.len());
    let line = message[..end].split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= MAX {
        return line;
    }
    line.chars().take(MAX - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use rustic_core::ErrorKind;

    use super::*;

    #[test]
    fn a_chain_of_library_errors_is_one_short_sentence() {
        let inner = RusticError::with_source(
            ErrorKind::Cryptography,
            "Data decryption failed, MAC check failed.",
            std::io::Error::other("aead::Error"),
        )
        .attach_context("nonce", "[1, 2, 3]")
        .attach_error_code("C001");
        let outer = RusticError::with_source(ErrorKind::Internal, "Cannot read `{file}`.\nTwice.", inner)
            .attach_context("file", "index/ab")
            .ask_report();
        assert!(outer.to_string().contains("nonce") && outer.to_string().contains("https://"));
        assert_eq!(
            of(&outer),
            "Cannot read `index/ab`. Twice.: Data decryption failed, MAC check failed.: aead::Error"
        );
        // The same as text, when a type of the library's hides the error itself.
        assert_eq!(plain(&outer.to_string()), "Cannot read `index/ab`. Twice.");
    }

    #[test]
    fn backtraces_are_left_out_and_length_is_bounded() {
        let text = "it broke\nstack backtrace:\n  0: rust_begin_unwind\n  at /rustc/x";
        assert_eq!(plain(text), "it broke");
        let long = plain(&"ä ".repeat(5000));
        assert_eq!(long.chars().count(), MAX);
        assert!(!long.contains('\n') && long.ends_with('…'));
    }
}
