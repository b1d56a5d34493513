//! What datasets a pool has and how they are set, from `zfs get -Hp -o name,property,value,source -t filesystem,volume
//! all`. Pure.
//!
//! Anybody's values are in it as they are, newlines and all: what may be believed of it is said in `zfs/rows.rs` and at `Read` here.

use std::collections::{BTreeMap, BTreeSet};

use crate::zfs::parse::{BadOutput, bad, shown};
use crate::zfs::rows;

/// All datasets by name.
pub type Actual = BTreeMap<String, Dataset>;

/// What a dataset is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatasetKind {
    /// A filesystem.
    #[default]
    Filesystem,
    /// A volume, which has a size and blocks instead of files.
    Volume,
}

/// A dataset and its properties.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dataset {
    /// What it is.
    pub kind: DatasetKind,
    /// All its properties but those.
    pub properties: BTreeMap<String, Value>,
    /// Properties whose values can't be told: they go over several lines, as nothing does that a person sets.
    pub odd: Vec<String>,
}

/// A property's value and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// As `zfs get -p` prints it.
    pub value: String,
    /// `local`, `received`, `default`, `inherited from …`, `temporary`, or `-` where it can't be set.
    pub source: String,
}

impl Dataset {
    /// A property's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(|value| value.value.as_str())
    }
}

/// What came of a listing of all datasets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// What is there.
    All(Actual),
    /// Something in it looks like the beginning of what is told about a dataset, and isn't: the datasets came and went meanwhile,
    /// or a value was written to look so. Each is to be asked about alone.
    Unsure,
}

/// Reads the listing. `names` are the datasets there are, from a listing that nobody can forge.
///
/// # Errors
/// At the first line that belongs to no dataset, and when it ends in the middle. A listing that is cut must not look like a smaller
/// pool.
pub(crate) fn parse(listing: &str, names: &[String]) -> Result<Read, BadOutput> {
    whole(listing)?;
    let there: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let mut blocks: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut begun = BTreeSet::new();
    for line in rows::lines(listing) {
        match (begins(line), blocks.last_mut()) {
            (Some(name), _) => {
                if !there.contains(name) || !begun.insert(name) {
                    return Ok(Read::Unsure);
                }
                blocks.push((name, vec![line]));
            }
            (None, Some((_, lines))) => lines.push(line),
            (None, None) => return bad(format!("it begins with {}", shown(line))),
        }
    }
    let dataset = |(name, lines): (&str, Vec<&str>)| Ok((name.to_owned(), read(name, &lines)?));
    Ok(Read::All(
        blocks
            .into_iter()
            .map(dataset)
            .collect::<Result<_, BadOutput>>()?,
    ))
}

/// Reads what was answered about this dataset alone.
///
/// # Errors
/// When it is about another one, or ends in the middle.
pub(crate) fn parse_one(answer: &str, name: &str) -> Result<Dataset, BadOutput> {
    whole(answer)?;
    let lines: Vec<&str> = rows::lines(answer).collect();
    match lines.first().copied().and_then(begins) == Some(name) {
        true => read(name, &lines),
        false => bad(format!("it doesn't begin with {name}'s type")),
    }
}

fn whole(text: &str) -> Result<(), BadOutput> {
    match text.is_empty() || text.ends_with('\n') {
        true => Ok(()),
        false => bad("it ends in the middle of a line".to_owned()),
    }
}

/// Whose properties begin with this line: `zfs get all` tells the type first.
fn begins(line: &str) -> Option<&str> {
    let (name, rest) = line.split_once('\t')?;
    ["type\tfilesystem\t-", "type\tvolume\t-"]
        .contains(&rest)
        .then_some(name)
}

fn read(name: &str, lines: &[&str]) -> Result<Dataset, BadOutput> {
    let mut dataset = Dataset::default();
    for fact in rows::facts(name, lines)? {
        let Some(text) = fact.value else {
            dataset.odd.push(fact.property.to_owned());
            continue;
        };
        if fact.property == "type" && text == "volume" {
            dataset.kind = DatasetKind::Volume;
        }
        let value = Value {
            value: text.to_owned(),
            source: fact.source.to_owned(),
        };
        dataset.properties.insert(fact.property.to_owned(), value);
    }
    Ok(dataset)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As when no value is odd.
    pub(in super::super) fn listing(text: &str) -> Actual {
        let names: Vec<String> = rows::lines(text).filter_map(begins).map(str::to_owned).collect();
        match parse(text, &names).unwrap() {
            Read::All(actual) => actual,
            Read::Unsure => panic!("{text}"),
        }
    }

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_listing_is_read_and_a_cut_one_is_refused() {
        let text = "tank\ttype\tfilesystem\t-\ntank\trecordsize\t131072\tdefault\ntank\tx:y\ta\tb\tlocal\n\
                    tank/a b\ttype\tfilesystem\t-\ntank/a b\tmountpoint\t/a b\tinherited from tank\n\
                    tank/v\ttype\tvolume\t-\n";
        let actual = listing(text);
        assert_eq!(actual["tank"].get("x:y"), Some("a\tb"));
        assert_eq!(actual["tank/v"].kind, DatasetKind::Volume);
        assert_eq!(
            actual["tank/a b"].properties["mountpoint"].source,
            "inherited from tank"
        );
        for cut in ["tank\ttype\tfilesystem\t-", "tank\n", "\n", "\ta\tb\tc\n"] {
            assert!(parse(cut, &names(&["tank"])).is_err(), "{cut:?}");
        }
        assert_eq!(parse("", &[]), Ok(Read::All(Actual::new())));
    }

    fn hostile(value: &str) -> String {
        format!(
            "tank/a\ttype\tfilesystem\t-\ntank/a\tquota\t0\tdefault\ntank/a\tx:y\t{value}\tlocal\n\
             tank/b\ttype\tfilesystem\t-\ntank/b\tquota\t0\tdefault\n"
        )
    }

    #[test]
    fn an_odd_value_stops_nothing_and_forges_nothing() {
        let there = names(&["tank/a", "tank/b"]);
        for odd in [
            "x\ny",
            "\n\n",
            "x\ntank/a\tquota\t5\tlocal",
            "x\ntank/b\tquota\t5\tlocal",
            "x\tlocal\ntank/b\tquota\t5",
        ] {
            let Ok(Read::All(actual)) = parse(&hostile(odd), &there) else {
                panic!("{odd:?}");
            };
            assert_eq!(actual.len(), 2, "{odd:?}");
            assert_eq!(actual["tank/a"].get("quota"), Some("0"), "{odd:?}");
            assert_eq!(actual["tank/b"].get("quota"), Some("0"), "{odd:?}");
            assert_eq!(actual["tank/a"].odd, ["x:y"], "{odd:?}");
        }
    }

    #[test]
    fn what_looks_like_another_dataset_has_each_asked_about_alone() {
        let there = names(&["tank/a", "tank/b"]);
        for odd in [
            "x\ntank/b\ttype\tfilesystem\t-\ntank/b\tquota\t5\tlocal",
            "x\ntank/new\ttype\tfilesystem\t-\ntank/new\tquota\t5\tlocal",
            "x\ntank/a\ttype\tvolume\t-\ntank/a\tquota\t5\tlocal",
        ] {
            assert_eq!(parse(&hostile(odd), &there), Ok(Read::Unsure), "{odd:?}");
            let text = hostile(odd);
            let alone = text.rfind("tank/b\ttype").unwrap();
            let found = parse_one(&text[..alone], "tank/a").unwrap();
            assert_eq!(
                (found.kind, found.get("quota")),
                (DatasetKind::Filesystem, Some("0"))
            );
            assert_eq!(found.odd, ["x:y"]);
            assert!(parse_one(&text, "tank/b").is_err());
        }
    }
}
