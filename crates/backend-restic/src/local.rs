//! What stands in a local repository's place, told apart before an engine is let loose on it. It reads nothing of the
//! repository but names.

use std::io;
use std::path::Path;

use crate::error::{EngineError, Result};

fn unreadable(path: &Path, error: &io::Error) -> EngineError {
    let (what, detail) = (path.display().to_string(), error.to_string());
    if error.kind() == io::ErrorKind::PermissionDenied {
        EngineError::Denied { what, detail }
    } else {
        // A stale mount or a failing disk: nothing was read yet that could be called damaged.
        EngineError::Store {
            action: format!("look at {what}"),
            detail,
        }
    }
}

fn is_file(path: &Path) -> EngineError {
    EngineError::PathIsFile {
        path: path.display().to_string(),
    }
}

/// Nothing is there, or an empty directory.
pub(crate) fn must_be_vacant(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() => Err(is_file(path)),
        Ok(_) => {
            // Anything in there is somebody's: a damaged repository, or a mistyped path.
            let mut entries = std::fs::read_dir(path).map_err(|error| unreadable(path, &error))?;
            match entries.next() {
                None => Ok(()),
                Some(_) => Err(EngineError::AlreadyExists {
                    location: path.display().to_string(),
                }),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(unreadable(path, &error)),
    }
}

/// A directory is there.
pub(crate) fn must_be_directory(path: &Path) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(is_file(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(EngineError::NoRepository {
            location: path.display().to_string(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(is_file(path)),
        Err(error) => Err(unreadable(path, &error)),
    }
}

/// A repository is there: restic calls one whose parts are missing a missing one, or says that the password is wrong.
pub(crate) fn must_be_repository(path: &Path) -> Result<()> {
    must_be_directory(path)?;
    let filled = |name: &str| match std::fs::read_dir(path.join(name)) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(unreadable(path, &error)),
    };
    match std::fs::metadata(path.join("config")) {
        Ok(_) if filled("keys")? => Ok(()),
        Ok(_) => Err(EngineError::MissingKey {
            location: path.display().to_string(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            for name in ["keys", "snapshots", "index"] {
                if filled(name)? {
                    // Anything else would invite somebody to run init over it.
                    return Err(EngineError::Unreadable {
                        what: format!("the configuration of {}", path.display()),
                        detail: format!("it is missing, although {name} are there"),
                    });
                }
            }
            Err(EngineError::NoRepository {
                location: path.display().to_string(),
            })
        }
        Err(error) => Err(unreadable(path, &error)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_repository_that_lost_a_part_is_not_a_missing_one() {
        let dir = tempfile::tempdir().unwrap();
        let repo = dir.path().join("repo");
        let kind = || match must_be_repository(&repo) {
            Ok(()) => "there",
            Err(EngineError::NoRepository { .. }) => "none",
            Err(EngineError::Unreadable { .. }) => "damaged",
            Err(EngineError::MissingKey { .. }) => "no key",
            Err(EngineError::PathIsFile { .. }) => "a file",
            Err(error) => panic!("{error}"),
        };
        assert_eq!(kind(), "none");
        for name in ["keys", "snapshots", "index", "data"] {
            fs::create_dir_all(repo.join(name)).unwrap();
        }
        assert_eq!(kind(), "none");
        assert!(must_be_vacant(&repo).is_err());
        fs::write(repo.join("keys/ab"), b"").unwrap();
        assert_eq!(kind(), "damaged");
        fs::write(repo.join("config"), b"").unwrap();
        assert_eq!(kind(), "there");
        fs::remove_file(repo.join("keys/ab")).unwrap();
        assert_eq!(kind(), "no key");
        fs::remove_dir_all(&repo).unwrap();
        fs::write(&repo, b"").unwrap();
        assert_eq!(kind(), "a file");
    }
}
