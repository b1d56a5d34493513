//! [`TreeDigest`]: 32 bytes that name the state of a directory tree, written `b3t1:<64 hex digits>`.
//!
//! Knows nothing about how the bytes came to be; the prefix names the format version, so a digest of another version
//! never compares equal to one of this.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What every digest of format version 1 starts with when it is written.
pub const DIGEST_PREFIX: &str = "b3t1:";

/// The fingerprint of a directory tree; see `docs/digest.md` for what it covers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeDigest([u8; 32]);

impl TreeDigest {
    /// A digest from its bytes, e.g. as read from the journal.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for TreeDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(DIGEST_PREFIX)?;
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for TreeDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TreeDigest({self})")
    }
}

/// The text is not a tree digest this version can read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseDigestError {
    /// The prefix is missing or of another format version.
    #[error("a tree digest starts with `{DIGEST_PREFIX}`, this is {0:?}")]
    Prefix(String),
    /// What follows the prefix is not 64 lower-case hexadecimal digits.
    #[error("a tree digest has 64 lower-case hexadecimal digits after `{DIGEST_PREFIX}`, this is {0:?}")]
    Digits(String),
}

impl FromStr for TreeDigest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = text
            .strip_prefix(DIGEST_PREFIX)
            .ok_or_else(|| ParseDigestError::Prefix(text.to_owned()))?;
        // One spelling per digest: people compare them by eye and scripts by string.
        if hex.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(ParseDigestError::Digits(text.to_owned()));
        }
        let hash = blake3::Hash::from_hex(hex).map_err(|_| ParseDigestError::Digits(text.to_owned()))?;
        Ok(Self(*hash.as_bytes()))
    }
}

impl Serialize for TreeDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TreeDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_round_trip_and_reject_other_spellings() {
        let digest = TreeDigest::from_bytes([0xab; 32]);
        let text = digest.to_string();
        assert_eq!(text, format!("b3t1:{}", "ab".repeat(32)));
        assert_eq!(text.parse::<TreeDigest>().unwrap(), digest);
        assert_eq!(
            serde_json::from_str::<TreeDigest>(&serde_json::to_string(&digest).unwrap()).unwrap(),
            digest
        );
        for bad in [
            text.to_uppercase(),
            text.replace("b3t1", "b3t2"),
            text[..68].to_owned(),
            format!("{text}0"),
            text.replace("ab", "AB"),
        ] {
            assert!(bad.parse::<TreeDigest>().is_err(), "{bad}");
        }
    }
}
