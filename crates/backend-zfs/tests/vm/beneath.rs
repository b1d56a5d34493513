//! What lies beneath the mount of live data: it was hidden all the time, so it hinders no restore, and it stays.

use std::path::Path;
use std::sync::Arc;

use reseed_backend_zfs::zfs::LocalSource;
use reseed_core::ops;
use reseed_core::point::Target;
use reseed_core::preseed::Outcome;
use reseed_core::store::Condition;
use reseed_testkit::conformance::{block_on, context};
use reseed_testkit::files::Files as _;

use crate::chain::{Chain, Meddler};
use crate::lab::{run, sure};
use crate::source_lab::snapshot;
use crate::vm_odd::Warnings;
use crate::vm_places::rolled_back;

/// A dataset with two snapshots, beneath whose mount something lies.
async fn lab(chain: &Chain, name: &str) -> Target {
    let target = chain.pool.target(name);
    let dataset = target.dataset.as_str();
    sure(["zfs", "create", dataset]);
    for (minutes, name) in [(1, "one"), (2, "two")] {
        chain
            .pool
            .files
            .write(&target.mountpoint.join(name), name.as_bytes());
        snapshot(&chain.pool, &target, name, minutes, true).await;
    }
    // The service was started once before ZFS had mounted it.
    sure(["zfs", "unmount", dataset]);
    let stray = target.mountpoint.join("stray");
    chain.pool.files.write(&stray, b"written before the mount");
    sure(["zfs", "mount", dataset]);
    assert!(!stray.exists());
    target
}

/// What lies beneath is still there.
fn stray(chain: &Chain, target: &Target) -> String {
    let at = chain.pool.root.join("beneath");
    std::fs::create_dir_all(&at).unwrap();
    let above = target.mountpoint.parent().unwrap();
    sure(["mount", "--bind", above.to_str().unwrap(), at.to_str().unwrap()]);
    let file = at.join(target.mountpoint.file_name().unwrap()).join("stray");
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    sure(["umount", at.to_str().unwrap()]);
    found
}

#[test]
fn what_lies_beneath_the_mount_of_live_data_does_not_hinder_a_rollback() {
    block_on(async {
        let chain = Chain::new("256M");
        let target = lab(&chain, "a").await;
        let mut service = chain.service(&[&target]);
        service.sources = vec![Arc::new(LocalSource::new(&chain.pool.store))];
        let preview = ops::rollback_plan(&chain.engine, &context("plan"), &service, "one")
            .await
            .unwrap();
        let (warnings, cx) = Warnings::of("rollback");
        let report = ops::rollback(&chain.engine, &cx, &service, &preview)
            .await
            .unwrap();
        assert_eq!(report.outcome, Outcome::Restored, "{}", report.summary());
        let there = |name: &str| target.mountpoint.join(name).exists();
        assert!(there("one") && !there("two") && !there("stray"));
        assert_eq!(stray(&chain, &target), "written before the mount");
        let told = warnings.told();
        assert!(
            told.contains("below the mount of") && told.contains("mount --bind"),
            "{told}"
        );
    });
}

/// From then on it is seen there, and whoever is started may write there.
#[test]
fn what_lies_beneath_hinders_the_next_run_and_the_first_one_says_so() {
    block_on(async {
        let chain = Chain::new("256M");
        let target = lab(&chain, "a").await;
        let dataset = target.dataset.to_string();
        let runner = Arc::new(Meddler::before(&["mount"], move || {
            sure(["zfs", "set", "canmount=off", &dataset]);
        }));
        let mut service = chain.service_with(&[&target], runner.clone());
        service.sources = vec![Arc::new(LocalSource::new(&chain.pool.store))];
        let failed = rolled_back(&chain, &service, "fails").await.unwrap_err();
        assert!(runner.has_meddled());
        assert!(
            failed.contains("once what lies at") && failed.contains("is moved away"),
            "{failed}"
        );
        let stray = target.mountpoint.join("stray");
        chain.preseed("hindered", &service).await;
        let found = chain.look(&target).await;
        assert!(matches!(found.condition, Condition::Occupied { .. }), "{found:?}");
        assert_eq!(std::fs::read(&stray).unwrap(), b"written before the mount");
        std::fs::remove_file(&stray).unwrap();
        chain.preseed("finishes", &service).await;
        let found = chain.look(&target).await;
        assert_eq!((found.condition, found.leftover), (Condition::Populated, None));
        assert!(target.mountpoint.join("one").exists() && !target.mountpoint.join("two").exists());
    });
}

/// Nothing was mounted over it: it is what is seen there, and may be somebody's.
#[test]
fn what_is_seen_at_the_place_of_what_is_not_mounted_still_hinders() {
    block_on(async {
        let chain = Chain::new("256M");
        let target = lab(&chain, "a").await;
        let mut service = chain.service(&[&target]);
        service.sources = vec![Arc::new(LocalSource::new(&chain.pool.store))];
        sure(["zfs", "unmount", target.dataset.as_str()]);
        let cx = context("rollback");
        let report = match ops::rollback_plan(&chain.engine, &cx, &service, "one").await {
            Ok(preview) => ops::rollback(&chain.engine, &cx, &service, &preview).await,
            Err(error) => Err(error),
        };
        assert!(report.is_err() || report.is_ok_and(|report| report.outcome != Outcome::Restored));
        let stray = Path::new(&target.mountpoint).join("stray");
        assert_eq!(std::fs::read(stray).unwrap(), b"written before the mount");
        assert!(run(["zfs", "list", target.dataset.as_str()]).exit.success());
    });
}
