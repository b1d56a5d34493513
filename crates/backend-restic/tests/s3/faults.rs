//! A store that fails in the middle of a backup or a restore: nothing is lost, and nothing that isn't whole looks done.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reseed_backend_restic::backup::backup;
use reseed_backend_restic::check::ReadData;
use reseed_backend_restic::error::EngineError;
use reseed_testkit::s3::{S3Fault, S3Op, S3Rule};

use crate::common::*;
use crate::lab::*;

on_both! {
    a_check_that_loses_its_store_calls_nothing_damaged
    a_store_that_stumbles_is_asked_again
    a_backup_that_cannot_write_fails_and_leaves_nothing_that_looks_done
    what_was_passed_over_is_not_why_a_backup_failed
    a_restore_that_cannot_read_fails_and_goes_on_later
    a_restore_needs_no_write
    a_listing_that_ends_in_the_middle_is_none
    a_listing_that_lags_hides_nothing_behind_a_success
    what_hangs_can_be_cancelled
    wrong_bytes_in_a_snapshot_are_no_missing_snapshot
}

fn a_store_that_stumbles_is_asked_again(it: S3Lab) {
    let it = it.with_repository();
    let stumbles = [
        S3Rule::on(S3Op::Put, S3Fault::SLOW_DOWN).key("data/").times(2),
        S3Rule::on(S3Op::Put, S3Fault::LostAnswer)
            .key("snapshots/")
            .times(1),
        S3Rule::on(S3Op::Put, S3Fault::Reset).key("index/").times(1),
        S3Rule::on(S3Op::List, S3Fault::INTERNAL).key("locks").times(1),
        S3Rule::on(S3Op::Get, S3Fault::Cut(1000)).key("data/").times(2),
        S3Rule::on(S3Op::Get, S3Fault::INTERNAL).key("index/").times(1),
        S3Rule::on(S3Op::Get, S3Fault::Reset).key("snapshots/").times(1),
        S3Rule::on(S3Op::Delete, S3Fault::INTERNAL).key("locks/").times(2),
    ];
    let count = stumbles.len();
    let rules: Vec<_> = stumbles.into_iter().map(|rule| it.faults().add(rule)).collect();
    let summary = it.try_backup().unwrap();
    assert_eq!((summary.unreadable, summary.unlisted), (0, false));
    let report = it.try_restore(&summary.snapshot, "out").unwrap();
    assert!(report.is_exact() && report.locked);
    assert_same(&it.tree(), &it.lab.path("out"));
    assert!(it.faults().take_struck().len() >= count);
    drop(rules);
    assert_eq!(it.snapshots(), 1, "a lost answer makes no second snapshot");
    it.assert_sound();
}

/// Whatever keeps data from being written: no snapshot, no lock, and the next backup is whole.
fn a_backup_that_cannot_write_fails_and_leaves_nothing_that_looks_done(it: S3Lab) {
    let (it, _) = it.with_backup();
    fs::write(it.tree().join("new"), noise(77, 900_000)).unwrap();
    for (where_, fault, wanted) in [
        ("data/", S3Fault::QUOTA, "no_space"),
        ("data/", S3Fault::FULL, "no_space"),
        ("data/", S3Fault::DENIED, "denied"),
        ("data/", S3Fault::EXPIRED, "credentials_expired"),
        ("data/", S3Fault::INTERNAL, "unreachable"),
        ("data/", S3Fault::Reset, "unreachable"),
        ("index/", S3Fault::QUOTA, "no_space"),
        ("snapshots/", S3Fault::SKEWED, "clock_skew"),
        ("snapshots/", S3Fault::SLOW_DOWN, "unreachable"),
        ("locks/", S3Fault::QUOTA, "no_space"),
        ("locks/", S3Fault::DENIED, "denied"),
    ] {
        let rule = it.faults().add(S3Rule::on(S3Op::Put, fault.clone()).key(where_));
        let error = it.try_backup().unwrap_err();
        assert_eq!(kind(&error), wanted, "{where_} {fault:?}: {error}");
        drop(rule);
        assert_eq!(it.snapshots(), 1, "{where_} {fault:?} made a snapshot");
        assert_eq!(it.locks(), 0, "{where_} {fault:?} left a lock");
    }
    let summary = it.try_backup().unwrap();
    assert_same_restored(&it, &summary.snapshot);
    it.assert_sound();
}

/// The library goes without the directories of the snapshot before where it can't have them.
fn what_was_passed_over_is_not_why_a_backup_failed(it: S3Lab) {
    let (it, _) = it.with_backup();
    it.location
        .edit(|| fs::remove_file(it.lab.packs().pop().unwrap()).unwrap());
    fs::write(it.tree().join("new"), noise(77, 900_000)).unwrap();
    it.faults().take_requests();
    let rule = S3Rule::on(S3Op::Put, S3Fault::QUOTA).key("data/");
    let _rule = it.faults().add(rule);
    let error = it.try_backup().unwrap_err();
    let asked = it.faults().take_requests();
    assert!(
        asked
            .iter()
            .any(|(op, key)| *op == S3Op::Get && key.starts_with("data/")),
        "the directories before weren't asked for: {asked:?}"
    );
    assert_eq!(kind(&error), "no_space", "{error}");
}

/// Whatever keeps data from being read: an error, and what is restored later is whole.
fn a_restore_that_cannot_read_fails_and_goes_on_later(it: S3Lab) {
    let (it, snapshot) = it.with_backup();
    let mut job = it.lab.restore_job(&snapshot, "out");
    job.resume = true;
    for (fault, kinds) in [
        (S3Fault::Cut(5000), ["unreachable", "unreachable"]),
        (S3Fault::INTERNAL, ["unreachable", "unreachable"]),
        (S3Fault::Flip(4000), ["corrupt_pack", "unreadable"]),
        (S3Fault::EXPIRED, ["credentials_expired", "credentials_expired"]),
        (S3Fault::DENIED, ["denied", "denied"]),
        (S3Fault::NO_BUCKET, ["no_bucket", "no_bucket"]),
    ] {
        let _rule = it.faults().add(S3Rule::on(S3Op::Get, fault.clone()).key("data/"));
        let error = it.lab.restore(&job).unwrap_err();
        assert!(kinds.contains(&kind(&error).as_str()), "{fault:?}: {error}");
        assert_eq!(it.locks(), 0, "{fault:?} left a lock");
    }
    assert!(it.lab.restore(&job).unwrap().is_exact());
    assert_same(&it.tree(), &it.lab.path("out"));
}

/// What can't be had says nothing of what it is; what is had and wrong does.
fn a_check_that_loses_its_store_calls_nothing_damaged(it: S3Lab) {
    let (it, _) = it.with_backup();
    let check = || {
        let open = it.lab.engine.open(&it.lab.password).unwrap();
        open.check(ReadData::All, &never())
    };
    for (fault, wanted) in [
        (S3Fault::INTERNAL, "unreachable"),
        (S3Fault::EXPIRED, "credentials_expired"),
        (S3Fault::Cut(5000), "unreachable"),
        (S3Fault::DENIED, "denied"),
    ] {
        let _rule = it.faults().add(S3Rule::on(S3Op::Get, fault.clone()).key("data/"));
        let error = check().unwrap_err();
        assert_eq!(kind(&error), wanted, "{fault:?}: {error}");
    }
    // The directories are asked for by the library, and packs by ourselves; afterwards the store is there again.
    for (read, where_) in [
        (ReadData::No, "data/"),
        (ReadData::All, "data/"),
        (ReadData::No, "index/"),
    ] {
        let rule = S3Rule::on(S3Op::Get, S3Fault::INTERNAL).key(where_).times(5);
        let _rule = it.faults().add(rule);
        let checked = it.lab.engine.check(&it.lab.password, read, &never());
        let error = checked.unwrap_err();
        assert_eq!(kind(&error), "unreachable", "{where_}: {error}");
    }
    let flip = it
        .faults()
        .add(S3Rule::on(S3Op::Get, S3Fault::Flip(4000)).key("data/"));
    let found = check().unwrap();
    assert!(
        found.errors.iter().any(|error| error.starts_with("pack ")),
        "{found:?}"
    );
    drop(flip);
    it.assert_sound();
}

/// A full bucket, or a key that may only read, is no reason not to restore.
fn a_restore_needs_no_write(it: S3Lab) {
    let (it, snapshot) = it.with_backup();
    for fault in [S3Fault::QUOTA, S3Fault::DENIED, S3Fault::INTERNAL] {
        let _rule = it.faults().add(S3Rule::on(S3Op::Put, fault));
        let report = it.try_restore(&snapshot, "out").unwrap();
        assert!(report.is_exact() && !report.locked);
        fs::remove_dir_all(it.lab.path("out")).unwrap();
    }
}

fn a_listing_that_lags_hides_nothing_behind_a_success(it: S3Lab) {
    let (it, _) = it.with_backup();
    let faults = it.faults();
    fs::write(it.tree().join("new"), noise(78, 400_000)).unwrap();
    // Nobody could see our lock, and we nobody's.
    let lag = faults.add(S3Rule::on(S3Op::List, S3Fault::Lag).key("locks/"));
    let error = it.try_backup().unwrap_err();
    assert_eq!(kind(&error), "lock_lost", "{error}");
    drop(lag);
    assert_eq!((it.snapshots(), it.locks()), (1, 0));
    // A snapshot that is written and not listed is said to be, and can be restored by its name.
    let lag = faults.add(S3Rule::on(S3Op::List, S3Fault::Lag).key("snapshots/"));
    let summary = it.try_backup().unwrap();
    assert!(summary.unlisted);
    assert_eq!(it.snapshots(), 1, "the listing lags");
    assert_same_restored(&it, &summary.snapshot);
    drop(lag);
    assert_eq!(it.snapshots(), 2);
    // An index that isn't listed is data that can't be found: an error and not an empty restore.
    fs::write(it.tree().join("newer"), noise(79, 400_000)).unwrap();
    let lag = faults.add(S3Rule::on(S3Op::List, S3Fault::Lag).key("index/"));
    let summary = it.try_backup().unwrap();
    assert!(!summary.unlisted);
    let error = it.try_restore(&summary.snapshot, "lagging").unwrap_err();
    assert!(
        matches!(kind(&error).as_str(), "missing_blob" | "unreadable"),
        "{error}"
    );
    drop(lag);
    assert_same_restored(&it, &summary.snapshot);
    it.assert_sound();
}

/// A page holds a thousand at the most.
fn a_listing_that_ends_in_the_middle_is_none(it: S3Lab) {
    let (it, snapshot) = it.with_backup();
    it.location.edit(|| {
        for number in 0..1000 {
            // Before all of them by its name.
            fs::write(it.location.root().join(format!("snapshots/-{number}")), b"x").unwrap();
        }
    });
    let listed = || it.lab.engine.open(&it.lab.password).unwrap().snapshots();
    assert_eq!(listed().unwrap().readable[0].id, snapshot);
    let rule = S3Rule::on(S3Op::List, S3Fault::NoToken).key("snapshots");
    let _rule = it.faults().add(rule);
    let error = listed().unwrap_err();
    assert_eq!(kind(&error), "wrong_endpoint", "{error}");
}

/// A hanging store keeps nobody: whoever cancels is let go at once, and the lock is gone.
fn what_hangs_can_be_cancelled(it: S3Lab) {
    let (it, snapshot) = it.with_backup();
    for (op, where_) in [(S3Op::Get, "index/"), (S3Op::Put, "data/"), (S3Op::Get, "data/")] {
        let _hang = it.faults().add(S3Rule::on(op, S3Fault::Hang).key(where_));
        it.faults().take_struck();
        let (faults, struck) = (it.faults().clone(), Arc::new(AtomicBool::new(false)));
        let cancelled: Arc<dyn Fn() -> bool + Send + Sync> = Arc::new(move || {
            if !faults.take_struck().is_empty() {
                struck.store(true, Ordering::Relaxed);
            }
            struck.load(Ordering::Relaxed)
        });
        let engine = it.engine(|_| {}).stopped_by(Arc::clone(&cancelled));
        let error = if op == S3Op::Put {
            fs::write(it.tree().join("hang"), noise(80, 300_000)).unwrap();
            let job = it.lab.job(&it.tree());
            backup(&engine, &it.lab.password, &job, Arc::new(|_| ()), cancelled).unwrap_err()
        } else {
            let job = it.lab.restore_job(&snapshot, "hung");
            reseed_backend_restic::restore::restore(
                &engine,
                &it.lab.password,
                &job,
                Arc::new(|_| ()),
                cancelled,
            )
            .unwrap_err()
        };
        assert_eq!(error, EngineError::Cancelled, "{op:?} {where_}");
        let _ = fs::remove_dir_all(it.lab.path("hung"));
        assert_eq!(it.locks(), 0, "{op:?} {where_} left a lock");
    }
    assert_eq!(it.snapshots(), 1);
}

/// Flipped bits in what says what there is are found, too, and take no other snapshot with them.
fn wrong_bytes_in_a_snapshot_are_no_missing_snapshot(it: S3Lab) {
    let (it, snapshot) = it.with_backup();
    let _flip = it
        .faults()
        .add(S3Rule::on(S3Op::Get, S3Fault::Flip(40)).key("snapshots/"));
    let found = it.lab.engine.open(&it.lab.password).unwrap().snapshots().unwrap();
    assert_eq!(found.readable.len(), 0);
    assert_eq!(found.unreadable.len(), 1);
    assert_eq!(found.unreadable[0].0, snapshot);
}
