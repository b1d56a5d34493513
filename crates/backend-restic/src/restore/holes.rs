//! Runs of zeros become holes: what is not written takes no room. Pure; it knows nothing about files.

use std::io;

/// Zeros of this length become a hole.
pub(super) const HOLE: usize = 64 << 10;

/// Writes everything but long runs of zeros; `true` when there was one.
pub(super) fn write_around_holes(
    plain: &[u8],
    mut write: impl FnMut(usize, &[u8]) -> io::Result<()>,
) -> io::Result<bool> {
    let mut pending = 0..0;
    let mut holes = false;
    for (number, window) in plain.chunks(HOLE).enumerate() {
        let start = number * HOLE;
        if window.len() == HOLE && is_zero(window) {
            holes = true;
            if !pending.is_empty() {
                write(pending.start, &plain[pending.clone()])?;
            }
            pending = start + window.len()..start + window.len();
        } else {
            pending.end = start + window.len();
        }
    }
    if !pending.is_empty() {
        write(pending.start, &plain[pending])?;
    }
    Ok(holes)
}

/// Compares the bytes with themselves one further on, which is as fast as comparing memory gets.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0) && bytes[1..] == bytes[..bytes.len() - 1]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn holes_do_not_change_the_content(
            runs in proptest::collection::vec((any::<bool>(), 1_usize..200_000), 0..8),
        ) {
            let mut plain = Vec::new();
            for (zero, length) in runs {
                plain.resize(plain.len() + length, u8::from(!zero));
            }
            let mut copy = vec![0_u8; plain.len()];
            let mut written = 0;
            write_around_holes(&plain, |from, bytes| {
                copy[from..from + bytes.len()].copy_from_slice(bytes);
                written += bytes.len();
                Ok(())
            }).unwrap();
            prop_assert!(written <= plain.len());
            prop_assert!(copy == plain);
        }
    }

    #[test]
    fn zeros_are_not_written() {
        let holes = write_around_holes(&vec![0; HOLE * 3], |_, _| panic!("nothing to write")).unwrap();
        assert!(holes);
    }
}
