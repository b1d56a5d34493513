//! BLAKE3 of one large file in pieces that any thread can take.
//!
//! Promises the hash `b3sum` prints for the same bytes. A piece is a power of two of BLAKE3 chunks, so its chaining value
//! is a node of BLAKE3's own tree and the pieces merge into the ordinary hash; threads share nothing but the results.
//! Knows nothing about where the bytes come from.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

/// Bytes per piece; also the largest file that is read in one go. It and what hashes it fit a core's own cache.
pub(super) const PIECE: usize = 1 << 20;

/// The pieces of one file, handed out in order and merged when all are in.
#[derive(Debug)]
pub(super) struct Pieces {
    size: u64,
    count: u64,
    next: AtomicU64,
    done: Mutex<Done>,
}

#[derive(Debug)]
struct Done {
    values: Vec<ChainingValue>,
    left: u64,
}

impl Pieces {
    /// For a file of `size` bytes, which must be more than one piece.
    pub(super) fn new(size: u64) -> Self {
        let count = size.div_ceil(PIECE as u64);
        let slots = usize::try_from(count).unwrap_or(usize::MAX);
        let done = Done {
            values: vec![[0; 32]; slots],
            left: count,
        };
        Self {
            size,
            count,
            next: AtomicU64::new(0),
            done: Mutex::new(done),
        }
    }

    /// The next piece nobody has taken: its offset and length.
    pub(super) fn take(&self) -> Option<(u64, usize)> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        if index >= self.count {
            return None;
        }
        let offset = index * PIECE as u64;
        let len = (self.size - offset).min(PIECE as u64);
        Some((offset, usize::try_from(len).unwrap_or(PIECE)))
    }

    /// How many pieces there are.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Hands in the bytes of a piece; the file's hash when it was the last.
    pub(super) fn put(&self, offset: u64, bytes: &[u8]) -> Option<[u8; 32]> {
        let value = Hasher::new()
            .set_input_offset(offset)
            .update(bytes)
            .finalize_non_root();
        let index = usize::try_from(offset / PIECE as u64).unwrap_or(usize::MAX);
        let mut done = self
            .done
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(slot) = done.values.get_mut(index) {
            *slot = value;
        }
        done.left -= 1;
        (done.left == 0).then(|| merge_root(&done.values))
    }
}

fn merge_root(values: &[ChainingValue]) -> [u8; 32] {
    let (left, right) = values.split_at(left_len(values.len()));
    *merge_subtrees_root(&merge(left), &merge(right), Mode::Hash).as_bytes()
}

fn merge(values: &[ChainingValue]) -> ChainingValue {
    if let [one] = values {
        return *one;
    }
    let (left, right) = values.split_at(left_len(values.len()));
    merge_subtrees_non_root(&merge(left), &merge(right), Mode::Hash)
}

/// BLAKE3's shape: the left side is the largest power of two that leaves something for the right.
fn left_len(n: usize) -> usize {
    n.next_power_of_two() / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_in_any_order_give_the_plain_hash() {
        let mut bytes = vec![0u8; 9 * PIECE + 1];
        for (i, b) in bytes.iter_mut().enumerate() {
            *b = u8::try_from(i % 251).unwrap();
        }
        for len in [
            PIECE + 1,
            2 * PIECE,
            2 * PIECE + 1,
            3 * PIECE - 1,
            4 * PIECE,
            5 * PIECE + 17,
            7 * PIECE,
            9 * PIECE + 1,
        ] {
            let pieces = Pieces::new(len as u64);
            let mut taken: Vec<_> = std::iter::from_fn(|| pieces.take()).collect();
            assert_eq!(taken.len() as u64, pieces.count());
            taken.reverse();
            let mut hash = None;
            for (offset, n) in taken {
                assert!(hash.is_none());
                let at = usize::try_from(offset).unwrap();
                hash = pieces.put(offset, &bytes[at..at + n]);
            }
            assert_eq!(hash.unwrap(), *blake3::hash(&bytes[..len]).as_bytes(), "{len}");
        }
    }
}
