//! Both engines under the core's contracts, on real directories, in a bucket of an S3 server in this process, and in one of a real
//! Garage: the embedded one with its restore worker as a real process, and the restic program in the versions that the environment
//! names.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

#[path = "../common/forge.rs"]
mod forge;
mod lab;
#[path = "../common/location.rs"]
mod location;
#[path = "../common/place.rs"]
mod place;
#[path = "../common/server.rs"]
mod server;

use std::path::Path;

use lab::{By, OnDisk};
use reseed_core::OffsiteRepo as _;
use reseed_core::error::{OffsiteKind, SourceKind};
use reseed_core::names::PointId;
use reseed_core::offsite::{BackupRequest, CheckDepth};
use reseed_core::point::{RecoveryPoint, Target};
use reseed_core::source::{RestoreRequest, Scope};
use reseed_testkit::conformance::offsite::OffsiteLab;
use reseed_testkit::conformance::pruner::PrunerLab as _;
use reseed_testkit::conformance::source::SourceLab as _;
use reseed_testkit::conformance::{block_on, context, minute};
use reseed_testkit::files::write_odd_tree;

/// The variables that name the two versions of restic.
const RESTICS: [&str; 2] = ["RESEED_REAL_RESTIC", "RESEED_REAL_RESTIC_NEWER"];
const OLDER: By = By::Program(RESTICS[0]);
const NEWER: By = By::Program(RESTICS[1]);

/// The suites of one engine in a place that is empty, or has a repository; each suite in a module of this name.
macro_rules! engine_at {
    ($by:expr, $empty:ident, $made:ident: $offsite:ident, $source:ident $(, $pruner:ident)?) => {
        mod $offsite {
            reseed_testkit::conformance_offsite!(crate::OnDisk::$empty($by));
        }

        mod $source {
            reseed_testkit::conformance_source!(crate::OnDisk::$made($by));
        }

        $(mod $pruner {
            reseed_testkit::conformance_pruner!(crate::OnDisk::$empty($by));
        })?
    };
}

engine_at!(crate::By::Embedded, offsite, source: offsite, source);
engine_at!(crate::By::Embedded, offsite_in_s3, source_in_s3: offsite_s3, source_s3);

/// The restic program, on both kinds of places.
mod real_restic {
    engine_at!(crate::OLDER, offsite, source: offsite, source, pruner);
    engine_at!(crate::OLDER, offsite_in_s3, source_in_s3: offsite_s3, source_s3, pruner_s3);
}

mod real_newer_restic {
    engine_at!(crate::NEWER, offsite, source: offsite, source, pruner);
    engine_at!(crate::NEWER, offsite_in_s3, source_in_s3: offsite_s3, source_s3, pruner_s3);
}

/// Both engines, with the newest restic that there is.
mod real_garage {
    engine_at!(crate::By::Embedded, offsite_in_garage, source_in_garage: offsite, source);
    engine_at!(crate::NEWER, offsite_in_garage, source_in_garage: offsite_by_program, source_by_program, pruner);
}

/// restic's own server and an sshd, which only the restic program reaches: the newest one here.
mod real_server {
    engine_at!(crate::NEWER, offsite_on_rest, source_on_rest: offsite_rest, source_rest, pruner_rest);
    engine_at!(crate::NEWER, offsite_over_sftp, source_over_sftp: offsite_sftp, source_sftp, pruner_sftp);
}

/// What is backed up as a point of a target.
fn request(target: &Target, tree: &Path, id: &str, at: i64) -> BackupRequest {
    BackupRequest {
        target: target.clone(),
        path: tree.to_owned(),
        as_path: target.mountpoint.clone(),
        host: "host-a".to_owned(),
        point: PointId::new(id).unwrap(),
        snapshot: None,
        taken_at: minute(at),
        fingerprint: None,
        unseeded: false,
    }
}

/// Two points of a tree, backed up, listed, checked, and the newest restored; newest first.
async fn two_points(lab: &OnDisk) -> Vec<RecoveryPoint> {
    let (repo, target, cx) = (lab.repo(), OffsiteLab::target(lab, "t"), context("two-points"));
    let tree = OffsiteLab::scratch(lab).join("tree");
    write_odd_tree(OffsiteLab::files(lab), &tree);
    repo.init(&cx).await.unwrap();
    for (id, at) in [("p1", 1), ("p2", 2)] {
        repo.backup(&cx, &request(&target, &tree, id, at)).await.unwrap();
        std::fs::write(tree.join("new"), id).unwrap();
    }
    let points = repo.points(&cx, None).await.unwrap();
    assert_eq!(points.len(), 2);
    let report = repo.check(&cx, CheckDepth::Everything).await.unwrap();
    assert_eq!(report.errors, Vec::<String>::new());
    let source = lab.source();
    let request = RestoreRequest {
        target,
        point: points[0].clone(),
        scope: Scope::Whole,
    };
    let staging = lab.stage(&points[0]).await;
    let plan = source.plan(&cx, &request).await.unwrap();
    source.execute(&cx, &plan, &staging).await.unwrap();
    assert_eq!(std::fs::read(staging.path.join("new")).unwrap(), b"p1");
    assert_eq!(lab.locks(), 0);
    points
}

/// On a server that deletes nothing but locks, both versions back up, restore and check as elsewhere, and remove nothing; what is
/// to go goes where a server lets it.
#[test]
fn real_append_only_keeps_all_until_another_server_lets_it_go() {
    for restic in RESTICS {
        block_on(async {
            let (lab, cx) = (OnDisk::append_only(By::Program(restic)), context("append-only"));
            let points = two_points(&lab).await;
            let (before, pruner) = (lab.objects(), lab.pruner());
            let named = [points[1].locator.clone()];
            match pruner.forget(&cx, &named).await {
                Err(error) => assert_eq!(error.kind(), OffsiteKind::PermissionDenied, "{error}"),
                Ok(forgotten) => assert!(forgotten[0].kept.is_some(), "it was called gone, and is there"),
            }
            assert_eq!(lab.objects(), before, "something was deleted");

            let lab = lab.that_deletes();
            lab.pruner().forget(&cx, &named).await.unwrap();
            lab.pruner().prune(&cx).await.unwrap();
            assert_eq!(lab.repo().points(&cx, None).await.unwrap().len(), 1);
            assert!(lab.objects().len() < before.len());
        });
    }
}

/// Data without any snapshot is no first start to either engine, and nothing is pruned; where restic has removed all, it is one.
#[test]
fn real_data_without_any_snapshot_is_damage_until_it_is_removed() {
    for (restic, in_bucket) in [(0, false), (1, false), (1, true)] {
        let (restic, place): (_, fn(By) -> OnDisk) = match in_bucket {
            false => (RESTICS[restic], OnDisk::offsite),
            true => (RESTICS[restic], OnDisk::offsite_in_s3),
        };
        block_on(async {
            let (lab, cx) = (place(By::Program(restic)), context("lost"));
            let (repo, target) = (lab.repo(), OffsiteLab::target(&lab, "t"));
            let tree = OffsiteLab::scratch(&lab).join("tree");
            write_odd_tree(OffsiteLab::files(&lab), &tree);
            repo.init(&cx).await.unwrap();
            for source in [lab.source(), lab.embedded_source()] {
                assert_eq!(source.points(&cx, &target).await.unwrap(), vec![]);
            }
            repo.backup(&cx, &request(&target, &tree, "p1", 1)).await.unwrap();
            lab.lose_snapshots();
            let before = lab.objects();
            for source in [lab.source(), lab.embedded_source()] {
                let error = source.points(&cx, &target).await.unwrap_err();
                assert_eq!(error.kind(), SourceKind::Corrupt, "{error}");
            }
            let error = lab.pruner().prune(&cx).await.unwrap_err();
            assert_eq!(error.kind(), OffsiteKind::Corrupt, "{error}");
            assert_eq!(lab.objects(), before, "something was removed");

            if !in_bucket {
                lab.restic_run(&cx, restic, &["prune"]).await;
                lab.pruner().prune(&cx).await.unwrap();
                for source in [lab.source(), lab.embedded_source()] {
                    assert_eq!(source.points(&cx, &target).await.unwrap(), vec![]);
                }
            }
        });
    }
}

/// The older version is told of ssh in the same words.
#[test]
fn real_the_older_version_reaches_a_repository_over_sftp() {
    block_on(two_points(&OnDisk::offsite_over_sftp(OLDER)));
}

/// A login that the server refuses is told as that, and is no missing repository.
#[test]
fn real_a_login_that_is_refused_is_told() {
    for restic in RESTICS {
        let (lab, cx) = (OnDisk::source_on_rest(By::Program(restic)), context("login"));
        let error = block_on(lab.with_a_wrong_login(restic).points(&cx, None)).unwrap_err();
        assert_eq!(error.kind(), OffsiteKind::AuthFailed, "{error}");
        let error = format!("{error:?}");
        assert!(!error.contains("not the password"), "{error}");
    }
}

/// A snapshot that was recorded without reading is one as any other to restic: listed, with what was recorded, and sound.
#[test]
fn real_what_is_recorded_is_a_snapshot_to_restic() {
    block_on(async {
        let (lab, cx) = (OnDisk::offsite(By::Embedded), context("recorded"));
        let (repo, target) = (lab.repo(), OffsiteLab::target(&lab, "t"));
        let tree = OffsiteLab::scratch(&lab).join("tree");
        write_odd_tree(OffsiteLab::files(&lab), &tree);
        repo.init(&cx).await.unwrap();
        let request = |id, at| request(&target, &tree, id, at);
        repo.backup(&cx, &request("p1", 1)).await.unwrap();
        let first = repo.points(&cx, None).await.unwrap().remove(0);
        let recorded = repo.record(&cx, &request("p2", 2), &first, minute(0)).await;
        let id = recorded.unwrap().unwrap().snapshot_id;
        for restic in RESTICS {
            let restic = lab.seen_by(restic);
            let points = restic.points(&cx, None).await.unwrap();
            assert_eq!(points.len(), 2);
            assert_eq!(
                (points[0].locator.as_str(), points[0].id.as_str()),
                (id.as_str(), "p2")
            );
            assert_eq!(
                (points[0].taken_at, points[0].bytes),
                (minute(2), points[1].bytes)
            );
            let report = restic.check(&cx, CheckDepth::Everything).await.unwrap();
            assert_eq!(report.errors, Vec::<String>::new());
        }
        // What restic has made of a snapshot since says all that the first said, and may be of another tree.
        let words = ["tag", "--add=looked-at", &id];
        lab.restic_run(&cx, RESTICS[1], &words).await;
        let points = repo.points(&cx, None).await.unwrap();
        assert_eq!((points.len(), points[0].id.as_str()), (2, "p2"));
        assert_ne!(points[0].locator, id, "it was replaced");
        let again = repo.record(&cx, &request("p3", 3), &points[0], minute(0)).await;
        assert_eq!(again.unwrap(), None);
    });
}
