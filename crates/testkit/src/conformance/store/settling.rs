//! Clauses S11 to S16: promoting, marking, cancelling, and what setting aside would keep.

use reseed_core::error::{Effect, StoreKind};
use reseed_core::names::Guid;
use reseed_core::point::{Marker, MarkerState, Target};
use reseed_core::store::{
    Condition, Delivery, HoldChange, Leftover, Replace, Settle, StagePurpose, StageRequest, StageState,
    Staging,
};

use super::super::{cancelled_after, context, failed, marker, minute, point, refused, worked};
use super::{
    StoreLab, condition, content, inspect, list, no_violations, request, restore_of, snapshot, staged,
};
use crate::faults::crash_after;
use crate::files::{assert_same, write_odd_tree};

fn promote(staging: &Staging, id: &str, run: &str, replace: Replace) -> Settle {
    Settle::Promote {
        staging: staging.clone(),
        replace,
        marker: marker(&context(run), &point(&staging.target, id)),
    }
}

/// S11: onto nothing and onto something empty.
pub async fn s11_promote_puts_the_staged_tree_in_place(lab: &impl StoreLab) {
    let (store, cx) = (lab.store(), context("s11"));
    let (absent, empty) = (lab.absent("absent"), lab.absent("empty"));
    lab.make(&empty);
    for target in [&absent, &empty] {
        let staging = worked(store.stage(&cx, &restore_of(target, "p1")).await);
        write_odd_tree(lab.files(), &staging.path);
        lab.files().set_mode(&staging.path, 0o710);
        let expected = lab.files().list(&staging.path);
        let request = promote(&staging, "p1", "s11", Replace::OnlyEmpty);
        let settled = worked(store.settle(&cx, &request).await);
        assert_same(
            &expected,
            &lab.files().list(&target.mountpoint),
            "the promoted tree",
        );
        let found = inspect(&*store, &cx, target).await;
        assert_eq!(found.condition, Condition::Populated);
        assert_eq!(found.leftover, None);
        assert_eq!(found.guid, settled.guid);
        assert_eq!(found.marker, Some(marker(&cx, &point(target, "p1"))));
        assert!(!lab.files().exists(&staging.path), "staging is still there");
    }
    no_violations(lab);
}

/// S11: populated is left alone, also when it became so after it was looked at.
pub async fn s11_promote_leaves_a_populated_target_alone(lab: &impl StoreLab) {
    let (store, cx) = (lab.store(), context("s11b"));
    let target = lab.absent("late");
    let staging = staged(lab, &*store, &cx, &target, "p1").await;
    let waiting = lab.files().list(&staging.path);
    lab.make(&target);
    lab.files()
        .write(&target.mountpoint.join("precious"), b"written by the service");
    let before = lab.files().list(&target.mountpoint);
    let request = promote(&staging, "p1", "s11b", Replace::OnlyEmpty);
    refused(store.settle(&cx, &request).await, &[StoreKind::StalePlan]);
    assert_same(&before, &lab.files().list(&target.mountpoint), "live data");
    assert_same(&waiting, &lab.files().list(&staging.path), "what was staged");
    let empty = Settle::StartEmpty {
        target: target.clone(),
        marker: marker(&cx, &point(&target, "p1")),
    };
    refused(store.settle(&cx, &empty).await, &[StoreKind::StalePlan]);
    assert_same(&before, &lab.files().list(&target.mountpoint), "live data");
    assert_eq!(inspect(&*store, &cx, &target).await.marker, None);
    no_violations(lab);
}

/// S11: an explicit restore over live data renames it.
pub async fn s11_set_aside_wants_the_right_guid_and_keeps_what_was_there(lab: &impl StoreLab) {
    let (store, cx) = (lab.store(), context("s11c"));
    let target = lab.absent("replaced");
    lab.make(&target);
    write_odd_tree(lab.files(), &target.mountpoint);
    let before = lab.files().list(&target.mountpoint);
    let guid = inspect(&*store, &cx, &target).await.guid.expect("a guid");
    let staging = staged(lab, &*store, &cx, &target, "p1").await;
    let expected = lab.files().list(&staging.path);
    let aside = |guid| promote(&staging, "p1", "s11c", Replace::SetAside { guid });
    if !store.caps().set_aside {
        refused(store.settle(&cx, &aside(guid)).await, &[StoreKind::Unsupported]);
        assert_same(&before, &lab.files().list(&target.mountpoint), "live data");
        return;
    }
    refused(
        store.settle(&cx, &aside(Guid(guid.0 ^ 1))).await,
        &[StoreKind::StalePlan],
    );
    assert_same(&before, &lab.files().list(&target.mountpoint), "live data");
    let settled = worked(store.settle(&cx, &aside(guid)).await);
    assert_same(
        &expected,
        &lab.files().list(&target.mountpoint),
        "the promoted tree",
    );
    assert_ne!(settled.guid, Some(guid), "another tree has another guid");
    let name = settled.set_aside.expect("the name of what was set aside");
    assert_same(&before, &lab.kept(&name), "what was set aside");
    assert!(list(&*store, &cx, &target).await.is_empty());
    no_violations(lab);
}

/// What a promotion may be found as while it goes on: not begun, or the whole tree without or with the marker.
async fn at_any_moment(
    lab: &impl StoreLab,
    target: &Target,
    expected: &crate::files::Listing,
    marker: &Marker,
) {
    let (store, cx) = (lab.store(), context("look"));
    let found = inspect(&*store, &cx, target).await;
    match found.condition {
        Condition::Absent | Condition::Empty | Condition::Unmounted { .. } => {
            assert_eq!(found.marker, None, "the marker came before the data");
        }
        Condition::Populated => {
            assert_same(
                expected,
                &lab.files().list(&target.mountpoint),
                "a half tree is live",
            );
            assert!(found.marker.is_none() || found.marker.as_ref() == Some(marker));
        }
        other => panic!("a crash left {other:?}"),
    }
}

/// S12: dropped at every await point, and settled again.
pub async fn s12_a_crash_of_promote_is_finished_by_the_same_request(lab: &impl StoreLab) {
    if !lab.drop_is_a_crash() {
        // Threads and children go on after a drop; the clause's other half is in the next test.
        return s12_settling_again_after_the_end_is_no_error(lab).await;
    }
    let (store, cx) = (lab.store(), context("s12"));
    let mut finished = 0;
    for polls in 1.. {
        let target = lab.absent(&format!("crash{polls}"));
        if polls % 2 == 0 {
            lab.make(&target);
        }
        let staging = staged(lab, &*store, &cx, &target, "p1").await;
        let expected = lab.files().list(&staging.path);
        let marker = marker(&context("s12"), &point(&target, "p1"));
        let request = promote(&staging, "p1", "s12", Replace::OnlyEmpty);
        let ended = crash_after(polls, store.settle(&cx, &request)).await;
        at_any_moment(lab, &target, &expected, &marker).await;
        let found = inspect(&*store, &cx, &target).await;
        let request = match found.leftover.filter(|leftover| leftover.promoted) {
            Some(leftover) => {
                assert_eq!(found.condition, Condition::Populated);
                assert_eq!(
                    (&leftover.run, &leftover.point.id),
                    (&cx.run, &point(&target, "p1").id)
                );
                finished += 1;
                Settle::Finish {
                    target: target.clone(),
                    leftover,
                    marker: marker.clone(),
                }
            }
            None => request,
        };
        for _ in 0..2 {
            worked(store.settle(&cx, &request).await);
            let found = inspect(&*store, &cx, &target).await;
            assert_eq!((found.marker.as_ref(), found.leftover), (Some(&marker), None));
            let live = lab.files().list(&target.mountpoint);
            assert_same(&expected, &live, "after the second try");
        }
        no_violations(lab);
        if ended.is_ok() {
            assert!(
                finished > 0,
                "a promotion without an await point between its steps shows nothing"
            );
            return;
        }
    }
}

/// S12: the same request, all done already.
pub async fn s12_settling_again_after_the_end_is_no_error(lab: &impl StoreLab) {
    let (store, cx) = (lab.store(), context("s12b"));
    let target = lab.absent("twice");
    let staging = staged(lab, &*store, &cx, &target, "p1").await;
    let expected = lab.files().list(&staging.path);
    let request = promote(&staging, "p1", "s12b", Replace::OnlyEmpty);
    let first = worked(store.settle(&cx, &request).await);
    let second = worked(store.settle(&cx, &request).await);
    assert_eq!(first.guid, second.guid);
    assert_same(
        &expected,
        &lab.files().list(&target.mountpoint),
        "the promoted tree",
    );
    let marker = marker(&cx, &point(&target, "p1"));
    assert_eq!(inspect(&*store, &cx, &target).await.marker, Some(marker));
    // What the service writes afterwards is not taken for the promoted tree.
    lab.files()
        .write(&target.mountpoint.join("which"), b"changed by the service");
    let live = lab.files().list(&target.mountpoint);
    let _ = store.settle(&cx, &request).await;
    assert_same(&live, &lab.files().list(&target.mountpoint), "live data");
    no_violations(lab);
}

/// S12: only what was promoted and not marked can be finished.
pub async fn s12_finish_leaves_any_other_target_alone(lab: &impl StoreLab) {
    let (store, cx) = (lab.store(), context("s12d"));
    let (own, restored) = (lab.absent("own"), lab.absent("restored"));
    lab.make(&own);
    lab.files()
        .write(&own.mountpoint.join("data"), b"the service's own");
    let staging = staged(lab, &*store, &cx, &restored, "p1").await;
    worked(
        store
            .settle(&cx, &promote(&staging, "p1", "s12d", Replace::OnlyEmpty))
            .await,
    );
    for (target, id) in [(&own, "p1"), (&restored, "p9")] {
        let before = (
            inspect(&*store, &cx, target).await,
            lab.files().list(&target.mountpoint),
        );
        let finish = Settle::Finish {
            target: target.clone(),
            leftover: Leftover {
                over: None,
                files: false,
                run: context("another").run,
                source: point(target, id).source,
                point: point(target, id),
                promoted: true,
            },
            marker: marker(&cx, &point(target, id)),
        };
        refused(store.settle(&cx, &finish).await, &[StoreKind::StalePlan]);
        assert_eq!(inspect(&*store, &cx, target).await, before.0);
        assert_same(&before.1, &lab.files().list(&target.mountpoint), "live data");
    }
}

/// S12: the other two that write markers.
pub async fn s12_start_empty_and_mark_write_the_marker(lab: &impl StoreLab) {
    let (store, cx) = (lab.store(), context("s12c"));
    let states = [
        MarkerState::FirstStart,
        MarkerState::Unseeded {
            why: "the replica's host didn't answer: \"timeout\"\nand so on".to_owned(),
        },
    ];
    for (at, state) in states.into_iter().enumerate() {
        let target = lab.absent(&format!("started{at}"));
        if at == 1 {
            lab.make(&target);
        }
        let marker = Marker {
            run: cx.run.clone(),
            at: minute(5),
            state,
        };
        let start = Settle::StartEmpty {
            target: target.clone(),
            marker: marker.clone(),
        };
        let settled = worked(store.settle(&cx, &start).await);
        let found = inspect(&*store, &cx, &target).await;
        assert_eq!(
            (found.condition, found.marker),
            (Condition::Empty, Some(marker.clone()))
        );
        assert_eq!(found.guid, settled.guid);
        worked(store.settle(&cx, &start).await);
        // A marker is replaced by a later one, and the files are left alone.
        lab.files().write(&target.mountpoint.join("data"), b"new");
        let live = lab.files().list(&target.mountpoint);
        let adopted = Marker {
            state: MarkerState::Adopted,
            ..marker
        };
        let mark = Settle::Mark {
            target: target.clone(),
            guid: found.guid.expect("a guid"),
            marker: adopted.clone(),
        };
        worked(store.settle(&cx, &mark).await);
        let found = inspect(&*store, &cx, &target).await;
        assert_eq!(
            (found.condition, found.marker),
            (Condition::Populated, Some(adopted))
        );
        assert_same(&live, &lab.files().list(&target.mountpoint), "live data");
    }
    no_violations(lab);
}

/// S13: quarantined trees stay, discarded ones were only staged.
pub async fn s13_quarantine_keeps_and_discard_takes_only_staging(lab: &impl StoreLab) {
    let (store, cx) = (lab.store(), context("s13"));
    let (target, other) = (lab.absent("bad"), lab.absent("other"));
    lab.make(&other);
    write_odd_tree(lab.files(), &other.mountpoint);
    let made = snapshot(&*store, &cx, &other, "kept", 1).await;
    let live = lab.files().list(&other.mountpoint);
    let staging = staged(lab, &*store, &cx, &target, "p1").await;
    let bad = lab.files().list(&staging.path);
    let quarantine = Settle::Quarantine {
        staging,
        why: "the digest differs".to_owned(),
    };
    let settled = worked(store.settle(&cx, &quarantine).await);
    let name = settled.quarantined.expect("where it is");
    assert_same(&bad, &lab.kept(&name), "what was quarantined");
    let found = inspect(&*store, &cx, &target).await;
    assert_eq!((found.condition, found.leftover), (Condition::Absent, None));
    // The place is free for the next try, and throwing that away doesn't touch the quarantine.
    let staging = staged(lab, &*store, &cx, &target, "p2").await;
    worked(
        store
            .settle(
                &cx,
                &Settle::Discard {
                    staging: staging.clone(),
                },
            )
            .await,
    );
    assert!(!lab.files().exists(&staging.path));
    assert_same(&bad, &lab.kept(&name), "what was quarantined");
    assert_same(&live, &lab.files().list(&other.mountpoint), "another target");
    assert_eq!(list(&*store, &cx, &other).await, vec![made.clone()]);
    let kept = content(lab, &*store, &cx, &other, &made.reference()).await;
    assert_same(&live, &kept, "another target's snapshot");
    no_violations(lab);
}

/// S13: also what stood there empty is renamed, or has nothing that could be lost.
pub async fn s13_an_empty_target_is_kept_too(lab: &impl StoreLab) {
    let (store, cx) = (lab.store(), context("s13b"));
    let target = lab.absent("was-empty");
    lab.make(&target);
    let first = snapshot(&*store, &cx, &target, "before", 1).await;
    let staging = staged(lab, &*store, &cx, &target, "p1").await;
    let request = promote(&staging, "p1", "s13b", Replace::OnlyEmpty);
    let settled = worked(store.settle(&cx, &request).await);
    let listed = list(&*store, &cx, &target).await;
    assert!(
        listed.contains(&first) || settled.set_aside.is_some(),
        "the snapshots of the empty dataset are gone"
    );
}

/// S14: what `caps` doesn't promise.
pub async fn s14_what_is_not_supported_says_so_and_does_nothing(lab: &impl StoreLab) {
    let (store, cx, caps) = (lab.store(), context("s14"), lab.store().caps());
    assert_eq!(caps, store.caps(), "caps don't change");
    let target = lab.absent("limits");
    let native = StageRequest {
        target: target.clone(),
        purpose: StagePurpose::Restore {
            point: point(&target, "p1"),
            delivery: Delivery::Native,
        },
    };
    if caps.native_receive {
        let staging = worked(store.stage(&cx, &native).await);
        assert_eq!(staging.state, StageState::Fresh);
        let request = promote(&staging, "p1", "s14", Replace::OnlyEmpty);
        refused(store.settle(&cx, &request).await, &[StoreKind::StalePlan]);
    } else {
        refused(store.stage(&cx, &native).await, &[StoreKind::Unsupported]);
        assert_eq!(inspect(&*store, &cx, &target).await.leftover, None);
    }
    assert_eq!(condition(&*store, &cx, &target).await, Condition::Absent);
    // Groups, holds and setting aside are asserted with their clauses: S4, S8, S11.
}

/// S15: cancelled before it begins, and in its middle.
pub async fn s15_a_cancelled_call_ends_and_calling_again_works(lab: &impl StoreLab) {
    let (store, cx) = (lab.store(), context("s15"));
    let (target, absent) = (lab.absent("cancelled"), lab.absent("absent"));
    lab.make(&target);
    write_odd_tree(lab.files(), &target.mountpoint);
    let made = snapshot(&*store, &cx, &target, "one", 1).await;
    let live = lab.files().list(&target.mountpoint);
    let stop = context("s15");
    stop.cancel.cancel();
    let targets = [target.clone()];
    let cancelled = [StoreKind::Cancelled];
    refused(store.inspect(&stop, &targets).await, &cancelled);
    refused(store.list(&stop, &targets).await, &cancelled);
    refused(
        store.create(&stop, &request(&[&target], "two", 2)).await,
        &cancelled,
    );
    refused(store.prune(&stop, &[made.reference()]).await, &cancelled);
    refused(store.stage(&stop, &restore_of(&absent, "p1")).await, &cancelled);
    let start = Settle::StartEmpty {
        target: absent.clone(),
        marker: marker(&cx, &point(&absent, "p1")),
    };
    refused(store.settle(&stop, &start).await, &cancelled);
    if store.caps().holds {
        let tag = reseed_core::names::HoldTag::new("t").expect("a tag");
        let held = store
            .hold(&stop, &[made.reference()], &tag, HoldChange::Add)
            .await;
        refused(held, &cancelled);
    }
    assert_eq!(list(&*store, &cx, &target).await, vec![made]);
    assert_eq!(condition(&*store, &cx, &absent).await, Condition::Absent);

    for polls in 0..12 {
        let target = lab.absent(&format!("cancel{polls}"));
        let staging = staged(lab, &*store, &cx, &target, "p1").await;
        let expected = lab.files().list(&staging.path);
        let marker = marker(&context("s15"), &point(&target, "p1"));
        let request = promote(&staging, "p1", "s15", Replace::OnlyEmpty);
        let stop = context("s15");
        if let Err(error) = cancelled_after(&stop, polls, store.settle(&stop, &request)).await {
            let error = failed::<(), _>(Err(error), &cancelled);
            let found = inspect(&*store, &cx, &target).await;
            if error.may_have() == Effect::None {
                assert_eq!(found.condition, Condition::Absent);
            }
        }
        at_any_moment(lab, &target, &expected, &marker).await;
        worked(store.settle(&cx, &request).await);
        assert_same(&expected, &lab.files().list(&target.mountpoint), "calling again");
    }
    assert_same(&live, &lab.files().list(&target.mountpoint), "another target");
    no_violations(lab);
}

/// S16: of the right snapshot, under the name that it then gets.
pub async fn s16_since_tells_where_what_is_live_would_be_kept(lab: &impl StoreLab) {
    let (store, cx) = (lab.store(), context("s16"));
    if !store.caps().set_aside {
        return;
    }
    let target = lab.absent("since");
    lab.make(&target);
    write_odd_tree(lab.files(), &target.mountpoint);
    let one = snapshot(&*store, &cx, &target, "one", 1).await.reference();
    lab.files().write(&target.mountpoint.join("later"), b"later");
    let before = lab.files().list(&target.mountpoint);
    let told = worked(store.since(&cx, &target, &one).await);
    let again = worked(store.since(&cx, &target, &one).await);
    assert_eq!(told.kept_as, again.kept_as, "nothing took the name");
    assert_same(&before, &lab.files().list(&target.mountpoint), "live data");
    let mut gone = one.clone();
    gone.guid = Guid(one.guid.0 ^ 1);
    refused(store.since(&cx, &target, &gone).await, &[StoreKind::NotFound]);
    let elsewhere = lab.absent("elsewhere");
    lab.make(&elsewhere);
    refused(store.since(&cx, &elsewhere, &one).await, &[StoreKind::NotFound]);
    let guid = inspect(&*store, &cx, &target).await.guid.expect("a guid");
    let staging = staged(lab, &*store, &cx, &target, "p1").await;
    let request = promote(&staging, "p1", "s16", Replace::SetAside { guid });
    let settled = worked(store.settle(&cx, &request).await);
    assert_eq!(settled.set_aside.as_deref(), Some(told.kept_as.as_str()));
    assert_same(&before, &lab.kept(&told.kept_as), "what was set aside");
    no_violations(lab);
}
