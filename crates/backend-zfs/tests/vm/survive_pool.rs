//! What a preseed makes of pools that are away, hang or are full, and of places that are taken.

use std::sync::Arc;
use std::time::Duration;

use reseed_core::error::ReplicateKind;
use reseed_core::ops::{self, OpOutcome};
use reseed_core::preseed::{Outcome, Stage};
use reseed_core::store::Condition;
use reseed_testkit::conformance::{block_on, context};
use reseed_testkit::files::Files as _;

use crate::chain::{Chain, dir_of, wait_until};
use crate::lab::{Pool, is_suspended, run, sure};
use crate::source_lab::{attach, rot, snapshot};
use crate::ssh_lab::processes;

#[test]
fn a_pool_that_is_not_imported_is_not_empty() {
    block_on(async {
        let chain = Chain::new("256M");
        let target = chain.pool.target("t");
        let (expected, _) = chain.made(&target, 100_000).await;
        attach(&chain.pool, false);
        let service = chain.service(&[&target]);
        let report = chain.preseed("away", &service).await;
        let Outcome::Blocked { why, .. } = &report.outcome else {
            panic!("{}", report.summary());
        };
        assert!(why.contains("not imported"), "{why}");
        assert_eq!(
            report.attempts,
            [],
            "a pool that is away is no reason to ask anybody"
        );
        attach(&chain.pool, true);
        let report = chain.preseed("back", &service).await;
        assert_eq!(report.outcome, Outcome::DataPresent);
        assert_eq!(chain.pool.files.list(&target.mountpoint), expected);
    });
}

#[test]
fn a_replica_whose_pool_is_away_is_passed_over_and_named() {
    block_on(async {
        let chain = Chain::of_three("256M");
        let target = chain.pool.target("t");
        let (expected, _) = chain.made(&target, 100_000).await;
        chain.lose(&target);
        let service = chain.service(&[&target]);
        for back in &chain.backs {
            attach(back, false);
        }
        let report = chain.preseed("both", &service).await;
        let Outcome::Held { why } = &report.outcome else {
            panic!("`could not ask` is not `nothing exists`: {}", report.summary());
        };
        assert!(why.contains("second") && why.contains("third"), "{why}");
        assert_eq!(chain.look(&target).await.condition, Condition::Absent);
        attach(&chain.backs[1], true);
        let report = chain.preseed("one", &service).await;
        chain.is_back(&target, &expected, &report);
        assert_eq!(
            report.source.as_ref().map(ToString::to_string).as_deref(),
            Some("third")
        );
        assert_eq!(report.attempts[0].stage, Stage::Probe);
        attach(&chain.backs[0], true);
    });
}

/// A pool on a file in a filesystem of its own, which is smaller than the pool believes: it is suspended when that is full.
pub(crate) fn thin() -> Pool {
    let pool = Pool::new();
    let under = dir_of(&pool, "under");
    let under = under.to_str().unwrap();
    sure(["mount", "-t", "tmpfs", "-o", "size=24M", "thin", under]);
    sure(["zpool", "destroy", &pool.pool]);
    let disk = format!("{under}/disk");
    sure(["truncate", "-s", "1G", &disk]);
    let mountpoint = format!("mountpoint={}", pool.root.join("live").display());
    let (wait, plain) = ("failmode=wait", "compression=off");
    sure([
        "zpool",
        "create",
        "-o",
        wait,
        "-O",
        plain,
        "-O",
        &mountpoint,
        &pool.pool,
        &disk,
    ]);
    sure([
        "zfs",
        "create",
        "-o",
        "canmount=off",
        &format!("{}/svc", pool.pool),
    ]);
    pool
}

/// Writes more than there is room for, and waits until the kernel has suspended the pool. What writes goes on when the pool
/// does.
pub(crate) async fn suspend(pool: &Pool) -> std::thread::JoinHandle<()> {
    let scratch = format!("{}/scratch", pool.pool);
    sure(["zfs", "create", &scratch]);
    let into = format!("of={}", pool.root.join("live/scratch/more").display());
    let writes = std::thread::spawn(move || {
        sure(["dd", "if=/dev/zero", &into, "bs=1M", "count=64", "conv=fsync"]);
    });
    wait_until(200, "suspended pool", || is_suspended(&pool.pool)).await;
    writes
}

pub(crate) fn resume(pool: &Pool, writes: std::thread::JoinHandle<()>) {
    let under = pool.root.join("under");
    sure(["mount", "-o", "remount,size=400M", under.to_str().unwrap()]);
    sure(["zpool", "clear", &pool.pool]);
    writes.join().unwrap();
}

#[test]
fn a_suspended_pool_blocks_its_services_and_nobody_hangs() {
    block_on(async {
        let chain = Chain::new("256M");
        let other = chain.pool.target("other");
        let (_, _) = chain.made(&other, 10_000).await;
        let thin = thin();
        let (stuck, gone) = (thin.target("stuck"), thin.target("gone"));
        sure(["zfs", "create", stuck.dataset.as_str()]);
        chain.pool.files.write(&stuck.mountpoint.join("data"), b"1");
        sure(["zpool", "sync", &thin.pool]);
        let writes = suspend(&thin).await;

        let services = [
            chain.service(&[&stuck]),
            chain.service(&[&gone]),
            chain.service(&[&other]),
        ];
        let mut reports = Vec::new();
        for service in &services {
            reports.push(chain.preseed("stuck", service).await);
        }
        for report in &reports[..2] {
            let Outcome::Blocked { why, .. } = &report.outcome else {
                panic!("{}", report.summary());
            };
            assert!(why.contains("SUSPENDED"), "{why}");
        }
        assert_eq!(reports[2].outcome, Outcome::DataPresent);

        resume(&thin, writes);
        let report = chain.preseed("resumed", &services[0]).await;
        assert_eq!(report.outcome, Outcome::DataPresent, "{}", report.summary());
    });
}

#[test]
fn a_replica_in_a_suspended_pool_costs_its_budget_at_most() {
    block_on(async {
        let chain = Chain::over(Pool::sized("256M"), vec![thin(), Pool::new()]);
        let target = chain.pool.target("t");
        let (expected, _) = chain.made(&target, 100_000).await;
        chain.lose(&target);
        let writes = suspend(&chain.backs[0]).await;
        let mut service = chain.service(&[&target]);
        service.policy.source_budget = Duration::from_secs(15);
        service.policy.probe_budget = Duration::from_secs(10);
        let report = chain.preseed("slow", &service).await;
        chain.is_back(&target, &expected, &report);
        assert_eq!(
            report.source.as_ref().map(ToString::to_string).as_deref(),
            Some("third")
        );
        resume(&chain.backs[0], writes);
    });
}

#[test]
fn a_mountpoint_that_is_taken_stays_as_it_is() {
    block_on(async {
        let chain = Chain::new("256M");
        let target = chain.pool.target("t");
        let (expected, _) = chain.made(&target, 100_000).await;
        chain.lose(&target);
        let precious = target.mountpoint.join("precious");
        chain.pool.files.write(&precious, b"a plain directory");
        let service = chain.service(&[&target]);
        let report = chain.preseed("taken", &service).await;
        assert!(
            matches!(report.outcome, Outcome::Blocked { .. }),
            "{}",
            report.summary()
        );
        assert_eq!(chain.pool.files.read(&precious).unwrap(), b"a plain directory");
        assert!(!run(["zfs", "list", target.dataset.as_str()]).exit.success());
        // Another dataset has its place.
        std::fs::remove_dir_all(&target.mountpoint).unwrap();
        let squatter = format!("{}/squatter", chain.pool.pool);
        let at = format!("mountpoint={}", target.mountpoint.display());
        sure(["zfs", "create", "-o", &at, &squatter]);
        let report = chain.preseed("squatted", &service).await;
        let Outcome::Blocked { why, .. } = &report.outcome else {
            panic!("{}", report.summary());
        };
        assert!(why.contains(&squatter), "{why}");
        sure(["zfs", "unmount", &squatter]);
        sure(["zfs", "set", "mountpoint=none", &squatter]);
        let report = chain.preseed("free", &service).await;
        chain.is_back(&target, &expected, &report);
    });
}

#[test]
fn a_full_target_is_left_alone_and_filled_when_there_is_room() {
    block_on(async {
        let chain = Chain::new("128M");
        let target = chain.pool.target("t");
        let (expected, _) = chain.made(&target, 10_000_000).await;
        chain.lose(&target);
        let filler = chain.pool.target("filler");
        sure(["zfs", "create", filler.dataset.as_str()]);
        let line = format!(
            "dd if=/dev/zero of={}/big bs=1M 2>/dev/null; sync",
            filler.mountpoint.display()
        );
        let _ = run(["sh", "-c", &line]);
        sure(["zpool", "sync", &chain.pool.pool]);
        let service = chain.service(&[&target]);
        for full in ["full", "still"] {
            let report = chain.preseed(full, &service).await;
            let Outcome::Failed { error } = &report.outcome else {
                panic!("{}", report.summary());
            };
            assert_eq!(error.kind, "no-space", "{error}");
            let found = chain.look(&target).await;
            assert_eq!((found.condition, found.marker), (Condition::Absent, None));
        }
        sure(["zfs", "destroy", filler.dataset.as_str()]);
        sure(["zpool", "sync", &chain.pool.pool]);
        let report = chain.preseed("room", &service).await;
        chain.is_back(&target, &expected, &report);
    });
}

#[test]
fn a_quota_is_kept_and_told() {
    block_on(async {
        let chain = Chain::new("512M");
        let target = chain.pool.target("t");
        let (expected, _) = chain.made(&target, 20_000_000).await;
        chain.lose(&target);
        let above = format!("{}/svc", chain.pool.pool);
        sure(["zfs", "set", "quota=12M", &above]);
        let service = chain.service(&[&target]);
        let report = chain.preseed("quota", &service).await;
        let Outcome::Failed { error } = &report.outcome else {
            panic!("{}", report.summary());
        };
        assert_eq!(error.kind, "no-space", "{error}");
        assert!(
            error.hint.as_ref().is_some_and(|hint| hint.contains("quota")),
            "{error:?}"
        );
        assert_eq!(chain.look(&target).await.condition, Condition::Absent);
        sure(["zfs", "set", "quota=none", &above]);
        let report = chain.preseed("raised", &service).await;
        chain.is_back(&target, &expected, &report);
    });
}

#[test]
fn a_replica_that_rots_is_found_out_and_the_next_one_used() {
    block_on(async {
        let chain = Chain::of_three("256M");
        let target = chain.pool.target("t");
        sure(["zfs", "create", target.dataset.as_str()]);
        chain.fill(&target, 100_000);
        chain
            .pool
            .files
            .write(&target.mountpoint.join("sevens"), &vec![7; 2_000_000]);
        snapshot(&chain.pool, &target, "one", 1, true).await;
        chain.replicate(std::slice::from_ref(&target)).await;
        let expected = chain.pool.files.list(&target.mountpoint);
        chain.lose(&target);
        assert!(rot(&chain.backs[0], 7) > 100, "nothing was damaged");
        let report = chain.preseed("rot", &chain.service(&[&target])).await;
        chain.is_back(&target, &expected, &report);
        assert_eq!(
            report.source.as_ref().map(ToString::to_string).as_deref(),
            Some("third")
        );
        let first = &report.attempts[0];
        assert_eq!(first.source.as_str(), "second");
        assert!(first.error.is_some() && first.stage != Stage::Done, "{first:?}");
        // The pool itself knows of it too.
        let errors = sure(["zpool", "status", "-v", &chain.backs[0].pool]);
        assert!(
            errors.contains("one:/sevens") || errors.contains("sevens"),
            "{errors}"
        );
    });
}

/// Neither end of the pipe says a word then, and no connection breaks.
#[test]
fn a_stream_into_a_pool_that_stops_is_given_up_and_gone_on_with() {
    block_on(async {
        let chain = Chain::over(Pool::sized("512M"), vec![thin(), Pool::new()]);
        let target = chain.pool.target("t");
        sure(["zfs", "create", target.dataset.as_str()]);
        // More than there is room for, in the pool and on the way to it.
        chain.fill(&target, 120_000_000);
        let on_the_way = ["zfs_recv_queue_length", "zfs_dirty_data_max"].map(|name| {
            let name = format!("/sys/module/zfs/parameters/{name}");
            let before = std::fs::read_to_string(&name).unwrap();
            std::fs::write(&name, "2097152").unwrap();
            (name, before)
        });
        let taken = snapshot(&chain.pool, &target, "one", 1, false).await;
        let (stuck, fine) = (
            chain.replicator(0, &chain.pool.store),
            chain.replicator(1, &chain.pool.store),
        );
        let mut service = chain.service(&[&target]);
        service.replicators = vec![Arc::new(stuck.patient(Duration::from_secs(30))), Arc::new(fine)];
        let reports = ops::replicate(&chain.engine, &context("stuck"), &service).await;
        assert!(is_suspended(&chain.backs[0].pool));
        let error = reports[0].error.clone().unwrap();
        assert_eq!(error.kind, ReplicateKind::Unreachable.to_string(), "{error:?}");
        let told = format!("{error:?}");
        assert!(
            told.contains("nothing of it has moved") && told.contains("SUSPENDED"),
            "{told}"
        );
        assert_eq!(reports[1].outcome, OpOutcome::Ok, "{:?}", reports[1]);

        let under = chain.backs[0].root.join("under");
        sure(["mount", "-o", "remount,size=400M", under.to_str().unwrap()]);
        sure(["zpool", "clear", &chain.backs[0].pool]);
        wait_until(200, "end of what was stuck", || processes("zfs receive") == 0).await;
        let replica = chain.replica(0, &target);
        let token = sure(["zfs", "get", "-Hpo", "value", "receive_resume_token", &replica]);
        assert!(token.len() > 10, "{token}");
        let reports = ops::replicate(&chain.engine, &context("resumed"), &service).await;
        assert_eq!(reports[0].outcome, OpOutcome::Ok, "{:?}", reports[0]);
        let guid = sure(["zfs", "get", "-Hpo", "value", "guid", &format!("{replica}@one")]);
        assert_eq!(guid, taken.guid.to_string());
        for (name, before) in on_the_way {
            std::fs::write(name, before.trim()).unwrap();
        }
    });
}
