//! Taking away locks whose holders are dead, and no others.
//!
//! restic itself does it (`unlock`), for all dead locks at once: those of processes on this host that are gone, and those that nobody
//! refreshed for half an hour, by the clock of whoever wrote them and by ours. Stores that don't compare clocks (sftp, REST, a
//! directory that is mounted) let one that is wrong by more live. And of two machines or containers of one name either knows nothing of the other's processes. So
//! where a lock of another host is old, or one of this host's name was refreshed a moment ago by a process that isn't here, it is
//! watched first: who is alive refreshes it every five minutes, by writing another. A backup's counts like a prune's: whoever works on
//! without its lock loses what the next prune takes for unneeded, and restic doesn't look whether it still has one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reseed_core::Context;
use reseed_core::event::Event;
use reseed_core::exec::Keep;
use tokio_util::sync::CancellationToken;

use super::run::{TIDY, Watch};
use super::{Restic, argv, error};
use crate::error::{EngineError, Result};
use crate::lock::{LockFile, LockHolder, LockState, STALE_AFTER, WATCHED, hostname, process_alive};

/// More locks than anybody has; they aren't looked at one by one.
const MOST: usize = 100;
/// After a call that was ended no run waits longer for its lock to be taken away. Nobody can end it sooner.
const ALL_OF_IT: Duration = Duration::from_secs(60);
/// More than a lock, or a list of so many, has.
const PRINTED: usize = 1 << 20;

impl Restic {
    /// Whether a lock's holder is dead as far as restic's rules say: on this host and gone, or silent for half an hour. That
    /// it has the same name is all that is known of a host.
    pub(super) fn is_dead(&self, holder: &LockHolder) -> bool {
        let gone = holder.host == hostname() && holder.pid > 0 && !process_alive(holder.pid);
        let age = match (holder.age, holder.since) {
            (Some(seconds), _) => Some(SignedDuration::from_secs(seconds.into())),
            (None, Some(since)) => Some(self.clock.now().duration_since(since)),
            (None, None) => None,
        };
        let silent = age.is_some_and(|age| age > STALE_AFTER);
        gone || silent
    }

    /// Whether all that restic would take for dead is: waits where only a wrong clock may make it look so.
    ///
    /// # Errors
    /// `Cancelled`, and what asking for locks can raise.
    pub(super) async fn only_dead_ones_look_dead(&self, cx: &Context) -> Result<bool> {
        let first = self.doubtful(&cx.cancel).await?;
        if first.is_empty() {
            return Ok(true);
        }
        cx.emit(Event::Warning {
            service: None,
            message: format!(
                "{}: a lock looks like a dead run's; whether its holder is alive, on another machine of the same name or with a clock that is \
                 wrong, shows within {} minutes",
                self.name,
                WATCHED.as_mins()
            ),
            hint: None,
        });
        tokio::select! {
            () = cx.cancel.cancelled() => return Err(EngineError::Cancelled),
            () = self.clock.sleep(WATCHED.unsigned_abs()) => {}
        }
        Ok(self.doubtful(&cx.cancel).await?.is_subset(&first))
    }

    /// After a call of ours, which began then as this process, was ended by force: its lock is dead by restic's rules. Unless it may take another's
    /// along. Whether this works changes nothing.
    pub(super) async fn tidy_up(&self, began: Timestamp, pid: Option<i32>) {
        let stop = CancellationToken::new();
        let tidied = async {
            if self.only_ours_looks_dead(&stop, began, pid).await == Ok(true) {
                let _ = self.unlock(&stop).await;
            }
        };
        tokio::pin!(tidied);
        tokio::select! {
            biased;
            () = &mut tidied => return,
            () = self.clock.sleep(ALL_OF_IT) => stop.cancel(),
        }
        tidied.await;
    }

    /// Whether no other lock may go with that of the call. A second one with its name and number may be a namesake's.
    async fn only_ours_looks_dead(
        &self,
        cancel: &CancellationToken,
        began: Timestamp,
        pid: Option<i32>,
    ) -> Result<bool> {
        let is_ours = |lock: &LockFile| {
            self.state(lock) == LockState::Dead && Some(lock.pid) == pid && lock.time >= began
        };
        let (ours, others): (Vec<_>, Vec<_>) = self.all_held(cancel).await?.into_values().partition(is_ours);
        Ok(ours.len() < 2 && !others.iter().any(|lock| self.is_doubtful(lock)))
    }

    /// Has restic take away locks that are dead by its rules.
    pub(super) async fn unlock(&self, cancel: &CancellationToken) -> Result<()> {
        self.tidying(argv::unlock(), cancel).await.map(drop)
    }

    /// The locks that are dead by nothing but their age, or by nothing but this host's name.
    async fn doubtful(&self, cancel: &CancellationToken) -> Result<BTreeSet<String>> {
        let mut locks = self.all_held(cancel).await?;
        locks.retain(|_, lock| self.is_doubtful(lock));
        Ok(locks.into_keys().collect())
    }

    fn is_doubtful(&self, lock: &LockFile) -> bool {
        match self.state(lock) {
            LockState::Old => true,
            LockState::Dead => lock.may_be_refreshed(self.clock.now()),
            LockState::Live => false,
        }
    }

    /// Who may have the repository for himself now.
    ///
    /// # Errors
    /// `Cancelled`, and what asking for locks can raise.
    pub(super) async fn held_exclusively(&self, cx: &Context) -> Result<Option<LockHolder>> {
        let (now, host) = (self.clock.now(), hostname());
        self.exclusive(cx, |lock| lock.may_be_held(now, &host)).await
    }

    /// Who has it for himself and isn't known to be gone: for those who read, who pass one whose process isn't here.
    pub(super) async fn kept_from_readers(&self, cx: &Context) -> Result<Option<LockHolder>> {
        self.exclusive(cx, |lock| self.state(lock) == LockState::Live)
            .await
    }

    async fn exclusive(
        &self,
        cx: &Context,
        counts: impl Fn(&LockFile) -> bool,
    ) -> Result<Option<LockHolder>> {
        let (locks, _) = self.held(&cx.cancel).await?;
        let mut locks = locks.into_iter();
        let held = locks.find(|(_, lock)| lock.exclusive && counts(lock));
        Ok(held.map(|(id, lock)| lock.holder(&id)))
    }

    /// Every lock there is.
    async fn all_held(&self, cancel: &CancellationToken) -> Result<BTreeMap<String, LockFile>> {
        match self.held(cancel).await? {
            (locks, false) => Ok(locks),
            (_, true) => Err(EngineError::BadOutput {
                detail: "not all locks can be read".into(),
            }),
        }
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
                    // The next would wait for as long.
                    Err(error @ (EngineError::Cancelled | EngineError::ToolDied { .. })) => {
                        return Err(error);
                    }
                    Err(error) if error.is_of_the_store() => return Err(error),
                    Err(error) if error.is_of_the_run() => None,
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
