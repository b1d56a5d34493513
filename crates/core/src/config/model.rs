//! The configuration as the rest of reseed sees it: complete, consistent, every reference resolved.
//!
//! It serialises in the shape of the file, so what `reseed config show --json` prints is a configuration again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::bandwidth::Bandwidth;
use super::declared::Declared;
use super::location::RepoLocation;
use super::origin::Origins;
use super::pulls::Pull;
use super::units::format_duration;
use crate::names::{DatasetName, ServiceName, SourceName};
use crate::point::Target;
use crate::source::SourceClass;
use crate::verify::Validator;

pub use super::file::{Prefer, Verify, WhenExhausted};
pub use super::keep::Keep;
pub use super::place_file::{ReplicaNames, Sender};
use super::price::Price;

/// The state directory unless the configuration names another.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/reseed";

/// The whole configuration.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Config {
    /// What this machine is called in backups.
    pub host: String,
    /// Where journal, locks and caches are.
    pub state_dir: PathBuf,
    /// Where live data's snapshots are.
    pub stores: BTreeMap<SourceName, Place>,
    /// Where second copies of the snapshots are.
    pub replicas: BTreeMap<SourceName, Place>,
    /// What is fetched from other machines.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pulls: BTreeMap<SourceName, Pull>,
    /// Repositories of backups.
    pub offsite: BTreeMap<SourceName, Offsite>,
    /// ZFS datasets whose properties and snapshots are declared.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub datasets: BTreeMap<DatasetName, Declared>,
    /// The services whose data is kept.
    pub services: BTreeMap<ServiceName, Service>,
    #[serde(skip)]
    pub(crate) origins: Origins,
}

/// Two are equal when they say the same, wherever it was written.
impl PartialEq for Config {
    fn eq(&self, other: &Self) -> bool {
        (self.host == other.host && self.state_dir == other.state_dir)
            && (self.stores == other.stores
                && self.replicas == other.replicas
                && self.offsite == other.offsite)
            && self.pulls == other.pulls
            && self.datasets == other.datasets
            && self.services == other.services
    }
}

impl Eq for Config {}

impl Config {
    /// What kind of place a name stands for.
    pub fn class_of(&self, name: &SourceName) -> Option<SourceClass> {
        if self.stores.contains_key(name) {
            Some(SourceClass::Local)
        } else if self.replicas.contains_key(name) {
            Some(SourceClass::Replica)
        } else if self.offsite.contains_key(name) {
            Some(SourceClass::Offsite)
        } else {
            None
        }
    }

    /// What configured directory a path is, contains, or lies in, in words; none when it has nothing to do with any.
    pub fn place_near(&self, path: &Path) -> Option<String> {
        let near = |other: &Path| path.starts_with(other) || other.starts_with(path);
        let live = self
            .services
            .values()
            .flat_map(|service| service.datasets.iter().map(move |d| (service, d)));
        let mut live = live.filter(|(_, dataset)| near(&dataset.mountpoint));
        if let Some((service, dataset)) = live.next() {
            return Some(format!(
                "the data of {} is in {}",
                service.name,
                dataset.mountpoint.display()
            ));
        }
        let mut places = self
            .stores
            .iter()
            .chain(&self.replicas)
            .filter_map(|(name, place)| Some((name, place.path()?)));
        if let Some((name, place)) = places.find(|(_, place)| near(place)) {
            return Some(format!("{name} is in {}", place.display()));
        }
        let mut repositories = self
            .offsite
            .iter()
            .filter_map(|(name, offsite)| Some((name, offsite.repository().directory()?)));
        let (name, place) = repositories.find(|(_, place)| near(place))?;
        Some(format!("{name} is in {}", place.display()))
    }

    /// A service by its name as someone typed it.
    ///
    /// # Errors
    /// `InvalidInput`, with the closest name as hint.
    pub fn service(&self, name: &str) -> Result<&Service, crate::error::OpError> {
        let found = ServiceName::new(name)
            .ok()
            .and_then(|name| self.services.get(&name));
        found.ok_or_else(|| {
            let names: Vec<_> = self.services.keys().map(ServiceName::as_str).collect();
            crate::error::OpError::new(
                crate::error::OpKind::InvalidInput,
                format!("no service {} is configured", super::text::quoted(name)),
            )
            .hint(super::diagnostic::suggest(name, "services", &names))
        })
    }
}

/// A place for snapshots.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Place {
    /// A plain directory.
    Directory {
        /// Absolute.
        path: PathBuf,
    },
    /// The snapshots of ZFS datasets of this machine, in the datasets themselves.
    Zfs {
        /// The services' datasets are below it, unless they name another.
        root: DatasetName,
    },
    /// Copies of ZFS datasets in another pool.
    #[serde(rename = "zfs")]
    ZfsReplica {
        /// All copies are below it.
        root: DatasetName,
        /// How they are named.
        mapping: ReplicaNames,
        /// Encrypted datasets are sent as they are.
        raw: bool,
        /// The most that each stream to it may have.
        #[serde(skip_serializing_if = "Option::is_none")]
        bandwidth: Option<Bandwidth>,
        /// How many datasets are sent at once, from 1 to 32.
        at_once: u32,
        /// What sends.
        sender: Sender,
        /// Where the pool is; on this machine without.
        #[serde(skip_serializing_if = "Option::is_none")]
        ssh: Option<Ssh>,
    },
}

/// How another machine is reached.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Ssh {
    /// Its name or address.
    pub host: String,
    /// Who to log in as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Absolute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// Absolute.
    pub known_hosts: PathBuf,
}

impl Ssh {
    /// As ssh takes it: `user@host`.
    pub fn destination(&self) -> String {
        match &self.user {
            Some(user) => format!("{user}@{}", self.host),
            None => self.host.clone(),
        }
    }
}

impl Place {
    /// Its directory, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Directory { path } => Some(path),
            _ => None,
        }
    }

    /// Where it is, in words.
    pub fn location(&self) -> String {
        match self {
            Self::Directory { path } => path.display().to_string(),
            Self::Zfs { root } | Self::ZfsReplica { root, ssh: None, .. } => root.to_string(),
            Self::ZfsReplica {
                root, ssh: Some(ssh), ..
            } => format!("{root} on {}", ssh.destination()),
        }
    }
}

/// A repository of backups.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Offsite {
    /// Written and read by the embedded engine.
    Embedded {
        /// Where it is.
        repository: RepoLocation,
        /// Absolute.
        password_file: PathBuf,
        /// How it is reached, where it is in S3.
        #[serde(flatten, skip_serializing_if = "Option::is_none")]
        s3: Option<S3Access>,
        /// What its store takes, where that is declared.
        #[serde(skip_serializing_if = "Option::is_none")]
        price: Option<Price>,
    },
    /// Written and read by the restic program.
    Restic {
        /// Where it is.
        repository: RepoLocation,
        /// Absolute.
        password_file: PathBuf,
        /// How it is reached, where that is no directory of this machine.
        #[serde(flatten, skip_serializing_if = "Option::is_none")]
        access: Option<Access>,
        /// Which points stay; all of them without.
        #[serde(skip_serializing_if = "Option::is_none")]
        keep: Option<Keep>,
        /// What its store takes, where that is declared.
        #[serde(skip_serializing_if = "Option::is_none")]
        price: Option<Price>,
    },
}

/// How a repository that is elsewhere is reached.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Access {
    /// In S3.
    S3(S3Access),
    /// On restic's own server.
    Rest(RestAccess),
    /// By way of ssh.
    Sftp(SftpAccess),
}

/// How a repository on restic's own server is reached.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RestAccess {
    /// Who to log in as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_user: Option<String>,
    /// The file with the user's password; absolute. There is one where there is a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_password_file: Option<PathBuf>,
    /// The address may begin with `http:`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_http: bool,
}

/// How a repository on another machine is reached.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SftpAccess {
    /// The file with the host's key; absolute.
    pub known_hosts: PathBuf,
    /// The file with the private key; absolute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

impl Offsite {
    /// Where it is.
    pub fn repository(&self) -> &RepoLocation {
        match self {
            Self::Embedded { repository, .. } | Self::Restic { repository, .. } => repository,
        }
    }

    /// The files that hold what nobody else may know.
    pub fn secret_files(&self) -> Vec<&Path> {
        let (password, s3, rest) = match self {
            Self::Embedded {
                password_file, s3, ..
            } => (password_file, s3.as_ref(), None),
            Self::Restic {
                password_file,
                access,
                ..
            } => match access {
                Some(Access::S3(s3)) => (password_file, Some(s3), None),
                Some(Access::Rest(rest)) => (password_file, None, rest.server_password_file.as_ref()),
                // ssh itself refuses a key that others can read.
                Some(Access::Sftp(_)) | None => (password_file, None, None),
            },
        };
        let credentials = s3.map(|s3| &s3.credentials_file);
        let all = std::iter::once(password).chain(credentials).chain(rest);
        all.map(PathBuf::as_path).collect()
    }

    /// What its store takes, where that is declared.
    pub fn price(&self) -> Option<&Price> {
        match self {
            Self::Embedded { price, .. } | Self::Restic { price, .. } => price.as_ref(),
        }
    }
}

/// How a repository in S3 is reached.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct S3Access {
    /// The region that requests are signed for.
    pub region: String,
    /// An AWS credentials file; absolute.
    pub credentials_file: PathBuf,
    /// Its section, unless that is `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The address may begin with `http:`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_http: bool,
}

/// A service whose data is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// The systemd unit that uses the data.
    pub unit: Option<String>,
    /// On a ZFS store: the dataset that its data is in, or that its datasets are below.
    pub dataset: Option<DatasetName>,
    /// Its datasets, sorted, at least one. They are snapshotted together.
    pub datasets: Vec<Target>,
    /// Checks of restored data, by dataset. See [`Service::validators_of`].
    pub validators: BTreeMap<DatasetName, Vec<Validator>>,
    /// What holds for it.
    pub policy: Policy,
}

/// What holds for a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The store with the live data's snapshots.
    pub store: SourceName,
    /// The replicas that get copies.
    pub replicas: Vec<SourceName>,
    /// The repositories that get backups.
    pub offsite: Vec<SourceName>,
    /// The sources of a restore, in order, at least one; all of them are among the three above.
    pub chain: Vec<SourceName>,
    /// Whether the chain's order or the points' age decides.
    pub prefer: Prefer,
    /// What to do when no source could deliver.
    pub when_exhausted: WhenExhausted,
    /// What has to match before restored data becomes live.
    pub verify: Verify,
    /// The time for the whole chain. Not zero.
    pub budget: Duration,
    /// The time for one source. Not zero, and never more than the budget.
    pub source_budget: Duration,
    /// How often a source is tried. At least 1.
    pub tries: u32,
    /// How many snapshots of the store are kept.
    pub retention: Retention,
}

/// How many snapshots of each kind are kept, as sanoid counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Retention {
    pub frequently: u32,
    pub hourly: u32,
    pub daily: u32,
    pub weekly: u32,
    pub monthly: u32,
    pub yearly: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            frequently: 0,
            hourly: 24,
            daily: 7,
            weekly: 4,
            monthly: 6,
            yearly: 0,
        }
    }
}

impl Retention {
    /// Nothing is kept.
    pub fn is_nothing(&self) -> bool {
        [
            self.frequently,
            self.hourly,
            self.daily,
            self.weekly,
            self.monthly,
            self.yearly,
        ] == [0; 6]
    }
}

/// The whole chain's time: the unit's TimeoutStartSec is 3600 s, and the walk has to end in its own words.
pub(crate) const DEFAULT_BUDGET: Duration = Duration::from_secs(55 * 60);
/// One source's time.
pub(crate) const DEFAULT_SOURCE_BUDGET: Duration = Duration::from_secs(20 * 60);
/// Tries of a source.
pub(crate) const DEFAULT_TRIES: u32 = 3;

impl Service {
    /// The checks of one of its datasets.
    pub fn validators_of(&self, dataset: &DatasetName) -> &[Validator] {
        self.validators.get(dataset).map_or(&[], Vec::as_slice)
    }

    /// Its one directory, when it was declared by `path`: then the dataset is called after the service itself.
    fn only_path(&self) -> Option<&Path> {
        let [only] = self.datasets.as_slice() else {
            return None;
        };
        let by_path = match &self.dataset {
            Some(own) => only.dataset == *own,
            None => {
                only.dataset.leaf() == self.name.as_str() && only.dataset.as_str().matches('/').count() == 1
            }
        };
        by_path.then_some(&only.mountpoint)
    }

    /// The service in the shape of the file, in the order in which a person reads it.
    pub(crate) fn rows(&self) -> Vec<(&'static str, serde_json::Value)> {
        use serde_json::{Map, Value, json};
        let policy = &self.policy;
        let mut rows = vec![("store", json!(policy.store))];
        if let Some(dataset) = &self.dataset {
            rows.push(("dataset", json!(dataset)));
        }
        if let Some(path) = self.only_path() {
            rows.push(("path", json!(path)));
            if let Some(validators) = self.validators.values().next() {
                rows.push(("validators", json!(validators)));
            }
        }
        rows.extend([
            ("replicas", json!(policy.replicas)),
            ("offsite", json!(policy.offsite)),
            ("chain", json!(policy.chain)),
            ("prefer", json!(policy.prefer)),
            ("when_exhausted", json!(policy.when_exhausted)),
            ("verify", json!(policy.verify)),
            ("budget", json!(format_duration(policy.budget))),
            ("source_budget", json!(format_duration(policy.source_budget))),
            ("tries", json!(policy.tries)),
        ]);
        if let Some(unit) = &self.unit {
            rows.push(("unit", json!(unit)));
        }
        rows.push(("retention", json!(policy.retention)));
        if self.only_path().is_none() {
            let by_leaf = |(name, value): (&DatasetName, Value)| (name.leaf().to_owned(), value);
            let datasets = self
                .datasets
                .iter()
                .map(|target| by_leaf((&target.dataset, json!(target.mountpoint))));
            rows.push(("datasets", Value::Object(datasets.collect::<Map<_, _>>())));
            if !self.validators.is_empty() {
                let validators = self
                    .validators
                    .iter()
                    .map(|(name, list)| by_leaf((name, json!(list))));
                rows.push(("validators", Value::Object(validators.collect::<Map<_, _>>())));
            }
        }
        rows
    }
}

impl Serialize for Service {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows = self.rows();
        let mut map = serializer.serialize_map(Some(rows.len()))?;
        for (key, value) in rows {
            map.serialize_entry(key, &value)?;
        }
        map.end()
    }
}
