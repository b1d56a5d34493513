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

use lab::{By, OnDisk};
use reseed_core::error::OffsiteKind;

mod offsite {
    reseed_testkit::conformance_offsite!(crate::OnDisk::offsite(crate::By::Embedded));
}

mod source {
    reseed_testkit::conformance_source!(crate::OnDisk::source(crate::By::Embedded));
}

mod offsite_s3 {
    reseed_testkit::conformance_offsite!(crate::OnDisk::offsite_in_s3(crate::By::Embedded));
}

mod source_s3 {
    reseed_testkit::conformance_source!(crate::OnDisk::source_in_s3(crate::By::Embedded));
}

/// Both engines, with the newest restic that there is.
mod real_garage {
    use crate::{By, OnDisk};

    const PROGRAM: By = By::Program("RESEED_REAL_RESTIC_NEWER");

    mod offsite {
        reseed_testkit::conformance_offsite!(crate::OnDisk::offsite_in_garage(crate::By::Embedded));
    }

    mod source {
        reseed_testkit::conformance_source!(crate::OnDisk::source_in_garage(crate::By::Embedded));
    }

    mod offsite_by_program {
        reseed_testkit::conformance_offsite!(super::OnDisk::offsite_in_garage(super::PROGRAM));
    }

    mod source_by_program {
        reseed_testkit::conformance_source!(super::OnDisk::source_in_garage(super::PROGRAM));
    }

    mod pruner {
        reseed_testkit::conformance_pruner!(super::OnDisk::offsite_in_garage(super::PROGRAM));
    }
}

/// restic's own server and an sshd, which only the restic program reaches: the newest one here.
mod real_server {
    const PROGRAM: crate::By = crate::By::Program("RESEED_REAL_RESTIC_NEWER");

    mod offsite_rest {
        reseed_testkit::conformance_offsite!(crate::OnDisk::offsite_on_rest(super::PROGRAM));
    }

    mod source_rest {
        reseed_testkit::conformance_source!(crate::OnDisk::source_on_rest(super::PROGRAM));
    }

    mod pruner_rest {
        reseed_testkit::conformance_pruner!(crate::OnDisk::offsite_on_rest(super::PROGRAM));
    }

    mod offsite_sftp {
        reseed_testkit::conformance_offsite!(crate::OnDisk::offsite_over_sftp(super::PROGRAM));
    }

    mod source_sftp {
        reseed_testkit::conformance_source!(crate::OnDisk::source_over_sftp(super::PROGRAM));
    }

    mod pruner_sftp {
        reseed_testkit::conformance_pruner!(crate::OnDisk::offsite_over_sftp(super::PROGRAM));
    }
}

/// The restic program, on both kinds of places.
macro_rules! by_program {
    ($($name:ident = $variable:literal;)+) => {$(
        mod $name {
            const BY: crate::By = crate::By::Program($variable);

            mod offsite {
                reseed_testkit::conformance_offsite!(crate::OnDisk::offsite(super::BY));
            }

            mod source {
                reseed_testkit::conformance_source!(crate::OnDisk::source(super::BY));
            }

            mod offsite_s3 {
                reseed_testkit::conformance_offsite!(crate::OnDisk::offsite_in_s3(super::BY));
            }

            mod pruner {
                reseed_testkit::conformance_pruner!(crate::OnDisk::offsite(super::BY));
            }

            mod pruner_s3 {
                reseed_testkit::conformance_pruner!(crate::OnDisk::offsite_in_s3(super::BY));
            }

            mod source_s3 {
                reseed_testkit::conformance_source!(crate::OnDisk::source_in_s3(super::BY));
            }
        }
    )+};
}

by_program! {
    real_restic = "RESEED_REAL_RESTIC";
    real_newer_restic = "RESEED_REAL_RESTIC_NEWER";
}

/// Two points of a tree, backed up, listed, checked, and the newest restored; newest first.
async fn two_points(lab: &OnDisk) -> Vec<reseed_core::point::RecoveryPoint> {
    use reseed_core::names::PointId;
    use reseed_core::offsite::{BackupRequest, CheckDepth};
    use reseed_core::source::{RestoreRequest, Scope};
    use reseed_testkit::conformance::offsite::OffsiteLab;
    use reseed_testkit::conformance::source::SourceLab;
    use reseed_testkit::conformance::{context, minute};

    let (repo, target, cx) = (lab.repo(), OffsiteLab::target(lab, "t"), context("two-points"));
    let tree = OffsiteLab::scratch(lab).join("tree");
    reseed_testkit::files::write_odd_tree(OffsiteLab::files(lab), &tree);
    repo.init(&cx).await.unwrap();
    for (id, at) in [("p1", 1), ("p2", 2)] {
        let request = BackupRequest {
            target: target.clone(),
            path: tree.clone(),
            as_path: target.mountpoint.clone(),
            host: "host-a".to_owned(),
            point: PointId::new(id).unwrap(),
            snapshot: None,
            taken_at: minute(at),
            fingerprint: None,
            unseeded: false,
        };
        repo.backup(&cx, &request).await.unwrap();
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
    use reseed_testkit::conformance::offsite::OffsiteLab as _;
    use reseed_testkit::conformance::pruner::PrunerLab as _;
    use reseed_testkit::conformance::{block_on, context};

    for restic in ["RESEED_REAL_RESTIC", "RESEED_REAL_RESTIC_NEWER"] {
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

/// The older version is told of ssh in the same words.
#[test]
fn real_the_older_version_reaches_a_repository_over_sftp() {
    let lab = OnDisk::offsite_over_sftp(By::Program("RESEED_REAL_RESTIC"));
    reseed_testkit::conformance::block_on(two_points(&lab));
}

/// A login that the server refuses is told as that, and is no missing repository.
#[test]
fn real_a_login_that_is_refused_is_told() {
    use reseed_core::OffsiteRepo as _;
    use reseed_testkit::conformance::{block_on, context};

    for restic in ["RESEED_REAL_RESTIC", "RESEED_REAL_RESTIC_NEWER"] {
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
    use reseed_core::OffsiteRepo as _;
    use reseed_core::names::PointId;
    use reseed_core::offsite::{BackupRequest, CheckDepth};
    use reseed_testkit::conformance::offsite::OffsiteLab as _;
    use reseed_testkit::conformance::{block_on, context, minute};
    use reseed_testkit::files::write_odd_tree;

    block_on(async {
        let (lab, cx) = (OnDisk::offsite(By::Embedded), context("recorded"));
        let (repo, target, tree) = (lab.repo(), lab.target("t"), lab.scratch().join("tree"));
        write_odd_tree(lab.files(), &tree);
        repo.init(&cx).await.unwrap();
        let request = |id: &str, at: i64| BackupRequest {
            target: target.clone(),
            path: tree.clone(),
            as_path: target.mountpoint.clone(),
            host: "lab".to_owned(),
            point: PointId::new(id).unwrap(),
            snapshot: None,
            taken_at: minute(at),
            fingerprint: None,
            unseeded: false,
        };
        repo.backup(&cx, &request("p1", 1)).await.unwrap();
        let first = repo.points(&cx, None).await.unwrap().remove(0);
        let recorded = repo.record(&cx, &request("p2", 2), &first, minute(0)).await;
        let id = recorded.unwrap().unwrap().snapshot_id;
        for restic in ["RESEED_REAL_RESTIC", "RESEED_REAL_RESTIC_NEWER"] {
            let restic = lab.seen_by(restic);
            let points = reseed_core::OffsiteRepo::points(&restic, &cx, None)
                .await
                .unwrap();
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
        lab.restic_run(&cx, "RESEED_REAL_RESTIC_NEWER", &words).await;
        let points = repo.points(&cx, None).await.unwrap();
        assert_eq!((points.len(), points[0].id.as_str()), (2, "p2"));
        assert_ne!(points[0].locator, id, "it was replaced");
        let again = repo.record(&cx, &request("p3", 3), &points[0], minute(0)).await;
        assert_eq!(again.unwrap(), None);
    });
}
