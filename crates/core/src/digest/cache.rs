//! [`DigestCache`]: what an earlier digest of the same tree saw, so that the next reads only what changed.
//!
//! Promises that the digest is the same with any cache file as with none: a missing, damaged, truncated, foreign or
//! over-large file only costs time. What its header shows is told as a [`CacheWarning`], never as an error. It is as good
//! as the kernel's ctime, see `docs/digest.md` for where that is not good enough; a restored tree that is to be *verified*
//! must be read without a cache.
//!
//! The file is a tree of [blocks](super::block), each directory's behind those of its subdirectories, each under a
//! checksum that its parent holds. Looking a directory up is therefore following a reference, and comparing it a merge;
//! blocks are read and checked by whichever thread gets there, so that the file is never in memory as a whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::block::{Block, set_listing};
use super::format::FileTime;

const MAGIC: &[u8; 8] = b"reseedDC";
/// Changes with the layout of blocks, and with whatever the digest covers.
const VERSION: u32 = 1;
const HEADER: usize = 104;
const REF: usize = 32;

/// No larger file is read: it would take memory, and no tree we know needs it (about 120 bytes a file).
pub const MAX_CACHE_BYTES: u64 = 4 << 30;

/// A state is trusted later only if its ctime was this much older than the walk: a change within the same tick of the
/// file system's clock would leave no trace. Two seconds is the coarsest clock in use (FAT, old NFS).
const MARGIN_SECS: i64 = 2;

/// Why a cache file was not used. The digest is right all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CacheWarning {
    /// It is there and cannot be read, or is not a regular file.
    #[error("the digest cache {path:?} cannot be read, everything is hashed afresh: {reason}")]
    Unreadable {
        /// The cache file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Larger than [`MAX_CACHE_BYTES`].
    #[error(
        "the digest cache {path:?} has {bytes} bytes, more than is believable; everything is hashed afresh"
    )]
    TooLarge {
        /// The cache file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Not a cache file, truncated, or altered.
    #[error("the digest cache {path:?} is damaged, everything is hashed afresh")]
    Damaged {
        /// The cache file.
        path: PathBuf,
    },
    /// Written by another version of this program.
    #[error("the digest cache {path:?} is of version {version}, everything is hashed afresh")]
    OtherVersion {
        /// The cache file.
        path: PathBuf,
        /// The version it says.
        version: u32,
    },
    /// Made for another tree.
    #[error("the digest cache {path:?} belongs to another tree, everything is hashed afresh")]
    OtherScope {
        /// The cache file.
        path: PathBuf,
    },
}

/// The memory of earlier digests of one tree, in one file.
#[derive(Debug)]
pub struct DigestCache {
    path: PathBuf,
    scope: [u8; 32],
    stored: Option<File>,
    stored_len: u64,
    root: Option<Ref>,
    fresh: Option<Vec<Kept>>,
    /// Instead of the kernel's clock, in tests.
    pub(super) now: Option<FileTime>,
}

/// Where a directory's block lies in the file, and what it must hash to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ref {
    offset: u64,
    len: u64,
    check: [u8; 16],
}

/// A stored directory: its block and its subdirectories' references.
#[derive(Debug)]
pub(super) struct Stored {
    bytes: Vec<u8>,
    /// Where the block ends and the references begin.
    split: usize,
    /// Where in the file it begins.
    start: u64,
}

impl Stored {
    /// The directory's block.
    pub(super) fn block(&self) -> Option<Block<'_>> {
        Block::parse(self.bytes.get(..self.split)?)
    }

    /// The reference of the subdirectory at this place.
    pub(super) fn sub(&self, place: usize) -> Option<Ref> {
        let at = self.split.checked_add(place.checked_mul(REF)?)?;
        Ref::from_bytes(self.bytes.get(at..)?.first_chunk()?)
    }

    /// Where in the cache the block lies, for taking it over as it is.
    pub(super) fn place(&self) -> (u64, usize) {
        (self.start, self.split)
    }
}

/// A directory of the tree just walked, to be stored.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) block: KeptBlock,
    /// The indices of its subdirectories, which come before it.
    pub(super) subs: Vec<usize>,
}

#[derive(Debug)]
pub(super) enum KeptBlock {
    New(Vec<u8>),
    /// As stored at this offset in this length, with this listing hash.
    Stored((u64, usize), [u8; 32]),
}

impl DigestCache {
    /// Opens the cache file, or an empty cache where there is none to be used. `scope` names the tree (a dataset's guid, a
    /// root's canonical path): a file written for another scope is not used. Paths in the cache are relative to the root,
    /// so snapshots of one dataset, mounted anywhere, share a scope.
    pub fn load(path: &Path, scope: &[u8]) -> (Self, Option<CacheWarning>) {
        let scope = blake3::derive_key("reseed digest cache v1 scope", scope);
        let mut cache = Self {
            path: path.to_owned(),
            scope,
            stored: None,
            stored_len: 0,
            root: None,
            fresh: None,
            now: None,
        };
        let warning = match open_limited(path) {
            Ok(None) => None,
            Ok(Some((file, len))) => match read_header(&file, len, &scope, path) {
                Ok(root) => {
                    cache.stored = Some(file);
                    cache.stored_len = len;
                    cache.root = Some(root);
                    None
                }
                Err(warning) => Some(warning),
            },
            Err(warning) => Some(warning),
        };
        (cache, warning)
    }

    /// Writes the file anew if the last digest found anything changed; whether it did. Either the old file or the whole
    /// new one is there afterwards; it is not synced, because a torn one is noticed and ignored.
    pub fn save(&mut self) -> io::Result<bool> {
        let Some(fresh) = self.fresh.take() else {
            return Ok(false);
        };
        match self.write(&fresh) {
            Ok(()) => Ok(true),
            Err(err) => {
                self.fresh = Some(fresh);
                Err(err)
            }
        }
    }

    fn write(&mut self, fresh: &[Kept]) -> io::Result<()> {
        let (bytes, root) = self.encode(fresh)?;
        let mut temporary = self.path.clone().into_os_string();
        temporary.push(format!(".tmp{}", std::process::id()));
        // It holds the names of other people's files.
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary);
        let written = opened.and_then(|mut file| {
            file.write_all(&bytes)?;
            fs::rename(&temporary, &self.path)?;
            Ok(file)
        });
        let file = written.inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })?;
        self.stored = Some(file);
        self.stored_len = bytes.len() as u64;
        self.root = Some(root);
        Ok(())
    }

    pub(super) fn root(&self) -> Option<Ref> {
        self.root
    }

    /// The block behind a reference, if it is what it was when it was written.
    pub(super) fn get(&self, at: Ref) -> Option<Stored> {
        // Not more than there is, whatever the reference says.
        let len = usize::try_from(at.len.min(self.stored_len.saturating_sub(at.offset))).ok()?;
        let mut bytes = vec![0; len];
        self.stored.as_ref()?.read_exact_at(&mut bytes, at.offset).ok()?;
        if check_of(&bytes) != at.check {
            return None;
        }
        let subs = Block::parse(&bytes)?.subs;
        let split = bytes.len().checked_sub(subs.checked_mul(REF)?)?;
        let stored = Stored {
            bytes,
            split,
            start: at.offset,
        };
        stored.block()?;
        Some(stored)
    }

    pub(super) fn set_fresh(&mut self, fresh: Vec<Kept>) {
        self.fresh = Some(fresh);
    }

    /// States with a ctime from here on are not trusted later.
    pub(super) fn cutoff(&self) -> FileTime {
        // Not the injected clock: what is compared are time stamps of files, and only the clock that writes them will do.
        let now = self.now.or_else(kernel_file_time).unwrap_or(FileTime {
            secs: i64::MIN + MARGIN_SECS,
            nanos: 0,
        });
        FileTime {
            secs: now.secs.saturating_sub(MARGIN_SECS),
            nanos: now.nanos,
        }
    }

    fn encode(&self, fresh: &[Kept]) -> io::Result<(Vec<u8>, Ref)> {
        let mut out = vec![0; HEADER];
        let mut refs: Vec<Ref> = Vec::with_capacity(fresh.len());
        for kept in fresh {
            let start = out.len();
            match &kept.block {
                KeptBlock::New(bytes) => out.extend_from_slice(bytes),
                KeptBlock::Stored((offset, len), listing) => {
                    out.resize(start + len, 0);
                    let stored = self.stored.as_ref().ok_or(io::ErrorKind::NotFound)?;
                    stored.read_exact_at(&mut out[start..], *offset)?;
                    set_listing(&mut out[start..], listing);
                }
            }
            for sub in &kept.subs {
                if let Some(at) = refs.get(*sub) {
                    at.put(&mut out);
                }
            }
            let bytes = &out[start..];
            refs.push(Ref {
                offset: start as u64,
                len: bytes.len() as u64,
                check: check_of(bytes),
            });
        }
        let root = refs.last().copied().unwrap_or(Ref {
            offset: 0,
            len: 0,
            check: [0; 16],
        });
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        header.extend_from_slice(&self.scope);
        header.extend_from_slice(&(out.len() as u64).to_le_bytes());
        root.put(&mut header);
        let check = check_of(&header);
        header.extend_from_slice(&check);
        out[..HEADER].copy_from_slice(&header);
        Ok((out, root))
    }
}

impl Ref {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&self.check);
    }

    fn from_bytes(bytes: &[u8; REF]) -> Option<Self> {
        let (offset, rest) = bytes.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let offset = u64::from_le_bytes(*offset);
        Some(Self {
            offset,
            len: u64::from_le_bytes(*len),
            check: *rest.first_chunk()?,
        })
    }
}

fn check_of(bytes: &[u8]) -> [u8; 16] {
    let mut check = [0; 16];
    check.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    check
}

fn open_limited(path: &Path) -> Result<Option<(File, u64)>, CacheWarning> {
    let unreadable = |err: io::Error| CacheWarning::Unreadable {
        path: path.to_owned(),
        reason: err.to_string(),
    };
    // NONBLOCK: a fifo in the cache's place must not hang us.
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = match OpenOptions::new().read(true).custom_flags(nonblock).open(path) {
        Ok(file) => file,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(unreadable(err)),
    };
    let meta = file.metadata().map_err(unreadable)?;
    if !meta.is_file() {
        return Err(unreadable(io::Error::other("not a regular file")));
    }
    if meta.len() > MAX_CACHE_BYTES {
        return Err(CacheWarning::TooLarge {
            path: path.to_owned(),
            bytes: meta.len(),
        });
    }
    Ok(Some((file, meta.len())))
}

fn read_header(file: &File, len: u64, scope: &[u8; 32], path: &Path) -> Result<Ref, CacheWarning> {
    let damaged = || CacheWarning::Damaged {
        path: path.to_owned(),
    };
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0).map_err(|_| damaged())?;
    let (fields, check) = header.split_at(HEADER - 16);
    let (magic, rest) = fields.split_at(8);
    if magic != MAGIC {
        return Err(damaged());
    }
    let version = rest.first_chunk().map_or(0, |b| u32::from_le_bytes(*b));
    if version != VERSION {
        return Err(CacheWarning::OtherVersion {
            path: path.to_owned(),
            version,
        });
    }
    if check_of(fields) != check {
        return Err(damaged());
    }
    if &fields[16..48] != scope {
        return Err(CacheWarning::OtherScope {
            path: path.to_owned(),
        });
    }
    if fields[48..56] != len.to_le_bytes() {
        return Err(damaged());
    }
    fields[56..]
        .first_chunk()
        .and_then(Ref::from_bytes)
        .ok_or_else(damaged)
}

/// The clock that stamps files, read from a file that exists nowhere.
pub(super) fn kernel_file_time() -> Option<FileTime> {
    use std::os::fd::AsFd;
    let fd = rustix::fs::memfd_create(c"reseed-now", rustix::fs::MemfdFlags::CLOEXEC).ok()?;
    Some(super::sys::stat_fd(fd.as_fd()).ok()?.ctime)
}
