//! The suite of [`Replicator`]: clauses P1 to P11.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use reseed_core::error::{Effect, ReplicateKind};
use reseed_core::names::{Guid, SnapshotName};
use reseed_core::point::{Fingerprint, Snapshot, Target};
use reseed_core::replicate::{ReplicationPlan, ReplicationReport};
use reseed_core::store::CreateSnapshots;
use reseed_core::{Context, Replicator, SnapshotStore};

use super::{cancelled_after, context, failed, minute, refused, snapshot_name, suite, worked};
use crate::files::{Files, Listing, assert_same, write_odd_tree};

/// A snapshot on the replica, as it is read there and not through the replicator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Its name.
    pub name: SnapshotName,
    /// Its guid.
    pub guid: Guid,
    /// When the original was taken.
    pub taken_at: Timestamp,
    /// What the original looked like.
    pub fingerprint: Option<Fingerprint>,
    /// Its files.
    pub content: Listing,
    /// It is in a lineage that was set aside.
    pub aside: bool,
}

/// What the suite needs of a replicator's backend.
#[async_trait]
pub trait ReplicaLab: Send + Sync {
    /// The store, the same each time.
    fn store(&self) -> Arc<dyn SnapshotStore>;
    /// The way from it to the replica, the same each time.
    fn replicator(&self) -> Arc<dyn Replicator>;
    /// The same way, of the host that is called so. What it sends is that host's.
    fn of_host(&self, host: &str) -> Arc<dyn Replicator>;
    /// How live trees are written.
    fn files(&self) -> &dyn Files;
    /// A target whose dataset or directory is there, and empty.
    fn target(&self, name: &str) -> Target;
    /// Every snapshot of the target on the replica that looks complete there, those set aside included.
    async fn copies(&self, target: &Target) -> Vec<Copied>;
    /// Makes the replica's lineage one that has no snapshot in common with the store's, as if another host had sent it.
    async fn diverge(&self, target: &Target);
    /// Takes the replica away, or brings it back.
    fn set_reachable(&self, reachable: bool);
    /// After how many polls a transfer is cancelled, one transfer each, rising. A lab where everything is slow names fewer.
    fn interruptions(&self) -> Vec<usize> {
        (1..20).collect()
    }
    /// What went wrong besides: asserted to be nothing when a test ends.
    fn violations(&self) -> Vec<String> {
        Vec::new()
    }
}

suite! { $ conformance_replicate, replicate, ReplicaLab:
    p01_plan_writes_nothing_and_says_what_it_would_send
    p02_a_snapshot_that_is_gone_or_replaced_is_a_stale_plan
    p02_a_replica_that_moved_on_is_a_stale_plan
    p03_what_arrives_is_what_was_sent
    p04_an_interrupted_transfer_leaves_nothing_that_looks_complete
    p05_nothing_on_the_replica_is_destroyed
    p06_a_diverged_replica_is_set_aside_as_planned
    p07_up_to_date_is_no_work
    p08_lag_is_read_at_the_replica
    p08_a_replica_that_cannot_be_asked_is_an_error
    p09_cancelled_means_ended
    p10_what_was_sent_can_be_continued_whatever_is_pruned
    p11_what_is_another_hosts_is_left_alone
}

async fn take(lab: &impl ReplicaLab, cx: &Context, target: &Target, name: &str, minutes: i64) -> Snapshot {
    let request = CreateSnapshots {
        targets: vec![target.clone()],
        name: snapshot_name(name),
        taken_at: minute(minutes),
        measure: true,
        unseeded: false,
    };
    worked(lab.store().create(cx, &request).await).remove(0)
}

/// Writes something new and takes a snapshot of it.
async fn change(lab: &impl ReplicaLab, cx: &Context, target: &Target, name: &str, minutes: i64) -> Snapshot {
    lab.files()
        .write(&target.mountpoint.join("which"), name.as_bytes());
    take(lab, cx, target, name, minutes).await
}

async fn plan(lab: &impl ReplicaLab, cx: &Context, targets: &[&Target]) -> ReplicationPlan {
    let targets: Vec<Target> = targets.iter().map(|&target| target.clone()).collect();
    worked(lab.replicator().plan(cx, &targets).await)
}

async fn send(lab: &impl ReplicaLab, cx: &Context, target: &Target) -> ReplicationReport {
    let plan = plan(lab, cx, &[target]).await;
    let report = worked(lab.replicator().execute(cx, &plan).await);
    assert_eq!(report.failed, []);
    report
}

fn names(copies: &[Copied]) -> Vec<&str> {
    copies.iter().map(|copy| copy.name.as_str()).collect()
}

/// Whatever was there before is there still, with its content.
#[track_caller]
fn all_kept(before: &[Copied], after: &[Copied]) {
    for old in before {
        let Some(new) = after.iter().find(|new| new.guid == old.guid) else {
            panic!("{} ({}) is gone from the replica", old.name, old.guid);
        };
        assert_eq!((&new.name, new.taken_at), (&old.name, old.taken_at));
        assert_same(&old.content, &new.content, old.name.as_str());
    }
}

fn no_violations(lab: &dyn ReplicaLab) {
    assert_eq!(lab.violations(), Vec::<String>::new());
}

/// P1: full, then incremental.
pub async fn p01_plan_writes_nothing_and_says_what_it_would_send(lab: &impl ReplicaLab) {
    let (cx, target) = (context("p01"), lab.target("t"));
    let one = change(lab, &cx, &target, "one", 1).await;
    let two = change(lab, &cx, &target, "two", 2).await;
    let full = plan(lab, &cx, &[&target]).await;
    assert_eq!(&full.replica, lab.replicator().name());
    assert_eq!(full.steps.len(), 1);
    assert_eq!((&full.steps[0].base, &full.steps[0].set_aside), (&None, &None));
    assert_eq!(full.steps[0].send, [one.reference(), two.reference()]);
    assert!(lab.copies(&target).await.is_empty(), "plan sent something");
    let text = serde_json::to_string(&full).expect("a plan can be serialised");
    let read: ReplicationPlan = serde_json::from_str(&text).expect("a plan can be read back");
    assert_eq!(read, full);
    let report = worked(lab.replicator().execute(&cx, &read).await);
    assert_eq!(report.sent, [one.reference(), two.reference()]);
    let three = change(lab, &cx, &target, "three", 3).await;
    let before = lab.copies(&target).await;
    let next = plan(lab, &cx, &[&target]).await;
    assert_eq!(next.steps[0].send, [three.reference()]);
    if lab.replicator().caps().incremental {
        assert_eq!(next.steps[0].base, Some(two.reference()));
    }
    assert_eq!(lab.copies(&target).await, before, "plan changed the replica");
    assert_eq!(
        worked(lab.store().list(&cx, &[target]).await),
        vec![one, two, three]
    );
    no_violations(lab);
}

/// P2: on the store's side.
pub async fn p02_a_snapshot_that_is_gone_or_replaced_is_a_stale_plan(lab: &impl ReplicaLab) {
    let (cx, target, store) = (context("p02"), lab.target("t"), lab.store());
    let one = change(lab, &cx, &target, "one", 1).await;
    let full = plan(lab, &cx, &[&target]).await;
    worked(store.prune(&cx, &[one.reference()]).await);
    let stale = [ReplicateKind::StalePlan];
    refused(lab.replicator().execute(&cx, &full).await, &stale);
    let one = change(lab, &cx, &target, "one", 2).await;
    refused(lab.replicator().execute(&cx, &full).await, &stale);
    assert!(lab.copies(&target).await.is_empty());
    send(lab, &cx, &target).await;
    let before = lab.copies(&target).await;
    change(lab, &cx, &target, "two", 3).await;
    let next = plan(lab, &cx, &[&target]).await;
    if next.steps[0].base.is_some() {
        worked(store.prune(&cx, &[one.reference()]).await);
        refused(lab.replicator().execute(&cx, &next).await, &stale);
        assert_eq!(lab.copies(&target).await, before);
    }
    no_violations(lab);
}

/// P2: on the replica's side.
pub async fn p02_a_replica_that_moved_on_is_a_stale_plan(lab: &impl ReplicaLab) {
    let (cx, target) = (context("p02b"), lab.target("t"));
    change(lab, &cx, &target, "one", 1).await;
    let full = plan(lab, &cx, &[&target]).await;
    worked(lab.replicator().execute(&cx, &full).await);
    let before = lab.copies(&target).await;
    refused(
        lab.replicator().execute(&cx, &full).await,
        &[ReplicateKind::StalePlan],
    );
    assert_eq!(lab.copies(&target).await, before);
    change(lab, &cx, &target, "two", 2).await;
    let next = plan(lab, &cx, &[&target]).await;
    worked(lab.replicator().execute(&cx, &next).await);
    let before = lab.copies(&target).await;
    // Whatever it answers, nothing arrives twice and nothing is replaced.
    let _ = lab.replicator().execute(&cx, &next).await;
    assert_eq!(lab.copies(&target).await, before);
    change(lab, &cx, &target, "three", 3).await;
    let next = plan(lab, &cx, &[&target]).await;
    lab.diverge(&target).await;
    let before = lab.copies(&target).await;
    refused(
        lab.replicator().execute(&cx, &next).await,
        &[ReplicateKind::StalePlan],
    );
    assert_eq!(lab.copies(&target).await, before);
    no_violations(lab);
}

/// P3: name, guid, time, fingerprint, content.
pub async fn p03_what_arrives_is_what_was_sent(lab: &impl ReplicaLab) {
    let (cx, target, other) = (context("p03"), lab.target("t"), lab.target("other"));
    let root = &target.mountpoint;
    write_odd_tree(lab.files(), root);
    lab.files().set_mode(root, 0o711);
    let mut originals = vec![(take(lab, &cx, &target, "one", 1).await, lab.files().list(root))];
    lab.files().write_at(&root.join("db/main.db"), 5000, b"changed");
    lab.files().remove(&root.join("deep"));
    originals.push((take(lab, &cx, &target, "two", 2).await, lab.files().list(root)));
    change(lab, &cx, &other, "others", 1).await;
    let both = plan(lab, &cx, &[&target, &other]).await;
    let report = worked(lab.replicator().execute(&cx, &both).await);
    assert_eq!(report.sent.len(), 3);
    assert!(report.bytes > 0);
    lab.files().write(&root.join("later"), b"later");
    originals.push((take(lab, &cx, &target, "three", 3).await, lab.files().list(root)));
    send(lab, &cx, &target).await;
    let copies = lab.copies(&target).await;
    assert_eq!(names(&copies), ["one", "two", "three"]);
    for ((original, content), copy) in originals.iter().zip(&copies) {
        assert_eq!((copy.guid, copy.taken_at), (original.guid, original.taken_at));
        assert_eq!(copy.fingerprint, original.fingerprint);
        assert!(!copy.aside);
        assert_same(content, &copy.content, copy.name.as_str());
    }
    assert_eq!(names(&lab.copies(&other).await), ["others"]);
    no_violations(lab);
}

/// P4 and P9: at many moments.
pub async fn p04_an_interrupted_transfer_leaves_nothing_that_looks_complete(lab: &impl ReplicaLab) {
    let cx = context("p04");
    let mut expected: Vec<(Snapshot, Listing)> = Vec::new();
    let target = lab.target("t");
    write_odd_tree(lab.files(), &target.mountpoint);
    let mut before = lab.copies(&target).await;
    for polls in lab.interruptions() {
        let minutes = i64::try_from(polls).expect("a small number");
        let made = change(lab, &cx, &target, &format!("s{polls}"), minutes).await;
        expected.push((made, lab.files().list(&target.mountpoint)));
        let next = plan(lab, &cx, &[&target]).await;
        let stop = context("p04");
        let result = cancelled_after(&stop, polls, lab.replicator().execute(&stop, &next)).await;
        let after = lab.copies(&target).await;
        all_kept(&before, &after);
        for copy in &after {
            let (_, content) = expected
                .iter()
                .find(|(made, _)| made.guid == copy.guid)
                .expect("an original");
            assert_same(content, &copy.content, "a copy that looks complete");
        }
        if let Err(error) = result {
            failed::<(), _>(Err(error), &[ReplicateKind::Cancelled]);
        }
        before = after;
    }
    let last = plan(lab, &cx, &[&target]).await;
    if !last.steps.is_empty() {
        worked(lab.replicator().execute(&cx, &last).await);
    }
    let copies = lab.copies(&target).await;
    let guids: Vec<_> = copies.iter().map(|copy| copy.guid).collect();
    let wanted: Vec<_> = expected.iter().map(|(made, _)| made.guid).collect();
    assert_eq!(guids, wanted, "the next run finishes it");
    no_violations(lab);
}

/// P5: whatever happens on the store.
pub async fn p05_nothing_on_the_replica_is_destroyed(lab: &impl ReplicaLab) {
    let (cx, target, store) = (context("p05"), lab.target("t"), lab.store());
    let one = change(lab, &cx, &target, "one", 1).await;
    let two = change(lab, &cx, &target, "two", 2).await;
    send(lab, &cx, &target).await;
    let before = lab.copies(&target).await;
    worked(store.prune(&cx, &[one.reference()]).await);
    change(lab, &cx, &target, "three", 3).await;
    send(lab, &cx, &target).await;
    let after = lab.copies(&target).await;
    all_kept(&before, &after);
    assert_eq!(names(&after), ["one", "two", "three"]);
    // All that both had is pruned on the store, the name is taken again.
    let all = worked(store.list(&cx, std::slice::from_ref(&target)).await);
    assert!(all.contains(&two));
    let all: Vec<_> = all.iter().map(Snapshot::reference).collect();
    worked(store.prune(&cx, &all).await);
    change(lab, &cx, &target, "three", 4).await;
    let next = plan(lab, &cx, &[&target]).await;
    let _ = lab.replicator().execute(&cx, &next).await;
    all_kept(&after, &lab.copies(&target).await);
    no_violations(lab);
}

/// P6: beside, and only as planned.
pub async fn p06_a_diverged_replica_is_set_aside_as_planned(lab: &impl ReplicaLab) {
    let (cx, target) = (context("p06"), lab.target("t"));
    change(lab, &cx, &target, "one", 1).await;
    send(lab, &cx, &target).await;
    lab.diverge(&target).await;
    let old = lab.copies(&target).await;
    assert!(!old.is_empty());
    let two = change(lab, &cx, &target, "two", 2).await;
    let next = plan(lab, &cx, &[&target]).await;
    let divergence = next.steps[0].set_aside.as_ref().expect("the plan says so first");
    assert!(!divergence.why.is_empty() && !divergence.renamed_to.is_empty());
    assert_eq!(next.steps[0].base, None);
    assert_eq!(lab.copies(&target).await, old);
    let report = worked(lab.replicator().execute(&cx, &next).await);
    assert_eq!(report.set_aside.len(), 1);
    let copies = lab.copies(&target).await;
    all_kept(&old, &copies);
    for copy in &copies {
        assert_eq!(copy.aside, old.iter().any(|before| before.guid == copy.guid));
    }
    assert!(copies.iter().any(|copy| copy.guid == two.guid));
    assert_eq!(plan(lab, &cx, &[&target]).await.steps, []);
    no_violations(lab);
}

/// P7: no steps.
pub async fn p07_up_to_date_is_no_work(lab: &impl ReplicaLab) {
    let (cx, target) = (context("p07"), lab.target("t"));
    assert_eq!(
        plan(lab, &cx, &[&target]).await.steps,
        [],
        "there is nothing to send"
    );
    change(lab, &cx, &target, "one", 1).await;
    send(lab, &cx, &target).await;
    let again = plan(lab, &cx, &[&target]).await;
    assert_eq!(again.steps, []);
    let before = lab.copies(&target).await;
    assert_eq!(names(&before), ["one"]);
    let report = worked(lab.replicator().execute(&cx, &again).await);
    assert_eq!((report.sent, report.bytes), (Vec::new(), 0));
    assert_eq!(lab.copies(&target).await, before);
}

/// P8: what the store has doesn't matter.
pub async fn p08_lag_is_read_at_the_replica(lab: &impl ReplicaLab) {
    let (cx, target, replicator) = (context("p08"), lab.target("t"), lab.replicator());
    let ask = async || {
        let targets = [target.clone()];
        worked(replicator.lineage(&cx, &targets).await).remove(0)
    };
    let none = ask().await;
    assert_eq!((none.common, none.newest, none.snapshots), (None, None, 0));
    let one = change(lab, &cx, &target, "one", 1).await;
    assert_eq!(ask().await.newest, None);
    send(lab, &cx, &target).await;
    change(lab, &cx, &target, "two", 9).await;
    let found = ask().await;
    assert_eq!(
        (found.newest, found.snapshots, found.common),
        (Some(minute(1)), 1, Some(one.reference()))
    );
    lab.diverge(&target).await;
    let found = ask().await;
    assert_eq!(found.common, None);
    assert!(found.snapshots > 0);
}

/// P8: never an empty lineage.
pub async fn p08_a_replica_that_cannot_be_asked_is_an_error(lab: &impl ReplicaLab) {
    let (cx, target, replicator) = (context("p08b"), lab.target("t"), lab.replicator());
    change(lab, &cx, &target, "one", 1).await;
    let full = plan(lab, &cx, &[&target]).await;
    lab.set_reachable(false);
    let targets = [target.clone()];
    for error in [
        replicator
            .lineage(&cx, &targets)
            .await
            .map(drop)
            .expect_err("lineage"),
        replicator.plan(&cx, &targets).await.map(drop).expect_err("plan"),
        replicator
            .execute(&cx, &full)
            .await
            .map(drop)
            .expect_err("execute"),
    ] {
        assert_eq!(error.may_have(), Effect::None, "{error}");
    }
    lab.set_reachable(true);
    assert!(lab.copies(&target).await.is_empty());
    worked(replicator.execute(&cx, &full).await);
    assert_eq!(names(&lab.copies(&target).await), ["one"]);
}

/// P9: cancelled before it begins.
pub async fn p09_cancelled_means_ended(lab: &impl ReplicaLab) {
    let (cx, target, replicator) = (context("p09"), lab.target("t"), lab.replicator());
    change(lab, &cx, &target, "one", 1).await;
    send(lab, &cx, &target).await;
    change(lab, &cx, &target, "two", 2).await;
    let next = plan(lab, &cx, &[&target]).await;
    let stop = context("p09");
    stop.cancel.cancel();
    let (targets, kinds) = ([target.clone()], [ReplicateKind::Cancelled]);
    refused(replicator.plan(&stop, &targets).await, &kinds);
    refused(replicator.lineage(&stop, &targets).await, &kinds);
    refused(replicator.execute(&stop, &next).await, &kinds);
    assert_eq!(names(&lab.copies(&target).await), ["one"]);
    worked(replicator.execute(&cx, &next).await);
    assert_eq!(names(&lab.copies(&target).await), ["one", "two"]);
    no_violations(lab);
}

/// P10: with a retention that keeps nothing, and interruptions at many moments.
pub async fn p10_what_was_sent_can_be_continued_whatever_is_pruned(lab: &impl ReplicaLab) {
    let (cx, target, store) = (context("p10"), lab.target("t"), lab.store());
    let targets = std::slice::from_ref(&target);
    let caps = lab.replicator().caps();
    write_odd_tree(lab.files(), &target.mountpoint);
    for polls in lab.interruptions() {
        let minutes = 2 * i64::try_from(polls).expect("a small number");
        change(lab, &cx, &target, &format!("a{polls}"), minutes).await;
        change(lab, &cx, &target, &format!("b{polls}"), minutes + 1).await;
        let next = plan(lab, &cx, &[&target]).await;
        assert_eq!(next.steps[0].set_aside, None, "after {polls} polls");
        let stop = context("p10");
        let _ = cancelled_after(&stop, polls, lab.replicator().execute(&stop, &next)).await;
        if caps.keeps_base {
            let all = worked(store.list(&cx, targets).await);
            let all: Vec<_> = all.iter().map(Snapshot::reference).collect();
            worked(store.prune(&cx, &all).await);
        }
    }
    let last = change(lab, &cx, &target, "last", 99).await;
    let before = lab.copies(&target).await;
    let report = send(lab, &cx, &target).await;
    assert_eq!(report.set_aside, Vec::<String>::new());
    let after = lab.copies(&target).await;
    all_kept(&before, &after);
    assert!(after.iter().any(|copy| copy.guid == last.guid));
    assert!(after.iter().all(|copy| !copy.aside));
    let again = plan(lab, &cx, &[&target]).await;
    assert_eq!((again.steps, again.let_go), (Vec::new(), Vec::new()));
    for left in worked(store.list(&cx, targets).await) {
        assert_eq!(left.holds, [], "{} is held after all was sent", left.name);
    }
    no_violations(lab);
}

/// P11: refused, and it stays where it is.
pub async fn p11_what_is_another_hosts_is_left_alone(lab: &impl ReplicaLab) {
    let (cx, target) = (context("p10"), lab.target("t"));
    let targets = [target.clone()];
    let (ours, theirs) = (lab.of_host("one"), lab.of_host("other"));
    change(lab, &cx, &target, "one", 1).await;
    let full = worked(ours.plan(&cx, &targets).await);
    worked(ours.execute(&cx, &full).await);
    let two = change(lab, &cx, &target, "two", 2).await;
    let next = worked(ours.plan(&cx, &targets).await);
    let before = lab.copies(&target).await;
    let kinds = [ReplicateKind::InvalidInput];
    refused(theirs.plan(&cx, &targets).await, &kinds);
    refused(theirs.lineage(&cx, &targets).await, &kinds);
    refused(theirs.execute(&cx, &next).await, &kinds);
    assert_eq!(lab.copies(&target).await, before);
    worked(ours.execute(&cx, &next).await);
    assert_eq!(names(&lab.copies(&target).await), ["one", "two"]);
    // Nor is it set aside by who has nothing in common with it.
    let all = worked(lab.store().list(&cx, &targets).await);
    assert!(all.contains(&two));
    let all: Vec<_> = all.iter().map(Snapshot::reference).collect();
    worked(lab.store().prune(&cx, &all).await);
    change(lab, &cx, &target, "three", 3).await;
    let before = lab.copies(&target).await;
    refused(theirs.plan(&cx, &targets).await, &kinds);
    assert_eq!(lab.copies(&target).await, before);
    no_violations(lab);
}
