//! Keeps a lock held: refreshes it in time, and notices when somebody took it away.
//!
//! A machine that sleeps runs no timers, and its monotonic clock stands still. When it wakes others may have taken its lock for stale,
//! removed it, and pruned what was uploaded under it. So how long ago the last refresh was is what the wall's or the monotonic
//! clock says, whichever is more; each refresh looks whether the lock that it replaces was still there; and so does whatever
//! makes uploaded data count. Where it wasn't, nothing more is written (restic: `monitorLockRefresh`, `RefreshStaleLock`).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::{Locker, layout};
use crate::error::{EngineError, Result};
use crate::store::Gate;

const REFRESH_EVERY: Duration = Duration::from_mins(5);
/// How often it is looked at the clocks.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(15);
const GIVE_UP_AFTER: Duration = Duration::from_mins(25);

/// A lock's files, and when the last one was written.
#[derive(Debug)]
pub(super) struct Upkeep {
    locker: Locker,
    exclusive: bool,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    /// The file of which it is known that there was one of ours at all times until it was written; none when it was given up.
    proven: Option<String>,
    /// One that was written after it, while it could not be looked whether that was still there; and when.
    fresh: Option<(String, (Timestamp, Duration))>,
    /// Files of ours that could not be removed yet.
    others: Vec<String>,
    refreshed: (Timestamp, Duration),
    /// How often refreshing has failed since.
    failed: u32,
}

/// Right after a machine has woken up its network may not be there yet.
const TRIES: u32 = 4;

impl Upkeep {
    pub(super) fn of(locker: Locker, exclusive: bool, id: String) -> Self {
        let refreshed = (locker.clock.now(), locker.clock.monotonic());
        let held = Mutex::new(Held {
            proven: Some(id),
            fresh: None,
            others: Vec::new(),
            refreshed,
            failed: 0,
        });
        Self {
            locker,
            exclusive,
            held,
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refreshes the lock when it is time to. Closes the gate when it is lost, or may be by now.
    pub(super) fn tend(&self, gate: &Gate) {
        let mut held = self.held();
        let silent = self.silent_for(&held);
        if silent < REFRESH_EVERY {
            return;
        }
        match self.refresh(&mut held) {
            Ok(()) => {}
            Err(lost @ EngineError::LockLost { .. }) => gate.close(lost),
            Err(error) => {
                tracing::warn!(%error, "cannot refresh the repository lock");
                held.failed += 1;
                if silent >= GIVE_UP_AFTER && held.failed >= TRIES {
                    gate.close(EngineError::LockLost {
                        detail: error.to_string(),
                    });
                }
            }
        }
    }

    /// That the lock is there now, and was all the time.
    pub(super) fn assure(&self) -> Result<()> {
        let mut held = self.held();
        if self.silent_for(&held) >= REFRESH_EVERY {
            return self.refresh(&mut held);
        }
        self.is_there(&held)
    }

    fn silent_for(&self, held: &Held) -> Duration {
        let (wall, monotonic) = held.refreshed;
        let by_wall = self.locker.clock.now().duration_since(wall);
        Duration::try_from(by_wall)
            .unwrap_or_default()
            .max(self.locker.clock.monotonic().saturating_sub(monotonic))
    }

    fn is_there(&self, held: &Held) -> Result<()> {
        let Some(id) = &held.proven else {
            return Err(EngineError::LockLost {
                detail: "it was given up".into(),
            });
        };
        let path = layout::lock_path(self.locker.store.prefix(), id);
        match self.locker.store.size(&path)? {
            Some(_) => Ok(()),
            None => Err(EngineError::LockLost {
                detail: "somebody removed it; what was uploaded may have been pruned since".into(),
            }),
        }
    }

    /// Writes the new one before the old one is looked for: whoever removes the old one after that sees the new one before a prune.
    fn refresh(&self, held: &mut Held) -> Result<()> {
        let (fresh, at) = match held.fresh.take() {
            Some(fresh) => fresh,
            None => {
                let now = (self.locker.clock.now(), self.locker.clock.monotonic());
                (self.locker.write(self.exclusive)?, now)
            }
        };
        if let Err(error) = self.is_there(held) {
            held.fresh = Some((fresh, at));
            return Err(error);
        }
        (held.refreshed, held.failed) = (at, 0);
        held.others.extend(held.proven.replace(fresh));
        // Tried again at the next refresh and at the end.
        held.others.retain(|id| self.locker.remove(id).is_err());
        // One that was written a while ago, before a sleep perhaps, is old itself.
        match self.silent_for(held) >= REFRESH_EVERY {
            true => self.refresh(held),
            false => Ok(()),
        }
    }

    /// Removes all of its files. It is no lock from then on.
    pub(super) fn give_up(&self) {
        let mut held = self.held();
        let mut ids: Vec<String> = held.proven.take().into_iter().collect();
        ids.extend(held.fresh.take().map(|(id, _)| id));
        for id in ids.into_iter().chain(held.others.drain(..)) {
            if let Err(error) = self.locker.remove(&id) {
                tracing::warn!(%error, lock = id, "cannot remove the repository lock; it is stale in 30 minutes");
            }
        }
    }
}

#[cfg(test)]
#[path = "upkeep_tests.rs"]
mod tests;
