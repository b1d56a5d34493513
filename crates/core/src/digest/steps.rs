//! What happens to one directory: entered, its entries compared with the cache or read, its subdirectories walked, and
//! then finished into its parent. Each step is a task that any thread may take.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::block::{Block, Run, assemble};
use super::cache::{Kept, KeptBlock, Ref, Stored};
use super::content::{PIECE, Pieces};
use super::dir::{Dir, Finished, lock};
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

    fn start_reading(&self, dir: &Arc<Dir>, names: Names, xattrs: Xattrs, scratch: &mut Scratch) {
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

    /// One of the tasks on a directory's own entries is done. After the last, on to its subdirectories.
    pub(super) fn own_task_done(&self, dir: &Arc<Dir>, scratch: &mut Scratch) {
        if dir.pending.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        if dir.stale.swap(false, Ordering::Relaxed) {
            dir.stage().linked.clear();
            let Some(block) = dir.old.as_ref().and_then(Stored::block) else {
                return;
            };
            let mut names = Names::default();
            for entry in block.iter() {
                names.push(entry.name);
            }
            if names.len() == block.len {
                let xattrs = Xattrs::from_encoded(block.head.xattrs);
                self.start_reading(dir, names, xattrs, scratch);
                return;
            }
            // Entries that do not parse behind a checksum that fits: nothing we wrote.
            self.problem(
                dir,
                None,
                Cause::Unreadable(io::Error::other("the digest cache contradicts itself, remove it")),
            );
        }
        let is_mount = dir.parent.is_some() && self.is_mount(&dir.stat);
        let mut stage = dir.stage();
        if dir.names.get().is_some() {
            let mut runs = std::mem::take(&mut stage.runs);
            runs.sort_unstable_by_key(|(place, _)| *place);
            for (run, at, hash) in std::mem::take(&mut stage.contents) {
                if let Ok(i) = runs.binary_search_by_key(&run, |(place, _)| *place) {
                    runs[i].1.set_content(at, &hash);
                }
            }
            let runs: Vec<Run> = runs.into_iter().map(|(_, run)| run).collect();
            let xattrs = std::mem::take(&mut stage.xattrs);
            let trusted = self.is_settled(&dir.stat);
            stage.block = Some(assemble(&dir.stat, trusted, is_mount, xattrs.as_encoded(), &runs));
        }
        let linked = std::mem::take(&mut stage.linked);
        let mut subs = Vec::new();
        let old = dir.old.as_ref().and_then(Stored::block);
        let new = stage.block.as_deref().and_then(Block::parse);
        let counts = new.or(old).map_or_else(Default::default, |block| {
            for entry in block
                .iter()
                .filter(|_| block.subs > 0)
                .filter(|entry| entry.kind() == S_IFDIR)
            {
                let known = match (&new, &old) {
                    (None, _) => Some(entry.sub),
                    (Some(_), Some(old)) => old
                        .entry(old.lower_bound(entry.name))
                        .filter(|was| was.name == entry.name && was.kind() == S_IFDIR)
                        .map(|was| was.sub),
                    (Some(_), None) => None,
                };
                let known = known.and_then(|place| dir.old.as_ref()?.sub(usize::try_from(place).ok()?));
                subs.push((entry.name.to_owned(), known));
            }
            block.head.counts
        });
        stage.subs.resize_with(subs.len(), || None);
        drop(stage);
        if !linked.is_empty() {
            self.add_links(dir, linked);
        }
        // Nothing may have been added, removed or renamed since it was listed.
        match self.dirs.fd(dir).and_then(|fd| stat_fd(fd.as_fd())) {
            Ok(now) if now.same_state(&dir.stat) => {}
            Ok(_) => self.problem(dir, None, Cause::Changed),
            Err(err) => self.problem(dir, None, Cause::from_io(err)),
        }
        {
            let mut results = lock(&self.results);
            results.counts.add(&counts);
            results.dirs += u64::from(dir.parent.is_some());
            results.mounts += u64::from(is_mount);
        }
        if subs.is_empty() {
            self.finish_dir(Arc::clone(dir));
            return;
        }
        dir.pending.store(subs.len(), Ordering::Release);
        let enter = |(place, (name, old))| Task::Enter {
            parent: Some(Arc::clone(dir)),
            place,
            name,
            fd: None,
            old,
        };
        self.queue
            .push_and_return(subs.into_iter().enumerate().rev().map(enter));
    }

    /// Whether a directory below the root belongs to another file system. The attribute tells bind mounts of the same one.
    fn is_mount(&self, stat: &Stat) -> bool {
        stat.dev != self.root.dev || stat.mount_root
    }

    fn sub_done(&self, parent: Arc<Dir>) {
        if parent.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.finish_dir(parent);
        }
    }

    /// Finishes a directory whose subdirectories are finished, and with the last one of its parent's that one too.
    fn finish_dir(&self, mut dir: Arc<Dir>) {
        loop {
            self.dirs.close(&dir);
            let finished = self.hash_dir(&dir);
            let Some(parent) = dir.parent.clone() else {
                lock(&self.results).root = finished;
                return;
            };
            if let Some(slot) = parent.stage().subs.get_mut(dir.place) {
                *slot = finished;
            }
            if parent.pending.fetch_sub(1, Ordering::AcqRel) != 1 {
                return;
            }
            dir = parent;
        }
    }

    /// `None` when the walk has failed.
    fn hash_dir(&self, dir: &Dir) -> Option<Finished> {
        if self.has_failed() {
            return None;
        }
        let (new, subs) = {
            let mut stage = dir.stage();
            (stage.block.take(), std::mem::take(&mut stage.subs))
        };
        let block = match &new {
            Some(bytes) => Block::parse(bytes)?,
            None => dir.old.as_ref()?.block()?,
        };
        let unchanged = new.is_none()
            && subs
                .iter()
                .all(|sub| sub.as_ref().is_some_and(|sub| sub.unchanged));
        let listing = if unchanged {
            block.head.listing
        } else {
            let sub = |place: usize| {
                subs.get(place)?
                    .as_ref()
                    .map(|sub| (sub.attrs, &*sub.xattrs, &sub.listing))
            };
            block.listing(sub).or_else(|| {
                self.problem(
                    dir,
                    None,
                    Cause::Unreadable(io::Error::other("a directory's record contradicts itself")),
                );
                None
            })?
        };
        let head = block.head;
        let mut finished = Finished {
            attrs: dir.stat.attrs(),
            xattrs: head.xattrs.into(),
            listing,
            unchanged,
            kept: usize::MAX,
        };
        if self.cache.is_some() {
            let block = match (new, &dir.old) {
                (Some(mut bytes), _) => {
                    super::block::set_listing(&mut bytes, &listing);
                    KeptBlock::New(bytes)
                }
                (None, Some(old)) => KeptBlock::Stored(old.place(), listing),
                (None, None) => return None,
            };
            let subs = subs.iter().flatten().map(|sub| sub.kept).collect();
            let mut results = lock(&self.results);
            finished.kept = results.kept.len();
            results.kept.push(Kept { block, subs });
        }
        Some(finished)
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
