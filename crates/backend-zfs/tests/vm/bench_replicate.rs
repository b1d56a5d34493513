//! Replication and snapshots against the bare commands, and against syncoid and sanoid, all in one run and in turn.

use std::fmt::Write as _;
use std::time::Duration;

use reseed_core::SnapshotStore as _;
use reseed_core::clock::{Clock as _, SystemClock};
use reseed_core::ops;
use reseed_core::retention;
use reseed_core::retention::sanoid::{Kind, Policy};
use reseed_testkit::conformance::{block_on, context};

use crate::bench::{Goal, median, planned, reached, snapshots};
use crate::chain::Chain;
use crate::lab::{Pool, sure};
use crate::vm_cost::Lab;
use crate::vm_survive_many::many;

/// Everything below a dataset, as an operator would have syncoid do it without destroying anything.
fn syncoid(lab: &Lab) {
    sure([
        "syncoid",
        "-r",
        "--skip-parent",
        "--no-sync-snap",
        "--no-rollback",
        "--compress=none",
        "--quiet",
        &format!("{}/svc", lab.pool.pool),
        &format!("{}/syncoid", lab.back.pool),
    ]);
}

#[derive(Debug, Default)]
struct Times {
    ours: Vec<Duration>,
    pipes: Vec<Duration>,
    lists: Vec<Duration>,
    syncoid: Vec<Duration>,
}

/// Rounds of one increment each, by everybody in turn; the first round, in full, is left out.
async fn rounds(lab: &mut Lab, rounds: usize, with_syncoid: bool) -> Times {
    let (clock, mut times) = (SystemClock::new(), Times::default());
    for round in 0..=rounds {
        lab.change();
        for who in 0..3 {
            let began = clock.monotonic();
            let took = |began| clock.monotonic().saturating_sub(began);
            // Who is first changes.
            match (who + round) % 3 {
                0 => {
                    assert_eq!(lab.send().await, lab.targets.len());
                    times.ours.push(took(began));
                }
                1 => {
                    lab.lists().await;
                    times.lists.push(took(began));
                    let began = clock.monotonic();
                    lab.pipes().await;
                    times.pipes.push(took(began));
                }
                _ if with_syncoid => {
                    syncoid(lab);
                    times.syncoid.push(took(began));
                }
                _ => {}
            }
        }
    }
    let all = [
        &mut times.ours,
        &mut times.pipes,
        &mut times.lists,
        &mut times.syncoid,
    ];
    for part in all.into_iter().filter(|part| !part.is_empty()) {
        part.remove(0);
    }
    times
}

#[test]
fn vm_alone_bench_zfs_one_increment() {
    block_on(async {
        let times = rounds(&mut Lab::new(1), 9, false).await;
        let (ours, bare) = (median(times.ours), median(times.pipes) + median(times.lists));
        let what = "zfs: one increment, against its pipe and two listings";
        assert!(reached(what, (ours, bare), ours / bare, Goal::AtMost(1.3)));
    });
}

#[test]
fn vm_alone_bench_zfs_twenty_increments() {
    block_on(async {
        let times = rounds(&mut Lab::new(20), 3, true).await;
        let (ours, pipes, syncoid) = (median(times.ours), median(times.pipes), median(times.syncoid));
        let what = "zfs: 20 increments, against a serial loop of bare pipes";
        let one = reached(what, (ours, pipes), ours / pipes, Goal::AtMost(1.0));
        let what = "zfs: 20 increments, against syncoid -r (times as fast)";
        let other = reached(what, (ours, syncoid), syncoid / ours, Goal::AtLeast(7.0));
        assert!(one && other);
    });
}

#[test]
fn vm_alone_bench_zfs_up_to_date() {
    block_on(async {
        let (mut lab, clock) = (Lab::new(20), SystemClock::new());
        lab.change();
        lab.send().await;
        syncoid(&lab);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let began = clock.monotonic();
            assert_eq!(lab.send().await, 0);
            ours.push(clock.monotonic() - began);
            let began = clock.monotonic();
            syncoid(&lab);
            theirs.push(clock.monotonic() - began);
        }
        let (ours, theirs) = (median(ours), median(theirs));
        let what = "zfs: 20 datasets up to date, against syncoid -r (times as fast)";
        assert!(reached(what, (ours, theirs), theirs / ours, Goal::AtLeast(10.0)));
    });
}

/// A sanoid.conf for all services of a pool.
fn sanoid(pool: &Pool, hourly: u32, prune: bool) -> String {
    let dir = pool.root.join("sanoid");
    let at = dir.to_str().unwrap();
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::copy(
        "/usr/share/sanoid/sanoid.defaults.conf",
        dir.join("sanoid.defaults.conf"),
    )
    .unwrap();
    let yes = |yes| if yes { "yes" } else { "no" };
    let mut text = format!(
        "[{}/svc]\nuse_template = x\nrecursive = yes\nprocess_children_only = yes\n[template_x]\nhourly = {hourly}\n",
        pool.pool
    );
    for kind in ["frequently", "daily", "weekly", "monthly", "yearly"] {
        let _ = writeln!(text, "{kind} = 0");
    }
    let _ = writeln!(text, "autosnap = {}\nautoprune = {}", yes(!prune), yes(prune));
    std::fs::write(dir.join("sanoid.conf"), text).unwrap();
    format!("--configdir={at} --cache-dir={at} --run-dir={at} --quiet")
}

#[test]
fn vm_alone_bench_zfs_snapshots_due() {
    block_on(async {
        let (chain, clock) = (Chain::new("1G"), SystemClock::new());
        let targets = many(&chain.pool, 20);
        let service = chain.service(&targets.iter().collect::<Vec<_>>());
        let policy = Policy {
            hourly: Some(24),
            ..Policy::default()
        };
        let args = sanoid(&chain.pool, 24, false);
        let cx = context("due");
        // Whoever is second finds snapshots that are not old enough, so each has a clean slate.
        let began = clock.monotonic();
        sure(["sh", "-c", &format!("sanoid --take-snapshots {args}")]);
        let theirs = clock.monotonic() - began;
        let taken = chain.pool.store.list(&cx, &targets).await.unwrap();
        assert_eq!(taken.len(), 20);
        let doomed: Vec<_> = taken
            .iter()
            .map(reseed_core::point::Snapshot::reference)
            .collect();
        chain.pool.store.prune(&cx, &doomed).await.unwrap();
        let began = clock.monotonic();
        let due = ops::due(&chain.engine, &cx, &service, &policy).await.unwrap();
        assert_eq!(due, [Kind::Hourly]);
        let name =
            ops::snapshot_name(Some(Kind::Hourly), &clock.now().to_zoned(jiff::tz::TimeZone::UTC)).unwrap();
        let report = ops::snapshot(&chain.engine, &cx, &service, &name).await;
        let ours = clock.monotonic() - began;
        assert_eq!(report.outcome, ops::OpOutcome::Ok, "{report:?}");
        let (ours, theirs) = (ours.as_secs_f64(), theirs.as_secs_f64());
        let what = "zfs: snapshots due on 20 datasets, measured too, against sanoid (times as fast)";
        assert!(reached(what, (ours, theirs), theirs / ours, Goal::AtLeast(10.0)));
    });
}

#[test]
fn vm_alone_bench_zfs_prune() {
    block_on(async {
        let (chain, clock, cx) = (Chain::new("1G"), SystemClock::new(), context("prune"));
        let targets = many(&chain.pool, 20);
        snapshots(100, &targets, "autosnap_2020-01-01_00:00:");
        // Both keep all but the three oldest of each; a month from now, when all of them are old enough.
        let then = clock.now() + jiff::SignedDuration::from_hours(24 * 30);
        let policy = retention::Policy::Sanoid(Policy {
            hourly: Some(97),
            ..Policy::default()
        });
        let began = clock.monotonic();
        let listed = chain.pool.store.list(&cx, &targets).await.unwrap();
        assert_eq!(listed.len(), 2000);
        let mut doomed = Vec::new();
        for part in listed.chunk_by(|a, b| a.dataset == b.dataset) {
            let plan = planned(part, &policy, then);
            let gone = |one: &&reseed_core::point::Snapshot| {
                plan.remove
                    .iter()
                    .any(|removed| removed.point.id == one.guid.to_string())
            };
            doomed.extend(
                part.iter()
                    .filter(gone)
                    .map(reseed_core::point::Snapshot::reference),
            );
        }
        assert_eq!(doomed.len(), 60);
        let pruned = chain.pool.store.prune(&cx, &doomed).await.unwrap();
        let ours = clock.monotonic() - began;
        assert!(pruned.len() == 60 && pruned.iter().all(|one| one.kept.is_none()));
        let args = sanoid(&chain.pool, 94, true);
        let line = format!(
            "FAKETIME_FMT=%s exec faketime -f @{} sanoid --prune-snapshots --force-prune {args}",
            then.as_second()
        );
        let began = clock.monotonic();
        sure(["sh", "-c", &line]);
        let theirs = clock.monotonic() - began;
        let left = chain.pool.store.list(&cx, &targets).await.unwrap();
        assert_eq!(left.len(), 1880, "sanoid pruned another number");
        let (ours, theirs) = (ours.as_secs_f64(), theirs.as_secs_f64());
        let what = "zfs: pruning 60 of 2,000 snapshots, against sanoid (times as fast)";
        assert!(reached(what, (ours, theirs), theirs / ours, Goal::AtLeast(15.0)));
    });
}
