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

/// Datasets that hold data and are mounted.
pub(crate) fn many(pool: &Pool, count: usize) -> Vec<Target> {
    let line = format!(
        "set -e; for at in $(seq 0 {}); do zfs create -u {}/svc/t$at; done; zfs mount -a",
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

/// Each costs a process and a transaction group to make, a quarter of a second where instructions are emulated, and a channel
/// program can make none. So this many are real, and the rest of the thousand declared and not there, which is the longer
/// answer: `zfs` says a line about each.
const REAL: usize = 150;

#[test]
fn a_thousand_datasets_take_as_many_processes_as_one() {
    block_on(async {
        let chain = Chain::new("512M");
        let clock = SystemClock::new();
        let mut targets = many(&chain.pool, REAL);
        let counting = Arc::new(Counting::default());
        let store = Arc::new(chain.store(counting.clone()));
        let cx = context("thousand");
        let mut since = clock.monotonic();
        // What was done, how long it took, and by how many processes.
        let mut processes = |what: &str| {
            let now = clock.monotonic();
            let count = counting.started.swap(0, Ordering::SeqCst);
            println!("{what} in {:?} by {count} processes", now - since);
            since = now;
            count
        };
        processes(&format!("{REAL} datasets made"));

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
        assert_eq!(reports.len(), REAL);
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
        assert_eq!(taken.len(), REAL);
        // One takes them, all in one transaction group, and one lists what was made.
        assert_eq!(processes("snapshotted"), 2);
        let listed = store.list(&cx, &targets).await.unwrap();
        assert_eq!(listed.len(), REAL);
        assert_eq!(processes("listed"), 1);

        let replicator = chain.replicator(0, &store);
        let plan = replicator.plan(&cx, &targets).await.unwrap();
        assert_eq!(plan.steps.len(), REAL);
        assert!(plan.steps.iter().all(|step| step.set_aside.is_none()));
        // One asks for either side.
        assert_eq!(processes("planned to be replicated"), 2);

        // The rest is told apart from them, and from what can't be asked.
        targets.extend((REAL..1000).map(|at| chain.pool.target(&format!("t{at}"))));
        let found = store.inspect(&cx, &targets).await.unwrap();
        let is = |condition: Condition| found.iter().filter(|one| one.condition == condition).count();
        assert_eq!(
            (is(Condition::Populated), is(Condition::Absent)),
            (REAL, 1000 - REAL)
        );
        // One asks for all of them, one whether the pool of those that aren't there is.
        assert!(processes("1,000 inspected") <= 2);
        assert_eq!(store.list(&cx, &targets).await.unwrap().len(), REAL);
        assert!(processes("1,000 listed") <= 2);
        let plan = replicator.plan(&cx, &targets).await.unwrap();
        assert_eq!(plan.steps.len(), REAL);
        assert!(processes("1,000 planned") <= 4);
    });
}
