//! What ageing out off-site points names to be removed, and what it never names.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::Timestamp;
use reseed_core::clock::{Clock, SystemClock};
use reseed_core::digest::TreeDigest;
use reseed_core::error::{OffsiteError, OffsiteKind, OpError, OpKind, StoreError, StoreKind};
use reseed_core::journal::{
    Attempt, Entry, LastGood, Query, Run, RunKey, RunKind, RunOutcome, ServiceRecord, SqliteJournal,
};
use reseed_core::names::{DatasetName, PointId, RunId, ServiceName, SourceName};
use reseed_core::ops::{self, Guarded, OpOutcome};
use reseed_core::point::{Fingerprint, Marker, MarkerState, RecoveryPoint, Snapshot, Target};
use reseed_core::pruner::Forgotten;
use reseed_core::retention::Policy as Rules;
use reseed_core::retention::restic::{Count, Policy as Keep, Within};
use reseed_core::service::Policy;
use reseed_core::store::*;
use reseed_core::{Context, Engine, OffsitePruner, Service};

use crate::mocks::{self, MockLook, MockStore};

/// A repository with points; writes down what it is asked to remove.
#[derive(Debug)]
struct Repo {
    name: SourceName,
    points: Vec<RecoveryPoint>,
    calls: Mutex<Vec<String>>,
    /// One that stays whatever is said.
    stays: Option<&'static str>,
    locked: bool,
}

#[async_trait]
impl OffsitePruner for Repo {
    fn name(&self) -> &SourceName {
        &self.name
    }
    async fn own_points(&self, _: &Context) -> Result<Vec<RecoveryPoint>, OffsiteError> {
        Ok(self.points.clone())
    }
    async fn forget(&self, _: &Context, locators: &[String]) -> Result<Vec<Forgotten>, OffsiteError> {
        self.calls
            .lock()
            .unwrap()
            .push(format!("forget {}", locators.join(" ")));
        let kept = |locator: &String| {
            (self.stays == Some(locator))
                .then(|| OffsiteError::new(OffsiteKind::PermissionDenied, "denied").report())
        };
        let one = |locator: &String| Forgotten {
            locator: locator.clone(),
            kept: kept(locator),
        };
        Ok(locators.iter().map(one).collect())
    }
    async fn prune(&self, _: &Context) -> Result<(), OffsiteError> {
        self.calls.lock().unwrap().push("prune".to_owned());
        match self.locked {
            true => Err(OffsiteError::new(OffsiteKind::Locked, "locked by another host")),
            false => Ok(()),
        }
    }
}

fn print(bytes: u64) -> Fingerprint {
    Fingerprint {
        digest: TreeDigest::from_bytes([7; 32]),
        files: 10,
        bytes,
    }
}

fn days_ago(days: i64) -> Timestamp {
    SystemClock::new().now() - jiff::SignedDuration::from_hours(24 * days)
}

/// Named for its age in days.
fn point(dataset: &str, days: i64) -> RecoveryPoint {
    RecoveryPoint {
        id: PointId::new(format!("p{days}")).unwrap(),
        dataset: DatasetName::new(dataset).unwrap(),
        source: SourceName::new("b2").unwrap(),
        locator: format!("{dataset}-{days}").replace('/', "-"),
        snapshot: None,
        taken_at: days_ago(days),
        fingerprint: Some(print(1000)),
        bytes: None,
        unseeded: false,
        partial: false,
        altered: false,
    }
}

fn repo(points: Vec<RecoveryPoint>) -> Repo {
    Repo {
        name: SourceName::new("b2").unwrap(),
        points,
        calls: Mutex::default(),
        stays: None,
        locked: false,
    }
}

/// 30 days, and of the services `a` and `b` one point each 10 days.
fn ages(dataset: &str) -> Vec<RecoveryPoint> {
    [1, 10, 20, 40, 50]
        .into_iter()
        .map(|days| point(dataset, days))
        .collect()
}

fn thirty_days() -> Rules {
    Rules::Restic(Keep {
        keep_within: Within {
            hours: 30 * 24,
            ..Within::default()
        },
        keep_last: Count::Newest(1),
        group_by: BTreeSet::new(),
        ..Keep::default()
    })
}

fn service(name: &str, store: MockStore) -> Service {
    Service {
        name: ServiceName::new(name).unwrap(),
        targets: vec![Target {
            dataset: DatasetName::new(format!("tank/{name}")).unwrap(),
            mountpoint: format!("/srv/{name}").into(),
        }],
        store: Arc::new(store),
        sources: Vec::new(),
        replicators: Vec::new(),
        offsite: Vec::new(),
        policy: Policy::default(),
    }
}

fn inspection(target: &Target, condition: Condition, state: Option<MarkerState>) -> Inspection {
    Inspection {
        target: target.clone(),
        condition,
        guid: None,
        marker: state.map(|state| Marker {
            run: RunId::new("before").unwrap(),
            at: days_ago(2),
            state,
        }),
        leftover: None,
    }
}

/// A store whose service is in this state.
fn in_state(condition: Condition, state: Option<MarkerState>) -> MockStore {
    let mut store = MockStore::new();
    store.expect_inspect().returning(move |_, targets| {
        Ok(targets
            .iter()
            .map(|t| inspection(t, condition.clone(), state.clone()))
            .collect())
    });
    store.expect_list().returning(|_, _| Ok(Vec::new()));
    store
}

fn sound() -> MockStore {
    in_state(Condition::Populated, None)
}

fn engine() -> Engine {
    mocks::engine(Arc::new(SystemClock::new()), MockLook::new())
}

pub(crate) fn cx() -> Context {
    Context::silent(RunId::new("run").unwrap())
}

fn calls(repo: &Repo) -> Vec<String> {
    repo.calls.lock().unwrap().clone()
}

#[tokio::test]
async fn what_is_too_old_is_named_and_the_data_goes_last() {
    let repo = repo([ages("tank/a"), ages("tank/b")].concat());
    let services = [service("a", sound()), service("b", sound())];
    let (engine, cx) = (engine(), cx());
    let plan = ops::forget_plan(&engine, &cx, &repo, &services, &thirty_days())
        .await
        .unwrap();
    assert_eq!(calls(&repo), Vec::<String>::new(), "a plan does nothing");
    assert_eq!(plan.services[0].remove(), ["tank-a-40", "tank-a-50"]);
    let done = ops::forget(&engine, &cx, &repo, &services, &thirty_days())
        .await
        .unwrap();
    assert_eq!(
        calls(&repo),
        [
            "forget tank-a-40 tank-a-50",
            "forget tank-b-40 tank-b-50",
            "prune"
        ]
    );
    assert_eq!(done.unpruned, None);
    assert!(done.services.iter().all(|report| report.outcome == OpOutcome::Ok));
    let query = Query {
        kind: Some(RunKind::Prune),
        ..Query::default()
    };
    let history = engine.journal.history(&query).unwrap();
    assert_eq!(history.len(), 2, "both are in the journal");
    assert!(
        history
            .iter()
            .all(|run| run.key.peer.as_ref() == Some(&repo.name))
    );
}

/// The services' locks are let go in between.
#[tokio::test]
async fn points_go_first_and_the_data_by_itself() {
    let (repo, services) = (repo(ages("tank/a")), [service("a", sound())]);
    let (engine, cx) = (engine(), cx());
    let mut done = ops::forget_points(&engine, &cx, &repo, &services, &thirty_days())
        .await
        .unwrap();
    assert_eq!(calls(&repo), ["forget tank-a-40 tank-a-50"]);
    ops::remove_unused(&engine, &cx, &repo, &mut done).await;
    assert_eq!(calls(&repo).last().unwrap(), "prune");
    assert_eq!(done.unpruned, None);
    // What speaks against it is said, and nothing done.
    let why = OpError::new(OpKind::Guarded, "they are more likely lost").report();
    done.unpruned = Some(why.clone());
    ops::remove_unused(&engine, &cx, &repo, &mut done).await;
    assert_eq!((calls(&repo).len(), done.unpruned), (2, Some(why)));
}

/// However old: the newest, and the last one that was whole.
#[tokio::test]
async fn the_last_good_point_stays_behind_newer_ones_that_are_not() {
    let mut points = ages("tank/a");
    points[0].partial = true;
    points[1].unseeded = true;
    points[2].fingerprint = None;
    let repo = repo(points);
    let plan = ops::forget_plan(&engine(), &cx(), &repo, &[service("a", sound())], &thirty_days())
        .await
        .unwrap();
    assert_eq!(
        plan.services[0].remove(),
        ["tank-a-50"],
        "the one of 40 days is the last good one"
    );
}

/// One that a wrong clock has put into the future is not what a lost service is restored from.
#[tokio::test]
async fn the_last_good_point_is_the_newest_that_is_not_dated_in_the_future() {
    let mut points: Vec<RecoveryPoint> = [-400, 1, 40, 50].map(|days| point("tank/a", days)).into();
    points[1].partial = true;
    let repo = repo(points);
    let plan = ops::forget_plan(&engine(), &cx(), &repo, &[service("a", sound())], &thirty_days())
        .await
        .unwrap();
    assert_eq!(plan.services[0].remove(), ["tank-a-50"]);
}

/// And what only looks whole: nobody knows that it isn't.
#[tokio::test]
async fn the_last_point_that_is_known_to_be_whole_stays() {
    let mut points: Vec<RecoveryPoint> = [1, 40, 50].map(|days| point("tank/a", days)).into();
    points[0].partial = true;
    let (repo, engine) = (repo(points), engine());
    let key = RunKey {
        run: RunId::new("before").unwrap(),
        service: ServiceName::new("a").unwrap(),
        kind: RunKind::Backup,
        peer: Some(repo.name.clone()),
    };
    let attempt = Attempt {
        source: repo.name.clone(),
        points: vec![PointId::new("p40").unwrap()],
        number: 1,
        stage: "store".to_owned(),
        error: None,
        seconds: 0.0,
    };
    let planned = async || {
        let services = [service("a", sound())];
        let plan = ops::forget_plan(&engine, &cx(), &repo, &services, &thirty_days()).await;
        plan.unwrap().services[0].remove()
    };
    assert_eq!(planned().await, ["tank-a-50"]);
    let run = Run {
        attempts: vec![attempt],
        ..Run::begun(key, days_ago(40))
    };
    engine.journal.write(vec![Entry::Run(Box::new(run))]);
    assert_eq!(planned().await, Vec::<String>::new());
}

/// And what was written anew since, which may have been cut down: unless there is a whole copy of it as it was.
#[tokio::test]
async fn the_last_point_whose_record_is_its_own_stays() {
    let altered = RecoveryPoint {
        altered: true,
        ..point("tank/a", 1)
    };
    let copy = |partial| RecoveryPoint {
        locator: "copy".to_owned(),
        partial,
        ..point("tank/a", 1)
    };
    for (more, removed) in [
        (None, vec!["tank-a-50"]),
        (Some(copy(true)), vec!["tank-a-50"]),
        (Some(copy(false)), vec!["tank-a-40", "tank-a-50"]),
    ] {
        let mut points = vec![altered.clone(), point("tank/a", 40), point("tank/a", 50)];
        points.extend(more);
        let (repo, services) = (repo(points), [service("a", sound())]);
        let plan = ops::forget_plan(&engine(), &cx(), &repo, &services, &thirty_days()).await;
        let mut named = plan.unwrap().services[0].remove();
        named.sort();
        assert_eq!(named, removed);
    }
}

#[tokio::test]
async fn what_the_journal_calls_the_last_good_state_stays_too() {
    let (repo, engine) = (repo(ages("tank/a")), engine());
    engine.journal.write(vec![Entry::Service(ServiceRecord {
        service: ServiceName::new("a").unwrap(),
        unseeded: None,
        since: days_ago(100),
        last_good: Some(LastGood {
            point: PointId::new("p50").unwrap(),
            taken_at: days_ago(50),
            fingerprint: print(1000),
        }),
    })]);
    let plan = ops::forget_plan(&engine, &cx(), &repo, &[service("a", sound())], &thirty_days())
        .await
        .unwrap();
    assert_eq!(plan.services[0].remove(), ["tank-a-40"]);
}

/// Unseeded by its marker, by the journal, not there, or unknown: nothing of it goes, and all of another service's.
#[tokio::test]
async fn a_service_that_may_have_lost_its_data_loses_no_point() {
    let unseeded = || {
        Some(MarkerState::Unseeded {
            why: "no source".to_owned(),
        })
    };
    let unknown = || {
        let mut store = MockStore::new();
        let gone = |_: &Context, _: &[Target]| Err(StoreError::new(StoreKind::PoolUnavailable, "no pool"));
        store.expect_inspect().returning(gone);
        store
    };
    let by_journal = engine();
    by_journal.journal.write(vec![Entry::Service(ServiceRecord {
        service: ServiceName::new("a").unwrap(),
        unseeded: Some("no source".to_owned()),
        since: days_ago(2),
        last_good: None,
    })]);
    for (what, engine, store) in [
        ("marker", engine(), in_state(Condition::Populated, unseeded())),
        ("journal", by_journal, sound()),
        ("empty", engine(), in_state(Condition::Empty, None)),
        ("absent", engine(), in_state(Condition::Absent, None)),
        ("unknown", engine(), unknown()),
    ] {
        let repo = repo([ages("tank/a"), ages("tank/b")].concat());
        let services = [service("a", store), service("b", sound())];
        let done = ops::forget(&engine, &cx(), &repo, &services, &thirty_days())
            .await
            .unwrap();
        assert_eq!(calls(&repo), ["forget tank-b-40 tank-b-50", "prune"], "{what}");
        assert_eq!(done.services[0].outcome, OpOutcome::Skipped, "{what}");
        assert!(done.services[0].error.as_ref().unwrap().hint.is_some(), "{what}");
    }
}

/// What is left of a dead pool is off-site: the dataset was made anew, filled itself a little, and was backed up three times.
fn begun_anew() -> Vec<RecoveryPoint> {
    let little = |days| RecoveryPoint {
        fingerprint: Some(print(10)),
        ..point("tank/a", days)
    };
    let mut points: Vec<RecoveryPoint> = [1, 2, 3].into_iter().map(little).collect();
    points.extend([10, 40, 50].map(|days| point("tank/a", days)));
    points
}

async fn guarded(points: Vec<RecoveryPoint>, store: MockStore) -> Option<Guarded> {
    let repo = repo(points);
    let services = [service("a", store)];
    let mut plan = ops::forget_plan(&engine(), &cx(), &repo, &services, &thirty_days())
        .await
        .unwrap();
    let plan = plan.services.remove(0);
    assert_eq!(plan.guarded.is_some(), plan.remove().is_empty(), "{plan:#?}");
    plan.guarded
}

#[tokio::test]
async fn a_service_that_was_begun_anew_keeps_the_points_of_what_it_was() {
    let guarded = guarded(begun_anew(), sound()).await.unwrap();
    assert!(
        guarded.why.contains("10 files and 1000 bytes in b2's point of")
            && guarded.why.contains("10 bytes in b2's"),
        "{guarded:?}"
    );
    assert!(guarded.hint.contains("`reseed adopt a`"), "{guarded:?}");
}

/// Each counts alone; what is dated in the future isn't what is there now, and an unseeded state no measure.
#[tokio::test]
async fn files_bytes_and_the_newest_of_the_present_count() {
    let changed = |change: fn(&mut Vec<RecoveryPoint>)| {
        let mut points = ages("tank/a");
        change(&mut points);
        guarded(points, sound())
    };
    let files = |points: &mut Vec<RecoveryPoint>| points[0].fingerprint.as_mut().unwrap().files = 4;
    assert!(changed(files).await.is_some());
    let half = |points: &mut Vec<RecoveryPoint>| points[0].fingerprint = Some(print(500));
    assert!(changed(half).await.is_none());
    let partial = |points: &mut Vec<RecoveryPoint>| {
        points[0].fingerprint = Some(print(400));
        points[0].partial = true;
    };
    assert!(changed(partial).await.is_some());
    let future = |points: &mut Vec<RecoveryPoint>| {
        points[0].fingerprint = Some(print(400));
        points.push(point("tank/a", -3));
    };
    assert!(changed(future).await.is_some());
    let unseeded = |points: &mut Vec<RecoveryPoint>| {
        points[0].fingerprint = Some(print(400));
        points[0].unseeded = true;
    };
    assert!(changed(unseeded).await.is_none());
}

#[tokio::test]
async fn what_an_operator_adopted_is_the_measure_from_then_on() {
    // That was two days ago.
    let adopted = || in_state(Condition::Populated, Some(MarkerState::Adopted));
    assert_eq!(guarded(begun_anew(), adopted()).await, None);
    let mut shrunk_again = begun_anew();
    shrunk_again.push(RecoveryPoint {
        fingerprint: Some(print(4)),
        ..point("tank/a", 0)
    });
    let why = guarded(shrunk_again, adopted()).await.unwrap().why;
    assert!(why.contains("and 10 bytes in b2's point of"), "{why}");
}

/// It was restored, and not yet backed up again.
#[tokio::test]
async fn a_snapshot_that_is_newer_than_the_points_says_what_is_there() {
    let with_snapshot = |bytes| {
        let mut store = MockStore::new();
        store.expect_inspect().returning(|_, targets| {
            Ok(targets
                .iter()
                .map(|t| inspection(t, Condition::Populated, None))
                .collect())
        });
        store.expect_list().returning(move |_, targets| {
            Ok(vec![Snapshot {
                dataset: targets[0].dataset.clone(),
                name: "now".parse().unwrap(),
                guid: "7".parse().unwrap(),
                taken_at: days_ago(0),
                fingerprint: Some(print(bytes)),
                bytes: None,
                holds: Vec::new(),
                unseeded: false,
            }])
        });
        store
    };
    assert_eq!(guarded(begun_anew(), with_snapshot(1000)).await, None);
    let shrunk = guarded(ages("tank/a"), with_snapshot(10)).await.unwrap();
    assert!(shrunk.why.contains("10 bytes in now"), "{shrunk:?}");
}

#[tokio::test]
async fn what_is_of_no_service_stays() {
    let repo = repo([ages("tank/a"), ages("tank/gone")].concat());
    let services = [service("a", sound())];
    let plan = ops::forget_plan(&engine(), &cx(), &repo, &services, &thirty_days())
        .await
        .unwrap();
    assert_eq!(plan.of_no_service, [DatasetName::new("tank/gone").unwrap()]);
    assert_eq!(plan.services.len(), 1);
    assert!(
        plan.services[0]
            .remove()
            .iter()
            .all(|id| id.starts_with("tank-a-"))
    );
}

#[tokio::test]
async fn what_could_not_be_removed_is_no_success() {
    let mut repo = repo(ages("tank/a"));
    repo.stays = Some("tank-a-50");
    repo.locked = true;
    let done = ops::forget(&engine(), &cx(), &repo, &[service("a", sound())], &thirty_days())
        .await
        .unwrap();
    assert_eq!(done.services[0].outcome, OpOutcome::Partial);
    assert_eq!(done.services[0].done, ["tank-a-40"]);
    assert!(done.unpruned.unwrap().to_string().contains("locked"));
}

/// A backup that could not be told to be partial is stored again: the state has two copies then, of which one is whole.
#[tokio::test]
async fn of_two_copies_of_a_state_never_only_the_partial_one_stays() {
    for (partial, whole) in [("a-partial", "b-whole"), ("z-partial", "b-whole")] {
        let copies = |days: i64| {
            let of = |locator: &str, partial| RecoveryPoint {
                locator: format!("{locator}-{days}"),
                partial,
                ..point("tank/a", days)
            };
            [of(partial, true), of(whole, false)]
        };
        let points: Vec<_> = [1, 40, 41, 100].into_iter().flat_map(copies).collect();
        // One a month: of the states 40 and 41 days back one at least goes, of the others none.
        let monthly = Rules::Restic(Keep {
            keep_monthly: Count::Newest(12),
            group_by: BTreeSet::new(),
            ..Keep::default()
        });
        let repo = repo(points);
        ops::forget(&engine(), &cx(), &repo, &[service("a", sound())], &monthly)
            .await
            .unwrap();
        let gone = calls(&repo)
            .into_iter()
            .filter(|call| call.starts_with("forget "))
            .collect::<String>();
        for days in [1, 40, 41, 100] {
            let (partial, whole) = (format!("{partial}-{days}"), format!("{whole}-{days}"));
            let gone = |locator: &str| gone.split(' ').any(|word| word == locator);
            assert_eq!(gone(&whole), gone(&partial), "{days}");
            if days == 1 || days == 100 {
                assert!(!gone(&whole), "{days}");
            }
        }
    }
}

/// Where the points of all services are gone they may be lost, and what is left of them must not go as well.
#[tokio::test]
async fn nothing_is_pruned_where_all_that_was_stored_is_gone() {
    let (repo, engine, services) = (repo(Vec::new()), engine(), [service("a", sound())]);
    let done = ops::forget(&engine, &cx(), &repo, &services, &thirty_days()).await;
    assert_eq!(done.unwrap().unpruned, None, "nothing was ever stored");
    assert_eq!(calls(&repo), ["prune"]);
    let stored_in = |peer: &SourceName, outcome| {
        let key = RunKey {
            run: RunId::new("before").unwrap(),
            service: ServiceName::new("a").unwrap(),
            kind: RunKind::Backup,
            peer: Some(peer.clone()),
        };
        let run = Run {
            outcome: Some(outcome),
            ..Run::begun(key, days_ago(40))
        };
        engine.journal.write(vec![Entry::Run(Box::new(run))]);
    };
    stored_in(&SourceName::new("other").unwrap(), RunOutcome::Ok);
    stored_in(&repo.name, RunOutcome::Failed);
    let done = ops::forget(&engine, &cx(), &repo, &services, &thirty_days()).await;
    assert_eq!(done.unwrap().unpruned, None);
    assert_eq!(calls(&repo), ["prune", "prune"]);
    stored_in(&repo.name, RunOutcome::Ok);
    let done = ops::forget(&engine, &cx(), &repo, &services, &thirty_days()).await;
    let why = done.unwrap().unpruned.unwrap();
    assert!(why.to_string().contains("a was backed up to it"), "{why}");
    assert_eq!(calls(&repo), ["prune", "prune"], "it was pruned");
}

/// A dataset of two could not be stored since: rules about each alone would keep four halves, and nothing that comes back.
#[tokio::test]
async fn the_last_state_that_all_datasets_were_in_together_stays() {
    let mut service = service("a", sound());
    service.targets.push(Target {
        dataset: DatasetName::new("tank/wal").unwrap(),
        mountpoint: "/srv/wal".into(),
    });
    let now = SystemClock::new().now();
    let at = |dataset: &str, days: i64, partial: bool| RecoveryPoint {
        taken_at: now - jiff::SignedDuration::from_hours(24 * days),
        partial,
        ..point(dataset, days)
    };
    let of_data = [1, 10, 20, 40, 50].map(|days| at("tank/a", days, false));
    for (of_wal, gone) in [
        // Stored once.
        (vec![at("tank/wal", 40, false)], vec!["tank-a-50"]),
        // One of its files can't be read any more.
        (
            vec![at("tank/wal", 1, true), at("tank/wal", 40, false)],
            vec!["tank-a-50"],
        ),
        // All of it is there: then age decides.
        (
            vec![at("tank/wal", 1, false), at("tank/wal", 40, false)],
            vec!["tank-a-40", "tank-a-50", "tank-wal-40"],
        ),
    ] {
        let repo = repo([&of_data[..], &of_wal].concat());
        let services = [service.clone()];
        let plan = ops::forget_plan(&engine(), &cx(), &repo, &services, &thirty_days()).await;
        assert_eq!(plan.unwrap().services[0].remove(), gone);
    }
}

/// In a directory store it comes last, and would be the measure.
#[tokio::test]
async fn a_snapshot_that_is_dated_in_the_future_does_not_hide_that_the_data_shrank() {
    let taken = |days: i64, bytes: u64| Snapshot {
        dataset: DatasetName::new("tank/a").unwrap(),
        name: format!("s{days}").parse().unwrap(),
        guid: days.unsigned_abs().to_string().parse().unwrap(),
        taken_at: days_ago(days),
        fingerprint: Some(print(bytes)),
        bytes: None,
        holds: Vec::new(),
        unseeded: false,
    };
    let planned = async |listed: Vec<Snapshot>| {
        let mut store = MockStore::new();
        store.expect_inspect().returning(|_, targets| {
            Ok(targets
                .iter()
                .map(|t| inspection(t, Condition::Populated, None))
                .collect())
        });
        store.expect_list().returning(move |_, _| Ok(listed.clone()));
        ops::prune_plan(&engine(), &cx(), &service("a", store), &thirty_days()).await
    };
    let old = [taken(50, 100_000), taken(40, 100_000)];
    let mut listed = [&old[..], &[taken(1, 1000)]].concat();
    assert_eq!(planned(listed.clone()).await.unwrap_err().kind(), OpKind::Guarded);
    listed.push(taken(-400, 100_000));
    assert_eq!(planned(listed).await.unwrap_err().kind(), OpKind::Guarded);
    // And what stays for being the last good one is what a service is restored from.
    let listed = [&old[..], &[taken(-400, 100_000)]].concat();
    let plan = planned(listed).await.unwrap();
    let kept = plan.datasets[0].1.keep.iter();
    let good = kept
        .filter(|one| one.point.last_good)
        .map(|one| one.point.name.as_str());
    assert_eq!(good.collect::<BTreeSet<_>>(), BTreeSet::from(["s-400", "s40"]));
}

/// It says nothing of what was before, which is not that all of it was whole.
#[tokio::test]
async fn a_journal_that_was_begun_anew_does_not_know_what_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    std::fs::write(&path, "garbage that is long enough to be noticed").unwrap();
    let mut engine = engine();
    engine.journal = Arc::new(SqliteJournal::new(&path, Arc::new(SystemClock::new())));
    let planned = async |points: Vec<RecoveryPoint>| {
        let services = [service("a", sound())];
        let plan = ops::forget_plan(&engine, &cx(), &repo(points), &services, &thirty_days()).await;
        let plan = plan.unwrap().services.remove(0);
        (
            plan.guarded.as_ref().map(|guarded| guarded.why.clone()),
            plan.remove(),
        )
    };
    let (why, gone) = planned(ages("tank/a")).await;
    assert!(
        why.is_some_and(|why| why.contains("damaged")) && gone.is_empty(),
        "{gone:?}"
    );
    let key = RunKey {
        run: RunId::new("next").unwrap(),
        service: ServiceName::new("a").unwrap(),
        kind: RunKind::Snapshot,
        peer: None,
    };
    let run = Run::begun(key, days_ago(0));
    engine.journal.write(vec![Entry::Run(Box::new(run))]);
    let (why, gone) = planned(ages("tank/a")).await;
    assert!(
        why.is_some_and(|why| why.contains("begun anew")) && gone.is_empty(),
        "{gone:?}"
    );
    let gone = ops::forget(
        &engine,
        &cx(),
        &repo(Vec::new()),
        &[service("a", sound())],
        &thirty_days(),
    )
    .await;
    assert!(gone.unwrap().unpruned.is_some());
    // One was stored since.
    let stored = RecoveryPoint {
        taken_at: SystemClock::new().now(),
        ..point("tank/a", 0)
    };
    let (why, gone) = planned([ages("tank/a"), vec![stored.clone()]].concat()).await;
    assert_eq!((why, gone.len()), (None, 2));
    // By a clock that was wrong.
    let later = RecoveryPoint {
        taken_at: days_ago(-400),
        ..stored
    };
    let (why, gone) = planned([ages("tank/a"), vec![later]].concat()).await;
    assert!(why.is_some() && gone.is_empty(), "{gone:?}");
}
