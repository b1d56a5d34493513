//! Replication to and from another host over ssh, and what can go wrong on the way.

use std::time::Duration;

use reseed_backend_zfs::zfs::{NativeReplicator, ReplicaSource};
use reseed_core::clock::{Clock as _, SystemClock};
use reseed_core::error::{Effect, ReplicateKind};
use reseed_core::source::{RestoreRequest, Scope};
use reseed_core::store::{Delivery, StagePurpose, StageRequest};
use reseed_core::{Replicator as _, RestoreSource as _, SnapshotStore as _};
use reseed_testkit::conformance::{block_on, context};
use reseed_testkit::files::Files as _;

use crate::lab::{name, run, sure};
use crate::source_lab::snapshot;
use crate::ssh_lab::{Pair, processes};

#[test]
fn pushes_and_pulls() {
    block_on(async {
        // Its greeting is on the standard error of all that runs there.
        let (lab, cx) = (Pair::greeted(), context("push"));
        let target = lab.target("with a space", 1).await;
        let (push, targets) = (lab.push(), [target.clone()]);
        let plain = [
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
        ];
        let said = run([
            "ssh",
            "-o",
            plain[0],
            "-o",
            plain[1],
            "-o",
            plain[2],
            "root@10.77.0.2",
            "true",
        ]);
        let said = said.stderr.text().into_owned();
        assert!(said.contains("Authorized use"), "{said}");
        for (minutes, leaf) in [(2, "two"), (3, "three")] {
            let plan = push.plan(&cx, &targets).await.unwrap();
            assert_eq!(push.execute(&cx, &plan).await.unwrap().failed, []);
            assert_eq!(push.plan(&cx, &targets).await.unwrap().steps, []);
            lab.pool.files.write(&target.mountpoint.join(leaf), b"1");
            snapshot(&lab.pool, &target, leaf, minutes, true).await;
        }
        let plan = push.plan(&cx, &targets).await.unwrap();
        push.execute(&cx, &plan).await.unwrap();
        assert_eq!(
            Pair::snapshots(&lab.replica(&target)),
            Pair::snapshots(target.dataset.as_str())
        );
        assert_eq!(push.lineage(&cx, &targets).await.unwrap()[0].snapshots, 3);
        // Back again, as a new machine would: nothing of the dataset is here.
        let before = lab.pool.files.list(&target.mountpoint);
        sure(["zfs", "destroy", "-r", target.dataset.as_str()]);
        let pull = ReplicaSource::new(name("nas"), &lab.pool.store, lab.host.location(), lab.mapping());
        let points = pull.points(&cx, &target).await.unwrap();
        assert_eq!(points.len(), 3);
        let point = points.iter().max_by_key(|point| point.taken_at).unwrap().clone();
        let stage = StageRequest {
            target: target.clone(),
            purpose: StagePurpose::Restore {
                point: point.clone(),
                delivery: Delivery::Native,
            },
        };
        let staging = lab.pool.store.stage(&cx, &stage).await.unwrap();
        let request = RestoreRequest {
            target: target.clone(),
            point,
            scope: Scope::Whole,
        };
        let plan = pull.plan(&cx, &request).await.unwrap();
        pull.execute(&cx, &plan, &staging).await.unwrap();
        let staging = lab.pool.store.stage(&cx, &stage).await.unwrap();
        let after = lab.pool.files.list(&staging.path);
        reseed_testkit::files::assert_same(&before, &after, "what was pulled");
    });
}

#[test]
fn a_host_that_is_not_there_is_unreachable() {
    block_on(async {
        let (lab, cx) = (Pair::new(), context("gone"));
        let target = lab.target("t", 1).await;
        let (push, targets) = (lab.push(), [target.clone()]);
        let plan = push.plan(&cx, &targets).await.unwrap();
        lab.host.cable(false);
        for error in [
            push.plan(&cx, &targets).await.map(drop).unwrap_err(),
            push.lineage(&cx, &targets).await.map(drop).unwrap_err(),
            push.execute(&cx, &plan).await.map(drop).unwrap_err(),
        ] {
            assert_eq!(
                (error.kind(), error.may_have()),
                (ReplicateKind::Unreachable, Effect::None),
                "{error}"
            );
        }
        lab.host.cable(true);
        lab.nothing_was_sent(&target);
        push.execute(&cx, &plan).await.unwrap();
        // Nobody listens.
        lab.host.signal("-KILL");
        let error = push.plan(&cx, &targets).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ReplicateKind::Unreachable, "{error}");
    });
}

#[test]
fn a_host_that_hangs_ends_with_its_patience_or_ours() {
    block_on(async {
        let lab = Pair::new();
        let target = lab.target("t", 1).await;
        let targets = [target.clone()];
        // The kernel still takes the connection, and then nothing comes.
        lab.host.signal("-STOP");
        let error = lab
            .push()
            .plan(&context("hang"), &targets)
            .await
            .map(drop)
            .unwrap_err();
        // ssh's own word: what we end for taking too long is `TimedOut`.
        assert_eq!(error.kind(), ReplicateKind::Unreachable, "{error}");
        let said = error.tool_said().unwrap_or_default();
        assert!(said.contains("timed out"), "{said}");
        // The run's time is over first.
        let patient = lab.host.location_with(Duration::from_secs(600));
        let push = NativeReplicator::new(name("nas"), &lab.pool.store, patient, lab.mapping());
        let cx = context("budget");
        let stop = cx.cancel.clone();
        let (ended, ()) = tokio::join!(push.plan(&cx, &targets), async {
            while processes("root@10.77.0.2") == 0 {
                SystemClock::new().sleep(Duration::from_millis(20)).await;
            }
            stop.cancel();
        });
        let error = ended.map(drop).unwrap_err();
        assert_eq!(
            (error.kind(), error.may_have()),
            (ReplicateKind::Cancelled, Effect::None),
            "{error}"
        );
        assert_eq!(processes("root@10.77.0.2"), 0, "an ssh was left behind");
        lab.host.signal("-CONT");
        lab.nothing_was_sent(&target);
    });
}

#[test]
fn a_changed_host_key_ends_it_before_anything_is_sent() {
    block_on(async {
        let (lab, cx) = (Pair::new(), context("key"));
        let target = lab.target("t", 1).await;
        let (push, targets) = (lab.push(), [target.clone()]);
        let plan = push.plan(&cx, &targets).await.unwrap();
        lab.host.pin("other");
        for error in [
            push.plan(&cx, &targets).await.map(drop).unwrap_err(),
            push.execute(&cx, &plan).await.map(drop).unwrap_err(),
        ] {
            assert_eq!(
                (error.kind(), error.may_have()),
                (ReplicateKind::HostKeyChanged, Effect::None),
                "{error}"
            );
        }
        lab.nothing_was_sent(&target);
        // No key at all isn't "the first time": nothing is learnt by looking.
        std::fs::write(lab.host.dir().join("known hosts"), "").unwrap();
        let error = push.plan(&cx, &targets).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ReplicateKind::HostKeyChanged, "{error}");
        lab.host.pin("host");
        push.execute(&cx, &plan).await.unwrap();
    });
}

#[test]
fn a_cable_that_is_pulled_in_the_middle_is_gone_on_with() {
    block_on(async {
        let (lab, cx) = (Pair::new(), context("cut"));
        let target = lab.target("t", 24).await;
        let (push, targets) = (lab.push(), [target.clone()]);
        let plan = push.plan(&cx, &targets).await.unwrap();
        let token = async || {
            let words = [
                "zfs",
                "get",
                "-H",
                "-o",
                "value",
                "receive_resume_token",
                &lab.replica(&target),
            ];
            run(words).stdout.text().trim().to_owned()
        };
        let (ended, ()) = tokio::join!(push.execute(&cx, &plan), async {
            // Once some of it is on its way, and long before all of it is.
            let before = lab.host.sent();
            while lab.host.sent() < before + (4 << 20) {
                SystemClock::new().sleep(Duration::from_millis(20)).await;
            }
            lab.host.cable(false);
        });
        let error = ended.map(drop).unwrap_err();
        assert_eq!(error.kind(), ReplicateKind::Unreachable, "{error}");
        assert_eq!(
            run([
                "zfs",
                "list",
                "-Hp",
                "-t",
                "snapshot",
                "-o",
                "name",
                &lab.replica(&target)
            ])
            .stdout
            .text(),
            ""
        );
        lab.host.cable(true);
        // The other host notices by itself (ClientAliveInterval) and lets go of the dataset.
        for _ in 0..100 {
            if processes("zfs receive") == 0 {
                break;
            }
            SystemClock::new().sleep(Duration::from_millis(200)).await;
        }
        assert!(
            token().await.len() > 10,
            "there is nothing to go on with: {}",
            token().await
        );
        let plan = push.plan(&cx, &targets).await.unwrap();
        let report = push.execute(&cx, &plan).await.unwrap();
        assert_eq!((report.failed.len(), report.sent.len()), (0, 1));
        assert_eq!(
            Pair::snapshots(&lab.replica(&target)),
            Pair::snapshots(target.dataset.as_str())
        );
        let digest = |of: &str| {
            sure([
                "zfs",
                "get",
                "-H",
                "-o",
                "value",
                "reseed:digest",
                &format!("{of}@one"),
            ])
        };
        assert_eq!(digest(&lab.replica(&target)), digest(target.dataset.as_str()));
    });
}
