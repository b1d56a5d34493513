//! Dead locks, and those that only look dead.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reseed_core::clock::{Clock, SystemClock};
use reseed_core::error::OffsiteKind;
use reseed_core::exec::Exit;

use super::{Answer, CHILD, Lab, NOBODY, SUMMARY, answer, here, locked_by};

/// The system's clock, which waits for nothing.
#[derive(Debug)]
struct Hasty(SystemClock);

#[async_trait]
impl Clock for Hasty {
    fn now(&self) -> jiff::Timestamp {
        self.0.now()
    }
    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
    async fn sleep(&self, _: Duration) {}
}

/// A lock file as restic prints it, by its own clock so old.
fn printed(host: &str, pid: i32, minutes_old: i64) -> Answer {
    of_kind(true, host, &pid.to_string(), minutes_old)
}

fn of_kind(exclusive: bool, host: &str, pid: &str, minutes_old: i64) -> Answer {
    let now = SystemClock::new().now();
    let time = now - jiff::SignedDuration::from_mins(minutes_old);
    let lock = format!(
        r#"{{"time":"{time}","exclusive":{exclusive},"hostname":"{host}","username":"root","pid":{pid},"uid":0,"gid":0}}"#
    );
    answer(0, &lock, "")
}

fn ids(ids: &[&str]) -> Answer {
    let lines: Vec<String> = ids.iter().map(|id| id.repeat(32)).collect();
    answer(0, &lines.join("\n"), "")
}

/// A host whose clock is wrong by more than half an hour looks dead, and refreshes its lock all the same.
#[test]
fn an_old_lock_of_another_host_is_watched_before_it_is_removed() {
    let locked = || answer(11, "", &locked_by(&here(), NOBODY));
    let other = || printed("other-host", 7, 120);
    let lost = || answer(1, "", "Fatal: dial tcp: connection refused");
    let refused = [
        // Refreshed; refreshed with another beside it; a second one came.
        vec![ids(&["bb"]), other()],
        vec![ids(&["aa", "bb"]), other(), other()],
        // One that can't be read may be anybody's.
        vec![ids(&["aa", "bb"]), other(), lost(), ids(&["aa", "bb"]), lost()],
    ];
    for again in refused {
        let mut answers = vec![locked(), ids(&["aa"]), other()];
        answers.extend(again);
        let lab = Lab::by_clock("0.18.0", &answers, Arc::new(Hasty(SystemClock::new())));
        assert_eq!(lab.backup().unwrap_err().kind(), OffsiteKind::Locked);
        assert!(!lab.calls().contains(&"unlock".to_owned()), "{:?}", lab.calls());
        assert!(
            lab.told()[0].contains("whether its holder is alive"),
            "{:?}",
            lab.told()
        );
    }
    let removed = [
        // Silent; gone by itself; one of this host is restic's to judge.
        (vec![ids(&["aa"]), other(), ids(&["aa"]), other()], 2),
        (vec![ids(&["aa"]), other(), ids(&[])], 2),
        (
            vec![
                ids(&["aa", "cc"]),
                printed(&here(), NOBODY, 120),
                answer(1, "", "no such lock"),
                ids(&["aa"]),
            ],
            1,
        ),
    ];
    for (between, told) in removed {
        let mut answers = vec![locked()];
        answers.extend(between);
        answers.extend([answer(0, "", ""), answer(0, SUMMARY, "")]);
        let lab = Lab::by_clock("0.18.0", &answers, Arc::new(Hasty(SystemClock::new())));
        lab.backup().unwrap();
        assert!(lab.calls().contains(&"unlock".to_owned()), "{:?}", lab.calls());
        assert_eq!(lab.told().len(), told, "{:?}", lab.told());
    }
}

/// Containers have names and process ids of their own, and often the same.
#[test]
fn an_exclusive_lock_of_a_namesake_is_watched_before_it_is_removed() {
    let theirs = || printed(&here(), NOBODY, 1);
    let locked = || answer(11, "", &locked_by(&here(), NOBODY));
    let by = |again: Vec<Answer>| {
        let first = vec![locked(), ids(&["aa"]), theirs()];
        Lab::by_clock(
            "0.18.0",
            &[first, again].concat(),
            Arc::new(Hasty(SystemClock::new())),
        )
    };
    // It was refreshed.
    let lab = by(vec![ids(&["bb"]), theirs()]);
    assert_eq!(lab.backup().unwrap_err().kind(), OffsiteKind::Locked);
    assert!(!lab.calls().contains(&"unlock".to_owned()), "{:?}", lab.calls());
    let lab = by(vec![
        ids(&["aa"]),
        theirs(),
        answer(0, "", ""),
        answer(0, SUMMARY, ""),
    ]);
    lab.backup().unwrap();
    assert!(lab.calls().contains(&"unlock".to_owned()), "{:?}", lab.calls());
}

/// restic doesn't look whether its lock is still there, so that a prune beside it takes what it has just written.
#[test]
fn a_shared_lock_of_a_namesake_is_watched_before_it_is_removed() {
    let backup = || of_kind(false, &here(), &NOBODY.to_string(), 1);
    let begin = || {
        let dead = printed(&here(), NOBODY, 20);
        let locked = answer(11, "", &locked_by(&here(), NOBODY));
        vec![locked, ids(&["aa", "bb"]), dead, backup()]
    };
    let dead = || printed(&here(), NOBODY, 26);
    let by = |again: Vec<Answer>| {
        let all = [begin(), again].concat();
        Lab::by_clock("0.18.0", &all, Arc::new(Hasty(SystemClock::new())))
    };
    let lab = by(vec![ids(&["aa", "cc"]), dead(), backup()]);
    assert_eq!(lab.backup().unwrap_err().kind(), OffsiteKind::Locked);
    assert!(!lab.calls().contains(&"unlock".to_owned()), "{:?}", lab.calls());
    // Silent: one that was killed by a power cut.
    let again = vec![
        ids(&["aa", "bb"]),
        dead(),
        backup(),
        answer(0, "", ""),
        answer(0, SUMMARY, ""),
    ];
    let lab = by(again);
    lab.backup().unwrap();
    assert!(lab.calls().contains(&"unlock".to_owned()), "{:?}", lab.calls());
}

#[test]
fn after_a_call_of_ours_that_was_killed_only_its_own_lock_is_removed() {
    let killed = Answer {
        exit: Exit::Signal(9),
        ..answer(0, "", "")
    };
    let nobody = NOBODY.to_string();
    let (ours, theirs) = (CHILD, nobody.as_str());
    // Written a moment after it began, unless it is older.
    let cases = [
        (vec![(ours, -1)], true),
        (vec![(ours, 1)], false),
        (vec![(theirs, -1)], false),
        (vec![(ours, -1), (theirs, -1)], false),
        (vec![(ours, -1), (theirs, 7)], true),
        (vec![(ours, -1), (ours, -1)], false),
    ];
    for (locks, is_removed) in cases {
        let names = &["aa", "bb"][..locks.len()];
        let mut answers = vec![killed.clone(), ids(names)];
        let found = locks
            .iter()
            .map(|(pid, minutes)| of_kind(false, &here(), pid, *minutes));
        answers.extend(found);
        answers.push(answer(0, "", ""));
        let lab = Lab::new("0.18.0", &answers);
        lab.backup().unwrap_err();
        let removed = lab.calls().contains(&"unlock".to_owned());
        assert_eq!(removed, is_removed, "{locks:?}: {:?}", lab.calls());
    }
}

#[test]
fn what_a_call_of_ours_left_is_not_tidied_up_where_that_may_take_anothers_lock() {
    let killed = Answer {
        exit: Exit::Signal(9),
        ..answer(0, "", "")
    };
    let calls = ["backup", "list", "cat", "cat", "unlock"];
    for (minutes, calls) in [(120, &calls[..4]), (1, &calls[..])] {
        let (other, ours) = (
            printed("other-host", 7, minutes),
            of_kind(false, &here(), CHILD, -1),
        );
        let answers = [killed.clone(), ids(&["aa", "bb"]), other, ours, answer(0, "", "")];
        let lab = Lab::new("0.18.0", &answers);
        lab.backup().unwrap_err();
        assert_eq!(lab.calls(), calls);
    }
}

/// Each look may take a quarter of a minute where the store is gone, and nobody can end them.
#[test]
fn after_the_first_lock_that_cannot_be_fetched_no_other_is_asked_for() {
    let killed = Answer {
        exit: Exit::Signal(9),
        ..answer(0, "", "")
    };
    let lost = answer(1, "", "Fatal: dial tcp: connection refused");
    let lab = Lab::new("0.18.0", &[killed, ids(&["aa", "bb", "cc"]), lost]);
    lab.backup().unwrap_err();
    assert_eq!(lab.calls(), ["backup", "list", "cat"]);
}
