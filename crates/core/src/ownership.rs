//! What may be declared of the topmost directory of a dataset: whose it is, and its permissions. Pure data; asks nobody who is who.
//!
//! Only of the topmost directory: what is in it belongs to whom it was restored to or who made it.

use std::fmt;

use serde::{Serialize, Serializer};

/// A user or group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Account {
    /// Its number.
    Id(u32),
    /// Its name, which each machine may give another number.
    Name(String),
}

/// Permissions, with the bits for set-user-id, set-group-id and sticky; at most 0o7777.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirMode(u32);

/// What is declared of a topmost directory; what isn't stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Ownership {
    /// Its user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Account>,
    /// Its group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Account>,
    /// Its permissions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<DirMode>,
}

impl Account {
    /// Reads a name, or a number that is written as a text. None for what is neither: nothing that a tool could take for an option.
    pub fn parse(text: &str) -> Option<Self> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().ok().and_then(Self::id);
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        // A machine's account ends with `$`.
        let name = text.strip_suffix('$').unwrap_or(text);
        let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        (begins && text.len() <= 255 && name.chars().all(plain)).then(|| Self::Name(text.to_owned()))
    }

    /// A number. None for the last one, which the system takes for "leave it as it is".
    pub fn id(number: u32) -> Option<Self> {
        (number != u32::MAX).then_some(Self::Id(number))
    }
}

impl DirMode {
    /// Reads `750` or `0750`: octal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        let bits = u32::from_str_radix(text, 8).ok().filter(|_| octal)?;
        Some(Self(bits))
    }

    /// These permissions; bits of a file's mode that are none are left out.
    pub fn of_bits(bits: u32) -> Self {
        Self(bits & 0o7777)
    }

    /// The bits.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl fmt::Display for DirMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl Serialize for DirMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Ownership {
    /// Whether nothing is declared.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_permissions_are_read_and_nothing_else() {
        for (text, wanted) in [
            ("1000", Some(Account::Id(1000))),
            ("0", Some(Account::Id(0))),
            ("postgres", Some(Account::Name("postgres".to_owned()))),
            ("_apt", Some(Account::Name("_apt".to_owned()))),
            ("box$", Some(Account::Name("box$".to_owned()))),
            ("a.b-c", Some(Account::Name("a.b-c".to_owned()))),
            ("", None),
            ("$", None),
            ("-1", None),
            ("-r", None),
            ("a b", None),
            ("a:b", None),
            ("4294967295", None),
            ("99999999999", None),
        ] {
            assert_eq!(Account::parse(text), wanted, "{text:?}");
        }
        for (text, wanted) in [
            ("0750", Some(0o750)),
            ("2770", Some(0o2770)),
            ("755", Some(0o755)),
            ("7", None),
            ("0o755", None),
            ("+755", None),
            ("0888", None),
            ("00755", None),
            ("u=rwx", None),
        ] {
            assert_eq!(DirMode::parse(text).map(DirMode::bits), wanted, "{text:?}");
        }
        assert_eq!(DirMode::parse("755").unwrap().to_string(), "0755");
    }
}
