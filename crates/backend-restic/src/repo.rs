//! A repository's place, and the ways of not opening it, told apart.
//!
//! [`Engine`] says where a repository is; [`OpenRepo`] is one whose password fitted. Nothing here creates anything
//! but [`Engine::init`], and that only where nothing is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use reseed_core::clock::Clock;
use reseed_core::offsite::Usage;
use rustic_core::repofile::MasterKey;
use rustic_core::{
    ConfigOptions, Credentials, FileType, KeyOptions, NoProgressBars, OpenStatus, ProgressBars, ReadBackend,
    Repository, RepositoryBackends, RepositoryOptions, RusticError,
};

use crate::child::Address;
use crate::cipher::Cipher;
use crate::error::{EngineError, Result, guarded};
use crate::keys::{self, Known, KnownKey};
use crate::local;
use crate::lock::{Locker, hostname};
use crate::s3::{self, CredentialsFrom, S3Place};
use crate::secret::Password;
use crate::store::{Backend, Gate, Net, Patience, Stop, Store, layout};

/// Size of the data packs that `init` asks for. Smaller than `rustic_core`'s 32 MiB and growing: whoever restores
/// or backs up holds a few of them in memory.
const DATA_PACK: u64 = 16 << 20;
const TREE_PACK: u64 = 4 << 20;

/// Where a repository is.
#[derive(Clone)]
pub struct Engine {
    place: Place,
    clock: Arc<dyn Clock>,
    host: String,
    patience: Patience,
    cancelled: Stop,
    known: Known,
}

#[derive(Clone)]
enum Place {
    Local(PathBuf),
    Remote {
        objects: Arc<dyn ObjectStore>,
        prefix: object_store::path::Path,
        location: String,
    },
    S3 {
        place: S3Place,
        credentials: CredentialsFrom,
    },
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("location", &self.location())
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// A repository in a local directory.
    pub fn local(path: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Self {
        Self::at(Place::Local(path.into()), clock)
    }

    /// A repository in S3. The key is read at each use.
    pub fn s3(place: S3Place, credentials: CredentialsFrom, clock: Arc<dyn Clock>) -> Self {
        Self::at(Place::S3 { place, credentials }, clock)
    }

    fn at(place: Place, clock: Arc<dyn Clock>) -> Self {
        Self {
            place,
            clock,
            host: hostname(),
            patience: Patience::default(),
            cancelled: Stop::default(),
            known: Known::default(),
        }
    }

    /// What has opened the repository by this password, for another process that has it too.
    pub(crate) fn known(&self, password: &Password) -> Option<KnownKey> {
        self.known.get(password)
    }

    /// Somebody else has opened it by this password.
    #[must_use]
    pub(crate) fn knowing(self, password: &Password, key: KnownKey) -> Self {
        self.known.set(password, key);
        self
    }

    /// Waiting for a store that is elsewhere ends when this says so.
    #[must_use]
    pub fn stopped_by(mut self, cancelled: Arc<dyn Fn() -> bool + Send + Sync>) -> Self {
        self.cancelled = Stop(Some(cancelled));
        self
    }

    /// How long a store that is elsewhere may be silent, for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn with_patience(mut self, silent: std::time::Duration) -> Self {
        self.patience.answer = silent;
        self.patience.piece = silent;
        self
    }

    /// A repository below `prefix` of an object store. `location` is what messages call it; it must hold no secret.
    pub fn remote(
        objects: Arc<dyn ObjectStore>,
        prefix: object_store::path::Path,
        location: impl Into<String>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let location = location.into();
        Self::at(
            Place::Remote {
                objects,
                prefix,
                location,
            },
            clock,
        )
    }

    /// What messages call the repository.
    pub fn location(&self) -> String {
        match &self.place {
            Place::Local(path) => path.display().to_string(),
            Place::Remote { location, .. } => location.clone(),
            Place::S3 { place, .. } => place.location(),
        }
    }

    /// The local directory, where it is one.
    pub fn local_path(&self) -> Option<&Path> {
        match &self.place {
            Place::Local(path) => Some(path),
            Place::Remote { .. } | Place::S3 { .. } => None,
        }
    }

    /// Where it is, for another process; with the key, where it takes one.
    ///
    /// # Errors
    /// `CredentialsFile`; `Invalid` for a store that only this process knows.
    pub(crate) fn address(&self) -> Result<Address> {
        match &self.place {
            Place::Local(path) => Ok(Address::Local { path: path.clone() }),
            Place::S3 { place, credentials } => Ok(Address::S3 {
                place: place.clone(),
                credentials: credentials.read()?,
            }),
            Place::Remote { location, .. } => Err(EngineError::Invalid {
                detail: format!("another process can't be told how to reach {location}"),
            }),
        }
    }

    /// Creates a repository, where nothing is.
    ///
    /// # Errors
    /// `AlreadyExists`, `PathIsFile`, and what the store says.
    pub fn init(&self, password: &Password) -> Result<(String, u32)> {
        let occupied = || EngineError::AlreadyExists {
            location: self.location(),
        };
        if let Place::Local(path) = &self.place {
            local::must_be_vacant(path)?;
            std::fs::create_dir_all(path).map_err(|error| EngineError::target("create", path, &error))?;
        }
        let (store, backend) = self.vacant()?;
        let config = ConfigOptions::default()
            .set_datapack_size(bytesize(DATA_PACK))
            .set_datapack_growfactor(0_u32)
            .set_treepack_size(bytesize(TREE_PACK))
            .set_treepack_growfactor(0_u32);
        guarded("init", || {
            // The library's own key would need 128 MiB at each opening; ours is written below.
            let master = MasterKey::new();
            store.make_local_layout()?;
            let key = keys::write(&store, &self.host, self.clock.now(), password, &master)?;
            let repo = raw(&backend, NoProgressBars)?
                .init(&Credentials::Masterkey(master), &KeyOptions::default(), &config)
                .map_err(
                    |error| match error.to_string().contains("Config file already exists") {
                        // Another one was quicker.
                        true => occupied(),
                        false => prefer(&backend, &error, "init"),
                    },
                )?;
            // Where nothing keeps two from writing a configuration each, what the other left shows that there were two.
            let others = store.list(FileType::Key.dirname())?;
            if others.iter().any(|meta| meta.location != key) {
                return Err(occupied());
            }
            Ok((repo.config().id.to_hex().to_string(), repo.config().version))
        })
    }

    /// The store, where nothing of a repository is in it.
    fn vacant(&self) -> Result<(Arc<Store>, Backend)> {
        let occupied = || EngineError::AlreadyExists {
            location: self.location(),
        };
        let store = self.store()?;
        for kind in [FileType::Key, FileType::Snapshot, FileType::Index, FileType::Pack] {
            if !store.list(kind.dirname())?.is_empty() {
                return Err(occupied());
            }
        }
        let backend = Backend::new(Arc::clone(&store), Gate::default());
        if !guarded("init", || listed(&backend, FileType::Config))?.is_empty() {
            return Err(occupied());
        }
        Ok((store, backend))
    }

    /// That nothing of a repository is there, for another engine that is to make one.
    ///
    /// # Errors
    /// `AlreadyExists`, and what the store says.
    pub(crate) fn must_be_vacant(&self) -> Result<()> {
        self.vacant().map(drop)
    }

    /// That a repository is there, without opening it: for another engine, which would say less about why not.
    ///
    /// # Errors
    /// `NoRepository`, `MissingKey`, `Unreadable`, and what the store says.
    pub(crate) fn must_be_repository(&self) -> Result<()> {
        let store = self.store()?;
        let backend = Backend::new(Arc::clone(&store), Gate::default());
        guarded("look at", || {
            self.require_config(&store, &backend)?;
            keys::sound(&store, &self.listed_keys(&store, &backend)?).map(drop)
        })
    }

    /// Whether the configuration of a repository is there, for another engine, where nothing else can be looked at.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) fn has_config(&self) -> Result<bool> {
        let store = self.store()?;
        Ok(store.size(&store.prefix().clone().join("config"))?.is_some())
    }

    /// Opens the repository.
    ///
    /// # Errors
    /// One kind for each way of not opening.
    pub fn open(&self, password: &Password) -> Result<OpenRepo> {
        self.open_with(password, Gate::default(), NoProgressBars)
    }

    pub(crate) fn open_with(
        &self,
        password: &Password,
        gate: Gate,
        bars: impl ProgressBars,
    ) -> Result<OpenRepo> {
        if let Place::Local(path) = &self.place {
            local::must_be_directory(path)?;
        }
        let store = self.store()?;
        let backend = Backend::new(Arc::clone(&store), gate);
        guarded("open", || {
            let keys = self.listed_keys(&store, &backend)?;
            let master = self.master_key(&store, &backend, &keys, password)?;
            let opened = raw(&backend, bars)?.open(&Credentials::Masterkey(master));
            let repo = opened.map_err(|error| match self.require_config(&store, &backend) {
                Ok(()) => self.why_not_open(&backend, &error),
                Err(missing) => missing,
            })?;
            let cipher = Cipher::new(repo.key())?;
            let locker = Locker {
                store: Arc::clone(&store),
                cipher: cipher.clone(),
                clock: Arc::clone(&self.clock),
                host: self.host.clone(),
            };
            Ok(OpenRepo {
                store,
                backend,
                repo,
                cipher,
                locker,
            })
        })
    }

    fn require_config(&self, store: &Store, backend: &Backend) -> Result<()> {
        if !listed(backend, FileType::Config)?.is_empty() {
            return Ok(());
        }
        for kind in [FileType::Key, FileType::Snapshot, FileType::Index] {
            if store
                .list(kind.dirname())?
                .iter()
                .any(|meta| layout::id_of(&meta.location).is_some())
            {
                // Anything else would invite somebody to run init over it.
                return Err(EngineError::Unreadable {
                    what: format!("the configuration of {}", self.location()),
                    detail: format!("it is missing, although {} are there", kind.dirname()),
                });
            }
        }
        Err(EngineError::NoRepository {
            location: self.location(),
        })
    }

    /// As it is known, or out of a key file.
    fn master_key(
        &self,
        store: &Store,
        backend: &Backend,
        files: &[rustic_core::Id],
        password: &Password,
    ) -> Result<MasterKey> {
        if let Some(master) = self.known.opens(password, files) {
            return Ok(master);
        }
        let wrong = || EngineError::WrongPassword {
            location: self.location(),
        };
        match keys::unlock(store, files, password).and_then(|found| found.ok_or_else(wrong)) {
            Ok(master) => {
                self.known.learn(password, files, &master)?;
                Ok(master)
            }
            Err(error) => {
                // Without a configuration it is no repository, whatever its keys say.
                self.require_config(store, backend)?;
                Err(error)
            }
        }
    }

    /// The key files; there must be one.
    fn listed_keys(&self, store: &Store, backend: &Backend) -> Result<Vec<rustic_core::Id>> {
        let keys = listed(backend, FileType::Key)?;
        if keys.is_empty() {
            self.require_config(store, backend)?;
            return Err(EngineError::MissingKey {
                location: self.location(),
            });
        }
        Ok(keys.into_iter().map(|(id, _)| id).collect())
    }

    fn why_not_open(&self, backend: &Backend, error: &RusticError) -> EngineError {
        if error.is_incorrect_password() {
            return EngineError::WrongPassword {
                location: self.location(),
            };
        }
        let detail = crate::words::of(error);
        // The kind is private and there is no code for it.
        if detail.contains("Config version") {
            return EngineError::NewerVersion {
                location: self.location(),
                detail,
            };
        }
        backend.take_error().unwrap_or_else(|| EngineError::Unreadable {
            what: format!("the configuration of {}", self.location()),
            detail,
        })
    }

    fn store(&self) -> Result<Arc<Store>> {
        Ok(Arc::new(match &self.place {
            Place::Local(path) => Store::local(path)?,
            Place::Remote {
                objects,
                prefix,
                location,
            } => self.remote_store(Arc::clone(objects), prefix.clone(), location.clone())?,
            Place::S3 { place, credentials } => {
                let objects = Arc::new(s3::client(place, &credentials.read()?)?);
                let prefix =
                    object_store::path::Path::parse(&place.prefix).map_err(|error| EngineError::Invalid {
                        detail: format!("{}: {error}", place.location()),
                    })?;
                self.remote_store(objects, prefix, place.location())?
            }
        }))
    }
}

impl Engine {
    fn remote_store(
        &self,
        objects: Arc<dyn ObjectStore>,
        prefix: object_store::path::Path,
        location: String,
    ) -> Result<Store> {
        let net = Net::new(Arc::clone(&self.clock), self.patience);
        Store::remote(objects, prefix, location, net, self.cancelled.clone())
    }
}

fn raw(backend: &Backend, bars: impl ProgressBars) -> Result<Repository<()>> {
    let backends = RepositoryBackends::new(Arc::new(backend.clone()), None);
    // No cache: it would be written to the home directory of whoever runs this, and services have none.
    let options = RepositoryOptions::default().no_cache(true);
    Repository::new_with_progress(&options, &backends, bars).map_err(|error| prefer(backend, &error, "open"))
}

fn listed(backend: &Backend, kind: FileType) -> Result<Vec<(rustic_core::Id, u32)>> {
    backend
        .list_with_size(kind)
        .map_err(|error| prefer(backend, &error, "list"))
}

/// The kind that the store reported, where it did; otherwise the library's words.
pub(crate) fn prefer(backend: &Backend, error: &RusticError, during: &str) -> EngineError {
    backend.take_error().unwrap_or_else(|| EngineError::Unreadable {
        what: format!("the repository ({during})"),
        detail: crate::words::of(error),
    })
}

fn bytesize(bytes: u64) -> bytesize::ByteSize {
    bytesize::ByteSize(bytes)
}

/// A repository whose password fitted.
pub struct OpenRepo {
    pub(crate) store: Arc<Store>,
    pub(crate) backend: Backend,
    pub(crate) repo: Repository<OpenStatus>,
    pub(crate) cipher: Cipher,
    pub(crate) locker: Locker,
}

impl fmt::Debug for OpenRepo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenRepo")
            .field("location", &self.store.location())
            .finish_non_exhaustive()
    }
}

impl OpenRepo {
    /// Adds up every file of the repository. Nothing is read but names and sizes.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let directories = ["data", "index", "keys", "snapshots", layout::LOCKS];
        let mut usage = Usage {
            bytes: self
                .store
                .size(&self.store.prefix().clone().join("config"))?
                .unwrap_or(0),
            objects: Some(1),
        };
        for directory in directories {
            let listed = self.store.list(directory)?;
            usage.objects = usage.objects.map(|objects| objects + listed.len() as u64);
            for file in listed {
                usage.bytes = usage.bytes.saturating_add(file.size?);
            }
        }
        Ok(usage)
    }

    /// The repository's own id.
    pub fn id(&self) -> String {
        self.repo.config().id.to_hex().to_string()
    }

    /// The version of its format.
    pub fn version(&self) -> u32 {
        self.repo.config().version
    }

    /// Every lock that is in the repository now, with its id. Files that are no locks are left out.
    ///
    /// # Errors
    /// When they cannot be fetched.
    pub fn locks(&self) -> Result<Vec<(String, crate::lock::LockFile)>> {
        self.locker.list().map(|(locks, _)| locks)
    }

    pub(crate) fn error(&self, error: &RusticError, during: &str) -> EngineError {
        prefer(&self.backend, error, during)
    }
}
