//! Clauses S1 to S9: looking, snapshots, holds, pruning.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use reseed_core::error::StoreKind;
use reseed_core::names::{Guid, HoldTag};
use reseed_core::store::{Condition, HoldChange, Settle};

use super::super::{context, marker, minute, point, refused, worked};
use super::{StoreLab, condition, content, inspect, list, no_violations, request, snapshot};
use crate::files::{assert_same, write_odd_tree};

/// S1: one answer per target, in order; nothing changes.
pub async fn s01_inspect_tells_and_changes_nothing(lab: &impl StoreLab) {
    let (store, cx) = (lab.store(), context("s01"));
    let (absent, empty, full) = (lab.absent("absent"), lab.absent("empty"), lab.absent("full"));
    lab.make(&empty);
    lab.make(&full);
    write_odd_tree(lab.files(), &full.mountpoint);
    let before = lab.files().list(&full.mountpoint);
    let targets = [full.clone(), absent.clone(), empty.clone(), full.clone()];
    for _ in 0..2 {
        let found = worked(store.inspect(&cx, &targets).await);
        let conditions: Vec<_> = found.iter().map(|one| one.condition.clone()).collect();
        let expected = [
            Condition::Populated,
            Condition::Absent,
            Condition::Empty,
            Condition::Populated,
        ];
        assert_eq!(conditions, expected);
        for (one, target) in found.iter().zip(&targets) {
            assert_eq!(&one.target, target);
            assert_eq!(one.guid.is_some(), one.condition != Condition::Absent);
            assert_eq!((&one.marker, &one.leftover), (&None, &None));
        }
        assert_eq!(found[0].guid, found[3].guid);
        assert_ne!(found[0].guid, found[2].guid);
    }
    assert_same(
        &before,
        &lab.files().list(&full.mountpoint),
        "inspect changed a target",
    );
    assert!(!lab.files().exists(&absent.mountpoint), "inspect made a target");
    assert!(worked(store.inspect(&cx, &[]).await).is_empty());
    assert!(list(&*store, &cx, &full).await.is_empty());
    no_violations(lab);
}

/// S1: a target that can't be judged is none of the answers that lead to a restore, and the others are answered.
pub async fn s01_what_cannot_be_judged_is_neither_absent_nor_empty(lab: &impl StoreLab) {
    let (store, cx) = (lab.store(), context("s01b"));
    let (hidden, fine) = (lab.absent("hidden"), lab.absent("fine"));
    lab.make(&hidden);
    lab.files().write(&hidden.mountpoint.join("data"), b"there");
    lab.make_unknowable(&hidden);
    let found = match store.inspect(&cx, &[hidden.clone(), fine.clone()]).await {
        Ok(found) => found,
        Err(error) => panic!("one target that can't be judged is no error of all: {error}"),
    };
    assert!(
        matches!(
            found[0].condition,
            Condition::PoolUnavailable { .. }
                | Condition::Unknown { .. }
                | Condition::Occupied { .. }
                | Condition::Unmounted { .. }
        ),
        "{:?}",
        found[0].condition
    );
    assert_eq!(found.len(), 2);
}

/// S2: whatever the entry is.
pub async fn s02_any_entry_makes_it_populated(lab: &impl StoreLab) {
    let (store, cx, files) = (lab.store(), context("s02"), lab.files());
    let names: [&[u8]; 8] = [
        b"file",
        b".hidden",
        b".zfs2",
        b"lost+found2",
        b"-n",
        b"a\nb",
        "\u{e4}\u{1f331}".as_bytes(),
        b"\xff\xfe",
    ];
    for (at, name) in names.iter().enumerate() {
        let target = lab.absent(&format!("file{at}"));
        lab.make(&target);
        files.write(&target.mountpoint.join(OsStr::from_bytes(name)), b"");
        assert_eq!(
            condition(&*store, &cx, &target).await,
            Condition::Populated,
            "{name:?}"
        );
    }
    let (dir, link, pipe) = (lab.absent("dir"), lab.absent("link"), lab.absent("pipe"));
    for target in [&dir, &link, &pipe] {
        lab.make(target);
    }
    files.make_dir(&dir.mountpoint.join("empty"));
    files.symlink(Path::new("nowhere"), &link.mountpoint.join("dangling"));
    files.fifo(&pipe.mountpoint.join("pipe"));
    for target in [&dir, &link, &pipe] {
        assert_eq!(condition(&*store, &cx, target).await, Condition::Populated);
    }
}

/// S2: `lost+found` alone is nothing.
pub async fn s02_what_the_filesystem_puts_there_does_not_count(lab: &impl StoreLab) {
    let (store, cx) = (lab.store(), context("s02b"));
    let target = lab.absent("formatted");
    lab.make(&target);
    lab.files().make_dir(&target.mountpoint.join("lost+found"));
    assert_eq!(condition(&*store, &cx, &target).await, Condition::Empty);
}

/// S3: the marker is bound to what it was written on.
pub async fn s03_a_marker_does_not_count_on_what_replaced_its_dataset(lab: &impl StoreLab) {
    let (store, cx) = (lab.store(), context("s03"));
    let target = lab.absent("marked");
    lab.make(&target);
    lab.files().write(&target.mountpoint.join("data"), b"1");
    let guid = inspect(&*store, &cx, &target).await.guid.expect("a guid");
    let marker = marker(&cx, &point(&target, "p1"));
    let mark = Settle::Mark {
        target: target.clone(),
        guid,
        marker: marker.clone(),
    };
    worked(store.settle(&cx, &mark).await);
    assert_eq!(inspect(&*store, &cx, &target).await.marker, Some(marker));
    lab.replace_keeping_marker(&target);
    let found = inspect(&*store, &cx, &target).await;
    assert_eq!(found.marker, None, "the marker of another one counts");
    assert_eq!(found.condition, Condition::Empty);
    refused(store.settle(&cx, &mark).await, &[StoreKind::StalePlan]);
    assert_eq!(inspect(&*store, &cx, &target).await.marker, None);
    no_violations(lab);
}

/// S4: all or nothing.
pub async fn s04_create_takes_all_targets_or_none(lab: &impl StoreLab) {
    let (store, cx) = (lab.store(), context("s04"));
    let (one, two, missing) = (lab.absent("one"), lab.absent("two"), lab.absent("missing"));
    lab.make(&one);
    lab.make(&two);
    let both = request(&[&one, &two], "both", 1);
    if store.caps().atomic_group {
        let made = worked(store.create(&cx, &both).await);
        assert_eq!(made.len(), 2);
        assert_eq!((&made[0].dataset, &made[1].dataset), (&one.dataset, &two.dataset));
        assert_eq!((&made[0].name, &made[1].name), (&both.name, &both.name));
        assert_eq!((made[0].taken_at, made[1].taken_at), (minute(1), minute(1)));
        assert_ne!(made[0].guid, made[1].guid);
        assert!(made.iter().all(|snapshot| snapshot.fingerprint.is_some()));
        assert_eq!(worked(store.list(&cx, &[one.clone(), two.clone()]).await), made);
        let partly = request(&[&one, &missing, &two], "partly", 2);
        refused(store.create(&cx, &partly).await, &[StoreKind::NotFound]);
    } else {
        refused(store.create(&cx, &both).await, &[StoreKind::Unsupported]);
    }
    refused(
        store.create(&cx, &request(&[&missing], "none", 3)).await,
        &[StoreKind::NotFound],
    );
    for target in [&one, &two] {
        let names: Vec<_> = list(&*store, &cx, target)
            .await
            .into_iter()
            .map(|s| s.name)
            .collect();
        assert!(
            names.iter().all(|name| name.as_str() == "both"),
            "a failed create left {names:?}"
        );
    }
    no_violations(lab);
}

/// S4: a name that is taken.
pub async fn s04_a_name_that_is_taken_changes_nothing(lab: &impl StoreLab) {
    let (store, cx) = (lab.store(), context("s04b"));
    let (one, two) = (lab.absent("one"), lab.absent("two"));
    lab.make(&one);
    lab.make(&two);
    lab.files().write(&one.mountpoint.join("f"), b"first");
    let first = snapshot(&*store, &cx, &one, "taken", 1).await;
    let before = content(lab, &*store, &cx, &one, &first.reference()).await;
    lab.files().write(&one.mountpoint.join("f"), b"second");
    refused(
        store.create(&cx, &request(&[&one], "taken", 2)).await,
        &[StoreKind::AlreadyExists],
    );
    if store.caps().atomic_group {
        refused(
            store.create(&cx, &request(&[&two, &one], "taken", 2)).await,
            &[StoreKind::AlreadyExists],
        );
        assert!(list(&*store, &cx, &two).await.is_empty());
    }
    assert_eq!(list(&*store, &cx, &one).await, vec![first.clone()]);
    let after = content(lab, &*store, &cx, &one, &first.reference()).await;
    assert_same(&before, &after, "the snapshot of that name changed");
}

/// S5: whatever becomes of the live files.
pub async fn s05_a_snapshot_never_changes(lab: &impl StoreLab) {
    let (store, cx, files) = (lab.store(), context("s05"), lab.files());
    let target = lab.absent("live");
    let root = target.mountpoint.clone();
    lab.make(&target);
    write_odd_tree(files, &root);
    files.set_mode(&root, 0o750);
    let at_one = files.list(&root);
    let one = snapshot(&*store, &cx, &target, "one", 1).await;
    let content_one = content(lab, &*store, &cx, &target, &one.reference()).await;
    assert_same(
        &at_one,
        &content_one,
        "the snapshot isn't the tree it was taken of",
    );
    // Unchanged files may be shared between the two snapshots, never with the live tree.
    let two = snapshot(&*store, &cx, &target, "two", 2).await;
    assert_eq!(
        one.fingerprint, two.fingerprint,
        "one tree, measured twice, has one fingerprint"
    );

    files.write_at(&root.join("db/main.db"), 100, b"in place");
    files.set_len(&root.join("run.sh"), 3);
    files.write(&root.join("with space"), b"written over");
    files.rename(&root.join(".hidden"), &root.join("not-hidden"));
    files.remove(&root.join("deep"));
    files.set_mode(&root.join("private"), 0o644);
    files.set_xattr(&root.join("run.sh"), "user.reseed-test", b"other");
    files.remove(&root.join("link"));
    files.symlink(Path::new("elsewhere"), &root.join("link"));
    files.write(&root.join("new"), b"new");
    files.set_mode(&root, 0o755);

    let at_three = files.list(&root);
    let three = snapshot(&*store, &cx, &target, "three", 3).await;
    assert_ne!(three.fingerprint, one.fingerprint);
    files.remove(&root.join("db"));
    for (snap, expected) in [(&one, &at_one), (&two, &at_one), (&three, &at_three)] {
        let found = content(lab, &*store, &cx, &target, &snap.reference()).await;
        assert_same(expected, &found, snap.name.as_str());
    }
    assert_eq!(list(&*store, &cx, &target).await, vec![one, two, three]);
    no_violations(lab);
}

/// S6: every snapshot of exactly this dataset, oldest first.
pub async fn s06_list_is_complete_exact_and_in_order(lab: &impl StoreLab) {
    let (store, cx) = (lab.store(), context("s06"));
    let (parent, other, absent) = (lab.absent("parent"), lab.absent("parent2"), lab.absent("nothing"));
    let child = lab.absent("parent/child");
    for target in [&parent, &child, &other] {
        lab.make(target);
    }
    snapshot(&*store, &cx, &child, "childs", 1).await;
    snapshot(&*store, &cx, &other, "others", 1).await;
    let names = [
        "autosnap_2026-11-22_20:33:00_hourly",
        "syncoid_host_2026-11-22:20:33:00-GMT01:00",
        "reseed-20261122T203300Z",
        "by hand",
        "zzz",
        "a",
    ];
    // Taken in the order of the list, with names that sort otherwise.
    for (minutes, name) in (1i64..).zip(names) {
        snapshot(&*store, &cx, &parent, name, minutes).await;
    }
    let found = list(&*store, &cx, &parent).await;
    assert!(found.iter().all(|snapshot| snapshot.dataset == parent.dataset));
    let found: Vec<_> = found.iter().map(|snapshot| snapshot.name.as_str()).collect();
    assert_eq!(found, names);
    assert!(list(&*store, &cx, &absent).await.is_empty());
    let all = worked(store.list(&cx, &[child, absent, parent]).await);
    assert_eq!(all.len(), 1 + names.len());
}

/// S7: guids tell snapshots apart.
pub async fn s07_a_guid_is_never_given_twice(lab: &impl StoreLab) {
    let (store, cx) = (lab.store(), context("s07"));
    let (one, two) = (lab.absent("one"), lab.absent("two"));
    lab.make(&one);
    lab.make(&two);
    let mut seen: BTreeSet<Guid> = BTreeSet::new();
    for round in 0..4 {
        for target in [&one, &two] {
            let made = snapshot(&*store, &cx, target, "same", round).await;
            assert!(seen.insert(made.guid), "{} was given before", made.guid);
            assert_eq!(list(&*store, &cx, target).await, vec![made.clone()]);
            let pruned = worked(store.prune(&cx, &[made.reference()]).await);
            assert!(pruned.len() == 1 && pruned[0].kept.is_none(), "{pruned:?}");
        }
    }
}

fn tag(name: &str) -> HoldTag {
    HoldTag::new(name).expect("a tag")
}

/// S8: held is kept.
pub async fn s08_a_held_snapshot_stays(lab: &impl StoreLab) {
    let (store, cx) = (lab.store(), context("s08"));
    let target = lab.absent("held");
    lab.make(&target);
    let made = snapshot(&*store, &cx, &target, "one", 1).await;
    let reference = [made.reference()];
    if !store.caps().holds {
        for change in [HoldChange::Add, HoldChange::Release] {
            refused(
                store.hold(&cx, &reference, &tag("t"), change).await,
                &[StoreKind::Unsupported],
            );
        }
        return;
    }
    worked(store.hold(&cx, &reference, &tag("t"), HoldChange::Add).await);
    worked(store.hold(&cx, &reference, &tag("t"), HoldChange::Add).await);
    let pruned = worked(store.prune(&cx, &reference).await);
    let kept = pruned[0].kept.as_ref().expect("a held snapshot is kept");
    assert_eq!(kept.kind, "held");
    assert_eq!(list(&*store, &cx, &target).await[0].holds, [tag("t")]);
    let mut other = made.reference();
    other.guid = Guid(other.guid.0 ^ 1);
    refused(
        store
            .hold(&cx, &[made.reference(), other], &tag("u"), HoldChange::Add)
            .await,
        &[StoreKind::NotFound],
    );
    assert_eq!(list(&*store, &cx, &target).await[0].holds, [tag("t")]);
    worked(store.hold(&cx, &reference, &tag("t"), HoldChange::Release).await);
    worked(store.hold(&cx, &reference, &tag("t"), HoldChange::Release).await);
    assert!(worked(store.prune(&cx, &reference).await)[0].kept.is_none());
    assert!(list(&*store, &cx, &target).await.is_empty());
}

/// S8: two tags.
pub async fn s08_each_tag_keeps_on_its_own(lab: &impl StoreLab) {
    let (store, cx) = (lab.store(), context("s08b"));
    if !store.caps().holds {
        return s08_a_held_snapshot_stays(lab).await;
    }
    let target = lab.absent("held");
    lab.make(&target);
    let made = [snapshot(&*store, &cx, &target, "one", 1).await.reference()];
    worked(store.hold(&cx, &made, &tag("b"), HoldChange::Add).await);
    worked(store.hold(&cx, &made, &tag("a"), HoldChange::Add).await);
    assert_eq!(list(&*store, &cx, &target).await[0].holds, [tag("a"), tag("b")]);
    worked(store.hold(&cx, &made, &tag("b"), HoldChange::Release).await);
    assert!(worked(store.prune(&cx, &made).await)[0].kept.is_some());
    worked(store.hold(&cx, &made, &tag("a"), HoldChange::Release).await);
    assert!(worked(store.prune(&cx, &made).await)[0].kept.is_none());
}

/// S9: by name and guid, and nothing in its place.
pub async fn s09_prune_removes_exactly_what_it_names(lab: &impl StoreLab) {
    let (store, cx) = (lab.store(), context("s09"));
    let target = lab.absent("pruned");
    lab.make(&target);
    lab.files().write(&target.mountpoint.join("f"), b"one");
    let one = snapshot(&*store, &cx, &target, "one", 1).await;
    let replaced = snapshot(&*store, &cx, &target, "two", 2).await;
    let three = snapshot(&*store, &cx, &target, "three", 3).await;
    worked(store.prune(&cx, &[replaced.reference()]).await);
    let two = snapshot(&*store, &cx, &target, "two", 4).await;
    let wanted = [replaced.reference(), one.reference()];
    let pruned = worked(store.prune(&cx, &wanted).await);
    assert_eq!(pruned.len(), 2);
    assert_eq!(
        (&pruned[0].snapshot, &pruned[1].snapshot),
        (&wanted[0], &wanted[1])
    );
    assert!(pruned[0].kept.is_some(), "one whose guid differs is reported");
    assert!(pruned[1].kept.is_none());
    assert_eq!(
        list(&*store, &cx, &target).await,
        vec![three.clone(), two.clone()]
    );
    let again = worked(store.prune(&cx, &[one.reference()]).await);
    assert!(again[0].kept.is_some(), "one that is gone is reported");
    let before = lab.files().list(&target.mountpoint);
    let content_three = content(lab, &*store, &cx, &target, &three.reference()).await;
    assert_same(&before, &content_three, "a neighbour of what was pruned");
    assert_eq!(list(&*store, &cx, &target).await, vec![three, two]);
}
