//! Whose a replica is: two hosts with one pool name and one place for their replicas.

use reseed_backend_zfs::zfs::{Location, Mapping, NativeReplicator, ReplicaSource};
use reseed_core::error::{Effect, ReplicateKind, SourceKind};
use reseed_core::names::DatasetName;
use reseed_core::point::{RecoveryPoint, Target};
use reseed_core::source::{RestoreRequest, Scope};
use reseed_core::store::{Delivery, StagePurpose, StageRequest};
use reseed_core::{Context, Replicator as _, RestoreSource as _, SnapshotStore as _};
use reseed_testkit::conformance::replicate::ReplicaLab as _;
use reseed_testkit::conformance::{block_on, context};
use reseed_testkit::files::Files as _;

use crate::lab::{name, run, sure};
use crate::replica_lab::Replica;
use crate::source_lab::snapshot;
use crate::vm_odd::set;

/// Both hosts are this one: what tells them apart is what they are called.
struct Hosts {
    lab: Replica,
    cx: Context,
    target: Target,
    taken: i64,
}

impl Hosts {
    async fn new() -> Self {
        let (lab, cx) = (Replica::new(), context("hosts"));
        let target = lab.target("a t");
        let mut hosts = Self {
            lab,
            cx,
            target,
            taken: 0,
        };
        hosts.change().await;
        hosts
    }

    async fn change(&mut self) {
        self.taken += 1;
        let leaf = format!("s{}", self.taken);
        let file = self.target.mountpoint.join(&leaf);
        self.lab.pool.files.write(&file, leaf.as_bytes());
        snapshot(&self.lab.pool, &self.target, &leaf, self.taken, true).await;
    }

    fn of(&self, host: &str) -> NativeReplicator {
        self.lab.replicator.clone().of_host(host)
    }

    fn source(&self) -> ReplicaSource {
        let below = Mapping::below(DatasetName::new(format!("{}/svc", self.lab.back.pool)).unwrap());
        ReplicaSource::new(name("second"), &self.lab.pool.store, Location::Local, below)
    }

    fn targets(&self) -> &[Target] {
        std::slice::from_ref(&self.target)
    }

    fn replica(&self) -> String {
        self.lab.replica_of(&self.target).to_string()
    }

    /// What is written of whose it is, and where it comes from.
    fn origin(dataset: &str) -> String {
        sure(["zfs", "get", "-H", "-o", "value,source", "reseed:origin", dataset])
    }

    fn value(&self, host: &str) -> String {
        format!("{host}:{}", self.target.dataset.as_str().replace(' ', "%20"))
    }

    async fn send(&self, replicator: &NativeReplicator) -> usize {
        let plan = replicator.plan(&self.cx, self.targets()).await.unwrap();
        let report = replicator.execute(&self.cx, &plan).await.unwrap();
        assert_eq!(report.failed, []);
        report.sent.len()
    }

    async fn points(&self, source: &ReplicaSource) -> Vec<RecoveryPoint> {
        source.points(&self.cx, &self.target).await.unwrap()
    }

    async fn no_points(&self, source: &ReplicaSource) -> String {
        let error = source.points(&self.cx, &self.target).await.unwrap_err();
        // Not an empty list, which would be a first start.
        assert_eq!(error.kind(), SourceKind::NoSuchPoint, "{error}");
        error.to_string()
    }

    fn everything(&self) -> String {
        let root = format!("{}/svc", self.lab.back.pool);
        sure([
            "zfs",
            "list",
            "-Hpr",
            "-t",
            "all",
            "-o",
            "name,guid,reseed:origin",
            &root,
        ])
    }
}

#[test]
fn another_hosts_replica_is_refused_and_left_as_it_is() {
    block_on(async {
        let mut hosts = Hosts::new().await;
        let (nas, other) = (hosts.of("nas"), hosts.of("box"));
        let plan = nas.plan(&hosts.cx, hosts.targets()).await.unwrap();
        nas.execute(&hosts.cx, &plan).await.unwrap();
        assert_eq!(
            Hosts::origin(&hosts.replica()),
            format!("{}\tlocal", hosts.value("nas"))
        );
        hosts.change().await;
        let plan = nas.plan(&hosts.cx, hosts.targets()).await.unwrap();
        let before = hosts.everything();
        for error in [
            other
                .plan(&hosts.cx, hosts.targets())
                .await
                .map(drop)
                .unwrap_err(),
            other
                .lineage(&hosts.cx, hosts.targets())
                .await
                .map(drop)
                .unwrap_err(),
            other.execute(&hosts.cx, &plan).await.map(drop).unwrap_err(),
        ] {
            assert_eq!(
                (error.kind(), error.may_have()),
                (ReplicateKind::InvalidInput, Effect::None),
                "{error}"
            );
            let told = error.to_string();
            assert!(told.contains("nas") && told.contains("box"), "{told}");
            assert!(error.what_to_do().is_some());
        }
        // Nor is it set aside because it has nothing in common with what the other host has.
        sure(["zfs", "destroy", "-r", hosts.target.dataset.as_str()]);
        sure(["zfs", "create", hosts.target.dataset.as_str()]);
        hosts.change().await;
        let error = other
            .plan(&hosts.cx, hosts.targets())
            .await
            .map(drop)
            .unwrap_err();
        assert_eq!(error.kind(), ReplicateKind::InvalidInput, "{error}");
        assert_eq!(hosts.everything(), before);
        // Its own host's lineage is mended as ever, and what is set aside says whose it is.
        let plan = nas.plan(&hosts.cx, hosts.targets()).await.unwrap();
        let aside = plan.steps[0].set_aside.clone().unwrap().renamed_to;
        nas.execute(&hosts.cx, &plan).await.unwrap();
        for dataset in [&aside, &hosts.replica()] {
            assert_eq!(Hosts::origin(dataset), format!("{}\tlocal", hosts.value("nas")));
        }
        assert_eq!(hosts.points(&hosts.source().of_host("nas")).await.len(), 2);
        let told = hosts.no_points(&hosts.source().of_host("box")).await;
        assert!(told.contains("only of nas"), "{told}");
    });
}

#[test]
fn another_hosts_points_come_back_only_on_request() {
    block_on(async {
        let hosts = Hosts::new().await;
        hosts.send(&hosts.of("nas")).await;
        let point = hosts.points(&hosts.source().of_host("nas")).await.remove(0);
        let request = RestoreRequest {
            target: hosts.target.clone(),
            point: point.clone(),
            scope: Scope::Whole,
        };
        let stage = StageRequest {
            target: hosts.target.clone(),
            purpose: StagePurpose::Restore {
                point: point.clone(),
                delivery: Delivery::Native,
            },
        };
        let asked = hosts.source().of_other_host("nas");
        assert_eq!(hosts.points(&asked).await, [point]);
        let plan = asked.plan(&hosts.cx, &request).await.unwrap();
        let staging = hosts.lab.pool.store.stage(&hosts.cx, &stage).await.unwrap();
        for refused in [hosts.source().of_host("box"), hosts.source().of_other_host("box")] {
            hosts.no_points(&refused).await;
            let error = refused.plan(&hosts.cx, &request).await.unwrap_err();
            assert_eq!(error.kind(), SourceKind::NoSuchPoint, "{error}");
            let error = refused.execute(&hosts.cx, &plan, &staging).await.unwrap_err();
            assert_eq!(error.kind(), SourceKind::NoSuchPoint, "{error}");
            assert!(!run(["zfs", "list", &staging.locator]).exit.success());
        }
        asked.execute(&hosts.cx, &plan, &staging).await.unwrap();
        // What comes back is no replica: it says nothing of whose it is.
        assert_eq!(Hosts::origin(&staging.locator), "-\t-");
    });
}

#[test]
fn what_says_nothing_counts_as_ours_and_gets_it_with_the_next_stream() {
    block_on(async {
        let mut hosts = Hosts::new().await;
        hosts.send(&hosts.lab.replicator).await;
        let (nas, replica) = (hosts.of("nas"), hosts.replica());
        assert_eq!(Hosts::origin(&replica), "-\t-");
        assert_eq!(hosts.send(&nas).await, 0);
        assert_eq!(Hosts::origin(&replica), "-\t-", "up to date is no work");
        assert_eq!(hosts.points(&hosts.source().of_host("nas")).await.len(), 1);
        // It may be anybody's, so it is nobody's who is asked for by name.
        let told = hosts.no_points(&hosts.source().of_other_host("nas")).await;
        assert!(told.contains("says whose it is"), "{told}");
        hosts.change().await;
        assert_eq!(hosts.send(&nas).await, 1);
        assert_eq!(Hosts::origin(&replica), format!("{}\tlocal", hosts.value("nas")));
        assert_eq!(hosts.points(&hosts.source().of_other_host("nas")).await.len(), 2);
        let error = hosts
            .of("box")
            .plan(&hosts.cx, hosts.targets())
            .await
            .map(drop)
            .unwrap_err();
        assert_eq!(error.kind(), ReplicateKind::InvalidInput, "{error}");
        // A first stream that is cut leaves it too.
        let line = format!(
            "zfs send '{}@s1' | head -c 20000 | zfs receive -s -u -o reseed:origin={} {}/svc/cut",
            hosts.target.dataset,
            hosts.value("nas"),
            hosts.lab.back.pool
        );
        assert!(run(["sh", "-c", &line]).stderr.text().contains("resuming stream"));
        let cut = format!("{}/svc/cut", hosts.lab.back.pool);
        assert_eq!(Hosts::origin(&cut), format!("{}\tlocal", hosts.value("nas")));
    });
}

#[test]
fn only_a_replicas_own_value_counts() {
    block_on(async {
        let mut hosts = Hosts::new().await;
        let (nas, replica) = (hosts.of("nas"), hosts.replica());
        let above = replica.rsplit_once('/').unwrap().0.to_owned();
        sure(["zfs", "create", "-p", "-o", "canmount=off", &above]);
        // Received: the source had it, and it came along.
        let from = hosts.target.dataset.to_string();
        sure(["zfs", "set", "reseed:origin=box:tank/x", &from]);
        let line =
            format!("zfs send -p '{from}@s1' | zfs receive -u -x mountpoint -o canmount=noauto '{replica}'");
        sure(["bash", "-o", "pipefail", "-c", &line]);
        assert_eq!(Hosts::origin(&replica), "box:tank/x\treceived");
        assert_eq!(hosts.send(&nas).await, 0);
        assert_eq!(hosts.points(&hosts.source().of_host("nas")).await.len(), 1);
        // What the live dataset has of the kind never counts, and never comes along with ours.
        hosts.change().await;
        assert_eq!(hosts.send(&nas).await, 1);
        assert_eq!(Hosts::origin(&replica), format!("{}\tlocal", hosts.value("nas")));

        // Inherited: what stands above is another's.
        sure(["zfs", "inherit", "reseed:origin", &from]);
        sure(["zfs", "inherit", "reseed:origin", &replica]);
        sure(["zfs", "set", "reseed:origin=box:tank/x", &above]);
        assert_eq!(
            Hosts::origin(&replica),
            format!("box:tank/x\tinherited from {above}")
        );
        assert_eq!(hosts.points(&hosts.source().of_host("nas")).await.len(), 2);
        hosts.no_points(&hosts.source().of_other_host("box")).await;
        hosts.change().await;
        assert_eq!(hosts.send(&nas).await, 1);
        assert_eq!(Hosts::origin(&replica), format!("{}\tlocal", hosts.value("nas")));

        // Something that nobody of ours wrote is not ours.
        sure(["zfs", "set", "reseed:origin=strange", &replica]);
        let error = nas.plan(&hosts.cx, hosts.targets()).await.map(drop).unwrap_err();
        assert!(error.to_string().contains("strange"), "{error}");
        // The same host's of another dataset: not sent to, until somebody says that it was renamed.
        sure(["zfs", "set", "reseed:origin=nas:other/a", &replica]);
        hosts.change().await;
        let error = nas.plan(&hosts.cx, hosts.targets()).await.map(drop).unwrap_err();
        assert!(error.to_string().contains("nas:other/a"), "{error}");
        let ours = format!("reseed:origin={}", hosts.value("nas"));
        assert!(error.what_to_do().unwrap_or_default().contains(&ours), "{error}");
        sure(["zfs", "set", &ours, &replica]);
        assert_eq!(hosts.send(&nas).await, 1);
        assert_eq!(Hosts::origin(&replica), format!("{}\tlocal", hosts.value("nas")));
    });
}

#[test]
fn an_odd_value_of_one_replica_is_nobodys_and_spoils_no_other() {
    block_on(async {
        let mut hosts = Hosts::new().await;
        let (nas, replica) = (hosts.of("nas"), hosts.replica());
        assert_eq!(hosts.send(&nas).await, 1);
        // Beside it one that looks like more of the listing, and would take this one for another host's.
        let above = replica.rsplit_once('/').unwrap().0;
        let beside = format!("{above}/beside");
        sure(["zfs", "create", "-o", "canmount=off", &beside]);
        for odd in [
            format!("x\n{replica}\treseed:origin\tbox:tank/a"),
            format!("x\n{replica}\tbox:tank/a"),
            "x\ty\n".to_owned(),
        ] {
            set("reseed:origin", odd.as_bytes(), &beside);
            assert_eq!(hosts.points(&hosts.source().of_host("nas")).await.len(), 1);
            hosts.no_points(&hosts.source().of_other_host("box")).await;
            assert_eq!(hosts.send(&nas).await, 0);
        }
        // Its own: whoever wrote that, it isn't this host, nor one that says nothing.
        let ours = format!("{}\n", hosts.value("nas"));
        for odd in [ours.as_str(), "x\ty", "nas:\n"] {
            set("reseed:origin", odd.as_bytes(), &replica);
            hosts.change().await;
            let error = nas.plan(&hosts.cx, hosts.targets()).await.map(drop).unwrap_err();
            assert_eq!(error.kind(), ReplicateKind::InvalidInput, "{odd:?}: {error}");
        }
        // One that is inherited counts as little as any other.
        sure(["zfs", "inherit", "reseed:origin", &replica]);
        set("reseed:origin", b"x\ny\tz", above);
        assert_eq!(hosts.send(&nas).await, 3);
        assert_eq!(hosts.points(&hosts.source().of_host("nas")).await.len(), 4);
        assert_eq!(Hosts::origin(&replica), format!("{}\tlocal", hosts.value("nas")));
    });
}
