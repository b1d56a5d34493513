//! Pools and datasets that aren't what one expects: a mirror that has lost a disk, a volume by a service's name, a clone.

use reseed_core::Replicator as _;
use reseed_core::SnapshotStore as _;
use reseed_core::preseed::Outcome;
use reseed_core::store::Condition;
use reseed_testkit::conformance::{block_on, context};
use reseed_testkit::files::Files as _;

use crate::chain::Chain;
use crate::lab::{run, sure};
use crate::source_lab::snapshot;

#[test]
fn a_mirror_that_has_lost_a_disk_serves_as_before() {
    block_on(async {
        let chain = Chain::new("256M");
        let target = chain.pool.target("t");
        let (expected, _) = chain.made(&target, 100_000).await;
        for pool in [&chain.pool, &chain.backs[0]] {
            let (first, second) = (pool.disk(), pool.root.join("disk2"));
            let (first, second) = (first.to_str().unwrap(), second.to_str().unwrap());
            sure(["truncate", "-r", first, second]);
            sure(["zpool", "attach", "-w", &pool.pool, first, second]);
            sure(["zpool", "offline", &pool.pool, second]);
            assert_eq!(sure(["zpool", "list", "-Ho", "health", &pool.pool]), "DEGRADED");
        }
        let service = chain.service(&[&target]);
        let report = chain.preseed("there", &service).await;
        assert_eq!(report.outcome, Outcome::DataPresent, "{}", report.summary());
        chain.lose(&target);
        let report = chain.preseed("lost", &service).await;
        chain.is_back(&target, &expected, &report);
        snapshot(&chain.pool, &target, "two", 2, true).await;
        chain.replicate(std::slice::from_ref(&target)).await;
        assert_eq!(chain.snapshots(&target).await, ["one", "two"]);
    });
}

#[test]
fn a_volume_by_a_services_name_is_neither_nothing_nor_its_data() {
    block_on(async {
        let chain = Chain::new("256M");
        let (target, other) = (chain.pool.target("t"), chain.pool.target("other"));
        chain.made(&target, 100_000).await;
        chain.lose(&target);
        sure(["zfs", "create", "-s", "-V", "16M", target.dataset.as_str()]);
        let guid = || {
            sure([
                "zfs",
                "get",
                "-Hpo",
                "value",
                "guid,type",
                target.dataset.as_str(),
            ])
        };
        let before = guid();
        let report = chain.preseed("volume", &chain.service(&[&target])).await;
        let Outcome::Blocked { why, .. } = &report.outcome else {
            panic!("{}", report.summary());
        };
        assert!(why.contains("volume"), "{why}");
        assert_eq!(guid(), before);
        // In a replica's place: what is to be sent is not sent over it.
        sure(["zfs", "create", other.dataset.as_str()]);
        chain.fill(&other, 10_000);
        snapshot(&chain.pool, &other, "one", 1, false).await;
        let replica = chain.replica(0, &other);
        sure(["zfs", "create", "-s", "-V", "16M", &replica]);
        let before = sure(["zfs", "get", "-Hpo", "value", "guid", &replica]);
        let replicator = chain.replicator(0, &chain.pool.store);
        let (cx, others) = (context("over"), std::slice::from_ref(&other));
        if let Ok(plan) = replicator.plan(&cx, others).await {
            println!("{:?}", replicator.execute(&cx, &plan).await);
        }
        let after = sure(["zfs", "list", "-Hpo", "guid,type", "-r", &chain.backs[0].pool]);
        assert!(after.contains(&format!("{before}\tvolume")), "{after}");
    });
}

#[test]
fn a_clone_is_sent_whole_and_comes_back_without_its_origin() {
    block_on(async {
        let chain = Chain::new("256M");
        let (origin, clone) = (chain.pool.target("origin"), chain.pool.target("clone"));
        chain.made(&origin, 100_000).await;
        sure([
            "zfs",
            "clone",
            &format!("{}@one", origin.dataset),
            clone.dataset.as_str(),
        ]);
        chain
            .pool
            .files
            .write(&clone.mountpoint.join("own"), b"the clone's own");
        snapshot(&chain.pool, &clone, "cloned", 2, true).await;
        chain.replicate(std::slice::from_ref(&clone)).await;
        let expected = chain.pool.files.list(&clone.mountpoint);
        let replica = chain.replica(0, &clone);
        assert_eq!(sure(["zfs", "get", "-Ho", "value", "origin", &replica]), "-");
        chain.lose(&clone);
        let report = chain.preseed("back", &chain.service(&[&clone])).await;
        chain.is_back(&clone, &expected, &report);
        assert_eq!(
            sure(["zfs", "get", "-Ho", "value", "origin", clone.dataset.as_str()]),
            "-"
        );
        // What it was a clone of is as it was.
        assert_eq!(chain.look(&origin).await.condition, Condition::Populated);
        let listed = chain
            .pool
            .store
            .list(&context("list"), &[origin, clone])
            .await
            .unwrap();
        assert_eq!(listed.len(), 2);
        assert!(run(["zfs", "list", &replica]).exit.success());
    });
}
