//! The real sanoid with a clock that stands still and a `zfs` that answers from files and writes down what it is asked.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use reseed_backend_zfs::sanoid::SanoidDriver;
use reseed_core::Context;
use reseed_core::exec::{Command, Output, Runner, SystemRunner};
use reseed_core::names::RunId;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Answers the questions that sanoid has. `destroy` refuses what stands in `held`, as the real one refuses a held
/// snapshot; `snapshot` refuses what stands in `exists`.
const ZFS: &str = r#"#!/bin/sh
case "$1" in
get) cat "LAB/listing" ;;
list)
    for last; do :; done
    awk -v top="$last" '$0 == top || index($0, top "/") == 1' "LAB/datasets" ;;
destroy)
    if grep -qxF -- "$2" "LAB/held"; then
        echo "cannot destroy snapshot $2: dataset is busy" >&2
        exit 1
    fi
    echo "$2" >> "LAB/destroyed" ;;
snapshot)
    for last; do :; done
    if grep -qxF -- "$last" "LAB/exists"; then
        echo "cannot create snapshot '$last': dataset already exists" >&2
        exit 1
    fi
    echo "$last" >> "LAB/taken" ;;
*) echo "unexpected: zfs $*" >&2; exit 2 ;;
esac
"#;

/// `zpool list -H -o cap POOL`
const ZPOOL: &str = "#!/bin/sh\ncat LAB/capacity\n";

pub(crate) struct Lab {
    dir: TempDir,
    runtime: tokio::runtime::Runtime,
    pub(crate) runner: Arc<dyn Runner>,
}

pub(crate) struct Snap {
    pub(crate) dataset: String,
    pub(crate) name: String,
    pub(crate) created: i64,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let lab = Self {
            dir: tempfile::tempdir().unwrap(),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            runner: Arc::new(SystemRunner::new()),
        };
        fs::create_dir(lab.path("bin")).unwrap();
        lab.script("zfs", ZFS);
        lab.script("zpool", ZPOOL);
        for file in ["listing", "datasets", "held", "exists", "destroyed", "taken"] {
            fs::write(lab.path(file), "").unwrap();
        }
        lab
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn script(&self, name: &str, text: &str) {
        let path = self.path("bin").join(name);
        let text = text.replace("LAB", self.dir.path().to_str().unwrap());
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// sanoid with its clock standing at `now`, as a program.
    pub(crate) fn sanoid(&self, now: Timestamp, zone: &str) -> PathBuf {
        let real = std::env::var("RESEED_REAL_SANOID").expect(
            "RESEED_REAL_SANOID must name the sanoid to test with (or leave out the tests named real_*)",
        );
        let script = format!(
            "#!/bin/sh\nexport PATH=\"LAB/bin:$PATH\" TZ='{zone}' FAKETIME_FMT=%s\nexec faketime -f {} {real} \"$@\"\n",
            now.as_second()
        );
        self.script("sanoid", &script);
        self.path("bin").join("sanoid")
    }

    pub(crate) fn driver(&self, now: Timestamp, zone: &str) -> SanoidDriver {
        SanoidDriver::new(self.path("driver"), Arc::clone(&self.runner)).program(self.sanoid(now, zone))
    }

    pub(crate) fn cx(&self) -> Context {
        Context::silent(RunId::new("parity").unwrap())
    }

    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    pub(crate) fn run(&self, command: &Command) -> Output {
        self.block_on(self.runner.run(command, &CancellationToken::new()))
            .unwrap()
    }

    pub(crate) fn list(&self, snaps: &[Snap]) {
        let mut text = String::new();
        for snap in snaps {
            writeln!(
                text,
                "{}@{}\tcreation\t{}\t-",
                snap.dataset, snap.name, snap.created
            )
            .unwrap();
        }
        fs::write(self.path("listing"), text).unwrap();
    }

    pub(crate) fn write(&self, file: &str, lines: &[String]) {
        fs::write(
            self.path(file),
            lines.iter().map(|line| format!("{line}\n")).collect::<String>(),
        )
        .unwrap();
    }

    /// What `zfs` was asked to destroy or take, and forgets it.
    pub(crate) fn drain(&self, file: &str) -> BTreeSet<String> {
        let text = fs::read_to_string(self.path(file)).unwrap();
        fs::write(self.path(file), "").unwrap();
        let lines: BTreeSet<String> = text.lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), text.lines().count(), "twice the same");
        lines
    }
}

/// Numbers from a seed, the same everywhere.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1))
    }

    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.roll(n) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.roll(from.len() as u64)).unwrap()]
    }
}
