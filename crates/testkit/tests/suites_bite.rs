//! The suites catch backends that break their contract: each case breaks one clause and must fail that clause's test.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use reseed_core::error::Common;
use reseed_core::store::Delivery;
use reseed_testkit::conformance::{block_on, offsite, replicate, source, store, wal};
use reseed_testkit::faults::{Fault, Faults, Op, Rule};
use reseed_testkit::world::{MemLab, Place};

/// Runs a test of a suite under a rule; true when it failed.
fn bites(rule: Rule, place: Place, test: impl AsyncFnOnce(&MemLab)) -> bool {
    let faults = Faults::default();
    let _guard = faults.add(rule);
    let lab = MemLab::new().source_in(place).with_faults(&faults);
    let failed = catch_unwind(AssertUnwindSafe(|| block_on(async { test(&lab).await }))).is_err();
    assert!(!faults.take_struck().is_empty(), "the rule never struck");
    failed
}

macro_rules! bites {
    ($($name:ident: $rule:expr => $test:path;)*) => {
        $(#[test]
        fn $name() {
            assert!(bites($rule, Place::Local(Delivery::Files), async |lab: &MemLab| $test(lab).await));
        })*
    };
}

bites! {
    a_stale_inspection: Rule::on(Op::StoreInspect, Fault::Stale) => store::s10_another_point_is_a_conflict;
    a_stale_marker: Rule::on(Op::StoreInspect, Fault::Stale) => store::s03_a_marker_does_not_count_on_what_replaced_its_dataset;
    a_stale_list: Rule::on(Op::StoreList, Fault::Stale) => store::s07_a_guid_is_never_given_twice;
    a_create_whose_answer_is_lost: Rule::on(Op::StoreCreate, Fault::FailAfter(Common::Io)).nth(1) => store::s04_create_takes_all_targets_or_none;
    a_hold_that_is_lost: Rule::on(Op::StoreHold, Fault::FailBefore(Common::Io)) => store::s08_a_held_snapshot_stays;
    a_promotion_that_is_cut: Rule::on(Op::StoreSettle, Fault::Cut(2)) => store::s11_promote_puts_the_staged_tree_in_place;
    a_refusal_after_the_effect: Rule::on(Op::StoreSettle, Fault::FailAfter(Common::StalePlan)) => store::s12_start_empty_and_mark_write_the_marker;
    a_flipped_bit: Rule::on(Op::SourceExecute, Fault::Flip(7)) => source::r06_what_comes_back_is_the_point;
    a_cut_restore_that_is_not_resumed: Rule::on(Op::SourceExecute, Fault::Cut(100)).from_nth(2) => source::r07_what_is_there_is_mended;
    stale_points: Rule::on(Op::SourcePoints, Fault::Stale) => source::r04_execute_finds_that_the_point_is_gone;
    a_source_that_answers_although_it_is_away: Rule::on(Op::SourcePoints, Fault::FailBefore(Common::Io)).from_nth(3) => source::r01_a_source_that_cannot_be_asked_is_an_error;
    a_stale_replication_plan: Rule::on(Op::ReplicaPlan, Fault::Stale).from_nth(2) => replicate::p07_up_to_date_is_no_work;
    a_cut_replication: Rule::on(Op::ReplicaExecute, Fault::Cut(3)) => replicate::p03_what_arrives_is_what_was_sent;
    a_stale_lineage: Rule::on(Op::ReplicaLineage, Fault::Stale).from_nth(2) => replicate::p08_lag_is_read_at_the_replica;
    a_wrong_kind: Rule::on(Op::RepoOpen, Fault::FailBefore(Common::Io)) => offsite::o02_the_ways_of_not_opening_are_told_apart;
    a_stale_list_of_points: Rule::on(Op::RepoPoints, Fault::Stale) => offsite::o10_cancelled_means_ended;
    a_backup_whose_answer_is_lost: Rule::on(Op::RepoBackup, Fault::FailAfter(Common::NotFound)) => offsite::o04_an_unchanged_tree_adds_nothing;
    a_segment_that_is_lost: Rule::on(Op::WalArchive, Fault::FailBefore(Common::Io)).nth(2) => wal::w02_archiving_again_is_fine_and_something_else_is_not;
    a_stale_list_of_base_backups: Rule::on(Op::WalBackups, Fault::Stale) => wal::w06_only_finished_backups_count;
}

/// Hooks break what is stored, behind any backend.
#[test]
fn a_hook_that_destroys_live_data_is_found() {
    let faults = Faults::default();
    let lab = MemLab::new().with_faults(&faults);
    let world = lab.world.clone();
    let hook = move || world.destroy(&reseed_testkit::world::World::target("tank/late").dataset, false);
    let _guard = faults.add(Rule::on(Op::StoreSettle, Fault::Before(Arc::new(hook))));
    let test = async { store::s11_promote_leaves_a_populated_target_alone(&lab).await };
    assert!(catch_unwind(AssertUnwindSafe(|| block_on(test))).is_err());
}
