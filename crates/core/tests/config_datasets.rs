//! Declared ZFS datasets: what is read, and what is refused with which words.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

use reseed_core::config::{self, Format};
use reseed_core::names::DatasetName;
use reseed_core::retention::sanoid::Policy;

fn parse(text: &str) -> Result<config::Config, String> {
    config::parse_on(text, Format::Toml, "reseed.toml", Some("nas"))
        .map(|loaded| loaded.config)
        .map_err(|errors| errors.to_string())
}

#[test]
fn properties_stand_above_their_profile_and_counts_have_defaults() {
    let config = parse(
        "[datasets.\"tank/a b\"]\nprofile = \"sqlite\"\n\
         properties = { recordsize = \"32K\", atime = false, copies = 2, \"my.site:note\" = \"x\" }\n\
         snapshots = { hourly = 36, prune = false, frequent_period = 5, prune_defer = 80 }\n\
         [datasets.tank]\n",
    )
    .unwrap();
    let declared = &config.datasets[&DatasetName::new("tank/a b").unwrap()];
    let wanted: Vec<(String, String)> = declared.wanted().into_iter().collect();
    let expected = [
        ("atime", "off"),
        ("compression", "lz4"),
        ("copies", "2"),
        ("my.site:note", "x"),
        ("recordsize", "32K"),
    ];
    assert_eq!(
        wanted,
        expected.map(|(key, value)| (key.to_owned(), value.to_owned()))
    );
    let snapshots = declared.snapshots.clone().unwrap();
    assert_eq!((snapshots.take, snapshots.prune), (true, false));
    assert_eq!(
        snapshots.policy,
        Policy {
            frequently: Some(0),
            hourly: Some(36),
            daily: Some(7),
            weekly: Some(4),
            monthly: Some(6),
            yearly: Some(0),
            frequent_period: Some(5),
            prune_defer: Some(80),
        }
    );
    assert_eq!(
        config.datasets[&DatasetName::new("tank").unwrap()],
        config::Declared::default()
    );
}

#[test]
fn what_is_shown_reads_back_as_the_same() {
    let text = "[datasets.\"tank/x\"]\nprofile = \"media\"\n[datasets.\"tank/x\".properties]\nquota = \"20G\"\n\
                \"a:b\" = \"c d\"\n[datasets.\"tank/x\".snapshots]\nyearly = 2\n[datasets.tank]\nowner = \"postgres\"\ngroup = 26\nmode = \"750\"\n";
    let config = parse(text).unwrap();
    let shown = config::to_toml(&config);
    assert_eq!(parse(&shown).unwrap(), config, "{shown}");
    let json = serde_json::to_string(&config).unwrap();
    let again = config::parse_on(&json, Format::Json, "reseed.json", Some("nas"))
        .unwrap()
        .config;
    assert_eq!(again, config);
    assert!(shown.contains("reseed.toml:4"), "{shown}");
}

#[test]
fn what_is_wrong_is_told_with_what_was_meant() {
    for (text, part) in [
        (
            "[datasets.\"tank/a\"]\nprofile = \"sqlit\"",
            "did you mean `sqlite`?",
        ),
        ("[datasets.\"tank/a@b\"]", "'@' is not allowed in it"),
        ("[datasets.\"tank/-r\"]", "begins with '-'"),
        (
            "[datasets.tank.properties]\nrecordsiz = \"8K\"",
            "did you mean `recordsize`?",
        ),
        (
            "[datasets.tank.properties]\nrecordsize = \"100K\"",
            "a power of two",
        ),
        (
            "[datasets.tank.properties]\nmountpoint = \"srv\"",
            "an absolute path",
        ),
        (
            "[datasets.tank.properties]\n\"reseed:marker\" = \"x\"",
            "one of reseed's own markers",
        ),
        ("[datasets.tank.properties]\natime = 1.5", "not a text"),
        ("[datasets.tank.snapshots]\nfrequent_period = 60", "from 1 to 59"),
        ("[datasets.tank.snapshots]\nprune_defer = 101", "from 0 to 100"),
        ("[datasets.tank.snapshots]\ntake = \"yes\"", "not true or false"),
        ("[datasets.tank]\nprofil = \"media\"", "did you mean `profile`?"),
        ("[datasets.tank]\nowner = -1", "neither the name of an account"),
        (
            "[datasets.tank]\nowner = 4294967295",
            "neither the name of an account",
        ),
        (
            "[datasets.tank]\ngroup = \"a b\"",
            "neither the name of an account",
        ),
        ("[datasets.tank]\ngroup = true", "not a name or a number"),
        ("[datasets.tank]\nmode = 750", "as in \"0750\""),
        ("[datasets.tank]\nmode = \"rwx\"", "octal digits"),
        (
            "[datasets.tank]\nowner = \"a\"\nmod = \"755\"",
            "did you mean `mode`?",
        ),
    ] {
        let errors = parse(text).unwrap_err();
        assert!(errors.contains(part), "{text}\n{errors}");
    }
}
