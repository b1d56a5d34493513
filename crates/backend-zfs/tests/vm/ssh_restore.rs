//! What is more than bytes over ssh: a service that comes back from another host to where it was, and replicas that are fetched.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::Arc;

use reseed_backend_zfs::zfs::{Mapping, NativeReplicator, NativeStore, ReplicaSource};
use reseed_core::Replicator as _;
use reseed_core::error::ReplicateKind;
use reseed_core::names::{DatasetName, ServiceName};
use reseed_core::point::{MarkerState, Target};
use reseed_core::preseed::{Outcome, preseed};
use reseed_core::service::{Policy, Service, WhenExhausted};
use reseed_core::store::Condition;
use reseed_core::{RestoreSource, SnapshotStore as _};
use reseed_testkit::conformance::{block_on, context};
use reseed_testkit::files::Files as _;

use crate::chain::{Meddler, engine, noise, volume};
use crate::lab::{name, run, sure};
use crate::source_lab::snapshot;
use crate::ssh_lab::Pair;

fn property(dataset: &str, property: &str) -> String {
    sure(["zfs", "get", "-Hpo", "value", property, dataset])
}

fn service(lab: &Pair, target: &Target) -> Service {
    let source = ReplicaSource::new(name("nas"), &lab.pool.store, lab.host.location(), lab.mapping());
    let source: Arc<dyn RestoreSource> = Arc::new(source.of_host("lab"));
    Service {
        name: ServiceName::new("app").unwrap(),
        targets: vec![target.clone()],
        sources: vec![source],
        store: Arc::new(lab.pool.store.clone()),
        replicators: Vec::new(),
        offsite: Vec::new(),
        policy: Policy {
            tries: 1,
            when_exhausted: WhenExhausted::Hold,
            ..Policy::default()
        },
    }
}

#[test]
fn a_service_comes_back_from_another_host_to_its_place() {
    block_on(async {
        let (lab, cx) = (Pair::new(), context("back"));
        let target = lab.target("app", 1).await;
        let dataset = target.dataset.as_str();
        sure([
            "zfs",
            "set",
            "recordsize=16K",
            "quota=64M",
            "my:own=word",
            dataset,
        ]);
        // Its root, and a file in it, are somebody's.
        std::os::unix::fs::chown(&target.mountpoint, Some(1234), Some(1235)).unwrap();
        lab.pool.files.set_mode(&target.mountpoint, 0o2750);
        std::os::unix::fs::chown(target.mountpoint.join("noise"), Some(1236), Some(1237)).unwrap();
        snapshot(&lab.pool, &target, "two", 2, true).await;
        let (push, targets) = (lab.push().of_host("lab"), [target.clone()]);
        let plan = push.plan(&cx, &targets).await.unwrap();
        assert_eq!(push.execute(&cx, &plan).await.unwrap().failed, []);
        let before = lab.pool.files.list(&target.mountpoint);
        sure(["zfs", "destroy", "-r", dataset]);
        let _ = std::fs::remove_dir(&target.mountpoint);

        let (engine, service) = (engine(&lab.pool.root), service(&lab, &target));
        let since = engine.clock.monotonic();
        let report = preseed(&engine, &context("restore"), &[&service], since)
            .await
            .remove(0);
        assert_eq!(report.outcome, Outcome::Restored, "{report:#?}");

        // Live and mounted at its place, as it was, and nothing else of it is here.
        let now = lab.pool.store.inspect(&cx, &targets).await.unwrap().remove(0);
        assert_eq!((&now.condition, &now.leftover), (&Condition::Populated, &None));
        let after = lab.pool.files.list(&target.mountpoint);
        reseed_testkit::files::assert_same(&before, &after, "what came back");
        let root = std::fs::metadata(&target.mountpoint).unwrap();
        assert_eq!(
            (root.uid(), root.gid(), root.permissions().mode() & 0o7777),
            (1234, 1235, 0o2750)
        );
        let file = std::fs::metadata(target.mountpoint.join("noise")).unwrap();
        assert_eq!((file.uid(), file.gid()), (1236, 1237));
        // It says who brought it, from where, and that it was compared.
        let marker = now.marker.unwrap();
        let MarkerState::Restored { source, point, .. } = &marker.state else {
            panic!("{marker:?}")
        };
        assert_eq!(source.as_str(), "nas");
        assert_eq!(*point, report.attempts[0].points[0]);
        for (wanted, value) in [
            ("recordsize", "16384"),
            ("quota", "67108864"),
            ("my:own", "word"),
            ("canmount", "on"),
            ("readonly", "off"),
            ("reseed:stage", "-"),
            ("reseed:origin", "-"),
        ] {
            assert_eq!(property(dataset, wanted), value, "{wanted}");
        }
        // Written to, snapshotted and sent again: it goes on where it was.
        lab.pool.files.write(&target.mountpoint.join("more"), b"1");
        snapshot(&lab.pool, &target, "three", 3, true).await;
        let plan = push.plan(&cx, &targets).await.unwrap();
        assert!(
            plan.steps[0].base.is_some() && plan.steps[0].set_aside.is_none(),
            "{plan:#?}"
        );
        assert_eq!(push.execute(&cx, &plan).await.unwrap().failed, []);
    });
}

/// The other host's datasets are below `SVC`; what is fetched of them is below `POOL/pulled`.
struct Pull {
    lab: Pair,
    target: Target,
}

impl Pull {
    fn new() -> Self {
        let lab = Pair::new();
        sure([
            "zfs",
            "create",
            "-o",
            "canmount=off",
            &format!("{}/pulled", lab.pool.pool),
        ]);
        // What is live on the other host is in the pool that is called `back` here.
        let target = lab.back.target("app");
        sure(["zfs", "create", target.dataset.as_str()]);
        Self { lab, target }
    }

    fn puller(&self) -> NativeReplicator {
        self.puller_with(&self.lab.pool.store)
    }

    fn puller_with(&self, store: &NativeStore) -> NativeReplicator {
        let root = DatasetName::new(format!("{}/pulled", self.lab.pool.pool)).unwrap();
        let (from, mapping) = (self.lab.host.location(), Mapping::below(root));
        NativeReplicator::pulling(name("box"), store, from, mapping).of_host("box")
    }

    fn replica(&self) -> String {
        format!("{}/pulled/{}", self.lab.pool.pool, self.target.dataset)
    }

    async fn pull(&self) -> Result<u64, reseed_core::error::ReplicateError> {
        let (puller, cx) = (self.puller(), context("pull"));
        let plan = puller.plan(&cx, std::slice::from_ref(&self.target)).await?;
        let report = puller.execute(&cx, &plan).await?;
        assert_eq!((&report.failed, &plan.left_out), (&Vec::new(), &Vec::new()));
        Ok(report.sent.len() as u64)
    }

    async fn snapshot(&self, leaf: &str, minutes: i64) {
        self.lab
            .back
            .files
            .write(&self.target.mountpoint.join(leaf), leaf.as_bytes());
        snapshot(&self.lab.back, &self.target, leaf, minutes, true).await;
    }
}

#[test]
fn what_another_host_has_is_fetched_and_kept_up_to_date() {
    block_on(async {
        let pull = Pull::new();
        let dataset = pull.target.dataset.as_str();
        pull.snapshot("one", 1).await;
        let before = pull.lab.host.sent();
        assert_eq!(pull.pull().await.unwrap(), 1);
        assert_eq!(pull.pull().await.unwrap(), 0);
        pull.snapshot("two", 2).await;
        pull.snapshot("three", 3).await;
        // Retention there takes what would have been the base; the bookmark stands for it.
        sure(["zfs", "destroy", &format!("{dataset}@one")]);
        pull.snapshot("four", 4).await;
        let plan = pull
            .puller()
            .plan(&context("plan"), std::slice::from_ref(&pull.target))
            .await
            .unwrap();
        assert!(plan.steps[0].base.is_some(), "{plan:#?}");
        assert_eq!(pull.pull().await.unwrap(), 3);
        assert!(pull.lab.host.sent() > before);
        // As a replica that was sent is: not mounted, read-only, of that host, with the fingerprints.
        let replica = pull.replica();
        for (wanted, value) in [
            ("mounted", "no"),
            ("canmount", "noauto"),
            ("readonly", "on"),
            ("reseed:origin", &*format!("box:{dataset}")),
        ] {
            assert_eq!(property(&replica, wanted), value, "{wanted}");
        }
        assert_eq!(
            property(&format!("{replica}@four"), "reseed:digest"),
            property(&format!("{dataset}@four"), "reseed:digest")
        );
        assert_eq!(pull.lab.pool.read(&format!("{replica}@four")), {
            pull.lab.back.files.list(&pull.target.mountpoint)
        });
        // Nothing stays held on the other host.
        assert_eq!(sure(["zfs", "holds", "-H", &format!("{dataset}@four")]), "");
        // What is gone there stays here.
        assert_eq!(Pair::snapshots(&replica).lines().count(), 4);
    });
}

#[test]
fn what_is_fetched_and_no_longer_goes_on_is_set_aside_and_never_destroyed() {
    block_on(async {
        let pull = Pull::new();
        let dataset = pull.target.dataset.as_str();
        pull.snapshot("one", 1).await;
        pull.pull().await.unwrap();
        let first = Pair::snapshots(&pull.replica());
        // Another dataset of that name stands there now.
        sure(["zfs", "destroy", "-r", dataset]);
        sure(["zfs", "create", dataset]);
        pull.snapshot("other", 2).await;
        let plan = pull
            .puller()
            .plan(&context("plan"), std::slice::from_ref(&pull.target))
            .await
            .unwrap();
        let aside = plan.steps[0].set_aside.clone().unwrap();
        assert_eq!(pull.pull().await.unwrap(), 1);
        assert_eq!(Pair::snapshots(&aside.renamed_to), first);
        assert_eq!(Pair::snapshots(&pull.replica()), Pair::snapshots(dataset));
        // The host that it is of is the one that was asked for, whatever the name.
        let root = DatasetName::new(format!("{}/pulled", pull.lab.pool.pool)).unwrap();
        let (from, mapping) = (pull.lab.host.location(), Mapping::below(root));
        let strange = NativeReplicator::pulling(name("box"), &pull.lab.pool.store, from, mapping);
        let refused = strange
            .of_host("another")
            .plan(&context("strange"), std::slice::from_ref(&pull.target))
            .await
            .map(drop)
            .unwrap_err();
        assert_eq!(refused.kind(), ReplicateKind::InvalidInput, "{refused}");
        // A host that can't be reached changes nothing here.
        pull.lab.host.cable(false);
        let gone = pull.pull().await.map(drop).unwrap_err();
        assert_eq!(gone.kind(), ReplicateKind::Unreachable, "{gone}");
        assert!(run(["zfs", "list", &pull.replica()]).exit.success());
    });
}

#[test]
fn what_is_fetched_and_breaks_off_is_gone_on_with() {
    block_on(async {
        let (pull, cx) = (Pull::new(), context("cut"));
        let dataset = pull.target.dataset.as_str();
        pull.lab
            .back
            .files
            .write(&pull.target.mountpoint.join("noise"), &noise(3_000_000));
        pull.snapshot("one", 1).await;
        let cutting = Arc::new(Meddler::cutting(vec![2_000_000]));
        let store = NativeStore::new(name("local"), cutting, pull.lab.pool.store.places());
        let (puller, targets) = (pull.puller_with(&store), [pull.target.clone()]);
        let plan = puller.plan(&cx, &targets).await.unwrap();
        puller.execute(&cx, &plan).await.map(drop).unwrap_err();
        let token = property(&pull.replica(), "receive_resume_token");
        assert!(token.len() > 10, "{token}");
        // What it goes on with stays on the other host, whatever retention there wants.
        let one = format!("{dataset}@one");
        assert!(sure(["zfs", "holds", "-H", &one]).contains("reseed-send.box"));
        assert_eq!(pull.pull().await.unwrap(), 1);
        assert_eq!(Pair::snapshots(&pull.replica()), Pair::snapshots(dataset));
        assert_eq!(sure(["zfs", "holds", "-H", &one]), "");
    });
}

/// A virtual machine's disk, say.
#[test]
fn a_volume_is_fetched_and_kept_up_to_date() {
    block_on(async {
        let pull = Pull::new();
        let dataset = pull.target.dataset.as_str();
        sure(["zfs", "destroy", dataset]);
        let device = volume(dataset).await;
        for (at, (leaf, sent)) in [("one", 1), ("two", 2), ("three", 0)].into_iter().enumerate() {
            if sent > 0 {
                let line = format!("dd if=/dev/urandom of=/dev/{device} bs=1M count=1 seek={at} conv=fsync");
                sure(["sh", "-c", &line]);
                sure(["zfs", "snapshot", &format!("{dataset}@{leaf}")]);
            }
            if sent == 2 {
                sure(["zfs", "snapshot", &format!("{dataset}@more")]);
            }
            assert_eq!(pull.pull().await.unwrap(), sent, "{leaf}");
        }
        let replica = pull.replica();
        assert_eq!(Pair::snapshots(&replica), Pair::snapshots(dataset));
        for (wanted, value) in [
            ("type", "volume"),
            ("volsize", "16777216"),
            ("readonly", "on"),
            ("refreservation", "0"),
            ("reseed:origin", &*format!("box:{dataset}")),
        ] {
            assert_eq!(property(&replica, wanted), value, "{wanted}");
        }
        let referenced = |of: &str| property(&format!("{of}@two"), "logicalreferenced");
        assert_eq!(referenced(&replica), referenced(dataset));
        assert!(referenced(dataset).parse::<u64>().unwrap() > 2_000_000);
    });
}
