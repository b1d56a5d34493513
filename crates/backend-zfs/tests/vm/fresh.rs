//! What a dataset has that files are restored into, or that a service starts with.

use std::collections::BTreeMap;

use reseed_backend_zfs::zfs::{LocalSource, NativeStore};
use reseed_core::error::{StoreError, StoreKind};
use reseed_core::names::Guid;
use reseed_core::point::Target;
use reseed_core::store::{Condition, Delivery, Replace, Settle, StagePurpose, StageRequest};
use reseed_core::{RestoreSource as _, SnapshotStore as _};
use reseed_testkit::conformance::{block_on, context, marker, point};
use reseed_testkit::files::Files as _;

use crate::lab::{Pool, sure};
use crate::source_lab::{snapshot, whole};

/// `user::rw-,user:1000:r--,group::r--,mask::r--,other::---`, as Linux takes it (`linux/posix_acl_xattr.h`).
const ACL: [u8; 44] = [
    2, 0, 0, 0, //
    1, 0, 6, 0, 255, 255, 255, 255, //
    2, 0, 4, 0, 0xe8, 3, 0, 0, //
    4, 0, 4, 0, 255, 255, 255, 255, //
    16, 0, 4, 0, 255, 255, 255, 255, //
    32, 0, 0, 0, 255, 255, 255, 255,
];

fn get(property: &str, dataset: &str) -> String {
    sure(["zfs", "get", "-Hp", "-o", "value", property, dataset])
}

#[track_caller]
fn has(dataset: &str, expected: &[(&str, &str)]) {
    for (property, expected) in expected {
        assert_eq!(get(property, dataset), *expected, "{property} of {dataset}");
    }
}

fn guid(dataset: &str) -> Guid {
    get("guid", dataset).parse().unwrap()
}

/// Restores a file with an ACL, as a backup of files would.
async fn restore(
    store: &NativeStore,
    target: &Target,
    run: &str,
    replace: Replace,
) -> Result<(), StoreError> {
    let cx = context(run);
    let restored = point(target, "p1");
    let purpose = StagePurpose::Restore {
        point: restored.clone(),
        delivery: Delivery::Files,
    };
    let request = StageRequest {
        target: target.clone(),
        purpose,
    };
    let staging = store.stage(&cx, &request).await?;
    let file = staging.path.join("file");
    std::fs::write(&file, b"restored").unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&file, "system.posix_acl_access", &ACL, flags).unwrap();
    let promote = Settle::Promote {
        staging,
        replace,
        marker: marker(&cx, &restored),
    };
    store.settle(&cx, &promote).await.map(drop)
}

async fn populated(pool: &Pool, target: &Target) {
    let found = pool
        .store
        .inspect(&context("look"), std::slice::from_ref(target))
        .await;
    assert_eq!(found.unwrap().remove(0).condition, Condition::Populated);
    let mut acl = [0; 64];
    let read = rustix::fs::getxattr(
        target.mountpoint.join("file"),
        "system.posix_acl_access",
        &mut acl,
    );
    assert_eq!(&acl[..read.unwrap()], ACL);
}

#[test]
fn what_files_are_restored_into_is_made_as_what_it_stands_in_for() {
    block_on(async {
        let pool = Pool::new();
        let target = pool.target("a");
        let dataset = target.dataset.as_str();
        sure([
            "zfs",
            "create",
            "-o",
            "recordsize=16K",
            "-o",
            "acltype=posix",
            "-o",
            "casesensitivity=mixed",
            "-o",
            "x:y=z",
            "-o",
            "quota=100M",
            "-o",
            "snapdir=visible",
            dataset,
        ]);
        pool.files.write(&target.mountpoint.join("live"), b"live");
        sure(["zfs", "set", "canmount=noauto", dataset]);
        sure(["zfs", "set", "readonly=on", dataset]);
        let expected = [
            ("recordsize", "16384"),
            ("acltype", "posix"),
            ("casesensitivity", "mixed"),
            ("x:y", "z"),
            ("quota", "104857600"),
            ("snapdir", "visible"),
            ("canmount", "noauto"),
            ("readonly", "on"),
            ("mounted", "yes"),
        ];
        let replace = Replace::SetAside { guid: guid(dataset) };
        restore(&pool.store, &target, "aside", replace).await.unwrap();
        has(dataset, &expected);
        populated(&pool, &target).await;

        // Lost: what was set aside knows it still. What is declared stands above that, and one thing that ZFS refuses costs itself.
        sure(["zfs", "destroy", dataset]);
        let of = [
            ("recordsize", "8K"),
            ("copies", "4"),
            ("canmount", "on"),
            ("readonly", "off"),
        ];
        let of = of.map(|(property, value)| (property.to_owned(), value.to_owned()));
        let declared = BTreeMap::from([(target.dataset.clone(), BTreeMap::from(of))]);
        let store = pool.store.clone().declared(declared);
        restore(&store, &target, "lost", Replace::OnlyEmpty)
            .await
            .unwrap();
        has(dataset, &expected[1..6]);
        let declared = [
            ("recordsize", "8192"),
            ("copies", "1"),
            ("canmount", "on"),
            ("readonly", "off"),
        ];
        has(dataset, &declared);
        populated(&pool, &target).await;
    });
}

/// They are set one by one where ZFS refuses one of them, and the machine may stop in between.
#[test]
fn a_clone_has_all_that_its_origin_has_though_the_run_ended_while_it_was_given_it() {
    block_on(async {
        let pool = Pool::new();
        let target = pool.target("a");
        let dataset = target.dataset.as_str();
        sure(["zfs", "create", "-o", "recordsize=16K", "-o", "x:y=z", dataset]);
        snapshot(&pool, &target, "one", 1, true).await;
        let (cx, source) = (context("clone"), LocalSource::new(&pool.store));
        let point = source.points(&cx, &target).await.unwrap().remove(0);
        let (request, stage) = whole(&target, &point);
        let plan = source.plan(&cx, &request).await.unwrap();
        let staging = pool.store.stage(&cx, &stage).await.unwrap();
        let staged = staging.locator.as_str();
        for ended in [false, true] {
            if ended {
                sure(["zfs", "inherit", "recordsize", staged]);
                sure(["zfs", "inherit", "x:y", staged]);
            }
            let restored = source.execute(&cx, &plan, &staging).await.unwrap();
            assert_eq!(restored.warnings, Vec::<String>::new());
            has(staged, &[("recordsize", "16384"), ("x:y", "z")]);
        }
    });
}

#[test]
fn a_first_start_is_made_as_it_is_declared() {
    block_on(async {
        let pool = Pool::new();
        let target = pool.target("new");
        let dataset = target.dataset.as_str();
        let of = [
            ("recordsize", "16K"),
            ("canmount", "noauto"),
            ("quota", "50M"),
            ("utf8only", "on"),
        ];
        let of = of.map(|(property, value)| (property.to_owned(), value.to_owned()));
        let declared = BTreeMap::from([(target.dataset.clone(), BTreeMap::from(of))]);
        let store = pool.store.clone().declared(declared);
        let cx = context("first");
        let empty = Settle::StartEmpty {
            target: target.clone(),
            marker: marker(&cx, &point(&target, "p1")),
        };
        store.settle(&cx, &empty).await.unwrap();
        let expected = [
            ("recordsize", "16384"),
            ("canmount", "noauto"),
            ("quota", "52428800"),
            ("utf8only", "on"),
            ("mounted", "yes"),
        ];
        has(dataset, &expected);
    });
}

#[test]
fn what_was_encrypted_does_not_come_back_in_clear_text() {
    block_on(async {
        let pool = Pool::new();
        let target = pool.target("secret");
        let dataset = target.dataset.as_str();
        pool.encrypted(dataset);
        sure(["zfs", "set", "acltype=posix", dataset]);
        pool.files.write(&target.mountpoint.join("live"), b"live");
        let replace = Replace::SetAside { guid: guid(dataset) };
        restore(&pool.store, &target, "first", replace).await.unwrap();
        has(
            dataset,
            &[
                ("encryptionroot", dataset),
                ("keyformat", "passphrase"),
                ("keystatus", "available"),
            ],
        );
        populated(&pool, &target).await;

        // A key that is asked for by hand can't be given: nothing is made, and the live data stands.
        sure(["zfs", "set", "keylocation=prompt", dataset]);
        let there = guid(dataset);
        let replace = Replace::SetAside { guid: there };
        let refused = restore(&pool.store, &target, "second", replace)
            .await
            .unwrap_err();
        assert_eq!(refused.kind(), StoreKind::Unsupported, "{refused}");
        assert!(
            refused
                .what_to_do()
                .is_some_and(|hint| hint.contains("keylocation"))
        );
        assert_eq!(guid(dataset), there);
        populated(&pool, &target).await;
        let all = sure(["zfs", "list", "-Hr", "-o", "name", &pool.pool]);
        assert!(!all.contains("stag"), "{all}");
    });
}
