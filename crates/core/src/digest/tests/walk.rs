//! What the digest covers and what it does not, on real files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use rustix::fs::FileType;

use super::*;
use crate::digest::walk::Opened;
use crate::digest::{Cause, Problems, Progress};

/// What is changed, and how.
type Change = (&'static str, fn(&Path));
/// The file at whose reading it happens, the path that is to be named, and what happens.
type ChangeAt = (&'static str, &'static str, fn(&Path));

#[test]
fn a_walk_agrees_with_a_description_of_the_same_tree() {
    let dir = tempfile::tempdir().unwrap();
    zoo(dir.path());
    let want = described(dir.path()).digest().unwrap();
    for threads in [1, 2, 7] {
        let found = digest_tree(
            dir.path(),
            DigestOptions {
                threads,
                ..DigestOptions::default()
            },
        )
        .unwrap();
        assert_eq!(found.digest, want, "{threads} threads");
        assert_eq!(
            (found.files, found.dirs, found.symlinks, found.sockets),
            (8, 4, 1, 1)
        );
        assert_eq!(found.specials, if is_superuser() { 3 } else { 1 });
        // 7 and 22 bytes, and the large files; second names of an inode are not counted again.
        assert_eq!(found.bytes, 7 + 22 + (3 << 20) + (1 << 20) + (1 << 20) + 1);
        assert_eq!(found.files_read, 8);
    }
}

#[test]
fn every_covered_attribute_changes_the_digest() {
    let changes: &[Change] = &[
        ("content", |r| {
            fs::write(r.join("a/file"), b"CONTENT").unwrap();
            set_mtime(&r.join("a/file"), 100, 5);
        }),
        ("content of a large file", |r| {
            let mut content = fs::read(r.join("a/b/large")).unwrap();
            content[2_500_000] ^= 1;
            fs::write(r.join("a/b/large"), content).unwrap();
            set_mtime(&r.join("a/b/large"), 100, 5);
        }),
        ("mtime of a file by one nanosecond", |r| {
            set_mtime(&r.join("a/file"), 100, 6);
        }),
        ("mode of a file", |r| {
            fs::set_permissions(r.join("a/file"), fs::Permissions::from_mode(0o600)).unwrap();
        }),
        ("setgid of a directory", |r| {
            fs::set_permissions(r.join("a"), fs::Permissions::from_mode(0o2755)).unwrap();
        }),
        ("mode of the root", |r| {
            fs::set_permissions(r, fs::Permissions::from_mode(0o711)).unwrap();
        }),
        ("mode of a fifo", |r| {
            fs::set_permissions(r.join("pipe"), fs::Permissions::from_mode(0o600)).unwrap();
        }),
        ("xattr value", |r| {
            set_xattr(&r.join("a/file"), "user.colour", b"red");
        }),
        ("xattr name", |r| {
            set_xattr(&r.join("a/file"), "user.color", b"blue\0green");
        }),
        ("xattr of a directory", |r| {
            set_xattr(&r.join("empty"), "user.x", b"");
        }),
        ("xattr of the root", |r| set_xattr(r, "user.root", b"no")),
        ("symlink target", |r| {
            fs::remove_file(r.join("a/link")).unwrap();
            std::os::unix::fs::symlink("elsewhere", r.join("a/link")).unwrap();
        }),
        ("a link broken into a copy", |r| {
            fs::copy(r.join("a/file"), r.join("copy")).unwrap();
            set_xattr(&r.join("copy"), "user.colour", b"blue\0green");
            fs::rename(r.join("copy"), r.join("a/b/c/linked")).unwrap();
            set_mtime(&r.join("a/b/c/linked"), 100, 5);
        }),
        ("an empty file", |r| fs::write(r.join("empty/new"), b"").unwrap()),
        ("an empty directory", |r| {
            fs::create_dir(r.join("empty/new")).unwrap();
        }),
        ("a name", |r| fs::rename(r.join("a.b"), r.join("a.c")).unwrap()),
        ("a directory's name", |r| {
            fs::rename(r.join("empty"), r.join("void")).unwrap();
        }),
        ("a file moved", |r| {
            fs::rename(r.join("a.b"), r.join("a/a.b")).unwrap();
        }),
        ("a fifo gone", |r| fs::remove_file(r.join("pipe")).unwrap()),
        ("fifo for file", |r| {
            fs::remove_file(r.join("a/nothing")).unwrap();
            mknod(&r.join("a/nothing"), FileType::Fifo, (0, 0));
        }),
        ("a file called .zfs", |r| fs::write(r.join(".zfs"), b"").unwrap()),
        ("a .zfs deeper down", |r| {
            fs::create_dir(r.join("a/.zfs")).unwrap();
        }),
        ("an access list", |r| {
            // Version 2; user::rw-, user:1000:r--, group::r--, mask::r--, other::---.
            let mut acl = vec![2, 0, 0, 0];
            for (tag, perm, id) in [
                (1u16, 6u16, u32::MAX),
                (2, 4, 1000),
                (4, 4, u32::MAX),
                (16, 4, u32::MAX),
                (32, 0, u32::MAX),
            ] {
                acl.extend_from_slice(&tag.to_le_bytes());
                acl.extend_from_slice(&perm.to_le_bytes());
                acl.extend_from_slice(&id.to_le_bytes());
            }
            set_xattr(&r.join("a.b"), "system.posix_acl_access", &acl);
        }),
    ];
    let privileged: &[Change] = &[
        ("owner of a file", |r| {
            std::os::unix::fs::lchown(r.join("a/file"), Some(7), None).unwrap();
        }),
        ("group of a directory", |r| {
            std::os::unix::fs::lchown(r.join("empty"), None, Some(7)).unwrap();
        }),
        ("owner of a symlink", |r| {
            std::os::unix::fs::lchown(r.join("a/link"), Some(7), None).unwrap();
        }),
        ("owner of the root", |r| {
            std::os::unix::fs::lchown(r, Some(7), None).unwrap();
        }),
        ("device number", |r| {
            fs::remove_file(r.join("null")).unwrap();
            mknod(&r.join("null"), FileType::CharacterDevice, (1, 5));
        }),
        ("character device for block device", |r| {
            fs::remove_file(r.join("a/disk")).unwrap();
            mknod(&r.join("a/disk"), FileType::CharacterDevice, (259, 1_048_575));
        }),
        ("xattr of a symlink", |r| {
            set_xattr(&r.join("a/link"), "trusted.note", b"other");
        }),
        ("xattr of a fifo", |r| {
            set_xattr(&r.join("pipe"), "trusted.note", b"other");
        }),
    ];
    let privileged = if is_superuser() { privileged } else { &[] };
    let mut seen = HashMap::new();
    for (what, change) in changes.iter().chain(privileged) {
        let dir = tempfile::tempdir().unwrap();
        settled_zoo(dir.path());
        let before = digest(dir.path());
        seen.insert(before, "nothing");
        change(dir.path());
        let after = digest(dir.path());
        assert_eq!(after, described(dir.path()).digest().unwrap(), "{what}");
        assert_eq!(seen.insert(after, what), None, "{what} left no trace of its own");
    }
}

#[test]
fn what_is_not_covered_does_not_change_the_digest() {
    let changes: &[Change] = &[
        ("nothing", |_| {}),
        ("mtime of a directory", |r| set_mtime(&r.join("a"), 1, 1)),
        ("mtime of the root", |r| set_mtime(r, 1, 1)),
        ("mtime of a symlink", |r| set_mtime(&r.join("a/link"), 1, 1)),
        ("mtime of a fifo", |r| set_mtime(&r.join("pipe"), 1, 1)),
        ("inode and ctime", |r| {
            fs::write(r.join("copy"), fs::read(r.join("a.b")).unwrap()).unwrap();
            fs::rename(r.join("copy"), r.join("a.b")).unwrap();
            set_mtime(&r.join("a.b"), 100, 5);
        }),
        ("a socket gone", |r| fs::remove_file(r.join("a/socket")).unwrap()),
        ("reseed's own attribute", |r| {
            set_xattr(r, "user.reseed.run", b"17");
        }),
        ("a name outside of the tree", |r| {
            let outside = r.with_file_name("outside");
            fs::hard_link(r.join("a.b"), &outside).unwrap();
        }),
        ("ZFS's snapshot directory", |r| {
            fs::create_dir_all(r.join(".zfs/snapshot/x")).unwrap();
            fs::write(r.join(".zfs/snapshot/x/file"), b"x").unwrap();
        }),
        ("a file made sparse", |r| {
            let file = fs::File::create(r.join("holes")).unwrap();
            file.set_len(9 << 20).unwrap();
            fs::rename(r.join("holes"), r.join("sparse")).unwrap();
            set_mtime(&r.join("sparse"), 100, 5);
        }),
    ];
    let mut digests = Vec::new();
    for (what, change) in changes {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        settled_zoo(&root);
        fs::write(root.join("sparse"), vec![0; 9 << 20]).unwrap();
        set_mtime(&root.join("sparse"), 100, 5);
        change(&root);
        digests.push((digest(&root), what));
    }
    for (digest, what) in &digests {
        assert_eq!(*digest, digests[0].0, "{what} shows");
    }
}

/// The zoo with times that do not depend on when the test runs.
fn settled_zoo(root: &Path) {
    zoo(root);
    for file in [
        "a/file",
        "a/nothing",
        "a.b",
        "a/b/large",
        "a/b/one-piece",
        "a/b/one-more",
    ] {
        set_mtime(&root.join(file), 100, 5);
    }
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    zoo(dir.path());
    let refuse = |name: &std::ffi::CStr| match name.to_bytes() {
        b"nothing" | b"a.b" => Err(rustix::io::Errno::ACCESS.into()),
        _ => Ok(()),
    };
    let err = with_hook(dir.path(), &refuse);
    let DigestError::Unreadable { problems, .. } = &err else {
        panic!("{err}")
    };
    assert_eq!(paths(problems), ["a/nothing", "a.b"]);
    assert!(matches!(problems.named[0].cause, Cause::Unreadable(_)));
    assert!(!err.is_transient());
    assert!(err.to_string().contains("a/nothing"), "{err}");
}

/// Root can read everything, so this has something to say only for others; the seam above says it for both.
#[test]
fn permissions_are_respected() {
    let dir = tempfile::tempdir().unwrap();
    zoo(dir.path());
    for closed in ["a.b", "a/b"] {
        fs::set_permissions(dir.path().join(closed), fs::Permissions::from_mode(0o000)).unwrap();
    }
    if is_superuser() {
        assert_eq!(digest(dir.path()), described(dir.path()).digest().unwrap());
    } else {
        let DigestError::Unreadable { problems, .. } = failure(dir.path()) else {
            panic!()
        };
        assert_eq!(paths(&problems), ["a/b", "a.b"]);
    }
    fs::set_permissions(dir.path().join("a/b"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn only_the_first_problems_are_named_and_the_walk_ends() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..2000 {
        fs::write(dir.path().join(format!("{i:04}")), b"x").unwrap();
    }
    let refuse = |_: &std::ffi::CStr| Err(rustix::io::Errno::IO.into());
    let DigestError::Unreadable { problems, .. } = with_hook(dir.path(), &refuse) else {
        panic!()
    };
    assert_eq!(problems.named.len(), 20);
    assert!((100..1000).contains(&problems.seen), "{}", problems.seen);
    assert!(
        problems
            .to_string()
            .ends_with(&format!("and {} more", problems.seen - 20)),
        "{problems}"
    );
}

#[test]
fn what_changes_while_it_is_read_is_an_error_that_names_it() {
    let changes: &[ChangeAt] = &[
        ("file", "a/file", |r| {
            fs::write(r.join("a/file"), b"content and more").unwrap();
        }),
        ("file", "a/file", |r| fs::write(r.join("a/file"), b"").unwrap()),
        ("file", "a/file", |r| {
            fs::write(r.join("a/file"), b"CONTENT").unwrap();
            set_mtime(&r.join("a/file"), 1, 1);
        }),
        ("file", "a/file", |r| {
            fs::set_permissions(r.join("a/file"), fs::Permissions::from_mode(0o600)).unwrap();
        }),
        ("large", "a/b/large", |r| {
            fs::write(r.join("a/b/large"), vec![1; 2 << 20]).unwrap();
        }),
        // A directory is listed once; what is not as it was then has changed.
        ("nothing", "a", |r| fs::write(r.join("a/new"), b"").unwrap()),
        ("file", "a/nothing", |r| {
            fs::remove_file(r.join("a/nothing")).unwrap();
        }),
        ("one-more", "a/b", |r| {
            fs::remove_file(r.join("a/b/one-piece")).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", r.join("a/b/one-piece")).unwrap();
        }),
        ("a.b", "", |r| {
            fs::rename(r.join("a/b"), r.join("moved")).unwrap();
        }),
    ];
    for (at, path, change) in changes {
        let dir = tempfile::tempdir().unwrap();
        zoo(dir.path());
        let done = Mutex::new(false);
        let hook = |name: &std::ffi::CStr| {
            if name.to_bytes() == at.as_bytes() && !std::mem::replace(&mut *done.lock().unwrap(), true) {
                change(dir.path());
            }
            Ok(())
        };
        let err = digest_tree(
            dir.path(),
            DigestOptions {
                threads: 1,
                opened: Some(&hook),
                ..DigestOptions::default()
            },
        )
        .unwrap_err();
        let DigestError::Changed { problems, .. } = &err else {
            panic!("{path}: {err}")
        };
        assert!(paths(problems).contains(&(*path).to_owned()), "{path}: {err}");
        assert!(err.is_transient());
    }
}

fn with_hook(root: &Path, opened: Opened<'_>) -> DigestError {
    digest_tree(
        root,
        DigestOptions {
            threads: 2,
            opened: Some(opened),
            ..DigestOptions::default()
        },
    )
    .unwrap_err()
}

fn paths(problems: &Problems) -> Vec<String> {
    problems
        .named
        .iter()
        .map(|problem| problem.path.to_str().unwrap().to_owned())
        .collect()
}

#[test]
fn only_a_directory_can_be_the_root() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("dir")).unwrap();
    fs::write(dir.path().join("file"), b"").unwrap();
    std::os::unix::fs::symlink("dir", dir.path().join("link")).unwrap();
    for bad in ["missing", "file", "link", "link/", "link/."] {
        let err = failure(&dir.path().join(bad));
        assert!(matches!(err, DigestError::Root { .. }), "{bad}: {err}");
        assert!(err.to_string().contains(bad.trim_end_matches('.')), "{err}");
    }
    digest(&dir.path().join("dir/"));
}

#[test]
fn cancelling_ends_a_walk() {
    let dir = tempfile::tempdir().unwrap();
    zoo(dir.path());
    let cancel = AtomicBool::new(true);
    let opts = DigestOptions {
        cancel: Some(&cancel),
        ..DigestOptions::default()
    };
    assert!(matches!(
        digest_tree(dir.path(), opts),
        Err(DigestError::Cancelled { .. })
    ));
    // In the middle of a large file.
    let cancel = AtomicBool::new(false);
    let hook = |name: &std::ffi::CStr| {
        cancel.fetch_or(name.to_bytes() == b"large", std::sync::atomic::Ordering::Relaxed);
        Ok(())
    };
    let opts = DigestOptions {
        threads: 1,
        cancel: Some(&cancel),
        opened: Some(&hook),
        ..DigestOptions::default()
    };
    assert!(matches!(
        digest_tree(dir.path(), opts),
        Err(DigestError::Cancelled { .. })
    ));
}

#[test]
fn progress_comes_to_all_that_was_read() {
    let dir = tempfile::tempdir().unwrap();
    zoo(dir.path());
    let last = Mutex::new(Progress::default());
    let progress = |now: Progress| {
        let mut last = last.lock().unwrap();
        *last = Progress {
            files: last.files.max(now.files),
            bytes: last.bytes.max(now.bytes),
        };
    };
    let found = digest_tree(
        dir.path(),
        DigestOptions {
            progress: Some(&progress),
            ..DigestOptions::default()
        },
    )
    .unwrap();
    assert_eq!(
        *last.lock().unwrap(),
        Progress {
            files: found.files_read,
            bytes: found.bytes_read
        }
    );
    assert!(found.bytes_read >= found.bytes);
}

#[test]
fn a_panic_in_one_thread_is_passed_on_and_does_not_hang_the_others() {
    let dir = tempfile::tempdir().unwrap();
    zoo(dir.path());
    let hook = |name: &std::ffi::CStr| {
        if name.to_bytes() == b"file" {
            panic!("boom")
        } else {
            Ok(())
        }
    };
    let walk = || with_hook(dir.path(), &hook);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(walk)).is_err());
}
