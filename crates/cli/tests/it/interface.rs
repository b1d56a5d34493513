//! Exit codes, JSON, completion, locks and signals.

use std::fs;

use crate::lab::{Lab, run_in};

#[test]
fn help_lists_every_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let help = run_in(dir.path(), &["--help"]).expect(0).out;
    for code in ["0 ", "1 ", "2 ", "3 ", "4 ", "5 ", "130 "] {
        assert!(
            help.lines().any(|line| line.trim_start().starts_with(code)),
            "{code}: {help}"
        );
    }
    run_in(dir.path(), &["--no-such-flag"]).expect(2);
    run_in(dir.path(), &["preseed"]).expect(2);
    run_in(dir.path(), &["preseed", "a", "--all"]).expect(2);
}

#[test]
fn completions_and_manual() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = run_in(dir.path(), &["completions", shell]).expect(0).out;
        assert!(script.contains("preseed"), "{shell}");
    }
    assert!(run_in(dir.path(), &["man"]).expect(0).out.contains(".TH reseed"));
    run_in(dir.path(), &["man", "pages"]).expect(0);
    assert!(dir.path().join("pages/reseed-preseed.1").exists());
}

#[test]
fn the_schema_and_the_effective_configuration() {
    let lab = Lab::new();
    let schema = lab.run(&["config", "schema"]).expect(0);
    assert!(schema.json()["properties"]["services"].is_object());
    let shown = lab.run(&["config", "show"]).expect(0).out;
    fs::write(lab.path("again.toml"), &shown).unwrap();
    let again = run_in(&lab.root, &["--config", "again.toml", "--json", "config", "show"])
        .expect(0)
        .json();
    assert_eq!(again, lab.run(&["--json", "config", "show"]).expect(0).json());
}

#[test]
fn init_writes_a_configuration_that_is_sound() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--config", "etc/reseed.toml", "init"];
    run_in(dir.path(), &["--config", "etc/reseed.toml", "init", "-n"]).expect(0);
    assert!(!dir.path().join("etc").exists());
    run_in(dir.path(), &args).expect(0);
    let written = fs::read_to_string(dir.path().join("etc/reseed.toml")).unwrap();
    run_in(dir.path(), &["--config", "etc/reseed.toml", "config", "check"]).expect(0);
    // What is commented out is right too.
    let all = written.lines().map(|line| {
        line.strip_prefix("# ")
            .filter(|l| l.contains(" = ") || l.starts_with('['))
            .unwrap_or(line)
    });
    fs::write(dir.path().join("all.toml"), all.collect::<Vec<_>>().join("\n")).unwrap();
    let ran = run_in(dir.path(), &["--config", "all.toml", "config", "check"]).expect(0);
    assert!(ran.out.contains("1 services"), "{ran:?}");
}

#[test]
fn a_busy_service_names_its_holder() {
    let lab = Lab::protected("");
    let lock = lab.path("state/locks/app.lock");
    let file = fs::OpenOptions::new().read(true).write(true).open(&lock).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    fs::write(
        &lock,
        r#"{"pid":4711,"run":"20261122T203300Z-00000000","operation":"backup"}"#,
    )
    .unwrap();
    for command in ["snapshot", "preseed"] {
        if command == "preseed" {
            lab.lose_data();
        }
        let args: &[&str] = match command {
            "preseed" => &["preseed", "app", "--wait", "0s"],
            _ => &["snapshot", "app"],
        };
        let ran = lab.run(args).expect(5);
        let said = format!("{}{}", ran.out, ran.err);
        assert!(said.contains("4711") && said.contains("backup"), "{ran:?}");
        assert!(said.contains("hint: ") && said.contains("--wait"), "{ran:?}");
        assert!(!said.contains("nothing is declared"), "{ran:?}");
        let json = lab.run(&[&["--json"], args].concat()).expect(5).json();
        assert_eq!(json["refused"][0]["service"], "app", "{json}");
        assert!(json["refused"][0]["error"]["hint"].is_string(), "{json}");
    }
    drop(file);
    lab.run(&["preseed", "app"]).expect(0);
    lab.run(&["snapshot", "app"]).expect(0);
}

/// A first replica or backup takes days, in which snapshots have to be taken all the same.
#[test]
fn what_is_being_sent_keeps_no_snapshot_from_being_taken() {
    let lab = Lab::protected("");
    let locks = ["app.lock", "app@sending.lock"].map(|name| lab.path("state/locks").join(name));
    let held = locks
        .clone()
        .map(|path| fs::OpenOptions::new().read(true).write(true).open(path).unwrap());
    rustix::fs::flock(&held[0], rustix::fs::FlockOperation::LockShared).unwrap();
    rustix::fs::flock(&held[1], rustix::fs::FlockOperation::LockExclusive).unwrap();
    let this = std::process::id();
    let holder = format!(r#"{{"pid":{this},"run":"20261122T203300Z-00000000","operation":"replicate"}}"#);
    fs::write(&locks[1], holder).unwrap();
    lab.run(&["snapshot", "app"]).expect(0);
    for args in [
        ["prune", "app"],
        ["backup", "app"],
        ["replicate", "app"],
        ["verify", "app"],
    ] {
        let ran = lab.run(&args).expect(5);
        assert!(ran.err.contains("`replicate`"), "{ran:?}");
    }
    drop(held);
    lab.run(&["prune", "app"]).expect(0);
}

/// A timer with a name that was changed in the configuration would prove nothing, and call it well.
#[test]
fn a_source_that_nobody_has_is_not_verified_with_success() {
    let lab = Lab::protected("");
    for args in [
        &["verify", "app", "--from", "replica2"][..],
        &["verify", "--from", "replica2", "-n"],
    ] {
        let ran = lab.run(args).expect(2);
        assert!(
            ran.out.contains("replica2") && ran.out.contains("offsite"),
            "{ran:?}"
        );
    }
    lab.run(&["verify", "--from", "replica"]).expect(0);
}

/// What only a dry run lets pass is found out at the next boot.
#[test]
fn a_dry_run_ends_as_the_run_would() {
    let lab = Lab::with("when_exhausted = \"hold\"");
    lab.run(&["init"]).expect(0);
    fs::remove_dir_all(lab.path("offsite")).unwrap();
    fs::write(lab.path("offsite"), "no repository").unwrap();
    lab.lose_data();
    let ran = lab.run(&["preseed", "app", "-n"]).expect(4);
    assert!(ran.out.contains("would be held back"), "{ran:?}");
    assert_eq!(lab.preseed(4).0, "held");
    let lab = Lab::with("");
    lab.run(&["init"]).expect(0);
    fs::remove_dir_all(lab.path("offsite")).unwrap();
    fs::write(lab.path("offsite"), "no repository").unwrap();
    lab.lose_data();
    let ran = lab.run(&["preseed", "app", "-n"]).expect(0);
    assert!(ran.out.contains("would start without data"), "{ran:?}");
    assert_eq!(lab.preseed(0).0, "started-empty");
}

#[test]
fn nothing_due_is_told_as_that() {
    let lab = Lab::with("retention = { hourly = 5 }");
    lab.run(&["init"]).expect(0);
    lab.run(&["snapshot", "app", "--due"]).expect(0);
    let ran = lab.run(&["snapshot", "app", "--due"]).expect(0);
    assert!(ran.out.contains("no snapshot is due"), "{ran:?}");
}

#[test]
fn json_is_one_document_and_nothing_else() {
    let lab = Lab::protected("");
    for args in [
        &["--json", "status"][..],
        &["--json", "history"],
        &["--json", "preseed", "--all"],
        &["--json", "snapshot", "app", "--kind", "hourly"],
        &["--json", "replicate", "app"],
        &["--json", "backup", "app"],
        &["--json", "prune", "app"],
        &["--json", "adopt", "app"],
        &["--json", "verify", "app"],
        &["--json", "verify", "offsite", "--depth", "everything"],
        &["--json", "config", "check"],
        &["--json", "init"],
    ] {
        lab.run(args).expect(0).json();
    }
    let error = lab.run(&["--json", "preseed", "nope"]).expect(2).json();
    assert!(
        error["error"]["hint"].as_str().unwrap().contains("app"),
        "{error:#}"
    );
}

#[test]
fn a_signal_ends_the_run_cleanly() {
    // A connection that drops is one.
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::HUP] {
        ends_cleanly_at(signal);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test of signals starts the program and sends one"
)]
fn ends_cleanly_at(signal: rustix::process::Signal) {
    let lab = Lab::protected("");
    fs::write(lab.live().join("big"), vec![9; 300 << 20]).unwrap();
    lab.run(&["snapshot", "app", "--kind", "hourly"]).expect(0);
    lab.lose_data();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_reseed"))
        .args(["--config", "reseed.toml", "--json", "preseed", "app"])
        .current_dir(&lab.root)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The first event says that the restore has begun.
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(child.stderr.take().unwrap()),
        &mut line,
    )
    .unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let _ = rustix::process::kill_process(pid, signal);
    let output = child.wait_with_output().unwrap();
    // It may have been done already; if not, it says so, and the next run goes on.
    assert!(matches!(output.status.code(), Some(0 | 130)), "{output:?}");
    if output.status.code() == Some(130) {
        assert!(!lab.live().exists());
    } else {
        lab.lose_data();
    }
    assert_eq!(lab.preseed(0).0, "restored");
    lab.assert_whole();
}

/// A disk that isn't mounted leaves an empty directory where its store was. It must not become a second, empty store.
#[test]
fn init_makes_no_second_store_where_one_was() {
    let lab = Lab::protected("");
    for gone in ["replica", "offsite"] {
        fs::rename(lab.path(gone), lab.path("unmounted")).unwrap();
        fs::create_dir(lab.path(gone)).unwrap();
        let ran = lab.run(&["init"]).expect(1);
        assert!(ran.out.contains("probably not mounted"), "{ran:#?}");
        assert!(ran.out.contains(&format!("--anew {gone}")), "{ran:#?}");
        assert_eq!(fs::read_dir(lab.path(gone)).unwrap().count(), 0);
        fs::remove_dir(lab.path(gone)).unwrap();
        fs::rename(lab.path("unmounted"), lab.path(gone)).unwrap();
        lab.run(&["init"]).expect(0);
    }
    // Lost for good, and the operator says so.
    fs::remove_dir_all(lab.path("replica")).unwrap();
    lab.run(&["init"]).expect(1);
    lab.run(&["init", "--anew", "replica"]).expect(0);
    lab.run(&["init"]).expect(0);
    // A swapped disk is told.
    fs::remove_dir_all(lab.path("replica")).unwrap();
    lab.run(&["init", "--anew", "replica"]).expect(0);
    lab.run(&["replicate", "app"]).expect(0);
}

#[test]
fn status_tells_what_could_not_come_back() {
    let lab = Lab::new();
    lab.run(&["init"]).expect(0);
    let ran = lab.run(&["status"]).expect(3);
    assert!(ran.out.contains("nothing to restore from"), "{ran:#?}");
    lab.protect();
    lab.run(&["status"]).expect(0);
}

#[test]
fn a_dry_run_refuses_what_the_run_would_refuse() {
    let lab = Lab::protected("");
    assert!(
        lab.run(&["adopt", "app", "-n"])
            .expect(0)
            .out
            .contains("would mark")
    );
    assert!(
        lab.run(&["snapshot", "app", "-n"])
            .expect(0)
            .out
            .contains("would take")
    );
    lab.lose_data();
    for command in ["adopt", "snapshot"] {
        let dry = lab.run(&[command, "app", "-n"]);
        let real = lab.run(&[command, "app"]);
        assert_ne!(dry.code, Some(0), "{command}: {dry:#?}");
        assert_ne!(real.code, Some(0), "{command}: {real:#?}");
    }
}

#[test]
fn a_restore_beside_is_in_the_history() {
    let lab = Lab::protected("");
    lab.run(&["restore", "app", "--to", "beside"]).expect(0);
    let history = lab
        .run(&["history", "app", "--kind", "restore", "--json"])
        .expect(0)
        .json();
    assert_eq!(history["runs"][0]["outcome"], "ok", "{history:#}");
}

/// A repository shared by two hosts whose services have one name.
#[test]
fn what_another_host_backed_up_comes_back_only_on_request() {
    let lab = Lab::protected("");
    let config = fs::read_to_string(lab.path("reseed.toml")).unwrap();
    fs::write(
        lab.path("reseed.toml"),
        config.replace("host = \"lab\"", "host = \"other\""),
    )
    .unwrap();
    let without = lab.run(&["restore", "app", "--from", "offsite", "--to", "beside"]);
    assert_ne!(without.code, Some(0), "{without:#?}");
    let with = [
        "restore",
        "app",
        "--from",
        "offsite",
        "--from-host",
        "lab",
        "--to",
        "beside",
    ];
    lab.run(&with).expect(0);
    assert_eq!(fs::read_to_string(lab.path("beside/file")).unwrap(), "content");
}

/// What a killed `verify` left in the scratch directory is gone after the next one.
#[test]
fn verify_clears_up_after_one_that_was_killed() {
    let lab = Lab::protected("");
    let scratch = lab.path("state/scratch");
    fs::create_dir_all(scratch.join("reseed-scratch-app-local-dead/tree")).unwrap();
    fs::write(scratch.join("reseed-scratch-app-local-dead.lock"), "").unwrap();
    lab.run(&["verify", "app"]).expect(0);
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0);
}

/// Locks can't be made in a state directory that is full or read-only. Lost data comes back all the same.
#[test]
fn a_state_directory_that_cannot_be_written_stops_no_restore() {
    let lab = Lab::protected("");
    fs::remove_dir_all(lab.path("state/locks")).unwrap();
    fs::write(lab.path("state/locks"), "not a directory").unwrap();
    lab.lose_data();
    let ran = lab.run(&["preseed", "app"]).expect(0);
    assert!(ran.all().contains("another one stands in for it"), "{ran:#?}");
    lab.assert_whole();
}

#[test]
fn a_damaged_snapshot_is_not_backed_up_and_an_unsent_one_is_told() {
    let lab = Lab::with("");
    lab.run(&["init"]).expect(0);
    lab.run(&["snapshot", "app"]).expect(0);
    let snapshots = lab.path("snapshots/datasets");
    let found = walk(&snapshots)
        .into_iter()
        .find(|p| p.ends_with("tree/file"))
        .unwrap();
    fs::write(&found, "CONTENT").unwrap();
    let ran = lab.run(&["backup", "app"]).expect(1);
    assert!(ran.out.contains("is damaged"), "{ran:#?}");

    lab.run(&["snapshot", "app"]).expect(0);
    lab.run(&["backup", "app"]).expect(0);
    // The good one is sent; that the other isn't makes it no success.
    let ran = lab.run(&["replicate", "app", "--json"]).expect(3);
    assert_eq!(ran.json()["reports"][0]["outcome"], "partial");
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(walk(&path));
        }
        all.push(path);
    }
    all
}

/// A file that rots in the newest snapshot, while the live one is sound: what the next snapshot would link to is not believed.
#[test]
fn what_rots_in_a_snapshot_does_not_reach_the_next_one() {
    use std::os::unix::fs::MetadataExt as _;
    let lab = Lab::with("");
    lab.run(&["init"]).expect(0);
    let inodes = || -> std::collections::BTreeSet<u64> {
        let all = walk(&lab.path("snapshots/datasets")).into_iter();
        all.filter(|p| p.ends_with("tree/sub/other"))
            .map(|p| fs::metadata(p).unwrap().ino())
            .collect()
    };
    lab.run(&["snapshot", "app"]).expect(0);
    lab.run(&["snapshot", "app"]).expect(0);
    assert_eq!(inodes().len(), 1, "what is unchanged is linked");
    for file in walk(&lab.path("snapshots/datasets")) {
        if file.ends_with("tree/file") {
            let time = fs::metadata(&file).unwrap().modified().unwrap();
            fs::write(&file, "CONTENT").unwrap();
            let file = fs::File::options().write(true).open(&file).unwrap();
            file.set_modified(time).unwrap();
        }
    }
    let ran = lab.run(&["snapshot", "app"]).expect(0);
    assert!(
        ran.all().contains("is damaged; nothing of it is used"),
        "{ran:#?}"
    );
    assert_eq!(inodes().len(), 2, "and nothing was linked from it");
    lab.run(&["backup", "app"]).expect(0);
    lab.lose_data();
    lab.preseed(0);
    lab.assert_whole();
}

#[test]
fn a_name_that_is_none_is_not_made_anew() {
    let lab = Lab::with("");
    let ran = lab.run(&["init", "--anew", "replika"]).expect(2);
    assert!(ran.out.contains("there are: "), "{ran:#?}");
}

/// How new a snapshot with a damaged record is, nobody knows: "up to date" would be a guess.
#[test]
fn a_snapshot_with_a_damaged_record_is_neither_passed_over_nor_pruned() {
    let lab = Lab::protected("");
    lab.run(&["snapshot", "app"]).expect(0);
    let mut records: Vec<_> = walk(&lab.path("snapshots/datasets"))
        .into_iter()
        .filter(|p| p.ends_with("meta.json"))
        .collect();
    records.sort();
    fs::write(records.last().unwrap(), "").unwrap();
    let ran = lab.run(&["backup", "app"]).expect(3);
    assert!(ran.out.contains("may be newer"), "{ran:#?}");
    let ran = lab.run(&["prune", "app", "-n"]).expect(0);
    assert!(!ran.out.contains("1970"), "{ran:#?}");
    lab.run(&["prune", "app"]).expect(0);
    assert!(records.last().unwrap().exists());
}

/// A timer that alerts on it must hear of it; and somebody who wants another state must find what there is.
#[test]
fn status_is_no_success_where_something_is_missing_and_lists_what_there_is() {
    let lab = Lab::protected("");
    let named = lab.run(&["status", "app"]).expect(0);
    let all = lab.run(&["--json", "status"]).expect(0).json();
    let sources = all["services"][0]["sources"].as_array().unwrap();
    assert!(
        sources.iter().all(|source| source.get("all").is_none()),
        "{all:#}"
    );
    let json = lab.run(&["--json", "status", "app"]).expect(0).json();
    for source in json["services"][0]["sources"].as_array().unwrap() {
        for state in source["all"].as_array().unwrap() {
            let taken = state["taken_at"].as_str().unwrap();
            assert!(named.out.contains(taken), "{taken}: {named:#?}");
            let point = state["point"].as_str().unwrap();
            let dry = lab
                .run(&["restore", "app", "--to", "beside", "--at", point, "-n"])
                .expect(0);
            assert!(dry.out.contains(taken), "{dry:#?}");
        }
    }
    // A repository that holds nothing of it, beside others that do.
    fs::rename(lab.path("offsite"), lab.path("offsite.full")).unwrap();
    lab.run(&["init", "--anew", "offsite"]).expect(0);
    let ran = lab.run(&["status"]).expect(3);
    assert!(ran.out.contains("offsite holds no state of it"), "{ran:#?}");
    fs::remove_dir_all(lab.path("offsite")).unwrap();
    fs::rename(lab.path("offsite.full"), lab.path("offsite")).unwrap();
    lab.run(&["status"]).expect(0);
    lab.lose_data();
    let ran = lab.run(&["status"]).expect(3);
    assert!(ran.out.contains("missing"), "{ran:#?}");
}
