//! A repository password that cannot be printed by accident.
//!
//! `Debug` shows `***`, and the bytes are overwritten when the value is dropped. It knows nothing about where
//! passwords come from: callers read them from files or credentials and hand them over.
//!
//! The credential types of `rustic_core` print their secrets in `Debug`, so this type is turned into one of those
//! only at the moment a repository is opened.

use std::path::Path;

use rustix::process::{Resource, Rlimit};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{EngineError, Result};

/// From now on neither this process nor what it starts leaves a core dump: one would hold passwords and keys. For programs, at
/// their beginning; the restore worker does it itself.
///
/// The limit is 1 and not 0: a dump that is piped to a program (systemd-coredump) heeds no other, and none is as small as that in a
/// file (<https://man7.org/linux/man-pages/man5/core.5.html>; `do_coredump` in Linux).
pub fn forbid_core_dumps() {
    let none = Rlimit {
        current: Some(1),
        maximum: Some(1),
    };
    // Anybody may lower a limit.
    let _ = rustix::process::setrlimit(Resource::Core, none);
}

/// A repository password.
///
/// It serialises to its plain text, because the restore worker gets it over a private pipe; it must not be
/// serialised anywhere else.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(#[serde(with = "plain")] Zeroizing<String>);

pub(crate) mod plain {
    use serde::{Deserialize, Deserializer, Serializer};
    use zeroize::Zeroizing;

    pub(crate) fn serialize<S: Serializer>(value: &Zeroizing<String>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(value)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Zeroizing<String>, D::Error> {
        String::deserialize(from).map(Zeroizing::new)
    }
}

impl Password {
    /// Wraps a password exactly as given.
    #[must_use]
    pub fn new(plain: impl Into<String>) -> Self {
        Self(Zeroizing::new(plain.into()))
    }

    /// Takes the contents of a password file: like restic, a trailing line end is not part of the password.
    #[must_use]
    pub fn from_file_contents(contents: &str) -> Self {
        Self::new(contents.trim_end_matches(['\r', '\n']))
    }

    /// Reads a password file.
    ///
    /// # Errors
    /// `PasswordFile`, also for an empty one.
    pub fn read_file(path: &Path) -> Result<Self> {
        let fail = |detail: String| EngineError::PasswordFile {
            path: path.display().to_string(),
            detail,
        };
        let contents =
            Zeroizing::new(std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?);
        let password = Self::from_file_contents(&contents);
        if password.0.is_empty() {
            Err(fail("it is empty".into()))
        } else {
            Ok(password)
        }
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_the_secret() {
        let password = Password::new("hunter2");
        assert_eq!(format!("{password:?} {:?}", Some(&password)), "*** Some(***)");
    }

    #[test]
    fn a_missing_or_empty_password_file_is_told_apart_from_a_wrong_password() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("empty"), "\n").unwrap();
        for name in ["missing", "empty"] {
            let error = Password::read_file(&dir.path().join(name)).unwrap_err();
            assert!(matches!(error, EngineError::PasswordFile { .. }), "{error}");
        }
    }

    #[test]
    fn a_password_file_loses_only_its_line_end() {
        assert_eq!(Password::from_file_contents(" a b \r\n").expose(), " a b ");
        assert_eq!(Password::from_file_contents("plain").expose(), "plain");
    }
}
