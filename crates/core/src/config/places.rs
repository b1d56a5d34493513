//! Stores, replicas and repositories by name, and looking up what refers to them.

use std::collections::{BTreeSet, HashMap};

use super::decode::{At, List, Maybe, Named, NamedEntry};
use super::diagnostic::{Extra, Sink, closest, suggest};
use super::file::{ConfigFile, OffsiteFile};
use super::model::Policy;
use super::place_file::{ReplicaFile, StoreFile};
use super::text::{Span, quoted};
use super::values::Reference;
use crate::names::{DatasetName, SourceName};

/// Places of one kind. A chain of more could not be walked in any budget, and each service refers to all of them.
const MOST: usize = 100;

/// What a name can stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Store,
    Replica,
    Offsite,
    /// Any of the three: in a chain.
    Any,
}

impl Kind {
    pub(crate) fn singular(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Replica => "replica",
            Self::Offsite => "off-site repository",
            Self::Any => "source",
        }
    }

    pub(super) fn with_article(self) -> &'static str {
        match self {
            Self::Store => "a store",
            Self::Replica => "a replica",
            Self::Offsite => "an off-site repository",
            Self::Any => "a source",
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Store => "stores",
            Self::Replica => "replicas",
            Self::Offsite => "off-site repositories",
            Self::Any => "sources",
        }
    }

    /// The key of the table they are declared in.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Replica => "replicas",
            Self::Offsite => "offsite",
            Self::Store | Self::Any => "stores",
        }
    }
}

/// What a store and its replicas are made of, which has to be the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Technique {
    Directory,
    Zfs,
}

impl Technique {
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Directory => "a directory",
            Self::Zfs => "ZFS",
        }
    }
}

/// All places of a configuration.
#[derive(Debug)]
pub(crate) struct Places<'a> {
    pub(crate) stores: &'a [NamedEntry<SourceName, StoreFile>],
    pub(crate) replicas: &'a [NamedEntry<SourceName, ReplicaFile>],
    pub(crate) offsite: &'a [NamedEntry<SourceName, OffsiteFile>],
    kinds: HashMap<&'a str, (Kind, Span)>,
    /// Some could not be read, so an unknown name may be one of those.
    incomplete: bool,
}

fn entries<V>(named: &Maybe<Named<SourceName, V>>) -> &[NamedEntry<SourceName, V>] {
    named.value().map_or(&[], |named| &named.entries)
}

fn incomplete<V>(named: &Maybe<Named<SourceName, V>>) -> bool {
    matches!(named, Maybe::Broken) || named.value().is_some_and(|named| named.incomplete)
}

impl<'a> Places<'a> {
    pub(crate) fn new(file: &'a ConfigFile, root: &At<'_>, sink: &mut Sink<'_>) -> Self {
        let mut places = Self {
            stores: entries(&file.stores),
            replicas: entries(&file.replicas),
            offsite: entries(&file.offsite),
            kinds: HashMap::new(),
            incomplete: incomplete(&file.stores) || incomplete(&file.replicas) || incomplete(&file.offsite),
        };
        let names = |kind,
                     span: Option<&Span>,
                     names: Vec<(&'a SourceName, &Span)>,
                     places: &mut Self,
                     sink: &mut Sink<'_>| {
            places.declare(kind, span, &names, root, sink);
        };
        let stores = places
            .stores
            .iter()
            .map(|entry| (&entry.name, &entry.span))
            .collect();
        let replicas = places
            .replicas
            .iter()
            .map(|entry| (&entry.name, &entry.span))
            .collect();
        let offsite = places
            .offsite
            .iter()
            .map(|entry| (&entry.name, &entry.span))
            .collect();
        names(
            Kind::Store,
            file.stores.given().map(|given| given.1),
            stores,
            &mut places,
            sink,
        );
        names(
            Kind::Replica,
            file.replicas.given().map(|given| given.1),
            replicas,
            &mut places,
            sink,
        );
        names(
            Kind::Offsite,
            file.offsite.given().map(|given| given.1),
            offsite,
            &mut places,
            sink,
        );
        places
    }

    fn declare(
        &mut self,
        kind: Kind,
        table: Option<&Span>,
        names: &[(&'a SourceName, &Span)],
        root: &At<'_>,
        sink: &mut Sink<'_>,
    ) {
        if let Some(span) = table.filter(|_| names.len() > MOST) {
            let message = format!(
                "there are {} {}, and at most {MOST} are allowed",
                names.len(),
                kind.plural()
            );
            sink.error(root.key(kind.key(), span), span, message, Extra::default());
            self.incomplete = true;
            return;
        }
        for (name, span) in names {
            match self.kinds.get(name.as_str()) {
                None => {
                    self.kinds.insert(name.as_str(), (kind, (*span).clone()));
                }
                Some((other, first)) => {
                    let message = format!("\"{name}\" is {} already", other.with_article());
                    let hint = "a chain names its sources, so no two may be called the same";
                    let note = format!("it is declared in line {}", sink.text.line(first.start));
                    let at = root.key(kind.key(), span);
                    sink.error(
                        at.key(name.as_str(), span),
                        span,
                        message,
                        Extra::hint(hint).note(note),
                    );
                }
            }
        }
    }

    pub(crate) fn kind(&self, name: &str) -> Option<Kind> {
        self.kinds.get(name).map(|(kind, _)| *kind)
    }

    /// What a store or replica is made of; none of what could not be read.
    pub(crate) fn technique(&self, name: &SourceName) -> Option<Technique> {
        let store = self.stores.iter().take(MOST).find(|entry| entry.name == *name);
        let store = store.and_then(|entry| entry.value.as_ref()).map(|(file, _)| file);
        if let Some(file) = store {
            return Some(match file {
                StoreFile::Directory(_) => Technique::Directory,
                StoreFile::Zfs(_) => Technique::Zfs,
            });
        }
        let replica = self
            .replicas
            .iter()
            .take(MOST)
            .find(|entry| entry.name == *name)?;
        Some(match &replica.value.as_ref()?.0 {
            ReplicaFile::Directory(_) => Technique::Directory,
            ReplicaFile::Zfs(_) => Technique::Zfs,
        })
    }

    /// The dataset that the services of a store are below.
    pub(crate) fn store_root(&self, name: &SourceName) -> Option<&DatasetName> {
        let entry = self.stores.iter().take(MOST).find(|entry| entry.name == *name)?;
        match &entry.value.as_ref()?.0 {
            StoreFile::Zfs(file) => Some(&file.root.0.as_ref()?.0.0),
            StoreFile::Directory(_) => None,
        }
    }

    fn names(&self, wanted: Kind) -> Vec<&'a str> {
        let of = |kind: Kind| wanted == Kind::Any || wanted == kind;
        let mut names = Vec::new();
        if of(Kind::Store) {
            names.extend(self.stores.iter().map(|entry| entry.name.as_str()));
        }
        if of(Kind::Replica) {
            names.extend(self.replicas.iter().map(|entry| entry.name.as_str()));
        }
        if of(Kind::Offsite) {
            names.extend(self.offsite.iter().map(|entry| entry.name.as_str()));
        }
        names
    }

    /// All of a kind, in the order of the file.
    pub(crate) fn all(&self, kind: Kind) -> Vec<SourceName> {
        match kind {
            Kind::Offsite => self
                .offsite
                .iter()
                .take(MOST)
                .map(|entry| entry.name.clone())
                .collect(),
            Kind::Replica => self
                .replicas
                .iter()
                .take(MOST)
                .map(|entry| entry.name.clone())
                .collect(),
            Kind::Store | Kind::Any => self
                .stores
                .iter()
                .take(MOST)
                .map(|entry| entry.name.clone())
                .collect(),
        }
    }

    /// What a reference refers to.
    pub(crate) fn lookup(
        &self,
        name: &Reference,
        span: &Span,
        wanted: Kind,
        at: &At<'_>,
        sink: &mut Sink<'_>,
    ) -> Option<SourceName> {
        let name = name.0.as_str();
        match self.kind(name) {
            Some(kind) if wanted == Kind::Any || kind == wanted => SourceName::new(name).ok(),
            Some(kind) => {
                let message = format!(
                    "{} is {}, not {}",
                    quoted(name),
                    kind.with_article(),
                    wanted.with_article()
                );
                let names = self.names(wanted);
                let hint = match closest(name, names.iter().copied()) {
                    Some(close) => format!("did you mean `{close}`?"),
                    None => suggest("", wanted.plural(), &names),
                };
                sink.error(at, span, message, Extra::hint(hint));
                None
            }
            None if self.incomplete => None,
            None => {
                let hint = match sink.is_full() {
                    true => String::new(),
                    false => suggest(name, wanted.plural(), &self.names(wanted)),
                };
                let message = format!("there is no {} {}", wanted.singular(), quoted(name));
                sink.error(at, span, message, Extra::hint(hint));
                None
            }
        }
    }

    /// What a list of references refers to; none twice.
    pub(crate) fn lookup_all(
        &self,
        list: &List<Reference>,
        wanted: Kind,
        at: &At<'_>,
        sink: &mut Sink<'_>,
    ) -> Option<Vec<SourceName>> {
        let mut names = Vec::with_capacity(list.0.len());
        let mut seen = BTreeSet::new();
        let mut complete = true;
        for (reference, span) in &list.0 {
            if !seen.insert(&reference.0) {
                complete = false;
                let message = format!("{} stands twice in `{at}`", quoted(&reference.0));
                sink.error(at, span, message, Extra::hint("remove one of them"));
            } else if let Some(name) = self.lookup(reference, span, wanted, at, sink) {
                names.push(name);
            } else {
                complete = false;
            }
        }
        complete.then_some(names)
    }

    /// The store of a service that names none.
    pub(crate) fn only_store(&self, at: &At<'_>, sink: &mut Sink<'_>) -> Option<SourceName> {
        match self.stores {
            _ if self.incomplete => None,
            [only] => Some(only.name.clone()),
            [] => {
                let hint = "declare one, as in `[stores.local]` with `type = \"directory\"` and a `path`";
                let message = format!("`{at}` needs a store for its snapshots, and there is none");
                sink.error(at, at.span, message, Extra::hint(hint));
                None
            }
            several => {
                let message = format!(
                    "`store` is missing in `{at}`, and there are {} to choose from",
                    several.len()
                );
                let hint = suggest("", "stores", &self.names(Kind::Store));
                sink.error(at.key("store", at.span), at.span, message, Extra::hint(hint));
                None
            }
        }
    }

    /// What is declared and used by nothing is most likely meant to be used.
    pub(crate) fn warn_of_unused<'p>(&self, policies: impl Iterator<Item = &'p Policy>, sink: &mut Sink<'_>) {
        let mut unused: HashMap<&str, &(Kind, Span)> =
            self.kinds.iter().map(|(name, kind)| (*name, kind)).collect();
        let mut any = false;
        for policy in policies {
            any = true;
            if unused.is_empty() {
                break;
            }
            for name in std::iter::once(&policy.store)
                .chain(&policy.replicas)
                .chain(&policy.offsite)
            {
                unused.remove(name.as_str());
            }
        }
        if !any {
            return;
        }
        for (name, (kind, span)) in unused {
            let message = format!("no service uses the {} \"{name}\"", kind.singular());
            let key = format!("{}.{name}", kind.key());
            sink.warn(
                key,
                span,
                message,
                Extra::hint("name it in a service, or remove it"),
            );
        }
    }
}
