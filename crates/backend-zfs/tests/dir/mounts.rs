//! Filesystems that are full, read-only, missing, or in the way. These mount small filesystems in memory and need root;
//! without it each says so and ends.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use reseed_backend_zfs::dir::DirSource;
use reseed_core::error::{Effect, SourceKind, StoreKind};
use reseed_core::source::{RestoreRequest, Scope};
use reseed_core::store::{
    Condition, CreateSnapshots, Delivery, Replace, Settle, StagePurpose, StageRequest, StageState,
};
use reseed_core::{RestoreSource, SnapshotStore};
use reseed_testkit::conformance::{block_on, context, marker, minute, point, snapshot_name};
use reseed_testkit::files::{Files as _, assert_same, write_odd_tree};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use crate::lab::{OnDisk, initialised};

/// A filesystem in memory, unmounted when dropped.
struct Mounted {
    at: PathBuf,
    /// By this it is found again where a directory above it was renamed.
    root: OwnedFd,
}

impl Mounted {
    #[allow(clippy::print_stderr, reason = "a test that can't run says so")]
    fn at(path: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let options = std::ffi::CString::new(options).unwrap();
        match rustix::mount::mount(
            "tmpfs",
            path,
            "tmpfs",
            MountFlags::empty(),
            Some(options.as_c_str()),
        ) {
            Ok(()) => {
                rustix::mount::mount_change(path, MountPropagationFlags::PRIVATE).unwrap();
                let root = fs::File::open(path).unwrap().into();
                Some(Self {
                    at: path.to_owned(),
                    root,
                })
            }
            Err(error) => {
                eprintln!("skipped: mounting is not allowed here ({error})");
                None
            }
        }
    }

    fn read_only(&self) {
        rustix::mount::mount_remount(&self.at, MountFlags::RDONLY, "").unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let now = format!("/proc/self/fd/{}", self.root.as_raw_fd());
        rustix::mount::unmount(now, UnmountFlags::DETACH).unwrap();
    }
}

fn create(target: &reseed_core::point::Target, name: &str) -> CreateSnapshots {
    CreateSnapshots {
        targets: vec![target.clone()],
        name: snapshot_name(name),
        taken_at: minute(1),
        measure: true,
        unseeded: false,
    }
}

#[test]
fn a_full_store_takes_no_snapshot_and_keeps_the_ones_it_has() {
    block_on(async {
        let (lab, cx) = (OnDisk::new(), context("full"));
        let Some(_mounted) = Mounted::at(&lab.path("small"), "size=1m") else {
            return;
        };
        let store = initialised("small", &lab.path("small/store")).await;
        let target = lab.target("a");
        lab.files.write(&target.mountpoint.join("little"), &[1; 1000]);
        let one = store.create(&cx, &create(&target, "one")).await.unwrap();
        lab.files
            .write(&target.mountpoint.join("large"), &vec![2; 2 << 20]);
        let error = store.create(&cx, &create(&target, "two")).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.may_have()),
            (StoreKind::NoSpace, Effect::None),
            "{error}"
        );
        assert!(error.what_to_do().is_some());
        assert_eq!(store.list(&cx, std::slice::from_ref(&target)).await.unwrap(), one);
        // What it had begun is gone, so there is room for a smaller one.
        fs::remove_file(target.mountpoint.join("large")).unwrap();
        store.create(&cx, &create(&target, "three")).await.unwrap();
    });
}

#[test]
fn a_full_target_keeps_what_was_staged_and_goes_on_when_there_is_room() {
    block_on(async {
        let (lab, cx) = (OnDisk::new(), context("room"));
        let mut target = lab.target("a");
        let disk = lab.path("disk");
        let Some(_mounted) = Mounted::at(&disk, "size=1m") else {
            return;
        };
        write_odd_tree(&lab.files, &target.mountpoint);
        lab.files
            .write(&target.mountpoint.join("large"), &vec![2; 900 << 10]);
        let expected = lab.files.list(&target.mountpoint);
        lab.store.create(&cx, &create(&target, "one")).await.unwrap();
        target.mountpoint = disk.join("data");
        let ballast = disk.join("ballast");
        fs::write(&ballast, vec![3; 400 << 10]).unwrap();
        let source = DirSource::local(&lab.store);
        let point = source.points(&cx, &target).await.unwrap().remove(0);
        let request = RestoreRequest {
            target: target.clone(),
            point: point.clone(),
            scope: Scope::Whole,
        };
        let plan = source.plan(&cx, &request).await.unwrap();
        let purpose = StagePurpose::Restore {
            point: point.clone(),
            delivery: Delivery::Files,
        };
        let stage = StageRequest {
            target: target.clone(),
            purpose,
        };
        let staging = lab.store.stage(&cx, &stage).await.unwrap();
        let error = source.execute(&cx, &plan, &staging).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.may_have()),
            (SourceKind::NoSpace, Effect::StagingOnly),
            "{error}"
        );
        fs::remove_file(&ballast).unwrap();
        let staging = lab.store.stage(&cx, &stage).await.unwrap();
        assert_eq!(staging.state, StageState::Partial);
        source.execute(&cx, &plan, &staging).await.unwrap();
        assert_same(&expected, &lab.files.list(&staging.path), "what was restored");
    });
}

#[test]
fn read_only_filesystems_are_told() {
    block_on(async {
        let (lab, cx) = (OnDisk::new(), context("ro"));
        let disk = lab.path("disk");
        let Some(mounted) = Mounted::at(&disk, "size=1m") else {
            return;
        };
        let store = initialised("on-disk", &disk.join("store")).await;
        let live = lab.target("live");
        lab.files.write(&live.mountpoint.join("f"), b"data");
        store.create(&cx, &create(&live, "one")).await.unwrap();
        mounted.read_only();
        let mut target = lab.target("a");
        target.mountpoint = disk.join("data");
        let purpose = StagePurpose::Restore {
            point: point(&target, "p1"),
            delivery: Delivery::Files,
        };
        let request = StageRequest {
            target: target.clone(),
            purpose,
        };
        let error = lab.store.stage(&cx, &request).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.may_have()),
            (StoreKind::ReadOnly, Effect::None),
            "{error}"
        );
        assert!(error.what_to_do().is_some());
        // A store on it can be read, and only read.
        let listed = store.list(&cx, std::slice::from_ref(&live)).await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(
            store.create(&cx, &create(&live, "two")).await.unwrap_err().kind(),
            StoreKind::ReadOnly
        );
        let pruned = store.prune(&cx, &[listed[0].reference()]).await;
        assert!(pruned.is_err() || pruned.unwrap()[0].kept.is_some());
        assert_eq!(
            DirSource::local(&store).points(&cx, &live).await.unwrap().len(),
            1
        );
    });
}

#[test]
fn a_disk_that_is_not_mounted_is_not_a_service_without_data() {
    block_on(async {
        let (lab, cx) = (OnDisk::new(), context("unmounted"));
        let mut target = lab.target("a");
        let disk = lab.path("disk");
        target.mountpoint = disk.join("service");
        let Some(mounted) = Mounted::at(&disk, "size=1m") else {
            return;
        };
        lab.files.write(&target.mountpoint.join("f"), b"data");
        lab.store.create(&cx, &create(&target, "one")).await.unwrap();
        let condition = async || {
            let mut found = lab
                .store
                .inspect(&cx, std::slice::from_ref(&target))
                .await
                .unwrap();
            found.remove(0).condition
        };
        assert_eq!(condition().await, Condition::Populated);
        drop(mounted);
        assert!(
            matches!(condition().await, Condition::PoolUnavailable { .. }),
            "{:?}",
            condition().await
        );
        // Also when something has made the directory on the disk below.
        fs::create_dir_all(&target.mountpoint).unwrap();
        assert!(matches!(condition().await, Condition::PoolUnavailable { .. }));
        fs::remove_dir(&target.mountpoint).unwrap();
        // A new, empty disk at the same place is a loss.
        let _new = Mounted::at(&disk, "size=1m").unwrap();
        assert_eq!(condition().await, Condition::Absent);
    });
}

#[test]
fn a_target_that_is_a_mount_point_is_refused_before_anything_is_restored() {
    block_on(async {
        let (lab, cx) = (OnDisk::new(), context("mountpoint"));
        let target = lab.target("a");
        let Some(_mounted) = Mounted::at(&target.mountpoint, "size=1m") else {
            return;
        };
        let purpose = StagePurpose::Restore {
            point: point(&target, "p1"),
            delivery: Delivery::Files,
        };
        let request = StageRequest {
            target: target.clone(),
            purpose,
        };
        let error = lab.store.stage(&cx, &request).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.may_have()),
            (StoreKind::Unsupported, Effect::None),
            "{error}"
        );
        assert!(error.what_to_do().is_some());
        // Its snapshots are no problem.
        lab.files.write(&target.mountpoint.join("f"), b"data");
        lab.store.create(&cx, &create(&target, "one")).await.unwrap();
    });
}

#[test]
fn a_mount_that_came_after_staging_is_refused_too() {
    block_on(async {
        let (lab, cx) = (OnDisk::new(), context("late"));
        let target = lab.target("a");
        let purpose = StagePurpose::Restore {
            point: point(&target, "p1"),
            delivery: Delivery::Files,
        };
        let request = StageRequest {
            target: target.clone(),
            purpose,
        };
        let staging = lab.store.stage(&cx, &request).await.unwrap();
        lab.files.write(&staging.path.join("f"), b"restored");
        let Some(_mounted) = Mounted::at(&target.mountpoint, "size=1m") else {
            return;
        };
        let marker = marker(&cx, &point(&target, "p1"));
        let promote = Settle::Promote {
            staging: staging.clone(),
            replace: Replace::OnlyEmpty,
            marker,
        };
        let error = lab.store.settle(&cx, &promote).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.may_have()),
            (StoreKind::Unsupported, Effect::None),
            "{error}"
        );
        assert!(staging.path.join("f").exists());
    });
}

#[test]
fn what_is_mounted_inside_is_not_entered_and_never_removed() {
    block_on(async {
        let (lab, cx) = (OnDisk::new(), context("inside"));
        let target = lab.target("a");
        lab.files.write(&target.mountpoint.join("f"), b"data");
        let Some(_mounted) = Mounted::at(&target.mountpoint.join("other"), "size=1m") else {
            return;
        };
        lab.files.write(
            &target.mountpoint.join("other/precious"),
            b"of another filesystem",
        );
        let made = lab.snapshot(&cx, &target, "one", 1).await;
        let tree = lab.tree_of(&cx, &target, &made.reference()).await;
        assert_eq!(fs::read_dir(tree.join("other")).unwrap().count(), 0);
        // In staging, where something mounted one for whatever reason.
        let staging = {
            let purpose = StagePurpose::Restore {
                point: point(&target, "p1"),
                delivery: Delivery::Files,
            };
            lab.store
                .stage(
                    &cx,
                    &StageRequest {
                        target: target.clone(),
                        purpose,
                    },
                )
                .await
                .unwrap()
        };
        let _second = Mounted::at(&staging.path.join("mnt"), "size=1m").unwrap();
        let precious = staging.path.join("mnt/precious");
        fs::write(&precious, "of another filesystem").unwrap();
        let error = lab
            .store
            .settle(
                &cx,
                &Settle::Discard {
                    staging: staging.clone(),
                },
            )
            .await
            .unwrap_err();
        assert_eq!(error.kind(), StoreKind::Busy, "{error}");
        let moved = staging
            .path
            .parent()
            .unwrap()
            .parent()
            .unwrap()
            .join(".reseed-trash.data/tree/mnt/precious");
        assert!(
            precious.exists() || moved.exists(),
            "another filesystem was emptied"
        );
    });
}
