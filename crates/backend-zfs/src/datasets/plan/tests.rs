use proptest::prelude::*;

use super::super::actual::Value;
use super::*;

fn wanted(all: &[(&str, &[(&str, &str)])]) -> Wanted {
    let properties = |list: &[(&str, &str)]| -> BTreeMap<String, String> {
        list.iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    (all.iter())
        .map(|(name, list)| (DatasetName::new(*name).unwrap(), properties(list)))
        .collect()
}

fn there(properties: &[(&str, &str)]) -> Dataset {
    let value = |value: &str| Value {
        value: value.to_owned(),
        source: "local".to_owned(),
    };
    Dataset {
        kind: DatasetKind::Filesystem,
        properties: (properties.iter())
            .map(|(key, text)| ((*key).to_owned(), value(text)))
            .collect(),
        odd: Vec::new(),
    }
}

/// What `zfs` would have made of the steps.
fn carry_out(plan: &LayoutPlan, actual: &mut Actual) {
    let put = |dataset: &mut Dataset, key: &str, text: &str| {
        let value = Property::find(key)
            .and_then(|p| p.canonical(text).ok())
            .unwrap_or_else(|| text.to_owned());
        let source = "local".to_owned();
        dataset.properties.insert(key.to_owned(), Value { value, source });
    };
    for step in &plan.steps {
        match step {
            Step::Create {
                dataset, properties, ..
            } => {
                if let Some((parent, _)) = dataset.rsplit_once('/') {
                    assert!(actual.contains_key(parent), "{dataset} before {parent}");
                }
                let new = actual.entry(dataset.clone()).or_default();
                for (key, value) in properties {
                    put(new, key, value);
                }
            }
            Step::Set {
                dataset,
                property,
                to,
                ..
            } => {
                put(actual.get_mut(dataset).unwrap(), property, to);
            }
            Step::Mount { dataset, .. } => {
                put(actual.get_mut(dataset).unwrap(), "mounted", "yes");
            }
            Step::Own { .. } => panic!("{step}"),
        }
    }
}

#[test]
fn the_word_on_for_xattr_is_what_the_version_makes_of_it() {
    // Declared, what is shown, the same up to 2.2, the same from 2.3 on.
    for (declared, is, older, newer) in [
        ("sa", "sa", true, true),
        ("sa", "on", false, true),
        ("sa", "dir", false, false),
        ("sa", "off", false, false),
        ("dir", "on", true, false),
        ("dir", "dir", true, true),
        ("dir", "sa", false, false),
        ("on", "on", true, true),
        ("on", "sa", false, true),
        ("on", "dir", true, false),
    ] {
        for (same, more) in [(older, ("x:y", "z")), (newer, ("direct", "standard"))] {
            let wanted = wanted(&[("tank/a", &[("xattr", declared)])]);
            let actual = Actual::from([
                ("tank".to_owned(), there(&[])),
                ("tank/a".to_owned(), there(&[("xattr", is), more])),
            ]);
            let steps = plan(&wanted, &actual).steps;
            assert_eq!(steps.is_empty(), same, "{declared} {is} {more:?}");
        }
    }
}

#[test]
fn what_a_cut_restore_has_left_aside_is_not_made_anew() {
    let wanted = wanted(&[("tank/a", &[]), ("tank/a/below", &[])]);
    let record = |over: &str| {
        format!(
            r#"{{"dataset":"tank/a","run":"r-1","point":{{"id":"7","dataset":"tank/a","source":"off","locator":"7",
            "snapshot":null,"taken_at":"2026-01-01T00:00:00Z","fingerprint":null,"bytes":null,"unseeded":false,
            "partial":false}}{over}}}"#
        )
    };
    let actual = |over: &str, guid: &str, source: &str| {
        let mut staged = there(&[("reseed:stage", &record(over))]);
        staged.properties.get_mut("reseed:stage").unwrap().source = source.to_owned();
        Actual::from([
            ("tank".to_owned(), there(&[])),
            ("tank/.reseed-stage:a".to_owned(), staged),
            ("tank/.reseed-aside:a:r-1".to_owned(), there(&[("guid", guid)])),
        ])
    };
    assert!(StageRecord::read(&record("")).is_some());
    let over = r#","over":"9""#;
    let found = plan(&wanted, &actual(over, "9", "local"));
    assert_eq!((found.steps.len(), found.obstacles.len()), (0, 2), "{found}");
    assert!(
        found
            .to_string()
            .contains("`zfs rename -u 'tank/.reseed-aside:a:r-1' 'tank/a'`"),
        "{found}"
    );
    // A first restore that goes on, an older aside, somebody else's words; and when it is back.
    let back = || {
        let mut all = actual(over, "9", "local");
        all.insert("tank/a".to_owned(), there(&[("guid", "9")]));
        all
    };
    for (other, steps) in [
        (actual("", "9", "local"), 2),
        (actual(over, "8", "local"), 2),
        (actual(over, "9", "inherited from tank"), 2),
        (back(), 1),
    ] {
        let found = plan(&wanted, &other);
        assert_eq!((found.steps.len(), found.obstacles.len()), (steps, 0), "{found}");
    }
}

#[test]
fn what_is_missing_is_created_and_what_drifted_is_set() {
    let wanted = wanted(&[
        (
            "tank/db",
            &[
                ("recordsize", "16K"),
                ("compression", "lz4"),
                ("atime", "off"),
                ("casesensitivity", "mixed"),
            ],
        ),
        ("tank/srv/new", &[("quota", "20G"), ("casesensitivity", "mixed")]),
        ("usb/x", &[]),
    ]);
    let mut actual = Actual::from([
        ("tank".to_owned(), there(&[])),
        (
            "tank/db".to_owned(),
            there(&[
                ("recordsize", "131072"),
                ("compression", "lz4"),
                ("atime", "on"),
                ("casesensitivity", "sensitive"),
            ]),
        ),
    ]);
    let first = plan(&wanted, &actual);
    assert_eq!(
        first.to_string(),
        "~ tank/db  atime: on -> off\n\
         ~ tank/db  recordsize: 131072 -> 16K  (for what is written from now on; what is there stays as it is)\n\
         + tank/srv  (something declared is below it)\n\
         + tank/srv/new  casesensitivity=mixed quota=20G\n\
         ! tank/db  casesensitivity is sensitive and can't become mixed: it is decided when a dataset is created. Create \
         another one and copy the data, or declare casesensitivity = \"sensitive\"\n\
         ! usb/x  there is no pool \"usb\" here; import it with `zpool import`, or create it\n\
         2 to create, 2 to set, 2 that can't be"
    );
    carry_out(&first, &mut actual);
    let second = plan(&wanted, &actual);
    assert_eq!((second.steps, second.obstacles.len()), (vec![], 2));
}

#[test]
fn what_is_not_mounted_is_mounted_where_it_belongs_and_nowhere_else() {
    let wanted = wanted(&[
        ("tank/a", &[]),
        ("tank/b", &[("mountpoint", "/srv/b")]),
        ("tank/by-hand", &[("canmount", "noauto")]),
        ("tank/locked", &[]),
        ("tank/mounted", &[]),
        ("tank/nowhere", &[("mountpoint", "none")]),
    ]);
    let not_mounted = |more: &[(&str, &str)]| {
        let all = [("mounted", "no"), ("canmount", "on"), ("mountpoint", "/a")];
        there(&[&all, more].concat())
    };
    let mut actual = Actual::from([
        ("tank".to_owned(), not_mounted(&[])),
        ("tank/a".to_owned(), not_mounted(&[])),
        ("tank/b".to_owned(), not_mounted(&[])),
        ("tank/by-hand".to_owned(), not_mounted(&[("canmount", "noauto")])),
        (
            "tank/locked".to_owned(),
            not_mounted(&[("keystatus", "unavailable")]),
        ),
        ("tank/mounted".to_owned(), not_mounted(&[("mounted", "yes")])),
        ("tank/nowhere".to_owned(), not_mounted(&[("mountpoint", "none")])),
    ]);
    let first = plan(&wanted, &actual);
    assert_eq!(
        first.to_string(),
        "~ tank/a  mounted: no -> /a\n\
         ~ tank/b  mountpoint: /a -> /srv/b\n\
         ~ tank/b  mounted: no -> /srv/b\n\
         ! tank/locked  it isn't mounted, because its key isn't loaded: `zfs load-key \"tank/locked\"`, then `reseed apply`\n\
         0 to create, 1 to set, 2 to mount, 1 that can't be"
    );
    carry_out(&first, &mut actual);
    assert_eq!(plan(&wanted, &actual).steps, []);
}

#[test]
fn two_datasets_on_one_mountpoint_are_refused() {
    let wanted = wanted(&[
        ("tank/a", &[("mountpoint", "/srv/a")]),
        ("tank/b", &[("mountpoint", "/srv/a")]),
        ("tank/b/c", &[]),
        ("tank/d", &[("mountpoint", "/srv/d")]),
        ("tank/e", &[("mountpoint", "/srv/a"), ("canmount", "off")]),
        ("tank/sys1", &[("mountpoint", "/"), ("canmount", "noauto")]),
        ("tank/sys2", &[("mountpoint", "/")]),
    ]);
    let actual = Actual::from([
        ("tank".to_owned(), there(&[])),
        (
            "tank/old".to_owned(),
            there(&[("mountpoint", "/srv/d"), ("canmount", "on")]),
        ),
        (
            "tank/sys2".to_owned(),
            there(&[("mountpoint", "/"), ("canmount", "noauto")]),
        ),
    ]);
    let plan = plan(&wanted, &actual);
    let made: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
    assert_eq!(
        made,
        [
            "+ tank/e  canmount=off mountpoint=/srv/a",
            "+ tank/sys1  canmount=noauto mountpoint=/"
        ]
    );
    let refused: Vec<&str> = plan
        .obstacles
        .iter()
        .map(|obstacle| obstacle.dataset.as_str())
        .collect();
    assert_eq!(refused, ["tank/a", "tank/b", "tank/b/c", "tank/d"]);
}

#[test]
fn a_volume_is_left_alone() {
    let volume = Dataset {
        kind: DatasetKind::Volume,
        ..Dataset::default()
    };
    let actual = Actual::from([("tank".to_owned(), there(&[])), ("tank/v".to_owned(), volume)]);
    let plan = plan(
        &wanted(&[("tank/v", &[("atime", "off")]), ("tank/v/x", &[])]),
        &actual,
    );
    assert_eq!((plan.steps.len(), plan.obstacles.len()), (0, 2));
}

fn properties() -> impl Strategy<Value = BTreeMap<String, String>> {
    let one = prop_oneof![
        ("recordsize", prop_oneof!["8K", "16k", "131072", "1M"]),
        ("compression", prop_oneof!["lz4", "zstd", "zstd-3", "off", "gzip"]),
        ("quota", prop_oneof!["none", "0", "20G"]),
        ("xattr", prop_oneof!["sa", "on", "dir"]),
        ("acltype", prop_oneof!["posix", "posixacl", "off"]),
        ("normalization", prop_oneof!["none", "formD"]),
        ("encryption", prop_oneof!["on", "off", "aes-256-ccm"]),
        ("my:label", "[a-z]{0,3}"),
        ("mountpoint", prop_oneof!["/srv/a", "/srv/b", "none"]),
    ];
    proptest::collection::vec(one, 0..5).prop_map(|list| list.into_iter().collect())
}

fn name() -> impl Strategy<Value = String> {
    proptest::sample::select(vec![
        "tank",
        "tank/a",
        "tank/a/b",
        "tank/a-b",
        "tank/a/b/c",
        "tank/z",
        "gone/x",
    ])
    .prop_map(str::to_owned)
}

proptest! {
    #[test]
    fn a_second_apply_does_nothing_and_nothing_ever_goes(
        wanted in proptest::collection::btree_map(name(), properties(), 0..6),
        actual in proptest::collection::btree_map(name(), properties(), 0..6),
    ) {
        let wanted: Wanted =
            wanted.into_iter().map(|(name, list)| (DatasetName::new(name).unwrap(), list)).collect();
        let mut actual: Actual = (actual.into_iter())
            .map(|(name, list)| {
                let list: Vec<(&str, &str)> = list.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
                (name, there(&list))
            })
            .collect();
        // Parents exist in a real pool, above all the pool.
        for name in actual.keys().cloned().collect::<Vec<_>>() {
            for parent in ancestors(&name) {
                actual.entry(parent.to_owned()).or_default();
            }
        }
        let before: Vec<String> = actual.keys().cloned().collect();
        let first = plan(&wanted, &actual);
        carry_out(&first, &mut actual);
        prop_assert!(before.iter().all(|name| actual.contains_key(name)));
        let second = plan(&wanted, &actual);
        prop_assert_eq!(second.steps, vec![]);
    }
}
