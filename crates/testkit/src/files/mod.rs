//! [`Files`]: how a suite writes and looks at trees, be they real or in memory.
//!
//! It promises that two trees with equal [`Listing`]s are the same tree for whoever restores them: types, content, modes,
//! link targets, hard links, extended attributes. It doesn't know about owners and times: the first need root, the
//! second are not part of the contract. Every method panics when it can't do what it is asked, with the path:
//! this is for tests, and a lab that fails silently would make a suite pass for nothing.

mod real;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

pub use real::RealFiles;

/// Writes and reads trees. Paths are absolute.
pub trait Files: Send + Sync + fmt::Debug {
    /// Makes a directory and what is above it.
    fn make_dir(&self, path: &Path);
    /// Makes a file, or writes over it in place; makes the directories above it.
    fn write(&self, path: &Path, bytes: &[u8]);
    /// Writes into a file in place, at an offset within it.
    fn write_at(&self, path: &Path, offset: usize, bytes: &[u8]);
    /// Cuts a file off in place, or lengthens it with a hole.
    fn set_len(&self, path: &Path, len: u64);
    /// Makes a symbolic link.
    fn symlink(&self, target: &Path, path: &Path);
    /// Gives a file a second name.
    fn hard_link(&self, existing: &Path, path: &Path);
    /// Makes a named pipe.
    fn fifo(&self, path: &Path);
    /// Sets the permission bits.
    fn set_mode(&self, path: &Path, mode: u32);
    /// Sets an extended attribute; false where the filesystem has none.
    fn set_xattr(&self, path: &Path, name: &str, value: &[u8]) -> bool;
    /// Renames.
    fn rename(&self, from: &Path, to: &Path);
    /// Removes a file, or a directory with everything in it. No error when nothing is there.
    fn remove(&self, path: &Path);
    /// A file's content, if there is a file.
    fn read(&self, path: &Path) -> Option<Vec<u8>>;
    /// Whether anything is there, without following a link.
    fn exists(&self, path: &Path) -> bool;
    /// Everything below `root` and `root` itself (as the empty path). Empty when nothing is there.
    fn list(&self, root: &Path) -> Listing;
    /// Copies a tree as `cp -a` does: modes, links, attributes and times are kept.
    fn copy(&self, from: &Path, to: &Path);

    /// Flips one bit of a file in place.
    fn flip(&self, path: &Path, offset: usize) {
        let bytes = self.read(path).unwrap_or_default();
        assert!(!bytes.is_empty(), "there is no bit to flip in {}", path.display());
        let at = offset % bytes.len();
        self.write_at(path, at, &[bytes[at] ^ 1]);
    }
}

/// A tree as it can be compared.
pub type Listing = BTreeMap<PathBuf, Entry>;

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits; 0o777 for symbolic links.
    pub mode: u32,
    /// Extended attributes below `user.`.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Dir,
    /// A regular file.
    File {
        /// Its length.
        len: u64,
        /// The BLAKE3 hash of its content.
        hash: blake3::Hash,
        /// The first name, in order, of the file that this is another name of.
        same_as: Option<PathBuf>,
    },
    /// A symbolic link.
    Symlink(PathBuf),
    /// A named pipe.
    Fifo,
    /// Something else.
    Other(u32),
}

/// Says where two trees differ, a line each; nothing when they don't.
pub fn difference(expected: &Listing, found: &Listing) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, entry) in expected {
        match found.get(path) {
            None => lines.push(format!("{}: missing", path.display())),
            Some(other) if other != entry => {
                lines.push(format!("{}: {other:?} instead of {entry:?}", path.display()));
            }
            Some(_) => {}
        }
    }
    for path in found.keys().filter(|path| !expected.contains_key(*path)) {
        lines.push(format!("{}: should not be there", path.display()));
    }
    lines
}

/// Panics unless two trees are the same.
#[track_caller]
pub fn assert_same(expected: &Listing, found: &Listing, what: &str) {
    let lines = difference(expected, found);
    assert!(lines.is_empty(), "{what}:\n  {}", lines.join("\n  "));
}

/// Writes a tree with what backends get wrong: an empty directory, empty and larger files, hidden and odd names, links
/// of both kinds, a link that leads nowhere and one that leads out, modes, attributes, a hole, a named pipe.
pub fn write_odd_tree(files: &dyn Files, root: &Path) {
    use std::os::unix::ffi::OsStrExt as _;
    let name = |bytes: &[u8]| root.join(std::ffi::OsStr::from_bytes(bytes));
    files.make_dir(root);
    files.make_dir(&root.join("empty-dir"));
    files.write(&root.join("empty"), b"");
    files.write(&root.join("db/main.db"), &[7u8; 9000]);
    files.write(&root.join("deep/er/still/file.txt"), b"deep");
    files.write(&root.join(".hidden"), b"hidden");
    files.write(&root.join("-rf"), b"leading dash");
    files.write(&root.join("with space"), b"space");
    files.write(&name(b"new\nline"), b"newline");
    files.write(&name(b"quo'te\"s"), b"quotes");
    files.write(&name("größe-\u{1f331}".as_bytes()), b"unicode");
    files.write(&name(b"not-utf8-\xff\xfe"), b"bytes");
    files.write(&root.join("private"), b"mode");
    files.set_mode(&root.join("private"), 0o600);
    files.write(&root.join("run.sh"), b"#!/bin/sh\n");
    files.set_mode(&root.join("run.sh"), 0o755);
    files.set_mode(&root.join("empty-dir"), 0o750);
    files.symlink(Path::new("db/main.db"), &root.join("link"));
    files.symlink(Path::new("nowhere"), &root.join("dangling"));
    files.symlink(Path::new("/etc"), &root.join("out"));
    files.hard_link(&root.join("private"), &root.join("second-name"));
    files.write(&root.join("sparse"), b"start");
    files.set_len(&root.join("sparse"), 300_000);
    files.fifo(&root.join("pipe"));
    let _ = files.set_xattr(&root.join("run.sh"), "user.reseed-test", b"value");
}
