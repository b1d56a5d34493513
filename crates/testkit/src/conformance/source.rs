//! The suite of [`RestoreSource`]: clauses R1 to R11.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use reseed_core::error::{Effect, Retry, SourceKind};
use reseed_core::names::PointId;
use reseed_core::point::{RecoveryPoint, Target};
use reseed_core::source::{RestorePlan, RestoreRequest, Scope};
use reseed_core::store::{Delivery, Staging};
use reseed_core::{Context, RestoreSource};

use super::{cancelled_after, context, failed, minute, refused, suite, worked};
use crate::files::{Files, Listing, assert_same, write_odd_tree};

/// What the suite needs of a source's backend.
#[async_trait]
pub trait SourceLab: Send + Sync {
    /// The source, the same each time.
    fn source(&self) -> Arc<dyn RestoreSource>;
    /// How trees are written and read.
    fn files(&self) -> &dyn Files;
    /// A directory of the suite's own, outside of every staging place.
    fn scratch(&self) -> PathBuf;
    /// A target.
    fn target(&self, name: &str) -> Target;
    /// Makes the source hold the tree at `tree` as a recovery point, taken so many minutes after [`minute`]`(0)`.
    async fn keep(&self, target: &Target, tree: &Path, minutes: i64) -> PointId;
    /// Makes, or opens again, a staging place for a point, as its store would.
    async fn stage(&self, point: &RecoveryPoint) -> Staging;
    /// What is in a staging place.
    async fn staged(&self, staging: &Staging) -> Listing;
    /// Throws a staging place away, so that another point can be staged for the same target.
    async fn discard(&self, staging: &Staging);
    /// Takes the source away, or brings it back.
    fn set_reachable(&self, reachable: bool);
    /// Takes a point away behind the source's back, as a prune elsewhere does.
    async fn forget(&self, point: &RecoveryPoint);
    /// Damages what is stored of a point, so that the source's own checks can find it. Not called unless `caps().verifies`.
    async fn damage(&self, point: &RecoveryPoint);
    /// What went wrong besides: asserted to be nothing when a test ends.
    fn violations(&self) -> Vec<String> {
        Vec::new()
    }
}

suite! { $ conformance_source, source, SourceLab:
    r01_no_points_is_an_answer
    r01_a_source_that_cannot_be_asked_is_an_error
    r02_points_are_sorted_and_carry_the_name
    r03_plan_writes_nothing_and_travels
    r04_execute_finds_that_the_point_is_gone
    r05_only_staging_is_written
    r06_what_comes_back_is_the_point
    r07_what_is_there_is_mended
    r07_an_interrupted_execute_goes_on
    r08_nothing_delivered_is_an_error
    r08_a_path_brings_that_path_alone
    r09_damage_is_told
    r10_the_source_is_only_read
    r11_cancelled_means_ended
}

async fn points(source: &dyn RestoreSource, cx: &Context, target: &Target) -> Vec<RecoveryPoint> {
    worked(source.points(cx, target).await)
}

/// A point of the odd tree, and the tree.
async fn odd_point(lab: &impl SourceLab, cx: &Context, name: &str) -> (RecoveryPoint, Listing) {
    let (target, tree) = (lab.target(name), lab.scratch().join("odd"));
    write_odd_tree(lab.files(), &tree);
    lab.files().set_mode(&tree, 0o751);
    let id = lab.keep(&target, &tree, 1).await;
    let all = points(&*lab.source(), cx, &target).await;
    let point = all.into_iter().find(|point| point.id == id);
    (point.expect("the kept point is offered"), lab.files().list(&tree))
}

fn whole(point: &RecoveryPoint, target: &Target) -> RestoreRequest {
    RestoreRequest {
        target: target.clone(),
        point: point.clone(),
        scope: Scope::Whole,
    }
}

async fn plan(lab: &impl SourceLab, cx: &Context, point: &RecoveryPoint, name: &str) -> RestorePlan {
    worked(lab.source().plan(cx, &whole(point, &lab.target(name))).await)
}

fn no_violations(lab: &dyn SourceLab) {
    assert_eq!(lab.violations(), Vec::<String>::new());
}

/// R1: an empty list is the source's word.
pub async fn r01_no_points_is_an_answer(lab: &impl SourceLab) {
    let cx = context("r01");
    odd_point(lab, &cx, "has").await;
    assert!(
        points(&*lab.source(), &cx, &lab.target("has-none"))
            .await
            .is_empty()
    );
}

/// R1: not knowing is not nothing.
pub async fn r01_a_source_that_cannot_be_asked_is_an_error(lab: &impl SourceLab) {
    let (source, cx, target) = (lab.source(), context("r01b"), lab.target("t"));
    odd_point(lab, &cx, "t").await;
    lab.set_reachable(false);
    for target in [&target, &lab.target("has-none")] {
        let error = source.points(&cx, target).await.expect_err("it can't be asked");
        assert_eq!(error.may_have(), Effect::None);
    }
    lab.set_reachable(true);
    assert_eq!(points(&*source, &cx, &target).await.len(), 1);
}

/// R2: newest first.
pub async fn r02_points_are_sorted_and_carry_the_name(lab: &impl SourceLab) {
    let (source, cx) = (lab.source(), context("r02"));
    let (target, other, tree) = (lab.target("t"), lab.target("t2"), lab.scratch().join("tree"));
    let mut kept = Vec::new();
    for minutes in [1, 2, 3] {
        lab.files()
            .write(&tree.join("f"), &minutes.to_string().into_bytes());
        kept.insert(0, lab.keep(&target, &tree, minutes).await);
    }
    lab.keep(&other, &tree, 9).await;
    let found = points(&*source, &cx, &target).await;
    let ids: Vec<_> = found.iter().map(|point| point.id.clone()).collect();
    assert_eq!(ids, kept);
    for (point, minutes) in found.iter().zip([3, 2, 1]) {
        assert_eq!((&point.source, &point.dataset), (source.name(), &target.dataset));
        assert_eq!(point.taken_at, minute(minutes));
        assert!(!point.partial && !point.unseeded);
    }
}

/// R3: a plan is a value.
pub async fn r03_plan_writes_nothing_and_travels(lab: &impl SourceLab) {
    let (source, cx) = (lab.source(), context("r03"));
    let (point, tree) = odd_point(lab, &cx, "t").await;
    let staging = lab.stage(&point).await;
    let before = lab.staged(&staging).await;
    let plan = plan(lab, &cx, &point, "t").await;
    assert!(!plan.steps.is_empty(), "a plan says what it will do");
    assert_eq!(plan.request.point, point);
    assert_same(&before, &lab.staged(&staging).await, "plan wrote");
    let text = serde_json::to_string(&plan).expect("a plan can be serialised");
    let read: RestorePlan = serde_json::from_str(&text).expect("a plan can be read back");
    assert_eq!(read, plan);
    worked(source.execute(&cx, &read, &staging).await);
    assert_same(&tree, &lab.staged(&staging).await, "a plan that was read back");
    let mut unknown = point.clone();
    unknown.id = PointId::new("no-such-point").expect("an id");
    unknown.locator = "no-such-point".to_owned();
    refused(
        source.plan(&cx, &whole(&unknown, &lab.target("t"))).await,
        &[SourceKind::NoSuchPoint],
    );
    no_violations(lab);
}

/// R4: the world moved between plan and execute.
pub async fn r04_execute_finds_that_the_point_is_gone(lab: &impl SourceLab) {
    let (source, cx) = (lab.source(), context("r04"));
    let (point, _) = odd_point(lab, &cx, "t").await;
    // Where nothing at all is left, some sources hold that it got lost.
    lab.keep(&lab.target("u"), &lab.scratch().join("odd"), 1).await;
    let plan = plan(lab, &cx, &point, "t").await;
    let staging = lab.stage(&point).await;
    if source.caps().delivery == Delivery::Files {
        lab.files()
            .write(&staging.path.join("half"), b"of an earlier try");
    }
    let before = lab.staged(&staging).await;
    lab.forget(&point).await;
    let kinds = [SourceKind::NoSuchPoint, SourceKind::StalePlan];
    refused(source.execute(&cx, &plan, &staging).await, &kinds);
    assert_same(&before, &lab.staged(&staging).await, "staging");
    assert!(points(&*source, &cx, &lab.target("t")).await.is_empty());
}

/// R5: a link that an earlier try, or an attacker, left in staging leads nowhere.
pub async fn r05_only_staging_is_written(lab: &impl SourceLab) {
    let (source, cx, files) = (lab.source(), context("r05"), lab.files());
    let (point, tree) = odd_point(lab, &cx, "t").await;
    let outside = lab.scratch().join("outside");
    files.write(&outside.join("er/still/file.txt"), b"not yours");
    files.write(&outside.join("main.db"), b"not yours");
    files.write(&outside.join("surplus"), b"not yours");
    let before = files.list(&outside);
    let staging = lab.stage(&point).await;
    if source.caps().delivery == Delivery::Files {
        files.symlink(&outside, &staging.path.join("deep"));
        files.symlink(&outside.join("main.db"), &staging.path.join("private"));
        files.symlink(&outside, &staging.path.join("surplus-link"));
    }
    let plan = plan(lab, &cx, &point, "t").await;
    worked(source.execute(&cx, &plan, &staging).await);
    assert_same(&before, &files.list(&outside), "what is outside of staging");
    assert_same(&tree, &lab.staged(&staging).await, "the restored tree");
    no_violations(lab);
}

/// R6: types, content, modes, links, names.
pub async fn r06_what_comes_back_is_the_point(lab: &impl SourceLab) {
    let (source, cx) = (lab.source(), context("r06"));
    let (point, tree) = odd_point(lab, &cx, "t").await;
    let staging = lab.stage(&point).await;
    let plan = plan(lab, &cx, &point, "t").await;
    let restored = worked(source.execute(&cx, &plan, &staging).await);
    assert_same(&tree, &lab.staged(&staging).await, "the restored tree");
    assert_eq!(restored.reused, 0, "nothing was there before");
    assert!(restored.files > 0 && restored.bytes > 0);
    assert_eq!(restored.warnings, Vec::<String>::new());
    no_violations(lab);
}

/// R7: whatever is wrong in staging.
pub async fn r07_what_is_there_is_mended(lab: &impl SourceLab) {
    let (source, cx, files) = (lab.source(), context("r07"), lab.files());
    let (point, tree) = odd_point(lab, &cx, "t").await;
    let plan = plan(lab, &cx, &point, "t").await;
    let staging = lab.stage(&point).await;
    worked(source.execute(&cx, &plan, &staging).await);
    if source.caps().delivery == Delivery::Files {
        let at = |path: &str| staging.path.join(path);
        files.flip(&at("db/main.db"), 4000);
        files.set_len(&at("with space"), 2);
        files.set_mode(&at("run.sh"), 0o644);
        files.remove(&at("deep"));
        files.write(&at("deep"), b"a file where a directory should be");
        files.remove(&at(".hidden"));
        files.make_dir(&at(".hidden/in"));
        files.write(&at("surplus/file"), b"does not belong here");
        files.write(&at("surplus2"), b"does not belong here");
        files.remove(&at("link"));
        files.symlink(Path::new("wrong"), &at("link"));
        files.remove(&at("empty-dir"));
    }
    let again = lab.stage(&point).await;
    let restored = worked(source.execute(&cx, &plan, &again).await);
    assert_same(&tree, &lab.staged(&again).await, "the mended tree");
    assert!(restored.reused <= restored.bytes);
    no_violations(lab);
}

/// R7: cancelled at many moments, each time gone on with.
pub async fn r07_an_interrupted_execute_goes_on(lab: &impl SourceLab) {
    let (source, cx) = (lab.source(), context("r07b"));
    let (point, tree) = odd_point(lab, &cx, "t").await;
    let plan = plan(lab, &cx, &point, "t").await;
    let mut interrupted = 0;
    for polls in 1..40 {
        let staging = lab.stage(&point).await;
        let stop = context("r07b");
        match cancelled_after(&stop, polls, source.execute(&stop, &plan, &staging)).await {
            Ok(_) => break,
            Err(error) => {
                let error = failed::<(), _>(Err(error), &[SourceKind::Cancelled]);
                assert!(matches!(error.may_have(), Effect::None | Effect::StagingOnly));
                interrupted += 1;
            }
        }
    }
    let staging = lab.stage(&point).await;
    worked(source.execute(&cx, &plan, &staging).await);
    assert_same(
        &tree,
        &lab.staged(&staging).await,
        &format!("after {interrupted} interruptions"),
    );
    no_violations(lab);
}

/// R8: a path that is not there.
pub async fn r08_nothing_delivered_is_an_error(lab: &impl SourceLab) {
    let (source, cx) = (lab.source(), context("r08"));
    let (point, _) = odd_point(lab, &cx, "t").await;
    for path in ["no/such/path", "db/main.db/below-a-file", "d"] {
        let request = RestoreRequest {
            scope: Scope::Path(PathBuf::from(path)),
            ..whole(&point, &lab.target("t"))
        };
        if !source.caps().partial {
            refused(source.plan(&cx, &request).await, &[SourceKind::Unsupported]);
            continue;
        }
        // Some sources see it when they plan, some when they have walked the tree.
        let error = match source.plan(&cx, &request).await {
            Err(error) => error,
            Ok(plan) => {
                let staging = lab.stage(&point).await;
                let result = source.execute(&cx, &plan, &staging).await;
                result.expect_err("nothing was delivered")
            }
        };
        failed::<(), _>(Err(error), &[SourceKind::NothingRestored]);
    }
    let (nothing, tree) = (lab.target("nothing"), lab.scratch().join("nothing"));
    lab.files().make_dir(&tree);
    let id = lab.keep(&nothing, &tree, 1).await;
    let all = points(&*source, &cx, &nothing).await;
    let Some(point) = all.into_iter().find(|point| point.id == id) else {
        return;
    };
    let delivered = match source.plan(&cx, &whole(&point, &nothing)).await {
        Err(error) => Err(error),
        Ok(plan) => {
            let staging = lab.stage(&point).await;
            source.execute(&cx, &plan, &staging).await
        }
    };
    if point.is_of_nothing() {
        assert_eq!(delivered.expect("it is recorded that there was nothing").files, 0);
    } else {
        failed(delivered, &[SourceKind::NothingRestored]);
    }
}

/// R8: one file, one directory, an empty directory.
pub async fn r08_a_path_brings_that_path_alone(lab: &impl SourceLab) {
    let (source, cx) = (lab.source(), context("r08b"));
    if !source.caps().partial {
        return r08_nothing_delivered_is_an_error(lab).await;
    }
    let (target, tree) = (lab.target("t"), lab.scratch().join("odd"));
    write_odd_tree(lab.files(), &tree);
    for (minutes, path) in (1i64..).zip(["db/main.db", "deep/er", "empty-dir", "-rf"]) {
        // A point each, so that each has a staging place of its own.
        lab.files().write(&tree.join("counter"), &minutes.to_be_bytes());
        let id = lab.keep(&target, &tree, minutes).await;
        let expected = lab.files().list(&tree);
        let all = points(&*source, &cx, &target).await;
        let point = all
            .into_iter()
            .find(|point| point.id == id)
            .expect("the kept point");
        let request = RestoreRequest {
            scope: Scope::Path(PathBuf::from(path)),
            ..whole(&point, &target)
        };
        let plan = worked(source.plan(&cx, &request).await);
        let staging = lab.stage(&point).await;
        worked(source.execute(&cx, &plan, &staging).await);
        let found = lab.staged(&staging).await;
        let below = |listing: &Listing| -> Listing {
            let entries = listing.iter().filter(|(other, _)| other.starts_with(path));
            entries
                .map(|(path, entry)| (path.clone(), entry.clone()))
                .collect()
        };
        assert_same(&below(&expected), &below(&found), path);
        for other in found.keys() {
            assert!(
                other.starts_with(path) || Path::new(path).starts_with(other),
                "{} was not asked for",
                other.display()
            );
        }
        lab.discard(&staging).await;
    }
    no_violations(lab);
}

/// R9: damage is damage, and trying again doesn't help.
pub async fn r09_damage_is_told(lab: &impl SourceLab) {
    let (source, cx) = (lab.source(), context("r09"));
    if !source.caps().verifies {
        // Whoever reads it finds out by the fingerprint; there is nothing the source could tell.
        return r06_what_comes_back_is_the_point(lab).await;
    }
    let (point, _) = odd_point(lab, &cx, "t").await;
    let plan = plan(lab, &cx, &point, "t").await;
    lab.damage(&point).await;
    let staging = lab.stage(&point).await;
    let error = failed(source.execute(&cx, &plan, &staging).await, &[SourceKind::Corrupt]);
    assert_eq!(error.should_retry(), Retry::Never);
    assert!(matches!(error.may_have(), Effect::None | Effect::StagingOnly));
}

/// R10: after restores, whole, partial, failed and cancelled, everything is still there.
pub async fn r10_the_source_is_only_read(lab: &impl SourceLab) {
    let (source, cx) = (lab.source(), context("r10"));
    let (point, tree) = odd_point(lab, &cx, "t").await;
    lab.files()
        .write(&lab.scratch().join("second/file"), b"another point");
    lab.keep(&lab.target("t"), &lab.scratch().join("second"), 5).await;
    let before = points(&*source, &cx, &lab.target("t")).await;
    let plan = plan(lab, &cx, &point, "t").await;
    let staging = lab.stage(&point).await;
    let stop = context("r10");
    let _ = cancelled_after(&stop, 3, source.execute(&stop, &plan, &staging)).await;
    worked(source.execute(&cx, &plan, &staging).await);
    if source.caps().delivery == Delivery::Files {
        // A file that is shared with the source would change it now.
        lab.files()
            .write_at(&staging.path.join("db/main.db"), 0, b"written by the service");
        lab.files().set_mode(&staging.path.join("run.sh"), 0o600);
    }
    assert_eq!(points(&*source, &cx, &lab.target("t")).await, before);
    let again = lab.stage(&point).await;
    worked(source.execute(&cx, &plan, &again).await);
    assert_same(&tree, &lab.staged(&again).await, "the point, restored again");
    no_violations(lab);
}

/// R11: cancelled before it begins.
pub async fn r11_cancelled_means_ended(lab: &impl SourceLab) {
    let (source, cx) = (lab.source(), context("r11"));
    let (point, tree) = odd_point(lab, &cx, "t").await;
    let plan = plan(lab, &cx, &point, "t").await;
    let staging = lab.stage(&point).await;
    let stop = context("r11");
    stop.cancel.cancel();
    let kinds = [SourceKind::Cancelled];
    let target = lab.target("t");
    refused(source.points(&stop, &target).await, &kinds);
    refused(source.plan(&stop, &whole(&point, &target)).await, &kinds);
    refused(source.execute(&stop, &plan, &staging).await, &kinds);
    assert!(lab.staged(&staging).await.len() <= 1, "something was written");
    worked(source.execute(&cx, &plan, &staging).await);
    assert_same(&tree, &lab.staged(&staging).await, "calling again");
    no_violations(lab);
}
