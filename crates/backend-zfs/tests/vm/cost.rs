//! What a replication costs: processes, counted; and time against the bare commands, both measured in turn.

#![allow(clippy::print_stderr, reason = "what was measured is for a person to read")]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reseed_backend_zfs::zfs::{Location, Mapping, NativeReplicator, NativeStore};
use reseed_core::Replicator;
use reseed_core::clock::{Clock as _, SystemClock};
use reseed_core::exec::{Command, Runner as _, SystemRunner};
use reseed_core::names::DatasetName;
use reseed_core::point::Target;
use reseed_testkit::conformance::{block_on, context};
use reseed_testkit::files::Files as _;
use tokio_util::sync::CancellationToken;

use crate::lab::{Counting, Pool, name, sure};

/// A store with datasets, and two replicas of it in a second pool: ours, and one that bare commands feed.
struct Lab {
    pool: Pool,
    back: Pool,
    targets: Vec<Target>,
    counting: Arc<Counting>,
    ours: NativeReplicator,
    round: u32,
}

impl Lab {
    fn new(datasets: usize) -> Self {
        let (pool, back) = (Pool::new(), Pool::new());
        let targets: Vec<Target> = (0..datasets).map(|at| pool.target(&format!("t{at}"))).collect();
        for target in &targets {
            sure(["zfs", "create", target.dataset.as_str()]);
            pool.files.write(&target.mountpoint.join("data"), &[7; 50_000]);
        }
        for root in ["ours", "bare"] {
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
        let ours = NativeReplicator::new(name("second"), &store, Location::Local, Mapping::below(root));
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
    fn change(&mut self) {
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

    async fn send(&self) -> usize {
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
    async fn pipes(&self) {
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
    async fn lists(&self) {
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

fn median(mut of: Vec<Duration>) -> f64 {
    of.sort();
    of[of.len() / 2].as_secs_f64()
}

/// Medians of rounds in turn: ours, the bare pipes, and the listings before them.
async fn measured(datasets: usize, rounds: u32) -> (f64, f64, f64) {
    let mut lab = Lab::new(datasets);
    let clock = SystemClock::new();
    let (mut ours, mut pipes, mut lists) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        lab.change();
        // Who is first alternates.
        for who in [round % 2, (round + 1) % 2] {
            let began = clock.monotonic();
            if who == 0 {
                assert_eq!(lab.send().await, datasets);
                ours.push(clock.monotonic().saturating_sub(began));
            } else {
                lab.lists().await;
                lists.push(clock.monotonic().saturating_sub(began));
                let began = clock.monotonic();
                lab.pipes().await;
                pipes.push(clock.monotonic().saturating_sub(began));
            }
        }
    }
    // The first round was in full.
    for all in [&mut ours, &mut pipes, &mut lists] {
        all.remove(0);
    }
    (median(ours), median(pipes), median(lists))
}

#[test]
fn vm_alone_bench_one_increment() {
    block_on(async {
        let (ours, pipe, lists) = measured(1, 9).await;
        let one = ours / (pipe + lists);
        eprintln!(
            "one increment: ours {ours:.3} s, bare pipe {pipe:.3} s, with two listings {:.3} s: {one:.2}x of the bare commands, \
             {:.2}x of the pipe alone",
            pipe + lists,
            ours / pipe
        );
        assert!(one <= 1.3, "one increment: {one:.2}x of its bare commands");
    });
}

#[test]
fn vm_alone_bench_twenty_increments() {
    block_on(async {
        let (ours, pipes, lists) = measured(20, 3).await;
        let twenty = ours / pipes;
        eprintln!(
            "20 increments: ours {ours:.3} s, a serial loop of bare pipes {pipes:.3} s: {twenty:.2}x; with two listings {:.3} s: {:.2}x",
            pipes + lists,
            ours / (pipes + lists)
        );
        assert!(
            twenty <= 1.0,
            "20 increments: {twenty:.2}x of a serial loop of bare pipes"
        );
    });
}
