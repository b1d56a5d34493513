//! What the world lets a core do, and what it takes for misuse.

use reseed_core::source::{RestoreRequest, Scope};
use reseed_core::store::{StageState, Staging};
use reseed_testkit::conformance::source::SourceLab as _;
use reseed_testkit::conformance::{block_on, context, worked};
use reseed_testkit::files::{Files as _, assert_same, write_odd_tree};
use reseed_testkit::world::MemLab;

/// Restores the odd tree to a path; answers what it found of misuse.
async fn restore_to(lab: &MemLab, path: &str) -> Vec<String> {
    let (cx, tree) = (context("to"), lab.scratch().join("odd"));
    let target = lab.target("t");
    write_odd_tree(&lab.world, &tree);
    lab.keep(&target, &tree, 1).await;
    let source = lab.source();
    let point = worked(source.points(&cx, &target).await).remove(0);
    let request = RestoreRequest {
        target: target.clone(),
        point,
        scope: Scope::Whole,
    };
    let staging = Staging {
        target,
        path: path.into(),
        locator: path.to_owned(),
        state: StageState::Partial,
    };
    let plan = worked(source.plan(&cx, &request).await);
    if source.execute(&cx, &plan, &staging).await.is_ok() {
        assert_same(&lab.world.list(&tree), &lab.world.list(path.as_ref()), path);
    }
    lab.world.violations()
}

#[test]
fn a_directory_of_ones_own_can_be_restored_to() {
    let found = block_on(async { restore_to(&MemLab::new(), "/mem/mine").await });
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_restore_into_live_data_is_misuse() {
    let found = block_on(async { restore_to(&MemLab::new(), "/mem/live/tank/t").await });
    assert_eq!(found.len(), 1, "{found:?}");
}
