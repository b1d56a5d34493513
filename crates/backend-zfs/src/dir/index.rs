//! What was seen of the live files when a snapshot was taken, so that the next one needn't read those that are unchanged.
//!
//! Promises that a damaged, truncated or foreign index only costs time: it vouches for nothing, and files are compared
//! by content instead. An entry is 64 bytes, keyed by inode, and holds no names.

use std::collections::HashMap;

use super::sys::{Facts, FileTime};

const MAGIC: &[u8; 8] = b"reseedI1";
const ENTRY: usize = 64;
/// A change within one tick of the filesystem's clock leaves no trace in its times; two seconds is the coarsest clock
/// in use (FAT, old NFS). Younger files are compared by content the next time.
const MARGIN_SECS: i64 = 2;

/// One regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// The live file's inode.
    pub(super) live: u64,
    /// The inode of its copy in the snapshot.
    pub(super) copy: u64,
    size: u64,
    mtime: FileTime,
    ctime: FileTime,
}

impl Seen {
    /// A file and the inode of its copy.
    pub(super) fn new(facts: &Facts, copy: u64) -> Self {
        Self {
            live: facts.ino,
            copy,
            size: facts.size,
            mtime: facts.mtime,
            ctime: facts.ctime,
        }
    }
}

/// The files of one snapshot.
#[derive(Debug, Default)]
pub(super) struct Index(HashMap<u64, Seen>);

impl Index {
    /// Whether the copy at inode `copy` still is what the live file is.
    pub(super) fn vouches(&self, live: &Facts, copy: u64) -> bool {
        self.0.get(&live.ino) == Some(&Seen::new(live, copy))
    }

    /// Reads one. What can't be understood vouches for nothing.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        Self(Self::entries(bytes).unwrap_or_default())
    }

    fn entries(bytes: &[u8]) -> Option<HashMap<u64, Seen>> {
        let (body, sum) = bytes.split_last_chunk::<32>()?;
        if blake3::hash(body).as_bytes() != sum {
            return None;
        }
        let entries = body.strip_prefix(MAGIC)?;
        entries
            .chunks(ENTRY)
            .map(|entry| decode(entry).map(|seen| (seen.live, seen)))
            .collect()
    }
}

fn decode(entry: &[u8]) -> Option<Seen> {
    let u64_at = |at: usize| Some(u64::from_le_bytes(*entry.get(at..)?.first_chunk::<8>()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(*entry.get(at..)?.first_chunk::<4>()?));
    let i64_at = |at: usize| Some(i64::from_le_bytes(*entry.get(at..)?.first_chunk::<8>()?));
    Some(Seen {
        live: u64_at(0)?,
        copy: u64_at(8)?,
        size: u64_at(16)?,
        mtime: FileTime {
            secs: i64_at(24)?,
            nanos: u32_at(32)?,
        },
        ctime: FileTime {
            secs: i64_at(40)?,
            nanos: u32_at(48)?,
        },
    })
}

/// The index of what was seen by a copy that began at `began`. Files that changed shortly before or since are left out.
pub(super) fn encode(seen: &[Seen], began: FileTime) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MAGIC.len() + seen.len() * ENTRY + 32);
    bytes.extend_from_slice(MAGIC);
    for one in seen
        .iter()
        .filter(|one| one.ctime.secs.saturating_add(MARGIN_SECS) < began.secs)
    {
        let end = bytes.len() + ENTRY;
        bytes.extend_from_slice(&one.live.to_le_bytes());
        bytes.extend_from_slice(&one.copy.to_le_bytes());
        bytes.extend_from_slice(&one.size.to_le_bytes());
        bytes.extend_from_slice(&one.mtime.secs.to_le_bytes());
        bytes.extend_from_slice(&u64::from(one.mtime.nanos).to_le_bytes());
        bytes.extend_from_slice(&one.ctime.secs.to_le_bytes());
        bytes.extend_from_slice(&u64::from(one.ctime.nanos).to_le_bytes());
        bytes.resize(end, 0);
    }
    let sum = blake3::hash(&bytes);
    bytes.extend_from_slice(sum.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(ino: u64, ctime: i64) -> Seen {
        let time = |secs| FileTime { secs, nanos: 7 };
        Seen {
            live: ino,
            copy: ino + 100,
            size: 3,
            mtime: time(5),
            ctime: time(ctime),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = encode(&[seen(1, 10), seen(2, 20)], FileTime { secs: 100, nanos: 0 });
        let read = Index::entries(&bytes).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read[&2], seen(2, 20));
    }

    #[test]
    fn files_that_changed_just_now_are_not_vouched_for() {
        let bytes = encode(
            &[seen(1, 98), seen(2, 97), seen(3, 200)],
            FileTime { secs: 100, nanos: 0 },
        );
        assert_eq!(
            Index::entries(&bytes).unwrap().into_keys().collect::<Vec<_>>(),
            [2]
        );
    }

    #[test]
    fn any_damage_makes_it_empty_and_never_panics() {
        let good = encode(&[seen(1, 10)], FileTime { secs: 100, nanos: 0 });
        for cut in 0..good.len() {
            assert!(Index::parse(&good[..cut]).0.is_empty(), "cut at {cut}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(Index::parse(&bad).0.is_empty(), "flipped at {at}");
        }
    }
}
