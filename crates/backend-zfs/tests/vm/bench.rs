//! Restoring, preseed and planning against the bare commands, each in one run and in turn.

use std::fmt::Write as _;
use std::sync::Arc;

use reseed_backend_zfs::zfs::ReplicaSource;
use reseed_core::clock::{Clock as _, SystemClock};
use reseed_core::point::{Snapshot, Target};
use reseed_core::preseed::{Outcome, preseed};
use reseed_core::retention::{self, Inventory, Point};
use reseed_core::store::Settle;
use reseed_core::{Replicator as _, RestoreSource as _, SnapshotStore as _};
use reseed_testkit::conformance::{block_on, context};
use reseed_testkit::files::Files as _;

use crate::bench_measure::{Goal, counted, in_turn, reached, started, timed};
use crate::chain::{Chain, noise};
use crate::lab::{Counting, run, sure};
use crate::source_lab::whole;
use crate::vm_survive_many::many;

#[test]
fn vm_alone_bench_zfs_replica_restore() {
    block_on(async {
        const MIB: usize = 512;
        let chain = Chain::new("2G");
        let target = chain.pool.target("t");
        sure(["zfs", "create", target.dataset.as_str()]);
        let part = noise(16 << 20);
        for at in 0..MIB / 16 {
            chain
                .pool
                .files
                .write(&target.mountpoint.join(format!("part{at}")), &part);
        }
        // Measured, as snapshots of a service are: what was measured needn't be counted again.
        crate::source_lab::snapshot(&chain.pool, &target, "one", 1, true).await;
        let replicator = chain.replicator(0, &chain.pool.store);
        let cx = context("bench");
        let plan = replicator.plan(&cx, std::slice::from_ref(&target)).await.unwrap();
        replicator.execute(&cx, &plan).await.unwrap();
        chain.lose(&target);
        sure(["zpool", "sync"]);
        let replica = format!("{}@one", chain.replica(0, &target));
        let bare = format!("{}/svc/bare", chain.pool.pool);
        let line = format!("zfs send -p -L -c '{replica}' | zfs receive -u -x mountpoint '{bare}'");
        let source: &ReplicaSource = &chain.source(0);
        let (store, clock) = (&chain.pool.store, SystemClock::new());
        let points = source.points(&cx, &target).await.unwrap();
        let (request, stage) = whole(&target, &points[0]);
        let (ours, theirs) = in_turn(
            5,
            async || {
                // From asking what there is to the dataset that is ready to be verified.
                let (took, staging) = timed(&clock, async {
                    let plan = source.plan(&cx, &request).await.unwrap();
                    let staging = store.stage(&cx, &stage).await.unwrap();
                    source.execute(&cx, &plan, &staging).await.unwrap();
                    staging
                })
                .await;
                store.settle(&cx, &Settle::Discard { staging }).await.unwrap();
                sure(["zpool", "sync"]);
                took
            },
            async || {
                let (took, _) = timed(&clock, async { sure(["sh", "-c", &line]) }).await;
                sure(["zfs", "destroy", "-r", &bare]);
                sure(["zpool", "sync"]);
                took
            },
        )
        .await;
        let what = "zfs: restore of 512 MiB from a replica (speed)";
        assert!(reached(what, (ours, theirs), theirs / ours, Goal::AtLeast(0.95)));
    });
}

#[test]
fn vm_alone_bench_zfs_preseed_present() {
    block_on(async {
        let chain = Chain::new("1G");
        let targets = many(&chain.pool, 50);
        let counting = Arc::new(Counting::default());
        let store = Arc::new(chain.store(counting.clone()));
        let services: Vec<_> = targets
            .iter()
            .map(|target| {
                let mut service = chain.service(&[target]);
                service.store = store.clone();
                service
            })
            .collect();
        let all: Vec<_> = services.iter().collect();
        let columns = "type,guid,mountpoint,canmount,origin,receive_resume_token,reseed:marker,reseed:stage";
        let mut line = format!("exec zfs get -Hp -o name,property,value,source {columns}");
        for target in &targets {
            let _ = write!(
                line,
                " {0} {1}/svc/.reseed-stage:{2} {1}/svc/.reseed-files:{2}",
                target.dataset,
                chain.pool.pool,
                target.dataset.leaf()
            );
        }
        line.push_str(" >/dev/null 2>&1");
        let (clock, cx) = (SystemClock::new(), context("present"));
        let mut processes = 0;
        let (ours, theirs) = in_turn(
            9,
            async || {
                let work = preseed(&chain.engine, &cx, &all, chain.engine.clock.monotonic());
                let (took, reports) = timed(&clock, work).await;
                let present =
                    |report: &reseed_core::preseed::ServiceReport| report.outcome == Outcome::DataPresent;
                assert!(reports.iter().all(present));
                processes = started(&counting);
                took
            },
            // It exits with 1: nothing is staged.
            async || timed(&clock, async { run(["sh", "-c", &line]) }).await.0,
        )
        .await;
        let what = "zfs: preseed of 50 present datasets";
        let fast = reached(what, (ours, theirs), ours / theirs, Goal::AtMost(1.3));
        let few = counted("zfs: preseed of 50 present datasets (processes)", processes, 1);
        assert!(fast && few);
    });
}

/// So many snapshots of each, one of all datasets at a time: a channel program takes no two of one dataset.
pub(crate) fn snapshots(per: usize, targets: &[Target], prefix: &str) {
    let mut line = format!("set -e; for i in $(seq {per}); do zfs snapshot");
    for target in targets {
        let _ = write!(line, " {}@{prefix}$i''_hourly", target.dataset);
    }
    line.push_str("; done");
    sure(["sh", "-c", &line]);
}

/// What a policy wants of a dataset's snapshots.
fn planned(of: &[Snapshot], policy: &retention::Policy, now: jiff::Timestamp) -> retention::Plan {
    let points = of
        .iter()
        .map(|one| Point::new(one.name.as_str(), one.guid.to_string(), one.taken_at))
        .collect();
    let inventory = Inventory {
        points,
        ..Inventory::default()
    };
    retention::plan(inventory, policy, now)
}

#[test]
fn vm_alone_bench_zfs_plan_retention() {
    block_on(async {
        // Fewer than in the goal: making and listing them is what takes the time, and both sides are linear.
        const DATASETS: usize = 50;
        const EACH: usize = 60;
        let chain = Chain::new("1G");
        let targets = many(&chain.pool, DATASETS);
        snapshots(EACH, &targets, "autosnap_");
        let columns =
            "name,guid,createtxg,creation,userrefs,referenced,reseed:taken,reseed:unseeded,reseed:digest";
        let mut line = format!("exec zfs list -Hp -t snapshot -d 1 -o {columns}");
        for target in &targets {
            let _ = write!(line, " {}", target.dataset);
        }
        line.push_str(" >/dev/null");
        let policy = retention::Policy::Sanoid(retention::sanoid::Policy {
            hourly: Some(24),
            ..Default::default()
        });
        let (clock, cx) = (SystemClock::new(), context("plan"));
        let (ours, theirs) = in_turn(
            3,
            async || {
                let work = async {
                    let listed = chain.pool.store.list(&cx, &targets).await.unwrap();
                    assert_eq!(listed.len(), DATASETS * EACH);
                    for part in listed.chunk_by(|a, b| a.dataset == b.dataset) {
                        let plan = planned(part, &policy, clock.now());
                        assert_eq!(plan.keep.len() + plan.remove.len(), EACH);
                    }
                };
                timed(&clock, work).await.0
            },
            async || timed(&clock, async { sure(["sh", "-c", &line]) }).await.0,
        )
        .await;
        let what = "zfs: listing and planning over 3,000 snapshots";
        assert!(reached(what, (ours, theirs), ours / theirs, Goal::AtMost(1.2)));
    });
}
