//! What an unprivileged user may do with exactly the grants that the audit asks for.

use std::sync::Arc;

use reseed_backend_zfs::zfs::delegation::{Role, Trial, Who};
use reseed_core::exec::SystemRunner;
use reseed_core::names::DatasetName;
use reseed_testkit::conformance::{block_on, context};

use crate::lab::{Pool, run, sure};

const USER: &str = "reseedlab";

fn who() -> Who {
    Who {
        user: USER.to_owned(),
        groups: vec![USER.to_owned()],
    }
}

fn user() {
    // Each test has a process, and all of them one machine.
    let _ = run(["useradd", "--system", "--create-home", "--shell", "/bin/sh", USER]);
    sure(["id", USER]);
    // As udev's rule has it everywhere else: who may do what is the kernel's to say.
    sure(["chmod", "666", "/dev/zfs"]);
}

fn name(pool: &Pool, below: &str) -> DatasetName {
    DatasetName::new(format!("{}/{below}", pool.pool)).unwrap()
}

/// Does what the audit says, and asks again.
async fn heal(trial: &Trial, role: Role, dataset: &DatasetName) {
    let cx = context("heal");
    let found = trial.audit(&cx, role, dataset, &who()).await.unwrap();
    assert!(!found.is_fine());
    for command in &found.commands {
        sure(["sh", "-c", command]);
    }
    let found = trial.audit(&cx, role, dataset, &who()).await.unwrap();
    assert!(found.is_fine(), "{found:?}");
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
                       -o readonly=on";

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
        let full = format!("send -P -v -p -L -c -e {from}@one");
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
            &format!("send -P -v -p -L -c -e -I @one {from}@two"),
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
