//! [`RedisConfig::probe`]: tries the servers of a configuration, and tells lasting errors from passing ones.

use std::{error::Error, fmt, io, sync::Arc, time::Duration};

use redis::{
    ConnectionAddr, ConnectionInfo, ErrorKind, InfoDict, RedisError, RedisResult, ServerErrorKind, Value,
};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Error as TlsError, RootCertStore, pki_types::ServerName,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    config::{RedisConfig, RedisConfigError, Topology, parse},
    master::{MasterLookup, is_master, open},
    tls::install_provider,
};

/// A server that has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisProbe {
    /// Its version, such as `7.0.15`; `None` if the user may not ask for it.
    pub version: Option<String>,
    /// `false` for a replica, to which nothing can be written; `None` if the user may not ask for it.
    pub is_master: Option<bool>,
}

/// Reason for which no server could be used. Its text shows no password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
#[non_exhaustive]
pub struct RedisProbeError {
    /// The dotted key whose value is to be looked at, below the section.
    pub key: &'static str,
    /// The problem.
    pub problem: String,
    /// `true` if another attempt fails as well until the configuration, or that of the server, is changed: password,
    /// database, TLS, something that is not Redis. `false` for what may pass by itself: a refused connection, no answer.
    pub is_permanent: bool,
}

impl RedisProbeError {
    /// An error that may pass.
    pub fn new(key: &'static str, problem: impl Into<String>) -> Self {
        Self { key, problem: problem.into(), is_permanent: false }
    }
}

impl RedisConfig {
    /// Connects once, sends a `PING`, and returns what the server says about itself. Nothing is written.
    ///
    /// It takes as long as opening a connection and [`Self::command_timeout`] allow.
    ///
    /// # Errors
    /// [`RedisProbeError`] if no server could be used.
    pub async fn probe(&self) -> Result<RedisProbe, RedisProbeError> {
        let lookup = MasterLookup::new(self).map(Arc::new).map_err(|error| RedisProbeError {
            key: error.key().unwrap_or("url"),
            problem: error.to_string(),
            is_permanent: true,
        })?;
        let asked = match self.topology {
            Topology::Single(_) => "url",
            Topology::Sentinel { .. } | Topology::Cluster(_) => "nodes",
        };
        // The server itself is what the sentinels name, with what its own URL says.
        let served = if matches!(self.topology, Topology::Cluster(_)) { "nodes" } else { "url" };
        let limit = self.command_timeout.saturating_add(Duration::from_secs(1));
        let master = timeout(limit, lookup.master(&self.tag("probe"))).await;
        let master = master.map_err(|_| late(asked, limit))?.map_err(|error| classify(asked, &error))?;
        let address = master.addr().to_string();
        let answer = timeout(limit.saturating_mul(2), ask(master.clone(), self.command_timeout)).await;
        let answer = answer.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        let mut error = match answer {
            Ok(probe) => return Ok(probe),
            Err(error) => classify(served, &error),
        };
        // A server that expects the other of the two says nothing, or ends the connection.
        if !error.is_permanent && speaks_the_other(master.addr(), self.command_timeout).await {
            let problem = match master.addr() {
                ConnectionAddr::TcpTls { .. } => "what answers there does not speak TLS",
                _ => "what answers there speaks TLS only",
            };
            error = RedisProbeError { key: served, problem: problem.to_owned(), is_permanent: true };
        }
        Err(RedisProbeError { problem: format!("{address}: {}", error.problem), ..error })
    }

    /// Checks the URLs and reads the files that are named, and returns all problems.
    pub fn check_files(&self) -> Vec<RedisConfigError> {
        match MasterLookup::check(&self.topology) {
            Ok(()) => self.tls.problems(),
            Err(error) => vec![error],
        }
    }

    /// The servers' addresses for people, without users and passwords: `redis://127.0.0.1:6379/0`.
    pub fn addresses(&self) -> String {
        let all = |urls: &[String]| urls.iter().map(|url| address(url)).collect::<Vec<_>>().join(", ");
        match &self.topology {
            Topology::Single(url) => address(url),
            Topology::Sentinel { sentinels, service, .. } => {
                format!("{service} of the sentinels {}", all(sentinels))
            }
            Topology::Cluster(nodes) => format!("the cluster of {}", all(nodes)),
        }
    }
}

/// The address in a URL, which has no credentials.
fn address(url: &str) -> String {
    let Ok(info) = parse("the server", url) else { return "a server that cannot be read".to_owned() };
    let scheme = if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) { "rediss" } else { "redis" };
    format!("{scheme}://{}/{}", info.addr(), info.redis_settings().db())
}

async fn ask(server: ConnectionInfo, limit: Duration) -> RedisResult<RedisProbe> {
    let mut connection = open(server, limit).await?;
    let () = redis::cmd("PING").query_async::<Value>(&mut connection).await.map(drop)?;
    // A user who may not ask may still be good for everything else.
    let info: Option<InfoDict> = redis::cmd("INFO").arg("server").query_async(&mut connection).await.ok();
    let role: Option<Value> = redis::cmd("ROLE").query_async(&mut connection).await.ok();
    Ok(RedisProbe {
        version: info.and_then(|info| info.get("redis_version")),
        is_master: role.as_ref().map(is_master),
    })
}

/// Returns `true` if a server that should speak TLS answers as Redis does in clear, or the other way round. It is sent no
/// password.
async fn speaks_the_other(addr: &ConnectionAddr, limit: Duration) -> bool {
    let (host, port, question, answers): (_, _, _, fn(u8) -> bool) = match addr {
        ConnectionAddr::TcpTls { host, port, .. } => {
            (host, *port, b"PING\r\n".to_vec(), |first| matches!(first, b'+' | b'-'))
        }
        ConnectionAddr::Tcp(host, port) => match hello(host) {
            // Records of a handshake and of an alert: RFC 8446, section 5.1.
            Some(hello) => (host, *port, hello, |first| matches!(first, 0x16 | 0x15)),
            None => return false,
        },
        _ => return false,
    };
    let first = async {
        let mut socket = TcpStream::connect((host.as_str(), port)).await?;
        socket.write_all(&question).await?;
        socket.read_u8().await
    };
    matches!(timeout(limit, first).await, Ok(Ok(first)) if answers(first))
}

/// The begin of a TLS handshake.
fn hello(host: &str) -> Option<Vec<u8>> {
    install_provider();
    let roots = RootCertStore::empty();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let mut connection = ClientConnection::new(Arc::new(config), name).ok()?;
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).ok()?;
    Some(bytes)
}

fn late(key: &'static str, limit: Duration) -> RedisProbeError {
    RedisProbeError { key, problem: format!("no answer within {limit:?}"), is_permanent: false }
}

fn classify(key: &'static str, error: &RedisError) -> RedisProbeError {
    let permanent = |key, problem: String| RedisProbeError { key, problem, is_permanent: true };
    let passing = |problem: String| RedisProbeError { key, problem, is_permanent: false };
    if let Some(error) = tls_error(error) {
        return match error {
            TlsError::InvalidMessage(_) => {
                permanent(key, format!("what answers there does not speak TLS: {error}"))
            }
            TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => permanent(key, format!("its certificate is that of another name: {error}")),
            TlsError::InvalidCertificate(_) => {
                permanent("tls.caFile", format!("its certificate is not trusted: {error}"))
            }
            TlsError::AlertReceived(_) => {
                permanent("tls.certFile", format!("it has refused the TLS handshake: {error}"))
            }
            _ => permanent(key, format!("TLS: {error}")),
        };
    }
    let text = error.to_string();
    match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("WRONGPASS" | "NOAUTH")) => {
            let problem = if text.contains("NOAUTH") {
                "it asks for a password, and the URL has none"
            } else {
                "it refuses the user or the password of the URL"
            };
            permanent(key, problem.to_owned())
        }
        (ErrorKind::Server(ServerErrorKind::NoPerm), _) => {
            permanent(key, format!("the user of the URL may not do this: {text}"))
        }
        (_, Some("LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "READONLY")) => {
            passing(text)
        }
        (ErrorKind::Parse | ErrorKind::UnexpectedReturnType, _) => {
            permanent(key, format!("what answers there is no Redis: {text}"))
        }
        (ErrorKind::Io, _) if error.is_timeout() => passing("no answer in time".to_owned()),
        (ErrorKind::Io, _) => passing(text),
        (ErrorKind::Client, _) => passing(text),
        _ if text.contains("DB index") || text.contains("SELECT") || text.contains("database") => {
            permanent(key, format!("it has no such database: {text}"))
        }
        _ => permanent(key, text),
    }
}

/// The error of rustls that is the cause.
fn tls_error(error: &RedisError) -> Option<&TlsError> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // What the client shares, and what an I/O error wraps, is not among the sources.
        let shared = error.downcast_ref::<Arc<dyn Error + Send + Sync>>().map(|error| &**error);
        let wrapped = error.downcast_ref::<io::Error>().and_then(|error| error.get_ref());
        let inner = shared.or(wrapped).map(|inner| inner as &(dyn Error + 'static));
        next = inner.or_else(|| error.source());
    }
    None
}

impl fmt::Display for RedisProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "Redis {version}"),
            None => f.write_str("Redis"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_no_credentials() {
        let single = |url: &str| RedisConfig::single(url).addresses();
        assert_eq!(single("redis://user:hunter2@cache:7000/3"), "redis://cache:7000/3");
        assert_eq!(single("rediss://:hunter2@cache"), "rediss://cache:6379/0");
        let sentinel = Topology::Sentinel {
            sentinels: vec!["redis://:hunter2@a:1/".to_owned(), "redis://b/".to_owned()],
            service: "mymaster".to_owned(),
            server: "redis://:hunter2@c/".to_owned(),
        };
        assert_eq!(
            RedisConfig::new(sentinel).addresses(),
            "mymaster of the sentinels redis://a:1/0, redis://b:6379/0"
        );
    }

    #[tokio::test]
    async fn a_refused_connection_may_pass() {
        // Nothing listens on port 1.
        let error = RedisConfig::single("redis://:hunter2@127.0.0.1:1/").probe().await;
        let error = error.unwrap_err();
        assert!(!error.is_permanent && error.key == "url", "{error}");
        assert!(error.problem.starts_with("127.0.0.1:1: "), "{error}");
    }
}
