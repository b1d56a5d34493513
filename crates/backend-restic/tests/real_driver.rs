//! The driver of the restic program beside the embedded engine and beside restic used by hand, in both versions that the
//! environment names. Every test's name begins with `real_`.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::*;
use reseed_backend_restic::restic::{Location, RestPlace};
use reseed_backend_restic::worker::Worker;
use reseed_backend_restic::{Embedded, PasswordFrom, Restic};
use reseed_core::digest::TreeDigest;
use reseed_core::error::{OffsiteKind, Retry, SourceKind};
use reseed_core::exec::{Command, Runner, Secret, SystemRunner};
use reseed_core::names::{DatasetName, PointId, SourceName};
use reseed_core::offsite::{BackupOutcome, BackupRequest, CheckDepth};
use reseed_core::point::{Fingerprint, RecoveryPoint, Target};
use reseed_core::source::{RestoreRequest, Restored, Scope};
use reseed_core::store::{StageState, Staging};
use reseed_core::{OffsiteRepo, RestoreSource};
use reseed_testkit::conformance::{block_on, context, minute};
use reseed_testkit::s3::{Daemon, own_address};
use tokio_util::sync::CancellationToken;

const WORKER: &str = env!("CARGO_BIN_EXE_reseed-restore-worker");

fn programs() -> [OsString; 2] {
    ["RESEED_REAL_RESTIC", "RESEED_REAL_RESTIC_NEWER"].map(|name| {
        std::env::var_os(name).unwrap_or_else(|| {
            panic!("{name} must name the restic to test with (or leave out the tests named real_*)")
        })
    })
}

fn source_name() -> SourceName {
    SourceName::new("offsite").unwrap()
}

fn driver(lab: &Lab, program: &OsString) -> Restic {
    driver_at(lab, Location::Local(lab.path("repo")), program)
}

fn driver_at(lab: &Lab, location: Location, program: &OsString) -> Restic {
    Restic::new(
        source_name(),
        location,
        PasswordFrom::Given(lab.password.clone()),
        lab.path("work"),
        Arc::new(SystemRunner::new()),
        Arc::clone(&lab.clock),
    )
    .program(program)
}

/// A repository on restic's own server, without a login.
fn served_at(url: String) -> Location {
    let allow_http = url.starts_with("http:");
    Location::Rest(RestPlace {
        url,
        login: None,
        allow_http,
    })
}

/// That server, for what is in `served`.
fn serve(lab: &Lab, port: u16, more: &[&OsStr]) -> (Daemon, SocketAddr) {
    let server = std::env::var_os("RESEED_REAL_REST_SERVER")
        .expect("RESEED_REAL_REST_SERVER must name the server to test with");
    let address = own_address(port).unwrap();
    let command = Command::new(server)
        .args(["--no-auth", "--path"])
        .arg(lab.path("served"))
        .args(["--listen", &address.to_string()])
        .args(more);
    (Daemon::start("rest-server", address, command).unwrap(), address)
}

fn embedded(lab: &Lab) -> Embedded {
    Embedded::new(
        source_name(),
        lab.engine.clone(),
        PasswordFrom::Given(lab.password.clone()),
        Worker::new([WORKER], Arc::new(SystemRunner::new())),
    )
}

fn target(mountpoint: impl Into<PathBuf>) -> Target {
    Target {
        dataset: DatasetName::new("tank/service").unwrap(),
        mountpoint: mountpoint.into(),
    }
}

fn request(tree: &Path, id: &str, minutes: i64) -> BackupRequest {
    BackupRequest {
        target: target(AS_PATH),
        path: tree.into(),
        as_path: AS_PATH.into(),
        host: "testhost".into(),
        point: PointId::new(id).unwrap(),
        snapshot: None,
        taken_at: minute(minutes),
        fingerprint: None,
        unseeded: false,
    }
}

fn backup(repo: &dyn OffsiteRepo, tree: &Path, id: &str, minutes: i64) {
    let report = block_on(repo.backup(&context("backup"), &request(tree, id, minutes))).unwrap();
    assert_eq!(report.outcome, BackupOutcome::Complete);
}

fn points(source: &dyn RestoreSource, target: &Target) -> Vec<RecoveryPoint> {
    block_on(source.points(&context("points"), target)).unwrap()
}

fn restore(
    source: &dyn RestoreSource,
    target: &Target,
    point: &RecoveryPoint,
    stage: &Path,
) -> Result<Restored, reseed_core::error::SourceError> {
    fs::create_dir_all(stage).unwrap();
    let request = RestoreRequest {
        target: target.clone(),
        point: point.clone(),
        scope: Scope::Whole,
    };
    let staging = Staging {
        target: target.clone(),
        path: stage.into(),
        locator: stage.display().to_string(),
        state: StageState::Fresh,
    };
    block_on(async {
        let cx = context("restore");
        let plan = source.plan(&cx, &request).await?;
        source.execute(&cx, &plan, &staging).await
    })
}

/// Without what old versions can't keep: a link whose target is no text, and links of links.
fn make_tree_for_restic(tree: &Path) {
    make_tree(tree);
    fs::remove_file(tree.join("odd-link")).unwrap();
    fs::remove_file(tree.join("sub/hard-linked-symlink")).unwrap();
    set_mode(tree, 0o2751);
    set_time(&tree.join("sub"), 1_450_000_000, 1);
    set_time(tree, 1_400_000_000, 987_654_321);
}

/// What it answers.
fn by_hand(lab: &Lab, program: &OsString, args: &[&str]) -> String {
    let command = Command::new(program)
        .args(["--no-cache", "-r"])
        .arg(lab.path("repo"))
        .args(args)
        .env_secret_file("RESTIC_PASSWORD_FILE", Secret::new("correct horse"));
    let output = block_on(SystemRunner::new().run(&command, &CancellationToken::new())).unwrap();
    assert!(output.exit.success(), "restic {args:?}: {}", output.stderr.text());
    output.stdout.text().into_owned()
}

#[test]
fn real_each_engine_restores_what_the_other_backed_up_down_to_the_topmost_directory() {
    for (number, program) in programs().iter().enumerate() {
        let lab = Lab::new();
        let tree = lab.path("tree");
        make_tree_for_restic(&tree);
        rustix::fs::setxattr(&tree, "user.top", b"v;a,lue", rustix::fs::XattrFlags::empty()).unwrap();
        set_time(&tree, 1_400_000_000, 987_654_321);
        let (driver, embedded) = (driver(&lab, program), embedded(&lab));
        backup(&driver, &tree, "by-restic", 1);
        backup(&embedded, &tree, "by-us", 2);
        let sources: [(&str, &dyn RestoreSource); 2] = [("driver", &driver), ("embedded", &embedded)];
        for (name, source) in sources {
            let found = points(source, &target(AS_PATH));
            let ids: Vec<&str> = found.iter().map(|point| point.id.as_str()).collect();
            assert_eq!(ids, ["by-us", "by-restic"], "{name}");
            for point in &found {
                let stage = lab.path(&format!("stage-{number}-{name}-{}", point.id));
                let restored = restore(source, &target(AS_PATH), point, &stage).unwrap();
                assert_eq!(restored.warnings, Vec::<String>::new());
                assert_same(&tree, &stage);
            }
        }
    }
}

#[test]
fn real_a_backup_by_hand_comes_back_also_where_it_lies_deep_in_the_snapshot() {
    for (number, program) in programs().iter().enumerate() {
        let lab = Lab::new();
        // A name that patterns would take for something else.
        let tree = lab.path("srv/a [b] *");
        fs::create_dir_all(tree.parent().unwrap()).unwrap();
        make_tree_for_restic(&tree);
        by_hand(&lab, program, &["backup", tree.to_str().unwrap()]);
        let driver = driver(&lab, program);
        let target = target(&tree);
        let found = points(&driver, &target);
        assert_eq!(found.len(), 1);
        // The live data is never restored onto.
        let error = restore(&driver, &target, &found[0], &tree).unwrap_err();
        assert_eq!(error.kind(), SourceKind::InvalidInput);
        let stage = lab.path(&format!("stage-{number}"));
        restore(&driver, &target, &found[0], &stage).unwrap();
        assert_same(&tree, &stage);
        // Again onto what is there.
        restore(&driver, &target, &found[0], &stage).unwrap();
        assert_same(&tree, &stage);
    }
}

/// What a restore relies on that must leave the `.zfs` of its target alone.
#[test]
fn real_what_is_excluded_from_the_root_of_a_restore_is_not_deleted() {
    let (lab, program) = (Lab::new(), &programs()[1]);
    fs::create_dir_all(lab.path("tree/a/b/.zfs")).unwrap();
    fs::write(lab.path("tree/a/b/.zfs/data"), b"x").unwrap();
    by_hand(&lab, program, &["backup", lab.path("tree").to_str().unwrap()]);
    fs::create_dir_all(lab.path("out/.zfs")).unwrap();
    for name in ["out/.zfs/snapshot", "out/stale"] {
        fs::write(lab.path(name), b"x").unwrap();
    }
    let (target, what) = (
        lab.path("out"),
        format!("latest:{}", lab.path("tree/a").display()),
    );
    let target = format!("--target={}", target.display());
    by_hand(
        &lab,
        program,
        &["restore", "--delete", "--exclude=/.zfs", &target, &what],
    );
    let is_there = |name: &str| lab.path(name).exists();
    assert!(is_there("out/.zfs/snapshot") && is_there("out/b/.zfs/data") && !is_there("out/stale"));
}

#[test]
fn real_a_part_of_a_backup_by_hand_is_found_below_its_path() {
    for program in &programs() {
        let lab = Lab::new();
        let tree = lab.path("srv/service");
        fs::create_dir_all(&tree).unwrap();
        fs::write(tree.join("file"), noise(3, 1000)).unwrap();
        by_hand(&lab, program, &["backup", lab.path("srv").to_str().unwrap()]);
        let driver = driver(&lab, program);
        let found = points(&driver, &target(&tree));
        assert_eq!(found.len(), 1);
        assert!(points(&driver, &target(lab.path("srv/other"))).is_empty());
        restore(&driver, &target(&tree), &found[0], &lab.path("stage")).unwrap();
        assert_same(&tree, &lab.path("stage"));
    }
}

#[test]
fn real_a_damaged_snapshot_is_listed_as_such_and_hides_no_other() {
    for program in &programs() {
        let lab = Lab::new();
        let tree = lab.path("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("file"), noise(3, 1000)).unwrap();
        let driver = driver(&lab, program);
        for (id, minutes) in [("first", 1), ("second", 2)] {
            backup(&driver, &tree, id, minutes);
        }
        let second = points(&driver, &target(AS_PATH)).remove(0);
        flip_bit(&lab.path("repo/snapshots").join(&second.locator), 0.5);
        let found = points(&driver, &target(AS_PATH));
        let ids: Vec<(&str, bool)> = found
            .iter()
            .map(|point| (point.id.as_str(), point.partial))
            .collect();
        assert_eq!((ids.len(), ids[0]), (2, ("first", false)));
        assert!(ids[1].1 && found[1].locator == second.locator);
        restore(&driver, &target(AS_PATH), &found[0], &lab.path("stage")).unwrap();
        let error = restore(&driver, &target(AS_PATH), &found[1], &lab.path("stage2")).unwrap_err();
        assert_eq!(error.kind(), SourceKind::Corrupt);
    }
}

#[test]
fn real_parents_are_found_from_whichever_path_a_tree_is_read() {
    for program in &programs() {
        let lab = Lab::new();
        let one = lab.path("one");
        fs::create_dir(&one).unwrap();
        fs::write(one.join("file"), noise(3, 1_000_000)).unwrap();
        let driver = driver(&lab, program);
        backup(&driver, &one, "first", 1);
        fs::rename(&one, lab.path("two")).unwrap();
        backup(&driver, &lab.path("two"), "second", 2);
        let open = lab.engine.open(&lab.password).unwrap();
        let paths: Vec<Vec<String>> = open
            .snapshots()
            .unwrap()
            .readable
            .into_iter()
            .map(|snapshot| snapshot.paths)
            .collect();
        let recorded = lab.path("work/trees/var+lib+service").display().to_string();
        assert_eq!(paths, [[recorded.clone()], [recorded]]);
        // It is compared with, so that what has not changed is not read.
        let all: serde_json::Value =
            serde_json::from_str(&by_hand(&lab, program, &["snapshots", "--json"])).unwrap();
        let first = all
            .as_array()
            .unwrap()
            .iter()
            .min_by_key(|one| one["time"].to_string());
        let second = all
            .as_array()
            .unwrap()
            .iter()
            .max_by_key(|one| one["time"].to_string());
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!(second["parent"], first["id"], "{all:#}");
    }
}

/// `tag` leaves the same trace as `repair snapshots --forget` and `rewrite --forget`, which cut a tree down and keep all else that is recorded:
/// that none of it may count as whole is for the core. What is cut down is never what comes back for the whole.
#[test]
fn real_a_record_that_was_written_anew_is_told() {
    for (number, program) in programs().iter().enumerate() {
        let lab = Lab::new();
        let tree = lab.path("tree");
        fs::create_dir(&tree).unwrap();
        for name in ["kept", "gone"] {
            fs::write(tree.join(name), noise(3, 1000)).unwrap();
        }
        let (driver, embedded) = (driver(&lab, program), embedded(&lab));
        backup(&driver, &tree, "first", 1);
        backup(&driver, &tree, "second", 2);
        let sources: [&dyn RestoreSource; 2] = [&driver, &embedded];
        let altered = |id: &str| {
            sources.map(|source| {
                let found = points(source, &target(AS_PATH));
                let one = found.into_iter().find(|point| point.id.as_str() == id).unwrap();
                (one.altered, one.partial)
            })
        };
        let locator = |id: &str| {
            let found = points(&driver, &target(AS_PATH));
            let one = found.into_iter().find(|point| point.id.as_str() == id).unwrap();
            one.locator
        };
        assert_eq!(altered("first"), [(false, false); 2]);
        by_hand(&lab, program, &["tag", "--add", "keep", &locator("first")]);
        assert_eq!(altered("first"), [(true, false); 2]);
        assert_eq!(altered("second"), [(false, false); 2]);
        // The old one can't cut anything down.
        if number == 1 {
            let words = ["rewrite", "--forget", "--exclude=gone"];
            by_hand(&lab, program, &[&words[..], &[&locator("second")]].concat());
            assert_eq!(altered("second"), [(true, false); 2]);
            let stage = lab.path("stage");
            let found = points(&driver, &target(AS_PATH));
            restore(&driver, &target(AS_PATH), &found[0], &stage).unwrap();
            assert!(stage.join("kept").exists() && !stage.join("gone").exists());
        }
    }
}

#[test]
fn real_a_point_that_is_gone_when_it_is_to_be_restored_is_told_and_nothing_is_made() {
    for program in &programs() {
        let lab = Lab::new();
        let tree = lab.path("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("file"), noise(3, 1000)).unwrap();
        let driver = driver(&lab, program);
        backup(&driver, &tree, "first", 1);
        let point = points(&driver, &target(AS_PATH)).remove(0);
        let request = RestoreRequest {
            target: target(AS_PATH),
            point: point.clone(),
            scope: Scope::Whole,
        };
        let stage = lab.path("stage");
        fs::create_dir(&stage).unwrap();
        let staging = Staging {
            target: target(AS_PATH),
            path: stage.clone(),
            locator: stage.display().to_string(),
            state: StageState::Fresh,
        };
        let error = block_on(async {
            let cx = context("gone");
            let plan = driver.plan(&cx, &request).await.unwrap();
            fs::remove_file(lab.path("repo/snapshots").join(&point.locator)).unwrap();
            driver.execute(&cx, &plan, &staging).await.unwrap_err()
        });
        assert_eq!(error.kind(), SourceKind::NoSuchPoint, "{error}");
        assert_eq!(fs::read_dir(&stage).unwrap().count(), 0);
    }
}

/// What the core has stored again it didn't trust: the second one is the point, and both versions say so of the first.
#[test]
fn real_of_a_state_that_is_stored_again_the_last_one_is_the_whole() {
    for program in programs() {
        let lab = Lab::new();
        let (repo, tree) = (driver(&lab, &program), lab.path("tree"));
        make_tree_for_restic(&tree);
        backup(&repo, &tree, "1", 0);
        let first = points(&repo, &target(AS_PATH)).remove(0);
        backup(&repo, &tree, "1", 0);
        let (whole, partial): (Vec<_>, Vec<_>) = points(&repo, &target(AS_PATH))
            .into_iter()
            .partition(|point| !point.partial);
        assert_eq!((whole.len(), partial.len()), (1, 1), "{whole:?} {partial:?}");
        assert!(whole[0].locator != first.locator && whole[0].id == first.id);
        let stage = lab.path("stage");
        restore(&repo, &target(AS_PATH), &whole[0], &stage).unwrap();
        assert!(stage.join("sub").exists());
    }
}

/// What an earlier restore set on a directory is for what is made in it later by others, not by the next restore.
#[test]
fn real_what_comes_back_later_inherits_nothing_either() {
    for program in programs() {
        let lab = Lab::new();
        let tree = lab.path("tree");
        fs::create_dir_all(tree.join("shared")).unwrap();
        for name in ["top", "shared/file"] {
            fs::write(tree.join(name), b"1").unwrap();
        }
        for dir in ["", "shared"] {
            set_acl(&tree.join(dir), DEFAULT_ACL);
        }
        let driver = driver(&lab, &program);
        block_on(driver.backup(&context("backup"), &request(&tree, "p1", 1))).unwrap();
        let found = points(&driver, &target(AS_PATH));
        let stage = lab.path("stage");
        for _ in 0..2 {
            let _ = fs::remove_file(stage.join("top"));
            let _ = fs::remove_file(stage.join("shared/file"));
            restore(&driver, &target(AS_PATH), &found[0], &stage).unwrap();
            assert_same(&tree, &stage);
        }
    }
}

/// It would ask again for a quarter of an hour.
#[test]
fn real_a_certificate_that_is_not_trusted_ends_it() {
    let lab = Lab::new();
    let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
    let (certificate, key) = (tls.join("cert.pem"), tls.join("key.pem"));
    let flags = ["--tls", "--tls-cert", "--tls-key"].map(OsStr::new);
    let more = [
        flags[0],
        flags[1],
        certificate.as_os_str(),
        flags[2],
        key.as_os_str(),
    ];
    let (_daemon, address) = serve(&lab, 3904, &more);
    for program in programs() {
        let repo = driver_at(&lab, served_at(format!("https://{address}/app")), &program);
        let error = block_on(repo.open(&context("untrusted"))).unwrap_err();
        assert_eq!(error.kind(), OffsiteKind::InvalidInput, "{error}");
        assert!(error.to_string().contains("is not trusted here"), "{error}");
        assert!(
            error
                .what_to_do()
                .is_some_and(|hint| hint.contains("SSL_CERT_FILE")),
            "{error}"
        );
    }
}

/// Since 0.15 restic ends at one, whatever it was to do.
#[test]
fn real_a_garbage_lock_keeps_no_restore_away_and_is_not_called_damage() {
    for program in programs() {
        let lab = Lab::initialised();
        let (tree, restic) = (lab.path("tree"), driver(&lab, &program));
        make_tree_for_restic(&tree);
        backup(&restic, &tree, "1", 1);
        let stray = lab.path("repo/locks").join("0".repeat(64));
        fs::write(&stray, b"garbage").unwrap();
        if let Err(error) = block_on(restic.backup(&context("backup"), &request(&tree, "2", 2))) {
            assert_eq!(
                (error.kind(), error.should_retry()),
                (OffsiteKind::Busy, Retry::Later),
                "{error:?}"
            );
            assert!(error.to_string().contains("lock 0000000000"), "{error}");
            assert!(
                error.what_to_do().unwrap().contains("unlock --remove-all"),
                "{error:?}"
            );
        }
        let of = target(AS_PATH);
        let first = points(&restic, &of).pop().unwrap();
        restore(&restic, &of, &first, &lab.path("out")).unwrap();
        assert_same(&tree, &lab.path("out"));
        assert_eq!(fs::read(&stray).unwrap(), b"garbage");
    }
}

/// restic before 0.17 would make another repository over it, whose keys don't open what is there.
#[test]
fn real_no_repository_is_made_over_one_that_lost_its_configuration() {
    let lab = Lab::new();
    let (_daemon, address) = serve(&lab, 3905, &[]);
    for (number, program) in programs().iter().enumerate() {
        let name = format!("app{number}");
        let repo = driver_at(&lab, served_at(format!("http://{address}/{name}/")), program);
        block_on(repo.init(&context("init"))).unwrap();
        let config = lab.path("served").join(&name).join("config");
        fs::remove_file(&config).unwrap();
        let error = block_on(repo.init(&context("again"))).unwrap_err();
        assert!(error.to_string().contains("keys are there"), "{error}");
        assert!(!config.exists());
        assert_eq!(fs::read_dir(config.with_file_name("keys")).unwrap().count(), 1);
    }
}

#[test]
fn real_what_was_recorded_to_be_nothing_comes_back_as_nothing() {
    for program in programs() {
        let lab = Lab::initialised();
        let (tree, restic, of) = (lab.path("tree"), driver(&lab, &program), target(AS_PATH));
        fs::create_dir(&tree).unwrap();
        backup(&restic, &tree, "1", 1);
        let mut point = points(&restic, &of).pop().unwrap();
        let error = restore(&restic, &of, &point, &lab.path("out")).unwrap_err();
        assert_eq!(error.kind(), SourceKind::NothingRestored, "{error:?}");
        point.fingerprint = Some(Fingerprint {
            digest: TreeDigest::from_bytes([7; 32]),
            files: 0,
            bytes: 0,
        });
        let restored = restore(&restic, &of, &point, &lab.path("out")).unwrap();
        assert_eq!((restored.files, restored.bytes), (0, 0));
        assert!(walk(&lab.path("out")).is_empty());
    }
}

/// restic names packs; whose data is in them is found by looking.
#[test]
fn real_damage_is_told_with_what_it_takes_away() {
    for program in &programs() {
        let lab = Lab::new();
        let tree = lab.path("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("file"), noise(3, 300_000)).unwrap();
        let driver = driver(&lab, program);
        backup(&driver, &tree, "of-service", 1);
        // Of another dataset, whose data is elsewhere.
        let other = lab.path("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("file"), noise(4, 1000)).unwrap();
        let mut of_other = request(&other, "of-other", 2);
        of_other.target = Target {
            dataset: DatasetName::new("tank/other").unwrap(),
            mountpoint: "/var/lib/other".into(),
        };
        of_other.as_path = "/var/lib/other".into();
        block_on(driver.backup(&context("backup"), &of_other)).unwrap();
        let check = || block_on(driver.check(&context("check"), CheckDepth::Everything)).unwrap();
        let sound = check();
        assert_eq!((sound.errors, sound.affected), (vec![], Some(vec![])));
        let mut packs = Vec::new();
        for dir in fs::read_dir(lab.path("repo/data")).unwrap() {
            let files = fs::read_dir(dir.unwrap().path()).unwrap();
            packs.extend(files.map(|file| file.unwrap().path()));
        }
        let largest = packs.iter().max_by_key(|pack| fs::metadata(pack).unwrap().len());
        flip_bit(largest.unwrap(), 0.5);
        let damaged = check();
        assert!(!damaged.errors.is_empty());
        assert_eq!(damaged.affected, Some(vec![target(AS_PATH).dataset]));
    }
}
