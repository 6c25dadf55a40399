//! [`JwkUrl`]: a JSON Web Key Set on the web.

use std::{sync::Arc, time::Duration};

use futures_core::future::BoxFuture;
use ureq::{
    Agent,
    http::Uri,
    tls::{Certificate, RootCerts, TlsConfig},
};

use super::source::{JwkSource, JwkSourceError, MAX_BYTES, on_thread};

/// A set at an address with `https://` or `http://`.
///
/// Authorities of the operating system, or of `SSL_CERT_FILE`, are trusted. Redirects are not followed, and proxies of the
/// environment are not used: a [source](JwkSource) of one's own can do either.
#[derive(Debug, Clone)]
pub struct JwkUrl {
    url: Uri,
    agent: Agent,
}

/// Time of a whole request.
const TIMEOUT: Duration = Duration::from_secs(5);

impl JwkUrl {
    /// Creates the source.
    ///
    /// # Errors
    /// [`JwkSourceError`] for a text that is no such address, and for `https://` when no authorities are found.
    pub fn new(url: &str) -> Result<Self, JwkSourceError> {
        // It is not shown: it may have a password.
        let bad = |problem: &str| JwkSourceError(format!("no address of a key set: {problem}"));
        let uri: Uri = url.parse().map_err(|_| bad("it cannot be read"))?;
        if uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
            return Err(bad("it has no host, or a user name"));
        }
        let mut config = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .proxy(None)
            .max_idle_connections(0)
            .user_agent("realtime");
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                let found = rustls_native_certs::load_native_certs();
                if found.certs.is_empty() {
                    return Err(JwkSourceError(format!(
                        "{url}: no trusted authorities found ({:?})",
                        found.errors
                    )));
                }
                let certs = found.certs.iter().map(|cert| Certificate::from_der(cert).to_owned());
                let tls = TlsConfig::builder()
                    .root_certs(RootCerts::from(certs))
                    .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
                config = config.tls_config(tls.build()).https_only(true);
            }
            _ => return Err(bad("it begins with neither https:// nor http://")),
        }
        Ok(Self { url: uri, agent: config.build().new_agent() })
    }
}

impl JwkSource for JwkUrl {
    fn read(&self) -> BoxFuture<'_, Result<String, JwkSourceError>> {
        let Self { url, agent } = self.clone();
        Box::pin(on_thread(move || {
            let failed = |problem: String| JwkSourceError(format!("{url}: {problem}"));
            let request = agent.get(&url).header("Accept", "application/jwk-set+json, application/json");
            let mut response = request.call().map_err(|error| failed(error.to_string()))?;
            if response.status() != 200 {
                return Err(failed(format!("status {}", response.status())));
            }
            let body = response.body_mut().with_config().limit(MAX_BYTES);
            body.read_to_string().map_err(|error| failed(error.to_string()))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_refused_and_not_shown() {
        for bad in ["", "keys.json", "ftp://a/keys", "https://", "https://user:secret@a/", "//a/keys"] {
            let error = JwkUrl::new(bad).unwrap_err().to_string();
            assert!(error.starts_with("no address of a key set: ") && !error.contains("secret"), "{error}");
        }
        JwkUrl::new("http://127.0.0.1:1/keys").unwrap();
    }
}
