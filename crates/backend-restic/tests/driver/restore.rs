//! What a restore is said to have proved.

use reseed_core::point::RecoveryPoint;
use reseed_core::source::{RestorePlan, RestoreRequest, Restored, Scope};
use reseed_core::store::{StageState, Staging};

use super::*;

/// Of what was there already, by a restic that ends so.
fn restored(ended: Answer) -> Restored {
    restored_by(&[ended, answer(0, "", ""), answer(0, "", "")]).0
}

/// The same, and what was called.
fn restored_by(answers: &[Answer]) -> (Restored, Vec<String>) {
    let id = "ab".repeat(32);
    let list = format!(
        r#"[{{"id":"{id}","time":"2026-01-02T03:04:05Z","tree":"{id}","paths":["/x","/y"],"hostname":"h","tags":["reseed-dataset=tank/a"]}}]"#
    );
    let answers = [&[answer(0, &list, "")], answers].concat();
    let lab = Lab::new("0.18.0", &answers);
    let path = lab.dir.path().join("stage");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("file"), b"x").unwrap();
    let request = RestoreRequest {
        target: lab_target(),
        point: RecoveryPoint {
            id: PointId::new("1").unwrap(),
            dataset: lab_target().dataset,
            source: SourceName::new("offsite").unwrap(),
            locator: id,
            snapshot: None,
            taken_at: minute(0),
            fingerprint: None,
            bytes: None,
            unseeded: false,
            partial: false,
            altered: false,
        },
        scope: Scope::Whole,
    };
    let plan = RestorePlan {
        request,
        bytes: None,
        steps: Vec::new(),
    };
    let staging = Staging {
        target: lab_target(),
        locator: path.display().to_string(),
        path,
        state: StageState::Partial,
    };
    let restored = block_on(lab.restic.execute(&lab.cx, &plan, &staging)).unwrap();
    let calls = lab.program.calls.lock().unwrap().clone();
    (restored, calls)
}

/// What may only be read can't be freed of it, and is what is left to restore from.
#[test]
fn a_dead_lock_that_cannot_be_removed_is_passed() {
    let summary =
        r#"{"message_type":"summary","total_files":1,"files_restored":1,"total_bytes":1,"bytes_restored":1}"#;
    for why in [
        "Fatal: remove lock: permission denied",
        "Fatal: read-only file system",
    ] {
        let (restored, calls) = restored_by(&[
            answer(11, "", &locked_by(&here(), NOBODY)),
            answer(0, "", ""),
            answer(1, "", why),
            answer(0, summary, ""),
        ]);
        assert!(
            restored
                .warnings
                .iter()
                .any(|told| told.contains("without a lock")),
            "{restored:?}"
        );
        assert!(
            calls[4].contains("restore") && calls[4].contains("--no-lock"),
            "{calls:?}"
        );
    }
}

/// It says how much it restored before it reads that back, and nothing afterwards.
#[test]
fn one_that_is_stopped_while_it_reads_back_is_not_said_to_have_done_it() {
    let summary =
        r#"{"message_type":"summary","total_files":1,"files_restored":1,"total_bytes":1,"bytes_restored":1}"#;
    let reads_back = |restored: &Restored| restored.checked.iter().any(|what| what.contains("read back"));
    let whole = restored(answer(0, summary, ""));
    assert!(reads_back(&whole) && whole.warnings.is_empty(), "{whole:?}");
    let stopped = restored(Answer {
        cancelled: true,
        ..answer(0, summary, "")
    });
    assert!(!reads_back(&stopped), "{stopped:?}");
    assert!(
        stopped.warnings.iter().any(|why| why.contains("read back")),
        "{stopped:?}"
    );
}
