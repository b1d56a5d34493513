//! What a replication costs: processes, counted. What it takes is in `bench_replicate`, in the same lab.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use reseed_backend_zfs::zfs::{Location, Mapping, NativeReplicator, NativeStore};
use reseed_core::Replicator;
use reseed_core::exec::{Command, Runner as _, SystemRunner};
use reseed_core::names::DatasetName;
use reseed_core::point::Target;
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
            let mut send = Command::new("zfs").args(["send", "-p", "-L", "-c", "-e"]);
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
fn up_to_date_takes_one_listing() {
    block_on(async {
        let mut lab = Lab::new(8);
        lab.change();
        lab.send().await;
        lab.started();
        assert_eq!(lab.send().await, 0);
        assert_eq!(lab.started(), 1, "one listing, whatever the number of datasets");
        lab.change();
        assert_eq!(lab.send().await, 8);
        // Listings to plan and before sending, a pipe each, and the bookmarks of the pool together.
        assert_eq!(lab.started(), 1 + 1 + 2 * 8 + 1);
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
