//! What is fetched from another machine: this one, by way of an sshd of the test's own.

use serde_json::json;

use crate::sshd::Sshd;
use crate::zfs_lab::{ZfsLab, sure};

fn snapshots(dataset: &str) -> String {
    sure(&[
        "zfs", "list", "-Hpd", "1", "-t", "snapshot", "-o", "guid", dataset,
    ])
}

#[test]
fn vm_snapshots_of_another_machine_are_fetched() {
    let lab = ZfsLab::new();
    let sshd = Sshd::start(&lab);
    let there = lab.tank.dataset("other/app");
    sure(&["zfs", "create", "-p", &there]);
    sure(&["zfs", "snapshot", &format!("{there}@one")]);
    let root = lab.back.dataset("fetched");
    lab.configure(&format!(
        "[pulls.box]\nhost = \"box\"\ndatasets = [\"{there}\"]\nroot = \"{root}\"\n{}\n",
        sshd.ssh
    ));
    let copy = format!("{root}/{there}");

    // Where it goes is made by `init`, and by nothing else.
    assert_ne!(lab.run(&["pull", "box"]).code, Some(0));
    lab.run(&["init"]).expect(0);
    let planned = lab.run(&["pull", "--all", "-n"]).expect(0);
    let wanted = format!("would fetch 1 snapshots of {there} from box in full");
    assert!(planned.out.contains(&wanted), "{planned:?}");
    let status = lab.run(&["status"]);
    assert!(
        status
            .out
            .contains(&format!("box: nothing was fetched yet of {there}")),
        "{status:?}"
    );
    lab.run(&["pull", "box"]).expect(0);
    assert_eq!(snapshots(&copy), snapshots(&there));
    let status: serde_json::Value = serde_json::from_str(&lab.run(&["status", "--json"]).out).unwrap();
    let fetched = &status["fetched"][0];
    assert_eq!(
        (&fetched["pull"], &fetched["missing"]),
        (&json!("box"), &json!([]))
    );
    assert!(
        fetched["taken_at"].is_string() && fetched["lag"].is_null(),
        "{status}"
    );
    sure(&["zfs", "snapshot", &format!("{there}@two")]);
    lab.run(&["pull", "--all"]).expect(0);
    assert_eq!(snapshots(&copy), snapshots(&there));
    assert_eq!(
        sure(&[
            "zfs",
            "get",
            "-Hpo",
            "value",
            "reseed:origin,canmount,mounted",
            &copy
        ]),
        format!("box:{there}\nnoauto\nno")
    );
    // What is kept there for this machine says so.
    let marks = sure(&["zfs", "list", "-Ht", "bookmark", "-o", "name", "-d", "1", &there]);
    assert!(
        marks.lines().all(|mark| mark.contains("#reseed:lab.box:")),
        "{marks}"
    );
    assert!(!marks.is_empty());

    // Of a machine that is off its copies are known.
    drop(sshd);
    let status: serde_json::Value = serde_json::from_str(&lab.run(&["status", "--json"]).out).unwrap();
    let fetched = &status["fetched"][0];
    assert!(
        fetched["taken_at"].is_string() && fetched["error"].is_null(),
        "{status}"
    );

    let unknown = lab.run(&["pull", "bax"]);
    assert_ne!(unknown.code, Some(0));
    assert!(format!("{unknown:?}").contains("there are: box"), "{unknown:?}");
    let history = lab.run(&["history"]).expect(0);
    assert!(history.out.contains("pull.box"), "{history:?}");
}
