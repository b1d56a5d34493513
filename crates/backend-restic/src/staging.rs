//! Which places a restore is let loose on. It removes what doesn't belong to the restored tree (R7), so a wrong
//! staging place would be a loss: what this refuses no caller can lose by a mistake.
//!
//! A staging dataset is mounted where it is staged, so a mount point is no reason to refuse; the root of the machine
//! is, and so is everything that holds live data or the repository itself.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::error::{EngineError, Result};

fn refuse(path: &Path, detail: impl Into<String>) -> EngineError {
    EngineError::TargetConflict {
        path: path.display().to_string(),
        detail: detail.into(),
    }
}

/// The path without what would make the system follow a link at its end (`link/`, `link/.`), when it is one that can be
/// restored into.
pub(crate) fn plain(path: &Path) -> Result<PathBuf> {
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err(refuse(path, "the target must be an absolute path without `..`"));
    }
    if path.file_name().is_none() {
        return Err(refuse(path, "the root of the machine is never restored into"));
    }
    Ok(path.components().collect())
}

/// Whether this is the root of the machine, under whatever name.
pub(crate) fn is_machine_root(device: u64, inode: u64) -> io::Result<bool> {
    let root = std::fs::metadata("/")?;
    Ok((root.dev(), root.ino()) == (device, inode))
}

/// Refuses a target that is, or holds, one of `kept`: the live data, the repository.
pub(crate) fn must_not_hold(target: &Path, kept: &[(&str, &Path)]) -> Result<PathBuf> {
    let target = plain(target)?;
    match std::fs::symlink_metadata(&target) {
        Ok(meta) if !meta.is_dir() => {
            let detail = "the target is not a directory (a symbolic link is not followed)";
            return Err(refuse(&target, detail));
        }
        Ok(meta) if is_machine_root(meta.dev(), meta.ino()).unwrap_or(true) => {
            return Err(refuse(&target, "the root of the machine is never restored into"));
        }
        // Whoever opens it finds out what else is wrong.
        Ok(_) | Err(_) => {}
    }
    let resolved = resolve(&target);
    for (what, path) in kept {
        if resolve(path).starts_with(&resolved) {
            let detail = format!("{what} {} is in it", path.display());
            return Err(refuse(&target, detail));
        }
    }
    Ok(target)
}

/// Where a path leads, with what isn't there yet at its end.
fn resolve(path: &Path) -> PathBuf {
    for above in path.ancestors() {
        if let (Ok(found), Ok(rest)) = (above.canonicalize(), path.strip_prefix(above)) {
            // Joining nothing would leave a slash at the end, which compares as the same.
            return found.join(rest);
        }
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[track_caller]
    fn refused(result: &Result<PathBuf>) {
        assert!(
            matches!(result, Err(EngineError::TargetConflict { .. })),
            "{result:?}"
        );
    }

    #[test]
    fn roots_climbing_and_relative_paths_are_refused() {
        for path in ["/", "/.", "//", "relative", "", "/a/../b", "/a/..", "."] {
            refused(&plain(Path::new(path)));
        }
        for path in ["/a/link/", "/a/link/.", "/a//link", "/a/./link"] {
            assert_eq!(plain(Path::new(path)).unwrap(), Path::new("/a/link"));
        }
    }

    #[test]
    fn links_and_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("live")).unwrap();
        std::fs::write(dir.path().join("file"), b"").unwrap();
        symlink("live", dir.path().join("link")).unwrap();
        symlink("/", dir.path().join("to-root")).unwrap();
        for name in ["file", "link", "link/", "link/.", "to-root", "to-root/"] {
            refused(&must_not_hold(&dir.path().join(name), &[]));
        }
        refused(&must_not_hold(Path::new("/"), &[]));
    }

    #[test]
    fn what_is_kept_is_seen_through_links_and_when_it_is_not_there_yet() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("data/live")).unwrap();
        symlink(at("data"), at("alias")).unwrap();
        for target in ["data", "data/live", "alias/live", ""] {
            for kept in ["data/live", "alias/live", "data/live/later/still"] {
                refused(&must_not_hold(&at(target), &[("the live data", &at(kept))]));
            }
        }
        for target in ["data/live-staging", "data/other", "data/live/.staging"] {
            let kept = at("data/live");
            assert_eq!(
                must_not_hold(&at(target), &[("the live data", &kept)]).unwrap(),
                at(target)
            );
        }
    }
}
