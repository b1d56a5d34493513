//! What a preseed asks of its backends when data is there: one call for all services, and nothing else. Here the calls
//! themselves are the point, so this is where mocks are used.

use std::sync::Arc;

use async_trait::async_trait;
use mockall::mock;
use reseed_core::clock::SystemClock;
use reseed_core::entropy::SplitMix;
use reseed_core::error::{OpError, SourceError, StoreError};
use reseed_core::journal::MemoryJournal;
use reseed_core::names::{DatasetName, HoldTag, RunId, ServiceName, SourceName};
use reseed_core::point::{Fingerprint, RecoveryPoint, Snapshot, SnapshotRef, Target};
use reseed_core::preseed::{Outcome, preseed};
use reseed_core::service::Policy;
use reseed_core::source::{RestorePlan, RestoreRequest, Restored, SourceCaps};
use reseed_core::store::*;
use reseed_core::verify::Validator;
use reseed_core::{Context, Engine, RestoreSource, Service, SnapshotStore, Verifier};

mock! {
    #[derive(Debug)]
    Store {}
    #[async_trait]
    impl SnapshotStore for Store {
        fn caps(&self) -> StoreCaps;
        async fn inspect(&self, cx: &Context, targets: &[Target]) -> Result<Vec<Inspection>, StoreError>;
        async fn list(&self, cx: &Context, targets: &[Target]) -> Result<Vec<Snapshot>, StoreError>;
        async fn create(&self, cx: &Context, request: &CreateSnapshots) -> Result<Vec<Snapshot>, StoreError>;
        async fn since(&self, cx: &Context, target: &Target, snapshot: &SnapshotRef) -> Result<Since, StoreError>;
        async fn hold(&self, cx: &Context, snapshots: &[SnapshotRef], tag: &HoldTag, change: HoldChange) -> Result<(), StoreError>;
        async fn prune(&self, cx: &Context, snapshots: &[SnapshotRef]) -> Result<Vec<Pruned>, StoreError>;
        async fn stage(&self, cx: &Context, request: &StageRequest) -> Result<Staging, StoreError>;
        async fn settle(&self, cx: &Context, request: &Settle) -> Result<Settled, StoreError>;
    }
}

mock! {
    #[derive(Debug)]
    Source {}
    #[async_trait]
    impl RestoreSource for Source {
        fn name(&self) -> &SourceName;
        fn caps(&self) -> SourceCaps;
        async fn points(&self, cx: &Context, target: &Target) -> Result<Vec<RecoveryPoint>, SourceError>;
        async fn plan(&self, cx: &Context, request: &RestoreRequest) -> Result<RestorePlan, SourceError>;
        async fn execute(&self, cx: &Context, plan: &RestorePlan, staging: &Staging) -> Result<Restored, SourceError>;
    }
}

mock! {
    #[derive(Debug)]
    Look {}
    #[async_trait]
    impl Verifier for Look {
        async fn measure(&self, cx: &Context, root: &std::path::Path) -> Result<Fingerprint, OpError>;
        async fn make_scratch(&self, cx: &Context, path: &std::path::Path) -> Result<(), OpError>;
        async fn validate(&self, cx: &Context, root: &std::path::Path, validator: &Validator) -> Result<(), OpError>;
    }
}

fn populated(target: &Target) -> Inspection {
    Inspection {
        target: target.clone(),
        condition: Condition::Populated,
        guid: None,
        marker: None,
        leftover: None,
    }
}

#[tokio::test]
async fn fifty_present_services_cost_one_inspection_and_no_other_call() {
    // A mock panics at every call that is not expected: that is the assertion.
    let mut store = MockStore::new();
    store
        .expect_inspect()
        .times(1)
        .withf(|_, targets| targets.len() == 50)
        .returning(|_, targets| Ok(targets.iter().map(populated).collect()));
    let store: Arc<dyn SnapshotStore> = Arc::new(store);
    let source: Arc<dyn RestoreSource> = Arc::new(MockSource::new());
    let services: Vec<Service> = (0..50)
        .map(|n| Service {
            name: ServiceName::new(format!("s{n}")).unwrap(),
            targets: vec![Target {
                dataset: DatasetName::new(format!("tank/s{n}")).unwrap(),
                mountpoint: format!("/srv/s{n}").into(),
            }],
            store: Arc::clone(&store),
            sources: vec![Arc::clone(&source)],
            replicators: Vec::new(),
            offsite: Vec::new(),
            policy: Policy::default(),
        })
        .collect();
    let engine = Engine {
        clock: Arc::new(SystemClock::new()),
        entropy: Arc::new(SplitMix::seeded(1)),
        verifier: Arc::new(MockLook::new()),
        journal: Arc::new(MemoryJournal::new()),
        host: "lab".to_owned(),
    };
    let cx = Context::silent(RunId::new("run").unwrap());
    let reports = preseed(
        &engine,
        &cx,
        &services.iter().collect::<Vec<_>>(),
        std::time::Duration::ZERO,
    )
    .await;
    assert_eq!(reports.len(), 50);
    assert!(
        reports
            .iter()
            .all(|report| report.outcome == Outcome::DataPresent)
    );
}
