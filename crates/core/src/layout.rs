//! What may be declared of a dataset: ZFS properties, what each may be, from when a change of it counts; and the shipped
//! profiles. Pure data and its reading; knows nothing of a pool, and asks no tool.
//!
//! Source: zfsprops(7) of OpenZFS 2.1 to 2.3. docs/operations/zfs-properties.md says what each means for a service.

/// From when a new value of a property counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// At once, for all data.
    AtOnce,
    /// For what is written from then on; what is there stays as it is.
    ForNewData,
    /// Only when the dataset is created.
    AtCreation,
}

/// What a value has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Words(&'static [&'static str]),
    /// A power of two in this range.
    Power(u64, u64),
    /// A size, or `none`, which is 0.
    Size,
    Compression,
    /// An absolute path, or one of the words.
    Path(&'static [&'static str]),
    Text,
}

/// A property that may be declared.
#[derive(Debug, Clone, Copy)]
pub struct Property {
    /// ZFS' name for it.
    pub name: &'static str,
    /// From when a new value counts.
    pub counts: Counts,
    shape: Shape,
}

/// Properties for one kind of data, shipped with reseed.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    /// Its name.
    pub name: &'static str,
    /// Its properties.
    pub properties: &'static [(&'static str, &'static str)],
}

/// The shipped profiles.
pub const PROFILES: &[Profile] = &[
    Profile {
        name: "media",
        properties: &[("recordsize", "128K"), ("compression", "lz4")],
    },
    Profile {
        name: "sqlite",
        properties: &[("recordsize", "16K"), ("compression", "lz4")],
    },
    Profile {
        name: "postgres-data",
        properties: &[("recordsize", "8K"), ("compression", "lz4")],
    },
    Profile {
        name: "postgres-wal",
        properties: &[("recordsize", "128K"), ("compression", "off")],
    },
];

const fn property(name: &'static str, counts: Counts, shape: Shape) -> Property {
    Property { name, counts, shape }
}

const ON_OFF: Shape = Shape::Words(&["on", "off"]);
const CACHE: Shape = Shape::Words(&["all", "none", "metadata"]);
const CHECKSUMS: &[&str] = &[
    "on",
    "off",
    "fletcher2",
    "fletcher4",
    "sha256",
    "sha512",
    "skein",
    "edonr",
    "blake3",
];
const DEDUP: &[&str] = &[
    "on",
    "off",
    "verify",
    "sha256",
    "sha256,verify",
    "sha512",
    "sha512,verify",
    "skein",
    "skein,verify",
    "edonr,verify",
    "blake3",
    "blake3,verify",
];
const CIPHERS: &[&str] = &[
    "on",
    "off",
    "aes-128-ccm",
    "aes-192-ccm",
    "aes-256-ccm",
    "aes-128-gcm",
    "aes-192-gcm",
    "aes-256-gcm",
];

/// All properties that may be declared, by name.
pub const PROPERTIES: &[Property] = &[
    property(
        "aclinherit",
        Counts::AtOnce,
        Shape::Words(&["discard", "noallow", "restricted", "passthrough", "passthrough-x"]),
    ),
    property(
        "acltype",
        Counts::AtOnce,
        Shape::Words(&["off", "posix", "nfsv4", "noacl", "posixacl"]),
    ),
    property("atime", Counts::AtOnce, ON_OFF),
    property("canmount", Counts::AtOnce, Shape::Words(&["on", "off", "noauto"])),
    property(
        "casesensitivity",
        Counts::AtCreation,
        Shape::Words(&["sensitive", "insensitive", "mixed"]),
    ),
    property("checksum", Counts::ForNewData, Shape::Words(CHECKSUMS)),
    property("compression", Counts::ForNewData, Shape::Compression),
    property("copies", Counts::ForNewData, Shape::Words(&["1", "2", "3"])),
    property("dedup", Counts::ForNewData, Shape::Words(DEDUP)),
    property("devices", Counts::AtOnce, ON_OFF),
    property(
        "dnodesize",
        Counts::ForNewData,
        Shape::Words(&["legacy", "auto", "1k", "2k", "4k", "8k", "16k"]),
    ),
    property("encryption", Counts::AtCreation, Shape::Words(CIPHERS)),
    property("exec", Counts::AtOnce, ON_OFF),
    property(
        "keyformat",
        Counts::AtCreation,
        Shape::Words(&["raw", "hex", "passphrase"]),
    ),
    property("keylocation", Counts::AtCreation, Shape::Text),
    property(
        "logbias",
        Counts::AtOnce,
        Shape::Words(&["latency", "throughput"]),
    ),
    property("mountpoint", Counts::AtOnce, Shape::Path(&["none", "legacy"])),
    property(
        "normalization",
        Counts::AtCreation,
        Shape::Words(&["none", "formC", "formD", "formKC", "formKD"]),
    ),
    property("overlay", Counts::AtOnce, ON_OFF),
    property("primarycache", Counts::AtOnce, CACHE),
    property("quota", Counts::AtOnce, Shape::Size),
    property("readonly", Counts::AtOnce, ON_OFF),
    property("recordsize", Counts::ForNewData, Shape::Power(512, 16 << 20)),
    property(
        "redundant_metadata",
        Counts::ForNewData,
        Shape::Words(&["all", "most", "some", "none"]),
    ),
    property("refquota", Counts::AtOnce, Shape::Size),
    property("refreservation", Counts::AtOnce, Shape::Size),
    property("relatime", Counts::AtOnce, ON_OFF),
    property("reservation", Counts::AtOnce, Shape::Size),
    property("secondarycache", Counts::AtOnce, CACHE),
    property("setuid", Counts::AtOnce, ON_OFF),
    property(
        "snapdir",
        Counts::AtOnce,
        Shape::Words(&["hidden", "visible", "disabled"]),
    ),
    property("special_small_blocks", Counts::ForNewData, Shape::Size),
    property(
        "sync",
        Counts::AtOnce,
        Shape::Words(&["standard", "always", "disabled"]),
    ),
    property("utf8only", Counts::AtCreation, ON_OFF),
    property(
        "xattr",
        Counts::ForNewData,
        Shape::Words(&["on", "off", "sa", "dir"]),
    ),
];

impl Property {
    /// The property of that name.
    pub fn find(name: &str) -> Option<&'static Self> {
        PROPERTIES.iter().find(|property| property.name == name)
    }

    /// A value in the one form in which values can be compared, which is that of `zfs get -p` wherever there is one:
    /// sizes in bytes, `none` as 0, the older of two words as the newer.
    ///
    /// # Errors
    /// What it has to be, when it isn't.
    pub fn canonical(&self, value: &str) -> Result<String, String> {
        let one_of = |words: &[&str]| match words.contains(&value) {
            true => Ok(()),
            false => Err(format!("one of {}", words.join(", "))),
        };
        match self.shape {
            Shape::Words(words) => one_of(words)?,
            Shape::Power(least, most) => {
                return match bytes(value) {
                    Some(size) if size.is_power_of_two() && (least..=most).contains(&size) => {
                        Ok(size.to_string())
                    }
                    _ => Err("a power of two from 512 to 16M, such as 128K".to_owned()),
                };
            }
            Shape::Size => {
                return match (value, bytes(value)) {
                    ("none", _) => Ok("0".to_owned()),
                    (_, Some(size)) => Ok(size.to_string()),
                    _ => Err("a size such as 20G, or none".to_owned()),
                };
            }
            Shape::Compression if !is_compression(value) => {
                return Err("off, on, lz4, lzjb, zle, gzip, gzip-1 to gzip-9, zstd, zstd-1 to zstd-19, zstd-fast, or zstd-fast-N with N 1 to 10, 20, 30 up to 100, 500 or 1000".to_owned());
            }
            Shape::Path(words) if value.starts_with('/') => {
                let parts: Vec<&str> = value.split('/').skip(1).collect();
                let odd = |part: &&str| part.is_empty() || *part == "." || *part == "..";
                if value != "/" && parts.iter().any(odd) || value.contains(char::is_control) {
                    return Err(format!(
                        "an absolute path without . and .., or {}",
                        words.join(" or ")
                    ));
                }
            }
            Shape::Path(words) => one_of(words).map_err(|words| format!("an absolute path, or {words}"))?,
            Shape::Text if value.is_empty() || value.contains(char::is_control) => {
                return Err("a text without control characters".to_owned());
            }
            Shape::Compression | Shape::Text => {}
        }
        Ok(match (self.name, value) {
            ("acltype", "posixacl") => "posix",
            ("acltype", "noacl") => "off",
            // What the default cipher is shown as.
            ("encryption", "on") => "aes-256-gcm",
            ("compression", "gzip") => "gzip-6",
            ("compression", "zstd") => "zstd-3",
            ("compression", "zstd-fast-1") => "zstd-fast",
            (_, value) => value,
        }
        .to_owned())
    }
}

impl Profile {
    /// The profile of that name.
    pub fn find(name: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|profile| profile.name == name)
    }
}

/// Whether a name is that of a user property which may be declared: it has a colon, and isn't one of reseed's markers.
pub fn is_user_property(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ":-._".contains(c);
    name.contains(':')
        && name.len() < 256
        && !name.starts_with(['-', ':'])
        && name.chars().all(plain)
        && !name.starts_with("reseed:")
}

/// `128K` in bytes, as ZFS reads it: K is 1024, whatever its case, with or without a B or iB behind it.
pub fn bytes(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = unit.to_ascii_uppercase();
    let unit = unit
        .strip_suffix("IB")
        .or(unit.strip_suffix('B'))
        .unwrap_or(&unit);
    let power = match unit {
        "" => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        "P" => 5,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << (10 * power))
}

fn is_compression(value: &str) -> bool {
    let level = |text: Option<&str>, most: u32| {
        text.is_some_and(|text| {
            text.parse().is_ok_and(|level: u32| (1..=most).contains(&level)) && !text.starts_with(['0', '+'])
        })
    };
    ["off", "on", "lz4", "lzjb", "zle", "gzip", "zstd", "zstd-fast"].contains(&value)
        || level(value.strip_prefix("gzip-"), 9)
        || level(value.strip_prefix("zstd-"), 19)
        || level(value.strip_prefix("zstd-fast-"), 10)
        || FAST.contains(&value)
}

/// Behind 10 there are only these.
const FAST: [&str; 11] = [
    "zstd-fast-20",
    "zstd-fast-30",
    "zstd-fast-40",
    "zstd-fast-50",
    "zstd-fast-60",
    "zstd-fast-70",
    "zstd-fast-80",
    "zstd-fast-90",
    "zstd-fast-100",
    "zstd-fast-500",
    "zstd-fast-1000",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_hold_only_what_may_be_declared() {
        for profile in PROFILES {
            for (name, value) in profile.properties {
                Property::find(name).unwrap().canonical(value).unwrap();
            }
        }
        assert!(PROPERTIES.is_sorted_by_key(|property| property.name));
    }

    #[test]
    fn values_are_compared_in_one_form() {
        for (name, value, expected) in [
            ("recordsize", "128K", Some("131072")),
            ("recordsize", "16m", Some("16777216")),
            ("recordsize", "131072", Some("131072")),
            ("recordsize", "100K", None),
            ("recordsize", "32M", None),
            ("recordsize", "", None),
            ("quota", "none", Some("0")),
            ("quota", "20GiB", Some("21474836480")),
            ("quota", "-1", None),
            ("quota", "99999999P", None),
            ("compression", "zstd-19", Some("zstd-19")),
            ("compression", "zstd-20", None),
            ("compression", "zstd-03", None),
            ("compression", "gzip", Some("gzip-6")),
            ("compression", "lz5", None),
            ("compression", "zstd-fast-1", Some("zstd-fast")),
            ("compression", "zstd-fast-10", Some("zstd-fast-10")),
            ("compression", "zstd-fast-11", None),
            ("compression", "zstd-fast-25", None),
            ("compression", "zstd-fast-100", Some("zstd-fast-100")),
            ("compression", "zstd-fast-110", None),
            ("compression", "zstd-fast-1000", Some("zstd-fast-1000")),
            ("xattr", "on", Some("on")),
            ("acltype", "posixacl", Some("posix")),
            ("atime", "yes", None),
            ("mountpoint", "/srv/a b", Some("/srv/a b")),
            ("mountpoint", "/", Some("/")),
            ("mountpoint", "/srv/../etc", None),
            ("mountpoint", "srv", None),
            ("mountpoint", "none", Some("none")),
            ("keylocation", "", None),
        ] {
            let got = Property::find(name).unwrap().canonical(value).ok();
            assert_eq!(got.as_deref(), expected, "{name}={value}");
        }
        for (name, user) in [
            ("org.openzfs.systemd:ignore", true),
            ("reseed:marker", false),
            ("plain", false),
            ("-a:b", false),
            ("A:b", false),
        ] {
            assert_eq!(is_user_property(name), user, "{name}");
        }
    }
}
