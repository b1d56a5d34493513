//! Pools in status, and scrubbing.

use std::os::unix::fs::FileExt as _;

use crate::zfs_lab::ZfsLab;

#[test]
fn vm_a_scrub_finds_what_status_then_tells() {
    let lab = ZfsLab::new().protected();
    let (tank, back) = (lab.tank.name(), lab.back.name());
    let ran = lab.run(&["--json", "status"]).expect(0);
    let pools = ran.json()["pools"].clone();
    assert_eq!(pools.as_array().unwrap().len(), 2, "{pools:#}");
    assert!(
        pools[0]["scan"].is_null() && pools[0]["data_errors"] == 0,
        "{pools:#}"
    );
    let ran = lab.run(&["--json", "scrub", "--wait", tank, back]).expect(0);
    let scrubs = ran.json()["scrubs"].clone();
    assert_eq!(scrubs[1]["pool"]["scan"]["state"], "finished", "{scrubs:#}");
    assert!(scrubs[1]["pool"]["scan"]["at"].is_string(), "{scrubs:#}");
    // The copies' only disk loses what the file is in.
    lab.detach(&lab.back);
    let disk = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(lab.back.file())
        .unwrap();
    let (mut sector, mut hits) = ([0_u8; 512], 0);
    for at in (0..disk.metadata().unwrap().len()).step_by(512) {
        disk.read_exact_at(&mut sector, at).unwrap();
        if sector == [7; 512] {
            disk.write_all_at(&[8; 512], at).unwrap();
            hits += 1;
        }
    }
    assert!(hits > 0);
    lab.attach(&lab.back);
    let ran = lab.run(&["scrub", "--wait", back]).expect(1);
    assert!(ran.out.contains("damaged"), "{ran:?}");
    let ran = lab.run(&["status"]).expect(3);
    assert!(
        ran.out.contains(back) && ran.out.contains("checksum errors"),
        "{ran:?}"
    );
    // A service whose replica is damaged comes back from elsewhere, or not at all; never damaged.
    lab.lose_dataset();
    let ran = lab.run(&["--json", "preseed", "app"]);
    assert_ne!(
        ran.json()["reports"][0]["outcome"]["result"],
        "restored",
        "{ran:?}"
    );
    lab.detach(&lab.back);
    let ran = lab.run(&["status"]);
    assert!(ran.out.contains("NOT IMPORTED"), "{ran:?}");
    let ran = lab.run(&["scrub", back]).expect(1);
    assert!(ran.all().contains("is not imported"), "{ran:?}");
}
