//! Going back to a named snapshot: what it says first, what it needs to be told, and that nothing is lost.

use std::fs;

use crate::lab::Lab;

/// Takes a snapshot; its name.
fn take(lab: &Lab, kind: &str) -> String {
    let ran = lab.run(&["--json", "snapshot", "app", "--kind", kind]).expect(0);
    let done = ran.json()["reports"][0]["done"][0].as_str().unwrap().to_owned();
    done.rsplit('@').next().unwrap().to_owned()
}

/// A lab with two snapshots, and something written after each; their names.
fn two() -> (Lab, String, String) {
    let lab = Lab::new();
    lab.run(&["init"]).expect(0);
    let first = take(&lab, "hourly");
    fs::write(lab.live().join("file"), "second").unwrap();
    let second = take(&lab, "daily");
    lab.run(&["replicate", "app"]).expect(0);
    fs::write(lab.live().join("file"), "third").unwrap();
    (lab, first, second)
}

#[test]
fn it_says_first_what_would_be_discarded_and_keeps_it() {
    let (lab, first, second) = two();
    let before = fs::read_to_string(lab.live().join("file")).unwrap();
    let dry = lab.run(&["rollback", "app", &first, "-n"]).expect(0);
    for words in [
        &*first,
        "1 newer snapshots",
        &*second,
        "a directory doesn't count it",
        ".reseed-aside.app.",
        "app must be stopped",
    ] {
        assert!(dry.out.contains(words), "{words}: {dry:#?}");
    }
    // Nobody is there to be asked: it says all that, and does nothing.
    let asked = lab.run(&["rollback", "app", &first]).expect(2);
    assert!(asked.err.contains("1 newer snapshots"), "{asked:#?}");
    assert!(
        asked.out.contains("nothing was changed") && asked.out.contains("--yes"),
        "{asked:#?}"
    );
    let asked = lab.run(&["--json", "rollback", "app", &first]).expect(2).json();
    assert_eq!(
        asked["preview"]["datasets"][0]["newer"][0]["name"],
        second.as_str(),
        "{asked:#}"
    );
    assert_eq!(asked["error"]["kind"], "invalid-input", "{asked:#}");
    assert_eq!(fs::read_to_string(lab.live().join("file")).unwrap(), before);

    let done = lab.run(&["--json", "rollback", "app", &first, "--yes"]).expect(0);
    assert!(
        done.err.contains("1 newer snapshots"),
        "the preview comes first: {done:#?}"
    );
    let done = done.json();
    let step = &done["preview"]["datasets"][0];
    assert!(step["written"].is_null(), "{done:#}");
    assert_eq!(step["newer"].as_array().unwrap().len(), 1, "{done:#}");
    let report = &done["reports"][0];
    assert_eq!(report["outcome"]["result"], "restored", "{done:#}");
    assert_eq!(report["source"], "local", "{done:#}");
    let aside = report["datasets"][0]["set_aside"].as_str().unwrap();
    assert!(aside.contains(".reseed-aside.app."), "{aside}");
    lab.assert_whole();
    assert_eq!(
        fs::read_to_string(std::path::Path::new(aside).join("file")).unwrap(),
        "third"
    );
    // The newer snapshot is still there, and it can be gone to as well.
    lab.run(&["rollback", "app", &second, "-y"]).expect(0);
    assert_eq!(fs::read_to_string(lab.live().join("file")).unwrap(), "second");
}

#[test]
fn it_wants_a_snapshot_of_the_store_by_its_whole_name() {
    let (lab, first, second) = two();
    let refused = lab.run(&["rollback", "app", &first[..first.len() - 1], "-n"]);
    assert!(matches!(refused.code, Some(1 | 2)), "{refused:#?}");
    for moment in ["2026-11-22", "-2h", "nope"] {
        let ran = lab.run(&["rollback", "app", "-n", "--", moment]).expect(1);
        assert!(ran.out.contains("no recovery point"), "{ran:#?}");
    }
    // What only the replica and the repository have is not the store's.
    fs::remove_dir_all(lab.path("snapshots")).unwrap();
    lab.run(&["init", "--anew", "local"]).expect(0);
    lab.run(&["restore", "app", "--at", &second, "--to", "there", "-n"])
        .expect(0);
    let ran = lab.run(&["rollback", "app", &second, "--yes"]).expect(1);
    assert!(ran.out.contains("no recovery point"), "{ran:#?}");
    assert_eq!(fs::read_to_string(lab.live().join("file")).unwrap(), "third");
    lab.run(&["rollback", "nothing", &first]).expect(2);
}

#[test]
fn the_guid_of_a_snapshot_names_it_too() {
    let (lab, first, _) = two();
    let by_name = lab
        .run(&["--json", "rollback", "app", &first, "-n"])
        .expect(0)
        .json();
    let guid = &by_name["preview"]["datasets"][0]["snapshot"]["guid"];
    let guid = guid.as_str().map_or_else(|| guid.to_string(), str::to_owned);
    let by_guid = lab
        .run(&["--json", "rollback", "app", &guid, "-n"])
        .expect(0)
        .json();
    assert_eq!(
        by_name["preview"]["datasets"][0]["snapshot"],
        by_guid["preview"]["datasets"][0]["snapshot"]
    );
}

#[test]
fn a_unit_that_runs_is_named_and_nothing_is_done() {
    use std::os::unix::fs::PermissionsExt as _;
    let lab = Lab::with("unit = \"app.service\"");
    lab.run(&["init"]).expect(0);
    let first = take(&lab, "hourly");
    fs::write(lab.live().join("file"), "second").unwrap();
    let bin = lab.path("bin");
    fs::create_dir(&bin).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let config = lab.path("reseed.toml");
    let run = |state: &str, code: u8, args: &[&str]| {
        let script = format!(
            "#!/bin/sh\n[ \"$*\" = 'is-active -- app.service' ] || exit 1\necho {state}\nexit {code}\n"
        );
        fs::write(bin.join("systemctl"), script).unwrap();
        fs::set_permissions(bin.join("systemctl"), fs::Permissions::from_mode(0o755)).unwrap();
        let mut all = vec!["--config", config.to_str().unwrap(), "rollback", "app", &first];
        all.extend(args);
        crate::lab::run_with_path(&lab.root, &all, &path)
    };
    for args in [&["-n"][..], &["--yes"]] {
        let ran = run("active", 0, args).expect(4);
        assert!(ran.all().contains("app.service is active"), "{ran:#?}");
    }
    assert_eq!(fs::read_to_string(lab.live().join("file")).unwrap(), "second");
    let unknown = run("unknown", 4, &["-n"]).expect(0);
    assert!(unknown.out.contains("can't be told"), "{unknown:#?}");
    // It is started while somebody is asked, or another run waited for.
    let script = "#!/bin/sh\n[ -e asked ] && echo active && exit 0\ntouch asked\necho inactive\nexit 3\n";
    fs::write(bin.join("systemctl"), script).unwrap();
    let started = [
        "--config",
        config.to_str().unwrap(),
        "rollback",
        "app",
        &first,
        "--yes",
    ];
    let ran = crate::lab::run_with_path(&lab.root, &started, &path).expect(4);
    assert!(
        ran.err.contains("app.service is inactive") && ran.out.contains("app.service runs"),
        "{ran:#?}"
    );
    // So it is where a restore takes its data away from under it.
    let restore = [
        "--config",
        config.to_str().unwrap(),
        "restore",
        "app",
        "--set-aside",
    ];
    let ran = crate::lab::run_with_path(&lab.root, &restore, &path).expect(4);
    assert!(ran.out.contains("app.service runs"), "{ran:#?}");
    assert_eq!(fs::read_to_string(lab.live().join("file")).unwrap(), "second");
    let ran = run("inactive", 3, &["--yes"]).expect(0);
    assert!(ran.err.contains("app.service is inactive"), "{ran:#?}");
    lab.assert_whole();
}
