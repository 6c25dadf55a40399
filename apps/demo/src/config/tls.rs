//! [`Tls`]: the section `server.tls`.

use std::path::{Path, PathBuf};

use rustls::{
    Error, InconsistentKeys,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use serde::{Deserialize, Deserializer, de};

use super::ConfigError;

/// The files that the server speaks TLS with; none for HTTP in clear.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate, followed by what signed it, in PEM.
    #[serde(deserialize_with = "file")]
    pub cert: Option<PathBuf>,
    /// Its private key, in PEM.
    #[serde(deserialize_with = "file")]
    pub key: Option<PathBuf>,
}

const CERT: &str = "server.tls.cert";
const KEY: &str = "server.tls.key";

impl Tls {
    /// Reads the files and checks that they belong together; `None` if none are named.
    ///
    /// # Errors
    /// All problems, each with its key and file.
    pub(crate) fn load(&self) -> Result<Option<CertifiedKey>, Vec<ConfigError>> {
        let (cert, key) = match (&self.cert, &self.key) {
            (None, None) => return Ok(None),
            (Some(cert), Some(key)) => (cert, key),
            (Some(_), None) => return Err(vec![missing(CERT, KEY)]),
            (None, Some(_)) => return Err(vec![missing(KEY, CERT)]),
        };
        let (chain, private) = (certificates(cert), private_key(key));
        let (chain, private) = match (chain, private) {
            (Ok(chain), Ok(private)) => (chain, private),
            (chain, private) => return Err([chain.err(), private.err()].into_iter().flatten().collect()),
        };
        CertifiedKey::from_der(chain, private, &ring::default_provider()).map(Some).map_err(|error| {
            vec![match error {
                Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    let problem =
                        format!("it is not the key of the certificate `{}` ({CERT})", cert.display());
                    unusable(KEY, key, problem)
                }
                Error::InvalidCertificate(_) => unusable(CERT, cert, error),
                error => unusable(KEY, key, error),
            }]
        })
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let chain = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match chain {
        Ok(chain) if chain.is_empty() => Err(unusable(CERT, file, "no certificate in PEM is in it")),
        chain => chain.map_err(|error| unusable(CERT, file, problem(error))),
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, ConfigError> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| unusable(KEY, file, problem(error)))
}

/// Text of an error, which contains nothing of the file.
fn problem(error: rustls::pki_types::pem::Error) -> String {
    use rustls::pki_types::pem::Error;
    match error {
        Error::Io(error) => error.to_string(),
        Error::NoItemsFound => "no private key in PEM is in it".to_owned(),
        _ => "it is no PEM".to_owned(),
    }
}

fn unusable(key: &str, file: &Path, problem: impl std::fmt::Display) -> ConfigError {
    ConfigError::at(key, format!("`{}`: {problem}", file.display()))
}

fn missing(given: &str, other: &str) -> ConfigError {
    ConfigError::at(given, format!("goes with {other}, which is missing"))
}

fn file<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let file = Option::<PathBuf>::deserialize(deserializer)?;
    if file.as_ref().is_some_and(|file| file.as_os_str().is_empty()) {
        return Err(de::Error::custom("must not be empty; leave the key out for none"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{load, refused};

    #[test]
    fn files_that_cannot_be_used_are_named_with_their_keys() {
        let none = load(None, &[]).server.tls;
        assert!(none.load().unwrap().is_none());
        let this = file!().rsplit('/').next().unwrap();
        let this = format!("{}/src/config/{this}", env!("CARGO_MANIFEST_DIR"));
        let (cert, key) = ("REALTIME__SERVER__TLS__CERT", "REALTIME__SERVER__TLS__KEY");
        for (variables, problems) in [
            (
                vec![(cert, "a.pem")],
                vec![format!(
                    "server.tls.cert (environment variable {cert}): goes with server.tls.key, which is missing"
                )],
            ),
            (
                vec![(key, "a.pem")],
                vec![format!(
                    "server.tls.key (environment variable {key}): goes with server.tls.cert, which is missing"
                )],
            ),
            (
                vec![(cert, "")],
                vec![format!(
                    "server.tls.cert (environment variable {cert}): must not be empty; leave the key out for none"
                )],
            ),
            (
                vec![(cert, "no/such.pem"), (key, &this)],
                vec![
                    format!(
                        "server.tls.cert (environment variable {cert}): `no/such.pem`: No such file or directory (os error 2)"
                    ),
                    format!(
                        "server.tls.key (environment variable {key}): `{this}`: no private key in PEM is in it"
                    ),
                ],
            ),
            (
                vec![(cert, &this), (key, "no/such.pem")],
                vec![
                    format!(
                        "server.tls.cert (environment variable {cert}): `{this}`: no certificate in PEM is in it"
                    ),
                    format!(
                        "server.tls.key (environment variable {key}): `no/such.pem`: No such file or directory (os error 2)"
                    ),
                ],
            ),
        ] {
            assert_eq!(refused(None, &variables), problems.join("\n"));
        }
    }
}
