//! WAL segments and positions: what comes after what, and which segment holds which position.
//!
//! A *log* is 4 GiB of WAL; it has `2^32 / segment size` segments, so at 64 MiB the last one is `…0000003F` and is followed
//! by segment 0 of the next log. Names are those of PostgreSQL 9.3 and later (earlier ones left out the last segment of
//! each log). It doesn't know about archives or timelines' histories.

use std::fmt;
use std::str::FromStr;

use reseed_core::wal::{WalClass, WalFile};

use crate::error::FormatError;

/// Bytes of a WAL segment: a power of two from 1 MiB to 1 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentSize(u64);

impl SegmentSize {
    /// What a cluster has unless `initdb --wal-segsize` said otherwise.
    pub const DEFAULT: Self = Self(16 << 20);

    /// Checks a size.
    ///
    /// # Errors
    /// [`FormatError::SegmentSize`] for one that PostgreSQL doesn't take.
    pub fn new(bytes: u64) -> Result<Self, FormatError> {
        if bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes) {
            Ok(Self(bytes))
        } else {
            Err(FormatError::SegmentSize(bytes))
        }
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// How many segments a log has.
    pub fn per_log(self) -> u64 {
        (1 << 32) / self.0
    }
}

impl Default for SegmentSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A position in the WAL, written `16/B374D848`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl FromStr for Lsn {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let bad = || FormatError::Lsn(text.chars().take(80).collect());
        let half = |half: &str| {
            let digits = (1..=8).contains(&half.len()) && half.bytes().all(|b| b.is_ascii_hexdigit());
            u64::from_str_radix(half, 16).ok().filter(|_| digits)
        };
        let (high, low) = text.split_once('/').ok_or_else(bad)?;
        Ok(Self(
            half(high).ok_or_else(bad)? << 32 | half(low).ok_or_else(bad)?,
        ))
    }
}

/// One segment of one timeline. Sorted by timeline, then by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    timeline: u32,
    /// Counted from the beginning of the WAL, over all logs.
    number: u64,
    size: SegmentSize,
}

impl Segment {
    /// The segment that a file belongs to: a segment itself, its `.partial`, or a backup label in it.
    ///
    /// # Errors
    /// `NotASegment` for a history file and for timeline 0; `SegmentBeyondLog` for a number that no log has at this size.
    pub fn of(file: &WalFile, size: SegmentSize) -> Result<Self, FormatError> {
        let not_one = || FormatError::NotASegment(file.as_str().to_owned());
        if file.class() == WalClass::History {
            return Err(not_one());
        }
        let part = |from: usize| {
            let digits = file.as_str().get(from..from + 8)?;
            u32::from_str_radix(digits, 16).ok()
        };
        let (Some(timeline), Some(log), Some(within)) = (part(0), part(8), part(16)) else {
            return Err(not_one());
        };
        if timeline == 0 {
            return Err(not_one());
        }
        if u64::from(within) >= size.per_log() {
            return Err(FormatError::SegmentBeyondLog {
                name: file.as_str().to_owned(),
                size: size.bytes(),
                last: size.per_log() - 1,
            });
        }
        Ok(Self {
            timeline,
            number: u64::from(log) * size.per_log() + u64::from(within),
            size,
        })
    }

    /// The segment that holds the byte at a position.
    pub fn holding(timeline: u32, at: Lsn, size: SegmentSize) -> Self {
        Self {
            timeline,
            number: at.0 / size.bytes(),
            size,
        }
    }

    /// The segment that holds the last byte before a position: where a backup that ends at a segment's first byte has its
    /// end (PostgreSQL's `XLByteToPrevSeg`). Nothing comes before position 0.
    pub fn ending(timeline: u32, at: Lsn, size: SegmentSize) -> Option<Self> {
        Some(Self::holding(timeline, Lsn(at.0.checked_sub(1)?), size))
    }

    /// Its timeline.
    pub fn timeline(self) -> u32 {
        self.timeline
    }

    /// Its size.
    pub fn size(self) -> SegmentSize {
        self.size
    }

    /// The position of its first byte.
    pub fn begin(self) -> Lsn {
        Lsn(self.number * self.size.bytes())
    }

    /// The one behind it on the same timeline; nothing behind the last position there is.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        let number = self.number + 1;
        (number < self.size.per_log() << 32).then_some(Self { number, ..self })
    }

    /// The one before it on the same timeline; nothing before the first.
    #[must_use]
    pub fn previous(self) -> Option<Self> {
        let number = self.number.checked_sub(1)?;
        Some(Self { number, ..self })
    }

    /// This one and all behind it up to and including `last`; none when `last` comes earlier, or is of another timeline
    /// or size: which segments are needed across a switch of timelines, only its history tells.
    pub fn up_to(self, last: Self) -> impl Iterator<Item = Self> {
        let one_line = self.timeline == last.timeline && self.size == last.size;
        let numbers = if one_line {
            self.number..last.number + 1
        } else {
            0..0
        };
        numbers.map(move |number| Self { number, ..self })
    }

    /// Its file's name.
    pub fn file(self) -> WalFile {
        match WalFile::new(self.to_string()) {
            Ok(file) => file,
            Err(_) => unreachable!("three numbers of eight hexadecimal digits are a segment's name"),
        }
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_log = self.size.per_log();
        write!(
            f,
            "{:08X}{:08X}{:08X}",
            self.timeline,
            self.number / per_log,
            self.number % per_log
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment(name: &str, mib: u64) -> Segment {
        Segment::of(&WalFile::new(name).unwrap(), SegmentSize::new(mib << 20).unwrap()).unwrap()
    }

    #[test]
    fn logs_wrap_where_their_segments_end() {
        for (mib, last, next) in [
            (1, "000000010000000000000FFF", "000000010000000100000000"),
            (16, "0000000100000000000000FF", "000000010000000100000000"),
            (64, "00000001000000000000003F", "000000010000000100000000"),
            (1024, "0000000A0000000F00000003", "0000000A0000001000000000"),
        ] {
            assert_eq!(segment(last, mib).next().unwrap().to_string(), next);
            assert_eq!(segment(next, mib).previous().unwrap().to_string(), last);
        }
    }

    #[test]
    fn a_number_that_no_log_has_is_of_another_cluster() {
        let file = WalFile::new("000000010000000000000040").unwrap();
        let size = SegmentSize::new(64 << 20).unwrap();
        let error = Segment::of(&file, size).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`000000010000000000000040` does not exist where segments have 67108864 bytes: \
             the last of each log is 0000003F"
        );
        assert!(Segment::of(&file, SegmentSize::DEFAULT).is_ok());
    }

    #[test]
    fn the_wal_has_a_beginning_and_an_end() {
        assert_eq!(segment("000000010000000000000000", 16).previous(), None);
        assert_eq!(segment("00000001FFFFFFFF000000FF", 16).next(), None);
    }

    #[test]
    fn partial_and_label_belong_to_their_segment_and_history_to_none() {
        let plain = segment("0000000300000001000000A1", 16);
        assert_eq!(segment("0000000300000001000000A1.partial", 16), plain);
        assert_eq!(segment("0000000300000001000000A1.00000028.backup", 16), plain);
        for other in ["00000003.history", "0000000000000001000000A1"] {
            let file = WalFile::new(other).unwrap();
            assert_eq!(
                Segment::of(&file, SegmentSize::DEFAULT),
                Err(FormatError::NotASegment(other.to_owned()))
            );
        }
    }

    #[test]
    fn a_position_on_a_boundary_ends_the_segment_before() {
        let at: Lsn = "1/0".parse().unwrap();
        let size = SegmentSize::DEFAULT;
        assert_eq!(
            Segment::holding(1, at, size).to_string(),
            "000000010000000100000000"
        );
        assert_eq!(
            Segment::ending(1, at, size).unwrap().to_string(),
            "0000000100000000000000FF"
        );
        assert_eq!(Segment::ending(1, Lsn(0), size), None);
    }

    #[test]
    fn sizes_that_postgresql_refuses_are_refused() {
        for bad in [0, 1 << 19, 1 << 31, (16 << 20) + 1, u64::MAX] {
            assert_eq!(SegmentSize::new(bad), Err(FormatError::SegmentSize(bad)));
        }
    }

    #[test]
    fn positions_are_two_halves_in_hexadecimal() {
        assert_eq!("16/B374D848".parse::<Lsn>().unwrap().to_string(), "16/B374D848");
        for bad in [
            "",
            "/",
            "16",
            "16/",
            "/1",
            "+1/0",
            "1/+0",
            "100000000/0",
            "0/g",
            "0/0/0",
            " 0/0",
        ] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_range_is_empty_backwards_and_across_timelines() {
        let (a, b) = (
            segment("00000001000000000000003E", 64),
            segment("000000010000000100000001", 64),
        );
        let names: Vec<String> = a.up_to(b).map(|segment| segment.to_string()).collect();
        assert_eq!(
            names,
            [
                "00000001000000000000003E",
                "00000001000000000000003F",
                "000000010000000100000000",
                "000000010000000100000001"
            ]
        );
        assert_eq!(b.up_to(a).count(), 0);
        assert_eq!(a.up_to(segment("000000020000000100000001", 64)).count(), 0);
    }

    prop_compose! {
        fn any_segment()(shift in 20_u32..=30, timeline in 1..=u32::MAX, at in any::<u64>()) -> Segment {
            Segment::holding(timeline, Lsn(at), SegmentSize::new(1 << shift).unwrap())
        }
    }

    proptest! {
        #[test]
        fn a_name_is_read_as_what_it_was_written_from(segment in any_segment()) {
            prop_assert_eq!(Segment::of(&segment.file(), segment.size()), Ok(segment));
        }

        #[test]
        fn next_and_previous_undo_each_other_and_touch(segment in any_segment()) {
            if let Some(next) = segment.next() {
                prop_assert_eq!(next.previous(), Some(segment));
                prop_assert_eq!(next.begin().0 - segment.begin().0, segment.size().bytes());
                prop_assert_eq!(Segment::ending(segment.timeline(), next.begin(), segment.size()), Some(segment));
            }
        }

        #[test]
        fn names_sort_as_positions_do(a in any_segment(), other in any::<u64>()) {
            let b = Segment::holding(a.timeline(), Lsn(other), a.size());
            prop_assert_eq!(a.to_string().cmp(&b.to_string()), a.cmp(&b));
        }

        #[test]
        fn positions_survive(at in any::<u64>()) {
            prop_assert_eq!(Lsn(at).to_string().parse::<Lsn>(), Ok(Lsn(at)));
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = text.parse::<Lsn>();
        }
    }
}
