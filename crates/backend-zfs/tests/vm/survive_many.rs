//! Many datasets and many snapshots: how many processes, and how long.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use reseed_core::clock::{Clock as _, SystemClock};
use reseed_core::names::SnapshotName;
use reseed_core::point::Target;
use reseed_core::preseed::{Outcome, preseed};
use reseed_core::store::{Condition, CreateSnapshots};
use reseed_core::{Replicator as _, SnapshotStore as _};
use reseed_testkit::conformance::{block_on, context, minute};
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

/// The same from one dataset, by one channel program and one process that mounts them all: a process for each would take
/// minutes where instructions are emulated.
fn very_many(pool: &Pool, count: usize) -> Vec<Target> {
    let seed = many(pool, 1).remove(0).dataset;
    sure(["zfs", "snapshot", &format!("{seed}@seed")]);
    program(
        pool,
        &format!(
            "for at = 1, {} do assert(zfs.sync.clone('{seed}@seed', '{}/svc/t' .. at) == 0) end",
            count - 1,
            pool.pool
        ),
    );
    sure(["zfs", "mount", "-a"]);
    (0..count).map(|at| pool.target(&format!("t{at}"))).collect()
}

#[test]
fn a_thousand_datasets_take_as_many_processes_as_one() {
    block_on(async {
        const COUNT: usize = 1000;
        let chain = Chain::new("512M");
        let clock = SystemClock::new();
        let mut targets = very_many(&chain.pool, COUNT);
        let counting = Arc::new(Counting::default());
        let store = Arc::new(chain.store(counting.clone()));
        let cx = context("thousand");
        let mut since = clock.monotonic();
        // What was done, how long it took, and by how many processes.
        let mut processes = |what: &str| {
            let now = clock.monotonic();
            let count = counting.started.swap(0, Ordering::SeqCst);
            println!(
                "{COUNT} datasets {what} in {:?} by {count} processes",
                now - since
            );
            since = now;
            count
        };
        processes("made");

        let services: Vec<_> = targets
            .iter()
            .map(|target| {
                let mut service = chain.service(&[target]);
                service.store = store.clone();
                service
            })
            .collect();
        let all: Vec<_> = services.iter().collect();
        let reports = preseed(&chain.engine, &cx, &all, chain.engine.clock.monotonic()).await;
        assert_eq!(reports.len(), COUNT);
        for report in &reports {
            assert_eq!(report.outcome, Outcome::DataPresent, "{}", report.summary());
        }
        assert_eq!(processes("looked at by preseed"), 1);

        let request = CreateSnapshots {
            targets: targets.clone(),
            name: SnapshotName::new("one").unwrap(),
            taken_at: minute(1),
            measure: false,
            unseeded: false,
        };
        let taken = store.create(&cx, &request).await.unwrap();
        assert_eq!(taken.len(), COUNT);
        // One takes them, all in one transaction group, and one lists what was made.
        assert_eq!(processes("snapshotted"), 2);
        let listed = store.list(&cx, &targets).await.unwrap();
        assert_eq!(listed.len(), COUNT + 1, "and the one that they are clones of");
        assert_eq!(processes("listed"), 1);

        let replicator = chain.replicator(0, &store);
        let plan = replicator.plan(&cx, &targets).await.unwrap();
        assert_eq!(plan.steps.len(), COUNT);
        assert!(plan.steps.iter().all(|step| step.set_aside.is_none()));
        assert_eq!(processes("planned to be replicated"), 1);

        // Those that are declared and not there are told apart from them, and whether their pool is.
        targets.extend((COUNT..COUNT + 20).map(|at| chain.pool.target(&format!("t{at}"))));
        let found = store.inspect(&cx, &targets).await.unwrap();
        let is = |condition: Condition| found.iter().filter(|one| one.condition == condition).count();
        assert_eq!((is(Condition::Populated), is(Condition::Absent)), (COUNT, 20));
        assert!(processes("and 20 that are not there inspected") <= 2);
    });
}
