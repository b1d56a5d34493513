//! The seven methods through which `rustic_core` reaches a repository.
//!
//! Errors keep their kind on the side, because `RusticError` flattens it to text. A closed [`Gate`] refuses writes:
//! that is how a cancelled backup, or one that lost its lock, is kept from finishing with a snapshot, since the
//! archiver itself treats an ended source as a complete one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustic_core::{BytesList, ErrorKind, FileType, Id, ReadBackend, RusticError, RusticResult, WriteBackend};

use super::{Store, layout};
use crate::error::{EngineError, Result};

/// Decides whether writes may still happen. Cheap to clone; all clones are one gate.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<GateState>);

#[derive(Debug, Default)]
struct GateState {
    closed: AtomicBool,
    passed: AtomicBool,
    why: Mutex<Option<EngineError>>,
    asked: Mutex<Option<Asked>>,
}

/// Whether what makes uploaded data count may still be written.
struct Asked(Box<dyn Fn() -> Result<()> + Send>);

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("asked")
    }
}

impl Gate {
    /// Refuses every further write, for the first reason given.
    pub(crate) fn close(&self, why: EngineError) {
        self.0
            .why
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(why);
        self.0.closed.store(true, Ordering::Release);
    }

    /// Whether anything was sent to the repository through it. Locks don't pass here.
    pub(crate) fn passed(&self) -> bool {
        self.0.passed.load(Ordering::Acquire)
    }

    /// Has this be asked before an index or a snapshot is written, instead of what was asked before.
    pub(crate) fn asks(&self, question: impl Fn() -> Result<()> + Send + 'static) {
        *self.0.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Asked(Box::new(question)));
    }

    /// Asks it. A lock that is lost closes the gate.
    fn ask(&self) -> Result<()> {
        let asked = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = asked.as_ref().map_or(Ok(()), |asked| (asked.0)());
        if let Err(lost @ EngineError::LockLost { .. }) = &answer {
            self.close(lost.clone());
        }
        answer
    }

    /// The reason why it is closed.
    pub(crate) fn check(&self) -> Result<()> {
        if !self.0.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        let why = self.0.why.lock().unwrap_or_else(PoisonError::into_inner);
        Err(why.clone().unwrap_or(EngineError::Cancelled))
    }
}

/// `rustic_core`'s view of a [`Store`].
#[derive(Debug, Clone)]
pub(crate) struct Backend {
    store: Arc<Store>,
    gate: Gate,
    errors: Arc<Mutex<FirstErrors>>,
    snapshots: Arc<Mutex<SnapshotWrites>>,
}

/// The library passes over some that it meets while it reads, and over none while it writes.
#[derive(Debug, Default)]
struct FirstErrors {
    of_reads: Option<EngineError>,
    of_writes: Option<EngineError>,
}

#[derive(Debug, Default)]
struct SnapshotWrites {
    held_back: bool,
    last: Option<Id>,
}

impl Backend {
    pub(crate) fn new(store: Arc<Store>, gate: Gate) -> Self {
        Self {
            store,
            gate,
            errors: Arc::default(),
            snapshots: Arc::default(),
        }
    }

    /// The kind of the first failure since the last call, for the caller to prefer over flattened text: to write, where there was one.
    pub(crate) fn take_error(&self) -> Option<EngineError> {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let FirstErrors { of_reads, of_writes } = std::mem::take(&mut *errors);
        of_writes.or(of_reads)
    }

    /// While held back, snapshot files are taken and dropped.
    pub(crate) fn hold_back_snapshots(&self, hold: bool) {
        self.snapshots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .held_back = hold;
    }

    /// The id of the snapshot file that was written last.
    pub(crate) fn last_snapshot(&self) -> Option<Id> {
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner).last
    }

    fn write(&self, kind: FileType, id: &Id, content: BytesList) -> Result<()> {
        self.gate.check()?;
        if kind == FileType::Snapshot {
            let mut snapshots = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
            if snapshots.held_back {
                return Ok(());
            }
            snapshots.last = Some(*id);
        }
        // An index of packs that were pruned meanwhile would have later backups believe that their data is stored.
        if matches!(kind, FileType::Index | FileType::Snapshot) {
            self.gate.ask()?;
        }
        self.gate.0.passed.store(true, Ordering::Release);
        let (path, content) = (layout::path_of(self.store.prefix(), kind, id), content.into_vec());
        match kind {
            // Only `init` writes one, and not over another's. On this machine the directory was empty a moment ago, and not
            // every file system can create without overwriting.
            FileType::Config if !self.store.is_local() => match self.store.create(&path, content.clone()) {
                // It may be ours: written, and the answer got lost on its way.
                Err(EngineError::AlreadyExists { .. }) if self.store.read(&path)? == content.concat() => {
                    Ok(())
                }
                // It doesn't know how.
                Err(EngineError::Store { .. }) => self.store.write(&path, content),
                other => other,
            },
            _ => self.store.write(&path, content),
        }
    }

    fn read<T>(&self, result: Result<T>) -> RusticResult<T> {
        self.report(result, |errors| &mut errors.of_reads)
    }

    fn written<T>(&self, result: Result<T>) -> RusticResult<T> {
        self.report(result, |errors| &mut errors.of_writes)
    }

    fn report<T>(
        &self,
        result: Result<T>,
        first: fn(&mut FirstErrors) -> &mut Option<EngineError>,
    ) -> RusticResult<T> {
        result.map_err(|error| {
            let flat = RusticError::with_source(ErrorKind::Backend, error.to_string(), error.clone());
            let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
            first(&mut errors).get_or_insert(error);
            flat
        })
    }

    fn listed(&self, kind: FileType) -> Result<Vec<(Id, u32)>> {
        if kind == FileType::Config {
            let path = layout::path_of(self.store.prefix(), kind, &Id::default());
            let size = self.store.size(&path)?;
            return Ok(size
                .map(|size| (Id::default(), u32::try_from(size).unwrap_or(u32::MAX)))
                .into_iter()
                .collect());
        }
        self.store
            .list(kind.dirname())?
            .into_iter()
            .filter_map(|meta| layout::id_of(&meta.location).map(|id| (id, meta)))
            // Why one can't be looked at is told to whoever reads it.
            .map(|(id, meta)| match u32::try_from(meta.size.unwrap_or(0)) {
                Ok(size) => Ok((id, size)),
                Err(_) => Err(EngineError::Unreadable {
                    what: meta.location.to_string(),
                    detail: "it is larger than the format allows".into(),
                }),
            })
            .collect()
    }
}

impl ReadBackend for Backend {
    fn location(&self) -> String {
        self.store.location().to_owned()
    }

    fn list_with_size(&self, kind: FileType) -> RusticResult<Vec<(Id, u32)>> {
        self.read(self.listed(kind))
    }

    fn read_full(&self, kind: FileType, id: &Id) -> RusticResult<Bytes> {
        self.read(self.store.read_file(kind, id))
    }

    fn read_partial(
        &self,
        kind: FileType,
        id: &Id,
        _cacheable: bool,
        offset: u32,
        length: u32,
    ) -> RusticResult<Bytes> {
        let path = layout::path_of(self.store.prefix(), kind, id);
        self.read(self.store.read_range(&path, offset.into(), length.into()))
    }

    fn warmup_path(&self, kind: FileType, id: &Id) -> String {
        layout::path_of(self.store.prefix(), kind, id).to_string()
    }
}

impl WriteBackend for Backend {
    fn create(&self) -> RusticResult<()> {
        self.written(self.store.make_local_layout())
    }

    fn write_bytes(&self, kind: FileType, id: &Id, _cacheable: bool, content: BytesList) -> RusticResult<()> {
        self.written(self.write(kind, id, content))
    }

    fn remove(&self, kind: FileType, id: &Id, _cacheable: bool) -> RusticResult<()> {
        // Nothing that this engine offers removes repository files; prune and forget belong to the restic binary.
        self.written(Err(EngineError::Invalid {
            detail: format!("refusing to remove {kind} {}", id.to_hex().as_str()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend() -> (tempfile::TempDir, Backend, Gate) {
        let dir = tempfile::tempdir().unwrap();
        let gate = Gate::default();
        let backend = Backend::new(Arc::new(Store::local(dir.path()).unwrap()), gate.clone());
        (dir, backend, gate)
    }

    #[test]
    fn a_closed_gate_refuses_writes_and_says_why() {
        let (_dir, backend, gate) = backend();
        let id = Id::default();
        backend
            .write_bytes(FileType::Index, &id, false, Bytes::from_static(b"x").into())
            .unwrap();
        gate.close(EngineError::Cancelled);
        assert!(
            backend
                .write_bytes(FileType::Snapshot, &id, false, Bytes::from_static(b"x").into())
                .is_err()
        );
        assert_eq!(backend.take_error(), Some(EngineError::Cancelled));
        assert_eq!(backend.list(FileType::Snapshot).unwrap(), vec![]);
    }

    #[test]
    fn nothing_is_ever_removed() {
        let (_dir, backend, _gate) = backend();
        let id = Id::default();
        backend
            .write_bytes(FileType::Pack, &id, false, Bytes::from_static(b"x").into())
            .unwrap();
        assert!(backend.remove(FileType::Pack, &id, false).is_err());
        assert_eq!(backend.list_with_size(FileType::Pack).unwrap(), vec![(id, 1)]);
    }

    #[test]
    fn the_configuration_is_one_file_without_an_id() {
        let (dir, backend, _gate) = backend();
        assert_eq!(backend.list(FileType::Config).unwrap(), vec![]);
        std::fs::write(dir.path().join("config"), b"abc").unwrap();
        assert_eq!(
            backend.list_with_size(FileType::Config).unwrap(),
            vec![(Id::default(), 3)]
        );
    }

    #[test]
    fn leftovers_of_interrupted_writes_are_not_listed() {
        let (dir, backend, _gate) = backend();
        std::fs::create_dir_all(dir.path().join("index")).unwrap();
        std::fs::write(dir.path().join("index/tmp-123"), b"abc").unwrap();
        assert_eq!(backend.list(FileType::Index).unwrap(), vec![]);
    }
}
