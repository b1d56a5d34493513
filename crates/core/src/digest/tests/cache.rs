//! The cache never changes a digest, whatever happened to the tree or to its file.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;
use crate::digest::CacheWarning;
use crate::digest::cache::kernel_file_time;

/// Trust everything that was written before this very tick of the kernel's clock: no margin, the hardest honest setting.
fn without_margin(cache: &mut DigestCache) {
    let now = kernel_file_time().unwrap();
    cache.now = Some(FileTime {
        secs: now.secs + 2,
        nanos: now.nanos,
    });
}

/// As if all files had been written long ago.
fn long_after(cache: &mut DigestCache) {
    cache.now = Some(FileTime {
        secs: i64::MAX,
        nanos: 0,
    });
}

fn load(path: &Path) -> DigestCache {
    let (cache, warning) = DigestCache::load(path, b"scope");
    assert_eq!(warning, None);
    cache
}

/// A tree and a saved cache that knows it.
fn known_zoo() -> (tempfile::TempDir, PathBuf, PathBuf, TreeDigest) {
    let dir = tempfile::tempdir().unwrap();
    let (root, file) = (dir.path().join("root"), dir.path().join("cache"));
    fs::create_dir(&root).unwrap();
    zoo(&root);
    let mut cache = load(&file);
    long_after(&mut cache);
    let digest = cached(&root, &mut cache).digest;
    assert!(cache.save().unwrap());
    (dir, root, file, digest)
}

#[test]
fn a_second_run_reads_nothing_and_writes_nothing() {
    let (_dir, root, file, want) = known_zoo();
    assert_eq!(want, digest(&root));
    let first = summary(&root);
    let mut cache = load(&file);
    long_after(&mut cache);
    let again = cached(&root, &mut cache);
    assert_eq!((again.files_read, again.bytes_read), (0, 0));
    assert_eq!(
        TreeSummary {
            files_read: first.files_read,
            bytes_read: first.bytes_read,
            ..again
        },
        first
    );
    assert!(!cache.save().unwrap());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn only_what_changed_is_read() {
    let (_dir, root, file, before) = known_zoo();
    fs::write(root.join("a/b/c/new"), b"new").unwrap();
    set_xattr(&root.join("a.b"), "user.x", b"y");
    let mut cache = load(&file);
    long_after(&mut cache);
    let found = cached(&root, &mut cache);
    assert_ne!(found.digest, before);
    assert_eq!(found.digest, digest(&root));
    assert_eq!(found.files_read, 2);
    assert!(cache.save().unwrap());
    let mut cache = load(&file);
    long_after(&mut cache);
    assert_eq!(cached(&root, &mut cache).files_read, 0);
}

#[test]
fn a_rewrite_in_place_with_its_mtime_put_back_is_seen() {
    let (_dir, root, file, before) = known_zoo();
    let path = root.join("a.b");
    let was = fs::metadata(&path).unwrap();
    let content = vec![b'!'; usize::try_from(was.len()).unwrap()];
    // Until the kernel's clock has moved on, which takes at most a few milliseconds.
    while {
        let now = fs::metadata(&path).unwrap();
        (now.ctime(), now.ctime_nsec()) == (was.ctime(), was.ctime_nsec())
    } {
        use std::os::unix::fs::FileExt;
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .write_all_at(&content, 0)
            .unwrap();
        set_mtime(&path, was.mtime(), was.mtime_nsec());
    }
    let now = fs::metadata(&path).unwrap();
    assert_eq!(
        (now.mtime(), now.mtime_nsec(), now.len(), now.ino()),
        (was.mtime(), was.mtime_nsec(), was.len(), was.ino())
    );
    let mut cache = load(&file);
    let found = cached(&root, &mut cache);
    assert_ne!(found.digest, before);
    assert_eq!(found.digest, digest(&root));
}

#[test]
fn files_as_young_as_the_cache_are_not_trusted() {
    let (_dir, root, file, want) = known_zoo();
    fs::remove_file(&file).unwrap();
    // With the real clock everything here is too young.
    let mut cache = load(&file);
    assert_eq!(cached(&root, &mut cache).files_read, 8);
    cache.save().unwrap();
    let again = cached(&root, &mut load(&file));
    assert_eq!((again.files_read, again.digest), (8, want));
}

#[test]
fn another_tree_or_version_or_no_file_at_all_is_a_warning() {
    let (dir, root, file, want) = known_zoo();
    let (mut other, warning) = DigestCache::load(&file, b"other");
    assert_eq!(warning, Some(CacheWarning::OtherScope { path: file.clone() }));
    assert_eq!(cached(&root, &mut other).files_read, 8);

    let mut bytes = fs::read(&file).unwrap();
    bytes[8] = 9;
    fs::write(&file, &bytes).unwrap();
    let (_, warning) = DigestCache::load(&file, b"scope");
    assert_eq!(
        warning,
        Some(CacheWarning::OtherVersion {
            path: file.clone(),
            version: 9
        })
    );

    fs::write(&file, b"").unwrap();
    assert_eq!(
        DigestCache::load(&file, b"scope").1,
        Some(CacheWarning::Damaged { path: file.clone() })
    );

    // Sparse: five gigabytes that take no room, and must not take memory.
    fs::File::create(&file).unwrap().set_len(5 << 30).unwrap();
    assert_eq!(
        DigestCache::load(&file, b"scope").1,
        Some(CacheWarning::TooLarge {
            path: file.clone(),
            bytes: 5 << 30
        })
    );

    let fifo = dir.path().join("fifo");
    mknod(&fifo, rustix::fs::FileType::Fifo, (0, 0));
    for path in [&fifo, &root] {
        let (mut cache, warning) = DigestCache::load(path, b"scope");
        assert!(
            matches!(warning, Some(CacheWarning::Unreadable { .. })),
            "{warning:?}"
        );
        assert_eq!(cached(&root, &mut cache).digest, want);
    }
    let mut cache = DigestCache::load(&root, b"scope").0;
    cached(&root, &mut cache);
    assert!(cache.save().is_err(), "a directory is not replaced");
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        3,
        "nothing is left behind"
    );
}

#[test]
fn a_failed_walk_leaves_the_cache_as_it_was() {
    let (_dir, root, file, want) = known_zoo();
    fs::write(root.join("new"), b"").unwrap();
    let mut cache = load(&file);
    let refuse = |_: &std::ffi::CStr| Err(rustix::io::Errno::IO.into());
    let opts = DigestOptions {
        cache: Some(&mut cache),
        opened: Some(&refuse),
        ..DigestOptions::default()
    };
    assert!(digest_tree(&root, opts).is_err());
    assert!(!cache.save().unwrap());
    fs::remove_file(root.join("new")).unwrap();
    long_after(&mut cache);
    let found = cached(&root, &mut cache);
    assert_eq!((found.digest, found.files_read), (want, 0));
}

#[derive(Debug, Clone)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Extend(Vec<u8>),
    Overwrite(prop::sample::Index, Vec<u8>),
    Move(prop::sample::Index, prop::sample::Index, u8),
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => (index(), 0u8..8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        1 => index().prop_map(Damage::Cut),
        1 => prop::collection::vec(any::<u8>(), 1..200).prop_map(Damage::Extend),
        1 => (index(), prop::collection::vec(any::<u8>(), 1..200)).prop_map(|(at, bytes)| Damage::Overwrite(at, bytes)),
        1 => (index(), index(), any::<u8>()).prop_map(|(from, to, len)| Damage::Move(from, to, len)),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage) {
    match damage {
        Damage::Extend(more) => bytes.extend_from_slice(more),
        _ if bytes.is_empty() => {}
        Damage::Flip(at, bit) => {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        Damage::Cut(at) => bytes.truncate(at.index(bytes.len())),
        Damage::Overwrite(at, with) => {
            let at = at.index(bytes.len());
            let end = bytes.len().min(at + with.len());
            bytes[at..end].copy_from_slice(&with[..end - at]);
        }
        Damage::Move(from, to, len) => {
            let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
            let len = usize::from(*len).min(bytes.len() - from.max(to));
            bytes.copy_within(from..from + len, to);
        }
    }
}

#[test]
fn a_damaged_cache_gives_the_same_digest() {
    let (_dir, root, file, want) = known_zoo();
    fs::remove_file(root.join("a/b/large")).unwrap();
    fs::remove_file(root.join("large too")).unwrap();
    let want = {
        let now = digest(&root);
        assert_ne!(now, want);
        now
    };
    let mut cache = load(&file);
    long_after(&mut cache);
    cached(&root, &mut cache);
    cache.save().unwrap();
    let good = fs::read(&file).unwrap();
    proptest!(ProptestConfig::with_cases(400), |(damages in prop::collection::vec(damage(), 1..4))| {
        let mut bytes = good.clone();
        damages.iter().for_each(|damage| apply(&mut bytes, damage));
        fs::write(&file, &bytes).unwrap();
        let (mut cache, _) = DigestCache::load(&file, b"scope");
        prop_assert_eq!(cached(&root, &mut cache).digest, want);
        // And what comes of it is whole again.
        cache.save().unwrap();
        prop_assert_eq!(cached(&root, &mut load(&file)).digest, want);
    });
}

#[derive(Debug, Clone)]
enum Change {
    Write(u8, u8),
    Remove(u8),
    Rename(u8, u8),
    Link(u8, u8),
    Symlink(u8, u8),
    Mode(u8, u8),
    Xattr(u8, u8),
    Mtime(u8, u8),
    RenameDir(u8, u8),
    Look,
}

fn change() -> impl Strategy<Value = Change> {
    let (a, b) = (0u8..12, 0u8..12);
    let pair = || (0u8..12, 0u8..12);
    prop_oneof![
        1 => pair().prop_map(|(a, b)| Change::Write(a, b)),
        1 => a.prop_map(Change::Remove),
        1 => pair().prop_map(|(a, b)| Change::Rename(a, b)),
        1 => pair().prop_map(|(a, b)| Change::Link(a, b)),
        1 => pair().prop_map(|(a, b)| Change::Symlink(a, b)),
        1 => pair().prop_map(|(a, b)| Change::Mode(a, b)),
        1 => pair().prop_map(|(a, b)| Change::Xattr(a, b)),
        1 => pair().prop_map(|(a, b)| Change::Mtime(a, b)),
        1 => (0u8..3, b).prop_map(|(a, b)| Change::RenameDir(a, b % 3)),
        4 => Just(Change::Look),
    ]
}

/// Twelve names in three directories.
fn place(root: &Path, n: u8) -> PathBuf {
    root.join(["", "x", "x/y"][usize::from(n % 3)])
        .join(format!("f{}", n / 3))
}

fn perform(root: &Path, change: &Change) {
    // Most changes fail now and then (nothing there, already there); that is part of the game.
    let _ = match change {
        Change::Write(a, b) => fs::write(place(root, *a), [*b; 10]),
        Change::Remove(a) => fs::remove_file(place(root, *a)),
        Change::Rename(a, b) => fs::rename(place(root, *a), place(root, *b)),
        Change::Link(a, b) => fs::hard_link(place(root, *a), place(root, *b)),
        Change::Symlink(a, b) => std::os::unix::fs::symlink(format!("{b}"), place(root, *a)),
        Change::Mode(a, b) => {
            fs::set_permissions(place(root, *a), fs::Permissions::from_mode(0o600 + u32::from(*b)))
        }
        Change::Xattr(a, b) => {
            let path = place(root, *a);
            rustix::fs::setxattr(&path, "user.n", &[*b], rustix::fs::XattrFlags::empty()).map_err(Into::into)
        }
        Change::Mtime(a, b) => {
            if place(root, *a).symlink_metadata().is_ok() {
                set_mtime(&place(root, *a), i64::from(*b), 0);
            }
            Ok(())
        }
        Change::RenameDir(a, b) => {
            let dir = |n: u8| root.join(["x", "v", "w"][usize::from(n)]);
            let _ = fs::rename(dir(*a), dir(*b));
            fs::create_dir_all(root.join("x/y"))
        }
        Change::Look => Ok(()),
    };
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn after_any_changes_the_cache_gives_the_digest_of_a_full_walk(changes in prop::collection::vec(change(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let (root, file) = (dir.path().join("root"), dir.path().join("cache"));
        fs::create_dir_all(root.join("x/y")).unwrap();
        for change in changes.iter().chain([&Change::Look]) {
            perform(&root, change);
            if matches!(change, Change::Look) {
                let mut cache = load(&file);
                without_margin(&mut cache);
                let found = cached(&root, &mut cache);
                cache.save().unwrap();
                let full = summary(&root);
                prop_assert_eq!(found, TreeSummary { files_read: found.files_read, bytes_read: found.bytes_read, ..full });
                prop_assert_eq!(found.digest, described(&root).digest().unwrap());
            }
        }
    }
}
