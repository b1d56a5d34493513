//! What a replication costs: processes, counted. What it takes is in `bench_replicate`, in the same lab.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use reseed_backend_zfs::zfs::{Location, Mapping, NativeReplicator, NativeStore};
use reseed_core::engine::Engine;
use reseed_core::exec::{Command, Runner as _, SystemRunner};
use reseed_core::names::{DatasetName, ServiceName};
use reseed_core::ops::{self, OpOutcome};
use reseed_core::point::Target;
use reseed_core::service::{Policy, Service};
use reseed_core::{Replicator, SnapshotStore};
use reseed_testkit::conformance::{block_on, context};
use reseed_testkit::files::Files as _;
use tokio_util::sync::CancellationToken;

use crate::lab::{Counting, Pool, name, sure};

/// A store with datasets, and two replicas of it in a second pool: ours, and one that bare commands feed.
pub(crate) struct Lab {
    pub(crate) pool: Pool,
    pub(crate) back: Pool,
    pub(crate) targets: Vec<Target>,
    counting: Arc<Counting>,
    store: NativeStore,
    ours: NativeReplicator,
    round: u32,
}

impl Lab {
    pub(crate) fn new(datasets: usize) -> Self {
        let (pool, back) = (Pool::new(), Pool::new());
        let targets: Vec<Target> = (0..datasets).map(|at| pool.target(&format!("t{at}"))).collect();
        for target in &targets {
            sure(["zfs", "create", target.dataset.as_str()]);
            pool.files.write(&target.mountpoint.join("data"), &[7; 50_000]);
        }
        for root in ["ours", "bare", "syncoid"] {
            sure([
                "zfs",
                "create",
                "-o",
                "canmount=off",
                &format!("{}/{root}", back.pool),
            ]);
        }
        let counting = Arc::new(Counting::default());
        let store = NativeStore::new(name("local"), counting.clone(), pool.store.places());
        let root = DatasetName::new(format!("{}/ours", back.pool)).unwrap();
        let ours = NativeReplicator::new(name("second"), &store, Location::Local, Mapping::below(root))
            .of_host("lab");
        Self {
            pool,
            back,
            targets,
            counting,
            store,
            ours,
            round: 0,
        }
    }

    /// Something new in every dataset, with a snapshot.
    pub(crate) fn change(&mut self) {
        self.round += 1;
        for target in &self.targets {
            let data = self.round.to_le_bytes().repeat(10_000);
            self.pool.files.write(&target.mountpoint.join("data"), &data);
        }
        let names = self
            .targets
            .iter()
            .map(|target| format!("{}@s{}", target.dataset, self.round));
        let words: Vec<String> = ["zfs".to_owned(), "snapshot".to_owned()]
            .into_iter()
            .chain(names)
            .collect();
        let line = words.join(" ");
        sure(["sh", "-c", &line]);
        sure(["zpool", "sync", &self.pool.pool, &self.back.pool]);
    }

    pub(crate) async fn send(&self) -> usize {
        let cx = context("cost");
        let plan = self.ours.plan(&cx, &self.targets).await.unwrap();
        let report = self.ours.execute(&cx, &plan).await.unwrap();
        assert_eq!(report.failed, []);
        report.sent.len()
    }

    fn started(&self) -> usize {
        self.counting.started.swap(0, Ordering::SeqCst)
    }

    /// The same by hand: for each dataset a pipe, one after the other.
    pub(crate) async fn pipes(&self) {
        let (runner, never) = (SystemRunner::new(), CancellationToken::new());
        for target in &self.targets {
            let leaf = target.dataset.as_str().rsplit('/').next().unwrap();
            let into = format!("{}/bare/{leaf}", self.back.pool);
            let mut send = Command::new("zfs").args(["send", "-p", "-L", "-c"]);
            if self.round > 1 {
                send = send.args(["-I".to_owned(), format!("@s{}", self.round - 1)]);
            }
            let stages = [
                send.arg(format!("{}@s{}", target.dataset, self.round)),
                Command::new("zfs").args([
                    "receive",
                    "-s",
                    "-u",
                    "-x",
                    "mountpoint",
                    "-o",
                    "canmount=noauto",
                    "-o",
                    "readonly=on",
                    &into,
                ]),
            ];
            runner
                .pipe(&stages, &never)
                .await
                .unwrap()
                .require_success()
                .unwrap();
        }
    }

    /// What has to be asked before a pipe can be typed: what is there, and what is here.
    pub(crate) async fn lists(&self) {
        let (runner, never) = (SystemRunner::new(), CancellationToken::new());
        for of in [
            format!("{}/svc", self.pool.pool),
            format!("{}/bare", self.back.pool),
        ] {
            let list = Command::new("zfs").args([
                "list",
                "-Hp",
                "-r",
                "-t",
                "all",
                "-o",
                "name,guid,createtxg",
                &of,
            ]);
            runner
                .run(&list, &never)
                .await
                .unwrap()
                .require_success()
                .unwrap();
        }
    }
}

#[test]
fn up_to_date_takes_a_listing_of_either_side() {
    block_on(async {
        let mut lab = Lab::new(8);
        lab.change();
        lab.send().await;
        lab.started();
        assert_eq!(lab.send().await, 0);
        assert_eq!(lab.started(), 2, "two listings, whatever the number of datasets");
        lab.change();
        assert_eq!(lab.send().await, 8);
        // Listings to plan and before sending, a pipe each, and the bookmarks of the pool together.
        assert_eq!(lab.started(), 2 + 1 + 2 * 8 + 1);
    });
}

/// The same datasets as services of their own, as `reseed replicate --all` has them.
fn services(lab: &Lab) -> Vec<Service> {
    let (store, ours): (Arc<dyn SnapshotStore>, Arc<dyn Replicator>) =
        (Arc::new(lab.store.clone()), Arc::new(lab.ours.clone()));
    let service = |(at, target): (usize, &Target)| Service {
        name: ServiceName::new(format!("s{at}")).unwrap(),
        targets: vec![target.clone()],
        store: Arc::clone(&store),
        sources: Vec::new(),
        replicators: vec![Arc::clone(&ours)],
        offsite: Vec::new(),
        policy: Policy::default(),
    };
    lab.targets.iter().enumerate().map(service).collect()
}

async fn replicate_all(lab: &Lab, engine: &Engine, services: &[Service]) -> Vec<OpOutcome> {
    let cx = context("all");
    let mut outcomes = Vec::new();
    let ahead = ops::replicate_ahead(engine, &cx, services).await;
    for (service, ahead) in services.iter().zip(ahead) {
        let reports = ops::replicate_planned(engine, &cx, service, ahead).await;
        assert_eq!(reports[0].warnings, Vec::<String>::new());
        outcomes.extend(reports.iter().map(|report| report.outcome));
    }
    assert_eq!(outcomes.len(), lab.targets.len());
    outcomes
}

#[test]
fn services_that_are_up_to_date_take_two_listings_together() {
    block_on(async {
        let mut lab = Lab::new(8);
        let (services, engine) = (services(&lab), crate::chain::engine(&lab.pool.root));
        lab.change();
        replicate_all(&lab, &engine, &services).await;
        lab.started();
        let outcomes = replicate_all(&lab, &engine, &services).await;
        assert!(outcomes.iter().all(|outcome| *outcome == OpOutcome::UpToDate));
        assert_eq!(lab.started(), 2, "two listings, whatever the number of services");
        // Of what somebody else holds it is asked once whose that is.
        for target in &lab.targets {
            sure(["zfs", "hold", "mine", &format!("{}@s1", target.dataset)]);
        }
        replicate_all(&lab, &engine, &services).await;
        assert_eq!(lab.started(), 3);
        for target in &lab.targets {
            sure(["zfs", "release", "mine", &format!("{}@s1", target.dataset)]);
        }
        lab.change();
        let outcomes = replicate_all(&lab, &engine, &services).await;
        assert!(outcomes.iter().all(|outcome| *outcome == OpOutcome::Ok));
        // Two listings together; each then is listed again under its lock, has a bookmark made, and is sent.
        assert_eq!(lab.started(), 2 + 8 * (1 + 1 + 2));
    });
}

#[test]
fn an_increment_of_a_service_costs_no_more_than_the_replicators() {
    block_on(async {
        let mut lab = Lab::new(1);
        let (services, engine) = (services(&lab), crate::chain::engine(&lab.pool.root));
        lab.change();
        ops::replicate(&engine, &context("first"), &services[0]).await;
        lab.change();
        lab.started();
        let reports = ops::replicate(&engine, &context("next"), &services[0]).await;
        assert_eq!(reports[0].outcome, OpOutcome::Ok, "{reports:?}");
        // One listing, for what is sent right after it was planned isn't checked again; a pipe, and the bookmark.
        assert_eq!(lab.started(), 1 + 2 + 1);
    });
}

#[test]
fn what_is_sent_in_full_or_in_several_is_held_and_let_go_by_one_process_each() {
    block_on(async {
        let mut lab = Lab::new(4);
        lab.change();
        lab.started();
        assert_eq!(lab.send().await, 4);
        // Two listings, the bookmarks, hold and release, a pipe each, and for each whether the datasets above
        // its replica are there, and encrypted; two may make both of them at once.
        let full = lab.started();
        assert!(full <= 2 + 1 + 2 + 2 * 4 + 4 + 4 + 4, "{full}");
        lab.change();
        lab.change();
        assert_eq!(lab.send().await, 8);
        assert_eq!(lab.started(), 2 + 1 + 2 + 2 * 4);
    });
}

#[test]
fn one_increment_takes_its_pipe_two_listings_and_a_bookmark() {
    block_on(async {
        let mut lab = Lab::new(1);
        lab.change();
        lab.send().await;
        lab.change();
        lab.started();
        assert_eq!(lab.send().await, 1);
        assert_eq!(lab.started(), 1 + 1 + 2 + 1);
    });
}
