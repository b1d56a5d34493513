use super::super::argv::tests::{ds, snap};
use super::super::versions::{NONCE, again, ended, spaced};
use super::*;

/// Recorded from OpenZFS 2.3.2 on Debian 12.
const GET_2_3: &[u8] = include_bytes!("../fixtures/get-facts-2.3.2.stdout");
const GET_2_3_ERR: &str = include_str!("../fixtures/get-facts-2.3.2.stderr");
const LIST_2_3: &[u8] = include_bytes!("../fixtures/list-snapshots-2.3.2.stdout");
const HOLDS_2_3: &[u8] = include_bytes!("../fixtures/holds-2.3.2.stdout");

fn wanted() -> Vec<DatasetName> {
    ["tank/svc/a", "tank/nope", "tank/svc/b c", "nopool/x"]
        .map(ds)
        .into()
}

#[test]
fn recorded_facts_are_read() {
    let all = facts(&wanted(), NONCE, &ended(GET_2_3), GET_2_3_ERR).unwrap();
    let [Said::Facts(a), Said::NotThere, Said::Facts(b), Said::NotThere] = &all[..] else {
        panic!("{all:?}");
    };
    assert_eq!(a.guid, Guid(6_849_657_764_558_822_194));
    assert!(a.is_filesystem);
    assert_eq!(
        (a.mountpoint.text.as_str(), a.mountpoint.origin),
        ("/tank/svc/a", Origin::Other)
    );
    // An inherited marker is nobody's.
    assert_eq!((&a.marker, &a.stage), (&None, &None));
    assert_eq!((&a.clone_of, &a.resume_token), (&None, &None));
    assert_eq!(b.mountpoint.text, "/tank/svc/b c");
}

#[test]
fn recorded_snapshots_are_read() {
    let (all, odd) = snapshots(&again(LIST_2_3)).unwrap().unwrap();
    assert_eq!(odd, []);
    assert_eq!(all.len(), 2);
    assert_eq!((&all[0].dataset, &all[0].name), (&ds("tank/svc/a"), &snap("one")));
    assert_eq!(all[0].guid, Guid(16_671_633_086_552_951_368));
    assert_eq!(
        (all[0].createtxg, all[0].userrefs, all[0].unseeded),
        (13, 2, true)
    );
    assert_eq!(all[0].digest.as_deref(), Some("d"));
    assert_eq!((all[1].taken.as_deref(), all[1].unseeded), (None, false));
}

#[test]
fn recorded_holds_are_read() {
    let all = holds(HOLDS_2_3).unwrap().unwrap();
    let tags: Vec<_> = all
        .iter()
        .map(|(full, tag)| (full.as_str(), tag.as_str()))
        .collect();
    assert_eq!(tags, [("tank/svc/a@one", "t1"), ("tank/svc/a@one", "_t_2")]);
}

#[test]
fn a_cut_answer_is_never_a_shorter_one() {
    let (get, list) = (ended(GET_2_3), again(LIST_2_3));
    for cut in 1..get.len() {
        match facts(&wanted(), NONCE, &get[..cut], GET_2_3_ERR) {
            Err(_) => {}
            Ok(all) => {
                let whole = all.iter().filter(|said| matches!(said, Said::Facts(_))).count();
                assert!(
                    whole == 2 || all.iter().any(|said| matches!(said, Said::Unclear(_))),
                    "{cut}"
                );
            }
        }
    }
    for cut in 1..list.len() {
        let whole_lines = list[cut - 1] == b'\n';
        assert_eq!(snapshots(&list[..cut]).is_ok(), whole_lines, "{cut}");
    }
}

#[test]
fn what_nobody_spoke_of_is_unclear_and_not_missing() {
    assert!(matches!(
        facts(&[ds("tank/x")], NONCE, b"", "").unwrap()[0],
        Said::Unclear(_)
    ));
    let denied = "cannot open 'tank/x': permission denied\n";
    assert!(matches!(
        facts(&[ds("tank/x")], NONCE, b"", denied).unwrap()[0],
        Said::Unclear(_)
    ));
    let gone = "cannot open 'tank/x': dataset does not exist\n";
    assert_eq!(
        facts(&[ds("tank/x")], NONCE, b"", gone).unwrap()[0],
        Said::NotThere
    );
    // About another dataset whose name begins alike.
    assert!(matches!(
        facts(&[ds("tank/x1")], NONCE, b"", gone).unwrap()[0],
        Said::Unclear(_)
    ));
}

fn answer(marker: &str) -> String {
    format!(
        "tank/x\ttype\tfilesystem\t-\ntank/x\tguid\t7\t-\ntank/x\tmountpoint\t/x\tlocal\n\
         tank/x\tcanmount\ton\tdefault\ntank/x\torigin\t-\t-\ntank/x\treceive_resume_token\t-\t-\n\
         tank/x\treseed:marker\t{marker}\tlocal\ntank/x\treseed:stage\t-\t-\ntank/x\t{}\t-\t-\n",
        rows::end(NONCE)
    )
}

#[test]
fn hostile_values_spoil_only_their_own_dataset() {
    let other = answer("m").replace("tank/x", "tank/y");
    let read = |marker: &str| {
        let text = format!("{}{other}", answer(marker));
        let mut all = facts(&[ds("tank/x"), ds("tank/y")], NONCE, text.as_bytes(), "").unwrap();
        let Said::Facts(other) = all.pop().unwrap() else {
            panic!("{marker:?} spoils another dataset")
        };
        assert_eq!((other.guid, other.marker.as_deref()), (Guid(7), Some("m")));
        all.remove(0)
    };
    for odd in [
        "a\tb",
        "a\nb",
        "a\n\nb\t\tc",
        "tank/y\tguid\t9",
        "x\tlocal\ntank/y\tguid\t9\t-",
        "\"\\u0000\"",
        "größe",
    ] {
        let Said::Facts(found) = read(odd) else {
            panic!("{odd:?}")
        };
        assert_eq!(
            (found.marker.as_deref(), found.guid),
            (Some(odd), Guid(7)),
            "{odd:?}"
        );
    }
    // Lines that look like the tool's own make the dataset unclear, never another one.
    for forged in ["x\tlocal\ntank/x\tguid\t9", "x\tlocal\ntank/x\treseed:stage\t{}"] {
        assert!(matches!(read(forged), Said::Unclear(_)), "{forged:?}");
    }
    let huge = "x".repeat(3_000_000);
    let Said::Facts(found) = read(&huge) else {
        panic!("huge")
    };
    assert_eq!(found.marker.map(|text| text.len()), Some(3_000_000));
}

#[test]
fn garbled_answers_are_errors() {
    let guidless = answer("m").replace("\t7\t", "\t-7\t");
    assert!(matches!(
        facts(&[ds("tank/x")], NONCE, guidless.as_bytes(), "").unwrap()[0],
        Said::Unclear(_)
    ));
    assert!(facts(&[ds("tank/x")], NONCE, b"usage:\n", "").is_err());
    assert!(facts(&[ds("tank/x")], NONCE, b"\xff\xfe\n", "").is_err());
    let line = "tank/a@s\t1\t2\t3\t0\t5\t-\t-\t-\ttank/a@s\n";
    assert!(snapshots(line.as_bytes()).unwrap().is_some());
    for (from, to) in [
        ("\t1\t", "\tx\t"),
        ("@s", "s"),
        ("tank/a", "tank//a"),
        ("\t0\t", "\t\t"),
        ("\t3\t", "\t99999999999999999\t"),
    ] {
        assert!(
            snapshots(line.replace(from, to).as_bytes()).is_err(),
            "{from:?} {to:?}"
        );
    }
    // Odd, so it is asked again.
    assert_eq!(snapshots(&line.as_bytes()[2..]).unwrap(), None);
    assert!(snapshots_apart(line.as_bytes(), NONCE).is_err());
    assert!(holds(b"tank/a@s\tt\tnow").is_err());
    assert!(pools(b"tank\n").is_err());
    assert_eq!(
        pools(b"tank\tONLINE\n").unwrap(),
        [("tank".to_owned(), "ONLINE".to_owned())]
    );
}

#[test]
fn lineages_are_read_and_cut_ones_refused() {
    // Made by hand after what 2.3.2 prints: a dataset, two of its snapshots, a bookmark.
    let lines = "back/r/a\t8\t5\t100\t0\toff\t1-ab-c\t-\t-\t-\t-\tnas:tank/a\n\
        back/r/a@one\t18446744073709551615\t14\t100\t25\toff\t-\t2026-11-22T20:33:00Z\t-\t-\t0\tnas:tank/a\n\
        back/r/a@two\t9\t15\t101\t0\taes-256-gcm\t-\t-\ton\td\t2\tnas:tank/a\n\
        back/r/a#reseed:second:9\t9\t15\t101\t-\t-\t-\t-\t-\t-\t-\t-\n";
    let lines = again(&spaced(lines.as_bytes()));
    let (all, _) = lineages(&lines).unwrap().unwrap();
    let kinds: Vec<_> = all.iter().map(|line| line.what.clone()).collect();
    let expected = [
        What::Dataset,
        What::Snapshot(snap("one")),
        What::Snapshot(snap("two")),
        What::Bookmark(snap("reseed:second:9")),
    ];
    assert_eq!(kinds, expected);
    assert_eq!(
        (all[0].resume_token.as_deref(), all[1].guid),
        (Some("1-ab-c"), Guid(u64::MAX))
    );
    assert_eq!((all[1].written, all[2].unseeded, all[3].written), (25, true, 0));
    let holds: Vec<u64> = all.iter().map(|line| line.userrefs).collect();
    assert_eq!(holds, [0, 0, 2, 0]);
    assert_eq!(
        (all[0].origin.as_deref(), &all[3].origin),
        (Some("nas:tank/a"), &None)
    );
    for cut in 1..lines.len() {
        assert_eq!(lineages(&lines[..cut]).is_ok(), lines[cut - 1] == b'\n', "{cut}");
    }
}

#[test]
fn heads_are_read_with_what_was_written_since_and_forged_ones_are_not_believed() {
    let lines = "back/r/a\t8\t5\t100\t0\toff\t-\t-\t-\t-\t-\tnas:tank/a\t0\t-\n\
        back/r/a@one\t9\t14\t100\t25\toff\t-\t-\t-\t-\t0\t-\t-\t7\n";
    let columns = |line: &str| {
        // The quotas are left out of what is written by hand, and the name is the last column too.
        let (name, rest) = line.split_once('\t').unwrap();
        let mut all: Vec<&str> = rest.split('\t').collect();
        for _ in 0..4 {
            all.insert(5, "-");
        }
        format!("{name}\t{}\t{name}\n", all.join("\t"))
    };
    let text: String = lines.lines().map(columns).collect();
    let all = heads(text.as_bytes(), 2).unwrap().unwrap();
    let told: Vec<_> = all
        .iter()
        .map(|head| (head.line.guid, head.since.clone()))
        .collect();
    assert_eq!(
        told,
        [(Guid(8), vec![Some(0), None]), (Guid(9), vec![None, Some(7)])]
    );
    for cut in 1..text.len() {
        assert_eq!(
            heads(&text.as_bytes()[..cut], 2).is_ok(),
            text.as_bytes()[cut - 1] == b'\n',
            "{cut}"
        );
    }
    // A column more than was asked for: a value with a tab in it.
    assert_eq!(heads(text.as_bytes(), 1), Ok(None));
    assert_eq!(heads(text.replace("nas:tank/a", "x\ty").as_bytes(), 2), Ok(None));
}

/// As `zfs get` tells it: a snapshot whose time has a newline in it, one whose digest is no text, and one that is as it should be.
#[test]
fn an_odd_property_costs_what_it_is_on_this_one_fact() {
    let block = |name: &str, taken: &[u8], digest: &[u8]| {
        let fixed =
            format!("{name}\tguid\t1\n{name}\tcreatetxg\t2\n{name}\tcreation\t3\n{name}\tuserrefs\t0\n");
        let more = format!("{name}\treferenced\t5\n{name}\treseed:taken\t");
        let next = format!("\n{name}\treseed:unseeded\ton\n{name}\treseed:digest\t");
        let last = format!("\n{name}\t{}\t-\n", rows::end(NONCE));
        [
            fixed.as_bytes(),
            more.as_bytes(),
            taken,
            next.as_bytes(),
            digest,
            last.as_bytes(),
        ]
        .concat()
    };
    let forged = block("tank/b@fake", b"-", b"-");
    let text = [
        block("tank/a@one", b"x\ny\tz", b"d"),
        block("tank/a@two", b"-", &[b"x\n".as_slice(), &forged[..40]].concat()),
        block("tank/a@three", b"2026\r", b"\xff\xfe"),
    ]
    .concat();
    let (found, odd) = snapshots_apart(&text, NONCE).unwrap();
    let names: Vec<_> = found.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["one", "two", "three"]);
    assert!(found.iter().all(|one| one.unseeded && one.guid == Guid(1)));
    assert_eq!(
        (found[0].taken.as_deref(), found[0].digest.as_deref()),
        (None, Some("d"))
    );
    assert_eq!(
        (found[1].taken.as_deref(), found[1].digest.as_deref()),
        (None, None)
    );
    assert_eq!(found[2].taken.as_deref(), Some("2026\r"));
    let expected = [("tank/a@one", "reseed:taken"), ("tank/a@two", "reseed:digest")];
    let expected = expected.map(|(name, property)| Odd::Property(name.to_owned(), property));
    assert_eq!(odd, expected);
}

fn odd(names: &[&str]) -> Vec<Odd> {
    names.iter().map(|name| Odd::Name((*name).to_owned())).collect()
}

/// ZFS takes these names, and they are none here.
#[test]
fn what_is_only_named_oddly_is_left_out_and_told() {
    let long = format!("tank/a@{}", "x".repeat(230));
    let named = ["tank/a@-x", "tank/a@x ", "tank/a@ x", long.as_str()];
    let row = |name: &str| format!("{name}\t1\t2\t3\t0\t5\t-\t-\t-\t{name}\n");
    let text: String = named.iter().chain(&["tank/a@s"]).map(|name| row(name)).collect();
    let (found, told) = snapshots(text.as_bytes()).unwrap().unwrap();
    assert_eq!((found.len(), &found[0].name), (1, &snap("s")));
    assert_eq!(told, odd(&named));
    let (found, told) = names(b"tank\ntank/old \ntank/a\n").unwrap();
    assert_eq!(
        (found, told),
        (vec![ds("tank"), ds("tank/a")], odd(&["tank/old "]))
    );
    // Whatever else is wrong is no answer.
    for bad in [
        "tank/a@",
        "tank//a@s",
        "tank/\u{fc}@s",
        "/@s",
        "tank/a@s@t",
        "9@s",
    ] {
        assert!(snapshots(row(bad).as_bytes()).is_err(), "{bad:?}");
        assert!(names(format!("{bad}\n").as_bytes()).is_err(), "{bad:?}");
    }
    for (from, to) in [("\t1\t", "\tx\t"), ("\t3\t", "\t\t")] {
        assert!(
            snapshots(row(named[0]).replace(from, to).as_bytes()).is_err(),
            "{from:?}"
        );
    }
}

#[test]
fn what_is_named_oddly_in_a_lineage_counts_for_what_it_is() {
    let lines = "back/a\t8\t5\t100\t0\toff\t-\t-\t-\t-\t-\t-\n\
        back/a@one\t9\t14\t100\t25\toff\t-\t-\t-\t-\t0\t-\n\
        back/a@-x\t7\t15\t101\t3\toff\t-\t-\t-\t-\t0\t-\n\
        back/a#x \t7\t15\t101\t-\t-\t-\t-\t-\t-\t-\t-\n\
        back/a/old \t6\t5\t100\t0\toff\t-\t-\t-\t-\t-\t-\n";
    let (all, told) = lineages(&again(&spaced(lines.as_bytes()))).unwrap().unwrap();
    let kinds: Vec<_> = all.iter().map(|line| line.what.clone()).collect();
    let below = What::OddBelow("back/a/old ".to_owned());
    assert_eq!(
        kinds,
        [
            What::Dataset,
            What::Snapshot(snap("one")),
            What::OddSnapshot,
            below
        ]
    );
    assert!(all.iter().all(|line| line.dataset == ds("back/a")));
    assert_eq!((all[2].guid, all[2].written), (Guid(7), 3));
    assert_eq!(told, odd(&["back/a@-x", "back/a#x ", "back/a/old "]));
}

#[test]
fn an_odd_tag_of_a_hold_forges_none_on_another() {
    let tags =
        |all: Vec<Hold>| -> Vec<String> { all.iter().map(|(full, tag)| format!("{full} {tag}")).collect() };
    for odd in ["a\nb", "a\nt@b\tours\tnow\n", "a\tb"] {
        let text = format!("t@a\t{odd}\tnow\nt@b\tmine\tnow\n");
        assert_eq!(holds(text.as_bytes()), Ok(None), "{odd:?}");
        let alone = format!("t@a\tgood\tnow\nt@a\t{odd}\tnow\n");
        let found = tags(holds_of("t@a", alone.as_bytes()).unwrap());
        assert_eq!((found.len(), found[0].as_str()), (2, "t@a good"), "{found:?}");
        assert!(found[1].starts_with("t@a _a"), "{found:?}");
    }
    assert_eq!(holds(b""), Ok(Some(vec![])));
}
