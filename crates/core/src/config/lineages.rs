//! Which ZFS datasets get in each other's way: those of services, and the roots of replicas and of what is fetched.
//!
//! Compares names. Datasets of the same name on two machines are two.

use std::collections::{BTreeMap, BTreeSet};

use super::decode::{At, Maybe, Named};
use super::diagnostic::{Extra, Sink};
use super::file::ServiceFile;
use super::model::Service;
use super::place_file::{ReplicaFile, ReplicaNames, StoreFile};
use super::places::Places;
use super::pulls::PullFile;
use super::text::Span;
use crate::names::{DatasetName, ServiceName, SourceName};

/// A dataset that somebody wants for himself.
struct Claim<'a> {
    /// The host it is on; empty for this one.
    host: &'a str,
    dataset: &'a DatasetName,
    is_data: bool,
    key: String,
    span: &'a Span,
}

impl Claim<'_> {
    /// Component by component, so that everything below a dataset directly follows it.
    fn order(&self) -> (&str, Vec<&str>) {
        (self.host, self.dataset.as_str().split('/').collect())
    }

    fn is_above(&self, other: &Self) -> bool {
        self.host == other.host && other.order().1.starts_with(&self.order().1)
    }

    fn what(&self) -> String {
        let kind = if self.is_data { "the data" } else { "the root" };
        format!("{kind} of `{}`", self.key)
    }
}

/// Reports datasets of which one is another's or lies below it, and replicas that are lost with what they copy.
pub(crate) fn check(
    places: &Places<'_>,
    pulls: &Maybe<Named<SourceName, PullFile>>,
    services: &BTreeMap<ServiceName, Service>,
    files: &Named<ServiceName, ServiceFile>,
    root: &At<'_>,
    sink: &mut Sink<'_>,
) {
    let mut claims = Vec::new();
    let at = root.key("replicas", root.span);
    for entry in places.replicas {
        if let Some((ReplicaFile::Zfs(file), _)) = &entry.value
            && let Some((dataset, span)) = &file.root.0
        {
            let host = file.ssh.value().and_then(|ssh| ssh.host.0.as_ref());
            claims.push(Claim {
                host: host.map_or("", |(host, _)| host.0.as_str()),
                dataset: &dataset.0,
                is_data: false,
                key: at.key(entry.name.as_str(), span).to_string(),
                span,
            });
        }
    }
    warn_of_same_pool(places, &claims, sink);
    let at = root.key("pulls", root.span);
    for entry in pulls.value().map_or(&[][..], |pulls| &pulls.entries) {
        if let Some((file, _)) = &entry.value
            && let Some((dataset, span)) = &file.root.0
        {
            claims.push(Claim {
                host: "",
                dataset: &dataset.0,
                is_data: false,
                key: at.key(entry.name.as_str(), span).to_string(),
                span,
            });
        }
    }
    let at = root.key("services", root.span);
    for entry in &files.entries {
        let Some(service) = services
            .get(&entry.name)
            .filter(|service| service.dataset.is_some())
        else {
            continue;
        };
        let own = entry.value.as_ref().and_then(|(file, _)| file.dataset.given());
        let span = own.map_or(&entry.span, |(_, span)| span);
        claims.extend(service.datasets.iter().map(|target| Claim {
            host: "",
            dataset: &target.dataset,
            is_data: true,
            key: at.key(entry.name.as_str(), span).to_string(),
            span,
        }));
    }
    check_replicas(places, services, &claims, sink);
    claims.sort_by(|a, b| {
        let order = |claim: &Claim<'_>| claim.span.start;
        a.order().cmp(&b.order()).then_with(|| order(a).cmp(&order(b)))
    });
    let mut around: Vec<&Claim<'_>> = Vec::new();
    for claim in &claims {
        while around.last().is_some_and(|outer| !outer.is_above(claim)) {
            around.pop();
        }
        if let Some(outer) = around.last() {
            report(outer, claim, sink);
        }
        around.push(claim);
    }
}

/// Reports datasets of different pools that a replica without their pools' names can't keep apart.
fn check_replicas(
    places: &Places<'_>,
    services: &BTreeMap<ServiceName, Service>,
    claims: &[Claim<'_>],
    sink: &mut Sink<'_>,
) {
    for entry in places.replicas {
        let Some((ReplicaFile::Zfs(file), _)) = &entry.value else {
            continue;
        };
        if file.mapping.value() != Some(&ReplicaNames::WithoutPool) {
            continue;
        }
        let users = services
            .values()
            .filter(|service| service.policy.replicas.contains(&entry.name));
        let sent: BTreeSet<&DatasetName> = users
            .flat_map(|service| service.datasets.iter().map(|target| &target.dataset))
            .collect();
        let mut copies: Vec<(&Claim<'_>, Vec<&str>)> = (claims.iter())
            .filter(|claim| claim.is_data && sent.contains(claim.dataset))
            .map(|claim| (claim, without_pool(claim.dataset)))
            .collect();
        copies.sort_by(|a, b| a.1.cmp(&b.1).then_with(|| a.0.span.start.cmp(&b.0.span.start)));
        for (at, (outer, above)) in copies.iter().enumerate() {
            let inside = copies[at + 1..]
                .iter()
                .take_while(|(_, name)| name.starts_with(above))
                .filter(|(inner, _)| inner.dataset.pool() != outer.dataset.pool());
            for (inner, _) in inside {
                let (here, there) = match inner.span.start >= outer.span.start {
                    true => (inner, outer),
                    false => (outer, inner),
                };
                let message = format!(
                    "the copies of {} and {} get in each other's way on the replica {}, which leaves out the pools' names",
                    here.dataset, there.dataset, entry.name
                );
                let hint = "give the replica `mapping = \"with-pool\"`, or each pool a replica with a `root` of its own";
                sink.error(&here.key, here.span, message, Extra::hint(hint));
            }
        }
    }
}

fn without_pool(dataset: &DatasetName) -> Vec<&str> {
    let mut parts: Vec<&str> = dataset.as_str().split('/').collect();
    // A pool itself is called by its name.
    if parts.len() > 1 {
        parts.remove(0);
    }
    parts
}

fn warn_of_same_pool(places: &Places<'_>, replicas: &[Claim<'_>], sink: &mut Sink<'_>) {
    let pools: BTreeSet<&str> = (places.stores.iter())
        .filter_map(|entry| match &entry.value.as_ref()?.0 {
            StoreFile::Zfs(file) => Some(file.root.0.as_ref()?.0.0.pool()),
            StoreFile::Directory(_) => None,
        })
        .collect();
    for replica in replicas.iter().filter(|replica| replica.host.is_empty()) {
        let pool = replica.dataset.pool();
        if pools.contains(pool) {
            let message = format!("`{}` is in the pool {pool}, as the data is", replica.key);
            let hint = "what takes the pool takes both: use a pool on other disks";
            sink.warn(&replica.key, replica.span, message, Extra::hint(hint));
        }
    }
}

fn report(outer: &Claim<'_>, inner: &Claim<'_>, sink: &mut Sink<'_>) {
    // The one that was written last is the one that is wrong.
    let (here, there) = match inner.span.start >= outer.span.start {
        true => (inner, outer),
        false => (outer, inner),
    };
    let message = if outer.dataset == inner.dataset {
        format!("the dataset {} is {} already", here.dataset, there.what())
    } else if std::ptr::eq(here, inner) {
        format!(
            "the dataset {} lies below {}, which is {}",
            here.dataset,
            there.dataset,
            there.what()
        )
    } else {
        format!(
            "the dataset {} has {} below it, which is {}",
            here.dataset,
            there.dataset,
            there.what()
        )
    };
    let hint = match (outer.is_data, inner.is_data) {
        (true, true) if outer.dataset == inner.dataset => "give each service a dataset of its own",
        (true, true) => "a dataset with others below it can't be put back by itself: place them side by side",
        (false, false) => "give each replica a dataset of its own",
        _ => "keep data and its copies apart: what is lost with the one would be lost with the other",
    };
    let note = format!("`{}` is in line {}", there.key, sink.text.line(there.span.start));
    sink.error(&here.key, here.span, message, Extra::hint(hint).note(note));
}
