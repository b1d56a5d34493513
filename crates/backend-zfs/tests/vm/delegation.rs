//! What an unprivileged user may do with exactly the grants that the audit asks for.

use std::sync::Arc;

use reseed_backend_zfs::zfs::delegation::{Role, Trial};
use reseed_core::error::ReplicateKind;
use reseed_core::exec::{Command, Runner as _, SystemRunner};
use reseed_core::names::DatasetName;
use reseed_core::{Replicator as _, SnapshotStore as _};
use reseed_testkit::conformance::replicate::ReplicaLab as _;
use reseed_testkit::conformance::{block_on, context};
use reseed_testkit::files::Files as _;

use crate::delegated_lab::{AsUser, Delegated, USER, heal, user};
use crate::lab::{Pool, bookmarks, run, sure};
use crate::source_lab::snapshot;

fn name(pool: &Pool, below: &str) -> DatasetName {
    DatasetName::new(format!("{}/{below}", pool.pool)).unwrap()
}

/// A pipe as the user at both of its ends.
fn piped(send: &str, receive: &str) -> Result<(), String> {
    let line = format!("runuser -u {USER} -- zfs {send} | runuser -u {USER} -- zfs {receive}");
    let output = run(["bash", "-o", "pipefail", "-c", &line]);
    let said = output.stderr.text().trim().to_owned();
    if output.exit.success() && !said.contains("cannot") {
        Ok(())
    } else {
        Err(said)
    }
}

/// What [`NativeReplicator`](reseed_backend_zfs::zfs::NativeReplicator) passes to receive.
const RECEIVE: &str = "receive -s -u -x mountpoint -x sharenfs -x sharesmb -x quota -x refquota -x reservation \
                       -x refreservation -x org.openzfs.systemd:ignore -x reseed:marker -x reseed:stage -o canmount=noauto \
                       -o readonly=on -o reseed:origin=lab:tank/t";

#[test]
fn the_audits_grants_are_enough_and_no_force_is_among_them() {
    block_on(async {
        let (pool, back) = (Pool::new(), Pool::new());
        user();
        let trial = Trial::new(Arc::new(SystemRunner::new()));
        let (svc, root) = (name(&pool, "svc"), name(&back, "svc"));
        let from = format!("{svc}/t");
        sure(["zfs", "create", &from]);
        sure([
            "zfs",
            "snapshot",
            "-o",
            "reseed:taken=2026-11-22T00:01:00Z",
            &format!("{from}@one"),
        ]);
        sure(["zfs", "snapshot", &format!("{from}@two")]);
        let full = format!("send -P -v -p -L -c {from}@one");
        let into = format!("{root}/t");
        assert!(
            piped(&full, &format!("{RECEIVE} {into}")).is_err(),
            "nothing is granted"
        );
        heal(&trial, Role::Send, &svc).await;
        heal(&trial, Role::Receive, &root).await;
        if let Err(said) = piped(&full, &format!("{RECEIVE} {into}")) {
            panic!("full: {said}");
        }
        if let Err(said) = piped(
            &format!("send -P -v -p -L -c -I @one {from}@two"),
            &format!("{RECEIVE} {into}"),
        ) {
            panic!("increment: {said}");
        }
        let got = sure([
            "zfs",
            "get",
            "-H",
            "-o",
            "value",
            "reseed:taken",
            &format!("{into}@one"),
        ]);
        assert_eq!(got, "2026-11-22T00:01:00Z");
        let as_user = |words: &str| run(["runuser", "-u", USER, "--", "sh", "-c", words]);
        for (words, allowed) in [
            (format!("zfs bookmark {from}@two {from}#kept"), true),
            (format!("zfs hold reseed-send.nas {from}@one {from}@two"), true),
            (format!("zfs release reseed-send.nas {from}@one {from}@two"), true),
            (format!("zfs rename -u {into} {root}/.reseed-aside:t:1"), true),
            (format!("zfs create -o canmount=off {root}/parent"), true),
            (format!("zfs destroy {root}/.reseed-aside:t:1@one"), false),
            (format!("zfs destroy {from}@one"), false),
            (format!("zfs rollback -r {root}/.reseed-aside:t:1@one"), false),
        ] {
            let output = as_user(&words);
            assert_eq!(
                output.exit.success(),
                allowed,
                "{words}: {}",
                output.stderr.text()
            );
        }
    });
}

#[test]
fn the_trial_tells_append_from_force() {
    block_on(async {
        let (back, cx) = (Pool::new(), context("trial"));
        user();
        let trial = Trial::new(Arc::new(SystemRunner::new()));
        let root = name(&back, "svc");
        let before = sure(["zfs", "list", "-H", "-t", "all", "-o", "name"]);
        let nothing = trial.force(&cx, &root, USER).await.unwrap();
        assert!(!nothing.receives, "{nothing:?}");
        sure(["zfs", "allow", "-u", USER, "receive,create,mount", root.as_str()]);
        let plain = trial.force(&cx, &root, USER).await.unwrap();
        assert!(plain.receives && !plain.force_refused, "{plain:?}");
        sure(["zfs", "unallow", "-u", USER, "receive", root.as_str()]);
        sure(["zfs", "allow", "-u", USER, "receive:append", root.as_str()]);
        let append = trial.force(&cx, &root, USER).await.unwrap();
        assert!(append.is_fine(), "{append:?}");
        assert_eq!(
            sure(["zfs", "list", "-H", "-t", "all", "-o", "name"]),
            before,
            "nothing is left behind"
        );
    });
}

/// That the replication suite runs without root means something only if its user is nobody special.
#[test]
fn what_is_roots_alone_is_refused_as_documented() {
    block_on(async {
        let (lab, cx) = (Delegated::new().await, context("root"));
        let target = lab.target("t");
        let (targets, replica) = ([target.clone()], lab.lab.replica_of(&target));
        let as_user = async |words: &[&str]| {
            let command = Command::new(words[0]).args(words[1..].iter().copied());
            AsUser::default().run(&command, &cx.cancel).await.unwrap()
        };
        let id = as_user(&["id", "-u"]).await.stdout.text().trim().to_owned();
        assert!(!["", "0"].contains(&id.as_str()), "{id:?}");

        // A property that isn't granted stays behind, and all else arrives.
        let from = target.dataset.as_str();
        sure(["zfs", "set", "recordsize=16K", from]);
        lab.lab
            .pool
            .files
            .write(&target.mountpoint.join("f"), &[3; 3_000_000]);
        snapshot(&lab.lab.pool, &target, "one", 1, true).await;
        let plan = lab.replicator.plan(&cx, &targets).await.unwrap();
        let report = lab.replicator.execute(&cx, &plan).await.unwrap();
        assert_eq!((report.failed, report.sent.len()), (vec![], 1));
        let recordsize = ["zfs", "get", "-Hp", "-o", "value", "recordsize", replica.as_str()];
        assert_eq!(sure(recordsize), "131072");

        // Old bookmarks can't be removed, and those of many datasets not be made together.
        let bookmark = bookmarks(from);
        for words in [
            &["zfs", "destroy", &bookmark][..],
            &["zfs", "program", &lab.lab.pool.pool, "-"],
            &["zfs", "destroy", &format!("{replica}@one")],
        ] {
            let output = as_user(words).await;
            assert!(!output.exit.success(), "{words:?}");
        }

        // What has begun to arrive of a snapshot that is gone can't be thrown away.
        let target = lab.target("cut");
        let (targets, replica) = ([target.clone()], lab.lab.replica_of(&target));
        lab.lab
            .pool
            .files
            .write(&target.mountpoint.join("f"), &[4; 3_000_000]);
        let old = snapshot(&lab.lab.pool, &target, "one", 1, false).await;
        let line = format!(
            "zfs send -p -L -c -e '{}@one' | head -c 1000000 | zfs receive -s -u -x mountpoint -o canmount=noauto '{replica}'",
            target.dataset
        );
        assert!(run(["sh", "-c", &line]).stderr.text().contains("resuming stream"));
        let store = &lab.lab.pool.store;
        store.prune(&cx, &[old.reference()]).await.unwrap();
        let new = snapshot(&lab.lab.pool, &target, "one", 2, false).await;
        let plan = lab.replicator.plan(&cx, &targets).await.unwrap();
        let error = lab.replicator.execute(&cx, &plan).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ReplicateKind::PermissionDenied, "{error}");
        assert!(lab.copies(&target).await.is_empty());
        // Root does, on the replica's side, and it goes on.
        sure(["zfs", "receive", "-A", replica.as_str()]);
        let plan = lab.replicator.plan(&cx, &targets).await.unwrap();
        lab.replicator.execute(&cx, &plan).await.unwrap();
        let guids: Vec<_> = lab.copies(&target).await.iter().map(|copy| copy.guid).collect();
        assert_eq!(guids, [new.guid]);
    });
}
