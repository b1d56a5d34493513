//! Everything that can be wrong with a repository, a target or a request: an error of its own kind, never a panic,
//! never a loss.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::Arc;

use common::*;
use reseed_backend_restic::backup::backup;
use reseed_backend_restic::check::ReadData;
use reseed_backend_restic::error::EngineError;
use reseed_backend_restic::repo::Engine;
use reseed_backend_restic::restore::{Fault, RestoreJob, RestoreReport, restore_with};
use reseed_backend_restic::secret::Password;

#[test]
fn the_ways_of_not_opening_are_told_apart() {
    let lab = Lab::new();
    let at = |path: &Path| {
        Engine::local(path, Arc::clone(&lab.clock))
            .open(&lab.password)
            .unwrap_err()
    };
    assert!(matches!(
        at(&lab.path("nowhere")),
        EngineError::NoRepository { .. }
    ));
    fs::create_dir(lab.path("empty")).unwrap();
    assert!(matches!(at(&lab.path("empty")), EngineError::NoRepository { .. }));
    fs::write(lab.path("file"), b"").unwrap();
    assert!(matches!(at(&lab.path("file")), EngineError::PathIsFile { .. }));
    assert!(matches!(
        at(&lab.path("file/below")),
        EngineError::PathIsFile { .. }
    ));
    let wrong = lab.engine.open(&Password::new("wrong")).unwrap_err();
    assert!(matches!(wrong, EngineError::WrongPassword { .. }), "{wrong}");
    assert!(wrong.hint().is_some());

    let config = fs::read(lab.path("repo/config")).unwrap();
    flip_bit(&lab.path("repo/config"), 0.5);
    assert!(matches!(at(&lab.path("repo")), EngineError::Unreadable { .. }));
    fs::remove_file(lab.path("repo/config")).unwrap();
    let error = at(&lab.path("repo"));
    assert!(
        matches!(error, EngineError::Unreadable { .. }),
        "keys without a config are no empty place: {error}"
    );
    fs::write(lab.path("repo/config"), config).unwrap();

    let key = lab.files_in("keys").remove(0);
    let good = fs::read(&key).unwrap();
    for bad in [
        &b"{}"[..],
        b"",
        b"not json",
        br#"{"kdf":"scrypt","N":0,"r":8,"p":1,"data":"","salt":""}"#,
    ] {
        fs::remove_file(lab.files_in("keys").remove(0)).unwrap();
        forge::write_named(&lab.path("repo/keys"), bad);
        assert!(matches!(at(&lab.path("repo")), EngineError::Unreadable { .. }));
    }
    fs::remove_file(lab.files_in("keys").remove(0)).unwrap();
    assert!(matches!(at(&lab.path("repo")), EngineError::MissingKey { .. }));
    fs::write(&key, good).unwrap();
    lab.engine.open(&lab.password).unwrap();
}

#[test]
fn a_damaged_key_takes_no_other_with_it() {
    let lab = Lab::new();
    let keys = lab.path("repo/keys");
    let sound = lab.files_in("keys").remove(0);
    let text = fs::read_to_string(&sound).unwrap();
    let mut file: serde_json::Value = serde_json::from_str(&text).unwrap();
    // One that would take all memory there is, before the sound one and behind it.
    file["N"] = (1_u32 << 30).into();
    file["r"] = u32::MAX.into();
    for (first, content) in [(true, "garbage".to_owned()), (false, file.to_string())] {
        // A name is the hash of what is in it, and white space at its end doesn't count.
        let mut named = content;
        loop {
            let path = forge::write_named(&keys, named.as_bytes());
            if (path < sound) == first {
                break;
            }
            fs::remove_file(path).unwrap();
            named.push(' ');
        }
    }
    let engine = || Engine::local(lab.path("repo"), Arc::clone(&lab.clock));
    engine().open(&lab.password).unwrap();
    let wrong = engine().open(&Password::new("wrong")).unwrap_err();
    assert!(matches!(wrong, EngineError::WrongPassword { .. }), "{wrong}");
    fs::remove_file(sound).unwrap();
    let error = engine().open(&lab.password).unwrap_err();
    assert!(
        matches!(&error, EngineError::Unreadable { what, .. } if what.starts_with("key ")),
        "{error}"
    );
    // An engine that has opened it before goes by the keys that are there now.
    let known = Lab::new();
    known.engine.open(&known.password).unwrap();
    let key = known.files_in("keys").remove(0);
    fs::rename(&key, known.path("key")).unwrap();
    let gone = known.engine.open(&known.password).unwrap_err();
    assert!(matches!(gone, EngineError::MissingKey { .. }), "{gone}");
    fs::rename(known.path("key"), key).unwrap();
    known.engine.open(&known.password).unwrap();
    let wrong = known.engine.open(&Password::new("wrong")).unwrap_err();
    assert!(matches!(wrong, EngineError::WrongPassword { .. }), "{wrong}");
}

#[test]
fn init_only_where_nothing_is() {
    let lab = Lab::bare();
    fs::write(lab.path("repo"), b"a file").unwrap();
    assert!(matches!(
        lab.engine.init(&lab.password),
        Err(EngineError::PathIsFile { .. })
    ));
    fs::remove_file(lab.path("repo")).unwrap();
    fs::create_dir(lab.path("repo")).unwrap();
    fs::write(lab.path("repo/something"), b"of somebody").unwrap();
    assert!(matches!(
        lab.engine.init(&lab.password),
        Err(EngineError::AlreadyExists { .. })
    ));
    assert_eq!(walk(&lab.path("repo")).len(), 1, "nothing was added");
    fs::remove_file(lab.path("repo/something")).unwrap();
    let (id, version) = lab.engine.init(&lab.password).unwrap();
    assert_eq!((id.len(), version), (64, 2));
    let before = walk(&lab.path("repo")).len();
    assert!(matches!(
        lab.engine.init(&lab.password),
        Err(EngineError::AlreadyExists { .. })
    ));
    assert_eq!(walk(&lab.path("repo")).len(), before);
    lab.engine.open(&lab.password).unwrap();
}

/// A lab with one backup of noise in several packs, and its snapshot.
fn noisy() -> (Lab, String) {
    let lab = Lab::new();
    let tree = lab.path("tree");
    fs::create_dir(&tree).unwrap();
    for number in 0..6 {
        fs::write(tree.join(format!("file{number}")), noise(number, 700_000)).unwrap();
    }
    let snapshot = lab.backup(&tree).snapshot;
    (lab, snapshot)
}

fn errors_of_check(lab: &Lab, read: ReadData) -> Vec<String> {
    lab.engine
        .open(&lab.password)
        .unwrap()
        .check(read, &never())
        .unwrap()
        .errors
}

#[test]
fn damaged_packs_are_found_named_and_survived() {
    let (lab, snapshot) = noisy();
    let pack = lab.packs().remove(0);
    let good = fs::read(&pack).unwrap();
    let name = pack.file_name().unwrap().to_str().unwrap().to_owned();
    let damage: [(&str, &dyn Fn()); 4] = [
        ("flipped bit", &|| flip_bit(&pack, 0.4)),
        ("cut off", &|| truncate(&pack, 1_000_000)),
        ("emptied", &|| truncate(&pack, 0)),
        ("missing", &|| fs::remove_file(&pack).unwrap()),
    ];
    for (number, (what, damage)) in damage.into_iter().enumerate() {
        damage();
        let error = lab
            .restore(&lab.restore_job(&snapshot, &format!("out{number}")))
            .unwrap_err();
        let EngineError::CorruptPack {
            pack: named, files, ..
        } = &error
        else {
            panic!("{what}: {error}")
        };
        assert_eq!(*named, name, "{what}");
        assert!(
            files.iter().all(|file| file.starts_with("file")) && !files.is_empty(),
            "{what}: {files:?}"
        );
        let structure = errors_of_check(&lab, ReadData::No);
        let all = errors_of_check(&lab, ReadData::All);
        assert_eq!(
            structure.is_empty(),
            what == "flipped bit",
            "{what}: {structure:?}"
        );
        assert!(
            all.iter().any(|error| error.contains(&name[..8])),
            "{what}: {all:?}"
        );
        assert_eq!(lab.locks(), 0);
        fs::write(&pack, &good).unwrap();
    }
    assert_eq!(errors_of_check(&lab, ReadData::All), Vec::<String>::new());
    // What an attempt on a damaged repository left is continued from once it is whole.
    let report = lab
        .restore(&RestoreJob {
            resume: true,
            ..lab.restore_job(&snapshot, "out0")
        })
        .unwrap();
    assert!(report.is_exact());
    assert_same(&lab.path("tree"), &lab.path("out0"));
}

#[test]
fn checking_in_parts_covers_every_pack_once() {
    let (lab, _) = noisy();
    for number in 10..14 {
        fs::write(lab.path("tree/more"), noise(number, 100_000)).unwrap();
        lab.backup(&lab.path("tree"));
    }
    let check = |read| {
        lab.engine
            .open(&lab.password)
            .unwrap()
            .check(read, &never())
            .unwrap()
    };
    let all = check(ReadData::All);
    let parts: Vec<_> = (1..=3).map(|n| check(ReadData::Part { n, of: 3 })).collect();
    assert_eq!(
        parts.iter().map(|part| part.packs_read).sum::<u64>(),
        all.packs_read
    );
    assert_eq!(
        parts.iter().map(|part| part.bytes_read).sum::<u64>(),
        all.bytes_read
    );
    for (n, of) in [(0, 3), (4, 3), (0, 0)] {
        let open = lab.engine.open(&lab.password).unwrap();
        assert!(matches!(
            open.check(ReadData::Part { n, of }, &never()),
            Err(EngineError::Invalid { .. })
        ));
    }
}

#[test]
fn a_missing_or_damaged_index_is_an_error_that_names_what_is_missing() {
    let (lab, snapshot) = noisy();
    let index = lab.files_in("index").remove(0);
    let good = fs::read(&index).unwrap();
    flip_bit(&index, 0.5);
    let error = lab.restore(&lab.restore_job(&snapshot, "out")).unwrap_err();
    assert!(matches!(error, EngineError::Unreadable { .. }), "{error}");
    assert!(!errors_of_check(&lab, ReadData::All).is_empty());
    fs::remove_file(&index).unwrap();
    let error = lab.restore(&lab.restore_job(&snapshot, "out")).unwrap_err();
    assert!(matches!(error, EngineError::MissingBlob { .. }), "{error}");
    assert!(!errors_of_check(&lab, ReadData::No).is_empty());
    assert!(!lab.path("out").exists());
    fs::write(&index, good).unwrap();
    lab.restore(&lab.restore_job(&snapshot, "out")).unwrap();
}

#[test]
fn a_damaged_snapshot_file_takes_no_other_with_it() {
    let (lab, sound) = noisy();
    fs::write(lab.path("tree/more"), b"1").unwrap();
    let damaged = lab.backup(&lab.path("tree")).snapshot;
    let file = lab.path("repo/snapshots").join(&damaged);
    let good = fs::read(&file).unwrap();
    let damage: [&dyn Fn(); 4] = [
        &|| flip_bit(&file, 0.5),
        &|| truncate(&file, 100),
        &|| truncate(&file, 10),
        &|| truncate(&file, 0),
    ];
    for (number, damage) in damage.into_iter().enumerate() {
        damage();
        let open = lab.engine.open(&lab.password).unwrap();
        let listed = open.snapshots().unwrap();
        assert_eq!(listed.readable.len(), 1, "{number}");
        assert_eq!(listed.readable[0].id, sound);
        assert_eq!(listed.unreadable.len(), 1, "{number}");
        assert_eq!(listed.unreadable[0].0, damaged);
        let asked = open.snapshot(&damaged[..12]).unwrap_err();
        assert!(matches!(asked, EngineError::Unreadable { .. }), "{asked}");
        // All the rest is looked at, too, and nothing else is found.
        let errors = errors_of_check(&lab, ReadData::All);
        assert!(errors.len() == 1 && errors[0].contains(&damaged), "{errors:?}");
        lab.restore(&lab.restore_job(&sound, &format!("out{number}")))
            .unwrap();
        fs::write(&file, &good).unwrap();
    }
    // A backup goes on, and knows its parent by the sound one.
    truncate(&file, 0);
    let more = lab.backup(&lab.path("tree"));
    assert!(more.added_data <= 1, "{more:?}");
    // Alone it is still no empty repository.
    for snapshot in [&sound, &more.snapshot] {
        fs::remove_file(lab.path("repo/snapshots").join(snapshot)).unwrap();
    }
    let listed = lab.engine.open(&lab.password).unwrap().snapshots().unwrap();
    assert_eq!((listed.readable.len(), listed.unreadable.len()), (0, 1));
}

#[test]
fn a_lock_that_is_garbage_is_in_nobodys_way() {
    let (lab, snapshot) = noisy();
    let stray = lab.path("repo/locks").join("0".repeat(64));
    fs::write(&stray, b"garbage").unwrap();
    let report = lab.restore(&lab.restore_job(&snapshot, "out")).unwrap();
    assert!(report.locked && report.warnings.len() == 1, "{report:?}");
    let backed_up = lab.backup(&lab.path("tree"));
    assert_eq!(backed_up.warnings.len(), 1, "{backed_up:?}");
    assert!(backed_up.warnings[0].contains("0000"), "{backed_up:?}");
    assert_eq!(fs::read(&stray).unwrap(), b"garbage");
    assert_eq!(lab.locks(), 1);
}

#[test]
fn a_flipped_bit_anywhere_in_the_repository_is_survived() {
    let (lab, snapshot) = noisy();
    let mut files: Vec<_> = ["data", "index", "snapshots", "keys"]
        .iter()
        .flat_map(|dir| lab.files_in(dir))
        .collect();
    files.push(lab.path("repo/config"));
    for (number, file) in files.into_iter().enumerate() {
        let good = fs::read(&file).unwrap();
        for at in [0.0, 0.3, 0.999] {
            flip_bit(&file, at);
            let job = RestoreJob {
                resume: true,
                ..lab.restore_job(&snapshot, "out")
            };
            // A damaged pack header or a flipped bit in a key's comment harms no restore; everything else is told.
            if let Err(error) = lab.restore(&job) {
                assert!(
                    !matches!(error, EngineError::Panicked { .. }),
                    "{number} {at}: {error}"
                );
            } else {
                assert_same(&lab.path("tree"), &lab.path("out"));
            }
            if let Ok(open) = lab.engine.open(&lab.password) {
                assert!(open.check(ReadData::All, &never()).is_ok());
            }
            fs::write(&file, &good).unwrap();
        }
    }
    assert_eq!(lab.locks(), 0);
}

fn restore_failing(lab: &Lab, job: &RestoreJob, fault: &Fault) -> Result<RestoreReport, EngineError> {
    restore_with(
        &lab.engine,
        &lab.password,
        job,
        Arc::new(|_| ()),
        &never(),
        Some(fault),
    )
}

#[test]
fn a_full_disk_is_told_and_the_next_restore_goes_on() {
    let (lab, snapshot) = noisy();
    let job = lab.restore_job(&snapshot, "out");
    let error = restore_failing(
        &lab,
        &RestoreJob {
            workers: 1,
            ..job.clone()
        },
        &Fault::new(28, 3),
    )
    .unwrap_err();
    assert!(
        matches!(&error, EngineError::NoSpace { path } if path.starts_with("file")),
        "{error}"
    );
    assert_eq!(lab.locks(), 0);
    let refused = lab.restore(&job).unwrap_err();
    assert!(matches!(refused, EngineError::TargetConflict { .. }), "{refused}");
    let report = lab.restore(&RestoreJob { resume: true, ..job }).unwrap();
    assert!(report.is_exact());
    assert!(
        report.reused > 0 && report.reused < report.bytes,
        "{} of {}",
        report.reused,
        report.bytes
    );
    assert_same(&lab.path("tree"), &lab.path("out"));
}

#[test]
fn a_restore_interrupted_at_any_write_converges() {
    let lab = Lab::new();
    make_tree(&lab.path("tree"));
    let snapshot = lab.backup(&lab.path("tree")).snapshot;
    let job = RestoreJob {
        resume: true,
        ..lab.restore_job(&snapshot, "out")
    };
    for after in (0..30).step_by(5) {
        match restore_failing(&lab, &job, &Fault::new(5, after)) {
            Err(EngineError::Target { .. }) | Ok(_) => {}
            Err(other) => panic!("{other}"),
        }
    }
    let report = lab.restore(&job).unwrap();
    assert!(report.is_exact(), "{:?}", report.details);
    assert_same(&lab.path("tree"), &lab.path("out"));
    let again = lab.restore(&job).unwrap();
    assert_eq!((again.reused, again.removed), (again.bytes, 0));
    assert_same(&lab.path("tree"), &lab.path("out"));
}

#[test]
fn what_is_right_is_not_touched_and_what_is_not_is_set() {
    use std::os::unix::fs::MetadataExt as _;
    let lab = Lab::new();
    let (tree, out) = (lab.path("tree"), lab.path("out"));
    fs::create_dir(&tree).unwrap();
    let wrong = ["mode", "modified", "accessed", "attribute", "longer"];
    for (number, name) in (0..).zip(wrong.into_iter().chain(["right"])) {
        fs::write(tree.join(name), noise(number, 10_000)).unwrap();
    }
    let snapshot = lab.backup(&tree).snapshot;
    let job = RestoreJob {
        resume: true,
        ..lab.restore_job(&snapshot, "out")
    };
    lab.restore(&job).unwrap();
    let times = |name: &str| {
        let meta = fs::metadata(out.join(name)).unwrap();
        let accessed = (meta.atime(), meta.atime_nsec());
        (accessed, (meta.ctime(), meta.ctime_nsec()))
    };
    let before = wrong.map(times);
    let right = times("right");

    set_mode(&out.join("mode"), 0o640);
    let open = |name: &str| fs::OpenOptions::new().append(true).open(out.join(name)).unwrap();
    let later =
        fs::metadata(out.join("right")).unwrap().modified().unwrap() + std::time::Duration::from_secs(5);
    let modified = fs::FileTimes::new().set_modified(later);
    open("modified").set_times(modified).unwrap();
    let accessed = fs::FileTimes::new().set_accessed(later);
    open("accessed").set_times(accessed).unwrap();
    let none = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(out.join("attribute"), "user.stale", b"1", none).unwrap();
    std::io::Write::write_all(&mut open("longer"), b"more").unwrap();

    let report = lab.restore(&job).unwrap();
    assert!(report.is_exact(), "{:?}", report.details);
    assert_eq!((report.files, report.reused), (6, report.bytes));
    // Before anybody reads them.
    assert_eq!(times("right"), right);
    for (name, (accessed, changed)) in wrong.into_iter().zip(before) {
        assert_eq!(times(name).0, accessed, "{name}");
        assert_ne!(times(name).1, changed, "{name}");
    }
    assert_same(&tree, &out);
}

/// As an earlier attempt can leave it on a file system that takes two names for one: neither is written over the other.
#[test]
fn files_that_are_one_here_are_never_written_over_each_other() {
    use std::os::unix::fs::MetadataExt as _;
    let lab = Lab::new();
    let (tree, out) = (lab.path("tree"), lab.path("out"));
    fs::create_dir(&tree).unwrap();
    // Two pairs of links, so that a file with several names is what is expected of each.
    for (number, name) in [(1, "a"), (2, "b")] {
        fs::write(tree.join(name), noise(number, 10_000)).unwrap();
        fs::hard_link(tree.join(name), tree.join(format!("{name}-too"))).unwrap();
    }
    // The same content in two files, which are two all the same.
    for name in ["c", "d"] {
        fs::write(tree.join(name), noise(3, 10_000)).unwrap();
        fs::hard_link(tree.join(name), tree.join(format!("{name}-too"))).unwrap();
    }
    let snapshot = lab.backup(&tree).snapshot;
    let job = RestoreJob {
        resume: true,
        ..lab.restore_job(&snapshot, "out")
    };
    lab.restore(&job).unwrap();
    for (one, other) in [("a", "b"), ("c", "d")] {
        fs::remove_file(out.join(other)).unwrap();
        fs::hard_link(out.join(one), out.join(other)).unwrap();
    }
    let report = lab.restore(&job).unwrap();
    assert!(report.is_exact(), "{:?}", report.details);
    assert_same(&tree, &out);
    let number = |name: &str| fs::metadata(out.join(name)).unwrap().ino();
    assert_ne!(number("c"), number("d"));
    assert_eq!(number("c"), number("c-too"));
    assert_eq!(number("d"), number("d-too"));
}

#[test]
fn a_read_only_target_is_told() {
    let (lab, snapshot) = noisy();
    let error = restore_failing(&lab, &lab.restore_job(&snapshot, "out"), &Fault::new(30, 0)).unwrap_err();
    assert!(matches!(error, EngineError::ReadOnly { .. }), "{error}");
    let mut job = lab.restore_job(&snapshot, "out");
    job.target = "/proc/nowhere".into();
    let error = lab.restore(&job).unwrap_err();
    assert!(!matches!(error, EngineError::Panicked { .. }), "{error}");
}

#[test]
fn what_does_not_belong_in_staging_is_gone_and_what_is_wrong_is_replaced() {
    let lab = Lab::new();
    let tree = lab.path("tree");
    make_tree(&tree);
    let snapshot = lab.backup(&tree).snapshot;
    let job = RestoreJob {
        resume: true,
        ..lab.restore_job(&snapshot, "out")
    };
    lab.restore(&job).unwrap();
    let out = lab.path("out");
    let outside = lab.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), b"1").unwrap();

    fs::create_dir_all(out.join("stranger/deep")).unwrap();
    fs::write(out.join("stranger/deep/file"), b"x").unwrap();
    fs::remove_dir_all(out.join("sub/deep")).unwrap();
    symlink(&outside, out.join("sub/deep")).unwrap();
    fs::remove_file(out.join("sparse")).unwrap();
    symlink(outside.join("precious"), out.join("sparse")).unwrap();
    fs::remove_file(out.join("link")).unwrap();
    fs::create_dir(out.join("link")).unwrap();
    fs::remove_file(out.join("fifo")).unwrap();
    fs::write(out.join("fifo"), b"not a pipe").unwrap();
    set_mode(&out.join("sub/compressible"), 0o600);
    fs::write(out.join("sub/compressible"), b"other content").unwrap();
    rustix::fs::setxattr(
        out.join("sub"),
        "user.stale",
        b"1",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    // Another name of a file outside, at a place where a file belongs.
    fs::remove_file(out.join("sub/plain")).unwrap();
    fs::hard_link(outside.join("precious"), out.join("sub/plain")).unwrap();

    let report = lab.restore(&job).unwrap();
    assert!(report.is_exact(), "{:?}", report.details);
    assert!(report.removed >= 5, "{}", report.removed);
    assert_same(&tree, &out);
    assert_eq!(fs::read(outside.join("precious")).unwrap(), b"1");
    assert_eq!(fs::metadata(outside.join("precious")).unwrap().nlink(), 1);
    assert_eq!(walk(&outside).len(), 1);
}

#[test]
fn a_cancelled_restore_stops_and_leaves_no_lock() {
    let (lab, snapshot) = noisy();
    let job = lab.restore_job(&snapshot, "out");
    let cancelled: Arc<dyn Fn() -> bool + Send + Sync> = Arc::new(|| true);
    let error = restore_with(
        &lab.engine,
        &lab.password,
        &job,
        Arc::new(|_| ()),
        &cancelled,
        None,
    )
    .unwrap_err();
    assert_eq!(error, EngineError::Cancelled);
    assert_eq!(lab.locks(), 0);
}

#[test]
fn a_repository_that_cannot_be_written_is_restored_from_without_a_lock() {
    let (lab, snapshot) = noisy();
    fs::remove_dir_all(lab.path("repo/locks")).unwrap();
    // A file where the directory belongs keeps root from writing locks, too.
    fs::write(lab.path("repo/locks"), b"").unwrap();
    match lab.restore(&lab.restore_job(&snapshot, "out")) {
        Ok(report) => assert!(!report.locked),
        Err(error) => panic!("{error}"),
    }
    let job = lab.job(&lab.path("tree"));
    let error = backup(&lab.engine, &lab.password, &job, Arc::new(|_| ()), never()).unwrap_err();
    assert!(!matches!(error, EngineError::Panicked { .. }), "{error}");
    assert_eq!(lab.files_in("snapshots").len(), 1, "no backup without a lock");
}

#[test]
fn odd_names_are_restored_one_by_one() {
    let lab = Lab::new();
    let tree = lab.path("tree");
    fs::create_dir(&tree).unwrap();
    for name in ODD_NAMES {
        fs::write(tree.join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
    }
    let snapshot = lab.backup(&tree).snapshot;
    for (number, name) in ODD_NAMES.into_iter().enumerate() {
        let mut job = lab.restore_job(&snapshot, &format!("out{number}"));
        job.only = Some(std::ffi::OsStr::from_bytes(name).into());
        let report = lab.restore(&job).unwrap();
        assert_eq!(report.files, 1);
        assert_eq!(
            fs::read(job.target.join(std::ffi::OsStr::from_bytes(name))).unwrap(),
            name
        );
    }
}
