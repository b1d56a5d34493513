//! Whether libzfs_core is worth it: the same requests by it and by processes, in turn, in one run.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use libzetta::zfs::{SendFlags, ZfsEngine as _, ZfsLzc};
use reseed_backend_zfs::zfs::Lzc;
use reseed_core::SnapshotStore as _;
use reseed_core::clock::{Clock as _, SystemClock};
use reseed_core::exec::{Command, Runner as _, SystemRunner};
use reseed_core::names::SnapshotName;
use reseed_core::point::{Snapshot, Target};
use reseed_core::store::CreateSnapshots;
use reseed_testkit::conformance::{block_on, context, minute};
use reseed_testkit::files::Files as _;
use tokio_util::sync::CancellationToken;

use crate::bench_measure::{Goal, median, reached};
use crate::chain::noise;
use crate::lab::{Pool, as_nobody, sure};
use crate::vm_survive_many::many;

const DATASETS: usize = 20;
const ROUNDS: usize = 7;

/// Times of libzfs_core and of processes.
#[derive(Default)]
struct Times {
    lzc: Vec<Duration>,
    tool: Vec<Duration>,
}

impl Times {
    fn told(self, what: &str) -> bool {
        let (lzc, tool) = (median(self.lzc), median(self.tool));
        reached(
            &format!("lzc: {what}"),
            (lzc, tool),
            lzc / tool,
            Goal::AtMost(1.0),
        )
    }
}

async fn zfs(args: Vec<String>) {
    let done = SystemRunner::new()
        .run(&Command::new("zfs").args(args), &CancellationToken::new())
        .await
        .unwrap();
    assert!(done.exit.success(), "{}", done.stderr.text());
}

fn words<const N: usize>(fixed: [&str; N], names: impl IntoIterator<Item = String>) -> Vec<String> {
    fixed.into_iter().map(str::to_owned).chain(names).collect()
}

/// The bare requests: what a call costs, and what a process for the same costs.
#[test]
fn vm_alone_bench_lzc_calls() {
    block_on(async {
        let pool = Pool::new();
        let targets = many(&pool, DATASETS);
        let library = ZfsLzc::new().unwrap();
        let clock = SystemClock::new();
        let (mut snapshot, mut exist, mut one) = (Times::default(), Times::default(), Times::default());
        for round in 0..ROUNDS {
            let full = |name: &str| -> Vec<String> {
                let of = |target: &Target| format!("{}@{name}{round}", target.dataset);
                targets.iter().map(of).collect()
            };
            let paths: Vec<PathBuf> = full("lzc").into_iter().map(PathBuf::from).collect();
            let own = HashMap::from([("reseed:taken".to_owned(), "t".to_owned())]);
            let began = clock.monotonic();
            library.snapshot(&paths, Some(own)).unwrap();
            snapshot.lzc.push(clock.monotonic() - began);
            let began = clock.monotonic();
            zfs(words(["snapshot", "-o", "reseed:taken=t"], full("tool"))).await;
            snapshot.tool.push(clock.monotonic() - began);

            let datasets = || targets.iter().map(|target| target.dataset.to_string());
            let began = clock.monotonic();
            assert!(datasets().all(|name| library.exists(name).unwrap()));
            exist.lzc.push(clock.monotonic() - began);
            let began = clock.monotonic();
            zfs(words(["list", "-H", "-o", "name"], datasets())).await;
            exist.tool.push(clock.monotonic() - began);

            let began = clock.monotonic();
            assert!(library.exists(targets[0].dataset.as_str()).unwrap());
            one.lzc.push(clock.monotonic() - began);
            let began = clock.monotonic();
            zfs(words(["list", "-H", "-o", "name"], datasets().take(1))).await;
            one.tool.push(clock.monotonic() - began);
        }
        let all = [
            snapshot.told("snapshot of 20 datasets, the call alone"),
            exist.told("whether 20 datasets are there"),
            one.told("whether one dataset is there"),
        ];
        assert_eq!(all, [true; 3]);
    });
}

fn taken(store: String, targets: &[Target]) -> CreateSnapshots {
    CreateSnapshots {
        targets: targets.to_vec(),
        name: SnapshotName::new(store).unwrap(),
        taken_at: minute(1),
        measure: false,
        unseeded: false,
    }
}

/// The requests of a store, with the listings that they begin and end with. Root prunes by a channel program with either, so
/// that is measured of a user who isn't root.
#[test]
fn vm_alone_bench_lzc_store() {
    let pool = Pool::new();
    let targets = many(&pool, DATASETS);
    let with = pool.store.clone().in_process(Lzc::open().unwrap());
    sure([
        "zfs",
        "allow",
        "-e",
        "destroy,mount",
        &format!("{}/svc", pool.pool),
    ]);
    let clock = Arc::new(SystemClock::new());
    let (mut create, mut prune) = (Times::default(), Times::default());
    for round in 0..ROUNDS {
        for (store, lzc) in [(&with, true), (&pool.store, false)] {
            let request = taken(format!("{lzc}{round}"), &targets);
            let began = clock.monotonic();
            let made = block_on(store.create(&context("bench"), &request)).unwrap();
            let created = clock.monotonic() - began;
            let doomed: Vec<_> = made.iter().map(Snapshot::reference).collect();
            let (store, timer) = (store.clone(), Arc::clone(&clock));
            let (pruned, removed) = as_nobody(move || {
                let began = timer.monotonic();
                let pruned = block_on(store.prune(&context("bench"), &doomed)).unwrap();
                (pruned, timer.monotonic() - began)
            });
            assert!(pruned.len() == DATASETS && pruned.iter().all(|one| one.kept.is_none()));
            let (creates, prunes) = match lzc {
                true => (&mut create.lzc, &mut prune.lzc),
                false => (&mut create.tool, &mut prune.tool),
            };
            creates.push(created);
            prunes.push(removed);
        }
    }
    let all = [
        create.told("the store's snapshot of 20 datasets"),
        prune.told("the store's pruning of one snapshot of each of 20 datasets, as not root"),
    ];
    assert_eq!(all, [true; 2]);
}

/// A stream to a descriptor, small and large: what the store leaves to the process, and what that costs.
#[test]
fn vm_alone_bench_lzc_send() {
    block_on(async {
        let pool = Pool::new();
        let library = ZfsLzc::new().unwrap();
        let clock = SystemClock::new();
        let flags = SendFlags::LZC_SEND_FLAG_LARGE_BLOCK
            | SendFlags::LZC_SEND_FLAG_COMPRESS
            | SendFlags::LZC_SEND_FLAG_EMBED_DATA;
        for (what, bytes) in [("64 KiB", 64 << 10), ("128 MiB", 128 << 20)] {
            let target = pool.target(&format!("s{bytes}"));
            sure(["zfs", "create", target.dataset.as_str()]);
            pool.files.write(&target.mountpoint.join("data"), &noise(bytes));
            let full = format!("{}@one", target.dataset);
            sure(["zfs", "snapshot", &full]);
            sure(["zpool", "sync"]);
            let mut times = Times::default();
            for _ in 0..ROUNDS {
                let line = format!("exec zfs send -L -c -e '{full}' >/dev/null");
                let began = clock.monotonic();
                sure(["sh", "-c", &line]);
                times.tool.push(clock.monotonic() - began);
                let sink = File::options().write(true).open("/dev/null").unwrap();
                let began = clock.monotonic();
                library.send_full(full.as_str(), sink, flags).unwrap();
                times.lzc.push(clock.monotonic() - began);
            }
            if bytes > 1 << 20 {
                // The one way to end it from outside: whoever reads goes away.
                let (reader, writer) = std::io::pipe().unwrap();
                let (library, full) = (library.clone(), full.clone());
                let sending = std::thread::spawn(move || library.send_full(full.as_str(), writer, flags));
                std::io::Read::read_exact(&mut &reader, &mut [0; 4096]).unwrap();
                drop(reader);
                assert!(sending.join().unwrap().is_err());
            }
            // No goal: it is measured to know what isn't taken.
            times.told(&format!("a stream of {what} to a descriptor"));
        }
    });
}
