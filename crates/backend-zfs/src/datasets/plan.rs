//! What is declared against what is there: the steps that are missing, and what can't be had. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use reseed_core::layout::{Counts, Property};
use reseed_core::names::DatasetName;
use serde::Serialize;

use super::actual::{Actual, Dataset, DatasetKind};

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

/// One `zfs` command.
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
        let set = count(|step| matches!(step, Step::Set { .. }));
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
mod tests {
    use proptest::prelude::*;

    use super::super::actual::Value;
    use super::*;

    fn wanted(all: &[(&str, &[(&str, &str)])]) -> Wanted {
        let properties = |list: &[(&str, &str)]| -> BTreeMap<String, String> {
            list.iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        (all.iter())
            .map(|(name, list)| (DatasetName::new(*name).unwrap(), properties(list)))
            .collect()
    }

    fn there(properties: &[(&str, &str)]) -> Dataset {
        let value = |value: &str| Value {
            value: value.to_owned(),
            source: "local".to_owned(),
        };
        Dataset {
            kind: DatasetKind::Filesystem,
            properties: (properties.iter())
                .map(|(key, text)| ((*key).to_owned(), value(text)))
                .collect(),
            odd: Vec::new(),
        }
    }

    /// What `zfs` would have made of the steps.
    fn carry_out(plan: &LayoutPlan, actual: &mut Actual) {
        let put = |dataset: &mut Dataset, key: &str, text: &str| {
            let value = Property::find(key)
                .and_then(|p| p.canonical(text).ok())
                .unwrap_or_else(|| text.to_owned());
            let source = "local".to_owned();
            dataset.properties.insert(key.to_owned(), Value { value, source });
        };
        for step in &plan.steps {
            match step {
                Step::Create {
                    dataset, properties, ..
                } => {
                    if let Some((parent, _)) = dataset.rsplit_once('/') {
                        assert!(actual.contains_key(parent), "{dataset} before {parent}");
                    }
                    let new = actual.entry(dataset.clone()).or_default();
                    for (key, value) in properties {
                        put(new, key, value);
                    }
                }
                Step::Set {
                    dataset,
                    property,
                    to,
                    ..
                } => {
                    put(actual.get_mut(dataset).unwrap(), property, to);
                }
                Step::Mount { dataset, .. } => {
                    put(actual.get_mut(dataset).unwrap(), "mounted", "yes");
                }
            }
        }
    }

    #[test]
    fn the_word_on_for_xattr_is_what_the_version_makes_of_it() {
        // Declared, what is shown, the same up to 2.2, the same from 2.3 on.
        for (declared, is, older, newer) in [
            ("sa", "sa", true, true),
            ("sa", "on", false, true),
            ("sa", "dir", false, false),
            ("sa", "off", false, false),
            ("dir", "on", true, false),
            ("dir", "dir", true, true),
            ("dir", "sa", false, false),
            ("on", "on", true, true),
            ("on", "sa", false, true),
            ("on", "dir", true, false),
        ] {
            for (same, more) in [(older, ("x:y", "z")), (newer, ("direct", "standard"))] {
                let wanted = wanted(&[("tank/a", &[("xattr", declared)])]);
                let actual = Actual::from([
                    ("tank".to_owned(), there(&[])),
                    ("tank/a".to_owned(), there(&[("xattr", is), more])),
                ]);
                let steps = plan(&wanted, &actual).steps;
                assert_eq!(steps.is_empty(), same, "{declared} {is} {more:?}");
            }
        }
    }

    #[test]
    fn what_is_missing_is_created_and_what_drifted_is_set() {
        let wanted = wanted(&[
            (
                "tank/db",
                &[
                    ("recordsize", "16K"),
                    ("compression", "lz4"),
                    ("atime", "off"),
                    ("casesensitivity", "mixed"),
                ],
            ),
            ("tank/srv/new", &[("quota", "20G"), ("casesensitivity", "mixed")]),
            ("usb/x", &[]),
        ]);
        let mut actual = Actual::from([
            ("tank".to_owned(), there(&[])),
            (
                "tank/db".to_owned(),
                there(&[
                    ("recordsize", "131072"),
                    ("compression", "lz4"),
                    ("atime", "on"),
                    ("casesensitivity", "sensitive"),
                ]),
            ),
        ]);
        let first = plan(&wanted, &actual);
        assert_eq!(
            first.to_string(),
            "~ tank/db  atime: on -> off\n\
             ~ tank/db  recordsize: 131072 -> 16K  (for what is written from now on; what is there stays as it is)\n\
             + tank/srv  (something declared is below it)\n\
             + tank/srv/new  casesensitivity=mixed quota=20G\n\
             ! tank/db  casesensitivity is sensitive and can't become mixed: it is decided when a dataset is created. Create \
             another one and copy the data, or declare casesensitivity = \"sensitive\"\n\
             ! usb/x  there is no pool \"usb\" here; import it with `zpool import`, or create it\n\
             2 to create, 2 to set, 2 that can't be"
        );
        carry_out(&first, &mut actual);
        let second = plan(&wanted, &actual);
        assert_eq!((second.steps, second.obstacles.len()), (vec![], 2));
    }

    #[test]
    fn what_is_not_mounted_is_mounted_where_it_belongs_and_nowhere_else() {
        let wanted = wanted(&[
            ("tank/a", &[]),
            ("tank/b", &[("mountpoint", "/srv/b")]),
            ("tank/by-hand", &[("canmount", "noauto")]),
            ("tank/locked", &[]),
            ("tank/mounted", &[]),
            ("tank/nowhere", &[("mountpoint", "none")]),
        ]);
        let not_mounted = |more: &[(&str, &str)]| {
            let all = [("mounted", "no"), ("canmount", "on"), ("mountpoint", "/a")];
            there(&[&all, more].concat())
        };
        let mut actual = Actual::from([
            ("tank".to_owned(), not_mounted(&[])),
            ("tank/a".to_owned(), not_mounted(&[])),
            ("tank/b".to_owned(), not_mounted(&[])),
            ("tank/by-hand".to_owned(), not_mounted(&[("canmount", "noauto")])),
            (
                "tank/locked".to_owned(),
                not_mounted(&[("keystatus", "unavailable")]),
            ),
            ("tank/mounted".to_owned(), not_mounted(&[("mounted", "yes")])),
            ("tank/nowhere".to_owned(), not_mounted(&[("mountpoint", "none")])),
        ]);
        let first = plan(&wanted, &actual);
        assert_eq!(
            first.to_string(),
            "~ tank/a  mounted: no -> /a\n\
             ~ tank/b  mountpoint: /a -> /srv/b\n\
             ~ tank/b  mounted: no -> /srv/b\n\
             ! tank/locked  it isn't mounted, because its key isn't loaded: `zfs load-key \"tank/locked\"`, then `reseed apply`\n\
             0 to create, 1 to set, 2 to mount, 1 that can't be"
        );
        carry_out(&first, &mut actual);
        assert_eq!(plan(&wanted, &actual).steps, []);
    }

    #[test]
    fn two_datasets_on_one_mountpoint_are_refused() {
        let wanted = wanted(&[
            ("tank/a", &[("mountpoint", "/srv/a")]),
            ("tank/b", &[("mountpoint", "/srv/a")]),
            ("tank/b/c", &[]),
            ("tank/d", &[("mountpoint", "/srv/d")]),
            ("tank/e", &[("mountpoint", "/srv/a"), ("canmount", "off")]),
            ("tank/sys1", &[("mountpoint", "/"), ("canmount", "noauto")]),
            ("tank/sys2", &[("mountpoint", "/")]),
        ]);
        let actual = Actual::from([
            ("tank".to_owned(), there(&[])),
            (
                "tank/old".to_owned(),
                there(&[("mountpoint", "/srv/d"), ("canmount", "on")]),
            ),
            (
                "tank/sys2".to_owned(),
                there(&[("mountpoint", "/"), ("canmount", "noauto")]),
            ),
        ]);
        let plan = plan(&wanted, &actual);
        let made: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
        assert_eq!(
            made,
            [
                "+ tank/e  canmount=off mountpoint=/srv/a",
                "+ tank/sys1  canmount=noauto mountpoint=/"
            ]
        );
        let refused: Vec<&str> = plan
            .obstacles
            .iter()
            .map(|obstacle| obstacle.dataset.as_str())
            .collect();
        assert_eq!(refused, ["tank/a", "tank/b", "tank/b/c", "tank/d"]);
    }

    #[test]
    fn a_volume_is_left_alone() {
        let volume = Dataset {
            kind: DatasetKind::Volume,
            ..Dataset::default()
        };
        let actual = Actual::from([("tank".to_owned(), there(&[])), ("tank/v".to_owned(), volume)]);
        let plan = plan(
            &wanted(&[("tank/v", &[("atime", "off")]), ("tank/v/x", &[])]),
            &actual,
        );
        assert_eq!((plan.steps.len(), plan.obstacles.len()), (0, 2));
    }

    fn properties() -> impl Strategy<Value = BTreeMap<String, String>> {
        let one = prop_oneof![
            ("recordsize", prop_oneof!["8K", "16k", "131072", "1M"]),
            ("compression", prop_oneof!["lz4", "zstd", "zstd-3", "off", "gzip"]),
            ("quota", prop_oneof!["none", "0", "20G"]),
            ("xattr", prop_oneof!["sa", "on", "dir"]),
            ("acltype", prop_oneof!["posix", "posixacl", "off"]),
            ("normalization", prop_oneof!["none", "formD"]),
            ("encryption", prop_oneof!["on", "off", "aes-256-ccm"]),
            ("my:label", "[a-z]{0,3}"),
            ("mountpoint", prop_oneof!["/srv/a", "/srv/b", "none"]),
        ];
        proptest::collection::vec(one, 0..5).prop_map(|list| list.into_iter().collect())
    }

    fn name() -> impl Strategy<Value = String> {
        proptest::sample::select(vec![
            "tank",
            "tank/a",
            "tank/a/b",
            "tank/a-b",
            "tank/a/b/c",
            "tank/z",
            "gone/x",
        ])
        .prop_map(str::to_owned)
    }

    proptest! {
        #[test]
        fn a_second_apply_does_nothing_and_nothing_ever_goes(
            wanted in proptest::collection::btree_map(name(), properties(), 0..6),
            actual in proptest::collection::btree_map(name(), properties(), 0..6),
        ) {
            let wanted: Wanted =
                wanted.into_iter().map(|(name, list)| (DatasetName::new(name).unwrap(), list)).collect();
            let mut actual: Actual = (actual.into_iter())
                .map(|(name, list)| {
                    let list: Vec<(&str, &str)> = list.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
                    (name, there(&list))
                })
                .collect();
            // Parents exist in a real pool, above all the pool.
            for name in actual.keys().cloned().collect::<Vec<_>>() {
                for parent in ancestors(&name) {
                    actual.entry(parent.to_owned()).or_default();
                }
            }
            let before: Vec<String> = actual.keys().cloned().collect();
            let first = plan(&wanted, &actual);
            carry_out(&first, &mut actual);
            prop_assert!(before.iter().all(|name| actual.contains_key(name)));
            let second = plan(&wanted, &actual);
            prop_assert_eq!(second.steps, vec![]);
        }
    }
}
