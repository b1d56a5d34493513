//! Work that blocks: system calls on directories and mounts, and reading a tree.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reseed_core::Context;
use reseed_core::clock::{Clock as _, SystemClock};
use reseed_core::digest::{DigestError, DigestOptions, digest_tree};
use reseed_core::error::{Common, Effect, Error, Kind};
use reseed_core::point::Fingerprint;

use super::mounts;

/// Runs something on a thread that may block, and waits for its end.
pub(crate) async fn blocking<T, K, F>(what: &str, work: F) -> Result<T, Error<K>>
where
    T: Send + 'static,
    K: Kind,
    F: FnOnce() -> Result<T, Error<K>> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(died) => Err(Error::new(K::from_common(Common::Io), what)
            .effect(Effect::Unknown)
            .said(died)
            .hint("this is a bug in reseed; the same command again finishes or undoes what was begun")),
    }
}

/// Mounts in a place of ours.
pub(crate) async fn mount<K: Kind>(source: String, place: PathBuf, read_only: bool) -> Result<(), Error<K>> {
    let what = format!("can't mount {source} at {place:?}");
    let name = what.clone();
    blocking(&name, move || {
        mounts::mount(&source, &place, read_only).map_err(|error| mount_error(what, &error))
    })
    .await
}

/// How often and how long apart something that is in use is tried again.
const BUSY_TRIES: u32 = 40;
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// Tries again for two seconds while something is in use. A child of ours that was forked on another thread holds our open
/// directories until it has become its own program, and a mount with them.
pub(crate) async fn patiently<T, K, F, Fut>(attempt: F) -> Result<T, Error<K>>
where
    K: Kind,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, Error<K>>>,
{
    let busy = |error: &Error<K>| error.kind() == K::from_common(Common::Busy);
    patiently_while(BUSY_TRIES, BUSY_PAUSE, busy, attempt).await
}

/// Tries so often, so long apart, as long as its error passes.
pub(crate) async fn patiently_while<T, K, F, Fut>(
    tries: u32,
    pause: Duration,
    passes: impl Fn(&Error<K>) -> bool,
    mut attempt: F,
) -> Result<T, Error<K>>
where
    K: Kind,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, Error<K>>>,
{
    // The kernel lives in real time, whatever clock the caller has.
    let clock = SystemClock::new();
    for _ in 1..tries {
        match attempt().await {
            Err(error) if passes(&error) => clock.sleep(pause).await,
            result => return result,
        }
    }
    attempt().await
}

/// Unmounts a place of ours and removes it.
pub(crate) async fn unmount<K: Kind>(place: PathBuf) -> Result<(), Error<K>> {
    let what = format!("can't unmount {place:?}");
    patiently(|| {
        let (what, place) = (what.clone(), place.clone());
        blocking("can't unmount", move || {
            mounts::unmount(&place).map_err(|error| Error::io(what, &error))
        })
    })
    .await
}

fn mount_error<K: Kind>(what: String, error: &io::Error) -> Error<K> {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Error::io(what, error)
            .hint("mounting needs root, and an encrypted dataset its key (`zfs load-key`)"),
        _ => Error::io(what, error),
    }
}

/// Measures a tree that nobody writes to.
pub(crate) async fn measure<K: Kind>(cx: &Context, tree: &Path) -> Result<Fingerprint, Error<K>> {
    let (tree, cancel) = (tree.to_owned(), cx.cancel.clone());
    let what = format!("can't measure {tree:?}");
    let name = what.clone();
    blocking(&name, move || {
        let stop = AtomicBool::new(cancel.is_cancelled());
        let progress = |_| stop.store(cancel.is_cancelled(), Ordering::Relaxed);
        let options = DigestOptions {
            cancel: Some(&stop),
            progress: Some(&progress),
            ..DigestOptions::default()
        };
        match digest_tree(&tree, options) {
            Ok(found) => Ok(Fingerprint {
                digest: found.digest,
                files: found.files,
                bytes: found.bytes,
            }),
            Err(DigestError::Cancelled { .. }) => Err(Error::new(
                K::from_common(Common::Cancelled),
                "the run was cancelled",
            )),
            Err(error) => Err(Error::new(K::from_common(Common::Io), what).said(error)),
        }
    })
    .await
}
