//! Secrets and their removal from text. A [`Secret`] never prints itself; a [`Redactor`] replaces
//! every registered secret in captured output. It does not find encoded forms (base64, URL
//! escapes) of a secret.

use std::fmt;

/// What stands in a text where a secret was.
pub const REDACTED: &str = "***";

/// Shortest part of a many-line secret (a credentials file) that is searched for by itself.
const SHORTEST_PART: usize = 8;

/// A password, key or credentials file. `Debug` and `Display` print `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Wraps the secret's bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes themselves, for the one who hands them on.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// Replaces registered secrets in bytes and text.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Longest first, so that a secret that contains another one goes as a whole.
    needles: Vec<Vec<u8>>,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor")
            .field("secrets", &self.needles.len())
            .finish()
    }
}

impl Redactor {
    /// A redactor for these secrets. A secret of several lines (a credentials file) is also
    /// searched for line by line, and by the value after a `=`, since a tool prints those alone.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut needles: Vec<Vec<u8>> = Vec::new();
        for secret in secrets {
            let whole = secret.expose().trim_ascii();
            if whole.is_empty() {
                continue;
            }
            needles.push(whole.to_vec());
            if whole.contains(&b'\n') {
                for line in whole.split(|byte| *byte == b'\n') {
                    let value = line
                        .iter()
                        .position(|byte| *byte == b'=')
                        .map(|at| &line[at + 1..]);
                    for part in [Some(line), value].into_iter().flatten() {
                        let part = part.trim_ascii();
                        if part.len() >= SHORTEST_PART {
                            needles.push(part.to_vec());
                        }
                    }
                }
            }
        }
        needles.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        needles.dedup();
        Self { needles }
    }

    /// Adds the other's secrets to this one's.
    pub fn merge(&mut self, other: Self) {
        self.needles.extend(other.needles);
        self.needles
            .sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        self.needles.dedup();
    }

    /// The bytes with every secret replaced by `***`.
    pub fn bytes(&self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len());
        let mut at = 0;
        'next: while at < text.len() {
            for needle in &self.needles {
                if text[at..].starts_with(needle) {
                    out.extend_from_slice(REDACTED.as_bytes());
                    at += needle.len();
                    continue 'next;
                }
            }
            out.push(text[at]);
            at += 1;
        }
        out
    }

    /// The text with every secret replaced by `***`.
    pub fn text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.bytes(text.as_bytes())).into_owned()
    }

    /// Like [`bytes`](Self::bytes) for the part before a cut: a secret whose beginning is all that
    /// is left at the end goes too.
    pub(super) fn before_cut(&self, text: &[u8]) -> Vec<u8> {
        let torn = |needle: &Vec<u8>| (1..needle.len()).rev().find(|n| text.ends_with(&needle[..*n]));
        let end = self.needles.iter().filter_map(torn).max().unwrap_or(0);
        let mut out = self.bytes(&text[..text.len() - end]);
        if end > 0 {
            out.extend_from_slice(REDACTED.as_bytes());
        }
        out
    }

    /// Like [`bytes`](Self::bytes) for the part after a cut.
    pub(super) fn after_cut(&self, text: &[u8]) -> Vec<u8> {
        let torn = |needle: &Vec<u8>| (1..needle.len()).find(|n| text.starts_with(&needle[*n..]));
        let start = self
            .needles
            .iter()
            .filter_map(|needle| torn(needle).map(|n| needle.len() - n))
            .max()
            .unwrap_or(0);
        let mut out = if start > 0 {
            REDACTED.as_bytes().to_vec()
        } else {
            Vec::new()
        };
        out.extend(self.bytes(&text[start..]));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_never_print() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert!(!format!("{:?}", Redactor::new([&secret])).contains("hunter2"));
    }

    #[test]
    fn the_longest_secret_goes_as_a_whole() {
        let r = Redactor::new([&Secret::new("abc"), &Secret::new("abcdef\n")]);
        assert_eq!(r.text("xabcdefy abc"), "x***y ***");
    }

    #[test]
    fn an_empty_secret_changes_nothing() {
        let r = Redactor::new([&Secret::new(""), &Secret::new("\n")]);
        assert_eq!(r.text("as it was"), "as it was");
    }

    #[test]
    fn values_of_a_credentials_file_are_found_alone() {
        let file = "[default]\naws_access_key_id = GK0123456789\naws_secret_access_key=0123456789abcdef\n";
        let r = Redactor::new([&Secret::new(file)]);
        assert_eq!(
            r.text("key 0123456789abcdef for GK0123456789 refused"),
            "key *** for *** refused"
        );
    }

    #[test]
    fn a_secret_torn_by_a_cut_is_not_left_half() {
        let r = Redactor::new([&Secret::new("hunter2")]);
        assert_eq!(r.before_cut(b"password hunt"), b"password ***");
        assert_eq!(r.after_cut(b"ter2 is wrong"), b"*** is wrong");
    }
}
