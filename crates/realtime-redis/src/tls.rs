//! [`RedisTls`]: the trusted authorities and the client certificate of a `rediss` connection.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use redis::{Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, RedisResult, TlsCertificates};
#[cfg(feature = "sa-token")]
use redis::{TlsMode, cluster::ClusterClientBuilder};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde::Deserialize;

use crate::config::RedisConfigError;

/// Settings of connections whose URL begins with `rediss`, over TLS 1.2 or 1.3.
///
/// By default the authorities of the operating system are trusted (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others), and no
/// client certificate is sent.
///
/// It deserializes from a section with the keys `caFile`, `certFile` and `keyFile`, which name files in PEM, and `insecure`.
/// The files are read when a bus or another part is made.
#[derive(Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RedisTls {
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    insecure: bool,
    #[serde(skip)]
    ca: Option<Vec<u8>>,
    #[serde(skip)]
    client: Option<ClientTlsConfig>,
}

impl PartialEq for RedisTls {
    fn eq(&self, other: &Self) -> bool {
        let client = |tls: &Self| {
            tls.client.as_ref().map(|client| (client.client_cert.clone(), client.client_key.clone()))
        };
        let files = |tls: &Self| (tls.ca_file.clone(), tls.cert_file.clone(), tls.key_file.clone());
        files(self) == files(other)
            && self.ca == other.ca
            && self.insecure == other.insecure
            && client(self) == client(other)
    }
}

/// An unusable certificate or key. The message contains nothing of it.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisTlsError {
    /// The authorities.
    #[error("no usable certificate of an authority in PEM: {0}")]
    Ca(String),
    /// The client certificate.
    #[error("no usable client certificate in PEM: {0}")]
    Certificate(String),
    /// The key of the client certificate.
    #[error("no usable private key in PEM: {0}")]
    Key(String),
    /// Both are valid, but do not belong together.
    #[error("the private key is not that of the client certificate: {0}")]
    Mismatch(String),
}

impl RedisTls {
    /// Trusts only these authorities, one or several certificates in PEM.
    ///
    /// # Errors
    /// [`RedisTlsError::Ca`].
    pub fn ca(mut self, pem: impl Into<Vec<u8>>) -> Result<Self, RedisTlsError> {
        let pem = pem.into();
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&pem).map_err(RedisTlsError::Ca)? {
            roots.add(certificate).map_err(|error| RedisTlsError::Ca(error.to_string()))?;
        }
        self.ca = Some(pem);
        Ok(self)
    }

    /// Sends a client certificate: the chain, its own certificate first, and its private key, both in PEM.
    ///
    /// # Errors
    /// [`RedisTlsError`] if one of them cannot be read, or they do not belong together.
    pub fn client(
        mut self,
        chain: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Result<Self, RedisTlsError> {
        let client = ClientTlsConfig { client_cert: chain.into(), client_key: key.into() };
        let chain = certificates(&client.client_cert).map_err(RedisTlsError::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&client.client_key)
            .map_err(|error| RedisTlsError::Key(error.to_string()))?;
        install_provider();
        ClientConfig::builder()
            .with_root_certificates(RootCertStore::empty())
            .with_client_auth_cert(chain, key)
            .map_err(|error| RedisTlsError::Mismatch(error.to_string()))?;
        self.client = Some(client);
        Ok(self)
    }

    /// Accepts any certificate: the connection is encrypted, but the server is not authenticated. For tests.
    #[must_use]
    pub fn insecure(mut self) -> Self {
        self.insecure = true;
        self
    }

    /// Returns whether any certificate is accepted.
    pub fn is_insecure(&self) -> bool {
        self.insecure
    }

    /// Checks the keys of a section against each other.
    pub(crate) fn check(&self, over_tls: bool) -> Result<(), RedisConfigError> {
        let fail = |key, problem: String| Err(RedisConfigError::Key { key, problem });
        let Self { ca_file, cert_file, key_file, insecure, .. } = self;
        for (key, given, other, missing) in [
            ("tls.certFile", cert_file.is_some(), "tls.keyFile", key_file.is_none()),
            ("tls.keyFile", key_file.is_some(), "tls.certFile", cert_file.is_none()),
        ] {
            if given && missing {
                return fail(key, format!("goes with {other}, which is missing"));
            }
        }
        if *insecure && ca_file.is_some() {
            return fail("tls.insecure", "trusts everybody, and tls.caFile does not".to_owned());
        }
        let keys = [
            ("tls.caFile", ca_file.is_some()),
            ("tls.certFile", cert_file.is_some()),
            ("tls.insecure", *insecure),
        ];
        match keys.into_iter().find(|(_, given)| *given) {
            Some((key, _)) if !over_tls => {
                fail(key, "goes with a URL that begins with `rediss:`, and there is none".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Reads the files that a section names.
    pub(crate) fn load(&self) -> Result<Self, RedisConfigError> {
        self.load_authorities()?.load_client()
    }

    /// The problems of the files that a section names.
    pub(crate) fn problems(&self) -> Vec<RedisConfigError> {
        [self.load_authorities(), self.load_client()].into_iter().filter_map(Result::err).collect()
    }

    fn load_authorities(&self) -> Result<Self, RedisConfigError> {
        let Some(file) = &self.ca_file else { return Ok(self.clone()) };
        let tls = self.clone().ca(read("tls.caFile", file)?);
        tls.map_err(|error| unusable("tls.caFile", file, &error))
    }

    fn load_client(&self) -> Result<Self, RedisConfigError> {
        let (Some(certificate), Some(key)) = (&self.cert_file, &self.key_file) else {
            return Ok(self.clone());
        };
        let pem = (read("tls.certFile", certificate)?, read("tls.keyFile", key)?);
        self.clone().client(pem.0, pem.1).map_err(|error| match error {
            RedisTlsError::Certificate(_) => unusable("tls.certFile", certificate, &error),
            _ => unusable("tls.keyFile", key, &error),
        })
    }

    /// Applies these settings to a connection, if it is one over TLS.
    pub(crate) fn apply(&self, connection: ConnectionInfo) -> RedisResult<ConnectionInfo> {
        let ConnectionAddr::TcpTls { .. } = connection.addr() else { return Ok(connection) };
        let client = Client::build_with_tls(connection, self.certificates())?;
        let connection = client.get_connection_info().clone();
        let mut addr = connection.addr().clone();
        if let ConnectionAddr::TcpTls { insecure, .. } = &mut addr {
            *insecure |= self.insecure;
        }
        Ok(connection.set_addr(addr))
    }

    /// Applies these settings to the client of a cluster, which discovers most of its servers itself.
    #[cfg(feature = "sa-token")]
    pub(crate) fn certify(&self, client: ClusterClientBuilder) -> ClusterClientBuilder {
        let client = client.certs(self.certificates());
        if self.insecure { client.tls(TlsMode::Insecure) } else { client }
    }

    fn certificates(&self) -> TlsCertificates {
        TlsCertificates { client_tls: self.client.clone(), root_cert: self.ca.clone() }
    }
}

/// Installs a cryptography provider unless the application has chosen one: without it rustls panics.
pub(crate) fn install_provider() {
    if CryptoProvider::get_default().is_none() {
        // Another thread may have installed one in between, which is fine.
        ring::default_provider().install_default().ok();
    }
}

fn read(key: &'static str, file: &Path) -> Result<Vec<u8>, RedisConfigError> {
    fs::read(file).map_err(|error| unusable(key, file, &error))
}

fn unusable(key: &'static str, file: &Path, problem: &dyn fmt::Display) -> RedisConfigError {
    RedisConfigError::File { key, file: file.to_owned(), problem: problem.to_string() }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match all {
        Ok(all) if all.is_empty() => Err("the text contains none".to_owned()),
        all => all.map_err(|error| error.to_string()),
    }
}

impl fmt::Debug for RedisTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTls")
            .field("own_ca", &(self.ca.is_some() || self.ca_file.is_some()))
            .field("client_certificate", &(self.client.is_some() || self.cert_file.is_some()))
            .field("insecure", &self.insecure)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_certificates_and_keys_are_rejected_with_a_reason() {
        for invalid in ["", "hello", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            let error = RedisTls::default().ca(invalid).unwrap_err();
            assert_eq!(error, RedisTlsError::Ca("the text contains none".to_owned()), "{invalid}");
        }
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(RedisTls::default().ca(garbage), Err(RedisTlsError::Ca(_))));
        assert!(matches!(RedisTls::default().client("", ""), Err(RedisTlsError::Certificate(_))));
        assert!(matches!(RedisTls::default().client(garbage, ""), Err(RedisTlsError::Key(_))));
    }
}
