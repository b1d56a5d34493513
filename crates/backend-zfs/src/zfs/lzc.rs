//! [`Lzc`]: libzfs_core in this process, through libzetta, for requests where starting `zfs` costs more than what it does.
//!
//! Promises the tool's own words, so that an error is the same whoever was asked, and to give up waiting for a call that
//! doesn't end. Such a call can't be ended, by nobody: the kernel has it. So this is only asked of pools that work (the
//! [engine](super::engine) sees to it), and each call has a thread of its own, which no runtime waits for at its end.
//!
//! Knows nothing of guids, of what a change may be asked for, or of other machines.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use libzetta::libnv::nvpair::Value;
use libzetta::zfs::{DestroyTiming, Error as Refusal, ZfsEngine as _, ZfsLzc};
use reseed_core::Context;
use reseed_core::clock::{Clock as _, SystemClock};
use reseed_core::error::{Common, Effect, Kind as _, StoreError, StoreKind};
use reseed_core::names::{DatasetName, SnapshotName};
use reseed_core::point::SnapshotRef;
use rustix::io::Errno;

use super::error;
use super::tool::{ASKING, CHANGING};

/// How long a call that was begun is waited for after the run was cancelled: a transaction group takes seconds.
const GRACE: Duration = Duration::from_secs(10);

/// A connection to the kernel's OpenZFS. Clones share it; it is open until the process ends.
#[derive(Debug, Clone)]
pub struct Lzc {
    library: ZfsLzc,
}

/// Why there is no answer of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unanswered {
    Cancelled,
    TimedOut,
    Died,
}

impl Unanswered {
    fn into_error(self, what: String) -> StoreError {
        match self {
            Self::Cancelled => StoreError::new(StoreKind::from_common(Common::Cancelled), what),
            Self::TimedOut => StoreError::new(StoreKind::from_common(Common::TimedOut), what)
                .said("the kernel has not answered")
                .hint("look at `zpool status`: a pool that is suspended answers nobody"),
            Self::Died => StoreError::new(StoreKind::from_common(Common::Io), what)
                .said("the thread that asked libzfs_core has died")
                .hint("this is a bug in reseed"),
        }
        .effect(Effect::Unknown)
    }
}

impl Lzc {
    /// Connects.
    ///
    /// # Errors
    /// `ToolMissing` when there is no OpenZFS in the kernel, or this user may not open `/dev/zfs`.
    pub fn open() -> Result<Self, StoreError> {
        let library = ZfsLzc::new().map_err(|error| {
            StoreError::new(StoreKind::ToolMissing, "libzfs_core can't reach OpenZFS")
                .said(format!("{error:?}"))
                .hint("load the kernel's module (`modprobe zfs`)")
        })?;
        Ok(Self { library })
    }

    /// Has a thread of its own make a call, and waits for it: `limit`, or [`GRACE`] after the run was cancelled.
    async fn call<T, F>(&self, cx: &Context, limit: Duration, work: F) -> Result<T, Unanswered>
    where
        T: Send + 'static,
        F: FnOnce(&ZfsLzc) -> T + Send + 'static,
    {
        if cx.cancel.is_cancelled() {
            return Err(Unanswered::Cancelled);
        }
        let library = self.library.clone();
        let (say, mut said) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new().name("libzfs_core".to_owned());
        thread
            .spawn(move || say.send(work(&library)).is_ok())
            .map_err(|_| Unanswered::Died)?;
        // The kernel lives in real time, whatever clock the caller has.
        let clock = SystemClock::new();
        tokio::select! {
            biased;
            answer = &mut said => return answer.map_err(|_| Unanswered::Died),
            () = cx.cancel.cancelled() => {}
            () = clock.sleep(limit) => return Err(Unanswered::TimedOut),
        }
        tokio::select! {
            biased;
            answer = &mut said => answer.map_err(|_| Unanswered::Died),
            () = clock.sleep(GRACE) => Err(Unanswered::Cancelled),
        }
    }

    /// Takes one snapshot of each of these datasets of one pool, all or none.
    pub(crate) async fn snapshot(
        &self,
        cx: &Context,
        datasets: &[DatasetName],
        name: &SnapshotName,
        properties: &[(&str, &str)],
        what: String,
    ) -> Result<(), StoreError> {
        let snapshots: Vec<PathBuf> = datasets
            .iter()
            .map(|dataset| format!("{dataset}@{name}").into())
            .collect();
        let properties = properties
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let answer = self
            .call(cx, CHANGING, move |library| {
                library
                    .snapshot(&snapshots, Some(properties))
                    .map_err(|refusal| words("cannot create snapshot", refusal))
            })
            .await;
        match answer {
            Ok(Ok(())) => Ok(()),
            Ok(Err(words)) => Err(error::said(
                what,
                error::classify(&words),
                &words,
                Effect::Unknown,
            )),
            Err(unanswered) => Err(unanswered.into_error(what)),
        }
    }

    /// Whether all of these are there. "No" is also said of what can't be looked at.
    pub(crate) async fn all_there(&self, cx: &Context, names: &[DatasetName]) -> bool {
        let names: Vec<PathBuf> = names.iter().map(|name| name.as_str().into()).collect();
        let there = move |library: &ZfsLzc| {
            names
                .into_iter()
                .all(|name| library.exists(name).unwrap_or(false))
        };
        self.call(cx, ASKING, there).await.unwrap_or(false)
    }

    /// Removes exactly these snapshots of one pool, all or none; whether it did. One that is held or has a clone keeps all.
    pub(crate) async fn destroy(&self, cx: &Context, snapshots: &[&SnapshotRef]) -> bool {
        let snapshots: Vec<PathBuf> = snapshots
            .iter()
            .map(|one| format!("{}@{}", one.dataset, one.name).into())
            .collect();
        let destroy = move |library: &ZfsLzc| {
            library
                .destroy_snapshots(&snapshots, DestroyTiming::RightNow)
                .is_ok()
        };
        self.call(cx, CHANGING, destroy).await.unwrap_or(false)
    }
}

/// What the tool would have said: a line for each name that was refused.
fn words(doing: &str, refusal: Refusal) -> String {
    match refusal {
        Refusal::MultiOpError(each) => {
            let each: BTreeMap<String, Value> = each.into_iter().collect();
            let line = |(name, value): (&String, &Value)| match value {
                Value::Int32(errno) => format!("{doing} '{name}': {}\n", word(*errno)),
                other => format!("{doing} '{name}': {other:?}\n"),
            };
            each.iter().map(line).collect()
        }
        Refusal::Io(error) => match error.raw_os_error() {
            Some(errno) => format!("{doing}s: {}\n", word(errno)),
            None => format!("{doing}s: {error}\n"),
        },
        other => format!("{doing}s: {other:?}\n"),
    }
}

/// libzfs's words for what the kernel answers (`zfs_standard_error`).
fn word(errno: i32) -> String {
    let known = match Errno::from_raw_os_error(errno) {
        Errno::PERM | Errno::ACCESS => "permission denied",
        Errno::NOENT => "dataset does not exist",
        Errno::EXIST => "dataset already exists",
        Errno::BUSY => "dataset is busy",
        Errno::NOSPC | Errno::DQUOT => "out of space",
        Errno::AGAIN => "pool I/O is currently suspended",
        Errno::ROFS => "pool is read-only",
        Errno::IO | Errno::NXIO | Errno::NODEV => "I/O error",
        // OpenZFS's ECKSUM on Linux.
        Errno::BADE => "checksum mismatch",
        _ => return std::io::Error::from_raw_os_error(errno).to_string(),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::error::Fault;
    use super::*;

    #[test]
    fn what_the_kernel_answers_is_the_fault_that_the_tools_words_are() {
        for (errno, fault) in [
            (Errno::NOENT, Fault::NotFound),
            (Errno::EXIST, Fault::Exists),
            (Errno::BUSY, Fault::Busy),
            (Errno::NOSPC, Fault::NoSpace),
            (Errno::DQUOT, Fault::NoSpace),
            (Errno::PERM, Fault::Permission),
            (Errno::ACCESS, Fault::Permission),
            (Errno::AGAIN, Fault::Pool),
            (Errno::ROFS, Fault::ReadOnly),
            (Errno::IO, Fault::Damaged),
            (Errno::BADE, Fault::Damaged),
            (Errno::INVAL, Fault::Other),
        ] {
            let refusal = Refusal::Io(std::io::Error::from_raw_os_error(errno.raw_os_error()));
            let words = words("cannot create snapshot", refusal);
            assert_eq!(error::classify(&words), fault, "{words:?}");
        }
    }

    #[test]
    fn each_refused_name_is_told_in_the_tools_words() {
        let each = [
            ("tank/b@x".to_owned(), Value::Int32(Errno::EXIST.raw_os_error())),
            ("tank/a@x".to_owned(), Value::Int32(Errno::NOENT.raw_os_error())),
        ];
        let words = words(
            "cannot create snapshot",
            Refusal::MultiOpError(each.into_iter().collect()),
        );
        assert_eq!(
            words,
            "cannot create snapshot 'tank/a@x': dataset does not exist\n\
             cannot create snapshot 'tank/b@x': dataset already exists\n"
        );
    }
}
