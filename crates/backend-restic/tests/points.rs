//! Which recovery points a repository offers for a target, and what restoring one brings: also of snapshots that
//! restic made in its own ways, and of a repository in which something is damaged. Never "there is none" beside a backup.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::*;
use jiff::Timestamp;
use reseed_backend_restic::backup::{BackupJob, backup};
use reseed_backend_restic::check::ReadData;
use reseed_backend_restic::error::EngineError;
use reseed_backend_restic::worker::Worker;
use reseed_backend_restic::{Embedded, PasswordFrom};
use reseed_core::digest::TreeDigest;
use reseed_core::error::{SourceError, SourceKind};
use reseed_core::event::{Event, Recorder};
use reseed_core::exec::{Command, Output, Runner, Secret, SystemRunner};
use reseed_core::names::{DatasetName, RunId};
use reseed_core::point::{Fingerprint, RecoveryPoint, Target};
use reseed_core::source::{RestoreRequest, Restored, Scope};
use reseed_core::store::{StageState, Staging};
use reseed_core::{Context, OffsiteRepo, RestoreSource};
use reseed_testkit::conformance::{context, source_name};
use tokio_util::sync::CancellationToken;

const WORKER: &str = env!("CARGO_BIN_EXE_reseed-restore-worker");
const PASSWORD: &str = "correct horse";

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

fn embedded(lab: &Lab) -> Embedded {
    Embedded::new(
        source_name("offsite"),
        lab.engine.clone(),
        PasswordFrom::Given(lab.password.clone()),
        Worker::new([WORKER], Arc::new(SystemRunner::new())),
    )
    .of_host("nas")
}

fn target(mountpoint: &Path) -> Target {
    Target {
        dataset: DatasetName::new("tank/app").unwrap(),
        mountpoint: mountpoint.to_path_buf(),
    }
}

fn points(lab: &Lab, mountpoint: &Path) -> Result<Vec<RecoveryPoint>, SourceError> {
    let cx = context("points");
    run(RestoreSource::points(&embedded(lab), &cx, &target(mountpoint)))
}

fn restore(lab: &Lab, mountpoint: &Path, point: RecoveryPoint, out: &str) -> Result<Restored, SourceError> {
    let request = RestoreRequest {
        target: target(mountpoint),
        point,
        scope: Scope::Whole,
    };
    fs::create_dir_all(lab.path(out)).unwrap();
    let staging = Staging {
        target: request.target.clone(),
        locator: out.to_owned(),
        path: lab.path(out),
        state: StageState::Fresh,
    };
    run(async {
        let (cx, source) = (context("restore"), embedded(lab));
        let plan = source.plan(&cx, &request).await?;
        source.execute(&cx, &plan, &staging).await
    })
}

/// The only point there is comes back as `tree`.
#[track_caller]
fn assert_brings(lab: &Lab, tree: &Path, root_recorded: bool) {
    let found = points(lab, tree).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(!found[0].partial && found[0].fingerprint.is_none(), "{found:?}");
    assert_eq!(found[0].dataset.as_str(), "tank/app");
    restore(lab, tree, found.into_iter().next().unwrap(), "out").unwrap();
    let (mut expected, mut restored) = (look(tree), look(&lab.path("out")));
    if !root_recorded {
        expected.remove(Path::new(""));
        restored.remove(Path::new(""));
    }
    assert_eq!(expected, restored);
}

/// A snapshot without tags of ours, as restic leaves them, of everything in `tree` recorded as `as_path`.
fn backup_as(lab: &Lab, tree: &Path, as_path: &str, host: &str) -> String {
    let job = BackupJob {
        as_path: as_path.into(),
        host: host.into(),
        ..lab.job(tree)
    };
    backup(&lab.engine, &lab.password, &job, Arc::new(|_| ()), never())
        .unwrap()
        .snapshot
}

#[test]
fn a_snapshot_of_a_parent_is_a_point_of_what_it_holds_and_of_nothing_else() {
    let lab = Lab::new();
    let tree = lab.path("tree");
    make_tree(&tree.join("app"));
    fs::create_dir(tree.join("other")).unwrap();
    fs::write(tree.join("file"), b"1").unwrap();
    backup_as(&lab, &tree, "/srv/live", "nas");
    for absent in [
        "/srv/live/none",
        "/srv/live/file",
        "/srv/live/app/none",
        "/srv/liv",
        "/etc",
    ] {
        assert_eq!(points(&lab, Path::new(absent)).unwrap(), vec![], "{absent}");
    }
    let app = Path::new("/srv/live/app");
    let found = points(&lab, app).unwrap();
    assert_eq!((found.len(), found[0].bytes, found[0].partial), (1, None, false));
    restore(&lab, app, found[0].clone(), "out").unwrap();
    assert_same(&tree.join("app"), &lab.path("out"));
    // What is not in it any more is not restored from somewhere else in it.
    let gone = restore(&lab, Path::new("/srv/live/none"), found[0].clone(), "none").unwrap_err();
    assert_eq!(gone.kind(), SourceKind::NoSuchPoint, "{gone:?}");
    assert!(walk(&lab.path("none")).is_empty());
}

#[test]
fn a_parent_that_another_host_backed_up_is_told_and_not_offered() {
    let lab = Lab::new();
    let tree = lab.path("tree");
    fs::create_dir_all(tree.join("app")).unwrap();
    backup_as(&lab, &tree, "/srv/live", "other-host");
    let error = points(&lab, Path::new("/srv/live/app")).unwrap_err();
    assert_eq!(error.kind(), SourceKind::NoSuchPoint);
    assert!(error.to_string().contains("other-host"), "{error}");
    // It has nothing of that one, so that one is new.
    assert_eq!(points(&lab, Path::new("/srv/live/new")).unwrap(), vec![]);
}

#[test]
fn a_parent_whose_directories_cannot_be_read_is_damage_and_not_absence() {
    let lab = Lab::new();
    let tree = lab.path("tree");
    fs::create_dir_all(tree.join("app")).unwrap();
    backup_as(&lab, &tree, "/srv/live", "nas");
    for index in lab.files_in("index") {
        truncate(&index, 10);
    }
    let app = Path::new("/srv/live/app");
    let found = points(&lab, app).unwrap();
    assert!(found.len() == 1 && found[0].partial, "{found:?}");
    let error = restore(&lab, app, found[0].clone(), "out").unwrap_err();
    assert_eq!(error.kind(), SourceKind::Corrupt, "{error:?}");
}

/// One that was adopted empty, beside others of its service that weren't.
#[test]
fn what_was_recorded_to_be_nothing_comes_back_as_nothing() {
    let lab = Lab::new();
    let tree = lab.path("tree");
    fs::create_dir(&tree).unwrap();
    let app = Path::new("/srv/app");
    backup_as(&lab, &tree, "/srv/app", "nas");
    let mut point = points(&lab, app).unwrap().remove(0);
    // Of what nobody recorded to be empty, nothing is lost data.
    let error = restore(&lab, app, point.clone(), "out").unwrap_err();
    assert_eq!(error.kind(), SourceKind::NothingRestored, "{error:?}");
    let fingerprint = |files| Fingerprint {
        digest: TreeDigest::from_bytes([7; 32]),
        files,
        bytes: 0,
    };
    point.fingerprint = Some(fingerprint(1));
    let error = restore(&lab, app, point.clone(), "out").unwrap_err();
    assert_eq!(error.kind(), SourceKind::NothingRestored, "{error:?}");
    point.fingerprint = Some(fingerprint(0));
    let restored = restore(&lab, app, point, "out").unwrap();
    assert_eq!((restored.files, restored.bytes), (0, 0));
    assert!(walk(&lab.path("out")).is_empty());
}

/// Not a first start: an interrupted copy, or a check of the file system, may have lost the directory.
#[test]
fn data_without_any_snapshot_is_damage_and_not_absence() {
    let lab = Lab::new();
    let tree = lab.path("tree");
    make_tree(&tree);
    let (app, snapshots) = (Path::new("/srv/app"), lab.path("repo/snapshots"));
    assert_eq!(points(&lab, app).unwrap(), vec![], "a new repository has none");
    backup_as(&lab, &tree, "/srv/app", "nas");
    fs::remove_dir_all(&snapshots).unwrap();
    for empty in [false, true] {
        if empty {
            fs::create_dir(&snapshots).unwrap();
        }
        for of in [app, Path::new("/srv/new")] {
            let error = points(&lab, of).unwrap_err();
            assert_eq!(error.kind(), SourceKind::Corrupt, "{error:?}");
            assert!(error.report().hint.unwrap().contains("restic recover"));
        }
        // Who backs up goes on from it, and then nothing is missing but what was lost.
        assert_eq!(
            run(OffsiteRepo::points(&embedded(&lab), &context("all"), None)).unwrap(),
            vec![]
        );
    }
    backup_as(&lab, &tree, "/srv/app", "nas");
    assert_eq!(points(&lab, app).unwrap().len(), 1);
    assert_eq!(points(&lab, Path::new("/srv/new")).unwrap(), vec![]);
}

/// As after a bad inode, or a file that NFS lost: its name is there, and it can't be looked at.
#[test]
fn what_cannot_be_looked_at_is_damage_and_not_absence() {
    let lab = Lab::new();
    let tree = lab.path("tree");
    make_tree(&tree);
    let app = Path::new("/srv/app");
    let backups = || backup_as(&lab, &tree, "/srv/app", "nas");
    let (sound, lost) = (backups(), backups());
    let (snapshots, nowhere) = (lab.path("repo/snapshots"), lab.path("nowhere"));
    let leads_nowhere = |path: &Path| {
        fs::remove_file(path).unwrap();
        std::os::unix::fs::symlink(&nowhere, path).unwrap();
    };
    leads_nowhere(&snapshots.join(&lost));
    let found = points(&lab, app).unwrap();
    let told: Vec<_> = found.iter().map(|p| (p.locator.as_str(), p.partial)).collect();
    assert_eq!(told, [(sound.as_str(), false), (lost.as_str(), true)]);
    leads_nowhere(&snapshots.join(&sound));
    let error = points(&lab, app).unwrap_err();
    assert_eq!(error.kind(), SourceKind::Unreachable, "{error:?}");
    fs::rename(&snapshots, lab.path("aside")).unwrap();
    std::os::unix::fs::symlink(&nowhere, &snapshots).unwrap();
    let error = points(&lab, app).unwrap_err();
    assert_eq!(error.kind(), SourceKind::Unreachable, "{error:?}");
    fs::remove_file(&snapshots).unwrap();
    fs::rename(lab.path("aside"), &snapshots).unwrap();
    // A lock that may be somebody's own.
    std::os::unix::fs::symlink(&nowhere, lab.path("repo/locks").join("ab".repeat(32))).unwrap();
    let job = lab.job(&tree);
    let refused = backup(&lab.engine, &lab.password, &job, Arc::new(|_| ()), never()).unwrap_err();
    assert!(refused.to_string().contains("look at"), "{refused}");
}

/// Another file's content, which is sound and of this repository: a store that mixes them up, or somebody who has no key.
#[test]
fn what_is_in_a_file_is_what_its_name_says() {
    let lab = Lab::new();
    let tree = lab.path("tree");
    make_tree(&tree);
    let app = Path::new("/srv/app");
    let older = backup_as(&lab, &tree, "/srv/app", "nas");
    fs::write(tree.join("more"), noise(5, 100_000)).unwrap();
    let newer = backup_as(&lab, &tree, "/srv/app", "nas");
    let check = || {
        let open = lab.engine.open(&lab.password).unwrap();
        open.check(ReadData::All, &never()).unwrap().errors
    };
    assert_eq!(check(), Vec::<String>::new());
    let replayed = |old: &Path, new: &Path, then: &dyn Fn()| {
        let good = fs::read(new).unwrap();
        fs::copy(old, new).unwrap();
        let errors = check();
        let said = "its content is not what its name says";
        assert!(errors.iter().any(|error| error.contains(said)), "{errors:?}");
        then();
        fs::write(new, good).unwrap();
    };
    let snapshots = lab.path("repo/snapshots");
    replayed(&snapshots.join(&older), &snapshots.join(&newer), &|| {
        let found = points(&lab, app).unwrap();
        let told: Vec<_> = found.iter().map(|p| (p.locator.as_str(), p.partial)).collect();
        assert_eq!(told, [(older.as_str(), false), (newer.as_str(), true)]);
    });
    let index = lab.files_in("index");
    assert_eq!(index.len(), 2);
    replayed(&index[0], &index[1], &|| {
        let job = lab.restore_job(&newer, "out");
        assert!(matches!(lab.restore(&job), Err(EngineError::Unreadable { .. })));
    });
    let key = lab.files_in("keys").remove(0);
    fs::rename(&key, key.with_file_name("ab".repeat(32))).unwrap();
    let error = lab.engine.open(&lab.password).unwrap_err();
    assert!(matches!(error, EngineError::Unreadable { .. }), "{error}");
}

#[test]
fn a_damaged_snapshot_file_is_the_oldest_point_of_every_target() {
    let lab = Lab::new();
    let tree = lab.path("tree");
    make_tree(&tree);
    let sound = backup_as(&lab, &tree, "/srv/app", "nas");
    fs::write(tree.join("more"), b"1").unwrap();
    let damaged = backup_as(&lab, &tree, "/srv/app", "nas");
    fs::remove_file(tree.join("more")).unwrap();
    truncate(&lab.path("repo/snapshots").join(&damaged), 0);

    let app = Path::new("/srv/app");
    let found = points(&lab, app).unwrap();
    let told: Vec<_> = found.iter().map(|p| (p.locator.as_str(), p.partial)).collect();
    assert_eq!(told, [(sound.as_str(), false), (damaged.as_str(), true)]);
    assert_eq!(found[1].taken_at, Timestamp::UNIX_EPOCH);
    assert_eq!(found[1].dataset, found[0].dataset);
    let error = restore(&lab, app, found[1].clone(), "none").unwrap_err();
    assert_eq!(error.kind(), SourceKind::Corrupt, "{error:?}");
    let hint = error.report().hint.unwrap();
    assert!(hint.contains("check --read-data"), "{hint}");
    restore(&lab, app, found[0].clone(), "out").unwrap();
    let (mut expected, mut restored) = (look(&tree), look(&lab.path("out")));
    // `more` came and went, which changed the directory's time.
    expected.remove(Path::new(""));
    restored.remove(Path::new(""));
    assert_eq!(expected, restored);

    // One that nobody can say the owner of is no reason to believe that there is none.
    let elsewhere = points(&lab, Path::new("/elsewhere")).unwrap();
    assert!(elsewhere.len() == 1 && elsewhere[0].partial, "{elsewhere:?}");
    let recorder = Arc::new(Recorder::default());
    let cx = Context::new(
        RunId::new("20261122T203300Z-all").unwrap(),
        Arc::clone(&recorder) as _,
        CancellationToken::new(),
    );
    let all = run(OffsiteRepo::points(&embedded(&lab), &cx, None)).unwrap();
    assert_eq!(all.iter().filter(|p| p.partial).count(), 1);
    assert_eq!(all.len(), 2);
    let events = recorder.take();
    let warned =
        |event: &Event| matches!(event, Event::Warning { message, .. } if message.contains("damaged"));
    assert!(events.iter().any(warned), "{events:?}");
}

/// Messages are for one line of a log, whatever the environment asks the library for.
#[test]
fn errors_hold_no_backtraces_nonces_or_links() {
    // Its own process, because the standard library looks at the environment once.
    let inner = "inner_errors_of_a_damaged_repository";
    let command = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", inner, "--nocapture"])
        .env("RUST_BACKTRACE", "1")
        .env("RUST_LIB_BACKTRACE", "1");
    let output = run(async {
        SystemRunner::new()
            .run(&command, &CancellationToken::new())
            .await
            .unwrap()
    });
    assert!(
        output.exit.success(),
        "{}{}",
        output.stdout.text(),
        output.stderr.text()
    );
    assert!(
        output.stdout.text().contains("1 passed"),
        "{}",
        output.stdout.text()
    );
}

#[test]
fn inner_errors_of_a_damaged_repository() {
    let lab = Lab::new();
    let tree = lab.path("tree");
    make_tree(&tree);
    let snapshot = backup_as(&lab, &tree, "/srv/app", "nas");
    let mut said = Vec::new();
    for part in ["index", "snapshots", "data", "config"] {
        let file = if part == "config" {
            lab.path("repo/config")
        } else {
            lab.files_in(part).remove(0)
        };
        let good = fs::read(&file).unwrap();
        let flip = || flip_bit(&file, 0.5);
        let cut = || truncate(&file, 40);
        let damages: [&dyn Fn(); 2] = [&flip, &cut];
        for damage in damages {
            damage();
            if let Err(error) = lab.restore(&lab.restore_job(&snapshot, "out")) {
                said.push(error.to_string());
            }
            if let Ok(open) = lab.engine.open(&lab.password) {
                let check = open.check(ReadData::All, &never()).unwrap();
                said.extend(check.errors);
            }
            let _ = fs::remove_dir_all(lab.path("out"));
            fs::write(&file, &good).unwrap();
        }
    }
    assert!(said.len() >= 8, "{said:#?}");
    for text in said {
        for noise in [
            "acktrace",
            "nonce",
            "https://",
            "rust_begin",
            "\n",
            "experienced an error",
        ] {
            assert!(!text.contains(noise), "{noise:?} in {text}");
        }
        assert!(text.len() < 1000, "{} bytes: {text}", text.len());
    }
}

/// Runs restic on the lab's repository from a directory.
fn restic(lab: &Lab, cwd: &Path, args: &[&str]) {
    let output = restic_by("RESEED_REAL_RESTIC", lab, cwd, args);
    assert!(output.exit.success(), "restic {args:?}: {}", output.stderr.text());
}

/// The same by the one that a variable names, however it ends.
fn restic_by(variable: &str, lab: &Lab, cwd: &Path, args: &[&str]) -> Output {
    let program = std::env::var_os(variable)
        .expect("it must name the restic to test with (or leave out the tests named real_*)");
    let command = Command::new(program)
        .args(["--no-cache", "-r"])
        .arg(lab.path("repo"))
        .args(args)
        .cwd(cwd)
        .env_secret_file("RESTIC_PASSWORD_FILE", Secret::new(PASSWORD));
    run(async {
        SystemRunner::new()
            .run(&command, &CancellationToken::new())
            .await
            .unwrap()
    })
}

/// A service's directory with a neighbour, and paths to say it by.
struct Live {
    lab: Lab,
    app: PathBuf,
}

impl Live {
    fn new() -> Self {
        let lab = Lab::new();
        let app = lab.path("live/app");
        make_tree(&app);
        // restic 0.14 has no place for a link whose target is no text.
        fs::remove_file(app.join("odd-link")).unwrap();
        set_mode(&app, 0o2751);
        set_time(&app, 1_400_000_000, 987_654_321);
        fs::create_dir(lab.path("live/other")).unwrap();
        fs::write(lab.path("live/other/file"), b"1").unwrap();
        Self { lab, app }
    }

    #[track_caller]
    fn backed_up(cwd: &str, paths: &[&str], root_recorded: bool) {
        let live = Self::new();
        let mut args = vec!["backup", "--host", "nas"];
        let full: Vec<String> = paths
            .iter()
            .map(|path| path.replace("$LAB", live.lab.dir.path().to_str().unwrap()))
            .collect();
        args.extend(full.iter().map(String::as_str));
        restic(&live.lab, &live.lab.path(cwd), &args);
        assert_brings(&live.lab, &live.app, root_recorded);
    }
}

#[test]
fn real_restic_backup_of_an_absolute_path() {
    Live::backed_up("", &["$LAB/live/app"], true);
}

#[test]
fn real_restic_backup_of_dot() {
    Live::backed_up("live/app", &["."], false);
}

#[test]
fn real_restic_backup_of_a_relative_path_of_one_component() {
    Live::backed_up("live", &["app"], true);
    Live::backed_up("live/other", &["../app"], true);
}

#[test]
fn real_restic_backup_of_a_relative_path_of_two_components() {
    Live::backed_up("", &["live/app"], true);
}

#[test]
fn real_restic_backup_of_a_parent() {
    Live::backed_up("", &["$LAB/live"], true);
    Live::backed_up("", &["live"], true);
    Live::backed_up("live", &["."], true);
}

#[test]
fn real_restic_backup_of_several_paths() {
    Live::backed_up("", &["$LAB/live/app", "/etc/apt"], true);
    Live::backed_up("", &["$LAB/live", "/etc/apt"], true);
    Live::backed_up("", &["live/app", "/etc/apt"], true);
    Live::backed_up("live", &["app", "other"], true);
}

#[test]
fn real_restic_backups_without_the_path_are_no_points() {
    let live = Live::new();
    let at = live.lab.path("");
    // The path was excluded, or is a file's.
    restic(
        &live.lab,
        &at,
        &["backup", "--host", "nas", "--exclude", "app", "live"],
    );
    assert_eq!(points(&live.lab, &live.app).unwrap(), vec![]);
    let file = live.lab.path("live/other/file");
    restic(&live.lab, &at, &["backup", "--host", "nas", "live"]);
    assert_eq!(points(&live.lab, &file).unwrap(), vec![]);
}

#[test]
fn real_restic_passed_a_garbage_lock_as_we_do_until_0_15() {
    let live = Live::new();
    let stray = live.lab.path("repo/locks").join("0".repeat(64));
    fs::write(&stray, b"garbage").unwrap();
    restic(
        &live.lab,
        &live.lab.path("live"),
        &["backup", "--host", "nas", "app"],
    );
    restic(&live.lab, &live.lab.path(""), &["check"]);
    let (newer, at) = ("RESEED_REAL_RESTIC_NEWER", live.lab.path("live"));
    let refused = restic_by(newer, &live.lab, &at, &["backup", "--host", "nas", "app"]);
    let said = refused.stderr.text();
    assert!(
        !refused.exit.success() && said.contains("invalid lock file"),
        "{said}"
    );
    assert_brings(&live.lab, &live.app, true);
    assert_eq!(fs::read(&stray).unwrap(), b"garbage");
}
