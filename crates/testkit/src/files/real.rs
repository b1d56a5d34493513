//! [`Files`] over the machine's own filesystem.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps, XattrFlags};

use super::{Entry, EntryKind, Files, Listing};

/// The machine's own files.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFiles;

#[track_caller]
fn done<T, E: std::fmt::Display>(result: Result<T, E>, what: &str, path: &Path) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("can't {what} {}: {error}", path.display()),
    }
}

fn parents(path: &Path) {
    if let Some(parent) = path.parent() {
        done(fs::create_dir_all(parent), "make the directory", parent);
    }
}

impl Files for RealFiles {
    fn make_dir(&self, path: &Path) {
        done(fs::create_dir_all(path), "make the directory", path);
    }

    fn write(&self, path: &Path, bytes: &[u8]) {
        parents(path);
        let mut file = done(
            fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .open(path),
            "open",
            path,
        );
        done(file.write_all(bytes), "write", path);
    }

    fn write_at(&self, path: &Path, offset: usize, bytes: &[u8]) {
        let file = done(fs::OpenOptions::new().write(true).open(path), "open", path);
        let offset = u64::try_from(offset).unwrap_or(u64::MAX);
        done(file.write_all_at(bytes, offset), "write", path);
    }

    fn set_len(&self, path: &Path, len: u64) {
        let file = done(fs::OpenOptions::new().write(true).open(path), "open", path);
        done(file.set_len(len), "set the length of", path);
    }

    fn symlink(&self, target: &Path, path: &Path) {
        parents(path);
        done(std::os::unix::fs::symlink(target, path), "link", path);
    }

    fn hard_link(&self, existing: &Path, path: &Path) {
        parents(path);
        done(fs::hard_link(existing, path), "link", path);
    }

    fn fifo(&self, path: &Path) {
        parents(path);
        let mode = Mode::from_raw_mode(0o644);
        done(
            rustix::fs::mknodat(CWD, path, rustix::fs::FileType::Fifo, mode, 0),
            "make the pipe",
            path,
        );
    }

    fn set_mode(&self, path: &Path, mode: u32) {
        done(
            fs::set_permissions(path, fs::Permissions::from_mode(mode)),
            "set the mode of",
            path,
        );
    }

    fn set_xattr(&self, path: &Path, name: &str, value: &[u8]) -> bool {
        match rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()) {
            Ok(()) => true,
            Err(rustix::io::Errno::NOTSUP) => false,
            Err(error) => panic!("can't set {name} of {}: {error}", path.display()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) {
        parents(to);
        done(fs::rename(from, to), "rename", from);
    }

    fn remove(&self, path: &Path) {
        match fs::symlink_metadata(path) {
            Err(_) => {}
            Ok(meta) if meta.is_dir() => done(fs::remove_dir_all(path), "remove", path),
            Ok(_) => done(fs::remove_file(path), "remove", path),
        }
    }

    fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let meta = fs::symlink_metadata(path).ok()?;
        meta.is_file().then(|| done(fs::read(path), "read", path))
    }

    fn exists(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok()
    }

    fn list(&self, root: &Path) -> Listing {
        let mut listing = Listing::new();
        let mut links = BTreeMap::new();
        if self.exists(root) {
            walk(root, Path::new(""), &mut links, &mut listing);
        }
        listing
    }

    fn copy(&self, from: &Path, to: &Path) {
        parents(to);
        let mut links = BTreeMap::new();
        copy(from, to, &mut links);
    }
}

/// Depth first in the order of [`Path`], so that the first name of a hard-linked file is the same on every filesystem.
fn walk(path: &Path, rel: &Path, links: &mut BTreeMap<(u64, u64), PathBuf>, listing: &mut Listing) {
    let meta = done(fs::symlink_metadata(path), "look at", path);
    let kind = if meta.is_dir() {
        EntryKind::Dir
    } else if meta.is_symlink() {
        EntryKind::Symlink(done(fs::read_link(path), "read the link", path))
    } else if meta.is_file() {
        let bytes = done(fs::read(path), "read", path);
        let same_as = match links.get(&(meta.dev(), meta.ino())) {
            Some(first) => Some(first.clone()),
            None => {
                links.insert((meta.dev(), meta.ino()), rel.to_owned());
                None
            }
        };
        EntryKind::File {
            len: meta.len(),
            hash: blake3::hash(&bytes),
            same_as,
        }
    } else if meta.file_type().is_fifo() {
        EntryKind::Fifo
    } else {
        EntryKind::Other(meta.mode())
    };
    let is_link = matches!(kind, EntryKind::Symlink(_));
    let entry = Entry {
        mode: if is_link { 0o777 } else { meta.mode() & 0o7777 },
        xattrs: if is_link {
            BTreeMap::new()
        } else {
            user_xattrs(path)
        },
        kind,
    };
    listing.insert(rel.to_owned(), entry);
    if meta.is_dir() {
        let mut names: Vec<_> = done(fs::read_dir(path), "list", path)
            .map(|item| done(item, "list", path).file_name())
            .collect();
        names.sort();
        for name in names {
            walk(&path.join(&name), &rel.join(&name), links, listing);
        }
    }
}

fn user_xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0u8; 4096];
    let Ok(len) = rustix::fs::llistxattr(path, &mut names) else {
        return BTreeMap::new();
    };
    names[..len]
        .split(|&byte| byte == 0)
        .filter_map(|name| std::str::from_utf8(name).ok())
        .filter(|name| name.starts_with("user.") && !name.starts_with("user.reseed."))
        .map(|name| {
            let mut value = vec![0u8; 65536];
            let len = done(
                rustix::fs::lgetxattr(path, name, &mut value),
                "read an attribute of",
                path,
            );
            (name.to_owned(), value[..len].to_vec())
        })
        .collect()
}

fn copy(from: &Path, to: &Path, links: &mut BTreeMap<(u64, u64), PathBuf>) {
    let meta = done(fs::symlink_metadata(from), "look at", from);
    if meta.is_symlink() {
        let target = done(fs::read_link(from), "read the link", from);
        done(std::os::unix::fs::symlink(target, to), "link", to);
    } else if meta.is_dir() {
        done(fs::create_dir_all(to), "make the directory", to);
        for item in done(fs::read_dir(from), "list", from) {
            let name = done(item, "list", from).file_name();
            copy(&from.join(&name), &to.join(&name), links);
        }
    } else if meta.is_file() {
        match links.get(&(meta.dev(), meta.ino())) {
            Some(first) => done(fs::hard_link(first, to), "link", to),
            None => {
                done(fs::copy(from, to).map(drop), "copy", from);
                links.insert((meta.dev(), meta.ino()), to.to_owned());
            }
        }
    } else {
        RealFiles.fifo(to);
    }
    if !meta.is_symlink() {
        for (name, value) in user_xattrs(from) {
            RealFiles.set_xattr(to, &name, &value);
        }
        RealFiles.set_mode(to, meta.mode() & 0o7777);
    }
    let time = Timespec {
        tv_sec: meta.mtime(),
        tv_nsec: meta.mtime_nsec(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    done(
        rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW),
        "set the times of",
        to,
    );
}

impl RealFiles {
    /// Every regular file below `root`, sorted; for labs that damage what a backend stored.
    pub fn regular_files(self, root: &Path) -> Vec<PathBuf> {
        self.list(root)
            .into_iter()
            .filter(|(_, entry)| matches!(entry.kind, EntryKind::File { .. }))
            .map(|(rel, _)| root.join(rel))
            .collect()
    }

    /// Cuts off the last byte of a file.
    pub fn cut(self, path: &Path) {
        let mut file = done(fs::OpenOptions::new().write(true).open(path), "open", path);
        let len = done(file.seek(SeekFrom::End(0)), "seek in", path);
        done(file.set_len(len.saturating_sub(1)), "cut", path);
    }

    /// Whether the name could be a file's on the filesystem that holds `dir` (some refuse what isn't UTF-8).
    pub fn takes_name(self, dir: &Path, name: &OsStr) -> bool {
        let path = dir.join(name);
        let taken = fs::write(&path, b"").is_ok();
        let _ = fs::remove_file(&path);
        taken
    }
}
