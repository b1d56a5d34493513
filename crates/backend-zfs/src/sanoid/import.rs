//! From sanoid.conf to a configuration of reseed: `[datasets."tank/data".snapshots]` for every dataset that sanoid
//! manages, each with every count, so that no default of either tool changes what is kept.
//!
//! Promises: what has no counterpart is in the list of what was left out, with its line; the counts, periods and pruning
//! limits are sanoid's, exactly. Knows of the pool only the datasets' names.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use reseed_core::config::ConfigErrors;
use reseed_core::names::DatasetName;
use reseed_core::retention::sanoid::Kind;

use super::conf::SanoidConf;
use super::keys::{self, Fate};
use super::resolve::{Managed, is_default};
use crate::carry::{Imported, LeftOut, RESEEDS, quoted};

/// Why nothing was imported.
#[derive(Debug, Clone)]
pub enum ImportError {
    /// It recurses, and which datasets there are is not known.
    NeedsDatasets,
    /// What came out is no configuration.
    Unsound(ConfigErrors),
}

/// Imports. `datasets` are the filesystems and volumes there are, where that is known.
///
/// # Errors
/// [`ImportError`].
pub fn import(conf: &SanoidConf, datasets: Option<&[String]>) -> Result<Imported, ImportError> {
    if datasets.is_none() && conf.needs_datasets() {
        return Err(ImportError::NeedsDatasets);
    }
    let mut left_out = settings_left(conf);
    let all = conf.resolve(datasets.unwrap_or_default());
    let mut seen = BTreeSet::new();
    let mut toml = String::from(
        "# Taken over from sanoid.conf. `reseed sanoid conf` shows what sanoid would be given for it.\n",
    );
    let mut written = 0;
    for one in &all {
        let what = match one.section == one.dataset {
            true => format!("[{}]", one.section),
            false => format!("[{}] path = {}", one.section, one.dataset),
        };
        let not = match DatasetName::new(one.dataset.as_str()) {
            Ok(name) => name.is_reseeds().then(|| RESEEDS.to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = not {
            left_out.push(LeftOut::new(what, why));
            continue;
        }
        if !seen.insert(&one.dataset) {
            left_out.push(LeftOut::new(
                what,
                "another section is about the same dataset; the first is taken over",
            ));
            continue;
        }
        if datasets.is_some_and(|there| !there.contains(&one.dataset)) {
            left_out.push(LeftOut::new(what, "there is no such dataset here"));
            continue;
        }
        let root = covering(&all, one);
        if let Some(root) = root.filter(|root| root.dataset != one.dataset) {
            if one.policy != root.policy {
                let why = format!(
                    "sanoid takes the types that {} wants and prunes by what is set here; here only the latter counts",
                    root.dataset
                );
                left_out.push(LeftOut::new(what, why));
            }
        } else if root.is_some() {
            let why = "one atomic `zfs snapshot -r` becomes a snapshot of each dataset; datasets of one service are \
                       still taken atomically";
            left_out.push(LeftOut::new(format!("{what} recursive = zfs"), why));
        }
        snapshots(&mut toml, one, one.take || root.is_some());
        written += 1;
    }
    Imported::checked(toml, written, left_out).map_err(ImportError::Unsound)
}

/// The dataset whose recursive snapshot covers this one; itself, when it is the one that recurses.
fn covering<'a>(all: &'a [Managed], one: &Managed) -> Option<&'a Managed> {
    all.iter().find(|root| {
        root.with_children
            && root.take
            && (root.dataset == one.dataset
                || (one.with_children && one.dataset.starts_with(&format!("{}/", root.dataset))))
    })
}

fn snapshots(toml: &mut String, one: &Managed, take: bool) {
    let _ = writeln!(toml, "\n[datasets.{}.snapshots]", quoted(&one.dataset));
    if !take {
        toml.push_str("take = false\n");
    }
    if !one.prune {
        toml.push_str("prune = false\n");
    }
    for kind in Kind::ALL {
        let _ = writeln!(toml, "{kind} = {}", one.policy.wanted(kind).unwrap_or(0));
    }
    if let Some(minutes) = one.policy.frequent_period.filter(|minutes| *minutes != 15) {
        let _ = writeln!(toml, "frequent_period = {minutes}");
    }
    if let Some(percent) = one.policy.prune_defer.filter(|percent| *percent != 0) {
        let _ = writeln!(toml, "prune_defer = {percent}");
    }
}

/// Keys without a counterpart, where they are set to something else than sanoid's default.
fn settings_left(conf: &SanoidConf) -> Vec<LeftOut> {
    let mut left = Vec::new();
    for section in &conf.sections {
        for setting in &section.set {
            let fate = keys::find(setting.key).map(|key| key.fate);
            if let Some(Fate::Left(why)) = fate
                && !is_default(setting.key, &setting.value)
            {
                let what = format!(
                    "[{}] {} = {} (line {})",
                    section.name, setting.key, setting.value, setting.line
                );
                left.push(LeftOut::new(what, why));
            }
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reseed_core::config::{Format, parse_on};

    use super::super::conf::parse;
    use super::*;

    const CONF: &str = "\
[tank/data]
use_template = production
recursive = yes
pre_snapshot_script = /usr/local/bin/quiesce
[tank/data/scratch]
autosnap = no
[tank/vm]
use_template = production
recursive = zfs
hourly_min = 0
[gone]
[template_production]
frequently = 4
frequent_period = 10
hourly = 36
daily = 30
monthly = 3
prune_defer = 80
monitor = no
daily_hour = 4
";

    fn datasets() -> Vec<String> {
        [
            "tank",
            "tank/data",
            "tank/data/scratch",
            "tank/data/odd,name",
            "tank/data/.reseed-bad:x:usb",
            "tank/vm",
            "tank/vm/one",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    #[test]
    fn what_comes_out_means_the_same_and_what_does_not_is_told() {
        let conf = parse(CONF, "sanoid.conf").unwrap().conf;
        let imported = import(&conf, Some(&datasets())).unwrap();
        let config = parse_on(&imported.toml, Format::Toml, "f", Some("nas"))
            .unwrap()
            .config;
        assert_eq!(imported.datasets, 4);
        for managed in conf.resolve(&datasets()) {
            let Ok(name) = DatasetName::new(managed.dataset.as_str()) else {
                continue;
            };
            if name.is_reseeds() {
                assert!(!config.datasets.contains_key(&name));
                continue;
            }
            let Some(declared) = config.datasets.get(&name) else {
                assert_eq!(managed.dataset, "gone");
                continue;
            };
            let snapshots = declared.snapshots.as_ref().unwrap();
            assert_eq!(snapshots.policy, managed.policy, "{name}");
            assert_eq!(snapshots.prune, managed.prune, "{name}");
            assert_eq!(snapshots.take, name.as_str() != "tank/data/scratch", "{name}");
        }
        let left: Vec<&str> = imported.left_out.iter().map(|left| left.what.as_str()).collect();
        assert_eq!(
            left,
            [
                "[tank/data] pre_snapshot_script = /usr/local/bin/quiesce (line 4)",
                "[template_production] monitor = no (line 19)",
                "[template_production] daily_hour = 4 (line 20)",
                "[gone]",
                "[tank/data/.reseed-bad:x:usb]",
                "[tank/data/odd,name]",
                "[tank/vm] recursive = zfs",
            ]
        );
    }

    proptest! {
        #[test]
        fn whatever_sanoid_takes_comes_out_as_a_configuration(
            sections in proptest::collection::vec(
                ("[a-z]{1,3}(/[\\PC]{1,6}){0,2}", prop_oneof!["", "recursive = zfs", "recursive = yes", "path = \\PC{1,9}"], 0..50_u32),
                1..6,
            ),
        ) {
            let block = |(name, line, hourly): &(String, String, u32)| format!("[{name}]\n{line}\nhourly = {hourly}\n");
            let text: String = sections.iter().map(block).collect();
            if let Ok(parsed) = parse(&text, "sanoid.conf") {
                let datasets: Vec<String> =
                    sections.iter().flat_map(|(name, ..)| [name.clone(), format!("{name}/below")]).collect();
                import(&parsed.conf, Some(&datasets)).unwrap();
            }
        }
    }

    #[test]
    fn recursion_without_a_listing_is_refused_and_all_else_is_not() {
        let conf = parse(CONF, "sanoid.conf").unwrap().conf;
        assert!(matches!(import(&conf, None), Err(ImportError::NeedsDatasets)));
        let conf = parse("[tank/a]\nhourly = 3\n", "sanoid.conf").unwrap().conf;
        assert_eq!(
            import(&conf, None)
                .unwrap()
                .toml
                .lines()
                .skip(2)
                .collect::<Vec<_>>(),
            [
                "[datasets.\"tank/a\".snapshots]",
                "frequently = 0",
                "hourly = 3",
                "daily = 90",
                "weekly = 0",
                "monthly = 6",
                "yearly = 0",
            ]
        );
    }
}
