//! The suite of [`SnapshotStore`]: clauses S1 to S16. The tests are in the files below it.

mod settling;
mod snapshots;
mod staging;

use std::sync::Arc;

use reseed_core::point::{Snapshot, SnapshotRef, Target};
use reseed_core::store::{
    Condition, CreateSnapshots, Delivery, Inspection, Settle, StagePurpose, StageRequest, Staging,
};
use reseed_core::{Context, SnapshotStore};

use super::{snapshot_name, suite, worked};
use crate::files::{Files, Listing};

pub use settling::*;
pub use snapshots::*;
pub use staging::*;

/// What the suite needs of a store's backend.
pub trait StoreLab: Send + Sync {
    /// The store, the same each time.
    fn store(&self) -> Arc<dyn SnapshotStore>;
    /// How files at targets and staging places are written and read.
    fn files(&self) -> &dyn Files;
    /// A target that nothing stands at. `name` is unique within a lab; `parent/child` is a dataset below another one.
    fn absent(&self, name: &str) -> Target;
    /// Makes the target's dataset or directory, empty.
    fn make(&self, target: &Target);
    /// Replaces the target by another empty one, made in the same way, that carries the old one's marker wherever the
    /// store could have kept it (S3).
    fn replace_keeping_marker(&self, target: &Target);
    /// Brings the target into a state in which it can't be told whether data is there (a pool that is not imported, a
    /// directory above it that is a file or can't be read).
    fn make_unknowable(&self, target: &Target);
    /// What was set aside or quarantined under a name that `settle` told.
    fn kept(&self, name: &str) -> Listing;
    /// Dropping a call's future leaves what a crash at that point would leave, and nothing runs on. True of the world;
    /// a backend with threads or children of its own says false and is crashed by tests of its own.
    fn drop_is_a_crash(&self) -> bool {
        false
    }
    /// What went wrong besides: asserted to be nothing when a test ends.
    fn violations(&self) -> Vec<String> {
        Vec::new()
    }
}

suite! { $ conformance_store, store, StoreLab:
    s01_inspect_tells_and_changes_nothing
    s01_what_cannot_be_judged_is_neither_absent_nor_empty
    s02_any_entry_makes_it_populated
    s02_what_the_filesystem_puts_there_does_not_count
    s03_a_marker_does_not_count_on_what_replaced_its_dataset
    s04_create_takes_all_targets_or_none
    s04_a_name_that_is_taken_changes_nothing
    s05_a_snapshot_never_changes
    s06_list_is_complete_exact_and_in_order
    s07_a_guid_is_never_given_twice
    s08_a_held_snapshot_stays
    s08_each_tag_keeps_on_its_own
    s09_prune_removes_exactly_what_it_names
    s10_staging_is_invisible
    s10_the_same_point_gets_the_same_staging
    s10_another_point_is_a_conflict
    s11_promote_puts_the_staged_tree_in_place
    s11_promote_leaves_a_populated_target_alone
    s11_set_aside_wants_the_right_guid_and_keeps_what_was_there
    s12_a_crash_of_promote_is_finished_by_the_same_request
    s12_settling_again_after_the_end_is_no_error
    s12_finish_leaves_any_other_target_alone
    s12_start_empty_and_mark_write_the_marker
    s13_quarantine_keeps_and_discard_takes_only_staging
    s13_an_empty_target_is_kept_too
    s14_what_is_not_supported_says_so_and_does_nothing
    s15_a_cancelled_call_ends_and_calling_again_works
    s16_since_tells_where_what_is_live_would_be_kept
}

/// The state of one target.
async fn inspect(store: &dyn SnapshotStore, cx: &Context, target: &Target) -> Inspection {
    let mut all = worked(store.inspect(cx, std::slice::from_ref(target)).await);
    assert_eq!(all.len(), 1, "one answer per target");
    let found = all.remove(0);
    assert_eq!(&found.target, target);
    found
}

async fn condition(store: &dyn SnapshotStore, cx: &Context, target: &Target) -> Condition {
    inspect(store, cx, target).await.condition
}

async fn list(store: &dyn SnapshotStore, cx: &Context, target: &Target) -> Vec<Snapshot> {
    worked(store.list(cx, std::slice::from_ref(target)).await)
}

fn request(targets: &[&Target], name: &str, minutes: i64) -> CreateSnapshots {
    CreateSnapshots {
        targets: targets.iter().map(|&target| target.clone()).collect(),
        name: snapshot_name(name),
        taken_at: super::minute(minutes),
        measure: true,
        unseeded: false,
    }
}

async fn snapshot(
    store: &dyn SnapshotStore,
    cx: &Context,
    target: &Target,
    name: &str,
    minutes: i64,
) -> Snapshot {
    let mut made = worked(store.create(cx, &request(&[target], name, minutes)).await);
    assert_eq!(made.len(), 1, "one snapshot per target");
    made.remove(0)
}

/// Opens a snapshot, looks at it and closes it again.
async fn content(
    lab: &dyn StoreLab,
    store: &dyn SnapshotStore,
    cx: &Context,
    target: &Target,
    snapshot: &SnapshotRef,
) -> Listing {
    let purpose = StagePurpose::Expose {
        snapshot: snapshot.clone(),
    };
    let request = StageRequest {
        target: target.clone(),
        purpose,
    };
    let staging = worked(store.stage(cx, &request).await);
    let listing = lab.files().list(&staging.path);
    worked(store.settle(cx, &Settle::Discard { staging }).await);
    listing
}

fn restore_of(target: &Target, id: &str) -> StageRequest {
    StageRequest {
        target: target.clone(),
        purpose: StagePurpose::Restore {
            point: super::point(target, id),
            delivery: Delivery::Files,
        },
    }
}

/// Stages a point and fills it with a tree that `mark` is written into.
async fn staged(
    lab: &dyn StoreLab,
    store: &dyn SnapshotStore,
    cx: &Context,
    target: &Target,
    id: &str,
) -> Staging {
    let staging = worked(store.stage(cx, &restore_of(target, id)).await);
    lab.files().write(&staging.path.join("which"), id.as_bytes());
    lab.files().write(&staging.path.join("deep/er"), b"x");
    staging
}

fn no_violations(lab: &dyn StoreLab) {
    assert_eq!(lab.violations(), Vec::<String>::new());
}
