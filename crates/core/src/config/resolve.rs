//! From the file to the configuration: defaults are filled in, names are looked up, directories are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::decode::{At, List, Maybe, Named, NamedEntry};
use super::diagnostic::{Extra, Sink};
use super::file::{
    ConfigFile, OffsiteFile, OffsiteType, PlaceFile, PlaceType, PolicyFile, PolicyKeys, Prefer,
    RetentionFile, ServiceFile, Validators, Verify, WhenExhausted,
};
use super::model::{
    Config, DEFAULT_BUDGET, DEFAULT_SOURCE_BUDGET, DEFAULT_STATE_DIR, DEFAULT_TRIES, Offsite, Place, Policy,
    Retention, Service,
};
use super::origin::Origins;
use super::overlap::{self, Claim, Role};
use super::places::{Kind, Places};
use super::text::Span;
use super::values::{DatasetKey, HostName, Reference};
use crate::names::{DatasetName, ServiceName, SourceName};
use crate::point::Target;
use crate::verify::Validator;

/// A unit's TimeoutStartSec that reseed's own units have. A walk that is as long is killed before it can fall back.
const TIMEOUT_START: Duration = Duration::from_secs(3600);

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
    let walker = Resolver::new(&places, defaults, &root, sink);
    let mut services = BTreeMap::new();
    for entry in &services_file.0 {
        let at = at_services.key(entry.name.as_str(), &entry.span);
        if let Some(service) = walker.service(entry, &at, sink) {
            services.insert(entry.name.clone(), service);
        }
    }
    if file.services.is_absent() && !sink.has_errors() {
        sink.warn(
            "",
            &top,
            "no services are declared",
            Extra::hint("add a table as in `[services.sonarr]`"),
        );
    }

    check_directories(file, &places, services_file, &root, sink);
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
            .filter_map(|entry| Some((entry.name.clone(), place(entry)?)))
            .collect(),
        replicas: places
            .replicas
            .iter()
            .filter_map(|entry| Some((entry.name.clone(), place(entry)?)))
            .collect(),
        offsite: places
            .offsite
            .iter()
            .filter_map(|entry| Some((entry.name.clone(), offsite(entry)?)))
            .collect(),
        services,
        origins: Origins::default(),
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

fn place(entry: &NamedEntry<SourceName, PlaceFile>) -> Option<Place> {
    let (place, _) = entry.value.as_ref()?;
    match (place.kind.0.as_ref()?.0, place.path.0.as_ref()?) {
        (PlaceType::Directory, (path, _)) => Some(Place::Directory { path: path.0.clone() }),
    }
}

fn offsite(entry: &NamedEntry<SourceName, OffsiteFile>) -> Option<Offsite> {
    let (offsite, _) = entry.value.as_ref()?;
    match offsite.kind.0.as_ref()?.0 {
        OffsiteType::Embedded => Some(Offsite::Embedded {
            repository: offsite.repository.0.as_ref()?.0.0.clone(),
            password_file: offsite.password_file.0.as_ref()?.0.0.clone(),
        }),
    }
}

/// Resolves services against places and defaults.
struct Resolver<'a> {
    places: &'a Places<'a>,
    defaults: PolicyKeys<'a>,
    /// The defaults' references, looked up once.
    store: Option<SourceName>,
    replicas: Option<Vec<SourceName>>,
    offsite: Option<Vec<SourceName>>,
    chain: Option<Vec<SourceName>>,
}

/// A service's own value, or the defaults'.
fn pick<'a, T>(own: &'a Maybe<T>, default: &'a Maybe<T>) -> &'a Maybe<T> {
    if own.is_absent() { default } else { own }
}

impl<'a> Resolver<'a> {
    fn new(places: &'a Places<'a>, defaults: PolicyKeys<'a>, root: &At<'_>, sink: &mut Sink<'_>) -> Self {
        let at = root.key("defaults", root.span);
        let list = |value: &Maybe<List<Reference>>, key: &str, kind: Kind, sink: &mut Sink<'_>| {
            let (list, span) = value.given()?;
            places.lookup_all(list, kind, &at.key(key, span), sink)
        };
        let store = (defaults.store.given())
            .and_then(|(name, span)| places.lookup(name, span, Kind::Store, &at.key("store", span), sink));
        let replicas = list(defaults.replicas, "replicas", Kind::Replica, sink);
        let offsite = list(defaults.offsite, "offsite", Kind::Offsite, sink);
        let chain = list(defaults.chain, "chain", Kind::Any, sink);
        if let Maybe::Given(list, span) = defaults.chain
            && list.0.is_empty()
        {
            empty_chain::<()>(&at.key("chain", span), span, sink);
        }
        budgets(defaults.budget.given(), defaults.source_budget.given(), &at, sink);
        Self {
            places,
            defaults,
            store,
            replicas,
            offsite,
            chain,
        }
    }

    fn service(
        &self,
        entry: &NamedEntry<ServiceName, ServiceFile>,
        at: &At<'_>,
        sink: &mut Sink<'_>,
    ) -> Option<Service> {
        let (file, _) = entry.value.as_ref()?;
        let policy = self.policy(file.policy(), at, sink);
        let datasets = datasets(
            &entry.name,
            file,
            policy.as_ref().map(|policy| &policy.store),
            at,
            sink,
        );
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
            datasets,
            validators,
            policy,
        })
    }

    fn policy(&self, own: PolicyKeys<'_>, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Policy> {
        let store = self.store(own.store, at, sink);
        let replicas = self.list(
            own.replicas,
            (self.defaults.replicas, &self.replicas),
            Kind::Replica,
            ("replicas", at),
            sink,
        );
        let offsite = self.list(
            own.offsite,
            (self.defaults.offsite, &self.offsite),
            Kind::Offsite,
            ("offsite", at),
            sink,
        );
        let retention = self.retention(own.retention, at, sink);
        let (budget, source_budget) = self.budgets(own, at, sink);
        let (store, replicas, offsite) = (store?, replicas?, offsite?);
        let chain = self.chain(own.chain, (&store, &replicas, &offsite), at, sink)?;
        Some(Policy {
            chain,
            store,
            replicas,
            offsite,
            prefer: pick(own.prefer, self.defaults.prefer)
                .value()
                .copied()
                .unwrap_or(Prefer::Chain),
            when_exhausted: (pick(own.when_exhausted, self.defaults.when_exhausted).value())
                .copied()
                .unwrap_or(WhenExhausted::StartEmpty),
            verify: pick(own.verify, self.defaults.verify)
                .value()
                .copied()
                .unwrap_or(Verify::Digest),
            budget,
            source_budget,
            tries: pick(own.tries, self.defaults.tries)
                .value()
                .map_or(DEFAULT_TRIES, |tries| tries.0),
            retention,
        })
    }

    fn store(&self, own: &Maybe<Reference>, at: &At<'_>, sink: &mut Sink<'_>) -> Option<SourceName> {
        match (own, self.defaults.store) {
            (Maybe::Given(name, span), _) => {
                self.places
                    .lookup(name, span, Kind::Store, &at.key("store", span), sink)
            }
            (Maybe::Absent, Maybe::Given(..)) => self.store.clone(),
            (Maybe::Absent, Maybe::Absent) => self.places.only_store(at, sink),
            _ => None,
        }
    }

    fn list(
        &self,
        own: &Maybe<List<Reference>>,
        (default, resolved): (&Maybe<List<Reference>>, &Option<Vec<SourceName>>),
        kind: Kind,
        (key, at): (&str, &At<'_>),
        sink: &mut Sink<'_>,
    ) -> Option<Vec<SourceName>> {
        match (own, default) {
            (Maybe::Given(list, span), _) => self.places.lookup_all(list, kind, &at.key(key, span), sink),
            (Maybe::Absent, Maybe::Given(..)) => resolved.clone(),
            (Maybe::Absent, Maybe::Absent) => Some(self.places.all(kind)),
            _ => None,
        }
    }

    fn chain(
        &self,
        own: &Maybe<List<Reference>>,
        (store, replicas, offsite): (&SourceName, &[SourceName], &[SourceName]),
        at: &At<'_>,
        sink: &mut Sink<'_>,
    ) -> Option<Vec<SourceName>> {
        let used: BTreeSet<_> = std::iter::once(store).chain(replicas).chain(offsite).collect();
        match (own, self.defaults.chain) {
            (Maybe::Given(list, span), _) => {
                let here = at.key("chain", span);
                let chain = self.places.lookup_all(list, Kind::Any, &here, sink)?;
                if chain.is_empty() {
                    return empty_chain(&here, span, sink);
                }
                let mut complete = true;
                for (name, (_, span)) in chain.iter().zip(&list.0).filter(|(name, _)| !used.contains(name)) {
                    complete = false;
                    let kind = self.places.kind(name.as_str()).unwrap_or(Kind::Any);
                    let message = format!("`{at}` does not use the {} \"{name}\"", kind.singular());
                    let hint = match kind {
                        Kind::Store => format!("its data is in the store `{store}`"),
                        kind => format!(
                            "add it to the service's `{}`, or take it out of the chain",
                            kind.key()
                        ),
                    };
                    sink.error(here, span, message, Extra::hint(hint));
                }
                complete.then_some(chain)
            }
            (Maybe::Absent, Maybe::Given(_, span)) => {
                let chain = self.chain.clone()?;
                let here: Vec<_> = chain.into_iter().filter(|name| used.contains(name)).collect();
                if here.is_empty() {
                    let message = format!("the default chain has no source that `{at}` uses");
                    let hint = "give the service a chain of its own";
                    let note = format!("the default chain is in line {}", sink.text.line(span.start));
                    sink.error(at, at.span, message, Extra::hint(hint).note(note));
                    return None;
                }
                Some(here)
            }
            (Maybe::Absent, Maybe::Absent) => Some(
                std::iter::once(store)
                    .chain(replicas)
                    .chain(offsite)
                    .cloned()
                    .collect(),
            ),
            _ => None,
        }
    }

    fn budgets(&self, own: PolicyKeys<'_>, at: &At<'_>, sink: &mut Sink<'_>) -> (Duration, Duration) {
        let budget = pick(own.budget, self.defaults.budget);
        let source = pick(own.source_budget, self.defaults.source_budget);
        // What the defaults say about both is checked once, with the defaults.
        if !own.budget.is_absent() || !own.source_budget.is_absent() {
            budgets(budget.given(), source.given(), at, sink);
        }
        let budget = budget.value().map_or(DEFAULT_BUDGET, |budget| budget.0);
        let source = source
            .value()
            .map_or(DEFAULT_SOURCE_BUDGET.min(budget), |source| source.0);
        (budget, source.min(budget))
    }

    fn retention(&self, own: &Maybe<RetentionFile>, at: &At<'_>, sink: &mut Sink<'_>) -> Retention {
        let (own_value, default) = (own.value(), self.defaults.retention.value());
        let builtin = Retention::default();
        macro_rules! count {
            ($field:ident) => {
                (own_value.and_then(|own| own.$field.value()))
                    .or_else(|| default.and_then(|default| default.$field.value()))
                    .map_or(builtin.$field, |count| count.0)
            };
        }
        let retention = Retention {
            frequently: count!(frequently),
            hourly: count!(hourly),
            daily: count!(daily),
            weekly: count!(weekly),
            monthly: count!(monthly),
            yearly: count!(yearly),
        };
        if retention.is_nothing() {
            let span = own.given().map_or(at.span, |(_, span)| span);
            let message = format!("no snapshot of `{at}` is kept: every count is 0");
            sink.warn(
                at.key("retention", span),
                span,
                message,
                Extra::hint("set at least one of them"),
            );
        }
        retention
    }
}

fn empty_chain<T>(at: &At<'_>, span: &Span, sink: &mut Sink<'_>) -> Option<T> {
    let hint = "name at least one source, or leave it out for the default";
    sink.error(
        at,
        span,
        format!("`{at}` is empty: nothing would ever be restored"),
        Extra::hint(hint),
    );
    None
}

type GivenLasting<'a> = Option<(&'a super::values::Lasting, &'a Span)>;

fn budgets(budget: GivenLasting<'_>, source: GivenLasting<'_>, at: &At<'_>, sink: &mut Sink<'_>) {
    if let Some((budget, span)) = budget
        && budget.0 >= TIMEOUT_START
    {
        let message = "the budget is not inside the default TimeoutStartSec of a unit, 3600 s";
        let hint = "keep it below \"1h\", or raise TimeoutStartSec of the service's preseed unit above it";
        sink.warn(at.key("budget", span), span, message, Extra::hint(hint));
    }
    if let (Some((budget, budget_span)), Some((source, source_span))) = (budget, source)
        && source.0 > budget.0
    {
        let message = "one source's budget is longer than the budget of the whole chain";
        let note = format!("`budget` is in line {}", sink.text.line(budget_span.start));
        let hint = "make `source_budget` shorter, so that the sources after it get their turn";
        sink.error(
            at.key("source_budget", source_span),
            source_span,
            message,
            Extra::hint(hint).note(note),
        );
    }
}

fn datasets(
    service: &ServiceName,
    file: &ServiceFile,
    store: Option<&SourceName>,
    at: &At<'_>,
    sink: &mut Sink<'_>,
) -> Option<Vec<Target>> {
    let name =
        |tail: &str, span: &Span, sink: &mut Sink<'_>| match DatasetName::new(format!("{}/{tail}", store?)) {
            Ok(name) => Some(name),
            Err(error) => {
                sink.error(at, span, error.to_string(), Extra::default());
                None
            }
        };
    match (&file.path, &file.datasets) {
        (Maybe::Given(path, _), Maybe::Absent) => Some(vec![Target {
            dataset: name(service.as_str(), at.span, sink)?,
            mountpoint: path.0.clone(),
        }]),
        (Maybe::Absent, Maybe::Given(datasets, span)) => {
            if datasets.0.is_empty() {
                let hint =
                    "name at least one, as in `datasets = { data = \"/var/lib/pg/data\" }`, or use `path`";
                sink.error(
                    at.key("datasets", span),
                    span,
                    format!("`{at}.datasets` is empty"),
                    Extra::hint(hint),
                );
                return None;
            }
            let mut targets = Vec::with_capacity(datasets.0.len());
            for entry in &datasets.0 {
                let (path, _) = entry.value.as_ref()?;
                targets.push(Target {
                    dataset: name(&format!("{service}/{}", entry.name.0), &entry.span, sink)?,
                    mountpoint: path.0.clone(),
                });
            }
            targets.sort();
            Some(targets)
        }
        (Maybe::Absent, Maybe::Absent) => {
            let hint = "say where its data is, as in `path = \"/var/lib/sonarr\"`";
            sink.error(
                at.key("path", at.span),
                at.span,
                format!("`path` is missing in `{at}`"),
                Extra::hint(hint),
            );
            None
        }
        (Maybe::Given(..), Maybe::Given(_, span)) => {
            let hint = "use `path` for one directory, `datasets` for several";
            sink.error(
                at.key("datasets", span),
                span,
                format!("`{at}` has both `path` and `datasets`"),
                Extra::hint(hint),
            );
            None
        }
        _ => None,
    }
}

/// Checks that would run on a dataset they don't belong to would condemn good data, so with several datasets each list
/// says whose it is.
fn validators(
    file: &ServiceFile,
    targets: Option<&[Target]>,
    at: &At<'_>,
    sink: &mut Sink<'_>,
) -> Option<BTreeMap<DatasetName, Vec<Validator>>> {
    let plain = |list: &List<Validator>| {
        list.0
            .iter()
            .map(|(validator, _)| validator.clone())
            .collect::<Vec<_>>()
    };
    let (validators, span) = match &file.validators {
        Maybe::Absent => return Some(BTreeMap::new()),
        Maybe::Broken => return None,
        Maybe::Given(validators, span) => (validators, span),
    };
    let here = at.key("validators", span);
    match (validators, &file.datasets) {
        (Validators::Only(list), Maybe::Absent) => {
            let target = targets?.first()?;
            let entry = (!list.0.is_empty()).then(|| (target.dataset.clone(), plain(list)));
            Some(entry.into_iter().collect())
        }
        (Validators::Only(_), Maybe::Given(datasets, _)) => {
            let first = datasets.0.first().map_or("data", |entry| entry.name.0.as_str());
            let message = format!("`{here}` does not say which dataset it checks");
            let hint = format!("write a list for each, as in `validators.{first} = [...]`");
            sink.error(here, span, message, Extra::hint(hint));
            None
        }
        (Validators::Each(_), Maybe::Absent) => {
            let message = format!("`{here}` is a table, and the service has only one dataset");
            sink.error(
                here,
                span,
                message,
                Extra::hint("write a list, as in `validators = [...]`"),
            );
            None
        }
        (Validators::Each(each), Maybe::Given(datasets, _)) => {
            let mut map = BTreeMap::new();
            let known: BTreeSet<&DatasetKey> = datasets.0.iter().map(|entry| &entry.name).collect();
            let mut complete = true;
            for entry in &each.0 {
                if !known.contains(&entry.name) {
                    let names: Vec<_> = known.iter().map(|key| key.0.as_str()).collect();
                    let message = format!("`{at}` has no dataset \"{}\"", entry.name.0);
                    let hint = super::diagnostic::suggest(&entry.name.0, "datasets", &names);
                    sink.error(
                        here.key(&entry.name.0, &entry.span),
                        &entry.span,
                        message,
                        Extra::hint(hint),
                    );
                    complete = false;
                    continue;
                }
                let list = entry.value.as_ref().map(|(list, _)| plain(list));
                let target = targets.and_then(|targets| {
                    targets
                        .iter()
                        .find(|target| target.dataset.leaf() == entry.name.0)
                });
                match (list, target) {
                    (Some(list), Some(target)) if !list.is_empty() => {
                        map.insert(target.dataset.clone(), list);
                    }
                    (Some(_), Some(_)) => {}
                    _ => complete = false,
                }
            }
            complete.then_some(map)
        }
        (_, Maybe::Broken) => None,
    }
}

fn check_directories(
    file: &ConfigFile,
    places: &Places<'_>,
    services: &Named<ServiceName, ServiceFile>,
    root: &At<'_>,
    sink: &mut Sink<'_>,
) {
    let mut claims = Vec::new();
    let state_default = std::path::Path::new(DEFAULT_STATE_DIR);
    match &file.state_dir {
        Maybe::Given(path, span) => claims.push((
            path.0.as_path(),
            Role::State,
            "state_dir".to_owned(),
            Some(span.clone()),
        )),
        Maybe::Absent => claims.push((state_default, Role::State, "state_dir".to_owned(), None)),
        Maybe::Broken => {}
    }
    for (kind, entries) in [("stores", places.stores), ("replicas", places.replicas)] {
        let at_kind = root.key(kind, root.span);
        for entry in entries {
            let path = entry.value.as_ref().and_then(|(place, _)| place.path.0.as_ref());
            if let Some((path, span)) = path {
                let key = at_kind.key(entry.name.as_str(), span).to_string();
                claims.push((&path.0, Role::Root, key, Some(span.clone())));
            }
        }
    }
    let at_offsite = root.key("offsite", root.span);
    for entry in places.offsite {
        let repository = entry
            .value
            .as_ref()
            .and_then(|(offsite, _)| offsite.repository.0.as_ref());
        if let Some((path, span)) = repository {
            let key = at_offsite.key(entry.name.as_str(), span).to_string();
            claims.push((&path.0, Role::Root, key, Some(span.clone())));
        }
    }
    let at_services = root.key("services", root.span);
    for entry in &services.0 {
        let Some((service, span)) = &entry.value else {
            continue;
        };
        let at = at_services.key(entry.name.as_str(), span);
        if let Some((path, span)) = service.path.given() {
            claims.push((&path.0, Role::Data, at.to_string(), Some(span.clone())));
        }
        let datasets = service.datasets.value().map_or(&[][..], |datasets| &datasets.0);
        let at_datasets = at.key("datasets", span);
        for dataset in datasets {
            if let Some((path, span)) = &dataset.value {
                let key = at_datasets.key(&dataset.name.0, span).to_string();
                claims.push((&path.0, Role::Data, key, Some(span.clone())));
            }
        }
    }
    let mut claims: Vec<_> = claims
        .into_iter()
        .map(|(path, role, key, span)| Claim {
            path,
            role,
            key,
            span,
        })
        .collect();
    overlap::check(&mut claims, sink);

    for entry in places.offsite {
        let Some((offsite, _)) = &entry.value else {
            continue;
        };
        let Some((path, span)) = &offsite.password_file.0 else {
            continue;
        };
        let at = at_offsite.key(entry.name.as_str(), span);
        if let Some(data) = overlap::inside(&claims, &path.0, Role::Data) {
            let message = format!("the password of `{at}` lies in the data of `{}`", data.key);
            let hint = "when that data is lost, so is the password of its backup: keep it elsewhere, and a copy off this machine";
            sink.warn(at.key("password_file", span), span, message, Extra::hint(hint));
        } else if let Some(store) = overlap::inside(&claims, &path.0, Role::Root) {
            let message = format!("the password of `{at}` lies in the directory of `{}`", store.key);
            let hint = "whoever gets hold of the one has the other: keep them apart";
            sink.warn(at.key("password_file", span), span, message, Extra::hint(hint));
        }
    }
}
