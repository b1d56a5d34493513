//! `reseed offsite`, and what `reseed doctor` says of buckets.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use crate::engines;
use crate::lab::Lab;
use crate::s3::unprotected;

const EATS: &str = "<Rule><ID>cheap</ID><Filter><Prefix></Prefix></Filter><Status>Enabled</Status>\
                    <Expiration><Days>90</Days></Expiration></Rule>";

#[test]
fn a_rule_that_would_eat_the_repository_is_an_alarm() {
    let (server, lab) = unprotected("embedded");
    for secret in ["password", "key"] {
        let told = format!("the secret in {}", lab.path(secret).display());
        fs::set_permissions(lab.path(secret), fs::Permissions::from_mode(0o644)).unwrap();
        let ran = lab.run(&["doctor"]).expect(3);
        assert!(ran.out.contains(&told), "{ran:#?}");
        fs::set_permissions(lab.path(secret), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let ran = lab.run(&["doctor"]).expect(0);
    assert!(ran.out.contains("b2: no lifecycle rule"), "{ran:#?}");
    server.set_lifecycle("backups", EATS);
    let ran = lab.run(&["doctor"]).expect(1);
    assert!(
        ran.out
            .contains("\"cheap\" deletes every object of the bucket that is 90 days old"),
        "{ran:#?}"
    );
    assert!(ran.out.contains("hint: remove that rule now"), "{ran:#?}");
    let told = lab.run(&["--json", "doctor"]).expect(1).json();
    assert_eq!(told["lifecycles"][0]["harms"][0]["rule"], "cheap", "{told:#}");
    // No repository is made there. What proves each day that one is well says so too, however sound it still is.
    let ran = lab.run(&["init"]).expect(1);
    assert!(
        ran.out.contains("a repository there will be destroyed"),
        "{ran:#?}"
    );
    server.set_lifecycle("backups", "");
    lab.run(&["init"]).expect(0);
    server.set_lifecycle("backups", EATS);
    let ran = lab
        .run(&["verify", "offsite", "b2", "--depth", "structure"])
        .expect(1);
    assert!(
        ran.out.contains("\"cheap\" deletes every object") && ran.out.contains("b2: sound"),
        "{ran:#?}"
    );
    server.set_lifecycle("backups", "");
    lab.run(&["verify", "offsite", "b2", "--depth", "structure"])
        .expect(0);
    server.set_lifecycle("backups", EATS);
    assert!(!ran.all().contains(&server.access().secret_access_key));
    fs::write(
        lab.path("key"),
        "[default]\naws_access_key_id = X\naws_secret_access_key = y\n",
    )
    .unwrap();
    let ran = lab.run(&["doctor"]).expect(1);
    assert!(
        ran.out.contains("can't be looked at") && ran.out.contains("hint:"),
        "{ran:#?}"
    );
    // What a user may do is another question, and asked with a dataset.
    lab.run(&["doctor", "--user", "nobody"]).expect(2);
    lab.run(&["doctor", "--send", "tank/a"]).expect(2);
}

#[test]
fn rules_that_are_safe_are_printed_alone() {
    let (_server, lab) = unprotected("embedded");
    let ran = lab.run(&["offsite", "lifecycle", "b2"]).expect(0);
    let rules = ran.json();
    assert_eq!(rules["Rules"][0]["Filter"]["Prefix"], "nas/");
    assert_eq!(
        rules["Rules"][0]["NoncurrentVersionExpiration"]["NoncurrentDays"],
        30
    );
    assert!(
        ran.err
            .contains("put-bucket-lifecycle-configuration --bucket backups"),
        "{ran:#?}"
    );
    let rules = lab
        .run(&["offsite", "lifecycle", "b2", "--for", "b2", "--days", "7"])
        .expect(0)
        .json();
    assert_eq!(rules[0]["daysFromHidingToDeleting"], 7);
    let ran = lab.run(&["offsite", "lifecycle", "offsite"]).expect(2);
    assert!(
        ran.all().contains("hint: only a repository in a bucket"),
        "{ran:#?}"
    );
    let ran = lab.run(&["offsite", "lifecycle", "nowhere"]).expect(2);
    assert!(ran.all().contains("there are: b2, offsite"), "{ran:#?}");
}

#[test]
fn without_rules_nothing_is_removed() {
    let lab = Lab::protected("");
    let ran = lab.run(&["offsite", "prune"]).expect(0);
    assert!(ran.out.contains("all points stay"), "{ran:#?}");
    let ran = lab.run(&["offsite", "prune", "offsite"]).expect(2);
    assert!(ran.all().contains("hint: declare which ones stay"), "{ran:#?}");
}

#[test]
fn real_restic_ages_out_what_keep_does_not_want() {
    for program in engines::programs() {
        let (server, lab) = unprotected("restic");
        fs::create_dir(lab.path("bin")).unwrap();
        symlink(program, lab.path("bin/restic")).unwrap();
        let config = fs::read_to_string(lab.path("reseed.toml")).unwrap() + "keep = { last = 1 }\n";
        fs::write(lab.path("reseed.toml"), config).unwrap();
        engines::run(&lab, &["init"]).expect(0);
        for number in 0..3 {
            fs::write(lab.live().join(format!("new{number}")), vec![number; 50_000]).unwrap();
            for command in [&["snapshot", "app"][..], &["backup", "app"]] {
                engines::run(&lab, command).expect(0);
            }
        }
        let snapshots = || {
            fs::read_dir(server.bucket("backups").join("nas/snapshots"))
                .unwrap()
                .count()
        };
        assert_eq!(snapshots(), 3);
        let ran = engines::run(&lab, &["offsite", "prune", "-n"]).expect(0);
        assert!(ran.out.contains("2 to remove, 1 to keep"), "{ran:#?}");
        assert_eq!(snapshots(), 3, "a dry run does nothing");
        // Without its data the service keeps all that there is of it.
        fs::rename(lab.live(), lab.path("aside")).unwrap();
        let ran = engines::run(&lab, &["offsite", "prune", "b2"]).expect(4);
        assert!(
            ran.out.contains("skipped") && ran.out.contains("hint:"),
            "{ran:#?}"
        );
        assert_eq!(snapshots(), 3);
        fs::rename(lab.path("aside"), lab.live()).unwrap();
        let told = engines::run(&lab, &["--json", "offsite", "prune", "b2"])
            .expect(0)
            .json();
        assert_eq!(
            told["repositories"][0]["services"][0]["outcome"], "ok",
            "{told:#}"
        );
        assert_eq!(snapshots(), 1);
        let ran = engines::run(&lab, &["history", "--kind", "prune"]).expect(0);
        assert!(ran.out.contains("b2"), "{ran:#?}");
        fs::remove_dir_all(lab.live()).unwrap();
        fs::remove_dir_all(lab.path("snapshots")).unwrap();
        fs::remove_dir_all(lab.path("replica")).unwrap();
        let again = engines::run(&lab, &["restore", "app", "--from", "b2", "--to", "back"]).expect(0);
        assert!(lab.path("back/new2").exists(), "{again:#?}");
        // Begun anew by hand, with a little in it: the point stays until somebody says that this is right.
        fs::create_dir(lab.live()).unwrap();
        fs::write(lab.live().join("app.db"), "little").unwrap();
        engines::run(&lab, &["init", "--anew", "local", "--anew", "replica"]).expect(0);
        for command in [&["snapshot", "app"][..], &["backup", "app"]] {
            engines::run(&lab, command).expect(0);
        }
        let ran = engines::run(&lab, &["offsite", "prune", "b2"]).expect(4);
        assert!(
            ran.out.contains("shrank from") && ran.out.contains("reseed adopt app"),
            "{ran:#?}"
        );
        assert_eq!(snapshots(), 2);
        engines::run(&lab, &["adopt", "app"]).expect(0);
        engines::run(&lab, &["offsite", "prune", "b2"]).expect(0);
        assert_eq!(snapshots(), 1);
    }
}

/// By the size that is there; a declared price counts before that of a list, and nothing is made up where there is neither.
#[test]
fn what_a_repository_costs_is_told_by_its_size() {
    let (_server, lab) = crate::s3::lab();
    let bucket: u64 = walk(&lab.path("s3/backups/nas"));
    let told = lab.run(&["--json", "offsite", "cost"]).expect(0).json();
    let (b2, directory) = (&told["repositories"][0], &told["repositories"][1]);
    assert_eq!(b2["repository"], "b2", "{told:#}");
    assert_eq!(b2["usage"]["bytes"], bucket, "{told:#}");
    assert!(b2["cost"].is_null() && b2["growth"].is_null(), "{told:#}");
    assert_eq!(directory["repository"], "offsite", "{told:#}");
    assert!(directory["usage"]["objects"].as_u64() > Some(3), "{told:#}");
    let ran = lab.run(&["offsite", "cost", "b2"]).expect(0);
    assert!(ran.out.contains("no price is known: declare one"), "{ran:#?}");

    let config = fs::read_to_string(lab.path("reseed.toml")).unwrap()
        + "[offsite.b2.price]\nstorage = 6000000.5\ndownload = 0\ncurrency = \"EUR\"\n";
    fs::write(lab.path("reseed.toml"), &config).unwrap();
    let ran = lab.run(&["offsite", "cost", "b2"]).expect(2);
    assert!(
        ran.all().contains("`offsite.b2.price.storage` is out of range"),
        "{ran:#?}"
    );
    fs::write(lab.path("reseed.toml"), config.replace("6000000.5", "950000.5")).unwrap();
    let told = lab.run(&["--json", "offsite", "cost", "b2"]).expect(0).json();
    let month = told["repositories"][0]["cost"]["month"].as_f64().unwrap();
    #[expect(clippy::cast_precision_loss, reason = "some hundred kilobytes")]
    let sum = 950_000.5 * bucket as f64 / 1e12;
    assert!((month - sum).abs() < 2e-6, "{month} and not {sum}");
    let ran = lab.run(&["offsite", "cost", "b2"]).expect(0);
    assert!(
        ran.out
            .contains("by the price of the configuration: 950000.50 EUR"),
        "{ran:#?}"
    );
    fs::write(lab.path("password"), "wrong").unwrap();
    let ran = lab.run(&["offsite", "cost", "b2"]).expect(1);
    assert!(ran.all().contains("hint:"), "{ran:#?}");
    lab.run(&["offsite", "cost", "nowhere"]).expect(2);
}

fn walk(dir: &std::path::Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let size = |entry: fs::DirEntry| match entry.file_type().unwrap().is_dir() {
        true => walk(&entry.path()),
        false => entry.metadata().unwrap().len(),
    };
    entries.map(size).sum()
}
