//! Tests of the walk against real files, and what they share.
//!
//! The yardstick is [`described`]: a second, plain walk written with `std::fs` that tells a [`TreeHasher`] what it sees.

mod abstract_trees;
mod cache;
mod odd;
mod vectors;
mod walk;

use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{
    Attrs, DigestCache, DigestError, DigestOptions, FileTime, Kind, TreeDigest, TreeHasher, TreeSummary,
    Xattrs,
};
use super::{content_hash, digest_tree};

/// A digest without a cache, on two threads.
fn digest(root: &Path) -> TreeDigest {
    summary(root).digest
}

fn summary(root: &Path) -> TreeSummary {
    digest_tree(
        root,
        DigestOptions {
            threads: 2,
            ..DigestOptions::default()
        },
    )
    .unwrap()
}

fn cached(root: &Path, cache: &mut DigestCache) -> TreeSummary {
    digest_tree(
        root,
        DigestOptions {
            threads: 2,
            cache: Some(cache),
            ..DigestOptions::default()
        },
    )
    .unwrap()
}

fn failure(root: &Path) -> DigestError {
    digest_tree(root, DigestOptions::default()).unwrap_err()
}

fn xattrs(path: &Path) -> Xattrs {
    let (mut names, mut value) = (vec![0u8; 65536], vec![0u8; 65536]);
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let mut pairs = Vec::new();
    for name in names[..len].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let len = rustix::fs::lgetxattr(path, CString::new(name).unwrap(), &mut value[..]).unwrap();
        pairs.push((name.to_vec(), value[..len].to_vec()));
    }
    Xattrs::from_pairs(pairs)
}

fn attrs(meta: &fs::Metadata) -> Attrs {
    Attrs {
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
    }
}

fn described(root: &Path) -> TreeHasher {
    let mut tree = TreeHasher::new(attrs(&fs::metadata(root).unwrap()), xattrs(root));
    let mut todo = vec![PathBuf::new()];
    let mut links = HashMap::new();
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(root.join(&dir)).unwrap() {
            let relative = dir.join(entry.unwrap().file_name());
            let path = root.join(&relative);
            let meta = fs::symlink_metadata(&path).unwrap();
            let kind = meta.file_type();
            let next = links.len() as u64;
            let kind = if kind.is_dir() {
                todo.push(relative.clone());
                Kind::Dir
            } else if kind.is_file() {
                Kind::File {
                    size: meta.len(),
                    mtime: FileTime {
                        secs: meta.mtime(),
                        nanos: u32::try_from(meta.mtime_nsec()).unwrap(),
                    },
                    content: content_hash(&fs::read(&path).unwrap()),
                    link: Some(*links.entry(meta.ino()).or_insert(next)),
                }
            } else if kind.is_symlink() {
                Kind::Symlink {
                    target: fs::read_link(&path).unwrap().into_os_string().into_vec(),
                }
            } else if kind.is_fifo() {
                Kind::Fifo
            } else if kind.is_socket() {
                Kind::Socket
            } else {
                let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
                if kind.is_char_device() {
                    Kind::CharDevice { major, minor }
                } else {
                    Kind::BlockDevice { major, minor }
                }
            };
            tree.insert(relative.as_os_str().as_bytes(), attrs(&meta), xattrs(&path), kind)
                .unwrap();
        }
    }
    tree
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
}

fn set_mtime(path: &Path, secs: i64, nanos: i64) {
    let time = rustix::fs::Timespec {
        tv_sec: secs,
        tv_nsec: nanos,
    };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(
        rustix::fs::CWD,
        path,
        &times,
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    )
    .unwrap();
}

fn mknod(path: &Path, kind: rustix::fs::FileType, device: (u32, u32)) {
    let mode = rustix::fs::Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        kind,
        mode,
        rustix::fs::makedev(device.0, device.1),
    )
    .unwrap();
}

fn is_superuser() -> bool {
    rustix::process::geteuid().is_root()
}

/// A small tree with everything in it that this user may make.
fn zoo(root: &Path) {
    use rustix::fs::FileType;
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::write(root.join("a/file"), b"content").unwrap();
    fs::write(root.join("a/nothing"), b"").unwrap();
    fs::write(root.join("a.b"), b"sorts between a and a/").unwrap();
    fs::write(root.join("a/b/large"), vec![7u8; 3 << 20]).unwrap();
    fs::write(root.join("a/b/one-piece"), vec![8u8; 1 << 20]).unwrap();
    fs::write(root.join("a/b/one-more"), vec![9u8; (1 << 20) + 1]).unwrap();
    fs::hard_link(root.join("a/file"), root.join("a/b/c/linked")).unwrap();
    fs::hard_link(root.join("a/b/large"), root.join("large too")).unwrap();
    std::os::unix::fs::symlink("../no/such\nthing", root.join("a/link")).unwrap();
    mknod(&root.join("pipe"), FileType::Fifo, (0, 0));
    mknod(&root.join("a/socket"), FileType::Socket, (0, 0));
    set_xattr(&root.join("a/file"), "user.colour", b"blue\0green");
    set_xattr(&root.join("a"), "user.empty", b"");
    set_xattr(root, "user.root", b"yes");
    set_mtime(&root.join("a/nothing"), -5, 999_999_999);
    if is_superuser() {
        mknod(&root.join("null"), FileType::CharacterDevice, (1, 3));
        mknod(&root.join("a/disk"), FileType::BlockDevice, (259, 1_048_575));
        std::os::unix::fs::lchown(root.join("a/link"), Some(4_000_000_000), Some(12)).unwrap();
        set_xattr(&root.join("a/link"), "trusted.note", b"on a symlink");
        set_xattr(&root.join("pipe"), "trusted.note", b"on a fifo");
    }
}
