//! From the file to the configuration: defaults are filled in, names are looked up, directories are compared.

use std::collections::BTreeMap;

use super::claims;
use super::datasets::{base, datasets, validators};
use super::declared::declared;
use super::decode::{At, Maybe, Named, NamedEntry};
use super::diagnostic::{Extra, Sink};
use super::file::{ConfigFile, PolicyFile, ServiceFile};
use super::lineages;
use super::model::{Config, DEFAULT_STATE_DIR, Place, Service, Ssh};
use super::offsite;
use super::origin::Origins;
use super::place_file::{DirectoryFile, ReplicaFile, ReplicaNames, Sender, SshFile, StoreFile};
use super::places::Places;
use super::policy::Policies;
use super::pulls::pulls;
use super::sender;
use super::values::HostName;
use crate::names::{ServiceName, SourceName};

/// `None` when there are errors; then the sink has them.
pub(crate) fn resolve(file: &ConfigFile, machine: Option<&str>, sink: &mut Sink<'_>) -> Option<Config> {
    let top = 0..0;
    let root = At::root(&top);
    let host = host(file, machine, &root, sink);
    let places = Places::new(file, &root, sink);

    let no_services = Named::default();
    let (services_file, services_span) = match &file.services {
        Maybe::Given(services, span) => (services, span),
        _ => (&no_services, &top),
    };
    let at_services = root.key("services", services_span);
    let nothing;
    let defaults = match file.defaults.value() {
        Some(defaults) => defaults.policy(),
        None => {
            nothing = PolicyFile::empty();
            nothing.policy()
        }
    };
    let policies = Policies::new(&places, defaults, &root, sink);
    let mut services = BTreeMap::new();
    for entry in &services_file.entries {
        let at = at_services.key(entry.name.as_str(), &entry.span);
        if let Some(service) = service(&policies, entry, &at, sink) {
            services.insert(entry.name.clone(), service);
        }
    }
    let declared = declared(&file.datasets, &root, sink);
    let pulls = pulls(&file.pulls, &places, host.as_deref(), &root, sink);
    if file.services.is_absent() && file.datasets.is_absent() && file.pulls.is_absent() && !sink.has_errors()
    {
        sink.warn(
            "",
            &top,
            "no services are declared",
            Extra::hint("add a table as in `[services.sonarr]`"),
        );
    }

    offsite::check(places.offsite, &root, sink);
    claims::check(file, &places, services_file, &root, sink);
    lineages::check(&places, &file.pulls, &services, services_file, &root, sink);
    sender::check(&places, &root, sink);
    if !sink.has_errors() {
        places.warn_of_unused(services.values().map(|service| &service.policy), sink);
    }
    let state_dir = file
        .state_dir
        .value()
        .map_or_else(|| DEFAULT_STATE_DIR.into(), |path| path.0.clone());
    Some(Config {
        host: host?,
        state_dir,
        stores: places
            .stores
            .iter()
            .filter_map(|entry| Some((entry.name.clone(), store(entry)?)))
            .collect(),
        replicas: places
            .replicas
            .iter()
            .filter_map(|entry| Some((entry.name.clone(), replica(entry)?)))
            .collect(),
        offsite: places
            .offsite
            .iter()
            .filter_map(|entry| Some((entry.name.clone(), offsite::offsite(entry)?)))
            .collect(),
        pulls,
        datasets: declared?,
        services,
        origins: Origins::default(),
    })
}

fn service(
    policies: &Policies<'_>,
    entry: &NamedEntry<ServiceName, ServiceFile>,
    at: &At<'_>,
    sink: &mut Sink<'_>,
) -> Option<Service> {
    let (file, _) = entry.value.as_ref()?;
    let policy = policies.policy(file.policy(), at, sink);
    let store = policy.as_ref().map(|policy| &policy.store);
    let base = base(&entry.name, file, store, policies.places(), at, sink);
    let datasets = datasets(file, base.as_ref(), at, sink);
    let validators = validators(file, datasets.as_deref(), at, sink);
    let (policy, datasets, validators) = (policy?, datasets?, validators?);
    if policy.replicas.is_empty() && policy.offsite.is_empty() {
        let message = format!(
            "the data of `{at}` has no copy outside of the store `{}`",
            policy.store
        );
        let hint = "add a replica or an off-site repository; a store is lost as a whole";
        sink.warn(at, at.span, message, Extra::hint(hint));
    }
    Some(Service {
        name: entry.name.clone(),
        unit: file.unit.value().map(|unit| unit.0.clone()),
        dataset: base.filter(|base| base.is_zfs).map(|base| base.name),
        datasets,
        validators,
        policy,
    })
}

fn host(file: &ConfigFile, machine: Option<&str>, root: &At<'_>, sink: &mut Sink<'_>) -> Option<String> {
    match &file.host {
        Maybe::Given(host, _) => Some(host.0.clone()),
        Maybe::Broken => None,
        Maybe::Absent => match machine.and_then(HostName::check) {
            Some(host) => Some(host.0),
            None => {
                let hint = "set it at the top of the file, as in `host = \"nas\"`";
                sink.error(
                    root.key("host", root.span),
                    root.span,
                    "this machine has no usable host name",
                    Extra::hint(hint),
                );
                None
            }
        },
    }
}

fn directory(file: &DirectoryFile) -> Option<Place> {
    file.kind.0.as_ref()?;
    let path = file.path.0.as_ref()?.0.0.clone();
    Some(Place::Directory { path })
}

fn store(entry: &NamedEntry<SourceName, StoreFile>) -> Option<Place> {
    match &entry.value.as_ref()?.0 {
        StoreFile::Directory(file) => directory(file),
        StoreFile::Zfs(file) => {
            file.kind.0.as_ref()?;
            let root = file.root.0.as_ref()?.0.0.clone();
            Some(Place::Zfs { root })
        }
    }
}

fn replica(entry: &NamedEntry<SourceName, ReplicaFile>) -> Option<Place> {
    let file = match &entry.value.as_ref()?.0 {
        ReplicaFile::Directory(file) => return directory(file),
        ReplicaFile::Zfs(file) => file,
    };
    file.kind.0.as_ref()?;
    let ssh = match file.ssh.value() {
        Some(file) => Some(ssh(file)?),
        None => None,
    };
    Some(Place::ZfsReplica {
        root: file.root.0.as_ref()?.0.0.clone(),
        mapping: file.mapping.value().copied().unwrap_or(ReplicaNames::WithPool),
        raw: file.raw.value().is_none_or(|flag| flag.0),
        bandwidth: file.bandwidth.value().copied(),
        at_once: file.at_once.value().map_or(2, |number| number.0),
        sender: file.sender.value().copied().unwrap_or(Sender::Native),
        ssh,
    })
}

pub(super) fn ssh(file: &SshFile) -> Option<Ssh> {
    Some(Ssh {
        host: file.host.0.as_ref()?.0.0.clone(),
        user: file.user.value().map(|user| user.0.clone()),
        port: file.port.value().map(|port| port.0),
        key_file: file.key_file.value().map(|path| path.0.clone()),
        known_hosts: file.known_hosts.0.as_ref()?.0.0.clone(),
    })
}
