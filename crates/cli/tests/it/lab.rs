//! A lab: a configuration, a service with data, and the program to run on it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

pub(crate) struct Lab {
    // Removed when the test ends.
    _dir: tempfile::TempDir,
    pub(crate) root: PathBuf,
}

/// What a run of the program left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert!(!self.err.contains("panicked"), "{self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// Both outputs, for tests that ask only whether something is said.
    pub(crate) fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

pub(crate) fn run_in(dir: &Path, args: &[impl AsRef<OsStr>]) -> Ran {
    run_with_path(dir, args, std::env::var_os("PATH").unwrap_or_default())
}

/// With other programs to be found.
pub(crate) fn run_with_path(dir: &Path, args: &[impl AsRef<OsStr>], path: impl AsRef<OsStr>) -> Ran {
    run_with(dir, args, &[("PATH", path.as_ref())])
}

/// With variables of the environment.
#[expect(clippy::disallowed_methods, reason = "a test of the program runs the program")]
pub(crate) fn run_with(dir: &Path, args: &[impl AsRef<OsStr>], variables: &[(&str, &OsStr)]) -> Ran {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_reseed"))
        .args(args)
        .current_dir(dir)
        .envs(variables.iter().copied())
        .env_remove("RESEED_CONFIG")
        .env_remove("JOURNAL_STREAM")
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    Ran {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Lab {
    /// A lab with one service, `app`, whose chain is local, replica, off-site.
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// With more lines in the service's table.
    pub(crate) fn with(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let at = root.display();
        let config = format!(
            "host = \"lab\"\nstate_dir = \"{at}/state\"\n\
             [stores.local]\ntype = \"directory\"\npath = \"{at}/snapshots\"\n\
             [replicas.replica]\ntype = \"directory\"\npath = \"{at}/replica\"\n\
             [offsite.offsite]\ntype = \"embedded\"\nrepository = \"{at}/offsite\"\npassword_file = \"{at}/password\"\n\
             [services.app]\npath = \"{at}/data/app\"\ntries = 1\n{more}\n"
        );
        fs::write(root.join("reseed.toml"), config).unwrap();
        fs::write(root.join("password"), "secret\n").unwrap();
        fs::create_dir_all(root.join("data/app/sub")).unwrap();
        fs::write(root.join("data/app/file"), "content").unwrap();
        fs::write(root.join("data/app/sub/other"), vec![7; 100_000]).unwrap();
        Self { _dir: dir, root }
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        let config = self.root.join("reseed.toml");
        let mut all: Vec<&OsStr> = vec![OsStr::new("--config"), config.as_os_str()];
        all.extend(args.iter().map(OsStr::new));
        run_in(&self.root, &all)
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    pub(crate) fn live(&self) -> PathBuf {
        self.path("data/app")
    }

    /// A lab whose service is snapshotted, replicated and backed up.
    pub(crate) fn protected(more: &str) -> Self {
        let lab = Self::with(more);
        lab.run(&["init"]).expect(0);
        lab.protect();
        lab
    }

    pub(crate) fn protect(&self) {
        for command in ["snapshot", "replicate", "backup"] {
            self.run(&[command, "app"]).expect(0);
        }
    }

    pub(crate) fn lose_data(&self) {
        fs::remove_dir_all(self.live()).unwrap();
    }

    /// The content that [`Lab::with`] made is there.
    #[track_caller]
    pub(crate) fn assert_whole(&self) {
        assert_eq!(fs::read_to_string(self.live().join("file")).unwrap(), "content");
        assert_eq!(fs::read(self.live().join("sub/other")).unwrap(), vec![7; 100_000]);
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
