//! Logins and wrong keys in masses cost a bounded memory, and are told when to come again.
#![cfg(target_os = "linux")]

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt, future::join_all, stream};
use realtime_tests::{Demo, Server, within};
use reqwest::{Client, Response};
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::sleep};

/// A login, as the page sends it. `forwarded` is the address that a proxy names.
async fn login(demo: &Demo, http: &Client, name: &str, password: &str, forwarded: &str) -> Response {
    let body = json!({ "username": name, "password": password, "clientId": "web" });
    let request = http.post(demo.url("/auth/login")).header("X-Forwarded-For", forwarded);
    request.json(&body).send().await.unwrap()
}

/// The number of seconds after which a refused caller may come again.
fn retry_after(response: &Response) -> u64 {
    response.headers()["Retry-After"].to_str().unwrap().parse().unwrap()
}

/// The number of responses of each status; every 429 has to name a time.
fn statuses(responses: &[Response]) -> BTreeMap<u16, usize> {
    let mut statuses = BTreeMap::new();
    for response in responses {
        if response.status() == 429 {
            assert!((1..=60).contains(&retry_after(response)));
        }
        *statuses.entry(response.status().as_u16()).or_default() += 1;
    }
    statuses
}

#[tokio::test(flavor = "multi_thread")]
async fn six_hundred_logins_at_once_take_the_memory_of_a_few() {
    let demo = Demo::start().await;
    let http = Client::new();
    assert_eq!(login(&demo, &http, "alice", "demo", "").await.status(), 200);
    let before = demo.memory();
    let logins = (0..600).map(|_| login(&demo, &http, "alice", "demo", ""));
    let answers = statuses(&within("all logins", join_all(logins)).await);
    let (peak, after) = (demo.peak_memory() - before, demo.memory().saturating_sub(before));
    println!("{answers:?}; {before} KiB before, {peak} more at most, {after} more afterwards");
    assert!(answers[&200] > 0 && answers.keys().all(|status| [200, 429].contains(status)), "{answers:?}");
    // Four hashes of 8 MiB, and what 600 connections need.
    assert!(peak < 96 << 10, "{peak} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_are_throttled_for_each_name_and_address() {
    let demo = Demo::start_with(&[("REALTIME__SERVER__TRUSTEDPROXIES", "127.0.0.1")]).await;
    let http = Client::new();
    // One after the other, from one address.
    let mut answers = Vec::new();
    for _ in 0..150 {
        answers.push(login(&demo, &http, "alice", "wrong", "192.0.2.1").await);
    }
    let answers = statuses(&answers);
    println!("{answers:?}");
    assert!(answers[&401] < 20 && answers[&429] > 130, "{answers:?}");
    // A guess that is right would be refused as well, for any name; others are not affected.
    assert_eq!(login(&demo, &http, "bob", "demo", "192.0.2.1").await.status(), 429);
    assert_eq!(login(&demo, &http, "alice", "demo", "192.0.2.2").await.status(), 200);
    // From ever other addresses, and at once, for a name that exists and for one that does not.
    for name in ["alice", "nobody"] {
        let logins = (0..150).map(|i| {
            let (demo, http) = (&demo, &http);
            async move { login(demo, http, name, "wrong", &format!("198.51.100.{i}")).await }
        });
        let answers = statuses(&stream::iter(logins).buffer_unordered(20).collect::<Vec<_>>().await);
        println!("{name}: {answers:?}");
        assert!(answers[&401] < 50 && answers[&429] > 100, "{answers:?}");
    }
    // A name gets an attempt back every two seconds.
    let mut address = 0;
    let refused = loop {
        address += 1;
        let answer = login(&demo, &http, "alice", "wrong", &format!("203.0.113.{address}")).await;
        if answer.status() == 429 {
            break answer;
        }
    };
    assert_eq!(login(&demo, &http, "bob", "demo", "192.0.2.3").await.status(), 200);
    // The owner gets in after the time that was named.
    sleep(Duration::from_secs(retry_after(&refused))).await;
    assert_eq!(login(&demo, &http, "alice", "demo", "192.0.2.3").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_count_though_their_clients_hang_up() {
    let demo = Demo::start_with(&[("REALTIME__SERVER__TRUSTEDPROXIES", "127.0.0.1")]).await;
    let body = json!({ "username": "alice", "password": "wrong", "clientId": "web" }).to_string();
    // An escaped path is the same.
    let request = format!(
        "POST /auth/log%69n HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: 192.0.2.7\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    for _ in 0..40 {
        let mut socket = TcpStream::connect(("127.0.0.1", demo.port())).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        // Until the comparison has begun.
        sleep(Duration::from_millis(5)).await;
    }
    let answer = login(&demo, &Client::new(), "alice", "wrong", "192.0.2.7").await;
    assert_eq!(answer.status(), 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_are_throttled_and_the_right_one_is_not() {
    let demo = Demo::start().await;
    let http = Client::new();
    let guesses = (0..2_000)
        .map(|i| http.post(demo.url("/api/publish")).header("X-API-Key", format!("guess-{i:010}")).send());
    let answers = stream::iter(guesses).buffer_unordered(20).map(Result::unwrap).collect::<Vec<_>>().await;
    let answers = statuses(&answers);
    println!("{answers:?}");
    assert!(answers[&401] < 50 && answers[&429] > 1_950, "{answers:?}");
    demo.publish_to(1, "a backend beside a broken one").await;
}
