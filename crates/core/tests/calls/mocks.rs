//! Stand-ins for what an operation must not ask, and a clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use mockall::mock;
use reseed_core::clock::Clock;
use reseed_core::entropy::SplitMix;
use reseed_core::error::{OpError, StoreError};
use reseed_core::journal::MemoryJournal;
use reseed_core::names::{Guid, HoldTag};
use reseed_core::point::{Fingerprint, Snapshot, SnapshotRef, Target};
use reseed_core::store::*;
use reseed_core::verify::Validator;
use reseed_core::{Context, Engine, SnapshotStore, Verifier};

mock! {
    #[derive(Debug)]
    pub(crate) Store {}
    #[async_trait]
    impl SnapshotStore for Store {
        fn caps(&self) -> StoreCaps;
        async fn inspect(&self, cx: &Context, targets: &[Target]) -> Result<Vec<Inspection>, StoreError>;
        async fn list(&self, cx: &Context, targets: &[Target]) -> Result<Vec<Snapshot>, StoreError>;
        async fn create(&self, cx: &Context, request: &CreateSnapshots) -> Result<Vec<Snapshot>, StoreError>;
        async fn since(&self, cx: &Context, target: &Target, snapshot: &SnapshotRef) -> Result<Since, StoreError>;
        async fn unwritten(&self, cx: &Context, older: Guid, newer: &SnapshotRef) -> Result<bool, StoreError>;
        async fn hold(&self, cx: &Context, snapshots: &[SnapshotRef], tag: &HoldTag, change: HoldChange) -> Result<(), StoreError>;
        async fn prune(&self, cx: &Context, snapshots: &[SnapshotRef]) -> Result<Vec<Pruned>, StoreError>;
        async fn stage(&self, cx: &Context, request: &StageRequest) -> Result<Staging, StoreError>;
        async fn settle(&self, cx: &Context, request: &Settle) -> Result<Settled, StoreError>;
    }
}

mock! {
    #[derive(Debug)]
    pub(crate) Look {}
    #[async_trait]
    impl Verifier for Look {
        async fn measure(&self, cx: &Context, root: &std::path::Path) -> Result<Fingerprint, OpError>;
        async fn make_scratch(&self, cx: &Context, path: &std::path::Path) -> Result<(), OpError>;
        async fn validate(&self, cx: &Context, root: &std::path::Path, validator: &Validator) -> Result<(), OpError>;
    }
}

/// Time that a test moves by hand. Nobody waits for it.
#[derive(Debug, Default)]
pub(crate) struct Hand(pub(crate) AtomicU64);

#[async_trait]
impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }
    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
    async fn sleep(&self, _: Duration) {
        std::future::pending::<()>().await;
    }
}

/// An engine whose verifier is asked only for what it expects.
pub(crate) fn engine(clock: Arc<dyn Clock>, verifier: MockLook) -> Engine {
    Engine {
        clock,
        entropy: Arc::new(SplitMix::seeded(1)),
        verifier: Arc::new(verifier),
        journal: Arc::new(MemoryJournal::new()),
        host: "lab".to_owned(),
    }
}
