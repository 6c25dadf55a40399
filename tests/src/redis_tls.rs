//! [`RedisTlsServer`]: servers that speak TLS, with certificates of the test's own.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use realtime_redis::{RedisConfig, RedisTls, Topology};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::{
    redis_process::{LOGIN, RedisProcess, free_port},
    within,
};

/// An authority that signs certificates, in a folder of its own.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
}

impl Authority {
    /// Creates an authority that no client trusts yet, with a certificate for servers on 127.0.0.1 and one for clients.
    pub fn new() -> Self {
        let authority = Self { folder: tempfile::tempdir().unwrap() };
        authority.make("ca", &["-addext", "basicConstraints=critical,CA:TRUE"]);
        // Servers and sentinels are clients of each other.
        for (name, usage) in [("server", "serverAuth,clientAuth"), ("client", "clientAuth")] {
            let usage = format!("extendedKeyUsage={usage}");
            let (ca, key) = (authority.path("ca.crt"), authority.path("ca.key"));
            let signed = ["-CA", ca.to_str().unwrap(), "-CAkey", key.to_str().unwrap()];
            let names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"];
            let leaf = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", &usage];
            authority.make(name, &[signed.as_slice(), &names, &leaf].concat());
        }
        authority
    }

    /// A file of it: `ca`, `server` or `client`, `.crt` or `.key`.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// TLS settings of a client that trusts this authority.
    pub fn trusted(&self) -> RedisTls {
        RedisTls::default().ca(fs::read(self.path("ca.crt")).unwrap()).unwrap()
    }

    /// The same of a client that this authority has signed.
    pub fn signed(&self) -> RedisTls {
        let [chain, key] = ["client.crt", "client.key"].map(|file| fs::read(self.path(file)).unwrap());
        self.trusted().client(chain, key).unwrap()
    }

    fn make(&self, name: &str, arguments: &[&str]) {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        openssl.args(["-days", "2", "-subj", &format!("/CN={name} {:x}", rand::random::<u64>())]);
        openssl.arg("-keyout").arg(self.path(&format!("{name}.key")));
        openssl.arg("-out").arg(self.path(&format!("{name}.crt")));
        let made = openssl.args(arguments).stderr(Stdio::null()).status();
        assert!(made.expect("openssl is installed").success(), "{name}");
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

/// A redis-server that accepts TLS clients, and clients in plain text on another port.
#[derive(Debug)]
pub struct RedisTlsServer {
    process: RedisProcess,
    port: u16,
}

impl RedisTlsServer {
    /// Starts a server that speaks such versions only, such as `TLSv1.3`, and asks clients for certificates.
    pub async fn start(authority: &Authority, versions: &str) -> Self {
        Self::start_with(authority, &["--tls-protocols", versions]).await
    }

    /// Starts one node that is a whole cluster.
    pub async fn start_cluster(authority: &Authority) -> Self {
        let server = Self::start_with(authority, &["--cluster-enabled", "yes", "--tls-cluster", "yes"]).await;
        assert_eq!(server.process.cli(&["cluster", "addslotsrange", "0", "16383"]), "OK");
        within("the cluster to be ready", async {
            while !server.process.cli(&["cluster", "info"]).contains("cluster_state:ok") {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        server
    }

    async fn start_with(authority: &Authority, arguments: &[&str]) -> Self {
        let port = free_port();
        let mut all = tls(authority, port);
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        let process = RedisProcess::server(&all);
        process.answers().await;
        Self { process, port }
    }

    /// Starts a sentinel that speaks TLS only, with clients and this server; returns it and how clients find both.
    pub async fn watched(&self, authority: &Authority) -> (RedisProcess, Topology) {
        let port = free_port();
        let lines = tls(authority, port);
        let lines = lines.chunks_exact(2).map(|pair| format!("{} {}\n", &pair[0][2..], pair[1]));
        let lines: String = lines.collect();
        let lines =
            format!("{lines}tls-replication yes\nsentinel monitor mymaster 127.0.0.1 {} 1\n", self.port);
        let sentinel = RedisProcess::sentinel(&lines);
        sentinel.answers().await;
        let topology = Topology::Sentinel {
            sentinels: vec![format!("rediss://127.0.0.1:{port}/")],
            service: "mymaster".to_owned(),
            server: format!("rediss://{LOGIN}@127.0.0.1/"),
        };
        (sentinel, topology)
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("rediss://{LOGIN}@127.0.0.1:{}/", self.port)
    }

    /// Configuration of a client with these TLS settings.
    pub fn config(&self, tls: RedisTls) -> RedisConfig {
        RedisConfig::single(self.url()).tls(tls)
    }
}

fn tls(authority: &Authority, port: u16) -> Vec<String> {
    let path = |file| authority.path(file).display().to_string();
    let options = [
        ("--tls-port", port.to_string()),
        ("--tls-cert-file", path("server.crt")),
        ("--tls-key-file", path("server.key")),
        ("--tls-ca-cert-file", path("ca.crt")),
        ("--tls-auth-clients", "yes".to_owned()),
    ];
    options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}
