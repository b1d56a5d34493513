//! restic asks a store again for a quarter of an hour, also for what stays refused until somebody mends it. The driver ends it
//! then, and takes away the lock that it leaves. The program is a real process here: a shell script.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use reseed_backend_restic::restic::Location;
use reseed_backend_restic::secret::Password;
use reseed_backend_restic::{PasswordFrom, Restic};
use reseed_core::OffsiteRepo;
use reseed_core::clock::SystemClock;
use reseed_core::error::{OffsiteError, OffsiteKind, Retry};
use reseed_core::exec::SystemRunner;
use reseed_core::names::SourceName;
use reseed_core::offsite::{BackupOutcome, BackupReport};
use reseed_testkit::conformance::{block_on, context};

use super::{PASSWORD, SUMMARY, lab_request};

/// A backup by a program that says this on its standard error, and then does that.
fn backup(dir: &Path, says: &[&str], then: &str) -> Result<BackupReport, OffsiteError> {
    for name in ["repo/keys", "repo/snapshots", "tree"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    for name in ["repo/config", "repo/keys/ab", "tree/file"] {
        fs::write(dir.join(name), b"x").unwrap();
    }
    let (said, program) = (dir.join("said"), dir.join("restic"));
    fs::write(&said, says.join("\n") + "\n").unwrap();
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in\n\
         *' version '*) echo 'restic 0.18.0 compiled with go' ;;\n\
         *' list locks '*) ;;\n\
         *' unlock '*) echo >> {at}/unlocked ;;\n\
         *) /bin/cat {at}/said >&2; {then} ;;\nesac\n",
        at = dir.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let restic = Restic::new(
        SourceName::new("offsite").unwrap(),
        Location::Local(dir.join("repo")),
        PasswordFrom::Given(Password::new(PASSWORD)),
        dir.join("work"),
        Arc::new(SystemRunner::new()),
        Arc::new(SystemClock::new()),
    )
    .program(program);
    block_on(restic.backup(&context("refused"), &lab_request(&dir.join("tree"))))
}

/// One that would ask for ever.
const FOR_EVER: &str = "exec /bin/sleep 3600";

#[test]
fn what_stays_refused_is_not_asked_for_ever() {
    for (reason, kind, retry) in [
        (
            "client.PutObject: Bucket size quota is reached",
            OffsiteKind::NoSpace,
            Retry::AfterFix,
        ),
        (
            "client.PutObject: Access Denied.",
            OffsiteKind::PermissionDenied,
            Retry::AfterFix,
        ),
        (
            "Stat: The provided token has expired.",
            OffsiteKind::AuthFailed,
            Retry::AfterFix,
        ),
        (
            "The specified bucket does not exist",
            OffsiteKind::NotFound,
            Retry::Never,
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let line = format!("Save(<data/0123456789>) returned error, retrying after 720.254544ms: {reason}");
        let error = backup(dir.path(), &[&line, &line, &line], FOR_EVER).unwrap_err();
        assert_eq!((error.kind(), error.should_retry()), (kind, retry), "{error}");
        assert!(error.what_to_do().is_some(), "{error}");
        assert!(
            dir.path().join("unlocked").exists(),
            "{reason}: its lock was left"
        );
    }
}

/// A store that stumbles, or refuses a request once or twice, is left to restic.
#[test]
fn what_may_pass_is_left_to_restic() {
    let retried = |request: &str, reason: &str| {
        format!("Save(<data/{request}>) returned error, retrying after 1.5s: {reason}")
    };
    let refused = |request: &str| retried(request, "client.PutObject: Access Denied.");
    let busy = retried("aa", "client.PutObject: Please reduce your request rate.");
    let (first, second) = (refused("aa"), refused("bb"));
    for says in [[&busy; 6].to_vec(), vec![&first, &first, &second, &second]] {
        let says: Vec<&str> = says.into_iter().map(String::as_str).collect();
        let dir = tempfile::tempdir().unwrap();
        let report = backup(dir.path(), &says, &format!("echo '{SUMMARY}'")).unwrap();
        assert_eq!(report.outcome, BackupOutcome::Complete);
        assert!(!dir.path().join("unlocked").exists());
    }
}

/// A key that can't delete can't remove locks either. That is no reason to end the work, nor to wait long after it.
#[test]
fn a_lock_that_cannot_be_removed_ends_no_work() {
    let line =
        "Remove(<lock/0123456789>) returned error, retrying after 1.5s: client.RemoveObject: Access Denied.";
    let dir = tempfile::tempdir().unwrap();
    let report = backup(dir.path(), &[line; 5], &format!("echo '{SUMMARY}'")).unwrap();
    assert_eq!(report.outcome, BackupOutcome::Complete);
    let dir = tempfile::tempdir().unwrap();
    let asks_on = format!(
        "echo '{SUMMARY}'; while :; do /bin/cat {}/said >&2; /bin/sleep 0.1; done",
        dir.path().display()
    );
    let report = backup(dir.path(), &[line], &asks_on).unwrap();
    assert_eq!(report.outcome, BackupOutcome::Complete);
    assert!(
        !dir.path().join("unlocked").exists(),
        "it was tried once more, for nothing"
    );
}
