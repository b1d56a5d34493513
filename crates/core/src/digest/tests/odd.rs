//! Odd names, great depth and width, mounts.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::digest::format::{Body, ListingHasher, tree_digest};

#[test]
fn names_are_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let names: [&[u8]; 9] = [
        b"-rf",
        b"a\nb",
        b"it's \"quoted\"",
        b"\xff\xfe\x80",
        b" ",
        b"...",
        "\u{1f980}\u{301}".as_bytes(),
        b"*",
        &[b'x'; 255],
    ];
    for name in names {
        fs::write(dir.path().join(OsStr::from_bytes(name)), name).unwrap();
        let sub = dir
            .path()
            .join(OsStr::from_bytes(&[b"d", &name[..name.len().min(200)]].concat()));
        fs::create_dir(&sub).unwrap();
        std::os::unix::fs::symlink(OsStr::from_bytes(name), sub.join(OsStr::from_bytes(name))).unwrap();
        fs::hard_link(dir.path().join(OsStr::from_bytes(name)), sub.join("linked")).unwrap();
    }
    assert_eq!(digest(dir.path()), described(dir.path()).digest().unwrap());
}

/// Puts the directory `d` of `root` into a new one of the same name, `depth` times, with what `furnish` adds at each level.
fn nest(root: &Path, depth: usize, furnish: impl Fn(&Path)) {
    let (dir, outer) = (root.join("d"), root.join("outer"));
    fs::create_dir(&dir).unwrap();
    for _ in 1..depth {
        fs::create_dir(&outer).unwrap();
        furnish(&outer);
        fs::rename(&dir, outer.join("d")).unwrap();
        fs::rename(&outer, &dir).unwrap();
    }
}

/// Undoes [`nest`]: the standard library would recurse, holding a descriptor for each level.
fn unnest(root: &Path) {
    let (dir, outer) = (root.join("d"), root.join("outer"));
    while dir.exists() {
        fs::rename(&dir, &outer).unwrap();
        if outer.join("d").exists() {
            fs::rename(outer.join("d"), &dir).unwrap();
        }
        fs::remove_dir_all(&outer).unwrap();
    }
}

#[test]
fn ten_thousand_levels_are_walked_and_freed() {
    let dir = tempfile::tempdir().unwrap();
    nest(dir.path(), 10_000, |_| {});
    let own = attrs(&fs::metadata(dir.path().join("d")).unwrap());
    let mut listing = ListingHasher::new().finish();
    for _ in 0..10_000 {
        let mut above = ListingHasher::new();
        above.entry(b"d", own, &[], Body::Dir { listing: &listing });
        listing = above.finish();
    }
    let want = tree_digest(
        attrs(&fs::metadata(dir.path()).unwrap()),
        &[],
        &listing,
        Vec::new(),
    );
    let found = summary(dir.path());
    assert_eq!(found.dirs, 10_000);
    assert_eq!(found.digest, want);
    // Through the cache, which is as deep.
    let (mut cache, _) = DigestCache::load(&dir.path().with_extension("cache"), b"");
    cache.now = Some(FileTime {
        secs: i64::MAX,
        nanos: 0,
    });
    assert_eq!(cached(dir.path(), &mut cache).digest, found.digest);
    cache.save().unwrap();
    assert_eq!(cached(dir.path(), &mut cache).digest, found.digest);
    assert!(!cache.save().unwrap());
    fs::remove_file(dir.path().with_extension("cache")).unwrap();
    // A walk that gives up deep down has the whole chain to drop.
    let hook = |_: &std::ffi::CStr| Err(rustix::io::Errno::IO.into());
    let deep = dir.path().join("d").join("d/".repeat(1000));
    fs::write(deep.join("file"), b"").unwrap();
    let err = digest_tree(
        dir.path(),
        DigestOptions {
            opened: Some(&hook),
            ..DigestOptions::default()
        },
    )
    .unwrap_err();
    assert!(err.to_string().contains("d/file"));
    unnest(dir.path());
}

#[test]
fn a_deep_comb_keeps_few_descriptors_open() {
    let dir = tempfile::tempdir().unwrap();
    let depth = 1500;
    // Each level has something to come back to from both sides of the descent.
    nest(dir.path(), depth, |level| {
        fs::create_dir(level.join("a")).unwrap();
        fs::create_dir(level.join("z")).unwrap();
        fs::write(level.join("z/file"), b"x").unwrap();
    });
    let most = std::sync::atomic::AtomicUsize::new(0);
    let looked = std::sync::atomic::AtomicUsize::new(0);
    let hook = |_: &std::ffi::CStr| {
        if !looked
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed)
            .is_multiple_of(20)
        {
            return Ok(());
        }
        let open = fs::read_dir("/proc/self/fd")?.count();
        most.fetch_max(open, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    };
    let before = fs::read_dir("/proc/self/fd").unwrap().count();
    let found = digest_tree(
        dir.path(),
        DigestOptions {
            threads: 2,
            opened: Some(&hook),
            ..DigestOptions::default()
        },
    )
    .unwrap();
    assert_eq!((found.dirs, found.files), (3 * 1500 - 2, 1499));
    let most = most.into_inner();
    // 128 kept, a few in use; other tests of this process may have some open too.
    assert!(most > before && most < before + 700, "{most} descriptors");
    unnest(dir.path());
}

#[test]
fn a_wide_directory_is_shared_among_threads() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..3000 {
        fs::write(dir.path().join(format!("{}", i * 7919 % 3000)), vec![1; i % 100]).unwrap();
    }
    fs::write(dir.path().join("5000-large"), vec![2; 5 << 20]).unwrap();
    fs::write(dir.path().join("1500-large"), vec![3; 5 << 20]).unwrap();
    let want = described(dir.path()).digest().unwrap();
    assert_eq!(digest(dir.path()), want);
    let file = tempfile::NamedTempFile::new().unwrap();
    let (mut cache, _) = DigestCache::load(file.path(), b"");
    cache.now = Some(FileTime {
        secs: i64::MAX,
        nanos: 0,
    });
    for read in [3002, 0, 0] {
        let found = cached(dir.path(), &mut cache);
        assert_eq!((found.digest, found.files_read, found.files), (want, read, 3002));
        cache.save().unwrap();
    }
    fs::remove_file(dir.path().join("1700")).unwrap();
    fs::write(dir.path().join("17000"), b"new").unwrap();
    let found = cached(dir.path(), &mut cache);
    assert_eq!(
        (found.digest, found.files_read),
        (described(dir.path()).digest().unwrap(), 1)
    );
}

/// Needs the right to mount, which root has outside of containers; elsewhere there is nothing to look at.
#[test]
fn mounts_are_not_entered() {
    let dir = tempfile::tempdir().unwrap();
    let (root, file) = (dir.path().join("root"), dir.path().join("cache"));
    for sub in ["root/data", "root/other/deeper", "root/bound"] {
        fs::create_dir_all(dir.path().join(sub)).unwrap();
    }
    fs::write(root.join("data/file"), b"x").unwrap();
    fs::set_permissions(root.join("other/deeper"), fs::Permissions::from_mode(0o755)).unwrap();
    let plain = summary(&root);
    // The namespace is the thread's, and that of the walk's threads, which it starts; the other tests keep theirs.
    let thread = std::thread::spawn(move || {
        use rustix::mount::{
            MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
        };
        #[expect(
            deprecated,
            reason = "the other one is unsafe for flags that are not used here"
        )]
        if rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS).is_err() {
            return;
        }
        if mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).is_err() {
            return;
        }
        mount(
            "tmpfs",
            root.join("other/deeper"),
            "tmpfs",
            MountFlags::empty(),
            Some(c"mode=755"),
        )
        .unwrap();
        fs::write(root.join("other/deeper/elsewhere"), b"y").unwrap();
        let (mut cache, _) = DigestCache::load(&file, b"");
        cache.now = Some(FileTime {
            secs: i64::MAX,
            nanos: 0,
        });
        // What shows of the mounted root is what was below: an empty directory of the same owner and permissions.
        for read in [1, 0] {
            let found = cached(&root, &mut cache);
            assert_eq!(
                (found.digest, found.mounts, found.files, found.files_read),
                (plain.digest, 1, 1, read)
            );
            assert_eq!(cache.save().unwrap(), read == 1);
        }
        // The same file system again: only the attribute tells.
        mount_bind(root.join("data"), root.join("bound")).unwrap();
        let found = cached(&root, &mut cache);
        assert_eq!((found.digest, found.mounts, found.files), (plain.digest, 2, 1));
        cache.save().unwrap();
        for sub in ["bound", "other/deeper"] {
            unmount(root.join(sub), UnmountFlags::empty()).unwrap();
        }
        let found = cached(&root, &mut cache);
        assert_eq!(
            (found.digest, found.mounts, found.files, found.dirs),
            (plain.digest, 0, 1, plain.dirs)
        );
        // A mounted root is no mount below the root.
        mount_bind(root.join("data"), root.join("bound")).unwrap();
        assert_eq!(
            (
                summary(&root.join("bound")).files,
                summary(&root.join("bound")).mounts
            ),
            (1, 0)
        );
    });
    thread.join().unwrap();
}
