//! Pools in status, and scrubbing.

use std::os::unix::fs::FileExt as _;

use reseed_core::clock::{Clock as _, SystemClock};
use reseed_testkit::vm::pool::ScratchPool;

use crate::zfs_lab::{ZfsLab, sure};

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

fn until(what: &str, mut ready: impl FnMut() -> bool) {
    for _ in 0..600 {
        if ready() {
            return;
        }
        sure(&["sleep", "0.2"]);
    }
    panic!("no {what} after two minutes");
}

#[test]
fn vm_status_tells_a_pool_that_lacks_a_disk() {
    let lab = ZfsLab::new().protected();
    let (first, second) = (lab.tank.file(), lab.tank.dir().join("second"));
    let (first, second) = (first.to_str().unwrap(), second.to_str().unwrap());
    sure(&["truncate", "-r", first, second]);
    sure(&["zpool", "attach", "-w", lab.tank.name(), first, second]);
    lab.run(&["status"]).expect(0);
    sure(&["zpool", "offline", lab.tank.name(), second]);
    let ran = lab.run(&["status"]).expect(3);
    assert!(ran.out.contains("DEGRADED"), "{ran:?}");
    let ran = lab.run(&["--json", "status"]).expect(3);
    assert_eq!(ran.json()["pools"][0]["state"], "DEGRADED", "{ran:?}");
    // It serves as before.
    assert_eq!(lab.preseed(0).0, "data-present");
    sure(&["zpool", "online", lab.tank.name(), second]);
    until("whole pool", || lab.run(&["status"]).code == Some(0));
}

/// A pool that has stopped all reading and writing, and with it whoever touches it.
#[test]
fn vm_status_tells_a_suspended_pool_and_does_not_hang() {
    let lab = ZfsLab::new().protected();
    // A third pool, on a disk that is on less memory than it says.
    let under = lab.root.join("under");
    std::fs::create_dir(&under).unwrap();
    let under = under.to_str().unwrap();
    sure(&["mount", "-t", "tmpfs", "-o", "size=90M", "tmpfs", under]);
    let disk = format!("{under}/disk");
    sure(&["truncate", "-s", "300M", &disk]);
    let thin = format!("{}thin", lab.tank.name());
    sure(&[
        "zpool",
        "create",
        "-O",
        "compression=off",
        "-m",
        &format!("/tmp/{thin}"),
        &thin,
        &disk,
    ]);
    lab.configure(&format!(
        "[replicas.thin]\ntype = \"zfs\"\nroot = \"{thin}/copies\"\n"
    ));
    let into = format!("of=/tmp/{thin}/more");
    let writes = std::thread::spawn(move || {
        sure(&["dd", "if=/dev/zero", &into, "bs=1M", "count=150", "conv=fsync"]);
    });
    let state = format!("/proc/spl/kstat/zfs/{thin}/state");
    until("suspended pool", || {
        std::fs::read_to_string(&state).is_ok_and(|state| state.trim() == "SUSPENDED")
    });
    let ran = lab.run(&["status"]).expect(3);
    assert!(ran.out.contains("SUSPENDED"), "{ran:?}");
    let ran = lab.run(&["scrub", &thin]).expect(1);
    assert!(ran.all().contains("zpool clear"), "{ran:?}");
    sure(&["mount", "-o", "remount,size=500M", under]);
    sure(&["zpool", "clear", &thin]);
    writes.join().unwrap();
    sure(&["zpool", "destroy", "-f", &thin]);
    sure(&["umount", under]);
}

#[test]
fn vm_a_replica_that_is_a_day_behind_is_told_and_sent_to_by_hand() {
    let lab = ZfsLab::new().protected();
    lab.run(&["status"]).expect(0);
    let listed = sure(&["zfs", "list", "-Hpt", "snapshot", "-o", "name", &lab.replica()]);
    let newest = listed.lines().last().unwrap();
    // As if it had been taken two days ago.
    let then = SystemClock::new().now() - jiff::SignedDuration::from_hours(49);
    sure(&["zfs", "set", &format!("reseed:taken={then}"), newest]);
    let ran = lab.run(&["status"]).expect(3);
    assert!(ran.out.contains("reseed replicate --now app"), "{ran:?}");
    lab.run(&["snapshot", "app"]).expect(0);
    lab.run(&["replicate", "--now", "app"]).expect(0);
    lab.run(&["status"]).expect(0);
}

#[test]
fn vm_doctor_tries_as_that_user_whether_a_forced_receive_is_refused() {
    let back = ScratchPool::new(128);
    let (root, dir) = (back.dataset("copies"), tempfile::tempdir().unwrap());
    sure(&["zfs", "create", "-o", "canmount=off", &root]);
    sure(&["chmod", "666", "/dev/zfs"]);
    let doctor = || {
        let args = [
            "--json",
            "doctor",
            "--user",
            "nobody",
            "--receive",
            &root,
            "--try",
        ];
        crate::lab::run_in(dir.path(), &args)
    };
    // Without grants; each command that it says is one that helps.
    let ran = doctor().expect(1);
    let commands = ran.json()["audits"][0]["commands"].clone();
    for command in commands.as_array().unwrap() {
        sure(&["sh", "-c", command.as_str().unwrap()]);
    }
    let ran = doctor().expect(0);
    let tried = ran.json()["trials"][0]["tried"].clone();
    assert!(
        tried["receives"] == true && tried["force_refused"] == true,
        "{tried:#}"
    );
    // With all of `receive` the kernel lets it roll back.
    sure(&[
        "zfs",
        "allow",
        "-u",
        "nobody",
        "receive,rollback,destroy,mount",
        &root,
    ]);
    let ran = doctor().expect(1);
    assert_eq!(
        ran.json()["trials"][0]["tried"]["force_refused"],
        false,
        "{ran:?}"
    );
    // Nothing of the trial is left.
    let left = sure(&["zfs", "list", "-Hro", "name", &root]);
    assert_eq!(left, root);
}
