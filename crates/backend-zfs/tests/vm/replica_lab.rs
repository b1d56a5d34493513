//! A lab for the replicator: two pools.

use std::sync::Arc;

use async_trait::async_trait;
use reseed_backend_zfs::zfs::{Location, Mapping, NativeReplicator, NativeStore};
use reseed_core::exec::SystemRunner;
use reseed_core::names::DatasetName;
use reseed_core::point::Target;
use reseed_core::store::{Inspection, StagePurpose, StageRequest};
use reseed_core::{Replicator, SnapshotStore};
use reseed_testkit::conformance::context;
use reseed_testkit::conformance::replicate::{Copied, ReplicaLab};
use reseed_testkit::files::Files;

use crate::lab::{Pool, name, run, sure};
use crate::source_lab::attach;

/// A store and its replica in a second pool.
pub(crate) struct Replica {
    pub(crate) pool: Pool,
    pub(crate) back: Pool,
    pub(crate) replicator: NativeReplicator,
}

impl Replica {
    pub(crate) fn new() -> Self {
        Self::of(Pool::new())
    }

    /// Of the store of this pool.
    pub(crate) fn of(pool: Pool) -> Self {
        let back = Pool::new();
        let below = Mapping::below(DatasetName::new(format!("{}/svc", back.pool)).unwrap());
        let replicator = NativeReplicator::new(name("second"), &pool.store, Location::Local, below);
        Self {
            pool,
            back,
            replicator,
        }
    }

    pub(crate) fn replica_of(&self, target: &Target) -> DatasetName {
        DatasetName::new(format!("{}/svc/{}", self.back.pool, target.dataset)).unwrap()
    }

    /// The replica's lineages of a target: the one that is continued, and those set aside.
    fn lineages(&self, target: &Target) -> Vec<DatasetName> {
        let replica = self.replica_of(target);
        let (above, leaf) = replica.as_str().rsplit_once('/').unwrap();
        let listed = run(["zfs", "list", "-Hp", "-d", "1", "-o", "name", above]);
        let aside = format!("{above}/.reseed-aside:{leaf}:");
        listed
            .stdout
            .text()
            .lines()
            .filter(|line| *line == replica.as_str() || line.starts_with(&aside))
            .map(|line| DatasetName::new(line).unwrap())
            .collect()
    }

    /// Somebody writes to the replica itself.
    pub(crate) fn write_there(&self, target: &Target) {
        let replica = self.replica_of(target);
        let at = self.back.root.join("look");
        std::fs::create_dir_all(&at).unwrap();
        sure(["zfs", "set", "readonly=off", replica.as_str()]);
        let (dataset, place) = (replica.as_str(), at.to_str().unwrap());
        sure(["mount", "-t", "zfs", "-o", "zfsutil", dataset, place]);
        self.back.files.write(&at.join("stray"), &[9; 200_000]);
        sure(["umount", place]);
    }
}

#[async_trait]
impl ReplicaLab for Replica {
    fn store(&self) -> Arc<dyn SnapshotStore> {
        Arc::new(self.pool.store.clone())
    }
    fn replicator(&self) -> Arc<dyn Replicator> {
        Arc::new(self.replicator.clone())
    }
    fn of_host(&self, host: &str) -> Arc<dyn Replicator> {
        Arc::new(self.replicator.clone().of_host(host))
    }
    fn files(&self) -> &dyn Files {
        &self.pool.files
    }
    fn target(&self, name: &str) -> Target {
        let target = self.pool.target(name);
        sure(["zfs", "create", target.dataset.as_str()]);
        target
    }
    fn interruptions(&self) -> Vec<usize> {
        vec![1, 2, 3, 4, 6, 9, 13, 19]
    }
    async fn copies(&self, target: &Target) -> Vec<Copied> {
        // The replica's pool seen as a store of its own: what it lists is what is there.
        let there = NativeStore::new(
            name("there"),
            Arc::new(SystemRunner::new()),
            self.back.root.join("seen"),
        );
        let cx = context("look");
        let mut all = Vec::new();
        for dataset in self.lineages(target) {
            let aside = dataset != self.replica_of(target);
            let lineage = Target {
                dataset,
                mountpoint: "/nowhere".into(),
            };
            for found in there.list(&cx, std::slice::from_ref(&lineage)).await.unwrap() {
                let purpose = StagePurpose::Expose {
                    snapshot: found.reference(),
                };
                let request = StageRequest {
                    target: lineage.clone(),
                    purpose,
                };
                let open = there.stage(&cx, &request).await.unwrap();
                let content = self.pool.files.list(&open.path);
                let close = reseed_core::store::Settle::Discard { staging: open };
                there.settle(&cx, &close).await.unwrap();
                all.push(Copied {
                    name: found.name,
                    guid: found.guid,
                    taken_at: found.taken_at,
                    fingerprint: found.fingerprint,
                    content,
                    aside,
                });
            }
        }
        all
    }
    async fn diverge(&self, target: &Target) {
        let replica = self.replica_of(target);
        sure(["zfs", "destroy", "-r", replica.as_str()]);
        let at = self.back.root.join("other-host");
        let mountpoint = format!("mountpoint={}", at.display());
        sure(["zfs", "create", "-o", &mountpoint, replica.as_str()]);
        self.pool.files.write(&at.join("of"), b"another host");
        sure(["zfs", "snapshot", &format!("{replica}@of-another-host")]);
        sure(["zfs", "unmount", replica.as_str()]);
    }
    fn set_reachable(&self, reachable: bool) {
        attach(&self.back, reachable);
    }
}

/// Nothing of the replica is mounted.
#[allow(dead_code, reason = "for the tests that come")]
pub(crate) fn unmounted(found: &Inspection) -> bool {
    matches!(found.condition, reseed_core::store::Condition::Unmounted { .. })
}
