//! The suite of [`WalArchiver`]: clauses W1 to W7.

use std::path::PathBuf;
use std::sync::Arc;

use reseed_core::error::{Effect, WalKind};
use reseed_core::wal::{Archived, BackupStatus, Fetched, WalFile};
use reseed_core::{Context, WalArchiver};

use super::{cancelled_after, context, failed, refused, suite, worked};
use crate::files::Files;
use crate::world::wal_segment;

/// What the suite needs of an archiver's backend. Each lab has one archive, empty at first.
pub trait WalLab: Send + Sync {
    /// The archiver, the same each time.
    fn archiver(&self) -> Arc<dyn WalArchiver>;
    /// How segments are written and read.
    fn files(&self) -> &dyn Files;
    /// A directory of the suite's own.
    fn scratch(&self) -> PathBuf;
    /// The system identifier of the cluster that the archiver is for.
    fn system_id(&self) -> u64;
    /// What the archive has under a name, decompressed.
    fn stored(&self, file: &WalFile) -> Option<Vec<u8>>;
    /// Puts this into the archive under that name behind the archiver's back.
    fn spoil(&self, file: &WalFile, bytes: &[u8]);
    /// Puts a base backup into the archive that got this far. `id` is like `20261122T203300`.
    fn put_backup(&self, id: &str, status: BackupStatus);
    /// Takes the archive away, or brings it back.
    fn set_reachable(&self, reachable: bool);
}

suite! { $ conformance_wal, wal, WalLab:
    w01_success_means_that_the_store_has_it
    w02_archiving_again_is_fine_and_something_else_is_not
    w03_only_whole_segments_of_this_cluster
    w04_not_there_is_an_answer_and_not_knowing_is_an_error
    w05_what_is_delivered_is_whole
    w06_only_finished_backups_count
    w07_nothing_is_deleted
}

const ONE: &str = "000000010000000000000001";
const TWO: &str = "000000010000000000000002";

fn file(name: &str) -> WalFile {
    WalFile::new(name).expect("a name that PostgreSQL writes")
}

fn segment(lab: &impl WalLab, name: &str, fill: u8) -> Vec<u8> {
    wal_segment(
        &file(name),
        lab.system_id(),
        lab.archiver().caps().segment_size,
        fill,
    )
}

/// Writes the bytes to a file and archives it.
async fn archive(
    lab: &impl WalLab,
    cx: &Context,
    name: &str,
    bytes: &[u8],
) -> Result<Archived, reseed_core::error::WalError> {
    let path = lab.scratch().join("pg_wal").join(name);
    lab.files().write(&path, bytes);
    let result = lab.archiver().archive(cx, &file(name), &path).await;
    assert_eq!(
        lab.files().read(&path).as_deref(),
        Some(bytes),
        "archiving changed the file"
    );
    result
}

/// W1: stored when it says so.
pub async fn w01_success_means_that_the_store_has_it(lab: &impl WalLab) {
    let cx = context("w01");
    let label = format!("{ONE}.00000028.backup");
    let history: &[u8] = b"1\t0/2000000\tno recovery target specified\n";
    for (name, bytes) in [
        (ONE, segment(lab, ONE, 1)),
        (&label, b"START WAL LOCATION: 0/1000028".to_vec()),
        ("00000002.history", history.to_vec()),
    ] {
        assert_eq!(worked(archive(lab, &cx, name, &bytes).await), Archived::Stored);
        assert_eq!(lab.stored(&file(name)), Some(bytes), "{name}");
    }
    let two = segment(lab, TWO, 2);
    lab.set_reachable(false);
    archive(lab, &cx, TWO, &two)
        .await
        .expect_err("the store can't be reached");
    lab.set_reachable(true);
    assert_eq!(lab.stored(&file(TWO)), None);
    for polls in 1..6 {
        let stop = context("w01");
        let path = lab.scratch().join("pg_wal").join(TWO);
        let name = file(TWO);
        let call = lab.archiver();
        let result = cancelled_after(&stop, polls, call.archive(&stop, &name, &path)).await;
        if result.is_ok() {
            assert_eq!(lab.stored(&name), Some(two.clone()));
        }
        assert!(
            lab.stored(&name).is_none_or(|stored| stored == two),
            "half a segment is stored"
        );
    }
    worked(archive(lab, &cx, TWO, &two).await);
    let listed = worked(lab.archiver().list(&cx).await);
    assert_eq!(
        listed,
        [file(ONE), file(&label), file(TWO), file("00000002.history")]
    );
}

/// W2: the same, and something else.
pub async fn w02_archiving_again_is_fine_and_something_else_is_not(lab: &impl WalLab) {
    let cx = context("w02");
    let (first, other) = (segment(lab, ONE, 1), segment(lab, ONE, 2));
    worked(archive(lab, &cx, ONE, &first).await);
    assert_eq!(
        worked(archive(lab, &cx, ONE, &first).await),
        Archived::AlreadyThere
    );
    refused(archive(lab, &cx, ONE, &other).await, &[WalKind::DifferentContent]);
    assert_eq!(lab.stored(&file(ONE)), Some(first));
    worked(archive(lab, &cx, "00000002.history", b"one").await);
    refused(
        archive(lab, &cx, "00000002.history", b"two").await,
        &[WalKind::DifferentContent],
    );
    assert_eq!(
        lab.stored(&file("00000002.history")).as_deref(),
        Some(&b"one"[..])
    );
}

/// W3: length, cluster, position.
pub async fn w03_only_whole_segments_of_this_cluster(lab: &impl WalLab) {
    let cx = context("w03");
    let good = segment(lab, ONE, 1);
    let size = lab.archiver().caps().segment_size;
    let stranger = wal_segment(&file(ONE), lab.system_id() ^ 1, size, 1);
    let mut long = good.clone();
    long.push(0);
    let wrong: [(&str, &[u8]); 6] = [
        ("empty", &[]),
        ("1,000 bytes", &good[..1000]),
        ("a byte short", &good[..good.len() - 1]),
        ("a byte long", &long),
        ("another cluster", &stranger),
        ("another position", &segment(lab, TWO, 1)),
    ];
    for (what, bytes) in wrong {
        let error = refused(archive(lab, &cx, ONE, bytes).await, &[WalKind::WrongSegment]);
        assert_eq!(lab.stored(&file(ONE)), None, "{what}: {error}");
    }
    let path = lab.scratch().join("missing");
    refused(
        lab.archiver().archive(&cx, &file(ONE), &path).await,
        &[WalKind::NotFound],
    );
    worked(archive(lab, &cx, ONE, &good).await);
}

/// W4: PostgreSQL promotes on "not found".
pub async fn w04_not_there_is_an_answer_and_not_knowing_is_an_error(lab: &impl WalLab) {
    let cx = context("w04");
    let to = lab.scratch().join("RECOVERYXLOG");
    let archiver = lab.archiver();
    worked(archive(lab, &cx, ONE, &segment(lab, ONE, 1)).await);
    for name in [TWO, "00000002.history"] {
        assert_eq!(
            worked(archiver.fetch(&cx, &file(name), &to).await),
            Fetched::NotFound
        );
        assert!(!lab.files().exists(&to));
    }
    // A name that begins like another is another.
    let partial = file(&format!("{ONE}.partial"));
    assert_eq!(
        worked(archiver.fetch(&cx, &partial, &to).await),
        Fetched::NotFound
    );
    lab.set_reachable(false);
    for name in [ONE, TWO, "00000002.history"] {
        let error = archiver
            .fetch(&cx, &file(name), &to)
            .await
            .expect_err("it can't know");
        assert_eq!(error.may_have(), Effect::None, "{error}");
        assert!(!lab.files().exists(&to));
    }
    archiver.list(&cx).await.expect_err("it can't know");
    archiver.backups(&cx).await.expect_err("it can't know");
    lab.set_reachable(true);
    let found = worked(archiver.fetch(&cx, &file(ONE), &to).await);
    assert_eq!(found, Fetched::Delivered(to.clone()));
}

/// W5: what the archive holds may be wrong, or the fetch be cut short.
pub async fn w05_what_is_delivered_is_whole(lab: &impl WalLab) {
    let cx = context("w05");
    let (archiver, to) = (lab.archiver(), lab.scratch().join("RECOVERYXLOG"));
    let good = segment(lab, ONE, 1);
    let size = archiver.caps().segment_size;
    let other_cluster = wal_segment(&file(ONE), lab.system_id() ^ 1, size, 1);
    for wrong in [&good[..good.len() / 2], &segment(lab, TWO, 1), &other_cluster] {
        lab.spoil(&file(ONE), wrong);
        let error = archiver.fetch(&cx, &file(ONE), &to).await;
        failed(error, &[WalKind::WrongSegment, WalKind::Corrupt]);
        assert!(!lab.files().exists(&to), "a wrong segment was delivered");
    }
    lab.spoil(&file(ONE), &good);
    for polls in 1..8 {
        let stop = context("w05");
        let name = file(ONE);
        let result = cancelled_after(&stop, polls, archiver.fetch(&stop, &name, &to)).await;
        if let Err(error) = result {
            failed::<(), _>(Err(error), &[WalKind::Cancelled]);
        }
        if let Some(found) = lab.files().read(&to) {
            assert!(found == good, "half a segment was delivered");
            lab.files().remove(&to);
        }
    }
    worked(archiver.fetch(&cx, &file(ONE), &to).await);
    assert!(lab.files().read(&to).as_ref() == Some(&good));
    let beside = lab.files().list(&lab.scratch());
    let left: Vec<_> = beside
        .keys()
        .filter(|path| path.to_string_lossy().contains("tmp"))
        .collect();
    assert_eq!(left, Vec::<&PathBuf>::new(), "temporary files were left");
}

/// W6: the newest is not the one to take.
pub async fn w06_only_finished_backups_count(lab: &impl WalLab) {
    let (cx, archiver) = (context("w06"), lab.archiver());
    assert!(worked(archiver.backups(&cx).await).is_empty());
    lab.put_backup("20261120T010000", BackupStatus::Done);
    lab.put_backup("20261122T010000", BackupStatus::Failed);
    lab.put_backup("20261121T010000", BackupStatus::Started);
    let found = worked(archiver.backups(&cx).await);
    let found: Vec<_> = found
        .iter()
        .map(|backup| (backup.id.as_str(), backup.status))
        .collect();
    let expected = [
        ("20261120T010000", BackupStatus::Done),
        ("20261121T010000", BackupStatus::Started),
        ("20261122T010000", BackupStatus::Failed),
    ];
    assert_eq!(found, expected);
    let data = lab.scratch().join("data");
    lab.files().write(&data.join("PG_VERSION"), b"15\n");
    let taken = archiver.base_backup(&cx, &data).await;
    if !archiver.caps().base_backup {
        refused(taken, &[WalKind::Unsupported]);
        return;
    }
    let taken = worked(taken);
    assert_eq!(taken.status, BackupStatus::Done);
    assert!(taken.ended.is_some());
    let found = worked(archiver.backups(&cx).await);
    assert!(found.contains(&taken) && found.len() == 4);
}

/// W7: whatever is done, also what fails.
pub async fn w07_nothing_is_deleted(lab: &impl WalLab) {
    let (cx, archiver) = (context("w07"), lab.archiver());
    let mut names = Vec::new();
    for number in 1..4 {
        let name = format!("0000000100000000{number:08X}");
        worked(archive(lab, &cx, &name, &segment(lab, &name, 1)).await);
        names.push(name);
    }
    let to = lab.scratch().join("RECOVERYXLOG");
    for name in &names {
        worked(archiver.fetch(&cx, &file(name), &to).await);
        let _ = archive(lab, &cx, name, &segment(lab, name, 2)).await;
        let _ = archive(lab, &cx, name, b"short").await;
        assert_eq!(lab.stored(&file(name)), Some(segment(lab, name, 1)));
    }
    let listed = worked(archiver.list(&cx).await);
    let listed: Vec<_> = listed.iter().map(WalFile::as_str).collect();
    assert_eq!(listed, names);
}
