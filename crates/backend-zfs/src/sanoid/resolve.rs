//! Which dataset gets which values: defaults, templates and recursion, in sanoid's order.
//!
//! Source: `init` in sanoid 2.1 and 2.3, which agree. For each section, in the order of the file: sanoid's defaults,
//! `template_default`, the templates of `use_template` from left to right, the section itself. Then, with `recursive`,
//! what came out is written over every dataset below, *also over sections that stand earlier in the file*; with
//! `skip_children` alone, what stands earlier for datasets below is forgotten. A section that stands later than the
//! recursion over it begins with what that left there, and without the default template.
//!
//! Promises the same answer as sanoid for the same datasets. Knows nothing of how they are found.

use std::collections::BTreeMap;

use reseed_core::retention::sanoid::Policy;

use super::conf::{Recursion, SanoidConf, Section, is_true, templates};
use super::keys::{self, KEYS};

/// What sanoid would do with one dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Managed {
    /// The dataset.
    pub dataset: String,
    /// The section that says so; the dataset's name, unless it has a `path`.
    pub section: String,
    /// Snapshots are taken.
    pub take: bool,
    /// Snapshots are pruned.
    pub prune: bool,
    /// Taken with all datasets below in one `zfs snapshot -r`.
    pub with_children: bool,
    /// How many are kept. Every type is given.
    pub policy: Policy,
}

#[derive(Debug, Clone, Default)]
struct Values {
    path: String,
    set: BTreeMap<&'static str, String>,
    initialized: bool,
    zfs_recursion: bool,
}

impl Values {
    fn put(&mut self, key: &'static str, value: &str) {
        self.set.insert(key, value.to_owned());
    }

    fn yes(&self, key: &str) -> bool {
        self.set.get(key).is_some_and(|text| is_true(text))
    }

    /// What recursion hands down: everything but how the section itself recurses.
    fn hand_down(&mut self, from: &Self, with_autosnap: bool) {
        for (key, value) in &from.set {
            let own = ["use_template", "recursive", "process_children_only"].contains(key);
            if !own && (with_autosnap || *key != "autosnap") {
                self.put(key, value);
            }
        }
        self.initialized = true;
        self.zfs_recursion = self.zfs_recursion || from.zfs_recursion;
    }

    fn number<N: std::str::FromStr + Default>(&self, key: &str) -> N {
        // The reader has let only numbers through.
        self.set
            .get(key)
            .and_then(|text| text.parse().ok())
            .unwrap_or_default()
    }

    fn policy(&self) -> Policy {
        Policy {
            frequently: Some(self.number("frequently")),
            hourly: Some(self.number("hourly")),
            daily: Some(self.number("daily")),
            weekly: Some(self.number("weekly")),
            monthly: Some(self.number("monthly")),
            yearly: Some(self.number("yearly")),
            frequent_period: Some(self.number("frequent_period")),
            prune_defer: Some(self.number("prune_defer")),
        }
    }
}

impl SanoidConf {
    /// What sanoid would do, with these datasets there, sorted by section. Filesystems and volumes, in any order.
    pub fn resolve(&self, datasets: &[String]) -> Vec<Managed> {
        let mut all: BTreeMap<String, Values> = BTreeMap::new();
        for section in self.sections.iter().filter(|section| !section.is_template()) {
            let values = self.values(section, all.remove(&section.name).unwrap_or_default());
            let recursion = Recursion::of(section);
            let skip = section.get("skip_children").is_some_and(is_true);
            let below = format!("{}/", values.path);
            if recursion != Recursion::No || skip {
                for dataset in datasets.iter().filter(|name| name.starts_with(&below)) {
                    if recursion != Recursion::Zfs && skip {
                        all.remove(dataset);
                        continue;
                    }
                    let child = all.entry(dataset.clone()).or_default();
                    child.hand_down(&values, recursion != Recursion::Zfs);
                    child.path.clone_from(dataset);
                    if recursion == Recursion::Zfs {
                        // The recursive snapshot of the section covers it.
                        child.put("autosnap", "0");
                    }
                }
            }
            all.insert(section.name.clone(), values);
        }
        (all.into_iter())
            .filter(|(section, values)| {
                !section.starts_with("template") && !values.yes("process_children_only")
            })
            .map(|(section, values)| Managed {
                take: values.yes("autosnap"),
                prune: values.yes("autoprune"),
                with_children: values.zfs_recursion,
                policy: values.policy(),
                dataset: values.path,
                section,
            })
            .collect()
    }

    fn values(&self, section: &Section, mut values: Values) -> Values {
        if !values.initialized {
            values = Values::default();
            for key in KEYS {
                if !["use_template", "recursive", "process_children_only"].contains(&key.name) {
                    values.put(key.name, key.default);
                }
            }
            self.apply("default", &mut values);
        }
        for name in section.get("use_template").into_iter().flat_map(templates) {
            self.apply(name, &mut values);
        }
        for setting in &section.set {
            if !["use_template", "recursive", "skip_children"].contains(&setting.key) {
                values.put(setting.key, &setting.value);
            }
        }
        values.path = section.get("path").unwrap_or(&section.name).to_owned();
        if values.zfs_recursion && values.yes("autosnap") {
            values.put("autosnap", "0");
        }
        if Recursion::of(section) == Recursion::Zfs {
            values.zfs_recursion = true;
        }
        values
    }

    fn apply(&self, template: &str, values: &mut Values) {
        let Some(template) = self.section(&format!("template_{template}")) else {
            return;
        };
        for setting in &template.set {
            if !["use_template", "recursive"].contains(&setting.key) {
                values.put(setting.key, &setting.value);
            }
        }
    }
}

/// Whether a value means the same as sanoid's default for its key.
pub(super) fn is_default(key: &str, value: &str) -> bool {
    keys::find(key).is_some_and(|key| {
        key.default == value
            || (key.shape == keys::Shape::Toggle && keys::toggle(key.default) == keys::toggle(value))
    })
}

#[cfg(test)]
mod tests {
    use super::super::conf::parse;
    use super::*;

    fn resolve(text: &str, datasets: &[&str]) -> BTreeMap<String, Managed> {
        let datasets: Vec<String> = datasets.iter().map(|name| (*name).to_owned()).collect();
        let conf = parse(text, "sanoid.conf").unwrap().conf;
        let managed = conf.resolve(&datasets).into_iter();
        managed
            .map(|managed| (managed.dataset.clone(), managed))
            .collect()
    }

    const POOL: [&str; 4] = ["tank", "tank/a", "tank/a/b", "tank/ab"];

    #[test]
    fn later_ones_win_from_the_defaults_to_the_section() {
        let text = "[template_default]\nhourly = 1\ndaily = 1\nweekly = 1\n\
                    [template_x]\ndaily = 2\nweekly = 2\nmonthly = 2\n[template_y]\nweekly = 3\n\
                    [tank/a]\nuse_template = x , y\nmonthly = 4\n";
        let policy = resolve(text, &POOL)["tank/a"].policy.clone();
        let expected = Policy {
            frequently: Some(0),
            hourly: Some(1),
            daily: Some(2),
            weekly: Some(3),
            monthly: Some(4),
            yearly: Some(0),
            frequent_period: Some(15),
            prune_defer: Some(0),
        };
        assert_eq!(policy, expected);
    }

    #[test]
    fn recursion_covers_what_is_below_and_a_later_section_stands_above_it() {
        let text =
            "[tank/a]\nrecursive = yes\nhourly = 5\nprocess_children_only = yes\n[tank/a/b]\nhourly = 6\n";
        let managed = resolve(text, &POOL);
        assert_eq!(managed.keys().collect::<Vec<_>>(), ["tank/a/b"]);
        assert_eq!(managed["tank/a/b"].policy.hourly, Some(6));
        // And one that stands earlier below it.
        let text = "[tank/a/b]\nhourly = 6\n[tank/a]\nrecursive = yes\nhourly = 5\n";
        let managed = resolve(text, &POOL);
        assert_eq!(managed.len(), 2);
        assert_eq!(managed["tank/a/b"].policy.hourly, Some(5));
    }

    #[test]
    fn the_default_template_is_not_for_what_recursion_has_reached() {
        let text =
            "[template_default]\ndaily = 3\n[tank/a]\nrecursive = yes\ndaily = 9\n[tank/a/b]\nhourly = 6\n";
        let managed = resolve(text, &POOL);
        assert_eq!(managed["tank/a/b"].policy.daily, Some(9));
    }

    #[test]
    fn recursion_by_zfs_takes_once_and_prunes_everywhere() {
        let managed = resolve("[tank]\nrecursive = ZFS\n[tank/ab]\nautosnap = yes\n", &POOL);
        let takes: Vec<_> = managed
            .values()
            .filter(|m| m.take)
            .map(|m| m.dataset.as_str())
            .collect();
        assert_eq!(takes, ["tank"]);
        assert!(managed.values().all(|m| m.prune && m.with_children));
        assert_eq!(managed.len(), 4);
    }

    #[test]
    fn skipping_children_forgets_what_stands_earlier_for_them() {
        let text = "[tank/a/b]\n[tank/a]\nskip_children = yes\n";
        assert_eq!(resolve(text, &POOL).keys().collect::<Vec<_>>(), ["tank/a"]);
        let text = "[tank/a]\nskip_children = yes\n[tank/a/b]\n";
        assert_eq!(resolve(text, &POOL).len(), 2);
    }

    #[test]
    fn a_path_renames_the_section() {
        let managed = resolve("[films]\npath = tank/a\n", &POOL);
        assert_eq!(managed["tank/a"].section, "films");
    }
}
