//! A lab: a pool with a service's data, a second pool for its copies, a bucket, and the program to run on them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use reseed_core::exec::Command;
use reseed_testkit::s3::S3Server;
use reseed_testkit::vm::pool::{ScratchPool, blocking};
use serde_json::Value;

use crate::lab::{Ran, run_in, run_with_path};

pub(crate) struct ZfsLab {
    pub(crate) tank: ScratchPool,
    pub(crate) back: ScratchPool,
    pub(crate) root: PathBuf,
    /// Before its directory, so that it ends first.
    server: Option<S3Server>,
    _dir: tempfile::TempDir,
}

/// Runs a tool, which must succeed; what it said.
#[track_caller]
pub(crate) fn sure(words: &[&str]) -> String {
    match blocking(Command::new(words[0]).args(&words[1..])) {
        Ok(output) => output.stdout.text().trim_end().to_owned(),
        Err(error) => panic!("{error}"),
    }
}

/// Runs the program in a directory, and says how `zfs` and `zpool` were started.
pub(crate) fn counted(dir: &Path, args: &[impl AsRef<OsStr>]) -> (Ran, Vec<String>) {
    use std::os::unix::fs::PermissionsExt as _;
    let (bin, log) = (dir.join("bin"), dir.join("started"));
    fs::create_dir_all(&bin).unwrap();
    fs::write(&log, "").unwrap();
    let path = std::env::var("PATH").unwrap();
    for tool in ["zfs", "zpool"] {
        // By its whole path: dash looks up what it execs in the PATH that the script itself was found in.
        let real = sure(&["sh", "-c", &format!("command -v {tool}")]);
        let script = format!(
            "#!/bin/sh\necho \"{tool} $*\" >> {}\nexec {real} \"$@\"\n",
            log.display()
        );
        fs::write(bin.join(tool), script).unwrap();
        fs::set_permissions(bin.join(tool), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{path}", bin.display());
    let ran = run_with_path(dir, args, path);
    let started = fs::read_to_string(&log).unwrap();
    (ran, started.lines().map(str::to_owned).collect())
}

impl ZfsLab {
    /// One service, `app`, in a dataset of its own, whose chain is tank, back.
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// The same, and a bucket with a repository behind the pools. Opening one is slow in a machine that is emulated.
    pub(crate) fn with_bucket() -> Self {
        let mut lab = Self::new();
        fs::create_dir(lab.root.join("s3")).unwrap();
        let server = S3Server::start(lab.root.join("s3")).unwrap();
        server.make_bucket("backups").unwrap();
        let access = server.access();
        let key = format!(
            "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            access.access_key_id, access.secret_access_key
        );
        fs::write(lab.root.join("key"), key).unwrap();
        let at = lab.root.display();
        lab.configure(&format!(
            "[offsite.offsite]\ntype = \"embedded\"\nrepository = \"s3:{}/backups/nas\"\nregion = \"{}\"\n\
             credentials_file = \"{at}/key\"\nallow_http = true\npassword_file = \"{at}/password\"\n",
            access.endpoint, access.region
        ));
        lab.server = Some(server);
        lab
    }

    fn with(more: &str) -> Self {
        // A test looks for data on the disks.
        let plain = ["-O", "compression=off"];
        let (tank, back) = (
            ScratchPool::with(512, 1, &plain),
            ScratchPool::with(256, 1, &plain),
        );
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let lab = Self {
            tank,
            back,
            root,
            server: None,
            _dir: dir,
        };
        lab.configure(more);
        fs::write(lab.root.join("password"), "secret\n").unwrap();
        lab
    }

    /// Writes the configuration, with more at its end.
    pub(crate) fn configure(&self, more: &str) {
        let (at, tank, back) = (self.root.display(), self.tank.name(), self.back.name());
        let config = format!(
            "host = \"lab\"\nstate_dir = \"{at}/state\"\n\
             [stores.tank]\ntype = \"zfs\"\nroot = \"{tank}/svc\"\n\
             [replicas.back]\ntype = \"zfs\"\nroot = \"{back}/copies/lab\"\n\
             [services.app]\npath = \"{at}/data/app\"\ntries = 1\n{more}\n"
        );
        fs::write(self.root.join("reseed.toml"), config).unwrap();
    }

    fn words<'a>(config: &'a Path, args: &'a [&str]) -> Vec<&'a OsStr> {
        let mut all: Vec<&OsStr> = vec![OsStr::new("--config"), config.as_os_str()];
        all.extend(args.iter().map(OsStr::new));
        all
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        let config = self.root.join("reseed.toml");
        run_in(&self.root, &Self::words(&config, args))
    }

    /// Runs it, and says how `zfs` and `zpool` were started.
    pub(crate) fn run_counted(&self, args: &[&str]) -> (Ran, Vec<String>) {
        let config = self.root.join("reseed.toml");
        counted(&self.root, &Self::words(&config, args))
    }

    pub(crate) fn live(&self) -> PathBuf {
        self.root.join("data/app")
    }

    pub(crate) fn dataset(&self) -> String {
        self.tank.dataset("svc/app")
    }

    pub(crate) fn replica(&self) -> String {
        self.back.dataset(&format!("copies/lab/{}", self.dataset()))
    }

    /// The first start of the service, and what it writes then.
    pub(crate) fn started(self) -> Self {
        self.run(&["init"]).expect(0);
        assert_eq!(self.preseed(0), ("first-start".to_owned(), None));
        assert_eq!(self.mounted(), self.dataset());
        fs::create_dir(self.live().join("sub")).unwrap();
        fs::write(self.live().join("file"), "content").unwrap();
        fs::write(self.live().join("sub/other"), vec![7; 100_000]).unwrap();
        self
    }

    /// And a copy of it in the other pool.
    pub(crate) fn protected(self) -> Self {
        let lab = self.started();
        for command in ["snapshot", "replicate"] {
            lab.run(&[command, "app"]).expect(0);
        }
        lab
    }

    /// What is mounted where the data is.
    pub(crate) fn mounted(&self) -> String {
        sure(&[
            "findmnt",
            "-n",
            "-o",
            "SOURCE",
            "--mountpoint",
            self.live().to_str().unwrap(),
        ])
    }

    /// Destroys the dataset with its snapshots, also those that replication holds.
    pub(crate) fn lose_dataset(&self) {
        let dataset = self.dataset();
        let listed = sure(&["zfs", "list", "-Hpt", "snapshot", "-o", "name,userrefs", &dataset]);
        let held = listed.lines().filter_map(|line| line.split_once('\t'));
        for (snapshot, _) in held.filter(|(_, holds)| *holds != "0") {
            for hold in sure(&["zfs", "holds", "-H", snapshot]).lines() {
                let tag = hold.split('\t').nth(1).unwrap();
                sure(&["zfs", "release", tag, snapshot]);
            }
        }
        sure(&["zfs", "destroy", "-R", &dataset]);
    }

    pub(crate) fn detach(&self, pool: &ScratchPool) {
        sure(&["zpool", "export", pool.name()]);
    }

    pub(crate) fn attach(&self, pool: &ScratchPool) {
        sure(&["zpool", "import", "-d", pool.dir().to_str().unwrap(), pool.name()]);
    }

    #[track_caller]
    pub(crate) fn assert_whole(&self) {
        self.assert_whole_in(&self.live());
        assert_eq!(self.mounted(), self.dataset());
    }

    #[track_caller]
    pub(crate) fn assert_whole_in(&self, dir: &Path) {
        assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "content");
        assert_eq!(fs::read(dir.join("sub/other")).unwrap(), vec![7; 100_000]);
    }

    /// Outcome and source of the only report of a preseed.
    #[track_caller]
    pub(crate) fn preseed(&self, code: i32) -> (String, Option<String>) {
        let ran = self.run(&["--json", "preseed", "app"]).expect(code);
        let report = &ran.json()["reports"][0];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        (
            text(&report["outcome"]["result"]).unwrap(),
            text(&report["source"]),
        )
    }
}
