//! The directories of a copy: opening, making, listing, clearing up and, once everything is in one, its metadata.

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reseed_core::error::Common;
use rustix::fs::FileType;
use rustix::io::Errno;

use super::attrs;
use super::fault::{Copied, OnSide, Side, Writing, read_fault, trouble};
use super::remove;
use super::sys::{self, Fail};
use super::tree::{BATCH, Node, Place, Shared, Task};
use super::work::lock;

/// Sets a directory's own metadata once everything is in it: what is put into it changes its time.
pub(super) fn finished_one(shared: &Shared<'_>, node: &Node) -> Copied<()> {
    if node.left.fetch_sub(1, Ordering::AcqRel) == 1 {
        finalize(shared, node)?;
    }
    Ok(())
}

fn finalize(shared: &Shared<'_>, node: &Node) -> Copied<()> {
    attrs::apply(
        &node.src,
        &node.dst,
        &node.facts,
        node.fresh,
        &shared.unset,
        || node.place.to_string(),
    )
    .map_err(|why| trouble(shared, &node.place.to_string(), &why))
}

/// Opens a subdirectory, makes its copy, and queues what is in it.
pub(super) fn directory(shared: &Shared<'_>, parent: &Arc<Node>, name: CString) -> Copied<()> {
    let show = || parent.show(&name);
    let src = match sys::open_dir(&parent.src, &name) {
        Ok(src) => src,
        // It was removed or replaced since it was listed.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if shared.what.live => {
            return finished_one(shared, parent);
        }
        Err(error) => return Err(read_fault(shared, &show(), error)),
    };
    let facts = sys::facts_of_fd(&src).map_err(|error| read_fault(shared, &show(), error))?;
    let (dst, fresh) = make_directory(shared, parent, &name)?;
    shared.what.job.step("made a directory");
    finished_one(shared, parent)?;
    if parent.depth + 1 >= shared.what.only.len() {
        shared.entries.fetch_add(1, Ordering::Relaxed);
    }
    let below = |dir: &Option<OwnedFd>| dir.as_ref().and_then(|dir| sys::open_dir(dir, &name).ok());
    let node = Arc::new(Node {
        prev: below(&parent.prev),
        twin: below(&parent.twin),
        place: Arc::new(Place {
            parent: Some(Arc::clone(&parent.place)),
            name,
        }),
        src,
        dst,
        facts,
        fresh,
        depth: parent.depth + 1,
        left: AtomicUsize::new(0),
    });
    if !facts.same_mount(&shared.root) {
        lock(&shared.mounts).push(format!(
            "something is mounted on {}, and is not in the copy",
            node.place
        ));
        clear(shared, &node, &HashSet::new())?;
        return finalize(shared, &node);
    }
    fill(shared, &node)
}

fn make_directory(shared: &Shared<'_>, parent: &Arc<Node>, name: &CString) -> Copied<(OwnedFd, bool)> {
    let what = || format!("can't make the directory {} in the copy", parent.show(name));
    let make = || rustix::fs::mkdirat(&parent.dst, name.as_c_str(), rustix::fs::Mode::RWXU);
    match make() {
        Ok(()) => return Ok((sys::open_dir(&parent.dst, name).writing(what)?, true)),
        Err(Errno::EXIST) if !parent.fresh => {}
        Err(error) => return Err(error).writing(what),
    }
    match sys::open_dir(&parent.dst, name) {
        Ok(dst) => {
            let facts = sys::facts_of_fd(&dst).writing(what)?;
            let above = sys::facts_of_fd(&parent.dst).writing(what)?;
            if !facts.same_mount(&above) {
                let what = format!(
                    "something is mounted inside of the copy, on {}",
                    parent.show(name)
                );
                let hint = "unmount it first: `findmnt` shows what it is";
                return Err(Fail::new(Common::Busy, what).hint(hint)).on(Side::To);
            }
            rustix::fs::fchmod(&dst, rustix::fs::Mode::RWXU).writing(what)?;
            attrs::disinherit(&dst).writing(what)?;
            Ok((dst, false))
        }
        Err(_) => {
            // A file, a link, or a directory that may not be read: not what the source has there.
            remove::remove(shared.what.job, &parent.dst, name).on(Side::To)?;
            make().writing(what)?;
            Ok((sys::open_dir(&parent.dst, name).writing(what)?, true))
        }
    }
}

/// Lists a directory and queues its entries.
pub(super) fn fill(shared: &Shared<'_>, node: &Arc<Node>) -> Copied<()> {
    let mut listed =
        sys::entries(&node.src).map_err(|error| read_fault(shared, &node.place.to_string(), error))?;
    if node.depth == 0 {
        listed.retain(|entry| !sys::not_data(&entry.name));
    }
    if let Some(wanted) = shared.what.only.get(node.depth) {
        let last = node.depth + 1 == shared.what.only.len();
        listed.retain(|entry| entry.name == *wanted);
        if let (Some(entry), false) = (listed.first(), last) {
            let facts = sys::facts_at(&node.src, &entry.name)
                .map_err(|error| read_fault(shared, &node.show(&entry.name), error))?;
            if facts.kind != FileType::Directory {
                listed.clear();
            }
        }
    }
    if !node.fresh {
        clear(
            shared,
            node,
            &listed.iter().map(|entry| entry.name.clone()).collect(),
        )?;
    }
    let (directories, others): (Vec<_>, Vec<_>) = listed
        .into_iter()
        .partition(|entry| entry.kind == FileType::Directory);
    let batches: Vec<Vec<CString>> = others
        .chunks(BATCH)
        .map(|chunk| chunk.iter().map(|entry| entry.name.clone()).collect())
        .collect();
    let parts = directories.len() + batches.len();
    if parts == 0 {
        return finalize(shared, node);
    }
    node.left.store(parts, Ordering::Release);
    let directories = directories
        .into_iter()
        .map(|entry| Task::Directory(Arc::clone(node), entry.name));
    let batches = batches
        .into_iter()
        .map(|names| Task::Batch(Arc::clone(node), names));
    shared.queue.push(directories.chain(batches));
    Ok(())
}

/// Removes from a destination directory what the source doesn't have.
fn clear(shared: &Shared<'_>, node: &Node, keep: &HashSet<CString>) -> Copied<()> {
    if node.fresh {
        return Ok(());
    }
    let present = sys::entries(&node.dst).writing(|| format!("can't list {} in the copy", node.place))?;
    for entry in present.iter().filter(|entry| !keep.contains(&entry.name)) {
        remove::remove(shared.what.job, &node.dst, &entry.name).on(Side::To)?;
    }
    Ok(())
}
