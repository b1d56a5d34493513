//! The suite of [`OffsitePruner`]: clauses F1 to F5. Its lab is that of off-site repositories, with somebody who may remove.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use reseed_core::error::{Effect, OffsiteKind};
use reseed_core::offsite::CheckDepth;
use reseed_core::point::{RecoveryPoint, Target};
use reseed_core::{Context, OffsitePruner, OffsiteRepo};

use super::offsite::{NOISE, OffsiteLab, back_up, no_violations, noise, ready, request};
use super::{cancelled_after, context, failed, refused, suite, worked};

/// What the suite needs of a backend besides what [`OffsiteLab`] has.
pub trait PrunerLab: OffsiteLab {
    /// What removes points of the host `host-a` from the repository at the lab's place.
    fn pruner(&self) -> Arc<dyn OffsitePruner>;
}

suite! { $ conformance_pruner, pruner, PrunerLab:
    f01_own_points_are_those_of_this_host
    f02_forget_removes_what_is_named
    f02_nothing_goes_when_one_is_no_own_point
    f03_prune_removes_what_no_point_needs
    f04_locks_are_honoured
    f05_cancelled_means_ended
}

/// Three points of a target, each of a tree with content of its own, oldest first; and one that another host wrote.
struct Stored {
    repo: Arc<dyn OffsiteRepo>,
    pruner: Arc<dyn OffsitePruner>,
    target: Target,
    own: Vec<RecoveryPoint>,
    theirs: RecoveryPoint,
}

fn tree(lab: &impl PrunerLab, name: &str, seed: u64) -> PathBuf {
    let tree = lab.scratch().join(name);
    lab.files().write(&tree.join("noise"), &noise(seed));
    lab.files().write(&tree.join("common"), b"in all of them");
    tree
}

async fn stored(lab: &impl PrunerLab, cx: &Context) -> Stored {
    let (repo, target) = (ready(lab, cx).await, lab.target("t"));
    for (seed, id) in [(1, "p1"), (2, "p2"), (3, "p3")] {
        let minutes = i64::try_from(seed).unwrap_or(0);
        back_up(&*repo, cx, &request(&target, &tree(lab, id, seed), id, minutes)).await;
    }
    let mut other = request(&target, &tree(lab, "other", 4), "p4", 4);
    other.host = "host-b".to_owned();
    back_up(&*repo, cx, &other).await;
    let mut points = worked(repo.points(cx, None).await);
    points.reverse();
    assert_eq!(points.len(), 4);
    Stored {
        pruner: lab.pruner(),
        theirs: points.remove(3),
        own: points,
        repo,
        target,
    }
}

impl Stored {
    async fn left(&self, cx: &Context) -> BTreeSet<String> {
        let points = worked(self.repo.points(cx, None).await);
        points.into_iter().map(|point| point.locator).collect()
    }

    async fn all_sound(&self, cx: &Context) {
        let report = worked(self.repo.check(cx, CheckDepth::Everything).await);
        assert_eq!(report.errors, Vec::<String>::new());
    }
}

fn locators<'p>(points: impl IntoIterator<Item = &'p RecoveryPoint>) -> Vec<String> {
    points.into_iter().map(|point| point.locator.clone()).collect()
}

/// F1: newest first, with their datasets.
pub async fn f01_own_points_are_those_of_this_host(lab: &impl PrunerLab) {
    let cx = context("f01");
    let stored = stored(lab, &cx).await;
    let own = worked(stored.pruner.own_points(&cx).await);
    let wanted: Vec<_> = locators(stored.own.iter().rev());
    assert_eq!(locators(&own), wanted);
    for point in &own {
        assert_eq!(
            (&point.dataset, &point.source),
            (&stored.target.dataset, stored.pruner.name())
        );
    }
    no_violations(lab);
}

/// F2: each is answered, and what was gone is gone.
pub async fn f02_forget_removes_what_is_named(lab: &impl PrunerLab) {
    let cx = context("f02");
    let stored = stored(lab, &cx).await;
    let named = locators(&stored.own[1..2]);
    for _ in 0..2 {
        let forgotten = worked(stored.pruner.forget(&cx, &named).await);
        assert_eq!(forgotten.len(), 1);
        assert_eq!((&forgotten[0].locator, &forgotten[0].kept), (&named[0], &None));
        let left = locators([&stored.own[0], &stored.own[2], &stored.theirs]);
        assert_eq!(stored.left(&cx).await, left.into_iter().collect());
    }
    assert!(worked(stored.pruner.forget(&cx, &[]).await).is_empty());
    stored.all_sound(&cx).await;
    no_violations(lab);
}

/// F2: what another host wrote stays, and what is named beside it.
pub async fn f02_nothing_goes_when_one_is_no_own_point(lab: &impl PrunerLab) {
    let cx = context("f02b");
    let stored = stored(lab, &cx).await;
    let before = lab.objects();
    let named = locators([&stored.own[0], &stored.theirs]);
    refused(
        stored.pruner.forget(&cx, &named).await,
        &[OffsiteKind::InvalidInput],
    );
    assert_eq!(lab.objects(), before);
    no_violations(lab);
}

/// F3: the data of what was forgotten goes, and all that is listed is whole.
pub async fn f03_prune_removes_what_no_point_needs(lab: &impl PrunerLab) {
    let cx = context("f03");
    let stored = stored(lab, &cx).await;
    let size = || lab.objects().values().sum::<u64>();
    worked(stored.pruner.prune(&cx).await);
    let full = size();
    worked(
        stored
            .pruner
            .forget(&cx, &locators([&stored.own[0], &stored.own[2]]))
            .await,
    );
    let left = stored.left(&cx).await;
    worked(stored.pruner.prune(&cx).await);
    assert!(size() + 2 * NOISE <= full, "{} of {full} are left", size());
    assert!(size() > 2 * NOISE, "what two points need was taken");
    assert_eq!(stored.left(&cx).await, left);
    stored.all_sound(&cx).await;
    no_violations(lab);
}

/// F4: somebody else's exclusive lock, and the holder is named.
pub async fn f04_locks_are_honoured(lab: &impl PrunerLab) {
    let cx = context("f04");
    let stored = stored(lab, &cx).await;
    let (before, named) = (lab.objects(), locators(&stored.own[..1]));
    let holder = lab.lock_exclusively();
    let errors = [
        refused(stored.pruner.forget(&cx, &named).await, &[OffsiteKind::Locked]),
        refused(stored.pruner.prune(&cx).await, &[OffsiteKind::Locked]),
    ];
    for error in errors {
        let told = format!("{error} {}", error.what_to_do().unwrap_or_default());
        assert!(told.contains(&holder), "{told:?} doesn't name {holder:?}");
    }
    assert_eq!(lab.objects(), before);
    assert_eq!(lab.locks(), 1, "the other's lock, and none of ours");
    lab.unlock();
    worked(stored.pruner.forget(&cx, &named).await);
    worked(stored.pruner.prune(&cx).await);
    no_violations(lab);
}

/// F5: before it begins, and at many moments; whatever a cancelled one left, a later one takes away.
pub async fn f05_cancelled_means_ended(lab: &impl PrunerLab) {
    let cx = context("f05");
    let stored = stored(lab, &cx).await;
    let kinds = [OffsiteKind::Cancelled];
    let named = locators(&stored.own[..2]);
    let before = lab.objects();
    let stop = context("f05");
    stop.cancel.cancel();
    refused(stored.pruner.own_points(&stop).await, &kinds);
    refused(stored.pruner.forget(&stop, &named).await, &kinds);
    refused(stored.pruner.prune(&stop).await, &kinds);
    assert_eq!(lab.objects(), before);
    let full: u64 = before.values().sum();
    let mut cut = 0;
    for polls in 1..6 {
        for forget in [true, false] {
            let stop = context("f05");
            let ended = if forget {
                let call = stored.pruner.forget(&stop, &named);
                cancelled_after(&stop, polls, call).await.map(drop)
            } else {
                cancelled_after(&stop, polls, stored.pruner.prune(&stop)).await
            };
            if let Err(error) = ended {
                let error = failed::<(), _>(Err(error), &kinds);
                assert_ne!(error.may_have(), Effect::Unknown);
                cut += 1;
            }
            assert_eq!(lab.locks(), 0, "a cancelled call left its lock");
            let left = stored.left(&cx).await;
            let kept = locators([&stored.own[2], &stored.theirs]);
            assert!(kept.iter().all(|locator| left.contains(locator)));
            stored.all_sound(&cx).await;
        }
    }
    assert!(cut > 0, "none was cut off");
    worked(stored.pruner.forget(&cx, &named).await);
    worked(stored.pruner.prune(&cx).await);
    stored.all_sound(&cx).await;
    let size: u64 = lab.objects().values().sum();
    assert!(size + 2 * NOISE <= full, "{size} of {full} are left");
    no_violations(lab);
}
