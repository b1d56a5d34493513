//! backup.info through the public interface: what real barman wrote is read, and what we write is read as the same.
//!
//! The transcripts were written by barman's own class from values of ours; its version is in each file's name.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use proptest::prelude::*;
use reseed_backend_barman::info::{Status, Tablespace};
use reseed_backend_barman::segment::{Lsn, SegmentSize};
use reseed_backend_barman::{BackupInfo, FormatError};
use reseed_core::wal::{BackupStatus, WalFile};

const DONE: &str = include_str!("transcripts/backup-info-done-barman-3.19.1.txt");
const EMPTY: &str = include_str!("transcripts/backup-info-empty-barman-3.19.1.txt");
const FAILED: &str = include_str!("transcripts/backup-info-failed-barman-3.19.1.txt");

/// The fields of barman 2.11's `BackupInfo`; 2.19, 3.3 and 3.19 know all of them.
const FIELDS_OF_2_11: [&str; 26] = [
    "backup_label",
    "begin_offset",
    "begin_time",
    "begin_wal",
    "begin_xlog",
    "config_file",
    "copy_stats",
    "deduplicated_size",
    "end_offset",
    "end_time",
    "end_wal",
    "end_xlog",
    "error",
    "hba_file",
    "ident_file",
    "included_files",
    "mode",
    "pgdata",
    "server_name",
    "size",
    "status",
    "systemid",
    "tablespaces",
    "timeline",
    "version",
    "xlog_segment_size",
];

fn parse(text: &str) -> BackupInfo {
    BackupInfo::parse(text.as_bytes()).unwrap()
}

#[test]
fn a_finished_backup_of_barman_is_read() {
    let info = parse(DONE);
    assert_eq!(info.status, Status::Done);
    assert!(info.is_finished());
    assert_eq!(info.server_name.as_deref(), Some("cloud"));
    assert_eq!(
        info.begin_time.unwrap().to_string(),
        "2026-11-22T19:33:00.123456Z"
    );
    assert_eq!(info.end_time.unwrap().to_string(), "2026-11-22T20:34:05Z");
    assert_eq!(info.begin_xlog, Some(Lsn(0x3F00_0028)));
    assert_eq!(
        info.begin_wal,
        Some(WalFile::new("00000002000000000000000F").unwrap())
    );
    assert_eq!(info.xlog_segment_size, SegmentSize::new(64 << 20).unwrap());
    assert_eq!(info.systemid, Some(7_575_757_575_757_575_757));
    let odd = Tablespace {
        name: "o'dd \"näme\"".to_owned(),
        oid: 16402,
        location: "/srv/pg/back\\slash".to_owned(),
    };
    assert_eq!(info.tablespaces[1], odd);
    let label = info.backup_label.as_deref().unwrap();
    assert_eq!(label.lines().count(), 3);
    assert!(label.ends_with("LABEL: Barman's backup cloud 20261122T203300\n"));
    assert_eq!(info.included_files, ["/etc/postgresql/15/main/conf.d/a.conf"]);
}

#[test]
fn backups_that_did_not_end_well_are_not_finished() {
    let id = "20261122T203302".parse().unwrap();
    let failed = parse(FAILED);
    assert_eq!(
        failed.error.as_deref(),
        Some("failure uploading data (connection 'reset')")
    );
    assert_eq!(
        failed.to_base_backup(&id, None).unwrap().status,
        BackupStatus::Failed
    );
    let empty = parse(EMPTY);
    assert_eq!(empty, BackupInfo::default());
    assert_eq!(
        empty.to_base_backup(&id, None),
        Err(FormatError::MissingField("begin_time"))
    );
    let cut = DONE.replace("end_wal=000000020000000000000010", "end_wal=None");
    assert!(!parse(&cut).is_finished());
    let waiting = parse(&DONE.replace("status=DONE", "status=WAITING_FOR_WALS"));
    for unfinished in [parse(&cut), waiting] {
        let status = unfinished.to_base_backup(&id, Some(5)).unwrap().status;
        assert_eq!(status, BackupStatus::Started);
    }
}

#[test]
fn fields_of_a_newer_barman_are_left_out_and_never_written() {
    let newer = format!("{DONE}quantum_flux={{'a': [1]}}\n");
    assert_eq!(parse(&newer), parse(DONE));
    let written = parse(&newer).write().unwrap();
    let fields: Vec<&str> = written
        .lines()
        .filter_map(|line| line.split('=').next())
        .collect();
    assert_eq!(fields, FIELDS_OF_2_11);
}

#[test]
fn what_is_written_has_the_same_lines_as_barman_s_own() {
    let ours = parse(DONE).write().unwrap();
    let kept = |line: &&str| {
        let field = line.split('=').next().unwrap_or_default();
        // Statistics are left out; times are the same instants in UTC, always with microseconds.
        FIELDS_OF_2_11.contains(&field) && !["copy_stats", "begin_time", "end_time"].contains(&field)
    };
    let lines = |text: &'static str| text.lines().filter(kept).collect::<Vec<_>>();
    assert_eq!(ours.lines().filter(kept).collect::<Vec<_>>(), lines(DONE));
    assert!(ours.contains("\nbegin_time=2026-11-22 19:33:00.123456+00:00\n"));
    assert!(ours.contains("\nend_time=2026-11-22 20:34:05.000000+00:00\n"));
}

#[test]
fn spaces_comments_and_repeated_fields_are_as_barman_takes_them() {
    let text = "\n  # a comment\n status = STARTED \r\ntimeline=1\ntimeline=3\n";
    let info = parse(text);
    assert_eq!((info.status, info.timeline), (Status::Started, Some(3)));
}

#[test]
fn what_is_damaged_is_refused_with_its_line() {
    for (bad, line, what) in [
        ("status=DONE\nstat", 2, "field=value"),
        ("status=FINE", 1, "no status"),
        ("timeline=-1", 1, "no number"),
        ("timeline=99999999999", 1, "no number"),
        ("begin_time=2026-11-22 20:33:00", 1, "offset"),
        ("begin_time=yesterday", 1, "offset"),
        ("begin_wal=00000002.history", 1, "no segment"),
        ("begin_xlog=0", 1, "position"),
        ("tablespaces=[('a', -1, 'b')]", 1, "tablespace"),
        ("tablespaces=[('a', 1)]", 1, "tablespace"),
        ("tablespaces={'a': 1}", 1, "list"),
        ("backup_label=START", 1, "value expected"),
        ("backup_label=5", 1, "text"),
        ("xlog_segment_size=17", 1, "power of two"),
    ] {
        let error = BackupInfo::parse(bad.as_bytes()).unwrap_err();
        let said = error.to_string();
        assert!(
            said.starts_with(&format!("backup.info, line {line}:")) && said.contains(what),
            "{said}"
        );
    }
    let not_text = BackupInfo::parse(b"error=\xff").unwrap_err();
    assert!(not_text.to_string().contains("UTF-8"), "{not_text}");
}

#[test]
fn what_would_be_read_as_something_else_is_not_written() {
    for value in ["", "None", " x", "a\nb"] {
        let info = BackupInfo {
            pgdata: Some(value.to_owned()),
            ..BackupInfo::default()
        };
        let error = info.write().unwrap_err();
        assert!(
            matches!(error, FormatError::Unwritable { field: "pgdata", .. }),
            "{error}"
        );
    }
    let failed = BackupInfo {
        error: Some("first line\n  second line\n".to_owned()),
        ..BackupInfo::default()
    };
    let read = parse(&failed.write().unwrap());
    assert_eq!(read.error.as_deref(), Some("first line second line"));
}

fn status() -> impl Strategy<Value = Status> {
    prop::sample::select(vec![
        Status::Empty,
        Status::Started,
        Status::WaitingForWals,
        Status::Done,
        Status::Syncing,
        Status::Failed,
    ])
}

prop_compose! {
    fn tablespace()(name in any::<String>(), oid in any::<u32>(), location in any::<String>()) -> Tablespace {
        Tablespace { name, oid, location }
    }
}

prop_compose! {
    fn info()(
        tablespaces in prop::collection::vec(tablespace(), 0..3),
        included_files in prop::collection::vec(any::<String>(), 0..3),
        backup_label in prop::option::of("(?s).{1,80}"),
        pgdata in prop::option::of("/[^\\s\\x00-\\x1f]{1,20}"),
        begin in prop::option::of(0..4_000_000_000_000_000_i64),
        position in prop::option::of(any::<u64>()),
        size in prop::option::of(any::<u64>()),
        timeline in prop::option::of(any::<u32>()),
        wal in prop::option::of("[0-9A-F]{24}"),
        shift in 20_u32..=30,
        status in status(),
    ) -> BackupInfo {
        BackupInfo {
            tablespaces,
            included_files,
            backup_label,
            pgdata,
            begin_time: begin.map(|micros| jiff::Timestamp::from_microsecond(micros).unwrap()),
            begin_xlog: position.map(Lsn),
            end_offset: size,
            systemid: size,
            timeline,
            end_wal: wal.map(|name| WalFile::new(name).unwrap()),
            xlog_segment_size: SegmentSize::new(1 << shift).unwrap(),
            status,
            ..BackupInfo::default()
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_the_same(info in info()) {
        let written = info.write().unwrap();
        prop_assert_eq!(written.lines().count(), FIELDS_OF_2_11.len());
        prop_assert_eq!(BackupInfo::parse(written.as_bytes()), Ok(info));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in any::<Vec<u8>>(), field in prop::sample::select(FIELDS_OF_2_11.to_vec()), value in any::<String>()) {
        let _ = BackupInfo::parse(&bytes);
        let _ = BackupInfo::parse(format!("{field}={value}").as_bytes());
    }
}
