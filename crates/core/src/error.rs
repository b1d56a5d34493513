//! One envelope for every error, and a kind per trait.
//!
//! An error says what failed, whether to try again ([`Retry`]), what may already have happened ([`Effect`]), what the
//! tool itself said, and what to do about it. It does not decide anything: the chain reads `retry` and `effect`, the
//! command prints the rest.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Retry {
    /// The same call fails again: a wrong password, no such repository.
    Never,
    /// The same call may succeed later: a timeout, a lock, a busy dataset.
    Later,
    /// The same call succeeds once somebody has mended something: a full disk, a missing permission.
    AfterFix,
}

/// What may have happened before the failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Nothing changed.
    None,
    /// Something was written, all of it in staging, where nobody takes it for data.
    StagingOnly,
    /// Some of what was asked for has been done.
    Partial,
    /// It can't be said.
    Unknown,
}

/// What kinds have in common.
pub trait Kind: Copy + fmt::Debug + Eq + Send + Sync + 'static {
    /// The kind in words for machines: `wrong-password`.
    fn name(self) -> &'static str;
    /// What retrying does unless the one who raises it knows better.
    fn retry(self) -> Retry;
    /// The same kind in a trait of another kind, where both have it.
    fn common(self) -> Option<Common>;
    /// A common kind as this trait's.
    fn from_common(common: Common) -> Self;
}

macro_rules! kinds {
    (@common $with:ident!{$($rest:tt)*}) => {
        $with! { $($rest)*
            /// The world is not as the plan says; nothing was done. Plan again.
            StalePlan = "stale-plan", Later;
            /// This backend can't do that; `caps()` says so beforehand.
            Unsupported = "unsupported", Never;
            /// Whoever asked for it took it back.
            Cancelled = "cancelled", Later;
            /// It did not finish inside its time budget.
            TimedOut = "timed-out", Later;
            /// No space, or a quota is reached, where it writes to.
            NoSpace = "no-space", AfterFix;
            /// What it should write to is read-only.
            ReadOnly = "read-only", AfterFix;
            /// The operating system or the tool refused.
            PermissionDenied = "permission-denied", AfterFix;
            /// Somebody else is using it.
            Busy = "busy", Later;
            /// The named thing does not exist.
            NotFound = "not-found", Never;
            /// Something is there already.
            AlreadyExists = "already-exists", Never;
            /// The other end does not answer.
            Unreachable = "unreachable", Later;
            /// The other end answers and does not let us in.
            AuthFailed = "auth-failed", Never;
            /// It answers, and what it holds is damaged.
            Corrupt = "corrupt", Never;
            /// A program it needs is not installed, or too old.
            ToolMissing = "tool-missing", AfterFix;
            /// A program's answer could not be understood.
            BadOutput = "bad-output", Never;
            /// The request itself makes no sense.
            InvalidInput = "invalid-input", Never;
            /// Reading or writing failed in another way.
            Io = "io", Later;
        }
    };
    (@define $(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal, $retry:ident;)* } ; $($(#[$cdoc:meta])* $common:ident = $ctext:literal, $cretry:ident;)*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
            $($(#[$cdoc])* $common,)*
        }

        impl Kind for $name {
            fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* $(Self::$common => $ctext,)* }
            }
            fn retry(self) -> Retry {
                match self { $(Self::$variant => Retry::$retry,)* $(Self::$common => Retry::$cretry,)* }
            }
            #[allow(unreachable_patterns, reason = "a kind without variants of its own has only common ones")]
            fn common(self) -> Option<Common> {
                match self { $(Self::$common => Some(Common::$common),)* _ => None }
            }
            fn from_common(common: Common) -> Self {
                match common { $(Common::$common => Self::$common,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Kind::name(*self))
            }
        }
    };
    ($($(#[$doc:meta])* $name:ident { $($body:tt)* })*) => {
        $( kinds!{ @common define_kind!{ { $(#[$doc])* $name { $($body)* } } } } )*
    };
}
macro_rules! define_kind { ({ $($head:tt)* } $($common:tt)*) => { kinds!{ @define $($head)* ; $($common)* } }; }

kinds! {
    /// The kinds that every trait has.
    Common {}
    /// How a [`SnapshotStore`](crate::SnapshotStore) fails.
    StoreKind {
        /// The pool is not imported, suspended or faulted. The data is probably there: never restore.
        PoolUnavailable = "pool-unavailable", AfterFix;
        /// Something that is not this dataset stands at the mountpoint.
        Occupied = "occupied", AfterFix;
        /// A hold keeps it.
        Held = "held", Never;
        /// Staging is taken by another source or point; settle that first.
        StageConflict = "stage-conflict", Never;
    }
    /// How a [`Replicator`](crate::Replicator) fails.
    ReplicateKind {
        /// The target has moved on by itself: no common snapshot, or it was written to.
        Diverged = "diverged", Never;
        /// The host's key is not the pinned one.
        HostKeyChanged = "host-key-changed", AfterFix;
    }
    /// How an [`OffsiteRepo`](crate::OffsiteRepo) fails.
    OffsiteKind {
        /// There is no repository there.
        NoRepository = "no-repository", Never;
        /// The repository is there, and the password opens none of its keys.
        WrongPassword = "wrong-password", Never;
        /// Somebody holds a lock that is not stale.
        Locked = "locked", Later;
        /// A format version that this engine doesn't know.
        UnsupportedVersion = "unsupported-version", Never;
    }
    /// How a [`RestoreSource`](crate::RestoreSource) fails.
    SourceKind {
        /// It answers, and the point that was asked for is not there.
        NoSuchPoint = "no-such-point", Never;
        /// It ended well and delivered nothing.
        NothingRestored = "nothing-restored", Never;
        /// What it runs in a child process died.
        Crashed = "crashed", Later;
        /// There is no repository or store where it should be.
        NoRepository = "no-repository", Never;
        /// The password is wrong.
        WrongPassword = "wrong-password", Never;
        /// Somebody holds a lock that is not stale.
        Locked = "locked", Later;
        /// The source did its part, and what it restores into could not be written.
        Target = "target", AfterFix;
    }
    /// How a [`WalArchiver`](crate::WalArchiver) fails.
    WalKind {
        /// Another content stands under that name already.
        DifferentContent = "different-content", Never;
        /// The segment is of another cluster, timeline or position than its name says.
        WrongSegment = "wrong-segment", Never;
        /// There is a gap where WAL is needed.
        Gap = "gap", Never;
    }
    /// How an operation of the core fails.
    OpKind {
        /// The configuration is wrong.
        Config = "config", AfterFix;
        /// Another run holds the service's lock.
        Locked = "locked", Later;
        /// The target's state forbids it: data is there, or can't be told.
        Blocked = "blocked", AfterFix;
        /// No source delivered, and the service's policy is to hold.
        Exhausted = "exhausted", AfterFix;
        /// A guard forbids it while the service is unseeded.
        Guarded = "guarded", AfterFix;
        /// A check found something wrong.
        Failed = "failed", AfterFix;
    }
}

/// An error of one of the traits: what failed, whether to retry, what may have happened, and what to do.
#[derive(Clone)]
pub struct Error<K: Kind>(Box<Inner<K>>);

#[derive(Debug, Clone)]
struct Inner<K> {
    kind: K,
    what: String,
    retry: Retry,
    effect: Effect,
    said: Option<String>,
    hint: Option<String>,
}

impl<K: Kind> Error<K> {
    /// An error with the kind's usual retry answer and no effect. `what` is one sentence without a full stop.
    pub fn new(kind: K, what: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            what: what.into(),
            retry: kind.retry(),
            effect: Effect::None,
            said: None,
            hint: None,
        }))
    }

    /// Overrides whether to retry.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// Says what may have happened.
    #[must_use]
    pub fn effect(mut self, effect: Effect) -> Self {
        self.0.effect = effect;
        self
    }

    /// Adds the tool's own words.
    #[must_use]
    pub fn said(mut self, words: impl fmt::Display) -> Self {
        self.0.said = Some(words.to_string());
        self
    }

    /// Adds what to do, with the command to run where there is one.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// From an error of the operating system, with the kind its number stands for.
    pub fn io(what: impl Into<String>, error: &std::io::Error) -> Self {
        Self::new(K::from_common(common_of_io(error)), what).said(error)
    }

    /// The same error as another trait's. A kind that the other trait doesn't have becomes `otherwise`.
    pub fn convert<L: Kind>(self, otherwise: L) -> Error<L> {
        let kind = self.0.kind.common().map_or(otherwise, L::from_common);
        self.with_kind(kind)
    }

    /// The same error under another kind, which may be another trait's.
    pub fn with_kind<L: Kind>(self, kind: L) -> Error<L> {
        let inner = *self.0;
        Error(Box::new(Inner {
            kind,
            what: inner.what,
            retry: inner.retry,
            effect: inner.effect,
            said: inner.said,
            hint: inner.hint,
        }))
    }

    /// Which kind it is.
    pub fn kind(&self) -> K {
        self.0.kind
    }

    /// Whether trying again can help.
    pub fn should_retry(&self) -> Retry {
        self.0.retry
    }

    /// What may have happened.
    pub fn may_have(&self) -> Effect {
        self.0.effect
    }

    /// What failed, in one sentence.
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// The tool's own words.
    pub fn tool_said(&self) -> Option<&str> {
        self.0.said.as_deref()
    }

    /// What to do about it.
    pub fn what_to_do(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The error as plain data, for the journal, events and `--json`.
    pub fn report(&self) -> ErrorReport {
        ErrorReport {
            kind: self.0.kind.name().to_owned(),
            what: self.0.what.clone(),
            retry: self.0.retry,
            effect: self.0.effect,
            said: self.0.said.clone(),
            hint: self.0.hint.clone(),
        }
    }
}

fn common_of_io(error: &std::io::Error) -> Common {
    use std::io::ErrorKind as E;
    match error.kind() {
        E::NotFound => Common::NotFound,
        E::PermissionDenied => Common::PermissionDenied,
        E::AlreadyExists => Common::AlreadyExists,
        E::StorageFull | E::QuotaExceeded | E::FileTooLarge => Common::NoSpace,
        E::ReadOnlyFilesystem => Common::ReadOnly,
        E::ResourceBusy | E::ExecutableFileBusy | E::WouldBlock => Common::Busy,
        E::TimedOut => Common::TimedOut,
        E::ConnectionRefused | E::ConnectionReset | E::HostUnreachable | E::NetworkUnreachable => {
            Common::Unreachable
        }
        E::InvalidInput | E::InvalidFilename | E::NotADirectory | E::IsADirectory => Common::InvalidInput,
        _ => Common::Io,
    }
}

impl<K: Kind> fmt::Display for Error<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        match &self.0.said {
            Some(said) => write!(f, ": {said}"),
            None => Ok(()),
        }
    }
}

impl<K: Kind> fmt::Debug for Error<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<K: Kind> std::error::Error for Error<K> {}

/// An error as plain data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// The kind's name, as `wrong-password`.
    pub kind: String,
    /// What failed.
    pub what: String,
    /// Whether trying again can help.
    pub retry: Retry,
    /// What may have happened.
    pub effect: Effect,
    /// The tool's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl fmt::Display for ErrorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.said {
            Some(said) => write!(f, ": {said}"),
            None => Ok(()),
        }
    }
}

/// An error of a [`SnapshotStore`](crate::SnapshotStore).
pub type StoreError = Error<StoreKind>;
/// An error of a [`Replicator`](crate::Replicator).
pub type ReplicateError = Error<ReplicateKind>;
/// An error of an [`OffsiteRepo`](crate::OffsiteRepo).
pub type OffsiteError = Error<OffsiteKind>;
/// An error of a [`RestoreSource`](crate::RestoreSource).
pub type SourceError = Error<SourceKind>;
/// An error of a [`WalArchiver`](crate::WalArchiver).
pub type WalError = Error<WalKind>;
/// An error of an operation of the core.
pub type OpError = Error<OpKind>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_kind_survives_conversion_and_a_special_one_becomes_the_given() {
        let full: StoreError = Error::new(StoreKind::NoSpace, "can't write").effect(Effect::StagingOnly);
        let full: SourceError = full.convert(SourceKind::Io);
        assert_eq!(
            (full.kind(), full.may_have()),
            (SourceKind::NoSpace, Effect::StagingOnly)
        );
        let gone: StoreError = Error::new(StoreKind::PoolUnavailable, "pool gone");
        let gone: SourceError = gone.convert(SourceKind::Unreachable);
        assert_eq!(
            (gone.kind(), gone.should_retry()),
            (SourceKind::Unreachable, Retry::AfterFix)
        );
    }

    #[test]
    fn io_errors_are_told_apart() {
        let no_space = std::io::Error::from_raw_os_error(28);
        assert_eq!(StoreError::io("x", &no_space).kind(), StoreKind::NoSpace);
        let read_only = std::io::Error::from_raw_os_error(30);
        assert_eq!(StoreError::io("x", &read_only).should_retry(), Retry::AfterFix);
    }
}
