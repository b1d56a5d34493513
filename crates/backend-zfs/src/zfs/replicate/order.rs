//! In which order datasets are sent: those that others are inside of come first. Pure.
//!
//! What is received can't take the place of a dataset that is there, and one whose replica has to stand inside of another's needs
//! something to stand in. So an outer dataset that is to be sent is sent before; only above what nobody sends a place is made.

use reseed_core::error::{ReplicateError, ReplicateKind, Retry};
use reseed_core::names::DatasetName;

/// Whether the one is inside of the other.
pub(super) fn is_inside(inner: &DatasetName, outer: &DatasetName) -> bool {
    inner
        .as_str()
        .strip_prefix(outer.as_str())
        .is_some_and(|rest| rest.starts_with('/'))
}

/// Groups of what can be sent at once, by position; each group after the one before.
pub(super) fn waves(replicas: &[DatasetName]) -> Vec<Vec<usize>> {
    let depth =
        |inner: &DatasetName| -> usize { replicas.iter().filter(|outer| is_inside(inner, outer)).count() };
    let mut waves: Vec<Vec<usize>> = Vec::new();
    for (at, replica) in replicas.iter().enumerate() {
        let depth = depth(replica);
        if waves.len() <= depth {
            waves.resize(depth + 1, Vec::new());
        }
        waves[depth].push(at);
    }
    waves
}

/// Why an inner one isn't sent when the outer one could not be.
pub(super) fn waits(replica: &DatasetName, outer: &DatasetName) -> ReplicateError {
    let what = format!("{replica} is inside of {outer}, which could not be received, and has to wait for it");
    ReplicateError::new(ReplicateKind::Busy, what).retry(Retry::Later)
}

#[cfg(test)]
mod tests {
    use super::super::super::argv::tests::ds;
    use super::*;

    #[test]
    fn outer_ones_come_first() {
        let all = [ds("b/p/c/d"), ds("b/q"), ds("b/p"), ds("b/p/c"), ds("b/p c")];
        assert_eq!(waves(&all), [vec![1, 2, 4], vec![3], vec![0]]);
        assert_eq!(waves(&[]), Vec::<Vec<usize>>::new());
        // What is between them and isn't sent makes no difference.
        assert_eq!(waves(&[ds("b/p/x/y"), ds("b/p")]), [vec![1], vec![0]]);
    }
}
