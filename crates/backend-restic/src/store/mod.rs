//! A repository's files in an object store: list, read, write and remove, synchronously, with errors sorted into
//! kinds.
//!
//! It knows where files live and nothing about what is in them. Reads are exact: a range that comes back shorter
//! than asked for is an error here, because the libraries above would panic on it.

mod backend;
mod bridge;
pub(crate) mod layout;

use std::io;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload};

pub(crate) use backend::{Backend, Gate};
use bridge::Bridge;

use crate::error::{EngineError, IoClass, Result, classify};

/// One repository's storage.
#[derive(Debug)]
pub(crate) struct Store {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    location: String,
    local_root: Option<PathBuf>,
    bridge: Bridge,
}

impl Store {
    /// The repository in a local directory that exists.
    pub(crate) fn local(root: &FsPath) -> Result<Self> {
        let objects = LocalFileSystem::new_with_prefix(root)
            .map_err(|error| store_error("open", &root.display().to_string(), &error))?
            // Without it a power cut after a backup that reported success leaves empty packs.
            .with_fsync(true);
        Ok(Self {
            objects: Arc::new(objects),
            prefix: Path::default(),
            location: root.display().to_string(),
            local_root: Some(root.to_path_buf()),
            bridge: Bridge::Inline,
        })
    }

    /// The repository below `prefix` of any store.
    pub(crate) fn remote(objects: Arc<dyn ObjectStore>, prefix: Path, location: String) -> Result<Self> {
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

    fn wait<T: Send + 'static>(
        &self,
        action: &str,
        path: &Path,
        future: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Result<T> {
        match self.bridge.wait(future) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(store_error(action, path.as_ref(), &error)),
            Err(error) => Err(EngineError::Store {
                action: action.into(),
                detail: error.to_string(),
            }),
        }
    }

    /// Size of a file; `None` when it does not exist.
    pub(crate) fn size(&self, path: &Path) -> Result<Option<u64>> {
        let (objects, at) = (Arc::clone(&self.objects), path.clone());
        self.wait("look at", path, async move {
            match objects.head(&at).await {
                Ok(meta) => Ok(Some(meta.size)),
                Err(StoreError::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    /// Everything below a directory of the repository.
    pub(crate) fn list(&self, directory: &str) -> Result<Vec<ObjectMeta>> {
        let below = self.prefix.clone().join(directory);
        let (objects, at) = (Arc::clone(&self.objects), below.clone());
        self.wait("list", &below, async move {
            objects.list(Some(&at)).try_collect().await
        })
    }

    pub(crate) fn read(&self, path: &Path) -> Result<Bytes> {
        let (objects, at) = (Arc::clone(&self.objects), path.clone());
        self.wait("read", path, async move { objects.get(&at).await?.bytes().await })
    }

    /// Exactly `length` bytes from `offset`.
    pub(crate) fn read_range(&self, path: &Path, offset: u64, length: u64) -> Result<Bytes> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let end = offset.checked_add(length).ok_or_else(|| EngineError::Invalid {
            detail: format!("a range of {path} overflows"),
        })?;
        let (objects, at) = (Arc::clone(&self.objects), path.clone());
        let answer = self.wait(
            "read",
            path,
            async move { objects.get_range(&at, offset..end).await },
        );
        let bytes = match answer {
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
        let payload: PutPayload = content.into_iter().collect();
        let (objects, at) = (Arc::clone(&self.objects), path.clone());
        self.wait(
            "write",
            path,
            async move { objects.put(&at, payload).await.map(drop) },
        )
    }

    /// Removes a file; one that is gone already is fine.
    pub(crate) fn remove(&self, path: &Path) -> Result<()> {
        let (objects, at) = (Arc::clone(&self.objects), path.clone());
        self.wait("remove", path, async move {
            match objects.delete(&at).await {
                Err(StoreError::NotFound { .. }) => Ok(()),
                other => other,
            }
        })
    }
}

fn store_error(action: &str, path: &str, error: &StoreError) -> EngineError {
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
            store_error("write", "x", &full),
            EngineError::NoSpace { .. }
        ));
        let read_only = StoreError::Generic {
            store: "test",
            source: Box::new(io::Error::from_raw_os_error(30)),
        };
        assert!(matches!(
            store_error("write", "x", &read_only),
            EngineError::ReadOnly { .. }
        ));
    }

    #[test]
    fn works_inside_a_runtime_with_a_store_that_needs_one() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let memory = Arc::new(object_store::memory::InMemory::new());
            let store = Store::remote(memory, Path::from("repo"), "memory".into()).unwrap();
            let path = store.prefix().clone().join("config");
            store.write(&path, vec![Bytes::from_static(b"x")]).unwrap();
            assert_eq!(store.read(&path).unwrap(), "x");
        });
    }
}
