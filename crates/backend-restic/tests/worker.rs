//! The restore worker from the outside: whatever happens to it is an error and nothing more.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use common::*;
use reseed_backend_restic::child::Address;
use reseed_backend_restic::error::EngineError;
use reseed_backend_restic::restore::{Fault, RestoreJob, RestoreReport};
use reseed_backend_restic::secret::Password;
use reseed_backend_restic::worker::Worker;
use reseed_core::exec::SystemRunner;
use tokio_util::sync::CancellationToken;

const WORKER: &str = env!("CARGO_BIN_EXE_reseed-restore-worker");

fn worker(argv: &[&str]) -> Worker {
    Worker::new(argv, Arc::new(SystemRunner::new()))
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

fn lab() -> (Lab, RestoreJob) {
    let lab = Lab::new();
    let tree = lab.path("tree");
    fs::create_dir(&tree).unwrap();
    for number in 0..20 {
        fs::write(tree.join(format!("file{number}")), noise(number, 600_000)).unwrap();
    }
    let snapshot = lab.backup(&tree).snapshot;
    let job = RestoreJob {
        resume: true,
        ..lab.restore_job(&snapshot, "out")
    };
    (lab, job)
}

fn address(lab: &Lab) -> Address {
    Address::Local {
        path: lab.path("repo"),
    }
}

async fn restore(
    lab: &Lab,
    worker: &Worker,
    job: &RestoreJob,
    cancel: &CancellationToken,
) -> Result<RestoreReport, EngineError> {
    worker
        .restore(
            address(lab),
            lab.password.clone(),
            job.clone(),
            Arc::new(|_| ()),
            cancel,
        )
        .await
}

#[test]
fn it_restores_and_reports() {
    let (lab, job) = lab();
    let last = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&last);
    let report = run(worker(&[WORKER]).restore(
        address(&lab),
        lab.password.clone(),
        job,
        Arc::new(move |progress| *seen.lock().unwrap() = Some(progress)),
        &CancellationToken::new(),
    ))
    .unwrap();
    assert!(report.is_exact() && report.locked);
    let last = last.lock().unwrap().take().unwrap();
    assert_eq!(
        (last.bytes, last.files, last.total),
        (12_000_000, 20, Some(12_000_000))
    );
    assert_same(&lab.path("tree"), &lab.path("out"));
    assert_eq!(lab.locks(), 0);
}

#[test]
fn its_errors_arrive_as_they_are() {
    let (lab, job) = lab();
    let never = CancellationToken::new();
    let wrong = run(worker(&[WORKER]).restore(
        address(&lab),
        Password::new("wrong"),
        job.clone(),
        Arc::new(|_| ()),
        &never,
    ));
    assert!(
        matches!(wrong, Err(EngineError::WrongPassword { .. })),
        "{wrong:?}"
    );
    let full = run(worker(&[WORKER]).restore_with(
        address(&lab),
        lab.password.clone(),
        job.clone(),
        Arc::new(|_| ()),
        &never,
        Some(Fault::new(28, 1)),
    ));
    assert!(matches!(full, Err(EngineError::NoSpace { .. })), "{full:?}");
    flip_bit(&lab.packs()[0], 0.5);
    let corrupt = run(restore(&lab, &worker(&[WORKER]), &job, &never));
    assert!(
        matches!(corrupt, Err(EngineError::CorruptPack { .. })),
        "{corrupt:?}"
    );
}

#[test]
fn a_program_that_is_no_worker_is_a_failed_worker() {
    let (lab, job) = lab();
    for argv in [
        &["/bin/sh", "-c", "exit 0"][..],
        &["/bin/sh", "-c", "kill -SEGV $$"],
        &["/bin/sh", "-c", "echo garbage; sleep 60"],
        &["/bin/sh", "-c", "echo '{\"event\":\"done\"}'"],
        &["/bin/sh", "-c", "read line; echo thread panicked >&2; exit 101"],
        &["/bin/cat"],
        &["/nonexistent/program"],
    ] {
        let result = run(restore(&lab, &worker(argv), &job, &CancellationToken::new()));
        let Err(EngineError::Worker { detail }) = result else {
            panic!("{argv:?}: {result:?}")
        };
        assert!(!detail.contains("correct horse"), "{detail}");
    }
    assert!(!lab.path("out").exists());
}

#[test]
fn done_with_a_bad_exit_is_not_done() {
    let (lab, job) = lab();
    let report = serde_json::to_string(&RestoreReport::default()).unwrap();
    let script = format!("read line; echo '{{\"event\":\"done\",\"report\":{report}}}'; exit 3");
    let result = run(restore(
        &lab,
        &worker(&["/bin/sh", "-c", &script]),
        &job,
        &CancellationToken::new(),
    ));
    assert!(
        matches!(&result, Err(EngineError::Worker { detail }) if detail.contains('3')),
        "{result:?}"
    );
}

#[test]
fn too_little_memory_ends_the_worker_and_not_us() {
    let (lab, job) = lab();
    let worker = worker(&[WORKER]).with_memory_limit(Some(8 << 20));
    let result = run(restore(&lab, &worker, &job, &CancellationToken::new()));
    // Whether an allocation fails in a place that can say so or not: it is an error, in words.
    assert!(
        matches!(
            &result,
            Err(EngineError::Worker { .. } | EngineError::Panicked { .. })
        ),
        "{result:?}"
    );
    assert!(
        lab.restore(&job).unwrap().is_exact(),
        "and what it left is continued from"
    );
}

#[test]
fn a_cancelled_worker_ends_cleanly() {
    let (lab, job) = lab();
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let result = run(worker(&[WORKER]).restore(
        address(&lab),
        lab.password.clone(),
        job.clone(),
        Arc::new(move |_| stop.cancel()),
        &cancel,
    ));
    assert!(
        matches!(result, Err(EngineError::Cancelled) | Ok(_)),
        "{result:?}"
    );
    assert_eq!(lab.locks(), 0, "its lock is gone");
    lab.restore(&job).unwrap();
    assert_same(&lab.path("tree"), &lab.path("out"));
}

#[test]
fn a_killed_worker_leaves_a_lock_that_keeps_the_next_one_from_nothing() {
    let (lab, job) = lab();
    let result = run(worker(&[WORKER]).restore_with(
        address(&lab),
        lab.password.clone(),
        job.clone(),
        Arc::new(|_| ()),
        &CancellationToken::new(),
        Some(Fault::new(0, 3)),
    ));
    assert!(
        matches!(&result, Err(EngineError::Worker { detail }) if detail.contains("SIGKILL")),
        "{result:?}"
    );
    assert_eq!(lab.locks(), 1);
    let report = run(restore(&lab, &worker(&[WORKER]), &job, &CancellationToken::new())).unwrap();
    assert!(report.is_exact());
    // Where it is of a machine with the same name it will be refreshed.
    assert_eq!(lab.locks(), 1);
    assert_same(&lab.path("tree"), &lab.path("out"));
}

#[test]
fn a_worker_without_a_parent_ends() {
    let (lab, job) = lab();
    let request = serde_json::json!({
        "repository": address(&lab),
        "password": "correct horse",
        "job": job,
        "memory_limit": null,
    });
    // The input ends at once, as when the parent was killed right after asking.
    let cat = format!("printf '%s\\n' '{request}' | {WORKER}");
    let output = run(async {
        use reseed_core::exec::{Command, Runner};
        let command = Command::new("/bin/sh").args(["-c", &cat]);
        SystemRunner::new()
            .run(&command, &CancellationToken::new())
            .await
            .unwrap()
    });
    let text = output.stdout.text().into_owned();
    let last = text.lines().last().unwrap().to_owned();
    assert!(last.contains("cancelled") || last.contains("\"done\""), "{last}");
    assert_eq!(lab.locks(), 0);
}

#[test]
fn a_request_that_makes_no_sense_is_refused_without_repeating_it() {
    let output = run(async {
        use reseed_core::exec::{Command, Runner};
        let command = Command::new("/bin/sh")
            .args(["-c", &format!("echo '{{\"password\": \"hunter2\", 7' | {WORKER}")]);
        SystemRunner::new()
            .run(&command, &CancellationToken::new())
            .await
            .unwrap()
    });
    assert!(!output.exit.success());
    let text = output.stdout.text().into_owned();
    assert!(
        text.contains("not understood") && !text.contains("hunter2"),
        "{text}"
    );
}

#[test]
fn paths_that_are_no_text_reach_the_worker() {
    use std::os::unix::ffi::OsStrExt;
    let (lab, mut job) = lab();
    job.target = PathBuf::from(lab.dir.path()).join(std::ffi::OsStr::from_bytes(b"out\xff\n\""));
    run(restore(&lab, &worker(&[WORKER]), &job, &CancellationToken::new())).unwrap();
    assert_same(&lab.path("tree"), &job.target);
}
