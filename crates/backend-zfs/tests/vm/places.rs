//! What else is to be seen at a target's place, and where else the target is.

use std::sync::Arc;

use reseed_backend_zfs::zfs::{LocalSource, NativeStore};
use reseed_core::SnapshotStore as _;
use reseed_core::error::StoreKind;
use reseed_core::ops;
use reseed_core::preseed::Outcome;
use reseed_core::service::Service;
use reseed_core::store::{Delivery, Replace, Settle, StagePurpose, StageRequest};
use reseed_testkit::conformance::{block_on, context, marker, point};
use reseed_testkit::files::Files as _;

use crate::chain::{Chain, Meddler};
use crate::lab::{Pool, name, run, sure};
use crate::source_lab::snapshot;

/// Puts a service back to its snapshot `one`; or what is said to that.
pub(crate) async fn rolled_back(chain: &Chain, service: &Service, run: &str) -> Result<(), String> {
    let cx = context(run);
    let plan = ops::rollback_plan(&chain.engine, &cx, service, "one").await;
    let plan = plan.map_err(|error| format!("{error:?}"))?;
    let report = ops::rollback(&chain.engine, &cx, service, &plan).await;
    let report = report.map_err(|error| format!("{error:?}"))?;
    match report.outcome {
        Outcome::Restored => Ok(()),
        _ => Err(format!("{report:?}")),
    }
}

fn is_mounted(place: &std::path::Path) -> bool {
    run(["mountpoint", "-q", place.to_str().unwrap()]).exit.success()
}

/// Who uses it there would go on with what is set aside.
#[test]
fn live_data_that_is_mounted_in_a_second_place_is_not_set_aside() {
    block_on(async {
        let chain = Chain::new("256M");
        let target = chain.pool.target("a");
        let dataset = target.dataset.as_str();
        sure(["zfs", "create", dataset]);
        for (minutes, name) in [(1, "one"), (2, "two")] {
            let file = target.mountpoint.join("dir").join(name);
            chain.pool.files.write(&file, name.as_bytes());
            snapshot(&chain.pool, &target, name, minutes, true).await;
        }
        let mut service = chain.service(&[&target]);
        service.sources = vec![Arc::new(LocalSource::new(&chain.pool.store))];
        let before = sure(["zfs", "get", "-Hpo", "value", "guid", dataset]);
        let bound = chain.pool.root.join("bound");
        std::fs::create_dir_all(&bound).unwrap();
        let bound = bound.to_str().unwrap();
        for part in [target.mountpoint.clone(), target.mountpoint.join("dir")] {
            sure(["mount", "--bind", part.to_str().unwrap(), bound]);
            let refused = rolled_back(&chain, &service, "refused").await.unwrap_err();
            assert!(refused.contains(&format!("umount '{bound}'")), "{refused}");
            assert_eq!(sure(["zfs", "get", "-Hpo", "value", "guid", dataset]), before);
            assert!(is_mounted(&target.mountpoint) && target.mountpoint.join("dir/two").exists());
            let all = sure(["zfs", "list", "-Hr", "-o", "name", &chain.pool.pool]);
            assert!(!all.contains("aside"), "{all}");
            sure(["umount", bound]);
        }
        rolled_back(&chain, &service, "works").await.unwrap();
        assert!(target.mountpoint.join("dir/one").exists() && !target.mountpoint.join("dir/two").exists());
    });
}

/// Nothing hid it, so it is somebody's who sees it there.
#[test]
fn what_has_come_to_the_place_of_what_was_absent_is_not_hidden() {
    block_on(async {
        let pool = Pool::new();
        let target = pool.target("a");
        let cx = context("comes");
        let from = point(&target, "p1");
        let purpose = StagePurpose::Restore {
            point: from.clone(),
            delivery: Delivery::Files,
        };
        let request = StageRequest {
            target: target.clone(),
            purpose,
        };
        let staging = pool.store.stage(&cx, &request).await.unwrap();
        pool.files.write(&staging.path.join("file"), b"restored");
        let promote = Settle::Promote {
            staging,
            replace: Replace::OnlyEmpty,
            marker: marker(&cx, &from),
        };
        // A service was started once it had been looked at.
        let file = target.mountpoint.join("theirs");
        let theirs = file.clone();
        let runner = Arc::new(Meddler::before(&["set"], move || {
            std::fs::create_dir_all(theirs.parent().unwrap()).unwrap();
            std::fs::write(&theirs, b"theirs").unwrap();
        }));
        let store = NativeStore::new(name("local"), runner.clone(), pool.store.places());
        let refused = store.settle(&cx, &promote).await.unwrap_err();
        assert!(runner.has_meddled());
        assert_eq!(refused.kind(), StoreKind::Occupied, "{refused}");
        assert_eq!(std::fs::read(&file).unwrap(), b"theirs");
        assert!(!is_mounted(&target.mountpoint));
        assert!(!run(["zfs", "list", target.dataset.as_str()]).exit.success());
        // It is moved away, as the error says.
        std::fs::remove_file(&file).unwrap();
        store.settle(&cx, &promote).await.unwrap();
        assert_eq!(
            std::fs::read(target.mountpoint.join("file")).unwrap(),
            b"restored"
        );
    });
}
