//! Which process a call of ours is. Its lock names it, and nothing else tells that from a namesake's.
//!
//! The call is given a mark in its environment, and is the child of ours that has it. Where that can't be seen nobody knows which lock is its.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reseed_core::clock::Clock;

/// What the mark is called.
pub(super) const MARK: &str = "RESEED_CALL";

/// One that no other child of ours has.
pub(super) fn mark() -> String {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed))
}

/// So often one is looked at that has only just begun, a millisecond apart.
const LOOKS: u32 = 20;

/// The child that has this mark, while it runs.
pub(super) async fn process_of(mark: &str, clock: &dyn Clock) -> Option<i32> {
    for _ in 0..LOOKS {
        match look(mark) {
            // What has just begun is there a moment before its environment is.
            (None, true) => clock.sleep(Duration::from_millis(1)).await,
            (found, _) => return found,
        }
    }
    None
}

/// The child that has this mark, and whether there is one that doesn't show yet what it has.
fn look(mark: &str) -> (Option<i32>, bool) {
    let (ours, wanted) = (std::process::id().to_string(), format!("{MARK}={mark}"));
    let Ok(all) = fs::read_dir("/proc") else {
        return (None, false);
    };
    let mut begins = false;
    for pid in all
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
    {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if !state_and_parent(&stat).is_some_and(|(state, parent)| state != "Z" && parent == ours) {
            continue;
        }
        let set = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if set.split(|byte| *byte == 0).any(|one| one == wanted.as_bytes()) {
            return (Some(pid), false);
        }
        begins |= set.is_empty();
    }
    (None, begins)
}

/// In the words of `/proc/PID/stat`, behind the name, which may hold anything.
fn state_and_parent(stat: &str) -> Option<(&str, &str)> {
    let mut words = stat.rsplit_once(')')?.1.split_whitespace();
    Some((words.next()?, words.next()?))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use reseed_core::clock::SystemClock;
    use reseed_testkit::conformance::block_on;

    use super::*;

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "the runner doesn't say which process it has begun"
    )]
    fn a_child_is_known_by_its_mark() {
        let process_of = |mark: &str| block_on(process_of(mark, &SystemClock::new()));
        let (one, other) = (mark(), mark());
        assert_eq!(process_of(&one), None);
        let mut child = Command::new("sleep").arg("60").env(MARK, &one).spawn().unwrap();
        let found = (process_of(&one), process_of(&other));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, (i32::try_from(child.id()).ok(), None));
        assert_eq!(process_of(&one), None);
    }

    #[test]
    fn a_name_with_brackets_hides_no_parent() {
        assert_eq!(state_and_parent("12 (a) R 1) (b) S 34 12"), Some(("S", "34")));
        assert_eq!(state_and_parent("12 S"), None);
    }
}
