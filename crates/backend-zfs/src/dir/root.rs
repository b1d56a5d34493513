//! A store's root directory: what makes it one, where things are in it, and its snapshots.
//!
//! ```text
//! <root>/reseed-store.json                 this is a store, and which
//! <root>/datasets/<name>/                  '/' in a dataset's name becomes '%', which no name can hold
//!     snapshots/<name>/{meta.json, tree/, index, holds/<tag>}
//!     snapshots/.new-…                     being made; never listed
//!     snapshots/.gone-…                    being removed; never listed
//!     marker.json  place.json  lock
//!     origin.json                          on a replica: the host whose data it is
//! <root>/groups/<id>.json                  several snapshots are being put in place together
//! <root>/aside/<name>/<guid>/              a replica's lineage that was set aside; like a dataset's directory
//! ```
//!
//! Promises that a root that can't be read, is missing, or is no store is never taken for a store without snapshots, and
//! that a dataset that is there can be opened or says why not.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use reseed_core::entropy::Entropy;
use reseed_core::error::{Common, Error, Kind, Retry};
use reseed_core::names::{DatasetName, Guid};
use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::members::{self, Member};
use super::records::{self, FORMAT, Found, OriginRecord, StoreRecord};
use super::sys::{self, Done, During, Fail, cstring};

const RECORD: &CStr = c"reseed-store.json";
const ORIGIN: &CStr = c"origin.json";

/// A store that is there.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) fd: OwnedFd,
    pub(super) path: PathBuf,
    pub(super) id: Guid,
}

/// Why there is no store.
#[derive(Debug)]
pub(super) struct NoRoot {
    /// Nothing that could be a store is there: not initialised, or its disk isn't mounted.
    pub(super) absent: bool,
    pub(super) fail: Fail,
}

impl NoRoot {
    /// As a trait's error; `absent` is that trait's word for a store that isn't there.
    pub(super) fn into<K: Kind>(self, absent: K) -> Error<K> {
        if !self.absent {
            return self.fail.convert(absent);
        }
        let mut error = Error::new(absent, self.fail.what()).retry(Retry::AfterFix);
        if let Some(said) = self.fail.tool_said() {
            error = error.said(said);
        }
        match self.fail.what_to_do() {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

fn absent(path: &Path, why: &str) -> NoRoot {
    NoRoot {
        absent: true,
        fail: Fail::new(
            Common::NotFound,
            format!("there is no directory store at {path:?}: {why}"),
        )
        .hint("is its disk mounted (`findmnt`)? For a new store run `reseed init`"),
    }
}

fn present(fail: Fail) -> NoRoot {
    NoRoot { absent: false, fail }
}

/// Opens a store's root.
pub(super) fn open(path: &Path) -> Result<Root, NoRoot> {
    let fd = open_directory(path)?;
    match records::read::<StoreRecord>(&fd, RECORD) {
        Ok(Found::There(record)) => Ok(Root {
            fd,
            path: path.to_owned(),
            id: record.id,
        }),
        Ok(Found::Missing) => Err(absent(path, "the directory has no reseed-store.json")),
        Ok(Found::Newer(format)) => Err(present(newer(path, format))),
        Ok(Found::Damaged(why)) => Err(present(
            Fail::new(
                Common::Corrupt,
                format!("the record of the directory store at {path:?} is damaged"),
            )
            .said(why)
            .hint("the snapshots below it may be fine; restore reseed-store.json from a backup of the store"),
        )),
        Err(error) => Err(present(sys::os_fail(
            format!("can't read the record of the directory store at {path:?}"),
            error,
        ))),
    }
}

fn newer(path: &Path, format: u32) -> Fail {
    Fail::new(
        Common::Unsupported,
        format!(
            "the directory store at {path:?} is of format {format}; this reseed knows {FORMAT} and older"
        ),
    )
    .hint("use the reseed that wrote it, or a later one")
}

fn open_directory(path: &Path) -> Result<OwnedFd, NoRoot> {
    sys::open_dir_path(path).map_err(|error| match error {
        Errno::NOENT => absent(path, "no such directory"),
        Errno::NOTDIR | Errno::LOOP => present(not_a_directory(path)),
        error => present(sys::os_fail(
            format!("can't open the directory store at {path:?}"),
            error,
        )),
    })
}

fn not_a_directory(path: &Path) -> Fail {
    let what = match sys::facts_of_path(path).map(|facts| facts.kind) {
        Ok(FileType::Symlink) => "a symbolic link",
        Ok(_) => "not a directory",
        Err(_) => "below something that is not a directory",
    };
    Fail::new(
        Common::InvalidInput,
        format!("the root of the directory store, {path:?}, is {what}"),
    )
    .hint("name the directory itself in the configuration")
}

/// Makes a directory a store, or finds that it is one.
pub(super) fn init(path: &Path, entropy: &dyn Entropy, now: Timestamp) -> Done<Root> {
    match open(path) {
        Ok(root) => return Ok(root),
        Err(no) if !no.absent => return Err(no.fail),
        Err(_) => {}
    }
    make_parents(path)?;
    let fd = match open_directory(path) {
        Ok(fd) => fd,
        Err(no) => return Err(no.fail),
    };
    let what = || format!("can't make a directory store at {path:?}");
    let begun = [c"datasets", c"groups", c"aside", c".new-reseed-store.json"];
    let foreign = |entry: &sys::Entry| !begun.contains(&entry.name.as_c_str()) && !sys::not_data(&entry.name);
    if sys::entries(&fd).during(what)?.iter().any(foreign) {
        return Err(Fail::new(
            Common::AlreadyExists,
            format!("{path:?} is not empty, and not a directory store"),
        )
        .hint("give the store a directory of its own"));
    }
    for name in [c"datasets", c"groups", c"aside"] {
        sys::ensure_dir(&fd, name).during(what)?;
    }
    // Bound to the directory, so that two stores differ even when the random numbers repeat themselves.
    let own = sys::facts_of_fd(&fd).during(what)?;
    let mut hasher = blake3::Hasher::new_derive_key("reseed directory store: id of a store");
    hasher
        .update(&entropy.next_u64().to_le_bytes())
        .update(&own.ino.to_le_bytes());
    hasher
        .update(&own.ctime.secs.to_le_bytes())
        .update(&own.ctime.nanos.to_le_bytes());
    let id = first_u64(&hasher.finalize());
    records::write(&fd, RECORD, &StoreRecord { id, created: now })?;
    rustix::fs::syncfs(&fd).during(what)?;
    open(path).map_err(|no| no.fail)
}

/// Makes a directory and what is missing above it.
pub(super) fn make_parents(path: &Path) -> Done<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .during(|| format!("can't make the directory {path:?}"))
}

/// A dataset's name as the name of one directory.
pub(super) fn escaped(dataset: &DatasetName) -> CString {
    cstring(&dataset.as_str().replace('/', "%"))
}

/// A dataset's directory in a store.
#[derive(Debug)]
pub(super) struct Dataset {
    pub(super) fd: OwnedFd,
    pub(super) snapshots: OwnedFd,
    /// From the root, for people and locators.
    pub(super) path: PathBuf,
}

/// Keeps others from changing a dataset's snapshots until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: OwnedFd,
}

impl Root {
    fn no_dataset(&self, dataset: &DatasetName, error: Errno) -> Fail {
        sys::os_fail(
            format!("can't open what the store at {:?} has of {dataset}", self.path),
            error,
        )
    }

    /// A dataset's directory, if there is one.
    pub(super) fn dataset(&self, dataset: &DatasetName) -> Done<Option<Dataset>> {
        let name = escaped(dataset);
        let fail = |error| self.no_dataset(dataset, error);
        let all = sys::open_dir(&self.fd, c"datasets").map_err(fail)?;
        let fd = match sys::open_dir(&all, &name) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(fail(error)),
        };
        // Between the two mkdir of its making there is no `snapshots` yet.
        let snapshots = match sys::open_dir(&fd, c"snapshots") {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened.map_err(fail)?,
        };
        Ok(Some(Dataset {
            fd,
            snapshots,
            path: self.dataset_path(dataset),
        }))
    }

    fn dataset_path(&self, dataset: &DatasetName) -> PathBuf {
        self.path
            .join("datasets")
            .join(dataset.as_str().replace('/', "%"))
    }

    /// A dataset's directory, made where it is missing.
    pub(super) fn ensure_dataset(&self, dataset: &DatasetName) -> Done<Dataset> {
        let what = || format!("can't make a place for {dataset} in the store at {:?}", self.path);
        let all = sys::ensure_dir(&self.fd, c"datasets").during(what)?;
        let fd = sys::ensure_dir(&all, &escaped(dataset)).during(what)?;
        let snapshots = match sys::open_dir(&fd, c"snapshots") {
            Err(Errno::NOENT) => {
                let snapshots = sys::ensure_dir(&fd, c"snapshots").during(what)?;
                rustix::fs::fsync(&fd).during(what)?;
                rustix::fs::fsync(&all).during(what)?;
                snapshots
            }
            opened => opened.during(what)?,
        };
        Ok(Dataset {
            fd,
            snapshots,
            path: self.dataset_path(dataset),
        })
    }

    /// Groups of snapshots that are not all in place yet.
    pub(super) fn pending_groups(&self) -> Done<HashSet<Guid>> {
        let what = || format!("can't list the unfinished groups of the store at {:?}", self.path);
        let groups = match sys::open_dir(&self.fd, c"groups") {
            Err(Errno::NOENT) => return Ok(HashSet::new()),
            opened => opened.during(what)?,
        };
        let all = sys::entries(&groups).during(what)?;
        Ok(all
            .iter()
            .filter_map(|entry| entry.name.to_str().ok()?.strip_suffix(".json")?.parse().ok())
            .collect())
    }

    /// Every snapshot of one dataset, oldest first.
    pub(super) fn members(&self, dataset: &DatasetName) -> Done<Vec<Member>> {
        let pending = self.pending_groups()?;
        match self.dataset(dataset)? {
            Some(place) => members::members(&place, dataset, &pending),
            None => Ok(Vec::new()),
        }
    }

    /// The lineages of a dataset that were set aside, each under its name.
    pub(super) fn set_aside(&self, dataset: &DatasetName) -> Done<Vec<Dataset>> {
        let fail = |error| self.no_dataset(dataset, error);
        let all = match sys::open_dir(&self.fd, c"aside") {
            Err(Errno::NOENT) => return Ok(Vec::new()),
            opened => opened.map_err(fail)?,
        };
        let own = match sys::open_dir(&all, &escaped(dataset)) {
            Err(Errno::NOENT) => return Ok(Vec::new()),
            opened => opened.map_err(fail)?,
        };
        let mut lineages = Vec::new();
        for entry in sys::entries(&own).map_err(fail)? {
            let fd = sys::open_dir(&own, &entry.name).map_err(fail)?;
            let snapshots = sys::open_dir(&fd, c"snapshots").map_err(fail)?;
            let path = self
                .path
                .join("aside")
                .join(dataset.as_str().replace('/', "%"))
                .join(entry.name.to_string_lossy().as_ref());
            lineages.push(Dataset { fd, snapshots, path });
        }
        lineages.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(lineages)
    }
}

impl Dataset {
    /// The host whose data this is, where that was recorded.
    pub(super) fn origin(&self) -> Done<Option<String>> {
        let what = || format!("can't read whose data is in {:?}", self.path);
        match records::read::<OriginRecord>(&self.fd, ORIGIN).during(what)? {
            Found::There(record) => Ok(Some(record.host)),
            Found::Missing => Ok(None),
            Found::Newer(format) => Err(newer(&self.path, format)),
            Found::Damaged(why) => Err(Fail::new(Common::Corrupt, what()).said(why)),
        }
    }

    /// Records whose data this is.
    pub(super) fn set_origin(&self, host: &str) -> Done<()> {
        let host = host.to_owned();
        records::write(&self.fd, ORIGIN, &OriginRecord { host })
    }

    /// Takes the dataset's lock, or says that somebody has it.
    pub(super) fn lock(&self) -> Done<Option<Lock>> {
        let what = || format!("can't lock {:?}", self.path);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, c"lock", flags, Mode::RUSR | Mode::WUSR).during(what)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(sys::os_fail(what(), error)),
        }
    }
}

/// The first eight bytes of a hash as a guid.
pub(super) fn first_u64(hash: &blake3::Hash) -> Guid {
    let mut bytes = [0; 8];
    for (to, from) in std::iter::zip(&mut bytes, hash.as_bytes()) {
        *to = *from;
    }
    Guid(u64::from_le_bytes(bytes))
}
