//! Which side of a copy failed.
//!
//! A failed read of a snapshot means "try another source"; a failed write of what is restored means that no source can
//! help. The error's kind can't tell: `EIO` comes from both disks.

use std::io;

use reseed_core::error::Common;
use rustix::io::Errno;

use super::data::Trouble;
use super::sys::{self, During, Fail};
use super::tree::Shared;

/// A copy that failed.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) side: Side,
    pub(super) fail: Fail,
}

/// Where it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Reading what is copied.
    From,
    /// Writing, or reading again, what it is copied to.
    To,
    /// Neither: it was cancelled.
    Neither,
}

/// What may fail on either side.
pub(super) type Copied<T> = Result<T, Fault>;

/// Says of a failed call on which side it was.
pub(super) trait OnSide<T> {
    fn on(self, side: Side) -> Copied<T>;
}

impl<T> OnSide<T> for Result<T, Fail> {
    fn on(self, side: Side) -> Copied<T> {
        self.map_err(|fail| Fault { side, fail })
    }
}

/// Says during what a call on the side that is copied to failed.
pub(super) trait Writing<T> {
    fn writing(self, what: impl FnOnce() -> String) -> Copied<T>;
}

impl<T, E: Into<io::Error>> Writing<T> for Result<T, E> {
    fn writing(self, what: impl FnOnce() -> String) -> Copied<T> {
        self.during(what).on(Side::To)
    }
}

/// An error on the reading side. In a tree that nobody writes to, some mean damage.
pub(super) fn read_fault(shared: &Shared<'_>, place: &str, error: Errno) -> Fault {
    let what = format!("can't read {place}");
    let fail = match error {
        Errno::IO | Errno::UCLEAN | Errno::BADMSG | Errno::ILSEQ if !shared.what.live => {
            Fail::new(Common::Corrupt, what)
                .said(error)
                .hint("the disk below it reports damage: see `dmesg` and `smartctl`")
        }
        Errno::NOENT | Errno::STALE if !shared.what.live => Fail::new(
            Common::StalePlan,
            format!("{place} went away while it was being read"),
        )
        .said(error),
        _ => sys::os_fail(what, error),
    };
    Fault {
        side: Side::From,
        fail,
    }
}

/// What went wrong with a file's content or metadata, as a fault of one side.
pub(super) fn trouble(shared: &Shared<'_>, place: &str, why: &Trouble) -> Fault {
    match *why {
        Trouble::Reading(error) => read_fault(shared, place, error),
        Trouble::Writing(error) => Fault {
            side: Side::To,
            fail: sys::os_fail(format!("can't write {place} in the copy"), error),
        },
        Trouble::Stopped => Fault {
            side: Side::Neither,
            fail: Fail::new(Common::Cancelled, "the run was cancelled"),
        },
    }
}
