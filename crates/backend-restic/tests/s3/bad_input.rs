//! Repositories in a bucket that are wrong in a way that somebody has to mend, with both engines: each error names its cause and
//! what to do, is worth another try only where that helps, and is never an empty list: "there is no recovery point".

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use reseed_backend_restic::repo::Engine;
use reseed_backend_restic::restic::Location;
use reseed_backend_restic::s3::{CredentialsFrom, S3Credentials, S3Place};
use reseed_backend_restic::secret::Password;
use reseed_backend_restic::worker::Worker;
use reseed_backend_restic::{Embedded, PasswordFrom, Restic};
use reseed_core::error::{Effect, OffsiteError, OffsiteKind, Retry, SourceError, SourceKind};
use reseed_core::exec::SystemRunner;
use reseed_core::names::{DatasetName, PointId, SourceName};
use reseed_core::offsite::{BackupOutcome, BackupRequest, CheckDepth};
use reseed_core::point::{RecoveryPoint, Target};
use reseed_core::source::{RestoreRequest, Restored, Scope};
use reseed_core::store::{StageState, Staging};
use reseed_core::{OffsiteRepo, RestoreSource};
use reseed_testkit::conformance::{block_on, context, minute};
use reseed_testkit::s3::{S3Fault, S3Op, S3Rule, S3Server};

use crate::common::forge::Forge;
use crate::common::*;

const BUCKET: &str = "repo";
const PASSWORD: &str = "correct horse";

/// Which engine.
#[derive(Debug, Clone, Copy)]
pub(crate) enum By {
    Embedded,
    /// The program that this variable names.
    Program(&'static str),
}

/// An engine as what is written to and as what is restored from.
pub(crate) type Both = (Arc<dyn OffsiteRepo>, Arc<dyn RestoreSource>);

/// How the repository is reached: as it should be, until a test changes that.
pub(crate) struct Way {
    pub(crate) place: S3Place,
    key: S3Credentials,
    password: &'static str,
}

pub(crate) struct BadLab {
    pub(crate) server: S3Server,
    pub(crate) lab: Lab,
}

pub(crate) fn target() -> Target {
    Target {
        dataset: DatasetName::new("tank/service").unwrap(),
        mountpoint: AS_PATH.into(),
    }
}

impl BadLab {
    /// A repository with one backup by the embedded engine.
    pub(crate) fn new() -> (Self, RecoveryPoint) {
        let lab = Lab::bare();
        let server = S3Server::start(lab.dir.path()).unwrap();
        server.make_bucket(BUCKET).unwrap();
        Forge::create(&lab.path(BUCKET), PASSWORD);
        let it = Self { server, lab };
        fs::create_dir(it.tree()).unwrap();
        for number in 0..3 {
            fs::write(it.tree().join(format!("file{number}")), noise(number, 400_000)).unwrap();
        }
        let (repo, source) = it.engine(By::Embedded, |_| {});
        let report = block_on(repo.backup(&context("backup"), &it.request())).unwrap();
        assert_eq!(report.outcome, BackupOutcome::Complete);
        let points = block_on(source.points(&context("points"), &target())).unwrap();
        assert_eq!(points.len(), 1);
        (it, points.into_iter().next().unwrap())
    }

    pub(crate) fn tree(&self) -> PathBuf {
        self.lab.path("tree")
    }

    pub(crate) fn request(&self) -> BackupRequest {
        BackupRequest {
            target: target(),
            path: self.tree(),
            as_path: AS_PATH.into(),
            host: "testhost".into(),
            point: PointId::new("1").unwrap(),
            snapshot: None,
            taken_at: minute(1),
            fingerprint: None,
            unseeded: false,
        }
    }

    fn way(&self, change: impl FnOnce(&mut Way)) -> Way {
        let access = self.server.access();
        let mut way = Way {
            place: S3Place {
                endpoint: access.endpoint.clone(),
                region: access.region.clone(),
                bucket: BUCKET.into(),
                prefix: String::new(),
                allow_http: true,
            },
            key: S3Credentials::new(&access.access_key_id, &access.secret_access_key),
            password: PASSWORD,
        };
        change(&mut way);
        way
    }

    pub(crate) fn engine(&self, by: By, change: impl FnOnce(&mut Way)) -> Both {
        let way = self.way(change);
        match by {
            By::Embedded => {
                let runner = Arc::new(SystemRunner::new());
                let worker = Worker::new([env!("CARGO_BIN_EXE_reseed-restore-worker")], runner);
                let clock = Arc::clone(&self.lab.clock);
                let engine = Engine::s3(way.place, CredentialsFrom::Given(way.key), clock);
                let password = PasswordFrom::Given(Password::new(way.password));
                let name = SourceName::new("b2").unwrap();
                let both = Arc::new(Embedded::new(name, engine, password, worker));
                (Arc::<Embedded>::clone(&both), both)
            }
            By::Program(variable) => {
                let both = Arc::new(self.restic(variable, way));
                (Arc::<Restic>::clone(&both), both)
            }
        }
    }

    /// What removes points; none by the embedded engine.
    pub(crate) fn pruner(&self, by: By) -> Option<Restic> {
        match by {
            By::Embedded => None,
            By::Program(variable) => Some(self.restic(variable, self.way(|_| {})).of_host("testhost")),
        }
    }

    fn restic(&self, variable: &str, way: Way) -> Restic {
        let program = std::env::var_os(variable).unwrap_or_else(|| {
            panic!("{variable} must name the restic to test with (or leave out the tests named real_*)")
        });
        let location = Location::S3 {
            place: way.place,
            credentials: CredentialsFrom::Given(way.key),
        };
        // A cache of its own for each: what a cache still has must not hide what the bucket has lost.
        let work = tempfile::tempdir_in(self.lab.dir.path()).unwrap().keep();
        Restic::new(
            SourceName::new("b2").unwrap(),
            location,
            PasswordFrom::Given(Password::new(way.password)),
            work,
            Arc::new(SystemRunner::new()),
            Arc::clone(&self.lab.clock),
        )
        .program(program)
    }

    /// What it says when it is asked what there is, as each of the two.
    fn asked(&self, by: By, change: impl FnOnce(&mut Way)) -> (OffsiteError, SourceError) {
        let (repo, source) = self.engine(by, change);
        let cx = context("points");
        let listed = block_on(repo.points(&cx, None)).unwrap_err();
        let opened = block_on(repo.open(&cx)).unwrap_err();
        assert_eq!(listed.kind(), opened.kind(), "{listed} / {opened}");
        let points = block_on(source.points(&cx, &target())).unwrap_err();
        for effect in [listed.may_have(), opened.may_have(), points.may_have()] {
            assert_eq!(effect, Effect::None);
        }
        (opened, points)
    }

    pub(crate) fn restored(&self, by: By, point: &RecoveryPoint) -> Result<Restored, SourceError> {
        let (_, source) = self.engine(by, |_| {});
        let stage = tempfile::tempdir_in(self.lab.dir.path()).unwrap().keep();
        let request = RestoreRequest {
            target: target(),
            point: point.clone(),
            scope: Scope::Whole,
        };
        let staging = Staging {
            target: target(),
            locator: stage.display().to_string(),
            path: stage,
            state: StageState::Fresh,
        };
        block_on(async {
            let cx = context("restore");
            let plan = source.plan(&cx, &request).await?;
            source.execute(&cx, &plan, &staging).await
        })
    }

    pub(crate) fn locks(&self) -> usize {
        self.lab.locks()
    }
}

/// What an error must say.
struct Wanted {
    what: &'static str,
    source: SourceKind,
    offsite: OffsiteKind,
    retry: Retry,
    /// The cause.
    says: &'static str,
    /// What to do.
    hint: &'static str,
}

fn check(wanted: &Wanted, (opened, points): &(OffsiteError, SourceError)) {
    let what = wanted.what;
    assert_eq!(points.kind(), wanted.source, "{what}: {points}");
    assert_eq!(opened.kind(), wanted.offsite, "{what}: {opened}");
    assert_ne!(points.kind(), SourceKind::NoSuchPoint, "{what}");
    for (told, hint, retry) in [
        (points.to_string(), points.what_to_do(), points.should_retry()),
        (opened.to_string(), opened.what_to_do(), opened.should_retry()),
    ] {
        assert!(
            told.contains(wanted.says),
            "{what}: {told:?} does not name the cause {:?}",
            wanted.says
        );
        let hint = hint.unwrap_or_default();
        assert!(
            hint.contains(wanted.hint),
            "{what}: {hint:?} does not name the fix {:?}",
            wanted.hint
        );
        assert_eq!(retry, wanted.retry, "{what}: {told}");
    }
}

fn what_keeps_out_names_cause_and_fix(by: By) {
    let (it, _) = BadLab::new();
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let wrong = |what, source, offsite, retry, says, hint| Wanted {
        what,
        source,
        offsite,
        retry,
        says,
        hint,
    };
    let unreachable = |what, says, hint| {
        wrong(
            what,
            SourceKind::Unreachable,
            OffsiteKind::Unreachable,
            Retry::Later,
            says,
            hint,
        )
    };
    let invalid = |what, says, hint| {
        wrong(
            what,
            SourceKind::InvalidInput,
            OffsiteKind::InvalidInput,
            Retry::Never,
            says,
            hint,
        )
    };
    check(
        &wrong(
            "wrong password",
            SourceKind::WrongPassword,
            OffsiteKind::WrongPassword,
            Retry::Never,
            "wrong password",
            "check the password file",
        ),
        &it.asked(by, |way| way.password = "wrong"),
    );
    check(
        &wrong(
            "wrong secret",
            SourceKind::AuthFailed,
            OffsiteKind::AuthFailed,
            Retry::Never,
            "does not accept the credentials",
            "credentials_file",
        ),
        &it.asked(by, |way| way.key = S3Credentials::new("AKNOBODY", "wrong")),
    );
    check(
        &unreachable("host that does not resolve", "nowhere.invalid", "DNS"),
        &it.asked(by, |way| way.place.endpoint = "http://nowhere.invalid".into()),
    );
    check(
        &unreachable("nothing listens", "refused", "host and port"),
        &it.asked(by, |way| way.place.endpoint = format!("http://127.0.0.1:{port}")),
    );
    check(
        &invalid("wrong region", "test-region-1", "`region`"),
        &it.asked(by, |way| way.place.region = "elsewhere".into()),
    );
    check(
        &invalid(
            "https where http is spoken",
            "https:",
            "whether it is https or http",
        ),
        &it.asked(by, |way| {
            way.place.endpoint = way.place.endpoint.replace("http:", "https:");
        }),
    );
    check(
        &invalid("http that nobody allowed", "http", "use https"),
        &it.asked(by, |way| way.place.allow_http = false),
    );
    check(
        &wrong(
            "no such bucket",
            SourceKind::NotFound,
            OffsiteKind::NotFound,
            Retry::Never,
            "bucket",
            "reseed makes no buckets",
        ),
        &it.asked(by, |way| way.place.bucket = "other-bucket".into()),
    );
    check(
        &wrong(
            "wrong prefix",
            SourceKind::NoRepository,
            OffsiteKind::NoRepository,
            Retry::Never,
            "no repository at",
            "check the repository path",
        ),
        &it.asked(by, |way| way.place.prefix = "other".into()),
    );
    for (fault, what) in [
        (S3Fault::NotS3(404), "something that is not S3"),
        // What a server says that wants https, in the status that nginx and Go give it.
        (S3Fault::NotS3(400), "http where https is demanded"),
    ] {
        let _rule = it.server.faults().add(S3Rule::always(fault));
        check(
            &invalid(what, "s3:http", "check the endpoint"),
            &it.asked(by, |_| {}),
        );
    }
    Forge::open(&it.lab.path(BUCKET), PASSWORD).set_version(99);
    check(
        &wrong(
            "a newer version",
            SourceKind::Unsupported,
            OffsiteKind::UnsupportedVersion,
            Retry::Never,
            "a format this version does not know",
            "upgrade",
        ),
        &it.asked(by, |_| {}),
    );
    assert_eq!(it.locks(), 0);
}

/// A part of it is missing or cut off: what there is is still listed, restoring it fails, and a check tells.
fn lost_parts_are_damage_and_no_absence(by: By, what: &str, break_it: fn(&BadLab)) {
    let (it, point) = BadLab::new();
    break_it(&it);
    let (repo, source) = it.engine(by, |_| {});
    let cx = context(&what.replace(' ', "-"));
    let listed = block_on(source.points(&cx, &target())).unwrap();
    assert_eq!(listed.len(), 1, "{what}: a point that is there was not listed");
    let error = it.restored(by, &point).unwrap_err();
    assert_eq!(error.kind(), SourceKind::Corrupt, "{what}: {error}");
    assert_eq!(error.should_retry(), Retry::Never, "{what}: {error}");
    let hint = error.what_to_do().unwrap_or_default();
    assert!(hint.contains("restic "), "{what}: {hint:?} names no command");
    match block_on(repo.check(&cx, CheckDepth::Everything)) {
        Ok(report) => assert!(!report.errors.is_empty(), "{what}: the check found nothing"),
        Err(error) => assert_eq!(error.kind(), OffsiteKind::Corrupt, "{what}: {error}"),
    }
    assert_eq!(it.locks(), 0, "{what}: a lock was left");
}

fn a_missing_index_is_damage_and_no_absence(by: By) {
    lost_parts_are_damage_and_no_absence(by, "missing index", |it| {
        for path in it.lab.files_in("index") {
            fs::remove_file(path).unwrap();
        }
    });
}

fn a_missing_pack_is_damage_and_no_absence(by: By) {
    lost_parts_are_damage_and_no_absence(by, "missing pack", |it| {
        fs::remove_file(&it.lab.packs()[0]).unwrap();
    });
}

fn a_truncated_pack_is_damage_and_no_absence(by: By) {
    lost_parts_are_damage_and_no_absence(by, "truncated pack", |it| {
        truncate(&it.lab.packs()[0], 5000);
    });
}

fn a_locked_repository_is_listed_and_restored_later(by: By) {
    let (it, point) = BadLab::new();
    let now = it.lab.clock.now();
    let lock = Forge::open(&it.lab.path(BUCKET), PASSWORD).lock(true, "the-other-host", 4711, now);
    let (repo, source) = it.engine(by, |_| {});
    let cx = context("locked");
    assert_eq!(block_on(source.points(&cx, &target())).unwrap().len(), 1);
    let error = block_on(repo.backup(&cx, &it.request())).unwrap_err();
    assert_eq!(error.kind(), OffsiteKind::Locked, "{error}");
    assert_eq!(error.should_retry(), Retry::Later);
    assert!(error.to_string().contains("the-other-host"), "{error}");
    assert!(error.what_to_do().unwrap_or_default().contains("restic unlock"));
    assert!(lock.exists(), "the lock of somebody who may live was removed");
    fs::remove_file(lock).unwrap();
    it.restored(by, &point).unwrap();
    assert_eq!(it.locks(), 0);
}

fn a_full_bucket_takes_no_backup_and_gives_what_it_has(by: By) {
    let (it, point) = BadLab::new();
    fs::write(it.tree().join("new"), noise(9, 500_000)).unwrap();
    for fault in [S3Fault::QUOTA, S3Fault::FULL] {
        let full = it
            .server
            .faults()
            .add(S3Rule::on(S3Op::Put, fault.clone()).key("data/"));
        it.server.faults().take_struck();
        let (repo, source) = it.engine(by, |_| {});
        let cx = context("full");
        let error = block_on(repo.backup(&cx, &it.request())).unwrap_err();
        assert_eq!(error.kind(), OffsiteKind::NoSpace, "{fault:?}: {error}");
        assert_eq!(error.should_retry(), Retry::AfterFix, "{fault:?}: {error}");
        assert!(
            error.what_to_do().unwrap_or_default().contains("quota"),
            "{fault:?}"
        );
        let tries = it.server.faults().take_struck().len();
        assert!(
            (1..=24).contains(&tries),
            "{fault:?}: a full bucket was tried {tries} times"
        );
        assert_eq!(it.locks(), 0, "{fault:?}: a lock was left");
        assert_eq!(block_on(source.points(&cx, &target())).unwrap().len(), 1);
        drop(full);
        let none = it.server.faults().add(S3Rule::on(S3Op::Put, fault.clone()));
        let restored = it.restored(by, &point).unwrap();
        assert_eq!(restored.files, 3, "{fault:?}");
        drop(none);
    }
    let (repo, _) = it.engine(by, |_| {});
    let report = block_on(repo.backup(&context("room"), &it.request())).unwrap();
    assert_eq!(report.outcome, BackupOutcome::Complete);
    assert_eq!(it.locks(), 0);
}

macro_rules! by {
    ($($name:ident = $by:expr;)+) => {$(
        mod $name {
            use super::*;

            #[test]
            fn what_keeps_out_names_cause_and_fix() {
                super::what_keeps_out_names_cause_and_fix($by);
            }

            #[test]
            fn a_missing_index_is_damage_and_no_absence() {
                super::a_missing_index_is_damage_and_no_absence($by);
            }

            #[test]
            fn a_missing_pack_is_damage_and_no_absence() {
                super::a_missing_pack_is_damage_and_no_absence($by);
            }

            #[test]
            fn a_truncated_pack_is_damage_and_no_absence() {
                super::a_truncated_pack_is_damage_and_no_absence($by);
            }

            #[test]
            fn a_locked_repository_is_listed_and_restored_later() {
                super::a_locked_repository_is_listed_and_restored_later($by);
            }

            #[test]
            fn a_full_bucket_takes_no_backup_and_gives_what_it_has() {
                super::a_full_bucket_takes_no_backup_and_gives_what_it_has($by);
            }
        }
    )+};
}

by! {
    embedded = By::Embedded;
    real_restic = By::Program("RESEED_REAL_RESTIC");
    real_newer_restic = By::Program("RESEED_REAL_RESTIC_NEWER");
}
