//! Groups the pieces that are missing into reads of packs. Pure.
//!
//! Promises that every piece is in exactly one read that covers it, whatever an index claims, and that no read is much
//! larger than the larger of [`READ`] and a blob.

use std::ops::Range;

use crate::pack::Location;

/// Blobs next to each other are read together up to this size.
const READ: u32 = 4 << 20;
/// A gap up to this size is read and thrown away rather than asked around.
const GAP: u32 = 64 << 10;

/// One read and the pieces in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Job<P> {
    /// However the caller names it.
    pub(super) pack: P,
    pub(super) offset: u32,
    pub(super) length: u32,
    pub(super) pieces: Range<usize>,
}

/// Groups places, sorted by pack and offset, into reads.
pub(super) fn jobs<P: PartialEq>(places: impl IntoIterator<Item = (P, Location)>) -> Vec<Job<P>> {
    let mut jobs: Vec<Job<P>> = Vec::new();
    for (number, (pack, at)) in places.into_iter().enumerate() {
        // An index can claim anything; a read that fails is the answer to an impossible place.
        let end = at.offset.saturating_add(at.length);
        if let Some(job) = jobs.last_mut()
            && job.pack == pack
            && at.offset <= job.offset.saturating_add(job.length).saturating_add(GAP)
            && (end - job.offset <= READ || end <= job.offset.saturating_add(job.length))
        {
            job.length = job.length.max(end - job.offset);
            job.pieces.end = number + 1;
        } else {
            jobs.push(Job {
                pack,
                offset: at.offset,
                length: end - at.offset,
                pieces: number..number + 1,
            });
        }
    }
    jobs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::restore::plan::Piece;

    fn piece(pack: u32, offset: u32, length: u32) -> Piece {
        let at = Location {
            offset,
            length,
            uncompressed: 0,
        };
        Piece {
            id: [0; 32],
            pack,
            at,
            plain_len: length,
            file: 0,
            file_offset: 0,
        }
    }

    #[test]
    fn neighbours_are_read_together_and_far_ones_are_not() {
        let pieces = [
            piece(0, 0, 100),
            piece(0, 100, 100),
            piece(0, 100, 100),
            piece(0, 1_000_000, 5),
            piece(1, 200, 5),
        ];
        let jobs = jobs(pieces.iter().map(Piece::place));
        let spans: Vec<_> = jobs
            .iter()
            .map(|job| (job.pack, job.offset, job.length, job.pieces.len()))
            .collect();
        assert_eq!(spans, [(0, 0, 200, 3), (0, 1_000_000, 5, 1), (1, 200, 5, 1)]);
    }

    proptest! {
        #[test]
        fn every_piece_is_in_exactly_one_read_that_covers_it(
            mut places in proptest::collection::vec((0_u32..3, 0_u32..20_000_000, 1_u32..6_000_000), 1..60),
        ) {
            places.sort_unstable();
            let pieces: Vec<_> = places.iter().map(|(pack, offset, length)| piece(*pack, *offset, *length)).collect();
            let jobs = jobs(pieces.iter().map(Piece::place));
            let mut next = 0;
            for job in &jobs {
                prop_assert_eq!(job.pieces.start, next);
                next = job.pieces.end;
                let largest = pieces[job.pieces.clone()].iter().map(|piece| piece.at.length).max().unwrap();
                prop_assert!(job.length <= READ.max(largest) + READ);
                for piece in &pieces[job.pieces.clone()] {
                    prop_assert_eq!(piece.pack, job.pack);
                    prop_assert!(piece.at.offset >= job.offset);
                    prop_assert!(piece.at.offset + piece.at.length <= job.offset + job.length);
                }
            }
            prop_assert_eq!(next, pieces.len());
        }
    }
}
