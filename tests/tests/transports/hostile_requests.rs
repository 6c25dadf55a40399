//! A client that sends a request slowly, in part, too much of it or in the form of another protocol costs little, and gets
//! an answer that it can read.
#![cfg(target_os = "linux")]

use std::{future::pending, time::Duration};

use actix_web::{App, HttpRequest, HttpResponse, rt::time::Instant, web};
use futures_util::{StreamExt, future::join_all, stream};
use realtime_tests::{RawClient, Running, descriptors, in_own_process, until, within};
use tokio::{io::AsyncWriteExt, sync::Semaphore, time::sleep};

/// Permits for `/later` to answer.
static LATER: Semaphore = Semaphore::const_new(0);

/// A server with short time limits.
macro_rules! start {
    ($($method:ident($argument:expr)),*) => {{
        let app = || {
            App::new()
                .app_data(web::PayloadConfig::new(16 << 10))
                .route("/plain", web::get().to(async || "plain"))
                .route("/echo", web::post().to(async |body: web::Bytes| body))
                .route("/refuse", web::post().to(async || HttpResponse::Unauthorized().body("refused")))
                .route("/later", web::get().to(later))
                .route("/upgrade", web::get().to(upgrade))
                .route("/upgrade-later", web::get().to(upgrade_later))
                .route("/upgrade-elsewhere", web::get().to(upgrade_elsewhere))
                .route("/stream", web::get().to(two_pieces))
                .route("/endless", web::get().to(endless))
        };
        let limit = Duration::from_millis(300);
        let server = realtime_server::HttpServer::new(app)
            .disable_signals()
            .workers(1)
            .client_request_timeout(limit)
            .client_body_timeout(limit)
            $(.$method($argument))*
            .bind(("127.0.0.1", 0))
            .unwrap();
        let port = server.addrs()[0].port();
        let server = server.run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Running { port, handle }
    }};
}

async fn later() -> &'static str {
    LATER.acquire().await.unwrap().forget();
    "later"
}

/// Sends back what comes behind the first bytes.
async fn upgrade(mut payload: web::Payload) -> HttpResponse {
    payload.next().await.unwrap().unwrap();
    HttpResponse::SwitchingProtocols().upgrade("websocket").streaming(payload)
}

/// The same, once it has worked on the first bytes for longer than a body may take, with or without the rest at hand.
async fn upgrade_later(request: HttpRequest, mut payload: web::Payload) -> HttpResponse {
    let first = payload.next().await.unwrap().unwrap();
    let drops = request.query_string() == "drops";
    let payload = Some(payload).filter(|_| !drops);
    sleep(Duration::from_secs(1)).await;
    match payload {
        Some(payload) => HttpResponse::SwitchingProtocols().upgrade("websocket").streaming(payload),
        None => HttpResponse::Ok().body(first),
    }
}

/// Reads on in a task of its own until the end.
async fn upgrade_elsewhere(mut payload: web::Payload) -> HttpResponse {
    let reader = actix_web::rt::spawn(async move {
        payload.next().await;
        sleep(Duration::from_millis(600)).await;
        while payload.next().await.is_some_and(|read| read.is_ok()) {}
    });
    reader.await.unwrap();
    HttpResponse::Ok().finish()
}

async fn two_pieces() -> HttpResponse {
    let pieces = stream::iter(["one", "two"]).map(|piece| Ok::<_, actix_web::Error>(web::Bytes::from(piece)));
    HttpResponse::Ok().streaming(pieces)
}

async fn endless() -> HttpResponse {
    let first = stream::iter([Ok::<_, actix_web::Error>(web::Bytes::from("first"))]);
    HttpResponse::Ok().streaming(first.chain(stream::once(pending())))
}

/// What comes until the end of the connection, in lower case.
async fn rest(client: &mut RawClient) -> String {
    assert!(client.end().await, "a reset after {:?}", String::from_utf8_lossy(&client.bytes));
    String::from_utf8(std::mem::take(&mut client.bytes)).unwrap().to_lowercase()
}

const PLAIN: &str = "GET /plain HTTP/1.1\r\nHost: x\r\n\r\n";

#[actix_web::test]
async fn a_head_or_a_body_that_never_ends_gets_408_on_any_request_of_a_connection() {
    let server = start!();
    let parts = [
        "GET /plain HTTP/1.1\r\nHost: x\r\nX-Long: ",
        "\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        // Everything behind such a head is its body.
        "POST /echo HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\n",
    ];
    for part in parts {
        for before in ["", PLAIN] {
            let mut client = RawClient::connect(&server).await;
            client.write(before).await;
            if !before.is_empty() {
                client.until("plain").await;
            }
            client.write(part).await;
            let (mut reading, mut writing) = client.tcp.into_split();
            // A byte now and then does not help.
            let drip = actix_web::rt::spawn(async move {
                while writing.write_all(b"0").await.is_ok() {
                    sleep(Duration::from_millis(50)).await;
                }
            });
            let mut bytes = Vec::new();
            let begin = Instant::now();
            within("the end", tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut bytes)).await.ok();
            drip.abort();
            let answer = String::from_utf8(bytes).unwrap();
            assert!(answer.contains("HTTP/1.1 408 "), "{part:?}: {answer}");
            assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        }
    }
    until("all connections to be closed", || descriptors(&server) == 0).await;
}

#[actix_web::test]
async fn a_body_that_makes_progress_and_an_idle_connection_have_their_time() {
    let server = start!();
    let mut client = RawClient::connect(&server).await;
    for _ in 0..2 {
        client.write("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10240\r\n\r\n").await;
        for _ in 0..10 {
            client.write([b'x'; 1024]).await;
            sleep(Duration::from_millis(100)).await;
        }
        assert!(client.head().await.starts_with("HTTP/1.1 200 "));
        client.exactly(10240).await;
        sleep(Duration::from_millis(600)).await;
    }
}

#[actix_web::test]
async fn an_upgraded_connection_may_be_silent() {
    let server = start!();
    let mut client = RawClient::connect(&server).await;
    client
        .write("GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst")
        .await;
    assert!(client.head().await.starts_with("HTTP/1.1 101 "));
    for text in ["second", "third"] {
        sleep(Duration::from_millis(600)).await;
        client.write(text).await;
        client.until(text).await;
    }
}

#[actix_web::test]
async fn a_handler_may_work_on_what_it_has_read_behind_an_upgrade() {
    let server = start!();
    for (query, status) in [("keeps", 101), ("drops", 200)] {
        let mut client = RawClient::connect(&server).await;
        let target = format!("/upgrade-later?{query}");
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst"
        );
        client.write(head).await;
        let answer = client.head().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{query}: {answer}");
    }
}

#[actix_web::test]
async fn a_client_is_waited_for_no_longer_where_a_task_reads_behind_an_upgrade() {
    let server = start!();
    for drips in [false, true] {
        let mut client = RawClient::connect(&server).await;
        let head = "GET /upgrade-elsewhere HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst";
        client.write(head).await;
        let (mut reading, mut writing) = client.tcp.into_split();
        let drip = actix_web::rt::spawn(async move {
            while drips && writing.write_all(b"0").await.is_ok() {
                sleep(Duration::from_millis(50)).await;
            }
            // The other side stays open.
            pending::<()>().await;
        });
        let (mut bytes, begin) = (Vec::new(), Instant::now());
        within("the end", tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut bytes)).await.ok();
        drip.abort();
        let answer = String::from_utf8(bytes).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    }
}

#[actix_web::test]
async fn a_refusal_during_an_upload_arrives() {
    let server = start!();
    let body = vec![b'x'; 3 << 19];
    for (head, status) in [
        (format!("POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()), 401),
        (format!("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()), 413),
    ] {
        let uploads = (0..20).map(|_| async {
            let mut client = RawClient::connect(&server).await;
            // All of it, slowly, before anything is read.
            client.write(&head).await;
            for piece in body.chunks(100 << 10) {
                within("the body to be taken", client.tcp.write_all(piece)).await.unwrap();
                sleep(Duration::from_millis(100)).await;
            }
            let answer = rest(&mut client).await;
            assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{answer}");
            assert!(answer.contains("connection: close"), "{answer}");
        });
        join_all(uploads).await;
    }
    // One that ends never is not waited for.
    let mut client = RawClient::connect(&server).await;
    client.write("POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n").await;
    let (_, mut writing) = client.tcp.into_split();
    let mut sent = 0_u64;
    while writing.write_all(&[b'x'; 64 << 10]).await.is_ok() {
        sent += 64 << 10;
    }
    assert!(sent < 200_000_000, "{sent}");
    drop(writing);
    until("all connections to be closed", || descriptors(&server) == 0).await;
}

#[actix_web::test]
async fn a_caller_that_closes_its_side_gets_its_answer_and_a_stream_ends() {
    let server = start!();
    let mut client = RawClient::connect(&server).await;
    client.write("GET /later HTTP/1.1\r\nHost: x\r\n\r\nGET /plain HTTP/1.1\r\nHost: x\r\n\r\n").await;
    client.tcp.shutdown().await.unwrap();
    sleep(Duration::from_millis(100)).await;
    LATER.add_permits(1);
    let answers = rest(&mut client).await;
    assert!(answers.contains("later") && answers.ends_with("plain"), "{answers}");

    let mut client = RawClient::connect(&server).await;
    client.write("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await;
    client.until("first").await;
    client.tcp.shutdown().await.unwrap();
    until("the stream to be closed", || descriptors(&server) == 0).await;
}

#[actix_web::test]
async fn an_upgrade_that_is_not_made_closes_the_connection_and_says_so() {
    let server = start!();
    let mut client = RawClient::connect(&server).await;
    // As Java's HttpClient.
    client
        .write(
            "POST /echo HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: 4\r\nHost: x\r\n\
             HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAABgAGAAA\r\nUpgrade: h2c\r\n\r\nbody",
        )
        .await;
    let answer = rest(&mut client).await;
    assert!(answer.starts_with("http/1.1 200 ") && answer.ends_with("body"), "{answer}");
    assert!(answer.contains("connection: close\r\n") && !answer.contains("upgrade"), "{answer}");
}

#[actix_web::test]
async fn a_stream_for_http_1_0_is_not_chunked() {
    let server = start!();
    for keep_alive in ["", "Connection: keep-alive\r\n"] {
        let mut client = RawClient::connect(&server).await;
        client.write(format!("GET /stream HTTP/1.0\r\n{keep_alive}\r\n")).await;
        let answer = rest(&mut client).await;
        assert!(answer.ends_with("\r\n\r\nonetwo"), "{answer}");
        assert!(!answer.contains("transfer-encoding") && !answer.contains("keep-alive"), "{answer}");
    }
}

#[actix_web::test]
async fn a_body_that_is_announced_as_too_large_is_not_asked_for() {
    let server = start!(max_expected_body(16 << 10));
    let head = |length: u64| {
        format!("POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n")
    };
    let mut client = RawClient::connect(&server).await;
    client.write(head(100 << 20)).await;
    let answer = rest(&mut client).await;
    assert!(answer.starts_with("http/1.1 413 ") && answer.contains("connection: close"), "{answer}");
    let mut client = RawClient::connect(&server).await;
    client.write(head(4)).await;
    assert!(client.head().await.starts_with("HTTP/1.1 100 "));
    client.write("body").await;
    client.until("body").await;
}

#[actix_web::test]
async fn sixty_connections_that_pipeline_and_read_nothing_cost_what_they_have_sent() {
    if !in_own_process(
        "hostile_requests::sixty_connections_that_pipeline_and_read_nothing_cost_what_they_have_sent",
    ) {
        return;
    }
    let server = start!();
    let status = |name: &str| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let cpu = || {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<String> =
            stat.rsplit(')').next().unwrap().split_whitespace().map(str::to_owned).collect();
        (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10
    };
    for first in ["", "GET /endless HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let before = status("RssAnon:");
        let requests = PLAIN.repeat((130 << 10) / PLAIN.len());
        let mut clients = Vec::new();
        for _ in 0..60 {
            let mut client = RawClient::connect(&server).await;
            client.write(first).await;
            tokio::time::timeout(Duration::from_millis(500), client.tcp.write_all(requests.as_bytes()))
                .await
                .ok();
            clients.push(client);
        }
        let mut idle = 0;
        within("a second without work", async {
            while idle < 1 {
                let begin = cpu();
                sleep(Duration::from_secs(1)).await;
                idle += usize::from(cpu() - begin < 100);
            }
        })
        .await;
        let grown = status("RssAnon:").saturating_sub(before);
        println!("{grown} KiB for 60 connections behind {first:?}");
        assert!(grown < 60 * 200, "{grown} KiB");
        let begin = Instant::now();
        drop(clients);
        until("all connections to be closed", || descriptors(&server) == 0).await;
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    }
}
