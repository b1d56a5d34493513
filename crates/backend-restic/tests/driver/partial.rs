//! What isn't whole is told of its snapshot, however long that takes.

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;

use super::*;

/// Passes when somebody waits for it.
#[derive(Debug, Default)]
struct Hasty {
    seconds: AtomicU64,
    /// Cancelled when so many seconds have passed.
    ends: Option<(u64, CancellationToken)>,
}

#[async_trait]
impl Clock for Hasty {
    fn now(&self) -> Timestamp {
        Clock::now(&SystemClock::new())
    }
    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.seconds.load(Ordering::SeqCst))
    }
    async fn sleep(&self, time: Duration) {
        let passed = self.seconds.fetch_add(time.as_secs(), Ordering::SeqCst) + time.as_secs();
        if let Some((end, token)) = &self.ends
            && passed >= *end
        {
            token.cancel();
            std::future::pending::<()>().await;
        }
    }
}

const STORED: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const CHANGED: &str = r#"{"message_type":"changed","old_snapshot_id":"0","new_snapshot_id":"new"}"#;

fn busy() -> Answer {
    answer(11, "", &locked_by("other-host", NOBODY))
}

/// A listing with one snapshot of the lab's point.
fn listed(id: &str) -> String {
    let time = minute(0);
    format!(
        r#"[{{"id":"{id}","time":"{time}","tree":"","paths":["/x"],"hostname":"h","tags":["reseed","reseed-point=1","reseed-dataset=tank/a"]}}]"#
    )
}

#[test]
fn a_partial_backup_is_tagged_and_says_what_is_missing() {
    let problem = r#"{"message_type":"error","error":{"message":"open: permission denied"},"during":"archival","item":"secret"}"#;
    let changed = r#"{"message_type":"changed","old_snapshot_id":"0","new_snapshot_id":"new"}"#;
    let lab = Lab::new(
        "0.18.0",
        &[
            answer(
                3,
                SUMMARY,
                &format!("{problem}\n{problem}\nWarning: at least one source file could not be read"),
            ),
            answer(0, changed, ""),
        ],
    );
    let report = lab.backup().unwrap();
    let BackupOutcome::Partial { unreadable, examples } = report.outcome else {
        panic!()
    };
    assert_eq!(
        (unreadable, examples[0].as_str()),
        (2, "secret: open: permission denied")
    );
    assert_eq!(report.snapshot_id, "new");
    assert_eq!(lab.calls(), ["backup", "tag"]);
    // Its exit alone is enough, and one that can't be tagged is partial all the same, and warned of.
    let lab = Lab::new("0.18.0", &[answer(3, SUMMARY, ""), answer(1, "", "Fatal: no")]);
    let report = lab.backup().unwrap();
    assert!(matches!(
        report.outcome,
        BackupOutcome::Partial { unreadable: 1, .. }
    ));
    assert!(lab.told()[0].contains("could not be tagged"), "{:?}", lab.told());
}

/// Where nothing may be removed restic fails after it has written the tagged one.
#[test]
fn a_tagged_snapshot_beside_the_first_is_enough() {
    let denied = answer(1, "", "Fatal: Remove(<snapshot/0123456789>): Access Denied.");
    let tagged = listed("new")
        .replace("\"tree\"", &format!("\"original\":\"{STORED}\",\"tree\""))
        .replace("\"reseed\",", "\"reseed\",\"reseed-partial\",");
    for (listing, id, told) in [
        (
            tagged.replace("\"new\"", &format!("\"{}\"", "ab".repeat(32))),
            "ab".repeat(32),
            0,
        ),
        (listed(STORED), STORED.to_owned(), 1),
    ] {
        let answers = [answer(3, SUMMARY, ""), denied.clone(), answer(0, &listing, "")];
        let lab = Lab::new("0.18.0", &answers);
        assert_eq!(lab.backup().unwrap().snapshot_id, id);
        assert_eq!(
            (lab.calls().join(" "), lab.told().len()),
            ("backup tag snapshots".to_owned(), told)
        );
    }
}

/// restic ends well where it could not tag, and says nothing of it in JSON. Another partial copy of that state isn't it.
#[test]
fn a_tag_that_did_not_come_about_is_warned_of() {
    let of = |id: &str, original: &str| {
        let one = listed(id);
        let one = one.trim_start_matches('[').trim_end_matches(']');
        let (original, partial) = match original {
            "" => (String::new(), ""),
            other => (format!("\"original\":\"{other}\","), "\"reseed-partial\","),
        };
        one.replace("\"tree\"", &format!("{original}\"tree\""))
            .replace("\"reseed\",", &format!("\"reseed\",{partial}"))
    };
    let (tagged, before) = ("ab".repeat(32), "cd".repeat(32));
    for (left, id, told) in [(true, STORED, 1), (false, tagged.as_str(), 0)] {
        let mut all = vec![of(&tagged, &before)];
        all.extend(left.then(|| of(STORED, "")));
        let listing = format!("[{}]", all.join(","));
        let answers = [answer(3, SUMMARY, ""), answer(0, "", ""), answer(0, &listing, "")];
        let lab = Lab::new("0.14.0", &answers);
        assert_eq!(lab.backup().unwrap().snapshot_id, id);
        assert_eq!(lab.told().len(), told, "{:?}", lab.told());
    }
}

/// By a backup of another host, which takes its time.
#[test]
fn a_tag_that_others_keep_out_is_tried_again() {
    let answers = [answer(3, SUMMARY, ""), busy(), busy(), answer(0, CHANGED, "")];
    let clock = Arc::new(Hasty::default());
    let lab = Lab::by_clock("0.18.0", &answers, Arc::<Hasty>::clone(&clock));
    assert_eq!(lab.backup().unwrap().snapshot_id, "new");
    assert_eq!(lab.calls(), ["backup", "tag", "tag", "tag"]);
    assert_eq!((clock.monotonic().as_secs(), lab.told().len()), (15, 0));
}

#[test]
fn a_tag_that_is_kept_out_for_too_long_is_warned_of() {
    let answers: Vec<Answer> = std::iter::once(answer(3, SUMMARY, ""))
        .chain(std::iter::repeat_n(busy(), 100))
        .collect();
    let clock = Arc::new(Hasty::default());
    let lab = Lab::by_clock("0.18.0", &answers, Arc::<Hasty>::clone(&clock));
    assert_eq!(lab.backup().unwrap().snapshot_id, STORED);
    assert!((600..700).contains(&clock.monotonic().as_secs()), "{clock:?}");
    assert!(lab.told()[0].contains("could not be tagged"), "{:?}", lab.told());
}

#[test]
fn a_run_that_ends_while_it_waits_tries_once_more() {
    let answers = [answer(3, SUMMARY, ""), busy(), busy(), answer(0, CHANGED, "")];
    let mut lab = Lab::new("0.18.0", &answers);
    let clock = Hasty {
        ends: Some((10, lab.program.cancel.clone())),
        ..Hasty::default()
    };
    let runner: Arc<dyn Runner> = Arc::<Scripted>::clone(&lab.program);
    lab.restic = Restic::new(
        SourceName::new("offsite").unwrap(),
        Location::Local(lab.dir.path().join("repo")),
        PasswordFrom::Given(Password::new(PASSWORD)),
        lab.dir.path().join("work"),
        runner,
        Arc::new(clock),
    );
    assert_eq!(lab.backup().unwrap().snapshot_id, "new");
    assert_eq!(lab.calls(), ["backup", "tag", "tag", "tag"]);
}

#[test]
fn what_was_stored_when_it_was_cancelled_is_tagged() {
    let stopped = Answer {
        cancelled: true,
        ..answer(0, "", "")
    };
    let list = answer(0, &listed(STORED), "");
    let lab = Lab::new(
        "0.18.0",
        &[
            stopped,
            answer(0, "", ""),
            answer(0, "", ""),
            list,
            answer(0, CHANGED, ""),
        ],
    );
    let report = lab.backup().unwrap();
    assert!(
        matches!(report.outcome, BackupOutcome::Partial { .. }),
        "{report:?}"
    );
    assert_eq!(report.snapshot_id, "new");
    assert_eq!(lab.calls(), ["backup", "list", "unlock", "snapshots", "tag"]);
}

/// Two of one state can't be told apart: the one that nobody trusted must not be the one that is restored.
#[test]
fn what_is_stored_again_is_tagged_when_it_is() {
    let first = "ab".repeat(32);
    let answers = |exit| {
        [
            answer(0, &listed(&first), ""),
            answer(exit, SUMMARY, ""),
            answer(0, CHANGED, ""),
        ]
    };
    let lab = Lab::new("0.18.0", &answers(0));
    block_on(OffsiteRepo::points(&lab.restic, &lab.cx, None)).unwrap();
    assert_eq!(lab.backup().unwrap().snapshot_id, STORED);
    assert_eq!(lab.calls(), ["snapshots", "backup", "tag"]);
    assert!(lab.program.calls.lock().unwrap()[2].ends_with(&first));
    // And not when nothing took its place.
    let lab = Lab::new("0.18.0", &answers(1));
    block_on(OffsiteRepo::points(&lab.restic, &lab.cx, None)).unwrap();
    lab.backup().unwrap_err();
    assert_eq!(lab.calls(), ["snapshots", "backup"]);
}
