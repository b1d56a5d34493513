//! What is declared against what is there: the steps that are missing, and what can't be had. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use reseed_core::layout::{Counts, Property};
use reseed_core::names::DatasetName;
use serde::Serialize;

use super::actual::{Actual, Dataset, DatasetKind};
use super::owner::{DirFacts, DirWanted};
use crate::zfs::aside::{self, Kept};
use crate::zfs::record::StageRecord;
use crate::zfs::{argv, names};

/// Properties by dataset.
pub type Wanted = BTreeMap<DatasetName, BTreeMap<String, String>>;

/// What is to be done, in this order, and what can't be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LayoutPlan {
    /// The steps.
    pub steps: Vec<Step>,
    /// What stands in the way of what is declared. No step is about it.
    pub obstacles: Vec<Obstacle>,
}

/// One `zfs` command, or what is done to a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Step {
    /// A filesystem is missing.
    Create {
        /// It.
        dataset: String,
        /// What is set from the beginning.
        properties: BTreeMap<String, String>,
        /// Not declared itself, but something below it is.
        implied: bool,
    },
    /// A property has another value than what is declared.
    Set {
        /// The dataset.
        dataset: String,
        /// The property.
        property: String,
        /// What it is, as `zfs get -p` prints it; none for a user property that isn't there.
        from: Option<String>,
        /// What it is to be.
        to: String,
        /// What is there already keeps the old value.
        new_data_only: bool,
    },
    /// A filesystem that is to be mounted is not: an earlier run was cut off before it mounted it, or found its place
    /// taken.
    Mount {
        /// The dataset.
        dataset: String,
        /// Where it belongs.
        at: String,
    },
    /// Its topmost directory belongs to somebody else than declared, or has other permissions. What is in it stays as it is.
    Own {
        /// The dataset.
        dataset: String,
        /// What the directory has; none when it isn't there yet.
        from: Option<DirFacts>,
        /// What of it is declared.
        to: DirWanted,
    },
}

impl Step {
    /// What it is about.
    pub fn dataset(&self) -> &str {
        match self {
            Self::Create { dataset, .. }
            | Self::Set { dataset, .. }
            | Self::Mount { dataset, .. }
            | Self::Own { dataset, .. } => dataset,
        }
    }
}

/// Why something declared can't be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Obstacle {
    /// The dataset.
    pub dataset: String,
    /// Why, and what to do.
    pub why: String,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create {
                dataset,
                properties,
                implied,
            } => {
                write!(f, "+ {dataset}")?;
                let list: Vec<String> = properties
                    .iter()
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect();
                if !list.is_empty() {
                    write!(f, "  {}", list.join(" "))?;
                }
                if *implied {
                    f.write_str("  (something declared is below it)")?;
                }
                Ok(())
            }
            Self::Set {
                dataset,
                property,
                from,
                to,
                new_data_only,
            } => {
                let from = from.as_deref().unwrap_or("not set");
                write!(f, "~ {dataset}  {property}: {from} -> {to}")?;
                match *new_data_only {
                    true => f.write_str("  (for what is written from now on; what is there stays as it is)"),
                    false => Ok(()),
                }
            }
            Self::Mount { dataset, at } => write!(f, "~ {dataset}  mounted: no -> {at}"),
            Self::Own { dataset, from, to } => {
                let parts = [
                    (
                        "owner",
                        from.map(|has| has.uid.to_string()),
                        to.uid.map(|id| id.to_string()),
                    ),
                    (
                        "group",
                        from.map(|has| has.gid.to_string()),
                        to.gid.map(|id| id.to_string()),
                    ),
                    (
                        "mode",
                        from.map(|has| has.mode.to_string()),
                        to.mode.map(|mode| mode.to_string()),
                    ),
                ];
                let changes: Vec<String> = (parts.into_iter())
                    .filter(|(_, from, to)| to.is_some() && from != to)
                    .map(|(what, from, to)| match (from, to.unwrap_or_default()) {
                        (Some(from), to) => format!("{what} {from} -> {to}"),
                        (None, to) => format!("{what} {to}"),
                    })
                    .collect();
                write!(f, "~ {dataset}  topmost directory: {}", changes.join(", "))
            }
        }
    }
}

/// One line per step and obstacle; a plan with neither says so.
impl fmt::Display for LayoutPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        for obstacle in &self.obstacles {
            writeln!(f, "! {}  {}", obstacle.dataset, obstacle.why)?;
        }
        if self.steps.is_empty() && self.obstacles.is_empty() {
            return write!(f, "all is as declared");
        }
        let count = |is: fn(&Step) -> bool| self.steps.iter().filter(|step| is(step)).count();
        let made = count(|step| matches!(step, Step::Create { .. }));
        let set = count(|step| matches!(step, Step::Set { .. } | Step::Own { .. }));
        write!(f, "{made} to create, {set} to set")?;
        for (number, words) in [
            (self.steps.len() - made - set, "to mount"),
            (self.obstacles.len(), "that can't be"),
        ] {
            if number > 0 {
                write!(f, ", {number} {words}")?;
            }
        }
        Ok(())
    }
}

/// Compares.
pub fn plan(wanted: &Wanted, actual: &Actual) -> LayoutPlan {
    let mut plan = LayoutPlan::default();
    let shared = shared_mountpoints(wanted, actual);
    let mut made: BTreeSet<String> = BTreeSet::new();
    let mut never: BTreeSet<&str> = BTreeSet::new();
    // A name sorts behind the names it lies below, so parents come first.
    for (dataset, properties) in wanted {
        let name = dataset.as_str();
        let mut refuse = |why: String| {
            plan.obstacles.push(Obstacle {
                dataset: name.to_owned(),
                why,
            });
        };
        if let Some(other) = shared.get(name) {
            refuse(format!(
                "its mountpoint is that of {other} too, and one would hide the other's data; declare another"
            ));
            never.insert(name);
            continue;
        }
        if let Some(there) = actual.get(name) {
            if there.kind == DatasetKind::Volume {
                refuse("it is a volume, and only filesystems can be declared; take it out".to_owned());
                continue;
            }
            for (key, value) in properties {
                match compare(key, value, there) {
                    Difference::None => {}
                    Difference::Fixed(is) => refuse(format!(
                        "{key} is {is} and can't become {value}: it is decided when a dataset is created. Create another \
                         one and copy the data, or declare {key} = {is:?}"
                    )),
                    Difference::Settable(new_data_only) => plan.steps.push(Step::Set {
                        dataset: name.to_owned(),
                        property: key.clone(),
                        from: there.get(key).map(str::to_owned),
                        to: value.clone(),
                        new_data_only,
                    }),
                }
            }
            match unmounted(properties, there) {
                Some((_, true)) => refuse(format!(
                    "it isn't mounted, because its key isn't loaded: `zfs load-key {name:?}`, then `reseed apply`"
                )),
                Some((at, false)) => plan.steps.push(Step::Mount {
                    dataset: name.to_owned(),
                    at: at.to_owned(),
                }),
                None => {}
            }
            continue;
        }
        if !actual.contains_key(dataset.pool()) {
            refuse(format!(
                "there is no pool {:?} here; import it with `zpool import`, or create it",
                dataset.pool()
            ));
            continue;
        }
        let above = ancestors(name);
        // Made anew, it would pass for data that was lost.
        let aside = above
            .iter()
            .chain([&name])
            .find_map(|one| left_aside(one, actual));
        if let Some(why) = aside {
            refuse(why);
            never.insert(name);
            continue;
        }
        if let Some(parent) = above.iter().find(|parent| never.contains(*parent)) {
            refuse(format!("{parent} above it can't be created"));
            never.insert(name);
            continue;
        }
        let is_volume =
            |parent: &&&str| (actual.get(**parent)).is_some_and(|there| there.kind == DatasetKind::Volume);
        if let Some(parent) = above.iter().find(is_volume) {
            refuse(format!(
                "{parent} above it is a volume, which has nothing below it"
            ));
            never.insert(name);
            continue;
        }
        for parent in above {
            let declared = DatasetName::new(parent).is_ok_and(|parent| wanted.contains_key(&parent));
            if !actual.contains_key(parent) && !declared && made.insert(parent.to_owned()) {
                plan.steps.push(Step::Create {
                    dataset: parent.to_owned(),
                    properties: BTreeMap::new(),
                    implied: true,
                });
            }
        }
        plan.steps.push(Step::Create {
            dataset: name.to_owned(),
            properties: properties.clone(),
            implied: false,
        });
    }
    plan
}

/// Why a dataset that isn't there must not be made: its data was set aside by a restore that was cut off before anything else stood there.
fn left_aside(name: &str, actual: &Actual) -> Option<String> {
    let dataset = DatasetName::new(name)
        .ok()
        .filter(|_| !actual.contains_key(name))?;
    let staged = actual.get(names::staging(&dataset).ok()?.as_str())?;
    let stage = staged
        .properties
        .get(argv::STAGE)
        .filter(|value| value.source == "local")?;
    let record = StageRecord::read(&stage.value).filter(|record| record.dataset == dataset)?;
    let over = record.over?.to_string();
    let (aside, kept) = actual
        .iter()
        .find(|(other, there)| names::is_aside(&dataset, other) && there.get("guid") == Some(&over))?;
    let legacy = kept.get("mountpoint").is_some_and(|value| value == "legacy");
    let name = DatasetName::new(aside.as_str()).ok()?;
    // Nobody says here where that would be mounted.
    Some(aside::told(&dataset, None, &Kept { name, legacy }))
}

enum Difference {
    None,
    Settable(bool),
    Fixed(String),
}

fn compare(key: &str, wanted: &str, there: &Dataset) -> Difference {
    let is = there.get(key);
    let property = Property::find(key);
    // What a newer or older zfs prints and we don't know is compared as it stands.
    let form = |value: &str| {
        property
            .and_then(|property| property.canonical(value).ok())
            .unwrap_or_else(|| value.to_owned())
    };
    match (is, property.map(|property| property.counts)) {
        (Some(is), _) if form(is) == form(wanted) => Difference::None,
        (Some(is), _) if key == "xattr" && is_same_xattr(wanted, is, there) => Difference::None,
        // The default cipher has changed before; that it is encrypted is what was asked for.
        (Some(is), _) if key == "encryption" && wanted == "on" && is != "off" => Difference::None,
        (Some(is), Some(Counts::AtCreation)) => Difference::Fixed(is.to_owned()),
        (None, Some(Counts::AtCreation)) => Difference::Fixed("unknown to this zfs".to_owned()),
        (_, counts) => Difference::Settable(counts == Some(Counts::ForNewData)),
    }
}

/// `on` is one of the other two, and which one has changed: up to OpenZFS 2.2 it is `dir`, and `dir` is shown as `on`; from 2.3 on it is
/// `sa`, and `sa` is shown as `on`. The property `direct` came with 2.3 too.
fn is_same_xattr(wanted: &str, is: &str, there: &Dataset) -> bool {
    let on = match there.get("direct") {
        Some(_) => "sa",
        None => "dir",
    };
    let meant = |word| if word == "on" { on } else { word };
    meant(wanted) == meant(is)
}

/// Where a dataset that isn't mounted is to be mounted once its properties are as declared, and whether its key is missing
/// for that.
fn unmounted<'a>(wanted: &'a BTreeMap<String, String>, there: &'a Dataset) -> Option<(&'a str, bool)> {
    let will_be = |key: &str| wanted.get(key).map(String::as_str).or_else(|| there.get(key));
    let at = will_be("mountpoint").filter(|path| path.starts_with('/'))?;
    let missing = there.get("mounted") == Some("no") && will_be("canmount") == Some("on");
    missing.then(|| (at, there.get("keystatus") == Some("unavailable")))
}

/// The names above a name, the pool first.
fn ancestors(name: &str) -> Vec<&str> {
    name.match_indices('/').map(|(at, _)| &name[..at]).collect()
}

/// Declared datasets whose declared mountpoint another dataset has, and which.
fn shared_mountpoints<'a>(wanted: &'a Wanted, actual: &'a Actual) -> BTreeMap<&'a str, String> {
    let mut by_path: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (dataset, properties) in wanted {
        // Those that are only mounted by hand may have one place, as the systems of a machine that has several do.
        let canmount = properties.get("canmount").map(String::as_str);
        let canmount = canmount.or_else(|| actual.get(dataset.as_str())?.get("canmount"));
        let mounts = canmount.is_none_or(|value| value == "on");
        if let Some(path) = properties
            .get("mountpoint")
            .filter(|path| mounts && path.starts_with('/'))
        {
            by_path.entry(path).or_default().insert(dataset.as_str());
        }
    }
    for (name, dataset) in actual {
        let redeclared = DatasetName::new(name.as_str()).is_ok_and(|name| {
            wanted
                .get(&name)
                .is_some_and(|properties| properties.contains_key("mountpoint"))
        });
        let mounts = dataset.get("canmount").is_none_or(|value| value == "on");
        if let Some(path) = dataset.get("mountpoint")
            && !redeclared
            && mounts
            && let Some(names) = by_path.get_mut(path)
        {
            names.insert(name);
        }
    }
    let mut shared = BTreeMap::new();
    for names in by_path.values().filter(|names| names.len() > 1) {
        for name in names {
            let other = names
                .iter()
                .find(|other| *other != name)
                .copied()
                .unwrap_or_default();
            shared.insert(*name, other.to_owned());
        }
    }
    shared
}

#[cfg(test)]
mod tests;
