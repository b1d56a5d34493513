//! One directory as a compact run of bytes: the form in which the walk keeps it, the digest reads it and the cache stores
//! it, so that an unchanged directory is compared in place without building anything.
//!
//! Promises that reading never panics, whatever the bytes are (they may come from a damaged cache file that passed by
//! chance); what does not parse is `None`. Byte order is little-endian. Knows nothing about where bytes come from.

use std::ffi::CStr;

use super::format::{Attrs, Body, FileTime, ListingHasher};
use super::sys::{S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK, Stat};

/// Fixed part of a block.
const HEAD: usize = 144;
/// Fixed part of an entry.
const ENTRY: usize = 64;
const HEAD_LISTING: usize = 104;

/// The state was old enough when it was read that a later change cannot hide behind equal timestamps.
const TRUSTED: u8 = 1;
/// Another file system is mounted here; nothing below it was looked at.
const MOUNT: u8 = 2;

/// What a directory holds itself, subdirectories' contents not included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) symlinks: u64,
    pub(super) specials: u64,
    pub(super) sockets: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.symlinks += other.symlinks;
        self.specials += other.specials;
        self.sockets += other.sockets;
    }
}

/// The directory itself, as the block's head tells it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) trusted: bool,
    pub(super) mount: bool,
    /// Type and permissions.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) ino: u64,
    pub(super) mtime: FileTime,
    pub(super) ctime: FileTime,
    pub(super) counts: Counts,
    pub(super) listing: [u8; 32],
    pub(super) xattrs: &'a [u8],
}

impl Head<'_> {
    pub(super) fn is_state_of(&self, st: &Stat) -> bool {
        self.trusted
            && self.ino == st.ino
            && self.ctime == st.ctime
            && self.mtime == st.mtime
            && (self.mode, self.uid, self.gid) == (st.mode, st.uid, st.gid)
    }
}

/// One entry in a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a CStr,
    pub(super) trusted: bool,
    /// Type and permissions.
    pub(super) mode: u32,
    uid: u32,
    gid: u32,
    ino: u64,
    /// For devices major and minor number.
    pub(super) size: u64,
    mtime: FileTime,
    ctime: FileTime,
    /// Of a directory: its place among the subdirectories.
    pub(super) sub: u32,
    tail: &'a [u8],
    /// The whole entry.
    pub(super) bytes: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Reads the entry at the start of `bytes`.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let fixed = bytes.first_chunk::<ENTRY>()?;
        let name_len = usize::from(u16::from_le_bytes([fixed[2], fixed[3]]));
        let tail_at = ENTRY + name_len + 1;
        let tail_len = usize::try_from(u32_in(fixed, 56)).ok()?;
        let end = tail_at.checked_add(tail_len)?;
        Some(Self {
            name: CStr::from_bytes_with_nul(bytes.get(ENTRY..tail_at)?).ok()?,
            trusted: fixed[1] & TRUSTED != 0,
            mode: u32_in(fixed, 4),
            uid: u32_in(fixed, 8),
            gid: u32_in(fixed, 12),
            ino: u64_in(fixed, 16),
            size: u64_in(fixed, 24),
            mtime: FileTime {
                secs: i64_in(fixed, 32),
                nanos: u32_in(fixed, 48),
            },
            ctime: FileTime {
                secs: i64_in(fixed, 40),
                nanos: u32_in(fixed, 52),
            },
            sub: u32_in(fixed, 60),
            tail: bytes.get(tail_at..end)?,
            bytes: bytes.get(..end)?,
        })
    }

    pub(super) fn kind(&self) -> u32 {
        self.mode & S_IFMT
    }

    /// Whether the inode is certainly still the one, in the state, that this entry was made from.
    pub(super) fn is_state_of(&self, st: &Stat) -> bool {
        self.trusted
            && self.ino == st.ino
            && self.size == size_of(st)
            && self.ctime == st.ctime
            && self.mtime == st.mtime
            && (self.mode, self.uid, self.gid) == (st.mode, st.uid, st.gid)
    }

    fn attrs(&self) -> Attrs {
        Attrs {
            mode: self.mode & 0o7777,
            uid: self.uid,
            gid: self.gid,
        }
    }

    /// What the digest covers of it; `None` for what it does not cover, and for directories, which come from elsewhere.
    pub(super) fn covered(&self) -> Option<(&'a [u8], Body<'a>)> {
        let device = || {
            (
                u32::try_from(self.size >> 32).unwrap_or(0),
                u32::try_from(self.size & 0xffff_ffff).unwrap_or(0),
            )
        };
        Some(match self.kind() {
            S_IFREG => {
                let (content, xattrs) = self.tail.split_first_chunk::<32>()?;
                (
                    xattrs,
                    Body::File {
                        size: self.size,
                        mtime: self.mtime,
                        content,
                    },
                )
            }
            S_IFLNK => {
                let (len, rest) = self.tail.split_first_chunk::<8>()?;
                let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
                let (target, xattrs) = rest.split_at_checked(len)?;
                (xattrs, Body::Symlink { target })
            }
            S_IFIFO => (self.tail, Body::Fifo),
            S_IFCHR => (
                self.tail,
                Body::Char {
                    major: device().0,
                    minor: device().1,
                },
            ),
            S_IFBLK => (
                self.tail,
                Body::Block {
                    major: device().0,
                    minor: device().1,
                },
            ),
            _ => return None,
        })
    }
}

fn size_of(st: &Stat) -> u64 {
    match st.kind() {
        S_IFCHR | S_IFBLK => (u64::from(st.rdev.0) << 32) | u64::from(st.rdev.1),
        _ => st.size,
    }
}

/// A directory's block, readable.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'a> {
    pub(super) head: Head<'a>,
    pub(super) len: usize,
    pub(super) subs: usize,
    offsets: &'a [u8],
    entries: &'a [u8],
}

impl<'a> Block<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let fixed = bytes.first_chunk::<HEAD>()?;
        let len = usize::try_from(u64_in(fixed, 48)).ok()?;
        let xattrs_len = usize::try_from(u64_in(fixed, 136)).ok()?;
        let rest = bytes.get(HEAD..)?;
        let (xattrs, rest) = rest.split_at_checked(xattrs_len)?;
        let (offsets, entries) = rest.split_at_checked(len.checked_mul(8)?)?;
        let mut listing = [0; 32];
        listing.copy_from_slice(fixed.get(HEAD_LISTING..HEAD_LISTING + 32)?);
        let head = Head {
            trusted: fixed[0] & TRUSTED != 0,
            mount: fixed[0] & MOUNT != 0,
            mode: u32_in(fixed, 4),
            uid: u32_in(fixed, 8),
            gid: u32_in(fixed, 12),
            ino: u64_in(fixed, 16),
            mtime: FileTime {
                secs: i64_in(fixed, 24),
                nanos: u32_in(fixed, 40),
            },
            ctime: FileTime {
                secs: i64_in(fixed, 32),
                nanos: u32_in(fixed, 44),
            },
            counts: Counts {
                files: u64_in(fixed, 64),
                bytes: u64_in(fixed, 72),
                symlinks: u64_in(fixed, 80),
                specials: u64_in(fixed, 88),
                sockets: u64_in(fixed, 96),
            },
            listing,
            xattrs,
        };
        let subs = usize::try_from(u64_in(fixed, 56))
            .ok()
            .filter(|subs| *subs <= len)?;
        Some(Self {
            head,
            len,
            subs,
            offsets,
            entries,
        })
    }

    pub(super) fn entry(&self, i: usize) -> Option<Entry<'a>> {
        let (at, _) = self.offsets.get(i.checked_mul(8)?..)?.split_first_chunk::<8>()?;
        Entry::parse(
            self.entries
                .get(usize::try_from(u64::from_le_bytes(*at)).ok()?..)?,
        )
    }

    /// All entries in order; ends early where the bytes make no sense.
    pub(super) fn iter(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let block = *self;
        (0..self.len).map_while(move |i| block.entry(i))
    }

    /// The place of the first entry whose name is not less than `name`.
    pub(super) fn lower_bound(&self, name: &CStr) -> usize {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let mid = low + (high - low) / 2;
            if self
                .entry(mid)
                .is_some_and(|entry| entry.name.to_bytes() < name.to_bytes())
            {
                low = mid + 1;
            } else {
                high = mid;
            }
        }
        low
    }

    /// Hashes the listing, with each subdirectory's own attributes and listing as `sub` tells them.
    /// `None` if the bytes make no sense, which for a block made by this process cannot be.
    pub(super) fn listing<'s>(
        &self,
        sub: impl Fn(usize) -> Option<(Attrs, &'s [u8], &'s [u8; 32])>,
    ) -> Option<[u8; 32]> {
        let mut hasher = ListingHasher::new();
        for i in 0..self.len {
            let entry = self.entry(i)?;
            let name = entry.name.to_bytes();
            match entry.kind() {
                S_IFDIR => {
                    let (attrs, xattrs, listing) = sub(usize::try_from(entry.sub).ok()?)?;
                    hasher.entry(name, attrs, xattrs, Body::Dir { listing });
                }
                S_IFSOCK => {}
                _ => {
                    let (xattrs, body) = entry.covered()?;
                    hasher.entry(name, entry.attrs(), xattrs, body);
                }
            }
        }
        Some(hasher.finish())
    }
}

/// Writes the listing hash into the block's head.
pub(super) fn set_listing(block: &mut [u8], listing: &[u8; 32]) {
    if let Some(slot) = block.get_mut(HEAD_LISTING..HEAD_LISTING + 32) {
        slot.copy_from_slice(listing);
    }
}

/// A consecutive run of a directory's entries being written.
#[derive(Debug, Default)]
pub(super) struct Run {
    bytes: Vec<u8>,
    offsets: Vec<u64>,
    counts: Counts,
}

impl Run {
    pub(super) fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Takes over an entry whose inode has not changed.
    pub(super) fn copy(&mut self, entry: &Entry<'_>) {
        self.offsets.push(self.bytes.len() as u64);
        self.bytes.extend_from_slice(entry.bytes);
        self.count(entry.kind(), entry.size);
    }

    /// Writes an entry; `tail` is its parts one after another. The place of the tail within the run.
    pub(super) fn push(&mut self, name: &CStr, st: &Stat, trusted: bool, tail: &[&[u8]]) -> usize {
        let name = name.to_bytes_with_nul();
        let size = size_of(st);
        let out = &mut self.bytes;
        self.offsets.push(out.len() as u64);
        // The names of a directory are at most 255 bytes on any Linux file system, an attribute list 64 KiB with 64 KiB
        // for each value; the conversions cannot fail, and if they did the entry would not parse and give no digest.
        let name_len = u16::try_from(name.len() - 1).unwrap_or(u16::MAX);
        let tail_len = u32::try_from(tail.iter().map(|part| part.len()).sum::<usize>()).unwrap_or(u32::MAX);
        out.extend_from_slice(&[0, if trusted { TRUSTED } else { 0 }]);
        out.extend_from_slice(&name_len.to_le_bytes());
        for n in [st.mode, st.uid, st.gid] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        for n in [st.ino, size] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        out.extend_from_slice(&st.mtime.secs.to_le_bytes());
        out.extend_from_slice(&st.ctime.secs.to_le_bytes());
        for n in [st.mtime.nanos, st.ctime.nanos, tail_len, 0] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        out.extend_from_slice(name);
        let tail_at = out.len();
        for part in tail {
            out.extend_from_slice(part);
        }
        self.count(st.kind(), size);
        tail_at
    }

    /// Writes a content hash that was not known yet when its entry was pushed.
    pub(super) fn set_content(&mut self, tail_at: usize, content: &[u8; 32]) {
        if let Some(slot) = self.bytes.get_mut(tail_at..tail_at + 32) {
            slot.copy_from_slice(content);
        }
    }

    fn count(&mut self, kind: u32, size: u64) {
        match kind {
            S_IFREG => {
                self.counts.files += 1;
                self.counts.bytes += size;
            }
            S_IFDIR => {}
            S_IFLNK => self.counts.symlinks += 1,
            S_IFSOCK => self.counts.sockets += 1,
            _ => self.counts.specials += 1,
        }
    }
}

/// Puts a directory's runs, in order, together into its block. Subdirectories get their places here.
pub(super) fn assemble(st: &Stat, trusted: bool, mount: bool, xattrs: &[u8], runs: &[Run]) -> Vec<u8> {
    let len: usize = runs.iter().map(Run::len).sum();
    let entries: usize = runs.iter().map(|run| run.bytes.len()).sum();
    let mut counts = Counts::default();
    let mut out = Vec::with_capacity(HEAD + xattrs.len() + len * 8 + entries);
    out.extend_from_slice(&[
        if trusted { TRUSTED } else { 0 } | if mount { MOUNT } else { 0 },
        0,
        0,
        0,
    ]);
    for n in [st.mode, st.uid, st.gid] {
        out.extend_from_slice(&n.to_le_bytes());
    }
    out.extend_from_slice(&st.ino.to_le_bytes());
    out.extend_from_slice(&st.mtime.secs.to_le_bytes());
    out.extend_from_slice(&st.ctime.secs.to_le_bytes());
    out.extend_from_slice(&st.mtime.nanos.to_le_bytes());
    out.extend_from_slice(&st.ctime.nanos.to_le_bytes());
    for run in runs {
        counts.add(&run.counts);
    }
    let subs_at = out.len() + 8;
    for n in [
        len as u64,
        0,
        counts.files,
        counts.bytes,
        counts.symlinks,
        counts.specials,
        counts.sockets,
    ] {
        out.extend_from_slice(&n.to_le_bytes());
    }
    out.extend_from_slice(&[0; 32]);
    out.extend_from_slice(&(xattrs.len() as u64).to_le_bytes());
    out.extend_from_slice(xattrs);
    let mut base = 0;
    for run in runs {
        for offset in &run.offsets {
            out.extend_from_slice(&(base + offset).to_le_bytes());
        }
        base += run.bytes.len() as u64;
    }
    let mut subs: u32 = 0;
    for run in runs {
        for offset in &run.offsets {
            let at = usize::try_from(*offset).unwrap_or(usize::MAX);
            let Some(entry) = run.bytes.get(at..).and_then(Entry::parse) else {
                continue;
            };
            let start = out.len();
            out.extend_from_slice(entry.bytes);
            if entry.kind() == S_IFDIR {
                out[start + 60..start + 64].copy_from_slice(&subs.to_le_bytes());
                subs += 1;
            }
        }
    }
    out[subs_at..subs_at + 8].copy_from_slice(&u64::from(subs).to_le_bytes());
    out
}

fn u32_in<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    bytes[at..]
        .first_chunk::<4>()
        .map_or(0, |b| u32::from_le_bytes(*b))
}

fn u64_in<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    bytes[at..]
        .first_chunk::<8>()
        .map_or(0, |b| u64::from_le_bytes(*b))
}

fn i64_in<const N: usize>(bytes: &[u8; N], at: usize) -> i64 {
    bytes[at..]
        .first_chunk::<8>()
        .map_or(0, |b| i64::from_le_bytes(*b))
}
