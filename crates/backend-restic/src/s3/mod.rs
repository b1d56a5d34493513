//! A repository in S3, or in whatever speaks its protocol: B2 by its S3 endpoint, Garage, MinIO, Ceph, Wasabi.
//!
//! [`S3Place`] says where, [`CredentialsFrom`] where the key comes from; both are read at each use, so that a key which is
//! replaced needs no restart. The client that is made of them never tries again by itself (`store::net` does), takes
//! nothing from the environment but proxies, and speaks plain HTTP only where that was allowed.

pub mod lifecycle;
mod listing;

use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{ClientOptions, RetryConfig};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{EngineError, Result};
use crate::secret::plain;

/// A host that doesn't take a connection by then is not there.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);

/// Where in S3 a repository is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct S3Place {
    /// `https://HOST[:PORT]`.
    pub endpoint: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The bucket. It is addressed by path.
    pub bucket: String,
    /// What all its keys begin with, without a slash at either end; empty for the whole bucket.
    pub prefix: String,
    /// The endpoint may begin with `http:`.
    pub allow_http: bool,
}

impl S3Place {
    /// As restic writes it. Holds no secret.
    pub fn location(&self) -> String {
        let whole = format!("s3:{}/{}/{}", self.endpoint, self.bucket, self.prefix);
        whole.trim_end_matches('/').to_owned()
    }

    /// That plain HTTP, where it is that, was allowed.
    ///
    /// # Errors
    /// `PlainHttp`.
    pub(crate) fn is_allowed(&self) -> Result<()> {
        may_be_plain(&self.endpoint, self.allow_http, &self.location())
    }
}

/// An access key.
///
/// It serialises to plain text, because the restore worker gets it over a private pipe; it must not be serialised
/// anywhere else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct S3Credentials {
    access_key_id: String,
    #[serde(with = "plain")]
    secret: Zeroizing<String>,
    #[serde(with = "plain")]
    token: Zeroizing<String>,
}

impl std::fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl S3Credentials {
    /// A key that lasts.
    pub fn new(access_key_id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self {
            access_key_id: access_key_id.into(),
            secret: Zeroizing::new(secret.into()),
            token: Zeroizing::default(),
        }
    }

    /// Reads an AWS credentials file, as restic does by `AWS_SHARED_CREDENTIALS_FILE`.
    ///
    /// # Errors
    /// `CredentialsFile`; it never quotes the file.
    pub fn read_file(path: &Path, profile: &str) -> Result<Self> {
        let fail = |detail: String| EngineError::CredentialsFile {
            path: path.display().to_string(),
            detail,
        };
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?);
        Self::parse(&text, profile).map_err(fail)
    }

    fn parse(text: &str, profile: &str) -> Result<Self, String> {
        let (mut here, mut seen) = (false, false);
        let mut found = Self::new("", "");
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                here = name.trim() == profile;
                seen |= here;
                continue;
            }
            let Some((key, value)) = line.split_once('=').filter(|_| here) else {
                continue;
            };
            match key.trim() {
                "aws_access_key_id" => found.access_key_id = value.trim().to_owned(),
                "aws_secret_access_key" => found.secret = Zeroizing::new(value.trim().to_owned()),
                "aws_session_token" => found.token = Zeroizing::new(value.trim().to_owned()),
                _ => {}
            }
        }
        if !seen {
            return Err(format!("it has no section [{profile}]"));
        }
        for (value, key) in [
            (found.access_key_id.as_str(), "aws_access_key_id"),
            (found.secret.as_str(), "aws_secret_access_key"),
        ] {
            if value.is_empty() {
                return Err(format!("[{profile}] in it has no {key}"));
            }
        }
        Ok(found)
    }

    /// As a credentials file for restic. The backticks keep its reader from taking a part of a value for a comment.
    pub(crate) fn file(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new("[default]\n".to_owned());
        let values = [
            ("aws_access_key_id", self.access_key_id.as_str()),
            ("aws_secret_access_key", &self.secret),
            ("aws_session_token", &self.token),
        ];
        for (key, value) in values {
            if !value.is_empty() {
                for part in [key, " = `", value, "`\n"] {
                    text.push_str(part);
                }
            }
        }
        text
    }

    /// What must not appear in anybody's words.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &str> {
        [self.secret.as_str(), self.token.as_str()]
            .into_iter()
            .filter(|secret| !secret.is_empty())
    }
}

/// Where the access key comes from.
#[derive(Debug, Clone)]
pub enum CredentialsFrom {
    /// A section of an AWS credentials file, read at each use.
    File {
        /// The file.
        path: PathBuf,
        /// The section; `default` by default.
        profile: String,
    },
    /// Given.
    Given(S3Credentials),
}

impl CredentialsFrom {
    /// The section `default` of a file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File {
            path: path.into(),
            profile: "default".to_owned(),
        }
    }

    /// Another section of the file.
    #[must_use]
    pub fn of_profile(self, name: &str) -> Self {
        match self {
            Self::File { path, .. } => Self::File {
                path,
                profile: name.to_owned(),
            },
            given @ Self::Given(_) => given,
        }
    }

    pub(crate) fn read(&self) -> Result<S3Credentials> {
        match self {
            Self::File { path, profile } => S3Credentials::read_file(path, profile),
            Self::Given(credentials) => Ok(credentials.clone()),
        }
    }
}

/// A client for a place. Connects to nothing yet.
pub(crate) fn client(place: &S3Place, credentials: &S3Credentials) -> Result<AmazonS3> {
    let options = options(place)?;
    let once = RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    };
    let mut builder = AmazonS3Builder::new()
        .with_endpoint(&place.endpoint)
        .with_region(&place.region)
        .with_bucket_name(&place.bucket)
        .with_virtual_hosted_style_request(false)
        .with_access_key_id(&credentials.access_key_id)
        .with_secret_access_key(credentials.secret.as_str())
        .with_client_options(options)
        .with_http_connector(listing::Connector)
        .with_retry(once);
    if !credentials.token.is_empty() {
        builder = builder.with_token(credentials.token.as_str());
    }
    builder.build().map_err(|error| EngineError::Invalid {
        detail: format!("{}: {error}", place.location()),
    })
}

/// How the place may be talked to.
fn options(place: &S3Place) -> Result<ClientOptions> {
    place.is_allowed()?;
    choose_cryptography();
    Ok(ClientOptions::new()
        .with_allow_http(place.allow_http)
        // The limits of `store::net` know how much there is to send.
        .with_timeout_disabled()
        .with_connect_timeout(CONNECT))
}

/// That an address which begins with `http:` was allowed to.
///
/// # Errors
/// `PlainHttp`.
pub(crate) fn may_be_plain(address: &str, allow_http: bool, location: &str) -> Result<()> {
    match address.starts_with("http:") && !allow_http {
        true => Err(EngineError::PlainHttp {
            location: location.to_owned(),
        }),
        false => Ok(()),
    }
}

/// TLS needs a choice for the whole process. Whoever embeds this and has made one keeps it.
pub(crate) fn choose_cryptography() {
    static CHOSEN: Once = Once::new();
    CHOSEN.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(endpoint: &str) -> S3Place {
        S3Place {
            endpoint: endpoint.into(),
            region: "r".into(),
            bucket: "b".into(),
            prefix: String::new(),
            allow_http: false,
        }
    }

    #[test]
    fn what_is_printed_of_a_key_is_no_secret() {
        let mut key = S3Credentials::new("AK", "s/e+c=ret");
        key.token = Zeroizing::new("a token".to_owned());
        let from = CredentialsFrom::Given(key.clone());
        for shown in [format!("{key:?} {key:#?}"), format!("{from:?} {from:#?}")] {
            assert!(
                !shown.contains("s/e+c=ret") && !shown.contains("a token"),
                "{shown}"
            );
        }
    }

    #[test]
    fn a_credentials_file_is_read_as_aws_reads_it() {
        let text = "# of nas\n[other]\naws_access_key_id = x\naws_secret_access_key=y\n\n[ default ]\n\
                    aws_access_key_id=AK\naws_secret_access_key =  s/e+c=ret \nregion = nowhere\n";
        let read = S3Credentials::parse(text, "default").unwrap();
        assert_eq!(read, S3Credentials::new("AK", "s/e+c=ret"));
        assert_eq!(
            S3Credentials::parse(text, "other").unwrap(),
            S3Credentials::new("x", "y")
        );
        let session = format!("{text}aws_session_token = t\n");
        let read = S3Credentials::parse(&session, "default").unwrap();
        assert_eq!(read.secrets().collect::<Vec<_>>(), ["s/e+c=ret", "t"]);
    }

    #[test]
    fn what_is_no_credentials_file_is_not_quoted() {
        for text in [
            "",
            "hunter2",
            "AK:hunter2",
            "[default]\nhunter2",
            "[default]\naws_secret_access_key = hunter2",
            "[default]\naws_access_key_id = AK\naws_secret_access_key =",
        ] {
            let error = S3Credentials::parse(text, "default").unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let missing = S3Credentials::read_file(Path::new("/nonexistent/file"), "default").unwrap_err();
        assert!(matches!(missing, EngineError::CredentialsFile { .. }));
    }

    #[test]
    fn debug_never_shows_the_key() {
        let from = CredentialsFrom::Given(S3Credentials::new("AKID", "hunter2"));
        assert_eq!(format!("{from:?}"), "Given(***)");
        let client = client(
            &place("https://s3.invalid"),
            &S3Credentials::new("AKID", "hunter2"),
        )
        .unwrap();
        let engine = crate::repo::Engine::s3(
            place("https://s3.invalid"),
            from,
            std::sync::Arc::new(reseed_core::clock::SystemClock::new()),
        );
        let shown = format!("{client} {engine:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("AKID"), "{shown}");
    }

    #[test]
    fn plain_http_has_to_be_allowed() {
        let credentials = S3Credentials::new("AK", "s");
        let mut place = place("http://127.0.0.1:9");
        assert_eq!(
            client(&place, &credentials).map(drop),
            Err(EngineError::PlainHttp {
                location: "s3:http://127.0.0.1:9/b".into()
            })
        );
        place.allow_http = true;
        client(&place, &credentials).unwrap();
    }
}
