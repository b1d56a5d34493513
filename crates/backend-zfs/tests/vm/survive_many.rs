//! Many datasets and many snapshots: how many processes, and how long.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reseed_backend_zfs::zfs::NativeStore;
use reseed_core::SnapshotStore as _;
use reseed_core::clock::{Clock as _, SystemClock};
use reseed_core::preseed::{Outcome, preseed};
use reseed_core::point::Target;
use reseed_core::store::Condition;
use reseed_testkit::conformance::{block_on, context};
use reseed_testkit::files::Files as _;

use crate::chain::Chain;
use crate::lab::{Pool, name, run, sure};
use crate::vm_traps::Counting;

/// Runs a channel program: a thousand datasets by as many processes would take minutes.
pub(crate) fn program(pool: &Pool, text: &str) {
    let file = pool.root.join("program");
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    sure(["zfs", "program", "-t", "100000000", "-m", "100000000", &pool.pool, file]);
}

/// Datasets that hold data and are mounted.
pub(crate) fn many(pool: &Pool, count: usize) -> Vec<Target> {
    let template = format!("{}/template", pool.pool);
    sure(["zfs", "create", &template]);
    pool.files.write(&pool.root.join("live/template/data"), b"1");
    sure(["zfs", "snapshot", &format!("{template}@t")]);
    let mut text = String::new();
    let targets: Vec<Target> = (0..count).map(|at| pool.target(&format!("t{at}"))).collect();
    for target in &targets {
        let _ = writeln!(text, "assert(zfs.sync.clone('{template}@t', '{}') == 0)", target.dataset);
    }
    program(pool, &text);
    sure(["zfs", "mount", "-a"]);
    targets
}

#[test]
fn a_thousand_datasets_take_as_many_processes_as_one() {
    block_on(async {
        let chain = Chain::new("1G");
        let pool = &chain.pool;
        let clock = SystemClock::new();
        let targets = many(pool, 1000);
        let made = clock.monotonic();
        let counting = Arc::new(Counting::default());
        let store = NativeStore::new(name("local"), counting.clone(), pool.store.places());
        let cx = context("thousand");

        let began = clock.monotonic();
        let found = store.inspect(&cx, &targets).await.unwrap();
        let inspected = clock.monotonic() - began;
        let populated = found.iter().filter(|one| one.condition == Condition::Populated).count();
        assert_eq!((found.len(), populated), (1000, 1000));
        assert_eq!(counting.started.load(Ordering::SeqCst), 1);

        let mut text = String::new();
        for target in &targets {
            let _ = writeln!(text, "assert(zfs.sync.snapshot('{}@one') == 0)", target.dataset);
        }
        program(pool, &text);
        let began = clock.monotonic();
        let listed = store.list(&cx, &targets).await.unwrap();
        let took = clock.monotonic() - began;
        assert_eq!(listed.len(), 1000);
        let processes = counting.started.load(Ordering::SeqCst) - 1;
        println!("1,000 datasets: made in {made:?}, inspected in {inspected:?}, listed in {took:?} by {processes} processes");
        assert!(processes <= 4, "{processes}");

        let services: Vec<_> = targets.iter().map(|target| chain.service(&[target])).collect();
        let shared = services[0].store.clone();
        let services: Vec<_> = services
            .into_iter()
            .map(|mut service| {
                service.store = shared.clone();
                service
            })
            .collect();
        let all: Vec<_> = services.iter().collect();
        let began = clock.monotonic();
        let reports = preseed(&chain.engine, &cx, &all, chain.engine.clock.monotonic()).await;
        println!("1,000 services: preseeded in {:?}", clock.monotonic() - began);
        assert!(reports.iter().all(|report| report.outcome == Outcome::DataPresent));
        assert!(clock.monotonic() - began < Duration::from_secs(60));
        // Destroying a pool with a thousand mounts takes longer than the test: unmount in one go.
        let _ = run(["zfs", "unmount", "-a"]);
    });
}
