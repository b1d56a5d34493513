//! What can be wrong around the program: each gives a clear error with a hint, or it works; nothing panics or is lost.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;

use crate::lab::{Lab, run_in};

#[test]
fn a_broken_journal_never_stops_a_restore() {
    let lab = Lab::protected("");
    for damage in [
        &b""[..],
        b"not a database at all, but long enough to be looked at",
        &[0; 5000],
    ] {
        let journal = lab.path("state/journal.sqlite");
        let _ = fs::remove_file(lab.path("state/journal.sqlite-wal"));
        fs::write(&journal, damage).unwrap();
        lab.lose_data();
        assert_eq!(lab.preseed(0).0, "restored");
        lab.assert_whole();
        let history = lab.run(&["--json", "history"]).expect(0).json();
        assert_eq!(history["runs"][0]["outcome"], "restored", "{history:#}");
    }
    let kept = fs::read_dir(lab.path("state")).unwrap().filter(|e| {
        e.as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .contains("broken")
    });
    assert!(kept.count() >= 1, "what was broken is set aside, not destroyed");
}

#[test]
fn a_journal_cut_off_anywhere() {
    let lab = Lab::protected("");
    let journal = lab.path("state/journal.sqlite");
    let whole = fs::read(&journal).unwrap();
    for part in [1, 3, 7] {
        let _ = fs::remove_file(lab.path("state/journal.sqlite-wal"));
        fs::write(&journal, &whole[..whole.len() * part / 8]).unwrap();
        lab.run(&["preseed", "app"]).expect(0);
    }
}

#[test]
fn repositories_that_do_not_open() {
    // Wrong password.
    let lab = Lab::protected("chain = [\"offsite\"]\nwhen_exhausted = \"hold\"");
    fs::write(lab.path("password"), "wrong\n").unwrap();
    let ran = lab.run(&["backup", "app"]).expect(1);
    assert!(
        ran.all().contains("password") && ran.all().contains("hint"),
        "{ran:?}"
    );
    lab.lose_data();
    let ran = lab.run(&["preseed", "app"]).expect(4);
    assert!(
        ran.out.contains("held") && ran.out.contains("password"),
        "{ran:?}"
    );

    // No password file, an empty one.
    fs::remove_file(lab.path("password")).unwrap();
    let ran = lab.run(&["preseed", "app"]).expect(4);
    assert!(ran.out.contains("password"), "{ran:?}");
    fs::write(lab.path("password"), "").unwrap();
    lab.run(&["preseed", "app"]).expect(4);
    fs::write(lab.path("password"), "secret\n").unwrap();

    // A missing key.
    fs::rename(lab.path("offsite/keys"), lab.path("keys")).unwrap();
    fs::create_dir(lab.path("offsite/keys")).unwrap();
    let ran = lab.run(&["preseed", "app"]).expect(4);
    assert!(ran.out.contains("key"), "{ran:?}");
    fs::remove_dir(lab.path("offsite/keys")).unwrap();
    fs::rename(lab.path("keys"), lab.path("offsite/keys")).unwrap();
    assert_eq!(lab.preseed(0).0, "restored");
    lab.assert_whole();

    // A file where the repository should be.
    fs::rename(lab.path("offsite"), lab.path("repo")).unwrap();
    fs::write(lab.path("offsite"), "I am a file").unwrap();
    let ran = lab.run(&["backup", "app"]).expect(1);
    assert!(ran.all().contains("file"), "{ran:?}");
    let ran = lab.run(&["init"]).expect(1);
    assert!(ran.out.contains("file"), "{ran:?}");
    assert_eq!(fs::read_to_string(lab.path("offsite")).unwrap(), "I am a file");
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a program that is killed has to be started"
)]
fn a_lock_that_a_dead_program_left() {
    let lab = Lab::protected("chain = [\"offsite\"]");
    lab.run(&["snapshot", "app", "--kind", "hourly"]).expect(0);
    let locks = || {
        let entries = fs::read_dir(lab.path("offsite/locks")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        // A file that is being written has another name until it is whole.
        names.filter(|name| name.len() == 64).collect::<Vec<_>>()
    };
    // A backup that is killed as soon as its lock is there; it waits a while then for others to show up.
    let mut killed = std::process::Command::new(env!("CARGO_BIN_EXE_reseed"))
        .arg("--config")
        .arg(lab.path("reseed.toml"))
        .args(["backup", "app"])
        .current_dir(&lab.root)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while locks().is_empty() {
        assert!(killed.try_wait().unwrap().is_none(), "it ended without a lock");
        std::thread::yield_now();
    }
    killed.kill().unwrap();
    assert!(!killed.wait().unwrap().success());
    assert_eq!(locks().len(), 1, "nobody was left to remove it");
    // Its process isn't on this host. It may be on one of the same name, which would refresh it within minutes: until then it stays, and keeps
    // nobody from restoring or backing up.
    lab.lose_data();
    assert_eq!(
        lab.preseed(0),
        ("restored".to_owned(), Some("offsite".to_owned()))
    );
    lab.assert_whole();
    lab.run(&["backup", "app"]).expect(0);
    assert_eq!(locks().len(), 1, "those who came later removed their own");
}

#[test]
fn a_lock_file_that_is_garbage_is_in_nobodys_way() {
    let lab = Lab::protected("chain = [\"offsite\"]\nwhen_exhausted = \"hold\"");
    let stray = lab.path("offsite/locks").join("0".repeat(64));
    fs::write(&stray, "garbage").unwrap();
    lab.lose_data();
    assert_eq!(
        lab.preseed(0),
        ("restored".to_owned(), Some("offsite".to_owned()))
    );
    lab.assert_whole();
    lab.run(&["restore", "app", "--to", "copy"]).expect(0);
    lab.run(&["snapshot", "app", "--kind", "hourly"]).expect(0);
    let ran = lab.run(&["backup", "app"]).expect(0);
    assert!(ran.all().contains("lock"), "{ran:?}");
    lab.run(&["verify"]).expect(0);
    assert_eq!(
        fs::read_to_string(&stray).unwrap(),
        "garbage",
        "it is not ours to remove"
    );
}

/// A power cut in a backup, or a bad block: one of the repository's snapshots is gone, the others are not.
#[test]
fn a_damaged_snapshot_in_the_repository_is_passed_and_never_taken_for_none() {
    let lab = Lab::protected("chain = [\"offsite\"]\nwhen_exhausted = \"hold\"");
    let snapshots = || {
        let entries = fs::read_dir(lab.path("offsite/snapshots")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    let sound = snapshots();
    fs::write(lab.live().join("newer"), "1").unwrap();
    lab.run(&["snapshot", "app", "--kind", "hourly"]).expect(0);
    lab.run(&["backup", "app"]).expect(0);
    let newest = snapshots()
        .into_iter()
        .find(|path| !sound.contains(path))
        .unwrap();
    fs::write(&newest, "").unwrap();
    lab.lose_data();
    assert_eq!(
        lab.preseed(0),
        ("restored".to_owned(), Some("offsite".to_owned()))
    );
    lab.assert_whole();
    assert!(!lab.live().join("newer").exists(), "of the state before");
    let ran = lab.run(&["verify", "offsite", "--depth", "everything"]).expect(1);
    let name = newest.file_name().unwrap().to_str().unwrap();
    assert!(ran.all().contains(&name[..8]), "{ran:?}");
    lab.run(&["snapshot", "app", "--kind", "daily"]).expect(0);
    let ran = lab.run(&["backup", "app"]).expect(0);
    assert!(ran.all().contains("damaged"), "{ran:?}");
    // Nothing else is left: held, and no first start.
    for path in snapshots() {
        if path != newest {
            fs::remove_file(path).unwrap();
        }
    }
    lab.lose_data();
    let ran = lab.run(&["preseed", "app"]).expect(4);
    assert!(
        ran.out.contains("held") && !ran.out.contains("first start"),
        "{ran:?}"
    );
}

#[test]
fn files_and_links_where_directories_should_be() {
    let lab = Lab::protected("");
    lab.lose_data();
    symlink(lab.path("elsewhere"), lab.live()).unwrap();
    let (outcome, _) = lab.preseed(4);
    assert_eq!(outcome, "blocked");
    assert!(lab.live().is_symlink() && !lab.path("elsewhere").exists());
    fs::remove_file(lab.live()).unwrap();
    fs::write(lab.live(), "a file").unwrap();
    assert_eq!(lab.preseed(4).0, "blocked");
    assert_eq!(fs::read_to_string(lab.live()).unwrap(), "a file");
    fs::remove_file(lab.live()).unwrap();
    // The store itself as a link.
    fs::rename(lab.path("snapshots"), lab.path("real")).unwrap();
    symlink(lab.path("real"), lab.path("snapshots")).unwrap();
    let ran = lab.run(&["snapshot", "app"]);
    assert_ne!(ran.code, Some(0), "{ran:?}");
    fs::remove_file(lab.path("snapshots")).unwrap();
    fs::rename(lab.path("real"), lab.path("snapshots")).unwrap();
    assert_eq!(lab.preseed(0).0, "restored");
    lab.assert_whole();
}

#[test]
fn odd_names_survive_every_source() {
    let lab = Lab::new();
    let names = [
        &b"new\nline"[..],
        b"it's \"quoted\"",
        "\u{1f600} gr\u{fc}\u{df}e".as_bytes(),
        b"-rf",
        b"--help",
        b"\xff\xfe",
        b" ",
        b"\x1b[31m",
        b"a\\b",
    ];
    for name in names {
        fs::write(lab.live().join(OsStr::from_bytes(name)), name).unwrap();
    }
    lab.run(&["init"]).expect(0);
    lab.protect();
    for source in ["local", "replica", "offsite"] {
        let to = format!("from-{source}");
        let ran = lab
            .run(&["restore", "app", "--from", source, "--to", &to])
            .expect(0);
        assert!(ran.out.contains("digest matches"), "{ran:?}");
        for name in names {
            assert_eq!(
                fs::read(lab.path(&to).join(OsStr::from_bytes(name))).unwrap(),
                name
            );
        }
    }
}

#[test]
fn service_and_source_names_that_could_hurt() {
    let lab = Lab::new();
    for name in ["../x", "a\nb", "-r", "a b", "\u{e9}", "", "a'b", "$(id)"] {
        let ran = lab.run(&["preseed", "--", name]).expect(2);
        assert!(!ran.err.contains("\nb") || !name.contains('\n'), "{ran:?}");
    }
    lab.run(&["restore", "app", "--from", "-x"]).expect(2);
    lab.run(&["restore", "app", "--from=../x", "--to", "y"]).expect(2);
}

#[test]
fn ten_thousand_services() {
    let lab = Lab::new();
    let mut config = fs::read_to_string(lab.path("reseed.toml")).unwrap();
    for n in 0..10_000 {
        config.push_str(&format!(
            "[services.s{n}]\npath = \"{}/many/{n}\"\n",
            lab.root.display()
        ));
        let dir = lab.path(&format!("many/{n}"));
        if n < 200 {
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("x"), "x").unwrap();
        }
    }
    fs::write(lab.path("reseed.toml"), config).unwrap();
    lab.run(&["init"]).expect(0);
    let ran = lab.run(&["config", "check"]).expect(0);
    assert!(ran.out.contains("10001 services"), "{}", ran.out);
    let names: Vec<String> = (0..200).map(|n| format!("s{n}")).collect();
    let mut args = vec!["--json", "preseed"];
    args.extend(names.iter().map(String::as_str));
    let reports = lab.run(&args).expect(0).json();
    assert_eq!(reports["reports"].as_array().unwrap().len(), 200);
}

#[test]
fn no_configuration_and_a_wrong_one() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none.toml");
    let ran = run_in(
        dir.path(),
        &["--config".as_ref(), missing.as_os_str(), "status".as_ref()],
    )
    .expect(2);
    assert!(ran.out.contains("reseed init"), "{ran:?}");
    let ran = run_in(
        dir.path(),
        &["--config".as_ref(), dir.path().as_os_str(), "status".as_ref()],
    )
    .expect(2);
    assert!(ran.out.contains("directory"), "{ran:?}");
    let lab = Lab::with("chian = [\"local\"]");
    let ran = lab.run(&["config", "check"]).expect(2);
    assert!(
        ran.out.contains("chain") && ran.out.contains("reseed.toml"),
        "{ran:?}"
    );
    let ran = lab.run(&["--json", "config", "check"]).expect(2);
    assert_eq!(ran.json()["ok"], false);
}

#[test]
fn targets_that_cannot_be_written() {
    // Small filesystems of its own need a mount, so this is for root; elsewhere the unprivileged part alone is tested.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let lab = Lab::protected("");
    lab.lose_data();
    let target = lab.path("data");
    let mounted = |options: &str| {
        let flags = rustix::mount::MountFlags::empty();
        let options = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount("none", &target, "tmpfs", flags, Some(options.as_c_str()))
    };
    // A full disk: fails, is not taken for a reason to start empty, and goes on once there is room.
    if mounted("size=64k").is_err() {
        return;
    }
    let full = lab.run(&["--json", "preseed", "app"]);
    let report = full.json()["reports"][0].clone();
    rustix::mount::unmount(&target, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(full.code, Some(1), "{full:?}");
    assert_eq!(report["outcome"]["result"], "failed", "{report:#}");
    assert_eq!(report["outcome"]["error"]["kind"], "no-space", "{report:#}");
    // Read-only.
    mounted("size=8m,ro").unwrap();
    let read_only = lab.run(&["--json", "preseed", "app"]);
    let report = read_only.json()["reports"][0].clone();
    rustix::mount::unmount(&target, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(report["outcome"]["result"], "failed", "{report:#}");
    assert_eq!(report["outcome"]["error"]["kind"], "read-only", "{report:#}");
    assert_eq!(lab.preseed(0).0, "restored");
    lab.assert_whole();
}
