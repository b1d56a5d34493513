//! Removing points, and keys that can't: what backs up needs no right to delete, what ages out takes only what is named.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use reseed_core::OffsitePruner;
use reseed_core::error::OffsiteKind;
use reseed_core::names::{DatasetName, PointId};
use reseed_core::offsite::{BackupOutcome, BackupRequest, CheckDepth};
use reseed_core::point::RecoveryPoint;
use reseed_testkit::conformance::{block_on, context, minute};
use reseed_testkit::s3::{S3Fault, S3Guard, S3Op, S3Rule};

use crate::bad_input::{BadLab, By, target};
use crate::common::noise;

/// Refuses to delete what these keys begin with.
fn refuses(it: &BadLab, keys: &[&str]) -> Vec<S3Guard> {
    let rule = |key: &&str| S3Rule::on(S3Op::Delete, S3Fault::DENIED).key(key);
    keys.iter().map(|key| it.server.faults().add(rule(key))).collect()
}

fn objects(it: &BadLab) -> BTreeSet<PathBuf> {
    let kinds = ["data", "index", "snapshots", "keys"];
    kinds.iter().flat_map(|kind| it.lab.files_in(kind)).collect()
}

/// Another point of the same tree with something new in it, so many minutes after the first.
fn next(it: &BadLab, by: By, number: u64) -> (String, BackupOutcome) {
    fs::write(it.tree().join(format!("new{number}")), noise(number, 300_000)).unwrap();
    let request = BackupRequest {
        point: PointId::new(number.to_string()).unwrap(),
        taken_at: minute(i64::try_from(number).unwrap()),
        ..it.request()
    };
    let (repo, _) = it.engine(by, |_| {});
    let report = block_on(repo.backup(&context("next"), &request)).unwrap();
    (report.snapshot_id, report.outcome)
}

fn points(it: &BadLab, by: By) -> Vec<RecoveryPoint> {
    let (_, source) = it.engine(by, |_| {});
    block_on(source.points(&context("points"), &target())).unwrap()
}

fn a_key_that_cannot_delete_backs_up_and_restores(by: By) {
    for (keys, locks_go) in [
        (&["data/", "index/", "snapshots/", "keys/", "config"][..], true),
        (&["/"][..], false),
    ] {
        let (it, first) = BadLab::new();
        let before = objects(&it);
        let refusing = refuses(&it, keys);
        let (_, outcome) = next(&it, by, 2);
        assert_eq!(outcome, BackupOutcome::Complete);
        assert!(objects(&it).is_superset(&before), "something was deleted");
        assert_eq!(points(&it, by).len(), 2);
        assert_eq!(it.restored(by, &first).unwrap().files, 3);
        let (repo, _) = it.engine(by, |_| {});
        let report = block_on(repo.check(&context("check"), CheckDepth::Everything)).unwrap();
        assert_eq!(report.errors, Vec::<String>::new());
        if locks_go {
            assert_eq!(it.locks(), 0, "a lock was left");
        }
        drop(refusing);
    }
}

/// With such a key nothing goes, and that is said; with another one what was named goes, its data with it, and nothing else.
fn what_is_named_goes_and_nothing_else(by: By) {
    let (it, first) = BadLab::new();
    let (second, _) = next(&it, by, 2);
    fs::remove_file(it.tree().join("new2")).unwrap();
    next(&it, by, 3);
    let pruner = it.pruner(by).unwrap();
    let cx = context("age");
    let own = block_on(pruner.own_points(&cx)).unwrap();
    assert_eq!(own.len(), 3);
    assert_eq!(own[0].id.as_str(), "3", "newest first");
    assert!(
        own.iter()
            .all(|point| point.dataset == DatasetName::new("tank/service").unwrap())
    );
    let named: Vec<String> = own
        .iter()
        .map(|point| point.locator.clone())
        .filter(|id| id.starts_with(&second))
        .collect();
    assert_eq!(named.len(), 1);
    // Other hosts' are nobody's to remove, and then nothing goes.
    let elsewhere = it.pruner(by).unwrap().of_host("elsewhere");
    assert_eq!(block_on(elsewhere.own_points(&cx)).unwrap(), []);
    let error = block_on(elsewhere.forget(&cx, &named)).unwrap_err();
    assert_eq!(error.kind(), OffsiteKind::InvalidInput, "{error}");
    let before = objects(&it);
    let refusing = refuses(&it, &["snapshots/", "data/", "index/"]);
    match block_on(pruner.forget(&cx, &named)) {
        Err(error) => assert_eq!(error.kind(), OffsiteKind::PermissionDenied, "{error}"),
        Ok(forgotten) => assert!(forgotten[0].kept.is_some(), "it was called gone, and is there"),
    }
    assert_eq!(objects(&it), before, "something was deleted");
    drop(refusing);
    let gone = "0123456789abcdef".repeat(4);
    let forgotten = block_on(pruner.forget(&cx, &[named[0].clone(), gone])).unwrap();
    assert_eq!(forgotten.len(), 2);
    assert!(forgotten.iter().all(|one| one.kept.is_none()), "{forgotten:?}");
    assert_eq!(points(&it, by).len(), 2);
    let bytes = |it: &BadLab| -> u64 {
        it.lab
            .files_in("data")
            .iter()
            .map(|path| fs::metadata(path).unwrap().len())
            .sum()
    };
    let full = bytes(&it);
    block_on(pruner.prune(&cx)).unwrap();
    assert!(
        bytes(&it) + 250_000 < full,
        "the data that only it needed is still there"
    );
    assert_eq!(it.restored(by, &first).unwrap().files, 3);
    let newest = points(&it, By::Embedded).remove(0);
    assert_eq!(it.restored(By::Embedded, &newest).unwrap().files, 4);
    assert_eq!(it.locks(), 0);
}

#[test]
fn embedded_a_key_that_cannot_delete_backs_up_and_restores() {
    a_key_that_cannot_delete_backs_up_and_restores(By::Embedded);
}

macro_rules! by_program {
    ($($name:ident = $variable:literal;)+) => {$(
        mod $name {
            use super::By;

            #[test]
            fn a_key_that_cannot_delete_backs_up_and_restores() {
                super::a_key_that_cannot_delete_backs_up_and_restores(By::Program($variable));
            }

            #[test]
            fn what_is_named_goes_and_nothing_else() {
                super::what_is_named_goes_and_nothing_else(By::Program($variable));
            }
        }
    )+};
}

by_program! {
    real_restic = "RESEED_REAL_RESTIC";
    real_newer_restic = "RESEED_REAL_RESTIC_NEWER";
}
