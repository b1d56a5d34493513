//! What real versions said when they failed (see `tests/transcripts`), and what is made of it.

use super::*;
use crate::restic::lock_words::age;

macro_rules! said {
    ($name:literal) => {
        include_str!(concat!("../../tests/transcripts/", $name, ".txt"))
    };
}

/// The words of an output, messages taken apart as the runner's listener does.
fn words(text: &str) -> String {
    use crate::restic::parse::{Line, line};
    let words = text.lines().filter_map(|text| match line(text.as_bytes()) {
        Line::ExitError(words) => Some(words),
        Line::Problem(_) => None,
        _ => Some(text.to_owned()),
    });
    words.collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn judged(code: i32, text: &str) -> EngineError {
    of(Exit::Code(code), &words(text), "/tmp/lab/repo")
}

#[test]
fn a_host_that_ssh_does_not_reach_is_no_damaged_repository() {
    let of_ssh = |said: &str| {
        judged(
            1,
            &format!(
                "subprocess ssh: {said}\nFatal: unable to open repository at sftp:x:/y: unable to start the sftp session, \
                 error: error receiving version packet from server: server unexpectedly closed connection: unexpected EOF"
            ),
        )
    };
    let refused = of_ssh("ssh: connect to host x port 22: Connection refused");
    assert!(matches!(refused, EngineError::Refused { .. }), "{refused}");
    let unknown = of_ssh("ssh: Could not resolve hostname x: Name or service not known");
    assert!(matches!(unknown, EngineError::NoSuchHost { .. }), "{unknown}");
    for words in [
        "Host key verification failed.",
        "box@x: Permission denied (publickey).",
        "Received disconnect from x port 22:2: Too many authentication failures",
    ] {
        assert!(matches!(of_ssh(words), EngineError::Denied { .. }));
    }
    let without = of_ssh("subsystem request failed on channel 0");
    assert!(matches!(without, EngineError::Invalid { .. }), "{without}");
    let silent = of_ssh("ssh: connect to host x port 22: Connection timed out");
    assert!(matches!(silent, EngineError::Unreachable { .. }), "{silent}");
}

/// As 0.18 says it for everything that takes a lock.
#[test]
fn a_lock_file_that_is_none_is_no_damage() {
    let said = |why: &str| {
        let hint = "the `unlock --remove-all` command can be used to remove invalid locks. Make sure that no other restic process is \
                    accessing the repository when running the command";
        judged(1, &format!("Fatal: invalid lock file: {why}\n\n{hint}"))
    };
    for why in [
        "LoadRaw(<lock/0123456789>): invalid data returned",
        "<lock/0123456789> unexpected end of JSON input",
    ] {
        let error = said(why);
        assert!(
            matches!(&error, EngineError::BadLock { id, .. } if id == "0123456789"),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("unlock --remove-all"));
    }
    let away = said("Load(<lock/0123456789>, 0, 0): dial tcp: connection refused");
    assert!(matches!(away, EngineError::Store { .. }), "{away}");
    let theirs = said("Load(<lock/0123456789>, 0, 0): open x: permission denied");
    assert!(matches!(theirs, EngineError::Denied { .. }), "{theirs}");
}

/// restic prints the time in the zone of whoever wrote the lock, and not which that is.
#[test]
fn a_locks_age_is_what_restic_says() {
    for (said, seconds) in [
        ("302.223716ms", 0),
        ("1.5s", 1),
        ("5m59s", 359),
        ("7h31m2.25s", 27_062),
    ] {
        let error = judged(
            11,
            &format!(
                "unable to create lock in backend: repository is already locked exclusively by PID 7 on x by root (UID 0, GID 0)\n\
                 lock was created at 2026-11-27 06:04:40 ({said} ago)\nstorage ID 26e2dcec"
            ),
        );
        let EngineError::Locked { holder } = error else {
            panic!("{error}")
        };
        assert_eq!(holder.age, Some(seconds), "{said}");
        assert!(!holder.to_string().contains("2026"), "{holder}");
    }
    for text in ["", "soon", "5", "5x", "1h-2m"] {
        assert_eq!(age(text), None, "{text}");
    }
}

/// As restic said it when its ssh was killed in the middle.
#[test]
fn what_cannot_be_read_because_ssh_has_died_is_not_damaged() {
    for words in [
        "Load(<data/d700278fe9>, 138591, 0) returned error, retrying after 552.330144ms: connection lost\n",
        "Load(<data/b78fc2ca44>, 16932959, 0) returned error, retrying after 1.2s: readFull: connection lost\n",
        "List(data) failed: ssh command exited: signal: killed\nssh command exited: signal: killed\n\
         pack d0e7dddb39: does not exist\n\
         download error: circuit breaker open for file <data/d0e7dddb39>\n\n\
         The repository is damaged and must be repaired.\n\nFatal: repository contains errors\n",
        "Load(<snapshot/eebdd0c2e5>, 0, 0) failed: ssh command exited: signal: killed\n\
         Fatal: failed to find snapshot: circuit breaker open for file <snapshot/eebdd0c2e5>",
    ] {
        let error = judged(1, words);
        assert!(matches!(error, EngineError::Unreachable { .. }), "{error}");
        assert!(lasts(words), "{words}");
    }
    let problem = |why: &str| Problem {
        item: "/srv/a".to_owned(),
        why: why.to_owned(),
    };
    let lost = "Load(<data/d700278fe9>, 13646, 95571) failed: ssh command exited: signal: killed";
    for (why, words) in [
        ("circuit breaker open for file <data/d700278fe9>", lost),
        (lost, ""),
    ] {
        let verdict = of_restore(Exit::Code(1), &[problem(why)], 1, words, "sftp:x:/y");
        let Verdict::Failed(error) = verdict else {
            panic!("a restore that lost its way is no success");
        };
        assert!(matches!(error, EngineError::Unreachable { .. }), "{error}");
    }
    let http = "Load(<data/0123456789>, 5, 0) returned error, retrying after 1s: Get \"https://x/y\": http2: client connection lost";
    assert!(!lasts(http));
    let file = "pack d0e7dddb39: does not exist\nerror: file \"/srv/connection lost\": blob is damaged\nFatal: repository contains errors";
    assert!(!matches!(judged(1, file), EngineError::Unreachable { .. }));
}

/// In the end: a request that is asked again says so, too, and the second time may have been answered.
#[test]
fn what_could_not_be_fetched_is_told_apart_from_what_was_asked_for_again() {
    let check = said!("check-link-lost-stderr-restic-0.14.0");
    let (again, ended): (Vec<&str>, Vec<&str>) =
        check.lines().partition(|line| line.contains("retrying after"));
    assert!(!again.is_empty() && out_of_reach(&again.join("\n")).is_none());
    assert!(out_of_reach(&ended.join("\n")).is_some());
    for words in [
        "error for tree ddb9c717:\n  tree ddb9c717: file \"dial tcp: connection refused\" blob 0 not found in index",
        "Remove(<lock/0123456789>) failed: dial tcp 127.0.0.1:1: connect: connection refused",
        "pack 1899445c: unexpected EOF",
    ] {
        assert_eq!(out_of_reach(words), None);
    }
}

#[test]
fn both_versions_mean_the_same() {
    for (code, text) in [
        (1, said!("wrong-password-stderr-restic-0.14.0")),
        (12, said!("wrong-password-stderr-restic-0.18.0")),
    ] {
        assert!(matches!(judged(code, text), EngineError::WrongPassword { .. }));
    }
    for (code, text) in [
        (1, said!("no-repository-stderr-restic-0.14.0")),
        (10, said!("no-repository-stderr-restic-0.18.0")),
    ] {
        assert!(matches!(judged(code, text), EngineError::NoRepository { .. }));
    }
    for text in [
        said!("init-twice-stderr-restic-0.14.0"),
        said!("init-twice-stderr-restic-0.18.0"),
    ] {
        assert!(matches!(judged(1, text), EngineError::AlreadyExists { .. }));
    }
    for text in [
        said!("no-snapshot-stderr-restic-0.14.0"),
        said!("no-snapshot-stderr-restic-0.18.0"),
    ] {
        assert_eq!(
            judged(1, text),
            EngineError::NoSnapshot {
                id: "deadbeefdeadbeef".into()
            }
        );
    }
    assert!(matches!(
        judged(1, said!("no-such-snapshot-file-stderr-restic-0.18.0")),
        EngineError::NoSnapshot { .. }
    ));
    for text in [
        said!("restore-read-only-stderr-restic-0.14.0"),
        said!("restore-read-only-stderr-restic-0.18.0"),
    ] {
        assert!(
            matches!(judged(1, text), EngineError::Denied { .. }),
            "{:?}",
            judged(1, text)
        );
    }
}

#[test]
fn a_configuration_that_cannot_be_read_is_told_as_that() {
    let error = judged(
        1,
        "Fatal: config cannot be loaded: ciphertext verification failed",
    );
    assert!(matches!(error, EngineError::Config { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "cannot read the configuration of the repository at /tmp/lab/repo: \
         Fatal: config cannot be loaded: ciphertext verification failed"
    );
    assert!(error.hint().is_some());
}

#[test]
fn the_holder_of_a_lock_is_named() {
    for (code, text) in [
        (1, said!("locked-stderr-restic-0.14.0")),
        (11, said!("locked-stderr-restic-0.18.0")),
    ] {
        let EngineError::Locked { holder } = judged(code, text) else {
            panic!("{:?}", judged(code, text));
        };
        assert_eq!(
            (holder.host.as_str(), holder.who.as_str()),
            ("other-host", "root")
        );
        assert!(
            holder.pid > 1 && holder.age.is_some() && holder.id.len() == 8,
            "{holder}"
        );
    }
    // A code alone, without words that are known: locked all the same, by nobody knows whom.
    let EngineError::Locked { holder } = judged(11, "new words") else {
        panic!()
    };
    assert_eq!((holder.pid, holder.since, holder.age), (0, None, None));
}

#[test]
fn a_question_that_could_not_be_asked_is_not_answered_with_nothing() {
    // restic asks "Is there a repository at the following location?" whatever went wrong.
    for why in [
        "permission denied",
        "too many levels of symbolic links",
        "dial tcp: lookup s3.example: no such host",
        "dial tcp 10.0.0.1:443: connect: connection refused",
        "Access Denied.",
        "x509: certificate signed by unknown authority",
        "something that nobody has seen yet",
    ] {
        let text = format!(
            "Fatal: unable to open config file: Stat: {why}\nIs there a repository at the following location?\nx"
        );
        let error = judged(1, &text);
        let empty = matches!(
            error,
            EngineError::NoRepository { .. } | EngineError::NoSnapshot { .. }
        );
        assert!(!empty, "{why}: {error:?}");
    }
    for code in [1, 2, 4, 70, 126, 130] {
        assert!(matches!(judged(code, ""), EngineError::Tool { .. }), "{code}");
    }
    let killed = of(Exit::Signal(9), "", "x");
    assert!(matches!(killed, EngineError::ToolDied { .. }) && killed.to_string().contains("SIGKILL"));
}

fn problem(item: &str, why: &str) -> Problem {
    Problem {
        item: item.into(),
        why: why.into(),
    }
}

#[test]
fn a_restore_that_lost_content_failed_and_one_that_lost_metadata_warns() {
    let judge = |problems: &[Problem]| {
        let count = u64::try_from(problems.len()).unwrap();
        of_restore(Exit::Code(1), problems, count, "Fatal: There were errors", "x")
    };
    let owner = problem("/a", "lchown /stage/a: operation not permitted");
    let Verdict::Metadata(warnings) = judge(std::slice::from_ref(&owner)) else {
        panic!()
    };
    assert_eq!(warnings, ["/a: lchown /stage/a: operation not permitted"]);
    // Not all that were told are known.
    assert!(matches!(
        of_restore(Exit::Code(1), std::slice::from_ref(&owner), 2, "", "x"),
        Verdict::Failed(EngineError::Target { .. })
    ));
    let corrupt = problem("/b", "ciphertext verification failed");
    assert!(matches!(
        judge(&[owner, corrupt.clone()]),
        Verdict::Failed(EngineError::Unreadable { .. })
    ));
    for lost in [
        "ReadFull(<data/8a437896e4>): The specified key does not exist.",
        "StreamPack: open /repo/data/d7/d75e: no such file or directory",
    ] {
        let verdict = judge(&[problem("/b", lost)]);
        let damage = matches!(verdict, Verdict::Failed(EngineError::Unreadable { .. }));
        assert!(damage, "{lost}: {verdict:?}");
    }
    let full = problem("/c", "write /stage/c: no space left on device");
    assert!(matches!(
        judge(&[corrupt, full]),
        Verdict::Failed(EngineError::NoSpace { .. })
    ));
    // A name that is not there had no metadata to be set: its content is missing too.
    let gone = problem("/d", "UtimesNano: no such file or directory");
    assert!(matches!(
        judge(&[gone]),
        Verdict::Failed(EngineError::Target { .. })
    ));
    assert!(matches!(judge(&[]), Verdict::Failed(EngineError::Tool { .. })));
    // What was to be done says what it is, and not what the file is called.
    for name in ["/xattr.c", "/chmod/x", "/decoding/too short"] {
        for why in ["input/output error", "permission denied"] {
            let named = problem(name, &format!("open /stage{name}: {why}"));
            let verdict = judge(&[named]);
            let failed = matches!(verdict, Verdict::Failed(EngineError::Target { .. }));
            assert!(failed, "{name}: {why}: {verdict:?}");
        }
        let owner = problem(name, &format!("lchown /stage{name}: operation not permitted"));
        assert!(matches!(judge(&[owner]), Verdict::Metadata(_)), "{name}");
    }
    let elsewhere = problem("/a", "open /srv/xattr/a: input/output error");
    assert!(matches!(judge(&[elsewhere]), Verdict::Failed(_)));
}

/// It is no fault of the machine that is restored onto, and a later try may well do.
#[test]
fn a_restore_that_did_not_reach_its_store_is_to_be_tried_later() {
    use crate::embedded::envelope;
    use crate::restic::parse::{Line, line, problem_in_words};
    use reseed_core::error::{Effect, Retry, SourceError};
    let told = said!("restore-link-lost-stderr-restic-0.14.0");
    let told: Vec<Problem> = told.lines().filter_map(problem_in_words).collect();
    let newer = said!("restore-link-lost-stderr-restic-0.18.0");
    let newer_told: Vec<Problem> = newer
        .lines()
        .filter_map(|text| match line(text.as_bytes()) {
            Line::Problem(problem) => Some(problem),
            _ => None,
        })
        .collect();
    let newer = words(newer);
    assert_eq!((told.len(), newer_told.len()), (2, 2));
    let lost = "Load(<data/0123456789>, 5, 0) failed: dial tcp 127.0.0.1:1: connect: connection refused";
    let broken = problem("/b", "circuit breaker open for file <data/0123456789>");
    for (problems, words) in [
        (told, ""),
        (newer_told, &newer),
        (vec![problem("/b", lost)], ""),
        (vec![broken.clone()], lost),
    ] {
        let count = u64::try_from(problems.len()).unwrap();
        let Verdict::Failed(error) = of_restore(Exit::Code(1), &problems, count, words, "rest:x") else {
            panic!("what could not be fetched is no success");
        };
        assert!(matches!(error, EngineError::Unreachable { .. }), "{error:?}");
        let error: SourceError = envelope(&error, String::new(), Effect::None);
        assert_eq!(error.should_retry(), Retry::Later);
    }
    // Neither is what it was given the second time, nor what is only called so.
    let again = "Load(<data/01>, 5, 0) returned error, retrying after 1s: dial tcp: connection refused";
    let named = problem("/dial tcp", "open /stage/dial tcp: input/output error");
    for (problem, words) in [(broken, again), (named, "")] {
        let verdict = of_restore(Exit::Code(1), &[problem], 1, words, "rest:x");
        assert!(
            matches!(verdict, Verdict::Failed(EngineError::Target { .. })),
            "{verdict:?}"
        );
    }
}

/// As restic passes on what stores say: the words of the client, without the codes.
fn again(request: &str, said: &str) -> String {
    format!("{request} returned error, retrying after 720.254544ms: client.PutObject: {said}")
}

#[test]
fn what_a_store_says_is_told_apart_by_its_words() {
    for (said, wanted) in [
        ("The specified bucket does not exist", "no_bucket"),
        (
            "The request signature we calculated does not match the signature you provided",
            "credentials",
        ),
        (
            "The Access Key Id you provided does not exist in our records.",
            "credentials",
        ),
        ("The provided token has expired.", "credentials_expired"),
        (
            "The difference between the request time and the current time is too large.",
            "clock_skew",
        ),
        (
            "The authorization header is malformed; the region 'a' is wrong",
            "wrong_region",
        ),
        ("Bucket size quota is reached", "no_space"),
        ("Cannot upload files, storage cap exceeded.", "no_space"),
        ("The server has no space left", "no_space"),
        ("Access Denied", "denied"),
        ("Please reduce your request rate.", "store"),
        ("We encountered an internal error.", "store"),
    ] {
        let text = again("Save(<data/0123456789>)", said);
        let error = of(Exit::Code(1), &text, "s3:there/b");
        let kind = serde_json::to_value(&error).unwrap()["kind"].clone();
        assert_eq!(kind, wanted, "{said}: {error}");
        assert_eq!(lasts(&text), wanted != "store", "{said}");
        // Also where restic adds that there may be no repository.
        let config = format!(
            "Fatal: unable to open config file: Stat: {said}\nIs there a repository at the following location?\ns3:there/b"
        );
        let error = of(Exit::Code(1), &config, "s3:there/b");
        assert!(
            !matches!(error, EngineError::NoRepository { .. }),
            "{said}: {error}"
        );
    }
}

#[test]
fn an_object_that_is_gone_is_damage_and_a_hiccup_is_none() {
    for said in [
        "The specified key does not exist.",
        "The requested range is not satisfiable",
    ] {
        let text = again("Load(<data/0123456789>, 5, 0)", said);
        assert!(lasts(&text), "{said}");
        let error = of(Exit::Code(1), &text, "s3:there/b");
        assert!(matches!(error, EngineError::Unreadable { .. }), "{said}: {error}");
    }
    for said in [
        "dial tcp 10.0.0.1:443: connect: connection refused",
        "read: connection reset by peer",
        "unexpected EOF",
        "net/http: timeout awaiting response headers",
    ] {
        assert!(!lasts(&again("Load(<data/0123456789>, 5, 0)", said)), "{said}");
    }
}

#[test]
fn what_passed_when_it_was_asked_again_is_no_damage() {
    let again = "Load(<data/0123456789>, 5, 0) returned error, retrying after 1s: unexpected EOF";
    let lost = "Fatal: Get \"https://b2/x\": dial tcp 10.0.0.1:443: connect: connection refused";
    let error = of(Exit::Code(1), &format!("{again}\n{lost}"), "b2");
    assert!(!matches!(error, EngineError::Unreadable { .. }), "{error:?}");
    // What it was told at the end, and what doesn't pass, is.
    let gone =
        "Load(<data/0123456789>, 5, 0) returned error, retrying after 1s: The specified key does not exist.";
    for damage in [
        format!("{again}\nFatal: unexpected EOF"),
        format!("{gone}\nFatal: Load(<data/0123456789>)"),
    ] {
        let error = of(Exit::Code(1), &damage, "b2");
        assert!(matches!(error, EngineError::Unreadable { .. }), "{error:?}");
    }
}

#[test]
fn a_configuration_that_cannot_be_fetched_is_not_called_damaged() {
    let of = |why: &str| {
        of(
            Exit::Code(1),
            &format!("Fatal: config cannot be loaded: {why}"),
            "b2",
        )
    };
    let lost = of("Get \"https://b2/config\": dial tcp 10.0.0.1:443: connect: connection refused");
    assert!(matches!(lost, EngineError::Unreachable { .. }), "{lost:?}");
    for why in ["open /r/config: permission denied", "Stat: Access Denied."] {
        let denied = of(why);
        assert!(matches!(denied, EngineError::Denied { .. }), "{denied:?}");
    }
    let damaged = of("ciphertext verification failed");
    assert!(matches!(damaged, EngineError::Config { .. }), "{damaged:?}");
}
