//! Asks restic's own server whether a repository is there, before restic does: it would ask one that doesn't answer again for a
//! quarter of an hour, and a restore has other places to turn to.
//!
//! Only the head of `config` is asked for, as restic does first (<https://restic.readthedocs.io/en/stable/REST_backend.html>), and by no
//! proxy, for restic is told of none.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use object_store::client::{HttpClient, HttpConnector};
use object_store::http::HttpBuilder;
use object_store::{ClientOptions, RetryConfig};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reseed_core::Context;
use reseed_core::clock::Clock;
use zeroize::Zeroizing;

use super::Restic;
use super::by_looking::ask_by;
use super::location::RestPlace;
use crate::error::{EngineError, Result};
use crate::repo::Engine;
use crate::s3::{CONNECT, choose_cryptography};

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
    /// The repository, of which only the configuration can be looked at by this.
    ///
    /// # Errors
    /// `PlainHttp` where that isn't allowed; `PasswordFile`; `Invalid` for an address that is none.
    fn to_look_at(&self, location: String, clock: Arc<dyn Clock>) -> Result<Engine> {
        self.is_allowed(&location)?;
        let invalid = |error: &dyn std::fmt::Display| EngineError::Invalid {
            detail: format!("{location}: {error}"),
        };
        let mut headers = HeaderMap::new();
        if let Some((user, password)) = &self.login {
            let password = password.read()?;
            let login = Zeroizing::new(format!("{user}:{}", password.expose()));
            let encoded = Zeroizing::new(BASE64_STANDARD.encode(login.as_bytes()));
            let value = Zeroizing::new(format!("Basic {}", *encoded));
            let mut value = HeaderValue::try_from(value.as_str()).map_err(|error| invalid(&error))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
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
        choose_cryptography();
        reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT)
            .default_headers(self.0.clone())
            .build()
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
