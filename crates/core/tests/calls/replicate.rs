//! What replicating several services asks of their replicator: one plan for all of them, when they share it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use mockall::mock;
use reseed_core::error::{ReplicateError, ReplicateKind};
use reseed_core::names::{DatasetName, Guid, RunId, ServiceName, SnapshotName, SourceName};
use reseed_core::ops::{self, OpOutcome};
use reseed_core::point::{SnapshotRef, Target};
use reseed_core::replicate::{Lineage, ReplicationPlan, ReplicationReport, ReplicationStep, ReplicatorCaps};
use reseed_core::service::Policy;
use reseed_core::{Context, Replicator, Service, SnapshotStore};

use crate::mocks::{Hand, MockLook, MockStore, engine};

mock! {
    #[derive(Debug)]
    Way {}
    #[async_trait]
    impl Replicator for Way {
        fn name(&self) -> &SourceName;
        fn caps(&self) -> ReplicatorCaps;
        async fn plan(&self, cx: &Context, targets: &[Target]) -> Result<ReplicationPlan, ReplicateError>;
        async fn execute(&self, cx: &Context, plan: &ReplicationPlan) -> Result<ReplicationReport, ReplicateError>;
        async fn lineage(&self, cx: &Context, targets: &[Target]) -> Result<Vec<Lineage>, ReplicateError>;
    }
}

fn snapshot(target: &Target) -> SnapshotRef {
    SnapshotRef {
        dataset: target.dataset.clone(),
        name: SnapshotName::new("one").unwrap(),
        guid: Guid(1),
    }
}

fn plan(targets: &[Target], sent: impl Fn(&Target) -> bool) -> ReplicationPlan {
    let step = |target: &Target| ReplicationStep {
        target: target.clone(),
        base: None,
        send: vec![snapshot(target)],
        bytes: None,
        set_aside: None,
    };
    ReplicationPlan {
        replica: SourceName::new("nas").unwrap(),
        steps: targets.iter().filter(|target| sent(target)).map(step).collect(),
        left_out: Vec::new(),
        let_go: Vec::new(),
        untold: Vec::new(),
    }
}

fn way() -> MockWay {
    let mut way = MockWay::new();
    way.expect_name().return_const(SourceName::new("nas").unwrap());
    // Then nothing is held for it, which a mock of a store would not let pass.
    way.expect_caps().returning(|| ReplicatorCaps {
        incremental: true,
        resumable: true,
        keeps_base: true,
    });
    way
}

fn services(count: usize, way: MockWay) -> Vec<Service> {
    let (store, way): (Arc<dyn SnapshotStore>, Arc<dyn Replicator>) =
        (Arc::new(MockStore::new()), Arc::new(way));
    let service = |n: usize| Service {
        name: ServiceName::new(format!("s{n}")).unwrap(),
        targets: vec![Target {
            dataset: DatasetName::new(format!("tank/s{n}")).unwrap(),
            mountpoint: format!("/srv/s{n}").into(),
        }],
        store: Arc::clone(&store),
        sources: Vec::new(),
        replicators: vec![Arc::clone(&way)],
        offsite: Vec::new(),
        policy: Policy::default(),
    };
    (0..count).map(service).collect()
}

/// Every service's outcome, and how many seconds pass between planning and the first one's turn.
async fn run(services: &[Service], waits: u64) -> Vec<OpOutcome> {
    let clock = Arc::new(Hand::default());
    let engine = engine(Arc::<Hand>::clone(&clock), MockLook::new());
    let cx = Context::silent(RunId::new("run").unwrap());
    let ahead = ops::replicate_ahead(&engine, &cx, services).await;
    clock.0.fetch_add(waits, Ordering::SeqCst);
    let mut outcomes = Vec::new();
    for (service, ahead) in services.iter().zip(ahead) {
        let reports = ops::replicate_planned(&engine, &cx, service, ahead).await;
        outcomes.extend(reports.into_iter().map(|report| report.outcome));
    }
    outcomes
}

#[tokio::test]
async fn services_that_share_a_replicator_are_planned_together() {
    let mut way = way();
    let third = |target: &Target| target.dataset.leaf() == "s3";
    way.expect_plan()
        .times(1)
        .withf(|_, targets| targets.len() == 20)
        .returning(move |_, targets| Ok(plan(targets, third)));
    way.expect_execute()
        .times(1)
        .withf(|_, plan| plan.steps.len() == 1 && plan.steps[0].target.dataset.leaf() == "s3")
        .returning(|_, plan| {
            Ok(ReplicationReport {
                sent: plan.steps[0].send.clone(),
                ..ReplicationReport::default()
            })
        });
    let outcomes = run(&services(20, way), 1).await;
    let sent: Vec<_> = (0..20)
        .filter(|at| outcomes[*at] != OpOutcome::UpToDate)
        .collect();
    assert_eq!((sent, outcomes[3]), (vec![3], OpOutcome::Ok));
}

#[tokio::test]
async fn what_was_planned_long_ago_is_planned_anew() {
    let mut way = way();
    way.expect_plan()
        .times(1 + 3)
        .returning(|_, targets| Ok(plan(targets, |_| false)));
    let outcomes = run(&services(3, way), 3600).await;
    assert_eq!(outcomes, [OpOutcome::UpToDate; 3]);
}

#[tokio::test]
async fn ones_trouble_is_not_the_others() {
    let mut way = way();
    way.expect_plan().times(1 + 3).returning(|_, targets| {
        if targets.iter().any(|target| target.dataset.leaf() == "s1") {
            return Err(ReplicateError::new(ReplicateKind::NotFound, "s1 is not there"));
        }
        Ok(plan(targets, |_| false))
    });
    let outcomes = run(&services(3, way), 1).await;
    assert_eq!(
        outcomes,
        [OpOutcome::UpToDate, OpOutcome::Failed, OpOutcome::UpToDate]
    );
}

#[tokio::test]
async fn what_an_earlier_run_held_is_let_go_also_when_nothing_is_sent() {
    let mut way = way();
    way.expect_plan().times(1).returning(|_, targets| {
        Ok(ReplicationPlan {
            let_go: targets.iter().map(snapshot).collect(),
            ..plan(targets, |_| false)
        })
    });
    way.expect_execute()
        .times(2)
        .withf(|_, plan| plan.steps.is_empty() && plan.let_go.len() == 1)
        .returning(|_, _| Ok(ReplicationReport::default()));
    let outcomes = run(&services(2, way), 1).await;
    assert_eq!(outcomes, [OpOutcome::UpToDate; 2]);
}

/// A copy that doesn't say that its data is nothing but a first start may be restored for it: that is no success.
#[tokio::test]
async fn what_copies_lack_is_written_also_when_nothing_is_sent_and_where_it_can_not_it_is_said() {
    for (fails, outcome) in [(false, OpOutcome::UpToDate), (true, OpOutcome::Partial)] {
        let mut way = way();
        way.expect_plan().times(1).returning(|_, targets| {
            Ok(ReplicationPlan {
                untold: targets.iter().map(snapshot).collect(),
                ..plan(targets, |_| false)
            })
        });
        way.expect_execute()
            .times(2)
            .withf(|_, plan| plan.steps.is_empty() && plan.untold.len() == 1)
            .returning(move |_, _| match fails {
                true => Err(ReplicateError::new(ReplicateKind::PermissionDenied, "no")),
                false => Ok(ReplicationReport::default()),
            });
        let outcomes = run(&services(2, way), 1).await;
        assert_eq!(outcomes, [outcome; 2]);
    }
}
