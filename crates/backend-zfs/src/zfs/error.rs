//! What the tools' words on standard error mean: one [`Fault`] for what a caller would act on differently, and from it
//! an error of whichever trait. Pure.
//!
//! The exit code of `zfs` is 1 for nearly everything, so the words decide. They are libzfs's, the same from 2.1 to 2.3
//! (a test looks for each in all three) but for one: a held snapshot is "being held" in 2.3 and "busy" before. They are untranslated, because commands run with `LC_ALL=C`. Words that nobody knows become `Io`: never "not there", never
//! success.

use reseed_core::error::{Common, Effect, Error, Kind, ReplicateKind, Retry, SourceKind, StoreKind};
use reseed_core::exec::{ExecError, Output, PipeOutput};

use super::watch::{Broken, Stalled};

/// What went wrong, by the tool's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A dataset, snapshot or pool is not there.
    NotFound,
    /// A name is taken.
    Exists,
    /// Somebody uses it.
    Busy,
    /// A hold keeps it.
    Held,
    /// The pool or a quota is full.
    NoSpace,
    /// Not allowed.
    Permission,
    /// The pool is suspended, faulted or not there.
    Pool,
    /// A checksum, or the disk.
    Damaged,
    /// The receiving side was written to, or has no common snapshot.
    Diverged,
    /// The pool or dataset is read-only.
    ReadOnly,
    /// The encryption key isn't loaded.
    Key,
    /// ssh: no connection.
    Unreachable,
    /// ssh: not let in.
    Auth,
    /// ssh: another host key than the pinned one.
    HostKey,
    /// The other host's shell doesn't find `zfs`.
    NoTool,
    /// Nobody knows these words.
    Other,
}

/// In the order in which they are looked for: the special before the general.
pub(super) const WORDS: &[(&str, Fault)] = &[
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", Fault::HostKey),
    ("Host key verification failed", Fault::HostKey),
    ("Permission denied (", Fault::Auth),
    ("Too many authentication failures", Fault::Auth),
    ("Could not resolve hostname", Fault::Unreachable),
    ("Connection refused", Fault::Unreachable),
    ("Connection timed out", Fault::Unreachable),
    ("No route to host", Fault::Unreachable),
    ("Connection closed by", Fault::Unreachable),
    ("Connection reset by", Fault::Unreachable),
    ("Network is unreachable", Fault::Unreachable),
    ("closed by remote host", Fault::Unreachable),
    ("Timeout, server", Fault::Unreachable),
    ("client_loop: send disconnect", Fault::Unreachable),
    // The remote shell's words: programs below /usr/sbin aren't on every user's path.
    ("zfs: command not found", Fault::NoTool),
    ("zfs: not found", Fault::NoTool),
    ("zfs: No such file", Fault::NoTool),
    // A cut stream, not damage: the other end of the pipe or of the connection went away.
    ("checksum mismatch or incomplete stream", Fault::Other),
    ("failed to read from stream", Fault::Other),
    ("it's being held", Fault::Held),
    ("has dependent clones", Fault::Busy),
    ("snapshot is cloned", Fault::Busy),
    ("pool I/O is currently suspended", Fault::Pool),
    ("pool is suspended", Fault::Pool),
    ("no such pool", Fault::Pool),
    ("pool is unavailable", Fault::Pool),
    ("has been modified\nsince most recent snapshot", Fault::Diverged),
    ("has been modified", Fault::Diverged),
    ("most recent snapshot of", Fault::Diverged),
    ("encryption key not loaded", Fault::Key),
    ("key must be loaded", Fault::Key),
    ("No space left", Fault::NoSpace),
    ("out of space", Fault::NoSpace),
    ("quota exceeded", Fault::NoSpace),
    ("Disk quota exceeded", Fault::NoSpace),
    ("size is greater than available space", Fault::NoSpace),
    ("Read-only file system", Fault::ReadOnly),
    ("read-only", Fault::ReadOnly),
    ("Input/output error", Fault::Damaged),
    ("I/O error", Fault::Damaged),
    ("checksum mismatch", Fault::Damaged),
    ("Invalid exchange", Fault::Damaged),
    ("insufficient replicas", Fault::Damaged),
    ("permission denied", Fault::Permission),
    ("Permission denied", Fault::Permission),
    ("Operation not permitted", Fault::Permission),
    ("dataset already exists", Fault::Exists),
    ("bookmark exists", Fault::Exists),
    ("destination already exists", Fault::Exists),
    ("destination '", Fault::Exists),
    ("already exists", Fault::Exists),
    ("dataset is busy", Fault::Busy),
    ("pool or dataset is busy", Fault::Busy),
    ("target is busy", Fault::Busy),
    ("is busy", Fault::Busy),
    ("dataset does not exist", Fault::NotFound),
    ("parent does not exist", Fault::NotFound),
    ("could not find any snapshots to destroy", Fault::NotFound),
    ("does not exist", Fault::NotFound),
    ("No such file or directory", Fault::NotFound),
];

/// What the words mean.
pub(crate) fn classify(stderr: &str) -> Fault {
    WORDS
        .iter()
        .find(|(words, _)| stderr.contains(words))
        .map_or(Fault::Other, |(_, fault)| *fault)
}

/// A trait's kinds, as far as faults become kinds of its own.
pub(crate) trait FromFault: Kind {
    /// The kind that this trait has for a fault beyond the common ones.
    fn special(fault: Fault) -> Option<Self>;
}

impl FromFault for StoreKind {
    fn special(fault: Fault) -> Option<Self> {
        match fault {
            Fault::Pool => Some(Self::PoolUnavailable),
            Fault::Held => Some(Self::Held),
            _ => None,
        }
    }
}

impl FromFault for SourceKind {
    fn special(_: Fault) -> Option<Self> {
        None
    }
}

impl FromFault for ReplicateKind {
    fn special(fault: Fault) -> Option<Self> {
        match fault {
            Fault::Diverged => Some(Self::Diverged),
            Fault::HostKey => Some(Self::HostKeyChanged),
            _ => None,
        }
    }
}

impl Fault {
    fn common(self) -> Common {
        match self {
            Self::NotFound => Common::NotFound,
            Self::Exists => Common::AlreadyExists,
            Self::Busy | Self::Held => Common::Busy,
            Self::NoSpace => Common::NoSpace,
            Self::Permission | Self::Key => Common::PermissionDenied,
            Self::Pool | Self::Unreachable => Common::Unreachable,
            Self::Damaged => Common::Corrupt,
            Self::Diverged => Common::StalePlan,
            Self::ReadOnly => Common::ReadOnly,
            Self::Auth | Self::HostKey => Common::AuthFailed,
            Self::NoTool => Common::ToolMissing,
            Self::Other => Common::Io,
        }
    }

    fn hint(self) -> Option<&'static str> {
        Some(match self {
            Self::Pool => "look at `zpool status`; the data is probably still there",
            Self::Key => "load the key with `zfs load-key`, then run it again",
            Self::NoSpace => "make room (`zfs list -o space`), or raise the quota, then run it again",
            Self::Damaged => "look at `zpool status -v`",
            Self::HostKey => "compare the host's key with the pinned one before you replace it",
            Self::NoTool => {
                "on the other host, make `zfs` reachable for a shell that isn't interactive (sshd's `SetEnv PATH=…`)"
            }
            _ => return None,
        })
    }
}

/// An error of a trait, from what a tool said before it failed.
pub(crate) fn said<K: FromFault>(
    what: impl Into<String>,
    fault: Fault,
    words: &str,
    effect: Effect,
) -> Error<K> {
    let kind = K::special(fault).unwrap_or_else(|| K::from_common(fault.common()));
    let mut error = Error::new(kind, what).effect(effect);
    if fault == Fault::Pool {
        error = error.retry(Retry::AfterFix);
    }
    if !words.trim().is_empty() {
        error = error.said(last_lines(words));
    }
    match fault.hint() {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// The last words, in one line. How the command is used, which `zfs` may tell after what is wrong, is of no use here.
fn last_lines(words: &str) -> String {
    let said = match words.split_once("\nusage:") {
        Some((said, _)) if !said.trim().is_empty() => said,
        _ => words,
    };
    let lines: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(4)..].join(" / ")
}

/// The output of a command that must have exited with 0.
pub(crate) fn succeeded<K: FromFault>(
    result: Result<Output, ExecError>,
    what: impl Into<String>,
    effect: Effect,
) -> Result<Output, Error<K>> {
    match result {
        Ok(output) if output.exit.success() => Ok(output),
        Ok(output) => {
            let words = output.stderr.text();
            Err(said(what, classify(&words), &words, effect))
        }
        Err(error) => Err(error.into_error(what, effect)),
    }
}

/// The same of a stream: the words of all its stages are looked at, the culprit's are told.
pub(crate) fn piped<K: FromFault>(
    result: Result<PipeOutput, Broken>,
    what: impl Into<String>,
    effect: Effect,
) -> Result<PipeOutput, Error<K>> {
    match result {
        Ok(output) => match output.culprit() {
            None => Ok(output),
            Some(culprit) => {
                let words = culprit.stderr.text().into_owned();
                let fault = match classify(&words) {
                    // ssh's own exit code, where it hasn't said why.
                    Fault::Other if culprit.exit.code() == Some(255) => Fault::Unreachable,
                    fault => fault,
                };
                Err(said(what, fault, &words, effect))
            }
        },
        Err(Broken::Exec(error)) => Err(error.into_error(what, effect)),
        Err(Broken::Stalled(stalled)) => Err(stood_still(&stalled, what.into(), effect)),
    }
}

fn stood_still<K: FromFault>(stalled: &Stalled, what: String, effect: Effect) -> Error<K> {
    let minutes = stalled.time.as_secs() / 60;
    let words =
        format!("nothing of it has moved for {minutes} minutes, and it was stopped; what has arrived stays");
    match &stalled.pool {
        Some(why) => said(what, Fault::Pool, &format!("{words}: {why}"), effect),
        None => Error::new(K::from_common(Common::TimedOut), what)
            .effect(effect)
            .said(words)
            .hint("look at the disks and at `dmesg` at both ends; the next run goes on from there"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reseed_core::error::StoreError;

    /// Recorded from OpenZFS 2.3.2.
    #[test]
    fn recorded_words_are_understood() {
        for (words, fault) in [
            (
                "cannot open 'tank/nope': dataset does not exist\n",
                Fault::NotFound,
            ),
            (
                "cannot create snapshot 'tank/svc/a@one': dataset already exists\n",
                Fault::Exists,
            ),
            (
                "cannot destroy snapshot tank/svc/a@one: it's being held. Run 'zfs holds -r tank/svc/a@one' to see holders.\n",
                Fault::Held,
            ),
            (
                "cannot destroy 'tank/svc/a@one': snapshot has dependent clones\nuse '-R' to destroy the following datasets:\ntank/svc/cl\n",
                Fault::Busy,
            ),
            (
                "cannot unmount '/tank/svc/a': pool or dataset is busy\n",
                Fault::Busy,
            ),
            (
                "cannot create 'tank/no/such': parent does not exist\n",
                Fault::NotFound,
            ),
            (
                "cannot rename 'tank/svc/a': dataset already exists\n",
                Fault::Exists,
            ),
            (
                "cannot create bookmark 'tank/svc/a#one': bookmark exists\n",
                Fault::Exists,
            ),
            ("Timeout, server 10.77.0.2 not responding.\n", Fault::Unreachable),
            ("bash: line 1: zfs: command not found\n", Fault::NoTool),
            ("something that nobody has seen before", Fault::Other),
            ("", Fault::Other),
        ] {
            assert_eq!(classify(words), fault, "{words:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_and_not_the_usage() {
        let words =
            "cannot open 'tank/nope': dataset does not exist\nusage:\n\tsnapshot [-r]\n\n\ta\n\tb\n\tc\n";
        let error: StoreError = said("x", Fault::NotFound, words, Effect::None);
        assert_eq!(
            error.tool_said(),
            Some("cannot open 'tank/nope': dataset does not exist")
        );
    }

    #[test]
    fn a_fault_becomes_the_traits_own_kind() {
        let pool: StoreError = said("x", Fault::Pool, "pool I/O is currently suspended", Effect::None);
        assert_eq!(
            (pool.kind(), pool.should_retry()),
            (StoreKind::PoolUnavailable, Retry::AfterFix)
        );
        let other: StoreError = said("x", Fault::Other, "?", Effect::Unknown);
        assert_eq!((other.kind(), other.may_have()), (StoreKind::Io, Effect::Unknown));
        let full: StoreError = said("x", Fault::NoSpace, "a\n\nb\n", Effect::StagingOnly);
        assert_eq!(full.tool_said(), Some("a / b"));
    }
}
