//! Configurations that are no configurations: rubbish, attacks, and files that can't be read.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use reseed_core::config::{self, ConfigErrors, Format, MAX_BYTES};

const EXAMPLE: &str = include_str!("../../../examples/reseed.toml");

fn refused(bytes: &[u8], format: Format) -> ConfigErrors {
    match config::parse_bytes(bytes, format, "reseed.conf") {
        Ok(_) => panic!("taken"),
        Err(errors) => {
            assert!(!errors.errors().is_empty());
            errors
        }
    }
}

#[test]
fn bytes_that_are_no_text_are_refused_where_they_begin() {
    let text: String = [&b"host = \"a\"\nx = \"\xff\"\n"[..], b"\xff\xfeh\0o\0", b"\xc3"]
        .iter()
        .map(|bytes| format!("{}\n\n", refused(bytes, Format::Toml)))
        .collect();
    insta::assert_snapshot!(text);
}

#[test]
fn deep_nesting_is_refused_and_not_followed() {
    let deep = |open: &str, close: &str, n: usize| format!("{}{}", open.repeat(n), close.repeat(n));
    for n in [33, 200, 100_000] {
        refused(format!("x = {}", deep("[", "]", n)).as_bytes(), Format::Toml);
        refused(format!("x = {}", deep("{a=", "}", n)).as_bytes(), Format::Toml);
        refused(format!("[{}a]", "a.".repeat(n)).as_bytes(), Format::Toml);
        refused(format!("{}1", "a.".repeat(n)).as_bytes(), Format::Toml);
        refused(
            format!("{{\"host\":{}}}", deep("[", "]", n)).as_bytes(),
            Format::Json,
        );
        refused("[".repeat(n).as_bytes(), Format::Json);
        refused("{\"a\":".repeat(n).as_bytes(), Format::Json);
        refused("[".repeat(n).as_bytes(), Format::Toml);
    }
    let deep = format!("{{\"host\":{}1{}}}", "{\"a\":".repeat(40), "}".repeat(40));
    assert!(
        refused(deep.as_bytes(), Format::Json)
            .to_string()
            .contains("nested deeper than 32 levels")
    );
}

#[test]
fn what_is_too_large_is_not_read() {
    let large = vec![b'#'; usize::try_from(MAX_BYTES).unwrap() + 1];
    for format in [Format::Toml, Format::Json] {
        assert!(refused(&large, format).to_string().contains("larger than 16 MiB"));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("reseed.toml");
    // Sparse, and would be 1 TiB to read.
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    assert!(
        config::load(&path)
            .unwrap_err()
            .to_string()
            .contains("larger than 16 MiB")
    );
    assert!(
        config::load(Path::new("/dev/zero"))
            .unwrap_err()
            .to_string()
            .contains("larger than 16 MiB")
    );
}

#[test]
fn ten_thousand_errors_are_counted_and_a_hundred_shown() {
    let mut text = String::from("[stores.local]\ntype = \"directory\"\npath = \"/srv\"\n");
    for n in 0..10_000 {
        text.push_str(&format!(
            "[services.s{n}]\npath = \"/same\"\nstoer = \"x\"\nstore = \"lcoal\"\n"
        ));
    }
    let errors = refused(text.as_bytes(), Format::Toml);
    assert_eq!(errors.errors().len(), 100);
    assert_eq!(errors.more(), 3 * 10_000 - 1 - 100);
    assert!(errors.to_string().ends_with("29999 errors, the first 100 shown"));
}

#[test]
fn a_line_of_megabytes_is_quoted_in_part() {
    let mut json = String::from("{\"services\":{");
    for n in 0..50_000 {
        json.push_str(&format!("\"s{n}\":{{\"path\":\"relative\"}},"));
    }
    json.push_str("\"last\":{}}}");
    let shown = refused(json.as_bytes(), Format::Json).to_string();
    assert!(shown.lines().all(|line| line.chars().count() < 200));
}

#[test]
fn a_quoted_line_cannot_drive_the_terminal() {
    let shown = refused(
        "services = \"\u{9b}31m\u{202e}\"\nx\u{1b}[2J = 1\n\"\\u001b[2J\" = 1".as_bytes(),
        Format::Toml,
    )
    .to_string();
    assert!(
        !shown.contains(|c: char| c.is_control() && c != '\n'),
        "{shown:?}"
    );
    assert!(!shown.contains('\u{202e}'), "{shown:?}");
    let shown = refused(
        "services = \"\u{9b}31m\u{202e}\"\n\"\\u001b[2J\" = 1".as_bytes(),
        Format::Toml,
    )
    .to_string();
    assert!(
        !shown.contains(|c: char| c.is_control() && c != '\n'),
        "{shown:?}"
    );
    assert!(!shown.contains('\u{202e}'), "{shown:?}");
}

#[test]
fn every_cut_of_a_good_configuration_is_taken_or_refused() {
    let json = serde_json::to_string(&toml::from_str::<toml::Value>(EXAMPLE).unwrap()).unwrap();
    for end in 0..EXAMPLE.len() {
        let _ = config::parse_bytes(&EXAMPLE.as_bytes()[..end], Format::Toml, "f");
    }
    for end in 0..json.len() {
        refused(&json.as_bytes()[..end], Format::Json);
    }
}

/// Words of the configuration's own in any order reach deeper than random bytes.
fn near_miss() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "[services.a]\n",
        "[services.b]\n",
        "[stores.local]\n",
        "[replicas.usb]\n",
        "[offsite.nas]\n",
        "[defaults]\n",
        "type = \"directory\"\n",
        "type = \"embedded\"\n",
        "path = \"/a\"\n",
        "path = \"/a/b\"\n",
        "path = 3\n",
        "repository = \"/r\"\n",
        "password_file = \"/a/p\"\n",
        "chain = [\"local\", \"usb\"]\n",
        "chain = []\n",
        "store = \"local\"\n",
        "replicas = [\"usb\", \"a\"]\n",
        "budget = \"5m\"\n",
        "source_budget = \"5h\"\n",
        "retention.daily = 3\n",
        "datasets = { a = \"/x\", b = \"/y\" }\n",
        "validators = [{ exists = { path = \"a\" } }]\n",
        "validators.a = []\n",
        "stores = 1\n",
        "services = []\n",
        "state_dir = \"/a\"\n",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "=",
        "\n",
        "é",
        "\0",
    ]);
    prop::collection::vec(words, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), json in any::<bool>()) {
        let format = if json { Format::Json } else { Format::Toml };
        if let Err(errors) = config::parse_bytes(&bytes, format, "f") {
            prop_assert!(!errors.to_string().is_empty());
        }
    }

    #[test]
    fn no_near_miss_panics_and_what_is_taken_shows_itself(text in near_miss()) {
        match config::parse_on(&text, Format::Toml, "f", Some("machine")) {
            Ok(loaded) => {
                let shown = config::to_toml(&loaded.config);
                prop_assert_eq!(config::parse_on(&shown, Format::Toml, "f", None).unwrap().config, loaded.config);
            }
            Err(errors) => prop_assert!(errors.errors().iter().all(|error| error.line.is_some())),
        }
    }

    #[test]
    fn no_json_panics(text in "[\\[\\]{}:,\"\\\\ua-f0-9. éen\n-]{0,80}") {
        let _ = config::parse_bytes(text.as_bytes(), Format::Json, "f");
    }

    #[test]
    fn durations_read_back(seconds in 0u64..3650 * 86_400) {
        let duration = std::time::Duration::from_secs(seconds);
        prop_assert_eq!(config::parse_duration(&config::format_duration(duration)), Ok(duration));
    }

    #[test]
    fn no_duration_panics(text in "[0-9smhdw é.]{0,30}") {
        let _ = config::parse_duration(&text);
    }
}

fn of_file(path: &Path) -> String {
    let errors = config::load(path).unwrap_err();
    assert_eq!(errors.errors()[0].line, None);
    errors.to_string().replace(&path.display().to_string(), "FILE")
}

#[test]
fn files_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.toml");
    let below_a_file = dir.path().join("file/reseed.toml");
    let loops = dir.path().join("loops.toml");
    fs::write(dir.path().join("file"), "").unwrap();
    std::os::unix::fs::symlink(&loops, &loops).unwrap();
    let text: String = [dir.path(), &missing, &below_a_file, &loops]
        .map(|path| of_file(path) + "\n\n")
        .concat();
    insta::assert_snapshot!(text);
}

#[test]
fn a_file_is_read_by_its_ending_and_named_in_its_errors() {
    let dir = tempfile::tempdir().unwrap();
    let toml = dir.path().join("reseed.toml");
    fs::write(&toml, EXAMPLE).unwrap();
    assert_eq!(config::load(&toml).unwrap().warnings, []);
    let json = dir.path().join("reseed.JSON");
    fs::write(&json, "{\"host\": \"a\", \"sevices\": {}}").unwrap();
    let errors = config::load(&json).unwrap_err();
    let error = &errors.errors()[0];
    assert_eq!(
        (error.line, error.column, error.file.as_str()),
        (Some(1), Some(15), json.to_str().unwrap())
    );
}
