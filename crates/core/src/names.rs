//! Names, checked on the way in.
//!
//! A value of one of these types can be put into an argument vector, a file name or a log line without another
//! check: it can't be empty, start with `-`, hold a quote, a newline or an `@`, or climb out of a directory. The
//! module knows the rules of ZFS and of systemd for names; it doesn't know whether anything of that name exists.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}: {why}")]
pub struct InvalidName {
    /// Which kind of name was expected.
    pub what: &'static str,
    /// The text as it came in, shortened to 80 characters.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

fn invalid(what: &'static str, text: &str, why: impl Into<String>) -> InvalidName {
    InvalidName {
        what,
        text: text.chars().take(80).collect(),
        why: why.into(),
    }
}

/// What every component of every name has to satisfy; `extra` are the characters allowed beside letters and digits.
fn component(what: &'static str, whole: &str, part: &str, extra: &str) -> Result<(), InvalidName> {
    let Some(first) = part.chars().next() else {
        return Err(invalid(what, whole, "it has an empty part"));
    };
    if first == '-' {
        return Err(invalid(
            what,
            whole,
            "a part begins with '-', which tools take for an option",
        ));
    }
    if part == "." || part == ".." {
        return Err(invalid(what, whole, "'.' and '..' are directories, not names"));
    }
    if part.starts_with(' ') || part.ends_with(' ') {
        return Err(invalid(what, whole, "it begins or ends with a space"));
    }
    match part
        .chars()
        .find(|&c| !(c.is_ascii_alphanumeric() || extra.contains(c)))
    {
        Some(c) => Err(invalid(what, whole, format!("{c:?} is not allowed in it"))),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks a text and makes a name of it.
            ///
            /// # Errors
            /// [`InvalidName`] says which rule it breaks.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
                let text = text.into();
                let check: fn(&str) -> Result<(), InvalidName> = $check;
                check(&text)?;
                Ok(Self(text))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                String::json_schema(generator)
            }
        }
    };
}

/// The longest `dataset@snapshot` that ZFS takes (`ZFS_MAX_DATASET_NAME_LEN` less the NUL).
pub const MAX_DATASET_LEN: usize = 255;

fn short(what: &'static str, text: &str, most: usize) -> Result<(), InvalidName> {
    if text.len() > most {
        return Err(invalid(
            what,
            text,
            format!("it is {} bytes long, at most {most} are allowed", text.len()),
        ));
    }
    Ok(())
}

name!(
    /// What an operator thinks in: `sonarr`, `plex`, `pg_main`. At most 64 bytes, so that unit and lock file names
    /// made from it stay legal.
    ServiceName,
    "service name",
    |text| short("service name", text, 64).and_then(|()| component("service name", text, text, "_.-"))
);

name!(
    /// A store, replica or off-site repository as the configuration calls it.
    SourceName,
    "source name",
    |text| short("source name", text, 64).and_then(|()| component("source name", text, text, "_.-"))
);

name!(
    /// A ZFS dataset, or the plain directory that stands for one: `tank/services/sonarr`.
    ///
    /// The rules are ZFS's own (`zfs_namecheck.c`): letters, digits, `_ - . :` and space; a letter first.
    DatasetName,
    "dataset name",
    |text| {
        short("dataset name", text, MAX_DATASET_LEN)?;
        if !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(invalid("dataset name", text, "it does not begin with a letter"));
        }
        text.split('/').try_for_each(|part| component("dataset name", text, part, "_-.: "))
    }
);

name!(
    /// The part of a snapshot's full name behind the `@`.
    SnapshotName,
    "snapshot name",
    |text| short("snapshot name", text, 200).and_then(|()| component("snapshot name", text, text, "_-.: "))
);

name!(
    /// Names a hold, so that its owner can find and release it.
    HoldTag,
    "hold tag",
    |text| short("hold tag", text, 200).and_then(|()| component("hold tag", text, text, "_-.:"))
);

name!(
    /// One run of one operation. Sorts by time: `20261122T203300Z-1a2b3c4d`.
    RunId,
    "run id",
    |text| short("run id", text, 64).and_then(|()| component("run id", text, text, "-"))
);

name!(
    /// A recovery point's identity, the same whichever source holds it: the snapshot's guid in decimal where it has
    /// one, otherwise what the source calls it (`restic:1a2b3c4d`).
    PointId,
    "recovery point id",
    |text| short("recovery point id", text, 128).and_then(|()| component("recovery point id", text, text, "_-.:"))
);

impl DatasetName {
    /// The first component: the pool.
    pub fn pool(&self) -> &str {
        self.0.split('/').next().unwrap_or(&self.0)
    }

    /// The last component.
    pub fn leaf(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// Whether it is one that reseed made beside a target (staged, set aside, quarantined), or lies in one: a part of its name
    /// begins with `.reseed-`.
    pub fn is_reseeds(&self) -> bool {
        self.0.split('/').any(|part| part.starts_with(".reseed-"))
    }

    /// A dataset below this one.
    ///
    /// # Errors
    /// [`InvalidName`] when the child's name is not one, or the whole gets too long.
    pub fn child(&self, leaf: &str) -> Result<Self, InvalidName> {
        Self::new(format!("{}/{leaf}", self.0))
    }
}

impl RunId {
    /// Makes the id of a run that begins now.
    pub fn generate(now: jiff::Timestamp, entropy: &dyn crate::entropy::Entropy) -> Self {
        let low = entropy.next_u64() & 0xffff_ffff;
        Self(format!("{}-{low:08x}", now.strftime("%Y%m%dT%H%M%SZ")))
    }
}

/// A number that ZFS (or the directory store) gave a dataset or snapshot once and never gives again.
///
/// Written as a decimal string: guids above 2^63 are clamped or rounded by readers that take them for numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub u64);

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Guid {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text.parse() {
            Ok(number) if !text.starts_with('+') => Ok(Self(number)),
            _ => Err(invalid("guid", text, "it is not a whole number below 2^64")),
        }
    }
}

impl Serialize for Guid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Guid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl From<Guid> for PointId {
    fn from(guid: Guid) -> Self {
        Self(guid.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_hurt_are_refused() {
        for bad in [
            "", "-r", "a\nb", "a'b", "a\"b", "..", ".", "a/b", "a@b", "é", "a b ", "a;b", "$x",
        ] {
            assert!(ServiceName::new(bad).is_err(), "{bad:?}");
        }
        for bad in [
            "", "-r", "tank/-r", "tank//a", "/tank", "tank/", "tank@a", "tank#a", "tank/a%b", "tank/..",
            "1tank", "tank/ ",
        ] {
            assert!(DatasetName::new(bad).is_err(), "{bad:?}");
        }
        assert!(DatasetName::new("a".repeat(256)).is_err());
    }

    #[test]
    fn names_that_zfs_takes_are_taken() {
        for good in ["tank", "tank/a b", "tank/a:b/c.d-e_f", "rpool/ROOT/debian"] {
            assert!(DatasetName::new(good).is_ok(), "{good:?}");
        }
        assert!(SnapshotName::new("autosnap_2026-11-22_20:33:00_hourly").is_ok());
    }

    #[test]
    fn guids_survive_the_upper_half() {
        let guid = Guid(u64::MAX);
        let json = serde_json::to_string(&guid).unwrap();
        assert_eq!(json, "\"18446744073709551615\"");
        assert_eq!(serde_json::from_str::<Guid>(&json).unwrap(), guid);
        assert!("+1".parse::<Guid>().is_err());
    }
}
