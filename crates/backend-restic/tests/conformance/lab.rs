//! One lab for both suites: a repository below a mount point or in a bucket, trees beside it, and ways to break it.
//!
//! A bucket's objects are files here too, so what breaks a directory breaks it as well.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::Timestamp;
use reseed_backend_restic::repo::Engine;
use reseed_backend_restic::restic;
use reseed_backend_restic::secret::Password;
use reseed_backend_restic::worker::Worker;
use reseed_backend_restic::{Embedded, PasswordFrom, Restic};
use reseed_core::clock::{Clock, SystemClock};
use reseed_core::error::OffsiteError;
use reseed_core::exec::{Command, Runner as _, Secret, SystemRunner};
use reseed_core::names::{DatasetName, PointId, SourceName};
use reseed_core::offsite::{
    BackupOutcome, BackupReport, BackupRequest, CheckDepth, CheckReport, OffsiteCaps, RepoInfo, Usage,
};
use reseed_core::point::{RecoveryPoint, Target};
use reseed_core::store::{StageState, Staging};
use reseed_core::{Context, OffsitePruner, OffsiteRepo, RestoreSource};
use reseed_testkit::conformance::offsite::{Damage, OffsiteLab};
use reseed_testkit::conformance::pruner::PrunerLab;
use reseed_testkit::conformance::source::SourceLab;
use reseed_testkit::conformance::{context, minute, source_name};
use reseed_testkit::files::{Files, Listing, RealFiles};
use reseed_testkit::s3::{S3Fault, S3Guard, S3Rule};
use rustix::fs::{Mode, OFlags};
use tempfile::TempDir;

use crate::forge::{Forge, NOBODY};
use crate::location::Location;
use crate::place::temporary;
use crate::server::USER;

const WORKER: &str = env!("CARGO_BIN_EXE_reseed-restore-worker");
const PASSWORD: &str = "correct horse";
const OTHER_HOST: &str = "the-other-host";

/// What all keys of a repository in a bucket begin with.
const PREFIX: &str = "some/where";

/// Which engine.
#[derive(Debug, Clone)]
pub(crate) enum By {
    Embedded,
    /// The program that this variable names. Without it the tests fail rather than pass for nothing.
    Program(&'static str),
}

pub(crate) struct OnDisk {
    by: By,
    /// Before the directory that it is in, so that a server ends first.
    location: Location,
    away: Mutex<Option<S3Guard>>,
    dir: TempDir,
    files: RealFiles,
    clock: Arc<dyn Clock>,
    kept: AtomicU64,
    their_lock: Mutex<Option<PathBuf>>,
}

impl OnDisk {
    /// Without a repository.
    pub(crate) fn offsite(by: By) -> Self {
        Self::made(by, |dir| Location::directory(dir.join("mnt/repo")))
    }

    /// With an empty one, which opens quickly: the suite of sources opens it many times.
    pub(crate) fn source(by: By) -> Self {
        Self::offsite(by).with_repository()
    }

    /// The same in a bucket of a server of its own.
    pub(crate) fn offsite_in_s3(by: By) -> Self {
        Self::made(by, |dir| Location::files(dir, PREFIX))
    }

    pub(crate) fn source_in_s3(by: By) -> Self {
        Self::offsite_in_s3(by).with_repository()
    }

    /// The same in a bucket of a Garage of its own.
    pub(crate) fn offsite_in_garage(by: By) -> Self {
        Self::made(by, |dir| Location::garage(dir, PREFIX))
    }

    pub(crate) fn source_in_garage(by: By) -> Self {
        Self::offsite_in_garage(by).with_repository()
    }

    /// The same on restic's own server, for the restic program.
    pub(crate) fn offsite_on_rest(by: By) -> Self {
        Self::made(by, |dir| Location::rest(dir, PREFIX, false))
    }

    pub(crate) fn source_on_rest(by: By) -> Self {
        Self::offsite_on_rest(by).with_repository()
    }

    /// The same where nothing but locks can be deleted.
    pub(crate) fn append_only(by: By) -> Self {
        Self::made(by, |dir| Location::rest(dir, PREFIX, true))
    }

    /// What is append-only, on another server that deletes what it is asked to.
    pub(crate) fn that_deletes(mut self) -> Self {
        self.location = Location::rest(self.dir.path(), PREFIX, false);
        self
    }

    /// Where the server knows another password of the user's.
    pub(crate) fn with_a_wrong_login(&self, variable: &str) -> Restic {
        let mut location = self.location.for_restic();
        if let restic::Location::Rest(place) = &mut location {
            let wrong = PasswordFrom::Given(Password::new("not the password"));
            place.login = Some((USER.to_owned(), wrong));
        }
        self.restic_at(location, variable, PASSWORD)
    }

    /// The same over sftp, for the restic program.
    pub(crate) fn offsite_over_sftp(by: By) -> Self {
        Self::made(by, |dir| Location::sftp(dir, PREFIX))
    }

    pub(crate) fn source_over_sftp(by: By) -> Self {
        Self::offsite_over_sftp(by).with_repository()
    }

    fn made(by: By, location: impl FnOnce(&Path) -> Location) -> Self {
        let dir = temporary();
        for name in ["mnt", "scratch", "staging"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self {
            by,
            location: location(dir.path()),
            away: Mutex::default(),
            dir,
            files: RealFiles,
            clock: Arc::new(SystemClock::new()),
            kept: AtomicU64::new(0),
            their_lock: Mutex::default(),
        }
    }

    fn with_repository(self) -> Self {
        self.location.edit(|| Forge::create(&self.root(), PASSWORD));
        self
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    fn root(&self) -> PathBuf {
        self.location.root().to_owned()
    }

    fn engine(&self) -> Engine {
        let clock = Arc::clone(&self.clock);
        match self.location.s3() {
            Some((place, credentials)) => Engine::s3(place, credentials, clock),
            None => Engine::local(self.root(), clock),
        }
    }

    /// True where there is a server: then it is it that doesn't answer, or does again.
    fn server_answers(&self, reachable: bool) -> bool {
        if let Some(server) = self.location.sftp_server() {
            server.set_up(reachable);
            return true;
        }
        let Some(faults) = self.location.faults() else {
            return false;
        };
        let away = (!reachable).then(|| faults.add(S3Rule::always(S3Fault::Reset)));
        *self.away.lock().unwrap() = away;
        true
    }

    fn embedded(&self, password: &str) -> Embedded {
        Embedded::new(
            source_name("offsite"),
            self.engine(),
            PasswordFrom::Given(Password::new(password)),
            Worker::new([WORKER], Arc::new(SystemRunner::new())),
        )
    }

    fn restic(&self, variable: &str, password: &str) -> Restic {
        self.restic_at(self.location.for_restic(), variable, password)
    }

    fn restic_at(&self, location: restic::Location, variable: &str, password: &str) -> Restic {
        let program = std::env::var_os(variable).unwrap_or_else(|| {
            panic!("{variable} must name the restic to test with (or leave out the tests named real_*)")
        });
        Restic::new(
            source_name("offsite"),
            location,
            PasswordFrom::Given(Password::new(password)),
            self.path("work"),
            Arc::new(SystemRunner::new()),
            Arc::clone(&self.clock),
        )
        .program(program)
    }

    /// Has the restic program that this variable names do something with the repository.
    pub(crate) async fn restic_run(&self, cx: &Context, variable: &str, words: &[&str]) {
        let command = Command::new(std::env::var_os(variable).unwrap())
            .args(["--no-cache", "--repo"])
            .arg(self.root())
            .args(words)
            .env_secret_file("RESTIC_PASSWORD_FILE", Secret::new(PASSWORD));
        let output = SystemRunner::new().run(&command, &cx.cancel).await.unwrap();
        assert!(output.exit.success(), "{output:?}");
    }

    /// The same repository, as the restic program sees it that this variable names.
    pub(crate) fn seen_by(&self, variable: &str) -> Restic {
        self.restic(variable, PASSWORD)
    }

    pub(crate) fn embedded_source(&self) -> Arc<dyn RestoreSource> {
        Arc::new(self.embedded(PASSWORD))
    }

    /// As an interrupted copy leaves it.
    pub(crate) fn lose_snapshots(&self) {
        self.location
            .edit(|| fs::remove_dir_all(self.root().join("snapshots")).unwrap());
    }

    fn as_repo(&self, password: &str) -> Arc<dyn OffsiteRepo> {
        match self.by {
            By::Embedded => Arc::new(self.embedded(password)),
            By::Program(variable) => Arc::new(self.restic(variable, password)),
        }
    }

    fn as_source(&self, password: &str) -> Arc<dyn RestoreSource> {
        match self.by {
            By::Embedded => Arc::new(self.embedded(password)),
            By::Program(variable) => Arc::new(self.restic(variable, password)),
        }
    }

    fn forge(&self) -> Forge {
        Forge::open(&self.root(), PASSWORD)
    }

    /// Largest first.
    fn packs(&self) -> Vec<PathBuf> {
        let mut packs = self.files.regular_files(&self.root().join("data"));
        packs.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
        packs
    }

    fn make_target(&self, name: &str) -> Target {
        Target {
            dataset: DatasetName::new(format!("plain/{name}")).unwrap(),
            mountpoint: self.path("live").join(name),
        }
    }
}

impl PrunerLab for OnDisk {
    fn pruner(&self) -> Arc<dyn OffsitePruner> {
        match self.by {
            By::Embedded => unreachable!("the embedded engine removes nothing"),
            By::Program(variable) => Arc::new(self.restic(variable, PASSWORD).of_host("host-a")),
        }
    }
}

/// The engine, and after an `init` a key that takes no time to derive instead of the one that it wrote: opening a
/// repository is meant to be slow, and the suite does it a hundred times.
#[derive(Debug)]
struct Quick(Arc<dyn OffsiteRepo>, Location);

#[async_trait]
impl OffsiteRepo for Quick {
    fn name(&self) -> &SourceName {
        self.0.name()
    }
    fn caps(&self) -> OffsiteCaps {
        self.0.caps()
    }
    async fn init(&self, cx: &Context) -> Result<RepoInfo, OffsiteError> {
        let made = self.0.init(cx).await?;
        assert_eq!(self.0.open(cx).await?, made, "the engine's own key opens it");
        self.1.edit(|| Forge::rekey(self.1.root(), PASSWORD));
        Ok(made)
    }
    async fn open(&self, cx: &Context) -> Result<RepoInfo, OffsiteError> {
        self.0.open(cx).await
    }
    async fn backup(&self, cx: &Context, request: &BackupRequest) -> Result<BackupReport, OffsiteError> {
        self.0.backup(cx, request).await
    }
    async fn record(
        &self,
        cx: &Context,
        request: &BackupRequest,
        same_as: &RecoveryPoint,
        read_since: Timestamp,
    ) -> Result<Option<BackupReport>, OffsiteError> {
        self.0.record(cx, request, same_as, read_since).await
    }
    async fn points(
        &self,
        cx: &Context,
        target: Option<&Target>,
    ) -> Result<Vec<RecoveryPoint>, OffsiteError> {
        self.0.points(cx, target).await
    }
    async fn check(&self, cx: &Context, depth: CheckDepth) -> Result<CheckReport, OffsiteError> {
        self.0.check(cx, depth).await
    }
    async fn usage(&self, cx: &Context) -> Result<Usage, OffsiteError> {
        self.0.usage(cx).await
    }
}

impl OffsiteLab for OnDisk {
    fn repo(&self) -> Arc<dyn OffsiteRepo> {
        Arc::new(Quick(self.as_repo(PASSWORD), self.location.clone()))
    }
    fn repo_with_wrong_password(&self) -> Arc<dyn OffsiteRepo> {
        self.as_repo("wrong")
    }
    fn files(&self) -> &dyn Files {
        &self.files
    }
    fn scratch(&self) -> PathBuf {
        self.path("scratch")
    }
    fn target(&self, name: &str) -> Target {
        self.make_target(name)
    }
    fn objects(&self) -> BTreeMap<String, u64> {
        let (root, locks) = (self.root(), self.root().join("locks"));
        let paths = self.location.look(|| self.files.regular_files(&root)).into_iter();
        paths
            .filter(|path| !path.starts_with(&locks))
            // A file in the repository's place is listed as itself, with a slash behind it.
            .map(|path| path.components().collect::<PathBuf>())
            .map(|path| (path.display().to_string(), fs::metadata(&path).unwrap().len()))
            .collect()
    }
    fn put_something_else(&self) {
        self.location.edit(|| {
            fs::rename(self.root(), self.path("the-repository-was")).unwrap();
            if self.location.is_elsewhere() {
                fs::create_dir(self.root()).unwrap();
                fs::write(self.root().join("config"), b"of something else").unwrap();
                if !self.location.is_bucket() {
                    // restic by itself can't tell a repository without keys from a wrong password.
                    let keys = self.path("the-repository-was").join("keys");
                    fs::rename(keys, self.root().join("keys")).unwrap();
                }
            } else {
                fs::write(self.root(), b"a file where the repository should be").unwrap();
            }
        });
    }
    fn make_newer(&self) {
        self.location.edit(|| self.forge().set_version(99));
    }
    fn set_reachable(&self, reachable: bool) {
        if self.server_answers(reachable) {
            return;
        }
        let (mount, away) = (self.path("mnt"), self.path("away"));
        if reachable {
            fs::remove_file(&mount).unwrap();
            fs::rename(away, mount).unwrap();
        } else {
            fs::rename(&mount, away).unwrap();
            // Nothing below can be looked at, not by root either.
            std::os::unix::fs::symlink(&mount, &mount).unwrap();
        }
    }
    fn lock_exclusively(&self) -> String {
        let now = self.clock.now();
        let lock = self
            .location
            .edit(|| self.forge().lock(true, OTHER_HOST, 4711, now));
        *self.their_lock.lock().unwrap() = Some(lock);
        OTHER_HOST.to_owned()
    }
    fn leave_dead_lock(&self) {
        let here = rustix::system::uname().nodename().to_str().unwrap().to_owned();
        // Longer ago than the living take to refresh theirs.
        let then = self.clock.now() - jiff::SignedDuration::from_mins(7);
        self.location
            .edit(|| self.forge().lock(true, &here, NOBODY, then));
    }
    fn unlock(&self) {
        let lock = self.their_lock.lock().unwrap().take().unwrap();
        self.location.edit(|| fs::remove_file(lock).unwrap());
    }
    fn locks(&self) -> usize {
        self.location.look(|| {
            let locks = fs::read_dir(self.root().join("locks")).into_iter().flatten();
            // What is being written has another name until it is complete.
            locks
                .filter(|entry| entry.as_ref().unwrap().file_name().len() == 64)
                .count()
        })
    }
    fn damage(&self, damage: Damage) {
        self.location.edit(|| {
            let pack = self.packs().remove(0);
            match damage {
                Damage::Flip => {
                    let middle = fs::metadata(&pack).unwrap().len() / 2;
                    self.files.flip(&pack, usize::try_from(middle).unwrap());
                }
                Damage::Missing => fs::remove_file(pack).unwrap(),
            }
        });
    }
    fn make_unreadable(&self, path: &Path) -> bool {
        if rustix::process::geteuid().is_root() {
            // Root can read everything but what is below more directories than a path can name.
            self.files.remove(path);
            self.files.make_dir(path);
            let name = "d".repeat(250);
            let mut dir = std::os::fd::OwnedFd::from(fs::File::open(path).unwrap());
            for _ in 0..17 {
                rustix::fs::mkdirat(&dir, &name, Mode::from_raw_mode(0o755)).unwrap();
                dir = rustix::fs::openat(&dir, &name, OFlags::DIRECTORY, Mode::empty()).unwrap();
            }
        } else {
            self.files.set_mode(path, 0);
        }
        true
    }
}

#[async_trait]
impl SourceLab for OnDisk {
    fn source(&self) -> Arc<dyn RestoreSource> {
        self.as_source(PASSWORD)
    }
    fn files(&self) -> &dyn Files {
        &self.files
    }
    fn scratch(&self) -> PathBuf {
        self.path("scratch")
    }
    fn target(&self, name: &str) -> Target {
        self.make_target(name)
    }
    async fn keep(&self, target: &Target, tree: &Path, minutes: i64) -> PointId {
        let number = self.kept.fetch_add(1, Ordering::Relaxed);
        let request = BackupRequest {
            target: target.clone(),
            path: tree.to_owned(),
            as_path: target.mountpoint.clone(),
            host: "host".to_owned(),
            point: PointId::new((u64::MAX - number).to_string()).unwrap(),
            snapshot: None,
            taken_at: minute(minutes),
            fingerprint: None,
            unseeded: false,
        };
        let report = self
            .as_repo(PASSWORD)
            .backup(&context("keep"), &request)
            .await
            .unwrap();
        assert_eq!(report.outcome, BackupOutcome::Complete);
        request.point
    }
    async fn stage(&self, point: &RecoveryPoint) -> Staging {
        let leaf = point.dataset.as_str().strip_prefix("plain/").unwrap();
        let path = self.path("staging").join(format!("{leaf}@{}", point.id));
        let state = if path.exists() {
            StageState::Partial
        } else {
            fs::create_dir(&path).unwrap();
            StageState::Fresh
        };
        Staging {
            target: self.make_target(leaf),
            locator: path.display().to_string(),
            path,
            state,
        }
    }
    async fn staged(&self, staging: &Staging) -> Listing {
        self.files.list(&staging.path)
    }
    async fn discard(&self, staging: &Staging) {
        self.files.remove(&staging.path);
    }
    fn set_reachable(&self, reachable: bool) {
        if self.server_answers(reachable) {
            return;
        }
        let (mount, away) = (self.path("mnt"), self.path("away"));
        if reachable {
            fs::remove_dir(&mount).unwrap();
            fs::rename(away, mount).unwrap();
        } else {
            fs::rename(&mount, away).unwrap();
            // As an unmounted disk: its mount point is there, and empty.
            fs::create_dir(mount).unwrap();
        }
    }
    async fn forget(&self, point: &RecoveryPoint) {
        let snapshot = self.root().join("snapshots").join(&point.locator);
        self.location.edit(|| fs::remove_file(snapshot).unwrap());
    }
    async fn damage(&self, _point: &RecoveryPoint) {
        self.location.edit(|| {
            for pack in self.packs() {
                // Within the first blob, behind its nonce.
                self.files.flip(&pack, 20);
            }
        });
    }
    fn violations(&self) -> Vec<String> {
        let locks = OffsiteLab::locks(self);
        (locks > 0)
            .then(|| format!("{locks} locks were left"))
            .into_iter()
            .collect()
    }
}
