//! Which part of a repository a rotation reads, and what damage is told to which service.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use reseed_core::clock::Clock;
use reseed_core::error::{OffsiteError, OffsiteKind};
use reseed_core::journal::{Entry, Query, RunKind};
use reseed_core::names::{DatasetName, RunId, ServiceName, SourceName};
use reseed_core::offsite::*;
use reseed_core::ops::{self, OpOutcome, RepoCheck};
use reseed_core::point::{RecoveryPoint, Target};
use reseed_core::service::Policy;
use reseed_core::{Context, Engine, OffsiteRepo, Service};

use crate::mocks::{Hand, MockLook, MockStore, engine};

/// Answers one check; anything else is none of its business.
#[derive(Debug)]
struct Repo {
    name: SourceName,
    wanted: CheckDepth,
    answer: Result<CheckReport, OffsiteError>,
}

fn unasked<T>() -> Result<T, OffsiteError> {
    Err(OffsiteError::new(
        OffsiteKind::Unsupported,
        "only a check is expected",
    ))
}

#[async_trait]
impl OffsiteRepo for Repo {
    fn name(&self) -> &SourceName {
        &self.name
    }
    fn caps(&self) -> OffsiteCaps {
        OffsiteCaps {
            init: false,
            record: false,
        }
    }
    async fn init(&self, _: &Context) -> Result<RepoInfo, OffsiteError> {
        unasked()
    }
    async fn open(&self, _: &Context) -> Result<RepoInfo, OffsiteError> {
        unasked()
    }
    async fn backup(&self, _: &Context, _: &BackupRequest) -> Result<BackupReport, OffsiteError> {
        unasked()
    }
    async fn record(
        &self,
        _: &Context,
        _: &BackupRequest,
        _: &RecoveryPoint,
        _: Timestamp,
    ) -> Result<Option<BackupReport>, OffsiteError> {
        unasked()
    }
    async fn points(&self, _: &Context, _: Option<&Target>) -> Result<Vec<RecoveryPoint>, OffsiteError> {
        unasked()
    }
    async fn check(&self, _: &Context, depth: CheckDepth) -> Result<CheckReport, OffsiteError> {
        assert_eq!(depth, self.wanted);
        self.answer.clone()
    }
    async fn usage(&self, _: &Context) -> Result<Usage, OffsiteError> {
        unasked()
    }
}

struct Lab {
    engine: Engine,
    services: Vec<Service>,
    runs: u32,
}

impl Lab {
    fn new() -> Self {
        let service = |n: usize| Service {
            name: ServiceName::new(format!("s{n}")).unwrap(),
            targets: vec![Target {
                dataset: DatasetName::new(format!("tank/s{n}")).unwrap(),
                mountpoint: format!("/srv/s{n}").into(),
            }],
            store: Arc::new(MockStore::new()),
            sources: Vec::new(),
            replicators: Vec::new(),
            offsite: Vec::new(),
            policy: Policy::default(),
        };
        Self {
            engine: engine(Arc::new(Hand::default()), MockLook::new()),
            services: (0..2).map(service).collect(),
            runs: 0,
        }
    }

    fn all(&self) -> Vec<&Service> {
        self.services.iter().collect()
    }

    fn next(&self, of: u32) -> CheckDepth {
        ops::next_part(&self.engine, &name("b2"), of, &self.all())
    }

    /// Checks what is next out of three parts of a repository.
    async fn check(&mut self, repo: &str, answer: Result<CheckReport, OffsiteError>) -> RepoCheck {
        self.runs += 1;
        let cx = Context::silent(RunId::new(format!("run{}", self.runs)).unwrap());
        let depth = ops::next_part(&self.engine, &name(repo), 3, &self.all());
        let repo = Repo {
            name: name(repo),
            wanted: depth,
            answer,
        };
        let services: Vec<&Service> = self.services.iter().collect();
        ops::check_repo(&self.engine, &cx, &repo, &services, depth).await
    }
}

fn name(name: &str) -> SourceName {
    SourceName::new(name).unwrap()
}

fn damaged(affected: Option<&[&str]>) -> Result<CheckReport, OffsiteError> {
    let names = |names: &[&str]| {
        names
            .iter()
            .map(|name| DatasetName::new(*name).unwrap())
            .collect()
    };
    Ok(CheckReport {
        errors: vec!["pack 1 is not what its name says".to_owned()],
        affected: affected.map(names),
        ..CheckReport::default()
    })
}

fn outcomes(check: &RepoCheck) -> Vec<OpOutcome> {
    check.services.iter().map(|report| report.outcome).collect()
}

#[tokio::test]
async fn a_rotation_goes_on_where_it_was_and_around() {
    let mut lab = Lab::new();
    let sound = || Ok(CheckReport::default());
    for n in [1, 2, 3, 1] {
        assert_eq!(lab.next(3), CheckDepth::Part { n, of: 3 });
        let check = lab.check("b2", sound()).await;
        assert!(check.is_sound());
        assert_eq!(outcomes(&check), [OpOutcome::Ok; 2]);
    }
    // What found something has read its part; what couldn't look hasn't.
    let refused = OffsiteError::new(OffsiteKind::Unreachable, "no route to host");
    assert!(!lab.check("b2", Err(refused)).await.is_sound());
    assert_eq!(lab.next(3), CheckDepth::Part { n: 2, of: 3 });
    lab.check("b2", damaged(None)).await;
    assert_eq!(lab.next(3), CheckDepth::Part { n: 3, of: 3 });
    // Another repository's, or parts of another size, are no part of it.
    lab.check("other", sound()).await;
    assert_eq!(lab.next(3), CheckDepth::Part { n: 3, of: 3 });
    assert_eq!(lab.next(30), CheckDepth::Part { n: 1, of: 30 });
    // Nor is one of a clock that was ahead, which would be the last for as long.
    let query = Query {
        kind: Some(RunKind::Check),
        limit: Some(1),
        ..Query::default()
    };
    let mut ahead = lab.engine.journal.history(&query).unwrap().remove(0);
    ahead.key.run = RunId::new("ahead").unwrap();
    ahead.key.peer = Some(name("b2"));
    ahead.started_at = "2080-01-01T00:00:00Z".parse().unwrap();
    ahead.verification = Some("1/3".parse::<CheckDepth>().unwrap().to_string());
    lab.engine.journal.write(vec![Entry::Run(Box::new(ahead))]);
    assert_eq!(lab.next(3), CheckDepth::Part { n: 3, of: 3 });
    assert_eq!(lab.next(0), CheckDepth::Part { n: 1, of: 1 });
}

#[tokio::test]
async fn damage_fails_whom_it_costs_a_point_and_is_no_success_for_anybody() {
    let mut lab = Lab::new();
    let check = lab.check("b2", damaged(Some(&["tank/s1", "tank/gone"]))).await;
    assert_eq!(outcomes(&check), [OpOutcome::Partial, OpOutcome::Failed]);
    let said = check.services[1].summary();
    assert!(said.contains("a recovery point of s1 in b2 is damaged"), "{said}");
    let check = lab.check("b2", damaged(Some(&[]))).await;
    assert_eq!(outcomes(&check), [OpOutcome::Partial; 2]);
    // Where it can't be told it may be anybody's.
    let check = lab.check("b2", damaged(None)).await;
    assert_eq!(outcomes(&check), [OpOutcome::Failed; 2]);
}

#[test]
fn depths_are_read_as_they_are_written() {
    for depth in [
        CheckDepth::Structure,
        CheckDepth::Everything,
        CheckDepth::Part { n: 3, of: 30 },
    ] {
        assert_eq!(depth.to_string().parse(), Ok(depth));
    }
    for bad in ["", "all", "0/3", "4/3", "1/", "/3", "-1/3", "1/3/5", "1 / 3"] {
        assert!(bad.parse::<CheckDepth>().is_err(), "{bad:?}");
    }
}

/// It has no row in the journal, and would have its first part read for ever.
#[tokio::test]
async fn a_repository_of_no_service_is_read_part_by_part_too() {
    let days = Arc::new(Days(AtomicI64::new(20_000)));
    let engine = engine(days.clone(), MockLook::new());
    let mut parts = std::collections::BTreeSet::new();
    for _ in 0..7 {
        let CheckDepth::Part { n, of: 7 } = ops::next_part(&engine, &name("b2"), 7, &[]) else {
            panic!()
        };
        parts.insert(n);
        days.0.fetch_add(1, Ordering::SeqCst);
    }
    assert_eq!(parts, (1..=7).collect());
}

/// A clock that is put forward by hand.
#[derive(Debug)]
struct Days(AtomicI64);

#[async_trait]
impl Clock for Days {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.load(Ordering::SeqCst) * 24 * 3600).unwrap()
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
    async fn sleep(&self, _: Duration) {}
}
