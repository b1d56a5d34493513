//! Protect, break, heal.

use std::fs;

use crate::lab::Lab;

#[test]
fn each_source_of_the_chain_puts_the_data_back() {
    let lab = Lab::protected("");
    for source in ["local", "replica", "offsite"] {
        lab.lose_data();
        assert_eq!(lab.preseed(0), ("restored".to_owned(), Some(source.to_owned())));
        lab.assert_whole();
        // The store stays where it is, since live data needs it; its snapshots are what is lost.
        match source {
            "local" => fs::rename(lab.path("snapshots/datasets"), lab.path("lost")).unwrap(),
            _ => fs::rename(lab.path(source), lab.path(&format!("{source}.gone"))).unwrap(),
        }
    }
}

#[test]
fn data_that_is_there_is_left_alone() {
    let lab = Lab::protected("");
    fs::write(lab.live().join("file"), "newer").unwrap();
    assert_eq!(lab.preseed(0).0, "data-present");
    let ran = lab.run(&["preseed", "--all"]).expect(0);
    assert!(ran.all().contains("data present, skipped restore"), "{ran:?}");
    assert_eq!(fs::read_to_string(lab.live().join("file")).unwrap(), "newer");
}

#[test]
fn the_first_start_is_told_from_a_loss() {
    let lab = Lab::new();
    lab.run(&["init"]).expect(0);
    lab.lose_data();
    assert_eq!(lab.preseed(0), ("first-start".to_owned(), None));

    let lab = Lab::protected("chain = [\"replica\", \"offsite\"]");
    lab.lose_data();
    fs::rename(lab.path("replica"), lab.path("r")).unwrap();
    fs::rename(lab.path("offsite"), lab.path("o")).unwrap();
    assert_eq!(lab.preseed(0).0, "started-empty");
    // Unseeded: nothing ages out until the data is back or adopted.
    let ran = lab.run(&["prune", "app"]).expect(4);
    assert!(ran.out.contains("unseeded"), "{ran:?}");
    let ran = lab.run(&["snapshot", "app"]).expect(4);
    assert!(ran.out.contains("holds nothing"), "{ran:?}");
    // The sources come back, and so does the data, by the same command.
    fs::rename(lab.path("replica"), lab.path("empty-replica")).unwrap_or(());
    fs::rename(lab.path("r"), lab.path("replica")).unwrap();
    fs::rename(lab.path("o"), lab.path("offsite")).unwrap();
    assert_eq!(lab.preseed(0).0, "restored");
    lab.assert_whole();
    lab.run(&["prune", "app"]).expect(0);
}

#[test]
fn hold_keeps_the_service_from_starting() {
    let lab = Lab::protected("when_exhausted = \"hold\"\nchain = [\"offsite\"]");
    lab.lose_data();
    fs::rename(lab.path("offsite"), lab.path("o")).unwrap();
    assert_eq!(lab.preseed(4).0, "held");
    assert!(!lab.live().exists());
}

#[test]
fn a_corrupt_source_is_told_and_the_chain_goes_on() {
    let lab = Lab::protected("chain = [\"replica\", \"offsite\"]");
    lab.lose_data();
    let mut flipped = 0;
    flip(&lab.path("replica"), "other", &mut flipped);
    assert!(flipped > 0);
    let ran = lab.run(&["--json", "preseed", "app"]).expect(0);
    let report = &ran.json()["reports"][0];
    assert_eq!(report["source"], "offsite", "{report:#}");
    assert_eq!(report["datasets"][0]["digest_matches"], true, "{report:#}");
    let first = &report["attempts"][0];
    assert_eq!(
        (first["source"].as_str(), first["error"].is_null()),
        (Some("replica"), false),
        "{report:#}"
    );
    lab.assert_whole();
}

fn flip(dir: &std::path::Path, name: &str, flipped: &mut u32) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            flip(&entry.path(), name, flipped);
        } else if entry.file_name() == name {
            let mut bytes = fs::read(entry.path()).unwrap();
            bytes[1000] ^= 1;
            fs::write(entry.path(), bytes).unwrap();
            *flipped += 1;
        }
    }
}

#[test]
fn a_crash_halfway_and_the_same_command_again() {
    let lab = Lab::protected("");
    for n in 0..20 {
        fs::write(lab.live().join(format!("big-{n}")), vec![n; 2 << 20]).unwrap();
    }
    lab.protect();
    for source in ["local", "offsite"] {
        lab.lose_data();
        let ran = lab.run(&["preseed", "app", "--crash-after", "4000000"]);
        assert_eq!(ran.code, None, "killed by a signal: {ran:?}");
        assert!(!lab.live().exists(), "nothing half done is live");
        assert_eq!(lab.preseed(0), ("restored".to_owned(), Some(source.to_owned())));
        lab.assert_whole();
        for n in 0..20 {
            assert_eq!(
                fs::read(lab.live().join(format!("big-{n}"))).unwrap(),
                vec![n; 2 << 20]
            );
        }
        let history = lab
            .run(&["--json", "history", "app", "--kind", "preseed"])
            .expect(0)
            .json();
        let outcomes: Vec<&str> = history["runs"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|r| r["outcome"].as_str())
            .collect();
        assert_eq!(outcomes[..2], ["restored", "interrupted"], "{history:#}");
        if source == "local" {
            fs::rename(lab.path("snapshots/datasets"), lab.path("lost")).unwrap();
            fs::rename(lab.path("replica"), lab.path("replica.gone")).unwrap();
        }
    }
}

#[test]
fn several_datasets_come_back_from_one_moment() {
    let lab = Lab::new();
    let config = fs::read_to_string(lab.path("reseed.toml")).unwrap();
    let (head, _) = config.split_once("[services.app]").unwrap();
    let at = lab.root.display();
    let two = format!(
        "{head}[services.app]\ndatasets = {{ data = \"{at}/data/app\", wal = \"{at}/data/wal\" }}\ntries = 1\n"
    );
    fs::write(lab.path("reseed.toml"), two).unwrap();
    fs::create_dir(lab.path("data/wal")).unwrap();
    fs::write(lab.path("data/wal/1"), "one").unwrap();
    lab.run(&["init"]).expect(0);
    lab.protect();
    lab.lose_data();
    // One is missing, the other holds data: a part of a service is never put back beside a newer one.
    let (outcome, _) = lab.preseed(4);
    assert_eq!(outcome, "blocked");
    fs::remove_dir_all(lab.path("data/wal")).unwrap();
    assert_eq!(lab.preseed(0).0, "restored");
    lab.assert_whole();
    assert_eq!(fs::read_to_string(lab.path("data/wal/1")).unwrap(), "one");
}

#[test]
fn restore_on_request() {
    let lab = Lab::protected("");
    let first = lab.run(&["--json", "status", "app"]).expect(0).json();
    let point = first["services"][0]["sources"][0]["point"]
        .as_str()
        .unwrap()
        .to_owned();
    fs::write(lab.live().join("file"), "second").unwrap();
    // Names are made of seconds.
    let ran = lab.run(&["snapshot", "app", "--kind", "hourly"]).expect(0);
    assert!(ran.out.contains("autosnap_"), "{ran:?}");

    // Never over what is there.
    let ran = lab.run(&["restore", "app"]).expect(4);
    assert!(
        ran.out.contains("never overwritten") && ran.out.contains("--to"),
        "{ran:?}"
    );
    for near in ["data/app", "data/app/sub/x", "data", "replica/x", "offsite", "."] {
        lab.run(&["restore", "app", "--to", near]).expect(2);
    }
    fs::create_dir(lab.path("taken")).unwrap();
    fs::write(lab.path("taken/x"), "x").unwrap();
    lab.run(&["restore", "app", "--to", "taken"]).expect(1);

    // Elsewhere, of an earlier moment, in part.
    lab.run(&["restore", "app", "--at", &point, "--to", "out"])
        .expect(0);
    assert_eq!(fs::read_to_string(lab.path("out/file")).unwrap(), "content");
    for from in ["local", "replica", "offsite"] {
        let to = format!("part-{from}");
        lab.run(&[
            "restore",
            "app",
            "--from",
            from,
            "--path",
            "sub/other",
            "--to",
            &to,
        ])
        .expect(0);
        assert_eq!(fs::read(lab.path(&to).join("sub/other")).unwrap().len(), 100_000);
        assert!(!lab.path(&to).join("file").exists());
        lab.run(&[
            "restore",
            "app",
            "--from",
            from,
            "--path",
            "nope",
            "--to",
            &format!("{to}-2"),
        ])
        .expect(1);
    }
    lab.run(&["restore", "app", "--at", "2001-01-01", "--to", "never"])
        .expect(1);
    lab.run(&["restore", "app", "--from", "nowhere", "--to", "never"])
        .expect(2);
    assert!(!lab.path("never").exists());

    // In place, with what was there kept.
    let ran = lab
        .run(&["--json", "restore", "app", "--at", &point, "--set-aside"])
        .expect(0);
    let aside = ran.json()["reports"][0]["datasets"][0]["set_aside"]
        .as_str()
        .unwrap()
        .to_owned();
    lab.assert_whole();
    assert_eq!(
        fs::read_to_string(std::path::Path::new(&aside).join("file")).unwrap(),
        "second"
    );
}

#[test]
fn verify_proves_and_finds() {
    let lab = Lab::protected("");
    let ran = lab.run(&["verify", "app"]).expect(0);
    for source in ["local", "replica", "offsite"] {
        assert!(ran.out.contains(&format!("({source}) ok")), "{ran:?}");
    }
    assert_eq!(
        fs::read_dir(lab.path("state/scratch")).unwrap().count(),
        0,
        "nothing is left behind"
    );
    lab.run(&["verify", "offsite", "--depth", "everything"]).expect(0);
    let mut flipped = 0;
    flip(&lab.path("replica"), "other", &mut flipped);
    let ran = lab.run(&["verify", "app", "--from", "replica"]).expect(1);
    assert!(ran.out.contains("not the recorded state"), "{ran:?}");
}

#[test]
fn a_second_protection_adds_little_and_says_so() {
    let lab = Lab::protected("");
    let ran = lab.run(&["replicate", "app"]).expect(0);
    assert!(ran.out.contains("up-to-date"), "{ran:?}");
    let ran = lab.run(&["backup", "app"]).expect(0);
    assert!(ran.out.contains("up-to-date"), "{ran:?}");
    lab.run(&["snapshot", "app", "--kind", "daily"]).expect(0);
    let report = lab.run(&["--json", "backup", "app"]).expect(0).json();
    assert!(
        report["reports"][0]["bytes"].as_u64().unwrap() < 5_000,
        "{report:#}"
    );
}

#[test]
fn dry_runs_change_nothing() {
    let lab = Lab::protected("");
    fs::write(lab.live().join("file"), "new").unwrap();
    let before = tree(&lab.root);
    for args in [
        &["init", "-n"][..],
        &["snapshot", "app", "-n"],
        &["snapshot", "app", "--due", "-n"],
        &["replicate", "app", "-n"],
        &["backup", "app", "-n"],
        &["preseed", "app", "-n"],
        &["restore", "app", "--to", "out", "-n"],
        &["verify", "app", "-n"],
        &["prune", "app", "-n"],
        &["adopt", "app", "-n"],
    ] {
        lab.run(args).expect(0);
        let mut json = vec!["--json"];
        json.extend(args);
        lab.run(&json).expect(0).json();
        assert_eq!(tree(&lab.root), before, "{args:?}");
    }
}

fn tree(root: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            if meta.is_dir() {
                todo.push(entry.path());
            }
            // The journal's shared memory and the restic lock of a listing come and go.
            let name = entry.path().display().to_string();
            if !name.contains("journal.sqlite") && !name.contains("/offsite/locks") {
                found.push(format!(
                    "{name} {} {}",
                    meta.is_dir(),
                    if meta.is_dir() { 0 } else { meta.len() }
                ));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn one_host_never_gets_another_ones_data() {
    let lab = Lab::protected("chain = [\"offsite\"]");
    // Another machine with a service of the same name, on the same repository.
    let config = fs::read_to_string(lab.path("reseed.toml")).unwrap();
    fs::write(
        lab.path("reseed.toml"),
        config.replace("host = \"lab\"", "host = \"other\""),
    )
    .unwrap();
    lab.lose_data();
    // Nor is it told that there never was any: it may be the same machine under a new name.
    let ran = lab.run(&["preseed", "app"]).expect(0);
    assert!(
        ran.out.contains("unseeded") && ran.out.contains("only of lab"),
        "{ran:?}"
    );
    fs::remove_dir(lab.live()).unwrap();
    fs::write(lab.path("reseed.toml"), config).unwrap();
    assert_eq!(lab.preseed(0).0, "restored");
    lab.assert_whole();
}

/// A second service in the same repository, whose data are others.
fn with_another(lab: &Lab) {
    let at = lab.root.display();
    let mut config = fs::read_to_string(lab.path("reseed.toml")).unwrap();
    config.push_str(&format!("[services.other]\npath = \"{at}/data/other\"\n"));
    fs::write(lab.path("reseed.toml"), config).unwrap();
    fs::create_dir_all(lab.path("data/other")).unwrap();
    fs::write(lab.path("data/other/mine"), vec![9; 50_000]).unwrap();
}

#[test]
fn damage_off_site_is_found_in_turn_and_told_with_the_services_it_costs() {
    let lab = Lab::with("chain = [\"offsite\", \"replica\"]");
    // Larger than its directories, also when it is compressed.
    let noise: Vec<u8> = (0..300_000_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1])
        .collect();
    fs::write(lab.live().join("noise"), noise).unwrap();
    lab.run(&["init"]).expect(0);
    lab.protect();
    let packs = || {
        let mut all = Vec::new();
        for dir in fs::read_dir(lab.path("offsite/data")).unwrap() {
            all.extend(
                fs::read_dir(dir.unwrap().path())
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
        all
    };
    let of_app = packs();
    with_another(&lab);
    for command in ["snapshot", "backup"] {
        lab.run(&[command, "other"]).expect(0);
    }
    // Once around reads everything, and each time says which part comes next.
    for n in 1..=2 {
        let dry = lab
            .run(&["verify", "offsite", "--parts", "2", "--dry-run"])
            .expect(0);
        assert!(dry.out.contains(&format!("part {n} of 2")), "{dry:?}");
        let ran = lab
            .run(&["verify", "offsite", "offsite", "--parts", "2"])
            .expect(0);
        assert!(ran.out.contains(&format!("offsite: sound ({n}/2")), "{ran:?}");
    }
    let data = of_app
        .iter()
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let mut bytes = fs::read(data).unwrap();
    bytes[100] ^= 1;
    let mut open = fs::metadata(data).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut open, 0o600);
    fs::set_permissions(data, open).unwrap();
    fs::write(data, bytes).unwrap();
    lab.run(&["verify", "offsite", "--depth", "structure"]).expect(0);
    let ran = lab.run(&["verify", "offsite", "--depth", "everything"]).expect(1);
    for said in [
        "offsite: damaged",
        "app: check (offsite) failed: a recovery point of app in offsite is damaged",
        "other: check (offsite) partial",
    ] {
        assert!(ran.out.contains(said), "{said:?}: {ran:?}");
    }
    let history = lab.run(&["history", "app"]).expect(0);
    assert!(history.out.contains("check"), "{history:?}");
    // What is lost there comes from the next source.
    lab.lose_data();
    assert_eq!(lab.preseed(0).1.as_deref(), Some("replica"));
    lab.assert_whole();
    let bad = lab.run(&["verify", "offsite", "--depth", "some"]).expect(2);
    assert!(bad.all().contains("rotating"), "{bad:?}");
    lab.run(&["verify", "offsite", "nowhere"]).expect(2);
}

/// A large one that broke off is gone on with by whoever says so; what is finished is somebody's, and never written over.
#[test]
fn a_restore_beside_that_broke_off_is_gone_on_with_and_no_other() {
    use std::os::unix::fs::MetadataExt as _;
    let lab = Lab::protected("");
    let out = lab.path("out");
    let to = out.to_str().unwrap();
    let note = lab.path(".out.reseed-unfinished");
    let restore = ["restore", "app", "--from", "offsite", "--to", to];
    lab.run(&restore).expect(0);
    assert!(!note.exists());
    let whole = tree(&out);
    let ran = lab.run(&restore).expect(1);
    assert!(ran.err.contains("is not empty"), "{ran:?}");
    // As one that was killed leaves it.
    let found = fs::metadata(&out).unwrap();
    let born = found
        .created()
        .unwrap()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let (device, inode) = (found.dev(), found.ino());
    let noted = |service: &str, nanoseconds: u32| {
        let born = format!("[{},{nanoseconds}]", born.as_secs());
        let text = format!(r#"{{"service":"{service}","device":{device},"inode":{inode},"born":{born}}}"#);
        fs::write(&note, text).unwrap();
    };
    let spoil = || {
        fs::write(out.join("file"), "half").unwrap();
        fs::write(out.join("stray"), "of nobody").unwrap();
    };
    spoil();
    let resume = [&restore[..], &["--resume"]].concat();
    // Without a word of it, of another service, or into another directory that has got its number.
    noted("app", born.subsec_nanos());
    let ran = lab.run(&restore).expect(1);
    assert!(ran.out.contains("`--resume` goes on with it"), "{ran:?}");
    for (service, nanoseconds) in [("other", born.subsec_nanos()), ("app", born.subsec_nanos() ^ 1)] {
        noted(service, nanoseconds);
        lab.run(&resume).expect(1);
        assert_eq!(fs::read(out.join("file")).unwrap(), b"half");
    }
    noted("app", born.subsec_nanos());
    lab.run(&resume).expect(0);
    assert_eq!(tree(&out), whole);
    assert!(!note.exists());
    // From every source that can.
    spoil();
    noted("app", born.subsec_nanos());
    lab.run(&["restore", "app", "--to", to, "--resume"]).expect(0);
    assert_eq!(tree(&out), whole);
}
