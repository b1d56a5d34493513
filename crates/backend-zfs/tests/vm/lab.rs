//! Labs for the conformance suites, over pools on files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use async_trait::async_trait;
use reseed_backend_zfs::zfs::NativeStore;
use reseed_core::SnapshotStore;
use reseed_core::exec::{Command, ExecError, Output, PipeOutput, Runner, Streaming, SystemRunner};
use reseed_core::names::{DatasetName, SourceName};
use reseed_core::point::Target;
use reseed_testkit::conformance::block_on;
use reseed_testkit::conformance::store::StoreLab;
use reseed_testkit::files::{Files, Listing, RealFiles};
use tokio_util::sync::CancellationToken;

static NEXT: AtomicU32 = AtomicU32::new(1);

pub(crate) fn name(text: &str) -> SourceName {
    SourceName::new(text).unwrap()
}

/// Runs a command with a runtime of its own: labs are also used inside of one.
pub(crate) fn run<const N: usize>(words: [&str; N]) -> Output {
    let command = Command::new(words[0]).args(words[1..].iter().copied());
    std::thread::spawn(move || {
        block_on(async move {
            SystemRunner::new()
                .run(&command, &CancellationToken::new())
                .await
                .unwrap()
        })
    })
    .join()
    .unwrap()
}

/// The same, and it must work.
#[track_caller]
pub(crate) fn sure<const N: usize>(words: [&str; N]) -> String {
    let output = run(words);
    assert!(
        output.exit.success(),
        "{words:?}: {} {}",
        output.exit,
        output.stderr.text()
    );
    output.stdout.text().trim_end().to_owned()
}

/// The bookmarks of a dataset, a line each.
pub(crate) fn bookmarks(dataset: &str) -> String {
    sure(["zfs", "list", "-H", "-t", "bookmark", "-o", "name", dataset])
}

/// Does something as a user who isn't root, as far as a thread can be one, with what it starts.
pub(crate) fn as_nobody<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    // As udev's rule has it everywhere else: who may do what is the kernel's to say.
    sure(["chmod", "666", "/dev/zfs"]);
    let nobody = rustix::process::Uid::from_raw(65534);
    let asked = std::thread::spawn(move || {
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        work()
    });
    asked.join().unwrap()
}

/// Counts what is started.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    inner: SystemRunner,
    pub(crate) started: AtomicUsize,
}

#[async_trait]
impl Runner for Counting {
    async fn run(&self, command: &Command, cancel: &CancellationToken) -> Result<Output, ExecError> {
        self.started.fetch_add(1, Ordering::SeqCst);
        self.inner.run(command, cancel).await
    }
    async fn pipe(&self, stages: &[Command], cancel: &CancellationToken) -> Result<PipeOutput, ExecError> {
        self.started.fetch_add(stages.len(), Ordering::SeqCst);
        self.inner.pipe(stages, cancel).await
    }
    async fn stream(&self, command: &Command, cancel: &CancellationToken) -> Result<Streaming, ExecError> {
        self.started.fetch_add(1, Ordering::SeqCst);
        self.inner.stream(command, cancel).await
    }
}

/// A pool on a disk or file, and the dataset that all targets are below.
fn create(pool: &str, root: &Path, disk: &str) {
    let mountpoint = format!("mountpoint={}", root.join("live").display());
    sure([
        "zpool",
        "create",
        "-O",
        "compression=off",
        "-O",
        &mountpoint,
        pool,
        disk,
    ]);
    sure(["zfs", "create", "-o", "canmount=off", &format!("{pool}/svc")]);
}

/// A pool on a file, with a store.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) pool: String,
    pub(crate) root: PathBuf,
    pub(crate) store: NativeStore,
    pub(crate) files: RealFiles,
}

impl Pool {
    /// Makes an encrypted dataset, whose key is loaded; the file that has it.
    pub(crate) fn encrypted(&self, dataset: &str) -> PathBuf {
        let key = self.root.join("key");
        std::fs::write(&key, "correct horse").unwrap();
        let location = format!("keylocation=file://{}", key.display());
        let (on, format, quick) = ("encryption=on", "keyformat=passphrase", "pbkdf2iters=100000");
        sure([
            "zfs", "create", "-o", on, "-o", format, "-o", quick, "-o", &location, dataset,
        ]);
        key
    }

    pub(crate) fn new() -> Self {
        Self::sized("1G")
    }

    pub(crate) fn sized(size: &str) -> Self {
        assert!(
            std::env::var_os("RESEED_VM").is_some(),
            "these tests make ZFS pools, so they only run inside of the virtual machine (RESEED_VM=1)"
        );
        // All tests of a machine, also those that died and left theirs.
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let pool = format!("lab{}x{nth}", std::process::id());
        let root = PathBuf::from(format!("/tmp/{pool}"));
        std::fs::create_dir_all(&root).unwrap();
        let disk = root.join("disk");
        let disk = disk.to_str().unwrap();
        sure(["truncate", "-s", size, disk]);
        create(&pool, &root, disk);
        Self::of(pool, root)
    }

    /// A pool that is there.
    fn of(pool: String, root: PathBuf) -> Self {
        let store = NativeStore::new(name("local"), Arc::new(SystemRunner::new()), root.join("places"));
        Self {
            pool,
            root,
            store,
            files: RealFiles,
        }
    }

    /// One whose store has libzfs_core take what it can.
    #[cfg(feature = "libzetta")]
    pub(crate) fn in_process() -> Self {
        let mut pool = Self::new();
        let lzc = reseed_backend_zfs::zfs::Lzc::open().unwrap();
        pool.store = pool.store.clone().in_process(lzc);
        pool
    }

    #[allow(dead_code, reason = "for the tests that cut the power")]
    /// A pool on a disk of the machine, which outlives it: made, or imported again.
    pub(crate) fn on_disk(pool: &str, disk: &str, first: bool) -> Self {
        let root = PathBuf::from(format!("/tmp/{pool}"));
        std::fs::create_dir_all(&root).unwrap();
        if first {
            create(pool, &root, disk);
        } else if !std::fs::exists(format!("/proc/spl/kstat/zfs/{pool}")).unwrap() {
            sure(["zpool", "import", "-d", disk, pool]);
        }
        Self::of(pool.to_owned(), root)
    }

    pub(crate) fn disk(&self) -> PathBuf {
        self.root.join("disk")
    }

    pub(crate) fn target(&self, name: &str) -> Target {
        Target {
            dataset: DatasetName::new(format!("{}/svc/{name}", self.pool)).unwrap(),
            mountpoint: self.root.join("live/svc").join(name),
        }
    }

    /// The files of a dataset or snapshot that is not mounted.
    pub(crate) fn read(&self, source: &str) -> Listing {
        let place = self.root.join("look");
        std::fs::create_dir_all(&place).unwrap();
        let flags = rustix::mount::MountFlags::RDONLY;
        rustix::mount::mount(source, &place, "zfs", flags, None).unwrap();
        let listing = self.files.list(&place);
        rustix::mount::unmount(&place, rustix::mount::UnmountFlags::empty()).unwrap();
        listing
    }
}

/// Whether a pool has stopped all its reading and writing, and with it whoever asks for it.
pub(crate) fn is_suspended(pool: &str) -> bool {
    let state = format!("/proc/spl/kstat/zfs/{pool}/state");
    std::fs::read_to_string(state).is_ok_and(|state| state.trim() == "SUSPENDED")
}

impl Drop for Pool {
    fn drop(&mut self) {
        // It would never end. The machine's end takes it.
        if is_suspended(&self.pool) {
            return;
        }
        let _ = run(["zpool", "destroy", "-f", &self.pool]);
        let _ = std::fs::remove_file(self.disk());
    }
}

impl StoreLab for Pool {
    fn store(&self) -> Arc<dyn SnapshotStore> {
        Arc::new(self.store.clone())
    }
    fn files(&self) -> &dyn Files {
        &self.files
    }
    fn absent(&self, name: &str) -> Target {
        self.target(name)
    }
    fn make(&self, target: &Target) {
        sure(["zfs", "create", target.dataset.as_str()]);
    }
    fn replace_keeping_marker(&self, target: &Target) {
        let dataset = target.dataset.as_str();
        let marker = sure(["zfs", "get", "-Hp", "-o", "value", "reseed:marker", dataset]);
        assert!(marker.contains("guid"), "{marker}");
        sure(["zfs", "unmount", dataset]);
        sure(["zfs", "set", "canmount=noauto", dataset]);
        sure(["zfs", "rename", dataset, &format!("{dataset}-was")]);
        self.make(target);
        sure(["zfs", "set", &format!("reseed:marker={marker}"), dataset]);
    }
    fn make_unknowable(&self, _target: &Target) {
        sure(["zpool", "export", &self.pool]);
    }
    fn kept(&self, name: &str) -> Listing {
        self.read(name)
    }
    fn violations(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Whether anything is at a path.
#[allow(dead_code, reason = "for the tests that come")]
pub(crate) fn there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
