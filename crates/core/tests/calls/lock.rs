//! Which operations go on beside which.

use std::sync::Arc;
use std::time::Duration;

use reseed_core::error::OpKind;
use reseed_core::lock::{Claim, Locks};
use reseed_core::names::ServiceName;

use crate::forget::cx;
use crate::mocks::{Hand, MockLook, engine};

const NOW: Duration = Duration::ZERO;

#[tokio::test]
async fn snapshots_are_taken_beside_what_is_sent_and_all_else_is_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (locks, engine, cx) = (
        Locks::new(dir.path().join("locks")),
        engine(Arc::new(Hand::default()), MockLook::new()),
        cx(),
    );
    let service = ServiceName::new("app").unwrap();
    let claims = [Claim::Alone, Claim::Sending, Claim::Snapshots];
    for first in claims {
        for second in claims {
            let held = locks
                .acquire(&engine, &cx, &service, ("first", first), NOW)
                .await
                .unwrap();
            let other = locks
                .acquire(&engine, &cx, &service, ("second", second), NOW)
                .await;
            let along = matches!(
                (first, second),
                (Claim::Sending, Claim::Snapshots) | (Claim::Snapshots, Claim::Sending)
            );
            assert_eq!(other.is_ok(), along, "{first:?} and then {second:?}");
            if let Err(error) = &other {
                assert_eq!(error.kind(), OpKind::Locked);
                let told = error.to_string();
                assert!(told.contains("`first`"), "{first:?} and then {second:?}: {told}");
            }
            // Whoever is alone waits for both, and is told of one that is there.
            drop(held);
            if other.is_ok() {
                let third = locks
                    .acquire(&engine, &cx, &service, ("third", Claim::Alone), NOW)
                    .await;
                let told = third.unwrap_err().to_string();
                assert!(told.contains("`second`"), "{told}");
            }
            drop(other);
            for claim in claims {
                locks
                    .acquire(&engine, &cx, &service, ("last", claim), NOW)
                    .await
                    .unwrap();
            }
            let another = ServiceName::new("app2").unwrap();
            let _held = locks
                .acquire(&engine, &cx, &service, ("first", first), NOW)
                .await
                .unwrap();
            locks
                .acquire(&engine, &cx, &another, ("second", second), NOW)
                .await
                .unwrap();
        }
    }
}

/// The directory itself stands in then: there is one lock for everything.
#[tokio::test]
async fn where_no_file_can_be_made_everything_is_alone() {
    let dir = tempfile::tempdir().unwrap();
    // No directory can be made in a file, also by root.
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (locks, others) = (Locks::new(file.join("locks")), Locks::new(file.join("locks")));
    let (engine, cx) = (engine(Arc::new(Hand::default()), MockLook::new()), cx());
    let service = ServiceName::new("app").unwrap();
    let held = locks
        .acquire(&engine, &cx, &service, ("first", Claim::Sending), NOW)
        .await
        .unwrap();
    let other = others
        .acquire(&engine, &cx, &service, ("second", Claim::Snapshots), NOW)
        .await;
    assert_eq!(other.unwrap_err().kind(), OpKind::Locked);
    drop(held);
    others
        .acquire(&engine, &cx, &service, ("second", Claim::Snapshots), NOW)
        .await
        .unwrap();
}
