//! Asks restic's own server whether a repository is there, before restic does: it would ask one that doesn't answer again for a
//! quarter of an hour, and a restore has other places to turn to.
//!
//! Only the head of `config` is asked for, and before a repository is made what else is there, as restic does first (<https://restic.readthedocs.io/en/stable/REST_backend.html>), and by no
//! proxy, for restic is told of none.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use object_store::client::{HttpClient, HttpConnector};
use object_store::http::HttpBuilder;
use object_store::{ClientOptions, RetryConfig};
use reqwest::StatusCode;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use reseed_core::Context;
use reseed_core::clock::Clock;
use zeroize::Zeroizing;

use super::Restic;
use super::by_looking::ask_by;
use super::location::RestPlace;
use crate::error::{EngineError, Result};
use crate::repo::Engine;
use crate::s3::{CONNECT, choose_cryptography};
use crate::store::chain;

/// How it lists names and sizes.
const LISTED: &str = "application/vnd.x.restic.rest.v2";
/// It looks through a directory for one.
const PATIENCE: Duration = Duration::from_secs(60);

impl Restic {
    /// Asks the server before restic does.
    pub(super) async fn ask_the_server(
        &self,
        cx: &Context,
        place: &RestPlace,
        ask: fn(&Engine) -> Result<()>,
    ) -> Result<()> {
        let engine = place.to_look_at(self.location.to_string(), Arc::clone(&self.clock))?;
        ask_by(cx, engine, move |engine| ask(engine).or_else(judged)).await
    }
}

/// That the configuration of a repository is there.
///
/// # Errors
/// `NoRepository`, and what the server says.
pub(super) fn must_have_config(engine: &Engine) -> Result<()> {
    match engine.has_config()? {
        true => Ok(()),
        false => Err(EngineError::NoRepository {
            location: engine.location(),
        }),
    }
}

/// That it isn't.
///
/// # Errors
/// `AlreadyExists`, and what the server says.
pub(super) fn must_have_no_config(engine: &Engine) -> Result<()> {
    match engine.has_config()? {
        false => Ok(()),
        true => Err(EngineError::AlreadyExists {
            location: engine.location(),
        }),
    }
}

impl RestPlace {
    /// That nothing is left of a repository without its configuration: restic before 0.17 makes another one over it.
    ///
    /// # Errors
    /// `Unreadable` where something is; what the server says.
    pub(super) async fn must_be_vacant(&self, location: String) -> Result<()> {
        let failed = |error: reqwest::Error| unreached(&location, &error);
        let client = client(self.login_header(&location)?).map_err(failed)?;
        let mut there = Vec::new();
        for kind in ["keys", "snapshots", "index", "data"] {
            let url = format!("{}/{kind}/", self.url.trim_end_matches('/'));
            let asked = client.get(url).header(ACCEPT, LISTED).timeout(PATIENCE).send();
            let mut answer = match asked.await {
                Ok(answer) => answer,
                // As in `judged`.
                Err(error) if is_of_trust(&error) => return Ok(()),
                Err(error) => return Err(failed(error)),
            };
            match answer.status() {
                StatusCode::NOT_FOUND => continue,
                status if status.is_success() => {}
                status => {
                    return Err(EngineError::Store {
                        action: format!("list what is at {location}"),
                        detail: status.to_string(),
                    });
                }
            }
            // The first bytes tell, and there may be many.
            let mut begun = Vec::new();
            while begun.len() < 8 {
                match answer.chunk().await.map_err(failed)? {
                    Some(chunk) => begun.extend_from_slice(&chunk),
                    None => break,
                }
            }
            if !lists_nothing(&begun) {
                there.push(kind);
            }
        }
        if there.is_empty() {
            return Ok(());
        }
        Err(EngineError::Unreadable {
            what: format!("the configuration of {location}"),
            detail: format!("it is missing, although {} are there", there.join(", ")),
        })
    }

    /// What lets the user in; nothing where there is none.
    fn login_header(&self, location: &str) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        if let Some((user, password)) = &self.login {
            let password = password.read()?;
            let login = Zeroizing::new(format!("{user}:{}", password.expose()));
            let encoded = Zeroizing::new(BASE64_STANDARD.encode(login.as_bytes()));
            let value = Zeroizing::new(format!("Basic {}", *encoded));
            let mut value = HeaderValue::try_from(value.as_str()).map_err(|error| EngineError::Invalid {
                detail: format!("{location}: {error}"),
            })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(headers)
    }

    /// The repository, of which only the configuration can be looked at by this.
    ///
    /// # Errors
    /// `PlainHttp` where that isn't allowed; `PasswordFile`; `Invalid` for an address that is none.
    fn to_look_at(&self, location: String, clock: Arc<dyn Clock>) -> Result<Engine> {
        self.is_allowed(&location)?;
        let invalid = |error: &dyn std::fmt::Display| EngineError::Invalid {
            detail: format!("{location}: {error}"),
        };
        let headers = self.login_header(&location)?;
        let once = RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        };
        let objects = HttpBuilder::new()
            // With the slash that restic's addresses may end in, there would be two.
            .with_url(self.url.trim_end_matches('/'))
            .with_client_options(ClientOptions::new().with_allow_http(self.allow_http))
            .with_http_connector(Direct(headers))
            .with_retry(once)
            .build()
            .map_err(|error| invalid(&error))?;
        let prefix = object_store::path::Path::default();
        Ok(Engine::remote(Arc::new(objects), prefix, location, clock))
    }
}

/// A list of nothing, as the server writes it.
fn lists_nothing(begun: &[u8]) -> bool {
    matches!(begun.trim_ascii(), b"" | b"null" | b"[]")
}

/// Says why the server was not reached.
fn unreached(location: &str, error: &reqwest::Error) -> EngineError {
    EngineError::Unreachable {
        location: location.to_owned(),
        detail: crate::words::plain(&causes(error)),
    }
}

fn causes(error: &reqwest::Error) -> String {
    chain(error, ": ")
}

fn is_of_trust(error: &reqwest::Error) -> bool {
    error.is_connect() && causes(error).contains("certificate")
}

fn client(headers: HeaderMap) -> reqwest::Result<reqwest::Client> {
    choose_cryptography();
    reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(CONNECT)
        .default_headers(headers)
        .build()
}

/// What such a server said, in place of a bucket. What only restic can judge is left to it.
fn judged(error: EngineError) -> Result<()> {
    match error {
        EngineError::Credentials { location, detail } => Err(EngineError::Login { location, detail }),
        EngineError::WrongRegion { location, detail } => Err(EngineError::WrongEndpoint { location, detail }),
        // It takes certificates that we don't: one that signed itself and is among the system's.
        EngineError::Untrusted { detail, .. } => {
            tracing::debug!("the server's certificate is left to restic: {detail}");
            Ok(())
        }
        other => Err(other),
    }
}

/// Clients that send these headers, and by no proxy.
#[derive(Debug)]
struct Direct(HeaderMap);

impl HttpConnector for Direct {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        client(self.0.clone())
            .map(HttpClient::new)
            .map_err(|error| object_store::Error::Generic {
                store: "HTTP",
                source: Box::new(error),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_nothing_is_told_by_its_beginning() {
        for (begun, nothing) in [
            ("[]\n", true),
            ("null", true),
            ("", true),
            ("[{\"name\":", false),
            ("[\"ab", false),
            ("<html>", false),
        ] {
            assert_eq!(lists_nothing(begun.as_bytes()), nothing, "{begun}");
        }
    }

    #[test]
    fn what_it_says_is_judged_as_of_no_bucket() {
        let (location, detail) = ("rest:https://x/y".to_owned(), "it answered 401".to_owned());
        let login = judged(EngineError::Credentials { location, detail }).unwrap_err();
        assert!(matches!(login, EngineError::Login { .. }), "{login}");
        let (location, detail) = ("rest:https://x/y".to_owned(), "UnknownIssuer".to_owned());
        assert_eq!(judged(EngineError::Untrusted { location, detail }), Ok(()));
        let endpoint = |detail: &str| EngineError::WrongEndpoint {
            location: "rest:https://x/y".to_owned(),
            detail: detail.to_owned(),
        };
        let plain = judged(endpoint("received corrupt message"));
        assert_eq!(plain, Err(endpoint("received corrupt message")));
    }
}
