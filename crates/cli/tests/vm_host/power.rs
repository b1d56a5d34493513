//! Where the power goes: while snapshots are taken, while datasets are made, while a replica receives, and around the
//! promotion of a clone. Restores from a replica are cut in the backend's own tests, at each of their steps.

use reseed_testkit::conformance::block_on;

use crate::home::Home;

const DATA: &str = "tank/svc/app/data";
const WAL: &str = "tank/svc/app/wal";

#[test]
fn vm_a_power_cut_in_snapshot_and_in_apply_is_made_up_for_by_the_next() {
    block_on(async {
        let mut home = Home::new(50_000).await;
        // It is taken, of all datasets of the service, and nothing is written on it yet.
        home.cut("reseed snapshot app", "snapshot\\ *", "$real \"$@\"; cut")
            .await;
        let first = home.guids(DATA).await;
        assert_eq!((first.len(), home.guids(WAL).await.len()), (1, 1));
        // The same again: nobody stands in its way, and it goes on from there.
        home.run("reseed snapshot app; reseed replicate app; reseed verify app")
            .await;
        let taken = home.guids(DATA).await;
        assert_eq!((taken.len(), &taken[0]), (2, &first[0]), "none is lost");
        assert_eq!(home.guids(&format!("back/lab/{DATA}")).await, taken);
        let digests = format!("zfs list -Hpt snapshot -s createtxg -o reseed:digest {DATA}");
        let digests = home.run(&digests).await;
        let measured: Vec<bool> = digests.lines().map(|digest| digest != "-").collect();
        assert_eq!(measured, [false, true], "the first one doesn't look measured");

        home.run(
            "zfs create -o mountpoint=/tmp/lab/old tank/old; echo data > /tmp/lab/old/file; zpool sync
             cat >> /tmp/lab/state/reseed.toml <<'END'
[datasets.\"tank/new\"]
profile = \"media\"
properties = { mountpoint = \"/tmp/lab/new\" }
[datasets.\"tank/new/inner\"]
profile = \"postgres-wal\"
[datasets.\"tank/old\"]
profile = \"sqlite\"
properties = { atime = \"off\" }
END
             zpool sync",
        )
        .await;
        let guids = "zfs list -Hp -o name,guid -r tank";
        let before = home.run(guids).await;
        // Made, and not mounted.
        home.cut("reseed apply", "create\\ *tank/new", "$real \"$@\"; cut")
            .await;
        assert_eq!(
            home.run("zfs get -Hpo value recordsize,mounted tank/new").await,
            "131072\nyes"
        );
        home.run("zfs unmount tank/new").await;
        let plan = home.run("reseed plan").await;
        assert!(plan.contains("~ tank/new  mounted: no -> /tmp/lab/new"), "{plan}");
        // The first of three properties is set.
        home.cut("reseed apply", "set\\ *tank/old", "$real \"$@\"; cut")
            .await;
        let plan = home.run("reseed plan").await;
        assert!(plan.ends_with("0 to create, 2 to set"), "{plan}");
        let applied = home.run("reseed apply; reseed apply").await;
        assert!(applied.ends_with("all is as declared"), "{applied}");
        let all = "zfs get -Hpo value recordsize,compression,atime,mounted";
        assert_eq!(home.run(&format!("{all} tank/old")).await, "16384\nlz4\noff\nyes");
        assert_eq!(
            home.run(&format!("{all} tank/new/inner")).await,
            "131072\noff\non\nyes"
        );
        assert_eq!(home.run("cat /tmp/lab/old/file").await, "data");
        let after = home.run(guids).await;
        assert!(
            before.lines().all(|one| after.lines().any(|now| now == one)),
            "{before}\n{after}"
        );
        home.end().await;
    });
}

/// Half of a stream arrives and is written back; the power goes while the rest is waited for.
const HALF: &str = "{ head -c 300000; sleep 1; zpool sync back; cut; sleep 1000; } | $real \"$@\"";
const RECEIVES: &str = "receive\\ *back/lab/tank/svc/app/data";

#[test]
fn vm_a_power_cut_in_a_replication_is_gone_on_with() {
    block_on(async {
        let mut home = Home::new(600_000).await;
        let replica = format!("back/lab/{DATA}");
        let token = format!("zfs get -Hpo value receive_resume_token {replica}");
        home.run("reseed snapshot app").await;
        home.cut("reseed replicate app", RECEIVES, HALF).await;
        let (here, there) = (home.guids(DATA).await, home.guids(&replica).await);
        assert_eq!((here.len(), there.len()), (1, 0), "half of one is none");
        assert_ne!(home.run(&token).await, "-");
        let planned = home.run("reseed replicate app --dry-run").await;
        assert!(!planned.contains("set aside"), "{planned}");
        home.run("reseed replicate app").await;
        assert_eq!(home.guids(&replica).await, here);
        assert_eq!(home.run(&token).await, "-");
        // An increment: it has arrived, and what makes it the base of the next one is missing still.
        home.run(
            "for at in data wal; do head -c 600000 /dev/urandom > /tmp/lab/app/$at/first; done; reseed snapshot app",
        )
        .await;
        let arrived = format!(
            "for try in $(seq 40); do test $($real list -Ht snapshot {replica} | wc -l) = 2 && break; sleep 0.25; done"
        );
        let waits = format!("{arrived}; zpool sync; cut");
        home.cut("reseed replicate app", "program\\ *|bookmark\\ *", &waits)
            .await;
        home.run("reseed replicate app").await;
        let arrived = home.guids(&replica).await;
        assert_eq!((arrived.len(), &arrived), (2, &home.guids(DATA).await));
        // Nothing was set aside, and what the next one is based on is there by now, or the snapshots themselves are.
        let aside = home
            .run("zfs list -Ho name -r back | grep -c reseed-aside || true")
            .await;
        assert_eq!(aside, "0");
        home.run("reseed snapshot app; reseed replicate app").await;
        assert_eq!(home.guids(&replica).await, home.guids(DATA).await);
        home.end().await;
    });
}

#[test]
fn vm_a_power_cut_around_a_promotion_of_a_clone_loses_no_snapshot() {
    block_on(async {
        let mut home = Home::new(50_000).await;
        let dataset = "tank/svc/one";
        home.run("reseed snapshot one; zpool sync; cp /tmp/lab/one/first /tmp/lab/state/first")
            .await;
        let name = home
            .run(&format!(
                "zfs list -Hpt snapshot -o name {dataset} | cut -d @ -f 2"
            ))
            .await;
        let restore = format!("reseed restore one --from tank --at {name} --set-aside");
        let snapshots = "zfs list -Hpt snapshot -o guid -r tank | sort";
        for instead in ["cut", "$real \"$@\"; zpool sync; cut"] {
            home.run("echo newer > /tmp/lab/one/first; zpool sync; reseed snapshot one")
                .await;
            let before = home.run(snapshots).await;
            home.cut(&restore, "promote\\ *", instead).await;
            assert_eq!(home.run(snapshots).await, before, "{instead}");
            // A service that starts now, and whoever says it again, finds the restored data.
            home.run("reseed preseed one").await;
            home.run("cmp /tmp/lab/one/first /tmp/lab/state/first").await;
            let origin = home.run(&format!("zfs list -Hpo origin {dataset}")).await;
            assert_eq!(origin, "-", "{instead}: what was restored depends on nothing");
            let after = home.run(snapshots).await;
            assert!(
                before.lines().all(|one| after.lines().any(|now| now == one)),
                "{before}\n{after}"
            );
        }
        home.end().await;
    });
}
