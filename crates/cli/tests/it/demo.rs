//! The demo heals all five failures; and how it gets into a virtual machine, up to the harness that boots one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::lab::{Ran, run_in, run_with_path};

#[test]
fn five_failures_heal() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run_in(dir.path(), &["--json", "demo", "--dir", "lab"]).expect(0);
    let json = ran.json();
    let scenarios = json["scenarios"].as_array().unwrap();
    let names: Vec<&str> = scenarios.iter().filter_map(|s| s["name"].as_str()).collect();
    assert_eq!(
        names,
        [
            "dataset-gone",
            "replica-gone",
            "replica-corrupt",
            "all-unreachable",
            "crash-mid-restore"
        ]
    );
    for scenario in scenarios {
        let empty = scenario["name"] == "all-unreachable";
        assert_eq!(
            scenario["digest_matches"],
            if empty {
                serde_json::Value::Null
            } else {
                true.into()
            },
            "{scenario}"
        );
        assert_eq!(
            scenario["outcome"],
            if empty { "started-empty" } else { "restored" },
            "{scenario}"
        );
        assert_eq!(scenario["source"].is_null(), empty, "{scenario}");
        assert!(
            scenario["seconds"].is_f64() && scenario["bytes"].is_u64(),
            "{scenario}"
        );
    }
    let lab = json["lab"].as_str().unwrap();
    let config = format!("{lab}/reseed.toml");
    run_in(dir.path(), &["--config", &config, "status"]).expect(0);
    // A lab is new, or it is nobody's business.
    run_in(dir.path(), &["demo", "--dir", "lab"]).expect(1);
}

/// Runs `demo --vm` in a checkout whose `cargo` does this.
fn in_a_machine(dir: &Path, args: &[&str], cargo: &str) -> Ran {
    let (bin, inner) = (dir.join("bin"), dir.join("crates/cli"));
    for dir in [&bin, &inner, &dir.join("xtask/src")] {
        fs::create_dir_all(dir).unwrap();
    }
    fs::write(dir.join("xtask/src/vm.rs"), "").unwrap();
    fs::write(bin.join("cargo"), format!("#!/bin/sh\n{cargo}\n")).unwrap();
    fs::set_permissions(bin.join("cargo"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    run_with_path(&inner, args, path)
}

#[test]
fn the_workspaces_harness_runs_the_demo_in_its_machine() {
    let dir = tempfile::tempdir().unwrap();
    let said = "echo \"$PWD: $*\" > called; echo '{\"scenarios\": [\"all\"]}'";
    let ran = in_a_machine(dir.path(), &["--json", "demo", "--vm"], said).expect(0);
    assert_eq!(ran.json()["scenarios"][0], "all");
    let called = fs::read_to_string(dir.path().join("called")).unwrap();
    let root = dir.path().canonicalize().unwrap();
    let (at, words) = called.trim().split_once(": ").unwrap();
    assert_eq!(Path::new(at), root);
    let program = env!("CARGO_BIN_EXE_reseed");
    assert_eq!(
        words,
        format!("xtask vm --limit 1200 -- {program} demo --zfs --json")
    );
    // What goes wrong there is told in its own words.
    let failing = "echo 'not every failure ended as it should'; echo 'no machine' >&2; exit 1";
    let ran = in_a_machine(dir.path(), &["demo", "--vm"], failing).expect(1);
    let told = ran.all();
    assert!(
        told.contains("not every failure ended as it should") && told.contains("no machine"),
        "{told}"
    );
    // Anywhere else there is nothing to boot one with.
    let elsewhere = tempfile::tempdir().unwrap();
    let ran = run_in(elsewhere.path(), &["demo", "--vm"]).expect(2);
    assert!(ran.all().contains("no checkout of reseed"), "{ran:?}");
}
