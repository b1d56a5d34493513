//! Another host's data: refused where it would be mixed up, restored where it is asked for. And who does the sending.

use std::fs;

use crate::zfs_lab::{ZfsLab, sure};

/// The machine is replaced: another host, with the same configuration but for its name.
fn become_other(lab: &ZfsLab) {
    let file = lab.root.join("reseed.toml");
    let config = fs::read_to_string(&file).unwrap();
    fs::write(file, config.replace("host = \"lab\"", "host = \"other\"")).unwrap();
}

#[test]
fn vm_another_hosts_replica_comes_back_only_on_request() {
    let lab = ZfsLab::new().protected();
    let origin = sure(&[
        "zfs",
        "get",
        "-H",
        "-o",
        "value,source",
        "reseed:origin",
        &lab.replica(),
    ]);
    assert_eq!(origin, format!("lab:{}\tlocal", lab.dataset()));
    lab.lose_dataset();
    become_other(&lab);

    let refused = lab.run(&["restore", "app", "--from", "back"]);
    assert_ne!(refused.code, Some(0), "{refused:#?}");
    assert!(format!("{refused:?}").contains("only of lab"), "{refused:#?}");
    let strange = lab.run(&["restore", "app", "--from-host", "third"]);
    assert_ne!(strange.code, Some(0), "{strange:#?}");

    // Files beside first, then the whole service in its place.
    let to = lab.root.join("beside");
    let words = [
        "restore",
        "app",
        "--from-host",
        "lab",
        "--to",
        to.to_str().unwrap(),
    ];
    lab.run(&words).expect(0);
    lab.assert_whole_in(&to);
    lab.run(&["restore", "app", "--from-host", "lab"]).expect(0);
    lab.assert_whole();
    let live = sure(&["zfs", "get", "-H", "-o", "value", "reseed:origin", &lab.dataset()]);
    assert_eq!(live, "-");

    // This host's snapshots don't go where the other's are.
    lab.run(&["snapshot", "app"]).expect(0);
    let before = sure(&["zfs", "list", "-Hrt", "all", "-o", "name", lab.back.name()]);
    let refused = lab.run(&["replicate", "app"]);
    assert_ne!(refused.code, Some(0), "{refused:#?}");
    assert!(
        format!("{refused:?}").contains("is of the host lab"),
        "{refused:#?}"
    );
    let after = sure(&["zfs", "list", "-Hrt", "all", "-o", "name", lab.back.name()]);
    assert_eq!(after, before);
}

#[test]
fn vm_syncoid_sends_where_the_configuration_says_so() {
    let lab = ZfsLab::new().started();
    let file = lab.root.join("reseed.toml");
    let config = fs::read_to_string(&file).unwrap();
    let root = format!("root = \"{}/copies/lab\"", lab.back.name());
    assert!(config.contains(&root));
    fs::write(
        file,
        config.replace(&root, &format!("{root}\nsender = \"syncoid\"")),
    )
    .unwrap();
    lab.run(&["snapshot", "app"]).expect(0);
    let (ran, started) = lab.run_counted(&["replicate", "app"]);
    ran.expect(0);
    assert!(
        started.iter().any(|line| line.contains("syncoid:sync")),
        "{started:#?}"
    );
    let snapshots = |dataset: &str| {
        sure(&[
            "zfs", "list", "-Hpd", "1", "-t", "snapshot", "-o", "guid", dataset,
        ])
    };
    assert_eq!(snapshots(&lab.replica()), snapshots(&lab.dataset()));
    lab.lose_dataset();
    assert_eq!(lab.preseed(0), ("restored".to_owned(), Some("back".to_owned())));
    lab.assert_whole();
}
