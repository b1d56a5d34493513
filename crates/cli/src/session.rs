//! What a command works with: the configuration wired to backends, an engine, a run and its events.
//!
//! This is the only place that knows which backend a configured type stands for.

mod offsite;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reseed_backend_zfs::datasets::Layout;
use reseed_backend_zfs::dir::{DirReplicator, DirSource, DirStore};
use reseed_backend_zfs::sanoid::SanoidDriver;
use reseed_backend_zfs::syncoid::Syncoid;
use reseed_backend_zfs::zfs::health::Pools;
use reseed_backend_zfs::zfs::{
    DEFAULT_PLACES, LocalSource, Location, Mapping, NativeReplicator, NativeStore, ReplicaSource,
    RootDataset, SnapshotFiles, Ssh,
};
use reseed_core::clock::{Clock, SystemClock};
use reseed_core::config::{self, Config, ConfigErrors, Place, ReplicaNames, Sender};
use reseed_core::entropy::{Entropy, SplitMix};
use reseed_core::error::{OpError, OpKind, StoreKind};
use reseed_core::event::EventSink;
use reseed_core::exec::{Command, Runner, SystemRunner};
use reseed_core::journal::{Journal, SqliteJournal};
use reseed_core::lock::{Claim, Locks, ServiceLock};
use reseed_core::names::{DatasetName, RunId, ServiceName, SourceName};
use reseed_core::point::Target;
use reseed_core::retention::{self, sanoid};
use reseed_core::service::Policy;
use reseed_core::verify::SystemVerifier;
use reseed_core::{Context, Engine, OffsiteRepo, Replicator, RestoreSource, Service, SnapshotStore};
use tokio_util::sync::CancellationToken;

use crate::args::{Cli, DEFAULT_CONFIG, Services};
use crate::ui::Ui;

/// The longest that asking one source for its points may take.
const PROBE_BUDGET: Duration = Duration::from_secs(60);

/// A configuration that was read, and what runs on it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) config: Config,
    pub(crate) engine: Engine,
    pub(crate) cx: Context,
    pub(crate) locks: Locks,
    pub(crate) ui: Ui,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    runner: Arc<dyn Runner>,
}

/// The configuration file that a command line asks for.
pub(crate) fn config_path(cli: &Cli) -> PathBuf {
    cli.config
        .clone()
        .or_else(|| {
            std::env::var_os("RESEED_CONFIG")
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        })
        .unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG))
}

impl Session {
    /// Reads the configuration and wires it. Opens nothing yet.
    pub(crate) fn open(
        path: &Path,
        ui: Ui,
        sink: Arc<dyn EventSink>,
        cancel: CancellationToken,
    ) -> Result<Self, ConfigErrors> {
        let loaded = config::load(path)?;
        for warning in &loaded.warnings {
            crate::complain(&format!("{warning}"));
        }
        Ok(Self::with(loaded.config, ui, sink, cancel))
    }

    pub(crate) fn with(config: Config, ui: Ui, sink: Arc<dyn EventSink>, cancel: CancellationToken) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let entropy: Arc<dyn Entropy> = Arc::new(SplitMix::system());
        let runner: Arc<dyn Runner> = Arc::new(SystemRunner::new());
        let verifier = Arc::new(SystemVerifier::new(
            Arc::clone(&runner),
            config.state_dir.join("scratch"),
        ));
        let journal: Arc<dyn Journal> = Arc::new(SqliteJournal::new(
            config.state_dir.join("journal.sqlite"),
            Arc::clone(&clock),
        ));
        let run = RunId::generate(clock.now(), entropy.as_ref());
        let engine = Engine {
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            verifier,
            journal,
            host: config.host.clone(),
        };
        let locks = Locks::new(config.state_dir.join("locks"));
        Self {
            config,
            engine,
            cx: Context::new(run, sink, cancel),
            locks,
            ui,
            clock,
            entropy,
            runner,
        }
    }

    /// The services that a command line names, wired, in its order.
    pub(crate) fn services(&self, which: &Services) -> Result<Vec<Service>, OpError> {
        self.named(Wiring::new(self), &which.services, which.all)
    }

    /// As [`Session::services`], whose sources deliver files into any directory: for what is restored beside.
    pub(crate) fn services_as_files(&self, which: &Services) -> Result<Vec<Service>, OpError> {
        self.named(Wiring::new(self).delivering_files(), &which.services, which.all)
    }

    /// As [`Session::services`]; without names and without `all`, every service.
    pub(crate) fn services_or_all(&self, names: &[String]) -> Result<Vec<Service>, OpError> {
        self.named(Wiring::new(self), names, names.is_empty())
    }

    fn named(&self, mut wiring: Wiring<'_>, names: &[String], all: bool) -> Result<Vec<Service>, OpError> {
        if all {
            return Ok(self
                .config
                .services
                .values()
                .map(|service| wiring.service(service))
                .collect());
        }
        let mut seen = BTreeSet::new();
        names
            .iter()
            .filter(|name| seen.insert(name.as_str()))
            .map(|name| Ok(wiring.service(self.config.service(name)?)))
            .collect()
    }

    pub(crate) fn service(&self, name: &str) -> Result<Service, OpError> {
        self.service_of(name, None, false)
    }

    /// A service whose replicas and off-site repositories offer what another host sent there, and whose sources deliver files into any
    /// directory when that is asked for.
    pub(crate) fn service_of(
        &self,
        name: &str,
        host: Option<&str>,
        as_files: bool,
    ) -> Result<Service, OpError> {
        let mut wiring = Wiring::new(self);
        wiring.files = as_files;
        if let Some(host) = host {
            wiring.host = host;
        }
        Ok(wiring.service(self.config.service(name)?))
    }

    /// What is fetched from other machines, by name or all of it: each as a service that has nothing here but one that brings its
    /// datasets.
    pub(crate) fn pulls(&self, names: &[String], all: bool) -> Result<Vec<Service>, OpError> {
        let wiring = Wiring::new(self);
        let known = &self.config.pulls;
        if all {
            return Ok(known
                .iter()
                .filter_map(|(name, pull)| wiring.pull(name, pull))
                .collect());
        }
        let mut seen = BTreeSet::new();
        let wanted = names.iter().filter(|name| seen.insert(name.as_str()));
        wanted
            .map(|name| {
                let found = SourceName::new(name.as_str()).ok();
                let found = found.and_then(|name| Some((name.clone(), known.get(&name)?)));
                found
                    .and_then(|(name, pull)| wiring.pull(&name, pull))
                    .ok_or_else(|| {
                        let names: Vec<&str> = known.keys().map(SourceName::as_str).collect();
                        let what = format!("no pull {name:?} is configured");
                        OpError::new(OpKind::InvalidInput, what).hint(match names.as_slice() {
                            [] => "declare one, as in `[pulls.box]`".to_owned(),
                            names => format!("there are: {}", names.join(", ")),
                        })
                    })
            })
            .collect()
    }

    /// The retention rules of a service.
    pub(crate) fn retention(&self, service: &ServiceName) -> sanoid::Policy {
        let Some(service) = self.config.services.get(service) else {
            return sanoid::Policy::default();
        };
        let counts = &service.policy.retention;
        sanoid::Policy {
            frequently: Some(counts.frequently),
            hourly: Some(counts.hourly),
            daily: Some(counts.daily),
            weekly: Some(counts.weekly),
            monthly: Some(counts.monthly),
            yearly: Some(counts.yearly),
            ..sanoid::Policy::default()
        }
    }

    pub(crate) fn retention_policy(&self, service: &ServiceName) -> retention::Policy {
        retention::Policy::Sanoid(self.retention(service))
    }

    /// What systemd says of a unit: `active`, `inactive`, … None where it can't be asked.
    pub(crate) async fn unit_state(&self, unit: &str) -> Option<String> {
        let command = Command::new("systemctl")
            .args(["is-active", "--", unit])
            .time_limit(Duration::from_secs(10));
        // Its exit code is 3 for what isn't active, and 4 or 1 where it doesn't know.
        let answer = self.runner.run(&command, &self.cx.cancel).await.ok()?;
        let state = answer.stdout.text().trim().to_owned();
        let known = matches!(answer.exit.code(), Some(0 | 3)) && !state.is_empty();
        known.then_some(state)
    }

    /// How pools are.
    pub(crate) fn pools(&self) -> Pools {
        Pools::new(Arc::clone(&self.runner), Arc::clone(&self.clock))
    }

    /// The pools of this machine that data and copies are in.
    pub(crate) fn pool_names(&self) -> BTreeSet<String> {
        let config = &self.config;
        let places = config.stores.values().chain(config.replicas.values());
        let roots = places.filter_map(|place| match place {
            Place::Zfs { root } | Place::ZfsReplica { root, ssh: None, .. } => Some(root),
            _ => None,
        });
        let services = config.services.values();
        let data = services.filter_map(|service| service.dataset.as_ref());
        let fetched = config.pulls.values().map(|pull| &pull.root);
        roots
            .chain(data)
            .chain(fetched)
            .map(|name| name.pool().to_owned())
            .collect()
    }

    /// Reads and changes the declared datasets.
    pub(crate) fn layout(&self) -> Layout {
        Layout::new(Arc::clone(&self.runner))
    }

    /// The pools of this machine, for datasets that no store has.
    pub(crate) fn any_dataset(&self) -> Result<NativeStore, OpError> {
        let name = SourceName::new("pools")
            .map_err(|error| OpError::new(OpKind::InvalidInput, error.to_string()))?;
        Ok(Wiring::new(self).datasets(&name))
    }

    /// Runs sanoid, with its files in the state directory.
    pub(crate) fn sanoid(&self) -> SanoidDriver {
        SanoidDriver::new(self.config.state_dir.join("sanoid"), Arc::clone(&self.runner))
    }

    /// The stores and replicas, and where is put what is fetched, as places that are looked for and made.
    pub(crate) fn places(&self) -> Vec<(SourceName, Root)> {
        let wiring = Wiring::new(self);
        let places = self.config.stores.iter().chain(&self.config.replicas);
        let fetched = self.config.pulls.iter().map(|(name, pull)| {
            let root = RootDataset::new(&wiring.datasets(name), Location::Local, pull.root.clone());
            let root = Root {
                location: pull.root.to_string(),
                of: RootOf::Zfs(root),
            };
            (name.clone(), root)
        });
        places
            .filter_map(|(name, place)| Some((name.clone(), wiring.root(name, place)?)))
            .chain(fetched)
            .collect()
    }

    pub(crate) async fn lock(
        &self,
        service: &ServiceName,
        operation: (&str, Claim),
        wait: Duration,
    ) -> Result<ServiceLock, OpError> {
        self.locks
            .acquire(&self.engine, &self.cx, service, operation, wait)
            .await
    }
}

/// A store's or replica's place.
#[derive(Debug)]
pub(crate) struct Root {
    /// Where, in words.
    pub(crate) location: String,
    of: RootOf,
}

#[derive(Debug)]
enum RootOf {
    Directory(DirStore),
    Zfs(RootDataset),
}

impl Root {
    /// Its own id; none when it has to be made.
    pub(crate) async fn check(&self, cx: &Context) -> Result<Option<String>, OpError> {
        match &self.of {
            RootOf::Directory(store) => match store.check(cx).await {
                Ok(id) => Ok(Some(id.to_string())),
                Err(error) if error.kind() == StoreKind::PoolUnavailable => Ok(None),
                Err(error) => Err(error.convert(OpKind::Failed)),
            },
            // A pool that isn't there is never made.
            RootOf::Zfs(root) => match root.check(cx).await {
                Ok(guid) => Ok(guid.map(|guid| guid.to_string())),
                Err(error) => Err(error.convert(OpKind::Failed)),
            },
        }
    }

    /// Makes it where it isn't there; its id.
    pub(crate) async fn init(&self, cx: &Context) -> Result<String, OpError> {
        let id = match &self.of {
            RootOf::Directory(store) => store.init(cx).await.map(|id| id.to_string()),
            RootOf::Zfs(root) => root.init(cx).await.map(|guid| guid.to_string()),
        };
        id.map_err(|error| error.convert(OpKind::Failed))
    }
}

/// The store of services.
#[derive(Debug, Clone)]
enum Store {
    Directory(Arc<DirStore>),
    Zfs(Arc<NativeStore>),
}

/// Makes each backend once, so that services share it.
struct Wiring<'a> {
    session: &'a Session,
    stores: Vec<(SourceName, Store)>,
    /// By store and replica: services that share one are planned together.
    replicators: Vec<((SourceName, SourceName), Arc<dyn Replicator>)>,
    repositories: Vec<(SourceName, offsite::Repository)>,
    /// Whose points are offered.
    host: &'a str,
    /// Sources deliver files into any directory, also those that could deliver a dataset as a whole.
    files: bool,
}

/// Where a replica is. The configuration was checked: its hosts and users are words that ssh takes for a destination.
fn location(ssh: Option<&config::Ssh>) -> Option<Location> {
    let Some(ssh) = ssh else {
        return Some(Location::Local);
    };
    let mut there = Ssh::new(ssh.destination(), &ssh.known_hosts)?;
    if let Some(port) = ssh.port {
        there = there.port(port);
    }
    if let Some(key) = &ssh.key_file {
        there = there.identity(key);
    }
    Some(Location::Ssh(there))
}

fn mapping(names: ReplicaNames, root: &DatasetName) -> Mapping {
    match names {
        ReplicaNames::WithoutPool => Mapping::without_pool(root.clone()),
        _ => Mapping::below(root.clone()),
    }
}

impl<'a> Wiring<'a> {
    fn new(session: &'a Session) -> Self {
        Self {
            session,
            stores: Vec::new(),
            replicators: Vec::new(),
            repositories: Vec::new(),
            host: &session.config.host,
            files: false,
        }
    }

    fn delivering_files(mut self) -> Self {
        self.files = true;
        self
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.session.clock)
    }

    fn directory(&self, name: &SourceName, path: &Path) -> DirStore {
        DirStore::new(
            name.clone(),
            path,
            self.clock(),
            Arc::clone(&self.session.entropy),
        )
    }

    fn datasets(&self, name: &SourceName) -> NativeStore {
        let all = &self.session.config.datasets;
        let declared = all.iter().map(|(name, of)| (name.clone(), of.wanted()));
        let owned = all.iter().filter(|(_, of)| !of.ownership.is_nothing());
        let owned = owned.map(|(name, of)| (name.clone(), of.ownership.clone()));
        let store = NativeStore::new(name.clone(), Arc::clone(&self.session.runner), DEFAULT_PLACES)
            .declared(declared.collect())
            .owned(owned.collect());
        // Where it can't be opened, `zfs` is asked, and tells why.
        #[cfg(feature = "libzetta")]
        if let Ok(lzc) = reseed_backend_zfs::zfs::Lzc::open() {
            return store.in_process(lzc);
        }
        store
    }

    fn root(&self, name: &SourceName, place: &Place) -> Option<Root> {
        let of = match place {
            Place::Directory { path } => RootOf::Directory(self.directory(name, path)),
            Place::Zfs { root } => RootOf::Zfs(RootDataset::new(
                &self.datasets(name),
                Location::Local,
                root.clone(),
            )),
            Place::ZfsReplica { root, ssh, .. } => {
                let there = location(ssh.as_ref())?;
                RootOf::Zfs(RootDataset::new(&self.datasets(name), there, root.clone()))
            }
            _ => return None,
        };
        let location = place.location();
        Some(Root { location, of })
    }

    fn store(&mut self, name: &SourceName) -> Store {
        if let Some((_, store)) = self.stores.iter().find(|(known, _)| known == name) {
            return store.clone();
        }
        // The configuration was checked: every name in it stands for something.
        let store = match self.session.config.stores.get(name) {
            Some(Place::Zfs { .. }) => Store::Zfs(Arc::new(self.datasets(name))),
            place => {
                let path = place.and_then(Place::path).unwrap_or(Path::new(""));
                Store::Directory(Arc::new(self.directory(name, path)))
            }
        };
        self.stores.push((name.clone(), store.clone()));
        store
    }

    /// A source of the chain that is a store's own snapshots.
    fn local(&self, store: &Store) -> Arc<dyn RestoreSource> {
        match store {
            Store::Directory(store) => Arc::new(DirSource::local(store)),
            Store::Zfs(store) if self.files => {
                Arc::new(SnapshotFiles::of_local(LocalSource::new(store), self.clock()))
            }
            Store::Zfs(store) => Arc::new(LocalSource::new(store)),
        }
    }

    /// A source of the chain that is a replica.
    fn replica(&self, store: &Store, name: &SourceName) -> Option<Arc<dyn RestoreSource>> {
        match (store, self.session.config.replicas.get(name)?) {
            (Store::Directory(_), Place::Directory { path }) => Some(Arc::new(
                DirSource::replica(name.clone(), path, self.clock()).of_host(self.host),
            )),
            (
                Store::Zfs(store),
                Place::ZfsReplica {
                    root,
                    mapping: names,
                    ssh,
                    ..
                },
            ) => {
                let there = location(ssh.as_ref())?;
                let source = ReplicaSource::new(name.clone(), store, there, mapping(*names, root));
                let source = match self.host == self.session.config.host {
                    true => source.of_host(self.host),
                    false => source.of_other_host(self.host),
                };
                Some(match self.files {
                    true => Arc::new(SnapshotFiles::of_replica(source, self.clock())),
                    false => Arc::new(source),
                })
            }
            _ => None,
        }
    }

    fn replicator(&self, store: &Store, name: &SourceName) -> Option<Arc<dyn Replicator>> {
        match (store, self.session.config.replicas.get(name)?) {
            (Store::Directory(store), Place::Directory { path }) => {
                let replicator = DirReplicator::new(store, self.directory(name, path), self.clock());
                Some(Arc::new(replicator.of_host(&self.session.config.host)))
            }
            (
                Store::Zfs(store),
                Place::ZfsReplica {
                    root,
                    mapping: names,
                    raw,
                    bandwidth,
                    at_once,
                    sender,
                    ssh,
                },
            ) => {
                let there = location(ssh.as_ref())?;
                let replicator = NativeReplicator::new(name.clone(), store, there, mapping(*names, root));
                let limit = bandwidth.map(config::Bandwidth::bytes_per_second);
                let replicator = replicator
                    .of_host(&self.session.config.host)
                    .raw(*raw)
                    .limit(limit)
                    .at_once(*at_once as usize);
                Some(Arc::new(match sender {
                    Sender::Syncoid => replicator.through_syncoid(Syncoid::default()),
                    _ => replicator,
                }))
            }
            _ => None,
        }
    }

    /// What fetches from another machine. The configuration was checked.
    fn pull(&self, name: &SourceName, pull: &config::Pull) -> Option<Service> {
        let store = self.datasets(name);
        let marks = config::marks(&self.session.config.host, name)?;
        let from = location(Some(&pull.ssh))?;
        let limit = pull.bandwidth.map(config::Bandwidth::bytes_per_second);
        let puller = NativeReplicator::pulling(name.clone(), &store, from, mapping(pull.mapping, &pull.root))
            .of_host(&pull.host)
            .marked_as(marks)
            .raw(pull.raw)
            .limit(limit)
            .at_once(pull.at_once as usize);
        // Its lock and its history are none of a service's that is called the same.
        let service = ServiceName::new(format!("pull.{name}")).or_else(|_| ServiceName::new(name.as_str()));
        let target = |dataset: &DatasetName| Target {
            dataset: dataset.clone(),
            mountpoint: PathBuf::new(),
        };
        Some(Service {
            name: service.ok()?,
            targets: pull.datasets.iter().map(target).collect(),
            store: Arc::new(store),
            sources: Vec::new(),
            replicators: vec![Arc::new(puller)],
            offsite: Vec::new(),
            policy: Policy::default(),
        })
    }

    /// The same one for every service of a store.
    fn shared(&mut self, of: &SourceName, store: &Store, name: &SourceName) -> Option<Arc<dyn Replicator>> {
        let key = (of.clone(), name.clone());
        if let Some((_, known)) = self.replicators.iter().find(|(known, _)| *known == key) {
            return Some(Arc::clone(known));
        }
        let made = self.replicator(store, name)?;
        self.replicators.push((key, Arc::clone(&made)));
        Some(made)
    }

    fn service(&mut self, declared: &config::Service) -> Service {
        let policy = &declared.policy;
        let backend = self.store(&policy.store);
        let mut sources: Vec<Arc<dyn RestoreSource>> = Vec::new();
        for name in &policy.chain {
            // The store's own snapshots are this host's, whoever else was asked for.
            if *name == policy.store && self.host != self.session.config.host {
                continue;
            }
            if *name == policy.store {
                sources.push(self.local(&backend));
            } else if let Some(replica) = self.replica(&backend, name) {
                sources.push(replica);
            } else if let Some((_, source)) = self.offsite(name) {
                sources.push(source);
            }
        }
        let replicators = policy.replicas.iter();
        let replicators = replicators
            .filter_map(|name| self.shared(&policy.store, &backend, name))
            .collect();
        let store: Arc<dyn SnapshotStore> = match backend {
            Store::Directory(store) => store,
            Store::Zfs(store) => store,
        };
        let mut offsite: Vec<Arc<dyn OffsiteRepo>> = Vec::new();
        for name in &policy.offsite {
            if let Some((repo, _)) = self.offsite(name) {
                offsite.push(repo);
            }
        }
        Service {
            name: declared.name.clone(),
            targets: declared.datasets.clone(),
            store,
            sources,
            replicators,
            offsite,
            policy: Policy {
                prefer: policy.prefer,
                when_exhausted: policy.when_exhausted,
                verify: policy.verify,
                tries: policy.tries,
                budget: policy.budget,
                source_budget: policy.source_budget,
                probe_budget: PROBE_BUDGET.min(policy.source_budget),
                validators: declared.validators.clone(),
            },
        }
    }
}
