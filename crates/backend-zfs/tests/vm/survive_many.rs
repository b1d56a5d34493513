//! Many datasets and many snapshots: how many processes, and how long.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use reseed_core::SnapshotStore as _;
use reseed_core::clock::{Clock as _, SystemClock};
use reseed_core::point::Target;
use reseed_core::preseed::{Outcome, preseed};
use reseed_core::store::Condition;
use reseed_testkit::conformance::{block_on, context};
use reseed_testkit::files::Files as _;

use crate::chain::Chain;
use crate::lab::{Counting, Pool, sure};

/// Runs a channel program: thousands of snapshots by as many processes would take minutes.
pub(crate) fn program(pool: &Pool, text: &str) {
    let file = pool.root.join("program");
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    sure([
        "zfs",
        "program",
        "-t",
        "100000000",
        "-m",
        "100000000",
        &pool.pool,
        file,
    ]);
}

/// Datasets that hold data and are mounted.
pub(crate) fn many(pool: &Pool, count: usize) -> Vec<Target> {
    let line = format!(
        "set -e; for at in $(seq 0 {}); do zfs create {}/svc/t$at; done",
        count - 1,
        pool.pool
    );
    sure(["sh", "-c", &line]);
    let targets: Vec<Target> = (0..count).map(|at| pool.target(&format!("t{at}"))).collect();
    for target in &targets {
        pool.files.write(&target.mountpoint.join("data"), b"1");
    }
    targets
}

/// Making a thousand datasets takes minutes where instructions are emulated, so most of these are declared and not there:
/// the longer answer, for `zfs` says a line about each.
#[test]
fn a_thousand_datasets_take_as_many_processes_as_one() {
    block_on(async {
        const THERE: usize = 20;
        let chain = Chain::new("256M");
        let pool = &chain.pool;
        let clock = SystemClock::new();
        let mut targets = many(pool, THERE);
        let mut text = String::new();
        for target in &targets {
            let _ = writeln!(text, "assert(zfs.sync.snapshot('{}@one') == 0)", target.dataset);
        }
        program(pool, &text);
        targets.extend((THERE..1000).map(|at| pool.target(&format!("t{at}"))));
        let counting = Arc::new(Counting::default());
        let store = Arc::new(chain.store(counting.clone()));
        let cx = context("thousand");

        let began = clock.monotonic();
        let found = store.inspect(&cx, &targets).await.unwrap();
        let inspected = clock.monotonic() - began;
        let is = |condition: Condition| found.iter().filter(|one| one.condition == condition).count();
        assert_eq!(
            (is(Condition::Populated), is(Condition::Absent)),
            (THERE, 1000 - THERE)
        );
        // One asks for all of them, one whether the pool of those that aren't there is.
        assert!(counting.started.swap(0, Ordering::SeqCst) <= 2);

        let began = clock.monotonic();
        let listed = store.list(&cx, &targets).await.unwrap();
        let took = clock.monotonic() - began;
        assert_eq!(listed.len(), THERE);
        let processes = counting.started.swap(0, Ordering::SeqCst);
        println!("1,000 datasets: inspected in {inspected:?}, listed in {took:?} by {processes} processes");
        assert!(processes <= 2, "{processes}");

        let services: Vec<_> = targets[..THERE]
            .iter()
            .map(|target| {
                let mut service = chain.service(&[target]);
                service.store = store.clone();
                service
            })
            .collect();
        let all: Vec<_> = services.iter().collect();
        let reports = preseed(&chain.engine, &cx, &all, chain.engine.clock.monotonic()).await;
        assert!(
            reports
                .iter()
                .all(|report| report.outcome == Outcome::DataPresent)
        );
        assert_eq!(counting.started.load(Ordering::SeqCst), 1);
    });
}
