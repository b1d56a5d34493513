//! Quoting an argument vector for a POSIX shell. It promises that `sh` splits the text back into
//! exactly the same bytes, and it knows nothing about what the words mean.
//!
//! ssh hands its arguments to the remote user's login shell as one string, so this is the only way
//! to pass an argument vector to another machine. The remote shell must be POSIX (sh, bash, dash,
//! ksh, zsh); csh and fish read single quotes differently.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::ExecError;

/// Words a shell takes for grammar when they stand unquoted in command position.
const RESERVED: &[&str] = &[
    "!",
    "case",
    "coproc",
    "do",
    "done",
    "elif",
    "else",
    "end",
    "esac",
    "fi",
    "for",
    "foreach",
    "function",
    "if",
    "in",
    "nocorrect",
    "noglob",
    "repeat",
    "select",
    "then",
    "time",
    "until",
    "while",
];

/// Quotes `argv` into one line that a POSIX shell splits back into the same words.
///
/// A word with a NUL byte is refused: no process can be given one.
pub fn quote_for_ssh<I, S>(argv: I) -> Result<OsString, ExecError>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut line = Vec::new();
    for (position, word) in argv.into_iter().enumerate() {
        let word = word.as_ref().as_bytes();
        if word.contains(&0) {
            return Err(ExecError::Invalid {
                reason: "an argument contains a NUL byte".to_owned(),
            });
        }
        if position > 0 {
            line.push(b' ');
        }
        push_quoted(&mut line, word, position == 0);
    }
    if line.is_empty() {
        return Err(ExecError::Invalid {
            reason: "the argument vector is empty".to_owned(),
        });
    }
    Ok(OsString::from_vec(line))
}

/// Whether a shell takes this, where it stands unquoted behind a command's name, for one word and for nothing but itself. For what is
/// given to programs that put it into a shell's line as it is. A `%` is left out for ssh's sake, which expands it in paths.
pub fn is_plain_word(word: impl AsRef<OsStr>) -> bool {
    let word = word.as_ref().as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_@+:,./=-".contains(byte);
    // zsh expands a leading `=`; what begins with `-` or `+` could be an option.
    word.first()
        .is_some_and(|first| !matches!(first, b'=' | b'-' | b'+'))
        && word.iter().all(plain)
}

/// Appends `word`, quoted where it must be. In command position an `=` would make an assignment,
/// a reserved word would be grammar, and a leading `-` or `+` makes dash take the whole line of
/// `sh -c LINE` for an option, which is how sshd runs it.
pub(super) fn push_quoted(line: &mut Vec<u8>, word: &[u8], command_position: bool) {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_@%+:,./-".contains(byte);
    // zsh expands a leading `=` in any position, so only a later one is left alone.
    let equals_is_plain = !command_position && word.first() != Some(&b'=');
    let needs_none = !word.is_empty()
        && word
            .iter()
            .all(|byte| plain(byte) || (equals_is_plain && *byte == b'='))
        && !(command_position
            && (matches!(word.first(), Some(b'-' | b'+'))
                || RESERVED.iter().any(|reserved| reserved.as_bytes() == word)));
    if needs_none {
        line.extend_from_slice(word);
        return;
    }
    line.push(b'\'');
    for byte in word {
        if *byte == b'\'' {
            line.extend_from_slice(b"'\\''");
        } else {
            line.push(*byte);
        }
    }
    line.push(b'\'');
}
