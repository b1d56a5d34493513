//! Taking snapshots and pruning against sanoid, all in one run and in turn. What is measured is the whole operation as the
//! command runs it: what is due, the guard, the listing, the history.

use std::fmt::Write as _;
use std::sync::Arc;

use reseed_core::SnapshotStore as _;
use reseed_core::clock::{Clock as _, SystemClock};
use reseed_core::ops::{self, OpOutcome};
use reseed_core::point::Snapshot;
use reseed_core::retention::sanoid::{Kind, Policy};
use reseed_core::retention::{self};
use reseed_core::store::CreateSnapshots;
use reseed_testkit::conformance::{block_on, context};

use crate::bench::snapshots;
use crate::bench_measure::{Goal, counted, days_ago, in_turn, reached, started, timed};
use crate::chain::Chain;
use crate::lab::{Counting, Pool, sure};
use crate::vm_survive_many::many;

/// A sanoid.conf for all services of a pool, and the options that name it. sanoid knows no snapshots yet: what it has cached of
/// an earlier round is not what is there.
fn sanoid(pool: &Pool, hourly: u32, prune: bool) -> String {
    let dir = pool.root.join("sanoid");
    let _ = std::fs::remove_dir_all(&dir);
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
    let at = dir.to_str().unwrap();
    format!("--configdir={at} --cache-dir={at} --run-dir={at} --quiet")
}

fn hourly(count: u32) -> Policy {
    Policy {
        hourly: Some(count),
        ..Policy::default()
    }
}

#[test]
fn vm_alone_bench_zfs_snapshots_due() {
    block_on(async {
        let (chain, clock, cx) = (Chain::new("1G"), SystemClock::new(), context("due"));
        let targets = many(&chain.pool, 20);
        let counting = Arc::new(Counting::default());
        let service = chain.service_with(&targets.iter().collect::<Vec<_>>(), counting.clone());
        let store = &chain.pool.store;
        // Whoever is second would find snapshots that are not old enough, so each leaves a clean slate.
        let clean = async || {
            let taken = store.list(&cx, &targets).await.unwrap();
            assert_eq!(taken.len(), 20);
            let doomed: Vec<_> = taken.iter().map(Snapshot::reference).collect();
            store.prune(&cx, &doomed).await.unwrap();
        };
        let due = async || {
            let (zone, policy) = (jiff::tz::TimeZone::UTC, hourly(24));
            let due = ops::due(&chain.engine, &cx, &service, &policy, &zone)
                .await
                .unwrap();
            assert_eq!(due, [Kind::Hourly]);
            ops::snapshot_name(Some(Kind::Hourly), &clock.now().to_zoned(zone)).unwrap()
        };
        let theirs = async || {
            let args = sanoid(&chain.pool, 24, false);
            let work = async { sure(["sh", "-c", &format!("exec sanoid --take-snapshots {args}")]) };
            let (took, _) = timed(&clock, work).await;
            clean().await;
            took
        };
        let mut processes = 0;
        let whole = async || {
            started(&counting);
            let work = async { ops::snapshot(&chain.engine, &cx, &service, &due().await).await };
            let (took, report) = timed(&clock, work).await;
            processes = started(&counting);
            assert_eq!(report.outcome, OpOutcome::Ok, "{report:?}");
            clean().await;
            took
        };
        // What sanoid does: it looks at no data before, and measures nothing.
        let bare = async || {
            let work = async {
                let request = CreateSnapshots {
                    targets: targets.clone(),
                    name: due().await,
                    taken_at: clock.now(),
                    measure: false,
                    unseeded: false,
                };
                store.create(&cx, &request).await.unwrap()
            };
            let (took, taken) = timed(&clock, work).await;
            assert_eq!(taken.len(), 20);
            clean().await;
            took
        };
        let (bare, sanoids) = in_turn(3, bare, theirs).await;
        let what = "zfs: snapshots due on 20 datasets, as sanoid takes them, against sanoid (times as fast)";
        let as_bare = reached(what, (bare, sanoids), sanoids / bare, Goal::AtLeast(10.0));
        let (ours, theirs) = in_turn(3, whole, theirs).await;
        let what = "zfs: snapshots due on 20 datasets, measured too, against sanoid (times as fast)";
        let fast = reached(what, (ours, theirs), theirs / ours, Goal::AtLeast(10.0));
        let few = counted("zfs: snapshots due on 20 datasets (processes)", processes, 5);
        assert!(as_bare && fast && few);
    });
}

#[test]
fn vm_alone_bench_zfs_prune() {
    block_on(async {
        const ROUNDS: usize = 3;
        // Each turn removes the three oldest of each of 20; half of the turns are made with fewer than 2,000 snapshots, half
        // with more.
        const TURNS: usize = 2 * (ROUNDS + 1);
        const EACH: usize = 100 + 3 * TURNS / 2;
        let (chain, clock, cx) = (Chain::new("1G"), SystemClock::new(), context("prune"));
        let targets = many(&chain.pool, 20);
        days_ago(60, || snapshots(EACH, &targets, "autosnap_2020-01-01_00:00:"));
        let counting = Arc::new(Counting::default());
        let service = chain.service_with(&targets.iter().collect::<Vec<_>>(), counting.clone());
        let left = std::cell::Cell::new(EACH);
        // What is to be left, for both the number of hourly snapshots that are wanted.
        let turn = || {
            left.set(left.get() - 3);
            u32::try_from(left.get()).unwrap()
        };
        let is_done = async || {
            let there = chain.pool.store.list(&cx, &targets).await.unwrap();
            assert_eq!(there.len(), 20 * left.get(), "another number was pruned");
        };
        let mut processes = 0;
        let (ours, theirs) = in_turn(
            ROUNDS,
            async || {
                let policy = retention::Policy::Sanoid(hourly(turn()));
                started(&counting);
                let (took, report) = timed(&clock, ops::prune(&chain.engine, &cx, &service, &policy)).await;
                processes = started(&counting);
                assert_eq!(
                    (report.outcome, report.done.len()),
                    (OpOutcome::Ok, 60),
                    "{report:?}"
                );
                is_done().await;
                took
            },
            async || {
                let args = sanoid(&chain.pool, turn(), true);
                let line = format!("exec sanoid --prune-snapshots --force-prune {args}");
                let (took, _) = timed(&clock, async { sure(["sh", "-c", &line]) }).await;
                is_done().await;
                took
            },
        )
        .await;
        let what = "zfs: pruning 60 of 2,000 snapshots, against sanoid (times as fast)";
        let fast = reached(what, (ours, theirs), theirs / ours, Goal::AtLeast(15.0));
        let few = counted("zfs: pruning 60 of 2,000 snapshots (processes)", processes, 3);
        assert!(fast && few);
    });
}
