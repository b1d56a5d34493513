//! What a check says, and when its findings are none.

use reseed_core::offsite::{CheckDepth, CheckReport};

use super::*;

const DAMAGED: &str = "pack 6a77: does not exist\nerror for tree 727c:\nFatal: repository contains errors";

fn damaged() -> Answer {
    answer(1, "load indexes\n", DAMAGED)
}

/// A listing of files.
fn ids(ids: &[&str]) -> Answer {
    let lines: Vec<String> = ids.iter().map(|id| id.repeat(32)).collect();
    answer(0, &lines.join("\n"), "")
}

/// Its index files and a snapshot.
fn there(index: &[&str]) -> [Answer; 2] {
    [ids(index), ids(&["ff"])]
}

fn lock(host: &str, pid: i32, exclusive: bool) -> Answer {
    aged(0, host, pid, exclusive)
}

fn aged(minutes: i64, host: &str, pid: i32, exclusive: bool) -> Answer {
    let time = SystemClock::new().now() - jiff::SignedDuration::from_mins(minutes);
    let lock = format!(
        r#"{{"time":"{time}","exclusive":{exclusive},"hostname":"{host}","username":"root","pid":{pid},"uid":0,"gid":0}}"#
    );
    answer(0, &lock, "")
}

fn lab(version: &str, answers: &[&[Answer]]) -> Lab {
    Lab::new(version, &answers.concat())
}

fn check(lab: &Lab) -> Result<CheckReport, reseed_core::error::OffsiteError> {
    let checked = block_on(lab.restic.check(&lab.cx, CheckDepth::Structure));
    assert!(
        lab.program.answers.lock().unwrap().is_empty(),
        "{:?}",
        lab.calls()
    );
    checked
}

#[test]
fn a_check_lists_what_is_damaged_and_a_failure_to_look_is_an_error() {
    let sound = lab("0.14.0", &[&there(&["aa"]), &[answer(0, "load indexes\n", "")]]);
    assert_eq!(
        check(&sound).unwrap(),
        CheckReport {
            affected: Some(vec![]),
            ..CheckReport::default()
        }
    );
    let same = there(&["aa"]);
    let lost = lab("0.14.0", &[&same, &[damaged()], &same, &[ids(&[])]]);
    let report = check(&lost).unwrap();
    assert_eq!(
        report.errors,
        ["pack 6a77: does not exist", "error for tree 727c:"]
    );
    let refused = answer(1, "", "Fatal: dial tcp: connection refused");
    let error = check(&lab("0.14.0", &[&same, &[refused]])).unwrap_err();
    assert_eq!(error.kind(), OffsiteKind::Unreachable);
    // It says the same of what it could not read because its ssh was gone.
    let lost = format!("List(data) failed: ssh command exited: signal: killed\n{DAMAGED}");
    let lost = answer(1, "load indexes\n", &lost);
    let error = check(&lab("0.14.0", &[&same, &[lost]])).unwrap_err();
    assert_eq!(error.kind(), OffsiteKind::Unreachable);
    // And of what it could not fetch, by HTTP, in either version's way of telling.
    let fetched = "dial tcp 127.0.0.1:1: connect: connection refused";
    let lost = include_str!("../transcripts/check-link-lost-stderr-restic-0.14.0.txt");
    let error = check(&lab("0.14.0", &[&same, &[answer(1, "load indexes\n", lost)]])).unwrap_err();
    assert_eq!(
        (error.kind(), error.should_retry()),
        (OffsiteKind::Unreachable, Retry::Later)
    );
    let lost = include_str!("../transcripts/check-link-lost-json-stderr-restic-0.18.0.txt");
    let error = check(&lab("0.18.0", &[&same, &[answer(1, "", lost)]])).unwrap_err();
    assert_eq!(error.kind(), OffsiteKind::Unreachable);
    // Damage stays damage, where it asked once more and was answered.
    let again =
        format!("Load(<data/0123456789>, 5, 0) returned error, retrying after 1s: {fetched}\n{DAMAGED}");
    let stumbled = [answer(1, "load indexes\n", &again)];
    let report = check(&lab("0.14.0", &[&same, &stumbled, &same, &[ids(&[])]])).unwrap();
    assert!(
        report.errors.contains(&"pack 6a77: does not exist".to_owned()),
        "{report:?}"
    );
    // And where it could not fetch all: what it could is wrong.
    let both = format!("pack 6a77: size mismatch\npack 1899 failed to download: {fetched}\n{DAMAGED}");
    let both = [answer(1, "load indexes\n", &both)];
    let report = check(&lab("0.14.0", &[&same, &both, &same, &[ids(&[])]])).unwrap();
    assert!(
        report.errors.contains(&"pack 6a77: size mismatch".to_owned()),
        "{report:?}"
    );
    let lab = Lab::new("0.14.0", &[]);
    let error = block_on(lab.restic.check(&lab.cx, CheckDepth::Part { n: 3, of: 2 })).unwrap_err();
    assert_eq!(error.kind(), OffsiteKind::InvalidInput);
}

/// A newer one ends with a summary.
#[test]
fn a_check_without_its_last_word_is_no_success() {
    let lab = lab("0.18.0", &[&there(&["aa"]), &[answer(0, "", "")]]);
    assert_eq!(check(&lab).unwrap_err().kind(), OffsiteKind::BadOutput);
}

#[test]
fn what_a_prune_removed_meanwhile_is_looked_for_again() {
    let (before, after) = (there(&["aa", "bb"]), there(&["bb", "cc"]));
    let sound = answer(0, "load indexes\n", "");
    let first: [&[Answer]; 4] = [&before, &[damaged()], &after, &[ids(&[])]];
    let once = lab("0.14.0", &[first.concat().as_slice(), &after, &[sound]]);
    assert_eq!(check(&once).unwrap().errors, Vec::<String>::new());
    // Damage is found once more.
    let again: [&[Answer]; 4] = [&after, &[damaged()], &after, &[ids(&[])]];
    let damage = lab("0.14.0", &[first.concat().as_slice(), &again.concat()]);
    assert_eq!(check(&damage).unwrap().errors.len(), 2);
    let never = lab("0.14.0", &[first.concat().as_slice(), &first.concat()]);
    let error = check(&never).unwrap_err();
    assert_eq!(
        (error.kind(), error.should_retry()),
        (OffsiteKind::Busy, Retry::Later)
    );
    // A snapshot that was removed, too.
    let forgotten = [ids(&["aa", "bb"]), ids(&[])];
    let forgotten = lab(
        "0.14.0",
        &[
            &before,
            &[damaged()],
            &forgotten,
            &[ids(&[])],
            &after,
            &[answer(0, "", "")],
        ],
    );
    assert_eq!(check(&forgotten).unwrap().errors, Vec::<String>::new());
}

#[test]
fn what_a_prune_may_be_removing_is_no_damage() {
    let same = there(&["aa"]);
    let (live, namesake, dead, shared) = (
        lock("other-host", 7, true),
        lock(&here(), NOBODY, true),
        aged(7, &here(), NOBODY, true),
        lock("other-host", 7, false),
    );
    let gone = answer(1, "", "Fatal: no matching ID found");
    let lost = |locks: &[&[Answer]]| lab("0.14.0", &[&same, &[damaged()], &same, &locks.concat()]);
    let held = lost(&[&[ids(&["bb", "cc"])], &[shared.clone(), live.clone()]]);
    let error = check(&held).unwrap_err();
    assert_eq!(error.kind(), OffsiteKind::Locked);
    assert!(error.to_string().contains("other-host"), "{error}");
    // It was refreshed between the listing and the look.
    let refreshed = lost(&[&[ids(&["bb"]), gone], &[ids(&["cc"]), live]]);
    assert_eq!(check(&refreshed).unwrap_err().kind(), OffsiteKind::Locked);
    // A machine of the same name may prune.
    let held = lost(&[&[ids(&["bb"])], &[namesake]]);
    assert_eq!(check(&held).unwrap_err().kind(), OffsiteKind::Locked);
    // A backup, and one that died, remove nothing.
    let others = lost(&[&[ids(&["bb", "cc"])], &[shared, dead]]);
    assert_eq!(check(&others).unwrap().errors.len(), 2);
}

/// Nobody changes a pack, so that what is wrong with one that is still there is no other's doing.
#[test]
fn rot_is_told_also_where_others_remove_something() {
    let (before, after) = (there(&["aa", "bb"]), there(&["bb", "cc"]));
    let id = "ab".repeat(32);
    let words = format!(
        "{DAMAGED}\nPack ID does not match, want {id}, got {}",
        "cd".repeat(32)
    );
    let wrong = answer(1, "load indexes\n", &words);
    let first: [&[Answer]; 4] = [&before, std::slice::from_ref(&wrong), &after, &[ids(&[])]];
    let listed = ids(&["ef", "ab"]);
    let told = lab("0.14.0", &[&first.concat(), &first.concat(), &[listed]]);
    let report = check(&told).unwrap();
    assert!(
        report.errors.len() == 1 && report.errors[0].contains(&id),
        "{report:?}"
    );
    assert!(
        report.affected.is_none() && report.warnings.len() == 1,
        "{report:?}"
    );
    let gone = lab("0.14.0", &[&first.concat(), &first.concat(), &[ids(&["ef"])]]);
    assert_eq!(check(&gone).unwrap_err().kind(), OffsiteKind::Busy);
    let held: [&[Answer]; 4] = [
        &after,
        &[wrong],
        &after,
        &[ids(&["bb"]), lock("other-host", 7, true)],
    ];
    let told = lab("0.14.0", &[&held.concat(), &[ids(&["ab"])]]);
    assert_eq!(check(&told).unwrap().errors.len(), 1);
}

/// The store went away between the check and the look.
#[test]
fn what_cannot_be_looked_at_afterwards_says_nothing() {
    let gone = || answer(1, "", "Fatal: dial tcp: connection refused");
    let same = there(&["aa"]);
    let lost = lab("0.14.0", &[&same, &[damaged()], &[gone(), gone()]]);
    assert_eq!(check(&lost).unwrap_err().kind(), OffsiteKind::Unreachable);
    // What could not be read before is part of the damage.
    let odd = || answer(1, "", "Fatal: no such directory");
    let damage = lab("0.14.0", &[&[odd(), damaged(), odd(), odd()]]);
    assert_eq!(check(&damage).unwrap().errors.len(), 2);
}
