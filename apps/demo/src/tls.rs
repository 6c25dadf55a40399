//! [`ServedCertificate`]: the certificate of `server.tls`, which is replaced while the server runs.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::{
    ServerConfig,
    crypto::ring,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::config::Tls;

/// The certificate that new connections are shown.
#[derive(Debug)]
pub(crate) struct ServedCertificate(RwLock<Arc<CertifiedKey>>);

impl ServedCertificate {
    /// Reads the files of a configuration; `None` if it names none.
    ///
    /// # Errors
    /// When a file cannot be used: the key of the configuration, the file and the problem.
    pub(crate) fn load(tls: &Tls) -> anyhow::Result<Option<Arc<Self>>> {
        let certificate = tls.load().map_err(|problems| anyhow::anyhow!(text(&problems)))?;
        Ok(certificate.map(|certificate| Arc::new(Self(RwLock::new(Arc::new(certificate))))))
    }

    /// Shows new connections another certificate. Open ones stay.
    pub(crate) fn replace(&self, certificate: CertifiedKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certificate);
    }

    /// The settings of a server with this certificate: TLS 1.2 and 1.3. The server adds its protocols.
    ///
    /// # Errors
    /// When the build lacks what TLS needs.
    pub(crate) fn server_config(self: &Arc<Self>) -> anyhow::Result<ServerConfig> {
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(config.with_no_client_auth().with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>))
    }
}

impl ResolvesServerCert for ServedCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn text(problems: &[crate::config::ConfigError]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
