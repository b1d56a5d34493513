//! Against the real sanoid, whose path is in `RESEED_REAL_SANOID`, with a clock that stands still (`faketime`). Every
//! test's name begins with `real_`, so that a test tier selects them; without the variable they fail rather than pass
//! for nothing.
//!
//! Parity: the same snapshots, policies and moment go to sanoid and to `reseed_core::retention`, and what they remove has
//! to be the same, snapshot for snapshot. The newest snapshot of every dataset is one taken by hand, because reseed never
//! removes the newest one and sanoid does.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod lab;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use lab::{Dice, Lab, Snap};
use reseed_backend_zfs::sanoid::{Managed, conf};
use reseed_core::exec::Command;
use reseed_core::retention::sanoid::{Kind, Policy};
use reseed_core::retention::{self, Inventory, Point};

/// Zones are spelled out, because a machine may have no time zone database.
const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

/// Moments around changes of the clock in zones that have them, and quiet ones.
const MOMENTS: [(&str, &str); 9] = [
    ("2026-11-22T20:33:00Z", "UTC0"),
    ("2026-10-25T00:30:00Z", BERLIN),
    ("2026-10-25T01:30:00Z", BERLIN),
    ("2026-10-25T12:00:00Z", BERLIN),
    ("2027-03-28T01:00:00Z", BERLIN),
    ("2026-11-01T06:30:00Z", "EST5EDT,M3.2.0,M11.1.0"),
    ("2027-04-03T15:30:00Z", "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0"),
    ("2028-02-29T23:59:59Z", "IST-5:30"),
    ("2026-12-31T23:59:59Z", "NST3:30NDT,M3.2.0,M11.1.0"),
];

fn seeds(default: u64) -> u64 {
    std::env::var("RESEED_SANOID_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(default)
}

fn moment(dice: &mut Dice) -> (Timestamp, &'static str) {
    let (now, zone) = dice.pick(&MOMENTS);
    (now.parse().unwrap(), zone)
}

/// Few, none, many.
fn count(dice: &mut Dice) -> u32 {
    let number = match dice.roll(6) {
        0 => 0,
        1 | 2 => 1 + dice.roll(4),
        3 | 4 => dice.roll(40),
        _ => dice.roll(2_000),
    };
    u32::try_from(number).unwrap()
}

fn policy(dice: &mut Dice) -> Policy {
    Policy {
        frequently: Some(count(dice)),
        hourly: Some(count(dice)),
        daily: Some(count(dice)),
        weekly: Some(count(dice)),
        monthly: Some(count(dice)),
        yearly: Some(count(dice)),
        frequent_period: Some(*dice.pick(&[1, 5, 10, 15, 30, 45, 59])),
        prune_defer: Some(*dice.pick(&[0, 0, 0, 60, 70, 71, 100])),
    }
}

/// Snapshots of a dataset: of each type at ages around multiples of its period, to the second, among others; names of
/// other tools; names that look nearly like sanoid's; and the newest one by hand. No two of a type are of one second:
/// which of those sanoid takes first is left to Perl's hashes.
fn snapshots(
    dataset: &str,
    number: usize,
    policy: &Policy,
    now: Timestamp,
    zone: &str,
    dice: &mut Dice,
) -> Vec<Snap> {
    let zone = TimeZone::posix(zone).unwrap();
    let mut snaps: BTreeMap<String, i64> = BTreeMap::new();
    let mut seconds: BTreeSet<(Kind, i64)> = BTreeSet::new();
    while snaps.len() + 1 < number {
        let kind = *dice.pick(&Kind::ALL);
        let period = policy.period(kind);
        let most = i64::from(policy.wanted(kind).unwrap_or(0)).min(300) + 3;
        let periods = i64::try_from(dice.roll(u64::try_from(most).unwrap() * 2)).unwrap();
        let age = match dice.roll(4) {
            // Just where the rule changes its mind.
            0 => periods * period + i64::try_from(dice.roll(3)).unwrap() - 1,
            1 => i64::try_from(dice.roll(86_400 * 40)).unwrap(),
            // Dated in the future, by a clock that was wrong.
            2 if dice.one_in(8) => -i64::try_from(dice.roll(100_000)).unwrap(),
            _ => periods * period + i64::try_from(dice.roll(u64::try_from(period).unwrap())).unwrap(),
        };
        let created = (now.as_second() - age).max(1);
        if !seconds.insert((kind, created)) {
            continue;
        }
        let local = Timestamp::from_second(created).unwrap().to_zoned(zone.clone());
        let name = match dice.roll(40) {
            0 => format!("autosnap_{}_weirdly", local.strftime("%Y-%m-%d_%H:%M:%S")),
            1 => format!("autosnap_{}_{kind}_keep", local.strftime("%Y-%m-%d_%H:%M:%S")),
            2 => format!("syncoid_host_{created}_{kind}"),
            3 => format!("autosnap{created}{kind}"),
            4 => format!("autosnap_{created}_{kind}_really"),
            5 => kind.snapshot_name(&local, true),
            6 => format!("manual-{created}"),
            _ => kind.snapshot_name(&local, false),
        };
        snaps.entry(name).or_insert(created);
    }
    let mut snaps: Vec<Snap> = (snaps.into_iter())
        .map(|(name, created)| Snap {
            dataset: dataset.to_owned(),
            name,
            created,
        })
        .collect();
    snaps.push(Snap {
        dataset: dataset.to_owned(),
        name: "by-hand".to_owned(),
        created: now.as_second(),
    });
    snaps
}

fn ours(snaps: &[Snap], managed: &[Managed], now: Timestamp, percent: u8) -> BTreeSet<String> {
    let mut removed = BTreeSet::new();
    for one in managed.iter().filter(|one| one.prune) {
        let points = (snaps.iter())
            .filter(|snap| snap.dataset == one.dataset)
            .map(|snap| Point::new(&snap.name, "", Timestamp::from_second(snap.created).unwrap()));
        let inventory = Inventory {
            points: points.collect(),
            unseeded: false,
            pool_percent_full: Some(percent),
        };
        let plan = retention::plan(inventory, &retention::Policy::Sanoid(one.policy.clone()), now);
        removed.extend((plan.remove.iter()).map(|gone| format!("{}@{}", one.dataset, gone.point.name)));
    }
    removed
}

fn managed(dataset: &str, policy: Policy) -> Managed {
    Managed {
        dataset: dataset.to_owned(),
        section: dataset.to_owned(),
        take: true,
        prune: true,
        with_children: false,
        policy,
    }
}

#[test]
fn real_sanoid_prunes_of_2000_snapshots_what_we_prune() {
    let (mut removed, mut kept) = (0, 0);
    for seed in 0..seeds(6) {
        let mut dice = Dice::new(seed);
        let (now, zone) = moment(&mut dice);
        let percent = u8::try_from(65 + dice.roll(10)).unwrap();
        let policy = policy(&mut dice);
        let snaps = snapshots("tank/data", 2_000, &policy, now, zone, &mut dice);
        let managed = [managed("tank/data", policy)];
        let lab = Lab::new();
        lab.list(&snaps);
        lab.write("capacity", &[format!("{percent}%")]);
        let report = lab
            .block_on(lab.driver(now, zone).prune(&lab.cx(), &managed, &BTreeSet::new()))
            .unwrap();
        let theirs = lab.drain("destroyed");
        let ours = ours(&snaps, &managed, now, percent);
        assert_eq!(theirs, ours, "seed {seed} at {now} in {zone}: {managed:?}");
        assert_eq!(
            report.pruned.into_iter().collect::<BTreeSet<_>>(),
            theirs,
            "seed {seed}"
        );
        assert_eq!(
            (report.failed, report.complaints),
            (vec![], vec![]),
            "seed {seed}"
        );
        removed += ours.len();
        kept += snaps.len() - ours.len();
    }
    // Neither of the two may be what makes all of them agree.
    assert!(removed > 500 && kept > 500, "{removed} removed, {kept} kept");
}

/// A sanoid.conf with templates, recursion and sections above and below each other.
fn random_conf(datasets: &[String], dice: &mut Dice) -> String {
    let keys = [
        "frequently",
        "hourly",
        "daily",
        "weekly",
        "monthly",
        "yearly",
        "frequent_period",
        "prune_defer",
    ];
    let word = |dice: &mut Dice| *dice.pick(&["yes", "no", "1", "0", "True", "off", "ON", "FALSE"]);
    let settings = |most: u64, dice: &mut Dice| {
        let mut lines: BTreeMap<&str, String> = BTreeMap::new();
        for _ in 0..dice.roll(most + 1) {
            let key = *dice.pick(&keys);
            let value = match key {
                "frequent_period" => 1 + dice.roll(59),
                "prune_defer" => *dice.pick(&[0, 0, 65, 70]),
                _ => u64::from(count(dice)),
            };
            lines.insert(key, format!("\t{key} = {value}\n"));
        }
        if dice.one_in(6) {
            lines.insert("autoprune", format!("autoprune={}\n", word(dice)));
        }
        if dice.one_in(8) {
            lines.insert(
                "process_children_only",
                format!("process_children_only = {}\n", word(dice)),
            );
        }
        lines.into_values().collect::<String>()
    };
    let mut blocks = Vec::new();
    for template in ["default", "a", "b", "c"] {
        if !dice.one_in(3) {
            blocks.push(format!(
                "[template_{template}]\n; of a template\n{}",
                settings(4, dice)
            ));
        }
    }
    let mut used = BTreeSet::new();
    for _ in 0..3 + dice.roll(8) {
        let dataset = dice.pick(datasets);
        if !used.insert(dataset) {
            continue;
        }
        let mut block = format!("[{dataset}]\n# of a section\n");
        if dice.one_in(2) {
            let names = ["a", "b", "c", "default", "missing"];
            let (one, two) = (dice.pick(&names), dice.pick(&names));
            block.push_str(&format!("use_template = {one} , {two}\n"));
        }
        if dice.one_in(3) {
            block.push_str(&format!(
                "recursive = {}\n",
                dice.pick(&["yes", "zfs", "no", "1", "ZFS"])
            ));
        }
        if dice.one_in(6) {
            block.push_str(&format!("skip_children = {}\n", word(dice)));
        }
        block.push_str(&settings(5, dice));
        blocks.push(block);
    }
    // The order of the file counts, so it has to be any.
    for at in (1..blocks.len()).rev() {
        blocks.swap(at, usize::try_from(dice.roll(at as u64 + 1)).unwrap());
    }
    blocks.join("\n")
}

#[test]
fn real_sanoid_reads_random_configurations_as_we_do() {
    let (mut removed, mut kept, mut taken) = (0, 0, 0);
    let datasets: Vec<String> = [
        "tank",
        "tank/a",
        "tank/a/x",
        "tank/a/x/deep",
        "tank/a/y",
        "tank/ab",
        "tank/b",
        "tank/b/x",
        "tank/c",
        "tank/c/x",
        "tank/c/x/deep",
        "tank/d",
        "tank/e",
        "tank/e.f",
        "tank/e:g",
        "tank/h",
        "tank/h/i",
        "tank/h/j",
        "tank/k",
        "tank/l",
    ]
    .map(str::to_owned)
    .to_vec();
    for seed in 1_000..1_000 + seeds(12) {
        let mut dice = Dice::new(seed);
        let (now, zone) = moment(&mut dice);
        let percent = u8::try_from(65 + dice.roll(10)).unwrap();
        let text = random_conf(&datasets, &mut dice);
        let conf = conf::parse(&text, "sanoid.conf").unwrap().conf;
        let managed = conf.resolve(&datasets);
        let mut snaps = Vec::new();
        for dataset in &datasets {
            let known = managed.iter().find(|one| one.dataset == *dataset);
            let policy = known.map_or_else(|| policy(&mut dice), |one| one.policy.clone());
            snaps.extend(snapshots(dataset, 100, &policy, now, zone, &mut dice));
        }
        let lab = Lab::new();
        lab.list(&snaps);
        lab.write("datasets", &datasets);
        lab.write("capacity", &[format!("{percent}%")]);
        lab.write("sanoid.conf", std::slice::from_ref(&text));
        lab.write("sanoid.defaults.conf", &[defaults()]);
        let sanoid = |what: &str| {
            Command::new(lab.sanoid(now, zone))
                .arg(format!("--configdir={}", lab.path("").display()))
                .arg(format!("--cache-dir={}", lab.path("cache").display()))
                .arg(format!("--run-dir={}", lab.path("run").display()))
                .arg(what)
        };
        lab.run(&sanoid("--prune-snapshots")).require_success().unwrap();
        let theirs = lab.drain("destroyed");
        let ours = ours(&snaps, &managed, now, percent);
        assert_eq!(
            theirs, ours,
            "seed {seed} at {now} in {zone}, {percent} %:\n{text}\n{managed:#?}"
        );
        removed += ours.len();
        kept += snaps.len() - ours.len();

        // Of which datasets snapshots are taken, and of which types: with no snapshot there, every wanted type is due.
        lab.list(&[]);
        let _ = std::fs::remove_dir_all(lab.path("cache"));
        lab.run(&sanoid("--take-snapshots")).require_success().unwrap();
        let theirs = lab.drain("taken");
        let local = now.to_zoned(TimeZone::posix(zone).unwrap());
        let due = managed.iter().filter(|one| one.take).flat_map(|one| {
            let wanted = Kind::ALL
                .into_iter()
                .filter(|kind| one.policy.wanted(*kind).is_some_and(|n| n > 0));
            wanted.map(|kind| format!("{}@{}", one.dataset, kind.snapshot_name(&local, false)))
        });
        let ours: BTreeSet<String> = due.collect();
        assert_eq!(theirs, ours, "seed {seed} at {now} in {zone}:\n{text}");
        taken += ours.len();
    }
    assert!(
        removed > 500 && kept > 500 && taken > 100,
        "{removed} removed, {kept} kept, {taken} taken"
    );
}

/// Upstream's sanoid wants its defaults beside the configuration, Debian's has its own.
fn defaults() -> String {
    use reseed_backend_zfs::sanoid::render::{Purpose, render};
    render(&[managed("tank", Policy::default())], Purpose::Take)
        .unwrap()
        .defaults
}

fn hourly(now: Timestamp, hours: std::ops::Range<i64>) -> Vec<Snap> {
    let snap = |n: i64| Snap {
        dataset: "tank/a".to_owned(),
        name: format!("autosnap_{n}_hourly"),
        created: now.as_second() - n * 3_600,
    };
    hours.map(snap).collect()
}

#[test]
fn real_sanoid_driver_keeps_what_is_protected_and_tells_what_was_refused() {
    let now: Timestamp = "2026-11-22T20:33:00Z".parse().unwrap();
    let lab = Lab::new();
    let mut snaps = hourly(now, 1..6);
    snaps.push(Snap {
        dataset: "tank/b".to_owned(),
        name: "autosnap_1_daily".to_owned(),
        created: 1,
    });
    lab.list(&snaps);
    lab.write("capacity", &["50%".to_owned()]);
    lab.write("held", &["tank/a@autosnap_4_hourly".to_owned()]);
    let policy = Policy {
        hourly: Some(2),
        daily: Some(0),
        ..Policy::default()
    };
    let managed = [managed("tank/a", policy.clone()), managed("tank/b", policy)];
    let driver = lab.driver(now, "UTC0");
    let preview = lab
        .block_on(driver.preview(&lab.cx(), &managed, &BTreeSet::new()))
        .unwrap();
    assert_eq!(preview.pruned.len(), 4, "{preview:?}");
    assert!(lab.drain("destroyed").is_empty(), "a preview destroys nothing");

    let protected = BTreeSet::from(["tank/b@autosnap_1_daily".to_owned()]);
    let report = lab
        .block_on(driver.prune(&lab.cx(), &managed, &protected))
        .unwrap();
    assert_eq!(report.guarded, ["tank/b"]);
    assert_eq!(report.failed, ["tank/a@autosnap_4_hourly"]);
    let gone = ["tank/a@autosnap_3_hourly", "tank/a@autosnap_5_hourly"].map(str::to_owned);
    assert_eq!(lab.drain("destroyed"), BTreeSet::from(gone.clone()));
    assert_eq!(
        report.pruned.into_iter().collect::<BTreeSet<_>>(),
        BTreeSet::from(gone)
    );
}

#[test]
fn real_sanoid_driver_decides_on_a_fresh_listing() {
    let now: Timestamp = "2026-11-22T20:33:00Z".parse().unwrap();
    let lab = Lab::new();
    let policy = Policy {
        hourly: Some(2),
        ..Policy::default()
    };
    let managed = [managed("tank/a", policy)];
    let driver = lab.driver(now, "UTC0");
    lab.list(&hourly(now, 1..3));
    let first = lab
        .block_on(driver.prune(&lab.cx(), &managed, &BTreeSet::new()))
        .unwrap();
    assert_eq!(first.pruned, [""; 0]);
    // sanoid's own cache would hide these for 15 minutes.
    lab.list(&hourly(now, 1..5));
    let second = lab
        .block_on(driver.prune(&lab.cx(), &managed, &BTreeSet::new()))
        .unwrap();
    assert_eq!(second.pruned.len(), 2, "{second:?}");
}

#[test]
fn real_sanoid_driver_tells_the_name_that_a_clock_change_gave() {
    // The second 02:30 of this day in Berlin: the name of the first one is taken.
    let now: Timestamp = "2026-10-25T01:30:00Z".parse().unwrap();
    let lab = Lab::new();
    lab.write(
        "exists",
        &["tank/a@autosnap_2026-10-25_02:30:00_hourly".to_owned()],
    );
    let policy = Policy {
        hourly: Some(2),
        ..Policy::default()
    };
    let report = lab
        .block_on(
            lab.driver(now, BERLIN)
                .take(&lab.cx(), &[managed("tank/a", policy)]),
        )
        .unwrap();
    let local = now.to_zoned(TimeZone::posix(BERLIN).unwrap());
    assert_eq!(
        report.taken,
        [format!("tank/a@{}", Kind::Hourly.snapshot_name(&local, true))]
    );
    assert_eq!(lab.drain("taken"), report.taken.iter().cloned().collect());
    assert_eq!(report.failed, [""; 0]);
}

#[test]
fn real_sanoid_refuses_the_keys_that_we_refuse() {
    let lab = Lab::new();
    let now: Timestamp = "2026-11-22T20:33:00Z".parse().unwrap();
    lab.write("sanoid.conf", &["[tank]\nhuorly = 3".to_owned()]);
    lab.write("sanoid.defaults.conf", &[defaults()]);
    let command = Command::new(lab.sanoid(now, "UTC0"))
        .arg(format!("--configdir={}", lab.path("").display()))
        .arg(format!("--cache-dir={}", lab.path("cache").display()))
        .arg(format!("--run-dir={}", lab.path("run").display()))
        .arg("--prune-snapshots");
    let output = lab.run(&command);
    assert!(!output.exit.success());
    assert!(
        output
            .stderr
            .text()
            .contains("I don't understand the setting huorly")
    );
    assert!(conf::parse("[tank]\nhuorly = 3\n", "sanoid.conf").is_err());
}
