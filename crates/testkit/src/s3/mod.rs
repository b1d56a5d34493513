//! An S3 server in this process: on loopback, over a directory, with credentials that are really checked.
//!
//! It is as strict as the real ones where a client could notice: a wrong secret, a wrong region, a bucket that is not
//! there and a clock that is off are refused; conditional puts are atomic; what was put is listed. [`S3Faults`] makes it
//! fail by rules. It speaks plain HTTP, path-style addresses only, and ends when it is dropped.
//!
//! Objects are files: the one of key `a/b` in bucket `c` is `c/a/b` below the server's directory, and a lab may write,
//! damage and remove them there. A key that continues another one's as a path (`a` and `a/b`) can't be stored.
//!
//! [`S3Proxy`] fails by the same rules in front of another server, which [`Garage`] may be; [`Daemon`] runs any other one.

mod answer;
mod daemon;
mod faults;
mod garage;
mod proxy;
mod served;
mod store;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};

pub use daemon::{Daemon, own_address};
pub use faults::{S3Fault, S3Faults, S3Guard, S3Op, S3Rule};
pub use garage::Garage;
pub use proxy::S3Proxy;
use served::{Behind, Door, Served};

/// What the server lets in, and where.
#[derive(Debug, Clone)]
pub struct S3Access {
    /// `http://127.0.0.1:PORT`.
    pub endpoint: String,
    /// The only region that signatures may name.
    pub region: String,
    /// The access key's id.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
}

/// A server that runs. Dropping it ends it and closes its connections; its directory stays.
#[derive(Debug)]
pub struct S3Server {
    root: PathBuf,
    access: S3Access,
    faults: S3Faults,
    lifecycles: Lifecycles,
    _served: Served,
}

/// The lifecycle rules of buckets, as XML.
type Lifecycles = Arc<Mutex<BTreeMap<String, String>>>;

/// The store in this process, and what it checks.
#[derive(Clone)]
struct Here {
    service: S3Service,
    lifecycles: Lifecycles,
    region: String,
}

impl S3Server {
    /// Starts one over a directory that exists, on a port that the kernel chooses.
    ///
    /// # Errors
    /// When the directory, the port or the thread can't be had.
    pub fn start(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        let door = Door::open()?;
        let port = door.port();
        let access = S3Access {
            endpoint: door.endpoint(),
            region: "test-region-1".to_owned(),
            access_key_id: format!("AKTEST{port}"),
            secret_access_key: format!("secret/of+the=server/at/{port}"),
        };
        let (faults, lifecycles) = (S3Faults::default(), Lifecycles::default());
        let files = s3s_fs::FileSystem::new(&root).map_err(|error| io::Error::other(format!("{error:?}")))?;
        let mut builder = S3ServiceBuilder::new(store::Store::new(files, &root, &faults, &lifecycles));
        builder.set_auth(SimpleAuth::from_single(
            access.access_key_id.clone(),
            access.secret_access_key.clone(),
        ));
        let here = Here {
            service: builder.build(),
            lifecycles: Arc::clone(&lifecycles),
            region: access.region.clone(),
        };
        Ok(Self {
            root,
            access,
            _served: door.serve(&faults, Behind::Here(here))?,
            faults,
            lifecycles,
        })
    }

    /// Makes a bucket, and answers its directory.
    ///
    /// # Errors
    /// When it can't be made, or is there.
    pub fn make_bucket(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.bucket(name);
        std::fs::create_dir(&path)?;
        Ok(path)
    }

    /// Gives a bucket lifecycle rules: the elements `Rule`, as S3 has them. They are only told, never carried out.
    pub fn set_lifecycle(&self, bucket: &str, rules: &str) {
        let text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <LifecycleConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{rules}</LifecycleConfiguration>"
        );
        let mut lifecycles = self.lifecycles.lock().unwrap_or_else(PoisonError::into_inner);
        lifecycles.insert(bucket.to_owned(), text);
    }

    /// The directory of a bucket's objects.
    pub fn bucket(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The server's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// How to get in.
    pub fn access(&self) -> &S3Access {
        &self.access
    }

    /// The rules by which it fails.
    pub fn faults(&self) -> &S3Faults {
        &self.faults
    }
}
