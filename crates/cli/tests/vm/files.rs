//! Files out of snapshots: one path, a whole tree beside, and proof by restoring.

use std::fs;

use crate::sshd::Sshd;
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

#[test]
fn vm_one_path_comes_out_of_a_snapshot_on_another_machine() {
    let lab = ZfsLab::new().protected();
    let sshd = Sshd::start(&lab);
    let root = lab.back.dataset("copies/lab");
    lab.configure(&format!(
        "[replicas.far]\ntype = \"zfs\"\nroot = \"{root}\"\n{}\n",
        sshd.ssh
    ));
    fs::write(lab.live().join("sub/other"), "overwritten").unwrap();
    let fetched = lab.tank.dataset("svc/.reseed-files:app");
    let there = || sure(&["zfs", "list", "-Hro", "name", lab.tank.name()]).contains(&fetched);
    let restore = |path: &str, to: &str, more: &[&str]| {
        let to = lab.root.join(to);
        let to = to.to_str().unwrap();
        let words = ["restore", "app", "--from", "far", "--path", path, "--to", to];
        lab.run(&[&words, more].concat())
    };
    let planned = restore("sub/other", "to", &["-n"]).expect(0);
    assert!(planned.out.contains("sends no part of a snapshot"), "{planned:?}");
    assert!(!there());
    restore("sub/other", "to", &[]).expect(0);
    assert_eq!(fs::read(lab.root.join("to/sub/other")).unwrap(), vec![7; 100_000]);
    assert!(!there());
    // What a failed try keeps goes with the next start of the service, whose data is not touched.
    restore("no/such", "none", &[]).expect(1);
    assert!(there());
    assert_eq!(lab.preseed(0), ("data-present".to_owned(), None));
    assert!(!there());
    assert_eq!(
        fs::read_to_string(lab.live().join("sub/other")).unwrap(),
        "overwritten"
    );
    assert_eq!(lab.mounted(), lab.dataset());
}
