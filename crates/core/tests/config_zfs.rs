//! Stores and replicas on ZFS: what is read, and what is refused with which words.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

use reseed_core::config::{self, Config, Format, Loaded, Place, ReplicaNames, Sender};
use reseed_core::names::{ServiceName, SourceName};

const SOUND: &str = r#"
[stores.tank]
type = "zfs"
root = "tank/services"

[replicas.usb]
type = "zfs"
root = "usb/nas"
mapping = "without-pool"
bandwidth = "10240KiB/s"

[replicas.far]
type = "zfs"
root = "backup/nas"
raw = false
sender = "syncoid"
ssh = { host = "far.lan", user = "backup", port = 2222, key_file = "/etc/reseed/key", known_hosts = "/etc/reseed/hosts" }

[services.sonarr]
path = "/var/lib/sonarr"

[services.old]
path = "/srv/old"
dataset = "tank/elsewhere/old"

[services.pg]
datasets = { data = "/var/lib/pg/data", wal = "/var/lib/pg/wal" }
"#;

fn load(text: &str) -> Result<Loaded, String> {
    config::parse_on(text, Format::Toml, "reseed.toml", Some("nas")).map_err(|errors| errors.to_string())
}

fn read(text: &str) -> Config {
    load(text).unwrap().config
}

fn names(config: &Config, service: &str) -> Vec<String> {
    let service = &config.services[&ServiceName::new(service).unwrap()];
    service
        .datasets
        .iter()
        .map(|target| target.dataset.to_string())
        .collect()
}

#[test]
fn datasets_are_below_the_store_s_root_or_where_they_are_said_to_be() {
    let config = read(SOUND);
    assert_eq!(names(&config, "sonarr"), ["tank/services/sonarr"]);
    assert_eq!(names(&config, "old"), ["tank/elsewhere/old"]);
    assert_eq!(
        names(&config, "pg"),
        ["tank/services/pg/data", "tank/services/pg/wal"]
    );
    let Place::ZfsReplica {
        mapping,
        raw,
        ssh,
        bandwidth: Some(bandwidth),
        sender: Sender::Native,
        ..
    } = &config.replicas[&SourceName::new("usb").unwrap()]
    else {
        panic!("{config:?}");
    };
    assert_eq!((*mapping, *raw, ssh), (ReplicaNames::WithoutPool, true, &None));
    assert_eq!(bandwidth.bytes_per_second().get(), 10 << 20);
    let far = &config.replicas[&SourceName::new("far").unwrap()];
    assert_eq!(far.location(), "backup/nas on backup@far.lan");
    let Place::ZfsReplica {
        mapping,
        raw: false,
        sender: Sender::Syncoid,
        ssh: Some(ssh),
        ..
    } = far
    else {
        panic!("{far:?}");
    };
    assert_eq!((*mapping, ssh.port), (ReplicaNames::WithPool, Some(2222)));
}

#[test]
fn how_many_are_sent_at_once_is_said_of_the_replica() {
    let at_once = |line: &str| {
        let config = load(&with(&format!(
            "[replicas.b]\ntype = \"zfs\"\nroot = \"b\"\n{line}"
        )))?
        .config;
        match config.replicas[&SourceName::new("b").unwrap()] {
            Place::ZfsReplica { at_once, .. } => Ok(at_once),
            _ => Err("not a replica".to_owned()),
        }
    };
    assert_eq!(at_once(""), Ok(2));
    assert_eq!(at_once("at_once = 1"), Ok(1));
    assert_eq!(at_once("at_once = 32"), Ok(32));
    for bad in ["0", "33", "-1", "\"2\"", "true"] {
        let error = at_once(&format!("at_once = {bad}")).unwrap_err();
        assert!(error.contains("at_once"), "{error}");
    }
}

#[test]
fn what_is_shown_reads_back_as_the_same() {
    let config = read(SOUND);
    let shown = config::to_toml(&config);
    assert_eq!(read(&shown), config, "{shown}");
    let json = serde_json::to_string(&config).unwrap();
    let again = config::parse_on(&json, Format::Json, "f", None).unwrap().config;
    assert_eq!(again, config);
    insta::assert_snapshot!(shown);
}

/// A sound configuration of one store and one service, with a mistake.
fn with(mistake: &str) -> String {
    format!(
        "[stores.tank]\ntype = \"zfs\"\nroot = \"tank\"\n[replicas.usb]\ntype = \"zfs\"\nroot = \"usb\"\n\
         [services.a]\npath = \"/a\"\n{mistake}\n"
    )
}

fn gallery(texts: &[String]) -> String {
    let told = |text: &String| match load(text) {
        Err(errors) => format!("{errors}\n\n"),
        Ok(loaded) => {
            let warnings: String = loaded
                .warnings
                .iter()
                .map(|warning| format!("{warning}\n"))
                .collect();
            assert!(!warnings.is_empty(), "nothing is said of {text}");
            format!("{warnings}\n")
        }
    };
    texts.iter().map(told).collect()
}

#[test]
fn places_that_are_wrong() {
    let store = |keys: &str| format!("[stores.b]\n{keys}\n[services.a]\npath = \"/a\"\nreplicas = []\n");
    let replica = |keys: &str| with(&format!("[replicas.b]\ntype = \"zfs\"\n{keys}"));
    insta::assert_snapshot!(gallery(&[
        store("type = \"zfs\""),
        store("type = \"zfs\"\npath = \"/tank\""),
        store("type = \"zsf\"\nroot = \"tank\""),
        store("type = \"zfs\"\nroot = \"/tank/services/\""),
        store("type = \"zfs\"\nroot = \"tank//x\""),
        store("type = \"zfs\"\nroot = 1"),
        store("type = \"zfs\"\nroot = \"tank\"\nssh = { host = \"x\", known_hosts = \"/k\" }"),
        store("type = \"directory\"\nroot = \"tank\""),
        replica("root = \"b\"\nmapping = \"with-pol\""),
        replica("root = \"b\"\nraw = \"yes\""),
        replica("root = \"b\"\nbandwidth = 10"),
        replica("root = \"b\"\nbandwidth = \"10\""),
        replica("root = \"b\"\nbandwidth = \"100Mbit/s\""),
        replica("root = \"b\"\nbandwidth = \"10mib/s\""),
        with("[replicas.b]\ntype = \"directory\"\npath = \"/b\"\nbandwidth = \"10MiB/s\""),
        replica("root = \"b\"\nssh = \"me@nas\""),
        replica("root = \"b\"\nssh = { host = \"nas\" }"),
        replica("root = \"b\"\nssh = { host = \"me@nas\", known_hosts = \"/k\" }"),
        replica("root = \"b\"\nssh = { host = \"-oProxyCommand=x\", known_hosts = \"/k\" }"),
        replica("root = \"b\"\nssh = { host = \"nas\", user = \"a b\", known_hosts = \"/k\" }"),
        replica("root = \"b\"\nssh = { host = \"nas\", port = 70000, known_hosts = \"k\" }"),
    ]));
}

#[test]
fn what_syncoid_would_have_a_shell_take_apart() {
    let replica = |keys: &str| {
        with(&format!(
            "[replicas.b]\ntype = \"zfs\"\nsender = \"syncoid\"\n{keys}"
        ))
    };
    let ssh = |keys: &str| replica(&format!("root = \"b\"\nssh = {{ {keys} }}"));
    let known = |path: &str| ssh(&format!("host = \"nas\", known_hosts = '{path}'"));
    insta::assert_snapshot!(gallery(&[
        with("[replicas.b]\ntype = \"zfs\"\nroot = \"b\"\nsender = \"sanoid\""),
        known("/etc/known hosts"),
        known("/etc/$(reboot)"),
        ssh("host = \"nas\", known_hosts = \"/k\", key_file = \"/run/the key\""),
        ssh("host = \"fe80::1%eth0\", known_hosts = \"/k\""),
        ssh("host = \"[fe80::1]\", known_hosts = \"/k\""),
        replica("root = \"nas:b/x\""),
    ]));
    for evil in [
        "`id`", ";id", "&id", "|id", "\"", "\\", "*", "?", "%h", "~", "<x", "{a,b}", "#",
    ] {
        assert!(load(&known(&format!("/etc/{evil}"))).is_err(), "{evil:?}");
    }
    // By reseed itself none of this is a problem.
    for text in [known("/etc/known $(hosts)"), replica("root = \"nas:b/x\"")] {
        load(&text.replace("\"syncoid\"", "\"native\"")).unwrap();
    }
}

#[test]
fn services_and_replicas_that_do_not_fit() {
    insta::assert_snapshot!(gallery(&[
        with("dataset = \"pool\""),
        with("dataset = \"/tank/a\""),
        with("[services.b]\npath = \"/b\"\ndataset = \"tank/a\""),
        with("[services.b]\npath = \"/b\"\ndataset = \"tank/a/b\""),
        with("[services.b]\npath = \"/b\"\ndataset = \"usb/tank/b\""),
        with("[replicas.c]\ntype = \"zfs\"\nroot = \"usb/c\""),
        with("[replicas.c]\ntype = \"zfs\"\nroot = \"tank/copies\""),
        with("replicas = [\"d\"]\n[replicas.d]\ntype = \"directory\"\npath = \"/d\""),
        "[stores.d]\ntype = \"directory\"\npath = \"/d\"\n[services.a]\npath = \"/a\"\ndataset = \"tank/a\"\nreplicas = []\n"
            .to_owned(),
    ]));
}

#[test]
fn what_a_store_can_not_send_to_is_left_out_of_the_default() {
    let config = read(&format!(
        "{SOUND}\n[stores.plain]\ntype = \"directory\"\npath = \"/plain\"\n\
         [replicas.disk]\ntype = \"directory\"\npath = \"/disk\"\n[defaults]\nstore = \"tank\"\n\
         [services.p]\npath = \"/p\"\nstore = \"plain\"\n"
    ));
    let used = |service: &str| {
        let policy = &config.services[&ServiceName::new(service).unwrap()].policy;
        policy.chain.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(used("p"), ["plain", "disk"]);
    assert_eq!(used("sonarr"), ["tank", "usb", "far"]);
    // Datasets of one name on two machines are two.
    let far = SOUND.replace("backup/nas", "tank/services/sonarr");
    read(&far);
}

#[test]
fn copies_that_would_have_one_name_are_refused() {
    let fits = |dataset: &str, mapping: &str| {
        let service = format!("\n[services.z]\npath = \"/srv/z\"\ndataset = \"{dataset}\"\n");
        let text = SOUND.replace("without-pool", mapping) + &service;
        load(&text).map(drop)
    };
    for dataset in ["fast/services/sonarr", "fast/services", "fast/elsewhere/old/z"] {
        let why = fits(dataset, "without-pool").unwrap_err();
        assert!(
            why.contains("get in each other's way on the replica usb"),
            "{why}"
        );
        assert_eq!(fits(dataset, "with-pool"), Ok(()));
    }
    assert_eq!(fits("fast/services/z", "without-pool"), Ok(()));
}
