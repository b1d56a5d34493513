//! A repository that can't be had: an error of its own kind that says what to do, never taken for "there is none".

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reseed_backend_restic::repo::Engine;
use reseed_backend_restic::restic::Location;
use reseed_backend_restic::s3::{CredentialsFrom, S3Credentials, S3Place};
use reseed_backend_restic::{PasswordFrom, Restic};
use reseed_core::error::{Effect, OffsiteKind, Retry, SourceKind};
use reseed_core::exec::SystemRunner;
use reseed_core::names::{DatasetName, SourceName};
use reseed_core::point::Target;
use reseed_core::{OffsiteRepo, RestoreSource};
use reseed_testkit::conformance::{block_on, context};
use reseed_testkit::s3::{S3Fault, S3Op, S3Rule};

use crate::common::*;
use crate::lab::*;

/// Every way of not getting in: by kind, with what to do, in `open` and `init` alike, and nothing is written.
#[test]
fn the_ways_of_not_getting_in_are_told_apart() {
    let it = S3Lab::bare();
    let access = it.location.access();
    let said = |what: &str, engine: &Engine, wanted: &str, names: &str| {
        for error in [
            engine.open(&it.lab.password).unwrap_err(),
            engine.init(&it.lab.password).unwrap_err(),
        ] {
            assert_eq!(kind(&error), wanted, "{what}: {error}");
            assert!(error.hint().is_some(), "{what}");
            let told = error.to_string();
            assert!(told.contains(names), "{what}: {told:?} doesn't name {names:?}");
            assert!(!told.contains(&access.secret_access_key), "{told}");
        }
    };
    let id = access.access_key_id.as_str();
    let wrong = it.engine_with(S3Credentials::new(id, "wrong"));
    said("wrong secret", &wrong, "credentials", "SignatureDoesNotMatch");
    let unknown = it.engine_with(S3Credentials::new("AKNOBODY", &access.secret_access_key));
    said("unknown key", &unknown, "credentials", "s3:http");
    let missing = Engine::s3(
        it.place(),
        CredentialsFrom::file("/nonexistent/key"),
        Arc::clone(&it.lab.clock),
    );
    said(
        "no credentials file",
        &missing,
        "credentials_file",
        "/nonexistent/key",
    );
    let region = it.engine(|place| place.region = "elsewhere".into());
    said("wrong region", &region, "wrong_region", &access.region);
    let bucket = it.engine(|place| place.bucket = "other-bucket".into());
    said("no bucket", &bucket, "no_bucket", "other-bucket");
    let port = refused_port();
    let refused = it.engine(|place| place.endpoint = format!("http://127.0.0.1:{port}"));
    said("refused", &refused, "refused", &port.to_string());
    let nowhere = it.engine(|place| place.endpoint = "http://nowhere.invalid".into());
    said("no such host", &nowhere, "no_such_host", "nowhere.invalid");
    let plain = it.engine(|place| place.allow_http = false);
    said("http that is not allowed", &plain, "plain_http", "http");
    let tls = it.engine(|place| place.endpoint = place.endpoint.replace("http:", "https:"));
    said("https where http is spoken", &tls, "wrong_endpoint", "https:");

    for (fault, wanted) in [
        (S3Fault::EXPIRED, "credentials_expired"),
        (S3Fault::SKEWED, "clock_skew"),
        (S3Fault::ELSEWHERE, "wrong_region"),
        (S3Fault::NO_BUCKET, "no_bucket"),
        (S3Fault::DENIED, "denied"),
        (S3Fault::INTERNAL, "unreachable"),
        (S3Fault::SLOW_DOWN, "unreachable"),
        (S3Fault::NotS3(404), "wrong_endpoint"),
        (S3Fault::NotS3(405), "wrong_endpoint"),
        (S3Fault::NotS3(200), "wrong_endpoint"),
        (S3Fault::NotS3(502), "unreachable"),
        (S3Fault::Reset, "unreachable"),
    ] {
        let _rule = it.faults().add(S3Rule::always(fault.clone()));
        said(&format!("{fault:?}"), &it.lab.engine, wanted, "");
    }
    let _hangs = it.faults().add(S3Rule::always(S3Fault::Hang));
    let hasty = it.engine(|_| {}).with_patience(Duration::from_millis(200));
    said("no answer", &hasty, "unreachable", "no answer");
    assert_eq!(it.objects(), Vec::<PathBuf>::new(), "something was written");
}

/// A real server has its own words for what is wrong, and restic its own for those.
#[test]
fn real_garage_is_understood() {
    let it = S3Lab::in_garage();
    let access = it.location.access();
    let restic = std::env::var_os("RESEED_REAL_RESTIC_NEWER").unwrap();
    let said =
        |place: S3Place, key: S3Credentials, wanted: &str, through_restic: OffsiteKind, names: &str| {
            let credentials = CredentialsFrom::Given(key);
            let engine = Engine::s3(place.clone(), credentials.clone(), Arc::clone(&it.lab.clock));
            for error in [
                engine.open(&it.lab.password).unwrap_err(),
                engine.init(&it.lab.password).unwrap_err(),
            ] {
                assert_eq!(kind(&error), wanted, "{error}");
                let told = error.to_string();
                assert!(error.hint().is_some() && told.contains(names), "{told}");
                assert!(!told.contains(&access.secret_access_key), "{told}");
            }
            let driver = Restic::new(
                SourceName::new("offsite").unwrap(),
                Location::S3 { place, credentials },
                PasswordFrom::Given(it.lab.password.clone()),
                it.lab.path("work"),
                Arc::new(SystemRunner::new()),
                Arc::clone(&it.lab.clock),
            )
            .program(restic.clone());
            let error = block_on(driver.open(&context("garage"))).unwrap_err();
            assert_eq!(error.kind(), through_restic, "{error}");
            assert!(!error.to_string().contains(&access.secret_access_key), "{error}");
        };
    let wrong = S3Credentials::new(&access.access_key_id, "wrong");
    said(
        it.place(),
        wrong,
        "credentials",
        OffsiteKind::AuthFailed,
        "signature",
    );
    let unknown = S3Credentials::new("GKffffffffffffffffffffffff", &access.secret_access_key);
    said(it.place(), unknown, "credentials", OffsiteKind::AuthFailed, "");
    let place = |change: fn(&mut S3Place)| {
        let mut place = it.place();
        change(&mut place);
        place
    };
    let elsewhere = place(|place| place.region = "elsewhere".into());
    said(
        elsewhere,
        it.key(),
        "wrong_region",
        OffsiteKind::InvalidInput,
        &access.region,
    );
    let other = place(|place| place.bucket = "other-bucket".into());
    said(
        other,
        it.key(),
        "no_bucket",
        OffsiteKind::NotFound,
        "other-bucket",
    );
    assert_eq!(it.objects(), Vec::<PathBuf>::new(), "something was written");
}

/// The same through the core's traits: no kind that could pass for "there is nothing", and a second try only where it helps.
#[test]
fn what_cannot_be_asked_is_no_answer_for_the_chain() {
    let (it, _) = S3Lab::bare().with_backup();
    let target = Target {
        dataset: DatasetName::new("plain/service").unwrap(),
        mountpoint: AS_PATH.into(),
    };
    let (source, cx) = (it.embedded(it.engine(|_| {})), context("faults"));
    let found = block_on(RestoreSource::points(&source, &cx, &target)).unwrap();
    assert_eq!(found.len(), 1, "without a fault it is offered");
    for (fault, wanted, offsite, retry) in [
        (
            S3Fault::EXPIRED,
            SourceKind::AuthFailed,
            OffsiteKind::AuthFailed,
            Retry::AfterFix,
        ),
        (
            S3Fault::SKEWED,
            SourceKind::AuthFailed,
            OffsiteKind::AuthFailed,
            Retry::AfterFix,
        ),
        (
            S3Fault::ELSEWHERE,
            SourceKind::InvalidInput,
            OffsiteKind::InvalidInput,
            Retry::Never,
        ),
        (
            S3Fault::NO_BUCKET,
            SourceKind::NotFound,
            OffsiteKind::NotFound,
            Retry::Never,
        ),
        (
            S3Fault::DENIED,
            SourceKind::PermissionDenied,
            OffsiteKind::PermissionDenied,
            Retry::AfterFix,
        ),
        (
            S3Fault::SLOW_DOWN,
            SourceKind::Unreachable,
            OffsiteKind::Unreachable,
            Retry::Later,
        ),
        (
            S3Fault::Reset,
            SourceKind::Unreachable,
            OffsiteKind::Unreachable,
            Retry::Later,
        ),
        (
            S3Fault::NotS3(404),
            SourceKind::InvalidInput,
            OffsiteKind::InvalidInput,
            Retry::Never,
        ),
    ] {
        let _rule = it.faults().add(S3Rule::always(fault.clone()));
        let error = block_on(RestoreSource::points(&source, &cx, &target)).unwrap_err();
        assert_eq!(
            (error.kind(), error.should_retry()),
            (wanted, retry),
            "{fault:?}: {error}"
        );
        assert_eq!(error.may_have(), Effect::None);
        assert!(error.what_to_do().is_some(), "{fault:?}");
        let error = block_on(source.open(&cx)).unwrap_err();
        assert_eq!(
            (error.kind(), error.should_retry()),
            (offsite, retry),
            "{fault:?}: {error}"
        );
    }
}

/// A store that doesn't answer at all is asked once, and left to the caller's own waits.
#[test]
fn waits_do_not_multiply() {
    let (it, _) = S3Lab::bare().with_backup();
    let _down = it.faults().add(S3Rule::always(S3Fault::INTERNAL));
    it.lab.engine.open(&it.lab.password).unwrap_err();
    // One, for the first is a listing, which has words.
    assert_eq!(it.faults().take_requests().len(), 1);
}

/// Directories are asked for by the level, and not one after the other, nor one twice.
#[test]
fn a_tree_of_many_directories_is_planned_in_few_requests() {
    let it = S3Lab::bare().with_repository();
    let tree = it.lab.path("many");
    for outer in 0..12 {
        for inner in 0..12 {
            let dir = tree.join(format!("{outer}/{inner}"));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("file"), format!("{outer} {inner}")).unwrap();
        }
    }
    let snapshot = it.lab.backup(&tree).snapshot;
    it.faults().take_requests();
    let job = it.lab.restore_job(&snapshot, "out");
    it.lab.restore(&job).unwrap();
    let asked = it.faults().take_requests();
    let is_of_a_pack = |(op, key): &&(S3Op, String)| *op == S3Op::Get && key.starts_with("data/");
    let reads = asked.iter().filter(is_of_a_pack).count();
    // The root, the way to it, each of two levels, and the content.
    assert!(reads <= 12, "{reads} reads of packs: {asked:?}");
}
