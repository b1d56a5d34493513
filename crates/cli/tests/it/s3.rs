//! An off-site repository in S3, from the configuration to live data: the program, the restore worker and a server in
//! this process that checks keys.

use std::fs;

use reseed_testkit::s3::{S3Fault, S3Op, S3Rule, S3Server};

use crate::engines;
use crate::lab::{Lab, Ran};

/// The lab, with its directory for a repository and a bucket before it in the chain.
pub(crate) fn lab() -> (S3Server, Lab) {
    let (server, lab) = unprotected("embedded");
    lab.run(&["init"]).expect(0);
    lab.protect();
    (server, lab)
}

/// Nothing is there yet; what writes and reads the bucket is the engine of this type.
pub(crate) fn unprotected(engine: &str) -> (S3Server, Lab) {
    let lab = Lab::with("chain = [\"b2\", \"offsite\"]");
    fs::create_dir(lab.path("s3")).unwrap();
    let server = S3Server::start(lab.path("s3")).unwrap();
    server.make_bucket("backups").unwrap();
    let access = server.access();
    let key = format!(
        "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        access.access_key_id, access.secret_access_key
    );
    fs::write(lab.path("key"), key).unwrap();
    let at = lab.root.display();
    let config = fs::read_to_string(lab.path("reseed.toml")).unwrap()
        + &format!(
            "[offsite.b2]\ntype = \"{engine}\"\nrepository = \"s3:{}/backups/nas\"\nregion = \"{}\"\n\
             credentials_file = \"{at}/key\"\nallow_http = true\npassword_file = \"{at}/password\"\n",
            access.endpoint, access.region
        );
    fs::write(lab.path("reseed.toml"), config).unwrap();
    (server, lab)
}

#[test]
fn what_was_backed_up_to_a_bucket_comes_back_from_it() {
    let (server, lab) = lab();
    let secret = &server.access().secret_access_key;
    lab.lose_data();
    let ran = lab.run(&["preseed", "app"]).expect(0);
    lab.assert_whole();
    assert!(ran.all().contains("b2"), "{ran:#?}");
    let shown = lab.run(&["config", "show"]).expect(0);
    for said in [ran.all(), shown.all()] {
        assert!(!said.contains(secret.as_str()), "{said}");
    }
    let left = fs::read_dir(server.bucket("backups").join("nas/locks"));
    assert_eq!(left.map_or(0, Iterator::count), 0, "a lock was left");
}

/// The bucket's data can't be read, or nothing answers: the next source of the chain delivers.
#[test]
fn a_bucket_that_fails_is_fallen_through() {
    for rule in [
        S3Rule::on(S3Op::Get, S3Fault::Flip(4000)).key("/data/"),
        S3Rule::always(S3Fault::EXPIRED),
        S3Rule::always(S3Fault::NotS3(404)),
    ] {
        let (server, lab) = lab();
        lab.lose_data();
        let said = format!("{rule:?}");
        let _fault = server.faults().add(rule);
        let ran = lab.run(&["preseed", "app"]);
        assert_eq!(ran.code, Some(0), "{said}: {ran:#?}");
        lab.assert_whole();
        assert!(
            ran.all().contains("b2") && ran.all().contains("offsite"),
            "{said}: {ran:#?}"
        );
    }
}

/// Leaves the bucket as the only source.
fn only_the_bucket(lab: &Lab) {
    let config = fs::read_to_string(lab.path("reseed.toml")).unwrap();
    let changed = config.replace(
        "chain = [\"b2\", \"offsite\"]",
        "chain = [\"b2\"]\nwhen_exhausted = \"hold\"",
    );
    assert_ne!(config, changed);
    fs::write(lab.path("reseed.toml"), changed).unwrap();
}

/// It names the cause, and neither starts the service on nothing nor says that there is nothing.
#[track_caller]
fn assert_no_first_start(lab: &Lab, ran: &Ran, cause: &str) {
    assert_ne!(ran.code, Some(0), "{ran:#?}");
    assert!(!lab.live().join("file").exists());
    assert!(ran.all().contains(cause), "{cause:?} is not in {ran:#?}");
    assert!(ran.all().contains("hint:"), "{ran:#?}");
    assert!(!ran.all().contains("no recovery point exists"), "{ran:#?}");
}

/// Without any source left it is not taken for a first start.
#[test]
fn a_bucket_that_cannot_be_asked_is_no_first_start() {
    let (server, lab) = lab();
    only_the_bucket(&lab);
    lab.lose_data();
    for (fault, cause) in [
        (S3Fault::NO_BUCKET, "bucket"),
        (S3Fault::EXPIRED, "expired"),
        (S3Fault::NotS3(400), "endpoint"),
    ] {
        let _fault = server.faults().add(S3Rule::always(fault));
        assert_no_first_start(&lab, &lab.run(&["preseed", "app"]), cause);
    }
    fs::write(lab.path("password"), "wrong\n").unwrap();
    assert_no_first_start(&lab, &lab.run(&["preseed", "app"]), "wrong password");
}

#[test]
fn real_restic_brings_back_what_it_backed_up_to_a_bucket() {
    for program in engines::programs() {
        let (server, lab) = unprotected("restic");
        fs::create_dir(lab.path("bin")).unwrap();
        std::os::unix::fs::symlink(program, lab.path("bin/restic")).unwrap();
        for command in [
            &["init"][..],
            &["snapshot", "app"],
            &["replicate", "app"],
            &["backup", "app"],
        ] {
            engines::run(&lab, command).expect(0);
        }
        lab.lose_data();
        let ran = engines::run(&lab, &["preseed", "app"]).expect(0);
        lab.assert_whole();
        assert!(ran.all().contains("b2"), "{ran:#?}");
        assert!(
            !ran.all().contains(&server.access().secret_access_key),
            "{ran:#?}"
        );
        only_the_bucket(&lab);
        lab.lose_data();
        for (fault, cause) in [(S3Fault::NO_BUCKET, "bucket"), (S3Fault::NotS3(400), "endpoint")] {
            let _fault = server.faults().add(S3Rule::always(fault));
            assert_no_first_start(&lab, &engines::run(&lab, &["preseed", "app"]), cause);
        }
    }
}
