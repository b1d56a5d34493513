//! Where a repository is, as restic writes it: the path of a directory, or `s3:https://HOST/BUCKET/PREFIX`. Pure.
//!
//! Every engine takes it from here, so that all mean the same place. Addresses that hold a key are refused: they end up in
//! logs and on command lines.

use std::fmt;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

/// A repository's place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RepoLocation {
    /// A directory of this machine; absolute.
    Directory(PathBuf),
    /// A bucket, or a part of one.
    S3(S3Location),
}

/// A place in S3, or in whatever speaks its protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Location {
    /// `https://HOST[:PORT]`, or with `http:`.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// What all keys begin with, without a slash at either end; empty for the whole bucket.
    pub prefix: String,
}

impl RepoLocation {
    /// The directory, where it is one.
    pub fn directory(&self) -> Option<&std::path::Path> {
        match self {
            Self::Directory(path) => Some(path),
            Self::S3(_) => None,
        }
    }
}

impl fmt::Display for RepoLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::S3(place) => place.fmt(f),
        }
    }
}

impl fmt::Display for S3Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3:{}/{}", self.endpoint, self.bucket)?;
        match self.prefix.as_str() {
            "" => Ok(()),
            prefix => write!(f, "/{prefix}"),
        }
    }
}

impl Serialize for RepoLocation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is wrong with an address, and what to do about it. Neither quotes it: there may be a key in it.
pub(crate) type Wrong = (String, String);

fn wrong<T>(why: &str, hint: &str) -> Result<T, Wrong> {
    Err((why.to_owned(), hint.to_owned()))
}

const FORM: &str = "write it as restic does: \"s3:https://HOST/BUCKET/PREFIX\"";

impl S3Location {
    /// Reads what follows `s3:`. Without a scheme it is https.
    pub(crate) fn parse(rest: &str) -> Result<Self, Wrong> {
        let (scheme, rest) = match rest.split_once("://") {
            Some((scheme @ ("https" | "http"), rest)) => (scheme, rest),
            Some(_) => return wrong("is reached by an unknown protocol", "it is https, or http"),
            None => ("https", rest.trim_start_matches('/')),
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if host.contains('@') {
            return wrong(
                "holds a key, which ends up in logs there",
                "keep it in a file, and name that by `credentials_file`",
            );
        }
        let of_host = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
        if host.is_empty() || host.starts_with(['-', '.', ':']) || !host.chars().all(of_host) {
            return wrong("names no host", FORM);
        }
        let mut parts = path.trim_end_matches('/').split('/');
        let bucket = parts.next().unwrap_or_default();
        if bucket.is_empty() {
            return wrong("names no bucket", FORM);
        }
        let plain = |part: &str| {
            part.chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        if !(3..=63).contains(&bucket.len()) || bucket.starts_with(['.', '-']) || !plain(bucket) {
            return wrong(
                "names a bucket that can't be one",
                "a bucket's name has 3 to 63 letters, digits, `.` and `-`",
            );
        }
        let prefix: Vec<&str> = parts.collect();
        if let Some(part) = prefix
            .iter()
            .find(|part| part.is_empty() || matches!(**part, "." | "..") || !plain(part))
        {
            let why = match *part {
                "" => "has a doubled slash in its prefix",
                _ => "has a prefix that not every store takes",
            };
            return wrong(why, "letters, digits, `.`, `-` and `_` between single slashes");
        }
        Ok(Self {
            endpoint: format!("{scheme}://{host}"),
            bucket: bucket.to_owned(),
            prefix: prefix.join("/"),
        })
    }

    /// Whether it is reached without encryption.
    pub fn is_plain_http(&self) -> bool {
        self.endpoint.starts_with("http:")
    }

    /// The region, where the endpoint's name tells it, as AWS's, B2's and Wasabi's do: `s3.REGION.…`.
    pub fn region(&self) -> Option<&str> {
        let host = self.endpoint.split("://").nth(1)?;
        let host = host.split(':').next()?;
        let names = host.strip_prefix("s3.")?;
        let known = [".amazonaws.com", ".backblazeb2.com", ".wasabisys.com"];
        let region = known.iter().find_map(|domain| names.strip_suffix(domain))?;
        let region = region.strip_prefix("dualstack.").unwrap_or(region);
        (!region.contains('.')).then_some(region)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match S3Location::parse(text) {
            Ok(place) => format!("{place} {}", place.region().unwrap_or("-")),
            Err((why, _)) => why,
        }
    }

    #[test]
    fn addresses_are_read_as_restic_reads_them() {
        for (text, wanted) in [
            ("https://h.lan/bucket", "s3:https://h.lan/bucket -"),
            (
                "https://h.lan:9000/bucket/a/b/",
                "s3:https://h.lan:9000/bucket/a/b -",
            ),
            ("http://[::1]:9/bucket", "s3:http://[::1]:9/bucket -"),
            (
                "s3.eu-central-1.amazonaws.com/bucket/p",
                "s3:https://s3.eu-central-1.amazonaws.com/bucket/p eu-central-1",
            ),
            (
                "https://s3.us-west-004.backblazeb2.com/my-Bucket",
                "s3:https://s3.us-west-004.backblazeb2.com/my-Bucket us-west-004",
            ),
            (
                "https://s3.amazonaws.com/bucket",
                "s3:https://s3.amazonaws.com/bucket -",
            ),
        ] {
            assert_eq!(read(text), wanted);
        }
    }

    #[test]
    fn what_is_written_can_be_read_again() {
        let place = S3Location::parse("http://h:9/bucket/a_b/c.d").unwrap();
        let text = place.to_string();
        assert_eq!(
            S3Location::parse(text.strip_prefix("s3:").unwrap()).unwrap(),
            place
        );
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for (text, wanted) in [
            ("", "names no host"),
            ("https://", "names no host"),
            ("https:///bucket", "names no host"),
            ("https://h.lan", "names no bucket"),
            ("https://h.lan//a", "names no bucket"),
            ("ftp://h/bucket", "is reached by an unknown protocol"),
            (
                "https://AK:hunter2@h/bucket",
                "holds a key, which ends up in logs there",
            ),
            ("https://h/b", "names a bucket that can't be one"),
            ("https://h/-bucket", "names a bucket that can't be one"),
            ("https://h/buck et", "names a bucket that can't be one"),
            ("https://h/bucket/a//b", "has a doubled slash in its prefix"),
            ("https://h/bucket/../b", "has a prefix that not every store takes"),
            ("https://h/bucket/a?b", "has a prefix that not every store takes"),
            ("https://h?/bucket", "names no host"),
        ] {
            assert_eq!(read(text), wanted, "{text:?}");
        }
    }
}
