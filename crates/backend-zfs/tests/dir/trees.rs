//! Trees that are hard to copy: deep, sparse, special, odd, and hostile.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use reseed_backend_zfs::dir::DirSource;
use reseed_core::digest::{DigestOptions, digest_tree};
use reseed_core::point::{Fingerprint, Target};
use reseed_core::source::{RestoreRequest, Restored, Scope};
use reseed_core::store::{Delivery, Replace, Settle, StagePurpose, StageRequest, Staging};
use reseed_core::{Context, RestoreSource, SnapshotStore};
use reseed_testkit::conformance::{block_on, context, marker};
use reseed_testkit::files::{Files as _, assert_same, write_odd_tree};
use rustix::fs::{CWD, FileType, Mode, OFlags, XattrFlags};

use crate::lab::OnDisk;

fn measure(tree: &Path) -> Fingerprint {
    let found = digest_tree(tree, DigestOptions::default()).unwrap();
    Fingerprint {
        digest: found.digest,
        files: found.files,
        bytes: found.bytes,
    }
}

/// Stages the newest point and restores into it.
pub(crate) async fn restore(lab: &OnDisk, cx: &Context, target: &Target) -> (Staging, Restored) {
    let source = DirSource::local(&lab.store);
    let point = source.points(cx, target).await.unwrap().remove(0);
    let purpose = StagePurpose::Restore {
        point: point.clone(),
        delivery: Delivery::Files,
    };
    let staging = lab
        .store
        .stage(
            cx,
            &StageRequest {
                target: target.clone(),
                purpose,
            },
        )
        .await
        .unwrap();
    let request = RestoreRequest {
        target: target.clone(),
        point,
        scope: Scope::Whole,
    };
    let plan = source.plan(cx, &request).await.unwrap();
    let restored = source.execute(cx, &plan, &staging).await.unwrap();
    (staging, restored)
}

async fn there_and_back(lab: &OnDisk, cx: &Context, target: &Target) -> Staging {
    let live = measure(&target.mountpoint);
    let made = lab.snapshot(cx, target, "one", 1).await;
    assert_eq!(made.fingerprint, Some(live), "the snapshot");
    let again = lab.snapshot(cx, target, "two", 2).await;
    assert_eq!(again.fingerprint, Some(live), "the snapshot that shares");
    let (staging, restored) = restore(lab, cx, target).await;
    assert_eq!(measure(&staging.path), live, "the restored tree");
    assert_eq!((restored.files, restored.bytes), (live.files, live.bytes));
    assert_eq!(restored.warnings, Vec::<String>::new());
    staging
}

#[test]
fn a_tree_beyond_the_longest_path_is_kept_restored_and_removed() {
    block_on(async {
        let (lab, cx) = (OnDisk::new(), context("deep"));
        let target = lab.target("a");
        fs::create_dir_all(&target.mountpoint).unwrap();
        let name = CString::new(vec![b'd'; 200]).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at = rustix::fs::open(&target.mountpoint, flags, Mode::empty()).unwrap();
        for _ in 0..60 {
            rustix::fs::mkdirat(&at, name.as_c_str(), Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, name.as_c_str(), flags, Mode::empty()).unwrap();
            let write = OFlags::WRONLY | OFlags::CREATE;
            let file = rustix::fs::openat(&at, c"file", write, Mode::RUSR | Mode::WUSR).unwrap();
            rustix::io::write(&file, b"deep").unwrap();
        }
        let staging = there_and_back(&lab, &cx, &target).await;
        let old = lab.store.list(&cx, std::slice::from_ref(&target)).await.unwrap();
        let all: Vec<_> = old.iter().map(reseed_core::point::Snapshot::reference).collect();
        assert!(
            lab.store
                .prune(&cx, &all)
                .await
                .unwrap()
                .iter()
                .all(|pruned| pruned.kept.is_none())
        );
        lab.store
            .settle(
                &cx,
                &Settle::Discard {
                    staging: staging.clone(),
                },
            )
            .await
            .unwrap();
        assert!(!staging.path.exists());
    });
}

#[test]
fn holes_stay_holes() {
    block_on(async {
        let (lab, cx) = (OnDisk::new(), context("holes"));
        let target = lab.target("a");
        let file = target.mountpoint.join("sparse");
        lab.files.write(&file, b"begin");
        lab.files.set_len(&file, 1 << 30);
        lab.files.write_at(&file, 700 << 20, b"in the middle");
        let staging = there_and_back(&lab, &cx, &target).await;
        let copy = fs::metadata(staging.path.join("sparse")).unwrap();
        assert_eq!(copy.len(), 1 << 30);
        assert!(
            copy.blocks() * 512 < 1 << 20,
            "the holes were filled: {} blocks",
            copy.blocks()
        );
    });
}

#[test]
fn attributes_acls_special_files_and_times_come_back() {
    block_on(async {
        let (lab, cx) = (OnDisk::new(), context("meta"));
        let target = lab.target("a");
        write_odd_tree(&lab.files, &target.mountpoint);
        let file = target.mountpoint.join("run.sh");
        let _ = rustix::fs::setxattr(&file, "user.one", b"\0\xff", XattrFlags::empty());
        // rwx for the owner, r-x for uid 1234, the mask r-x: as setfacl writes it.
        let acl: Vec<u8> = [
            (1u16, 7u16, u32::MAX),
            (2, 5, 1234),
            (4, 5, u32::MAX),
            (16, 5, u32::MAX),
            (32, 0, u32::MAX),
        ]
        .iter()
        .fold(2u32.to_le_bytes().to_vec(), |mut acl, (tag, permissions, id)| {
            acl.extend(tag.to_le_bytes());
            acl.extend(permissions.to_le_bytes());
            acl.extend(id.to_le_bytes());
            acl
        });
        let acls = rustix::fs::setxattr(&file, "system.posix_acl_access", &acl, XattrFlags::empty()).is_ok();
        // A default ACL in a directory of the tree, and one above the target that staging must not inherit.
        let above = target.mountpoint.parent().unwrap();
        for dir in [&*target.mountpoint.join("db"), above] {
            let _ = rustix::fs::setxattr(dir, "system.posix_acl_default", &acl, XattrFlags::empty());
        }
        let device = target.mountpoint.join("null");
        let made = rustix::fs::mknodat(
            CWD,
            &device,
            FileType::CharacterDevice,
            Mode::RUSR,
            rustix::fs::makedev(1, 3),
        )
        .is_ok();
        let _socket = std::os::unix::net::UnixListener::bind(target.mountpoint.join("socket")).unwrap();
        let staging = there_and_back(&lab, &cx, &target).await;
        if made {
            let copy = fs::metadata(staging.path.join("null")).unwrap();
            assert!(copy.file_type().is_char_device());
            assert_eq!(copy.rdev(), rustix::fs::makedev(1, 3));
        }
        if acls {
            let mut kept = vec![0; 256];
            let len = rustix::fs::getxattr(
                staging.path.join("run.sh"),
                "system.posix_acl_access",
                &mut kept[..],
            )
            .unwrap();
            assert_eq!(kept[..len], acl);
            assert!(
                rustix::fs::getxattr(
                    staging.path.join("private"),
                    "system.posix_acl_access",
                    &mut kept[..]
                )
                .is_err()
            );
        }
        assert!(!staging.path.join("socket").exists(), "a socket is not data");
        for name in ["run.sh", "db", "link", "pipe"] {
            let time = |root: &Path| {
                let meta = fs::symlink_metadata(root.join(name)).unwrap();
                (meta.mtime(), meta.mtime_nsec())
            };
            assert_eq!(time(&staging.path), time(&target.mountpoint), "{name}");
        }
    });
}

#[test]
fn what_an_enemy_planted_in_staging_leads_nowhere() {
    block_on(async {
        let (lab, cx) = (OnDisk::new(), context("planted"));
        let target = lab.target("a");
        write_odd_tree(&lab.files, &target.mountpoint);
        let expected = lab.files.list(&target.mountpoint);
        lab.snapshot(&cx, &target, "one", 1).await;
        let outside = lab.path("outside");
        lab.files.write(&outside.join("main.db"), b"not ours");
        lab.files.write(&outside.join("private"), b"not ours either");
        let before = lab.files.list(&outside);
        let (staging, _) = restore(&lab, &cx, &target).await;
        // A link where a directory was, a link and another file's second name where files were, a directory where one was.
        lab.files.remove(&staging.path.join("db"));
        lab.files.symlink(&outside, &staging.path.join("db"));
        lab.files.remove(&staging.path.join("with space"));
        lab.files
            .symlink(&outside.join("private"), &staging.path.join("with space"));
        lab.files.remove(&staging.path.join("-rf"));
        lab.files
            .hard_link(&outside.join("private"), &staging.path.join("-rf"));
        lab.files.remove(&staging.path.join("empty"));
        lab.files.write(&staging.path.join("empty/with/files"), b"x");
        lab.files.symlink(&outside, &staging.path.join("extra"));
        let (staging, _) = restore(&lab, &cx, &target).await;
        assert_same(&expected, &lab.files.list(&staging.path), "the restored tree");
        assert_same(&before, &lab.files.list(&outside), "what is outside");
    });
}

#[test]
fn ten_thousand_files_are_kept_and_restored_and_a_resumed_restore_keeps_them() {
    block_on(async {
        let (lab, cx) = (OnDisk::in_memory(), context("many"));
        let target = lab.target("a");
        for dir in 0..100 {
            let dir = target.mountpoint.join(format!("d{dir}"));
            fs::create_dir_all(&dir).unwrap();
            for file in 0..100 {
                fs::write(dir.join(format!("f{file}")), format!("{file}").repeat(200)).unwrap();
            }
        }
        let staging = there_and_back(&lab, &cx, &target).await;
        lab.files.remove(&staging.path.join("d7"));
        lab.files.write(&staging.path.join("d8/f8"), b"another content");
        let (staging, restored) = restore(&lab, &cx, &target).await;
        let live = measure(&target.mountpoint);
        assert_eq!(measure(&staging.path), live);
        let lost = 100 * 10 * 200 + 100 * 90 * 400 + 200;
        assert!(
            restored.reused > live.bytes / 2 && restored.reused < live.bytes,
            "{restored:?} {lost}"
        );
        let aside = target.mountpoint.with_extension("gone");
        fs::rename(&target.mountpoint, aside).unwrap();
        let point = DirSource::local(&lab.store)
            .points(&cx, &target)
            .await
            .unwrap()
            .remove(0);
        let request = Settle::Promote {
            staging,
            replace: Replace::OnlyEmpty,
            marker: marker(&cx, &point),
        };
        lab.store.settle(&cx, &request).await.unwrap();
        assert_eq!(measure(&target.mountpoint), live);
    });
}
