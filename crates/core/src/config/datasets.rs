//! The datasets of a service and the checks of each.

use std::collections::{BTreeMap, BTreeSet};

use super::decode::{At, List, Maybe};
use super::diagnostic::{Extra, Sink, suggest};
use super::file::{ServiceFile, Validators};
use super::places::{Places, Technique};
use super::text::Span;
use super::values::DatasetKey;
use crate::names::{DatasetName, ServiceName, SourceName};
use crate::point::Target;
use crate::verify::Validator;

/// What the datasets of a service are called after.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) name: DatasetName,
    pub(crate) is_zfs: bool,
}

/// On ZFS the dataset that is named, or `ROOT/SERVICE`; elsewhere `STORE/SERVICE`. `None` when there are errors; then the
/// sink has them.
pub(crate) fn base(
    service: &ServiceName,
    file: &ServiceFile,
    store: Option<&SourceName>,
    places: &Places<'_>,
    at: &At<'_>,
    sink: &mut Sink<'_>,
) -> Option<Base> {
    let store = store?;
    let root = match places.technique(store)? {
        Technique::Directory => None,
        Technique::Zfs => Some(places.store_root(store)?),
    };
    let is_zfs = root.is_some();
    let (name, span) = match (&file.dataset, root) {
        (Maybe::Broken, _) => return None,
        (Maybe::Given(_, span), None) => {
            let message = format!("`{at}` names a dataset, and its store `{store}` is a directory");
            let hint = "take it out, or name a store with `type = \"zfs\"`";
            sink.error(at.key("dataset", span), span, message, Extra::hint(hint));
            return None;
        }
        (Maybe::Given(own, span), Some(_)) => {
            if !own.0.as_str().contains('/') {
                let message = format!("{} is a pool, and a pool can't be put back by a rename", own.0);
                let hint = format!("use a dataset in it, as in \"{}/{service}\"", own.0);
                sink.error(at.key("dataset", span), span, message, Extra::hint(hint));
                return None;
            }
            (Ok(own.0.clone()), span)
        }
        (Maybe::Absent, Some(root)) => (root.child(service.as_str()), at.span),
        (Maybe::Absent, None) => (DatasetName::new(format!("{store}/{service}")), at.span),
    };
    match name {
        Ok(name) => Some(Base { name, is_zfs }),
        Err(error) => {
            sink.error(at, span, error.to_string(), Extra::default());
            None
        }
    }
}

/// The datasets of a service, sorted. `None` when there are errors; then the sink has them.
pub(crate) fn datasets(
    file: &ServiceFile,
    base: Option<&Base>,
    at: &At<'_>,
    sink: &mut Sink<'_>,
) -> Option<Vec<Target>> {
    let child = |key: &str, span: &Span, sink: &mut Sink<'_>| match base?.name.child(key) {
        Ok(name) => Some(name),
        Err(error) => {
            sink.error(at, span, error.to_string(), Extra::default());
            None
        }
    };
    match (&file.path, &file.datasets) {
        (Maybe::Given(path, _), Maybe::Absent) => Some(vec![Target {
            dataset: base?.name.clone(),
            mountpoint: path.0.clone(),
        }]),
        (Maybe::Absent, Maybe::Given(datasets, span)) => {
            if datasets.incomplete {
                return None;
            }
            if datasets.entries.is_empty() {
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
            let mut targets = Vec::with_capacity(datasets.entries.len());
            for entry in &datasets.entries {
                let (path, _) = entry.value.as_ref()?;
                targets.push(Target {
                    dataset: child(&entry.name.0, &entry.span, sink)?,
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
pub(crate) fn validators(
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
            let first = datasets
                .entries
                .first()
                .map_or("data", |entry| entry.name.0.as_str());
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
            let known: BTreeSet<&DatasetKey> = datasets.entries.iter().map(|entry| &entry.name).collect();
            let mut complete = true;
            for entry in &each.entries {
                if !known.contains(&entry.name) && datasets.incomplete {
                    complete = false;
                    continue;
                }
                if !known.contains(&entry.name) {
                    let names: Vec<_> = known.iter().map(|key| key.0.as_str()).collect();
                    let message = format!("`{at}` has no dataset \"{}\"", entry.name.0);
                    let hint = suggest(&entry.name.0, "datasets", &names);
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
