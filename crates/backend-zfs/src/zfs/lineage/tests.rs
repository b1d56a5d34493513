use super::super::argv::tests::{ds, snap};
use super::*;

fn mark(name: &str, guid: u64, txg: u64, written: u64) -> Mark {
    Mark {
        name: snap(name),
        guid: Guid(guid),
        createtxg: txg,
        written,
        taken_at: Timestamp::UNIX_EPOCH,
        own: Own::default(),
        userrefs: 0,
    }
}

fn lineage(snapshots: &[Mark]) -> Lineage {
    Lineage {
        dataset: Some(Guid(99)),
        snapshots: snapshots.to_vec(),
        ..Lineage::default()
    }
}

fn planned(here: &Lineage, there: &Lineage) -> Option<ReplicationStep> {
    let target = Target {
        dataset: ds("tank/a"),
        mountpoint: "/a".into(),
    };
    step(&target, &ds("back/tank/a"), here, there, true).unwrap()
}

fn names_of(step: &ReplicationStep) -> Vec<&str> {
    step.send.iter().map(|one| one.name.as_str()).collect()
}

#[test]
fn what_is_newer_than_the_base_is_sent() {
    let here = lineage(&[mark("a", 1, 10, 5), mark("b", 2, 20, 6), mark("c", 3, 30, 7)]);
    let full = planned(&here, &Lineage::default()).unwrap();
    assert_eq!(
        (names_of(&full), full.base.is_none(), full.bytes),
        (vec!["a", "b", "c"], true, Some(18))
    );
    let next = planned(&here, &lineage(&[mark("a", 1, 7, 5), mark("b", 2, 8, 6)])).unwrap();
    assert_eq!(
        (names_of(&next), next.base.clone().unwrap().name),
        (vec!["c"], snap("b"))
    );
    assert_eq!(planned(&here, &here), None);
    assert_eq!(planned(&lineage(&[]), &here), None);
    assert_eq!(planned(&Lineage::default(), &Lineage::default()), None);
}

#[test]
fn a_bookmark_stands_for_a_snapshot_that_is_gone() {
    let mut here = lineage(&[mark("c", 3, 30, 7)]);
    let there = lineage(&[mark("a", 1, 7, 5), mark("b", 2, 8, 6)]);
    assert!(planned(&here, &there).unwrap().set_aside.is_some());
    here.bookmarks = vec![mark("reseed:second:2", 2, 20, 0)];
    let next = planned(&here, &there).unwrap();
    // Since a bookmark nobody counts what was written.
    assert_eq!(
        (next.base.unwrap().name, next.set_aside, next.bytes),
        (snap("reseed:second:2"), None, None)
    );
}

#[test]
fn only_what_can_not_be_continued_is_set_aside() {
    let here = lineage(&[mark("a", 1, 10, 5), mark("b", 2, 20, 6)]);
    let set_aside = |there: &Lineage| {
        planned(&here, there).and_then(|step| step.set_aside.map(|d| (d.newest, step.base)))
    };
    // Newer ones of its own without data are no conflict, with data they are.
    assert_eq!(
        set_aside(&lineage(&[mark("a", 1, 7, 5), mark("own", 8, 8, 0)])),
        None
    );
    assert_eq!(
        set_aside(&lineage(&[mark("a", 1, 7, 5), mark("own", 8, 8, 1)])),
        Some((Guid(8), None))
    );
    // The name that is to be sent is another snapshot's.
    assert_eq!(
        set_aside(&lineage(&[mark("a", 1, 7, 5), mark("b", 8, 8, 0)])),
        Some((Guid(8), None))
    );
    assert_eq!(set_aside(&lineage(&[mark("x", 7, 7, 5)])), Some((Guid(7), None)));
    // A dataset that somebody made there.
    assert_eq!(set_aside(&lineage(&[])), Some((Guid(99), None)));
    let mut written = lineage(&[mark("a", 1, 7, 5)]);
    written.written = 1;
    assert_eq!(set_aside(&written), Some((Guid(1), None)));
    // A stream that was cut off is not a divergence; what was written beside it is, and it can't be completed then.
    let mut begun = lineage(&[]);
    begun.resume_token = Some("1-x".to_owned());
    assert_eq!(set_aside(&begun), None);
    let mut cut = lineage(&[mark("a", 1, 7, 5)]);
    cut.resume_token = Some("1-x".to_owned());
    assert_eq!(set_aside(&cut), None);
    cut.written = 1;
    assert_eq!(set_aside(&cut), Some((Guid(1), None)));
}

#[test]
fn what_is_encrypted_is_no_increment_of_what_is_in_clear_text() {
    let mut here = lineage(&[mark("a", 1, 10, 5), mark("b", 2, 20, 6)]);
    here.encrypted = true;
    let mut there = lineage(&[mark("a", 1, 7, 5)]);
    let step = planned(&here, &there).unwrap();
    assert!(step.set_aside.unwrap().why.contains("clear text"));
    assert_eq!((step.bytes, step.send.len(), step.base), (Some(11), 2, None));
    // Nothing is to be sent, it is sent in the clear, or it is encrypted there too.
    assert_eq!(planned(&here, &lineage(&here.snapshots)), None);
    assert_eq!(diverged(&here, &there, base(&here, &there).as_ref(), false), None);
    there.encrypted = true;
    assert_eq!(planned(&here, &there).unwrap().set_aside, None);
}

/// Its name can't be read, its data counts all the same.
#[test]
fn a_snapshot_with_an_odd_name_hides_no_divergence_and_makes_none() {
    let odd = |guid, createtxg, written| OddMark {
        guid: Guid(guid),
        createtxg,
        written,
    };
    let mut here = lineage(&[mark("a", 1, 10, 5), mark("b", 2, 20, 6)]);
    here.odd = vec![odd(5, 15, 3)];
    let is_set_aside = |odd: OddMark| {
        let mut there = lineage(&[mark("a", 1, 7, 5)]);
        there.odd = vec![odd];
        planned(&here, &there).unwrap().set_aside.is_some()
    };
    assert!(is_set_aside(odd(6, 8, 1)));
    // Without data, older than the base, and the store's own.
    for fine in [odd(6, 8, 0), odd(6, 6, 1), odd(5, 8, 3)] {
        assert!(!is_set_aside(fine), "{fine:?}");
    }
}

#[test]
fn what_is_below_keeps_a_replica_from_being_set_aside() {
    let here = lineage(&[mark("a", 1, 10, 5)]);
    let told = |there: &Lineage| {
        let step = planned(&here, there).unwrap();
        in_the_way(&step, &ds("back/tank/a"), there).map(|error| error.to_string())
    };
    let mut there = lineage(&[]);
    assert_eq!(told(&there), None, "a place with nothing below it is set aside");
    there.below = vec!["back/tank/a/b".to_owned()];
    assert!(told(&there).unwrap().contains("a place for back/tank/a/b"));
    there.snapshots = vec![mark("x", 7, 7, 5)];
    assert!(told(&there).unwrap().contains("would take back/tank/a/b along"));
    // One that is continued may have anything below it.
    let here = lineage(&[mark("a", 1, 10, 5), mark("b", 2, 20, 6)]);
    there.snapshots = vec![mark("a", 1, 7, 5)];
    let step = planned(&here, &there).unwrap();
    assert_eq!(in_the_way(&step, &ds("back/tank/a"), &there).map(drop), None);
}

#[test]
fn a_replica_is_as_new_as_what_came_from_the_store() {
    let at = |mut one: Mark, second, is_ours: bool| {
        one.taken_at = Timestamp::from_second(second).unwrap();
        one.own.taken = is_ours.then(|| one.taken_at.to_string());
        one
    };
    let second = |here: &Lineage, there: &Lineage| newest(here, there).map(Timestamp::as_second);
    let here = lineage(&[mark("a", 1, 10, 5)]);
    let (sent, later) = (
        at(mark("a", 1, 7, 5), 100, true),
        at(mark("own", 9, 8, 0), 900, false),
    );
    let there = lineage(&[sent, later.clone()]);
    assert_eq!(second(&here, &there), Some(100));
    // Without a base, what says that it is ours; else the newest of all.
    assert_eq!(second(&Lineage::default(), &there), Some(100));
    assert_eq!(second(&Lineage::default(), &lineage(&[later])), Some(900));
    assert_eq!(second(&here, &Lineage::default()), None);
}
