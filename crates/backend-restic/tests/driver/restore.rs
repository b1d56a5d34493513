//! What a restore is said to have proved.

use reseed_core::point::RecoveryPoint;
use reseed_core::source::{RestorePlan, RestoreRequest, Restored, Scope};
use reseed_core::store::{StageState, Staging};

use super::*;

/// Of what was there already, by a restic that ends so.
fn restored(ended: Answer) -> Restored {
    let id = "ab".repeat(32);
    let list = format!(
        r#"[{{"id":"{id}","time":"2026-01-02T03:04:05Z","tree":"{id}","paths":["/x","/y"],"hostname":"h","tags":["reseed-dataset=tank/a"]}}]"#
    );
    let answers = [answer(0, &list, ""), ended, answer(0, "", ""), answer(0, "", "")];
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
    block_on(lab.restic.execute(&lab.cx, &plan, &staging)).unwrap()
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
