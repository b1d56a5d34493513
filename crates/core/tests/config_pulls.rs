//! What is fetched from other machines: what is read, and what is refused with which words.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

use reseed_core::config::{self, Config, Format, ReplicaNames};
use reseed_core::names::{DatasetName, SourceName};

const SOUND: &str = r#"
[pulls.box]
host = "box"
datasets = ["tank/services/sonarr", "tank/services/pg data"]
root = "backup/box"
ssh = { host = "box.lan", user = "pull", known_hosts = "/etc/reseed/hosts" }
"#;

fn read(text: &str) -> Result<Config, String> {
    config::parse_on(text, Format::Toml, "reseed.toml", Some("nas"))
        .map(|loaded| {
            assert_eq!(loaded.warnings, []);
            loaded.config
        })
        .map_err(|errors| errors.to_string())
}

fn with(from: &str, to: &str) -> String {
    assert!(SOUND.contains(from), "{from}");
    SOUND.replace(from, to)
}

#[test]
fn what_is_fetched_is_read_and_shown_as_the_same() {
    let config = read(SOUND).unwrap();
    let pull = &config.pulls[&SourceName::new("box").unwrap()];
    assert_eq!((pull.host.as_str(), pull.raw, pull.at_once), ("box", true, 2));
    assert_eq!(
        (pull.root.as_str(), pull.mapping),
        ("backup/box", ReplicaNames::WithPool)
    );
    let names: Vec<&str> = pull.datasets.iter().map(DatasetName::as_str).collect();
    assert_eq!(names, ["tank/services/sonarr", "tank/services/pg data"]);
    let shown = config::to_toml(&config);
    assert_eq!(read(&shown).unwrap(), config, "{shown}");
    let json = serde_json::to_string(&config).unwrap();
    let again = config::parse_on(&json, Format::Json, "f", None).unwrap().config;
    assert_eq!(again, config);
    let marks = config::marks("nas", &SourceName::new("box").unwrap()).unwrap();
    assert_eq!(marks.as_str(), "nas.box");
}

#[test]
fn what_is_wrong_is_told() {
    let twice = "\"tank/services/pg data\"";
    let long = "x".repeat(62);
    for (text, part) in [
        (with("host = \"box\"\n", ""), "`host` is missing"),
        (with("root = \"backup/box\"\n", ""), "`root` is missing"),
        (with("datasets", "dataset"), "did you mean `datasets`?"),
        (with(twice, "\"tank/services/sonarr\""), "stands twice"),
        (with(twice, "\"/tank/a\""), "is a path"),
        (
            with("[\"tank/services/sonarr\", \"tank/services/pg data\"]", "[]"),
            "is empty",
        ),
        (
            with("root =", "mapping = \"without-pool\"\nroot =").replace(twice, "\"other/services/sonarr\""),
            "would have one copy",
        ),
        (
            format!("{SOUND}[replicas.box]\ntype = \"zfs\"\nroot = \"usb\"\n"),
            "is a replica already",
        ),
        (
            format!("{SOUND}[replicas.usb]\ntype = \"zfs\"\nroot = \"backup\"\n"),
            "has backup/box below it, which is the root of `pulls.box`",
        ),
        (
            with("[pulls.box]", &format!("[pulls.{long}]")),
            "too long together",
        ),
    ] {
        let errors = read(&text).unwrap_err();
        assert!(errors.contains(part), "{text}\n{errors}");
    }
}
