use std::path::Path;

use reseed_core::exec::is_plain_word;

use super::*;

fn ds(name: &str) -> DatasetName {
    DatasetName::new(name).unwrap()
}

fn words(command: &Command) -> Vec<String> {
    let words = command.arguments().iter();
    words.map(|word| word.to_string_lossy().into_owned()).collect()
}

fn far() -> Ssh {
    Ssh::new("repl@nas", "/etc/known")
        .unwrap()
        .port(2222)
        .identity("/k")
}

const PLAIN: Options<'_> = Options {
    form: Form::Plain,
    limit: None,
    set: &[("canmount", "noauto"), ("readonly", "on")],
    never: &["mountpoint", "readonly"],
};

fn command(from: &str, to: &str, at: &Location) -> Result<Command, ReplicateError> {
    Syncoid::default().command(&ds(from), &ds(to), at, &PLAIN)
}

#[test]
fn only_what_destroys_nothing_is_passed() {
    for at in [Location::Local, Location::Ssh(far())] {
        for (form, sent) in [
            (Form::Plain, "p L c e"),
            (Form::Encrypting, "p L c"),
            (Form::Raw, "p L c e w"),
            (Form::Decrypted, "L c e"),
        ] {
            let limit = NonZeroU64::new(5);
            let options = Options { form, limit, ..PLAIN };
            let command = Syncoid::default().command(&ds("tank/a b"), &ds("b/a"), &at, &options);
            let words = words(&command.unwrap());
            for wanted in ["--no-sync-snap", "--no-rollback", "--source-bwlimit=5"] {
                assert!(words.iter().any(|word| word == wanted), "{words:?}");
            }
            for bad in [
                "force-delete",
                "delete-target-snapshots",
                "no-clone-rollback",
                "recursive",
                "-F",
            ] {
                assert!(!words.iter().any(|word| word.contains(bad)), "{words:?}");
            }
            let send = words
                .iter()
                .find_map(|word| word.strip_prefix("--sendoptions="))
                .unwrap();
            assert_eq!(send, sent);
            let receive = words
                .iter()
                .find_map(|word| word.strip_prefix("--recvoptions="))
                .unwrap();
            assert_eq!(receive, "u o canmount=noauto o readonly=on x mountpoint");
        }
    }
}

#[test]
fn another_host_is_reached_as_strictly() {
    let words = words(&command("tank/a", "b/a", &Location::Ssh(far())).unwrap());
    for wanted in [
        "--sshoption=BatchMode=yes",
        "--sshoption=StrictHostKeyChecking=yes",
        "--sshoption=UserKnownHostsFile=/etc/known",
        "--sshoption=IdentitiesOnly=yes",
        "--sshport=2222",
        "--sshkey=/k",
        "repl@nas:b/a",
    ] {
        assert!(words.iter().any(|word| word == wanted), "{wanted}: {words:?}");
    }
}

/// A pool may be called `nas:tank`, and a host without a user before it `nas`.
#[test]
fn a_host_is_never_taken_for_a_pool_nor_a_pool_for_a_host() {
    let alias = Ssh::new("nas", "/etc/known").unwrap();
    let words = words(&command("tank/a:b c", "x:y/a", &Location::Ssh(alias)).unwrap());
    assert_eq!(words[words.len() - 2..], ["tank/a:b c", "@nas:x:y/a"]);
    let error = command("nas:tank/a", "b/a", &Location::Local).unwrap_err();
    assert_eq!(error.kind(), ReplicateKind::InvalidInput, "{error}");
    assert!(command("tank/a", "nas:b/a", &Location::Local).is_err());
    assert!(command("nas:tank/a", "b/a", &Location::Ssh(far())).is_err());
    assert!(command("tank/a", "b/a:b", &Location::Local).is_ok());
}

/// All that its shells see unquoted is one word each, and the rest is refused.
#[test]
fn what_a_shell_would_take_apart_is_refused() {
    for evil in [
        "/etc/known hosts",
        "/etc/$(touch /tmp/x)",
        "/etc/`id`",
        "/etc/a;id",
        "/etc/a&id",
        "/etc/a|id",
        "/etc/a\"b",
        "/etc/a'b",
        "/etc/a\\b",
        "/etc/a*",
        "/etc/%h",
        "/etc/a\nb",
        "~/k",
        "-oProxyCommand=x",
        "",
    ] {
        let pinned = Ssh::new("repl@nas", evil).unwrap();
        let error = command("tank/a", "b/a", &Location::Ssh(pinned)).unwrap_err();
        assert_eq!(error.kind(), ReplicateKind::InvalidInput, "{evil:?}: {error}");
        let key = Ssh::new("repl@nas", "/etc/known")
            .unwrap()
            .identity(Path::new(evil));
        assert!(command("tank/a", "b/a", &Location::Ssh(key)).is_err(), "{evil:?}");
    }
    for evil in ["repl@[fe80::1]", "fe80::1", "nas%eth0", "a@b@c", "nas:22"] {
        let there = Ssh::new(evil, "/etc/known").unwrap();
        assert!(
            command("tank/a", "b/a", &Location::Ssh(there)).is_err(),
            "{evil:?}"
        );
    }
    let command = command("tank/a b", "b/a b", &Location::Ssh(far())).unwrap();
    let words = words(&command);
    for word in &words {
        let unquoted = ["--sshoption=", "--sshkey=", "--sshport="];
        for value in unquoted.iter().filter_map(|name| word.strip_prefix(name)) {
            assert!(is_plain_word(value), "{word}");
        }
        // These are taken apart at spaces, and each part stands unquoted.
        let options = ["--sendoptions=", "--recvoptions="];
        for part in options.iter().filter_map(|name| word.strip_prefix(name)) {
            assert!(part.split(' ').all(is_plain_word), "{word}");
        }
    }
}

#[test]
fn a_dataset_with_several_limits_can_be_sent_and_what_is_no_word_is_refused() {
    let settings = crate::zfs::space::write(&[5, 7, 0, 1]);
    let set = [("reseed:settings", settings.as_str())];
    let options = Options { set: &set, ..PLAIN };
    let command = Syncoid::default().command(&ds("tank/a"), &ds("b/a"), &Location::Local, &options);
    let words = words(&command.unwrap());
    let receive = words
        .iter()
        .find_map(|word| word.strip_prefix("--recvoptions="))
        .unwrap();
    assert!(
        receive.starts_with("u o reseed:settings=quota=5,refquota=7,refreservation=1 x "),
        "{receive}"
    );
    for odd in ["a b", "", "a\tb", "$x", "a;b"] {
        let set = [("reseed:settings", odd)];
        let options = Options { set: &set, ..PLAIN };
        let refused = Syncoid::default().command(&ds("tank/a"), &ds("b/a"), &Location::Local, &options);
        let error = refused.map(drop).unwrap_err();
        assert_eq!(error.kind(), ReplicateKind::InvalidInput, "{odd:?}");
    }
}
