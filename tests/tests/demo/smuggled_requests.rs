//! No request is hidden in another one: where two readers could disagree about the end of a request, it is refused and the
//! connection is closed.

use std::time::Duration;

use realtime_tests::{API_KEY, Demo, RawClient, within};
use tokio::{io::AsyncReadExt, time::timeout};

/// What an attacker wants to be answered behind his own request.
const HIDDEN: &str = "GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
const BODY: &str = r#"{"broadcast":true,"message":"x"}"#;

/// A publish with more header lines, and what follows its head.
fn publish(version: &str, lines: &str, rest: &str) -> String {
    format!(
        "POST /api/publish HTTP/{version}\r\nHost: x\r\nX-API-Key: {API_KEY}\r\n\
         Content-Type: application/json\r\n{lines}\r\n{rest}"
    )
}

/// One chunk, whose size line is to be tried.
fn chunk(size: &str) -> String {
    format!("{size}\r\n{BODY}\r\n0\r\n\r\n")
}

/// The statuses of all answers, until the connection ends or nothing comes any more.
async fn statuses(demo: &Demo, request: &str) -> (Vec<u16>, bool) {
    let mut client = RawClient::connect(demo).await;
    // A server that has refused the head may have closed before the rest is written.
    tokio::io::AsyncWriteExt::write_all(&mut client.tcp, request.as_bytes()).await.ok();
    let closed = timeout(Duration::from_secs(8), async {
        while let Ok(1..) = client.tcp.read_buf(&mut client.bytes).await {}
    })
    .await
    .is_ok();
    let answers = String::from_utf8_lossy(&client.bytes).into_owned();
    let statuses = answers.split("HTTP/1.").skip(1);
    (statuses.map(|answer| answer[2..5].parse().unwrap()).collect(), closed)
}

/// A body of that length by `Content-Length`, in a version of the line.
fn sized(line: &str) -> String {
    let len = BODY.len();
    publish("1.1", &line.replace("LEN", &len.to_string()), BODY)
}

fn chunked(line: &str) -> String {
    publish("1.1", line, &chunk(&format!("{:x}", BODY.len())))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_end_is_in_doubt_is_refused_with_the_connection() {
    let demo = Demo::start().await;
    let len = BODY.len();
    let in_chunks = format!("{len:x}");
    let cases: Vec<(&str, String)> = vec![
        // The length, said twice or in a way that another parser reads differently.
        ("a length and chunks", chunked(&format!("Content-Length: {len}\r\nTransfer-Encoding: chunked\r\n"))),
        ("chunks and a length", chunked("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n")),
        ("no length and chunks", chunked("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n")),
        ("two lengths", sized("Content-Length: LEN\r\nContent-Length: 0\r\n")),
        ("two equal lengths", sized("Content-Length: LEN\r\nContent-Length: LEN\r\n")),
        ("a list of lengths", sized("Content-Length: LEN, LEN\r\n")),
        ("a length with a plus", sized("Content-Length: +LEN\r\n")),
        ("a length below nothing", sized("Content-Length: -1\r\n")),
        ("a length in another base", sized("Content-Length: 0x20\r\n")),
        ("a length with a space", sized("Content-Length: 3 2\r\n")),
        ("an empty length", sized("Content-Length:\r\n")),
        ("a length of 2^64", sized("Content-Length: 18446744073709551616\r\n")),
        ("a space before the colon", sized("Content-Length : LEN\r\n")),
        // The encoding.
        ("two encodings", chunked("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n")),
        ("chunked twice", chunked("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")),
        ("an unknown encoding", chunked("Transfer-Encoding: xchunked\r\n")),
        ("a list of encodings", chunked("Transfer-Encoding: chunked, identity\r\n")),
        ("chunked not last", chunked("Transfer-Encoding: chunked, gzip\r\n")),
        ("identity", publish("1.1", "Transfer-Encoding: identity\r\n", BODY)),
        ("an empty encoding", chunked("Transfer-Encoding:\r\n")),
        ("an encoding in quotes", chunked("Transfer-Encoding: \"chunked\"\r\n")),
        ("an encoding with a tab before the colon", chunked("Transfer-Encoding\t: chunked\r\n")),
        ("an encoding with a vertical tab", chunked("Transfer-Encoding: \u{b}chunked\r\n")),
        ("an encoding with NUL", chunked("Transfer-Encoding: chunked\0\r\n")),
        ("an encoding on a folded line", chunked("Transfer-Encoding:\r\n chunked\r\n")),
        ("an encoding in HTTP/1.0", publish("1.0", "Transfer-Encoding: chunked\r\n", &chunk(&in_chunks))),
        // The head.
        ("a folded line", sized("Content-Length: LEN\r\nX-Folded: a\r\n Transfer-Encoding: chunked\r\n")),
        (
            "a first line that is folded",
            "GET /health/live HTTP/1.1\r\n Host: x\r\nHost: x\r\n\r\n".to_owned(),
        ),
        ("a lone CR in a value", sized("Content-Length: LEN\r\nX: a\rTransfer-Encoding: chunked\r\n")),
        ("NUL in a value", sized("Content-Length: LEN\r\nX: a\0b\r\n")),
        ("NUL in a name", sized("Content-Length: LEN\r\nX\0: a\r\n")),
        ("no name", sized("Content-Length: LEN\r\n: a\r\n")),
        ("no colon", sized("Content-Length: LEN\r\nTransfer-Encoding chunked\r\n")),
        ("two hosts", "GET /health/live HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n".to_owned()),
        ("no host", "GET /health/live HTTP/1.1\r\n\r\n".to_owned()),
        ("an unknown version", "GET /health/live HTTP/1.2\r\nHost: x\r\n\r\n".to_owned()),
        ("HTTP/0.9", "GET /health/live\r\n".to_owned()),
        ("NUL in the target", "GET /health\0/live HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
    ];
    let mut faults = Vec::new();
    for (name, request) in &cases {
        let (statuses, closed) = statuses(&demo, &format!("{request}{HIDDEN}")).await;
        if statuses != [400] || !closed {
            faults.push(format!("{name}: {statuses:?}, closed {closed}"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_whose_size_is_in_doubt_ends_the_connection_and_nothing_behind_it_is_a_request() {
    let demo = Demo::start().await;
    let size = format!("{:x}", BODY.len());
    let mut faults = Vec::new();
    for (name, body) in [
        ("a size with a plus", chunk(&format!("+{size}"))),
        ("a size below nothing", chunk("-1")),
        ("a size with a prefix", chunk(&format!("0x{size}"))),
        ("a size with an underscore", chunk("2_0")),
        ("an empty size", chunk("")),
        ("a size behind a space", chunk(&format!(" {size}"))),
        ("a size of 2^64", chunk("10000000000000000")),
        ("a size of 2^64 and more digits", chunk(&format!("1{}", "0".repeat(40)))),
        ("a size that ends with LF", format!("{size}\n{BODY}\r\n0\r\n\r\n")),
        ("a size that ends with CR", format!("{size}\r{BODY}\r\n0\r\n\r\n")),
        ("an extension that ends with LF", format!("{size};a\n{BODY}\r\n0\r\n\r\n")),
        ("NUL in an extension", chunk(&format!("{size};a=\0"))),
        ("a chunk that is longer than its size", format!("5\r\n{BODY}\r\n0\r\n\r\n")),
        ("a chunk that ends with LF", format!("{size}\r\n{BODY}\n0\r\n\r\n")),
    ] {
        let request = publish("1.1", "Transfer-Encoding: chunked\r\n", &body);
        let (statuses, closed) = statuses(&demo, &format!("{request}{HIDDEN}")).await;
        if statuses != [400] || !closed {
            faults.push(format!("{name}: {statuses:?}, closed {closed}"));
        }
    }
    // A size that no body may have: it is refused once more than that has come, or never, and what follows is its body.
    for size in ["ffffffffffffffff", "8000000000000000", "7fffffffffffffff"] {
        let request = publish("1.1", "Transfer-Encoding: chunked\r\n", &chunk(size));
        let mut client = RawClient::connect(&demo).await;
        client.write(format!("{request}{HIDDEN}")).await;
        let answered = timeout(Duration::from_secs(1), client.read()).await;
        let answer = String::from_utf8_lossy(&client.bytes).into_owned();
        if answered.is_ok() && !(answer.starts_with("HTTP/1.1 4") && answer.matches("HTTP/1.1").count() == 1)
        {
            faults.push(format!("{size}: {answer}"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unusual_requests_whose_end_is_certain_are_answered_once_each() {
    let demo = Demo::start().await;
    let size = format!("{:x}", BODY.len());
    let chunks = |body: &str| publish("1.1", "Transfer-Encoding: chunked\r\n", body);
    for (name, request) in [
        ("a length", sized("Content-Length: LEN\r\n")),
        ("zeros before a length", sized("Content-Length: 000LEN\r\n")),
        ("chunks", chunked("Transfer-Encoding: chunked\r\n")),
        ("another case", chunked("transfer-ENCODING: Chunked\r\n")),
        ("zeros before a size", chunks(&chunk(&format!("000000{size}")))),
        ("an extension", chunks(&chunk(&format!("{size};name=\"value; 0\"")))),
        ("64 KiB of extension", chunks(&chunk(&format!("{size};{}", "a".repeat(64 << 10))))),
        ("a trailer", chunks(&format!("{size}\r\n{BODY}\r\n0\r\nContent-Length: 5\r\nX-API-Key: x\r\n\r\n"))),
        ("one byte in each chunk", {
            let bytes: String = BODY.chars().map(|byte| format!("1\r\n{byte}\r\n")).collect();
            chunks(&format!("{bytes}0\r\n\r\n"))
        }),
        ("lines that end with LF", sized("Content-Length: LEN\r\n").replacen("\r\n", "\n", 4)),
        ("empty lines before it", format!("\r\n\r\n{}", sized("Content-Length: LEN\r\n"))),
    ] {
        let (statuses, closed) = statuses(&demo, &format!("{request}{HIDDEN}")).await;
        assert_eq!((statuses.as_slice(), closed), (&[200, 200][..], true), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_an_event_stream_or_a_refused_handshake_is_not_taken_for_its_own() {
    let demo = Demo::start().await;
    // Behind an event stream nothing is answered as long as the stream lasts.
    let mut client = RawClient::connect(&demo).await;
    client.write(format!("{}{HIDDEN}", RawClient::event_stream(1))).await;
    client.until(":connected").await;
    demo.until_sessions(1, 1).await;
    demo.publish_to(1, "the stream goes on").await;
    let seen = client.until("data:the stream goes on").await;
    assert!(!seen.contains("HTTP/1.1"), "{seen}");

    // Bytes behind a handshake are frames, and these are none.
    let mut client = RawClient::connect(&demo).await;
    client.write(format!("{}{HIDDEN}", RawClient::websocket(2))).await;
    assert!(client.head().await.starts_with("HTTP/1.1 101 "));
    within("the end", async { while client.tcp.read_buf(&mut client.bytes).await.unwrap_or(0) > 0 {} }).await;
    let seen = String::from_utf8_lossy(&client.bytes).into_owned();
    assert!(!seen.contains("HTTP/1.1"), "{seen}");
    demo.until_sessions(2, 0).await;
}
