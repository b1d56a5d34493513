//! Streams that are followed and held back: how far they are is ZFS's own word, and what is limited arrives whole.

use std::num::NonZeroU64;
use std::sync::Arc;

use reseed_backend_zfs::zfs::{Location, Mapping, ReplicaSource};
use reseed_core::error::ReplicateKind;
use reseed_core::event::{Event, Recorder};
use reseed_core::names::DatasetName;
use reseed_core::point::Target;
use reseed_core::source::{RestoreRequest, Scope};
use reseed_core::store::{Delivery, StagePurpose, StageRequest};
use reseed_core::{Context, Replicator, RestoreSource, SnapshotStore};
use reseed_testkit::conformance::replicate::ReplicaLab as _;
use reseed_testkit::conformance::{block_on, context};
use reseed_testkit::files::{Files as _, assert_same};
use tokio_util::sync::CancellationToken;

use crate::lab::{name, sure};
use crate::replica_lab::Replica;

const MIB: u64 = 1 << 20;

/// A run whose events are kept.
fn followed(run: &str) -> (Context, Arc<Recorder>) {
    let events = Arc::new(Recorder::default());
    let cx = Context::new(
        context(run).run,
        Arc::clone(&events) as Arc<_>,
        CancellationToken::new(),
    );
    (cx, events)
}

/// What was told of a target: bytes, and of how many.
fn told(events: &Recorder, target: &Target) -> Vec<(u64, Option<u64>)> {
    let all = events.take().into_iter();
    all.filter_map(|event| match event {
        Event::Progress {
            dataset,
            bytes,
            total,
            ..
        } => {
            assert_eq!(dataset, target.dataset);
            Some((bytes, total))
        }
        _ => None,
    })
    .collect()
}

/// Bytes that no compression makes fewer, and whose estimate is therefore their number.
fn noise(mib: u64) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let words = (0..mib * MIB / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect()
}

fn written(lab: &Replica, target: &Target, file: &str, mib: u64, snapshot: &str) {
    lab.pool.files.write(&target.mountpoint.join(file), &noise(mib));
    sure(["zfs", "snapshot", &format!("{}@{snapshot}", target.dataset)]);
}

#[test]
fn a_limited_stream_arrives_whole_and_tells_how_far_it_is() {
    block_on(async {
        let mut lab = Replica::new();
        lab.replicator = lab.replicator.limit(NonZeroU64::new(2 * MIB));
        let target = lab.target("t");
        written(&lab, &target, "one", 10, "one");
        let all = std::slice::from_ref(&target);
        let (cx, events) = followed("first");
        let plan = lab.replicator.plan(&cx, all).await.unwrap();
        let report = lab.replicator.execute(&cx, &plan).await.unwrap();
        assert_eq!((report.failed.len(), report.sent.len()), (0, 1), "{report:?}");
        // Ten at two a second: it is told at least once how far it is, whatever the machine's own speed.
        let told_first = told(&events, &target);
        println!("{told_first:?}");
        let (first, total) = told_first[0];
        let total = total.unwrap();
        assert_eq!(first, 0);
        assert!((10 * MIB..11 * MIB).contains(&total), "{total}");
        assert!(told_first.iter().any(|(bytes, _)| *bytes > 0), "{told_first:?}");
        assert!(told_first.is_sorted(), "{told_first:?}");
        assert!(
            told_first
                .iter()
                .all(|(bytes, of)| *bytes < 11 * MIB && *of == Some(total))
        );
        // Two snapshots in one stream are one sum. Each is counted anew by the tool, once a second.
        lab.replicator = lab.replicator.clone().limit(NonZeroU64::new(MIB));
        written(&lab, &target, "two", 3, "two");
        written(&lab, &target, "three", 6, "three");
        let (cx, events) = followed("second");
        let plan = lab.replicator.plan(&cx, all).await.unwrap();
        let report = lab.replicator.execute(&cx, &plan).await.unwrap();
        assert_eq!((report.failed.len(), report.sent.len()), (0, 2), "{report:?}");
        let told_next = told(&events, &target);
        println!("{told_next:?}");
        let total = told_next[0].1.unwrap();
        assert!((9 * MIB..10 * MIB).contains(&total), "{total}");
        assert!(told_next.is_sorted(), "{told_next:?}");
        let furthest = told_next.iter().map(|(bytes, _)| *bytes).max();
        assert!(furthest > Some(3 * MIB), "the first one counts: {told_next:?}");
        let there = lab.copies(&target).await;
        assert_eq!(there.len(), 3);
        let live = lab.pool.files.list(&target.mountpoint);
        let newest = there.iter().find(|copy| copy.name.as_str() == "three").unwrap();
        assert_same(&live, &newest.content, "what was sent");
    });
}

#[test]
fn a_receiver_that_is_full_is_told_as_that_with_and_without_a_limit() {
    block_on(async {
        let mut lab = Replica::new();
        sure(["zfs", "set", "quota=6M", &format!("{}/svc", lab.back.pool)]);
        for (leaf, limit) in [("free", None), ("held", NonZeroU64::new(32 * MIB))] {
            lab.replicator = lab.replicator.clone().limit(limit);
            let target = lab.target(leaf);
            written(&lab, &target, "one", 12, "one");
            let (cx, _) = followed(leaf);
            let plan = lab
                .replicator
                .plan(&cx, std::slice::from_ref(&target))
                .await
                .unwrap();
            let failed = match lab.replicator.execute(&cx, &plan).await {
                Ok(report) => report.failed.into_iter().next().map(|(_, error)| error.kind),
                Err(error) => Some(error.report().kind),
            };
            let full = ReplicateKind::NoSpace;
            assert_eq!(failed.as_deref(), Some(full.to_string().as_str()), "{leaf}");
        }
    });
}

#[test]
fn a_restore_from_a_replica_tells_how_far_it_is() {
    block_on(async {
        let lab = Replica::new();
        let target = lab.target("t");
        written(&lab, &target, "one", 8, "one");
        let plan = lab
            .replicator
            .plan(&context("p"), std::slice::from_ref(&target))
            .await
            .unwrap();
        lab.replicator.execute(&context("p"), &plan).await.unwrap();
        let (cx, events) = followed("restore");
        let below = Mapping::below(DatasetName::new(format!("{}/svc", lab.back.pool)).unwrap());
        let source = ReplicaSource::new(name("second"), &lab.pool.store, Location::Local, below);
        let point = source.points(&cx, &target).await.unwrap().remove(0);
        let request = StageRequest {
            target: target.clone(),
            purpose: StagePurpose::Restore {
                point: point.clone(),
                delivery: Delivery::Native,
            },
        };
        let staging = lab.pool.store.stage(&cx, &request).await.unwrap();
        let request = RestoreRequest {
            target: target.clone(),
            point,
            scope: Scope::Whole,
        };
        let plan = source.plan(&cx, &request).await.unwrap();
        let restored = source.execute(&cx, &plan, &staging).await.unwrap();
        assert_eq!(restored.bytes, 8 * MIB);
        let told = told(&events, &target);
        println!("{told:?}");
        let total = told[0].1.unwrap();
        assert!(told[0].0 == 0 && (8 * MIB..9 * MIB).contains(&total), "{told:?}");
    });
}
