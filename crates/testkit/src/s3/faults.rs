//! The rules by which the server fails: which request, and what happens to it.
//!
//! The first rule that matches a request strikes. A rule lasts as long as its [`S3Guard`].

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::faults::turns::Turns;

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum S3Op {
    /// An object is read, or a part of it.
    Get,
    /// An object is looked at.
    Head,
    /// An object is written.
    Put,
    /// An object is removed.
    Delete,
    /// Objects are listed.
    List,
    /// Anything else.
    Other,
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum S3Fault {
    /// It is answered by an error in S3's words, and nothing is done.
    Error {
        /// The HTTP status.
        status: u16,
        /// S3's code.
        code: &'static str,
        /// What else it says.
        message: &'static str,
    },
    /// It is answered with this status by something that isn't S3.
    NotS3(u16),
    /// It takes so long before anything is done.
    Slow(Duration),
    /// It is never answered.
    Hang,
    /// The connection is closed before anything is done.
    Reset,
    /// It is done, and the connection closed instead of an answer.
    LostAnswer,
    /// The answer's body ends after so many bytes, at the latest one byte too early.
    Cut(usize),
    /// A bit of the answer's body is wrong, at this byte or the last one.
    Flip(usize),
    /// A listing that isn't at its end doesn't say where it goes on.
    NoToken,
    /// What is written while the rule lasts is not listed.
    Lag,
    /// What may only be created is overwritten all the same, as Garage does.
    Unconditional,
}

impl S3Fault {
    const fn error(status: u16, code: &'static str, message: &'static str) -> Self {
        Self::Error {
            status,
            code,
            message,
        }
    }

    /// Whether it is no answer to a request but how the store does things.
    fn is_habit(&self) -> bool {
        matches!(self, Self::Lag | Self::Unconditional)
    }

    /// The server's own failure.
    pub const INTERNAL: Self = Self::error(500, "InternalError", "We encountered an internal error.");
    /// Too many requests.
    pub const SLOW_DOWN: Self = Self::error(503, "SlowDown", "Please reduce your request rate.");
    /// The session's time is over.
    pub const EXPIRED: Self = Self::error(403, "ExpiredToken", "The provided token has expired.");
    /// The client's clock is off.
    pub const SKEWED: Self = Self::error(
        403,
        "RequestTimeTooSkewed",
        "The difference between the request time and the current time is too large.",
    );
    /// The bucket is elsewhere, and says so.
    pub const ELSEWHERE: Self = Self::error(
        301,
        "PermanentRedirect",
        "The bucket you are attempting to access must be addressed using the specified endpoint.",
    );
    /// The bucket is not there.
    pub const NO_BUCKET: Self = Self::error(404, "NoSuchBucket", "The specified bucket does not exist");
    /// The bucket's quota is used up.
    pub const QUOTA: Self = Self::error(403, "QuotaExceeded", "Bucket size quota is reached");
    /// The server's disk is full.
    pub const FULL: Self = Self::error(507, "InsufficientStorage", "The server has no space left");
    /// The key may not do this.
    pub const DENIED: Self = Self::error(403, "AccessDenied", "Access Denied");
}

/// Which requests, and what happens to them.
#[derive(Debug, Clone)]
pub struct S3Rule {
    op: Option<S3Op>,
    key: Option<String>,
    turns: Turns,
    fault: S3Fault,
}

impl S3Rule {
    /// Every request of this kind.
    pub fn on(op: S3Op, fault: S3Fault) -> Self {
        Self {
            op: Some(op),
            ..Self::always(fault)
        }
    }

    /// Every request at all.
    pub fn always(fault: S3Fault) -> Self {
        Self {
            op: None,
            key: None,
            turns: Turns::default(),
            fault,
        }
    }

    /// Only where this is in the key, or in the prefix of what is listed.
    #[must_use]
    pub fn key(mut self, part: &str) -> Self {
        self.key = Some(part.to_owned());
        self
    }

    /// Not the first requests: the `n`th that matches, counted from 1, and those after it.
    #[must_use]
    pub fn from_nth(mut self, n: u32) -> Self {
        self.turns.begin_at(n);
        self
    }

    /// At most so many requests.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.turns.times = Some(times);
        self
    }

    fn matches(&self, op: S3Op, key: &str) -> bool {
        self.op.is_none_or(|wanted| wanted == op) && self.key.as_deref().is_none_or(|part| key.contains(part))
    }
}

/// The rules in force. Clones share them.
#[derive(Clone, Default)]
pub struct S3Faults(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    rules: Vec<(u64, S3Rule)>,
    next: u64,
    struck: Vec<String>,
    requests: Vec<(S3Op, String)>,
    unlisted: BTreeSet<String>,
}

impl fmt::Debug for S3Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("S3Faults").field(&self.state().rules).finish()
    }
}

/// Removes its rule when dropped.
#[derive(Debug)]
#[must_use = "the rule is removed when this is dropped"]
pub struct S3Guard {
    faults: S3Faults,
    id: u64,
}

impl Drop for S3Guard {
    fn drop(&mut self) {
        let mut state = self.faults.state();
        state.rules.retain(|(id, _)| *id != self.id);
        if !state.rules.iter().any(|(_, rule)| rule.fault == S3Fault::Lag) {
            state.unlisted.clear();
        }
    }
}

impl S3Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a rule behind the others.
    pub fn add(&self, rule: S3Rule) -> S3Guard {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        state.rules.push((id, rule));
        S3Guard {
            faults: self.clone(),
            id,
        }
    }

    /// What has struck so far, taken out: `Get data/00/…: Cut(12)`.
    pub fn take_struck(&self) -> Vec<String> {
        std::mem::take(&mut self.state().struck)
    }

    /// The requests so far, taken out: what was asked, and of which key or prefix.
    pub fn take_requests(&self) -> Vec<(S3Op, String)> {
        std::mem::take(&mut self.state().requests)
    }

    /// What happens to a request. Habits of the whole store pass here.
    pub(super) fn strike(&self, op: S3Op, key: &str) -> Option<S3Fault> {
        let mut state = self.state();
        state.requests.push((op, key.to_owned()));
        let (_, rule) = state
            .rules
            .iter_mut()
            .find(|(_, rule)| !rule.fault.is_habit() && !rule.turns.are_over() && rule.matches(op, key))?;
        if !rule.turns.take() {
            return None;
        }
        let fault = rule.fault.clone();
        state.struck.push(format!("{op:?} {key}: {fault:?}"));
        Some(fault)
    }

    /// An object was written.
    pub(super) fn wrote(&self, key: &str) {
        let mut state = self.state();
        let lags = state
            .rules
            .iter()
            .any(|(_, rule)| rule.fault == S3Fault::Lag && rule.matches(S3Op::List, key));
        if lags {
            state.unlisted.insert(key.to_owned());
        }
    }

    /// Whether conditions of a write are honoured.
    pub(super) fn honours_conditions(&self) -> bool {
        let state = self.state();
        !state
            .rules
            .iter()
            .any(|(_, rule)| rule.fault == S3Fault::Unconditional)
    }

    /// Whether an object is listed.
    pub(super) fn lists(&self, key: &str) -> bool {
        let mut state = self.state();
        let listed = !state.unlisted.contains(key);
        if !listed {
            state.struck.push(format!("List {key}: Lag"));
        }
        listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_match_wins_and_the_guard_ends_it() {
        let faults = S3Faults::default();
        let first = faults.add(
            S3Rule::on(S3Op::Get, S3Fault::Hang)
                .key("data/")
                .from_nth(2)
                .times(1),
        );
        let _second = faults.add(S3Rule::always(S3Fault::Reset).times(2));
        assert_eq!(faults.strike(S3Op::Get, "r/data/1"), None, "the first is skipped");
        assert_eq!(faults.strike(S3Op::Get, "r/keys/1"), Some(S3Fault::Reset));
        assert_eq!(faults.strike(S3Op::Get, "r/data/1"), Some(S3Fault::Hang));
        assert_eq!(faults.strike(S3Op::Get, "r/data/1"), Some(S3Fault::Reset));
        assert_eq!(faults.strike(S3Op::Get, "r/data/1"), None);
        drop(first);
        assert_eq!(faults.take_struck().len(), 3);
    }

    #[test]
    fn a_listing_lags_while_its_rule_lasts() {
        let faults = S3Faults::default();
        faults.wrote("r/snapshots/0");
        let lag = faults.add(S3Rule::on(S3Op::List, S3Fault::Lag).key("snapshots/"));
        faults.wrote("r/snapshots/1");
        faults.wrote("r/index/1");
        assert!(faults.lists("r/snapshots/0") && faults.lists("r/index/1"));
        assert!(!faults.lists("r/snapshots/1"));
        drop(lag);
        assert!(faults.lists("r/snapshots/1"));
    }
}
