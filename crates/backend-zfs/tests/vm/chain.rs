//! A service with its whole chain: a store, its replicas in other pools, and the engine that real runs have.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use reseed_backend_zfs::zfs::{Location, Mapping, NativeReplicator, NativeStore, ReplicaSource};
use reseed_core::clock::{Clock as _, SystemClock};
use reseed_core::engine::Engine;
use reseed_core::entropy::SplitMix;
use reseed_core::exec::{Command, ExecError, Output, PipeOutput, Runner, Streaming, SystemRunner};
use reseed_core::journal::MemoryJournal;
use reseed_core::names::{DatasetName, ServiceName};
use reseed_core::point::{Snapshot, Target};
use reseed_core::preseed::{Outcome, ServiceReport, preseed};
use reseed_core::service::{Policy, Service, WhenExhausted};
use reseed_core::store::Inspection;
use reseed_core::verify::SystemVerifier;
use reseed_core::{Replicator as _, RestoreSource, SnapshotStore};
use reseed_testkit::conformance::context;
use reseed_testkit::files::{Files as _, Listing, RealFiles};
use tokio_util::sync::CancellationToken;

use crate::lab::{Pool, name, run, sure};
use crate::source_lab::snapshot;

/// The engine of a real run, with a history in memory.
pub(crate) fn engine(dir: &Path) -> Engine {
    Engine {
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(SplitMix::seeded(7)),
        verifier: Arc::new(SystemVerifier::new(
            Arc::new(SystemRunner::new()),
            dir.join("verify"),
        )),
        journal: Arc::new(MemoryJournal::new()),
        host: "lab".to_owned(),
    }
}

/// So long as `ready` says no; fails after so many seconds.
pub(crate) async fn wait_until(seconds: u64, what: &str, mut ready: impl FnMut() -> bool) {
    let clock = SystemClock::new();
    while !ready() {
        assert!(
            clock.monotonic() < Duration::from_secs(seconds),
            "no {what} after {seconds} s"
        );
        clock.sleep(Duration::from_millis(100)).await;
    }
}

/// Makes a volume; its device's name in `/dev`.
pub(crate) async fn volume(dataset: &str) -> String {
    let devices = || sure(["sh", "-c", "ls /dev | grep '^zd[0-9]*$' || true"]);
    let before = devices();
    sure(["zfs", "create", "-V", "16M", dataset]);
    let mut device = String::new();
    wait_until(60, "the volume's device", || {
        let now = devices();
        let new = now.lines().find(|one| !before.contains(one));
        device = new.unwrap_or_default().to_owned();
        !device.is_empty()
    })
    .await;
    device
}

type Hook = Box<dyn FnOnce() + Send>;

/// Does something once before the first command that begins with certain words; may cut every stream after so many bytes.
pub(crate) struct Meddler {
    inner: SystemRunner,
    before: Mutex<Option<(Vec<&'static str>, Hook)>>,
    cut: Mutex<Vec<u64>>,
}

impl std::fmt::Debug for Meddler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meddler")
    }
}

impl Meddler {
    pub(crate) fn before(words: &[&'static str], hook: impl FnOnce() + Send + 'static) -> Self {
        Self {
            inner: SystemRunner::new(),
            before: Mutex::new(Some((words.to_vec(), Box::new(hook)))),
            cut: Mutex::default(),
        }
    }

    /// The first stream is cut after the last of these many bytes, the next one after the one before it.
    pub(crate) fn cutting(cut: Vec<u64>) -> Self {
        Self {
            inner: SystemRunner::new(),
            before: Mutex::default(),
            cut: Mutex::new(cut),
        }
    }

    pub(crate) fn has_meddled(&self) -> bool {
        self.before.lock().unwrap().is_none() && self.cut.lock().unwrap().is_empty()
    }

    fn look(&self, command: &Command) {
        let words: Vec<_> = command
            .arguments()
            .iter()
            .map(|word| word.to_string_lossy())
            .collect();
        let hook = {
            let mut before = self.before.lock().unwrap();
            let wanted = |(wanted, _): &mut (Vec<&'static str>, Hook)| {
                words.len() >= wanted.len() && wanted.iter().zip(&words).all(|(a, b)| a == b)
            };
            before.take_if(wanted)
        };
        if let Some((_, hook)) = hook {
            hook();
        }
    }
}

#[async_trait]
impl Runner for Meddler {
    async fn run(&self, command: &Command, cancel: &CancellationToken) -> Result<Output, ExecError> {
        self.look(command);
        self.inner.run(command, cancel).await
    }
    async fn pipe(&self, stages: &[Command], cancel: &CancellationToken) -> Result<PipeOutput, ExecError> {
        self.look(&stages[0]);
        let cut = self.cut.lock().unwrap().pop();
        let Some(bytes) = cut else {
            return self.inner.pipe(stages, cancel).await;
        };
        let mut stages = stages.to_vec();
        stages.insert(1, Command::new("head").args(["-c", &bytes.to_string()]));
        self.inner.pipe(&stages, cancel).await
    }
    async fn stream(&self, command: &Command, cancel: &CancellationToken) -> Result<Streaming, ExecError> {
        self.inner.stream(command, cancel).await
    }
}

/// A store and its replicas.
pub(crate) struct Chain {
    pub(crate) pool: Pool,
    pub(crate) backs: Vec<Pool>,
    pub(crate) engine: Engine,
}

impl Chain {
    /// With one replica: pools cost seconds where instructions are emulated.
    pub(crate) fn new(size: &str) -> Self {
        Self::over(Pool::sized(size), vec![Pool::new()])
    }

    /// With two.
    pub(crate) fn of_three(size: &str) -> Self {
        Self::over(Pool::sized(size), vec![Pool::new(), Pool::new()])
    }

    /// Over pools of the test's own.
    pub(crate) fn over(pool: Pool, backs: Vec<Pool>) -> Self {
        for back in &backs {
            sure([
                "zfs",
                "create",
                "-p",
                "-o",
                "canmount=off",
                &format!("{}/host", back.pool),
            ]);
        }
        let engine = engine(&pool.root);
        Self { pool, backs, engine }
    }

    fn mapping(&self, back: usize) -> Mapping {
        Mapping::below(DatasetName::new(format!("{}/host", self.backs[back].pool)).unwrap())
    }

    pub(crate) fn replica(&self, back: usize, target: &Target) -> String {
        format!("{}/host/{}", self.backs[back].pool, target.dataset)
    }

    /// A store with a runner of its own.
    pub(crate) fn store(&self, runner: Arc<dyn Runner>) -> NativeStore {
        NativeStore::new(name("local"), runner, self.pool.store.places())
    }

    /// A service over these targets that comes back from the replicas.
    pub(crate) fn service_with(&self, targets: &[&Target], runner: Arc<dyn Runner>) -> Service {
        let store = self.store(runner);
        let source = |back: usize, called: &str| -> Arc<dyn RestoreSource> {
            Arc::new(ReplicaSource::new(
                name(called),
                &store,
                Location::Local,
                self.mapping(back),
            ))
        };
        let called = ["second", "third"].into_iter().take(self.backs.len());
        let sources = called
            .enumerate()
            .map(|(back, called)| source(back, called))
            .collect();
        Service {
            name: ServiceName::new("app").unwrap(),
            targets: targets.iter().map(|target| (*target).clone()).collect(),
            sources,
            store: Arc::new(store),
            replicators: Vec::new(),
            offsite: Vec::new(),
            policy: Policy {
                tries: 1,
                when_exhausted: WhenExhausted::Hold,
                ..Policy::default()
            },
        }
    }

    pub(crate) fn service(&self, targets: &[&Target]) -> Service {
        self.service_with(targets, Arc::new(SystemRunner::new()))
    }

    /// One run of preseed.
    pub(crate) async fn preseed(&self, run: &str, service: &Service) -> ServiceReport {
        let since = self.engine.clock.monotonic();
        preseed(&self.engine, &context(run), &[service], since)
            .await
            .remove(0)
    }

    pub(crate) async fn look(&self, target: &Target) -> Inspection {
        let one = std::slice::from_ref(target);
        self.pool
            .store
            .inspect(&context("look"), one)
            .await
            .unwrap()
            .remove(0)
    }

    pub(crate) fn source(&self, back: usize) -> ReplicaSource {
        self.source_of(back, &self.pool.store)
    }

    pub(crate) fn source_of(&self, back: usize, store: &NativeStore) -> ReplicaSource {
        let called = ["second", "third"][back];
        ReplicaSource::new(name(called), store, Location::Local, self.mapping(back))
    }

    pub(crate) fn replicator(&self, back: usize, store: &NativeStore) -> NativeReplicator {
        let called = ["second", "third"][back];
        NativeReplicator::new(name(called), store, Location::Local, self.mapping(back))
    }

    /// The names of a target's own snapshots.
    pub(crate) async fn snapshots(&self, target: &Target) -> Vec<String> {
        let one = std::slice::from_ref(target);
        let listed = self.pool.store.list(&context("list"), one).await.unwrap();
        listed.iter().map(|one| one.name.to_string()).collect()
    }

    /// Brings the replicas up to date.
    pub(crate) async fn replicate(&self, targets: &[Target]) {
        for back in 0..self.backs.len() {
            let replicator = self.replicator(back, &self.pool.store);
            let cx = context("replicate");
            let plan = replicator.plan(&cx, targets).await.unwrap();
            let report = replicator.execute(&cx, &plan).await.unwrap();
            assert_eq!(report.failed, [], "{back}");
        }
    }

    /// A dataset of so much noise, snapshotted, measured and replicated; what is in it.
    pub(crate) async fn made(&self, target: &Target, bytes: usize) -> (Listing, Snapshot) {
        sure(["zfs", "create", target.dataset.as_str()]);
        self.fill(target, bytes);
        let taken = snapshot(&self.pool, target, "one", 1, true).await;
        self.replicate(std::slice::from_ref(target)).await;
        (self.pool.files.list(&target.mountpoint), taken)
    }

    pub(crate) fn fill(&self, target: &Target, bytes: usize) {
        fill(&target.mountpoint, bytes);
    }

    /// The dataset is lost, with its snapshots.
    pub(crate) fn lose(&self, target: &Target) {
        sure(["zfs", "destroy", "-r", target.dataset.as_str()]);
        let _ = std::fs::remove_dir(&target.mountpoint);
    }

    /// It is back, exactly as it was, and says so.
    #[track_caller]
    pub(crate) fn is_back(&self, target: &Target, expected: &Listing, report: &ServiceReport) {
        assert_eq!(report.outcome, Outcome::Restored, "{}", report.summary());
        reseed_testkit::files::assert_same(
            expected,
            &self.pool.files.list(&target.mountpoint),
            "what is back",
        );
        let staged = format!("{}/svc/.reseed-stage:{}", self.pool.pool, target.dataset.leaf());
        assert!(
            !run(["zfs", "list", &staged]).exit.success(),
            "{staged} is left over"
        );
    }
}

/// A tree of so much noise.
pub(crate) fn fill(root: &Path, bytes: usize) {
    RealFiles.write(&root.join("noise"), &noise(bytes));
    RealFiles.write(&root.join("dir/small"), b"small");
    RealFiles.set_mode(root, 0o751);
}

/// Bytes that don't compress and aren't all the same.
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

/// A directory of the test's own.
pub(crate) fn dir_of(pool: &Pool, name: &str) -> PathBuf {
    let dir = pool.root.join(name);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}
