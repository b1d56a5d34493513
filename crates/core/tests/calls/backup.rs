//! What isn't read again: a state that a repository holds by its digest is recorded, and no snapshot is opened for it.

use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use reseed_core::clock::Clock as _;
use reseed_core::digest::TreeDigest;
use reseed_core::error::{OffsiteError, OffsiteKind, StoreError, StoreKind};
use reseed_core::journal::{Attempt, Entry, Run, RunKey, RunKind, RunOutcome};
use reseed_core::names::{DatasetName, RunId, SourceName};
use reseed_core::offsite::*;
use reseed_core::ops::{self, OpOutcome, OpReport};
use reseed_core::point::{Fingerprint, RecoveryPoint, Snapshot, Target};
use reseed_core::service::Policy;
use reseed_core::store::{Settled, StageState, Staging, StoreCaps};
use reseed_core::{Context, OffsiteRepo, Service};

use crate::mocks::{Hand, MockLook, MockStore, engine};

/// A repository with one point.
#[derive(Debug)]
struct Repo {
    name: SourceName,
    point: RecoveryPoint,
    record: bool,
    /// What it answers to be asked to record; none where it must not be asked.
    recorded: Option<Result<Option<BackupReport>, OffsiteKind>>,
    /// What was called that changes it.
    calls: Mutex<Vec<&'static str>>,
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
            record: self.record,
        }
    }
    async fn init(&self, _: &Context) -> Result<RepoInfo, OffsiteError> {
        unasked()
    }
    async fn open(&self, _: &Context) -> Result<RepoInfo, OffsiteError> {
        unasked()
    }
    async fn backup(&self, _: &Context, request: &BackupRequest) -> Result<BackupReport, OffsiteError> {
        assert_eq!(request.path, Path::new("/snapshot"));
        self.calls.lock().unwrap().push("backup");
        Ok(report())
    }
    async fn record(
        &self,
        _: &Context,
        request: &BackupRequest,
        same_as: &RecoveryPoint,
        read_since: Timestamp,
    ) -> Result<Option<BackupReport>, OffsiteError> {
        assert_eq!(same_as, &self.point);
        assert_eq!(
            (request.point.as_str(), request.fingerprint),
            ("2", Some(print(7)))
        );
        let week = SignedDuration::from_hours(7 * 24);
        assert_eq!(read_since, Hand::default().now() - week);
        self.calls.lock().unwrap().push("record");
        let answer = self.recorded.clone().expect("it must not be asked");
        answer.map_err(|kind| OffsiteError::new(kind, "it can't be recorded"))
    }
    async fn points(&self, _: &Context, _: Option<&Target>) -> Result<Vec<RecoveryPoint>, OffsiteError> {
        Ok(vec![self.point.clone()])
    }
    async fn check(&self, _: &Context, _: CheckDepth) -> Result<CheckReport, OffsiteError> {
        unasked()
    }
    async fn usage(&self, _: &Context) -> Result<Usage, OffsiteError> {
        unasked()
    }
}

fn dataset() -> DatasetName {
    DatasetName::new("tank/app").unwrap()
}

fn target() -> Target {
    Target {
        dataset: dataset(),
        mountpoint: "/srv/app".into(),
    }
}

fn print(of: u8) -> Fingerprint {
    Fingerprint {
        digest: TreeDigest::from_bytes([of; 32]),
        files: 3,
        bytes: 700,
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

/// The service's only snapshot.
fn snapshot() -> Snapshot {
    Snapshot {
        dataset: dataset(),
        name: "second".parse().unwrap(),
        guid: "2".parse().unwrap(),
        taken_at: at(-10),
        fingerprint: Some(print(7)),
        bytes: None,
        holds: Vec::new(),
        unseeded: false,
    }
}

/// What the repository has, of the same tree.
fn stored() -> RecoveryPoint {
    RecoveryPoint {
        id: "1".parse().unwrap(),
        dataset: dataset(),
        source: "b2".parse().unwrap(),
        locator: "abc".to_owned(),
        snapshot: None,
        taken_at: at(-100),
        fingerprint: Some(print(7)),
        bytes: Some(700),
        unseeded: false,
        partial: false,
        altered: false,
    }
}

fn report() -> BackupReport {
    BackupReport {
        snapshot_id: "def".to_owned(),
        outcome: BackupOutcome::Complete,
        files: 3,
        bytes: 700,
        added: 0,
    }
}

fn repo(
    point: RecoveryPoint,
    record: bool,
    recorded: Option<Result<Option<BackupReport>, OffsiteKind>>,
) -> Repo {
    Repo {
        name: "b2".parse().unwrap(),
        point,
        record,
        recorded,
        calls: Mutex::default(),
    }
}

/// Backs up; `read` says whether the snapshot has to be opened and read.
async fn backed_up(repo: Repo, read: bool) -> OpReport {
    backed_up_after(repo, read, Vec::new()).await
}

/// The same, with a history.
async fn backed_up_after(repo: Repo, read: bool, history: Vec<Run>) -> OpReport {
    backed_up_of(repo, read, history, (snapshot(), None)).await
}

/// The same of a snapshot, with what the store answers when it is asked what was written; none where it must not be asked.
async fn backed_up_of(
    repo: Repo,
    read: bool,
    history: Vec<Run>,
    (snapshot, unwritten): (Snapshot, Option<Result<bool, StoreKind>>),
) -> OpReport {
    let mut store = MockStore::new();
    store
        .expect_list()
        .returning(move |_, _| Ok(vec![snapshot.clone()]));
    if let Some(unwritten) = unwritten {
        store
            .expect_unwritten()
            .times(1)
            .returning(move |_, _, _| unwritten.map_err(|kind| StoreError::new(kind, "not now")));
    }
    let reads = usize::from(read);
    store.expect_stage().times(reads).returning(|_, request| {
        Ok(Staging {
            target: request.target.clone(),
            path: "/snapshot".into(),
            locator: "x".to_owned(),
            state: StageState::Exposed,
        })
    });
    store
        .expect_settle()
        .times(reads)
        .returning(|_, _| Ok(Settled::default()));
    store.expect_caps().return_const(StoreCaps {
        atomic_group: true,
        holds: true,
        native_receive: true,
        set_aside: true,
        checks_reads: true,
    });
    let asked = repo.recorded.is_some();
    let repo = Arc::new(repo);
    let service = Service {
        name: "app".parse().unwrap(),
        targets: vec![target()],
        store: Arc::new(store),
        sources: Vec::new(),
        replicators: Vec::new(),
        offsite: vec![Arc::<Repo>::clone(&repo)],
        policy: Policy::default(),
    };
    let engine = engine(Arc::new(Hand::default()), MockLook::new());
    let entries = history.into_iter().map(|run| Entry::Run(Box::new(run)));
    engine.journal.write(entries.collect());
    let cx = Context::silent(RunId::new("run").unwrap());
    let report = ops::backup(&engine, &cx, &service).await.remove(0);
    let wanted = [(asked, "record"), (read, "backup")];
    let wanted = wanted.iter().filter(|(called, _)| *called).map(|(_, call)| *call);
    assert_eq!(*repo.calls.lock().unwrap(), wanted.collect::<Vec<_>>());
    report
}

#[tokio::test]
async fn what_is_stored_by_its_digest_is_recorded_and_not_opened() {
    let report = backed_up(repo(stored(), true, Some(Ok(Some(report())))), false).await;
    assert_eq!(report.outcome, OpOutcome::Ok, "{report:#?}");
    assert!(
        report.done[0].contains("unchanged since 1969-12-31T23:58:20Z"),
        "{report:#?}"
    );
}

/// sanoid's have no digest. The store knows what was written.
#[tokio::test]
async fn what_was_not_written_to_since_what_is_stored_is_recorded_and_not_opened() {
    let plain = || Snapshot {
        fingerprint: None,
        ..snapshot()
    };
    let recorded = || repo(stored(), true, Some(Ok(Some(report()))));
    let report = backed_up_of(recorded(), false, Vec::new(), (plain(), Some(Ok(true)))).await;
    assert_eq!(report.outcome, OpOutcome::Ok, "{report:#?}");
    for answer in [Ok(false), Err(StoreKind::Busy)] {
        let unasked = repo(stored(), true, None);
        backed_up_of(unasked, true, Vec::new(), (plain(), Some(answer))).await;
    }
    // Of another dataset, or not known to be whole: there is nothing to ask about.
    for change in [
        (|point: &mut RecoveryPoint| point.dataset = DatasetName::new("tank/other").unwrap())
            as fn(&mut RecoveryPoint),
        |point| point.partial = true,
        |point| point.altered = true,
    ] {
        let mut point = stored();
        change(&mut point);
        backed_up_of(repo(point, true, None), true, Vec::new(), (plain(), None)).await;
    }
}

#[tokio::test]
async fn what_was_read_too_long_ago_is_read_again() {
    let report = backed_up(repo(stored(), true, Some(Ok(None))), true).await;
    assert_eq!(report.outcome, OpOutcome::Ok, "{report:#?}");
    assert!(report.done[0].contains("3 files"), "{report:#?}");
}

#[tokio::test]
async fn only_the_same_tree_of_the_same_dataset_is_taken_for_it() {
    let another = |change: fn(&mut RecoveryPoint)| {
        let mut point = stored();
        change(&mut point);
        repo(point, true, None)
    };
    for other in [
        another(|point| point.fingerprint = Some(print(8))),
        another(|point| point.fingerprint = None),
        another(|point| point.dataset = DatasetName::new("tank/other").unwrap()),
        another(|point| point.partial = true),
        another(|point| point.taken_at = at(60)),
        repo(stored(), false, None),
    ] {
        let report = backed_up(other, true).await;
        assert_eq!(report.outcome, OpOutcome::Ok, "{report:#?}");
    }
}

#[tokio::test]
async fn what_is_gone_or_damaged_there_is_stored_again() {
    for kind in [OffsiteKind::NotFound, OffsiteKind::Corrupt] {
        let report = backed_up(repo(stored(), true, Some(Err(kind))), true).await;
        assert_eq!(report.outcome, OpOutcome::Ok, "{report:#?}");
    }
    let report = backed_up(repo(stored(), true, Some(Err(OffsiteKind::Locked))), false).await;
    assert_eq!(report.outcome, OpOutcome::Failed, "{report:#?}");
}

#[tokio::test]
async fn a_repository_that_was_found_damaged_is_backed_up_to_by_reading() {
    let run = |n: i64, kind, peer: &str, outcome| {
        let key = RunKey {
            run: format!("r{n}").parse().unwrap(),
            service: "app".parse().unwrap(),
            kind,
            peer: Some(peer.parse().unwrap()),
        };
        Run {
            outcome: Some(outcome),
            ..Run::begun(key, at(n - 1000))
        }
    };
    let (bad, good) = (RunOutcome::Failed, RunOutcome::Ok);
    for kind in [RunKind::Check, RunKind::Verify] {
        let history = vec![run(1, kind, "b2", good), run(2, kind, "b2", bad)];
        backed_up_after(repo(stored(), true, None), true, history).await;
        // Mended since, and another repository's.
        let history = vec![
            run(1, kind, "b2", bad),
            run(2, kind, "b2", good),
            run(3, kind, "nas", bad),
        ];
        let recorded = Some(Ok(Some(report())));
        backed_up_after(repo(stored(), true, recorded), false, history).await;
    }
}

/// A rotating check looks at another part each day.
#[tokio::test]
async fn what_a_check_of_one_part_found_no_check_of_another_takes_back() {
    let run = |n: i64, depth: &str, outcome| {
        let key = RunKey {
            run: format!("r{n}").parse().unwrap(),
            service: "app".parse().unwrap(),
            kind: RunKind::Check,
            peer: Some("b2".parse().unwrap()),
        };
        Run {
            outcome: Some(outcome),
            verification: Some(depth.to_owned()),
            ..Run::begun(key, at(n - 1000))
        }
    };
    let (bad, good) = (RunOutcome::Failed, RunOutcome::Ok);
    for (found, later, is_taken_back) in [
        ("3/30", "4/30", false),
        ("3/30", "structure", false),
        ("3/30", "3/7", false),
        ("everything", "3/30", false),
        ("3/30", "3/30", true),
        ("3/30", "everything", true),
        ("structure", "4/30", true),
    ] {
        let history = vec![run(1, "9/30", good), run(2, found, bad), run(3, later, good)];
        let recorded = is_taken_back.then(|| Ok(Some(report())));
        backed_up_after(repo(stored(), true, recorded), !is_taken_back, history).await;
    }
}

/// A point that may only look whole is no model for another.
#[tokio::test]
async fn what_nobody_knows_to_be_whole_is_not_recorded_again() {
    let tried = |stage: &str| {
        let key = RunKey {
            run: "before".parse().unwrap(),
            service: "app".parse().unwrap(),
            kind: RunKind::Backup,
            peer: Some("b2".parse().unwrap()),
        };
        Run {
            attempts: vec![Attempt {
                source: "b2".parse().unwrap(),
                points: vec![stored().id],
                number: 1,
                stage: stage.to_owned(),
                error: None,
                seconds: 0.0,
            }],
            ..Run::begun(key, at(-1000))
        }
    };
    backed_up_after(repo(stored(), true, None), true, vec![tried("store")]).await;
    let recorded = Some(Ok(Some(report())));
    backed_up_after(repo(stored(), true, recorded), false, vec![tried("done")]).await;
}
