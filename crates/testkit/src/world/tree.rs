//! A filesystem tree in memory. Cheap to clone: a clone shares everything until one of the two is written to.
//!
//! It knows types, modes, attributes, and hard links; not owners, times or holes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reseed_core::digest::TreeDigest;
use reseed_core::point::Fingerprint;

use crate::files::{Entry, EntryKind, Listing};

/// A tree; its root is the entry with the empty path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree(Arc<BTreeMap<PathBuf, Node>>);

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// Permission bits.
    pub mode: u32,
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// A directory.
    Dir,
    /// A file.
    File {
        /// Its content.
        bytes: Arc<[u8]>,
        /// Which inode; names with the same one are one file. 0: it has one name.
        inode: u32,
    },
    /// A symbolic link.
    Symlink(PathBuf),
    /// A named pipe.
    Fifo,
}

impl Node {
    /// With the mode that a new entry gets.
    pub fn new(kind: NodeKind) -> Self {
        let mode = match kind {
            NodeKind::Dir => 0o755,
            NodeKind::Symlink(_) => 0o777,
            NodeKind::File { .. } | NodeKind::Fifo => 0o644,
        };
        Self {
            kind,
            mode,
            xattrs: BTreeMap::new(),
        }
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self::empty()
    }
}

impl Tree {
    /// A root and nothing else.
    pub fn empty() -> Self {
        Self(Arc::new(BTreeMap::from([(
            PathBuf::new(),
            Node::new(NodeKind::Dir),
        )])))
    }

    /// The entries, each directory before what is in it.
    pub fn entries(&self) -> &BTreeMap<PathBuf, Node> {
        &self.0
    }

    /// Whether it holds something that counts (S2).
    pub fn populated(&self) -> bool {
        self.0.keys().any(|path| {
            path.components()
                .next()
                .is_some_and(|first| first.as_os_str() != ".zfs" && first.as_os_str() != "lost+found")
        })
    }

    /// Entries besides the root.
    pub fn len(&self) -> usize {
        self.0.len() - 1
    }

    /// Whether there is nothing at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts an entry, with the directories above it. Something else in their place is replaced.
    pub fn put(&mut self, path: &Path, node: Node) {
        let map = Arc::make_mut(&mut self.0);
        for above in path
            .ancestors()
            .skip(1)
            .filter(|above| !above.as_os_str().is_empty())
        {
            let dir = map
                .entry(above.to_owned())
                .or_insert_with(|| Node::new(NodeKind::Dir));
            if dir.kind != NodeKind::Dir {
                *dir = Node::new(NodeKind::Dir);
            }
        }
        if node.kind != NodeKind::Dir && map.get(path).is_some_and(|old| old.kind == NodeKind::Dir) {
            map.retain(|other, _| !other.starts_with(path));
        }
        map.insert(path.to_owned(), node);
    }

    /// An entry.
    pub fn get(&self, path: &Path) -> Option<&Node> {
        self.0.get(path)
    }

    /// A file's content.
    pub fn bytes(&self, path: &Path) -> Option<&Arc<[u8]>> {
        match &self.0.get(path)?.kind {
            NodeKind::File { bytes, .. } => Some(bytes),
            _ => None,
        }
    }

    /// Writes a file in place: all its names see it. False when there is no such file.
    pub fn overwrite(&mut self, path: &Path, content: impl Into<Arc<[u8]>>) -> bool {
        let content: Arc<[u8]> = content.into();
        let Some(&Node {
            kind: NodeKind::File { inode, .. },
            ..
        }) = self.0.get(path)
        else {
            return false;
        };
        self.each_name(path, inode, |node| {
            if let NodeKind::File { bytes, .. } = &mut node.kind {
                *bytes = Arc::clone(&content);
            }
        });
        true
    }

    /// Changes what belongs to the inode rather than to the name.
    pub fn change(&mut self, path: &Path, change: impl Fn(&mut Node)) -> bool {
        let inode = match self.0.get(path) {
            None => return false,
            Some(Node {
                kind: NodeKind::File { inode, .. },
                ..
            }) => *inode,
            Some(_) => 0,
        };
        self.each_name(path, inode, change);
        true
    }

    fn each_name(&mut self, path: &Path, inode: u32, change: impl Fn(&mut Node)) {
        let map = Arc::make_mut(&mut self.0);
        if inode == 0 {
            if let Some(node) = map.get_mut(path) {
                change(node);
            }
            return;
        }
        for node in map.values_mut() {
            if matches!(node.kind, NodeKind::File { inode: other, .. } if other == inode) {
                change(node);
            }
        }
    }

    /// Gives a file a second name. False when there is no such file.
    pub fn hard_link(&mut self, existing: &Path, path: &Path) -> bool {
        let fresh = 1 + self.0.values().map(inode_of).max().unwrap_or(0);
        let map = Arc::make_mut(&mut self.0);
        let Some(Node {
            kind: NodeKind::File { inode, .. },
            ..
        }) = map.get_mut(existing)
        else {
            return false;
        };
        if *inode == 0 {
            *inode = fresh;
        }
        let node = map[existing].clone();
        self.put(path, node);
        true
    }

    /// Removes an entry with everything below it.
    pub fn remove(&mut self, path: &Path) -> bool {
        if !self.0.contains_key(path) || path.as_os_str().is_empty() {
            return false;
        }
        Arc::make_mut(&mut self.0).retain(|other, _| !other.starts_with(path));
        true
    }

    /// Takes an entry with everything below it out, as a tree of its own.
    pub fn part(&self, path: &Path) -> Option<Self> {
        self.0.get(path)?;
        let part = self
            .0
            .iter()
            .filter_map(|(other, node)| Some((other.strip_prefix(path).ok()?.to_owned(), node.clone())))
            .collect();
        Some(Self(Arc::new(part)))
    }

    /// Puts a tree below a path.
    pub fn graft(&mut self, path: &Path, tree: &Self) {
        for (rel, node) in tree.entries() {
            let whole = if rel.as_os_str().is_empty() {
                path.to_owned()
            } else {
                path.join(rel)
            };
            self.put(&whole, node.clone());
        }
    }

    /// Logical bytes of its files.
    pub fn size(&self) -> u64 {
        self.measure().1
    }

    /// Regular files, each name counted, and their bytes, those of hard links counted once.
    fn measure(&self) -> (u64, u64) {
        let (mut files, mut sum) = (0, 0);
        let mut seen = Vec::new();
        for node in self.0.values() {
            if let NodeKind::File { bytes, inode } = &node.kind {
                files += 1;
                if *inode == 0 || !seen.contains(inode) {
                    seen.push(*inode);
                    sum += bytes.len() as u64;
                }
            }
        }
        (files, sum)
    }

    /// The tree's fingerprint. Not that of `docs/digest.md`: an encoding of its own over the same facts, for trees that
    /// never leave the world.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut buffer = Vec::with_capacity(64 * self.0.len());
        let mut text = |bytes: &[u8]| {
            buffer.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            buffer.extend_from_slice(bytes);
        };
        let mut inodes = Vec::new();
        for (path, node) in self.0.iter() {
            text(path.as_os_str().as_encoded_bytes());
            text(&node.mode.to_le_bytes());
            for (name, value) in &node.xattrs {
                text(name.as_bytes());
                text(value);
            }
            match &node.kind {
                NodeKind::Dir => text(b"d"),
                NodeKind::Fifo => text(b"p"),
                NodeKind::Symlink(target) => {
                    text(b"l");
                    text(target.as_os_str().as_encoded_bytes());
                }
                NodeKind::File { bytes, inode } => {
                    text(b"f");
                    text(bytes);
                    let first = match inodes.iter().position(|other| other == inode) {
                        Some(first) if *inode != 0 => first,
                        _ => inodes.len(),
                    };
                    inodes.push(*inode);
                    text(&first.to_le_bytes());
                }
            }
        }
        let (files, bytes) = self.measure();
        Fingerprint {
            digest: TreeDigest::from_bytes(*blake3::hash(&buffer).as_bytes()),
            files,
            bytes,
        }
    }

    /// The tree as suites compare it.
    pub fn listing(&self) -> Listing {
        let mut first: BTreeMap<u32, PathBuf> = BTreeMap::new();
        let entry = |(path, node): (&PathBuf, &Node)| {
            let kind = match &node.kind {
                NodeKind::Dir => EntryKind::Dir,
                NodeKind::Fifo => EntryKind::Fifo,
                NodeKind::Symlink(target) => EntryKind::Symlink(target.clone()),
                NodeKind::File { bytes, inode } => EntryKind::File {
                    len: bytes.len() as u64,
                    hash: blake3::hash(bytes),
                    same_as: match first.get(inode) {
                        Some(first) => Some(first.clone()),
                        None => {
                            if *inode != 0 {
                                first.insert(*inode, path.clone());
                            }
                            None
                        }
                    },
                },
            };
            let entry = Entry {
                kind,
                mode: node.mode,
                xattrs: node.xattrs.clone(),
            };
            (path.clone(), entry)
        };
        self.0.iter().map(entry).collect()
    }
}

fn inode_of(node: &Node) -> u32 {
    match node.kind {
        NodeKind::File { inode, .. } => inode,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> Node {
        Node::new(NodeKind::File {
            bytes: bytes.into(),
            inode: 0,
        })
    }

    #[test]
    fn every_fact_is_in_the_fingerprint() {
        let mut base = Tree::empty();
        base.put(Path::new("a/b"), file(b"one"));
        base.put(Path::new("c"), file(b"one"));
        let mut seen = vec![base.fingerprint().digest];
        let mut differs = |tree: &Tree, what: &str| {
            let digest = tree.fingerprint().digest;
            assert!(!seen.contains(&digest), "{what}");
            seen.push(digest);
        };
        let with = |change: &dyn Fn(&mut Tree)| {
            let mut tree = base.clone();
            change(&mut tree);
            tree
        };
        differs(&with(&|t| t.put(Path::new("c"), file(b"two"))), "content");
        differs(
            &with(&|t| assert!(t.change(Path::new("c"), |n| n.mode = 0o600))),
            "mode",
        );
        differs(
            &with(&|t| assert!(t.hard_link(Path::new("c"), Path::new("d")))),
            "link",
        );
        differs(&with(&|t| t.put(Path::new("d"), file(b"one"))), "two files");
        differs(&with(&|t| assert!(t.remove(Path::new("c")))), "removed");
        differs(
            &with(&|t| assert!(t.change(Path::new(""), |n| n.mode = 0o700))),
            "root",
        );
        assert!(base.fingerprint() == base.clone().fingerprint());
    }

    #[test]
    fn a_clone_does_not_see_later_writes() {
        let mut live = Tree::empty();
        live.put(Path::new("a"), file(b"before"));
        live.hard_link(Path::new("a"), Path::new("b"));
        let snapshot = live.clone();
        assert!(live.overwrite(Path::new("b"), *b"after"));
        assert_eq!(live.bytes(Path::new("a")).unwrap().as_ref(), b"after");
        assert_eq!(snapshot.bytes(Path::new("a")).unwrap().as_ref(), b"before");
    }
}
