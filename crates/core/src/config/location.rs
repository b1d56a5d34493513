//! Where a repository is, as restic writes it: the path of a directory, `s3:https://HOST/BUCKET/PREFIX`, `rest:https://HOST/PATH`
//! or `sftp:USER@HOST:/PATH`. Pure.
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
    /// On restic's own server: `https://HOST[:PORT]/PATH`, or with `http:`.
    Rest(String),
    /// A directory of another machine.
    Sftp(SftpLocation),
}

/// A directory of another machine, by way of ssh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SftpLocation {
    /// `HOST` or `USER@HOST`.
    pub destination: String,
    /// The port, unless it is ssh's own choice.
    pub port: Option<u16>,
    /// The directory there; absolute.
    pub path: PathBuf,
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
            Self::S3(_) | Self::Rest(_) | Self::Sftp(_) => None,
        }
    }
}

impl fmt::Display for RepoLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::S3(place) => place.fmt(f),
            Self::Rest(url) => write!(f, "rest:{url}"),
            Self::Sftp(place) => place.fmt(f),
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

impl fmt::Display for SftpLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => write!(f, "sftp:{}:{}", self.destination, self.path.display()),
            Some(port) => write!(f, "sftp://{}:{port}/{}", self.destination, self.path.display()),
        }
    }
}

/// Reads what follows `rest:`.
pub(crate) fn rest_server(rest: &str) -> Result<String, Wrong> {
    const FORM: &str = "write it as restic does: \"rest:https://HOST[:PORT]/PATH\"";
    let Some((scheme @ ("https" | "http"), place)) = rest.split_once("://") else {
        return wrong("is reached by an unknown protocol", FORM);
    };
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    if host.contains('@') {
        return wrong(
            "holds a user or password, which ends up in logs there",
            "write `server_user`, and keep the password in a file that `server_password_file` names",
        );
    }
    if !is_host(host) {
        return wrong("names no host", FORM);
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/~+".contains(c);
    if !path.chars().all(plain) || path.split('/').any(|part| part == "..") {
        return wrong(
            "has a path that is not plain",
            "letters, digits and `._-~+` between slashes",
        );
    }
    Ok(format!("{scheme}://{host}/{}", path.trim_start_matches('/')))
}

impl SftpLocation {
    /// Reads what follows `sftp:`.
    pub(crate) fn parse(rest: &str) -> Result<Self, Wrong> {
        const FORM: &str = "write it as restic does: \"sftp:USER@HOST:/PATH\", or with a port \"sftp://USER@HOST:PORT//PATH\"";
        let (destination, port, path) = match rest.strip_prefix("//") {
            Some(rest) => {
                let Some((place, path)) = rest.split_once('/') else {
                    return wrong("names no directory", FORM);
                };
                match place.rsplit_once(':') {
                    None => (place, None, path),
                    Some((destination, port)) => match port.parse::<u16>() {
                        Ok(port) if port > 0 => (destination, Some(port), path),
                        _ => return wrong("has a port that can't be one", FORM),
                    },
                }
            }
            None => match rest.split_once(':') {
                Some((destination, path)) => (destination, None, path),
                None => return wrong("names no directory", FORM),
            },
        };
        let (user, host) = destination.rsplit_once('@').unwrap_or(("me", destination));
        let word = |text: &str| {
            !text.is_empty()
                && !text.starts_with('-')
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        if user.contains(':') {
            return wrong(
                "holds a password, which ssh does not take",
                "name a key by `key_file`",
            );
        }
        if !word(user) || !word(host) {
            return wrong("names no host that ssh takes", FORM);
        }
        let plain = path.chars().all(|c| !c.is_control());
        if rest.starts_with("//") && path.contains(['#', '?', '%']) {
            return wrong(
                "has a `#`, `?` or `%` in its path, which is another place in an address with `//`",
                "write it as \"sftp:USER@HOST:/PATH\", with the port in ssh's configuration, or choose another directory",
            );
        }
        let parts: PathBuf = PathBuf::from(path).components().collect();
        if !path.starts_with('/')
            || !plain
            || parts.parent().is_none()
            || path.split('/').any(|part| part == "..")
        {
            return wrong("names no absolute directory", FORM);
        }
        Ok(Self {
            destination: destination.to_owned(),
            port,
            path: parts,
        })
    }
}

fn is_host(host: &str) -> bool {
    let of_host = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    !host.is_empty() && !host.starts_with(['-', '.', ':']) && host.chars().all(of_host)
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
        if !is_host(host) {
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

    /// The endpoint's host, without scheme and port.
    pub fn host(&self) -> &str {
        let host = self.endpoint.split("://").nth(1).unwrap_or_default();
        host.split(':').next().unwrap_or_default()
    }

    /// The region, where the endpoint's name tells it, as AWS's, B2's and Wasabi's do: `s3.REGION.…`.
    pub fn region(&self) -> Option<&str> {
        let names = self.host().strip_prefix("s3.")?;
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
    fn addresses_of_rest_servers_are_read() {
        let read = |text| rest_server(text).unwrap_or_else(|(why, _)| why);
        for (text, wanted) in [
            ("https://h.lan:8000/nas/", "https://h.lan:8000/nas/"),
            ("http://h.lan", "http://h.lan/"),
            ("h.lan/nas", "is reached by an unknown protocol"),
            ("ftp://h.lan/nas", "is reached by an unknown protocol"),
            ("https:///nas", "names no host"),
            (
                "https://u:hunter2@h/nas",
                "holds a user or password, which ends up in logs there",
            ),
            ("https://h/../nas", "has a path that is not plain"),
            ("https://h/a?b", "has a path that is not plain"),
        ] {
            assert_eq!(read(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn addresses_of_other_machines_are_read() {
        let read = |text: &str| match SftpLocation::parse(text) {
            Ok(place) => place.to_string(),
            Err((why, _)) => why,
        };
        for (text, wanted) in [
            ("me@nas.lan:/srv/restic/", "sftp:me@nas.lan:/srv/restic"),
            ("nas:/srv/a#b%20?", "sftp:nas:/srv/a#b%20?"),
            ("nas:/srv/a b", "sftp:nas:/srv/a b"),
            ("//me@nas:2222//srv", "sftp://me@nas:2222//srv"),
            ("//nas//srv", "sftp:nas:/srv"),
            (
                "//nas:22//srv/a#b",
                "has a `#`, `?` or `%` in its path, which is another place in an address with `//`",
            ),
            (
                "//nas:22//srv/a?b",
                "has a `#`, `?` or `%` in its path, which is another place in an address with `//`",
            ),
            (
                "//nas//srv/a%20b",
                "has a `#`, `?` or `%` in its path, which is another place in an address with `//`",
            ),
            ("nas", "names no directory"),
            ("//nas", "names no directory"),
            ("nas:srv", "names no absolute directory"),
            ("nas:/", "names no absolute directory"),
            ("nas:/srv/../etc", "names no absolute directory"),
            ("//nas/srv", "names no absolute directory"),
            ("//nas:0//srv", "has a port that can't be one"),
            ("//nas:ssh//srv", "has a port that can't be one"),
            ("-oProxyCommand=x:/srv", "names no host that ssh takes"),
            ("a b:/srv", "names no host that ssh takes"),
            (
                "//me:hunter2@nas:22//srv",
                "holds a password, which ssh does not take",
            ),
        ] {
            assert_eq!(read(text), wanted, "{text:?}");
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
