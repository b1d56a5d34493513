//! The simulator: it is the same each time, the core is sound under it, and each broken part is caught.

use proptest::prelude::*;
use reseed_testkit::sim::{self, Invariant, Mutant};

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[test]
fn the_core_keeps_every_invariant() {
    let tally = sim::run_many(0..1500, threads());
    assert!(tally.failures.is_empty(), "{tally}");
    assert_eq!(tally.schedules, 1500);
    assert!(
        tally.restored > 500,
        "only {} restores: the schedules are too tame",
        tally.restored
    );
}

#[test]
fn a_seed_gives_the_same_trace_twice() {
    for seed in 0..40 {
        let (first, second) = (sim::run_seed(seed, true), sim::run_seed(seed, true));
        assert!(!first.trace.is_empty());
        assert_eq!(first, second, "seed {seed}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_seed_keeps_every_invariant(seed in any::<u64>()) {
        let verdict = sim::run_seed(seed, false);
        prop_assert!(verdict.violation.is_none(), "seed {seed}: {:?}", verdict.violation);
    }
}

/// A part that is broken on purpose is caught, by the invariant that it breaks.
fn caught(mutant: Mutant) {
    let expected = Mutant::ALL.iter().find(|(other, _)| *other == mutant);
    let expected: Option<Invariant> = expected.map(|(_, invariant)| *invariant);
    let tally = sim::catch(0..10_000, threads(), mutant);
    let Some(failure) = tally.failures.first() else {
        panic!("{mutant:?} went through {} seeds", tally.schedules);
    };
    assert_eq!(Some(failure.invariant), expected, "{failure}");
    assert!(failure.schedule.steps.len() < 15, "it was not shrunk:\n{failure}");
}

macro_rules! mutants {
    ($($name:ident: $mutant:ident;)*) => {
        $(#[test] fn $name() { caught(Mutant::$mutant); })*
        #[test]
        fn every_mutant_has_a_test() {
            let tested = [$(Mutant::$mutant),*];
            assert!(Mutant::ALL.iter().all(|(mutant, _)| tested.contains(mutant)));
        }
    };
}

mutants! {
    overwriting_live_data_is_caught: OverwritesLive;
    delivering_another_point_is_caught: WrongPoint;
    promoting_what_was_not_verified_is_caught: SkipsVerification;
    writing_live_data_before_the_rename_is_caught: NotAtomic;
    forgetting_that_a_service_is_unseeded_is_caught: ForgetsUnseeded;
    forcing_a_replica_is_caught: ForcesReplica;
    skipping_a_source_is_caught: SkipsEarly;
    ignoring_the_budget_is_caught: IgnoresBudget;
}
