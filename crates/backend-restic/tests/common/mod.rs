//! A repository, a tree and their comparison, for the tests in this directory.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses some of it, all of it is a test"
)]

pub mod forge;
pub mod place;

pub use place::{ACCESS_ACL, DEFAULT_ACL, set_acl};

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reseed_backend_restic::backup::{BackupJob, BackupSummary, backup};
use reseed_backend_restic::error::EngineError;
use reseed_backend_restic::repo::Engine;
use reseed_backend_restic::restore::{RestoreJob, RestoreReport, restore};
use reseed_backend_restic::secret::Password;
use reseed_core::clock::{Clock, SystemClock};
use tempfile::TempDir;

const PASSWORD: &str = "correct horse";
pub const AS_PATH: &str = "/var/lib/service";

pub struct Lab {
    pub dir: TempDir,
    pub engine: Engine,
    pub password: Password,
    pub clock: Arc<dyn Clock>,
}

impl Lab {
    /// A repository that does not exist yet.
    pub fn bare() -> Self {
        let dir = place::temporary();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let engine = Engine::local(dir.path().join("repo"), Arc::clone(&clock));
        Self {
            dir,
            engine,
            password: Password::new(PASSWORD),
            clock,
        }
    }

    /// An empty repository, made by hand so that opening it is quick.
    pub fn new() -> Self {
        let lab = Self::bare();
        forge::Forge::create(&lab.path("repo"), PASSWORD);
        lab
    }

    /// An empty repository as the engine makes them.
    pub fn initialised() -> Self {
        let lab = Self::bare();
        lab.engine.init(&lab.password).unwrap();
        lab
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn job(&self, source: &Path) -> BackupJob {
        BackupJob {
            source: source.into(),
            as_path: AS_PATH.into(),
            host: "testhost".into(),
            tags: vec!["a-tag".into()],
            partial_tag: Some("partial".into()),
            time: self.clock.now(),
        }
    }

    pub fn backup(&self, source: &Path) -> BackupSummary {
        backup(
            &self.engine,
            &self.password,
            &self.job(source),
            Arc::new(|_| ()),
            never(),
        )
        .unwrap()
    }

    pub fn restore_job(&self, snapshot: &str, target: &str) -> RestoreJob {
        RestoreJob {
            snapshot: snapshot.into(),
            path: None,
            only: None,
            target: self.path(target),
            resume: false,
            empty: false,
            workers: 0,
        }
    }

    pub fn restore(&self, job: &RestoreJob) -> Result<RestoreReport, EngineError> {
        restore(&self.engine, &self.password, job, Arc::new(|_| ()), never())
    }

    pub fn files_in(&self, directory: &str) -> Vec<PathBuf> {
        walk(&self.path("repo").join(directory))
            .into_iter()
            .filter(|path| path.is_file())
            .collect()
    }

    /// The pack files that hold file content, largest first.
    pub fn packs(&self) -> Vec<PathBuf> {
        let mut packs = self.files_in("data");
        packs.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
        packs
    }

    pub fn locks(&self) -> usize {
        self.files_in("locks").len()
    }
}

pub fn never() -> Arc<dyn Fn() -> bool + Send + Sync> {
    Arc::new(|| false)
}

/// Every path below a directory, the directory not included.
pub fn walk(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(dir) = open.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                open.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Bytes that do not compress and are the same each time.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub const ODD_NAMES: [&[u8]; 14] = [
    b"plain",
    b"with space",
    b"-rf",
    b"--help",
    b"new\nline",
    b"quote's",
    b"double\"quote",
    b"back\\slash",
    b"tab\tbell\x07",
    b"\xc3\xa4\xc3\xb6\xe2\x82\xac",
    b"not-utf8-\xff\xfe",
    b".hidden",
    b"...",
    b"\\x41",
];

/// A tree with something of everything that works without being root.
pub fn make_tree(root: &Path) {
    fs::create_dir_all(root.join("sub/deep/er")).unwrap();
    fs::create_dir_all(root.join("empty-dir")).unwrap();
    fs::write(root.join("empty"), b"").unwrap();
    fs::write(root.join("sub/compressible"), vec![b'x'; 300_000]).unwrap();
    fs::write(root.join("sub/deep/noise"), noise(1, 3_000_000)).unwrap();
    fs::write(root.join("sub/deep/er/same-noise"), noise(1, 3_000_000)).unwrap();
    for name in ODD_NAMES {
        let name = OsStr::from_bytes(name);
        fs::write(root.join("sub").join(name), name.as_bytes()).unwrap();
    }
    let odd_dir = root.join(OsStr::from_bytes(b"dir\n\"\xff"));
    fs::create_dir(&odd_dir).unwrap();
    fs::write(odd_dir.join("in odd dir"), b"1").unwrap();
    symlink("sub/compressible", root.join("link")).unwrap();
    symlink("/nowhere/at all", root.join("dangling")).unwrap();
    symlink(OsStr::from_bytes(b"\xff"), root.join("odd-link")).unwrap();
    fs::hard_link(root.join("sub/deep/noise"), root.join("hard")).unwrap();
    fs::hard_link(root.join("link"), root.join("sub/hard-linked-symlink")).unwrap();
    make_sparse(&root.join("sparse"), 20 << 20);
    make_fifo(&root.join("fifo"));
    rustix::fs::setxattr(
        root.join("empty"),
        "user.note",
        b"va\0lue",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    rustix::fs::setxattr(
        root.join("sub"),
        "user.dir",
        b"1",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    for (name, acl) in [
        ("sub/deep/noise", ACCESS_ACL),
        ("empty-dir", ACCESS_ACL),
        ("empty-dir", DEFAULT_ACL),
    ] {
        set_acl(&root.join(name), acl);
    }
    set_mode(&root.join("sub/compressible"), 0o4750);
    set_mode(&root.join("empty"), 0o400);
    set_mode(&root.join("sub/deep"), 0o1777);
    set_mode(&root.join("empty-dir"), 0o500);
    for (number, path) in walk(root).into_iter().enumerate() {
        set_time(&path, 1_500_000_000 + i64::try_from(number).unwrap(), 123_456_789);
    }
    set_time(&root.join("empty"), -5, 250_000_000);
    set_mode(root, 0o2751);
    set_time(root, 1_400_000_000, 987_654_321);
}

pub fn make_sparse(path: &Path, length: u64) {
    use std::os::unix::fs::FileExt;
    let file = fs::File::create(path).unwrap();
    file.set_len(length).unwrap();
    file.write_all_at(b"in the middle", length / 2).unwrap();
}

pub fn make_fifo(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(
        rustix::fs::CWD,
        path,
        &times,
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    )
    .unwrap();
}

/// Everything about a tree that a restore has to bring back.
#[derive(Debug, PartialEq, Eq)]
pub struct Look {
    kind: u32,
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    content: Vec<u8>,
    attributes: Vec<(String, Vec<u8>)>,
    /// Which entries are the same file: the first path of the group.
    same_as: Option<PathBuf>,
}

pub fn look(root: &Path) -> BTreeMap<PathBuf, Look> {
    let mut seen: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
    let mut found = BTreeMap::new();
    for path in std::iter::once(root.to_path_buf()).chain(walk(root)) {
        let meta = fs::symlink_metadata(&path).unwrap();
        let relative = path.strip_prefix(root).unwrap().to_path_buf();
        let content = if meta.is_file() {
            // A digest rather than the bytes, so that a failed comparison can be read.
            let bytes = fs::read(&path).unwrap();
            [bytes.len().to_le_bytes().to_vec(), blake(&bytes)].concat()
        } else if meta.is_symlink() {
            fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
        } else {
            meta.rdev().to_le_bytes().to_vec()
        };
        let same_as = (meta.nlink() > 1 && !meta.is_dir()).then(|| {
            seen.entry((meta.dev(), meta.ino()))
                .or_insert_with(|| relative.clone())
                .clone()
        });
        found.insert(
            relative,
            Look {
                kind: meta.mode() & 0o170_000,
                mode: meta.mode() & 0o7777,
                owner: (meta.uid(), meta.gid()),
                modified: (meta.mtime(), meta.mtime_nsec()),
                content,
                attributes: attributes(&path),
                same_as,
            },
        );
    }
    found
}

fn blake(bytes: &[u8]) -> Vec<u8> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish().to_le_bytes().to_vec()
}

fn attributes(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = vec![0_u8; 65536];
    let Ok(length) = rustix::fs::llistxattr(path, &mut names[..]) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for name in names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let mut value = vec![0_u8; 65536];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        found.push((
            String::from_utf8_lossy(name).into_owned(),
            value[..length].to_vec(),
        ));
    }
    found.sort();
    found
}

#[track_caller]
pub fn assert_same(one: &Path, two: &Path) {
    let (one, two) = (look(one), look(two));
    let names = |tree: &BTreeMap<PathBuf, Look>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&one), names(&two));
    for (path, expected) in &one {
        assert_eq!(Some(expected), two.get(path), "{}", path.display());
    }
}

/// Flips one bit in the middle of a file.
pub fn flip_bit(path: &Path, at: f64) {
    set_mode(path, 0o600);
    let mut bytes = fs::read(path).unwrap();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    let position = (bytes.len() as f64 * at) as usize;
    bytes[position] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

pub fn truncate(path: &Path, to: u64) {
    set_mode(path, 0o600);
    fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(to)
        .unwrap();
}

pub fn os(text: &str) -> OsString {
    text.into()
}
