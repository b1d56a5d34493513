//! Copying one entry that is not a directory: link it, keep it, clone it or copy it.
//!
//! Promises that a file is linked into a tree only from another *finished tree* of the same kind (never from a live
//! file: a write in place would change history), only when content and all metadata are equal, and only once per file
//! of the source, so that two files never become one. A file of a live tree that changes while it is copied is copied
//! again, three times at the most, and then reported as torn.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::fault::{Copied, OnSide, Side, Writing, read_fault, trouble};
use super::index::Seen;
use super::remove;
use super::sys::{self, During, Facts};
use super::tree::{Node, Place, Shared, Vouch, Worker};
use super::work::{Role, lock};
use super::{attrs, data};

/// How often a file that changes while it is read is copied.
const TRIES: u32 = 3;
/// Inodes with more names than this are not shared between trees: ext4 ends at 65,000.
const MOST_LINKS: u64 = 60_000;

/// What became of an entry.
pub(super) enum Became {
    Copied,
    /// It went away, or is a socket.
    Nothing,
    /// It is a directory, and not ours to copy.
    Directory,
}

/// Copies one entry of `node`.
pub(super) fn copy(
    shared: &Shared<'_>,
    worker: &mut Worker,
    node: &Arc<Node>,
    name: &CString,
) -> Copied<Became> {
    let facts = match sys::facts_at(&node.src, name) {
        Ok(facts) => facts,
        Err(Errno::NOENT) if shared.what.live => return Ok(Became::Nothing),
        Err(error) => return Err(read_fault(shared, &node.show(name), error)),
    };
    match facts.kind {
        FileType::Directory => return Ok(Became::Directory),
        FileType::Socket => {
            if !node.fresh {
                remove::remove(shared.what.job, &node.dst, name).on(Side::To)?;
            }
            return Ok(Became::Nothing);
        }
        _ => {}
    }
    if facts.nlink < 2 {
        return one(shared, worker, node, name, &facts);
    }
    match shared.links.role(facts.ino)? {
        Role::Another(place, first) => {
            let became = link_to_first(shared, node, name, &place, &first)?;
            if facts.kind == FileType::RegularFile {
                shared.files.fetch_add(1, Ordering::Relaxed);
                shared.moved(0, 1);
            }
            Ok(became)
        }
        Role::First => {
            let result = one(shared, worker, node, name, &facts);
            let made = matches!(result, Ok(Became::Copied));
            shared
                .links
                .made(facts.ino, made.then(|| (Arc::clone(&node.place), name.clone())));
            result
        }
    }
}

fn one(
    shared: &Shared<'_>,
    worker: &mut Worker,
    node: &Node,
    name: &CString,
    facts: &Facts,
) -> Copied<Became> {
    match facts.kind {
        FileType::RegularFile => file(shared, worker, node, name, facts),
        FileType::Symlink => symlink(shared, node, name, facts),
        _ => special(shared, node, name, facts),
    }
}

/// Opens the copy's directory again by its names and links from there. One step at a time, so that depth is no limit.
fn link_to_first(
    shared: &Shared<'_>,
    node: &Node,
    name: &CString,
    place: &Arc<Place>,
    first: &CString,
) -> Copied<Became> {
    let what = || format!("can't link {} in the copy", node.show(name));
    let mut at: Option<OwnedFd> = None;
    if !Arc::ptr_eq(place, &node.place) {
        let mut here = shared.dst_root.try_clone().writing(what)?;
        for component in place.components() {
            here = sys::open_dir(&here, component).writing(what)?;
        }
        at = Some(here);
    }
    let from = at.as_ref().unwrap_or(&node.dst);
    if !node.fresh {
        let same = match (sys::facts_at(&node.dst, name), sys::facts_at(from, first)) {
            (Ok(here), Ok(there)) => here.same_inode(&there),
            _ => false,
        };
        if same {
            return Ok(Became::Copied);
        }
        remove::remove(shared.what.job, &node.dst, name).on(Side::To)?;
    }
    rustix::fs::linkat(
        from,
        first.as_c_str(),
        &node.dst,
        name.as_c_str(),
        AtFlags::empty(),
    )
    .writing(what)?;
    Ok(Became::Copied)
}

fn file(
    shared: &Shared<'_>,
    worker: &mut Worker,
    node: &Node,
    name: &CString,
    facts: &Facts,
) -> Copied<Became> {
    if link_unchanged(shared, worker, node, name, facts)? {
        count(shared, facts.size, 0, 0);
        return Ok(Became::Copied);
    }
    let src = match sys::open_file(&node.src, name) {
        Ok(src) => src,
        Err(Errno::NOENT) if shared.what.live => return Ok(Became::Nothing),
        Err(error) => return Err(read_fault(shared, &node.show(name), error)),
    };
    let mut before = sys::facts_of_fd(&src).map_err(|error| read_fault(shared, &node.show(name), error))?;
    if before.kind != FileType::RegularFile {
        // It was replaced between the two looks. The next snapshot sees what it is now.
        return Ok(Became::Nothing);
    }
    if !node.fresh && keep(shared, worker, node, name, &src, &before)? {
        count(shared, before.size, 0, before.size);
        return Ok(Became::Copied);
    }
    let what = || format!("can't write {} in the copy", node.show(name));
    let dst = sys::create_file(&node.dst, name).writing(what)?;
    let mut torn = false;
    for attempt in 1..=TRIES {
        let mut moved = 0;
        let tell = |bytes| {
            moved += bytes;
            shared.moved(bytes, 0);
        };
        match data::copy(
            shared.what.job,
            &shared.able,
            &mut worker.buffer,
            &src,
            &dst,
            &before,
            tell,
        ) {
            Ok(()) => {}
            Err(why) => return Err(trouble(shared, &node.show(name), &why)),
        }
        shared.copied.fetch_add(moved, Ordering::Relaxed);
        let after = sys::facts_of_fd(&src).map_err(|error| read_fault(shared, &node.show(name), error))?;
        if after.unchanged_since(&before) || !shared.what.live {
            break;
        }
        // Removed or given another name: the content is what it was.
        if after.size == before.size && after.mtime == before.mtime && after.nlink != before.nlink {
            break;
        }
        torn = attempt == TRIES;
        if !torn {
            before = after;
            rustix::fs::ftruncate(&dst, 0).writing(what)?;
        }
    }
    attrs::apply(&src, &dst, &before, true, &shared.unset, || node.show(name))
        .map_err(|why| trouble(shared, &node.show(name), &why))?;
    if shared.what.live {
        let copy = sys::facts_of_fd(&dst).writing(what)?;
        if torn {
            shared.torn(node.show(name));
            before.size = copy.size;
        } else {
            worker.seen.push(Seen::new(&before, copy.ino));
        }
    }
    count(shared, before.size, 1, 0);
    Ok(Became::Copied)
}

/// Counts a file. `told` says that its bytes were told already.
fn count(shared: &Shared<'_>, size: u64, told: u64, reused: u64) {
    shared.files.fetch_add(1, Ordering::Relaxed);
    shared.bytes.fetch_add(size, Ordering::Relaxed);
    shared.reused.fetch_add(reused, Ordering::Relaxed);
    shared.moved(if told == 0 { size } else { 0 }, 1);
}

/// Links a file from the tree before, if that holds the same.
fn link_unchanged(
    shared: &Shared<'_>,
    worker: &mut Worker,
    node: &Node,
    name: &CString,
    facts: &Facts,
) -> Copied<bool> {
    let (Some(prev), Some(reuse)) = (&node.prev, &shared.what.reuse) else {
        return Ok(false);
    };
    let Ok(old) = sys::facts_at(prev, name) else {
        return Ok(false);
    };
    if old.kind != FileType::RegularFile
        || (old.size, old.mtime) != (facts.size, facts.mtime)
        || u64::from(old.nlink) + u64::from(facts.nlink) > MOST_LINKS
    {
        return Ok(false);
    }
    let known = match &reuse.vouch {
        Vouch::Index(index) => index.vouches(facts, old.ino),
        Vouch::Twin(_) => node
            .twin
            .as_ref()
            .is_some_and(|twin| sys::facts_at(twin, name).is_ok_and(|other| other.same_inode(facts))),
    };
    if !known && !compares(shared, worker, node, name, facts, prev)? {
        return Ok(false);
    }
    // Two files of the source must not become one, however equal they are.
    if *lock(&shared.claimed).entry(old.ino).or_insert(facts.ino) != facts.ino {
        return Ok(false);
    }
    if !node.fresh {
        remove::remove(shared.what.job, &node.dst, name).on(Side::To)?;
    }
    match rustix::fs::linkat(
        prev,
        name.as_c_str(),
        &node.dst,
        name.as_c_str(),
        AtFlags::empty(),
    ) {
        Ok(()) => {}
        // Too many names, another filesystem, or the kernel's protected_hardlinks: a copy is as good.
        Err(Errno::MLINK | Errno::XDEV | Errno::PERM | Errno::OPNOTSUPP | Errno::ACCESS | Errno::NOENT) => {
            return Ok(false);
        }
        Err(error) => {
            return Err(error).writing(|| format!("can't link {} in the copy", node.show(name)));
        }
    }
    if shared.what.live {
        worker.seen.push(Seen::new(facts, old.ino));
    }
    Ok(true)
}

/// Whether content and metadata are equal to those in the tree before, by reading both.
fn compares(
    shared: &Shared<'_>,
    worker: &mut Worker,
    node: &Node,
    name: &CString,
    facts: &Facts,
    prev: &OwnedFd,
) -> Copied<bool> {
    let (Ok(new), Ok(old)) = (sys::open_file(&node.src, name), sys::open_file(prev, name)) else {
        return Ok(false);
    };
    let what = || format!("can't compare {} with the snapshot before", node.show(name));
    let before = sys::facts_of_fd(&new).during(what).on(Side::From)?;
    let old_facts = sys::facts_of_fd(&old).writing(what)?;
    if !before.unchanged_since(facts)
        || !attrs::equal(&new, &before, &old, &old_facts)
            .during(what)
            .on(Side::From)?
    {
        return Ok(false);
    }
    let same = data::equal(shared.what.job, &mut worker.buffer, &new, &old, facts.size);
    if !same.map_err(|why| trouble(shared, &node.show(name), &why))? {
        return Ok(false);
    }
    let after = sys::facts_of_fd(&new).during(what).on(Side::From)?;
    Ok(after.unchanged_since(&before))
}

/// Keeps what an interrupted copy left, if it has the same content; otherwise makes room.
fn keep(
    shared: &Shared<'_>,
    worker: &mut Worker,
    node: &Node,
    name: &CString,
    src: &OwnedFd,
    facts: &Facts,
) -> Copied<bool> {
    let what = || format!("can't look at {} in the copy", node.show(name));
    let there = match sys::facts_at(&node.dst, name) {
        Ok(there) => there,
        Err(Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error).writing(what),
    };
    // More than one name: perhaps of a file outside. It is made anew, and linked as the source says.
    if there.kind == FileType::RegularFile
        && there.nlink == 1
        && there.size == facts.size
        && let Ok(dst) = sys::open_file(&node.dst, name)
        && data::equal(shared.what.job, &mut worker.buffer, src, &dst, facts.size)
            .map_err(|why| trouble(shared, &node.show(name), &why))?
    {
        attrs::apply(src, &dst, facts, false, &shared.unset, || node.show(name))
            .map_err(|why| trouble(shared, &node.show(name), &why))?;
        return Ok(true);
    }
    remove::remove(shared.what.job, &node.dst, name).on(Side::To)?;
    Ok(false)
}

fn symlink(shared: &Shared<'_>, node: &Node, name: &CString, facts: &Facts) -> Copied<Became> {
    let target = match rustix::fs::readlinkat(&node.src, name.as_c_str(), Vec::new()) {
        Ok(target) => target,
        Err(Errno::NOENT | Errno::INVAL) if shared.what.live => return Ok(Became::Nothing),
        Err(error) => return Err(read_fault(shared, &node.show(name), error)),
    };
    let what = || format!("can't make the link {} in the copy", node.show(name));
    if !node.fresh {
        remove::remove(shared.what.job, &node.dst, name).on(Side::To)?;
    }
    rustix::fs::symlinkat(target.as_c_str(), &node.dst, name.as_c_str()).writing(what)?;
    attrs::apply_at(&node.src, &node.dst, name, facts, &shared.unset, || {
        node.show(name)
    })
    .map_err(|why| trouble(shared, &node.show(name), &why))?;
    Ok(Became::Copied)
}

fn special(shared: &Shared<'_>, node: &Node, name: &CString, facts: &Facts) -> Copied<Became> {
    let what = || format!("can't make the special file {} in the copy", node.show(name));
    if !node.fresh {
        remove::remove(shared.what.job, &node.dst, name).on(Side::To)?;
    }
    let device = rustix::fs::makedev(facts.rdev.0, facts.rdev.1);
    match rustix::fs::mknodat(
        &node.dst,
        name.as_c_str(),
        facts.kind,
        Mode::RUSR | Mode::WUSR,
        device,
    ) {
        Ok(()) => {}
        Err(Errno::PERM) if facts.kind != FileType::Fifo => {
            shared.unset.device(|| node.show(name));
            return Ok(Became::Nothing);
        }
        Err(error) => return Err(error).writing(what),
    }
    attrs::apply_at(&node.src, &node.dst, name, facts, &shared.unset, || {
        node.show(name)
    })
    .map_err(|why| trouble(shared, &node.show(name), &why))?;
    Ok(Became::Copied)
}
