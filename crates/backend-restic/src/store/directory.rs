//! Lists a directory of this machine so that nothing is missing which is there.
//!
//! The object store's own listing leaves out what can't be looked at: a bad inode, a stale file of NFS, a link to nowhere. The newest
//! snapshots would be gone without a word, and an older one be restored for them.

use std::fs;
use std::io;
use std::path::Path as FsPath;

use object_store::path::Path;

use super::Listed;
use crate::error::{EngineError, Result};

/// Everything below a directory, which need not exist.
pub(super) fn list(root: &FsPath, below: &Path) -> Result<Vec<Listed>> {
    let (dir, mut found) = (root.join(below.as_ref()), Vec::new());
    if !is_gone(&dir) {
        walk(&dir, below, &mut found)?;
    }
    Ok(found)
}

/// Size of a file; `None` when it isn't there.
pub(super) fn size(root: &FsPath, file: &Path) -> Result<Option<u64>> {
    let path = root.join(file.as_ref());
    match fs::metadata(&path) {
        Ok(meta) => Ok(meta.is_file().then_some(meta.len())),
        Err(_) if is_gone(&path) => Ok(None),
        Err(error) => Err(failed(&path, &error)),
    }
}

fn walk(dir: &FsPath, at: &Path, found: &mut Vec<Listed>) -> Result<()> {
    let failed = |error: io::Error| failed(dir, &error);
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !is_unfinished(name)) else {
            continue;
        };
        let (path, location) = (entry.path(), at.clone().join(name));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, &location, found)?;
            continue;
        }
        match fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => walk(&path, &location, found)?,
            Ok(meta) if meta.is_file() => found.push(Listed {
                location,
                size: Ok(meta.len()),
            }),
            Ok(_) => {}
            Err(_) if is_gone(&path) => {}
            // It may have been a directory, with nobody knows what in it.
            Err(error) if name.len() == 2 => return Err(self::failed(&path, &error)),
            Err(error) => found.push(Listed {
                location,
                size: Err(self::failed(&path, &error)),
            }),
        }
    }
    Ok(())
}

/// Not so a link to what isn't there.
fn is_gone(path: &FsPath) -> bool {
    let looked = fs::symlink_metadata(path);
    looked.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// What is being written has a number behind its name until it is whole.
fn is_unfinished(name: &str) -> bool {
    name.split_once('#')
        .is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn failed(path: &FsPath, error: &io::Error) -> EngineError {
    let (what, detail) = (path.display().to_string(), error.to_string());
    match error.kind() {
        io::ErrorKind::PermissionDenied => EngineError::Denied { what, detail },
        _ => EngineError::Store {
            action: format!("look at {what}"),
            detail,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(listed: &[Listed]) -> Vec<(&str, bool)> {
        let mut names: Vec<_> = listed
            .iter()
            .map(|file| (file.location.as_ref(), file.size.is_ok()))
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_cannot_be_looked_at_is_listed_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (root, data) = (dir.path(), Path::from("data"));
        assert_eq!(names(&list(root, &data).unwrap()), []);
        fs::create_dir_all(root.join("data/aa")).unwrap();
        for name in ["aa/one", "aa/two#7", "three"] {
            fs::write(root.join("data").join(name), b"12").unwrap();
        }
        let nowhere = root.join("nowhere");
        symlink(&nowhere, root.join("data/aa/link")).unwrap();
        let listed = list(root, &data).unwrap();
        let expected = [
            ("data/aa/link", false),
            ("data/aa/one", true),
            ("data/three", true),
        ];
        assert_eq!(names(&listed), expected);
        assert_eq!(
            listed
                .iter()
                .filter_map(|file| file.size.clone().ok())
                .sum::<u64>(),
            4
        );
        let sized = |name: &str| size(root, &Path::from(name));
        assert_eq!((sized("data/three"), sized("data/four")), (Ok(Some(2)), Ok(None)));
        assert!(sized("data/aa/link").is_err());
        symlink(&nowhere, root.join("data/bb")).unwrap();
        assert!(matches!(list(root, &data), Err(EngineError::Store { .. })));
        symlink(&nowhere, root.join("index")).unwrap();
        assert!(list(root, &Path::from("index")).is_err());
    }
}
