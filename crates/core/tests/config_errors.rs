//! What every error looks like to the one who has to mend it. The rendered texts are in `snapshots/`.

use reseed_core::config::{self, ConfigErrors, Format};

/// A sound configuration to add a mistake to; its lines are 1 to 10.
const BASE: &str = r#"[stores.local]
type = "directory"
path = "/srv/reseed"
[replicas.usb]
type = "directory"
path = "/mnt/usb"
[offsite.nas]
type = "embedded"
repository = "/mnt/nas"
password_file = "/run/secrets/restic"
"#;

fn errors_on(text: &str, format: Format) -> ConfigErrors {
    let file = if format == Format::Json {
        "reseed.json"
    } else {
        "reseed.toml"
    };
    match config::parse_on(text, format, file, Some("machine")) {
        Ok(_) => panic!("no error in:\n{text}"),
        Err(errors) => errors,
    }
}

fn errors(text: &str) -> ConfigErrors {
    errors_on(text, Format::Toml)
}

/// The errors of each mistake, one after the other.
fn gallery(mistakes: &[&str]) -> String {
    mistakes
        .iter()
        .map(|mistake| format!("{}\n\n", errors(&format!("{BASE}{mistake}\n"))))
        .collect()
}

/// The errors of each mistake in a service that is sound otherwise.
fn in_a_service(mistakes: &[&str]) -> String {
    let whole: Vec<_> = mistakes
        .iter()
        .map(|mistake| format!("[services.a]\npath = \"/a\"\n{mistake}"))
        .collect();
    gallery(&whole.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn unknown_keys() {
    let shown = gallery(&[
        "[service.sonarr]",
        "[services.sonarr]\npath = \"/a\"\nunti = \"a.service\"",
        "[services.sonarr]\npath = \"/a\"\nwhen-exhausted = \"hold\"",
        "[services.sonarr]\npath = \"/a\"\nretention.dialy = 3",
        "[services.sonarr]\npath = \"/a\"\nwhatever = 1",
        "[services.sonarr]\npath = \"/a\"\n\"a\\nb\" = 1",
        "[offsite.b2]\ntype = \"embedded\"\nrepository = \"/b2\"\npassword = \"hunter2\"",
        "[defaults]\npath = \"/a\"",
    ]);
    insta::assert_snapshot!(shown);
}

#[test]
fn wrong_units_and_types() {
    let shown = in_a_service(&[
        "budget = 50",
        "budget = \"50\"",
        "budget = \"50min\"",
        "budget = \"50M\"",
        "budget = \"1.5h\"",
        "budget = \"30m1h\"",
        "budget = \"0s\"",
        "budget = \"99999999999999999999h\"",
        "budget = true",
        "budget = 2026-11-22",
        "budget = \"20m\"\nsource_budget = \"30m\"",
        "tries = 0",
        "tries = -1",
        "tries = 1.5",
        "tries = \"3\"",
        "retention.daily = 99999999999",
        "retention = 7",
        "replicas = \"usb\"",
        "replicas = [1]",
        "prefer = \"newset\"",
        "prefer = \"fastest\"",
        "verify = true",
        "unit = \"a\"",
        "unit = \"a b.service\"",
    ]);
    insta::assert_snapshot!(shown);
}

#[test]
fn names_that_refer_to_nothing() {
    let shown = in_a_service(&[
        "store = \"lokal\"",
        "store = \"usb\"",
        "replicas = [\"ubs\"]",
        "replicas = [\"local\"]",
        "offsite = [\"usb\"]",
        "offsite = [\"\\u0000\"]",
        "chain = [\"local\", \"ubs\"]",
        "chain = []",
        "chain = [\"local\", \"local\"]",
        "replicas = []\nchain = [\"local\", \"usb\"]",
        "[defaults]\nchain = [\"usb\"]\n[services.b]\npath = \"/b\"\nreplicas = []",
        "[defaults]\nchain = [\"nsa\"]\nstore = \"zebra\"",
        "[stores.second]\ntype = \"directory\"\npath = \"/second\"",
    ]);
    insta::assert_snapshot!(shown);
}

#[test]
fn names_that_are_none_or_twice() {
    let shown = gallery(&[
        "[services.\"a b\"]\npath = \"/a\"",
        "[services.\"-rf\"]\npath = \"/a\"",
        "[services.\".hidden\"]\npath = \"/a\"",
        "[services.a]\ndatasets = { \"x/y\" = \"/a\" }",
        "[replicas.1st]\ntype = \"directory\"\npath = \"/first\"",
        "[replicas.local]\ntype = \"directory\"\npath = \"/other\"",
        "[offsite.usb]\ntype = \"embedded\"\nrepository = \"/other\"\npassword_file = \"/secret\"",
        "[services.a]\npath = \"/a\"\npath = \"/b\"",
    ]);
    insta::assert_snapshot!(shown);
    insta::assert_snapshot!("hosts", errors("host = \"my nas\""));
}

#[test]
fn directories_that_get_in_each_others_way() {
    let shown = gallery(&[
        "[services.a]\npath = \"/data\"\n[services.b]\npath = \"/data/\"",
        "[services.a]\npath = \"/data\"\n[services.b]\npath = \"/data/b\"",
        "[services.a]\npath = \"/data/a\"\n[services.b]\npath = \"/data\"",
        "[services.a]\ndatasets = { x = \"/data\", y = \"/data/y\" }",
        "[services.a]\npath = \"/srv\"",
        "[services.a]\npath = \"/srv/reseed/a\"",
        "[services.a]\npath = \"/mnt/nas/a\"",
        "[services.a]\npath = \"/var/lib\"",
        "[services.a]\npath = \"/var/lib/reseed\"",
        "[replicas.same]\ntype = \"directory\"\npath = \"/srv/reseed\"",
        "[replicas.inside]\ntype = \"directory\"\npath = \"/srv/reseed/replica\"",
    ]);
    insta::assert_snapshot!(shown);
    insta::assert_snapshot!(
        "state_dir",
        errors(&format!("state_dir = \"/srv/reseed/state\"\n{BASE}"))
    );
}

#[test]
fn paths_that_are_none() {
    let mistakes = [
        "var/lib/a",
        "~/a",
        "$HOME/a",
        "/var/../a",
        "/",
        "//",
        "",
        "/a\\u0000b",
        "/a\\nb",
    ];
    let mistakes: Vec<_> = mistakes
        .iter()
        .map(|path| format!("[services.a]\npath = \"{path}\""))
        .collect();
    let mut mistakes: Vec<_> = mistakes.iter().map(String::as_str).collect();
    let long = format!("[services.a]\npath = \"/{}\"", "x/".repeat(3000));
    mistakes.extend([&long, "[services.a]\npath = 5"]);
    let shown = gallery(&mistakes);
    insta::assert_snapshot!(shown);
}

#[test]
fn places_that_are_not_complete_or_come_later() {
    let shown = gallery(&[
        "[stores.b]\ntype = \"directory\"",
        "[stores.b]\npath = \"/b\"",
        "[stores.b]\ntype = \"zfs\"\npath = \"/b\"",
        "[stores.b]\ntype = \"dir\"\npath = \"/b\"",
        "[offsite.b]\ntype = \"s3\"\nrepository = \"/b\"\npassword_file = \"/secret\"",
        "[offsite.b]\ntype = \"embedded\"\nrepository = \"s3:https://example.org/bucket\"\npassword_file = \"/secret\"",
        "[offsite.b]\ntype = \"embedded\"\nrepository = \"s3:http://example.org/bucket\"\npassword_file = \"/secret\"\ncredentials_file = \"/key\"",
        "[offsite.b]\ntype = \"embedded\"\nrepository = \"s3:https://AK:hunter2@example.org/bucket\"\npassword_file = \"/secret\"",
        "[offsite.b]\ntype = \"embedded\"\nrepository = \"/b\"\npassword_file = \"/secret\"\nregion = \"eu\"\ncredentials_file = \"hunter2\"",
        "[offsite.b]\ntype = \"restic\"\nrepository = \"s3:http://example.org/bucket\"\npassword_file = \"/secret\"\nknown_hosts = \"/key\"",
        "[offsite.b]\ntype = \"embedded\"\nrepository = \"rest:https://example.org/nas\"\npassword_file = \"/secret\"",
        "[offsite.b]\ntype = \"restic\"\nrepository = \"rest:http://example.org/nas\"\npassword_file = \"/secret\"\nserver_user = \"me\"",
        "[offsite.b]\ntype = \"restic\"\nrepository = \"rest:https://example.org/\"\npassword_file = \"/secret\"\nserver_password_file = \"hunter2\"",
        "[offsite.b]\ntype = \"embedded\"\nrepository = \"sftp:me@nas:/srv\"\npassword_file = \"/secret\"",
        "[offsite.b]\ntype = \"restic\"\nrepository = \"sftp:me@nas:srv\"\npassword_file = \"/secret\"",
        "[offsite.b]\ntype = \"embedded\"\nrepository = \"b2:bucket:prefix\"\npassword_file = \"/secret\"",
        "[offsite.b]\ntype = \"embedded\"\nrepository = \"local:/b\"\npassword_file = \"/secret\"",
        "[offsite.b]\ntype = \"embedded\"\nrepository = \"b\"\npassword_file = \"/secret\"",
        "[offsite.b]\ntype = \"embedded\"\nrepository = \"/b\"\npassword_file = \"hunter2\"",
        "[offsite.b]\ntype = \"embedded\"\nrepository = \"/b\"\npassword_file = \"/secret\"\nprice = { download = 5, currency = \"US dollars\" }",
        "[offsite.b]\ntype = \"embedded\"\nrepository = \"/b\"\npassword_file = \"/secret\"\nprice = { storage = \"6\", download = nan }",
        "[offsite.b]\ntype = \"embedded\"\nrepository = \"/b\"\npassword_file = \"/secret\"\nprice = 6",
        "[offsite.b]\ntype = \"embedded\"\nrepository = \"rest:https://me:hunter2@example.org/\"\npassword_file = \"/secret\"",
        "[offsite]\nb = \"/b\"",
    ]);
    insta::assert_snapshot!(shown);
    insta::assert_snapshot!("no_store", errors("[services.a]\npath = \"/a\""));
}

#[test]
fn services_without_or_with_too_much() {
    let shown = gallery(&[
        "[services.a]",
        "[services.a]\npath = \"/a\"\ndatasets = { b = \"/b\" }",
        "[services.a]\ndatasets = {}",
        "[services.a]\ndatasets = [\"/a\"]",
        "[services]\na = \"/a\"",
    ]);
    insta::assert_snapshot!(shown);
}

#[test]
fn validators() {
    let several = "datasets = { data = \"/a\", wal = \"/b\" }";
    let mut text = in_a_service(&[
        "validators = [{ sqlit = { path = \"a.db\" } }]",
        "validators = [{ sqlite = { path = \"a.db\" }, exists = { path = \"b\" } }]",
        "validators = [{}]",
        "validators = [\"exists\"]",
        "validators = [{ exists = \"a\" }]",
        "validators = [{ exists = { path = \"/etc/passwd\" } }]",
        "validators = [{ exists = { path = \"a/../../b\" } }]",
        "validators = [{ exists = { path = \"\" } }]",
        "validators = [{ exists = {} }]",
        "validators = [{ command = { argv = [] } }]",
        "validators = [{ command = { argv = [\"./check\"] } }]",
        "validators = [{ command = { argv = [\"check --all\"] } }]",
        "validators = [{ command = { argv = [\"check\", \"a\\u0000b\"] } }]",
        "validators = { data = [] }",
    ]);
    text.push_str(&gallery(&[
        &format!("[services.a]\n{several}\nvalidators = [{{ exists = {{ path = \"a\" }} }}]"),
        &format!("[services.a]\n{several}\nvalidators.dat = [{{ exists = {{ path = \"a\" }} }}]"),
    ]));
    insta::assert_snapshot!(text);
}

#[test]
fn toml_that_is_none() {
    let cases = [
        "[stores.local\ntype = \"directory\"\n\n[services.a]\npath = /a\n",
        "{ \"stores\": {} }",
        "a = \"\0\"",
        "a = 1\na = 2",
        "[a]\nb = 1\n[a]\nc = 1",
        "a = \"no end",
        "a = 1 b = 2",
        "a = \u{202e}1",
    ];
    let text: String = cases.iter().map(|text| format!("{}\n\n", errors(text))).collect();
    insta::assert_snapshot!(text);
}

#[test]
fn json_has_places_too() {
    let one_line = r#"{"stores":{"local":{"type":"directory","path":"/srv/reseed"}},"services":{"sonarr":{"path":"/var/lib/sonarr","unit":"sonarr"},"radarr":{"path":"/var/lib/sonarr","chain":["lcoal"]}}}"#;
    let cases = [
        one_line,
        "{\n  \"stores\": {},\n  \"sevices\": {\"a\": {}}\n}",
        "{\n  \"host\": \"a\",\n  \"host\": \"b\"\n}",
        "{\n  \"host\": \"a\",\n}",
        "{\n  \"host\": \"a",
        "{ \"host\": \"\\ud800\" }",
        "{ \"host\": 5 } x",
        "{ \"host\": 1e400 }",
        "{ \"services\": {\"é\\u00e9\": {}} }",
        "[]",
        "null",
        "",
        "host = \"a\"",
    ];
    let text: String = cases
        .iter()
        .map(|text| format!("{}\n\n", errors_on(text, Format::Json)))
        .collect();
    insta::assert_snapshot!(text);
}

#[test]
fn all_errors_are_told_at_once_and_in_order() {
    let text = r#"host = "my nas"
[stores.local]
type = "directory"
pth = "/srv/reseed"
[services.a]
path = "data"
budget = 50
replicas = ["usb"]
[services.b]
store = "lcoal"
path = "/b"
"#;
    let errors = errors(text);
    insta::assert_snapshot!(errors);
    let lines: Vec<_> = errors.errors().iter().map(|error| error.line).collect();
    assert!(lines.is_sorted(), "{lines:?}");
}

#[test]
fn errors_are_data() {
    let text = format!("{BASE}[services.\"a.b\"]\npath = \"/data\"\n[services.c]\npath = \"/data\"");
    let json = serde_json::to_string_pretty(&errors(&text)).unwrap();
    insta::assert_snapshot!(json);
}

#[test]
fn as_an_error_of_an_operation_it_names_the_first_and_the_number() {
    let one = errors(&format!("{BASE}[service.a]")).to_op_error();
    assert_eq!(one.to_string(), "reseed.toml:11: unknown key \"service\"");
    assert_eq!(one.what_to_do(), Some("did you mean `services`?"));
    let three = errors(&format!("{BASE}[services.a]\n[services.b]\n[services.c]")).to_op_error();
    assert_eq!(
        three.to_string(),
        "reseed.toml:11: `path` is missing in `services.a` (and 2 more errors)"
    );
    assert_eq!(
        three.what_to_do(),
        Some("see them all with `reseed config check`")
    );
}

#[test]
fn what_reseed_set_aside_cannot_be_declared() {
    let store = "[stores.z]\ntype = \"zfs\"\nroot = \"tank/services\"\n";
    for name in [
        "tank/services/.reseed-aside:a:20261122T203300Z-1",
        "tank/.reseed-stage:a/data",
    ] {
        for mistake in [
            format!("[datasets.{name:?}]"),
            format!("{store}[services.a]\nstore = \"z\"\npath = \"/a\"\ndataset = {name:?}"),
        ] {
            let error = errors(&format!("{BASE}{mistake}")).to_op_error();
            let shown = error.to_string();
            assert!(shown.contains("can't be declared: it is reseed's own"), "{shown}");
            assert!(error.what_to_do().unwrap().contains("`.reseed-`"));
        }
    }
}
