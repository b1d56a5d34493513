//! Where the power goes: while snapshots are taken, while datasets are made, while a replica receives, and around the
//! promotion of a clone. Restores from a replica are cut in the backend's own tests, at each of their steps.

use reseed_testkit::conformance::block_on;

use crate::home::Home;

const DATA: &str = "tank/svc/app/data";
const WAL: &str = "tank/svc/app/wal";

#[test]
fn vm_a_power_cut_in_a_snapshot_leaves_all_of_it_or_none() {
    block_on(async {
        let mut home = Home::new(50_000).await;
        // It is taken, and nothing is written on it yet.
        home.cut("reseed snapshot app", "snapshot\\ *", "$real \"$@\"; cut")
            .await;
        let first = home.guids(DATA).await;
        assert_eq!((first.len(), home.guids(WAL).await.len()), (1, 1));
        // While it is taken: whichever of the two is first.
        home.cut("reseed snapshot app", "snapshot\\ *", "cut; $real \"$@\"")
            .await;
        let names = "zfs list -Hp -t snapshot -o name";
        let of = |dataset: &str| format!("{names} {dataset} | cut -d @ -f 2");
        let (data, wal) = (home.run(&of(DATA)).await, home.run(&of(WAL)).await);
        assert_eq!(data, wal, "of all datasets of the service or of none");
        let before = data.lines().count();

        // The same again: nobody stands in its way, it is whole and measured, and it goes on from there.
        home.run("reseed snapshot app; reseed replicate app; reseed verify app")
            .await;
        let taken = home.guids(DATA).await;
        assert_eq!((taken.len(), &taken[0]), (before + 1, &first[0]), "none is lost");
        let newest = format!(
            "zfs get -Hp -o value reseed:digest {DATA}@$({} | tail -n 1)",
            of(DATA)
        );
        assert_ne!(home.run(&newest).await, "-");
        assert_eq!(home.guids(&format!("back/lab/{DATA}")).await, taken);
        home.end().await;
    });
}

#[test]
fn vm_a_power_cut_in_apply_is_finished_by_the_next() {
    block_on(async {
        let mut home = Home::new(50_000).await;
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
        for round in 0..2 {
            // The first time in full, then an increment.
            home.cut("reseed replicate app", RECEIVES, HALF).await;
            let (here, there) = (home.guids(DATA).await, home.guids(&replica).await);
            assert_eq!(
                (here.len(), there.len()),
                (round + 1, round),
                "half of one is none"
            );
            assert_ne!(home.run(&token).await, "-");
            let planned = home.run("reseed replicate app --dry-run").await;
            assert!(!planned.contains("set aside"), "{planned}");
            home.run("reseed replicate app").await;
            assert_eq!(home.guids(&replica).await, here);
            assert_eq!(home.run(&token).await, "-");
            home.run(
                "for at in data wal; do head -c 600000 /dev/urandom > /tmp/lab/app/$at/first; done; reseed snapshot app",
            )
            .await;
        }
        // All has arrived, and what makes it the base of the next increment is missing still.
        let arrived = format!(
            "for try in $(seq 40); do test $($real list -Ht snapshot {replica} | wc -l) = 3 && break; sleep 0.25; done"
        );
        let waits = format!("{arrived}; zpool sync; cut");
        home.cut("reseed replicate app", "program\\ *|bookmark\\ *", &waits)
            .await;
        home.run("reseed replicate app").await;
        let arrived = home.guids(&replica).await;
        assert_eq!((arrived.len(), &arrived), (3, &home.guids(DATA).await));
        // A snapshot that is on the replica, and verified there, is what a restore brings.
        let aside = home
            .run("zfs list -Ho name -r back | grep -c reseed-aside || true")
            .await;
        assert_eq!(aside, "0", "nothing was set aside");
        let sum = home.run("cat /tmp/lab/app/data/first | sha256sum").await;
        home.run("reseed restore app --from back --to /tmp/lab/look")
            .await;
        let back = home.run("cat /tmp/lab/look/data/first | sha256sum").await;
        assert_eq!(back, sum);
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
