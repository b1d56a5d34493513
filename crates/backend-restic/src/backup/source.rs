//! Reads a directory tree for the archiver.
//!
//! A source of our own rather than the library's, because that one drops the root directory's metadata, swallows
//! errors, and lets the user's global gitignore exclude files. It emits the root first, under the name it has in
//! the recorded path, then everything below in the order that the format wants: by name, depth first.
//!
//! It stays on one file system: what is mounted inside shows up as the empty directory that it is mounted on. What
//! identifies a directory physically (inode, change time) is not recorded, so that the same tree read from another
//! place gives the same tree; files keep both, because they are how a changed file is recognised.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use rustic_core::repofile::{Metadata as NodeMeta, Node, NodeType};
use rustic_core::{ErrorKind, ReadSource, ReadSourceEntry, ReadSourceOpen, RusticError, RusticResult};
use rustix::fs::OFlags;

use super::findings::Findings;
use super::xattr;
use crate::error::EngineError;
use crate::mode;
use crate::store::Gate;

/// Inode of the control directory `.zfs`, which is not part of a dataset's data.
pub(crate) const ZFS_CONTROL_INODE: u64 = 0x0000_ffff_ffff_ffff;
/// All hard links of one backup are on one device; its number changes from snapshot to snapshot and is left out.
const HARD_LINK_DEVICE: u64 = 1;

/// Asked often; `true` ends the backup.
pub(crate) type Cancelled = Arc<dyn Fn() -> bool + Send + Sync>;

/// A tree to be backed up.
pub(crate) struct TreeSource {
    pub(crate) root: PathBuf,
    /// The root's name in the recorded path.
    pub(crate) name: OsString,
    pub(crate) findings: Arc<Findings>,
    pub(crate) cancelled: Cancelled,
    pub(crate) gate: Gate,
}

impl ReadSource for TreeSource {
    type Open = Opener;
    type Iter = Walk;

    fn size(&self) -> RusticResult<Option<u64>> {
        // Only for the progress bar, so errors don't matter here: the walk itself reports them.
        let mut bytes = 0_u64;
        let mut open = vec![self.root.clone()];
        while let Some(dir) = open.pop() {
            if (self.cancelled)() {
                return Ok(None);
            }
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                match entry.metadata() {
                    Ok(meta) if meta.is_dir() => open.push(entry.path()),
                    Ok(meta) if meta.is_file() => bytes = bytes.saturating_add(meta.len()),
                    _ => {}
                }
            }
        }
        Ok(Some(bytes))
    }

    fn entries(&self) -> Walk {
        Walk {
            start: Some((self.root.clone(), self.name.clone())),
            levels: Vec::new(),
            device: 0,
            findings: Arc::clone(&self.findings),
            cancelled: Arc::clone(&self.cancelled),
            gate: self.gate.clone(),
        }
    }
}

/// The entries of a tree, in order.
pub(crate) struct Walk {
    start: Option<(PathBuf, OsString)>,
    levels: Vec<Level>,
    device: u64,
    findings: Arc<Findings>,
    cancelled: Cancelled,
    gate: Gate,
}

struct Level {
    dir: PathBuf,
    /// Descending, so that popping gives them in order.
    names: Vec<OsString>,
}

type Entry = ReadSourceEntry<Opener>;

impl Iterator for Walk {
    type Item = RusticResult<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if (self.cancelled)() {
                // The archiver takes an ended source for a complete one; a closed gate keeps it from finishing.
                self.gate.close(EngineError::Cancelled);
                return None;
            }
            let (path, name, is_root) = match self.start.take() {
                Some((path, name)) => (path, name, true),
                None => {
                    let level = self.levels.last_mut()?;
                    match level.names.pop() {
                        Some(name) => (level.dir.join(&name), name, false),
                        None => {
                            self.levels.pop();
                            continue;
                        }
                    }
                }
            };
            match self.entry(&path, &name, is_root) {
                Ok(Some(entry)) => return Some(Ok(entry)),
                Ok(None) => {}
                Err(error) => self.findings.add(&path, error),
            }
        }
    }
}

impl Walk {
    fn entry(&mut self, path: &Path, name: &OsString, is_root: bool) -> io::Result<Option<Entry>> {
        let stat = std::fs::symlink_metadata(path)?;
        if is_root {
            self.device = stat.dev();
        }
        if stat.is_dir() && stat.ino() == ZFS_CONTROL_INODE && name == ".zfs" {
            return Ok(None);
        }
        let kind = kind_of(path, &stat)?;
        let attributes = xattr::read(path).unwrap_or_else(|error| {
            self.findings.add(path, format!("extended attributes: {error}"));
            Vec::new()
        });
        let mut node = Node::new_node(name, kind, node_meta(&stat));
        node.meta.extended_attributes = attributes;
        if stat.is_dir() {
            if stat.dev() == self.device {
                self.descend(path);
            }
            return Ok(Some(ReadSourceEntry {
                path: path.to_path_buf(),
                node,
                open: None,
            }));
        }
        self.findings.emitted.fetch_add(1, Ordering::Relaxed);
        let open = Opener {
            path: path.to_path_buf(),
            size: stat.len(),
            findings: Arc::clone(&self.findings),
            cancelled: Arc::clone(&self.cancelled),
        };
        Ok(Some(ReadSourceEntry {
            path: path.to_path_buf(),
            node,
            open: Some(open),
        }))
    }

    fn descend(&mut self, dir: &Path) {
        let mut names = Vec::new();
        match std::fs::read_dir(dir) {
            Ok(entries) => {
                for entry in entries {
                    match entry {
                        Ok(entry) => names.push(entry.file_name()),
                        Err(error) => self.findings.add(dir, format!("listing it: {error}")),
                    }
                }
            }
            Err(error) => self.findings.add(dir, format!("listing it: {error}")),
        }
        names.sort_unstable_by(|a, b| b.as_bytes().cmp(a.as_bytes()));
        self.levels.push(Level {
            dir: dir.to_path_buf(),
            names,
        });
    }
}

fn kind_of(path: &Path, stat: &Metadata) -> io::Result<NodeType> {
    let kind = stat.file_type();
    Ok(if kind.is_dir() {
        NodeType::Dir
    } else if kind.is_symlink() {
        NodeType::from_link(&std::fs::read_link(path)?)
    } else if kind.is_block_device() {
        NodeType::Dev { device: stat.rdev() }
    } else if kind.is_char_device() {
        NodeType::Chardev { device: stat.rdev() }
    } else if kind.is_fifo() {
        NodeType::Fifo
    } else if kind.is_socket() {
        NodeType::Socket
    } else {
        NodeType::File
    })
}

fn node_meta(stat: &Metadata) -> NodeMeta {
    let kind = stat.file_type();
    let go_kind = if kind.is_dir() {
        mode::GO_DIR
    } else if kind.is_symlink() {
        mode::GO_SYMLINK
    } else if kind.is_block_device() {
        mode::GO_DEVICE
    } else if kind.is_char_device() {
        mode::GO_DEVICE | mode::GO_CHAR_DEVICE
    } else if kind.is_fifo() {
        mode::GO_FIFO
    } else if kind.is_socket() {
        mode::GO_SOCKET
    } else {
        0
    };
    let modified = timestamp(stat.mtime(), stat.mtime_nsec());
    let linked = !stat.is_dir() && stat.nlink() > 1;
    NodeMeta {
        mode: Some(mode::to_go(stat.mode()) | go_kind),
        mtime: modified,
        // Reading for a backup moves the access time, so recording it would change every tree.
        atime: modified,
        ctime: if stat.is_dir() {
            None
        } else {
            timestamp(stat.ctime(), stat.ctime_nsec())
        },
        uid: Some(stat.uid()),
        gid: Some(stat.gid()),
        user: None,
        group: None,
        inode: if stat.is_dir() { 0 } else { stat.ino() },
        device_id: if linked { HARD_LINK_DEVICE } else { 0 },
        size: if stat.is_file() { stat.len() } else { 0 },
        links: if stat.is_dir() { 0 } else { stat.nlink() },
        extended_attributes: Vec::new(),
    }
}

fn timestamp(seconds: i64, nanoseconds: i64) -> Option<Timestamp> {
    Timestamp::new(seconds, i32::try_from(nanoseconds).ok()?).ok()
}

/// Opens one file when its turn comes.
pub(crate) struct Opener {
    path: PathBuf,
    size: u64,
    findings: Arc<Findings>,
    cancelled: Cancelled,
}

impl ReadSourceOpen for Opener {
    type Reader = CountingReader;

    fn open(self) -> RusticResult<CountingReader> {
        // Neither followed nor waited for: it was a regular file a moment ago.
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
        match File::options().read(true).custom_flags(flags).open(&self.path) {
            Ok(file) => Ok(CountingReader {
                file,
                read: 0,
                failed: false,
                of: self,
            }),
            Err(error) => {
                self.findings.add(&self.path, &error);
                self.findings.dropped.fetch_add(1, Ordering::Relaxed);
                Err(RusticError::with_source(
                    ErrorKind::InputOutput,
                    "cannot open a file",
                    error,
                ))
            }
        }
    }
}

/// Reads one file and notices when that does not go as its size promised.
pub(crate) struct CountingReader {
    file: File,
    read: u64,
    failed: bool,
    of: Opener,
}

impl Read for CountingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if (self.of.cancelled)() {
            return Err(io::Error::other("cancelled"));
        }
        match self.file.read(buffer) {
            Ok(0) if !buffer.is_empty() => {
                if self.read != self.of.size && !self.failed {
                    self.failed = true;
                    let (read, size) = (self.read, self.of.size);
                    self.of.findings.add(
                        &self.of.path,
                        format!("changed while it was read: {read} bytes instead of {size}"),
                    );
                }
                Ok(0)
            }
            Ok(count) => {
                self.read += count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                if !self.failed {
                    self.failed = true;
                    self.of.findings.add(&self.of.path, &error);
                    self.of.findings.dropped.fetch_add(1, Ordering::Relaxed);
                }
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(root: &Path) -> TreeSource {
        TreeSource {
            root: root.to_path_buf(),
            name: "recorded".into(),
            findings: Arc::default(),
            cancelled: Arc::new(|| false),
            gate: Gate::default(),
        }
    }

    #[test]
    fn the_root_comes_first_under_its_recorded_name_and_the_rest_in_order() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("b")).unwrap();
        for name in ["c", "a", "b/2", "b/1", "B"] {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        let entries: Vec<_> = source(dir.path())
            .entries()
            .map(|entry| entry.ok().unwrap().node.name)
            .collect();
        assert_eq!(entries, ["recorded", "B", "a", "b", "1", "2", "c"]);
    }

    #[test]
    fn an_entry_that_vanished_is_counted_and_the_walk_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        let source = source(dir.path());
        let mut walk = source.entries();
        assert!(walk.next().is_some());
        std::fs::remove_file(dir.path().join("b")).unwrap();
        let rest: Vec<_> = walk.map(|entry| entry.ok().unwrap().node.name).collect();
        assert_eq!(rest, ["a", "c"]);
        assert_eq!(source.findings.count(), 1);
        assert!(
            source.findings.named()[0].contains("/b: "),
            "{:?}",
            source.findings.named()
        );
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_counted_and_one_that_changed_too() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("short"), b"123").unwrap();
        let source = source(dir.path());
        let opener = |name: &str, size| Opener {
            path: dir.path().join(name),
            size,
            findings: Arc::clone(&source.findings),
            cancelled: Arc::new(|| false),
        };
        assert!(opener("gone", 1).open().is_err());
        assert_eq!(
            (
                source.findings.count(),
                source.findings.dropped.load(Ordering::Relaxed)
            ),
            (1, 1)
        );
        let mut content = Vec::new();
        opener("short", 4)
            .open()
            .ok()
            .unwrap()
            .read_to_end(&mut content)
            .unwrap();
        assert_eq!(content, b"123");
        assert_eq!(
            (
                source.findings.count(),
                source.findings.dropped.load(Ordering::Relaxed)
            ),
            (2, 1)
        );
        opener("short", 3)
            .open()
            .ok()
            .unwrap()
            .read_to_end(&mut content)
            .unwrap();
        assert_eq!(source.findings.count(), 2);
    }

    #[test]
    fn a_file_replaced_by_a_link_or_pipe_is_neither_followed_nor_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join("link")).unwrap();
        let source = source(dir.path());
        let opener = Opener {
            path: dir.path().join("link"),
            size: 1,
            findings: Arc::clone(&source.findings),
            cancelled: Arc::new(|| false),
        };
        assert!(opener.open().is_err());
    }

    #[test]
    fn cancelling_ends_the_walk_and_closes_the_gate() {
        let dir = tempfile::tempdir().unwrap();
        let source = TreeSource {
            cancelled: Arc::new(|| true),
            ..source(dir.path())
        };
        assert!(source.entries().next().is_none());
        assert_eq!(source.gate.check(), Err(EngineError::Cancelled));
    }
}
