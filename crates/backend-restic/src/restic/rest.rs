//! Asks restic's own server whether a repository is there, before restic does: it would ask one that doesn't answer again for a
//! quarter of an hour, and a restore has other places to turn to.
//!
//! Only the head of `config` is asked for, as restic does first (<https://restic.readthedocs.io/en/stable/REST_backend.html>).

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use object_store::RetryConfig;
use object_store::http::HttpBuilder;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reseed_core::clock::Clock;
use zeroize::Zeroizing;

use super::location::RestPlace;
use crate::error::{EngineError, Result};
use crate::repo::Engine;
use crate::s3::http_options;

impl RestPlace {
    /// The repository, of which only the configuration can be looked at by this.
    ///
    /// # Errors
    /// `PlainHttp` where that isn't allowed; `PasswordFile`; `Invalid` for an address that is none.
    pub(super) fn to_look_at(&self, location: String, clock: Arc<dyn Clock>) -> Result<Engine> {
        self.is_allowed(&location)?;
        let invalid = |error: &dyn std::fmt::Display| EngineError::Invalid {
            detail: format!("{location}: {error}"),
        };
        let mut headers = HeaderMap::new();
        if let Some((user, password)) = &self.login {
            let password = password.read()?;
            let login = Zeroizing::new(format!("{user}:{}", password.expose()));
            let value = Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(login.as_bytes())));
            let mut value = HeaderValue::try_from(value.as_str()).map_err(|error| invalid(&error))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let once = RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        };
        let objects = HttpBuilder::new()
            .with_url(&self.url)
            .with_client_options(http_options(self.allow_http).with_default_headers(headers))
            .with_retry(once)
            .build()
            .map_err(|error| invalid(&error))?;
        let prefix = object_store::path::Path::default();
        Ok(Engine::remote(Arc::new(objects), prefix, location, clock))
    }
}
