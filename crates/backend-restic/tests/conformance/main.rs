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

use lab::{By, OnDisk};

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
