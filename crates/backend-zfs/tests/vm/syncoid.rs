//! The real syncoid as the one who sends.

use reseed_backend_zfs::syncoid::Syncoid;
use reseed_backend_zfs::zfs::{Mapping, NativeReplicator};
use reseed_core::Replicator as _;
use reseed_core::error::{Effect, ReplicateKind};
use reseed_core::names::DatasetName;
use reseed_testkit::conformance::replicate::ReplicaLab as _;
use reseed_testkit::conformance::{block_on, context};
use reseed_testkit::files::Files as _;

use crate::lab::{Pool, name, run, sure};
use crate::replica_lab::Replica;
use crate::source_lab::snapshot;
use crate::ssh_lab::Host;

fn snapshots(dataset: &str) -> String {
    sure([
        "zfs",
        "list",
        "-Hp",
        "-d",
        "1",
        "-t",
        "snapshot",
        "-o",
        "guid,reseed:digest",
        dataset,
    ])
}

#[test]
fn it_sends_in_full_and_increments_and_neither_forces_nor_leaves_anything() {
    block_on(async {
        let (lab, cx) = (Replica::new(), context("syncoid"));
        let replicator = lab
            .replicator
            .clone()
            .of_host("nas")
            .through_syncoid(Syncoid::default());
        let target = lab.target("a t");
        let (targets, replica) = ([target.clone()], lab.replica_of(&target));
        for (minutes, name) in (1_i64..).zip(["one", "two", "three"]) {
            lab.pool.files.write(&target.mountpoint.join(name), b"1");
            snapshot(&lab.pool, &target, name, minutes, true).await;
            let plan = replicator.plan(&cx, &targets).await.unwrap();
            let report = replicator.execute(&cx, &plan).await.unwrap();
            assert_eq!((report.failed, report.sent.len()), (vec![], 1), "{name}");
            assert_eq!(replicator.plan(&cx, &targets).await.unwrap().steps, []);
        }
        assert_eq!(snapshots(replica.as_str()), snapshots(target.dataset.as_str()));
        assert!(!snapshots(target.dataset.as_str()).contains("syncoid"));
        let set = |name: &str| sure(["zfs", "get", "-Hp", "-o", "value", name, replica.as_str()]);
        assert_eq!(
            (set("readonly"), set("canmount"), set("mounted")),
            ("on".to_owned(), "noauto".to_owned(), "no".to_owned())
        );

        let origin = sure([
            "zfs",
            "get",
            "-Hp",
            "-o",
            "value,source",
            "reseed:origin",
            replica.as_str(),
        ]);
        let expected = format!("nas:{}\tlocal", target.dataset.as_str().replace(' ', "%20"));
        assert_eq!(origin, expected);

        // One who is told to skip it ends well, and has sent nothing: that is a failure here.
        sure(["zfs", "set", "syncoid:sync=false", target.dataset.as_str()]);
        snapshot(&lab.pool, &target, "four", 4, true).await;
        let plan = replicator.plan(&cx, &targets).await.unwrap();
        let error = replicator.execute(&cx, &plan).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ReplicateKind::Io, "{error}");
        sure(["zfs", "inherit", "syncoid:sync", target.dataset.as_str()]);

        // Somebody wrote to the replica after it was planned: nothing of that is rolled back.
        sure(["zfs", "set", "readonly=off", replica.as_str()]);
        sure(["zfs", "snapshot", &format!("{replica}@theirs")]);
        let before = snapshots(replica.as_str());
        let _ = replicator.execute(&cx, &plan).await;
        let all = sure([
            "zfs",
            "list",
            "-Hr",
            "-t",
            "snapshot",
            "-o",
            "guid,reseed:digest",
            &format!("{}/svc", lab.back.pool),
        ]);
        for line in before.lines() {
            assert!(all.contains(line), "{line} is gone:\n{all}");
        }
        assert!(run(["zfs", "list", &format!("{replica}@theirs")]).exit.success());
    });
}

/// To another host, over ssh, names with spaces included; and what its shells would take apart never reaches them.
#[test]
fn it_sends_to_another_host_and_gets_nothing_that_a_shell_takes_apart() {
    block_on(async {
        let host = Host::new();
        let (pool, back, cx) = (Pool::new(), Pool::new(), context("far"));
        let mapping = || Mapping::below(DatasetName::new(format!("{}/svc", back.pool)).unwrap());
        let replicator = |there| {
            NativeReplicator::new(name("nas"), &pool.store, there, mapping())
                .of_host("lab")
                .through_syncoid(Syncoid::default())
        };
        let target = pool.target("a t");
        sure(["zfs", "create", target.dataset.as_str()]);
        let targets = [target.clone()];
        let replica = format!("{}/svc/{}", back.pool, target.dataset);
        // Each connection takes seconds in an emulated machine: what is above the replica is there already.
        let above = replica.rsplit_once('/').unwrap().0;
        sure(["zfs", "create", "-p", "-o", "canmount=off", above]);
        pool.files.write(&target.mountpoint.join("f"), b"1");
        snapshot(&pool, &target, "one", 1, true).await;

        // The file of pinned keys has a space in its name here: refused before anything is begun.
        let error = replicator(host.location())
            .plan(&cx, &targets)
            .await
            .map(drop)
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.may_have()),
            (ReplicateKind::InvalidInput, Effect::None),
            "{error}"
        );
        assert!(error.to_string().contains("syncoid"), "{error}");

        let syncoid = replicator(host.plain_location());
        let plan = syncoid.plan(&cx, &targets).await.unwrap();
        let report = syncoid.execute(&cx, &plan).await.unwrap();
        assert_eq!((report.failed, report.sent.len()), (vec![], 1));
        assert_eq!(snapshots(&replica), snapshots(target.dataset.as_str()));
    });
}
