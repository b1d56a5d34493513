//! The format over described trees: different trees differ, the order of telling does not matter.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::digest::TreeError;

type Described = (Attrs, Vec<(Vec<u8>, Vec<u8>)>, Kind);
type Spec = (Attrs, BTreeMap<Vec<u8>, Described>);

fn hasher(spec: &Spec) -> TreeHasher {
    let mut tree = TreeHasher::new(spec.0, Xattrs::default());
    for (path, (attrs, xattrs, kind)) in &spec.1 {
        tree.insert(path, *attrs, Xattrs::from_pairs(xattrs.clone()), kind.clone())
            .unwrap();
    }
    tree
}

/// Small domains, so that near-collisions are common.
fn attrs_strategy() -> impl Strategy<Value = Attrs> {
    (0u32..2, 0u32..2, 0u32..2).prop_map(|(mode, uid, gid)| Attrs { mode, uid, gid })
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(b'a')], 0..3)
}

fn kind_strategy() -> impl Strategy<Value = Kind> {
    let number = || 0u32..3;
    prop_oneof![
        3 => (0u64..3, -1i64..2, number(), bytes(), prop::option::of(0u64..2)).prop_map(|(size, secs, nanos, content, link)| {
            Kind::File { size, mtime: FileTime { secs, nanos }, content: content_hash(&content), link }
        }),
        2 => Just(Kind::Dir),
        1 => bytes().prop_map(|target| Kind::Symlink { target }),
        1 => Just(Kind::Fifo),
        1 => (number(), number()).prop_map(|(major, minor)| Kind::CharDevice { major, minor }),
        1 => (number(), number()).prop_map(|(major, minor)| Kind::BlockDevice { major, minor }),
    ]
}

fn spec() -> impl Strategy<Value = Spec> {
    let name = || prop::sample::select(vec!["a", "b", "a.", "ab", "a\n", "f"]);
    let path = prop::collection::vec(name(), 1..4);
    let xattrs = prop::collection::btree_map(
        prop::sample::select(vec![b"user.a".to_vec(), b"user.ab".to_vec()]),
        bytes(),
        0..3,
    );
    let entry = (
        attrs_strategy(),
        xattrs.prop_map(|map| map.into_iter().collect::<Vec<_>>()),
        kind_strategy(),
    );
    (attrs_strategy(), prop::collection::vec((path, entry), 0..8)).prop_map(|(root, entries)| {
        let mut map: BTreeMap<Vec<u8>, Described> = BTreeMap::new();
        for (path, entry) in entries {
            for depth in 1..path.len() {
                let above = path[..depth].join("/").into_bytes();
                let (attrs, xattrs, _) = entry.clone();
                let slot = map.entry(above).or_insert((attrs, xattrs, Kind::Dir));
                slot.2 = Kind::Dir;
            }
            map.entry(path.join("/").into_bytes()).or_insert(entry);
        }
        (root, map)
    })
}

/// The tree reduced to what is covered: link numbers become groups of paths, groups of one are none, symlinks have no mode.
fn covered(spec: &Spec) -> (Spec, Vec<Vec<Vec<u8>>>) {
    let mut spec = spec.clone();
    let mut groups: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
    for (path, (attrs, _, kind)) in &mut spec.1 {
        match kind {
            Kind::File { link, .. } => {
                if let Some(n) = link.take() {
                    groups.entry(n).or_default().push(path.clone());
                }
            }
            Kind::Symlink { .. } => attrs.mode = 0,
            _ => {}
        }
    }
    let mut groups: Vec<_> = groups.into_values().filter(|names| names.len() > 1).collect();
    groups.sort();
    (spec, groups)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn two_trees_have_one_digest_only_if_they_are_one(a in spec(), b in spec()) {
        prop_assert_eq!(covered(&a) == covered(&b), hasher(&a).digest().unwrap() == hasher(&b).digest().unwrap());
    }

    /// Two random trees are seldom near each other; a tree and itself with one entry of another always are.
    #[test]
    fn one_entry_makes_a_difference(mut a in spec(), b in spec(), pick in any::<prop::sample::Index>()) {
        let before = (covered(&a), hasher(&a).digest().unwrap());
        prop_assume!(!a.1.is_empty() && !b.1.is_empty());
        let (_, other) = b.1.iter().nth(pick.index(b.1.len())).unwrap();
        let at = pick.index(a.1.len());
        let (path, slot) = a.1.iter_mut().nth(at).unwrap();
        let path = [path.as_slice(), b"/"].concat();
        *slot = other.clone();
        if slot.2 != Kind::Dir {
            a.1.retain(|below, _| !below.starts_with(&path));
        }
        prop_assert_eq!(before.0 == covered(&a), before.1 == hasher(&a).digest().unwrap());
    }

    #[test]
    fn the_order_of_telling_does_not_matter(a in spec(), seed in any::<u64>()) {
        let mut entries: Vec<_> = a.1.iter().collect();
        entries.sort_by_key(|(path, _)| blake3::hash(&[seed.to_le_bytes().as_slice(), path.as_slice()].concat()).to_hex());
        let mut tree = TreeHasher::new(a.0, Xattrs::default());
        for (path, (attrs, xattrs, kind)) in entries {
            let reversed = xattrs.iter().rev().cloned();
            tree.insert(path, *attrs, Xattrs::from_pairs(reversed), kind.clone()).unwrap();
        }
        prop_assert_eq!(tree.digest().unwrap(), hasher(&a).digest().unwrap());
    }
}

#[test]
fn what_is_no_tree_is_an_error() {
    let mut tree = TreeHasher::new(Attrs::default(), Xattrs::default());
    let mut insert = |path: &[u8], kind| tree.insert(path, Attrs::default(), Xattrs::default(), kind);
    for bad in [b"".as_slice(), b"/", b"/a", b"a/", b"a//b", b".", b"a/..", b"a\0"] {
        assert_eq!(insert(bad, Kind::Dir), Err(TreeError::Path(bad.to_vec())));
    }
    insert(b"a", Kind::Dir).unwrap();
    assert_eq!(insert(b"a", Kind::Fifo), Err(TreeError::Twice(b"a".to_vec())));
    for (orphan, parent) in [(b"b/c".as_slice(), None), (b"f/c", Some(b"f".as_slice()))] {
        let mut tree = TreeHasher::new(Attrs::default(), Xattrs::default());
        if let Some(parent) = parent {
            tree.insert(parent, Attrs::default(), Xattrs::default(), Kind::Fifo)
                .unwrap();
        }
        tree.insert(orphan, Attrs::default(), Xattrs::default(), Kind::Fifo)
            .unwrap();
        assert_eq!(tree.digest(), Err(TreeError::NoParent(orphan.to_vec())));
    }
}

#[test]
fn attributes_of_the_host_are_not_covered_and_those_of_the_data_are() {
    let covered = [
        "user.x",
        "user.reseed",
        "user.reseedling",
        "trusted.x",
        "security.capability",
        "system.posix_acl_access",
        "system.posix_acl_default",
    ];
    let not = [
        "user.reseed.run",
        "security.selinux",
        "security.ima",
        "security.evm",
        "security.apparmor",
        "security.SMACK64",
        "security.SMACK64EXEC",
        "system.nfs4_acl",
        "system.cifs_acl",
    ];
    for name in covered {
        assert_ne!(Xattrs::from_pairs([(name, "")]), Xattrs::default(), "{name}");
    }
    for name in not {
        assert_eq!(Xattrs::from_pairs([(name, "x")]), Xattrs::default(), "{name}");
    }
}
