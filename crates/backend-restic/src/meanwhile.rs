//! Whether what a check finds is damage, or was taken away by somebody while it looked.
//!
//! A check takes no lock: its key may not be able to write one, and a prune would have to wait for as long as reading everything takes. So a
//! prune may run meanwhile, and what it removes is missing to a check that has read the index before. It shows: whoever removes data
//! keeps the repository for himself, and has replaced the index files that name it before he lets go. Files that are added do no harm:
//! snapshots are read before the index, and that before packs are listed. A pack that is there, and not what it should be, is damage whatever
//! another does: nobody changes one.

use std::collections::BTreeSet;

use rustic_core::{FileType, ReadBackend};

use crate::backup::Cancelled;
use crate::check::{Findings, ReadData};
use crate::error::{EngineError, Result};
use crate::lock::LockHolder;
use crate::repo::{Engine, OpenRepo};
use crate::secret::Password;

/// The names of what says what there is: index files and snapshots. They are hashes, so that none changes.
pub(crate) type Files = BTreeSet<String>;

/// So often a repository is checked that is changed each time.
const TRIES: u32 = 2;

/// Whether findings tell of damage. If not, look again.
///
/// # Errors
/// `Locked` while somebody has the repository for himself; what keeps from looking.
pub(crate) fn is_damage(
    before: Option<&Files>,
    after: Result<Files>,
    holder: Result<Option<LockHolder>>,
) -> Result<bool> {
    match holder {
        Ok(None) => {}
        Ok(Some(holder)) => return Err(EngineError::Locked { holder }),
        Err(error @ (EngineError::Cancelled | EngineError::ToolDied { .. })) => return Err(error),
        Err(error) if error.is_of_the_store() => return Err(error),
        // That the locks can't be read may be damage, too.
        Err(_) => {}
    }
    match before {
        // Neither could this be read, before anything was found.
        None => Ok(true),
        Some(before) => Ok(before.is_subset(&after?)),
    }
}

/// What becomes of findings.
pub(crate) enum Judged {
    /// They tell of damage.
    Damage,
    /// It is to be looked again.
    Again,
    /// They may be what another removes, for this reason.
    Doubtful(EngineError),
}

/// Judges what the try of this number has found, by [`is_damage`].
///
/// # Errors
/// What keeps from judging.
pub(crate) fn judged(tries: u32, is_damage: Result<bool>) -> Result<Judged> {
    match is_damage {
        Ok(true) => Ok(Judged::Damage),
        Ok(false) if tries < TRIES => Ok(Judged::Again),
        Ok(false) => Ok(Judged::Doubtful(never_at_rest())),
        Err(error @ EngineError::Locked { .. }) => Ok(Judged::Doubtful(error)),
        Err(error) => Err(error),
    }
}

/// It was changed each time.
fn never_at_rest() -> EngineError {
    EngineError::Busy {
        detail: "files were removed from the repository while it was checked, so that what was missing says nothing".to_owned(),
    }
}

impl Engine {
    /// [Checks](OpenRepo::check) the repository, and again where it was changed meanwhile.
    ///
    /// # Errors
    /// `Locked` and `Busy` where what was found may be what another removes; what keeps it from looking.
    pub fn check(&self, password: &Password, read: ReadData, cancelled: &Cancelled) -> Result<Findings> {
        let mut tries = 0;
        loop {
            tries += 1;
            let open = self.open(password)?;
            let before = open.files().ok();
            let found = open.check(read, cancelled)?;
            if found.errors.is_empty() {
                return Ok(found);
            }
            let is_damage = is_damage(before.as_ref(), open.files(), open.held_exclusively());
            let doubt = match judged(tries, is_damage)? {
                Judged::Damage => return Ok(found),
                Judged::Again => continue,
                Judged::Doubtful(doubt) => doubt,
            };
            let mut wrong = open.only_wrong(found)?.ok_or_else(|| doubt.clone())?;
            wrong.warnings.push(told_less(&doubt));
            return Ok(wrong);
        }
    }
}

/// What a check adds that leaves out what may have been removed meanwhile.
pub(crate) fn told_less(doubt: &EngineError) -> String {
    format!("what else was found may be what another removes, and is left out: {doubt}")
}

impl OpenRepo {
    /// Of what was found, the packs that are still there and not what they should be; none where there is no such pack.
    fn only_wrong(&self, found: Findings) -> Result<Option<Findings>> {
        if found.wrong.is_empty() {
            return Ok(None);
        }
        let packs = self.backend.list(FileType::Pack);
        let packs = packs.map_err(|error| self.error(&error, "list packs"))?;
        let there: Files = packs.iter().map(|id| id.to_hex().to_string()).collect();
        let mut wrong = found.wrong;
        wrong.retain(|pack, _| there.contains(pack));
        let tell = |(pack, detail): (&String, &String)| format!("pack {pack}: {detail}");
        Ok((!wrong.is_empty()).then(|| Findings {
            errors: wrong.iter().map(tell).collect(),
            // Where the rest is, nobody knows yet.
            affected: None,
            wrong,
            ..found
        }))
    }

    fn files(&self) -> Result<Files> {
        let mut files = Files::new();
        for kind in [FileType::Index, FileType::Snapshot] {
            let listed = self.backend.list(kind);
            let ids = listed.map_err(|error| self.error(&error, "list files"))?;
            files.extend(ids.iter().map(|id| id.to_hex().to_string()));
        }
        Ok(files)
    }

    /// Who has the repository for himself now.
    fn held_exclusively(&self) -> Result<Option<LockHolder>> {
        let (now, host) = (self.locker.clock.now(), &self.locker.host);
        let mut locks = self.locks()?.into_iter();
        let held = locks.find(|(_, lock)| lock.exclusive && lock.may_be_held(now, host));
        Ok(held.map(|(id, lock)| lock.holder(&id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Files {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn lost() -> EngineError {
        EngineError::Unreachable {
            location: "b2".to_owned(),
            detail: String::new(),
        }
    }

    #[test]
    fn only_what_was_taken_away_makes_findings_doubtful() {
        let before = files(&["a", "b"]);
        let judged = |after| is_damage(Some(&before), after, Ok(None));
        assert_eq!(judged(Ok(files(&["a", "b"]))), Ok(true));
        assert_eq!(judged(Ok(files(&["a", "b", "c"]))), Ok(true));
        assert_eq!(judged(Ok(files(&["a", "c"]))), Ok(false));
        assert_eq!(judged(Err(lost())), Err(lost()));
        // What couldn't be listed before is part of what is found.
        assert_eq!(is_damage(None, Err(lost()), Ok(None)), Ok(true));
    }

    #[test]
    fn locks_that_are_held_or_cannot_be_asked_for_make_them_doubtful() {
        let before = files(&["a"]);
        let judged = |holder| is_damage(Some(&before), Ok(files(&["a"])), holder);
        let holder = LockHolder {
            who: "root".to_owned(),
            host: "other".to_owned(),
            pid: 7,
            since: None,
            age: None,
            id: "ab".repeat(32),
        };
        assert_eq!(
            judged(Ok(Some(holder.clone()))),
            Err(EngineError::Locked { holder })
        );
        assert_eq!(judged(Err(lost())), Err(lost()));
        let garbage = EngineError::Unreadable {
            what: "lock ab".to_owned(),
            detail: String::new(),
        };
        assert_eq!(judged(Err(garbage)), Ok(true));
    }
}
