//! Where a lab's repository is, and its objects as files: what breaks a directory breaks a bucket too.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "not each target needs all of it, and all of it is a test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use reseed_backend_restic::restic;
use reseed_backend_restic::s3::{CredentialsFrom, S3Credentials, S3Place};
use reseed_testkit::s3::{Garage, S3Access, S3Faults, S3Proxy, S3Server};

use crate::server::{Rest, Sftp};

const BUCKET: &str = "backups";
/// The program that the environment names.
const GARAGE: &str = "RESEED_REAL_GARAGE";

/// A directory, a bucket of a server of its own, or a directory that only a server of its own reaches.
#[derive(Clone, Debug)]
pub(crate) struct Location {
    root: PathBuf,
    /// What all keys begin with.
    prefix: &'static str,
    kind: Arc<Kind>,
}

#[derive(Debug)]
enum Kind {
    Directory,
    /// A server in this process, whose objects are files.
    Files(S3Server),
    Garage(Mirrored),
    Rest(Rest),
    Sftp(Sftp),
}

impl Location {
    pub(crate) fn directory(root: PathBuf) -> Self {
        Self::new(root, "", Kind::Directory)
    }

    /// A bucket of a server in this process, with everything below this directory.
    pub(crate) fn files(dir: &Path, prefix: &'static str) -> Self {
        let objects = dir.join("s3");
        fs::create_dir(&objects).unwrap();
        let server = S3Server::start(objects).unwrap();
        let root = server.make_bucket(BUCKET).unwrap().join(prefix);
        Self::new(root, prefix, Kind::Files(server))
    }

    /// A bucket of a Garage behind a proxy, with everything below this directory.
    pub(crate) fn garage(dir: &Path, prefix: &'static str) -> Self {
        let mirrored = Mirrored::start(dir);
        Self::new(mirrored.files.join(prefix), prefix, Kind::Garage(mirrored))
    }

    /// What restic's own server has, which deletes nothing but locks where it is told so.
    pub(crate) fn rest(dir: &Path, prefix: &'static str, append_only: bool) -> Self {
        let files = dir.join("rest");
        fs::create_dir_all(&files).unwrap();
        let server = Rest::start(dir, &files, append_only);
        Self::new(files.join(prefix), prefix, Kind::Rest(server))
    }

    /// What an sshd has.
    pub(crate) fn sftp(dir: &Path, prefix: &'static str) -> Self {
        let server = Sftp::start(dir);
        Self::new(dir.join("sftp").join(prefix), prefix, Kind::Sftp(server))
    }

    fn new(root: PathBuf, prefix: &'static str, kind: Kind) -> Self {
        let kind = Arc::new(kind);
        Self { root, prefix, kind }
    }

    pub(crate) fn is_bucket(&self) -> bool {
        matches!(*self.kind, Kind::Files(_) | Kind::Garage(_))
    }

    /// Whether there is a server in between, by which a file isn't seen that is in a directory's place.
    pub(crate) fn is_elsewhere(&self) -> bool {
        !matches!(*self.kind, Kind::Directory)
    }

    /// The repository's objects. Those of Garage are only there within `look` and `edit`.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// How to get in.
    pub(crate) fn access(&self) -> S3Access {
        match &*self.kind {
            Kind::Directory | Kind::Rest(_) | Kind::Sftp(_) => panic!("it is no bucket"),
            Kind::Files(server) => server.access().clone(),
            // Through the proxy.
            Kind::Garage(mirrored) => S3Access {
                endpoint: mirrored.proxy.endpoint().to_owned(),
                ..mirrored.garage.access().clone()
            },
        }
    }

    /// The server in this process.
    pub(crate) fn server(&self) -> &S3Server {
        match &*self.kind {
            Kind::Files(server) => server,
            _ => panic!("it is elsewhere"),
        }
    }

    pub(crate) fn s3(&self) -> Option<(S3Place, CredentialsFrom)> {
        let bucket = match &*self.kind {
            Kind::Directory | Kind::Rest(_) | Kind::Sftp(_) => return None,
            Kind::Files(_) => BUCKET,
            Kind::Garage(mirrored) => mirrored.garage.bucket(),
        };
        let access = self.access();
        let key = S3Credentials::new(access.access_key_id, access.secret_access_key);
        let place = S3Place {
            endpoint: access.endpoint,
            region: access.region,
            bucket: bucket.to_owned(),
            prefix: self.prefix.to_owned(),
            allow_http: true,
        };
        Some((place, CredentialsFrom::Given(key)))
    }

    /// The rules by which a bucket's server fails.
    pub(crate) fn faults(&self) -> Option<&S3Faults> {
        match &*self.kind {
            Kind::Directory | Kind::Sftp(_) => None,
            Kind::Files(server) => Some(server.faults()),
            Kind::Garage(mirrored) => Some(mirrored.proxy.faults()),
            Kind::Rest(server) => Some(server.faults()),
        }
    }

    /// As the restic program is told.
    pub(crate) fn for_restic(&self) -> restic::Location {
        match (&*self.kind, self.s3()) {
            (Kind::Rest(server), _) => restic::Location::Rest(server.place(self.prefix)),
            (Kind::Sftp(server), _) => restic::Location::Sftp(server.place(&self.root)),
            (_, Some((place, credentials))) => restic::Location::S3 { place, credentials },
            (_, None) => restic::Location::Local(self.root.clone()),
        }
    }

    pub(crate) fn sftp_server(&self) -> Option<&Sftp> {
        match &*self.kind {
            Kind::Sftp(server) => Some(server),
            _ => None,
        }
    }

    /// Looks at the objects.
    pub(crate) fn look<T>(&self, look: impl FnOnce() -> T) -> T {
        if let Kind::Garage(mirrored) = &*self.kind {
            mirrored.pull();
        }
        look()
    }

    /// Changes them.
    pub(crate) fn edit<T>(&self, edit: impl FnOnce() -> T) -> T {
        let Kind::Garage(mirrored) = &*self.kind else {
            return edit();
        };
        mirrored.pull();
        let edited = edit();
        mirrored.push();
        edited
    }
}

/// A bucket of a real server, whose objects are copied to files and back.
#[derive(Debug)]
struct Mirrored {
    proxy: S3Proxy,
    garage: Garage,
    bucket: AmazonS3,
    files: PathBuf,
    /// As both were when they were last the same.
    same: Mutex<BTreeMap<String, Object>>,
}

#[derive(Debug)]
struct Object {
    etag: Option<String>,
    content: Bytes,
}

impl Mirrored {
    fn start(dir: &Path) -> Self {
        let program = std::env::var_os(GARAGE).unwrap_or_else(|| {
            panic!("{GARAGE} must name the garage to test with (or leave out the tests named real_*)")
        });
        let (own, files) = (dir.join("garage"), dir.join("objects"));
        for new in [&own, &files] {
            fs::create_dir(new).unwrap();
        }
        let garage = Garage::start(Path::new(&program), &own).unwrap();
        let access = garage.access();
        // The client wants a choice, also for plain HTTP; an engine makes the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let bucket = AmazonS3Builder::new()
            .with_endpoint(&access.endpoint)
            .with_allow_http(true)
            .with_region(&access.region)
            .with_bucket_name(garage.bucket())
            .with_access_key_id(&access.access_key_id)
            .with_secret_access_key(&access.secret_access_key)
            .build()
            .unwrap();
        Self {
            proxy: S3Proxy::start(garage.address()).unwrap(),
            garage,
            bucket,
            files,
            same: Mutex::default(),
        }
    }

    fn pull(&self) {
        let same = &mut *self.same.lock().unwrap();
        let gone = wait(async {
            let mut gone: Vec<String> = same.keys().cloned().collect();
            let listed: Vec<_> = self.bucket.list(None).try_collect().await.unwrap();
            for meta in listed {
                let key = meta.location.to_string();
                gone.retain(|had| *had != key);
                if same.get(&key).is_some_and(|had| had.etag == meta.e_tag) {
                    continue;
                }
                let found = match self.bucket.get(&meta.location).await {
                    // It went between the two requests.
                    Err(object_store::Error::NotFound { .. }) => {
                        gone.extend(same.contains_key(&key).then_some(key));
                        continue;
                    }
                    found => found.unwrap(),
                };
                let content = found.bytes().await.unwrap();
                let path = self.files.join(&key);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, &content).unwrap();
                let etag = meta.e_tag;
                same.insert(key, Object { etag, content });
            }
            gone
        });
        for key in gone {
            fs::remove_file(self.files.join(&key)).unwrap();
            same.remove(&key);
        }
    }

    fn push(&self) {
        let same = &mut *self.same.lock().unwrap();
        let mut now = BTreeMap::new();
        contents(&self.files, "", &mut now);
        wait(async {
            for (key, content) in &now {
                if same.get(key).is_some_and(|had| had.content == *content) {
                    continue;
                }
                let place = Key::from(key.as_str());
                let put = self.bucket.put(&place, content.clone().into()).await.unwrap();
                let etag = put.e_tag;
                let content = content.clone();
                same.insert(key.clone(), Object { etag, content });
            }
            for key in same.keys().filter(|key| !now.contains_key(*key)) {
                self.bucket.delete(&Key::from(key.as_str())).await.unwrap();
            }
        });
        same.retain(|key, _| now.contains_key(key));
    }
}

fn contents(dir: &Path, key: &str, found: &mut BTreeMap<String, Bytes>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let key = format!("{key}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            contents(&entry.path(), &format!("{key}/"), found);
        } else {
            found.insert(key, fs::read(entry.path()).unwrap().into());
        }
    }
}

/// Waits on a thread of its own: this one may be driving a test.
pub(crate) fn wait<T: Send>(work: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(work)
        });
        thread.join().unwrap()
    })
}
