//! Datasets with `mountpoint=legacy`, which something else than `zfs` mounts: `/etc/fstab`, as NixOS has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use reseed_backend_zfs::zfs::{LocalSource, NativeStore};
use reseed_core::SnapshotStore as _;
use reseed_core::point::Target;
use reseed_core::store::{Condition, Delivery, Replace, Settle, StagePurpose, StageRequest};
use reseed_testkit::conformance::{block_on, context, marker, point};
use reseed_testkit::files::Files as _;

use crate::chain::{Chain, Meddler};
use crate::lab::{Pool, name, run, sure};
use crate::source_lab::snapshot;
use crate::vm_places::rolled_back;

fn get(property: &str, dataset: &str) -> String {
    sure(["zfs", "get", "-Hp", "-o", "value", property, dataset])
}

/// As `/etc/fstab` has it mounted.
fn mount(target: &Target) {
    std::fs::create_dir_all(&target.mountpoint).unwrap();
    let place = target.mountpoint.to_str().unwrap();
    sure(["mount", "-t", "zfs", target.dataset.as_str(), place]);
}

fn unmount(target: &Target) {
    sure(["umount", target.mountpoint.to_str().unwrap()]);
}

/// Its own, and what it has from above.
#[test]
fn an_empty_one_is_put_back_by_preseed() {
    block_on(async {
        let chain = Chain::new("256M");
        let above = format!("{}/svc/in", chain.pool.pool);
        sure(["zfs", "create", "-o", "canmount=off", &above]);
        let (own, inherited) = (chain.pool.target("a"), chain.pool.target("in/b"));
        for target in [&own, &inherited] {
            let (expected, _) = chain.made(target, 1000).await;
            chain.lose(target);
            let dataset = target.dataset.as_str();
            if target == &own {
                sure(["zfs", "create", "-o", "mountpoint=legacy", dataset]);
            } else {
                sure(["zfs", "set", "mountpoint=legacy", &above]);
                sure(["zfs", "create", dataset]);
            }
            mount(target);
            let report = chain.preseed("back", &chain.service(&[target])).await;
            chain.is_back(target, &expected, &report);
            // It is found at the next start.
            assert_eq!(get("mountpoint", dataset), "legacy");
            unmount(target);
            mount(target);
        }
    });
}

#[test]
fn a_populated_one_is_set_aside_and_put_back_as_it_was_when_that_fails() {
    block_on(async {
        let chain = Chain::new("256M");
        let target = chain.pool.target("a");
        let dataset = target.dataset.as_str();
        sure(["zfs", "create", "-o", "mountpoint=legacy", dataset]);
        mount(&target);
        for (minutes, name) in [(1, "one"), (2, "two")] {
            chain.pool.files.write(&target.mountpoint.join(name), b"x");
            snapshot(&chain.pool, &target, name, minutes, true).await;
        }
        let there = |name: &str| target.mountpoint.join(name).exists();
        let guid = get("guid", dataset);

        // Somebody mounts something there, as soon as it is unmounted.
        let place = target.mountpoint.clone();
        let runner = Arc::new(Meddler::before(&["set", "canmount=noauto"], move || {
            sure(["mount", "-t", "tmpfs", "none", place.to_str().unwrap()]);
        }));
        let mut service = chain.service_with(&[&target], runner.clone());
        service.sources = vec![Arc::new(LocalSource::new(&chain.store(runner.clone())))];
        let failed = rolled_back(&chain, &service, "fails").await.unwrap_err();
        assert!(runner.has_meddled(), "{failed}");
        assert_eq!(get("guid", dataset), guid);
        assert!(there("one") && there("two"), "{failed}");
        unmount(&target);
        unmount(&target);
        mount(&target);

        service.sources = vec![Arc::new(LocalSource::new(&chain.pool.store))];
        rolled_back(&chain, &service, "works").await.unwrap();
        assert!(there("one") && !there("two"));
        assert_ne!(get("guid", dataset), guid);
        assert_eq!(get("mountpoint", dataset), "legacy");
        let all = sure(["zfs", "list", "-Hr", "-o", "name,guid", &chain.pool.pool]);
        assert!(
            all.lines().any(|line| line.ends_with(&format!("\t{guid}"))),
            "{all}"
        );
    });
}

#[test]
fn what_was_absent_is_made_as_it_is_declared() {
    block_on(async {
        let pool = Pool::new();
        let cx = context("absent");
        let of = BTreeMap::from([("mountpoint".to_owned(), "legacy".to_owned())]);
        let (started, restored) = (pool.target("new"), pool.target("back"));
        let all = [&started, &restored].map(|target| (target.dataset.clone(), of.clone()));
        let store = pool.store.clone().declared(BTreeMap::from(all));
        let empty = Settle::StartEmpty {
            target: started.clone(),
            marker: marker(&cx, &point(&started, "p1")),
        };
        store.settle(&cx, &empty).await.unwrap();

        let from = point(&restored, "p1");
        let purpose = StagePurpose::Restore {
            point: from.clone(),
            delivery: Delivery::Files,
        };
        let request = StageRequest {
            target: restored.clone(),
            purpose,
        };
        let staging = store.stage(&cx, &request).await.unwrap();
        pool.files.write(&staging.path.join("file"), b"restored");
        let promote = Settle::Promote {
            staging,
            replace: Replace::OnlyEmpty,
            marker: marker(&cx, &from),
        };
        store.settle(&cx, &promote).await.unwrap();

        let targets = [started, restored];
        for (target, expected) in targets.iter().zip([Condition::Empty, Condition::Populated]) {
            assert_eq!(get("mountpoint", target.dataset.as_str()), "legacy");
            let look = async || store.inspect(&cx, std::slice::from_ref(target)).await.unwrap();
            assert_eq!(look().await[0].condition, expected);
            unmount(target);
            mount(target);
            assert_eq!(look().await[0].condition, expected);
        }
    });
}

/// The commands that an error tells bring it back.
#[test]
fn the_words_for_what_an_interrupted_run_left_aside_are_commands_that_work() {
    block_on(async {
        let pool = Pool::new();
        let target = pool.target("the app");
        let dataset = target.dataset.as_str();
        sure(["zfs", "create", "-o", "mountpoint=legacy", dataset]);
        mount(&target);
        pool.files.write(&target.mountpoint.join("live"), b"live");
        let cx = context("cut");
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
        // The machine stops, so to say, right before what is staged is renamed: nothing that comes then works.
        let renamed = staging.locator.clone();
        let promote = Settle::Promote {
            staging,
            replace: Replace::SetAside {
                guid: get("guid", dataset).parse().unwrap(),
            },
            marker: marker(&cx, &from),
        };
        let runner = Arc::new(Meddler::before(&["rename", "-u", leaked(&renamed)], move || {
            panic!("the machine stops");
        }));
        let doomed = NativeStore::new(name("local"), runner, pool.store.places());
        let died = tokio::spawn(async move { doomed.settle(&context("cut"), &promote).await.map(drop) });
        assert!(died.await.is_err());

        let look = async || {
            let one = std::slice::from_ref(&target);
            pool.store.inspect(&cx, one).await.unwrap().remove(0).condition
        };
        let Condition::Unmounted { why } = look().await else {
            panic!("{:?}", look().await);
        };
        let commands: Vec<&str> = why.split('`').skip(1).step_by(2).take(3).collect();
        assert!(commands[2].starts_with("mount -t zfs '"), "{why}");
        for command in commands {
            sure(["sh", "-c", command]);
        }
        assert_eq!(look().await, Condition::Populated);
        assert!(target.mountpoint.join("live").exists());
        assert!(run(["zfs", "list", dataset]).exit.success());
    });
}

fn leaked(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}
