//! [`TreeHasher`]: the digest of a tree that somebody describes, without a file system.
//!
//! Promises the very digest [`digest_tree`](super::digest_tree) gives for the same tree on disk, in whatever order the
//! entries are told. Pure and cheap, so that in-memory worlds can use it. It does not check that hard links agree in
//! what they share.

use std::collections::BTreeMap;

use super::TreeDigest;
use super::format::{Attrs, Body, FileTime, ListingHasher, SNAPSHOT_DOOR, Xattrs, tree_digest};

/// What an entry of a described tree is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Logical size in bytes.
        size: u64,
        /// Time of the last change of the content.
        mtime: FileTime,
        /// Plain BLAKE3 of the content, see [`content_hash`].
        content: [u8; 32],
        /// The same number on every name of one inode; `None` for a file with one name.
        link: Option<u64>,
    },
    /// A directory.
    Dir,
    /// A symbolic link and what it says.
    Symlink {
        /// The bytes of the target, never followed.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A Unix socket: a rendezvous of running processes, not data. Never part of the digest.
    Socket,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// The hash of a file's content as [`Kind::File`] wants it: plain BLAKE3, what `b3sum` prints.
pub fn content_hash(content: &[u8]) -> [u8; 32] {
    *blake3::hash(content).as_bytes()
}

/// The description is not a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// Empty, absolute, or with an empty, `.` or `..` component, or a NUL byte.
    #[error("not a relative path of plain names: {:?}", String::from_utf8_lossy(.0))]
    Path(Vec<u8>),
    /// The same path twice.
    #[error("described twice: {:?}", String::from_utf8_lossy(.0))]
    Twice(Vec<u8>),
    /// The directory the path lies in is missing, or is not a directory.
    #[error("no directory above {:?}", String::from_utf8_lossy(.0))]
    NoParent(Vec<u8>),
}

/// Collects a described tree and hashes it.
#[derive(Debug, Clone)]
pub struct TreeHasher {
    attrs: Attrs,
    xattrs: Xattrs,
    /// By path with `/` as NUL: that sorts each directory's entries by name with its subtree right behind it.
    entries: BTreeMap<Vec<u8>, (Attrs, Xattrs, Kind)>,
}

impl TreeHasher {
    /// A tree of only a root, with the root's own metadata.
    pub fn new(attrs: Attrs, xattrs: Xattrs) -> Self {
        Self {
            attrs,
            xattrs,
            entries: BTreeMap::new(),
        }
    }

    /// Adds an entry by its path relative to the root, components joined by `/`.
    pub fn insert(
        &mut self,
        path: impl AsRef<[u8]>,
        attrs: Attrs,
        xattrs: Xattrs,
        kind: Kind,
    ) -> Result<(), TreeError> {
        let path = path.as_ref();
        if path.contains(&0)
            || path
                .split(|b| *b == b'/')
                .any(|name| matches!(name, b"" | b"." | b".."))
        {
            return Err(TreeError::Path(path.to_vec()));
        }
        let key = path.iter().map(|b| if *b == b'/' { 0 } else { *b }).collect();
        match self.entries.entry(key) {
            std::collections::btree_map::Entry::Occupied(_) => Err(TreeError::Twice(path.to_vec())),
            std::collections::btree_map::Entry::Vacant(slot) => {
                slot.insert((attrs, xattrs, kind));
                Ok(())
            }
        }
    }

    /// The digest of what was inserted.
    pub fn digest(&self) -> Result<TreeDigest, TreeError> {
        let mut links: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
        // Open directories from the root down: the path prefix, its own entry, and the listing so far.
        let mut open = vec![Level {
            prefix: Vec::new(),
            own: None,
            listing: ListingHasher::new(),
        }];
        let mut skipped: Option<Vec<u8>> = None;
        for (key, (attrs, xattrs, kind)) in &self.entries {
            if let Some(door) = &skipped
                && key.starts_with(door)
            {
                continue;
            }
            let split = key.iter().rposition(|b| *b == 0).map_or(0, |at| at + 1);
            let (prefix, name) = key.split_at(split);
            while open.last().is_some_and(|level| level.prefix != prefix) && open.len() > 1 {
                close(&mut open);
            }
            let Some(level) = open.last_mut().filter(|level| level.prefix == prefix) else {
                return Err(TreeError::NoParent(path_of(key)));
            };
            let body = match kind {
                Kind::Socket => continue,
                Kind::Dir => {
                    if key == SNAPSHOT_DOOR {
                        skipped = Some([SNAPSHOT_DOOR, b"\0"].concat());
                        continue;
                    }
                    let prefix = [key.as_slice(), b"\0"].concat();
                    let own = Some((name.to_vec(), *attrs, xattrs.clone()));
                    open.push(Level {
                        prefix,
                        own,
                        listing: ListingHasher::new(),
                    });
                    continue;
                }
                Kind::File {
                    size,
                    mtime,
                    content,
                    link,
                } => {
                    if let Some(link) = link {
                        links.entry(*link).or_default().push(path_of(key));
                    }
                    Body::File {
                        size: *size,
                        mtime: *mtime,
                        content,
                    }
                }
                Kind::Symlink { target } => Body::Symlink { target },
                Kind::Fifo => Body::Fifo,
                Kind::CharDevice { major, minor } => Body::Char {
                    major: *major,
                    minor: *minor,
                },
                Kind::BlockDevice { major, minor } => Body::Block {
                    major: *major,
                    minor: *minor,
                },
            };
            level.listing.entry(name, *attrs, xattrs.as_encoded(), body);
        }
        while open.len() > 1 {
            close(&mut open);
        }
        let listing = open.pop().map_or([0; 32], |level| level.listing.finish());
        Ok(tree_digest(
            self.attrs,
            self.xattrs.as_encoded(),
            &listing,
            links.into_values().collect(),
        ))
    }
}

struct Level {
    prefix: Vec<u8>,
    own: Option<(Vec<u8>, Attrs, Xattrs)>,
    listing: ListingHasher,
}

/// Finishes the innermost open directory and enters it in the one above. A directory is entered after its subtree, which
/// is where its name sorts among its siblings too.
fn close(open: &mut Vec<Level>) {
    if let Some(Level {
        own: Some((name, attrs, xattrs)),
        listing,
        ..
    }) = open.pop()
        && let Some(above) = open.last_mut()
    {
        above.listing.entry(
            &name,
            attrs,
            xattrs.as_encoded(),
            Body::Dir {
                listing: &listing.finish(),
            },
        );
    }
}

fn path_of(key: &[u8]) -> Vec<u8> {
    key.iter().map(|b| if *b == 0 { b'/' } else { *b }).collect()
}
