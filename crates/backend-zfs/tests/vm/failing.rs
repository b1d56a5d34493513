//! A promotion of which one command fails, or everything from one command on: what was live is still live, or the error says where
//! it is; and the same request again ends well. The counterpart of `crash.rs`, in which the program itself dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use reseed_backend_zfs::zfs::NativeStore;
use reseed_core::SnapshotStore;
use reseed_core::error::{Effect, StoreError};
use reseed_core::exec::{Command, ExecError, Output, PipeOutput, Runner, Streaming, SystemRunner};
use reseed_core::point::{Marker, Target};
use reseed_core::store::{Condition, Delivery, Inspection, Replace, Settle, StagePurpose, StageRequest};
use reseed_testkit::conformance::{block_on, context, marker, point};
use reseed_testkit::files::{Files as _, Listing, assert_same};
use tokio_util::sync::CancellationToken;

use crate::lab::{Pool, name, sure};

/// How commands fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// One, without having done anything.
    One,
    /// One that changes something, after it has done it.
    OneThatWorked,
    /// One, and every later one that changes something.
    FromThenOn,
}

#[derive(Debug)]
struct Failing {
    inner: SystemRunner,
    mode: Mode,
    left: AtomicI64,
}

#[async_trait]
impl Runner for Failing {
    async fn run(&self, command: &Command, cancel: &CancellationToken) -> Result<Output, ExecError> {
        let verb = command.arguments()[0].to_string_lossy().into_owned();
        let asks = matches!(verb.as_str(), "get" | "list" | "holds");
        let left = match self.mode {
            Mode::OneThatWorked if asks => -1,
            _ => self.left.fetch_sub(1, Ordering::SeqCst),
        };
        // What `zfs` says and exits with when it refuses.
        let refuses = Command::new("sh").args(["-c", "echo 'cannot do it: out of luck' >&2; exit 1"]);
        match (self.mode, left) {
            (Mode::OneThatWorked, 0) => {
                self.inner.run(command, cancel).await?;
                self.inner.run(&refuses, cancel).await
            }
            (Mode::One | Mode::FromThenOn, 0) => self.inner.run(&refuses, cancel).await,
            (Mode::FromThenOn, ..0) if !asks => self.inner.run(&refuses, cancel).await,
            _ => self.inner.run(command, cancel).await,
        }
    }
    async fn pipe(&self, stages: &[Command], cancel: &CancellationToken) -> Result<PipeOutput, ExecError> {
        self.inner.pipe(stages, cancel).await
    }
    async fn stream(&self, command: &Command, cancel: &CancellationToken) -> Result<Streaming, ExecError> {
        self.inner.stream(command, cancel).await
    }
}

/// What stood at a target before.
struct Before {
    guid: String,
    tree: Listing,
}

async fn inspected(pool: &Pool, target: &Target) -> Inspection {
    let mut all = pool
        .store
        .inspect(&context("look"), std::slice::from_ref(target))
        .await
        .unwrap();
    all.remove(0)
}

fn guid(dataset: &str) -> Option<String> {
    let found = crate::lab::run(["zfs", "get", "-Hpo", "value", "guid", dataset]);
    found
        .exit
        .success()
        .then(|| found.stdout.text().trim().to_owned())
}

/// What is in a dataset that may still be mounted where it was.
fn read(pool: &Pool, dataset: &str) -> Listing {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mounted = table
        .lines()
        .map(|line| line.split(' '))
        .find_map(|mut words| (words.next() == Some(dataset)).then(|| words.next().unwrap().to_owned()));
    match mounted {
        Some(place) => pool.files.list(std::path::Path::new(&place)),
        None => pool.read(dataset),
    }
}

/// What was live is live, or the error names what it is called now, and says that something was done.
fn judge(pool: &Pool, target: &Target, before: &Before, error: &StoreError, which: &str) {
    let told = format!("{error} / {}", error.what_to_do().unwrap_or_default());
    let which = format!("{which}: {told} ({:?})", error.may_have());
    let dataset = target.dataset.as_str();
    let done = matches!(error.may_have(), Effect::Partial | Effect::Unknown);
    if guid(dataset).as_deref() == Some(before.guid.as_str()) {
        let mounted = sure(["zfs", "get", "-Hpo", "value", "mounted", dataset]);
        if mounted == "yes" {
            assert_same(&before.tree, &pool.files.list(&target.mountpoint), &which);
        } else {
            assert!(
                done && told.contains(&format!("zfs mount '{dataset}'")),
                "{which}"
            );
        }
        return;
    }
    let listed = sure([
        "zfs",
        "list",
        "-Hpo",
        "guid,name",
        "-r",
        &format!("{}/svc", pool.pool),
    ]);
    let aside = listed.lines().find_map(|line| line.strip_prefix(&before.guid));
    let aside = aside
        .unwrap_or_else(|| panic!("{which}: it is gone: {listed}"))
        .trim();
    assert!(aside.contains("/.reseed-aside:"), "{which}");
    assert!(done && told.contains(aside), "{aside}: {which}");
    // It was told not to mount by itself.
    let by_hand = told.contains("bring it back");
    assert!(!by_hand || told.contains("zfs set canmount=on"), "{which}");
    assert_same(&before.tree, &read(pool, aside), &which);
}

/// Promotes with ever later failures, until none comes any more.
fn each_failure(mode: Mode, populated: bool) {
    block_on(async {
        let pool = Pool::new();
        let cx = context("fail");
        for round in 0..60_i64 {
            let target = pool.target(&format!("t{round}"));
            sure(["zfs", "create", target.dataset.as_str()]);
            if populated {
                pool.files.write(&target.mountpoint.join("live"), b"live");
            }
            let before = Before {
                guid: guid(target.dataset.as_str()).unwrap(),
                tree: pool.files.list(&target.mountpoint),
            };
            let restored = point(&target, "p1");
            let request = StageRequest {
                target: target.clone(),
                purpose: StagePurpose::Restore {
                    point: restored.clone(),
                    delivery: Delivery::Files,
                },
            };
            let staging = pool.store.stage(&cx, &request).await.unwrap();
            pool.files.write(&staging.path.join("restored"), b"restored");
            let expected = pool.files.list(&staging.path);
            let wanted: Marker = marker(&cx, &restored);
            let replace = match populated {
                true => Replace::SetAside {
                    guid: before.guid.parse().unwrap(),
                },
                false => Replace::OnlyEmpty,
            };
            let promote = Settle::Promote {
                staging,
                replace,
                marker: wanted.clone(),
            };
            let failing = Failing {
                inner: SystemRunner::new(),
                mode,
                left: AtomicI64::new(round),
            };
            let failing = Arc::new(failing);
            let store = NativeStore::new(name("local"), failing.clone(), pool.store.places());
            let ended = store.settle(&cx, &promote).await;
            let came = failing.left.load(Ordering::SeqCst) < 0;
            let which = format!("{mode:?}, after {round} commands");
            match &ended {
                Err(error) => judge(&pool, &target, &before, error, &which),
                // What fails may be of no matter: what it was to do is done.
                Ok(_) => assert_ne!(
                    guid(target.dataset.as_str()),
                    Some(before.guid.clone()),
                    "{which}"
                ),
            }
            let found = inspected(&pool, &target).await;
            let again = match found.leftover.filter(|leftover| leftover.promoted) {
                Some(leftover) => Settle::Finish {
                    target: target.clone(),
                    leftover,
                    marker: wanted.clone(),
                },
                None => promote.clone(),
            };
            pool.store
                .settle(&context("next"), &again)
                .await
                .unwrap_or_else(|error| panic!("{which}: {error}, after {ended:?}"));
            let found = inspected(&pool, &target).await;
            assert_eq!(
                (&found.condition, found.marker.as_ref(), &found.leftover),
                (&Condition::Populated, Some(&wanted), &None),
                "{which}"
            );
            assert_same(&expected, &pool.files.list(&target.mountpoint), &which);
            sure(["zfs", "unmount", target.dataset.as_str()]);
            if !came {
                assert!(ended.is_ok(), "{which}: {ended:?}");
                assert!(round > 4, "{which}: no failure came");
                return;
            }
        }
        panic!("a promotion has more commands than expected");
    });
}

#[test]
fn a_command_that_fails_leaves_an_empty_target_or_a_restored_one() {
    each_failure(Mode::One, false);
}

#[test]
fn a_command_that_fails_while_live_data_is_replaced_loses_nothing() {
    each_failure(Mode::One, true);
}

#[test]
fn a_command_that_worked_and_says_that_it_failed_loses_nothing() {
    each_failure(Mode::OneThatWorked, true);
}

#[test]
fn when_nothing_can_be_changed_any_more_the_error_says_where_the_live_data_is() {
    each_failure(Mode::FromThenOn, true);
}
