//! What was set aside on a replica: it comes back, also alone; it is only made of what was to be; and what copies lack is told them.

use reseed_backend_zfs::zfs::{Location, Mapping, ReplicaSource};
use reseed_core::error::{Effect, ReplicateKind};
use reseed_core::names::DatasetName;
use reseed_core::point::{RecoveryPoint, Target};
use reseed_core::store::Settle;
use reseed_core::{Replicator as _, RestoreSource as _, SnapshotStore as _};
use reseed_testkit::conformance::replicate::ReplicaLab as _;
use reseed_testkit::conformance::{block_on, context};
use reseed_testkit::files::Files as _;

use crate::lab::{name, run, sure};
use crate::replica_lab::Replica;
use crate::source_lab::{snapshot, whole};

fn get(property: &str, of: &str) -> String {
    sure(["zfs", "get", "-Hp", "-o", "value", property, of])
}

async fn sent(lab: &Replica, target: &Target) {
    let cx = context("send");
    let plan = lab
        .replicator
        .plan(&cx, std::slice::from_ref(target))
        .await
        .unwrap();
    let report = lab.replicator.execute(&cx, &plan).await.unwrap();
    assert_eq!(report.failed, []);
}

/// Where the replica's lineage would go.
async fn aside(lab: &Replica, target: &Target) -> String {
    let cx = context("plan");
    let targets = std::slice::from_ref(target);
    let plan = lab.replicator.plan(&cx, targets).await.unwrap();
    plan.steps[0].set_aside.clone().unwrap().renamed_to
}

/// Restores a point into staging; the files that came.
async fn staged(lab: &Replica, target: &Target, point: &RecoveryPoint, key: Option<&str>) -> Vec<String> {
    let (cx, store) = (context("restore"), &lab.pool.store);
    let root = DatasetName::new(format!("{}/svc", lab.back.pool)).unwrap();
    let source = ReplicaSource::new(name("second"), store, Location::Local, Mapping::below(root));
    let (request, stage) = whole(target, point);
    let plan = source.plan(&cx, &request).await.unwrap();
    let staging = store.stage(&cx, &stage).await.unwrap();
    if let Some(key) = key {
        let locked = source.execute(&cx, &plan, &staging).await.unwrap_err();
        assert!(locked.to_string().contains("key is not loaded"), "{locked}");
        sure([
            "zfs",
            "load-key",
            "-L",
            &format!("file://{key}"),
            &staging.locator,
        ]);
    }
    source.execute(&cx, &plan, &staging).await.unwrap();
    let snapshot = point.locator.rsplit('@').next().unwrap();
    let files = lab.pool.read(&format!("{}@{snapshot}", staging.locator));
    store.settle(&cx, &Settle::Discard { staging }).await.unwrap();
    files.keys().map(|path| path.display().to_string()).collect()
}

async fn points(lab: &Replica, target: &Target) -> Vec<RecoveryPoint> {
    let root = DatasetName::new(format!("{}/svc", lab.back.pool)).unwrap();
    let source = ReplicaSource::new(
        name("second"),
        &lab.pool.store,
        Location::Local,
        Mapping::below(root),
    );
    source.points(&context("points"), target).await.unwrap()
}

/// The old lineage was encrypted and sent as it was; what came after it wasn't, or never arrived.
#[test]
fn what_was_set_aside_comes_back_also_alone_and_encrypted_beside_what_is_not() {
    block_on(async {
        let lab = Replica::new();
        let target = lab.pool.target("a");
        let dataset = target.dataset.as_str();
        let key = lab.pool.encrypted(dataset);
        lab.pool.files.write(&target.mountpoint.join("old"), b"all of it");
        snapshot(&lab.pool, &target, "old", 1, true).await;
        sent(&lab, &target).await;
        // The pool died, and the dataset was made anew, in the clear.
        sure(["zfs", "destroy", "-r", dataset]);
        sure(["zfs", "create", dataset]);
        lab.pool
            .files
            .write(&target.mountpoint.join("new"), b"begun anew");
        snapshot(&lab.pool, &target, "new", 2, true).await;
        let renamed = aside(&lab, &target).await;
        // A run that was cut right after it had renamed it.
        sure(["zfs", "rename", "-u", lab.replica_of(&target).as_str(), &renamed]);
        let key = key.to_str().unwrap();
        for arrives in [false, true] {
            if arrives {
                sent(&lab, &target).await;
                assert_eq!(get("encryption", lab.replica_of(&target).as_str()), "off");
            }
            assert_ne!(get("encryption", &renamed), "off");
            let all = points(&lab, &target).await;
            assert_eq!(all.len(), if arrives { 2 } else { 1 });
            let old = all.iter().find(|point| point.locator.ends_with("@old")).unwrap();
            let files = staged(&lab, &target, old, Some(key)).await;
            assert!(files.iter().any(|file| file.ends_with("old")), "{files:?}");
        }
    });
}

/// Between the plan and its turn another has come to stand there: an operator's, or one that was pulled on.
#[test]
fn only_the_lineage_that_was_to_be_is_set_aside_and_a_second_one_too() {
    block_on(async {
        let lab = Replica::new();
        let cx = context("aside");
        let target = lab.target("a");
        let (dataset, replica) = (target.dataset.as_str(), lab.replica_of(&target));
        snapshot(&lab.pool, &target, "one", 1, true).await;
        sent(&lab, &target).await;
        let mut kept = Vec::new();
        for round in 0..2 {
            // Written to, with the same newest snapshot each time.
            lab.write_there(&target);
            sure(["zpool", "sync", &lab.back.pool]);
            let targets = std::slice::from_ref(&target);
            let plan = lab.replicator.plan(&cx, targets).await.unwrap();
            let renamed = plan.steps[0].set_aside.clone().unwrap().renamed_to;
            if round == 0 {
                let was = format!("{replica}-was");
                sure(["zfs", "rename", "-u", replica.as_str(), &was]);
                sure(["zfs", "create", "-o", "canmount=off", replica.as_str()]);
                let error = lab.replicator.execute(&cx, &plan).await.map(drop).unwrap_err();
                assert_eq!(
                    (error.kind(), error.may_have()),
                    (ReplicateKind::StalePlan, Effect::None),
                    "{error}"
                );
                assert!(!run(["zfs", "list", &renamed]).exit.success());
                sure(["zfs", "destroy", replica.as_str()]);
                sure(["zfs", "rename", "-u", &was, replica.as_str()]);
            }
            let report = lab.replicator.execute(&cx, &plan).await.unwrap();
            assert_eq!(
                (report.failed, &report.set_aside),
                (vec![], &vec![renamed.clone()])
            );
            kept.push((renamed, get("guid", &format!("{replica}@one"))));
        }
        assert_ne!(kept[0].0, kept[1].0);
        let original = get("guid", &format!("{dataset}@one"));
        for (renamed, guid) in kept {
            assert_eq!(
                (get("guid", &format!("{renamed}@one")), &guid),
                (original.clone(), &original)
            );
        }
    });
}

/// sanoid on the replica's side takes each newest snapshot as soon as it has arrived: its data is the replica's own then.
#[test]
fn a_replica_that_is_set_aside_time_and_again_is_left_alone_until_somebody_looks() {
    block_on(async {
        let lab = Replica::new();
        let cx = context("brake");
        let target = lab.target("a");
        let (replica, targets) = (lab.replica_of(&target), std::slice::from_ref(&target));
        let mut set_aside = Vec::new();
        let mut minutes = 0;
        for name in ["one", "two", "three"] {
            for name in [name.to_owned(), format!("{name}-b")] {
                minutes += 1;
                lab.pool
                    .files
                    .write(&target.mountpoint.join(&name), &[7; 100_000]);
                // As they come: the newest is now.
                sure(["zfs", "snapshot", &format!("{}@{name}", target.dataset)]);
            }
            if minutes == 2 {
                sent(&lab, &target).await;
            }
            let newest = sure([
                "zfs",
                "list",
                "-Hp",
                "-d",
                "1",
                "-t",
                "snapshot",
                "-o",
                "name",
                replica.as_str(),
            ]);
            sure(["zfs", "destroy", newest.lines().last().unwrap()]);
            let plan = lab.replicator.plan(&cx, targets).await.unwrap();
            if name == "three" {
                break;
            }
            set_aside.extend(lab.replicator.execute(&cx, &plan).await.unwrap().set_aside);
        }
        assert_eq!(set_aside.len(), 2);
        let plan = lab.replicator.plan(&cx, targets).await.unwrap();
        assert_eq!((plan.steps.len(), plan.left_out.len()), (0, 1), "{plan:?}");
        let (_, error) = &plan.left_out[0];
        assert_eq!(error.kind, ReplicateKind::Diverged.to_string());
        let hint = error.hint.clone().unwrap();
        assert!(set_aside.iter().all(|name| hint.contains(name)), "{hint}");
        // An operator has looked, and does what the hint says.
        sure(["sh", "-c", hint.split('`').nth(1).unwrap()]);
        let plan = lab.replicator.plan(&cx, targets).await.unwrap();
        assert_eq!((plan.steps.len(), plan.left_out.len()), (1, 0), "{plan:?}");
        let report = lab.replicator.execute(&cx, &plan).await.unwrap();
        assert_eq!((report.failed.len(), report.set_aside.len()), (0, 1));
    });
}

/// A stream that was gone on with brings no properties, and whoever was to write them was killed.
#[test]
fn what_a_copy_lacks_is_told_it_though_nothing_is_left_to_send() {
    block_on(async {
        let lab = Replica::new();
        let cx = context("tell");
        let target = lab.target("a");
        let replica = lab.replica_of(&target);
        for (minutes, name) in (1..).zip(["one", "two", "three"]) {
            lab.pool.files.write(&target.mountpoint.join(name), b"x");
            snapshot(&lab.pool, &target, name, minutes, true).await;
        }
        let (one, three) = (
            format!("{}@one", target.dataset),
            format!("{}@three", target.dataset),
        );
        sure(["zfs", "set", "reseed:unseeded=on", &one, &three]);
        sent(&lab, &target).await;
        let copies = [format!("{replica}@one"), format!("{replica}@three")];
        let said = |property: &str| copies.clone().map(|copy| get(property, &copy));
        let properties = ["reseed:taken", "reseed:digest", "reseed:unseeded"];
        let before = properties.map(said);
        assert!(before.iter().flatten().all(|value| value != "-"), "{before:?}");
        for (property, copy) in [
            ("reseed:unseeded", &copies[0]),
            ("reseed:taken", &copies[1]),
            ("reseed:digest", &copies[1]),
            ("reseed:unseeded", &copies[1]),
        ] {
            sure(["zfs", "inherit", property, copy]);
        }
        let targets = std::slice::from_ref(&target);
        let plan = lab.replicator.plan(&cx, targets).await.unwrap();
        assert_eq!((plan.steps.len(), plan.untold.len()), (0, 2), "{plan:?}");
        lab.replicator.execute(&cx, &plan).await.unwrap();
        assert_eq!(properties.map(said), before);
        let again = lab.replicator.plan(&cx, targets).await.unwrap();
        assert_eq!((again.steps, again.untold), (vec![], vec![]));
    });
}

/// What is up to date is asked of less; what isn't is seen all the same.
#[test]
fn a_replica_that_moved_on_or_back_is_seen_though_nothing_new_is_here() {
    block_on(async {
        let lab = Replica::new();
        let cx = context("moved");
        // More than the few of which everything is asked anyhow.
        let all: Vec<Target> = ["a", "b", "c", "d", "e"].map(|name| lab.target(name)).into();
        for (minutes, name) in [(1, "one"), (2, "two")] {
            for target in &all {
                lab.pool.files.write(&target.mountpoint.join(name), &[7; 200_000]);
                snapshot(&lab.pool, target, name, minutes, true).await;
            }
        }
        let targets = &all[..];
        let plan = lab.replicator.plan(&cx, targets).await.unwrap();
        lab.replicator.execute(&cx, &plan).await.unwrap();
        let again = lab.replicator.plan(&cx, targets).await.unwrap();
        assert_eq!((again.steps, again.left_out), (vec![], vec![]));
        // Written to, and a snapshot of its own taken of that; the newest one is gone; a snapshot of its own without data.
        let replicas: Vec<_> = all.iter().map(|target| lab.replica_of(target)).collect();
        lab.write_there(&all[0]);
        sure([
            "zfs",
            "snapshot",
            &format!("{}@own", replicas[0]),
            &format!("{}@own", replicas[2]),
        ]);
        sure(["zfs", "destroy", &format!("{}@two", replicas[1])]);
        let plan = lab.replicator.plan(&cx, targets).await.unwrap();
        let told: Vec<_> = plan
            .steps
            .iter()
            .map(|step| (&step.target, step.send.len(), step.set_aside.is_some()))
            .collect();
        // What the destroyed one held is the head's own now.
        assert_eq!(told, [(&all[0], 2, true), (&all[1], 2, true)], "{plan:?}");
        let report = lab.replicator.execute(&cx, &plan).await.unwrap();
        assert_eq!((report.failed, report.sent.len()), (vec![], 4));
        let again = lab.replicator.plan(&cx, targets).await.unwrap();
        assert_eq!((again.steps, again.left_out), (vec![], vec![]));
        // Nor is a place that is gone taken for one where nothing is to be done.
        sure(["zpool", "export", &lab.back.pool]);
        assert!(lab.replicator.plan(&cx, targets).await.is_err());
        crate::source_lab::attach(&lab.back, true);
    });
}
