//! A repository in S3 that can't be had, or not as it should: an error of its own kind that says what to do, never taken
//! for "there is none", and nothing lost or half-done. The server is in this process and checks keys and regions.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use common::forge::Forge;
use common::*;
use reseed_backend_restic::backup::{BackupSummary, backup};
use reseed_backend_restic::check::ReadData;
use reseed_backend_restic::error::EngineError;
use reseed_backend_restic::repo::Engine;
use reseed_backend_restic::restore::RestoreReport;
use reseed_backend_restic::s3::{CredentialsFrom, S3Credentials, S3Place};
use reseed_backend_restic::secret::Password;
use reseed_backend_restic::worker::Worker;
use reseed_backend_restic::{Embedded, PasswordFrom};
use reseed_core::clock::{Clock, SystemClock};
use reseed_core::error::{Effect, OffsiteKind, Retry, SourceKind};
use reseed_core::exec::SystemRunner;
use reseed_core::names::{DatasetName, SourceName};
use reseed_core::point::Target;
use reseed_core::{OffsiteRepo, RestoreSource};
use reseed_testkit::conformance::{block_on, context};
use reseed_testkit::s3::{S3Fault, S3Op, S3Rule, S3Server};

/// The bucket's directory is where [`Lab`] has its repository: all of its helpers see the objects.
const BUCKET: &str = "repo";

/// A clock whose sleeps take no time, so that waiting to try again doesn't.
#[derive(Debug)]
struct Hasty(SystemClock);

#[async_trait]
impl Clock for Hasty {
    fn now(&self) -> jiff::Timestamp {
        self.0.now()
    }
    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
    async fn sleep(&self, _: Duration) {
        tokio::task::yield_now().await;
    }
}

struct S3Lab {
    server: S3Server,
    lab: Lab,
}

impl S3Lab {
    /// With an empty bucket.
    fn bare() -> Self {
        let mut lab = Lab::bare();
        let server = S3Server::start(lab.dir.path()).unwrap();
        server.make_bucket(BUCKET).unwrap();
        lab.clock = Arc::new(Hasty(SystemClock::new()));
        let mut this = Self { server, lab };
        this.lab.engine = this.engine(|_| {});
        this
    }

    /// With an empty repository that opens quickly.
    fn new() -> Self {
        let this = Self::bare();
        Forge::create(&this.lab.path(BUCKET), "correct horse");
        this
    }

    /// With one backup of a tree.
    fn with_backup() -> (Self, String) {
        let this = Self::new();
        let snapshot = this.lab.backup(&this.tree()).snapshot;
        this.server.faults().take_requests();
        (this, snapshot)
    }

    fn place(&self) -> S3Place {
        let access = self.server.access();
        S3Place {
            endpoint: access.endpoint.clone(),
            region: access.region.clone(),
            bucket: BUCKET.into(),
            prefix: String::new(),
            allow_http: true,
        }
    }

    fn key(&self) -> S3Credentials {
        let access = self.server.access();
        S3Credentials::new(&access.access_key_id, &access.secret_access_key)
    }

    fn engine(&self, change: impl FnOnce(&mut S3Place)) -> Engine {
        let mut place = self.place();
        change(&mut place);
        Engine::s3(
            place,
            CredentialsFrom::Given(self.key()),
            Arc::clone(&self.lab.clock),
        )
    }

    fn engine_with(&self, key: S3Credentials) -> Engine {
        Engine::s3(
            self.place(),
            CredentialsFrom::Given(key),
            Arc::clone(&self.lab.clock),
        )
    }

    fn tree(&self) -> PathBuf {
        let tree = self.lab.path("tree");
        if !tree.exists() {
            fs::create_dir(&tree).unwrap();
            for number in 0..4 {
                fs::write(tree.join(format!("file{number}")), noise(number, 700_000)).unwrap();
            }
        }
        tree
    }

    fn try_backup(&self) -> Result<BackupSummary, EngineError> {
        let job = self.lab.job(&self.tree());
        backup(
            &self.lab.engine,
            &self.lab.password,
            &job,
            Arc::new(|_| ()),
            never(),
        )
    }

    fn try_restore(&self, snapshot: &str, target: &str) -> Result<RestoreReport, EngineError> {
        self.lab.restore(&self.lab.restore_job(snapshot, target))
    }

    fn embedded(&self, engine: Engine) -> Embedded {
        Embedded::new(
            SourceName::new("b2").unwrap(),
            engine,
            PasswordFrom::Given(Password::new("correct horse")),
            Worker::new(
                [env!("CARGO_BIN_EXE_reseed-restore-worker")],
                Arc::new(SystemRunner::new()),
            ),
        )
    }

    fn snapshots(&self) -> usize {
        self.lab
            .engine
            .open(&self.lab.password)
            .unwrap()
            .snapshots()
            .unwrap()
            .readable
            .len()
    }

    /// The repository is whole, all of its snapshots can be restored, and nobody holds it.
    fn assert_sound(&self) {
        let open = self.lab.engine.open(&self.lab.password).unwrap();
        let found = open.check(ReadData::All, &never()).unwrap();
        assert_eq!(found.errors, Vec::<String>::new());
        assert_eq!(self.lab.locks(), 0, "a lock was left");
    }
}

fn kind(error: &EngineError) -> String {
    let json = serde_json::to_value(error).unwrap();
    json["kind"].as_str().unwrap().to_owned()
}

fn refused_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Every way of not getting in: by kind, with what to do, in `open` and `init` alike, and nothing is written.
#[test]
fn the_ways_of_not_getting_in_are_told_apart() {
    let it = S3Lab::bare();
    let access = it.server.access().clone();
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
        let _rule = it.server.faults().add(S3Rule::always(fault.clone()));
        said(&format!("{fault:?}"), &it.lab.engine, wanted, "");
    }
    let _hangs = it.server.faults().add(S3Rule::always(S3Fault::Hang));
    let hasty = it.engine(|_| {}).with_patience(Duration::from_millis(200));
    said("no answer", &hasty, "unreachable", "no answer");
    assert_eq!(
        walk(&it.lab.path(BUCKET)),
        Vec::<PathBuf>::new(),
        "something was written"
    );
}

/// The same through the core's traits: no kind that could pass for "there is nothing", and a second try only where it helps.
#[test]
fn what_cannot_be_asked_is_no_answer_for_the_chain() {
    let (it, _) = S3Lab::with_backup();
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
        let _rule = it.server.faults().add(S3Rule::always(fault.clone()));
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
    let (it, _) = S3Lab::with_backup();
    let _down = it.server.faults().add(S3Rule::always(S3Fault::INTERNAL));
    it.lab.engine.open(&it.lab.password).unwrap_err();
    // A look, and because that has no words a read.
    assert_eq!(it.server.faults().take_requests().len(), 2);
}

#[test]
fn a_store_that_stumbles_is_asked_again() {
    let it = S3Lab::new();
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
    let rules: Vec<_> = stumbles
        .into_iter()
        .map(|rule| it.server.faults().add(rule))
        .collect();
    let summary = it.try_backup().unwrap();
    assert_eq!((summary.unreadable, summary.unlisted), (0, false));
    let report = it.try_restore(&summary.snapshot, "out").unwrap();
    assert!(report.is_exact() && report.locked);
    assert_same(&it.tree(), &it.lab.path("out"));
    assert!(it.server.faults().take_struck().len() >= count);
    drop(rules);
    assert_eq!(it.snapshots(), 1, "a lost answer makes no second snapshot");
    it.assert_sound();
}

/// Whatever keeps data from being written: no snapshot, no lock, and the next backup is whole.
#[test]
fn a_backup_that_cannot_write_fails_and_leaves_nothing_that_looks_done() {
    let (it, _) = S3Lab::with_backup();
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
        let rule = it
            .server
            .faults()
            .add(S3Rule::on(S3Op::Put, fault.clone()).key(where_));
        let error = it.try_backup().unwrap_err();
        assert_eq!(kind(&error), wanted, "{where_} {fault:?}: {error}");
        drop(rule);
        assert_eq!(it.snapshots(), 1, "{where_} {fault:?} made a snapshot");
        assert_eq!(it.lab.locks(), 0, "{where_} {fault:?} left a lock");
    }
    let summary = it.try_backup().unwrap();
    assert_same_restored(&it, &summary.snapshot);
    it.assert_sound();
}

fn assert_same_restored(it: &S3Lab, snapshot: &str) {
    let report = it.try_restore(snapshot, "restored").unwrap();
    assert!(report.is_exact());
    assert_same(&it.tree(), &it.lab.path("restored"));
    fs::remove_dir_all(it.lab.path("restored")).unwrap();
}

/// Whatever keeps data from being read: an error, and what is restored later is whole.
#[test]
fn a_restore_that_cannot_read_fails_and_goes_on_later() {
    let (it, snapshot) = S3Lab::with_backup();
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
        let _rule = it
            .server
            .faults()
            .add(S3Rule::on(S3Op::Get, fault.clone()).key("data/"));
        let error = it.lab.restore(&job).unwrap_err();
        assert!(kinds.contains(&kind(&error).as_str()), "{fault:?}: {error}");
        assert_eq!(it.lab.locks(), 0, "{fault:?} left a lock");
    }
    assert!(it.lab.restore(&job).unwrap().is_exact());
    assert_same(&it.tree(), &it.lab.path("out"));
}

/// A full bucket, or a key that may only read, is no reason not to restore.
#[test]
fn a_restore_needs_no_write() {
    let (it, snapshot) = S3Lab::with_backup();
    for fault in [S3Fault::QUOTA, S3Fault::DENIED, S3Fault::INTERNAL] {
        let _rule = it.server.faults().add(S3Rule::on(S3Op::Put, fault));
        let report = it.try_restore(&snapshot, "out").unwrap();
        assert!(report.is_exact() && !report.locked);
        fs::remove_dir_all(it.lab.path("out")).unwrap();
    }
}

#[test]
fn a_listing_that_lags_hides_nothing_behind_a_success() {
    let (it, _) = S3Lab::with_backup();
    let faults = it.server.faults();
    fs::write(it.tree().join("new"), noise(78, 400_000)).unwrap();
    // Nobody could see our lock, and we nobody's.
    let lag = faults.add(S3Rule::on(S3Op::List, S3Fault::Lag).key("locks/"));
    let error = it.try_backup().unwrap_err();
    assert_eq!(kind(&error), "lock_lost", "{error}");
    drop(lag);
    assert_eq!((it.snapshots(), it.lab.locks()), (1, 0));
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

#[test]
fn init_makes_one_repository_also_where_answers_get_lost() {
    let it = S3Lab::bare();
    let lost = it
        .server
        .faults()
        .add(S3Rule::on(S3Op::Put, S3Fault::LostAnswer).key("config").times(1));
    let (id, version) = it.lab.engine.init(&it.lab.password).unwrap();
    assert_eq!(it.server.faults().take_struck().len(), 1);
    drop(lost);
    let open = it.lab.engine.open(&it.lab.password).unwrap();
    assert_eq!((open.id(), open.version()), (id, version));
    let before = walk(&it.lab.path(BUCKET)).len();
    let again = it.lab.engine.init(&it.lab.password).unwrap_err();
    assert_eq!(kind(&again), "already_exists");
    assert_eq!(walk(&it.lab.path(BUCKET)).len(), before);
    assert_eq!(walk(&it.lab.path("repo/keys")).len(), 1);
}

/// Garage overwrites what it was asked only to create; some stores answer that they don't know how.
#[test]
fn init_works_on_stores_that_ignore_conditions() {
    for habit in [
        S3Rule::always(S3Fault::Unconditional),
        S3Rule::on(
            S3Op::Put,
            S3Fault::Error {
                status: 501,
                code: "NotImplemented",
                message: "A header you provided implies functionality that is not implemented",
            },
        )
        .key("keys/")
        .from_nth(2)
        .times(1),
    ] {
        let it = S3Lab::bare();
        let _habit = it.server.faults().add(habit);
        it.lab.engine.init(&it.lab.password).unwrap();
        it.lab.engine.open(&it.lab.password).unwrap();
    }
}

/// Somebody else's configuration that appears in the middle is not overwritten.
#[test]
fn of_two_that_init_at_once_one_is_told() {
    let it = S3Lab::bare();
    let _slow = it
        .server
        .faults()
        .add(S3Rule::on(S3Op::Put, S3Fault::Slow(Duration::from_millis(300))).key("config"));
    let init = || it.engine(|_| {}).init(&it.lab.password);
    let results = std::thread::scope(|scope| {
        let both = [scope.spawn(init), scope.spawn(init)];
        both.map(|thread| thread.join().unwrap())
    });
    let made = results.iter().filter(|result| result.is_ok()).count();
    // Both may find the other's key, and then both say so.
    assert!(made <= 1, "{results:?}");
    for error in results.into_iter().filter_map(Result::err) {
        assert_eq!(kind(&error), "already_exists", "{error}");
    }
}

/// A hanging store keeps nobody: whoever cancels is let go at once, and the lock is gone.
#[test]
fn what_hangs_can_be_cancelled() {
    let (it, snapshot) = S3Lab::with_backup();
    for (op, where_) in [(S3Op::Get, "index/"), (S3Op::Put, "data/"), (S3Op::Get, "data/")] {
        let _hang = it.server.faults().add(S3Rule::on(op, S3Fault::Hang).key(where_));
        it.server.faults().take_struck();
        let (faults, struck) = (it.server.faults().clone(), Arc::new(AtomicBool::new(false)));
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
        assert_eq!(it.lab.locks(), 0, "{op:?} {where_} left a lock");
    }
    assert_eq!(it.snapshots(), 1);
}

/// Flipped bits in what says what there is are found, too, and take no other snapshot with them.
#[test]
fn wrong_bytes_in_a_snapshot_are_no_missing_snapshot() {
    let (it, snapshot) = S3Lab::with_backup();
    let _flip = it
        .server
        .faults()
        .add(S3Rule::on(S3Op::Get, S3Fault::Flip(40)).key("snapshots/"));
    let found = it.lab.engine.open(&it.lab.password).unwrap().snapshots().unwrap();
    assert_eq!(found.readable.len(), 0);
    assert_eq!(found.unreadable.len(), 1);
    assert_eq!(found.unreadable[0].0, snapshot);
}
