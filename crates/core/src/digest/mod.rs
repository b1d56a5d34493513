//! The tree digest (being written on a branch of its own; this file is replaced by it).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A tree's fingerprint. Text form `b3t1:<64 hex digits>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TreeDigest(pub [u8; 32]);

impl fmt::Display for TreeDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b3t1:{}", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a tree digest")]
pub struct InvalidDigest;

impl FromStr for TreeDigest {
    type Err = InvalidDigest;
    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let hex = text.strip_prefix("b3t1:").ok_or(InvalidDigest)?;
        Ok(Self(
            *blake3::Hash::from_hex(hex).map_err(|_| InvalidDigest)?.as_bytes(),
        ))
    }
}

impl Serialize for TreeDigest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TreeDigest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
