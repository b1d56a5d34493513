//! Files out of snapshots: one path, a whole tree beside, and proof by restoring.

use std::fs;

use crate::zfs_lab::{ZfsLab, sure};

#[test]
fn vm_one_path_and_whole_trees_come_out_of_snapshots() {
    let lab = ZfsLab::new().protected();
    fs::write(lab.live().join("sub/other"), "overwritten").unwrap();
    for source in ["tank", "back"] {
        let to = lab.root.join(format!("path-{source}"));
        let to = to.to_str().unwrap();
        let args = [
            "restore",
            "app",
            "--from",
            source,
            "--path",
            "sub/other",
            "--to",
            to,
        ];
        lab.run(&args).expect(0);
        assert_eq!(
            fs::read(format!("{to}/sub/other")).unwrap(),
            vec![7; 100_000],
            "{source}"
        );
        assert!(!fs::exists(format!("{to}/file")).unwrap(), "{source}");
        let to = lab.root.join(format!("whole-{source}"));
        let to = to.to_str().unwrap();
        let ran = lab
            .run(&["restore", "app", "--from", source, "--to", to])
            .expect(0);
        assert!(ran.out.contains("tree digest matches"), "{ran:?}");
        lab.assert_whole_in(to.as_ref());
    }
    // A path that isn't there is told, and nothing stays mounted.
    let to = lab.root.join("none");
    let args = [
        "restore",
        "app",
        "--from",
        "back",
        "--path",
        "no/such",
        "--to",
        to.to_str().unwrap(),
    ];
    let ran = lab.run(&args).expect(1);
    assert!(
        ran.err.contains("no/such") || ran.out.contains("no/such"),
        "{ran:?}"
    );
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("/run/reseed/zfs"), "{mounts}");
    // The live data is as it was.
    assert_eq!(
        fs::read_to_string(lab.live().join("sub/other")).unwrap(),
        "overwritten"
    );
}

#[test]
fn vm_every_source_is_proven_by_restoring() {
    let lab = ZfsLab::new().protected();
    let ran = lab.run(&["--json", "verify", "app"]).expect(0);
    let text = &ran.out;
    for source in ["tank", "back"] {
        assert!(text.contains(source), "{text}");
    }
    // Nothing of it is left on the replica.
    let snapshot = sure(&["zfs", "list", "-Hpt", "snapshot", "-o", "name", &lab.replica()]);
    assert_eq!(snapshot.lines().count(), 1, "{snapshot}");
}
