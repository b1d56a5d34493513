//! The contract, over the file and over memory; then everything that can be wrong with the file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use rusqlite::Connection;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::digest::TreeDigest;
use crate::error::{Error, SourceKind};
use crate::names::RunId;

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

fn at(second: i64) -> Timestamp {
    "2026-11-22T20:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(second)
}

fn key(run: u32, service: &str, kind: RunKind) -> RunKey {
    RunKey {
        run: format!("20261122T200000Z-{run:08x}").parse::<RunId>().unwrap(),
        service: service.parse().unwrap(),
        kind,
        peer: None,
    }
}

fn fingerprint(n: u8) -> Fingerprint {
    Fingerprint {
        digest: TreeDigest::from_bytes([n; 32]),
        files: u64::from(n),
        bytes: u64::from(n) * 1000,
    }
}

fn ended(key: RunKey, second: i64, outcome: RunOutcome) -> Run {
    Run {
        finished_at: Some(at(second + 1)),
        outcome: Some(outcome),
        seconds: Some(1.25),
        bytes: Some(1 << 40),
        ..Run::begun(key, at(second))
    }
}

fn run_entry(run: Run) -> Entry {
    Entry::Run(Box::new(run))
}

fn attempt(number: u32, failed: bool) -> Attempt {
    let error: Error<SourceKind> = Error::new(SourceKind::Corrupt, "pack is damaged")
        .said("no 'x'\n☃")
        .hint("look");
    Attempt {
        source: "offsite".parse().unwrap(),
        points: vec!["123".parse().unwrap(), "restic:1a2b".parse().unwrap()],
        number,
        stage: "verify".to_owned(),
        error: failed.then(|| error.report()),
        seconds: 0.5,
    }
}

fn one(service: &str) -> Entry {
    run_entry(ended(key(99, service, RunKind::Backup), 500, RunOutcome::Ok))
}

fn all(journal: &dyn Journal) -> Vec<Run> {
    journal.history(&Query::default()).unwrap()
}

struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }
    fn path(&self) -> PathBuf {
        self.dir.path().join("journal.db")
    }
    fn journal(&self) -> SqliteJournal {
        SqliteJournal::new(self.path(), clock())
    }
    /// What was set aside, without the logs.
    fn asides(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = std::fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                let name = path.file_name().unwrap().to_str().unwrap();
                name.contains(".broken-") && !name.ends_with("-wal") && !name.ends_with("-shm")
            })
            .collect();
        found.sort();
        found
    }
    /// A journal of some size, all of it in the one file.
    fn filled(&self) -> Vec<u8> {
        {
            let journal = self.journal();
            let entries = (0..150).flat_map(|n| {
                let mut run = ended(
                    key(n, &format!("service-{}", n % 7), RunKind::Backup),
                    i64::from(n),
                    RunOutcome::Ok,
                );
                run.attempts = vec![attempt(1, true), attempt(2, false)];
                [
                    run_entry(run),
                    Entry::Point(PointRecord {
                        dataset: "tank/a".parse().unwrap(),
                        point: n.to_string().parse().unwrap(),
                        taken_at: at(0),
                        fingerprint: fingerprint(7),
                    }),
                ]
            });
            journal.write(entries.collect());
            assert_eq!(journal.take_warnings(), []);
        }
        let conn = Connection::open(self.path()).unwrap();
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .unwrap();
        drop(conn);
        std::fs::read(self.path()).unwrap()
    }
}

/// Each journal must do the same.
fn on_each(check: impl Fn(&dyn Journal)) {
    check(&MemoryJournal::new());
    let lab = Lab::new();
    let journal = lab.journal();
    check(&journal);
    assert_eq!(journal.take_warnings(), []);
}

#[test]
fn journal_3_a_row_is_completed_and_keeps_what_is_not_said_again() {
    on_each(|journal| {
        let key = key(1, "sonarr", RunKind::Preseed);
        let begun = Run {
            message: Some("began".to_owned()),
            ..Run::begun(key.clone(), at(0))
        };
        journal.write(vec![
            run_entry(begun.clone()),
            Entry::Attempt(key.clone(), Box::new(attempt(1, true))),
        ]);
        assert_eq!(
            all(journal),
            [Run {
                attempts: vec![attempt(1, true)],
                ..begun
            }]
        );
        let mut end = ended(key, 0, RunOutcome::Restored);
        end.source = Some("replica".parse().unwrap());
        end.points = vec!["42".parse().unwrap()];
        end.digest = Some(TreeDigest::from_bytes([3; 32]));
        end.attempts = vec![attempt(9, false)];
        journal.write(vec![run_entry(end.clone())]);
        assert_eq!(
            all(journal),
            [Run {
                message: Some("began".to_owned()),
                attempts: vec![attempt(1, true)],
                ..end
            }]
        );
    });
}

#[test]
fn journal_3_services_kinds_and_peers_are_rows_of_their_own() {
    on_each(|journal| {
        let mut entries = Vec::new();
        for service in ["a", "b"] {
            for peer in [None, Some("near"), Some("far")] {
                let peer = peer.map(|peer| peer.parse().unwrap());
                entries.push(run_entry(ended(
                    RunKey {
                        peer,
                        ..key(1, service, RunKind::Replicate)
                    },
                    1,
                    RunOutcome::Ok,
                )));
            }
            entries.push(run_entry(ended(
                key(1, service, RunKind::Backup),
                1,
                RunOutcome::Ok,
            )));
        }
        journal.write(entries.clone());
        journal.write(entries);
        assert_eq!(all(journal).len(), 8);
    });
}

#[test]
fn journal_4_a_run_that_never_ended_is_interrupted_when_the_next_begins() {
    on_each(|journal| {
        let entries = [
            (1, "a", RunKind::Backup),
            (2, "b", RunKind::Backup),
            (3, "a", RunKind::Verify),
        ];
        journal.write(
            entries
                .iter()
                .map(|(n, s, k)| run_entry(Run::begun(key(*n, s, *k), at(i64::from(*n)))))
                .collect(),
        );
        journal.write(vec![run_entry(Run::begun(key(4, "a", RunKind::Backup), at(4)))]);
        let outcomes: Vec<_> = all(journal).into_iter().map(|run| run.outcome).collect();
        assert_eq!(outcomes, [None, None, None, Some(RunOutcome::Interrupted)]);
        assert!(
            all(journal)[3]
                .message
                .as_ref()
                .unwrap()
                .contains("without a word")
        );
        // It was alive after all.
        journal.write(vec![run_entry(ended(
            key(1, "a", RunKind::Backup),
            1,
            RunOutcome::Partial,
        ))]);
        assert_eq!(all(journal)[3].outcome, Some(RunOutcome::Partial));
    });
}

#[test]
fn journal_5_history_is_filtered_and_newest_first() {
    on_each(|journal| {
        let outcomes = [RunOutcome::Ok, RunOutcome::Failed, RunOutcome::Partial];
        for n in 0..9_u32 {
            let kind = if n % 2 == 0 {
                RunKind::Backup
            } else {
                RunKind::Drill
            };
            let outcome = outcomes[usize::try_from(n % 3).unwrap()];
            journal.write(vec![run_entry(ended(key(n, "a", kind), i64::from(n), outcome))]);
        }
        let seconds = |query: &Query| -> Vec<i64> {
            journal
                .history(query)
                .unwrap()
                .iter()
                .map(|run| run.started_at.as_second() - at(0).as_second())
                .collect()
        };
        let query = Query::default();
        assert_eq!(seconds(&query), [8, 7, 6, 5, 4, 3, 2, 1, 0]);
        assert_eq!(
            seconds(&Query {
                limit: Some(2),
                ..query.clone()
            }),
            [8, 7]
        );
        assert_eq!(
            seconds(&Query {
                kind: Some(RunKind::Drill),
                ..query.clone()
            }),
            [7, 5, 3, 1]
        );
        assert_eq!(
            seconds(&Query {
                since: Some(at(7)),
                ..query.clone()
            }),
            [8, 7]
        );
        let inside = at(7) + SignedDuration::from_nanos(1);
        assert_eq!(
            seconds(&Query {
                since: Some(inside),
                ..query.clone()
            }),
            [8]
        );
        assert_eq!(
            seconds(&Query {
                service: Some("b".parse().unwrap()),
                ..query.clone()
            }),
            [0_i64; 0]
        );
        assert_eq!(
            seconds(&Query {
                outcomes: Some(vec![]),
                ..query.clone()
            }),
            [0_i64; 0]
        );
        assert_eq!(
            seconds(&Query::last_success("a".parse().unwrap(), RunKind::Backup)),
            [6]
        );
        // Of those that began at once the one written last comes first.
        journal.write(vec![run_entry(ended(
            key(100, "a", RunKind::Prune),
            8,
            RunOutcome::Ok,
        ))]);
        assert_eq!(
            journal
                .history(&Query {
                    limit: Some(1),
                    ..query
                })
                .unwrap()[0]
                .key
                .kind,
            RunKind::Prune
        );
    });
}

#[test]
fn journal_5_points_and_services_come_back() {
    on_each(|journal| {
        let (dataset, point) = ("tank/a b".parse().unwrap(), "123".parse().unwrap());
        let service: ServiceName = "a".parse().unwrap();
        assert_eq!(journal.fingerprint(&dataset, &point).unwrap(), None);
        assert_eq!(journal.service(&service).unwrap(), None);
        let record = |n| PointRecord {
            dataset: dataset.clone(),
            point: point.clone(),
            taken_at: at(1),
            fingerprint: fingerprint(n),
        };
        let good = LastGood {
            point: point.clone(),
            taken_at: at(1),
            fingerprint: fingerprint(5),
        };
        let state = |unseeded: Option<&str>, last_good| ServiceRecord {
            service: service.clone(),
            unseeded: unseeded.map(str::to_owned),
            since: at(3),
            last_good,
        };
        journal.write(vec![
            Entry::Point(record(1)),
            Entry::Service(state(Some("all sources failed"), None)),
        ]);
        assert_eq!(
            journal.service(&service).unwrap(),
            Some(state(Some("all sources failed"), None))
        );
        journal.write(vec![
            Entry::Point(record(2)),
            Entry::Service(state(None, Some(good.clone()))),
        ]);
        assert_eq!(
            journal.fingerprint(&dataset, &point).unwrap(),
            Some(fingerprint(2))
        );
        assert_eq!(journal.service(&service).unwrap(), Some(state(None, Some(good))));
    });
}

#[test]
fn the_history_outlives_the_process() {
    let lab = Lab::new();
    lab.journal().write(vec![one("a")]);
    let again = lab.journal();
    assert_eq!(all(&again).len(), 1);
    assert_eq!(again.take_warnings(), []);
}

#[test]
fn nothing_is_made_by_reading() {
    let lab = Lab::new();
    assert_eq!(all(&lab.journal()), []);
    assert!(!lab.path().exists());
}

#[test]
fn a_missing_directory_is_made_by_writing() {
    let lab = Lab::new();
    let journal = SqliteJournal::new(lab.dir.path().join("var/lib/reseed/journal.db"), clock());
    journal.write(vec![one("a")]);
    assert_eq!(all(&journal).len(), 1);
}

#[test]
fn the_log_of_many_short_runs_does_not_grow_for_ever() {
    let lab = Lab::new();
    let log = lab.dir.path().join("journal.db-wal");
    let (mut longest, mut shortened) = (0, 0);
    for n in 0..120 {
        let before = std::fs::metadata(&log).map_or(0, |meta| meta.len());
        let entries = (0..100).map(|s| {
            run_entry(ended(
                key(n, &format!("s{s}"), RunKind::Preseed),
                1,
                RunOutcome::Ok,
            ))
        });
        lab.journal().write(entries.collect());
        let after = std::fs::metadata(&log).unwrap().len();
        longest = longest.max(after);
        shortened += usize::from(after < before);
    }
    assert!(
        longest < 3 << 20 && (2..60).contains(&shortened),
        "{longest} {shortened}"
    );
    assert_eq!(all(&lab.journal()).len(), 12_000);
}

#[test]
fn every_outcome_of_a_report_has_its_word() {
    use crate::ops::OpOutcome as O;
    for outcome in [
        O::Ok,
        O::UpToDate,
        O::Partial,
        O::Skipped,
        O::Failed,
        O::Interrupted,
    ] {
        assert!(outcome.name().parse::<RunOutcome>().is_ok());
    }
    use crate::preseed::Outcome as P;
    let why = String::new;
    let error: Error<SourceKind> = Error::new(SourceKind::Io, "x");
    for outcome in [
        P::DataPresent,
        P::Restored,
        P::FirstStart,
        P::StartedEmpty { why: why() },
        P::Held { why: why() },
        P::Blocked {
            why: why(),
            hint: why(),
        },
        P::Failed {
            error: error.report(),
        },
        P::Interrupted,
    ] {
        assert!(outcome.name().parse::<RunOutcome>().is_ok(), "{}", outcome.name());
    }
}

mod trouble {
    use super::*;

    /// After a write to a damaged journal: the entry is there, or the damage was said; nothing was destroyed.
    fn survives(lab: &Lab, damaged: &[u8]) {
        let journal = lab.journal();
        journal.write(vec![one("after")]);
        let found = match journal.history(&Query::default()) {
            Ok(runs) => runs.iter().any(|run| run.key.service.as_str() == "after"),
            // Damage can make a journal that claims the next version: it is left alone, and said.
            Err(error @ JournalError::Newer { .. }) => {
                assert!(!journal.take_warnings().is_empty(), "{error}");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        let warnings = journal.take_warnings();
        assert!(found || !warnings.is_empty());
        match lab.asides().as_slice() {
            [] => {}
            [aside] => {
                assert!(warnings[0].message.contains("was broken"), "{warnings:?}");
                // What SQLite may have done to the file before it noticed is to write behind a sound part.
                assert!(std::fs::metadata(aside).unwrap().len() >= u64::try_from(damaged.len()).unwrap());
            }
            more => panic!("{more:?}"),
        }
        drop(journal);
        let again = lab.journal();
        again.write(vec![one("again")]);
        let services: Vec<String> = all(&again)
            .iter()
            .map(|run| run.key.service.to_string())
            .collect();
        assert!(
            services.contains(&"again".to_owned()),
            "{services:?} {:?}",
            again.take_warnings()
        );
    }

    /// A record that claims two gigabytes: SQLite calls it "out of memory", which must not be taken for the machine's.
    #[test]
    fn a_record_larger_than_the_file_is_damage() {
        let lab = Lab::new();
        let mut bytes = lab.filled();
        let number = |bytes: &[u8], at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        let page_size = number(&bytes, 16);
        let root: isize = Connection::open(lab.path())
            .unwrap()
            .query_row(
                "SELECT rootpage FROM sqlite_schema WHERE name = 'runs_by_time'",
                [],
                |row| row.get(0),
            )
            .unwrap();
        let page = usize::try_from(root - 1).unwrap() * page_size;
        assert_eq!(bytes[page], 10, "the leaf of an index");
        // Eight bytes of header, then where each cell is; a cell begins with the length of its payload.
        let cell = page + number(&bytes, page + 8 + 2 * 65);
        bytes[cell..cell + 5].copy_from_slice(&[0xc8, 0x80, 0x80, 0x80, 0]);
        let lab = Lab::new();
        std::fs::write(lab.path(), &bytes).unwrap();
        survives(&lab, &bytes);
        assert_eq!(lab.asides().len(), 1);
    }

    #[test]
    fn a_version_no_reseed_ever_had_is_damage() {
        let lab = Lab::new();
        drop(lab.filled());
        Connection::open(lab.path())
            .unwrap()
            .pragma_update(None, "user_version", 81_526_785)
            .unwrap();
        let bytes = std::fs::read(lab.path()).unwrap();
        survives(&lab, &bytes);
        assert_eq!(lab.asides().len(), 1);
    }

    #[test]
    fn a_truncated_journal_is_survived_at_every_length() {
        let lab = Lab::new();
        let whole = lab.filled();
        assert!(whole.len() > 40_000, "{}", whole.len());
        let edges = (0..=whole.len())
            .step_by(4096)
            .flat_map(|page| [page.saturating_sub(1), page, page + 1]);
        let odd = [1, 15, 16, 17, 18, 99, 100, 101, 511, 512];
        for length in edges.chain(odd).filter(|length| *length < whole.len()) {
            let lab = Lab::new();
            std::fs::write(lab.path(), &whole[..length]).unwrap();
            survives(&lab, &whole[..length]);
        }
    }

    #[test]
    fn a_truncated_log_loses_only_its_end() {
        let lab = Lab::new();
        for n in 0..20 {
            lab.journal().write(vec![run_entry(ended(
                key(n, "a", RunKind::Backup),
                i64::from(n),
                RunOutcome::Ok,
            ))]);
        }
        let wal = lab.dir.path().join("journal.db-wal");
        let (file, log) = (std::fs::read(lab.path()).unwrap(), std::fs::read(&wal).unwrap());
        assert!(log.len() > 10_000, "closed without a checkpoint");
        let mut seen = std::collections::BTreeSet::new();
        for length in (0..log.len()).step_by(1_777) {
            let lab = Lab::new();
            std::fs::write(lab.path(), &file).unwrap();
            std::fs::write(lab.dir.path().join("journal.db-wal"), &log[..length]).unwrap();
            let journal = lab.journal();
            seen.insert(all(&journal).len());
            journal.write(vec![one("after")]);
            assert!(
                all(&journal)
                    .iter()
                    .any(|run| run.key.service.as_str() == "after"),
                "{length}"
            );
        }
        assert!(seen.len() > 5, "{seen:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn random_damage_is_survived(
            hits in proptest::collection::vec((any::<proptest::sample::Index>(), proptest::collection::vec(any::<u8>(), 1..200)), 1..12),
        ) {
            static WHOLE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
            let lab = Lab::new();
            let mut bytes = WHOLE.get_or_init(|| Lab::new().filled()).clone();
            for (index, garbage) in hits {
                let start = index.index(bytes.len());
                let end = (start + garbage.len()).min(bytes.len());
                bytes[start..end].copy_from_slice(&garbage[..end - start]);
            }
            std::fs::write(lab.path(), &bytes).unwrap();
            survives(&lab, &bytes);
        }

        #[test]
        fn garbage_is_set_aside_as_it_was(garbage in proptest::collection::vec(any::<u8>(), 1..5000)) {
            let lab = Lab::new();
            std::fs::write(lab.path(), &garbage).unwrap();
            let journal = lab.journal();
            journal.write(vec![one("a")]);
            prop_assert_eq!(all(&journal).len(), 1);
            prop_assert_eq!(std::fs::read(&lab.asides()[0]).unwrap(), garbage);
            prop_assert_eq!(journal.take_warnings().len(), 1);
        }
    }

    /// What a power cut leaves where a file had grown and its content wasn't written yet.
    #[test]
    fn zeros_are_set_aside_as_they_were() {
        for length in [1, 15, 16, 100, 512, 4096, 10_000] {
            let lab = Lab::new();
            std::fs::write(lab.path(), vec![0; length]).unwrap();
            let journal = lab.journal();
            journal.write(vec![one("a")]);
            assert_eq!(all(&journal).len(), 1);
            assert_eq!(std::fs::read(&lab.asides()[0]).unwrap(), vec![0; length]);
        }
    }

    #[test]
    fn an_empty_file_is_a_new_journal() {
        let lab = Lab::new();
        std::fs::write(lab.path(), "").unwrap();
        let journal = lab.journal();
        journal.write(vec![one("a")]);
        assert_eq!((all(&journal).len(), journal.take_warnings()), (1, vec![]));
    }

    #[test]
    fn an_empty_file_beside_a_full_log_is_set_aside_with_it() {
        let lab = Lab::new();
        lab.journal().write(vec![one("a")]);
        let log = std::fs::read(lab.dir.path().join("journal.db-wal")).unwrap();
        std::fs::write(lab.path(), "").unwrap();
        let journal = lab.journal();
        journal.write(vec![one("b")]);
        assert_eq!(all(&journal).len(), 1);
        let mut aside = lab.asides()[0].clone().into_os_string();
        aside.push("-wal");
        assert_eq!(std::fs::read(aside).unwrap(), log);
    }

    #[test]
    fn what_is_no_file_is_set_aside() {
        type Make = fn(&Path);
        let kinds: [Make; 3] = [
            |path| {
                std::fs::create_dir(path).unwrap();
                std::fs::write(path.join("inside"), "kept").unwrap();
            },
            |path| std::os::unix::fs::symlink("/", path).unwrap(),
            |path| {
                rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0)
                    .unwrap();
            },
        ];
        for make in kinds {
            let lab = Lab::new();
            make(&lab.path());
            let journal = lab.journal();
            journal.write(vec![one("a")]);
            assert_eq!(all(&journal).len(), 1);
            assert_eq!((lab.asides().len(), journal.take_warnings().len()), (1, 1));
        }
    }

    #[test]
    fn another_programs_database_is_set_aside_whole() {
        let lab = Lab::new();
        Connection::open(lab.path())
            .unwrap()
            .execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
            .unwrap();
        let journal = lab.journal();
        journal.write(vec![one("a")]);
        assert_eq!(all(&journal).len(), 1);
        let aside = Connection::open(&lab.asides()[0]).unwrap();
        assert_eq!(
            aside
                .query_row("SELECT x FROM t", [], |row| row.get::<_, i64>(0))
                .unwrap(),
            1
        );
    }

    /// A dry run least of all. Nobody takes it for a journal of nothing.
    #[test]
    fn who_only_reads_a_broken_one_leaves_it_alone() {
        let lab = Lab::new();
        let garbage = "garbage that is long enough to be noticed";
        std::fs::write(lab.path(), garbage).unwrap();
        let journal = lab.journal();
        for _ in 0..2 {
            let error = journal.history(&Query::default()).unwrap_err();
            assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
        }
        let service = "a".parse().unwrap();
        assert!(journal.service(&service).is_err());
        assert_eq!(journal.take_warnings().len(), 1);
        drop(journal);
        assert_eq!(std::fs::read_to_string(lab.path()).unwrap(), garbage);
        assert_eq!(lab.journal().begun_anew(), None);
        let journal = lab.journal();
        journal.write(vec![one("a")]);
        assert_eq!(all(&journal).len(), 1);
        assert_eq!(lab.asides().len(), 1);
        let since = clock().now() - lab.journal().begun_anew().unwrap();
        assert!(since.get_seconds().abs() < 600, "{since}");
        for aside in lab.asides() {
            std::fs::remove_file(aside).unwrap();
        }
        assert_eq!(lab.journal().begun_anew(), None);
    }

    #[test]
    fn two_broken_ones_in_a_second_do_not_meet() {
        #[derive(Debug)]
        struct Still;
        #[async_trait::async_trait]
        impl Clock for Still {
            fn now(&self) -> Timestamp {
                at(0)
            }
            fn monotonic(&self) -> Duration {
                Duration::ZERO
            }
            async fn sleep(&self, _: Duration) {}
        }
        let lab = Lab::new();
        for n in 0..3 {
            std::fs::write(
                lab.path(),
                format!("garbage number {n} that is long enough to be noticed"),
            )
            .unwrap();
            for tail in ["-wal", "-shm"] {
                let _ = std::fs::remove_file(lab.dir.path().join(format!("journal.db{tail}")));
            }
            SqliteJournal::new(lab.path(), Arc::new(Still)).write(vec![one("a")]);
        }
        assert_eq!(lab.asides().len(), 3);
    }

    #[test]
    fn a_newer_journal_is_left_exactly_as_it_is() {
        let lab = Lab::new();
        lab.filled();
        let conn = Connection::open(lab.path()).unwrap();
        conn.pragma_update(None, "user_version", 99).unwrap();
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .unwrap();
        drop(conn);
        let before = std::fs::read(lab.path()).unwrap();
        let journal = lab.journal();
        journal.write(vec![one("a")]);
        journal.write(vec![one("b")]);
        let error = journal.history(&Query::default()).unwrap_err();
        assert!(matches!(error, JournalError::Newer { found: 99, .. }), "{error}");
        let warnings = journal.take_warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].message.contains("version 99"), "{warnings:?}");
        drop(journal);
        assert_eq!(std::fs::read(lab.path()).unwrap(), before);
        assert_eq!(lab.asides(), [] as [PathBuf; 0]);
    }

    #[test]
    fn a_locked_journal_is_written_later() {
        let lab = Lab::new();
        lab.journal().write(vec![one("before")]);
        let other = Connection::open(lab.path()).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let journal = lab.journal();
        journal.write(vec![one("a")]);
        journal.write(vec![
            one("b"),
            Entry::Service(ServiceRecord {
                service: "a".parse().unwrap(),
                unseeded: Some("why".to_owned()),
                since: at(0),
                last_good: None,
            }),
        ]);
        assert_eq!(journal.take_warnings().len(), 1);
        // It is seen although it is not stored.
        assert_eq!(all(&journal).len(), 3);
        assert!(
            journal
                .service(&"a".parse().unwrap())
                .unwrap()
                .unwrap()
                .unseeded
                .is_some()
        );
        assert_eq!(all(&lab.journal()).len(), 1);
        other.execute_batch("COMMIT").unwrap();
        journal.write(vec![one("c")]);
        assert_eq!(all(&lab.journal()).len(), 4);
        assert_eq!(all(&journal).len(), 4);
    }

    #[test]
    fn what_is_pending_is_stored_at_the_end() {
        let lab = Lab::new();
        lab.journal().write(vec![one("before")]);
        let other = Connection::open(lab.path()).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let journal = lab.journal();
        journal.write(vec![one("a")]);
        other.execute_batch("COMMIT").unwrap();
        drop(journal);
        assert_eq!(all(&lab.journal()).len(), 2);
    }

    #[test]
    fn a_journal_locked_for_good_can_still_be_written_to() {
        let lab = Lab::new();
        lab.journal().write(vec![one("before")]);
        let other = Connection::open(lab.path()).unwrap();
        other
            .execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE")
            .unwrap();
        let journal = lab.journal();
        journal.write(vec![one("a")]);
        assert_eq!(all(&journal).len(), 1, "what this process did");
        assert!(matches!(
            lab.journal().history(&Query::default()),
            Err(JournalError::Locked)
        ));
    }

    #[test]
    fn an_unwritable_place_is_said_once() {
        let lab = Lab::new();
        let closed = lab.dir.path().join("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
        // Modes don't stop root; in /proc not even root can make a file.
        let root = std::fs::write(closed.join("probe"), "").is_ok();
        let place = if root {
            PathBuf::from("/proc/self/journal.db")
        } else {
            closed.join("journal.db")
        };
        let beneath_a_file = lab.dir.path().join("file");
        std::fs::write(&beneath_a_file, "").unwrap();
        for path in [place, beneath_a_file.join("journal.db")] {
            let journal = SqliteJournal::new(&path, clock());
            journal.write(vec![one("a")]);
            journal.write(vec![one("b")]);
            let warnings = journal.take_warnings();
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            assert!(warnings[0].message.contains("goes on without"), "{warnings:?}");
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_program_that_runs_for_months_does_not_grow() {
        let journal = SqliteJournal::new("/proc/self/journal.db", clock());
        for batch in 0..30_u32 {
            let runs = (0..1000).map(|n| {
                run_entry(ended(
                    key(batch * 1000 + n, "a", RunKind::Snapshot),
                    0,
                    RunOutcome::Ok,
                ))
            });
            journal.write(runs.collect());
        }
        let shown = format!("{journal:?}").matches("RunKey").count();
        assert!(shown < 40_000, "{shown}");
    }

    #[test]
    fn two_processes_can_write_at_once() {
        let lab = Lab::new();
        std::thread::scope(|scope| {
            for writer in 0..4_u32 {
                let lab = &lab;
                scope.spawn(move || {
                    let journal = lab.journal();
                    for n in 0..50 {
                        let key = key(writer * 100 + n, "a", RunKind::Snapshot);
                        journal.write(vec![run_entry(ended(key, i64::from(n), RunOutcome::Ok))]);
                    }
                });
            }
        });
        assert_eq!(all(&lab.journal()).len(), 200);
        assert_eq!(lab.asides(), [] as [PathBuf; 0]);
    }

    #[test]
    fn an_older_journal_grows_and_keeps_its_rows() {
        let lab = Lab::new();
        lab.filled();
        let mut conn = Connection::open(lab.path()).unwrap();
        let steps = [schema::MIGRATIONS, &["ALTER TABLE runs ADD COLUMN more TEXT"]].concat();
        schema::migrate(&mut conn, &steps).unwrap();
        schema::migrate(&mut conn, &steps).unwrap();
        let rows: i64 = conn
            .query_row("SELECT count(more IS NULL) FROM runs", [], |row| row.get(0))
            .unwrap();
        assert_eq!(
            (rows, schema::look(&conn).unwrap()),
            (150, schema::Found::Version(2))
        );
    }
}

mod parity {
    use super::*;

    fn entry() -> impl Strategy<Value = Entry> {
        let key = (
            0..6_u32,
            proptest::sample::select(vec!["a", "b"]),
            proptest::sample::select(RunKind::ALL),
            any::<bool>(),
        )
            .prop_map(|(run, service, kind, peer)| RunKey {
                peer: peer.then(|| "replica".parse().unwrap()),
                ..key(run, service, kind)
            });
        let some = || proptest::option::of(0..1000_u64);
        let run = (
            key,
            0..5_i64,
            proptest::option::of(proptest::sample::select(RunOutcome::ALL)),
            some(),
            some(),
            0..3_u32,
        )
            .prop_map(|(key, second, outcome, bytes, files, attempts)| {
                run_entry(Run {
                    outcome,
                    finished_at: outcome.map(|_| at(second + 60)),
                    bytes,
                    files,
                    message: files.map(|n| format!("{n} files")),
                    points: bytes
                        .map(|n| n.to_string().parse().unwrap())
                        .into_iter()
                        .collect(),
                    digest: bytes.map(|_| TreeDigest::from_bytes([1; 32])),
                    attempts: (0..attempts).map(|n| attempt(n, n == 0)).collect(),
                    ..Run::begun(key, at(second) + SignedDuration::from_nanos(123_456_789))
                })
            });
        let try_of = (0..6_u32, proptest::sample::select(RunKind::ALL), any::<bool>()).prop_map(
            |(run, kind, failed)| Entry::Attempt(key_of(run, kind), Box::new(attempt(run, failed))),
        );
        prop_oneof![3 => run, 1 => try_of]
    }

    fn key_of(run: u32, kind: RunKind) -> RunKey {
        key(run, "a", kind)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn memory_and_file_tell_the_same(
            batches in proptest::collection::vec(proptest::collection::vec(entry(), 0..12), 0..6),
            limit in proptest::option::of(0..8_u32),
            reopen in any::<bool>(),
        ) {
            let lab = Lab::new();
            let memory = MemoryJournal::new();
            let mut file = lab.journal();
            for batch in batches {
                memory.write(batch.clone());
                file.write(batch);
                if reopen {
                    file = lab.journal();
                }
            }
            for query in [
                Query { limit, ..Query::default() },
                Query { service: Some("a".parse().unwrap()), since: Some(at(2)), ..Query::default() },
                Query::last_success("b".parse().unwrap(), RunKind::Backup),
            ] {
                prop_assert_eq!(memory.history(&query).unwrap(), file.history(&query).unwrap());
            }
            prop_assert_eq!(file.take_warnings(), vec![]);
        }
    }
}
