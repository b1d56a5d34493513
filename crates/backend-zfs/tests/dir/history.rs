//! What is taken stays as it was, and what is unchanged is shared between snapshots but never with live files.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use reseed_core::SnapshotStore;
use reseed_core::event::{Event, Recorder};
use reseed_testkit::conformance::{block_on, context, minute};
use reseed_testkit::files::{Files as _, assert_same, write_odd_tree};

use crate::lab::OnDisk;

fn ino(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

#[test]
fn unchanged_files_are_one_inode_in_both_snapshots_and_another_live() {
    block_on(async {
        let (lab, cx) = (OnDisk::new(), context("share"));
        let target = lab.target("a");
        write_odd_tree(&lab.files, &target.mountpoint);
        let one = lab.snapshot(&cx, &target, "one", 1).await;
        fs::write(target.mountpoint.join("-rf"), "changed").unwrap();
        fs::set_permissions(
            target.mountpoint.join(".hidden"),
            fs::Permissions::from_mode(0o640),
        )
        .unwrap();
        let two = lab.snapshot(&cx, &target, "two", 2).await;
        let (one, two) = (
            lab.tree_of(&cx, &target, &one.reference()).await,
            lab.tree_of(&cx, &target, &two.reference()).await,
        );
        for same in [
            "db/main.db",
            "deep/er/still/file.txt",
            "private",
            "sparse",
            "run.sh",
            "empty",
        ] {
            assert_eq!(
                ino(&one.join(same)),
                ino(&two.join(same)),
                "{same} is stored twice"
            );
            assert_ne!(
                ino(&one.join(same)),
                ino(&target.mountpoint.join(same)),
                "{same} is the live file"
            );
        }
        for other in ["-rf", ".hidden"] {
            assert_ne!(
                ino(&one.join(other)),
                ino(&two.join(other)),
                "{other} changed in history"
            );
        }
        assert_eq!(
            lab.files.read(&one.join("-rf")).as_deref(),
            Some(&b"leading dash"[..])
        );
        assert_eq!(fs::metadata(two.join(".hidden")).unwrap().mode() & 0o777, 0o640);
        assert_ne!(fs::metadata(one.join(".hidden")).unwrap().mode() & 0o777, 0o640);
        assert_same(
            &lab.files.list(&target.mountpoint),
            &lab.files.list(&two),
            "the second snapshot",
        );
    });
}

#[test]
fn a_change_that_hides_behind_its_old_time_is_found() {
    block_on(async {
        let (lab, cx) = (OnDisk::new(), context("hide"));
        let target = lab.target("a");
        let file = target.mountpoint.join("db");
        lab.files.write(&file, b"before");
        let one = lab.snapshot(&cx, &target, "one", 1).await;
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        let open = fs::OpenOptions::new().write(true).open(&file).unwrap();
        open.write_all_at(b"AFTER!", 0).unwrap();
        open.set_modified(time).unwrap();
        let two = lab.snapshot(&cx, &target, "two", 2).await;
        assert_ne!(one.fingerprint, two.fingerprint);
        for (snapshot, content) in [(one, b"before"), (two, b"AFTER!")] {
            let tree = lab.tree_of(&cx, &target, &snapshot.reference()).await;
            assert_eq!(lab.files.read(&tree.join("db")).as_deref(), Some(&content[..]));
        }
    });
}

#[test]
fn equal_files_stay_two_and_names_of_one_file_stay_one() {
    block_on(async {
        let (lab, cx) = (OnDisk::new(), context("links"));
        let target = lab.target("a");
        let live = |name: &str| target.mountpoint.join(name);
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        let stamp = |name: &str| {
            fs::File::options()
                .write(true)
                .open(live(name))
                .unwrap()
                .set_modified(time)
                .unwrap();
        };
        // Two names of one file, and two files that are equal in everything.
        lab.files.write(&live("a"), b"same");
        fs::hard_link(live("a"), live("b")).unwrap();
        lab.files.write(&live("c"), b"same");
        lab.files.write(&live("d"), b"same");
        ["a", "c", "d"].into_iter().for_each(stamp);
        let one = lab.snapshot(&cx, &target, "one", 1).await;
        // Now the other way round.
        fs::remove_file(live("b")).unwrap();
        lab.files.write(&live("b"), b"same");
        fs::remove_file(live("d")).unwrap();
        fs::hard_link(live("c"), live("d")).unwrap();
        stamp("b");
        let two = lab.snapshot(&cx, &target, "two", 2).await;
        let three = lab.snapshot(&cx, &target, "three", 3).await;
        let one = lab.tree_of(&cx, &target, &one.reference()).await;
        assert_eq!(ino(&one.join("a")), ino(&one.join("b")));
        assert_ne!(ino(&one.join("c")), ino(&one.join("d")));
        assert_eq!(two.fingerprint, three.fingerprint);
        for snapshot in [two, three] {
            let tree = lab.tree_of(&cx, &target, &snapshot.reference()).await;
            assert_ne!(ino(&tree.join("a")), ino(&tree.join("b")), "two files became one");
            assert_eq!(ino(&tree.join("c")), ino(&tree.join("d")), "one file became two");
            assert_same(
                &lab.files.list(&target.mountpoint),
                &lab.files.list(&tree),
                "the snapshot",
            );
        }
    });
}

#[test]
fn a_file_that_is_written_to_all_the_time_is_taken_and_told() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let (stop, wrote) = (AtomicBool::new(false), AtomicBool::new(false));
    let lab = OnDisk::new();
    let target = lab.target("a");
    let file = target.mountpoint.join("log");
    lab.files.write(&file, &vec![1; 16 << 20]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let open = fs::OpenOptions::new().write(true).open(&file).unwrap();
            let mut at = 0;
            while !stop.load(Ordering::Relaxed) {
                open.write_all_at(&[7], at % (16 << 20)).unwrap();
                at += 4096;
                wrote.store(true, Ordering::Relaxed);
            }
        });
        while !wrote.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        let events = std::sync::Arc::new(Recorder::default());
        let silent = context("torn");
        let cx = reseed_core::Context::new(silent.run, events.clone(), silent.cancel);
        let told = |events: Vec<Event>| {
            events.into_iter().any(|event| {
                matches!(event, Event::Warning { message, hint: Some(_), .. } if message.contains("\"log\""))
            })
        };
        // On a busy machine a copy can pass without a write.
        let mut made = Vec::new();
        let mut is_told = false;
        for number in 1..=50 {
            made.push(block_on(lab.snapshot(
                &cx,
                &target,
                &format!("s{number:02}"),
                number,
            )));
            is_told = told(events.take());
            if is_told {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(is_told, "a mixture was taken without a word");
        // The record, the list and the tree agree all the same.
        let listed = block_on(lab.store.list(&silent_context(), std::slice::from_ref(&target))).unwrap();
        assert_eq!(listed, made);
    });
}

fn silent_context() -> reseed_core::Context {
    context("look")
}

#[test]
fn two_runs_at_once_wait_for_each_other() {
    block_on(async {
        let lab = OnDisk::new();
        let target = lab.target("a");
        write_odd_tree(&lab.files, &target.mountpoint);
        let (first, second) = (context("first"), context("second"));
        tokio::join!(
            lab.snapshot(&first, &target, "one", 1),
            lab.snapshot(&second, &target, "two", 2)
        );
        let listed = lab
            .store
            .list(&first, std::slice::from_ref(&target))
            .await
            .unwrap();
        assert_eq!(listed.len(), 2);
        assert_eq!(listed[0].fingerprint, listed[1].fingerprint);
        assert_eq!(listed[1].taken_at, minute(2));
    });
}
