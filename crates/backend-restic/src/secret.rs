//! A repository password that cannot be printed by accident.
//!
//! `Debug` shows `***`, and the bytes are overwritten when the value is dropped. It knows nothing about where
//! passwords come from: callers read them from files or credentials and hand them over.
//!
//! The credential types of `rustic_core` print their secrets in `Debug`, so this type is turned into one of those
//! only at the moment a repository is opened.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::process::{Resource, Rlimit};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{EngineError, Result};

/// No password is as long.
const MOST: usize = 64 * 1024;

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

    /// Takes the contents of a password file. Like restic, it leaves out a byte order mark and all white space around it: what one engine
    /// takes for the password the other does too.
    #[must_use]
    pub fn from_file_contents(contents: &str) -> Self {
        Self::new(contents.strip_prefix('\u{feff}').unwrap_or(contents).trim())
    }

    /// Reads a password file.
    ///
    /// # Errors
    /// `PasswordFile`, also for one that is empty, is no text or is longer than any password.
    pub fn read_file(path: &Path) -> Result<Self> {
        let fail = |detail: String| EngineError::PasswordFile {
            path: path.display().to_string(),
            detail,
        };
        let mut file = File::open(path).map_err(|error| fail(error.to_string()))?;
        // As long as it will ever be, so that no copy is left behind where it grew.
        let mut contents = Zeroizing::new(Vec::with_capacity(MOST + 1));
        let read = file.by_ref().take(MOST as u64 + 1).read_to_end(&mut contents);
        read.map_err(|error| fail(error.to_string()))?;
        if contents.len() > MOST {
            return Err(fail(format!("it is longer than {MOST} bytes")));
        }
        let text = std::str::from_utf8(&contents).map_err(|_| fail("it is not UTF-8 text".into()))?;
        let password = Self::from_file_contents(text);
        if password.0.is_empty() {
            Err(fail("it is empty".into()))
        } else if password.0.contains('\0') {
            Err(fail("it is not text".into()))
        } else {
            Ok(password)
        }
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

/// What is unwise about who may read a file with a secret in it; nothing where it can't be looked at.
#[must_use]
pub fn open_to_all(path: &Path) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    let shown = path.display();
    (mode & 0o004 != 0)
        .then(|| format!("everybody on this machine can read the secret in {shown}: `chmod o-rwx {shown}`"))
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

    fn read(content: &[u8]) -> Result<Password> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, content).unwrap();
        Password::read_file(&path)
    }

    #[test]
    fn what_holds_no_password_is_told_apart_from_a_wrong_one() {
        for (content, why) in [
            (&b""[..], "is empty"),
            (b"\n", "is empty"),
            (b"  \t\n", "is empty"),
            (b"a\0two", "is not text"),
            (b"\xff\xfe", "is not UTF-8 text"),
            (&[b'x'; MOST + 1], "is longer than"),
        ] {
            let error = read(content).unwrap_err();
            assert!(matches!(error, EngineError::PasswordFile { .. }), "{error}");
            let words = error.to_string();
            assert!(words.contains(why) && !words.contains("two"), "{words}");
        }
        assert_eq!(read(&[b'x'; MOST]).unwrap().expose().len(), MOST);
        for path in [Path::new("/"), Path::new("/nowhere/at/all")] {
            let error = Password::read_file(path).unwrap_err();
            assert!(matches!(error, EngineError::PasswordFile { .. }), "{error}");
        }
    }

    #[test]
    fn a_password_is_what_restic_takes_it_for() {
        for (content, wanted) in [
            ("plain", "plain"),
            ("plain\n", "plain"),
            ("plain\r\n", "plain"),
            (" \ta b \u{a0}\n\n", "a b"),
            ("\u{fc}\"'$ x\n", "\u{fc}\"'$ x"),
            // `base64` breaks its lines.
            ("one\ntwo\n", "one\ntwo"),
            ("\u{feff}plain\n", "plain"),
        ] {
            assert_eq!(read(content.as_bytes()).unwrap().expose(), wanted);
        }
    }

    #[test]
    fn a_file_that_everybody_can_read_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "x").unwrap();
        for (mode, told) in [(0o600, false), (0o640, false), (0o644, true), (0o604, true)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(open_to_all(&path).is_some(), told, "{mode:o}");
        }
        assert_eq!(open_to_all(&dir.path().join("missing")), None);
    }
}
