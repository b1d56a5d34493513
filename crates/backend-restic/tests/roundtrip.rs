//! What was backed up comes back: everything, from anywhere, a second time for nothing.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::*;
use reseed_backend_restic::backup::backup;
use reseed_backend_restic::check::ReadData;
use reseed_backend_restic::error::EngineError;

#[test]
fn everything_comes_back() {
    let lab = Lab::new();
    let tree = lab.path("tree");
    make_tree(&tree);
    let summary = lab.backup(&tree);
    assert_eq!((summary.unreadable, &summary.examples[..]), (0, &[][..]));
    let report = lab.restore(&lab.restore_job(&summary.snapshot, "out")).unwrap();
    assert!(report.is_exact(), "{:?}", report.details);
    assert!(report.locked);
    assert_same(&tree, &lab.path("out"));
    assert_eq!(report.hard_links, 2);
    let sparse = fs::metadata(lab.path("out/sparse")).unwrap();
    assert!(
        sparse.blocks() * 512 < sparse.len() / 4,
        "{} blocks",
        sparse.blocks()
    );
    assert_eq!(lab.locks(), 0);
    let check = lab
        .engine
        .open(&lab.password)
        .unwrap()
        .check(ReadData::All, &never())
        .unwrap();
    assert_eq!(check.errors, Vec::<String>::new());
    assert!(check.bytes_read > 3_000_000);
}

#[test]
fn an_unchanged_tree_adds_nothing_from_whichever_path() {
    let lab = Lab::new();
    make_tree(&lab.path("one"));
    let first = lab.backup(&lab.path("one"));
    assert!(first.added_data > 0);
    let again = lab.backup(&lab.path("one"));
    assert_eq!((again.added_data, again.added_stored), (0, 0));
    fs::rename(lab.path("one"), lab.path("two")).unwrap();
    let moved = lab.backup(&lab.path("two"));
    assert_eq!((moved.added_data, moved.added_stored), (0, 0));
    assert_eq!(
        lab.engine
            .open(&lab.password)
            .unwrap()
            .snapshots()
            .unwrap()
            .readable
            .len(),
        3
    );
}

#[test]
fn a_copy_elsewhere_adds_no_data() {
    let lab = Lab::new();
    let (one, two) = (lab.path("one"), lab.path("two"));
    for root in [&one, &two] {
        fs::create_dir(root).unwrap();
        fs::write(root.join("file"), noise(3, 500_000)).unwrap();
    }
    lab.backup(&one);
    assert_eq!(lab.backup(&two).added_data, 0);
}

/// `ignore_inode` of the library is inverted and would skip this file.
#[test]
fn a_replaced_file_of_the_same_size_and_time_is_noticed() {
    let lab = Lab::new();
    let tree = lab.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), b"before").unwrap();
    set_time(&tree.join("file"), 1_600_000_000, 0);
    lab.backup(&tree);
    fs::write(lab.path("new"), b"after!").unwrap();
    set_time(&lab.path("new"), 1_600_000_000, 0);
    fs::rename(lab.path("new"), tree.join("file")).unwrap();
    let second = lab.backup(&tree);
    assert_eq!(second.added_data, 6);
    lab.restore(&lab.restore_job(&second.snapshot, "out")).unwrap();
    assert_eq!(fs::read(lab.path("out/file")).unwrap(), b"after!");
}

/// It is recorded, and its restore is the error that a restore of nothing always is: whoever wants an empty directory
/// makes one.
#[test]
fn an_empty_directory_can_be_backed_up_and_is_nothing_to_restore() {
    let lab = Lab::new();
    let tree = lab.path("tree");
    fs::create_dir(&tree).unwrap();
    let summary = lab.backup(&tree);
    let error = lab
        .restore(&lab.restore_job(&summary.snapshot, "out"))
        .unwrap_err();
    assert!(matches!(error, EngineError::EmptyResult { .. }), "{error}");
    assert!(!lab.path("out").exists(), "nothing was written");
    assert_eq!(lab.locks(), 0);
}

#[test]
fn one_path_comes_back_in_its_place() {
    let lab = Lab::new();
    let tree = lab.path("tree");
    make_tree(&tree);
    let snapshot = lab.backup(&tree).snapshot;
    for (number, only) in ["sub/deep", "sub/compressible", "link", "empty-dir"]
        .into_iter()
        .enumerate()
    {
        let out = format!("out{number}");
        let mut job = lab.restore_job(&snapshot, &out);
        job.only = Some(only.into());
        lab.restore(&job).unwrap();
        let (expected, restored) = (look(&tree.join(only)), look(&lab.path(&out).join(only)));
        assert_eq!(
            expected.keys().collect::<Vec<_>>(),
            restored.keys().collect::<Vec<_>>()
        );
        let top = only.split('/').next().unwrap();
        let names: Vec<_> = fs::read_dir(lab.path(&out))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names, [os(top)], "nothing beside it");
    }
}

/// A share of Samba's, say: what is made in it is everybody's in a group. A restore is not.
#[test]
fn what_the_place_hands_on_is_no_part_of_what_comes_back() {
    let lab = Lab::new();
    let tree = lab.path("tree");
    make_tree(&tree);
    let snapshot = lab.backup(&tree).snapshot;
    let share = lab.path("share");
    fs::create_dir(&share).unwrap();
    set_acl(&share, DEFAULT_ACL);
    lab.restore(&lab.restore_job(&snapshot, "share/out")).unwrap();
    assert_same(&tree, &share.join("out"));
    // Nor where only a part does, and nothing says what the directory itself should be.
    let mut job = lab.restore_job(&snapshot, "share/part");
    job.only = Some("sub/deep/er".into());
    lab.restore(&job).unwrap();
    assert_same(&tree.join("sub/deep/er"), &share.join("part/sub/deep/er"));
}

/// Two that back up the same at the same time don't see each other's index.
#[test]
fn what_lies_in_two_packs_comes_back_where_one_is_sound() {
    let lab = Lab::new();
    let tree = lab.path("tree");
    make_tree(&tree);
    let (index, aside) = (lab.path("repo/index"), lab.path("aside"));
    let first = lab.backup(&tree).snapshot;
    let of_first = lab.packs();
    fs::rename(&index, &aside).unwrap();
    fs::create_dir(&index).unwrap();
    let second = lab.backup(&tree).snapshot;
    for file in fs::read_dir(&aside).unwrap().map(Result::unwrap) {
        fs::rename(file.path(), index.join(file.file_name())).unwrap();
    }
    let packs = lab.packs();
    let restored = |snapshot: &str| {
        let restored = lab.restore(&lab.restore_job(snapshot, "out"));
        if let Ok(report) = &restored {
            assert!(report.is_exact());
            assert_same(&tree, &lab.path("out"));
        }
        let _ = fs::remove_dir_all(lab.path("out"));
        restored
    };
    assert_eq!(
        (of_first.len(), packs.len()),
        (2, 4),
        "one of data and one of trees each"
    );
    let mut around = 0;
    let missing = |pack: &std::path::Path| fs::remove_file(pack).unwrap();
    let damaged = |pack: &std::path::Path| flip_bit(pack, 0.3);
    let damages: [&dyn Fn(&std::path::Path); 2] = [&missing, &damaged];
    for pack in &packs {
        for damage in damages {
            let good = fs::read(pack).unwrap();
            damage(pack);
            for snapshot in [&first, &second] {
                let told = restored(snapshot).unwrap().details;
                around += usize::from(told.iter().any(|what| what.contains("is damaged")));
            }
            fs::write(pack, good).unwrap();
        }
    }
    assert!(around >= 4, "the index had neither copy for a damaged one");
    // Both copies of all data.
    for pack in &packs[..2] {
        flip_bit(pack, 0.3);
    }
    let error = restored(&first).unwrap_err();
    assert!(matches!(error, EngineError::CorruptPack { .. }), "{error}");
}

/// What an earlier restore set on a directory is for what is made in it later by others, not by the next restore.
#[test]
fn what_comes_back_later_inherits_nothing_either() {
    let lab = Lab::new();
    let tree = lab.path("tree");
    fs::create_dir_all(tree.join("shared/below")).unwrap();
    let made = |out: &std::path::Path| {
        ["top", "shared/file", "shared/below/file", "shared/fifo"].map(|name| out.join(name))
    };
    for path in made(&tree) {
        match path.ends_with("fifo") {
            true => make_fifo(&path),
            false => fs::write(&path, b"1").unwrap(),
        }
    }
    for dir in ["", "shared", "shared/below"] {
        set_acl(&tree.join(dir), DEFAULT_ACL);
    }
    let snapshot = lab.backup(&tree).snapshot;
    let mut job = lab.restore_job(&snapshot, "out");
    job.resume = true;
    lab.restore(&job).unwrap();
    assert_same(&tree, &lab.path("out"));
    for path in made(&lab.path("out")) {
        fs::remove_file(path).unwrap();
    }
    lab.restore(&job).unwrap();
    assert_same(&tree, &lab.path("out"));
}

#[test]
fn what_selects_nothing_is_an_error() {
    let lab = Lab::new();
    let tree = lab.path("tree");
    make_tree(&tree);
    let snapshot = lab.backup(&tree).snapshot;
    for (only, invalid) in [
        ("nope", false),
        ("sub/nope", false),
        ("empty/x", false),
        ("../tree", true),
        ("/etc", true),
        ("", true),
    ] {
        let mut job = lab.restore_job(&snapshot, "out");
        job.only = Some(only.into());
        match lab.restore(&job).unwrap_err() {
            EngineError::EmptyResult { .. } => assert!(!invalid, "{only}"),
            EngineError::Invalid { .. } => assert!(invalid, "{only}"),
            other => panic!("{only}: {other}"),
        }
        assert!(!lab.path("out").exists(), "nothing was written");
    }
    let missing = lab.restore(&lab.restore_job("0123abcd", "out")).unwrap_err();
    assert!(matches!(missing, EngineError::NoSnapshot { .. }), "{missing}");
}

#[test]
fn snapshots_tell_what_was_recorded() {
    let lab = Lab::new();
    make_tree(&lab.path("tree"));
    let job = lab.job(&lab.path("tree"));
    let summary = backup(&lab.engine, &lab.password, &job, Arc::new(|_| ()), never()).unwrap();
    let listed = lab
        .engine
        .open(&lab.password)
        .unwrap()
        .snapshots()
        .unwrap()
        .readable;
    assert_eq!(listed.len(), 1);
    let one = &listed[0];
    assert_eq!(
        (&one.id, one.time, one.host.as_str()),
        (&summary.snapshot, job.time, "testhost")
    );
    assert_eq!(
        (one.tags.clone(), one.paths.clone()),
        (vec!["a-tag".to_owned()], vec![AS_PATH.to_owned()])
    );
    assert_eq!((one.files, one.bytes), (Some(summary.files), Some(summary.bytes)));
    assert_eq!(
        lab.engine
            .open(&lab.password)
            .unwrap()
            .snapshot(&one.id[..8])
            .unwrap(),
        *one
    );
}

#[test]
fn progress_reaches_the_total() {
    let lab = Lab::new();
    make_tree(&lab.path("tree"));
    let last = Arc::new(Mutex::new(None));
    let sink = Arc::clone(&last);
    let report: reseed_backend_restic::progress::OnProgress =
        Arc::new(move |progress| *sink.lock().unwrap() = Some(progress));
    let job = lab.job(&lab.path("tree"));
    let summary = backup(&lab.engine, &lab.password, &job, Arc::clone(&report), never()).unwrap();
    let seen = last.lock().unwrap().take().unwrap();
    assert_eq!((seen.bytes, seen.total), (summary.bytes, Some(summary.bytes)));
    let job = lab.restore_job(&summary.snapshot, "out");
    let restored =
        reseed_backend_restic::restore::restore(&lab.engine, &lab.password, &job, report, never()).unwrap();
    let seen = last.lock().unwrap().take().unwrap();
    assert_eq!(
        (seen.bytes, seen.files, seen.total),
        (restored.bytes, restored.files, Some(restored.bytes))
    );
}

#[test]
fn a_cancelled_backup_leaves_no_snapshot_and_no_lock() {
    let lab = Lab::new();
    make_tree(&lab.path("tree"));
    for limit in [0_u64, 1, 5, 20, 40] {
        let asked = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&asked);
        let cancelled = Arc::new(move || counter.fetch_add(1, Ordering::Relaxed) >= limit);
        let job = lab.job(&lab.path("tree"));
        let error = backup(&lab.engine, &lab.password, &job, Arc::new(|_| ()), cancelled).unwrap_err();
        assert_eq!(error, EngineError::Cancelled, "after {limit}");
        assert_eq!((lab.locks(), lab.files_in("snapshots").len()), (0, 0));
    }
    let flag = Arc::new(AtomicBool::new(false));
    let late = Arc::clone(&flag);
    let job = lab.job(&lab.path("tree"));
    let on_progress: reseed_backend_restic::progress::OnProgress =
        Arc::new(move |_| late.store(true, Ordering::Relaxed));
    let stop = Arc::clone(&flag);
    let error = backup(
        &lab.engine,
        &lab.password,
        &job,
        on_progress,
        Arc::new(move || stop.load(Ordering::Relaxed)),
    )
    .unwrap_err();
    assert_eq!(error, EngineError::Cancelled);
    // What was uploaded is harmless, and used by the next backup.
    lab.backup(&lab.path("tree"));
    assert_eq!(lab.files_in("snapshots").len(), 1);
}

#[test]
fn a_source_that_is_missing_or_no_directory_is_an_error() {
    let lab = Lab::new();
    fs::write(lab.path("file"), b"").unwrap();
    for source in ["nowhere", "file"] {
        let job = lab.job(&lab.path(source));
        let error = backup(&lab.engine, &lab.password, &job, Arc::new(|_| ()), never()).unwrap_err();
        assert!(matches!(error, EngineError::Source { .. }), "{error}");
    }
    assert_eq!(lab.files_in("snapshots").len(), 0);
}

/// What root cannot read either: paths longer than the kernel takes.
fn make_unreachable(root: &std::path::Path) {
    let name = "d".repeat(250);
    let mut dir = std::os::fd::OwnedFd::from(fs::File::open(root).unwrap());
    for _ in 0..17 {
        rustix::fs::mkdirat(&dir, &name, rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY;
        dir = rustix::fs::openat(&dir, &name, flags, rustix::fs::Mode::empty()).unwrap();
    }
}

#[test]
fn unreadable_things_make_a_backup_partial() {
    let lab = Lab::new();
    let tree = lab.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("readable"), b"1").unwrap();
    make_unreachable(&tree);
    let summary = lab.backup(&tree);
    assert_eq!(
        (summary.unreadable, summary.files),
        (1, 1),
        "{:?}",
        summary.examples
    );
    assert!(summary.examples[0].contains("too long"), "{:?}", summary.examples);
    let snapshot = lab
        .engine
        .open(&lab.password)
        .unwrap()
        .snapshot(&summary.snapshot)
        .unwrap();
    assert!(snapshot.tags.contains(&"partial".to_owned()));
    let mut job = lab.restore_job(&summary.snapshot, "out");
    job.only = Some("readable".into());
    assert_eq!(lab.restore(&job).unwrap().files, 1);
}
