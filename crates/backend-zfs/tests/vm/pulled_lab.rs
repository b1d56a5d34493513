//! A lab for the replicator that fetches: the store's pool is on another host, reached over ssh, and the replica's pool is here.

use std::sync::Arc;

use async_trait::async_trait;
use reseed_backend_zfs::zfs::{Mapping, NativeReplicator};
use reseed_core::names::DatasetName;
use reseed_core::point::Target;
use reseed_core::{Replicator, SnapshotStore};
use reseed_testkit::conformance::replicate::{Copied, ReplicaLab};
use reseed_testkit::files::Files;

use crate::lab::name;
use crate::replica_lab::Replica;
use crate::ssh_lab::Host;

pub(crate) struct Pulled {
    inner: Replica,
    _host: Host,
}

impl Pulled {
    pub(crate) fn new() -> Self {
        let (host, mut inner) = (Host::new(), Replica::new());
        let below = Mapping::below(DatasetName::new(format!("{}/svc", inner.back.pool)).unwrap());
        inner.replicator =
            NativeReplicator::pulling(name("second"), &inner.pool.store, host.location(), below);
        Self { inner, _host: host }
    }
}

#[async_trait]
impl ReplicaLab for Pulled {
    fn store(&self) -> Arc<dyn SnapshotStore> {
        self.inner.store()
    }
    fn replicator(&self) -> Arc<dyn Replicator> {
        self.inner.replicator()
    }
    fn of_host(&self, host: &str) -> Arc<dyn Replicator> {
        self.inner.of_host(host)
    }
    fn files(&self) -> &dyn Files {
        self.inner.files()
    }
    fn target(&self, name: &str) -> Target {
        self.inner.target(name)
    }
    /// Each of these connects to the other host several times.
    fn interruptions(&self) -> Vec<usize> {
        vec![2, 6, 13]
    }
    async fn copies(&self, target: &Target) -> Vec<Copied> {
        self.inner.copies(target).await
    }
    async fn diverge(&self, target: &Target) {
        self.inner.diverge(target).await;
    }
    fn set_reachable(&self, reachable: bool) {
        self.inner.set_reachable(reachable);
    }
}
