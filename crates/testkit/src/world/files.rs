//! [`Files`] over the world: what a service, or a suite, does to live and staged trees.

use std::path::{Path, PathBuf};

use super::World;
use super::tree::{Node, NodeKind, Tree};
use crate::files::{Files, Listing};

impl World {
    /// Changes the tree that a path is in; a directory that is nobody's dataset is made where there is none.
    fn with<R>(&self, path: &Path, change: impl FnOnce(&mut Tree, &Path) -> R) -> R {
        let mut state = self.lock();
        if state.resolve_mut(path).is_none() {
            let root = path.parent().unwrap_or(path).to_owned();
            state.plain.insert(root, Tree::empty());
        }
        match state.resolve_mut(path) {
            Some((tree, rel)) => change(tree, &rel),
            None => panic!("nothing can be written at {}", path.display()),
        }
    }

    fn put(&self, path: &Path, kind: NodeKind) {
        self.with(path, |tree, rel| tree.put(rel, Node::new(kind)));
    }

    fn found(&self, path: &Path) -> Option<(Tree, PathBuf)> {
        let (tree, rel) = self.lock().resolve(path)?;
        tree.get(&rel).is_some().then_some((tree, rel))
    }
}

impl Files for World {
    fn make_dir(&self, path: &Path) {
        if self.found(path).is_none() {
            if self.lock().resolve(path).is_some() {
                self.put(path, NodeKind::Dir);
            } else {
                self.lock().plain.insert(path.to_owned(), Tree::empty());
            }
        }
    }

    fn write(&self, path: &Path, bytes: &[u8]) {
        self.with(path, |tree, rel| {
            if !tree.overwrite(rel, bytes) {
                tree.put(
                    rel,
                    Node::new(NodeKind::File {
                        bytes: bytes.into(),
                        inode: 0,
                    }),
                );
            }
        });
    }

    fn write_at(&self, path: &Path, offset: usize, bytes: &[u8]) {
        let mut content = self.read(path).unwrap_or_default();
        let end = offset + bytes.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[offset..end].copy_from_slice(bytes);
        self.write(path, &content);
    }

    fn set_len(&self, path: &Path, len: u64) {
        let mut content = self.read(path).unwrap_or_default();
        content.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
        self.write(path, &content);
    }

    fn symlink(&self, target: &Path, path: &Path) {
        self.put(path, NodeKind::Symlink(target.to_owned()));
    }

    fn hard_link(&self, existing: &Path, path: &Path) {
        let linked = self.with(path, |tree, rel| {
            let root = path.ancestors().nth(rel.components().count()).unwrap_or(path);
            existing
                .strip_prefix(root)
                .is_ok_and(|from| tree.hard_link(from, rel))
        });
        assert!(
            linked,
            "{} can't be linked to {}",
            path.display(),
            existing.display()
        );
    }

    fn fifo(&self, path: &Path) {
        self.put(path, NodeKind::Fifo);
    }

    fn set_mode(&self, path: &Path, mode: u32) {
        let done = self.with(path, |tree, rel| tree.change(rel, |node| node.mode = mode));
        assert!(done, "{} is not there", path.display());
    }

    fn set_xattr(&self, path: &Path, name: &str, value: &[u8]) -> bool {
        self.with(path, |tree, rel| {
            tree.change(rel, |node| {
                node.xattrs.insert(name.to_owned(), value.to_vec());
            })
        })
    }

    fn rename(&self, from: &Path, to: &Path) {
        let Some((tree, rel)) = self.found(from) else {
            panic!("{} is not there", from.display());
        };
        let part = tree.part(&rel).unwrap_or_default();
        self.with(from, |tree, rel| tree.remove(rel));
        self.with(to, |tree, rel| {
            tree.remove(rel);
            tree.graft(rel, &part);
        });
    }

    fn remove(&self, path: &Path) {
        if self.found(path).is_some() {
            self.with(path, |tree, rel| tree.remove(rel));
        }
        self.lock().plain.remove(path);
    }

    fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let (tree, rel) = self.found(path)?;
        tree.bytes(&rel).map(|bytes| bytes.to_vec())
    }

    fn exists(&self, path: &Path) -> bool {
        self.found(path).is_some()
    }

    fn list(&self, root: &Path) -> Listing {
        self.found(root)
            .and_then(|(tree, rel)| tree.part(&rel))
            .map(|tree| tree.listing())
            .unwrap_or_default()
    }

    fn copy(&self, from: &Path, to: &Path) {
        let Some((tree, rel)) = self.found(from) else {
            panic!("{} is not there", from.display());
        };
        let part = tree.part(&rel).unwrap_or_default();
        self.make_dir(to);
        self.with(to, |tree, rel| tree.graft(rel, &part));
    }
}
