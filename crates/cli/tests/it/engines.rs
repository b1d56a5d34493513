//! Off-site repositories by the restic program, as configured. Named `real_*`: they need restic in two versions.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use reseed_core::exec::Command;

use reseed_testkit::s3::Daemon;

use crate::lab::{Lab, Ran, run_with, run_with_path};

/// Both versions of restic that real tests run with.
pub(crate) fn programs() -> [OsString; 2] {
    ["RESEED_REAL_RESTIC", "RESEED_REAL_RESTIC_NEWER"].map(|variable| {
        std::env::var_os(variable).unwrap_or_else(|| {
            panic!("{variable} must name the restic to test with (or leave out the tests named real_*)")
        })
    })
}

/// Runs with this restic first in the path.
pub(crate) fn run(lab: &Lab, args: &[&str]) -> Ran {
    run_also_with(lab, args, &[])
}

/// The same with more variables of the environment.
fn run_also_with(lab: &Lab, args: &[&str], more: &[(&str, &OsStr)]) -> Ran {
    let config = lab.path("reseed.toml");
    let mut all: Vec<&OsStr> = vec![OsStr::new("--config"), config.as_os_str()];
    all.extend(args.iter().map(OsStr::new));
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", lab.path("bin").display());
    let mut variables = vec![("PATH", OsStr::new(&path))];
    variables.extend(more);
    run_with(&lab.root, &all, &variables)
}

fn set_engine(lab: &Lab, from: &str, to: &str) {
    let config = fs::read_to_string(lab.path("reseed.toml")).unwrap();
    let changed = config.replace(&format!("type = \"{from}\""), &format!("type = \"{to}\""));
    assert_ne!(config, changed);
    fs::write(lab.path("reseed.toml"), changed).unwrap();
}

fn preseed(lab: &Lab) {
    let report = run(lab, &["--json", "preseed", "app"]).expect(0).json();
    let report = &report["reports"][0];
    assert_eq!(report["outcome"]["result"], "restored", "{report:#}");
    assert_eq!(report["source"], "offsite", "{report:#}");
    lab.assert_whole();
    let mode = fs::metadata(lab.live()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o2751, "the topmost directory's permissions");
}

#[test]
fn real_restic_as_configured_backs_up_and_heals_and_the_embedded_engine_takes_over() {
    for program in programs() {
        let lab = Lab::with("chain = [\"offsite\"]\nwhen_exhausted = \"hold\"");
        fs::create_dir(lab.path("bin")).unwrap();
        symlink(program, lab.path("bin/restic")).unwrap();
        set_engine(&lab, "embedded", "restic");
        fs::set_permissions(lab.live(), fs::Permissions::from_mode(0o2751)).unwrap();
        run(&lab, &["init"]).expect(0);
        for command in ["snapshot", "backup"] {
            run(&lab, &[command, "app"]).expect(0);
        }
        lab.lose_data();
        preseed(&lab);
        // Both engines write and read the same points, verified against the same digest.
        set_engine(&lab, "restic", "embedded");
        lab.lose_data();
        preseed(&lab);
        fs::write(lab.live().join("new"), "new").unwrap();
        for command in ["snapshot", "backup"] {
            run(&lab, &[command, "app"]).expect(0);
        }
        set_engine(&lab, "embedded", "restic");
        lab.lose_data();
        preseed(&lab);
        assert_eq!(fs::read_to_string(lab.live().join("new")).unwrap(), "new");
        run(&lab, &["verify", "offsite", "--depth", "everything"]).expect(0);
    }
}

/// As people have it at home: a server of their own with a certificate of their own.
#[test]
fn real_restic_works_over_https_where_the_authority_is_named() {
    let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("../backend-restic/tests/tls");
    let certificate = tls.join("cert.pem");
    let trusted = [("SSL_CERT_FILE", certificate.as_os_str())];
    let server = std::env::var_os("RESEED_REAL_REST_SERVER")
        .expect("RESEED_REAL_REST_SERVER must name the server to test with");
    for program in programs() {
        let lab = Lab::with("chain = [\"offsite\"]\nwhen_exhausted = \"hold\"");
        // The certificate is for this name, and so for this address.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(&server);
        command = command
            .args(["--no-auth", "--tls", "--tls-cert"])
            .arg(&certificate)
            .arg("--tls-key")
            .arg(tls.join("key.pem"))
            .arg("--path")
            .arg(lab.path("served"))
            .args(["--listen", &address.to_string()]);
        let _daemon = Daemon::start("rest-server", address, command).unwrap();
        fs::create_dir(lab.path("bin")).unwrap();
        symlink(program, lab.path("bin/restic")).unwrap();
        set_engine(&lab, "embedded", "restic");
        let config = fs::read_to_string(lab.path("reseed.toml")).unwrap();
        let local = format!("\"{}\"", lab.path("offsite").display());
        let served = format!("\"rest:https://localhost:{}/app\"", address.port());
        fs::write(lab.path("reseed.toml"), config.replace(&local, &served)).unwrap();
        let refused = run(&lab, &["init"]).expect(1);
        assert!(refused.all().contains("is not trusted here"), "{refused:#?}");
        for command in [&["init"][..], &["snapshot", "app"], &["backup", "app"]] {
            run_also_with(&lab, command, &trusted).expect(0);
        }
        lab.lose_data();
        // Who isn't believed has said nothing of there being no backup.
        run(&lab, &["preseed", "app"]).expect(4);
        assert!(!lab.live().join("file").exists());
        run_also_with(&lab, &["preseed", "app"], &trusted).expect(0);
        lab.assert_whole();
        run_also_with(&lab, &["verify", "offsite", "--depth", "everything"], &trusted).expect(0);
        assert!(lab.path("served/app/config").exists());
    }
}

#[test]
fn a_restic_that_is_not_there_is_told_with_what_to_do() {
    let lab = Lab::new();
    set_engine(&lab, "embedded", "restic");
    fs::create_dir(lab.path("nothing")).unwrap();
    let config = lab.path("reseed.toml");
    let args = [OsStr::new("--config"), config.as_os_str(), OsStr::new("init")];
    let ran = run_with_path(&lab.root, &args, lab.path("nothing")).expect(1);
    assert!(ran.all().contains("restic is not installed"), "{ran:#?}");
    assert!(ran.all().contains("hint:"), "{ran:#?}");
}
