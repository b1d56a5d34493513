//! What real versions printed (see `tests/transcripts`), whole, cut off and hostile.

use proptest::prelude::*;

use super::*;

macro_rules! said {
    ($name:literal) => {
        include_str!(concat!("../../tests/transcripts/", $name, ".txt"))
    };
}

fn lines(text: &str) -> Vec<Line> {
    text.lines().map(|text| line(text.as_bytes())).collect()
}

fn summary(text: &str) -> Option<Summary> {
    lines(text).into_iter().find_map(|line| match line {
        Line::Summary(summary) => Some(*summary),
        _ => None,
    })
}

fn problems(text: &str) -> Vec<Problem> {
    let told = |text: &str| match line(text.as_bytes()) {
        Line::Problem(problem) => Some(problem),
        _ => problem_in_words(text),
    };
    text.lines().filter_map(told).collect()
}

const BACKUPS: [&str; 2] = [
    said!("backup-stdout-restic-0.14.0"),
    said!("backup-stdout-restic-0.18.0"),
];
const SNAPSHOTS: [&str; 2] = [
    said!("snapshots-stdout-restic-0.14.0"),
    said!("snapshots-stdout-restic-0.18.0"),
];

#[test]
fn a_backup_ends_with_what_it_did() {
    let [old, new] = BACKUPS.map(|text| summary(text).unwrap());
    assert_eq!(old.snapshot_id.as_ref().unwrap().len(), 8);
    assert_eq!(new.snapshot_id.as_ref().unwrap().len(), 64);
    for it in [&old, &new] {
        assert_eq!(
            (it.total_files_processed, it.total_bytes_processed),
            (Some(2), Some(300_003))
        );
        assert!(it.data_added.unwrap() > 300_000);
    }
    assert!(old.data_added_packed.is_none() && new.data_added_packed.unwrap() > 300_000);
    assert!(summary(said!("restore-stdout-restic-0.18.0")).is_some());
    assert_eq!(summary(said!("restore-stdout-restic-0.14.0")), None);
    assert_eq!(
        summary(said!("check-json-stdout-restic-0.18.0"))
            .unwrap()
            .num_errors,
        Some(0)
    );
    assert_eq!(
        summary(said!("check-damaged-json-stdout-restic-0.18.0"))
            .unwrap()
            .num_errors,
        Some(11)
    );
}

#[test]
fn what_could_not_be_read_is_named_with_its_reason() {
    for text in [
        said!("backup-partial-stderr-restic-0.14.0"),
        said!("backup-partial-stderr-restic-0.18.0"),
    ] {
        let problems = problems(text);
        assert_eq!(problems.len(), 2);
        for problem in &problems {
            assert!(problem.item.contains("p/ddd"), "{problem:?}");
            assert!(
                problem.why.to_lowercase().contains("file name too long"),
                "{:?}",
                problem.why
            );
        }
    }
    let old = problems(said!("restore-damaged-stderr-restic-0.14.0"));
    assert_eq!((old.len(), old[0].item.as_str()), (2, "/sub"));
    assert!(old[0].why.ends_with("ciphertext verification failed"));
    assert!(problems(said!("restore-damaged-stderr-restic-0.18.0")).len() >= 2);
}

#[test]
fn snapshots_are_read_with_what_each_version_records() {
    for text in SNAPSHOTS {
        let found = snapshots(text.as_bytes()).unwrap();
        assert_eq!(found.len(), 1);
        let snapshot = &found[0];
        assert_eq!((snapshot.host.as_str(), snapshot.id.len()), ("h", 64));
        assert_eq!(snapshot.paths, ["/tmp/lab/links/a"]);
        assert_eq!(snapshot.tags, ["reseed", "reseed-point=1"]);
        assert_eq!(snapshot.time, "2026-01-02T03:04:05Z".parse().unwrap());
    }
    let counted = snapshots(SNAPSHOTS[1].as_bytes()).unwrap().remove(0);
    assert_eq!((counted.files, counted.bytes), (Some(2), Some(300_003)));
    for empty in ["[]", "null", "[]\n"] {
        assert!(snapshots(empty.as_bytes()).unwrap().is_empty());
    }
}

#[test]
fn a_configuration_is_read_and_nonsense_is_none() {
    for text in [
        said!("config-stdout-restic-0.14.0"),
        said!("config-stdout-restic-0.18.0"),
    ] {
        let (id, version) = config(text.as_bytes()).unwrap();
        assert_eq!((id.len(), version), (64, 2));
        for end in 0..text.trim_end().len() {
            assert!(matches!(
                config(&text.as_bytes()[..end]),
                Err(EngineError::BadOutput { .. })
            ));
        }
    }
    for bad in [
        "",
        "{}",
        "[]",
        r#"{"id":"","version":2}"#,
        r#"{"id":"x","version":0}"#,
    ] {
        assert!(config(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn unknown_messages_and_words_are_passed_over() {
    for text in [
        "",
        "{",
        "{}",
        "null",
        "[1]",
        "words",
        r#"{"message_type":"weather","sun":true}"#,
        r#"{"message_type":7}"#,
        r#"{"message_type":"status","bytes_done":"many"}"#,
        "\u{1b}[2Kwords",
    ] {
        assert_eq!(line(text.as_bytes()), Line::Other, "{text}");
    }
    // What failed is never passed over, whatever it looks like.
    for text in [
        r#"{"message_type":"error"}"#,
        r#"{"message_type":"error","error":7,"item":"/a"}"#,
        r#"{"message_type":"error","error":{},"item":"/a"}"#,
        r#"{"message_type":"error","error":{"Op":"lstat","Err":{}},"item":"/a"}"#,
    ] {
        assert!(matches!(line(text.as_bytes()), Line::Problem(_)), "{text}");
    }
    let long = format!(
        r#"{{"message_type":"summary","snapshot_id":"{}"}}"#,
        "a".repeat(LONGEST)
    );
    assert_eq!(line(long.as_bytes()), Line::Other);
}

#[test]
fn ids_are_ids() {
    let id = "ab".repeat(32);
    assert_eq!(ids(&format!("{id}\n\n{id}\n")).unwrap().len(), 2);
    for bad in ["ab", &"AB".repeat(32), &format!("{id}0"), "Fatal: no"] {
        assert!(matches!(ids(bad), Err(EngineError::BadOutput { .. })), "{bad}");
    }
}

proptest! {
    #[test]
    fn a_cut_off_output_has_no_end(which in 0..2_usize, share in 0.0..1.0_f64) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let cut = |text: &'static str| &text.as_bytes()[..(text.trim_end().len() as f64 * share) as usize];
        let cut_off = String::from_utf8_lossy(cut(BACKUPS[which]));
        prop_assert_eq!(summary(&cut_off), None);
        // Half a list is not a shorter one.
        prop_assert!(snapshots(cut(SNAPSHOTS[which])).is_err());
    }

    #[test]
    fn nothing_that_is_printed_brings_it_down(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..400_usize, flip: u8) {
        let _ = (line(&bytes), config(&bytes), snapshots(&bytes), ids(&String::from_utf8_lossy(&bytes)));
        let mut known = BACKUPS[1].as_bytes().to_vec();
        let at = at % known.len();
        known[at] ^= flip;
        let _ = line(&known);
        let mut list = SNAPSHOTS[1].as_bytes().to_vec();
        let at = at % list.len();
        list[at] ^= flip;
        let _ = snapshots(&list);
    }
}
