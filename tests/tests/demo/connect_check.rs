//! `check-config --connect` tells what may pass from what does not pass by itself.

use std::{
    io::{Read, Write},
    net::TcpListener,
    process::Command,
};

use realtime_tests::{Authority, Demo, Redis, RedisTlsServer, free_port};

/// The statuses of sysexits.h.
const TEMPORARY: i32 = 75;
const PERMANENT: i32 = 78;

fn check(variables: &[(&str, &str)]) -> (i32, String) {
    let mut command = Command::new(Demo::binary());
    command.args(["check-config", "--connect"]).env("REALTIME__REDIS__COMMANDTIMEOUT", "500ms");
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    (output.status.code().unwrap(), said)
}

fn url(url: &str) -> (i32, String) {
    check(&[("REALTIME__REDIS__URL", url)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_answers_is_named_with_its_version() {
    assert_eq!(check(&[]), (0, "the configuration is valid\nno Redis is configured\n".to_owned()));
    let redis = Redis::start().await;
    let (status, said) = url(&format!("redis://app:app@127.0.0.1:{}/2", redis.port()));
    let expected = format!("redis: reached redis://127.0.0.1:{}/2 (Redis ", redis.port());
    assert!(status == 0 && said.contains(&expected), "{status}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_pass_by_itself_is_said_so_without_the_password() {
    let redis = Redis::start().await;
    let port = redis.port();
    let closed = Redis::start().await;
    assert_eq!(closed.cli(&["config", "set", "requirepass", "secret"]), "OK");
    let replica = Redis::start().await;
    assert_eq!(replica.cli(&["replicaof", "127.0.0.1", &port.to_string()]), "OK");
    let http = listener(Some(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    for (address, problem) in [
        (format!("redis://app:hunter2@127.0.0.1:{port}/"), "refuses the user or the password"),
        (format!("redis://:hunter2@127.0.0.1:{}/", closed.port()), "refuses the user or the password"),
        (format!("redis://127.0.0.1:{}/", closed.port()), "it asks for a password, and the URL has none"),
        (format!("redis://127.0.0.1:{port}/99"), "it has no such database"),
        (format!("rediss://:hunter2@127.0.0.1:{port}/"), "does not speak TLS"),
        (format!("redis://127.0.0.1:{http}/"), "is no Redis"),
        (format!("redis://127.0.0.1:{}/", replica.port()), "it is a replica"),
    ] {
        let (status, said) = url(&address);
        assert_eq!(status, PERMANENT, "{address}: {said}");
        let line = said.lines().find(|line| line.starts_with("error: redis.url: ")).unwrap_or_default();
        assert!(line.contains("this does not pass by itself") && line.contains(problem), "{address}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_are_not_trusted_do_not_pass_by_themselves() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = RedisTlsServer::start(&authority, "TLSv1.3").await;
    let path = |authority: &Authority, file| authority.path(file).display().to_string();
    let (ca, wrong) = (path(&authority, "ca.crt"), path(&other, "ca.crt"));
    let (cert, key) = (path(&authority, "client.crt"), path(&authority, "client.key"));
    let (ca_file, cert_file) = ("REALTIME__REDIS__TLS__CAFILE", "REALTIME__REDIS__TLS__CERTFILE");
    let key_file = "REALTIME__REDIS__TLS__KEYFILE";
    let address = server.url();
    let url = ("REALTIME__REDIS__URL", address.as_str());
    let (status, said) = check(&[url, (ca_file, &ca), (cert_file, &cert), (key_file, &key)]);
    assert!(status == 0 && said.contains("redis: reached rediss://127.0.0.1:"), "{said}");
    let (status, said) = check(&[url, (ca_file, &wrong), (cert_file, &cert), (key_file, &key)]);
    assert!(status == PERMANENT && said.contains("error: redis.tls.caFile: "), "{status}: {said}");
    let (status, said) = check(&[url, (ca_file, &ca)]);
    assert!(status == PERMANENT && said.contains("error: redis.tls.certFile: "), "{status}: {said}");
    let plain = address.replace("rediss://", "redis://");
    let (status, said) = check(&[("REALTIME__REDIS__URL", &plain)]);
    assert!(status == PERMANENT && said.contains("speaks TLS only"), "{status}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_is_said_so() {
    let (refused, silent) = (free_port(), listener(None));
    for port in [refused, silent] {
        let (status, said) = url(&format!("redis://:hunter2@127.0.0.1:{port}/"));
        let expected =
            format!("error: redis.url: redis://127.0.0.1:{port}/0 is not reached, and this may pass: ");
        assert!(status == TEMPORARY && said.contains(&expected) && !said.contains("hunter2"), "{said}");
    }
    let nodes = format!("redis://127.0.0.1:{refused}/");
    let (status, said) = check(&[
        ("REALTIME__REDIS__URL", "redis://127.0.0.1/"),
        ("REALTIME__REDIS__TOPOLOGY", "sentinel"),
        ("REALTIME__REDIS__NODES", &nodes),
    ]);
    assert!(status == TEMPORARY && said.contains("error: redis.nodes: mymaster of the sentinels "), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_redis_of_the_java_logins_is_tried_as_well() {
    let redis = Redis::start().await;
    let port = redis.port();
    let (own, other) = (redis.url(), format!("redis://app:hunter2@127.0.0.1:{port}/"));
    let (status, said) = check(&[
        ("REALTIME__AUTH__MODE", "sa-token"),
        ("REALTIME__AUTH__SATOKEN__SECRET", "abcdefghijklmnopqrstuvwxyz"),
        ("REALTIME__REDIS__URL", &own),
        ("REALTIME__AUTH__SATOKEN__REDIS__URL", &other),
    ]);
    assert!(status == PERMANENT && said.contains("redis: reached "), "{said}");
    assert!(said.contains("error: auth.saToken.redis.url: ") && !said.contains("hunter2"), "{said}");
}

/// Port of a server that gives this answer to whatever comes, or none.
fn listener(answer: Option<&'static [u8]>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            if let Some(answer) = answer {
                socket.read_exact(&mut [0]).unwrap();
                socket.write_all(answer).unwrap();
            }
            open.push(socket);
        }
    });
    port
}
