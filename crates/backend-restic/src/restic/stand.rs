//! One path for a tree, wherever it is read: restic finds the snapshot to compare with by the path that it recorded.
//!
//! Each backup reads from another mount point of another snapshot of ZFS. What restic records for `restic backup .` is what the
//! variable `PWD` says, when that leads to the directory that it runs in, as Go's standard library and every shell do. So the
//! driver makes a symbolic link of one name for each tree, runs restic in the directory itself, and says that it got there by
//! the link. Nothing is mounted, so no privileges are needed, no program besides restic, and no other process sees anything.
//!
//! Weighed and not taken: a bind mount in a mount namespace of its own would record the service's own path, but needs root or
//! user namespaces and a helper program that mounts and then becomes restic; the path must exist, also when its dataset is
//! gone; and restic then stores each directory above the tree with its times, so that an unchanged tree adds something each time.
//! `--parent` would need the list of snapshots before each backup, and leaves another path with each snapshot, which `restic
//! forget` takes for as many different things.
//!
//! An empty directory is backed up under its link's name, as a directory within one: restic refuses to store nothing.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use sha2::{Digest, Sha256};

use crate::backup::ZFS_CONTROL_INODE;
use crate::cipher::hex;
use crate::error::{EngineError, Result};

/// Names longer than this are cut, and told apart by their hash.
const LONGEST: usize = 160;

/// A tree under its one path, until this is dropped.
#[derive(Debug)]
pub(crate) struct Stand {
    /// Where restic is to run.
    pub(crate) cwd: PathBuf,
    /// How it is to believe that it got there.
    pub(crate) pwd: PathBuf,
    /// What it is to back up, there.
    pub(crate) what: OsString,
    /// The name of the only directory in the snapshot, where the tree is that.
    pub(crate) name: Option<String>,
    /// What is not part of the tree, as restic sees it.
    pub(crate) exclude: Option<PathBuf>,
    link: Option<PathBuf>,
    _lock: OwnedFd,
}

impl Stand {
    /// Makes the path for a tree. `work` is the driver's own directory, the same for all backups to a repository.
    pub(crate) fn make(work: &Path, as_path: &Path, source: &Path) -> Result<Self> {
        let empty = source_is_empty(source)?;
        let fail = |action: &str, path: &Path| {
            let (action, path) = (action.to_owned(), path.to_owned());
            move |error: io::Error| EngineError::target(&action, &path, &error)
        };
        let name = name_of(as_path);
        let (trees, empties) = (work.join("trees"), work.join("empty"));
        for dir in [&trees, &empties] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(fail("create", dir))?;
        }
        let lock = lock(&trees.join(format!(".{name}.lock")), as_path)?;
        if empty {
            let dir = empties.join(&name);
            std::fs::create_dir_all(&dir).map_err(fail("create", &dir))?;
            return Ok(Self {
                cwd: empties.clone(),
                pwd: empties,
                what: Path::new(".").join(&name).into_os_string(),
                name: Some(name),
                exclude: None,
                link: None,
                _lock: lock,
            });
        }
        let link = trees.join(&name);
        // What a run that was killed left.
        match std::fs::remove_file(&link) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail("remove", &link)(error)),
        }
        std::os::unix::fs::symlink(source, &link).map_err(fail("create", &link))?;
        let control = std::fs::symlink_metadata(source.join(".zfs"))
            .is_ok_and(|meta| meta.is_dir() && meta.ino() == ZFS_CONTROL_INODE);
        Ok(Self {
            cwd: source.to_owned(),
            pwd: link.clone(),
            what: ".".into(),
            name: None,
            exclude: control.then(|| link.join(".zfs")),
            link: Some(link),
            _lock: lock,
        })
    }

    /// A path that restic names, as one of the tree.
    pub(crate) fn relative<'a>(&self, item: &'a str) -> &'a str {
        let prefix = self.pwd.to_str().unwrap_or_default();
        match item.strip_prefix(prefix) {
            Some(rest) if !prefix.is_empty() && rest.starts_with('/') => &rest[1..],
            _ => item,
        }
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        if let Some(link) = &self.link {
            // Left behind it would lead nowhere, and the next backup replaces it.
            let _ = std::fs::remove_file(link);
        }
    }
}

/// Whether there is nothing in it. Where it isn't a directory that can be read, there is nothing to back up at all: restic
/// itself would say nothing of a missing one, and end well.
fn source_is_empty(source: &Path) -> Result<bool> {
    let fail = |detail: String| EngineError::Source {
        path: source.display().to_string(),
        detail,
    };
    let meta = std::fs::symlink_metadata(source).map_err(|error| fail(error.to_string()))?;
    if !source.is_absolute() || !meta.is_dir() {
        return Err(fail("it is not a directory under an absolute path".into()));
    }
    let mut entries = std::fs::read_dir(source).map_err(|error| fail(error.to_string()))?;
    match entries.next() {
        None => Ok(true),
        Some(Ok(_)) => Ok(false),
        Some(Err(error)) => Err(fail(error.to_string())),
    }
}

/// Two backups under one path at a time would take the link from each other.
fn lock(path: &Path, as_path: &Path) -> Result<OwnedFd> {
    let fail = |error: rustix::io::Errno| EngineError::target("lock", path, &error.into());
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)).map_err(fail)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(EngineError::Busy {
            detail: format!(
                "another backup of {} to the same repository is running",
                as_path.display()
            ),
        }),
        Err(error) => Err(fail(error)),
    }
}

/// A file name for a path: no two paths have the same.
fn name_of(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    let bytes = bytes
        .strip_prefix(b"/")
        .filter(|rest| !rest.is_empty())
        .unwrap_or(bytes);
    let mut name = String::new();
    for byte in bytes {
        match byte {
            b'/' if name.is_empty() => name.push_str("%2F"),
            b'/' => name.push('+'),
            // Not a dot or dash at its beginning, nothing that a pattern or a tag could mean something by.
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => name.push(char::from(*byte)),
            b'.' | b'-' if !name.is_empty() => name.push(char::from(*byte)),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    if name.len() > LONGEST {
        let hash = hex(&Sha256::digest(OsStr::from_bytes(bytes).as_bytes()).into());
        name.truncate(LONGEST - 17);
        name.push('~');
        name.push_str(&hash[..16]);
    }
    name
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_path_has_a_name_of_its_own() {
        let long = format!("/{}", "x".repeat(300));
        let longer = format!("{long}y");
        let paths = [
            "/", "/a", "/a/b", "/a+b", "/a%2Fb", "/-rf", "/.zfs", "/a b", "/a\nb", "/ä", "//a", &long,
            &longer,
        ];
        let names: BTreeSet<String> = paths.iter().map(|path| name_of(Path::new(path))).collect();
        assert_eq!(names.len(), paths.len());
        for name in &names {
            assert!(
                name.len() <= LONGEST && name.is_ascii() && !name.contains(['/', ',', ';', '*', '[', '\n']),
                "{name}"
            );
            assert!(!name.starts_with(['.', '-']), "{name}");
        }
        assert_eq!(name_of(Path::new("/var/lib/sonarr")), "var+lib+sonarr");
    }

    #[test]
    fn the_link_leads_there_while_it_stands_and_nobody_else_gets_it() {
        let dir = tempfile::tempdir().unwrap();
        let (work, tree) = (dir.path().join("work"), dir.path().join("tree"));
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(tree.join("file"), b"x").unwrap();
        let as_path = Path::new("/var/lib/a");
        // Of a run that was killed.
        std::fs::create_dir_all(work.join("trees")).unwrap();
        std::os::unix::fs::symlink("/nowhere", work.join("trees/var+lib+a")).unwrap();
        let stand = Stand::make(&work, as_path, &tree).unwrap();
        assert_eq!(std::fs::read_link(&stand.pwd).unwrap(), tree);
        assert_eq!((&stand.cwd, stand.what.to_str()), (&tree, Some(".")));
        let item = format!("{}/sub/file", stand.pwd.display());
        assert_eq!(
            (stand.relative(&item), stand.relative("sub/file")),
            ("sub/file", "sub/file")
        );
        let second = Stand::make(&work, as_path, &tree).unwrap_err();
        assert!(second.to_string().contains("/var/lib/a"), "{second}");
        let other = Stand::make(&work, Path::new("/var/lib"), &tree).unwrap();
        assert_ne!(other.pwd, stand.pwd);
        let pwd = stand.pwd.clone();
        drop(stand);
        assert!(std::fs::symlink_metadata(&pwd).is_err());
        assert_eq!(Stand::make(&work, as_path, &tree).unwrap().pwd, pwd);
    }

    #[test]
    fn what_is_no_directory_is_refused_and_an_empty_one_gets_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("empty")).unwrap();
        std::fs::write(at("file"), b"").unwrap();
        std::os::unix::fs::symlink(at("empty"), at("link")).unwrap();
        for bad in ["missing", "file", "link"] {
            let error = Stand::make(&at("work"), Path::new("/a"), &at(bad)).unwrap_err();
            assert!(matches!(error, EngineError::Source { .. }), "{bad}: {error}");
        }
        let stand = Stand::make(&at("work"), Path::new("/-a"), &at("empty")).unwrap();
        assert_eq!(
            (stand.what.to_str(), stand.name.as_deref()),
            (Some("./%2Da"), Some("%2Da"))
        );
        assert!(stand.cwd.join(&stand.what).is_dir());
    }
}
