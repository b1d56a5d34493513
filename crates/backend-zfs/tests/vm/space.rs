//! Quotas and reservations are the service's, and come back with its data; a replica has none of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use reseed_backend_zfs::zfs::LocalSource;
use reseed_core::exec::SystemRunner;
use reseed_core::ops;
use reseed_core::point::Target;
use reseed_core::preseed::Outcome;
use reseed_core::service::Service;
use reseed_testkit::conformance::{block_on, context};
use reseed_testkit::files::Files as _;

use crate::chain::Chain;
use crate::lab::sure;

const SET: [(&str, &str); 4] = [
    ("quota", "104857600"),
    ("refquota", "94371840"),
    ("reservation", "10485760"),
    ("refreservation", "5242880"),
];

fn value(property: &str, dataset: &str) -> String {
    sure(["zfs", "get", "-Hpo", "value", property, dataset])
}

#[track_caller]
fn has(dataset: &str, expected: [&str; 4]) {
    for ((property, _), expected) in SET.iter().zip(expected) {
        assert_eq!(value(property, dataset), expected, "{property} of {dataset}");
    }
}

#[test]
fn quotas_and_reservations_come_back_from_a_replica_that_has_none() {
    block_on(async {
        let chain = Chain::new("512M");
        let target = chain.pool.target("a");
        let dataset = target.dataset.as_str();
        sure(["zfs", "create", dataset]);
        for (property, value) in SET {
            sure(["zfs", "set", &format!("{property}={value}"), dataset]);
        }
        chain.fill(&target, 1000);
        crate::source_lab::snapshot(&chain.pool, &target, "one", 1, true).await;
        chain.replicate(std::slice::from_ref(&target)).await;
        let replica = chain.replica(0, &target);
        has(&replica, ["0"; 4]);
        // The last word counts: it comes along with the next increment.
        sure(["zfs", "set", "quota=209715200", dataset]);
        sure(["zfs", "set", "refreservation=none", dataset]);
        chain.fill(&target, 2000);
        crate::source_lab::snapshot(&chain.pool, &target, "two", 2, true).await;
        chain.replicate(std::slice::from_ref(&target)).await;
        has(&replica, ["0"; 4]);
        let expected = chain.pool.files.list(&target.mountpoint);
        chain.lose(&target);
        let report = chain.preseed("back", &chain.service(&[&target])).await;
        chain.is_back(&target, &expected, &report);
        has(dataset, ["209715200", "94371840", "10485760", "0"]);
        assert_eq!(value("readonly", dataset), "off");
        assert_eq!(report.warnings, Vec::<String>::new());
        // They are reseed's record, and not the live dataset's.
        assert_eq!(value("reseed:settings", dataset), "-");

        // What is declared stands above it, and a reservation that there is no room for is no reason to stay away.
        chain.lose(&target);
        let free: u64 = value("available", &chain.pool.pool).parse().unwrap();
        let most = format!("reservation={}", free - (60 << 20));
        sure([
            "zfs",
            "create",
            "-o",
            "canmount=off",
            "-o",
            &most,
            &format!("{}/taken", chain.pool.pool),
        ]);
        let declared = BTreeMap::from([
            ("quota".to_owned(), "150M".to_owned()),
            ("reservation".to_owned(), "100M".to_owned()),
        ]);
        let store = chain
            .store(Arc::new(SystemRunner::new()))
            .declared(BTreeMap::from([(target.dataset.clone(), declared)]));
        let service = Service {
            sources: vec![Arc::new(chain.source_of(0, &store))],
            store: Arc::new(store),
            ..chain.service(&[&target])
        };
        let report = chain.preseed("declared", &service).await;
        chain.is_back(&target, &expected, &report);
        has(dataset, ["157286400", "94371840", "0", "0"]);
        assert!(
            report
                .warnings
                .iter()
                .any(|warning| warning.contains("reservation=100M")),
            "{:?}",
            report.warnings
        );
    });
}

#[test]
fn quotas_and_reservations_come_back_from_a_local_snapshot() {
    block_on(async {
        let chain = Chain::new("512M");
        let target = chain.pool.target("a");
        let dataset = target.dataset.as_str();
        chain.made(&target, 1000).await;
        for (property, value) in SET {
            sure(["zfs", "set", &format!("{property}={value}"), dataset]);
        }
        let expected = chain.pool.files.list(&target.mountpoint);
        // Emptied: the same dataset's own snapshot has it.
        for entry in std::fs::read_dir(&target.mountpoint).unwrap() {
            chain.pool.files.remove(&entry.unwrap().path());
        }
        let service = Service {
            sources: vec![Arc::new(LocalSource::new(&chain.pool.store))],
            ..chain.service(&[&target])
        };
        let report = chain.preseed("back", &service).await;
        assert_eq!(report.outcome, Outcome::Restored, "{}", report.summary());
        chain.is_back(&target, &expected, &report);
        has(dataset, SET.map(|(_, value)| value));
    });
}

/// Back to its own snapshot, and what is set on it then.
async fn back(chain: &Chain, target: &Target) -> Vec<String> {
    let mut service = chain.service(&[target]);
    service.sources = vec![Arc::new(LocalSource::new(&chain.pool.store))];
    let cx = context("rollback");
    let preview = ops::rollback_plan(&chain.engine, &cx, &service, "one")
        .await
        .unwrap();
    let report = ops::rollback(&chain.engine, &cx, &service, &preview)
        .await
        .unwrap();
    assert_eq!(report.outcome, Outcome::Restored, "{}", report.summary());
    report.warnings
}

/// `zfs set quota=none` leaves a 0 of its own, which no clone can be made with.
#[test]
fn a_quota_that_was_taken_away_again_costs_no_other_setting() {
    block_on(async {
        let chain = Chain::new("512M");
        let target = chain.pool.target("a");
        let dataset = target.dataset.as_str();
        chain.made(&target, 1000).await;
        for set in [
            "recordsize=16K",
            "quota=none",
            "refquota=none",
            "reservation=none",
            "refreservation=none",
            "filesystem_limit=none",
        ] {
            sure(["zfs", "set", set, dataset]);
        }
        assert_eq!(back(&chain, &target).await, Vec::<String>::new());
        assert_eq!(value("recordsize", dataset), "16384");
        has(dataset, ["0"; 4]);
    });
}

#[test]
fn what_cannot_be_set_on_what_comes_back_costs_only_itself() {
    block_on(async {
        let chain = Chain::new("512M");
        let target = chain.pool.target("a");
        let dataset = target.dataset.as_str();
        chain.made(&target, 20_000_000).await;
        // Less than the snapshot holds.
        chain.pool.files.remove(&target.mountpoint.join("noise"));
        sure(["zpool", "sync", &chain.pool.pool]);
        for set in [
            "recordsize=16K",
            "refquota=10M",
            "acltype=posix",
            "reseed-test:x=a b",
        ] {
            sure(["zfs", "set", set, dataset]);
        }
        let warnings = back(&chain, &target).await;
        assert!(
            warnings.len() == 1 && warnings[0].contains("refquota"),
            "{warnings:?}"
        );
        assert_eq!(value("recordsize", dataset), "16384");
        assert_eq!(value("acltype", dataset), "posix");
        assert_eq!(value("reseed-test:x", dataset), "a b");
    });
}
