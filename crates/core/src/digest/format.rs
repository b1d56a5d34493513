//! The bytes that are hashed: format version 1, as written down in `docs/digest.md`.
//!
//! Pure encoding. Promises that two different trees give different bytes (every field is fixed-width or preceded by its
//! length, entries are sorted, each kind of node has its own key). Knows nothing about files, caches or threads; both the
//! walk over real directories and [`TreeHasher`](super::TreeHasher) go through here, so they cannot disagree.

use std::sync::LazyLock;

use blake3::Hasher;
use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};

use super::TreeDigest;

/// BLAKE3 key-derivation context of a directory's listing.
pub const LISTING_CONTEXT: &str = "reseed tree digest v1 listing";
/// BLAKE3 key-derivation context of the whole tree.
pub const TREE_CONTEXT: &str = "reseed tree digest v1 tree";

static LISTING_KEY: LazyLock<ContextKey> = LazyLock::new(|| hash_derive_key_context(LISTING_CONTEXT));
static TREE_KEY: LazyLock<ContextKey> = LazyLock::new(|| hash_derive_key_context(TREE_CONTEXT));

/// The name that is left out when it is a directory in the root: ZFS's door to its own snapshots.
pub(crate) const SNAPSHOT_DOOR: &[u8] = b".zfs";

/// A point in time as file systems keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileTime {
    /// Seconds since 1970, negative before.
    pub secs: i64,
    /// Nanoseconds within the second.
    pub nanos: u32,
}

/// Owner and permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Attrs {
    /// The twelve permission bits (setuid, setgid and sticky included).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Extended attributes in the one order and spelling that is hashed. Names that are not covered are dropped on the way in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Xattrs(Box<[u8]>);

impl Xattrs {
    /// Whether an attribute belongs to the data rather than to the machine or to reseed's own records.
    pub fn covers(name: &[u8]) -> bool {
        // Labels and keyed measurements belong to the host's policy: another host writes others over the same data.
        const HOST: [&[u8]; 4] = [
            b"security.selinux",
            b"security.ima",
            b"security.evm",
            b"security.apparmor",
        ];
        if name.starts_with(b"user.reseed.") || name.starts_with(b"security.SMACK64") || HOST.contains(&name)
        {
            return false;
        }
        // The rest of `system.` is views that a file system computes; the ACLs are data.
        !name.starts_with(b"system.")
            || matches!(name, b"system.posix_acl_access" | b"system.posix_acl_default")
    }

    /// Takes the covered ones of `pairs`, in any order; of two with one name the last counts.
    pub fn from_pairs<N: AsRef<[u8]>, V: AsRef<[u8]>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut sorted = std::collections::BTreeMap::new();
        for (name, value) in pairs {
            if Self::covers(name.as_ref()) {
                sorted.insert(name.as_ref().to_vec(), value);
            }
        }
        if sorted.is_empty() {
            return Self::default();
        }
        let mut bytes = Vec::new();
        put_u64(&mut bytes, sorted.len() as u64);
        for (name, value) in &sorted {
            put_bytes(&mut bytes, name);
            put_bytes(&mut bytes, value.as_ref());
        }
        Self(bytes.into())
    }

    /// As the cache keeps them: empty for none.
    pub(crate) fn as_encoded(&self) -> &[u8] {
        &self.0
    }

    /// From [`as_encoded`](Self::as_encoded), unchecked: only for bytes behind a checksum.
    pub(crate) fn from_encoded(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

/// What an entry is, with what is covered of it beyond owner, permissions and attributes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Body<'a> {
    File {
        size: u64,
        mtime: FileTime,
        content: &'a [u8; 32],
    },
    Dir {
        listing: &'a [u8; 32],
    },
    Symlink {
        target: &'a [u8],
    },
    Fifo,
    Char {
        major: u32,
        minor: u32,
    },
    Block {
        major: u32,
        minor: u32,
    },
}

/// Hashes one directory's entries, which must come in ascending order of their names' bytes.
pub(crate) struct ListingHasher {
    hasher: Hasher,
    buf: Vec<u8>,
}

impl ListingHasher {
    pub(crate) fn new() -> Self {
        Self {
            hasher: Hasher::new_from_context_key(&LISTING_KEY),
            buf: Vec::new(),
        }
    }

    pub(crate) fn entry(&mut self, name: &[u8], attrs: Attrs, xattrs: &[u8], body: Body<'_>) {
        let out = &mut self.buf;
        put_bytes(out, name);
        let kind = match body {
            Body::File { .. } => b'f',
            Body::Dir { .. } => b'd',
            Body::Symlink { .. } => b'l',
            Body::Fifo => b'p',
            Body::Char { .. } => b'c',
            Body::Block { .. } => b'b',
        };
        out.push(kind);
        // A symlink's own mode means nothing to Linux, and file systems differ in what they keep for it.
        let mode = if matches!(body, Body::Symlink { .. }) {
            0
        } else {
            attrs.mode
        };
        put_attrs(out, Attrs { mode, ..attrs }, xattrs);
        match body {
            Body::File { size, mtime, content } => {
                put_u64(out, size);
                out.extend_from_slice(&mtime.secs.to_le_bytes());
                put_u32(out, mtime.nanos);
                out.extend_from_slice(content);
            }
            Body::Dir { listing } => out.extend_from_slice(listing),
            Body::Symlink { target } => put_bytes(out, target),
            Body::Fifo => {}
            Body::Char { major, minor } | Body::Block { major, minor } => {
                put_u32(out, major);
                put_u32(out, minor);
            }
        }
        if out.len() >= 64 << 10 {
            self.hasher.update(out);
            out.clear();
        }
    }

    pub(crate) fn finish(mut self) -> [u8; 32] {
        self.hasher.update(&self.buf);
        *self.hasher.finalize().as_bytes()
    }
}

/// Joins the root's own metadata, its listing and the hard links. `groups` may come in any order.
pub(crate) fn tree_digest(
    attrs: Attrs,
    xattrs: &[u8],
    listing: &[u8; 32],
    mut groups: Vec<Vec<Vec<u8>>>,
) -> TreeDigest {
    groups.retain(|names| names.len() > 1);
    for names in &mut groups {
        names.sort_unstable();
    }
    groups.sort_unstable();
    let mut out = Vec::with_capacity(128);
    put_attrs(&mut out, attrs, xattrs);
    out.extend_from_slice(listing);
    put_u64(&mut out, groups.len() as u64);
    for names in &groups {
        put_u64(&mut out, names.len() as u64);
        for name in names {
            put_bytes(&mut out, name);
        }
    }
    let mut hasher = Hasher::new_from_context_key(&TREE_KEY);
    hasher.update(&out);
    TreeDigest::from_bytes(*hasher.finalize().as_bytes())
}

fn put_attrs(out: &mut Vec<u8>, attrs: Attrs, xattrs: &[u8]) {
    put_u32(out, attrs.mode & 0o7777);
    put_u32(out, attrs.uid);
    put_u32(out, attrs.gid);
    if xattrs.is_empty() {
        put_u64(out, 0);
    } else {
        out.extend_from_slice(xattrs);
    }
}

fn put_u32(out: &mut Vec<u8>, n: u32) {
    out.extend_from_slice(&n.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(&n.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
