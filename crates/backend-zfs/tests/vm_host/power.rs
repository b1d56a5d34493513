//! A restore whose machine loses its power: while it receives, and around each step of the promotion.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use reseed_backend_zfs::datasets::{self, Layout};
use reseed_core::exec::{Command, ExecError, Output, PipeOutput, Runner, Streaming, SystemRunner};
use reseed_core::ops::{self, At, RestoreOptions};
use reseed_core::point::Target;
use reseed_core::preseed::{Outcome, ServiceReport};
use reseed_core::service::Service;
use reseed_core::store::Condition;
use reseed_testkit::conformance::{block_on, context};
use reseed_testkit::files::{Files as _, Listing, RealFiles, assert_same};
use reseed_testkit::vm::{Config, Disk, GuestCommand, Machine, guest};
use tokio_util::sync::CancellationToken;

use crate::chain::Chain;
use crate::lab::{Pool, run, sure};

/// Where the power is cut, a dataset each: in front of or behind the first command that begins so. Every other place where a
/// program may die is in `crash.rs`, without a boot for each.
const CUTS: &[(&str, &[&str], bool)] = &[
    ("receive", &[], true),
    ("recorded", &["set", "canmount=noauto"], true),
    ("renamed", &["rename"], true),
    ("unmarked", &["inherit"], false),
    // Over live data, between the two renames.
    ("aside", &["rename"], true),
];
const BYTES: usize = 1_000_000;

fn targets(pool: &Pool) -> Vec<Target> {
    CUTS.iter().map(|(name, ..)| pool.target(name)).collect()
}

/// Says that a place was reached, and goes no further.
#[derive(Debug)]
struct Reaching {
    inner: SystemRunner,
    at: usize,
    reached: AtomicBool,
}

impl Reaching {
    async fn reached(&self) -> ! {
        self.reached.store(true, Ordering::SeqCst);
        guest::mark(&format!("cut {}", self.at)).unwrap();
        std::future::pending().await
    }

    fn is_it(&self, command: &Command) -> bool {
        let words: Vec<_> = command
            .arguments()
            .iter()
            .map(|word| word.to_string_lossy())
            .collect();
        let (_, wanted, _) = CUTS[self.at];
        // Properties come in any order behind `set`.
        !wanted.is_empty()
            && words[0] == wanted[0]
            && wanted[1..].iter().all(|one| words.iter().any(|word| word == one))
    }
}

#[async_trait]
impl Runner for Reaching {
    async fn run(&self, command: &Command, cancel: &CancellationToken) -> Result<Output, ExecError> {
        if !self.is_it(command) {
            return self.inner.run(command, cancel).await;
        }
        if CUTS[self.at].2 {
            self.inner.run(command, cancel).await?;
        }
        self.reached().await
    }
    async fn pipe(&self, stages: &[Command], cancel: &CancellationToken) -> Result<PipeOutput, ExecError> {
        if CUTS[self.at].0 != "receive" {
            return self.inner.pipe(stages, cancel).await;
        }
        // Half of it arrives and is written back; the power goes while the rest is waited for.
        let line = format!(
            "head -c {}; sleep 2; zpool sync; echo mark cut {} > /dev/ttyS1; sleep 1000",
            BYTES / 2,
            self.at
        );
        let mut stages = stages.to_vec();
        stages.insert(1, Command::new("sh").args(["-c", &line]));
        self.inner.pipe(&stages, cancel).await
    }
    async fn stream(&self, command: &Command, cancel: &CancellationToken) -> Result<Streaming, ExecError> {
        self.inner.stream(command, cancel).await
    }
}

/// The pools on the machine's disks; made the first time.
fn chain(first: bool) -> Chain {
    let pool = |name: &str, disk: &str| Pool::on_disk(name, disk, first);
    let (live, back) = (pool("tank", "/dev/vda1"), pool("back", "/dev/vdb1"));
    Chain::over(live, vec![back])
}

/// Makes, replicates and loses everything.
async fn prepare() {
    let chain = chain(true);
    let targets = targets(&chain.pool);
    for target in &targets {
        sure(["zfs", "create", target.dataset.as_str()]);
        chain.fill(target, BYTES);
        crate::source_lab::snapshot(&chain.pool, target, "one", 1, true).await;
    }
    chain.replicate(&targets).await;
    for (target, (which, ..)) in targets.iter().zip(CUTS) {
        match *which {
            "aside" => RealFiles.write(&target.mountpoint.join("live"), b"written since"),
            _ => chain.lose(target),
        }
    }
    sure(["zpool", "sync"]);
    std::mem::forget(chain);
}

/// Where the machine can't reach: what is expected is made anew.
fn expected() -> Listing {
    let dir = PathBuf::from("/tmp/expected");
    std::fs::create_dir_all(&dir).unwrap();
    crate::chain::fill(&dir, BYTES);
    RealFiles.list(&dir)
}

/// Looks at what the last cut left, finishes it, and runs into the next one.
async fn step(at: usize) {
    let chain = chain(false);
    let targets = targets(&chain.pool);
    println!("the pools are there");
    if let Some(before) = at.checked_sub(1) {
        converges(&chain, &targets[before], CUTS[before].0).await;
    }
    if at < CUTS.len() {
        let runner = Arc::new(Reaching {
            inner: SystemRunner::new(),
            at,
            reached: AtomicBool::new(false),
        });
        let service = chain.service_with(&[&targets[at]], runner.clone());
        let report = match CUTS[at].0 {
            "aside" => restored(&chain, "cut", &service).await,
            _ => chain.preseed(&format!("cut{at}"), &service).await,
        };
        panic!("it ended before the power was cut: {}", report.summary());
    }
    // All the others are as they were brought back, after all those cuts.
    for target in &targets {
        assert_same(
            &expected(),
            &RealFiles.list(&target.mountpoint),
            target.dataset.as_str(),
        );
    }
    std::mem::forget(chain);
}

/// The newest state of the replica, in the place of what is live.
async fn restored(chain: &Chain, run: &str, service: &Service) -> ServiceReport {
    let options = RestoreOptions {
        from: None,
        at: At::Newest,
        set_aside: true,
    };
    ops::restore(&chain.engine, &context(run), service, &options)
        .await
        .unwrap()
}

/// Nothing stands there, and what is declared or started makes nothing of that, until the same restore goes on.
async fn goes_on(chain: &Chain, target: &Target) {
    let found = chain.look(target).await;
    assert!(found.cut_off().is_some(), "{found:?}");
    let layout = Layout::new(Arc::new(SystemRunner::new()));
    let wanted = BTreeMap::from([(target.dataset.clone(), BTreeMap::new())]);
    let actual = layout.read(&context("apply")).await.unwrap();
    let plan = datasets::plan(&wanted, &actual);
    assert_eq!((plan.steps.len(), plan.obstacles.len()), (0, 1), "{plan}");
    // As an older one did.
    sure(["zfs", "create", target.dataset.as_str()]);
    let service = chain.service(&[target]);
    let report = chain.preseed("start", &service).await;
    assert!(
        matches!(report.outcome, Outcome::Blocked { .. }),
        "{}",
        report.summary()
    );
    let report = restored(chain, "again", &service).await;
    assert_eq!(report.outcome, Outcome::Restored, "{}", report.summary());
    let kept = sure([
        "zfs",
        "list",
        "-Ho",
        "name",
        "-r",
        &format!("{}/svc", chain.pool.pool),
    ]);
    let asides = kept.lines().filter(|name| name.contains("/.reseed-aside:aside:"));
    let live = asides.filter(|name| {
        // By a reboot it may be mounted, at a place of its own.
        let _ = run(["zfs", "unmount", name]);
        chain.pool.read(name).keys().any(|path| path.ends_with("live"))
    });
    assert_eq!(live.count(), 1, "{kept}");
}

async fn converges(chain: &Chain, target: &Target, which: &str) {
    if which == "aside" {
        goes_on(chain, target).await;
    }
    let found = chain.look(target).await;
    println!(
        "{which}: {:?}, marker {:?}, leftover {:?}",
        found.condition, found.marker, found.leftover
    );
    match which {
        "receive" | "recorded" => assert_eq!(found.condition, Condition::Absent, "{which}"),
        _ => assert!(
            found.leftover.as_ref().is_some_and(|l| l.promoted) || found.marker.is_some(),
            "{which}"
        ),
    }
    let service = chain.service(&[target]);
    let mut outcome = Outcome::Interrupted;
    // The first one finishes what stands at its place already; a second one changes nothing.
    for run in ["after", "again"] {
        let report = chain.preseed(run, &service).await;
        println!("{which}: {}", report.summary());
        assert!(report.outcome.may_start(), "{which}: {}", report.summary());
        outcome = report.outcome;
    }
    assert_eq!(outcome, Outcome::DataPresent, "{which}");
    let found = chain.look(target).await;
    assert_eq!(
        (found.condition, found.leftover),
        (Condition::Populated, None),
        "{which}"
    );
    assert!(found.marker.is_some(), "{which}");
    assert_same(&expected(), &RealFiles.list(&target.mountpoint), which);
}

async fn from_the_host() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut config = Config::new(dir.path().join("machine"));
    for disk in ["live", "back"] {
        config
            .disks
            .push(Disk::create(dir.path().join(disk), 512).unwrap());
    }
    let me = std::env::current_exe().unwrap();
    config.shown.push(me.parent().unwrap().to_owned());
    let command = |step: &str| {
        let name = "power::vm_a_power_cut_in_a_restore_loses_nothing";
        GuestCommand::new([
            me.as_os_str(),
            "--exact".as_ref(),
            name.as_ref(),
            "--nocapture".as_ref(),
        ])
        .env("RESEED_GUEST_STEP", step)
        .env("TMPDIR", "/tmp")
        .limit(Duration::from_secs(250))
    };
    let mut machine = Machine::boot(&config).await.unwrap();
    machine
        .run(&command("prepare"))
        .await
        .unwrap()
        .require_success()
        .unwrap();
    for at in 0..CUTS.len() {
        let running = machine.start(&command(&at.to_string())).await.unwrap();
        let cut = machine
            .wait_for_mark(&format!("cut {at}"), Duration::from_secs(200))
            .await;
        if let Err(error) = cut {
            let said = machine.finished(running).await;
            panic!("{error}\n{said:?}");
        }
        machine.cut_power().await.unwrap();
        machine = Machine::boot(&config).await.unwrap();
    }
    let last = machine.run(&command(&CUTS.len().to_string())).await.unwrap();
    println!("{}", last.require_success().unwrap().stdout);
    machine.cut_power().await.unwrap();
}

#[test]
fn vm_a_power_cut_in_a_restore_loses_nothing() {
    block_on(async {
        match std::env::var("RESEED_GUEST_STEP").as_deref() {
            Err(_) => from_the_host().await,
            Ok("prepare") => prepare().await,
            Ok(at) => step(at.parse().unwrap()).await,
        }
    });
}
