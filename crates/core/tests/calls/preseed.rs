//! What a preseed asks of its backends when data is there: one call for all services, and nothing else; what it makes of a
//! promotion that failed; and whom a restore of one path asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use mockall::mock;
use reseed_core::clock::SystemClock;
use reseed_core::error::{Effect, SourceError, SourceKind, StoreError, StoreKind};
use reseed_core::names::{DatasetName, Guid, PointId, RunId, ServiceName, SourceName};
use reseed_core::ops::{At, RestoreOptions, restore_to};
use reseed_core::point::{Fingerprint, RecoveryPoint, Target};
use reseed_core::preseed::{Outcome, preseed, present, tidy};
use reseed_core::service::Policy;
use reseed_core::source::{RestorePlan, RestoreRequest, Restored, Scope, SourceCaps, SourceClass};
use reseed_core::store::*;
use reseed_core::{Context, RestoreSource, Service, SnapshotStore};

use crate::mocks::{MockLook, MockStore, engine};

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
    let engine = engine(Arc::new(SystemClock::new()), MockLook::new());
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

/// Somebody copies files out of what was fetched, or died: without the lock that can't be told.
#[tokio::test]
async fn what_was_fetched_for_files_keeps_no_service_waiting_and_goes_only_under_the_lock() {
    let target = Target {
        dataset: DatasetName::new("tank/a").unwrap(),
        mountpoint: "/srv/a".into(),
    };
    let fetched = Leftover {
        over: None,
        files: true,
        run: RunId::new("earlier").unwrap(),
        source: SourceName::new("back").unwrap(),
        point: RecoveryPoint {
            id: PointId::from(Guid(7)),
            dataset: target.dataset.clone(),
            source: SourceName::new("back").unwrap(),
            locator: "back/a@one".to_owned(),
            snapshot: None,
            taken_at: jiff::Timestamp::UNIX_EPOCH,
            fingerprint: None,
            bytes: None,
            unseeded: false,
            partial: false,
            altered: false,
        },
        promoted: false,
    };
    let (found, wanted) = (fetched.clone(), fetched);
    let mut store = MockStore::new();
    store.expect_inspect().times(2).returning(move |_, targets| {
        let one = |target| Inspection {
            leftover: Some(found.clone()),
            ..populated(target)
        };
        Ok(targets.iter().map(one).collect())
    });
    let settled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&settled);
    store.expect_settle().returning(move |_, request| match request {
        Settle::DiscardLeftover { leftover, .. } if *leftover == wanted => {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(Settled::default())
        }
        other => panic!("{other:?}"),
    });
    let service = Service {
        name: ServiceName::new("a").unwrap(),
        targets: vec![target],
        store: Arc::new(store),
        sources: Vec::new(),
        replicators: Vec::new(),
        offsite: Vec::new(),
        policy: Policy::default(),
    };
    let engine = engine(Arc::new(SystemClock::new()), MockLook::new());
    let cx = Context::silent(RunId::new("run").unwrap());
    let present = present(&engine, &cx, &[&service]).await.remove(0);
    assert_eq!(present.report.unwrap().outcome, Outcome::DataPresent);
    assert!(present.fetched);
    assert_eq!(settled.load(Ordering::SeqCst), 0);
    tidy(&engine, &cx, &service).await;
    assert_eq!(settled.load(Ordering::SeqCst), 1);
}

/// The first source has the point, and nothing of what was asked for is in it. The second has the same point, or another. How many are asked.
async fn asked_for_one_path(other: u64) -> usize {
    asked_for(Scope::Path("typo".into()), false, other).await
}

/// The same; of the first it is known that it may lack something.
async fn asked_for(scope: Scope, partial: bool, other: u64) -> usize {
    let target = Target {
        dataset: DatasetName::new("tank/a").unwrap(),
        mountpoint: "/srv/a".into(),
    };
    let asked = Arc::new(AtomicUsize::new(0));
    let source = |name: &str, guid: u64, partial: bool| -> Arc<dyn RestoreSource> {
        let (name, dataset) = (SourceName::new(name).unwrap(), target.dataset.clone());
        let mut source = MockSource::new();
        source.expect_name().return_const(name.clone());
        source.expect_caps().return_const(SourceCaps {
            kind: SourceClass::Replica,
            delivery: Delivery::Files,
            partial: true,
            verifies: true,
            ordered: false,
        });
        source.expect_points().returning(move |_, _| {
            Ok(vec![RecoveryPoint {
                id: PointId::from(Guid(guid)),
                dataset: dataset.clone(),
                source: name.clone(),
                locator: String::new(),
                snapshot: None,
                taken_at: jiff::Timestamp::UNIX_EPOCH,
                fingerprint: None,
                bytes: None,
                unseeded: false,
                partial,
                altered: false,
            }])
        });
        source.expect_plan().returning(|_, request| {
            Ok(RestorePlan {
                request: request.clone(),
                bytes: None,
                steps: Vec::new(),
            })
        });
        let asked = Arc::clone(&asked);
        source.expect_execute().returning(move |_, _, _| {
            asked.fetch_add(1, Ordering::SeqCst);
            Err(SourceError::new(SourceKind::NothingRestored, "it isn't in there"))
        });
        Arc::new(source)
    };
    let service = Service {
        name: ServiceName::new("a").unwrap(),
        targets: vec![target.clone()],
        store: Arc::new(MockStore::new()),
        sources: vec![source("near", 7, partial), source("far", other, false)],
        replicators: Vec::new(),
        offsite: Vec::new(),
        policy: Policy::default(),
    };
    let mut verifier = MockLook::new();
    verifier.expect_make_scratch().returning(|_, _| Ok(()));
    let engine = engine(Arc::new(SystemClock::new()), verifier);
    let cx = Context::silent(RunId::new("run").unwrap());
    let options = RestoreOptions {
        from: None,
        at: At::Newest,
        set_aside: false,
    };
    let to = std::path::Path::new("/to");
    let error = restore_to(&engine, &cx, &service, &options, &scope, to, false)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("it isn't in there"), "{error}");
    asked.load(Ordering::SeqCst)
}

#[tokio::test]
async fn what_is_not_in_a_state_is_not_looked_for_in_the_same_state_elsewhere() {
    assert_eq!(asked_for_one_path(7).await, 1);
    assert_eq!(asked_for_one_path(8).await, 2);
}

/// Who delivers nothing of a whole state is broken. Who has all of a state is asked before who has a part of it, and speaks for both.
#[tokio::test]
async fn what_a_source_lacks_is_looked_for_in_the_same_state_elsewhere() {
    assert_eq!(asked_for(Scope::Whole, false, 7).await, 2);
    assert_eq!(asked_for(Scope::Path("unread".into()), true, 7).await, 1);
}

/// A preseed of one service whose only source delivers, and whose promotion fails with this effect; what stands there then.
async fn promotion_failed(effect: Effect, stands: bool) -> (Outcome, Vec<String>) {
    let target = Target {
        dataset: DatasetName::new("tank/a").unwrap(),
        mountpoint: "/srv/a".into(),
    };
    let name = SourceName::new("back").unwrap();
    let point = RecoveryPoint {
        id: PointId::from(Guid(7)),
        dataset: target.dataset.clone(),
        source: name.clone(),
        locator: "back/a@one".to_owned(),
        snapshot: None,
        taken_at: jiff::Timestamp::UNIX_EPOCH,
        fingerprint: None,
        bytes: None,
        unseeded: false,
        partial: false,
        altered: false,
    };
    let mut store = MockStore::new();
    store.expect_caps().return_const(StoreCaps {
        atomic_group: true,
        holds: false,
        native_receive: false,
        set_aside: true,
        checks_reads: true,
    });
    let (first, then) = (target.clone(), target.clone());
    store.expect_inspect().times(1).returning(move |_, _| {
        Ok(vec![Inspection {
            condition: Condition::Absent,
            ..populated(&first)
        }])
    });
    let promoted = Leftover {
        over: None,
        files: false,
        run: RunId::new("run").unwrap(),
        source: name.clone(),
        point: point.clone(),
        promoted: true,
    };
    store.expect_inspect().returning(move |_, _| {
        Ok(vec![match stands {
            true => Inspection {
                guid: Some(Guid(9)),
                leftover: Some(promoted.clone()),
                ..populated(&then)
            },
            false => Inspection {
                condition: Condition::Absent,
                ..populated(&then)
            },
        }])
    });
    let place = target.clone();
    store.expect_stage().returning(move |_, _| {
        Ok(Staging {
            target: place.clone(),
            path: "/staged".into(),
            locator: "staged".to_owned(),
            state: StageState::Fresh,
        })
    });
    store.expect_settle().returning(move |_, request| match request {
        Settle::Promote { .. } => {
            Err(StoreError::new(StoreKind::NoSpace, "can't write the marker").effect(effect))
        }
        other => panic!("{other:?}"),
    });
    let mut source = MockSource::new();
    source.expect_name().return_const(name);
    source.expect_caps().return_const(SourceCaps {
        kind: SourceClass::Replica,
        delivery: Delivery::Files,
        partial: false,
        verifies: true,
        ordered: false,
    });
    source
        .expect_points()
        .returning(move |_, _| Ok(vec![point.clone()]));
    source.expect_plan().returning(|_, request| {
        Ok(RestorePlan {
            request: request.clone(),
            bytes: None,
            steps: Vec::new(),
        })
    });
    source.expect_execute().returning(|_, _, _| {
        Ok(Restored {
            bytes: 1,
            files: 1,
            reused: 0,
            checked: Vec::new(),
            warnings: Vec::new(),
        })
    });
    let mut verifier = MockLook::new();
    verifier.expect_measure().returning(|_, _| {
        Ok(Fingerprint {
            digest: format!("b3t1:{}", "00".repeat(32)).parse().unwrap(),
            files: 1,
            bytes: 1,
        })
    });
    let service = Service {
        name: ServiceName::new("a").unwrap(),
        targets: vec![target],
        store: Arc::new(store),
        sources: vec![Arc::new(source)],
        replicators: Vec::new(),
        offsite: Vec::new(),
        policy: Policy::default(),
    };
    let engine = engine(Arc::new(SystemClock::new()), verifier);
    let cx = Context::silent(RunId::new("run").unwrap());
    let report = preseed(&engine, &cx, &[&service], std::time::Duration::ZERO)
        .await
        .remove(0);
    if report.outcome == Outcome::Restored {
        assert_eq!(report.datasets.len(), 1);
    }
    (report.outcome, report.warnings)
}

#[tokio::test]
async fn data_that_stands_at_its_place_is_restored_though_its_marker_could_not_be_written() {
    for effect in [Effect::Partial, Effect::Unknown] {
        let (outcome, warnings) = promotion_failed(effect, true).await;
        assert_eq!(outcome, Outcome::Restored, "{warnings:?}");
        assert!(
            warnings
                .iter()
                .any(|warning| warning.contains("can't write the marker")),
            "{warnings:?}"
        );
    }
}

#[tokio::test]
async fn a_promotion_that_failed_before_that_is_failed() {
    for (effect, stands) in [(Effect::Partial, false), (Effect::StagingOnly, true)] {
        let (outcome, _) = promotion_failed(effect, stands).await;
        assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome:?}");
    }
}
