//! The first half of what happens to a directory: it is entered, and its own entries are compared with the cache or read.
//! Each step is a task that any thread may take; the last one hands over to [`finish`](super::finish).

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::block::{Block, Run};
use super::cache::{Ref, Stored};
use super::content::{PIECE, Pieces};
use super::dir::Dir;
use super::error::Cause;
use super::format::{SNAPSHOT_DOOR, Xattrs};
use super::large::LargeFile;
use super::sys::{
    Names, S_IFDIR, S_IFLNK, S_IFREG, S_IFSOCK, Stat, list, read_at, read_link, stat_at, stat_fd, xattrs_at,
    xattrs_fd,
};
use super::walk::{Scratch, Task, Walk};

/// Entries per task when nothing but `stat` is to be done.
const COMPARE_STEP: usize = 512;
/// Entries per task when files are to be read.
const READ_STEP: usize = 256;
/// A task that has read this much gives away what is left of it.
const READ_ENOUGH: u64 = 4 << 20;

/// A file that was read, or is being read.
enum Content {
    Known([u8; 32]),
    Large(OwnedFd),
}

impl Walk<'_> {
    pub(super) fn enter(
        &self,
        parent: Option<Arc<Dir>>,
        place: usize,
        name: CString,
        fd: Option<Arc<OwnedFd>>,
        old: Option<Ref>,
        scratch: &mut Scratch,
    ) {
        let opened = (|| {
            let fd = match (fd, &parent) {
                (Some(fd), _) => fd,
                (None, Some(parent)) => Arc::new(self.dirs.opener.dir(self.dirs.fd(parent)?.as_fd(), &name)?),
                (None, None) => return Err(io::Error::other("no descriptor for the root")),
            };
            let stat = stat_fd(fd.as_fd())?;
            Ok((fd, stat))
        })();
        let (fd, stat) = match opened {
            Ok(opened) => opened,
            Err(err) => {
                if let Some(parent) = parent {
                    self.problem(&parent, Some(&name), Cause::from_io(err));
                    self.sub_done(parent);
                }
                return;
            }
        };
        let is_mount = parent.is_some() && self.is_mount(&stat);
        let stored = old
            .and_then(|old| self.cache?.get(old))
            .filter(|stored| stored.block().is_some_and(|block| block.head.mount == is_mount));
        let known = stored
            .as_ref()
            .and_then(Stored::block)
            .filter(|block| block.head.is_state_of(&stat));
        let known = known.map(|block| block.len);
        let dir = self
            .dirs
            .enter(parent, place, name, Arc::clone(&fd), stat, stored);
        if let Some(len) = known {
            let steps = len.div_ceil(COMPARE_STEP);
            dir.pending.store(steps.max(1), Ordering::Relaxed);
            let step = |i: usize| (i * COMPARE_STEP, len.min((i + 1) * COMPARE_STEP));
            self.queue.push((1..steps).map(|i| Task::Compare {
                dir: Arc::clone(&dir),
                from: step(i).0,
                to: step(i).1,
            }));
            self.compare(&dir, 0, step(0).1, scratch);
            return;
        }
        let listed = (|| {
            let mut names = if is_mount {
                Names::default()
            } else {
                list(fd.as_fd(), &mut scratch.listing)?
            };
            if dir.parent.is_none() {
                names.retain(|name| Ok::<_, io::Error>(!is_snapshot_door(fd.as_fd(), name)?))?;
            }
            Ok((names, xattrs_fd(fd.as_fd(), &mut scratch.xattrs)?))
        })();
        let (names, xattrs) = listed.unwrap_or_else(|err: io::Error| {
            self.problem(&dir, None, Cause::from_io(err));
            Default::default()
        });
        self.start_reading(&dir, names, xattrs, scratch);
    }

    /// Compares entries with the cache, which is known to have the right names.
    pub(super) fn compare(&self, dir: &Arc<Dir>, from: usize, to: usize, scratch: &mut Scratch) {
        if let Err(Stale) = self.compare_entries(dir, from, to, scratch.own_directory) {
            dir.stale.store(true, Ordering::Relaxed);
        }
        self.own_task_done(dir, scratch);
    }

    fn compare_entries(&self, dir: &Dir, from: usize, to: usize, own_directory: bool) -> Result<(), Stale> {
        let block = dir.old.as_ref().and_then(Stored::block).ok_or(Stale)?;
        let fd = self.dirs.fd(dir).map_err(|_| Stale)?;
        let there = own_directory && to - from > 2 && rustix::process::fchdir(&fd).is_ok();
        let at = if there { rustix::fs::CWD } else { fd.as_fd() };
        for i in from..to {
            let entry = block.entry(i).ok_or(Stale)?;
            // Directories look after themselves.
            if entry.kind() == S_IFDIR {
                continue;
            }
            let stat = stat_at(at, entry.name).map_err(|_| Stale)?;
            if !entry.is_state_of(&stat) || dir.stale.load(Ordering::Relaxed) {
                return Err(Stale);
            }
            if stat.nlink > 1 && stat.kind() == S_IFREG {
                dir.stage().linked.push((entry.name.to_owned(), stat));
            }
        }
        Ok(())
    }

    pub(super) fn start_reading(&self, dir: &Arc<Dir>, names: Names, xattrs: Xattrs, scratch: &mut Scratch) {
        let len = names.len();
        dir.stage().xattrs = xattrs;
        // Set once: a directory starts reading at most once.
        let _ = dir.names.set(names);
        dir.pending.store(1, Ordering::Relaxed);
        self.read(dir, 0, len, scratch);
    }

    /// Reads entries, giving away what is too much for one task.
    pub(super) fn read(&self, dir: &Arc<Dir>, from: usize, mut to: usize, scratch: &mut Scratch) {
        while to - from > READ_STEP {
            let half = from + (to - from) / 2;
            self.give_away(dir, half, to);
            to = half;
        }
        let mut run = Run::default();
        match self.read_run(dir, from, to, &mut run, scratch) {
            Ok(None) => dir.stage().runs.push((from, run)),
            Ok(Some((file, rest))) => {
                let half = rest + (to - rest) / 2;
                self.give_away(dir, half, to);
                self.give_away(dir, rest, half);
                dir.stage().runs.push((from, run));
                if let Some(file) = file {
                    dir.pending.fetch_add(1, Ordering::Relaxed);
                    self.start_large(file);
                }
            }
            Err(err) => self.problem(dir, None, Cause::from_io(err)),
        }
        self.own_task_done(dir, scratch);
    }

    fn give_away(&self, dir: &Arc<Dir>, from: usize, to: usize) {
        if from < to {
            dir.pending.fetch_add(1, Ordering::Relaxed);
            self.queue.push([Task::Read {
                dir: Arc::clone(dir),
                from,
                to,
            }]);
        }
    }

    /// Reads entries into `run` until the end, a large file, or enough; where it stopped and the large file, if not at the end.
    fn read_run(
        &self,
        dir: &Arc<Dir>,
        from: usize,
        to: usize,
        run: &mut Run,
        scratch: &mut Scratch,
    ) -> io::Result<Option<(Option<LargeFile>, usize)>> {
        let Some(names) = dir.names.get() else {
            return Ok(None);
        };
        let fd = self.dirs.fd(dir)?;
        let fd = fd.as_fd();
        let old = dir.old.as_ref().and_then(Stored::block);
        let old = old.as_ref();
        let mut cursor = old
            .zip(names.get(from))
            .map_or(0, |(old, name)| old.lower_bound(name));
        let (mut files, mut bytes) = (0, 0);
        let mut stopped = None;
        for i in from..to {
            let Some(name) = names.get(i) else { break };
            let mut one = || -> Result<Option<LargeFile>, Cause> {
                let stat = stat_at(fd, name).map_err(Cause::from_io)?;
                if stat.nlink > 1 && stat.kind() == S_IFREG {
                    dir.stage().linked.push((name.to_owned(), stat));
                }
                if let Some(entry) = old.and_then(|old| advance(old, &mut cursor, name))
                    && entry.is_state_of(&stat)
                    && entry.covered().is_some()
                {
                    run.copy(&entry);
                    return Ok(None);
                }
                if stat.kind() != S_IFREG {
                    return self.read_other(fd, name, &stat, run, scratch).map(|()| None);
                }
                let (content, xattrs) = self.read_file(fd, name, &stat, scratch)?;
                let known = match &content {
                    Content::Known(hash) => *hash,
                    Content::Large(_) => [0; 32],
                };
                let at = run.push(
                    name,
                    &stat,
                    self.is_settled(&stat),
                    &[&known, xattrs.as_encoded()],
                );
                Ok(match content {
                    Content::Known(_) => {
                        files += 1;
                        bytes += stat.size;
                        None
                    }
                    Content::Large(fd) => Some(LargeFile {
                        dir: Arc::clone(dir),
                        name: name.to_owned(),
                        fd,
                        stat,
                        run: from,
                        at,
                        pieces: Pieces::new(stat.size),
                    }),
                })
            };
            match one() {
                Ok(None) => {}
                Ok(Some(large)) => {
                    stopped = Some((Some(large), i + 1));
                    break;
                }
                Err(cause) => self.problem(dir, Some(name), cause),
            }
            if bytes >= READ_ENOUGH && i + 1 < to {
                stopped = Some((None, i + 1));
                break;
            }
        }
        if files > 0 {
            self.count_read(files, bytes);
        }
        Ok(stopped)
    }

    fn read_file(
        &self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
        scratch: &mut Scratch,
    ) -> Result<(Content, Xattrs), Cause> {
        let fd = self.dirs.opener.file(dir, name).map_err(Cause::from_io)?;
        self.opened(name).map_err(Cause::from_io)?;
        let linked = if stat.nlink > 1 {
            self.linked_content(stat)
        } else {
            None
        };
        let content = match linked {
            Some(hash) => Content::Known(hash),
            // There will be no digest any more; that it can be opened is all that is still of interest.
            None if self.has_failed() => Content::Known([0; 32]),
            None if stat.size > PIECE as u64 => Content::Large(fd.try_clone().map_err(Cause::Unreadable)?),
            None => {
                // One byte more than there should be shows a file that grew, and spares asking for its end.
                let len = usize::try_from(stat.size).unwrap_or(PIECE);
                scratch.content.resize(scratch.content.len().max(PIECE + 1), 0);
                let n = read_at(fd.as_fd(), &mut scratch.content[..=len], 0).map_err(Cause::Unreadable)?;
                if n != len {
                    return Err(Cause::Changed);
                }
                Content::Known(*blake3::hash(&scratch.content[..len]).as_bytes())
            }
        };
        let xattrs = xattrs_fd(fd.as_fd(), &mut scratch.xattrs).map_err(Cause::from_io)?;
        if !stat_fd(fd.as_fd()).map_err(Cause::from_io)?.same_state(stat) {
            return Err(Cause::Changed);
        }
        if let (Content::Known(hash), true) = (&content, stat.nlink > 1 && !self.has_failed()) {
            self.set_linked_content(stat, *hash);
        }
        Ok((content, xattrs))
    }

    fn read_other(
        &self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
        run: &mut Run,
        scratch: &mut Scratch,
    ) -> Result<(), Cause> {
        let settled = self.is_settled(stat);
        match stat.kind() {
            S_IFDIR | S_IFSOCK => {
                run.push(name, stat, settled, &[]);
                return Ok(());
            }
            S_IFLNK => {
                let target = read_link(dir, name).map_err(Cause::from_io)?;
                let xattrs = xattrs_at(dir, name, &mut scratch.xattrs).map_err(Cause::from_io)?;
                let len = (target.len() as u64).to_le_bytes();
                run.push(name, stat, settled, &[&len, &target, xattrs.as_encoded()]);
            }
            _ => {
                let xattrs = xattrs_at(dir, name, &mut scratch.xattrs).map_err(Cause::from_io)?;
                run.push(name, stat, settled, &[xattrs.as_encoded()]);
            }
        }
        if !stat_at(dir, name).map_err(Cause::from_io)?.same_state(stat) {
            return Err(Cause::Changed);
        }
        Ok(())
    }
}

/// The cache is not up to date on a directory.
struct Stale;

/// The cached entry of this name, moving forward through the cached entries.
fn advance<'b>(old: &Block<'b>, cursor: &mut usize, name: &CStr) -> Option<super::block::Entry<'b>> {
    loop {
        let entry = old.entry(*cursor)?;
        match entry.name.to_bytes().cmp(name.to_bytes()) {
            std::cmp::Ordering::Less => *cursor += 1,
            std::cmp::Ordering::Equal => return Some(entry),
            std::cmp::Ordering::Greater => return None,
        }
    }
}

/// ZFS shows its snapshots here if told to; they are not part of the tree, and walking in would mount them all.
fn is_snapshot_door(root: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    Ok(name.to_bytes() == SNAPSHOT_DOOR && stat_at(root, name)?.kind() == S_IFDIR)
}
