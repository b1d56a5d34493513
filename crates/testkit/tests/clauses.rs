//! Every clause of every contract has a test, and every test a clause.

use reseed_testkit::conformance;

/// The clauses of a contract, as `s01`: the lines of its module docs that begin with `- **S1 `.
fn clauses(source: &str) -> Vec<String> {
    let numbers = source.lines().filter_map(|line| {
        let clause = line.strip_prefix("//! - **")?.split_whitespace().next()?;
        let number: u32 = clause.get(1..)?.parse().ok()?;
        Some(format!("{}{number:02}", clause[..1].to_lowercase()))
    });
    numbers.collect()
}

fn covered(source: &str, tests: &[&str], at_least: usize) {
    let clauses = clauses(source);
    assert!(clauses.len() >= at_least, "only {clauses:?} were found");
    for clause in &clauses {
        assert!(
            tests.iter().any(|test| test.split('_').next() == Some(clause)),
            "clause {clause} has no test"
        );
    }
    for test in tests {
        let clause = test.split('_').next().unwrap_or_default();
        assert!(clauses.iter().any(|one| one == clause), "{test} tests no clause");
    }
}

#[test]
fn every_clause_has_a_test() {
    covered(
        include_str!("../../core/src/store.rs"),
        conformance::store::TESTS,
        15,
    );
    covered(
        include_str!("../../core/src/source.rs"),
        conformance::source::TESTS,
        11,
    );
    covered(
        include_str!("../../core/src/replicate.rs"),
        conformance::replicate::TESTS,
        10,
    );
    covered(
        include_str!("../../core/src/offsite.rs"),
        conformance::offsite::TESTS,
        10,
    );
    covered(include_str!("../../core/src/wal.rs"), conformance::wal::TESTS, 7);
}
