//! Requests that are sent ahead of their answers cost neither time nor memory while the answers are not read.
#![cfg(target_os = "linux")]

use std::{fs, time::Duration};

use actix_web::{App, rt::net::TcpStream, web};
use realtime_tests::{RawClient, ServerKind, in_own_process, start_server, within};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

/// Milliseconds of CPU that this process has used.
fn cpu() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // In ticks of a hundredth of a second.
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10
}

/// The resident memory of this process in KiB, without the pages of its binary that it has run by now.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A chunked body that its handler does not read. The request after it is still found.
const UNREAD: &str =
    "POST /ignore HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
const COUNT: usize = 20_000;

#[actix_web::test]
async fn pipelined_requests_with_unread_answers_cost_neither_time_nor_memory() {
    if ServerKind::of_run() == ServerKind::Actix {
        // It decodes all that it has read, and spins when its buffer is full.
        return;
    }
    if !in_own_process("pipelining::pipelined_requests_with_unread_answers_cost_neither_time_nor_memory") {
        return;
    }
    let app = || {
        App::new()
            .route("/number/{number}", web::get().to(async |number: web::Path<String>| number.into_inner()))
            .route("/ignore", web::post().to(async || "ignored"))
    };
    let server = start_server!(
        ServerKind::Realtime,
        app,
        workers(1),
        on_connect(|connection, _| {
            let tcp = SockRef::from(connection.downcast_ref::<TcpStream>().unwrap());
            tcp.set_send_buffer_size(32 << 10).unwrap();
            tcp.set_recv_buffer_size(32 << 10).unwrap();
        })
    );
    let mut requests = UNREAD.repeat(10);
    for number in 0..COUNT {
        requests.push_str(&format!("GET /number/{number:05} HTTP/1.1\r\nHost: x\r\n\r\n"));
    }
    requests.push_str("GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let requests = requests.as_bytes();
    let mut client = RawClient::connect(&server).await;
    let before = memory();
    // As much as both sides take: 130 KiB at least.
    let mut sent = 0;
    while sent < requests.len()
        && let Ok(count) = timeout(Duration::from_millis(300), client.tcp.write(&requests[sent..])).await
    {
        sent += count.unwrap();
    }
    assert!(sent > 130 << 10, "{sent}");
    // Once both sides are full nothing happens any more.
    within("a second without work", async {
        loop {
            let begin = cpu();
            sleep(Duration::from_secs(1)).await;
            if cpu() - begin < 100 {
                break;
            }
        }
    })
    .await;
    let grown = memory().saturating_sub(before);
    println!("{sent} bytes sent; {grown} KiB");
    assert!(grown < 4 << 10, "{grown} KiB more");
    let (mut reading, mut writing) = client.tcp.split();
    let write = async { writing.write_all(&requests[sent..]).await.unwrap() };
    let mut answers = Vec::new();
    let read = async { while reading.read_buf(&mut answers).await.unwrap() > 0 {} };
    within("all answers", async { tokio::join!(write, read) }).await;
    let answers = String::from_utf8(answers).unwrap();
    let mut bodies = answers.split("\r\n\r\n").skip(11);
    for number in 0..COUNT {
        let body = bodies.next().unwrap();
        assert!(body.starts_with(&format!("{number:05}HTTP")), "{body} instead of {number}");
    }
    assert!(answers.contains("HTTP/1.1 404"));
}
