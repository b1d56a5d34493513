//! The second half of what happens to a directory: its own entries are known, its subdirectories are walked, and with the
//! last of them it is hashed into its parent.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::block::{Block, Counts, Run, assemble, set_listing};
use super::cache::{Kept, KeptBlock, Ref, Stored};
use super::dir::{Dir, Finished, Stage, lock};
use super::error::Cause;
use super::format::Xattrs;
use super::sys::{Names, S_IFDIR, Stat, stat_fd};
use super::walk::{Scratch, Task, Walk};

impl Walk<'_> {
    /// One of the tasks on a directory's own entries is done. After the last, on to its subdirectories.
    pub(super) fn own_task_done(&self, dir: &Arc<Dir>, scratch: &mut Scratch) {
        if dir.pending.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        if dir.stale.swap(false, Ordering::Relaxed) {
            dir.stage().linked.clear();
            match known_names(dir) {
                Some((names, xattrs)) => return self.start_reading(dir, names, xattrs, scratch),
                None => self.nonsense(dir),
            }
        }
        let is_mount = dir.parent.is_some() && self.is_mount(&dir.stat);
        let mut stage = dir.stage();
        if dir.names.get().is_some() {
            stage.block = Some(assemble_stage(
                &mut stage,
                &dir.stat,
                self.is_settled(&dir.stat),
                is_mount,
            ));
        }
        let linked = std::mem::take(&mut stage.linked);
        let (counts, subs) = own_entries(dir, stage.block.as_deref());
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
    pub(super) fn is_mount(&self, stat: &Stat) -> bool {
        stat.dev != self.root.dev || stat.mount_root
    }

    /// A subdirectory could not be entered.
    pub(super) fn sub_done(&self, parent: Arc<Dir>) {
        if parent.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.finish_dir(parent);
        }
    }

    /// Finishes a directory whose subdirectories are finished, and with the last one of its parent's that one too.
    fn finish_dir(&self, mut dir: Arc<Dir>) {
        loop {
            self.dirs.close(&dir);
            let finished = if self.has_failed() {
                None
            } else {
                self.hash_dir(&dir)
            };
            if finished.is_none() && !self.has_failed() {
                self.nonsense(&dir);
            }
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

    /// `None` when a subdirectory has failed, or the block makes no sense.
    fn hash_dir(&self, dir: &Dir) -> Option<Finished> {
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
            block.listing(|place| {
                subs.get(place)?
                    .as_ref()
                    .map(|sub| (sub.attrs, &*sub.xattrs, &sub.listing))
            })?
        };
        let xattrs = block.head.xattrs.into();
        let mut finished = Finished {
            attrs: dir.stat.attrs(),
            xattrs,
            listing,
            unchanged,
            kept: usize::MAX,
        };
        if self.cache.is_some() {
            let block = match (new, &dir.old) {
                (Some(mut bytes), _) => {
                    set_listing(&mut bytes, &listing);
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

    /// A block that passes its checksum and does not parse: nothing this program wrote.
    fn nonsense(&self, dir: &Dir) {
        let err = io::Error::other("its record contradicts itself; remove the digest cache");
        self.problem(dir, None, Cause::Unreadable(err));
    }
}

/// The names the cache has, for a directory that has not changed itself.
fn known_names(dir: &Dir) -> Option<(Names, Xattrs)> {
    let block = dir.old.as_ref()?.block()?;
    let mut names = Names::default();
    for entry in block.iter() {
        names.push(entry.name);
    }
    (names.len() == block.len).then(|| (names, Xattrs::from_encoded(block.head.xattrs)))
}

/// Puts together what the reading tasks handed in.
fn assemble_stage(stage: &mut Stage, stat: &Stat, trusted: bool, is_mount: bool) -> Vec<u8> {
    let mut runs = std::mem::take(&mut stage.runs);
    runs.sort_unstable_by_key(|(place, _)| *place);
    for (run, at, hash) in std::mem::take(&mut stage.contents) {
        if let Ok(i) = runs.binary_search_by_key(&run, |(place, _)| *place) {
            runs[i].1.set_content(at, &hash);
        }
    }
    let runs: Vec<Run> = runs.into_iter().map(|(_, run)| run).collect();
    let xattrs = std::mem::take(&mut stage.xattrs);
    assemble(stat, trusted, is_mount, xattrs.as_encoded(), &runs)
}

/// What a directory counts itself, and its subdirectories with what the cache knows of them.
fn own_entries(dir: &Dir, new: Option<&[u8]>) -> (Counts, Vec<(CString, Option<Ref>)>) {
    let stored = dir.old.as_ref();
    let old = stored.and_then(Stored::block);
    let Some(block) = (match new {
        Some(bytes) => Block::parse(bytes),
        None => old,
    }) else {
        return Default::default();
    };
    let mut subs = Vec::with_capacity(block.subs);
    if block.subs > 0 {
        for entry in block.iter().filter(|entry| entry.kind() == S_IFDIR) {
            let known = old.and_then(|old| old.entry(old.lower_bound(entry.name)));
            let known = known.filter(|was| was.name == entry.name && was.kind() == S_IFDIR);
            let place = known.and_then(|was| usize::try_from(was.sub).ok());
            subs.push((
                entry.name.to_owned(),
                stored.zip(place).and_then(|(stored, place)| stored.sub(place)),
            ));
        }
    }
    (block.head.counts, subs)
}
