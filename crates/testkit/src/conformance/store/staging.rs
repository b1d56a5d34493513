//! Clause S10: staging.

use reseed_core::error::StoreKind;
use reseed_core::store::{Condition, Delivery, Settle, StagePurpose, StageRequest, StageState};

use super::super::{context, point, refused, worked};
use super::{StoreLab, inspect, list, no_violations, restore_of, staged};
use crate::files::assert_same;

/// S10: nobody takes it for data.
pub async fn s10_staging_is_invisible(lab: &impl StoreLab) {
    let (store, cx) = (lab.store(), context("s10"));
    let (absent, empty) = (lab.absent("absent"), lab.absent("empty"));
    lab.make(&empty);
    for (target, expected) in [(&absent, Condition::Absent), (&empty, Condition::Empty)] {
        let staging = worked(store.stage(&cx, &restore_of(target, "p1")).await);
        assert_eq!(staging.state, StageState::Fresh);
        assert_eq!(&staging.target, target);
        assert!(
            lab.files().exists(&staging.path),
            "a staging place for files is there"
        );
        assert!(
            !staging.path.starts_with(&target.mountpoint),
            "staging is inside of the target"
        );
        lab.files().write(&staging.path.join("half"), b"done");
        let found = inspect(&*store, &cx, target).await;
        assert_eq!(found.condition, expected);
        assert_eq!(found.marker, None);
        let leftover = found.leftover.expect("what is staged is told");
        assert_eq!((&leftover.run, &leftover.point), (&cx.run, &point(target, "p1")));
        assert_eq!(leftover.source, leftover.point.source);
        assert!(list(&*store, &cx, target).await.is_empty());
    }
    no_violations(lab);
}

/// S10: what is there is opened again.
pub async fn s10_the_same_point_gets_the_same_staging(lab: &impl StoreLab) {
    let (store, cx) = (lab.store(), context("s10b"));
    let target = lab.absent("again");
    let first = staged(lab, &*store, &cx, &target, "p1").await;
    let before = lab.files().list(&first.path);
    let second = worked(store.stage(&context("later"), &restore_of(&target, "p1")).await);
    assert_eq!(second.state, StageState::Partial);
    assert_eq!((&second.path, &second.locator), (&first.path, &first.locator));
    assert_same(&before, &lab.files().list(&second.path), "what was staged");
    worked(store.settle(&cx, &Settle::Discard { staging: second }).await);
    let fresh = worked(store.stage(&cx, &restore_of(&target, "p1")).await);
    assert_eq!(fresh.state, StageState::Fresh);
    assert_eq!(
        lab.files().list(&fresh.path).len(),
        1,
        "a fresh place holds its root alone"
    );
}

/// S10: another point, or the same from another source, is left alone.
pub async fn s10_another_point_is_a_conflict(lab: &impl StoreLab) {
    let (store, cx) = (lab.store(), context("s10c"));
    let target = lab.absent("taken");
    let first = staged(lab, &*store, &cx, &target, "p1").await;
    let before = lab.files().list(&first.path);
    refused(
        store.stage(&cx, &restore_of(&target, "p2")).await,
        &[StoreKind::StageConflict],
    );
    let mut elsewhere = point(&target, "p1");
    elsewhere.source = super::super::source_name("elsewhere");
    let purpose = StagePurpose::Restore {
        point: elsewhere,
        delivery: Delivery::Files,
    };
    let other = StageRequest {
        target: target.clone(),
        purpose,
    };
    refused(store.stage(&cx, &other).await, &[StoreKind::StageConflict]);
    assert_same(
        &before,
        &lab.files().list(&first.path),
        "the staging of another point",
    );
    let leftover = inspect(&*store, &cx, &target).await.leftover.expect("a leftover");
    let mut wrong = leftover.clone();
    wrong.point = point(&target, "p9");
    let discard = |leftover| Settle::DiscardLeftover {
        target: target.clone(),
        leftover,
    };
    refused(store.settle(&cx, &discard(wrong)).await, &[StoreKind::StalePlan]);
    assert_same(
        &before,
        &lab.files().list(&first.path),
        "the staging of another point",
    );
    worked(store.settle(&cx, &discard(leftover)).await);
    assert_eq!(inspect(&*store, &cx, &target).await.leftover, None);
    let second = worked(store.stage(&cx, &restore_of(&target, "p2")).await);
    assert_eq!(second.state, StageState::Fresh);
}
