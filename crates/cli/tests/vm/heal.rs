//! Each source of the chain puts a lost dataset back; what none can is started empty and guarded.

use std::fs;

use crate::zfs_lab::{ZfsLab, sure};

fn from(source: &str) -> (String, Option<String>) {
    ("restored".to_owned(), Some(source.to_owned()))
}

#[test]
fn vm_a_dataset_comes_back_from_its_own_snapshot_and_from_the_replica() {
    let lab = ZfsLab::new().protected();
    // Emptied: its own snapshot has it.
    fs::remove_dir_all(lab.live().join("sub")).unwrap();
    fs::remove_file(lab.live().join("file")).unwrap();
    assert_eq!(lab.preseed(0), from("tank"));
    lab.assert_whole();
    // Destroyed with its snapshots: the second pool has it.
    let origin = sure(&["zfs", "list", "-Hpo", "origin", &lab.dataset()]);
    assert_eq!(origin, "-", "what was restored depends on nothing");
    lab.lose_dataset();
    assert_eq!(lab.preseed(0), from("back"));
    lab.assert_whole();
    assert_eq!(lab.preseed(0).0, "data-present");
    // The history came along, so the next one is an increment.
    fs::write(lab.live().join("new"), "new").unwrap();
    lab.run(&["snapshot", "app"]).expect(0);
    let plan = lab.run(&["replicate", "app", "--dry-run"]).expect(0).out;
    assert!(plan.contains("since "), "{plan}");
    lab.run(&["replicate", "app"]).expect(0);
}

#[test]
fn vm_a_killed_restore_goes_on_from_the_same_source() {
    let lab = ZfsLab::new().started();
    // Enough for a stream to be cut in the middle of it.
    let (mut state, mut noise) = (7_u64, Vec::new());
    while noise.len() < 60_000_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        noise.extend_from_slice(&state.to_be_bytes());
    }
    fs::write(lab.live().join("big"), &noise).unwrap();
    for command in ["snapshot", "replicate"] {
        lab.run(&[command, "app"]).expect(0);
    }
    lab.lose_dataset();
    let killed = lab.run(&["preseed", "app", "--crash-after", "1"]);
    assert_eq!(killed.code, None, "{killed:?}");
    assert!(!lab.live().join("file").exists());
    assert_eq!(lab.preseed(0), from("back"));
    lab.assert_whole();
    assert!(fs::read(lab.live().join("big")).unwrap() == noise);
}

#[test]
fn vm_without_the_replica_it_comes_back_from_the_bucket_and_replication_begins_anew() {
    let lab = ZfsLab::with_bucket().protected();
    lab.run(&["backup", "app"]).expect(0);
    let before = sure(&["zfs", "get", "-Hpo", "value", "guid", &lab.replica()]);
    lab.detach(&lab.back);
    lab.lose_dataset();
    assert_eq!(lab.preseed(0), from("offsite"));
    lab.assert_whole();
    lab.attach(&lab.back);
    lab.run(&["snapshot", "app"]).expect(0);
    // Nothing in common any more: what is there is kept under another name, and a whole copy takes its place.
    let plan = lab.run(&["replicate", "app", "--dry-run"]).expect(0).out;
    assert!(plan.contains("in full") && plan.contains("set aside"), "{plan}");
    lab.run(&["replicate", "app"]).expect(0);
    let listed = sure(&["zfs", "list", "-Hpo", "guid,name", "-r", lab.back.name()]);
    let old = listed.lines().find(|line| line.starts_with(&before)).unwrap();
    assert!(old.contains("/.reseed-aside:app:"), "{listed}");
    let of = |dataset: &str| {
        let all = sure(&["zfs", "list", "-Hpt", "snapshot", "-o", "guid", dataset]);
        all.lines().last().unwrap().to_owned()
    };
    assert_eq!(of(&lab.replica()), of(&lab.dataset()));
    assert_eq!(
        lab.run(&["replicate", "app", "-n"]).expect(0).out,
        "app: back is up to date\n"
    );
    // And it is a replica to come back from.
    lab.lose_dataset();
    assert_eq!(lab.preseed(0), from("back"));
    lab.assert_whole();
}

#[test]
fn vm_with_everything_unreachable_it_starts_empty_and_guarded_until_the_copies_are_back() {
    let lab = ZfsLab::new().protected();
    lab.lose_dataset();
    lab.detach(&lab.back);
    assert_eq!(lab.preseed(0).0, "started-empty");
    assert_eq!(lab.mounted(), lab.dataset());
    let marker = sure(&["zfs", "get", "-Ho", "value", "reseed:marker", &lab.dataset()]);
    assert!(marker.contains("unseeded"), "{marker}");
    let ran = lab.run(&["prune", "app"]).expect(4);
    assert!(ran.out.contains("unseeded"), "{ran:?}");
    let ran = lab.run(&["status"]);
    assert!(ran.out.contains("unseeded"), "{ran:?}");
    assert_ne!(ran.code, Some(0));
    // A pool that is away is not one to be made.
    let ran = lab.run(&["init"]).expect(1);
    assert!(
        ran.out.contains("is not imported") && ran.out.contains("zpool import"),
        "{ran:?}"
    );
    lab.attach(&lab.back);
    assert_eq!(lab.preseed(0), from("back"));
    lab.assert_whole();
    lab.run(&["prune", "app"]).expect(0);
}

#[test]
fn vm_present_datasets_are_told_by_one_process() {
    let lab = ZfsLab::new();
    let at = lab.root.display();
    let more: String = (0..4)
        .map(|n| format!("[services.s{n}]\npath = \"{at}/data/s{n}\"\n"))
        .collect();
    lab.configure(&more);
    lab.run(&["init"]).expect(0);
    lab.run(&["preseed", "--all"]).expect(0);
    for service in std::iter::once("app".to_owned()).chain((0..4).map(|n| format!("s{n}"))) {
        fs::write(lab.root.join("data").join(service).join("file"), "x").unwrap();
    }
    let (ran, started) = lab.run_counted(&["--json", "preseed", "--all"]);
    let ran = ran.expect(0);
    let reports = ran.json()["reports"].as_array().unwrap().clone();
    assert_eq!(reports.len(), 5);
    for report in &reports {
        assert_eq!(report["outcome"]["result"], "data-present", "{report:#}");
    }
    assert_eq!(started.len(), 1, "{started:#?}");
}

/// sanoid's snapshots have no digest; what was written since is for ZFS to say.
#[test]
fn vm_an_unchanged_service_is_backed_up_without_a_look_at_it() {
    let lab = ZfsLab::with_bucket().started();
    let backed_up = |name: &str| {
        sure(&["zfs", "snapshot", &format!("{}@{name}", lab.dataset())]);
        let ran = lab.run(&["--json", "backup", "app"]).expect(0);
        ran.json()["reports"][0]["done"][0].as_str().unwrap().to_owned()
    };
    let first = backed_up("autosnap_2026-11-29_10:00:00_hourly");
    assert!(first.contains("2 files"), "{first}");
    for name in [
        "autosnap_2026-11-29_11:00:00_hourly",
        "autosnap_2026-11-29_12:00:00_hourly",
    ] {
        let said = backed_up(name);
        assert!(said.contains("unchanged since"), "{said}");
    }
    fs::write(lab.live().join("file"), "other").unwrap();
    let changed = backed_up("autosnap_2026-11-29_13:00:00_hourly");
    assert!(changed.contains("2 files"), "{changed}");
    lab.run(&["verify", "offsite", "--depth", "everything"]).expect(0);
}
