//! Replication against the bare commands and against syncoid, all in one run and in turn. What is measured is the whole
//! operation as `reseed replicate` runs it: planning, checking, sending, the bookmark, the hold on the base, the history.

use std::sync::Arc;
use std::time::Duration;

use reseed_backend_zfs::zfs::{Location, Mapping, NativeReplicator};
use reseed_core::clock::{Clock as _, SystemClock};
use reseed_core::engine::Engine;
use reseed_core::names::{DatasetName, ServiceName};
use reseed_core::ops::{self, OpOutcome};
use reseed_core::service::{Policy, Service};
use reseed_testkit::conformance::{block_on, context};

use crate::bench_measure::{Goal, counted, in_turn, median, reached, started, timed};
use crate::chain::engine;
use crate::lab::{Counting, name, sure};
use crate::vm_cost::Lab;

/// A service over all datasets of a lab, with the lab's replica of ours.
struct Whole {
    engine: Engine,
    service: Service,
    counting: Arc<Counting>,
}

impl Whole {
    fn of(lab: &Lab) -> Self {
        let counting = Arc::new(Counting::default());
        let places = lab.pool.store.places();
        let store = reseed_backend_zfs::zfs::NativeStore::new(name("local"), counting.clone(), places);
        let root = DatasetName::new(format!("{}/ours", lab.back.pool)).unwrap();
        let replicator = NativeReplicator::new(name("second"), &store, Location::Local, Mapping::below(root));
        Self {
            engine: engine(&lab.pool.root),
            service: Service {
                name: ServiceName::new("app").unwrap(),
                targets: lab.targets.clone(),
                sources: Vec::new(),
                store: Arc::new(store),
                replicators: vec![Arc::new(replicator)],
                offsite: Vec::new(),
                policy: Policy::default(),
            },
            counting,
        }
    }

    /// Runs the operation; how many processes it took.
    async fn replicate(&self, sent: usize) -> usize {
        let reports = ops::replicate(&self.engine, &context("bench"), &self.service).await;
        let [report] = &reports[..] else {
            panic!("{reports:?}")
        };
        let expected = match sent {
            0 => OpOutcome::UpToDate,
            _ => OpOutcome::Ok,
        };
        assert_eq!(
            (report.outcome, report.done.len()),
            (expected, sent),
            "{report:?}"
        );
        assert!(report.warnings.is_empty(), "{report:?}");
        started(&self.counting)
    }
}

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
    /// The fewest of a round: now and then one also removes old bookmarks.
    processes: usize,
}

/// Rounds of one increment each, by everybody in turn; the first round, in full, and the one after it are left out.
async fn rounds(lab: &mut Lab, rounds: usize, with_syncoid: bool) -> Times {
    let (clock, mut times, whole) = (SystemClock::new(), Times::default(), Whole::of(lab));
    for round in 0..rounds + 2 {
        lab.change();
        for who in 0..3 {
            let began = clock.monotonic();
            let took = |began| clock.monotonic().saturating_sub(began);
            // Who is first changes.
            match (who + round) % 3 {
                0 => {
                    let processes = whole.replicate(lab.targets.len()).await;
                    times.processes = match times.processes {
                        0 => processes,
                        fewest => fewest.min(processes),
                    };
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
    println!("{times:?}");
    let all = [
        &mut times.ours,
        &mut times.pipes,
        &mut times.lists,
        &mut times.syncoid,
    ];
    for part in all.into_iter().filter(|part| !part.is_empty()) {
        part.drain(..2);
    }
    times
}

#[test]
fn vm_alone_bench_zfs_one_increment() {
    block_on(async {
        let times = rounds(&mut Lab::new(1), 9, false).await;
        let (ours, bare) = (median(times.ours), median(times.pipes) + median(times.lists));
        let what = format!(
            "zfs: one increment ({} processes), against its pipe and two listings",
            times.processes
        );
        assert!(reached(&what, (ours, bare), ours / bare, Goal::AtMost(1.3)));
    });
}

#[test]
fn vm_alone_bench_zfs_twenty_increments() {
    block_on(async {
        let times = rounds(&mut Lab::new(20), 3, true).await;
        let (ours, pipes, syncoid) = (median(times.ours), median(times.pipes), median(times.syncoid));
        let what = format!(
            "zfs: 20 increments ({} processes), against a serial loop of bare pipes",
            times.processes
        );
        let one = reached(&what, (ours, pipes), ours / pipes, Goal::AtMost(1.0));
        let what = "zfs: 20 increments, against syncoid -r (times as fast)";
        let other = reached(what, (ours, syncoid), syncoid / ours, Goal::AtLeast(7.0));
        assert!(one && other);
    });
}

#[test]
fn vm_alone_bench_zfs_up_to_date() {
    block_on(async {
        let (mut lab, clock) = (Lab::new(20), SystemClock::new());
        let whole = Whole::of(&lab);
        lab.change();
        whole.replicate(20).await;
        syncoid(&lab);
        let mut processes = 0;
        let (ours, theirs) = in_turn(
            3,
            async || {
                let (took, count) = timed(&clock, whole.replicate(0)).await;
                processes = count;
                took
            },
            async || timed(&clock, async { syncoid(&lab) }).await.0,
        )
        .await;
        let what = "zfs: 20 datasets up to date, against syncoid -r (times as fast)";
        let fast = reached(what, (ours, theirs), theirs / ours, Goal::AtLeast(10.0));
        let few = counted("zfs: 20 datasets up to date (processes)", processes, 4);
        assert!(fast && few);
    });
}
