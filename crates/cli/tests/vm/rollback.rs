//! Going back to a named snapshot on real ZFS, where `zfs rollback` would destroy what is newer.

use std::collections::BTreeSet;
use std::fs;

use reseed_core::clock::{Clock as _, SystemClock};

use crate::zfs_lab::{ZfsLab, sure};

/// Every dataset, snapshot and bookmark of the pool, by guid.
fn all(lab: &ZfsLab) -> BTreeSet<String> {
    let listed = sure(&[
        "zfs",
        "list",
        "-Hpt",
        "all",
        "-o",
        "guid,type",
        "-r",
        lab.tank.name(),
    ]);
    listed.lines().map(str::to_owned).collect()
}

/// The snapshots of a dataset, oldest first.
fn names_of(dataset: &str) -> Vec<String> {
    let words = [
        "zfs",
        "list",
        "-Hpt",
        "snapshot",
        "-s",
        "createtxg",
        "-o",
        "name",
        dataset,
    ];
    sure(&words).lines().map(name_of).collect()
}

fn name_of(line: &str) -> String {
    line.rsplit('@').next().unwrap().to_owned()
}

#[test]
fn vm_a_rollback_says_what_it_sets_aside_and_destroys_nothing() {
    let lab = ZfsLab::new().started();
    let taken = |kind: &str| {
        let ran = lab.run(&["--json", "snapshot", "app", "--kind", kind]).expect(0);
        name_of(ran.json()["reports"][0]["done"][0].as_str().unwrap())
    };
    let first = taken("hourly");
    fs::write(lab.live().join("file"), "second").unwrap();
    fs::write(lab.live().join("large"), vec![9; 3 << 20]).unwrap();
    let second = taken("daily");
    // One that isn't reseed's, and more that no snapshot has.
    sure(&["zfs", "snapshot", &format!("{}@by hand", lab.dataset())]);
    fs::write(lab.live().join("third"), vec![3; 2 << 20]).unwrap();
    sure(&["zpool", "sync", lab.tank.name()]);
    let before = all(&lab);
    let live = sure(&["zfs", "get", "-Hpo", "value", "guid", &lab.dataset()]);

    let dry = lab
        .run(&["--json", "rollback", "app", &first, "-n"])
        .expect(0)
        .json();
    let step = &dry["preview"]["datasets"][0];
    assert_eq!(step["snapshot"]["name"], first.as_str(), "{dry:#}");
    let newer: Vec<&str> = step["newer"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(newer, [second.as_str(), "by hand"], "{dry:#}");
    // 5 MiB of file content, and what ZFS keeps of it; its own word, where reseed asks it.
    let written = step["written"].as_u64().unwrap();
    assert!((5 << 20..7 << 20).contains(&written), "{written}");
    let asked = format!("written@{first}");
    let own = sure(&["zfs", "get", "-Hpo", "value", &asked, &lab.dataset()]);
    assert_eq!(own, written.to_string());
    let text = lab.run(&["rollback", "app", &first, "-n"]).expect(0).out;
    for words in [
        "2 newer snapshots",
        "by hand",
        "MiB",
        ".reseed-aside:app:",
        "must be stopped",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert_eq!(all(&lab), before, "saying it changes nothing");
    assert_eq!(fs::read_to_string(lab.live().join("file")).unwrap(), "second");
    // And so does not being asked.
    lab.run(&["rollback", "app", &first]).expect(2);
    assert_eq!(all(&lab), before);

    let done = lab
        .run(&["--json", "rollback", "app", &first, "--yes"])
        .expect(0)
        .json();
    lab.assert_whole();
    assert!(!lab.live().join("large").exists() && !lab.live().join("third").exists());
    let aside = done["reports"][0]["datasets"][0]["set_aside"].as_str().unwrap();
    assert_eq!(done["preview"]["datasets"][0]["kept_as"], aside, "{done:#}");
    // Everything that was there is, the live dataset under its new name with the newer snapshots.
    let after = all(&lab);
    assert!(before.is_subset(&after), "{before:#?} {after:#?}");
    assert_eq!(sure(&["zfs", "get", "-Hpo", "value", "guid", aside]), live);
    assert_eq!(names_of(aside), [second.as_str(), "by hand"]);
    let own = sure(&["zfs", "list", "-Hpt", "snapshot", "-o", "name", &lab.dataset()]);
    let own: Vec<String> = own.lines().map(name_of).collect();
    assert_eq!((own.len(), own[0].as_str()), (2, first.as_str()));
    assert!(
        own[1].starts_with("reseed_") && own[1].ends_with("Z_restored"),
        "{own:?}"
    );
    let at = lab.root.join("look");
    fs::create_dir(&at).unwrap();
    sure(&[
        "mount",
        "-t",
        "zfs",
        "-o",
        "ro,zfsutil",
        aside,
        at.to_str().unwrap(),
    ]);
    let third = fs::read(at.join("third")).unwrap();
    sure(&["umount", at.to_str().unwrap()]);
    assert_eq!(third, vec![3; 2 << 20], "what no snapshot had is kept too");

    // What is aside is no snapshot of the live dataset: it is told how to get it.
    let ran = lab.run(&["rollback", "app", &second, "-n"]).expect(1);
    assert!(
        ran.out.contains("set aside") && ran.out.contains("reseed restore app"),
        "{ran:#?}"
    );
    lab.run(&["restore", "app", "--from", "tank", "--at", &second, "--set-aside"])
        .expect(0);
    assert_eq!(fs::read_to_string(lab.live().join("file")).unwrap(), "second");
    assert!(before.is_subset(&all(&lab)));
    // It is nobody's clone, so that what was set aside can go, and all of its history is its own.
    assert_eq!(
        sure(&["zfs", "get", "-Hpo", "value", "origin", &lab.dataset()]),
        "-"
    );
    let own = sure(&["zfs", "list", "-Hpt", "snapshot", "-o", "name", &lab.dataset()]);
    let own: Vec<_> = own.lines().map(name_of).collect();
    assert!(own.contains(&first) && own.contains(&second), "{own:?}");
}

#[test]
fn vm_an_old_zfs_without_json_is_enough() {
    let lab = ZfsLab::new().protected();
    fs::write(lab.live().join("file"), "second").unwrap();
    let mut asked = Vec::new();
    let mut run = |args: &[&str]| {
        let (ran, started) = lab.run_counted(args);
        let ran = ran.expect(0);
        assert!(!started.is_empty(), "{args:?} asks ZFS");
        asked.extend(started);
        ran
    };
    let ran = run(&["--json", "snapshot", "app", "--kind", "daily"]);
    let taken = name_of(ran.json()["reports"][0]["done"][0].as_str().unwrap());
    run(&["replicate", "app"]);
    run(&["status"]);
    run(&["prune", "app"]);
    run(&["verify", "app"]);
    run(&["scrub", lab.tank.name()]);
    run(&["rollback", "app", &taken, "--yes"]);
    run(&["init"]);
    lab.lose_dataset();
    run(&["preseed", "app"]);
    for line in &asked {
        let json = line
            .split(' ')
            .any(|word| word.starts_with("-j") || word.starts_with("--json"));
        assert!(!json, "{line}");
    }
}

/// By the counts of its kinds and what was written on each snapshot about when it was taken; others' and the last stay.
#[test]
fn vm_what_is_due_is_taken_once_and_what_is_too_old_is_removed_and_nothing_else() {
    let lab = ZfsLab::new().started();
    lab.configure("retention = { hourly = 2, daily = 1 }\n");
    let names = || names_of(&lab.dataset());
    lab.run(&["snapshot", "app", "--due"]).expect(0);
    let due = names();
    let is_of = |name: &String, kind| name.ends_with(kind);
    assert_eq!(
        due.iter().filter(|name| is_of(name, "_hourly")).count(),
        1,
        "{due:?}"
    );
    lab.run(&["snapshot", "app", "--due"]).expect(0);
    assert_eq!(names(), due);
    // As a day of hours leaves it.
    let now = SystemClock::new().now();
    for hours in [30, 5, 4, 3] {
        let at = now - jiff::SignedDuration::from_hours(hours);
        let name = format!("autosnap_{}_hourly", at.strftime("%Y-%m-%d_%H:%M:%S"));
        let full = format!("{}@{name}", lab.dataset());
        sure(&["zfs", "snapshot", "-o", &format!("reseed:taken={at}"), &full]);
    }
    for other in ["by hand", "autosnap_2020-01-01_00:00:00_weekly"] {
        sure(&["zfs", "snapshot", &format!("{}@{other}", lab.dataset())]);
    }
    let held = names()[due.len() + 2].clone();
    sure(&["zfs", "hold", "mine", &format!("{}@{held}", lab.dataset())]);
    let before = names();
    let planned = lab.run(&["prune", "app", "-n"]).expect(0);
    assert_eq!(names(), before, "{planned:?}");
    lab.run(&["prune", "app"]).expect(0);
    let gone: Vec<&String> = before.iter().filter(|name| !names().contains(name)).collect();
    // Of five hours the three oldest are too many; of those the newest is held.
    assert_eq!(gone, before[due.len()..due.len() + 2].iter().collect::<Vec<_>>());
    lab.run(&["prune", "app"]).expect(0);
    assert_eq!(names().len(), before.len() - 2);
    lab.assert_whole();
}
