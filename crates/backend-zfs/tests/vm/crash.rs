//! A promotion that dies before or after any of its commands, and is run again: the counterpart of S12 for a backend whose
//! steps are processes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use reseed_backend_zfs::datasets::{self, Layout};
use reseed_backend_zfs::zfs::NativeStore;
use reseed_core::SnapshotStore;
use reseed_core::exec::{Command, ExecError, Output, PipeOutput, Runner, Streaming, SystemRunner};
use reseed_core::names::Guid;
use reseed_core::store::{Condition, Delivery, Replace, Settle, StagePurpose, StageRequest};
use reseed_testkit::conformance::{block_on, context, marker, point};
use reseed_testkit::files::{Files as _, assert_same, write_odd_tree};
use tokio_util::sync::CancellationToken;

use crate::lab::{Pool, name, sure};

/// Runs so many commands that change something, and then none at all: the program has died.
#[derive(Debug)]
struct Dying {
    inner: SystemRunner,
    left: AtomicI64,
    /// The last one is still done.
    after: bool,
}

#[async_trait]
impl Runner for Dying {
    async fn run(&self, command: &Command, cancel: &CancellationToken) -> Result<Output, ExecError> {
        let verb = command.arguments()[0].to_string_lossy().into_owned();
        let asks = matches!(verb.as_str(), "get" | "list" | "holds");
        let left = if asks {
            self.left.load(Ordering::SeqCst)
        } else {
            self.left.fetch_sub(1, Ordering::SeqCst)
        };
        let dead = ExecError::Cancelled {
            command: command.to_string(),
            stderr: "died".to_owned(),
        };
        if left == 0 && !asks && self.after {
            self.inner.run(command, cancel).await?;
            return Err(dead);
        }
        if left <= 0 && !(asks && left == 0) {
            return Err(dead);
        }
        self.inner.run(command, cancel).await
    }
    async fn pipe(&self, stages: &[Command], cancel: &CancellationToken) -> Result<PipeOutput, ExecError> {
        self.inner.pipe(stages, cancel).await
    }
    async fn stream(&self, command: &Command, cancel: &CancellationToken) -> Result<Streaming, ExecError> {
        self.inner.stream(command, cancel).await
    }
}

#[test]
fn a_promotion_that_dies_at_any_command_is_finished_by_the_next() {
    block_on(async {
        let pool = Pool::new();
        let cx = context("crash");
        let mut promoted_seen = 0;
        for round in 0..40_i64 {
            let (steps, after) = (round / 2, round % 2 == 1);
            let target = pool.target(&format!("t{round}"));
            // There, empty and mounted: the longest way.
            sure(["zfs", "create", target.dataset.as_str()]);
            let restored = point(&target, "p1");
            let purpose = StagePurpose::Restore {
                point: restored.clone(),
                delivery: Delivery::Files,
            };
            let request = StageRequest {
                target: target.clone(),
                purpose,
            };
            let staging = pool.store.stage(&cx, &request).await.unwrap();
            write_odd_tree(&pool.files, &staging.path);
            let expected = pool.files.list(&staging.path);
            let wanted = marker(&cx, &restored);
            let promote = Settle::Promote {
                staging,
                replace: Replace::OnlyEmpty,
                marker: wanted.clone(),
            };
            let dying = Dying {
                inner: SystemRunner::new(),
                left: AtomicI64::new(steps),
                after,
            };
            let doomed = NativeStore::new(name("local"), Arc::new(dying), pool.store.places());
            let ended = doomed.settle(&cx, &promote).await;

            let found = pool
                .store
                .inspect(&cx, std::slice::from_ref(&target))
                .await
                .unwrap()
                .remove(0);
            let which = format!("after {steps} commands ({after}): {found:?}");
            match &found.condition {
                Condition::Absent | Condition::Empty => assert_eq!(found.marker, None, "{which}"),
                Condition::Unmounted { .. } => {
                    assert!(
                        found.marker.is_none() && found.leftover.as_ref().is_some_and(|l| l.promoted),
                        "{which}"
                    );
                }
                Condition::Populated => {
                    assert_same(&expected, &pool.files.list(&target.mountpoint), &which);
                    assert!(
                        found.marker.is_none() || found.marker.as_ref() == Some(&wanted),
                        "{which}"
                    );
                }
                other => panic!("{other:?}: {which}"),
            }
            let again = match found.leftover.filter(|leftover| leftover.promoted) {
                Some(leftover) => {
                    promoted_seen += 1;
                    Settle::Finish {
                        target: target.clone(),
                        leftover,
                        marker: wanted.clone(),
                    }
                }
                None => promote.clone(),
            };
            for _ in 0..2 {
                pool.store
                    .settle(&context("next"), &again)
                    .await
                    .unwrap_or_else(|error| panic!("{which}: {error}"));
            }
            let found = pool
                .store
                .inspect(&cx, std::slice::from_ref(&target))
                .await
                .unwrap()
                .remove(0);
            assert_eq!(
                (&found.condition, found.marker.as_ref(), &found.leftover),
                (&Condition::Populated, Some(&wanted), &None),
                "{which}"
            );
            assert_same(&expected, &pool.files.list(&target.mountpoint), &which);
            if ended.is_ok() {
                assert!(
                    promoted_seen > 2,
                    "no crash came between the rename and the marker"
                );
                return;
            }
        }
        panic!("a promotion has more commands than expected");
    });
}

/// Every command at which a restore over live data may die: never is that data taken for absent, nor the service started
/// without it, and the same request goes on.
#[test]
fn live_data_that_a_dead_promotion_left_aside_is_not_absent() {
    block_on(async {
        let pool = Pool::new();
        let cx = context("crash");
        let mut aside_seen = 0;
        for round in 0..60_i64 {
            let (steps, after) = (round / 2, round % 2 == 1);
            let target = pool.target(&format!("l{round}"));
            let dataset = target.dataset.as_str();
            sure(["zfs", "create", dataset]);
            pool.files.write(&target.mountpoint.join("live"), b"live");
            let snapshot = format!("{dataset}@held");
            sure(["zfs", "snapshot", &snapshot]);
            for tag in ["reseed-send.second", "reseed-base.second"] {
                sure(["zfs", "hold", tag, &snapshot]);
            }
            let guid = sure(["zfs", "get", "-Hpo", "value", "guid", dataset]);
            let guid: Guid = guid.trim().parse().unwrap();
            let restored = point(&target, "p1");
            let purpose = StagePurpose::Restore {
                point: restored.clone(),
                delivery: Delivery::Files,
            };
            let request = StageRequest {
                target: target.clone(),
                purpose,
            };
            let staging = pool.store.stage(&cx, &request).await.unwrap();
            pool.files.write(&staging.path.join("restored"), b"restored");
            let expected = pool.files.list(&staging.path);
            let wanted = marker(&cx, &restored);
            let promote = Settle::Promote {
                staging,
                replace: Replace::SetAside { guid },
                marker: wanted.clone(),
            };
            let dying = Dying {
                inner: SystemRunner::new(),
                left: AtomicI64::new(steps),
                after,
            };
            let doomed = NativeStore::new(name("local"), Arc::new(dying), pool.store.places());
            let ended = doomed.settle(&cx, &promote).await;

            let look = async || {
                let ask = std::slice::from_ref(&target);
                pool.store.inspect(&cx, ask).await.unwrap().remove(0)
            };
            let found = look().await;
            let which = format!("after {steps} commands ({after}): {found:?}");
            assert!(
                matches!(
                    found.condition,
                    Condition::Populated | Condition::Unmounted { .. }
                ),
                "{which}"
            );
            let cut_off = found.cut_off();
            if cut_off.is_some() {
                aside_seen += 1;
                assert_eq!(found.cut_off(), Some(guid), "{which}");
                let empty = Settle::StartEmpty {
                    target: target.clone(),
                    marker: wanted.clone(),
                };
                let discard = Settle::DiscardLeftover {
                    target: target.clone(),
                    leftover: found.leftover.clone().unwrap(),
                };
                let over_nothing = match promote.clone() {
                    Settle::Promote { staging, marker, .. } => Settle::Promote {
                        staging,
                        replace: Replace::OnlyEmpty,
                        marker,
                    },
                    other => panic!("{other:?}"),
                };
                let refused = || [&empty, &discard, &over_nothing];
                for refused in refused() {
                    assert!(pool.store.settle(&cx, refused).await.is_err(), "{which}");
                }
                assert_eq!(look().await, found, "{which}");
                // What is declared is not made anew either.
                let layout = Layout::new(Arc::new(SystemRunner::new()));
                let wanted = BTreeMap::from([(target.dataset.clone(), BTreeMap::new())]);
                let plan = datasets::plan(&wanted, &layout.read(&cx).await.unwrap());
                assert_eq!(
                    (plan.steps.len(), plan.obstacles.len()),
                    (0, 1),
                    "{which}: {plan}"
                );
                layout.apply(&cx, &plan).await;
                assert_eq!(look().await, found, "{which}");
                // Somebody else does, mounted or not: that changes nothing of it.
                match aside_seen % 3 {
                    0 => {}
                    1 => drop(sure(["zfs", "create", dataset])),
                    _ => drop(sure(["zfs", "create", "-u", dataset])),
                }
                let with_stub = look().await;
                assert_eq!(
                    (&with_stub.condition, with_stub.cut_off()),
                    (&found.condition, Some(guid)),
                    "{which}"
                );
                for refused in refused() {
                    assert!(pool.store.settle(&cx, refused).await.is_err(), "{which}");
                }
                assert_eq!(look().await, with_stub, "{which}");
                if aside_seen % 3 == 2 {
                    // What isn't mounted, and no stub: somebody's data, which has to be looked into to be seen.
                    let at = pool.root.join("filled");
                    std::fs::create_dir_all(&at).unwrap();
                    let at = at.to_str().unwrap();
                    let inside = |command: &str| {
                        sure(["mount", "-t", "zfs", "-o", "zfsutil", dataset, at]);
                        sure(["sh", "-c", &format!("cd {at} && {command}")]);
                        sure(["umount", at]);
                    };
                    inside("echo newer > data");
                    let refused = pool.store.settle(&context("next"), &promote).await.unwrap_err();
                    assert!(refused.to_string().contains("holds data"), "{which}: {refused}");
                    assert_eq!(look().await, with_stub, "{which}");
                    inside("rm data");
                }
            }
            let again = match found.leftover.filter(|leftover| leftover.promoted) {
                Some(leftover) => Settle::Finish {
                    target: target.clone(),
                    leftover,
                    marker: wanted.clone(),
                },
                None => promote.clone(),
            };
            let settled = (pool.store.settle(&context("next"), &again).await)
                .unwrap_or_else(|error| panic!("{which}: {error}"));
            if let Some(cut_off) = cut_off {
                let aside = settled.set_aside.unwrap();
                assert_eq!(
                    sure(["zfs", "get", "-Hpo", "value", "guid", &aside]),
                    cut_off.to_string(),
                    "{which}"
                );
                let kept = pool.read(&aside);
                assert!(
                    kept.keys().any(|path| path.ends_with("live")),
                    "{which}: {kept:?}"
                );
            }
            let found = look().await;
            assert_eq!(
                (&found.condition, found.marker.as_ref(), &found.leftover),
                (&Condition::Populated, Some(&wanted), &None),
                "{which}"
            );
            assert_same(&expected, &pool.files.list(&target.mountpoint), &which);
            // Nothing is sent of it any more.
            let held = sure([
                "zfs",
                "list",
                "-Hrt",
                "snapshot",
                "-o",
                "name,userrefs",
                &pool.pool,
            ]);
            let mut held = held.lines().filter(|line| line.contains(&format!(":l{round}:")));
            let line = held.next().unwrap();
            assert!(
                line.ends_with("@held\t0") && held.next().is_none(),
                "{which}: {line}"
            );
            if ended.is_ok() {
                assert!(aside_seen > 4, "no crash came between the renames");
                return;
            }
        }
        panic!("a promotion has more commands than expected");
    });
}
