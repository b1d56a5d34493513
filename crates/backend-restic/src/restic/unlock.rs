//! Taking away locks whose holders are dead, and no others.
//!
//! restic itself does it (`unlock`), for all dead locks at once: those of processes on this host that are gone, and those that nobody
//! refreshed for half an hour, by the clock of whoever wrote them and by ours. Stores that don't compare clocks (sftp, REST, a
//! directory that is mounted) let one that is wrong by more live. So where a lock of another host is old it is watched first: who is
//! alive refreshes it every five minutes, by writing another.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::time::Duration;

use reseed_core::Context;
use reseed_core::event::Event;
use reseed_core::exec::Keep;
use tokio_util::sync::CancellationToken;

use super::run::{TIDY, Watch};
use super::{Restic, argv, error};
use crate::error::{EngineError, Result};
use crate::lock::{LockFile, LockHolder, LockState, STALE_AFTER, hostname, process_alive};

/// Longer than restic takes to refresh a lock.
const WATCHED: Duration = Duration::from_mins(6);
/// More locks than anybody has; they aren't looked at one by one.
const MOST: usize = 100;
/// More than a lock, or a list of so many, has.
const PRINTED: usize = 1 << 20;

impl Restic {
    /// Whether a lock's holder is dead as far as restic's rules say: on this host and gone, or silent for half an hour. That
    /// it has the same name is all that is known of a host.
    pub(super) fn is_dead(&self, holder: &LockHolder) -> bool {
        let gone = holder.host == hostname() && holder.pid > 0 && !process_alive(holder.pid);
        let silent = holder
            .since
            .is_some_and(|since| self.clock.now().duration_since(since) > STALE_AFTER);
        gone || silent
    }

    /// Whether all that restic would take for dead is: waits where only a wrong clock may make it look so.
    ///
    /// # Errors
    /// `Cancelled`, and what asking for locks can raise.
    pub(super) async fn only_dead_ones_look_dead(&self, cx: &Context) -> Result<bool> {
        let first = self.old_elsewhere(&cx.cancel).await?;
        if first.is_empty() {
            return Ok(true);
        }
        cx.emit(Event::Warning {
            service: None,
            message: format!(
                "{}: a lock of another host is more than half an hour old; whether its holder is alive, with a clock that is wrong, shows \
                 within {} minutes",
                self.name,
                WATCHED.as_secs() / 60
            ),
            hint: None,
        });
        tokio::select! {
            () = cx.cancel.cancelled() => return Err(EngineError::Cancelled),
            () = self.clock.sleep(WATCHED) => {}
        }
        Ok(self.old_elsewhere(&cx.cancel).await?.is_subset(&first))
    }

    /// After a call of ours was ended by force: its lock is dead by restic's rules. Unless it may take another's along. Whether
    /// this works changes nothing.
    pub(super) async fn tidy_up(&self) {
        let never = CancellationToken::new();
        if self.old_elsewhere(&never).await.is_ok_and(|old| old.is_empty()) {
            let _ = self.unlock(&never).await;
        }
    }

    /// Has restic take away locks that are dead by its rules.
    pub(super) async fn unlock(&self, cancel: &CancellationToken) -> Result<()> {
        self.tidying(argv::unlock(), cancel).await.map(drop)
    }

    /// The locks that are dead by nothing but their age.
    async fn old_elsewhere(&self, cancel: &CancellationToken) -> Result<BTreeSet<String>> {
        let (locks, missed) = self.held(cancel).await?;
        if missed {
            return Err(EngineError::BadOutput {
                detail: "not all locks can be read".into(),
            });
        }
        let old = locks
            .into_iter()
            .filter(|(_, lock)| self.state(lock) == LockState::Old);
        Ok(old.map(|(id, _)| id).collect())
    }

    /// Who has the repository for himself now.
    ///
    /// # Errors
    /// `Cancelled`, and what asking for locks can raise.
    pub(super) async fn held_exclusively(&self, cx: &Context) -> Result<Option<LockHolder>> {
        let (locks, _) = self.held(&cx.cancel).await?;
        let is_it = |lock: &LockFile| lock.exclusive && self.state(lock) == LockState::Live;
        let held = locks.into_iter().find(|(_, lock)| is_it(lock));
        Ok(held.map(|(id, lock)| lock.holder(&id)))
    }

    fn state(&self, lock: &LockFile) -> LockState {
        lock.state(self.clock.now(), &hostname(), process_alive)
    }

    /// The locks there are, and whether there may be another: one that was refreshed meanwhile has another name, so that is looked for once
    /// more. What stays, and of which restic says each time that it is none, is none: `unlock` passes it, too.
    async fn held(&self, cancel: &CancellationToken) -> Result<(BTreeMap<String, LockFile>, bool)> {
        let (mut locks, mut none) = (BTreeMap::new(), BTreeSet::new());
        let mut missed = false;
        for _ in 0..2 {
            let listed = self.tidying(argv::locks(), cancel).await?;
            let ids: Vec<&str> = listed.lines().map(str::trim).filter(|line| is_id(line)).collect();
            if ids.len() > MOST {
                return Err(EngineError::BadOutput {
                    detail: format!("{} locks are more than are looked at", ids.len()),
                });
            }
            locks.retain(|id: &String, _| ids.contains(&id.as_str()));
            missed = false;
            for id in ids {
                if locks.contains_key(id) {
                    continue;
                }
                let lock = match self.tidying(argv::lock(id), cancel).await {
                    Err(EngineError::Cancelled) => return Err(EngineError::Cancelled),
                    Err(error) if error.is_of_the_store() || error.is_of_the_run() => None,
                    // Gone, or no lock: which of the two shows the next listing.
                    Err(_) => Some(None),
                    Ok(printed) => Some(serde_json::from_str(&printed).ok()),
                };
                match lock {
                    Some(Some(lock)) => drop(locks.insert(id.to_owned(), lock)),
                    Some(None) => missed |= none.insert(id.to_owned()),
                    None => missed = true,
                }
            }
            if !missed {
                break;
            }
        }
        Ok((locks, missed))
    }

    /// A short call that takes no lock; what it printed.
    async fn tidying(&self, args: Vec<OsString>, cancel: &CancellationToken) -> Result<String> {
        let Some(version) = self.version.get() else {
            return Ok(String::new());
        };
        let command = self
            .command(*version, args)?
            .keep_stdout(Keep::up_to(PRINTED))
            .time_limit(TIDY);
        let watch = Watch::over(cancel, &command).ends_silently(true);
        let command = command.heard_by(watch.listener());
        let output = match self.runner.run(&command, &watch.stop).await {
            Ok(output) => output,
            Err(error) => return Err(self.not_ended(&watch, &error)),
        };
        if !output.exit.success() {
            return Err(error::of(
                output.exit,
                &output.stderr.text(),
                &self.location.to_string(),
            ));
        }
        output
            .stdout
            .whole()
            .map(|whole| String::from_utf8_lossy(whole).into_owned())
            .ok_or_else(|| EngineError::BadOutput {
                detail: format!("{} bytes are more than locks have", output.stdout.total()),
            })
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
