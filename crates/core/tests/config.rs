//! What a configuration means once it is read, and what is warned about.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

use std::path::Path;
use std::time::Duration;

use reseed_core::config::{
    self, Config, Format, Loaded, Offsite, Place, Prefer, Retention, Severity, Verify, WhenExhausted,
};
use reseed_core::source::SourceClass;

const EXAMPLE: &str = include_str!("../../../examples/reseed.toml");
const DOCS: &str = include_str!("../../../docs/configuration.md");

const PLACES: &str = r#"
[stores.local]
type = "directory"
path = "/srv/reseed"
[replicas.usb]
type = "directory"
path = "/mnt/usb/reseed"
[offsite.nas]
type = "embedded"
repository = "/mnt/nas/restic"
password_file = "/run/secrets/restic"
"#;

fn loaded(toml: &str) -> Loaded {
    match config::parse_on(toml, Format::Toml, "reseed.toml", Some("machine")) {
        Ok(loaded) => loaded,
        Err(errors) => panic!("{errors}\n{toml}"),
    }
}

fn names<T: ToString>(names: &[T]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn a_service_with_a_path_gets_every_default() {
    let Loaded { config, warnings } = loaded(&format!(
        "{PLACES}\n[services.sonarr]\npath = \"/var/lib/sonarr\""
    ));
    assert_eq!(warnings, []);
    assert_eq!(
        (config.host.as_str(), config.state_dir.as_path()),
        ("machine", Path::new("/var/lib/reseed"))
    );
    let service = config.service("sonarr").unwrap();
    assert_eq!(service.datasets[0].dataset.as_str(), "local/sonarr");
    assert_eq!(service.datasets[0].mountpoint, Path::new("/var/lib/sonarr"));
    let policy = &service.policy;
    assert_eq!(policy.store.as_str(), "local");
    assert_eq!(names(&policy.replicas), ["usb"]);
    assert_eq!(names(&policy.offsite), ["nas"]);
    assert_eq!(names(&policy.chain), ["local", "usb", "nas"]);
    assert_eq!(
        (policy.prefer, policy.when_exhausted, policy.verify, policy.tries),
        (Prefer::Chain, WhenExhausted::StartEmpty, Verify::Digest, 3)
    );
    assert_eq!(policy.budget, Duration::from_secs(55 * 60));
    assert_eq!(policy.source_budget, Duration::from_secs(20 * 60));
    assert_eq!(policy.retention, Retention::default());
    assert_eq!((service.unit.as_deref(), service.validators.len()), (None, 0));
}

#[test]
fn a_service_overrides_the_defaults_key_by_key() {
    let Loaded { config, .. } = loaded(&format!(
        r#"{PLACES}
        [defaults]
        budget = "10m"
        prefer = "newest"
        chain = ["nas", "usb", "local"]
        retention = {{ daily = 1, hourly = 1 }}
        [services.a]
        path = "/a"
        replicas = []
        retention.daily = 2
        [services.b]
        path = "/b"
        prefer = "chain"
        budget = "2m"
        chain = ["usb"]
        "#
    ));
    let (a, b) = (config.service("a").unwrap(), config.service("b").unwrap());
    assert_eq!(
        names(&a.policy.chain),
        ["nas", "local"],
        "the default chain less what the service does not use"
    );
    assert_eq!(
        (
            a.policy.retention.daily,
            a.policy.retention.hourly,
            a.policy.retention.weekly
        ),
        (2, 1, 4)
    );
    assert_eq!(
        (a.policy.prefer, b.policy.prefer),
        (Prefer::Newest, Prefer::Chain)
    );
    assert_eq!(
        a.policy.source_budget,
        Duration::from_secs(600),
        "never more than the budget"
    );
    assert_eq!(b.policy.source_budget, Duration::from_secs(120));
    assert_eq!(names(&b.policy.chain), ["usb"]);
}

#[test]
fn several_datasets_are_named_below_the_service_and_have_checks_of_their_own() {
    let Loaded { config, .. } = loaded(EXAMPLE);
    let service = config.service("postgresql").unwrap();
    let datasets: Vec<_> = service
        .datasets
        .iter()
        .map(|target| target.dataset.as_str())
        .collect();
    assert_eq!(datasets, ["local/postgresql/data", "local/postgresql/wal"]);
    assert_eq!(service.validators_of(&service.datasets[0].dataset).len(), 1);
    assert_eq!(service.validators_of(&service.datasets[1].dataset).len(), 0);
    assert_eq!(
        config
            .service("sonarr")
            .unwrap()
            .validators
            .values()
            .next()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn places_are_known_by_name_and_class() {
    let Loaded { config, .. } = loaded(EXAMPLE);
    let Place::Directory { path } = &config.stores[&"local".parse().unwrap()] else {
        panic!()
    };
    assert_eq!(path, Path::new("/srv/reseed"));
    let Offsite::Embedded {
        repository,
        password_file,
        s3: None,
        price: None,
    } = &config.offsite[&"nas".parse().unwrap()]
    else {
        panic!()
    };
    assert_eq!(
        (repository.directory(), password_file.as_path()),
        (
            Some(Path::new("/mnt/nas/restic")),
            Path::new("/run/secrets/restic")
        )
    );
    let class = |name: &str| config.class_of(&name.parse().unwrap());
    assert_eq!(class("local"), Some(SourceClass::Local));
    assert_eq!(class("usb"), Some(SourceClass::Replica));
    assert_eq!(class("nas"), Some(SourceClass::Offsite));
    assert_eq!(class("other"), None);
}

#[test]
fn a_repository_in_s3_is_complete() {
    let text = "[stores.local]\ntype = \"directory\"\npath = \"/srv/reseed\"\n\
                [services.a]\npath = \"/a\"\n\
                [offsite.b2]\ntype = \"embedded\"\npassword_file = \"/run/secrets/restic\"\n\
                repository = \"s3:https://s3.us-west-004.backblazeb2.com/bucket/nas/\"\n\
                credentials_file = \"/run/secrets/b2\"\n";
    let Loaded { config, .. } = loaded(text);
    let Offsite::Embedded {
        repository,
        s3: Some(access),
        ..
    } = &config.offsite[&"b2".parse().unwrap()]
    else {
        panic!()
    };
    assert_eq!(
        repository.to_string(),
        "s3:https://s3.us-west-004.backblazeb2.com/bucket/nas"
    );
    assert_eq!(access.region, "us-west-004");
    assert_eq!(access.credentials_file, Path::new("/run/secrets/b2"));
    let json = serde_json::to_string(&config).unwrap();
    let again = config::parse_on(&json, Format::Json, "reseed.json", Some("machine")).unwrap();
    assert_eq!(again.config, config);
    let plain = text.replace("https:", "http:");
    let Loaded { config, .. } = loaded(&format!(
        "{plain}allow_http = true\nregion = \"garage\"\nprofile = \"nas\"\n"
    ));
    let shown = config::to_toml(&config);
    for key in ["allow_http = true", "region = \"garage\"", "profile = \"nas\""] {
        assert!(shown.contains(key), "{key} is not in\n{shown}");
    }
}

#[test]
fn the_restic_program_reaches_every_kind_of_place() {
    let places = [
        (
            "s3:https://h.lan/bucket/nas",
            "credentials_file = \"/key\"\nregion = \"r1\"",
        ),
        (
            "rest:https://h.lan:8000/nas",
            "server_user = \"nas\"\nserver_password_file = \"/run/secrets/rest\"",
        ),
        (
            "sftp:me@h.lan:/srv/restic",
            "known_hosts = \"/etc/known\"\nkey_file = \"/run/secrets/ssh\"",
        ),
        ("sftp://me@h.lan:2222//srv/restic", "known_hosts = \"/etc/known\""),
    ];
    for (repository, keys) in places {
        let text = format!(
            "[stores.local]\ntype = \"directory\"\npath = \"/srv/reseed\"\n[services.a]\npath = \"/a\"\n\
             [offsite.away]\ntype = \"restic\"\npassword_file = \"/run/secrets/restic\"\n\
             repository = \"{repository}\"\n{keys}\n"
        );
        let Loaded { config, .. } = loaded(&text);
        let without = loaded(&text.replace("type = \"restic\"\n", ""));
        assert_eq!(
            without.config, config,
            "it is what is meant where nothing is said"
        );
        let offsite = &config.offsite[&"away".parse().unwrap()];
        assert_eq!(offsite.repository().to_string(), repository);
        let Offsite::Restic { access: Some(_), .. } = offsite else {
            panic!("{offsite:?}")
        };
        let json = serde_json::to_string(&config).unwrap();
        let again = config::parse_on(&json, Format::Json, "reseed.json", Some("machine")).unwrap();
        assert_eq!(again.config, config);
        let shown = config::to_toml(&config).to_string();
        for line in keys.lines() {
            assert!(shown.contains(line), "{line} is not in\n{shown}");
        }
    }
}

#[test]
fn an_unknown_service_is_answered_with_the_closest() {
    let Loaded { config, .. } = loaded(EXAMPLE);
    let error = config.service("sonar").unwrap_err();
    assert_eq!(error.to_string(), "no service \"sonar\" is configured");
    assert_eq!(error.what_to_do(), Some("did you mean `sonarr`?"));
}

#[test]
fn harmless_ways_to_write_a_path_mean_the_same() {
    let Loaded { config, .. } = loaded(&format!(
        "\u{feff}{PLACES}\n[services.a]\npath = \"/var//lib/./a/\""
    ));
    assert_eq!(
        config.service("a").unwrap().datasets[0].mountpoint,
        Path::new("/var/lib/a")
    );
    assert_eq!(
        config.service("a").unwrap().datasets[0].mountpoint.as_os_str(),
        "/var/lib/a"
    );
}

#[test]
fn directories_beside_each_other_are_fine() {
    // Not inside each other by component, although by letters; and stores may lie in the state directory.
    loaded(
        r#"
        state_dir = "/lab"
        [stores.local]
        type = "directory"
        path = "/lab/store"
        [services.a]
        path = "/lab/store-a"
        [services.b]
        path = "/lab/store-a.b"
        [services.c]
        path = "/lab/store-a-b"
        "#,
    );
}

#[test]
fn json_and_toml_give_the_same_configuration() {
    let from_toml = loaded(EXAMPLE).config;
    let value: toml::Value = toml::from_str(EXAMPLE).unwrap();
    let json = serde_json::to_string_pretty(&value).unwrap();
    let from_json = config::parse_on(&json, Format::Json, "reseed.json", None).unwrap();
    assert_eq!(from_json.config, from_toml);
    assert_eq!(from_json.warnings, []);
}

#[test]
fn null_counts_as_left_out() {
    let json = r#"{"host": null, "stores": {"local": {"type": "directory", "path": "/srv/reseed"}},
        "services": {"a": {"path": "/a", "unit": null, "retention": null, "datasets": null}, "b": null}}"#;
    let config = config::parse_on(json, Format::Json, "reseed.json", Some("machine"))
        .unwrap()
        .config;
    assert_eq!((config.host.as_str(), config.services.len()), ("machine", 1));
}

#[test]
fn what_is_shown_reads_back_as_the_same() {
    let odd = format!(
        "{PLACES}\n[services.\"a.b\"]\npath = \"/srv/it's \\\"quoted\\\" ü\"\nbudget = \"1h1s\"\nsource_budget = \"8d\""
    );
    let odd = odd.replace("\"8d\"", "\"61s\"");
    let plain_dataset = format!(
        "{PLACES}\n[services.a]\ndatasets = {{ a = \"/a\" }}\nvalidators.a = [{{ command = {{ argv = [\"true\", \"\"] }} }}]"
    );
    for text in [EXAMPLE, &odd, &plain_dataset] {
        let config = loaded(text).config;
        let shown = config::to_toml(&config);
        assert_eq!(loaded(&shown).config, config, "{shown}");
        let json = serde_json::to_string(&config).unwrap();
        let again = config::parse_on(&json, Format::Json, "reseed.json", None)
            .unwrap()
            .config;
        assert_eq!(again, config, "{json}");
    }
}

#[test]
fn what_is_shown_says_where_each_value_came_from() {
    insta::assert_snapshot!(config::to_toml(&loaded(EXAMPLE).config));
}

#[test]
fn the_example_and_the_documentation_load_without_warnings() {
    assert_eq!(loaded(EXAMPLE).warnings, []);
    let mut whole = 0;
    for snippet in DOCS.split("```toml\n").skip(1) {
        let snippet = snippet.split("```").next().unwrap();
        let loaded = loaded(snippet);
        assert_eq!(loaded.warnings, [], "{snippet}");
        whole += 1;
    }
    assert!(whole > 0, "the documentation has an example");
}

#[test]
fn the_documentation_shows_errors_as_they_are() {
    let smallest = DOCS
        .split("```toml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let text = format!("{smallest}unti = \"sonarr.service\"\nreplicas = [\"ubs\"]\n");
    let shown = config::parse_on(&text, Format::Toml, "reseed.toml", Some("machine"))
        .unwrap_err()
        .to_string();
    assert!(DOCS.contains(&shown), "{shown}");
}

#[test]
fn the_documentation_names_every_key() {
    fn keys(schema: &serde_json::Value, found: &mut Vec<String>) {
        for (key, value) in schema.as_object().into_iter().flatten() {
            if key == "properties" {
                let named = value.as_object().unwrap();
                found.extend(named.keys().cloned());
                // A key may itself be called `properties`.
                named.values().for_each(|value| keys(value, found));
            } else {
                keys(value, found);
            }
        }
        schema
            .as_array()
            .into_iter()
            .flatten()
            .for_each(|value| keys(value, found));
    }
    let mut found = Vec::new();
    keys(&config::schema(), &mut found);
    assert!(found.len() > 30, "{found:?}");
    for key in found {
        assert!(
            DOCS.contains(&format!("`{key}`")),
            "{key} is not in docs/configuration.md"
        );
    }
}

fn warnings(toml: &str) -> String {
    let warnings = loaded(toml).warnings;
    assert!(
        warnings
            .iter()
            .all(|warning| warning.severity == Severity::Warning)
    );
    warnings.iter().map(|warning| format!("{warning}\n")).collect()
}

#[test]
fn what_is_probably_not_meant_is_warned_about() {
    let text = r#"
[stores.local]
type = "directory"
path = "/srv/reseed"
[stores.unused]
type = "directory"
path = "/srv/other"
[replicas.usb]
type = "directory"
path = "/mnt/usb"
[offsite.nas]
type = "embedded"
repository = "/mnt/nas"
password_file = "/var/lib/vault/restic"
[offsite.beside]
type = "embedded"
repository = "/mnt/beside"
password_file = "/mnt/beside/password"
[defaults]
store = "local"
[services.vault]
path = "/var/lib/vault"
budget = "2h"
[services.alone]
path = "/alone"
replicas = []
offsite = []
[services.fleeting]
path = "/fleeting"
retention = { hourly = 0, daily = 0, weekly = 0, monthly = 0 }
"#;
    insta::assert_snapshot!(warnings(text));
    insta::assert_snapshot!("nothing_declared", warnings(""));
}

#[test]
fn ten_thousand_services_load() {
    let mut text = PLACES.to_owned();
    for n in 0..10_000 {
        text.push_str(&format!(
            "[services.s{n}]\npath = \"/data/{}/s{n}\"\nunit = \"s{n}.service\"\nretention.daily = 3\n",
            n % 7
        ));
    }
    let config: Config = loaded(&text).config;
    assert_eq!(config.services.len(), 10_000);
}
