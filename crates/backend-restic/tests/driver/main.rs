//! The driver of the restic program with a program that says whatever a test wants: what it makes of exits, words and
//! outputs that a real one shows rarely.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod check;
mod locks;
mod partial;
mod refused;
mod restore;

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use reseed_backend_restic::restic::Location;
use reseed_backend_restic::secret::Password;
use reseed_backend_restic::{PasswordFrom, Restic};
use reseed_core::clock::{Clock, SystemClock};
use reseed_core::error::{Effect, OffsiteKind, Retry};
use reseed_core::event::{Event, EventSink};
use reseed_core::exec::{Captured, Command, ExecError, Exit, Line, Output, PipeOutput, Runner, Streaming};
use reseed_core::names::{DatasetName, PointId, RunId, SourceName};
use reseed_core::offsite::{BackupOutcome, BackupRequest};
use reseed_core::point::Target;
use reseed_core::{Context, OffsiteRepo, RestoreSource};
use reseed_testkit::conformance::{block_on, minute};
use tokio_util::sync::CancellationToken;

const PASSWORD: &str = "correct horse";
const SUMMARY: &str = r#"{"message_type":"summary","total_files_processed":3,"total_bytes_processed":10,"data_added":7,"snapshot_id":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}"#;

/// What the program answers to the next call.
#[derive(Debug, Clone)]
struct Answer {
    exit: Exit,
    stdout: String,
    stderr: String,
    /// It was ended because the run was, after it had said all this.
    cancelled: bool,
}

fn answer(code: i32, stdout: &str, stderr: &str) -> Answer {
    Answer {
        exit: Exit::Code(code),
        stdout: stdout.into(),
        stderr: stderr.into(),
        cancelled: false,
    }
}

/// A program with answers in order; `restic version` is answered beside them.
#[derive(Debug, Default)]
struct Scripted {
    version: String,
    answers: Mutex<VecDeque<Answer>>,
    calls: Mutex<Vec<String>>,
    /// The run's.
    cancel: CancellationToken,
    /// The process that stood for the last call that was listened to.
    child: Mutex<String>,
}

/// In an answer: the number of that process.
const CHILD: &str = "@CHILD@";

impl Scripted {
    /// What it writes to stdout, and how it ends.
    fn next(&self, command: &Command) -> (String, Result<Output, ExecError>) {
        let shown = command.to_string();
        assert!(!shown.contains(PASSWORD));
        for argument in command.arguments() {
            assert!(
                !argument.to_string_lossy().contains(PASSWORD),
                "a password is an argument"
            );
        }
        let answer = if command.arguments() == ["version"] {
            answer(0, &format!("restic {} compiled with go", self.version), "")
        } else {
            let file = command.variable("RESTIC_PASSWORD_FILE").unwrap();
            assert_eq!(command.secret_file(file).unwrap().expose(), PASSWORD.as_bytes());
            let words = command
                .arguments()
                .iter()
                .map(|word| word.to_string_lossy().into_owned());
            self.calls
                .lock()
                .unwrap()
                .push(words.collect::<Vec<_>>().join(" "));
            let next = self.answers.lock().unwrap().pop_front();
            let mut next = next.unwrap_or_else(|| panic!("nobody expected {shown}"));
            next.stdout = next.stdout.replace(CHILD, &self.child.lock().unwrap());
            next
        };
        let mut kept = String::new();
        for line in answer.stderr.lines() {
            if !command
                .listener()
                .is_some_and(|listener| listener.hears(line.as_bytes()))
            {
                kept.push_str(line);
                kept.push('\n');
            }
        }
        if answer.cancelled {
            self.cancel.cancel();
            let cancelled = ExecError::Cancelled {
                command: shown,
                stderr: kept,
            };
            return (answer.stdout, Err(cancelled));
        }
        let output = Output {
            command: shown,
            exit: answer.exit,
            stdout: Captured::from_whole(answer.stdout.clone()),
            stderr: Captured::from_whole(kept),
            elapsed: Duration::ZERO,
            held_open: false,
        };
        (answer.stdout, Ok(output))
    }
}

#[async_trait]
impl Runner for Scripted {
    async fn run(&self, command: &Command, _: &CancellationToken) -> Result<Output, ExecError> {
        self.next(command).1
    }
    async fn pipe(&self, _: &[Command], _: &CancellationToken) -> Result<PipeOutput, ExecError> {
        panic!("the driver needs no pipes")
    }
    #[expect(clippy::disallowed_methods, reason = "a process that stands for restic's")]
    async fn stream(&self, command: &Command, _: &CancellationToken) -> Result<Streaming, ExecError> {
        let (stdout, output) = self.next(command);
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .env("RESEED_CALL", command.variable("RESEED_CALL").unwrap())
            .spawn()
            .unwrap();
        *self.child.lock().unwrap() = child.id().to_string();
        let (send, lines) = tokio::sync::mpsc::channel(64);
        for line in stdout.lines() {
            let bytes = line.as_bytes().to_vec();
            send.try_send(Line { bytes, cut: false }).unwrap();
        }
        Ok(Streaming::from_parts(lines, None, async move {
            child.kill().unwrap();
            child.wait().unwrap();
            output
        }))
    }
}

#[derive(Debug, Default)]
struct Told(Mutex<Vec<String>>);

impl EventSink for Told {
    fn emit(&self, _: &RunId, event: Event) {
        match event {
            Event::Warning { message, .. } => self.0.lock().unwrap().push(message),
            Event::Progress {
                bytes, total, files, ..
            } => {
                self.0
                    .lock()
                    .unwrap()
                    .push(format!("progress {bytes} {total:?} {files}"));
            }
            _ => {}
        }
    }
}

struct Lab {
    dir: tempfile::TempDir,
    program: Arc<Scripted>,
    told: Arc<Told>,
    restic: Restic,
    cx: Context,
}

impl Lab {
    fn new(version: &str, answers: &[Answer]) -> Self {
        Self::by_clock(version, answers, Arc::new(SystemClock::new()))
    }

    fn by_clock(version: &str, answers: &[Answer], clock: Arc<dyn Clock>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["repo/keys", "repo/snapshots", "tree"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        for name in ["repo/config", "repo/keys/ab", "tree/file"] {
            fs::write(dir.path().join(name), b"x").unwrap();
        }
        let program = Arc::new(Scripted {
            version: version.into(),
            answers: Mutex::new(answers.to_vec().into()),
            calls: Mutex::default(),
            cancel: CancellationToken::new(),
            child: Mutex::default(),
        });
        let runner: Arc<dyn Runner> = Arc::<Scripted>::clone(&program);
        let restic = Restic::new(
            SourceName::new("offsite").unwrap(),
            Location::Local(dir.path().join("repo")),
            PasswordFrom::Given(Password::new(PASSWORD)),
            dir.path().join("work"),
            runner,
            clock,
        );
        let told = Arc::new(Told::default());
        let events: Arc<dyn EventSink> = Arc::<Told>::clone(&told);
        let cx = Context::new(
            RunId::new("20261122T203300Z-driver").unwrap(),
            events,
            program.cancel.clone(),
        );
        Self {
            dir,
            program,
            told,
            restic,
            cx,
        }
    }

    fn request(&self) -> BackupRequest {
        lab_request(&self.dir.path().join("tree"))
    }

    fn backup(&self) -> Result<reseed_core::offsite::BackupReport, reseed_core::error::OffsiteError> {
        block_on(self.restic.backup(&self.cx, &self.request()))
    }

    fn calls(&self) -> Vec<String> {
        let name = |call: &String| {
            let words: Vec<&str> = call.split(' ').filter(|word| !word.starts_with("--")).collect();
            words.first().copied().unwrap_or_default().to_owned()
        };
        self.program.calls.lock().unwrap().iter().map(name).collect()
    }

    fn told(&self) -> Vec<String> {
        self.told.0.lock().unwrap().clone()
    }
}

/// Of the tree in this directory.
fn lab_request(tree: &Path) -> BackupRequest {
    BackupRequest {
        target: lab_target(),
        path: tree.to_owned(),
        as_path: "/var/lib/a".into(),
        host: "h".into(),
        point: PointId::new("1").unwrap(),
        snapshot: None,
        taken_at: minute(0),
        fingerprint: None,
        unseeded: false,
    }
}

fn locked_by(host: &str, pid: i32) -> String {
    format!(
        "unable to create lock in backend: repository is already locked exclusively by PID {pid} on {host} by root (UID 0, GID 0)\n\
         lock was created at {} (1s ago)\nstorage ID bc7d0ee4\nthe `unlock` command can be used to remove stale locks",
        SystemClock::new().now().strftime("%Y-%m-%d %H:%M:%S")
    )
}

fn here() -> String {
    rustix::system::uname().nodename().to_str().unwrap().to_owned()
}

/// Above what Linux hands out.
const NOBODY: i32 = 0x3fff_ffff;

#[test]
fn a_backup_reports_what_it_did_and_how_far_it_is() {
    let status =
        r#"{"message_type":"status","percent_done":0.5,"total_bytes":10,"bytes_done":5,"files_done":1}"#;
    let weather = r#"{"message_type":"weather"}"#;
    let lab = Lab::new(
        "0.18.0",
        &[answer(0, &format!("{status}\n{weather}\nwords\n{SUMMARY}"), "")],
    );
    let report = lab.backup().unwrap();
    assert_eq!((report.files, report.bytes, report.added), (3, 10, 7));
    assert_eq!(
        (report.outcome, report.snapshot_id.len()),
        (BackupOutcome::Complete, 64)
    );
    assert_eq!(lab.told(), ["progress 5 Some(10) 1"]);
}

#[test]
fn an_output_that_was_cut_off_is_no_success() {
    for stdout in [
        "",
        &SUMMARY[..SUMMARY.len() - 1],
        r#"{"message_type":"summary"}"#,
        "{\"message_type\":\"status\"}",
    ] {
        let lab = Lab::new("0.18.0", &[answer(0, stdout, "")]);
        let error = lab.backup().unwrap_err();
        assert_eq!(error.kind(), OffsiteKind::BadOutput, "{stdout}");
        assert_eq!(error.should_retry(), Retry::Never);
    }
    for stdout in ["", "{", "{}", r#"{"id":"x"}"#] {
        let lab = Lab::new("0.18.0", &[answer(0, stdout, "")]);
        let error = block_on(lab.restic.open(&lab.cx)).unwrap_err();
        assert_eq!(error.kind(), OffsiteKind::BadOutput);
    }
    let target = lab_target();
    for stdout in [
        "",
        "[{",
        "{}",
        r#"[{"id":"short","time":"2026-01-02T03:04:05Z","tree":""}]"#,
    ] {
        let lab = Lab::new("0.18.0", &[answer(0, stdout, "")]);
        assert!(
            block_on(RestoreSource::points(&lab.restic, &lab.cx, &target)).is_err(),
            "{stdout}"
        );
    }
}

fn lab_target() -> Target {
    Target {
        dataset: DatasetName::new("tank/a").unwrap(),
        mountpoint: "/var/lib/a".into(),
    }
}

#[test]
fn an_unknown_exit_is_a_failure_also_with_a_summary() {
    for code in [1, 2, 4, 70, 130, 255] {
        let lab = Lab::new("0.18.0", &[answer(code, SUMMARY, "")]);
        let error = lab.backup().unwrap_err();
        assert_eq!(error.kind(), OffsiteKind::Io, "{code}");
        assert_eq!(error.may_have(), Effect::Partial);
    }
}

#[test]
fn a_backup_whose_ssh_died_may_have_stored_something() {
    let lost = "Save(<data/d700278fe9>) failed: ssh command exited: signal: killed";
    let error = Lab::new("0.18.0", &[answer(1, "", lost)]).backup().unwrap_err();
    assert_eq!(
        (error.kind(), error.may_have()),
        (OffsiteKind::Unreachable, Effect::Partial),
        "{error}"
    );
}

#[test]
fn a_dead_lock_is_removed_once_by_its_own_rules_and_told_of() {
    let lab = Lab::new(
        "0.14.0",
        &[
            answer(1, "", &locked_by(&here(), NOBODY)),
            answer(0, "", ""),
            answer(0, "", ""),
            answer(0, SUMMARY, ""),
        ],
    );
    lab.backup().unwrap();
    assert_eq!(lab.calls(), ["backup", "list", "unlock", "backup"]);
    assert!(
        lab.told()[0].contains("a lock was removed whose holder is dead"),
        "{:?}",
        lab.told()
    );
    assert!(
        !lab.program
            .calls
            .lock()
            .unwrap()
            .iter()
            .any(|call| call.contains("remove-all"))
    );
    // Taken again in between: it isn't removed a second time.
    let again = locked_by(&here(), NOBODY);
    let lab = Lab::new(
        "0.18.0",
        &[
            answer(11, "", &again),
            answer(0, "", ""),
            answer(0, "", ""),
            answer(11, "", &again),
        ],
    );
    assert_eq!(lab.backup().unwrap_err().kind(), OffsiteKind::Locked);
    assert_eq!(lab.calls(), ["backup", "list", "unlock", "backup"]);
}

#[test]
fn a_lock_that_may_be_alive_is_left_alone_and_its_holder_named() {
    let me = i32::try_from(std::process::id()).unwrap();
    for (host, pid) in [("other-host", NOBODY), (here().as_str(), me)] {
        let lab = Lab::new("0.18.0", &[answer(11, "", &locked_by(host, pid))]);
        let error = lab.backup().unwrap_err();
        assert_eq!(
            (error.kind(), error.should_retry()),
            (OffsiteKind::Locked, Retry::Later)
        );
        assert!(
            error.to_string().contains(host) && error.to_string().contains(&pid.to_string()),
            "{error}"
        );
        assert_eq!(lab.calls(), ["backup"]);
    }
}

#[test]
fn one_that_was_killed_leaves_no_lock_of_ours() {
    let killed = Answer {
        exit: Exit::Signal(9),
        ..answer(0, "", "")
    };
    let lab = Lab::new("0.18.0", &[killed, answer(0, "", ""), answer(0, "", "")]);
    let error = lab.backup().unwrap_err();
    assert_eq!(error.kind(), OffsiteKind::Io);
    assert_eq!(lab.calls(), ["backup", "list", "unlock"]);
}

#[test]
fn one_that_is_stopped_between_its_last_word_and_its_end_leaves_no_lock() {
    let stopped = Answer {
        cancelled: true,
        ..answer(0, SUMMARY, "")
    };
    let lab = Lab::new("0.14.0", &[stopped, answer(0, "", ""), answer(0, "", "")]);
    // What it said was true: the snapshot is there.
    assert_eq!(lab.backup().unwrap().outcome, BackupOutcome::Complete);
    assert_eq!(lab.calls(), ["backup", "list", "unlock"]);
}

#[test]
fn a_list_with_words_beside_it_is_compared_with_what_there_is() {
    let (sound, damaged) = ("ab".repeat(32), "cd".repeat(32));
    let list = format!(
        r#"[{{"id":"{sound}","time":"2026-01-02T03:04:05Z","tree":"","paths":["/var/lib/a"],"hostname":"h"}}]"#
    );
    let lab = Lab::new(
        "0.18.0",
        &[
            answer(0, &list, "words that nobody knows"),
            answer(0, &format!("{sound}\n{damaged}\n"), ""),
        ],
    );
    let points = block_on(RestoreSource::points(&lab.restic, &lab.cx, &lab_target())).unwrap();
    let found: Vec<_> = points
        .iter()
        .map(|point| (point.locator.as_str(), point.partial))
        .collect();
    assert_eq!(found, [(sound.as_str(), false), (damaged.as_str(), true)]);
    assert!(lab.told()[0].contains("is damaged"), "{:?}", lab.told());
    // Without words there is nothing to compare.
    let lab = Lab::new("0.18.0", &[answer(0, &list, "")]);
    assert_eq!(
        block_on(RestoreSource::points(&lab.restic, &lab.cx, &lab_target()))
            .unwrap()
            .len(),
        1
    );
}

/// Each is a whole run of the program, which reads all of the index. Where the embedded engine reaches, it isn't asked at all.
#[test]
fn no_directory_of_what_others_backed_up_is_asked_for_twice() {
    let id = |number: u8| format!("{number:02x}").repeat(32);
    let record = |number: u8| {
        let (id, tree) = (id(number), id(200));
        format!(
            r#"{{"id":"{id}","time":"2026-01-02T03:04:05Z","tree":"{tree}","paths":["/var/lib"],"hostname":"h"}}"#
        )
    };
    let list = format!("[{}]", (1..=60).map(record).collect::<Vec<_>>().join(","));
    let lab = Lab::new(
        "0.18.0",
        &[answer(0, &list, ""), answer(0, r#"{"nodes":[]}"#, "")],
    );
    let points = block_on(RestoreSource::points(&lab.restic, &lab.cx, &lab_target())).unwrap();
    assert_eq!(
        (points.len(), lab.calls().as_slice()),
        (0, &["snapshots".to_owned(), "cat".to_owned()][..])
    );
}

#[test]
fn a_snapshot_that_another_says_to_be_partial_is_not_offered_beside_it() {
    let (first, second) = ("ab".repeat(32), "cd".repeat(32));
    let record = |id: &str, tags: &str, more: &str| {
        format!(
            r#"{{"id":"{id}","time":"2026-01-02T03:04:05Z","tree":"","paths":["/x"],"hostname":"h","tags":["reseed-dataset=tank/a"{tags}]{more}}}"#
        )
    };
    let list = format!(
        "[{},{}]",
        record(&first, "", ""),
        record(
            &second,
            r#","reseed-partial""#,
            &format!(r#","original":"{first}""#)
        )
    );
    let lab = Lab::new("0.18.0", &[answer(0, &list, "")]);
    let points = block_on(RestoreSource::points(&lab.restic, &lab.cx, &lab_target())).unwrap();
    let found: Vec<_> = points
        .iter()
        .map(|point| (point.locator.as_str(), point.partial))
        .collect();
    assert_eq!(found, [(second.as_str(), true)]);
}

#[test]
fn a_newer_version_works_and_is_warned_of_once_an_older_one_is_refused() {
    let lab = Lab::new("0.99.0", &[answer(0, SUMMARY, ""), answer(0, SUMMARY, "")]);
    lab.backup().unwrap();
    lab.backup().unwrap();
    assert_eq!(lab.told().len(), 1);
    assert!(lab.told()[0].contains("0.99.0 is newer"), "{:?}", lab.told());
    let lab = Lab::new("0.13.1", &[]);
    let error = lab.backup().unwrap_err();
    assert_eq!(
        (error.kind(), error.may_have()),
        (OffsiteKind::ToolMissing, Effect::None)
    );
    assert!(error.to_string().contains("0.13.1") && error.what_to_do().unwrap().contains("0.14"));
}
