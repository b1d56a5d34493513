//! [`SystemVerifier`]: looks at trees on the machine's own file systems.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::OpenFlags;

use super::{Validator, Verifier, unfinished};
use crate::context::Context;
use crate::digest::{DigestError, DigestOptions, digest_tree};
use crate::error::{OpError, OpKind};
use crate::event::Event;
use crate::exec::{Command, Runner};
use crate::names::ServiceName;
use crate::point::Fingerprint;

/// Longest that a service's own check may take when nothing else limits it.
const VALIDATOR_LIMIT: Duration = Duration::from_secs(3600);

/// How many instructions of its virtual machine SQLite runs between two looks at whether to stop: well below a millisecond.
const STEPS: i32 = 10_000;
/// How much of a database is copied between two looks.
const PIECE: u64 = 64 << 20;

/// Looks at trees on the machine's own file systems.
#[derive(Debug)]
pub struct SystemVerifier {
    runner: Arc<dyn Runner>,
    scratch: PathBuf,
    /// Copies made so far: each check has its own.
    made: AtomicU64,
}

impl SystemVerifier {
    /// `scratch` is where a database is copied to when checking it needs a copy; it is made when it is needed.
    pub fn new(runner: Arc<dyn Runner>, scratch: PathBuf) -> Self {
        Self {
            runner,
            scratch,
            made: AtomicU64::new(0),
        }
    }
}

/// Runs blocking work that polls a flag; the flag is set when the run is cancelled or the caller goes away.
async fn blocking<T: Send + 'static>(
    cx: &Context,
    work: impl FnOnce(&Arc<AtomicBool>) -> Result<T, OpError> + Send + 'static,
) -> Result<T, OpError> {
    struct SetOnDrop(Arc<AtomicBool>);
    impl Drop for SetOnDrop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = SetOnDrop(Arc::new(AtomicBool::new(false)));
    let flag = Arc::clone(&stop.0);
    let mut task = tokio::task::spawn_blocking(move || work(&flag));
    let joined = tokio::select! {
        biased;
        done = &mut task => done,
        () = cx.cancel.cancelled() => {
            stop.0.store(true, Ordering::Relaxed);
            task.await
        }
    };
    joined.unwrap_or_else(|panic| Err(OpError::new(OpKind::Io, "a check died").said(panic)))
}

#[async_trait]
impl Verifier for SystemVerifier {
    async fn measure(&self, cx: &Context, root: &Path) -> Result<Fingerprint, OpError> {
        let root = root.to_owned();
        blocking(cx, move |stop| {
            let options = DigestOptions {
                cancel: Some(stop),
                ..DigestOptions::default()
            };
            let summary = digest_tree(&root, options).map_err(|error| match &error {
                DigestError::Root { source, .. } => {
                    OpError::io("can't measure the tree", source).said(&error)
                }
                DigestError::Cancelled { .. } => OpError::new(OpKind::Cancelled, "measuring was cancelled"),
                DigestError::Changed { .. } => OpError::new(OpKind::Busy, error.to_string()),
                _ => OpError::new(OpKind::Io, error.to_string()),
            })?;
            Ok(Fingerprint {
                digest: summary.digest,
                files: summary.files,
                bytes: summary.bytes,
            })
        })
        .await
    }

    async fn make_scratch(&self, cx: &Context, path: &Path) -> Result<(), OpError> {
        let path = path.to_owned();
        blocking(cx, move |_| {
            let shown = path.display();
            let taken = |what: &str| {
                OpError::new(OpKind::AlreadyExists, format!("{shown} {what}"))
                    .hint("give a directory that is empty or doesn't exist yet; reseed never writes over what is there")
            };
            let io = |error: &std::io::Error| OpError::io(format!("can't make {shown}"), error);
            match std::fs::symlink_metadata(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    std::fs::create_dir_all(&path).map_err(|e| io(&e))
                }
                Err(error) => Err(io(&error)),
                Ok(meta) if !meta.is_dir() => Err(taken("is no directory")),
                Ok(_) => {
                    let mut entries = std::fs::read_dir(&path).map_err(|e| io(&e))?;
                    if entries.next().is_some() { Err(taken("is not empty")) } else { Ok(()) }
                }
            }
        })
        .await
    }

    async fn begin(
        &self,
        cx: &Context,
        path: &Path,
        service: &ServiceName,
        resume: bool,
    ) -> Result<(), OpError> {
        let (dir, of) = (path.to_owned(), service.clone());
        let unfinished = blocking(cx, move |_| Ok(unfinished::is_of(&dir, &of))).await?;
        if unfinished && resume {
            return Ok(());
        }
        if let Err(error) = self.make_scratch(cx, path).await {
            let goes_on = unfinished && error.kind() == OpKind::AlreadyExists;
            return Err(match goes_on {
                true => error.hint(format!(
                    "an earlier restore of {service} didn't finish there: `--resume` goes on with it, and removes whatever isn't part of what is \
                     restored"
                )),
                false => error,
            });
        }
        let (dir, of) = (path.to_owned(), service.clone());
        let noted = blocking(cx, move |_| Ok(unfinished::begin(&dir, &of))).await?;
        if let Err(error) = noted {
            cx.emit(Event::Warning {
                service: Some(service.clone()),
                message: format!(
                    "if it breaks off, a restore into {} can't be gone on with: {error}",
                    path.display()
                ),
                hint: None,
            });
        }
        Ok(())
    }

    async fn finish(&self, cx: &Context, path: &Path) -> Result<(), OpError> {
        let dir = path.to_owned();
        blocking(cx, move |_| {
            unfinished::end(&dir).map_err(|error| {
                let what = format!("that {} is finished can't be written down", dir.display());
                OpError::io(what, &error).hint("remove `.NAME.reseed-unfinished` beside it")
            })
        })
        .await
    }

    async fn validate(&self, cx: &Context, root: &Path, validator: &Validator) -> Result<(), OpError> {
        match validator {
            Validator::Exists { path } => {
                let path = inside(root, path)?;
                match tokio::task::spawn_blocking(move || std::fs::symlink_metadata(path)).await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                        Err(failed(validator, "it is not there"))
                    }
                    Ok(Err(error)) => Err(OpError::io(format!("can't look for {validator}"), &error)),
                    Err(panic) => Err(OpError::new(OpKind::Io, "a check died").said(panic)),
                }
            }
            Validator::Sqlite { path } => {
                let database = inside(root, path)?;
                let scratch = self.scratch.join(format!(
                    "sqlite-{}-{}",
                    cx.run,
                    self.made.fetch_add(1, Ordering::Relaxed)
                ));
                let validator = validator.clone();
                blocking(cx, move |stop| {
                    let checked = sqlite(&validator, &database, &scratch, stop);
                    if scratch.exists() {
                        // Only the copy made above; a failure leaves a copy behind and nothing worse.
                        let _ = std::fs::remove_dir_all(&scratch);
                    }
                    checked
                })
                .await
            }
            Validator::Command { argv } => {
                let Some((program, args)) = argv.split_first() else {
                    return Err(OpError::new(
                        OpKind::InvalidInput,
                        "a command validator without a command",
                    ));
                };
                let command = Command::new(program)
                    .args(args)
                    .cwd(root)
                    .time_limit(VALIDATOR_LIMIT);
                let output = self.runner.run(&command, &cx.cancel).await;
                let output = output.map_err(|e| {
                    e.into_error(
                        format!("can't run validator {validator}"),
                        crate::error::Effect::None,
                    )
                })?;
                if output.exit.success() {
                    return Ok(());
                }
                Err(failed(
                    validator,
                    &format!("it ended with {:?}: {}", output.exit, output.stderr.text().trim()),
                ))
            }
        }
    }
}

fn failed(validator: &Validator, why: &str) -> OpError {
    OpError::new(OpKind::Failed, format!("validator {validator} says no: {why}"))
}

/// A path below a tree's root, reached without leaving it through `..` or a link.
fn inside(root: &Path, path: &Path) -> Result<PathBuf, OpError> {
    let bad = || {
        OpError::new(
            OpKind::InvalidInput,
            format!("{} does not stay inside the service's data", path.display()),
        )
    };
    if !path
        .components()
        .all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
    {
        return Err(bad());
    }
    let mut reached = root.to_owned();
    for part in path.components() {
        reached.push(part);
        if std::fs::symlink_metadata(&reached).is_ok_and(|m| m.is_symlink()) {
            return Err(bad());
        }
    }
    Ok(reached)
}

/// `PRAGMA integrity_check`, without changing a byte of the tree.
///
/// A database with a write-ahead log can't be opened read-only without writing beside it, so that one is copied first.
fn sqlite(
    validator: &Validator,
    database: &Path,
    scratch: &Path,
    stop: &Arc<AtomicBool>,
) -> Result<(), OpError> {
    let io = |error: std::io::Error| OpError::io(format!("can't run validator {validator}"), &error);
    if !database.is_file() {
        return Err(failed(validator, "there is no such file"));
    }
    let with = |suffix: &str| {
        let mut path = database.as_os_str().to_owned();
        path.push(suffix);
        PathBuf::from(path)
    };
    let log = [with("-wal"), with("-journal")]
        .into_iter()
        .find(|p| p.symlink_metadata().is_ok_and(|m| m.is_file() && m.len() > 0));
    let mut opened = database.to_owned();
    if let Some(log) = log {
        std::fs::create_dir_all(scratch).map_err(io)?;
        opened = scratch.join("db");
        copy(database, &opened, stop).map_err(io)?;
        let suffix = if log.to_string_lossy().ends_with("-wal") {
            "-wal"
        } else {
            "-journal"
        };
        copy(&log, &scratch.join(format!("db{suffix}")), stop).map_err(io)?;
    }
    // Only SQLite's own word that the file is damaged is a verdict; that it could not be read is not.
    let sql = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            failed(validator, &error.to_string())
        }
        _ => OpError::new(OpKind::Io, format!("can't run validator {validator}")).said(error),
    };
    let mut connection = if opened == database {
        let uri = format!("file:{}?immutable=1", percent(&opened));
        rusqlite::Connection::open_with_flags(
            uri,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI,
        )
        .map_err(sql)?
    } else {
        rusqlite::Connection::open(&opened).map_err(sql)?
    };
    let flag = Arc::clone(stop);
    connection
        .progress_handler(STEPS, Some(move || flag.load(Ordering::Relaxed)))
        .map_err(sql)?;
    let answer = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0));
    if stop.load(Ordering::Relaxed) {
        return Err(OpError::new(OpKind::Cancelled, "the check was cancelled"));
    }
    let answer: String = answer.map_err(sql)?;
    if answer == "ok" {
        Ok(())
    } else {
        Err(failed(validator, &answer))
    }
}

/// Copies a file in pieces, so that it can be stopped in between.
fn copy(from: &Path, to: &Path, stop: &AtomicBool) -> std::io::Result<()> {
    use std::io::Read as _;
    let (mut from, mut to) = (std::fs::File::open(from)?, std::fs::File::create_new(to)?);
    while std::io::copy(&mut from.by_ref().take(PIECE), &mut to)? > 0 {
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
    Ok(())
}

/// A path for a `file:` URI (<https://www.sqlite.org/uri.html>): everything but the plainest characters is escaped.
fn percent(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let mut text = String::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => {
                text.push(char::from(*byte));
            }
            other => text.push_str(&format!("%{other:02x}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::SystemRunner;
    use crate::names::RunId;

    fn verifier(scratch: &Path) -> (SystemVerifier, Context) {
        let verifier = SystemVerifier::new(Arc::new(SystemRunner::new()), scratch.join("scratch"));
        (verifier, Context::silent(RunId::new("run").unwrap()))
    }

    #[tokio::test]
    async fn sqlite_with_a_log_is_checked_and_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree with ?#%");
        std::fs::create_dir(&tree).unwrap();
        let live = rusqlite::Connection::open(dir.path().join("live.db")).unwrap();
        live.pragma_update(None, "journal_mode", "wal").unwrap();
        live.execute_batch("create table t(x); insert into t select value from generate_series(1, 1)")
            .ok();
        live.execute_batch("create table if not exists t(x); insert into t values (randomblob(100000))")
            .unwrap();
        for suffix in ["", "-wal"] {
            std::fs::copy(
                dir.path().join(format!("live.db{suffix}")),
                tree.join(format!("a.db{suffix}")),
            )
            .unwrap();
        }
        assert!(tree.join("a.db-wal").metadata().unwrap().len() > 0);
        let (verifier, cx) = verifier(dir.path());
        let before = verifier.measure(&cx, &tree).await.unwrap();
        verifier
            .validate(&cx, &tree, &Validator::Sqlite { path: "a.db".into() })
            .await
            .unwrap();
        assert_eq!(verifier.measure(&cx, &tree).await.unwrap(), before);
        assert!(!dir.path().join("scratch").join("sqlite-run-0").exists());

        // Without its log, and with a damaged page.
        std::fs::remove_file(tree.join("a.db-wal")).unwrap();
        live.execute_batch("pragma wal_checkpoint(truncate)").unwrap();
        let mut bytes = std::fs::read(dir.path().join("live.db")).unwrap();
        std::fs::write(tree.join("a.db"), &bytes).unwrap();
        verifier
            .validate(&cx, &tree, &Validator::Sqlite { path: "a.db".into() })
            .await
            .unwrap();
        let end = bytes.len();
        bytes[4096..end].fill(0xff);
        std::fs::write(tree.join("a.db"), &bytes).unwrap();
        let error = verifier
            .validate(&cx, &tree, &Validator::Sqlite { path: "a.db".into() })
            .await
            .unwrap_err();
        assert_eq!(error.kind(), OpKind::Failed, "{error}");
    }

    #[test]
    fn a_check_that_is_stopped_is_no_verdict() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let made = rusqlite::Connection::open(&path).unwrap();
        made.execute_batch(
            "create table t(x);
             with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000)
             insert into t select randomblob(100) from n",
        )
        .unwrap();
        drop(made);
        let validator = Validator::Sqlite { path: "a.db".into() };
        let check = |stop| {
            sqlite(
                &validator,
                &path,
                &dir.path().join("scratch"),
                &Arc::new(AtomicBool::new(stop)),
            )
        };
        check(false).unwrap();
        assert_eq!(check(true).unwrap_err().kind(), OpKind::Cancelled);
        // SQLite itself was stopped, not only our look at it.
        let mut connection = rusqlite::Connection::open(&path).unwrap();
        connection.progress_handler(STEPS, Some(|| true)).unwrap();
        let stopped = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0));
        assert_eq!(
            stopped.unwrap_err().sqlite_error_code(),
            Some(rusqlite::ErrorCode::OperationInterrupted)
        );
    }

    #[tokio::test]
    async fn validators_stay_inside_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tree")).unwrap();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink("..", dir.path().join("tree/up")).unwrap();
        let (verifier, cx) = verifier(dir.path());
        let tree = dir.path().join("tree");
        for path in ["../secret", "/etc/passwd", "up/secret"] {
            let error = verifier
                .validate(&cx, &tree, &Validator::Exists { path: path.into() })
                .await
                .unwrap_err();
            assert_eq!(error.kind(), OpKind::InvalidInput, "{path}");
        }
        let missing = verifier
            .validate(&cx, &tree, &Validator::Exists { path: "nope".into() })
            .await
            .unwrap_err();
        assert_eq!(missing.kind(), OpKind::Failed);
        let no = Validator::Command {
            argv: vec!["false".to_owned()],
        };
        assert_eq!(
            verifier.validate(&cx, &tree, &no).await.unwrap_err().kind(),
            OpKind::Failed
        );
        verifier
            .validate(
                &cx,
                &tree,
                &Validator::Command {
                    argv: vec!["test".into(), "-L".into(), "up".into()],
                },
            )
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn scratch_is_new_or_empty() {
        let dir = tempfile::tempdir().unwrap();
        let (verifier, cx) = verifier(dir.path());
        verifier.make_scratch(&cx, &dir.path().join("a/b")).await.unwrap();
        assert!(dir.path().join("a/b").is_dir());
        verifier.make_scratch(&cx, &dir.path().join("a/b")).await.unwrap();
        std::fs::write(dir.path().join("a/b/.hidden"), "").unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        for taken in ["a", "a/b", "a/b/.hidden", "link"] {
            let error = verifier
                .make_scratch(&cx, &dir.path().join(taken))
                .await
                .unwrap_err();
            assert_eq!(error.kind(), OpKind::AlreadyExists, "{taken}");
        }
    }
}
