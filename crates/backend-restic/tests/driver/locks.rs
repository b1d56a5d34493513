//! Dead locks, and those that only look dead.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reseed_core::clock::{Clock, SystemClock};
use reseed_core::error::OffsiteKind;
use reseed_core::exec::Exit;

use super::{Answer, Lab, NOBODY, SUMMARY, answer, here, locked_by};

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
    let now = SystemClock::new().now();
    let time = now - jiff::SignedDuration::from_mins(minutes_old);
    let lock = format!(
        r#"{{"time":"{time}","exclusive":true,"hostname":"{host}","username":"root","pid":{pid},"uid":0,"gid":0}}"#
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
    // After a call of ours that was killed, the one from before it is another's.
    let killed = Answer {
        exit: Exit::Signal(9),
        ..answer(0, "", "")
    };
    for (found, calls) in [(theirs(), 3), (printed(&here(), NOBODY, -1), 4)] {
        let answers = [killed.clone(), ids(&["aa"]), found, answer(0, "", "")];
        let lab = Lab::new("0.18.0", &answers);
        lab.backup().unwrap_err();
        assert_eq!(lab.calls().len(), calls, "{:?}", lab.calls());
    }
}

#[test]
fn what_a_call_of_ours_left_is_not_tidied_up_where_that_may_take_anothers_lock() {
    let killed = Answer {
        exit: Exit::Signal(9),
        ..answer(0, "", "")
    };
    for (minutes, calls) in [
        (120, vec!["backup", "list", "cat"]),
        (1, vec!["backup", "list", "cat", "unlock"]),
    ] {
        let found = printed("other-host", 7, minutes);
        let lab = Lab::new(
            "0.18.0",
            &[killed.clone(), ids(&["aa"]), found, answer(0, "", "")],
        );
        lab.backup().unwrap_err();
        assert_eq!(lab.calls(), calls);
    }
}
