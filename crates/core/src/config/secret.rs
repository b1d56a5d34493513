//! Secrets from files. They show as `***`, whoever prints them.

use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::error::{Common, Kind as _, OpError, OpKind};

/// No password is as long.
const MOST: u64 = 64 * 1024;

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// A secret from a file, and what is unwise about that file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// The secret.
    pub secret: Secret,
    /// Each a sentence.
    pub warnings: Vec<String>,
}

impl Secret {
    /// Keeps a text from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself. Give it to the one who needs it and to nobody else: no message, no argument, no environment.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Reads a secret, without one line break at its end.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`, `InvalidInput` (a directory, empty, not a line of text), with a hint.
    pub fn read(path: &Path) -> Result<SecretFile, OpError> {
        let shown = path.display();
        let failed = |error: &std::io::Error| {
            let failed = OpError::io(format!("the secret in {shown} can't be read"), error);
            match failed.kind().common() {
                Some(Common::NotFound) => {
                    failed.hint("is the file system with it mounted, and the name right?")
                }
                Some(Common::PermissionDenied) => {
                    failed.hint(format!("run as the user it belongs to; see `ls -l {shown}`"))
                }
                _ => failed,
            }
        };
        let refuse = |what: &str, hint: &str| {
            Err(OpError::new(OpKind::InvalidInput, format!("the secret in {shown} {what}")).hint(hint))
        };
        let file = std::fs::File::open(path).map_err(|error| failed(&error))?;
        let metadata = file.metadata().map_err(|error| failed(&error))?;
        if metadata.is_dir() {
            return refuse("is a directory", "name the file in it");
        }
        let mut bytes = Vec::new();
        (file.take(MOST + 1).read_to_end(&mut bytes)).map_err(|error| failed(&error))?;
        if bytes.len() as u64 > MOST {
            return refuse("is longer than 64 KiB", "is this the right file?");
        }
        let Ok(mut text) = String::from_utf8(bytes) else {
            return refuse(
                "is not UTF-8 text",
                "is this the right file, and is it decrypted?",
            );
        };
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        if text.trim().is_empty() {
            return refuse(
                "is empty",
                "write the password into it; was it decrypted before this ran?",
            );
        }
        if text.contains(['\n', '\0']) {
            return refuse(
                "is more than one line",
                "a secret is one line of text; is this the right file?",
            );
        }
        let mut warnings = Vec::new();
        if metadata.mode() & 0o004 != 0 {
            warnings.push(format!(
                "everybody on this machine can read the secret in {shown}: `chmod o-rwx {shown}`"
            ));
        }
        if text.trim() != text {
            // restic trims what it reads from a password file, so for it this would be another password.
            warnings.push(format!(
                "the secret in {shown} begins or ends with white space, which restic would drop"
            ));
        }
        Ok(SecretFile {
            secret: Self(text),
            warnings,
        })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
