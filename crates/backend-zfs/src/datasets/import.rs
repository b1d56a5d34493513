//! A configuration from what is on a pool: for every filesystem, the properties that somebody set on it. Once, for
//! adopting reseed; applying it to the same pool does nothing. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use reseed_core::config::ConfigErrors;
use reseed_core::layout::{Counts, PROFILES, Profile, Property, is_user_property};
use reseed_core::names::DatasetName;

use super::actual::{Actual, Dataset, DatasetKind};
use crate::carry::{Imported, LeftOut, RESEEDS, quoted};

/// Properties that say what a dataset holds or how it came about, and aren't settings.
const NO_SETTING: [&str; 4] = ["snapdev", "volmode", "mlslabel", "context"];

/// Imports the filesystems of these pools; of all, when none is named.
///
/// # Errors
/// When what came out is no configuration, which is a mistake in reseed.
pub fn import(actual: &Actual, pools: &[String]) -> Result<Imported, ConfigErrors> {
    let mut left_out = Vec::new();
    let mut toml = String::from(
        "# Taken over from what is on the pool. `reseed plan` says what of it is not so any more.\n",
    );
    let mut written = 0;
    for (name, dataset) in actual {
        let pool = name.split('/').next().unwrap_or(name);
        if !pools.is_empty() && !pools.iter().any(|wanted| wanted == pool) {
            continue;
        }
        let parsed = DatasetName::new(name.as_str());
        if parsed.as_ref().is_ok_and(DatasetName::is_reseeds) {
            left_out.push(LeftOut::new(name, RESEEDS));
            continue;
        }
        if dataset.kind == DatasetKind::Volume {
            left_out.push(LeftOut::new(
                name,
                "it is a volume, and only filesystems can be declared",
            ));
            continue;
        }
        if let Err(error) = parsed {
            left_out.push(LeftOut::new(name, error.to_string()));
            continue;
        }
        let mut properties = settings(name, dataset, &mut left_out);
        let _ = writeln!(toml, "\n[datasets.{}]", quoted(name));
        if let Some(profile) = profile(&properties) {
            let _ = writeln!(toml, "profile = {}", quoted(profile.name));
            for (key, _) in profile.properties {
                properties.remove(*key);
            }
        }
        if !properties.is_empty() {
            let _ = writeln!(toml, "[datasets.{}.properties]", quoted(name));
            for (key, value) in &properties {
                let _ = writeln!(toml, "{} = {}", quoted(key), quoted(value));
            }
        }
        written += 1;
    }
    Imported::checked(toml, written, left_out)
}

/// What somebody set: local and received values, and what was decided when it was created.
fn settings(name: &str, dataset: &Dataset, left_out: &mut Vec<LeftOut>) -> BTreeMap<String, String> {
    let own_key = dataset.get("encryptionroot") == Some(name);
    let mut settings = BTreeMap::new();
    for (key, value) in &dataset.properties {
        let set = matches!(value.source.as_str(), "local" | "received");
        let known = Property::find(key);
        let fixed = known.is_some_and(|property| property.counts == Counts::AtCreation);
        let of_key = ["encryption", "keyformat", "keylocation"].contains(&key.as_str());
        let wanted = match (fixed, of_key) {
            // A child of an encrypted dataset is encrypted by it.
            (_, true) => own_key,
            (true, false) => !["sensitive", "none", "off", "-"].contains(&value.value.as_str()),
            (false, false) => set,
        };
        if !wanted || key.starts_with("reseed:") {
            continue;
        }
        let what = || format!("{name} {key}={}", value.value);
        match known {
            Some(property) => match property.canonical(&value.value) {
                Ok(_) => {
                    settings.insert(key.clone(), readable(key, &value.value));
                }
                Err(wanted) => left_out.push(LeftOut::new(what(), format!("it can be declared as {wanted}"))),
            },
            None if is_user_property(key) && odd(&value.value) => {
                left_out.push(LeftOut::new(format!("{name} {key}"), ODD));
            }
            None if is_user_property(key) => {
                settings.insert(key.clone(), value.value.clone());
            }
            None if NO_SETTING.contains(&key.as_str()) => {}
            None => left_out.push(LeftOut::new(what(), "reseed can't declare this property")),
        }
    }
    for key in dataset.odd.iter().filter(|key| !key.starts_with("reseed:")) {
        left_out.push(LeftOut::new(format!("{name} {key}"), ODD));
    }
    settings
}

const ODD: &str = "its value holds what is no text";

fn odd(value: &str) -> bool {
    value.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER)
}

/// `131072` as a person writes it.
fn readable(key: &str, value: &str) -> String {
    let sizes = [
        "quota",
        "recordsize",
        "refquota",
        "refreservation",
        "reservation",
        "special_small_blocks",
    ];
    let Some(mut number) = sizes.contains(&key).then(|| value.parse::<u64>().ok()).flatten() else {
        return value.to_owned();
    };
    if number == 0 {
        return "none".to_owned();
    }
    let mut unit = "";
    for next in ["K", "M", "G", "T"] {
        if !number.is_multiple_of(1024) {
            break;
        }
        number /= 1024;
        unit = next;
    }
    format!("{number}{unit}")
}

/// The profile all of whose properties are set as it has them.
fn profile(properties: &BTreeMap<String, String>) -> Option<&'static Profile> {
    PROFILES.iter().find(|profile| {
        (profile.properties.iter()).all(|(key, value)| properties.get(*key).is_some_and(|is| is == value))
    })
}

#[cfg(test)]
mod tests {
    use reseed_core::config::{Format, parse_on};

    use super::super::{actual, plan::plan};
    use super::*;

    // The form of zfs 2.3; a part of the properties.
    const LISTING: &str = "\
tank\ttype\tfilesystem\t-
tank\tcompression\tlz4\tlocal
tank\tatime\toff\tlocal
tank\trecordsize\t131072\tdefault
tank\tmountpoint\tnone\tlocal
tank/pg\ttype\tfilesystem\t-
tank/pg\trecordsize\t8192\tlocal
tank/pg\tcompression\tlz4\tlocal
tank/pg\tatime\toff\tinherited from tank
tank/pg\tquota\t21474836480\treceived
tank/pg\tutf8only\ton\t-
tank/pg\tnormalization\tformD\t-
tank/pg\torg.example:who\tme \"too\"\tlocal
tank/pg\torg.example:tab\ta\tb\tlocal
tank/pg\torg.example:two\ta
b\tlocal
tank/pg\treseed:marker\tx\tlocal
tank/secret\ttype\tfilesystem\t-
tank/secret\tencryption\taes-256-gcm\t-
tank/secret\tencryptionroot\ttank/secret\t-
tank/secret\tkeyformat\traw\t-
tank/secret\tkeylocation\tfile:///etc/key\tlocal
tank/secret/below\ttype\tfilesystem\t-
tank/secret/below\tencryption\taes-256-gcm\t-
tank/secret/below\tencryptionroot\ttank/secret\t-
tank/secret/below\tfilesystem_limit\t5\tlocal
tank/.reseed-aside:pg:20261122T203300Z-1\ttype\tfilesystem\t-
tank/.reseed-stage:pg/data\ttype\tfilesystem\t-
tank/v\ttype\tvolume\t-
usb\ttype\tfilesystem\t-
";

    #[test]
    fn what_is_imported_is_already_applied() {
        let there = actual::tests::listing(LISTING);
        let imported = import(&there, &["tank".to_owned()]).unwrap();
        assert_eq!(
            imported.toml.lines().skip(2).collect::<Vec<_>>().join("\n"),
            "[datasets.\"tank\"]\n\
             [datasets.\"tank\".properties]\n\
             \"atime\" = \"off\"\n\"compression\" = \"lz4\"\n\"mountpoint\" = \"none\"\n\n\
             [datasets.\"tank/pg\"]\n\
             profile = \"postgres-data\"\n\
             [datasets.\"tank/pg\".properties]\n\
             \"normalization\" = \"formD\"\n\"org.example:who\" = \"me \\\"too\\\"\"\n\"quota\" = \"20G\"\n\"utf8only\" = \"on\"\n\n\
             [datasets.\"tank/secret\"]\n\
             [datasets.\"tank/secret\".properties]\n\
             \"encryption\" = \"aes-256-gcm\"\n\"keyformat\" = \"raw\"\n\"keylocation\" = \"file:///etc/key\"\n\n\
             [datasets.\"tank/secret/below\"]"
        );
        let left: Vec<&str> = imported.left_out.iter().map(|left| left.what.as_str()).collect();
        assert_eq!(
            left,
            [
                "tank/.reseed-aside:pg:20261122T203300Z-1",
                "tank/.reseed-stage:pg/data",
                "tank/pg org.example:tab",
                "tank/pg org.example:two",
                "tank/secret/below filesystem_limit=5",
                "tank/v"
            ]
        );

        let config = parse_on(&imported.toml, Format::Toml, "f", Some("nas"))
            .unwrap()
            .config;
        let wanted = config
            .datasets
            .into_iter()
            .map(|(name, declared)| (name, declared.wanted()))
            .collect();
        assert_eq!(plan(&wanted, &there).to_string(), "all is as declared");
    }
}
