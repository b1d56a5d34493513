//! What a backup may have left half done is not taken for stored: it is stored again, until one says that it is whole.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::Timestamp;
use reseed_core::error::{OffsiteError, OffsiteKind};
use reseed_core::journal::{Query, RunKind, RunOutcome};
use reseed_core::names::{DatasetName, PointId, RunId, SourceName};
use reseed_core::offsite::*;
use reseed_core::ops::{self, OpOutcome, OpReport};
use reseed_core::point::{RecoveryPoint, Snapshot, Target};
use reseed_core::service::Policy;
use reseed_core::store::{Settled, StageState, Staging, StoreCaps};
use reseed_core::{Context, Engine, OffsiteRepo, Service};

use crate::mocks::{self, Hand, MockLook, MockStore};

/// How storing goes. What is stored looks whole each time.
#[derive(Debug, Clone, Copy)]
enum Goes {
    Well,
    /// Not all could be read, and the repository doesn't know.
    Untold,
    /// It is there, and nobody lives to say so.
    Dies,
    Fails,
}

#[derive(Debug)]
struct Repo {
    name: SourceName,
    points: Mutex<Vec<RecoveryPoint>>,
    goes: Mutex<VecDeque<Goes>>,
}

fn unasked<T>() -> Result<T, OffsiteError> {
    Err(OffsiteError::new(
        OffsiteKind::Unsupported,
        "this is not expected",
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
    async fn backup(&self, _: &Context, request: &BackupRequest) -> Result<BackupReport, OffsiteError> {
        let goes = self.goes.lock().unwrap().pop_front();
        let goes = goes.expect("it is stored already");
        if matches!(goes, Goes::Fails) {
            return Err(OffsiteError::new(OffsiteKind::Unreachable, "no network"));
        }
        self.points.lock().unwrap().push(RecoveryPoint {
            id: request.point.clone(),
            dataset: request.target.dataset.clone(),
            source: self.name.clone(),
            locator: "abc".to_owned(),
            snapshot: None,
            taken_at: request.taken_at,
            fingerprint: None,
            bytes: None,
            unseeded: false,
            partial: false,
            altered: false,
        });
        if matches!(goes, Goes::Dies) {
            std::future::pending::<()>().await;
        }
        let partial = BackupOutcome::Partial {
            unreadable: 1,
            examples: Vec::new(),
        };
        Ok(BackupReport {
            snapshot_id: "abc".to_owned(),
            outcome: match goes {
                Goes::Untold => partial,
                _ => BackupOutcome::Complete,
            },
            files: 3,
            bytes: 700,
            added: 0,
        })
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
        Ok(self.points.lock().unwrap().clone())
    }
    async fn check(&self, _: &Context, _: CheckDepth) -> Result<CheckReport, OffsiteError> {
        unasked()
    }
    async fn usage(&self, _: &Context) -> Result<Usage, OffsiteError> {
        unasked()
    }
}

struct Lab {
    engine: Engine,
    repo: Arc<Repo>,
    service: Service,
    runs: u32,
}

impl Lab {
    /// One snapshot, and how each try to store it goes.
    fn new(goes: &[Goes]) -> Self {
        let dataset = DatasetName::new("tank/app").unwrap();
        let snapshot = Snapshot {
            dataset: dataset.clone(),
            name: "first".parse().unwrap(),
            guid: "1".parse().unwrap(),
            taken_at: Timestamp::from_second(-10).unwrap(),
            fingerprint: None,
            bytes: None,
            holds: Vec::new(),
            unseeded: false,
        };
        let mut store = MockStore::new();
        store
            .expect_list()
            .returning(move |_, _| Ok(vec![snapshot.clone()]));
        store.expect_stage().returning(|_, request| {
            Ok(Staging {
                target: request.target.clone(),
                path: "/snapshot".into(),
                locator: "x".to_owned(),
                state: StageState::Exposed,
            })
        });
        store.expect_settle().returning(|_, _| Ok(Settled::default()));
        store.expect_caps().return_const(StoreCaps {
            atomic_group: true,
            holds: true,
            native_receive: true,
            set_aside: true,
            checks_reads: true,
        });
        let repo = Arc::new(Repo {
            name: "b2".parse().unwrap(),
            points: Mutex::default(),
            goes: Mutex::new(goes.to_vec().into()),
        });
        let service = Service {
            name: "app".parse().unwrap(),
            targets: vec![Target {
                dataset,
                mountpoint: "/srv/app".into(),
            }],
            store: Arc::new(store),
            sources: Vec::new(),
            replicators: Vec::new(),
            offsite: vec![Arc::<Repo>::clone(&repo)],
            policy: Policy::default(),
        };
        Self {
            engine: mocks::engine(Arc::new(Hand::default()), MockLook::new()),
            repo,
            service,
            runs: 0,
        }
    }

    /// The next run; none when it died.
    async fn back_up(&mut self) -> Option<OpReport> {
        self.runs += 1;
        let cx = Context::silent(RunId::new(format!("run{}", self.runs)).unwrap());
        let backup = ops::backup(&self.engine, &cx, &self.service);
        tokio::select! {
            biased;
            mut reports = backup => Some(reports.remove(0)),
            () = std::future::ready(()) => None,
        }
    }

    async fn ends(&mut self, outcome: OpOutcome) {
        let report = self.back_up().await;
        assert_eq!(
            report.as_ref().map(|report| report.outcome),
            Some(outcome),
            "{report:#?}"
        );
    }

    async fn planned(&self) -> usize {
        let cx = Context::silent(RunId::new("plan").unwrap());
        let plans = ops::backup_plan(&self.engine, &cx, &self.service).await;
        plans[0].snapshots.len()
    }
}

#[tokio::test]
async fn what_is_whole_is_stored_once() {
    let mut lab = Lab::new(&[Goes::Well]);
    lab.ends(OpOutcome::Ok).await;
    assert_eq!(lab.planned().await, 0);
    lab.ends(OpOutcome::UpToDate).await;
    lab.ends(OpOutcome::UpToDate).await;
}

/// By a kill or a power cut: its row in the journal was begun, and never ended.
#[tokio::test]
async fn what_a_run_left_that_never_ended_is_stored_again() {
    let mut lab = Lab::new(&[Goes::Dies, Goes::Dies, Goes::Well]);
    assert!(lab.back_up().await.is_none());
    assert_eq!(lab.planned().await, 1);
    assert!(lab.back_up().await.is_none());
    assert_eq!(lab.repo.points.lock().unwrap().len(), 2);
    lab.ends(OpOutcome::Ok).await;
    lab.ends(OpOutcome::UpToDate).await;
    let query = Query {
        kind: Some(RunKind::Backup),
        ..Query::default()
    };
    let runs = lab.engine.journal.history(&query).unwrap();
    assert_eq!(runs[3].outcome, Some(RunOutcome::Interrupted));
    let stages: Vec<&str> = runs[1]
        .attempts
        .iter()
        .map(|attempt| attempt.stage.as_str())
        .collect();
    assert_eq!(stages, ["store", "done"]);
}

/// A failure in between says nothing of what is there.
#[tokio::test]
async fn what_was_partial_and_could_not_be_tagged_is_stored_until_it_is_whole() {
    let mut lab = Lab::new(&[Goes::Untold, Goes::Fails, Goes::Untold, Goes::Well]);
    for outcome in [
        OpOutcome::Partial,
        OpOutcome::Failed,
        OpOutcome::Partial,
        OpOutcome::Ok,
        OpOutcome::UpToDate,
    ] {
        lab.ends(outcome).await;
    }
}

/// Another host's journal, or one that is gone, says nothing of it.
#[tokio::test]
async fn what_the_journal_says_nothing_of_is_as_it_looks() {
    let mut first = Lab::new(&[Goes::Well]);
    first.ends(OpOutcome::Ok).await;
    let mut second = Lab::new(&[]);
    let stored = first.repo.points.lock().unwrap().clone();
    *second.repo.points.lock().unwrap() = stored;
    second.ends(OpOutcome::UpToDate).await;
    let of_it: PointId = "1".parse().unwrap();
    assert!(
        second
            .repo
            .points
            .lock()
            .unwrap()
            .iter()
            .all(|point| point.id == of_it)
    );
}

/// `restic repair snapshots --forget` has cut it down, perhaps, and all that is recorded of it says what it was.
#[tokio::test]
async fn what_was_written_anew_since_is_stored_again() {
    let mut lab = Lab::new(&[Goes::Well, Goes::Well]);
    lab.ends(OpOutcome::Ok).await;
    lab.repo.points.lock().unwrap()[0].altered = true;
    assert_eq!(lab.planned().await, 1);
    lab.ends(OpOutcome::Ok).await;
    // There is a copy of it that is as it was written.
    assert_eq!(lab.planned().await, 0);
    lab.ends(OpOutcome::UpToDate).await;
}
