//! Against the real restic, whose path is in `RESEED_REAL_RESTIC`. Every test's name begins with `real_`, so that a
//! test tier selects them; without the variable they fail rather than pass for nothing.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::*;
use reseed_backend_restic::backup::backup;
use reseed_backend_restic::check::ReadData;
use reseed_backend_restic::error::EngineError;
use reseed_core::exec::{Command, Output, Runner, Secret, SystemRunner};
use tokio_util::sync::CancellationToken;

const PASSWORD: &str = "correct horse";

fn command(lab: &Lab, args: &[&str]) -> Command {
    let program = std::env::var_os("RESEED_REAL_RESTIC")
        .expect("RESEED_REAL_RESTIC must name the restic to test with (or leave out the tests named real_*)");
    Command::new(program)
        .args(["--no-cache", "-r"])
        .arg(lab.path("repo"))
        .args(args)
        .env_secret_file("RESTIC_PASSWORD_FILE", Secret::new(PASSWORD))
}

fn run(command: &Command) -> Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            SystemRunner::new()
                .run(command, &CancellationToken::new())
                .await
                .unwrap()
        })
}

#[track_caller]
fn restic(lab: &Lab, args: &[&str]) -> String {
    let output = run(&command(lab, args));
    assert!(
        output.exit.success(),
        "restic {args:?}: {} {}",
        output.stdout.text(),
        output.stderr.text()
    );
    output.stdout.text().into_owned()
}

fn restic_lab() -> Lab {
    let lab = Lab::bare();
    restic(&lab, &["init"]);
    lab
}

/// Without the link whose target is no text: restic 0.14 has no place for that.
fn make_tree_for_restic(tree: &Path) {
    make_tree(tree);
    fs::remove_file(tree.join("odd-link")).unwrap();
}

/// Where `restic backup` of `tree` is restored to below its target.
fn below(out: &Path, tree: &Path) -> std::path::PathBuf {
    out.join(tree.strip_prefix("/").unwrap())
}

#[test]
fn real_restic_reads_and_checks_what_we_wrote() {
    let lab = Lab::initialised();
    make_tree(&lab.path("tree"));
    let summary = lab.backup(&lab.path("tree"));
    restic(&lab, &["check", "--read-data"]);
    let listed = restic(&lab, &["snapshots", "--json"]);
    assert!(listed.contains(&summary.snapshot) && listed.contains("a-tag") && listed.contains(AS_PATH));
    restic(
        &lab,
        &[
            "restore",
            &summary.snapshot,
            "--target",
            lab.path("out").to_str().unwrap(),
        ],
    );
    let out = below(&lab.path("out"), Path::new(AS_PATH));
    // restic does not make links of links; everything else is the same.
    let (expected, mut restored) = (look(&lab.path("tree")), look(&out));
    let names =
        |tree: &std::collections::BTreeMap<_, _>| tree.keys().cloned().collect::<Vec<std::path::PathBuf>>();
    assert_eq!(names(&expected), names(&restored));
    for (path, wanted) in expected {
        let is_link = fs::symlink_metadata(lab.path("tree").join(&path))
            .unwrap()
            .is_symlink();
        if !is_link {
            assert_eq!(restored.remove(&path), Some(wanted), "{}", path.display());
        }
    }
}

/// What the other tests start from is a repository to restic, and not only to us.
#[test]
fn real_restic_knows_the_repositories_that_the_tests_make() {
    let lab = Lab::new();
    let tree = lab.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), noise(1, 100_000)).unwrap();
    let ours = lab.backup(&tree).snapshot;
    restic(&lab, &["backup", tree.to_str().unwrap()]);
    assert!(restic(&lab, &["snapshots", "--json"]).contains(&ours));
    restic(&lab, &["check", "--read-data"]);
}

#[test]
fn real_we_restore_and_check_what_restic_wrote() {
    let lab = restic_lab();
    let tree = lab.path("tree");
    make_tree_for_restic(&tree);
    restic(&lab, &["backup", tree.to_str().unwrap()]);
    let open = lab.engine.open(&lab.password).unwrap();
    let snapshots = open.snapshots().unwrap().readable;
    assert_eq!(snapshots[0].paths, [tree.to_str().unwrap()]);
    let report = lab.restore(&lab.restore_job(&snapshots[0].id, "out")).unwrap();
    assert!(report.is_exact(), "{:?}", report.details);
    assert_same(&tree, &lab.path("out"));
    let check = open.check(ReadData::All, &never()).unwrap();
    assert_eq!(check.errors, Vec::<String>::new());
}

#[test]
fn real_a_backup_of_a_relative_path_comes_back_whole() {
    let lab = restic_lab();
    let tree = lab.path("tree");
    make_tree_for_restic(&tree);
    let output = run(&command(&lab, &["backup", "."]).cwd(&tree));
    assert!(output.exit.success(), "{}", output.stderr.text());
    let id = lab
        .engine
        .open(&lab.password)
        .unwrap()
        .snapshots()
        .unwrap()
        .readable
        .remove(0)
        .id;
    lab.restore(&lab.restore_job(&id, "out")).unwrap();
    let (mut one, mut two) = (look(&tree), look(&lab.path("out")));
    // restic does not record the root then; our engine says what it has.
    one.remove(Path::new(""));
    two.remove(Path::new(""));
    assert_eq!(one, two);
}

#[test]
fn real_a_mixed_repository_deduplicates_both_ways() {
    let lab = restic_lab();
    let tree = lab.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("noise"), noise(5, 20_000_000)).unwrap();
    let size = |lab: &Lab| {
        lab.files_in("data")
            .iter()
            .map(|file| fs::metadata(file).unwrap().len())
            .sum::<u64>()
    };
    restic(&lab, &["backup", tree.to_str().unwrap()]);
    let before = size(&lab);
    assert_eq!(lab.backup(&tree).added_data, 0);
    assert!(size(&lab) - before < 20_000, "only trees were added");
    fs::write(tree.join("more"), noise(6, 5_000_000)).unwrap();
    assert_eq!(lab.backup(&tree).added_data, 5_000_000);
    let before = size(&lab);
    restic(&lab, &["backup", tree.to_str().unwrap()]);
    assert!(size(&lab) - before < 20_000, "only trees were added");
    restic(&lab, &["check", "--read-data"]);
}

#[test]
fn real_restic_refuses_to_prune_while_we_hold_a_lock() {
    let lab = Lab::initialised();
    make_tree(&lab.path("tree"));
    lab.backup(&lab.path("tree"));
    let asked = Arc::new(AtomicBool::new(false));
    let first = Arc::clone(&asked);
    let repo = lab.path("repo");
    // Called from inside the backup, that is under its lock.
    let during = Arc::new(move || {
        if !first.swap(true, Ordering::Relaxed) {
            let run_here = |args: &[&str]| {
                let program = std::env::var_os("RESEED_REAL_RESTIC").unwrap();
                let command = Command::new(program)
                    .args(["--no-cache", "-r"])
                    .arg(&repo)
                    .args(args)
                    .env_secret_file("RESTIC_PASSWORD_FILE", Secret::new(PASSWORD));
                std::thread::scope(|scope| scope.spawn(|| run(&command)).join().unwrap())
            };
            let listed = run_here(&["list", "locks", "--no-lock"]);
            assert_eq!(
                listed.stdout.text().lines().count(),
                1,
                "{}",
                listed.stdout.text()
            );
            let id = listed.stdout.text().trim().to_owned();
            let content = run_here(&["cat", "lock", &id, "--no-lock"]);
            let content = content.stdout.text().into_owned();
            assert!(
                content.contains(&format!("\"pid\": {}", std::process::id())),
                "{content}"
            );
            let pruned = run_here(&["prune"]);
            assert!(!pruned.exit.success());
            assert!(
                pruned.stderr.text().contains("locked"),
                "{}",
                pruned.stderr.text()
            );
            // Nor does unlock, which sends SIGHUP to see whether we live, take it for stale.
            assert!(run_here(&["unlock"]).exit.success());
            let listed = run_here(&["list", "locks", "--no-lock"]);
            assert_eq!(
                listed.stdout.text().lines().count(),
                1,
                "{}",
                listed.stdout.text()
            );
        }
        false
    });
    let job = lab.job(&lab.path("tree"));
    backup(&lab.engine, &lab.password, &job, Arc::new(|_| ()), during).unwrap();
    assert!(asked.load(Ordering::Relaxed));
    assert_eq!(lab.locks(), 0);
    restic(&lab, &["prune"]);
    restic(&lab, &["check", "--read-data"]);
}

#[test]
fn real_restics_locks_are_seen_and_honoured() {
    let lab = restic_lab();
    fs::create_dir(lab.path("tree")).unwrap();
    restic(&lab, &["backup", lab.path("tree").to_str().unwrap()]);
    // A restic that was killed in the middle of reading its input left its lock behind.
    let script = format!(
        "mkfifo pipe; \"$0\" --no-cache -r '{}' backup --stdin < pipe & exec 9> pipe; \
         until ls '{}' | grep -qE '^[0-9a-f]{{64}}$'; do :; done; kill -KILL $!; wait $!; true",
        lab.path("repo").display(),
        lab.path("repo/locks").display()
    );
    let program = std::env::var_os("RESEED_REAL_RESTIC").unwrap();
    let killed = Command::new("/bin/sh")
        .args(["-c", &script])
        .arg(program)
        .cwd(lab.dir.path())
        .env_secret_file("RESTIC_PASSWORD_FILE", Secret::new(PASSWORD));
    run(&killed);
    let locks = lab.engine.open(&lab.password).unwrap().locks().unwrap();
    assert_eq!(locks.len(), 1);
    assert!(!locks[0].1.exclusive && locks[0].1.pid > 1 && !locks[0].1.hostname.is_empty());
    // Its process isn't on this host: it is in nobody's way, and stays until it is known that nobody of the same name refreshes it.
    lab.backup(&lab.path("tree"));
    assert_eq!(lab.locks(), 1);
}

#[test]
fn real_restic_changes_the_password_and_both_keys_open() {
    let lab = Lab::initialised();
    fs::write(lab.path("new"), "other password\n").unwrap();
    restic(
        &lab,
        &[
            "key",
            "add",
            "--new-password-file",
            lab.path("new").to_str().unwrap(),
        ],
    );
    let other = reseed_backend_restic::secret::Password::read_file(&lab.path("new")).unwrap();
    lab.engine.open(&other).unwrap();
    lab.engine.open(&lab.password).unwrap();
    let wrong = lab
        .engine
        .open(&reseed_backend_restic::secret::Password::new("no"))
        .unwrap_err();
    assert!(matches!(wrong, EngineError::WrongPassword { .. }));
}

#[test]
fn real_a_repository_of_format_version_1_works() {
    let lab = Lab::bare();
    restic(&lab, &["init", "--repository-version", "1"]);
    make_tree(&lab.path("tree"));
    let snapshot = lab.backup(&lab.path("tree")).snapshot;
    restic(&lab, &["check", "--read-data"]);
    lab.restore(&lab.restore_job(&snapshot, "out")).unwrap();
    assert_same(&lab.path("tree"), &lab.path("out"));
}

/// A tmpfs, unmounted when dropped. Needs root.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(at: std::path::PathBuf, size: &str) -> Self {
        fs::create_dir_all(&at).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={size}"))
            .arg("tmpfs")
            .arg(&at);
        let output = run(&mount);
        assert!(output.exit.success(), "needs root: {}", output.stderr.text());
        Self(at)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        run(&Command::new("umount").arg(&self.0));
    }
}

#[test]
fn real_a_full_disk_ends_a_restore_and_a_backup_with_its_own_error() {
    let lab = Lab::initialised();
    let tree = lab.path("tree");
    fs::create_dir(&tree).unwrap();
    for number in 0..10 {
        fs::write(tree.join(format!("{number}")), noise(number, 1_000_000)).unwrap();
    }
    let snapshot = lab.backup(&tree).snapshot;
    let small = Small::mount(lab.path("small"), "4m");
    let job = lab.restore_job(&snapshot, "small/out");
    let error = lab.restore(&job).unwrap_err();
    assert!(matches!(error, EngineError::NoSpace { .. }), "{error}");
    fs::remove_dir_all(lab.path("small/out")).unwrap();

    let engine = reseed_backend_restic::repo::Engine::local(lab.path("small/repo"), Arc::clone(&lab.clock));
    engine.init(&lab.password).unwrap();
    let error = backup(&engine, &lab.password, &lab.job(&tree), Arc::new(|_| ()), never()).unwrap_err();
    assert!(matches!(error, EngineError::NoSpace { .. }), "{error}");
    assert!(
        walk(&lab.path("small/repo/snapshots")).is_empty(),
        "no snapshot of half a tree"
    );
    assert!(walk(&lab.path("small/repo/locks")).is_empty());
    run(&Command::new("mount").args(["-o", "remount,ro"]).arg(&small.0));
    let error = backup(&engine, &lab.password, &lab.job(&tree), Arc::new(|_| ()), never()).unwrap_err();
    assert!(matches!(error, EngineError::ReadOnly { .. }), "{error}");
    let mut job = lab.restore_job(&snapshot, "unused");
    job.target = lab.path("small/out2");
    assert!(matches!(lab.restore(&job), Err(EngineError::ReadOnly { .. })));
}

#[test]
fn real_a_read_only_repository_is_restored_from_without_a_lock() {
    let lab = Lab::bare();
    let small = Small::mount(lab.path("repo"), "64m");
    lab.engine.init(&lab.password).unwrap();
    let tree = lab.path("tree");
    make_tree(&tree);
    let snapshot = lab.backup(&tree).snapshot;
    let output = run(&Command::new("mount").args(["-o", "remount,ro"]).arg(&small.0));
    assert!(output.exit.success(), "{}", output.stderr.text());
    let report = lab.restore(&lab.restore_job(&snapshot, "out")).unwrap();
    assert!(!report.locked);
    assert_same(&tree, &lab.path("out"));
}

/// Owners, devices and capabilities, which only root can make.
#[test]
fn real_root_owners_devices_and_capabilities_come_back() {
    let lab = Lab::initialised();
    let tree = lab.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("owned"), b"1").unwrap();
    fs::write(tree.join("capable"), b"1").unwrap();
    std::os::unix::fs::symlink("owned", tree.join("owned-link")).unwrap();
    std::os::unix::fs::chown(tree.join("owned"), Some(1234), Some(5678)).expect("needs root");
    std::os::unix::fs::lchown(tree.join("owned-link"), Some(4321), Some(8765)).unwrap();
    std::os::unix::fs::chown(&tree, Some(11), Some(22)).unwrap();
    let capability: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(tree.join("capable"), "security.capability", &capability, flags).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o660);
    for (name, kind) in [
        ("char", rustix::fs::FileType::CharacterDevice),
        ("block", rustix::fs::FileType::BlockDevice),
    ] {
        let device = rustix::fs::makedev(7, 250);
        rustix::fs::mknodat(rustix::fs::CWD, tree.join(name), kind, mode, device).unwrap();
    }
    let snapshot = lab.backup(&tree).snapshot;
    restic(&lab, &["check"]);
    let report = lab.restore(&lab.restore_job(&snapshot, "out")).unwrap();
    assert!(report.is_exact(), "{:?}", report.details);
    assert_same(&tree, &lab.path("out"));
    assert_eq!(
        fs::symlink_metadata(lab.path("out/char")).unwrap().rdev(),
        rustix::fs::makedev(7, 250)
    );
}
