//! A repository's files in an object store: list, read, write and remove, synchronously, with errors sorted into
//! kinds.
//!
//! It knows where files live and nothing about what is in them. Reads are exact: a range that comes back shorter
//! than asked for is an error here, because the libraries above would panic on it.

mod backend;
mod bridge;
mod directory;
pub(crate) mod layout;
mod net;
mod said;

use std::io;
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use rustic_core::{FileType, Id};

pub(crate) use backend::{Backend, Gate};
use bridge::Bridge;
pub(crate) use net::{Net, Patience};
use net::{fetch, within};
pub(crate) use said::{chain, sort, told};

use crate::backup::Cancelled;
use crate::cipher::{digest, hex};
use crate::error::{EngineError, IoClass, Result, classify};

/// The one request that is made also by whoever was cancelled.
const REMOVE: &str = "remove";

/// One repository's storage.
#[derive(Debug)]
pub(crate) struct Store {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    location: String,
    local_root: Option<PathBuf>,
    bridge: Bridge,
    net: Option<Net>,
    cancelled: Stop,
}

/// A file that is there.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) location: Path,
    /// Or why it can't be looked at.
    pub(crate) size: Result<u64>,
}

/// What ends waiting for a store.
#[derive(Clone, Default)]
pub(crate) struct Stop(pub(crate) Option<Cancelled>);

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() {
            "stoppable"
        } else {
            "not stoppable"
        })
    }
}

impl Store {
    /// The repository in a local directory that exists.
    pub(crate) fn local(root: &FsPath) -> Result<Self> {
        let location = root.display().to_string();
        let objects = LocalFileSystem::new_with_prefix(root)
            .map_err(|error| local_error("open", &location, &error))?
            // Without it a power cut after a backup that reported success leaves empty packs.
            .with_fsync(true);
        Ok(Self {
            objects: Arc::new(objects),
            prefix: Path::default(),
            location,
            local_root: Some(root.to_path_buf()),
            bridge: Bridge::Inline,
            net: None,
            cancelled: Stop::default(),
        })
    }

    /// The repository below `prefix` of any store.
    pub(crate) fn remote(
        objects: Arc<dyn ObjectStore>,
        prefix: Path,
        location: String,
        net: Net,
        cancelled: Stop,
    ) -> Result<Self> {
        let bridge = Bridge::with_runtime().map_err(|error| EngineError::Store {
            action: "start its runtime".into(),
            detail: error.to_string(),
        })?;
        Ok(Self {
            objects,
            prefix,
            location,
            local_root: None,
            bridge,
            net: Some(net),
            cancelled,
        })
    }

    pub(crate) fn location(&self) -> &str {
        &self.location
    }

    pub(crate) fn is_local(&self) -> bool {
        self.local_root.is_some()
    }

    pub(crate) fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// Makes the directories that restic makes in a local repository, so that it recognises the layout.
    pub(crate) fn make_local_layout(&self) -> Result<()> {
        let Some(root) = &self.local_root else {
            return Ok(());
        };
        let make = |dir: PathBuf| {
            std::fs::create_dir_all(&dir).map_err(|error| EngineError::target("create", &dir, &error))
        };
        for name in ["index", "keys", layout::LOCKS, "snapshots"] {
            make(root.join(name))?;
        }
        (0..=255_u8).try_for_each(|byte| make(root.join("data").join(format!("{byte:02x}"))))
    }

    fn wait<T, F>(
        &self,
        action: &'static str,
        path: &Path,
        mut request: impl FnMut() -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = object_store::Result<T>> + Send + 'static,
    {
        let (net, path, location) = (self.net.clone(), path.clone(), self.location.clone());
        let answer = async move {
            match net {
                None => request()
                    .await
                    .map_err(|error| local_error(action, path.as_ref(), &error)),
                Some(net) => {
                    let sort = |error: &StoreError| remote_error(action, path.as_ref(), &location, error);
                    net.request(request, sort).await
                }
            }
        };
        // A lock has to go also when everything else has been cancelled.
        let cancelled = self.cancelled.0.as_ref().filter(|_| action != REMOVE);
        match self.bridge.wait(cancelled, answer) {
            Ok(result) => result,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(EngineError::Cancelled),
            Err(error) => Err(EngineError::Store {
                action: action.into(),
                detail: error.to_string(),
            }),
        }
    }

    /// How long a plain request may take; no limit for what is on this machine.
    fn limit(&self) -> Option<Duration> {
        self.net.as_ref().map(|net| net.patience.answer)
    }

    /// Size of a file; `None` when it does not exist.
    pub(crate) fn size(&self, path: &Path) -> Result<Option<u64>> {
        if let Some(root) = &self.local_root {
            return directory::size(root, path);
        }
        let (objects, at, limit) = (Arc::clone(&self.objects), path.clone(), self.limit());
        self.wait("look at", path, move || {
            let (objects, at) = (Arc::clone(&objects), at.clone());
            async move {
                match within(limit, objects.head(&at)).await {
                    Ok(meta) => Ok(Some(meta.size)),
                    Err(StoreError::NotFound { .. }) => Ok(None),
                    Err(error) if io_cause(&error).is_some() => Err(error),
                    // Over HTTP the answer to a look has no words that would tell why; the answer to a read has.
                    Err(error) => match within(limit, objects.get_range(&at, 0..1)).await {
                        Ok(_) | Err(StoreError::NotFound { .. }) => Err(error),
                        Err(told) => Err(told),
                    },
                }
            }
        })
    }

    /// Everything below a directory of the repository.
    pub(crate) fn list(&self, directory: &str) -> Result<Vec<Listed>> {
        let below = self.prefix.clone().join(directory);
        if let Some(root) = &self.local_root {
            return directory::list(root, &below);
        }
        let (objects, at, limit) = (Arc::clone(&self.objects), below.clone(), self.limit());
        self.wait("list", &below, move || {
            let (objects, at) = (Arc::clone(&objects), at.clone());
            async move {
                let mut found = Vec::new();
                let mut listed = objects.list(Some(&at));
                while let Some(meta) = within(limit, listed.try_next()).await? {
                    found.push(Listed {
                        location: meta.location,
                        size: Ok(meta.size),
                    });
                }
                Ok(found)
            }
        })
    }

    pub(crate) fn read(&self, path: &Path) -> Result<Bytes> {
        self.get(path, None)
    }

    /// A whole file of the repository. Its name is the hash of what is in it, but for the configuration's: a store that hands out another
    /// file's content, which the key fits too, is found out.
    pub(crate) fn read_file(&self, kind: FileType, id: &Id) -> Result<Bytes> {
        let path = layout::path_of(&self.prefix, kind, id);
        let content = self.read(&path)?;
        if kind != FileType::Config && hex(&digest(&content)) != *id.to_hex() {
            return Err(EngineError::Unreadable {
                what: path.to_string(),
                detail: "its content is not what its name says".into(),
            });
        }
        Ok(content)
    }

    fn get(&self, path: &Path, range: Option<Range<u64>>) -> Result<Bytes> {
        let (objects, at) = (Arc::clone(&self.objects), path.clone());
        let patience = self.net.as_ref().map(|net| net.patience);
        self.wait("read", path, move || {
            let (objects, at, range) = (Arc::clone(&objects), at.clone(), range.clone());
            async move {
                match (patience, range) {
                    (Some(patience), range) => fetch(objects, at, range, patience).await,
                    (None, Some(range)) => objects.get_range(&at, range).await,
                    (None, None) => objects.get(&at).await?.bytes().await,
                }
            }
        })
    }

    /// Exactly `length` bytes from `offset`.
    pub(crate) fn read_range(&self, path: &Path, offset: u64, length: u64) -> Result<Bytes> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let end = offset.checked_add(length).ok_or_else(|| EngineError::Invalid {
            detail: format!("a range of {path} overflows"),
        })?;
        let bytes = match self.get(path, Some(offset..end)) {
            Ok(bytes) => bytes,
            // Each store has its own words for a range beyond the end; they don't say that the file is cut off.
            Err(error @ EngineError::Store { .. }) => match self.size(path)? {
                Some(size) if size < end => {
                    return Err(EngineError::Unreadable {
                        what: path.to_string(),
                        detail: format!("it has {size} bytes, and something should be at {offset}"),
                    });
                }
                _ => return Err(error),
            },
            Err(error) => return Err(error),
        };
        if bytes.len() as u64 == length {
            Ok(bytes)
        } else {
            Err(EngineError::Unreadable {
                what: path.to_string(),
                detail: format!(
                    "{} bytes at {offset} instead of {length}: the file is too short",
                    bytes.len()
                ),
            })
        }
    }

    pub(crate) fn write(&self, path: &Path, content: Vec<Bytes>) -> Result<()> {
        self.put(path, content, PutMode::Overwrite)
    }

    /// Writes a file where none is; `AlreadyExists` where one is. Not every store knows the difference: see
    /// [`Store::creates`].
    pub(crate) fn create(&self, path: &Path, content: Vec<Bytes>) -> Result<()> {
        self.put(path, content, PutMode::Create)
    }

    fn put(&self, path: &Path, content: Vec<Bytes>, mode: PutMode) -> Result<()> {
        let payload: PutPayload = content.into_iter().collect();
        let (objects, at) = (Arc::clone(&self.objects), path.clone());
        let size = payload.content_length();
        let limit = self.net.as_ref().map(|net| net.patience.to_send(size));
        self.wait("write", path, move || {
            let (objects, at, payload) = (Arc::clone(&objects), at.clone(), payload.clone());
            let options = PutOptions::from(mode.clone());
            async move {
                within(limit, objects.put_opts(&at, payload, options))
                    .await
                    .map(drop)
            }
        })
    }

    /// Whether the store refuses to create what is there. Tried on a file that is there, with what it holds already: a
    /// store that ignores conditions writes the same once more, and nothing is left behind.
    pub(crate) fn creates(&self, path: &Path, content: &[Bytes]) -> Result<bool> {
        match self.create(path, content.to_vec()) {
            Err(EngineError::AlreadyExists { .. }) => Ok(true),
            // Some answer that they don't know the condition.
            Ok(()) | Err(EngineError::Store { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes a file; one that is gone already is fine.
    pub(crate) fn remove(&self, path: &Path) -> Result<()> {
        let (objects, at, limit) = (Arc::clone(&self.objects), path.clone(), self.limit());
        self.wait(REMOVE, path, move || {
            let (objects, at) = (Arc::clone(&objects), at.clone());
            async move {
                match within(limit, objects.delete(&at)).await {
                    Err(StoreError::NotFound { .. }) => Ok(()),
                    other => other,
                }
            }
        })
    }
}

fn remote_error(action: &str, path: &str, location: &str, error: &StoreError) -> EngineError {
    match io_cause(error).map(classify) {
        Some(IoClass::NoSpace | IoClass::ReadOnly) => local_error(action, path, error),
        _ => sort(action, path, location, error),
    }
}

fn local_error(action: &str, path: &str, error: &StoreError) -> EngineError {
    match io_cause(error).map(classify) {
        Some(IoClass::NoSpace) => {
            return EngineError::NoSpace {
                path: path.to_owned(),
            };
        }
        Some(IoClass::ReadOnly) => {
            return EngineError::ReadOnly {
                path: path.to_owned(),
            };
        }
        _ => {}
    }
    let denied = io_cause(error).is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied);
    match error {
        StoreError::NotFound { .. } => EngineError::Unreadable {
            what: path.to_owned(),
            detail: "it does not exist".into(),
        },
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => EngineError::Denied {
            what: path.to_owned(),
            detail: error.to_string(),
        },
        _ if denied => EngineError::Denied {
            what: path.to_owned(),
            detail: error.to_string(),
        },
        _ => EngineError::Store {
            action: format!("{action} {path}"),
            detail: error.to_string(),
        },
    }
}

fn io_cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        current = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::local(dir.path()).unwrap();
        (dir, store)
    }

    fn net() -> Net {
        Net::new(
            Arc::new(reseed_core::clock::SystemClock::new()),
            Patience::default(),
        )
    }

    #[test]
    fn what_is_written_can_be_read_listed_and_removed() {
        let (_dir, store) = local();
        let path = Path::from("keys/one");
        assert_eq!(store.size(&path).unwrap(), None);
        store
            .write(&path, vec![Bytes::from_static(b"ab"), Bytes::from_static(b"cde")])
            .unwrap();
        assert_eq!(store.size(&path).unwrap(), Some(5));
        assert_eq!(store.read(&path).unwrap(), "abcde");
        assert_eq!(store.list("keys").unwrap().len(), 1);
        store.remove(&path).unwrap();
        store.remove(&path).unwrap();
        assert!(store.list("keys").unwrap().is_empty());
    }

    #[test]
    fn a_short_range_is_an_error_and_not_a_short_answer() {
        let (_dir, store) = local();
        let path = Path::from("data/aa/x");
        store
            .write(&path, vec![Bytes::from_static(b"0123456789")])
            .unwrap();
        assert_eq!(store.read_range(&path, 2, 3).unwrap(), "234");
        for (offset, length) in [(8, 3), (10, 1), (50, 1), (u64::MAX, 2)] {
            assert!(
                store.read_range(&path, offset, length).is_err(),
                "{offset}+{length}"
            );
        }
    }

    #[test]
    fn io_errors_are_found_below_the_stores_own() {
        let full = StoreError::Generic {
            store: "test",
            source: Box::new(io::Error::from_raw_os_error(28)),
        };
        assert!(matches!(
            local_error("write", "x", &full),
            EngineError::NoSpace { .. }
        ));
        let read_only = StoreError::Generic {
            store: "test",
            source: Box::new(io::Error::from_raw_os_error(30)),
        };
        assert!(matches!(
            local_error("write", "x", &read_only),
            EngineError::ReadOnly { .. }
        ));
    }

    #[test]
    fn works_inside_a_runtime_with_a_store_that_needs_one() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let memory = Arc::new(object_store::memory::InMemory::new());
            let store = Store::remote(
                memory,
                Path::from("repo"),
                "memory".into(),
                net(),
                Stop::default(),
            )
            .unwrap();
            let path = store.prefix().clone().join("config");
            store.write(&path, vec![Bytes::from_static(b"x")]).unwrap();
            assert_eq!(store.read(&path).unwrap(), "x");
        });
    }
}
