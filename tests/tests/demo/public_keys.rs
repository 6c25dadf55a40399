//! Logins by the keys of another issuer: files, and a key set on the web whose keys change.

use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use realtime_tests::{Authority, Demo, EventStream, Socket, within};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    time::sleep,
};
use tokio_rustls::TlsAcceptor;

const RSA: &str = include_str!("../../../crates/realtime-core/tests/keys/rsa.pem");
const RSA_PUBLIC: &str = "../crates/realtime-core/tests/keys/rsa.pub.pem";
const P256: &str = include_str!("../../../crates/realtime-core/tests/keys/p256.pem");
const P256_PUBLIC: &str = include_str!("../../../crates/realtime-core/tests/keys/p256.pub.pem");
const RSA_FILE: &str = "../crates/realtime-core/tests/keys/rsa.pem";
const P256_PRIVATE_FILE: &str = "../crates/realtime-core/tests/keys/p256.pem";
const P256_FILE: &str = "../crates/realtime-core/tests/keys/p256.pub.pem";

fn key(algorithm: Algorithm, pem: &str) -> EncodingKey {
    match algorithm {
        Algorithm::HS256 => EncodingKey::from_secret(pem.as_bytes()),
        Algorithm::ES256 => EncodingKey::from_ec_pem(pem.as_bytes()).unwrap(),
        _ => EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap(),
    }
}

/// A token of user 1.
fn token(algorithm: Algorithm, pem: &str, kid: &str) -> String {
    let exp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 600;
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(algorithm) };
    // Tokens are cached by their text.
    let claims = json!({ "sub": "1", "exp": exp, "jti": rand::random::<u64>().to_string() });
    jsonwebtoken::encode(&header, &claims, &key(algorithm, pem)).unwrap()
}

/// The statuses of a WebSocket and of a stream; 0 for one that opens.
async fn statuses(demo: &Demo, token: &str) -> [u16; 2] {
    let socket = Socket::open(demo, token, &[], None).await.err().unwrap_or_default();
    [socket, EventStream::open(demo, token, None).await.err().unwrap_or_default()]
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !condition().await {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

/// An issuer's web server.
#[derive(Default)]
struct Issuer {
    set: Mutex<Option<String>>,
    requests: AtomicUsize,
}

impl Issuer {
    fn put(&self, keys: &[(&str, Algorithm, &str)]) {
        let jwk = |(kid, algorithm, pem): &(&str, Algorithm, &str)| {
            let mut jwk = Jwk::from_encoding_key(&key(*algorithm, pem), *algorithm).unwrap();
            jwk.common.key_id = Some((*kid).to_owned());
            jwk
        };
        let keys: Vec<_> = keys.iter().map(jwk).collect();
        *self.set.lock().unwrap() = Some(json!({ "keys": keys }).to_string());
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Serves the set; 503 without one. Returns the port.
    async fn serve(self: &Arc<Self>, tls: Option<TlsAcceptor>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let issuer = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (issuer, tls) = (Arc::clone(&issuer), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(tcp).await {
                                issuer.answer(stream).await;
                            }
                        }
                        None => issuer.answer(tcp).await,
                    }
                });
            }
        });
        port
    }

    async fn answer(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut head = [0; 4096];
        if stream.read(&mut head).await.unwrap_or_default() == 0 {
            return;
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        let set = self.set.lock().unwrap().clone();
        let (status, body) = set.map_or(("503 Away", String::new()), |set| ("200 OK", set));
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await.ok();
        stream.shutdown().await.ok();
    }
}

/// Has the demo make a token of user 1 with these variables. Returns it, or what it says instead.
fn generated(arguments: &[&str], variables: &[(&str, &str)]) -> Result<String, String> {
    let mut command = std::process::Command::new(Demo::binary());
    command.args(["gen-token", "--user", "1"]).args(arguments).envs(variables.iter().copied());
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().trim().to_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_made_with_a_private_key_are_accepted_by_a_node_that_has_the_public_one() {
    let keys = format!("rsa={RSA_PUBLIC},{P256_FILE}");
    let variables = [
        ("REALTIME__AUTH__JWT__PUBLICKEYS", keys.as_str()),
        ("REALTIME__AUTH__JWT__ISSUER", "us"),
        ("REALTIME__AUTH__JWT__AUDIENCE", "push"),
    ];
    let demo = Demo::start_with(&variables).await;
    let named: &[&str] = &["--key", RSA_FILE, "--key-id", "rsa"];
    for (arguments, algorithm, kid) in [
        (named, Algorithm::RS256, Some("rsa")),
        (&["--key", RSA_FILE], Algorithm::RS256, None),
        (&["--key", P256_PRIVATE_FILE], Algorithm::ES256, None),
    ] {
        let token = generated(arguments, &variables).unwrap();
        let header = jsonwebtoken::decode_header(&token).unwrap();
        assert_eq!((header.alg, header.kid.as_deref()), (algorithm, kid));
        assert_eq!(statuses(&demo, &token).await, [0, 0], "{arguments:?}");
    }
    let only_pss = [variables[0], ("REALTIME__AUTH__JWT__ALGORITHMS", "PS384,ES256")];
    let token = generated(named, &only_pss).unwrap();
    assert_eq!(jsonwebtoken::decode_header(&token).unwrap().alg, Algorithm::PS384);
    // The secret's tokens name issuer and audience, too.
    let secret = [variables[1], variables[2], ("REALTIME__AUTH__JWT__SECRET", realtime_tests::SECRET)];
    assert_eq!(statuses(&demo, &generated(&[], &secret).unwrap()).await, [0, 0]);
}

#[test]
fn a_key_whose_tokens_no_node_would_accept_makes_none() {
    let rsa = ("REALTIME__AUTH__JWT__PUBLICKEYS", RSA_PUBLIC);
    let other = "../crates/realtime-core/tests/keys/other-rsa.pem";
    let not_es = [rsa, ("REALTIME__AUTH__JWT__ALGORITHMS", "PS256")];
    for (file, variables, expected) in [
        (RSA_FILE, &[][..], "neither auth.jwt.publicKeys nor auth.jwt.jwks is configured"),
        (other, &[rsa], "auth.jwt.publicKeys do not accept the token: token signature is wrong"),
        (P256_PRIVATE_FILE, &not_es, "the key cannot be used with PS256"),
        (RSA_PUBLIC, &[rsa], "no private key in PEM form"),
        ("/nowhere.pem", &[rsa], "No such file"),
    ] {
        let problem = generated(&["--key", file], variables).unwrap_err();
        assert!(problem.contains(expected) && problem.contains("--key"), "{file}: {problem}");
        assert!(!problem.contains("BEGIN PRIVATE KEY-----\n"), "{problem}");
    }
    assert!(generated(&["--key-id", "a"], &[]).unwrap_err().contains("--key"), "an id alone is nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_files_admit_their_tokens_and_no_others() {
    let keys = format!("rsa={RSA_PUBLIC},{P256_FILE}");
    let settings =
        [("REALTIME__AUTH__JWT__PUBLICKEYS", &*keys), ("REALTIME__AUTH__JWT__ALGORITHMS", "RS256, ES256")];
    let demo = Demo::start_with(&settings).await;
    for (token, expected) in [
        (token(Algorithm::RS256, RSA, "rsa"), 0),
        (token(Algorithm::ES256, P256, "any"), 0),
        (realtime_tests::token(1), 0),
        (token(Algorithm::RS512, RSA, "rsa"), 401),
        (token(Algorithm::RS256, RSA, "other"), 401),
        (token(Algorithm::ES256, P256, "rsa"), 401),
        (token(Algorithm::HS256, P256_PUBLIC, "any"), 401),
        (token(Algorithm::HS256, P256_PUBLIC.trim(), "any"), 401),
        ("eyJhbGciOiJub25lIn0.eyJzdWIiOjEsImV4cCI6OTk5OTk5OTk5OX0.".to_owned(), 401),
    ] {
        assert_eq!(statuses(&demo, &token).await, [expected; 2], "{token}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_web_address_rotate_and_unknown_ones_cause_few_requests() {
    let issuer = Arc::new(Issuer::default());
    issuer.put(&[("old", Algorithm::RS256, RSA)]);
    let url = format!("http://127.0.0.1:{}/keys", issuer.serve(None).await);
    let settings = [
        ("REALTIME__AUTH__JWT__JWKS__URL", &*url),
        ("REALTIME__AUTH__JWT__JWKS__REFRESH", "1h"),
        ("REALTIME__AUTH__JWT__JWKS__COOLDOWN", "2s"),
    ];
    let demo = Demo::start_with(&settings).await;
    let (old, new) = (token(Algorithm::RS256, RSA, "old"), token(Algorithm::ES256, P256, "new"));
    assert_eq!(statuses(&demo, &old).await, [0, 0]);
    for n in 0..20 {
        let unknown = token(Algorithm::ES256, P256, &n.to_string());
        assert_eq!(statuses(&demo, &unknown).await, [401, 401]);
    }
    let (before, _) = (issuer.requests(), issuer.put(&[("new", Algorithm::ES256, P256)]));
    assert!(before <= 4, "{before} requests for 40 handshakes");
    until("the new key to be fetched", async || statuses(&demo, &new).await == [0, 0]).await;
    assert_eq!(statuses(&demo, &old).await, [401, 401], "a key that was removed");
    // The keys stay when the issuer is away, and those it might have are not refused for good.
    *issuer.set.lock().unwrap() = None;
    until("the issuer to be asked in vain", async || {
        Socket::open(&demo, &token(Algorithm::RS256, RSA, "old"), &[], None).await.err() == Some(503)
    })
    .await;
    assert_eq!(statuses(&demo, &new).await, [0, 0]);
    // An event stream is asked to come back.
    let (status, body) = demo.get(&format!("/resource/sse?Authorization={old}")).await;
    assert!(status == 200 && body.starts_with(":disconnected\nretry:"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_secure_address_come_from_a_trusted_server_alone() {
    let authority = Authority::new();
    let (cert, pem) = (authority.path("server.crt"), authority.path("server.key"));
    let chain: Vec<_> = CertificateDer::pem_file_iter(cert).unwrap().map(Result::unwrap).collect();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_no_client_auth();
    let config = config.with_single_cert(chain, PrivateKeyDer::from_pem_file(pem).unwrap()).unwrap();
    let issuer = Arc::new(Issuer::default());
    issuer.put(&[("rsa", Algorithm::RS256, RSA)]);
    let port = issuer.serve(Some(TlsAcceptor::from(Arc::new(config)))).await;
    let url = format!("https://127.0.0.1:{port}/keys");
    let (trusted, other) = (authority.path("ca.crt"), Authority::new());
    for (authorities, expected) in [(trusted, [0, 0]), (other.path("ca.crt"), [503, 200])] {
        let settings =
            [("REALTIME__AUTH__JWT__JWKS__URL", &*url), ("SSL_CERT_FILE", authorities.to_str().unwrap())];
        let demo = Demo::start_with(&settings).await;
        let token = token(Algorithm::RS256, RSA, "rsa");
        let socket = Socket::open(&demo, &token, &[], None).await.err().unwrap_or_default();
        assert_eq!(socket, expected[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_keys_is_read_again_and_logins_are_made_elsewhere() {
    let issuer = Issuer::default();
    let folder = tempfile::tempdir().unwrap();
    let (file, config) = (folder.path().join("keys.json"), folder.path().join("app.yml"));
    let write = |keys: &[(&str, Algorithm, &str)]| {
        issuer.put(keys);
        fs::write(&file, issuer.set.lock().unwrap().as_ref().unwrap()).unwrap();
    };
    write(&[("a", Algorithm::RS256, RSA)]);
    let yaml = json!({
        "websocket": { "enabled": true },
        "sse": { "enabled": true },
        "auth": { "jwt": { "jwks": { "file": file, "refresh": "1s" } } },
    });
    fs::write(&config, yaml.to_string()).unwrap();
    let demo = Demo::start_from_alone(&["--config", config.to_str().unwrap()]).await;
    let (a, b) = (token(Algorithm::RS256, RSA, "a"), token(Algorithm::ES256, P256, "b"));
    assert_eq!(statuses(&demo, &a).await, [0, 0]);
    assert_eq!(statuses(&demo, &realtime_tests::token(1)).await, [401, 401], "there is no secret");
    let login = json!({ "username": "alice", "password": "demo", "clientId": "web" }).to_string();
    let (status, answer) = demo.call(reqwest::Method::POST, demo.url("/auth/login"), Some(&login)).await;
    assert_eq!((status, &answer["code"]), (409, &json!(409)));
    write(&[("b", Algorithm::ES256, P256)]);
    until("the file to be read again", async || statuses(&demo, &b).await == [0, 0]).await;
    assert_eq!(statuses(&demo, &a).await, [401, 401]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_the_keys_of_a_set_that_cannot_be_read() {
    let issuer = Arc::new(Issuer::default());
    issuer.put(&[("ec", Algorithm::ES256, P256)]);
    let url = format!("http://127.0.0.1:{}/keys", issuer.serve(None).await);
    let config = tempfile::NamedTempFile::new().unwrap();
    let write = |demanded: Option<&str>| {
        let mut jwt = json!({ "publicKeys": [RSA_PUBLIC], "jwks": { "url": url } });
        if let Some(issuer) = demanded {
            jwt["issuer"] = issuer.into();
        }
        let yaml =
            json!({ "websocket": { "enabled": true }, "sse": { "enabled": true }, "auth": { "jwt": jwt } });
        fs::write(config.path(), yaml.to_string()).unwrap();
    };
    write(None);
    let arguments = ["--config", config.path().to_str().unwrap()];
    let (demo, mut log) = Demo::start_listened(&arguments, &[], &[]).await;
    let token = token(Algorithm::ES256, P256, "ec");
    assert_eq!(statuses(&demo, &token).await, [0, 0]);
    *issuer.set.lock().unwrap() = None;
    let mut reload = async || {
        demo.reload();
        within("the reload", async {
            while !log.recv().await.unwrap().contains("the configuration has been reloaded") {}
        })
        .await;
    };
    reload().await;
    assert_eq!(statuses(&demo, &token).await, [0, 0]);
    // Logins of before are compared with what is demanded now.
    write(Some("another"));
    reload().await;
    assert_eq!(statuses(&demo, &token).await, [401, 401]);
    write(None);
    reload().await;
    assert_eq!(statuses(&demo, &token).await, [0, 0]);
}

fn key_of(variable: &str) -> &'static str {
    match variable {
        "PUBLICKEYS" => "publicKeys[0] (environment variable ",
        "JWKS__FILE" => "jwks.file (environment variable ",
        _ => "jwks.url",
    }
}

#[test]
fn keys_that_cannot_be_used_stop_the_start_with_key_and_file() {
    let private = Path::new("../crates/realtime-core/tests/keys/rsa.pem").to_str().unwrap();
    for (variable, value, expected) in [
        ("PUBLICKEYS", "/nowhere.pem", "): `/nowhere.pem`: No such file"),
        ("PUBLICKEYS", private, "a private key, where the public one belongs"),
        ("PUBLICKEYS", "Cargo.toml", "): `Cargo.toml`: no public key in PEM form"),
        ("JWKS__FILE", "/nowhere.json", "): `/nowhere.json`: No such file"),
        ("JWKS__URL", "id.example/keys", "auth.jwt.jwks.url"),
    ] {
        for arguments in [&["check-config"][..], &[]] {
            let mut demo = std::process::Command::new(Demo::binary());
            demo.env(format!("REALTIME__AUTH__JWT__{variable}"), value).env("REALTIME__SERVER__PORT", "0");
            let output = demo.args(arguments).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            let key = said.starts_with(&format!("error: auth.jwt.{}", key_of(variable)));
            assert!(!output.status.success() && key && said.contains(expected), "{variable}={value}: {said}");
        }
    }
}
