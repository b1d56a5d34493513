//! The suite of [`OffsiteRepo`]: clauses O1 to O12. That what was stored comes back is the suite of sources.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;

use reseed_core::error::{Effect, OffsiteKind};
use reseed_core::names::PointId;
use reseed_core::offsite::{BackupOutcome, BackupReport, BackupRequest, CheckDepth, CheckReport};
use reseed_core::point::Target;
use reseed_core::{Context, OffsiteRepo};

use super::{cancelled_after, context, failed, minute, refused, snapshot_name, suite, worked};
use crate::files::{Files, write_odd_tree};

/// What the suite needs of an off-site backend. Each lab has one place for a repository, in which nothing is at first.
pub trait OffsiteLab: Send + Sync {
    /// The repository at the lab's place, opened with the right password. Nobody has made it yet.
    fn repo(&self) -> Arc<dyn OffsiteRepo>;
    /// The same with a wrong password.
    fn repo_with_wrong_password(&self) -> Arc<dyn OffsiteRepo>;
    /// How trees are written.
    fn files(&self) -> &dyn Files;
    /// A directory of the suite's own.
    fn scratch(&self) -> PathBuf;
    /// A target.
    fn target(&self, name: &str) -> Target;
    /// Every object at the lab's place but locks, by name, with its size.
    fn objects(&self) -> BTreeMap<String, u64>;
    /// Puts something that is no repository there.
    fn put_something_else(&self);
    /// Makes the repository one of a format that is newer than anybody knows.
    fn make_newer(&self);
    /// Takes the place away, or brings it back.
    fn set_reachable(&self, reachable: bool);
    /// Puts an exclusive lock there that another program on another host holds now. Answers a part of the holder's name
    /// that the error must tell.
    fn lock_exclusively(&self) -> String;
    /// Puts a lock there that is dead by restic's rules.
    fn leave_dead_lock(&self);
    /// Takes away what `lock_exclusively` put there.
    fn unlock(&self);
    /// Locks there now.
    fn locks(&self) -> usize;
    /// Damages what is stored there; called after backups.
    fn damage(&self, damage: Damage);
    /// Makes a file unreadable for backups; false where the suite runs as somebody who can read everything.
    fn make_unreadable(&self, path: &Path) -> bool;
    /// What went wrong besides: asserted to be nothing when a test ends.
    fn violations(&self) -> Vec<String> {
        Vec::new()
    }
}

/// How stored data is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// A bit of a data object is flipped.
    Flip,
    /// A data object is gone.
    Missing,
}

suite! { $ conformance_offsite, offsite, OffsiteLab:
    o01_init_makes_a_repository_where_nothing_is
    o01_init_refuses_where_something_is
    o02_the_ways_of_not_opening_are_told_apart
    o03_a_backup_with_unreadable_files_is_partial
    o03_a_source_that_is_not_there_makes_no_snapshot
    o04_an_unchanged_tree_adds_nothing
    o04_a_copy_adds_no_content
    o05_what_was_recorded_comes_back
    o06_points_lists_everything_newest_first
    o07_a_backup_holds_a_lock_while_it_runs
    o07_an_exclusive_lock_is_honoured
    o08_nothing_is_deleted_but_dead_locks
    o09_check_finds_a_missing_object
    o09_check_finds_a_flipped_bit
    o09_what_is_removed_meanwhile_is_not_damage
    o10_cancelled_means_ended
    o11_the_size_is_what_is_stored
    o12_record_adds_a_point_of_the_same_tree
    o12_what_cannot_be_recorded_is_not
}

pub(super) fn request(target: &Target, path: &Path, id: &str, minutes: i64) -> BackupRequest {
    BackupRequest {
        target: target.clone(),
        path: path.to_owned(),
        as_path: target.mountpoint.clone(),
        host: "host-a".to_owned(),
        point: PointId::new(id).expect("an id"),
        snapshot: Some(snapshot_name(&format!("snap-{id}"))),
        taken_at: minute(minutes),
        fingerprint: None,
        unseeded: false,
    }
}

/// A repository that is there.
pub(super) async fn ready(lab: &impl OffsiteLab, cx: &Context) -> Arc<dyn OffsiteRepo> {
    let repo = lab.repo();
    worked(repo.init(cx).await);
    repo
}

pub(super) async fn back_up(repo: &dyn OffsiteRepo, cx: &Context, request: &BackupRequest) -> BackupReport {
    let report = worked(repo.backup(cx, request).await);
    assert_eq!(report.outcome, BackupOutcome::Complete);
    report
}

/// Bytes of [`noise`].
pub(super) const NOISE: u64 = 64 << 10;

/// What doesn't compress, so that "adds nothing" can be told from "adds little"; another for each seed.
pub(super) fn noise(seed: u64) -> Vec<u8> {
    let mut noise = Vec::new();
    for counter in 0..NOISE / 32 {
        let number = seed.wrapping_mul(NOISE).wrapping_add(counter);
        noise.extend_from_slice(blake3::hash(&number.to_le_bytes()).as_bytes());
    }
    noise
}

fn odd_tree(lab: &impl OffsiteLab, name: &str) -> PathBuf {
    let tree = lab.scratch().join(name);
    write_odd_tree(lab.files(), &tree);
    lab.files().write(&tree.join("noise"), &noise(0));
    tree
}

/// Everything that was there is there, as it was.
#[track_caller]
fn all_kept(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) {
    for (name, size) in before {
        assert_eq!(after.get(name), Some(size), "{name} was removed or changed");
    }
}

pub(super) fn no_violations(lab: &impl OffsiteLab) {
    assert_eq!(lab.violations(), Vec::<String>::new());
    assert_eq!(lab.locks(), 0, "a lock was left behind");
}

/// O1: made, and then opened as the same.
pub async fn o01_init_makes_a_repository_where_nothing_is(lab: &impl OffsiteLab) {
    let (repo, cx) = (lab.repo(), context("o01"));
    if !repo.caps().init {
        refused(repo.init(&cx).await, &[OffsiteKind::Unsupported]);
        assert!(lab.objects().is_empty());
        return;
    }
    let made = worked(repo.init(&cx).await);
    assert!(!made.id.is_empty() && made.version >= 1);
    assert_eq!(worked(repo.open(&cx).await), made);
    assert!(worked(repo.points(&cx, None).await).is_empty());
    no_violations(lab);
}

/// O1: onto nothing only.
pub async fn o01_init_refuses_where_something_is(lab: &impl OffsiteLab) {
    let (repo, cx) = (lab.repo(), context("o01b"));
    let kinds = [OffsiteKind::AlreadyExists, OffsiteKind::InvalidInput];
    worked(repo.init(&cx).await);
    let before = lab.objects();
    refused(repo.init(&cx).await, &kinds);
    refused(lab.repo_with_wrong_password().init(&cx).await, &kinds);
    assert_eq!(lab.objects(), before);
    lab.put_something_else();
    let before = lab.objects();
    refused(repo.init(&cx).await, &kinds);
    assert_eq!(lab.objects(), before);
}

/// O2: by kind, in every call; and none of them looks empty.
pub async fn o02_the_ways_of_not_opening_are_told_apart(lab: &impl OffsiteLab) {
    let (repo, cx) = (lab.repo(), context("o02"));
    let (target, tree) = (lab.target("t"), odd_tree(lab, "odd"));
    let wanted = request(&target, &tree, "p1", 1);
    let check = async |repo: &dyn OffsiteRepo, kinds: &[OffsiteKind]| {
        refused(repo.open(&cx).await, kinds);
        refused(repo.points(&cx, None).await, kinds);
        refused(repo.points(&cx, Some(&target)).await, kinds);
        refused(repo.backup(&cx, &wanted).await, kinds);
        refused(repo.check(&cx, CheckDepth::Structure).await, kinds);
    };
    check(&*repo, &[OffsiteKind::NoRepository]).await;
    worked(repo.init(&cx).await);
    back_up(&*repo, &cx, &wanted).await;
    let before = lab.objects();
    check(&*lab.repo_with_wrong_password(), &[OffsiteKind::WrongPassword]).await;
    lab.set_reachable(false);
    check(
        &*repo,
        &[
            OffsiteKind::Unreachable,
            OffsiteKind::Io,
            OffsiteKind::PermissionDenied,
        ],
    )
    .await;
    lab.set_reachable(true);
    assert_eq!(worked(repo.points(&cx, None).await).len(), 1);
    assert_eq!(lab.objects(), before);
    lab.make_newer();
    check(&*repo, &[OffsiteKind::UnsupportedVersion]).await;
    lab.put_something_else();
    check(&*repo, &[OffsiteKind::InvalidInput, OffsiteKind::Corrupt]).await;
}

/// O3: partial is said, with names, and kept with the point.
pub async fn o03_a_backup_with_unreadable_files_is_partial(lab: &impl OffsiteLab) {
    let cx = context("o03");
    let (repo, target, tree) = (ready(lab, &cx).await, lab.target("t"), odd_tree(lab, "odd"));
    let complete = back_up(&*repo, &cx, &request(&target, &tree, "p1", 1)).await;
    assert!(complete.files > 5 && complete.bytes > 9000 && !complete.snapshot_id.is_empty());
    if !lab.make_unreadable(&tree.join("private")) {
        return no_violations(lab);
    }
    let report = worked(repo.backup(&cx, &request(&target, &tree, "p2", 2)).await);
    let BackupOutcome::Partial { unreadable, examples } = report.outcome else {
        panic!("an unreadable file is no complete backup");
    };
    assert!(unreadable >= 1);
    assert!(
        examples.iter().any(|example| example.contains("private")),
        "{examples:?}"
    );
    let points = worked(repo.points(&cx, Some(&target)).await);
    let partial: Vec<_> = points.iter().map(|p| (p.id.as_str(), p.partial)).collect();
    assert_eq!(partial, [("p2", true), ("p1", false)]);
    no_violations(lab);
}

/// O3: nothing to read is no empty backup.
pub async fn o03_a_source_that_is_not_there_makes_no_snapshot(lab: &impl OffsiteLab) {
    let cx = context("o03b");
    let (repo, target) = (ready(lab, &cx).await, lab.target("t"));
    let missing = lab.scratch().join("missing");
    refused(
        repo.backup(&cx, &request(&target, &missing, "p1", 1)).await,
        &[OffsiteKind::NotFound],
    );
    assert!(worked(repo.points(&cx, None).await).is_empty());
    no_violations(lab);
}

/// O4: from the same path, and from another.
pub async fn o04_an_unchanged_tree_adds_nothing(lab: &impl OffsiteLab) {
    let cx = context("o04");
    let (repo, target, tree) = (ready(lab, &cx).await, lab.target("t"), odd_tree(lab, "odd"));
    let first = back_up(&*repo, &cx, &request(&target, &tree, "p1", 1)).await;
    assert!(first.added > NOISE, "{first:?}");
    let second = back_up(&*repo, &cx, &request(&target, &tree, "p2", 2)).await;
    let moved = lab.scratch().join("moved/elsewhere");
    lab.files().rename(&tree, &moved);
    let third = back_up(&*repo, &cx, &request(&target, &moved, "p3", 3)).await;
    for again in [second, third] {
        assert_eq!(
            (again.added, again.files, again.bytes),
            (0, first.files, first.bytes)
        );
    }
    no_violations(lab);
}

/// O4: other inodes and times are recorded anew, and nothing else; also when little of the copy is new.
pub async fn o04_a_copy_adds_no_content(lab: &impl OffsiteLab) {
    let cx = context("o04b");
    let (repo, target, tree) = (ready(lab, &cx).await, lab.target("t"), odd_tree(lab, "odd"));
    let first = back_up(&*repo, &cx, &request(&target, &tree, "p1", 1)).await;
    let copy = lab.scratch().join("elsewhere/copy");
    lab.files().copy(&tree, &copy);
    let entries = lab.files().list(&copy).len();
    let about_entries = 512 * u64::try_from(entries).expect("a number of entries");
    assert!(
        about_entries < NOISE / 4,
        "the bound must be far below the content"
    );
    let second = back_up(&*repo, &cx, &request(&target, &copy, "p2", 2)).await;
    assert!(second.added <= about_entries, "{second:?} of {first:?} again");
    assert_eq!((second.files, second.bytes), (first.files, first.bytes));
    lab.files().write(&copy.join("noise2"), b"something new");
    let third = back_up(&*repo, &cx, &request(&target, &copy, "p3", 3)).await;
    assert!(
        third.added > 0 && third.added <= about_entries + 512,
        "{third:?} of {first:?} again"
    );
    no_violations(lab);
}

/// O5: the request's facts.
pub async fn o05_what_was_recorded_comes_back(lab: &impl OffsiteLab) {
    let cx = context("o05");
    let (repo, target, tree) = (ready(lab, &cx).await, lab.target("t"), odd_tree(lab, "odd"));
    let mut wanted = request(&target, &tree, "18446744073709551615", 7);
    wanted.fingerprint = Some(reseed_core::point::Fingerprint {
        digest: reseed_core::digest::TreeDigest::from_bytes([0xa5; 32]),
        files: 12,
        bytes: u64::MAX,
    });
    wanted.unseeded = true;
    let report = back_up(&*repo, &cx, &wanted).await;
    let plain = request(&target, &tree, "plain", 8);
    back_up(&*repo, &cx, &plain).await;
    let points = worked(repo.points(&cx, Some(&target)).await);
    assert_eq!(points.len(), 2);
    for (point, wanted) in points.iter().zip([&plain, &wanted]) {
        assert_eq!(point.id, wanted.point);
        assert_eq!(point.dataset, target.dataset);
        assert_eq!(&point.source, repo.name());
        assert_eq!(point.taken_at, wanted.taken_at);
        assert_eq!(point.snapshot, wanted.snapshot);
        assert_eq!(point.fingerprint, wanted.fingerprint);
        assert_eq!((point.unseeded, point.partial), (wanted.unseeded, false));
    }
    assert!(
        points[1].locator.contains(&report.snapshot_id) || report.snapshot_id.contains(&points[1].locator)
    );
    no_violations(lab);
}

/// O6: of one target, or of all.
pub async fn o06_points_lists_everything_newest_first(lab: &impl OffsiteLab) {
    let cx = context("o06");
    let (repo, tree) = (ready(lab, &cx).await, odd_tree(lab, "odd"));
    let (one, two) = (lab.target("one"), lab.target("two"));
    for (target, id, minutes) in [
        (&one, "a", 5),
        (&two, "b", 9),
        (&one, "c", 1),
        (&one, "d", 7),
        (&two, "e", 3),
    ] {
        back_up(&*repo, &cx, &request(target, &tree, id, minutes)).await;
    }
    let ids = async |target: Option<&Target>| {
        let points = worked(repo.points(&cx, target).await);
        points
            .iter()
            .map(|point| point.id.as_str().to_owned())
            .collect::<String>()
    };
    assert_eq!(ids(None).await, "bdaec");
    assert_eq!(ids(Some(&one)).await, "dac");
    assert_eq!(ids(Some(&lab.target("three"))).await, "");
}

/// O7: a prune elsewhere would see it.
pub async fn o07_a_backup_holds_a_lock_while_it_runs(lab: &impl OffsiteLab) {
    let cx = context("o07");
    let (repo, target, tree) = (ready(lab, &cx).await, lab.target("t"), odd_tree(lab, "odd"));
    let mut seen = 0;
    // A machine with much to do may not look in time.
    for (minutes, id) in [(1, "p1"), (2, "p2"), (3, "p3")] {
        let wanted = request(&target, &tree, id, minutes);
        let mut call = pin!(repo.backup(&cx, &wanted));
        let report = std::future::poll_fn(|task| {
            let poll = call.as_mut().poll(task);
            if poll.is_pending() {
                seen = seen.max(lab.locks());
                task.waker().wake_by_ref();
            }
            poll
        })
        .await;
        worked(report);
        if seen > 0 {
            break;
        }
    }
    assert!(seen > 0, "nobody could see that a backup runs");
    no_violations(lab);
}

/// O7: the other way round.
pub async fn o07_an_exclusive_lock_is_honoured(lab: &impl OffsiteLab) {
    let cx = context("o07b");
    let (repo, target, tree) = (ready(lab, &cx).await, lab.target("t"), odd_tree(lab, "odd"));
    let holder = lab.lock_exclusively();
    let error = refused(
        repo.backup(&cx, &request(&target, &tree, "p1", 1)).await,
        &[OffsiteKind::Locked],
    );
    let told = format!("{error} {}", error.what_to_do().unwrap_or_default());
    assert!(told.contains(&holder), "{told:?} doesn't name {holder:?}");
    assert_eq!(lab.locks(), 1, "the other's lock, and none of ours");
    lab.unlock();
    assert!(worked(repo.points(&cx, None).await).is_empty());
    back_up(&*repo, &cx, &request(&target, &tree, "p1", 1)).await;
    no_violations(lab);
}

/// O8: whatever is done, also what fails.
pub async fn o08_nothing_is_deleted_but_dead_locks(lab: &impl OffsiteLab) {
    let cx = context("o08");
    let (repo, target, tree) = (ready(lab, &cx).await, lab.target("t"), odd_tree(lab, "odd"));
    back_up(&*repo, &cx, &request(&target, &tree, "p1", 1)).await;
    let before = lab.objects();
    lab.leave_dead_lock();
    lab.files().remove(&tree.join("noise"));
    back_up(&*repo, &cx, &request(&target, &tree, "p2", 2)).await;
    all_kept(&before, &lab.objects());
    let before = lab.objects();
    for depth in [
        CheckDepth::Structure,
        CheckDepth::Part { n: 1, of: 2 },
        CheckDepth::Everything,
    ] {
        let report = worked(repo.check(&cx, depth).await);
        assert_eq!(report.errors, Vec::<String>::new(), "a sound repository");
    }
    let stop = context("o08");
    lab.files().write(&tree.join("new"), &[9u8; 50_000]);
    let _ = cancelled_after(&stop, 4, repo.backup(&stop, &request(&target, &tree, "p3", 3))).await;
    all_kept(&before, &lab.objects());
    no_violations(lab);
}

async fn damaged(lab: &impl OffsiteLab, damage: Damage, depth: CheckDepth) {
    let cx = context("o09");
    let (repo, target, tree) = (ready(lab, &cx).await, lab.target("t"), odd_tree(lab, "odd"));
    back_up(&*repo, &cx, &request(&target, &tree, "p1", 1)).await;
    let sound = worked(repo.check(&cx, depth).await);
    assert_eq!((sound.errors, sound.affected), (vec![], Some(vec![])));
    lab.damage(damage);
    match repo.check(&cx, depth).await {
        Ok(report) => {
            assert!(!report.errors.is_empty(), "{damage:?} was not found at {depth:?}");
            // What has any data has lost some of it.
            if let Some(affected) = report.affected {
                assert_eq!(
                    affected,
                    std::slice::from_ref(&target.dataset),
                    "{:?}",
                    report.errors
                );
            }
        }
        Err(error) => drop(failed::<(), _>(Err(error), &[OffsiteKind::Corrupt])),
    }
    assert_eq!(lab.locks(), 0, "a lock was left behind");
}

/// O9: at the cheapest depth.
pub async fn o09_check_finds_a_missing_object(lab: &impl OffsiteLab) {
    damaged(lab, Damage::Missing, CheckDepth::Structure).await;
}

/// O9: at the deepest.
pub async fn o09_check_finds_a_flipped_bit(lab: &impl OffsiteLab) {
    damaged(lab, Damage::Flip, CheckDepth::Everything).await;
}

/// O9: as long as another has the repository for itself, what is missing may be what it removes.
pub async fn o09_what_is_removed_meanwhile_is_not_damage(lab: &impl OffsiteLab) {
    let cx = context("o09b");
    let (repo, target, tree) = (ready(lab, &cx).await, lab.target("t"), odd_tree(lab, "odd"));
    back_up(&*repo, &cx, &request(&target, &tree, "p1", 1)).await;
    lab.lock_exclusively();
    lab.damage(Damage::Missing);
    let looked = repo.check(&cx, CheckDepth::Structure).await;
    failed::<CheckReport, _>(looked, &[OffsiteKind::Locked]);
    assert_eq!(lab.locks(), 1, "the other's lock, and none of ours");
    lab.unlock();
    match repo.check(&cx, CheckDepth::Structure).await {
        Ok(report) => assert!(!report.errors.is_empty(), "it is missing still"),
        Err(error) => drop(failed::<(), _>(Err(error), &[OffsiteKind::Corrupt])),
    }
}

/// O11: it grows by what is added and by nothing else, and who can't open it isn't told a size.
pub async fn o11_the_size_is_what_is_stored(lab: &impl OffsiteLab) {
    let cx = context("o11");
    refused(lab.repo().usage(&cx).await, &[OffsiteKind::NoRepository]);
    let (repo, target, tree) = (ready(lab, &cx).await, lab.target("t"), odd_tree(lab, "odd"));
    let empty = worked(repo.usage(&cx).await);
    back_up(&*repo, &cx, &request(&target, &tree, "p1", 1)).await;
    let one = worked(repo.usage(&cx).await);
    assert!(one.bytes >= empty.bytes + NOISE, "{empty:?} {one:?}");
    back_up(&*repo, &cx, &request(&target, &tree, "p2", 2)).await;
    let two = worked(repo.usage(&cx).await);
    assert!(
        (one.bytes..one.bytes + NOISE).contains(&two.bytes),
        "{one:?} {two:?}"
    );
    if let Some(objects) = two.objects {
        let there = lab.objects();
        assert_eq!((two.bytes, objects), (there.values().sum(), there.len() as u64));
    }
    refused(
        lab.repo_with_wrong_password().usage(&cx).await,
        &[OffsiteKind::WrongPassword],
    );
    lab.set_reachable(false);
    let kinds = [
        OffsiteKind::Unreachable,
        OffsiteKind::Io,
        OffsiteKind::PermissionDenied,
    ];
    refused(repo.usage(&cx).await, &kinds);
    lab.set_reachable(true);
    no_violations(lab);
}

/// O12: a point as any other, that adds no content; another one can be recorded of it in turn.
pub async fn o12_record_adds_a_point_of_the_same_tree(lab: &impl OffsiteLab) {
    let cx = context("o12");
    let (repo, target, tree) = (ready(lab, &cx).await, lab.target("t"), odd_tree(lab, "odd"));
    back_up(&*repo, &cx, &request(&target, &tree, "p1", 1)).await;
    let first = worked(repo.points(&cx, Some(&target)).await).remove(0);
    let before = lab.objects();
    let mut again = request(&target, Path::new(""), "p2", 2);
    again.unseeded = true;
    let recorded = repo.record(&cx, &again, &first, minute(1)).await;
    if !repo.caps().record {
        refused(recorded, &[OffsiteKind::Unsupported]);
        assert_eq!(lab.objects(), before);
        return;
    }
    let report = worked(recorded).expect("it was read in time");
    assert_eq!(report.outcome, BackupOutcome::Complete);
    all_kept(&before, &lab.objects());
    let second = worked(repo.points(&cx, Some(&target)).await).remove(0);
    assert!(second.locator.contains(&report.snapshot_id) || report.snapshot_id.contains(&second.locator));
    assert_eq!((&second.id, second.taken_at), (&again.point, minute(2)));
    assert_eq!((&second.snapshot, second.unseeded), (&again.snapshot, true));
    assert_eq!((&second.dataset, second.partial), (&target.dataset, false));
    assert_eq!(second.bytes, first.bytes);
    // Of the one that was recorded; the tree was read when the first was.
    let third = request(&target, Path::new(""), "p3", 3);
    assert_eq!(worked(repo.record(&cx, &third, &second, minute(2)).await), None);
    assert!(worked(repo.record(&cx, &third, &second, minute(1)).await).is_some());
    assert_eq!(worked(repo.points(&cx, None).await).len(), 3);
    let report = worked(repo.check(&cx, CheckDepth::Everything).await);
    assert_eq!(report.errors, Vec::<String>::new());
    // And a backup that reads goes on as always.
    let added = back_up(&*repo, &cx, &request(&target, &tree, "p4", 4))
        .await
        .added;
    assert!(added < NOISE, "{added} bytes were stored again");
    no_violations(lab);
}

/// O12: another host's or target's tree, a partial one, one that was read long ago, one that is gone; and nothing without the lock.
pub async fn o12_what_cannot_be_recorded_is_not(lab: &impl OffsiteLab) {
    let cx = context("o12b");
    let (repo, target, tree) = (ready(lab, &cx).await, lab.target("t"), odd_tree(lab, "odd"));
    if !repo.caps().record {
        return;
    }
    back_up(&*repo, &cx, &request(&target, &tree, "p1", 1)).await;
    let mut theirs = request(&target, &tree, "p2", 2);
    theirs.host = "host-b".to_owned();
    back_up(&*repo, &cx, &theirs).await;
    let points = worked(repo.points(&cx, None).await);
    let (theirs, own) = (&points[0], &points[1]);
    let before = lab.objects();
    let again = request(&target, Path::new(""), "p3", 3);
    let of_other = request(&lab.target("other"), Path::new(""), "p3", 3);
    assert_eq!(worked(repo.record(&cx, &again, theirs, minute(0)).await), None);
    assert_eq!(worked(repo.record(&cx, &again, own, minute(2)).await), None);
    assert_eq!(worked(repo.record(&cx, &of_other, own, minute(0)).await), None);
    let mut elsewhere = again.clone();
    elsewhere.as_path.push("moved");
    assert_eq!(worked(repo.record(&cx, &elsewhere, own, minute(0)).await), None);
    let gone = reseed_core::point::RecoveryPoint {
        locator: "0123456789abcdef".repeat(4),
        ..own.clone()
    };
    refused(
        repo.record(&cx, &again, &gone, minute(0)).await,
        &[OffsiteKind::NotFound],
    );
    let stop = context("o12b");
    stop.cancel.cancel();
    refused(
        repo.record(&stop, &again, own, minute(0)).await,
        &[OffsiteKind::Cancelled],
    );
    lab.lock_exclusively();
    refused(
        repo.record(&cx, &again, own, minute(0)).await,
        &[OffsiteKind::Locked],
    );
    lab.unlock();
    assert_eq!(lab.objects(), before);
    let mut complete = points.len();
    for polls in 1..6 {
        let stop = context("o12b");
        let call = repo.record(&stop, &again, own, minute(0));
        match cancelled_after(&stop, polls, call).await {
            Ok(recorded) => complete += usize::from(recorded.is_some()),
            Err(error) => drop(failed::<(), _>(Err(error), &[OffsiteKind::Cancelled])),
        }
        assert_eq!(lab.locks(), 0, "a cancelled call left its lock");
        let points = worked(repo.points(&cx, None).await);
        assert_eq!(points.len(), complete, "a cancelled call made a snapshot");
    }
    if lab.make_unreadable(&tree.join("noise")) {
        worked(repo.backup(&cx, &request(&target, &tree, "p4", 4)).await);
        let partial = worked(repo.points(&cx, Some(&target)).await).remove(0);
        assert!(partial.partial);
        let before = lab.objects();
        assert_eq!(worked(repo.record(&cx, &again, &partial, minute(0)).await), None);
        assert_eq!(lab.objects(), before);
    }
    no_violations(lab);
}

/// O10: before it begins, and at many moments.
pub async fn o10_cancelled_means_ended(lab: &impl OffsiteLab) {
    let cx = context("o10");
    let (repo, target, tree) = (ready(lab, &cx).await, lab.target("t"), odd_tree(lab, "odd"));
    let kinds = [OffsiteKind::Cancelled];
    let before = lab.objects();
    let stop = context("o10");
    stop.cancel.cancel();
    let wanted = request(&target, &tree, "p0", 0);
    refused(repo.backup(&stop, &wanted).await, &kinds);
    refused(repo.points(&stop, None).await, &kinds);
    refused(repo.check(&stop, CheckDepth::Everything).await, &kinds);
    refused(repo.open(&stop).await, &kinds);
    assert_eq!(lab.objects(), before);
    let mut complete = 0;
    for polls in 1..8 {
        let stop = context("o10");
        let wanted = request(&target, &tree, &format!("p{polls}"), 1);
        match cancelled_after(&stop, polls, repo.backup(&stop, &wanted)).await {
            Ok(_) => complete += 1,
            Err(error) => {
                let error = failed::<(), _>(Err(error), &kinds);
                assert_ne!(error.may_have(), Effect::Unknown);
            }
        }
        assert_eq!(lab.locks(), 0, "a cancelled backup left its lock");
        let points = worked(repo.points(&cx, None).await);
        assert_eq!(points.len(), complete, "a cancelled backup made a snapshot");
    }
    back_up(&*repo, &cx, &request(&target, &tree, "last", 9)).await;
    assert_eq!(worked(repo.points(&cx, None).await).len(), complete + 1);
    let report = worked(repo.check(&cx, CheckDepth::Everything).await);
    assert_eq!(report.errors, Vec::<String>::new());
    no_violations(lab);
}
