//! An embedded repository in a bucket.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
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
use reseed_core::exec::SystemRunner;
use reseed_core::names::SourceName;
use reseed_testkit::s3::S3Faults;

use crate::common::forge::Forge;
use crate::common::*;
use crate::location::Location;

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

pub(crate) struct S3Lab {
    /// Before the directory that it is in, so that a server ends first.
    pub(crate) location: Location,
    pub(crate) lab: Lab,
}

impl S3Lab {
    /// With an empty bucket of a server in this process.
    pub(crate) fn bare() -> Self {
        Self::made(Location::files)
    }

    /// With one of a Garage.
    pub(crate) fn in_garage() -> Self {
        Self::made(Location::garage)
    }

    fn made(location: impl FnOnce(&Path, &'static str) -> Location) -> Self {
        let mut lab = Lab::bare();
        lab.clock = Arc::new(Hasty(SystemClock::new()));
        let location = location(lab.dir.path(), "");
        // All of its helpers see the objects.
        std::os::unix::fs::symlink(location.root(), lab.path("repo")).unwrap();
        let mut this = Self { location, lab };
        this.lab.engine = this.engine(|_| {});
        this
    }

    /// With an empty repository that opens quickly.
    pub(crate) fn with_repository(self) -> Self {
        self.location
            .edit(|| Forge::create(self.location.root(), "correct horse"));
        self
    }

    /// With one backup of a tree.
    pub(crate) fn with_backup(self) -> (Self, String) {
        let this = self.with_repository();
        let snapshot = this.lab.backup(&this.tree()).snapshot;
        this.faults().take_requests();
        (this, snapshot)
    }

    /// The rules by which the server fails, or the proxy in front of it.
    pub(crate) fn faults(&self) -> &S3Faults {
        self.location.faults().unwrap()
    }

    pub(crate) fn place(&self) -> S3Place {
        self.location.s3().unwrap().0
    }

    pub(crate) fn key(&self) -> S3Credentials {
        let access = self.location.access();
        S3Credentials::new(access.access_key_id, access.secret_access_key)
    }

    pub(crate) fn locks(&self) -> usize {
        self.location.look(|| self.lab.locks())
    }

    /// Everything in the bucket.
    pub(crate) fn objects(&self) -> Vec<PathBuf> {
        let files = || {
            walk(self.location.root())
                .into_iter()
                .filter(|path| path.is_file())
        };
        self.location.look(|| files().collect())
    }

    pub(crate) fn engine(&self, change: impl FnOnce(&mut S3Place)) -> Engine {
        let mut place = self.place();
        change(&mut place);
        Engine::s3(
            place,
            CredentialsFrom::Given(self.key()),
            Arc::clone(&self.lab.clock),
        )
    }

    pub(crate) fn engine_with(&self, key: S3Credentials) -> Engine {
        Engine::s3(
            self.place(),
            CredentialsFrom::Given(key),
            Arc::clone(&self.lab.clock),
        )
    }

    pub(crate) fn tree(&self) -> PathBuf {
        let tree = self.lab.path("tree");
        if !tree.exists() {
            fs::create_dir(&tree).unwrap();
            for number in 0..4 {
                fs::write(tree.join(format!("file{number}")), noise(number, 700_000)).unwrap();
            }
        }
        tree
    }

    pub(crate) fn try_backup(&self) -> Result<BackupSummary, EngineError> {
        let job = self.lab.job(&self.tree());
        backup(
            &self.lab.engine,
            &self.lab.password,
            &job,
            Arc::new(|_| ()),
            never(),
        )
    }

    pub(crate) fn try_restore(&self, snapshot: &str, target: &str) -> Result<RestoreReport, EngineError> {
        self.lab.restore(&self.lab.restore_job(snapshot, target))
    }

    pub(crate) fn embedded(&self, engine: Engine) -> Embedded {
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

    pub(crate) fn snapshots(&self) -> usize {
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
    pub(crate) fn assert_sound(&self) {
        let open = self.lab.engine.open(&self.lab.password).unwrap();
        let found = open.check(ReadData::All, &never()).unwrap();
        assert_eq!(found.errors, Vec::<String>::new());
        assert_eq!(self.locks(), 0, "a lock was left");
    }
}

pub(crate) fn kind(error: &EngineError) -> String {
    let json = serde_json::to_value(error).unwrap();
    json["kind"].as_str().unwrap().to_owned()
}

pub(crate) fn refused_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// What a snapshot restores is the tree.
pub(crate) fn assert_same_restored(it: &S3Lab, snapshot: &str) {
    let report = it.try_restore(snapshot, "restored").unwrap();
    assert!(report.is_exact());
    assert_same(&it.tree(), &it.lab.path("restored"));
    fs::remove_dir_all(it.lab.path("restored")).unwrap();
}
