//! The answers of OpenZFS 2.1, 2.2 and 2.3: what the parsers and the reading of errors know holds for all of them.
//!
//! Files of `2.1.11` are recorded from Debian's tools of that version, run on the module of 2.3.2, those of `2.3.2` from that
//! version alone. `words-2.1.11` and `words-2.3.2` are those strings of Debian's programs and libraries that the table of words finds,
//! `words-2.2.7` likewise the literals of the source: of 2.2 nothing could be run. What is composed by hand says so.

use std::path::Path;

use reseed_core::names::{DatasetName, Guid};

use super::argv::tests::{ds, snap};
use super::error::{Fault, WORDS, classify};
use super::parse::{self, Origin, Said, What};
use super::{rows, transfer, version};

const TEXTS: [(&str, &str); 3] = [
    ("2.1.11", include_str!("fixtures/words-2.1.11.txt")),
    ("2.2.7", include_str!("fixtures/words-2.2.7.txt")),
    ("2.3.2", include_str!("fixtures/words-2.3.2.txt")),
];

/// Not the tools' own words: the C library's names of errors, ssh's, and a shell's.
const OTHERS: &[&str] = &[
    "No space left",
    "Disk quota exceeded",
    "Read-only file system",
    "Input/output error",
    "Invalid exchange",
    "Operation not permitted",
    "No such file or directory",
    "REMOTE HOST IDENTIFICATION HAS CHANGED",
    "Host key verification failed",
    "Permission denied (",
    "Too many authentication failures",
    "Could not resolve hostname",
    "Connection refused",
    "Connection timed out",
    "No route to host",
    "Connection closed by",
    "Connection reset by",
    "Network is unreachable",
    "closed by remote host",
    "Timeout, server",
    "client_loop: send disconnect",
    "zfs: command not found",
    "zfs: not found",
    "zfs: No such file",
];

#[test]
fn the_words_that_decide_are_those_of_every_version() {
    for (words, _) in WORDS.iter().filter(|(words, _)| !OTHERS.contains(words)) {
        for (version, text) in TEXTS {
            // The only one that is newer than 2.1.
            let expected = *words != "it's being held" || version == "2.3.2";
            assert_eq!(text.contains(words), expected, "{words:?} in {version}");
        }
    }
    for other in OTHERS {
        assert!(
            WORDS.iter().any(|(words, _)| words == other),
            "{other:?} is not asked for"
        );
    }
}

/// Recorded from 2.1.11, each as it was said.
#[test]
fn what_2_1_says_is_understood() {
    for (words, fault) in [
        (
            "cannot open 'tank/nope': dataset does not exist\n",
            Fault::NotFound,
        ),
        (
            "cannot create snapshot 'tank/svc/a@one': dataset already exists\n",
            Fault::Exists,
        ),
        // Held. Whether it is, its `userrefs` tell before anything is tried.
        (
            "cannot destroy snapshot tank/svc/a@one: dataset is busy\n",
            Fault::Busy,
        ),
        (
            "cannot destroy 'tank/svc/a@three': snapshot has dependent clones\nuse '-R' to destroy the following \
             datasets:\ntank/svc/cl\n",
            Fault::Busy,
        ),
        (
            "cannot unmount '/tank/svc/a': pool or dataset is busy\n",
            Fault::Busy,
        ),
        (
            "cannot create 'tank/no/such': parent does not exist\n",
            Fault::NotFound,
        ),
        (
            "cannot rename 'tank/svc/a': dataset already exists\n",
            Fault::Exists,
        ),
        (
            "cannot receive incremental stream: destination lone/r/x has been modified\nsince most recent snapshot\n",
            Fault::Diverged,
        ),
        (
            "cannot receive new filesystem stream: destination 'lone/r/x' exists\nmust specify -F to overwrite it\n",
            Fault::Exists,
        ),
        (
            "cannot receive new filesystem stream: checksum mismatch or incomplete stream.\nPartially received snapshot is \
             saved.\nA resuming stream can be generated on the sending system by running:\n    zfs send -t 1-c5d4\n",
            Fault::Other,
        ),
        // No machine without its module: the tool alone.
        (
            "The ZFS modules are not loaded.\nTry running '/sbin/modprobe zfs' as root to load them.\n",
            Fault::Other,
        ),
    ] {
        assert_eq!(classify(words), fault, "{words:?}");
    }
}

/// Composed by hand after the formats in libzfs, which are the same in 2.1.11, 2.2.7 and 2.3.2.
#[test]
fn what_libzfs_would_say_is_understood() {
    for (words, fault) in [
        (
            "cannot receive incremental stream: most recent snapshot of back/x does not\nmatch incremental source\n",
            Fault::Diverged,
        ),
        (
            "cannot receive new filesystem stream: destination back/x space quota exceeded.\n",
            Fault::NoSpace,
        ),
        ("cannot receive: out of space\n", Fault::NoSpace),
        (
            "cannot destroy snapshot tank/x@a: snapshot is cloned\n",
            Fault::Busy,
        ),
        ("cannot mount 'tank/x': encryption key not loaded\n", Fault::Key),
        ("cannot send 'tank/x@a': dataset key must be loaded\n", Fault::Key),
        (
            "cannot open 'tank/x': pool I/O is currently suspended\n",
            Fault::Pool,
        ),
        ("cannot create 'tank/x': permission denied\n", Fault::Permission),
    ] {
        assert_eq!(classify(words), fault, "{words:?}");
    }
}

/// A listing that was recorded before each line ended with its name once more, as it is now: the tools of all three print a
/// column as often as it is asked for (2.3.2 was asked).
pub(super) fn again(recorded: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(recorded).unwrap();
    let line = |line: &str| format!("{line}\t{}\n", line.split('\t').next().unwrap());
    text.lines().map(line).collect::<String>().into_bytes()
}

/// The same of a lineage that was recorded without quotas and reservations: of nothing that has any.
pub(super) fn spaced(recorded: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(recorded).unwrap();
    let line = |line: &str| {
        let mut columns: Vec<&str> = line.split('\t').collect();
        let none = if columns[0].contains(['@', '#']) { "-" } else { "0" };
        columns.splice(6..6, [none; 4]);
        columns.join("\t") + "\n"
    };
    text.lines().map(line).collect::<String>().into_bytes()
}

/// The nonce of [`ended`].
pub(super) const NONCE: u64 = 7;

/// The same of facts, with the line that ends each dataset's.
pub(super) fn ended(recorded: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(recorded).unwrap();
    let line = |line: &str| match line.split_once("\treseed:stage\t") {
        Some((name, _)) => format!("{line}\n{name}\t{}\t-\t-\n", rows::end(NONCE)),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect::<String>().into_bytes()
}

#[test]
fn datasets_snapshots_and_holds_of_2_1_are_read() {
    let wanted: Vec<DatasetName> = ["tank/svc/a", "tank/nope", "tank/svc/b c", "nopool/x"]
        .map(ds)
        .into();
    let stdout = include_bytes!("fixtures/get-facts-2.1.11.stdout");
    let stderr = include_str!("fixtures/get-facts-2.1.11.stderr");
    let all = parse::facts(&wanted, NONCE, &ended(stdout), stderr).unwrap();
    let [Said::Facts(a), Said::NotThere, Said::Facts(b), Said::NotThere] = &all[..] else {
        panic!("{all:?}");
    };
    assert_eq!(
        (a.guid, a.is_filesystem),
        (Guid(10_179_218_974_191_023_661), true)
    );
    assert_eq!((&a.marker, &a.clone_of, &a.resume_token), (&None, &None, &None));
    assert_eq!(
        (b.mountpoint.text.as_str(), b.mountpoint.origin),
        ("/tank/svc/b c", Origin::Other)
    );

    let all = parse::snapshots(&again(include_bytes!("fixtures/list-snapshots-2.1.11.stdout")));
    let (all, _) = all.unwrap().unwrap();
    assert_eq!((all.len(), &all[0].name, all[0].userrefs), (2, &snap("one"), 2));
    assert_eq!(
        (all[0].guid, all[0].unseeded),
        (Guid(11_204_418_537_953_656_534), true)
    );
    assert_eq!((all[1].taken.as_deref(), all[1].referenced), (None, 41_997_312));

    // Recorded before `userrefs` was asked for, whose column is put in by hand: as in list-snapshots-2.1.11, and a dash for what
    // can't be held.
    let recorded = include_str!("fixtures/list-lineages-2.1.11.stdout");
    let holds = |line: &str| if line.contains('@') { "0" } else { "-" };
    let lines: String = recorded
        .lines()
        .map(|line| {
            let (recorded, origin) = line.rsplit_once('\t').unwrap();
            format!("{recorded}\t{}\t{origin}\n", holds(line))
        })
        .collect();
    let all = parse::lineages(&again(&spaced(lines.as_bytes())));
    let (all, _) = all.unwrap().unwrap();
    let kinds: Vec<_> = all.iter().map(|line| line.what.clone()).collect();
    let expected = [
        What::Dataset,
        What::Snapshot(snap("one")),
        What::Snapshot(snap("two")),
        What::Bookmark(snap("reseed:second:9")),
    ];
    assert_eq!(kinds, expected);
    assert_eq!((all[2].guid, all[2].written), (all[3].guid, 21_000_192));

    let all = parse::holds(include_bytes!("fixtures/holds-2.1.11.stdout"))
        .unwrap()
        .unwrap();
    let mut tags: Vec<_> = all.iter().map(|(_, tag)| tag.as_str()).collect();
    tags.sort_unstable();
    assert_eq!(tags, ["_t_2", "t1"]);
}

#[test]
fn a_token_of_2_1_is_read_from_standard_output() {
    let token = transfer::parse_token(include_str!("fixtures/token-2.1.11.txt")).unwrap();
    assert_eq!(
        (token.to, token.bytes),
        (Guid(0x35a6_84d0_3122_9cd8), 0x00e4_94f0)
    );
}

#[test]
fn versions_are_told_by_all_of_them() {
    let mixed = version::parse(include_str!("fixtures/version-2.1.11.stdout")).unwrap();
    assert_eq!(
        (mixed.tool.to_string(), mixed.effective().to_string()),
        ("2.1.11".to_owned(), "2.1.11".to_owned())
    );
    // Composed: Ubuntu's and NixOS's way to name them; and the tool without its module, whose complaint is on the other output.
    for (text, told) in [
        ("zfs-2.2.2-0ubuntu9\nzfs-kmod-2.2.2-0ubuntu9\n", "2.2.2"),
        ("zfs-2.2.7-1\nzfs-kmod-2.2.7-1\n", "2.2.7"),
        ("zfs-2.1.11-1+deb12u1\n", "2.1.11"),
    ] {
        let installed = version::parse(text).unwrap();
        assert_eq!(installed.effective().to_string(), told);
        assert!(installed.effective() >= version::LEAST);
    }
}

/// 2.1 and 2.2 refuse `-j` with "invalid option 'j'" (recorded from 2.1.11): nothing may ask for it.
#[test]
fn nothing_needs_json_of_the_tools() {
    let asks = [
        ["\"", "-j\""].concat(),
        ["\"", "-Hpj\""].concat(),
        ["--", "json-int\""].concat(),
    ];
    let mut left = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut files = 0;
    while let Some(at) = left.pop() {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                files += 1;
                for ask in &asks {
                    assert!(!text.contains(ask.as_str()), "{ask} in {}", path.display());
                }
            }
        }
    }
    assert!(files > 50, "{files}");
}
