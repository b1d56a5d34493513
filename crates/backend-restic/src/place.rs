//! Where in a snapshot's tree the data of a path lies. Knows trees only as levels of names, and reads few of them.
//!
//! restic records absolute paths whatever it was given, and stores the tree as it was given. So one recorded path,
//! `/srv/live/app`, may stand for a tree that begins
//! - with `srv`: `restic backup /srv/live/app`;
//! - with `live` or `app`: `restic backup live/app` in `/srv`, `restic backup app` (or `../app`) near it;
//! - with what is in `app`: `restic backup .` in it.
//!
//! The rule, for a single recorded path:
//! 1. Where the whole path leads to something in the tree, that is it.
//! 2. Otherwise the longest end of the path that the tree begins with, each of its levels holding exactly one entry, of
//!    that name. A relative path leaves nothing beside itself on the way down.
//! 3. Otherwise the tree itself is the data.
//!
//! Nothing in a snapshot tells `restic backup app` from `restic backup .` in an `app` that holds a directory `app` and
//! nothing else. The former is taken for it: it is what people do, and the latter would lose nothing but a level.
//!
//! Of several recorded paths each keeps its place, but never the top. A relative one is believed only when all that is
//! at the top is named in a recorded path: with `.` among them there would be no telling whose entry is whose.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rustic_core::TreeId;

use crate::error::Result;

/// An entry of a tree, and what is below it where it is a directory.
pub(crate) type Entry = (OsString, Option<TreeId>);

/// Where the rules read trees.
pub(crate) trait Levels {
    /// The entries of one tree, which is at this path in the snapshot.
    fn level(&mut self, tree: TreeId, path: &Path) -> Result<Vec<Entry>>;
}

#[derive(PartialEq, Eq)]
enum Found {
    Directory(TreeId),
    Other,
    Nothing,
}

fn walk(levels: &mut impl Levels, mut tree: TreeId, path: &Path) -> Result<Found> {
    let mut parts = path.iter().peekable();
    let mut at = PathBuf::new();
    while let Some(part) = parts.next() {
        let entries = levels.level(tree, &at)?;
        at.push(part);
        match entries.into_iter().find(|(name, _)| name == part) {
            Some((_, Some(below))) => tree = below,
            Some((_, None)) if parts.peek().is_none() => return Ok(Found::Other),
            _ => return Ok(Found::Nothing),
        }
    }
    Ok(Found::Directory(tree))
}

fn is_directory(levels: &mut impl Levels, tree: TreeId, path: &Path) -> Result<bool> {
    Ok(matches!(walk(levels, tree, path)?, Found::Directory(_)))
}

/// The place of the only path that was recorded, by the module's rule. What is there need not be a directory.
pub(crate) fn of_single(levels: &mut impl Levels, tree: TreeId, recorded: &str) -> Result<PathBuf> {
    let full = below_root(Path::new(recorded));
    if walk(levels, tree, &full)? != Found::Nothing {
        return Ok(full);
    }
    let parts: Vec<&OsStr> = full.iter().collect();
    let (mut chain, mut at, mut below) = (Vec::new(), PathBuf::new(), tree);
    while chain.len() < parts.len() {
        let mut entries = levels.level(below, &at)?;
        let Some((name, Some(next))) = entries.pop().filter(|_| entries.is_empty()) else {
            break;
        };
        at.push(&name);
        chain.push(name);
        below = next;
    }
    let fits = |length: &usize| chain[..*length] == parts[parts.len() - *length..];
    let longest = (1..=chain.len()).rev().find(fits).unwrap_or(0);
    Ok(chain[..longest].iter().collect())
}

/// The place of an absolute path that is one of the recorded ones or below one. `None` when the tree has no directory
/// for it.
pub(crate) fn of_path(
    levels: &mut impl Levels,
    tree: TreeId,
    recorded: &[String],
    wanted: &Path,
) -> Result<Option<PathBuf>> {
    let full = below_root(wanted);
    if is_directory(levels, tree, &full)? {
        return Ok(Some(full));
    }
    let mut covering: Vec<&String> = recorded
        .iter()
        .filter(|path| wanted.starts_with(path.as_str()))
        .collect();
    covering.sort_unstable_by_key(|path| std::cmp::Reverse(path.len()));
    if recorded.len() > 1 {
        let named = |name: &OsStr| {
            recorded
                .iter()
                .any(|path| Path::new(path).iter().any(|part| part == name))
        };
        let top = levels.level(tree, Path::new(""))?;
        if !top.iter().all(|(name, _)| named(name)) {
            return Ok(None);
        }
    }
    for path in covering {
        let rest = wanted.strip_prefix(path).unwrap_or(Path::new(""));
        let bases = if recorded.len() == 1 {
            vec![of_single(levels, tree, path)?]
        } else {
            let full = below_root(Path::new(path));
            let parts: Vec<&OsStr> = full.iter().collect();
            (1..parts.len())
                .map(|from| parts[from..].iter().collect())
                .collect()
        };
        for base in bases {
            let place: PathBuf = base.iter().chain(rest).collect();
            if is_directory(levels, tree, &place)? {
                return Ok(Some(place));
            }
        }
    }
    Ok(None)
}

/// `path` relative to the root directory.
fn below_root(path: &Path) -> PathBuf {
    path.components()
        .filter(|part| matches!(part, std::path::Component::Normal(_)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Trees made of paths; one that ends in a slash is a directory.
    #[derive(Default)]
    struct Made(BTreeMap<TreeId, BTreeMap<OsString, Option<TreeId>>>, u8);

    impl Made {
        fn of(paths: &[&str]) -> (Self, TreeId) {
            let mut made = Self::default();
            let root = made.fresh();
            for path in paths {
                let mut tree = root;
                let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
                for (depth, part) in parts.iter().enumerate() {
                    let leaf = depth + 1 == parts.len() && !path.ends_with('/');
                    let known = made.0[&tree].get(OsStr::new(part)).copied().flatten();
                    let below = if leaf {
                        None
                    } else {
                        Some(known.unwrap_or_else(|| made.fresh()))
                    };
                    made.0.get_mut(&tree).unwrap().insert(part.into(), below);
                    let Some(below) = below else { break };
                    tree = below;
                }
            }
            (made, root)
        }

        fn fresh(&mut self) -> TreeId {
            self.1 += 1;
            let id: rustic_core::Id = format!("{:02x}", self.1).repeat(32).parse().unwrap();
            self.0.insert(id.into(), BTreeMap::new());
            id.into()
        }
    }

    impl Levels for Made {
        fn level(&mut self, tree: TreeId, _path: &Path) -> Result<Vec<Entry>> {
            Ok(self.0[&tree].clone().into_iter().collect())
        }
    }

    const APP: &str = "/srv/live/app";

    fn single(paths: &[&str]) -> String {
        let (mut made, root) = Made::of(paths);
        of_single(&mut made, root, APP).unwrap().display().to_string()
    }

    #[test]
    fn one_path_is_found_however_it_was_given() {
        assert_eq!(single(&["srv/live/app/f"]), "srv/live/app");
        // Others beside it on the way down: still the recorded path.
        assert_eq!(single(&["srv/live/app/f", "srv/x", "y/"]), "srv/live/app");
        assert_eq!(single(&["live/app/f", "live/app/g"]), "live/app");
        assert_eq!(single(&["app/f"]), "app");
        assert_eq!(single(&["app/"]), "app");
        assert_eq!(single(&["f", "sub/g"]), "");
        assert_eq!(single(&[]), "");
        // `.` in a directory with one entry of another name, or with one that only begins alike.
        assert_eq!(single(&["live/f"]), "");
        assert_eq!(single(&["live/app"]), "", "a file is nobody's directory");
        assert_eq!(single(&["app"]), "");
        // Beside something else it is an entry of the data.
        assert_eq!(single(&["app/f", "other"]), "");
        assert_eq!(single(&["live/app/f", "live/other"]), "");
        // The longest end counts.
        let (mut made, root) = Made::of(&["app/app/f"]);
        assert_eq!(
            of_single(&mut made, root, "/x/app/app").unwrap(),
            Path::new("app/app")
        );
        // A recorded path that is no directory is itself, and not the tree around it.
        assert_eq!(single(&["srv/live/app"]), "srv/live/app");
    }

    fn within(recorded: &[&str], paths: &[&str]) -> Option<String> {
        let (mut made, root) = Made::of(paths);
        let recorded: Vec<String> = recorded.iter().map(|path| (*path).to_owned()).collect();
        let place = of_path(&mut made, root, &recorded, Path::new(APP)).unwrap();
        place.map(|place| place.display().to_string())
    }

    #[test]
    fn a_path_below_or_among_recorded_ones_is_found() {
        let found = |place: &str| Some(place.to_owned());
        assert_eq!(
            within(&["/srv/live"], &["srv/live/app/f", "srv/live/b/"]),
            found("srv/live/app")
        );
        assert_eq!(within(&["/"], &["etc/", "srv/live/app/"]), found("srv/live/app"));
        assert_eq!(
            within(&["/srv/live"], &["live/app/f", "live/b/"]),
            found("live/app")
        );
        assert_eq!(within(&["/srv/live"], &["app/f", "b/"]), found("app"));
        assert_eq!(
            within(&["/etc", APP], &["etc/x", "srv/live/app/f"]),
            found("srv/live/app")
        );
        assert_eq!(
            within(&["/etc", APP], &["etc/x", "live/app/f"]),
            found("live/app")
        );
        assert_eq!(within(&["/srv/etc", APP], &["etc/x", "app/f"]), found("app"));
        assert_eq!(
            within(&["/etc", "/srv/live"], &["etc/x", "live/app/f"]),
            found("live/app")
        );
    }

    #[test]
    fn what_the_tree_does_not_hold_is_not_found() {
        assert_eq!(within(&["/srv/live"], &["srv/live/other/f"]), None);
        assert_eq!(within(&["/srv/live"], &["srv/live/app"]), None, "a file");
        assert_eq!(within(&["/srv/live"], &["b/f", "c"]), None);
        assert_eq!(within(&["/etc", APP], &["etc/x"]), None);
        // `restic backup . ../etc` in the service: its entries lie beside the other's.
        assert_eq!(within(&["/srv/live/etc", APP], &["etc/x", "f", "app/g"]), None);
    }
}
