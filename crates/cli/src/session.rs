//! What a command works with: the configuration wired to backends, an engine, a run and its events.
//!
//! This is the only place that knows which backend a configured type stands for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reseed_backend_restic::repo::Engine as ResticEngine;
use reseed_backend_restic::worker::Worker;
use reseed_backend_restic::{Embedded, PasswordFrom};
use reseed_backend_zfs::datasets::Layout;
use reseed_backend_zfs::dir::{DirReplicator, DirSource, DirStore};
use reseed_backend_zfs::sanoid::SanoidDriver;
use reseed_core::clock::{Clock, SystemClock};
use reseed_core::config::{self, Config, ConfigErrors, Offsite, Place};
use reseed_core::entropy::{Entropy, SplitMix};
use reseed_core::error::{OpError, OpKind};
use reseed_core::event::EventSink;
use reseed_core::exec::{Runner, SystemRunner};
use reseed_core::journal::{Journal, SqliteJournal};
use reseed_core::lock::{Locks, ServiceLock};
use reseed_core::names::{RunId, ServiceName, SourceName};
use reseed_core::retention::{self, sanoid};
use reseed_core::service::Policy;
use reseed_core::verify::SystemVerifier;
use reseed_core::{Context, Engine, OffsiteRepo, RestoreSource, Service};
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
        self.named(&which.services, which.all)
    }

    /// As [`Session::services`]; without names and without `all`, every service.
    pub(crate) fn services_or_all(&self, names: &[String]) -> Result<Vec<Service>, OpError> {
        self.named(names, names.is_empty())
    }

    fn named(&self, names: &[String], all: bool) -> Result<Vec<Service>, OpError> {
        let mut wiring = Wiring::new(self);
        if all {
            return Ok(self
                .config
                .services
                .values()
                .map(|service| wiring.service(service))
                .collect());
        }
        names
            .iter()
            .map(|name| Ok(wiring.service(self.config.service(name)?)))
            .collect()
    }

    pub(crate) fn service(&self, name: &str) -> Result<Service, OpError> {
        self.service_of(name, None)
    }

    /// A service whose off-site repositories offer what another host backed up.
    pub(crate) fn service_of(&self, name: &str, host: Option<&str>) -> Result<Service, OpError> {
        let mut wiring = Wiring::new(self);
        if let Some(host) = host {
            wiring.host = host;
        }
        Ok(wiring.service(self.config.service(name)?))
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

    pub(crate) fn repo(&self, name: &str) -> Result<Arc<dyn OffsiteRepo>, OpError> {
        let wiring = Wiring::new(self);
        let found = SourceName::new(name).ok().and_then(|name| wiring.embedded(&name));
        found
            .map(|repo| Arc::new(repo) as Arc<dyn OffsiteRepo>)
            .ok_or_else(|| {
                let names: Vec<&str> = self.config.offsite.keys().map(SourceName::as_str).collect();
                OpError::new(
                    OpKind::InvalidInput,
                    format!("no off-site repository {name:?} is configured"),
                )
                .hint(format!("there are: {}", names.join(", ")))
            })
    }

    pub(crate) fn repos(&self) -> Vec<(SourceName, Embedded)> {
        let wiring = Wiring::new(self);
        self.config
            .offsite
            .keys()
            .filter_map(|name| Some((name.clone(), wiring.embedded(name)?)))
            .collect()
    }

    /// Where a repository is.
    pub(crate) fn location(&self, repo: &SourceName) -> String {
        match self.config.offsite.get(repo) {
            Some(Offsite::Embedded { repository, .. }) => repository.display().to_string(),
            _ => String::new(),
        }
    }

    /// Reads and changes the declared datasets.
    pub(crate) fn layout(&self) -> Layout {
        Layout::new(Arc::clone(&self.runner))
    }

    /// Runs sanoid, with its files in the state directory.
    pub(crate) fn sanoid(&self) -> SanoidDriver {
        SanoidDriver::new(self.config.state_dir.join("sanoid"), Arc::clone(&self.runner))
    }

    /// The stores and replicas, each as a directory store.
    pub(crate) fn places(&self) -> Vec<(SourceName, DirStore)> {
        let wiring = Wiring::new(self);
        let places = self.config.stores.iter().chain(&self.config.replicas);
        places
            .map(|(name, place)| (name.clone(), wiring.directory(name, place)))
            .collect()
    }

    pub(crate) async fn lock(
        &self,
        service: &ServiceName,
        operation: &str,
        wait: Duration,
    ) -> Result<ServiceLock, OpError> {
        self.locks
            .acquire(&self.engine, &self.cx, service, operation, wait)
            .await
    }
}

/// Makes each backend once, so that services share it.
struct Wiring<'a> {
    session: &'a Session,
    stores: Vec<(SourceName, Arc<DirStore>)>,
    /// Whose off-site points are offered.
    host: &'a str,
}

impl<'a> Wiring<'a> {
    fn new(session: &'a Session) -> Self {
        Self {
            session,
            stores: Vec::new(),
            host: &session.config.host,
        }
    }

    fn directory(&self, name: &SourceName, place: &Place) -> DirStore {
        let (clock, entropy) = (Arc::clone(&self.session.clock), Arc::clone(&self.session.entropy));
        DirStore::new(name.clone(), place.path(), clock, entropy)
    }

    fn place(&mut self, name: &SourceName) -> Option<Arc<DirStore>> {
        if let Some((_, store)) = self.stores.iter().find(|(known, _)| known == name) {
            return Some(Arc::clone(store));
        }
        let config = &self.session.config;
        let place = config.stores.get(name).or_else(|| config.replicas.get(name))?;
        let store = Arc::new(self.directory(name, place));
        self.stores.push((name.clone(), Arc::clone(&store)));
        Some(store)
    }

    fn embedded(&self, name: &SourceName) -> Option<Embedded> {
        match self.session.config.offsite.get(name)? {
            Offsite::Embedded {
                repository,
                password_file,
            } => {
                let engine = ResticEngine::local(repository, Arc::clone(&self.session.clock));
                // The worker is this very program, whatever PATH says.
                let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
                let worker = Worker::new(
                    [program.into_os_string(), "__restore-worker".into()],
                    Arc::clone(&self.session.runner),
                );
                let repo = Embedded::new(
                    name.clone(),
                    engine,
                    PasswordFrom::File(password_file.clone()),
                    worker,
                );
                Some(repo.of_host(self.host))
            }
            _ => None,
        }
    }

    fn service(&mut self, declared: &config::Service) -> Service {
        let policy = &declared.policy;
        let clock = || Arc::clone(&self.session.clock);
        // The configuration was checked: every name in it stands for something.
        let store = self.place(&policy.store).unwrap_or_else(|| {
            Arc::new(DirStore::new(
                policy.store.clone(),
                PathBuf::new(),
                clock(),
                Arc::clone(&self.session.entropy),
            ))
        });
        let mut sources: Vec<Arc<dyn RestoreSource>> = Vec::new();
        for name in &policy.chain {
            // The store's own snapshots are this host's, whoever else was asked for.
            if *name == policy.store && self.host != self.session.config.host {
                continue;
            }
            if let Some(place) = self.place(name) {
                let source = if *name == policy.store {
                    DirSource::local(&place)
                } else {
                    DirSource::replica(name.clone(), place.root(), clock()).of_host(self.host)
                };
                sources.push(Arc::new(source));
            } else if let Some(repo) = self.embedded(name) {
                sources.push(Arc::new(repo));
            }
        }
        let mut replicators: Vec<Arc<dyn reseed_core::Replicator>> = Vec::new();
        for name in &policy.replicas {
            if let Some(replica) = self.place(name) {
                let replicator = DirReplicator::new(&store, replica.as_ref().clone(), clock());
                replicators.push(Arc::new(replicator.of_host(&self.session.config.host)));
            }
        }
        let mut offsite: Vec<Arc<dyn OffsiteRepo>> = Vec::new();
        for name in &policy.offsite {
            if let Some(repo) = self.embedded(name) {
                offsite.push(Arc::new(repo));
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
