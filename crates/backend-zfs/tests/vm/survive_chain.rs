//! Restores and replications that are cut, meddled with or run twice, by the code of real runs.

use std::sync::Arc;
use std::time::Duration;

use reseed_backend_zfs::zfs::LocalSource;
use reseed_core::error::OpKind;
use reseed_core::lock::{Claim, Locks};
use reseed_core::ops;
use reseed_core::point::{MarkerState, Target};
use reseed_core::preseed::{Outcome, ServiceReport};
use reseed_core::service::WhenExhausted;
use reseed_core::store::Condition;
use reseed_core::{RestoreSource, Service};
use reseed_testkit::conformance::{block_on, context};
use reseed_testkit::files::{Files as _, assert_same};

use crate::chain::{Chain, Meddler};
use crate::lab::{run, sure};
use crate::source_lab::snapshot;

fn is_marked_restored(found: &reseed_core::store::Inspection) -> bool {
    matches!(&found.marker, Some(marker) if matches!(marker.state, MarkerState::Restored { .. }))
}

fn from(report: &ServiceReport) -> &str {
    report.source.as_ref().map_or("nowhere", |source| source.as_str())
}

/// What an operator does who wants another state than what is there, which is set aside.
async fn put_back(chain: &Chain, run: &str, service: &Service, at: ops::At) -> ServiceReport {
    let options = ops::RestoreOptions {
        from: None,
        at,
        set_aside: true,
    };
    ops::restore(&chain.engine, &context(run), service, &options)
        .await
        .unwrap()
}

fn from_its_own_snapshots(chain: &Chain, target: &Target) -> Service {
    let mut service = chain.service(&[target]);
    service.sources = vec![Arc::new(LocalSource::new(&chain.pool.store)) as Arc<dyn RestoreSource>];
    service
}

#[test]
fn a_restore_cut_at_random_offsets_goes_on_and_misses_nothing() {
    block_on(async {
        let chain = Chain::new("512M");
        let target = chain.pool.target("t");
        let (expected, _) = chain.made(&target, 4_000_000).await;
        chain.lose(&target);
        let seed = chain.engine.clock.now().as_nanosecond().unsigned_abs();
        println!("seed {seed}");
        let mut state = u64::try_from(seed % u128::from(u64::MAX)).unwrap() | 1;
        let mut random = |most: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            1 + state % most
        };
        let staged = format!("{}/svc/.reseed-stage:t", chain.pool.pool);
        let token = || run(["zfs", "get", "-H", "-o", "value", "receive_resume_token", &staged]);
        let mut resumable = 0;
        for round in 0.. {
            // Cut, gone on with, cut again, and gone on with to the end.
            for bytes in [random(4_000_000), random(1_500_000)] {
                let runner = Arc::new(Meddler::cutting(vec![bytes]));
                let mut service = chain.service_with(&[&target], runner.clone());
                service.sources.truncate(1);
                let report = chain.preseed(&format!("cut{round}"), &service).await;
                assert!(runner.has_meddled());
                if report.outcome == Outcome::Restored {
                    // What was left was less than the cut.
                    break;
                }
                assert!(
                    matches!(report.outcome, Outcome::Held { .. }),
                    "{}",
                    report.summary()
                );
                assert_eq!(chain.look(&target).await.condition, Condition::Absent);
                let there = token();
                resumable += usize::from(there.exit.success() && there.stdout.text().trim() != "-");
            }
            let service = chain.service(&[&target]);
            let report = chain.preseed(&format!("rest{round}"), &service).await;
            if report.outcome != Outcome::DataPresent {
                chain.is_back(&target, &expected, &report);
                assert_eq!(from(&report), "second");
            }
            assert_same(
                &expected,
                &chain.pool.files.list(&target.mountpoint),
                "what is back",
            );
            assert!(is_marked_restored(&chain.look(&target).await));
            if resumable >= 10 {
                break;
            }
            assert!(round < 20, "only {resumable} cuts left something to go on with");
            chain.lose(&target);
        }
    });
}

#[test]
fn a_point_that_is_pruned_in_the_middle_is_replaced_by_another() {
    block_on(async {
        let chain = Chain::of_three("256M");
        let target = chain.pool.target("t");
        let (one, _) = chain.made(&target, 100_000).await;
        chain.pool.files.write(&target.mountpoint.join("two"), b"2");
        snapshot(&chain.pool, &target, "two", 2, true).await;
        chain.replicate(std::slice::from_ref(&target)).await;
        let two = chain.pool.files.list(&target.mountpoint);
        // The newest goes between the plan and the sending: the other replica has it still.
        chain.lose(&target);
        let pruned = format!("{}@two", chain.replica(0, &target));
        let (first, also) = (pruned.clone(), format!("{}@two", chain.replica(1, &target)));
        let runner = Arc::new(Meddler::before(&["send"], move || {
            sure(["zfs", "destroy", &first]);
        }));
        let report = chain
            .preseed("third", &chain.service_with(&[&target], runner.clone()))
            .await;
        assert!(runner.has_meddled());
        assert!(report.attempts[0].error.is_some(), "{:?}", report.attempts);
        chain.is_back(&target, &two, &report);
        assert_eq!(from(&report), "third");
        // Gone everywhere: the state before it is better than nothing.
        chain.lose(&target);
        sure(["zfs", "destroy", &also]);
        let report = chain.preseed("older", &chain.service(&[&target])).await;
        chain.is_back(&target, &one, &report);
    });
}

/// Three snapshots, one of which somebody prunes right before a command that begins with `moment`; what was reported as sent, what is
/// on the replica, and whether the snapshot could be pruned.
async fn pruned_before(moment: &'static str) -> (Vec<String>, String, bool) {
    let chain = Chain::new("256M");
    let target = chain.pool.target("t");
    chain.made(&target, 100_000).await;
    for (minutes, name) in [(2, "two"), (3, "three"), (4, "four")] {
        chain
            .pool
            .files
            .write(&target.mountpoint.join(name), name.as_bytes());
        snapshot(&chain.pool, &target, name, minutes, true).await;
    }
    let doomed = format!("{}@three", target.dataset);
    let gone = doomed.clone();
    let runner = Arc::new(Meddler::before(&[moment], move || {
        let _ = run(["zfs", "destroy", &doomed]);
    }));
    let mut service = chain.service(&[&target]);
    service.replicators = vec![Arc::new(chain.replicator(0, &chain.store(runner.clone())))];
    let reports = ops::replicate(&chain.engine, &context("prune"), &service).await;
    assert!(
        runner.has_meddled() && reports[0].outcome.is_good(),
        "{reports:?}"
    );
    let again = ops::replicate(&chain.engine, &context("again"), &service).await;
    assert_eq!(again[0].outcome, ops::OpOutcome::UpToDate, "{again:?}");
    let replica = chain.replica(0, &target);
    let there = sure(["zfs", "list", "-H", "-t", "snapshot", "-o", "name", &replica]);
    let names = reports[0]
        .done
        .iter()
        .map(|line| line.rsplit('@').next().unwrap().to_owned());
    (
        names.collect(),
        there,
        !run(["zfs", "list", &gone]).exit.success(),
    )
}

#[test]
fn a_snapshot_that_somebody_prunes_while_it_is_replicated_stays_until_it_arrived() {
    block_on(async {
        let (told, there, gone) = pruned_before("send").await;
        assert!(!gone, "it is held");
        assert_eq!(told, ["two", "three", "four"]);
        assert!(there.contains("@three"), "{there}");
    });
}

#[test]
fn a_snapshot_pruned_before_it_is_sent_is_not_told_as_sent() {
    block_on(async {
        let (told, there, gone) = pruned_before("hold").await;
        assert!(gone);
        assert_eq!(told, ["two", "four"], "`send -I` leaves it out and says nothing");
        assert!(!there.contains("@three") && there.contains("@four"), "{there}");
    });
}

#[test]
fn what_comes_to_stand_at_a_target_meanwhile_is_left_alone() {
    block_on(async {
        let chain = Chain::new("256M");
        let target = chain.pool.target("t");
        let (expected, _) = chain.made(&target, 100_000).await;
        chain.lose(&target);
        let (dataset, place) = (target.dataset.to_string(), target.mountpoint.clone());
        let runner = Arc::new(Meddler::before(&["rename"], move || {
            sure(["zfs", "create", &dataset]);
            std::fs::write(place.join("young"), "written by the service").unwrap();
        }));
        let report = chain
            .preseed("race", &chain.service_with(&[&target], runner.clone()))
            .await;
        assert!(runner.has_meddled());
        assert!(!report.outcome.may_start(), "{}", report.summary());
        let found = chain.look(&target).await;
        assert_eq!((found.condition, found.marker), (Condition::Populated, None));
        let young = target.mountpoint.join("young");
        assert_eq!(chain.pool.files.read(&young).unwrap(), b"written by the service");
        // From then on it is data like any other.
        let report = chain.preseed("next", &chain.service(&[&target])).await;
        assert_eq!(report.outcome, Outcome::DataPresent);
        assert_eq!(chain.pool.files.read(&young).unwrap(), b"written by the service");
        // And an operator who wants the other state gets it, with this one beside.
        let report = put_back(&chain, "wanted", &chain.service(&[&target]), ops::At::Newest).await;
        chain.is_back(&target, &expected, &report);
        let aside = report.datasets[0].set_aside.clone().unwrap();
        assert!(chain.pool.read(&aside).keys().any(|path| path.ends_with("young")));
    });
}

#[test]
fn an_encrypted_dataset_without_its_key_waits_for_it() {
    block_on(async {
        let chain = Chain::new("256M");
        let target = chain.pool.target("secret");
        let dataset = target.dataset.as_str();
        let key = chain.pool.encrypted(dataset);
        chain.fill(&target, 100_000);
        snapshot(&chain.pool, &target, "one", 1, true).await;
        chain.replicate(std::slice::from_ref(&target)).await;
        let expected = chain.pool.files.list(&target.mountpoint);
        let service = chain.service(&[&target]);
        // It is there, and locked.
        sure(["zfs", "unmount", dataset]);
        sure(["zfs", "unload-key", dataset]);
        let report = chain.preseed("locked", &service).await;
        assert!(
            matches!(report.outcome, Outcome::Blocked { .. }),
            "{}",
            report.summary()
        );
        // It is lost, and what comes back is locked: nothing is started without data, nothing is thrown away.
        chain.lose(&target);
        std::fs::rename(&key, key.with_extension("away")).unwrap();
        let mut lenient = chain.service(&[&target]);
        lenient.policy.when_exhausted = WhenExhausted::StartEmpty;
        let report = chain.preseed("no-key", &lenient).await;
        let Outcome::Failed { error } = &report.outcome else {
            panic!("{}", report.summary());
        };
        assert!(
            error
                .hint
                .as_ref()
                .is_some_and(|hint| hint.contains("zfs load-key")),
            "{error:?}"
        );
        let found = chain.look(&target).await;
        assert_eq!(found.condition, Condition::Absent);
        // The key is there again.
        std::fs::rename(key.with_extension("away"), &key).unwrap();
        let staged = format!("{}/svc/.reseed-stage:secret", chain.pool.pool);
        assert!(
            run(["zfs", "list", &staged]).exit.success(),
            "what has arrived is kept"
        );
        sure([
            "zfs",
            "load-key",
            "-L",
            &format!("file://{}", key.display()),
            &staged,
        ]);
        let report = chain.preseed("key", &service).await;
        chain.is_back(&target, &expected, &report);
        assert!(is_marked_restored(&chain.look(&target).await));
    });
}

/// A configuration with a dataset inside of another one's directory is refused; these are children that nobody declared, and
/// programs that know no configuration.
#[test]
fn nested_datasets_come_back_from_the_outside_in_and_are_never_taken_along() {
    block_on(async {
        let chain = Chain::new("256M");
        let (outer, inner) = (chain.pool.target("p"), chain.pool.target("p/c"));
        for target in [&outer, &inner] {
            chain.made(target, 50_000).await;
        }
        // As a listing sees it with the child mounted inside.
        let whole = chain.pool.files.list(&outer.mountpoint);
        // A rename would take the child along: refused, and nothing has changed.
        let report = put_back(&chain, "aside", &chain.service(&[&outer]), ops::At::Newest).await;
        assert!(report.summary().contains("p/c below it"), "{}", report.summary());
        assert_same(
            &whole,
            &chain.pool.files.list(&outer.mountpoint),
            "after the refusal",
        );
        let lose = || {
            sure(["zfs", "destroy", "-r", outer.dataset.as_str()]);
            let _ = std::fs::remove_dir(&outer.mountpoint);
        };
        lose();
        for target in [&outer, &inner] {
            let report = chain.preseed("outer-first", &chain.service(&[target])).await;
            assert_eq!(report.outcome, Outcome::Restored, "{}", report.summary());
        }
        assert_same(
            &whole,
            &chain.pool.files.list(&outer.mountpoint),
            "from the outside in",
        );
        // The other way round the outer one's place is taken, by what is back already. Nothing hides it.
        lose();
        let report = chain.preseed("inner", &chain.service(&[&inner])).await;
        assert_eq!(report.outcome, Outcome::Restored, "{}", report.summary());
        let report = chain.preseed("outer", &chain.service(&[&outer])).await;
        assert!(
            matches!(report.outcome, Outcome::Blocked { .. }),
            "{}",
            report.summary()
        );
        assert_eq!(chain.look(&inner).await.condition, Condition::Populated);
    });
}

#[test]
fn somebody_elses_clone_survives_a_restore_from_local_snapshots() {
    block_on(async {
        let chain = Chain::new("256M");
        let target = chain.pool.target("t");
        let (one, _) = chain.made(&target, 100_000).await;
        chain.pool.files.write(&target.mountpoint.join("later"), b"2");
        snapshot(&chain.pool, &target, "two", 2, true).await;
        let clone = format!("{}/mine", chain.pool.pool);
        for (at, name) in [("one", "old"), ("two", "new")] {
            sure([
                "zfs",
                "clone",
                &format!("{}@{at}", target.dataset),
                &format!("{clone}-{name}"),
            ]);
        }
        let service = from_its_own_snapshots(&chain, &target);
        let report = put_back(&chain, "back", &service, ops::At::Point("one".to_owned())).await;
        chain.is_back(&target, &one, &report);
        for name in ["old", "new"] {
            let found = chain
                .pool
                .files
                .list(&chain.pool.root.join(format!("live/mine-{name}")));
            assert_eq!(
                found.keys().any(|path| path.ends_with("later")),
                name == "new",
                "{name}"
            );
        }
    });
}

#[test]
fn what_is_set_on_a_dataset_is_set_on_what_comes_back() {
    const SET: [(&str, &str); 6] = [
        ("recordsize", "16384"),
        ("compression", "lz4"),
        ("acltype", "posix"),
        ("atime", "off"),
        ("quota", "104857600"),
        ("lab:note", "a b\tc"),
    ];
    block_on(async {
        let chain = Chain::new("256M");
        let target = chain.pool.target("t");
        let (one, _) = chain.made(&target, 100_000).await;
        for (name, value) in SET {
            sure(["zfs", "set", &format!("{name}={value}"), target.dataset.as_str()]);
        }
        sure(["zfs", "set", "reservation=1M", target.dataset.as_str()]);
        chain.pool.files.write(&target.mountpoint.join("later"), b"2");
        let service = from_its_own_snapshots(&chain, &target);
        let report = put_back(&chain, "set", &service, ops::At::Point("one".to_owned())).await;
        chain.is_back(&target, &one, &report);
        for (name, value) in SET {
            let found = sure([
                "zfs",
                "get",
                "-Hp",
                "-o",
                "value,source",
                name,
                target.dataset.as_str(),
            ]);
            assert_eq!(found, format!("{value}\tlocal"), "{name}");
        }
    });
}

#[test]
fn names_with_spaces_and_colons_are_names() {
    block_on(async {
        let chain = Chain::new("256M");
        let target = chain.pool.target("a b:c - d");
        sure(["zfs", "create", target.dataset.as_str()]);
        chain.fill(&target, 100_000);
        chain
            .pool
            .files
            .write(&target.mountpoint.join("a file\twith\nall"), b"odd");
        snapshot(&chain.pool, &target, "at 12:30 - daily", 1, true).await;
        chain.replicate(std::slice::from_ref(&target)).await;
        let expected = chain.pool.files.list(&target.mountpoint);
        let at = chain.look(&target).await;
        assert_eq!(at.condition, Condition::Populated);
        chain.lose(&target);
        let service = chain.service(&[&target]);
        let report = chain.preseed("odd", &service).await;
        chain.is_back(&target, &expected, &report);
        // Set aside, and restored again, from its own snapshot this time.
        let local = from_its_own_snapshots(&chain, &target);
        let report = put_back(&chain, "aside", &local, ops::At::Newest).await;
        chain.is_back(&target, &expected, &report);
        let listed = chain.snapshots(&target).await;
        assert_eq!((listed.len(), listed[0].as_str()), (2, "at 12:30 - daily"));
        assert!(listed[1].ends_with("Z_restored"), "{listed:?}");
    });
}

/// By another run, which knew nothing of a lock: the mount follows what is renamed.
#[test]
fn what_was_mounted_as_staging_when_it_was_put_in_place_gets_to_its_place_by_the_next_run() {
    block_on(async {
        let chain = Chain::new("256M");
        let target = chain.pool.target("t");
        let (expected, _) = chain.made(&target, 100_000).await;
        chain.lose(&target);
        let svc = format!("{}/svc", chain.pool.pool);
        let name = target.dataset.as_str().replace('/', "%");
        let place = chain.pool.root.join("places/stage").join(name);
        let runner = Arc::new(Meddler::before(&["rename"], move || {
            let staged = sure(["zfs", "list", "-Hro", "name", &svc]);
            let staged = staged
                .lines()
                .find(|name| name.contains(".reseed-stage:"))
                .unwrap();
            std::fs::create_dir_all(&place).unwrap();
            sure([
                "mount",
                "-t",
                "zfs",
                "-o",
                "zfsutil",
                staged,
                place.to_str().unwrap(),
            ]);
        }));
        let report = chain
            .preseed("race", &chain.service_with(&[&target], runner.clone()))
            .await;
        assert!(runner.has_meddled());
        assert!(!report.outcome.may_start(), "{}", report.summary());
        let report = chain.preseed("next", &chain.service(&[&target])).await;
        assert!(report.outcome.may_start(), "{}", report.summary());
        assert_same(
            &expected,
            &chain.pool.files.list(&target.mountpoint),
            "after both",
        );
        assert!(is_marked_restored(&chain.look(&target).await));
    });
}

#[test]
fn two_runs_at_once_on_one_service_end_as_one() {
    block_on(async {
        let chain = Chain::new("256M");
        let target = chain.pool.target("t");
        let (expected, _) = chain.made(&target, 1_000_000).await;
        chain.lose(&target);
        let service = chain.service(&[&target]);
        let (engine, name) = (&chain.engine, &service.name);
        // As the program does it: one of them gets the lock, the other one is told who has it.
        let locks = Locks::new(chain.pool.root.join("locks"));
        let (first, second) = (context("first"), context("second"));
        let held = locks
            .acquire(engine, &first, name, ("preseed", Claim::Alone), Duration::ZERO)
            .await
            .unwrap();
        let refused = locks
            .acquire(engine, &second, name, ("restore", Claim::Alone), Duration::ZERO)
            .await
            .unwrap_err();
        assert_eq!(refused.kind(), OpKind::Locked);
        assert!(refused.to_string().contains("first"), "{refused}");
        let waits = async {
            let lock = locks
                .acquire(
                    engine,
                    &second,
                    name,
                    ("preseed", Claim::Alone),
                    Duration::from_secs(100),
                )
                .await;
            let _lock = lock.unwrap();
            chain.preseed("second", &service).await
        };
        let goes = async {
            let report = chain.preseed("first", &service).await;
            drop(held);
            report
        };
        let (waited, went) = tokio::join!(waits, goes);
        chain.is_back(&target, &expected, &went);
        assert_eq!(waited.outcome, Outcome::DataPresent);
        // Without a lock (another host's root, a program that knows none): at most one of them puts it in place.
        chain.lose(&target);
        let both = [chain.service(&[&target]), chain.service(&[&target])];
        let (one, other) = tokio::join!(chain.preseed("one", &both[0]), chain.preseed("other", &both[1]));
        println!("{} / {}", one.summary(), other.summary());
        let last = chain.preseed("last", &service).await;
        assert!(last.outcome.may_start(), "{}", last.summary());
        assert_same(
            &expected,
            &chain.pool.files.list(&target.mountpoint),
            "after both",
        );
        let mut listed = chain.snapshots(&target).await;
        // Where what was cut off had to be finished.
        listed.retain(|name| !name.ends_with("Z_restored"));
        assert_eq!(listed, ["one"]);
    });
}
