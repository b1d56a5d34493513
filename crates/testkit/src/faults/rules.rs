//! The rules: which call, and what happens to it.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reseed_core::clock::{Clock, SystemClock};
use reseed_core::error::{Common, Effect};
use reseed_core::names::DatasetName;

use super::turns::Turns;

/// A method of one of the traits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    missing_docs,
    reason = "each is the method of that name; the prefix tells the trait"
)]
pub enum Op {
    StoreInspect,
    StoreList,
    StoreSince,
    StoreCreate,
    StoreHold,
    StorePrune,
    StoreStage,
    StoreSettle,
    SourcePoints,
    SourcePlan,
    SourceExecute,
    ReplicaPlan,
    ReplicaExecute,
    ReplicaLineage,
    RepoInit,
    RepoOpen,
    RepoBackup,
    /// [`OffsiteRepo::record`](reseed_core::OffsiteRepo::record).
    RepoRecord,
    RepoPoints,
    RepoCheck,
    /// [`OffsiteRepo::usage`](reseed_core::OffsiteRepo::usage).
    RepoUsage,
    WalArchive,
    WalFetch,
    WalList,
    WalBackups,
    WalBaseBackup,
}

impl Op {
    /// What may have happened when the call was made and its answer got lost.
    pub fn at_most(self) -> Effect {
        match self {
            Self::StoreInspect
            | Self::StoreList
            | Self::StoreSince
            | Self::SourcePoints
            | Self::SourcePlan
            | Self::ReplicaPlan
            | Self::ReplicaLineage
            | Self::RepoOpen
            | Self::RepoPoints
            | Self::RepoCheck
            | Self::RepoUsage
            | Self::WalList
            | Self::WalBackups => Effect::None,
            Self::StoreStage | Self::SourceExecute => Effect::StagingOnly,
            Self::StoreCreate
            | Self::StoreHold
            | Self::StorePrune
            | Self::StoreSettle
            | Self::ReplicaExecute
            | Self::RepoInit
            | Self::RepoBackup
            | Self::RepoRecord
            | Self::WalArchive
            | Self::WalFetch
            | Self::WalBaseBackup => Effect::Unknown,
        }
    }
}

/// Something that a rule does besides.
pub type Hook = Arc<dyn Fn() + Send + Sync>;

/// What happens to a call.
#[derive(Clone)]
pub enum Fault {
    /// It fails, and nothing was done.
    FailBefore(Common),
    /// It is done, and fails: the answer got lost.
    FailAfter(Common),
    /// The credentials are wrong.
    Denied,
    /// Somebody else has a lock.
    Locked,
    /// It hangs for a time, or until it is cancelled.
    Hang(Option<Duration>),
    /// It hangs at this await point of the call, for a time or until it is cancelled, and goes on then.
    HangIn(usize, Option<Duration>),
    /// It takes this long at each of its await points.
    Slow(Duration),
    /// It never answers and doesn't listen to cancelling either, like a process in state D.
    Stuck,
    /// The transfer is cut: restored files at that byte, anything else at that await point.
    Cut(u64),
    /// The same, for want of space.
    NoSpace(u64),
    /// A bit of what was restored is flipped afterwards; the number draws which.
    Flip(u64),
    /// An earlier answer to the same question, if there was one.
    Stale,
    /// The whole run crashes at this await point of the call; see [`Faults::or_crash`].
    Crash(usize),
    /// The hook is run, then the call: for flipping stored bits, for jumps of the clock.
    Before(Hook),
    /// The call is made, then the hook run.
    After(Hook),
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FailBefore(kind) => write!(f, "FailBefore({kind})"),
            Self::FailAfter(kind) => write!(f, "FailAfter({kind})"),
            Self::Denied => f.write_str("Denied"),
            Self::Locked => f.write_str("Locked"),
            Self::Hang(time) => write!(f, "Hang({time:?})"),
            Self::HangIn(at, time) => write!(f, "HangIn({at}, {time:?})"),
            Self::Slow(each) => write!(f, "Slow({each:?})"),
            Self::Stuck => f.write_str("Stuck"),
            Self::Cut(at) => write!(f, "Cut({at})"),
            Self::NoSpace(at) => write!(f, "NoSpace({at})"),
            Self::Flip(draw) => write!(f, "Flip({draw})"),
            Self::Stale => f.write_str("Stale"),
            Self::Crash(polls) => write!(f, "Crash({polls})"),
            Self::Before(_) => f.write_str("Before(..)"),
            Self::After(_) => f.write_str("After(..)"),
        }
    }
}

/// Which calls, and what happens to them.
#[derive(Debug, Clone)]
pub struct Rule {
    who: Option<String>,
    op: Option<Op>,
    turns: Turns,
    fault: Fault,
}

impl Rule {
    /// Every call of this method.
    pub fn on(op: Op, fault: Fault) -> Self {
        Self {
            who: None,
            op: Some(op),
            turns: Turns::default(),
            fault,
        }
    }

    /// Every call at all.
    pub fn always(fault: Fault) -> Self {
        Self {
            op: None,
            ..Self::on(Op::StoreInspect, fault)
        }
    }

    /// Only of the backend of this name.
    #[must_use]
    pub fn of(mut self, who: &str) -> Self {
        self.who = Some(who.to_owned());
        self
    }

    /// Not the first calls: the `n`th that matches, counted from 1, and those after it.
    #[must_use]
    pub fn from_nth(mut self, n: u32) -> Self {
        self.turns.begin_at(n);
        self
    }

    /// At most so many calls.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.turns.times = Some(times);
        self
    }

    /// The `n`th call alone.
    #[must_use]
    pub fn nth(self, n: u32) -> Self {
        self.from_nth(n).times(1)
    }

    fn matches(&self, who: &str, op: Op) -> bool {
        self.who.as_deref().is_none_or(|wanted| wanted == who) && self.op.is_none_or(|wanted| wanted == op)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = self.who.as_deref().unwrap_or("anyone");
        match self.op {
            Some(op) => write!(f, "{who} {op:?}")?,
            None => write!(f, "{who} everything")?,
        }
        write!(f, " from {} times ", self.turns.skip + 1)?;
        match self.turns.times {
            Some(times) => write!(f, "{times}")?,
            None => f.write_str("any")?,
        }
        write!(f, ": {:?}", self.fault)
    }
}

/// The rules in force. Clones share them.
#[derive(Debug, Clone)]
pub struct Faults(Arc<Inner>);

/// Earlier answers by who was asked what about which datasets, for [`Fault::Stale`].
pub(super) type Seen = BTreeMap<(String, Op, Vec<DatasetName>), Arc<dyn Any + Send + Sync>>;

#[derive(Debug)]
struct Inner {
    rules: Mutex<Vec<(u64, Rule)>>,
    next: std::sync::atomic::AtomicU64,
    struck: Mutex<Vec<String>>,
    seen: Mutex<Seen>,
    crashed: AtomicBool,
    clock: Arc<dyn Clock>,
}

/// Removes its rule when dropped.
#[derive(Debug)]
#[must_use = "the rule is removed when this is dropped"]
pub struct Guard {
    faults: Faults,
    id: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.faults.rules().retain(|(id, _)| *id != self.id);
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock::new()))
    }
}

impl Faults {
    /// No rules yet. The clock is for what hangs.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner {
            rules: Mutex::default(),
            next: std::sync::atomic::AtomicU64::default(),
            struck: Mutex::default(),
            seen: Mutex::default(),
            crashed: AtomicBool::default(),
            clock,
        }))
    }

    fn rules(&self) -> MutexGuard<'_, Vec<(u64, Rule)>> {
        self.0.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn struck(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.struck.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.0.clock
    }

    /// Puts a rule behind the others.
    pub fn add(&self, rule: Rule) -> Guard {
        let id = self.0.next.fetch_add(1, Ordering::SeqCst);
        self.rules().push((id, rule));
        Guard {
            faults: self.clone(),
            id,
        }
    }

    /// What has struck so far, taken out: `replica SourceExecute: Cut(12)`.
    pub fn take_struck(&self) -> Vec<String> {
        std::mem::take(&mut self.struck())
    }

    pub(super) fn strike(&self, who: &str, op: Op) -> Option<Fault> {
        let mut rules = self.rules();
        let (_, rule) = rules
            .iter_mut()
            .find(|(_, rule)| !rule.turns.are_over() && rule.matches(who, op))?;
        if !rule.turns.take() {
            return None;
        }
        self.struck().push(format!("{who} {op:?}: {:?}", rule.fault));
        Some(rule.fault.clone())
    }

    pub(super) fn crash(&self) {
        self.0.crashed.store(true, Ordering::SeqCst);
    }

    pub(super) fn take_crash(&self) -> bool {
        self.0.crashed.swap(false, Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_match_wins_and_the_guard_ends_it() {
        let faults = Faults::default();
        let first = faults.add(Rule::on(Op::StoreList, Fault::Denied).of("a").nth(2));
        let _second = faults.add(Rule::always(Fault::Stale).times(3));
        let strike = |who, op| faults.strike(who, op).map(|fault| format!("{fault:?}"));
        assert_eq!(strike("a", Op::StoreList), None, "the first call is skipped");
        assert_eq!(strike("b", Op::StoreList).as_deref(), Some("Stale"));
        assert_eq!(strike("a", Op::StoreList).as_deref(), Some("Denied"));
        assert_eq!(
            strike("a", Op::StoreList).as_deref(),
            Some("Stale"),
            "a rule that is used up passes on"
        );
        drop(first);
        assert_eq!(strike("a", Op::StoreHold).as_deref(), Some("Stale"));
        assert_eq!(strike("a", Op::StoreHold), None);
        assert_eq!(faults.take_struck().len(), 4);
    }
}
