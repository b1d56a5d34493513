//! Interrupted replications under a retention that keeps nothing: what has arrived stays of use. And replicas that are not as they
//! were left: written to, half received, in each other's way.

use std::sync::Arc;

use reseed_backend_zfs::zfs::{LocalSource, NativeReplicator};
use reseed_core::error::ReplicateKind;
use reseed_core::ops::{self, OpOutcome};
use reseed_core::point::{Snapshot, Target};
use reseed_core::preseed::Outcome;
use reseed_core::{Replicator as _, SnapshotStore as _};
use reseed_testkit::conformance::{block_on, context};
use reseed_testkit::files::Files as _;

use crate::chain::{Chain, Meddler, noise};
use crate::lab::{run, sure};
use crate::source_lab::snapshot;
use crate::vm_odd::Warnings;

/// A service over a dataset, and its replica.
struct Lab {
    chain: Chain,
    target: Target,
    minutes: i64,
}

impl Lab {
    fn new() -> Self {
        let chain = Chain::new("256M");
        let target = chain.pool.target("t");
        sure(["zfs", "create", target.dataset.as_str()]);
        Self {
            chain,
            target,
            minutes: 0,
        }
    }

    fn replicator(&self) -> NativeReplicator {
        self.chain.replicator(0, &self.chain.pool.store)
    }

    fn replica(&self) -> String {
        self.chain.replica(0, &self.target)
    }

    /// A megabyte of something new, and a snapshot of it.
    async fn change(&mut self, name: &str) -> Snapshot {
        self.minutes += 1;
        let file = self.target.mountpoint.join(name);
        self.chain.pool.files.write(&file, &noise(1_000_000));
        snapshot(&self.chain.pool, &self.target, name, self.minutes, false).await
    }

    /// Sends, and the stream breaks off after so many bytes, one stream each, the last first.
    async fn cut(&self, bytes: Vec<u64>) {
        let runner = Arc::new(Meddler::cutting(bytes));
        let replicator = self.chain.replicator(0, &self.chain.store(runner.clone()));
        let (cx, targets) = (context("cut"), [self.target.clone()]);
        let plan = replicator.plan(&cx, &targets).await.unwrap();
        assert_eq!(plan.steps[0].set_aside, None);
        let error = replicator.execute(&cx, &plan).await.map(drop).unwrap_err();
        assert!(runner.has_meddled(), "{error}");
    }

    /// Prunes all that the store lets go; what stays.
    async fn prune(&self) -> Vec<String> {
        let (store, cx, targets) = (&self.chain.pool.store, context("prune"), [self.target.clone()]);
        let all = store.list(&cx, &targets).await.unwrap();
        let all: Vec<_> = all.iter().map(Snapshot::reference).collect();
        let pruned = store.prune(&cx, &all).await.unwrap();
        let kept = pruned.into_iter().filter_map(|one| {
            let why = one.kept?;
            assert_eq!(why.kind, "held", "{why:?}");
            Some(one.snapshot.name.to_string())
        });
        kept.collect()
    }

    /// Sends what is missing, and nothing is set aside for it; what is on the replica then.
    async fn send(&self) -> Vec<String> {
        let (cx, targets, replicator) = (context("send"), [self.target.clone()], self.replicator());
        let plan = replicator.plan(&cx, &targets).await.unwrap();
        assert_eq!((plan.steps[0].set_aside.as_ref(), plan.left_out.len()), (None, 0));
        let report = replicator.execute(&cx, &plan).await.unwrap();
        assert_eq!(report.failed, []);
        let again = replicator.plan(&cx, &targets).await.unwrap();
        assert_eq!((again.steps, again.let_go), (vec![], vec![]));
        names(&self.replica())
    }

    fn token(&self) -> String {
        get("receive_resume_token", &self.replica())
    }
}

fn names(dataset: &str) -> Vec<String> {
    let listed = sure([
        "zfs", "list", "-Hp", "-d", "1", "-t", "snapshot", "-o", "name", dataset,
    ]);
    let name = |line: &str| line.rsplit('@').next().unwrap().to_owned();
    listed.lines().map(name).collect()
}

fn get(property: &str, dataset: &str) -> String {
    sure(["zfs", "get", "-Hp", "-o", "value", property, dataset])
}

#[test]
fn a_baseline_that_is_cut_goes_on_although_retention_wants_its_snapshot() {
    block_on(async {
        let mut lab = Lab::new();
        lab.change("one").await;
        lab.change("two").await;
        lab.cut(vec![600_000]).await;
        let token = lab.token();
        assert_ne!(token, "-");
        assert_eq!(lab.prune().await, ["one"], "what the token is of, and no more");
        lab.change("three").await;
        // The same again, further on: the token is gone on with.
        lab.cut(vec![200_000]).await;
        assert_ne!(lab.token(), token);
        assert_eq!(lab.prune().await, ["one"]);
        lab.change("four").await;
        assert_eq!(lab.send().await, ["one", "four"]);
        assert_eq!(
            lab.prune().await,
            Vec::<String>::new(),
            "nothing is held any more"
        );
        // Its bookmark is the base.
        lab.change("five").await;
        assert_eq!(lab.send().await, ["one", "four", "five"]);
    });
}

#[test]
fn a_stream_of_several_that_is_cut_goes_on_from_the_one_that_arrived() {
    block_on(async {
        let mut lab = Lab::new();
        lab.change("one").await;
        lab.send().await;
        assert_eq!(lab.prune().await, Vec::<String>::new());
        for name in ["two", "three", "four", "five"] {
            lab.change(name).await;
        }
        // From the bookmark comes `two` alone and whole, then the others in one stream.
        lab.cut(vec![1_600_000, 100_000_000]).await;
        assert_eq!(names(&lab.replica()), ["one", "two", "three"]);
        assert_ne!(lab.token(), "-");
        assert_eq!(lab.prune().await, ["three", "four"]);
        lab.change("six").await;
        assert_eq!(lab.send().await, ["one", "two", "three", "four", "six"]);
        assert_eq!(lab.prune().await, Vec::<String>::new());
    });
}

#[test]
fn what_a_run_that_died_holds_the_next_one_lets_go_and_nobody_elses() {
    block_on(async {
        let mut lab = Lab::new();
        lab.change("one").await;
        lab.send().await;
        let one = format!("{}@one", lab.target.dataset);
        for tag in [
            "reseed-send.second",
            "reseed-base.second",
            "reseed-send.other",
            "mine",
        ] {
            sure(["zfs", "hold", tag, &one]);
        }
        let mut service = lab.chain.service(&[&lab.target]);
        service.replicators = vec![Arc::new(lab.replicator())];
        let reports = ops::replicate(&lab.chain.engine, &context("next"), &service).await;
        assert_eq!(reports[0].outcome, OpOutcome::UpToDate);
        assert_eq!(reports[0].warnings, Vec::<String>::new());
        let left = sure(["zfs", "holds", "-H", &one]);
        let mut tags: Vec<_> = left
            .lines()
            .map(|line| line.split('\t').nth(1).unwrap())
            .collect();
        tags.sort_unstable();
        assert_eq!(tags, ["mine", "reseed-send.other"]);
    });
}

#[test]
fn a_replica_that_somebody_wrote_to_while_a_stream_was_half_received_is_set_aside() {
    block_on(async {
        let mut lab = Lab::new();
        lab.change("one").await;
        lab.send().await;
        lab.change("two").await;
        lab.cut(vec![600_000]).await;
        let (replica, token) = (lab.replica(), lab.token());
        assert_ne!(token, "-");
        // What is half received is nobody's writing.
        assert_eq!(get("written", &replica), "0");
        sure(["zfs", "set", "readonly=off", &replica]);
        sure(["zfs", "mount", &replica]);
        let at = get("mountpoint", &replica);
        std::fs::write(format!("{at}/theirs"), "written on the replica").unwrap();
        sure(["zfs", "unmount", &replica]);
        sure(["zpool", "sync"]);
        assert_ne!(get("written", &replica), "0");
        let (cx, targets, replicator) = (context("send"), [lab.target.clone()], lab.replicator());
        let plan = replicator.plan(&cx, &targets).await.unwrap();
        let aside = plan.steps[0].set_aside.clone().expect("planned");
        assert!(aside.why.contains("written to it"), "{}", aside.why);
        let report = replicator.execute(&cx, &plan).await.unwrap();
        assert_eq!((report.failed.len(), report.sent.len()), (0, 2), "{report:?}");
        assert_eq!(names(&replica), ["one", "two"]);
        assert_eq!(replicator.plan(&cx, &targets).await.unwrap().steps, []);
        // All of it is there still: what they wrote, and what had arrived.
        let kept = lab.chain.backs[0].read(&aside.renamed_to);
        assert!(kept.keys().any(|path| path.ends_with("theirs")));
        assert_eq!(get("receive_resume_token", &aside.renamed_to), token);
    });
}

/// The base's snapshot was pruned, and what stands for it is another replica's bookmark, which that one removes in the middle.
#[test]
fn anothers_bookmark_of_the_base_is_copied_before_it_goes() {
    block_on(async {
        let mut lab = Lab::new();
        let one = lab.change("one").await;
        lab.send().await;
        let dataset = lab.target.dataset.to_string();
        let (ours, theirs) = (
            format!("{dataset}#reseed:second:{}", one.guid),
            format!("{dataset}#reseed:third:{}", one.guid),
        );
        sure(["zfs", "bookmark", &format!("{dataset}@one"), &theirs]);
        sure(["zfs", "destroy", &ours]);
        assert_eq!(lab.prune().await, Vec::<String>::new());
        lab.change("two").await;
        lab.cut(vec![300_000]).await;
        assert_eq!(get("guid", &ours), one.guid.to_string());
        sure(["zfs", "destroy", &theirs]);
        lab.change("three").await;
        assert_eq!(lab.send().await, ["one", "two", "three"]);
    });
}

/// What another tool left half received where the replica belongs, of a dataset of its own whose snapshot is gone by now, looks
/// as useless as what we left of one.
#[test]
fn what_is_half_received_and_gone_is_thrown_away_only_when_it_is_the_datasets_own() {
    block_on(async {
        let mut lab = Lab::new();
        let other = lab.chain.pool.target("other");
        sure(["zfs", "create", other.dataset.as_str()]);
        let file = other.mountpoint.join("theirs");
        lab.chain.pool.files.write(&file, &noise(1_000_000));
        lab.change("one").await;
        let replica = lab.replica();
        let above = replica.rsplit_once('/').unwrap().0;
        sure(["zfs", "create", "-p", "-o", "canmount=off", above]);
        for (from, ours) in [
            (other.dataset.as_str(), false),
            (lab.target.dataset.as_str(), true),
        ] {
            sure(["zfs", "snapshot", &format!("{from}@gone")]);
            let line = format!(
                "zfs send -L -c -e '{from}@gone' | head -c 600000 | zfs receive -s -u -o canmount=noauto '{replica}'"
            );
            run(["sh", "-c", &line]);
            let token = lab.token();
            assert_ne!(token, "-");
            sure(["zfs", "destroy", &format!("{from}@gone")]);
            if ours {
                assert_eq!(lab.send().await, ["one"]);
                continue;
            }
            let (cx, targets, replicator) = (context("send"), [lab.target.clone()], lab.replicator());
            let plan = replicator.plan(&cx, &targets).await.unwrap();
            let error = replicator.execute(&cx, &plan).await.map(drop).unwrap_err();
            assert_eq!(error.kind(), ReplicateKind::Diverged, "{error}");
            assert!(error.to_string().contains(&format!("{from}@gone")), "{error}");
            assert_eq!(lab.token(), token, "left as it is");
            // An operator does what the hint says.
            let hint = error.what_to_do().unwrap().to_owned();
            sure(["sh", "-c", hint.split('`').nth(1).unwrap()]);
        }
    });
}

/// A rollback sets aside what the stream is of: it is in the pool still, and the dataset goes on without it.
#[test]
fn what_is_half_received_of_what_was_rolled_back_is_thrown_away() {
    block_on(async {
        let mut lab = Lab::new();
        for name in ["one", "two", "three"] {
            lab.change(name).await;
        }
        lab.send().await;
        lab.change("four").await;
        lab.cut(vec![600_000]).await;
        assert_ne!(lab.token(), "-");
        let chain = &lab.chain;
        let mut service = chain.service(&[&lab.target]);
        service.sources = vec![Arc::new(LocalSource::new(&chain.pool.store))];
        let (engine, cx) = (&chain.engine, context("rollback"));
        let preview = ops::rollback_plan(engine, &cx, &service, "three").await.unwrap();
        let report = ops::rollback(engine, &cx, &service, &preview).await.unwrap();
        assert_eq!(report.outcome, Outcome::Restored, "{}", report.summary());
        lab.change("five").await;
        service.replicators = vec![Arc::new(lab.replicator())];
        let (warnings, cx) = Warnings::of("next");
        let reports = ops::replicate(&lab.chain.engine, &cx, &service).await;
        assert_eq!(reports[0].outcome, OpOutcome::Ok, "{reports:?}");
        let mut all = names(&lab.replica());
        all.retain(|name| !name.ends_with("Z_restored"));
        assert_eq!(all, ["one", "two", "three", "five"]);
        assert_eq!(lab.token(), "-");
        let told = warnings.told();
        assert!(told.contains("@four") && told.contains("thrown away"), "{told}");
    });
}

/// Nothing is sent any more of what a rollback has set aside; held, it could not be removed.
#[test]
fn what_a_rollback_sets_aside_is_not_held_any_more() {
    block_on(async {
        let mut lab = Lab::new();
        for name in ["one", "two", "three"] {
            lab.change(name).await;
        }
        lab.cut(vec![600_000]).await;
        let (dataset, chain) = (lab.target.dataset.as_str(), &lab.chain);
        let userrefs = |of: &str, name: &str| get("userrefs", &format!("{of}@{name}"));
        let three = format!("{dataset}@three");
        sure(["zfs", "hold", "reseed-send.second", &three]);
        sure(["zfs", "hold", "by-hand", &three]);
        let mut service = chain.service(&[&lab.target]);
        service.sources = vec![Arc::new(LocalSource::new(&chain.pool.store))];
        let (engine, cx) = (&chain.engine, context("rollback"));
        let preview = ops::rollback_plan(engine, &cx, &service, "two").await.unwrap();
        let report = ops::rollback(engine, &cx, &service, &preview).await.unwrap();
        assert_eq!(report.outcome, Outcome::Restored, "{}", report.summary());
        let aside = report.datasets[0].set_aside.clone().unwrap();
        assert_eq!(userrefs(&aside, "three"), "1", "somebody's own stays");
        sure(["zfs", "release", "by-hand", &format!("{aside}@three")]);
        sure(["zfs", "destroy", "-r", &aside]);
        // What the live dataset has taken over is the replication's to let go.
        assert_eq!(names(dataset)[..2], ["one", "two"]);
        assert!(names(dataset)[2].ends_with("Z_restored") && names(dataset).len() == 3);
        lab.change("four").await;
        lab.send().await;
        for name in ["one", "two", "four"] {
            assert_eq!(userrefs(lab.target.dataset.as_str(), name), "0", "{name}");
        }
    });
}

#[test]
fn what_is_nested_is_sent_from_the_outside_in() {
    block_on(async {
        let chain = Chain::new("256M");
        let targets = ["p/c/d", "p", "p/c"].map(|leaf| chain.pool.target(leaf));
        for at in [1, 2, 0] {
            sure(["zfs", "create", targets[at].dataset.as_str()]);
            snapshot(&chain.pool, &targets[at], "one", 1, false).await;
        }
        chain.replicate(&targets).await;
        for target in &targets {
            assert_eq!(names(&chain.replica(0, target)), ["one"]);
        }
        let replicator = chain.replicator(0, &chain.pool.store);
        let plan = replicator.plan(&context("again"), &targets).await.unwrap();
        assert_eq!((plan.steps, plan.left_out), (vec![], vec![]));
    });
}

#[test]
fn an_outer_dataset_that_cannot_be_received_leaves_no_place_in_its_way() {
    block_on(async {
        let chain = Chain::new("256M");
        let (outer, inner) = (chain.pool.target("p"), chain.pool.target("p/c"));
        for target in [&outer, &inner] {
            sure(["zfs", "create", target.dataset.as_str()]);
            snapshot(&chain.pool, target, "one", 1, false).await;
        }
        let targets = [inner.clone(), outer.clone()];
        // The outer one's stream breaks off at once.
        let runner = Arc::new(Meddler::cutting(vec![100]));
        let replicator = chain.replicator(0, &chain.store(runner.clone()));
        let (cx, plan) = (
            context("cut"),
            replicator.plan(&context("cut"), &targets).await.unwrap(),
        );
        replicator.execute(&cx, &plan).await.map(drop).unwrap_err();
        assert!(!run(["zfs", "list", &chain.replica(0, &inner)]).exit.success());
        chain.replicate(&targets).await;
        for target in &targets {
            assert_eq!(names(&chain.replica(0, target)), ["one"]);
        }
    });
}

#[test]
fn a_place_made_for_an_inner_dataset_is_told_to_be_in_the_way_and_nothing_is_lost() {
    block_on(async {
        let chain = Chain::new("256M");
        let (outer, inner) = (chain.pool.target("p"), chain.pool.target("p/c"));
        for target in [&outer, &inner] {
            sure(["zfs", "create", target.dataset.as_str()]);
            snapshot(&chain.pool, target, "one", 1, false).await;
        }
        chain.replicate(std::slice::from_ref(&inner)).await;
        let replicator = chain.replicator(0, &chain.pool.store);
        let (cx, both) = (context("place"), [outer.clone(), inner.clone()]);
        let plan = replicator.plan(&cx, &both).await.unwrap();
        assert_eq!(plan.steps, []);
        let (left_out, error) = &plan.left_out[0];
        assert_eq!((left_out, plan.left_out.len()), (&outer, 1));
        assert_eq!(error.kind, ReplicateKind::Diverged.to_string());
        // An operator does what the hint says.
        let hint = error.hint.clone().unwrap();
        let first = hint.split('`').nth(1).unwrap().to_owned();
        sure(["sh", "-c", &first]);
        chain.replicate(std::slice::from_ref(&outer)).await;
        let back = hint.split('`').nth(5).unwrap().replace("NAME", "c");
        sure(["sh", "-c", &back]);
        let plan = replicator.plan(&cx, &both).await.unwrap();
        assert_eq!((plan.steps, plan.left_out), (vec![], vec![]));
        for target in &both {
            assert_eq!(names(&chain.replica(0, target)), ["one"]);
        }
    });
}
