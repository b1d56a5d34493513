//! On answers of zpool 2.3.2, recorded in the virtual machine: a mirror `tank` and a pool `lone` on one file.

use super::*;

macro_rules! recorded {
    ($name:literal) => {
        include_bytes!(concat!("../../fixtures/zpool-", $name, "-2.3.2.stdout"))
    };
}

fn pools(listing: &[u8], words: &[u8], names: &[&str]) -> Vec<PoolHealth> {
    let mut pools = list(listing).unwrap();
    pools.retain(|pool| names.contains(&pool.name.as_str()));
    status(words, &mut pools).unwrap();
    pools
}

fn tank(words: &[u8]) -> PoolHealth {
    pools(recorded!("list"), words, &["tank"]).remove(0)
}

#[test]
fn numbers_are_exact() {
    let all = pools(
        recorded!("list-degraded"),
        recorded!("status-damaged"),
        &["lone", "tank"],
    );
    assert_eq!((all[0].name.as_str(), all[1].name.as_str()), ("lone", "tank"));
    assert_eq!(
        (
            all[1].size,
            all[1].allocated,
            all[1].free,
            all[1].fragmentation,
            all[1].capacity
        ),
        (
            Some(184_549_376),
            Some(84_143_104),
            Some(100_406_272),
            Some(31),
            Some(45)
        )
    );
    assert!(list(b"tank\tONLINE\n").is_err());
    assert!(list(b"\tONLINE\t1\t1\t1\t1\t1\n").is_err());
    // A suspended pool has no numbers; without -p the percents have their sign.
    let odd = list(b"a\tSUSPENDED\t-\t-\t-\t-\t-\nb\tONLINE\t9\t1\t8\t3%\t11%\n").unwrap();
    assert_eq!((odd[0].size, odd[0].capacity), (None, None));
    assert_eq!((odd[1].fragmentation, odd[1].capacity), (Some(3), Some(11)));
}

#[test]
fn scrubs_are_told_apart() {
    let new = pools(recorded!("list"), recorded!("status-new"), &["lone", "tank"]);
    assert!(
        new.iter().all(|pool| pool.scan.is_none() && pool.is_well()),
        "{new:?}"
    );
    let of = |words| tank(words).scan.unwrap();
    let clean = of(recorded!("status-clean"));
    assert_eq!(
        (clean.function, clean.state),
        (ScanFunction::Scrub, ScanState::Finished)
    );
    assert_eq!((clean.errors, clean.repaired.as_deref()), (Some(0), Some("0B")));
    let running = of(recorded!("status-running"));
    assert_eq!(
        (running.state, running.percent, running.errors),
        (ScanState::Running, Some(0.0), None)
    );
    let paused = of(recorded!("status-paused"));
    assert_eq!((paused.state, paused.percent), (ScanState::Paused, Some(0.0)));
    let canceled = of(recorded!("status-canceled"));
    assert_eq!(
        (canceled.function, canceled.state),
        (ScanFunction::Scrub, ScanState::Canceled)
    );
    let resilvered = of(recorded!("status-resilvered"));
    assert_eq!(
        (resilvered.function, resilvered.state),
        (ScanFunction::Resilver, ScanState::Finished)
    );
    assert_eq!(resilvered.repaired.as_deref(), Some("31.5K"));
    for scan in [clean, running, paused, canceled, resilvered] {
        assert!(scan.at.is_some(), "{scan:?}");
    }
    // Words that nobody knows are no scrub, and none that went well.
    assert_eq!(scan("none requested"), None);
    assert_eq!(scan("scrub did something in the end"), None);
    assert_eq!(
        scan("scrub repaired 0B in 1 day 01:00:00 with x errors on Mon Nov 23 01:21:19 2026"),
        None
    );
    let long =
        scan("scrub repaired 0B in 1 days 01:00:00 with 2 errors on Sun Nov  1 01:21:19 2026").unwrap();
    assert_eq!(long.errors, Some(2));
    assert!(long.at.is_some());
}

#[test]
fn damage_and_troubled_devices_are_found() {
    let all = pools(recorded!("list"), recorded!("status-damaged"), &["lone", "tank"]);
    let (lone, tank_now) = (&all[0], &all[1]);
    assert!(
        !lone.is_well() && lone.data_errors.is_some_and(|count| count > 0),
        "{lone:?}"
    );
    assert!(
        lone.status.as_ref().unwrap().contains("data corruption"),
        "{lone:?}"
    );
    assert!(
        lone.scan
            .as_ref()
            .unwrap()
            .errors
            .is_some_and(|errors| errors > 0),
        "{lone:?}"
    );
    // Repaired from the other half of the mirror: nothing is lost, and a device is not as it should be.
    assert_eq!(
        (tank_now.state.as_str(), tank_now.data_errors),
        ("ONLINE", Some(0))
    );
    assert!(!tank_now.is_well());
    let device = &tank_now.troubled[0];
    assert_eq!((device.name.as_str(), device.checksum), ("/tmp/b", 243));
    let degraded = tank(recorded!("status-degraded"));
    assert_eq!(degraded.state, "DEGRADED");
    let states: Vec<_> = degraded
        .troubled
        .iter()
        .map(|device| device.state.as_str())
        .collect();
    assert_eq!(states, ["DEGRADED", "DEGRADED", "OFFLINE"]);
}

/// Recorded from Debian's zpool 2.1.11, on the module of 2.3.2.
macro_rules! of_2_1 {
    ($name:literal) => {
        include_bytes!(concat!("../../fixtures/zpool-", $name, "-2.1.11.stdout"))
    };
}

#[test]
fn pools_are_told_by_2_1_as_well() {
    let new = pools(of_2_1!("list"), of_2_1!("status-new"), &["lone", "tank"]);
    assert!(
        new.iter().all(|pool| pool.scan.is_none() && pool.is_well()),
        "{new:?}"
    );
    assert_eq!(
        (new[1].size, new[1].fragmentation, new[1].capacity),
        (Some(184_549_376), Some(13), Some(22))
    );
    let of = |words| pools(of_2_1!("list"), words, &["tank"]).remove(0).scan.unwrap();
    let running = of(of_2_1!("status-running"));
    assert_eq!(
        (running.state, running.percent),
        (ScanState::Running, Some(31.65))
    );
    let paused = of(of_2_1!("status-paused"));
    assert_eq!((paused.state, paused.percent), (ScanState::Paused, Some(99.49)));
    let clean = of(of_2_1!("status-clean"));
    assert_eq!((clean.state, clean.errors), (ScanState::Finished, Some(0)));
    assert!([running, paused, clean].iter().all(|scan| scan.at.is_some()));
    let degraded = pools(of_2_1!("list-degraded"), of_2_1!("status-degraded"), &["tank"]).remove(0);
    assert_eq!(
        (degraded.state.as_str(), degraded.troubled.len()),
        ("DEGRADED", 3)
    );
    assert!(degraded.status.unwrap().contains("taken offline"));
}

/// Composed by hand after zpool_main.c of 2.2.7 and, of the resilver, 2.1.11: of 2.2 nothing could be run.
#[test]
fn what_2_2_would_tell_of_a_scan_is_understood() {
    let words = |scan: &str| {
        format!(
            "  pool: tank\n state: ONLINE\n  scan: {scan}config:\n\n\tNAME        STATE     READ WRITE CKSUM\n\
             \ttank        ONLINE       0     0     0\n\t  mirror-0  ONLINE       0     0     0\n\
             \t    /tmp/a  ONLINE       0     0     0\n\t    /tmp/b  ONLINE       0     0     0  (resilvering)\n\n\
             errors: No known data errors\n"
        )
    };
    let scrub = words(
        "scrub in progress since Sun Nov 22 20:00:00 2026\n\t9.50G / 10.0G scanned at 1.19G/s, 5.10G / 10.0G issued at \
         652M/s\n\t0B repaired, 51.00% done, 00:00:07 to go\n",
    );
    let resilver = words(
        "resilver in progress since Sun Nov 22 20:00:00 2026\n\t9.50G scanned at 1.19G/s, 5.10G issued at 652M/s, 10.0G \
         total\n\t5.05G resilvered, 50.50% done, 00:00:07 to go\n",
    );
    let (scrub, resilver) = (tank(scrub.as_bytes()), tank(resilver.as_bytes()));
    let of = |pool: &PoolHealth| {
        pool.scan
            .clone()
            .map(|scan| (scan.function, scan.state, scan.percent))
    };
    assert_eq!(
        of(&scrub),
        Some((ScanFunction::Scrub, ScanState::Running, Some(51.0)))
    );
    assert_eq!(
        of(&resilver),
        Some((ScanFunction::Resilver, ScanState::Running, Some(50.5)))
    );
    assert_eq!(scrub.troubled, []);
}

#[test]
fn an_answer_that_is_cut_is_not_taken_for_a_healthy_one() {
    let whole: &[u8] = recorded!("status-clean");
    for end in 0..whole.len() {
        let mut pools = list(recorded!("list")).unwrap();
        if status(&whole[..end], &mut pools).is_ok() {
            let well = pools.iter().filter(|pool| pool.is_well()).count();
            let told = whole[..end].windows(6).filter(|words| words == b"errors").count();
            assert!(well <= told, "cut at {end}: {pools:?}");
        }
    }
}
