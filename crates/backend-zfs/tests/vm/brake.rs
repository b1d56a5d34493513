//! What is set aside on a replica when it is not the replica that was written to: names that come again, rollbacks; and a volume.

use reseed_core::Replicator as _;
use reseed_core::error::ReplicateKind;
use reseed_core::point::Target;
use reseed_core::replicate::ReplicationPlan;
use reseed_testkit::conformance::replicate::ReplicaLab as _;
use reseed_testkit::conformance::{block_on, context};
use reseed_testkit::files::Files as _;

use crate::chain::volume;
use crate::lab::sure;
use crate::replica_lab::Replica;

/// Some data, and a snapshot of it as a script would take it.
fn taken(lab: &Replica, target: &Target, name: &str) {
    let file = target.mountpoint.join(name);
    lab.pool.files.write(&file, &name.as_bytes().repeat(20_000));
    sure(["zfs", "snapshot", &format!("{}@{name}", target.dataset)]);
}

async fn plan(lab: &Replica, target: &Target) -> ReplicationPlan {
    let targets = std::slice::from_ref(target);
    lab.replicator.plan(&context("plan"), targets).await.unwrap()
}

/// Sends; how many lineages were set aside for that.
async fn sent(lab: &Replica, target: &Target) -> usize {
    let plan = plan(lab, target).await;
    assert_eq!(plan.left_out, []);
    let report = lab.replicator.execute(&context("send"), &plan).await.unwrap();
    assert_eq!(report.failed, []);
    report.set_aside.len()
}

/// A script takes `@borg` for each backup, and removes it afterwards.
#[test]
fn a_name_that_comes_again_every_night_does_not_fill_the_replica() {
    block_on(async {
        let lab = Replica::new();
        let target = lab.target("a");
        let borg = format!("{}@borg", target.dataset);
        taken(&lab, &target, "one");
        let mut set_aside = 0;
        for night in 0..3 {
            taken(&lab, &target, "borg");
            set_aside += sent(&lab, &target).await;
            sure(["zfs", "destroy", &borg]);
            assert_eq!(set_aside, night);
        }
        taken(&lab, &target, "borg");
        let plan = plan(&lab, &target).await;
        assert_eq!((plan.steps.len(), plan.left_out.len()), (0, 1), "{plan:?}");
        let (_, error) = &plan.left_out[0];
        assert_eq!(error.kind, ReplicateKind::Diverged.to_string());
        assert!(error.what.contains("borg is another snapshot there"), "{error:?}");
        let hint = error.hint.clone().unwrap();
        assert!(hint.contains("same name"), "{hint}");
        // Without it the replica goes on from where it is.
        sure(["zfs", "destroy", &borg]);
        taken(&lab, &target, "two");
        assert_eq!(sent(&lab, &target).await, 0);
    });
}

/// Somebody's own snapshots there, with data in them.
#[test]
fn what_the_replicas_own_snapshots_hold_does_not_fill_it_either() {
    block_on(async {
        let lab = Replica::new();
        let target = lab.target("a");
        let replica = lab.replica_of(&target);
        for night in 0..4 {
            taken(&lab, &target, &format!("night{night}"));
            if night < 3 {
                assert_eq!(sent(&lab, &target).await, usize::from(night > 0));
                lab.write_there(&target);
                sure(["zfs", "snapshot", &format!("{replica}@own")]);
            }
        }
        let plan = plan(&lab, &target).await;
        assert_eq!((plan.steps.len(), plan.left_out.len()), (0, 1), "{plan:?}");
    });
}

#[test]
fn an_operators_rollbacks_are_not_stopped() {
    block_on(async {
        let lab = Replica::new();
        let target = lab.target("a");
        taken(&lab, &target, "good");
        for round in 0..5 {
            taken(&lab, &target, &format!("bad{round}"));
            assert_eq!(sent(&lab, &target).await, usize::from(round > 0));
            sure(["zfs", "rollback", "-r", &format!("{}@good", target.dataset)]);
        }
        // The dataset is made anew.
        sure(["zfs", "destroy", "-r", target.dataset.as_str()]);
        sure(["zfs", "create", target.dataset.as_str()]);
        taken(&lab, &target, "anew");
        assert_eq!(sent(&lab, &target).await, 1);
    });
}

#[test]
fn a_volume_that_was_rolled_back_is_set_aside_too() {
    block_on(async {
        let lab = Replica::new();
        let target = lab.pool.target("disk");
        let dataset = target.dataset.as_str();
        let device = volume(dataset).await;
        let written = |name: &str| {
            let to = format!("of=/dev/{device}");
            sure(["dd", "if=/dev/urandom", &to, "bs=1M", "count=2", "conv=fsync"]);
            sure(["zfs", "snapshot", &format!("{dataset}@{name}")]);
        };
        written("one");
        written("two");
        assert_eq!(sent(&lab, &target).await, 0);
        sure(["zfs", "rollback", "-r", &format!("{dataset}@one")]);
        written("three");
        assert_eq!(sent(&lab, &target).await, 1);
        let replica = lab.replica_of(&target);
        let guid = |snapshot: String| sure(["zfs", "get", "-Hp", "-o", "value", "guid", &snapshot]);
        assert_eq!(guid(format!("{replica}@three")), guid(format!("{dataset}@three")));
    });
}
