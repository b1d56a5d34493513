//! What the core makes of a service's data over several runs, in a world: what was a start without data stays known, and what came back
//! for good is.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod slow;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::tz::{Offset, TimeZone};
use reseed_core::clock::Clock;
use reseed_core::entropy::SplitMix;
use reseed_core::error::{OpError, OpKind};
use reseed_core::journal::{Entry, Journal as _, MemoryJournal, ServiceRecord};
use reseed_core::names::{HoldTag, ServiceName, SnapshotName, SourceName};
use reseed_core::ops::{self, At, RestoreOptions};
use reseed_core::point::{Fingerprint, MarkerState, Snapshot, SnapshotRef, Target};
use reseed_core::preseed::{Outcome, ServiceReport, plan, preseed};
use reseed_core::retention::Policy as Retention;
use reseed_core::retention::sanoid::{Kind, Policy as Rules};
use reseed_core::service::{Policy, Prefer};
use reseed_core::store::Delivery;
use reseed_core::verify::Validator;
use reseed_core::{Context, Engine, OffsiteRepo as _, Replicator as _, RestoreSource, Service, Verifier};
use reseed_testkit::conformance::context;
use reseed_testkit::files::Files as _;
use reseed_testkit::world::{
    Link, MemOffsite, MemReplicator, MemSource, MemStore, MemVerifier, RepoFault, SimClock, SourcePlace,
    World,
};

const DATA: &str = "tank/app";

/// A verifier that may take longer than anybody has.
#[derive(Debug)]
struct Look {
    inner: MemVerifier,
    /// Seconds.
    takes: AtomicU64,
    clock: Arc<SimClock>,
}

/// Longer than anybody has.
const FOR_EVER: u64 = u64::MAX;

#[async_trait]
impl Verifier for Look {
    async fn measure(&self, cx: &Context, root: &Path) -> Result<Fingerprint, OpError> {
        let takes = match self.takes.load(Ordering::SeqCst) {
            FOR_EVER => None,
            seconds => Some(Duration::from_secs(seconds)),
        };
        tokio::select! {
            () = cx.cancel.cancelled() => return Err(OpError::new(OpKind::Cancelled, "it was ended")),
            () = self.clock.sleep(takes.unwrap_or(Duration::MAX)), if takes != Some(Duration::ZERO) => {}
            () = std::future::ready(()), if takes == Some(Duration::ZERO) => {}
        }
        self.inner.measure(cx, root).await
    }
    async fn make_scratch(&self, cx: &Context, path: &Path) -> Result<(), OpError> {
        self.inner.make_scratch(cx, path).await
    }
    async fn validate(&self, cx: &Context, root: &Path, validator: &Validator) -> Result<(), OpError> {
        self.inner.validate(cx, root, validator).await
    }
}

struct Lab {
    world: World,
    clock: Arc<SimClock>,
    journal: Arc<MemoryJournal>,
    look: Arc<Look>,
    replica: MemReplicator,
    engine: Engine,
    service: Service,
}

fn source(name: &str) -> SourceName {
    SourceName::new(name).unwrap()
}

impl Lab {
    /// A service whose chain is its store and a replica.
    fn new() -> Self {
        let world = World::new();
        let clock = Arc::new(SimClock::new("2026-11-01T00:00:00Z".parse().unwrap()));
        let journal = Arc::new(MemoryJournal::new());
        let look = Arc::new(Look {
            inner: MemVerifier::new(&world),
            takes: AtomicU64::new(0),
            clock: clock.clone(),
        });
        let replica = MemReplicator::new(&world, source("nas"));
        let local = MemSource::new(&world, source("local"), SourcePlace::Local, Delivery::Native);
        let copy = MemSource::new(&world, source("nas"), SourcePlace::Replica, Delivery::Native);
        let target = World::target(DATA);
        world.make(&target);
        Self {
            engine: Engine {
                clock: clock.clone(),
                entropy: Arc::new(SplitMix::seeded(1)),
                verifier: look.clone(),
                journal: journal.clone(),
                host: "lab".to_owned(),
            },
            service: Service {
                name: ServiceName::new("app").unwrap(),
                targets: vec![target],
                store: MemStore::new(&world).shared(),
                sources: vec![local.shared(), copy.shared()],
                replicators: vec![replica.clone().shared()],
                offsite: Vec::new(),
                policy: Policy::default(),
            },
            world,
            clock,
            journal,
            look,
            replica,
        }
    }

    fn target(&self) -> &Target {
        &self.service.targets[0]
    }

    fn write(&self, text: &str) {
        let path = self.target().mountpoint.join("file");
        self.world.write(&path, text.as_bytes());
    }

    fn lose(&self, with_snapshots: bool) {
        self.world.destroy(&self.target().dataset, with_snapshots);
    }

    async fn snapshot(&self, name: &str) {
        self.clock.jump(3600);
        let name = SnapshotName::new(name).unwrap();
        let report = ops::snapshot(&self.engine, &context("snap"), &self.service, &name).await;
        assert!(report.error.is_none(), "{report:?}");
    }

    async fn send(&self) {
        let cx = context("send");
        let plan = self.replica.plan(&cx, &self.service.targets).await.unwrap();
        self.replica.execute(&cx, &plan).await.unwrap();
    }

    /// A repository that the service is backed up to; as a source of it.
    async fn repository(&mut self) -> Arc<dyn RestoreSource> {
        let repo = MemOffsite::new(&self.world, source("b2"), "secret");
        repo.init(&context("init")).await.unwrap();
        self.service.offsite = vec![repo.clone().shared()];
        Arc::new(repo)
    }

    async fn back_up(&self) {
        let stored = ops::backup(&self.engine, &context("backup"), &self.service).await;
        assert!(stored.iter().all(|report| report.error.is_none()), "{stored:?}");
    }

    async fn preseed(&self) -> ServiceReport {
        self.clock.jump(60);
        let since = self.clock.monotonic();
        preseed(&self.engine, &context("boot"), &[&self.service], since)
            .await
            .remove(0)
    }

    async fn restore(&self, at: At, set_aside: bool) -> ServiceReport {
        let options = RestoreOptions {
            from: None,
            at,
            set_aside,
        };
        let cx = context("restore");
        ops::restore(&self.engine, &cx, &self.service, &options)
            .await
            .unwrap()
    }

    /// It was protected. Then its source can't be reached, and the data is gone with its snapshots: it starts without.
    async fn started_empty(&self) {
        self.write("all of it");
        self.snapshot("good").await;
        self.send().await;
        self.world.replica_link(&source("nas"), Link::Down);
        self.lose(true);
        let report = self.preseed().await;
        assert!(
            matches!(report.outcome, Outcome::StartedEmpty { .. }),
            "{report:?}"
        );
    }

    fn is_unseeded(&self) -> bool {
        let record = self.journal.service(&self.service.name).unwrap();
        record.is_some_and(|record| record.unseeded.is_some())
    }

    async fn newest_is_unseeded(&self) -> bool {
        self.snapshots().await.last().unwrap().unseeded
    }

    async fn snapshots(&self) -> Vec<Snapshot> {
        let (store, targets) = (&self.service.store, &self.service.targets);
        store.list(&context("list"), targets).await.unwrap()
    }

    fn text(&self) -> Option<Vec<u8>> {
        let standing = self.world.standing(&self.target().dataset)?;
        let bytes = standing.tree.bytes(Path::new("file"))?;
        Some(bytes.to_vec())
    }
}

fn unhindered(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test);
}

/// It is lost again while the good sources are still away, and what comes back is what it was then.
#[test]
fn what_was_taken_while_unseeded_makes_nothing_seeded_when_it_comes_back() {
    unhindered(async {
        let lab = Lab::new();
        lab.started_empty().await;
        lab.write("little");
        lab.snapshot("poor").await;
        assert!(lab.newest_is_unseeded().await);
        lab.lose(false);
        let report = lab.preseed().await;
        assert_eq!(report.outcome, Outcome::Restored, "{report:?}");
        assert_eq!(lab.text().as_deref(), Some(&b"little"[..]));
        assert!(lab.is_unseeded(), "it is still what a start without data left");
        let marker = lab.world.standing(&lab.target().dataset).unwrap().marker.unwrap();
        assert!(
            marker.is_unseeded() && matches!(marker.state, MarkerState::Restored { .. }),
            "{marker:?}"
        );
        let pruned = ops::prune_plan(
            &lab.engine,
            &context("prune"),
            &lab.service,
            &Retention::Sanoid(Rules::default()),
        )
        .await;
        assert_eq!(pruned.unwrap_err().kind(), OpKind::Guarded);
        lab.snapshot("poor-too").await;
        assert!(lab.newest_is_unseeded().await);
        // Present as it is, it stays so.
        assert_eq!(lab.preseed().await.outcome, Outcome::DataPresent);
        assert!(lab.is_unseeded());
    });
}

/// The restore came to no end of it: the journal still has the last word but one.
#[test]
fn what_came_back_for_good_is_no_longer_unseeded_whoever_was_cut_off() {
    unhindered(async {
        let lab = Lab::new();
        lab.started_empty().await;
        let why = lab.journal.service(&lab.service.name).unwrap().unwrap();
        lab.world.replica_link(&source("nas"), Link::Up);
        lab.lose(true);
        assert_eq!(lab.preseed().await.outcome, Outcome::Restored);
        let tag = HoldTag::new("reseed-unseeded").unwrap();
        let all: Vec<SnapshotRef> = lab.snapshots().await.iter().map(Snapshot::reference).collect();
        let store = &lab.service.store;
        store
            .hold(&context("hold"), &all, &tag, reseed_core::store::HoldChange::Add)
            .await
            .unwrap();
        lab.journal.write(vec![Entry::Service(why.clone())]);
        assert!(lab.is_unseeded());
        assert_eq!(lab.preseed().await.outcome, Outcome::DataPresent);
        assert!(!lab.is_unseeded());
        let held = lab.snapshots().await;
        assert!(held.iter().all(|one| !one.holds.contains(&tag)), "{held:?}");
        lab.snapshot("next").await;
        assert!(!lab.newest_is_unseeded().await);
        // What the journal heard later than the marker counts.
        let later = ServiceRecord {
            since: lab.clock.now(),
            ..why
        };
        lab.journal.write(vec![Entry::Service(later)]);
        assert_eq!(lab.preseed().await.outcome, Outcome::DataPresent);
        assert!(lab.is_unseeded());
    });
}

/// One file could not be read when it was stored. Where nothing else is left, all else comes back, and it is told.
#[test]
fn a_part_is_better_than_nothing_and_is_told() {
    unhindered(async {
        let mut lab = Lab::new();
        lab.service.sources = vec![lab.repository().await];
        lab.write("most of it");
        let rotten = lab.target().mountpoint.join("rotten");
        lab.world.write(&rotten, b"gone");
        lab.snapshot("good").await;
        lab.world.break_repo(
            &source("b2"),
            RepoFault::Unreadable("/mem/exposed/tank/app/rotten".into()),
        );
        let stored = ops::backup(&lab.engine, &context("backup"), &lab.service).await;
        assert_eq!(stored[0].outcome, ops::OpOutcome::Partial, "{stored:?}");
        lab.lose(false);
        let report = lab.preseed().await;
        assert_eq!(report.outcome, Outcome::Restored, "{report:?}");
        assert_eq!(lab.text().as_deref(), Some(&b"most of it"[..]));
        let told = |words: &str| report.warnings.iter().any(|warning| warning.contains(words));
        assert!(told("lacks something") && told("not complete"), "{report:?}");
        // Where another source has all of it, that comes back, whichever is first.
        let whole = MemSource::new(&lab.world, source("local"), SourcePlace::Local, Delivery::Native);
        lab.service.sources.push(whole.shared());
        lab.lose(false);
        let report = lab.preseed().await;
        assert_eq!(report.outcome, Outcome::Restored, "{report:?}");
        assert_eq!(report.source, Some(source("local")), "{report:?}");
    });
}

/// One of a service's datasets is empty, and meant to be.
#[test]
fn what_was_adopted_as_empty_comes_back_with_the_others_and_stays() {
    unhindered(async {
        let mut lab = Lab::new();
        let more = World::target("tank/more");
        lab.world.make(&more);
        lab.service.targets.push(more.clone());
        lab.write("all of it");
        let adopted = ops::adopt(&lab.engine, &context("adopt"), &lab.service).await;
        assert!(adopted.error.is_none(), "{adopted:?}");
        lab.snapshot("good").await;
        lab.send().await;
        lab.lose(true);
        lab.world.destroy(&more.dataset, true);
        let report = lab.preseed().await;
        assert_eq!(report.outcome, Outcome::Restored, "{report:?}");
        assert_eq!(lab.text().as_deref(), Some(&b"all of it"[..]));
        let report = lab.preseed().await;
        assert_eq!(report.outcome, Outcome::DataPresent, "{report:?}");
        lab.snapshot("next").await;
    });
}

/// What is there is what a start without data left, whatever else is new.
#[test]
fn a_dataset_more_makes_no_unseeded_service_seeded() {
    unhindered(async {
        let mut lab = Lab::new();
        lab.started_empty().await;
        lab.write("little");
        lab.world.replica_link(&source("nas"), Link::Up);
        lab.service.targets.push(World::target("tank/more"));
        let report = lab.preseed().await;
        assert_eq!(report.outcome, Outcome::FirstStart, "{report:?}");
        assert!(lab.is_unseeded());
    });
}

/// There is data, and nothing is wrong with any source.
#[test]
fn a_service_that_got_a_dataset_more_does_not_start_without_the_others() {
    unhindered(async {
        let mut lab = Lab::new();
        lab.write("all of it");
        lab.snapshot("good").await;
        lab.send().await;
        lab.service.targets.push(World::target("tank/wal"));
        lab.lose(true);
        let planned = plan(&lab.engine, &context("plan"), &[&lab.service])
            .await
            .remove(0);
        assert_eq!(planned.action, "held", "{planned:?}");
        let report = lab.preseed().await;
        let Outcome::Held { why } = &report.outcome else {
            panic!("{report:?}")
        };
        assert!(why.contains("take it out of the configuration"), "{why}");
        // Who can't be asked may have all of it.
        lab.world.replica_link(&source("nas"), Link::Down);
        let mut other = lab.service.clone();
        other
            .sources
            .push(Arc::new(MemOffsite::new(&lab.world, source("b2"), "secret")));
        let since = lab.clock.monotonic();
        let report = preseed(&lab.engine, &context("boot"), &[&other], since)
            .await
            .remove(0);
        assert!(!report.summary().contains("take it out"), "{report:?}");
        lab.world.replica_link(&source("nas"), Link::Up);
        let options = RestoreOptions {
            from: None,
            at: At::Newest,
            set_aside: false,
        };
        let error = ops::restore(&lab.engine, &context("restore"), &lab.service, &options)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("together"), "{error}");
        assert!(error.what_to_do().is_some());
    });
}

/// A timer that is a few seconds early, or late, leaves out no hour, and makes none two.
#[test]
fn a_snapshot_is_due_once_an_hour_and_a_day_whatever_the_timer_does() {
    unhindered(async {
        let lab = Lab::new();
        lab.write("something");
        let rules = Rules {
            hourly: Some(100),
            daily: Some(10),
            ..Rules::default()
        };
        let zone = TimeZone::fixed(Offset::constant(2));
        let (mut taken, mut at) = ((0, 0), 0);
        for hour in 0..48_i64 {
            // 12 minutes past, half a minute earlier and later.
            let wanted = hour * 3600 + 720 + (hour % 5) * 15 - 30;
            lab.clock.jump(wanted - at);
            at = wanted;
            // Within an hour nothing more is due.
            for again in [false, true] {
                let due = ops::due(&lab.engine, &context("due"), &lab.service, &rules, &zone)
                    .await
                    .unwrap();
                assert!(!again || due.is_empty(), "{due:?} in hour {hour}");
                for kind in due {
                    match kind {
                        Kind::Hourly => taken.0 += 1,
                        _ => taken.1 += 1,
                    }
                    let now = lab.clock.now().to_zoned(zone.clone());
                    let name = ops::snapshot_name(Some(kind), &now).unwrap();
                    let report = ops::snapshot(&lab.engine, &context("snap"), &lab.service, &name).await;
                    assert!(report.error.is_none(), "{report:?}");
                }
            }
        }
        // Midnight, two hours east of Greenwich, is passed twice.
        assert_eq!(taken, (48, 3));
    });
}

/// As sanoid names it.
#[test]
fn the_hour_that_a_clock_change_repeats_has_snapshots_too() {
    unhindered(async {
        let lab = Lab::new();
        lab.write("something");
        for name in ["autosnap_2026-10-25_02:30:00_hourly", "by-hand"] {
            lab.snapshot(name).await;
        }
        lab.snapshot("autosnap_2026-10-25_02:30:00_hourly").await;
        let all = lab.snapshots().await;
        let last = all.last().unwrap();
        assert_eq!(last.name.as_str(), "autosnap_2026-10-25_02:30:00dst_hourly");
        // Once more, and what isn't named by the time: that name is taken.
        for name in ["autosnap_2026-10-25_02:30:00_hourly", "by-hand"] {
            let name = SnapshotName::new(name).unwrap();
            let report = ops::snapshot(&lab.engine, &context("snap"), &lab.service, &name).await;
            assert!(report.error.is_some(), "{report:?}");
        }
    });
}

/// A prune of ours, for one: it will be over, and what is there is there then.
#[test]
fn a_source_that_is_in_use_is_waited_for_and_nothing_started_without_it() {
    unhindered(async {
        let mut lab = Lab::new();
        lab.service.sources = vec![lab.repository().await];
        lab.write("all of it");
        lab.snapshot("good").await;
        lab.back_up().await;
        lab.lose(true);
        lab.world.break_repo(&source("b2"), RepoFault::Locked(true));
        let report = lab.preseed().await;
        let Outcome::Held { why } = &report.outcome else {
            panic!("{report:?}")
        };
        assert!(why.contains("in use"), "{why}");
        lab.world.break_repo(&source("b2"), RepoFault::Locked(false));
        assert_eq!(lab.preseed().await.outcome, Outcome::Restored);
        assert_eq!(lab.text().as_deref(), Some(&b"all of it"[..]));
    });
}

#[test]
fn a_restore_on_request_goes_by_age_where_the_service_does() {
    unhindered(async {
        for (prefer, text) in [(Prefer::Newest, "new"), (Prefer::Chain, "old")] {
            let mut lab = Lab::new();
            lab.write("old");
            lab.snapshot("old").await;
            lab.write("new");
            lab.snapshot("new").await;
            lab.send().await;
            let newest = lab.snapshots().await.last().unwrap().reference();
            let cx = context("clean");
            lab.service.store.prune(&cx, &[newest]).await.unwrap();
            lab.service.policy.prefer = prefer;
            assert_eq!(lab.restore(At::Newest, true).await.outcome, Outcome::Restored);
            assert_eq!(lab.text().as_deref(), Some(text.as_bytes()));
        }
    });
}

/// What was left is newer than all else, in the store as well as in the repository, until there is something newer.
#[test]
fn a_preseed_brings_back_what_somebody_went_back_to_and_not_what_they_left() {
    unhindered(async {
        for set_aside in [true, false] {
            let mut lab = Lab::new();
            let repo = lab.repository().await;
            lab.service.sources.push(repo);
            lab.write("good");
            lab.snapshot("good").await;
            let good = lab.snapshots().await[0].guid;
            lab.write("bad");
            lab.snapshot("bad").await;
            lab.back_up().await;
            if !set_aside {
                lab.lose(false);
            }
            lab.clock.jump(60);
            let report = lab.restore(At::Point(good.to_string()), set_aside).await;
            assert_eq!((report.outcome, report.warnings), (Outcome::Restored, vec![]));
            assert_eq!(
                lab.snapshots().await.last().unwrap().fingerprint.unwrap().files,
                1
            );
            lab.lose(false);
            assert_eq!(lab.preseed().await.outcome, Outcome::Restored);
            assert_eq!(lab.text().as_deref(), Some(&b"good"[..]));
        }
    });
}

/// And of the moments before, the last.
#[test]
fn a_restore_of_a_moment_brings_the_newest_state_that_was_taken_by_then() {
    unhindered(async {
        let lab = Lab::new();
        for text in ["one", "two", "three"] {
            lab.write(text);
            lab.snapshot(text).await;
        }
        let taken: Vec<_> = lab.snapshots().await.iter().map(|one| one.taken_at).collect();
        let between = taken[1] + jiff::SignedDuration::from_mins(30);
        for (at, text) in [(between, "two"), (taken[0], "one"), (between, "two")] {
            lab.clock.jump(60);
            assert_eq!(lab.restore(At::Time(at), true).await.outcome, Outcome::Restored);
            assert_eq!(lab.text().as_deref(), Some(text.as_bytes()));
        }
        let options = RestoreOptions {
            from: None,
            at: At::Time(taken[0] - jiff::SignedDuration::from_secs(1)),
            set_aside: true,
        };
        let error = ops::restore(&lab.engine, &context("early"), &lab.service, &options).await;
        assert_eq!(error.unwrap_err().kind(), OpKind::NotFound);
    });
}
