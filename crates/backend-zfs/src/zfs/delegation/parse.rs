//! What `zfs allow DATASET` prints, as grants. Pure.
//!
//! A section for each dataset from the one asked for up to its pool, where something is granted; in it permission sets, what
//! whoever creates a dataset gets, and grants for here, for below, and for both.

use std::collections::{BTreeMap, BTreeSet};

use reseed_core::names::DatasetName;

use super::super::parse::{BadOutput, text};
use super::Who;

/// For which datasets something is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Here,
    Below,
    Both,
}

/// To whom.
#[derive(Debug, Clone, PartialEq, Eq)]
enum To {
    User(String),
    Group(String),
    Everyone,
}

/// What is granted on one dataset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Section {
    dataset: String,
    sets: BTreeMap<String, Vec<String>>,
    grants: Vec<(Reach, To, Vec<String>)>,
}

/// What is granted on a dataset and those above it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    sections: Vec<Section>,
}

/// Where a line belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    None,
    Sets,
    Create,
    Grants(Reach),
}

/// Reads it.
///
/// # Errors
/// When it isn't what `zfs allow` prints.
pub(crate) fn parse(output: &[u8]) -> Result<Grants, BadOutput> {
    let mut all = Grants::default();
    let mut part = Part::None;
    for line in text(output)?.lines() {
        let odd = || BadOutput(format!("`zfs allow` printed {line:?}"));
        if let Some(rest) = line.strip_prefix("---- Permissions on ") {
            let dataset = rest.trim_end_matches('-').trim_end().to_owned();
            all.sections.push(Section {
                dataset,
                ..Section::default()
            });
            part = Part::None;
            continue;
        }
        if line.trim().is_empty() {
            continue;
        }
        let Some(entry) = line.strip_prefix('\t') else {
            part = match line.trim_end() {
                "Permission sets:" => Part::Sets,
                "Create time permissions:" => Part::Create,
                "Local permissions:" => Part::Grants(Reach::Here),
                "Descendent permissions:" => Part::Grants(Reach::Below),
                "Local+Descendent permissions:" => Part::Grants(Reach::Both),
                _ => return Err(odd()),
            };
            continue;
        };
        let section = all.sections.last_mut().ok_or_else(odd)?;
        let split = |list: &str| {
            list.split(',')
                .map(|one| one.trim().to_owned())
                .collect::<Vec<_>>()
        };
        match part {
            Part::None => return Err(odd()),
            // They take effect when a dataset is made, and are grants on it from then on.
            Part::Create => {}
            Part::Sets => {
                let (name, list) = entry.trim().split_once(' ').ok_or_else(odd)?;
                section.sets.insert(name.to_owned(), split(list));
            }
            Part::Grants(reach) => {
                let (to, list) = entry.trim().rsplit_once(' ').ok_or_else(odd)?;
                let to = match to.trim().split_once(' ') {
                    Some(("user", name)) => To::User(name.trim().to_owned()),
                    Some(("group", name)) => To::Group(name.trim().to_owned()),
                    None if to.trim() == "everyone" => To::Everyone,
                    _ => return Err(odd()),
                };
                section.grants.push((reach, to, split(list)));
            }
        }
    }
    Ok(all)
}

impl Grants {
    /// What somebody may do with a dataset itself.
    pub(crate) fn at(&self, dataset: &DatasetName, who: &Who) -> BTreeSet<String> {
        self.granted(who, |section, reach| {
            (section.dataset == dataset.as_str() && reach != Reach::Below)
                || (is_above(&section.dataset, dataset.as_str()) && reach != Reach::Here)
        })
    }

    /// What somebody may do with whatever is below it.
    pub(crate) fn below(&self, dataset: &DatasetName, who: &Who) -> BTreeSet<String> {
        self.granted(who, |section, reach| {
            reach != Reach::Here
                && (section.dataset == dataset.as_str() || is_above(&section.dataset, dataset.as_str()))
        })
    }

    fn granted(&self, who: &Who, counts: impl Fn(&Section, Reach) -> bool) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for section in &self.sections {
            for (reach, to, list) in &section.grants {
                let meant = match to {
                    To::User(name) => *name == who.user,
                    To::Group(name) => who.groups.contains(name),
                    To::Everyone => true,
                };
                if meant && counts(section, *reach) {
                    for one in list {
                        self.add(one, &mut all);
                    }
                }
            }
        }
        all
    }

    /// A permission, or all of a set's; sets may name sets.
    fn add(&self, permission: &str, all: &mut BTreeSet<String>) {
        if !all.insert(permission.to_owned()) || !permission.starts_with('@') {
            return;
        }
        let inside = self
            .sections
            .iter()
            .find_map(|section| section.sets.get(permission));
        for one in inside.into_iter().flatten() {
            self.add(one, all);
        }
    }
}

/// Whether one dataset is above another.
fn is_above(above: &str, dataset: &str) -> bool {
    dataset
        .strip_prefix(above)
        .is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::super::super::argv::tests::ds;
    use super::*;

    const TEXT: &str = "\
---- Permissions on tank/svc -----------------------------------------
Permission sets:
\t@all @most,bookmark
\t@most hold,send
Create time permissions:
\tdestroy
Local permissions:
\tuser repl rename
Descendent permissions:
\tuser other destroy
\tgroup backup snapshot
Local+Descendent permissions:
\tuser repl @all
\teveryone diff
---- Permissions on tank ---------------------------------------------
Local permissions:
\tuser repl destroy
Local+Descendent permissions:
\tuser repl mount
";

    #[test]
    fn grants_reach_as_far_as_they_say() {
        let grants = parse(TEXT.as_bytes()).unwrap();
        let who = Who {
            user: "repl".to_owned(),
            groups: vec!["backup".to_owned()],
        };
        let list = |set: BTreeSet<String>| {
            let plain: Vec<String> = set.into_iter().filter(|one| !one.starts_with('@')).collect();
            plain.join(",")
        };
        assert_eq!(
            list(grants.at(&ds("tank/svc"), &who)),
            "bookmark,diff,hold,mount,rename,send"
        );
        assert_eq!(
            list(grants.below(&ds("tank/svc"), &who)),
            "bookmark,diff,hold,mount,send,snapshot"
        );
        assert_eq!(list(grants.at(&ds("tank/svcs"), &who)), "mount");
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for bad in [
            "\tuser repl send\n",
            "Something:\n",
            "---- Permissions on a ---\n\tx\n",
            "cut",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert_eq!(parse(b"").unwrap(), Grants::default());
    }
}
