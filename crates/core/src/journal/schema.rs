//! The tables, how they grew, and the statements over them. Knows SQL and nothing about files.

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params, params_from_iter};

use super::memory::NEVER_ENDED;
use super::{Attempt, Entry, LastGood, PointRecord, Query, Run, RunKey, RunOutcome, ServiceRecord};
use crate::error::ErrorReport;
use crate::names::{DatasetName, PointId, ServiceName};
use crate::point::Fingerprint;

/// Marks a file as a journal of ours: "rsee" in ASCII.
pub(super) const APPLICATION_ID: i64 = 0x7273_6565;

/// Each step leads from the version that is its place to the next one. Never change one that was released.
pub(super) const MIGRATIONS: &[&str] = &["
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY,
        run TEXT NOT NULL,
        service TEXT NOT NULL,
        kind TEXT NOT NULL,
        peer TEXT NOT NULL DEFAULT '',
        started_ms INTEGER NOT NULL,
        finished_ms INTEGER,
        outcome TEXT,
        source TEXT,
        points TEXT NOT NULL DEFAULT '',
        bytes INTEGER,
        files INTEGER,
        seconds REAL,
        verification TEXT,
        digest TEXT,
        message TEXT,
        UNIQUE (run, service, kind, peer)
    ) STRICT;
    CREATE INDEX runs_by_time ON runs (started_ms);
    CREATE INDEX runs_by_service ON runs (service, kind, started_ms);
    CREATE INDEX runs_unfinished ON runs (service, kind, peer) WHERE outcome IS NULL;
    CREATE TABLE attempts (
        id INTEGER PRIMARY KEY,
        run_id INTEGER NOT NULL REFERENCES runs (id),
        source TEXT NOT NULL,
        points TEXT NOT NULL,
        number INTEGER NOT NULL,
        stage TEXT NOT NULL,
        error_kind TEXT,
        effect TEXT,
        message TEXT,
        error_json TEXT,
        seconds REAL NOT NULL
    ) STRICT;
    CREATE INDEX attempts_by_run ON attempts (run_id);
    CREATE TABLE points (
        dataset TEXT NOT NULL,
        point TEXT NOT NULL,
        taken_ms INTEGER NOT NULL,
        digest TEXT NOT NULL,
        files INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        PRIMARY KEY (dataset, point)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE services (
        service TEXT PRIMARY KEY,
        unseeded TEXT,
        since_ms INTEGER NOT NULL,
        good_point TEXT,
        good_taken_ms INTEGER,
        good_digest TEXT,
        good_files INTEGER,
        good_bytes INTEGER
    ) STRICT, WITHOUT ROWID;
"];

/// What a file says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Ours, in this version, which may be newer than we know.
    Version(i64),
    /// A database with nothing in it.
    Empty,
    /// Somebody else's database.
    Foreign,
}

pub(super) fn look(conn: &Connection) -> rusqlite::Result<Found> {
    // One moment for all three: another process may be making the tables right now.
    let conn = conn.unchecked_transaction()?;
    let version: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let application: i64 = conn.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if application == APPLICATION_ID && version > 0 {
        return Ok(Found::Version(version));
    }
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(if tables == 0 && application == 0 {
        Found::Empty
    } else {
        Found::Foreign
    })
}

/// Brings a file up to the newest version, all or nothing. Another process may do the same at the same time.
pub(super) fn migrate(conn: &mut Connection, steps: &[&str]) -> rusqlite::Result<()> {
    let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let version: i64 = tx.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    for step in steps.iter().skip(usize::try_from(version).unwrap_or(0)) {
        tx.execute_batch(step)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(
        None,
        "user_version",
        i64::try_from(steps.len()).unwrap_or(i64::MAX),
    )?;
    tx.commit()
}

pub(super) fn write(tx: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<()> {
    match entry {
        Entry::Run(run) => write_run(tx, run),
        Entry::Attempt(key, attempt) => match run_id(tx, key)? {
            Some(id) => write_attempt(tx, id, attempt),
            None => Ok(()),
        },
        Entry::Point(record) => write_point(tx, record),
        Entry::Service(record) => write_service(tx, record),
    }
}

fn write_run(tx: &Transaction<'_>, run: &Run) -> rusqlite::Result<()> {
    let key = &run.key;
    let peer = peer_text(key);
    tx.prepare_cached(
        "UPDATE runs SET outcome = ?5, message = coalesce(message, ?6)
         WHERE service = ?1 AND kind = ?2 AND peer = ?3 AND outcome IS NULL AND run <> ?4",
    )?
    .execute(params![
        key.service.as_str(),
        key.kind.name(),
        peer,
        key.run.as_str(),
        RunOutcome::Interrupted.name(),
        NEVER_ENDED
    ])?;
    let id: i64 = tx
        .prepare_cached(
            "INSERT INTO runs (run, service, kind, peer, started_ms, finished_ms, outcome, source, points, bytes, files,
                               seconds, verification, digest, message)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
             ON CONFLICT (run, service, kind, peer) DO UPDATE SET
                started_ms = excluded.started_ms,
                finished_ms = coalesce(excluded.finished_ms, finished_ms),
                outcome = coalesce(excluded.outcome, outcome),
                source = coalesce(excluded.source, source),
                points = iif(excluded.points = '', points, excluded.points),
                bytes = coalesce(excluded.bytes, bytes),
                files = coalesce(excluded.files, files),
                seconds = coalesce(excluded.seconds, seconds),
                verification = coalesce(excluded.verification, verification),
                digest = coalesce(excluded.digest, digest),
                message = coalesce(excluded.message, message)
             RETURNING id",
        )?
        .query_row(
            params![
                key.run.as_str(),
                key.service.as_str(),
                key.kind.name(),
                peer,
                run.started_at.as_millisecond(),
                run.finished_at.map(Timestamp::as_millisecond),
                run.outcome.map(RunOutcome::name),
                run.source.as_ref().map(|source| source.as_str()),
                points_text(&run.points),
                run.bytes.map(clamp),
                run.files.map(clamp),
                run.seconds,
                run.verification,
                run.digest.map(|digest| digest.to_string()),
                run.message,
            ],
            |row| row.get(0),
        )?;
    if !run.attempts.is_empty() {
        let known: i64 = tx
            .prepare_cached("SELECT count(*) FROM attempts WHERE run_id = ?1")?
            .query_row([id], |row| row.get(0))?;
        if known == 0 {
            for attempt in &run.attempts {
                write_attempt(tx, id, attempt)?;
            }
        }
    }
    Ok(())
}

fn run_id(tx: &Transaction<'_>, key: &RunKey) -> rusqlite::Result<Option<i64>> {
    tx.prepare_cached("SELECT id FROM runs WHERE run = ?1 AND service = ?2 AND kind = ?3 AND peer = ?4")?
        .query_row(
            params![
                key.run.as_str(),
                key.service.as_str(),
                key.kind.name(),
                peer_text(key)
            ],
            |row| row.get(0),
        )
        .optional()
}

fn write_attempt(tx: &Transaction<'_>, run_id: i64, attempt: &Attempt) -> rusqlite::Result<()> {
    let error = attempt.error.as_ref();
    let effect = error.and_then(|error| {
        serde_json::to_value(error.effect)
            .ok()
            .and_then(|value| value.as_str().map(str::to_owned))
    });
    tx.prepare_cached(
        "INSERT INTO attempts (run_id, source, points, number, stage, error_kind, effect, message, error_json, seconds)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        run_id,
        attempt.source.as_str(),
        points_text(&attempt.points),
        attempt.number,
        attempt.stage,
        error.map(|error| error.kind.as_str()),
        effect,
        error.map(ToString::to_string),
        error.and_then(|error| serde_json::to_string(error).ok()),
        attempt.seconds,
    ])?;
    Ok(())
}

fn write_point(tx: &Transaction<'_>, record: &PointRecord) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT OR REPLACE INTO points (dataset, point, taken_ms, digest, files, bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        record.dataset.as_str(),
        record.point.as_str(),
        record.taken_at.as_millisecond(),
        record.fingerprint.digest.to_string(),
        clamp(record.fingerprint.files),
        clamp(record.fingerprint.bytes),
    ])?;
    Ok(())
}

fn write_service(tx: &Transaction<'_>, record: &ServiceRecord) -> rusqlite::Result<()> {
    let good = record.last_good.as_ref();
    tx.prepare_cached(
        "INSERT OR REPLACE INTO services
            (service, unseeded, since_ms, good_point, good_taken_ms, good_digest, good_files, good_bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        record.service.as_str(),
        record.unseeded,
        record.since.as_millisecond(),
        good.map(|good| good.point.as_str()),
        good.map(|good| good.taken_at.as_millisecond()),
        good.map(|good| good.fingerprint.digest.to_string()),
        good.map(|good| clamp(good.fingerprint.files)),
        good.map(|good| clamp(good.fingerprint.bytes)),
    ])?;
    Ok(())
}

/// The runs, and how many rows could not be understood (a flipped bit that the database did not notice).
pub(super) fn history(conn: &Connection, query: &Query) -> rusqlite::Result<(Vec<Run>, usize)> {
    let mut wheres: Vec<String> = Vec::new();
    let mut values: Vec<Value> = Vec::new();
    if let Some(service) = &query.service {
        wheres.push("service = ?".to_owned());
        values.push(service.as_str().to_owned().into());
    }
    if let Some(kind) = query.kind {
        wheres.push("kind = ?".to_owned());
        values.push(kind.name().to_owned().into());
    }
    if let Some(outcomes) = &query.outcomes {
        wheres.push(format!("outcome IN ({})", vec!["?"; outcomes.len()].join(", ")));
        values.extend(
            outcomes
                .iter()
                .map(|outcome| Value::from(outcome.name().to_owned())),
        );
    }
    if let Some(since) = query.since {
        // Rows are cut to milliseconds; a moment inside one begins with the next.
        let millis = since.as_millisecond() + i64::from(since.subsec_nanosecond() % 1_000_000 > 0);
        wheres.push("started_ms >= ?".to_owned());
        values.push(millis.into());
    }
    let wheres = if wheres.is_empty() {
        String::new()
    } else {
        format!("WHERE {}", wheres.join(" AND "))
    };
    values.push(query.limit.map_or(-1, i64::from).into());
    let sql = format!(
        "SELECT id, run, service, kind, peer, started_ms, finished_ms, outcome, source, points, bytes, files, seconds,
                verification, digest, message
         FROM runs {wheres} ORDER BY started_ms DESC, id DESC LIMIT ?"
    );
    let mut statement = conn.prepare(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let (mut runs, mut unread) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        match read_run(row) {
            Some((id, mut run)) => {
                let (attempts, odd) = attempts(conn, id)?;
                run.attempts = attempts;
                unread += odd;
                runs.push(run);
            }
            None => unread += 1,
        }
    }
    Ok((runs, unread))
}

fn attempts(conn: &Connection, run_id: i64) -> rusqlite::Result<(Vec<Attempt>, usize)> {
    let mut statement = conn.prepare_cached(
        "SELECT source, points, number, stage, error_json, seconds FROM attempts WHERE run_id = ?1 ORDER BY id",
    )?;
    let mut rows = statement.query([run_id])?;
    let (mut attempts, mut unread) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        match read_attempt(row) {
            Some(attempt) => attempts.push(attempt),
            None => unread += 1,
        }
    }
    Ok((attempts, unread))
}

fn read_attempt(row: &Row<'_>) -> Option<Attempt> {
    let error: Option<String> = row.get(4).ok()?;
    let error: Option<ErrorReport> = match error {
        Some(json) => Some(serde_json::from_str(&json).ok()?),
        None => None,
    };
    Some(Attempt {
        source: text(row, 0)?.parse().ok()?,
        points: read_points(&text(row, 1)?)?,
        number: row.get(2).ok()?,
        stage: text(row, 3)?,
        error,
        seconds: row.get(5).ok()?,
    })
}

fn read_run(row: &Row<'_>) -> Option<(i64, Run)> {
    let peer = text(row, 4)?;
    let key = RunKey {
        run: text(row, 1)?.parse().ok()?,
        service: text(row, 2)?.parse().ok()?,
        kind: text(row, 3)?.parse().ok()?,
        peer: if peer.is_empty() {
            None
        } else {
            Some(peer.parse().ok()?)
        },
    };
    let run = Run {
        key,
        started_at: millis(row.get(5).ok()?)?,
        finished_at: optional(row.get::<_, Option<i64>>(6).ok()?, millis)?,
        outcome: optional(row.get::<_, Option<String>>(7).ok()?, |text| text.parse().ok())?,
        source: optional(row.get::<_, Option<String>>(8).ok()?, |text| text.parse().ok())?,
        points: read_points(&text(row, 9)?)?,
        bytes: optional(row.get::<_, Option<i64>>(10).ok()?, |number| {
            u64::try_from(number).ok()
        })?,
        files: optional(row.get::<_, Option<i64>>(11).ok()?, |number| {
            u64::try_from(number).ok()
        })?,
        seconds: row.get(12).ok()?,
        verification: row.get(13).ok()?,
        digest: optional(row.get::<_, Option<String>>(14).ok()?, |text| text.parse().ok())?,
        message: row.get(15).ok()?,
        attempts: Vec::new(),
    };
    Some((row.get(0).ok()?, run))
}

pub(super) fn fingerprint(
    conn: &Connection,
    dataset: &DatasetName,
    point: &PointId,
) -> rusqlite::Result<Option<Fingerprint>> {
    let found = conn
        .prepare_cached("SELECT digest, files, bytes FROM points WHERE dataset = ?1 AND point = ?2")?
        .query_row([dataset.as_str(), point.as_str()], |row| {
            Ok(read_fingerprint(row, 0))
        })
        .optional()?;
    Ok(found.flatten())
}

pub(super) fn service(conn: &Connection, service: &ServiceName) -> rusqlite::Result<Option<ServiceRecord>> {
    let found = conn
        .prepare_cached(
            "SELECT unseeded, since_ms, good_point, good_taken_ms, good_digest, good_files, good_bytes
             FROM services WHERE service = ?1",
        )?
        .query_row([service.as_str()], |row| Ok(read_service(row, service)))
        .optional()?;
    Ok(found.flatten())
}

fn read_service(row: &Row<'_>, service: &ServiceName) -> Option<ServiceRecord> {
    let good: Option<String> = row.get(2).ok()?;
    let last_good = match good {
        None => None,
        Some(point) => Some(LastGood {
            point: point.parse().ok()?,
            taken_at: millis(row.get(3).ok()?)?,
            fingerprint: read_fingerprint(row, 4)?,
        }),
    };
    Some(ServiceRecord {
        service: service.clone(),
        unseeded: row.get(0).ok()?,
        since: millis(row.get(1).ok()?)?,
        last_good,
    })
}

/// Digest, files and bytes, in this order from this column on.
fn read_fingerprint(row: &Row<'_>, first: usize) -> Option<Fingerprint> {
    Some(Fingerprint {
        digest: text(row, first)?.parse().ok()?,
        files: u64::try_from(row.get::<_, i64>(first + 1).ok()?).ok()?,
        bytes: u64::try_from(row.get::<_, i64>(first + 2).ok()?).ok()?,
    })
}

fn text(row: &Row<'_>, column: usize) -> Option<String> {
    row.get(column).ok()
}

fn millis(millis: i64) -> Option<Timestamp> {
    Timestamp::from_millisecond(millis).ok()
}

/// None stays none; what is there must be understood.
fn optional<A, B>(value: Option<A>, read: impl FnOnce(A) -> Option<B>) -> Option<Option<B>> {
    match value {
        None => Some(None),
        Some(value) => read(value).map(Some),
    }
}

fn peer_text(key: &RunKey) -> &str {
    key.peer.as_ref().map_or("", |peer| peer.as_str())
}

/// Point ids hold no blanks.
fn points_text(points: &[PointId]) -> String {
    points
        .iter()
        .map(|point| point.as_str())
        .collect::<Vec<_>>()
        .join(" ")
}

fn read_points(text: &str) -> Option<Vec<PointId>> {
    text.split_terminator(' ')
        .map(|point| point.parse().ok())
        .collect()
}

/// SQLite's numbers end at 2^63; so do the bytes of every disk.
fn clamp(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
