//! The content of one file: cloning, copying with its holes, comparing.
//!
//! Promises the same bytes and no allocation for holes. A clone (`FICLONE`) is tried first and, once the pair of
//! filesystems has refused one, not again.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::job::Job;
use super::sys::{self, Facts};

/// Files up to this size are read and written in one go.
pub(super) const BUFFER: usize = 256 * 1024;
/// How much is copied between two looks at whether to stop.
const CHUNK: usize = 8 << 20;

/// What a pair of filesystems can do, as found out so far.
#[derive(Debug, Default)]
pub(super) struct Abilities {
    no_clone: AtomicBool,
    no_range: AtomicBool,
}

/// Why the content or the metadata isn't there.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The source could not be read.
    Reading(Errno),
    /// The copy could not be written, or not be read again.
    Writing(Errno),
    /// It was to stop.
    Stopped,
}

/// Copies the content of a file into a new, empty one. `tell` is given the bytes of each piece.
pub(super) fn copy(
    job: &Job,
    able: &Abilities,
    buffer: &mut Vec<u8>,
    from: impl AsFd,
    to: impl AsFd,
    facts: &Facts,
    mut tell: impl FnMut(u64),
) -> Result<(), Trouble> {
    let (from, to) = (from.as_fd(), to.as_fd());
    if facts.size == 0 {
        return Ok(());
    }
    if !able.no_clone.load(Ordering::Relaxed) {
        match rustix::fs::ioctl_ficlone(to, from) {
            Ok(()) => {
                tell(facts.size);
                return Ok(());
            }
            Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS) => {
                able.no_clone.store(true, Ordering::Relaxed);
            }
            // For this one file only: swap files, files without copy-on-write, and the like.
            Err(_) => {}
        }
    }
    let holes = facts.blocks.saturating_mul(512) < facts.size;
    if holes {
        rustix::fs::ftruncate(to, facts.size).map_err(Trouble::Writing)?;
    }
    let mut at = 0;
    while at < facts.size {
        let end = if holes {
            match rustix::fs::seek(from, SeekFrom::Data(at)) {
                Ok(start) if start >= facts.size => return Ok(()),
                Ok(start) => {
                    at = start;
                    rustix::fs::seek(from, SeekFrom::Hole(start))
                        .map_err(Trouble::Reading)?
                        .min(facts.size)
                }
                // No data behind this place.
                Err(Errno::NXIO) => return Ok(()),
                // A filesystem that can't tell: everything is data.
                Err(_) => facts.size,
            }
        } else {
            facts.size
        };
        while at < end {
            job.check().map_err(|_| Trouble::Stopped)?;
            let want = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            let moved = piece(able, buffer, from, to, at, want)?;
            if moved == 0 {
                // It was cut off while we read; whoever compares the facts afterwards sees that.
                return Ok(());
            }
            tell(moved);
            at += moved;
        }
    }
    Ok(())
}

fn piece(
    able: &Abilities,
    buffer: &mut Vec<u8>,
    from: std::os::fd::BorrowedFd<'_>,
    to: std::os::fd::BorrowedFd<'_>,
    at: u64,
    want: usize,
) -> Result<u64, Trouble> {
    // Below the buffer's size one read and one write cost less than setting up a copy in the kernel.
    if want > BUFFER && !able.no_range.load(Ordering::Relaxed) {
        let (mut start, mut end) = (at, at);
        match rustix::fs::copy_file_range(from, Some(&mut start), to, Some(&mut end), want) {
            // Some filesystems answer 0 for what they can't do; reading tells whether it is the end.
            Ok(0) => {}
            Ok(moved) => return Ok(moved as u64),
            Err(Errno::INTR) => return piece(able, buffer, from, to, at, want),
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::ROFS)) => {
                return Err(Trouble::Writing(error));
            }
            Err(Errno::IO) => {}
            Err(_) => able.no_range.store(true, Ordering::Relaxed),
        }
    }
    buffer.resize(BUFFER, 0);
    let room = want.min(BUFFER);
    let read = loop {
        match rustix::io::pread(from, &mut buffer[..room], at) {
            Err(Errno::INTR) => {}
            result => break result.map_err(Trouble::Reading)?,
        }
    };
    let mut written = 0;
    while written < read {
        match rustix::io::pwrite(to, &buffer[written..read], at + written as u64) {
            Ok(0) => return Err(Trouble::Writing(Errno::IO)),
            Ok(n) => written += n,
            Err(Errno::INTR) => {}
            Err(error) => return Err(Trouble::Writing(error)),
        }
    }
    Ok(read as u64)
}

/// Whether a file and its copy hold the same bytes. What fails on the copy's side is [`Trouble::Writing`].
pub(super) fn equal(
    job: &Job,
    buffer: &mut Vec<u8>,
    from: impl AsFd,
    to: impl AsFd,
    size: u64,
) -> Result<bool, Trouble> {
    let (from, to) = (from.as_fd(), to.as_fd());
    buffer.resize(BUFFER, 0);
    let (left, right) = buffer.split_at_mut(BUFFER / 2);
    let mut at = 0;
    while at < size {
        job.check().map_err(|_| Trouble::Stopped)?;
        let n = fill(from, left, at).map_err(Trouble::Reading)?;
        let m = fill(to, right, at).map_err(Trouble::Writing)?;
        if n != m || left[..n] != right[..m] {
            return Ok(false);
        }
        if n == 0 {
            break;
        }
        at += n as u64;
    }
    Ok(at == size && sys::facts_of_fd(to).is_ok_and(|facts| facts.size == size))
}

fn fill(fd: std::os::fd::BorrowedFd<'_>, buffer: &mut [u8], at: u64) -> Result<usize, Errno> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::pread(fd, &mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
