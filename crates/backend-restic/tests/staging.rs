//! A restore removes what it finds in staging, so what is no staging place must be refused before anything is touched.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;

use common::*;
use reseed_backend_restic::worker::Worker;
use reseed_backend_restic::{Embedded, PasswordFrom};
use reseed_core::RestoreSource;
use reseed_core::error::{Effect, Retry, SourceKind};
use reseed_core::exec::SystemRunner;
use reseed_core::names::DatasetName;
use reseed_core::point::Target;
use reseed_core::source::{RestorePlan, RestoreRequest, Scope};
use reseed_core::store::{StageState, Staging};
use reseed_testkit::conformance::{block_on, context, point, source_name};

#[test]
fn places_that_are_no_staging_are_refused_untouched() {
    let lab = Lab::new();
    let live = lab.path("pool/live");
    fs::create_dir_all(&live).unwrap();
    fs::write(live.join("precious"), b"1").unwrap();
    symlink(&live, lab.path("link")).unwrap();
    symlink("/", lab.path("root")).unwrap();
    fs::write(lab.path("plain-file"), b"1").unwrap();
    let embedded = Embedded::new(
        source_name("offsite"),
        lab.engine.clone(),
        PasswordFrom::Given(lab.password.clone()),
        // Should everything else fail, nothing is restored onto this machine.
        Worker::new(["/bin/false"], Arc::new(SystemRunner::new())),
    );
    let target = Target {
        dataset: DatasetName::new("pool/live").unwrap(),
        mountpoint: live.clone(),
    };
    let plan = RestorePlan {
        request: RestoreRequest {
            point: point(&target, "no-such-point"),
            target: target.clone(),
            scope: Scope::Whole,
        },
        bytes: None,
        steps: Vec::new(),
    };
    let try_on = |path: PathBuf| {
        let staging = Staging {
            target: target.clone(),
            locator: path.display().to_string(),
            path,
            state: StageState::Partial,
        };
        block_on(embedded.execute(&context("staging"), &plan, &staging)).unwrap_err()
    };
    let before = (walk(&lab.path("pool")), walk(&lab.path("repo")));
    for path in [
        "/".into(),
        "/.".into(),
        lab.path("root"),
        lab.path("root/"),
        lab.path("link"),
        lab.path("link/"),
        lab.path("plain-file"),
        live,
        lab.path("pool"),
        lab.path("repo"),
        lab.path("pool/../pool/live"),
        "relative".into(),
    ] {
        let error = try_on(path.clone());
        assert_eq!(
            (error.kind(), error.may_have(), error.should_retry()),
            (SourceKind::InvalidInput, Effect::None, Retry::Never),
            "{}: {error}",
            path.display()
        );
    }
    assert_eq!((walk(&lab.path("pool")), walk(&lab.path("repo"))), before);
    assert_eq!(fs::read(lab.path("pool/live/precious")).unwrap(), b"1");
    // What is a staging place gets as far as the point.
    assert_eq!(
        try_on(lab.path("pool/live-staging")).kind(),
        SourceKind::NoSuchPoint
    );
}
