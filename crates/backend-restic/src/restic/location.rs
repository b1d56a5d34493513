//! Where a repository is, as restic is told. Pure.
//!
//! A location may hold a password (`rest:https://user:password@host/`), so it is never an argument, and never shown as it is.

use std::fmt;
use std::path::{Path, PathBuf};

use reseed_core::exec::{Command, Secret};

use crate::error::{EngineError, Result};

/// Where a repository is.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// A directory.
    Local(PathBuf),
    /// `s3:`, `sftp:` or `rest:` and what follows. B2 is reached through its S3 endpoint, as restic's authors recommend.
    Remote(Secret),
}

impl Location {
    /// From text: an absolute path, or what restic takes behind `-r` for the kinds that are known here.
    ///
    /// # Errors
    /// `Invalid` with what would do.
    pub fn parse(text: &str) -> Result<Self> {
        let path = text.strip_prefix("local:").unwrap_or(text);
        if Path::new(path).is_absolute() {
            return Ok(Self::Local(path.into()));
        }
        match text.split_once(':') {
            Some(("s3" | "sftp" | "rest", rest)) if !rest.is_empty() => Ok(Self::Remote(Secret::new(text))),
            Some(("b2", _)) => Err(invalid(
                "use B2's S3 endpoint, as s3:https://s3.REGION.backblazeb2.com/BUCKET",
            )),
            _ => Err(invalid(
                "it is neither an absolute path nor one of s3:, sftp: and rest:",
            )),
        }
    }

    /// The directory, where it is one.
    pub fn local_path(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
            Self::Remote(_) => None,
        }
    }

    /// Tells a command. A remote one is told by a file that only the child can read.
    pub(crate) fn tell(&self, command: Command) -> Command {
        match self {
            Self::Local(path) => command.env("RESTIC_REPOSITORY", path),
            Self::Remote(text) => command.env_secret_file("RESTIC_REPOSITORY_FILE", text.clone()),
        }
    }
}

fn invalid(why: &str) -> EngineError {
    EngineError::Invalid {
        detail: format!("not a repository's location: {why}"),
    }
}

/// Without user and password.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Local(path) => return write!(f, "{}", path.display()),
            Self::Remote(text) => String::from_utf8_lossy(text.expose()).into_owned(),
        };
        // The host's part ends at the first slash that is not one of `https://`.
        let start = text
            .find("://")
            .map_or_else(|| text.find(':').map_or(0, |at| at + 1), |at| at + 3);
        let end = text[start..].find('/').map_or(text.len(), |at| start + at);
        match text[start..end].rfind('@') {
            // A user alone (`sftp:backup@host:/srv`) is no secret.
            Some(at) if text[start..start + at].contains(':') => {
                write!(f, "{}***{}", &text[..start], &text[start + at..])
            }
            _ => f.write_str(&text),
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Location({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart_and_others_refused() {
        assert_eq!(
            Location::parse("/srv/a:b").unwrap(),
            Location::Local("/srv/a:b".into())
        );
        assert_eq!(
            Location::parse("local:/srv").unwrap().local_path(),
            Some(Path::new("/srv"))
        );
        for good in [
            "s3:https://s3.example/bucket/p",
            "sftp:u@h:/srv",
            "rest:https://h:8000/",
        ] {
            assert_eq!(Location::parse(good).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "relative/path",
            "b2:bucket:p",
            "s3:",
            "swift:x:/y",
            "rclone:x:y",
        ] {
            assert!(
                matches!(Location::parse(bad), Err(EngineError::Invalid { .. })),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_password_in_a_location_is_neither_shown_nor_an_argument() {
        let location = Location::parse("rest:https://user:hunter2@host:8000/a@b").unwrap();
        assert_eq!(location.to_string(), "rest:https://***@host:8000/a@b");
        assert!(!format!("{location:?}").contains("hunter2"));
        let command = location.tell(Command::new("restic"));
        assert!(!format!("{command:?}").contains("hunter2"));
        let file = command.variable("RESTIC_REPOSITORY_FILE").unwrap();
        assert_eq!(
            command.secret_file(file).unwrap().expose(),
            b"rest:https://user:hunter2@host:8000/a@b"
        );
    }
}
