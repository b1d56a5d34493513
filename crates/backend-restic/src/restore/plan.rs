//! What a restore has to make: a list of directories, files, other entries and hard links, and for every piece of
//! file content the place in a pack where it lies.
//!
//! Building it reads trees and the index and writes nothing. All names are checked here, so that nothing after this
//! has to think about where a path leads. Entries are compact, because a snapshot may hold millions.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustic_core::repofile::{BlobType, Node, NodeType, Tree};
use rustic_core::{BlobId, DataId, Id, IndexedFullStatus, PackedId, Repository, TreeId};

use super::ahead::Ahead;
use super::detours::Detours;
use super::names;
use super::parsed::{Parsed, read_tree};
use crate::cipher::Cipher;
use crate::error::{EngineError, Result};
use crate::mode;
use crate::pack::{Location, Unsealer, raw_id};
use crate::place::{Entry, Levels};
use crate::store::Store;

/// Metadata of one entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Permission bits; none when the writer did not record any.
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    /// Seconds and nanoseconds.
    pub(crate) modified: Option<(i64, i32)>,
    pub(crate) accessed: Option<(i64, i32)>,
    pub(crate) attributes: Vec<(String, Vec<u8>)>,
}

#[derive(Debug)]
pub(crate) struct Dir {
    pub(crate) path: PathBuf,
    /// None for directories that only lead to what was asked for and for a root that was not recorded.
    pub(crate) meta: Option<Meta>,
}

#[derive(Debug)]
pub(crate) struct File {
    pub(crate) dir: u32,
    pub(crate) name: OsString,
    pub(crate) meta: Meta,
    pub(crate) size: u64,
    /// Its pieces in [`Plan::pieces`].
    pub(crate) pieces: std::ops::Range<u32>,
    /// More names are to point at it.
    pub(crate) linked: bool,
}

#[derive(Debug)]
pub(crate) struct Other {
    pub(crate) dir: u32,
    pub(crate) name: OsString,
    pub(crate) meta: Meta,
    pub(crate) kind: OtherKind,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OtherKind {
    Symlink(Vec<u8>),
    Block(u64),
    Char(u64),
    Fifo,
    Socket,
}

/// Another name for something that was restored under its first.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) dir: u32,
    pub(crate) name: OsString,
    pub(crate) first: First,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    File(u32),
    Other(u32),
}

/// A piece of a file's content.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) id: [u8; 32],
    pub(crate) pack: u32,
    pub(crate) at: Location,
    pub(crate) plain_len: u32,
    pub(crate) file: u32,
    pub(crate) file_offset: u64,
}

impl Piece {
    /// The pack, and where in it.
    pub(crate) fn place(&self) -> (u32, Location) {
        (self.pack, self.at)
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// The first is the target itself; every directory comes after the one it is in.
    pub(crate) dirs: Vec<Dir>,
    pub(crate) files: Vec<File>,
    pub(crate) others: Vec<Other>,
    pub(crate) links: Vec<Link>,
    /// In the order of the files, and within a file from its beginning.
    pub(crate) pieces: Vec<Piece>,
    /// In the order of first use, which is about the order in which they were written.
    pub(crate) packs: Vec<Id>,
    pub(crate) bytes: u64,
}

impl Plan {
    pub(crate) fn path(&self, dir: u32, name: &OsStr) -> PathBuf {
        self.dirs[dir as usize].path.join(name)
    }

    pub(crate) fn file_path(&self, file: u32) -> PathBuf {
        let file = &self.files[file as usize];
        self.path(file.dir, &file.name)
    }
}

/// What to restore.
#[derive(Debug)]
pub(crate) struct Selection<'a> {
    /// The snapshot's tree.
    pub(crate) tree: TreeId,
    /// The path in it that becomes the target.
    pub(crate) root: &'a Path,
    /// Below that, the only path that is wanted; it keeps its relative place.
    pub(crate) only: Option<&'a Path>,
}

/// Reads trees and looks up blobs.
pub(crate) struct Planner<'a> {
    store: &'a Store,
    index: &'a Repository<IndexedFullStatus>,
    cipher: &'a Cipher,
    detours: &'a Detours,
    unsealer: Unsealer,
    ahead: Ahead,
    parsed: Parsed,
    plan: Plan,
    pack_numbers: HashMap<Id, u32>,
    /// What has more than one name, by inode and device, with the content to compare.
    linked: HashMap<(u64, u64), (First, Vec<DataId>)>,
}

impl<'a> Planner<'a> {
    pub(crate) fn new(
        store: &'a Store,
        index: &'a Repository<IndexedFullStatus>,
        cipher: &'a Cipher,
        detours: &'a Detours,
    ) -> Result<Self> {
        Ok(Self {
            store,
            index,
            cipher,
            detours,
            unsealer: Unsealer::new(cipher.clone())?,
            ahead: Ahead::default(),
            parsed: Parsed::default(),
            plan: Plan::default(),
            pack_numbers: HashMap::new(),
            linked: HashMap::new(),
        })
    }

    pub(crate) fn build(mut self, selection: &Selection<'_>) -> Result<Plan> {
        let (root_tree, root_meta) = self.find_root(selection)?;
        self.plan.dirs.push(Dir {
            path: PathBuf::new(),
            meta: root_meta,
        });
        match selection.only {
            None => self.walk(0, root_tree)?,
            Some(only) => self.walk_only(root_tree, only)?,
        }
        Ok(self.plan)
    }

    /// The tree that becomes the target, with its own metadata where that was recorded.
    fn find_root(&mut self, selection: &Selection<'_>) -> Result<(TreeId, Option<Meta>)> {
        let mut tree = selection.tree;
        let mut meta = None;
        let parts: Vec<_> = selection.root.components().collect();
        let empty = |what: String| EngineError::EmptyResult { what };
        for part in parts {
            let at = selection.root.display();
            let node = self
                .tree(tree, selection.root)?
                .nodes
                .into_iter()
                .find(|node| *node.name() == *part.as_os_str())
                .ok_or_else(|| empty(format!("the snapshot does not hold {at}")))?;
            tree = node
                .subtree
                .ok_or_else(|| empty(format!("{at} is not a directory in the snapshot")))?;
            meta = Some(meta_of(&node));
        }
        Ok((tree, meta))
    }

    fn walk_only(&mut self, mut tree: TreeId, only: &Path) -> Result<()> {
        let parts = names::components(only)
            .filter(|parts| !parts.is_empty())
            .ok_or_else(|| EngineError::Invalid {
                detail: format!("{} is not a plain relative path", only.display()),
            })?;
        let mut dir = 0;
        for (depth, part) in parts.iter().enumerate() {
            let node = self
                .tree(tree, only)?
                .nodes
                .into_iter()
                .find(|node| *node.name() == **part)
                .ok_or_else(|| EngineError::EmptyResult {
                    what: format!("the snapshot does not hold {}", only.display()),
                })?;
            let last = depth + 1 == parts.len();
            if last || node.subtree.is_none() {
                if !last {
                    let what = format!(
                        "{} leads through something that is not a directory",
                        only.display()
                    );
                    return Err(EngineError::EmptyResult { what });
                }
                if let Some((dir, tree)) = self.add(dir, &node)? {
                    self.walk(dir, tree)?;
                }
                return Ok(());
            }
            match self.add(dir, &node)? {
                Some((below, subtree)) => (dir, tree) = (below, subtree),
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Adds everything below `tree`, without recursion: depth is the repository's choice.
    fn walk(&mut self, dir: u32, tree: TreeId) -> Result<()> {
        let mut open = vec![(dir, tree)];
        while let Some((dir, tree)) = open.pop() {
            let upcoming = || std::iter::once(tree).chain(open.iter().rev().map(|(_, tree)| *tree));
            let (index, detours) = (self.index, self.detours);
            let place = |id: &TreeId| detours.place(index, id);
            self.ahead.read(self.store, &self.parsed, upcoming(), place);
            self.parsed
                .read(self.store, self.cipher, &mut self.ahead, upcoming(), place);
            let path = self.plan.dirs[dir as usize].path.clone();
            let nodes = self.tree(tree, &path)?.nodes;
            let mut seen = HashSet::with_capacity(nodes.len());
            let mut below = Vec::new();
            for node in nodes {
                let name = node.name().into_owned();
                if !seen.insert(name.clone()) {
                    return Err(unsafe_name(&path, &name, "it is there twice"));
                }
                below.extend(self.add(dir, &node)?);
            }
            // Popped in order, so that packs are met in the order in which they were written.
            open.extend(below.into_iter().rev());
        }
        Ok(())
    }

    /// Adds one entry; a directory's number and tree come back.
    fn add(&mut self, dir: u32, node: &Node) -> Result<Option<(u32, TreeId)>> {
        let name = node.name().into_owned();
        let parent = &self.plan.dirs[dir as usize].path;
        if let Some(problem) = names::problem(&name) {
            return Err(unsafe_name(parent, &name, problem));
        }
        let path = parent.join(&name);
        let meta = meta_of(node);
        let kind = match &node.node_type {
            NodeType::Dir => {
                let tree = node.subtree.ok_or_else(|| EngineError::Unreadable {
                    what: format!("the directory {}", path.display()),
                    detail: "it has no tree".into(),
                })?;
                let number = count(self.plan.dirs.len())?;
                self.plan.dirs.push(Dir {
                    path,
                    meta: Some(meta),
                });
                return Ok(Some((number, tree)));
            }
            NodeType::File => {
                self.add_file(dir, name, meta, node, &path)?;
                return Ok(None);
            }
            NodeType::Symlink { .. } => {
                OtherKind::Symlink(node.node_type.to_link().as_os_str().as_bytes().to_vec())
            }
            NodeType::Dev { device } => OtherKind::Block(*device),
            NodeType::Chardev { device } => OtherKind::Char(*device),
            NodeType::Fifo => OtherKind::Fifo,
            NodeType::Socket => OtherKind::Socket,
        };
        if let Some((First::Other(first), _)) = self.first_of(node)
            && self.plan.others[*first as usize].kind == kind
        {
            let first = First::Other(*first);
            self.plan.links.push(Link { dir, name, first });
            return Ok(None);
        }
        let number = count(self.plan.others.len())?;
        self.remember_first(node, First::Other(number), Vec::new());
        self.plan.others.push(Other {
            dir,
            name,
            meta,
            kind,
        });
        Ok(None)
    }

    fn add_file(&mut self, dir: u32, name: OsString, meta: Meta, node: &Node, path: &Path) -> Result<()> {
        let content = node.content.clone().unwrap_or_default();
        // The same inode with another content is a coincidence of two file systems, or a lie.
        if let Some((First::File(first), same)) = self.first_of(node)
            && *same == content
        {
            let first = *first;
            self.plan.files[first as usize].linked = true;
            self.plan.links.push(Link {
                dir,
                name,
                first: First::File(first),
            });
            return Ok(());
        }
        let file = count(self.plan.files.len())?;
        let begin = count(self.plan.pieces.len())?;
        let mut size = 0_u64;
        for id in &content {
            let (pack, at) = self.locate(id, path)?;
            let plain_len = at.plain_len().ok_or_else(|| EngineError::Unreadable {
                what: format!("the index entry of blob {}", id.to_hex().as_str()),
                detail: "its length is impossible".into(),
            })?;
            self.plan.pieces.push(Piece {
                id: raw_id(id)?,
                pack,
                at,
                plain_len,
                file,
                file_offset: size,
            });
            size += u64::from(plain_len);
        }
        self.remember_first(node, First::File(file), content);
        let end = count(self.plan.pieces.len())?;
        self.plan.bytes += size;
        self.plan.files.push(File {
            dir,
            name,
            meta,
            size,
            pieces: begin..end,
            linked: false,
        });
        Ok(())
    }

    fn first_of(&self, node: &Node) -> Option<&(First, Vec<DataId>)> {
        (node.meta.links > 1)
            .then(|| self.linked.get(&(node.meta.inode, node.meta.device_id)))
            .flatten()
    }

    fn remember_first(&mut self, node: &Node, first: First, content: Vec<DataId>) {
        if node.meta.links > 1 {
            self.linked
                .entry((node.meta.inode, node.meta.device_id))
                .or_insert((first, content));
        }
    }

    fn locate<T: PackedId>(&mut self, id: &T, path: &Path) -> Result<(u32, Location)> {
        let (pack, at) = self.detours.place(self.index, id).ok_or_else(|| {
            let blob: BlobId = (*id).into();
            EngineError::MissingBlob {
                what: if T::TYPE == BlobType::Tree { "tree" } else { "data" }.into(),
                blob: blob.to_hex().to_string(),
                path: if path.as_os_str().is_empty() {
                    "the root".into()
                } else {
                    path.display().to_string()
                },
            }
        })?;
        let next = count(self.plan.packs.len())?;
        let number = *self.pack_numbers.entry(pack).or_insert(next);
        if number == next {
            self.plan.packs.push(pack);
        }
        Ok((number, at))
    }

    fn tree(&mut self, id: TreeId, path: &Path) -> Result<Tree> {
        let (pack, at) = self.locate(&id, path)?;
        if let Some(tree) = self.parsed.take(&id) {
            return Ok(tree);
        }
        let pack = self.plan.packs[pack as usize];
        let at_path = |error| match error {
            EngineError::CorruptPack { pack, detail, .. } => EngineError::CorruptPack {
                pack,
                detail: format!("{detail} (a directory)"),
                files: vec![path.display().to_string()],
                more: 0,
            },
            other => other,
        };
        let sealed = self.ahead.take(&id);
        let plain = read_tree(self.store, &mut self.unsealer, sealed, &pack, at, id);
        serde_json::from_slice(&plain.map_err(at_path)?).map_err(|error| EngineError::Unreadable {
            what: format!("the directory {}", path.display()),
            detail: error.to_string(),
        })
    }
}

impl Levels for Planner<'_> {
    fn level(&mut self, tree: TreeId, path: &Path) -> Result<Vec<Entry>> {
        let read = self.tree(tree, path)?;
        let entries = read.nodes.iter();
        let entries = entries
            .map(|node| (node.name().into_owned(), node.subtree))
            .collect();
        // Whoever goes down the same way reads them again.
        let (_, at) = self.locate(&tree, path)?;
        self.parsed
            .keep(tree, read, at.plain_len().unwrap_or(u32::MAX).into());
        Ok(entries)
    }
}

fn count(length: usize) -> Result<u32> {
    u32::try_from(length).map_err(|_| EngineError::Invalid {
        detail: "more than 2^32 entries".into(),
    })
}

fn unsafe_name(parent: &Path, name: &OsStr, detail: &str) -> EngineError {
    EngineError::UnsafeName {
        parent: parent.display().to_string(),
        name: name.to_string_lossy().into_owned(),
        detail: detail.to_owned(),
    }
}

pub(crate) fn meta_of(node: &Node) -> Meta {
    let time = |time: jiff::Timestamp| {
        // A timestamp before 1970 has negative nanoseconds; the kernel wants them from 0.
        let (mut seconds, mut nanoseconds) = (time.as_second(), time.subsec_nanosecond());
        if nanoseconds < 0 {
            seconds -= 1;
            nanoseconds += 1_000_000_000;
        }
        (seconds, nanoseconds)
    };
    Meta {
        mode: node.meta.mode.map(mode::from_go),
        uid: node.meta.uid,
        gid: node.meta.gid,
        modified: node.meta.mtime.map(time),
        accessed: node.meta.atime.map(time),
        attributes: node
            .meta
            .extended_attributes
            .iter()
            .map(|attribute| {
                (
                    attribute.name.clone(),
                    attribute.value.clone().unwrap_or_default(),
                )
            })
            .collect(),
    }
}
