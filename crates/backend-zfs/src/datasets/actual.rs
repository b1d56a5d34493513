//! What datasets a pool has and how they are set, from `zfs get -Hp -o name,property,value,source -t filesystem,volume
//! all`. Pure.

use std::collections::BTreeMap;

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
    /// All its properties.
    pub properties: BTreeMap<String, Value>,
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

/// A listing that is not one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadListing {
    /// From 1.
    pub line: usize,
    /// The line, shortened.
    pub text: String,
}

impl std::fmt::Display for BadListing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "line {} of what zfs printed has no name, property, value and source: {:?}",
            self.line, self.text
        )
    }
}

impl std::error::Error for BadListing {}

/// Reads the listing.
///
/// # Errors
/// At the first line that has not all four parts. A listing that is cut in the middle must not look like a smaller pool.
pub fn parse(listing: &str) -> Result<Actual, BadListing> {
    let mut actual = Actual::new();
    for (index, line) in listing.lines().enumerate() {
        // A user property's value may hold tabs.
        let parts = line.split_once('\t').and_then(|(name, rest)| {
            let (property, rest) = rest.split_once('\t')?;
            let (value, source) = rest.rsplit_once('\t')?;
            (!name.is_empty() && !property.is_empty() && !source.is_empty())
                .then_some((name, property, value, source))
        });
        let Some((name, property, value, source)) = parts else {
            return Err(BadListing {
                line: index + 1,
                text: line.chars().take(80).collect(),
            });
        };
        let dataset = actual.entry(name.to_owned()).or_default();
        if property == "type" && value == "volume" {
            dataset.kind = DatasetKind::Volume;
        }
        let value = Value {
            value: value.to_owned(),
            source: source.to_owned(),
        };
        dataset.properties.insert(property.to_owned(), value);
    }
    Ok(actual)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_and_a_cut_one_is_refused() {
        let text = "tank\ttype\tfilesystem\t-\ntank\trecordsize\t131072\tdefault\ntank\tx:y\ta\tb\tlocal\n\
                    tank/v\ttype\tvolume\t-\ntank/a b\tmountpoint\t/a b\tinherited from tank\n";
        let actual = parse(text).unwrap();
        assert_eq!(actual["tank"].get("x:y"), Some("a\tb"));
        assert_eq!(actual["tank/v"].kind, DatasetKind::Volume);
        assert_eq!(
            actual["tank/a b"].properties["mountpoint"].source,
            "inherited from tank"
        );
        for cut in ["tank\ttype\tfilesystem", "tank", "", "\ta\tb\tc"] {
            assert_eq!(parse(&format!("{cut}\n")).unwrap_err().line, 1, "{cut:?}");
        }
        assert_eq!(parse("").unwrap(), Actual::new());
    }
}
