//! `realtime-server` gives the answers that actix-web's server gives, however requests are cut and pipelined.
//!
//! actix-web's is asked one request after the other: pipelined ones it answers with the version, the method and the
//! connection of the last that it has read.

use std::{fmt::Write, time::Duration};

use actix_web::{App, HttpResponse, Responder, web};
use futures_util::{StreamExt, future::join, stream};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use realtime_tests::{Running, Server, ServerKind, start_server, within};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};

fn app() -> App<
    impl actix_web::dev::ServiceFactory<
        actix_web::dev::ServiceRequest,
        Config = (),
        Response = actix_web::dev::ServiceResponse,
        Error = actix_web::Error,
        InitError = (),
    >,
> {
    App::new()
        .app_data(web::PayloadConfig::new(1 << 20))
        // What our server does on its own.
        .wrap_fn(realtime_server::conform)
        .route("/plain", web::get().to(async || "plain"))
        .route("/plain", web::head().to(async || "plain"))
        .route("/empty", web::get().to(async || HttpResponse::NoContent()))
        .route("/large/{count}", web::get().to(large))
        .route("/stream/{count}", web::get().to(pieces))
        .route("/slow", web::get().to(slow))
        .route("/echo", web::post().to(echo))
        .route("/later", web::post().to(later))
        .route("/ignore", web::post().to(async || "ignored"))
}

async fn large(count: web::Path<usize>) -> impl Responder {
    "b".repeat(*count)
}

async fn pieces(count: web::Path<usize>) -> impl Responder {
    let pieces = stream::iter(0..*count).then(async |number| {
        actix_web::rt::task::yield_now().await;
        Ok::<_, actix_web::Error>(web::Bytes::from(format!("piece {number}")))
    });
    HttpResponse::Ok().streaming(Box::pin(pieces))
}

async fn slow() -> impl Responder {
    sleep(Duration::from_millis(3)).await;
    "slow"
}

async fn echo(body: web::Bytes) -> impl Responder {
    body
}

/// Reads its body when it has waited for a while.
async fn later(body: web::Payload) -> impl Responder {
    sleep(Duration::from_millis(3)).await;
    body.to_bytes().await.map(|body| body.len().to_string())
}

/// The requests of a client, and the places where they are cut.
#[derive(Debug)]
struct Conversation {
    requests: Vec<Vec<u8>>,
    cuts: Vec<(usize, u64)>,
    /// The client closes its side behind the last byte.
    half_closes: bool,
}

fn text(random: &mut StdRng, max: usize) -> String {
    let len =
        if random.random_ratio(1, 4) { random.random_range(0..max) } else { random.random_range(0..40) };
    // What could be taken for the end of a head, or of a chunk.
    let words = ["\r\n\r\n", "0\r\n\r\n", "GET /plain HTTP/1.1\r\n", "x", "\n", "abcdefgh"];
    let mut text = String::new();
    while text.len() < len {
        text.push_str(words[random.random_range(0..words.len())]);
    }
    text
}

fn chunked(random: &mut StdRng, body: &str) -> String {
    let mut rest = body;
    let mut chunks = String::new();
    while !rest.is_empty() {
        let (chunk, next) = rest.split_at(random.random_range(1..=rest.len()));
        let extension = ["", "", ";a=b", " ", ";x"][random.random_range(0..5)];
        write!(chunks, "{:x}{extension}\r\n{chunk}\r\n", chunk.len()).unwrap();
        rest = next;
    }
    chunks.push_str(["0\r\n", "000\r\n", "0;last\r\n"][random.random_range(0..3)]);
    if random.random_ratio(1, 4) {
        chunks.push_str("trailer: value\r\nanother: \r\n");
    }
    chunks.push_str("\r\n");
    chunks
}

fn request(random: &mut StdRng, last: bool, half_closes: bool) -> String {
    let mut headers = "Host: x\r\n".to_owned();
    if last && !half_closes {
        headers.push_str("Connection: close\r\n");
    }
    if random.random_ratio(1, 10) {
        // Whether one beyond the limit of 128 KiB is refused follows from how much of it arrives at once.
        let len = if random.random_ratio(1, 3) { random.random_range(0..120_000) } else { 5000 };
        writeln!(headers, "X-Long: {}\r", "h".repeat(len)).unwrap();
    }
    let mut version = "1.1";
    if random.random_ratio(1, 12) {
        version = "1.0";
        if !last {
            headers.push_str("Connection: keep-alive\r\n");
        }
    }
    let blank = if random.random_ratio(1, 10) { "\r\n" } else { "" };
    // An answer that does not wait for its body ends the connection, and how much has been read by then is random.
    let posts = if last { 5 } else { 4 };
    let target = match random.random_range(0..12) {
        0 => "GET /plain",
        1 => "HEAD /plain",
        2 => "GET /empty",
        3 => "GET /nothing",
        4 => "GET /slow",
        5 => &*format!("GET /large/{}", random.random_range(0..30_000)),
        6 => &*format!("GET /stream/{}", random.random_range(0..20)),
        other => {
            let path = ["/echo", "/later", "/echo", "/echo", "/ignore"][other % posts];
            let body = text(random, 20_000);
            if random.random_ratio(1, 4) && version == "1.1" {
                headers.push_str("Expect: 100-continue\r\n");
            }
            if version == "1.1" && (path == "/ignore" || random.random()) {
                let chunks = chunked(random, &body);
                return format!(
                    "{blank}POST {path} HTTP/1.1\r\n{headers}Transfer-Encoding: chunked\r\n\r\n{chunks}"
                );
            }
            let len = body.len();
            return format!(
                "{blank}POST {path} HTTP/{version}\r\n{headers}Content-Length: {len}\r\n\r\n{body}"
            );
        }
    };
    let end = if random.random_ratio(1, 10) { "\n" } else { "\r\n" };
    format!("{blank}{target} HTTP/{version}\r\n{headers}{end}")
}

fn conversation(random: &mut StdRng) -> Conversation {
    let mut half_closes = random.random_ratio(1, 3);
    let count = random.random_range(1..12);
    let mut requests: Vec<Vec<u8>> =
        (1..=count).map(|index| request(random, index == count, half_closes).into_bytes()).collect();
    // What our server keeps behind an answer without a known length is bounded.
    if requests.concat().len() > 60_000 {
        requests.retain(|request| !request.windows(8).any(|bytes| bytes == b"/stream/"));
    }
    let Some(last) = requests.last_mut() else { return conversation(random) };
    if random.random_ratio(1, 6) {
        // It is no request any more, or another one. Part of it may be missing: then no answer comes before the end.
        half_closes = true;
        let at = random.random_range(0..last.len());
        last[at] = b"\r\n:0 "[random.random_range(0..5)];
    }
    let len = requests.iter().map(Vec::len).sum();
    let mut cuts = Vec::new();
    let mut at = 0;
    while at < len {
        let step = match random.random_range(0..4) {
            0 => random.random_range(1..10),
            1 => random.random_range(1..2000),
            _ => len,
        };
        at = (at + step).min(len);
        cuts.push((at, if random.random_ratio(1, 3) { random.random_range(0..3) } else { 0 }));
    }
    Conversation { requests, cuts, half_closes }
}

/// The answers to all requests at once, cut anywhere.
async fn answers(server: &Running, conversation: &Conversation) -> String {
    let tcp = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    let (mut reading, mut writing) = tcp.into_split();
    let sent = conversation.requests.concat();
    let write = async {
        let mut begin = 0;
        for (end, pause) in &conversation.cuts {
            // A server that has refused a request reads no further.
            if writing.write_all(&sent[begin..*end]).await.is_err() {
                break;
            }
            begin = *end;
            if *pause > 0 {
                sleep(Duration::from_millis(*pause)).await;
            }
        }
        if conversation.half_closes {
            writing.shutdown().await.ok();
        }
        writing
    };
    let mut bytes = Vec::new();
    let read = async { while let Ok(1..) = reading.read_buf(&mut bytes).await {} };
    within("all answers", join(write, read)).await;
    undated(&bytes)
}

/// The answers to requests each of which is sent when the one before has been answered.
async fn answers_in_turn(server: &Running, conversation: &Conversation) -> String {
    let mut tcp = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    let (mut bytes, mut begin) = (Vec::new(), 0);
    for (index, request) in conversation.requests.iter().enumerate() {
        let last = index + 1 == conversation.requests.len();
        // A server that has refused a request may have closed before the rest of it was written.
        let sent = tcp.write_all(request).await;
        if last && conversation.half_closes && sent.is_ok() {
            tcp.shutdown().await.ok();
        }
        let is_head = request.trim_ascii_start().starts_with(b"HEAD");
        let read = async {
            while last || answer(&bytes[begin..], is_head).is_none() {
                match tcp.read_buf(&mut bytes).await {
                    Ok(1..) => {}
                    _ => break,
                }
            }
        };
        within("an answer", read).await;
        begin += answer(&bytes[begin..], is_head).unwrap_or_default();
    }
    undated(&bytes)
}

/// The length of an answer, once it is here whole.
fn answer(bytes: &[u8], is_head: bool) -> Option<usize> {
    let end =
        |text: &[u8]| bytes.windows(text.len()).position(|bytes| bytes == text).map(|at| at + text.len());
    let begin = end(b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..begin]).unwrap();
    let status = head.split(' ').nth(1).unwrap();
    if status == "100" {
        return Some(begin + answer(&bytes[begin..], is_head)?);
    }
    if is_head || status == "204" {
        return Some(begin);
    }
    if head.contains("transfer-encoding: chunked") {
        return end(b"\r\n0\r\n\r\n");
    }
    // The answer to HTTP/1.0 may end with its connection.
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    let end = begin + length.parse::<usize>().unwrap();
    (bytes.len() >= end).then_some(end)
}

/// Answers without their dates.
fn undated(bytes: &[u8]) -> String {
    let mut answers = String::from_utf8(bytes.to_vec()).unwrap();
    while let Some(at) = answers.find("date: ") {
        let end = at + answers[at..].find('\n').map_or(answers.len() - at, |end| end + 1);
        answers.replace_range(at..end, "");
    }
    answers
}

#[actix_web::test]
async fn requests_cut_anywhere_and_all_at_once_have_the_same_answers_as_one_after_the_other() {
    let seed = std::env::var("SEED").map_or_else(|_| rand::random::<u64>(), |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let ours = start_server!(
        ServerKind::Realtime,
        app,
        workers(1),
        h1_allow_half_closed(true),
        client_request_timeout(Duration::from_millis(600))
    );
    let theirs =
        start_server!(ServerKind::Actix, app, workers(1), client_request_timeout(Duration::from_millis(600)));
    let begin = Instant::now();
    let mut count = 0;
    while begin.elapsed() < Duration::from_secs(8) {
        let conversation = conversation(&mut random);
        let (our, their) = join(answers(&ours, &conversation), answers_in_turn(&theirs, &conversation)).await;
        count += 1;
        let same = our.bytes().zip(their.bytes()).take_while(|(our, their)| our == their).count();
        let begin = same.saturating_sub(200);
        let part = |answers: &str| short(&String::from_utf8_lossy(&answers.as_bytes()[begin..]));
        assert!(
            our == their || is_only_more_after_the_end(&our, &their),
            "conversation {count}\n--- sent\n{:?}\ncut at {:?}, closes {}\n--- answered behind {begin} bytes\n{}\n\
             --- instead of\n{}",
            short(&String::from_utf8_lossy(&conversation.requests.concat())),
            conversation.cuts,
            conversation.half_closes,
            part(&our),
            part(&their),
        );
    }
    println!("{count} conversations");
}

/// Returns whether `their` only adds the refusal of bytes behind a request that ended the connection: one that asked for
/// it, or one of HTTP/1.0 that did not ask to keep it. They may be read or not (RFC 9112, section 9.6).
fn is_only_more_after_the_end(our: &str, their: &str) -> bool {
    let last = our.rsplit("HTTP/1.").next().unwrap_or_default();
    let ends = last.contains("connection: close")
        || (last.starts_with('0') && !last.contains("connection: keep-alive"));
    let refusals = ["HTTP/1.0 400 ", "HTTP/1.1 400 "];
    ends && their.strip_prefix(our).is_some_and(|rest| refusals.iter().any(|start| rest.starts_with(start)))
}

/// Text without its long runs of one letter.
fn short(text: &str) -> String {
    let mut short = String::new();
    let mut run = 0;
    let mut last = ' ';
    for letter in text.chars() {
        run = if letter == last { run + 1 } else { 0 };
        last = letter;
        if run < 8 {
            short.push(letter);
        } else if run == 8 {
            short.push('~');
        }
    }
    short
}
